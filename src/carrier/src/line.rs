//! One link of a bundle: how it leaves, what connection it has, what is under way on it.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use link::Lane as Class;
use model::{BitsPerSecond, NodeId, Precedence, UnixMillis};
use shaper::{Copies, Demand, Shaper};
use wire::frame::Frame;

use crate::PeerState;
use crate::backoff::Backoff;
use crate::book::{Book, LinkOrder};
use crate::clock::{self, jitter};
use crate::contact::{Contact, contact};
use crate::endpoint::{DialError, Plug};
use crate::governor::Lane;
use crate::https;
use crate::idle;
use crate::pipe::{CloseCode, Event, FrameNumber, Pipe};
use crate::quic::{self, FULL_DATAGRAM};
use crate::reach::{Reach, Sight, Watch};
use crate::settings::{LinkPlan, Outlet};
use crate::spare::Spare;

/// Flash frames that wait for their turn on a further link. What is more than that goes over one link only: on a link this
/// far behind a copy would arrive too late to be of use.
const COPIES_MAX: usize = 256;

/// Between attempts to replace a silent connection, which is probed meanwhile: an attempt costs a hundred times what a
/// probe does.
const REDIAL: Duration = Duration::from_secs(15);

/// Frames that arrived before what must come first. They overtook it by a round trip or two; more than a window of the
/// fastest link is a mistake of the peer's.
const HELD_BYTES_MAX: usize = 8 << 20;

/// A frame on its way to the peer.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) number: FrameNumber,
    pub(crate) lane: Class,
    pub(crate) bytes: Bytes,
    /// A start waits for it.
    pub(crate) hurried: bool,
}

/// Frames that arrived before what must come first.
#[derive(Debug, Default)]
pub(crate) struct Held {
    frames: Vec<(Frame, usize)>,
    bytes: usize,
}

impl Held {
    /// Keeps a frame; false when there are too many.
    pub(crate) fn keep(&mut self, frame: Frame, len: usize) -> bool {
        // What a frame takes beside its bytes.
        self.bytes += len + 128;
        self.frames.push((frame, len));
        self.bytes <= HELD_BYTES_MAX
    }

    pub(crate) fn take(&mut self) -> Vec<(Frame, usize)> {
        std::mem::take(self).frames
    }
}

/// A connection of a link.
pub(crate) struct Live {
    pub(crate) pipe: Pipe,
    /// The peer has said that the connection belongs to the present session.
    pub(crate) joined: bool,
    /// What came before it said so.
    pub(crate) held: Held,
    /// What was handed to the pipe and neither delivered nor given to another link.
    pub(crate) under_way: BTreeMap<FrameNumber, Packet>,
    /// Which of them are sent again while there is nothing else to do.
    spare: Spare,
    pub(crate) last_sent: Instant,
    signs: u64,
    /// When the last datagram was noticed, or when something began to wait for an answer, if that was later.
    pub(crate) silent_since: Instant,
    was_waiting: bool,
    /// Taken for dead; the peer is the one to dial, or to speak again.
    pub(crate) presumed_dead: bool,
    /// Since when; of interest only then.
    dead_since: Instant,
    /// Between two signs of life while nothing else is sent; none at all without.
    pub(crate) keepalive: Option<Duration>,
}

impl Live {
    pub(crate) fn new(pipe: Pipe, joined: bool, keepalive: Option<Duration>, now: Instant) -> Self {
        Self {
            signs: pipe.signs_of_life(),
            pipe,
            joined,
            held: Held::default(),
            under_way: BTreeMap::new(),
            spare: Spare::default(),
            last_sent: now,
            silent_since: now,
            was_waiting: false,
            presumed_dead: false,
            dead_since: now,
            keepalive,
        }
    }

    /// Takes note of signs of life. Returns whether there was one.
    pub(crate) fn note(&mut self, now: Instant) -> bool {
        let waiting = self.pipe.is_waiting();
        let signs = self.pipe.signs_of_life();
        let heard = signs != self.signs;
        if heard || (waiting && !self.was_waiting) {
            self.silent_since = now;
        }
        self.signs = signs;
        self.was_waiting = waiting;
        heard
    }

    /// What is under way was for a session that is no more.
    pub(crate) fn forget(&mut self) {
        self.under_way.clear();
        self.spare = Spare::default();
    }

