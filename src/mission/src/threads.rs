//! Collapsed reply threads: what each holds, who follows it, and what they have not read.
//!
//! ```text
//!  a reply, written here or applied --> threads (count, last reply, participants)
//!                                  `--> thread_members (followers, their mentions) --> thread_updated to each
//!  reading, following -------------> thread_members of that user alone
//! ```
//!
//! Both tables are this node's own: they follow from the posts and from what is done here, and do not travel. A reply
//! counts as unread by when it could first be read here, so that one that a bad link held up is not missed. Collapsed
//! threads are on for everybody, as on a new installation of the real server; `collapsed_threads_supported` of older
//! clients is honoured where the API has it.

use std::collections::{BTreeMap, BTreeSet};

use model::Id;
use rusqlite::{Connection, Row, params};
use serde_json::{Map, Value};

use crate::access::{require_in_team, require_read, require_self};
use crate::channels::{channel_row_by_id, require_channel};
use crate::core::{Core, Inner, Tx};
use crate::error::{AppError, AppResult};
use crate::events::Broadcast;
use crate::mentions::{Reader, mentioned_by_words};
use crate::posts::{post_row_by_id, render, require_post};
use crate::rows::{PostRow, all, count, exists, first_id, get, id, id_array, post_row, run, text, to_json, user};
use crate::types::{Channel, Post, Session, StringMap, Thread, ThreadQuery, Threads, User};
use crate::users::require_user;

/// What a new reply meant to its thread.
#[derive(Debug, Default)]
pub(crate) struct ReplyNoted {
    /// Who follows the thread only since this reply.
    pub(crate) new_followers: BTreeSet<Id>,
}

/// One user's relation to a thread.
#[derive(Clone, Copy, Debug)]
struct Membership {
    following: bool,
    last_viewed: i64,
    unread_mentions: i64,
}

/// A follower who is to hear how a thread stands.
#[derive(Clone, Copy, Debug)]
struct Follower {
    user: Id,
    is: Membership,
    /// How it stood before, where a single reply changed it.
    before: Option<Before>,
}

/// What was unread to a follower before.
#[derive(Clone, Copy, Debug)]
struct Before {
    mentions: i64,
    /// How many of the unread replies are new; `None` where nothing was unread before.
    new_replies: Option<i64>,
}

/// Participants that `thread_updated` names, those of the latest replies: it goes to every follower, and clients show a
/// handful of pictures.
const PARTICIPANTS_TOLD_MAX: usize = 20;

fn membership(db: &Connection, user: Id, thread: Id) -> rusqlite::Result<Option<Membership>> {
    let sql = "SELECT following, last_viewed, unread_mentions FROM thread_members WHERE user_id = ?1 AND post_id = ?2";
    get(db, sql, [user.as_str(), thread.as_str()], |r| {
        Ok(Membership { following: r.get(0)?, last_viewed: r.get(1)?, unread_mentions: r.get(2)? })
    })
}

/// Is the user an active member of the channel?
fn is_active_member(db: &Connection, channel: Id, user: Id) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM channel_members m JOIN users u ON u.id = m.user_id
        WHERE m.channel_id = ?1 AND m.user_id = ?2 AND m.delete_at = 0 AND u.delete_at = 0";
    exists(db, sql, [channel.as_str(), user.as_str()])
}

/// Live replies of the thread that could first be read after this moment.
fn unread_replies(db: &Connection, thread: Id, after: i64) -> rusqlite::Result<i64> {
    let sql = "SELECT count(*) FROM posts WHERE root_id = ?1 AND root_id <> '' AND shown_at > ?2 AND delete_at = 0
        AND original_id = ''";
    count(db, sql, params![thread.as_str(), after])
}

