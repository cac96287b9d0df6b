//! What operators see of the committer: commits, how long they take, what waits, what is refused.
//!
//! Nothing is decided by these times, so they are measured here and are no input.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use telemetry::{Metrics, Refusal};

use crate::error::AppendError;
use crate::ticket::Completer;

/// Counts nothing until it is told where.
#[derive(Default)]
pub(crate) struct Figures(OnceLock<Arc<Metrics>>);

/// Runs from its making on.
#[derive(Clone, Copy)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    #[allow(clippy::disallowed_methods, reason = "only shown to operators; nothing is decided by it")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

impl Figures {
    /// The first call counts.
    pub(crate) fn count_in(&self, metrics: Arc<Metrics>) {
        // Two sets of metrics for one journal would both be half right.
        let _ = self.0.set(metrics);
    }

    /// One write of this length of time is durable, and with it what was asked for at these moments.
    pub(crate) fn committed(&self, took: Duration, asked: &[Stopwatch]) {
        let Some(metrics) = self.0.get() else { return };
        metrics.journal_commits_total.inc(());
        metrics.journal_committed_requests_total.add((), asked.len() as u64);
        metrics.journal_sync_seconds.observe((), took.as_secs_f64());
        asked.iter().for_each(|at| metrics.journal_append_seconds.observe((), at.elapsed().as_secs_f64()));
    }

    pub(crate) fn refused(&self, e: &AppendError) {
        if let Some(metrics) = self.0.get() {
            metrics.journal_refused_total.inc((reason(e),));
        }
    }

    /// Answers a request with why it was refused.
    pub(crate) fn refuse<T>(&self, completer: Completer<T>, e: AppendError) {
        self.refused(&e);
        completer.complete(Err(e));
    }

    /// So many bytes wait for the next commit.
    pub(crate) fn waiting(&self, bytes: usize) {
        if let Some(metrics) = self.0.get() {
            metrics.journal_queue_bytes.set_count((), bytes as u64);
        }
    }
}

fn reason(e: &AppendError) -> Refusal {
    match e {
        AppendError::Full { .. } => Refusal::Limit,
        AppendError::NoSpace(_) => Refusal::Space,
        AppendError::Busy => Refusal::Busy,
        AppendError::TooLarge { .. } | AppendError::Malformed(_) => Refusal::Invalid,
        AppendError::OutOfOrder => Refusal::OutOfOrder,
        AppendError::Disk(_) | AppendError::Unreadable(_) | AppendError::NumbersUsedUp | AppendError::Stopped(_) => {
            Refusal::Failed
        }
        AppendError::Closed => Refusal::Closed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{draft, open, tempdir};

    #[test]
    fn commits_and_refusals_are_counted() {
        let dir = tempdir();
        let journal = open(&dir).0;
        let metrics = Arc::new(Metrics::new());
        journal.count_in(Arc::clone(&metrics));
        let tickets: Vec<_> = (1..4).map(|n| journal.append_own(draft(n))).collect();
        assert!(tickets.into_iter().all(|ticket| ticket.wait().is_ok()));
        let mut skipping = draft(9);
        skipping.follows = Some(draft(8).source);
        assert!(journal.append_own(skipping).wait().is_err());
        // Counted after the last answer; closing waits for the committer.
        drop(journal);
        let commits = metrics.journal_commits_total.get(());
        assert!((1..=3).contains(&commits), "{commits} commits");
        assert_eq!(metrics.journal_sync_seconds.count(()), commits);
        assert_eq!(metrics.journal_committed_requests_total.get(()), 3);
        assert_eq!(metrics.journal_append_seconds.count(()), 3);
        assert_eq!(metrics.journal_refused_total.get((Refusal::OutOfOrder,)), 1);
        assert_eq!(metrics.journal_refused_total.get((Refusal::Space,)), 0);
    }
}
