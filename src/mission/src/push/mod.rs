//! Notifications to mobile devices, by way of a push proxy.
//!
//! ```text
//!  a post --one row for user and channel, in its transaction--> pushes --sender--> POST {proxy}/api/v1/send_push --> device
//!  reading the channel --row goes, or becomes a "clear"--------'                                                   |
//!  device asks what it says: POST /api/v4/notifications/ack <-------------------------------------------------------'
//! ```
//!
//! Invariants
//! - A notification names ids and a count, and never what was said or by whom: the device asks its own site for that.
//! - What waits is the newest post of each channel for each user, however many there were and however long the proxy was away.
//! - What waited longer than the setting is dropped: whoever comes back looks at the channel, not at yesterday's notifications.
//! - Nothing goes anywhere unless a proxy is configured.
//!
//! Not here: talking to Apple and Google. That is the proxy's, Mattermost's own program or a hub's relay to one ([`relay`]).

pub(crate) mod relay;
pub(crate) mod sender;
pub(crate) mod sign;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use model::Id;
use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};

use crate::access::require_read;
use crate::channels::require_channel;
use crate::core::{Core, Tx, lock};
use crate::error::{AppError, AppResult};
use crate::outgoing::address::{Allowed, target};
use crate::posts::{is_join_leave, post_row_by_id};
use crate::rows::{PostRow, all, count, get, id, nth_id, run, text};
use crate::threads::followers_with_sessions;
use crate::types::{Channel, Session, StringMap};

/// What an operator sets about notifications to mobile devices, the table `[core.push]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct PushSettings {
    /// URL of the push proxy, e.g. `https://push.example`; none means that nothing is sent. It may be an internal one.
    pub proxy: Option<String>,
    /// What waited longer than this many minutes is dropped.
    pub stale_after_minutes: u32,
    /// Addresses and networks of other sites whose notifications are passed on to `proxy`; none by default.
    pub relay_for: Vec<String>,
}

impl Default for PushSettings {
    fn default() -> Self {
        Self { proxy: None, stale_after_minutes: 60, relay_for: Vec::new() }
    }
}

impl PushSettings {
    /// # Errors
    /// Key and problem of the first value that cannot be used.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        if let Some(proxy) = &self.proxy {
            target(proxy).map_err(|e| ("core.push.proxy", e.to_string()))?;
        }
        let bad =
            |entry| ("core.push.relay_for", format!("`{entry}` is neither an address nor a network as 10.1.0.0/16"));
        Allowed::parse(&self.relay_for).map(drop).map_err(bad)
    }
}

/// What waits or was shown, and ids of devices.
pub(crate) const TABLES: &str = "
CREATE TABLE pushes (
    user_id TEXT NOT NULL, channel_id TEXT NOT NULL, post_id TEXT NOT NULL, state INTEGER NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (user_id, channel_id)) STRICT, WITHOUT ROWID;
CREATE INDEX pushes_waiting ON pushes (at) WHERE state <> 1;
CREATE INDEX sessions_device ON sessions (user_id) WHERE device_id <> '';
";

/// The newest post of the channel is to be shown.
const WAITS: i64 = 0;
/// It was handed to the proxy.
const SHOWN: i64 = 1;
/// It was read since: the device is to take it away.
const CLEAR: i64 = 2;

/// A notification as the push proxy takes it, without any field that holds content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Notification {
    pub(crate) ack_id: String,
    pub(crate) platform: String,
    pub(crate) server_id: String,
    pub(crate) device_id: String,
    pub(crate) post_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) category: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) sound: String,
    /// Always [`MESSAGE`], where there is one.
    #[serde(skip_deserializing, skip_serializing_if = "str::is_empty")]
    pub(crate) message: &'static str,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) badge: i64,
    #[serde(rename = "cont_ava", skip_serializing_if = "is_zero")]
    pub(crate) content_available: i64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) team_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) channel_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) root_id: String,
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    pub(crate) kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) version: String,
    pub(crate) is_crt_enabled: bool,
    pub(crate) is_id_loaded: bool,
    pub(crate) signature: String,
}

/// What every notification says until the device has asked.
pub(crate) const MESSAGE: &str = "You've received a new message.";

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_zero(n: &i64) -> bool {
    *n == 0
}

/// A device's receipt, `POST /notifications/ack`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Receipt {
    pub(crate) id: String,
    pub(crate) received_at: i64,
    pub(crate) platform: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) post_id: String,
    pub(crate) is_id_loaded: bool,
}

