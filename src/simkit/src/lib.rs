//! Worlds from a seed: real sessions, shapers and journals with a pretend clock, disk, network and mission core.
//!
//! ```text
//!  capture --> outbox --> journal --> Session/Shaper ==(outages, loss, delay, cuts)== Session/Shaper --> journal --> apply
//!              (core)     (disk that forgets)                                                 (disk that forgets)    (core)
//! ```
//!
//! Invariants
//! - Time passes only in the world's loop; an hour of a quiet link costs some milliseconds.
//! - A crash keeps what was synced and forgets the rest, except for a random part of it, as disks do.
//! - The equation is asserted while the world runs, arrival and order when it has settled.
//! - Everything random comes from the seed; a failure prints `replay with SEED=n`.
//!
//! Not here: sockets and tasks (`carrier`), the real core (`mission`).
//! Start reading at [`World`].

mod check;
mod clock;
mod crash;
pub mod damage;
mod disk;
pub mod faults;
mod media;
mod network;
mod node;
pub mod trial;
mod world;

pub use check::{Broken, Examination, Findings, Violation, check};
pub use clock::VirtualClock;
pub use crash::{Boundary, CrashStates};
pub use disk::{Call, DiskError, Fault, Op, PretendDisk, Trace};
pub use media::{Keep, Undecided};
pub use network::{Loss, Weather};
pub use world::{History, World, seeds};
