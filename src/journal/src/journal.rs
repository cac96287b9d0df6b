//! The handles: [`Journal`] for appending and reading, [`OutboundView`] for sessions.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;

use model::{
    ChunkName, DiskLock, EntryHash, EntryId, Epoch, LocalPos, LockError, NodeId, ObjectKey, Outbound, OutboundError,
    Outgoing, Precedence, RangeSet, Scan, Seq, SourcePosition,
};
use wire::BodyHash;

use crate::committer::{Committer, Place, Shared, lock};
use crate::consumer::Consumer;
use crate::error::{AppendError, OpenError, ReadError};
use crate::expiry::Moot;
use crate::file::FileInProgress;
use crate::format::{CHUNK_BYTES_MAX, PackedChunk, segment_name};
use crate::index::{MemoryIndex, SledIndex};
use crate::load::{Access, create_segment, disk_error, load, mend_suspect, segments_dir};
use crate::mutations::{Mutation, is, unless};
use crate::quarantine::Quarantine;
use crate::queue::{NewChunk, Queue, Request};
use crate::reserve::{Reserve, Space};
use crate::rewrite;
use crate::scrub::Verified;
use crate::sealer::Sealer;
use crate::settings::{AtRest, IndexPlace, JournalOptions};
use crate::ticket::{Ticket, ticket};
use crate::types::{
    Accounting, Appended, ChunkPut, Draft, EpochReason, Foreign, ForeignBatch, ForeignOutcome, Listed, OpenReport,
    OwnEpoch, Progress, Received, Stats, TrimReport, VerifyReport, Which,
};
use crate::verify;
use crate::view::{IndexSlot, Log, Walk};

/// The durable ordered log of this node. A cheap handle; the last one dropped closes the journal, after what was
/// appended is durable.
///
/// Calls may block on the disk, except those that return a [`Ticket`]: they only queue.
#[derive(Clone)]
pub struct Journal(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    committer: Mutex<Option<JoinHandle<()>>>,
    next_token: AtomicU64,
    /// Declared last: the lock is given back when everything else is closed.
    _lock: Box<dyn DiskLock>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.queue.close();
        let committer = lock(&self.committer).take();
        // A callback that held the last handle runs on the committer's own thread.
        if let Some(thread) = committer.filter(|thread| thread.thread().id() != std::thread::current().id())
            && thread.join().is_err()
        {
            tracing::error!("the journal's committer panicked; acknowledged entries are durable");
        }
    }
}

impl Journal {
    /// Opens or creates the journal, for this process alone.
    ///
    /// # Errors
    /// When another process has it, it is another node's, or the disk does not answer.
    pub fn open(options: JournalOptions) -> Result<(Self, OpenReport), OpenError> {
        Self::open_with_progress(options, &mut |_| {})
    }

