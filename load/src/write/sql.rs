//! The statements that compare staged rows with a star table, and those that write them.
//!
//! The first run while names are Postgres' own; the others run under the search path of the warehouse's own triggers and
//! constraints, so they name no function, and no operator but by its schema.

use std::collections::BTreeSet;

use blackwater_shared::postgres::{ident, idents, literal};
use chrono::{DateTime, SecondsFormat, Utc};

use crate::catalogue::{DELETED_AT, Writing};
use crate::staging::{self, Content};
use crate::target::{POS, Target};

/// What is done with a row, as `pg_temp.action` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// It is new; of a history the first version of its key.
    Insert = 1,
    /// It has changed; of a history it follows another version.
    Change = 2,
    /// It is marked as deleted.
    Delete = 3,
}

/// A statement that writes those rows of `pg_temp.action` that have certain actions, from one number to another.
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    number: i16,
    actions: &'static [Action],
    /// The statement up to its condition.
    begin: String,
    /// What comes after it.
    end: String,
    /// The statements that make it quick for few rows.
    indexes: String,
    /// Whether it reads the staging table, as `t`.
    is_of_stage: bool,
}

impl Statement {
    /// The statement, for the rows from `low` to `high`.
    pub(crate) fn sql(&self, low: &str, high: &str) -> String {
        // Said of both sides of the join, so that each is read by its own index.
        let staged = match self.is_of_stage {
            true => format!(" AND t.{POS} OPERATOR(pg_catalog.>=) {low} AND t.{POS} OPERATOR(pg_catalog.<=) {high}"),
            false => String::new(),
        };
        format!("{}{}{staged}{}", self.begin, self.which(low, high), self.end)
    }

    /// The condition on `pg_temp.action`, called `a`, for its rows.
    pub(crate) fn which(&self, low: &str, high: &str) -> String {
        let actions: Vec<_> =
            self.actions.iter().map(|action| format!("a.kind OPERATOR(pg_catalog.=) {}", *action as i16)).collect();
        format!(
            "a.tbl OPERATOR(pg_catalog.=) {} AND ({}) AND a.pos OPERATOR(pg_catalog.>=) {low} AND a.pos OPERATOR(pg_catalog.<=) {high}",
            self.number,
            actions.join(" OR ")
        )
    }

    /// Whether it marks rows as deleted.
    pub(crate) fn deletes(&self) -> bool {
        self.actions == [Action::Delete]
    }

    /// Whether it only replaces rows, which may exchange values then.
    pub(crate) fn only_changes(&self) -> bool {
        self.actions == [Action::Change]
    }

    /// The statements that make it quick for few rows.
    pub(crate) fn indexes(&self) -> String {
        format!("CREATE INDEX IF NOT EXISTS action_pos ON pg_temp.action (pos){}", self.indexes)
    }
}

/// A statement that reads the staged rows of a table, by their actions.
fn of_stage(target: &Target<'_>, actions: &'static [Action], begin: String, end: String) -> Statement {
    let (stage, number) = (staging::name(target, Content::Rows), target.number);
    let indexes = format!("; CREATE INDEX IF NOT EXISTS rows_{number}_pos ON {stage} ({POS})");
    Statement { number, actions, begin, end, indexes, is_of_stage: true }
}

/// The staged rows `t` with their actions, for a FROM clause and the condition after it.
fn from_stage(target: &Target<'_>) -> String {
    let stage = staging::name(target, Content::Rows);
    format!("FROM {stage} t JOIN pg_temp.action a ON a.pos OPERATOR(pg_catalog.=) t.{POS} WHERE ")
}

