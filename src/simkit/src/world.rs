//! Edges and a hub, bad links between them, and bad luck.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::{BitsPerSecond, NodeId, Precedence};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use wire::frame::Frame;

use crate::VirtualClock;
use crate::clock::WallClock;
use crate::network::{Direction, Loss, Weather};
use crate::node::{PowerLost, Row, SimNode, Snapshot};

/// The seeds to try: the one in `SEED`, or so many from 0 on.
pub fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => vec![seed],
        None => (0..count).collect(),
    }
}

/// Something that happens again and again, at random moments.
#[derive(Clone, Copy, Debug)]
struct Trouble {
    every: Option<Duration>,
    at: Duration,
}

impl Trouble {
    const NEVER: Self = Self { every: None, at: Duration::MAX };
}

/// A link between an edge and the hub.
struct Link {
    /// Nodes at its ends.
    ends: [usize; 2],
    /// To the second end, and to the first.
    directions: [Direction; 2],
    up: bool,
    changes_at: Duration,
}

/// What a world went through, for the reader of a test and for its conclusions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Power cuts.
    pub crashes: u32,
    /// Restored snapshots.
    pub restores: u32,
    /// Appends that a full disk did not take.
    pub stalls: u32,
    /// Times that a wall clock was set.
    pub clock_steps: u32,
    /// Changes that users made.
    pub changes: u64,
}

impl std::ops::Add for History {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            crashes: self.crashes + other.crashes,
            restores: self.restores + other.restores,
            stalls: self.stalls + other.stalls,
            clock_steps: self.clock_steps + other.clock_steps,
            changes: self.changes + other.changes,
        }
    }
}

/// A world that is the same every time for the same seed and the same calls.
pub struct World {
    seed: u64,
    rng: ChaCha8Rng,
    clock: VirtualClock,
    /// The hub is the last.
    nodes: Vec<SimNode>,
    links: Vec<Link>,
    /// Mean time that a link is up and down; `None`: always up.
    outages: Option<(Duration, Duration)>,
    crash: Trouble,
    clock_step: Trouble,
    full_disk: Trouble,
    restore: Trouble,
    /// Of one node, to be restored later.
    snapshot: Option<(usize, Snapshot)>,
    /// A node whose disk is full until then.
    full_until: Option<(usize, Duration)>,
    starts_at: Vec<Duration>,
    capture_every: Duration,
    captures_left: usize,
    capture_at: Duration,
    clock_steps: u32,
}

impl World {
    /// An edge, a hub and a good link of 64 kbit/s.
    pub fn new(seed: u64) -> Self {
        Self::with_edges(seed, 1)
    }

    /// So many edges, a hub, and a good link of 64 kbit/s to each.
    pub fn with_edges(seed: u64, edges: usize) -> Self {
        let clock = VirtualClock::default();
        let id = |i: usize| NodeId([i as u8 + 1; 16]);
        let node = |i: usize| {
            let peers = if i == edges { (0..edges).map(id).collect() } else { vec![id(edges)] };
            let name = if i == edges { "hub".to_owned() } else { format!("edge{i}") };
            SimNode::new(&name, id(i), peers, WallClock::of(clock.clone()), seed % 4 != 3)
        };
        let fair = || Direction::new(Weather::fair(BitsPerSecond(64_000)));
        let link = |i| Link { ends: [i, edges], directions: [fair(), fair()], up: false, changes_at: Duration::ZERO };
        Self {
            seed,
            rng: ChaCha8Rng::seed_from_u64(seed),
            nodes: (0..=edges).map(node).collect(),
            links: (0..edges).map(link).collect(),
            starts_at: vec![Duration::ZERO; edges + 1],
            clock,
            outages: None,
            crash: Trouble::NEVER,
            clock_step: Trouble::NEVER,
            full_disk: Trouble::NEVER,
            restore: Trouble::NEVER,
            snapshot: None,
            full_until: None,
            capture_every: Duration::from_secs(5),
            captures_left: 0,
            capture_at: Duration::MAX,
            clock_steps: 0,
        }
    }

    /// The weather towards the hub, and towards the edges. The shapers keep to these rates.
    pub fn weather(mut self, up: Weather, down: Weather) -> Self {
        let hub = self.nodes.len() - 1;
        for (i, node) in self.nodes.iter_mut().enumerate() {
            node.set_rate(if i == hub { down.rate } else { up.rate });
        }
        for link in &mut self.links {
            link.directions = [Direction::new(up), Direction::new(down)];
        }
        self
    }

    /// The same weather in both directions.
    pub fn weather_both(self, weather: Weather) -> Self {
        self.weather(weather, weather)
    }

