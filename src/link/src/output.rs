//! What a session wants done.

use std::sync::Arc;
use std::time::Duration;

use model::{
    ChunkName, Entry, EntryHash, EntryId, Epoch, Hlc, NodeId, OutboundError, Outcome, Precedence, RangeSet, Seq,
};
use wire::WireError;
use wire::frame::{ByeCode, Custody};

/// Something for the shell to do. Outputs are to be carried out in order.
#[derive(Clone, Debug)]
pub enum Output {
    /// Make the entry durable, then call [`crate::Session::entries_stored`]; or, when another content is held under
    /// its number, [`crate::Session::entry_conflicts`].
    Store(Incoming),
    /// Make the chunk durable, then call [`crate::Session::chunks_stored`].
    StoreChunk {
        /// Its name, verified.
        name: ChunkName,
        /// Its plain bytes.
        bytes: Vec<u8>,
        /// A held chunk of the same label that it differs little from.
        base: Option<ChunkName>,
        /// The file that it is for: when that was purged, the chunk must not be stored.
        file: EntryId,
    },
    /// The chunk is needed by a file of the peer and held already: keep it as if it had been stored for this file.
    RetainChunk(ChunkName),
    /// The peer holds these own entries durably: record it for the peer's consumer.
    RecordStored {
        /// Own epoch.
        epoch: Epoch,
        /// Own numbers, new ones only.
        ranges: RangeSet,
    },
    /// These own entries ended so at the peer: record it for the peer's consumer.
    RecordOutcome {
        /// Own epoch.
        epoch: Epoch,
        /// How they ended.
        outcome: Outcome,
        /// Own numbers, new ones only.
        ranges: RangeSet,
    },
    /// Own numbers are in doubt: unless the open epoch is at or above `at_least` already, close it and open such a
    /// one; append `reissue` again under new numbers; then call [`crate::Session::own_epoch`] and
    /// [`crate::Session::appended`]. Nothing is sent until then.
    StartEpoch {
        /// What was found.
        reason: StartEpochReason,
        /// The new epoch's number must not be lower.
        at_least: Epoch,
        /// Own entries whose numbers mean something else at the peer.
        reissue: Vec<EntryId>,
    },
    /// The peer will never send these: enter them into the ledger of received numbers, then report them through
    /// [`crate::Session::finals`].
    AccountSkipped {
        /// The peer's epoch.
        epoch: Epoch,
        /// Why.
        outcome: Outcome,
        /// The peer's numbers.
        ranges: RangeSet,
    },
    /// The peer greeted: facts for the registry and the clone detector.
    PeerGreeted {
        /// The peer's configured name.
        name: String,
        /// Random per start of the peer's process.
        boot: u64,
        /// Its open epoch.
        epoch: Epoch,
        /// The number after its last.
        next_seq: Seq,
    },
    /// Every chunk of this file of the peer is held.
    FileComplete(EntryId),
    /// The peer does not hold all chunks of this file any more; it stays incomplete.
    FileUnavailable(EntryId),
    /// There is room for files that were turned away: call [`crate::Session::want_file`] for every incomplete one.
    OfferFiles,
    /// End the connection, after a [`wire::frame::Bye`] with this code and text where the link still takes one.
    Close {
        /// Why, for the peer.
        code: ByeCode,
        /// Why, for people on both sides.
        text: String,
    },
    /// An own entry that was lost came back: make it readable again ([`Session::recall`](crate::Session::recall)).
    Restore(Incoming),
    /// The peer does not hold these lost own entries either.
    NotReturned {
        /// Own epoch.
        epoch: Epoch,
        /// Own numbers.
        ranges: RangeSet,
    },
    /// The peer has handed over a parcel: make durable what it is or holds, then call
    /// [`crate::Session::parcel_answered`]; or refuse it there.
    TakeParcel {
        /// [`wire::parcel::name_of`] its bytes, checked.
        name: u64,
        /// The parcel; whether it is one, and genuine, is for the shell to see.
        bytes: Vec<u8>,
    },
    /// What has become of a parcel of [`crate::Session::hand_over`].
    ParcelKept {
        /// Its name.
        name: u64,
        /// Taken or refused.
        custody: Custody,
    },
    /// For metrics and logs.
    Event(LinkEvent),
}

