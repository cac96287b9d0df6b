//! Segment files as bytes.
//!
//! ```text
//! segments/00000001.seg
//!   header   magic "HOLDFSEG" 8 | version u16 | 0 u16 | segment u32 | node 16 | first position u64
//!            | chain so far 32 | created i64 (Unix ms) | lock 32 | CRC32C u32 over all before
//!   header   the same again: no single damaged byte makes a segment unreadable; nor does a damaged sector, see frame 20
//!   frame    marker 9E 48 | kind u8 | 0 u8 | payload length u32 | CRC32C u32 | sealed payload
//!   frame    ...
//!   footer   frames of kind 17, one of kind 11, then: offset of that u64 | lock 32 | CRC32C of both u32 | "SEAL" 4
//!   lock     algorithm u8 (0 none, 1 AES-256-GCM-SIV) | 0 u8 x 3 | data key number u32 | salt 16 | check value 8
//! ```
//! Numbers are little-endian. The checksum of a frame covers what is stored, and also node, segment and offset, which
//! are not written: a frame is good only where it was put, so a block that the disk misdirects, a piece of another
//! journal, and a file whose content looks like frames are all told from the real thing, and after a damaged place
//! the next frame can be found by looking for a marker whose checksum is right. None of that needs a key.
//!
//! Every payload is sealed by itself, see [`crate::sealer`]; lengths are of sealed payloads.
//!
//! Payloads, opened
//! ```text
//!  1 entry         position u64 | flags u8 (1 own, 2 object, 4 chunks) | class u8 | entry hash 16
//!                  | object key u64 if flag 2 | chunks-since position u64 and their plain bytes u64 if flag 4
//!                  | entry (wire::encode_entry)
//!  2 chunk         name 17 | encoding u8 (0 raw, 1 zstd, 2 zstd from a base) | plain length u32 | name of the base 17 if 2
//!                  | bytes
//!  3 chunks needed  first 8 bytes of each name's hash: held further back, and needed by a file that follows
//!  4 epoch opened  CBOR [`EpochOpened`]
//!  5 consumer      CBOR [`ConsumerFrame`]: numbers that were added to its state; of the rest the newest counts
//!  6 consumer removed  its name
//!  7 received      CBOR [`ReceivedFrame`]: numbers of another origin that are durable here
//!  8 renumbered    CBOR [`RenumberedFrame`]: own numbers that were given up
//!  9 trimmed       segment u32: this one and those before it are gone or may go
//! 10 snapshot      CBOR [`SnapshotFrame`]; ends the group of frames with which a segment begins
//! 11 footer        CBOR [`crate::summary::Summary`], packed
//! 12 hold          CBOR [`HoldFrame`]: a legal hold that was set or taken away
//! 13 purged entry  as an entry, of the same length; in the body's place CBOR [`PurgeNote`] and zeros
//! 14 purged chunk  as a chunk, of the same length; zeros behind the name
//! 15 restored      as 1: an own entry again, whose first copy was damaged
//! 16 damage note   CBOR [`DamageNote`]: received numbers that were damaged before they were used, and count as not received
//! 17 rows          classes and sizes of a page of own entries ([`crate::pages`])
//! 18 purge         CBOR [`PurgeFrame`]: content that must go, written before it goes and once more when it is gone
//! 19 purged restored  as 13, of a restored entry
//! 20 header        the segment's header once more, not sealed: behind the first 4 KiB, as soon as there is something
//! 24 lanes         the last own entry of each stream and precedence ([`crate::lanes`])
//! ```
//! A segment begins with all that must be known without the segments before it: received sets, consumers, snapshot.
//! The chain is `c(n) = BLAKE3(c(n-1) | entry hash)` over the entries in order, starting with zeros; it covers hashes, so
//! that content can be purged and the chain still verifies (see `purge`).

use std::collections::BTreeMap;

use keys::{CHECK_LEN, KeyNumber, SALT_LEN, TAG_LEN};
use minicbor::{Decode, Encode};
use model::{ChunkName, EntryHash, Epoch, Header, Hlc, LocalPos, NodeId, ObjectKey, Precedence, RangeSet, UnixMillis};

use crate::file::Base;
use crate::holds::HoldFrame;
use crate::lanes::LaneHead;
use crate::mutations::{Mutation, is};
use crate::purge::PurgeFrame;
use crate::sealer::Sealer;
use crate::types::Chunks;

