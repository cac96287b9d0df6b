//! Two nodes, a bad link between them, and bad luck.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::{BitsPerSecond, NodeId, Precedence};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use wire::frame::FrameBuffer;

use crate::VirtualClock;
use crate::network::{Pipe, Weather};
use crate::node::{PowerLost, Row, SimNode};

/// The seeds to try: the one in `SEED`, or so many from 0 on.
pub fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => vec![seed],
        None => (0..count).collect(),
    }
}

/// A world that is the same every time for the same seed and the same calls.
pub struct World {
    seed: u64,
    rng: ChaCha8Rng,
    clock: VirtualClock,
    nodes: [SimNode; 2],
    pipes: [Pipe; 2],
    buffers: [FrameBuffer; 2],
    weather: Weather,
    /// Mean time that the link is up and down; `None`: always up.
    outages: Option<(Duration, Duration)>,
    /// Mean time between crashes of either node.
    crashes: Option<Duration>,
    up: bool,
    link_changes_at: Duration,
    crash_at: Duration,
    starts_at: [Duration; 2],
    capture_every: Duration,
    captures_left: usize,
    capture_at: Duration,
}

impl World {
    /// Two nodes and a good link of 64 kbit/s.
    pub fn new(seed: u64) -> Self {
        let clock = VirtualClock::default();
        let ids = [NodeId([1; 16]), NodeId([2; 16])];
        let node = |i: usize, name: &str| SimNode::new(name, ids[i], ids[1 - i], clock.clone(), seed % 4 != 3);
        Self {
            seed,
            rng: ChaCha8Rng::seed_from_u64(seed),
            nodes: [node(0, "edge"), node(1, "hub")],
            clock,
            pipes: Default::default(),
            buffers: Default::default(),
            weather: Weather { delay: Duration::from_millis(300), loss: 0.0 },
            outages: None,
            crashes: None,
            up: false,
            link_changes_at: Duration::ZERO,
            crash_at: Duration::MAX,
            starts_at: [Duration::ZERO; 2],
            capture_every: Duration::from_secs(5),
            captures_left: 0,
            capture_at: Duration::MAX,
        }
    }

    /// Names the edge.
    pub fn edge(mut self, name: &str) -> Self {
        name.clone_into(&mut self.nodes[0].name);
        self
    }

    /// Names the hub.
    pub fn hub(mut self, name: &str) -> Self {
        name.clone_into(&mut self.nodes[1].name);
        self
    }

    /// The part of the packets that is lost.
    pub fn loss(mut self, part: f64) -> Self {
        self.weather.loss = part;
        self
    }

