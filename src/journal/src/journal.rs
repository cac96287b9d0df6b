//! The handle.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use model::{
    ChunkName, EntryHash, EntryId, Epoch, LocalPos, NodeId, ObjectKey, Outbound, OutboundError, Outcome, Outgoing,
    Precedence, RangeSet, Scan, SourcePosition,
};

use crate::error::{AppendError, OpenError, ReadError};
use crate::settings::JournalOptions;
use crate::ticket::Ticket;
use crate::types::*;

/// The durable ordered log of this node. A cheap handle; the last one dropped closes the journal.
///
/// All calls may block on the disk, except those that return a [`Ticket`]: they only queue.
#[derive(Clone)]
pub struct Journal(Arc<()>);

const SOON: &str = "this signature landed ahead of its body";

#[allow(unused_variables, missing_docs)]
impl Journal {
    /// Opens or creates the journal, for this process alone.
    pub fn open(options: JournalOptions) -> Result<(Self, OpenReport), OpenError> {
        panic!("{SOON}")
    }
    /// As `open`; `progress` hears how far a rebuild of the index is.
    pub fn open_with_progress(
        options: JournalOptions,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(Self, OpenReport), OpenError> {
        panic!("{SOON}")
    }
    pub fn node(&self) -> NodeId {
        panic!("{SOON}")
    }
    /// Numbers and appends an own entry.
    pub fn append_own(&self, draft: Draft) -> Ticket<Appended> {
        panic!("{SOON}")
    }
    /// Appends what a peer sent, once.
    pub fn append_foreign(&self, foreign: Foreign) -> Ticket<ForeignOutcome> {
        panic!("{SOON}")
    }
    /// Closes the epoch and opens the next.
    pub fn start_epoch(&self, reason: EpochReason) -> Ticket<Epoch> {
        panic!("{SOON}")
    }
    /// Appends own entries again under new numbers; the old ones end as superseded for every consumer.
    /// What is not held any more is left out of the answer.
    pub fn reissue(&self, ids: Vec<EntryId>) -> Ticket<Vec<(EntryId, Appended)>> {
        panic!("{SOON}")
    }
    /// Call before the first chunk of a file; keep it until the entry is durable, else trimming may take the chunks.
    pub fn begin_file(&self) -> FileInProgress {
        panic!("{SOON}")
    }
    /// Appends a chunk unless it is held.
    pub fn put_chunk(&self, name: ChunkName, bytes: &[u8]) -> Ticket<ChunkPut> {
        panic!("{SOON}")
    }
    /// For a receiver that answers "have": true when the chunk is held, and it then stays as if it had been put here.
    pub fn retain_chunk(&self, name: ChunkName) -> Ticket<bool> {
        panic!("{SOON}")
    }
    pub fn has_chunk(&self, name: &ChunkName) -> Result<bool, ReadError> {
        panic!("{SOON}")
    }
    /// Plain bytes; the checksum on disk was verified, the name is for the caller to verify.
    pub fn get_chunk(&self, name: &ChunkName) -> Result<Option<Arc<[u8]>>, ReadError> {
        panic!("{SOON}")
    }
    /// What a session with a peer reads.
    pub fn outbound(&self) -> OutboundView {
        panic!("{SOON}")
    }
    /// Received entries at or after `from`, at most `max`.
    pub fn read_foreign(&self, from: LocalPos, max: usize) -> Result<ForeignBatch, ReadError> {
        panic!("{SOON}")
    }
    /// The position that the next entry will have.
    pub fn head(&self) -> LocalPos {
        panic!("{SOON}")
    }
    /// `callback` runs after entries or chunks became durable, on the committer's thread: it must be quick and must not
    /// call the journal. Ends when the subscription is dropped.
    pub fn on_append(&self, callback: Box<dyn Fn() + Send + Sync>) -> Subscription {
        panic!("{SOON}")
    }
    /// The entry that created an object.
    pub fn creator(&self, object: ObjectKey) -> Result<Option<EntryId>, ReadError> {
        panic!("{SOON}")
    }
    /// Highest source position among own entries: what lies at or below it is captured.
    pub fn highest_source(&self) -> Option<SourcePosition> {
        panic!("{SOON}")
    }
    /// This node's epochs, oldest first; the last one is open.
    pub fn epochs(&self) -> Vec<OwnEpoch> {
        panic!("{SOON}")
    }
    /// Numbers of another origin that are durable here, those trimmed since included.
    pub fn received(&self, origin: NodeId) -> BTreeMap<Epoch, RangeSet> {
        panic!("{SOON}")
    }
    /// Hash of an entry that is held.
    pub fn hash_of(&self, id: EntryId) -> Result<Option<EntryHash>, ReadError> {
        panic!("{SOON}")
    }
    /// The durable consumer of this name; registered when new, `required` updated when it differs.
    pub fn consumer(&self, name: &str, required: bool) -> Result<Consumer, AppendError> {
        panic!("{SOON}")
    }
    /// Forgets a consumer: trimming does not wait for it any more.
    pub fn remove_consumer(&self, name: &str) -> Result<bool, AppendError> {
        panic!("{SOON}")
    }
    /// Names of the registered consumers.
    pub fn consumers(&self) -> Vec<String> {
        panic!("{SOON}")
    }
    /// The equation for one consumer; `None` when it is not registered.
    pub fn accounting(&self, consumer: &str) -> Result<Option<Accounting>, ReadError> {
        panic!("{SOON}")
    }
    /// Removes the oldest segments as far as every required consumer is done with them.
    pub fn trim(&self) -> Result<TrimReport, AppendError> {
        panic!("{SOON}")
    }
    /// Reads everything and checks it.
    pub fn verify(&self, progress: &mut dyn FnMut(Progress)) -> Result<VerifyReport, ReadError> {
        panic!("{SOON}")
    }
    pub fn stats(&self) -> Stats {
        panic!("{SOON}")
    }
    /// Entries of a range of positions, at most `max`.
    pub fn list(&self, range: Range<LocalPos>, max: usize) -> Result<Vec<Listed>, ReadError> {
        panic!("{SOON}")
    }
    /// One entry.
    pub fn show(&self, which: Which) -> Result<Option<Listed>, ReadError> {
        panic!("{SOON}")
    }
}

/// Own entries and chunks for a session.
#[derive(Clone)]
pub struct OutboundView(#[allow(dead_code)] Journal);

#[allow(unused_variables)]
impl Outbound for OutboundView {
    fn scan(&self, class: Precedence, from: LocalPos, bytes_max: usize) -> Result<Scan, OutboundError> {
        panic!("{SOON}")
    }
    fn entry(&self, id: EntryId) -> Result<Option<Outgoing>, OutboundError> {
        panic!("{SOON}")
    }
    fn superseded(&self, entry: &Outgoing) -> bool {
        panic!("{SOON}")
    }
    fn chunk(&self, name: &ChunkName) -> Result<Option<Arc<[u8]>>, OutboundError> {
        panic!("{SOON}")
    }
    fn holds_chunk(&self, name: &ChunkName) -> Result<bool, OutboundError> {
        Ok(self.0.has_chunk(name)?)
    }
    fn hash_of(&self, id: EntryId) -> Result<Option<EntryHash>, OutboundError> {
        Ok(self.0.hash_of(id)?)
    }
}

/// A file whose chunks are being put; see [`Journal::begin_file`].
pub struct FileInProgress(#[allow(dead_code)] Journal);

impl FileInProgress {
    /// Goes into [`Draft::chunks_since`].
    pub fn since(&self) -> LocalPos {
        panic!("{SOON}")
    }
}

/// Ends a callback when dropped; see [`Journal::on_append`].
pub struct Subscription(());

/// One registered consumer.
#[derive(Clone)]
pub struct Consumer(#[allow(dead_code)] Journal);

#[allow(unused_variables)]
impl Consumer {
    /// Its registered name.
    pub fn name(&self) -> &str {
        panic!("{SOON}")
    }
    /// The peer holds these own numbers durably. Durable soon after; a crash may forget the newest, receipts are repeated.
    pub fn record_stored(&self, epoch: Epoch, numbers: &RangeSet) {
        panic!("{SOON}")
    }
    /// These own numbers ended so. The first outcome of a number stays.
    pub fn record_outcome(&self, outcome: Outcome, epoch: Epoch, numbers: &RangeSet) -> Result<(), ReadError> {
        panic!("{SOON}")
    }
    /// The local apply is done with everything before `cursor`.
    pub fn advance(&self, cursor: LocalPos) {
        panic!("{SOON}")
    }
    /// A copy of what is recorded.
    pub fn state(&self) -> ConsumerState {
        panic!("{SOON}")
    }
    /// Everything of this node before this position is final here: where a scan may start.
    pub fn low_water(&self) -> Result<LocalPos, ReadError> {
        panic!("{SOON}")
    }
}

/// Reads a journal without locking it, also while the node runs.
pub struct Reader(());

#[allow(unused_variables, missing_docs)]
impl Reader {
    /// Opens for reading. Takes only `dir` and `disk` of the options into account.
    pub fn open(dir: &std::path::Path, disk: Arc<dyn model::Disk>) -> Result<Self, OpenError> {
        panic!("{SOON}")
    }
    pub fn node(&self) -> NodeId {
        panic!("{SOON}")
    }
    pub fn list(&self, range: Range<LocalPos>, max: usize) -> Result<Vec<Listed>, ReadError> {
        panic!("{SOON}")
    }
    pub fn show(&self, which: Which) -> Result<Option<Listed>, ReadError> {
        panic!("{SOON}")
    }
    pub fn verify(&self, progress: &mut dyn FnMut(Progress)) -> Result<VerifyReport, ReadError> {
        panic!("{SOON}")
    }
    pub fn stats(&self) -> Stats {
        panic!("{SOON}")
    }
    /// The equation for each registered consumer, as of the newest durable receipts.
    pub fn accounting(&self) -> Result<BTreeMap<String, Accounting>, ReadError> {
        panic!("{SOON}")
    }
}
