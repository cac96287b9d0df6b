//! Carries out orders to remove content: those given here and those that peers sent.
//!
//! ```text
//!  order in the core (open) --> what in the journal holds it? --> ledger --> journal purged --> free pages, WAL, bytes
//!       ^                                                                                              |
//!       `----- again once everything is captured that was written before -----------------> done, final receipt
//! ```
//! An order stays open until nothing of its content is left on this node; a restart takes it up again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use journal::{Journal, PurgeOrder, PurgeReport, ReadError, Which};
use mission::{Core, NewPurge, PurgePreview, PurgeRow, StoreError};
use model::event::{EntryNumbers, PurgeState};
use model::{
    ChunkName, Entry, EntryId, Epoch, Event, Id, Label, LocalPos, Manifest, NodeId, ObjectRef, Outcome, RangeSet,
    UnixMillis,
};
use telemetry::Verdict;
use tracing::{info, warn};

use crate::{Apply, ApplyError, ApplyHandle};

/// Entries read from the journal at once.
const SCAN: usize = 500;

/// Name of the check on the health board.
const CHECK: &str = "purge";

/// What an operator names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PurgeTarget {
    /// A post or a file.
    Object(Id),
    /// The post or file whose state this entry holds; an entry that cannot be read is a target itself.
    Entry(Which),
}

/// What an operator orders.
#[derive(Clone, Debug)]
pub struct PurgeRequest {
    /// What goes.
    pub target: PurgeTarget,
    /// Who orders it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// The post's files stay.
    pub keep_files: bool,
    /// Files with the same bytes, and chunks that other files share, go too.
    pub everywhere_used: bool,
}

/// Nothing was ordered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PurgeError {
    /// The name is of nothing that this node knows.
    #[error("this node knows no such post, file or entry; nothing was changed")]
    Unknown,
    /// The entry is about something else.
    #[error("the entry holds a {0}; only posts, their reactions and files can be purged, nothing was changed")]
    OtherKind(&'static str),
    /// The journal could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The core did not take it.
    #[error(transparent)]
    Core(#[from] StoreError),
}

impl PurgeError {
    /// What the operator should do.
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::Unknown => {
                "take the id from the post's link or from `holdfast journal list`, on a node that has the content"
            }
            Self::OtherKind(_) => "deactivate the account or archive the channel instead",
            Self::Read(e) => e.next_step(),
            Self::Core(_) => "check the disk that holds the data directory, then try again",
        }
    }
}

/// What an order would remove on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Holdings {
    /// In the mission core.
    #[serde(flatten)]
    pub core: PurgePreview,
    /// Entries of the journal.
    pub entries: u64,
    /// Chunks of the journal.
    pub chunks: u64,
    /// Chunks that stay because these entries of other files need them.
    pub kept_for: Vec<String>,
}

/// How far an order is.
#[derive(Clone, Debug)]
pub struct PurgeStatus {
    /// The order.
    pub order: PurgeState,
    /// The node that gave it; `None` for this one.
    pub origin: Option<NodeId>,
    /// When nothing was left here; `None` before.
    pub done_at: Option<UnixMillis>,
    /// What was done here.
    pub done: PurgeDone,
    /// For an order of this node: how far it is at each consumer that the journal knows.
    pub receipts: BTreeMap<String, PurgeReceipt>,
}

/// How far an order is at another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PurgeReceipt {
    /// Not known to be there.
    Waiting,
    /// Durable there, not carried out yet.
    Sent,
    /// It ended there: as applied when nothing of the content is left.
    Ended(Outcome),
}

/// What an order did on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PurgeDone {
    /// In the journal.
    pub journal: PurgeReport,
    /// Chunks that stayed because these entries of other files need them.
    pub kept_for: Vec<String>,
    /// Epoch and number of the entry that carries the order.
    pub entry: Option<(u32, u64)>,
}

/// What the journal holds of an order's content.
#[derive(Default)]
struct Found {
    entries: Vec<(EntryId, LocalPos)>,
    labels: BTreeSet<Label>,
    chunks: BTreeSet<ChunkName>,
    kept_for: Vec<String>,
}

