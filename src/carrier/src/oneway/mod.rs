//! The one-way lane: parcels over UDP to a side that cannot answer, such as behind a data diode.
//!
//! ```text
//!  conversation --parcels--> Carousel --datagrams--> governor (rate, emission) --> UDP --> diode
//!                                                                                           |
//!  ParcelDesk::take <-- whole parcels -- Assembler <-- datagrams -- socket that only receives
//! ```
//!
//! Invariants
//! - The receiving side never sends: its socket is read and nothing else, so it works while emission control allows
//!   nothing but receiving.
//! - Nothing counts as arrived before a receipt comes by another way (a medium, a link, a lane the other way). Parcels are
//!   sent in passes that each add to what arrived before, and what has no receipt in rounds, in new parcels.
//! - A more urgent class goes before a less urgent one at every datagram, and flash has more redundancy.
//! - What an operator's rule calls "sent, unconfirmed" is held like everything else and only not repeated any more.

mod carousel;
mod code;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use keys::{ChunkSecret, NodeKey, Peer, PeerName, PeerRegistry};
use model::{BitsPerSecond, Clock, Precedence, UnixMillis};
use telemetry::Metrics;
use tokio::net::{UdpSocket, lookup_host};
use tokio::sync::watch;
use tokio::task::block_in_place;
use tokio::time::{sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use wire::parcel::Parcel;

use crate::book::{Book, LinkOrder};
use crate::clock;
use crate::governor::{Governor, Lane as Rate, Verdict};
use crate::parcel::{Lane, Made, ParcelDesk, ParcelRefused};
use crate::reach::Reach;
use crate::settings::{LaneKind, LinkName, OneWaySettings, Outlet};
use crate::socket;
use crate::status::{LinkStatus, PeerState};
use crate::{CarrierError, Emission};
use carousel::{Carousel, Group};
pub use code::HalfReceived;
use code::{Arrived, Assembler, Senders, TagKey};

/// Bytes of parcels that are being repeated: some minutes of a thin lane.
const CAROUSEL_BYTES_MAX: usize = 4 << 20;

/// Bytes planned at a time: what the lane carries in a second, so that flash is behind little, and not much above what seals it.
const PLAN_BYTES: std::ops::RangeInclusive<usize> = 20 << 10..=44 << 10;

/// How often it is looked for what is new.
const PLAN_EVERY: Duration = Duration::from_millis(250);

/// How often the figures for the operator are made anew.
const COUNT_EVERY: Duration = Duration::from_secs(5);

/// What the kernel keeps while a parcel is stored: 3,500 datagrams.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

/// After a failure, and while nothing may be sent.
const PAUSE: Duration = Duration::from_secs(1);

/// How old what is known of the enrolled nodes may be.
const SENDERS_AGE_MAX: Duration = Duration::from_secs(1);

/// What both sides need of the node.
#[derive(Clone)]
pub(crate) struct Common {
    pub(crate) key: NodeKey,
    pub(crate) secret: ChunkSecret,
    pub(crate) registry: Arc<PeerRegistry>,
    pub(crate) desk: Arc<ParcelDesk>,
    pub(crate) emission: watch::Receiver<Emission>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
}

/// What the receiving side knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct OneWayReceived {
    /// Where it listens.
    pub listen: String,
    /// Datagrams that came since the start.
    pub datagrams: u64,
    /// Of these, those that were damaged, none of this lane's, or of nobody who is enrolled.
    pub rejected: u64,
    /// Parcels that were put together.
    pub whole: u64,
    /// Parcels that were given up before they were whole.
    pub given_up: u64,
    /// Parcels that are partly here.
    pub halves: Vec<HalfReceived>,
    /// When the last datagram of an enrolled node came.
    pub last_at: Option<UnixMillis>,
}

#[derive(Default)]
struct Inbox {
    assembler: Assembler,
    senders: Senders,
    senders_at: Option<Instant>,
    received: OneWayReceived,
}

/// The receiving side of the lane, as others see it.
#[derive(Clone)]
pub(crate) struct Listener {
    address: SocketAddr,
    inbox: Arc<Mutex<Inbox>>,
}

impl Listener {
    /// Where its socket is bound.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn received(&self) -> OneWayReceived {
        let inbox = self.inbox();
        OneWayReceived {
            listen: self.address.to_string(),
            given_up: inbox.assembler.given_up(),
            halves: inbox.assembler.half_received(),
            ..inbox.received.clone()
        }
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().expect("nothing panics while holding the inbox")
    }
}

/// The receiving side of the lane.
pub(crate) struct Receiver {
    socket: UdpSocket,
    common: Common,
    listener: Listener,
}

