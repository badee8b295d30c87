//! Rows that refer to rows which are not there: who waits, and who need wait no longer.
//!
//! A row waits when a foreign key of it finds no row, neither in the other table nor among the staged rows that are not
//! waiting themselves. Each key that it lacks is a line of `blackwater.waiting_for`, so that the arrival of one row finds
//! those that wait for it by an index, whatever else waits.
//!
//! Tables are written in the order of their foreign keys, so what a row refers to is there when the row is judged. Only
//! within a group, a table that refers to itself or several that refer to each other, staged rows count for staged rows.

use std::collections::BTreeSet;

use blackwater_shared::postgres::{ident, literal};

use crate::catalogue::{Column, Reference};
use crate::error::Error;
use crate::quarantine::set_aside;
use crate::staging::{self, Content};
use crate::target::{POS, Target};
use crate::warehouse::{MANY, Warehouse};

/// The temporary tables that hold a batch's woken entries, missing references and planned actions.
pub(crate) const TABLES: &str = "
    CREATE TEMPORARY TABLE woken (tbl smallint NOT NULL, entry bigint NOT NULL) ON COMMIT DROP;
    CREATE TEMPORARY TABLE need (
        tbl smallint NOT NULL, pos bigint NOT NULL, ref smallint NOT NULL, constraint_name text NOT NULL,
        key text[] NOT NULL, why text NOT NULL, reference jsonb NOT NULL) ON COMMIT DROP;
    CREATE TEMPORARY TABLE action (
        tbl smallint NOT NULL, kind smallint NOT NULL, pos bigint NOT NULL, place tid,
        since timestamptz, until timestamptz) ON COMMIT DROP";

/// Which entries of the quarantine are looked at.
#[derive(Clone, Copy)]
pub(crate) struct Waking<'a> {
    /// The star tables that got new rows with this batch.
    pub(crate) grown: &'a BTreeSet<String>,
    /// Whether every line is compared with what is there: something else may have written to a star table.
    pub(crate) all_lines: bool,
    /// Whether every entry is tried: the star tables may take now what they refused.
    pub(crate) all_entries: bool,
}

/// Finds the entries of a group's tables that need wait no longer, and takes them into the staging tables: whether there
/// were any.
pub(crate) async fn wake(warehouse: &Warehouse<'_>, group: &[&Target<'_>], waking: Waking<'_>) -> Result<bool, Error> {
    let doing = |target: &Target<'_>| warehouse.doing("find quarantined rows whose reference has arrived in", target);
    let mut woken = 0;
    let mut waits = false;
    for target in group {
        let lines = warehouse.query(doing(target), &sql::is_waiting(target), &[]).await?;
        waits |= !lines.is_empty();
        for (_, reference) in target.references().filter(|_| !lines.is_empty()) {
            let inside = reference.star_table.as_deref();
            if waking.all_lines || inside.is_none_or(|name| waking.grown.contains(name)) {
                // A column may have got a type since that a key, as it was, does not fit.
                let found = sql::wake_by_key(target, reference);
                let found = warehouse.attempt(async || warehouse.execute(doing(target), &found, &[]).await).await?;
                woken += found.unwrap_or(0);
            }
        }
        // Who refers to one row alone waits for no other.
        if woken > 0 && target.star.references.len() > 1 {
            warehouse.execute(doing(target), &sql::still_waiting(target), &[]).await?;
        }
        let refers_to_new = target
            .references()
            .any(|(_, reference)| reference.star_table.as_ref().is_some_and(|name| waking.grown.contains(name)));
        if waking.all_entries || refers_to_new || !target.table.objects.is_empty() {
            woken += warehouse
                .execute(doing(target), &sql::wake_by_table(target, waking.all_entries, warehouse.batch), &[])
                .await?;
        }
    }
    let refer_within = group.iter().any(|target| target.inner_references(group).next().is_some());
    if waits && refer_within {
        let inner = sql::wake_within(group);
        let found = warehouse.attempt(async || warehouse.execute(doing(group[0]), &inner, &[]).await).await?;
        woken += found.unwrap_or(0);
    }
    let mut taken = 0;
    if woken >= MANY {
        warehouse.run(doing(group[0]), "ANALYZE pg_temp.woken").await?;
    }
    if woken > 0 {
        for target in group {
            taken += staging::take_entries(warehouse, target, refer_within || waking.all_entries).await?;
        }
    }
    Ok(taken > 0)
}

