//! Entries in, effects out: what peers sent becomes visible in this node's mission core.
//!
//! ```text
//!  journal --received entries--> causes ended? bytes here? --yes--> mission core (effect + ledger, one transaction)
//!                                     | no                                 |
//!                                   parked --------- retried ----<--- final receipt (range sets) --> carrier
//! ```
//!
//! Invariants
//! - An entry's effect and the number that proves it are durable together, so it is applied once.
//! - Within one (origin, stream, precedence) entries are applied in the origin's order, however they arrive, but for
//!   those that something more urgent needs.
//! - The cursor never passes a parked entry; a restart finds it again.
//! - What cannot be applied, or was damaged before that, is quarantined with a reason and counted, and does not stop
//!   the rest.
//!
//! Not here: versions and merging (mission), receipts on the wire (link).
//! Start reading at [`Apply::run`].

mod parked;
mod purge;
pub mod targets;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use journal::{AppendError, Consumer, Journal, ReadError, Received};
use mission::{Applied, Core, Incoming, LedgerRow, Replica, StagedFile, StoreError};
use model::event::{FileState, PurgeState};
use model::{
    ChunkName, Clock, Entry, EntryId, Epoch, Event, HybridClock, Kind, LocalPos, Manifest, NodeId, Outcome, Precedence,
    RangeSet,
};
use telemetry::{Health, Metrics, PeerName, Verdict};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use wire::chunk::RebuildError;

use parked::{Accounted, Parked, WaitsFor};
use purge::Purging;
pub use purge::{Holdings, PurgeDone, PurgeError, PurgeReceipt, PurgeRequest, PurgeStatus, PurgeTarget};

/// Entries of one transaction: long enough to share an fsync, short enough that readers never wait noticeably.
const BATCH: usize = 64;

/// Every waiting file is looked at this often even if nobody said that it is complete.
const FILES_RECHECK: Duration = Duration::from_secs(30);

/// Incomplete files named in one answer: more than a link fetches at once, few enough to read in one go.
const INCOMPLETE_MAX: usize = 256;

/// Quiet time after which a drained backlog is announced: less than people wait, more than a pause between batches.
const DIGEST_AFTER: Duration = Duration::from_secs(3);

/// A backlog that never ends is announced in parts this long after the first of it: the wait for a drained one is meant to
/// save messages, not to keep people from knowing.
const DIGEST_LATEST: Duration = Duration::from_secs(60);

/// Wait before a failed pass is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Epochs that an order to purge names numbers of: an honest one names those that its node has entries of.
const PURGE_EPOCHS_MAX: usize = 256;

/// Name of the check on the health board.
const CHECK: &str = "apply";

/// Name of the check on what can never be applied; it stays until the restart.
const CHECK_DAMAGE: &str = "apply-damage";

/// Name of the journal consumer whose cursor this room keeps.
pub const CONSUMER: &str = "apply";

/// What apply works with.
pub struct ApplyOptions {
    /// Where received entries rest.
    pub journal: Journal,
    /// Where their effects go.
    pub core: Core,
    /// Follows the clocks of peers.
    pub hybrid: Arc<HybridClock>,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// Configured name of a peer, for metrics and messages.
    pub peer_name: Arc<dyn Fn(NodeId) -> String + Send + Sync>,
    /// Figures.
    pub metrics: Arc<Metrics>,
    /// Where trouble is reported.
    pub health: Health,
}

/// A pass failed. Nothing was applied halfway; it is tried again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The journal could not be read.
    #[error("the journal could not be read; received entries wait in it")]
    Read(#[from] ReadError),
    /// The journal did not register the cursor.
    #[error("the journal did not take the cursor; received entries wait in it")]
    Journal(#[from] AppendError),
    /// The mission core did not take the effect.
    #[error("the mission core did not take the effects; received entries wait in the journal")]
    Core(#[from] StoreError),
    /// A file could not be put together.
    #[error("writing a received file failed; its bytes wait in the journal")]
    File(#[from] io::Error),
}

impl ApplyError {
    /// What the operator should do.
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::Read(e) => e.next_step(),
            Self::Journal(e) => e.next_step(),
            Self::Core(_) | Self::File(_) => "check the disk that holds the data directory, and its free space",
        }
    }
}

/// What has ended here, shared with the carrier, which turns it into receipts.
#[derive(Clone)]
pub struct ApplyHandle(Arc<Shared>);

struct Shared {
    me: NodeId,
    journal: Journal,
    consumer: Consumer,
    core: Core,
    replica: Replica,
    /// Orders to purge are to be carried out.
    purges_open: AtomicBool,
    /// Something was purged once: what arrives is looked at with that in mind.
    ever_purged: AtomicBool,
    /// Files whose last chunk has arrived since they were parked.
    complete: Mutex<BTreeSet<EntryId>>,
    ended: Mutex<Ended>,
    changed: watch::Sender<u64>,
}

struct Ended {
    ledger: Vec<LedgerRow>,
    accounted: Accounted,
    /// Entries that went before their turn, and what they jumped over; `None` until they are found. Noted before they count as
    /// accounted for.
    jumped: Option<BTreeMap<EntryId, EntryId>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Ended> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, origin: NodeId, epoch: Epoch, outcome: Outcome, numbers: &RangeSet) {
        let mut ended = self.lock();
        ended.accounted.insert_ranges(origin, epoch, numbers);
        let row = ended.ledger.iter_mut().find(|r| (r.origin, r.epoch, r.outcome) == (origin, epoch, outcome));
        match row {
            Some(row) => row.ranges.union_with(numbers),
            None => ended.ledger.push(LedgerRow { origin, epoch, outcome, ranges: numbers.clone() }),
        }
        drop(ended);
        self.changed.send_modify(|n| *n += 1);
    }

    /// An order was taken up.
    fn open_purges(&self) {
        self.ever_purged.store(true, Ordering::SeqCst);
        self.purges_open.store(true, Ordering::SeqCst);
        self.changed.send_modify(|n| *n += 1);
    }
}

