//! What this room gets from the process around it: time, randomness, permission to send, and a place for secrets.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::Method;
use model::{Clock, Precedence, Sensitive};
use telemetry::{Health, Metrics};

/// Permission to send. Asked before bytes leave, by precedence; `edge` implements it over emission control and the
/// configured rate.
pub trait Budget: Send + Sync {
    /// Waits for its turn and says how many of `bytes` may leave now: at least one, at most all of them. A body is sent in
    /// the pieces that come of this, so that a large one leaves room for what is more urgent.
    ///
    /// Cancel-safe: who stops waiting was granted nothing.
    ///
    /// # Errors
    /// When nothing may leave at all; then nothing of the piece was or will be sent.
    fn take(&self, precedence: Precedence, bytes: u64) -> BoxFuture<'_, Result<u64, HeldBecause>>;

    /// Completes when nothing may leave any more; what is under way is dropped then. Cancel-safe.
    fn forbidden(&self) -> BoxFuture<'_, HeldBecause>;
}

/// Why nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeldBecause {
    /// Emission control is silent or receive-only.
    #[error("emission control forbids sending; nothing was sent")]
    Emission,
    /// No connection with the service, or none that a probe believes in.
    #[error("not reachable: {0}; nothing was sent")]
    Unreachable(String),
    /// A configured amount is used up.
    #[error("no budget is left; nothing was sent")]
    OverBudget,
}

/// Seals what must not lie readable on the disk: refresh tokens and upload addresses. `edge` implements it over `keys`.
pub trait Vault: Send + Sync {
    /// Seals; the same bytes seal differently each time.
    fn seal(&self, plain: &[u8]) -> Vec<u8>;

    /// What was sealed; `None` when it was altered or sealed by another node.
    fn open(&self, sealed: &[u8]) -> Option<Sensitive<Vec<u8>>>;
}

/// A monotonic clock that can be waited on. Token lifetimes, throttling and probes follow it, because the wall clock of an
/// appliance steps; tests put a virtual one here.
pub trait Timer: Send + Sync {
    /// Time since any fixed moment; never goes back.
    fn now(&self) -> Duration;

    /// Completes at `at`. Cancel-safe.
    fn until(&self, at: Duration) -> BoxFuture<'_, ()>;
}

/// The timer of the runtime.
#[derive(Debug)]
pub struct TokioTimer(tokio::time::Instant);

impl TokioTimer {
    /// A timer that starts at zero.
    pub fn start() -> Self {
        Self(tokio::time::Instant::now())
    }
}

impl Timer for TokioTimer {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn until(&self, at: Duration) -> BoxFuture<'_, ()> {
        Box::pin(tokio::time::sleep_until(self.0 + at))
    }
}

/// A request to Graph as tests see it: what was asked, never with which token. Pieces of an upload are none: their address
/// is a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedRequest {
    /// The method.
    pub method: Method,
    /// Path and query after the version, percent-encoded.
    pub path: String,
    /// MIME type of the body.
    pub content_type: Option<String>,
    /// The body; empty without one.
    pub body: Vec<u8>,
}

/// Sees every request to Graph before it is sent.
pub type Recorder = Arc<dyn Fn(&RecordedRequest) + Send + Sync>;

/// Fills with bytes that nobody can guess; tests give a seeded one.
pub type Random = Arc<dyn Fn(&mut [u8]) + Send + Sync>;

/// Everything around a [`crate::Graph`].
#[derive(Clone)]
pub struct GraphEnvironment {
    /// Wall time, for what is written into requests and reported.
    pub clock: Arc<dyn Clock>,
    /// Monotonic time, for what is waited for.
    pub timer: Arc<dyn Timer>,
    /// Randomness, for ids and jitter.
    pub random: Random,
    /// This node's figures.
    pub metrics: Arc<Metrics>,
    /// This node's checks.
    pub health: Health,
    /// Permission to send.
    pub budget: Arc<dyn Budget>,
    /// Seals secrets.
    pub vault: Arc<dyn Vault>,
    /// Directory of this room's files; made when something is to be kept.
    pub dir: PathBuf,
    /// Sees every request; none outside tests.
    pub recorder: Option<Recorder>,
}

impl GraphEnvironment {
    /// With the runtime's timer and the operating system's randomness. Must be called within a runtime.
    pub fn system(
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        health: Health,
        budget: Arc<dyn Budget>,
        vault: Arc<dyn Vault>,
        dir: PathBuf,
    ) -> Self {
        let random = |buf: &mut [u8]| getrandom::fill(buf).expect("the operating system gives random bytes");
        Self {
            clock,
            timer: Arc::new(TokioTimer::start()),
            random: Arc::new(random),
            metrics,
            health,
            budget,
            vault,
            dir,
            recorder: None,
        }
    }

    /// A fresh UUID of version 4.
    pub(crate) fn uuid(&self) -> String {
        let mut bytes = [0; 16];
        (self.random)(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
    }

    /// A number in `0..1`, for jitter.
    pub(crate) fn fraction(&self) -> f64 {
        let mut bytes = [0; 4];
        (self.random)(&mut bytes);
        f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
    }
}

impl fmt::Debug for GraphEnvironment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GraphEnvironment").field("dir", &self.dir).finish_non_exhaustive()
    }
}