impl Receiver {
    /// Binds the socket.
    pub(crate) fn new(listen: SocketAddr, common: Common) -> Result<Self, CarrierError> {
        let bind = || -> io::Result<UdpSocket> {
            let socket = socket::bind(Some(listen), &Outlet::default())?;
            // As much as the kernel grants: what does not fit is lost, and repeated.
            let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
            UdpSocket::from_std(socket)
        };
        let failed = |source| CarrierError::Bind { address: listen.to_string(), source };
        let socket = bind().map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        Ok(Self { socket, common, listener: Listener { address, inbox: Arc::default() } })
    }

    pub(crate) fn listener(&self) -> Listener {
        self.listener.clone()
    }

    /// Takes what arrives until `stop`. Not cancel-safe: a parcel under way would be collected anew.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut buffer = vec![0; 2 * code::DATAGRAM_BYTES];
        loop {
            let received = tokio::select! {
                () = stop.cancelled() => return,
                received = self.socket.recv(&mut buffer) => received,
            };
            let len = match received {
                Ok(len) => len,
                Err(e) => {
                    tracing::warn!(error = %e, "the one-way socket cannot be read; it is tried again");
                    sleep(PAUSE).await;
                    continue;
                }
            };
            let silent = *self.common.emission.borrow() == Emission::Silent;
            if silent {
                continue;
            }
            self.common.metrics.oneway_received_datagrams_total.inc(());
            if let Some(parcel) = block_in_place(|| self.note(&buffer[..len])) {
                self.take(&parcel).await;
            }
        }
    }

    fn note(&self, datagram: &[u8]) -> Option<Vec<u8>> {
        let mut inbox = self.listener.inbox();
        let now = clock::now();
        if inbox.senders_at.is_none_or(|at| at + SENDERS_AGE_MAX <= now) {
            inbox.senders_at = Some(now);
            inbox.senders = self.senders();
        }
        let Inbox { assembler, senders, received, .. } = &mut *inbox;
        received.datagrams += 1;
        match assembler.take(senders, datagram) {
            Arrived::Rejected => {
                received.rejected += 1;
                self.common.metrics.oneway_rejected_datagrams_total.inc(());
                None
            }
            Arrived::Noted => {
                received.last_at = Some(self.common.clock.now());
                None
            }
            Arrived::Whole(parcel) => {
                received.last_at = Some(self.common.clock.now());
                received.whole += 1;
                Some(parcel)
            }
        }
    }

    fn senders(&self) -> Senders {
        let Common { key, secret, registry, .. } = &self.common;
        let mut senders = Senders::default();
        for peer in registry.list() {
            let tag = TagKey::new(peer.node, peer.chunk_secret.expose(), key.node_id(), secret.expose());
            senders.add(peer.node, tag);
        }
        senders
    }

    async fn take(&self, parcel: &[u8]) {
        match self.common.desk.take(parcel).await.1 {
            Ok((from, taken)) => tracing::debug!(%from, ?taken, "a parcel came over the one-way lane"),
            Err(e @ (ParcelRefused::Store(_) | ParcelRefused::NotServed)) => {
                tracing::warn!(error = %e, "a parcel of the one-way lane waits for its next pass");
                self.listener.inbox().assembler.collect_again(parcel);
            }
            Err(e) => tracing::warn!(error = %e, next = e.next_step(), "a parcel of the one-way lane was refused"),
        }
    }
}

/// What the sending side has done since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct OneWaySent {
    /// Datagrams sent.
    pub datagrams: u64,
    /// Parcels of which every pass was sent.
    pub parcels: u64,
    /// Rounds of what had no receipt that are over.
    pub rounds: u64,
    /// Bytes of parcels that have passes left.
    pub turning_bytes: u64,
    /// Entries without a receipt that have been sent in as many rounds as the configuration asks for, and are not sent again; in
    /// one, where it asks for repetition without end. Nobody knows whether they arrived. They are held all the same.
    pub unconfirmed_entries: u64,
    /// When the last datagram left.
    pub last_at: Option<UnixMillis>,
}

/// The sending side towards one peer, as others see it.
pub(crate) struct Outgoing {
    pub(crate) peer: PeerName,
    pub(crate) settings: OneWaySettings,
    pub(crate) lane: Arc<Rate>,
    sent: Mutex<OneWaySent>,
}

impl Outgoing {
    pub(crate) fn new(peer: PeerName, settings: OneWaySettings) -> Self {
        let lane = Arc::new(Rate::new(settings.rate, clock::now()));
        Self { peer, settings, lane, sent: Mutex::default() }
    }