impl ApplyHandle {
    /// Final outcomes of an origin's entries on this node.
    pub fn ledger(&self, origin: NodeId) -> Vec<(Epoch, Outcome, RangeSet)> {
        let ended = self.0.lock();
        let rows = ended.ledger.iter().filter(|r| r.origin == origin);
        rows.map(|r| (r.epoch, r.outcome, r.ranges.clone())).collect()
    }

    /// Entries of an origin that were applied before their turn, each with the one it jumped over, as long as that has not
    /// ended. `None` until the entries behind the cursor were looked at once.
    pub fn jumped(&self, origin: NodeId) -> Option<Vec<(EntryId, EntryId)>> {
        let ended = self.0.lock();
        let jumped = ended.jumped.as_ref()?.iter().filter(|(id, _)| id.origin == origin);
        Some(jumped.map(|(id, over)| (*id, *over)).collect())
    }

    /// Notes durably that these entries of `origin` will never come here, and why.
    ///
    /// # Errors
    /// When the core's database does not take it; the peer repeats the notice at its next greeting.
    pub fn account(
        &self,
        origin: NodeId,
        epoch: Epoch,
        outcome: Outcome,
        numbers: &RangeSet,
    ) -> Result<(), StoreError> {
        self.0.replica.account(origin, epoch, outcome, numbers)?;
        self.0.note(origin, epoch, outcome, numbers);
        Ok(())
    }

    /// File entries of `origin` that are here without all their chunks, at most [`INCOMPLETE_MAX`]. Reads the journal.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn incomplete_files(&self, origin: NodeId) -> Result<Vec<Entry>, ReadError> {
        let mut files = Vec::new();
        let mut next = self.0.consumer.state().cursor.unwrap_or(LocalPos::START);
        while next < self.0.journal.head() && files.len() < INCOMPLETE_MAX {
            let batch = self.0.journal.read_foreign(next, BATCH)?;
            let ended = self.0.lock();
            let waiting = batch.entries.into_iter().map(|r| r.entry).filter(|e| {
                e.header.kind == Kind::File && e.header.id.origin == origin && !ended.accounted.contains(e.header.id)
            });
            files.extend(waiting);
            next = batch.next;
        }
        files.truncate(INCOMPLETE_MAX);
        Ok(files)
    }

    /// Every chunk of this file entry is in the journal.
    pub fn file_complete(&self, file: EntryId) {
        self.0.complete.lock().unwrap_or_else(PoisonError::into_inner).insert(file);
        self.0.changed.send_modify(|n| *n += 1);
    }

    /// Changes whenever the ledger does.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }
}

/// Applies received entries to the mission core.
pub struct Apply {
    options: ApplyOptions,
    shared: Arc<Shared>,
    parked: Parked,
    /// Nothing was read yet since the start or a failure.
    fresh: bool,
    purging: Purging,
    next: LocalPos,
    /// Late posts were applied since it was last decided when to announce them.
    late: bool,
    pace: Pace,
    /// Look at every waiting file in the next pass.
    recheck: bool,
    /// Entries that were damaged before they could be applied, since the start.
    damaged: u64,
    /// Those that their origin was asked for again: damaged a second time they are given up.
    asked_again: Numbers,
}

/// Waits of [`Apply::run`], none of which anything else that happens makes longer.
#[derive(Clone, Copy, Debug)]
struct Pace {
    recheck: Duration,
    digest_after: Duration,
    digest_latest: Duration,
}

/// When late posts are announced.
#[derive(Clone, Copy, Debug)]
struct DigestDue {
    /// Nothing late came for a while then.
    quiet: Instant,
    latest: Instant,
}

/// What one pass did.
struct Pass {
    progressed: bool,
}

impl Apply {
    /// Continues where the last run stopped.
    ///
    /// # Errors
    /// When the core's ledger or the journal's cursor cannot be read.
    pub fn new(options: ApplyOptions) -> Result<(Self, ApplyHandle), ApplyError> {
        let replica = options.core.replica();
        let ledger = replica.ledger()?;
        let mut accounted = Accounted::default();
        for row in &ledger {
            accounted.insert_ranges(row.origin, row.epoch, &row.ranges);
        }
        let consumer = options.journal.consumer(CONSUMER, true)?;
        let mut next = consumer.state().cursor.unwrap_or(LocalPos::START);
        if !unmet(&options.journal, &accounted, next)?.is_empty() {
            // The core was restored from an older backup: what it misses may still lie before the cursor.
            warn!("the mission core knows less than the journal; every received entry is looked at again");
            consumer.rewind();
            next = LocalPos::START;
        }
        // Makes it a reader of received entries in the journal's eyes: trimming waits for it from the first one on.
        consumer.advance(next);
        let ended = Mutex::new(Ended { ledger, accounted, jumped: None });
        let shared = Arc::new(Shared {
            me: options.core.node(),
            journal: options.journal.clone(),
            consumer,
            core: options.core.clone(),
            replica,
            purges_open: AtomicBool::new(!options.core.purges(true)?.is_empty()),
            ever_purged: AtomicBool::new(!options.core.purges(false)?.is_empty()),
            complete: Mutex::default(),
            ended,
            changed: watch::Sender::new(0),
        });
        let handle = ApplyHandle(Arc::clone(&shared));
        Ok((
            Self {
                options,
                shared,
                parked: Parked::default(),
                fresh: true,
                purging: Purging::default(),
                next,
                // The last run may have left some.
                late: true,
                pace: Pace { recheck: FILES_RECHECK, digest_after: DIGEST_AFTER, digest_latest: DIGEST_LATEST },
                recheck: true,
                damaged: 0,
                asked_again: Numbers::new(),
            },
            handle,
        ))
    }