    /// When the dialling side should say that it is there.
    pub(crate) fn keepalive_at(&self) -> Option<Instant> {
        idle::due(self.keepalive, self.last_sent, self.silent_since)
    }

    /// A connection that nothing was heard on for so long is given up, whatever may come of it.
    pub(crate) fn given_up_at(&self) -> Option<Instant> {
        self.presumed_dead.then(|| self.dead_since + link::limits::QUIET_MAX)
    }

    /// When the link counts as dead unless something is heard; `None` while silence says nothing.
    ///
    /// Its frames go over other links then; it is probed, and comes back to life with the first answer.
    pub(crate) fn dead_at(&self) -> Option<Instant> {
        idle::dead_at(self.keepalive, self.was_waiting, self.silent_since, self.patience())
    }

    /// How long something that was sent may go without any sign of the peer.
    pub(crate) fn patience(&self) -> Duration {
        idle::patience(self.pipe.round_trip(), self.pipe.rate())
    }
}

/// What is left of a connection that ended.
pub(crate) struct Detached {
    /// What it had not delivered.
    pub(crate) undelivered: Vec<Packet>,
    /// What had come over it and was not taken yet. The peer does not send it again: it takes it for delivered.
    pub(crate) unread: Vec<(Frame, usize)>,
    /// It belonged to the present session.
    pub(crate) joined: bool,
}

type Dialling = Pin<Box<dyn Future<Output = Result<Pipe, DialError>> + Send>>;

/// What happened on a link.
pub(crate) enum Happened {
    Dialled(Result<Pipe, DialError>),
    Event(Event),
}

/// Why a link must not be used now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shut {
    /// By an order, a budget or the lack of a contact window.
    Held(String),
    /// The operator wants nothing to leave over it.
    Silent,
}

/// With less than this allowed, more is asked for: five full datagrams leave before the next look.
const ALLOWANCE_LOW: u64 = 8 << 10;

/// One link.
pub(crate) struct Line {
    /// Zero of the conversation's time.
    start: Instant,
    pub(crate) plan: LinkPlan,
    pub(crate) lane: Arc<Lane>,
    pub(crate) shaper: Shaper,
    pub(crate) live: Option<Live>,
    /// Flash frames that were sent once, over this link or another, and go over this one too; with the times, since the start,
    /// from which on.
    copies: VecDeque<(Duration, Packet)>,
    /// What they may cost.
    budget: Copies,
    pub(crate) dialling: Option<Dialling>,
    pub(crate) dial_at: Option<Instant>,
    pub(crate) backoff: Backoff,
    /// When it was connected last; the start counts, since the node may have been restarted in between.
    pub(crate) connected_last: Instant,
    pub(crate) up_since: UnixMillis,
    down_since: Option<UnixMillis>,
    /// What the last connection or attempt ended with.
    pub(crate) last: String,
    denied: bool,
    /// Why it must not be used now.
    pub(crate) shut: Option<Shut>,
    /// What its windows say.
    pub(crate) contact: Option<Contact>,
    /// Its contact ends within a round trip.
    closing: bool,
    /// When it got its present allowance; `None` without a budget.
    given: Option<UnixMillis>,
    /// When the present attempt began, and what the last one that succeeded took.
    dialled_at: Instant,
    pub(crate) handshake: Option<Duration>,
    /// Frame bytes handed to it, control first, then by class.
    pub(crate) sent_bytes: [u64; 6],
    /// What is said of it over time.
    watch: Watch,
    /// The socket that dials: the common one, or one of its own once that could be opened.
    plug: Option<Arc<Plug>>,
    /// Through which socket the present or last connection goes, and where: the lane is known there until the next one.
    place: Option<(Arc<Plug>, SocketAddr)>,
}

