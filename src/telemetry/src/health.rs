//! Named facts about what works and what does not, each with what the operator should do.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{Clock, UnixMillis};

/// The checks of one node. Rooms report; the health page and `holdfast status` read.
#[derive(Clone)]
pub struct Health {
    clock: Arc<dyn Clock>,
    board: Arc<Mutex<Board>>,
}

#[derive(Default)]
struct Board {
    ready: bool,
    checks: BTreeMap<String, Check>,
}

/// How well something works, worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// As it should be.
    Ok,
    /// Works with a limit that the operator should know, such as a link that is down.
    Degraded,
    /// Mission users are affected or data cannot be made durable.
    Failing,
}

impl Grade {
    /// Name used in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Failing => "failing",
        }
    }
}

/// What a room says about one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    grade: Grade,
    text: String,
    next_step: Option<String>,
}

impl Verdict {
    /// It works.
    pub fn ok(text: impl Into<String>) -> Self {
        Self { grade: Grade::Ok, text: text.into(), next_step: None }
    }

    /// It works with a limit.
    pub fn degraded(text: impl Into<String>, next_step: impl Into<String>) -> Self {
        Self { grade: Grade::Degraded, text: text.into(), next_step: Some(next_step.into()) }
    }

    /// It does not work.
    pub fn failing(text: impl Into<String>, next_step: impl Into<String>) -> Self {
        Self { grade: Grade::Failing, text: text.into(), next_step: Some(next_step.into()) }
    }
}

/// One check as the pages show it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Check {
    /// Such as `journal` or `link bravo`.
    pub name: String,
    /// How well it works.
    pub grade: Grade,
    /// What is the case and what stayed intact.
    pub text: String,
    /// What to do; always there unless the grade is ok.
    pub next_step: Option<String>,
    /// Since when it has had this grade.
    pub since: UnixMillis,
}

impl Health {
    /// A board without checks, not ready.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, board: Arc::default() }
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        // A holder that panicked left a whole board behind: every change is one insert.
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the verdict of one check on the board, in place of its last one.
    pub fn report(&self, name: &str, verdict: Verdict) {
        let now = self.clock.now();
        let mut board = self.board();
        let since = board.checks.get(name).filter(|c| c.grade == verdict.grade).map_or(now, |c| c.since);
        let Verdict { grade, text, next_step } = verdict;
        board.checks.insert(name.to_owned(), Check { name: name.to_owned(), grade, text, next_step, since });
    }

    /// Takes a check off the board: what it was about is gone, such as a removed peer.
    pub fn retract(&self, name: &str) {
        self.board().checks.remove(name);
    }

    /// Says whether mission users can be served; false before start has ended and once a stop began.
    pub fn set_ready(&self, ready: bool) {
        self.board().ready = ready;
    }

    /// Can mission users be served? A link that is down does not matter here: work goes on without it.
    pub fn is_ready(&self) -> bool {
        self.board().ready && self.grade() != Grade::Failing
    }

    /// The worst grade on the board.
    pub fn grade(&self) -> Grade {
        let board = self.board();
        board.checks.values().map(|c| c.grade).max().unwrap_or(Grade::Ok)
    }

    /// Every check, the worst first, then by name.
    pub fn checks(&self) -> Vec<Check> {
        let mut checks: Vec<Check> = self.board().checks.values().cloned().collect();
        checks.sort_by_key(|c| std::cmp::Reverse(c.grade));
        checks
    }
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Health").field("grade", &self.grade()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    struct Hands(AtomicI64);

    impl Clock for Hands {
        fn now(&self) -> UnixMillis {
            UnixMillis(self.0.load(Ordering::SeqCst))
        }
    }

    #[test]
    fn a_check_keeps_the_moment_its_grade_changed() {
        let hands = Arc::new(Hands(AtomicI64::new(1_000)));
        let health = Health::new(hands.clone());
        health.report("link bravo", Verdict::degraded("no answer", "check the radio"));
        hands.0.store(5_000, Ordering::SeqCst);
        health.report("link bravo", Verdict::degraded("no route", "check the cable"));
        assert_eq!(health.checks()[0].since, UnixMillis(1_000));
        health.report("link bravo", Verdict::ok("up"));
        assert_eq!(health.checks()[0].since, UnixMillis(5_000));
    }

    #[test]
    fn a_dead_link_leaves_the_node_ready_and_a_failing_disk_does_not() {
        let health = Health::new(Arc::new(Hands(AtomicI64::new(0))));
        assert!(!health.is_ready());
        health.set_ready(true);
        health.report("link bravo", Verdict::degraded("down", "wait"));
        assert!(health.is_ready());
        health.report("journal", Verdict::failing("disk full", "free space"));
        assert!(!health.is_ready());
        assert_eq!(health.checks()[0].name, "journal");
        health.retract("journal");
        assert_eq!(health.grade(), Grade::Degraded);
    }
}
