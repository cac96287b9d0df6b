//! What a session with a peer reads from a journal.

use std::sync::Arc;

use crate::{ChunkName, Entry, EntryHash, EntryId, LocalPos, Precedence};

/// Own entries and chunks, read in sending order. The journal implements it; so does the simulator's memory.
///
/// Calls are short reads (bounded by their arguments) and may touch the disk.
pub trait Outbound {
    /// Entries captured on this node, of one class, at or after `from`, in local order.
    /// At least one is returned where there is one, then no more than `bytes_max` in all.
    ///
    /// # Errors
    /// When the journal cannot be read; the session should end and be tried again.
    fn scan(&self, class: Precedence, from: LocalPos, bytes_max: usize) -> Result<Scan, OutboundError>;

    /// One of this node's own entries; `None` when it was trimmed.
    ///
    /// # Errors
    /// As for [`Outbound::scan`].
    fn entry(&self, id: EntryId) -> Result<Option<Outgoing>, OutboundError>;

    /// An entry of another node that is held; `None` when it is not held (any more).
    ///
    /// # Errors
    /// As for [`Outbound::scan`].
    fn received(&self, id: EntryId) -> Result<Option<Outgoing>, OutboundError>;

    /// Is there a newer own entry with the same supersession key?
    fn superseded(&self, entry: &Outgoing) -> bool;

    /// Plain bytes of a chunk; `None` when it is not held.
    ///
    /// # Errors
    /// As for [`Outbound::scan`].
    fn chunk(&self, name: &ChunkName) -> Result<Option<Arc<[u8]>>, OutboundError>;

    /// A chunk of the same label that this one is held as the difference to, if it is: sent as that, it costs as little as it
    /// does here.
    ///
    /// # Errors
    /// When the journal cannot be read.
    fn chunk_base(&self, name: &ChunkName) -> Result<Option<ChunkName>, OutboundError>;

    /// Is a chunk held? Cheaper than reading it.
    ///
    /// # Errors
    /// As for [`Outbound::scan`].
    fn holds_chunk(&self, name: &ChunkName) -> Result<bool, OutboundError>;

    /// Hash of an entry that is held, own or received; `None` when it is not held any more.
    ///
    /// # Errors
    /// As for [`Outbound::scan`].
    fn hash_of(&self, id: EntryId) -> Result<Option<EntryHash>, OutboundError>;
}

/// One entry, ready to send.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Where it stands in this node's journal.
    pub pos: LocalPos,
    /// The decoded entry.
    pub entry: Arc<Entry>,
    /// Its canonical bytes (`wire::encode_entry`).
    pub bytes: Arc<[u8]>,
    /// Its hash.
    pub hash: EntryHash,
}

/// The answer of [`Outbound::scan`].
#[derive(Clone, Debug)]
pub struct Scan {
    /// Entries in local order.
    pub entries: Vec<Outgoing>,
    /// Where the next scan of this class continues; beyond the journal's end when there is no more for now.
    pub next: LocalPos,
}

/// The journal could not be read.
#[derive(Clone, Debug, thiserror::Error)]
#[error("reading the journal failed: {0}; nothing was changed")]
pub struct OutboundError(pub String);
