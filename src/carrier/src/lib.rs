//! Moves link frames over QUIC; owns sockets and timers.
//!
//! ```text
//!  link::Session -- frames --> talk --> keeper --> line --> pipe --> quinn --> governor --> UDP
//!                                      (per peer)  (per link)                  (rate, emission: the last step)
//! ```
//!
//! Invariants
//! - Nothing leaves while emission control forbids it, not even a goodbye.
//! - No peer is sent more than its rate, all headers, handshakes, acknowledgements and repetitions included.
//! - A peer is talked to only if its key is in the registry; it is told in words why not.
//! - Nothing is confirmed to a peer before the journal has made it durable.
//! - Dialling never gives up, and a link has one connection: the newest.
//! - To the conversation the links of a peer are one: what one of them did not deliver goes over another.
//!
//! Not here: what to send (`link`), which of it first (`shaper`), where it rests (`journal`).
//! Start reading at [`Carrier`], then `keeper`.

mod ask;
mod backoff;
mod book;
mod carrier;
mod clock;
mod contact;
mod conversation;
mod doorway;
mod emission;
mod endpoint;
mod enroll;
mod error;
mod firsts;
mod governor;
mod https;
mod idle;
mod keeper;
mod ledger;
mod line;
mod net;
mod oneway;
mod parcel;
mod pipe;
mod prober;
mod quic;
mod reach;
mod settings;
mod socket;
mod spare;
mod status;
mod talk;
#[cfg(test)]
mod tests;
mod tls;
mod transit;
#[cfg(test)]
mod trial;

pub use ask::Telling;
pub use book::LinkOrder;
pub use carrier::{Carrier, CarrierHandle, CarrierOptions, consumer_name, order_link};
pub use clock::SystemClock;
pub use contact::WindowSettings;
pub use conversation::{compression, sender_state};
pub use emission::{BadEmission, Emission};
pub use enroll::{EnrollError, EnrollOptions, enroll_join};
pub use error::CarrierError;
pub use https::{BadPin, HttpsSettings, Pin, WEB_CERTIFICATE};
pub use ledger::{Ledger, LedgerError};
pub use oneway::{HalfReceived, OneWayReceived, OneWaySent};
pub use parcel::{Begun, Made, ParcelRefused, Since, Taken, Written};
pub use reach::Reach;
pub use settings::{BadLinkName, CarrierSettings, LaneKind, LinkName, LinkSettings, OneWaySettings, PeerSettings};
pub use status::{BudgetStatus, ClassBacklog, ContactStatus, LinkMeasured, LinkStatus, PeerState, PeerStatus};
pub use transit::{TransitStatus, ViaStatus};
