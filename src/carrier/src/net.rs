//! The node's links: one socket, a keeper per enrolled peer, a door for those who dial.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use keys::{NodeKey, Peer, PeerName, PeerRegistry};
use model::{BitsPerSecond, Clock, NodeId, Precedence, UnixMillis};
use quinn::Incoming;
use telemetry::{Direction, LinkReach, LinkState, Metrics};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::{JoinSet, block_in_place};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::book::{Book, LinkOrder};
use crate::clock;
use crate::doorway::{Doorway, Place};
use crate::endpoint::{Plug, Proven};
use crate::enroll::Desk;
use crate::governor::Governor;
use crate::https;
use crate::keeper::{Keeper, NOT_ENROLLED, Post, TestOrder, View};
use crate::oneway::Outgoing;
use crate::pipe::{CloseCode, Pipe};
use crate::reach::Reach;
use crate::settings::LinkName;
use crate::status::{LinkMeasured, LinkStatus};
use crate::talk::Talks;
use crate::transit::Via;
use crate::{CarrierError, CarrierSettings, Emission, PeerState, PeerStatus};

/// Handshakes over HTTPS at a time. A limit of their own: TCP has nothing like QUIC's retry against whoever opens many and says
/// nothing, and QUIC must not suffer from that. Each may take 128 KiB of buffers.
const HTTPS_HANDSHAKES_MAX: usize = 64;

/// Handshakes from outside at the same time. Each costs a signature and some kilobytes; a fleet of 1,000 edges that all come
/// back at once is served in the order in which they repeat themselves.
const HANDSHAKES_MAX: usize = 128;
/// And as many more from where enrolled peers were seen: whoever fills the doorway elsewhere keeps none of these out.
const HANDSHAKES_KNOWN_MAX: usize = 64;
/// Enrolments at the same time. Each may take a minute, and anybody may begin one.
const ENROLMENTS_MAX: usize = 32;
/// Nodes that are being told why they are refused. The others are told without anybody waiting for it to arrive.
const REFUSALS_MAX: usize = 32;
/// Above this many, an address must first show that it can receive, which costs it a round trip.
const HANDSHAKES_UNCHECKED: usize = 32;
/// New connections of one peer that wait for its keeper. More than a few means that an older one is of no interest.
const ACCEPTED_MAX: usize = 4;
/// How often figures are published. Local only: nothing is sent for it.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);
/// How long the word of refusal may take before the connection is forgotten.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(20);

/// What the handle and the tasks share.
pub(crate) struct Shared {
    pub(crate) plug: Arc<Plug>,
    /// Where peers come in over HTTPS.
    https: Option<Arc<https::Door>>,
    pub(crate) registry: Arc<PeerRegistry>,
    pub(crate) settings: Arc<CarrierSettings>,
    pub(crate) data_dir: PathBuf,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) emission: watch::Sender<Emission>,
    /// Rates set while running; they hold until the restart.
    rates: Mutex<BTreeMap<NodeId, BitsPerSecond>>,
    pub(crate) book: Arc<Book>,
    /// One-way lanes, by the name of the peer that they lead to.
    pub(crate) oneways: BTreeMap<PeerName, Arc<Outgoing>>,
    /// Ways over relays, by the name of the peer that they lead to.
    pub(crate) vias: BTreeMap<PeerName, Arc<Via>>,
    /// Counts changes of what the operator orders for links.
    orders: watch::Sender<u64>,
    seats: Mutex<BTreeMap<NodeId, Arc<Seat>>>,
    /// Counts changes of the registry.
    pub(crate) peers_changed: watch::Sender<u64>,
    /// Counts changes of the finals.
    pub(crate) finals: watch::Sender<u64>,
    pub(crate) start: Instant,
    doors: Doors,
}

/// Who may be at the door, before and after a key was proved.
struct Doors {
    quic: Arc<Doorway>,
    https: Arc<Doorway>,
    known: Arc<Doorway>,
    enrolments: Arc<Doorway>,
    refusals: Semaphore,
    /// Where each enrolled peer came from last.
    seen: Mutex<BTreeMap<NodeId, IpAddr>>,
}

