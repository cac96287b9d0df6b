//! Reactions to posts.

use std::collections::BTreeMap;

use model::event::ReactionState;
use model::{Event, Id, UnixMillis};
use rusqlite::params;

use crate::access::{require, require_read};
use crate::channels::require_channel;
use crate::core::{Core, Tx, version_of};
use crate::error::{AppError, AppResult};
use crate::events::Broadcast;
use crate::posts::{may_react, reactions_of, require_post};
use crate::rows::{count, get, reaction, run};
use crate::types::{Reaction, Session};

/// As the real server (`ReactionEmojiName` column) has it.
const EMOJI_NAME_MAX_BYTES: usize = 64;
/// Most different emoji on one post, the real server's default.
const EMOJI_PER_POST_MAX: i64 = 50;

impl Tx<'_> {
    pub(crate) fn put_reaction(&mut self, s: &ReactionState) -> rusqlite::Result<()> {
        run(
            &self.db,
            "INSERT INTO reactions (post_id, user_id, emoji_name, channel_id, create_at, update_at, delete_at, ver_at,
                ver_by) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
             ON CONFLICT (post_id, user_id, emoji_name) DO UPDATE SET create_at = excluded.create_at,
                update_at = excluded.update_at, delete_at = excluded.delete_at, ver_at = excluded.ver_at,
                ver_by = excluded.ver_by",
            params![
                s.post_id.as_str(),
                s.user_id.as_str(),
                s.emoji_name,
                s.channel_id.as_str(),
                s.create_at.0,
                s.update_at.0,
                s.delete_at.0,
                s.version.at.0 as i64,
                s.version.by.0,
            ],
        )?;
        Ok(())
    }

    /// Tells the channel.
    pub(crate) fn tell_reaction(&mut self, r: &Reaction) -> rusqlite::Result<()> {
        let event = if r.delete_at == 0 { "reaction_added" } else { "reaction_removed" };
        let members = self.member_ids(r.channel_id)?;
        self.tell(Broadcast::to_channel(event, r.channel_id, members).with_text("reaction", r));
        Ok(())
    }

    fn save_reaction(&mut self, r: &Reaction, post_update_at: i64) -> AppResult<()> {
        self.write_reaction(r, post_update_at)?;
        Ok(self.tell_reaction(r)?)
    }

    /// Gives a reaction a version, writes it and puts it into the outbox; tells nobody.
    pub(crate) fn write_reaction(&mut self, r: &Reaction, post_update_at: i64) -> AppResult<()> {
        let sql = "SELECT ver_at, ver_by FROM reactions WHERE post_id = ?1 AND user_id = ?2 AND emoji_name = ?3";
        let current = version_of(&self.db, sql, [r.post_id.as_str(), r.user_id.as_str(), &r.emoji_name])?;
        let at = self.tick();
        let state = ReactionState {
            version: self.version_after(at, current),
            post_id: r.post_id,
            user_id: r.user_id,
            emoji_name: r.emoji_name.clone(),
            channel_id: r.channel_id,
            create_at: UnixMillis(r.create_at),
            update_at: UnixMillis(r.update_at),
            delete_at: UnixMillis(r.delete_at),
            post_update_at: UnixMillis(post_update_at),
        };
        self.put_reaction(&state)?;
        self.bump(r.post_id, post_update_at)?;
        if count(&self.db, "SELECT local FROM channels WHERE id = ?1", [r.channel_id.as_str()])? == 0 {
            self.emit(at, &Event::Reaction(state))?;
        }
        Ok(())
    }
}

const ONE: &str = "SELECT * FROM reactions WHERE post_id = ?1 AND user_id = ?2 AND emoji_name = ?3 AND delete_at = 0";

