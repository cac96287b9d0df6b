//! The UDP socket under quinn, with the [`Governor`] as the last step before the wire.

use std::cell::Cell;
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::time::{Sleep, sleep_until};

use crate::clock;
use crate::firsts::{Firsts, is_handshake};
use crate::governor::{Governor, Verdict};
use crate::settings::Outlet;

thread_local! {
    /// The poller that let this thread's next datagram pass. quinn sends what belongs to no connection, a retry or a reset, without asking
    /// one, and drops it when it is refused.
    static ASKED: Cell<Option<PollerNumber>> = const { Cell::new(None) };
    /// The poller whose datagram was refused last on this thread, and until when the lane is busy that refused it. quinn asks a
    /// connection's poller right after `try_send` returned `WouldBlock`, in the same call and on the same thread, but tells the poller
    /// neither the reason nor the destination.
    static REFUSED_UNTIL: Cell<Option<(PollerNumber, Instant)>> = const { Cell::new(None) };
}

/// Names a connection's poller in this process.
type PollerNumber = u64;

static POLLERS: AtomicU64 = AtomicU64::new(0);

/// A socket that passes what its governor lets pass.
pub(crate) struct GovernedSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    governor: Arc<Governor>,
    number: u32,
    /// The same socket, where packets carry a code point: quinn sets the whole traffic class of each datagram for ECN, and
    /// so would undo it.
    marked: Option<UdpSocket>,
    copies: Mutex<Copies>,
}

/// Copies of handshakes, sent by the task that receives: nobody else looks after the socket when a time comes.
#[derive(Default)]
struct Copies {
    firsts: Firsts,
    sleep: Option<Pin<Box<Sleep>>>,
    receiver: Option<Waker>,
}

impl GovernedSocket {
    /// `number` names it at the governor. `dscp` is what its packets carry, see [`bind`].
    pub(crate) fn new(socket: UdpSocket, number: u32, dscp: u8, governor: Arc<Governor>) -> io::Result<Self> {
        let marked = if dscp == 0 { None } else { Some(socket.try_clone()?) };
        Ok(Self { inner: TokioRuntime.wrap_udp_socket(socket)?, governor, number, marked, copies: Mutex::default() })
    }

    fn send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let Some(socket) = &self.marked else { return self.inner.try_send(transmit) };
        let mapped = match (socket.local_addr()?, transmit.destination) {
            (SocketAddr::V6(_), SocketAddr::V4(to)) => SocketAddr::from((to.ip().to_ipv6_mapped(), to.port())),
            (SocketAddr::V4(_), to) | (SocketAddr::V6(_), to @ SocketAddr::V6(_)) => to,
        };
        match socket.send_to(transmit.contents, mapped) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Err(e),
            // As quinn's own socket: a probe that is too large, or a network that is away, is a lost datagram. An error would end
            // the connection, which is to outlive an outage.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn copies(&self) -> MutexGuard<'_, Copies> {
        self.copies.lock().expect("nothing panics while holding copies")
    }

    /// A datagram has left; one of a handshake is copied.
    fn note_sent(&self, transmit: &Transmit<'_>, now: Instant) {
        if !is_handshake(transmit.contents) {
            return;
        }
        let to = transmit.destination;
        let Some(rate) = self.governor.rate_to((self.number, to), now) else { return };
        let is_assigned = self.governor.is_assigned((self.number, to));
        let mut copies = self.copies();
        copies.firsts.sent(transmit.contents, transmit.src_ip, to, rate, is_assigned, now);
        if let Some(receiver) = copies.receiver.take() {
            receiver.wake();
        }
    }

    /// Sends the copies that are due. The task of `cx` is woken for the next.
    fn send_copies(&self, cx: &mut Context<'_>) {
        let mut copies = self.copies();
        copies.receiver = Some(cx.waker().clone());
        loop {
            let now = clock::now();
            while let Some(copy) = copies.firsts.take(now) {
                let transmit = Transmit {
                    destination: copy.to,
                    ecn: None,
                    contents: &copy.datagram,
                    segment_size: None,
                    src_ip: copy.from,
                };
                let place = (self.number, copy.to);
                match self.governor.submit(place, copy.datagram.len(), now, || self.send(&transmit)) {
                    Verdict::NotBefore(free) => copies.firsts.later(copy, free),
                    // It is one of several.
                    Verdict::Sent | Verdict::Dropped | Verdict::Failed(_) => {}
                }
            }
            let Some(due) = copies.firsts.due() else { return copies.sleep = None };
            let sleep = copies.sleep.insert(Box::pin(sleep_until(due.into())));
            if sleep.as_mut().poll(cx).is_pending() {
                return;
            }
        }
    }
}

