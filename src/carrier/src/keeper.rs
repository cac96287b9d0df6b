//! Keeps the connection with one peer: dials or takes what comes in, notices a dead link, obeys emission control.
//!
//! ```text
//!            emission closed                    emission closed
//!   Silent <----------------- Down/Connecting <----------------- Up
//!      `------- opened -------->  ^     | dialled or accepted     ^
//!                                 |     `------------------------'
//!                                 `-- closed, dead, refused: back-off with jitter, for ever
//! ```

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use keys::{Peer, PeerRole};
use model::{BitsPerSecond, Clock, UnixMillis};
use quinn::ConnectionError;
use telemetry::Metrics;
use tokio::sync::{mpsc, watch};
use tokio::task::block_in_place;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::clock::{self, jitter};
use crate::endpoint::{DialError, Plug, Proven, code};
use crate::governor::{Lane, time_on_link};
use crate::pipe::{Event, Pipe};
use crate::quic::FULL_DATAGRAM;
use crate::talk::{Refusal, Talk};
use crate::{Emission, PeerState};

/// What is said to a node that is not, or no longer, in the registry.
pub(crate) const NOT_ENROLLED: &str = "this node is not enrolled here; run `holdfast enroll`";

/// Frames handed to quinn before other events get their turn.
const FRAMES_PER_TURN: usize = 64;

/// What a keeper works with.
pub(crate) struct Post<T> {
    pub(crate) plug: Arc<Plug>,
    pub(crate) peer: Peer,
    /// Where to dial it; `None` for a peer that dials.
    pub(crate) address: Option<String>,
    pub(crate) lane: Arc<Lane>,
    pub(crate) view: Arc<Mutex<View>>,
    pub(crate) talk: T,
    /// Connections the peer made.
    pub(crate) accepted: mpsc::Receiver<Proven>,
    pub(crate) emission: watch::Receiver<Emission>,
    pub(crate) rate: watch::Receiver<BitsPerSecond>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
    /// Zero of the conversation's time.
    pub(crate) start: Instant,
}

/// What the operator sees.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) state: PeerState,
    pub(crate) round_trip: Option<Duration>,
    pub(crate) last_heard: Option<UnixMillis>,
}

struct Live {
    pipe: Pipe,
    dialled: bool,
    datagrams: u64,
    /// When the last datagram was noticed, or when something began to wait for an answer, if that was later.
    silent_since: Instant,
    was_waiting: bool,
    /// Taken for dead; the peer is the one to dial, or to speak again.
    presumed_dead: bool,
}

type Dialling = Pin<Box<dyn Future<Output = Result<Proven, DialError>> + Send>>;

pub(crate) struct Keeper<T> {
    post: Post<T>,
    live: Option<Live>,
    /// Where the present or last connection went: the lane is known there until the next one.
    address: Option<SocketAddr>,
    dialling: Option<Dialling>,
    dial_at: Option<Instant>,
    backoff: Backoff,
    /// More frames can be sent at once than one turn sends.
    more: bool,
    /// When the peer was connected last; the start counts, since the node may have been restarted in between.
    connected_last: Instant,
    down_since: Option<UnixMillis>,
    last: String,
}

impl<T: Talk> Keeper<T> {
    pub(crate) fn new(post: Post<T>) -> Self {
        let now = clock::now();
        Self {
            live: None,
            address: None,
            dialling: None,
            dial_at: post.address.is_some().then_some(now),
            backoff: Backoff::default(),
            more: false,
            connected_last: now,
            down_since: None,
            last: String::new(),
            post,
        }
    }

