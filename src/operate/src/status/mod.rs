//! What a node says about itself: one object for programs, one screen for people.

mod render;

use std::collections::BTreeMap;

use model::{Precedence, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::backlog::Eta;
use crate::config::Role;

pub use render::{COLUMNS, LINES, render};

/// Name and version of the JSON form. Fields are only added within a version.
pub const SCHEMA: &str = "holdfast.status/1";

/// Everything that `holdfast status` shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`SCHEMA`].
    pub schema: String,
    /// When these figures were read, by the node's clock.
    pub at: UnixMillis,
    /// `true`: from the running node. `false`: from its files, since it does not run.
    pub running: bool,
    /// Who it is.
    pub node: NodeFacts,
    /// Seconds since it started; `None` when it does not run.
    pub uptime_seconds: Option<u64>,
    /// Mission users can be served.
    pub ready: bool,
    /// The worst of all checks; `None` when it does not run.
    pub health: Option<telemetry::Grade>,
    /// Emission control.
    pub emission: carrier::Emission,
    /// One per enrolled peer.
    pub peers: Vec<PeerFacts>,
    /// What it carries on for others, by destination; empty when it does not run.
    #[serde(default)]
    pub transit: Vec<carrier::TransitStatus>,
    /// The way to Microsoft 365; `None` without section `[microsoft]`, or when the node does not run.
    #[serde(default)]
    pub microsoft: Option<MicrosoftFacts>,
    /// Committed in the mission core and not yet in the journal; `None` when it does not run.
    pub capture_pending_rows: Option<u64>,
    /// Disk use.
    pub disk: DiskFacts,
    /// Checks that are not ok, the worst first.
    pub problems: Vec<telemetry::Check>,
}

/// Who a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// Its configured name.
    pub name: String,
    /// Its identity.
    pub id: String,
    /// Which side it is.
    pub role: Role,
    /// Version of the program.
    pub version: String,
    /// Its present numbering.
    pub epoch: u32,
}

/// A peer: the link to it, what is for it, what came from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerFacts {
    /// The name under which it was enrolled.
    pub name: String,
    /// The link; `None` when the node does not run.
    pub link: Option<LinkFacts>,
    /// The equation for what is sent there; `None` when nothing was yet.
    pub outbound: Option<Equation>,
    /// What came from there; `None` when nothing did.
    pub inbound: Option<InboundFacts>,
}

/// A link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkFacts {
    /// `down`, `connecting`, `up`, `silent`, `denied`, `held`, `one-way` or `relayed`.
    pub state: String,
    /// What it is found to be over time: `up`, `degraded`, `intermittent`, `denied`, `silent`, `down` or `held`.
    pub reach: String,
    /// How long it has been up or down; `None` where that is not known.
    pub for_seconds: Option<u64>,
    /// What the last connection or attempt ended with; empty when there is nothing to say.
    pub detail: String,
    /// Sent during the last seconds, bits per second on the wire.
    pub up_bits_per_second: u64,
    /// Received during the last seconds, bits per second on the wire.
    pub down_bits_per_second: u64,
    /// Smoothed round trip; `None` without a connection.
    pub round_trip_ms: Option<u64>,
}

/// The way to Microsoft 365.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MicrosoftFacts {
    /// Delivery may run.
    pub delivers: bool,
    /// Entra ID.
    pub entra: MicrosoftDestination,
    /// Microsoft Graph.
    pub graph: MicrosoftDestination,
    /// Services behind Graph that fail: until when their calls are held back.
    pub held_services: BTreeMap<String, UnixMillis>,
    /// Why the application gets no token, if it does not.
    pub sign_in: Option<String>,
    /// By how many seconds Microsoft's clock is ahead of this node's; `None` before it answered.
    pub clock_ahead_seconds: Option<i64>,
}

/// Entra ID or Microsoft Graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MicrosoftDestination {
    /// `down`, `probing`, `degraded` or `up`.
    pub state: String,
    /// Since when.
    pub since: UnixMillis,
    /// When the real service last answered.
    pub last_good: Option<UnixMillis>,
    /// Why it is not up.
    pub why: Option<String>,
}

impl MicrosoftFacts {
    /// As probes and calls have shown it.
    pub fn new(reach: &microsoft::Reach) -> Self {
        let of = |seen: &microsoft::reach::Destination| MicrosoftDestination {
            state: seen.state.as_str().to_owned(),
            since: seen.since,
            last_good: seen.last_good,
            why: seen.why.clone(),
        };
        let held = reach.services.iter().filter_map(|(name, service)| Some(((*name).to_owned(), service.held_until?)));
        Self {
            delivers: reach.may_deliver(),
            entra: of(&reach.entra),
            graph: of(&reach.graph),
            held_services: held.collect(),
            sign_in: reach.sign_in.clone(),
            clock_ahead_seconds: reach.clock_ahead_seconds,
        }
    }
}