impl Tx<'_> {
    fn put_membership(&self, user: Id, thread: Id, m: Membership) -> rusqlite::Result<()> {
        run(
            &self.db,
            "INSERT INTO thread_members (user_id, post_id, following, last_viewed, last_update_at, unread_mentions)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (user_id, post_id) DO UPDATE SET following = excluded.following,
                last_viewed = excluded.last_viewed, last_update_at = excluded.last_update_at,
                unread_mentions = excluded.unread_mentions",
            params![user.as_str(), thread.as_str(), m.following, m.last_viewed, self.now, m.unread_mentions],
        )?;
        Ok(())
    }

    /// Everything that a new live reply means to its thread and to those who follow it.
    pub(crate) fn note_reply(
        &mut self,
        c: &Channel,
        row: &PostRow,
        mentioned: &BTreeSet<Id>,
    ) -> rusqlite::Result<ReplyNoted> {
        let mut noted = ReplyNoted::default();
        let Some(thread) = row.root_id else { return Ok(noted) };
        self.grow_thread(c, row, thread)?;
        let mut concerned: BTreeSet<Id> = mentioned.iter().copied().chain([row.user_id]).collect();
        if let Some(root) = post_row_by_id(&self.db, thread)? {
            if !root.props.contains("\"from_webhook\"") && is_active_member(&self.db, c.id, root.user_id)? {
                concerned.insert(root.user_id);
            }
            if c.kind != "D" {
                concerned.extend(mentioned_by_words(self.core, &self.db, c, &root)?);
            }
        }
        if c.kind != "D" {
            let sql = "SELECT user_id FROM channel_members WHERE channel_id = ?1 AND delete_at = 0
                AND json_extract(notify_props, '$.channel_auto_follow_threads') = 'on'";
            concerned.extend(all(&self.db, sql, [c.id.as_str()], first_id)?);
        }
        for user in concerned {
            let before = membership(&self.db, user, thread)?;
            let is_mentioned = mentioned.contains(&user);
            // Who stopped following comes back by a mention alone.
            if !is_mentioned && before.is_some_and(|m| !m.following) {
                continue;
            }
            let mut after = before.unwrap_or(Membership { following: false, last_viewed: 0, unread_mentions: 0 });
            if !after.following {
                after.following = true;
                noted.new_followers.insert(user);
            }
            after.unread_mentions += i64::from(is_mentioned);
            if user == row.user_id {
                // Whoever answers has read what they answer to.
                after.last_viewed = after.last_viewed.max(row.shown_at);
                after.unread_mentions = 0;
            } else if before.is_some_and(|m| m.following) && !is_mentioned {
                continue;
            }
            self.put_membership(user, thread, after)?;
        }
        Ok(noted)
    }

    /// Makes `user` a follower who has read so far, as another server had it; whoever follows or stopped to here is left alone.
    pub(crate) fn follow_as_told(
        &mut self,
        user: Id,
        thread: Id,
        last_viewed: i64,
        unread_mentions: i64,
    ) -> rusqlite::Result<()> {
        match membership(&self.db, user, thread)? {
            Some(_) => Ok(()),
            None => self.put_membership(user, thread, Membership { following: true, last_viewed, unread_mentions }),
        }
    }

    /// Counts a reply in; the thread begins with its first.
    pub(crate) fn grow_thread(&mut self, c: &Channel, row: &PostRow, thread: Id) -> rusqlite::Result<()> {
        let sql = "SELECT participants FROM threads WHERE post_id = ?1";
        let known: Option<String> = get(&self.db, sql, [thread.as_str()], |r| r.get(0))?;
        let Some(participants) = known else {
            let sql = "INSERT INTO threads (post_id, channel_id, team_id, reply_count, last_reply_at, participants, delete_at)
                VALUES (?1, ?2, ?3, 0, 0, '[]', 0)";
            run(&self.db, sql, [thread.as_str(), c.id.as_str(), text(&c.team_id)])?;
            return self.recount_thread(thread);
        };
        let mut participants: Vec<Id> = serde_json::from_str(&participants).unwrap_or_default();
        participants.retain(|p| *p != row.user_id);
        participants.push(row.user_id);
        let sql = "UPDATE threads SET reply_count = reply_count + 1, last_reply_at = max(last_reply_at, ?2),
            participants = ?3 WHERE post_id = ?1";
        run(&self.db, sql, params![thread.as_str(), row.shown_at, id_array(&participants)])?;
        Ok(())
    }

    /// Makes the thread agree with its posts again, after one was deleted or came back.
    pub(crate) fn recount_thread(&mut self, thread: Id) -> rusqlite::Result<()> {
        const LIVE: &str = "FROM posts WHERE root_id = ?1 AND root_id <> '' AND delete_at = 0 AND original_id = ''";
        let sql = format!(
            "UPDATE threads SET reply_count = (SELECT count(*) {LIVE}),
                last_reply_at = (SELECT coalesce(max(shown_at), 0) {LIVE}),
                participants = (SELECT json_group_array(user_id) FROM
                    (SELECT user_id {LIVE} GROUP BY user_id ORDER BY max(shown_at), user_id)),
                delete_at = coalesce((SELECT delete_at FROM posts WHERE id = ?1), 0)
             WHERE post_id = ?1"
        );
        run(&self.db, &sql, [thread.as_str()])?;
        Ok(())
    }

    /// A post of the thread was deleted: its mentions are unread no more, and those concerned hear of it.
    pub(crate) fn forget_reply(&mut self, c: &Channel, row: &PostRow) -> rusqlite::Result<()> {
        let Some(thread) = row.root_id else { return self.recount_thread(row.id) };
        // With its root deleted, as when all of it is, the thread is shown to nobody and need not be counted for each of
        // its replies; it is when the root comes back.
        let sql = "SELECT 1 FROM threads WHERE post_id = ?1 AND delete_at > 0";
        let is_gone = exists(&self.db, sql, [thread.as_str()])?;
        if !is_gone {
            self.recount_thread(thread)?;
        }
        for user in self.mentioned(c, row)? {
            let Some(m) = membership(&self.db, user, thread)? else { continue };
            if m.unread_mentions == 0 || m.last_viewed >= row.shown_at {
                continue;
            }
            let after = Membership { unread_mentions: m.unread_mentions - 1, ..m };
            self.put_membership(user, thread, after)?;
            if after.following && !is_gone && hears(&self.db, user)? {
                self.tell_thread(
                    c,
                    thread,
                    &[Follower { user, is: after, before: Some(Before { mentions: 0, new_replies: None }) }],
                )?;
            }
        }
        Ok(())
    }

    /// Who leaves a channel follows nothing in it.
    pub(crate) fn forget_threads(&mut self, channel: Id, user: Id) -> rusqlite::Result<()> {
        let sql = "DELETE FROM thread_members WHERE user_id = ?2 AND channel_id = ?1";
        run(&self.db, sql, [channel.as_str(), user.as_str()])?;
        Ok(())
    }

    /// Tells each follower who is a member, and may be listening, how the thread of a new reply stands.
    pub(crate) fn tell_followers(
        &mut self,
        c: &Channel,
        row: &PostRow,
        mentioned: &BTreeSet<Id>,
        noted: &ReplyNoted,
    ) -> rusqlite::Result<()> {
        let Some(thread) = row.root_id else { return Ok(()) };
        let mut followers = listening_followers(&self.db, c.id, thread)?;
        for follower in &mut followers {
            let (mentions, replies) = if noted.new_followers.contains(&follower.user) {
                (0, None)
            } else {
                (follower.is.unread_mentions - i64::from(mentioned.contains(&follower.user)), Some(1))
            };
            follower.before = Some(Before { mentions: mentions.max(0), new_replies: replies });
        }
        self.tell_thread(c, thread, &followers)
    }

    /// Tells followers once about all late replies of a transaction: a backlog of thousands must not be told one by one.
    pub(crate) fn tell_late_threads(&mut self) -> rusqlite::Result<()> {
        for (thread, channel) in std::mem::take(&mut self.late_threads) {
            let Some(row) = channel_row_by_id(&self.db, channel)? else { continue };
            let followers = listening_followers(&self.db, channel, thread)?;
            self.tell_thread(&row.channel, thread, &followers)?;
        }
        Ok(())
    }

    /// `thread_updated` to followers. What they are shown alike is read once, however many they are.
    fn tell_thread(&mut self, c: &Channel, thread: Id, followers: &[Follower]) -> rusqlite::Result<()> {
        let Some(read_from) = followers.iter().map(|follower| follower.is.last_viewed).min() else { return Ok(()) };
        let sql =
            "SELECT *, 0 AS last_viewed, 0 AS unread_mentions, 0 AS unread_replies FROM threads WHERE post_id = ?1";
        let Some(mut row) = get(&self.db, sql, [thread.as_str()], joined)? else { return Ok(()) };
        row.participants.drain(..row.participants.len().saturating_sub(PARTICIPANTS_TOLD_MAX));
        let Some(mut shown) = shown(self.core, &self.db, vec![row], true)?.pop() else { return Ok(()) };
        let sql = "SELECT shown_at FROM posts WHERE root_id = ?1 AND root_id <> '' AND shown_at > ?2 AND delete_at = 0
            AND original_id = '' ORDER BY shown_at";
        let replies: Vec<i64> = all(&self.db, sql, params![thread.as_str(), read_from], |r| r.get(0))?;
        for follower in followers {
            let read = replies.partition_point(|at| *at <= follower.is.last_viewed);
            shown.last_viewed_at = follower.is.last_viewed;
            shown.unread_mentions = follower.is.unread_mentions;
            shown.unread_replies = (replies.len() - read) as i64;
            let mut told = Broadcast::to_user("thread_updated", follower.user).with_text("thread", &shown);
            told.team_id = c.team_id;
            if let Some(before) = follower.before {
                let replies = before.new_replies.map_or(0, |new| (shown.unread_replies - new).max(0));
                told = told.with("previous_unread_mentions", before.mentions).with("previous_unread_replies", replies);
            }
            self.tell(told);
        }
        Ok(())
    }

    /// Marks every thread of these channels as read, for clients that show no threads.
    pub(crate) fn read_threads_of(&mut self, user: Id, channels: &[Id]) -> rusqlite::Result<()> {
        let sql = "UPDATE thread_members SET last_viewed = max(last_viewed, ?3, last_reply_at), unread_mentions = 0,
                last_update_at = ?3
            WHERE user_id = ?1 AND channel_id IN (SELECT value FROM json_each(?2)) AND last_reply_at > last_viewed";
        run(&self.db, sql, params![user.as_str(), id_array(channels), self.now])?;
        for channel in channels {
            let mut told = Broadcast::to_user("thread_read_changed", user).with("timestamp", self.now);
            told.channel_id = Some(*channel);
            self.tell(told);
        }
        Ok(())
    }

    fn set_following(&mut self, user: Id, team: Option<Id>, thread: Id, following: bool) -> rusqlite::Result<()> {
        let before = membership(&self.db, user, thread)?;
        let mut m = before.unwrap_or(Membership { following, last_viewed: 0, unread_mentions: 0 });
        m.following = following;
        if following {
            let sql = "SELECT coalesce(max(last_reply_at), 0) FROM threads WHERE post_id = ?1";
            m.last_viewed = m.last_viewed.max(self.now).max(count(&self.db, sql, [thread.as_str()])?);
            m.unread_mentions = 0;
        }
        self.put_membership(user, thread, m)?;
        let sql = "SELECT coalesce(max(reply_count), 0) FROM threads WHERE post_id = ?1";
        let replies = count(&self.db, sql, [thread.as_str()])?;
        let mut told = Broadcast::to_user("thread_follow_changed", user)
            .with("thread_id", thread.as_str())
            .with("state", following)
            .with("reply_count", replies);
        told.team_id = team;
        self.tell(told);
        Ok(())
    }

    /// Moves the read mark of a thread and tells the user's clients.
    fn set_thread_read(&mut self, user: Id, team: Id, thread: Id, at: i64) -> AppResult<Thread> {
        let before = membership(&self.db, user, thread)?.ok_or_else(not_followed)?;
        let root = require_post(&self.db, thread)?;
        let c = require_channel(&self.db, root.channel_id)?.channel;
        let replies = unread_replies(&self.db, thread, before.last_viewed)?;
        let unread_mentions = self.thread_mentions(&c, user, thread, at)?;
        self.put_membership(user, thread, Membership { last_viewed: at, unread_mentions, ..before })?;
        self.clear_pushes_of_thread(user, thread, at)?;
        let shown = thread_of(self.core, &self.db, user, thread, false)?.ok_or_else(not_following)?;
        let mut told = Broadcast::to_user("thread_read_changed", user)
            .with("thread_id", thread.as_str())
            .with("timestamp", at)
            .with("unread_mentions", unread_mentions)
            .with("unread_replies", shown.unread_replies)
            .with("previous_unread_mentions", before.unread_mentions)
            .with("previous_unread_replies", replies)
            .with("channel_id", c.id.as_str());
        told.team_id = Some(team);
        self.tell(told);
        Ok(shown)
    }

    /// How many replies after a moment mention the user.
    fn thread_mentions(&self, c: &Channel, user: Id, thread: Id, after: i64) -> AppResult<i64> {
        let sql = "SELECT * FROM posts WHERE root_id = ?1 AND root_id <> '' AND shown_at > ?2 AND delete_at = 0
            AND original_id = ''";
        let replies = all(&self.db, sql, params![thread.as_str(), after], post_row)?;
        let reader = Reader::new(&require_user(&self.db, user)?.user, &StringMap::new());
        Ok(replies.iter().filter(|row| reader.is_mentioned(c, row)).count() as i64)
    }

    /// What `set_unread` on a reply means to its thread where a client shows none: it is followed and unread from there.
    pub(crate) fn unread_thread_from(&mut self, c: &Channel, user: Id, post: &PostRow) -> AppResult<()> {
        let Some(thread) = post.root_id else { return Ok(()) };
        let at = post.create_at - 1;
        let unread_mentions = self.thread_mentions(c, user, thread, at)?;
        let is = Membership { following: true, last_viewed: at, unread_mentions };
        self.put_membership(user, thread, is)?;
        Ok(self.tell_thread(c, thread, &[Follower { user, is, before: None }])?)
    }
}

