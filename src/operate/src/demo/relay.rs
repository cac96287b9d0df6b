//! A user-space link: UDP datagrams cross it at a chosen rate, delay and loss, and not at all while it is cut.
//!
//! ```text
//!  edge --> front socket --> Lane up   --> back socket --> hub
//!  edge <-- front socket <-- Lane down <-- back socket <-- hub
//! ```
//!
//! Invariants
//! - A datagram is serialised at the rate first and delayed after that, so a full queue shows as rising delay.
//! - The queue is bounded in bytes and drops its tail; without that the link would look better than any radio.
//! - A cut link carries nothing: what was queued or in flight is gone, as behind a hill.
//! - Within one lane, datagrams keep their order.
//!
//! [`Lane`] is the rules, without sockets and with time as an argument. [`Relay`] is the shell around two of them.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use model::BitsPerSecond;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// IPv4 header (20 B) and UDP header (8 B): they take air time like the payload does.
pub(super) const UDP_IP_HEADER_BYTES: u64 = 28;

/// What a modem would buffer per direction: two seconds at 256 kbit/s, as in the measurements that the link's
/// pacing was chosen by.
pub(super) const QUEUE_BYTES_MAX: u64 = 64_000;

/// The largest UDP payload there is; the receive buffers have this size.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// What can be turned while the link runs. Both directions share it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Controls {
    /// Does the link carry anything?
    pub(super) up: bool,
    /// Serialisation rate of each direction.
    pub(super) rate: BitsPerSecond,
    /// Propagation delay, one way.
    pub(super) delay: Duration,
    /// Share of datagrams lost at random, 0 to 1.
    pub(super) loss: f64,
}

/// What one direction of the link did with the datagrams it was given. Bytes include UDP and IP headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(super) struct Counters {
    /// Datagrams put on the wire, arrived or lost there.
    pub(super) wire_datagrams: u64,
    /// Bytes put on the wire, arrived or lost there.
    pub(super) wire_bytes: u64,
    /// Datagrams that arrived.
    pub(super) delivered_datagrams: u64,
    /// Bytes that arrived.
    pub(super) delivered_bytes: u64,
    /// Datagrams lost at random on the wire.
    pub(super) lost_datagrams: u64,
    /// Datagrams refused because the queue was full.
    pub(super) overflowed_datagrams: u64,
    /// Datagrams offered to, or caught inside, a cut link.
    pub(super) cut_datagrams: u64,
}

/// One direction of the link, with virtual time.
///
/// `push` what a sender emits, ask `poll_timeout` when to look again, and `pop` what has arrived by then.
#[derive(Debug)]
pub(super) struct Lane {
    controls: Controls,
    rng: ChaCha8Rng,
    /// Waiting for the transmitter, head first. The head may be on the transmitter: see `head_done`.
    queue: VecDeque<Bytes>,
    queue_bytes: u64,
    /// When the transmitter finishes the head of the queue; `None` while the queue is empty.
    head_done: Option<Duration>,
    /// Sent and not arrived, with the arrival time, ascending.
    flying: VecDeque<(Duration, Bytes)>,
    counters: Counters,
}

