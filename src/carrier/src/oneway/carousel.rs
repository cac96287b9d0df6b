//! What is sent when on the one-way lane. No I/O, no clock.

use std::collections::VecDeque;
use std::time::Duration;

use model::{NodeId, Precedence};

use super::code::{Cut, TagKey};

/// Between two passes of a parcel: longer than most bursts of loss.
const PASS_GAP: Duration = Duration::from_secs(10);

/// Of flash: the first pass is most of the latency, the next ones are for what it lost.
const PASS_GAP_FLASH: Duration = Duration::from_secs(1);

/// More passes of flash than of the others.
const FLASH_PASSES_EXTRA: u32 = 2;

/// The parcels that were planned together; counts up from 0.
pub(crate) type Group = u64;

/// Parcels that have passes left, in the order in which they are to be sent.
pub(crate) struct Carousel {
    from: NodeId,
    key: TagKey,
    passes: u32,
    redundancy_percent: u32,
    parcels: Vec<Turning>,
}

struct Turning {
    group: Group,
    class: Precedence,
    cut: Cut,
    len: usize,
    /// What is left of the pass under way.
    datagrams: VecDeque<Vec<u8>>,
    /// When the next pass begins.
    due: Duration,
}

impl Carousel {
    pub(crate) fn new(from: NodeId, key: TagKey, passes: u32, redundancy_percent: u32) -> Self {
        Self { from, key, passes, redundancy_percent, parcels: Vec::new() }
    }

    /// A parcel to send.
    pub(crate) fn add(&mut self, group: Group, class: Precedence, parcel: &[u8], now: Duration) {
        let (cut, len) = (Cut::new(self.from, &self.key, parcel), parcel.len());
        self.parcels.push(Turning { group, class, cut, len, datagrams: VecDeque::new(), due: now });
    }

    /// Bytes of the parcels that have passes left.
    pub(crate) fn bytes(&self) -> usize {
        self.parcels.iter().map(|turning| turning.len).sum()
    }

    /// Of these, bytes of the parcels of which the first pass is not over.
    pub(crate) fn new_bytes(&self) -> usize {
        let new = |t: &&Turning| t.cut.passes() == 0 || t.cut.passes() == 1 && !t.datagrams.is_empty();
        self.parcels.iter().filter(new).map(|turning| turning.len).sum()
    }

    /// Has a parcel of this group passes left?
    pub(crate) fn has(&self, group: Group) -> bool {
        self.parcels.iter().any(|turning| turning.group == group)
    }

    /// The next datagram: of the most urgent class that has one, of the parcel whose turn began first.
    pub(crate) fn next(&mut self, now: Duration) -> Option<Vec<u8>> {
        let ready = |turning: &Turning| !turning.datagrams.is_empty() || turning.due <= now;
        let candidates = self.parcels.iter().enumerate().filter(|(_, turning)| ready(turning));
        let at = candidates.min_by_key(|(_, turning)| (turning.class, turning.due)).map(|(at, _)| at)?;
        let (passes, percent) = (self.passes, self.redundancy_percent);
        let turning = self.parcels.get_mut(at)?;
        let flash = turning.class == Precedence::Flash;
        if turning.datagrams.is_empty() {
            let percent = if flash { 2 * percent } else { percent };
            turning.datagrams = turning.cut.next_pass(percent).into();
        }
        let datagram = turning.datagrams.pop_front()?;
        if turning.datagrams.is_empty() {
            turning.due = now + if flash { PASS_GAP_FLASH } else { PASS_GAP };
            if turning.cut.passes() >= passes + if flash { FLASH_PASSES_EXTRA } else { 0 } {
                self.parcels.remove(at);
            }
        }
        Some(datagram)
    }

    /// When there is a datagram next; `None` when nothing is on the carousel.
    pub(crate) fn due(&self) -> Option<Duration> {
        let due = |turning: &Turning| if turning.datagrams.is_empty() { turning.due } else { Duration::ZERO };
        self.parcels.iter().map(due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oneway::code::tests::{ALPHA, key, senders};
    use crate::oneway::code::{Arrived, Assembler};

    #[test]
    fn flash_goes_first_and_more_often() {
        let mut carousel = Carousel::new(ALPHA, key(), 2, 20);
        let (bulk, flash) = (vec![7; 200_000], vec![8; 3_000]);
        carousel.add(0, Precedence::Routine, &bulk, Duration::ZERO);
        let before = carousel.next(Duration::ZERO).unwrap();
        carousel.add(1, Precedence::Flash, &flash, Duration::ZERO);
        assert_eq!((carousel.bytes(), carousel.new_bytes()), (203_000, 203_000));
        let mut assembler = Assembler::default();
        assembler.take(&senders(), &before);
        let mut flash_datagrams = 0;
        // The next datagrams are all of the flash parcel, in the middle of a pass of the other.
        loop {
            flash_datagrams += 1;
            if let Arrived::Whole(parcel) = assembler.take(&senders(), &carousel.next(Duration::ZERO).unwrap()) {
                assert!(parcel == flash);
                break;
            }
        }
        assert_eq!(flash_datagrams, 3);
        let (mut now, mut sent, mut order) = (Duration::ZERO, 0, Vec::new());
        while let Some(due) = carousel.due() {
            now = now.max(due);
            while let Some(datagram) = carousel.next(now) {
                sent += 1;
                assembler.take(&senders(), &datagram);
                let left = (carousel.has(0), carousel.has(1));
                if order.last() != Some(&left) {
                    order.push(left);
                }
            }
        }
        assert_eq!((carousel.bytes(), carousel.new_bytes()), (0, 0));
        // The bulk's second pass, ten seconds after its first, is the last of all.
        assert_eq!(order, [(true, true), (true, false), (false, false)]);
        assert!(assembler.half_received().is_empty());
        // 175 symbols and 37 more, twice, less the first; 3 and 3, four times, less the first three.
        assert_eq!(sent, 2 * (175 + 37) - 1 + 4 * 6 - 3);
    }
}
