//! Time: wall clock as given, hybrid logical clock for order, versions of objects.

use std::sync::atomic::{AtomicU64, Ordering};

use minicbor::{Decode, Encode};

use crate::NodeId;

/// Milliseconds since 1970-01-01T00:00:00Z, the unit of every Mattermost timestamp.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Encode,
    Decode,
    serde::Serialize,
    serde::Deserialize,
)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct UnixMillis(#[n(0)] pub i64);

/// Where a shell gets wall time from. Pure logic takes [`UnixMillis`] as an argument instead.
pub trait Clock: Send + Sync {
    /// Wall time; may step in either direction.
    fn now(&self) -> UnixMillis;
}

/// Hybrid logical clock reading: 48 bits of milliseconds, 16 bits of counter
/// (Kulkarni et al., "Logical Physical Clocks", 2014).
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Encode,
    Decode,
    serde::Serialize,
    serde::Deserialize,
)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct Hlc(#[n(0)] pub u64);

impl Hlc {
    /// Before everything.
    pub const ZERO: Self = Self(0);

    fn at_wall(now: UnixMillis) -> Self {
        let ms = u64::try_from(now.0).unwrap_or(0).min((1 << 48) - 1);
        Self(ms << 16)
    }

    /// The wall-clock part.
    pub fn millis(self) -> UnixMillis {
        UnixMillis((self.0 >> 16) as i64)
    }
}

/// Issues strictly increasing [`Hlc`] readings whatever the wall clock does.
#[derive(Debug, Default)]
pub struct HybridClock(AtomicU64);

impl HybridClock {
    /// A clock whose first reading lies after `seen`.
    pub fn after(seen: Hlc) -> Self {
        Self(AtomicU64::new(seen.0))
    }

    /// The next reading: the wall clock where it leads, else one more than the last.
    pub fn tick(&self, now: UnixMillis) -> Hlc {
        let wall = Hlc::at_wall(now).0;
        let step = |last: u64| Some(wall.max(last + 1));
        let last = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, step).expect("the step always has a value");
        Hlc(wall.max(last + 1))
    }

    /// Takes note of a reading made elsewhere, so that later local readings lie after it.
    ///
    /// A reading more than [`HybridClock::SKEW_MAX_MS`] ahead of `now` is not followed: one node with a
    /// wrong clock must not drag the mission into the future. Versions compare all the same.
    pub fn observe(&self, seen: Hlc, now: UnixMillis) {
        if seen.millis().0 <= now.0.saturating_add(Self::SKEW_MAX_MS) {
            self.0.fetch_max(seen.0, Ordering::SeqCst);
        }
    }

    /// One day: far above honest drift in the field, far below a clock that lost its battery.
    pub const SKEW_MAX_MS: i64 = 24 * 60 * 60 * 1000;
}

/// Version of an object's state. The higher wins on every node; the node breaks ties.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, serde::Serialize)]
pub struct Version {
    /// When the state was made.
    #[n(0)]
    pub at: Hlc,
    /// Where it was made.
    #[n(1)]
    pub by: NodeId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_increase_when_the_wall_clock_steps_back_ten_years() {
        let clock = HybridClock::default();
        let before = clock.tick(UnixMillis(1_700_000_000_000));
        let after = clock.tick(UnixMillis(1_384_000_000_000));
        assert!(after > before);
    }

    #[test]
    fn a_peer_from_the_far_future_is_not_followed() {
        let clock = HybridClock::default();
        let now = UnixMillis(1_700_000_000_000);
        clock.observe(Hlc::at_wall(UnixMillis(now.0 + 10 * 365 * 86_400_000)), now);
        assert_eq!(clock.tick(now).millis(), now);
    }

    #[test]
    fn a_reading_from_a_peer_is_passed_at_once() {
        let clock = HybridClock::default();
        let now = UnixMillis(1_700_000_000_000);
        let seen = Hlc::at_wall(UnixMillis(now.0 + 5_000));
        clock.observe(seen, now);
        assert!(clock.tick(now) > seen);
    }
}
