//! How often a lone urgent frame is sent, so that it need not wait for a repetition. No I/O, no clock.
//!
//! Repeating what was lost costs a round trip and a half; a second and third copy cost their bytes. For one short frame that
//! somebody waits for this is cheap, for anything else it is not: only flash frames that fit one slice are copied, and a
//! budget bounds what copies cost in all.

use std::time::Duration;

use model::{BitsPerSecond, Precedence};

/// A frame may be lost with this probability, in thousandths, before it has to be repeated.
const LOST_PERMILLE_MAX: f64 = 5.0;

/// At 30 % loss four copies leave 0.8 %; a worse link is no link for long.
pub const COPIES_MAX: u32 = 4;

/// Copies may take one part in this many of the rate ...
const BUDGET_PART: u64 = 10;

/// ... saved up for so long: at 9.6 kbit/s these are 1,200 bytes, three copies each of two flash posts.
const SAVED_MILLIS: u64 = 10_000;

/// The budget of copies on one link.
#[derive(Clone, Debug)]
pub struct Copies {
    saved_bytes: u64,
    refilled: Duration,
}

impl Copies {
    /// A full budget at `now`, for a link of this rate.
    pub fn new(rate: BitsPerSecond, now: Duration) -> Self {
        Self { saved_bytes: rate.bytes_in_millis(SAVED_MILLIS) / BUDGET_PART, refilled: now }
    }

    /// How often a frame is to be sent in all, 1 for most; what the further copies cost is taken from the budget. `lost_permille`: of
    /// the datagrams sent so far. `slice`: the largest frame that the link passes in one piece.
    pub fn of(
        &mut self,
        class: Precedence,
        frame_bytes: usize,
        slice: usize,
        lost_permille: u64,
        rate: BitsPerSecond,
        now: Duration,
    ) -> u32 {
        self.refill(rate, now);
        if class != Precedence::Flash || frame_bytes > slice {
            return 1;
        }
        let affordable = self.saved_bytes / (frame_bytes as u64).max(1);
        let copies = wanted(lost_permille).min(1 + u32::try_from(affordable).unwrap_or(u32::MAX));
        self.saved_bytes -= u64::from(copies - 1) * frame_bytes as u64;
        copies
    }

    /// Takes what one more copy of any frame costs from the budget. False when it is not there.
    pub fn afford(&mut self, frame_bytes: usize, rate: BitsPerSecond, now: Duration) -> bool {
        self.refill(rate, now);
        let left = self.saved_bytes.checked_sub(frame_bytes as u64);
        self.saved_bytes = left.unwrap_or(self.saved_bytes);
        left.is_some()
    }

    fn refill(&mut self, rate: BitsPerSecond, now: Duration) {
        let elapsed = u64::try_from(now.saturating_sub(self.refilled).as_millis()).unwrap_or(u64::MAX);
        self.refilled = self.refilled.max(now);
        let earned = rate.bytes_in_millis(elapsed.min(SAVED_MILLIS)) / BUDGET_PART;
        self.saved_bytes = (self.saved_bytes + earned).min(rate.bytes_in_millis(SAVED_MILLIS) / BUDGET_PART);
    }
}

/// What a link loses: of late, or on average where that is more. A link that was good for an hour says nothing about the
/// minute in which the ship turned.
#[derive(Clone, Debug, Default)]
pub struct Losses {
    now: Tally,
    /// Where the last two spans began.
    since: [Tally; 2],
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    settled: u64,
    lost: u64,
}

/// Datagrams of a span: at a loss of 10 % one or two spans show 7 to 13 %.
const SPAN: u64 = 100;

/// Losses among fewer datagrams count as if they were so many: of the first few, one may be chance.
const FEW: u64 = 20;

impl Losses {
    /// The fate of so many datagrams is known so far, and so many of them were lost.
    pub fn note(&mut self, settled: u64, lost: u64) {
        self.now = Tally { settled: settled.max(self.now.settled), lost: lost.max(self.now.lost) };
        if self.now.settled - self.since[1].settled >= SPAN {
            self.since = [self.since[1], self.now];
        }
    }

    /// In thousandths.
    pub fn permille(&self) -> u64 {
        let since = |then: Tally| (self.now.lost - then.lost) * 1_000 / (self.now.settled - then.settled).max(FEW);
        since(self.since[0]).max(since(Tally::default())).min(1_000)
    }
}

/// The least number of copies of which all are lost less often than [`LOST_PERMILLE_MAX`].
pub fn wanted(lost_permille: u64) -> u32 {
    let loss = lost_permille.min(1_000) as f64 / 1_000.0;
    (1..COPIES_MAX).find(|copies| loss.powi(*copies as i32) * 1_000.0 <= LOST_PERMILLE_MAX).unwrap_or(COPIES_MAX)
}

/// Time between two copies: so long that one fade does not take both, so short that all have been sent well within the
/// round trip that a repetition would cost.
pub fn spacing(round_trip: Duration) -> Duration {
    (round_trip / 8).clamp(Duration::from_millis(5), Duration::from_millis(100))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: BitsPerSecond = BitsPerSecond(1_000_000);
    const START: Duration = Duration::from_secs(7);

    #[test]
    fn the_number_of_copies_follows_the_loss() {
        let of = |permille| Copies::new(RATE, START).of(Precedence::Flash, 200, 1_150, permille, RATE, START);
        assert_eq!([0, 5, 6, 70, 100, 170, 200, 300, 900].map(of), [1, 1, 2, 2, 3, 3, 4, 4, 4]);
    }

    #[test]
    fn losses_count_as_soon_as_they_are_known_also_after_a_good_hour() {
        let mut losses = Losses::default();
        losses.note(3, 1);
        assert_eq!(losses.permille(), 50, "of a few, one may be chance");
        losses.note(100_000, 1);
        assert_eq!(losses.permille(), 0);
        for n in 1..=10 {
            losses.note(100_000 + 10 * n, 1 + 2 * n);
        }
        assert_eq!(losses.permille(), 200);
        (11..=100).for_each(|n| losses.note(100_000 + 10 * n, 21));
        assert_eq!(losses.permille(), 0, "it is good again");
    }

    #[test]
    fn a_link_that_always_loses_is_not_taken_for_better_after_a_lucky_minute() {
        let mut losses = Losses::default();
        losses.note(10_000, 1_000);
        losses.note(10_300, 1_000);
        assert!(losses.permille() >= 90, "{}", losses.permille());
    }

    #[test]
    fn only_short_flash_frames_are_copied() {
        let mut copies = Copies::new(RATE, START);
        for class in [Precedence::Immediate, Precedence::Priority, Precedence::Routine, Precedence::Deferred] {
            assert_eq!(copies.of(class, 200, 1_150, 300, RATE, START), 1);
        }
        assert_eq!(copies.of(Precedence::Flash, 1_151, 1_150, 300, RATE, START), 1);
    }

    #[test]
    fn copies_never_take_more_than_a_tenth_of_the_rate() {
        let mut copies = Copies::new(RATE, START);
        let mut extra = 0;
        for ms in 0..60_000u64 {
            let k = copies.of(Precedence::Flash, 1_000, 1_150, 300, RATE, START + Duration::from_millis(ms));
            extra += u64::from(k - 1) * 1_000;
        }
        assert!(extra <= RATE.bytes_in_millis(70_000) / 10, "{extra}");
        assert!(extra >= RATE.bytes_in_millis(55_000) / 10, "the budget is used: {extra}");
    }
}
