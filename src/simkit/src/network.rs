//! A link between two nodes: frames that take their time, overtake each other, come twice, and are lost when the link goes.
//!
//! It behaves as the carrier makes any real link behave. Datagrams are authenticated, so a damaged one is a lost one;
//! what is lost is repeated until the link goes; a frame never arrives in part; nothing arrives before the greeting.

use std::collections::BTreeMap;
use std::time::Duration;

use model::{BitsPerSecond, Precedence};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// What a datagram carries of a frame.
const DATAGRAM_BYTES: usize = 1_150;

/// Headers and tag of a datagram.
const DATAGRAM_OVERHEAD: u64 = 50;

/// So much may wait in a modem before the carrier hands out nothing more but what is urgent.
const QUEUE_MAX: Duration = Duration::from_millis(500);

/// How a link loses datagrams.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loss {
    /// Each one with the same probability.
    Random(f64),
    /// Gilbert-Elliott: nothing is lost in the good state and everything in the bad one. Datagrams that a state lasts on
    /// average.
    Bursts {
        /// In the good state.
        good: f64,
        /// In the bad state.
        bad: f64,
    },
}

/// How bad a link is, in one direction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weather {
    /// What it carries.
    pub rate: BitsPerSecond,
    /// One way.
    pub delay: Duration,
    /// Up to so much is added to the delay of each datagram, which reorders them.
    pub jitter: Duration,
    /// Which datagrams do not arrive, or arrive damaged.
    pub loss: Loss,
    /// The part of the frames that arrives twice.
    pub doubled: f64,
}

impl Weather {
    /// A clean link of that rate.
    pub fn fair(rate: BitsPerSecond) -> Self {
        Self { rate, delay: Duration::from_millis(300), jitter: Duration::ZERO, loss: Loss::Random(0.0), doubled: 0.0 }
    }
}

/// One direction of a link.
#[derive(Debug)]
pub(crate) struct Direction {
    pub(crate) weather: Weather,
    in_burst: bool,
    /// What was handed over is on the air by then.
    busy_until: Duration,
    /// By arrival, then in the order of sending.
    under_way: BTreeMap<(Duration, u64), Vec<u8>>,
    sent: u64,
    /// Has the greeting arrived? What overtook it waits.
    greeted: bool,
    early: Vec<Vec<u8>>,
}

impl Direction {
    pub(crate) fn new(weather: Weather) -> Self {
        Self {
            weather,
            in_burst: false,
            busy_until: Duration::ZERO,
            under_way: BTreeMap::new(),
            sent: 0,
            greeted: false,
            early: Vec::new(),
        }
    }

    /// May anything but urgent frames be handed over?
    pub(crate) fn has_room(&self, now: Duration) -> bool {
        self.busy_until <= now + QUEUE_MAX
    }

    /// When [`Direction::has_room`] becomes true.
    pub(crate) fn room_at(&self) -> Duration {
        self.busy_until.saturating_sub(QUEUE_MAX)
    }

    pub(crate) fn send(&mut self, frame: Vec<u8>, now: Duration, rng: &mut ChaCha8Rng) {
        let round_trip = 2 * self.weather.delay + self.weather.jitter + Duration::from_millis(25);
        let mut whole_at = now;
        let mut left = frame.len();
        while left > 0 {
            let part = left.min(DATAGRAM_BYTES);
            left -= part;
            let mut repeats = 0;
            loop {
                self.busy_until = self.busy_until.max(now) + self.on_air(part as u64 + DATAGRAM_OVERHEAD);
                if !self.is_lost(rng) {
                    break;
                }
                repeats += 1;
            }
            let arrives = self.busy_until + repeats * round_trip + self.weather.delay + self.jitter(rng);
            whole_at = whole_at.max(arrives);
        }
        if rng.random_bool(self.weather.doubled) {
            let again = whole_at + self.jitter(rng) + Duration::from_millis(rng.random_range(0..2_000));
            self.put(again, frame.clone());
        }
        self.put(whole_at, frame);
    }