    /// One-way delay.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.weather.delay = delay;
        self
    }

    /// The shapers' rate.
    pub fn rate(mut self, rate: BitsPerSecond) -> Self {
        self.nodes.iter_mut().for_each(|node| node.set_rate(rate));
        self
    }

    /// The link is up and down for such times on average.
    pub fn outages(mut self, up: Duration, down: Duration) -> Self {
        self.outages = Some((up, down));
        self
    }

    /// The power of one of the nodes goes so often on average.
    pub fn crashes(mut self, every: Duration) -> Self {
        self.crashes = Some(every);
        self.crash_at = self.around(every);
        self
    }

    /// Users on both sides make so many changes in all, one after the other at some seconds' distance.
    pub fn capture(&mut self, count: usize) {
        self.captures_left += count;
        self.capture_at = self.clock.elapsed();
    }

    /// Lets time pass.
    pub fn run_for(&mut self, long: Duration) {
        let end = self.clock.elapsed() + long;
        while self.clock.elapsed() < end {
            self.step(end);
        }
    }

    /// The link comes up for good, nothing crashes any more; returns when everything is accounted for and applied.
    ///
    /// # Panics
    /// When that does not happen within a week.
    pub fn heal_and_settle(&mut self) {
        (self.outages, self.crashes, self.weather.loss) = (None, None, 0.0);
        (self.link_changes_at, self.crash_at) = (Duration::ZERO, Duration::MAX);
        let end = self.clock.elapsed() + Duration::from_secs(7 * 86_400);
        while self.captures_left > 0 || !self.nodes.iter().all(SimNode::is_settled) {
            let progress = || self.nodes.each_ref().map(SimNode::progress);
            assert!(self.clock.elapsed() < end, "no rest: {:?}", progress());
            self.step(end);
        }
    }

    /// Crashes so far.
    pub fn crash_count(&self) -> u32 {
        self.nodes.iter().map(|node| node.crashes).sum()
    }

    /// Asserts that all that was committed took effect once, and in order per stream and precedence.
    ///
    /// # Panics
    /// When it did not.
    pub fn assert_all_arrived_once_and_in_order(&self) {
        for i in [0, 1] {
            self.check(&self.nodes[i], &self.nodes[1 - i]);
        }
    }

    fn check(&self, from: &SimNode, to: &SimNode) {
        let rows = from.rows();
        let times = to.applied().iter().fold(BTreeMap::<u64, u32>::new(), |mut times, n| {
            *times.entry(*n).or_default() += 1;
            times
        });
        for row in rows {
            let times = times.get(&row.number).copied().unwrap_or(0);
            let wanted = match (row.is_released(), row.may_expire()) {
                (false, _) => 0..=0,
                (true, true) => 0..=1,
                (true, false) => 1..=1,
            };
            assert!(wanted.contains(&times), "row {} of {} took effect {times} times", row.number, from.name);
            assert!(times == 0 || !row.is_file() || to.files().contains(&row.number), "a file is missing");
        }
        let place: BTreeMap<u64, usize> = to.applied().iter().enumerate().map(|(at, n)| (*n, at)).collect();
        for row in rows {
            for cause in &row.causes {
                if let (Some(before), Some(after)) = (place.get(cause), place.get(&row.number)) {
                    assert!(before < after, "row {} took effect before its cause", row.number);
                }
            }
        }
        // A cause that was pulled ahead for a more urgent entry left its place in the order.
        let pulled = pulled(rows);
        let mut last: BTreeMap<(u8, Precedence), u64> = BTreeMap::new();
        for row in to.applied().iter().map(|n| &rows[*n as usize]).filter(|row| !pulled.contains(&row.number)) {
            let before = last.insert((row.stream, row.class), row.number);
            assert!(before < Some(row.number), "row {} is out of order", row.number);
        }
    }

    /// Does what is due, then moves the clock to what comes next, `end` at the latest.
    fn step(&mut self, end: Duration) {
        let now = self.clock.elapsed();
        if now >= self.capture_at {
            let node = self.rng.random_range(0..2);
            self.nodes[node].commit(&mut self.rng);
            self.captures_left -= 1;
            self.capture_at = if self.captures_left == 0 { Duration::MAX } else { self.around(self.capture_every) };
        }
        for i in [0, 1] {
            if !self.nodes[i].is_running() && now >= self.starts_at[i] {
                let started = self.nodes[i].start();
                self.survives(i, started);
            }
        }
        if now >= self.crash_at {
            let node = self.rng.random_range(0..2);
            self.nodes[node].cut_power_after(self.rng.random_range(0..3_000));
            self.crash_at = self.crashes.map_or(Duration::MAX, |every| self.around(every));
        }
        if now >= self.link_changes_at {
            self.change_link();
        }
        let mut next = [self.capture_at, self.crash_at, self.link_changes_at, end].into_iter().min().unwrap_or(end);
        for i in [0, 1] {
            if !self.nodes[i].is_running() {
                next = next.min(self.starts_at[i]);
                continue;
            }
            let worked = self.work(i);
            match worked {
                Ok(at) => next = next.min(at),
                Err(PowerLost) => {
                    self.survives(i, Err(PowerLost));
                    next = now;
                }
            }
        }
        let arrivals = self.pipes.iter().filter_map(Pipe::next_arrival).min();
        let next = next.min(arrivals.unwrap_or(end));
        self.clock.advance_to(next.max(now + Duration::from_millis(1)).min(end.max(now)));
    }

    /// Everything that a node can do at the moment; returns when it has more to do.
    fn work(&mut self, i: usize) -> Result<Duration, PowerLost> {
        let now = self.clock.elapsed();
        while let Some(bytes) = self.pipes[i].receive(now) {
            self.arrive(i, &bytes)?;
        }
        let node = &mut self.nodes[i];
        node.capture()?;
        node.tick();
        node.perform()?;
        node.apply()?;
        let mut next = Duration::MAX;
        loop {
            // What waits is looked at also while the link is down: skips are decided then.
            let sent = self.nodes[i].send()?;
            self.nodes[i].perform()?;
            match sent {
                Ok(bytes) if self.up => self.pipes[1 - i].send(bytes, now, self.weather, &mut self.rng),
                Ok(_) => {}
                Err(at) => {
                    next = next.min(at.unwrap_or(Duration::MAX));
                    break;
                }
            }
        }
        self.nodes[i].equation();
        Ok(next.min(self.nodes[i].deadline().unwrap_or(Duration::MAX)))
    }

    fn arrive(&mut self, i: usize, bytes: &[u8]) -> Result<(), PowerLost> {
        self.buffers[i].push(bytes);
        while let Some(frame) = self.buffers[i].next_frame().expect("what was sent can be read") {
            self.nodes[i].receive(frame)?;
            self.nodes[i].perform()?;
        }
        Ok(())
    }

    /// A node whose power went stays down for a while, and its connection is gone.
    fn survives(&mut self, i: usize, result: Result<(), PowerLost>) {
        if result.is_err() {
            self.nodes[i].crash(&mut self.rng);
            let down = Duration::from_millis(self.rng.random_range(0..20_000));
            self.starts_at[i] = self.clock.elapsed() + down;
            self.take_link_down();
            self.link_changes_at = self.starts_at[i] + Duration::from_millis(1);
        }
    }

    fn change_link(&mut self) {
        if self.up {
            self.take_link_down();
        } else if self.nodes.iter().all(SimNode::is_running) {
            self.up = true;
            self.nodes.iter_mut().for_each(SimNode::connected);
        }
        let mean = match (self.outages, self.up) {
            (Some((up, _)), true) => up,
            (Some((_, down)), false) => down,
            (None, true) => {
                self.link_changes_at = Duration::MAX;
                return;
            }
            (None, false) => Duration::from_secs(1),
        };
        self.link_changes_at = self.around(mean);
    }

    fn take_link_down(&mut self) {
        if !std::mem::take(&mut self.up) {
            return;
        }
        for i in [0, 1] {
            // The last bytes arrive or not, cut anywhere.
            let bytes = self.pipes[i].cut(&mut self.rng);
            if self.nodes[i].is_running() && self.arrive(i, &bytes).is_err() {
                self.survives(i, Err(PowerLost));
            }
            self.buffers[i] = FrameBuffer::default();
            self.nodes[i].disconnected();
        }
    }

    /// A moment after now, `mean` away on average.
    fn around(&mut self, mean: Duration) -> Duration {
        self.clock.elapsed() + mean.mul_f64(self.rng.random_range(0.0..2.0))
    }
}

impl Drop for World {
    #[allow(clippy::print_stderr, reason = "whoever reads a failed test needs the seed")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with SEED={}", self.seed);
        }
    }
}

/// Rows that entries of another class need, directly or through others.
fn pulled(rows: &[Row]) -> BTreeSet<u64> {
    let mut pulled = BTreeSet::new();
    for row in rows {
        let mut todo = row.causes.clone();
        while let Some(number) = todo.pop() {
            let cause = &rows[number as usize];
            if cause.class == row.class || pulled.insert(number) {
                todo.extend(cause.causes.iter().copied());
            }
        }
    }
    pulled
}
