//! Two ends of a connection over an imagined link, in virtual time: quinn's protocol state machines with our settings, our
//! controller, shaper and governor. What a run says does not depend on the machine.

mod figures;
mod files;
mod idle;
mod path;
mod talk;
mod urgent;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use keys::NodeKey;
use model::{BitsPerSecond, Precedence};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{EndpointConfig, ServerConfig};
use quinn_proto::{Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, Event, StreamEvent, StreamId};
use shaper::{Copies, Demand, Shaper};

use crate::clock;
use crate::firsts::Firsts;
use crate::governor::{Governor, Lane, Verdict};
use crate::prober::{PathView, Prober};
use crate::quic::{self, SharedRate};
use crate::spare::Spare;
use crate::tls;
use path::{Path, Weather};
use talk::Talk;

/// A lone flash post as a frame.
const FLASH_BYTES: u64 = 120;

/// About what a session says first.
const GREETING_BYTES: usize = 150;

/// Above every class, as in the pipe.
const CONTROL: i32 = 10;

struct Site {
    /// Zero of the trial's time.
    base: Instant,
    endpoint: Endpoint,
    connection: Option<(ConnectionHandle, Connection)>,
    server: Option<Arc<QuicServerConfig>>,
    peer: SocketAddr,
    governor: Governor,
    rate: SharedRate,
    shaper: Shaper,
    /// A datagram that the governor has refused so far, and until when.
    held: Option<(Vec<u8>, Instant)>,
    firsts: Firsts,
    /// Frames that the peer's end has not confirmed.
    unconfirmed: HashMap<StreamId, u64>,
    prober: Prober,
    outstanding: u64,
    /// Frames that are being received, with what came so far.
    arriving: HashMap<StreamId, BytesMut>,
    /// Link sessions above the connection, instead of the backlog.
    talk: Option<Talk>,
    /// The session has something to send, for which the shaper has a grant then.
    talk_at: Option<Duration>,
    /// The session's frames that are not confirmed, by number, and what streams carry them.
    frames: HashMap<u64, (Bytes, shaper::Lane, i32)>,
    numbers: HashMap<StreamId, u64>,
    spare: Spare,
    greeted: bool,
    /// Bytes that the application still wants to send.
    backlog: u64,
    delivered: u64,
    /// When the last whole frame arrived.
    last_arrival: Duration,
    /// Streams that arrived whole and were not looked at.
    whole: Vec<StreamId>,
    /// Flash posts: number and when each was written; those that wait, and copies with the time when each is due.
    flash: VecDeque<(u64, Duration)>,
    copies: VecDeque<(Duration, u64)>,
    budget: Copies,
    /// Streams that carry a flash post, while they are under way.
    carries: HashMap<StreamId, u64>,
    /// When each flash post arrived first.
    arrived: HashMap<u64, Duration>,
}

/// An edge (0) dials a hub (1).
struct Trial {
    base: Instant,
    now: Duration,
    sites: [Site; 2],
    /// From the edge, from the hub.
    paths: [Path; 2],
}