/// A received entry that is new here.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// The entry.
    pub entry: Arc<Entry>,
    /// Its canonical bytes.
    pub bytes: Arc<[u8]>,
    /// Its hash.
    pub hash: EntryHash,
}

/// Why own numbers are in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartEpochReason {
    /// The peer holds numbers that this node never gave out.
    PeerIsAhead,
    /// The peer holds another content under numbers of this node.
    Conflict,
}

/// Something worth counting or logging.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// Both sides have greeted; sending begins.
    Resumed {
        /// Entries that were under way when the last connection ended and are sent again.
        again: usize,
    },
    /// A flash or immediate entry is durable at the peer.
    UrgentStored {
        /// Which.
        id: EntryId,
        /// Its class.
        class: Precedence,
        /// Since its frame was made.
        after: Duration,
        /// When it was captured.
        captured: Hlc,
    },
    /// Entries arrived that were here already.
    Duplicates(usize),
    /// Own entries were put into frames.
    Sent {
        /// Class whose grant was used.
        class: Precedence,
        /// Entries, those pulled ahead included.
        entries: usize,
        /// Bytes of the frame.
        bytes: usize,
        /// Bytes of the entries in it as the journal has them; 0 for a part of one.
        plain: usize,
    },
    /// The peer could not read batches that referred to a history: they are sent again without.
    HistoryLost {
        /// Entries that are sent again.
        again: usize,
    },
    /// The peer no longer claims numbers that it had receipted: it lost data, and they are sent again where still held.
    PeerForgot {
        /// Own epoch.
        epoch: Epoch,
        /// Own numbers.
        ranges: RangeSet,
    },
    /// The peer lost entries that it had stored, before it could use them, and gets them again.
    AskedAgain {
        /// Own epoch.
        epoch: Epoch,
        /// Own numbers.
        ranges: RangeSet,
    },
    /// The peer said goodbye.
    PeerLeft {
        /// Why.
        code: ByeCode,
        /// Why, in its words.
        text: String,
    },
}

/// A frame cannot be taken or made. The connection should end; the session, and everything durable, stays as it was.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The peer's bytes make no sense.
    #[error("the peer sent something unreadable: {0}; nothing of it was kept")]
    Wire(#[from] WireError),
    /// The peer broke a rule.
    #[error("the peer broke the protocol: {0}; nothing of that frame was kept")]
    Protocol(&'static str),
    /// The peer is not who it should be.
    #[error("the peer is {found}, not {expected}; nothing was exchanged")]
    WrongPeer {
        /// Who greeted.
        found: NodeId,
        /// Who was expected.
        expected: NodeId,
    },
    /// The peer speaks another version.
    #[error("the peer speaks version {found} of the protocol, this node version {known}; nothing was exchanged")]
    Version {
        /// The peer's version.
        found: u16,
        /// This node's version.
        known: u16,
    },
    /// The own journal could not be read.
    #[error(transparent)]
    Journal(#[from] OutboundError),
}

impl LinkError {
    /// The code for the farewell.
    pub fn code(&self) -> ByeCode {
        match self {
            Self::Wire(_) | Self::Protocol(_) => ByeCode::Protocol,
            Self::WrongPeer { .. } => ByeCode::OtherNode,
            Self::Version { .. } => ByeCode::Version,
            Self::Journal(_) => ByeCode::Journal,
        }
    }

    /// What the operator should do.
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::Wire(e) => e.next_step(),
            Self::Protocol(_) => "bring both nodes to the same release; if they are, report it with both logs",
            Self::Version { .. } => "bring both nodes to the same release",
            Self::WrongPeer { .. } => "check the peer's address and enrolment with `holdfast status`",
            Self::Journal(_) => "check the disk, then run `holdfast journal verify`",
        }
    }
}
