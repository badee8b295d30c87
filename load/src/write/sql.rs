//! The statements that compare staged rows with a star table, and those that write them.
//!
//! The first run while names are Postgres' own; the others run under the search path of the warehouse's own triggers and
//! constraints, so they name no function, and no operator but by its schema.

use std::collections::BTreeSet;

use blackwater_shared::postgres::{ident, idents, literal};
use chrono::{DateTime, SecondsFormat, Utc};

use crate::catalogue::{DELETED_AT, VALID_FROM, VALID_TO, Writing};
use crate::staging::{self, Content};
use crate::target::{POS, Target};

/// What is done with a row, as `pg_temp.action` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// It is new; of a history the first version of its key.
    Insert = 1,
    /// It has changed; of a history it closes the open version of its key.
    Change = 2,
    /// It is marked as deleted.
    Delete = 3,
    /// It follows another version of its key that is written with it.
    Follow = 4,
    /// It has changed, and was marked as deleted.
    Revive = 5,
}

/// The actions that replace a row.
const REPLACE: &[Action] = &[Action::Change, Action::Revive];

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
    /// The statement that closes the versions which the rows follow. Postgres looks at a unique key row by row, so the two cannot
    /// be one.
    close: Option<Box<Statement>>,
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

    /// The statement that comes first, for the same rows.
    pub(crate) fn close(&self, low: &str, high: &str) -> Option<String> {
        self.close.as_ref().map(|close| close.sql(low, high))
    }

    /// Whether it marks rows as deleted.
    pub(crate) fn deletes(&self) -> bool {
        self.actions == [Action::Delete]
    }

    /// Whether it only replaces rows, which may exchange values then.
    pub(crate) fn only_changes(&self) -> bool {
        self.actions == REPLACE
    }

    /// The statements that make it quick for few rows.
    pub(crate) fn indexes(&self) -> String {
        format!("CREATE INDEX IF NOT EXISTS action_pos ON pg_temp.action (pos){}", self.indexes)
    }
}

/// A statement that reads the staged rows of a table, by their actions.
fn of_stage(target: &Target<'_>, actions: &'static [Action], begin: String, end: String) -> Statement {
    let (stage, number) = (staging::name(target, Content::Rows), target.number);
    // An index is in the schema of its table, where another star schema's staging tables may be too.
    let index = stage.rsplit('.').next().unwrap_or_default();
    let indexes = format!("; CREATE INDEX IF NOT EXISTS {index}_pos ON {stage} ({POS})");
    Statement { number, actions, begin, end, indexes, is_of_stage: true, close: None }
}

/// The staged rows `t` with their actions, for a FROM clause and the condition after it.
fn from_stage(target: &Target<'_>) -> String {
    let stage = staging::name(target, Content::Rows);
    format!("FROM {stage} t JOIN pg_temp.action a ON a.pos OPERATOR(pg_catalog.=) t.{POS} WHERE ")
}

/// The condition that the row `s` of the star table is what the staged row `t` is compared with, and replaces or follows: that of its key,
/// of a history the open version.
fn same_row(target: &Target<'_>) -> String {
    let same = target.same_key("s", "t");
    match target.writing {
        Writing::Upsert(_) => same,
        Writing::History => format!("{same} AND s.{VALID_TO} IS NULL"),
    }
}

/// Notes what is to be done with each staged row, and returns how many rows are new, changed and revived, how many are staged, and how
/// many of these came out of quarantine. `several` says that a key may occur with several batches; `at` is the batch's time.
pub(crate) fn plan(target: &Target<'_>, several: bool, (batch, at): (u64, DateTime<Utc>)) -> String {
    let stage = staging::name(target, Content::Rows);
    let (number, insert, change) = (target.number, Action::Insert as i16, Action::Change as i16);
    let same = same_row(target);
    let (revive, never) = (Action::Revive as i16, "NULL::timestamptz");
    let actions = match target.writing {
        Writing::Upsert(_) => format!(
            "SELECT t.{POS} AS pos, CASE WHEN s.ctid IS NULL THEN {insert} {revive} ELSE {change} END AS kind, {never}, {never}
             FROM {stage} t LEFT JOIN {star} s ON {same}
             WHERE s.ctid IS NULL OR {differs}",
            star = target.quoted,
            differs = target.differs(),
            revive = match target.star.marks_deletions() {
                true => format!("WHEN s.{DELETED_AT} IS NOT NULL THEN {revive}"),
                false => String::new(),
            },
        ),
        Writing::History => {
            let open = format!("FROM {stage} t LEFT JOIN {} s ON {same}", target.quoted);
            // Something else may have written an open version that begins later.
            let own = format!("greatest({}::timestamptz, s.{VALID_FROM} + interval '1 microsecond')", time(at));
            match several {
                false => format!(
                    "SELECT t.{POS} AS pos, CASE WHEN s.ctid IS NULL THEN {insert} ELSE {change} END AS kind, {own}, {never}
                     {open} WHERE s.ctid IS NULL OR {differs}",
                    differs = target.differs()
                ),
                // Each from the time of the batch that brought it. One that waited and is not after the open version comes too late.
                true => format!(
                    "SELECT pos, CASE WHEN lag(pos) OVER k IS NOT NULL THEN {follow}
                                      WHEN is_first THEN {insert} ELSE {change} END AS kind,
                            since, lead(since) OVER k
                     FROM (
                         SELECT t.{POS} AS pos, min(t.{POS}) OVER (PARTITION BY {key}) AS of_key, e.since,
                                s.ctid IS NULL AS is_first,
                                CASE WHEN lag(t.{POS}) OVER k IS NULL THEN s.ctid IS NULL OR {differs}
                                     ELSE lag(ROW({row})::record) OVER k *<> ROW({row})::record END AS is_new
                         {open} CROSS JOIN LATERAL (SELECT CASE WHEN t.{POS} >> 32 = {batch} THEN {own} ELSE (
                             SELECT l.effective_at FROM blackwater.ledger l
                             WHERE l.star_schema = {schema} AND l.batch = t.{POS} >> 32) END) e (since)
                         WHERE s.ctid IS NULL OR s.{VALID_FROM} < e.since OR t.{POS} >> 32 = {batch}
                         WINDOW k AS (PARTITION BY {key} ORDER BY t.{POS})) v
                     WHERE is_new WINDOW k AS (PARTITION BY of_key ORDER BY pos)",
                    follow = Action::Follow as i16,
                    differs = target.differs(),
                    row = target.typed("t."),
                    key = idents("t.", target.key.iter().map(|column| &column.name)),
                    schema = literal(target.schema),
                ),
            }
        }
    };
    format!(
        "WITH planned AS (
             INSERT INTO pg_temp.action (tbl, pos, kind, since, until)
             SELECT {number}, r.* FROM ({actions}) r RETURNING kind)
         SELECT count(*) FILTER (WHERE kind = {insert}), count(*) FILTER (WHERE kind <> {insert}),
                count(*) FILTER (WHERE kind = {revive}),
                (SELECT count(*) FROM {stage}), (SELECT count(*) FROM {stage} WHERE {POS} >> 32 <> {batch})
         FROM planned"
    )
}

