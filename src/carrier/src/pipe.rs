//! Frames over one connection.
//!
//! ```text
//!  stream 0, each direction   control frames, each with its length: in order, before everything else
//!  stream 1, 2, 3 ...         one frame each, with the priority of its class
//! ```
//!
//! A frame of a class has a unidirectional stream of its own: a lost packet delays the frames in it and no other, a more
//! urgent frame passes whatever waits, and the end of the stream being acknowledged says that the frame has left
//! quinn for good. Frames may overtake each other and are harmless when repeated, so nothing is lost by it. On the wire a
//! stream per frame costs no more than one long stream, whose offsets would take the bytes saved. Only what arrives
//! before the peer's greeting waits for it.
//!
//! quinn holds what was sent and not acknowledged. How much that may be is decided here, not by quinn's send window,
//! which would let bulk that waits for a repetition block a flash message.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use link::Lane;
use model::BitsPerSecond;
use quinn::{Connection, ConnectionError, RecvStream, SendStream};
use wire::WireError;
use wire::frame::{FRAME_BYTES_MAX, Frame, FrameBuffer};

use crate::quic::{self, SharedRate};

/// Frames being received at the same time that are read from quinn; its flow control bounds their bytes to 16 MiB.
const READING_MAX: usize = quic::STREAMS_MAX as usize;

/// What is read from the control stream at a time: most control frames are much smaller.
const CONTROL_READ_BYTES: usize = 4096;

/// Above every class.
const CONTROL_PRIORITY: i32 = 10;

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What happened on the connection.
#[derive(Debug)]
pub(crate) enum Event {
    /// A frame arrived whole.
    Frame(Frame),
    /// The peer's carrier has a frame of ours; that it is stored is for the peer's link to say.
    Delivered,
    /// The peer sent what is no frame.
    Unreadable(WireError),
    /// The connection is gone.
    Closed(ConnectionError),
}

/// A stream's content, or why it has none.
enum Read {
    Frame(Frame),
    /// More of the control stream.
    Control(Box<ControlReader>, Bytes),
    Unreadable(WireError),
    /// Cut off: the connection is going, or the peer gave the frame up.
    Nothing,
}

struct ControlReader {
    stream: RecvStream,
    frames: FrameBuffer,
}

/// Both directions of one connection.
pub(crate) struct Pipe {
    pub(crate) connection: Connection,
    rate: SharedRate,
    sending: FuturesUnordered<Boxed<u64>>,
    outstanding_bytes: u64,
    /// Control frames that wait for the stream.
    control: Vec<u8>,
    /// The stream while nothing is written to it, or the future that gives it back.
    control_stream: Result<SendStream, Boxed<Option<SendStream>>>,
    /// A control frame went out and no acknowledgement has arrived since.
    control_waits: bool,
    acks_seen: u64,
    accepting: Boxed<Result<RecvStream, ConnectionError>>,
    reading: FuturesUnordered<Boxed<Read>>,
    /// Is the peer's control stream there?
    control_accepted: bool,
    greeted: bool,
    /// Frames of classes that overtook the greeting.
    early: Vec<Frame>,
    /// Frames ready to be taken.
    ready: VecDeque<Frame>,
}

impl Pipe {
    pub(crate) fn new(connection: Connection, rate: SharedRate) -> Self {
        // At once, so that it is the first: the handshake brought the credit for it.
        let control_stream = match connection.open_uni().now_or_never() {
            Some(Ok(stream)) if stream.set_priority(CONTROL_PRIORITY).is_ok() => Ok(stream),
            // The connection is gone already, which `next` is about to report.
            _ => Err(Box::pin(std::future::pending()) as Boxed<_>),
        };
        Self {
            accepting: accept(&connection),
            connection,
            rate,
            sending: FuturesUnordered::new(),
            outstanding_bytes: 0,
            control: Vec::new(),
            control_stream,
            control_waits: false,
            acks_seen: 0,
            reading: FuturesUnordered::new(),
            control_accepted: false,
            greeted: false,
            early: Vec::new(),
            ready: VecDeque::new(),
        }
    }

    pub(crate) fn set_rate(&self, rate: BitsPerSecond) {
        self.rate.set(rate);
    }

    pub(crate) fn rate(&self) -> BitsPerSecond {
        self.rate.get()
    }