impl Found {
    fn numbers(&self) -> Vec<EntryNumbers> {
        let mut sets: BTreeMap<(NodeId, Epoch), RangeSet> = BTreeMap::new();
        for (id, _) in &self.entries {
            sets.entry((id.origin, id.epoch)).or_default().insert(id.seq.get());
        }
        let numbers = |((origin, epoch), numbers)| EntryNumbers { origin, epoch, numbers };
        sets.into_iter().map(numbers).collect()
    }
}

/// What an order is after.
struct Wanted<'a> {
    posts: &'a [Id],
    files: &'a [Id],
    entries: &'a [EntryNumbers],
    keep_files: bool,
    everywhere_used: bool,
}

impl<'a> Wanted<'a> {
    fn of(order: &'a PurgeState) -> Self {
        Self {
            posts: &order.posts,
            files: &order.files,
            entries: &order.entries,
            keep_files: order.keep_files,
            everywhere_used: order.everywhere_used,
        }
    }

    fn is_about(&self, id: &EntryId, event: Option<&Event>) -> bool {
        let named = |e: &EntryNumbers| (e.origin, e.epoch) == (id.origin, id.epoch) && e.numbers.contains(id.seq.get());
        match event {
            Some(Event::Post(s)) => self.posts.contains(&s.id),
            Some(Event::Reaction(s)) => self.posts.contains(&s.post_id),
            Some(Event::Acknowledgement(s)) => self.posts.contains(&s.post_id),
            Some(Event::File(s)) => {
                let of_post = !self.keep_files && s.post_id.is_some_and(|post| self.posts.contains(&post));
                of_post || self.files.contains(&s.stub.id)
            }
            // A number may mean something else here, where an origin has diverged: only what cannot be read goes by it.
            None => self.entries.iter().any(named),
            Some(
                Event::User(_)
                | Event::Team(_)
                | Event::TeamMember(_)
                | Event::Channel(_)
                | Event::ChannelMember(_)
                | Event::Emoji(_)
                | Event::Purge(_)
                | Event::Bookmark(_),
            ) => false,
        }
    }

    /// Reads the whole journal: what is overlooked here stays.
    fn find(&self, journal: &Journal) -> Result<Found, ReadError> {
        let mut found = Found::default();
        let mut others: Vec<(EntryId, Manifest)> = Vec::new();
        let mut next = LocalPos::START;
        let names = |manifest: &Manifest| wire::chunk::every_name(manifest, |name| journal.get_chunk(name));
        loop {
            let batch = journal.list(next..LocalPos(u64::MAX), SCAN)?;
            let Some(last) = batch.last() else { break };
            next = last.pos.next();
            for listed in &batch {
                let id = listed.entry.header.id;
                let event = wire::decode_event(&listed.entry).ok();
                let wanted = self.is_about(&id, event.as_ref());
                if wanted {
                    found.entries.push((id, listed.pos));
                    found.labels.insert(listed.entry.header.label.clone());
                }
                let Some(Event::File(file)) = event else { continue };
                let Some(manifest) = file.content else { continue };
                match wanted {
                    true => found.chunks.extend(names(&manifest)?),
                    false => others.push((id, manifest)),
                }
            }
        }
        if !self.everywhere_used && !found.chunks.is_empty() {
            for (id, manifest) in others {
                let shared: Vec<ChunkName> =
                    names(&manifest)?.into_iter().filter(|name| found.chunks.contains(name)).collect();
                if !shared.is_empty() {
                    found.chunks.retain(|name| !shared.contains(name));
                    found.kept_for.push(id.to_string());
                }
            }
        }
        Ok(found)
    }
}

/// Posts, files, and entries that cannot be read.
type Targets = (Vec<Id>, Vec<Id>, Vec<EntryNumbers>);

