//! Which bytes next on a link: a token bucket at the configured rate, most urgent class first. No I/O, no clock.
//!
//! ```text
//!  waiting: control, flash ... deferred --grant--> (class, bytes) --session makes a frame--> spent(class, bytes)
//! ```
//!
//! Invariants
//! - In any 10 s no more is granted than the rate allows (from 9.6 kbit/s up; one slice more below that).
//! - Control passes everything, a more urgent class passes a lesser one at the next slice.
//! - A class that waits gets at least a twentieth of the rate, however much waits above it.
//! - In any emission state but [`Emission::Normal`] nothing is granted.
//!
//! Not here: what the bytes are (`link`), sockets (`carrier`).
//! Start reading at [`Shaper::grant`].

pub mod budget;
mod copies;
pub mod plan;
pub mod rate;

use std::time::Duration;

pub use copies::{COPIES_MAX, Copies, Losses, spacing, wanted};
use model::{BitsPerSecond, Precedence};

/// Smallest slice. Below this a frame's and a datagram's own overhead dominates; at 9.6 kbit/s it takes 200 ms.
pub const SLICE_BYTES_MIN: usize = 240;

/// How long a slice may occupy the link: an urgent entry waits for one slice at most.
pub const SLICE_MILLIS: u64 = 50;

/// May this node emit at all? State that survives restarts; kept by the carrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emission {
    /// Send and receive.
    Normal,
    /// Receive; send nothing, receipts and keepalives included.
    ReceiveOnly,
    /// Neither.
    Silent,
}

/// What may be sent next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Greetings, receipts, skips, wants: small frames that everything else waits for.
    Control,
    /// Entries and file slices of a class.
    Class(Precedence),
}

/// What waits to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Control frames wait.
    pub control: bool,
    /// By class: something waits.
    pub classes: [bool; 5],
}

/// Permission to send one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// For what.
    pub lane: Lane,
    /// Largest frame, as it stands on the link.
    pub bytes: usize,
}

/// Paces one link.
#[derive(Clone, Debug)]
pub struct Shaper {
    rate: BitsPerSecond,
    path_mtu: usize,
    emission: Emission,
    /// Permission to send, in bits times 10^6: rate in bit/s times microseconds, without rounding. May be negative
    /// after a frame that was larger on the link than granted.
    credit: i128,
    refilled: Duration,
    /// What waited at the last question.
    demand: Demand,
    /// Bytes that a class is owed while more urgent ones are served.
    owed: [usize; 5],
}

impl Shaper {
    /// A shaper that may grant one slice at once. `path_mtu`: largest datagram payload, or frame for a stream.
    pub fn new(rate: BitsPerSecond, path_mtu: usize, emission: Emission, now: Duration) -> Self {
        let demand = Demand::default();
        let mut shaper = Self { rate, path_mtu, emission, credit: 0, refilled: now, demand, owed: [0; 5] };
        shaper.credit = micro_bits(shaper.slice());
        shaper
    }

    /// The largest frame that is granted: what passes in [`SLICE_MILLIS`], within the path's and a frame's bounds.
    pub fn slice(&self) -> usize {
        let paced = self.rate.bytes_in_millis(SLICE_MILLIS).try_into().unwrap_or(usize::MAX);
        self.path_mtu.min(paced).max(SLICE_BYTES_MIN)
    }

    /// The path was found to take larger datagrams, or only smaller ones.
    pub fn set_path_mtu(&mut self, path_mtu: usize, now: Duration) {
        self.refill(now);
        self.path_mtu = path_mtu;
    }

    /// Changes the rate from `now` on.
    pub fn set_rate(&mut self, rate: BitsPerSecond, now: Duration) {
        self.refill(now);
        self.rate = rate;
        self.credit = self.credit.min(self.credit_max());
    }

    /// Changes the emission state.
    pub fn set_emission(&mut self, emission: Emission, now: Duration) {
        self.refill(now);
        self.emission = emission;
    }

    /// What may be sent now. Asking spends nothing; call [`Shaper::spent`] for what was sent.
    pub fn grant(&mut self, now: Duration, demand: &Demand) -> Option<Grant> {
        self.refill(now);
        self.demand = *demand;
        for (owed, waits) in self.owed.iter_mut().zip(demand.classes) {
            if !waits {
                *owed = 0;
            }
        }
        let bytes = self.slice();
        match self.emission {
            Emission::ReceiveOnly | Emission::Silent => return None,
            Emission::Normal if self.credit < micro_bits(bytes) => return None,
            Emission::Normal => {}
        }
        if demand.control {
            return Some(Grant { lane: Lane::Control, bytes });
        }
        let waiting = |p: &&Precedence| demand.classes[p.index()];
        let owed = Precedence::ALL.iter().filter(waiting).find(|p| self.owed[p.index()] >= bytes);
        let class = owed.or_else(|| Precedence::ALL.iter().find(waiting))?;
        Some(Grant { lane: Lane::Class(*class), bytes })
    }

