//! The durable ordered log of entries and chunks: what this node captured, and what peers sent.
//!
//! ```text
//! capture --append_own-----> [ segment | segment | tail ] --outbound------> link
//! carrier --append_foreign->   ^ trimmed when every        --read_foreign--> apply
//!         --put_chunk------>     required consumer is done  <--record_*------ receipts
//! ```
//!
//! Invariants
//! - An append is acknowledged only after `fdatasync`, and nothing is readable before it is acknowledged.
//! - A number is never given out twice: whenever one may have been lost, a new epoch begins.
//! - A damaged frame costs what stands in it and nothing else; it is reported, never returned and never cut out.
//! - The index can be lost at any moment: it is made anew from the segments, and nothing is acknowledged on its word.
//! - Files are refused first, flash last, and receipts and trimming always fit; see [`SpaceLevel`](model::SpaceLevel).
//! - A segment goes only when every required consumer is done with it and no later file needs its chunks.
//! - `accepted = applied + held + quarantined + expired + superseded + withheld + purged`, for each consumer, always.
//!
//! Not here: what to send first (shaper), talking to a peer (link, carrier), what an entry does (apply, mission).
//! Start reading at [`Journal`]; the disk layout is in `format`, opening in `load`, writing in `committer`.

mod committer;
mod consumer;
mod disk;
mod error;
mod expiry;
mod figures;
mod file;
mod format;
mod holds;
mod index;
mod journal;
mod lanes;
mod load;
#[cfg(feature = "mutations")]
pub mod mutations;
#[cfg(not(feature = "mutations"))]
mod mutations;
mod pages;
mod purge;
mod quarantine;
mod queue;
mod reader;
mod reserve;
mod rewrite;
mod scan;
mod scrub;
mod sealer;
mod settings;
mod state;
mod summary;
#[cfg(test)]
mod tests;
mod ticket;
mod types;
mod upkeep;
mod verify;
mod view;
mod whereabouts;

pub use consumer::Consumer;
pub use disk::StdDisk;
pub use error::{AppendError, OpenError, ReadError};
pub use expiry::Settled;
pub use file::FileInProgress;
pub use holds::Hold;
pub use journal::{Journal, OutboundView, Subscription};
pub use purge::{PurgeOrder, PurgeReport};
pub use quarantine::{Missed, QuarantineReport, QuarantinedNumbers, QuarantinedPlace};
pub use reader::Reader;
pub use reserve::{Space, SpaceCause};
pub use rewrite::keys_in_use;
pub use scrub::{Scrub, ScrubSettings, ScrubStatus, Scrubbed, Step};
pub use sealer::{OsSalts, Salts};
pub use settings::{
    AtRest, IndexPlace, JournalOptions, JournalSettings, LIMIT_BYTES_DEFAULT, RESERVE_BYTES_DEFAULT,
    SEGMENT_BYTES_DEFAULT,
};
pub use ticket::Ticket;
pub use types::{
    Accounting, Appended, ChunkPut, Chunks, ConsumerState, Damage, Draft, EpochReason, Finding, Foreign, ForeignBatch,
    ForeignOutcome, Listed, OpenReport, OwnEpoch, Progress, Received, Stats, Sums, TrimReport, VerifyReport, Which,
};
pub use upkeep::TrimPlan;
pub use whereabouts::{About, Ahead, HeldByStream, Place, StreamHeld, WALK_MAX};
