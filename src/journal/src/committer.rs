//! The only writer of the log: a thread that writes what has arrived, syncs once, then answers.
//!
//! ```text
//! callers --requests--> queue --batch--> one append, one fdatasync --> view --> tickets, subscribers
//!                         ^ what arrives while the disk syncs waits here and shares the next sync
//! ```
//! Nothing of a batch is visible before it is durable. A batch that the disk has no room for leaves no trace. When the
//! disk fails to sync, nobody knows what it holds: the journal stops acknowledging and stays readable.
//!
//! A write that lengthens the newest segment lengthens it by zeros as well, for the next ones to be written on: a sync of these
//! has no length and no place to note, only data (docs/adr/0020).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use keys::DataKeys;
use model::{
    ChunkName, Clock, Disk, DiskFile, Entry, EntryHash, EntryId, Epoch, Header, Hlc, LocalPos, NodeId, ObjectKey,
    Outcome, Precedence, RangeSet, Seq, StreamId,
};

use wire::{BodyHash, EntryHead, OwnEntries, WireError};

use crate::error::AppendError;
use crate::expiry::Moot;
use crate::figures::Stopwatch;
use crate::format::{
    CHUNK_BYTES_MAX, Chain, EntryPrefix, EntryRecord, EpochOpened, FrameKind, PackedChunk, Record, RenumberedFrame,
    link_chain, segment_name, split, to_cbor,
};
use crate::holds::Covered;
use crate::load::{create_segment, footer_of, note_suspect, segments_dir, write_last};
use crate::mutations::{Mutation, is, unless};
use crate::pages::{PageCache, RowsAt};
use crate::purge::PurgeFrame;
use crate::queue::{NewChunk, Queue, Request, Woken};
use crate::reserve::{Need, Reserve, is_full, tail_bytes_max};
use crate::rewrite::{self, Rewritten};
use crate::scan::{Found, Scanner};
use crate::scrub::Verified;
use crate::sealer::Sealer;
use crate::settings::AtRest;
use crate::state::Added;
use crate::summary::{Summary, print_of_chunk};
use crate::ticket::Completer;
use crate::types::{Appended, ChunkPut, Chunks, Draft, EpochReason, Foreign, ForeignOutcome, TrimReport};
use crate::view::{Log, Segment};

/// Most bytes in one write: above this a sync takes longer than gathering saves.
const BATCH_BYTES: usize = 4 << 20;

/// Zeros that are written ahead at once: some twenty writes of 64 messages find room there. A mebibyte is written in 1 ms by a
/// fast disk, and in 50 ms by a card.
const AHEAD_BYTES: usize = 1 << 20;

/// A larger batch takes longer to write than its sync does: it is not worth writing zeros for the next one.
const AHEAD_BATCH_MAX: usize = AHEAD_BYTES / 4;

static ZEROS: [u8; AHEAD_BYTES] = [0; AHEAD_BYTES];

/// Receipts ride along with appends while they are few; more of them wait until there is nothing else.
const RECEIPTS_RANGES: usize = 256;

/// What consumer states may take beyond `journal.limit_bytes`: without it a full journal could not be trimmed.
const LIMIT_RESERVE: u64 = 16 << 20;

/// Objects whose creators were looked up lately; 64 k x some 60 bytes.
const CREATORS_MAX: usize = 1 << 16;

type Callback = Arc<dyn Fn() + Send + Sync>;

/// Is told why the journal stopped.
pub(crate) type StopListener = Box<dyn FnOnce(&str) + Send>;

/// What the handles and the committer share.
pub(crate) struct Shared {
    pub(crate) log: Log,
    pub(crate) queue: Queue,
    pub(crate) subscribers: Mutex<BTreeMap<u64, Callback>>,
    pub(crate) stop_listeners: Mutex<Vec<StopListener>>,
    /// Files whose chunks are being put, with the position before their first chunk.
    pub(crate) files: Mutex<BTreeMap<u64, LocalPos>>,
    pub(crate) reserve: Reserve,
    pub(crate) moot: Moot,
    /// Where the journal lies, for what callers do on their own threads.
    pub(crate) place: Place,
    /// How new segments are sealed.
    pub(crate) at_rest: Mutex<AtRest>,
    /// When sealed segments were verified.
    pub(crate) verified: Mutex<Verified>,
    /// Held while a purge is carried out.
    pub(crate) purging: Mutex<()>,
}

pub(crate) struct Place {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    /// Held while a segment is written anew: two copies of one segment would have the same name.
    pub(crate) rewriting: Mutex<()>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) struct Committer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) dir: PathBuf,
    pub(crate) segment_bytes: u64,
    /// An epoch that must begin before anything is numbered.
    pub(crate) pending_epoch: Option<EpochReason>,
    pub(crate) creators: HashMap<ObjectKey, EntryId, RandomState>,
    own: OwnEntries,
    /// How many requests the last commit answered.
    answered: usize,
    /// Shared by the segments that it seals.
    pages: Arc<PageCache>,
    /// Said once, not with each batch.
    roll_failed: bool,
    /// The disk took no zeros; they are tried again in the next segment.
    no_zeros: bool,
    covered: Covered,
    /// Room that the last batch's bytes had.
    spare: Vec<u8>,
}

/// Answers a ticket once it is known whether the batch is durable.
type Answer = Box<dyn FnOnce(Result<(), AppendError>)>;

/// What will be written with one sync.
pub(crate) struct Batch {
    base: u64,
    /// Bytes of the journal before it.
    used: u64,
    sealer: Sealer,
    /// Hash chain at its end.
    chain: Chain,
    buf: Vec<u8>,
    records: Vec<(u64, Record)>,
    answers: Vec<Answer>,
    /// When what they answer was asked for.
    asked: Vec<Stopwatch>,
    pub(crate) next_pos: u64,
    epoch: Option<(Epoch, u64)>,
    /// Of the own entries before and in this batch.
    highest_source: Option<Hlc>,
    /// Entries in it that peers sent.
    pub(crate) received: HashMap<EntryId, EntryHash>,
    objects: HashMap<ObjectKey, EntryId, RandomState>,
    /// The last own entry in it of each stream and precedence.
    lanes: HashMap<(StreamId, Precedence), (Epoch, Seq), RandomState>,
    chunks: HashSet<ChunkName>,
    needed: HashSet<ChunkName>,
    /// Prints of those needed that are not marked yet: in one frame, before what needs them.
    unmarked: Vec<u64>,
    /// Consumers whose states are in it, up to which version, and what of them.
    consumers: Vec<(String, u64, Added)>,
    /// Something in it may use the reserve.
    pub(crate) urgent: bool,
}

