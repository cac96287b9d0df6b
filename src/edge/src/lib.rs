//! One site: the rooms of a node wired together, in start and stop order.
//!
//! ```text
//!  clients --HTTP/WS--> mission core --outbox--> capture --> journal <--> carrier <--> peer
//!                            ^                                  |
//!                            `------------ apply <--------------'
//! ```
//!
//! Start: keys, journal, core, apply, carrier, capture, API. The API comes last, so that nothing is accepted
//! before it can be made durable. Stop: API first, then capture (what is committed and not captured is captured at
//! the next start), carrier, apply.
//!
//! An edge dials the hubs in its registry. A hub is the same site with a listener and an enrolment desk; see the room
//! `hub`. Not here: any behaviour of its own.

mod directory;
mod figures;
mod keyring;
mod microsoft365;
mod mirror;
mod scrub;
mod site;
mod space;
mod tab;

pub use figures::{Equation, FigureError};
pub use keyring::open_keyring;
pub use site::{Environment, JoinError, Site, SiteConfig, StartError};
