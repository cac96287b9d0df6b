//! Two nodes, real UDP, and a relay between them that loses, stops and counts.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use journal::{AtRest, Draft, IndexPlace, Journal, JournalOptions, JournalSettings, StdDisk, Sums};
use keys::{
    ChunkSecret, EntryIds, InviteBook, NodeKey, Peer, PeerName, PeerRegistry, PeerRole, SealingKey, TokenError,
};
use link::{Lane, Waiting};
use model::event::{FileState, FileStub};
use model::{
    BitsPerSecond, Clock, Entry, EntryId, Epoch, Event, Hlc, Id, Kind, NodeId, Outbound, Outcome, Precedence, RangeSet,
    Seq, SourcePosition, StreamId, UnixMillis, Version,
};
use telemetry::Metrics;
use tempfile::TempDir;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use wire::frame::{Frame, Greet, Join, Receipt, Skip};

use crate::endpoint::Plug;
use crate::enroll::Desk;
use crate::governor::{Governor, Lane as WireLane};
use crate::keeper::NOT_ENROLLED;
use crate::net::{NetOptions, Shared};
use crate::pipe::{Event as PipeEvent, Gone, Pipe};
use crate::talk::{Refusal, Talk, Talks};
use crate::*;

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);
pub(crate) const FAST: BitsPerSecond = BitsPerSecond(4_000_000);

/// Nothing here takes this long unless it is broken, even on a machine that builds ten other things.
const PATIENCE: Duration = Duration::from_secs(60);

struct FixedClock;

impl Clock for FixedClock {
    fn now(&self) -> UnixMillis {
        NOW
    }
}

/// What one scripted node has to say and has heard: numbers, each in a frame of its own.
#[derive(Default)]
struct Script {
    unconfirmed: BTreeSet<u32>,
    /// To be said in the present session.
    later: std::ops::Range<u32>,
    /// The next number heard is a reason to begin anew.
    refuses: bool,
    /// To be said as flash, once the session stands.
    flash: BTreeSet<u32>,
    heard: BTreeSet<u32>,
    /// Whoever hears a number waits for this lock.
    busy: Arc<tokio::sync::Mutex<()>>,
    connections: u32,
    /// The other side owes an answer to what it has confirmed.
    awaits: bool,
}

/// A conversation that says every number until the other side confirms it, over however many connections that takes.
struct Scripted {
    me: NodeId,
    script: Arc<Mutex<Script>>,
    out: VecDeque<(Lane, Frame)>,
}

/// A frame that says a number, of about a kilobyte.
fn number(n: u32) -> (Lane, Frame) {
    let ranges: RangeSet = (1..500).map(|n| 2 * n).collect();
    let skip = Skip { epoch: Epoch(n), outcome: Outcome::Expired, ranges, after: Vec::new() };
    (Lane::Class(Precedence::Routine), Frame::Skip(skip))
}

impl Talk for Scripted {
    fn connected(&mut self, _: Duration) -> Result<(), Refusal> {
        let mut script = self.script.lock().unwrap();
        script.connections += 1;
        let (epoch, next_seq) = (Epoch(1), Seq::FIRST);
        let greet = Greet { protocol: 1, node: self.me, boot: 1, epoch, next_seq, name: "scripted".to_owned() };
        self.out.clear();
        self.out.push_back((Lane::Control, Frame::Greet(greet)));
        script.unconfirmed.iter().for_each(|n| self.out.push_back(number(*n)));
        Ok(())
    }

    fn disconnected(&mut self) {
        self.out.clear();
    }

    fn received(&mut self, _: Duration, frame: Frame) -> Result<(), Refusal> {
        let busy = Arc::clone(&self.script.lock().unwrap().busy);
        drop(busy.blocking_lock());
        let mut script = self.script.lock().unwrap();
        if let Frame::Skip(skip) = &frame {
            if std::mem::take(&mut script.refuses) {
                return Err(Refusal { text: "let us begin anew".to_owned(), retry: true });
            }
            script.heard.insert(skip.epoch.0);
            let receipt = Receipt { part: 0, epoch: skip.epoch, stored: RangeSet::new(), outcomes: Vec::new() };
            self.out.push_front((Lane::Control, Frame::Receipt(receipt)));
        }
        if let Frame::Receipt(receipt) = &frame {
            script.unconfirmed.remove(&receipt.epoch.0);
        }
        Ok(())
    }

    fn needs_settling(&self, _: Duration) -> bool {
        false
    }

    fn settle(&mut self, _: Duration) -> Result<(), Refusal> {
        let mut script = self.script.lock().unwrap();
        let later = std::mem::take(&mut script.later);
        script.unconfirmed.extend(later.clone());
        later.for_each(|n| self.out.push_back(number(n)));
        for n in std::mem::take(&mut script.flash) {
            let skip =
                Skip { epoch: Epoch(n), outcome: Outcome::Expired, ranges: RangeSet::from(1..=1), after: Vec::new() };
            self.out.push_back((Lane::Class(Precedence::Flash), Frame::Skip(skip)));
        }
        Ok(())
    }

    fn waiting(&mut self, _: Duration) -> Result<Waiting, Refusal> {
        let mut waiting = Waiting::default();
        for (lane, _) in &self.out {
            match lane {
                Lane::Control => waiting.control = true,
                Lane::Class(class) => waiting.classes[class.index()] = true,
            }
        }
        Ok(waiting)
    }

    fn next_frame(&mut self, _: Duration, lane: Lane, _: usize) -> Result<Option<Frame>, Refusal> {
        let next = self.out.iter().position(|(l, _)| *l == lane);
        Ok(next.and_then(|at| self.out.remove(at)).map(|(_, frame)| frame))
    }

    fn awaits_answer(&self) -> bool {
        self.script.lock().unwrap().awaits
    }

    fn deadline(&self) -> Option<Duration> {
        None
    }

    async fn wait(&mut self) {
        // The script changes without a word.
        loop {
            sleep(Duration::from_millis(5)).await;
            let script = self.script.lock().unwrap();
            if !script.later.is_empty() || !script.flash.is_empty() {
                return;
            }
        }
    }
}

struct Scripts {
    me: NodeId,
    script: Arc<Mutex<Script>>,
}

impl Talks for Scripts {
    type Talk = Scripted;

    fn open(&self, _: &Peer, _: BitsPerSecond) -> Result<Scripted, String> {
        Ok(Scripted { me: self.me, script: Arc::clone(&self.script), out: VecDeque::new() })
    }

    fn retain(&self, _: &BTreeSet<NodeId>) {}
}

/// One node with a scripted conversation.
pub(crate) struct Node {
    pub(crate) dir: TempDir,
    pub(crate) key: NodeKey,
    pub(crate) shared: Arc<Shared>,
    script: Arc<Mutex<Script>>,
    invites: Arc<InviteBook>,
    chunk_secret: ChunkSecret,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Node {
    fn start(name: &str, listens: bool, rate: BitsPerSecond, peers: Vec<Peer>, key: NodeKey) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::start_in(dir, name, listens, rate, peers, key)
    }

    fn start_in(dir: TempDir, name: &str, listens: bool, rate: BitsPerSecond, peers: Vec<Peer>, key: NodeKey) -> Self {
        let listen = listens.then(|| "127.0.0.1:0".parse().unwrap());
        Self::start_with(dir, name, CarrierSettings { listen, rate, ..CarrierSettings::default() }, peers, key)
    }