    /// As [`Journal::open`]; `progress` hears how far a rebuild of the index is.
    ///
    /// # Errors
    /// As for [`Journal::open`].
    pub fn open_with_progress(
        options: JournalOptions,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(Self, OpenReport), OpenError> {
        let JournalOptions { dir, node, disk, clock, settings, index, at_rest } = options;
        let (segment_bytes, limit_bytes) = (settings.segment_bytes.0, settings.limit_bytes.0);
        if !(4 << 10..=1 << 30).contains(&segment_bytes) {
            return Err(OpenError::Settings("segment_bytes must be between 4KiB and 1GiB"));
        }
        if limit_bytes < segment_bytes {
            return Err(OpenError::Settings("limit_bytes must not be less than segment_bytes"));
        }
        if matches!(&at_rest, AtRest::Sealed { keys, .. } if keys.newest().is_none()) {
            return Err(OpenError::NoKeys);
        }
        let segments = segments_dir(&dir);
        disk.create_dir_all(&segments).map_err(disk_error(format!("making {}", segments.display())))?;
        let lock_path = dir.join("lock");
        let lock = disk.lock(&lock_path).map_err(|e| match e {
            LockError::Held { holder } => {
                OpenError::Locked { dir: dir.clone(), holder: holder.unwrap_or_else(|| "another process".to_owned()) }
            }
            LockError::Io(e) => disk_error(format!("locking {}", lock_path.display()))(e),
        })?;

        let reserve = Reserve::open(Arc::clone(&disk), &dir, limit_bytes, settings.reserve_bytes.0);
        // What a killed process made or removed may be undone by a power cut as long as nobody has synced the names.
        let names = unless(Mutation::SkipOpenDirSync, || disk.sync_dir(&dir).and_then(|()| disk.sync_dir(&segments)));
        names.map_err(disk_error("making the names of segment files durable"))?;
        let suspect = mend_suspect(&*disk, &dir).map_err(disk_error("writing the segment in doubt anew"))?;
        rewrite::discard_leftovers(&*disk, &dir).map_err(disk_error("removing what was left of a rewriting"))?;
        let mut loaded = load(&*disk, &dir, Some(node), &at_rest.keys(), Access::Owner)?;
        // A trim that was cut short is finished: the log gave these segments up.
        let given_up: Vec<u32> = loaded.sealed.range(..=loaded.state.trimmed_through).map(|(n, _)| *n).collect();
        for number in &given_up {
            loaded.sealed.remove(number);
            disk.unlink(&segments.join(segment_name(*number))).map_err(disk_error("removing a trimmed segment"))?;
        }
        if !given_up.is_empty() {
            disk.sync_dir(&segments).map_err(disk_error("removing trimmed segments"))?;
        }

        let mut report = OpenReport {
            created: loaded.highest_segment == 0,
            discarded_bytes: loaded.discarded_bytes,
            damage: loaded.damage.clone(),
            footers_written: loaded.footers_written,
            ..OpenReport::default()
        };
        let mut reason = loaded.needs_epoch.or(suspect.then_some(EpochReason::SyncFailed));
        if loaded.state.epochs.is_empty() {
            reason = Some(if report.created { EpochReason::First } else { EpochReason::Damage });
        }
        let mut begun = false;
        let tail = match loaded.tail.take() {
            Some(tail) => tail,
            None => {
                // With the segment, in one sync: what is lost stands before it, where the next open does not look for it.
                if let Some(why) = reason.filter(|_| !report.created)
                    && loaded.state.begin_epoch(why)
                {
                    (begun, reason) = (true, None);
                }
                let chain = loaded.sealed.values().next_back().map_or([0; 32], |s| s.summary.chain_end);
                let number = loaded.highest_segment + 1;
                let sealer = Sealer::fresh(node, number, &at_rest);
                create_segment(&*disk, &dir, sealer, &loaded.state, chain, clock.now())
                    .map_err(|e| e.source)
                    .map_err(disk_error("making a segment file"))?
            }
        };
        let view = loaded.into_view(tail);
        let (slot, rebuilt) = open_index(&dir, node, index, &view, progress)?;
        report.index_rebuilt = rebuilt;
        report.segments = view.sealed.len() as u32 + 1;

        let mut log = Log::new(node, limit_bytes, view, Some(slot));
        let quarantine = Quarantine::open(Arc::clone(&disk), &dir, Arc::clone(&clock));
        log.quarantine = Some(quarantine);
        // Places of which no copy can be kept are in the report all the same.
        log.keep_aside(&report.damage, false).ok();
        let opened_at = log.read().state.next_pos;
        let shared = Arc::new(Shared {
            log,
            queue: Queue::default(),
            subscribers: Mutex::default(),
            stop_listeners: Mutex::default(),
            files: Mutex::default(),
            reserve,
            moot: Moot::new(opened_at),
            place: Place { disk: Arc::clone(&disk), dir: dir.clone(), rewriting: Mutex::default() },
            at_rest: Mutex::new(at_rest),
            verified: Mutex::new(Verified::load(&*disk, &dir)),
            purging: Mutex::default(),
        });
        let mut committer = Committer::new(Arc::clone(&shared), disk, clock, dir, segment_bytes, reason);
        committer.begin_pending_epoch();
        if begun || reason.is_some() {
            report.new_epoch = shared.log.read().state.own_epochs().pop();
        }
        report.bytes = shared.log.read().bytes();
        let thread = std::thread::Builder::new().name("journal".to_owned()).spawn(move || committer.run());
        let thread = thread.map_err(disk_error("starting the journal's thread"))?;
        let committer = Mutex::new(Some(thread));
        let next_token = AtomicU64::new(1);
        let journal = Self(Arc::new(Inner { shared, committer, next_token, _lock: lock }));
        if !is(Mutation::SkipPurgeResume)
            && let Err(e) = journal.finish_purges()
        {
            // What was to go is still listed, and the next purge takes it along.
            tracing::error!(error = %e, "a purge that was begun before is not finished");
        }
        Ok((journal, report))
    }

    /// Whose journal it is.
    pub fn node(&self) -> NodeId {
        self.log().node
    }

    pub(crate) fn log(&self) -> &Log {
        &self.0.shared.log
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.0.shared
    }

    pub(crate) fn ask<T>(&self, request: impl FnOnce(crate::ticket::Completer<T>) -> Request) -> Ticket<T> {
        let (completer, ticket) = ticket();
        self.0.shared.queue.push(request(completer));
        ticket
    }

    /// Counts commits, what they took and what is refused from here on; the first call counts.
    pub fn count_in(&self, metrics: Arc<telemetry::Metrics>) {
        self.0.shared.queue.figures.count_in(metrics);
    }

    /// Numbers an own entry and appends it.
    pub fn append_own(&self, draft: Draft) -> Ticket<Appended> {
        let body = BodyHash::of(&draft.body);
        self.ask(|completer| Request::Own(Box::new(draft), body, completer))
    }

    /// Appends what a peer sent, once.
    pub fn append_foreign(&self, foreign: Foreign) -> Ticket<ForeignOutcome> {
        self.ask(|completer| Request::Foreign(foreign, completer))
    }

    /// Closes the epoch and opens the next.
    pub fn start_epoch(&self, reason: EpochReason) -> Ticket<Epoch> {
        self.ask(|completer| Request::Epoch(reason, completer))
    }

    /// Appends own entries again under new numbers; the old ones end as superseded for every consumer.
    /// What is not held any more, or was given up before, is left out of the answer. After an error, or a power cut before
    /// the answer, an entry may stand under both numbers.
    pub fn reissue(&self, ids: Vec<EntryId>) -> Ticket<Vec<(EntryId, Appended)>> {
        self.ask(|completer| Request::Reissue(ids, completer))
    }

    /// Call before the first chunk of a file, and keep it until the entry is durable: until then its chunks stay.
    pub fn begin_file(&self) -> FileInProgress {
        let token = self.0.next_token.fetch_add(1, Ordering::Relaxed);
        let since = self.head();
        lock(&self.0.shared.files).insert(token, since);
        FileInProgress::new(self.clone(), token, since)
    }

    /// Appends a chunk unless it is held. Compresses it on the caller's thread.
    pub fn put_chunk(&self, name: ChunkName, bytes: &[u8]) -> Ticket<ChunkPut> {
        self.put_chunk_for(None, name, bytes, None)
    }

    /// As [`Journal::put_chunk`], for a file of a peer: refused as [`ChunkPut::Purged`] once that was purged. Written from
    /// `base` where that is held and the chunk is shorter then; the caller knows both to be of one label.
    pub fn put_chunk_of(
        &self,
        file: EntryId,
        name: ChunkName,
        bytes: &[u8],
        base: Option<ChunkName>,
    ) -> Ticket<ChunkPut> {
        self.put_chunk_for(Some(file), name, bytes, base)
    }

    fn put_chunk_for(
        &self,
        file: Option<EntryId>,
        name: ChunkName,
        bytes: &[u8],
        base: Option<ChunkName>,
    ) -> Ticket<ChunkPut> {
        if bytes.len() > CHUNK_BYTES_MAX {
            let (completer, ticket) = ticket();
            let (bytes, max) = (bytes.len() as u64, CHUNK_BYTES_MAX as u64);
            completer.complete(Err(AppendError::TooLarge { what: "chunk", bytes, max }));
            return ticket;
        }
        let whole = PackedChunk::pack(name, bytes);
        // Whatever stands in the way of using the base, the chunk is as good whole.
        let base = base.filter(|base| *base != name).and_then(|base| self.log().find_chunk(&base).ok()?);
        let base = base.and_then(|(_, base)| self.log().base_of(base).ok()?).filter(|base| base.name != name);
        let short = base.and_then(|base| PackedChunk::pack_from(name, bytes, &base, false));
        let short = short.filter(|short| short.pays_beside(&whole));
        self.ask(|completer| Request::Chunk(NewChunk { whole, short }, file, completer))
    }

    /// For a receiver that answers "have": true when the chunk is held, and it then stays as if it had been put here.
    pub fn retain_chunk(&self, name: ChunkName) -> Ticket<bool> {
        self.ask(|completer| Request::Retain(name, completer))
    }

    /// Is the chunk held?
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn has_chunk(&self, name: &ChunkName) -> Result<bool, ReadError> {
        Ok(self.get_chunk(name)?.is_some())
    }

    /// Plain bytes of a chunk. Its checksum on disk is verified here, its name is for the caller to verify.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn get_chunk(&self, name: &ChunkName) -> Result<Option<Arc<[u8]>>, ReadError> {
        Ok(self.log().chunk(name)?.map(Arc::from))
    }