fn targets(journal: &Journal, core: &Core, target: PurgeTarget) -> Result<Targets, PurgeError> {
    let by_id = |id: Id| -> Result<_, PurgeError> {
        let (post, file) = core.knows_post_or_file(id)?;
        // What waits in the journal, or was kept aside, is not in the core.
        let (posts, files) = if post || !file { (vec![id], Vec::new()) } else { (Vec::new(), vec![id]) };
        if post || file {
            return Ok((posts, files, Vec::new()));
        }
        let held = |posts: &[Id], files: &[Id]| {
            let wanted = Wanted { posts, files, entries: &[], keep_files: true, everywhere_used: false };
            wanted.find(journal).map(|found| !found.entries.is_empty())
        };
        match (held(&[id], &[])?, held(&[], &[id])?) {
            (true, _) => Ok((vec![id], Vec::new(), Vec::new())),
            (false, true) => Ok((Vec::new(), vec![id], Vec::new())),
            (false, false) => Err(PurgeError::Unknown),
        }
    };
    match target {
        PurgeTarget::Object(id) => by_id(id),
        PurgeTarget::Entry(which) => {
            let listed = journal.show(which)?.ok_or(PurgeError::Unknown)?;
            let id = listed.entry.header.id;
            match wire::decode_event(&listed.entry) {
                Ok(Event::Post(s)) => Ok((vec![s.id], Vec::new(), Vec::new())),
                Ok(Event::Reaction(s)) => Ok((vec![s.post_id], Vec::new(), Vec::new())),
                Ok(Event::Acknowledgement(s)) => Ok((vec![s.post_id], Vec::new(), Vec::new())),
                Ok(Event::File(s)) => Ok((Vec::new(), vec![s.stub.id], Vec::new())),
                Ok(
                    Event::User(_)
                    | Event::Team(_)
                    | Event::TeamMember(_)
                    | Event::Channel(_)
                    | Event::ChannelMember(_)
                    | Event::Emoji(_)
                    | Event::Purge(_)
                    | Event::Bookmark(_),
                ) => Err(PurgeError::OtherKind(listed.entry.header.kind.as_str())),
                Err(_) => {
                    let numbers = RangeSet::from(id.seq.get()..=id.seq.get());
                    let entries = vec![EntryNumbers { origin: id.origin, epoch: id.epoch, numbers }];
                    Ok((Vec::new(), Vec::new(), entries))
                }
            }
        }
    }
}

impl ApplyHandle {
    /// What an order would remove on this node. Reads the whole journal and changes nothing.
    ///
    /// # Errors
    /// When the target is not known, or something cannot be read.
    pub fn preview_purge(&self, request: &PurgeRequest) -> Result<Holdings, PurgeError> {
        let (journal, core) = (&self.0.journal, &self.0.core);
        let (posts, files, entries) = targets(journal, core, request.target)?;
        let preview = core.purge_preview(&posts, &files, request.keep_files)?;
        let files = core.files_to_purge(&posts, &files, request.keep_files, request.everywhere_used)?;
        let (keep_files, everywhere_used) = (request.keep_files, request.everywhere_used);
        let found = Wanted { posts: &posts, files: &files, entries: &entries, keep_files, everywhere_used };
        let found = found.find(journal)?;
        Ok(Holdings {
            core: preview,
            entries: found.entries.len() as u64,
            chunks: found.chunks.len() as u64,
            kept_for: found.kept_for,
        })
    }