impl Lane {
    /// An idle lane. Equal seeds lose the same datagrams.
    pub(super) fn new(controls: Controls, seed: u64) -> Self {
        Self {
            controls,
            rng: ChaCha8Rng::seed_from_u64(seed),
            queue: VecDeque::new(),
            queue_bytes: 0,
            head_done: None,
            flying: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// Changes rate, delay, loss or the switch. The datagram on the transmitter finishes at the old rate.
    pub(super) fn set(&mut self, now: Duration, controls: Controls) {
        self.advance(now);
        self.controls = controls;
        if !controls.up {
            self.counters.cut_datagrams += (self.queue.len() + self.flying.len()) as u64;
            self.queue.clear();
            self.flying.clear();
            self.queue_bytes = 0;
            self.head_done = None;
        }
    }

    /// Offers a datagram to the transmitter.
    pub(super) fn push(&mut self, now: Duration, datagram: Bytes) {
        self.advance(now);
        if !self.controls.up {
            self.counters.cut_datagrams += 1;
            return;
        }
        let size = on_wire(&datagram);
        if self.queue_bytes + size > QUEUE_BYTES_MAX {
            self.counters.overflowed_datagrams += 1;
            return;
        }
        self.queue_bytes += size;
        self.queue.push_back(datagram);
        if self.head_done.is_none() {
            self.head_done = Some(now + self.air_time(size));
        }
    }

    /// The next datagram that has arrived by `now`.
    pub(super) fn pop(&mut self, now: Duration) -> Option<Bytes> {
        self.advance(now);
        let (arrives, _) = self.flying.front()?;
        if *arrives > now {
            return None;
        }
        let (_, datagram) = self.flying.pop_front()?;
        self.counters.delivered_datagrams += 1;
        self.counters.delivered_bytes += on_wire(&datagram);
        Some(datagram)
    }

    /// When `pop` is worth calling, or the transmitter has work to finish.
    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        let arrival = self.flying.front().map(|(at, _)| *at);
        match (arrival, self.head_done) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// What the lane did so far.
    pub(super) fn counters(&self) -> Counters {
        self.counters
    }

    /// Lets the transmitter finish what it could finish by `now`.
    fn advance(&mut self, now: Duration) {
        while let Some(done) = self.head_done.filter(|done| *done <= now) {
            let datagram = self.queue.pop_front().expect("head_done is set only while the queue has a head");
            let size = on_wire(&datagram);
            self.queue_bytes -= size;
            self.counters.wire_datagrams += 1;
            self.counters.wire_bytes += size;
            if self.loses() {
                self.counters.lost_datagrams += 1;
            } else {
                // A shortened delay must not let a datagram overtake the one before it.
                let earliest = self.flying.back().map_or(Duration::ZERO, |(at, _)| *at);
                self.flying.push_back(((done + self.controls.delay).max(earliest), datagram));
            }
            self.head_done = self.queue.front().map(|next| done + self.air_time(on_wire(next)));
        }
    }

    fn air_time(&self, size: u64) -> Duration {
        Duration::from_nanos(
            (u128::from(size) * 8 * 1_000_000_000 / u128::from(self.controls.rate.0)).try_into().unwrap_or(u64::MAX),
        )
    }

    fn loses(&mut self) -> bool {
        f64::from(self.rng.next_u32()) < self.controls.loss * (f64::from(u32::MAX) + 1.0)
    }
}

fn on_wire(datagram: &Bytes) -> u64 {
    datagram.len() as u64 + UDP_IP_HEADER_BYTES
}

/// Which way a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// Edge to hub.
    Up,
    /// Hub to edge.
    Down,
}

/// The running link between two UDP sockets. Cloning gives another handle to the same link.
#[derive(Clone)]
pub(super) struct Relay {
    /// Where the edge dials.
    pub(super) front: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    lanes: Mutex<Lanes>,
    changed: Notify,
    started: tokio::time::Instant,
}

struct Lanes {
    controls: Controls,
    up: Lane,
    down: Lane,
}

impl Relay {
    /// Opens the link towards `back` (the hub's UDP address) and starts its task in `tasks`; it ends with `stop`.
    ///
    /// # Errors
    /// When no socket on the loopback can be had.
    pub(super) async fn start(
        back: SocketAddr,
        controls: Controls,
        seed: u64,
        tasks: &mut JoinSet<()>,
        stop: CancellationToken,
    ) -> io::Result<Self> {
        let front_socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let back_socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        back_socket.connect(back).await?;
        let relay = Self {
            front: front_socket.local_addr()?,
            shared: Arc::new(Shared {
                lanes: Mutex::new(Lanes {
                    controls,
                    up: Lane::new(controls, seed),
                    down: Lane::new(controls, seed.wrapping_add(1)),
                }),
                changed: Notify::new(),
                started: tokio::time::Instant::now(),
            }),
        };
        let shell = relay.clone();
        tasks.spawn(async move { shell.run(&front_socket, &back_socket, stop).await });
        Ok(relay)
    }

    /// The present settings.
    pub(super) fn controls(&self) -> Controls {
        self.shared.lock().controls
    }

    /// Changes settings at once, in both directions.
    pub(super) fn set(&self, controls: Controls) {
        let now = self.shared.now();
        let mut lanes = self.shared.lock();
        lanes.controls = controls;
        lanes.up.set(now, controls);
        lanes.down.set(now, controls);
        drop(lanes);
        self.shared.changed.notify_one();
    }

    /// Cuts or restores the link.
    pub(super) fn switch(&self, up: bool) {
        self.set(Controls { up, ..self.controls() });
    }

    /// What one direction did so far.
    pub(super) fn counters(&self, direction: Direction) -> Counters {
        let lanes = self.shared.lock();
        match direction {
            Direction::Up => lanes.up.counters(),
            Direction::Down => lanes.down.counters(),
        }
    }

