//! What two nodes say to each other, as bytes.
//!
//! ```text
//! stream   = { varint length | frame }
//! frame    = type byte | fields, numbers as varints, range sets as CBOR
//!
//!  1 Greet        protocol, node (16), boot (8 LE), epoch, next number, name
//!  2 Receipt      part, epoch, stored set, count, { outcome byte, set }
//!  3 Ready        parts
//!  4 Resume       epoch, seq, crc32c (4 LE), offset
//!  5 Batch        entries: see `batch`
//!  6 Fragment     epoch, seq, part
//!  7 Skip         epoch, outcome byte, set, count, { number, epoch and number before it }
//!  8 Verify       epoch, count, { seq, first 8 bytes of the hash }
//!  9 Verdict      epoch, set of the same, set of the different
//! 10 Want         number, epoch, seq, level, flag whole, set of indexes, flag, [ index, crc32c (4 LE), offset ]
//! 11 Unavailable  epoch, seq, level, set of indexes
//! 12 Slice        epoch, seq, level, index, part
//! 13 KeepAlive
//! 14 Bye          code byte, text (the rest)
//! 15 Again        epoch, set
//! 16 Recall       epoch, set
//! 17 Returned     epoch, seq, part
//! 18 Gone         epoch, set
//! 19 History      name, hash (8 LE), count, { epoch, set }
//! 20 HistoryHeld  name, count, { epoch, set }
//! 21 HistoryGone  name
//! 23 Join         session (8 LE), seconds between signs of life, link's name
//! 24 Got          count
//! 25 Shut         code byte, text (the rest)
//! 26 OnRequest    epoch, set
//! 27 Urge         epoch, seq, class byte
//! 28 Carried      parcel (8 LE), part
//! 29 Kept         parcel (8 LE), answer byte, offset
//! 30 Claim        part, boot (8 LE), epoch, stored set, count, { outcome byte, set }, refused set
//! 31 Whole        epoch, seq, varint length, label, flag zstd, bytes (the rest)
//! part     = packing (0 as it is, 1 zstd, 2 zstd from a base: its name follows), crc32c of the whole packed bytes (4 LE),
//!            their length, offset, bytes (the rest)
//! ```
//!
//! Every frame is idempotent and frames may overtake each other. Epochs and numbers are those of the sender's own
//! entries in Batch, Fragment, Skip, Verify, Unavailable, Slice, Recall and History, and those of the peer's in the others.

use model::{ChunkName, Epoch, Label, NodeId, Outcome, Precedence, RangeSet, Seq};

use crate::batch::Batch;
use crate::compress::{compress_from, decompress_from_capped, may_shrink};
use crate::entry::{self, ENTRY_BYTES_MAX};
use crate::parcel::PARCEL_BYTES_MAX;
use crate::reader::{Reader, put_cbor, put_varint};
use crate::{History, WireError, chunk, compress, decompress_capped};

/// Largest frame. At 2 Mbit/s it occupies the link for a quarter of a second; the shaper asks for smaller ones below.
pub const FRAME_BYTES_MAX: usize = 64 << 10;

/// Most plain bytes of entries in one batch: a frame's worth at four to one.
pub const BATCH_BYTES_MAX: usize = 4 * FRAME_BYTES_MAX;

/// Most entries in one batch, so that one frame cannot ask for unbounded small allocations.
pub const BATCH_ENTRIES_MAX: usize = 4_096;

/// Longest node name in a greeting.
pub const NAME_BYTES_MAX: usize = 64;

/// Longest explanation in a farewell.
pub const TEXT_BYTES_MAX: usize = 512;

/// Most numbers in one Verify frame.
pub const VERIFY_MAX: usize = 2_048;

/// Most places in one Skip frame.
pub const SKIP_LINKS_MAX: usize = 2_048;

/// Bytes that a part frame's own fields take at most: type, epoch, seq, level, index, packing with its base,
/// checksum, length, offset.
pub const PART_OVERHEAD: usize = 1 + 5 + 10 + 1 + 5 + 1 + ChunkName::LEN + 4 + 4 + 4;

/// Most epochs that the entries of one history are of: the open one and those before it that a few starts can bring.
pub const HISTORY_EPOCHS_MAX: usize = 8;

/// Version of the protocol between nodes.
pub const PROTOCOL: u16 = 1;

/// One message between two nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Who I am. The first frame in each direction of a connection.
    Greet(Greet),
    /// What I hold of your entries, added to what I said before; after a greeting everything that I hold.
    Receipt(Receipt),
    /// My greeting had this many receipts: once you have them all you may resume.
    Ready(u32),
    /// I hold the first bytes of one of your large entries.
    Resume(Resume),
    /// Entries of mine.
    Batch(Batch),
    /// A part of a large entry of mine.
    Fragment(Fragment),
    /// Entries of mine that you will never get, and why.
    Skip(Skip),
    /// You say that you hold these of mine, but I do not remember sending them: are they the same?
    Verify(Verify),
    /// The answer to Verify, and what to say when a number comes with another content than before.
    Verdict(Verdict),
    /// Chunks of a file of yours that I miss.
    Want(Want),
    /// Chunks that you want and I do not hold any more.
    Unavailable(Unavailable),
    /// A part of a chunk of mine.
    Slice(Slice),
    /// Nothing to say.
    KeepAlive,
    /// I close the connection.
    Bye(Bye),
    /// Entries of yours that I held and lost before I could use them: send them again.
    Again(Numbers),
    /// Entries of mine that I lost: give back those that you hold.
    Recall(Numbers),
    /// A part of an entry of yours that you recalled.
    Returned(Fragment),
    /// Entries of yours that you recalled and I do not hold (any more).
    Gone(Numbers),
    /// Make a history of these entries of mine, which you hold: batches are going to name it.
    History(HistoryOf),
    /// I have made it, or I miss these entries for it.
    HistoryHeld(HistoryHeld),
    /// I have no history of this name (any more): what named it was not read.
    HistoryGone(u8),
    /// This connection is one of the links between us. The first frame of each; it is the carrier's, not the session's.
    Join(Join),
    /// So many of your frames have arrived on this connection: only where the transport does not say so itself.
    Got(u64),
    /// I close this connection: only where the transport cannot say so itself.
    Shut(Shut),
    /// As Receipt, for entries of yours that came in parcels. Which of your processes wrote those parcels decides whether
    /// the numbers mean what they mean to you: one that ran on another copy of your disk may have used them otherwise.
    Claim(Claim),
    /// A chunk of a file of mine, unasked: only in parcels.
    Whole(Whole),
    /// Files of yours of which I ask for the content only when somebody wants it.
    OnRequest(Numbers),
    /// Somebody wants this file of yours: send what I ask for of it in this class.
    Urge(Urge),
    /// A part of a parcel that you are to take: it is for you, or for a node that you reach.
    Carried(Carried),
    /// What has become of a parcel that you handed to me.
    Kept(Kept),
}