    /// Keeps the connection until `stop`; then closes it with `farewell`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        self.show_state();
        loop {
            self.work();
            let live_deadline = self.live.as_ref().map(Live::dead_at);
            let talk_deadline = self.post.talk.deadline().map(|d| self.post.start + d);
            let at_once = self.more.then(clock::now);
            let wake = [live_deadline, talk_deadline, self.dial_at, at_once].into_iter().flatten().min();
            tokio::select! {
                biased;
                () = stop.cancelled() => return self.farewell(),
                Ok(()) = self.post.emission.changed() => self.on_emission(),
                Ok(()) = self.post.rate.changed() => self.on_rate(),
                Some(proven) = self.post.accepted.recv() => self.on_connected(proven, false),
                result = maybe(&mut self.dialling) => self.on_dialled(result),
                event = next_event(&mut self.live) => self.on_event(event),
                () = self.post.talk.wait() => {}
                () = until(wake) => self.on_timer(),
            }
        }
    }

    /// Lets the conversation use the connection.
    fn work(&mut self) {
        let talk = &mut self.post.talk;
        let (live, now) = (&mut self.live, clock::now() - self.post.start);
        if live.is_none() && !talk.needs_settling(now) {
            return;
        }
        // Both may touch the disk; the other tasks of this thread move on meanwhile.
        let outcome = block_in_place(|| {
            talk.settle(now)?;
            let Some(live) = live else { return Ok(false) };
            for _ in 0..FRAMES_PER_TURN {
                let Some((lane, frame)) = talk.next_frame(now, live.pipe.room())? else { return Ok(false) };
                talk.sent(lane, live.pipe.send(lane, &frame));
            }
            Ok(true)
        });
        match outcome {
            Ok(more) => self.more = more,
            Err(refusal) => return self.refuse(&refusal),
        }
        let Some(live) = &mut self.live else { return };
        if live.note(clock::now()) {
            let mut view = self.post.view();
            view.last_heard = Some(self.post.clock.now());
            view.round_trip = Some(live.pipe.round_trip());
            if std::mem::take(&mut live.presumed_dead) {
                view.state = PeerState::Up { since: self.post.clock.now() };
            }
        }
        // The peer may have moved, or a middlebox given it another port: its rate goes with it.
        let address = live.pipe.connection.remote_address();
        self.follow(address);
    }

    /// Charges what goes to `address` to this peer, and to it alone.
    fn follow(&mut self, address: SocketAddr) {
        if self.address == Some(address) {
            return;
        }
        let governor = &self.post.plug.governor;
        governor.assign(address, &self.post.lane);
        if let Some(former) = self.address.replace(address) {
            governor.release(former, &self.post.lane);
        }
    }

    fn may_emit(&self) -> bool {
        self.post.emission.borrow().may_emit()
    }

    fn on_emission(&mut self) {
        self.backoff.reset();
        if self.may_emit() {
            self.dial_at = self.post.address.is_some().then(clock::now);
        } else {
            self.dialling = None;
            self.dial_at = None;
            self.drop_live(code::DONE, "");
        }
        self.show_state();
    }

    fn on_rate(&mut self) {
        let rate = *self.post.rate.borrow_and_update();
        self.post.lane.set_rate(rate);
        self.post.talk.set_rate(rate, clock::now() - self.post.start);
        if let Some(live) = &self.live {
            live.pipe.set_rate(rate);
        } else if self.dialling.is_none() && self.dial_at.is_some() {
            self.backoff.reset();
            self.dial_at = Some(clock::now());
        }
    }

    fn on_connected(&mut self, proven: Proven, dialled: bool) {
        if !self.may_emit() {
            return;
        }
        self.dialling = None;
        self.dial_at = None;
        // The newer one is alive; whether the older one is, nobody knows.
        self.drop_live(code::REPLACED, "a newer connection of this node replaces this one");
        let now = clock::now();
        self.follow(proven.connection.remote_address());
        proven.rate.set(self.post.lane.rate());
        let pipe = Pipe::new(proven.connection, proven.rate);
        let datagrams = pipe.datagrams_received();
        self.live =
            Some(Live { pipe, dialled, datagrams, silent_since: now, was_waiting: false, presumed_dead: false });
        self.connected_last = now;
        self.backoff.reset();
        let talk = &mut self.post.talk;
        let start = block_in_place(|| talk.connected(now - self.post.start));
        let name = telemetry::PeerName::new(self.post.peer.name.as_str());
        self.post.metrics.link_reconnects_total.inc((name,));
        tracing::info!(peer = %self.post.peer.name, "link up");
        let since = self.post.clock.now();
        let mut view = self.post.view();
        view.state = PeerState::Up { since };
        view.last_heard = Some(since);
        drop(view);
        if let Err(refusal) = start {
            self.refuse(&refusal);
        }
    }

    fn on_dialled(&mut self, result: Result<Proven, DialError>) {
        self.dialling = None;
        match result {
            Ok(proven) => self.on_connected(proven, true),
            Err(e) => {
                self.last = e.to_string();
                tracing::debug!(peer = %self.post.peer.name, reason = %e, "dialling failed");
                match e {
                    DialError::OtherNode(_) => {
                        let text = format!("{e}; check the address, or enroll anew if that node was replaced");
                        self.refused(text);
                    }
                    DialError::Lost(gone) => self.on_gone(&gone),
                    DialError::Resolve(_) | DialError::Local(..) | DialError::NoAnswer(_) => self.dial_later(),
                }
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Delivered => {}
            Event::Frame(frame) => {
                let (talk, now) = (&mut self.post.talk, clock::now() - self.post.start);
                if let Err(refusal) = block_in_place(|| talk.received(now, frame)) {
                    self.refuse(&refusal);
                }
            }
            Event::Unreadable(e) => self.refuse(&Refusal { text: format!("{e}; {}", e.next_step()), retry: true }),
            Event::Closed(gone) => {
                self.drop_live(code::DONE, "");
                self.on_gone(&gone);
            }
        }
    }

    fn on_timer(&mut self) {
        let now = clock::now();
        if self.dial_at.is_some_and(|at| at <= now) {
            self.dial_at = None;
            self.dial();
        }
        let dead = self.live.as_mut().is_some_and(|live| {
            live.note(now);
            live.dead_at() <= now
        });
        if dead {
            self.last = "the link went silent".to_owned();
            if self.live.as_ref().is_some_and(|live| live.dialled) {
                self.drop_live(code::DEAD, "nothing was heard; a new connection follows");
                self.dial_at = Some(now);
                self.show_state();
            } else if let Some(live) = &mut self.live {
                // The peer dials when it notices. Until then this connection may still come back to life.
                live.silent_since = now;
                if !std::mem::replace(&mut live.presumed_dead, true) {
                    let since = Some(self.post.clock.now());
                    self.post.view().state = PeerState::Down { since, last: self.last.clone() };
                }
            }
        }
    }

    fn dial(&mut self) {
        let Some(address) = self.post.address.clone() else { return };
        let (plug, lane, node) = (Arc::clone(&self.post.plug), Arc::clone(&self.post.lane), self.post.peer.node);
        self.dialling = Some(Box::pin(async move { plug.dial(node, &address, &lane, true).await }));
        self.show_state();
    }

    fn dial_later(&mut self) {
        if self.post.address.is_some() && self.may_emit() {
            let now = clock::now();
            let wait = self.backoff.next(now.duration_since(self.connected_last), jitter);
            self.dial_at = Some(now + wait);
        }
        self.show_state();
    }

    /// The connection ended, or did not come about.
    fn on_gone(&mut self, gone: &ConnectionError) {
        match gone {
            ConnectionError::ApplicationClosed(close) if close.error_code == code::DENIED => {
                self.refused(String::from_utf8_lossy(&close.reason).into_owned());
            }
            ConnectionError::ApplicationClosed(close) if !close.reason.is_empty() => {
                self.last = String::from_utf8_lossy(&close.reason).into_owned();
                self.dial_later();
            }
            ConnectionError::ApplicationClosed(_)
            | ConnectionError::VersionMismatch
            | ConnectionError::TransportError(_)
            | ConnectionError::ConnectionClosed(_)
            | ConnectionError::Reset
            | ConnectionError::TimedOut
            | ConnectionError::LocallyClosed
            | ConnectionError::CidsExhausted => {
                self.last = gone.to_string();
                self.dial_later();
            }
        }
    }

    /// The other side does not want us: asked again from time to time, since its operator may change that.
    fn refused(&mut self, text: String) {
        tracing::warn!(peer = %self.post.peer.name, reason = %text, "the link is refused");
        self.dial_at = self.post.address.is_some().then(|| clock::now() + self.backoff.refused(jitter));
        self.post.view().state = PeerState::Denied { text };
    }

    /// We do not want the other side.
    fn refuse(&mut self, refusal: &Refusal) {
        let close = if refusal.retry { code::PROTOCOL } else { code::DENIED };
        self.drop_live(close, &refusal.text);
        if refusal.retry {
            self.last.clone_from(&refusal.text);
            self.dial_later();
        } else {
            self.refused(refusal.text.clone());
        }
    }

    fn drop_live(&mut self, close: quinn::VarInt, text: &str) {
        let Some(live) = self.live.take() else { return };
        self.more = false;
        live.pipe.connection.close(close, text.as_bytes());
        let now = clock::now();
        self.connected_last = now;
        self.down_since = Some(self.post.clock.now());
        let talk = &mut self.post.talk;
        block_in_place(|| talk.disconnected());
        self.post.view().round_trip = None;
        tracing::info!(peer = %self.post.peer.name, "link down");
    }

    fn show_state(&self) {
        let state = if !self.may_emit() {
            PeerState::Silent
        } else if self.live.is_some() {
            return;
        } else if self.dialling.is_some() {
            PeerState::Connecting { last: self.last.clone() }
        } else {
            PeerState::Down { since: self.down_since, last: self.last.clone() }
        };
        self.post.view().state = state;
    }

    fn farewell(mut self) {
        self.drop_live(code::DONE, "the node is stopping");
        if let Some(address) = self.address {
            self.post.plug.governor.release(address, &self.post.lane);
        }
    }
}

