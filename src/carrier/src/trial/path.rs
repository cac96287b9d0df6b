//! One direction of an imagined link: a queue, a rate, a delay, and datagrams that the air swallows.

use std::collections::VecDeque;
use std::time::Duration;

use model::BitsPerSecond;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::governor::time_on_link;

/// What the air swallows, after a datagram has taken its time on the link.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Loss {
    /// Each datagram with this probability.
    Random(f64),
    /// Gilbert-Elliott in time, as a fade: everything while the link is bad, nothing while it is good. `mean` is the share
    /// of the time that is bad, `fade` the mean length of a bad time.
    Fades { mean: f64, fade: Duration },
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    pub(crate) rate: BitsPerSecond,
    /// One way.
    pub(crate) delay: Duration,
    pub(crate) loss: Loss,
    /// What the modem holds before it drops.
    pub(crate) queue: Duration,
}

/// Headers of UDP and IPv4.
pub(crate) const HEADERS: u64 = 28;

pub(crate) struct Path {
    pub(crate) weather: Weather,
    /// Nothing arrives in these times.
    pub(crate) outages: Vec<(Duration, Duration)>,
    rng: ChaCha8Rng,
    bad: bool,
    /// Until when the link stays as good or bad as it is.
    stays_until: Duration,
    free_at: Duration,
    under_way: VecDeque<(Duration, Vec<u8>)>,
    pub(crate) counts: Counts,
}

/// With headers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) sent: u64,
    pub(crate) sent_datagrams: u64,
    pub(crate) lost: u64,
    pub(crate) lost_datagrams: u64,
    pub(crate) overflowed: u64,
    /// Sum of the waiting times of all that passed, and the longest.
    pub(crate) waited: Duration,
    pub(crate) waited_longest: Duration,
}

impl Path {
    pub(crate) fn new(weather: Weather, seed: u64) -> Self {
        Self {
            weather,
            outages: Vec::new(),
            rng: ChaCha8Rng::seed_from_u64(seed),
            bad: true,
            stays_until: Duration::ZERO,
            free_at: Duration::ZERO,
            under_way: VecDeque::new(),
            counts: Counts::default(),
        }
    }

    /// Others' traffic fills the queue for so long.
    pub(crate) fn is_filled(&mut self, now: Duration, by: Duration) {
        self.free_at = self.free_at.max(now) + by;
    }

    pub(crate) fn send(&mut self, now: Duration, datagram: Vec<u8>) {
        let bytes = datagram.len() as u64 + HEADERS;
        self.counts.sent += bytes;
        self.counts.sent_datagrams += 1;
        let waits = self.free_at.saturating_sub(now);
        if waits > self.weather.queue {
            self.counts.overflowed += 1;
            return;
        }
        self.counts.waited += waits;
        self.counts.waited_longest = self.counts.waited_longest.max(waits);
        self.free_at = self.free_at.max(now) + time_on_link(bytes, self.weather.rate);
        let arrives = self.free_at + self.weather.delay;
        if self.is_swallowed(self.free_at) || self.outages.iter().any(|(from, to)| (*from..*to).contains(&arrives)) {
            self.counts.lost += bytes;
            self.counts.lost_datagrams += 1;
        } else {
            self.under_way.push_back((arrives, datagram));
        }
    }

    fn is_swallowed(&mut self, at: Duration) -> bool {
        match self.weather.loss {
            Loss::Random(p) => self.rng.random_bool(p),
            Loss::Fades { mean, fade } => {
                while self.stays_until <= at {
                    self.bad = !self.bad;
                    let long = if self.bad { fade } else { fade.mul_f64((1.0 - mean) / mean) };
                    self.stays_until += long.mul_f64(-self.rng.random_range(f64::MIN_POSITIVE..1.0).ln());
                }
                self.bad
            }
        }
    }

    pub(crate) fn next_arrival(&self) -> Option<Duration> {
        self.under_way.front().map(|(at, _)| *at)
    }

    pub(crate) fn receive(&mut self, now: Duration) -> Option<Vec<u8>> {
        if self.next_arrival()? > now {
            return None;
        }
        self.under_way.pop_front().map(|(_, datagram)| datagram)
    }
}
