//! Keeps the links with one peer: dials or takes what comes in, notices a dead link, obeys emission control, and lets
//! the conversation use them as if they were one.
//!
//! ```text
//!            emission closed                    emission closed
//!   Silent <----------------- Down/Connecting <----------------- Up              each link by itself
//!      `------- opened -------->  ^     | dialled or accepted     ^
//!                                 |     `------------------------'
//!                                 `-- closed, dead, refused: back-off with jitter, for ever
//!
//!   first link joined: talk.connected()      last one gone: talk.disconnected()
//! ```
//!
//! Each connection begins with a [`Frame::Join`] in each direction. The dialling side names the session that the
//! connection is to join; the other side answers with a name of its own for that session, which is another one when it
//! had to begin anew (it was restarted, or took all links for dead). So both sides always agree on which connections carry one
//! session. On the first link of a session the dialling side does not wait for the answer.
//!
//! What a link had not delivered when it ended, or was taken for dead, goes over another one. What it had delivered
//! all the same arrives twice, which is harmless.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use keys::Peer;
use link::{Lane as Class, Waiting};
use model::{BitsPerSecond, Clock, Precedence, UnixMillis};
use shaper::Demand;
use shaper::budget::Budget;
use shaper::plan::{self, Share};
use telemetry::Metrics;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::block_in_place;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use wire::frame::{Frame, Join};

use crate::book::Book;
use crate::clock;
use crate::contact::Contact;
use crate::endpoint::{DialError, Plug};
use crate::governor::Lane;
use crate::idle::{self, Vigil};
use crate::line::{Happened, Held, Line, Live, Packet, Shut, lane_of, poll_pipe};
use crate::pipe::{CloseCode, Event, FrameNumber, Gone, Pipe};
use crate::reach::Reach;
use crate::settings::{CarrierSettings, LINKS_MAX, LaneKind, LinkName, LinkPlan};
use crate::spare;
use crate::status::LinkMeasured;
use crate::talk::{Refusal, Talk};
use crate::{Emission, PeerState};

/// What is said to a node that is not, or no longer, in the registry.
pub(crate) const NOT_ENROLLED: &str = "this node is not enrolled here; run `holdfast enroll`";

/// Frames handed to the links before other events get their turn.
const FRAMES_PER_TURN: usize = 64;

/// Connections of the peer that have not said yet which link they are.
const GUESTS_MAX: usize = LINKS_MAX;

/// How long they may take: one frame that follows the handshake at once, repeated for as long as a thin link may need.
const GUEST_PATIENCE: Duration = Duration::from_secs(30);

/// How often budgets and windows are looked at while nothing happens.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a keeper works with.
pub(crate) struct Post<T> {
    pub(crate) plug: Arc<Plug>,
    pub(crate) peer: Peer,
    pub(crate) settings: Arc<CarrierSettings>,
    pub(crate) view: Arc<Mutex<View>>,
    pub(crate) talk: T,
    /// Connections the peer made.
    pub(crate) accepted: mpsc::Receiver<Pipe>,
    pub(crate) tests: mpsc::Receiver<TestOrder>,
    pub(crate) emission: watch::Receiver<Emission>,
    /// Set while running, for each link.
    pub(crate) rate: watch::Receiver<Option<BitsPerSecond>>,
    pub(crate) book: Arc<Book>,
    /// Counts changes of what the operator orders for links.
    pub(crate) orders: watch::Receiver<u64>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
    /// Zero of the conversation's time.
    pub(crate) start: Instant,
}

/// What the operator sees.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) state: PeerState,
    pub(crate) last_heard: Option<UnixMillis>,
    pub(crate) links: Vec<LinkView>,
}

/// What the operator sees of one link.
#[derive(Clone, Debug)]
pub(crate) struct LinkView {
    pub(crate) name: LinkName,
    /// Of the present connection; without one, the configured one.
    pub(crate) kind: LaneKind,
    pub(crate) state: PeerState,
    pub(crate) reach: Reach,
    pub(crate) lane: Arc<Lane>,
    pub(crate) round_trip: Option<Duration>,
    /// Share of the present connection's packets that were lost.
    pub(crate) loss: Option<f64>,
    pub(crate) cost: u64,
    pub(crate) admits: [bool; 5],
    pub(crate) budget: Budget,
    pub(crate) contact: Option<Contact>,
    /// Seconds between two signs of life, as agreed on, or as configured without a connection; 0 for none.
    pub(crate) keepalive_seconds: u64,
    /// Frame bytes handed to it, control first, then by class.
    pub(crate) sent_bytes: [u64; 6],
}

/// The session that the present connections belong to.
struct Meeting {
    /// The dialling side's name for it.
    session: u64,
    /// The accepting side's; the dialling side learns it with the first answer.
    answer: Option<u64>,
    since: UnixMillis,
    /// The peer's greeting has come; frames that overtook it wait.
    greeted: bool,
    early: Held,
}

/// A connection that the peer has made and not said yet which link it is.
struct Guest {
    pipe: Pipe,
    held: Held,
    until: Instant,
}

