//! Whether a star table takes what its model returns, by columns, types and keys.

use std::collections::BTreeSet;

use blackwater_shared::manifest::StarTable;
use blackwater_shared::postgres::{ident, idents};

use super::{Column, DELETED_AT, Filled, PgType, Star, VALID_FROM, VALID_TO, Writing};
use crate::schema::view;

/// The type of the columns that Blackwater fills, as Postgres prints it: with all microseconds.
const TIMESTAMPTZ: &str = "timestamp with time zone";
/// The bytes of the longest name.
const NAME: usize = 63;

impl Star {
    /// What of a model the table `name` cannot take: each says what to do.
    pub(crate) fn problems(&self, name: &str, model: &StarTable) -> Vec<String> {
        let mut problems = self.problems_of_columns(model);
        let returned: Vec<_> = model.columns.iter().map(|column| &column.name).collect();
        match (self.writing(&returned), &model.driving) {
            (Err(why), _) => problems.push(why),
            (Ok(Writing::History), _) if view::name(name).len() > NAME => problems.push(format!(
                "the name of its view, {}, would be longer than {NAME} bytes\nGive the table a shorter one",
                view::name(name)
            )),
            (Ok(Writing::History), None) => {
                problems.push("a set of values (UNION or DISTINCT) has no history\nGive it a key in schema.sql".into());
            }
            (Ok(Writing::History), Some(driving)) => {
                problems.extend(self.problem_of_history(name, driving.key.iter().map(|column| &column.name)));
            }
            (Ok(Writing::Upsert(key)), Some(driving))
                if key.iter().collect::<BTreeSet<_>>() != driving.key.iter().map(|column| &column.name).collect() =>
            {
                let of_driving: Vec<_> = driving.key.iter().map(|column| column.name.as_str()).collect();
                problems.push(format!(
                    "its key is ({}), but the source's rows are told apart by ({}), so one could overwrite another. \
                     Give it that key in schema.sql",
                    key.join(", "),
                    of_driving.join(", ")
                ));
            }
            _ => {}
        }
        for key in model.driving.iter().flat_map(|driving| &driving.key) {
            let Some(column) = self.column(&key.name) else { continue };
            let of_source = PgType::parse(&key.kind);
            if column.is_loose || column.base.ignores_case() && !of_source.ignores_case() {
                problems.push(format!(
                    "the key {} takes values for the same that differ, so one source row could overwrite another\nGive \
                     the column a deterministic collation, and the type text instead of citext",
                    key.name
                ));
            } else if !column.declared.can_hold(&of_source) {
                problems.push(format!(
                    "the key {} is {} at the source, and the column is {}\nGive the column that type in schema.sql",
                    key.name, key.kind, column.declared
                ));
            }
        }
        problems
    }

