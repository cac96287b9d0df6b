//! The session with a peer: what to send, what was received, what is accounted for. No I/O, no clock.
//!
//! ```text
//!              frame(), entries_stored(), finals(), chunks_stored(), appended(), tick()
//!                                     |
//!  peer's frames --> Session --poll()--> Store, StoreChunk, RecordStored, RecordOutcome, AccountSkipped, ...
//!                       ^
//!   next_frame(grant) --' reads own entries through model::Outbound
//! ```
//!
//! A session belongs to a peer, not to a connection: it outlives connections and carries on where the last one
//! ended. One connection at a time is attached to it.
//!
//! Invariants
//! - Everything releasable reaches the peer's `Store` exactly once after deduplication, whatever connections do.
//! - What will never be sent is told with its reason, and counted final here at once; what the journal lost is told too,
//!   and counted once the peer confirms that it has not had it.
//! - An entry's own, unaccounted causes are sent before it, in its class. A file entry is never pulled.
//! - A number that the peer claims and this process did not send is counted only after its hash was compared.
//! - What either side lost to damage is asked for again where the other still holds it; receipts are never taken back.
//! - A batch refers only to entries that the peer has acknowledged, of its own label; what the peer cannot read it gets again
//!   without reference.
//! - Parcels for nodes further on share the link with the node's own traffic, class by class, and are offered until the peer
//!   has answered for them.
//! - Memory is bounded by the constants in [`limits`], whatever the backlog and whatever the peer says.
//!
//! Not here: who may send how much and when (`shaper`), sockets and durable storage (`carrier`, `journal`).
//! Start reading at [`Session::frame`] and [`Session::next_frame`].

mod clone;
mod fetch;
mod history;
pub mod limits;
mod mend;
mod output;
mod parcel;
mod partial;
mod progress;
mod receiver;
mod sender;
mod sent;
mod serve;
mod session;
mod transit;

pub use clone::{CloneDetector, CloneVerdict};
pub use fetch::OnRequest;
pub use output::{Incoming, LinkError, LinkEvent, Output, StartEpochReason};
pub use parcel::{ByBoot, Planned, Planner, Settled};
pub use progress::EpochProgress;
pub use sent::{FileThere, Packing, SentSoFar};
pub use session::{Lane, Now, ReceiverState, SenderState, Session, SessionConfig, Waiting};