/// What a notification says, told to the device of somebody who may read it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Told {
    #[serde(flatten)]
    pub(crate) notification: Notification,
    pub(crate) message: String,
    pub(crate) channel_name: String,
    pub(crate) sender_id: Id,
    pub(crate) sender_name: String,
}

/// One row that is due, with the devices that it goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Push {
    user: Id,
    channel: Id,
    post: Id,
    state: i64,
    at: i64,
    team: String,
    root: String,
    badge: i64,
    /// `platform:token`, each once.
    devices: Vec<String>,
}

/// Would the user be notified of this post, by their settings, those of the membership, and where they are?
///
/// As the original's `ShouldSendPushNotification`, but that a user who is online is notified also while they look at the
/// channel: they read it before the notification leaves.
fn is_wanted(own: &StringMap, here: &StringMap, kind: &str, mentioned: bool, follows: bool, status: &str) -> bool {
    let value = |map: &StringMap, key: &str, default: &str| {
        map.get(key).filter(|value| !value.is_empty()).cloned().unwrap_or_else(|| default.to_owned())
    };
    if value(here, "mark_unread", "all") == "mention" {
        return false;
    }
    let level = match value(here, "push", "default").as_str() {
        "default" if kind == "G" && value(own, "push", "mention") == "mention" => "all".to_owned(),
        "default" => value(own, "push", "mention"),
        level => level.to_owned(),
    };
    let by_thread = follows && value(own, "push_threads", "all") == "all";
    let by_level = match level.as_str() {
        "none" => false,
        "mention" => mentioned || by_thread,
        _ => true,
    };
    let by_status = match value(own, "push_status", "online").as_str() {
        "offline" => status == "offline",
        "away" => matches!(status, "away" | "offline"),
        _ => true,
    };
    by_level && by_status && !matches!(status, "dnd" | "ooo")
}

impl Tx<'_> {
    /// Notes for whom a new post is to be shown on their devices.
    pub(crate) fn note_pushes(&mut self, c: &Channel, row: &PostRow, mentioned: &BTreeSet<Id>) -> rusqlite::Result<()> {
        if self.core.settings.push.proxy.is_none() || row.kind.starts_with("system_") || is_join_leave(&row.kind) {
            return Ok(());
        }
        // From the devices on: they are fewer than members.
        let sql = "SELECT m.user_id, u.notify_props, m.notify_props
            FROM (SELECT DISTINCT user_id FROM sessions WHERE device_id <> '' AND expires_at > ?3) AS s
            CROSS JOIN channel_members m ON m.channel_id = ?1 AND m.user_id = s.user_id AND m.delete_at = 0
            CROSS JOIN users u ON u.id = m.user_id AND u.delete_at = 0 AND u.is_bot = 0
            WHERE m.user_id <> ?2";
        let props = |r: &Row<'_>, column| {
            Ok::<StringMap, rusqlite::Error>(serde_json::from_str(r.get_ref(column)?.as_str()?).unwrap_or_default())
        };
        let with_devices = all(&self.db, sql, params![c.id.as_str(), row.user_id.as_str(), self.now], |r| {
            Ok((nth_id(r, 0)?, props(r, 1)?, props(r, 2)?))
        })?;
        let followers = followers_with_sessions(&self.db, c, row)?;
        let mut noted = false;
        for (user, own, here) in with_devices {
            let status = lock(&self.core.statuses).get(&user).map_or("offline".to_owned(), |s| s.status.clone());
            let follows = followers.contains(&user);
            if !is_wanted(&own, &here, &c.kind, mentioned.contains(&user), follows, &status) {
                continue;
            }
            let sql = "INSERT INTO pushes (user_id, channel_id, post_id, state, at) VALUES (?1, ?2, ?3, ?4, ?5)
                ON CONFLICT (user_id, channel_id) DO UPDATE SET post_id = excluded.post_id, state = excluded.state,
                    at = excluded.at";
            run(&self.db, sql, params![user.as_str(), c.id.as_str(), row.id.as_str(), WAITS, self.now])?;
            noted = true;
        }
        self.pushes_noted |= noted;
        Ok(())
    }

    /// The user has read the channel: what waits need not go out, what was shown is to be taken away.
    pub(crate) fn clear_pushes(&mut self, user: Id, channel: Id) -> rusqlite::Result<()> {
        if self.core.settings.push.proxy.is_none() {
            return Ok(());
        }
        let of = [user.as_str(), channel.as_str()];
        run(&self.db, "DELETE FROM pushes WHERE user_id = ?1 AND channel_id = ?2 AND state = 0", of)?;
        let sql = "UPDATE pushes SET state = ?3, at = ?4 WHERE user_id = ?1 AND channel_id = ?2 AND state = ?5";
        self.pushes_noted |= run(&self.db, sql, params![user.as_str(), channel.as_str(), CLEAR, self.now, SHOWN])? > 0;
        Ok(())
    }
}

