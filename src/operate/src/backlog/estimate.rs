//! How many bytes of a backlog will cross the link, and how long that takes. Pure: the clock and the counts are arguments.

use std::collections::VecDeque;
use std::time::Duration;

use journal::Accounting;
use link::SentSoFar;
use model::{BitsPerSecond, Precedence};
use serde::{Deserialize, Serialize};

/// Five seconds hold a few frames even at 9.6 kbit/s, and a change of rate shows within two of these.
const BIN: Duration = Duration::from_secs(5);
/// Two minutes: fading of a radio link shows as spread, the weather of an hour ago does not.
const BINS_MAX: usize = 24;
/// A rate from two bins is a first word, one from one is chance.
const BINS_MIN: usize = 2;
/// A steady link still varies by what is repeated and by what shares it.
const SPREAD_MIN: f64 = 0.1;
/// A bin that ended longer ago says how the link was, not how it is.
const PRESENT: Duration = Duration::from_secs(15);
/// Plain bytes from which on a measured ratio counts: a handful of posts.
const RATIO_FROM_BYTES: u64 = 8 << 10;
/// Entries pack to a fifth at best; what is not known should rather end early.
const ENTRY_RATIO_ASSUMED: f64 = 0.5;
/// A configured rate carries so much in frames: 97 % of it are used, and datagrams and headers take about 7 %.
const FRAME_SHARE: f64 = 0.9;
/// Below this share of its rate a link that was never measured is not expected to be.
const SLOWEST_ASSUMED: f64 = 0.6;
/// Of each window, what lesser classes get while more urgent ones wait.
const FLOOR_SHARE: f64 = 1.0 / 20.0;

/// A range of times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Eta {
    /// If the better of the rates holds.
    pub low_seconds: u64,
    /// If the worse one does.
    pub high_seconds: u64,
}

/// Where a figure comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// Measured on this link just now.
    Measured,
    /// Measured on this link when something was sent last.
    MeasuredBefore,
    /// Never measured since the start: from the configuration, or what is usual.
    Assumed,
}

impl Basis {
    /// In a sentence.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Measured => "measured",
            Self::MeasuredBefore => "measured when it was last used",
            Self::Assumed => "never measured, from the configuration",
        }
    }
}

/// How fast frames reach the peer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrameRate {
    /// At the slow end, in bytes of frames per second.
    pub low_bytes_per_second: f64,
    /// At the fast end.
    pub high_bytes_per_second: f64,
    /// Where it comes from.
    pub basis: Basis,
}

impl FrameRate {
    /// What a link of this rate carries when nothing else is known.
    pub fn configured(rate: BitsPerSecond) -> Self {
        let frames = rate.0.max(1) as f64 / 8.0 * FRAME_SHARE;
        Self { low_bytes_per_second: frames * SLOWEST_ASSUMED, high_bytes_per_second: frames, basis: Basis::Assumed }
    }

    /// How long so many bytes take, and with `shared_bytes` of lesser classes beside them.
    pub fn time_for(&self, bytes: u64, shared_bytes: u64) -> Eta {
        let seconds = |bytes: f64, rate: f64| (bytes / rate.max(f64::MIN_POSITIVE)).ceil().min(1e12) as u64;
        let floor = (bytes as f64 * FLOOR_SHARE / (1.0 - FLOOR_SHARE)).min(shared_bytes as f64);
        Eta {
            low_seconds: seconds(bytes as f64, self.high_bytes_per_second),
            high_seconds: seconds(bytes as f64 + floor, self.low_bytes_per_second),
        }
    }
}

/// Measures how fast frames reach a peer, only while something waits for it and the link is up.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    bins: VecDeque<f64>,
    /// The present bin: since when, and the count then.
    open: Option<(Duration, u64)>,
    last: Option<Duration>,
}

impl Meter {
    /// Notes all frame bytes ever sent, at a monotonic time. `waits`: the link is up and more is there than was sent.
    pub fn look(&mut self, now: Duration, frame_bytes: u64, waits: bool) {
        let Some((since, before)) = self.open.filter(|_| waits) else {
            self.open = waits.then_some((now, frame_bytes));
            return;
        };
        let long = now.saturating_sub(since);
        if long >= BIN {
            if self.bins.len() == BINS_MAX {
                self.bins.pop_front();
            }
            self.bins.push_back(frame_bytes.saturating_sub(before) as f64 / long.as_secs_f64());
            self.last = Some(now);
            self.open = Some((now, frame_bytes));
        }
    }

