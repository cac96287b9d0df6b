//! Frames over one connection: over QUIC here, over a byte stream in [`crate::https`].
//!
//! ```text
//!  stream 0, 1, 2 ...   one frame each, with the priority of its class; control frames above them all
//! ```
//!
//! A frame has a unidirectional stream of its own: a lost packet delays the frames in it and no other, a more
//! urgent frame passes whatever waits, and the end of the stream being acknowledged says that the frame has left
//! quinn for good, so that what a dying link has not delivered can go over another one. Frames may overtake each other
//! and are harmless when repeated, so nothing is lost by it. On the wire a stream per frame costs no more than one long
//! stream, whose offsets would take the bytes saved.
//!
//! quinn holds what was sent and not acknowledged. How much that may be is decided here, not by quinn's send window,
//! which would let bulk that waits for a repetition block a flash message.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use link::Lane;
use model::BitsPerSecond;
use quinn::{Connection, ConnectionError, RecvStream};
use tokio::task::unconstrained;
use wire::WireError;
use wire::frame::{FRAME_BYTES_MAX, Frame};

use crate::clock;
use crate::endpoint::Proven;
use crate::governor::Lane as WireLane;
use crate::https::{self, stream::StreamPipe};
use crate::prober::Prober;
use crate::quic::{self, SharedRate};
use crate::reach::Quality;
use crate::settings::LaneKind;
use crate::spare::SpareView;

/// Frames being received at the same time that are read from quinn; its flow control bounds their bytes to 16 MiB.
const READING_MAX: usize = quic::STREAMS_MAX as usize;

/// Above every class.
const CONTROL_PRIORITY: i32 = 10;

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Names a frame among all that a keeper has sent.
pub(crate) type FrameNumber = u64;

/// What happened on the connection.
#[derive(Debug)]
pub(crate) enum Event {
    /// A frame arrived whole; so many bytes of it.
    Frame(Frame, usize),
    /// The peer's carrier has this frame of ours; that it is stored is for the peer's link to say.
    Delivered(FrameNumber),
    /// The peer sent what is no frame.
    Unreadable(WireError),
    /// The connection is gone, and what was not delivered is lost with it.
    Closed(Gone),
}

/// Why a connection is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// The peer does not want it, with its reason.
    Denied(String),
    /// It ended otherwise.
    Lost(String),
}

impl From<ConnectionError> for Gone {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) => {
                let text = String::from_utf8_lossy(&close.reason).into_owned();
                match close.error_code {
                    c if c == CloseCode::Denied.number() => Self::Denied(text),
                    _ if text.is_empty() => Self::Lost("the peer closed the connection".to_owned()),
                    _ => Self::Lost(text),
                }
            }
            ConnectionError::VersionMismatch
            | ConnectionError::TransportError(_)
            | ConnectionError::ConnectionClosed(_)
            | ConnectionError::Reset
            | ConnectionError::TimedOut
            | ConnectionError::LocallyClosed
            | ConnectionError::CidsExhausted => Self::Lost(error.to_string()),
        }
    }
}

/// Codes with which a connection is closed, beside the text. The numbers are part of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum CloseCode {
    /// The node is stopping, or is done with the connection.
    Done = 0,
    /// The peer is not admitted; dialling again soon is of no use.
    Denied = 1,
    /// Another connection of the same peer is newer.
    Replaced = 2,
    /// The peer did not keep to the protocol.
    Protocol = 3,
}

impl CloseCode {
    pub(crate) fn number(self) -> quinn::VarInt {
        quinn::VarInt::from_u32(self as u32)
    }
}

/// A stream's content, or why it has none.
enum Read {
    Frame(Frame, usize),
    Unreadable(WireError),
    /// Cut off: the connection is going, or the peer gave the frame up.
    Nothing,
}

/// A frame that was handed to quinn.
struct Sent {
    number: FrameNumber,
    len: u64,
    /// Everything, the end included, was acknowledged.
    delivered: bool,
}

/// Both directions of one connection, whatever carries it.
pub(crate) enum Pipe {
    Quic(Box<QuicPipe>),
    Stream(Box<StreamPipe>),
}