/// Does the user have a session or token, so that a client may be listening?
fn hears(db: &Connection, user: Id) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 WHERE EXISTS (SELECT 1 FROM sessions WHERE user_id = ?1)
        OR EXISTS (SELECT 1 FROM access_tokens WHERE user_id = ?1)";
    exists(db, sql, [user.as_str()])
}

/// Who follows the post's thread and could hear of it, whatever they want to hear.
pub(crate) fn followers_with_sessions(db: &Connection, c: &Channel, row: &PostRow) -> rusqlite::Result<Vec<Id>> {
    let Some(thread) = row.root_id else { return Ok(Vec::new()) };
    Ok(listening_followers(db, c.id, thread)?.into_iter().map(|follower| follower.user).collect())
}

fn listening_followers(db: &Connection, channel: Id, thread: Id) -> rusqlite::Result<Vec<Follower>> {
    // In this order: followers are few, members may be many.
    let sql = "SELECT t.user_id, t.last_viewed, t.unread_mentions FROM thread_members t
        CROSS JOIN channel_members m ON m.user_id = t.user_id AND m.channel_id = ?2 AND m.delete_at = 0
        CROSS JOIN users u ON u.id = t.user_id AND u.delete_at = 0
        WHERE t.post_id = ?1 AND t.following = 1 AND (EXISTS (SELECT 1 FROM sessions s WHERE s.user_id = t.user_id)
            OR EXISTS (SELECT 1 FROM access_tokens a WHERE a.user_id = t.user_id)) ORDER BY t.user_id";
    all(db, sql, [thread.as_str(), channel.as_str()], |r| {
        let is = Membership { following: true, last_viewed: r.get(1)?, unread_mentions: r.get(2)? };
        Ok(Follower { user: first_id(r)?, is, before: None })
    })
}

