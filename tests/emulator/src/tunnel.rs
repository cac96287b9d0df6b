//! An emulated link between two network namespaces: a TUN device in each, a [`Path`] for each direction.
//!
//! ```text
//! namespace a: tun --reader thread--> Path forward --writer thread--> tun :namespace b
//! namespace a: tun <--writer thread-- Path back    <--reader thread-- tun :namespace b
//! ```
//! The four threads run before all others of the machine (real-time scheduling), since a packet that leaves late is an
//! error of the emulator. How late packets left is recorded; [`Lateness::is_reliable`] says where a figure is no figure.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;
use tun_rs::{DeviceBuilder, InterruptEvent, SyncDevice};

use crate::Error;
use crate::namespace::{Namespace, ip};
use crate::path::{Conditions, Passage, Path};

/// Address of the side that sends, the edge.
pub const NEAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Address of the side that receives, the hub.
pub const FAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

/// Length of the largest IP packet.
const MTU: u16 = 1500;

/// Before everything that is not real-time; the lowest of those priorities suffices.
const PRIORITY: &str = "1";

/// An emulated link. Dropping it ends its threads and devices.
pub struct Link {
    /// Where the sending side lives.
    pub near: Namespace,
    /// Where the receiving side lives.
    pub far: Namespace,
    forward: Arc<Direction>,
    back: Arc<Direction>,
    begun: Instant,
    stop: Arc<InterruptEvent>,
    threads: Vec<JoinHandle<()>>,
}

/// One direction and who waits for it.
struct Direction {
    inner: Mutex<Inner>,
    changed: Condvar,
}

struct Inner {
    path: Path,
    /// Due time and lateness of each packet that was delivered.
    left: Vec<(Duration, Duration)>,
    ended: bool,
}

impl Link {
    /// Makes the namespaces and joins them; `congestion` is what TCP in them uses.
    ///
    /// # Errors
    /// Without root or `/dev/net/tun`.
    pub fn open(conditions: &Conditions, congestion: &str, seed: u64) -> Result<Self, Error> {
        let (near, far) = (Namespace::new()?, Namespace::new()?);
        let near_tun = Arc::new(near.run(|| device(NEAR, FAR, congestion))?);
        let far_tun = Arc::new(far.run(|| device(FAR, NEAR, congestion))?);
        #[allow(clippy::disallowed_methods, reason = "packets leave in real time")]
        let begun = Instant::now();
        let stop = Arc::new(InterruptEvent::new()?);
        let forward = Arc::new(Direction::new(Path::new(conditions.clone(), seed)));
        let back = Arc::new(Direction::new(Path::new(conditions.clone(), !seed)));
        let mut threads = Vec::new();
        for (direction, from, to) in [(&forward, &near_tun, &far_tun), (&back, &far_tun, &near_tun)] {
            let (reads, tun, stop) = (Arc::clone(direction), Arc::clone(from), Arc::clone(&stop));
            threads.push(std::thread::spawn(move || reads.read(&tun, &stop, begun)));
            let (writes, tun) = (Arc::clone(direction), Arc::clone(to));
            threads.push(std::thread::spawn(move || writes.write(&tun, begun)));
        }
        Ok(Self { near, far, forward, back, begun, stop, threads })
    }

    /// Time since the link was made; all times of its records are on this clock.
    pub fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Other conditions for both directions, from now on; the schedule of outages begins now.
    pub fn set(&self, conditions: &Conditions) -> Duration {
        let now = self.now();
        for direction in [&self.forward, &self.back] {
            direction.lock().path.set(now, conditions.clone());
        }
        now
    }

    /// What the sending side sent in a span.
    pub fn forward(&self, span: Span) -> Vec<Passage> {
        self.forward.log(span)
    }

    /// What the receiving side sent in a span.
    pub fn back(&self, span: Span) -> Vec<Passage> {
        self.back.log(span)
    }