/// `accepted = applied + held + quarantined + expired + superseded + withheld + purged`, at every moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the terms of the equation")]
pub struct Equation {
    pub accepted: u64,
    pub applied: u64,
    pub held: u64,
    pub quarantined: u64,
    pub expired: u64,
    pub superseded: u64,
    pub withheld: u64,
    pub purged: u64,
    /// Held entries by sending class: those in the journal; together with `capturing` they are the held ones.
    pub held_by_class: ByClass,
    /// Of the held ones: committed in the mission core and not yet in the journal, so without a class.
    pub capturing: u64,
    /// Of the held ones: durable at the peer, final receipt missing.
    pub stored: u64,
    /// Age of the oldest held entry; `None` when nothing is held.
    pub oldest_held_seconds: Option<u64>,
    /// At most so many bytes must still cross: the held entries, and the whole content of held files. The peer may have
    /// part of it already.
    pub backlog_bytes: u64,
    /// When nothing will be held any more; `None` while the link is not up, or nothing moves. `backlog` says more.
    pub eta: Option<Eta>,
}

impl Equation {
    /// As the journal counts it at `now`, with `capturing` rows committed in the mission core and not yet in the journal.
    pub fn new(accounting: &journal::Accounting, capturing: u64, now: UnixMillis, eta: Option<Eta>) -> Self {
        let total = &accounting.total;
        let oldest = total.oldest_held.filter(|_| total.held > 0);
        Self {
            accepted: total.accepted + capturing,
            applied: total.applied,
            held: total.held + capturing,
            quarantined: total.quarantined,
            expired: total.expired,
            superseded: total.superseded,
            withheld: total.withheld,
            purged: total.purged,
            held_by_class: ByClass::new(accounting.by_class.map(|class| class.held)),
            capturing,
            stored: total.stored,
            oldest_held_seconds: oldest.map(|at| crate::show::age(at, now).as_secs()),
            backlog_bytes: total.held_bytes,
            eta,
        }
    }

    /// Does it hold?
    pub fn balances(&self) -> bool {
        let ended = self.applied + self.quarantined + self.expired + self.superseded + self.withheld + self.purged;
        self.accepted == ended + self.held && self.held == self.held_by_class.sum() + self.capturing
    }
}

/// A count for each precedence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the classes")]
pub struct ByClass {
    pub flash: u64,
    pub immediate: u64,
    pub priority: u64,
    pub routine: u64,
    pub deferred: u64,
}

impl ByClass {
    /// From counts in the order of [`Precedence::ALL`].
    pub fn new(counts: [u64; Precedence::ALL.len()]) -> Self {
        let [flash, immediate, priority, routine, deferred] = counts;
        Self { flash, immediate, priority, routine, deferred }
    }

    /// The classes with their counts, most urgent first.
    pub fn pairs(&self) -> [(Precedence, u64); Precedence::ALL.len()] {
        [
            (Precedence::Flash, self.flash),
            (Precedence::Immediate, self.immediate),
            (Precedence::Priority, self.priority),
            (Precedence::Routine, self.routine),
            (Precedence::Deferred, self.deferred),
        ]
    }

    fn sum(&self) -> u64 {
        self.pairs().iter().map(|(_, n)| n).sum()
    }
}

/// What came from a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboundFacts {
    /// Entries stored in this node's journal.
    pub stored: u64,
    /// Of these, in effect here.
    pub applied: u64,
    /// Of these, waiting for a cause.
    pub held: u64,
    /// Of these, kept aside since they cannot be applied.
    pub quarantined: u64,
}

/// Disk use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskFacts {
    /// Size of the journal's segments.
    pub journal_bytes: u64,
    /// `journal.limit_bytes`.
    pub journal_limit_bytes: u64,
    /// Free on the file system of the data directory; `None` when it does not say.
    pub free_bytes: Option<u64>,
    /// What is refused for want of room, and why; `None` when the node does not run.
    #[serde(default)]
    pub space: Option<journal::Space>,
}

impl Status {
    /// Not as it should be, so that `status` ends with another code.
    pub fn is_degraded(&self) -> bool {
        !self.problems.is_empty() || self.health.is_some_and(|h| h != telemetry::Grade::Ok)
    }
}

/// Bytes that an unprivileged process may still write below `dir`.
pub fn free_bytes(dir: &std::path::Path) -> Option<u64> {
    rustix::fs::statvfs(dir).ok().map(|s| s.f_bavail.saturating_mul(s.f_frsize))
}

#[cfg(test)]
pub(crate) mod fixture;