/// Followers whose desktop is to be told of a reply, by their settings and those of the channel.
pub(crate) fn followers_to_notify(
    db: &Connection,
    c: &Channel,
    row: &PostRow,
    mentioned: &BTreeSet<Id>,
) -> rusqlite::Result<Vec<Id>> {
    let Some(thread) = row.root_id else { return Ok(Vec::new()) };
    let mut kept = Vec::new();
    let followers = listening_followers(db, c.id, thread)?.into_iter().map(|follower| follower.user);
    for user in followers.filter(|user| *user != row.user_id) {
        let sql = "SELECT u.notify_props, m.notify_props FROM users u
            JOIN channel_members m ON m.user_id = u.id AND m.channel_id = ?2 WHERE u.id = ?1";
        let props = get(db, sql, [user.as_str(), c.id.as_str()], |r| {
            let map = |column: usize| -> rusqlite::Result<StringMap> {
                Ok(serde_json::from_str(r.get_ref(column)?.as_str()?).unwrap_or_default())
            };
            Ok((map(0)?, map(1)?))
        })?;
        if props.is_some_and(|(own, here)| desktop_is_told(&own, &here, mentioned.contains(&user))) {
            kept.push(user);
        }
    }
    Ok(kept)
}

/// `desktop` and `desktop_threads` of the user and of their membership, as the real server weighs them.
fn desktop_is_told(own: &StringMap, here: &StringMap, mentioned: bool) -> bool {
    let value = |map: &'_ StringMap, key: &str| map.get(key).cloned().unwrap_or_default();
    let (desktop, threads) = (value(own, "desktop"), value(own, "desktop_threads"));
    match value(here, "desktop").as_str() {
        "default" => desktop != "none" && (mentioned || threads == "all" || desktop == "all"),
        "none" => false,
        level => {
            let by_threads = value(here, "desktop_threads") == "all" && threads != "mention";
            mentioned || by_threads || level == "all"
        }
    }
}

fn not_followed() -> AppError {
    AppError::not_found("GetThreadMembershipForUser", "app.user.get_thread_membership_for_user.not_found")
}

fn not_following() -> AppError {
    AppError::not_found("GetThreadForUser", "app.user.get_threads_for_user.not_found")
}