impl Pipe {
    pub(crate) fn quic(proven: Proven) -> Self {
        Self::Quic(Box::new(QuicPipe::new(proven)))
    }

    pub(crate) fn kind(&self) -> LaneKind {
        match self {
            Self::Quic(_) => LaneKind::Quic,
            Self::Stream(_) => LaneKind::Https,
        }
    }

    pub(crate) fn set_rate(&mut self, rate: BitsPerSecond) {
        match self {
            Self::Quic(pipe) => pipe.set_rate(rate),
            Self::Stream(pipe) => pipe.set_rate(rate),
        }
    }

    /// What leaves over the connection is this lane's. Where the transport finds out what the link carries, it may slow the
    /// lane down to that.
    pub(crate) fn charge_to(&self, lane: &Arc<WireLane>) {
        match self {
            Self::Quic(pipe) => pipe.pace(lane),
            Self::Stream(pipe) => pipe.charge_to(lane),
        }
    }

    /// What the link is found to carry.
    pub(crate) fn rate(&self) -> BitsPerSecond {
        match self {
            Self::Quic(pipe) => pipe.rate(),
            Self::Stream(pipe) => pipe.rate(),
        }
    }

    /// Where the peer is at present, where datagrams are told apart by that: it may have moved, or a middlebox given it
    /// another port.
    pub(crate) fn remote(&self) -> Option<SocketAddr> {
        match self {
            Self::Quic(pipe) => Some(pipe.remote()),
            Self::Stream(_) => None,
        }
    }

    /// Hands an encoded frame over. It is delivered, or lost when the connection closes.
    pub(crate) fn send(&mut self, number: FrameNumber, lane: Lane, frame: Bytes) {
        match self {
            Self::Quic(pipe) => pipe.send(number, lane, frame),
            Self::Stream(pipe) => pipe.send(number, lane, frame),
        }
    }

    /// Bytes that it may take before its queue would stand in the way of what comes later.
    pub(crate) fn room(&self) -> u64 {
        match self {
            Self::Quic(pipe) => pipe.room(),
            Self::Stream(pipe) => pipe.room(),
        }
    }

    /// Largest UDP payload that the path was found to take, or what is like it.
    pub(crate) fn mtu(&self) -> u16 {
        match self {
            Self::Quic(pipe) => pipe.mtu(),
            Self::Stream(_) => https::stream::LIKE_MTU,
        }
    }

    /// Is something on its way that the peer has not confirmed?
    pub(crate) fn is_waiting(&self) -> bool {
        match self {
            Self::Quic(pipe) => pipe.is_waiting(),
            Self::Stream(pipe) => pipe.is_waiting(),
        }
    }

    /// Takes note of what has happened, and sends a probe if one is due. TCP probes by itself.
    pub(crate) fn probe(&mut self, now: Instant) {
        match self {
            Self::Quic(pipe) => pipe.probe(now),
            Self::Stream(_) => {}
        }
    }

    /// When the next probe is due.
    pub(crate) fn probe_at(&self) -> Option<Instant> {
        match self {
            Self::Quic(pipe) => pipe.probe_at(),
            Self::Stream(_) => None,
        }
    }

    /// Of the packets whose fate is known, in thousandths, those that were lost. What a byte stream carries is repeated below it, and a
    /// copy behind it would gain nothing.
    pub(crate) fn lost_permille(&self) -> u64 {
        match self {
            Self::Quic(pipe) => pipe.lost_permille(),
            Self::Stream(_) => 0,
        }
    }

    /// How what is not confirmed is copied while there is nothing else to do.
    pub(crate) fn spare_view(&self) -> SpareView {
        match self {
            Self::Quic(pipe) => pipe.spare_view(),
            // TCP delivers in order: a copy would come after what it is a copy of.
            Self::Stream(_) => SpareView { times: 1, spacing: Duration::ZERO, late: Duration::ZERO },
        }
    }

    /// Any change is a sign of life.
    pub(crate) fn signs_of_life(&self) -> u64 {
        match self {
            Self::Quic(pipe) => pipe.signs_of_life(),
            Self::Stream(pipe) => pipe.signs_of_life(),
        }
    }

