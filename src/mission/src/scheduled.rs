//! Scheduled posts: they wait at this node and are posted when they are due, like any other post from then on.

use std::collections::BTreeMap;

use model::Id;
use rusqlite::{Connection, Row, params};

use crate::access::{require_in_channel, require_in_team};
use crate::channels::{channel_row_by_id, require_channel};
use crate::core::{Core, Tx};
use crate::drafts::{checked, draft_row, with_files};
use crate::error::{AppError, AppResult};
use crate::events::Broadcast;
use crate::mentions::acting_as;
use crate::posts::{check_priority, post_row_by_id, require_create_post};
use crate::rows::{all, count, get, id, id_array, run, text, to_json};
use crate::types::{NewDraft, NewPost, NewPostMetadata, Priority, ScheduledPost, Session};
use crate::users::user_row_by_id;

/// Most scheduled posts of one user.
const SCHEDULED_MAX: i64 = 1_000;

/// Scheduled posts read at once when they are due.
const DUE_AT_ONCE: i64 = 100;

/// How far in the past the time may lie, for clients whose clock is behind (the real server's number).
const PAST_MAX_MS: i64 = 5_000;

/// What is overdue by more was missed, not late: a node that was off for days must not post what nobody expects any
/// more (the real server's number).
const OVERDUE_MAX_MS: i64 = 24 * 60 * 60 * 1_000;

/// Why a scheduled post is not posted, by the real server's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Refused {
    ChannelArchived,
    ChannelNotFound,
    UserMissing,
    UserDeleted,
    NoChannelPermission,
    ThreadDeleted,
    UnableToSend,
    InvalidPost,
}

impl Refused {
    fn code(self) -> &'static str {
        match self {
            Self::ChannelArchived => "channel_archived",
            Self::ChannelNotFound => "channel_not_found",
            Self::UserMissing => "user_missing",
            Self::UserDeleted => "user_deleted",
            Self::NoChannelPermission => "no_channel_permission",
            Self::ThreadDeleted => "thread_deleted",
            Self::UnableToSend => "unable_to_send",
            Self::InvalidPost => "invalid_post",
        }
    }

    /// For the message to the writer.
    fn reason(self) -> &'static str {
        match self {
            Self::ChannelArchived => "the channel is archived",
            Self::ChannelNotFound => "the channel is not here any more",
            Self::UserMissing | Self::UserDeleted => "the account is deactivated",
            Self::NoChannelPermission => "posting there is not permitted",
            Self::ThreadDeleted => "what it answers is deleted",
            Self::UnableToSend => "this server was off when it was due",
            Self::InvalidPost => "it is not a valid message",
        }
    }
}

fn scheduled_row(r: &Row<'_>) -> rusqlite::Result<ScheduledPost> {
    Ok(ScheduledPost {
        draft: draft_row(r)?,
        id: id(r, "id")?,
        scheduled_at: r.get("scheduled_at")?,
        processed_at: r.get("processed_at")?,
        error_code: r.get("error_code")?,
    })
}

fn by_id(db: &Connection, id: Id) -> rusqlite::Result<Option<ScheduledPost>> {
    get(db, "SELECT * FROM scheduled_posts WHERE id = ?1", [id.as_str()], scheduled_row)
}

impl ScheduledPost {
    /// What is asked for when it is posted.
    fn as_post(&self) -> NewPost {
        let flag = |name| self.draft.priority.get(name).and_then(serde_json::Value::as_bool).unwrap_or(false);
        let priority = self.draft.priority.get("priority").and_then(serde_json::Value::as_str).map(|level| Priority {
            priority: level.to_owned(),
            requested_ack: flag("requested_ack"),
            persistent_notifications: flag("persistent_notifications"),
        });
        NewPost {
            channel_id: self.draft.channel_id.to_string(),
            root_id: text(&self.draft.root_id).to_owned(),
            message: self.draft.message.clone(),
            kind: self.draft.kind.clone(),
            props: self.draft.props.clone(),
            file_ids: self.draft.file_ids.iter().map(Id::to_string).collect(),
            // Once, also when the node dies between the commit and the end of the round.
            pending_post_id: format!("scheduled:{}", self.id),
            metadata: Some(NewPostMetadata { priority }),
            ..NewPost::default()
        }
    }
}