/// Notes what is to be done with each staged row, and returns how many rows are new and changed, how many are staged, and how
/// many of these came out of quarantine. `several` says that a key may occur with several batches.
pub(crate) fn plan(target: &Target<'_>, several: bool, batch: u64) -> String {
    let stage = staging::name(target, Content::Rows);
    let (number, insert, change) = (target.number, Action::Insert as i16, Action::Change as i16);
    let same = target.same_key("s", "t");
    let actions = match target.writing {
        Writing::Upsert(_) => format!(
            "SELECT t.{POS} AS pos, CASE WHEN s.ctid IS NULL THEN {insert} ELSE {change} END AS kind
             FROM {stage} t LEFT JOIN {star} s ON {same}
             WHERE s.ctid IS NULL OR {differs}",
            star = target.quoted,
            differs = target.differs(),
        ),
        Writing::History { .. } => {
            let follows = "s.ctid IS NOT NULL";
            let is_first = format!("s.ctid IS NULL OR {}", target.differs());
            let newest = format!("FROM {stage} t LEFT JOIN (SELECT s.*, s.ctid FROM {}) s ON {same}", target.newest());
            match several {
                false => format!(
                    "SELECT t.{POS} AS pos, CASE WHEN {follows} THEN {change} ELSE {insert} END AS kind
                     {newest} WHERE {is_first}"
                ),
                true => format!(
                    "SELECT pos, kind FROM (
                         SELECT t.{POS} AS pos,
                                CASE WHEN {follows} OR lag(t.{POS}) OVER k IS NOT NULL THEN {change} ELSE {insert} END AS kind,
                                CASE WHEN lag(t.{POS}) OVER k IS NULL THEN {is_first}
                                     ELSE lag(ROW({row})::record) OVER k *<> ROW({row})::record END AS is_new
                         {newest} WINDOW k AS (PARTITION BY {key} ORDER BY t.{POS})) v
                     WHERE is_new",
                    row = target.typed("t."),
                    key = idents("t.", target.key.iter().map(|column| &column.name)),
                ),
            }
        }
    };
    format!(
        "WITH planned AS (
             INSERT INTO pg_temp.action (tbl, kind, pos) SELECT {number}, kind, pos FROM ({actions}) r RETURNING kind)
         SELECT count(*) FILTER (WHERE kind = {insert}), count(*) FILTER (WHERE kind = {change}),
                (SELECT count(*) FROM {stage}), (SELECT count(*) FROM {stage} WHERE {POS} >> 32 <> {batch})
         FROM planned"
    )
}

/// Counts the rows at the places `$1` that are new, that have changed, and that came out of quarantine.
pub(crate) fn count_rejected(target: &Target<'_>, batch: u64) -> String {
    let (insert, change) = (Action::Insert as i16, Action::Change as i16);
    format!(
        "SELECT count(*) FILTER (WHERE kind = {insert}), count(*) FILTER (WHERE kind = {change}),
                count(*) FILTER (WHERE pos >> 32 <> {batch})
         FROM pg_temp.action WHERE tbl = {} AND pos = ANY ($1)",
        target.number
    )
}

/// Inserts the new rows.
pub(crate) fn insert(target: &Target<'_>) -> Statement {
    let begin = format!(
        "INSERT INTO {} ({}) SELECT {} {}",
        target.quoted,
        target.list(""),
        target.list("t."),
        from_stage(target)
    );
    of_stage(target, &[Action::Insert], begin, format!(" ORDER BY t.{POS}"))
}

/// Updates the changed rows. The key too: 1.0 and 1.00 are one key.
pub(crate) fn update(target: &Target<'_>) -> Statement {
    let set = target.columns.iter().map(|column| format!("{0} = t.{0}", ident(&column.name)));
    let deleted = target.star.marks_deletions().then(|| format!("{DELETED_AT} = NULL"));
    change(target, &set.chain(deleted).collect::<Vec<_>>())
}

/// Sets columns of the changed rows `s`, each from its staged row `t`.
fn change(target: &Target<'_>, set: &[String]) -> Statement {
    let (set, from, same) = (set.join(", "), from_stage(target), target.same_key("s", "t"));
    let begin = format!("UPDATE {} s SET {set} {from}{same} AND ", target.quoted);
    of_stage(target, &[Action::Change], begin, String::new())
}

