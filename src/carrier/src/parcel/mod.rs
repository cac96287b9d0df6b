//! Parcels to and from peers that are not at the other end of a connection: made, carried by others, taken in.
//!
//! ```text
//!  courier, one-way lane --Ask--> inbox of the peer's conversation --> Planner --> Parcel::seal --> answer
//!  bytes of a parcel --> ParcelDesk::take (verify, open) --Ask--> conversation --> Session::parcel --> journal --> answer
//! ```
//!
//! Every peer's conversation owns what is known of its parcels, as it owns the session: both ways of filling a gap are
//! decided in one place. It answers after the disk has.

mod state;
mod talk;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use keys::{NodeKey, PeerRegistry, SealError, SealingKey};
use model::{NodeId, Precedence, RangeSet, UnixMillis};
use telemetry::{Metrics, ParcelRefusal};
use tokio::sync::{mpsc, oneshot};
use wire::WireError;
use wire::frame::Frame;
use wire::parcel::{Parcel, ParcelError};

pub(crate) use state::{PeerParcels, ROUNDS_MAX, create_durably};
pub(crate) use talk::{Parcels, receipts_every};

/// Asks that wait for one peer's conversation. The askers wait for their answers one by one, so few are ever here.
const INBOX: usize = 4;

/// A parcel was not taken, or none could be made. What is stored stays as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParcelRefused {
    /// Damaged, or no parcel.
    #[error("this is no whole parcel: {0}; nothing of it was kept")]
    Damaged(WireError),
    /// For another node.
    #[error("the parcel is for the node {0}, not for this one; nothing of it was kept")]
    OtherNode(NodeId),
    /// From a node that is not enrolled here.
    #[error("the parcel is from the node {0}, which is not enrolled here; nothing of it was kept")]
    UnknownOrigin(NodeId),
    /// Altered under way, forged, or sealed for a key that is gone.
    #[error("the parcel is not genuine: {0}; nothing of it was kept")]
    NotGenuine(SealError),
    /// Its origin broke a rule of the protocol.
    #[error("the parcel holds what makes no sense: {0}; what stood before that was kept")]
    Protocol(String),
    /// The journal or the disk did not take it.
    #[error("the parcel could not be stored: {0}; it can be taken again")]
    Store(String),
    /// No such peer.
    #[error("no node `{0}` is enrolled here")]
    UnknownPeer(String),
    /// An export was continued that was not begun.
    #[error("no export to this node was begun")]
    NotBegun,
    /// The node stops, or its links do not run yet.
    #[error("the node is starting or stopping")]
    NotServed,
}

impl ParcelRefused {
    /// What the operator should do.
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::Damaged(_) => {
                "write the medium again at the other side; what was lost comes with the next export or over the link"
            }
            Self::OtherNode(_) => "take the medium to the node that it is for",
            Self::UnknownOrigin(_) => "enroll the two nodes with each other first: `holdfast enroll`",
            Self::NotGenuine(_) => {
                "do not trust this medium. If this node or the other was enrolled anew since the export, export again; otherwise tell your security officer"
            }
            Self::Protocol(_) => "bring both nodes to the same release, then export again",
            Self::Store(_) => "check the disk and its free space, then import the same medium again",
            Self::UnknownPeer(_) => "see the enrolled nodes with `holdfast enroll list`",
            Self::NotBegun => "run the export again",
            Self::NotServed => "try again in a moment; see `holdfast status`",
        }
    }

    fn reason(&self) -> ParcelRefusal {
        match self {
            Self::Damaged(_) => ParcelRefusal::Damaged,
            Self::OtherNode(_) => ParcelRefusal::OtherNode,
            Self::UnknownOrigin(_) | Self::UnknownPeer(_) => ParcelRefusal::UnknownOrigin,
            Self::NotGenuine(_) => ParcelRefusal::NotGenuine,
            Self::Protocol(_) => ParcelRefusal::Protocol,
            Self::Store(_) | Self::NotBegun | Self::NotServed => ParcelRefusal::Store,
        }
    }
}

impl From<ParcelError> for ParcelRefused {
    fn from(e: ParcelError) -> Self {
        match e {
            ParcelError::Form(e) => Self::Damaged(e),
            ParcelError::Seal(e) => Self::NotGenuine(e),
            ParcelError::OtherNode(node) => Self::OtherNode(node),
            other => Self::Protocol(other.to_string()),
        }
    }
}