impl Doors {
    fn new() -> Self {
        Self {
            quic: Doorway::new(HANDSHAKES_MAX),
            https: Doorway::new(HTTPS_HANDSHAKES_MAX),
            known: Doorway::new(HANDSHAKES_KNOWN_MAX),
            enrolments: Doorway::new(ENROLMENTS_MAX),
            refusals: Semaphore::new(REFUSALS_MAX),
            seen: Mutex::default(),
        }
    }

    fn seen(&self) -> MutexGuard<'_, BTreeMap<NodeId, IpAddr>> {
        self.seen.lock().expect("nothing panics while holding addresses")
    }

    /// A place for a handshake, of those for where it comes from or of all.
    fn enter(&self, all: &Arc<Doorway>, from: IpAddr) -> Option<Place> {
        let (now, from) = (clock::now(), from.to_canonical());
        let is_known = self.seen().values().any(|address| *address == from);
        let known = if is_known { self.known.enter(from, now) } else { None };
        known.or_else(|| all.enter(from, now))
    }
}

/// What is known of an enrolled peer while the node runs.
struct Seat {
    peer: Peer,
    view: Arc<Mutex<View>>,
    /// Set while running.
    rate: watch::Sender<Option<BitsPerSecond>>,
    accepted: mpsc::Sender<Pipe>,
    tests: mpsc::Sender<TestOrder>,
    stop: CancellationToken,
}

/// Figures at the last look, of which counters get the growth.
#[derive(Default)]
struct Published {
    peers: BTreeMap<NodeId, (u64, u64)>,
    links: BTreeMap<(NodeId, LinkName), LinkStatus>,
}

