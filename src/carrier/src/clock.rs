//! The carrier is a shell: it owns its clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use model::{Clock, UnixMillis};

/// Monotonic time.
#[allow(clippy::disallowed_methods, reason = "the carrier owns sockets and timers, so it reads the clock itself")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The operating system's wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is the Clock that everything else asks")]
    fn now(&self) -> UnixMillis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        UnixMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

/// A random duration in `0..max`, for jitter.
pub(crate) fn jitter(max: Duration) -> Duration {
    let mut bytes = [0u8; 4];
    // Without random bytes the whole span is waited: later than needed, never in step with others by design.
    if getrandom::fill(&mut bytes).is_err() {
        return max;
    }
    max.mul_f64(f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX))
}
