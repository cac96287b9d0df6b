//! Entries, chunks and frames as bytes: everything that crosses a link or rests in the journal is laid out here.
//!
//! ```text
//!  model::Entry --entry--> canonical bytes               --frame--> bytes between two nodes
//!  file content --chunk--> chunks and a manifest  ------'
//! ```
//!
//! Invariants
//! - Bytes that decode encode to the same bytes again; anything else is refused.
//! - No length, count or inflated size from outside is believed before it is compared with its cap.
//! - A frame never exceeds [`frame::FRAME_BYTES_MAX`] and an entry never [`entry::ENTRY_BYTES_MAX`].
//!
//! Not here: which frame to send when (`link`), where entries rest (`journal`).
//! Start reading at [`entry::encode_entry`] and [`frame::Frame`].

mod batch;
pub mod chunk;
pub mod compress;
mod deflate;
pub mod entry;
pub mod frame;
mod history;
pub mod parcel;
mod predict;
mod reader;
mod record;
mod zip;

pub use batch::{Batch, Unpacked, pack_batch};
pub use compress::{compress, decompress_capped};
pub use entry::{BodyHash, EntryHead, OwnEntries, decode_entry, decode_event, encode_entry, encode_event, entry_hash};
pub use frame::{Frame, FrameBuffer};
pub use history::{HISTORY_BYTES_MAX, HISTORY_ENTRIES_MAX, HISTORY_ENTRY_BYTES_MAX, History};

/// Bytes from outside that are not what they should be. Nothing was stored or changed because of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The bytes end before the value does.
    #[error("the bytes end inside {0}")]
    Truncated(&'static str),
    /// A length or count above its cap.
    #[error("{what} has {found}, more than the allowed {max}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The announced or found size.
        found: u64,
        /// The cap.
        max: u64,
    },
    /// A layout that this program does not know.
    #[error("{what} has layout version {found}; this program reads version {known}")]
    Version {
        /// What carries the version.
        what: &'static str,
        /// The version found.
        found: u8,
        /// The version understood.
        known: u8,
    },
    /// A value outside its range.
    #[error("{0} is malformed")]
    Malformed(&'static str),
    /// The value could be read, but written again it would have other bytes.
    #[error("{0} is not in its canonical form")]
    NotCanonical(&'static str),
}

impl WireError {
    /// What the operator should do.
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::Version { .. } => "bring both nodes to the same release, the receiving side first",
            Self::Truncated(_) | Self::TooLarge { .. } | Self::Malformed(_) | Self::NotCanonical(_) => {
                "nothing is lost: the peer sends it again; if it repeats, run `holdfast journal verify` on the sending node"
            }
        }
    }
}