/// What [`Shared::new`] needs.
pub(crate) struct NetOptions {
    pub(crate) key: NodeKey,
    pub(crate) registry: Arc<PeerRegistry>,
    pub(crate) settings: CarrierSettings,
    pub(crate) vias: BTreeMap<PeerName, Arc<Via>>,
    pub(crate) data_dir: PathBuf,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Shared {
    pub(crate) fn new(options: NetOptions) -> Result<Arc<Self>, CarrierError> {
        let NetOptions { key, registry, settings, vias, data_dir, clock, metrics } = options;
        let emission = Emission::load(&data_dir);
        let book = Arc::new(Book::open(&data_dir)?);
        let governor = Arc::new(Governor::new(emission.may_emit(), settings.rate));
        let https = settings.https_listen.map(|address| {
            let files = settings.https_certificate.as_deref().zip(settings.https_key.as_deref());
            let opened = https::Door::open(&key, address, files, &data_dir, Arc::clone(&governor));
            opened.map_err(|source| CarrierError::BindHttps { address, source })
        });
        let https = https.transpose()?.map(Arc::new);
        let plug = Plug::open(key, settings.listen, governor).map_err(|source| CarrierError::Bind {
            address: settings.listen.map_or_else(|| "any port".to_owned(), |a| a.to_string()),
            source,
        })?;
        let oneways = settings.peers.iter().filter_map(|(name, peer)| {
            let settings = peer.oneway.clone()?;
            Some((name.clone(), Arc::new(Outgoing::new(name.clone(), settings))))
        });
        let oneways = oneways.collect();
        let shared = Self {
            oneways,
            vias,
            plug: Arc::new(plug),
            https,
            registry,
            settings: Arc::new(settings),
            data_dir,
            clock,
            metrics,
            emission: watch::Sender::new(emission),
            rates: Mutex::default(),
            book,
            orders: watch::Sender::new(0),
            seats: Mutex::default(),
            peers_changed: watch::Sender::new(0),
            finals: watch::Sender::new(0),
            start: clock::now(),
            doors: Doors::new(),
        };
        shared.plug.governor().set_stranger_rate(shared.lowest_rate());
        Ok(Arc::new(shared))
    }

    fn rate_set(&self, peer: NodeId) -> Option<BitsPerSecond> {
        self.rates.lock().expect("nothing panics while holding the rates").get(&peer).copied()
    }

    /// The lowest and the highest rate of a peer's links.
    fn rates_of(&self, peer: &Peer) -> (BitsPerSecond, BitsPerSecond) {
        let plain = self.settings.rate_of(&peer.name);
        let links: Vec<BitsPerSecond> = match self.rate_set(peer.node) {
            Some(set) => vec![set],
            None => self.settings.links_of(peer).iter().map(|link| link.rate).collect(),
        };
        let lowest = links.iter().min().copied().unwrap_or(plain);
        (lowest, links.iter().max().copied().unwrap_or(plain))
    }

    /// For whoever has not said yet who it is: it may be the peer with the thinnest link.
    fn lowest_rate(&self) -> BitsPerSecond {
        let rates = self.registry.list().into_iter().map(|p| self.rates_of(&p).0);
        rates.chain([self.settings.rate]).min().unwrap_or(self.settings.rate)
    }

    pub(crate) fn set_emission(&self, emission: Emission) -> Result<(), CarrierError> {
        if !emission.may_emit() {
            // Silence first, paper later: once this returns nothing leaves.
            self.plug.governor().set_open(false);
            self.emission.send_replace(emission);
            return emission.save(&self.data_dir);
        }
        emission.save(&self.data_dir)?;
        self.plug.governor().set_open(true);
        self.emission.send_replace(emission);
        Ok(())
    }

    pub(crate) fn set_rate(&self, node: NodeId, rate: BitsPerSecond) -> Result<(), CarrierError> {
        if self.registry.get(node).is_none() {
            return Err(CarrierError::UnknownPeer(node));
        }
        self.rates.lock().expect("nothing panics while holding the rates").insert(node, rate);
        if let Some(seat) = self.seats().get(&node) {
            seat.view().links.iter().for_each(|link| link.lane.set_rate(rate));
            seat.rate.send_replace(Some(rate));
        }
        self.plug.governor().set_stranger_rate(self.lowest_rate());
        Ok(())
    }

    /// What the operator orders for a link.
    pub(crate) fn order_link(&self, peer: NodeId, link: &LinkName, order: LinkOrder) -> Result<(), CarrierError> {
        let seat = self.seats().get(&peer).cloned().ok_or(CarrierError::UnknownPeer(peer))?;
        let unknown = || CarrierError::UnknownLink(seat.peer.name.clone(), link.clone());
        let lane = match self.oneways.get(&seat.peer.name).filter(|_| *link == LinkName::oneway()) {
            Some(out) => Arc::clone(&out.lane),
            None => seat.view().links.into_iter().find(|view| view.name == *link).ok_or_else(unknown)?.lane,
        };
        let silent = order == LinkOrder::Silence;
        if silent {
            // Silence first, paper later: once this returns nothing leaves over it.
            self.plug.governor().silence(&lane, true);
        }
        let noted = self.book.set_order(peer, link, order);
        if noted.is_ok() && !silent {
            self.plug.governor().silence(&lane, false);
        }
        self.orders.send_modify(|n| *n += 1);
        noted
    }

    /// Measures a link; see [`crate::CarrierHandle::test_link`].
    pub(crate) async fn test_link(&self, peer: NodeId, link: &LinkName) -> Result<LinkMeasured, CarrierError> {
        let seat = self.seats().get(&peer).cloned().ok_or(CarrierError::UnknownPeer(peer))?;
        let unknown = || CarrierError::UnknownLink(seat.peer.name.clone(), link.clone());
        if self.oneways.contains_key(&seat.peer.name) && *link == LinkName::oneway() {
            return Err(CarrierError::LinkNotTested(link.clone(), "nothing comes back over it".to_owned()));
        }
        if seat.view().links.iter().all(|view| view.name != *link) {
            return Err(unknown());
        }
        let (reply, answer) = oneshot::channel();
        let idle = |why: String| CarrierError::LinkNotTested(link.clone(), why);
        let busy = || idle("the node is busy or stopping".to_owned());
        seat.tests.try_send(TestOrder { link: link.clone(), reply }).map_err(|_| busy())?;
        answer.await.map_err(|_| busy())?.map_err(idle)
    }

    fn seats(&self) -> MutexGuard<'_, BTreeMap<NodeId, Arc<Seat>>> {
        self.seats.lock().expect("nothing panics while holding the seats")
    }