impl Batch {
    fn answer<T: 'static>(&mut self, completer: Completer<T>, value: T) {
        self.asked.push(completer.asked());
        self.answers.push(Box::new(move |result| completer.complete(result.map(|()| value))));
    }

    pub(crate) fn push(&mut self, kind: FrameKind, payload: &[&[u8]], record: Record) {
        let offset = self.sealer.push(&mut self.buf, self.base, kind, payload);
        // Here, where it makes nobody wait: the next request has mostly not come yet.
        if let Some(hash) = record.chained() {
            self.chain = link_chain(&self.chain, hash);
        }
        self.records.push((offset, record));
    }

    /// Marks what is needed from further back. A file shared again is little else, so its marks share a frame.
    fn mark_needed(&mut self) {
        if !self.unmarked.is_empty() {
            let prints = std::mem::take(&mut self.unmarked);
            let payload: Vec<u8> = prints.iter().flat_map(|print| print.to_be_bytes()).collect();
            self.push(FrameKind::ChunksNeeded, &[&payload], Record::ChunksNeeded(prints));
        }
    }
}

impl Committer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        dir: PathBuf,
        segment_bytes: u64,
        pending_epoch: Option<EpochReason>,
    ) -> Self {
        Self {
            own: OwnEntries::of(shared.log.node),
            shared,
            disk,
            clock,
            dir,
            segment_bytes,
            pending_epoch,
            creators: HashMap::default(),
            answered: 0,
            pages: Arc::default(),
            roll_failed: false,
            no_zeros: false,
            covered: Covered::default(),
            spare: Vec::new(),
        }
    }

    pub(crate) fn run(mut self) {
        loop {
            match self.shared.queue.next(BATCH_BYTES, self.answered > 1) {
                Woken::Requests(requests) => self.take(requests),
                Woken::Receipts => {
                    if let Err(e) = self.flush_consumers() {
                        tracing::warn!(error = %e, "receipts are not on disk yet; they are written with the next append");
                    }
                }
                Woken::Closed => return,
            }
        }
    }

    /// Begins the epoch that open asks for, unless the disk is full: then the first batch that fits begins it.
    pub(crate) fn begin_pending_epoch(&mut self) {
        if self.pending_epoch.is_some() {
            let batch = self.begin();
            if let Err(e) = self.commit(batch) {
                tracing::warn!(error = %e, "the new epoch begins with the first append that succeeds");
            }
        }
    }

    pub(crate) fn node(&self) -> NodeId {
        self.shared.log.node
    }

    /// Appends the requests in their order, and those that join them.
    fn take(&mut self, requests: Vec<Request>) {
        let mut batch = self.begin();
        let mut requests = requests;
        // Refused ones count too: who asks again at once must not keep the others waiting.
        let mut planned = 0;
        while !requests.is_empty() {
            planned += requests.len();
            self.plan(&mut batch, requests);
            // Writers that were answered together come back together: without waiting for them the first would have a
            // sync of its own, and all others would sit through it.
            let is_whole = planned >= self.answered || batch.buf.len() >= BATCH_BYTES;
            requests = if is_whole { Vec::new() } else { self.shared.queue.more(BATCH_BYTES - batch.buf.len()) };
        }
        self.plan_consumers(&mut batch, RECEIPTS_RANGES);
        // Whoever waits for it has been told.
        self.commit(batch).ok();
        self.roll_if_due();
    }

    /// Commits what is planned so far; `batch` goes on empty.
    fn commit_planned(&mut self, batch: &mut Batch) -> Result<(), AppendError> {
        // What stands in for it meanwhile is never written.
        let planned = std::mem::replace(batch, self.begin());
        let result = self.commit(planned);
        *batch = self.begin();
        result
    }

    fn plan(&mut self, batch: &mut Batch, requests: Vec<Request>) {
        for request in requests {
            match request {
                Request::Own(draft, body, completer) => match self.plan_own(batch, *draft, &body) {
                    Ok(appended) => batch.answer(completer, appended),
                    Err(e) => self.shared.queue.figures.refuse(completer, e),
                },
                Request::Foreign(foreign, completer) => match self.plan_foreign(batch, &foreign) {
                    Ok(outcome) => batch.answer(completer, outcome),
                    Err(e) => self.shared.queue.figures.refuse(completer, e),
                },
                Request::Epoch(reason, completer) => match self.plan_epoch(batch, reason) {
                    Ok(epoch) => batch.answer(completer, epoch),
                    Err(e) => self.shared.queue.figures.refuse(completer, e),
                },
                Request::Reissue(ids, completer) => match self.plan_reissue(batch, &ids) {
                    Ok(appended) => {
                        // The new entries first: of what shares a sync a power cut may keep any part.
                        let written = match is(Mutation::SkipReissueOrder) {
                            true => Ok(()),
                            false => self.commit_planned(batch),
                        };
                        match written {
                            Ok(()) => {
                                give_up(batch, &appended);
                                batch.answer(completer, appended);
                            }
                            Err(e) => self.shared.queue.figures.refuse(completer, e),
                        }
                    }
                    Err(e) => self.shared.queue.figures.refuse(completer, e),
                },
                Request::Chunk(chunk, file, completer) => match self.plan_chunk(batch, &chunk, file) {
                    Ok(put) => batch.answer(completer, put),
                    Err(e) => self.shared.queue.figures.refuse(completer, e),
                },
                Request::Retain(name, completer) => match self.plan_needed(batch, &name) {
                    Ok(held) => batch.answer(completer, held),
                    Err(e) => self.shared.queue.figures.refuse(completer, e),
                },
                Request::MakeWhole(names, completer) => {
                    self.commit_planned(batch).ok();
                    completer.complete(self.make_whole(&names));
                    *batch = self.begin();
                }
                Request::RemoveConsumer(name, completer) => {
                    let known = self.shared.log.read().state.consumers.contains_key(&name);
                    if known {
                        batch.urgent = true;
                        batch.push(
                            FrameKind::ConsumerRemoved,
                            &[name.as_bytes()],
                            Record::ConsumerRemoved(name.clone()),
                        );
                    }
                    batch.answer(completer, known);
                }
                Request::Hold(frame, completer) => {
                    batch.urgent = true;
                    batch.push(FrameKind::Hold, &[&to_cbor(&*frame)], Record::Hold(frame));
                    batch.answer(completer, true);
                }
                Request::Flush(completer) => {
                    self.plan_consumers(batch, usize::MAX);
                    batch.urgent = true;
                    batch.answer(completer, ());
                }
                Request::UseKeys(keys, completer) => {
                    self.commit_planned(batch).ok();
                    completer.complete(self.use_keys(keys));
                    *batch = self.begin();
                }
                Request::Replace(rewritten, completer) => {
                    self.commit_planned(batch).ok();
                    completer.complete(self.replace(rewritten));
                    *batch = self.begin();
                }
                Request::Restore(returned, completer) => match self.plan_restore(batch, &returned) {
                    Ok(restored) => batch.answer(completer, restored),
                    Err(e) => self.shared.queue.figures.refuse(completer, e),
                },
                Request::Forget(lost, completer) => {
                    self.plan_forget(batch, &lost);
                    batch.answer(completer, ());
                }
                Request::Trim(completer) => {
                    self.commit_planned(batch).ok();
                    completer.complete(self.trim());
                    *batch = self.begin();
                }
                Request::BeginPurge(frame, completer) => {
                    self.commit_planned(batch).ok();
                    completer.complete(self.begin_purge(*frame));
                    *batch = self.begin();
                }
                Request::EndPurge(completer) => {
                    let frame = PurgeFrame::done();
                    batch.urgent = true;
                    batch.push(FrameKind::Purge, &[&to_cbor(&frame)], Record::Purge(Box::new(frame)));
                    batch.answer(completer, ());
                }
            }
        }
    }

    pub(crate) fn begin(&mut self) -> Batch {
        let view = self.shared.log.read();
        let mut batch = Batch {
            base: view.tail.end,
            used: view.bytes(),
            sealer: view.tail.sealer.clone(),
            chain: view.tail.growing.summary.chain_end,
            buf: std::mem::take(&mut self.spare),
            records: Vec::with_capacity(self.answered),
            answers: Vec::with_capacity(self.answered),
            asked: Vec::with_capacity(self.answered),
            next_pos: view.state.next_pos,
            epoch: view.state.current(),
            highest_source: view.state.highest_source,
            received: HashMap::new(),
            objects: HashMap::default(),
            lanes: HashMap::default(),
            chunks: HashSet::new(),
            needed: HashSet::new(),
            unmarked: Vec::new(),
            consumers: Vec::new(),
            urgent: false,
        };
        drop(view);
        if let Some(reason) = self.pending_epoch
            && let Err(e) = self.plan_epoch(&mut batch, reason)
        {
            tracing::error!(error = %e, "no epoch could be begun");
        }
        batch
    }

    /// Is there room for `more` bytes of this kind? What may use the reserve marks the batch.
    pub(crate) fn room(&self, batch: &mut Batch, need: Need, more: usize) -> Result<(), AppendError> {
        self.stopped()?;
        let planned = batch.buf.len() as u64;
        if need != Need::Control && batch.base + planned + more as u64 > tail_bytes_max(self.segment_bytes) {
            let why = "the newest segment is as large as it may be, and no new file can be made";
            return Err(AppendError::NoSpace(why.to_owned()));
        }
        self.shared.reserve.admit(need, batch.used + planned, more as u64)?;
        batch.urgent |= matches!(need, Need::Control | Need::Entry(Precedence::Flash));
        Ok(())
    }

    fn plan_epoch(&mut self, batch: &mut Batch, reason: EpochReason) -> Result<Epoch, AppendError> {
        let epoch = match batch.epoch {
            Some((epoch, _)) => epoch.next().ok_or(AppendError::NumbersUsedUp)?,
            None => Epoch::FIRST,
        };
        let previous_last = batch.epoch.map_or(0, |(_, last)| last);
        let opened = EpochOpened { epoch, reason: reason as u8, previous_last, next_pos: batch.next_pos };
        batch.urgent = true;
        batch.push(FrameKind::EpochOpened, &[&to_cbor(&opened)], Record::EpochOpened(opened));
        batch.epoch = Some((epoch, 0));
        Ok(epoch)
    }

    fn plan_own(&mut self, batch: &mut Batch, draft: Draft, body: &BodyHash) -> Result<Appended, AppendError> {
        if draft.follows.is_some() && draft.follows.map(|s| s.0) != batch.highest_source {
            return Err(AppendError::OutOfOrder);
        }
        let source = draft.source.0;
        let mut causes = draft.causes;
        for need in draft.needs {
            if let Some(id) = self.creator(batch, need)?
                && !causes.contains(&id)
            {
                causes.push(id);
            }
        }
        let id = self.next_id(batch)?;
        let header = Header {
            id,
            source: draft.source,
            stream: draft.stream,
            causes,
            after: None,
            precedence: draft.precedence,
            captured: draft.captured,
            origin_time: draft.origin_time,
            expiry: draft.expiry,
            supersedes: draft.supersedes,
            label: draft.label,
            kind: draft.kind,
            mint_salt: draft.mint_salt,
        };
        let entry = Entry { header, body: draft.body };
        let appended = self.push_own(batch, entry, body, draft.object, draft.chunks)?;
        batch.highest_source = batch.highest_source.max(Some(source));
        Ok(appended)
    }

    /// The number that the next own entry will have.
    fn next_id(&self, batch: &Batch) -> Result<EntryId, AppendError> {
        let (epoch, last) = batch.epoch.ok_or(AppendError::NumbersUsedUp)?;
        let seq = last.checked_add(1).and_then(Seq::new).ok_or(AppendError::NumbersUsedUp)?;
        Ok(EntryId { origin: self.node(), epoch, seq })
    }

    /// Plans an entry of this node.
    fn push_own(
        &mut self,
        batch: &mut Batch,
        mut entry: Entry,
        body: &BodyHash,
        object: Option<ObjectKey>,
        chunks: Option<Chunks>,
    ) -> Result<Appended, AppendError> {
        let lane = entry.header.lane();
        entry.header.after = lane.and_then(|lane| {
            batch.lanes.get(&lane).copied().or_else(|| self.shared.log.read().state.lanes.last(&lane))
        });
        // What peers would refuse must not get a number.
        let EntryHead { head, hash } = self.own.encode(&entry, body).map_err(refused)?;
        let Entry { header, body } = entry;
        let id = header.id;
        let pos = self.push_entry(batch, header, &[&head, &body], hash, object, chunks)?;
        batch.epoch = Some((id.epoch, id.seq.get()));
        if let Some(lane) = lane {
            batch.lanes.insert(lane, (id.epoch, id.seq));
        }
        Ok(Appended { id, pos, hash })
    }

    /// Plans an entry that `parts` encode.
    fn push_entry(
        &mut self,
        batch: &mut Batch,
        header: Header,
        parts: &[&[u8]; 2],
        hash: EntryHash,
        object: Option<ObjectKey>,
        chunks: Option<Chunks>,
    ) -> Result<LocalPos, AppendError> {
        let bytes = parts[0].len() + parts[1].len();
        self.room(batch, Need::Entry(header.precedence), bytes)?;
        batch.mark_needed();
        let (id, pos, class) = (header.id, batch.next_pos, header.precedence);
        let own = id.origin == self.node();
        let prefix = EntryPrefix { pos, own, class, hash, object, chunks };
        let record = EntryRecord { pos, own, class, hash, object, chunks, header, bytes: bytes as u32 };
        batch.push(FrameKind::Entry, &[&prefix.encode(), parts[0], parts[1]], Record::Entry(Box::new(record)));
        batch.next_pos += 1;
        if let Some(object) = object {
            batch.objects.entry(object).or_insert(id);
        }
        Ok(LocalPos(pos))
    }

    fn creator(&mut self, batch: &Batch, object: ObjectKey) -> Result<Option<EntryId>, AppendError> {
        if let Some(id) = self.creators.get(&object) {
            return Ok(Some(*id));
        }
        let found = self.shared.log.creator(object).map_err(|e| AppendError::Unreadable(e.0))?;
        if let Some(id) = found {
            if self.creators.len() >= CREATORS_MAX {
                self.creators.clear();
            }
            self.creators.insert(object, id);
        }
        Ok(found.or_else(|| batch.objects.get(&object).copied()))
    }

    fn plan_foreign(&mut self, batch: &mut Batch, foreign: &Foreign) -> Result<ForeignOutcome, AppendError> {
        let malformed = |e: wire::WireError| AppendError::Malformed(e.to_string());
        let entry = wire::decode_entry(&foreign.bytes).map_err(malformed)?;
        let theirs = wire::entry_hash(&foreign.bytes).map_err(malformed)?;
        let id = entry.header.id;
        if id.origin == self.node() {
            return Err(AppendError::Malformed("a peer sent an entry of this very node".to_owned()));
        }
        let held = match batch.received.get(&id) {
            Some(hash) => Some(Some(*hash)),
            None if self.shared.log.read().state.has_received(&id) => {
                Some(self.shared.log.hash_of(&id).map_err(|e| AppendError::Unreadable(e.0))?)
            }
            None => None,
        };
        match held {
            Some(Some(ours)) if ours != theirs => return Ok(ForeignOutcome::Conflict { ours, theirs }),
            Some(_) => return Ok(ForeignOutcome::AlreadyHeld),
            None => {}
        }
        let gaps = self.shared.log.read().state.received.get(&(id.origin, id.epoch)).map_or(0, RangeSet::ranges_len);
        if gaps + batch.received.len() >= RangeSet::RANGES_MAX {
            // An honest peer has a gap for each class that is behind, not one for each second number.
            return Err(AppendError::Malformed(format!("{id} would be one gap too many in what is received")));
        }
        let pos = self.push_entry(batch, entry.header, &[&foreign.bytes, &[]], theirs, foreign.object, None)?;
        batch.received.insert(id, theirs);
        Ok(ForeignOutcome::Stored(pos))
    }

    fn plan_reissue(&mut self, batch: &mut Batch, ids: &[EntryId]) -> Result<Vec<(EntryId, Appended)>, AppendError> {
        let mut appended = Vec::new();
        let node = self.node();
        for old in ids.iter().filter(|id| id.origin == node) {
            let gone =
                self.shared.log.read().state.renumbered.get(&old.epoch).is_some_and(|s| s.contains(old.seq.get()));
            let held = self.shared.log.entry(old).map_err(|e| AppendError::Unreadable(e.0))?;
            let Some(held) = held.filter(|_| !gone) else { continue };
            let id = self.next_id(batch)?;
            let entry = Entry { header: Header { id, ..held.entry.header }, body: held.entry.body };
            // The chunks that the old entry kept are kept by the new one too.
            let body = BodyHash::of(&entry.body);
            appended.push((*old, self.push_own(batch, entry, &body, held.prefix.object, held.prefix.chunks)?));
        }
        Ok(appended)
    }

    fn plan_chunk(
        &mut self,
        batch: &mut Batch,
        chunk: &NewChunk,
        file: Option<EntryId>,
    ) -> Result<ChunkPut, AppendError> {
        if file.is_some_and(|file| self.shared.log.read().state.is_purged(&file)) {
            return Ok(ChunkPut::Purged);
        }
        let NewChunk { whole, short } = chunk;
        if whole.bytes() > CHUNK_BYTES_MAX + 64 {
            let (bytes, max) = (whole.bytes() as u64, CHUNK_BYTES_MAX as u64);
            return Err(AppendError::TooLarge { what: "chunk", bytes, max });
        }
        if self.plan_needed(batch, &whole.name)? {
            return Ok(ChunkPut::AlreadyHeld);
        }
        let chunk = match short {
            Some(short) if self.is_base(batch, short)? => short,
            Some(_) | None => whole,
        };
        self.room(batch, Need::Files, chunk.bytes())?;
        self.push_chunk(batch, chunk);
        Ok(ChunkPut::Stored)
    }

    /// Can the chunk be read from its base once it is written? It then keeps its base by itself: no mark could be as
    /// durable as it is.
    fn is_base(&self, batch: &Batch, short: &PackedChunk) -> Result<bool, AppendError> {
        let Some(base) = short.base() else { return Ok(true) };
        if self.shared.log.read().state.is_purging_chunk(&base) {
            return Ok(false);
        }
        if batch.chunks.contains(&base) {
            return Ok(true);
        }
        Ok(self.shared.log.chunk(&base).map_err(|e| AppendError::Unreadable(e.0))?.is_some())
    }

    /// Writes chunks whole, durably, so that they can be read without their bases. What cannot be read is left as it is.
    fn make_whole(&mut self, names: &[ChunkName]) -> Result<(), AppendError> {
        let mut batch = self.begin();
        batch.urgent = true;
        for name in names {
            let held = self.shared.log.find_chunk(name).map_err(|e| AppendError::Unreadable(e.0))?;
            let Some((_, chunk)) = held.filter(|(_, chunk)| chunk.base().is_some()) else { continue };
            if batch.chunks.contains(name) {
                continue;
            }
            if let Some(plain) = self.shared.log.unpack(chunk).map_err(|e| AppendError::Unreadable(e.0))? {
                self.push_chunk(&mut batch, &PackedChunk::pack(*name, &plain));
            }
            if batch.buf.len() >= BATCH_BYTES {
                self.commit_planned(&mut batch)?;
                batch.urgent = true;
            }
        }
        self.commit(batch)?;
        self.roll_if_due();
        Ok(())
    }

    fn push_chunk(&self, batch: &mut Batch, chunk: &PackedChunk) {
        let offset = chunk.push(&batch.sealer, &mut batch.buf, batch.base);
        batch.records.push((offset, Record::Chunk { name: chunk.name, base: chunk.base() }));
        batch.chunks.insert(chunk.name);
    }

    /// Is the chunk held? Then it is marked as needed here, unless it stands in this very segment.
    fn plan_needed(&mut self, batch: &mut Batch, name: &ChunkName) -> Result<bool, AppendError> {
        if batch.chunks.contains(name) || batch.needed.contains(name) {
            return Ok(true);
        }
        if self.shared.log.read().state.is_purging_chunk(name) {
            return Ok(false);
        }
        // Unpacked, so that a damaged copy counts as none and is put again.
        if self.shared.log.chunk(name).map_err(|e| AppendError::Unreadable(e.0))?.is_none() {
            return Ok(false);
        }
        if !self.shared.log.tail_has_chunk(name) {
            self.room(batch, Need::Files, size_of::<u64>() * (batch.unmarked.len() + 1))?;
            batch.needed.insert(*name);
            batch.unmarked.push(print_of_chunk(name));
        }
        Ok(true)
    }

    /// Adds the consumers that changed, where what was added to their states has no more than so many ranges in all.
    fn plan_consumers(&mut self, batch: &mut Batch, ranges_max: usize) {
        let view = self.shared.log.read();
        let removed = |name: &str| {
            let mut records = batch.records.iter().map(|(_, record)| record);
            let gone = records.any(|record| matches!(record, Record::ConsumerRemoved(gone) if gone == name));
            gone && !is(Mutation::SkipRemovedFilter)
        };
        let dirty: Vec<_> =
            view.state.consumers.iter().filter(|(name, account)| account.is_dirty() && !removed(name)).collect();
        if dirty.iter().map(|(_, account)| account.added.ranges_len()).sum::<usize>() > ranges_max {
            return;
        }
        let reserve =
            view.bytes() + batch.buf.len() as u64 <= self.shared.log.limit_bytes.saturating_add(LIMIT_RESERVE);
        if !reserve {
            return;
        }
        for (name, account) in dirty {
            for frame in account.frames(name, &account.added) {
                batch.sealer.push(&mut batch.buf, batch.base, FrameKind::Consumer, &[&to_cbor(&frame)]);
            }
            batch.consumers.push((name.clone(), account.version, account.added.clone()));
        }
    }

    fn flush_consumers(&mut self) -> Result<(), AppendError> {
        let mut batch = self.begin();
        self.plan_consumers(&mut batch, usize::MAX);
        batch.urgent = true;
        self.commit(batch)
    }

    /// Makes the batch durable, shows it to readers, answers.
    pub(crate) fn commit(&mut self, mut batch: Batch) -> Result<(), AppendError> {
        batch.mark_needed();
        if !batch.buf.is_empty()
            && let Some(header) = self.shared.log.read().tail.header_due(batch.base + batch.buf.len() as u64)
        {
            batch.push(FrameKind::Header, &[&header], Record::Header);
        }
        let Batch { base, chain, mut buf, records, mut answers, asked, consumers, urgent, .. } = batch;
        self.answered = answers.len();
        if is(Mutation::AckBeforeSync) {
            answers.drain(..).for_each(|answer| answer(Ok(())));
        }
        let began = Stopwatch::start();
        let written = match buf.is_empty() {
            true => self.stopped().map(|()| None),
            false => self.write(base, &buf, urgent).map(Some),
        };
        let took = began.elapsed();
        if let Ok(Some(reach)) = written {
            self.pending_epoch = None;
            let damage = records.iter().any(|(_, r)| matches!(r, Record::Restored(_) | Record::DamageNote(_)));
            let mut view = self.shared.log.write();
            // It is durable. Who is woken by the answer prepares the next request meanwhile, and finds the view locked until
            // it shows what was answered.
            answers.drain(..).for_each(|answer| answer(Ok(())));
            for (offset, record) in &records {
                view.apply(record, *offset);
                self.shared.moot.note(record);
                if let Record::Renumbered(frame) = record {
                    let sets: Vec<_> = frame.numbers.iter().map(|(e, p)| (*e, crate::format::join(p))).collect();
                    view.end_for_all(Outcome::Superseded, &sets);
                }
                if let Record::Purge(frame) = record {
                    view.end_for_all(Outcome::Purged, &frame.own_sets());
                }
            }
            (view.tail.end, view.tail.reach) = (base + buf.len() as u64, reach);
            view.tail.growing.summary.chain_end = chain;
            if damage {
                view.recount();
                self.shared.log.note_damage_change();
            }
            for (name, version, added) in consumers {
                // A receipt that came during the write has raised the version since.
                if let Some(account) = view.state.consumers.get_mut(&name) {
                    account.is_written(version, &added);
                }
            }
        }
        let result = written.map(drop);
        answers.into_iter().for_each(|answer| answer(result.clone()));
        let figures = &self.shared.queue.figures;
        match &result {
            Ok(()) if buf.is_empty() => {}
            Ok(()) => figures.committed(took, &asked),
            Err(e) => asked.iter().for_each(|_| figures.refused(e)),
        }
        if result.is_ok() && !records.is_empty() {
            let callbacks: Vec<_> = lock(&self.shared.subscribers).values().cloned().collect();
            callbacks.iter().for_each(|callback| callback());
        }
        // A large batch is rare, and its room better given back.
        if buf.capacity() <= AHEAD_BYTES {
            buf.clear();
            self.spare = buf;
        }
        result
    }

    fn stopped(&self) -> Result<(), AppendError> {
        match &self.shared.log.read().stopped {
            Some(why) => Err(AppendError::Stopped(why.clone())),
            None => Ok(()),
        }
    }

    /// The disk did not sync: what the tail holds is in doubt, whatever a later sync says.
    fn stop_suspect(&self, why: String) -> AppendError {
        let segment = self.shared.log.read().tail.number;
        if let Err(e) = note_suspect(&*self.disk, &self.dir, segment) {
            tracing::error!(error = %e, "it could not be noted that the newest segment is in doubt");
        }
        self.stop(why)
    }

    fn stop(&self, why: String) -> AppendError {
        tracing::error!(why, "the journal stopped; what was acknowledged is durable, nothing more is accepted");
        self.shared.log.write().stopped = Some(why.clone());
        let listeners = std::mem::take(&mut *lock(&self.shared.stop_listeners));
        listeners.into_iter().for_each(|listener| listener(&why));
        AppendError::Stopped(why)
    }

    /// Writes a batch and syncs. Returns how long the file is then.
    fn write(&mut self, base: u64, bytes: &[u8], urgent: bool) -> Result<u64, AppendError> {
        self.stopped()?;
        let mut written = self.append(base, bytes);
        if let Err(AppendError::NoSpace(why)) = &written {
            let reserve = &self.shared.reserve;
            if reserve.note_short() {
                tracing::warn!(why, "the disk is full; what is less urgent is refused first");
            }
            if urgent && reserve.release(bytes.len() as u64) {
                written = self.append(base, bytes);
            }
        }
        written
    }

    fn append(&mut self, base: u64, bytes: &[u8]) -> Result<u64, AppendError> {
        let (file, before) = {
            let tail = &self.shared.log.read().tail;
            (Arc::clone(&tail.file), tail.reach)
        };
        match file.write_at(bytes, base) {
            Ok(()) => {
                let end = base + bytes.len() as u64;
                let reach = if end > before { self.write_ahead(&*file, end, bytes.len()) } else { before };
                self.shared.reserve.note_appended(reach - before);
                // Zeros below it are no reason to leave it out, nor is what it writes of them.
                let on_zeros = if end > before { Mutation::SkipSyncOfZeros } else { Mutation::SkipSyncOnZeros };
                let synced = unless(Mutation::SkipDataSync, || unless(on_zeros, || file.sync_data()));
                let synced = synced.or_else(|e| if is(Mutation::RetryFailedSync) { file.sync_data() } else { Err(e) });
                synced.map_err(|e| self.stop_suspect(format!("the disk did not sync: {e}")))?;
                Ok(reach)
            }
            Err(e) => {
                // Cut what was written of it, and make that durable: a piece of a refused batch must not come back.
                let cut = unless(Mutation::SkipTakeBack, || file.truncate(base));
                let cut = cut.and_then(|()| unless(Mutation::SkipTakeBackSync, || file.sync_data()));
                if let Err(e) = cut {
                    return Err(self.stop_suspect(format!("a partial write could not be taken back: {e}")));
                }
                self.shared.log.write().tail.reach = base;
                match is_full(&e) {
                    true => Err(AppendError::NoSpace(e.to_string())),
                    false => Err(self.stop(format!("the disk did not write: {e}"))),
                }
            }
        }
    }

    /// Lengthens the newest segment with zeros from `end` on, behind a batch of `len` bytes that lengthened it already, if the
    /// disk has room to spare. Returns its length.
    fn write_ahead(&mut self, file: &dyn DiskFile, end: u64, len: usize) -> u64 {
        // It is sealed when it is full.
        let zeros = self.segment_bytes.saturating_sub(end).min(AHEAD_BYTES as u64);
        let used = self.shared.log.read().bytes() + len as u64 + zeros;
        let is_worth_it = zeros > 0 && len <= AHEAD_BATCH_MAX && !self.no_zeros;
        if !is_worth_it || !self.shared.reserve.is_plenty(used, len as u64 + zeros) {
            return end;
        }
        match file.write_at(&ZEROS[..zeros as usize], end) {
            Ok(()) => end + zeros,
            Err(e) => {
                tracing::debug!(error = %e, "no zeros are written ahead");
                self.no_zeros = true;
                // For the room that they take. Those that stay are written over.
                file.truncate(end).ok();
                end
            }
        }
    }

    /// Closes the tail when it is large enough, and goes on in a new file.
    fn roll_if_due(&mut self) {
        if self.shared.log.read().tail.end < self.segment_bytes || self.stopped().is_err() {
            return;
        }
        if let Err(e) = self.roll() {
            // The old segment simply grows on; the next batch tries again.
            if !std::mem::replace(&mut self.roll_failed, true) {
                tracing::warn!(error = %e, "no new segment could be made; the newest one grows on");
            }
        } else {
            (self.roll_failed, self.no_zeros) = (false, false);
        }
    }

    pub(crate) fn roll(&mut self) -> io::Result<()> {
        let (number, chain, state) = {
            let view = self.shared.log.read();
            (view.tail.number + 1, view.tail.growing.summary.chain_end, view.state.clone())
        };
        // First the new file, durable in whole, then the old one's footer: one of them can always be continued.
        let created = self.clock.now();
        let sealer = Sealer::fresh(self.node(), number, &lock(&self.shared.at_rest));
        let tail = create_segment(&*self.disk, &self.dir, sealer, &state, chain, created).map_err(|e| {
            if e.may_appear && !is(Mutation::SkipStopInDoubt) {
                self.stop(format!("a new segment file can be neither made nor removed: {}", e.source));
            }
            e.source
        })?;
        let (footer, summary, file, sealer, end, reach, tables) = {
            let old = &self.shared.log.read().tail;
            let (footer, summary) = footer_of(&old.growing, &old.sealer, old.end, old.end);
            let (file, tables) = (Arc::clone(&old.file), Arc::clone(&old.growing.tables));
            (footer, summary, file, old.sealer.clone(), old.end, old.reach, tables)
        };
        let written = write_last(&*file, end, reach, &footer);
        let (bytes, rows) = match written.and_then(|()| unless(Mutation::SkipFooterSync, || file.sync_data())) {
            Ok(()) => (end + footer.len() as u64, RowsAt::footer(&self.pages)),
            Err(e) => {
                // Every frame was synced before; open reads the segment where the footer is missing.
                tracing::warn!(error = %e, segment = number - 1, "a segment got no footer");
                (end, RowsAt::Memory(Arc::new(self.shared.log.read().tail.growing.rows.clone())))
            }
        };
        let sealed = Segment { number: number - 1, file, sealer, end, bytes, summary, rows };
        // Indexed before anybody sees it as sealed, and without the view's lock: a rebuild takes both in this order.
        self.shared.log.index_put(&sealed, &tables);
        drop(tables);
        let sealed = Arc::new(sealed);
        {
            let mut view = self.shared.log.write();
            view.tail = tail;
            view.sealed.insert(sealed.number, Arc::clone(&sealed));
        }
        tracing::debug!(segment = sealed.number, bytes = sealed.bytes, "segment sealed");
        Ok(())
    }

    fn use_keys(&mut self, keys: DataKeys) -> Result<(), AppendError> {
        self.stopped()?;
        let newest = |keys: &DataKeys| keys.newest().map(|(number, _)| number);
        let same = {
            let mut at_rest = lock(&self.shared.at_rest);
            let same = newest(&at_rest.keys()) == newest(&keys);
            at_rest.use_keys(keys);
            same
        };
        if same { Ok(()) } else { self.roll().map_err(disk_failed) }
    }

    /// False when the segment is another one by now.
    fn replace(&mut self, new: Rewritten) -> Result<bool, AppendError> {
        let current = self.shared.log.read().sealed.get(&new.number).cloned();
        let same = |segment: &Arc<Segment>| Arc::as_ptr(&segment.file).cast::<()>() == Arc::as_ptr(&new.old).cast();
        let Some(current) = current.filter(same) else {
            rewrite::discard(&*self.disk, &self.dir, new.number).map_err(disk_failed)?;
            return Ok(false);
        };
        rewrite::put_in_place(&*self.disk, &self.dir, new.number).map_err(disk_failed)?;
        let mut view = self.shared.log.write();
        let Segment { number, end, bytes, summary, rows, file: _, sealer: _ } =
            &**view.sealed.get(&new.number).unwrap_or(&current);
        let (summary, rows) = (summary.clone(), rows.clone());
        let (file, sealer) = (new.file, new.sealer);
        let segment = Segment { number: *number, file, sealer, end: *end, bytes: *bytes, summary, rows };
        view.sealed.insert(new.number, Arc::new(segment));
        Ok(true)
    }

    /// Removes the oldest segments that nobody needs.
    fn trim(&mut self) -> Result<TrimReport, AppendError> {
        let mut report = TrimReport::default();
        if !self.shared.log.read().state.purging.is_empty() {
            // It would carry chunks on that are to go.
            report.waiting_for.push("a purge that is under way".to_owned());
            return Ok(report);
        }
        let sealed: Vec<Arc<Segment>> = self.shared.log.read().sealed.values().cloned().collect();
        let mut going = Vec::new();
        for segment in sealed {
            report.waiting_for = self.waiting_for(&segment);
            if report.waiting_for.is_empty() {
                let held = self.holds_on(&segment).map_err(|e| AppendError::Unreadable(e.to_string()))?;
                report.waiting_for.extend(held.iter().map(|name| format!("legal hold {name}")));
            }
            if !report.waiting_for.is_empty() {
                break;
            }
            going.push(segment);
        }
        // What only these need is not kept: it would stand behind the oldest held entry and stay as long.
        let through = going.last().map_or(0, |segment| segment.number);
        for segment in &going {
            // The base of one that stays may stand in a segment that goes first.
            report.chunks_kept += self.make_needed_whole(segment, through)?;
        }
        for segment in going {
            report.chunks_kept += self.trim_one(&segment, through)?;
            report.segments += 1;
            report.bytes += segment.bytes;
        }
        Ok(report)
    }

    /// Who still needs a segment.
    fn waiting_for(&self, segment: &Segment) -> Vec<String> {
        let files = lock(&self.shared.files).values().any(|since| since.0 <= segment.summary.next_pos);
        self.shared.log.read().waiting_for(segment, files)
    }

    /// Names of the holds that keep a segment: for what it covers in it, or for chunks of a file that stands behind it.
    fn holds_on(&mut self, segment: &Segment) -> io::Result<BTreeSet<String>> {
        let (holds, later) = {
            let view = self.shared.log.read();
            let later = view.sealed.range(segment.number + 1..).map(|(_, later)| Arc::clone(later));
            (view.state.holds.clone(), later.collect::<Vec<_>>())
        };
        if holds.is_empty() {
            return Ok(BTreeSet::new());
        }
        let mut held: BTreeSet<String> =
            self.covered.of(segment, &holds)?.iter().map(|covering| covering.name.clone()).collect();
        let next_pos = segment.summary.next_pos;
        let reaches_here = |later: &Summary| later.chunks_since.is_some_and(|since| since <= next_pos);
        if segment.summary.chunks + segment.summary.chunks_needed > 0 {
            for later in later.iter().filter(|later| reaches_here(&later.summary)) {
                let covering = self.covered.of(later, &holds)?.iter();
                held.extend(covering.filter(|c| c.keeps_chunks_before(next_pos)).map(|c| c.name.clone()));
            }
            // Which files it covers there is read when that is sealed.
            let tail = &self.shared.log.read().tail.growing.summary;
            let may = holds.values().filter(|hold| !hold.passes_by(tail.first_pos, tail.next_pos));
            held.extend(may.filter(|_| reaches_here(tail)).map(|hold| hold.name.clone()));
        }
        Ok(held)
    }

    /// Writes those chunks of the segment whole that have a base and that one after `through` needs. Returns how many.
    fn make_needed_whole(&mut self, segment: &Segment, through: u32) -> Result<u64, AppendError> {
        let mut names = Vec::new();
        if segment.summary.chunks > 0 {
            let mut scanner = Scanner::only(segment.window(), FrameKind::Chunk);
            while let Some(found) = scanner.next().map_err(|e| AppendError::Unreadable(e.to_string()))? {
                let Found::Frame { payload, .. } = found else { continue };
                let Some((name, Some(_))) = PackedChunk::names(&payload) else { continue };
                let needed = self.shared.log.chunk_is_needed_after(through, &name);
                if needed.map_err(|e| AppendError::Unreadable(e.0))? {
                    names.push(name);
                }
            }
        }
        self.make_whole(&names)?;
        Ok(names.len() as u64)
    }

    /// Gives up a segment; the chunks that one after `through` needs are written again.
    fn trim_one(&mut self, segment: &Arc<Segment>, through: u32) -> Result<u64, AppendError> {
        let mut batch = self.begin();
        batch.urgent = true;
        let mut kept = 0;
        if segment.summary.chunks > 0 {
            let unreadable = |e: io::Error| AppendError::Unreadable(e.to_string());
            let mut scanner = Scanner::only(segment.window(), FrameKind::Chunk);
            while let Some(found) = scanner.next().map_err(unreadable)? {
                let Found::Frame { payload, .. } = found else { continue };
                // Those with a base were written whole before.
                let chunk = PackedChunk::decode(&payload).filter(|chunk| chunk.base().is_none());
                let Some(chunk) = chunk else { continue };
                let needed = self.shared.log.chunk_is_needed_after(through, &chunk.name);
                if needed.map_err(|e| AppendError::Unreadable(e.0))? && !batch.chunks.contains(&chunk.name) {
                    self.push_chunk(&mut batch, &chunk);
                    kept += 1;
                }
            }
        }
        // The accounts take over what the segment's entries came to.
        let accounts = {
            let view = self.shared.log.read();
            let mut accounts = view.state.consumers.clone();
            for account in accounts.values_mut() {
                account.give_up(segment.number, &segment.summary);
            }
            accounts
        };
        for (name, account) in &accounts {
            for frame in account.frames(name, &account.added) {
                batch.sealer.push(&mut batch.buf, batch.base, FrameKind::Consumer, &[&to_cbor(&frame)]);
            }
            batch.consumers.push((name.clone(), account.version, account.added.clone()));
        }
        // All that outlives the segment is durable before it is given up: of what shares a sync a power cut may keep any part.
        if is(Mutation::TrimFileFirst) {
            self.disk.unlink(&segments_dir(&self.dir).join(segment_name(segment.number))).ok();
        }
        if !is(Mutation::SkipTrimOrder) {
            self.commit(batch)?;
            batch = self.begin();
        }
        let number = segment.number.to_le_bytes();
        batch.push(FrameKind::Trimmed, &[&number], Record::Trimmed(segment.number));
        self.commit(batch)?;
        {
            let mut view = self.shared.log.write();
            view.sealed.remove(&segment.number);
            let mut consumers = std::mem::take(&mut view.state.consumers);
            for account in consumers.values_mut() {
                account.give_up(segment.number, &segment.summary);
            }
            view.state.consumers = consumers;
        }
        self.creators.clear();
        self.shared.log.index_remove(segment.number);
        let dir = segments_dir(&self.dir);
        let removed = self.disk.unlink(&dir.join(segment_name(segment.number)));
        let removed = removed.and_then(|()| unless(Mutation::SkipTrimDirSync, || self.disk.sync_dir(&dir)));
        if let Err(e) = removed {
            // Finished at the next open: the log says that it is trimmed.
            tracing::warn!(error = %e, segment = segment.number, "a trimmed segment is still on disk");
        }
        self.roll_if_due();
        Ok(kept)
    }
}

/// Gives old numbers up for new ones.
fn give_up(batch: &mut Batch, appended: &[(EntryId, Appended)]) {
    let mut given_up: BTreeMap<Epoch, RangeSet> = BTreeMap::new();
    for (old, _) in appended {
        given_up.entry(old.epoch).or_default().insert(old.seq.get());
    }
    if !given_up.is_empty() {
        let frame = RenumberedFrame { numbers: given_up.iter().map(|(epoch, set)| (*epoch, split(set))).collect() };
        batch.push(FrameKind::Renumbered, &[&to_cbor(&frame)], Record::Renumbered(frame));
    }
}

/// The failure of work beside appending: nothing that was acknowledged is touched by it.
pub(crate) fn disk_failed(e: io::Error) -> AppendError {
    if is_full(&e) { AppendError::NoSpace(e.to_string()) } else { AppendError::Disk(e.to_string()) }
}

/// Why an own entry cannot be encoded.
fn refused(e: WireError) -> AppendError {
    if let WireError::TooLarge { what: _, found, max } = e {
        return AppendError::TooLarge { what: "entry", bytes: found, max };
    }
    AppendError::Malformed(e.to_string())
}
