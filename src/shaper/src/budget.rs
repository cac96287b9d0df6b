//! How much a link may still carry. Pure: what was spent and which day it is are inputs.
//!
//! What is left of a day or a month is not carried over into the next.
//!
//! A clock that is set gives no new budget, and takes none away for longer than one more period. While the process runs, days pass as
//! long as they are, whatever the clock is set to ([`Steady`]). A clock that is behind what is on record when the process starts may
//! be right, or not set yet: spending counts in the latest period on record until the clock is there, or until it has gone on for more than a
//! whole period where it is.

use std::time::Duration;

use model::UnixMillis;

/// How many bytes may leave over a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Each day, UTC.
    pub per_day: Option<u64>,
    /// Each month, UTC.
    pub per_month: Option<u64>,
}

/// A day and its month, each counted from any fixed one on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Period {
    /// Number of the day.
    pub day: i64,
    /// Number of the month.
    pub month: i64,
}

/// What was spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// The latest period seen.
    pub period: Period,
    /// In its day.
    pub in_day: u64,
    /// In its month.
    pub in_month: u64,
    /// The day on which the clock was first seen to be behind the day of `period`, while it is.
    pub day_behind: Option<i64>,
    /// And behind its month.
    pub month_behind: Option<i64>,
}

/// Days behind after which a whole one has passed, whenever the first began and whenever the last will end.
const DAYS_BEHIND_MAX: i64 = 2;

/// And a whole month.
const MONTH_BEHIND_MAX: i64 = 32;

impl Budget {
    /// Is there any limit?
    pub fn is_limited(&self) -> bool {
        self.per_day.is_some() || self.per_month.is_some()
    }

    /// Bytes that may still leave now; `None` without a limit.
    pub fn left(&self, spent: &Spent, now: Period) -> Option<u64> {
        let spent = spent.at(now);
        let day = self.per_day.map(|limit| limit.saturating_sub(spent.in_day));
        let month = self.per_month.map(|limit| limit.saturating_sub(spent.in_month));
        [day, month].into_iter().flatten().min()
    }
}

impl Spent {
    /// The same, seen at `now`.
    pub fn at(mut self, now: Period) -> Self {
        let day_has_passed = has_passed(&mut self.day_behind, now.day < self.period.day, now.day, DAYS_BEHIND_MAX);
        if now.day > self.period.day || day_has_passed {
            self.period.day = now.day;
            self.in_day = 0;
        }
        let behind = now.month < self.period.month;
        if has_passed(&mut self.month_behind, behind, now.day, MONTH_BEHIND_MAX) || now.month > self.period.month {
            self.period.month = now.month;
            self.in_month = 0;
        }
        self
    }

    /// Takes at most `want` bytes out of what the budget leaves, and says how many.
    pub fn take(&mut self, budget: &Budget, now: Period, want: u64) -> u64 {
        let taken = budget.left(self, now).map_or(want, |left| left.min(want));
        *self = self.at(now);
        self.in_day = self.in_day.saturating_add(taken);
        self.in_month = self.in_month.saturating_add(taken);
        taken
    }

    /// Puts back what was taken in this period and not used. What was taken in an earlier one is gone with it.
    pub fn put_back(&mut self, taken_in: Period, unused: u64) {
        if taken_in.day == self.period.day {
            self.in_day = self.in_day.saturating_sub(unused);
        }
        if taken_in.month == self.period.month {
            self.in_month = self.in_month.saturating_sub(unused);
        }
    }
}

/// Has the clock been behind for so many days? Then what it says counts.
fn has_passed(since: &mut Option<i64>, is_behind: bool, today: i64, days: i64) -> bool {
    // One that was set back once more begins anew.
    let first = since.filter(|first| is_behind && *first <= today).unwrap_or(today);
    let has_passed = is_behind && today - first >= days;
    *since = (is_behind && !has_passed).then_some(first);
    has_passed
}