impl Line {
    pub(crate) fn new(plan: LinkPlan, rate: BitsPerSecond, now: Instant, start: Instant) -> Self {
        Self {
            start,
            lane: Arc::new(Lane::new(rate, now)),
            // The keeper holds no connection while emission is not allowed.
            shaper: Shaper::new(rate, quic::frame_max(quic::MTU_FIRST), shaper::Emission::Normal, now - start),
            live: None,
            copies: VecDeque::new(),
            budget: Copies::new(rate, now - start),
            dialling: None,
            dial_at: plan.address.is_some().then_some(now),
            backoff: Backoff::default(),
            connected_last: now,
            up_since: UnixMillis(0),
            down_since: None,
            last: String::new(),
            denied: false,
            shut: None,
            contact: None,
            closing: false,
            given: None,
            dialled_at: now,
            handshake: None,
            sent_bytes: [0; 6],
            watch: Watch::new(now - start),
            plug: None,
            place: None,
            plan,
        }
    }

    /// Does it have to be looked at again from time to time?
    pub(crate) fn changes_by_itself(&self) -> bool {
        self.plan.budget.is_limited() || !self.plan.windows.is_empty()
    }

    /// Looks whether the link may be used at `wall`, and gives it what it may spend. May write to the disk.
    pub(crate) fn look(&mut self, book: &Book, peer: NodeId, wall: UnixMillis, now: Instant) -> Option<Shut> {
        let (name, budget) = (&self.plan.name, &self.plan.budget);
        match book.order(peer, name) {
            LinkOrder::Use => {}
            LinkOrder::Pause => return Some(Shut::Held("paused by the operator".to_owned())),
            LinkOrder::Silence => return Some(Shut::Silent),
        }
        self.closing = false;
        if !self.plan.windows.is_empty() {
            let found = contact(&self.plan.windows, wall);
            self.contact = Some(found);
            let Some(until) = found.until else {
                let next =
                    found.next.map_or("there is no further window".to_owned(), |at| format!("next {}", show(at)));
                return Some(Shut::Held(format!("outside its contact windows; {next}")));
            };
            let round_trip = self.live.as_ref().map_or(2 * self.plan.delay, |live| live.pipe.round_trip());
            self.closing = until.0.saturating_sub(wall.0) <= round_trip.as_millis() as i64;
        }
        if budget.is_limited() {
            let time = book.time(wall, now);
            if self.given.is_none() {
                self.lane.limit();
                self.given = Some(time);
            }
            if self.lane.allowance() < ALLOWANCE_LOW {
                match book.allow(peer, name, budget, time) {
                    Ok(0) if self.lane.allowance() < FULL_DATAGRAM => {
                        return Some(Shut::Held("its budget is used up until the next day or month begins".to_owned()));
                    }
                    Ok(more) => {
                        self.lane.allow(more);
                        self.given = Some(time);
                    }
                    // What cannot be noted is not spent.
                    Err(e) => return Some(Shut::Held(format!("{e}; {}", e.next_step()))),
                }
            }
        }
        None
    }

    /// The ceiling that counts now: a window may have one of its own.
    pub(crate) fn ceiling(&self) -> BitsPerSecond {
        let window = self.contact.and_then(|contact| contact.until.and(contact.rate));
        window.map_or(self.plan.rate, |rate| rate.min(self.plan.rate))
    }

    /// Notes what was allowed and not used, at the end.
    pub(crate) fn put_back(&mut self, book: &Book, peer: NodeId) {
        if let Some(given) = self.given.take() {
            book.put_back(peer, &self.plan.name, given, self.lane.take_allowance());
        }
    }

    /// As the planner sees it.
    pub(crate) fn to_plan(&self) -> shaper::plan::Link {
        let live = self.live.as_ref().is_some_and(|live| live.joined && !live.presumed_dead);
        let usable = live && self.shut.is_none();
        let measured = self.live.as_ref().map(|live| live.pipe.round_trip() / 2);
        let delay = measured.unwrap_or(self.plan.delay);
        shaper::plan::Link { usable, cost: self.plan.cost, delay, admits: self.plan.admits, closing: self.closing }
    }

    pub(crate) fn set_rate(&mut self, rate: BitsPerSecond, now: Instant, start: Instant) {
        self.plan.rate = rate;
        self.apply_ceiling(now, start);
        self.dial_soon(now);
    }

    pub(crate) fn apply_ceiling(&mut self, now: Instant, start: Instant) {
        let rate = self.ceiling();
        if rate != self.lane.rate() {
            self.lane.set_rate(rate);
            self.shaper.set_rate(rate, now - start);
            self.live.iter_mut().for_each(|live| live.pipe.set_rate(rate));
        }
    }