pub(crate) const FORMAT_VERSION: u16 = 1;
pub(crate) const FRAME_HEADER_BYTES: usize = 12;
const HEADER_BYTES: usize = 84 + LOCK_BYTES;
/// Both copies of the header; the first frame follows.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 2 * HEADER_BYTES;
const LOCK_BYTES: usize = 8 + SALT_LEN + CHECK_LEN;
pub(crate) const TRAILER_BYTES: usize = 16 + LOCK_BYTES;

/// Larger sealed payloads are not written and not believed. The largest are orders to purge many chunks.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 64 << 20;

/// Of these so much is payload.
pub(crate) const PLAIN_BYTES_MAX: usize = PAYLOAD_BYTES_MAX - TAG_LEN;

/// Largest chunk: chunking cuts at 64 KiB, the rest is room for other cutters.
pub(crate) const CHUNK_BYTES_MAX: usize = 1 << 20;

/// No journal has so many entries: a higher position is no position.
const POSITION_MAX: u64 = 1 << 62;

const MAGIC: &[u8; 8] = b"HOLDFSEG";
const SEAL: &[u8; 4] = b"SEAL";
pub(crate) const MARKER: [u8; 2] = [0x9e, 0x48];

/// Behind so many bytes the header is repeated: what a disk gives up at once.
pub(crate) const HEADER_AGAIN_FROM: u64 = 4 << 10;

/// Bytes as a hash chain value.
pub(crate) type Chain = [u8; 32];

pub(crate) fn link_chain(chain: &Chain, hash: &EntryHash) -> Chain {
    *blake3::Hasher::new().update(chain).update(&hash.0).finalize().as_bytes()
}

/// How a segment is sealed, and what tells the right key from a wrong one. Stands in the clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lock {
    pub(crate) algorithm: u8,
    pub(crate) key: KeyNumber,
    pub(crate) salt: [u8; SALT_LEN],
    pub(crate) check: [u8; CHECK_LEN],
}

impl Lock {
    /// The algorithm of segments that are not sealed; they are for tests and tools.
    pub(crate) const NONE: u8 = 0;
    /// AES-256-GCM-SIV (RFC 8452).
    pub(crate) const GCM_SIV: u8 = 1;

    /// Not sealed.
    pub(crate) const PLAIN: Self =
        Self { algorithm: Self::NONE, key: KeyNumber(0), salt: [0; SALT_LEN], check: [0; CHECK_LEN] };

    fn push(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.algorithm, 0, 0, 0]);
        out.extend_from_slice(&self.key.0.to_le_bytes());
        out.extend_from_slice(&self.salt);
        out.extend_from_slice(&self.check);
    }

    fn take(fields: &mut Fields<'_>) -> Option<Self> {
        let [algorithm, _, _, _] = fields.array()?;
        let key = KeyNumber(u32::from_le_bytes(fields.array()?));
        Some(Self { algorithm, key, salt: fields.array()?, check: fields.array()? })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) version: u16,
    pub(crate) segment: u32,
    pub(crate) node: NodeId,
    pub(crate) first_pos: u64,
    pub(crate) chain: Chain,
    pub(crate) created: UnixMillis,
    pub(crate) lock: Lock,
}

impl SegmentHeader {
    /// Both copies with which a segment begins.
    pub(crate) fn encode(&self) -> Vec<u8> {
        self.encode_copy().repeat(2)
    }

    /// One copy.
    pub(crate) fn encode_copy(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&self.segment.to_le_bytes());
        out.extend_from_slice(&self.node.0);
        out.extend_from_slice(&self.first_pos.to_le_bytes());
        out.extend_from_slice(&self.chain);
        out.extend_from_slice(&self.created.0.to_le_bytes());
        self.lock.push(&mut out);
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// The bytes where a header, whole or not, names its node.
    pub(crate) fn node_stamps(bytes: &[u8]) -> [Option<NodeId>; 2] {
        [16, HEADER_BYTES + 16].map(|at| bytes.get(at..at + 16)?.try_into().ok().map(NodeId))
    }