impl Trial {
    /// `configured`: what both ends believe the link carries.
    fn new(configured: BitsPerSecond, there: Weather, back: Weather, seed: u64) -> Self {
        let base = clock::now();
        let (edge_key, hub_key) = (NodeKey::generate(), NodeKey::generate());
        let addresses: [SocketAddr; 2] = [([10, 0, 0, 1], 1_000).into(), ([10, 0, 0, 2], 2_000).into()];
        let site = |index: usize| {
            let mut config = EndpointConfig::default();
            config.rng_seed(Some([seed as u8 ^ index as u8; 32]));
            let server = (index == 1).then(|| tls::server(&hub_key));
            let listening = server.clone().map(|s| Arc::new(ServerConfig::with_crypto(s)));
            let governor = Governor::new(true, configured);
            let (lane, rate) = (Arc::new(Lane::new(configured, base)), SharedRate::new(configured));
            lane.follow(&rate);
            governor.assign((0, addresses[1 - index]), &lane);
            Site {
                base,
                endpoint: Endpoint::new(Arc::new(config), listening, true, None),
                connection: None,
                server,
                peer: addresses[1 - index],
                governor,
                rate,
                shaper: Shaper::new(
                    configured,
                    quic::frame_max(quic::MTU_FIRST),
                    shaper::Emission::Normal,
                    Duration::ZERO,
                ),
                held: None,
                firsts: Firsts::default(),
                unconfirmed: HashMap::new(),
                prober: Prober::new(false, base),
                outstanding: 0,
                arriving: HashMap::new(),
                talk: None,
                talk_at: None,
                frames: HashMap::new(),
                numbers: HashMap::new(),
                spare: Spare::default(),
                greeted: false,
                backlog: 0,
                delivered: 0,
                last_arrival: Duration::ZERO,
                whole: Vec::new(),
                flash: VecDeque::new(),
                copies: VecDeque::new(),
                budget: Copies::new(configured, Duration::ZERO),
                carries: HashMap::new(),
                arrived: HashMap::new(),
            }
        };
        let mut sites = [site(0), site(1)];
        let mut config = quinn::ClientConfig::new(tls::client(&edge_key, hub_key.node_id(), tls::ALPN_SESSION));
        config.transport_config(quic::transport(&sites[0].rate));
        let dialled = sites[0].endpoint.connect(base, config, addresses[1], "holdfast").expect("a valid configuration");
        sites[0].connection = Some(dialled);
        let paths = [Path::new(there, seed), Path::new(back, seed ^ 0x5555)];
        let mut trial = Self { base, now: Duration::ZERO, sites, paths };
        trial.settle(0);
        trial
    }

    /// Runs until `stop` says so, or until `end`. Returns whether `stop` did.
    fn run(&mut self, end: Duration, mut stop: impl FnMut(&Self) -> bool) -> bool {
        while self.now < end {
            if stop(self) {
                return true;
            }
            let timers = [self.wake_at(0), self.wake_at(1)].into_iter().flatten();
            let Some(next) = timers.chain(self.paths.iter().filter_map(Path::next_arrival)).min() else { return false };
            if next >= end {
                self.now = end;
                return false;
            }
            self.now = self.now.max(next);
            for to in 0..2 {
                while let Some(datagram) = self.paths[1 - to].receive(self.now) {
                    self.receive(to, &datagram);
                }
                let at = self.instant();
                if let Some((_, connection)) = &mut self.sites[to].connection
                    && connection.poll_timeout().is_some_and(|due| due <= at)
                {
                    connection.handle_timeout(at);
                }
                self.settle(to);
            }
        }
        false
    }

    fn instant(&self) -> Instant {
        self.base + self.now
    }

    fn wake_at(&mut self, index: usize) -> Option<Duration> {
        let site = &mut self.sites[index];
        let (_, connection) = site.connection.as_mut()?;
        let timer = connection.poll_timeout();
        let lane = site.held.as_ref().map(|(_, at)| *at);
        let due = timer
            .into_iter()
            .chain(lane)
            .chain(site.firsts.due())
            .min()
            .map(|at| at.saturating_duration_since(self.base));
        let posts = site.flash.front().map(|(_, at)| *at).into_iter().chain(site.copies.front().map(|(at, _)| *at));
        let post = posts.min().filter(|_| site.greeted).map(|at| at.max(site.shaper.wake_at().unwrap_or(at)));
        let wants = site.greeted && site.backlog > 0 && site.room() > 0;
        let shaper = if wants { site.shaper.wake_at() } else { None };
        let talk = site.talk.as_ref().and_then(Talk::due).into_iter().chain(site.talk_at).min();
        let probe = site.path().and_then(|path| site.prober.due(&path, !site.unconfirmed.is_empty()));
        let probe = probe.map(|at| at.saturating_duration_since(self.base));
        [due, shaper, probe, post, talk].into_iter().flatten().min()
    }

