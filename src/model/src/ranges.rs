//! Sets of numbers as ranges: receipts, received sets, skip lists.

use std::fmt;
use std::ops::RangeInclusive;

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

/// A set of sequence numbers, kept as sorted ranges that neither overlap nor touch.
///
/// CBOR form: a flat array of unsigned numbers, alternating gap from the end of the previous range and
/// length minus one, so that a set that is one range costs a few bytes.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RangeSet(Vec<(u64, u64)>);

impl RangeSet {
    /// Most ranges accepted from a peer in one set; more is a hostile or broken peer.
    pub const RANGES_MAX: usize = 65_536;

    /// The empty set.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// True when no number is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many numbers are in the set.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|(a, b)| b - a + 1).sum()
    }

    /// How many ranges the set is made of.
    pub fn ranges_len(&self) -> usize {
        self.0.len()
    }

    /// The highest number.
    pub fn last(&self) -> Option<u64> {
        self.0.last().map(|r| r.1)
    }

    /// The lowest number.
    pub fn first(&self) -> Option<u64> {
        self.0.first().map(|r| r.0)
    }

    /// Index of the first range that ends at or after `n`.
    fn seek(&self, n: u64) -> usize {
        self.0.partition_point(|(_, end)| *end < n)
    }

    /// Is `n` in the set?
    pub fn contains(&self, n: u64) -> bool {
        self.0.get(self.seek(n)).is_some_and(|(start, _)| *start <= n)
    }

    /// Is every number of `start..=end` in the set?
    pub fn contains_range(&self, range: RangeInclusive<u64>) -> bool {
        let (start, end) = range.into_inner();
        start > end || self.0.get(self.seek(start)).is_some_and(|(a, b)| *a <= start && end <= *b)
    }

    /// The highest n such that every number of `1..=n` is in the set; 0 when 1 is missing.
    pub fn contiguous_from_one(&self) -> u64 {
        match self.0.first() {
            Some((start, end)) if *start <= 1 => *end,
            _ => 0,
        }
    }

    /// Adds one number. Returns whether it was new.
    pub fn insert(&mut self, n: u64) -> bool {
        let new = !self.contains(n);
        if new {
            self.insert_range(n..=n);
        }
        new
    }

    /// Adds every number of the range.
    pub fn insert_range(&mut self, range: RangeInclusive<u64>) {
        let (mut start, mut end) = range.into_inner();
        if start > end {
            return;
        }
        let from = self.seek(start.saturating_sub(1));
        let mut to = from;
        while let Some((a, b)) = self.0.get(to).filter(|(a, _)| *a <= end.saturating_add(1)) {
            start = start.min(*a);
            end = end.max(*b);
            to += 1;
        }
        self.0.splice(from..to, [(start, end)]);
    }

    /// Adds every number of `other`.
    pub fn union_with(&mut self, other: &Self) {
        // A few ranges are put in place; many are merged in one pass, since each insertion moves what stands behind it.
        if other.0.len() < 8 {
            for (start, end) in &other.0 {
                self.insert_range(*start..=*end);
            }
            return;
        }
        let mut all: Vec<(u64, u64)> = self.0.iter().chain(&other.0).copied().collect();
        // Two sorted runs: a merge.
        all.sort();
        self.0.clear();
        for (start, end) in all {
            match self.0.last_mut() {
                Some(last) if start <= last.1.saturating_add(1) => last.1 = last.1.max(end),
                _ => self.0.push((start, end)),
            }
        }
    }

    /// Takes one number out.
    pub fn remove(&mut self, n: u64) {
        let mut single = Self::new();
        single.insert_range(n..=n);
        *self = self.difference(&single);
    }

    /// The numbers of this set that are not in `other`.
    pub fn difference(&self, other: &Self) -> Self {
        let mut left = Vec::new();
        for (start, end) in &self.0 {
            let mut from = *start;
            let mut done = false;
            for (a, b) in &other.0[other.seek(*start)..] {
                if *a > *end {
                    break;
                }
                if *a > from {
                    left.push((from, a - 1));
                }
                match b.checked_add(1) {
                    Some(after) => from = from.max(after),
                    None => done = true,
                }
                if done || from > *end {
                    done = true;
                    break;
                }
            }
            if !done {
                left.push((from, *end));
            }
        }
        Self(left)
    }

    /// The numbers in both sets.
    pub fn intersection(&self, other: &Self) -> Self {
        self.difference(&self.difference(other))
    }

    /// The ranges, ascending.
    pub fn iter(&self) -> impl Iterator<Item = RangeInclusive<u64>> + '_ {
        self.0.iter().map(|(a, b)| *a..=*b)
    }

    /// Every number, ascending. The set may be astronomically large: bound what you take.
    pub fn numbers(&self) -> impl Iterator<Item = u64> + '_ {
        self.iter().flatten()
    }
}