/// Somebody wants to know how a link is.
pub(crate) struct TestOrder {
    pub(crate) link: LinkName,
    pub(crate) reply: oneshot::Sender<Result<LinkMeasured, String>>,
}

/// A test under way: one frame at a time, so that each is a packet of its own.
struct Testing {
    at: usize,
    until: Instant,
    number: FrameNumber,
    sent_at: Instant,
    took: Vec<Duration>,
    /// Wire bytes of the link at its start.
    before: (u64, u64),
    reply: oneshot::Sender<Result<LinkMeasured, String>>,
}

/// Frames of a test. Each is a small packet of its own and an acknowledgement.
const TEST_FRAMES: usize = 8;

/// How long a test may take: eight round trips over a satellite with a few losses.
const TEST_PATIENCE: Duration = Duration::from_secs(10);

enum Place {
    Line(usize),
    Guest(usize),
}

pub(crate) struct Keeper<T> {
    post: Post<T>,
    lines: Vec<Line>,
    guests: VecDeque<Guest>,
    meeting: Option<Meeting>,
    /// The conversation has been told of a session, and not of its end.
    talking: bool,
    /// What links that ended had not delivered, in the order in which it was sent.
    again: VecDeque<Packet>,
    testing: Option<Testing>,
    /// Whether the peer is there while its answer is awaited.
    vigil: Vigil,
    next_number: FrameNumber,
    /// When budgets and windows are looked at again, although nothing happened.
    next_look: Instant,
    /// Which link is asked first for what happened: each in turn.
    turn: usize,
    /// More frames can be sent at once than one turn sends.
    more: bool,
    /// When a shaper has a grant for what waits.
    wake: Option<Duration>,
}

impl<T: Talk> Keeper<T> {
    pub(crate) fn new(post: Post<T>) -> Self {
        let (now, set) = (clock::now(), *post.rate.borrow());
        let plans = post.settings.links_of(&post.peer);
        let lines = plans.into_iter().map(|plan| new_line(plan, set, now, post.start)).collect();
        let mut keeper = Self {
            lines,
            guests: VecDeque::new(),
            meeting: None,
            talking: false,
            again: VecDeque::new(),
            testing: None,
            vigil: Vigil::default(),
            next_look: now,
            next_number: 0,
            turn: 0,
            more: false,
            wake: None,
            post,
        };
        keeper.look();
        keeper.show();
        keeper
    }

