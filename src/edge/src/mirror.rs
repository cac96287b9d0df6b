//! What a hub's users are told of the sites whose content they read: how old it may be, and which of their own posts
//! have not arrived there.

use std::collections::BTreeMap;
use std::time::Duration;

use carrier::{CarrierHandle, PeerState};
use journal::{ABOUT_MAX, Journal, ReadError};
use mission::http::{ApiState, MirroredSite};
use mission::{Core, StoreError, Undelivered};
use model::{Hlc, NodeId, ObjectKey, ObjectRef};
use tokio_util::sync::CancellationToken;
use tracing::warn;

const EVERY: Duration = Duration::from_secs(1);

/// Posts that are asked about at once: one walk over what the journal holds serves all of them.
const POSTS_MAX: usize = 50;

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
    while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
        let (core, journal, carrier, api) = (core.clone(), journal.clone(), carrier.clone(), api.clone());
        let look = move || {
            let sites = sites(&carrier);
            api.tell_of_sites(&sites);
            // Without a link there are no receipts.
            match sites.iter().any(|site| site.is_reached) {
                true => confirm(node, &core, &journal),
                false => Ok(()),
            }
        };
        let looked = tokio::task::spawn_blocking(look).await.expect("looking does not panic");
        if let Err(error) = looked {
            warn!(error = %error, "which posts have arrived elsewhere is not known; they are shown as pending");
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

/// Confirms the posts whose creation has ended at every destination.
fn confirm(node: NodeId, core: &Core, journal: &Journal) -> Result<(), LookError> {
    let mut after = Hlc::ZERO;
    loop {
        let asked = core.undelivered(after, POSTS_MAX)?;
        let Some(last) = asked.last() else { return Ok(()) };
        after = last.at;
        let ended = ended(node, core, journal, &asked)?;
        if !ended.is_empty() {
            core.note_delivered(&ended)?;
        }
    }
}

fn ended(node: NodeId, core: &Core, journal: &Journal, asked: &[Undelivered]) -> Result<Vec<model::Id>, LookError> {
    let keys: Vec<ObjectKey> = asked.iter().map(|a| ObjectRef::Post(a.post).key()).collect();
    let captured = core.outbox_acked()?;
    let about = journal.about(&keys)?;
    let own = about.entries.iter().map(|listed| &listed.entry.header).filter(|header| header.id.origin == node);
    let held: BTreeMap<Hlc, _> = own.map(|header| (header.source.0, (header.id, header.precedence))).collect();
    // A list that is full may have left out older entries.
    let is_whole = about.complete && about.entries.len() < ABOUT_MAX;
    let has_ended = |asked: &&Undelivered| match held.get(&asked.at) {
        Some((id, class)) => journal.places(*id, *class).iter().all(|place| place.outcome.is_some()),
        // Captured and not in the journal: trimmed, which needs the end at every destination.
        None => is_whole && captured.is_some_and(|up_to| asked.at <= up_to),
    };
    Ok(asked.iter().filter(has_ended).map(|asked| asked.post).collect())
}
