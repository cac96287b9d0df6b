//! What a plan says before anything goes. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What would go where.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Each target.
    pub targets: Vec<TargetPlan>,
    /// Seconds until all of them are done: they deliver side by side.
    pub seconds: f64,
}

/// What would go to one target.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TargetPlan {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: String,
    /// Where it goes, as the configuration names it.
    pub destination: String,
    /// Items that would go, by team and channel.
    pub lanes: BTreeMap<String, u64>,
    /// Items by kind.
    pub kinds: BTreeMap<String, u64>,
    /// Entries that would be withheld, by reason, of those not read yet.
    pub withheld: BTreeMap<String, u64>,
    /// Requests to Microsoft.
    pub requests: u64,
    /// Bytes of their bodies, about.
    pub bytes: u64,
    /// Seconds under Microsoft's limits.
    pub seconds: f64,
}

impl Plan {
    /// Of all targets.
    pub fn of(targets: Vec<TargetPlan>) -> Self {
        let seconds = targets.iter().map(|t| t.seconds).fold(0.0, f64::max);
        Self { targets, seconds }
    }
}

impl TargetPlan {
    /// Its time: what the limits allow, but no faster than one request after the other over this round trip, nor than the
    /// configured rate lets the bytes go.
    pub fn timed(mut self, by_limits: Duration, round_trip: Duration, rate_bytes: Option<u64>) -> Self {
        let by_trips = round_trip.as_secs_f64() * self.requests as f64;
        let by_rate = rate_bytes.map_or(0.0, |rate| self.bytes as f64 / rate.max(1) as f64);
        self.seconds = by_limits.as_secs_f64().max(by_trips).max(by_rate);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_of_limit_round_trips_and_rate_decides() {
        let plan = |requests, bytes, limits, trip_ms, rate| {
            let plan = TargetPlan { requests, bytes, ..TargetPlan::default() };
            plan.timed(Duration::from_secs(limits), Duration::from_millis(trip_ms), rate).seconds
        };
        assert_eq!(plan(100, 0, 50, 100, None), 50.0);
        assert_eq!(plan(100, 0, 50, 1_000, None), 100.0);
        assert_eq!(plan(100, 32_000_000, 50, 1_000, Some(32_000)), 1_000.0);
        let both = [50.0, 70.0].map(|seconds| TargetPlan { seconds, ..TargetPlan::default() });
        assert_eq!(Plan::of(both.to_vec()).seconds, 70.0);
    }
}