    /// Keeps the links until `stop`; then closes them with a farewell.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            self.work();
            let wake = self.wake_at();
            self.turn = self.turn.wrapping_add(1);
            let (lines, guests, turn) = (&mut self.lines, &mut self.guests, self.turn);
            tokio::select! {
                biased;
                () = stop.cancelled() => return self.farewell(),
                Ok(()) = self.post.emission.changed() => self.on_emission(),
                Ok(()) = self.post.rate.changed() => self.on_rate(),
                Ok(()) = self.post.orders.changed() => {}
                Some(pipe) = self.post.accepted.recv() => self.on_guest(pipe),
                Some(order) = self.post.tests.recv() => self.on_test(order),
                (place, happened) = poll_fn(|cx| poll(lines, guests, turn, cx)) => self.on_happened(place, happened),
                () = self.post.talk.wait() => {}
                () = until(wake) => {}
            }
            self.look();
            self.on_time();
            self.show();
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        let mut wake: Vec<Instant> = Vec::new();
        for line in &self.lines {
            wake.extend(line.live.as_ref().filter(|live| !live.presumed_dead).and_then(Live::dead_at));
            wake.extend(line.live.as_ref().and_then(Live::given_up_at));
            wake.extend(line.dial_at);
            wake.extend(line.live.as_ref().and_then(|live| live.pipe.probe_at()));
            wake.extend(line.keepalive_at());
            wake.extend(line.reach_changes_at().map(|at| self.post.start + at));
        }
        wake.extend(self.guests.iter().map(|guest| guest.until));
        wake.extend(self.to_ask().map(|(_, due)| due));
        wake.extend(self.testing.as_ref().map(|testing| testing.until));
        wake.extend(self.post.talk.deadline().map(|at| self.post.start + at));
        wake.extend(self.wake.map(|at| self.post.start + at));
        wake.extend(self.lines.iter().any(Line::changes_by_itself).then_some(self.next_look));
        wake.extend(self.more.then(clock::now));
        wake.into_iter().min()
    }

    /// Lets the conversation use the links.
    fn work(&mut self) {
        let now = clock::now() - self.post.start;
        if self.meeting.is_some() || self.post.talk.needs_settling(now) {
            // Both may touch the disk; the other tasks of this thread move on meanwhile.
            match block_in_place(|| self.pump(now)) {
                Ok(more) => self.more = more,
                Err(refusal) => return self.refuse(&refusal),
            }
        }
        self.listen();
    }

    /// Takes note of signs of life: a link that was taken for dead is back.
    fn listen(&mut self) {
        let (wall, now) = (self.post.clock.now(), clock::now());
        let mut heard = false;
        for line in &mut self.lines {
            let Some(live) = &mut line.live else { continue };
            if live.note(now) {
                heard = true;
                if std::mem::take(&mut live.presumed_dead) {
                    line.up_since = wall;
                    (line.dialling, line.dial_at) = (None, None);
                }
            }
            line.follow(&self.post.plug);
        }
        self.vigil.note(self.meeting.is_some() && self.post.talk.awaits_answer(), heard, now);
        if heard {
            self.post.view().last_heard = Some(wall);
        }
    }

    fn pump(&mut self, now: Duration) -> Result<bool, Refusal> {
        self.post.talk.settle(now)?;
        self.wake = None;
        if self.meeting.is_none() {
            return Ok(false);
        }
        for _ in 0..FRAMES_PER_TURN {
            if !self.send_next(now)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Sends one frame over whichever link may carry it. False when nothing can be sent now.
    fn send_next(&mut self, now: Duration) -> Result<bool, Refusal> {
        let waiting = self.post.talk.waiting(now)?;
        let plan: Vec<plan::Link> = self.lines.iter().map(Line::to_plan).collect();
        let shares = plan::shares(&plan);
        let mut wake: Option<Duration> = None;
        for at in plan::order(&plan) {
            let (line, share) = (&mut self.lines[at], shares[at]);
            line.follow_pace(now);
            let Some(live) = &line.live else { continue };
            let demand = demand(&waiting, &self.again, line.has_copy(now), share, live.pipe.room() > 0);
            wake = [wake, line.copy_due(now)].into_iter().flatten().min();
            if demand == Demand::default() {
                continue;
            }
            let Some(grant) = line.shaper.grant(now, &demand) else {
                wake = [wake, line.shaper.wake_at()].into_iter().flatten().min();
                continue;
            };
            let of_lane = |packet: &Packet| lane_of(packet.lane) == grant.lane;
            let left_over = match self.again.iter().position(of_lane) {
                Some(index) => self.again.remove(index),
                None if grant.lane == shaper::Lane::Class(Precedence::Flash) => line.take_copy(now),
                None => None,
            };
            let packet = match left_over {
                Some(packet) => packet,
                None => {
                    let class = match grant.lane {
                        shaper::Lane::Control => Class::Control,
                        shaper::Lane::Class(class) => Class::Class(class),
                    };
                    // Nothing was made when what seemed to wait was expired or withheld: the next look finds more.
                    let Some(frame) = self.post.talk.next_frame(now, class, grant.bytes)? else { return Ok(true) };
                    let packet = self.packet(class, &frame);
                    if class == Class::Class(Precedence::Flash) {
                        let others = self.lines.iter_mut().zip(&shares).enumerate().filter(|(other, _)| *other != at);
                        others.filter(|(_, (_, s))| s.classes[0]).for_each(|(_, (line, _))| line.copy(&packet, now));
                        // What is cut into fragments is no lone post.
                        if matches!(frame, Frame::Batch(_)) {
                            self.lines[at].repeat(&packet, now);
                        }
                    }
                    packet
                }
            };
            self.lines[at].send(packet, clock::now());
            return Ok(true);
        }
        if waiting.is_empty() && self.again.is_empty() {
            for at in plan::order(&plan) {
                match self.lines[at].take_spare(now) {
                    Ok(packet) => {
                        self.lines[at].send(packet, clock::now());
                        return Ok(true);
                    }
                    Err(next) => wake = [wake, next].into_iter().flatten().min(),
                }
            }
        }
        self.wake = wake;
        Ok(false)
    }

    fn packet(&mut self, lane: Class, frame: &Frame) -> Packet {
        self.next_number += 1;
        // Before the peer was heard, whatever goes is the start of something.
        let hurried = spare::is_hurried(frame) || self.meeting.as_ref().is_none_or(|meeting| !meeting.greeted);
        Packet { number: self.next_number, lane, bytes: Bytes::from(frame.encode()), hurried }
    }

    fn may_emit(&self) -> bool {
        self.post.emission.borrow().may_emit()
    }

    fn on_emission(&mut self) {
        if self.may_emit() {
            self.lines.iter_mut().for_each(|line| line.dial_soon(clock::now()));
        } else {
            self.guests.clear();
            self.lines.iter_mut().for_each(Line::stop_dialling);
            self.detach_all(CloseCode::Done, "");
        }
    }

    fn on_rate(&mut self) {
        let Some(rate) = *self.post.rate.borrow_and_update() else { return };
        let (now, start, may_emit) = (clock::now(), self.post.start, self.may_emit());
        for line in &mut self.lines {
            line.set_rate(rate, now, start);
            if !may_emit {
                line.stop_dialling();
            }
        }
    }

    fn on_happened(&mut self, place: Place, happened: Happened) {
        match (place, happened) {
            (Place::Line(at), Happened::Dialled(Ok(pipe))) => self.on_dialled(at, pipe),
            (Place::Line(at), Happened::Dialled(Err(error))) => self.on_not_dialled(at, error),
            (Place::Line(at), Happened::Event(event)) => self.on_event(at, event),
            (Place::Guest(at), Happened::Event(event)) => self.on_guest_event(at, event),
            (Place::Guest(_), Happened::Dialled(_)) => {}
        }
    }

    fn on_dialled(&mut self, at: usize, pipe: Pipe) {
        if !self.may_emit() {
            return;
        }
        self.detach_one(at, CloseCode::Replaced, "a newer connection of this node replaces this one");
        let begins = self.meeting.is_none();
        let session = self.meeting.get_or_insert_with(|| Meeting::new(None, self.post.clock.now())).session;
        let plan = &self.lines[at].plan;
        let join = Join { session, keepalive_seconds: plan.keepalive_seconds, link: plan.name.to_string() };
        let keepalive = idle::agreed(plan.keepalive_seconds, plan.keepalive_seconds);
        self.attach(at, pipe, begins, keepalive, join);
        if begins {
            self.begin();
        }
    }

    fn on_not_dialled(&mut self, at: usize, error: DialError) {
        let (line, now) = (&mut self.lines[at], clock::now());
        tracing::debug!(peer = %self.post.peer.name, link = %line.plan.name, reason = %error, "dialling failed");
        line.follow_again(&self.post.plug);
        match error {
            DialError::OtherNode(_) => {
                line.refused(format!("{error}; check the address, or enroll anew if that node was replaced"), now);
            }
            DialError::Lost(gone) => self.on_gone(at, gone.into()),
            DialError::Resolve(_)
            | DialError::Local(..)
            | DialError::Outlet(_)
            | DialError::Https(..)
            | DialError::NoAnswer(_) => {
                line.dial_later(error.to_string(), now);
            }
        }
    }

    fn on_guest(&mut self, pipe: Pipe) {
        if !self.may_emit() {
            return;
        }
        if self.guests.len() >= GUESTS_MAX
            && let Some(mut oldest) = self.guests.pop_front()
        {
            oldest.pipe.close(CloseCode::Replaced, "newer connections of this node replace this one");
        }
        self.guests.push_back(Guest { pipe, held: Held::default(), until: clock::now() + GUEST_PATIENCE });
    }

    fn on_guest_event(&mut self, at: usize, event: Event) {
        let Some(guest) = self.guests.get_mut(at) else { return };
        let refusal = match event {
            Event::Frame(Frame::Join(join), _) => return self.admit(at, &join),
            Event::Frame(frame, len) => match guest.held.keep(frame, len) {
                true => return,
                false => "the connection does not say which link it is".to_owned(),
            },
            Event::Delivered(_) => return,
            Event::Unreadable(e) => format!("{e}; {}", e.next_step()),
            Event::Closed(_) => String::new(),
        };
        if let Some(mut guest) = self.guests.remove(at) {
            guest.pipe.close(CloseCode::Protocol, &refusal);
        }
    }

    /// The peer has said which link its connection is.
    fn admit(&mut self, guest: usize, join: &Join) {
        let Some(mut guest) = self.guests.remove(guest) else { return };
        let Some(at) = self.line_named(&join.link) else {
            let text = format!("`{}` is no link, or more than the {LINKS_MAX} that a peer may have", join.link);
            return drop(guest.pipe.close(CloseCode::Denied, &text));
        };
        if let Some(shut) = &self.lines[at].shut {
            let text = match shut {
                Shut::Held(why) => format!("the other side does not use this link: {why}"),
                Shut::Silent => String::new(),
            };
            return drop(guest.pipe.close(CloseCode::Denied, &text));
        }
        const NEWER: &str = "a newer connection of this node replaces this one";
        let begins = self.meeting.as_ref().is_none_or(|meeting| meeting.session != join.session);
        if begins {
            // The newer one is alive; whether the older ones are, nobody knows.
            self.detach_all(CloseCode::Replaced, NEWER);
        } else {
            self.detach_one(at, CloseCode::Replaced, NEWER);
        }
        // What the older one had brought may have ended the session.
        let begins = self.meeting.is_none();
        self.meeting.get_or_insert_with(|| Meeting::new(Some(join.session), self.post.clock.now()));
        let session = self.meeting.as_ref().and_then(|meeting| meeting.answer).unwrap_or_default();
        let held = guest.held.take();
        let keepalive_seconds = self.lines[at].plan.keepalive_seconds;
        let keepalive = idle::agreed(keepalive_seconds, join.keepalive_seconds);
        self.attach(at, guest.pipe, true, keepalive, Join { session, keepalive_seconds, link: join.link.clone() });
        if begins {
            self.begin();
        }
        held.into_iter().for_each(|(frame, len)| self.on_frame(at, frame, len));
    }

    /// The link of that name; the peer may have links that this side's configuration does not name.
    fn line_named(&mut self, name: &str) -> Option<usize> {
        if let Some(at) = self.lines.iter().position(|line| line.plan.name.as_str() == name) {
            return Some(at);
        }
        if self.lines.len() >= LINKS_MAX {
            return None;
        }
        let plan = self.post.settings.plain_link(&self.post.peer, name.parse().ok()?);
        let set = *self.post.rate.borrow();
        let mut line = new_line(plan, set, clock::now(), self.post.start);
        line.stop_dialling();
        self.lines.push(line);
        Some(self.lines.len() - 1)
    }

    fn attach(&mut self, at: usize, pipe: Pipe, joined: bool, keepalive: Option<Duration>, join: Join) {
        let (now, wall) = (clock::now(), self.post.clock.now());
        let packet = self.packet(Class::Control, &Frame::Join(join));
        let line = &mut self.lines[at];
        line.attach(Live::new(pipe, joined, keepalive, now), &self.post.plug, now, wall);
        line.send(packet, now);
        self.post.view().last_heard = Some(wall);
        let name = telemetry::PeerName::new(self.post.peer.name.as_str());
        self.post.metrics.link_reconnects_total.inc((name,));
        tracing::info!(peer = %self.post.peer.name, link = %self.lines[at].plan.name, "link up");
    }

    /// The first link of a session is there.
    fn begin(&mut self) {
        self.talking = true;
        let (talk, now) = (&mut self.post.talk, clock::now() - self.post.start);
        if let Err(refusal) = block_in_place(|| talk.connected(now)) {
            self.refuse(&refusal);
        }
    }

    fn on_event(&mut self, at: usize, event: Event) {
        match event {
            Event::Delivered(number) => {
                let now = clock::now() - self.post.start;
                self.lines.iter_mut().for_each(|line| line.delivered(number, now));
                self.again.retain(|packet| packet.number != number);
                self.on_test_delivered(number);
            }
            Event::Frame(Frame::Join(join), _) => self.on_answer(at, &join),
            Event::Frame(frame, len) => self.on_frame(at, frame, len),
            Event::Unreadable(e) => self.refuse(&Refusal { text: format!("{e}; {}", e.next_step()), retry: true }),
            Event::Closed(gone) => {
                self.detach(at, CloseCode::Done, "");
                self.on_gone(at, gone);
            }
        }
    }

    /// The peer says which session the connection has joined.
    fn on_answer(&mut self, at: usize, join: &Join) {
        let (dials, session) = (self.lines[at].plan.address.is_some(), join.session);
        let ours = self.lines[at].plan.keepalive_seconds;
        if let Some(live) = self.lines[at].live.as_mut().filter(|_| dials) {
            live.keepalive = idle::agreed(ours, join.keepalive_seconds);
        }
        let Some(meeting) = &mut self.meeting else { return };
        if !dials || (self.lines[at].live.as_ref().is_some_and(|live| live.joined) && meeting.answer == Some(session)) {
            // Said twice is said once.
            return;
        }
        let stale = meeting.answer.is_some_and(|answer| answer != session);
        if stale {
            // The peer knows nothing of what the other links carried.
            let (own, since) = (meeting.session, self.post.clock.now());
            let others = (0..self.lines.len()).filter(|other| *other != at);
            let now = clock::now();
            for other in others {
                let line = &mut self.lines[other];
                if line.live.is_some() {
                    line.detach(CloseCode::Done, "the peer has begun a new session", now, since);
                    line.dial_soon(now);
                }
            }
            self.forget_session();
            self.meeting = Some(Meeting { session: own, ..Meeting::new(None, since) });
        }
        if let Some(meeting) = &mut self.meeting {
            meeting.answer = Some(session);
        }
        let Some(live) = &mut self.lines[at].live else { return };
        live.joined = true;
        if stale {
            live.forget();
        }
        let held = live.held.take();
        if stale {
            self.begin();
        }
        held.into_iter().for_each(|(frame, len)| self.on_frame(at, frame, len));
    }

    fn on_frame(&mut self, at: usize, frame: Frame, len: usize) {
        let Some(live) = &mut self.lines[at].live else { return };
        let in_time = match live.joined {
            true => return self.take(frame, len),
            false => live.held.keep(frame, len),
        };
        if !in_time {
            self.refuse_surplus();
        }
    }

    /// Takes a frame of the present session.
    fn take(&mut self, frame: Frame, len: usize) {
        let Some(meeting) = &mut self.meeting else { return };
        let greets = matches!(frame, Frame::Greet(_));
        let in_time = match meeting.greeted || greets {
            false => meeting.early.keep(frame, len),
            true => {
                let mut frames = vec![(frame, len)];
                if greets && !std::mem::replace(&mut meeting.greeted, true) {
                    frames.extend(meeting.early.take());
                }
                self.vigil.answered();
                let (talk, now) = (&mut self.post.talk, clock::now() - self.post.start);
                let taken = block_in_place(|| frames.into_iter().try_for_each(|(frame, _)| talk.received(now, frame)));
                return if let Err(refusal) = taken {
                    self.refuse(&refusal)
                };
            }
        };
        if !in_time {
            self.refuse_surplus();
        }
    }

    fn refuse_surplus(&mut self) {
        self.refuse(&Refusal { text: "too much was sent before the greeting".to_owned(), retry: true });
    }

    /// Looks which links may be used: orders, contact windows, budgets.
    fn look(&mut self) {
        let (now, wall, peer, start) = (clock::now(), self.post.clock.now(), self.post.peer.node, self.post.start);
        self.next_look = now + LOOK_EVERY;
        let may_emit = self.may_emit();
        for at in 0..self.lines.len() {
            let (line, book) = (&mut self.lines[at], &self.post.book);
            let shut = if line.changes_by_itself() {
                // May write to the disk.
                block_in_place(|| line.look(book, peer, wall, now))
            } else {
                line.look(book, peer, wall, now)
            };
            line.apply_ceiling(now, start);
            if shut == line.shut {
                continue;
            }
            let name = &line.plan.name;
            match &shut {
                Some(Shut::Held(why)) => tracing::info!(peer = %self.post.peer.name, link = %name, %why, "link held"),
                Some(Shut::Silent) => tracing::info!(peer = %self.post.peer.name, link = %name, "link silent"),
                None => tracing::info!(peer = %self.post.peer.name, link = %name, "link may be used again"),
            }
            self.post.plug.governor().silence(&line.lane, shut == Some(Shut::Silent));
            line.shut = shut;
            match line.shut {
                Some(_) => {
                    line.stop_dialling();
                    self.detach(at, CloseCode::Done, "the link is not to be used now");
                }
                None if may_emit => line.dial_soon(now),
                None => {}
            }
        }
    }

    /// Honours deadlines that have passed.
    fn on_time(&mut self) {
        let (now, may_emit) = (clock::now(), self.may_emit());
        self.guests.retain(|guest| guest.until > now);
        self.listen();
        if self.testing.as_ref().is_some_and(|testing| testing.until <= now || self.lines[testing.at].live.is_none()) {
            self.end_test();
        }
        for at in 0..self.lines.len() {
            if may_emit && self.lines[at].dial_at.is_some_and(|dial_at| dial_at <= now) {
                self.lines[at].dial(&self.post.plug, self.post.peer.node);
            }
            let dead = self.lines[at].live.as_mut().is_some_and(|live| {
                live.pipe.probe(now);
                live.dead_at().is_some_and(|at| at <= now)
            });
            let given_up = self.lines[at].live.as_ref().and_then(Live::given_up_at).is_some_and(|at| at <= now);
            if given_up {
                self.detach(at, CloseCode::Done, "nothing was heard for too long");
                self.on_gone(at, Gone::Lost("the link was silent for too long".to_owned()));
                continue;
            }
            if dead {
                self.on_dead(at, now);
            }
            if self.lines[at].keepalive_at().is_some_and(|due| due <= now) {
                let packet = self.packet(Class::Control, &Frame::KeepAlive);
                self.lines[at].send(packet, now);
            }
        }
        if let Some((at, due)) = self.to_ask()
            && due <= now
        {
            let packet = self.packet(Class::Control, &Frame::KeepAlive);
            self.lines[at].send(packet, now);
            self.vigil.asked(now);
        }
    }

    /// Over which link the peer is to be asked whether it is there, and when. A link that stays silent then counts as dead, and what asked
    /// goes over the next.
    fn to_ask(&self) -> Option<(usize, Instant)> {
        if !self.vigil.is_kept() {
            return None;
        }
        let plan: Vec<plan::Link> = self.lines.iter().map(Line::to_plan).collect();
        let shares = plan::shares(&plan);
        let at = plan::order(&plan).into_iter().find(|at| shares[*at].control)?;
        let patience = self.lines[at].live.as_ref()?.patience();
        self.vigil.due(patience).map(|due| (at, due))
    }

    fn on_dead(&mut self, at: usize, now: Instant) {
        let line = &mut self.lines[at];
        line.last = "the link went silent".to_owned();
        // The connection may come back to life, and is probed for that. The peer may also have been restarted, or be reached
        // another way: whoever dials does so meanwhile.
        if line.plan.address.is_some() && line.dialling.is_none() && line.dial_at.is_none() {
            line.dial_at = Some(now);
        }
        if let Some(live) = &mut line.live {
            live.silent_since = now;
            let lost: Vec<Packet> = live.under_way.values().cloned().collect();
            if !live.presumed_dead {
                line.presume_dead(now, self.post.clock.now());
            }
            // Asked each time that the silence goes on: another link may have come up since.
            if self.lines.iter().any(|line| line.to_plan().usable) {
                self.send_again(lost);
            }
        }
    }

    fn on_test(&mut self, order: TestOrder) {
        let answer = |why: &str| Err(why.to_owned());
        let Some(at) = self.lines.iter().position(|line| line.plan.name == order.link) else {
            return drop(order.reply.send(answer("it is gone")));
        };
        if self.testing.is_some() || !self.lines[at].to_plan().usable {
            let why = if self.testing.is_some() { "another test is under way" } else { "it is not up" };
            return drop(order.reply.send(answer(why)));
        }
        let (now, before) = (clock::now(), self.lines[at].lane.wire_bytes());
        let until = now + TEST_PATIENCE;
        self.testing =
            Some(Testing { at, until, number: 0, sent_at: now, took: Vec::new(), before, reply: order.reply });
        self.send_test();
    }

    fn send_test(&mut self) {
        let packet = self.packet(Class::Control, &Frame::KeepAlive);
        let Some(testing) = &mut self.testing else { return };
        testing.number = packet.number;
        testing.sent_at = clock::now();
        self.lines[testing.at].send(packet, testing.sent_at);
    }

    fn on_test_delivered(&mut self, number: FrameNumber) {
        let Some(testing) = self.testing.as_mut().filter(|testing| testing.number == number) else { return };
        testing.took.push(clock::now() - testing.sent_at);
        if testing.took.len() < TEST_FRAMES {
            self.send_test();
        } else {
            self.end_test();
        }
    }

    fn end_test(&mut self) {
        let Some(testing) = self.testing.take() else { return };
        let line = &self.lines[testing.at];
        let Testing { took, before, .. } = testing;
        let after = line.lane.wire_bytes();
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let mean = took.iter().sum::<Duration>().checked_div(took.len() as u32);
        let bounds = took.iter().min().zip(took.iter().max());
        let measured = LinkMeasured {
            sent: TEST_FRAMES.min(took.len() + 1) as u32,
            acknowledged: took.len() as u32,
            round_trip_ms: bounds.zip(mean).map(|((min, max), mean)| (millis(*min), millis(mean), millis(*max))),
            loss: line.live.as_ref().and_then(|live| live.pipe.loss()),
            handshake_ms: line.handshake.map(millis),
            bytes_up: after.0.saturating_sub(before.0),
            bytes_down: after.1.saturating_sub(before.1),
        };
        // Whoever asked may have gone.
        drop(testing.reply.send(Ok(measured)));
    }

    /// The connection ended, or did not come about.
    fn on_gone(&mut self, at: usize, gone: Gone) {
        let (line, now) = (&mut self.lines[at], clock::now());
        match gone {
            Gone::Denied(text) => {
                tracing::warn!(peer = %self.post.peer.name, link = %line.plan.name, reason = %text, "the link is refused");
                line.refused(text, now);
            }
            Gone::Lost(text) => line.dial_later(text, now),
        }
    }

    /// We do not want the other side.
    fn refuse(&mut self, refusal: &Refusal) {
        let code = if refusal.retry { CloseCode::Protocol } else { CloseCode::Denied };
        let now = clock::now();
        if !refusal.retry {
            tracing::warn!(peer = %self.post.peer.name, reason = %refusal.text, "the link is refused");
        }
        // Nothing more is taken for it.
        self.meeting = None;
        for at in 0..self.lines.len() {
            let was_live = self.lines[at].live.is_some();
            self.detach(at, code, &refusal.text);
            let line = &mut self.lines[at];
            match refusal.retry {
                true if was_live => line.dial_later(refusal.text.clone(), now),
                true => {}
                false => line.refused(refusal.text.clone(), now),
            }
        }
        self.end_if_alone();
    }

    /// A connection of a link ends; with the last one the session does.
    fn detach(&mut self, at: usize, code: CloseCode, text: &str) {
        if self.detach_one(at, code, text) {
            self.end_if_alone();
        }
    }

    /// Without a connection there is no session.
    fn end_if_alone(&mut self) {
        if self.lines.iter().all(|line| line.live.is_none()) {
            self.forget_session();
            self.meeting = None;
        }
    }

    /// The session ends, and all connections with it.
    fn detach_all(&mut self, code: CloseCode, text: &str) {
        // Nothing more is taken for it.
        self.meeting = None;
        (0..self.lines.len()).for_each(|at| self.detach(at, code, text));
        self.end_if_alone();
    }

    /// The same as `detach`, though nothing may be left for the moment: another connection follows at once.
    fn detach_one(&mut self, at: usize, code: CloseCode, text: &str) -> bool {
        let line = &mut self.lines[at];
        let Some(detached) = line.detach(code, text, clock::now(), self.post.clock.now()) else { return false };
        tracing::info!(peer = %self.post.peer.name, link = %line.plan.name, "link down");
        self.send_again(detached.undelivered);
        self.take_unread(detached.joined, detached.unread);
        true
    }

    /// Takes what a connection that ended had brought: the session goes on, and the peer takes it for delivered.
    fn take_unread(&mut self, joined: bool, mut unread: Vec<(Frame, usize)>) {
        let Some(meeting) = &self.meeting else { return };
        let answers = unread.extract_if(.., |(frame, _)| matches!(frame, Frame::Join(_))).map(|(frame, _)| frame);
        let is_ours = |frame: Frame| matches!(frame, Frame::Join(join) if Some(join.session) == meeting.answer);
        // Which session it was to join its answer says; it may be there, unread.
        let belongs = answers.map(is_ours).last().unwrap_or(joined);
        match belongs {
            true => unread.into_iter().for_each(|(frame, len)| self.take(frame, len)),
            false if unread.is_empty() => {}
            // They are of this session or of a new one; whatever they say is said again in the next.
            false => self.detach_all(CloseCode::Done, "the session begins anew"),
        }
    }

    fn send_again(&mut self, lost: Vec<Packet>) {
        for packet in lost {
            let elsewhere = self.lines.iter().any(|line| line.has(packet.number));
            if !elsewhere && self.again.iter().all(|other| other.number != packet.number) {
                self.again.push_back(packet);
            }
        }
    }

    fn forget_session(&mut self) {
        self.again.clear();
        self.lines.iter_mut().for_each(Line::forget_copies);
        self.more = false;
        self.wake = None;
        let talk = &mut self.post.talk;
        if std::mem::take(&mut self.talking) {
            block_in_place(|| talk.disconnected());
        }
    }

    fn show(&mut self) {
        let (may_emit, now) = (self.may_emit(), clock::now() - self.post.start);
        let links: Vec<LinkView> = self.lines.iter_mut().map(|line| line.view(may_emit, now)).collect();
        let since = self.meeting.as_ref().map(|meeting| meeting.since);
        let state = whole(&links, since);
        let mut view = self.post.view();
        view.state = state;
        view.links = links;
    }

    fn farewell(mut self) {
        for at in 0..self.lines.len() {
            self.detach(at, CloseCode::Done, "the node is stopping");
            self.lines[at].forget_place();
            let (line, book, peer) = (&mut self.lines[at], &self.post.book, self.post.peer.node);
            block_in_place(|| line.put_back(book, peer));
        }
    }
}

impl Line {
    fn view(&mut self, may_emit: bool, now: Duration) -> LinkView {
        LinkView {
            reach: self.reach(may_emit, now),
            name: self.plan.name.clone(),
            kind: self.live.as_ref().map_or(self.plan.kind(), |live| live.pipe.kind()),
            state: self.state(may_emit),
            lane: Arc::clone(&self.lane),
            round_trip: self.live.as_ref().map(|live| live.pipe.round_trip()),
            loss: self.live.as_ref().and_then(|live| live.pipe.loss()),
            cost: self.plan.cost,
            admits: self.plan.admits,
            budget: self.plan.budget,
            contact: self.contact,
            keepalive_seconds: match &self.live {
                Some(live) => live.keepalive.map_or(0, |every| every.as_secs()),
                None => u64::from(self.plan.keepalive_seconds),
            },
            sent_bytes: self.sent_bytes,
        }
    }
}

impl<T> Post<T> {
    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().expect("nothing panics while holding a view")
    }
}