/// A thread row beside one user's relation to it.
struct Joined {
    thread: Id,
    reply_count: i64,
    last_reply_at: i64,
    delete_at: i64,
    participants: Vec<Id>,
    last_viewed: i64,
    unread_mentions: i64,
    unread_replies: i64,
}

fn joined(r: &Row<'_>) -> rusqlite::Result<Joined> {
    Ok(Joined {
        thread: id(r, "post_id")?,
        reply_count: r.get("reply_count")?,
        last_reply_at: r.get("last_reply_at")?,
        delete_at: r.get("delete_at")?,
        participants: serde_json::from_str(r.get_ref("participants")?.as_str()?).unwrap_or_default(),
        last_viewed: r.get("last_viewed")?,
        unread_mentions: r.get("unread_mentions")?,
        unread_replies: r.get("unread_replies")?,
    })
}

/// What is read of a thread for one user; `m` is their membership.
const JOINED: &str = "t.*, m.last_viewed, m.unread_mentions,
        (SELECT count(*) FROM posts p WHERE p.root_id = t.post_id AND p.root_id <> '' AND p.shown_at > m.last_viewed
            AND p.original_id = '' AND p.delete_at = 0) AS unread_replies";

/// Of the teams' threads only those whose channel `c` the user `?1` still may read.
const READABLE: &str = "AND (c.type = 'O' OR EXISTS (SELECT 1 FROM channel_members cm WHERE cm.channel_id = c.id
        AND cm.user_id = ?1 AND cm.delete_at = 0))";

fn thread_of(core: &Inner, db: &Connection, user: Id, thread: Id, extended: bool) -> rusqlite::Result<Option<Thread>> {
    let sql = format!(
        "SELECT {JOINED} FROM thread_members m JOIN threads t ON t.post_id = m.post_id
         WHERE m.user_id = ?1 AND m.following = 1 AND t.post_id = ?2"
    );
    let row = get(db, &sql, [user.as_str(), thread.as_str()], joined)?;
    Ok(shown(core, db, row.into_iter().collect(), extended)?.pop())
}

/// As the API shows them. Users are named by their id alone unless `extended`.
fn shown(core: &Inner, db: &Connection, rows: Vec<Joined>, extended: bool) -> rusqlite::Result<Vec<Thread>> {
    let ids: Vec<Id> = rows.iter().map(|r| r.thread).collect();
    let sql = "SELECT * FROM posts WHERE id IN (SELECT value FROM json_each(?1))";
    let posts = render(core, db, all(db, sql, [id_array(&ids)], post_row)?)?;
    let mut posts: BTreeMap<Id, Post> = posts.into_iter().map(|p| (p.id, p)).collect();
    let mut users = participants(db, rows.iter().flat_map(|r| &r.participants), extended)?;
    users.values_mut().for_each(|u| u.auth_data = Some(String::new()));
    let threads = rows.into_iter().filter_map(|row| {
        let post = posts.remove(&row.thread)?;
        Some(Thread {
            id: row.thread,
            reply_count: row.reply_count,
            last_reply_at: row.last_reply_at,
            last_viewed_at: row.last_viewed,
            participants: row.participants.iter().filter_map(|p| users.get(p).cloned()).collect(),
            unread_replies: row.unread_replies,
            unread_mentions: row.unread_mentions,
            is_urgent: post.metadata.priority.as_ref().is_some_and(|p| p.priority == "urgent"),
            delete_at: row.delete_at,
            post,
        })
    });
    Ok(threads.collect())
}

fn participants<'a>(
    db: &Connection,
    ids: impl Iterator<Item = &'a Id>,
    extended: bool,
) -> rusqlite::Result<BTreeMap<Id, User>> {
    let ids: BTreeSet<Id> = ids.copied().collect();
    if !extended {
        return Ok(ids.into_iter().map(|id| (id, User::known_by_id(id))).collect());
    }
    let ids: Vec<Id> = ids.into_iter().collect();
    let sql = "SELECT * FROM users WHERE id IN (SELECT value FROM json_each(?1))";
    Ok(all(db, sql, [id_array(&ids)], user)?.into_iter().map(|u| (u.id, u.sanitized_for(None))).collect())
}

/// Puts onto root posts what a list with collapsed threads shows of their replies.
pub(crate) fn add_threads(db: &Connection, posts: &mut [Post], reader: Id, extended: bool) -> rusqlite::Result<()> {
    let ids: Vec<Id> = posts.iter().filter(|p| p.root_id.is_none()).map(|p| p.id).collect();
    let sql = "SELECT post_id, last_reply_at, participants FROM threads
        WHERE post_id IN (SELECT value FROM json_each(?1))";
    let rows: Vec<(Id, i64, Vec<Id>)> = all(db, sql, [id_array(&ids)], |r| {
        let participants = serde_json::from_str(r.get_ref(2)?.as_str()?).unwrap_or_default();
        Ok((first_id(r)?, r.get(1)?, participants))
    })?;
    let sql = "SELECT post_id, following FROM thread_members
        WHERE user_id = ?1 AND post_id IN (SELECT value FROM json_each(?2))";
    let follows: BTreeMap<Id, bool> =
        all(db, sql, [reader.as_str(), &id_array(&ids)], |r| Ok((first_id(r)?, r.get(1)?)))?.into_iter().collect();
    let users = participants(db, rows.iter().flat_map(|(_, _, p)| p), extended)?;
    let mut rows: BTreeMap<Id, (i64, Vec<Id>)> = rows.into_iter().map(|(id, at, p)| (id, (at, p))).collect();
    for post in posts {
        post.is_following = follows.get(&post.id).copied();
        if let Some((at, participants)) = rows.remove(&post.id) {
            post.last_reply_at = at;
            let shown: Vec<User> = participants.iter().filter_map(|p| users.get(p).cloned()).collect();
            post.participants = Some(shown).filter(|p| !p.is_empty());
        }
    }
    Ok(())
}

