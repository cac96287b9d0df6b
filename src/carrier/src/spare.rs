//! What is sent again while a lossy link has nothing else to do.
//!
//! A repetition costs a round trip and a half, and at a start each step waits for the one before: at 30 % loss and 600 ms
//! fifteen seconds for a few hundred bytes, over a link that stood idle. So what a start waits for is sent several times at
//! once then, and so is, at the end of a transfer, whatever has been lost before.

use std::collections::BTreeMap;
use std::time::Duration;

use wire::Frame;

use crate::pipe::FrameNumber;

/// Does a start wait for it? Each of these is asked for or answered before anything useful can follow.
pub(crate) fn is_hurried(frame: &Frame) -> bool {
    match frame {
        Frame::Join(_) | Frame::Greet(_) | Frame::Ready(_) | Frame::Want(_) | Frame::Verify(_) | Frame::Verdict(_) => {
            true
        }
        // In a greeting.
        Frame::Receipt(receipt) => receipt.part > 0,
        Frame::Claim(claim) => claim.part > 0,
        Frame::Resume(_)
        | Frame::Batch(_)
        | Frame::Fragment(_)
        | Frame::Skip(_)
        | Frame::Unavailable(_)
        | Frame::Slice(_)
        | Frame::KeepAlive
        | Frame::Bye(_)
        | Frame::Again(_)
        | Frame::Recall(_)
        | Frame::Returned(_)
        | Frame::Gone(_)
        | Frame::History(_)
        | Frame::HistoryHeld(_)
        | Frame::HistoryGone(_)
        | Frame::Whole(_)
        | Frame::Got(_)
        | Frame::Shut(_)
        | Frame::OnRequest(_)
        | Frame::Urge(_)
        | Frame::Carried(_)
        | Frame::Kept(_) => false,
    }
}

/// What is known about the path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SpareView {
    /// How often something has to be sent so that it hardly gets lost altogether, see [`shaper::wanted`].
    pub(crate) times: u32,
    /// Between two copies.
    pub(crate) spacing: Duration,
    /// After this a confirmation is late.
    pub(crate) late: Duration,
}

/// A frame that is not confirmed.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    len: usize,
    hurried: bool,
    /// When the first copy may follow.
    from: Duration,
    /// Copies since then; each round of them ends with a wait.
    copies: u32,
}

/// The frames of one connection that are not confirmed.
#[derive(Debug, Default)]
pub(crate) struct Spare {
    frames: BTreeMap<FrameNumber, Waiting>,
    /// Those before it were looked at when one after them was confirmed.
    overtaken: FrameNumber,
}

impl Spare {
    /// A frame was handed to the connection for the first time; numbers rise. `hurried`: a start waits for it.
    pub(crate) fn sent(&mut self, number: FrameNumber, len: usize, hurried: bool, path: &SpareView, now: Duration) {
        let from = now + if hurried { path.spacing } else { path.late };
        self.frames.insert(number, Waiting { len, hurried, from, copies: 0 });
    }

    /// It arrived. What was sent well before it and is not confirmed by now was lost, as QUIC sees it too: it is repeated
    /// now, and may be copied beside that.
    pub(crate) fn delivered(&mut self, number: FrameNumber, now: Duration) {
        self.frames.remove(&number);
        let before = number.saturating_sub(REORDERED);
        if before > self.overtaken {
            for (_, frame) in self.frames.range_mut(self.overtaken..before) {
                frame.from = frame.from.min(now);
            }
            self.overtaken = before;
        }
    }

    /// A frame that may be copied at `now`, with its length, and when the next one may be.
    pub(crate) fn due(&self, path: &SpareView, now: Duration) -> (Option<(FrameNumber, usize)>, Option<Duration>) {
        let at = |frame: &Waiting| frame.due(path);
        let next = self.frames.iter().filter_map(|(number, frame)| Some((at(frame)?, *number, frame.len))).min();
        match next {
            Some((due, number, len)) if due <= now => (Some((number, len)), None),
            other => (None, other.map(|(due, ..)| due)),
        }
    }

    /// It was copied.
    pub(crate) fn copied(&mut self, number: FrameNumber) {
        if let Some(frame) = self.frames.get_mut(&number) {
            frame.copies += 1;
        }
    }
}

impl Waiting {
    fn due(&self, path: &SpareView) -> Option<Duration> {
        // Of the rest there is much, and QUIC repeats it too.
        let more = path.times.saturating_sub(1).min(if self.hurried { path.times } else { 1 });
        if more == 0 || self.copies >= COPIES_MAX {
            return None;
        }
        let (round, place) = (self.copies / more, self.copies % more);
        Some(self.from + round * path.late + place * path.spacing)
    }
}

/// Frames that may overtake another without its being lost.
const REORDERED: u64 = 3;

/// By then the link is gone rather than lossy, and probes find out when it is back.
const COPIES_MAX: u32 = 12;

#[cfg(test)]
mod tests {
    use super::*;

    const LATE: u64 = 800;
    const PATH: SpareView =
        SpareView { times: 3, spacing: Duration::from_millis(50), late: Duration::from_millis(LATE) };

    /// When copies of one frame are sent, in milliseconds.
    fn copies(hurried: bool, path: &SpareView) -> Vec<u64> {
        let mut spare = Spare::default();
        spare.sent(7, 100, hurried, path, Duration::ZERO);
        let mut at = Vec::new();
        for ms in 0..10_000 {
            if let (Some((number, 100)), _) = spare.due(path, Duration::from_millis(ms)) {
                spare.copied(number);
                at.push(ms);
            }
        }
        at
    }

    #[test]
    fn what_a_start_waits_for_is_copied_at_once_and_the_rest_when_it_is_late() {
        assert_eq!(copies(true, &PATH)[..4], [50, 100, LATE + 50, LATE + 100]);
        assert_eq!(copies(false, &PATH)[..4], [LATE, 2 * LATE, 3 * LATE, 4 * LATE]);
        assert_eq!(copies(true, &PATH).len(), 12, "not for ever");
    }

    #[test]
    fn nothing_is_copied_on_a_link_without_loss_or_once_it_was_confirmed() {
        assert!(copies(true, &SpareView { times: 1, ..PATH }).is_empty());
        let mut spare = Spare::default();
        spare.sent(7, 100, true, &PATH, Duration::ZERO);
        assert_eq!(spare.due(&PATH, Duration::ZERO), (None, Some(PATH.spacing)));
        spare.delivered(7, Duration::ZERO);
        assert_eq!(spare.due(&PATH, Duration::from_secs(5)), (None, None));
    }

    #[test]
    fn what_was_overtaken_is_copied_before_it_is_late() {
        let mut spare = Spare::default();
        let ms = Duration::from_millis;
        (1..=5).for_each(|number| spare.sent(number, 100, false, &PATH, ms(number)));
        spare.delivered(3, ms(600));
        assert_eq!(spare.due(&PATH, ms(600)).0, None, "two places are no loss");
        spare.delivered(5, ms(610));
        assert_eq!(spare.due(&PATH, ms(610)).0, Some((1, 100)));
        spare.copied(1);
        assert_eq!(spare.due(&PATH, ms(610)), (None, Some(ms(LATE + 2))), "the next in its own time");
    }
}