    /// Moves datagrams until `stop`. Socket errors lose the datagram, as a radio would.
    async fn run(self, front: &UdpSocket, back: &UdpSocket, stop: CancellationToken) {
        // The edge may come back from another port after a restart: answers go where it was heard last.
        let mut edge: Option<SocketAddr> = None;
        let mut from_edge = vec![0u8; DATAGRAM_BYTES_MAX];
        let mut from_hub = vec![0u8; DATAGRAM_BYTES_MAX];
        loop {
            while let Some((direction, datagram)) = self.shared.arrived() {
                let sent = match (direction, edge) {
                    (Direction::Up, _) => back.send(&datagram).await,
                    (Direction::Down, Some(edge)) => front.send_to(&datagram, edge).await,
                    (Direction::Down, None) => Ok(0),
                };
                if let Err(error) = sent {
                    tracing::debug!(%error, "the demo link lost a datagram at its socket");
                }
            }
            let wake = self.shared.poll_timeout();
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.shared.changed.notified() => {}
                () = sleep_until(wake) => {}
                received = front.recv_from(&mut from_edge) => if let Ok((len, from)) = received {
                    edge = Some(from);
                    self.shared.push(Direction::Up, &from_edge[..len]);
                },
                received = back.recv(&mut from_hub) => if let Ok(len) = received {
                    self.shared.push(Direction::Down, &from_hub[..len]);
                },
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn push(&self, direction: Direction, datagram: &[u8]) {
        let now = self.now();
        let mut lanes = self.lock();
        let lane = match direction {
            Direction::Up => &mut lanes.up,
            Direction::Down => &mut lanes.down,
        };
        lane.push(now, Bytes::copy_from_slice(datagram));
    }

    fn arrived(&self) -> Option<(Direction, Bytes)> {
        let now = self.now();
        let mut lanes = self.lock();
        let up = lanes.up.pop(now).map(|datagram| (Direction::Up, datagram));
        up.or_else(|| lanes.down.pop(now).map(|datagram| (Direction::Down, datagram)))
    }

    fn poll_timeout(&self) -> Option<tokio::time::Instant> {
        let lanes = self.lock();
        let due = [lanes.up.poll_timeout(), lanes.down.poll_timeout()].into_iter().flatten().min();
        due.map(|due| self.started + due)
    }
}

/// Cancel-safe: it only sleeps. Without a deadline it sleeps for ever.
async fn sleep_until(wake: Option<tokio::time::Instant>) {
    match wake {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KBIT_256: BitsPerSecond = BitsPerSecond(256_000);

    fn controls(rate: BitsPerSecond, delay_ms: u64, loss: f64) -> Controls {
        Controls { up: true, rate, delay: Duration::from_millis(delay_ms), loss }
    }

    fn datagram(number: u32, payload_bytes: usize) -> Bytes {
        let mut bytes = vec![0u8; payload_bytes];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        Bytes::from(bytes)
    }

    /// Runs the lane to its end, taking everything at the moment it asks to be looked at.
    fn drain(lane: &mut Lane) -> Vec<(Duration, Bytes)> {
        let mut arrived = Vec::new();
        while let Some(at) = lane.poll_timeout() {
            while let Some(datagram) = lane.pop(at) {
                arrived.push((at, datagram));
            }
        }
        arrived
    }

    #[test]
    fn a_saturated_lane_delivers_at_its_rate() {
        let mut lane = Lane::new(controls(KBIT_256, 300, 0.0), 1);
        let mut now = Duration::ZERO;
        let mut first = None;
        let mut last = Duration::ZERO;
        for n in 0..2_000 {
            lane.push(now, datagram(n, 1_172)); // 1200 B on the wire take 37.5 ms
            now += Duration::from_millis(37);
            while lane.pop(now).is_some() {
                first.get_or_insert(now);
                last = now;
            }
        }
        let seconds = (last - first.expect("datagrams arrive")).as_secs_f64();
        let rate = (lane.counters().delivered_bytes - 1_200) as f64 * 8.0 / seconds;
        assert!((rate / 256_000.0 - 1.0).abs() < 0.03, "{rate} bit/s");
    }

    #[test]
    fn a_lone_datagram_takes_its_air_time_and_the_delay() {
        let mut lane = Lane::new(controls(KBIT_256, 300, 0.0), 1);
        lane.push(Duration::ZERO, datagram(0, 1_172));
        let arrived = drain(&mut lane);
        assert_eq!(arrived.len(), 1);
        assert_eq!(arrived[0].0, Duration::from_micros(337_500));
    }

    #[test]
    fn loss_is_within_three_percent_of_what_was_asked() {
        for (loss, seed) in [(0.05, 1), (0.2, 2), (0.5, 3)] {
            let mut lane = Lane::new(controls(BitsPerSecond(1_000_000_000), 0, loss), seed);
            let mut now = Duration::ZERO;
            for n in 0..100_000 {
                lane.push(now, datagram(n, 100));
                now += Duration::from_millis(1);
                while lane.pop(now).is_some() {}
            }
            let counters = lane.counters();
            let share = counters.lost_datagrams as f64 / counters.wire_datagrams as f64;
            assert!((share / loss - 1.0).abs() < 0.03, "{share} of {loss}");
        }
    }

    #[test]
    fn the_same_seed_loses_the_same_datagrams() {
        let run = |seed| {
            let mut lane = Lane::new(controls(KBIT_256, 10, 0.3), seed);
            (0..200).for_each(|n| lane.push(Duration::from_millis(u64::from(n) * 40), datagram(n, 200)));
            drain(&mut lane).into_iter().map(|(_, d)| d).collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }

    #[test]
    fn a_cut_link_loses_what_is_queued_and_in_flight_and_works_again_when_restored() {
        let up = controls(KBIT_256, 300, 0.0);
        let mut lane = Lane::new(up, 1);
        (0..10).for_each(|n| lane.push(Duration::ZERO, datagram(n, 1_172)));
        lane.set(Duration::from_millis(100), Controls { up: false, ..up });
        lane.push(Duration::from_millis(110), datagram(10, 100));
        assert_eq!(lane.poll_timeout(), None);
        assert_eq!(lane.counters().cut_datagrams, 11);
        assert_eq!(lane.counters().wire_datagrams, 2, "two had left the transmitter");

        lane.set(Duration::from_secs(60), up);
        lane.push(Duration::from_secs(60), datagram(11, 100));
        assert_eq!(drain(&mut lane).len(), 1);
    }

    #[test]
    fn a_new_rate_holds_from_the_next_datagram_on() {
        let slow = controls(BitsPerSecond(9_600), 0, 0.0);
        let mut lane = Lane::new(slow, 1);
        lane.push(Duration::ZERO, datagram(0, 1_172)); // one second on air
        lane.push(Duration::ZERO, datagram(1, 1_172));
        lane.set(Duration::from_millis(500), Controls { rate: BitsPerSecond(96_000), ..slow });
        let times: Vec<_> = drain(&mut lane).into_iter().map(|(at, _)| at).collect();
        assert_eq!(times, [Duration::from_millis(1_000), Duration::from_millis(1_100)]);
    }

    proptest! {
        #[test]
        fn every_datagram_is_accounted_for_and_order_is_kept(
            sizes in prop::collection::vec((4usize..1_400, 0u64..80), 1..200),
            delay_ms in 0u64..500,
            loss in 0.0f64..0.9,
            seed in any::<u64>(),
        ) {
            let mut lane = Lane::new(controls(KBIT_256, delay_ms, loss), seed);
            let mut now = Duration::ZERO;
            let mut arrived = Vec::new();
            for (n, (size, pause_ms)) in (0u32..).zip(&sizes) {
                now += Duration::from_millis(*pause_ms);
                lane.push(now, datagram(n, *size));
                prop_assert!(lane.queue_bytes <= QUEUE_BYTES_MAX);
                if n == 100 {
                    lane.set(now, controls(BitsPerSecond(512_000), delay_ms / 2, loss));
                }
                while let Some(d) = lane.pop(now) {
                    arrived.push(d);
                }
            }
            arrived.extend(drain(&mut lane).into_iter().map(|(_, d)| d));
            let numbers: Vec<u32> = arrived.iter().map(|d| u32::from_be_bytes([d[0], d[1], d[2], d[3]])).collect();
            prop_assert!(numbers.is_sorted_by(|a, b| a < b));
            let c = lane.counters();
            prop_assert_eq!(c.delivered_datagrams, arrived.len() as u64);
            prop_assert_eq!(c.wire_datagrams, c.delivered_datagrams + c.lost_datagrams);
            prop_assert_eq!(sizes.len() as u64, c.wire_datagrams + c.overflowed_datagrams + c.cut_datagrams);
        }
    }

    #[tokio::test]
    async fn the_relay_carries_both_ways_and_nothing_while_cut() {
        let hub = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let edge = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut tasks = JoinSet::new();
        let stop = CancellationToken::new();
        let fast = controls(BitsPerSecond(10_000_000), 1, 0.0);
        let relay = Relay::start(hub.local_addr().unwrap(), fast, 1, &mut tasks, stop.clone()).await.unwrap();
        let mut buffer = [0u8; 64];

        edge.send_to(b"ping", relay.front).await.unwrap();
        let (len, from) = hub.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..len], b"ping");
        hub.send_to(b"pong", from).await.unwrap();
        let (len, _) = edge.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..len], b"pong");

        relay.switch(false);
        edge.send_to(b"lost", relay.front).await.unwrap();
        while relay.counters(Direction::Up).cut_datagrams == 0 {
            tokio::task::yield_now().await;
        }
        relay.switch(true);
        edge.send_to(b"back", relay.front).await.unwrap();
        let (len, _) = hub.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..len], b"back");
        assert_eq!(relay.counters(Direction::Up).wire_bytes, 2 * (4 + UDP_IP_HEADER_BYTES));
        assert_eq!(relay.counters(Direction::Down).wire_bytes, 4 + UDP_IP_HEADER_BYTES);

        stop.cancel();
        while tasks.join_next().await.is_some() {}
    }
}
