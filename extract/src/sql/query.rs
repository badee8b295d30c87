//! Queries of one table.

use blackwater_shared::postgres::{csv_field, idents};

use super::by_key::HEAPS;
use super::keys::among_joined;
use super::predicate::Predicate;
use super::source_table::SourceTable;
use crate::changes::Key;

/// A query for COPY, and the names of what it returns: Postgres cuts those of a query at 63 bytes.
pub(crate) struct Query {
    pub(crate) sql: String,
    pub(crate) names: Vec<String>,
}

impl Query {
    /// The statement that sends its rows as CSV, without a header.
    pub(crate) fn copy(&self) -> String {
        format!("COPY ({}) TO STDOUT (FORMAT csv)", self.sql)
    }

    /// The header for them.
    pub(crate) fn header(&self) -> String {
        let quoted: Vec<_> = self.names.iter().map(|name| csv_field(name)).collect();
        quoted.join(",") + "\n"
    }
}

/// Counts the rows of a table that meet `read`: a line for those that did not change, without a writer; one for those that a
/// transaction of long ago wrote, with the writer 0; and one for each recent writer.
pub(crate) fn changes(table: &SourceTable<'_>, read: &Predicate) -> String {
    let relation = table.relation("t", []);
    match table.changed("t") {
        Predicate::Never => format!("SELECT NULL::text, count(*) FROM {relation} WHERE {read}"),
        changed => format!(
            "SELECT writer::text, count FROM (
                 SELECT CASE WHEN NOT ({changed}) THEN NULL WHEN {recent} THEN t.xmin ELSE '0'::xid END AS writer, count(*)
                 FROM {relation} WHERE {read} GROUP BY 1
             ) AS counted",
            recent = table.recent("t"),
        ),
    }
}

/// Those of the keys that a table has.
pub(crate) fn found(table: &SourceTable<'_>, keys: &[Key]) -> String {
    let key = &table.definition.key;
    let columns = || key.iter().map(String::as_str);
    let relation = match table.definition.heaps.len() > HEAPS {
        true => table.relation("t", columns()),
        false => table.relation_by_key("t", columns()),
    };
    format!("SELECT {} FROM {relation} WHERE {}", idents("t.", key), among_joined(&table.key("t"), keys))
}

/// The number of rows of a table that meet `read`.
pub(crate) fn count(table: &SourceTable<'_>, read: &Predicate) -> String {
    format!("SELECT count(*) FROM {} WHERE {read}", table.relation("t", []))
}

/// The keys of all rows of a table.
pub(crate) fn keys(table: &SourceTable<'_>) -> Query {
    let key = &table.definition.key;
    let relation = table.relation("t", key.iter().map(String::as_str));
    Query { sql: format!("SELECT {} FROM {relation}", idents("t.", key)), names: key.clone() }
}
