//! What became of numbered entries, and sets of numbers cut to the size of a frame.

use std::collections::BTreeMap;

use model::{Epoch, Outcome, RangeSet};

/// What became of the numbers of one epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpochProgress {
    /// Held durably.
    pub stored: RangeSet,
    /// Ended, by how. No number is in two of these.
    pub outcomes: BTreeMap<Outcome, RangeSet>,
}

impl EpochProgress {
    pub(crate) fn is_empty(&self) -> bool {
        self.stored.is_empty() && self.outcomes.values().all(RangeSet::is_empty)
    }

    pub(crate) fn knows(&self, n: u64) -> bool {
        self.stored.contains(n) || self.outcomes.values().any(|set| set.contains(n))
    }

    /// Numbers that were applied, kept aside for good, or never sent. What ended otherwise may have been on its way.
    pub(crate) fn used_or_withheld(&self) -> RangeSet {
        let outcomes = [Outcome::Applied, Outcome::Quarantined, Outcome::Withheld];
        let mut all = RangeSet::new();
        outcomes.iter().filter_map(|outcome| self.outcomes.get(outcome)).for_each(|set| all.union_with(set));
        all
    }

    pub(crate) fn has_ended(&self, n: u64) -> bool {
        self.outcomes.values().any(|set| set.contains(n))
    }

    /// Numbers that ended.
    pub(crate) fn ended(&self) -> RangeSet {
        let mut all = RangeSet::new();
        self.outcomes.values().for_each(|set| all.union_with(set));
        all
    }

    /// Numbers that are stored or ended.
    pub(crate) fn known(&self) -> RangeSet {
        let mut all = self.ended();
        all.union_with(&self.stored);
        all
    }

    pub(crate) fn intersection(&self, numbers: &RangeSet) -> Self {
        let outcomes = self.outcomes.iter().map(|(outcome, set)| (*outcome, set.intersection(numbers)));
        Self {
            stored: self.stored.intersection(numbers),
            outcomes: outcomes.filter(|(_, set)| !set.is_empty()).collect(),
        }
    }

    pub(crate) fn remove(&mut self, numbers: &RangeSet) {
        if numbers.is_empty() {
            return;
        }
        self.stored = self.stored.difference(numbers);
        self.outcomes.values_mut().for_each(|set| *set = set.difference(numbers));
    }

    pub(crate) fn union_with(&mut self, other: &Self) {
        self.stored.union_with(&other.stored);
        for (outcome, set) in &other.outcomes {
            self.outcomes.entry(*outcome).or_default().union_with(set);
        }
    }
}

/// Told by the sender in a skip, never applied by the receiver. What was purged may have been received all the same.
pub(crate) fn is_skip(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Expired | Outcome::Superseded | Outcome::Withheld | Outcome::Purged => true,
        Outcome::Applied | Outcome::Quarantined => false,
    }
}

/// Takes the first ranges out of `set` whose CBOR form fits into `bytes`.
pub(crate) fn take_fitting(set: &mut RangeSet, bytes: usize, ranges_max: usize) -> RangeSet {
    // The head of an array of up to 65 535 parts.
    let mut left = bytes.saturating_sub(3);
    let (mut taken, mut at) = (RangeSet::new(), 0);
    for range in set.iter().take(ranges_max) {
        let cost = cbor_len(range.start() - at) + cbor_len(range.end() - range.start());
        if cost > left {
            break;
        }
        left -= cost;
        at = *range.end();
        taken.insert_range(range);
    }
    *set = set.difference(&taken);
    taken
}

/// Length of a set's CBOR form, at most.
pub(crate) fn set_len(set: &RangeSet) -> usize {
    let mut at = 0;
    let mut len = 3;
    for range in set.iter() {
        len += cbor_len(range.start() - at) + cbor_len(range.end() - range.start());
        at = *range.end();
    }
    len
}

fn cbor_len(n: u64) -> usize {
    match n {
        0..24 => 1,
        24..0x100 => 2,
        0x100..0x1_0000 => 3,
        0x1_0000..0x1_0000_0000 => 5,
        _ => 9,
    }
}

/// Adds numbers to those of an epoch, and no epoch without any.
pub(crate) fn union_into(sets: &mut BTreeMap<Epoch, RangeSet>, epoch: Epoch, numbers: &RangeSet) {
    if !numbers.is_empty() {
        sets.entry(epoch).or_default().union_with(numbers);
    }
}

/// Takes a part of the first non-empty epoch.
pub(crate) fn take_epoch(
    sets: &mut BTreeMap<Epoch, RangeSet>,
    bytes: usize,
    ranges_max: usize,
) -> Option<(Epoch, RangeSet)> {
    sets.retain(|_, set| !set.is_empty());
    let (epoch, set) = sets.iter_mut().next()?;
    Some((*epoch, take_fitting(set, bytes, ranges_max)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_fit_and_make_the_whole(
            parts in prop::collection::vec((1u64..1_000_000, 0u64..300), 1..60),
            bytes in 24usize..200,
        ) {
            let mut set = RangeSet::new();
            parts.iter().for_each(|(a, n)| set.insert_range(*a..=a + n));
            let (mut rest, mut whole) = (set.clone(), RangeSet::new());
            while !rest.is_empty() {
                let piece = take_fitting(&mut rest, bytes, 2_048);
                prop_assert!(!piece.is_empty());
                let (epoch, outcome, after) = (Epoch(1), Outcome::Expired, Vec::new());
                let skip = wire::frame::Skip { epoch, outcome, ranges: piece.clone(), after };
                prop_assert!(wire::Frame::Skip(skip).encode().len() <= bytes + 3);
                whole.union_with(&piece);
            }
            prop_assert_eq!(whole, set);
        }
    }
}