    /// Applies until `stop`. What is not applied then waits in the journal.
    pub async fn run(mut self, stop: CancellationToken) {
        let appended = Arc::new(tokio::sync::Notify::new());
        let wake = Arc::clone(&appended);
        let _subscription = self.options.journal.on_append(Box::new(move || wake.notify_one()));
        let mut ended = self.shared.changed.subscribe();
        let pace = self.pace;
        let mut recheck_at = Instant::now() + pace.recheck;
        let mut digest: Option<DigestDue> = None;
        loop {
            ended.borrow_and_update();
            // A pass is one transaction of the core and short reads of the journal.
            let (back, result) = tokio::task::spawn_blocking(move || {
                let result = self.pass();
                (self, result)
            })
            .await
            .expect("an apply pass does not panic");
            self = back;
            let (progressed, failed) = match result {
                Ok(Pass { progressed }) => (progressed, false),
                Err(e) => {
                    warn!(error = %e, source = ?std::error::Error::source(&e).map(ToString::to_string), "apply waits");
                    self.options.health.report(CHECK, Verdict::failing(e.to_string(), e.next_step()));
                    // Some of what was taken up may not have ended: start again from the cursor.
                    self.next = self.shared.consumer.state().cursor.unwrap_or(LocalPos::START);
                    (self.parked, self.fresh) = (Parked::default(), true);
                    (false, true)
                }
            };
            let now = Instant::now();
            if std::mem::take(&mut self.late) {
                let latest = digest.map_or(now + pace.digest_latest, |due| due.latest);
                digest = Some(DigestDue { quiet: now + pace.digest_after, latest });
            }
            let digest_at = digest.map_or(now, |due| due.quiet.min(due.latest));
            // A node that is never quiet comes to what is due all the same.
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = sleep_until(recheck_at) => {
                    self.recheck = true;
                    recheck_at = Instant::now() + pace.recheck;
                }
                () = sleep_until(digest_at), if digest.is_some() => {
                    let (back, announced) = tokio::task::spawn_blocking(move || self.flush_digest())
                        .await
                        .expect("a digest does not panic");
                    self = back;
                    let again = Instant::now() + pace.digest_latest;
                    digest = (!announced).then_some(DigestDue { quiet: again, latest: again });
                }
                () = std::future::ready(()), if progressed => {}
                () = tokio::time::sleep(RETRY_AFTER), if failed => self.recheck = true,
                () = appended.notified() => {}
                _ = ended.changed() => {}
            }
        }
    }

    /// Returns whether the late posts are announced.
    fn flush_digest(self) -> (Self, bool) {
        let announced = match self.shared.replica.flush_digest() {
            Ok(0) => true,
            Ok(users) => {
                info!(users, "announced late arrivals");
                true
            }
            Err(e) => {
                warn!(error = %e, "announcing late arrivals failed; it is tried again");
                false
            }
        };
        (self, announced)
    }

    fn pass(&mut self) -> Result<Pass, ApplyError> {
        if self.fresh {
            self.find_jumped()?;
            self.tell_jumped();
            self.shared.changed.send_modify(|n| *n += 1);
            self.fresh = false;
        }
        let mut ready = Vec::new();
        let purged = self.shared.purges_open.load(Ordering::SeqCst) && self.carry_out_purges()?;
        // Taken before the journal is read: every one of these numbers is met, waits, or can never be met.
        let received = self.options.journal.received_from_all();
        self.retry_parked(&mut ready)?;
        if ready.len() < BATCH {
            self.read_new(&mut ready)?;
        }
        let mut progressed = !ready.is_empty();
        if progressed {
            self.tell_jumped();
            self.apply(ready)?;
        } else if self.next >= self.options.journal.head() {
            progressed = self.account_for_unreadable(received)?;
        }
        let cursor = self.parked.first().unwrap_or(self.next).min(self.next);
        if self.shared.consumer.state().cursor != Some(cursor) {
            self.shared.consumer.advance(cursor);
        }
        if !progressed {
            self.options.health.report(CHECK, Verdict::ok("received entries are applied"));
        }
        Ok(Pass { progressed: progressed || purged || self.next < self.options.journal.head() })
    }

    /// Learns again which entries behind the cursor were applied before their turn.
    fn find_jumped(&mut self) -> Result<(), ApplyError> {
        let mut next = self.next;
        loop {
            let batch = self.options.journal.read_foreign(next, BATCH)?;
            if batch.entries.is_empty() {
                return Ok(());
            }
            let ended = self.shared.lock();
            for Received { pos, entry, .. } in batch.entries {
                let id = entry.header.id;
                let over = entry.header.predecessor().filter(|before| !ended.accounted.contains(*before));
                if let Some(over) = over.filter(|_| ended.accounted.contains(id)) {
                    self.parked.jump(id, pos, over);
                }
            }
            next = batch.next;
        }
    }

    fn tell_jumped(&self) {
        self.shared.lock().jumped = Some(self.parked.jumped().collect());
    }

    /// Parked entries that can go.
    fn retry_parked(&mut self, ready: &mut Vec<Ready>) -> Result<(), ApplyError> {
        let complete = std::mem::take(&mut *self.shared.complete.lock().unwrap_or_else(PoisonError::into_inner));
        let recheck = std::mem::take(&mut self.recheck);
        // Now and then all of them, so that damage to what waits is noticed.
        let can_go = self.parked.can_go(&self.shared.lock().accounted);
        let mut candidates = if recheck { self.parked.waiting_for_entries() } else { can_go };
        candidates.extend(self.parked.waiting_for_chunks(|id| recheck || complete.contains(id)));
        for pos in candidates {
            if ready.len() >= BATCH {
                self.recheck = true;
                break;
            }
            let batch = self.options.journal.read_foreign(pos, 1)?;
            let Some(received) = batch.entries.into_iter().find(|r| r.pos == pos) else {
                debug!(
                    ?pos,
                    "a waiting entry is no longer readable; it is accounted for when nothing else is to be done"
                );
                self.parked.release(pos);
                continue;
            };
            self.parked.release(pos);
            self.consider(received, ready)?;
        }
        Ok(())
    }

    /// Has the origins asked once more for what the journal received and cannot give; what cannot be read a second time
    /// ends, so that nothing waits for it, here or there. To be called when everything readable has been met.
    fn account_for_unreadable(&mut self, received: Numbers) -> Result<bool, ApplyError> {
        let waiting: Vec<EntryId> = self.parked.ids().collect();
        let mut again = Numbers::new();
        let (mut any, mut any_lost) = (false, false);
        for ((origin, epoch), mut numbers) in received {
            numbers = self.shared.lock().accounted.missing(origin, epoch, &numbers);
            for id in waiting.iter().filter(|id| (id.origin, id.epoch) == (origin, epoch)) {
                numbers.remove(id.seq.get());
            }
            if numbers.is_empty() {
                continue;
            }
            any = true;
            let label = self.label(origin);
            let asked = self.asked_again.entry((origin, epoch)).or_default();
            let (first, second) = (numbers.difference(asked), numbers.intersection(asked));
            if !first.is_empty() {
                warn!(peer = %label, epoch = epoch.0, numbers = ?first, "received entries are damaged; asked for again");
                self.options.metrics.apply_refetched_entries_total.add((label.clone(),), first.count());
                asked.union_with(&first);
                again.insert((origin, epoch), first);
            }
            if !second.is_empty() {
                let count = second.count();
                warn!(peer = %label, epoch = epoch.0, numbers = ?second, "received entries were damaged a second time");
                self.shared.replica.account(origin, epoch, Outcome::Quarantined, &second)?;
                self.options.metrics.apply_quarantined_entries_total.add((label,), count);
                self.shared.note(origin, epoch, Outcome::Quarantined, &second);
                self.damaged += count;
                any_lost = true;
            }
        }
        if !again.is_empty() {
            self.options.journal.forget_received(again).wait()?;
        }
        if any_lost {
            let text = format!("{} received entries were damaged before they were applied", self.damaged);
            let next = "check the disk, run `holdfast journal verify`, and ask their authors to send them again";
            self.options.health.report(CHECK_DAMAGE, Verdict::degraded(text, next));
        }
        Ok(any)
    }

    fn read_new(&mut self, ready: &mut Vec<Ready>) -> Result<(), ApplyError> {
        let batch = self.options.journal.read_foreign(self.next, BATCH)?;
        for received in batch.entries {
            self.consider(received, ready)?;
        }
        self.next = batch.next;
        Ok(())
    }

    /// Decides whether a received entry goes into this pass or is parked.
    fn consider(&mut self, received: Received, ready: &mut Vec<Ready>) -> Result<(), ApplyError> {
        let Received { pos, entry, .. } = received;
        let header = &entry.header;
        let id = header.id;
        let precedence = header.precedence;
        let me = self.shared.me;
        let urgency = self.parked.urgency(id, precedence);
        let (missing, before) = {
            let ended = self.shared.lock();
            if ended.accounted.contains(id) {
                return Ok(());
            }
            let in_this_pass = |c: &model::Cause| ready.iter().any(|r| r.id == *c);
            let waiting: Vec<_> = header.causes.iter().filter(|c| !in_this_pass(c)).copied().collect();
            let ends = |id: EntryId| in_this_pass(&id) || ended.accounted.contains(id);
            let before = header.predecessor().and_then(|before| self.parked.blocked_by(before, ends));
            (ended.accounted.first_missing(me, id.origin, &waiting), before)
        };
        self.options.hybrid.observe(header.captured, self.options.clock.now());
        if let Some(cause) = missing {
            debug!(%id, %cause, "waits for its cause");
            self.parked.park(pos, id, precedence, urgency, WaitsFor::Cause(cause));
            return Ok(());
        }
        if let Some(before) = before {
            if urgency == precedence {
                debug!(%id, %before, "waits for the one before it");
                self.parked.park(pos, id, precedence, urgency, WaitsFor::Earlier(before));
                return Ok(());
            }
            self.parked.jump(id, pos, before);
        }
        let decoded = wire::decode_event(&entry);
        if let Ok(event) = &decoded
            && self.shared.ever_purged.load(Ordering::SeqCst)
            && let Some(order) = self.shared.replica.is_purged(event)?
        {
            let kind = entry.header.kind;
            ready.push(Ready { id, pos, precedence, kind, item: Item::Late(Box::new((entry, order))) });
            return Ok(());
        }
        let item = match decoded {
            Err(e) => Item::Unusable(e.to_string(), entry.body),
            Ok(Event::Purge(order)) => Item::Purge(Box::new(order)),
            Ok(Event::File(file)) => match self.content(&file)? {
                Content::Incomplete => {
                    self.parked.park(pos, id, precedence, urgency, WaitsFor::Chunks);
                    return Ok(());
                }
                Content::Unusable(why) => Item::Unusable(why, entry.body),
                Content::Staged(staged) => Item::Event(Box::new(Event::File(file)), Some(staged)),
            },
            Ok(event) => Item::Event(Box::new(event), None),
        };
        ready.push(Ready { id, pos, precedence, kind: entry.header.kind, item });
        Ok(())
    }

    /// Puts a file together from its chunks.
    fn content(&self, file: &FileState) -> Result<Content, ApplyError> {
        let Some(manifest) = &file.content else {
            return Ok(Content::Unusable("its origin had lost the file's bytes".to_owned()));
        };
        let journal = &self.options.journal;
        match self.try_content(manifest) {
            Ok(staged) => Ok(Content::Staged(staged)),
            Err(RebuildError::Missing(_)) => Ok(Content::Incomplete),
            Err(RebuildError::Io(e)) => Err(e),
            Err(e) => {
                debug!(node = %journal.node(), error = %e, "a file cannot be rebuilt");
                Ok(Content::Unusable(e.to_string()))
            }
        }
    }

    fn try_content(&self, manifest: &Manifest) -> Result<StagedFile, RebuildError<ApplyError>> {
        let journal = &self.options.journal;
        let get = |name: &ChunkName| journal.get_chunk(name).map_err(ApplyError::from);
        // Look before writing: a large file is asked about often while its bytes arrive. From the end, since they
        // arrive in order and the last chunk is the one most likely to be missing.
        for name in wire::chunk::name_list(manifest, get)?.iter().rev() {
            if !journal.has_chunk(name).map_err(|e| RebuildError::Io(e.into()))? {
                return Err(RebuildError::Missing(*name));
            }
        }
        let mut staged = self.shared.replica.stage_file().map_err(|e| RebuildError::Io(e.into()))?;
        wire::chunk::read_manifest(manifest, get, |bytes| staged.write_all(bytes).map_err(ApplyError::from))?;
        staged.finish().map_err(|e| RebuildError::Io(e.into()))
    }

    fn apply(&mut self, ready: Vec<Ready>) -> Result<(), ApplyError> {
        let replica = self.shared.replica.clone();
        let mut incoming = Vec::new();
        let mut ids = Vec::new();
        let mut late_ones = Vec::new();
        let late_before =
            self.options.clock.now().0 - i64::from(self.options.core.settings().late_after_seconds) * 1_000;
        for one in ready {
            match one.item {
                Item::Event(event, content) => {
                    let late = matches!(&*event, Event::Post(post) if post.create_at.0 < late_before);
                    ids.push((one.id, late));
                    incoming.push(Incoming { id: one.id, event: *event, content });
                }
                Item::Unusable(reason, body) => {
                    replica.quarantine(one.id, one.kind, &reason, &body)?;
                    self.ended(one.id, Outcome::Quarantined, Some(&reason));
                }
                Item::Purge(mut order) => {
                    // A peer says by number what this node never takes in, of itself alone. What others wrote of the posts
                    // and files that it names goes all the same, by what it is about.
                    let me = self.shared.me;
                    order.entries.retain(|e| e.origin == one.id.origin || e.origin == me);
                    order.entries.truncate(PURGE_EPOCHS_MAX);
                    // Its end is noted when nothing is left here; until then the cursor stays before it.
                    if replica.begin_purge(&order, one.id)? {
                        self.ended(one.id, Outcome::Applied, None);
                        continue;
                    }
                    self.parked.park(one.pos, one.id, one.precedence, one.precedence, WaitsFor::Purge(order.id));
                    self.shared.open_purges();
                }
                Item::Late(late) => late_ones.push(*late),
            }
        }
        self.remove_late(late_ones)?;
        if incoming.is_empty() {
            return Ok(());
        }
        for ((id, late), applied) in ids.into_iter().zip(replica.apply(incoming)?) {
            match applied {
                Applied::Applied => {
                    self.ended(id, Outcome::Applied, None);
                    if late {
                        self.late = true;
                        self.options.metrics.apply_late_posts_total.inc((self.label(id.origin),));
                    }
                }
                Applied::AlreadyAccounted => {}
                // Purged a moment ago: the order is open, and looks for it in the journal once more.
                Applied::Purged => self.shared.note(id.origin, id.epoch, Outcome::Purged, &one(id)),
                Applied::Quarantined { reason } => self.ended(id, Outcome::Quarantined, Some(&reason)),
            }
        }
        Ok(())
    }

    fn label(&self, origin: NodeId) -> PeerName {
        PeerName::new(&(self.options.peer_name)(origin))
    }

    fn ended(&mut self, id: EntryId, outcome: Outcome, reason: Option<&str>) {
        let label = self.label(id.origin);
        let metrics = &self.options.metrics;
        match reason {
            None => metrics.apply_applied_entries_total.inc((label.clone(),)),
            Some(reason) => {
                warn!(%id, reason, "quarantined; it is kept in the mission core's quarantine table");
                metrics.apply_quarantined_entries_total.inc((label.clone(),));
            }
        }
        metrics.apply_held_entries.set_count((label,), self.parked.count(id.origin) as u64);
        self.shared.note(id.origin, id.epoch, outcome, &one(id));
    }
}

