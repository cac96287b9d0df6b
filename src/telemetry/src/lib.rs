//! What a node says about itself: the metric table, health facts and log set-up.
//!
//! ```text
//!  rooms --handles--> Metrics (one registry per node) --text--> /metrics
//!  rooms --verdicts-> Health  (one board per node)    --------> /healthz, /readyz, `holdfast status`
//!  rooms --tracing--> one subscriber per process      --------> stderr
//! ```
//!
//! Invariants
//! - A metric name is spelled in `table.rs` and nowhere else; the manual's page is made from the same rows.
//! - A label value comes from an enum or is the configured name of a peer; never free text.
//! - Nothing here is global but the log subscriber: two nodes in one process have two registries and two boards.
//!
//! Not here: who serves the pages (`operate`), what a number means for the operator (`docs/metrics.md`).
//! Start reading at `table.rs`.

pub mod health;
pub mod labels;
pub mod logging;
pub mod metric;
mod table;

pub use health::{Check, Grade, Health, Verdict};
pub use labels::{
    Build, Destination, Direction, LinkName, LinkReach, LinkState, MicrosoftDestination, MicrosoftOutcome,
    MicrosoftProbe, MicrosoftReach, MicrosoftService, ObjectCount, ParcelRefusal, PeerName, Refusal, RequestKind, Role,
    StatusClass, Term,
};
pub use logging::{LogError, LogFormat, LogSettings};
pub use metric::{Counter, DiskHistogram, Gauge, Histogram, MetricKind, Row};
pub use table::Metrics;
