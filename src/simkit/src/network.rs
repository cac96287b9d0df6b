//! One direction of a link: bytes in order, late, and lost when the link goes.

use std::collections::VecDeque;
use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// How bad the link is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// One way.
    pub(crate) delay: Duration,
    /// Part of the packets that the transport below must repeat.
    pub(crate) loss: f64,
}

#[derive(Debug, Default)]
pub(crate) struct Pipe {
    /// When bytes arrive, in order.
    under_way: VecDeque<(Duration, Vec<u8>)>,
}

impl Pipe {
    /// A reliable transport turns each loss into a round trip more, for everything behind it too.
    pub(crate) fn send(&mut self, bytes: Vec<u8>, now: Duration, weather: Weather, rng: &mut ChaCha8Rng) {
        let mut at = now + weather.delay;
        while rng.random_bool(weather.loss) {
            at += 3 * weather.delay;
        }
        let last = self.under_way.back().map_or(Duration::ZERO, |(at, _)| *at);
        self.under_way.push_back((at.max(last), bytes));
    }

    pub(crate) fn next_arrival(&self) -> Option<Duration> {
        self.under_way.front().map(|(at, _)| *at)
    }

    pub(crate) fn receive(&mut self, now: Duration) -> Option<Vec<u8>> {
        if self.next_arrival()? > now {
            return None;
        }
        self.under_way.pop_front().map(|(_, bytes)| bytes)
    }

    /// The link goes: the receiver still gets some of the bytes, cut anywhere.
    pub(crate) fn cut(&mut self, rng: &mut ChaCha8Rng) -> Vec<u8> {
        let all: Vec<u8> = self.under_way.drain(..).flat_map(|(_, bytes)| bytes).collect();
        let some = rng.random_range(0..=all.len());
        all[..some].to_vec()
    }
}
