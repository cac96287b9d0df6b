//! Looks after room: what the journal refuses is told to the mission core, the health board and the metrics.

use std::time::Duration;

use journal::{Journal, Space};
use mission::Core;
use model::SpaceLevel;
use telemetry::{Health, Metrics, Verdict};
use tokio_util::sync::CancellationToken;

use crate::Environment;

/// A node goes on within 5 s after room has come back: this, and the second after which capture and links try again.
const EVERY: Duration = Duration::from_secs(1);

/// Name of the check on the health board.
const CHECK: &str = "space";

/// Looks every second, so that room which has come back is noticed without anything being written.
pub(crate) async fn keep(core: Core, journal: Journal, environment: Environment, stop: CancellationToken) {
    loop {
        let (of, into) = (journal.clone(), core.clone());
        let looked = tokio::task::spawn_blocking(move || {
            let space = of.check_space();
            into.set_space(space.level);
            space
        });
        let space = looked.await.expect("looking at the disk does not panic");
        report(&space, &environment.health, &environment.metrics);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

fn report(space: &Space, health: &Health, metrics: &Metrics) {
    metrics.set_space_level(space.level);
    metrics.journal_space_limit_left_bytes.set_count((), space.limit_left_bytes);
    metrics.journal_space_disk_left_bytes.set_count((), space.disk_left_bytes.unwrap_or(0));
    metrics.journal_space_reserve_bytes.set_count((), space.reserve_bytes);
    health.report(CHECK, verdict(space));
}

fn verdict(space: &Space) -> Verdict {
    let Some(cause) = space.cause else { return Verdict::ok("nothing is refused") };
    let text = format!("{}: {}; what was accepted is intact", cause.as_str(), space.level);
    // A node that fails may be restarted by what watches it, which makes no room: that is said only when it is nearly deaf.
    match space.level {
        SpaceLevel::Ok
        | SpaceLevel::FilesRefused
        | SpaceLevel::DeferredRefused
        | SpaceLevel::RoutineRefused
        | SpaceLevel::PriorityRefused => Verdict::degraded(text, cause.next_step()),
        SpaceLevel::OnlyFlash | SpaceLevel::Nothing => Verdict::failing(text, cause.next_step()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use journal::SpaceCause;
    use model::{Clock, UnixMillis};
    use telemetry::Grade;

    use super::*;

    struct Stopped;

    impl Clock for Stopped {
        fn now(&self) -> UnixMillis {
            UnixMillis(0)
        }
    }

    #[test]
    fn the_next_step_depends_on_what_is_used_up() {
        let (health, metrics) = (Health::new(Arc::new(Stopped)), Metrics::new());
        let mut steps = Vec::new();
        for (level, cause, grade) in [
            (SpaceLevel::Ok, None, Grade::Ok),
            (SpaceLevel::FilesRefused, Some(SpaceCause::Inodes), Grade::Degraded),
            (SpaceLevel::RoutineRefused, Some(SpaceCause::Limit), Grade::Degraded),
            (SpaceLevel::OnlyFlash, Some(SpaceCause::Disk), Grade::Failing),
        ] {
            report(&Space { level, cause, ..Space::default() }, &health, &metrics);
            let check = health.checks().pop().unwrap();
            assert_eq!((check.name.as_str(), check.grade), (CHECK, grade));
            assert_eq!(metrics.journal_space_level.get((level,)), 1.0);
            steps.extend(check.next_step);
        }
        assert!(steps[0].contains("inodes") && steps[1].contains("limit_bytes") && steps[2].contains("free space"));
    }
}
