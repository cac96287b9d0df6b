//! What a hub's users are told of the sites whose content they read: how old it may be, and which of their own posts
//! have not arrived there.

use std::time::Duration;

use carrier::{CarrierHandle, PeerState};
use journal::{Journal, ReadError};
use mission::http::{ApiState, MirroredSite};
use mission::{Core, StoreError, Undelivered};
use model::{Hlc, NodeId, ObjectRef, Precedence};
use tokio_util::sync::CancellationToken;
use tracing::warn;

const EVERY: Duration = Duration::from_secs(1);

/// Posts that are looked at each time; the next time goes on behind them.
const POSTS_MAX: usize = 200;

/// Tells until `stop`.
pub(crate) async fn keep(
    node: NodeId,
    core: Core,
    journal: Journal,
    carrier: CarrierHandle,
    api: ApiState,
    stop: CancellationToken,
) {
    core.track_delivery();
    let mut after = Hlc::ZERO;
    while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
        let (core, journal, carrier, api) = (core.clone(), journal.clone(), carrier.clone(), api.clone());
        let look = move || {
            let sites = sites(&carrier);
            api.tell_of_sites(&sites);
            // Without a link there are no receipts.
            match sites.iter().any(|site| site.is_reached) {
                true => confirm(node, &core, &journal, after),
                false => Ok(after),
            }
        };
        match tokio::task::spawn_blocking(look).await.expect("looking does not panic") {
            Ok(looked_at) => after = looked_at,
            Err(error) => {
                warn!(%error, "which posts have arrived elsewhere is not known; they are shown as pending");
            }
        }
    }
}

fn sites(carrier: &CarrierHandle) -> Vec<MirroredSite> {
    let site = |peer: carrier::PeerStatus| MirroredSite {
        name: peer.name.to_string(),
        as_of: peer.last_heard,
        is_reached: matches!(peer.state, PeerState::Up { .. }),
    };
    carrier.status().into_iter().map(site).collect()
}

#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Core(#[from] StoreError),
    #[error(transparent)]
    Journal(#[from] ReadError),
}

/// Confirms those of the next posts whose creation has ended at every destination. Returns where to go on.
fn confirm(node: NodeId, core: &Core, journal: &Journal, after: Hlc) -> Result<Hlc, LookError> {
    let asked = core.undelivered(after, POSTS_MAX)?;
    let captured = core.outbox_acked()?;
    let mut ended = Vec::new();
    for post in &asked {
        if captured.is_some_and(|up_to| post.at <= up_to) && has_ended(node, journal, post)? {
            ended.push(post.post);
        }
    }
    if !ended.is_empty() {
        core.note_delivered(&ended)?;
    }
    Ok(asked.last().filter(|_| asked.len() == POSTS_MAX).map_or(Hlc::ZERO, |last| last.at))
}

/// Has the entry that created it ended everywhere? One that was captured and is not in the journal any more was trimmed,
/// which needs just that.
fn has_ended(node: NodeId, journal: &Journal, post: &Undelivered) -> Result<bool, LookError> {
    let Some(created) = journal.creator(ObjectRef::Post(post.post).key())?.filter(|id| id.origin == node) else {
        return Ok(true);
    };
    // The class is asked for to count what goes before it, which nobody wants to know here.
    Ok(journal.places(created, Precedence::Flash).iter().all(|place| place.outcome.is_some()))
}
