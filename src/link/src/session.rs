//! The session.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::{
    ChunkName, Entry, EntryId, Epoch, Label, NodeId, Outbound, OutboundError, Outcome, Precedence, RangeSet, UnixMillis,
};
use wire::Frame;

use crate::output::{LinkError, Output};

/// The time, as protocol and as people see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Since an arbitrary start, never stepping: for deadlines.
    pub mono: Duration,
    /// Wall clock: for expiry.
    pub wall: UnixMillis,
}

/// Who talks to whom, and what may be said.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// This node.
    pub me: NodeId,
    /// Its configured name, told in the greeting.
    pub name: String,
    /// Random per start of this process.
    pub boot: u64,
    /// The peer.
    pub peer: NodeId,
    /// Labels that the peer may get. `local` is never carried, whatever stands here.
    pub labels: BTreeSet<Label>,
    /// The peer's chunk secret: its chunks are verified with it.
    pub peer_chunk_secret: [u8; 32],
    /// zstd level for what is sent, 1 to 19.
    pub compression: i32,
}

/// What is durably known about own entries at the peer.
#[derive(Clone, Debug, Default)]
pub struct SenderState {
    /// Own epochs and their last number (0 while there is none), the open one included.
    pub epochs: BTreeMap<Epoch, u64>,
    /// From the peer's consumer in the journal.
    pub progress: BTreeMap<Epoch, EpochProgress>,
}

/// What became of the numbers of one epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpochProgress {
    /// Held durably.
    pub stored: RangeSet,
    /// Ended, by how. No number is in two of these.
    pub outcomes: BTreeMap<Outcome, RangeSet>,
}

/// What is durably known about the peer's entries here.
#[derive(Clone, Debug, Default)]
pub struct ReceiverState {
    /// `stored` from the journal, `outcomes` from the ledger that apply keeps.
    pub progress: BTreeMap<Epoch, EpochProgress>,
}

/// What a grant is for; the same lanes as the shaper's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Small frames that everything else waits for.
    Control,
    /// Entries and file slices of a class.
    Class(Precedence),
}

/// What waits to be sent, for the shaper's demand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Control frames wait.
    pub control: bool,
    /// By class: something waits.
    pub classes: [bool; 5],
}

impl Waiting {
    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        !self.control && !self.classes.contains(&true)
    }
}

/// See the crate's documentation.
#[derive(Debug)]
pub struct Session;

#[allow(unused_variables, reason = "this interface landed ahead of its body")]
impl Session {
    /// A session without a connection.
    pub fn new(config: SessionConfig, sender: SenderState, receiver: ReceiverState) -> Self {
        panic!("this signature landed ahead of its body")
    }

    /// A connection to the authenticated peer is there; it replaces an earlier one.
    pub fn connected(&mut self, now: Now) {
        panic!("this signature landed ahead of its body")
    }

    /// The connection is gone. What was under way counts as lost until the peer says otherwise.
    pub fn disconnected(&mut self) {
        panic!("this signature landed ahead of its body")
    }

    /// Takes a frame of the current connection. Poll the outputs afterwards.
    ///
    /// # Errors
    /// When the peer broke a rule or the journal cannot be read: send a `Bye` with [`LinkError::code`] and close.
    pub fn frame(&mut self, frame: Frame, outbound: &dyn Outbound, now: Now) -> Result<(), LinkError> {
        panic!("this signature landed ahead of its body")
    }

    /// Entries of an [`Output::Store`] are durable (or were held already with the same content).
    pub fn entries_stored(&mut self, ids: &[EntryId], now: Now) {
        panic!("this signature landed ahead of its body")
    }

    /// The entry of an [`Output::Store`] is held under the same number with another content.
    pub fn entry_conflicts(&mut self, id: EntryId) {
        panic!("this signature landed ahead of its body")
    }

    /// The ledger says that these entries of the peer ended so, durably.
    pub fn finals(&mut self, epoch: Epoch, outcome: Outcome, ranges: &RangeSet, now: Now) {
        panic!("this signature landed ahead of its body")
    }

    /// Chunks of an [`Output::StoreChunk`] are durable.
    pub fn chunks_stored(&mut self, names: &[ChunkName]) {
        panic!("this signature landed ahead of its body")
    }

    /// Fetch the chunks of this stored file entry of the peer, as far as they are missing. For files that were
    /// incomplete when the process started; files stored through this session are fetched without asking.
    ///
    /// # Errors
    /// When the entry is no file entry of the peer.
    pub fn want_file(&mut self, entry: &Entry) -> Result<(), LinkError> {
        panic!("this signature landed ahead of its body")
    }

    /// The journal has more own entries.
    pub fn appended(&mut self) {
        panic!("this signature landed ahead of its body")
    }

    /// The open epoch and its last number (0 while there is none), after a [`Output::StartEpoch`] and before
    /// [`Session::appended`] whenever the numbers moved.
    pub fn own_epoch(&mut self, epoch: Epoch, last: u64) {
        panic!("this signature landed ahead of its body")
    }

    /// The labels that the peer may get changed in the configuration. What was withheld stays withheld.
    pub fn set_labels(&mut self, labels: BTreeSet<Label>) {
        panic!("this signature landed ahead of its body")
    }

    /// Honours deadlines that have passed.
    pub fn tick(&mut self, now: Now) {
        panic!("this signature landed ahead of its body")
    }

    /// When [`Session::tick`] is due, on the monotonic clock.
    pub fn poll_timeout(&self) -> Option<Duration> {
        panic!("this signature landed ahead of its body")
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        panic!("this signature landed ahead of its body")
    }

    /// What waits to be sent on the current connection.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn waiting(&mut self, outbound: &dyn Outbound, now: Now) -> Result<Waiting, OutboundError> {
        panic!("this signature landed ahead of its body")
    }

    /// The next frame for a grant, at most `bytes_max` as it stands in the stream (at least
    /// [`crate::limits::GRANT_BYTES_MIN`]). `None` when nothing waits in the lane. Poll the outputs afterwards: skips
    /// and events come out of this too.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn next_frame(
        &mut self,
        lane: Lane,
        bytes_max: usize,
        outbound: &dyn Outbound,
        now: Now,
    ) -> Result<Option<Frame>, OutboundError> {
        panic!("this signature landed ahead of its body")
    }

    /// Is a connection attached and greeted by both sides?
    pub fn is_up(&self) -> bool {
        panic!("this signature landed ahead of its body")
    }
}
