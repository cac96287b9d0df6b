//! Keeps the journal's background verification going, and says what it finds.

use std::time::Duration;

use carrier::CarrierHandle;
use journal::{Journal, Scrub, ScrubSettings};
use telemetry::Verdict;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::Environment;

/// Name of the check on the health board.
const CHECK: &str = "scrub";

/// A segment that cannot be read is no reason to read the next one at once.
const AFTER_FAILURE: Duration = Duration::from_secs(60);

/// Verifies until `stop`. Pieces are read on a thread that may wait, one at a time, and the wait between them is what
/// the configured rate asks for.
pub(crate) async fn keep(
    journal: Journal,
    settings: ScrubSettings,
    carrier: CarrierHandle,
    environment: Environment,
    stop: CancellationToken,
) {
    let known = journal.clone();
    let met = tokio::task::spawn_blocking(move || known.meet_known_damage());
    if let Err(e) = met.await.expect("measuring damage does not panic") {
        warn!(error = %e, "damage that is known could not be measured again");
    }
    let Environment { clock, metrics, health } = environment;
    let mut scrub = Scrub::new(&journal, settings);
    let mut told = journal.damage_changes();
    loop {
        let now = clock.now();
        let (back, result) = tokio::task::spawn_blocking(move || {
            let result = scrub.step(now);
            (scrub, result)
        })
        .await
        .expect("a piece of the scrub does not panic");
        scrub = back;
        let status = scrub.status(now);
        metrics.scrub_verified_segments.set_count((), u64::from(status.verified));
        match status.oldest_seconds {
            Some(seconds) => metrics.scrub_oldest_seconds.set_count((), seconds),
            None => metrics.scrub_oldest_seconds.forget(()),
        }
        let wait = match result {
            Ok(step) => {
                metrics.scrub_read_bytes_total.add((), step.bytes);
                if let Some(done) = step.done {
                    metrics.scrub_segments_total.inc(());
                    metrics.scrub_damaged_places_total.add((), done.damaged_places);
                    metrics.scrub_wrong_hashes_total.add((), done.wrong_hashes);
                    info!(bytes = done.bytes, damaged = done.damaged_places, "verified a sealed segment");
                }
                let text = format!("{} of {} sealed segments verified in time", status.verified, status.segments);
                health.report(CHECK, Verdict::ok(text));
                step.wait
            }
            Err(e) => {
                let next = "check the disk (`dmesg`), then run `holdfast journal scrub`";
                health.report(CHECK, Verdict::degraded(e.to_string(), next));
                AFTER_FAILURE
            }
        };
        // The links ask for what was found to be missing.
        if journal.damage_changes() != told {
            told = journal.damage_changes();
            carrier.notify_finals();
        }
        if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
            return;
        }
    }
}
