//! What is known of a segment without reading it: written as its footer, held in memory while it exists.
//!
//! Memory: 4 bytes for each own entry that is held (its class and size, for the accounts), and 12 for each
//! 64 entries or 256 KiB (where positions stand). A journal of 4 GB full of 300-byte posts is some 55 MB.

use std::collections::HashMap;

use minicbor::{Decode, Encode};
use model::{ChunkName, EntryId, Epoch, ObjectKey, Precedence, RangeSet, Seq, SupersessionKey};

use crate::format::{Chain, Record, link_chain, to_cbor};

/// A position is noted at the first entry after so many entries or bytes.
const POSITION_ENTRIES: u64 = 64;
const POSITION_BYTES: u64 = 256 << 10;

#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Summary {
    /// Position that the first entry had or would have had.
    #[n(0)]
    pub(crate) first_pos: u64,
    /// Position after the last entry.
    #[n(1)]
    pub(crate) next_pos: u64,
    #[n(2)]
    pub(crate) entries: u64,
    #[n(3)]
    pub(crate) chunks: u64,
    #[n(4)]
    pub(crate) chunks_needed: u64,
    /// The lowest `chunks_since` of its entries: chunks from there on are kept as long as this segment.
    #[n(5)]
    pub(crate) chunks_since: Option<u64>,
    #[n(6)]
    pub(crate) chain_start: Chain,
    #[n(7)]
    pub(crate) chain_end: Chain,
    /// By class.
    #[n(8)]
    pub(crate) classes: Vec<ClassSummary>,
    /// Position and offset of some entries, ascending.
    #[n(9)]
    pub(crate) positions: Vec<(u64, u32)>,
    /// Own entries, ascending.
    #[n(10)]
    pub(crate) own: Vec<OwnRun>,
    /// Entries of other origins.
    #[n(11)]
    pub(crate) foreign: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct ClassSummary {
    /// Own entries, unreadable ones included.
    #[n(0)]
    pub(crate) count: u64,
    /// Sizes of own entries, as in [`OwnEntry`].
    #[n(1)]
    pub(crate) bytes: u64,
    /// First and last position of own entries; 0 for none.
    #[n(2)]
    pub(crate) first: u64,
    #[n(3)]
    pub(crate) last: u64,
}

/// Own entries with consecutive numbers.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct OwnRun {
    #[n(0)]
    pub(crate) epoch: Epoch,
    #[n(1)]
    pub(crate) first: u64,
    #[n(2)]
    pub(crate) entries: Vec<OwnEntry>,
}

/// An own entry in 32 bits: class (3), cannot be read (1), size in KiB instead of bytes (1), size (27) with the content
/// of its chunks. What has 128 MiB or more is rounded up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub(crate) struct OwnEntry(#[n(0)] u32);

impl OwnEntry {
    const CLASS_SHIFT: u32 = 29;
    const UNREADABLE: u32 = 1 << 28;
    const UNIT_SHIFT: u32 = 27;
    const UNIT: u64 = 1 << 10;
    const BYTES_MAX: u32 = (1 << Self::UNIT_SHIFT) - 1;

    fn new(class: Precedence, bytes: u64) -> Self {
        let unit = u64::from(bytes > u64::from(Self::BYTES_MAX));
        let size = match unit {
            0 => bytes,
            _ => bytes.div_ceil(Self::UNIT).min(u64::from(Self::BYTES_MAX)),
        };
        Self((class as u32) << Self::CLASS_SHIFT | (unit as u32) << Self::UNIT_SHIFT | size as u32)
    }

    /// A number that was given out and of which nothing is known. Counts as routine.
    fn lost() -> Self {
        Self::new(Precedence::Routine, 0).made_unreadable()
    }

    pub(crate) fn made_unreadable(self) -> Self {
        Self(self.0 | Self::UNREADABLE)
    }

    pub(crate) fn is_readable(self) -> bool {
        self.0 & Self::UNREADABLE == 0
    }

    pub(crate) fn class(self) -> Precedence {
        Precedence::from_index((self.0 >> Self::CLASS_SHIFT) as u8).unwrap_or(Precedence::Routine)
    }

    pub(crate) fn bytes(self) -> u64 {
        let unit = if self.0 >> Self::UNIT_SHIFT & 1 == 1 { Self::UNIT } else { 1 };
        u64::from(self.0 & Self::BYTES_MAX) * unit
    }
}

impl OwnRun {
    pub(crate) fn last(&self) -> u64 {
        self.first + self.entries.len() as u64 - 1
    }
}