    /// How late packets left in a span, both directions together.
    pub fn lateness(&self, span: Span) -> Lateness {
        let mut late: Vec<Duration> = Vec::new();
        for direction in [&self.forward, &self.back] {
            let inner = direction.lock();
            late.extend(inner.left.iter().filter(|(due, _)| span.holds(*due)).map(|(_, late)| *late));
        }
        late.sort_unstable();
        let millis = |at: Option<&Duration>| at.map_or(0.0, |late| late.as_secs_f64() * 1e3);
        Lateness { p99_ms: millis(late.get(late.len() * 99 / 100)), max_ms: millis(late.last()) }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = self.stop.trigger();
        for direction in [&self.forward, &self.back] {
            direction.lock().ended = true;
            direction.changed.notify_all();
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A span on the clock of a link.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Its first moment.
    pub from: Duration,
    /// The first moment after it.
    pub until: Duration,
}

impl Span {
    /// All of a link's life.
    pub const ALWAYS: Self = Self { from: Duration::ZERO, until: Duration::MAX };

    /// Is the moment in it?
    pub fn holds(self, at: Duration) -> bool {
        (self.from..self.until).contains(&at)
    }

    /// How long it is.
    pub fn seconds(self) -> f64 {
        self.until.saturating_sub(self.from).as_secs_f64()
    }
}

/// How late packets left the emulator against its own schedule, milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Lateness {
    /// All but a hundredth left with less.
    pub p99_ms: f64,
    /// The latest.
    pub max_ms: f64,
}

impl Lateness {
    /// Beyond 5 ms in a hundredth of the packets or 50 ms in one, a delay of 50 ms is not what was asked for, and a
    /// sender that watches delays has been shown something that was not the link.
    pub fn is_reliable(self) -> bool {
        self.p99_ms <= 5.0 && self.max_ms <= 50.0
    }
}

impl Direction {
    fn new(path: Path) -> Self {
        let inner = Inner { path, left: Vec::new(), ended: false };
        Self { inner: Mutex::new(inner), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn log(&self, span: Span) -> Vec<Passage> {
        self.lock().path.log().iter().filter(|passage| span.holds(passage.at)).copied().collect()
    }

    fn read(&self, tun: &SyncDevice, stop: &InterruptEvent, begun: Instant) {
        hurry();
        let mut packet = [0; MTU as usize];
        // Ends when the link is dropped.
        while let Ok(length) = tun.recv_intr(&mut packet, stop) {
            self.lock().path.offer(begun.elapsed(), &packet[..length]);
            self.changed.notify_one();
        }
    }

    fn write(&self, tun: &SyncDevice, begun: Instant) {
        hurry();
        let mut inner = self.lock();
        while !inner.ended {
            let now = begun.elapsed();
            if let Some((due, packet)) = inner.path.take_due(now) {
                drop(inner);
                // Refused while the device is down: as good as lost.
                let _ = tun.send(&packet);
                let late = begun.elapsed().saturating_sub(due);
                inner = self.lock();
                inner.left.push((due, late));
                continue;
            }
            let poisoned = "nothing panics while holding a direction";
            inner = match inner.path.next_due() {
                Some(due) => self.changed.wait_timeout(inner, due.saturating_sub(now)).expect(poisoned).0,
                None => self.changed.wait(inner).expect(poisoned),
            };
        }
    }
}

/// Gives the calling thread real-time scheduling; without it the emulator is as late as the machine is busy, and says so.
pub fn hurry() {
    let thread = nix::unistd::gettid().to_string();
    let asked = Command::new("chrt").args(["--fifo", "--reset-on-fork", "--pid", PRIORITY, &thread]).output();
    if !asked.is_ok_and(|done| done.status.success()) {
        let _ = writeln!(
            std::io::stderr().lock(),
            "no real-time scheduling (chrt, package util-linux): packets may leave late"
        );
    }
}

/// A TUN device in the namespace of the calling thread, and the way to the peer with TCP's congestion control: as an
/// attribute of the route it needs nothing of the programs and, other than the sysctl, nothing of the machine.
fn device(own: Ipv4Addr, peer: Ipv4Addr, congestion: &str) -> Result<SyncDevice, Error> {
    let device = DeviceBuilder::new().name("lnk0").enable(false).build_sync();
    let device = device.map_err(|e| format!("no TUN device: {e}; this needs root and /dev/net/tun"))?;
    ip(&["addr", "add", &format!("{own}/32"), "dev", "lnk0"])?;
    ip(&["link", "set", "lnk0", "mtu", &MTU.to_string(), "up"])?;
    ip(&["route", "add", &peer.to_string(), "dev", "lnk0", "congctl", congestion])?;
    Ok(device)
}