impl Meeting {
    /// `theirs` is what the dialling side calls it; without it, this is the dialling side.
    fn new(theirs: Option<u64>, since: UnixMillis) -> Self {
        let session = theirs.unwrap_or_else(random);
        Self { session, answer: theirs.map(|_| random()), since, greeted: false, early: Held::default() }
    }
}

fn random() -> u64 {
    let mut bytes = [0u8; 8];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes once it has booted");
    u64::from_le_bytes(bytes)
}

fn new_line(plan: LinkPlan, set: Option<BitsPerSecond>, now: Instant, start: Instant) -> Line {
    let rate = set.unwrap_or(plan.rate);
    Line::new(plan, rate, now, start)
}

/// What the peer's links amount to. `since`: when the session began.
fn whole(links: &[LinkView], since: Option<UnixMillis>) -> PeerState {
    let rank = |state: &PeerState| match state {
        PeerState::Up { .. } => 0,
        PeerState::Connecting { .. } => 1,
        PeerState::Denied { .. } => 2,
        PeerState::Silent | PeerState::OneWay | PeerState::Relayed { .. } => 3,
        PeerState::Down { .. } => 4,
        PeerState::Held { .. } => 5,
    };
    let best = links.iter().map(|link| &link.state).min_by_key(|state| rank(state)).cloned();
    match (best, since) {
        (Some(PeerState::Up { since: link }), session) => PeerState::Up { since: session.unwrap_or(link).max(link) },
        (Some(state), _) => state,
        (None, _) => PeerState::Down { since: None, last: String::new() },
    }
}