/// Sets aside the staged rows of a group that must wait: their number.
pub(crate) async fn hold_back(warehouse: &Warehouse<'_>, group: &[&Target<'_>]) -> Result<u64, Error> {
    let doing = |target: &Target<'_>| warehouse.doing("find rows whose reference is missing in", target);
    warehouse.execute(doing(group[0]), "DELETE FROM pg_temp.need", &[]).await?;
    let mut needs = 0;
    for target in group {
        if let Some(missing) = sql::missing(target) {
            needs += warehouse.execute(doing(target), &missing, &[]).await?;
        }
    }
    if needs >= MANY {
        warehouse.run(doing(group[0]), "ANALYZE pg_temp.need").await?;
    }
    if needs > 0 && group.iter().any(|target| target.inner_references(group).next().is_some()) {
        warehouse.execute(doing(group[0]), &sql::drop_provided(group), &[]).await?;
    }
    let mut waiting = 0;
    if needs > 0 {
        for target in group {
            waiting += set_aside::waiting(warehouse, target).await?;
        }
    }
    Ok(waiting)
}

/// The statements.
mod sql {
    use super::*;

    /// The key that a row `row` refers to, or that it offers, as `waiting_for` has it: the texts of its columns.
    fn key<'c>(columns: impl Iterator<Item = (&'c String, Option<&'c Column>)>, row: &str) -> String {
        let text = |(name, column): (&String, Option<&Column>)| {
            let value = format!("{row}.{}", ident(name));
            column.map_or_else(|| format!("{value}::text"), |column| column.match_text(&value))
        };
        format!("ARRAY[{}]", columns.map(text).collect::<Vec<_>>().join(", "))
    }

    /// The key that the row `row` refers to. Equal keys have one text, also where case does not count in one of the two.
    fn wanted(target: &Target<'_>, reference: &Reference, row: &str) -> String {
        key(reference.columns.iter().map(|name| (name, target.star.column(name))), row)
    }

    /// The key that the row `row` of `owner` offers to rows of `target`. Texts are compared as in the referring column.
    fn offered(target: &Target<'_>, reference: &Reference, row: &str) -> String {
        let columns = reference.their_columns.iter().zip(&reference.columns);
        key(columns.map(|(their, ours)| (their, target.star.column(ours))), row)
    }

    fn of_reference(target: &Target<'_>, reference: &Reference, w: &str) -> String {
        format!("{} AND {w}.constraint_name = {}", target.of_table(w), literal(&reference.constraint))
    }

    /// Whether something of a star table waits for a key.
    pub(super) fn is_waiting(target: &Target<'_>) -> String {
        format!("SELECT FROM blackwater.waiting_for w WHERE {} LIMIT 1", target.of_table("w"))
    }

    /// Ends the lines whose key is there.
    pub(super) fn wake_by_key(target: &Target<'_>, reference: &Reference) -> String {
        let of_reference = of_reference(target, reference, "w");
        let equal = |(place, (their, name)): (usize, (&String, &String))| {
            let kind = target.star.column(name).map_or("text".into(), |column| column.compared().to_string());
            let operator = &reference.operators[place];
            format!("d.{} {operator} (k.key[{}])::{kind}", ident(their), place + 1)
        };
        let pairs = reference.their_columns.iter().zip(&reference.columns);
        let equal: Vec<_> = pairs.enumerate().map(equal).collect();
        format!(
            "WITH awaited AS MATERIALIZED (SELECT DISTINCT w.key FROM blackwater.waiting_for w WHERE {of_reference}),
             there AS MATERIALIZED (
                 SELECT k.key FROM awaited k WHERE EXISTS (SELECT FROM {table} d WHERE {equal})),
             line AS (
                 DELETE FROM blackwater.waiting_for w USING there k WHERE {of_reference} AND w.key = k.key
                 RETURNING w.entry)
             INSERT INTO pg_temp.woken SELECT DISTINCT {number}, entry FROM line",
            table = reference.table,
            equal = equal.join(" AND "),
            number = target.number,
        )
    }

    /// Leaves the entries asleep that wait for another key too.
    pub(super) fn still_waiting(target: &Target<'_>) -> String {
        format!(
            "DELETE FROM pg_temp.woken w WHERE w.tbl = {} AND EXISTS (SELECT FROM blackwater.waiting_for f WHERE f.entry = w.entry)",
            target.number
        )
    }

    /// Wakes what another row was in the way of, or every entry with a row; but not what this batch has just set aside.
    pub(super) fn wake_by_table(target: &Target<'_>, all: bool, batch: u64) -> String {
        let which = match all {
            true => "true",
            false => "q.reference ? 'constraint' AND NOT q.reference ? 'table'",
        };
        format!(
            "INSERT INTO pg_temp.woken
             SELECT {}, q.id FROM blackwater.quarantine q
             WHERE {} AND q.batch < {batch} AND NOT q.discarded AND q.star_row IS NOT NULL AND {which}",
            target.number,
            target.of_table("q")
        )
    }

    /// Wakes the entries that staged rows of their group set free, and those that these set free in turn.
    pub(super) fn wake_within(group: &[&Target<'_>]) -> String {
        let (mut first, mut next) = (Vec::new(), Vec::new());
        for target in group {
            for (_, reference) in target.inner_references(group) {
                let Some(owner) = group.iter().find(|other| Some(other.name) == reference.star_table.as_deref()) else {
                    continue;
                };
                first.push(format!(
                    "SELECT {number}::smallint, w.entry FROM blackwater.waiting_for w
                     WHERE {of_reference} AND w.key IN (SELECT {offered} FROM {stage} t)",
                    number = target.number,
                    of_reference = of_reference(target, reference, "w"),
                    offered = offered(target, reference, "t"),
                    stage = staging::name(owner, Content::Rows),
                ));
                let text = |(their, ours): (&String, &String)| {
                    let value = format!("(q.star_row->>{})", literal(their));
                    target.star.column(ours).map_or_else(|| value.clone(), |column| column.match_text(&value))
                };
                let texts: Vec<_> = reference.their_columns.iter().zip(&reference.columns).map(text).collect();
                next.push(format!(
                    "({number}::smallint, {table}, {constraint}, CASE WHEN q.star_table = {owner} THEN ARRAY[{texts}] END)",
                    number = target.number,
                    table = literal(target.name),
                    constraint = literal(&reference.constraint),
                    owner = literal(owner.name),
                    texts = texts.join(", "),
                ));
            }
        }
        let numbers = numbers(group);
        format!(
            "WITH RECURSIVE up (tbl, entry) AS (
                 (SELECT w.tbl, w.entry FROM pg_temp.woken w WHERE w.tbl IN ({numbers}) UNION {first})
                 UNION
                 SELECT p.tbl, w.entry
                 FROM up JOIN blackwater.quarantine q ON q.id = up.entry AND NOT q.discarded
                 CROSS JOIN LATERAL (VALUES {next}) AS p (tbl, star_table, constraint_name, key)
                 JOIN blackwater.waiting_for w ON w.star_schema = {schema} AND w.star_table = p.star_table
                     AND w.constraint_name = p.constraint_name AND w.key = p.key)
             INSERT INTO pg_temp.woken
             SELECT up.tbl, up.entry FROM up
             WHERE NOT EXISTS (SELECT FROM pg_temp.woken w WHERE (w.tbl, w.entry) = (up.tbl, up.entry))",
            first = first.join(" UNION "),
            next = next.join(", "),
            schema = literal(group[0].schema),
        )
    }

    fn numbers(group: &[&Target<'_>]) -> String {
        group.iter().map(|target| target.number.to_string()).collect::<Vec<_>>().join(", ")
    }

    /// Notes in `pg_temp.need` what the staged rows refer to and the other table has not. `None` if there are no foreign keys.
    pub(super) fn missing(target: &Target<'_>) -> Option<String> {
        let missing = |(ref_, reference): (i16, &Reference)| {
            let pairs: Vec<_> = reference.columns.iter().zip(&reference.their_columns).collect();
            let each = |of: &dyn Fn(usize, &str, &str) -> String, between: &str| {
                let each = pairs.iter().enumerate().map(|(place, (column, their))| of(place, column, their));
                each.collect::<Vec<_>>().join(between)
            };
            let is_returned = |name: &String| target.columns.iter().any(|column| column.name == *name);
            if !reference.columns.iter().all(is_returned) {
                return None;
            }
            // Two columns of different collations cannot be compared; that of the key's own column counts.
            let typed = |name: &str| match target.star.column(name) {
                Some(column) if column.staged() != column.declared => {
                    format!("(t.{}::{}{})", ident(name), column.declared, column.collation)
                }
                Some(column) if !column.collation.is_empty() => format!("(t.{}{})", ident(name), column.collation),
                _ => format!("t.{}", ident(name)),
            };
            Some(format!(
                "SELECT {number}, t.{POS}, {ref_}, {constraint}, {key},
                        {shown} || ' is not in ' || {words},
                        jsonb_build_object('constraint', {constraint}, 'table', {words}, 'key', jsonb_build_object({keys}))
                 FROM {stage} t WHERE {given} AND NOT EXISTS (SELECT FROM {table} d WHERE {equal})",
                number = target.number,
                constraint = literal(&reference.constraint),
                key = wanted(target, reference, "t"),
                shown = each(
                    &|_, column, _| {
                        let value = format!("t.{}", ident(column));
                        let text = target.star.column(column).map_or(value.clone(), |column| column.key_text(&value));
                        format!("{} || {text}", literal(&format!("{column} = ")))
                    },
                    " || ', ' || "
                ),
                words = literal(&reference.table),
                keys = each(&|_, column, their| format!("{}, t.{}::text", literal(their), ident(column)), ", "),
                stage = staging::name(target, Content::Rows),
                given = each(&|_, column, _| format!("t.{} IS NOT NULL", ident(column)), " AND "),
                table = reference.table,
                equal = each(
                    &|place, column, their| {
                        format!("d.{} {} {}", ident(their), reference.operators[place], typed(column))
                    },
                    " AND "
                ),
            ))
        };
        let missing: Vec<_> = target.references().filter_map(missing).collect();
        (!missing.is_empty()).then(|| format!("INSERT INTO pg_temp.need {}", missing.join(" UNION ALL ")))
    }

    /// Forgets the needs that staged rows of the group meet which do not wait themselves. Who waits is found from the bottom:
    /// first those that nobody offers their key, then those whose key such a row offers. A circle is free.
    pub(super) fn drop_provided(group: &[&Target<'_>]) -> String {
        let mut offers = Vec::new();
        for target in group {
            for (ref_, reference) in target.inner_references(group) {
                let Some(owner) = group.iter().find(|other| Some(other.name) == reference.star_table.as_deref()) else {
                    continue;
                };
                offers.push(format!(
                    "SELECT {tbl}::smallint, {ref_}::smallint, {offered}, {by}::smallint, t.{POS} FROM {stage} t
                     WHERE {offered} IN (SELECT key FROM pg_temp.need WHERE tbl = {tbl} AND ref = {ref_})",
                    tbl = target.number,
                    offered = offered(target, reference, "t"),
                    by = owner.number,
                    stage = staging::name(owner, Content::Rows),
                ));
            }
        }
        format!(
            "WITH RECURSIVE offer (tbl, ref, key, by_tbl, by_pos) AS MATERIALIZED ({offers}),
             blocked (tbl, pos) AS (
                 SELECT n.tbl, n.pos FROM pg_temp.need n
                 WHERE NOT EXISTS (SELECT FROM offer o WHERE (o.tbl, o.ref, o.key) = (n.tbl, n.ref, n.key))
                 UNION
                 SELECT n.tbl, n.pos FROM blocked b JOIN offer o ON (o.by_tbl, o.by_pos) = (b.tbl, b.pos)
                 JOIN pg_temp.need n ON (n.tbl, n.ref, n.key) = (o.tbl, o.ref, o.key))
             DELETE FROM pg_temp.need n USING offer o
             WHERE (o.tbl, o.ref, o.key) = (n.tbl, n.ref, n.key)
               AND NOT EXISTS (SELECT FROM blocked b WHERE (b.tbl, b.pos) = (o.by_tbl, o.by_pos))",
            offers = offers.join(" UNION ALL "),
        )
    }
}
