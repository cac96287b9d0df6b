//! What people say of themselves beside their names: an emoji, a few words and when they stop to hold.
//!
//! As in the original it lies in the user's props, and the last few in a preference. Props are this node's own.

use jiff::Timestamp;
use model::Id;
use rusqlite::params;

use crate::access::require_self;
use crate::core::{Core, Tx};
use crate::error::{AppError, AppResult};
use crate::events::Broadcast;
use crate::rows::{get, run, to_json};
use crate::types::{CustomStatus, Preference, Session};
use crate::users::require_user;

pub(crate) const PROP: &str = "customStatus";
const CATEGORY: &str = "custom_status";
const RECENT: &str = "recent_custom_statuses";
const TEXT_MAX_RUNES: usize = 100;
const EMOJI_MAX_BYTES: usize = 64;
const RECENT_MAX: usize = 5;
const DURATIONS: [&str; 6] = ["thirty_minutes", "one_hour", "four_hours", "today", "this_week", "date_and_time"];
/// Go's zero time, which stands for none.
const NEVER: &str = "0001-01-01T00:00:00Z";

impl CustomStatus {
    /// Cut to size; `None` when it says nothing, or has ended by then.
    pub(crate) fn checked_at(self, now: i64) -> Option<Self> {
        self.checked(Timestamp::from_millisecond(now).unwrap_or(Timestamp::UNIX_EPOCH))
    }

    /// Cut to size; `None` when it says nothing, or until when makes no sense.
    fn checked(mut self, now: Timestamp) -> Option<Self> {
        if self.emoji.is_empty() && self.text.is_empty() {
            return None;
        }
        if self.expires_at.is_empty() {
            NEVER.clone_into(&mut self.expires_at);
        }
        let ends: Timestamp = self.expires_at.parse().ok()?;
        let never = self.expires_at.starts_with("0001-01-01T00:00:00");
        match self.duration.as_str() {
            "" if never => {}
            "" if ends >= now => "date_and_time".clone_into(&mut self.duration),
            known if DURATIONS.contains(&known) && ends >= now => {}
            _ => return None,
        }
        self.text = self.text.chars().take(TEXT_MAX_RUNES).collect();
        Some(self)
    }
}

impl Core {
    /// Sets what a user says of themselves.
    ///
    /// # Errors
    /// 403 for others, 400 when it says nothing or has ended already.
    pub fn set_custom_status(&self, by: &Session, user: Id, status: CustomStatus) -> AppResult<()> {
        let now = Timestamp::from_millisecond(self.0.clock.now().0).unwrap_or(Timestamp::UNIX_EPOCH);
        let bad = || AppError::body_param("updateUserCustomStatus", "custom_status");
        let status = status.checked(now).ok_or_else(bad)?;
        require_self("updateUserCustomStatus", by, user)?;
        let named = status.emoji.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_+".contains(&b));
        if !named || status.emoji.len() > EMOJI_MAX_BYTES {
            let id = "api.custom_status.set_custom_statuses.emoji_not_found";
            return Err(AppError::bad("SetCustomStatus", id, "There is no such emoji."));
        }
        self.write(|tx| {
            let value = to_json(&status);
            tx.change_custom_status(user, Some(value))?;
            let mut recent = tx.recent_statuses(user)?;
            recent.retain(|other| other.text != status.text);
            recent.insert(0, status);
            recent.truncate(RECENT_MAX);
            tx.save_recent_statuses(user, &recent)
        })
    }

    /// Takes back what a user says of themselves.
    ///
    /// # Errors
    /// 403 for others.
    pub fn remove_custom_status(&self, by: &Session, user: Id) -> AppResult<()> {
        require_self("removeUserCustomStatus", by, user)?;
        self.write(|tx| tx.change_custom_status(user, None))
    }

    /// Takes one out of the last few.
    ///
    /// # Errors
    /// 403 for others, 400 when there are none.
    pub fn forget_recent_custom_status(&self, by: &Session, user: Id, status: &CustomStatus) -> AppResult<()> {
        require_self("removeUserRecentCustomStatus", by, user)?;
        self.write(|tx| {
            let mut recent = tx.recent_statuses(user)?;
            if !recent.contains(status) {
                let id = "api.custom_status.recent_custom_statuses.delete.app_error";
                return Err(AppError::bad("RemoveRecentCustomStatus", id, "Failed to delete the recent status."));
            }
            recent.retain(|other| other != status);
            tx.save_recent_statuses(user, &recent)
        })
    }
}

impl Tx<'_> {
    fn change_custom_status(&mut self, user: Id, value: Option<String>) -> AppResult<()> {
        let mut row = require_user(&self.db, user)?;
        // As the original: taken back is an empty text, not a missing one.
        row.user.props.insert(PROP.to_owned(), value.unwrap_or_default());
        row.user.update_at = self.now.max(row.user.update_at + 1);
        let sql = "UPDATE users SET props = ?2, update_at = ?3 WHERE id = ?1";
        run(&self.db, sql, params![user.as_str(), to_json(&row.user.props), row.user.update_at])?;
        self.tell_user_updated(&row.user);
        Ok(())
    }

    fn recent_statuses(&self, user: Id) -> AppResult<Vec<CustomStatus>> {
        let sql = "SELECT value FROM preferences WHERE user_id = ?1 AND category = ?2 AND name = ?3";
        let found: Option<String> = get(&self.db, sql, [user.as_str(), CATEGORY, RECENT], |r| r.get(0))?;
        Ok(found.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default())
    }

    fn save_recent_statuses(&mut self, user: Id, recent: &[CustomStatus]) -> AppResult<()> {
        let preference = Preference {
            user_id: user,
            category: CATEGORY.to_owned(),
            name: RECENT.to_owned(),
            value: to_json(&recent),
        };
        run(
            &self.db,
            "INSERT INTO preferences (user_id, category, name, value) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (user_id, category, name) DO UPDATE SET value = excluded.value",
            [user.as_str(), CATEGORY, RECENT, &preference.value],
        )?;
        self.tell(Broadcast::to_user("preferences_changed", user).with_text("preferences", &[preference]));
        Ok(())
    }
}