impl Tx<'_> {
    /// The user has read a thread up to a moment: what its replies wait to say, or have said, goes.
    pub(crate) fn clear_pushes_of_thread(&mut self, user: Id, thread: Id, at: i64) -> rusqlite::Result<()> {
        let sql = "SELECT w.channel_id FROM pushes w JOIN posts p ON p.id = w.post_id
            WHERE w.user_id = ?1 AND p.root_id = ?2 AND p.shown_at <= ?3";
        let channels = all(&self.db, sql, params![user.as_str(), thread.as_str(), at], |r| nth_id(r, 0))?;
        channels.into_iter().try_for_each(|channel| self.clear_pushes(user, channel))
    }

    /// The same for every thread of a team and of direct channels.
    pub(crate) fn clear_pushes_of_threads(&mut self, user: Id, team: Id) -> rusqlite::Result<()> {
        let sql =
            "SELECT w.channel_id FROM pushes w JOIN posts p ON p.id = w.post_id JOIN channels c ON c.id = w.channel_id
            WHERE w.user_id = ?1 AND p.root_id <> '' AND c.team_id IN (?2, '')";
        let channels = all(&self.db, sql, [user.as_str(), team.as_str()], |r| nth_id(r, 0))?;
        channels.into_iter().try_for_each(|channel| self.clear_pushes(user, channel))
    }

    /// A device has one session: none but the newest hears of anything.
    pub(crate) fn take_device(&self, device_id: &str) -> rusqlite::Result<()> {
        run(&self.db, "UPDATE sessions SET device_id = '' WHERE device_id = ?1 AND device_id <> ''", [device_id])?;
        Ok(())
    }
}

/// Mentions that are unread to the user, in channels and in threads that they follow.
fn badge(db: &Connection, user: Id) -> rusqlite::Result<i64> {
    let sql = "SELECT (SELECT coalesce(sum(m.mention_count_root), 0) FROM channel_members m
            JOIN channels c ON c.id = m.channel_id AND c.delete_at = 0 WHERE m.user_id = ?1 AND m.delete_at = 0)
        + (SELECT coalesce(sum(unread_mentions), 0) FROM thread_members
            WHERE user_id = ?1 AND following = 1 AND delete_at = 0 AND last_reply_at >= 0)";
    count(db, sql, [user.as_str()])
}

impl Core {
    /// Ties the session to a mobile device; another session of the user that had it has it no more.
    ///
    /// # Errors
    /// 400 for an id that no device has, or when the store fails.
    pub fn set_device(&self, by: &Session, device_id: &str) -> AppResult<()> {
        if device_id.len() > DEVICE_ID_BYTES_MAX {
            return Err(AppError::body_param("attachDeviceId", "device_id"));
        }
        self.write(|tx| {
            tx.take_device(device_id)?;
            run(&tx.db, "UPDATE sessions SET device_id = ?2 WHERE id = ?1", [by.id.as_str(), device_id])?;
            Ok(())
        })
    }

    /// Drops what waited too long: how many.
    pub(crate) fn drop_stale_pushes(&self) -> AppResult<u64> {
        let stale_ms = i64::from(self.settings().push.stale_after_minutes) * 60_000;
        let before = self.now().0 - stale_ms;
        let is_stale = "FROM pushes WHERE state <> 1 AND at < ?1";
        if self.read(|db| Ok::<_, AppError>(count(db, &format!("SELECT count(*) {is_stale}"), [before])?))? == 0 {
            return Ok(0);
        }
        self.write(|tx| Ok(run(&tx.db, &format!("DELETE {is_stale}"), [before])? as u64))
    }