impl Summary {
    pub(crate) fn starting(first_pos: u64, chain: Chain) -> Self {
        Self {
            first_pos,
            next_pos: first_pos,
            chain_start: chain,
            chain_end: chain,
            classes: vec![ClassSummary::default(); Precedence::ALL.len()],
            ..Self::default()
        }
    }

    /// As the footer's payload: plain length, then zstd.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let plain = to_cbor(self);
        let mut out = (plain.len() as u32).to_le_bytes().to_vec();
        out.extend(zstd::bulk::compress(&plain, 1).expect("compressing memory into memory has no way to fail"));
        out
    }

    pub(crate) fn decode(payload: &[u8]) -> Option<Self> {
        let (len, packed) = payload.split_first_chunk::<4>()?;
        let len = u32::from_le_bytes(*len) as usize;
        if len > crate::format::PAYLOAD_BYTES_MAX {
            return None;
        }
        let summary: Self = minicbor::decode(&zstd::bulk::decompress(packed, len).ok()?).ok()?;
        let whole = summary.classes.len() == Precedence::ALL.len() && summary.own.iter().all(|r| !r.entries.is_empty());
        whole.then_some(summary)
    }

    /// Takes an entry into account. `before` is the last number given out in its epoch as far as known, so that
    /// numbers whose entries could not be read are noted.
    fn note_own(&mut self, id: EntryId, class: Precedence, bytes: u64, pos: u64, before: u64) {
        let seq = id.seq.get();
        let entry = OwnEntry::new(class, bytes);
        let follows = self.own.last().filter(|run| run.epoch == id.epoch).map(OwnRun::last);
        let expected = follows.unwrap_or(before).max(before) + 1;
        // A jump larger than what damage can hide is a new start, not a list of lost entries.
        let lost = seq.saturating_sub(expected).min(LOST_MAX);
        match self.own.last_mut().filter(|run| run.epoch == id.epoch && run.last() + 1 + lost == seq) {
            Some(run) => {
                run.entries.extend(std::iter::repeat_n(OwnEntry::lost(), lost as usize));
                run.entries.push(entry);
            }
            None => {
                let mut entries = vec![OwnEntry::lost(); lost as usize];
                entries.push(entry);
                self.own.push(OwnRun { epoch: id.epoch, first: seq - lost, entries });
            }
        }
        self.classes[OwnEntry::lost().class().index()].count += lost;
        let sum = &mut self.classes[class.index()];
        sum.count += 1;
        sum.bytes += entry.bytes();
        sum.first = if sum.first == 0 { pos } else { sum.first };
        sum.last = pos;
    }

    /// The own entry with this number, if it stands here.
    pub(crate) fn own_entry(&self, epoch: Epoch, seq: u64) -> Option<OwnEntry> {
        self.own
            .iter()
            .filter(|run| run.epoch == epoch && run.first <= seq)
            .find_map(|run| run.entries.get((seq - run.first) as usize).copied())
    }

    pub(crate) fn has_foreign(&self) -> bool {
        self.foreign > 0
    }

    /// Own numbers whose entries cannot be read, by epoch.
    pub(crate) fn unreadable(&self) -> impl Iterator<Item = (Epoch, RangeSet)> {
        self.own.iter().filter_map(|run| {
            let bad = (run.first..).zip(&run.entries).filter(|(_, entry)| !entry.is_readable());
            let bad: RangeSet = bad.map(|(seq, _)| seq).collect();
            (!bad.is_empty()).then_some((run.epoch, bad))
        })
    }

    /// Marks as unreadable what `found`, the same segment read again, does not have. Returns whether that changed anything.
    pub(crate) fn mark_unreadable(&mut self, found: &Self) -> bool {
        let mut changed = false;
        for run in &mut self.own {
            for (seq, entry) in (run.first..).zip(&mut run.entries) {
                let gone = found.own_entry(run.epoch, seq).is_none_or(|found| !found.is_readable());
                if gone && entry.is_readable() {
                    *entry = entry.made_unreadable();
                    changed = true;
                }
            }
        }
        changed
    }

    /// Offset from which a walk meets every entry at or after `pos`; `None` for the beginning.
    pub(crate) fn offset_before(&self, pos: u64) -> Option<u64> {
        let after = self.positions.partition_point(|(at, _)| *at <= pos);
        after.checked_sub(1).map(|i| u64::from(self.positions[i].1))
    }
}

/// More lost numbers in one place than the smallest entries that fit into a segment cannot be damage.
const LOST_MAX: u64 = 1 << 20;