    /// What a session with a peer reads.
    pub fn outbound(&self) -> OutboundView {
        OutboundView(self.clone())
    }

    /// Received entries at or after `from`: at most `max`, and about [`FOREIGN_BYTES_MAX`].
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn read_foreign(&self, from: LocalPos, max: usize) -> Result<ForeignBatch, ReadError> {
        // Taken before the walk: what arrives meanwhile is met by the next call.
        let head = self.head();
        let mut batch = ForeignBatch { entries: Vec::new(), next: head.max(from) };
        let mut bytes_left = FOREIGN_BYTES_MAX;
        self.log().walk(
            from.0,
            |summary| summary.has_foreign(),
            |prefix, bytes, _, _| {
                if prefix.own || prefix.pos >= head.0 {
                    return if prefix.pos >= head.0 { Walk::Stop } else { Walk::On };
                }
                if batch.entries.len() >= max || bytes_left == 0 {
                    batch.next = LocalPos(prefix.pos);
                    return Walk::Stop;
                }
                if let Ok(entry) = wire::decode_entry(bytes) {
                    batch.entries.push(Received { pos: LocalPos(prefix.pos), entry, hash: prefix.hash });
                }
                bytes_left = bytes_left.saturating_sub(bytes.len());
                Walk::On
            },
        )?;
        Ok(batch)
    }

