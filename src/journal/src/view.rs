//! What readers see: the durable log, in memory as summaries, on disk as frames.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use model::{
    ChunkName, DiskFile, Entry, EntryHash, EntryId, Epoch, LocalPos, NodeId, ObjectKey, Outcome, Precedence, RangeSet,
    SupersessionKey, UnixMillis,
};

use crate::error::ReadError;
use crate::file::Base;
use crate::format::{
    EntryPrefix, FRAME_HEADER_BYTES, FrameKind, HEADER_AGAIN_FROM, PackedChunk, Record, SEGMENT_HEADER_BYTES,
    SegmentHeader,
};
use crate::index::{Index, IndexError, MemoryIndex, Sealed, SledIndex, damaged_dir, move_aside};
use crate::pages::{Part, RowsAt};
use crate::quarantine::Quarantine;
use crate::scan::{Found, Scanner, Window, frame_at, is_of_place, what_of};
use crate::sealer::Sealer;
use crate::state::{Account, State};
use crate::summary::{
    Growing, Summary, Table, Tables, print_of_chunk, print_of_id, print_of_object, print_of_supersession,
};
use crate::types::{Accounting, Damage, Listed, Progress, Stats, Sums, Which};

/// A segment file that is open for reading.
#[derive(Clone)]
pub(crate) struct Segment {
    pub(crate) number: u32,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) sealer: Sealer,
    /// End of the durable frames; a footer lies behind.
    pub(crate) end: u64,
    /// Length of the file.
    pub(crate) bytes: u64,
    pub(crate) summary: Summary,
    pub(crate) rows: RowsAt,
}

impl Segment {
    pub(crate) fn window(&self) -> Window {
        Window {
            segment: self.number,
            file: Arc::clone(&self.file),
            sealer: self.sealer.clone(),
            start: SEGMENT_HEADER_BYTES as u64,
            end: self.end,
        }
    }

    pub(crate) fn sealed(&self) -> Sealed {
        let salt = self.sealer.lock().map_or_else(Default::default, |lock| lock.salt);
        Sealed { segment: self.number, end: self.end, salt }
    }
}

/// The segment that grows.
pub(crate) struct Tail {
    pub(crate) number: u32,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) sealer: Sealer,
    /// End of the durable frames.
    pub(crate) end: u64,
    /// Length of the file. From `end` on it holds zeros, so that a write there changes neither its length nor where it lies,
    /// and a sync has nothing but the data to write.
    pub(crate) reach: u64,
    pub(crate) growing: Growing,
    /// To be repeated in it; `None` when no copy was whole.
    pub(crate) header: Option<SegmentHeader>,
}

impl Tail {
    /// What has to be repeated in a write that ends there.
    pub(crate) fn header_due(&self, end: u64) -> Option<Vec<u8>> {
        let is_due = end >= HEADER_AGAIN_FROM && !self.growing.has_header;
        self.header.as_ref().filter(|_| is_due).map(SegmentHeader::encode_copy)
    }

    pub(crate) fn window(&self) -> Window {
        Window {
            segment: self.number,
            file: Arc::clone(&self.file),
            sealer: self.sealer.clone(),
            start: SEGMENT_HEADER_BYTES as u64,
            end: self.end,
        }
    }
}

pub(crate) struct View {
    pub(crate) sealed: BTreeMap<u32, Arc<Segment>>,
    pub(crate) tail: Tail,
    pub(crate) state: State,
    pub(crate) stopped: Option<String>,
}

impl View {
    /// Number and summary of every segment, oldest first.
    pub(crate) fn summaries(&self) -> impl DoubleEndedIterator<Item = (u32, &Summary)> {
        let tail = (self.tail.number, &self.tail.growing.summary);
        self.sealed.values().map(|s| (s.number, &s.summary)).chain([tail])
    }