/// Which table of a segment's index. The numbers are part of the index's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Table {
    Ids = 0,
    Objects = 1,
    Supersedes = 2,
    Chunks = 3,
    ChunksNeeded = 4,
}

impl Table {
    pub(crate) const ALL: [Self; 5] = [Self::Ids, Self::Objects, Self::Supersedes, Self::Chunks, Self::ChunksNeeded];
}

/// Fingerprint -> offset, for one segment. Whoever follows an offset checks what stands there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tables([HashMap<u64, u32>; 5]);

impl Tables {
    pub(crate) fn get(&self, table: Table, print: u64) -> Option<u32> {
        self.0[table as usize].get(&print).copied()
    }

    /// Rows of a table, ascending.
    pub(crate) fn rows(&self, table: Table) -> Vec<(u64, u32)> {
        let mut rows: Vec<_> = self.0[table as usize].iter().map(|(k, v)| (*k, *v)).collect();
        rows.sort_unstable();
        rows
    }
}

pub(crate) fn print_of_id(id: &EntryId) -> u64 {
    let (a, b) = id.origin.0.split_at(8);
    let half = |bytes: &[u8]| bytes.iter().fold(0u64, |n, byte| n << 8 | u64::from(*byte));
    let numbers = u64::from(id.epoch.0).rotate_left(40) ^ id.seq.get();
    mix(mix(half(a) ^ numbers) ^ half(b))
}

pub(crate) fn print_of_object(key: ObjectKey) -> u64 {
    key.0
}

pub(crate) fn print_of_supersession(key: SupersessionKey) -> u64 {
    key.0
}

pub(crate) fn print_of_chunk(name: &ChunkName) -> u64 {
    name.0[1..9].iter().fold(0, |n, byte| n << 8 | u64::from(*byte))
}

/// Finalizer of SplitMix64 (Steele, Lea, Flood 2014): every input bit moves every output bit.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Grows summary and tables as records come.
#[derive(Clone, Debug)]
pub(crate) struct Growing {
    pub(crate) summary: Summary,
    pub(crate) tables: Tables,
}

impl Growing {
    pub(crate) fn starting(first_pos: u64, chain: Chain) -> Self {
        Self { summary: Summary::starting(first_pos, chain), tables: Tables::default() }
    }

    /// Takes the record at `offset` into account. `own_before` as in [`Summary::note_own`].
    pub(crate) fn note(&mut self, record: &Record, offset: u64, own_before: impl FnOnce(Epoch) -> Option<Seq>) {
        let offset = u32::try_from(offset).expect("segments are kept below 4 GiB");
        let [ids, objects, supersedes, chunks, chunks_needed] = &mut self.tables.0;
        let summary = &mut self.summary;
        match record {
            Record::Entry(entry) => {
                summary.entries += 1;
                summary.next_pos = summary.next_pos.max(entry.pos + 1);
                summary.chain_end = link_chain(&summary.chain_end, &entry.hash);
                if let Some(since) = entry.chunks.map(|c| c.since.0) {
                    summary.chunks_since = Some(summary.chunks_since.map_or(since, |s| s.min(since)));
                }
                let due = summary.positions.last().is_none_or(|(pos, at)| {
                    entry.pos >= pos + POSITION_ENTRIES || u64::from(offset - at) >= POSITION_BYTES
                });
                if due {
                    summary.positions.push((entry.pos, offset));
                }
                ids.entry(print_of_id(&entry.header.id)).or_insert(offset);
                if let Some(object) = entry.object {
                    objects.entry(print_of_object(object)).or_insert(offset);
                }
                if !entry.own {
                    summary.foreign += 1;
                } else {
                    if let Some(key) = entry.header.supersedes {
                        supersedes.insert(print_of_supersession(key), offset);
                    }
                    let id = entry.header.id;
                    let before = own_before(id.epoch).map_or(0, Seq::get);
                    summary.note_own(id, entry.class, entry.bytes_to_send(), entry.pos, before);
                }
            }
            Record::Chunk(name) => {
                summary.chunks += 1;
                chunks.insert(print_of_chunk(name), offset);
            }
            Record::ChunkNeeded(name) => {
                summary.chunks_needed += 1;
                chunks_needed.insert(print_of_chunk(name), offset);
            }
            Record::EpochOpened(_)
            | Record::Consumer(_)
            | Record::ConsumerRemoved(_)
            | Record::Received(_)
            | Record::Renumbered(_)
            | Record::Trimmed(_)
            | Record::Snapshot(_)
            | Record::Footer => {}
        }
    }
}
