//! What is known of a segment without reading it: written as its footer, held in memory while it exists.
//!
//! The summary is small: some 110 bytes for each page of own entries and 16 for each 64 KiB of the file. Class and size
//! of each own entry stand in frames of their own before the footer and are read when a page ended in part ([`crate::pages`]).

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::sync::Arc;

use foldhash::fast::RandomState;
use minicbor::{Decode, Encode};
use model::{ChunkName, EntryId, Epoch, LocalPos, ObjectKey, Precedence, RangeSet, Seq, SupersessionKey};

use crate::format::{Chain, Record, link_chain, to_cbor};
use crate::pages::{OwnEntry, PAGE_ENTRIES};

/// A position is noted at the first entry after so many bytes: a walk that begins at a position passes over no more.
const POSITION_BYTES: u64 = 64 << 10;

/// Larger summaries are not believed. One of a segment of 1 GiB full of the smallest entries has some 500 kB.
const SUMMARY_BYTES_MAX: usize = 8 << 20;

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
    pub(crate) classes: [ClassSummary; 5],
    /// Position and offset of some entries, ascending.
    #[n(9)]
    pub(crate) positions: Vec<(u64, u32)>,
    /// Own entries, ascending.
    #[n(10)]
    pub(crate) pages: Vec<Page>,
    /// Entries of other origins.
    #[n(11)]
    pub(crate) foreign: u64,
    /// Own numbers whose entries cannot be read.
    #[n(12)]
    pub(crate) unreadable: Numbers,
    /// Where the frames end and the footer begins; 0 while there is no footer.
    #[n(13)]
    pub(crate) end: u64,
    /// Own numbers whose entries stand here once more, since their first copies were damaged.
    #[n(14)]
    pub(crate) restored: Numbers,
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

/// Counts and sizes of entries by class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Tally {
    #[n(0)]
    pub(crate) count: [u64; 5],
    #[n(1)]
    pub(crate) bytes: [u64; 5],
}

impl Tally {
    pub(crate) fn of<'a>(rows: impl IntoIterator<Item = &'a OwnEntry>) -> Self {
        let mut tally = Self::default();
        rows.into_iter().for_each(|row| tally.note(*row));
        tally
    }

    fn note(&mut self, entry: OwnEntry) {
        let class = entry.class().index();
        self.count[class] += 1;
        self.bytes[class] += entry.bytes();
    }
}

/// Own entries with consecutive numbers, no more than [`PAGE_ENTRIES`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Page {
    #[n(0)]
    pub(crate) epoch: Epoch,
    #[n(1)]
    pub(crate) first: u64,
    #[n(2)]
    pub(crate) len: u32,
    /// Of all of them, unreadable ones included.
    #[n(3)]
    pub(crate) sums: Tally,
    /// Offset of the frame with their classes and sizes; 0 while there is none.
    #[n(4)]
    pub(crate) place: u32,
}

impl Page {
    pub(crate) fn last(&self) -> u64 {
        self.first + u64::from(self.len) - 1
    }

    pub(crate) fn range(&self) -> RangeInclusive<u64> {
        self.first..=self.last()
    }

    /// Does it say of itself what can be?
    fn is_sound(&self) -> bool {
        let count = self.sums.count.iter().try_fold(0, |sum: u64, n| sum.checked_add(*n));
        (1..=PAGE_ENTRIES as u32).contains(&self.len)
            && self.first > 0
            && self.first.checked_add(u64::from(self.len)).is_some()
            && count == Some(u64::from(self.len))
    }
}

impl Summary {
    pub(crate) fn starting(first_pos: u64, chain: Chain) -> Self {
        Self { first_pos, next_pos: first_pos, chain_start: chain, chain_end: chain, ..Self::default() }
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
        if len > SUMMARY_BYTES_MAX {
            return None;
        }
        let summary: Self = minicbor::decode(&zstd::bulk::decompress(packed, len).ok()?).ok()?;
        let mut sums = Tally::default();
        for page in summary.pages.iter() {
            if !page.is_sound() {
                return None;
            }
            for class in 0..5 {
                sums.count[class] = sums.count[class].checked_add(page.sums.count[class])?;
                sums.bytes[class] = sums.bytes[class].checked_add(page.sums.bytes[class])?;
            }
        }
        let agrees =
            |(class, of): (usize, &ClassSummary)| (of.count, of.bytes) == (sums.count[class], sums.bytes[class]);
        summary.classes.iter().enumerate().all(agrees).then_some(summary)
    }

    /// Takes an own entry into account.
    fn note_own(&mut self, epoch: Epoch, seq: u64, entry: OwnEntry) {
        let sum = &mut self.classes[entry.class().index()];
        sum.count += 1;
        sum.bytes += entry.bytes();
        let fits =
            |page: &&mut Page| page.epoch == epoch && page.last() + 1 == seq && (page.len as usize) < PAGE_ENTRIES;
        match self.pages.last_mut().filter(fits) {
            Some(page) => {
                page.len += 1;
                page.sums.note(entry);
            }
            None => self.pages.push(Page { epoch, first: seq, len: 1, sums: Tally::of([&entry]), place: 0 }),
        }
    }

