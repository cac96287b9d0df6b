//! How long the backlog will take, from how fast it has really been shrinking, or from what is being sent while nothing
//! of it is finished yet: a file counts as held until all of it has arrived.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A link that pauses for a few seconds still drains; one that stopped a minute ago does not.
const WINDOW: Duration = Duration::from_secs(60);
/// Short enough that a change of rate shows soon.
const RECENT: Duration = Duration::from_secs(10);
/// Sampled once a second; twice the window's worth bounds what a faster caller could add.
const SAMPLES_MAX: usize = 120;
/// Bytes per second: what an idle link sends to stay alive is less, and no backlog drains with so little.
const IDLE_RATE_MAX: f64 = 100.0;
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

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Duration,
    backlog: u64,
    sent: u64,
}

/// Watches one backlog.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    samples: VecDeque<Sample>,
}

impl Drain {
    /// Notes the backlog, and all that was ever sent, in bytes, at a monotonic time.
    pub fn sample(&mut self, now: Duration, backlog_bytes: u64, sent_bytes: u64) {
        self.samples.push_back(Sample { at: now, backlog: backlog_bytes, sent: sent_bytes });
        while self.samples.len() > SAMPLES_MAX
            || self.samples.front().is_some_and(|first| now.saturating_sub(first.at) > WINDOW)
        {
            self.samples.pop_front();
        }
    }

    /// When the backlog will be gone at the measured rates; `None` while it neither shrinks nor is sent.
    pub fn eta(&self) -> Option<Eta> {
        let backlog = self.samples.back()?.backlog;
        if backlog == 0 {
            return Some(Eta { low_seconds: 0, high_seconds: 0 });
        }
        let rates = [self.rate(RECENT), self.rate(WINDOW)];
        let best = rates.iter().flatten().copied().reduce(f64::max)?;
        let worst = rates.iter().flatten().copied().reduce(f64::min)?;
        let seconds = |rate: f64| (backlog as f64 / rate).ceil() as u64;
        Some(Eta { low_seconds: seconds(best), high_seconds: seconds(worst / SLOW_MARGIN) })
    }

    /// Bytes per second by which the backlog shrank since `span` ago, or else that were sent; `None` for neither.
    fn rate(&self, span: Duration) -> Option<f64> {
        let last = *self.samples.back()?;
        let first = *self.samples.iter().find(|sample| last.at.saturating_sub(sample.at) <= span)?;
        let elapsed = last.at.saturating_sub(first.at).as_secs_f64();
        if elapsed < 1.0 {
            return None;
        }
        let gone = first.backlog.saturating_sub(last.backlog) as f64 / elapsed;
        let sent = Some(last.sent.saturating_sub(first.sent) as f64 / elapsed).filter(|rate| *rate > IDLE_RATE_MAX);
        Some(gone).filter(|rate| *rate > 0.0).or(sent)
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
            drain.sample(Duration::from_secs(at as u64), left, 0);
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
        (0..10).for_each(|s| grows.sample(Duration::from_secs(s), 1_000 * s + 1, 0));
        assert_eq!(grows.eta(), None);
    }

    #[test]
    fn a_file_on_its_way_is_estimated_from_what_is_sent_and_an_idle_link_promises_nothing() {
        let sending = |rate: u64| {
            let mut drain = Drain::default();
            (0..20).for_each(|s| drain.sample(Duration::from_secs(s), 3_000_000, rate * s));
            drain.eta()
        };
        assert_eq!(sending(30_000), Some(Eta { low_seconds: 100, high_seconds: 125 }));
        assert_eq!(sending(20), None);
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
        drain.sample(Duration::ZERO, 0, 0);
        assert_eq!(drain.eta(), Some(Eta { low_seconds: 0, high_seconds: 0 }));
    }
}