    /// The header, from whichever copy is whole, and the offset and length of what is not.
    pub(crate) fn decode(bytes: &[u8]) -> (Option<Self>, Option<(u64, u64)>) {
        let (first, second) = bytes.split_at(bytes.len().min(HEADER_BYTES));
        let len = HEADER_BYTES as u64;
        match (Self::decode_copy(first), Self::decode_copy(second)) {
            (Some(header), Some(same)) if header == same => (Some(header), None),
            (Some(header), _) => (Some(header), Some((len, len))),
            (None, Some(header)) => (Some(header), Some((0, len))),
            (None, None) => (None, Some((0, 2 * len))),
        }
    }

    pub(crate) fn decode_copy(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes.get(..HEADER_BYTES)?);
        let crc = crc32c::crc32c(&bytes[..HEADER_BYTES - 4]);
        if fields.take(8)? != MAGIC {
            return None;
        }
        let version = u16::from_le_bytes(fields.array()?);
        fields.take(2)?;
        let header = Self {
            version,
            segment: u32::from_le_bytes(fields.array()?),
            node: NodeId(fields.array()?),
            first_pos: fields.u64()?,
            chain: fields.array()?,
            created: UnixMillis(i64::from_le_bytes(fields.array()?)),
            lock: Lock::take(&mut fields)?,
        };
        (u32::from_le_bytes(fields.array()?) == crc || is(Mutation::SkipHeaderCrc)).then_some(header)
    }
}

/// The first bytes of a frame, not yet proven.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameHead {
    pub(crate) kind: u8,
    /// Length of the sealed payload.
    pub(crate) len: u32,
    pub(crate) crc: u32,
}

impl FrameHead {
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        if fields.take(2)? != MARKER {
            return None;
        }
        let [kind, zero] = fields.array()?;
        let len = u32::from_le_bytes(fields.array()?);
        let crc = u32::from_le_bytes(fields.array()?);
        (zero == 0 && len as usize <= PAYLOAD_BYTES_MAX).then_some(Self { kind, len, crc })
    }
}

/// First byte of a frame, for the search after a damaged place.
pub(crate) const MARKER_FIRST: u8 = MARKER[0];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum FrameKind {
    Entry = 1,
    Chunk = 2,
    ChunksNeeded = 3,
    EpochOpened = 4,
    Consumer = 5,
    ConsumerRemoved = 6,
    Received = 7,
    Renumbered = 8,
    Trimmed = 9,
    Snapshot = 10,
    Footer = 11,
    Hold = 12,
    PurgedEntry = 13,
    PurgedChunk = 14,
    Restored = 15,
    DamageNote = 16,
    Rows = 17,
    Purge = 18,
    PurgedRestored = 19,
    Header = 20,
    Lanes = 24,
}

impl FrameKind {
    const ALL: [Self; 21] = [
        Self::Entry,
        Self::Chunk,
        Self::ChunksNeeded,
        Self::EpochOpened,
        Self::Consumer,
        Self::ConsumerRemoved,
        Self::Received,
        Self::Renumbered,
        Self::Trimmed,
        Self::Snapshot,
        Self::Footer,
        Self::Hold,
        Self::PurgedEntry,
        Self::PurgedChunk,
        Self::Rows,
        Self::Restored,
        Self::DamageNote,
        Self::Purge,
        Self::PurgedRestored,
        Self::Header,
        Self::Lanes,
    ];

    /// Does a frame of this kind stand in the clear? It says how the others are opened.
    pub(crate) fn is_clear(kind: u8) -> bool {
        kind == Self::Header as u8
    }

    /// Does a frame of this kind hold an entry?
    pub(crate) fn is_entry(kind: u8) -> bool {
        kind == Self::Entry as u8 || kind == Self::Restored as u8
    }

    /// Is the hash of such a frame's entry part of the chain?
    pub(crate) fn is_chained(kind: u8) -> bool {
        Self::is_entry(kind) || kind == Self::PurgedEntry as u8 || kind == Self::PurgedRestored as u8
    }

    /// Is a frame of the other kind read where this one is asked for? Restored entries are entries.
    pub(crate) fn covers(self, kind: u8) -> bool {
        self as u8 == kind || (self == Self::Entry && Self::is_entry(kind))
    }

    fn from_number(n: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|k| *k as u8 == n)
    }
}

/// What follows the footer: where that begins, and the lock once more, should both headers be lost.
pub(crate) fn encode_trailer(footer_offset: u64, lock: &Lock) -> Vec<u8> {
    let mut out = Vec::with_capacity(TRAILER_BYTES);
    out.extend_from_slice(&footer_offset.to_le_bytes());
    lock.push(&mut out);
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(SEAL);
    out
}