/// Empties columns of the changed rows, one of each further unique key: so they can exchange values, which Postgres compares row by
/// row. `None` if the table has no such key, or none with a column that may be NULL.
pub(crate) fn vacate(target: &Target<'_>) -> Option<Statement> {
    let Writing::Upsert(own) = target.writing else { return None };
    // Not what a foreign key refers to: ON UPDATE CASCADE would empty the other table too.
    let is_free = |name: &&String| {
        !own.contains(name)
            && !target.star.referenced.contains(*name)
            && target.star.column(name).is_some_and(|column| !column.not_null)
    };
    let keys = target.star.further_keys(own, &target.columns).into_iter();
    let columns: BTreeSet<_> = keys.filter_map(|key| key.columns.iter().find(is_free)).collect();
    let set: Vec<_> = columns.into_iter().map(|name| format!("{} = NULL", ident(name))).collect();
    (!set.is_empty()).then(|| change(target, &set))
}

/// Adds versions to a history, and notes which batch brought each.
pub(crate) fn add_versions(target: &Target<'_>, record: &str, batch: u64) -> Statement {
    let record = ident(record);
    let begin = format!(
        "WITH written AS (INSERT INTO {} ({}) SELECT {} {}",
        target.quoted,
        target.list(""),
        target.list("t."),
        from_stage(target)
    );
    let end = format!(
        " ORDER BY t.{POS} RETURNING {record})
         INSERT INTO blackwater.version (star_schema, star_table, record, batch)
         SELECT {}, {}, w.{record}, {batch} FROM written w",
        literal(target.schema),
        literal(target.name),
    );
    of_stage(target, &[Action::Insert, Action::Change], begin, end)
}

/// Notes for the versions that are not the newest of their key any more that a batch brought the next. Versions are in the order of
/// their numbers.
pub(crate) fn supersede(target: &Target<'_>, record: &str, batch: u64) -> String {
    let record = ident(record);
    format!(
        "UPDATE blackwater.version o SET superseded = {batch}
         FROM (
             SELECT s.{record} AS record, lead(s.{record}) OVER (PARTITION BY {key} ORDER BY s.{record}) AS next
             FROM {newest} WHERE EXISTS (
                 SELECT FROM {stage} t JOIN pg_temp.action a ON a.pos = t.{POS}
                 WHERE a.tbl = {number} AND a.kind = {change} AND {same})) n
         WHERE o.star_schema = {schema} AND o.star_table = {table} AND o.record = n.record AND n.next IS NOT NULL",
        key = idents("s.", target.key.iter().map(|column| &column.name)),
        newest = target.newest(),
        stage = staging::name(target, Content::Rows),
        number = target.number,
        change = Action::Change as i16,
        same = target.same_key("s", "t"),
        schema = literal(target.schema),
        table = literal(target.name),
    )
}

/// Notes which rows of the star table are to be marked as deleted: those whose key is among the staged ones, or is not.
pub(crate) fn plan_deletions(target: &Target<'_>, content: Content, are_in: bool) -> String {
    let exists = if are_in { "EXISTS" } else { "NOT EXISTS" };
    let key = |column: &crate::catalogue::Column| format!("t.{}", ident(&column.name));
    format!(
        "INSERT INTO pg_temp.action (tbl, kind, pos, place)
         SELECT {number}, {delete}, row_number() OVER (), s.ctid FROM {live}
         AND {exists} (SELECT FROM {keys} t WHERE {same})",
        number = target.number,
        delete = Action::Delete as i16,
        live = target.live(),
        keys = staging::keys(target, content),
        same = target.has_key(key, key),
    )
}

/// Marks the rows as deleted.
pub(crate) fn delete(target: &Target<'_>, at: DateTime<Utc>) -> Statement {
    let at = literal(&at.to_rfc3339_opts(SecondsFormat::Micros, true));
    let begin = format!(
        "UPDATE {} s SET {DELETED_AT} = {at} FROM pg_temp.action a WHERE s.ctid OPERATOR(pg_catalog.=) a.place AND ",
        target.quoted
    );
    let (end, indexes) = (String::new(), String::new());
    Statement { number: target.number, actions: &[Action::Delete], begin, end, indexes, is_of_stage: false }
}