/// How much of what a user follows there is.
struct Totals {
    threads: i64,
    /// With unread replies.
    unread: i64,
    mentions: i64,
    /// Of the mentions those in urgent threads.
    urgent: i64,
}

/// Counts what the user `?1` follows, `live` threads of members `m` in the `channels` `c`; `?2` is a team.
fn totals(db: &Connection, user: Id, team: Id, live: &str, channels: &str) -> rusqlite::Result<Totals> {
    // By channel first: thousands of threads lie in a few, which alone are looked at.
    let followed = format!("m.user_id = ?1 AND m.following = 1 AND m.last_reply_at >= 0 {live}");
    let sql = format!(
        "SELECT coalesce(sum(own.threads), 0), coalesce(sum(own.unread), 0), coalesce(sum(own.mentions), 0),
            coalesce(sum(CASE WHEN own.mentions = 0 THEN 0 ELSE
                (SELECT coalesce(sum(m.unread_mentions), 0) FROM thread_members m JOIN posts p ON p.id = m.post_id
                    WHERE {followed} AND m.channel_id = own.channel_id AND m.unread_mentions > 0
                    AND p.priority LIKE '%\"urgent\"%') END), 0)
         FROM (SELECT m.channel_id, count(*) AS threads, sum(m.last_reply_at > m.last_viewed) AS unread,
                sum(m.unread_mentions) AS mentions FROM thread_members m WHERE {followed} GROUP BY m.channel_id) own
            JOIN channels c ON c.id = own.channel_id WHERE {channels}"
    );
    let counted = get(db, &sql, [user.as_str(), team.as_str()], |r| {
        Ok(Totals { threads: r.get(0)?, unread: r.get(1)?, mentions: r.get(2)?, urgent: r.get(3)? })
    })?;
    Ok(counted.expect("a sum always gives a row"))
}

/// Of threads that are not deleted.
const LIVE: &str = "AND m.delete_at = 0";

/// Threads with unread replies, unread mentions, and those of urgent threads, that the user follows in a team.
pub(crate) fn team_counts(db: &Connection, user: Id, team: Id) -> rusqlite::Result<(i64, i64, i64)> {
    let Totals { unread, mentions, urgent, .. } = totals(db, user, team, LIVE, "c.team_id = ?2")?;
    Ok((unread, mentions, urgent))
}

impl Core {
    /// The threads that a user follows in a team and in direct channels, by their last reply, and their totals.
    ///
    /// # Errors
    /// 403 for others' or a team of others, 400 where parameters exclude each other.
    pub fn threads(&self, by: &Session, user: Id, team: Id, query: &ThreadQuery) -> AppResult<Threads> {
        require_self("getThreadsForUser", by, user)?;
        let bad = |id: &'static str| Err(AppError::bad("getThreadsForUser", id, "The parameters exclude each other."));
        if query.before.is_some() && query.after.is_some() {
            return bad("api.getThreadsForUser.bad_params");
        }
        if query.totals_only && query.threads_only {
            return bad("api.getThreadsForUser.bad_only_params");
        }
        self.read(|db| {
            require_in_team("getThreadsForUser", db, by, team, "view_team")?;
            let teams = if query.exclude_direct { "c.team_id = ?2" } else { "c.team_id IN (?2, '')" };
            let live = if query.deleted { "" } else { LIVE };
            let channels = format!("{teams} {READABLE}");
            let mut found = Threads::default();
            if !query.threads_only {
                let totals = totals(db, user, team, live, &channels)?;
                found.total = totals.threads;
                found.total_unread_threads = totals.unread;
                found.total_unread_mentions = totals.mentions;
                found.total_unread_urgent_mentions = totals.urgent;
            }
            if query.unread {
                found.total = found.total_unread_threads;
            }
            if query.totals_only {
                return Ok(found);
            }
            let unread = if query.unread { "AND m.last_reply_at > m.last_viewed" } else { "" };
            // From the cursor's place on, or from the end.
            let (cursor, op, order) = match (query.before, query.after) {
                (Some(before), _) => (Some(before), "<", "DESC"),
                (None, Some(after)) => (Some(after), ">", "ASC"),
                (None, None) => (None, "<", "DESC"),
            };
            // In this order: the newest that the user follows come out of the index one by one, until there are enough.
            let sql = format!(
                "SELECT {JOINED} FROM thread_members m INDEXED BY thread_members_newest
                    CROSS JOIN channels c ON c.id = m.channel_id CROSS JOIN threads t ON t.post_id = m.post_id
                 WHERE m.user_id = ?1 AND m.following = 1 AND m.last_reply_at >= 0 {live} {unread} AND {channels}
                 AND (?3 = 0 OR m.last_update_at >= ?3 OR m.last_reply_at >= ?3 OR m.delete_at >= ?3)
                 AND (?4 = '' OR (m.last_reply_at, m.post_id) {op}
                    (SELECT last_reply_at, post_id FROM threads WHERE post_id = ?4))
                 ORDER BY m.last_reply_at {order}, m.post_id {order} LIMIT ?5"
            );
            let params = params![user.as_str(), team.as_str(), query.since, text(&cursor), query.per_page];
            found.threads = Some(shown(&self.0, db, all(db, &sql, params, joined)?, query.extended)?);
            Ok(found)
        })
    }

