//! A narrow way to the internet: an HTTP proxy that lets `CONNECT` through at a rate, with a delay, and with the waits that
//! lost segments cost.
//!
//! A stream in user space loses nothing, so a loss shows itself here as an application sees it: what comes behind the lost
//! segment waits until it was sent again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Payload of a segment on an ordinary path.
const SEGMENT_BYTES: usize = 1_400;

/// Segments under way at most: with less the delay would bound the rate.
const UNDER_WAY_MAX: usize = 64;

/// How narrow it is.
#[derive(Clone, Copy)]
pub(crate) struct Narrowness {
    pub(crate) bits_per_second: u64,
    /// One way.
    pub(crate) delay: Duration,
    /// Of 100 segments.
    pub(crate) lost_percent: u32,
}

/// One direction, shared by all connections.
struct Direction {
    of: Narrowness,
    rng: Mutex<ChaCha8Rng>,
    carried: AtomicU64,
}

/// A proxy that lives as long as this value.
pub(crate) struct SlowWay {
    pub(crate) address: SocketAddr,
    outward: Arc<Direction>,
    _tasks: JoinSet<()>,
}

impl SlowWay {
    /// Opens it. Losses repeat with the seed.
    pub(crate) async fn open(of: Narrowness, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let direction = |seed| {
            let rng = Mutex::new(ChaCha8Rng::seed_from_u64(seed));
            Arc::new(Direction { of, rng, carried: AtomicU64::new(0) })
        };
        let (outward, inward) = (direction(seed), direction(seed ^ 1));
        let mut tasks = JoinSet::new();
        let to = Arc::clone(&outward);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(connect(client, Arc::clone(&to), Arc::clone(&inward)));
            }
        });
        Self { address, outward, _tasks: tasks }
    }

    /// Bytes that have left through it.
    pub(crate) fn bytes_out(&self) -> u64 {
        self.outward.carried.load(Ordering::SeqCst)
    }
}

async fn connect(client: TcpStream, outward: Arc<Direction>, inward: Arc<Direction>) {
    let (from_client, mut to_client) = client.into_split();
    let mut lines = BufReader::with_capacity(SEGMENT_BYTES, from_client);
    let mut request = String::new();
    if lines.read_line(&mut request).await.is_err() {
        return;
    }
    let mut header = String::new();
    while lines.read_line(&mut header).await.is_ok_and(|n| n > 2) {
        header.clear();
    }
    let Some(host) = request.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()) else { return };
    let Ok(server) = TcpStream::connect(host).await else { return };
    if to_client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.is_err() {
        return;
    }
    assert!(lines.buffer().is_empty(), "a client waits for the answer to CONNECT");
    let (from_server, to_server) = server.into_split();
    tokio::join!(carry(lines.into_inner(), to_server, outward), carry(from_server, to_client, inward));
}

/// Carries one direction of one connection to its end.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, direction: Arc<Direction>) {
    let (sender, mut under_way) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY_MAX);
    let send = async move {
        let mut buffer = [0; SEGMENT_BYTES];
        while let Ok(n @ 1..) = from.read(&mut buffer).await {
            let due = direction.pass(n).await;
            if sender.send((due, buffer[..n].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let arrive = async move {
        while let Some((due, bytes)) = under_way.recv().await {
            tokio::time::sleep_until(due).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(send, arrive);
}

impl Direction {
    /// Waits until a segment has left, and says when it arrives.
    async fn pass(&self, bytes: usize) -> Instant {
        // Held meanwhile: the way is one, whoever uses it.
        let mut rng = self.rng.lock().await;
        let micros = bytes as u64 * 8 * 1_000_000 / self.of.bits_per_second;
        tokio::time::sleep(Duration::from_micros(micros)).await;
        self.carried.fetch_add(bytes as u64, Ordering::SeqCst);
        let mut due = Instant::now() + self.of.delay;
        // Sent again after a round trip and a little; lost again as likely.
        while rng.random_range(0..100) < self.of.lost_percent {
            due += self.of.delay * 3;
        }
        due
    }
}