    fn receive(&mut self, to: usize, datagram: &[u8]) {
        let at = self.instant();
        let site = &mut self.sites[to];
        site.firsts.came(datagram, site.peer, at);
        let mut answer = Vec::new();
        let event = site.endpoint.handle(at, site.peer, None, None, BytesMut::from(datagram), &mut answer);
        match event {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some((ours, connection)) = &mut site.connection
                    && *ours == handle
                {
                    connection.handle_event(event);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                let Some(server) = &site.server else { return };
                let mut config = ServerConfig::with_crypto(Arc::clone(server) as Arc<_>);
                config.transport_config(quic::transport(&site.rate));
                let accepted = site.endpoint.accept(incoming, at, &mut answer, Some(Arc::new(config)));
                site.connection = accepted.ok();
            }
            Some(DatagramEvent::Response(_)) | None => {}
        }
    }

    /// Lets one end do whatever it can do without time passing.
    fn settle(&mut self, index: usize) {
        let (at, now) = (self.instant(), self.now);
        let site = &mut self.sites[index];
        loop {
            site.events(now);
            site.application(now, at);
            if !site.transmit(at, |datagram| self.paths[index].send(now, datagram)) {
                break;
            }
        }
        for id in std::mem::take(&mut self.sites[index].whole) {
            if let Some(post) = self.sites[1 - index].carries.get(&id) {
                let post = *post;
                self.sites[index].arrived.entry(post).or_insert(now);
            }
        }
    }
}

impl Site {
    fn mtu(&self) -> u16 {
        self.connection.as_ref().map_or(quic::MTU_FIRST, |(_, connection)| connection.stats().path.current_mtu)
    }

    fn room(&self) -> u64 {
        let Some((_, connection)) = &self.connection else { return 0 };
        quic::room(&self.rate, &connection.stats().path, self.outstanding, self.unconfirmed.len())
    }

    fn events(&mut self, now: Duration) {
        let Some((handle, connection)) = &mut self.connection else { return };
        while let Some(event) = connection.poll_endpoint_events() {
            if let Some(answer) = self.endpoint.handle_event(*handle, event) {
                connection.handle_event(answer);
            }
        }
        let (mut readable, mut connected) = (Vec::new(), false);
        while let Some(event) = connection.poll() {
            if matches!(event, Event::Connected) {
                self.prober = Prober::new(self.server.is_none(), self.base + now);
            }
            match event {
                Event::Connected if self.talk.is_some() => connected = self.server.is_none(),
                Event::Connected => {
                    let control = connection.streams().open(Dir::Uni).expect("the handshake brought credit");
                    let mut stream = connection.send_stream(control);
                    stream.set_priority(10).expect("it is open");
                    assert_eq!(stream.write(&[0; GREETING_BYTES]).expect("it is open"), GREETING_BYTES);
                }
                Event::Stream(StreamEvent::Finished { id }) => {
                    self.outstanding -= self.unconfirmed.remove(&id).expect("it was sent");
                    if let Some(number) = self.numbers.remove(&id) {
                        self.frames.remove(&number);
                        self.spare.delivered(number, now);
                    }
                }
                Event::Stream(StreamEvent::Opened { .. }) => {
                    while let Some(id) = connection.streams().accept(Dir::Uni) {
                        self.arriving.insert(id, BytesMut::new());
                        readable.push(id);
                    }
                }
                Event::Stream(StreamEvent::Readable { id }) => readable.push(id),
                Event::ConnectionLost { reason } => panic!("the connection is lost: {reason}"),
                Event::HandshakeDataReady
                | Event::Stream(
                    StreamEvent::Writable { .. } | StreamEvent::Stopped { .. } | StreamEvent::Available { .. },
                )
                | Event::DatagramReceived
                | Event::DatagramsUnblocked => {}
            }
        }
        if connected {
            self.join(now);
        }
        for id in readable {
            self.read(id, now);
        }
    }

    fn join(&mut self, now: Duration) {
        let Some(talk) = &mut self.talk else { return };
        let join = talk.connected(now);
        self.send_frame(shaper::Lane::Control, join, CONTROL, true, now);
    }

