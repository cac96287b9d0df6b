//! Takes content out of the log for good and leaves proof that it stood there.
//!
//! ```text
//! intent durable in the tail --> each sealed segment that holds some of it: new file beside it, fsync --> rename over
//!   (the tail is sealed first)     entry frame -> kind 13, body replaced by who, when, why       `--> fsync directory
//!                                  chunk frame -> kind 14, bytes replaced by zeros       --> done, durable in the tail
//! ```
//! A power cut leaves each segment as it was or as it will be, and the intent; open carries it out. Every frame keeps its
//! place and its length, so what points into a segment stays right, and so do sums and positions. The hash chain covers
//! entry hashes and still verifies; where the body was long enough the tombstone holds the body's hash, so that header
//! and hash can be checked against each other as before.
//!
//! Not here: which entries and chunks hold the content (apply), what a medium keeps of blocks that were freed
//! (docs/adr/0017).

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use minicbor::{Decode, Encode};
use model::{ChunkName, EntryHash, EntryId, Epoch, LocalPos, NodeId, RangeSet, UnixMillis};

use wire::entry::BodyHash;

use crate::committer::{Committer, disk_failed, lock};
use crate::error::AppendError;
use crate::format::{
    EntryPrefix, FrameKind, PLAIN_BYTES_MAX, PackedChunk, Pieces, ReceivedFrame, Record, join, segment_number, split,
    to_cbor,
};
use crate::journal::Journal;
use crate::load::segments_dir;
use crate::mutations::{Mutation, is, unless};
use crate::queue::Request;
use crate::rewrite;
use crate::scan::{Found, Scanner};
use crate::sealer::Sealer;
use crate::summary::{Table, print_of_chunk};
use crate::view::Segment;

/// On whose order content is removed. It stands in the tombstones, as far as they have room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurgeOrder {
    /// Identity of the order.
    pub id: String,
    /// Who gave it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at: UnixMillis,
}

/// What a purge did to the journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PurgeReport {
    /// Entries whose content is gone.
    pub entries: u64,
    /// Chunks that are gone.
    pub chunks: u64,
    /// Segment files that were written anew.
    pub segments: u32,
    /// Damaged bytes in those segments, which might have been the content. Where the journal is sealed they can be opened
    /// by nobody any more: the segment's salt is another one.
    pub damaged_bytes: u64,
    /// Files and copies that were set aside after damage, or left behind when they could not be removed, which might have held
    /// the content: removed.
    pub set_aside_files: u32,
}

impl PurgeReport {
    /// The sums of both.
    pub fn plus(self, more: Self) -> Self {
        Self {
            entries: self.entries + more.entries,
            chunks: self.chunks + more.chunks,
            segments: self.segments + more.segments,
            damaged_bytes: self.damaged_bytes + more.damaged_bytes,
            set_aside_files: self.set_aside_files + more.set_aside_files,
        }
    }
}

/// What must go, or (`done`) that everything noted before it is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct PurgeFrame {
    #[n(0)]
    pub(crate) done: bool,
    #[n(1)]
    order: String,
    #[n(2)]
    by: String,
    #[n(3)]
    reason: String,
    #[n(4)]
    at: i64,
    /// Places of the entries.
    #[n(5)]
    positions: Pieces,
    /// Sorted.
    #[n(6)]
    pub(crate) chunks: Vec<ChunkName>,
    /// Own numbers of the entries.
    #[n(7)]
    pub(crate) own: BTreeMap<Epoch, Pieces>,
    /// Numbers of others, of entries that are not here (yet) too.
    #[n(8)]
    pub(crate) foreign: Vec<ReceivedFrame>,
}

impl PurgeFrame {
    pub(crate) fn done() -> Self {
        Self { done: true, ..Self::default() }
    }

    pub(crate) fn own_sets(&self) -> Vec<(Epoch, RangeSet)> {
        self.own.iter().map(|(epoch, pieces)| (*epoch, join(pieces))).collect()
    }
}

/// Stands where the body stood.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct PurgeNote {
    #[n(0)]
    order: Option<String>,
    #[n(1)]
    at: Option<i64>,
    #[cbor(n(2), with = "minicbor::bytes")]
    body_hash: Option<[u8; 32]>,
    #[n(3)]
    by: Option<String>,
    #[n(4)]
    reason: Option<String>,
}

impl PurgeNote {
    /// As much of it as fits into the place of the body, then zeros.
    fn filling(self, len: usize) -> Vec<u8> {
        let no_reason = Self { reason: None, ..self.clone() };
        let proof = Self { by: None, ..no_reason.clone() };
        let named = Self { body_hash: None, at: None, ..proof.clone() };
        let fits = [self, no_reason, proof, named].iter().map(to_cbor).find(|bytes| bytes.len() <= len);
        let mut bytes = fits.unwrap_or_default();
        bytes.resize(len, 0);
        bytes
    }
}

/// Does what is left of a purged entry fit its hash, as far as that can be told?
pub(crate) fn fits_hash(bytes: &[u8], hash: EntryHash) -> bool {
    let Ok(left) = wire::decode_entry(bytes) else { return false };
    let note = minicbor::decode::<PurgeNote>(&left.body).unwrap_or_default();
    note.body_hash
        .is_none_or(|body| wire::entry::entry_hash_with(bytes, &BodyHash::from_bytes(body)).ok() == Some(hash))
}

