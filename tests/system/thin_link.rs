//! A thin link of real packets: processes at its near end, in a network namespace of their own, reach the far end over it and
//! nothing else. What is lost is lost: the kernels of both ends have to send it again.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use emulator::{Conditions, FAR, Fate, Link, Span, ip};
use graphsim::Names;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// The second address of the far end.
const FARTHER: &str = "10.77.0.3";

/// Distributions differ in their default, and it changes everything on a link that loses packets.
const CONGESTION: &str = "cubic";

/// A link between two namespaces; it ends with the last that holds it.
pub(crate) struct ThinLink {
    link: Link,
    doors: Mutex<Vec<Door>>,
}

/// Lets this process reach a port of the near end under the same address.
struct Door {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl ThinLink {
    /// `None`, and the reason is printed, where namespaces or TUN devices cannot be made.
    pub(crate) fn open(conditions: &Conditions, seed: u64) -> Option<Arc<Self>> {
        let opened = Link::open(conditions, CONGESTION, seed).and_then(|link| {
            link.far.run(|| ip(&["addr", "add", &format!("{FARTHER}/32"), "dev", "lnk0"]))?;
            link.near.run(|| ip(&["route", "add", FARTHER, "dev", "lnk0", "congctl", CONGESTION]))?;
            Ok(link)
        });
        match opened {
            Ok(link) => Some(Arc::new(Self { link, doors: Mutex::default() })),
            Err(reason) => {
                println!("skipped: {reason}");
                None
            }
        }
    }

    /// What a simulator at the far end is called.
    pub(crate) fn names(&self) -> Names {
        Names { services: FAR.to_string(), elsewhere: FARTHER.to_owned() }
    }

    /// Does something at the near end: what it starts and opens is there.
    pub(crate) fn near<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.link.near.run(|| Ok(work())).expect("the namespace stands")
    }

    /// The same at the far end.
    pub(crate) fn far<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.link.far.run(|| Ok(work())).expect("the namespace stands")
    }

    /// From now on these addresses of the near end's loopback are reached here too.
    pub(crate) fn reaches(&self, addresses: impl IntoIterator<Item = SocketAddr>) {
        let doors = addresses.into_iter().map(|address| {
            let outside = std::net::TcpListener::bind(address).expect("the port is free here");
            outside.set_nonblocking(true).expect("a socket of ours");
            let (stop, stopped) = oneshot::channel();
            let thread = self.near(|| std::thread::spawn(move || let_through(outside, address, stopped)));
            Door { stop, thread }
        });
        self.doors.lock().unwrap().extend(doors);
    }

    /// Bytes that were sent from the near end, and packets in both directions: those that arrived, and those that were lost.
    pub(crate) fn carried(&self) -> (u64, usize, usize) {
        let (forward, back) = (self.link.forward(Span::ALWAYS), self.link.back(Span::ALWAYS));
        let bytes = forward.iter().map(|passage| u64::from(passage.bytes)).sum();
        let of = |fate| forward.iter().chain(&back).filter(|passage| passage.fate == fate).count();
        (bytes, of(Fate::Delivered), of(Fate::Lost))
    }
}

impl Drop for ThinLink {
    fn drop(&mut self) {
        for door in self.doors.get_mut().unwrap().drain(..) {
            drop(door.stop);
            let _ = door.thread.join();
        }
    }
}

/// On a thread at the near end, with a socket from outside.
fn let_through(outside: std::net::TcpListener, address: SocketAddr, stopped: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async move {
        let outside = TcpListener::from_std(outside).expect("a listening socket");
        let mut open = JoinSet::new();
        let serve = async {
            while let Ok((mut from, _)) = outside.accept().await {
                open.spawn(async move {
                    let Ok(mut to) = TcpStream::connect(address).await else { return };
                    let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                });
            }
        };
        tokio::select! {
            _ = stopped => {}
            () = serve => {}
        }
    });
}