/// Counts the rows at the places `$1` that are new, that have changed, that were deleted, and that came out of quarantine.
pub(crate) fn count_rejected(target: &Target<'_>, batch: u64) -> String {
    let (insert, revive) = (Action::Insert as i16, Action::Revive as i16);
    format!(
        "SELECT count(*) FILTER (WHERE kind = {insert}), count(*) FILTER (WHERE kind <> {insert}),
                count(*) FILTER (WHERE kind = {revive}),
                count(*) FILTER (WHERE pos >> 32 <> {batch})
         FROM pg_temp.action WHERE tbl = {} AND pos = ANY ($1)",
        target.number
    )
}

/// The query for a staged row whose key the star table has.
pub(super) fn known_row(target: &Target<'_>) -> String {
    let (stage, same) = (staging::name(target, Content::Rows), same_row(target));
    format!("SELECT FROM {stage} t JOIN {} s ON {same} LIMIT 1", target.quoted)
}

/// Counts the staged rows.
pub(super) fn count_staged(target: &Target<'_>) -> String {
    format!("SELECT count(*) FROM {}", staging::name(target, Content::Rows))
}

/// Inserts all staged rows, in their order: that in which they were staged.
pub(super) fn insert_all(target: &Target<'_>, at: DateTime<Utc>) -> String {
    let (into, values) = match target.writing {
        Writing::History => (format!(", {VALID_FROM}"), format!(", {}", time(at))),
        Writing::Upsert(_) => (String::new(), String::new()),
    };
    format!(
        "INSERT INTO {} ({}{into}) SELECT {}{values} FROM {} t",
        target.quoted,
        target.list(""),
        target.list("t."),
        staging::name(target, Content::Rows)
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

/// Sets columns of the rows `s` that the changed ones replace or follow, each from its staged row `t` and its action `a`.
fn change(target: &Target<'_>, set: &[String]) -> Statement {
    let (set, from, same) = (set.join(", "), from_stage(target), same_row(target));
    let begin = format!("UPDATE {} s SET {set} {from}{same} AND ", target.quoted);
    of_stage(target, REPLACE, begin, String::new())
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

/// Adds versions to a history, and closes those that they follow.
pub(crate) fn add_versions(target: &Target<'_>) -> Statement {
    let begin = format!(
        "INSERT INTO {} ({}, {VALID_FROM}, {VALID_TO}) SELECT {}, a.since, a.until {}",
        target.quoted,
        target.list(""),
        target.list("t."),
        from_stage(target)
    );
    let actions = &[Action::Insert, Action::Change, Action::Follow];
    let close = change(target, &[format!("{VALID_TO} = a.since")]);
    Statement { close: Some(close.into()), ..of_stage(target, actions, begin, format!(" ORDER BY t.{POS}")) }
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

/// Marks the rows as deleted; closes the versions of a history.
pub(crate) fn delete(target: &Target<'_>, at: DateTime<Utc>) -> Statement {
    let closed = (target.writing == Writing::History).then_some(VALID_TO);
    let marked = target.star.marks_deletions().then_some(DELETED_AT);
    let set: Vec<_> = [closed, marked].into_iter().flatten().map(|column| format!("{column} = {}", time(at))).collect();
    let begin = format!(
        "UPDATE {} s SET {} FROM pg_temp.action a WHERE s.ctid OPERATOR(pg_catalog.=) a.place AND ",
        target.quoted,
        set.join(", ")
    );
    let (end, indexes) = (String::new(), String::new());
    let number = target.number;
    Statement { number, actions: &[Action::Delete], begin, end, indexes, is_of_stage: false, close: None }
}

/// A time, in SQL.
fn time(at: DateTime<Utc>) -> String {
    literal(&at.to_rfc3339_opts(SecondsFormat::Micros, true))
}