    /// Every segment for the accounts, oldest first.
    pub(crate) fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        self.sealed.values().map(|segment| Part::Sealed(segment)).chain([Part::Tail(&self.tail)])
    }

    /// Bytes in segment files, without the zeros behind the last frame.
    pub(crate) fn bytes(&self) -> u64 {
        self.sealed.values().map(|s| s.bytes).sum::<u64>() + self.tail.end
    }

    /// A durable record at the end of the log; the chain is for who wrote it.
    pub(crate) fn apply(&mut self, record: &Record, offset: u64) {
        let state = &self.state;
        self.tail.growing.note_linked(record, offset, |epoch| state.own_last(epoch));
        self.state.apply(record);
        if let Record::Restored(entry) = record {
            let id = entry.header.id;
            let number = RangeSet::from(id.seq.get()..=id.seq.get());
            self.set_readable(&[(id.epoch, number)].into(), true);
        }
    }

    /// Counts every consumer's sums from scratch.
    pub(crate) fn recount(&mut self) {
        let mut accounts = std::mem::take(&mut self.state.consumers);
        accounts.values_mut().for_each(|account| account.recount(self.parts()));
        self.state.consumers = accounts;
    }

    /// Own numbers that were given up, or purged, end so for every consumer.
    pub(crate) fn end_for_all(&mut self, outcome: Outcome, sets: &[(Epoch, RangeSet)]) {
        let mut accounts = std::mem::take(&mut self.state.consumers);
        for account in accounts.values_mut() {
            for (epoch, set) in sets {
                account.record(outcome, *epoch, set, self.parts());
            }
        }
        self.state.consumers = accounts;
    }

    /// The first segment after `after` that may hold what `wanted` asks for at or after `from`, with the place in it, and
    /// whether it is the one that grows.
    fn window_after(&self, after: u32, from: u64, wanted: impl Fn(&Summary) -> bool) -> Option<(Window, bool)> {
        let is_wanted = |summary: &Summary| summary.next_pos > from && wanted(summary);
        let narrowed = |mut window: Window, summary: &Summary| {
            window.start = summary.offset_before(from).unwrap_or(window.start);
            window
        };
        let sealed = self.sealed.range(after.saturating_add(1)..).map(|(_, s)| s).find(|s| is_wanted(&s.summary));
        sealed.map(|s| (narrowed(s.window(), &s.summary), false)).or_else(|| {
            let tail = &self.tail;
            let fits = tail.number > after && is_wanted(&tail.growing.summary);
            fits.then(|| (narrowed(tail.window(), &tail.growing.summary), true))
        })
    }

    pub(crate) fn accounting(&self, account: &Account) -> Accounting {
        let mut accepted: [u64; 5] = [0; 5];
        let mut bytes: [u64; 5] = [0; 5];
        for (_, summary) in self.summaries().filter(|(number, _)| *number > account.trimmed_through) {
            for (class, sum) in summary.classes.iter().enumerate() {
                accepted[class] += sum.count;
                bytes[class] += sum.bytes;
            }
        }
        let counted = account.counted();
        let mut accounting = Accounting::default();
        for class in 0..5 {
            let of = |outcome: Outcome| {
                let i = outcome as usize - 1;
                counted.outcomes[i][class] + account.trimmed[i][class]
            };
            let trimmed: u64 = account.trimmed.iter().map(|by_class| by_class[class]).sum();
            let finals: u64 = Outcome::ALL.into_iter().map(of).sum();
            let accepted = accepted[class] + trimmed;
            let held = accepted.checked_sub(finals).expect("only numbers that were given out are counted as final");
            accounting.by_class[class] = Sums {
                accepted,
                held,
                applied: of(Outcome::Applied),
                quarantined: of(Outcome::Quarantined),
                expired: of(Outcome::Expired),
                superseded: of(Outcome::Superseded),
                withheld: of(Outcome::Withheld),
                purged: of(Outcome::Purged),
                stored: counted.stored[class],
                held_bytes: bytes[class].saturating_sub(counted.final_bytes[class]),
                oldest_held: None,
            };
        }
        accounting
    }

    /// The first readable own entry of the class (of any class for `None`) that is not final for the consumer.
    pub(crate) fn first_held(&self, account: &Account, class: Option<Precedence>) -> Option<(Epoch, u64)> {
        let fits = |of: &[u64; 5]| class.map_or(of.iter().sum(), |c| of[c.index()]);
        for part in self.parts() {
            let summary = part.summary();
            if fits(&account.held_in(part.number(), summary)) == 0 {
                continue;
            }
            for (i, page) in summary.pages.iter().enumerate().filter(|(_, page)| fits(&page.sums.count) > 0) {
                let held = account.held_numbers(summary, page);
                let found = match class.filter(|_| !held.is_empty() && fits(&page.sums.count) < u64::from(page.len)) {
                    None => held.first(),
                    Some(class) => {
                        let rows = part.rows(i);
                        held.numbers().find(|seq| rows[(seq - page.first) as usize].class() == class)
                    }
                };
                if let Some(seq) = found {
                    return Some((page.epoch, seq));
                }
            }
        }
        None
    }
}

