//! Acknowledgements of posts: who says that they have read what they were asked to.

use std::collections::BTreeMap;

use model::event::AcknowledgementState;
use model::{Event, Id, UnixMillis, Version};
use rusqlite::{Connection, Row, params};

use crate::access::{require_read, require_self};
use crate::channels::require_channel;
use crate::core::{Core, Tx, version_of};
use crate::error::{AppError, AppResult};
use crate::events::Broadcast;
use crate::posts::{post_row_by_id, require_post};
use crate::rows::{PostRow, all, count, get, id, id_array, run};
use crate::types::{Acknowledgement, Channel, Session};

/// How long an acknowledgement can be withdrawn, the real server's time.
const WITHDRAW_MS_MAX: i64 = 5 * 60 * 1_000;

fn acknowledgement(r: &Row<'_>) -> rusqlite::Result<Acknowledgement> {
    Ok(Acknowledgement {
        user_id: id(r, "user_id")?,
        post_id: id(r, "post_id")?,
        acknowledged_at: r.get("acknowledged_at")?,
        channel_id: id(r, "channel_id")?,
    })
}

/// Those of these posts that stand, the earliest first.
pub(crate) fn acknowledgements_of(
    db: &Connection,
    posts: &[Id],
) -> rusqlite::Result<BTreeMap<Id, Vec<Acknowledgement>>> {
    let sql = "SELECT * FROM acknowledgements WHERE post_id IN (SELECT value FROM json_each(?1))
        AND acknowledged_at > 0 ORDER BY acknowledged_at, user_id";
    let mut found: BTreeMap<Id, Vec<Acknowledgement>> = BTreeMap::new();
    for a in all(db, sql, [id_array(posts)], acknowledgement)? {
        found.entry(a.post_id).or_default().push(a);
    }
    Ok(found)
}

const VERSION: &str = "SELECT ver_at, ver_by FROM acknowledgements WHERE post_id = ?1 AND user_id = ?2";
const ONE: &str = "SELECT * FROM acknowledgements WHERE post_id = ?1 AND user_id = ?2 AND acknowledged_at > 0";

impl Tx<'_> {
    fn put_acknowledgement(&self, s: &AcknowledgementState) -> rusqlite::Result<()> {
        run(
            &self.db,
            "INSERT INTO acknowledgements (post_id, user_id, channel_id, acknowledged_at, ver_at, ver_by)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (post_id, user_id) DO UPDATE SET acknowledged_at = excluded.acknowledged_at,
                ver_at = excluded.ver_at, ver_by = excluded.ver_by",
            params![
                s.post_id.as_str(),
                s.user_id.as_str(),
                s.channel_id.as_str(),
                s.acknowledged_at.0,
                s.version.at.0 as i64,
                s.version.by.0,
            ],
        )?;
        Ok(())
    }

    /// Tells the channel, and shows the post as it is now.
    fn tell_acknowledgement(&mut self, a: &Acknowledgement, given: bool) -> rusqlite::Result<()> {
        let event = if given { "post_acknowledgement_added" } else { "post_acknowledgement_removed" };
        let members = self.member_ids(a.channel_id)?;
        self.tell(Broadcast::to_channel(event, a.channel_id, members).with_text("acknowledgement", a));
        match post_row_by_id(&self.db, a.post_id)? {
            Some(row) => self.tell_post("post_edited", &row),
            None => Ok(()),
        }
    }

    fn save_acknowledgement(&mut self, row: &PostRow, user: Id, at: i64) -> AppResult<Acknowledgement> {
        let key = [row.id.as_str(), user.as_str()];
        let before = get(&self.db, ONE, key, acknowledgement)?;
        let current = version_of(&self.db, VERSION, key)?;
        let tick = self.tick();
        let state = AcknowledgementState {
            version: self.version_after(tick, current),
            post_id: row.id,
            user_id: user,
            channel_id: row.channel_id,
            acknowledged_at: UnixMillis(at),
            post_update_at: UnixMillis(self.now.max(row.update_at + 1)),
        };
        self.put_acknowledgement(&state)?;
        self.bump(row.id, state.post_update_at.0)?;
        if count(&self.db, "SELECT local FROM channels WHERE id = ?1", [row.channel_id.as_str()])? == 0 {
            self.emit(tick, &Event::Acknowledgement(state))?;
        }
        let given = Acknowledgement { user_id: user, post_id: row.id, acknowledged_at: at, channel_id: row.channel_id };
        // Clients find a withdrawn one by its user.
        let told = if at > 0 { given.clone() } else { before.unwrap_or_else(|| given.clone()) };
        self.tell_acknowledgement(&told, at > 0)?;
        Ok(given)
    }

    /// Applies another node's. False where the post is not known here.
    pub(crate) fn apply_acknowledgement(&mut self, s: &AcknowledgementState, post: &PostRow) -> rusqlite::Result<()> {
        let key = [s.post_id.as_str(), s.user_id.as_str()];
        let current: Option<Version> = version_of(&self.db, VERSION, key)?;
        self.bump(s.post_id, s.post_update_at.0)?;
        if current.is_some_and(|v| s.version <= v) {
            return Ok(());
        }
        let before = get(&self.db, ONE, key, acknowledgement)?;
        let state = AcknowledgementState { channel_id: post.channel_id, ..s.clone() };
        self.put_acknowledgement(&state)?;
        match (before, get(&self.db, ONE, key, acknowledgement)?) {
            (_, Some(given)) => self.tell_acknowledgement(&given, true),
            (Some(withdrawn), None) => self.tell_acknowledgement(&withdrawn, false),
            (None, None) => Ok(()),
        }
    }
}

