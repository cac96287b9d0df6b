//! When to dial again.

use std::time::Duration;

/// First ceiling of the wait.
const FIRST: Duration = Duration::from_millis(500);
/// A link that was up lately is expected back any moment.
const CEILING_RECENT: Duration = Duration::from_secs(3);
/// A link that was not seen for long costs little, and is still found within seconds of its return.
const CEILING_LONG: Duration = Duration::from_secs(15);
/// What "lately" means.
const RECENT: Duration = Duration::from_secs(600);

/// Waits between attempts: full jitter under a ceiling that doubles. It never gives up.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The link was up, or something changed that may bring it up: start over.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The wait after one more failure. `absent`: for how long the peer has not been connected;
    /// `random` draws from zero to its argument.
    pub(crate) fn next(&mut self, absent: Duration, random: impl Fn(Duration) -> Duration) -> Duration {
        let top = if absent <= RECENT { CEILING_RECENT } else { CEILING_LONG };
        let ceiling = FIRST.saturating_mul(1 << self.failures.min(10)).min(top);
        self.failures = self.failures.saturating_add(1);
        random(ceiling)
    }

    /// The wait after a refusal, which an operator must resolve.
    pub(crate) fn refused(&mut self, random: impl Fn(Duration) -> Duration) -> Duration {
        self.failures = self.failures.saturating_add(1);
        CEILING_LONG / 2 + random(CEILING_LONG / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_three_seconds_for_a_recent_peer_and_to_fifteen_for_a_lost_one() {
        let whole = |max| max;
        let mut recent = Backoff::default();
        let waits: Vec<u64> = (0..5).map(|_| recent.next(Duration::from_secs(5), whole).as_millis() as u64).collect();
        assert_eq!(waits, [500, 1_000, 2_000, 3_000, 3_000]);
        let mut lost = Backoff::default();
        let week = Duration::from_secs(7 * 86_400);
        let longest = (0..10_000).map(|_| lost.next(week, whole)).max();
        assert_eq!(longest, Some(CEILING_LONG));
        lost.reset();
        assert_eq!(lost.next(week, whole), FIRST);
    }
}