    /// What the connection is worth. Where nobody says what is lost, nothing is.
    pub(crate) fn quality(&self, ceiling: BitsPerSecond) -> Quality {
        let (sent, lost) = match self {
            Self::Quic(pipe) => pipe.packets(),
            Self::Stream(_) => (0, 0),
        };
        let pace_permille = self.rate().0.saturating_mul(1_000) / ceiling.0.max(1);
        Quality { sent, lost, round_trip: self.round_trip(), pace_permille }
    }

    /// Share of the packets sent that were lost; `None` where nobody says.
    pub(crate) fn loss(&self) -> Option<f64> {
        match self {
            Self::Quic(pipe) => Some(pipe.loss()),
            Self::Stream(_) => None,
        }
    }

    pub(crate) fn round_trip(&self) -> Duration {
        match self {
            Self::Quic(pipe) => pipe.round_trip(),
            Self::Stream(pipe) => pipe.round_trip(),
        }
    }

    /// Ends the connection, with the reason for the peer. Returns what has happened on it and nobody has asked for yet: frames that the
    /// peer takes for delivered, and deliveries. A byte stream confirms what was asked for, and nothing else.
    pub(crate) fn close(&mut self, code: CloseCode, text: &str) -> Vec<Event> {
        match self {
            Self::Quic(pipe) => pipe.close(code, text),
            Self::Stream(pipe) => {
                pipe.close(code, text);
                Vec::new()
            }
        }
    }

    /// The next thing that happened. Cancel-safe: what is under way stays in the pipe.
    pub(crate) async fn next(&mut self) -> Event {
        match self {
            Self::Quic(pipe) => pipe.next().await,
            Self::Stream(pipe) => pipe.next().await,
        }
    }
}

/// Both directions of one QUIC connection.
pub(crate) struct QuicPipe {
    connection: Connection,
    rate: SharedRate,
    sending: FuturesUnordered<Boxed<Sent>>,
    outstanding_bytes: u64,
    prober: Prober,
    accepting: Boxed<Result<RecvStream, ConnectionError>>,
    reading: FuturesUnordered<Boxed<Read>>,
    /// Why the connection is gone, until what came before that is read.
    gone: Option<Gone>,
}

impl QuicPipe {
    pub(crate) fn new(proven: Proven) -> Self {
        let Proven { connection, rate, .. } = proven;
        Self {
            accepting: accept(&connection),
            prober: Prober::new(connection.side().is_client(), clock::now()),
            connection,
            rate,
            sending: FuturesUnordered::new(),
            outstanding_bytes: 0,
            reading: FuturesUnordered::new(),
            gone: None,
        }
    }

    pub(crate) fn set_rate(&self, rate: BitsPerSecond) {
        self.rate.set_ceiling(rate);
    }

    /// Lets this connection slow its lane down to what the link is found to carry.
    pub(crate) fn pace(&self, lane: &WireLane) {
        lane.follow(&self.rate);
    }

    /// What the link is found to carry.
    pub(crate) fn rate(&self) -> BitsPerSecond {
        self.rate.pace()
    }