    /// Every enrolled peer; the backlog is for the caller to fill in.
    pub(crate) fn status(&self) -> Vec<PeerStatus> {
        let seats: Vec<Arc<Seat>> = self.seats().values().cloned().collect();
        seats.iter().map(|seat| self.status_of(seat)).collect()
    }

    /// The links of a peer, its one-way lane among them.
    fn status_of(&self, seat: &Seat) -> PeerStatus {
        let mut status = seat.status(&self.book, self.book.time(self.clock.now(), clock::now()));
        if let Some(out) = self.oneways.get(&seat.peer.name) {
            let order = self.book.order(seat.peer.node, &LinkName::oneway());
            let lane = out.status(self.emission.borrow().may_emit(), order);
            status.wire_bytes_up += lane.wire_bytes_up;
            status.rate = BitsPerSecond(status.rate.0.saturating_add(lane.rate.0));
            status.links.push(lane);
        }
        if let Some(via) = self.vias.get(&seat.peer.name)
            && !matches!(status.state, PeerState::Up { .. } | PeerState::Silent)
        {
            (status.state, status.reach) = (PeerState::Relayed { via: via.status() }, Reach::Relayed);
            return status;
        }
        let expected = self.settings.peers.get(&seat.peer.name).is_none_or(|peer| !peer.never_dial);
        let gives_way = match &status.state {
            PeerState::Up { .. }
            | PeerState::Silent
            | PeerState::Held { .. }
            | PeerState::OneWay
            | PeerState::Relayed { .. } => false,
            PeerState::Connecting { .. } | PeerState::Down { .. } | PeerState::Denied { .. } => {
                !expected || status.links.iter().any(|link| link.state == PeerState::OneWay)
            }
        };
        if gives_way {
            status.state = PeerState::OneWay;
            status.reach = Reach::OneWay;
        }
        status
    }