    /// The position that the next entry will have, or a lower one.
    pub fn head(&self) -> LocalPos {
        LocalPos(self.log().read().state.next_pos)
    }

    /// `callback` runs whenever entries or chunks have become durable, on the committer's thread: it must be quick and must
    /// not wait for the journal. It ends when the subscription is dropped.
    pub fn on_append(&self, callback: Box<dyn Fn() + Send + Sync>) -> Subscription {
        let token = self.0.next_token.fetch_add(1, Ordering::Relaxed);
        lock(&self.0.shared.subscribers).insert(token, callback.into());
        Subscription { shared: Arc::downgrade(&self.0.shared), token }
    }

    /// `listener` runs once if the journal stops taking anything because the disk failed, with the reason, on the committer's
    /// thread. One that is given to a journal that has stopped runs at once.
    pub fn on_stop(&self, listener: impl FnOnce(&str) + Send + 'static) {
        let mut listeners = lock(&self.0.shared.stop_listeners);
        let stopped = self.log().read().stopped.clone();
        match stopped {
            Some(why) => listener(&why),
            None => listeners.push(Box::new(listener)),
        }
    }

    /// The entry that created an object.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn creator(&self, object: ObjectKey) -> Result<Option<EntryId>, ReadError> {
        self.log().creator(object)
    }

    /// Highest source position among own entries: what lies at or below it is captured. After a power cut that tore a write,
    /// entries behind a missing one do not count.
    pub fn highest_source(&self) -> Option<SourcePosition> {
        self.log().read().state.highest_source.map(SourcePosition)
    }

    /// This node's epochs, oldest first; the last one is open.
    pub fn epochs(&self) -> Vec<OwnEpoch> {
        self.log().read().state.own_epochs()
    }

    /// Every origin's numbers that are durable here, as [`Journal::received`].
    pub fn received_from_all(&self) -> BTreeMap<(NodeId, Epoch), RangeSet> {
        self.log().read().state.received.clone()
    }

    /// Numbers of another origin that are durable here, those trimmed since included.
    pub fn received(&self, origin: NodeId) -> BTreeMap<Epoch, RangeSet> {
        let view = self.log().read();
        let all = view.state.received.iter().filter(|((node, _), _)| *node == origin);
        all.map(|((_, epoch), set)| (*epoch, set.clone())).collect()
    }

    /// Own numbers that were given out and whose entries cannot be read: they can never be sent, and count as
    /// quarantined for every consumer.
    pub fn unreadable(&self) -> BTreeMap<Epoch, RangeSet> {
        let view = self.log().read();
        let mut sets: BTreeMap<Epoch, RangeSet> = BTreeMap::new();
        for (epoch, numbers) in view.summaries().flat_map(|(_, summary)| &summary.unreadable) {
            sets.entry(*epoch).or_default().union_with(numbers);
        }
        sets
    }

    /// Own numbers that were given out and whose entries are held no more: a consumer registered since then never gets them.
    pub fn trimmed(&self) -> BTreeMap<Epoch, RangeSet> {
        let view = self.log().read();
        let given_out = view.state.own_epochs().into_iter().filter_map(|e| Some((e.epoch, 1..=e.last?.get())));
        let mut sets: BTreeMap<Epoch, RangeSet> = given_out.map(|(epoch, all)| (epoch, RangeSet::from(all))).collect();
        for page in view.summaries().flat_map(|(_, summary)| &summary.pages) {
            if let Some(set) = sets.get_mut(&page.epoch) {
                *set = set.difference(&RangeSet::from(page.range()));
            }
        }
        sets.retain(|_, set| !set.is_empty());
        sets
    }

    /// Own numbers whose entries were purged: they are never sent (again), and end so for every consumer.
    pub fn purged(&self) -> BTreeMap<Epoch, RangeSet> {
        self.log().read().state.purged.clone()
    }

    /// How many numbers [`Journal::purged`] has.
    pub fn purged_count(&self) -> u64 {
        self.log().read().state.purged.values().map(RangeSet::count).sum()
    }

    /// Grows whenever it changes what is damaged, missed or asked for again.
    pub fn damage_changes(&self) -> u64 {
        self.log().damage_changes()
    }

    /// Hash of an entry that is held.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn hash_of(&self, id: EntryId) -> Result<Option<EntryHash>, ReadError> {
        self.log().hash_of(&id)
    }

    /// The durable consumer of this name; registered when new, `required` updated when it differs.
    ///
    /// # Errors
    /// When the registration cannot be made durable.
    pub fn consumer(&self, name: &str, required: bool) -> Result<Consumer, AppendError> {
        Consumer::register(self, name, required)
    }

    /// How far an own entry is at a consumer: is it durable there, and how did it end, if it did?
    pub fn receipt(&self, consumer: &str, epoch: Epoch, seq: Seq) -> (bool, Option<model::Outcome>) {
        let view = self.log().read();
        let Some(account) = view.state.consumers.get(consumer) else { return (false, None) };
        let stored = account.state.stored.get(&epoch).is_some_and(|set| set.contains(seq.get()));
        (stored, account.outcome_of(epoch, seq.get()))
    }

    /// Forgets a consumer: trimming does not wait for it any more. False when there was none of this name.
    ///
    /// # Errors
    /// When that cannot be made durable.
    pub fn remove_consumer(&self, name: &str) -> Result<bool, AppendError> {
        self.ask(|completer| Request::RemoveConsumer(name.to_owned(), completer)).wait()
    }

    /// Names of the registered consumers.
    pub fn consumers(&self) -> Vec<String> {
        self.log().read().state.consumers.keys().cloned().collect()
    }

    /// The equation for one consumer; `None` when it is not registered.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn accounting(&self, consumer: &str) -> Result<Option<Accounting>, ReadError> {
        self.log().accounting(consumer)
    }

    /// Removes the oldest segments as far as every required consumer is done with them.
    ///
    /// # Errors
    /// When the new state cannot be made durable; then nothing is removed.
    pub fn trim(&self) -> Result<TrimReport, AppendError> {
        self.ask(Request::Trim).wait()
    }

    /// How much room there is and what is refused, as of the last check.
    pub fn space(&self) -> Space {
        let used = self.log().read().bytes();
        self.0.shared.reserve.space(used)
    }

    /// Looks at the disk anew, makes the reserve again where it was used, and says what is refused. Called every second, it
    /// is what lets a full journal go on when room returns. Blocks on the disk.
    pub fn check_space(&self) -> Space {
        let used = self.log().read().bytes();
        self.0.shared.reserve.check(used)
    }

    /// Returns when everything appended before, and every receipt recorded before, is durable.
    pub fn flush(&self) -> Ticket<()> {
        self.ask(Request::Flush)
    }

    /// Reads everything and checks it.
    ///
    /// # Errors
    /// When a file cannot be read at all; damage is a finding and no error.
    pub fn verify(&self, progress: &mut dyn FnMut(Progress)) -> Result<VerifyReport, ReadError> {
        verify::verify(self.log(), progress)
    }

    /// Sizes and state.
    pub fn stats(&self) -> Stats {
        self.log().stats()
    }

    /// Entries of a range of positions, at most `max`.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn list(&self, range: Range<LocalPos>, max: usize) -> Result<Vec<Listed>, ReadError> {
        self.log().list(range.start.0, range.end.0, max)
    }

    /// One entry; `None` when it is not held.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn show(&self, which: Which) -> Result<Option<Listed>, ReadError> {
        self.log().show(which)
    }
}

