//! The nouns that every room shares. No I/O, no clock of its own, no policy.
//!
//! ```text
//!  event (what changed, as resulting state)
//!    `-- capture --> entry (header + body) --> journal --> link --> peer's journal --> apply
//!                      |
//!                      +-- EntryId = (origin node, epoch, seq), assigned at append, once
//! ```
//!
//! Invariants
//! - An [`EntryId`] names one content for ever; the same id with other content is a divergence, never an update.
//! - A [`Version`] totally orders the states of one object on every node.
//! - A [`RangeSet`] holds each number once, and its ranges never touch.
//! - An [`Id`] is 26 characters of `[a-z0-9]`; nothing else parses into one.
//!
//! Not here: how entries become bytes (`wire`), where they rest (`journal`), what an event does (`mission`).

pub mod chunk;
pub mod disk;
pub mod entra;
pub mod entry;
pub mod event;
pub mod hlc;
pub mod id;
pub mod label;
pub mod outbound;
pub mod pattern;
pub mod position;
pub mod precedence;
pub mod ranges;
pub mod sensitive;
pub mod space;
pub mod units;

pub use chunk::{ChunkName, Coded, Manifest};
pub use disk::{Disk, DiskFile, DiskLock, LockError, OpenMode};
pub use entra::{BadGuid, EntraKey, Guid};
pub use entry::{Cause, Entry, EntryHash, Header, Kind, ObjectKey, Outcome, SourcePosition, StreamId, SupersessionKey};
pub use event::{Event, ObjectRef};
pub use hlc::{Clock, Hlc, HybridClock, UnixMillis, Version};
pub use id::{BadId, Id, IdContext, IdMint, NodeId, RawIds};
pub use label::Label;
pub use outbound::{Outbound, OutboundError, Outgoing, Scan};
pub use position::{EntryId, Epoch, LocalPos, Seq};
pub use precedence::Precedence;
pub use ranges::RangeSet;
pub use sensitive::Sensitive;
pub use space::{DiskSpace, SpaceLevel};
pub use units::{BitsPerSecond, ByteSize};