    /// A shaper that believes in another rate than the link's.
    pub fn configured_rate(mut self, rate: BitsPerSecond) -> Self {
        self.nodes.iter_mut().for_each(|node| node.set_rate(rate));
        self
    }

    /// Links are up and down for such times on average.
    pub fn outages(mut self, up: Duration, down: Duration) -> Self {
        self.outages = Some((up, down));
        self
    }

    /// The power of one of the nodes goes so often on average.
    pub fn crashes(mut self, every: Duration) -> Self {
        self.crash = self.trouble(every);
        self
    }

    /// Somebody sets the wall clock of one of the nodes so often on average, by up to a year.
    pub fn clock_steps(mut self, every: Duration) -> Self {
        self.clock_step = self.trouble(every);
        self
    }

    /// The disk of one of the nodes is full for some minutes so often on average.
    pub fn full_disks(mut self, every: Duration) -> Self {
        self.full_disk = self.trouble(every);
        self
    }

    /// One of the nodes is copied, and some time later put back to that copy, so often on average.
    pub fn restores(mut self, every: Duration) -> Self {
        self.restore = self.trouble(every);
        self
    }

    fn trouble(&mut self, every: Duration) -> Trouble {
        Trouble { every: Some(every), at: self.around(every) }
    }

    /// Users make so many changes in all, anywhere, one after the other at some seconds' distance.
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

