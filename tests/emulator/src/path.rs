//! One direction of an emulated link, as a function of time: packets go in, and come out later or never.
//!
//! ```text
//! offer --> [ queue, bounded in bytes ] --serialised at the rate--> lost? --propagation delay--> take_due
//! ```
//! Invariants
//! - What leaves never exceeds the rate: a packet's bits occupy the link before its delay begins.
//! - A lost packet has occupied the link: at most rate x (1 - loss) arrives.
//! - Without reordering packets leave in the order in which they came.
//! - The same seed, conditions and packets give the same fates.
//!
//! Time is the duration since an epoch that the caller chose; there is no clock and no socket here.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How one direction treats packets.
#[derive(Clone, Debug, PartialEq)]
pub struct Conditions {
    /// Bits per second of whole IP packets.
    pub rate: u64,
    /// Propagation, after the last bit has left.
    pub delay: Duration,
    /// What is lost of what has left.
    pub loss: Loss,
    /// Bytes that may wait for the link, the packet that is on it included. What does not fit is dropped at the tail.
    pub queue_bytes: u64,
    /// Share of packets that are held up, and by how much at most.
    pub reorder: (f64, Duration),
    /// Share of packets that arrive twice.
    pub duplicate: f64,
    /// When nothing arrives, from and until, counted from [`Path::set`]. The sender does not notice: what it sends is lost.
    pub outages: Vec<(Duration, Duration)>,
}

impl Conditions {
    /// A link with this rate, one-way delay and random loss, and a queue of one second, as a modem has; never below
    /// 16 kB, which thin modems have too.
    pub fn new(rate: u64, delay: Duration, loss: f64) -> Self {
        Self {
            rate,
            delay,
            loss: Loss::Random(loss),
            queue_bytes: (rate / 8).max(16_000),
            reorder: (0.0, Duration::ZERO),
            duplicate: 0.0,
            outages: Vec::new(),
        }
    }

    fn is_out(&self, since_set: Duration) -> bool {
        self.outages.iter().any(|(from, until)| (*from..*until).contains(&since_set))
    }

    /// How long `bytes` occupy the link.
    pub fn time_of(&self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 8_000_000_000 / u128::from(self.rate.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// Which packets are lost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loss {
    /// Each with this probability, whatever became of the others.
    Random(f64),
    /// In bursts (Gilbert-Elliott): a good state that loses nothing and a bad one that loses everything.
    Bursts {
        /// Share of packets lost in the long run.
        share: f64,
        /// Packets in a burst on average, 1 or more.
        length: f64,
    },
}

impl Loss {
    /// Share of packets lost in the long run.
    pub fn share(self) -> f64 {
        match self {
            Self::Random(share) | Self::Bursts { share, .. } => share,
        }
    }
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives.
    Delivered,
    /// Lost on the way, after it had occupied the link.
    Lost,
    /// Sent into an outage, and it had occupied the link as well.
    Outage,
    /// The queue was full; it never occupied the link.
    QueueFull,
}

/// The record of one packet.
#[derive(Clone, Copy, Debug)]
pub struct Passage {
    /// When it was offered.
    pub at: Duration,
    /// When its last bit had left the sender's side; for a packet that found the queue full the same as `at`.
    pub left: Duration,
    /// Length of the IP packet.
    pub bytes: u32,
    /// What became of it.
    pub fate: Fate,
}

/// One direction of a link.
pub struct Path {
    conditions: Conditions,
    set_at: Duration,
    /// When the link has sent all that was accepted.
    free_at: Duration,
    in_burst: bool,
    random: ChaCha8Rng,
    underway: BinaryHeap<Reverse<Underway>>,
    accepted: u64,
    log: Vec<Passage>,
}

/// A packet on its way. The number keeps packets that are due together in their order.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Underway {
    due: Duration,
    number: u64,
    packet: Vec<u8>,
}

impl Path {
    /// Nothing is on its way yet. What is lost repeats with the seed.
    pub fn new(conditions: Conditions, seed: u64) -> Self {
        Self {
            conditions,
            set_at: Duration::ZERO,
            free_at: Duration::ZERO,
            in_burst: false,
            random: ChaCha8Rng::seed_from_u64(seed),
            underway: BinaryHeap::new(),
            accepted: 0,
            log: Vec::new(),
        }
    }