/// Everything that the begun purges are after.
struct Targets {
    orders: Vec<(RangeSet, PurgeFrame)>,
    chunks: BTreeSet<ChunkName>,
}

impl Targets {
    fn of(frames: &[PurgeFrame]) -> Self {
        Self {
            orders: frames.iter().map(|frame| (join(&frame.positions), frame.clone())).collect(),
            chunks: frames.iter().flat_map(|frame| frame.chunks.iter().copied()).collect(),
        }
    }

    fn order_for(&self, pos: u64) -> Option<&PurgeFrame> {
        self.orders.iter().find(|(positions, _)| positions.contains(pos)).map(|(_, frame)| frame)
    }

    /// Can the segment hold any of it?
    fn may_be_in(&self, segment: &Segment) -> bool {
        let summary = &segment.summary;
        let here = RangeSet::from(summary.first_pos..=summary.next_pos.saturating_sub(1));
        let entries = self.orders.iter().any(|(positions, _)| !positions.intersection(&here).is_empty());
        entries || (summary.chunks > 0 && !self.chunks.is_empty())
    }

    /// Does the segment hold any of it, and how many of its bytes cannot be read?
    fn look(&self, segment: &Segment) -> io::Result<(bool, u64)> {
        let (mut found_any, mut damaged_bytes) = (false, 0);
        let mut scanner = Scanner::new(segment.window());
        while let Some(found) = scanner.next()? {
            match found {
                Found::Frame { kind, payload, .. } => found_any |= self.tombstone(kind, &payload).is_some(),
                Found::Damaged { bytes, .. } => damaged_bytes += bytes,
            }
        }
        Ok((found_any, damaged_bytes))
    }

    /// The name of a chunk that stays, if this payload holds it written from one that goes.
    fn dependant(&self, payload: &[u8]) -> Option<ChunkName> {
        let (name, base) = PackedChunk::names(payload)?;
        (self.chunks.contains(&base?) && !self.chunks.contains(&name)).then_some(name)
    }

    /// What takes the place of a frame; `None` for one that stays.
    fn tombstone(&self, kind: u8, payload: &[u8]) -> Option<(FrameKind, Vec<u8>)> {
        if FrameKind::is_entry(kind) {
            let purged =
                if kind == FrameKind::Entry as u8 { FrameKind::PurgedEntry } else { FrameKind::PurgedRestored };
            let (prefix, bytes) = EntryPrefix::decode(payload)?;
            let order = self.order_for(prefix.pos)?;
            // Bytes that are no entry are no reason to keep them.
            let body = wire::entry::body_len(bytes).unwrap_or(bytes.len());
            let note = PurgeNote {
                order: Some(order.order.clone()),
                at: Some(order.at),
                body_hash: wire::entry::body_hash(bytes).ok().map(BodyHash::to_bytes),
                by: Some(order.by.clone()),
                reason: Some(order.reason.clone()),
            };
            let mut left = payload[..payload.len() - body].to_vec();
            left.extend(note.filling(body));
            return Some((purged, left));
        }
        if kind == FrameKind::Chunk as u8 {
            let name = ChunkName(payload.get(..ChunkName::LEN)?.try_into().ok()?);
            // Without its base nobody can read a dependant, and it was written whole.
            if self.chunks.contains(&name) || self.dependant(payload).is_some() {
                let mut left = name.0.to_vec();
                left.resize(payload.len(), 0);
                return Some((FrameKind::PurgedChunk, left));
            }
        }
        None
    }
}

impl Journal {
    /// Removes the content of entries and chunks from the log. When this returns, no file of the journal holds it. Own
    /// entries end as purged for every consumer that was not done with them. Of `coming`, numbers of other nodes that may
    /// still arrive, nothing will be stored. Blocks for as long as writing the affected segments anew takes; appends go
    /// on meanwhile.
    ///
    /// # Errors
    /// When the disk does not take it. What was noted as to be removed is then removed by the next call, or at the next
    /// open.
    pub fn purge(
        &self,
        order: &PurgeOrder,
        entries: &[(EntryId, LocalPos)],
        coming: &BTreeMap<(NodeId, Epoch), RangeSet>,
        chunks: &BTreeSet<ChunkName>,
    ) -> Result<PurgeReport, AppendError> {
        let _one_at_a_time = lock(&self.shared().purging);
        let (mut own, mut foreign): (BTreeMap<Epoch, RangeSet>, BTreeMap<(NodeId, Epoch), RangeSet>) =
            Default::default();
        for (id, _) in entries {
            match id.origin == self.node() {
                true => own.entry(id.epoch).or_default().insert(id.seq.get()),
                false => foreign.entry((id.origin, id.epoch)).or_default().insert(id.seq.get()),
            };
        }
        for (of, numbers) in coming.iter().filter(|((origin, _), _)| *origin != self.node()) {
            foreign.entry(*of).or_default().union_with(numbers);
        }
        {
            let view = self.log().read();
            for (of, numbers) in &mut foreign {
                let known = view.state.purged_foreign.get(of).cloned().unwrap_or_default();
                *numbers = numbers.difference(&known);
            }
        }
        foreign.retain(|_, numbers| !numbers.is_empty());
        if !entries.is_empty() || !foreign.is_empty() || !chunks.is_empty() {
            let positions: RangeSet = entries.iter().map(|(_, pos)| pos.0).collect();
            let numbers = foreign.iter().flat_map(|((origin, epoch), set)| {
                split(set).into_iter().map(|numbers| ReceivedFrame { origin: *origin, epoch: *epoch, numbers })
            });
            let frame = PurgeFrame {
                done: false,
                order: order.id.clone(),
                by: order.by.clone(),
                reason: order.reason.clone(),
                at: order.at.0,
                positions: split(&positions),
                chunks: chunks.iter().copied().collect(),
                own: own.iter().map(|(epoch, set)| (*epoch, split(set))).collect(),
                foreign: numbers.collect(),
            };
            self.ask(|completer| Request::BeginPurge(Box::new(frame), completer)).wait()?;
        }
        let report = self.carry_out()?;
        // Also where the log holds nothing of it any more: a segment that was given up may still be on the disk.
        let set_aside_files = self.remove_leftovers(false).map_err(disk_failed)?;
        Ok(report.plus(PurgeReport { set_aside_files, ..PurgeReport::default() }))
    }