/// Binds where peers reach this node, or anywhere for a node that only dials, so that packets leave as `out` says.
pub(crate) fn bind(listen: Option<SocketAddr>, out: &Outlet) -> io::Result<UdpSocket> {
    let open = |address: SocketAddr| -> io::Result<UdpSocket> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if let Some(interface) = &out.interface {
            socket.bind_device(Some(interface.as_bytes()))?;
        }
        if out.dscp > 0 {
            // The two low bits of the traffic class are ECN's.
            let class = u32::from(out.dscp) << 2;
            if address.is_ipv6() {
                socket.set_tclass_v6(class)?;
            }
            socket.set_tos_v4(class)?;
        }
        if address.is_ipv6() && address.ip().is_unspecified() {
            socket.set_only_v6(false)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        Ok(socket.into())
    };
    match listen.or(out.bind.map(|own| SocketAddr::new(own, 0))) {
        Some(address) => open(address),
        // Both families where the box has both.
        None => open((Ipv6Addr::UNSPECIFIED, 0).into()).or_else(|_| open((Ipv4Addr::UNSPECIFIED, 0).into())),
    }
}

impl AsyncUdpSocket for GovernedSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        let number = POLLERS.fetch_add(1, Ordering::Relaxed);
        Box::pin(LanePoller { number, inner: Arc::clone(&self.inner).create_io_poller(), lane_free: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let (now, asked) = (clock::now(), ASKED.take());
        let verdict = self
            .governor
            .submit((self.number, transmit.destination), transmit.contents.len(), now, || self.send(transmit));
        match verdict {
            Verdict::Sent => {
                self.note_sent(transmit, now);
                Ok(())
            }
            // Dropped is like lost on the way: quinn must not hear of it, or it would wait for the socket.
            Verdict::Dropped => Ok(()),
            Verdict::NotBefore(at) => {
                REFUSED_UNTIL.set(asked.map(|poller| (poller, at)));
                Err(io::ErrorKind::WouldBlock.into())
            }
            Verdict::Failed(e) => Err(e),
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.send_copies(cx);
        let count = ready!(self.inner.poll_recv(cx, bufs, meta))?;
        let now = clock::now();
        for (m, buf) in meta[..count].iter().zip(bufs.iter()) {
            let datagrams = buf[..m.len].chunks(m.stride.max(1));
            datagrams.for_each(|datagram| self.copies().firsts.came(datagram, m.addr, now));
            self.governor.received((self.number, m.addr), m.len, m.len.div_ceil(m.stride.max(1)), now);
        }
        Poll::Ready(Ok(count))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    /// One: a batch handed to the kernel at once could not be paced.
    fn max_transmit_segments(&self) -> usize {
        1
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

impl fmt::Debug for GovernedSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GovernedSocket").field("inner", &self.inner).finish_non_exhaustive()
    }
}

/// Waits for the lane that refused the last datagram, then for the socket.
#[derive(Debug)]
struct LanePoller {
    number: PollerNumber,
    inner: Pin<Box<dyn UdpPoller>>,
    lane_free: Option<Pin<Box<Sleep>>>,
}

impl UdpPoller for LanePoller {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some((poller, at)) = REFUSED_UNTIL.take()
            && poller == self.number
        {
            self.lane_free = Some(Box::pin(sleep_until(at.into())));
        }
        if let Some(sleep) = &mut self.lane_free {
            ready!(sleep.as_mut().poll(cx));
            self.lane_free = None;
        }
        let writable = self.inner.as_mut().poll_writable(cx);
        ASKED.set(writable.is_ready().then_some(self.number));
        writable
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::governor::Lane;
    use model::BitsPerSecond;
    use std::future::poll_fn;
    use std::time::Duration;
    use tokio::time::timeout;

    /// A retry for a stranger was refused by the thin lane of strangers; the next connection that was served by the same thread waited for
    /// that lane, though its own was free.
    #[tokio::test]
    async fn what_belongs_to_no_connection_makes_none_wait() {
        let thin = BitsPerSecond(100);
        let governor = Arc::new(Governor::new(true, thin));
        let socket = bind(Some("127.0.0.1:0".parse().unwrap()), &Outlet::default()).unwrap();
        let socket = Arc::new(GovernedSocket::new(socket, 0, 0, Arc::clone(&governor)).unwrap());
        let (peer, stranger) = ("127.0.0.1:9".parse().unwrap(), "127.0.0.1:10".parse().unwrap());
        let lane = Arc::new(Lane::new(BitsPerSecond(10_000_000), clock::now()));
        governor.assign((0, peer), &lane);
        let contents = [0x40; 1_000];
        let send = |destination| {
            socket.try_send(&Transmit { destination, ecn: None, contents: &contents, segment_size: None, src_ip: None })
        };
        let mut poller = Arc::clone(&socket).create_io_poller();
        let mut waits = async || {
            let writable = poll_fn(|cx| poller.as_mut().poll_writable(cx));
            timeout(Duration::from_secs(2), writable).await.is_err()
        };
        assert!(!waits().await);
        send(stranger).unwrap();
        assert!(send(stranger).is_err(), "nobody was asked whether that may leave");
        assert!(!waits().await, "the lane of its own is free");
        send(peer).unwrap();
        // It waits when it was let pass and is refused.
        assert!(!waits().await);
        assert!(send(stranger).is_err());
        assert!(waits().await, "80 s at 100 bit/s");
    }
}