impl<T> Post<T> {
    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().expect("nothing panics while holding a view")
    }
}

impl Live {
    /// Takes note of signs of life. Returns whether there was one.
    fn note(&mut self, now: Instant) -> bool {
        let waiting = self.pipe.is_waiting();
        let datagrams = self.pipe.datagrams_received();
        let heard = datagrams != self.datagrams;
        if heard || (waiting && !self.was_waiting) {
            self.silent_since = now;
        }
        self.datagrams = datagrams;
        self.was_waiting = waiting;
        heard
    }

    /// When the link counts as dead unless something is heard.
    ///
    /// While something waits for its acknowledgement: several round trips, several datagrams at the peer's pace, and
    /// three seconds. QUIC itself would probe at doubling intervals and find a link that returns after
    /// half a minute only half a minute later; a new connection finds it within seconds.
    fn dead_at(&self) -> Instant {
        let patience =
            Duration::from_secs(3) + 4 * self.pipe.round_trip() + time_on_link(6 * FULL_DATAGRAM, self.pipe.rate());
        let idle = if self.was_waiting { Duration::ZERO } else { link::limits::KEEPALIVE };
        self.silent_since + idle + patience
    }
}

async fn next_event(live: &mut Option<Live>) -> Event {
    match live {
        Some(live) => live.pipe.next().await,
        None => std::future::pending().await,
    }
}

async fn maybe<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Where to dial a peer, if this node is the one to dial.
pub(crate) fn dial_address(peer: &Peer, settings: &crate::CarrierSettings) -> Option<String> {
    match peer.role {
        PeerRole::Hub => settings.address_of(&peer.name, peer.address.as_deref()).map(str::to_owned),
        PeerRole::Edge => None,
    }
}
