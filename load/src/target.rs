//! A star table and its model together: how a batch writes to it, and the SQL that names its columns and keys.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use blackwater_shared::manifest::StarTable;
use blackwater_shared::postgres::{ident, literal, qualified};

use crate::catalogue::{Column, DELETED_AT, Reference, Star, VALID_TO, Writing};
use crate::error::Error;
use crate::write::Written;

/// The column of a staging table that numbers its rows, quoted.
pub(crate) const POS: &str = "\"blackwater:pos\"";

/// A star table, and how a batch writes to it.
pub(crate) struct Target<'a> {
    /// Its place among the batch's star tables.
    pub(crate) number: i16,
    pub(crate) name: &'a str,
    /// The star schema.
    pub(crate) schema: &'a str,
    /// Schema and name, quoted.
    pub(crate) quoted: String,
    pub(crate) star: &'a Star,
    pub(crate) writing: Writing<'a>,
    /// The columns that the model returns.
    pub(crate) columns: Vec<&'a Column>,
    /// Those that tell the source's rows apart; of a set of values its own key.
    pub(crate) key: Vec<&'a Column>,
    /// The columns of the key that are of a type which the source defines: a key may be none of the type here.
    pub(crate) foreign: BTreeSet<String>,
    /// What the batch has for it.
    pub(crate) table: &'a StarTable,
    /// Whether rows that are as they were are written again: in a check.
    pub(crate) rewrites: bool,
    /// The table in which another session has staged its rows ([`crate::ahead`]). It is set before any statement names the staging
    /// table.
    pub(crate) stage: OnceLock<i64>,
}

impl<'a> Target<'a> {
    /// The star table `name`, if it fits its model.
    pub(crate) fn new(
        number: i16,
        (schema, name): (&'a str, &'a str),
        table: &'a StarTable,
        star: Option<&'a Star>,
        batch: u64,
    ) -> Result<Self, Error> {
        let refuse = |why: String| Error::Table { batch, table: name.to_owned(), why };
        let star =
            star.ok_or_else(|| refuse(format!("schema {schema} has no plain table {name}\nAdd it to schema.sql")))?;
        if let Some(problem) = star.problems(name, table).into_iter().next() {
            return Err(refuse(problem));
        }
        let returned: Vec<_> = table.columns.iter().map(|column| column.name.as_str()).collect();
        let writing = star.writing(&returned).map_err(refuse)?;
        let columns: Vec<_> = returned.iter().filter_map(|name| star.column(name)).collect();
        let key: Vec<String> = match (&table.driving, writing) {
            (Some(driving), _) => driving.key.iter().map(|column| column.name.clone()).collect(),
            (None, Writing::Upsert(key)) => key.to_vec(),
            (None, Writing::History) => Vec::new(),
        };
        let key = key.iter().filter_map(|name| star.column(name)).collect();
        let foreign = table.driving.iter().flat_map(|driving| &driving.key).filter(|key| key.kind.contains('.'));
        let foreign = foreign.map(|key| key.name.clone()).collect();
        let quoted = qualified(schema, name);
        let (rewrites, stage) = (false, OnceLock::new());
        Ok(Self { number, name, schema, quoted, star, writing, columns, key, foreign, table, rewrites, stage })
    }

    /// How many of the rows that are written count as new, and how many as changed: each version of a history is new.
    pub(crate) fn inserted_and_updated(&self, written: Written) -> (u64, u64) {
        match self.writing {
            Writing::Upsert(_) => (written.new, written.changed),
            Writing::History => (written.new + written.changed, 0),
        }
    }

    /// `a.x = b.x AND …` for the columns of the key, each side as the star table has it.
    pub(crate) fn same_key(&self, one: &str, other: &str) -> String {
        let equal = |column: &&Column| {
            let name = ident(&column.name);
            column.equal(&format!("{one}.{name}"), &format!("{other}.{name}"))
        };
        self.key.iter().map(equal).collect::<Vec<_>>().join(" AND ")
    }

