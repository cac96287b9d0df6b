//! The public face: options, task, handle.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use journal::Journal;
use keys::{ChunkSecret, InviteBook, NodeKey, PeerName, PeerRegistry, SealingKey};
use model::{BitsPerSecond, Clock, Epoch, NodeId, Precedence, Seq};
use telemetry::Metrics;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::ask::{Asks, Telling};
use crate::book::Book;
use crate::conversation::{ConversationOptions, Conversations};
use crate::enroll::Desk;
use crate::net::{NetOptions, Shared};
use crate::oneway::{self, Common, Listener, OneWayReceived};
use crate::parcel::{Begun, Lane, Made, ParcelDesk, ParcelRefused, Since, Taken, Written};
use crate::transit::{self, Transit, TransitOptions, TransitStatus, Via};
use crate::{
    CarrierError, CarrierSettings, ClassBacklog, Emission, Ledger, LinkMeasured, LinkName, LinkOrder, PeerStatus,
};

/// What [`Carrier::new`] needs.
pub struct CarrierOptions {
    /// This node's key.
    pub key: NodeKey,
    /// This node's name, told to edges that enrol here.
    pub name: PeerName,
    /// The secret under which this node names its chunks, told to edges that enrol here.
    pub chunk_secret: ChunkSecret,
    /// The key with which this node opens what was sealed for it.
    pub sealing: SealingKey,
    /// The enrolled peers.
    pub registry: Arc<PeerRegistry>,
    /// Who may enrol here; `None` for a node that enrols nobody.
    pub invites: Option<Arc<InviteBook>>,
    /// Where own entries are read and received ones go.
    pub journal: Journal,
    /// What became of received entries.
    pub ledger: Arc<dyn Ledger>,
    /// From the configuration.
    pub settings: CarrierSettings,
    /// Holds the durable emission state.
    pub data_dir: PathBuf,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// This node's metrics.
    pub metrics: Arc<Metrics>,
}

/// The links of this node, ready to run.
pub struct Carrier {
    shared: Arc<Shared>,
    desk: Option<Desk>,
    conversations: Conversations,
    journal: Journal,
    asks: Arc<Asks>,
    parcels: Arc<ParcelDesk>,
    common: Common,
    oneway: Option<oneway::Receiver>,
    transit: Arc<Transit>,
}

/// What others ask of a running carrier. Cheap to clone.
#[derive(Clone)]
pub struct CarrierHandle {
    shared: Arc<Shared>,
    journal: Journal,
    asks: Arc<Asks>,
    parcels: Arc<ParcelDesk>,
    oneway: Option<Listener>,
    transit: Arc<Transit>,
}

/// Name of the journal consumer that stands for a peer. By identity and not by name: a replaced box has everything to
/// receive again.
pub fn consumer_name(peer: NodeId) -> String {
    format!("peer:{peer}")
}

/// What [`CarrierHandle::order_link`] does, for a node that does not run: the order counts from its next start.
///
/// # Errors
/// When the order could not be made durable.
pub fn order_link(data_dir: &Path, peer: NodeId, link: &LinkName, order: LinkOrder) -> Result<(), CarrierError> {
    Book::open(data_dir)?.set_order(peer, link, order)
}