    /// Carries out what was begun before the last end of the process.
    pub(crate) fn finish_purges(&self) -> Result<PurgeReport, AppendError> {
        let _one_at_a_time = lock(&self.shared().purging);
        self.carry_out()
    }

    fn carry_out(&self) -> Result<PurgeReport, AppendError> {
        let mut report = PurgeReport::default();
        let (targets, numbers) = {
            let view = self.log().read();
            if view.state.purging.is_empty() {
                return Ok(report);
            }
            (Targets::of(&view.state.purging), view.sealed.keys().copied().collect::<Vec<_>>())
        };
        if is(Mutation::PurgeDoneFirst) {
            self.ask(Request::EndPurge).wait()?;
        }
        // First what other files need of it becomes durable without it.
        for number in numbers.iter().filter(|_| !is(Mutation::SkipPurgeWhole)) {
            self.make_dependants_whole(*number, &targets)?;
        }
        for number in numbers {
            report = report.plus(self.purge_segment(number, &targets)?);
        }
        report.set_aside_files += self.remove_set_aside(&targets).map_err(disk_failed)?;
        self.ask(Request::EndPurge).wait()?;
        Ok(report)
    }

    /// Writes chunks whole that stay and that were written from chunks which go.
    fn make_dependants_whole(&self, number: u32, targets: &Targets) -> Result<(), AppendError> {
        let current = self.log().read().sealed.get(&number).cloned();
        let Some(segment) = current.filter(|segment| targets.may_be_in(segment)) else { return Ok(()) };
        let mut names = Vec::new();
        let mut scanner = Scanner::only(segment.window(), FrameKind::Chunk);
        while let Some(found) = scanner.next().map_err(disk_failed)? {
            let Found::Frame { payload, .. } = found else { continue };
            names.extend(targets.dependant(&payload));
        }
        if names.is_empty() {
            return Ok(());
        }
        self.ask(|completer| Request::MakeWhole(names, completer)).wait()
    }

    fn purge_segment(&self, number: u32, targets: &Targets) -> Result<PurgeReport, AppendError> {
        loop {
            let current = self.log().read().sealed.get(&number).cloned();
            let Some(segment) = current.filter(|segment| targets.may_be_in(segment)) else { break };
            let (found, damaged_bytes) = targets.look(&segment).map_err(disk_failed)?;
            if !found {
                break;
            }
            let mut report = PurgeReport { segments: 1, damaged_bytes, ..PurgeReport::default() };
            let at_rest = lock(&self.shared().at_rest).clone();
            // Another salt, and so another key: the old file's blocks stay sealed with one whose salt is in no file.
            let sealer = Sealer::fresh(self.node(), number, &at_rest);
            let placed = self.replace(&segment, sealer, &mut |_, kind, payload| {
                let Some((tombstone, left)) = targets.tombstone(kind, &payload) else { return (kind, payload) };
                let is_chunk = tombstone == FrameKind::PurgedChunk;
                report.chunks += u64::from(is_chunk && targets.dependant(&payload).is_none());
                report.entries += u64::from(!is_chunk);
                (tombstone as u8, left)
            })?;
            // Trimmed, or written anew by somebody else meanwhile: look again.
            if placed {
                return Ok(report);
            }
        }
        Ok(PurgeReport::default())
    }

    /// Files that were put aside because of damage, and copies of damaged places but those of segments that never held any of
    /// it: nothing proves that they hold none of the content.
    fn remove_set_aside(&self, targets: &Targets) -> io::Result<u32> {
        let mut removed = self.remove_leftovers(true)?;
        if let Some(quarantine) = &self.log().quarantine {
            let (others, tail) = {
                let view = self.log().read();
                let others = view.sealed.values().filter(|segment| !targets.may_be_in(segment));
                (others.map(|segment| segment.number).collect::<BTreeSet<u32>>(), view.tail.number)
            };
            removed += quarantine.remove_but(|segment| segment == tail || others.contains(&segment))?;
        }
        self.log().remove_damaged_index()?;
        Ok(removed)
    }

