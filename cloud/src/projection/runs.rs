//! Sets of numbers kept as the ranges they form: what has arrived of a row of numbers, and so what has not.

use std::fmt;

/// A number that can be counted from.
pub trait Number: Copy + Ord + Into<u64> + fmt::Debug {
    /// The least number that is counted: sequences begin at 1.
    const FIRST: Self;
    /// The one after, unless this is the greatest.
    fn next(self) -> Option<Self>;
    /// The one before, unless this is 0.
    fn previous(self) -> Option<Self>;
}

macro_rules! number {
    ($($int:ty),*) => {$(
        impl Number for $int {
            const FIRST: Self = 1;
            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }
            fn previous(self) -> Option<Self> {
                self.checked_sub(1)
            }
        }
    )*};
}
number!(u32, u64);

/// A set of numbers as ascending ranges, both ends included, that neither overlap nor touch.
///
/// Numbers mostly arrive in order, so the last range is looked at first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runs<N>(Vec<(N, N)>);

impl<N> Default for Runs<N> {
    fn default() -> Self {
        Runs(Vec::new())
    }
}

impl<N: Number> Runs<N> {
    /// The empty set.
    pub fn new() -> Self {
        Runs::default()
    }

    /// The ranges, ascending.
    pub fn ranges(&self) -> &[(N, N)] {
        &self.0
    }

    /// How many numbers it has.
    pub fn count(&self) -> u64 {
        self.0
            .iter()
            .map(|&(from, to)| (to.into() - from.into()).saturating_add(1))
            .fold(0, u64::saturating_add)
    }

    /// Its greatest number.
    pub fn last(&self) -> Option<N> {
        self.0.last().map(|&(_, to)| to)
    }

    /// Whether it has `number`.
    pub fn contains(&self, number: N) -> bool {
        let behind = self.0.partition_point(|&(from, _)| from <= number);
        behind > 0 && number <= self.0[behind - 1].1
    }

    /// Whether it has any of `from ..= to`.
    pub fn touches(&self, from: N, to: N) -> bool {
        let behind = self.0.partition_point(|&(start, _)| start <= to);
        behind > 0 && from <= self.0[behind - 1].1
    }

    /// Puts in `from ..= to`; nothing if `from > to`.
    pub fn insert(&mut self, from: N, to: N) {
        if from > to {
            return;
        }
        // Every range that overlaps or touches the new one is swallowed by it.
        let touching_from = from.previous().unwrap_or(from);
        let touching_to = to.next().unwrap_or(to);
        let first = match self.0.last() {
            Some(&(start, end)) if start <= from => self.0.len() - usize::from(end >= touching_from),
            _ => self.0.partition_point(|&(_, end)| end < touching_from),
        };
        let behind = first + self.0[first..].partition_point(|&(start, _)| start <= touching_to);
        if first == behind {
            self.0.insert(first, (from, to));
            return;
        }
        let whole = (from.min(self.0[first].0), to.max(self.0[behind - 1].1));
        self.0[first] = whole;
        self.0.drain(first + 1..behind);
    }

    /// What is in this set or in `other`.
    pub fn union(&self, other: &Self) -> Self {
        let (mut whole, part) =
            if self.0.len() >= other.0.len() { (self.clone(), other) } else { (other.clone(), self) };
        for &(from, to) in &part.0 {
            whole.insert(from, to);
        }
        whole
    }

    /// What is in this set and not in `other`.
    pub fn minus(&self, other: &Self) -> Self {
        let mut left = Vec::new();
        let mut others = other.0.iter().copied().peekable();
        for &(from, to) in &self.0 {
            let mut from = Some(from);
            while let (Some(start), Some(&(cut_from, cut_to))) = (from, others.peek()) {
                if cut_to < start {
                    others.next();
                    continue;
                }
                if cut_from > to {
                    break;
                }
                if let Some(end) = cut_from.previous().filter(|end| *end >= start) {
                    left.push((start, end));
                }
                from = cut_to.next().filter(|next| *next <= to);
            }
            left.extend(from.map(|from| (from, to)));
        }
        Runs(left)
    }

    /// What is missing between [`Number::FIRST`] and `last`.
    pub fn gaps_up_to(&self, last: N) -> Self {
        let mut all = Runs::new();
        all.insert(N::FIRST, last);
        all.minus(self)
    }
}

impl<N: Number> FromIterator<(N, N)> for Runs<N> {
    fn from_iter<I: IntoIterator<Item = (N, N)>>(ranges: I) -> Self {
        let mut runs = Runs::new();
        for (from, to) in ranges {
            runs.insert(from, to);
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::Runs;

    fn ranges() -> impl Strategy<Value = Vec<(u32, u32)>> {
        prop::collection::vec((0u32..60, 0u32..6).prop_map(|(from, more)| (from, from + more)), 0..30)
    }

    fn model(ranges: &[(u32, u32)]) -> BTreeSet<u32> {
        ranges.iter().flat_map(|&(from, to)| from..=to).collect()
    }

    fn numbers(runs: &Runs<u32>) -> BTreeSet<u32> {
        model(runs.ranges())
    }

    proptest! {
        #[test]
        fn runs_are_the_set_of_what_was_put_in(a in ranges(), b in ranges()) {
            let (runs, set) = (a.iter().copied().collect::<Runs<_>>(), model(&a));
            let (other, other_set) = (b.iter().copied().collect::<Runs<_>>(), model(&b));

            prop_assert_eq!(&numbers(&runs), &set);
            prop_assert_eq!(runs.count(), set.len() as u64);
            prop_assert_eq!(runs.last(), set.last().copied());
            for pair in runs.ranges().windows(2) {
                prop_assert!(pair[0].1 + 1 < pair[1].0, "ranges touch: {:?}", runs);
            }
            for number in 0..70 {
                prop_assert_eq!(runs.contains(number), set.contains(&number));
                prop_assert_eq!(runs.touches(number, number + 3), (number..=number + 3).any(|n| set.contains(&n)));
            }
            prop_assert_eq!(numbers(&runs.union(&other)), set.union(&other_set).copied().collect::<BTreeSet<_>>());
            prop_assert_eq!(numbers(&runs.minus(&other)), set.difference(&other_set).copied().collect::<BTreeSet<_>>());
            prop_assert_eq!(
                numbers(&runs.gaps_up_to(50)),
                (1..=50).filter(|number| !set.contains(number)).collect::<BTreeSet<_>>()
            );
        }
    }

    #[test]
    fn the_greatest_number_has_no_next() {
        let mut runs: Runs<u32> = [(1, 2), (u32::MAX, u32::MAX)].into_iter().collect();
        runs.insert(5, u32::MAX - 1);
        assert_eq!(runs.ranges(), [(1, 2), (5, u32::MAX)]);
        assert_eq!(runs.minus(&[(7, u32::MAX)].into_iter().collect()).ranges(), [(1, 2), (5, 6)]);
        assert_eq!(runs.gaps_up_to(u32::MAX).ranges(), [(3, 4)]);
    }
}