    /// What a history lacks to hold its versions: with the statements that add it.
    fn problem_of_history<'k>(&self, name: &str, key: impl Iterator<Item = &'k String>) -> Option<String> {
        let key: Vec<_> = key.collect();
        let has_type = |name: &str, may_be_null: bool| {
            self.column(name).is_some_and(|column| {
                column.not_null != may_be_null
                    && !column.has_default
                    && column.filled == Filled::Not
                    && column.declared.to_string() == TIMESTAMPTZ
            })
        };
        let table = ident(name);
        if !has_type(VALID_FROM, false) || !has_type(VALID_TO, true) {
            return Some(format!(
                "the model returns no unique key of it that is NOT NULL, so it is a history, and its versions need \
                 {VALID_FROM} timestamptz NOT NULL, {VALID_TO} timestamptz, both without a default\nIn schema.sql: ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {VALID_FROM} timestamptz NOT NULL \
                 DEFAULT '-infinity', ADD COLUMN IF NOT EXISTS {VALID_TO} timestamptz; ALTER TABLE {table} ALTER COLUMN \
                 {VALID_FROM} DROP DEFAULT"
            ));
        }
        self.open_versions(&key.iter().copied().collect()).is_none().then(|| {
            let columns = idents("", &key);
            format!(
                "nothing keeps a key of this history from having two open versions\nIn schema.sql: CREATE UNIQUE \
                 INDEX IF NOT EXISTS {} ON {table} ({columns}) WHERE {VALID_TO} IS NULL",
                ident(&format!("{name}_open"))
            )
        })
    }

    fn problems_of_columns(&self, model: &StarTable) -> Vec<String> {
        let mut problems = Vec::new();
        let names: Vec<_> = model.columns.iter().map(|column| &column.name).collect();
        let is_history = self.writing(&names) == Ok(Writing::History);
        let is_validity = |name: &str| is_history && [VALID_FROM, VALID_TO].contains(&name);
        for returned in &model.columns {
            let name = &returned.name;
            match self.column(name) {
                _ if name == DELETED_AT => problems.push(format!(
                    "the model returns {name}, the column in which Blackwater marks deletions\nGive it another name"
                )),
                _ if is_validity(name) => problems.push(format!(
                    "the model returns {name}, a column in which Blackwater keeps when a version holds\nGive it another name"
                )),
                None => {
                    problems.push(format!("the model returns {name}, which the table has not\nAdd it to schema.sql"))
                }
                Some(Column { filled: Filled::Computed, .. }) => {
                    problems.push(format!("the model returns {name}, which the table computes\nLeave it out"));
                }
                Some(Column { filled: Filled::Always, .. }) => problems.push(format!(
                    "the model returns {name}, which the table numbers by itself (GENERATED ALWAYS AS IDENTITY)\nMake it \
                     GENERATED BY DEFAULT in schema.sql, or leave it out of the model"
                )),
                Some(column) if !column.accepts(&PgType::parse(&returned.kind)) => problems.push(format!(
                    "the model returns {name} as {}, and the column is {}\nCAST it in the model, or give the column \
                     that type in schema.sql",
                    returned.kind, column.declared
                )),
                Some(_) => {}
            }
        }
        let is_missing = |column: &&Column| {
            column.not_null
                && !column.has_default
                && column.filled == Filled::Not
                && !is_validity(&column.name)
                && !model.columns.iter().any(|returned| returned.name == column.name)
        };
        for column in self.columns.iter().filter(is_missing) {
            problems.push(format!(
                "the column {} is NOT NULL and has no default, and the model does not return it",
                column.name
            ));
        }
        if let Some(column) = self.column(DELETED_AT) {
            if column.not_null || column.declared.to_string() != TIMESTAMPTZ {
                problems.push(format!("{DELETED_AT} marks deletions: it must be timestamptz and may be NULL"));
            } else if column.has_default || column.filled != Filled::Not {
                problems.push(format!(
                    "{DELETED_AT} marks deletions, and its default would mark every new row as deleted\nDrop the default"
                ));
            }
        }
        problems
    }

    /// What of a model works, but not as well as it could.
    pub(crate) fn advice(&self, model: &StarTable) -> Vec<String> {
        let mut advice = Vec::new();
        let returned: Vec<_> = model.columns.iter().map(|column| &column.name).collect();
        let (Some(driving), Ok(writing)) = (&model.driving, self.writing(&returned)) else { return advice };
        if !self.marks_deletions() && writing != Writing::History {
            advice.push(format!(
                "it has no column {DELETED_AT}, so rows that are deleted at the source stay\nAdd {DELETED_AT} timestamptz"
            ));
        }
        let key: BTreeSet<_> = driving.key.iter().map(|column| &column.name).collect();
        let primary = self.indexes.iter().find(|index| index.is_primary);
        if let (Writing::Upsert(key), Some(primary)) = (writing, primary)
            && primary.is_generated
            && !returned.contains(&&primary.columns[0])
        {
            advice.push(format!(
                "its key ({}) is unique, so it holds the latest values alone, although the warehouse numbers its rows as \
                 those of a history\nFor a history, let the key not be unique",
                key.join(", ")
            ));
        }
        let own: BTreeSet<_> = match (writing, primary) {
            (Writing::Upsert(key), _) => key.iter().collect(),
            (Writing::History, Some(primary)) => primary.columns.iter().collect(),
            (Writing::History, None) => BTreeSet::new(),
        };
        let open = self.open_versions(&key).map(|index| &index.name);
        let is_further = |columns: &[String]| columns.iter().collect::<BTreeSet<_>>() != own;
        for index in self.indexes.iter().filter(|index| index.is_unique && index.is_immediate) {
            if is_further(&index.columns) && Some(&index.name) != open {
                advice.push(format!(
                    "it has a further unique key, ({}). A row that takes the value of another, or of a deleted one, goes to \
                     quarantine\nDrop it, or make it DEFERRABLE INITIALLY DEFERRED",
                    index.columns.join(", ")
                ));
            }
        }
        advice
    }
}