    /// What has waited since before `now - settle_ms`, the oldest first, and when the next is due.
    pub(crate) fn due_pushes(&self, settle_ms: i64, limit: i64) -> AppResult<(Vec<Push>, Option<i64>)> {
        let now = self.now().0;
        self.read(|db| {
            let sql = "SELECT w.*, c.team_id, coalesce(p.root_id, '') AS root_id FROM pushes w
                JOIN channels c ON c.id = w.channel_id LEFT JOIN posts p ON p.id = w.post_id
                WHERE w.state <> 1 AND w.at <= ?1 ORDER BY w.at LIMIT ?2";
            let mut due = all(db, sql, params![now - settle_ms, limit], |r| {
                Ok(Push {
                    user: id(r, "user_id")?,
                    channel: id(r, "channel_id")?,
                    post: id(r, "post_id")?,
                    state: r.get("state")?,
                    at: r.get("at")?,
                    team: r.get("team_id")?,
                    root: r.get("root_id")?,
                    badge: 0,
                    devices: Vec::new(),
                })
            })?;
            for push in &mut due {
                push.badge = badge(db, push.user)?;
                let sql = "SELECT DISTINCT device_id FROM sessions WHERE user_id = ?1 AND device_id <> '' AND expires_at > ?2";
                push.devices = all(db, sql, params![push.user.as_str(), now], |r| r.get(0))?;
            }
            let sql = "SELECT min(at) FROM pushes WHERE state <> 1 AND at > ?1";
            let next: Option<Option<i64>> = get(db, sql, [now - settle_ms], |r| r.get(0))?;
            Ok((due, next.flatten().map(|at| at + settle_ms)))
        })
    }

    /// The proxy took it, or nothing is left to be done; what changed meanwhile stays as it is.
    pub(crate) fn pushed(&self, push: &Push) -> AppResult<()> {
        self.write(|tx| {
            let of = params![push.user.as_str(), push.channel.as_str(), push.post.as_str(), push.state, push.at];
            let same = "WHERE user_id = ?1 AND channel_id = ?2 AND post_id = ?3 AND state = ?4 AND at = ?5";
            let sql = match push.state {
                WAITS => format!("UPDATE pushes SET state = 1 {same}"),
                _ => format!("DELETE FROM pushes {same}"),
            };
            run(&tx.db, &sql, of)?;
            Ok(())
        })
    }

    /// The proxy says that a device is gone.
    pub(crate) fn forget_device(&self, device_id: &str) -> AppResult<()> {
        self.write(|tx| Ok(tx.take_device(device_id)?))
    }

    /// What a notification of this post says to somebody who may read it.
    ///
    /// # Errors
    /// 403 or 404 for a post that is not the asker's.
    pub(crate) fn push_told(&self, by: &Session, receipt: &Receipt) -> AppResult<Told> {
        let post: Id = receipt.post_id.parse().map_err(|_| AppError::body_param("pushNotificationAck", "post_id"))?;
        self.read(|db| {
            let missing = || AppError::not_found("pushNotificationAck", "app.post.get.app_error");
            let row = post_row_by_id(db, post)?.filter(|row| row.delete_at == 0).ok_or_else(missing)?;
            let c = require_channel(db, row.channel_id)?.channel;
            require_read("pushNotificationAck", db, by, &c)?;
            let sql = "SELECT username FROM users WHERE id = ?1";
            let sender_name: String = get(db, sql, [row.user_id.as_str()], |r| r.get(0))?.unwrap_or_default();
            let is_direct = c.kind == "D";
            let message = match (row.message.is_empty() && !row.file_ids.is_empty(), is_direct) {
                (true, true) => "attached a file.".to_owned(),
                (true, false) => format!("{sender_name} attached a file."),
                (false, true) if row.root_id.is_none() => row.message.clone(),
                (false, _) => format!("{sender_name}: {}", row.message),
            };
            let title = if is_direct { sender_name.clone() } else { c.display_name.clone() };
            let channel_name = match row.root_id {
                Some(_) if is_direct => "Reply in Direct Message".to_owned(),
                Some(_) => format!("Reply in {title}"),
                None => title,
            };
            let notification = Notification {
                ack_id: receipt.id.clone(),
                platform: receipt.platform.clone(),
                server_id: self.diagnostic_id().to_string(),
                post_id: post.to_string(),
                category: "CAN_REPLY".to_owned(),
                badge: badge(db, by.user_id)?,
                team_id: text(&c.team_id).to_owned(),
                channel_id: c.id.to_string(),
                root_id: text(&row.root_id).to_owned(),
                kind: "message".to_owned(),
                version: "v2".to_owned(),
                is_crt_enabled: true,
                is_id_loaded: true,
                ..Notification::default()
            };
            Ok(Told { notification, message, channel_name, sender_id: row.user_id, sender_name })
        })
    }
}

/// Longest id of a device, as the original's column.
pub(crate) const DEVICE_ID_BYTES_MAX: usize = 512;