/// One read of received entries holds no more than this and one entry.
const FOREIGN_BYTES_MAX: usize = 4 << 20;

/// Opens the index and brings it up to the log. The second value says why it had to be made anew.
fn open_index(
    dir: &std::path::Path,
    node: NodeId,
    place: IndexPlace,
    view: &crate::view::View,
    progress: &mut dyn FnMut(Progress),
) -> Result<(IndexSlot, Option<String>), OpenError> {
    let segments: Vec<_> = view.sealed.values().cloned().collect();
    let failed = || disk_error("reading segments for the index");
    let memory = || IndexSlot { index: Box::new(MemoryIndex::default()), generation: 0, dir: None };
    let IndexPlace::Sled = place else {
        let mut slot = memory();
        slot.cover(node, &segments, progress).map_err(failed())?;
        return Ok((slot, None));
    };
    let path: PathBuf = dir.join("index");
    let existed = path.exists();
    let numbers: Vec<u32> = segments.iter().map(|s| s.number).collect();
    let opened = SledIndex::open(&path, node).and_then(|mut index| {
        use crate::index::Index;
        index.retain(&numbers)?;
        let mut behind = Vec::new();
        for segment in &segments {
            if !index.covers(segment.sealed())? {
                behind.push(segment.number);
            }
        }
        Ok((index, behind))
    });
    match opened {
        Ok((index, behind)) => {
            let why = match (existed, behind.is_empty()) {
                (_, true) => None,
                (false, false) => Some("it was missing".to_owned()),
                (true, false) => Some(format!("it was behind the log by {} segments", behind.len())),
            };
            let mut slot = IndexSlot { index: Box::new(index), generation: 0, dir: Some(path) };
            slot.cover(node, &segments, progress).map_err(failed())?;
            Ok((slot, why))
        }
        Err(e) => {
            let mut slot = IndexSlot { dir: Some(path), ..memory() };
            slot.rebuild(node, &segments, progress).map_err(failed())?;
            Ok((slot, Some(format!("it was damaged ({e:?}) and was moved aside"))))
        }
    }
}