/// What a parcel brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Taken {
    /// Entries that were new and are durable.
    pub entries: u64,
    /// Entries that were here already.
    pub duplicates: u64,
    /// Chunks of files that were new and are durable.
    pub chunks: u64,
    /// This very parcel was taken before.
    pub already: bool,
}

/// What a plan is for: each goes on by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Lane {
    Courier,
    /// What was not yet sent over the one-way lane.
    OneWay,
    /// What was, and has no receipt.
    OneWayAgain,
}

/// What a new export leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Since {
    /// Goes on where the last medium was full; otherwise everything that the peer has not receipted.
    Continue,
    /// Everything that the peer has not receipted, whatever is on other media.
    Start,
    /// What was never on any medium.
    LastExport,
}

/// An export was begun.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Begun {
    /// The destination.
    pub to: NodeId,
    /// This node.
    pub from: NodeId,
    /// It goes on where an earlier medium was full.
    pub continues: bool,
    /// Entries without a final receipt, an upper bound of what will be written.
    pub held_entries: u64,
    /// Their bytes, the content of their files included, before compression.
    pub held_bytes: u64,
}

/// Parcels, made and sealed.
#[derive(Clone, Debug, Default)]
pub struct Made {
    /// Their bytes, one behind the other.
    pub bytes: Vec<u8>,
    /// Their numbers.
    pub numbers: RangeSet,
    /// Entries in them.
    pub entries: u64,
    /// Chunks of files in them.
    pub chunks: u64,
    /// Everything is planned.
    pub done: bool,
}

/// Written on a medium and durable there.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Written {
    /// Name of the medium.
    pub stick: String,
    /// Bytes.
    pub bytes: u64,
}

/// What is asked of a peer's conversation.
pub(crate) enum Ask {
    Take {
        boot: u64,
        number: u64,
        frames: Vec<Frame>,
        answer: oneshot::Sender<Result<Taken, ParcelRefused>>,
    },
    Begin {
        lane: Lane,
        since: Since,
        answer: oneshot::Sender<Result<Begun, ParcelRefused>>,
    },
    /// The next parcels of a lane, about so many bytes in all; what they hold counts as written only when it is said.
    Next {
        lane: Lane,
        bytes: usize,
        least: Precedence,
        answer: oneshot::Sender<Result<Made, ParcelRefused>>,
    },
    /// The one-way lane begins with what it never sent, or with what has been sent fewer than `rounds` times (always, for 0).
    BeginOneWay {
        lane: Lane,
        rounds: u32,
        answer: oneshot::Sender<Result<(), ParcelRefused>>,
    },
    /// The oldest parcels that [`Ask::Next`] gave for this lane, and that this was not said of, have left.
    Sent {
        lane: Lane,
        rounds: u32,
        answer: oneshot::Sender<Result<(), ParcelRefused>>,
    },
    /// Has so much time passed since what was handed to a relay was last written again? If so, it counts as done now.
    RepeatIsDue {
        every: Duration,
        answer: oneshot::Sender<Result<bool, ParcelRefused>>,
    },
    /// How many entries without a receipt have been sent over the one-way lane as often as `rounds` says, or once.
    Unconfirmed {
        rounds: u32,
        answer: oneshot::Sender<Result<u64, ParcelRefused>>,
    },
    /// What [`Ask::Next`] gave is durable on a medium.
    Written {
        lane: Lane,
        written: Written,
        at: UnixMillis,
        answer: oneshot::Sender<Result<(), ParcelRefused>>,
    },
    /// The export ends; `full` when there was more.
    End {
        lane: Lane,
        full: bool,
        answer: oneshot::Sender<Result<(), ParcelRefused>>,
    },
}

/// Where parcels go in and out of a node.
pub(crate) struct ParcelDesk {
    pub(crate) key: NodeKey,
    pub(crate) sealing: SealingKey,
    pub(crate) registry: Arc<PeerRegistry>,
    pub(crate) metrics: Arc<Metrics>,
    inboxes: Mutex<BTreeMap<NodeId, mpsc::Sender<Ask>>>,
}

impl ParcelDesk {
    pub(crate) fn new(key: NodeKey, sealing: SealingKey, registry: Arc<PeerRegistry>, metrics: Arc<Metrics>) -> Self {
        Self { key, sealing, registry, metrics, inboxes: Mutex::default() }
    }