    /// The condition that a row `s` of the star table has a key: `as_text` gives the value for a column of a type that
    /// the source defines, `typed` that for any other.
    pub(crate) fn has_key(&self, as_text: impl Fn(&Column) -> String, typed: impl Fn(&Column) -> String) -> String {
        let equal = |column: &&Column| {
            let ours = format!("s.{}", ident(&column.name));
            match self.foreign.contains(&column.name) {
                true => format!("{} = {}", column.key_text(&ours), as_text(column)),
                false => column.equal(&ours, &typed(column)),
            }
        };
        self.key.iter().map(equal).collect::<Vec<_>>().join(" AND ")
    }

    /// The key of a row as the quarantine has it.
    pub(crate) fn key_json(&self, row: &str) -> String {
        let part = |column: &&Column| {
            let value = column.key_text(&format!("{row}.{}", ident(&column.name)));
            format!("{}, {value}", literal(&column.name))
        };
        format!("jsonb_build_object({})", self.key.iter().map(part).collect::<Vec<_>>().join(", "))
    }

    /// The columns that the model returns, each after `prefix`.
    pub(crate) fn list(&self, prefix: &str) -> String {
        blackwater_shared::postgres::idents(prefix, self.columns.iter().map(|column| &column.name))
    }

    /// The columns of the staged row `t`, each in the star table's own type.
    pub(crate) fn typed(&self, prefix: &str) -> String {
        let typed = |column: &&Column| {
            let value = format!("{prefix}{}", ident(&column.name));
            if column.staged() == column.declared { value } else { format!("{value}::{}", column.declared) }
        };
        self.columns.iter().map(typed).collect::<Vec<_>>().join(", ")
    }

    /// Of a history, the index that lets a key have one open version.
    pub(crate) fn open_versions(&self) -> Option<&'a str> {
        let key = self.key.iter().map(|column| &column.name).collect();
        (self.writing == Writing::History)
            .then(|| self.star.open_versions(&key))
            .flatten()
            .map(|index| index.name.as_str())
    }

    /// Whether rows that the source no longer has can be marked: a version of a history is closed.
    pub(crate) fn marks_deletions(&self) -> bool {
        self.writing == Writing::History || self.star.marks_deletions()
    }

    /// Whether the row `s` of the star table differs from the staged row `t`, or is deleted. A row is compared as it is stored
    /// (`*<>`), so 1.0 is not 1.00, and types that know no equality, as json, work.
    pub(crate) fn differs(&self) -> String {
        if self.rewrites {
            return "true".into();
        }
        let differs = format!("ROW({})::record *<> ROW({})::record", self.list("s."), self.typed("t."));
        match self.writing {
            Writing::Upsert(_) if self.star.marks_deletions() => format!("({differs} OR s.{DELETED_AT} IS NOT NULL)"),
            _ => differs,
        }
    }

    /// The condition that the row `s` of the star table stands for a row of the source: it is not deleted, and of a history the
    /// open version.
    pub(crate) fn is_live(&self) -> String {
        match self.writing {
            Writing::History => format!("s.{VALID_TO} IS NULL"),
            Writing::Upsert(_) if self.star.marks_deletions() => format!("s.{DELETED_AT} IS NULL"),
            Writing::Upsert(_) => "true".into(),
        }
    }

    /// The rows of the star table that stand for a row of the source, as `s`.
    pub(crate) fn live(&self) -> String {
        format!("{} AS s WHERE {}", self.quoted, self.is_live())
    }

    /// The condition on `blackwater.quarantine`, `waiting_for` or `filtered`, called `q`, for the lines of this star table.
    pub(crate) fn of_table(&self, q: &str) -> String {
        format!("{q}.star_schema = {} AND {q}.star_table = {}", literal(self.schema), literal(self.name))
    }

    /// The foreign keys that lead to a table of `group`.
    pub(crate) fn inner_references(&self, group: &[&Target<'_>]) -> impl Iterator<Item = (i16, &'a Reference)> {
        let is_inner = |name: &String| group.iter().any(|target| target.name == name);
        let inner: Vec<_> = self.references().filter(|(_, r)| r.star_table.as_ref().is_some_and(is_inner)).collect();
        inner.into_iter()
    }

    /// The foreign keys, each with its place.
    pub(crate) fn references(&self) -> impl Iterator<Item = (i16, &'a Reference)> {
        (0..).zip(&self.star.references)
    }
}