    /// Opens the doors and keeps every peer until `stop`.
    pub(crate) async fn run<T: Talks>(self: Arc<Self>, desk: Option<Desk>, talks: T, stop: CancellationToken) {
        let mut keepers = JoinSet::new();
        let mut door = JoinSet::new();
        let mut changed = self.peers_changed.subscribe();
        let mut publish = interval(PUBLISH_EVERY);
        publish.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut published = Published::default();
        self.reconcile(&talks, &mut keepers, &stop);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Ok(()) = changed.changed() => self.reconcile(&talks, &mut keepers, &stop),
                Some(incoming) = self.plug.incoming() => self.answer_door(incoming, &desk, &mut door),
                tcp = incoming_https(self.https.as_deref()) => self.answer_https(tcp, &mut door),
                Some(_) = door.join_next() => {}
                Some(_) = keepers.join_next() => {}
                _ = publish.tick() => {
                    self.publish(&mut published);
                    if self.seats().len() < self.registry.list().len() {
                        self.reconcile(&talks, &mut keepers, &stop);
                    }
                }
            }
        }
        // Keepers hang on child tokens: they say goodbye and end.
        while keepers.join_next().await.is_some() {}
        door.shutdown().await;
        self.plug.close().await;
        self.publish(&mut published);
    }

    /// Starts keepers for new peers, ends those of peers that were removed or have changed.
    fn reconcile<T: Talks>(&self, talks: &T, keepers: &mut JoinSet<()>, stop: &CancellationToken) {
        let enrolled: BTreeMap<NodeId, Peer> = self.registry.list().into_iter().map(|p| (p.node, p)).collect();
        let mut seats = self.seats();
        seats.retain(|node, seat| {
            let stays = enrolled.get(node) == Some(&seat.peer);
            if !stays {
                seat.stop.cancel();
            }
            stays
        });
        let known: BTreeSet<NodeId> = enrolled.keys().copied().collect();
        self.doors.seen().retain(|node, _| known.contains(node));
        block_in_place(|| talks.retain(&known));
        for (node, peer) in enrolled {
            if seats.contains_key(&node) {
                continue;
            }
            let (_, highest) = self.rates_of(&peer);
            let talk = match block_in_place(|| talks.open(&peer, highest)) {
                Ok(talk) => talk,
                Err(reason) => {
                    // Looked at again with the next figures, see `publish`.
                    tracing::error!(peer = %peer.name, %reason, "the link to this peer cannot be served");
                    continue;
                }
            };
            let (accepted, inbox) = mpsc::channel(ACCEPTED_MAX);
            let (tests, ordered) = mpsc::channel(ACCEPTED_MAX);
            let seat = Seat {
                view: Arc::new(Mutex::new(View::new())),
                rate: watch::Sender::new(self.rate_set(node)),
                accepted,
                tests,
                stop: stop.child_token(),
                peer: peer.clone(),
            };
            let post = Post {
                plug: Arc::clone(&self.plug),
                settings: Arc::clone(&self.settings),
                view: Arc::clone(&seat.view),
                talk,
                accepted: inbox,
                tests: ordered,
                emission: self.emission.subscribe(),
                rate: seat.rate.subscribe(),
                book: Arc::clone(&self.book),
                orders: self.orders.subscribe(),
                clock: Arc::clone(&self.clock),
                metrics: Arc::clone(&self.metrics),
                start: self.start,
                peer,
            };
            keepers.spawn(Keeper::new(post).run(seat.stop.clone()));
            seats.insert(node, Arc::new(seat));
        }
        drop(seats);
        self.plug.governor().set_stranger_rate(self.lowest_rate());
    }

    fn answer_door(self: &Arc<Self>, incoming: Incoming, desk: &Option<Desk>, door: &mut JoinSet<()>) {
        if !self.emission.borrow().may_emit() {
            return incoming.ignore();
        }
        let busy = self.doors.quic.busy() + self.doors.known.busy();
        if busy >= HANDSHAKES_UNCHECKED && incoming.may_retry() && !incoming.remote_address_validated() {
            // Cannot fail: just asked whether it may.
            let _ = incoming.retry();
            return;
        }
        let from = incoming.remote_address();
        let Some(place) = self.doors.enter(&self.doors.quic, from.ip()) else { return incoming.ignore() };
        let (shared, desk) = (Arc::clone(self), desk.clone());
        door.spawn(async move {
            let accepted = place.keep(shared.plug.accept(incoming, shared.lowest_rate())).await;
            // From here on it is known who that is.
            drop(place);
            match accepted {
                Some(Ok(proven)) => shared.admit(proven, desk.as_ref()).await,
                Some(Err(e)) => tracing::debug!(%from, reason = %e, "a connection from outside did not come about"),
                None => tracing::debug!(%from, "a connection from outside gave way to another"),
            }
        });
    }

    fn answer_https(self: &Arc<Self>, tcp: TcpStream, door: &mut JoinSet<()>) {
        let Some(https) = self.https.clone() else { return };
        if !self.emission.borrow().may_emit() {
            return;
        }
        let Ok(from) = tcp.peer_addr().map(|address| address.ip()) else { return };
        let Some(place) = self.doors.enter(&self.doors.https, from) else { return };
        let shared = Arc::clone(self);
        door.spawn(async move {
            let accepted = place.keep(https.accept(tcp, shared.lowest_rate())).await;
            drop(place);
            match accepted {
                Some(Ok(arrival)) if shared.registry.get(arrival.node).is_none() => {
                    tracing::warn!(node = %arrival.node, "a node that is not enrolled was refused");
                    if let Ok(_permit) = shared.doors.refusals.try_acquire() {
                        // Whether it heard the reason is its loss.
                        let _ = timeout(REFUSAL_PATIENCE, arrival.pipe.refuse(NOT_ENROLLED)).await;
                    }
                }
                Some(Ok(arrival)) => {
                    shared.doors.seen().insert(arrival.node, from.to_canonical());
                    let door = shared.seats().get(&arrival.node).map(|seat| seat.accepted.clone());
                    if let Some(door) = door {
                        // Full or gone: the peer dials again.
                        let _ = door.try_send(Pipe::Stream(Box::new(arrival.pipe)));
                    }
                }
                Some(Err(e)) => tracing::debug!(reason = %e, "a connection over HTTPS did not come about"),
                None => tracing::debug!(%from, "a connection over HTTPS gave way to another"),
            }
        });
    }

    async fn admit(&self, proven: Proven, desk: Option<&Desk>) {
        let from = proven.connection.remote_address().ip();
        if !proven.session {
            match desk {
                Some(desk) => self.enroll(proven, from, desk).await,
                None => {
                    let text = "this node does not enroll others; use a token of the hub";
                    self.refuse(&proven, text).await;
                }
            }
            return;
        }
        // The registry decides, not the seats: a removal holds from the moment it is written.
        if self.registry.get(proven.node).is_none() {
            tracing::warn!(node = %proven.node, "a node that is not enrolled was refused");
            return self.refuse(&proven, NOT_ENROLLED).await;
        }
        self.doors.seen().insert(proven.node, from.to_canonical());
        let door = self.seats().get(&proven.node).map(|seat| seat.accepted.clone());
        if let Some(door) = door {
            // Full or gone: the peer dials again.
            let _ = door.try_send(Pipe::quic(proven));
        }
    }

    async fn enroll(&self, proven: Proven, from: IpAddr, desk: &Desk) {
        // The edge asks again by itself.
        let Some(place) = self.doors.enrolments.enter(from, clock::now()) else { return };
        if desk.serve(proven, &place).await.is_some() {
            self.peers_changed.send_modify(|n| *n += 1);
        }
    }

    async fn refuse(&self, proven: &Proven, text: &str) {
        proven.connection.close(CloseCode::Denied.number(), text.as_bytes());
        if let Ok(_permit) = self.doors.refusals.try_acquire() {
            let _ = timeout(REFUSAL_PATIENCE, proven.connection.closed()).await;
        }
    }

    fn publish(&self, published: &mut Published) {
        let seats: Vec<Arc<Seat>> = self.seats().values().cloned().collect();
        for seat in seats {
            let name = telemetry::PeerName::new(seat.peer.name.as_str());
            let status = self.status_of(&seat);
            let (up, down) = (status.wire_bytes_up, status.wire_bytes_down);
            let (old_up, old_down) = published.peers.insert(seat.peer.node, (up, down)).unwrap_or_default();
            self.publish_links(&name, &status, &mut published.links);
            for (direction, bytes) in
                [(Direction::Up, up.saturating_sub(old_up)), (Direction::Down, down.saturating_sub(old_down))]
            {
                self.metrics.link_wire_bytes_total.add((name.clone(), direction), bytes);
                self.metrics.link_goodput_bytes.set((name.clone(), direction), bytes as f64);
            }
            self.metrics.set_link_state(&name, status.state.metric());
            match status.round_trip {
                Some(rtt) => self.metrics.link_round_trip_seconds.set((name,), rtt.as_secs_f64()),
                None => self.metrics.link_round_trip_seconds.forget((name,)),
            }
        }
    }

    fn publish_links(
        &self,
        peer: &telemetry::PeerName,
        status: &PeerStatus,
        published: &mut BTreeMap<(NodeId, LinkName), LinkStatus>,
    ) {
        let metrics = &self.metrics;
        for link in &status.links {
            let key = (peer.clone(), telemetry::LinkName::new(link.name.as_str()));
            let labels = |direction| (key.0.clone(), key.1.clone(), direction);
            let before = published.insert((status.node, link.name.clone()), link.clone());
            let since = |of: fn(&LinkStatus) -> u64| of(link).saturating_sub(before.as_ref().map_or(0, of));
            metrics.carrier_link_wire_bytes_total.add(labels(Direction::Up), since(|link| link.wire_bytes_up));
            metrics.carrier_link_wire_bytes_total.add(labels(Direction::Down), since(|link| link.wire_bytes_down));
            for class in Precedence::ALL {
                let before = before.as_ref().map_or(0, |link| link.sent_bytes[class.index()]);
                let more = link.sent_bytes[class.index()].saturating_sub(before);
                metrics.carrier_link_frame_bytes_total.add((key.0.clone(), key.1.clone(), class), more);
            }
            metrics.set_link_reach(&key.0, &key.1, link.reach.metric());
            let is_up = matches!(link.state, PeerState::Up { .. });
            metrics.carrier_link_up.set(key.clone(), f64::from(u8::from(is_up)));
            let set = |gauge: &telemetry::Gauge<_>, value: Option<f64>| match value {
                Some(value) => gauge.set(key.clone(), value),
                None => gauge.forget(key.clone()),
            };
            set(&metrics.carrier_link_round_trip_seconds, link.round_trip.map(|rtt| rtt.as_secs_f64()));
            set(&metrics.carrier_link_loss_ratio, link.loss);
            set(&metrics.carrier_link_budget_left_bytes, link.budget.map(|budget| budget.left as f64));
        }
    }

    /// Where HTTPS is bound.
    #[cfg(test)]
    pub(crate) fn https_addr(&self) -> Option<SocketAddr> {
        self.https.as_ref().and_then(|door| door.local_addr().ok())
    }

    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        self.plug.local_addr().ok()
    }
}