/// The log behind the handles: what readers share with the committer.
pub(crate) struct Log {
    pub(crate) node: NodeId,
    pub(crate) limit_bytes: u64,
    view: RwLock<View>,
    /// `None` for the read-only reader, which reads segments instead.
    index: Option<Mutex<IndexSlot>>,
    /// Damaged places that were met; no more than [`DAMAGED_MAX`] are told apart.
    damaged: Mutex<BTreeSet<(u32, u64, bool)>>,
    /// How often it changed what is damaged, missed or asked for again.
    pub(crate) damage_changes: AtomicU64,
    /// `None` for readers that change nothing.
    pub(crate) quarantine: Option<Quarantine>,
}

/// The index, and which one it is, so that two threads that meet the same damage rebuild once.
pub(crate) struct IndexSlot {
    pub(crate) index: Box<dyn Index>,
    pub(crate) generation: u64,
    /// Where it lies; `None` for memory.
    pub(crate) dir: Option<PathBuf>,
}

/// How many bases one chunk is read through. Written from bases that have one at most, chunks come to more than two only
/// where a base was damaged and put again.
pub(crate) const BASES_MAX: u8 = 6;

/// How far around a chunk its neighbours are looked for: two of the largest, and what is written between them.
const NEARBY_BYTES: u64 = 192 << 10;

/// More damaged places than this are a disk to be replaced; 24 bytes each.
const DAMAGED_MAX: usize = 10_000;

/// An entry as it stands in the log.
pub(crate) struct Held {
    pub(crate) segment: u32,
    pub(crate) offset: u64,
    pub(crate) prefix: EntryPrefix,
    pub(crate) entry: Entry,
    pub(crate) bytes: Arc<[u8]>,
}

/// Where a chunk stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) segment: u32,
    pub(crate) offset: u64,
}

/// A frame and where it stands.
struct Located {
    segment: u32,
    offset: u64,
    kind: u8,
    payload: Vec<u8>,
}

pub(crate) fn failed(e: io::Error) -> ReadError {
    ReadError(e.to_string())
}

