//! What goes in and comes out of the journal.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{
    Cause, Entry, EntryHash, EntryId, Epoch, Hlc, Kind, Label, LocalPos, ObjectKey, Precedence, RangeSet, Seq,
    SourcePosition, StreamId, SupersessionKey, UnixMillis,
};

/// An own entry before it has a number: [`model::Header`] without `id`, and what the index needs.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "fields as in model::Header unless said")]
pub struct Draft {
    pub source: SourcePosition,
    /// The source position that must be the journal's highest when this entry is numbered, else the append is refused
    /// as [`crate::AppendError::OutOfOrder`]: with it a refused entry takes everything queued behind it along, so that
    /// the source's durable entries are always a prefix. `None` sets no condition.
    pub follows: Option<SourcePosition>,
    pub stream: StreamId,
    /// Causes that are known by id. Those found through `needs` are added.
    pub causes: Vec<Cause>,
    /// Objects whose creating entries become causes. Looked up when the number is given, so an object created
    /// by an append that is still on its way is found too. What the journal does not hold (any more) is left out.
    pub needs: Vec<ObjectKey>,
    pub precedence: Precedence,
    pub captured: Hlc,
    pub origin_time: UnixMillis,
    pub expiry: Option<UnixMillis>,
    pub supersedes: Option<SupersessionKey>,
    pub label: Label,
    pub kind: Kind,
    pub mint_salt: u64,
    /// The encoded event.
    pub body: Vec<u8>,
    /// The object whose state the body holds; the first entry of an object counts as its creator.
    pub object: Option<ObjectKey>,
    /// For an entry with chunks: [`crate::FileInProgress::chunks`].
    pub chunks: Option<Chunks>,
}

/// The chunks of an own entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunks {
    /// Chunks from here on are kept as long as the entry.
    pub since: LocalPos,
    /// Size of the content that they make up; counts as held for as long as the entry is.
    pub content_bytes: u64,
}

/// Where an own entry went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its identity everywhere.
    pub id: EntryId,
    /// Its place in this journal.
    pub pos: LocalPos,
    /// Its hash.
    pub hash: EntryHash,
}

/// An entry that a peer sent.
#[derive(Clone, Debug)]
pub struct Foreign {
    /// Canonical bytes (`wire::encode_entry`).
    pub bytes: Arc<[u8]>,
    /// The object whose state it holds, where the caller knows: later own entries can then name it as a cause.
    pub object: Option<ObjectKey>,
}

/// What became of an entry that a peer sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignOutcome {
    /// It is durable here. A `stored` receipt may go out.
    Stored(LocalPos),
    /// It was here already, with the same hash (or so long ago that the content is trimmed). Receipt as for `Stored`.
    AlreadyHeld,
    /// Another content is held under this number; nothing was stored. The origin has diverged.
    Conflict {
        /// Hash of what is held here.
        ours: EntryHash,
        /// Hash of what was sent.
        theirs: EntryHash,
    },
}

/// A received entry, as the local apply reads it.
#[derive(Clone, Debug)]
pub struct Received {
    /// Its place in this journal.
    pub pos: LocalPos,
    /// The entry.
    pub entry: Entry,
    /// Its hash.
    pub hash: EntryHash,
}

/// The answer of [`crate::Journal::read_foreign`].
#[derive(Clone, Debug)]
pub struct ForeignBatch {
    /// In local order.
    pub entries: Vec<Received>,
    /// Where to continue; equal to [`crate::Journal::head`] when there is no more for now.
    pub next: LocalPos,
}

/// Was a chunk written?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkPut {
    /// It is durable.
    Stored,
    /// It was held already; what is held was marked as needed from here on.
    AlreadyHeld,
    /// Not stored: the file that it is for was purged.
    Purged,
}

/// Why an epoch began. The numbers are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum EpochReason {
    /// A new journal.
    First = 1,
    /// Bytes at the end of the log were discarded at open.
    TornTail = 2,
    /// The disk refused to sync, so that what the tail holds is in doubt.
    SyncFailed = 3,
    /// A peer holds numbers of this node that this node does not know.
    PeerIsAhead = 4,
    /// A peer holds another content under a number of this node.
    Conflict = 5,
    /// The operator asked for it, e.g. after restoring a snapshot.
    Operator = 6,
    /// A damaged segment hides which numbers were given out.
    Damage = 7,
}

impl EpochReason {
    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::First,
        Self::TornTail,
        Self::SyncFailed,
        Self::PeerIsAhead,
        Self::Conflict,
        Self::Operator,
        Self::Damage,
    ];

    /// Such an epoch begins when the journal is opened, with the first write.
    pub(crate) fn is_of_open(self) -> bool {
        match self {
            Self::First | Self::TornTail | Self::SyncFailed | Self::Damage => true,
            Self::PeerIsAhead | Self::Conflict | Self::Operator => false,
        }
    }
}

/// One of this node's epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct OwnEpoch {
    /// Its number.
    pub epoch: Epoch,
    /// Why it began.
    pub reason: EpochReason,
    /// The last number given out; `None` while there is none.
    pub last: Option<Seq>,
}