impl Carrier {
    /// Binds the socket; nothing is sent before [`Carrier::run`]. To be called within a multi-threaded tokio runtime.
    ///
    /// # Errors
    /// When the socket cannot be bound.
    pub fn new(options: CarrierOptions) -> Result<Self, CarrierError> {
        let CarrierOptions {
            key,
            name,
            chunk_secret,
            sealing,
            registry,
            invites,
            journal,
            ledger,
            settings,
            data_dir,
            clock,
            metrics,
        } = options;
        let secret = chunk_secret.clone();
        let desk = invites.map(|invites| Desk {
            invites,
            registry: Arc::clone(&registry),
            name: name.clone(),
            chunk_secret,
            sealing: sealing.public().clone(),
            clock: Arc::clone(&clock),
        });
        let me = key.node_id();
        let parcels = ParcelDesk::new(key.clone(), sealing.clone(), Arc::clone(&registry), Arc::clone(&metrics));
        let parcels = Arc::new(parcels);
        let transit = TransitOptions {
            me,
            registry: Arc::clone(&registry),
            settings: settings.clone(),
            desk: Arc::clone(&parcels),
            journal: journal.clone(),
            clock: Arc::clone(&clock),
            metrics: Arc::clone(&metrics),
        };
        let transit = Arc::new(Transit::open(&data_dir, transit)?);
        let way = |(peer, relay): (PeerName, PeerName)| {
            let via = Via::new(peer, relay, Arc::clone(&transit), Arc::clone(&parcels));
            (via.peer().clone(), Arc::new(via))
        };
        let shared = Shared::new(NetOptions {
            key: key.clone(),
            registry: Arc::clone(&registry),
            settings: settings.clone(),
            vias: transit::vias(&settings).into_iter().map(way).collect(),
            data_dir: data_dir.clone(),
            clock: Arc::clone(&clock),
            metrics: Arc::clone(&metrics),
        })?;
        let common = Common {
            key,
            secret,
            registry,
            desk: Arc::clone(&parcels),
            emission: shared.emission.subscribe(),
            clock: Arc::clone(&clock),
            metrics: Arc::clone(&metrics),
        };
        let oneway = settings.oneway_listen.map(|listen| oneway::Receiver::new(listen, common.clone())).transpose()?;
        let asks = Arc::new(Asks::default());
        let conversations = Conversations::new(ConversationOptions {
            me,
            name,
            journal: journal.clone(),
            ledger,
            settings,
            clock,
            metrics,
            finals: shared.finals.subscribe(),
            asks: Arc::clone(&asks),
            parcels: Arc::clone(&parcels),
            transit: Arc::clone(&transit),
            data_dir,
        });
        Ok(Self { shared, desk, conversations, journal, asks, parcels, common, oneway, transit })
    }

    /// What others ask of it while it runs.
    pub fn handle(&self) -> CarrierHandle {
        let (asks, parcels) = (Arc::clone(&self.asks), Arc::clone(&self.parcels));
        let oneway = self.oneway.as_ref().map(oneway::Receiver::listener);
        let (shared, transit) = (Arc::clone(&self.shared), Arc::clone(&self.transit));
        CarrierHandle { shared, journal: self.journal.clone(), asks, parcels, oneway, transit }
    }

    /// Keeps every link until `stop`, then says goodbye to the peers. Not cancel-safe: stop it with the token.
    pub async fn run(self, stop: CancellationToken) {
        let Self { shared, desk, conversations, journal: _, asks: _, parcels: _, common, oneway, transit } = self;
        let mut lanes = JoinSet::new();
        lanes.spawn(transit.keep(stop.child_token()));
        for via in shared.vias.values() {
            lanes.spawn(Arc::clone(via).run(stop.child_token()));
        }
        if let Some(receiver) = oneway {
            lanes.spawn(receiver.run(stop.child_token()));
        }
        for out in shared.oneways.values() {
            let (out, book, governor) = (Arc::clone(out), Arc::clone(&shared.book), shared.plug.governor_shared());
            let sender = oneway::Sender { out, common: common.clone(), governor, book };
            lanes.spawn(sender.run(stop.child_token()));
        }
        Arc::clone(&shared).run(desk, conversations, stop).await;
        while lanes.join_next().await.is_some() {}
    }
}

impl CarrierHandle {
    /// Every enrolled peer's link, by node id. Reads figures from the journal: may block briefly.
    pub fn status(&self) -> Vec<PeerStatus> {
        let mut status = self.shared.status();
        for peer in &mut status {
            let accounting = self.journal.accounting(&consumer_name(peer.node)).ok().flatten();
            peer.backlog =
                accounting.map(|a| a.by_class.map(|sums| ClassBacklog { entries: sums.held, bytes: sums.held_bytes }));
        }
        status
    }

    /// What the conversation with a peer has sent, and since when an entry is on its way. `None` without a conversation, or
    /// when it is too busy to answer. Blocks for a second at most.
    pub fn telling(&self, peer: NodeId, entry: Option<(Epoch, Seq)>) -> Option<Telling> {
        self.asks.ask(peer, entry)
    }

    /// The emission state.
    pub fn emission(&self) -> Emission {
        *self.shared.emission.borrow()
    }

    /// The emission state as it changes, for whoever emits by other ways than the links.
    pub fn emission_changes(&self) -> watch::Receiver<Emission> {
        self.shared.emission.subscribe()
    }

    /// Sets the emission state, durably. When it forbids emission, not one datagram leaves after this returns, whatever
    /// it returns. Blocks on the disk.
    ///
    /// # Errors
    /// When the state could not be made durable. Silence is then kept until the restart; permission to emit is not given.
    pub fn set_emission(&self, emission: Emission) -> Result<(), CarrierError> {
        self.shared.set_emission(emission)
    }