/// See [`Frame::Carried`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    /// [`crate::parcel::name_of`] its bytes.
    pub parcel: u64,
    /// Some of them, never packed: what is sealed does not shrink.
    pub part: Part,
}

/// See [`Frame::Kept`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// As in [`Carried`].
    pub parcel: u64,
    /// What became of it.
    pub custody: Custody,
}

/// What has become of a parcel at the node that it was handed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Custody {
    /// It is durable there, or what it holds is: whoever handed it over need not keep it.
    Taken,
    /// So many bytes from its start on are there.
    Partly(u32),
    /// It was not taken, and nothing of it was kept.
    Refused(CustodyRefusal),
}

/// Why a parcel was not taken. The numbers are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum CustodyRefusal {
    /// It is damaged, or no parcel.
    Damaged = 2,
    /// It was altered or forged, or sealed for a key that is gone.
    NotGenuine = 3,
    /// The node that wrote it is not enrolled there.
    UnknownOrigin = 4,
    /// The node that it is for cannot be reached from there.
    NoWay = 5,
    /// Its labels are not released to the node that it is for.
    NotReleased = 6,
    /// There is no room for it now.
    Full = 7,
    /// It cannot be stored now: the node is starting or stopping, or its disk fails.
    Busy = 8,
}

impl CustodyRefusal {
    /// Every reason.
    pub const ALL: [Self; 7] =
        [Self::Damaged, Self::NotGenuine, Self::UnknownOrigin, Self::NoWay, Self::NotReleased, Self::Full, Self::Busy];

    /// May the same parcel be taken later?
    pub fn is_retryable(self) -> bool {
        match self {
            Self::Full | Self::Busy => true,
            Self::Damaged | Self::NotGenuine | Self::UnknownOrigin | Self::NoWay | Self::NotReleased => false,
        }
    }

    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Damaged => "it is damaged",
            Self::NotGenuine => "it is not genuine",
            Self::UnknownOrigin => "its origin is not enrolled there",
            Self::NoWay => "its destination cannot be reached from there",
            Self::NotReleased => "its labels are not released to its destination",
            Self::Full => "there is no room",
            Self::Busy => "it cannot be stored now",
        }
    }
}

/// See [`Frame::Urge`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "described at Frame and in the module")]
pub struct Urge {
    pub epoch: Epoch,
    pub seq: Seq,
    pub class: Precedence,
}

#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "described at Frame and in the module")]
pub struct Greet {
    pub protocol: u16,
    pub node: NodeId,
    /// Random per start of the process: tells a restart from a clone.
    pub boot: u64,
    pub epoch: Epoch,
    /// The number that the next entry of the epoch will have.
    pub next_seq: Seq,
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "described at Frame and in the module")]
pub struct Receipt {
    /// 1 and up: which part of the greeting this is. 0: said later.
    pub part: u32,
    pub epoch: Epoch,
    pub stored: RangeSet,
    pub outcomes: Vec<(Outcome, RangeSet)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "described at Frame and in the module")]
pub struct Resume {
    pub epoch: Epoch,
    pub seq: Seq,
    /// Checksum of the packed bytes: the offset counts only in the same packing.
    pub crc: u32,
    pub offset: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "described at Frame and in the module")]
pub struct Fragment {
    pub epoch: Epoch,
    pub seq: Seq,
    pub part: Part,
}

#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "described at Frame and in the module")]
pub struct Skip {
    pub epoch: Epoch,
    pub outcome: Outcome,
    pub ranges: RangeSet,
    /// Where the entry before one of these in its stream and precedence may not have been applied yet, that entry: the skip
    /// counts once it has ended, so that what comes behind the skipped entry keeps its place.
    pub after: Vec<(Seq, (Epoch, Seq))>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "described at Frame and in the module")]
pub struct Numbers {
    pub epoch: Epoch,
    pub numbers: RangeSet,
}

/// See [`crate::History`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryOf {
    /// What batches name it by.
    pub name: u8,
    /// [`crate::History::hash`].
    pub hash: u64,
    /// Own epochs and numbers, ascending.
    pub entries: Vec<(Epoch, RangeSet)>,
}

/// The answer to [`HistoryOf`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryHeld {
    /// Its name.
    pub name: u8,
    /// What is missing for it, or does not make the hash; empty when it may be used.
    pub missing: Vec<(Epoch, RangeSet)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "described at Frame and in the module")]
pub struct Verify {
    pub epoch: Epoch,
    /// Number and first 8 bytes of the hash.
    pub hashes: Vec<(Seq, u64)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "described at Frame and in the module")]
pub struct Verdict {
    pub epoch: Epoch,
    pub same: RangeSet,
    pub different: RangeSet,
}

#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "described at Frame and in the module")]
pub struct Want {
    /// Of this question on the connection: asked twice under one number is asked once.
    pub number: u64,
    pub epoch: Epoch,
    pub seq: Seq,
    /// Which list of the manifest the indexes count in: 0 is the content.
    pub level: u8,
    /// The bases that they were sent from are not here: they are to come without.
    pub whole: bool,
    /// None of them: what was asked for of this list is to wait until it is asked for again.
    pub indexes: RangeSet,
    /// Index, checksum and bytes held of a chunk that is partly there.
    pub partial: Option<(u32, u32, u32)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "described at Frame and in the module")]
pub struct Unavailable {
    pub epoch: Epoch,
    pub seq: Seq,
    pub level: u8,
    pub indexes: RangeSet,
}

#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "described at Frame and in the module")]
pub struct Slice {
    pub epoch: Epoch,
    pub seq: Seq,
    pub level: u8,
    pub index: u32,
    pub part: Part,
}

#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "described at Frame and in the module")]
pub struct Claim {
    /// As in [`Receipt`].
    pub part: u32,
    /// The start of your process that wrote the parcels.
    pub boot: u64,
    pub epoch: Epoch,
    pub stored: RangeSet,
    pub outcomes: Vec<(Outcome, RangeSet)>,
    /// Numbers under which I hold another content.
    pub refused: RangeSet,
}

/// A chunk with what names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whole {
    /// Epoch of the file's entry.
    pub epoch: Epoch,
    /// Number of the file's entry.
    pub seq: Seq,
    /// Label of the file's entry, under which the chunk is named.
    pub label: Label,
    zstd: bool,
    bytes: Vec<u8>,
}

