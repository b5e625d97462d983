//! A relation between groups, told in few lines: all groups that are related to the same groups stand
//! in one.

use std::collections::{BTreeMap, HashMap};

/// These senders, and the receivers that each of them is related to. Both ascending.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rectangle {
    pub from: Vec<usize>,
    pub to: Vec<usize>,
}

/// Covers the pairs, each once, by whichever is less: lines of equal receivers, or of equal senders.
/// `alone` says that a group has one member: it makes no pair with itself, and may be
/// counted as if it did.
pub(crate) fn cover(pairs: &[(usize, usize)], alone: impl Fn(usize) -> bool) -> Vec<Rectangle> {
    let by_sender = lines(pairs.iter().copied(), &alone);
    let by_receiver = lines(pairs.iter().map(|(from, to)| (*to, *from)), &alone);
    if by_receiver.len() < by_sender.len() {
        let turned = by_receiver.into_iter().map(|(to, from)| (from, to));
        let mut found: Vec<Rectangle> = turned.map(|(from, to)| Rectangle { from, to }).collect();
        found.sort_unstable();
        return found;
    }
    by_sender
        .into_iter()
        .map(|(from, to)| Rectangle { from, to })
        .collect()
}

/// Keys with equal values, and those values.
pub(crate) fn lines(
    pairs: impl Iterator<Item = (usize, usize)>,
    alone: impl Fn(usize) -> bool,
) -> Vec<(Vec<usize>, Vec<usize>)> {
    let mut values: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (key, value) in pairs {
        values.entry(key).or_default().push(value);
    }
    // Each key as it is, and, where that says nothing of it, with itself among its values.
    let mut with_itself: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (key, found) in &mut values {
        found.sort_unstable();
        found.dedup();
        if alone(*key)
            && let Err(place) = found.binary_search(key)
        {
            let mut widened = found.clone();
            widened.insert(place, *key);
            with_itself.insert(*key, widened);
        }
    }
    let mut shared: HashMap<&Vec<usize>, usize> = HashMap::new();
    for found in values.values().chain(with_itself.values()) {
        *shared.entry(found).or_default() += 1;
    }
    let mut lines: BTreeMap<&Vec<usize>, Vec<usize>> = BTreeMap::new();
    for (key, found) in &values {
        let chosen = match with_itself.get(key) {
            Some(widened) if shared[widened] > shared[found] => widened,
            _ => found,
        };
        lines.entry(chosen).or_default().push(*key);
    }
    let mut lines: Vec<(Vec<usize>, Vec<usize>)> = lines
        .into_iter()
        .map(|(found, keys)| (keys, found.clone()))
        .collect();
    lines.sort_unstable();
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covered(pairs: &[(usize, usize)]) -> Vec<(Vec<usize>, Vec<usize>)> {
        cover(pairs, |group| group < 10)
            .into_iter()
            .map(|Rectangle { from, to }| (from, to))
            .collect()
    }

    #[test]
    fn equal_senders_share_a_line() {
        assert_eq!(
            covered(&[(1, 5), (1, 6), (2, 5), (2, 6), (3, 6)]),
            [(vec![1, 2], vec![5, 6]), (vec![3], vec![6])]
        );
    }

    #[test]
    fn equal_receivers_do_where_that_is_less() {
        assert_eq!(
            covered(&[(1, 5), (2, 6), (3, 5), (3, 6)]),
            [(vec![1, 3], vec![5]), (vec![2, 3], vec![6])]
        );
    }

    #[test]
    fn missing_pairs_with_oneself_divide_no_group() {
        let all: Vec<(usize, usize)> = (1..4)
            .flat_map(|from| (1..4).map(move |to| (from, to)))
            .filter(|(from, to)| from != to)
            .chain([(7, 1), (7, 2), (7, 3)])
            .collect();
        assert_eq!(covered(&all), [(vec![1, 2, 3, 7], vec![1, 2, 3])]);
    }

    #[test]
    fn a_group_of_many_pairs_with_itself_or_does_not() {
        assert_eq!(
            covered(&[(10, 11), (11, 10)]),
            [(vec![10], vec![11]), (vec![11], vec![10])]
        );
        assert_eq!(
            covered(&[(10, 10), (10, 11), (11, 10), (11, 11)]),
            [(vec![10, 11], vec![10, 11])]
        );
    }
}
