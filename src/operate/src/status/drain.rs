//! How long the backlog will take, from how fast it has really been shrinking.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A link that pauses for a few seconds still drains; one that stopped a minute ago does not.
const WINDOW: Duration = Duration::from_secs(60);
/// Short enough that a change of rate shows soon.
const RECENT: Duration = Duration::from_secs(10);
/// Sampled once a second; twice the window's worth bounds what a faster caller could add.
const SAMPLES_MAX: usize = 120;
/// Retransmission, turnarounds and other traffic make the slow end slower than what was seen.
const SLOW_MARGIN: f64 = 1.25;

/// A range of times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Eta {
    /// If the better of the measured rates holds.
    pub low_seconds: u64,
    /// If the worse one does.
    pub high_seconds: u64,
}

/// Watches one backlog.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    samples: VecDeque<(Duration, u64)>,
}

impl Drain {
    /// Notes the backlog in bytes at a monotonic time.
    pub fn sample(&mut self, now: Duration, backlog_bytes: u64) {
        self.samples.push_back((now, backlog_bytes));
        while self.samples.len() > SAMPLES_MAX
            || self.samples.front().is_some_and(|(at, _)| now.saturating_sub(*at) > WINDOW)
        {
            self.samples.pop_front();
        }
    }

    /// When the backlog will be gone at the measured rates; `None` while it does not shrink.
    pub fn eta(&self) -> Option<Eta> {
        let (_, backlog) = *self.samples.back()?;
        if backlog == 0 {
            return Some(Eta { low_seconds: 0, high_seconds: 0 });
        }
        let rates = [self.rate(RECENT), self.rate(WINDOW)];
        let best = rates.iter().flatten().copied().reduce(f64::max)?;
        let worst = rates.iter().flatten().copied().reduce(f64::min)?;
        let seconds = |rate: f64| (backlog as f64 / rate).ceil() as u64;
        Some(Eta { low_seconds: seconds(best), high_seconds: seconds(worst / SLOW_MARGIN) })
    }

    /// Bytes per second by which the backlog shrank since `span` ago; `None` when it did not.
    fn rate(&self, span: Duration) -> Option<f64> {
        let (now, backlog) = *self.samples.back()?;
        let (then, before) = *self.samples.iter().find(|(at, _)| now.saturating_sub(*at) <= span)?;
        let elapsed = now.saturating_sub(then).as_secs_f64();
        let gone = before.saturating_sub(backlog);
        (elapsed >= 1.0 && gone > 0).then(|| gone as f64 / elapsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drained(rates_per_second: &[u64]) -> Option<Eta> {
        let mut drain = Drain::default();
        let mut left = 1_000_000;
        for (at, rate) in rates_per_second.iter().enumerate() {
            left -= rate;
            drain.sample(Duration::from_secs(at as u64), left);
        }
        drain.eta()
    }

    #[test]
    fn a_steady_drain_is_met_by_the_range() {
        let eta = drained(&[10_000; 30]).unwrap();
        let really = (1_000_000 - 30 * 10_000) / 10_000;
        assert!(eta.low_seconds <= really && really <= eta.high_seconds, "{eta:?} should hold {really}");
    }

    #[test]
    fn a_change_of_rate_widens_the_range() {
        let mut rates = vec![20_000; 20];
        rates.extend([2_000; 10]);
        let eta = drained(&rates).unwrap();
        assert!(eta.high_seconds > 4 * eta.low_seconds, "{eta:?}");
    }

    #[test]
    fn a_backlog_that_stands_or_grows_has_no_end() {
        assert_eq!(drained(&[0; 30]), None);
        let mut grows = Drain::default();
        (0..10).for_each(|s| grows.sample(Duration::from_secs(s), 1_000 * s + 1));
        assert_eq!(grows.eta(), None);
    }

    #[test]
    fn a_link_that_stopped_a_minute_ago_promises_nothing() {
        let mut rates = vec![10_000; 20];
        rates.extend([0; 62]);
        assert_eq!(drained(&rates), None);
    }

    #[test]
    fn nothing_left_is_done() {
        let mut drain = Drain::default();
        drain.sample(Duration::ZERO, 0);
        assert_eq!(drain.eta(), Some(Eta { low_seconds: 0, high_seconds: 0 }));
    }
}