impl Whole {
    /// Packs a chunk; compressed where that gains.
    ///
    /// # Panics
    /// When it is larger than any chunk.
    pub fn new(epoch: Epoch, seq: Seq, label: Label, chunk: &[u8], level: i32) -> Self {
        assert!(chunk.len() <= chunk::CHUNK_BYTES_MAX, "chunks are capped where they are cut");
        let packed = may_shrink(chunk).then(|| compress(chunk, level)).filter(|packed| packed.len() < chunk.len());
        let zstd = packed.is_some();
        Self { epoch, seq, label, zstd, bytes: packed.unwrap_or_else(|| chunk.to_vec()) }
    }

    /// The chunk's plain bytes.
    ///
    /// # Errors
    /// When they are more than a chunk has, or cannot be unpacked.
    pub fn chunk(&self) -> Result<Vec<u8>, WireError> {
        match self.zstd {
            true => decompress_capped(&self.bytes, chunk::CHUNK_BYTES_MAX),
            false => Ok(self.bytes.clone()),
        }
    }
}

/// How bytes are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// As they are.
    Raw,
    /// A zstd frame.
    Zstd,
    /// A zstd frame that continues this chunk.
    From(ChunkName),
}

/// A part of packed bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// How the whole is packed.
    pub packing: Packing,
    /// CRC-32C of the whole.
    pub crc: u32,
    /// Length of the whole.
    pub total: u32,
    /// Where these bytes stand in it.
    pub offset: u32,
    /// The bytes.
    pub bytes: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "described at Frame and in the module")]
pub struct Bye {
    pub code: ByeCode,
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "described at Frame and in the module")]
pub struct Join {
    /// Random. The dialling side's names the session that the connection is to join; the answer's names the session
    /// that it has joined, and is another one when that began anew.
    pub session: u64,
    /// What the dialling side calls the link.
    /// How often the dialling side should say that it is there while nothing else is sent; 0 for never.
    pub keepalive_seconds: u16,
    pub link: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "described at Frame and in the module")]
pub struct Shut {
    /// The carrier's code, as on QUIC.
    pub code: u8,
    pub text: String,
}

/// Why a connection ends. The numbers are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ByeCode {
    /// The node is stopping, or told to be silent.
    Leaving = 1,
    /// The peer said something that makes no sense.
    Protocol = 2,
    /// The peer is not the node that was expected.
    OtherNode = 3,
    /// Two machines use one identity.
    Cloned = 4,
    /// Nothing was heard for too long.
    Quiet = 5,
    /// The peer speaks another version of the protocol.
    Version = 6,
    /// This side's journal could not be read or written.
    Journal = 7,
    /// A newer connection of the same peer took over.
    Replaced = 8,
}

impl ByeCode {
    /// Every code.
    pub const ALL: [Self; 8] = [
        Self::Leaving,
        Self::Protocol,
        Self::OtherNode,
        Self::Cloned,
        Self::Quiet,
        Self::Version,
        Self::Journal,
        Self::Replaced,
    ];
}

/// Bytes packed for sending in parts: compressed where that gains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    packing: Packing,
    crc: u32,
    bytes: Vec<u8>,
}

impl Packed {
    /// Packs at most [`ENTRY_BYTES_MAX`] bytes.
    pub fn new(plain: &[u8], level: i32) -> Self {
        assert!(plain.len() <= ENTRY_BYTES_MAX, "entries and chunks are capped where they are made");
        let packed = may_shrink(plain).then(|| compress(plain, level)).filter(|packed| packed.len() < plain.len());
        let packing = if packed.is_some() { Packing::Zstd } else { Packing::Raw };
        Self::of(packing, packed.unwrap_or_else(|| plain.to_vec()))
    }

    /// Packs a chunk as what differs from another, or by itself where that is shorter.
    pub fn from_base(plain: &[u8], name: ChunkName, base: &[u8], level: i32) -> Self {
        let whole = Self::new(plain, level);
        match compress_from(plain, base, level) {
            Some(bytes) if bytes.len() + ChunkName::LEN < whole.bytes.len() => Self::of(Packing::From(name), bytes),
            Some(_) | None => whole,
        }
    }

    /// Bytes that are sent as they are: a sealed parcel.
    pub fn raw(bytes: Vec<u8>) -> Self {
        Self::of(Packing::Raw, bytes)
    }

    fn of(packing: Packing, bytes: Vec<u8>) -> Self {
        Self { packing, crc: crc32c::crc32c(&bytes), bytes }
    }

    /// Checksum of the packed bytes.
    pub fn crc(&self) -> u32 {
        self.crc
    }

    /// Length of the packed bytes.
    pub fn total(&self) -> u32 {
        self.bytes.len() as u32
    }

    /// At most `len` bytes from `offset` on; at least one where there is one.
    pub fn part(&self, offset: u32, len: usize) -> Part {
        let from = (offset as usize).min(self.bytes.len());
        let to = from.saturating_add(len.max(1)).min(self.bytes.len());
        Part {
            packing: self.packing,
            crc: self.crc,
            total: self.total(),
            offset: from as u32,
            bytes: self.bytes[from..to].to_vec(),
        }
    }
}

/// Puts packed bytes together again from parts in any order.
#[derive(Clone, Debug)]
pub struct Assembly {
    packing: Packing,
    crc: u32,
    total: u32,
    bytes: Vec<u8>,
    got: RangeSet,
}

impl Assembly {
    /// Starts with any part of the whole.
    pub fn of(part: &Part) -> Self {
        Self { packing: part.packing, crc: part.crc, total: part.total, bytes: Vec::new(), got: RangeSet::new() }
    }

    /// Does `part` belong to the same packing?
    pub fn takes(&self, part: &Part) -> bool {
        (self.packing, self.crc, self.total) == (part.packing, part.crc, part.total)
    }

    /// Adds a part that [`Assembly::takes`].
    pub fn add(&mut self, part: &Part) {
        let (from, to) = (part.offset as usize, part.offset as usize + part.bytes.len());
        if part.bytes.is_empty() {
            return;
        }
        if self.bytes.len() < to {
            self.bytes.resize(to, 0);
        }
        self.bytes[from..to].copy_from_slice(&part.bytes);
        self.got.insert_range(from as u64 + 1..=to as u64);
    }

    /// Checksum of the whole.
    pub fn crc(&self) -> u32 {
        self.crc
    }

