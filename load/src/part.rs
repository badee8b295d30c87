//! A part of a batch: what is written and committed at once of a batch that did not end in a function's time.
//!
//! A batch is one transaction. One that a function twice failed to finish in its time is applied in parts, which are noted in
//! `blackwater.partly`, and readers see the star tables with some of its rows meanwhile. Each part holds rows of one star table, in
//! the order of the foreign keys; the last one holds all else, and writes the line in the ledger.

use std::collections::BTreeMap;
use std::ops::Range;

use blackwater_shared::manifest::StarTable;

use crate::ledger::Partly;

/// So often a batch is tried as a whole.
const TRIES: u32 = 2;
/// The smallest part is the batch's rows divided by two to this power.
const SMALLEST: u32 = 10;

/// What is written at once.
pub(crate) struct Part {
    /// The star tables with what is written of them.
    pub(crate) tables: BTreeMap<String, StarTable>,
    /// The places of the rows in the objects of the star table that has some.
    pub(crate) rows: Range<u64>,
    /// How many rows of the batch are written with it; `None` if it is the last one.
    pub(crate) done: Option<u64>,
}

/// Whether a batch is applied in parts.
pub(crate) fn is_cut(partly: &Partly, has_deadline: bool) -> bool {
    partly.done > 0 || partly.tries >= TRIES && has_deadline
}

impl Part {
    /// What is to be written now of a batch's star tables, whose names are in the order of their foreign keys. `None` if it is all.
    pub(crate) fn of(
        tables: &BTreeMap<String, StarTable>,
        order: &[&str],
        partly: &Partly,
        has_deadline: bool,
    ) -> Option<Self> {
        if !is_cut(partly, has_deadline) {
            return None;
        }
        let rows = |name: &str| tables[name].rows();
        let all: u64 = order.iter().map(|name| rows(name)).sum();
        // Smaller each time that a part was late; whoever has no deadline takes the rest of the table.
        let most = if has_deadline { (all >> (partly.tries + 1).min(SMALLEST)).max(1) } else { all };
        let mut before = 0;
        for name in order {
            let end = before + rows(name);
            if partly.done < end {
                let range = partly.done - before..(partly.done - before + most).min(rows(name));
                let of = |(other, table): (&String, &StarTable)| {
                    let objects = if other == name { table.objects.clone() } else { Vec::new() };
                    let (misfits, filtered, gone, keys) = (Vec::new(), Vec::new(), Vec::new(), None);
                    (other.clone(), StarTable { objects, misfits, filtered, gone, keys, ..table.clone() })
                };
                let done = Some(before + range.end);
                return Some(Self { tables: tables.iter().map(of).collect(), rows: range, done });
            }
            before = end;
        }
        let rest =
            |(name, table): (&String, &StarTable)| (name.clone(), StarTable { objects: Vec::new(), ..table.clone() });
        Some(Self { tables: tables.iter().map(rest).collect(), rows: 0..0, done: None })
    }
}

#[cfg(test)]
mod tests {
    use blackwater_shared::manifest::Object;

    use super::*;

    fn table(rows: &[u64]) -> StarTable {
        let object = |rows: &u64| Object { key: String::new(), rows: *rows, bytes: 0, sha256: String::new() };
        StarTable {
            columns: Vec::new(),
            driving: None,
            objects: rows.iter().map(object).collect(),
            misfits: vec![object(&1)],
            filtered: Vec::new(),
            gone: vec![object(&1)],
            keys: None,
        }
    }

    #[test]
    fn parts_are_all_of_the_batch_and_nothing_twice() {
        let tables = [("dim", table(&[70, 30])), ("fact", table(&[100])), ("other", table(&[]))];
        let tables = tables.map(|(name, table)| (name.to_owned(), table)).into();
        let order = ["other", "dim", "fact"];
        let partly = |tries, done| Partly { tries, done, ..Partly::default() };
        assert!(Part::of(&tables, &order, &partly(1, 0), true).is_none());
        assert!(Part::of(&tables, &order, &partly(2, 0), false).is_none());
        for tries in [2, 3, 90] {
            let (mut found, mut done) = (Vec::new(), 0);
            loop {
                let part = Part::of(&tables, &order, &partly(tries, done), done == 0).unwrap();
                let with_rows: Vec<_> = part.tables.iter().filter(|(_, table)| !table.objects.is_empty()).collect();
                let has_all_else = |table: &StarTable| !table.misfits.is_empty() && !table.gone.is_empty();
                assert_eq!(part.tables.values().all(has_all_else), part.done.is_none());
                let Some(next) = part.done else {
                    assert!(with_rows.is_empty());
                    break;
                };
                assert_eq!(with_rows.len(), 1);
                found.extend(part.rows.map(|row| (with_rows[0].0.clone(), row)));
                done = next;
            }
            let all = |name: &'static str| (0..100).map(move |row| (name.to_owned(), row));
            assert_eq!(found, all("dim").chain(all("fact")).collect::<Vec<_>>());
        }
    }
}