/// Own entries and chunks for a session.
#[derive(Clone)]
pub struct OutboundView(Journal);

impl OutboundView {
    fn held(&self, id: EntryId) -> Result<Option<Outgoing>, OutboundError> {
        Ok(self.0.log().entry(&id)?.map(|held| Outgoing {
            pos: LocalPos(held.prefix.pos),
            entry: Arc::new(held.entry),
            bytes: held.bytes,
            hash: held.prefix.hash,
        }))
    }
}

impl Outbound for OutboundView {
    fn scan(&self, class: Precedence, from: LocalPos, bytes_max: usize) -> Result<Scan, OutboundError> {
        let head = self.0.head();
        let mut scan = Scan { entries: Vec::new(), next: head.max(from) };
        let mut bytes_total = 0;
        let wanted = |summary: &crate::summary::Summary| summary.classes[class.index()].last >= from.0;
        self.0.log().walk(from.0, wanted, |prefix, bytes, _, _| {
            if prefix.pos >= head.0 {
                return Walk::Stop;
            }
            if !prefix.own || prefix.class != class {
                return Walk::On;
            }
            if bytes_total > 0 && bytes_total + bytes.len() > bytes_max {
                scan.next = LocalPos(prefix.pos);
                return Walk::Stop;
            }
            bytes_total += bytes.len();
            if let Ok(entry) = wire::decode_entry(bytes) {
                let (pos, hash) = (LocalPos(prefix.pos), prefix.hash);
                scan.entries.push(Outgoing { pos, entry: Arc::new(entry), bytes: bytes.into(), hash });
            }
            Walk::On
        })?;
        Ok(scan)
    }