    /// Sets the ceiling for what is sent over each link to a peer, from the next datagram on and until the restart.
    ///
    /// # Errors
    /// When the node is not enrolled.
    pub fn set_rate(&self, peer: NodeId, rate: BitsPerSecond) -> Result<(), CarrierError> {
        self.shared.set_rate(peer, rate)
    }

    /// Orders that a link be used, paused or silent, durably. With silence, not one datagram leaves over it after this
    /// returns, whatever it returns. Blocks on the disk.
    ///
    /// # Errors
    /// When there is no such peer or link, or the order could not be made durable.
    pub fn order_link(&self, peer: NodeId, link: &LinkName, order: LinkOrder) -> Result<(), CarrierError> {
        self.shared.order_link(peer, link, order)
    }

    /// Measures a link that is up: eight small frames, each sent when the one before it was acknowledged, so that
    /// each is a packet of its own. Takes ten seconds at most. Cancel-safe.
    ///
    /// # Errors
    /// When there is no such peer or link, or the link is not up.
    pub async fn test_link(&self, peer: NodeId, link: &LinkName) -> Result<LinkMeasured, CarrierError> {
        self.shared.test_link(peer, link).await
    }

    /// The ledger has changed: receipts are due.
    pub fn notify_finals(&self) {
        self.shared.finals.send_modify(|n| *n += 1);
    }

    /// Somebody wants a file of a peer: the ledger's requests are looked at anew.
    pub fn notify_files(&self) {
        self.asks.files.send_modify(|n| *n += 1);
    }

    /// The registry has changed by other hands than the enrolment desk's: links begin or end accordingly.
    pub fn notify_peers(&self) {
        self.shared.peers_changed.send_modify(|n| *n += 1);
    }

    /// Takes the parcel that `bytes` begin with. Returns how many bytes it has (all, when that cannot be told), from whom
    /// it is, and what it brought; that is durable then. May be repeated.
    pub async fn take_parcel(&self, bytes: &[u8]) -> (usize, Result<(NodeId, Taken), ParcelRefused>) {
        self.parcels.take(bytes).await
    }

    /// What this node carries on for others, by destination.
    pub fn transit(&self) -> Vec<TransitStatus> {
        self.transit.status()
    }

    /// What came over one-way lanes since the start; `None` where none is configured.
    pub fn oneway_received(&self) -> Option<OneWayReceived> {
        self.oneway.as_ref().map(Listener::received)
    }

    /// Where datagrams of one-way lanes arrive.
    pub fn oneway_addr(&self) -> Option<SocketAddr> {
        self.oneway.as_ref().map(Listener::address)
    }

    /// Begins to export parcels for a peer.
    ///
    /// # Errors
    /// When there is no such peer, or the journal cannot be read.
    pub async fn begin_export(&self, to: &str, since: Since) -> Result<Begun, ParcelRefused> {
        self.parcels.begin(to, since).await
    }

    /// The next parcels of the export, at most so many bytes where that is 32 KiB or more and no entry is larger. What they hold counts as written when
    /// [`CarrierHandle::note_export`] says so; nothing counts as arrived before the peer's receipt.
    ///
    /// # Errors
    /// When no export was begun, or the disk fails.
    pub async fn next_export(&self, to: &str, bytes: usize) -> Result<Made, ParcelRefused> {
        self.parcels.next(to, Lane::Courier, bytes, Precedence::Deferred).await
    }

    /// What [`CarrierHandle::next_export`] gave last is durable on a medium.
    ///
    /// # Errors
    /// As there.
    pub async fn note_export(&self, to: &str, written: Written) -> Result<(), ParcelRefused> {
        let at = self.shared.clock.now();
        self.parcels.written(to, written, at).await
    }

    /// The export ends; when the medium is `full`, the next one goes on from here.
    ///
    /// # Errors
    /// As there.
    pub async fn end_export(&self, to: &str, full: bool) -> Result<(), ParcelRefused> {
        self.parcels.end(to, full).await
    }

    /// Datagrams that emission control has held back since the start.
    pub fn suppressed(&self) -> u64 {
        self.shared.plug.governor().suppressed()
    }

    /// Where the socket is bound.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.shared.local_addr()
    }
}

const _: () = assert!(Precedence::ALL.len() == 5, "Accounting::by_class has one place per class");