fn require_live(c: &Channel, verb: &str) -> AppResult<()> {
    if c.delete_at == 0 {
        return Ok(());
    }
    let id = format!("api.acknowledgement.{verb}.archived_channel.app_error");
    Err(AppError::new("acknowledgement", id, "The channel is archived.", 403))
}

impl Core {
    /// Acknowledges a post.
    ///
    /// # Errors
    /// 403 for others, an archived channel or one that is not the asker's.
    pub fn acknowledge(&self, by: &Session, user: Id, post: Id) -> AppResult<Acknowledgement> {
        require_self("acknowledgePost", by, user)?;
        self.write(|tx| {
            let row = require_post(&tx.db, post)
                .map_err(|_| AppError::permissions("acknowledgePost", "read_channel_content"))?;
            let c = require_channel(&tx.db, row.channel_id)?.channel;
            require_read("acknowledgePost", &tx.db, by, &c)?;
            require_live(&c, "save")?;
            tx.save_acknowledgement(&row, user, tx.now)
        })
    }

    /// Withdraws an acknowledgement within five minutes.
    ///
    /// # Errors
    /// 404 when there is none, 403 for others, too late, an archived channel or one that is not the asker's.
    pub fn withdraw_acknowledgement(&self, by: &Session, user: Id, post: Id) -> AppResult<()> {
        require_self("unacknowledgePost", by, user)?;
        self.write(|tx| {
            let row = require_post(&tx.db, post)
                .map_err(|_| AppError::permissions("unacknowledgePost", "read_channel_content"))?;
            let c = require_channel(&tx.db, row.channel_id)?.channel;
            require_read("unacknowledgePost", &tx.db, by, &c)?;
            require_live(&c, "delete")?;
            let missing = || AppError::not_found("GetPostAcknowledgement", "app.acknowledgement.get.app_error");
            let given = get(&tx.db, ONE, [post.as_str(), user.as_str()], acknowledgement)?.ok_or_else(missing)?;
            if tx.now - given.acknowledged_at > WITHDRAW_MS_MAX {
                return Err(AppError::new(
                    "DeleteAcknowledgementForPost",
                    "api.acknowledgement.delete.deadline.app_error",
                    "It is too late to withdraw the acknowledgement.",
                    403,
                ));
            }
            tx.save_acknowledgement(&row, user, 0)?;
            Ok(())
        })
    }
}