    fn put(&mut self, at: Duration, frame: Vec<u8>) {
        self.sent += 1;
        // The greeting is the first that is sent.
        self.under_way.insert((at, self.sent), frame);
    }

    fn on_air(&self, bytes: u64) -> Duration {
        Duration::from_nanos(bytes * 8 * 1_000_000_000 / self.weather.rate.0.max(1))
    }

    fn jitter(&self, rng: &mut ChaCha8Rng) -> Duration {
        self.weather.jitter.mul_f64(rng.random_range(0.0..=1.0))
    }

    fn is_lost(&mut self, rng: &mut ChaCha8Rng) -> bool {
        match self.weather.loss {
            Loss::Random(part) => rng.random_bool(part),
            Loss::Bursts { good, bad } => {
                let stays = if self.in_burst { bad } else { good };
                self.in_burst ^= rng.random_bool((1.0 / stays.max(1.0)).min(1.0));
                self.in_burst
            }
        }
    }

    pub(crate) fn next_arrival(&self) -> Option<Duration> {
        self.under_way.first_key_value().map(|((at, _), _)| *at)
    }

    /// What arrived by now, the greeting first.
    pub(crate) fn receive(&mut self, now: Duration, is_greeting: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
        let mut arrived = Vec::new();
        while let Some(first) = self.under_way.first_entry().filter(|first| first.key().0 <= now) {
            let frame = first.remove();
            if self.greeted {
                arrived.push(frame);
            } else if is_greeting(&frame) {
                self.greeted = true;
                arrived.push(frame);
                arrived.append(&mut self.early);
            } else {
                self.early.push(frame);
            }
        }
        arrived
    }

    /// The link goes: some of what is under way still arrives.
    pub(crate) fn cut(&mut self, rng: &mut ChaCha8Rng) {
        self.under_way.retain(|_, _| rng.random_bool(0.5));
        for ((_, n), frame) in std::mem::take(&mut self.under_way) {
            self.under_way.insert((Duration::ZERO, n), frame);
        }
    }

    /// Nothing of the link's past is left.
    pub(crate) fn clear(&mut self) {
        *self = Self::new(self.weather);
    }
}

/// With no room, only what passes everything.
pub(crate) fn passes_a_full_queue(class: Precedence) -> bool {
    matches!(class, Precedence::Flash | Precedence::Immediate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn arrivals(weather: Weather, frames: usize) -> (Vec<Duration>, Direction) {
        let (mut rng, mut direction) = (ChaCha8Rng::seed_from_u64(7), Direction::new(weather));
        for _ in 0..frames {
            direction.send(vec![0; DATAGRAM_BYTES], Duration::ZERO, &mut rng);
        }
        (direction.under_way.keys().map(|(at, _)| *at).collect(), direction)
    }

    #[test]
    fn a_link_carries_what_its_rate_and_loss_leave() {
        for (loss, part) in
            [(Loss::Random(0.0), 1.0), (Loss::Random(0.2), 0.8), (Loss::Bursts { good: 90.0, bad: 10.0 }, 0.9)]
        {
            let weather = Weather { loss, ..Weather::fair(BitsPerSecond(96_000)) };
            let (_, direction) = arrivals(weather, 2_000);
            // 1,200 bytes are 100 ms.
            let share = 200.0 / direction.busy_until.as_secs_f64();
            assert!((share - part).abs() < 0.03, "{loss:?}: {share}");
        }
    }

    #[test]
    fn frames_overtake_each_other_where_datagrams_are_lost_and_come_twice_where_they_are_doubled() {
        let weather = Weather { loss: Loss::Random(0.3), doubled: 0.1, ..Weather::fair(BitsPerSecond(1_000_000)) };
        let (_, direction) = arrivals(weather, 500);
        let order: Vec<u64> = direction.under_way.keys().map(|(_, n)| *n).collect();
        assert!(!order.is_sorted(), "nothing overtook");
        assert!((530..=570).contains(&order.len()), "{} of 500", order.len());
    }
}
