//! A clock that the world moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use model::{Clock, UnixMillis};

/// Where every world begins.
const START: i64 = 1_700_000_000_000;

/// Time as one world has it. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct VirtualClock(Arc<AtomicU64>);

impl VirtualClock {
    /// Since the world began.
    pub fn elapsed(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::SeqCst))
    }

    /// Moves forward to `at`.
    pub fn advance_to(&self, at: Duration) {
        self.0.fetch_max(u64::try_from(at.as_micros()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(START + self.elapsed().as_millis() as i64)
    }
}

/// The wall clock of one node, which somebody may set. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct WallClock {
    world: VirtualClock,
    ahead_millis: Arc<AtomicI64>,
}

impl WallClock {
    pub(crate) fn of(world: VirtualClock) -> Self {
        Self { world, ahead_millis: Arc::default() }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.world.elapsed()
    }

    /// Sets it so far ahead of the world's time, or behind it.
    pub(crate) fn set_ahead(&self, millis: i64) {
        self.ahead_millis.store(millis, Ordering::SeqCst);
    }
}

impl Clock for WallClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.world.now().0 + self.ahead_millis.load(Ordering::SeqCst))
    }
}