    /// How many bytes from the start on are there.
    pub fn held(&self) -> u32 {
        self.got.contiguous_from_one() as u32
    }

    /// Bytes of memory held.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Nothing is there.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// All bytes are there.
    pub fn is_complete(&self) -> bool {
        self.held() == self.total
    }

    /// The chunk without which it cannot be unpacked.
    pub fn base(&self) -> Option<ChunkName> {
        match self.packing {
            Packing::Raw | Packing::Zstd => None,
            Packing::From(base) => Some(base),
        }
    }

    /// The plain bytes of a complete assembly that has no base, at most `max`.
    ///
    /// # Errors
    /// When bytes are missing, the checksum differs, or more than `max` come out.
    pub fn unpack(self, max: usize) -> Result<Vec<u8>, WireError> {
        self.unpack_from(&[], max)
    }

    /// As [`Assembly::unpack`], from the plain bytes of its base.
    ///
    /// # Errors
    /// As there, and when the base is another one.
    pub fn unpack_from(self, base: &[u8], max: usize) -> Result<Vec<u8>, WireError> {
        if !self.is_complete() || crc32c::crc32c(&self.bytes) != self.crc {
            return Err(WireError::Malformed("a value sent in parts"));
        }
        match self.packing {
            Packing::Zstd => decompress_capped(&self.bytes, max),
            Packing::From(_) => decompress_from_capped(&self.bytes, base, max),
            Packing::Raw if self.bytes.len() > max => {
                let found = self.bytes.len() as u64;
                Err(WireError::TooLarge { what: "a value sent in parts", found, max: max as u64 })
            }
            Packing::Raw => Ok(self.bytes),
        }
    }
}