    fn sent(&self) -> MutexGuard<'_, OneWaySent> {
        self.sent.lock().expect("nothing panics while holding what was sent")
    }

    /// As one of the links to its peer.
    pub(crate) fn status(&self, may_emit: bool, order: LinkOrder) -> LinkStatus {
        let (state, reach) = match order {
            LinkOrder::Silence => (PeerState::Silent, Reach::Silent),
            LinkOrder::Use | LinkOrder::Pause if !may_emit => (PeerState::Silent, Reach::Silent),
            LinkOrder::Pause => (PeerState::Held { why: "paused by order".to_owned() }, Reach::Held),
            LinkOrder::Use => (PeerState::OneWay, Reach::OneWay),
        };
        let sent = self.sent().clone();
        let (wire_bytes_up, wire_bytes_down) = self.lane.wire_bytes();
        LinkStatus {
            name: LinkName::oneway(),
            lane: LaneKind::OneWay,
            state,
            reach,
            round_trip: None,
            wire_bytes_up,
            wire_bytes_down,
            rate: self.lane.rate(),
            loss: None,
            cost: 0,
            classes: Precedence::ALL.into(),
            budget: None,
            contact: None,
            keepalive_seconds: 0,
            sent_control_bytes: 0,
            sent_bytes: [0; Precedence::ALL.len()],
            oneway: Some(sent),
        }
    }
}

/// The sending side of the lane.
pub(crate) struct Sender {
    pub(crate) out: Arc<Outgoing>,
    pub(crate) common: Common,
    pub(crate) governor: Arc<Governor>,
    pub(crate) book: Arc<Book>,
}

/// Groups of parcels that have not left in whole, the oldest first: one queue for each plan.
#[derive(Default)]
struct Groups {
    last: Group,
    new: VecDeque<Group>,
    again: VecDeque<Group>,
}

