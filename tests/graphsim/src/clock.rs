//! Simulated time: a source that somebody else owns, and how far it was put ahead of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Milliseconds since 1970.
pub type Millis = u64;

/// Seven days, after which Graph forgets the state of a directory delta.
pub const DAY: Millis = 86_400_000;

/// Where simulated time comes from before it is advanced.
#[derive(Clone, Default)]
pub enum Time {
    /// The machine's clock: what unchanged official clients need.
    #[default]
    Machine,
    /// A test's own clock, in milliseconds since 1970.
    Given(Arc<dyn Fn() -> Millis + Send + Sync>),
}

impl std::fmt::Debug for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Machine => "Machine",
            Self::Given(_) => "Given",
        })
    }
}

/// The clock that the whole simulator reads.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    source: Time,
    ahead_ms: AtomicU64,
}

impl Clock {
    pub(crate) fn new(source: Time) -> Self {
        Self { source, ahead_ms: AtomicU64::new(0) }
    }

    pub(crate) fn now(&self) -> Millis {
        self.source.now() + self.ahead_ms.load(Ordering::Relaxed)
    }

    pub(crate) fn advance(&self, by: Millis) {
        self.ahead_ms.fetch_add(by, Ordering::Relaxed);
    }
}

impl Time {
    #[allow(clippy::disallowed_methods, reason = "the simulator owns sockets and is nobody's room")]
    fn now(&self) -> Millis {
        match self {
            Self::Machine => std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
            Self::Given(read) => read(),
        }
    }
}

/// As Graph writes times: `2026-11-23T17:00:00.123Z`.
pub fn iso(at: Millis) -> String {
    stamp(at).strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// As HTTP writes them.
pub(crate) fn http_date(at: Millis) -> String {
    stamp(at).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// As Entra writes them in an error.
pub(crate) fn entra_date(at: Millis) -> String {
    stamp(at).strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// Reads an RFC 3339 time; finer than milliseconds is cut off.
pub(crate) fn parse_iso(text: &str) -> Option<Millis> {
    let stamp: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(stamp.as_millisecond()).ok()
}

fn stamp(at: Millis) -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(i64::try_from(at).unwrap_or(i64::MAX)).unwrap_or(jiff::Timestamp::MAX)
}