impl FromIterator<u64> for RangeSet {
    fn from_iter<I: IntoIterator<Item = u64>>(numbers: I) -> Self {
        let mut set = Self::new();
        for n in numbers {
            set.insert(n);
        }
        set
    }
}

impl From<RangeInclusive<u64>> for RangeSet {
    fn from(range: RangeInclusive<u64>) -> Self {
        let mut set = Self::new();
        set.insert_range(range);
        set
    }
}

impl fmt::Debug for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, (a, b)) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            if a == b { write!(f, "{comma}{a}")? } else { write!(f, "{comma}{a}-{b}")? }
        }
        f.write_str("}")
    }
}

impl<C> Encode<C> for RangeSet {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.array(self.0.len() as u64 * 2)?;
        let mut at = 0;
        for (start, end) in &self.0 {
            e.u64(start - at)?.u64(end - start)?;
            at = *end;
        }
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for RangeSet {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let at = d.position();
        let bad = |why| decode::Error::message(why).at(at);
        let len = d.array()?.ok_or_else(|| bad("a range set has a definite length"))?;
        if len % 2 != 0 || len > 2 * Self::RANGES_MAX as u64 {
            return Err(bad("a range set has an odd or too large number of parts"));
        }
        let mut set = Self::new();
        let mut at: u64 = 0;
        for i in 0..len / 2 {
            let gap = d.u64()?;
            if i > 0 && gap < 2 {
                return Err(bad("ranges of a set must not touch"));
            }
            let start = at.checked_add(gap).ok_or_else(|| bad("a range starts beyond 2^64"))?;
            at = start.checked_add(d.u64()?).ok_or_else(|| bad("a range ends beyond 2^64"))?;
            set.0.push((start, at));
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn model_of(set: &RangeSet) -> BTreeSet<u64> {
        set.numbers().collect()
    }

    proptest! {
        #[test]
        fn it_behaves_like_a_set_of_numbers(
            a in prop::collection::vec((0u64..60, 0u64..8), 0..12),
            b in prop::collection::vec((0u64..60, 0u64..8), 0..12),
            probe in 0u64..80,
        ) {
            let build = |parts: &[(u64, u64)]| {
                let mut set = RangeSet::new();
                let mut model = BTreeSet::new();
                for (start, len) in parts {
                    set.insert_range(*start..=start + len);
                    model.extend(*start..=start + len);
                }
                (set, model)
            };
            let (sa, ma) = build(&a);
            let (sb, mb) = build(&b);
            prop_assert_eq!(model_of(&sa), ma.clone());
            prop_assert_eq!(sa.contains(probe), ma.contains(&probe));
            prop_assert_eq!(sa.count(), ma.len() as u64);
            prop_assert_eq!(model_of(&sa.difference(&sb)), ma.difference(&mb).copied().collect::<BTreeSet<_>>());
            prop_assert_eq!(model_of(&sa.intersection(&sb)), ma.intersection(&mb).copied().collect::<BTreeSet<_>>());
            let mut union = sa.clone();
            union.union_with(&sb);
            prop_assert_eq!(model_of(&union), ma.union(&mb).copied().collect::<BTreeSet<_>>());
            for w in union.0.windows(2) {
                prop_assert!(w[0].1 + 1 < w[1].0, "ranges touch: {}", union);
            }
            let bytes = minicbor::to_vec(&union).unwrap();
            prop_assert_eq!(minicbor::decode::<RangeSet>(&bytes).unwrap(), union);
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(set) = minicbor::decode::<RangeSet>(&bytes) {
                let _ = set.difference(&RangeSet::from(5..=u64::MAX));
                let _ = set.contains_range(0..=u64::MAX);
            }
        }
    }

    #[test]
    fn the_contiguous_part_ends_at_the_first_gap() {
        let set: RangeSet = [1, 2, 3, 5].into_iter().collect();
        assert_eq!(set.contiguous_from_one(), 3);
        assert_eq!(RangeSet::from(2..=9).contiguous_from_one(), 0);
    }
}