    pub(crate) fn start_with(
        dir: TempDir,
        name: &str,
        settings: CarrierSettings,
        peers: Vec<Peer>,
        key: NodeKey,
    ) -> Self {
        let registry = Arc::new(PeerRegistry::open(dir.path()).unwrap());
        peers.into_iter().for_each(|peer| registry.add(peer).unwrap());
        let shared = Shared::new(NetOptions {
            key: key.clone(),
            registry: Arc::clone(&registry),
            settings,
            vias: BTreeMap::new(),
            data_dir: dir.path().to_owned(),
            clock: Arc::new(FixedClock),
            metrics: Arc::new(Metrics::new()),
        })
        .unwrap();
        let invites = Arc::new(InviteBook::open(dir.path()).unwrap());
        let chunk_secret = ChunkSecret::generate();
        let desk = Desk {
            invites: Arc::clone(&invites),
            registry,
            name: name.parse().unwrap(),
            chunk_secret: chunk_secret.clone(),
            sealing: sealing().public().clone(),
            clock: Arc::new(FixedClock),
        };
        let (stop, script) = (CancellationToken::new(), Arc::new(Mutex::new(Script::default())));
        let scripts = Scripts { me: key.node_id(), script: Arc::clone(&script) };
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&shared).run(Some(desk), scripts, stop.clone()));
        Self { dir, key, shared, script, invites, chunk_secret, stop, tasks }
    }

    fn says(&self, numbers: std::ops::Range<u32>) {
        self.script.lock().unwrap().unconfirmed.extend(numbers);
    }

    /// Says them in the present session, or the next.
    pub(crate) fn says_later(&self, numbers: std::ops::Range<u32>) {
        let mut script = self.script.lock().unwrap();
        assert!(script.later.is_empty(), "one after the other");
        script.later = numbers;
    }

    pub(crate) fn confirmed(&self) -> bool {
        let script = self.script.lock().unwrap();
        script.unconfirmed.is_empty() && script.later.is_empty()
    }

    pub(crate) fn heard(&self) -> usize {
        self.script.lock().unwrap().heard.len()
    }

    pub(crate) fn has_heard(&self, n: u32) -> bool {
        self.script.lock().unwrap().heard.contains(&n)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.shared.local_addr().unwrap()
    }

    pub(crate) fn state(&self) -> PeerState {
        // None before the node has looked into its registry for the first time.
        let status = self.shared.status().into_iter().next();
        status.map_or(PeerState::Down { since: None, last: String::new() }, |peer| peer.state)
    }

    pub(crate) fn is_up(&self) -> bool {
        matches!(self.state(), PeerState::Up { .. })
    }

    pub(crate) fn says_flash(&self, numbers: std::ops::Range<u32>) {
        self.script.lock().unwrap().flash.extend(numbers);
    }

    /// Sessions begun so far.
    pub(crate) fn sessions(&self) -> u32 {
        self.script.lock().unwrap().connections
    }

    pub(crate) fn links_up(&self) -> usize {
        let status = self.shared.status().into_iter().next();
        let up = |link: &LinkStatus| matches!(link.state, PeerState::Up { .. });
        status.map_or(0, |peer| peer.links.iter().filter(|link| up(link)).count())
    }

    pub(crate) async fn stopped(mut self) -> TempDir {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        self.dir
    }
}

pub(crate) fn peer(key: &NodeKey, name: &str, role: PeerRole, address: Option<SocketAddr>) -> Peer {
    Peer {
        node: key.node_id(),
        name: name.parse().unwrap(),
        spki: key.spki().to_vec(),
        chunk_secret: ChunkSecret::generate(),
        sealing: sealing().public().clone(),
        role,
        address: address.map(|a| a.to_string()),
        enrolled_at: NOW,
    }
}

/// One key for all: making one takes a while.
fn sealing() -> &'static SealingKey {
    static KEY: std::sync::LazyLock<SealingKey> = std::sync::LazyLock::new(SealingKey::generate);
    &KEY
}

/// Waits for something to become true.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("waited in vain: {what}"));
}

/// The same, while a connection goes on.
async fn until_with(what: &str, pipe: &mut Pipe, holds: impl Fn() -> bool) {
    tokio::select! {
        () = until(what, holds) => {}
        () = async { loop { pipe.next().await; } } => {}
    }
}

/// Forwards datagrams of one edge to a hub and back.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    hub_side: Arc<UdpSocket>,
    state: Arc<RelayState>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct RelayState {
    /// Out of a thousand datagrams, so many are lost.
    loss: AtomicU64,
    down: AtomicBool,
    /// Datagrams from the edge, and their bytes with UDP and IPv4 headers.
    up_datagrams: AtomicU64,
    up_bytes: AtomicU64,
    dice: AtomicU64,
}

impl RelayState {
    fn passes(&self) -> bool {
        // A linear congruential generator (Knuth, MMIX): the same losses in every run.
        let step = |x: u64| Some(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407));
        let dice = self.dice.fetch_update(Ordering::SeqCst, Ordering::SeqCst, step).unwrap();
        !self.down.load(Ordering::SeqCst) && (dice >> 33) % 1_000 >= self.loss.load(Ordering::SeqCst)
    }
}

impl Relay {
    pub(crate) async fn to(hub: SocketAddr) -> Self {
        let edge_side = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let hub_side = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        hub_side.connect(hub).await.unwrap();
        let (address, state) = (edge_side.local_addr().unwrap(), Arc::new(RelayState::default()));
        let edge = Arc::new(Mutex::new(None));
        let mut tasks = JoinSet::new();
        tasks.spawn({
            let (from, to, state, edge) =
                (Arc::clone(&edge_side), Arc::clone(&hub_side), Arc::clone(&state), Arc::clone(&edge));
            async move {
                let mut buffer = [0u8; 2048];
                while let Ok((len, source)) = from.recv_from(&mut buffer).await {
                    *edge.lock().unwrap() = Some(source);
                    state.up_datagrams.fetch_add(1, Ordering::SeqCst);
                    state.up_bytes.fetch_add(len as u64 + 28, Ordering::SeqCst);
                    if state.passes() {
                        let _ = to.send(&buffer[..len]).await;
                    }
                }
            }
        });
        tasks.spawn({
            let (state, hub_side) = (Arc::clone(&state), Arc::clone(&hub_side));
            async move {
                let mut buffer = [0u8; 2048];
                loop {
                    let Ok(len) = hub_side.recv(&mut buffer).await else { continue };
                    let to = *edge.lock().unwrap();
                    if let (true, Some(to)) = (state.passes(), to) {
                        let _ = edge_side.send_to(&buffer[..len], to).await;
                    }
                }
            }
        });
        Self { address, hub_side, state, _tasks: tasks }
    }

    /// The hub is at another address from now on.
    async fn follow(&self, hub: SocketAddr) {
        self.hub_side.connect(hub).await.unwrap();
    }

    fn set_loss(&self, per_thousand: u64) {
        self.state.loss.store(per_thousand, Ordering::SeqCst);
    }

    pub(crate) fn set_down(&self, down: bool) {
        self.state.down.store(down, Ordering::SeqCst);
    }

    fn up_datagrams(&self) -> u64 {
        self.state.up_datagrams.load(Ordering::SeqCst)
    }
}

struct World {
    edge: Node,
    hub: Node,
    relay: Relay,
}