async fn incoming_https(door: Option<&https::Door>) -> TcpStream {
    match door {
        Some(door) => door.incoming().await,
        None => std::future::pending().await,
    }
}

impl Seat {
    fn view(&self) -> View {
        self.view.lock().expect("nothing panics while holding a view").clone()
    }

    fn status(&self, book: &Book, now: UnixMillis) -> PeerStatus {
        let view = self.view();
        let links: Vec<LinkStatus> = view
            .links
            .iter()
            .map(|link| LinkStatus::of(link, book.left(self.peer.node, &link.name, &link.budget, now)))
            .collect();
        PeerStatus {
            node: self.peer.node,
            name: self.peer.name.clone(),
            state: view.state,
            reach: Reach::best(links.iter().map(|link| link.reach)),
            round_trip: links.iter().filter_map(|link| link.round_trip).min(),
            wire_bytes_up: links.iter().map(|link| link.wire_bytes_up).sum(),
            wire_bytes_down: links.iter().map(|link| link.wire_bytes_down).sum(),
            last_heard: view.last_heard,
            rate: BitsPerSecond(links.iter().map(|link| link.rate.0).sum()),
            links,
            backlog: None,
        }
    }
}

impl View {
    fn new() -> Self {
        let state = PeerState::Down { since: None, last: String::new() };
        Self { state, last_heard: None, links: Vec::new() }
    }
}

impl Reach {
    fn metric(self) -> LinkReach {
        match self {
            Self::Up => LinkReach::Up,
            Self::Degraded => LinkReach::Degraded,
            Self::Intermittent => LinkReach::Intermittent,
            Self::Denied => LinkReach::Denied,
            Self::Silent => LinkReach::Silent,
            Self::Down => LinkReach::Down,
            Self::Held => LinkReach::Held,
            Self::OneWay => LinkReach::OneWay,
            Self::Relayed => LinkReach::Relayed,
        }
    }
}

impl PeerState {
    fn metric(&self) -> LinkState {
        match self {
            Self::Up { .. } => LinkState::Up,
            Self::Connecting { .. } => LinkState::Connecting,
            Self::Down { .. } | Self::Denied { .. } => LinkState::Down,
            Self::Held { .. } => LinkState::Held,
            Self::Silent => LinkState::Silent,
            Self::OneWay => LinkState::OneWay,
            Self::Relayed { .. } => LinkState::Relayed,
        }
    }
}
