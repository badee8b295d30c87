//! Queries of one table.

use blackwater_shared::postgres::{csv_field, idents};

use super::predicate::Predicate;
use super::source_table::{SourceTable, age};

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

/// Counts the rows of a table, of which the log holds only those that meet `read`, and those of them that changed; and lists the
/// transactions at or above `xmin` that wrote one of them, at most `most`.
pub(crate) fn changes(table: &SourceTable<'_>, read: &Predicate, xmin: u64, most: usize) -> String {
    format!(
        "SELECT count(*), count(*) FILTER (WHERE {changed}),
                (array_agg(DISTINCT t.xmin::text::bigint) FILTER (WHERE age(t.xmin) BETWEEN 0 AND {recent}))[1:{most}]
         FROM {relation} WHERE {read}",
        changed = table.changed("t"),
        recent = age(xmin),
        relation = table.relation("t", []),
    )
}

/// The keys of all rows of a table.
pub(crate) fn keys(table: &SourceTable<'_>) -> Query {
    let key = &table.definition.key;
    let relation = table.relation("t", key.iter().map(String::as_str));
    Query { sql: format!("SELECT {} FROM {relation}", idents("t.", key)), names: key.clone() }
}
