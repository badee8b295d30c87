//! What a star table would refuse, found by sets: one statement over all staged rows instead of a try for each.
//!
//! What these statements do not find, the star table itself refuses when it is written ([`crate::write`]).

use blackwater_shared::postgres::{ident, idents, literal};

use crate::catalogue::{Check, Column, Index, Writing};
use crate::error::Error;
use crate::quarantine::set_aside;
use crate::staging::{self, Content};
use crate::target::{POS, Target};
use crate::warehouse::Warehouse;

/// How often rows are looked for that are in the way of others because they stay as they were.
const ROUNDS: usize = 10;

/// Sets aside the staged rows that do not fit their columns or constraints.
pub(crate) async fn columns(warehouse: &Warehouse<'_>, target: &Target<'_>) -> Result<(), Error> {
    if let Some(bad) = sql::unfit(target) {
        set_aside::rows(warehouse, target, Content::Rows, &bad).await?;
    }
    if let Some(bad) = sql::nulls_and_checks(target) {
        // A condition may fail for a value. The star table is the judge then.
        warehouse.attempt(async || set_aside::rows(warehouse, target, Content::Rows, &bad).await).await?;
    }
    Ok(())
}

/// Sets aside the staged rows that are in the way of each other by a key, or of other rows by a further one.
pub(crate) async fn keys(warehouse: &Warehouse<'_>, target: &Target<'_>) -> Result<(), Error> {
    let doing = || warehouse.doing("compare the keys of", target);
    if !warehouse.query(doing(), &sql::has_repeated_keys(target), &[]).await?.is_empty() {
        warehouse.execute(doing(), &sql::drop_repeated_rows(target), &[]).await?;
        set_aside::rows(warehouse, target, Content::Rows, &sql::repeated_keys(target)).await?;
    }
    let Writing::Upsert(own) = target.writing else { return Ok(()) };
    for key in target.star.further_keys(own, &target.columns) {
        // What stays as it was may be in the way of others.
        let taken = sql::taken(target, key);
        for _ in 0..ROUNDS {
            if set_aside::rows(warehouse, target, Content::Rows, &taken).await? == 0 {
                break;
            }
        }
    }
    Ok(())
}

/// The queries: each returns (pos, why, reference) of the rows to set aside.
mod sql {
    use super::*;

    /// The rows in which one of several conditions holds, with the words for each.
    fn any(conditions: &[Condition], from: &str) -> String {
        let words: Vec<_> =
            conditions.iter().map(|Condition { holds, why }| format!("CASE WHEN {holds} THEN {why} END")).collect();
        let holds: Vec<_> = conditions.iter().map(|Condition { holds, .. }| format!("({holds})")).collect();
        format!(
            "SELECT {POS} AS pos, array_to_string(ARRAY[{}], '; ') AS why, NULL::jsonb AS reference FROM {from} WHERE {}",
            words.join(", "),
            holds.join(" OR ")
        )
    }

    /// A condition for which a row is set aside, and an expression for the reason.
    struct Condition {
        holds: String,
        why: String,
    }

    /// The rows that would be cut to the length or the digits of a column.
    pub(super) fn unfit(target: &Target<'_>) -> Option<String> {
        let unfit = |column: &&Column| {
            let value = format!("t.{}", ident(&column.name));
            let words = literal(&format!(" does not fit {}", column.declared));
            let name = literal(&format!("{}: ", column.name));
            let fits = column.base.fits(&value)?;
            Some(Condition {
                holds: format!("NOT ({fits})"),
                why: format!("{name} || left({value}::text, 100) || {words}"),
            })
        };
        let conditions: Vec<_> = target.columns.iter().filter_map(unfit).collect();
        let from = format!("{} t", staging::name(target, Content::Rows));
        (!conditions.is_empty()).then(|| any(&conditions, &from))
    }

    /// The rows with a NULL where there may be none, and those that a CHECK refuses which speaks of returned columns alone.
    pub(super) fn nulls_and_checks(target: &Target<'_>) -> Option<String> {
        let nulls = target.columns.iter().filter(|column| column.not_null).map(|column| Condition {
            holds: format!("{} IS NULL", ident(&column.name)),
            why: literal(&is_null(&column.name)),
        });
        let is_returned = |name: &String| target.columns.iter().any(|column| column.name == *name);
        let is_foreseen = |check: &&Check| {
            check.is_builtin && check.columns.as_ref().is_some_and(|columns| columns.iter().all(is_returned))
        };
        let checks = target.star.checks.iter().filter(is_foreseen).map(|check| Condition {
            holds: format!("NOT ({})", check.expression),
            why: literal(&is_refused_by(check)),
        });
        let conditions: Vec<_> = nulls.chain(checks).collect();
        (!conditions.is_empty()).then(|| any(&conditions, &format!("{} t", rows_as_declared(target))))
    }

