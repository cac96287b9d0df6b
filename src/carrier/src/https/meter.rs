//! The TCP socket under the HTTPS lane, with the [`Governor`] as the last step before the kernel.
//!
//! What the kernel adds by itself is outside: repetitions, acknowledgements of what arrives, the end of the connection.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use model::BitsPerSecond;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep_until};

use crate::clock;
use crate::governor::{Governor, Lane, Verdict};

/// Bytes of a full segment on most paths.
const SEGMENT_BYTES: usize = 1_400;

/// IP and TCP headers with time stamps of a segment: 20 + 32, or 40 + 32 with IPv6.
pub(crate) const SEGMENT_HEADER: u64 = 72;

/// Until what the governor did not let pass is tried again: a budget is handed out in pieces.
const REFUSED_WAIT: Duration = Duration::from_millis(50);

/// Whose bytes a connection's are.
pub(crate) struct Meter {
    governor: Arc<Governor>,
    lane: Mutex<Arc<Lane>>,
}

impl Meter {
    pub(crate) fn new(governor: Arc<Governor>, lane: Arc<Lane>) -> Arc<Self> {
        Arc::new(Self { governor, lane: Mutex::new(lane) })
    }

    fn lane(&self) -> Arc<Lane> {
        Arc::clone(&self.lane.lock().expect("nothing panics while holding a meter's lane"))
    }

    pub(crate) fn rate(&self) -> BitsPerSecond {
        self.lane().rate()
    }

    /// What leaves, and what left before it was known whose it is, is this link's.
    pub(crate) fn charge_to(&self, lane: &Arc<Lane>) {
        let former = std::mem::replace(
            &mut *self.lane.lock().expect("nothing panics while holding a meter's lane"),
            Arc::clone(lane),
        );
        if !Arc::ptr_eq(&former, lane) {
            lane.take_over(&former);
        }
    }
}

/// A TCP connection that passes what its meter lets pass.
pub(crate) struct MeteredTcp {
    tcp: TcpStream,
    meter: Arc<Meter>,
    lane_free: Option<Pin<Box<Sleep>>>,
}

impl MeteredTcp {
    pub(crate) fn new(tcp: TcpStream, meter: Arc<Meter>) -> Self {
        Self { tcp, meter, lane_free: None }
    }
}

impl AsyncRead for MeteredTcp {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.tcp).poll_read(cx, buf))?;
        let bytes = buf.filled().len() - before;
        self.meter.lane().arrived(bytes as u64 + SEGMENT_HEADER * bytes.div_ceil(SEGMENT_BYTES) as u64);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for MeteredTcp {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            if let Some(sleep) = &mut self.lane_free {
                ready!(sleep.as_mut().poll(cx));
                self.lane_free = None;
            }
            ready!(self.tcp.poll_write_ready(cx))?;
            let piece = &buf[..buf.len().min(SEGMENT_BYTES)];
            let (lane, tcp, mut written) = (self.meter.lane(), &self.tcp, 0);
            let verdict: Verdict<io::Error> =
                self.meter.governor.pass(&lane, piece.len() as u64 + SEGMENT_HEADER, clock::now(), || {
                    written = tcp.try_write(piece)?;
                    Ok(())
                });
            match verdict {
                Verdict::Sent => return Poll::Ready(Ok(written)),
                // A stream cannot leave anything out. Silent, or without a budget that grows again, its keeper ends it.
                Verdict::Dropped => self.lane_free = Some(Box::pin(sleep_until((clock::now() + REFUSED_WAIT).into()))),
                Verdict::NotBefore(at) => self.lane_free = Some(Box::pin(sleep_until(at.into()))),
                Verdict::Failed(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Verdict::Failed(e) => return Poll::Ready(Err(e)),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