    /// Something has changed that may bring it up.
    pub(crate) fn dial_soon(&mut self, now: Instant) {
        if self.dialling.is_none() && self.live.is_none() && self.shut.is_none() {
            self.backoff.reset();
            self.dial_at = self.plan.address.is_some().then_some(now);
        }
    }

    pub(crate) fn stop_dialling(&mut self) {
        self.dialling = None;
        self.dial_at = None;
    }

    pub(crate) fn dial(&mut self, common: &Arc<Plug>, node: NodeId) {
        self.dial_at = None;
        let Some(address) = self.plan.address.clone() else { return };
        let lane = Arc::clone(&self.lane);
        self.dialled_at = clock::now();
        if let Some(https) = self.plan.https.clone() {
            let (key, governor, out) = (common.key().clone(), Arc::clone(common.governor()), self.plan.out.clone());
            let dialling = https::dial(key, node, address, out, https, governor, lane);
            self.dialling = Some(Box::pin(async move { Ok(Pipe::Stream(Box::new(dialling.await?))) }));
            return;
        }
        self.dialling = Some(match self.plug(common) {
            Ok(plug) => Box::pin(async move { plug.dial(node, &address, &lane, true).await.map(Pipe::quic) }),
            Err(e) => Box::pin(std::future::ready(Err(DialError::Outlet(e)))),
        });
    }

    fn plug(&mut self, common: &Arc<Plug>) -> std::io::Result<Arc<Plug>> {
        if let Some(plug) = &self.plug {
            return Ok(Arc::clone(plug));
        }
        let plug = match &self.plan.out {
            out if *out == Outlet::default() => Arc::clone(common),
            out => Arc::new(common.beside(out)?),
        };
        Ok(Arc::clone(self.plug.insert(plug)))
    }

    /// The attempt, or the connection, ended: another attempt follows unless the peer is the one to dial.
    pub(crate) fn dial_later(&mut self, reason: String, now: Instant) {
        self.last = reason;
        self.denied = false;
        if self.plan.address.is_some() {
            let wait = match self.live {
                Some(_) => REDIAL,
                None => self.backoff.next(now.duration_since(self.connected_last), jitter),
            };
            self.dial_at = Some(now + wait);
        }
    }

    /// The other side does not want us: asked again from time to time, since its operator may change that.
    pub(crate) fn refused(&mut self, text: String, now: Instant) {
        self.last = text;
        self.denied = true;
        self.dial_at = self.plan.address.is_some().then(|| now + self.backoff.refused(jitter));
    }

    /// A connection begins.
    pub(crate) fn attach(&mut self, mut live: Live, common: &Arc<Plug>, now: Instant, wall: UnixMillis) {
        self.stop_dialling();
        self.backoff.reset();
        live.pipe.set_rate(self.lane.rate());
        live.pipe.charge_to(&self.lane);
        self.live = Some(live);
        self.connected_last = now;
        self.up_since = wall;
        self.denied = false;
        self.follow(common);
    }

    /// The connection ends. `None` when there is none.
    pub(crate) fn detach(&mut self, code: CloseCode, text: &str, now: Instant, wall: UnixMillis) -> Option<Detached> {
        let mut live = self.live.take()?;
        let mut unread = live.held.take();
        for event in live.pipe.close(code, text) {
            match event {
                Event::Frame(frame, len) => unread.push((frame, len)),
                Event::Delivered(number) => drop(live.under_way.remove(&number)),
                Event::Unreadable(_) | Event::Closed(_) => {}
            }
        }
        self.connected_last = now;
        self.down_since = Some(wall);
        self.copies.clear();
        Some(Detached { undelivered: live.under_way.into_values().collect(), unread, joined: live.joined })
    }

    /// Charges what goes to where the peer is to this link, and to it alone.
    pub(crate) fn follow(&mut self, common: &Arc<Plug>) {
        let Some(address) = self.live.as_ref().and_then(|live| live.pipe.remote()) else { return };
        let plug = self.plug.as_ref().unwrap_or(common);
        if self.place.as_ref().is_some_and(|(p, a)| *a == address && Arc::ptr_eq(p, plug)) {
            return;
        }
        plug.assign(address, &self.lane);
        if let Some((plug, former)) = self.place.replace((Arc::clone(plug), address)) {
            plug.release(former, &self.lane);
        }
    }