    /// The mean of the last bins and their standard deviation; `None` before there were enough of them, or when nothing
    /// got through in any.
    pub fn rate(&self, now: Duration) -> Option<FrameRate> {
        if self.bins.len() < BINS_MIN {
            return None;
        }
        let count = self.bins.len() as f64;
        let mean = self.bins.iter().sum::<f64>() / count;
        let variance = self.bins.iter().map(|bin| (bin - mean).powi(2)).sum::<f64>() / count;
        let spread = variance.sqrt().max(mean * SPREAD_MIN);
        let present = self.last.is_some_and(|last| now.saturating_sub(last) <= PRESENT);
        (mean > 0.0).then_some(FrameRate {
            low_bytes_per_second: (mean - spread).max(mean * SPREAD_MIN),
            high_bytes_per_second: mean + spread,
            basis: if present { Basis::Measured } else { Basis::MeasuredBefore },
        })
    }
}

/// What of a class is still to cross.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remaining {
    /// Of the held bytes, what the peer has not got.
    pub plain_bytes: u64,
    /// The same as frames on the link.
    pub link_bytes: u64,
}

/// How much entries and files shrink on their way.
#[derive(Clone, Copy, Debug)]
pub struct Ratios {
    classes: [Option<f64>; 5],
    /// Content of files that the peer has already.
    there_bytes: u64,
}

impl Ratios {
    /// As measured by what was sent.
    pub fn of(sent: &SentSoFar) -> Self {
        let ratio = |packing: &[link::Packing]| {
            let plain: u64 = packing.iter().map(|p| p.plain_bytes).sum();
            let frames: u64 = packing.iter().map(|p| p.frame_bytes).sum();
            (plain >= RATIO_FROM_BYTES).then(|| frames as f64 / plain as f64)
        };
        let of_entries = ratio(&sent.classes);
        let classes = Precedence::ALL.map(|class| match class {
            // Nearly all bytes of this class are content of files, and that packs differently.
            Precedence::Deferred => ratio(&[sent.files, sent.classes[class.index()]]),
            Precedence::Flash | Precedence::Immediate | Precedence::Priority | Precedence::Routine => {
                ratio(&sent.classes[class.index()..=class.index()]).or(of_entries)
            }
        });
        Self { classes, there_bytes: sent.files_there.iter().map(|file| file.bytes).sum() }
    }

    /// What so many held bytes of a class come to, without what the peer has of files already.
    pub fn remaining(&self, class: Precedence, held_bytes: u64) -> Remaining {
        let there = if class == Precedence::Deferred { self.there_bytes } else { 0 };
        let plain_bytes = held_bytes.saturating_sub(there);
        Remaining { plain_bytes, link_bytes: self.link_bytes(class, plain_bytes) }
    }

    /// What so many bytes of a class come to on the link.
    pub fn link_bytes(&self, class: Precedence, plain_bytes: u64) -> u64 {
        let assumed = if class == Precedence::Deferred { 1.0 } else { ENTRY_RATIO_ASSUMED };
        (plain_bytes as f64 * self.classes[class.index()].unwrap_or(assumed)).ceil() as u64
    }

    /// Was it measured for this class?
    pub fn is_measured(&self, class: Precedence) -> bool {
        self.classes[class.index()].is_some()
    }
}

/// Bytes to cross, by class, and whether their packing was measured.
pub fn remaining(accounting: &Accounting, sent: &SentSoFar) -> ([Remaining; 5], Basis) {
    let ratios = Ratios::of(sent);
    let all = Precedence::ALL.map(|class| ratios.remaining(class, accounting.by_class[class.index()].held_bytes));
    let is_measured = Precedence::ALL.into_iter().all(|c| all[c.index()].plain_bytes == 0 || ratios.is_measured(c));
    (all, if is_measured { Basis::Measured } else { Basis::Assumed })
}

/// When each class will have crossed, those above it before it.
pub fn etas(remaining: &[Remaining; 5], rate: &FrameRate) -> [Eta; 5] {
    std::array::from_fn(|i| {
        let before: u64 = remaining[..=i].iter().map(|r| r.link_bytes).sum();
        let after: u64 = remaining[i + 1..].iter().map(|r| r.link_bytes).sum();
        match remaining[i].link_bytes {
            0 => Eta { low_seconds: 0, high_seconds: 0 },
            _ => rate.time_for(before, after),
        }
    })
}

/// Watches whether a backlog moves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    mark: u64,
    since: Option<Duration>,
}

impl Progress {
    /// Notes something that grows with every step of progress, at a monotonic time; `held`: something is to be done.
    pub fn look(&mut self, now: Duration, mark: u64, held: bool) {
        if !held {
            self.since = None;
        } else if self.since.is_none() || mark != self.mark {
            self.since = Some(now);
        }
        self.mark = mark;
    }