/// What open found and did.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct OpenReport {
    /// The journal did not exist before.
    pub created: bool,
    /// Segment files.
    pub segments: u32,
    /// Bytes in segment files.
    pub bytes: u64,
    /// Bytes at the end of the log that never were acknowledged and were cut off.
    pub discarded_bytes: u64,
    /// Begun at this open.
    pub new_epoch: Option<OwnEpoch>,
    /// Damaged places that were skipped. Their files are kept.
    pub damage: Vec<Damage>,
    /// Segments whose footer was missing or damaged, with every entry there, and was written anew: a power cut came while
    /// it was being written, or a bit of it is bad.
    pub footers_written: u32,
    /// Why the index was rebuilt, if it was.
    pub index_rebuilt: Option<String>,
}

/// A damaged place in a segment.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Damage {
    /// Number of the segment.
    pub segment: u32,
    /// First damaged byte.
    pub offset: u64,
    /// How many bytes until the next whole frame.
    pub bytes: u64,
    /// What was found.
    pub what: String,
}

/// How far a long operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes done.
    pub done_bytes: u64,
    /// Bytes to do.
    pub total_bytes: u64,
}

/// What a consumer has made of this node's entries, and how far it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsumerState {
    /// Nothing is trimmed before this consumer is done with it.
    pub required: bool,
    /// Own numbers that the peer holds durably.
    pub stored: BTreeMap<Epoch, RangeSet>,
    /// Own numbers by how they ended there, indexed like [`model::Outcome::ALL`].
    pub outcomes: BTreeMap<Epoch, [RangeSet; 6]>,
    /// The local apply's place in the journal, for consumers of received entries.
    pub cursor: Option<LocalPos>,
    /// The cursor is over own entries too.
    pub reads_all: bool,
}

/// Figures of one class, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[allow(missing_docs, reason = "the terms of the equation")]
pub struct Sums {
    pub accepted: u64,
    pub held: u64,
    pub applied: u64,
    pub quarantined: u64,
    pub expired: u64,
    pub superseded: u64,
    pub withheld: u64,
    pub purged: u64,
    /// Of the held ones: durable at the peer, final receipt still missing.
    pub stored: u64,
    /// Encoded size of the held entries, with the whole content of held files. At most so much must still cross: the
    /// peer may have part of the content already, and chunks are compressed.
    pub held_bytes: u64,
    /// When the oldest held entry was captured.
    pub oldest_held: Option<UnixMillis>,
}

/// What became of everything that was accepted, as one consumer has it.
///
/// `accepted = applied + held + quarantined + expired + superseded + withheld + purged`, in each class and in total.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Accounting {
    /// By [`Precedence::index`].
    pub by_class: [Sums; 5],
    /// All classes.
    pub total: Sums,
}

/// What trimming did.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TrimReport {
    /// Segment files removed.
    pub segments: u32,
    /// Bytes freed.
    pub bytes: u64,
    /// Chunks written again because a later file needs them.
    pub chunks_kept: u64,
    /// What the next segment waits for, if there is one: the consumers that are not done with it.
    pub waiting_for: Vec<String>,
}

/// Size of the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Stats {
    /// Segment files.
    pub segments: u32,
    /// Bytes in segment files, without `ahead_bytes`.
    pub bytes: u64,
    /// Zeros behind the last frame, on which the next ones are written.
    pub ahead_bytes: u64,
    /// `journal.limit_bytes`.
    pub limit_bytes: u64,
    /// Entries that are held, own and received.
    pub entries: u64,
    /// Chunks that are held.
    pub chunks: u64,
    /// The position after the last entry.
    pub head: u64,
    /// The first position that is still held.
    pub first: u64,
    /// This node's epochs.
    pub epochs: Vec<OwnEpoch>,
    /// Why the journal takes nothing, if it stopped.
    pub stopped: Option<String>,
    /// Damaged places met since open.
    pub damaged: u64,
}

/// One line of `holdfast journal list`.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its place.
    pub pos: LocalPos,
    /// The entry.
    pub entry: Arc<Entry>,
    /// Its hash.
    pub hash: EntryHash,
    /// Encoded size.
    pub bytes: u64,
    /// Segment in which it stands.
    pub segment: u32,
    /// Offset of its frame there.
    pub offset: u64,
}

/// Names one entry for `holdfast journal show`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// By identity.
    Id(EntryId),
    /// By place.
    Pos(LocalPos),
}

/// What `verify` found.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct VerifyReport {
    /// Segments read.
    pub segments: u32,
    /// Bytes read.
    pub bytes: u64,
    /// Frames with a good checksum.
    pub frames: u64,
    /// Entries whose hash is right.
    pub entries: u64,
    /// Chunks that unpack.
    pub chunks: u64,
    /// Entries whose content was purged; what is left of them fits their hash where it still says so.
    pub purged_entries: u64,
    /// Chunks that were purged.
    pub purged_chunks: u64,
    /// What is wrong, capped at [`VerifyReport::FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    /// All findings, those beyond the cap too.
    pub findings_total: u64,
}

impl VerifyReport {
    /// More findings than this are only counted: the disk is then to be replaced, not studied.
    pub const FINDINGS_MAX: usize = 1_000;

    /// Nothing was found.
    pub fn is_clean(&self) -> bool {
        self.findings_total == 0
    }
}

/// Something that `verify` found.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// Number of the segment.
    pub segment: u32,
    /// Where in it.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
}
