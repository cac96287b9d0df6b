//! Where an entry stands: in its origin's numbering, and in one node's own journal.

use std::fmt;
use std::num::NonZeroU64;

use minicbor::{Decode, Encode};

use crate::NodeId;

/// One unbroken numbering of a node's entries.
///
/// A node starts a new epoch whenever it cannot prove that it still holds every number it gave out:
/// bytes were discarded at open, a peer holds a higher number, or a snapshot was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, serde::Serialize)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct Epoch(#[n(0)] pub u32);

impl Epoch {
    /// The first epoch of a node.
    pub const FIRST: Self = Self(1);

    /// The epoch after this one; `None` when the numbers run out.
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

/// Number of an entry within its origin's epoch. Starts at 1; 0 never occurs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct Seq(NonZeroU64);

impl Seq {
    /// The first number of an epoch.
    pub const FIRST: Self = Self(NonZeroU64::MIN);

    /// `None` for 0.
    pub fn new(n: u64) -> Option<Self> {
        NonZeroU64::new(n).map(Self)
    }

    /// The plain number, at least 1.
    pub fn get(self) -> u64 {
        self.0.get()
    }

    /// `None` once the numbers run out, so the caller must decide what then.
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

/// Identity of an entry everywhere and for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct EntryId {
    /// Node that captured the event.
    pub origin: NodeId,
    /// That node's numbering.
    pub epoch: Epoch,
    /// Number within it.
    pub seq: Seq,
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.origin, self.epoch.0, self.seq.get())
    }
}

/// Position of an entry (own or received) in one node's own journal. Strictly increasing; starts at 1.
/// Never leaves the node.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, serde::Serialize, serde::Deserialize,
)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct LocalPos(#[n(0)] pub u64);

impl LocalPos {
    /// Before every entry.
    pub const START: Self = Self(1);

    /// The position after this one.
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("2^64 entries do not fit any disk"))
    }
}