/// The time by which budgets are counted: what the clock said at the start, and as much as has passed since.
#[derive(Clone, Copy, Debug)]
pub struct Steady {
    wall: UnixMillis,
    mono: Duration,
    /// The clock was behind what is on record: a box that does not know the time after a power cut learns it soon.
    in_doubt: bool,
}

impl Steady {
    /// At the start of a process, with the latest day on record.
    pub fn new(wall: UnixMillis, mono: Duration, latest_day: i64) -> Self {
        Self { wall, mono, in_doubt: day(wall) < latest_day }
    }

    /// The time, of what the clock says and of what has passed since an arbitrary start.
    pub fn at(&mut self, wall: UnixMillis, mono: Duration) -> UnixMillis {
        let passed = mono.saturating_sub(self.mono).as_millis();
        let steady = UnixMillis(self.wall.0.saturating_add(i64::try_from(passed).unwrap_or(i64::MAX)));
        if self.in_doubt && wall.0.saturating_sub(steady.0) > STEP_MILLIS {
            (self.wall, self.mono, self.in_doubt) = (wall, mono, false);
            return wall;
        }
        steady
    }
}

/// What a clock may gain on another one in a year; more than that it was set.
const STEP_MILLIS: i64 = 15 * 60_000;

/// Number of the day, UTC.
pub fn day(at: UnixMillis) -> i64 {
    at.0.div_euclid(86_400_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn no_day_and_no_month_ever_exceeds_its_budget(
            per_day in prop::option::of(0u64..5_000),
            per_month in prop::option::of(0u64..20_000),
            steps in prop::collection::vec((0i64..5, 0u64..3_000, any::<bool>()), 1..80),
        ) {
            let budget = Budget { per_day, per_month };
            let (mut spent, mut today) = (Spent::default(), 100i64);
            let (mut days, mut months) = (BTreeMap::<i64, u64>::new(), BTreeMap::<i64, u64>::new());
            for (days_later, want, puts_back) in steps {
                today += days_later;
                let now = Period { day: today, month: today / 30 };
                let taken = spent.take(&budget, now, want);
                prop_assert!(taken <= want);
                let used = if puts_back { taken / 2 } else { taken };
                spent.put_back(spent.period, taken - used);
                *days.entry(spent.period.day).or_default() += used;
                *months.entry(spent.period.month).or_default() += used;
                if budget.left(&spent, now).is_none_or(|left| left > 0) && !puts_back {
                    prop_assert_eq!(taken, want, "nothing is kept back while something is left");
                }
            }
            prop_assert!(days.values().all(|used| per_day.is_none_or(|limit| *used <= limit)));
            prop_assert!(months.values().all(|used| per_month.is_none_or(|limit| *used <= limit)));
        }
    }

    const DAY: u64 = 86_400;

    /// A clock, set as it may be, and the process that goes by it, started again now and then.
    struct Box {
        offset_days: i64,
        passed: Duration,
        steady: Steady,
        spent: Spent,
    }

    impl Box {
        fn new() -> Self {
            let (offset_days, passed) = (20_000, Duration::ZERO);
            let steady = Steady::new(UnixMillis(20_000 * 86_400_000), passed, 0);
            Self { offset_days, passed, steady, spent: Spent::default() }
        }

        fn wall(&self) -> UnixMillis {
            UnixMillis(self.offset_days * 86_400_000 + self.passed.as_millis() as i64)
        }

        fn restart(&mut self) {
            self.steady = Steady::new(self.wall(), self.passed, self.spent.period.day);
        }

        fn now(&mut self) -> Period {
            let day = day(self.steady.at(self.wall(), self.passed));
            Period { day, month: day / 30 }
        }

        fn take(&mut self, budget: &Budget, want: u64) -> u64 {
            let now = self.now();
            self.spent.take(budget, now, want)
        }
    }

    proptest! {
        #[test]
        fn a_clock_that_is_set_while_the_process_runs_changes_nothing(
            steps in prop::collection::vec((0u64..100_000, -500i64..500, any::<bool>()), 1..80),
        ) {
            let budget = Budget { per_day: Some(1_000), per_month: Some(9_000) };
            let (mut set, mut right) = (Box::new(), Box::new());
            for (seconds, days, steps) in steps {
                for node in [&mut set, &mut right] {
                    node.passed += Duration::from_secs(seconds);
                }
                set.offset_days += if steps { days } else { 0 };
                prop_assert_eq!(set.take(&budget, 700), right.take(&budget, 700));
            }
        }

        /// Each restart may find the clock set, and a budget begins when it is ahead; never more than that, and soon after the last step
        /// everything is as it should be.
        #[test]
        fn a_clock_that_was_set_at_a_restart_shuts_a_link_for_two_days_at_most(
            steps in prop::collection::vec((0u64..40_000, -500i64..500, 0u8..10), 1..80),
        ) {
            let budget = Budget { per_day: Some(1_000), per_month: None };
            let mut node = Box::new();
            let (mut taken, mut ahead) = (0, 0);
            for (seconds, days, what) in steps {
                node.passed += Duration::from_secs(seconds);
                if what == 0 {
                    node.offset_days += days;
                    node.restart();
                    ahead += u64::from(days > 0);
                }
                taken += node.take(&budget, 700);
            }
            let real_days = node.passed.as_secs() / DAY + 1;
            prop_assert!(taken <= 1_000 * (real_days + 1 + ahead), "{taken} in {real_days} days, {ahead} times ahead");
            let mut waited = 0;
            while node.take(&budget, 700) == 0 {
                node.passed += Duration::from_secs(3_600);
                waited += 1;
            }
            prop_assert!(waited <= 48, "{waited} hours");
        }
    }

    /// The clock stood a year ahead once, the budget of that day was used up, and it was set right: the link stayed shut for a year.
    #[test]
    fn a_clock_that_was_a_year_ahead_once_shuts_no_link_for_a_year() {
        let budget = Budget { per_day: Some(100), per_month: Some(1_000) };
        let mut spent = Spent::default();
        assert_eq!(spent.take(&budget, Period { day: 365, month: 12 }, 500), 100);
        spent.in_month = 1_000;
        let right = |day| Period { day, month: day / 30 };
        assert_eq!(spent.take(&budget, right(3), 500), 0, "no new budget for a step");
        assert_eq!(spent.take(&budget, right(4), 500), 0, "that day may have had a minute");
        let mut day_alone = spent;
        assert_eq!(day_alone.take(&Budget { per_month: None, ..budget }, right(5), 500), 100, "a whole one has passed");
        assert_eq!(spent.take(&budget, right(34), 500), 0);
        assert_eq!(spent.take(&budget, right(35), 500), 100, "and a whole month");
        assert_eq!((spent.day_behind, spent.month_behind), (None, None));
    }

    /// It starts in 1970 after each power cut, and learns the time a minute later.
    #[test]
    fn a_box_without_a_clock_of_its_own_spends_once_a_day_however_often_it_starts() {
        let budget = Budget { per_day: Some(1_000), per_month: None };
        let (mut node, mut taken) = (Box::new(), 0);
        for _ in 0..20 {
            let right = std::mem::replace(&mut node.offset_days, 0);
            node.restart();
            taken += node.take(&budget, 300);
            node.passed += Duration::from_secs(60);
            node.offset_days = right;
            taken += node.take(&budget, 300);
            node.passed += Duration::from_secs(3 * 3_600);
        }
        // Sixty hours.
        assert_eq!(taken, 3_000);
    }

    #[test]
    fn a_new_day_has_its_own_budget_and_the_month_goes_on() {
        let budget = Budget { per_day: Some(100), per_month: Some(150) };
        let mut spent = Spent::default();
        assert_eq!(spent.take(&budget, Period { day: 1, month: 1 }, 500), 100);
        assert_eq!(budget.left(&spent, Period { day: 1, month: 1 }), Some(0));
        assert_eq!(spent.take(&budget, Period { day: 2, month: 1 }, 500), 50);
        assert_eq!(budget.left(&spent, Period { day: 3, month: 1 }), Some(0));
        assert_eq!(budget.left(&spent, Period { day: 31, month: 2 }), Some(100));
    }
}