impl Frame {
    /// Name used in logs and metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Greet(_) => "greet",
            Self::Receipt(_) => "receipt",
            Self::Ready(_) => "ready",
            Self::Resume(_) => "resume",
            Self::Batch(_) => "batch",
            Self::Fragment(_) => "fragment",
            Self::Skip(_) => "skip",
            Self::Verify(_) => "verify",
            Self::Verdict(_) => "verdict",
            Self::Want(_) => "want",
            Self::Unavailable(_) => "unavailable",
            Self::Slice(_) => "slice",
            Self::KeepAlive => "keep_alive",
            Self::Bye(_) => "bye",
            Self::Again(_) => "again",
            Self::Recall(_) => "recall",
            Self::Returned(_) => "returned",
            Self::Gone(_) => "gone",
            Self::History(_) => "history",
            Self::HistoryHeld(_) => "history_held",
            Self::HistoryGone(_) => "history_gone",
            Self::Join(_) => "join",
            Self::Got(_) => "got",
            Self::Shut(_) => "shut",
            Self::Claim(_) => "claim",
            Self::Whole(_) => "whole",
            Self::OnRequest(_) => "on_request",
            Self::Urge(_) => "urge",
            Self::Carried(_) => "carried",
            Self::Kept(_) => "kept",
        }
    }

    /// The frame as bytes, without the length that a stream puts before it.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        match self {
            Self::Greet(f) => {
                out.push(1);
                put_varint(&mut out, u64::from(f.protocol));
                out.extend(f.node.0);
                out.extend(f.boot.to_le_bytes());
                put_number(&mut out, f.epoch, f.next_seq);
                out.extend_from_slice(f.name.as_bytes());
            }
            Self::Receipt(f) => {
                out.push(2);
                put_varint(&mut out, u64::from(f.part));
                put_varint(&mut out, u64::from(f.epoch.0));
                put_cbor(&mut out, &f.stored, &mut ());
                put_outcomes(&mut out, &f.outcomes);
            }
            Self::Ready(parts) => {
                out.push(3);
                put_varint(&mut out, u64::from(*parts));
            }
            Self::Resume(f) => {
                out.push(4);
                put_number(&mut out, f.epoch, f.seq);
                out.extend(f.crc.to_le_bytes());
                put_varint(&mut out, u64::from(f.offset));
            }
            Self::Batch(f) => {
                out.push(5);
                out.extend(f.encode());
            }
            Self::Fragment(f) => {
                out.push(6);
                put_number(&mut out, f.epoch, f.seq);
                put_part(&mut out, &f.part);
            }
            Self::Skip(f) => {
                out.push(7);
                put_varint(&mut out, u64::from(f.epoch.0));
                out.push(f.outcome as u8);
                put_cbor(&mut out, &f.ranges, &mut ());
                put_varint(&mut out, f.after.len() as u64);
                for (seq, (epoch, before)) in &f.after {
                    put_varint(&mut out, seq.get());
                    put_varint(&mut out, u64::from(epoch.0));
                    put_varint(&mut out, before.get());
                }
            }
            Self::Verify(f) => {
                out.push(8);
                put_varint(&mut out, u64::from(f.epoch.0));
                put_varint(&mut out, f.hashes.len() as u64);
                for (seq, hash) in &f.hashes {
                    put_varint(&mut out, seq.get());
                    out.extend(hash.to_le_bytes());
                }
            }
            Self::Verdict(f) => {
                out.push(9);
                put_varint(&mut out, u64::from(f.epoch.0));
                put_cbor(&mut out, &f.same, &mut ());
                put_cbor(&mut out, &f.different, &mut ());
            }
            Self::Want(f) => {
                out.push(10);
                put_varint(&mut out, f.number);
                put_number(&mut out, f.epoch, f.seq);
                out.extend([f.level, u8::from(f.whole)]);
                put_cbor(&mut out, &f.indexes, &mut ());
                out.push(u8::from(f.partial.is_some()));
                if let Some((index, crc, offset)) = f.partial {
                    put_varint(&mut out, u64::from(index));
                    out.extend(crc.to_le_bytes());
                    put_varint(&mut out, u64::from(offset));
                }
            }
            Self::Unavailable(f) => {
                out.push(11);
                put_number(&mut out, f.epoch, f.seq);
                out.push(f.level);
                put_cbor(&mut out, &f.indexes, &mut ());
            }
            Self::Slice(f) => {
                out.push(12);
                put_number(&mut out, f.epoch, f.seq);
                out.push(f.level);
                put_varint(&mut out, u64::from(f.index));
                put_part(&mut out, &f.part);
            }
            Self::KeepAlive => out.push(13),
            Self::Bye(f) => {
                out.extend([14, f.code as u8]);
                out.extend_from_slice(f.text.as_bytes());
            }
            Self::Again(f) => put_numbers(&mut out, 15, f),
            Self::Recall(f) => put_numbers(&mut out, 16, f),
            Self::Returned(f) => {
                out.push(17);
                put_number(&mut out, f.epoch, f.seq);
                put_part(&mut out, &f.part);
            }
            Self::Gone(f) => put_numbers(&mut out, 18, f),
            Self::History(f) => {
                out.extend([19, f.name]);
                out.extend(f.hash.to_le_bytes());
                put_sets(&mut out, &f.entries);
            }
            Self::HistoryHeld(f) => {
                out.extend([20, f.name]);
                put_sets(&mut out, &f.missing);
            }
            Self::HistoryGone(name) => out.extend([21, *name]),
            Self::Join(f) => {
                out.push(23);
                out.extend(f.session.to_le_bytes());
                put_varint(&mut out, u64::from(f.keepalive_seconds));
                out.extend_from_slice(f.link.as_bytes());
            }
            Self::Got(count) => {
                out.push(24);
                put_varint(&mut out, *count);
            }
            Self::Shut(f) => {
                out.extend([25, f.code]);
                out.extend_from_slice(f.text.as_bytes());
            }
            Self::Claim(f) => {
                out.push(30);
                put_varint(&mut out, u64::from(f.part));
                out.extend(f.boot.to_le_bytes());
                put_varint(&mut out, u64::from(f.epoch.0));
                put_cbor(&mut out, &f.stored, &mut ());
                put_outcomes(&mut out, &f.outcomes);
                put_cbor(&mut out, &f.refused, &mut ());
            }
            Self::Whole(f) => {
                out.push(31);
                put_number(&mut out, f.epoch, f.seq);
                put_varint(&mut out, f.label.as_str().len() as u64);
                out.extend_from_slice(f.label.as_str().as_bytes());
                out.push(u8::from(f.zstd));
                out.extend_from_slice(&f.bytes);
            }
            Self::OnRequest(f) => put_numbers(&mut out, 26, f),
            Self::Urge(f) => {
                out.push(27);
                put_number(&mut out, f.epoch, f.seq);
                out.push(f.class as u8);
            }
            Self::Carried(f) => {
                out.push(28);
                out.extend(f.parcel.to_le_bytes());
                put_part(&mut out, &f.part);
            }
            Self::Kept(f) => {
                out.push(29);
                out.extend(f.parcel.to_le_bytes());
                match f.custody {
                    Custody::Taken => out.push(0),
                    Custody::Partly(offset) => {
                        out.push(1);
                        put_varint(&mut out, u64::from(offset));
                    }
                    Custody::Refused(why) => out.push(why as u8),
                }
            }
        }
        out
    }

    /// The frame that bytes hold.
    ///
    /// # Errors
    /// When they are no frame, or above a cap.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        Self::decode_up_to(bytes, FRAME_BYTES_MAX)
    }

    pub(crate) fn decode_up_to(bytes: &[u8], max: usize) -> Result<Self, WireError> {
        if bytes.len() > max {
            let found = bytes.len() as u64;
            return Err(WireError::TooLarge { what: "a frame", found, max: max as u64 });
        }
        let mut r = Reader::new(bytes, "a frame");
        let frame = match r.u8()? {
            1 => {
                let protocol = u16::try_from(r.varint()?).map_err(|_| WireError::Malformed("a protocol version"))?;
                let (node, boot) = (NodeId(r.array()?), u64::from_le_bytes(r.array()?));
                let (epoch, next_seq) = read_number(&mut r)?;
                let name = read_text(&mut r, "a node's name", NAME_BYTES_MAX)?;
                Self::Greet(Greet { protocol, node, boot, epoch, next_seq, name })
            }
            2 => {
                let (part, epoch, stored) = (read_u32(&mut r)?, entry::read_epoch(&mut r)?, r.cbor(&mut ())?);
                Self::Receipt(Receipt { part, epoch, stored, outcomes: read_outcomes(&mut r)? })
            }
            3 => Self::Ready(read_u32(&mut r)?),
            4 => {
                let (epoch, seq) = read_number(&mut r)?;
                Self::Resume(Resume { epoch, seq, crc: u32::from_le_bytes(r.array()?), offset: read_u32(&mut r)? })
            }
            5 => Self::Batch(Batch::decode(&mut r)?),
            6 => {
                let (epoch, seq) = read_number(&mut r)?;
                Self::Fragment(Fragment { epoch, seq, part: read_part(&mut r, ENTRY_BYTES_MAX)? })
            }
            7 => {
                let (epoch, outcome) = (entry::read_epoch(&mut r)?, read_outcome(&mut r)?);
                let ranges = r.cbor(&mut ())?;
                let count = r.capped("places of skipped entries", SKIP_LINKS_MAX)?;
                let mut after = Vec::new();
                for _ in 0..count {
                    after.push((entry::read_seq(&mut r)?, read_number(&mut r)?));
                }
                Self::Skip(Skip { epoch, outcome, ranges, after })
            }
            8 => {
                let epoch = entry::read_epoch(&mut r)?;
                let count = r.capped("numbers to verify", VERIFY_MAX)?;
                let mut hashes = Vec::new();
                for _ in 0..count {
                    hashes.push((entry::read_seq(&mut r)?, u64::from_le_bytes(r.array()?)));
                }
                Self::Verify(Verify { epoch, hashes })
            }
            9 => Self::Verdict(Verdict {
                epoch: entry::read_epoch(&mut r)?,
                same: r.cbor(&mut ())?,
                different: r.cbor(&mut ())?,
            }),
            10 => {
                let number = r.varint()?;
                let (epoch, seq) = read_number(&mut r)?;
                let (level, whole, indexes) = (r.u8()?, read_flag(&mut r)?, r.cbor(&mut ())?);
                let partial = if read_flag(&mut r)? {
                    Some((read_u32(&mut r)?, u32::from_le_bytes(r.array()?), read_u32(&mut r)?))
                } else {
                    None
                };
                Self::Want(Want { number, epoch, seq, level, whole, indexes, partial })
            }
            11 => {
                let (epoch, seq) = read_number(&mut r)?;
                Self::Unavailable(Unavailable { epoch, seq, level: r.u8()?, indexes: r.cbor(&mut ())? })
            }
            12 => {
                let (epoch, seq) = read_number(&mut r)?;
                let (level, index) = (r.u8()?, read_u32(&mut r)?);
                Self::Slice(Slice { epoch, seq, level, index, part: read_part(&mut r, chunk::CHUNK_BYTES_MAX)? })
            }
            13 => Self::KeepAlive,
            14 => {
                let number = r.u8()?;
                let code = ByeCode::ALL.into_iter().find(|c| *c as u8 == number);
                let code = code.ok_or(WireError::Malformed("the code of a farewell"))?;
                Self::Bye(Bye { code, text: read_text(&mut r, "the text of a farewell", TEXT_BYTES_MAX)? })
            }
            15 => Self::Again(read_numbers(&mut r)?),
            16 => Self::Recall(read_numbers(&mut r)?),
            17 => {
                let (epoch, seq) = read_number(&mut r)?;
                Self::Returned(Fragment { epoch, seq, part: read_part(&mut r, ENTRY_BYTES_MAX)? })
            }
            18 => Self::Gone(read_numbers(&mut r)?),
            19 => Self::History(HistoryOf {
                name: r.u8()?,
                hash: u64::from_le_bytes(r.array()?),
                entries: read_sets(&mut r)?,
            }),
            20 => Self::HistoryHeld(HistoryHeld { name: r.u8()?, missing: read_sets(&mut r)? }),
            21 => Self::HistoryGone(r.u8()?),
            23 => Self::Join(Join {
                session: u64::from_le_bytes(r.array()?),
                keepalive_seconds: u16::try_from(r.varint()?)
                    .map_err(|_| WireError::Malformed("a time between signs of life"))?,
                link: read_text(&mut r, "a link's name", NAME_BYTES_MAX)?,
            }),
            24 => Self::Got(r.varint()?),
            25 => Self::Shut(Shut { code: r.u8()?, text: read_text(&mut r, "a farewell", TEXT_BYTES_MAX)? }),
            30 => {
                let (part, boot) = (read_u32(&mut r)?, u64::from_le_bytes(r.array()?));
                let (epoch, stored) = (entry::read_epoch(&mut r)?, r.cbor(&mut ())?);
                let (outcomes, refused) = (read_outcomes(&mut r)?, r.cbor(&mut ())?);
                Self::Claim(Claim { part, boot, epoch, stored, outcomes, refused })
            }
            31 => {
                let (epoch, seq) = read_number(&mut r)?;
                let len = r.capped("a label", Label::MAX_LEN)?;
                let label = std::str::from_utf8(r.take(len)?).ok().and_then(|text| text.parse().ok());
                let label = label.ok_or(WireError::Malformed("a label"))?;
                let (zstd, bytes) = (read_flag(&mut r)?, r.rest().to_vec());
                if !zstd && bytes.len() > chunk::CHUNK_BYTES_MAX {
                    let (found, max) = (bytes.len() as u64, chunk::CHUNK_BYTES_MAX as u64);
                    return Err(WireError::TooLarge { what: "a chunk", found, max });
                }
                Self::Whole(Whole { epoch, seq, label, zstd, bytes })
            }
            26 => Self::OnRequest(read_numbers(&mut r)?),
            27 => {
                let (epoch, seq) = read_number(&mut r)?;
                let class = Precedence::from_index(r.u8()?).ok_or(WireError::Malformed("a class"))?;
                Self::Urge(Urge { epoch, seq, class })
            }
            28 => {
                let parcel = u64::from_le_bytes(r.array()?);
                let part = read_part(&mut r, PARCEL_BYTES_MAX)?;
                if part.packing != Packing::Raw {
                    return Err(WireError::Malformed("a packed parcel"));
                }
                Self::Carried(Carried { parcel, part })
            }
            29 => {
                let parcel = u64::from_le_bytes(r.array()?);
                let custody = match r.u8()? {
                    0 => Custody::Taken,
                    1 => Custody::Partly(read_u32(&mut r)?),
                    number => {
                        let why = CustodyRefusal::ALL.into_iter().find(|why| *why as u8 == number);
                        Custody::Refused(why.ok_or(WireError::Malformed("what became of a parcel"))?)
                    }
                };
                Self::Kept(Kept { parcel, custody })
            }
            _ => return Err(WireError::Malformed("a frame's type")),
        };
        r.finish()?;
        Ok(frame)
    }

    /// Appends the frame with its length, as it stands in a stream.
    ///
    /// # Panics
    /// When the frame is larger than [`FRAME_BYTES_MAX`]; the session never makes such a frame.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let bytes = self.encode();
        assert!(bytes.len() <= FRAME_BYTES_MAX, "{} frame of {} bytes", self.kind(), bytes.len());
        put_varint(out, bytes.len() as u64);
        out.extend_from_slice(&bytes);
    }
}

