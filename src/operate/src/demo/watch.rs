//! What a client that is online at each side is told over its WebSocket while the demo runs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Side;
use super::client::{LiveEvent, Session};

/// Pages that lag behind by more events than this reload everything instead.
const CHANGES_MAX: usize = 256;

/// A broken socket is opened again after this.
const REOPEN_AFTER: Duration = Duration::from_millis(500);

/// Remembers what clients were told. Cloning shares the memory.
#[derive(Clone)]
pub(super) struct Watch {
    seen: Arc<Mutex<BTreeMap<(Side, String), Seen>>>,
    changes: broadcast::Sender<Change>,
}

/// Something changed in a channel of a side.
#[derive(Clone, Debug, serde::Serialize)]
pub(super) struct Change {
    /// Where.
    pub(super) side: Side,
    /// In which channel; empty when in none.
    pub(super) channel_id: String,
    /// What the WebSocket called it.
    pub(super) event: String,
}

#[derive(Clone, Copy)]
struct Seen {
    first: Instant,
    times: u64,
}

impl Default for Watch {
    fn default() -> Self {
        Self { seen: Arc::default(), changes: broadcast::channel(CHANGES_MAX).0 }
    }
}

impl Watch {
    /// Follows the events of one side as `session` is told them.
    pub(super) fn follow(&self, side: Side, session: Session, tasks: &mut JoinSet<()>, stop: CancellationToken) {
        let watch = self.clone();
        tasks.spawn(async move {
            let listen = async {
                loop {
                    if let Err(error) = session.listen(|event| watch.note(side, event)).await {
                        tracing::debug!(%error, "the demo's listener lost its socket");
                    }
                    tokio::time::sleep(REOPEN_AFTER).await;
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = listen => {}
            }
        });
    }

    /// When a client of this side was first told of a post.
    pub(super) fn seen_at(&self, side: Side, post_id: &str) -> Option<Instant> {
        self.lock().get(&(side, post_id.to_owned())).map(|seen| seen.first)
    }

    /// How often a client was told again that a post it knew was posted.
    pub(super) fn repeated(&self) -> u64 {
        self.lock().values().map(|seen| seen.times - 1).sum()
    }

    /// Follows changes from this moment on.
    pub(super) fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    fn note(&self, side: Side, event: LiveEvent) {
        if let (Some(post), "posted") = (&event.post, event.event.as_str()) {
            let now = Instant::now();
            self.lock()
                .entry((side, post.id.clone()))
                .and_modify(|seen| seen.times += 1)
                .or_insert(Seen { first: now, times: 1 });
        }
        // Nobody may be looking at a page: then there is nobody to tell.
        let _ = self.changes.send(Change { side, channel_id: event.channel_id, event: event.event });
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Side, String), Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn posted(id: &str) -> LiveEvent {
        let post = json!({"id": id, "channel_id": "c", "user_id": "u", "message": "", "create_at": 1, "update_at": 1});
        let post = Some(serde_json::from_value(post).unwrap());
        LiveEvent { event: "posted".to_owned(), channel_id: "c".to_owned(), post }
    }

    #[tokio::test]
    async fn a_post_that_is_announced_twice_to_one_side_is_counted() {
        let watch = Watch::default();
        watch.note(Side::Edge, posted("p"));
        watch.note(Side::Hub, posted("p"));
        assert_eq!(watch.repeated(), 0);
        watch.note(Side::Hub, posted("p"));
        assert_eq!(watch.repeated(), 1);
        assert!(watch.seen_at(Side::Hub, "p").is_some());
        assert!(watch.seen_at(Side::Hub, "q").is_none());
    }
}
