//! What happens at a time: scheduled posts and reminders.
//!
//! Whether something is due is asked of the core's clock alone; the task here only decides when to ask.

use std::time::Duration;

use model::UnixMillis;
use tokio_util::sync::CancellationToken;

use crate::core::Core;
use crate::error::{AppError, AppResult};
use crate::rows::get;

/// Looked at least so often: the wall clock may be set, and what failed is tried again.
const LOOK_MS_MAX: i64 = 60_000;
/// And not more often, however much is due.
const LOOK_MS_MIN: i64 = 100;

impl Core {
    /// Does everything that is due, up to a bound; when there is more to do, if that is known.
    ///
    /// # Errors
    /// When the store fails, or there is no room for a post; what was not done stays due.
    pub fn do_due(&self) -> AppResult<Option<UnixMillis>> {
        let posted = self.post_due();
        self.deliver_reminders()?;
        posted?;
        let sql = "SELECT min(at) FROM (SELECT min(scheduled_at) AS at FROM scheduled_posts WHERE error_code = ''
            UNION ALL SELECT min(target_time) * 1000 FROM reminders)";
        let next: Option<Option<i64>> = self.read(|db| get(db, sql, [], |r| r.get(0)).map_err(AppError::from))?;
        Ok(next.flatten().map(UnixMillis))
    }

    /// Something may be due earlier than was known.
    pub(crate) fn due_changed(&self) {
        self.0.due_changed.send_modify(|n| *n += 1);
    }

    /// Does what is due, when it is due, until `stop`.
    ///
    /// Cancel-safe: each thing that is due is done in a transaction.
    pub async fn keep_times(self, stop: CancellationToken) {
        let mut changed = self.0.due_changed.subscribe();
        loop {
            let core = self.clone();
            let done = tokio::task::spawn_blocking(move || core.do_due()).await;
            let wait = match done {
                Ok(Ok(next)) => next.map_or(LOOK_MS_MAX, |next| next.0 - self.now().0),
                Ok(Err(error)) => {
                    tracing::warn!(%error, "what is due could not be done; it is tried again");
                    LOOK_MS_MAX
                }
                Err(error) => {
                    tracing::error!(%error, "a look at what is due failed; it is tried again");
                    LOOK_MS_MAX
                }
            };
            let wait = u64::try_from(wait.clamp(LOOK_MS_MIN, LOOK_MS_MAX)).unwrap_or(0);
            tokio::select! {
                () = stop.cancelled() => return,
                _ = changed.changed() => {}
                () = tokio::time::sleep(Duration::from_millis(wait)) => {}
            }
        }
    }
}