    /// Hands a frame to quinn; the first one goes over [`Lane::Control`]. Returns the bytes it takes of its stream.
    pub(crate) fn send(&mut self, lane: Lane, frame: &Frame) -> usize {
        let class = match lane {
            Lane::Control => {
                let before = self.control.len();
                frame.write_to(&mut self.control);
                let len = self.control.len() - before;
                self.control_waits = true;
                self.write_control();
                return len;
            }
            Lane::Class(class) => class,
        };
        let bytes = Bytes::from(frame.encode());
        let len = bytes.len() as u64;
        self.outstanding_bytes += len;
        let connection = self.connection.clone();
        // Flash 5 ... deferred 1.
        let priority = 5 - class.index() as i32;
        self.sending.push(Box::pin(async move {
            // An error means that the connection is gone, which `next` reports once, from the receiving side.
            let _ = send_alone(connection, bytes, priority).await;
            len
        }));
        len as usize
    }

    /// Gives the stream what waits for it, if it is free.
    fn write_control(&mut self) {
        if self.control.is_empty() || self.control_stream.is_err() {
            return;
        }
        let bytes = Bytes::from(std::mem::take(&mut self.control));
        let gone: Boxed<Option<SendStream>> = Box::pin(std::future::ready(None));
        if let Ok(mut stream) = std::mem::replace(&mut self.control_stream, Err(gone)) {
            self.control_stream = Err(Box::pin(async move {
                stream.write_chunk(bytes).await.ok()?;
                Some(stream)
            }));
        }
    }

    /// Bytes that quinn may take before its queue would stand in the way of what comes later.
    pub(crate) fn room(&self) -> u64 {
        quic::room(self.rate.get(), &self.connection.stats().path, self.outstanding_bytes, self.sending.len())
    }

    /// Is something on its way that the peer has not confirmed?
    pub(crate) fn is_waiting(&mut self) -> bool {
        let acks = self.connection.stats().frame_rx.acks;
        if acks != self.acks_seen {
            self.control_waits = !self.control.is_empty();
        }
        self.acks_seen = acks;
        !self.sending.is_empty() || self.control_waits
    }

    /// Datagrams received so far: any change is a sign of life.
    pub(crate) fn datagrams_received(&self) -> u64 {
        self.connection.stats().udp_rx.datagrams
    }

    pub(crate) fn round_trip(&self) -> Duration {
        self.connection.rtt()
    }

    /// The next thing that happened. Cancel-safe: what is under way stays in the pipe.
    pub(crate) async fn next(&mut self) -> Event {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Event::Frame(frame);
            }
            tokio::select! {
                biased;
                Some(read) = self.reading.next() => {
                    if let Some(error) = self.on_read(read) {
                        return Event::Unreadable(error);
                    }
                }
                Some(len) = self.sending.next() => {
                    self.outstanding_bytes -= len;
                    return Event::Delivered;
                }
                stream = control_done(&mut self.control_stream) => {
                    self.control_stream = stream.ok_or_else(|| Box::pin(std::future::pending()) as Boxed<_>);
                    self.write_control();
                }
                stream = &mut self.accepting, if self.reading.len() < READING_MAX => match stream {
                    Ok(stream) => self.on_stream(stream),
                    Err(gone) => {
                        self.accepting = Box::pin(std::future::pending());
                        return Event::Closed(gone);
                    }
                },
            }
        }
    }

    fn on_stream(&mut self, stream: RecvStream) {
        self.accepting = accept(&self.connection);
        // quinn hands streams out in the order in which they were opened.
        if self.control_accepted {
            self.reading.push(Box::pin(read_alone(stream)));
        } else {
            self.control_accepted = true;
            let reader = Box::new(ControlReader { stream, frames: FrameBuffer::default() });
            self.reading.push(Box::pin(read_control(reader)));
        }
    }

    fn on_read(&mut self, read: Read) -> Option<WireError> {
        match read {
            Read::Frame(frame) if self.greeted => self.ready.push_back(frame),
            // At most READING_MAX of them: no new stream is accepted meanwhile.
            Read::Frame(frame) if self.early.len() < READING_MAX => self.early.push(frame),
            Read::Frame(_) => return Some(WireError::Malformed("a connection without a greeting")),
            Read::Control(mut reader, bytes) => {
                reader.frames.push(&bytes);
                loop {
                    match reader.frames.next_frame() {
                        Ok(Some(frame)) => self.ready.push_back(frame),
                        Ok(None) => break,
                        Err(e) => return Some(e),
                    }
                }
                if !self.greeted && !self.ready.is_empty() {
                    self.greeted = true;
                    self.ready.extend(self.early.drain(..));
                }
                self.reading.push(Box::pin(read_control(reader)));
            }
            Read::Unreadable(e) => return Some(e),
            Read::Nothing => {}
        }
        None
    }
}