    /// Bytes that went onto the link, as they stand there (with the stream's length prefix).
    pub fn spent(&mut self, lane: Lane, bytes: usize) {
        self.credit -= micro_bits(bytes);
        let Lane::Class(served) = lane else { return };
        let cap = 2 * self.slice();
        for class in Precedence::ALL {
            let owed = &mut self.owed[class.index()];
            if class == served {
                *owed = owed.saturating_sub(bytes);
            } else if class > served && self.demand.classes[class.index()] {
                *owed = (*owed + bytes.div_ceil(FLOOR_PART)).min(cap);
            }
        }
    }

    /// When a grant that was refused for want of credit would be given; `None` when emission forbids it.
    pub fn wake_at(&self) -> Option<Duration> {
        match self.emission {
            Emission::ReceiveOnly | Emission::Silent => None,
            Emission::Normal => {
                let missing = (micro_bits(self.slice()) - self.credit).max(0);
                let micros = (missing + self.pace() - 1) / self.pace();
                Some(self.refilled + Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX / 2)))
            }
        }
    }

    /// Bits per second that are really used, at least 1.
    fn pace(&self) -> i128 {
        let percent = if self.slice() > SLICE_BYTES_MIN { PACE_PERCENT } else { PACE_PERCENT_SLOWEST };
        (i128::from(self.rate.0) * percent / 100).max(1)
    }

    fn credit_max(&self) -> i128 {
        micro_bits(self.slice()) + self.pace() * LATE_MICROS
    }

    fn refill(&mut self, now: Duration) {
        let elapsed = now.saturating_sub(self.refilled);
        // Whole microseconds only: the rest counts next time.
        let micros = elapsed.as_micros();
        self.refilled += Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
        let earned = self.pace().saturating_mul(i128::try_from(micros).unwrap_or(i128::MAX));
        self.credit = self.credit.saturating_add(earned).min(self.credit_max());
    }
}

/// The link is filled to this part of its rate: 10 s at 99 % leave 100 ms, room for the one slice (50 ms) and the
/// lateness that the bucket holds, so that no window of 10 s exceeds the rate.
const PACE_PERCENT: i128 = 99;

/// The same where the smallest slice takes 200 ms, at 9.6 kbit/s.
const PACE_PERCENT_SLOWEST: i128 = 97;

/// A timer may wake this much too late without rate being lost.
const LATE_MICROS: i128 = 10_000;

/// A waiting class gets one part in this many of what more urgent classes send.
const FLOOR_PART: usize = 19;