    /// Other conditions from here on; what is underway arrives as it would have.
    pub fn set(&mut self, now: Duration, conditions: Conditions) {
        self.conditions = conditions;
        self.set_at = now;
        self.free_at = self.free_at.min(now);
        self.in_burst = false;
    }

    /// Takes a packet from the sender.
    pub fn offer(&mut self, now: Duration, packet: &[u8]) {
        let bytes = packet.len() as u64;
        let begins = self.free_at.max(now);
        let waiting = u128::from(self.conditions.rate) * (begins - now).as_nanos() / 8_000_000_000;
        if waiting as u64 + bytes > self.conditions.queue_bytes {
            self.log.push(Passage { at: now, left: now, bytes: bytes as u32, fate: Fate::QueueFull });
            return;
        }
        let left = begins + self.conditions.time_of(bytes);
        self.free_at = left;
        let fate = match (self.conditions.is_out(left.saturating_sub(self.set_at)), self.loses()) {
            (true, _) => Fate::Outage,
            (false, true) => Fate::Lost,
            (false, false) => Fate::Delivered,
        };
        self.log.push(Passage { at: now, left, bytes: bytes as u32, fate });
        if fate != Fate::Delivered {
            return;
        }
        let (held_up, by) = self.conditions.reorder;
        let extra = if self.chance(held_up) { by.mul_f64(self.random.random()) } else { Duration::ZERO };
        let copies = if self.chance(self.conditions.duplicate) { 2 } else { 1 };
        for _ in 0..copies {
            let due = left + self.conditions.delay + extra;
            self.underway.push(Reverse(Underway { due, number: self.accepted, packet: packet.to_vec() }));
            self.accepted += 1;
        }
    }

    /// When [`Self::take_due`] has something next.
    pub fn next_due(&self) -> Option<Duration> {
        self.underway.peek().map(|Reverse(next)| next.due)
    }

    /// The next packet whose time has come, with that time.
    pub fn take_due(&mut self, now: Duration) -> Option<(Duration, Vec<u8>)> {
        if self.next_due()? > now {
            return None;
        }
        self.underway.pop().map(|Reverse(next)| (next.due, next.packet))
    }

    /// Everything that was offered so far, in order.
    pub fn log(&self) -> &[Passage] {
        &self.log
    }

    fn chance(&mut self, share: f64) -> bool {
        share > 0.0 && self.random.random::<f64>() < share
    }