/// Cuts a byte stream into frames. Holds at most one incomplete frame and what was pushed last.
#[derive(Debug, Default)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
    at: usize,
}

impl FrameBuffer {
    /// Adds bytes that arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.at);
        self.at = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame.
    ///
    /// # Errors
    /// When the stream holds something else; it cannot be read any further then.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, WireError> {
        let rest = &self.bytes[self.at..];
        let mut reader = Reader::new(rest, "a frame");
        let len = match reader.capped("a frame", FRAME_BYTES_MAX) {
            Ok(len) => len,
            Err(WireError::Truncated(_)) => return Ok(None),
            Err(e) => return Err(e),
        };
        let Ok(bytes) = reader.take(len) else { return Ok(None) };
        let frame = Frame::decode(bytes)?;
        self.at = self.bytes.len() - reader.rest().len();
        Ok(Some(frame))
    }
}

fn put_outcomes(out: &mut Vec<u8>, outcomes: &[(Outcome, RangeSet)]) {
    put_varint(out, outcomes.len() as u64);
    for (outcome, ranges) in outcomes {
        out.push(*outcome as u8);
        put_cbor(out, ranges, &mut ());
    }
}

fn read_outcomes(r: &mut Reader<'_>) -> Result<Vec<(Outcome, RangeSet)>, WireError> {
    let count = r.capped("outcomes", Outcome::ALL.len())?;
    let mut outcomes = Vec::with_capacity(count);
    for _ in 0..count {
        outcomes.push((read_outcome(r)?, r.cbor(&mut ())?));
    }
    Ok(outcomes)
}

fn put_number(out: &mut Vec<u8>, epoch: Epoch, seq: Seq) {
    put_varint(out, u64::from(epoch.0));
    put_varint(out, seq.get());
}

fn put_numbers(out: &mut Vec<u8>, kind: u8, f: &Numbers) {
    out.push(kind);
    put_varint(out, u64::from(f.epoch.0));
    put_cbor(out, &f.numbers, &mut ());
}

fn read_numbers(r: &mut Reader<'_>) -> Result<Numbers, WireError> {
    Ok(Numbers { epoch: entry::read_epoch(r)?, numbers: r.cbor(&mut ())? })
}