    /// Removes the files of segments that are none of the log's: trimmed ones and copies that could not be removed when it was
    /// time, and with `set_aside` those that were put aside because of damage.
    fn remove_leftovers(&self, set_aside: bool) -> io::Result<u32> {
        let place = &self.shared().place;
        // A copy that is being written is no leftover.
        let _alone = lock(&place.rewriting);
        let segments = segments_dir(&place.dir);
        let names = place.disk.list(&segments)?;
        let (held, tail) = {
            // Read after the names: a segment that is made meanwhile has a higher number than the newest.
            let view = self.log().read();
            (view.sealed.keys().copied().collect::<BTreeSet<u32>>(), view.tail.number)
        };
        let goes = |name: &&String| match (segment_number(name), name.split_once('.')) {
            (Some(number), _) => number < tail && !held.contains(&number),
            (None, Some((stem, "seg.damaged"))) => set_aside && rewrite::is_segment(stem),
            (None, Some((stem, _))) => rewrite::is_segment(stem),
            (None, None) => false,
        };
        let mut removed = 0;
        for name in names.iter().filter(goes) {
            match place.disk.unlink(&segments.join(name)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                Ok(()) | Err(_) => removed += 1,
            }
        }
        if removed > 0 {
            unless(Mutation::SkipSetAsideSync, || place.disk.sync_dir(&segments))?;
        }
        Ok(removed)
    }
}