impl Sender {
    /// Sends until `stop`. Cancel-safe: what was sent and what was not is as good as lost on the way.
    pub(crate) async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.keep_sending() => {}
        }
    }

    async fn keep_sending(&self) {
        let mut told = String::new();
        loop {
            if let Some(peer) = self.common.registry.by_name(self.out.peer.as_str())
                && self.may_send(&peer)
            {
                match self.open().await {
                    Ok((socket, to)) => {
                        told.clear();
                        let place = (self.governor.next_socket(), to);
                        self.governor.assign(place, &self.out.lane);
                        self.send(&peer, &socket, place).await;
                        self.governor.release(place, &self.out.lane);
                    }
                    Err(e) if told == e.to_string() => {}
                    Err(e) => {
                        tracing::warn!(peer = %self.out.peer, to = self.out.settings.to, error = %e, "the one-way lane does not open; it is tried again");
                        told = e.to_string();
                    }
                }
            }
            sleep(PAUSE).await;
        }
    }

    fn may_send(&self, peer: &Peer) -> bool {
        let emits = self.common.emission.borrow().may_emit();
        emits && self.book.order(peer.node, &LinkName::oneway()) == LinkOrder::Use
    }

    async fn open(&self) -> io::Result<(UdpSocket, SocketAddr)> {
        let OneWaySettings { to, bind, interface, dscp, .. } = &self.out.settings;
        let to = lookup_host(to).await?.next().ok_or_else(|| io::Error::other("the name has no address"))?;
        let out = Outlet { bind: *bind, interface: interface.clone(), dscp: *dscp };
        let socket = UdpSocket::from_std(socket::bind(None, &out)?)?;
        let to = match (socket.local_addr()?, to) {
            (SocketAddr::V6(_), SocketAddr::V4(to)) => SocketAddr::from((to.ip().to_ipv6_mapped(), to.port())),
            (SocketAddr::V4(_), to) | (SocketAddr::V6(_), to @ SocketAddr::V6(_)) => to,
        };
        Ok((socket, to))
    }

    /// Sends until it may not, or the peer is another one.
    async fn send(&self, peer: &Peer, socket: &UdpSocket, place: (u32, SocketAddr)) {
        let Common { key, secret, registry, desk, .. } = &self.common;
        let settings = &self.out.settings;
        let name = peer.name.as_str();
        let tag = TagKey::new(key.node_id(), secret.expose(), peer.node, peer.chunk_secret.expose());
        let mut carousel = Carousel::new(key.node_id(), tag, settings.passes, settings.redundancy_percent);
        let mut groups = Groups::default();
        let start = clock::now();
        let (mut plan_at, mut count_at, mut round_at) = (start, start, start);
        let (mut begun, mut round) = (false, false);
        let mut held: Option<Vec<u8>> = None;
        loop {
            let now = clock::now();
            if now >= plan_at {
                if registry.by_name(name).as_ref() != Some(peer) || !self.may_send(peer) {
                    return;
                }
                plan_at = now + PLAN_EVERY;
                if !begun {
                    begun = desk.begin_oneway(name, Lane::OneWay, settings.rounds).await.is_ok();
                }
                if begun {
                    match self.plan(name, &mut carousel, &mut groups, &mut round, now - start).await {
                        // There may be more, and room for it.
                        Ok(true) => plan_at = now,
                        Ok(false) => {}
                        Err(e) => {
                            tracing::debug!(peer = %self.out.peer, error = %e, "the one-way lane begins its plan anew");
                            return;
                        }
                    }
                }
                if begun && !round && now >= round_at && carousel.bytes() == 0 {
                    round = desk.begin_oneway(name, Lane::OneWayAgain, settings.rounds).await.is_ok();
                    round_at = now + settings.repeat();
                }
                if now >= count_at {
                    count_at = now + COUNT_EVERY;
                    self.count(name).await;
                }
                self.out.sent().turning_bytes = carousel.bytes() as u64;
            }
            let Some(datagram) = held.take().or_else(|| carousel.next(clock::now() - start)) else {
                let due = carousel.due().map_or(plan_at, |due| plan_at.min(start + due));
                sleep_until(due.max(clock::now() + Duration::from_millis(1)).into()).await;
                continue;
            };
            let verdict = self
                .governor
                .submit(place, datagram.len(), clock::now(), || socket.try_send_to(&datagram, place.1).map(drop));
            match verdict {
                Verdict::Sent => self.note_sent(),
                Verdict::NotBefore(at) => {
                    held = Some(datagram);
                    sleep_until(at.into()).await;
                }
                // Emission is not allowed, or not over this lane.
                Verdict::Dropped => return,
                Verdict::Failed(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    held = Some(datagram);
                    // Fails like the sending itself, which is then seen there.
                    let _ = socket.writable().await;
                }
                Verdict::Failed(e) => {
                    tracing::debug!(peer = %self.out.peer, error = %e, "a datagram of the one-way lane was not sent");
                    return;
                }
            }
        }
    }

    fn note_sent(&self) {
        let mut sent = self.out.sent();
        sent.datagrams += 1;
        sent.last_at = Some(self.common.clock.now());
        let label = telemetry::PeerName::new(self.out.peer.as_str());
        self.common.metrics.oneway_sent_datagrams_total.inc((label,));
    }

    /// Notes what has left, and puts more parcels on the carousel. True when there may be more at once.
    async fn plan(
        &self,
        name: &str,
        carousel: &mut Carousel,
        groups: &mut Groups,
        round: &mut bool,
        now: Duration,
    ) -> Result<bool, ParcelRefused> {
        let (desk, rounds) = (&self.common.desk, self.out.settings.rounds);
        for (lane, queue) in [(Lane::OneWay, &mut groups.new), (Lane::OneWayAgain, &mut groups.again)] {
            while queue.front().is_some_and(|group| !carousel.has(*group)) {
                queue.pop_front();
                desk.sent(name, lane, rounds).await?;
                self.out.sent().parcels += 1;
            }
        }
        let rate: BitsPerSecond = self.out.lane.rate();
        let second = usize::try_from(rate.0 / 8).unwrap_or(usize::MAX);
        let bytes = second.clamp(*PLAN_BYTES.start(), *PLAN_BYTES.end());
        let room = carousel.new_bytes() < 2 * bytes && carousel.bytes() < CAROUSEL_BYTES_MAX;
        // What passes everything else passes what is on the carousel too.
        let least = if room { Precedence::Deferred } else { Precedence::Immediate };
        let made = desk.next(name, Lane::OneWay, bytes, least).await?;
        let new = put(&made, carousel, &mut groups.last, &mut groups.new, now);
        if new || !room || !*round {
            return Ok(new);
        }
        let made = desk.next(name, Lane::OneWayAgain, bytes, Precedence::Deferred).await?;
        let more = put(&made, carousel, &mut groups.last, &mut groups.again, now);
        if !more && made.done && groups.again.is_empty() {
            *round = false;
            self.out.sent().rounds += 1;
        }
        Ok(more)
    }

    async fn count(&self, name: &str) {
        let unconfirmed = self.common.desk.unconfirmed(name, self.out.settings.rounds).await.unwrap_or_default();
        self.out.sent().unconfirmed_entries = unconfirmed;
        let label = telemetry::PeerName::new(self.out.peer.as_str());
        self.common.metrics.oneway_unconfirmed_entries.set_count((label,), unconfirmed);
    }
}

/// Puts what was made on the carousel, as a group of its own. False when it was nothing.
fn put(made: &Made, carousel: &mut Carousel, last: &mut Group, queue: &mut VecDeque<Group>, now: Duration) -> bool {
    let mut rest = made.bytes.as_slice();
    if rest.is_empty() {
        return false;
    }
    *last += 1;
    queue.push_back(*last);
    while let Ok(parcel) = Parcel::read(rest) {
        block_in_place(|| carousel.add(*last, parcel.header.precedence, parcel.as_bytes(), now));
        rest = &rest[parcel.as_bytes().len()..];
    }
    true
}