impl Core {
    /// Adds a reaction; adding it again gives the one that is there.
    ///
    /// # Errors
    /// 400 for a bad emoji name or too many emoji, 403 for another user or channel, 404 for a missing post.
    pub fn save_reaction(&self, by: &Session, user: Id, post: Id, emoji: &str) -> AppResult<Reaction> {
        if by.user_id != user {
            return Err(AppError::new(
                "saveReaction",
                "api.reaction.save_reaction.user_id.app_error",
                "You cannot save reaction for the other user.",
                403,
            ));
        }
        check_emoji(emoji)?;
        self.write(|tx| {
            let row = require_post(&tx.db, post)?;
            let c = require_channel(&tx.db, row.channel_id)?.channel;
            may_react(&tx.db, by, &c, "add_reaction")?;
            if c.delete_at > 0 {
                return Err(AppError::new(
                    "saveReactionForPost",
                    "api.reaction.save.archived_channel.app_error",
                    "You cannot react in an archived channel.",
                    403,
                ));
            }
            if let Some(found) = get(&tx.db, ONE, [post.as_str(), user.as_str(), emoji], reaction)? {
                return Ok(found);
            }
            let sql = "SELECT count(DISTINCT emoji_name) FROM reactions
                WHERE post_id = ?1 AND delete_at = 0 AND emoji_name <> ?2";
            if count(&tx.db, sql, [post.as_str(), emoji])? >= EMOJI_PER_POST_MAX {
                return Err(AppError::bad(
                    "saveReactionForPost",
                    "app.reaction.save.save.too_many_reactions",
                    "Reaction limit has been reached for this post.",
                ));
            }
            let now = tx.now.max(row.update_at + 1);
            let r = Reaction {
                user_id: user,
                post_id: post,
                emoji_name: emoji.to_owned(),
                create_at: now,
                update_at: now,
                delete_at: 0,
                remote_id: String::new(),
                channel_id: row.channel_id,
            };
            tx.save_reaction(&r, now)?;
            Ok(r)
        })
    }

    /// Withdraws a reaction.
    ///
    /// # Errors
    /// 403 for another user's without permission, 404 for a missing post. A reaction that is not there is no error.
    pub fn delete_reaction(&self, by: &Session, user: Id, post: Id, emoji: &str) -> AppResult<()> {
        if by.user_id != user {
            require("deleteReaction", by, "remove_others_reactions")?;
        }
        check_emoji(emoji)?;
        self.write(|tx| {
            let row = require_post(&tx.db, post)?;
            let c = require_channel(&tx.db, row.channel_id)?.channel;
            may_react(&tx.db, by, &c, "remove_reaction")?;
            if c.delete_at > 0 {
                return Err(AppError::new(
                    "deleteReactionForPost",
                    "api.reaction.delete.archived_channel.app_error",
                    "You cannot remove a reaction in an archived channel.",
                    403,
                ));
            }
            let Some(mut r) = get(&tx.db, ONE, [post.as_str(), user.as_str(), emoji], reaction)? else {
                return Ok(());
            };
            let now = tx.now.max(row.update_at + 1);
            r.update_at = now;
            r.delete_at = now;
            tx.save_reaction(&r, now)
        })
    }

    /// The reactions to a post.
    ///
    /// # Errors
    /// 404, or 403 when its channel is not the asker's.
    pub fn reactions(&self, by: &Session, post: Id) -> AppResult<Vec<Reaction>> {
        Ok(self.post(by, post, false)?.metadata.reactions)
    }

    /// The reactions to these posts, as far as the asker may read them.
    ///
    /// # Errors
    /// When the store fails.
    pub fn reactions_of_posts(&self, by: &Session, posts: &[Id]) -> AppResult<BTreeMap<Id, Vec<Reaction>>> {
        self.read(|db| {
            let mut found = reactions_of(db, posts)?;
            let mut allowed = BTreeMap::new();
            for post in posts {
                let Ok(row) = require_post(db, *post) else { continue };
                let c = require_channel(db, row.channel_id)?.channel;
                if require_read("getBulkReactions", db, by, &c).is_ok() {
                    allowed.insert(*post, found.remove(post).unwrap_or_default());
                }
            }
            Ok(allowed)
        })
    }
}

pub(crate) fn check_emoji(name: &str) -> AppResult<()> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'+');
    if !name.is_empty() && name.len() <= EMOJI_NAME_MAX_BYTES && name.bytes().all(plain) {
        return Ok(());
    }
    // The original looks the name up, and finds no such emoji.
    Err(AppError::not_found("saveReaction", "app.emoji.get_by_name.no_result"))
}