/// May it be posted now?
fn refusal(db: &Connection, post: &ScheduledPost, now: i64) -> AppResult<Option<Refused>> {
    let Some(user) = user_row_by_id(db, post.draft.user_id)?.map(|row| row.user) else {
        return Ok(Some(Refused::UserMissing));
    };
    let Some(c) = channel_row_by_id(db, post.draft.channel_id)?.map(|row| row.channel) else {
        return Ok(Some(Refused::ChannelNotFound));
    };
    let root = post.draft.root_id.map(|root| post_row_by_id(db, root)).transpose()?;
    Ok(if now - post.scheduled_at > OVERDUE_MAX_MS {
        Some(Refused::UnableToSend)
    } else if user.delete_at > 0 {
        Some(Refused::UserDeleted)
    } else if c.delete_at > 0 {
        Some(Refused::ChannelArchived)
    } else if root.is_some_and(|root| root.is_none_or(|root| root.delete_at > 0)) {
        Some(Refused::ThreadDeleted)
    } else if require_create_post(db, &acting_as(&user), &c).is_err() {
        Some(Refused::NoChannelPermission)
    } else {
        None
    })
}

impl Tx<'_> {
    fn tell_scheduled(&mut self, event: &'static str, post: &ScheduledPost, connection: Option<Id>) {
        let told = Broadcast::to_user(event, post.draft.user_id).with_text("scheduledPost", post);
        self.tell(told.omitting_connection(connection));
    }

    fn put_scheduled(&self, post: &ScheduledPost) -> rusqlite::Result<()> {
        let d = &post.draft;
        run(
            &self.db,
            "INSERT INTO scheduled_posts (id, user_id, channel_id, root_id, create_at, update_at, message, type, props,
                file_ids, priority, scheduled_at, processed_at, error_code)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
             ON CONFLICT (id) DO UPDATE SET update_at = excluded.update_at, message = excluded.message,
                props = excluded.props, file_ids = excluded.file_ids, priority = excluded.priority,
                scheduled_at = excluded.scheduled_at, processed_at = excluded.processed_at,
                error_code = excluded.error_code",
            params![
                post.id.as_str(),
                d.user_id.as_str(),
                d.channel_id.as_str(),
                text(&d.root_id),
                d.create_at,
                d.update_at,
                d.message,
                d.kind,
                to_json(&d.props),
                id_array(&d.file_ids),
                to_json(&d.priority),
                post.scheduled_at,
                post.processed_at,
                post.error_code,
            ],
        )?;
        Ok(())
    }

    /// What both saving and changing check.
    fn check_scheduled(&self, by: &Session, new: &NewDraft, post: &ScheduledPost) -> AppResult<()> {
        let refused = |_| AppError::permissions("createSchedulePost", "create_post");
        let c = require_channel(&self.db, post.draft.channel_id).map_err(refused)?.channel;
        require_create_post(&self.db, by, &c)?;
        if !post.draft.file_ids.is_empty() {
            require_in_channel("createSchedulePost", &self.db, by, &c, "upload_file")?;
        }
        check_priority(new.metadata.as_ref().and_then(|m| m.priority.as_ref()), post.draft.root_id.is_some())?;
        let bad = |field: &str| {
            let id = format!("model.scheduled_post.is_valid.{field}.app_error");
            Err(AppError::bad("ScheduledPost.IsValid", id, "The scheduled post is not valid."))
        };
        if post.draft.message.is_empty() && post.draft.file_ids.is_empty() {
            return bad("empty_post");
        }
        if post.scheduled_at - self.now < -PAST_MAX_MS {
            return bad("scheduled_at");
        }
        if c.delete_at > 0 {
            return Err(AppError::bad(
                "App.scheduledPostPreSaveChecks",
                "app.save_scheduled_post.channel_deleted.app_error",
                "The channel is archived.",
            ));
        }
        Ok(())
    }
}

