//! What a batch holds of a table, found by key.
//!
//! Where the keys of all rows that changed are known, the cost of a query follows their number and not the size of the tables. The
//! driving rows that a SELECT has in the batch are found by one query for each reason: a row's own key, or the key of a row that it
//! looks up, is among those that changed. Postgres starts from the listed keys and goes by indexes to the driving rows, and on to
//! the rows that they look up. The union of these keys is then joined to the table.
//!
//! Two cases still read the whole driving table. A column that refers to a lookup table may have no index. And where a lookup table
//! is joined by another unique key, rows that match nothing are wanted: the log names the primary key of a deleted row, but not the
//! value by which it was looked up.
//!
//! The joins are LEFT JOINs, as everywhere. But each condition is false for a row that finds nothing in a table on the way, so
//! Postgres makes INNER JOINs of them, and may start at the far end. This loses no row: one that finds nothing in the nearer table
//! reaches no row of the farther one, and if the row in the nearer table was deleted, its own key is listed.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use blackwater_shared::manifest::mark;
use blackwater_shared::model::{Model, Select};
use blackwater_shared::postgres::{ident, idents};

use super::predicate::Predicate;
use super::query::Query;
use super::row_selection::{Chain, MARKS, Reason, RowSelection, WRITER};
use super::source_table::SourceTable;

/// The most heaps that a table which is read by key may have: the plan for each heap has a copy of the list of all.
pub(super) const HEAPS: usize = 500;

/// The number of a model that the row drives, in the order of the marks.
const MODEL: &str = "blackwater:model";
/// Takes the place of that number where a model looks the row up.
const LOOKED_UP: i32 = -1;

/// The rows of a table that a batch holds, found by key.
pub(super) struct ByKey<'a> {
    selection: &'a RowSelection<'a>,
    table: &'a str,
}

impl<'a> ByKey<'a> {
    /// `None` if the table has no primary key, or the driving rows of a SELECT that reads it cannot be found by key.
    pub(super) fn of(selection: &'a RowSelection<'a>, table: &'a str) -> Option<Self> {
        let by_key = Self { selection, table };
        let reads = |select: &&Select| select.tables.iter().any(|read| !read.fixed && read.name == table);
        let finds_all = by_key.selects().filter(reads).all(|select| by_key.finds(select));
        (finds_all && by_key.source(table).definition.has_key()).then_some(by_key)
    }

