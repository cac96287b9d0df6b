//! Who is here. Kept in memory: after a restart everyone is offline until they connect.

use model::Id;

use crate::access::require_self;
use crate::core::{Core, lock};
use crate::error::{AppError, AppResult};
use crate::events::Broadcast;
use crate::types::{Session, Status};

fn offline(user: Id) -> Status {
    Status { user_id: user, status: "offline".to_owned(), manual: false, last_activity_at: 0, dnd_end_time: 0 }
}

impl Core {
    /// A user's status; offline when nothing is known.
    pub fn status(&self, user: Id) -> Status {
        self.statuses(&[user]).remove(0)
    }

    /// As [`Core::status`], for several.
    pub fn statuses(&self, users: &[Id]) -> Vec<Status> {
        let now = self.0.clock.now().0;
        let known = lock(&self.0.statuses);
        users
            .iter()
            .map(|user| {
                let status = known.get(user).cloned().unwrap_or_else(|| offline(*user));
                // Mattermost counts the end of "do not disturb" in seconds.
                if status.status == "dnd" && status.dnd_end_time > 0 && status.dnd_end_time * 1_000 <= now {
                    return Status { status: "online".to_owned(), manual: false, dnd_end_time: 0, ..status };
                }
                status
            })
            .collect()
    }

    /// Sets a status by hand; it stays until set otherwise.
    ///
    /// # Errors
    /// 403 for others, 400 for an unknown status.
    pub fn set_status(&self, by: &Session, user: Id, status: &str, dnd_end_time: i64) -> AppResult<Status> {
        require_self("updateUserStatus", by, user)?;
        if !matches!(status, "online" | "away" | "dnd" | "offline") {
            return Err(AppError::body_param("updateUserStatus", "status"));
        }
        // Back to "online" hands the status back to the client's activity.
        let manual = status != "online";
        let dnd_end_time = if status == "dnd" { dnd_end_time } else { 0 };
        Ok(self.change_status(user, status, manual, dnd_end_time))
    }

    /// The user did something (`active`), or their client says that they are away. Statuses set by hand stay.
    pub fn note_activity(&self, user: Id, active: bool) {
        let current = self.status(user);
        let now = self.0.clock.now().0;
        if current.manual {
            if let Some(status) = lock(&self.0.statuses).get_mut(&user) {
                status.last_activity_at = now;
            }
            return;
        }
        self.change_status(user, if active { "online" } else { "away" }, false, 0);
    }

    /// The user's last connection is gone.
    pub fn note_offline(&self, user: Id) {
        if !self.status(user).manual {
            self.change_status(user, "offline", false, 0);
        }
    }

    fn change_status(&self, user: Id, to: &str, manual: bool, dnd_end_time: i64) -> Status {
        let status = Status {
            user_id: user,
            status: to.to_owned(),
            manual,
            last_activity_at: self.0.clock.now().0,
            dnd_end_time,
        };
        let before = lock(&self.0.statuses).insert(user, status.clone());
        if before.is_none_or(|b| b.status != to) {
            self.0
                .events
                .publish(Broadcast::to_user("status_change", user).with("status", to).with("user_id", user.as_str()));
        }
        status
    }
}