impl Log {
    pub(crate) fn new(node: NodeId, limit_bytes: u64, view: View, index: Option<IndexSlot>) -> Self {
        let index = index.map(Mutex::new);
        Self {
            node,
            limit_bytes,
            view: RwLock::new(view),
            index,
            damaged: Default::default(),
            damage_changes: AtomicU64::new(0),
            quarantine: None,
        }
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, View> {
        self.view.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `visit` for the entries at or after `from`, in order, until it says stop. `wanted` may leave segments out. What is
    /// appended once the walk has come to the newest segment is for the next one, all of it.
    pub(crate) fn walk(
        &self,
        from: u64,
        wanted: impl Fn(&Summary) -> bool,
        mut visit: impl FnMut(EntryPrefix, &[u8], u32, u64) -> Walk,
    ) -> Result<(), ReadError> {
        let mut after = 0;
        loop {
            let Some((window, is_last)) = self.read().window_after(after, from, &wanted) else { return Ok(()) };
            after = window.segment;
            let mut scanner = Scanner::only(window, FrameKind::Entry);
            while let Some(found) = scanner.next().map_err(failed)? {
                let (offset, payload) = match found {
                    Found::Frame { offset, kind: _, payload } => (offset, payload),
                    Found::Damaged { offset, bytes, unreadable } => {
                        self.note_damage(after, offset, bytes, unreadable)?;
                        continue;
                    }
                };
                let Some((prefix, bytes)) = EntryPrefix::decode(&payload) else { continue };
                if prefix.pos >= from && visit(prefix, bytes, after, offset) == Walk::Stop {
                    return Ok(());
                }
            }
            if is_last {
                // Sealed meanwhile it holds more than it did, and segments follow it.
                return Ok(());
            }
        }
    }

    /// The first time that a damaged place is met, it is reported, and own entries that cannot be read are accounted for.
    ///
    /// # Errors
    /// When the disk refuses the place, and takes no note of that either: the disk may be gone and the place be whole, so
    /// that nobody must go on as if there was nothing.
    pub(crate) fn note_damage(&self, segment: u32, offset: u64, bytes: u64, unreadable: bool) -> Result<(), ReadError> {
        // Damage in the segment that grows is accounted for when it is met again after that was sealed.
        let is_sealed = self.read().sealed.contains_key(&segment);
        let place = (segment, offset, is_sealed);
        let damaged = || self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut damaged = damaged();
            if damaged.len() >= DAMAGED_MAX || !damaged.insert(place) {
                return Ok(());
            }
        }
        tracing::warn!(segment, offset, "damaged place in the journal skipped; run `holdfast journal verify`");
        let measured = match is_sealed || !unreadable {
            true => self.measure(segment).map(drop),
            false => self.keep_aside(&[Damage { segment, offset, bytes, what: what_of(true) }], true),
        };
        if let Err(e) = measured {
            tracing::warn!(error = %e, segment, "the damage could not be measured");
            if unreadable {
                damaged().remove(&place);
                return Err(e);
            }
        }
        Ok(())
    }

    /// Offset of what the print names in a sealed segment.
    fn find(&self, segment: &Segment, table: Table, print: u64) -> Result<Option<u32>, ReadError> {
        let Some(index) = &self.index else { return find_by_reading(segment, table, print) };
        let (error, generation) = {
            let slot = lock(index);
            match slot.index.find(segment.sealed(), table, print) {
                Ok(found) => return Ok(found),
                Err(e) => (e, slot.generation),
            }
        };
        self.rebuild_index(&error, generation)?;
        let found = lock(index).index.find(segment.sealed(), table, print);
        found.or_else(|_| find_by_reading(segment, table, print))
    }

    /// Makes the index anew from the segments; in memory when the disk does not let us.
    fn rebuild_index(&self, why: &IndexError, generation: u64) -> Result<(), ReadError> {
        let Some(index) = &self.index else { return Ok(()) };
        let mut slot = lock(index);
        if slot.generation != generation {
            return Ok(());
        }
        tracing::warn!(?why, "rebuilding the journal's index from its segments; nothing is lost");
        let segments: Vec<_> = self.read().sealed.values().cloned().collect();
        match why {
            IndexError::Behind(number) => match slot.index.remove(*number) {
                Ok(()) => slot.cover(self.node, &segments, &mut |_| {}),
                Err(_) => slot.rebuild(self.node, &segments, &mut |_| {}),
            },
            IndexError::Broken(_) => slot.rebuild(self.node, &segments, &mut |_| {}),
        }
        .map_err(failed)
    }

    pub(crate) fn index_put(&self, segment: &Segment, tables: &Tables) {
        let Some(index) = &self.index else { return };
        let mut slot = lock(index);
        if let Err(e) = slot.index.put(segment.sealed(), tables) {
            // Found out again at the next lookup, which rebuilds.
            tracing::warn!(?e, "the journal's index took no new segment");
        }
    }

    pub(crate) fn index_remove(&self, segment: u32) {
        if let Some(index) = &self.index
            && let Err(e) = lock(index).index.remove(segment)
        {
            tracing::warn!(?e, "the journal's index kept a trimmed segment");
        }
    }

    /// Removes an index that was moved aside because of damage.
    pub(crate) fn remove_damaged_index(&self) -> io::Result<()> {
        let Some(index) = &self.index else { return Ok(()) };
        match lock(index).dir.as_deref().map(damaged_dir).map(std::fs::remove_dir_all) {
            Some(Err(e)) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// Does the index find the entry where it stands? For verify.
    pub(crate) fn index_agrees(&self, segment: &Segment, id: &EntryId, offset: u64) -> bool {
        let Some(index) = &self.index else { return true };
        let found = lock(index).index.find(segment.sealed(), Table::Ids, print_of_id(id));
        found == Ok(Some(offset as u32))
    }

    /// The frame that the print names: in the tail, else in the newest (or oldest) sealed segment that passes `wanted`.
    fn frame(
        &self,
        table: Table,
        print: u64,
        oldest_first: bool,
        wanted: impl Fn(&Summary) -> bool,
    ) -> Result<Option<Located>, ReadError> {
        let (tail, mut segments) = {
            let view = self.read();
            let offset = view.tail.growing.tables.get(table, print);
            let tail = offset.map(|offset| (view.tail.window(), offset));
            let sealed = view.sealed.values().filter(|s| wanted(&s.summary));
            (tail, sealed.cloned().collect::<Vec<_>>())
        };
        let read = |window: &Window, offset: u32| -> Result<_, ReadError> {
            let (segment, offset) = (window.segment, u64::from(offset));
            let frame = match frame_at(window, offset) {
                Err(e) if is_of_place(&e) => {
                    self.note_damage(segment, offset, FRAME_HEADER_BYTES as u64, true)?;
                    None
                }
                read => read.map_err(failed)?,
            };
            Ok(frame.map(|(kind, payload)| Located { segment, offset, kind, payload }))
        };
        if !oldest_first {
            segments.reverse();
            if let Some((window, offset)) = &tail
                && let Some(frame) = read(window, *offset)?
            {
                return Ok(Some(frame));
            }
        }
        for segment in segments {
            if let Some(offset) = self.find(&segment, table, print)? {
                match read(&segment.window(), offset)? {
                    Some(frame) => return Ok(Some(frame)),
                    None => {
                        self.note_damage(segment.number, u64::from(offset), FRAME_HEADER_BYTES as u64, false)?;
                    }
                }
            }
        }
        match tail {
            Some((window, offset)) if oldest_first => read(&window, offset),
            _ => Ok(None),
        }
    }

    fn held(&self, frame: Option<Located>) -> Option<Held> {
        let Located { segment, offset, kind: _, payload } = frame.filter(|f| FrameKind::is_entry(f.kind))?;
        let (prefix, bytes) = EntryPrefix::decode(&payload)?;
        let entry = wire::decode_entry(bytes).ok()?;
        Some(Held { segment, offset, prefix, entry, bytes: bytes.into() })
    }

    pub(crate) fn entry(&self, id: &EntryId) -> Result<Option<Held>, ReadError> {
        let own = id.origin == self.node;
        let wanted = |summary: &Summary| match own {
            true => summary.has_own(id.epoch, id.seq.get()) || summary.restored.contains_key(&id.epoch),
            false => summary.has_foreign(),
        };
        let held = self.held(self.frame(Table::Ids, print_of_id(id), false, wanted)?);
        Ok(held.filter(|held| held.entry.header.id == *id))
    }

    /// Hash of an entry that is held, or of which the purge left its place.
    pub(crate) fn hash_of(&self, id: &EntryId) -> Result<Option<EntryHash>, ReadError> {
        let frame = self.frame(Table::Ids, print_of_id(id), false, |summary| summary.entries > 0)?;
        let record = frame.and_then(|frame| Record::decode(frame.kind, &frame.payload));
        Ok(match record {
            Some(
                Record::Entry(entry)
                | Record::Restored(entry)
                | Record::PurgedEntry(entry)
                | Record::PurgedRestored(entry),
            ) if entry.header.id == *id => Some(entry.hash),
            _ => None,
        })
    }

    pub(crate) fn creator(&self, key: ObjectKey) -> Result<Option<EntryId>, ReadError> {
        let held = self
            .held(self.frame(Table::Objects, print_of_object(key), true, |s| s.entries > 0 || !s.restored.is_empty())?);
        Ok(held.filter(|held| held.prefix.object == Some(key)).map(|held| held.entry.header.id))
    }

    /// Position of the newest own entry with the key, looked for from `from` on.
    pub(crate) fn newest_with(&self, key: SupersessionKey, from: u64) -> Result<Option<u64>, ReadError> {
        let wanted = |summary: &Summary| summary.next_pos > from && !summary.pages.is_empty();
        let held = self.held(self.frame(Table::Supersedes, print_of_supersession(key), false, wanted)?);
        Ok(held.filter(|held| held.entry.header.supersedes == Some(key)).map(|held| held.prefix.pos))
    }

    /// A chunk as it is packed, and where.
    pub(crate) fn find_chunk(&self, name: &ChunkName) -> Result<Option<(Spot, PackedChunk)>, ReadError> {
        let frame = self.frame(Table::Chunks, print_of_chunk(name), false, |summary| summary.chunks > 0)?;
        let Some(frame) = frame.filter(|frame| frame.kind == FrameKind::Chunk as u8) else { return Ok(None) };
        let chunk = PackedChunk::decode(&frame.payload).filter(|chunk| chunk.name == *name);
        Ok(chunk.map(|chunk| (Spot { segment: frame.segment, offset: frame.offset }, chunk)))
    }

    /// Plain bytes of a chunk; `None` when it is not held whole.
    pub(crate) fn chunk(&self, name: &ChunkName) -> Result<Option<Vec<u8>>, ReadError> {
        match self.find_chunk(name)? {
            Some((_, chunk)) => self.unpack(chunk),
            None => Ok(None),
        }
    }

    /// Plain bytes of a chunk that was found; `None` when it is not whole, or its base is not.
    pub(crate) fn unpack(&self, chunk: PackedChunk) -> Result<Option<Vec<u8>>, ReadError> {
        self.unpack_within(chunk, BASES_MAX)
    }

    fn unpack_within(&self, chunk: PackedChunk, bases_max: u8) -> Result<Option<Vec<u8>>, ReadError> {
        let Some(base) = chunk.base() else { return Ok(chunk.unpack(&[])) };
        let Some(bases_max) = bases_max.checked_sub(1) else { return Ok(None) };
        let Some((_, base)) = self.find_chunk(&base)? else { return Ok(None) };
        Ok(self.unpack_within(base, bases_max)?.and_then(|base| chunk.unpack(&base)))
    }

    /// What another chunk may be written from if it is like this one: itself, or what it was written from where it has
    /// more bases than one.
    pub(crate) fn base_of(&self, chunk: PackedChunk) -> Result<Option<Base>, ReadError> {
        let mut chain = vec![chunk];
        while let Some(base) = chain.last().and_then(PackedChunk::base) {
            match self.find_chunk(&base)? {
                Some((_, base)) if chain.len() <= usize::from(BASES_MAX) => chain.push(base),
                Some(_) | None => return Ok(None),
            }
        }
        let chunk = chain.swap_remove(chain.len().saturating_sub(2));
        let name = chunk.name;
        Ok(self.unpack(chunk)?.map(|bytes| Base { name, bytes }))
    }

    /// The chunk that was written next after the one that stands there.
    pub(crate) fn chunk_after(&self, spot: Spot) -> Result<Option<(Spot, PackedChunk)>, ReadError> {
        let end = spot.offset.saturating_add(NEARBY_BYTES);
        let two = self.chunks_in(spot.segment, spot.offset, end, 2)?;
        if let Some(next) = two.into_iter().find(|(at, _)| *at != spot) {
            return Ok(Some(next));
        }
        // It may have been the last of its segment.
        Ok(self.chunks_in(spot.segment.saturating_add(1), 0, NEARBY_BYTES, 1)?.pop())
    }

    /// At most `max` chunks that were written last before the one that stands there.
    pub(crate) fn chunks_before(&self, spot: Spot, max: usize) -> Result<Vec<PackedChunk>, ReadError> {
        let from = spot.offset.saturating_sub(NEARBY_BYTES);
        let mut before = self.chunks_in(spot.segment, from, spot.offset, usize::MAX)?;
        Ok(before.drain(before.len().saturating_sub(max)..).map(|(_, chunk)| chunk).collect())
    }

    /// The chunk that stands there.
    pub(crate) fn chunk_at(&self, spot: Spot) -> Result<Option<PackedChunk>, ReadError> {
        let end = spot.offset.saturating_add(NEARBY_BYTES);
        let one = self.chunks_in(spot.segment, spot.offset, end, 1)?;
        Ok(one.into_iter().find(|(at, _)| *at == spot).map(|(_, chunk)| chunk))
    }

    fn chunks_in(&self, segment: u32, from: u64, to: u64, max: usize) -> Result<Vec<(Spot, PackedChunk)>, ReadError> {
        let window = {
            let view = self.read();
            match view.sealed.get(&segment) {
                Some(sealed) => sealed.window(),
                None if view.tail.number == segment => view.tail.window(),
                // Trimmed since.
                None => return Ok(Vec::new()),
            }
        };
        let window = Window { start: window.start.max(from), end: window.end.min(to), ..window };
        let mut scanner = Scanner::only(window, FrameKind::Chunk);
        let mut found = Vec::new();
        while found.len() < max
            && let Some(next) = scanner.next().map_err(failed)?
        {
            // A walk that begins or ends inside a frame meets the rest of it as damage.
            let Found::Frame { offset, kind: _, payload } = next else { continue };
            found.extend(PackedChunk::decode(&payload).map(|chunk| (Spot { segment, offset }, chunk)));
        }
        Ok(found)
    }

    /// Does the chunk, or a mark that it is needed, stand in the tail?
    pub(crate) fn tail_has_chunk(&self, name: &ChunkName) -> bool {
        let print = print_of_chunk(name);
        let view = self.read();
        let tables = &view.tail.growing.tables;
        tables.get(Table::Chunks, print).or(tables.get(Table::ChunksNeeded, print)).is_some()
    }

    /// Does a segment after `after` need the chunk, and hold no copy of it?
    pub(crate) fn chunk_is_needed_after(&self, after: u32, name: &ChunkName) -> Result<bool, ReadError> {
        let print = print_of_chunk(name);
        let (later, tail_needs, tail_holds) = {
            let view = self.read();
            let later: Vec<_> = view.sealed.range(after + 1..).map(|(_, s)| Arc::clone(s)).collect();
            let tables = &view.tail.growing.tables;
            (later, tables.get(Table::ChunksNeeded, print).is_some(), tables.get(Table::Chunks, print).is_some())
        };
        let mut needed = tail_needs;
        for segment in &later {
            if segment.summary.chunks > 0 && self.find(segment, Table::Chunks, print)?.is_some() {
                return Ok(false);
            }
            // A chunk that is written from it needs it without a mark.
            if !needed && segment.summary.chunks + segment.summary.chunks_needed > 0 {
                needed = self.find(segment, Table::ChunksNeeded, print)?.is_some();
            }
        }
        Ok(needed && !tail_holds)
    }

    pub(crate) fn list(&self, from: u64, to: u64, max: usize) -> Result<Vec<Listed>, ReadError> {
        let mut listed = Vec::new();
        if from >= to || max == 0 {
            return Ok(listed);
        }
        self.walk(
            from,
            |summary| summary.first_pos < to,
            |prefix, bytes, segment, offset| {
                if prefix.pos >= to {
                    return Walk::Stop;
                }
                if let Ok(entry) = wire::decode_entry(bytes) {
                    listed.push(Listed {
                        pos: LocalPos(prefix.pos),
                        entry: Arc::new(entry),
                        hash: prefix.hash,
                        bytes: bytes.len() as u64,
                        segment,
                        offset,
                    });
                }
                if listed.len() < max { Walk::On } else { Walk::Stop }
            },
        )?;
        Ok(listed)
    }

    pub(crate) fn show(&self, which: Which) -> Result<Option<Listed>, ReadError> {
        match which {
            Which::Pos(pos) => Ok(self.list(pos.0, pos.0.saturating_add(1), 1)?.pop()),
            Which::Id(id) => Ok(self.entry(&id)?.map(|held| Listed {
                pos: LocalPos(held.prefix.pos),
                entry: Arc::new(held.entry),
                hash: held.prefix.hash,
                bytes: held.bytes.len() as u64,
                segment: held.segment,
                offset: held.offset,
            })),
        }
    }

    pub(crate) fn accounting(&self, consumer: &str) -> Result<Option<Accounting>, ReadError> {
        let (mut accounting, oldest) = {
            let view = self.read();
            let Some(account) = view.state.consumers.get(consumer) else { return Ok(None) };
            let accounting = view.accounting(account);
            let oldest: Vec<_> = Precedence::ALL
                .into_iter()
                .filter(|class| accounting.by_class[class.index()].held > 0)
                .map(|class| (class, view.first_held(account, Some(class))))
                .collect();
            (accounting, oldest)
        };
        for (class, first) in oldest {
            let Some((epoch, seq)) = first.and_then(|(epoch, seq)| Some((epoch, model::Seq::new(seq)?))) else {
                continue;
            };
            let held = self.entry(&EntryId { origin: self.node, epoch, seq })?;
            accounting.by_class[class.index()].oldest_held = held.map(|held| held.entry.header.captured.millis());
        }
        accounting.total = accounting.by_class.iter().fold(Sums::default(), |a, b| a.plus(b));
        Ok(Some(accounting))
    }

    pub(crate) fn stats(&self) -> Stats {
        let view = self.read();
        let summaries = || view.summaries().map(|(_, summary)| summary);
        Stats {
            segments: view.sealed.len() as u32 + 1,
            bytes: view.bytes(),
            ahead_bytes: view.tail.reach - view.tail.end,
            limit_bytes: self.limit_bytes,
            entries: summaries().map(|s| s.entries).sum(),
            chunks: summaries().map(|s| s.chunks).sum(),
            head: view.state.next_pos,
            first: summaries().next().map_or(view.state.next_pos, |s| s.first_pos),
            epochs: view.state.own_epochs(),
            stopped: view.stopped.clone(),
            damaged: self.damaged.lock().unwrap_or_else(PoisonError::into_inner).len() as u64,
        }
    }
}

impl Sums {
    fn plus(self, other: &Self) -> Self {
        let earlier = |a: Option<UnixMillis>, b: Option<UnixMillis>| a.into_iter().chain(b).min();
        Self {
            accepted: self.accepted + other.accepted,
            held: self.held + other.held,
            applied: self.applied + other.applied,
            quarantined: self.quarantined + other.quarantined,
            expired: self.expired + other.expired,
            superseded: self.superseded + other.superseded,
            withheld: self.withheld + other.withheld,
            purged: self.purged + other.purged,
            stored: self.stored + other.stored,
            held_bytes: self.held_bytes + other.held_bytes,
            oldest_held: earlier(self.oldest_held, other.oldest_held),
        }
    }
}

/// Whether a walk goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Walk {
    On,
    Stop,
}

fn lock(index: &Mutex<IndexSlot>) -> MutexGuard<'_, IndexSlot> {
    index.lock().unwrap_or_else(PoisonError::into_inner)
}

impl IndexSlot {
    /// Indexes every sealed segment anew. A disk that lets no index be made gets one in memory.
    pub(crate) fn rebuild(
        &mut self,
        node: NodeId,
        segments: &[Arc<Segment>],
        progress: &mut dyn FnMut(Progress),
    ) -> io::Result<()> {
        self.generation += 1;
        self.index = Box::new(MemoryIndex::default());
        if let Some(dir) = &self.dir {
            let opened = move_aside(dir)
                .map_err(|e| e.to_string())
                .and_then(|()| SledIndex::open(dir, node).map_err(|e| format!("{e:?}")));
            match opened {
                Ok(index) => self.index = Box::new(index),
                Err(e) => tracing::warn!(e, "the journal's index is kept in memory until the next start"),
            }
        }
        if self.try_cover(segments, progress)? {
            return Ok(());
        }
        tracing::warn!("the journal's index is kept in memory until the next start");
        self.index = Box::new(MemoryIndex::default());
        self.dir = None;
        self.try_cover(segments, progress).map(|_| ())
    }

