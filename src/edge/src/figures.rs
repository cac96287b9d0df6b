//! Figures that no single room has: read every few seconds from the rooms and put into the metrics.

use std::sync::Arc;
use std::time::Duration;

use carrier::consumer_name;
use journal::{Accounting, Journal};
use keys::PeerRegistry;
use mission::Core;
use mission::ws::WsHub;
use model::{NodeId, Precedence};
use telemetry::{ObjectCount, PeerName, Term, Verdict};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::Environment;

/// Prometheus usually asks every 15 s; a figure is never older than a third of that.
const EVERY: Duration = Duration::from_secs(5);

/// Trimming looks at receipts only; once a minute keeps the disk within a segment or two of what is needed.
const TRIM_EVERY: u32 = 12;

/// Name of the check on damage in the journal.
const QUARANTINE: &str = "quarantine";

/// Where the figures come from.
#[derive(Clone)]
pub(crate) struct Sources {
    pub(crate) core: Core,
    pub(crate) journal: Journal,
    pub(crate) registry: Arc<PeerRegistry>,
    pub(crate) sockets: WsHub,
    pub(crate) environment: Environment,
}

/// A figure could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FigureError {
    /// From the journal.
    #[error(transparent)]
    Journal(#[from] journal::ReadError),
    /// From the mission core.
    #[error(transparent)]
    Core(#[from] mission::StoreError),
}

/// The equation of one destination: `accepted = applied + held + quarantined + expired + superseded + withheld + purged`,
/// counted from the committed outbox row.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Equation {
    /// What is in the journal, by class and in total.
    pub journal: Accounting,
    /// Rows committed in the mission core and not yet in the journal: accepted, and held.
    pub capturing: u64,
}

impl Equation {
    /// Everything accepted.
    pub fn accepted(&self) -> u64 {
        self.journal.total.accepted + self.capturing
    }

    /// Everything that has not ended.
    pub fn held(&self) -> u64 {
        self.journal.total.held + self.capturing
    }
}

impl Sources {
    pub(crate) fn equation(&self, peer: NodeId) -> Result<Option<Equation>, FigureError> {
        // The outbox first: a row captured in between is then counted once too often as held for a moment, and
        // never once too little.
        let capturing = self.core.outbox_stats()?.rows;
        let journal = self.journal.accounting(&consumer_name(peer))?;
        Ok(journal.map(|journal| Equation { journal, capturing }))
    }

    fn update(&self) -> Result<(), FigureError> {
        let metrics = &self.environment.metrics;
        let now = self.environment.clock.now();
        let stats = self.journal.stats();
        metrics.journal_segments.set_count((), u64::from(stats.segments));
        metrics.journal_disk_bytes.set_count((), stats.bytes);
        metrics.journal_epoch.set_count((), stats.epochs.last().map_or(0, |e| u64::from(e.epoch.0)));
        self.tell_quarantine();
        let counts = self.core.stats()?;
        for (object, count) in [
            (ObjectCount::Users, counts.users),
            (ObjectCount::Channels, counts.channels),
            (ObjectCount::Posts, counts.posts),
            (ObjectCount::Files, counts.files),
        ] {
            metrics.mission_objects.set_count((object,), count);
        }
        metrics.mission_websocket_connections.set_count((), self.sockets.active_connections() as u64);
        for peer in self.registry.list() {
            let Some(equation) = self.equation(peer.node)? else { continue };
            let name = PeerName::new(peer.name.as_str());
            let total = &equation.journal.total;
            for (term, value) in [
                (Term::Accepted, equation.accepted()),
                (Term::Applied, total.applied),
                (Term::Held, equation.held()),
                (Term::Quarantined, total.quarantined),
                (Term::Expired, total.expired),
                (Term::Superseded, total.superseded),
                (Term::Withheld, total.withheld),
                (Term::Purged, total.purged),
            ] {
                metrics.equation_entries.set_count((name.clone(), term), value);
            }
            for class in Precedence::ALL {
                let held = equation.journal.by_class[class.index()].held;
                metrics.equation_held_entries.set_count((name.clone(), class), held);
            }
            let age = total.oldest_held.map_or(0, |oldest| (now.0 - oldest.0).max(0));
            metrics.equation_oldest_held_seconds.set((name.clone(),), age as f64 / 1_000.0);
            metrics.equation_backlog_bytes.set_count((name,), total.held_bytes);
        }
        Ok(())
    }

    /// Damage stays an alarm until somebody has looked at it: a disk that flips one bit flips more.
    fn tell_quarantine(&self) {
        let Environment { metrics, health, .. } = &self.environment;
        let report = self.journal.quarantine();
        let (places, missing) = (report.places.len(), report.missing_count());
        metrics.journal_quarantined_places.set_count((), places as u64);
        metrics.journal_missing_entries.set_count((), missing);
        if report.open_places() == 0 && missing == 0 {
            return health.report(QUARANTINE, Verdict::ok("nothing is damaged that nobody has looked at"));
        }
        let text = format!("{places} damaged places are kept aside, {missing} own entries are missing");
        let next = "`holdfast journal quarantine list` says what is done about them; check the disk (`dmesg`)";
        health.report(QUARANTINE, Verdict::degraded(text, next));
    }

    /// What expires or is overtaken while a link is down is accounted for then, not when the link is back.
    fn settle(&self) {
        let done = self.journal.settle(self.environment.clock.now());
        if done != journal::Settled::default() {
            info!(expired = done.expired, superseded = done.superseded, "entries that were not sent yet became moot");
        }
    }

    fn trim(&self) {
        match self.journal.trim() {
            Ok(report) if report.segments > 0 => {
                self.environment.metrics.journal_trimmed_bytes_total.add((), report.bytes);
                info!(
                    segments = report.segments,
                    bytes = report.bytes,
                    "trimmed what every destination has finished with"
                );
            }
            Ok(_) => {}
            Err(e) => warn!(error = %e, "trimming failed; nothing was lost"),
        }
    }
}

/// Keeps the metrics up to date, and the journal trimmed.
pub(crate) async fn keep(sources: Sources, stop: CancellationToken) {
    let mut round: u32 = 0;
    loop {
        let work = sources.clone();
        let done = tokio::task::spawn_blocking(move || {
            work.settle();
            if round.is_multiple_of(TRIM_EVERY) {
                work.trim();
            }
            if let Err(e) = work.update() {
                warn!(error = %e, "reading figures failed");
            }
        });
        done.await.expect("reading figures does not panic");
        round = round.wrapping_add(1);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}