fn one(id: EntryId) -> RangeSet {
    RangeSet::from(id.seq.get()..=id.seq.get())
}

/// Numbers of each origin and epoch.
type Numbers = BTreeMap<(NodeId, Epoch), RangeSet>;

/// Received numbers that neither ended nor are met from `next` on.
fn unmet(journal: &Journal, accounted: &Accounted, mut next: LocalPos) -> Result<Numbers, ReadError> {
    let mut unmet = journal.received_from_all();
    for ((origin, epoch), numbers) in &mut unmet {
        *numbers = accounted.missing(*origin, *epoch, numbers);
    }
    unmet.retain(|_, numbers| !numbers.is_empty());
    while !unmet.is_empty() && next < journal.head() {
        let batch = journal.read_foreign(next, BATCH)?;
        for id in batch.entries.iter().map(|received| received.entry.header.id) {
            if let Some(numbers) = unmet.get_mut(&(id.origin, id.epoch)) {
                numbers.remove(id.seq.get());
            }
        }
        unmet.retain(|_, numbers| !numbers.is_empty());
        next = batch.next;
    }
    Ok(unmet)
}

/// An entry that goes into this pass.
struct Ready {
    id: EntryId,
    pos: LocalPos,
    precedence: Precedence,
    kind: Kind,
    item: Item,
}