    /// Orders that content be removed, here and wherever it went. When this returns, no answer of this node holds it any
    /// more; journal and store follow at once, the other nodes as the links allow. One order for each release label that
    /// the content has.
    ///
    /// # Errors
    /// When nothing was ordered.
    pub fn order_purge(&self, request: &PurgeRequest) -> Result<Vec<Id>, PurgeError> {
        let (journal, core) = (&self.0.journal, &self.0.core);
        let (posts, files, mut entries) = targets(journal, core, request.target)?;
        let (keep_files, everywhere_used) = (request.keep_files, request.everywhere_used);
        let going = core.files_to_purge(&posts, &files, keep_files, everywhere_used)?;
        let wanted = Wanted { posts: &posts, files: &going, entries: &entries, keep_files, everywhere_used };
        let found = wanted.find(journal)?;
        entries = found.numbers();
        let mut labels: Vec<Option<Label>> = found.labels.into_iter().map(Some).collect();
        if labels.is_empty() {
            labels.push(None);
        }
        let mut ids = Vec::new();
        for label in labels {
            let new = NewPurge {
                posts: posts.clone(),
                files: files.clone(),
                entries: entries.clone(),
                label,
                by: request.by.clone(),
                reason: request.reason.clone(),
                keep_files,
                everywhere_used,
            };
            let order = core.order_purge(&new)?;
            info!(
                target: "audit", purge = %order.id, by = order.by, reason = order.reason, posts = ?order.posts,
                files = ?order.files, "purge ordered"
            );
            ids.push(order.id);
        }
        self.0.open_purges();
        Ok(ids)
    }

    /// Orders of this node and of its peers, the newest first.
    ///
    /// # Errors
    /// When something cannot be read.
    pub fn purges(&self) -> Result<Vec<PurgeStatus>, PurgeError> {
        let journal = &self.0.journal;
        let status = |row: PurgeRow| {
            let done: PurgeDone = serde_json::from_str(&row.report).unwrap_or_default();
            let mut receipts = BTreeMap::new();
            if row.source.is_none() {
                let entry = match done.entry {
                    Some((epoch, seq)) => model::Seq::new(seq).map(|seq| (Epoch(epoch), seq)),
                    None => journal.creator(ObjectRef::Purge(row.order.id).key())?.map(|id| (id.epoch, id.seq)),
                };
                for consumer in journal.consumers().into_iter().filter(|name| name != crate::CONSUMER) {
                    let told = entry.map(|(epoch, seq)| journal.receipt(&consumer, epoch, seq));
                    let receipt = match told {
                        Some((_, Some(outcome))) => PurgeReceipt::Ended(outcome),
                        Some((true, None)) => PurgeReceipt::Sent,
                        Some((false, None)) | None => PurgeReceipt::Waiting,
                    };
                    receipts.insert(consumer, receipt);
                }
            }
            let origin = row.source.map(|id| id.origin);
            Ok(PurgeStatus { order: row.order, origin, done_at: row.done_at, done, receipts })
        };
        self.0.core.purges(false)?.into_iter().map(status).collect()
    }
}

/// What apply remembers of orders.
#[derive(Debug, Default)]
pub(crate) struct Purging {
    /// Carried out once; they wait until what was written before is captured.
    ran: BTreeSet<Id>,
    /// Tried again with the next look at everything.
    failed: BTreeSet<Id>,
}

impl Apply {
    /// Carries out what is open. Returns whether an order was finished.
    pub(crate) fn carry_out_purges(&mut self) -> Result<bool, ApplyError> {
        if self.recheck {
            self.purging.failed.clear();
        }
        // Before the look: what is ordered from here on is seen by the next pass.
        self.shared.purges_open.store(false, Ordering::SeqCst);
        let open = self.options.core.purges(true)?;
        let mut finished = false;
        for row in &open {
            let id = row.order.id;
            // Asked before the journal is read: what is captured by then is found.
            let captured = self.options.core.is_captured_through(row.barrier)?;
            if self.purging.failed.contains(&id) || (self.purging.ran.contains(&id) && !captured) {
                continue;
            }
            match self.carry_out(row, captured) {
                Ok(()) => {
                    self.purging.ran.insert(id);
                    finished |= captured;
                }
                Err(e) => {
                    warn!(purge = %id, error = %e, "the order is not carried out yet; it is tried again");
                    let text = format!("purge {id} is not carried out on this node: {e}");
                    self.options.health.report(CHECK, Verdict::failing(text, e.next_step()));
                    self.purging.failed.insert(id);
                }
            }
        }
        let open = self.options.core.purges(true)?;
        self.options.metrics.purges_open.set_count((), open.len() as u64);
        if open.is_empty() {
            self.purging = Purging::default();
            self.options.health.report(CHECK, Verdict::ok("every order is carried out on this node"));
        } else {
            self.shared.purges_open.store(true, Ordering::SeqCst);
        }
        Ok(finished)
    }

