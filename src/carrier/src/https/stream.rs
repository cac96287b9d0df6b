//! Frames over a byte stream that keeps order: the HTTPS lane.
//!
//! ```text
//!  { length, 3 bytes | frame }        every 16 frames, or when one has waited as long as on QUIC: Got(frames that arrived)
//! ```
//!
//! A byte stream cannot be overtaken, so little is handed to it at a time: what waits stays here, ordered by class, and one
//! frame after another goes down when the kernel has next to nothing left to send. The peer's [`Frame::Got`] says which
//! frames it has; without it a frame would count as delivered when it lies in a kernel's buffer of a dead connection.
//!
//! From the same counts [`shaper::rate`] finds what the link carries, as on QUIC: else the buffers of proxies would fill, where
//! nothing passes anything.

use std::collections::{BTreeMap, VecDeque};
use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use link::Lane as Class;
use model::BitsPerSecond;
use shaper::rate::{self, Controller};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep_until};
use wire::WireError;
use wire::frame::{FRAME_BYTES_MAX, Frame, Shut, TEXT_BYTES_MAX};

use crate::clock;
use crate::governor::{Lane, SLACK};
use crate::https::meter::{Meter, SEGMENT_HEADER};
use crate::pipe::{CloseCode, Event, FrameNumber, Gone};
use crate::quic::{self, FULL_DATAGRAM, SharedRate};

/// Frames that an acknowledgement waits for at most.
const ACK_FRAMES: u64 = 16;

/// Bytes read at a time.
const READ_BYTES: usize = 16 << 10;

/// Frames handed over and not acknowledged. A frame is a slice, a kilobyte or so: 4,096 are 32 s at 1 Mbit/s.
const UNACKNOWLEDGED_MAX: usize = 4_096;

/// What a frame costs beside its bytes: its length, two TLS records, a WebSocket header with its mask, and the headers of a
/// segment.
pub(crate) const FRAME_HEADERS: u64 = 3 + 2 * 22 + 8 + SEGMENT_HEADER;

/// The datagram that would carry as much of a frame as one segment of 1,400 bytes does: 55 go to its headers here, 36 to QUIC's.
pub(crate) const LIKE_MTU: u16 = 1_400 - 55 + 36;

/// Taken for the round trip until it is measured: over a geostationary satellite.
const ROUND_TRIP_ASSUMED: Duration = Duration::from_millis(600);

/// What carries the bytes.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

struct Unacknowledged {
    number: FrameNumber,
    len: u64,
    written: Instant,
}

/// Both directions of one connection.
pub(crate) struct StreamPipe {
    stream: Box<dyn Stream>,
    meter: Arc<Meter>,
    rate: SharedRate,
    controller: Controller,
    /// Zero of the controller's time.
    base: Instant,
    /// What waits, by urgency and age.
    waiting: BTreeMap<(usize, FrameNumber), Bytes>,
    /// What is being written.
    out: BytesMut,
    flushing: bool,
    unacknowledged: VecDeque<Unacknowledged>,
    /// Bytes of what waits and of what is unacknowledged, and of the latter alone.
    outstanding_bytes: u64,
    in_flight_bytes: u64,
    delivered: VecDeque<FrameNumber>,
    input: BytesMut,
    /// Frames of ours that the peer has counted.
    counted: u64,
    /// Frames of the peer that have arrived, and how many of them it was told of.
    received: u64,
    told: u64,
    ack_at: Option<Pin<Box<Sleep>>>,
    reads: u64,
    /// Smoothed as in RFC 6298.
    round_trip: Option<Duration>,
    /// Why nothing can be written; the peer may have said more about it.
    broken: Option<String>,
    closed: bool,
}

impl StreamPipe {
    pub(crate) fn new(stream: Box<dyn Stream>, meter: Arc<Meter>, ceiling: BitsPerSecond) -> Self {
        let ack_delay = quic::ack_delay(ceiling);
        let settings = rate::Settings { ceiling, datagram: FULL_DATAGRAM, ack_delay, burst: SLACK };
        Self {
            stream,
            meter,
            rate: SharedRate::new(ceiling),
            controller: Controller::new(settings),
            base: clock::now(),
            waiting: BTreeMap::new(),
            out: BytesMut::new(),
            flushing: false,
            unacknowledged: VecDeque::new(),
            outstanding_bytes: 0,
            in_flight_bytes: 0,
            delivered: VecDeque::new(),
            input: BytesMut::new(),
            counted: 0,
            received: 0,
            told: 0,
            ack_at: None,
            reads: 0,
            round_trip: None,
            broken: None,
            closed: false,
        }
    }