    /// An own file stands here whose chunks begin at this position or behind it.
    fn note_chunks_since(&mut self, since: LocalPos) {
        self.chunks_since = Some(self.chunks_since.map_or(since.0, |known| known.min(since.0)));
    }

    /// Does the own number stand here, readable or not?
    pub(crate) fn has_own(&self, epoch: Epoch, seq: u64) -> bool {
        self.pages.iter().any(|page| page.epoch == epoch && page.range().contains(&seq))
    }

    /// The first own number of the epoch.
    pub(crate) fn first_own(&self, epoch: Epoch) -> Option<Seq> {
        self.pages.iter().find(|page| page.epoch == epoch).and_then(|page| Seq::new(page.first))
    }

    /// The last number before those of this epoch that stand here.
    pub(crate) fn own_before(&self, epoch: Epoch) -> Option<Seq> {
        self.first_own(epoch).and_then(|first| Seq::new(first.get() - 1))
    }

    pub(crate) fn has_foreign(&self) -> bool {
        self.foreign > 0
    }

    /// Of the numbers in the page those that `taken` leaves and that can be read.
    pub(crate) fn open_in<'a>(&self, page: &Page, taken: impl IntoIterator<Item = &'a RangeSet>) -> RangeSet {
        let open = taken.into_iter().fold(RangeSet::from(page.range()), |open, set| open.difference(set));
        match self.unreadable.get(&page.epoch) {
            Some(unreadable) => open.difference(unreadable),
            None => open,
        }
    }

    /// Marks as unreadable what `found`, the same segment read again, does not have. Returns whether that changed anything.
    pub(crate) fn mark_unreadable(&mut self, found: &Self) -> bool {
        let mut readable: BTreeMap<Epoch, RangeSet> = BTreeMap::new();
        for page in &found.pages {
            readable.entry(page.epoch).or_default().union_with(&found.open_in(page, []));
        }
        let mut changed = false;
        for page in &self.pages {
            let gone = self.open_in(page, readable.get(&page.epoch));
            if !gone.is_empty() {
                self.unreadable.entry(page.epoch).or_default().union_with(&gone);
                changed = true;
            }
        }
        changed
    }

    /// Own numbers whose entries can be read.
    pub(crate) fn readable_numbers(&self) -> Numbers {
        let mut numbers = Numbers::new();
        for page in &self.pages {
            numbers.entry(page.epoch).or_default().union_with(&self.open_in(page, []));
        }
        numbers
    }

    /// Marks those of the numbers that stand here.
    pub(crate) fn set_readable(&mut self, numbers: &Numbers, readable: bool) {
        for page in &self.pages {
            let Some(set) = numbers.get(&page.epoch) else { continue };
            let here = set.intersection(&RangeSet::from(page.range()));
            let unreadable = self.unreadable.entry(page.epoch).or_default();
            match readable {
                true => *unreadable = unreadable.difference(&here),
                false => unreadable.union_with(&here),
            }
        }
        self.unreadable.retain(|_, set| !set.is_empty());
    }

    /// Offset from which a walk meets every entry at or after `pos`; `None` for the beginning.
    pub(crate) fn offset_before(&self, pos: u64) -> Option<u64> {
        let after = self.positions.partition_point(|(at, _)| *at <= pos);
        after.checked_sub(1).map(|i| u64::from(self.positions[i].1))
    }
}

/// Own numbers by epoch.
pub(crate) type Numbers = BTreeMap<Epoch, RangeSet>;

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
pub(crate) struct Tables([HashMap<u64, u32, RandomState>; 5]);

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

/// Grows summary, pages and tables as records come.
#[derive(Clone, Debug)]
pub(crate) struct Growing {
    pub(crate) summary: Summary,
    /// Rows of each page of the summary.
    pub(crate) rows: Vec<Vec<OwnEntry>>,
    /// Shared while a sealed segment is put into the index.
    pub(crate) tables: Arc<Tables>,
    /// The header stands in it once more.
    pub(crate) has_header: bool,
}

impl Growing {
    pub(crate) fn starting(first_pos: u64, chain: Chain) -> Self {
        Self {
            summary: Summary::starting(first_pos, chain),
            rows: Vec::new(),
            tables: Arc::default(),
            has_header: false,
        }
    }

    fn push_own(&mut self, epoch: Epoch, seq: u64, entry: OwnEntry) {
        self.summary.note_own(epoch, seq, entry);
        self.rows.resize_with(self.summary.pages.len(), Vec::new);
        if let Some(rows) = self.rows.last_mut() {
            rows.push(entry);
        }
    }