    /// For how long nothing has moved although something is held.
    pub fn stands_for(&self, now: Duration) -> Option<Duration> {
        self.since.map(|since| now.saturating_sub(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use link::{FileThere, Packing};

    fn secs(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    fn measured(rates: &[u64]) -> Meter {
        let (mut meter, mut sent) = (Meter::default(), 0);
        for (s, rate) in (0..).zip(rates) {
            meter.look(secs(s), sent, true);
            sent += rate;
        }
        meter
    }

    #[test]
    fn a_steady_link_is_met_by_the_range() {
        let rate = measured(&[10_000; 60]).rate(secs(60)).unwrap();
        assert_eq!(rate.basis, Basis::Measured);
        let eta = rate.time_for(1_000_000, 0);
        assert!(eta.low_seconds <= 100 && 100 <= eta.high_seconds && eta.high_seconds < 120, "{eta:?}");
    }

    #[test]
    fn a_link_that_fades_has_a_wider_range() {
        let mut rates = Vec::new();
        (0..6).for_each(|n| rates.extend([if n % 2 == 0 { 15_000 } else { 5_000 }; 10]));
        let eta = measured(&rates).rate(secs(60)).unwrap().time_for(1_000_000, 0);
        assert!(eta.low_seconds < 80 && eta.high_seconds > 150, "{eta:?}");
    }

    #[test]
    fn an_idle_link_is_not_measured_and_a_silent_one_keeps_its_last_rate() {
        let mut meter = measured(&[10_000; 30]);
        (30..400).for_each(|s| meter.look(secs(s), 300_000, false));
        let rate = meter.rate(secs(400)).unwrap();
        assert_eq!(rate.basis, Basis::MeasuredBefore);
        assert!(rate.high_bytes_per_second > 10_000.0 && rate.low_bytes_per_second < 10_000.0, "{rate:?}");
        assert!(measured(&[10_000; 4]).rate(secs(4)).is_none());
        assert!(measured(&[0; 60]).rate(secs(60)).is_none());
    }

    #[test]
    fn what_the_peer_has_of_a_file_does_not_cross_again_and_entries_pack_as_they_did() {
        let mut accounting = Accounting::default();
        accounting.by_class[Precedence::Routine.index()].held_bytes = 100_000;
        accounting.by_class[Precedence::Deferred.index()].held_bytes = 1_000_000;
        let (unmeasured, basis) = remaining(&accounting, &SentSoFar::default());
        assert_eq!((unmeasured[3].link_bytes, unmeasured[4].link_bytes, basis), (50_000, 1_000_000, Basis::Assumed));
        let mut sent = SentSoFar::default();
        sent.classes[Precedence::Routine.index()] = Packing { plain_bytes: 50_000, frame_bytes: 10_000 };
        sent.files = Packing { plain_bytes: 600_000, frame_bytes: 300_000 };
        sent.files_there = vec![FileThere { epoch: model::Epoch(1), seq: model::Seq::FIRST, bytes: 600_000 }];
        let (known, basis) = remaining(&accounting, &sent);
        assert_eq!((known[3].link_bytes, known[4].plain_bytes, basis), (20_000, 400_000, Basis::Measured));
        assert_eq!(known[4].link_bytes, 200_000);
    }

    #[test]
    fn a_class_waits_for_those_above_it_and_shares_with_those_below() {
        let mut remaining = [Remaining::default(); 5];
        remaining[0].link_bytes = 1_900;
        remaining[3].link_bytes = 19_000;
        remaining[4].link_bytes = 1_000_000;
        let rate = FrameRate { low_bytes_per_second: 100.0, high_bytes_per_second: 100.0, basis: Basis::Measured };
        let etas = etas(&remaining, &rate);
        assert_eq!(etas[0], Eta { low_seconds: 19, high_seconds: 20 });
        assert_eq!(etas[1], Eta { low_seconds: 0, high_seconds: 0 });
        assert_eq!(etas[3], Eta { low_seconds: 209, high_seconds: 220 });
        assert_eq!(etas[4], Eta { low_seconds: 10_209, high_seconds: 10_209 });
    }

    #[test]
    fn what_stands_still_is_told_from_what_moves_and_from_what_is_done() {
        let mut progress = Progress::default();
        progress.look(secs(0), 7, true);
        progress.look(secs(60), 7, true);
        assert_eq!(progress.stands_for(secs(90)), Some(secs(90)));
        progress.look(secs(100), 8, true);
        assert_eq!(progress.stands_for(secs(101)), Some(secs(1)));
        progress.look(secs(200), 8, false);
        assert_eq!(progress.stands_for(secs(300)), None);
    }
}