    fn carry_out(&mut self, row: &PurgeRow, captured: bool) -> Result<(), ApplyError> {
        let order = &row.order;
        let mut done: PurgeDone = serde_json::from_str(&row.report).unwrap_or_default();
        let (more, kept_for) = self.remove(order)?;
        done.journal = done.journal.plus(more);
        if !kept_for.is_empty() {
            done.kept_for = kept_for;
        }
        self.shared.replica.scrub_store()?;
        if row.source.is_none() {
            let entry = self.options.journal.creator(ObjectRef::Purge(order.id).key())?;
            done.entry = entry.map(|id| (id.epoch.0, id.seq.get()));
        }
        let report = serde_json::to_string(&done).expect("a report has string keys only");
        if !captured {
            return Ok(self.shared.replica.report_purge(order.id, &report)?);
        }
        let mut brought: BTreeSet<EntryId> = self.parked.waiting_for_purge(order.id).into_iter().collect();
        brought.extend(row.source);
        let entries: Vec<EntryId> = brought.into_iter().collect();
        self.shared.replica.finish_purge(order.id, &report, &entries)?;
        self.options.metrics.purges_done_total.inc(());
        let j = &done.journal;
        info!(
            target: "audit", purge = %order.id, by = order.by, entries = j.entries, chunks = j.chunks,
            segments = j.segments, "purge carried out on this node"
        );
        for entry in entries {
            self.parked.release_entry(entry);
            self.ended(entry, Outcome::Applied, None);
        }
        Ok(())
    }

    /// Removes from the journal what the order is about, and accounts for it.
    fn remove(&mut self, order: &PurgeState) -> Result<(PurgeReport, Vec<String>), ApplyError> {
        let journal = &self.options.journal;
        let me = self.shared.me;
        // Files with the same bytes are others on each node.
        let mut files = order.files.clone();
        files.extend(self.options.core.purged_under(order.id)?);
        let found = Wanted { files: &files, ..Wanted::of(order) }.find(journal)?;
        let mut coming: BTreeMap<(NodeId, Epoch), RangeSet> = BTreeMap::new();
        for e in order.entries.iter().filter(|e| e.origin != me) {
            coming.entry((e.origin, e.epoch)).or_default().union_with(&e.numbers);
        }
        let mut ended = coming.clone();
        for e in found.numbers().into_iter().filter(|e| e.origin != me) {
            ended.entry((e.origin, e.epoch)).or_default().union_with(&e.numbers);
        }
        // In the ledger first: what is received and cannot be read any more would else count as damaged.
        for ((origin, epoch), numbers) in ended {
            let fresh = self.shared.replica.account_purged(origin, epoch, &numbers)?;
            if !fresh.is_empty() {
                self.shared.note(origin, epoch, Outcome::Purged, &fresh);
            }
        }
        let told =
            PurgeOrder { id: order.id.to_string(), by: order.by.clone(), reason: order.reason.clone(), at: order.at };
        let report = journal.purge(&told, &found.entries, &coming, &found.chunks)?;
        // Files that waited for chunks may be among what went.
        self.recheck = true;
        Ok((report, found.kept_for))
    }

    /// Entries that arrived after their object had been purged: their content goes at once.
    pub(crate) fn remove_late(&mut self, late: Vec<(Entry, PurgeState)>) -> Result<(), ApplyError> {
        let orders: BTreeMap<Id, PurgeState> = late.iter().map(|(_, order)| (order.id, order.clone())).collect();
        for order in orders.values() {
            self.remove(order)?;
        }
        for (entry, _) in late {
            let id = entry.header.id;
            let numbers = RangeSet::from(id.seq.get()..=id.seq.get());
            self.shared.replica.account_purged(id.origin, id.epoch, &numbers)?;
            self.shared.note(id.origin, id.epoch, Outcome::Purged, &numbers);
        }
        Ok(())
    }
}