enum Item {
    Event(Box<Event>, Option<StagedFile>),
    Unusable(String, Vec<u8>),
    Purge(Box<PurgeState>),
    /// Of an object that was purged.
    Late(Box<(Entry, PurgeState)>),
}

enum Content {
    /// Chunks are missing.
    Incomplete,
    /// The bytes will never be what the origin announced.
    Unusable(String),
    /// Durable in the core's staging area.
    Staged(StagedFile),
}

#[cfg(test)]
mod tests {
    use super::*;
    use journal::{AtRest, Foreign, IndexPlace, JournalOptions, JournalSettings, StdDisk};
    use mission::ws::WsHub;
    use mission::{CoreOptions, CoreSettings};
    use model::{Header, Hlc, Id, IdMint, Label, Precedence, Seq, SourcePosition, StreamId, UnixMillis};

    const ME: NodeId = NodeId([1; 16]);
    const PEER: NodeId = NodeId([2; 16]);

    struct Fixed;

    impl Clock for Fixed {
        fn now(&self) -> UnixMillis {
            UnixMillis(1_700_000_000_000)
        }
    }

    impl IdMint for Fixed {
        fn mint(&self) -> Id {
            Id::from_block([7; 16])
        }
    }

    /// Ids that differ.
    #[derive(Default)]
    struct Counted(std::sync::atomic::AtomicU8);