    pub(crate) fn set_rate(&mut self, ceiling: BitsPerSecond) {
        self.rate.set_ceiling(ceiling);
        self.controller.set_ceiling(ceiling);
    }

    /// What the link is found to carry.
    pub(crate) fn rate(&self) -> BitsPerSecond {
        self.rate.pace()
    }

    /// What leaves is this link's from here on, which is slowed down to what it is found to carry.
    pub(crate) fn charge_to(&self, lane: &Arc<Lane>) {
        self.meter.charge_to(lane);
        lane.follow(&self.rate);
    }

    pub(crate) fn send(&mut self, number: FrameNumber, lane: Class, frame: Bytes) {
        let len = frame.len() as u64;
        let urgency = match lane {
            Class::Control => 0,
            Class::Class(class) => 1 + class.index(),
        };
        // What waits already is not doubled: it comes in order, and once.
        if self.waiting.insert((urgency, number), frame).is_none() {
            self.outstanding_bytes += len;
        }
    }

    pub(crate) fn room(&self) -> u64 {
        let frames = self.waiting.len() + self.unacknowledged.len();
        if frames >= UNACKNOWLEDGED_MAX {
            return 0;
        }
        let window = self.controller.window();
        let window = window.unwrap_or_else(|| quic::window_bytes(self.rate.ceiling(), ROUND_TRIP_ASSUMED));
        window.saturating_sub(self.outstanding_bytes + FRAME_HEADERS * frames as u64)
    }

    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty() || !self.unacknowledged.is_empty()
    }

    pub(crate) fn signs_of_life(&self) -> u64 {
        self.reads
    }

    pub(crate) fn round_trip(&self) -> Duration {
        self.round_trip.unwrap_or(ROUND_TRIP_ASSUMED)
    }

    /// Says why, as far as the kernel takes it at once, and ends the connection.
    pub(crate) fn close(&mut self, code: CloseCode, text: &str) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        // In the middle of a frame nothing else can be said.
        if self.out.is_empty() {
            self.say_goodbye(code, text);
            let mut cx = Context::from_waker(Waker::noop());
            // Done or not, the stream is dropped next.
            let _ = self.poll_write(&mut cx);
            let _ = Pin::new(&mut self.stream).poll_shutdown(&mut cx);
        }
    }

    /// Says why, and takes the time that it needs to arrive. Dropping it cuts the connection.
    pub(crate) async fn refuse(mut self, text: &str) -> io::Result<()> {
        poll_fn(|cx| self.poll_write(cx)).await?;
        self.say_goodbye(CloseCode::Denied, text);
        poll_fn(|cx| self.poll_write(cx)).await?;
        // Whoever closes while bytes of the other side are unread cuts off what it has said itself.
        let mut ignored = [0u8; 512];
        while self.stream.read(&mut ignored).await? > 0 {}
        Ok(())
    }

    fn say_goodbye(&mut self, code: CloseCode, text: &str) {
        let text = text[..text.floor_char_boundary(TEXT_BYTES_MAX)].to_owned();
        self.waiting.clear();
        put(&mut self.out, &Frame::Shut(Shut { code: code as u8, text }).encode());
    }

    /// The next thing that happened. Cancel-safe: everything is in the pipe.
    pub(crate) async fn next(&mut self) -> Event {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if self.closed {
            return Poll::Pending;
        }
        loop {
            if let Some(number) = self.delivered.pop_front() {
                return Poll::Ready(Event::Delivered(number));
            }
            // Before the next frame is taken, since what comes in may never end.
            self.write_what_can_be(cx);
            match self.take_frame() {
                Ok(Some(event)) => return Poll::Ready(event),
                Ok(None) => {}
                Err(e) => return Poll::Ready(Event::Unreadable(e)),
            }
            if !self.delivered.is_empty() {
                continue;
            }
            let mut chunk = [0u8; READ_BYTES];
            let mut read = ReadBuf::new(&mut chunk);
            match Pin::new(&mut self.stream).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) if read.filled().is_empty() => return self.gone("the peer closed the connection"),
                Poll::Ready(Ok(())) => {
                    self.reads += 1;
                    self.input.extend_from_slice(read.filled());
                }
                Poll::Ready(Err(e)) => return self.gone(&e.to_string()),
                Poll::Pending => {
                    return match self.broken.take() {
                        Some(why) => self.gone(&why),
                        None => Poll::Pending,
                    };
                }
            }
        }
    }

    fn write_what_can_be(&mut self, cx: &mut Context<'_>) {
        while self.broken.is_none() {
            let blocked = self.acknowledge(cx);
            match self.poll_write(cx) {
                Poll::Ready(Ok(())) if blocked => {}
                Poll::Ready(Ok(())) | Poll::Pending => return,
                Poll::Ready(Err(e)) => self.broken = Some(e.to_string()),
            }
        }
    }

    fn gone(&mut self, why: &str) -> Poll<Event> {
        self.closed = true;
        Poll::Ready(Event::Closed(Gone::Lost(why.to_owned())))
    }

    fn take_frame(&mut self) -> Result<Option<Event>, WireError> {
        loop {
            let Some((head, rest)) = self.input.split_at_checked(3) else { return Ok(None) };
            let len = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            if len > FRAME_BYTES_MAX {
                return Err(WireError::TooLarge { what: "a frame", found: len as u64, max: FRAME_BYTES_MAX as u64 });
            }
            if rest.len() < len {
                return Ok(None);
            }
            let frame = Frame::decode(&rest[..len])?;
            self.input.advance(3 + len);
            if let Frame::Got(count) = frame {
                self.got(count)?;
                if self.delivered.is_empty() {
                    continue;
                }
                return Ok(None);
            }
            if let Frame::Shut(Shut { code, text }) = frame {
                self.closed = true;
                let denied = code == CloseCode::Denied as u8;
                return Ok(Some(Event::Closed(if denied { Gone::Denied(text) } else { Gone::Lost(text) })));
            }
            self.received += 1;
            return Ok(Some(Event::Frame(frame, len)));
        }
    }

    /// The peer has this many frames of ours.
    fn got(&mut self, count: u64) -> Result<(), WireError> {
        let now = clock::now();
        let new = count.checked_sub(self.counted).filter(|new| *new <= self.unacknowledged.len() as u64);
        let Some(new) = new else { return Err(WireError::Malformed("a count of frames that were never sent")) };
        let since_base = now.saturating_duration_since(self.base);
        for at in 0..new {
            let Some(frame) = self.unacknowledged.pop_front() else { break };
            self.outstanding_bytes -= frame.len;
            self.in_flight_bytes -= frame.len;
            self.delivered.push_back(frame.number);
            let after = now.saturating_duration_since(frame.written);
            self.controller.acknowledged(since_base, frame.len + FRAME_HEADERS, after);
            if at + 1 == new {
                // The newest waited least for its acknowledgement.
                self.round_trip = Some(self.round_trip.map_or(after, |smooth| (smooth * 7 + after) / 8));
            }
        }
        if new > 0 {
            self.controller.settled(since_base, self.in_flight_bytes);
            self.rate.set_pace(self.controller.rate());
        }
        self.counted += new;
        Ok(())
    }

    /// Says what has arrived, when enough has or the time has come. True when that has to wait for the end of a frame.
    fn acknowledge(&mut self, cx: &mut Context<'_>) -> bool {
        if self.told == self.received {
            return false;
        }
        let delay = quic::ack_delay(self.rate.ceiling());
        let timer = self.ack_at.get_or_insert_with(|| Box::pin(sleep_until((clock::now() + delay).into())));
        let due = timer.as_mut().poll(cx).is_ready() || self.received - self.told >= ACK_FRAMES;
        if !due || !self.out.is_empty() {
            return due;
        }
        put(&mut self.out, &Frame::Got(self.received).encode());
        self.told = self.received;
        self.ack_at = None;
        false
    }

    /// Writes what waits, the most urgent first, until the stream takes no more.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.out.is_empty() && !self.flushing {
                let Some(((_, number), frame)) = self.waiting.pop_first() else { return Poll::Ready(Ok(())) };
                let (len, written) = (frame.len() as u64, clock::now());
                put(&mut self.out, &frame);
                self.in_flight_bytes += len;
                self.controller.sent(len + FRAME_HEADERS);
                self.unacknowledged.push_back(Unacknowledged { number, len, written });
            }
            while !self.out.is_empty() {
                let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.out))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.out.advance(written);
                self.flushing = true;
            }
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.flushing = false;
        }
    }
}