    /// Since the world began.
    pub fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }

    /// The links come up for good, nothing goes wrong any more; returns when everything is accounted for and applied.
    ///
    /// # Panics
    /// When that does not happen within a week.
    pub fn heal_and_settle(&mut self) {
        for trouble in [&mut self.crash, &mut self.clock_step, &mut self.full_disk, &mut self.restore] {
            *trouble = Trouble::NEVER;
        }
        (self.outages, self.snapshot, self.full_until) = (None, None, None);
        self.nodes.iter().for_each(|node| node.set_room(None));
        for link in &mut self.links {
            link.changes_at = Duration::ZERO;
            link.directions.iter_mut().for_each(|direction| direction.weather.loss = Loss::Random(0.0));
        }
        let end = self.clock.elapsed() + Duration::from_secs(7 * 86_400);
        while self.captures_left > 0 || !self.nodes.iter().all(SimNode::is_settled) {
            let progress = || self.nodes.iter().map(SimNode::progress).collect::<Vec<_>>();
            assert!(self.clock.elapsed() < end, "no rest: {:?}", progress());
            self.step(end);
        }
    }

    /// What happened so far.
    pub fn history(&self) -> History {
        let sum = |of: fn(&SimNode) -> u32| self.nodes.iter().map(of).sum();
        History {
            crashes: sum(|node| node.crashes),
            restores: sum(|node| node.restores),
            stalls: sum(|node| node.stalls),
            clock_steps: self.clock_steps,
            changes: self.nodes.iter().map(|node| node.rows().len() as u64).sum(),
        }
    }

    /// Asserts that nothing took effect twice or out of order so far, and nothing that was not for the peer.
    ///
    /// # Panics
    /// When it did.
    pub fn assert_safe(&self) {
        self.check_links(false);
    }

    /// Asserts that all that was committed took effect once, and in order per stream and precedence.
    ///
    /// # Panics
    /// When it did not.
    pub fn assert_all_arrived_once_and_in_order(&self) {
        self.check_links(true);
    }

    fn check_links(&self, settled: bool) {
        for link in &self.links {
            let [a, b] = link.ends;
            check(&self.nodes[a], &self.nodes[b], settled);
            check(&self.nodes[b], &self.nodes[a], settled);
        }
    }

    /// Does what is due, then moves the clock to what comes next, `end` at the latest.
    fn step(&mut self, end: Duration) {
        let now = self.clock.elapsed();
        if now >= self.capture_at {
            let node = self.rng.random_range(0..self.nodes.len());
            self.nodes[node].commit(&mut self.rng);
            self.captures_left -= 1;
            self.capture_at = if self.captures_left == 0 { Duration::MAX } else { self.around(self.capture_every) };
        }
        for i in 0..self.nodes.len() {
            if !self.nodes[i].is_running() && now >= self.starts_at[i] {
                let started = self.nodes[i].start();
                self.survives(i, started);
            }
        }
        self.make_trouble(now);
        for l in 0..self.links.len() {
            if now >= self.links[l].changes_at {
                self.change_link(l);
            }
        }
        let mut next = [self.capture_at, self.crash.at, self.clock_step.at, self.full_disk.at, self.restore.at, end]
            .into_iter()
            .chain(self.full_until.map(|(_, until)| until))
            .chain(self.links.iter().map(|link| link.changes_at))
            .min()
            .unwrap_or(end);
        for i in 0..self.nodes.len() {
            if !self.nodes[i].is_running() {
                next = next.min(self.starts_at[i]);
                continue;
            }
            match self.work(i) {
                Ok(at) => next = next.min(at),
                Err(PowerLost) => {
                    self.survives(i, Err(PowerLost));
                    next = now;
                }
            }
        }
        let arrivals = self.links.iter().flat_map(|link| &link.directions).filter_map(Direction::next_arrival).min();
        let next = next.min(arrivals.unwrap_or(end));
        self.clock.advance_to(next.max(now + Duration::from_millis(1)).min(end.max(now)));
    }

    fn make_trouble(&mut self, now: Duration) {
        let node = self.rng.random_range(0..self.nodes.len());
        if self.is_due(now, |world| &mut world.crash) {
            self.nodes[node].cut_power_after(self.rng.random_range(0..3_000));
        }
        if self.is_due(now, |world| &mut world.clock_step) {
            const YEAR_MILLIS: i64 = 365 * 86_400_000;
            let reach = [1_000, 3_600_000, YEAR_MILLIS][self.rng.random_range(0..3)];
            self.nodes[node].wall.set_ahead(self.rng.random_range(-reach..=reach));
            self.clock_steps += 1;
        }
        if let Some((full, _)) = self.full_until.filter(|(_, until)| now >= *until) {
            self.nodes[full].set_room(None);
            self.full_until = None;
        }
        if self.is_due(now, |world| &mut world.full_disk) && self.full_until.is_none() {
            self.nodes[node].set_room(Some(self.rng.random_range(0..20_000)));
            self.full_until = Some((node, self.around(Duration::from_secs(120))));
        }
        if self.is_due(now, |world| &mut world.restore) {
            match self.snapshot.take() {
                None => self.snapshot = Some((node, self.nodes[node].snapshot())),
                Some((node, snapshot)) => {
                    self.nodes[node].restore(&snapshot);
                    self.full_until = self.full_until.filter(|(full, _)| *full != node);
                    self.nodes[node].set_room(None);
                    self.goes_down(node);
                }
            }
        }
    }

    fn is_due(&mut self, now: Duration, trouble: impl Fn(&mut Self) -> &mut Trouble) -> bool {
        let due = now >= trouble(self).at;
        if due {
            let next = trouble(self).every.map_or(Duration::MAX, |every| self.around(every));
            trouble(self).at = next;
        }
        due
    }

    /// Everything that a node can do at the moment; returns when it has more to do.
    fn work(&mut self, i: usize) -> Result<Duration, PowerLost> {
        let now = self.clock.elapsed();
        for l in 0..self.links.len() {
            self.arrive(l, i, now)?;
        }
        let node = &mut self.nodes[i];
        node.capture()?;
        node.tick();
        node.perform()?;
        node.apply()?;
        let mut next = Duration::MAX;
        for l in 0..self.links.len() {
            let Some((to, peer)) = self.towards(l, i) else { continue };
            loop {
                let direction = &self.links[l].directions[to];
                let room = direction.has_room(now);
                if !room {
                    next = next.min(direction.room_at());
                }
                // What waits is looked at also while the link is down: skips are decided then.
                let sent = self.nodes[i].send(peer, room)?;
                self.nodes[i].perform()?;
                match sent {
                    Ok(frame) if self.links[l].up => {
                        self.links[l].directions[to].send(frame, now, &mut self.rng);
                    }
                    Ok(_) => {}
                    Err(at) => {
                        next = next.min(at.unwrap_or(Duration::MAX));
                        break;
                    }
                }
            }
            self.nodes[i].equation(peer);
        }
        Ok(next.min(self.nodes[i].deadline().unwrap_or(Duration::MAX)))
    }

    /// Which direction of a link a node sends into, and who is at the other end.
    fn towards(&self, l: usize, i: usize) -> Option<(usize, NodeId)> {
        let [a, b] = self.links[l].ends;
        match i {
            i if i == a => Some((0, self.nodes[b].me)),
            i if i == b => Some((1, self.nodes[a].me)),
            _ => None,
        }
    }

    /// What has come over a link for a node by now.
    fn arrive(&mut self, l: usize, i: usize, now: Duration) -> Result<(), PowerLost> {
        let Some((to, peer)) = self.towards(l, i) else { return Ok(()) };
        let is_greeting = |bytes: &[u8]| matches!(Frame::decode(bytes), Ok(Frame::Greet(_)));
        for bytes in self.links[l].directions[1 - to].receive(now, is_greeting) {
            let frame = Frame::decode(&bytes).expect("what was sent can be read");
            self.nodes[i].receive(peer, frame)?;
            self.nodes[i].perform()?;
        }
        Ok(())
    }

    /// A node whose power went stays down for a while, and its connections are gone.
    fn survives(&mut self, i: usize, result: Result<(), PowerLost>) {
        if result.is_err() {
            self.nodes[i].crash(&mut self.rng);
            self.goes_down(i);
        }
    }

    fn goes_down(&mut self, i: usize) {
        let down = Duration::from_millis(self.rng.random_range(0..20_000));
        self.starts_at[i] = self.clock.elapsed() + down;
        for l in 0..self.links.len() {
            if self.links[l].ends.contains(&i) {
                self.take_link_down(l);
                self.links[l].changes_at = self.starts_at[i] + Duration::from_millis(1);
            }
        }
    }

    fn change_link(&mut self, l: usize) {
        let ends = self.links[l].ends;
        if self.links[l].up {
            self.take_link_down(l);
        } else if ends.iter().all(|i| self.nodes[*i].is_running()) {
            self.links[l].up = true;
            let ids = ends.map(|i| self.nodes[i].me);
            self.nodes[ends[0]].connected(ids[1]);
            self.nodes[ends[1]].connected(ids[0]);
        }
        let mean = match (self.outages, self.links[l].up) {
            (Some((up, _)), true) => up,
            (Some((_, down)), false) => down,
            (None, true) => {
                self.links[l].changes_at = Duration::MAX;
                return;
            }
            (None, false) => Duration::from_secs(1),
        };
        self.links[l].changes_at = self.around(mean);
    }

    fn take_link_down(&mut self, l: usize) {
        if !std::mem::take(&mut self.links[l].up) {
            return;
        }
        let (now, ends) = (self.clock.elapsed(), self.links[l].ends);
        self.links[l].directions.iter_mut().for_each(|direction| direction.cut(&mut self.rng));
        let mut lost_power = Vec::new();
        for (i, other) in [(ends[0], ends[1]), (ends[1], ends[0])] {
            // The last frames arrive or not.
            if self.nodes[i].is_running() && self.arrive(l, i, now).is_err() {
                lost_power.push(i);
            }
            let peer = self.nodes[other].me;
            self.nodes[i].disconnected(peer);
        }
        self.links[l].directions.iter_mut().for_each(Direction::clear);
        lost_power.into_iter().for_each(|i| self.survives(i, Err(PowerLost)));
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

/// Holds what took effect at `to` against what was committed at `from`.
fn check(from: &SimNode, to: &SimNode, settled: bool) {
    let rows = from.rows();
    let restored = from.restores + to.restores > 0;
    let mut times = BTreeMap::<u64, u32>::new();
    let applied: Vec<u64> = to.applied_of(from.me).collect();
    applied.iter().for_each(|n| *times.entry(*n).or_default() += 1);
    for row in rows {
        let times = times.get(&row.number).copied().unwrap_or(0);
        // What a restored machine forgot may be at the other side, and what it had may have been given up there.
        let may_miss = !settled || row.may_expire() || from.has_lost(row.number) || to.has_undone(from.me, row.number);
        let wanted = match (row.is_released(), may_miss) {
            (false, _) => 0..=0,
            (true, true) => 0..=1,
            (true, false) => 1..=1,
        };
        let (number, from_name, to_name) = (row.number, &from.name, &to.name);
        assert!(wanted.contains(&times), "row {number} of {from_name} took effect {times} times at {to_name}");
        let whole = !settled || times == 0 || !row.is_file() || to.has_file(from.me, number) || restored;
        assert!(whole, "file {number} of {from_name} is missing at {to_name}");
    }
    let place: BTreeMap<u64, usize> = applied.iter().enumerate().map(|(at, n)| (*n, at)).collect();
    for row in rows {
        for cause in &row.causes {
            if let (Some(before), Some(after)) = (place.get(cause), place.get(&row.number)) {
                assert!(before < after, "row {} took effect before its cause", row.number);
            }
        }
    }
    // Entries whose numbers a restored node gave to others are numbered anew, behind what came meanwhile.
    if restored {
        return;
    }
    // A cause that was pulled ahead for a more urgent entry left its place in the order; files have none.
    let pulled = pulled(rows);
    let mut last: BTreeMap<(u8, Precedence), u64> = BTreeMap::new();
    for row in applied.iter().map(|n| &rows[*n as usize]).filter(|row| !row.is_file() && !pulled.contains(&row.number))
    {
        let before = last.insert((row.stream, row.class), row.number);
        assert!(before < Some(row.number), "row {} came after row {before:?} of {}", row.number, from.name);
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