fn put_sets(out: &mut Vec<u8>, sets: &[(Epoch, RangeSet)]) {
    put_varint(out, sets.len() as u64);
    for (epoch, set) in sets {
        put_varint(out, u64::from(epoch.0));
        put_cbor(out, set, &mut ());
    }
}

fn read_sets(r: &mut Reader<'_>) -> Result<Vec<(Epoch, RangeSet)>, WireError> {
    let count = r.capped("epochs of a history", HISTORY_EPOCHS_MAX)?;
    (0..count).map(|_| Ok((entry::read_epoch(r)?, r.cbor(&mut ())?))).collect()
}

fn put_part(out: &mut Vec<u8>, part: &Part) {
    match part.packing {
        Packing::Raw => out.push(0),
        Packing::Zstd => out.push(1),
        Packing::From(base) => {
            out.push(2);
            out.extend_from_slice(&base.0);
        }
    }
    out.extend(part.crc.to_le_bytes());
    put_varint(out, u64::from(part.total));
    put_varint(out, u64::from(part.offset));
    out.extend_from_slice(&part.bytes);
}

fn read_number(r: &mut Reader<'_>) -> Result<(Epoch, Seq), WireError> {
    Ok((entry::read_epoch(r)?, entry::read_seq(r)?))
}

fn read_u32(r: &mut Reader<'_>) -> Result<u32, WireError> {
    u32::try_from(r.varint()?).map_err(|_| WireError::Malformed("a number"))
}

fn read_flag(r: &mut Reader<'_>) -> Result<bool, WireError> {
    match r.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(WireError::Malformed("a flag")),
    }
}

fn read_outcome(r: &mut Reader<'_>) -> Result<Outcome, WireError> {
    Outcome::from_number(r.u8()?).ok_or(WireError::Malformed("an outcome"))
}

fn read_text(r: &mut Reader<'_>, what: &'static str, max: usize) -> Result<String, WireError> {
    let bytes = r.rest();
    if bytes.len() > max {
        return Err(WireError::TooLarge { what, found: bytes.len() as u64, max: max as u64 });
    }
    String::from_utf8(bytes.to_vec()).map_err(|_| WireError::Malformed(what))
}

fn read_part(r: &mut Reader<'_>, max: usize) -> Result<Part, WireError> {
    let packing = match r.u8()? {
        0 => Packing::Raw,
        1 => Packing::Zstd,
        2 => Packing::From(ChunkName(r.array()?)),
        _ => return Err(WireError::Malformed("a packing")),
    };
    let crc = u32::from_le_bytes(r.array()?);
    let total = r.capped("a value sent in parts", max)?;
    let offset = r.capped("an offset", total)?;
    let bytes = r.rest();
    if bytes.len() > total - offset {
        return Err(WireError::Malformed("a part"));
    }
    Ok(Part { packing, crc, total: total as u32, offset: offset as u32, bytes: bytes.to_vec() })
}