    fn read(&mut self, id: StreamId, now: Duration) {
        let Some((_, connection)) = &mut self.connection else { return };
        let Some(so_far) = self.arriving.get_mut(&id) else { return };
        let mut stream = connection.recv_stream(id);
        let Ok(mut chunks) = stream.read(true) else { return };
        let whole = loop {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => so_far.extend_from_slice(&chunk.bytes),
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        let _ = chunks.finalize();
        if whole {
            let frame = self.arriving.remove(&id).expect("it is there");
            self.delivered += frame.len() as u64;
            self.last_arrival = now;
            self.whole.push(id);
            // Whoever is dialled learns by the first frame which session it is.
            if self.talk.as_mut().is_some_and(|talk| talk.take(&frame, now)) && self.server.is_some() {
                self.join(now);
            }
        } else if id.index() == 0 && so_far.len() >= GREETING_BYTES && self.talk.is_none() {
            self.greeted = true;
        }
    }

    /// Hands frames to the connection as the keeper does.
    fn hand_over(&mut self, now: Duration) {
        self.shaper.set_rate(self.rate.pace(), now);
        self.shaper.set_path_mtu(quic::frame_max(self.mtu()), now);
        while self.greeted {
            let copy = self.copies.front().is_some_and(|(at, _)| *at <= now);
            let flash = self.flash.front().is_some_and(|(_, at)| *at <= now);
            let mut demand = Demand::default();
            demand.classes[Precedence::Flash.index()] = copy || flash;
            demand.classes[Precedence::Routine.index()] = self.backlog > 0 && self.room() > 0;
            if demand == Demand::default() {
                return;
            }
            let Some(grant) = self.shaper.grant(now, &demand) else { return };
            if grant.lane == shaper::Lane::Class(Precedence::Flash) {
                let copied = if copy { self.copies.pop_front().map(|(_, post)| post) } else { None };
                let Some(post) = copied.or_else(|| self.flash.pop_front().map(|(post, _)| post)) else { return };
                if copied.is_none() {
                    self.copy(post, now);
                }
                let Some(id) = self.send(grant.lane, zeros(FLASH_BYTES), 5, now) else { return };
                self.carries.insert(id, post);
            } else {
                let bytes = (grant.bytes as u64).min(self.backlog);
                if self.send(grant.lane, zeros(bytes), 2, now).is_none() {
                    return;
                }
                self.backlog -= bytes;
            }
        }
    }

    /// The same for what a session has to say.
    fn hand_over_talk(&mut self, now: Duration) {
        self.talk_at = None;
        loop {
            let room = self.room() > 0;
            let Some(talk) = &mut self.talk else { return };
            let waiting = talk.waiting(now);
            let mut demand = Demand { control: waiting.control, classes: waiting.classes };
            for class in Precedence::ALL.into_iter().filter(|class| *class > Precedence::Immediate) {
                demand.classes[class.index()] &= room;
            }
            if demand == Demand::default() {
                if waiting.is_empty() && self.repeat(now) {
                    continue;
                }
                return;
            }
            let Some(grant) = self.shaper.grant(now, &demand) else {
                self.talk_at = self.shaper.wake_at();
                return;
            };
            let (lane, priority) = match grant.lane {
                shaper::Lane::Control => (link::Lane::Control, CONTROL),
                shaper::Lane::Class(class) => (link::Lane::Class(class), 5 - class.index() as i32),
            };
            if let Some((frame, hurried)) = talk.next_frame(lane, grant.bytes, now) {
                self.send_frame(grant.lane, frame, priority, hurried, now);
            }
        }
    }

    fn send_frame(&mut self, lane: shaper::Lane, frame: Bytes, priority: i32, hurried: bool, now: Duration) {
        let Some(id) = self.send(lane, frame.clone(), priority, now) else { return };
        let number = id.index();
        let Some((_, connection)) = &self.connection else { return };
        let path = quic::spare_view(&self.rate, &connection.stats().path);
        self.spare.sent(number, frame.len(), hurried, &path, now);
        self.numbers.insert(id, number);
        self.frames.insert(number, (frame, lane, priority));
    }

    /// Sends something once more, as the keeper does while nothing else waits.
    fn repeat(&mut self, now: Duration) -> bool {
        let Some((_, connection)) = &self.connection else { return false };
        let view = quic::spare_view(&self.rate, &connection.stats().path);
        let (due, next) = self.spare.due(&view, now);
        self.talk_at = next;
        let Some((number, len)) = due else { return false };
        if self.shaper.grant(now, &Demand { control: true, ..Demand::default() }).is_none() {
            self.talk_at = self.shaper.wake_at();
            return false;
        }
        if !self.budget.afford(len, self.rate.pace(), now) {
            return false;
        }
        self.spare.copied(number);
        let (frame, lane, priority) = self.frames[&number].clone();
        let Some(id) = self.send(lane, frame, priority, now) else { return false };
        self.numbers.insert(id, number);
        true
    }

    fn application(&mut self, now: Duration, at: Instant) {
        self.hand_over(now);
        self.hand_over_talk(now);
        let Some(path) = self.path() else { return };
        self.prober.note(&path, at);
        if self.prober.probe(&path, !self.unconfirmed.is_empty(), at) {
            self.rate.allow_probe();
            if let Some((_, connection)) = &mut self.connection {
                connection.datagrams().send(Bytes::new(), true).expect("the peer takes datagrams");
            }
        }
    }

    fn path(&self) -> Option<PathView> {
        let (_, connection) = self.connection.as_ref()?;
        Some(quic::path_view(&self.rate, &connection.stats()))
    }

    /// As many copies of a flash post as the loss asks for.
    fn copy(&mut self, post: u64, now: Duration) {
        let Some((_, connection)) = &self.connection else { return };
        let path = connection.stats().path;
        let (rate, slice, lost) = (self.rate.pace(), self.shaper.slice(), quic::lost_permille(&self.rate, &path));
        let copies = self.budget.of(Precedence::Flash, FLASH_BYTES as usize, slice, lost, rate, now);
        self.copies.extend((1..copies).map(|n| (now + n * shaper::spacing(path.rtt), post)));
    }

    fn send(&mut self, lane: shaper::Lane, frame: Bytes, priority: i32, now: Duration) -> Option<StreamId> {
        let (_, connection) = self.connection.as_mut()?;
        let id = connection.streams().open(Dir::Uni)?;
        let mut stream = connection.send_stream(id);
        stream.set_priority(priority).expect("it is open");
        let bytes = frame.len();
        let written = stream.write_chunks(&mut [frame]).expect("the send window is wide").bytes;
        assert_eq!(written, bytes);
        stream.finish().expect("it is open");
        self.prober.sent(!self.unconfirmed.is_empty(), self.base + now);
        self.unconfirmed.insert(id, bytes as u64);
        self.outstanding += bytes as u64;
        self.shaper.spent(lane, quic::bytes_with_headers(bytes, self.mtu()));
        Some(id)
    }

    /// Returns whether something was sent.
    fn transmit(&mut self, at: Instant, mut send: impl FnMut(Vec<u8>)) -> bool {
        let mut sent = false;
        while let Some(copy) = self.firsts.take(at) {
            let pass = || -> Result<(), ()> {
                send(copy.datagram.clone());
                Ok(())
            };
            if let Verdict::NotBefore(free) = self.governor.submit((0, copy.to), copy.datagram.len(), at, pass) {
                self.firsts.later(copy, free);
                break;
            }
        }
        loop {
            let datagram = match self.held.take() {
                Some((datagram, _)) => datagram,
                None => {
                    let Some((_, connection)) = &mut self.connection else { return sent };
                    let mut buffer = Vec::new();
                    if connection.poll_transmit(at, 1, &mut buffer).is_none() {
                        return sent;
                    }
                    buffer
                }
            };
            let pass = || -> Result<(), ()> {
                send(datagram.clone());
                Ok(())
            };
            match self.governor.submit((0, self.peer), datagram.len(), at, pass) {
                Verdict::Sent | Verdict::Dropped => {
                    sent = true;
                    let of_peer = |(_, c): &(_, quinn_proto::Connection)| c.side().is_client() || !c.is_handshaking();
                    let is_assigned = self.connection.as_ref().is_some_and(of_peer);
                    self.firsts.sent(&datagram, None, self.peer, self.rate.ceiling(), is_assigned, at);
                }
                Verdict::NotBefore(free) => {
                    self.held = Some((datagram, free));
                    return sent;
                }
                Verdict::Failed(()) => unreachable!("the imagined socket takes everything"),
            }
        }
    }
}

fn zeros(bytes: u64) -> Bytes {
    Bytes::from(vec![0; bytes as usize])
}
