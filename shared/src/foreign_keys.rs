//! The order in which tables that refer to each other are read and written.

use std::collections::{BTreeMap, BTreeSet};

/// Groups of tables, those first that others refer to: a table alone, or several that refer to each other in a circle, by
/// name. `references` are the tables to which each one refers.
#[must_use]
pub fn groups<'a>(references: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> Vec<Vec<&'a str>> {
    let reach = |from: &'a str| {
        let (mut reached, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(one) = next.pop() {
            let others = references[one].iter().copied().filter(|other| references.contains_key(other));
            next.extend(others.filter(|other| reached.insert(*other)));
        }
        reached
    };
    let reached: BTreeMap<&str, BTreeSet<&str>> = references.keys().map(|table| (*table, reach(table))).collect();
    let is_with = |one: &str, other: &str| one == other || reached[one].contains(other) && reached[other].contains(one);
    let mut left: BTreeSet<&str> = references.keys().copied().collect();
    let mut groups = Vec::new();
    loop {
        let waits = |one: &str| left.iter().any(|other| reached[one].contains(other) && !is_with(one, other));
        let Some(first) = left.iter().copied().find(|one| !waits(one)) else { return groups };
        let group: Vec<_> = left.iter().copied().filter(|other| is_with(first, other)).collect();
        left.retain(|table| !group.contains(table));
        groups.push(group);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(references: &[(&'static str, &[&'static str])]) -> Vec<Vec<&'static str>> {
        let sets = references.iter().map(|(table, others)| (*table, others.iter().copied().collect()));
        groups(&sets.collect())
    }

    #[test]
    fn a_table_comes_after_those_that_it_refers_to() {
        assert_eq!(
            order(&[("a", &["c"]), ("b", &["a"]), ("c", &["c", "elsewhere"]), ("d", &[])]),
            [vec!["c"], vec!["a"], vec!["b"], vec!["d"]]
        );
    }

    #[test]
    fn tables_that_refer_to_each_other_come_together() {
        assert_eq!(
            order(&[("c", &["a"]), ("b", &["a", "d"]), ("a", &["b"]), ("d", &[])]),
            [vec!["d"], vec!["a", "b"], vec!["c"]]
        );
    }
}
