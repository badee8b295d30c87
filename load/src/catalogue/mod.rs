//! What the warehouse's own catalogue says of the star tables: it is the contract, and nothing of
//! it is repeated in a configuration.

mod contract;
mod pg_type;
mod read;

pub(crate) use pg_type::{Comparison, PgType};
pub(crate) use read::read;

use std::collections::BTreeSet;

use blackwater_shared::postgres::ident;
use serde::{Deserialize, Serialize};

/// The column in which deletions are marked.
pub(crate) const DELETED_AT: &str = "deleted_at";
/// The columns of a history that say since when a version holds, and until when; NULL in the open version, the newest.
pub(crate) const VALID_FROM: &str = "valid_from";
pub(crate) const VALID_TO: &str = "valid_to";
/// The condition for the open versions, as Postgres prints it for an index.
const IS_OPEN: &str = "(valid_to IS NULL)";

/// A star table.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Star {
    /// Its columns, in order.
    pub(crate) columns: Vec<Column>,
    /// Its CHECK constraints.
    pub(crate) checks: Vec<Check>,
    /// Its foreign keys.
    pub(crate) references: Vec<Reference>,
    /// Its columns to which foreign keys refer.
    pub(crate) referenced: BTreeSet<String>,
    /// Its indexes.
    pub(crate) indexes: Vec<Index>,
    /// Whether this role may read and write it.
    pub(crate) is_writable: bool,
}

/// A column of a star table.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// Its type; perhaps a domain.
    pub(crate) declared: PgType,
    /// The type under its domains, also under those of an array's elements; of others, the same.
    pub(crate) base: PgType,
    pub(crate) not_null: bool,
    pub(crate) has_default: bool,
    /// How the warehouse fills it by itself.
    pub(crate) filled: Filled,
    /// `COLLATE …` after a space, where it is not its type's own.
    pub(crate) collation: String,
    /// Whether its collation takes texts for equal that differ.
    pub(crate) is_loose: bool,
    /// The schema of its type's `=`, where that is not one of Postgres' own.
    pub(crate) equality: Option<String>,
}

/// How the warehouse fills a column by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filled {
    /// It does not, or by a default.
    Not,
    /// From a sequence, where no value is given.
    ByDefault,
    /// From a sequence, and no value may be given.
    Always,
    /// From other columns.
    Computed,
}

/// A CHECK constraint.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Check {
    pub(crate) name: String,
    pub(crate) expression: String,
    /// The columns that it speaks of. `None` if it speaks of the row as a whole or of a system column.
    pub(crate) columns: Option<Vec<String>>,
    /// Whether it uses nothing but functions and operators of Postgres itself.
    pub(crate) is_builtin: bool,
}

/// A foreign key.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reference {
    pub(crate) constraint: String,
    pub(crate) columns: Vec<String>,
    /// The table that it refers to, quoted.
    pub(crate) table: String,
    /// The name of that table, if it is in the star schema.
    pub(crate) star_table: Option<String>,
    pub(crate) their_columns: Vec<String>,
    /// The operator that compares each of their columns with ours, in SQL.
    pub(crate) operators: Vec<String>,
    pub(crate) is_deferrable: bool,
}

/// An index.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Index {
    pub(crate) name: String,
    /// Its columns, in order.
    pub(crate) columns: Vec<String>,
    pub(crate) is_unique: bool,
    pub(crate) is_primary: bool,
    /// Whether it refuses a second row at once, and not at the end of the transaction.
    pub(crate) is_immediate: bool,
    /// Whether it is of plain columns and of all rows.
    pub(crate) is_plain: bool,
    /// The condition for the rows that it is of, as Postgres prints it.
    pub(crate) predicate: Option<String>,
    /// Whether its columns are NOT NULL.
    pub(crate) is_not_null: bool,
    /// Whether a sequence fills one of its columns.
    pub(crate) is_generated: bool,
}

/// How rows get into a star table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writing<'a> {
    /// One row for each value of the key, the latest.
    Upsert(&'a [String]),
    /// A new row for each version (SCD type 2).
    History,
}

impl Column {
    /// The type in which its values are staged: one without the length or the digits to which Postgres would cut
    /// them silently.
    pub(crate) fn staged(&self) -> PgType {
        let staging = self.base.staging_type();
        if staging == self.base { self.declared.clone() } else { staging }
    }

    /// Whether no value of a model's type loses anything silently here. A type of its own that the source defines under the
    /// name of the column's is taken to be the same.
    pub(crate) fn accepts(&self, model: &PgType) -> bool {
        self.declared.is_user_defined() && self.declared.has_name_of(model) || self.base.accepts(model)
    }