    /// Where the peer is at present: it may have moved, or a middlebox given it another port.
    pub(crate) fn remote(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    /// Hands an encoded frame to quinn. It is delivered, or lost when the connection closes.
    pub(crate) fn send(&mut self, number: FrameNumber, lane: Lane, frame: Bytes) {
        let len = frame.len() as u64;
        self.prober.sent(self.is_waiting(), clock::now());
        self.outstanding_bytes += len;
        let connection = self.connection.clone();
        let priority = match lane {
            Lane::Control => CONTROL_PRIORITY,
            // Flash 5 ... deferred 1.
            Lane::Class(class) => 5 - class.index() as i32,
        };
        self.sending.push(Box::pin(async move {
            // An error means that the connection is gone, which `next` reports once, from the receiving side.
            let delivered = send_alone(connection, frame, priority).await.is_some();
            Sent { number, len, delivered }
        }));
    }

    /// Bytes that quinn may take before its queue would stand in the way of what comes later.
    pub(crate) fn room(&self) -> u64 {
        quic::room(&self.rate, &self.connection.stats().path, self.outstanding_bytes, self.sending.len())
    }

    /// Largest UDP payload that the path was found to take.
    pub(crate) fn mtu(&self) -> u16 {
        self.connection.stats().path.current_mtu
    }

    /// Of the datagrams whose fate is known, in thousandths, those that were lost.
    pub(crate) fn lost_permille(&self) -> u64 {
        quic::lost_permille(&self.rate, &self.connection.stats().path)
    }

    /// How what is not confirmed is copied while there is nothing else to do.
    pub(crate) fn spare_view(&self) -> SpareView {
        quic::spare_view(&self.rate, &self.connection.stats().path)
    }

    /// Is something on its way that the peer has not confirmed?
    pub(crate) fn is_waiting(&self) -> bool {
        !self.sending.is_empty()
    }

    /// Takes note of what has happened, and sends a probe if one is due.
    pub(crate) fn probe(&mut self, now: Instant) {
        let path = quic::path_view(&self.rate, &self.connection.stats());
        self.prober.note(&path, now);
        if self.prober.probe(&path, self.is_waiting(), now) {
            self.rate.allow_probe();
            // An error means that the connection is gone, which `next` reports.
            let _ = self.connection.send_datagram(Bytes::new());
        }
    }

    /// When the next probe is due.
    pub(crate) fn probe_at(&self) -> Option<Instant> {
        let path = quic::path_view(&self.rate, &self.connection.stats());
        self.prober.due(&path, self.is_waiting())
    }

    /// Datagrams received so far: any change is a sign of life.
    pub(crate) fn signs_of_life(&self) -> u64 {
        self.connection.stats().udp_rx.datagrams
    }

    /// Packets that were sent, and of them those that were lost.
    pub(crate) fn packets(&self) -> (u64, u64) {
        let path = self.connection.stats().path;
        (path.sent_packets, path.lost_packets)
    }

    /// Share of the packets sent that were lost.
    pub(crate) fn loss(&self) -> f64 {
        let (sent, lost) = self.packets();
        lost as f64 / sent.max(1) as f64
    }

    pub(crate) fn round_trip(&self) -> Duration {
        self.connection.rtt()
    }

    /// Ends the connection, with the reason for the peer. Returns what quinn has received and confirmed and nobody has read yet, at
    /// most its receive window, and what else has happened: nothing more comes after this.
    pub(crate) fn close(&mut self, code: CloseCode, text: &str) -> Vec<Event> {
        self.connection.close(code.number(), text.as_bytes());
        let mut cx = Context::from_waker(Waker::noop());
        let mut rest = Vec::new();
        // However much the task that closes has done before: it does not come back for what is left.
        while let Poll::Ready(event) = pin!(unconstrained(self.next())).poll(&mut cx) {
            match event {
                Event::Frame(..) | Event::Delivered(_) => rest.push(event),
                Event::Unreadable(_) => {}
                Event::Closed(_) => break,
            }
        }
        rest
    }

    /// The next thing that happened. Cancel-safe: what is under way stays in the pipe.
    pub(crate) async fn next(&mut self) -> Event {
        loop {
            if self.reading.is_empty()
                && let Some(gone) = self.gone.take()
            {
                return Event::Closed(gone);
            }
            tokio::select! {
                biased;
                Some(read) = self.reading.next() => match read {
                    Read::Frame(frame, len) => return Event::Frame(frame, len),
                    Read::Unreadable(error) => return Event::Unreadable(error),
                    Read::Nothing => {}
                },
                Some(sent) = self.sending.next() => {
                    self.outstanding_bytes -= sent.len;
                    if sent.delivered {
                        return Event::Delivered(sent.number);
                    }
                }
                stream = &mut self.accepting, if self.reading.len() < READING_MAX => match stream {
                    Ok(stream) => {
                        self.accepting = accept(&self.connection);
                        self.reading.push(Box::pin(read_alone(stream)));
                    }
                    Err(gone) => {
                        self.accepting = Box::pin(std::future::pending());
                        // The peer takes what it sent before for delivered.
                        self.gone = Some(gone.into());
                    }
                },
            }
        }
    }
}

fn accept(connection: &Connection) -> Boxed<Result<RecvStream, ConnectionError>> {
    let connection = connection.clone();
    Box::pin(async move { connection.accept_uni().await })
}

async fn send_alone(connection: Connection, frame: Bytes, priority: i32) -> Option<()> {
    let mut stream = connection.open_uni().await.ok()?;
    stream.set_priority(priority).ok()?;
    stream.write_chunk(frame).await.ok()?;
    stream.finish().ok()?;
    // Resolves when everything, the end included, is acknowledged.
    match stream.stopped().await {
        Ok(None) => Some(()),
        // The peer does not read streams in part, so it never stops one: the connection is gone.
        Ok(Some(_)) | Err(_) => None,
    }
}

async fn read_alone(mut stream: RecvStream) -> Read {
    match stream.read_to_end(FRAME_BYTES_MAX).await {
        Ok(bytes) => match Frame::decode(&bytes) {
            Ok(frame) => Read::Frame(frame, bytes.len()),
            Err(e) => Read::Unreadable(e),
        },
        Err(quinn::ReadToEndError::TooLong) => Read::Unreadable(WireError::TooLarge {
            what: "a frame",
            found: FRAME_BYTES_MAX as u64 + 1,
            max: FRAME_BYTES_MAX as u64,
        }),
        Err(quinn::ReadToEndError::Read(_)) => Read::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Plug;
    use crate::governor::Governor;
    use keys::NodeKey;
    use model::{Epoch, Outcome, Precedence, RangeSet};
    use std::collections::BTreeSet;
    use wire::frame::Skip;

    const RATE: BitsPerSecond = BitsPerSecond(1_000_000);

    struct Pair {
        _plugs: [Plug; 2],
        from: QuicPipe,
        to: QuicPipe,
    }

    async fn pair() -> Pair {
        let (edge_key, hub_key) = (NodeKey::generate(), NodeKey::generate());
        let open = |key: &NodeKey, listen: bool| {
            let listen = listen.then(|| "127.0.0.1:0".parse().unwrap());
            Plug::open(key.clone(), listen, Arc::new(Governor::new(true, RATE))).unwrap()
        };
        let (edge, hub) = (open(&edge_key, false), open(&hub_key, true));
        let address = hub.local_addr().unwrap().to_string();
        let lane = Arc::new(WireLane::new(RATE, clock::now()));
        let accepting = async { hub.accept(hub.incoming().await.unwrap(), RATE).await.unwrap() };
        let (dialled, accepted) = tokio::join!(edge.dial(hub_key.node_id(), &address, &lane, true), accepting);
        let (from, to) = (QuicPipe::new(dialled.unwrap()), QuicPipe::new(accepted));
        Pair { _plugs: [edge, hub], from, to }
    }

    fn skip(n: u64) -> Frame {
        let ranges = (0..200 * n).map(|k| n * 1_000_000 + 2 * k + 1).collect::<RangeSet>();
        Frame::Skip(Skip { epoch: Epoch(1), outcome: Outcome::Expired, ranges, after: Vec::new() })
    }

    #[tokio::test]
    async fn frames_of_any_class_arrive_whole_and_each_is_reported_as_delivered() {
        let Pair { _plugs, mut from, mut to } = pair().await;
        let mut frames: Vec<Frame> = (1..30).map(skip).collect();
        let mut undelivered: BTreeSet<FrameNumber> = (0..29).collect();
        for (n, frame) in frames.iter().enumerate() {
            let lane = if n % 3 == 0 { Lane::Control } else { Lane::Class(Precedence::ALL[n % 3]) };
            from.send(n as u64, lane, frame.encode().into());
        }
        while !frames.is_empty() || !undelivered.is_empty() {
            tokio::select! {
                event = from.next() => {
                    let Event::Delivered(number) = event else { panic!("{event:?}") };
                    assert!(undelivered.remove(&number), "{number} twice");
                }
                event = to.next() => {
                    let Event::Frame(frame, len) = event else { panic!("{event:?}") };
                    assert_eq!(frame.encode().len(), len);
                    frames.remove(frames.iter().position(|f| *f == frame).expect("each arrives once"));
                }
            }
        }
        assert_eq!(from.outstanding_bytes, 0);
    }

    #[tokio::test]
    async fn a_frame_that_the_connection_took_with_it_is_not_reported_as_delivered() {
        let Pair { _plugs, mut from, mut to } = pair().await;
        from.send(1, Lane::Control, skip(1).encode().into());
        assert!(to.close(CloseCode::Denied, "not today").is_empty());
        let event = from.next().await;
        assert!(matches!(&event, Event::Closed(Gone::Denied(text)) if text == "not today"), "{event:?}");
        // The frame's own future ends as well, and says nothing.
        while from.is_waiting() {
            tokio::select! {
                event = from.next() => panic!("{event:?}"),
                () = tokio::task::yield_now() => {}
            }
        }
    }

    /// quinn confirms what it has received, read or not.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_confirmed_is_read_whichever_side_closes() {
        for here in [true, false] {
            let Pair { _plugs, mut from, mut to } = pair().await;
            // What is no frame hides none.
            from.send(0, Lane::Control, Bytes::from_static(&[0xee, 1]));
            for n in 1..=200 {
                from.send(n, Lane::Class(Precedence::Routine), skip(1).encode().into());
            }
            for _ in 0..=200 {
                let event = from.next().await;
                assert!(matches!(event, Event::Delivered(_)), "{event:?}");
            }
            let mut read = 0;
            if here {
                read = to.close(CloseCode::Done, "paused").iter().filter(|e| matches!(e, Event::Frame(..))).count();
            } else {
                from.close(CloseCode::Done, "paused");
                while let event @ (Event::Frame(..) | Event::Unreadable(_)) = to.next().await {
                    read += usize::from(matches!(event, Event::Frame(..)));
                }
            }
            assert_eq!(read, 200, "closed here: {here}");
        }
    }

    /// A lone flash message is a frame of some 45 bytes, and wanted at 130 bytes on the network (docs/adr/0024).
    #[tokio::test]
    async fn a_lone_frame_costs_at_most_70_bytes_of_headers() {
        const IP_AND_UDP: u64 = 28;
        let Pair { _plugs, mut from, mut to } = pair().await;
        let ranges = (0..14u64).map(|k| 100 * k + 1).collect::<RangeSet>();
        let frame = Frame::Skip(Skip { epoch: Epoch(1), outcome: Outcome::Expired, ranges, after: Vec::new() });
        let mut costs = Vec::new();
        for number in 0..200 {
            let before = from.connection.stats().udp_tx;
            from.send(number, Lane::Class(Precedence::Flash), frame.encode().into());
            let (mut arrived, mut delivered) = (false, false);
            while !(arrived && delivered) {
                tokio::select! {
                    event = from.next() => delivered |= matches!(event, Event::Delivered(_)),
                    event = to.next() => arrived |= matches!(event, Event::Frame(..)),
                }
            }
            let after = from.connection.stats().udp_tx;
            let bytes = after.bytes - before.bytes + IP_AND_UDP * (after.datagrams - before.datagrams);
            costs.push(bytes - frame.encode().len() as u64);
        }
        // 58, and 68 where quinn acknowledges along with it. A few carry what QUIC says now and then: another connection id,
        // more streams, a probe for a larger path.
        costs.sort_unstable();
        assert!(costs[20] <= 60 && costs[150] <= 70, "{costs:?}");
    }

    #[tokio::test]
    async fn what_is_no_frame_is_reported() {
        let Pair { _plugs, mut from, mut to } = pair().await;
        from.send(1, Lane::Control, Bytes::from_static(&[0xee, 1]));
        let event = loop {
            tokio::select! {
                event = from.next() => assert!(matches!(event, Event::Delivered(1)), "{event:?}"),
                event = to.next() => break event,
            }
        };
        assert!(matches!(event, Event::Unreadable(_)), "{event:?}");
    }
}