    /// One thread that the user follows.
    ///
    /// # Errors
    /// 403 for others' or a channel that is not the asker's, 404 when it is not followed.
    pub fn followed_thread(&self, by: &Session, user: Id, thread: Id, extended: bool) -> AppResult<Thread> {
        require_self("getThreadForUser", by, user)?;
        self.read(|db| {
            require_thread_read(db, by, thread)?;
            membership(db, user, thread)?.ok_or_else(not_followed)?;
            thread_of(&self.0, db, user, thread, extended)?.ok_or_else(not_following)
        })
    }

    /// Follows a thread, or stops following it.
    ///
    /// # Errors
    /// 403 for others or a channel that is not the asker's.
    pub fn follow_thread(&self, by: &Session, user: Id, team: Id, thread: Id, following: bool) -> AppResult<()> {
        require_self("followThreadByUser", by, user)?;
        self.write(|tx| {
            require_thread_read(&tx.db, by, thread)?;
            Ok(tx.set_following(user, Some(team), thread, following)?)
        })
    }

    /// Marks a thread as read up to a moment.
    ///
    /// # Errors
    /// 403 for others or a channel that is not the asker's, 404 when it is not followed.
    pub fn read_thread(&self, by: &Session, user: Id, team: Id, thread: Id, at: i64) -> AppResult<Thread> {
        require_self("updateReadStateThreadByUser", by, user)?;
        self.write(|tx| {
            require_thread_read(&tx.db, by, thread)?;
            tx.set_thread_read(user, team, thread, at)
        })
    }

    /// Moves the read mark of a thread back to just before one of its posts, and follows it.
    ///
    /// # Errors
    /// 403 for others or a channel that is not the asker's, 400 when the post is not of the thread.
    pub fn unread_thread(&self, by: &Session, user: Id, team: Id, thread: Id, post: Id) -> AppResult<Thread> {
        require_self("setUnreadThreadByPostId", by, user)?;
        self.write(|tx| {
            require_thread_read(&tx.db, by, thread)?;
            tx.set_following(user, Some(team), thread, true)?;
            let row = require_post(&tx.db, post)?;
            if row.root_id != Some(thread) && post != thread {
                return Err(AppError::bad(
                    "UpdateThreadReadForUser",
                    "app.user.update_thread_read_for_user_by_post.app_error",
                    "The post is not part of the thread.",
                ));
            }
            tx.set_thread_read(user, team, thread, row.create_at - 1)
        })
    }

    /// Marks every thread in a team and in direct channels as read.
    ///
    /// # Errors
    /// 403 for others or a team of others.
    pub fn read_all_threads(&self, by: &Session, user: Id, team: Id) -> AppResult<()> {
        require_self("updateReadStateAllThreadsByUser", by, user)?;
        self.write(|tx| {
            require_in_team("updateReadStateAllThreadsByUser", &tx.db, by, team, "view_team")?;
            let sql = "UPDATE thread_members SET last_viewed = max(?3, last_reply_at), unread_mentions = 0,
                    last_update_at = ?3
                WHERE user_id = ?1 AND last_reply_at >= 0
                    AND channel_id IN (SELECT id FROM channels WHERE team_id IN (?2, ''))";
            run(&tx.db, sql, params![user.as_str(), team.as_str(), tx.now])?;
            tx.clear_pushes_of_threads(user, team)?;
            let mut told = Broadcast::to_user("thread_read_changed", user);
            told.team_id = Some(team);
            tx.tell(told);
            Ok(())
        })
    }

    /// When the user's relation to a thread of the channel last changed, for ETags of lists that show it.
    ///
    /// # Errors
    /// When the store fails.
    pub fn threads_changed_at(&self, user: Id, channel: Id) -> AppResult<i64> {
        let sql = "SELECT coalesce(max(last_update_at), 0) FROM thread_members WHERE user_id = ?1 AND channel_id = ?2";
        self.read(|db| Ok(count(db, sql, [user.as_str(), channel.as_str()])?))
    }
}

fn require_thread_read(db: &Connection, by: &Session, thread: Id) -> AppResult<()> {
    let refused = || AppError::permissions("thread", "read_channel_content");
    let root = post_row_by_id(db, thread)?.ok_or_else(refused)?;
    require_read("thread", db, by, &require_channel(db, root.channel_id)?.channel)
}

/// Adds `followers` to the payload of `posted` for those who are to be told.
pub(crate) fn add_followers(per_user: &mut BTreeMap<Id, Map<String, Value>>, followers: &[Id]) {
    for user in followers {
        let followers = Value::from(to_json(&[user]));
        per_user.entry(*user).or_default().insert("followers".to_owned(), followers);
    }
}

#[cfg(test)]
mod tests {
    use model::event::ChannelMemberState;
    use model::{Hlc, UnixMillis, Version};

    use super::*;
    use crate::purges::NewPurge;
    use crate::rows::STEPS;
    use crate::testkit::Node;

    /// A thread in which so many others answered once and listen, and its author answered often since.
    struct Talk {
        node: Node,
        alice: Session,
        others: Vec<Session>,
        channel: Id,
        root: Id,
    }