    fn inboxes(&self) -> MutexGuard<'_, BTreeMap<NodeId, mpsc::Sender<Ask>>> {
        self.inboxes.lock().expect("nothing panics while holding the inboxes")
    }

    /// The inbox of a conversation that begins; an earlier one of the same peer gets no more.
    pub(crate) fn seat(&self, peer: NodeId) -> mpsc::Receiver<Ask> {
        let (asks, inbox) = mpsc::channel(INBOX);
        self.inboxes().insert(peer, asks);
        inbox
    }

    async fn ask<T>(
        &self,
        peer: NodeId,
        ask: impl FnOnce(oneshot::Sender<Result<T, ParcelRefused>>) -> Ask,
    ) -> Result<T, ParcelRefused> {
        let inbox = self.inboxes().get(&peer).cloned().ok_or(ParcelRefused::NotServed)?;
        let (answer, answered) = oneshot::channel();
        inbox.send(ask(answer)).await.map_err(|_| ParcelRefused::NotServed)?;
        answered.await.map_err(|_| ParcelRefused::NotServed)?
    }

    fn peer(&self, name: &str) -> Result<NodeId, ParcelRefused> {
        Ok(self.registry.by_name(name).ok_or_else(|| ParcelRefused::UnknownPeer(name.to_owned()))?.node)
    }

    /// Opens the parcel that `bytes` begin with and takes in what it holds. Returns from whom it is, what it brought, and
    /// how many bytes it has. What is returned as new is durable.
    ///
    /// Dropping the future leaves the parcel taken or not; taking it again is harmless.
    pub(crate) async fn take(&self, bytes: &[u8]) -> (usize, Result<(NodeId, Taken), ParcelRefused>) {
        let parcel = match Parcel::read(bytes) {
            Ok(parcel) => parcel,
            Err(e) => return (bytes.len(), Err(self.refused(ParcelRefused::Damaged(e)))),
        };
        let taken = self.take_parcel(&parcel).await.map_err(|e| self.refused(e));
        (parcel.as_bytes().len(), taken.map(|taken| (parcel.header.from, taken)))
    }

    async fn take_parcel(&self, parcel: &Parcel) -> Result<Taken, ParcelRefused> {
        let header = &parcel.header;
        let me = self.key.node_id();
        if header.to != me {
            return Err(ParcelRefused::OtherNode(header.to));
        }
        let origin = self.registry.get(header.from).ok_or(ParcelRefused::UnknownOrigin(header.from))?;
        let frames = parcel.open(me, &self.sealing, &origin.spki)?;
        let (boot, number) = (header.boot, header.number);
        self.ask(header.from, |answer| Ask::Take { boot, number, frames, answer }).await
    }

    fn refused(&self, e: ParcelRefused) -> ParcelRefused {
        self.metrics.parcels_refused_total.inc((e.reason(),));
        e
    }

    pub(crate) async fn begin(&self, to: &str, since: Since) -> Result<Begun, ParcelRefused> {
        self.ask(self.peer(to)?, |answer| Ask::Begin { lane: Lane::Courier, since, answer }).await
    }

    pub(crate) async fn next(
        &self,
        to: &str,
        lane: Lane,
        bytes: usize,
        least: Precedence,
    ) -> Result<Made, ParcelRefused> {
        self.ask(self.peer(to)?, |answer| Ask::Next { lane, bytes, least, answer }).await
    }

    pub(crate) async fn begin_oneway(&self, to: &str, lane: Lane, rounds: u32) -> Result<(), ParcelRefused> {
        self.ask(self.peer(to)?, |answer| Ask::BeginOneWay { lane, rounds, answer }).await
    }

    pub(crate) async fn sent(&self, to: &str, lane: Lane, rounds: u32) -> Result<(), ParcelRefused> {
        self.ask(self.peer(to)?, |answer| Ask::Sent { lane, rounds, answer }).await
    }

    pub(crate) async fn repeat_is_due(&self, to: &str, every: Duration) -> Result<bool, ParcelRefused> {
        self.ask(self.peer(to)?, |answer| Ask::RepeatIsDue { every, answer }).await
    }

    pub(crate) async fn unconfirmed(&self, to: &str, rounds: u32) -> Result<u64, ParcelRefused> {
        self.ask(self.peer(to)?, |answer| Ask::Unconfirmed { rounds, answer }).await
    }

    pub(crate) async fn written(&self, to: &str, written: Written, at: UnixMillis) -> Result<(), ParcelRefused> {
        self.ask(self.peer(to)?, |answer| Ask::Written { lane: Lane::Courier, written, at, answer }).await
    }

    pub(crate) async fn end(&self, to: &str, full: bool) -> Result<(), ParcelRefused> {
        self.ask(self.peer(to)?, |answer| Ask::End { lane: Lane::Courier, full, answer }).await
    }
}