impl Committer {
    /// Makes durable what must go, in a segment of its own if any of it stands in the tail.
    pub(crate) fn begin_purge(&mut self, frame: PurgeFrame) -> Result<(), AppendError> {
        let in_tail = {
            let view = self.shared.log.read();
            let growing = &view.tail.growing;
            let entries = join(&frame.positions).last().is_some_and(|last| last >= growing.summary.first_pos);
            let holds = |name: &ChunkName| {
                let here = |table| growing.tables.get(table, print_of_chunk(name)).is_some();
                // What is written from it must not stay where it cannot be written anew.
                here(Table::Chunks) || here(Table::ChunksNeeded)
            };
            entries || frame.chunks.iter().any(holds)
        };
        if in_tail {
            self.roll().map_err(disk_failed)?;
        }
        let bytes = to_cbor(&frame);
        if bytes.len() > PLAIN_BYTES_MAX {
            let (bytes, max) = (bytes.len() as u64, PLAIN_BYTES_MAX as u64);
            return Err(AppendError::TooLarge { what: "purge", bytes, max });
        }
        let mut batch = self.begin();
        batch.urgent = true;
        batch.push(FrameKind::Purge, &[&bytes], Record::Purge(Box::new(frame)));
        self.commit(batch)?;
        self.creators.clear();
        // How entries end for their consumers follows soon.
        self.shared.queue.note_receipts();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    use super::*;
    use crate::{
        AtRest, ChunkPut, Draft, Foreign, ForeignOutcome, IndexPlace, JournalOptions, JournalSettings, Listed, Reader,
        StdDisk,
    };
    use keys::{DataKey, DataKeys, KeyNumber};
    use model::{
        ByteSize, Clock, Entry, Header, Hlc, Kind, Label, ObjectKey, Outcome, Precedence, Seq, SourcePosition, StreamId,
    };
    use tempfile::TempDir;

    const NODE: NodeId = NodeId([1; 16]);
    const PEER: NodeId = NodeId([2; 16]);

    struct StoppedClock;

    impl Clock for StoppedClock {
        fn now(&self) -> UnixMillis {
            UnixMillis(1_700_000_000_000)
        }
    }

    fn open(dir: &TempDir) -> Journal {
        open_with(dir, AtRest::Plain)
    }

    fn open_with(dir: &TempDir, at_rest: AtRest) -> Journal {
        Journal::open(JournalOptions { at_rest, ..plain_options(dir) }).unwrap().0
    }

    fn plain_options(dir: &TempDir) -> JournalOptions {
        JournalOptions {
            dir: dir.path().to_owned(),
            node: NODE,
            disk: Arc::new(StdDisk),
            clock: Arc::new(StoppedClock),
            settings: JournalSettings {
                segment_bytes: ByteSize(8 << 10),
                limit_bytes: ByteSize(100 << 20),
                ..crate::tests::options(dir.path()).settings
            },
            index: IndexPlace::Sled,
            at_rest: AtRest::Plain,
        }
    }

    fn order() -> PurgeOrder {
        let (id, by) = ("order".to_owned(), "duty officer".to_owned());
        PurgeOrder { id, by, reason: "spilled".to_owned(), at: UnixMillis(9) }
    }

    fn text(n: u64) -> String {
        format!("text of message {n}, long enough that proof of it has room in its place, {n} {n} {n} {n} {n} {n} {n}")
    }

    fn draft(n: u64, body: &str) -> Draft {
        Draft {
            source: SourcePosition(Hlc(n)),
            follows: None,
            stream: StreamId::Directory,
            causes: Vec::new(),
            needs: Vec::new(),
            precedence: Precedence::Routine,
            captured: Hlc(n << 16),
            origin_time: UnixMillis(n as i64),
            expiry: None,
            supersedes: None,
            label: Label::directory(),
            kind: Kind::Post,
            mint_salt: 7,
            body: body.as_bytes().to_vec(),
            object: Some(ObjectKey(n)),
            chunks: None,
        }
    }

    fn foreign(n: u64, body: &str) -> Foreign {
        let header = Header {
            id: theirs(n),
            source: SourcePosition(Hlc(n)),
            stream: StreamId::Directory,
            causes: Vec::new(),
            after: None,
            precedence: Precedence::Routine,
            captured: Hlc(n << 16),
            origin_time: UnixMillis(1),
            expiry: None,
            supersedes: None,
            label: Label::directory(),
            kind: Kind::Post,
            mint_salt: 7,
        };
        let bytes = wire::encode_entry(&Entry { header, body: body.as_bytes().to_vec() });
        Foreign { bytes: bytes.into(), object: None }
    }

    fn theirs(n: u64) -> EntryId {
        EntryId { origin: PEER, epoch: Epoch::FIRST, seq: Seq::new(n).unwrap() }
    }

    fn fill(journal: &Journal, numbers: std::ops::RangeInclusive<u64>) {
        for n in numbers {
            journal.append_own(draft(n, &text(n))).wait().unwrap();
        }
    }

    fn everything(journal: &Journal) -> Vec<Listed> {
        journal.list(LocalPos::START..LocalPos(u64::MAX), usize::MAX).unwrap()
    }

    fn at(journal: &Journal, n: u64) -> (EntryId, LocalPos) {
        let listed = everything(journal).into_iter().find(|l| l.entry.body == text(n).as_bytes()).unwrap();
        (listed.entry.header.id, listed.pos)
    }

    fn purge(journal: &Journal, entries: &[(EntryId, LocalPos)], chunks: &[ChunkName]) -> PurgeReport {
        journal.purge(&order(), entries, &BTreeMap::new(), &chunks.iter().copied().collect()).unwrap()
    }

    /// Files below the directory that hold the bytes.
    fn holding(dir: &Path, bytes: &[u8]) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                found.extend(holding(&path, bytes));
            } else if fs::read(&path).unwrap().windows(bytes.len()).any(|w| w == bytes) {
                found.push(path);
            }
        }
        found
    }

    fn name(n: u8) -> ChunkName {
        let mut name = [n; ChunkName::LEN];
        name[0] = ChunkName::BLAKE3_KEYED;
        ChunkName(name)
    }

    fn noise(seed: u64) -> Vec<u8> {
        use rand::{Rng, SeedableRng};
        let mut bytes = vec![0; 3_000];
        rand_chacha::ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
        bytes
    }

    #[test]
    fn a_purged_entry_is_in_no_file_and_the_chain_over_it_still_verifies() {
        let dir = tempfile::tempdir().unwrap();
        let journal = open(&dir);
        fill(&journal, 1..=120);
        let entries = [at(&journal, 3), at(&journal, 60), at(&journal, 120)];
        let hash = journal.hash_of(entries[0].0).unwrap();
        for n in [3, 60, 120] {
            assert_eq!(holding(dir.path(), text(n).as_bytes()).len(), 1, "{n} is there to be found");
        }
        let report = purge(&journal, &entries, &[]);
        assert_eq!((report.entries, report.segments), (3, 3));
        let check = |journal: &Journal| {
            for n in [3, 60, 120] {
                assert_eq!(holding(dir.path(), text(n).as_bytes()), Vec::<PathBuf>::new(), "{n}");
                assert_eq!(journal.creator(ObjectKey(n)).unwrap(), None);
            }
            let listed = everything(journal);
            let numbers: Vec<u64> = listed.iter().map(|l| l.entry.header.id.seq.get()).collect();
            assert_eq!(numbers, (1..=120).filter(|n| ![3, 60, 120].contains(n)).collect::<Vec<_>>());
            assert!(listed.iter().all(|l| l.entry.body == text(l.entry.header.id.seq.get()).as_bytes()));
            assert_eq!(journal.creator(ObjectKey(4)).unwrap().map(|id| id.seq.get()), Some(4));
            assert_eq!(journal.hash_of(entries[0].0).unwrap(), hash, "the hash of what stood there stays");
            let verified = journal.verify(&mut |_| {}).unwrap();
            assert!(verified.is_clean(), "{:?}", verified.findings);
            assert_eq!((verified.entries, verified.purged_entries), (117, 3));
        };
        check(&journal);
        // Twice is once.
        assert_eq!(purge(&journal, &entries, &[]).entries, 0);
        drop(journal);
        let journal = open(&dir);
        check(&journal);
        fill(&journal, 121..=130);
        let reader = Reader::open(dir.path(), Arc::new(StdDisk), &DataKeys::none()).unwrap();
        let verified = reader.verify(&mut |_| {}).unwrap();
        assert!(verified.is_clean() && verified.purged_entries == 3, "{:?}", verified.findings);
    }

    /// The purge looked at the segments of the log, and at files that were set aside after damage. A segment that was trimmed
    /// and could not be unlinked, or a copy that was left when its own turn came to nothing, kept the content.
    #[test]
    fn a_purge_leaves_no_trimmed_file_and_no_copy_behind() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::<crate::tests::FaultyDisk>::default();
        let options = JournalOptions { disk: Arc::clone(&disk) as Arc<dyn model::Disk>, ..plain_options(&dir) };
        let journal = Journal::open(options).unwrap().0;
        fill(&journal, 1..=120);
        let (early, late) = (at(&journal, 3), at(&journal, 110));
        journal.consumer("bravo", true).unwrap().record_outcome(Outcome::Applied, Epoch::FIRST, &(1..=60).into());
        disk.faults.refuse_unlinks.store(true, std::sync::atomic::Ordering::SeqCst);
        assert!(journal.trim().unwrap().segments > 0);
        assert_eq!(holding(dir.path(), text(3).as_bytes()).len(), 1, "the file is still there");
        let copy = dir.path().join("segments/00000009.rewritten");
        fs::write(&copy, text(110)).unwrap();
        let refused = journal.purge(&order(), &[late], &BTreeMap::new(), &BTreeSet::new());
        assert!(refused.is_err(), "what is on the disk is not purged");
        disk.faults.refuse_unlinks.store(false, std::sync::atomic::Ordering::SeqCst);
        // An order about what the log holds no more.
        journal.purge(&order(), &[], &BTreeMap::new(), &BTreeSet::new()).unwrap();
        for n in [3, 110] {
            assert_eq!(holding(dir.path(), text(n).as_bytes()), Vec::<PathBuf>::new(), "{n}");
        }
        assert!(everything(&journal).iter().all(|l| ![early.0, late.0].contains(&l.entry.header.id)));
        fs::write(&copy, text(110)).unwrap();
        assert_eq!(
            purge(&journal, &[], &[]).set_aside_files,
            1,
            "nothing was to be purged, and what is left over goes"
        );
        assert!(journal.verify(&mut |_| {}).unwrap().is_clean());
    }

    /// The process ended between the new file of a segment and its new rows in the index, or the power went before those were
    /// on the disk: the old rows named what was purged, for good, and what came after it was not found.
    #[test]
    fn rows_of_the_index_from_before_a_purge_do_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let keys = DataKeys::new([(KeyNumber(1), DataKey::from_bytes([5; 32]))]);
        let open = || open_with(&dir, AtRest::sealed(keys.clone()));
        let journal = open();
        fill(&journal, 1..=60);
        let object = Some(ObjectKey(3));
        let again = journal.append_own(Draft { object, ..draft(61, &text(61)) }).wait().unwrap();
        fill(&journal, 62..=120);
        let first = at(&journal, 3);
        assert_eq!(journal.creator(ObjectKey(3)).unwrap(), Some(first.0));
        drop(journal);
        let before = tempfile::tempdir().unwrap();
        crate::tests::copy_into(&dir.path().join("index"), before.path());
        let journal = open();
        purge(&journal, &[first], &[]);
        assert_eq!(journal.creator(ObjectKey(3)).unwrap(), Some(again.id));
        drop(journal);
        fs::remove_dir_all(dir.path().join("index")).unwrap();
        crate::tests::copy_into(before.path(), &dir.path().join("index"));
        assert_eq!(open().creator(ObjectKey(3)).unwrap(), Some(again.id));
    }

    #[test]
    fn a_sealed_segment_takes_another_key_with_a_purge() {
        let dir = tempfile::tempdir().unwrap();
        let keys = DataKeys::new([(KeyNumber(1), DataKey::from_bytes([5; 32]))]);
        let journal = open_with(&dir, AtRest::sealed(keys.clone()));
        fill(&journal, 1..=60);
        let lock = || journal.log().read().sealed[&1].sealer.lock().unwrap();
        let before = (lock(), fs::read(dir.path().join("segments/00000001.seg")).unwrap());
        let entry = at(&journal, 3);
        purge(&journal, &[entry], &[]);
        let after = fs::read(dir.path().join("segments/00000001.seg")).unwrap();
        assert_ne!(lock().salt, before.0.salt);
        let magic = b"HOLDFSEG";
        let header = after.windows(magic.len()).rposition(|bytes| bytes == magic).expect("it is repeated");
        let blocks = before.1.chunks(64).zip(after.chunks(64)).enumerate().skip(8);
        let beside_header = blocks.filter(|(i, _)| !(header..header + 128).contains(&(i * 64)));
        let same = beside_header.filter(|(_, (a, b))| a == b).count();
        assert_eq!(same, 0, "no block of the old file is in the new one");
        drop(journal);
        let journal = open_with(&dir, AtRest::sealed(keys));
        assert_eq!(everything(&journal).len(), 59);
        assert!(journal.verify(&mut |_| {}).unwrap().is_clean());
    }

    #[test]
    fn a_tombstone_tells_who_when_and_why_and_proves_its_hash() {
        let dir = tempfile::tempdir().unwrap();
        let journal = open(&dir);
        fill(&journal, 1..=2);
        // Too short for anything to be told in its place.
        journal.append_own(draft(3, "go")).wait().unwrap();
        let all: Vec<_> = everything(&journal).iter().map(|l| (l.entry.header.id, l.pos)).collect();
        purge(&journal, &all, &[]);
        let bytes = fs::read(dir.path().join("segments/00000001.seg")).unwrap();
        for told in ["duty officer", "spilled"] {
            assert_eq!(bytes.windows(told.len()).filter(|w| *w == told.as_bytes()).count(), 2, "{told}");
        }
        assert!(everything(&journal).is_empty());
        assert!(journal.verify(&mut |_| {}).unwrap().is_clean());
        // A forged header does not pass for what stood there.
        let segment = journal.log().read().sealed[&1].clone();
        let mut scanner = Scanner::new(segment.window());
        while let Some(found) = scanner.next().unwrap() {
            let Found::Frame { kind, payload, .. } = found else { continue };
            if kind != FrameKind::PurgedEntry as u8 {
                continue;
            }
            let (prefix, left) = EntryPrefix::decode(&payload).unwrap();
            assert!(fits_hash(left, prefix.hash));
            let mut other = wire::decode_entry(left).unwrap();
            other.header.origin_time = UnixMillis(77);
            let can_tell = prefix.pos != 3;
            assert_eq!(!fits_hash(&wire::encode_entry(&other), prefix.hash), can_tell, "position {}", prefix.pos);
        }
    }

    #[test]
    fn a_purged_chunk_is_in_no_file_and_its_content_can_come_again() {
        let dir = tempfile::tempdir().unwrap();
        let journal = open(&dir);
        for n in 1..=9 {
            journal.put_chunk(name(n), &noise(u64::from(n))).wait().unwrap();
            fill(&journal, u64::from(n)..=u64::from(n));
        }
        let probe = |n: u64| noise(n)[1_000..1_064].to_vec();
        assert_eq!(holding(dir.path(), &probe(2)).len(), 1);
        let report = purge(&journal, &[], &[name(2), name(9), name(77)]);
        assert_eq!((report.chunks, report.entries), (2, 0));
        for n in 1..=9 {
            let gone = n == 2 || n == 9;
            assert_eq!(journal.has_chunk(&name(n as u8)).unwrap(), !gone, "{n}");
            assert_eq!(holding(dir.path(), &probe(n)).is_empty(), gone, "{n}");
        }
        let verified = journal.verify(&mut |_| {}).unwrap();
        assert!(verified.is_clean(), "{:?}", verified.findings);
        assert_eq!((verified.chunks, verified.purged_chunks), (7, 2));
        assert_eq!(journal.put_chunk(name(2), &noise(2)).wait().unwrap(), ChunkPut::Stored);
        drop(journal);
        let journal = open(&dir);
        assert_eq!(journal.get_chunk(&name(2)).unwrap().as_deref(), Some(&noise(2)[..]));
        assert!(journal.verify(&mut |_| {}).unwrap().is_clean());
    }

    #[test]
    fn what_was_written_from_a_purged_chunk_stays_and_nothing_of_that_is_left() {
        for in_one_segment in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let journal = open(&dir);
            let base = noise(1);
            let mut edited = base.clone();
            edited.splice(1_000..1_064, *b"in the place of what is to go");
            journal.put_chunk(name(1), &base).wait().unwrap();
            if !in_one_segment {
                fill(&journal, 1..=90);
            }
            journal.put_chunk_of(theirs(70), name(2), &edited, Some(name(1))).wait().unwrap();
            let view = journal.outbound();
            assert_eq!(model::Outbound::chunk_base(&view, &name(2)).unwrap(), Some(name(1)));
            let report = purge(&journal, &[], &[name(1)]);
            assert_eq!(report.chunks, 1);
            let check = |journal: &Journal| {
                assert!(!journal.has_chunk(&name(1)).unwrap());
                assert_eq!(journal.get_chunk(&name(2)).unwrap().as_deref(), Some(&edited[..]));
                assert_eq!(model::Outbound::chunk_base(&journal.outbound(), &name(2)).unwrap(), None);
                assert!(holding(dir.path(), &base[1_000..1_064]).is_empty());
                let verified = journal.verify(&mut |_| {}).unwrap();
                assert!(verified.is_clean(), "{:?}", verified.findings);
            };
            check(&journal);
            // Nothing is written from what is gone.
            journal.put_chunk_of(theirs(70), name(3), &edited[1..], Some(name(1))).wait().unwrap();
            assert_eq!(journal.get_chunk(&name(3)).unwrap().as_deref(), Some(&edited[1..]));
            drop((view, journal));
            check(&open(&dir));
        }
    }

    #[test]
    fn what_was_purged_ends_so_for_every_consumer_that_was_not_done_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let journal = open(&dir);
        let bravo = journal.consumer("peer:bravo", true).unwrap();
        fill(&journal, 1..=4);
        bravo.record_outcome(Outcome::Applied, Epoch::FIRST, &RangeSet::from(1..=1));
        let entries = [at(&journal, 1), at(&journal, 2)];
        purge(&journal, &entries, &[]);
        let sums = |journal: &Journal, name: &str| {
            let total = journal.accounting(name).unwrap().unwrap().total;
            let ended = total.applied + total.purged + total.quarantined + total.expired + total.superseded;
            assert_eq!(total.accepted, ended + total.withheld + total.held);
            (total.accepted, total.applied, total.purged, total.held)
        };
        assert_eq!(sums(&journal, "peer:bravo"), (4, 1, 1, 2));
        // A receipt that was under way changes nothing.
        bravo.record_outcome(Outcome::Applied, Epoch::FIRST, &RangeSet::from(2..=2));
        assert_eq!(sums(&journal, "peer:bravo"), (4, 1, 1, 2));
        assert_eq!(journal.purged(), [(Epoch::FIRST, RangeSet::from(1..=2))].into());
        drop((bravo, journal));
        let journal = open(&dir);
        assert_eq!(sums(&journal, "peer:bravo"), (4, 1, 1, 2));
        journal.consumer("peer:charlie", true).unwrap();
        assert_eq!(sums(&journal, "peer:charlie"), (4, 0, 2, 2));
        assert_eq!(journal.purged(), [(Epoch::FIRST, RangeSet::from(1..=2))].into());
    }

    #[test]
    fn nothing_of_what_was_purged_is_taken_in_again() {
        let dir = tempfile::tempdir().unwrap();
        let journal = open(&dir);
        let stored = journal.append_foreign(foreign(5, &text(5))).wait().unwrap();
        let ForeignOutcome::Stored(pos) = stored else { panic!("{stored:?}") };
        journal.append_foreign(foreign(6, &text(6))).wait().unwrap();
        let coming = [((PEER, Epoch::FIRST), RangeSet::from(8..=9))].into();
        journal.purge(&order(), &[(theirs(5), pos)], &coming, &BTreeSet::new()).unwrap();
        let check = |journal: &Journal| {
            for n in [5, 8, 9] {
                let again = journal.append_foreign(foreign(n, &text(n))).wait().unwrap();
                assert_eq!(again, ForeignOutcome::AlreadyHeld, "{n}");
                let late = journal.put_chunk_of(theirs(n), name(1), b"bytes of a file", None).wait().unwrap();
                assert_eq!(late, ChunkPut::Purged);
                assert_eq!(holding(dir.path(), text(n).as_bytes()), Vec::<PathBuf>::new());
            }
            assert!(!journal.has_chunk(&name(1)).unwrap());
            let received = journal.received(PEER).remove(&Epoch::FIRST).unwrap();
            assert_eq!(received, [5, 6, 8, 9].into_iter().collect());
        };
        check(&journal);
        drop(journal);
        check(&open(&dir));
    }

    #[test]
    fn chunks_that_a_trim_would_carry_on_do_not_survive_a_purge() {
        let dir = tempfile::tempdir().unwrap();
        let journal = open(&dir);
        let bravo = journal.consumer("peer:bravo", true).unwrap();
        journal.put_chunk(name(1), &noise(1)).wait().unwrap();
        fill(&journal, 1..=60);
        // A later file needs the same chunk.
        let file = journal.begin_file();
        assert_eq!(journal.put_chunk(name(1), &noise(1)).wait().unwrap(), ChunkPut::AlreadyHeld);
        journal.append_own(Draft { chunks: Some(file.chunks(3_000)), ..draft(61, &text(61)) }).wait().unwrap();
        drop(file);
        purge(&journal, &[], &[name(1)]);
        bravo.record_outcome(Outcome::Applied, Epoch::FIRST, &RangeSet::from(1..=60));
        journal.trim().unwrap();
        assert!(!journal.has_chunk(&name(1)).unwrap());
        assert!(holding(dir.path(), &noise(1)[1_000..1_064]).is_empty());
        assert!(journal.verify(&mut |_| {}).unwrap().is_clean());
    }

    #[test]
    fn what_was_set_aside_after_damage_goes_with_what_it_may_hold() {
        let dir = tempfile::tempdir().unwrap();
        {
            let journal = open(&dir);
            fill(&journal, 1..=90);
        }
        // One damaged entry that cannot be told from the one to go, and a whole file put aside.
        let first = dir.path().join("segments/00000001.seg");
        let mut bytes = fs::read(&first).unwrap();
        let place = bytes.windows(text(7).len()).position(|w| w == text(7).as_bytes()).unwrap();
        bytes[place + 20] ^= 1;
        fs::write(&first, &bytes).unwrap();
        fs::write(dir.path().join("segments/00000009.seg.damaged"), text(2)).unwrap();
        fs::create_dir_all(dir.path().join("index.damaged")).unwrap();
        let journal = open(&dir);
        let entry = at(&journal, 2);
        let report = purge(&journal, &[entry], &[]);
        // The file, and the copy of the damaged place.
        assert_eq!((report.entries, report.set_aside_files), (1, 2));
        assert!(holding(&dir.path().join("quarantine"), &text(7).as_bytes()[30..]).is_empty());
        assert!(report.damaged_bytes > text(7).len() as u64);
        assert!(holding(dir.path(), text(2).as_bytes()).is_empty());
        assert!(!dir.path().join("index.damaged").exists());
        assert_eq!(everything(&journal).len(), 88);
    }
}