    /// Indexes the sealed segments that are not; all of them anew when the index takes none.
    pub(crate) fn cover(
        &mut self,
        node: NodeId,
        segments: &[Arc<Segment>],
        progress: &mut dyn FnMut(Progress),
    ) -> io::Result<()> {
        match self.try_cover(segments, progress)? {
            true => Ok(()),
            false => self.rebuild(node, segments, progress),
        }
    }

    /// False when the index takes no more.
    fn try_cover(&mut self, segments: &[Arc<Segment>], progress: &mut dyn FnMut(Progress)) -> io::Result<bool> {
        let total_bytes = segments.iter().map(|s| s.end).sum();
        let mut done_bytes = 0;
        for segment in segments {
            if self.index.covers(segment.sealed()) != Ok(true) {
                let growing = grow(segment)?;
                if let Err(e) = self.index.put(segment.sealed(), &growing.tables) {
                    tracing::warn!(?e, "the journal's index took no segment");
                    return Ok(false);
                }
            }
            done_bytes += segment.end;
            progress(Progress { done_bytes, total_bytes });
        }
        Ok(true)
    }
}

/// Summary and tables of a segment, by reading it.
pub(crate) fn grow(segment: &Segment) -> io::Result<Growing> {
    let mut growing = Growing::starting(segment.summary.first_pos, segment.summary.chain_start);
    let mut scanner = Scanner::new(segment.window());
    while let Some(found) = scanner.next()? {
        if let Found::Frame { offset, kind, payload } = found
            && let Some(record) = Record::decode(kind, &payload)
        {
            growing.note(&record, offset, |epoch| segment.summary.own_before(epoch));
        }
    }
    Ok(growing)
}

fn find_by_reading(segment: &Segment, table: Table, print: u64) -> Result<Option<u32>, ReadError> {
    Ok(grow(segment).map_err(failed)?.tables.get(table, print))
}