/// An edge that dials a hub through a relay.
async fn world(rate: BitsPerSecond) -> World {
    let (edge_key, hub_key) = (NodeKey::generate(), NodeKey::generate());
    let edge_peer = peer(&edge_key, "alpha", PeerRole::Edge, None);
    let hub = Node::start("base", true, rate, vec![edge_peer], hub_key.clone());
    let relay = Relay::to(hub.address()).await;
    let hub_peer = peer(&hub_key, "base", PeerRole::Hub, Some(relay.address));
    let edge = Node::start("alpha", false, rate, vec![hub_peer], edge_key);
    World { edge, hub, relay }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_arrives_through_loss_and_an_outage() {
    let World { edge, hub, relay } = world(FAST).await;
    relay.set_loss(50);
    relay.set_down(true);
    edge.says(0..150);
    hub.says(1_000..1_150);
    until("a dial attempt", || relay.up_datagrams() > 0).await;
    relay.set_down(false);
    until("half of it", || hub.heard() > 75).await;
    relay.set_down(true);
    until("the edge has noticed the outage", || !edge.is_up() || edge.confirmed()).await;
    relay.set_down(false);
    until("the rest", || edge.confirmed() && hub.confirmed()).await;
    assert_eq!((hub.heard(), edge.heard()), (150, 150));
    edge.stopped().await;
    hub.stopped().await;
}

/// An edge with two links to its hub, each through a relay of its own.
struct TwoLinks {
    edge: Node,
    hub: Node,
    radio: Relay,
    satellite: Relay,
}

async fn two_links(links: impl FnOnce(&Relay, &Relay) -> serde_json::Value) -> TwoLinks {
    let (edge_key, hub_key) = (NodeKey::generate(), NodeKey::generate());
    let hub = Node::start("base", true, FAST, vec![peer(&edge_key, "alpha", PeerRole::Edge, None)], hub_key.clone());
    let (radio, satellite) = (Relay::to(hub.address()).await, Relay::to(hub.address()).await);
    let links = links(&radio, &satellite);
    let settings = serde_json::json!({ "rate": "4Mbit/s", "peers": { "base": { "links": links } } });
    let settings: CarrierSettings = serde_json::from_value(settings).unwrap();
    // The address at enrolment leads nowhere: each link has its own.
    let hub_peer = peer(&hub_key, "base", PeerRole::Hub, Some("127.0.0.1:9".parse().unwrap()));
    let edge = Node::start_with(tempfile::tempdir().unwrap(), "alpha", settings, vec![hub_peer], edge_key);
    TwoLinks { edge, hub, radio, satellite }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_lost_in_the_middle_is_a_non_event_while_another_lives() {
    let TwoLinks { edge, hub, radio, satellite } = two_links(|radio, satellite| {
        serde_json::json!([
            { "name": "radio", "address": radio.address.to_string() },
            { "name": "satellite", "address": satellite.address.to_string() },
        ])
    })
    .await;
    until("both links", || edge.links_up() == 2 && hub.links_up() == 2).await;
    // About 600 kB: more than a second at the rate of both.
    edge.says_later(0..600);
    until("a part of it", || hub.heard() > 100).await;
    radio.set_down(true);
    until("all of it", || hub.heard() == 600 && edge.confirmed()).await;
    until("the edge sees what happened", || edge.links_up() == 1).await;
    let seen = || edge.shared.status().remove(0);
    assert_eq!(seen().links[0].reach, Reach::Up, "a short absence is no outage");
    until("it has lasted", || seen().links[0].reach == Reach::Down).await;
    assert_eq!((seen().reach, seen().links[1].reach), (Reach::Up, Reach::Up));
    assert!(edge.is_up() && hub.is_up());
    radio.set_down(false);
    until("the link again", || edge.links_up() == 2 && hub.links_up() == 2).await;
    assert_eq!((edge.sessions(), hub.sessions()), (1, 1), "the conversation noticed nothing");
    assert!(satellite.up_datagrams() > 0);
    edge.stopped().await;
    hub.stopped().await;
}

/// What was under way on a link when both went silent stayed there until that link came back, or was given up after an hour.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_under_way_on_a_dead_link_goes_over_the_one_that_comes_up_later() {
    let TwoLinks { edge, hub, radio, satellite } = two_links(|radio, satellite| {
        serde_json::json!([
            { "name": "radio", "address": radio.address.to_string() },
            { "name": "satellite", "address": satellite.address.to_string(), "cost": 900 },
        ])
    })
    .await;
    until("both links", || edge.links_up() == 2 && hub.links_up() == 2).await;
    satellite.set_down(true);
    edge.says_flash(1_000..1_001);
    until("the satellite is missed", || edge.links_up() == 1 && hub.heard() == 1).await;
    radio.set_down(true);
    edge.says_later(0..20);
    until("and the radio", || edge.links_up() == 0).await;
    satellite.set_down(false);
    let back = until("what the radio lost", || edge.confirmed() && hub.heard() == 21);
    tokio::time::timeout(Duration::from_secs(40), back).await.expect("it goes over the satellite");
    assert_eq!((edge.sessions(), hub.sessions()), (1, 1), "the conversation noticed nothing");
    edge.stopped().await;
    hub.stopped().await;
}

/// QUIC had confirmed what a busy hub had not read when its link was paused there: lost for as long as the session lasted.
#[tokio::test(flavor = "multi_thread")]
async fn what_has_come_over_a_link_and_was_not_read_when_it_was_closed_here_is_not_lost() {
    let TwoLinks { edge, hub, radio, satellite } = two_links(|radio, satellite| {
        serde_json::json!([
            { "name": "radio", "address": radio.address.to_string() },
            { "name": "satellite", "address": satellite.address.to_string(), "cost": 900 },
        ])
    })
    .await;
    until("both links", || edge.links_up() == 2 && hub.links_up() == 2).await;
    let busy = Arc::clone(&hub.script.lock().unwrap().busy);
    {
        let _busy = busy.lock().await;
        edge.says_later(0..100);
        // All of it is at the hub, which has not looked yet.
        until("it goes over the radio", || radio.up_datagrams() > 60).await;
        settled(&radio.state.up_datagrams).await;
        hub.shared.order_link(edge.key.node_id(), &"radio".parse().unwrap(), LinkOrder::Pause).unwrap();
    }
    let all = until("all of it", || hub.heard() == 100 && edge.confirmed());
    timeout(Duration::from_secs(20), all).await.expect("nothing of it is sent again");
    assert_eq!((edge.sessions(), hub.sessions()), (1, 1));
    assert!(edge.links_up() == 1 && satellite.up_datagrams() > 0);
    edge.stopped().await;
    hub.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bulk_takes_the_cheap_link_alone_and_flash_takes_both() {
    let TwoLinks { edge, hub, radio, satellite } = two_links(|radio, satellite| {
        serde_json::json!([
            { "name": "radio", "address": radio.address.to_string() },
            { "name": "satellite", "address": satellite.address.to_string(), "cost": 900, "dscp": 46,
              "bind": "127.0.0.1", "classes": ["flash", "immediate"], "rate": "100kbit/s" },
        ])
    })
    .await;
    until("both links", || edge.links_up() == 2 && hub.links_up() == 2).await;
    let before = satellite.state.up_bytes.load(Ordering::SeqCst);
    edge.says_later(0..100);
    until("the bulk", || hub.heard() == 100 && edge.confirmed()).await;
    let bulk = satellite.state.up_bytes.load(Ordering::SeqCst) - before;
    assert!(bulk < 3_000, "nothing but QUIC's own upkeep: {bulk}");
    // With the radio dead and nobody aware of it yet, flash is there at once.
    radio.set_down(true);
    edge.says_flash(1_000..1_001);
    until("the flash", || hub.heard() == 101).await;
    assert_eq!(edge.links_up(), 2, "the silence was not noticed yet");
    // What only the radio may carry waits for it.
    edge.says_later(100..101);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(hub.heard(), 101);
    radio.set_down(false);
    until("the rest", || hub.heard() == 102).await;
    edge.stopped().await;
    hub.stopped().await;
}

/// An edge with one link to its hub, of which the configuration says something.
async fn one_link(link: impl FnOnce(&mut serde_json::Value)) -> TwoLinks {
    two_links(|radio, _| {
        let mut json = serde_json::json!({ "name": "radio", "address": radio.address.to_string() });
        link(&mut json);
        serde_json::json!([json])
    })
    .await
}

/// An edge and a hub that have configured how often they want to hear of each other, and what each shows.
async fn idle(edge_seconds: u16, hub_seconds: u16) -> (Node, Node, Relay, u64) {
    let (edge_key, hub_key) = (NodeKey::generate(), NodeKey::generate());
    let settings = |peer: &str, link: serde_json::Value| -> CarrierSettings {
        let json =
            serde_json::json!({ "listen": "127.0.0.1:0", "rate": "4Mbit/s", "peers": { peer: { "links": [link] } } });
        serde_json::from_value(json).unwrap()
    };
    let at_hub = settings("alpha", serde_json::json!({ "name": "radio", "keepalive_seconds": hub_seconds }));
    let peers = vec![peer(&edge_key, "alpha", PeerRole::Edge, None)];
    let hub = Node::start_with(tempfile::tempdir().unwrap(), "base", at_hub, peers, hub_key.clone());
    let relay = Relay::to(hub.address()).await;
    let at_edge = settings("base", serde_json::json!({ "name": "radio", "keepalive_seconds": edge_seconds }));
    let peers = vec![peer(&hub_key, "base", PeerRole::Hub, Some(relay.address))];
    let edge = Node::start_with(tempfile::tempdir().unwrap(), "alpha", at_edge, peers, edge_key);
    until("the link", || edge.is_up() && hub.is_up()).await;
    let of = |node: &Node| node.shared.status()[0].links[0].keepalive_seconds;
    until("they agree", || of(&edge) == of(&hub)).await;
    let agreed = of(&edge);
    (edge, hub, relay, agreed)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_link_says_that_it_lives_as_often_as_both_sides_want_and_not_at_all_where_one_wants_none() {
    let (edge, hub, relay, agreed) = idle(1, 1).await;
    assert_eq!(agreed, 1);
    settled(&relay.state.up_datagrams).await;
    let before = relay.up_datagrams();
    until("signs of life", || relay.up_datagrams() >= before + 3).await;
    edge.stopped().await;
    hub.stopped().await;
    let (edge, hub, _relay, agreed) = idle(1, 500).await;
    assert_eq!(agreed, 500);
    edge.stopped().await;
    hub.stopped().await;
    let (edge, hub, relay, agreed) = idle(0, 1).await;
    assert_eq!(agreed, 0);
    sleep(Duration::from_millis(500)).await;
    let before = settled(&relay.state.up_datagrams).await;
    sleep(Duration::from_secs(6)).await;
    assert_eq!(relay.up_datagrams(), before, "emitted while idle");
    assert!(edge.is_up() && hub.is_up(), "silence says nothing here");
    hub.says_later(0..20);
    until("what the hub has to say", || edge.heard() == 20 && hub.confirmed()).await;
    edge.stopped().await;
    hub.stopped().await;
}

/// A peer died after its carrier had confirmed everything, and before it had answered: where nothing is said while a link is idle, nobody
/// noticed for as long as the node ran.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_dies_with_an_awaited_answer_is_missed_also_where_nothing_is_said_while_idle() {
    let (edge, hub, relay, agreed) = idle(0, 0).await;
    assert_eq!(agreed, 0);
    let before = settled(&relay.state.up_datagrams).await;
    let both = |awaits| [&edge, &hub].into_iter().for_each(|node| node.script.lock().unwrap().awaits = awaits);
    both(true);
    // It is there, and takes its time: asked now and then, and not cut off.
    edge.says_later(0..1);
    sleep(Duration::from_secs(8)).await;
    assert!(edge.is_up() && hub.is_up(), "it answered that it is there");
    let asked = relay.up_datagrams() - before;
    assert!((2..40).contains(&asked), "{asked} datagrams in eight seconds");
    relay.set_down(true);
    let missed = until("both sides miss the other", || !edge.is_up() && !hub.is_up());
    timeout(Duration::from_secs(30), missed).await.expect("each asks whether the other is there");
    relay.set_down(false);
    until("it is back", || edge.is_up() && hub.is_up()).await;
    assert_eq!((edge.sessions(), hub.sessions()), (1, 1), "the conversation goes on");
    both(false);
    let before = settled(&relay.state.up_datagrams).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(relay.up_datagrams(), before, "emitted while nothing is awaited");
    edge.stopped().await;
    hub.stopped().await;
}

fn link_state(node: &Node) -> Option<PeerState> {
    node.shared.status().into_iter().next().and_then(|peer| peer.links.into_iter().next()).map(|link| link.state)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_is_used_to_its_end_and_never_exceeded_not_even_over_a_restart() {
    let TwoLinks { edge, hub, radio, .. } = one_link(|link| link["budget_per_day"] = "200kB".into()).await;
    edge.says(0..400);
    let held = |node: &Node| matches!(link_state(node), Some(PeerState::Held { .. }));
    until("the end of the budget", || held(&edge)).await;
    let spent = settled(&radio.state.up_bytes).await;
    assert!(spent <= 200_000, "{spent}");
    // The last datagram that did not fit may have been a full one.
    assert!(spent > 200_000 - 1_500, "{spent}");
    assert!(hub.heard() > 100);
    let (key, peers, settings) = (edge.key.clone(), edge.shared.registry.list(), (*edge.shared.settings).clone());
    let dir = edge.stopped().await;
    let edge = Node::start_with(dir, "alpha", settings, peers, key);
    until("the budget is still used up", || held(&edge)).await;
    assert!(settled(&radio.state.up_bytes).await <= 200_000);
    edge.stopped().await;
    hub.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn outside_its_contact_windows_a_link_is_not_dialled() {
    // The clock of these tests stands in November 2023.
    let windows = serde_json::json!([{ "start": "2030-01-01T00:00:00Z", "end": "2030-01-01T01:00:00Z" }]);
    let TwoLinks { edge, hub, radio, .. } = one_link(|link| link["windows"] = windows).await;
    sleep(Duration::from_millis(500)).await;
    let Some(PeerState::Held { why }) = link_state(&edge) else { panic!("{:?}", link_state(&edge)) };
    assert!(why.contains("next 2030-01-01T00:00:00Z"), "{why}");
    assert_eq!(radio.up_datagrams(), 0);
    let windows = serde_json::json!([
        { "start": "2023-11-14T00:00:00Z", "end": "2023-11-15T00:00:00Z", "rate": "64kbit/s" },
    ]);
    edge.stopped().await;
    hub.stopped().await;
    let TwoLinks { edge, hub, radio: _radio, .. } = one_link(|link| link["windows"] = windows).await;
    until("the link", || edge.is_up()).await;
    assert_eq!(edge.shared.status()[0].links[0].rate, BitsPerSecond(64_000));
    edge.stopped().await;
    hub.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_link_can_be_silenced_or_paused_while_the_other_goes_on_and_stays_so_over_a_restart() {
    let TwoLinks { edge, hub, radio, satellite } = two_links(|radio, satellite| {
        serde_json::json!([
            { "name": "radio", "address": radio.address.to_string(), "rate": "100kbit/s" },
            { "name": "satellite", "address": satellite.address.to_string() },
        ])
    })
    .await;
    until("both links", || edge.links_up() == 2 && hub.links_up() == 2).await;
    let (peer, link) = (hub.key.node_id(), "radio".parse().unwrap());
    edge.shared.order_link(peer, &link, LinkOrder::Silence).unwrap();
    let before = settled(&radio.state.up_datagrams).await;
    edge.says_later(0..50);
    until("it goes over the other", || hub.heard() == 50 && edge.confirmed()).await;
    assert_eq!(link_state(&edge), Some(PeerState::Silent));
    assert_eq!(edge.shared.status()[0].links[0].reach, Reach::Silent);
    let (key, peers, settings) = (edge.key.clone(), edge.shared.registry.list(), (*edge.shared.settings).clone());
    let dir = edge.stopped().await;
    let edge = Node::start_with(dir, "alpha", settings, peers, key);
    until("the other link", || edge.links_up() == 1).await;
    assert_eq!(settled(&radio.state.up_datagrams).await, before, "emitted while silent");
    edge.shared.order_link(peer, &link, LinkOrder::Pause).unwrap();
    until("it is paused", || matches!(link_state(&edge), Some(PeerState::Held { .. }))).await;
    edge.shared.order_link(peer, &link, LinkOrder::Use).unwrap();
    until("both again", || edge.links_up() == 2).await;
    let measured = edge.shared.test_link(peer, &link).await.unwrap();
    assert_eq!((measured.sent, measured.acknowledged), (8, 8));
    assert!(measured.bytes_up < 2_500, "{measured:?}");
    assert!(measured.handshake_ms.is_some());
    let no_link = "cable".parse().unwrap();
    assert!(edge.shared.order_link(peer, &no_link, LinkOrder::Pause).is_err());
    assert!(satellite.up_datagrams() > 0);
    edge.stopped().await;
    hub.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_begins_anew_and_an_edge_with_two_links_agree_on_one_session() {
    let TwoLinks { edge, hub, radio, satellite } = two_links(|radio, satellite| {
        serde_json::json!([
            { "name": "radio", "address": radio.address.to_string() },
            { "name": "satellite", "address": satellite.address.to_string() },
        ])
    })
    .await;
    until("both links", || edge.links_up() == 2 && hub.links_up() == 2).await;
    // The hub ends the session for a reason of its own; the radio's farewell is lost.
    radio.set_down(true);
    hub.script.lock().unwrap().refuses = true;
    edge.says_later(0..1);
    until("the hub began anew", || hub.sessions() == 2).await;
    radio.set_down(false);
    edge.says_later(1..60);
    until("everything", || hub.heard() >= 60 && edge.confirmed()).await;
    until("both links", || edge.links_up() == 2 && hub.links_up() == 2).await;
    assert!(satellite.up_datagrams() > 0);
    edge.stopped().await;
    hub.stopped().await;
}

/// A power cut at the hub while the link is down: it has no goodbye to send, and the edge keeps a silent connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_was_killed_in_an_outage_is_dialled_anew_at_the_first_probe() {
    let World { edge, hub, relay } = world(FAST).await;
    edge.says(0..10);
    until("the link", || edge.confirmed() && edge.is_up()).await;
    relay.set_down(true);
    let key = hub.key.clone();
    drop(hub);
    let hub = Node::start("base", true, FAST, vec![peer(&edge.key, "alpha", PeerRole::Edge, None)], key);
    relay.follow(hub.address()).await;
    edge.says_later(10..20);
    relay.set_down(false);
    let back = until("what was said in the outage", || edge.confirmed() && hub.heard() >= 10);
    tokio::time::timeout(Duration::from_secs(15), back).await.expect("a probe is answered with a reset");
    edge.stopped().await;
    hub.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn not_a_byte_more_than_the_rate_crosses_the_relay() {
    let rate = BitsPerSecond(256_000);
    let started = clock::now();
    let World { edge, hub, relay } = world(rate).await;
    relay.set_loss(100);
    edge.says(0..80);
    until("everything", || edge.confirmed()).await;
    // A datagram left before the relay counted it, so nothing counted here is younger than this.
    let bytes = relay.state.up_bytes.load(Ordering::SeqCst);
    let elapsed = started.elapsed().as_millis() as u64;
    assert!(bytes <= rate.bytes_in_millis(elapsed + 10) + 1_500, "{bytes} bytes in {elapsed} ms");
    assert!(bytes >= 80_000, "it is the frames that were counted: {bytes}");
    let told = edge.shared.status()[0].wire_bytes_up;
    assert!(told >= bytes, "the operator sees what the relay saw: {told}, {bytes}");
    edge.stopped().await;
    hub.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_node_emits_nothing_not_even_a_goodbye_and_stays_silent_over_a_restart() {
    let World { edge, hub, relay } = world(FAST).await;
    until("the link", || edge.is_up() && hub.is_up()).await;
    edge.shared.set_emission(Emission::Silent).unwrap();
    // What the kernel already holds for the relay is counted when nothing more comes.
    let before = settled(&relay.state.up_datagrams).await;
    hub.says(0..10);
    until("the edge shows it", || edge.state() == PeerState::Silent).await;
    hub.shared.set_rate(edge.key.node_id(), BitsPerSecond(1_000_000)).unwrap();
    let (key, hub_peer) = (edge.key.clone(), edge.shared.registry.list());
    let dir = edge.stopped().await;
    let edge = Node::start_in(dir, "alpha", false, FAST, hub_peer, key);
    until("the restarted edge shows it", || edge.state() == PeerState::Silent).await;
    sleep(Duration::from_millis(500)).await;
    assert_eq!(relay.up_datagrams(), before, "emitted while silent");
    edge.shared.set_emission(Emission::Normal).unwrap();
    until("the link again", || edge.is_up()).await;
    edge.stopped().await;
    hub.stopped().await;
}

/// What a relay has counted, once it counts no more.
pub(crate) async fn settled(count: &AtomicU64) -> u64 {
    let mut last = count.load(Ordering::SeqCst);
    loop {
        sleep(Duration::from_millis(100)).await;
        let current = count.load(Ordering::SeqCst);
        if current == last {
            return current;
        }
        last = current;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_not_enrolled_is_told_what_to_do() {
    let hub_key = NodeKey::generate();
    let hub = Node::start("base", true, FAST, Vec::new(), hub_key.clone());
    let hub_peer = peer(&hub_key, "base", PeerRole::Hub, Some(hub.address()));
    let edge = Node::start("alpha", false, FAST, vec![hub_peer], NodeKey::generate());
    let denied = PeerState::Denied { text: NOT_ENROLLED.to_owned() };
    until("the refusal", || edge.state() == denied).await;
    until("it shows", || edge.shared.status()[0].reach == Reach::Denied).await;
    edge.stopped().await;
    hub.stopped().await;
}

/// Each of them proves some key, says that it wants to enrol, and nothing more: each had one of the places for handshakes for a minute, and
/// came again.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_that_come_and_say_nothing_keep_no_enrolled_peer_out() {
    let (edge_key, hub_key) = (NodeKey::generate(), NodeKey::generate());
    let hub = Node::start("base", true, FAST, vec![peer(&edge_key, "alpha", PeerRole::Edge, None)], hub_key.clone());
    let strangers = Plug::open(NodeKey::generate(), None, Arc::new(Governor::new(true, FAST))).unwrap();
    let lane = Arc::new(WireLane::new(BitsPerSecond(1_000_000_000), clock::now()));
    let address = hub.address().to_string();
    let mut inside = Vec::new();
    for _ in 0..140 {
        let dialling = strangers.dial(hub_key.node_id(), &address, &lane, false);
        inside.extend(timeout(Duration::from_secs(2), dialling).await.into_iter().flatten());
    }
    assert!(inside.len() >= 128, "{} are inside", inside.len());
    let edge =
        Node::start("alpha", false, FAST, vec![peer(&hub_key, "base", PeerRole::Hub, Some(hub.address()))], edge_key);
    let link = until("the link", || edge.is_up() && hub.is_up());
    timeout(Duration::from_secs(15), link).await.expect("it is enrolled");
    edge.stopped().await;
    hub.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_removed_is_refused_at_once() {
    let World { edge, hub, relay: _relay } = world(FAST).await;
    until("the link", || edge.is_up() && hub.is_up()).await;
    hub.shared.registry.remove(edge.key.node_id()).unwrap();
    hub.shared.peers_changed.send_modify(|n| *n += 1);
    until("the refusal", || matches!(edge.state(), PeerState::Denied { .. })).await;
    assert!(hub.shared.status().is_empty());
    edge.stopped().await;
    hub.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_connection_of_a_peer_replaces_the_older() {
    let (edge_key, hub_key) = (NodeKey::generate(), NodeKey::generate());
    let hub = Node::start("base", true, FAST, vec![peer(&edge_key, "alpha", PeerRole::Edge, None)], hub_key);
    let lane = Arc::new(WireLane::new(FAST, clock::now()));
    let plug = Plug::open(edge_key, None, Arc::new(Governor::new(true, FAST))).unwrap();
    let dial = async |session: u64| {
        let dialled = plug.dial(hub.key.node_id(), &hub.address().to_string(), &lane, true).await.unwrap();
        let mut pipe = Pipe::quic(dialled);
        let join = Frame::Join(Join { session, keepalive_seconds: 60, link: "main".to_owned() });
        pipe.send(1, Lane::Control, join.encode().into());
        pipe
    };
    let mut first = dial(1).await;
    until_with("the first", &mut first, || hub.script.lock().unwrap().connections == 1).await;
    let mut second = dial(2).await;
    let gone = timeout(PATIENCE, async {
        loop {
            tokio::select! {
                event = first.next() => if let PipeEvent::Closed(gone) = event { break gone },
                event = second.next() => assert!(!matches!(event, PipeEvent::Closed(_)), "{event:?}"),
            }
        }
    });
    assert_eq!(gone.await.unwrap(), Gone::Lost("a newer connection of this node replaces this one".to_owned()));
    until("the second", || hub.script.lock().unwrap().connections == 2).await;
    assert!(hub.is_up());
    hub.stopped().await;
}

fn name(text: &str) -> PeerName {
    text.parse().unwrap()
}

async fn enroll(token: &str, key: &NodeKey, as_name: &str, secret: &ChunkSecret) -> Result<Peer, EnrollError> {
    enroll_join(EnrollOptions {
        invite: &token.parse().unwrap(),
        key,
        name: &name(as_name),
        chunk_secret: secret,
        sealing: sealing().public(),
        rate: FAST,
        emission: Emission::Normal,
        patience: PATIENCE,
        clock: &FixedClock,
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_enrols_one_node_and_each_learns_of_the_other() {
    let hub = Node::start("base", true, FAST, Vec::new(), NodeKey::generate());
    let address = hub.address().to_string();
    let invite = hub.invites.create(name("alpha"), hub.key.node_id(), &address, NOW, 60_000).unwrap();
    let (key, secret) = (NodeKey::generate(), ChunkSecret::generate());
    let told = enroll(&invite.to_token(), &key, "alpha", &secret).await.unwrap();
    assert_eq!((told.node, told.name.as_str(), told.role), (hub.key.node_id(), "base", PeerRole::Hub));
    assert_eq!((told.chunk_secret.clone(), told.address.clone()), (hub.chunk_secret.clone(), Some(address)));
    let known = hub.shared.registry.by_name("alpha").unwrap();
    assert_eq!((known.node, known.spki, known.chunk_secret), (key.node_id(), key.spki().to_vec(), secret.clone()));
    // The answer may have been lost: the same node asks again and hears the same.
    assert_eq!(enroll(&invite.to_token(), &key, "alpha", &secret).await.unwrap(), told);
    // The link comes up without a restart of the hub.
    let edge = Node::start("alpha", false, FAST, vec![told], key);
    until("the link", || edge.is_up()).await;
    edge.stopped().await;
    hub.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_bad_token_is_refused_with_its_reason_and_a_next_step() {
    let hub = Node::start("base", true, FAST, Vec::new(), NodeKey::generate());
    let other = Node::start("other", true, FAST, Vec::new(), NodeKey::generate());
    let address = hub.address().to_string();
    let create = |who: &str, valid_ms| {
        hub.invites.create(name(who), hub.key.node_id(), &address, NOW, valid_ms).unwrap().to_token()
    };
    let (key, secret) = (NodeKey::generate(), ChunkSecret::generate());
    let refusal = async |token: &str, key: &NodeKey, as_name: &str| {
        let refused = enroll(token, key, as_name, &secret).await.unwrap_err();
        assert!(!refused.next_step().is_empty());
        refused.to_string()
    };

    let used = create("alpha", 60_000);
    enroll(&used, &key, "alpha", &secret).await.unwrap();
    let text = refusal(&used, &NodeKey::generate(), "alpha").await;
    assert!(text.contains("already used by another node"), "{text}");

    let text = refusal(&create("bravo", -1), &key, "bravo").await;
    assert!(text.contains("has expired"), "{text}");

    let text = refusal(&create("bravo", 60_000), &key, "charlie").await;
    assert!(text.contains("is for `bravo`"), "{text}");

    let withdrawn = create("delta", 60_000);
    hub.invites.withdraw(&name("delta")).unwrap();
    let text = refusal(&withdrawn, &key, "delta").await;
    assert!(text.contains("does not know"), "{text}");

    let elsewhere = other.address().to_string();
    let astray = hub.invites.create(name("echo"), hub.key.node_id(), &elsewhere, NOW, 60_000).unwrap();
    let text = refusal(&astray.to_token(), &key, "echo").await;
    assert!(text.contains("is not the hub that issued the token"), "{text}");

    let mut typo = create("foxtrot", 60_000).to_string();
    typo.truncate(typo.len() - 1);
    assert_eq!(typo.parse::<keys::Invite>(), Err(TokenError::Mistyped));
    hub.stopped().await;
    other.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn enrolment_keeps_silence_and_gives_up_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let invites = InviteBook::open(dir.path()).unwrap();
    // A socket that never answers.
    let deaf = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = deaf.local_addr().unwrap().to_string();
    let hub = NodeKey::generate().node_id();
    let invite = invites.create(name("alpha"), hub, &address, NOW, 60_000).unwrap();
    let (key, secret, me) = (NodeKey::generate(), ChunkSecret::generate(), name("alpha"));
    let join = |emission, patience| {
        enroll_join(EnrollOptions {
            invite: &invite,
            key: &key,
            name: &me,
            chunk_secret: &secret,
            sealing: sealing().public(),
            rate: FAST,
            emission,
            patience,
            clock: &FixedClock,
        })
    };
    let silent = join(Emission::Silent, PATIENCE).await.unwrap_err();
    assert!(matches!(silent, EnrollError::Emission(Emission::Silent)), "{silent}");
    assert!(deaf.try_recv(&mut [0; 2048]).is_err(), "nothing was sent");
    let lost = join(Emission::Normal, Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(&lost, EnrollError::NoAnswer { address: a, .. } if *a == address), "{lost}");
}

// The whole room: journals on disk, link sessions, a ledger that applies everything it can read.

/// The apply side in a few lines: whatever lies in the journal is applied.
struct Book {
    journal: Journal,
    applies: AtomicBool,
    skipped: Mutex<Vec<(NodeId, Epoch, Outcome, RangeSet)>>,
    complete: Mutex<BTreeSet<EntryId>>,
}

impl Ledger for Book {
    fn ledger(&self, origin: NodeId) -> Result<Vec<(Epoch, Outcome, RangeSet)>, LedgerError> {
        let applies = self.applies.load(Ordering::SeqCst);
        let applied = self.journal.received(origin).into_iter().filter(|_| applies);
        let applied = applied.map(|(epoch, set)| (epoch, Outcome::Applied, set));
        let skipped = self.skipped.lock().unwrap().clone().into_iter();
        let skipped = skipped.filter(|s| s.0 == origin).map(|(_, epoch, outcome, set)| (epoch, outcome, set));
        Ok(applied.chain(skipped).collect())
    }

    fn jumped(&self, _: NodeId) -> Option<Vec<(EntryId, EntryId)>> {
        Some(Vec::new())
    }

    fn account(&self, origin: NodeId, epoch: Epoch, outcome: Outcome, set: &RangeSet) -> Result<(), LedgerError> {
        self.skipped.lock().unwrap().push((origin, epoch, outcome, set.clone()));
        Ok(())
    }

    fn file_complete(&self, file: EntryId) {
        self.complete.lock().unwrap().insert(file);
    }

    fn requested_files(&self, _: NodeId) -> Result<Vec<(Entry, Precedence)>, LedgerError> {
        Ok(Vec::new())
    }

    fn incomplete_files(&self, _: NodeId) -> Result<Vec<Entry>, LedgerError> {
        Ok(Vec::new())
    }
}

struct Whole {
    dir: TempDir,
    key: NodeKey,
    chunk_secret: ChunkSecret,
    journal: Journal,
    book: Arc<Book>,
    handle: CarrierHandle,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    next: u64,
}

struct Identity {
    dir: TempDir,
    key: NodeKey,
    chunk_secret: ChunkSecret,
}

impl Identity {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), key: NodeKey::generate(), chunk_secret: ChunkSecret::generate() }
    }

    fn as_peer(&self, name: &str, role: PeerRole, address: Option<SocketAddr>) -> Peer {
        Peer { chunk_secret: self.chunk_secret.clone(), ..peer(&self.key, name, role, address) }
    }
}

impl Whole {
    fn start(id: Identity, name: &str, listens: bool, peers: Vec<Peer>) -> Self {
        let Identity { dir, key, chunk_secret } = id;
        let registry = Arc::new(PeerRegistry::open(dir.path()).unwrap());
        peers.into_iter().for_each(|peer| registry.add(peer).unwrap());
        let (journal, _) = Journal::open(JournalOptions {
            dir: dir.path().join("journal"),
            node: key.node_id(),
            disk: Arc::new(StdDisk),
            clock: Arc::new(SystemClock),
            settings: JournalSettings::default(),
            index: IndexPlace::Memory,
            at_rest: AtRest::Plain,
        })
        .unwrap();
        let applies = AtomicBool::new(true);
        let book = Book { journal: journal.clone(), applies, skipped: Mutex::default(), complete: Mutex::default() };
        let book = Arc::new(book);
        let listen = listens.then(|| "127.0.0.1:0".parse().unwrap());
        let carrier = Carrier::new(CarrierOptions {
            key: key.clone(),
            name: name.parse().unwrap(),
            chunk_secret: chunk_secret.clone(),
            sealing: sealing().clone(),
            registry,
            invites: None,
            journal: journal.clone(),
            ledger: Arc::clone(&book) as Arc<dyn Ledger>,
            settings: CarrierSettings { listen, rate: FAST, ..CarrierSettings::default() },
            data_dir: dir.path().to_owned(),
            clock: Arc::new(SystemClock),
            metrics: Arc::new(Metrics::new()),
        })
        .unwrap();
        let (handle, stop) = (carrier.handle(), CancellationToken::new());
        // What is received is applied at once.
        let finals = handle.clone();
        let applying = journal.on_append(Box::new(move || finals.notify_finals()));
        let mut tasks = JoinSet::new();
        let token = stop.clone();
        tasks.spawn(async move {
            carrier.run(token).await;
            drop(applying);
        });
        Self { dir, key, chunk_secret, journal, book, handle, stop, tasks, next: 1 }
    }

    fn draft(&mut self, precedence: Precedence, label: &str, kind: Kind, body: Vec<u8>) -> Draft {
        let at = Hlc(((NOW.0 as u64) << 16) + self.next);
        self.next += 1;
        Draft {
            source: SourcePosition(at),
            follows: None,
            stream: StreamId::Directory,
            causes: Vec::new(),
            needs: Vec::new(),
            precedence,
            captured: at,
            origin_time: NOW,
            expiry: None,
            supersedes: None,
            label: label.parse().unwrap(),
            kind,
            mint_salt: 7,
            body,
            object: None,
            chunks: None,
        }
    }

    fn writes(&mut self, count: u64) {
        for n in 0..count {
            let class = Precedence::ALL[(n % 5) as usize];
            let draft = self.draft(class, "mission", Kind::Post, format!("message {n} of this node").into_bytes());
            self.journal.append_own(draft).wait().unwrap();
        }
    }

    /// A file of its own label's chunks, and its entry.
    fn writes_file(&mut self, content: &[u8]) -> EntryId {
        let namer = wire::chunk::Namer::new(self.chunk_secret.expose(), &"mission".parse().unwrap());
        let mut file = self.journal.begin_file();
        let put = |name, bytes: &[u8]| file.put(&namer, name, bytes).map_err(std::io::Error::other);
        let manifest = wire::chunk::build_manifest(content, &namer, put).unwrap();
        file.finish(&namer).unwrap();
        let id = Id::from_block([3; 16]);
        let stub = FileStub {
            id,
            create_at: NOW,
            name: "plan.pdf".to_owned(),
            extension: "pdf".to_owned(),
            size: content.len() as u64,
            mime_type: "application/pdf".to_owned(),
            width: 0,
            height: 0,
        };
        let version = Version { at: Hlc(1), by: self.key.node_id() };
        let state = FileState { version, stub, user_id: id, channel_id: id, post_id: None, content: Some(manifest) };
        let body = Event::File(state).encode_with(&mut EntryIds::new(self.key.node_id(), 7));
        let mut draft = self.draft(Precedence::Deferred, "mission", Kind::File, body);
        draft.chunks = Some(file.chunks(content.len() as u64));
        self.journal.append_own(draft).wait().unwrap().id
    }

    fn accounting(&self, peer: &NodeKey) -> Sums {
        self.journal.accounting(&consumer_name(peer.node_id())).unwrap().unwrap_or_default().total
    }

    fn received_from(&self, origin: &NodeKey) -> u64 {
        self.journal.received(origin.node_id()).values().map(RangeSet::count).sum()
    }

    fn state(&self) -> Option<PeerState> {
        self.handle.status().into_iter().next().map(|peer| peer.state)
    }

    fn is_up(&self) -> bool {
        matches!(self.state(), Some(PeerState::Up { .. }))
    }

    async fn stopped(mut self) -> Identity {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        Identity { dir: self.dir, key: self.key, chunk_secret: self.chunk_secret }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn journals_converge_through_loss_outages_and_a_restart_and_the_equation_holds() {
    let (edge_id, hub_id) = (Identity::new(), Identity::new());
    let edge_peer = edge_id.as_peer("alpha", PeerRole::Edge, None);
    let mut hub = Whole::start(hub_id, "base", true, vec![edge_peer.clone()]);
    let relay = Relay::to(hub.handle.local_addr().unwrap()).await;
    relay.set_loss(50);
    let hub_peer =
        Peer { chunk_secret: hub.chunk_secret.clone(), ..peer(&hub.key, "base", PeerRole::Hub, Some(relay.address)) };
    let mut edge = Whole::start(edge_id, "alpha", false, vec![hub_peer.clone()]);
    edge.writes(300);
    hub.writes(200);
    let secret = edge.draft(Precedence::Flash, "local", Kind::Post, b"not for others".to_vec());
    edge.journal.append_own(secret).wait().unwrap();
    // Bytes that no compression shrinks.
    let content: Vec<u8> = (0..200_000u32).flat_map(|n| scrambled(n).to_le_bytes()).take(300_000).collect();
    let file = edge.writes_file(&content);

    until("a part of it", || hub.received_from(&edge.key) > 50).await;
    relay.set_down(true);
    hub.writes(1);
    until("the hub shows the outage", || !hub.is_up()).await;
    relay.set_down(false);
    until("the hub shows its end", || hub.is_up()).await;
    until("more of it", || hub.received_from(&edge.key) > 150).await;
    let edge_id = edge.stopped().await;
    let mut edge = Whole::start(edge_id, "alpha", false, Vec::new());
    edge.next = 1_000;
    edge.writes(20);
    until("all entries", || hub.received_from(&edge.key) == 321 && edge.received_from(&hub.key) == 201).await;
    until("the file", || hub.book.complete.lock().unwrap().contains(&file)).await;
    until("all final receipts", || edge.accounting(&hub.key).held == 0 && hub.accounting(&edge.key).held == 0).await;

    let sums = edge.accounting(&hub.key);
    assert_eq!((sums.accepted, sums.applied, sums.withheld), (322, 321, 1));
    assert_eq!(hub.accounting(&edge.key).applied, 201);
    let told =
        |(_, _, outcome, set): &(NodeId, Epoch, Outcome, RangeSet)| *outcome == Outcome::Withheld && set.count() == 1;
    assert!(hub.book.skipped.lock().unwrap().iter().any(told));
    edge.stopped().await;
    hub.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_was_damaged_before_it_was_sent_is_accounted_for_on_both_sides() {
    let (edge_id, hub_id) = (Identity::new(), Identity::new());
    let hub = Whole::start(hub_id, "base", true, vec![edge_id.as_peer("alpha", PeerRole::Edge, None)]);
    let hub_peer = Peer {
        chunk_secret: hub.chunk_secret.clone(),
        ..peer(&hub.key, "base", PeerRole::Hub, hub.handle.local_addr())
    };
    let mut edge = Whole::start(edge_id, "alpha", false, Vec::new());
    edge.writes(30);
    let edge_id = edge.stopped().await;
    damage(&edge_id.dir, b"message 4 of this node");
    let edge = Whole::start(edge_id, "alpha", false, vec![hub_peer]);
    until("the rest", || hub.received_from(&edge.key) == 29).await;
    let told = |(_, _, outcome, set): &(NodeId, Epoch, Outcome, RangeSet)| {
        *outcome == Outcome::Quarantined && *set == RangeSet::from(5..=5)
    };
    until("word of the damaged one", || hub.book.skipped.lock().unwrap().iter().any(told)).await;
    until("all final receipts", || edge.accounting(&hub.key).held == 0).await;
    let sums = edge.accounting(&hub.key);
    assert_eq!((sums.accepted, sums.applied, sums.quarantined), (30, 29, 1));
    edge.stopped().await;
    hub.stopped().await;
}

/// One bit of the first segment flips, in a message.
fn damage(dir: &TempDir, message: &[u8]) {
    let segment = dir.path().join("journal/segments/00000001.seg");
    let mut bytes = std::fs::read(&segment).unwrap();
    let at = bytes.windows(message.len()).position(|w| w == message).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_is_damaged_here_comes_back_from_the_peer_that_holds_it() {
    let (edge_id, hub_id) = (Identity::new(), Identity::new());
    let hub = Whole::start(hub_id, "base", true, vec![edge_id.as_peer("alpha", PeerRole::Edge, None)]);
    let hub_peer = Peer {
        chunk_secret: hub.chunk_secret.clone(),
        ..peer(&hub.key, "base", PeerRole::Hub, hub.handle.local_addr())
    };
    let mut edge = Whole::start(edge_id, "alpha", false, vec![hub_peer]);
    // Another destination has finished with nothing yet.
    edge.journal.consumer("archive", true).unwrap();
    edge.writes(30);
    until("all of it at the hub", || edge.accounting(&hub.key).applied == 30).await;
    let edge_id = edge.stopped().await;
    damage(&edge_id.dir, b"message 4 of this node");

    let edge = Whole::start(edge_id, "alpha", false, Vec::new());
    let archive = || edge.journal.accounting("archive").unwrap().unwrap().total;
    until("it came back", || edge.journal.unreadable().is_empty()).await;
    assert_eq!((archive().accepted, archive().held, archive().quarantined), (30, 30, 0));
    assert_eq!(edge.journal.quarantine().restored, 1);
    assert_eq!(edge.journal.quarantine().places.len(), 1, "the place stays an alarm until somebody has looked at it");
    let id = EntryId { origin: edge.key.node_id(), epoch: Epoch::FIRST, seq: Seq::new(5).unwrap() };
    let again = edge.journal.outbound().entry(id).unwrap().expect("it can be read again");
    assert_eq!(again.entry.body, b"message 4 of this node");
    let sums = edge.accounting(&hub.key);
    assert_eq!((sums.accepted, sums.applied, sums.quarantined), (30, 30, 0));
    edge.stopped().await;
    hub.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_received_entry_that_is_damaged_before_it_is_applied_comes_again_from_its_origin() {
    let (edge_id, hub_id) = (Identity::new(), Identity::new());
    let hub = Whole::start(hub_id, "base", true, vec![edge_id.as_peer("alpha", PeerRole::Edge, None)]);
    hub.book.applies.store(false, Ordering::SeqCst);
    let hub_peer = Peer {
        chunk_secret: hub.chunk_secret.clone(),
        ..peer(&hub.key, "base", PeerRole::Hub, hub.handle.local_addr())
    };
    let mut edge = Whole::start(edge_id, "alpha", false, vec![hub_peer]);
    edge.writes(30);
    until("all of it at the hub", || edge.accounting(&hub.key).stored == 30).await;

    damage(&hub.dir, b"message 4 of this node");
    let id = EntryId { origin: edge.key.node_id(), epoch: Epoch::FIRST, seq: Seq::new(5).unwrap() };
    assert!(hub.journal.outbound().received(id).unwrap().is_none());
    let lost = BTreeMap::from([((id.origin, id.epoch), RangeSet::from(5..=5))]);
    hub.journal.forget_received(lost).await.unwrap();
    until("it came again", || hub.received_from(&edge.key) == 30).await;
    let again = hub.journal.outbound().received(id).unwrap().expect("it can be read again");
    assert_eq!(again.entry.body, b"message 4 of this node");
    assert_eq!(edge.accounting(&hub.key).stored, 30, "receipts are not taken back");

    hub.book.applies.store(true, Ordering::SeqCst);
    hub.handle.notify_finals();
    until("all final receipts", || edge.accounting(&hub.key).held == 0).await;
    let sums = edge.accounting(&hub.key);
    assert_eq!((sums.accepted, sums.applied, sums.quarantined), (30, 30, 0));
    // A restart forgets what was asked for, not what is held.
    let hub_id = hub.stopped().await;
    let hub = Whole::start(hub_id, "base", true, Vec::new());
    assert_eq!(hub.received_from(&edge.key), 30);
    edge.stopped().await;
    hub.stopped().await;
}

/// That its entries came in a parcel could not be written down, and they were stored all the same: after a restart their receipts would have
/// counted for whatever the peer means by these numbers by then.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_parcel_is_stored_before_it_is_written_down_that_it_came_in_one() {
    let (edge_id, hub_id) = (Identity::new(), Identity::new());
    let (at_hub, at_edge) =
        (edge_id.as_peer("alpha", PeerRole::Edge, None), hub_id.as_peer("base", PeerRole::Hub, None));
    let hub = Whole::start(hub_id, "base", true, vec![at_hub]);
    let mut edge = Whole::start(edge_id, "alpha", false, vec![at_edge]);
    edge.writes(20);
    until("the conversations", || edge.state().is_some() && hub.state().is_some()).await;
    edge.handle.begin_export("base", Since::Start).await.unwrap();
    let parcels = edge.handle.next_export("base", 1 << 20).await.unwrap().bytes;
    let in_the_way = hub.dir.path().join("parcels").join(format!("{}.new", edge.key.node_id()));
    std::fs::create_dir_all(&in_the_way).unwrap();
    let (_, refused) = hub.handle.take_parcel(&parcels).await;
    assert!(matches!(refused, Err(ParcelRefused::Store(_))), "{refused:?}");
    sleep(Duration::from_millis(300)).await;
    assert_eq!(hub.received_from(&edge.key), 0);
    std::fs::remove_dir(&in_the_way).unwrap();
    let (mut at, mut entries) = (0, 0);
    while at < parcels.len() {
        let (len, taken) = hub.handle.take_parcel(&parcels[at..]).await;
        at += len;
        entries += taken.expect("it can be taken again").1.entries;
    }
    assert_eq!((entries, hub.received_from(&edge.key)), (20, 20));
    edge.stopped().await;
    hub.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_machines_with_one_identity_are_told_so() {
    let (edge_id, hub_id) = (Identity::new(), Identity::new());
    let twin_id = Identity { key: edge_id.key.clone(), ..Identity::new() };
    let hub = Whole::start(hub_id, "base", true, vec![edge_id.as_peer("alpha", PeerRole::Edge, None)]);
    let hub_peer = peer(&hub.key, "base", PeerRole::Hub, hub.handle.local_addr());
    let edge = Whole::start(edge_id, "alpha", false, vec![hub_peer.clone()]);
    until("the first", || edge.is_up()).await;
    let twin = Whole::start(twin_id, "alpha", false, vec![hub_peer]);
    let cloned = PeerState::Denied { text: link::CloneVerdict::CLONED_TEXT.to_owned() };
    until("one of them is told", || [&edge, &twin].iter().any(|w| w.state() == Some(cloned.clone()))).await;
    edge.stopped().await;
    twin.stopped().await;
    hub.stopped().await;
}

/// Numbers without a pattern (the finaliser of MurmurHash3).
fn scrambled(n: u32) -> u32 {
    let mut h = n.wrapping_add(0x9e37_79b9);
    h = (h ^ (h >> 16)).wrapping_mul(0x85eb_ca6b);
    h = (h ^ (h >> 13)).wrapping_mul(0xc2b2_ae35);
    h ^ (h >> 16)
}
