//! The directory: people and groups of Entra ID as they become accounts of the mission core.
//!
//! ```text
//!  Graph --pages--> Round --whole?--> Book (what is known) --settle--> Batch --Sink--> mission core
//!                                        ^                                   |
//!                                        `---- records, same transaction <---'
//! ```
//!
//! Invariants
//! - What a round found counts only once its last page has been read, and its delta link is stored with it or not at all.
//! - Somebody counts as absent only when a list was read whole and lacks them.
//! - No account ends before its grace is over, and never many at once without an operator.
//! - What the pages left unsaid stays as it was; what they cleared is cleared.
//!
//! Not here: what an account or a membership is (mission), passwords (there are none in Entra to be had). Pure but for `sync`.
//! Start reading at [`Book::settle`].

mod book;
mod item;
mod round;
mod rules;
mod sync;
#[cfg(test)]
mod tests;

pub use book::{
    BadRecord, Batch, Book, Closed, Gone, Known, PersonView, Place, Plan, Planned, Sizes, Source, Stored, Wanted, Why,
};
pub use item::PageError;
pub use round::{First, Round, What};
pub use rules::{DirectorySettings, GoneRule, GroupSettings, People, Rules};
pub use sync::{Ask, Asked, DirectorySync, Done, Sink, SinkError, SyncHandle, SyncOptions, SyncStatus};