/// What a link can be asked for. With no room, only what may pass everything: its queue holds a window of bulk already.
fn demand(waiting: &Waiting, again: &VecDeque<Packet>, copies: bool, share: Share, room: bool) -> Demand {
    let mut demand = Demand { control: waiting.control, classes: waiting.classes };
    demand.classes[Precedence::Flash.index()] |= copies;
    for packet in again {
        match packet.lane {
            Class::Control => demand.control = true,
            Class::Class(class) => demand.classes[class.index()] = true,
        }
    }
    demand.control &= share.control;
    for class in Precedence::ALL {
        let passes_all = class <= Precedence::Immediate;
        demand.classes[class.index()] &= share.classes[class.index()] && (room || passes_all);
    }
    demand
}

fn poll(
    lines: &mut [Line],
    guests: &mut VecDeque<Guest>,
    turn: usize,
    cx: &mut Context<'_>,
) -> Poll<(Place, Happened)> {
    let count = lines.len();
    for step in 0..count {
        let at = (turn + step) % count;
        if let Poll::Ready(happened) = lines[at].poll(cx) {
            return Poll::Ready((Place::Line(at), happened));
        }
    }
    for (at, guest) in guests.iter_mut().enumerate() {
        if let Poll::Ready(event) = poll_pipe(&mut guest.pipe, cx) {
            return Poll::Ready((Place::Guest(at), Happened::Event(event)));
        }
    }
    Poll::Pending
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