    /// `left = right` in SQL, by the equality of its type.
    pub(crate) fn equal(&self, left: &str, right: &str) -> String {
        let schema = self.equality.as_ref().map_or_else(|| "pg_catalog".into(), |schema| ident(schema));
        format!("{left} OPERATOR({schema}.=) {right}")
    }

    /// The type in which a text is compared with the column.
    pub(crate) fn compared(&self) -> PgType {
        let compared = self.base.compared_type();
        if compared == self.base { self.declared.clone() } else { compared }
    }

    /// The value `value` of a key as the quarantine and the messages have it: in one way, however it is padded or how many zeros it has.
    pub(crate) fn key_text(&self, value: &str) -> String {
        self.base.key_text(value)
    }

    /// The text of `value` by which equal values are found: that of texts in which case does not count is in lower case.
    pub(crate) fn match_text(&self, value: &str) -> String {
        let text = self.key_text(value);
        if self.base.ignores_case() { format!("lower({text})") } else { text }
    }
}

impl Star {
    /// The column of a name.
    pub(crate) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Whether deletions can be marked.
    pub(crate) fn marks_deletions(&self) -> bool {
        self.column(DELETED_AT).is_some()
    }

    /// Whether a model that returns `columns` makes it a history, and it has what a history needs.
    pub(crate) fn is_history(&self, columns: &[String]) -> bool {
        self.writing(columns) == Ok(Writing::History) && self.has_validity()
    }

    /// Whether it has the columns that say when a version holds.
    fn has_validity(&self) -> bool {
        self.column(VALID_FROM).is_some() && self.column(VALID_TO).is_some()
    }

    /// The index that lets a key of a history have one open version.
    pub(crate) fn open_versions(&self, key: &BTreeSet<&String>) -> Option<&Index> {
        self.indexes.iter().find(|index| {
            index.is_unique
                && index.is_immediate
                && index.predicate.as_deref() == Some(IS_OPEN)
                && index.columns.iter().collect::<BTreeSet<_>>() == *key
        })
    }

    /// The unique keys of which the columns `returned` are a whole, less the key by which rows are upserted.
    pub(crate) fn further_keys(&self, own: &[String], returned: &[&Column]) -> Vec<&Index> {
        let is_further = |index: &&Index| {
            index.is_unique
                && index.is_plain
                && index.columns.iter().any(|column| !own.contains(column))
                && index.columns.iter().all(|column| returned.iter().any(|known| known.name == *column))
        };
        self.indexes.iter().filter(is_further).collect()
    }

    /// How rows of the columns `returned` are written: by the primary key, or by the only unique key, or as a
    /// history.
    pub(crate) fn writing<S: AsRef<str>>(&self, returned: &[S]) -> Result<Writing<'_>, String> {
        let is_returned = |index: &&Index| {
            index.columns.iter().all(|column| returned.iter().any(|returned| returned.as_ref() == column))
        };
        let keys = || self.indexes.iter().filter(|index| index.is_unique && index.is_plain && index.is_not_null);
        let primary = keys().find(|index| index.is_primary);
        if let Some(key) = primary.filter(|index| index.is_immediate).filter(is_returned) {
            return Ok(Writing::Upsert(&key.columns));
        }
        let fitting = keys().filter(|index| !index.is_primary && index.is_immediate).filter(is_returned);
        let mut fitting: Vec<_> = fitting.map(|index| &index.columns).collect();
        fitting.sort();
        match fitting.as_slice() {
            [] => {}
            [key] => return Ok(Writing::Upsert(key)),
            [one, other, ..] => {
                return Err(format!(
                    "the model returns two unique keys, ({}) and ({})\nKeep one",
                    one.join(", "),
                    other.join(", ")
                ));
            }
        }
        if let Some(deferrable) = keys().filter(|index| !index.is_immediate).find(is_returned) {
            return Err(format!(
                "its key {} ({}) is DEFERRABLE, and rows are upserted by a key that is checked at once\nMake it NOT \
                 DEFERRABLE in schema.sql",
                deferrable.name,
                deferrable.columns.join(", ")
            ));
        }
        let is_numbered = primary.is_some_and(|index| index.is_generated && index.columns.len() == 1);
        match is_numbered || self.has_validity() {
            true => Ok(Writing::History),
            false => {
                Err("the model returns no primary or unique key of it\nGive it one, NOT NULL, in schema.sql".into())
            }
        }
    }
}