    /// An attempt to connect has failed and taken the lane from where it went, which may be where a connection still goes.
    pub(crate) fn follow_again(&mut self, common: &Arc<Plug>) {
        self.place = None;
        self.follow(common);
    }

    /// At the end. A silent link keeps its place: what the socket still wants to say there must find the silent lane.
    pub(crate) fn forget_place(&mut self) {
        if self.shut == Some(Shut::Silent) {
            return;
        }
        if let Some((plug, address)) = self.place.take() {
            plug.release(address, &self.lane);
        }
    }

    /// Frames are granted at the pace that the link was found to carry: more would wait below, where nothing passes it.
    pub(crate) fn follow_pace(&mut self, now: Duration) {
        if let Some(live) = &self.live {
            self.shaper.set_rate(live.pipe.rate().min(self.lane.rate()), now);
            self.shaper.set_path_mtu(quic::frame_max(live.pipe.mtu()), now);
        }
    }

    /// Hands a frame to the connection.
    pub(crate) fn send(&mut self, packet: Packet, now: Instant) {
        let Some(live) = &mut self.live else { return };
        let len = packet.bytes.len();
        self.shaper.spent(lane_of(packet.lane), quic::bytes_with_headers(len, live.pipe.mtu()));
        self.sent_bytes[match packet.lane {
            Class::Control => 0,
            Class::Class(class) => 1 + class.index(),
        }] += len as u64;
        live.pipe.send(packet.number, packet.lane, packet.bytes.clone());
        live.last_sent = now;
        if !live.under_way.contains_key(&packet.number) {
            live.spare.sent(packet.number, len, packet.hurried, &live.pipe.spare_view(), now - self.start);
        }
        live.under_way.insert(packet.number, packet);
    }

    /// A frame to be sent once more now that there is nothing else to do. Otherwise, when there may be one.
    pub(crate) fn take_spare(&mut self, now: Duration) -> Result<Packet, Option<Duration>> {
        let Some(live) = &mut self.live else { return Err(None) };
        let (due, next) = live.spare.due(&live.pipe.spare_view(), now);
        let Some((number, len)) = due else { return Err(next) };
        let demand = Demand { control: true, ..Demand::default() };
        if self.shaper.grant(now, &demand).is_none() {
            return Err(self.shaper.wake_at());
        }
        live.spare.copied(number);
        match live.under_way.get(&number).cloned() {
            Some(packet) if self.budget.afford(len, self.lane.rate(), now) => Ok(packet),
            // It is left to QUIC.
            Some(_) | None => Err(Some(now)),
        }
    }

    /// A flash frame went over another link.
    pub(crate) fn copy(&mut self, packet: &Packet, now: Duration) {
        if self.copies.len() < COPIES_MAX {
            self.copies.push_back((now, packet.clone()));
        }
    }

    /// A lone flash frame goes over this link: as many copies follow as its losses ask for.
    pub(crate) fn repeat(&mut self, packet: &Packet, now: Duration) {
        let Some(live) = &self.live else { return };
        let (rate, lost, slice) = (self.lane.rate(), live.pipe.lost_permille(), self.shaper.slice());
        let times = self.budget.of(Precedence::Flash, packet.bytes.len(), slice, lost, rate, now);
        let spacing = shaper::spacing(live.pipe.round_trip());
        for n in (1..times).take(COPIES_MAX.saturating_sub(self.copies.len())) {
            self.copies.push_back((now + n * spacing, packet.clone()));
        }
    }

    /// Does a copy wait whose time has come?
    pub(crate) fn has_copy(&self, now: Duration) -> bool {
        self.copies.iter().any(|(due, _)| *due <= now)
    }

    pub(crate) fn take_copy(&mut self, now: Duration) -> Option<Packet> {
        let at = self.copies.iter().position(|(due, _)| *due <= now)?;
        self.copies.remove(at).map(|(_, packet)| packet)
    }

    /// When the next copy's time comes.
    pub(crate) fn copy_due(&self, now: Duration) -> Option<Duration> {
        self.copies.iter().map(|(due, _)| *due).filter(|due| *due > now).min()
    }

    pub(crate) fn forget_copies(&mut self) {
        self.copies.clear();
    }