/// A frame as it stands in the stream.
fn put(out: &mut BytesMut, frame: &[u8]) {
    assert!(frame.len() <= FRAME_BYTES_MAX, "the session makes no larger frames");
    out.extend_from_slice(&(frame.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(frame);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::governor::Governor;
    use model::{Epoch, Outcome, Precedence, RangeSet};
    use proptest::prelude::*;
    use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::time::timeout;
    use wire::frame::Skip;

    const RATE: BitsPerSecond = BitsPerSecond(10_000_000);

    /// A pipe over a stream that takes `buffer` bytes before it blocks, and the other end of that stream.
    fn pipe(buffer: usize) -> (StreamPipe, DuplexStream) {
        let (near, far) = duplex(buffer);
        (over(near), far)
    }

    fn over(stream: DuplexStream) -> StreamPipe {
        let lane = Arc::new(Lane::new(RATE, clock::now()));
        let meter = Meter::new(Arc::new(Governor::new(true, RATE)), lane);
        StreamPipe::new(Box::new(stream), meter, RATE)
    }

    fn both(buffer: usize) -> (StreamPipe, StreamPipe) {
        let (near, far) = duplex(buffer);
        (over(near), over(far))
    }

    /// About a kilobyte.
    fn frame(n: u32) -> Bytes {
        let ranges: RangeSet = (1..500).map(|n| 2 * n).collect();
        let skip = Skip { epoch: Epoch(n), outcome: Outcome::Expired, ranges, after: Vec::new() };
        Frame::Skip(skip).encode().into()
    }

    fn number_of(frame: &Frame) -> u32 {
        let Frame::Skip(skip) = frame else { panic!("{frame:?}") };
        skip.epoch.0
    }

    impl Event {
        fn is_frame(&self) -> bool {
            matches!(self, Self::Frame(..))
        }
    }

    const BULK: Class = Class::Class(Precedence::Deferred);
    const FLASH: Class = Class::Class(Precedence::Flash);

    /// Drives the pipe until it has nothing to do.
    async fn drive(pipe: &mut StreamPipe) {
        tokio::select! {
            biased;
            event = pipe.next() => panic!("{event:?}"),
            () = tokio::task::yield_now() => {}
        }
    }

    #[tokio::test]
    async fn flash_passes_all_the_bulk_that_the_stream_has_not_taken() {
        let (mut from, mut to) = both(4 << 10);
        for n in 1..=200 {
            from.send(u64::from(n), BULK, frame(n));
        }
        drive(&mut from).await;
        from.send(1_000, FLASH, frame(1_000));
        from.send(1_001, Class::Control, frame(1_001));
        let mut order = Vec::new();
        while order.len() < 202 {
            tokio::select! {
                event = from.next() => assert!(matches!(event, Event::Delivered(_)), "{event:?}"),
                event = to.next() => {
                    let Event::Frame(frame, _) = event else { panic!("{event:?}") };
                    order.push(number_of(&frame));
                }
            }
        }
        // Four kilobytes were gone, and of one frame a part.
        let place = |n| order.iter().position(|other| *other == n).unwrap();
        assert!(place(1_001) <= 5 && place(1_000) <= 6, "{:?}", &order[..10]);
        order.retain(|n| *n <= 200);
        assert!(order.is_sorted(), "within a class the order stays");
    }

    #[tokio::test]
    async fn a_frame_is_delivered_when_the_peer_counts_it_and_not_when_the_stream_takes_it() {
        let (mut from, to) = pipe(1 << 20);
        from.send(1, BULK, frame(1));
        from.send(2, BULK, frame(2));
        assert!(timeout(Duration::from_millis(300), from.next()).await.is_err(), "nobody has counted anything");
        assert!(from.is_waiting() && from.room() > 0);
        let mut to = over(to);
        for n in 1..=2 {
            let event = to.next().await;
            assert!(matches!(&event, Event::Frame(frame, _) if number_of(frame) == n), "{event:?}");
        }
        for n in 1..=2 {
            let event = tokio::select! { event = from.next() => event, event = to.next() => panic!("{event:?}") };
            assert!(matches!(event, Event::Delivered(number) if number == n), "{event:?}");
        }
        assert!(!from.is_waiting());
        assert_eq!((from.outstanding_bytes, from.in_flight_bytes), (0, 0));
    }

    #[tokio::test]
    async fn what_is_handed_over_again_while_it_waits_counts_once() {
        let (mut from, mut to) = both(1 << 20);
        for _ in 0..3 {
            from.send(1, FLASH, frame(1));
        }
        let event = tokio::select! { event = from.next() => event, () = async { while to.next().await.is_frame() {} } => panic!() };
        assert!(matches!(event, Event::Delivered(1)), "{event:?}");
        assert_eq!((from.outstanding_bytes, from.is_waiting()), (0, false));
    }

    #[tokio::test]
    async fn one_count_answers_sixteen_frames_or_a_short_wait_while_more_comes_in() {
        let (mut pipe, mut peer) = pipe(1 << 20);
        let mut bytes = BytesMut::new();
        (1..=40).for_each(|n| put(&mut bytes, &frame(n)));
        peer.write_all(&bytes).await.unwrap();
        for n in 1..=40 {
            let event = pipe.next().await;
            assert!(matches!(&event, Event::Frame(frame, _) if number_of(frame) == n), "{event:?}");
        }
        assert!(timeout(Duration::from_millis(300), pipe.next()).await.is_err());
        drop(pipe);
        let mut answer = Vec::new();
        peer.read_to_end(&mut answer).await.unwrap();
        let mut expected = BytesMut::new();
        [16, 32, 40].into_iter().for_each(|count| put(&mut expected, &Frame::Got(count).encode()));
        assert_eq!(answer, expected);
    }

    #[tokio::test]
    async fn the_reason_is_heard_though_nothing_can_be_written_any_more() {
        let (mut from, mut to) = both(64 << 10);
        to.close(CloseCode::Denied, "go away");
        drop(to);
        from.send(1, BULK, frame(1));
        let event = from.next().await;
        assert!(matches!(&event, Event::Closed(Gone::Denied(text)) if text == "go away"), "{event:?}");
    }

    #[tokio::test]
    async fn what_is_in_flight_and_waits_is_bounded_by_the_room() {
        let (mut from, _to) = pipe(4 << 10);
        let mut sent = 0;
        while from.room() > 0 {
            sent += 1;
            from.send(sent, BULK, frame(1));
        }
        let bound = quic::window_bytes(RATE, ROUND_TRIP_ASSUMED);
        assert!(from.outstanding_bytes <= bound + 2_000, "{} of {bound}", from.outstanding_bytes);
    }

    /// What a hostile peer sends, and what comes of it.
    async fn told(bytes: &[u8]) -> Event {
        let (mut pipe, mut peer) = pipe(1 << 20);
        peer.write_all(bytes).await.unwrap();
        pipe.next().await
    }

    #[tokio::test]
    async fn a_frame_that_is_too_long_is_refused_before_it_is_read() {
        let mut head = vec![0; 3];
        head[0] = 0xff;
        let event = told(&head).await;
        assert!(matches!(event, Event::Unreadable(WireError::TooLarge { found: 0xff_0000, .. })), "{event:?}");
    }

    #[tokio::test]
    async fn a_count_of_frames_that_were_never_sent_is_refused() {
        let mut bytes = BytesMut::new();
        put(&mut bytes, &Frame::Got(1).encode());
        let event = told(&bytes).await;
        assert!(matches!(event, Event::Unreadable(WireError::Malformed(_))), "{event:?}");
    }

    #[tokio::test]
    async fn a_count_that_goes_back_is_refused() {
        let (mut pipe, mut peer) = pipe(1 << 20);
        pipe.send(1, BULK, frame(1));
        drive(&mut pipe).await;
        let mut bytes = BytesMut::new();
        put(&mut bytes, &Frame::Got(1).encode());
        put(&mut bytes, &Frame::Got(0).encode());
        peer.write_all(&bytes).await.unwrap();
        let events = [pipe.next().await, pipe.next().await];
        assert!(matches!(events, [Event::Delivered(1), Event::Unreadable(_)]), "{events:?}");
    }

    #[tokio::test]
    async fn a_farewell_names_its_reason_and_an_end_without_one_is_a_loss() {
        let mut bytes = BytesMut::new();
        put(&mut bytes, &Frame::Shut(Shut { code: CloseCode::Denied as u8, text: "not today".to_owned() }).encode());
        let event = told(&bytes).await;
        assert!(matches!(&event, Event::Closed(Gone::Denied(text)) if text == "not today"), "{event:?}");
        let (mut pipe, peer) = pipe(64);
        drop(peer);
        let event = pipe.next().await;
        assert!(matches!(event, Event::Closed(Gone::Lost(_))), "{event:?}");
    }

    #[tokio::test]
    async fn a_closed_pipe_says_why_even_behind_bulk() {
        let (mut from, to) = pipe(1 << 20);
        (1..=20).for_each(|n| from.send(u64::from(n), BULK, frame(n)));
        from.close(CloseCode::Denied, "gone fishing");
        drop(from);
        let mut to = over(to);
        let event = to.next().await;
        assert!(matches!(&event, Event::Closed(Gone::Denied(text)) if text == "gone fishing"), "{event:?}");
    }

    proptest! {
        #[test]
        fn no_bytes_of_a_peer_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 1usize..40) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(async {
                let (mut pipe, mut peer) = pipe(1 << 20);
                for piece in bytes.chunks(cut) {
                    peer.write_all(piece).await.unwrap();
                }
                drop(peer);
                loop {
                    match pipe.next().await {
                        Event::Frame(..) | Event::Delivered(_) => {}
                        Event::Unreadable(_) | Event::Closed(_) => return,
                    }
                }
            });
        }
    }
}