/// The user's own scheduled post; `verb` names the operation in the error.
fn own(db: &Connection, by: &Session, post: Id, verb: &str) -> AppResult<ScheduledPost> {
    let missing = format!("app.{verb}_scheduled_post.existing_scheduled_post.not_exist");
    let found = by_id(db, post)?
        .ok_or_else(|| AppError::new("scheduledPost", missing, "The scheduled post does not exist.", 404))?;
    if found.draft.user_id == by.user_id {
        return Ok(found);
    }
    let id = format!("app.{verb}_scheduled_post.{verb}_permission.error");
    Err(AppError::new("scheduledPost", id, "The scheduled post is somebody else's.", 403))
}

impl Core {
    /// Keeps a post until it is due. `connection` is that of the client.
    ///
    /// # Errors
    /// 403 where the user may not post, 400 for a bad post, a time in the past or too many of them.
    pub fn schedule_post(&self, by: &Session, new: &NewDraft, connection: Option<Id>) -> AppResult<ScheduledPost> {
        let post = self.write(|tx| {
            let mut post = ScheduledPost {
                draft: checked(tx, by, new)?,
                id: tx.mint(),
                scheduled_at: new.scheduled_at,
                processed_at: 0,
                error_code: String::new(),
            };
            tx.check_scheduled(by, new, &post)?;
            let sql = "SELECT count(*) FROM scheduled_posts WHERE user_id = ?1";
            if count(&tx.db, sql, [by.user_id.as_str()])? >= SCHEDULED_MAX {
                return Err(AppError::bad(
                    "createSchedulePost",
                    "holdfast.scheduled_post.too_many.app_error",
                    "There are too many scheduled posts; delete some.",
                ));
            }
            tx.put_scheduled(&post)?;
            with_files(&tx.db, &mut post.draft)?;
            tx.tell_scheduled("scheduled_post_created", &post, connection);
            Ok(post)
        })?;
        self.due_changed();
        Ok(post)
    }

    /// The user's scheduled posts by team id, and under `directChannels` where asked for; failed ones among them.
    ///
    /// # Errors
    /// 403 for a team of others.
    pub fn scheduled_posts(
        &self,
        by: &Session,
        team: Id,
        with_direct: bool,
    ) -> AppResult<BTreeMap<String, Vec<ScheduledPost>>> {
        self.read(|db| {
            require_in_team("getTeamScheduledPosts", db, by, team, "view_team")?;
            let sql = "SELECT s.* FROM scheduled_posts s JOIN channels c ON c.id = s.channel_id
                WHERE s.user_id = ?1 AND c.team_id = ?2 ORDER BY s.scheduled_at, s.create_at, s.id";
            let mut found = BTreeMap::new();
            let direct = with_direct.then(|| ("directChannels".to_owned(), String::new()));
            for (name, team) in [(team.to_string(), team.to_string())].into_iter().chain(direct) {
                let mut posts = all(db, sql, [by.user_id.as_str(), &team], scheduled_row)?;
                for post in &mut posts {
                    with_files(db, &mut post.draft)?;
                }
                found.insert(name, posts);
            }
            Ok(found)
        })
    }

