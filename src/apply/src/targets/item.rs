//! What becomes of one item at a target, step by step. Pure: the moment and what came of a request are arguments.
//!
//! ```text
//!  planned --> sending --> (done: counted as applied)
//!     ^           |------> unknown --looked for by its natural key--> done | planned
//!     |-----------|------> dead (counted as quarantined; an operator may retry or skip it)
//! ```
//!
//! Invariants
//! - A request that must not be repeated is sent from `planned` alone, and `sending` is durable before it.
//! - What may have been committed is never planned again before its natural key was looked for and not found, twice.
//! - A refusal that may pass is tried [`TRIES_MAX`] times; nothing that is our own state of connection counts as a try.

use microsoft::{Advice, Failure};
use model::{Kind, UnixMillis};

/// Tries of a request that the service refuses, before somebody has to look: with the waits of [`wait_ms`] some two hours.
pub const TRIES_MAX: u32 = 12;
/// Waits between tries: from two seconds, doubled, up to half an hour.
const WAIT_MS_FIRST: i64 = 2_000;
const WAIT_MS_MAX: i64 = 30 * 60_000;
/// Before it is looked for what may have been committed: reading lags behind writing by seconds.
pub const SETTLE_MS: i64 = 5_000;
/// Looks that must find nothing before it is believed that nothing was committed.
pub const LOOKS: u32 = 2;
/// Between two looks.
pub const LOOK_AGAIN_MS: i64 = 15_000;
/// The target rests for so long when nothing may leave or nothing is reached; the reachability of Graph is not probed here.
const REST_MS: i64 = 5_000;
/// The target rests for so long when somebody has to sign in or correct the configuration.
const SIGN_IN_REST_MS: i64 = 5 * 60_000;
/// What to do after [`After::Forbidden`].
pub const FORBIDDEN: &str = "give the application or the account what docs/microsoft365-targets.md names for this kind of target, then wait or restart";
/// What to do after [`After::Park`].
pub const PARKED: &str = "unlock it, or check it in; the rest of the target goes on";
/// Full, locked: it passes when somebody makes room.
const PARK_MS: i64 = 5 * 60_000;

/// What to do after a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum After {
    /// Nothing was done: the item stays planned, and its lane waits until then.
    Again {
        /// When.
        at: UnixMillis,
        /// Whether it counts as a try.
        counts: bool,
        /// What was said.
        reason: String,
    },
    /// Nothing was done, and nothing will be for any item: the target rests until then.
    Rest {
        /// When it goes on.
        at: UnixMillis,
        /// What holds it up.
        reason: String,
        /// What somebody should do, if it does not pass by itself.
        next_step: Option<String>,
    },
    /// Nothing was done, for want of a permission: nearly always for any item, so the target rests until then.
    Forbidden {
        /// When it goes on.
        at: UnixMillis,
        /// What was said.
        reason: String,
    },
    /// Nothing was done for this one thing; others go on.
    Park {
        /// When it is tried again.
        at: UnixMillis,
        /// What was said.
        reason: String,
    },
    /// It may have been done: it is looked for at that moment.
    Look {
        /// When.
        at: UnixMillis,
        /// What was said.
        reason: String,
    },
    /// It will not be done.
    Dead {
        /// What was said.
        reason: String,
    },
}