/// Offset of the footer and the lock, when the bytes are a trailer.
pub(crate) fn decode_trailer(bytes: &[u8]) -> Option<(u64, Lock)> {
    let mut fields = Fields(bytes);
    let crc = crc32c::crc32c(bytes.get(..TRAILER_BYTES - 8)?);
    let offset = fields.u64()?;
    let lock = Lock::take(&mut fields)?;
    let good = u32::from_le_bytes(fields.array()?) == crc || is(Mutation::SkipFooterCheck);
    (good && fields.0 == SEAL).then_some((offset, lock))
}

/// A frame's meaning. Of entries only the header is kept.
#[derive(Clone, Debug)]
pub(crate) enum Record {
    Entry(Box<EntryRecord>),
    Chunk {
        name: ChunkName,
        /// Needed to read it.
        base: Option<ChunkName>,
    },
    /// Prints of their names.
    ChunksNeeded(Vec<u64>),
    EpochOpened(EpochOpened),
    Consumer(Box<ConsumerFrame>),
    ConsumerRemoved(String),
    Received(ReceivedFrame),
    Renumbered(RenumberedFrame),
    Trimmed(u32),
    Snapshot(SnapshotFrame),
    Rows,
    Footer,
    Hold(Box<HoldFrame>),
    Restored(Box<EntryRecord>),
    DamageNote(DamageNote),
    /// Accounted for and ordered as the entry that it was.
    PurgedEntry(Box<EntryRecord>),
    PurgedChunk,
    /// Left of a restored entry.
    PurgedRestored(Box<EntryRecord>),
    Purge(Box<PurgeFrame>),
    Header,
    Lanes(Vec<LaneHead>),
}

