//! Links between network namespaces that lose, delay and throttle real packets.
//!
//! [`Path`] is what a link does to packets, as a function of time; [`Link`] applies one to each direction between two
//! [`Namespace`]s, in which real programs run. docs/adr/0022 says why this is in user space.
//!
//! Not here: anything that knows Holdfast. Needs root and `/dev/net/tun`; start reading at [`Link::open`].

mod namespace;
mod path;
mod tunnel;

pub use namespace::{Namespace, Process, ip};
pub use path::{Conditions, Fate, Loss, Passage, Path};
pub use tunnel::{FAR, Lateness, Link, NEAR, Span, hurry};

/// What a link or namespace fails with, in words.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