/// Decodes hostile bytes in every way that a peer can make this node decode them, for fuzzing.
pub fn fuzz_frame(bytes: &[u8]) {
    if let Ok(frame) = Frame::decode(bytes) {
        if let Frame::Batch(batch) = &frame {
            let _ = batch.entries(&History::none(NodeId([1; 16])));
        }
        let again = frame.encode();
        assert_eq!(Frame::decode(&again).as_ref(), Ok(&frame), "a frame that decodes survives its bytes");
    }
    let mut buffer = FrameBuffer::default();
    for piece in bytes.chunks(7) {
        buffer.push(piece);
        while let Ok(Some(_)) = buffer.next_frame() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::tests::pack;
    use crate::entry::tests::entry;
    use proptest::prelude::*;

    fn set() -> impl Strategy<Value = RangeSet> {
        prop::collection::vec((1u64..90, 0u64..5), 0..6).prop_map(|parts| {
            let mut set = RangeSet::new();
            parts.into_iter().for_each(|(a, n)| set.insert_range(a..=a + n));
            set
        })
    }

    fn number() -> impl Strategy<Value = (Epoch, Seq)> {
        (any::<u32>(), 1u64..).prop_map(|(e, s)| (Epoch(e), Seq::new(s).unwrap()))
    }

    fn outcome() -> impl Strategy<Value = Outcome> {
        prop::sample::select(Outcome::ALL.to_vec())
    }

    fn custody() -> impl Strategy<Value = Custody> {
        prop_oneof![
            Just(Custody::Taken),
            any::<u32>().prop_map(Custody::Partly),
            prop::sample::select(CustodyRefusal::ALL.to_vec()).prop_map(Custody::Refused),
        ]
    }

    fn part() -> impl Strategy<Value = Part> {
        let packing = prop_oneof![
            Just(Packing::Raw),
            Just(Packing::Zstd),
            any::<[u8; ChunkName::LEN]>().prop_map(|name| Packing::From(ChunkName(name))),
        ];
        (packing, any::<u32>(), 0u32..1_000, 0u32..1_000, prop::collection::vec(any::<u8>(), 0..80)).prop_map(
            |(packing, crc, offset, after, bytes)| Part {
                packing,
                crc,
                total: offset + bytes.len() as u32 + after,
                offset,
                bytes,
            },
        )
    }

    fn frame() -> impl Strategy<Value = Frame> {
        prop_oneof![
            (any::<u16>(), any::<[u8; 16]>(), any::<u64>(), number(), "[ -~é]{0,30}").prop_map(
                |(protocol, node, boot, (epoch, next_seq), name)| Frame::Greet(Greet {
                    protocol,
                    node: NodeId(node),
                    boot,
                    epoch,
                    next_seq,
                    name
                })
            ),
            (any::<u32>(), number(), set(), prop::collection::vec((outcome(), set()), 0..6)).prop_map(
                |(part, (epoch, _), stored, outcomes)| Frame::Receipt(Receipt { part, epoch, stored, outcomes })
            ),
            any::<u32>().prop_map(Frame::Ready),
            (number(), any::<u32>(), any::<u32>()).prop_map(|((epoch, seq), crc, offset)| Frame::Resume(Resume {
                epoch,
                seq,
                crc,
                offset
            })),
            prop::collection::vec(entry(), 0..6).prop_map(|entries| Frame::Batch(pack(&entries))),
            (number(), part()).prop_map(|((epoch, seq), part)| Frame::Fragment(Fragment { epoch, seq, part })),
            (number(), outcome(), set(), prop::collection::vec((number(), number()), 0..4)).prop_map(
                |((epoch, _), outcome, ranges, after)| {
                    let after = after.into_iter().map(|((_, seq), before)| (seq, before)).collect();
                    Frame::Skip(Skip { epoch, outcome, ranges, after })
                }
            ),
            (number(), prop::collection::vec((number(), any::<u64>()), 0..9)).prop_map(|((epoch, _), hashes)| {
                Frame::Verify(Verify { epoch, hashes: hashes.into_iter().map(|((_, s), h)| (s, h)).collect() })
            }),
            (number(), set(), set()).prop_map(|((epoch, _), same, different)| Frame::Verdict(Verdict {
                epoch,
                same,
                different
            })),
            (any::<u64>(), number(), any::<u8>(), any::<bool>(), set(), any::<Option<(u32, u32, u32)>>()).prop_map(
                |(number, (epoch, seq), level, whole, indexes, partial)| Frame::Want(Want {
                    number,
                    epoch,
                    seq,
                    level,
                    whole,
                    indexes,
                    partial
                })
            ),
            (number(), any::<u8>(), set()).prop_map(|((epoch, seq), level, indexes)| Frame::Unavailable(Unavailable {
                epoch,
                seq,
                level,
                indexes
            })),
            (number(), any::<u8>(), any::<u32>(), part())
                .prop_map(|((epoch, seq), level, index, part)| Frame::Slice(Slice { epoch, seq, level, index, part })),
            Just(Frame::KeepAlive),
            (prop::sample::select(ByeCode::ALL.to_vec()), "[ -~]{0,40}")
                .prop_map(|(code, text)| Frame::Bye(Bye { code, text })),
            (number(), set()).prop_map(|((epoch, _), numbers)| Frame::Again(Numbers { epoch, numbers })),
            (number(), set()).prop_map(|((epoch, _), numbers)| Frame::Recall(Numbers { epoch, numbers })),
            (number(), part()).prop_map(|((epoch, seq), part)| Frame::Returned(Fragment { epoch, seq, part })),
            (number(), set()).prop_map(|((epoch, _), numbers)| Frame::Gone(Numbers { epoch, numbers })),
            (any::<u8>(), any::<u64>(), prop::collection::vec((number(), set()), 0..3)).prop_map(
                |(name, hash, entries)| {
                    let entries = entries.into_iter().map(|((epoch, _), set)| (epoch, set)).collect();
                    Frame::History(HistoryOf { name, hash, entries })
                }
            ),
            (any::<u8>(), prop::collection::vec((number(), set()), 0..3)).prop_map(|(name, missing)| {
                let missing = missing.into_iter().map(|((epoch, _), set)| (epoch, set)).collect();
                Frame::HistoryHeld(HistoryHeld { name, missing })
            }),
            any::<u8>().prop_map(Frame::HistoryGone),
            (any::<u64>(), any::<u16>(), "[ -~é]{0,30}")
                .prop_map(|(session, keepalive_seconds, link)| Frame::Join(Join { session, keepalive_seconds, link })),
            any::<u64>().prop_map(Frame::Got),
            (any::<u8>(), "[ -~]{0,40}").prop_map(|(code, text)| Frame::Shut(Shut { code, text })),
            (any::<u32>(), any::<u64>(), number(), set(), prop::collection::vec((outcome(), set()), 0..6), set())
                .prop_map(|(part, boot, (epoch, _), stored, outcomes, refused)| Frame::Claim(Claim {
                    part,
                    boot,
                    epoch,
                    stored,
                    outcomes,
                    refused
                })),
            (number(), prop::collection::vec(0u8..8, 0..300)).prop_map(|((epoch, seq), chunk)| {
                Frame::Whole(Whole::new(epoch, seq, "mission".parse().unwrap(), &chunk, 3))
            }),
            (number(), set()).prop_map(|((epoch, _), numbers)| Frame::OnRequest(Numbers { epoch, numbers })),
            (number(), 0..5u8).prop_map(|((epoch, seq), class)| Frame::Urge(Urge {
                epoch,
                seq,
                class: Precedence::from_index(class).unwrap()
            })),
            (any::<u64>(), part()).prop_map(|(parcel, part)| {
                Frame::Carried(Carried { parcel, part: Part { packing: Packing::Raw, ..part } })
            }),
            (any::<u64>(), custody()).prop_map(|(parcel, custody)| Frame::Kept(Kept { parcel, custody })),
        ]
    }

    proptest! {
        #[test]
        fn frames_survive_a_stream_cut_anywhere(frames in prop::collection::vec(frame(), 0..6), cut in 1usize..40) {
            let mut stream = Vec::new();
            frames.iter().for_each(|f| f.write_to(&mut stream));
            let mut buffer = FrameBuffer::default();
            let mut read = Vec::new();
            for piece in stream.chunks(cut) {
                buffer.push(piece);
                while let Some(frame) = buffer.next_frame().unwrap() {
                    read.push(frame);
                }
            }
            prop_assert_eq!(read, frames);
        }

        #[test]
        fn hostile_frames_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            fuzz_frame(&bytes);
        }

        #[test]
        fn damaged_frames_never_panic(frame in frame(), at: prop::sample::Index, flip in 1u8.., cut: prop::sample::Index) {
            let mut bytes = frame.encode();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            fuzz_frame(&bytes);
            fuzz_frame(&bytes[..cut.index(bytes.len())]);
        }

        #[test]
        fn parts_in_any_order_make_the_whole(
            plain in prop::collection::vec(0u8..20, 1..3_000),
            order in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
            size in 1usize..500,
        ) {
            let packed = Packed::new(&plain, 3);
            let mut parts: Vec<Part> = (0..packed.total()).step_by(size).map(|at| packed.part(at, size)).collect();
            for (i, index) in order.iter().enumerate() {
                let n = parts.len();
                parts.swap(i % n, index.index(n));
            }
            let mut assembly = Assembly::of(&parts[0]);
            for part in &parts {
                prop_assert!(!assembly.is_complete());
                prop_assert!(assembly.takes(part));
                assembly.add(part);
            }
            prop_assert_eq!(assembly.unpack(plain.len()), Ok(plain));
        }
    }

    #[test]
    fn a_part_frame_keeps_to_its_overhead() {
        let packing = Packing::From(ChunkName([7; ChunkName::LEN]));
        let part = Part { packing, crc: u32::MAX, total: 1 << 20, offset: (1 << 20) - 1, bytes: vec![1] };
        let (epoch, seq) = (Epoch(u32::MAX), Seq::new(u64::MAX).unwrap());
        let slice = Frame::Slice(Slice { epoch, seq, level: 3, index: u32::MAX, part });
        assert!(slice.encode().len() <= PART_OVERHEAD + 1);
    }
}