impl Record {
    /// The hash that the record adds to the chain.
    pub(crate) fn chained(&self) -> Option<&EntryHash> {
        match self {
            Self::Entry(entry) | Self::Restored(entry) | Self::PurgedEntry(entry) | Self::PurgedRestored(entry) => {
                Some(&entry.hash)
            }
            Self::Chunk { .. }
            | Self::ChunksNeeded(_)
            | Self::EpochOpened(_)
            | Self::Consumer(_)
            | Self::ConsumerRemoved(_)
            | Self::Received(_)
            | Self::Renumbered(_)
            | Self::Trimmed(_)
            | Self::Snapshot(_)
            | Self::Rows
            | Self::Footer
            | Self::Hold(_)
            | Self::DamageNote(_)
            | Self::PurgedChunk
            | Self::Purge(_)
            | Self::Header
            | Self::Lanes(_) => None,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct EntryRecord {
    pub(crate) pos: u64,
    pub(crate) own: bool,
    pub(crate) class: Precedence,
    pub(crate) hash: EntryHash,
    pub(crate) object: Option<ObjectKey>,
    pub(crate) chunks: Option<Chunks>,
    pub(crate) header: Header,
    /// Encoded size of the entry.
    pub(crate) bytes: u32,
}

impl EntryRecord {
    /// All that must cross for this entry: itself, and the content of its chunks as if the peer had none of them.
    pub(crate) fn bytes_to_send(&self) -> u64 {
        self.chunks.map_or(0, |c| c.content_bytes).saturating_add(u64::from(self.bytes))
    }
}

/// A frame of an entry without the entry itself, and where that begins in the payload.
#[derive(Clone, Debug)]
pub(crate) struct EntryPrefix {
    pub(crate) pos: u64,
    pub(crate) own: bool,
    pub(crate) class: Precedence,
    pub(crate) hash: EntryHash,
    pub(crate) object: Option<ObjectKey>,
    pub(crate) chunks: Option<Chunks>,
}

const OWN: u8 = 1;
const OBJECT: u8 = 2;
const CHUNKS: u8 = 4;

impl EntryPrefix {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let flags = if self.own { OWN } else { 0 }
            | if self.object.is_some() { OBJECT } else { 0 }
            | if self.chunks.is_some() { CHUNKS } else { 0 };
        let mut out = Vec::with_capacity(50);
        out.extend_from_slice(&self.pos.to_le_bytes());
        out.extend_from_slice(&[flags, self.class as u8]);
        out.extend_from_slice(&self.hash.0);
        out.extend(self.object.iter().flat_map(|key| key.0.to_le_bytes()));
        out.extend(self.chunks.iter().flat_map(|c| [c.since.0, c.content_bytes]).flat_map(|n| n.to_le_bytes()));
        out
    }

    /// The prefix, and the entry's bytes.
    pub(crate) fn decode(payload: &[u8]) -> Option<(Self, &[u8])> {
        let mut fields = Fields(payload);
        let pos = fields.u64().filter(|pos| *pos < POSITION_MAX)?;
        let [flags, class] = fields.array()?;
        let hash = EntryHash(fields.array()?);
        let object = if flags & OBJECT != 0 { Some(ObjectKey(fields.u64()?)) } else { None };
        let chunks = match flags & CHUNKS != 0 {
            true => Some(Chunks { since: LocalPos(fields.u64()?), content_bytes: fields.u64()? }),
            false => None,
        };
        let class = Precedence::from_index(class)?;
        Some((Self { pos, own: flags & OWN != 0, class, hash, object, chunks }, fields.0))
    }
}

/// zstd level of chunks.
const LEVEL: i32 = 3;

/// zstd level of chunks that are written from a base: there more effort finds more.
const LEVEL_FROM_BASE: i32 = 9;

/// A chunk's payload: name, encoding, plain length, packed bytes.
#[derive(Clone)]
pub(crate) struct PackedChunk {
    pub(crate) name: ChunkName,
    encoding: Encoding,
    plain_len: u32,
    packed: Vec<u8>,
}

#[derive(Clone, Copy)]
enum Encoding {
    Raw,
    Zstd,
    /// zstd, with the plain bytes of this chunk before it.
    From(ChunkName),
}

impl Encoding {
    fn base(self) -> Option<ChunkName> {
        match self {
            Self::Raw | Self::Zstd => None,
            Self::From(base) => Some(base),
        }
    }
}

impl PackedChunk {
    /// Compresses where that saves at least an eighth; less is not worth unpacking at each read. What looks like noise
    /// is not even tried: pictures and video cost no time.
    pub(crate) fn pack(name: ChunkName, plain: &[u8]) -> Self {
        let plain_len = plain.len() as u32;
        let packed = wire::compress::may_shrink(plain).then(|| wire::compress(plain, LEVEL));
        match packed.filter(|packed| packed.len() <= plain.len() / 8 * 7) {
            Some(packed) => Self { name, encoding: Encoding::Zstd, plain_len, packed },
            None => Self { name, encoding: Encoding::Raw, plain_len, packed: plain.to_vec() },
        }
    }

    /// Compresses as what differs from a base; `quickly` finds long equal stretches and little else.
    pub(crate) fn pack_from(name: ChunkName, plain: &[u8], base: &Base, quickly: bool) -> Option<Self> {
        let level = if quickly { 1 } else { LEVEL_FROM_BASE };
        let packed = wire::compress::compress_from(plain, &base.bytes, level)?;
        Some(Self { name, encoding: Encoding::From(base.name), plain_len: plain.len() as u32, packed })
    }

    /// The chunk without which this one cannot be read.
    pub(crate) fn base(&self) -> Option<ChunkName> {
        self.encoding.base()
    }

    /// Is it compressed?
    pub(crate) fn is_squeezed(&self) -> bool {
        !matches!(self.encoding, Encoding::Raw)
    }

    /// Is it shorter than the same chunk packed otherwise, by as much as pays for reading its base?
    pub(crate) fn pays_beside(&self, other: &Self) -> bool {
        self.bytes() <= other.bytes() / 8 * 7
    }

    pub(crate) fn bytes(&self) -> usize {
        self.packed.len() + ChunkName::LEN * (1 + usize::from(self.base().is_some())) + 5
    }

    pub(crate) fn push(&self, sealer: &Sealer, out: &mut Vec<u8>, at: u64) -> u64 {
        let len = self.plain_len.to_le_bytes();
        let (encoding, base): (u8, &[u8]) = match &self.encoding {
            Encoding::Raw => (0, &[]),
            Encoding::Zstd => (1, &[]),
            Encoding::From(base) => (2, &base.0),
        };
        sealer.push(out, at, FrameKind::Chunk, &[&self.name.0, &[encoding], &len, base, &self.packed])
    }

    pub(crate) fn decode(payload: &[u8]) -> Option<Self> {
        let (name, encoding, plain_len, packed) = Self::fields(payload)?;
        let fits = plain_len as usize <= CHUNK_BYTES_MAX;
        fits.then(|| Self { name, encoding, plain_len, packed: packed.to_vec() })
    }

    /// Its name and that of its base.
    pub(crate) fn names(payload: &[u8]) -> Option<(ChunkName, Option<ChunkName>)> {
        let (name, encoding, ..) = Self::fields(payload)?;
        Some((name, encoding.base()))
    }

    fn fields(payload: &[u8]) -> Option<(ChunkName, Encoding, u32, &[u8])> {
        let mut fields = Fields(payload);
        let name = ChunkName(fields.array()?);
        let [encoding] = fields.array()?;
        let plain_len = u32::from_le_bytes(fields.array()?);
        let encoding = match encoding {
            0 => Encoding::Raw,
            1 => Encoding::Zstd,
            2 => Encoding::From(ChunkName(fields.array()?)),
            _ => return None,
        };
        Some((name, encoding, plain_len, fields.0))
    }

    /// The plain bytes, where the chunk has a base from its plain bytes; `None` when they do not unpack to their length.
    pub(crate) fn unpack(self, base: &[u8]) -> Option<Vec<u8>> {
        let len = self.plain_len as usize;
        let plain = match self.encoding {
            Encoding::Raw => self.packed,
            Encoding::Zstd => zstd::bulk::decompress(&self.packed, len).ok()?,
            Encoding::From(_) => wire::compress::decompress_from_capped(&self.packed, base, len).ok()?,
        };
        (plain.len() == len).then_some(plain)
    }
}

#[derive(Clone, Copy, Debug, Encode, Decode)]
pub(crate) struct EpochOpened {
    #[n(0)]
    pub(crate) epoch: Epoch,
    /// [`crate::EpochReason`] as its number.
    #[n(1)]
    pub(crate) reason: u8,
    /// Last number of the epoch before; 0 for none.
    #[n(2)]
    pub(crate) previous_last: u64,
    /// Position of the next entry: those that damage hid were passed over, and who keeps a position elsewhere may have gone past
    /// them with the first look.
    #[n(3)]
    pub(crate) next_pos: u64,
}

/// A range set of any size: [`RangeSet`] refuses to decode more than a peer may send, our own may be larger.
pub(crate) type Pieces = Vec<RangeSet>;

pub(crate) fn split(set: &RangeSet) -> Pieces {
    let mut pieces = vec![RangeSet::new()];
    for range in set.iter() {
        if pieces.last().is_some_and(|piece| piece.ranges_len() >= RangeSet::RANGES_MAX) {
            pieces.push(RangeSet::new());
        }
        if let Some(piece) = pieces.last_mut() {
            piece.insert_range(range);
        }
    }
    pieces
}

pub(crate) fn join(pieces: &[RangeSet]) -> RangeSet {
    let mut set = RangeSet::new();
    pieces.iter().for_each(|piece| set.union_with(piece));
    set
}

/// Numbers are only ever added, so that a frame says what was added since the one before; a state of many ranges takes several
/// frames.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct ConsumerFrame {
    #[n(0)]
    pub(crate) name: String,
    #[n(1)]
    pub(crate) required: bool,
    #[n(2)]
    pub(crate) stored: BTreeMap<Epoch, Pieces>,
    /// For each epoch one set per outcome, in the order of `Outcome::ALL`.
    #[n(3)]
    pub(crate) outcomes: BTreeMap<Epoch, Vec<Pieces>>,
    #[n(4)]
    pub(crate) cursor: Option<LocalPos>,
    /// Entries of this segment and those before it are counted in `trimmed`.
    #[n(5)]
    pub(crate) trimmed_through: u32,
    /// By outcome, then by class.
    #[n(6)]
    pub(crate) trimmed: Vec<Vec<u64>>,
    /// Its cursor is over own entries too.
    #[n(7)]
    pub(crate) reads_all: bool,
    /// The consumer was registered here: what an earlier one of this name had is none of its state.
    #[n(8)]
    pub(crate) begins: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct ReceivedFrame {
    #[n(0)]
    pub(crate) origin: NodeId,
    #[n(1)]
    pub(crate) epoch: Epoch,
    #[n(2)]
    pub(crate) numbers: RangeSet,
}

#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct DamageNote {
    #[n(0)]
    pub(crate) lost: Vec<ReceivedFrame>,
}

#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct RenumberedFrame {
    #[n(0)]
    pub(crate) numbers: BTreeMap<Epoch, Pieces>,
}

