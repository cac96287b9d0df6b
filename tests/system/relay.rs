//! The link between two real nodes: a UDP relay in user space that can cut, lose and delay.
//!
//! edge --datagrams--> [relay port] --(own port per edge address)--> hub

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Datagrams waiting out their delay: 1 s at 100 Mbit/s in full packets. More is dropped, as a router would.
const QUEUE_DATAGRAMS_MAX: usize = 8192;

/// How the link behaves at this moment.
pub(crate) struct Weather {
    up: AtomicBool,
    /// Lost datagrams per 1000.
    loss: AtomicU64,
    delay_ms: AtomicU64,
    carried: AtomicU64,
    arrived: AtomicU64,
    rng: Mutex<ChaCha8Rng>,
}

impl Weather {
    /// Does a datagram that arrives at this moment get through?
    fn admits(&self) -> bool {
        self.arrived.fetch_add(1, Ordering::SeqCst);
        let lost = self.rng.lock().unwrap().random_range(0..1000) < self.loss.load(Ordering::SeqCst);
        self.up.load(Ordering::SeqCst) && !lost
    }

    fn due(&self) -> Instant {
        Instant::now() + Duration::from_millis(self.delay_ms.load(Ordering::SeqCst))
    }
}

/// A relay that lives as long as this value.
pub(crate) struct Relay {
    /// Where the edge believes its hub to be.
    pub(crate) address: SocketAddr,
    weather: Arc<Weather>,
    _tasks: JoinSet<()>,
}

impl Relay {
    /// Opens a relay in front of `hub`. Losses repeat with the seed.
    pub(crate) async fn open(hub: SocketAddr, seed: u64) -> Self {
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("a free port"));
        let address = socket.local_addr().expect("a bound socket has an address");
        let weather = Arc::new(Weather {
            up: AtomicBool::new(true),
            loss: AtomicU64::new(0),
            delay_ms: AtomicU64::new(0),
            carried: AtomicU64::new(0),
            arrived: AtomicU64::new(0),
            rng: Mutex::new(ChaCha8Rng::seed_from_u64(seed)),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(socket, hub, Arc::clone(&weather)));
        Self { address, weather, _tasks: tasks }
    }

    /// Nothing gets through.
    pub(crate) fn cut(&self) {
        self.weather.up.store(false, Ordering::SeqCst);
    }

    /// The link is back.
    pub(crate) fn restore(&self) {
        self.weather.up.store(true, Ordering::SeqCst);
    }

    /// Loss in each direction and the one-way delay.
    pub(crate) fn impair(&self, loss_per_mille: u64, delay: Duration) {
        self.weather.loss.store(loss_per_mille, Ordering::SeqCst);
        self.weather.delay_ms.store(delay.as_millis() as u64, Ordering::SeqCst);
    }

    /// Datagrams that either side has put on the wire, delivered or not.
    pub(crate) fn datagrams_seen(&self) -> u64 {
        self.weather.arrived.load(Ordering::SeqCst)
    }

    /// Bytes delivered so far, both directions.
    pub(crate) fn bytes_carried(&self) -> u64 {
        self.weather.carried.load(Ordering::SeqCst)
    }
}

/// Moves datagrams until the relay is dropped.
async fn serve(socket: Arc<UdpSocket>, hub: SocketAddr, weather: Arc<Weather>) {
    let mut tasks = JoinSet::new();
    let mut upstreams: HashMap<SocketAddr, mpsc::Sender<(Instant, Vec<u8>)>> = HashMap::new();
    let mut buffer = vec![0; 65_536];
    loop {
        // A refused earlier datagram shows up as an error here; the link goes on.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        if !weather.admits() {
            continue;
        }
        let to_hub = match upstreams.entry(from) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let upstream = Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("a free port"));
                upstream.connect(hub).await.expect("loopback is routable");
                let (to_hub, queued) = mpsc::channel(QUEUE_DATAGRAMS_MAX);
                tasks.spawn(deliver(queued, Arc::clone(&upstream), None, Arc::clone(&weather)));
                let (to_edge, queued) = mpsc::channel(QUEUE_DATAGRAMS_MAX);
                tasks.spawn(deliver(queued, Arc::clone(&socket), Some(from), Arc::clone(&weather)));
                tasks.spawn(answers(upstream, to_edge, Arc::clone(&weather)));
                new.insert(to_hub)
            }
        };
        // A full queue drops, as a router does.
        let _ = to_hub.try_send((weather.due(), buffer[..length].to_vec()));
    }
}

async fn answers(upstream: Arc<UdpSocket>, to_edge: mpsc::Sender<(Instant, Vec<u8>)>, weather: Arc<Weather>) {
    let mut buffer = vec![0; 65_536];
    loop {
        // While the hub is down its port refuses; wait for the next answer.
        let Ok(length) = upstream.recv(&mut buffer).await else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        if weather.admits() {
            let _ = to_edge.try_send((weather.due(), buffer[..length].to_vec()));
        }
    }
}

async fn deliver(
    mut queued: mpsc::Receiver<(Instant, Vec<u8>)>,
    socket: Arc<UdpSocket>,
    to: Option<SocketAddr>,
    weather: Arc<Weather>,
) {
    while let Some((due, datagram)) = queued.recv().await {
        tokio::time::sleep_until(due).await;
        let sent = match to {
            Some(to) => socket.send_to(&datagram, to).await,
            None => socket.send(&datagram).await,
        };
        if let Ok(bytes) = sent {
            weather.carried.fetch_add(bytes as u64, Ordering::SeqCst);
        }
    }
}