    impl IdMint for Counted {
        fn mint(&self) -> Id {
            Id::from_block([100 + self.0.fetch_add(1, Ordering::SeqCst); 16])
        }
    }

    fn journal(dir: &std::path::Path) -> Journal {
        let options = JournalOptions {
            dir: dir.join("journal"),
            node: ME,
            disk: Arc::new(StdDisk),
            clock: Arc::new(Fixed),
            settings: JournalSettings::default(),
            index: IndexPlace::Memory,
            at_rest: AtRest::Plain,
        };
        Journal::open(options).unwrap().0
    }

    fn core(dir: &std::path::Path) -> Core {
        core_with(dir, Arc::new(Fixed))
    }

    fn core_with(dir: &std::path::Path, mint: Arc<dyn IdMint>) -> Core {
        Core::open(CoreOptions {
            dir: dir.to_owned(),
            node: ME,
            node_name: "alpha".to_owned(),
            mint,
            clock: Arc::new(Fixed),
            hybrid: Arc::new(HybridClock::default()),
            events: Arc::new(WsHub::new(CancellationToken::new())),
            settings: CoreSettings::default(),
        })
        .unwrap()
    }

    fn apply(journal: &Journal, core: &Core) -> (Apply, ApplyHandle, Health) {
        let health = Health::new(Arc::new(Fixed));
        let options = ApplyOptions {
            journal: journal.clone(),
            core: core.clone(),
            hybrid: Arc::new(HybridClock::default()),
            clock: Arc::new(Fixed),
            peer_name: Arc::new(|node| node.to_string()),
            metrics: Arc::new(Metrics::new()),
            health: health.clone(),
        };
        let (apply, handle) = Apply::new(options).unwrap();
        (apply, handle, health)
    }

    fn id(n: u64) -> EntryId {
        EntryId { origin: PEER, epoch: Epoch::FIRST, seq: Seq::new(n).unwrap() }
    }

    /// An entry whose body no release can read: when its turn comes it is kept aside with its bytes.
    fn receive(journal: &Journal, n: u64, causes: &[u64]) {
        let header = Header {
            id: id(n),
            source: SourcePosition(Hlc(n)),
            stream: StreamId::Directory,
            causes: causes.iter().map(|n| id(*n)).collect(),
            after: None,
            precedence: Precedence::Routine,
            captured: Hlc(n),
            origin_time: UnixMillis(1),
            expiry: None,
            supersedes: None,
            label: Label::directory(),
            kind: Kind::Post,
            mint_salt: 1,
        };
        let bytes = wire::encode_entry(&Entry { header, body: format!("unreadable body {n}").into_bytes() });
        journal.append_foreign(Foreign { bytes: bytes.into(), object: None }).wait().unwrap();
    }

    /// Lets it work until nothing is left to do, as half a minute later.
    fn rest(mut apply: Apply) -> Apply {
        apply.recheck = true;
        while apply.pass().unwrap().progressed {}
        apply
    }

    fn damage(dir: &std::path::Path, n: u64) {
        let path = dir.join("journal/segments/00000001.seg");
        let mut bytes = std::fs::read(&path).unwrap();
        let body = format!("unreadable body {n}");
        let at = bytes.windows(body.len()).position(|w| w == body.as_bytes()).unwrap();
        bytes[at] ^= 1;
        std::fs::write(path, bytes).unwrap();
    }

    fn entry(n: u64, event: &Event) -> Foreign {
        entry_with(n, event, |_| ())
    }

    fn entry_with(n: u64, event: &Event, change: impl FnOnce(&mut Header)) -> Foreign {
        let mut header = Header {
            id: id(n),
            source: SourcePosition(Hlc(n)),
            stream: event.stream(),
            causes: Vec::new(),
            after: None,
            precedence: if event.kind() == Kind::Purge { Precedence::Flash } else { Precedence::Routine },
            captured: Hlc(n),
            origin_time: UnixMillis(1),
            expiry: None,
            supersedes: None,
            label: Label::directory(),
            kind: event.kind(),
            mint_salt: 1,
        };
        change(&mut header);
        let body = wire::encode_event(event, PEER, 1);
        let bytes = wire::encode_entry(&Entry { header, body });
        Foreign { bytes: bytes.into(), object: Some(event.object().key()) }
    }

    fn post(message: &str) -> Event {
        Event::Post(model::event::PostState {
            version: model::Version { at: Hlc(5), by: PEER },
            id: Id::from_block([5; 16]),
            channel_id: Id::from_block([6; 16]),
            user_id: Id::from_block([7; 16]),
            root_id: None,
            create_at: UnixMillis(1),
            update_at: UnixMillis(1),
            edit_at: UnixMillis(0),
            delete_at: UnixMillis(0),
            message: message.to_owned(),
            kind: String::new(),
            props: String::new(),
            hashtags: String::new(),
            is_pinned: false,
            files: Vec::new(),
            priority: None,
        })
    }