#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct SnapshotFrame {
    /// How many frames of the group stand before this one.
    #[n(0)]
    pub(crate) group: u32,
    #[n(1)]
    pub(crate) epochs: Vec<EpochState>,
    #[n(2)]
    pub(crate) renumbered: BTreeMap<Epoch, Pieces>,
    #[n(3)]
    pub(crate) highest_source: Option<Hlc>,
    #[n(4)]
    pub(crate) next_pos: u64,
    #[n(5)]
    pub(crate) trimmed_through: u32,
    /// Own numbers whose entries were purged.
    #[n(6)]
    pub(crate) purged: BTreeMap<Epoch, Pieces>,
    /// Purged numbers of each other origin.
    #[n(7)]
    pub(crate) purged_foreign: Vec<ReceivedFrame>,
}

#[derive(Clone, Copy, Debug, Encode, Decode)]
pub(crate) struct EpochState {
    #[n(0)]
    pub(crate) epoch: Epoch,
    #[n(1)]
    pub(crate) reason: u8,
    #[n(2)]
    pub(crate) last: u64,
}

impl Record {
    /// What a frame's opened payload says; `None` for what this release does not know or cannot read.
    pub(crate) fn decode(kind: u8, payload: &[u8]) -> Option<Self> {
        let entry = || {
            let (prefix, bytes) = EntryPrefix::decode(payload)?;
            let EntryPrefix { pos, own, class, hash, object, chunks } = prefix;
            let header = wire::decode_entry(bytes).ok()?.header;
            let bytes = bytes.len() as u32;
            Some(Box::new(EntryRecord { pos, own, class, hash, object, chunks, header, bytes }))
        };
        Some(match FrameKind::from_number(kind)? {
            FrameKind::Entry => Self::Entry(entry()?),
            FrameKind::Restored => Self::Restored(entry()?),
            FrameKind::DamageNote => Self::DamageNote(minicbor::decode(payload).ok()?),
            FrameKind::PurgedRestored => Self::PurgedRestored(entry()?),
            FrameKind::Chunk => {
                let (name, base) = PackedChunk::names(payload)?;
                Self::Chunk { name, base }
            }
            FrameKind::ChunksNeeded => {
                let (prints, rest) = payload.as_chunks::<8>();
                rest.is_empty().then(|| Self::ChunksNeeded(prints.iter().map(|p| u64::from_be_bytes(*p)).collect()))?
            }
            FrameKind::EpochOpened => Self::EpochOpened(minicbor::decode(payload).ok()?),
            FrameKind::Consumer => Self::Consumer(minicbor::decode(payload).ok()?),
            FrameKind::ConsumerRemoved => Self::ConsumerRemoved(String::from_utf8(payload.to_vec()).ok()?),
            FrameKind::Received => Self::Received(minicbor::decode(payload).ok()?),
            FrameKind::Renumbered => Self::Renumbered(minicbor::decode(payload).ok()?),
            FrameKind::Trimmed => Self::Trimmed(u32::from_le_bytes(payload.try_into().ok()?)),
            FrameKind::Snapshot => Self::Snapshot(minicbor::decode(payload).ok()?),
            FrameKind::Rows => Self::Rows,
            FrameKind::Footer => Self::Footer,
            FrameKind::Hold => crate::holds::decode(payload)?,
            FrameKind::PurgedEntry => Self::PurgedEntry(entry()?),
            FrameKind::PurgedChunk => Self::PurgedChunk,
            FrameKind::Header => Self::Header,
            FrameKind::Lanes => Self::Lanes(crate::lanes::decode(payload)?),
            FrameKind::Purge => Self::Purge(minicbor::decode(payload).ok()?),
        })
    }
}

pub(crate) fn to_cbor<T: Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).expect("writing to a Vec cannot fail")
}

/// Takes fixed-size fields off the front.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.array()?))
    }
}

pub(crate) fn segment_name(segment: u32) -> String {
    format!("{segment:08}.seg")
}

pub(crate) fn segment_number(name: &str) -> Option<u32> {
    let number: u32 = name.strip_suffix(".seg")?.parse().ok()?;
    (segment_name(number) == name && number > 0).then_some(number)
}
