//! Failures at the worst moments, by rule.

use serde::{Deserialize, Serialize};

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind", deny_unknown_fields)]
pub enum Failure {
    /// The connection is reset before anything is done.
    ResetBefore,
    /// The connection is reset after the effect is committed and before a byte of the answer. Waits for a request that
    /// commits something.
    ResetAfterCommit,
    /// Half of the answer, then a reset. The effect is committed.
    Truncated,
    /// The answer comes in pieces, over so long altogether. The effect is committed.
    SlowBody {
        /// Real milliseconds.
        over_ms: u64,
    },
    /// Nothing is done and nothing is answered for so long; then the connection is reset.
    Stall {
        /// Real milliseconds.
        for_ms: u64,
    },
    /// The effect is committed, and the answer is held back for so long; then the connection is reset. Waits for a request that
    /// commits something.
    StallAfterCommit {
        /// Real milliseconds.
        for_ms: u64,
    },
    /// The TLS handshake is not answered for so long; then the connection is reset. Applies to whole hosts.
    TlsStall {
        /// Real milliseconds.
        for_ms: u64,
    },
    /// An answer of a proxy: HTML, none of Graph's headers.
    Html {
        /// 502, 503, 504 and the like.
        status: u16,
    },
    /// A refusal in the service's own form. Nothing is done.
    Refused {
        /// Such as 429 or 503.
        status: u16,
        /// Seconds; may have a fraction.
        #[serde(default)]
        retry_after_s: Option<f64>,
        /// Error code; a usual one for the status if absent.
        #[serde(default)]
        code: Option<String>,
    },
    /// As `Refused`, but the effect is committed first.
    RefusedAfterCommit {
        /// Such as 503 or 504.
        status: u16,
    },
    /// Links to the next page and to the next delta lead to a host that is none of Microsoft's. A client must not follow them.
    ForeignLink,
    /// A portal's page with 200 for everything.
    CaptivePortal,
    /// A portal's redirect to its own host.
    CaptiveRedirect,
}

/// When it goes wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultRule {
    /// `login`, `graph`, `upload`; every host if absent.
    #[serde(default)]
    pub host: Option<String>,
    /// HTTP method; any if absent.
    #[serde(default)]
    pub method: Option<String>,
    /// Text that the path must contain; any if absent.
    #[serde(default)]
    pub path: Option<String>,
    /// So many matching requests go through first.
    #[serde(default)]
    pub skip: u32,
    /// How often; once if absent.
    #[serde(default = "once")]
    pub times: u32,
    /// Chance for each matching request, from the seed; certain if absent.
    #[serde(default = "certain")]
    pub chance: f64,
    /// What goes wrong.
    pub failure: Failure,
}

fn once() -> u32 {
    1
}

fn certain() -> f64 {
    1.0
}

impl FaultRule {
    /// Once, for every host, method and path.
    pub fn new(failure: Failure) -> Self {
        Self { host: None, method: None, path: None, skip: 0, times: 1, chance: 1.0, failure }
    }

    /// Only requests with this method whose path contains this text.
    pub fn on(mut self, method: &str, path: &str) -> Self {
        self.method = Some(method.to_owned());
        self.path = Some(path.to_owned());
        self
    }

    /// Only at this host: `login`, `graph` or `upload`.
    pub fn at(mut self, host: &str) -> Self {
        self.host = Some(host.to_owned());
        self
    }

    /// So many matching requests go through first.
    pub fn after(mut self, skip: u32) -> Self {
        self.skip = skip;
        self
    }

    /// So often.
    pub fn times(mut self, times: u32) -> Self {
        self.times = times;
        self
    }

    /// With this chance for each matching request.
    pub fn chance(mut self, chance: f64) -> Self {
        self.chance = chance;
        self
    }

    pub(crate) fn matches(&self, host: &str, method: &str, path: &str) -> bool {
        self.host.as_deref().is_none_or(|h| h == host)
            && self.method.as_deref().is_none_or(|m| m.eq_ignore_ascii_case(method))
            && self.path.as_deref().is_none_or(|p| path.contains(p))
    }
}