    /// The peer has this frame, whichever way it went.
    pub(crate) fn delivered(&mut self, number: FrameNumber, now: Duration) {
        if let Some(live) = &mut self.live {
            live.under_way.remove(&number);
            live.spare.delivered(number, now);
        }
        self.copies.retain(|(_, copy)| copy.number != number);
    }

    pub(crate) fn has(&self, number: FrameNumber) -> bool {
        self.live.as_ref().is_some_and(|live| !live.presumed_dead && live.under_way.contains_key(&number))
    }

    /// When this side, if it is the dialling one, says that it is there.
    pub(crate) fn keepalive_at(&self) -> Option<Instant> {
        let live = self.live.as_ref().filter(|live| live.joined && !live.presumed_dead)?;
        self.plan.address.as_ref().and_then(|_| live.keepalive_at())
    }

    /// What is said of it at `now`, since the start.
    pub(crate) fn reach(&mut self, may_emit: bool, now: Duration) -> Reach {
        let sight = match (self.state(may_emit), &self.live) {
            (PeerState::Up { .. }, Some(live)) => Sight::There(live.pipe.quality(self.ceiling())),
            // No link of this kind is one-way or leads over a relay: those have no line.
            (
                PeerState::Up { .. }
                | PeerState::Connecting { .. }
                | PeerState::Down { .. }
                | PeerState::OneWay
                | PeerState::Relayed { .. },
                _,
            ) => Sight::Away,
            (PeerState::Silent, _) => Sight::Silent,
            (PeerState::Held { .. }, _) => Sight::Held,
            (PeerState::Denied { .. }, _) => Sight::Denied,
        };
        self.watch.see(now, sight)
    }

    /// When what is said of it changes by itself.
    pub(crate) fn reach_changes_at(&self) -> Option<Duration> {
        self.watch.changes_at()
    }

    /// What the operator sees.
    pub(crate) fn state(&self, may_emit: bool) -> PeerState {
        match &self.live {
            _ if !may_emit || matches!(self.shut, Some(Shut::Silent)) => PeerState::Silent,
            _ if let Some(Shut::Held(why)) = &self.shut => PeerState::Held { why: why.clone() },
            Some(live) if live.presumed_dead => PeerState::Down { since: self.down_since, last: self.last.clone() },
            Some(live) if !live.joined => PeerState::Connecting { last: self.last.clone() },
            Some(_) => PeerState::Up { since: self.up_since },
            None if self.denied => PeerState::Denied { text: self.last.clone() },
            None if self.dialling.is_some() => PeerState::Connecting { last: self.last.clone() },
            None => PeerState::Down { since: self.down_since, last: self.last.clone() },
        }
    }

    pub(crate) fn presume_dead(&mut self, now: Instant, wall: UnixMillis) {
        self.down_since = Some(wall);
        if let Some(live) = &mut self.live {
            live.presumed_dead = true;
            live.dead_since = now;
        }
    }

    /// The next thing that happens on it. To be polled again when it was not ready; nothing is lost in between.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Happened> {
        if let Some(dialling) = &mut self.dialling
            && let Poll::Ready(result) = dialling.as_mut().poll(cx)
        {
            self.dialling = None;
            self.handshake = result.is_ok().then(|| clock::now() - self.dialled_at);
            return Poll::Ready(Happened::Dialled(result));
        }
        match &mut self.live {
            Some(live) => poll_pipe(&mut live.pipe, cx).map(Happened::Event),
            None => Poll::Pending,
        }
    }
}

/// [`Pipe::next`] is cancel-safe, so a future of it may be made anew for each poll.
pub(crate) fn poll_pipe(pipe: &mut Pipe, cx: &mut Context<'_>) -> Poll<Event> {
    std::pin::pin!(pipe.next()).poll(cx)
}

fn show(at: UnixMillis) -> String {
    jiff::Timestamp::from_millisecond(at.0).map_or_else(|_| at.0.to_string(), |at| format!("{at:.0}"))
}

/// The shaper's name of a lane.
pub(crate) fn lane_of(lane: Class) -> shaper::Lane {
    match lane {
        Class::Control => shaper::Lane::Control,
        Class::Class(class) => shaper::Lane::Class(class),
    }
}