    fn loses(&mut self) -> bool {
        match self.conditions.loss {
            Loss::Random(share) => self.chance(share),
            Loss::Bursts { share, length } => {
                // In the long run the share of bad packets is enter / (enter + leave).
                let leave = 1.0 / length.max(1.0);
                let enter = leave * share / (1.0 - share).max(f64::MIN_POSITIVE);
                let turns = self.chance(if self.in_burst { leave } else { enter });
                self.in_burst ^= turns;
                self.in_burst
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// 8 Mbit/s: a packet of 1,000 bytes takes a millisecond.
    fn conditions() -> Conditions {
        Conditions { queue_bytes: 10_000, ..Conditions::new(8_000_000, 50 * MS, 0.0) }
    }

    fn arrivals(path: &mut Path) -> Vec<Duration> {
        std::iter::from_fn(|| path.take_due(Duration::MAX).map(|(due, _)| due)).collect()
    }

    fn fates(path: &Path) -> Vec<Fate> {
        path.log().iter().map(|passage| passage.fate).collect()
    }

    #[test]
    fn packets_are_serialised_before_they_are_delayed() {
        let mut path = Path::new(conditions(), 1);
        for _ in 0..3 {
            path.offer(Duration::ZERO, &[0; 1_000]);
        }
        path.offer(10 * MS, &[0; 500]);
        assert_eq!(path.next_due(), Some(51 * MS));
        assert!(path.take_due(50 * MS).is_none(), "not before its time");
        assert_eq!(arrivals(&mut path), [51 * MS, 52 * MS, 53 * MS, 60 * MS + MS / 2]);
    }

    #[test]
    fn the_queue_holds_its_bytes_and_drops_at_the_tail() {
        let mut path = Path::new(conditions(), 1);
        for _ in 0..12 {
            path.offer(Duration::ZERO, &[0; 1_000]);
        }
        assert_eq!(fates(&path)[9..], [Fate::Delivered, Fate::QueueFull, Fate::QueueFull]);
        // Two milliseconds later two packets have left, and there is room for two.
        for _ in 0..3 {
            path.offer(2 * MS, &[0; 1_000]);
        }
        assert_eq!(fates(&path)[12..], [Fate::Delivered, Fate::Delivered, Fate::QueueFull]);
        assert_eq!(arrivals(&mut path).len(), 12);
    }

    #[test]
    fn what_is_lost_has_occupied_the_link() {
        let mut path = Path::new(Conditions { loss: Loss::Random(1.0), ..conditions() }, 1);
        for _ in 0..2 {
            path.offer(Duration::ZERO, &[0; 1_000]);
        }
        assert_eq!(fates(&path), [Fate::Lost, Fate::Lost]);
        assert_eq!(path.log()[1].left, 2 * MS);
        assert!(arrivals(&mut path).is_empty());
    }

    #[test]
    fn random_loss_is_its_share_and_the_same_for_the_same_seed() {
        let run = |seed| {
            let mut path = Path::new(Conditions { loss: Loss::Random(0.1), ..conditions() }, seed);
            for packet in 0..100_000 {
                path.offer(MS * packet, &[0; 100]);
            }
            fates(&path)
        };
        let lost = run(7).iter().filter(|fate| **fate == Fate::Lost).count();
        assert!((9_700..=10_300).contains(&lost), "{lost} of 100,000");
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }

    #[test]
    fn bursts_have_their_share_and_their_length() {
        let loss = Loss::Bursts { share: 0.1, length: 8.0 };
        let mut path = Path::new(Conditions { loss, ..conditions() }, 3);
        for packet in 0..400_000 {
            path.offer(MS * packet, &[0; 100]);
        }
        let fates = fates(&path);
        let lost = fates.iter().filter(|fate| **fate == Fate::Lost).count() as f64;
        let bursts = fates.windows(2).filter(|w| w[0] == Fate::Delivered && w[1] == Fate::Lost).count() as f64;
        assert!((lost / 400_000.0 - 0.1).abs() < 0.005, "share {}", lost / 400_000.0);
        assert!((lost / bursts - 8.0).abs() < 0.5, "length {}", lost / bursts);
    }

    #[test]
    fn an_outage_loses_what_leaves_in_it_and_nothing_else() {
        let outages = vec![(10 * MS, 20 * MS)];
        let mut path = Path::new(conditions(), 1);
        path.set(100 * MS, Conditions { outages, ..conditions() });
        for at in [105, 112, 118, 119, 125] {
            path.offer(at * MS, &[0; 1_000]);
        }
        // The fourth is offered within the outage and has left at its end.
        let seen = [Fate::Delivered, Fate::Outage, Fate::Outage, Fate::Delivered, Fate::Delivered];
        assert_eq!(fates(&path), seen);
    }

    #[test]
    fn reordering_holds_some_up_and_duplication_delivers_twice() {
        let reorder = (0.3, 20 * MS);
        let mut path = Path::new(Conditions { reorder, duplicate: 0.2, ..conditions() }, 5);
        for packet in 0..10_000_u32 {
            path.offer(2 * MS * packet, &packet.to_be_bytes());
        }
        let mut numbers = Vec::new();
        while let Some((_, packet)) = path.take_due(Duration::MAX) {
            numbers.push(u32::from_be_bytes(packet.try_into().unwrap()));
        }
        assert!((11_800..=12_200).contains(&numbers.len()), "{} of 10,000", numbers.len());
        assert!(!numbers.is_sorted(), "nothing was overtaken");
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 10_000, "something was lost");
    }

    #[test]
    fn a_saturated_path_carries_its_rate() {
        let mut path = Path::new(conditions(), 1);
        for packet in 0..40_000 {
            path.offer(MS / 4 * packet, &[0; 1_000]);
        }
        // 10 s at 8 Mbit/s are 10 MB, and a queue full of packets is still underway.
        let arrived = arrivals(&mut path);
        let within = arrived.iter().filter(|due| **due <= Duration::from_millis(10_050)).count();
        assert!((9_990..=10_000).contains(&within), "{within}");
    }
}