    /// Changes text, files, priority or time of a scheduled post; a failed one waits again.
    ///
    /// # Errors
    /// 404, 403 for others', and as [`Core::schedule_post`].
    pub fn update_scheduled_post(
        &self,
        by: &Session,
        id: Id,
        new: &NewDraft,
        connection: Option<Id>,
    ) -> AppResult<ScheduledPost> {
        let post = self.write(|tx| {
            let before = own(&tx.db, by, id, "update")?;
            let place = NewDraft {
                channel_id: before.draft.channel_id.to_string(),
                root_id: text(&before.draft.root_id).to_owned(),
                kind: before.draft.kind.clone(),
                ..new.clone()
            };
            let mut draft = checked(tx, by, &place)?;
            draft.create_at = before.draft.create_at;
            let mut post = ScheduledPost {
                draft,
                id,
                scheduled_at: new.scheduled_at,
                processed_at: tx.now,
                error_code: new.error_code.chars().take(200).collect(),
            };
            tx.check_scheduled(by, &place, &post)?;
            tx.put_scheduled(&post)?;
            with_files(&tx.db, &mut post.draft)?;
            tx.tell_scheduled("scheduled_post_updated", &post, connection);
            Ok::<_, AppError>(post)
        })?;
        self.due_changed();
        Ok(post)
    }

    /// Removes a scheduled post.
    ///
    /// # Errors
    /// 404, or 403 for others'.
    pub fn delete_scheduled_post(&self, by: &Session, id: Id, connection: Option<Id>) -> AppResult<ScheduledPost> {
        self.write(|tx| {
            let post = own(&tx.db, by, id, "delete")?;
            run(&tx.db, "DELETE FROM scheduled_posts WHERE id = ?1", [id.as_str()])?;
            tx.tell_scheduled("scheduled_post_deleted", &post, connection);
            Ok(post)
        })
    }

    /// Posts what is due, each in a transaction with its removal; tells writers what could not be posted.
    pub(crate) fn post_due(&self) -> AppResult<()> {
        let now = self.now().0;
        let sql = "SELECT * FROM scheduled_posts WHERE error_code = '' AND scheduled_at <= ?1
            AND (scheduled_at, id) > (?2, ?3) ORDER BY scheduled_at, id LIMIT ?4";
        let mut failed: BTreeMap<Id, Vec<(ScheduledPost, Refused)>> = BTreeMap::new();
        // What has no room yet must not hold up what has: the first such error is told at the end.
        let mut first_error = Ok(());
        let mut last = (i64::MIN, String::new());
        loop {
            let after = params![now, last.0, last.1, DUE_AT_ONCE];
            let due = self.read(|db| all(db, sql, after, scheduled_row).map_err(AppError::from))?;
            let Some(newest) = due.last() else { break };
            last = (newest.scheduled_at, newest.id.to_string());
            for post in due {
                match self.post_one(&post) {
                    Ok(None) => {}
                    Ok(Some(refused)) => failed.entry(post.draft.user_id).or_default().push((post, refused)),
                    Err(error) => first_error = first_error.and(Err(error)),
                }
            }
        }
        for (user, posts) in failed {
            self.write(|tx| tx.tell_failed(user, &posts))?;
        }
        first_error
    }

    /// Posts one, unless it changed meanwhile or must not be posted. Why not.
    fn post_one(&self, seen: &ScheduledPost) -> AppResult<Option<Refused>> {
        let outcome: AppResult<Option<Refused>> = self.write(|tx| {
            let Some(post) = by_id(&tx.db, seen.id)?.filter(|post| post == seen) else { return Ok(None) };
            if let Some(refused) = refusal(&tx.db, &post, tx.now)? {
                return Ok(Some(refused));
            }
            let Some(user) = user_row_by_id(&tx.db, post.draft.user_id)? else { return Ok(Some(Refused::UserMissing)) };
            tx.write_post(&acting_as(&user.user), &post.as_post(), false)?;
            run(&tx.db, "DELETE FROM scheduled_posts WHERE id = ?1", [post.id.as_str()])?;
            tx.tell_scheduled("scheduled_post_deleted", &post, None);
            Ok(None)
        });
        let refused = match outcome {
            Ok(None) => return Ok(None),
            Ok(Some(refused)) => refused,
            // Room may come back, and a store that fails may work again: it stays due.
            Err(error) if error.status_code >= 500 => return Err(error),
            Err(error) => {
                tracing::info!(scheduled_post = %seen.id, %error, "a scheduled post is not valid");
                Refused::InvalidPost
            }
        };
        self.write(|tx| {
            let Some(mut post) = by_id(&tx.db, seen.id)?.filter(|post| post == seen) else { return Ok(None) };
            refused.code().clone_into(&mut post.error_code);
            post.processed_at = tx.now;
            post.draft.update_at = tx.now;
            tx.put_scheduled(&post)?;
            tx.tell_scheduled("scheduled_post_updated", &post, None);
            Ok(Some(refused))
        })
    }
}