fn micro_bits(bytes: usize) -> i128 {
    bytes as i128 * 8 * 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: Duration = Duration::from_secs(1_000);

    fn kbit(n: u64) -> BitsPerSecond {
        BitsPerSecond(n * 1_000)
    }

    fn waiting(classes: &[Precedence]) -> Demand {
        let mut demand = Demand::default();
        classes.iter().for_each(|c| demand.classes[c.index()] = true);
        demand
    }

    /// Sends whatever is granted for a while; returns (when, lane, bytes).
    fn run(shaper: &mut Shaper, from: Duration, long: Duration, demand: &Demand) -> Vec<(Duration, Lane, usize)> {
        let (mut now, mut sent) = (from, Vec::new());
        while now < from + long {
            match shaper.grant(now, demand) {
                Some(grant) => {
                    shaper.spent(grant.lane, grant.bytes);
                    sent.push((now, grant.lane, grant.bytes));
                }
                None => match shaper.wake_at() {
                    Some(at) => now = at.max(now + Duration::from_micros(1)),
                    None => break,
                },
            }
        }
        sent
    }

    fn bytes_of(sent: &[(Duration, Lane, usize)], class: Precedence) -> usize {
        sent.iter().filter(|(_, lane, _)| *lane == Lane::Class(class)).map(|(_, _, n)| n).sum()
    }

    proptest! {
        #[test]
        fn no_window_of_ten_seconds_exceeds_the_rate(
            rate in 9_600u64..2_000_000,
            idle_ms in 0u64..60_000,
            mtu in 300usize..20_000,
        ) {
            let mut shaper = Shaper::new(BitsPerSecond(rate), mtu, Emission::Normal, START);
            let from = START + Duration::from_millis(idle_ms);
            let sent = run(&mut shaper, from, Duration::from_secs(12), &waiting(&[Precedence::Routine]));
            for (i, (begin, _, _)) in sent.iter().enumerate().step_by(7) {
                let window = sent[i..].iter().take_while(|(at, _, _)| *at < *begin + Duration::from_secs(10));
                let bits = 8 * window.map(|(_, _, n)| *n as u64).sum::<u64>();
                prop_assert!(bits <= rate * 10, "{} bits in 10 s at {} bit/s", bits, rate);
            }
            let bits = 8 * sent.iter().map(|(_, _, n)| *n as u64).sum::<u64>();
            prop_assert!(bits >= rate * 12 * 95 / 100, "only {} bits in 12 s at {} bit/s", bits, rate);
        }

        #[test]
        fn a_sleeper_is_woken_exactly_when_a_grant_is_due(rate in 1_000u64..10_000_000, spent in 1usize..70_000) {
            let mut shaper = Shaper::new(BitsPerSecond(rate), 1_200, Emission::Normal, START);
            shaper.spent(Lane::Control, spent);
            let demand = waiting(&[Precedence::Flash]);
            let at = shaper.wake_at().unwrap();
            if at > START {
                prop_assert_eq!(shaper.grant(at - Duration::from_micros(1), &demand), None);
            }
            prop_assert!(shaper.grant(at, &demand).is_some());
        }
    }

    #[test]
    fn an_order_overtakes_a_file_that_was_queued_first() {
        let mut shaper = Shaper::new(kbit(64), 1_200, Emission::Normal, START);
        let grant = shaper.grant(START, &waiting(&[Precedence::Deferred, Precedence::Immediate]));
        // 64 kbit/s for 50 ms is 400 bytes.
        assert_eq!(grant, Some(Grant { lane: Lane::Class(Precedence::Immediate), bytes: 400 }));
    }

    #[test]
    fn control_passes_flash() {
        let mut shaper = Shaper::new(kbit(64), 1_200, Emission::Normal, START);
        let demand = Demand { control: true, ..waiting(&[Precedence::Flash]) };
        assert_eq!(shaper.grant(START, &demand).map(|g| g.lane), Some(Lane::Control));
    }

    #[test]
    fn no_class_starves_and_the_urgent_one_keeps_most() {
        let mut shaper = Shaper::new(kbit(256), 1_200, Emission::Normal, START);
        let sent = run(&mut shaper, START, Duration::from_secs(60), &waiting(&Precedence::ALL));
        let total: usize = sent.iter().map(|(_, _, n)| n).sum();
        for class in [Precedence::Immediate, Precedence::Priority, Precedence::Routine, Precedence::Deferred] {
            let part = bytes_of(&sent, class);
            assert!(part * 25 >= total, "{class} got {part} of {total} bytes");
        }
        assert!(bytes_of(&sent, Precedence::Flash) * 100 >= total * 75);
    }

    #[test]
    fn with_two_classes_the_lesser_one_gets_its_twentieth() {
        let mut shaper = Shaper::new(kbit(256), 1_200, Emission::Normal, START);
        let demand = waiting(&[Precedence::Flash, Precedence::Deferred]);
        let sent = run(&mut shaper, START, Duration::from_secs(60), &demand);
        let total: usize = sent.iter().map(|(_, _, n)| n).sum();
        let part = bytes_of(&sent, Precedence::Deferred) * 1_000 / total;
        assert!((48..=60).contains(&part), "{part} per mille");
    }

    #[test]
    fn nothing_is_granted_against_emission_control() {
        for emission in [Emission::ReceiveOnly, Emission::Silent] {
            let mut shaper = Shaper::new(kbit(64), 1_200, emission, START);
            let demand = Demand { control: true, ..waiting(&Precedence::ALL) };
            assert_eq!(shaper.grant(START + Duration::from_secs(3_600), &demand), None);
            assert_eq!(shaper.wake_at(), None);
            shaper.set_emission(Emission::Normal, START);
            assert!(shaper.grant(START, &demand).is_some());
        }
    }

    #[test]
    fn a_new_rate_counts_at_once() {
        let mut shaper = Shaper::new(kbit(1_000), 1_200, Emission::Normal, START);
        shaper.set_rate(kbit(64), START);
        assert_eq!(shaper.slice(), 400);
        let sent = run(&mut shaper, START, Duration::from_secs(10), &waiting(&[Precedence::Routine]));
        assert!(sent.iter().map(|(_, _, n)| n).sum::<usize>() <= 80_000);
    }

    #[test]
    fn a_frame_that_was_larger_on_the_link_is_paid_back() {
        let mut shaper = Shaper::new(kbit(64), 1_200, Emission::Normal, START);
        shaper.spent(Lane::Control, 8_000);
        assert!(shaper.wake_at().unwrap() >= START + Duration::from_millis(1_000));
    }

    #[test]
    fn a_very_slow_link_still_gets_a_useful_slice() {
        let shaper = Shaper::new(BitsPerSecond(9_600), 1_200, Emission::Normal, START);
        assert_eq!(shaper.slice(), SLICE_BYTES_MIN);
    }
}