/// What follows a failure. `repeatable` says that doing it twice is doing it once; `tries` counts those so far, this one
/// included.
pub fn after(failure: &Failure, repeatable: bool, tries: u32, now: UnixMillis) -> After {
    let at = |ms: i64| UnixMillis(now.0 + ms);
    let again = |reason: String| match tries >= TRIES_MAX {
        true => After::Dead { reason },
        false => After::Again { at: at(wait_ms(tries)), counts: true, reason },
    };
    let maybe_done = |reason: String| match repeatable {
        true => again(reason),
        false => After::Look { at: at(SETTLE_MS), reason },
    };
    match failure {
        Failure::Held(why) => After::Rest { at: at(REST_MS), reason: why.to_string(), next_step: None },
        Failure::Throttled { until } => {
            After::Again { at: (*until).max(at(1)), counts: false, reason: "throttled".to_owned() }
        }
        Failure::SignIn(e) => {
            let (wait, next_step) = match e.advice {
                Advice::Retry => (REST_MS, None),
                Advice::AskAPerson => (SIGN_IN_REST_MS, Some("somebody has to sign in again")),
                Advice::FixConfiguration => {
                    (SIGN_IN_REST_MS, Some("correct the section [microsoft] or the app registration"))
                }
            };
            After::Rest { at: at(wait), reason: e.to_string(), next_step: next_step.map(str::to_owned) }
        }
        Failure::Unknown(why) => maybe_done(why.clone()),
        Failure::Broken(why) => maybe_done(format!("an answer that makes no sense: {why}")),
        Failure::Refused(refusal) => {
            let reason = format!("{} {}", refusal.status.as_u16(), refusal.code);
            match refusal.status.as_u16() {
                // A member or channel that was added seconds ago is not found yet; a state that moved is read again.
                404 | 409 | 412 => again(reason),
                423 => After::Park { at: at(PARK_MS), reason },
                507 => After::Rest { at: at(PARK_MS), reason, next_step: Some("make room in the drive".to_owned()) },
                401..=403 => After::Forbidden { at: at(SIGN_IN_REST_MS), reason },
                429 | 500..=599 => maybe_done(reason),
                _ => After::Dead { reason },
            }
        }
    }
}

/// Whether one item is refused for want of a permission, or every one: whom to rest for. Pure.
///
/// After some refusals of one item it alone is given up and the next of its kind is tried. Is that refused as well, the first
/// is taken up again: a permission that was withdrawn gives up nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// Given up on trial: the row, and its kind.
    on_trial: Option<(i64, Kind)>,
    /// Others went through where one was refused: such a one needs no second try.
    is_single: bool,
}

/// What follows a refusal for want of a permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The target rests. With a row that was given up on trial and is taken up again.
    Rest(Option<i64>),
    /// The item is given up, and the next is tried at once.
    GiveUp,
}

/// Refusals of one item before it is given up on trial.
const REFUSALS_MAX: u32 = 3;

impl Refusals {
    /// An item was refused, for the time `tries`. `others`: more items of its kind wait.
    pub fn refused(&mut self, row: i64, kind: Kind, tries: u32, others: bool) -> Verdict {
        if let Some((before, of)) = self.on_trial
            && of == kind
        {
            *self = Self::default();
            return Verdict::Rest(Some(before));
        }
        if others && (self.is_single || tries >= REFUSALS_MAX) {
            self.on_trial = Some((row, kind));
            return Verdict::GiveUp;
        }
        Verdict::Rest(None)
    }

    /// An item of this kind went through.
    pub fn went_through(&mut self, kind: Kind) {
        if self.on_trial.is_some_and(|(_, of)| of == kind) {
            *self = Self { on_trial: None, is_single: true };
        }
    }
}

/// No wait is longer: a limit counts the messages of a day.
pub const WAIT_MS_LONGEST: i64 = 25 * 3_600_000;

/// Has the moment come? One that lies further ahead than any wait was noted by a clock that was wrong.
pub fn is_due(due: UnixMillis, now: UnixMillis) -> bool {
    due <= now || due.0.saturating_sub(now.0) > WAIT_MS_LONGEST
}

/// Wait after so many tries.
pub fn wait_ms(tries: u32) -> i64 {
    (WAIT_MS_FIRST << tries.saturating_sub(1).min(16)).min(WAIT_MS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permission_that_was_withdrawn_gives_up_nothing_and_one_refused_item_only_itself() {
        let mut refusals = Refusals::default();
        let post = |refusals: &mut Refusals, row, tries| refusals.refused(row, Kind::Post, tries, true);
        assert_eq!(refusals.refused(1, Kind::Post, 9, false), Verdict::Rest(None), "alone it waits");
        assert_eq!(post(&mut refusals, 1, 1), Verdict::Rest(None));
        assert_eq!(post(&mut refusals, 1, 3), Verdict::GiveUp);
        refusals.went_through(Kind::File);
        assert_eq!(post(&mut refusals, 2, 1), Verdict::Rest(Some(1)), "files say nothing of posts");
        assert_eq!(post(&mut refusals, 1, 1), Verdict::Rest(None));
        assert_eq!(post(&mut refusals, 1, 3), Verdict::GiveUp);
        refusals.went_through(Kind::Post);
        assert_eq!(post(&mut refusals, 5, 1), Verdict::GiveUp, "another such one costs no rest");
        assert_eq!(post(&mut refusals, 6, 1), Verdict::Rest(Some(5)));
    }
}