    /// The staged rows with their columns in the star table's own types, for a FROM clause.
    fn rows_as_declared(target: &Target<'_>) -> String {
        let typed = |column: &&Column| {
            let name = ident(&column.name);
            if column.staged() == column.declared { name } else { format!("{name}::{} AS {name}", column.declared) }
        };
        let columns: Vec<_> = target.columns.iter().map(typed).collect();
        format!("(SELECT {POS}, {} FROM {})", columns.join(", "), staging::name(target, Content::Rows))
    }

    /// The columns within which a key occurs once: those of the key, and the batch.
    fn within(target: &Target<'_>) -> String {
        format!("{}, t.{POS} >> 32", idents("t.", target.key.iter().map(|column| &column.name)))
    }

    pub(super) fn has_repeated_keys(target: &Target<'_>) -> String {
        let rows = rows_as_declared(target);
        format!("SELECT FROM {rows} t GROUP BY {} HAVING count(*) > 1 LIMIT 1", within(target))
    }

    /// Drops all but one of the rows that are equal.
    pub(super) fn drop_repeated_rows(target: &Target<'_>) -> String {
        format!(
            "DELETE FROM {stage} WHERE {POS} IN (
                 SELECT a.{POS} FROM {rows} a JOIN {rows} b ON {same} AND a.{POS} > b.{POS} AND a.{POS} >> 32 = b.{POS} >> 32
                 WHERE NOT (ROW({one})::record *<> ROW({other})::record))",
            stage = staging::name(target, Content::Rows),
            rows = rows_as_declared(target),
            same = target.same_key("a", "b"),
            one = target.list("a."),
            other = target.list("b."),
        )
    }

    pub(super) fn repeated_keys(target: &Target<'_>) -> String {
        format!(
            "SELECT pos, 'the key occurs ' || n || ' times, with different rows' AS why, NULL::jsonb AS reference
             FROM (SELECT t.{POS} AS pos, count(*) OVER (PARTITION BY {}) AS n FROM {} t) t WHERE n > 1",
            within(target),
            rows_as_declared(target)
        )
    }

    /// The rows that would agree in a further unique key with another row: of the star table, less those that are written
    /// now, or of these. They are tried again when the star table changes.
    pub(super) fn taken(target: &Target<'_>, key: &Index) -> String {
        let equal = |name: &String| {
            let quoted = ident(name);
            let (other, ours) = (format!("o.{quoted}"), format!("t.{quoted}"));
            target.star.column(name).map_or_else(|| format!("{other} = {ours}"), |column| column.equal(&other, &ours))
        };
        let equal: Vec<_> = key.columns.iter().map(equal).collect();
        let shown =
            key.columns.iter().map(|name| format!("{} || t.{}::text", literal(&format!("{name} = ")), ident(name)));
        let row = format!(
            "SELECT t.{POS} AS pos, {shown} || ' is taken, by the unique key ' || {name} AS why,
                    jsonb_build_object('constraint', {name}) AS reference
             FROM {rows} t",
            shown = shown.collect::<Vec<_>>().join(" || ', ' || "),
            name = literal(&key.name),
            rows = rows_as_declared(target),
        );
        // Each a join: an EXISTS over both would be asked for every row.
        format!(
            "SELECT DISTINCT ON (pos) * FROM (
                 {row} WHERE EXISTS (SELECT FROM {rows} o WHERE {equal} AND NOT ({same}))
                 UNION ALL
                 {row} WHERE EXISTS (
                     SELECT FROM {star} o WHERE {equal} AND NOT ({same})
                     AND NOT EXISTS (SELECT FROM {rows} n WHERE {now}))) q",
            rows = rows_as_declared(target),
            star = target.quoted,
            equal = equal.join(" AND "),
            same = target.same_key("o", "t"),
            now = target.same_key("o", "n"),
        )
    }
}

/// Why a NULL is refused.
pub(crate) fn is_null(column: &str) -> String {
    format!("{column} is NULL, and the column is NOT NULL")
}

/// Why a CHECK refuses a row.
pub(crate) fn is_refused_by(check: &Check) -> String {
    format!("the CHECK constraint {} refuses it: {}", check.name, check.expression)
}
