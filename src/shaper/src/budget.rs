//! How much a link may still carry. Pure: what was spent and which day it is are inputs.
//!
//! What is left of a day or a month is not carried over into the next. A clock that steps back gives no new budget: spending
//! counts in the latest period that was seen.

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
}

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
        if now.day > self.period.day {
            self.period.day = now.day;
            self.in_day = 0;
        }
        if now.month > self.period.month {
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
            steps in prop::collection::vec((-2i64..5, 0u64..3_000, any::<bool>()), 1..80),
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
