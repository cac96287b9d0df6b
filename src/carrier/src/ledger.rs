//! How the carrier learns and tells what became of a peer's entries, without knowing who applies them.

use model::{Entry, EntryId, Epoch, NodeId, Outcome, Precedence, RangeSet};

/// The apply side's book of a peer's entries. Calls may block on its database.
pub trait Ledger: Send + Sync {
    /// How entries of `origin` ended here so far: cumulative, one set per epoch and outcome.
    ///
    /// # Errors
    /// When the book cannot be read; it is asked again.
    fn ledger(&self, origin: NodeId) -> Result<Vec<(Epoch, Outcome, RangeSet)>, LedgerError>;

    /// Entries of `origin` that took effect before their turn because something more urgent needed them, each with the one it
    /// jumped over, as long as that has not ended; `None` while that is not known. Never older than [`Ledger::ledger`] said before.
    fn jumped(&self, origin: NodeId) -> Option<Vec<(EntryId, EntryId)>>;

    /// `origin` says that it will never send these numbers. They count as accounted for: what waits for them as causes need
    /// not wait any more. Durable when it returns; repeating it is harmless.
    ///
    /// # Errors
    /// When the book cannot be written; the peer says it again.
    fn account(&self, origin: NodeId, epoch: Epoch, outcome: Outcome, numbers: &RangeSet) -> Result<(), LedgerError>;

    /// Every chunk of this file entry of a peer is durable in the journal.
    fn file_complete(&self, file: EntryId);

    /// File entries of `origin` whose chunks are not all here, so that they are fetched. Asked for at the start, and
    /// whenever there is room for more.
    ///
    /// # Errors
    /// When the book cannot be read; it is asked again.
    fn incomplete_files(&self, origin: NodeId) -> Result<Vec<Entry>, LedgerError>;

    /// Of these, the ones that somebody wants, whatever their size, and in which class they are to come.
    ///
    /// # Errors
    /// When the book cannot be read; it is asked again.
    fn requested_files(&self, origin: NodeId) -> Result<Vec<(Entry, Precedence)>, LedgerError>;
}

/// The book could not be read or written. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ledger of applied entries is not available: {0}; nothing was changed")]
pub struct LedgerError(pub String);