    fn order(entries: Vec<model::event::EntryNumbers>) -> Event {
        Event::Purge(PurgeState {
            version: model::Version { at: Hlc(9), by: PEER },
            id: Id::from_block([9; 16]),
            at: UnixMillis(9),
            by: "duty officer".to_owned(),
            reason: "spilled".to_owned(),
            posts: vec![Id::from_block([5; 16])],
            files: Vec::new(),
            entries,
            keep_files: false,
            everywhere_used: false,
            label: None,
            channel_id: None,
        })
    }

    #[test]
    fn an_order_that_overtakes_what_it_purges_keeps_it_out() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, core) = (journal(dir.path()), core(&dir.path().join("core")));
        let (apply, handle, health) = apply(&journal, &core);
        let numbers = model::event::EntryNumbers { origin: PEER, epoch: Epoch::FIRST, numbers: RangeSet::from(1..=1) };
        let order = order(vec![numbers]);
        journal.append_foreign(entry(3, &order)).wait().unwrap();
        let apply = rest(apply);
        // The original, by its number, and an edit that the order did not know of.
        let original = journal.append_foreign(entry(1, &post("spilled text, as first written"))).wait().unwrap();
        assert_eq!(original, journal::ForeignOutcome::AlreadyHeld);
        journal.append_foreign(entry(2, &post("spilled text, as edited"))).wait().unwrap();
        rest(apply);
        let ledger = handle.ledger(PEER);
        let ended = |outcome| ledger.iter().find(|row| row.1 == outcome).map(|row| row.2.clone());
        assert_eq!(ended(Outcome::Applied), Some(RangeSet::from(3..=3)));
        assert_eq!(ended(Outcome::Purged), Some(RangeSet::from(1..=2)));
        assert_eq!(ended(Outcome::Quarantined), None);
        let status = &handle.purges().unwrap()[0];
        assert!(status.done_at.is_some() && status.origin == Some(PEER), "{status:?}");
        assert!(health.checks().iter().all(|check| check.grade == telemetry::Grade::Ok));
        for segment in std::fs::read_dir(dir.path().join("journal/segments")).unwrap().map(Result::unwrap) {
            let bytes = std::fs::read(segment.path()).unwrap();
            assert!(!bytes.windows(12).any(|w| w == b"spilled text"), "{:?}", segment.path());
        }
    }

    #[test]
    fn an_order_keeps_out_numbers_of_its_own_node_only_however_many_it_names() {
        const THIRD: NodeId = NodeId([3; 16]);
        let dir = tempfile::tempdir().unwrap();
        let (journal, core) = (journal(dir.path()), core(&dir.path().join("core")));
        let (apply, handle, _) = apply(&journal, &core);
        let numbers =
            |origin, to| model::event::EntryNumbers { origin, epoch: Epoch::FIRST, numbers: RangeSet::from(10..=to) };
        let order = order(vec![numbers(THIRD, 1 << 60), numbers(ME, 1 << 60), numbers(PEER, 1 << 60)]);
        journal.append_foreign(entry(3, &order)).wait().unwrap();
        rest(apply);
        assert!(handle.ledger(THIRD).is_empty(), "what a third node wrote is not the peer's to keep out");
        assert!(handle.ledger(ME).is_empty());
        let purged = handle.ledger(PEER).into_iter().find(|row| row.1 == Outcome::Purged).map(|row| row.2);
        assert_eq!(purged, Some(RangeSet::from(10..=1 << 60)));
        assert!(handle.purges().unwrap()[0].done_at.is_some());
    }

    #[test]
    fn what_went_before_its_turn_is_told_until_what_it_jumped_over_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, core) = (journal(dir.path()), core(&dir.path().join("core")));
        let (apply_side, handle, _) = apply(&journal, &core);
        assert_eq!(handle.jumped(PEER), None, "nobody has looked yet");
        let apply_side = rest(apply_side);
        assert_eq!(handle.jumped(PEER), Some(Vec::new()));
        // The third needs the second, which stands behind the first; that one is not here yet.
        let second = entry_with(2, &post("two"), |header| header.after = Some((Epoch::FIRST, id(1).seq)));
        let third = entry_with(3, &post("three"), |header| {
            (header.precedence, header.causes) = (Precedence::Flash, vec![id(2)]);
        });
        journal.append_foreign(third).wait().unwrap();
        journal.append_foreign(second).wait().unwrap();
        drop(rest(apply_side));
        assert_eq!(handle.jumped(PEER), Some(vec![(id(2), id(1))]));
        // A process that starts learns it from the journal.
        let (again, handle, _) = apply(&journal, &core);
        let again = rest(again);
        assert_eq!(handle.jumped(PEER), Some(vec![(id(2), id(1))]));
        journal.append_foreign(entry(1, &post("one"))).wait().unwrap();
        let again = rest(again);
        journal.append_foreign(entry(4, &post("four"))).wait().unwrap();
        drop(rest(again));
        assert_eq!(handle.jumped(PEER), Some(Vec::new()));
    }

    #[test]
    fn an_order_ends_under_every_number_that_brings_it() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, core) = (journal(dir.path()), core(&dir.path().join("core")));
        let (apply, handle, _) = apply(&journal, &core);
        // Two before it is carried out, and one after.
        journal.append_foreign(entry(3, &order(Vec::new()))).wait().unwrap();
        journal.append_foreign(entry(4, &order(Vec::new()))).wait().unwrap();
        let apply = rest(apply);
        journal.append_foreign(entry(6, &order(Vec::new()))).wait().unwrap();
        let apply = rest(apply);
        assert_eq!(handle.ledger(PEER), [(Epoch::FIRST, Outcome::Applied, [3, 4, 6].into_iter().collect())]);
        let in_store = core.replica().ledger().unwrap();
        assert_eq!(in_store[0].ranges, [3, 4, 6].into_iter().collect());
        assert_eq!(apply.parked.first(), None, "nothing holds the cursor");
    }

    /// Runs with short waits, woken all the time, until `reached`; false when it never is.
    async fn run_busy(mut apply: Apply, handle: &ApplyHandle, reached: impl Fn() -> bool) -> bool {
        apply.pace = Pace {
            recheck: Duration::from_millis(500),
            digest_after: Duration::from_millis(500),
            digest_latest: Duration::from_secs(2),
        };
        let stop = CancellationToken::new();
        let busy = async {
            // Far shorter than the waits: a wait that begins anew with each wake never ends.
            for _ in 0..2_000 {
                if reached() {
                    break;
                }
                handle.0.changed.send_modify(|n| *n += 1);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            stop.cancel();
        };
        tokio::join!(apply.run(stop.clone()), busy);
        reached()
    }

    #[tokio::test]
    async fn a_node_that_is_never_quiet_looks_at_what_waits() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, core) = (journal(dir.path()), core(&dir.path().join("core")));
        let (apply, handle, _) = apply(&journal, &core);
        receive(&journal, 2, &[1]);
        let apply = rest(apply);
        damage(dir.path(), 2);
        assert!(run_busy(apply, &handle, || !journal.forgotten(PEER).is_empty()).await);
    }

    #[tokio::test]
    async fn late_posts_that_the_last_run_left_are_announced_on_a_node_that_is_never_quiet() {
        use mission::types::{ClientInfo, Login, NewTeam};
        let dir = tempfile::tempdir().unwrap();
        let journal = journal(dir.path());
        let core = core_with(&dir.path().join("core"), Arc::new(Counted::default()));
        core.operator_creates_user("alice", "alice@example.org", "password-1", true).unwrap();
        let login = Login { login_id: "alice".to_owned(), password: "password-1".to_owned(), ..Login::default() };
        let (_, session) = core.login(&login, &ClientInfo::default()).unwrap();
        let alice = core.session(&session.token).unwrap();
        let (name, display_name, kind) = ("alpha".to_owned(), "alpha".to_owned(), "O".to_owned());
        let team = core.create_team(&alice, &NewTeam { name, display_name, kind, ..NewTeam::default() }).unwrap();
        let alice = core.session(&session.token).unwrap();
        let square = core.channel_by_name(&alice, team.id, "town-square", false).unwrap().id;
        let Event::Post(mut late) = post("written long ago") else { panic!("a post") };
        late.channel_id = square;
        journal.append_foreign(entry(1, &Event::Post(late))).wait().unwrap();
        let (first, handle, _) = apply(&journal, &core);
        rest(first);
        assert_eq!(handle.ledger(PEER), [(Epoch::FIRST, Outcome::Applied, RangeSet::from(1..=1))]);
        let before = core.stats().unwrap().posts;
        let (second, handle, _) = apply(&journal, &core);
        assert!(run_busy(second, &handle, || core.stats().unwrap().posts == before + 1).await, "one message about it");
    }

    fn kept_aside(core: &Core) -> Vec<u64> {
        core.replica().quarantine_list().unwrap().iter().map(|row| row.id.seq.get()).collect()
    }

    #[test]
    fn what_was_damaged_before_its_turn_is_asked_for_again_and_given_up_the_second_time() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, core) = (journal(dir.path()), core(&dir.path().join("core")));
        let (apply, handle, health) = apply(&journal, &core);
        receive(&journal, 2, &[1]);
        receive(&journal, 4, &[3]);
        let apply = rest(apply);
        assert!(handle.ledger(PEER).is_empty(), "both wait for their causes");
        // One entry is damaged before it was ever looked at, another while it waits.
        receive(&journal, 1, &[]);
        damage(dir.path(), 1);
        damage(dir.path(), 4);
        let apply = rest(apply);
        assert!(handle.ledger(PEER).is_empty(), "what depends on them waits until they come again");
        let lost: RangeSet = [1, 4].into_iter().collect();
        assert_eq!(journal.forgotten(PEER), BTreeMap::from([(Epoch::FIRST, lost)]));
        assert_eq!(journal.received(PEER)[&Epoch::FIRST], RangeSet::from(2..=2));
        receive(&journal, 1, &[]);
        receive(&journal, 4, &[3]);
        assert!(journal.forgotten(PEER).is_empty());
        let apply = rest(apply);
        assert_eq!(kept_aside(&core), [1, 2]);
        assert!(!health.checks().iter().any(|check| check.name == CHECK_DAMAGE));
        damage(dir.path(), 4);
        let apply = rest(apply);
        assert_eq!(handle.ledger(PEER), [(Epoch::FIRST, Outcome::Quarantined, [1, 2, 4].into_iter().collect())]);
        assert!(health.checks().iter().any(|check| check.name == CHECK_DAMAGE));
        receive(&journal, 3, &[]);
        rest(apply);
        assert_eq!(kept_aside(&core), [1, 2, 3]);
    }

    #[test]
    fn a_core_restored_from_a_backup_gets_what_the_journal_still_has() {
        let dir = tempfile::tempdir().unwrap();
        let journal = journal(dir.path());
        let newer = core(&dir.path().join("newer"));
        receive(&journal, 1, &[]);
        receive(&journal, 2, &[]);
        let (first, _, _) = apply(&journal, &newer);
        rest(first);
        assert_eq!(kept_aside(&newer), [1, 2]);
        assert!(journal.consumer(CONSUMER, true).unwrap().state().cursor > Some(LocalPos::START));
        let older = core(&dir.path().join("older"));
        let (second, handle, _) = apply(&journal, &older);
        rest(second);
        assert_eq!(kept_aside(&older), [1, 2]);
        assert_eq!(handle.ledger(PEER), [(Epoch::FIRST, Outcome::Quarantined, RangeSet::from(1..=2))]);
    }
}
