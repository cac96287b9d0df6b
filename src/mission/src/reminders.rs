//! Reminders of posts: this node's own, delivered as a message of its bot.

use model::Id;
use rusqlite::{Connection, params};

use crate::access::{require_read, require_self};
use crate::channels::require_channel;
use crate::core::{Core, Tx};
use crate::ephemeral::Ephemeral;
use crate::error::{AppError, AppResult};
use crate::posts::require_post;
use crate::rows::{all, count, first_id, get, nth_id, run};
use crate::types::Session;
use crate::users::user_row_by_id;

/// Most reminders of one user.
const REMINDERS_MAX: i64 = 1_000;

/// What a reminder says of its post.
struct About {
    channel: Id,
    team: String,
    username: String,
}

fn about(db: &Connection, post: Id) -> rusqlite::Result<Option<About>> {
    let sql = "SELECT p.channel_id, coalesce(t.name, ''), u.username FROM posts p
        JOIN channels c ON c.id = p.channel_id LEFT JOIN teams t ON t.id = c.team_id JOIN users u ON u.id = p.user_id
        WHERE p.id = ?1 AND p.delete_at = 0";
    get(db, sql, [post.as_str()], |r| Ok(About { channel: first_id(r)?, team: r.get(1)?, username: r.get(2)? }))
}

impl About {
    /// Where the post is shown, from the root of the site.
    fn link(&self, post: Id) -> String {
        if self.team.is_empty() { format!("/pl/{post}") } else { format!("/{}/pl/{post}", self.team) }
    }
}

impl Core {
    /// Reminds a user of a post at a time in Unix seconds; a second reminder of it replaces the first.
    ///
    /// # Errors
    /// 403 for others or a channel that is not the asker's, 404 for a missing post, 400 for too many reminders.
    pub fn remind(&self, by: &Session, user: Id, post: Id, target_time: i64) -> AppResult<()> {
        require_self("setPostReminder", by, user)?;
        self.write(|tx| {
            let row = require_post(&tx.db, post)
                .map_err(|_| AppError::permissions("setPostReminder", "read_channel_content"))?;
            require_read("setPostReminder", &tx.db, by, &require_channel(&tx.db, row.channel_id)?.channel)?;
            let sql = "SELECT count(*) FROM reminders WHERE user_id = ?1";
            if count(&tx.db, sql, [user.as_str()])? >= REMINDERS_MAX {
                return Err(AppError::bad(
                    "setPostReminder",
                    "holdfast.reminder.too_many.app_error",
                    "There are too many reminders.",
                ));
            }
            let sql = "INSERT INTO reminders (post_id, user_id, target_time) VALUES (?1, ?2, ?3)
                ON CONFLICT (post_id, user_id) DO UPDATE SET target_time = excluded.target_time";
            run(&tx.db, sql, params![post.as_str(), user.as_str(), target_time])?;
            let Some(about) = about(&tx.db, post)? else { return Ok(()) };
            let at = match jiff::Timestamp::from_second(target_time) {
                Ok(at) => at.strftime("%d %b %y %H:%M UTC").to_string(),
                Err(_) => format!("{target_time} s"),
            };
            let message = format!("You will be reminded of {} by @{} at {at}", about.link(post), about.username);
            let mut said = Ephemeral::new(about.channel, user, message);
            said.root_id = Some(post);
            said.prop("target_time", target_time);
            said.prop("team_name", about.team.as_str());
            said.prop("post_id", post.as_str());
            said.prop("username", about.username.as_str());
            said.prop("type", "reminder");
            tx.tell_ephemeral(user, said);
            Ok(())
        })?;
        self.due_changed();
        Ok(())
    }

    /// Delivers the reminders that are due.
    pub(crate) fn deliver_reminders(&self) -> AppResult<()> {
        let sql =
            "SELECT post_id, user_id FROM reminders WHERE target_time <= ?1 ORDER BY target_time, post_id LIMIT 100";
        let now = self.now().0 / 1_000;
        let due: Vec<(Id, Id)> =
            self.read(|db| all(db, sql, [now], |r| Ok((first_id(r)?, nth_id(r, 1)?))).map_err(AppError::from))?;
        for (post, user) in due {
            self.write(|tx| tx.deliver_reminder(post, user, now))?;
        }
        Ok(())
    }
}

impl Tx<'_> {
    fn deliver_reminder(&mut self, post: Id, user: Id, now: i64) -> AppResult<()> {
        let sql = "DELETE FROM reminders WHERE post_id = ?1 AND user_id = ?2 AND target_time <= ?3";
        let was_due = run(&self.db, sql, params![post.as_str(), user.as_str(), now])? > 0;
        let active = user_row_by_id(&self.db, user)?.is_some_and(|row| row.user.delete_at == 0);
        let Some(about) = about(&self.db, post)?.filter(|_| was_due && active) else { return Ok(()) };
        let message = format!("A reminder of this message by @{}: {}", about.username, about.link(post));
        let bot = self.local_bot()?.user.id;
        let channel = self.bot_channel(bot, user)?;
        let props = [
            ("team_name", about.team.as_str()),
            ("post_id", post.as_str()),
            ("username", about.username.as_str()),
            ("from_bot", "true"),
        ];
        self.system_post(&channel, bot, "reminder", message, &props)?;
        Ok(())
    }
}