fn accept(connection: &Connection) -> Boxed<Result<RecvStream, ConnectionError>> {
    let connection = connection.clone();
    Box::pin(async move { connection.accept_uni().await })
}

async fn control_done(stream: &mut Result<SendStream, Boxed<Option<SendStream>>>) -> Option<SendStream> {
    match stream {
        Ok(_) => std::future::pending().await,
        Err(writing) => writing.await,
    }
}

async fn send_alone(connection: Connection, frame: Bytes, priority: i32) -> Option<()> {
    let mut stream = connection.open_uni().await.ok()?;
    stream.set_priority(priority).ok()?;
    stream.write_chunk(frame).await.ok()?;
    stream.finish().ok()?;
    // Resolves when everything, the end included, is acknowledged.
    let _ = stream.stopped().await;
    Some(())
}

async fn read_alone(mut stream: RecvStream) -> Read {
    match stream.read_to_end(FRAME_BYTES_MAX).await {
        Ok(bytes) => match Frame::decode(&bytes) {
            Ok(frame) => Read::Frame(frame),
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

async fn read_control(mut reader: Box<ControlReader>) -> Read {
    match reader.stream.read_chunk(CONTROL_READ_BYTES, true).await {
        Ok(Some(chunk)) => Read::Control(reader, chunk.bytes),
        Ok(None) | Err(_) => Read::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::endpoint::Plug;
    use crate::governor::{Governor, Lane as WireLane};
    use keys::NodeKey;
    use model::{Epoch, Outcome, Precedence, RangeSet};
    use std::sync::Arc;
    use wire::frame::Skip;

    const RATE: BitsPerSecond = BitsPerSecond(1_000_000);

    struct Pair {
        _plugs: [Plug; 2],
        from: Pipe,
        to: Pipe,
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
        let dialled = dialled.unwrap();
        let (from, to) = (Pipe::new(dialled.connection, dialled.rate), Pipe::new(accepted.connection, accepted.rate));
        Pair { _plugs: [edge, hub], from, to }
    }

    fn skip(n: u64) -> Frame {
        let ranges = (0..200 * n).map(|k| n * 1_000_000 + 2 * k + 1).collect::<RangeSet>();
        Frame::Skip(Skip { epoch: Epoch(1), outcome: Outcome::Expired, ranges })
    }

    #[tokio::test]
    async fn frames_of_any_class_arrive_whole_and_the_control_frames_among_them_in_order() {
        let Pair { _plugs, mut from, mut to } = pair().await;
        let mut frames: Vec<Frame> = (1..30).map(skip).collect();
        for (n, frame) in frames.iter().enumerate() {
            match n % 3 {
                0 => from.send(Lane::Control, frame),
                n => from.send(Lane::Class(Precedence::ALL[n]), frame),
            };
        }
        let mut arrived = Vec::new();
        while arrived.len() < frames.len() || !from.sending.is_empty() {
            tokio::select! {
                event = from.next() => assert!(matches!(event, Event::Delivered), "{event:?}"),
                event = to.next() => {
                    let Event::Frame(frame) = event else { panic!("{event:?}") };
                    arrived.push(frame);
                }
            }
        }
        let control: Vec<&Frame> =
            arrived.iter().filter(|f| frames.iter().position(|g| g == *f).unwrap() % 3 == 0).collect();
        assert!(control.iter().zip(frames.iter().step_by(3)).all(|(a, b)| *a == b));
        assert_eq!(arrived[0], frames[0], "nothing comes before the first control frame");
        for frame in arrived {
            frames.retain(|f| *f != frame);
        }
        assert!(frames.is_empty());
        assert_eq!(from.outstanding_bytes, 0);
    }

    #[tokio::test]
    async fn what_is_no_frame_is_reported() {
        let Pair { _plugs, mut from, mut to } = pair().await;
        from.control.extend_from_slice(&[1, 0xee]);
        from.write_control();
        let event = loop {
            tokio::select! {
                event = from.next() => assert!(matches!(event, Event::Delivered), "{event:?}"),
                event = to.next() => break event,
            }
        };
        assert!(matches!(event, Event::Unreadable(_)), "{event:?}");
    }
}