    fn talk(others: usize, replies: usize) -> Talk {
        let node = Node::new(1);
        let alice = node.user("alice");
        let (team, square) = node.team(&alice, "mission");
        let others: Vec<Session> =
            (0..others).map(|_| Session { user_id: node.core.random_id(), ..alice.clone() }).collect();
        node.core
            .write(|tx| {
                for other in &others {
                    tx.ensure_user(other.user_id)?;
                    let member = ChannelMemberState {
                        version: Version { at: Hlc(1), by: node.id() },
                        channel_id: square.id,
                        user_id: other.user_id,
                        create_at: UnixMillis(1),
                        delete_at: UnixMillis(0),
                        scheme_admin: false,
                    };
                    tx.put_channel_member(&member)?;
                    let sql =
                        "INSERT INTO sessions SELECT ?1, randomblob(32), create_at, expires_at, last_activity_at, ?1,
                        device_id, props FROM sessions WHERE user_id = ?2 LIMIT 1";
                    run(&tx.db, sql, [other.user_id.as_str(), alice.user_id.as_str()])?;
                }
                Ok::<_, AppError>(())
            })
            .unwrap();
        let _ = team;
        let root = node.say(&alice, square.id, None, "root").id;
        for by in others.iter().chain(std::iter::repeat_n(&alice, replies)) {
            node.advance(10);
            node.say(by, square.id, Some(root), "reply");
        }
        node.advance(10);
        node.events.take();
        Talk { node, alice, others, channel: square.id, root }
    }

    impl Talk {
        /// Steps of SQLite's machine for one more reply.
        fn cost_of_reply(&self) -> i64 {
            STEPS.set(0);
            self.node.say(&self.alice, self.channel, Some(self.root), "one more");
            STEPS.get()
        }
    }

    #[test]
    fn a_reply_costs_followers_and_unread_replies_and_not_their_product() {
        let cost = |others, replies| talk(others, replies).cost_of_reply();
        let (few, long, many, both) = (cost(8, 8), cost(8, 120), cost(32, 8), cost(32, 120));
        assert!(
            both - many < (long - few) * 3 / 2 + 200,
            "unread replies are counted once: {few} {long} {many} {both}"
        );
        assert!(many < few * 4, "and participants read once: {few} {long} {many} {both}");
    }

    #[test]
    fn each_follower_hears_their_own_numbers_and_the_latest_participants() {
        let others = PARTICIPANTS_TOLD_MAX + 3;
        let talk = talk(others, 2);
        talk.node.say(&talk.alice, talk.channel, Some(talk.root), "one more");
        let told: Vec<_> = talk.node.events.take().into_iter().filter(|told| told.event == "thread_updated").collect();
        assert_eq!(told.len(), others + 1);
        for (n, other) in talk.others.iter().enumerate() {
            let own = told.iter().find(|told| told.user_id == Some(other.user_id)).unwrap();
            let thread: serde_json::Value = serde_json::from_str(own.data["thread"].as_str().unwrap()).unwrap();
            // Those who answered after them, and alice's three.
            let unread = others - 1 - n + 3;
            assert_eq!((&thread["unread_replies"], &thread["reply_count"]), (&unread.into(), &(others + 3).into()));
            assert_eq!(own.data["previous_unread_replies"], unread - 1);
            let participants = thread["participants"].as_array().unwrap();
            assert_eq!(participants.len(), PARTICIPANTS_TOLD_MAX);
            assert_eq!(participants.last().unwrap()["username"], "alice");
        }
    }

    #[test]
    fn a_deleted_thread_that_arrives_reply_by_reply_is_not_counted_for_each() {
        let cost = |replies| {
            let talk = talk(0, replies);
            let there = Node::new(2);
            there.apply(&talk.node.drain());
            talk.node.core.delete_post(&talk.alice, talk.root).unwrap();
            let sent = talk.node.drain();
            STEPS.set(0);
            there.apply(&sent);
            let steps = STEPS.get();
            assert_eq!(
                there
                    .core
                    .read(|db| count(db, "SELECT count(*) FROM posts WHERE delete_at = 0 AND type = ''", []))
                    .unwrap(),
                0
            );
            steps / i64::try_from(sent.len()).unwrap()
        };
        let (few, many) = (cost(15), cost(150));
        assert!(many < few * 3 / 2, "steps for each entry: {few} of 15 replies, {many} of 150");
    }

    #[test]
    fn a_thread_whose_root_comes_back_is_counted_anew() {
        let talk = talk(0, 3);
        let there = Node::new(2);
        there.apply(&talk.node.drain());
        talk.node.core.delete_post(&talk.alice, talk.root).unwrap();
        let mut sent = talk.node.drain();
        there.apply(&sent);
        // A later version of the root that is not deleted, and one reply of it.
        sent.truncate(2);
        for (n, back) in sent.iter_mut().enumerate() {
            back.id.seq = model::Seq::new(1_000 + n as u64).unwrap();
            let model::Event::Post(post) = &mut back.event else { panic!("a post") };
            (post.delete_at, post.version.at) = (UnixMillis(0), Hlc(post.version.at.0 + (1 << 30)));
        }
        there.apply(&sent);
        let sql = "SELECT reply_count FROM threads WHERE delete_at = 0";
        assert_eq!(there.core.read(|db| count(db, sql, [])).unwrap(), 1);
    }

    #[test]
    fn purging_the_posts_of_a_thread_counts_it_once() {
        let cost = |replies: usize| {
            let talk = talk(0, replies);
            let sql = "SELECT id FROM posts WHERE root_id = ?1 AND root_id <> ''";
            let posts = talk.node.core.read(|db| all(db, sql, [talk.root.as_str()], first_id)).unwrap();
            let new = NewPurge { posts, by: "duty".to_owned(), reason: "test".to_owned(), ..NewPurge::default() };
            STEPS.set(0);
            talk.node.core.order_purge(&new).unwrap();
            STEPS.get() / i64::try_from(replies).unwrap()
        };
        let (few, many) = (cost(15), cost(150));
        assert!(many < few * 3 / 2, "steps for each post: {few} of 15, {many} of 150");
    }
}