    fn entry(&self, id: EntryId) -> Result<Option<Outgoing>, OutboundError> {
        if id.origin == self.0.node() { self.held(id) } else { Ok(None) }
    }

    fn received(&self, id: EntryId) -> Result<Option<Outgoing>, OutboundError> {
        if id.origin == self.0.node() { Ok(None) } else { self.held(id) }
    }

    fn superseded(&self, entry: &Outgoing) -> bool {
        let id = entry.entry.header.id;
        let renumbered = |epoch: Epoch, seq: Seq| {
            self.0.log().read().state.renumbered.get(&epoch).is_some_and(|set| set.contains(seq.get()))
        };
        if renumbered(id.epoch, id.seq) {
            return true;
        }
        let Some(key) = entry.entry.header.supersedes else { return false };
        match self.0.log().newest_with(key, entry.pos.0) {
            Ok(newest) => newest.is_some_and(|pos| pos > entry.pos.0),
            Err(e) => {
                // Sending what is moot costs bytes; dropping what is not would lose it.
                tracing::warn!(error = %e, %id, "not known whether a newer state exists; sending this one");
                false
            }
        }
    }

    fn chunk(&self, name: &ChunkName) -> Result<Option<Arc<[u8]>>, OutboundError> {
        Ok(self.0.get_chunk(name)?)
    }

    fn chunk_base(&self, name: &ChunkName) -> Result<Option<ChunkName>, OutboundError> {
        Ok(self.0.log().find_chunk(name)?.and_then(|(_, chunk)| chunk.base()))
    }

    fn holds_chunk(&self, name: &ChunkName) -> Result<bool, OutboundError> {
        Ok(self.0.has_chunk(name)?)
    }

    fn hash_of(&self, id: EntryId) -> Result<Option<EntryHash>, OutboundError> {
        Ok(self.0.hash_of(id)?)
    }
}

/// Ends a callback when dropped; see [`Journal::on_append`].
#[must_use = "the callback ends when this is dropped"]
pub struct Subscription {
    shared: Weak<Shared>,
    token: u64,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            lock(&shared.subscribers).remove(&self.token);
        }
    }
}