    /// The query for the rows, as [`RowSelection::rows`] describes it.
    pub(super) fn rows(&self) -> Option<Query> {
        let source = self.source(self.table);
        let models: Vec<&Model> =
            self.selection.models.iter().copied().filter(|model| model.is_driven_by(self.table)).collect();
        let mut found = BTreeSet::new();
        for (number, model) in models.iter().enumerate() {
            let driven = model.selects.iter().filter(|select| select.driving() == self.table);
            found.extend(driven.flat_map(|select| self.keys(select, 0)).map(|keys| numbered(&keys, number)));
        }
        for select in self.selects() {
            let looked_up = self.lookups(select).flat_map(|place| self.keys(select, place));
            found.extend(looked_up.map(|keys| numbered(&keys, LOOKED_UP)));
        }
        if found.is_empty() {
            return None;
        }
        let [writer, marks, model] = [WRITER, MARKS, MODEL].map(ident);
        let letter = |number: usize| format!("CASE WHEN bool_or({model} = {number}) THEN 't' ELSE 'f' END");
        let letters: Vec<_> = (0..models.len()).map(letter).collect();
        let columns = || source.definition.columns.iter().map(|column| column.name.as_str());
        let (relation, is_found) = (source.relation_by_key("t", columns()), is_found(source));
        // A key is in one partition. The planner counts an index scan of every partition for each key, which makes it prefer to
        // read all of them. OFFSET 0 leaves it no choice: 6 ms instead of 290 ms for 1,000 keys of 2 million rows in 10 partitions.
        let joined = match source.definition.many {
            true => format!("CROSS JOIN LATERAL (SELECT * FROM {relation} WHERE {is_found} OFFSET 0) AS t"),
            false => format!("JOIN {relation} ON {is_found}"),
        };
        let sql = format!(
            "SELECT NULL AS {writer}, {of_table}, d.{marks} FROM (
                 SELECT {key}, {letters} AS {marks} FROM ({found}) AS d GROUP BY {key}
             ) AS d {joined}",
            of_table = idents("t.", columns()),
            key = idents("", names(source)),
            letters = if letters.is_empty() { "''".into() } else { letters.join(" || ") },
            found = found.into_iter().collect::<Vec<_>>().join(" UNION ALL "),
        );
        let names = columns().map(str::to_owned).chain(models.iter().map(|model| mark(&model.name)));
        Some(Query { sql, names: names.collect() })
    }

    /// The query for the number of rows that come again, as [`RowSelection::again`] describes it.
    pub(super) fn again(&self) -> Option<String> {
        let driven = self.selects().filter(|select| select.driving() == self.table);
        let keys: BTreeSet<_> = driven.flat_map(|select| self.keys(select, 0)).collect();
        let keys: Vec<_> = keys.into_iter().collect();
        (!keys.is_empty()).then(|| format!("SELECT count(*) FROM ({}) AS d", keys.join(" UNION ")))
    }

    /// Whether the driving rows that a SELECT has in the batch can be found by key. A table without changes needs no list of keys.
    fn finds(&self, select: &Select) -> bool {
        let driving = self.source(select.driving());
        let knows_changes = |table: &SourceTable<'_>| match table.touched {
            Some(_) => table.definition.has_key(),
            None => !self.selection.has_news(table.name),
        };
        let mut tables = select.tables.iter().filter(|table| !table.fixed).map(|table| self.source(&table.name));
        driving.definition.has_key()
            && driving.due("t").is_never()
            && tables.all(|table| knows_changes(table) && table.definition.heaps.len() <= HEAPS)
    }

    /// The queries for the keys of the rows at `place` of a SELECT, one for each reason for which driving rows come again. The
    /// driving rows themselves are at 0.
    fn keys(&self, select: &Select, place: usize) -> Vec<String> {
        let chain = Chain::by_key(select);
        let (driving, source) = (self.source(select.driving()), self.source(&select.tables[place].name));
        let (relation, alias) = (driving.relation_by_key("t", chain.columns(0)), chain.alias(place));
        let is_there = match place {
            0 => Predicate::Always,
            _ => Predicate::Sql(format!("{alias}.{} IS NOT NULL", ident(&source.definition.key[0]))),
        };
        let query = |Reason { mut tables, condition }| {
            tables.insert(place);
            let (joins, condition) = (self.selection.joins(&chain, tables), is_there.clone().and(condition));
            format!("SELECT {} FROM {relation}{joins} WHERE {condition}", key(source, &alias))
        };
        self.selection.reasons(&chain).into_iter().map(query).collect()
    }

    /// The places at which a SELECT looks the table up.
    fn lookups(&self, select: &'a Select) -> impl Iterator<Item = usize> {
        let tables = select.tables.iter().enumerate().skip(1);
        tables.filter(|(_, table)| !table.fixed && table.name == self.table).map(|(place, _)| place)
    }

    fn selects(&self) -> impl Iterator<Item = &'a Select> {
        self.selection.models.iter().flat_map(|model| &model.selects)
    }

    fn source(&self, table: &str) -> &'a SourceTable<'a> {
        &self.selection.tables[table]
    }
}

/// Names for the columns of a key that no column of a source table has.
fn names(source: &SourceTable<'_>) -> impl Iterator<Item = String> {
    (0..source.definition.key.len()).map(|number| format!("blackwater:{number}"))
}

/// The key of a table under these names.
fn key(source: &SourceTable<'_>, alias: &str) -> String {
    let columns = source.definition.key.iter().zip(names(source));
    let columns = columns.map(|(column, name)| format!("{alias}.{} AS {}", ident(column), ident(&name)));
    columns.collect::<Vec<_>>().join(", ")
}

/// The condition that a row of the table `t` has the key that was found.
fn is_found(source: &SourceTable<'_>) -> String {
    let columns = source.definition.key.iter().zip(names(source));
    let equal = columns.map(|(column, name)| format!("t.{} = d.{}", ident(column), ident(&name)));
    equal.collect::<Vec<_>>().join(" AND ")
}

/// The keys that a query finds, with the number of the model that these rows drive.
fn numbered(keys: &str, number: impl std::fmt::Display) -> String {
    format!("SELECT *, {number} AS {} FROM ({keys}) AS d", ident(MODEL))
}