impl Tx<'_> {
    /// One message about everything of a user that could not be posted.
    fn tell_failed(&mut self, user: Id, posts: &[(ScheduledPost, Refused)]) -> AppResult<()> {
        let Some(row) = user_row_by_id(&self.db, user)?.filter(|row| row.user.delete_at == 0) else { return Ok(()) };
        let mut counts: BTreeMap<(Id, Refused), usize> = BTreeMap::new();
        for (post, refused) in posts {
            *counts.entry((post.draft.channel_id, *refused)).or_default() += 1;
        }
        let mut lines = vec![format!("Scheduled messages that could not be sent: {}", posts.len())];
        for ((channel, refused), n) in counts {
            let c = channel_row_by_id(&self.db, channel)?.map(|row| row.channel);
            let name = match c {
                Some(c) if c.kind == "O" => format!("~{}", c.name),
                Some(c) if c.is_direct_or_group() => "a direct message".to_owned(),
                Some(_) => "a private channel".to_owned(),
                None => "an unknown channel".to_owned(),
            };
            lines.push(format!("- {n} to {name}: {}", refused.reason()));
        }
        let bot = self.local_bot()?.user.id;
        let channel = self.bot_channel(bot, row.user.id)?;
        self.system_post(&channel, bot, "", lines.join("\n"), &[("from_bot", "true")])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::{Precedence, SpaceLevel};

    use super::*;
    use crate::testkit::Node;

    #[test]
    fn posts_without_room_do_not_hold_up_urgent_ones_behind_them() {
        let node = Node::new(1);
        let alice = node.user("alice");
        let (_, square) = node.team(&alice, "mission");
        let urgent = |priority: &str| if priority == "urgent" { Precedence::Flash } else { Precedence::Routine };
        node.core.set_class_of_post(Arc::new(move |priority, _| urgent(priority)));
        let schedule = |text: &str, priority: &str| {
            let new = NewDraft {
                channel_id: square.id.to_string(),
                message: text.to_owned(),
                priority: [("priority".to_owned(), priority.into())].into_iter().collect(),
                scheduled_at: node.core.now().0 + 1_000,
                ..NewDraft::default()
            };
            node.core.schedule_post(&alice, &new, None).unwrap();
        };
        // More than are read at once.
        for n in 0..=DUE_AT_ONCE {
            schedule(&format!("routine {n}"), "");
        }
        node.advance(10);
        schedule("urgent", "urgent");
        node.advance(5_000);
        node.core.set_space(SpaceLevel::ALL[5]);
        assert_eq!(node.core.do_due().unwrap_err().status_code, 507);
        let there = || {
            let sql = "SELECT message FROM posts WHERE type = '' ORDER BY create_at, message";
            node.core.read(|db| all(db, sql, [], |r| r.get::<_, String>(0))).unwrap()
        };
        assert_eq!(there(), ["urgent"]);
        // And nothing is lost: with room the others go out.
        node.core.set_space(SpaceLevel::Ok);
        node.core.do_due().unwrap();
        assert_eq!(there().len() as i64, DUE_AT_ONCE + 2);
    }
}