    /// Takes an own entry into account. `before` is the last number given out in its epoch as far as known, so that
    /// numbers whose entries could not be read are noted.
    fn note_own(&mut self, id: EntryId, class: Precedence, bytes: u64, pos: u64, before: u64) {
        let seq = id.seq.get();
        let follows = self.summary.pages.last().filter(|page| page.epoch == id.epoch).map(Page::last);
        let expected = follows.unwrap_or(before).max(before) + 1;
        // A jump larger than what damage can hide is a new start, not a list of lost entries.
        let lost = seq.saturating_sub(expected).min(LOST_MAX);
        if lost > 0 {
            self.summary.unreadable.entry(id.epoch).or_default().insert_range(seq - lost..=seq - 1);
            // Files may have been among them, with chunks that stand anywhere before.
            self.summary.note_chunks_since(LocalPos::START);
        }
        (seq - lost..seq).for_each(|seq| self.push_own(id.epoch, seq, OwnEntry::lost()));
        self.push_own(id.epoch, seq, OwnEntry::new(class, bytes));
        let sum = &mut self.summary.classes[class.index()];
        sum.first = if sum.first == 0 { pos } else { sum.first };
        sum.last = pos;
    }

    /// Takes the record at `offset` into account. `own_before` tells the last number given out in an epoch.
    pub(crate) fn note(&mut self, record: &Record, offset: u64, own_before: impl FnOnce(Epoch) -> Option<Seq>) {
        if let Some(hash) = record.chained() {
            self.summary.chain_end = link_chain(&self.summary.chain_end, hash);
        }
        self.note_linked(record, offset, own_before);
    }

    /// As [`Growing::note`], for a record that is in the chain already.
    pub(crate) fn note_linked(&mut self, record: &Record, offset: u64, own_before: impl FnOnce(Epoch) -> Option<Seq>) {
        let offset = u32::try_from(offset).expect("segments are kept below 4 GiB");
        let [ids, objects, supersedes, chunks, chunks_needed] = &mut Arc::make_mut(&mut self.tables).0;
        let summary = &mut self.summary;
        match record {
            Record::Entry(entry) | Record::PurgedEntry(entry) => {
                let is_purged = matches!(record, Record::PurgedEntry(_));
                summary.entries += 1;
                summary.next_pos = summary.next_pos.max(entry.pos + 1);
                entry.chunks.into_iter().for_each(|chunks| summary.note_chunks_since(chunks.since));
                let due = |(_, at): &(u64, u32)| u64::from(offset - at) >= POSITION_BYTES;
                if summary.positions.last().is_none_or(due) {
                    summary.positions.push((entry.pos, offset));
                }
                // What was received again after damage stands behind its damaged copy.
                ids.insert(print_of_id(&entry.header.id), offset);
                if let Some(object) = entry.object.filter(|_| !is_purged) {
                    objects.entry(print_of_object(object)).or_insert(offset);
                }
                if !entry.own {
                    summary.foreign += 1;
                } else {
                    if let Some(key) = entry.header.supersedes.filter(|_| !is_purged) {
                        supersedes.insert(print_of_supersession(key), offset);
                    }
                    let id = entry.header.id;
                    let before = own_before(id.epoch).map_or(0, Seq::get);
                    self.note_own(id, entry.class, entry.bytes_to_send(), entry.pos, before);
                }
            }
            Record::Restored(entry) | Record::PurgedRestored(entry) => {
                summary.next_pos = summary.next_pos.max(entry.pos + 1);
                entry.chunks.into_iter().for_each(|chunks| summary.note_chunks_since(chunks.since));
                summary.positions.push((entry.pos, offset));
                ids.insert(print_of_id(&entry.header.id), offset);
                if let Some(object) = entry.object.filter(|_| matches!(record, Record::Restored(_))) {
                    objects.entry(print_of_object(object)).or_insert(offset);
                }
                // Counted where its first copy stood; a scan of its class has to come by here all the same.
                let class = &mut summary.classes[entry.class.index()];
                class.first = if class.first == 0 { entry.pos } else { class.first };
                class.last = entry.pos;
                summary.restored.entry(entry.header.id.epoch).or_default().insert(entry.header.id.seq.get());
            }
            Record::Chunk { name, base } => {
                summary.chunks += 1;
                chunks.insert(print_of_chunk(name), offset);
                if let Some(base) = base {
                    chunks_needed.insert(print_of_chunk(base), offset);
                }
            }
            // Its place is still counted, so that the footer needs no change.
            Record::PurgedChunk => summary.chunks += 1,
            Record::ChunksNeeded(prints) => {
                summary.chunks_needed += prints.len() as u64;
                for print in prints {
                    chunks_needed.insert(*print, offset);
                }
            }
            Record::EpochOpened(opened) => summary.next_pos = summary.next_pos.max(opened.next_pos),
            Record::Consumer(_)
            | Record::ConsumerRemoved(_)
            | Record::Received(_)
            | Record::Renumbered(_)
            | Record::Trimmed(_)
            | Record::Snapshot(_)
            | Record::Rows
            | Record::DamageNote(_)
            | Record::Hold(_)
            | Record::Purge(_)
            | Record::Lanes(_)
            | Record::Footer => {}
            Record::Header => self.has_header = true,
        }
    }
}
