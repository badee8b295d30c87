//! The quarantine: rows that a star table refuses, or that refer to rows which are not there. They wait in
//! `blackwater.quarantine` until their key comes right or is gone.

pub(crate) mod set_aside;

use std::collections::{BTreeMap, BTreeSet};

use blackwater_shared::postgres::{Doing, literal};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

pub(crate) use set_aside::Rejected;

use crate::error::Error;
use crate::staging::{self, Content};
use crate::target::{POS, Target};
use crate::warehouse::{Parameters, Warehouse};

/// A row that is set aside.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// The star table.
    pub table: String,
    /// The row's key: the columns and their values, as text.
    pub key: Value,
    /// The batch that brought it.
    pub batch: u64,
    /// The source's time of the batch's snapshot.
    pub since: DateTime<Utc>,
    /// Why it is here.
    pub reason: String,
    /// The row that it refers to and that is missing, if that is the reason: constraint, table, key. Or the unique key that
    /// another row is in the way of: constraint.
    pub reference: Option<Value>,
    /// The star row, its values as text; `None` if it could not be made.
    pub star_row: Option<Value>,
}

const ENTRIES: &str = "
    SELECT q.star_table, q.key, q.batch, l.snapshot_at, q.reason, q.reference, q.star_row
    FROM blackwater.quarantine q JOIN blackwater.ledger l USING (star_schema, batch)
    WHERE q.star_schema = $1 AND ($2 OR NOT q.discarded)
    ORDER BY q.star_table, q.batch, q.id";

/// The rows that are set aside, with those that were discarded or without.
pub(crate) async fn entries(client: &Client, star_schema: &str, discarded: bool) -> Result<Vec<Entry>, Error> {
    let rows = client.query(ENTRIES, &[&star_schema, &discarded]).await.doing("read the quarantine")?;
    let entry = |row: &tokio_postgres::Row| Entry {
        table: row.get(0),
        key: row.get(1),
        batch: row.get::<_, i64>(2) as u64,
        since: row.get(3),
        reason: row.get(4),
        reference: row.get(5),
        star_row: row.get(6),
    };
    Ok(rows.iter().map(entry).collect())
}

/// How many rows of each star table are set aside.
pub(crate) async fn by_table(client: &Client, star_schema: &str) -> Result<BTreeMap<String, u64>, Error> {
    let sql = "SELECT star_table, count(*) FROM blackwater.quarantine
               WHERE star_schema = $1 AND NOT discarded GROUP BY star_table";
    let rows = client.query(sql, &[&star_schema]).await.doing("count the rows in quarantine")?;
    Ok(rows.iter().map(|row| (row.get(0), row.get::<_, i64>(1) as u64)).collect())
}

/// Leaves the rows of a key out from now on: they count as known, and are shown and tried no more.
pub(crate) async fn discard(client: &Client, star_schema: &str, table: &str, key: &Value) -> Result<u64, Error> {
    let sql = "UPDATE blackwater.quarantine SET discarded = true
               WHERE star_schema = $1 AND star_table = $2 AND key = $3 AND NOT discarded";
    let discarded = client.execute(sql, &[&star_schema, &table, &key]).await;
    Ok(discarded.doing(format!("discard a row of {table} from quarantine"))?)
}

/// Those of the star tables of which something is in quarantine, or known as filtered out.
pub(crate) async fn with_entries(warehouse: &Warehouse<'_>, targets: &[Target<'_>]) -> Result<BTreeSet<String>, Error> {
    let sql = "SELECT t.name FROM unnest($2) AS t (name)
               WHERE EXISTS (SELECT FROM blackwater.quarantine q WHERE q.star_schema = $1 AND q.star_table = t.name)
                  OR EXISTS (SELECT FROM blackwater.filtered q WHERE q.star_schema = $1 AND q.star_table = t.name)";
    let names: Vec<_> = targets.iter().map(|target| target.name).collect();
    let parameters: Parameters<'_> = &[(&warehouse.schema, Type::TEXT), (&names, Type::TEXT_ARRAY)];
    let rows = warehouse.query("look for rows in quarantine", sql, parameters).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Ends what is no longer so for the keys of the batch's rows, once they are written or set aside: the number of rows that
/// this batch put into quarantine, and the number of keys that are not filtered any more.
///
/// Ended are the entries of a key whose row of the same batch or a later one is written, and those that a newer entry replaces;
/// what waits for a reference stays beside a newer entry, if they differ, for a history wants them all. What was discarded stays so
/// while it is the same. None of the keys is filtered any more.
///
/// Where nothing was in quarantine or filtered before the batch, nothing can end.
pub(crate) async fn prune(
    warehouse: &Warehouse<'_>,
    target: &Target<'_>,
    had_entries: bool,
) -> Result<(u64, u64), Error> {
    let doing = || warehouse.doing("prune the quarantine of", target);
    let (batch, mut unfiltered) = (warehouse.batch, 0);
    if !had_entries && target.table.is_empty() {
        return Ok((0, 0));
    }
    if had_entries {
        warehouse.execute(doing(), &sql::delete_written(target), &[]).await?;
        warehouse.execute(doing(), &sql::discard_again(target, batch), &[]).await?;
        warehouse.execute(doing(), &sql::delete_replaced(target, batch), &[]).await?;
        unfiltered = warehouse.execute(doing(), &sql::unfilter(target, batch), &[]).await?;
    }
    let new = warehouse.query(doing(), &sql::count_new(target, batch), &[]).await?;
    Ok((new.first().map_or(0, |row| row.get::<_, i64>(0) as u64), unfiltered))
}

/// The statements.
pub(crate) mod sql {
    use super::*;

    /// Deletes entries `q` with their lines in `blackwater.waiting_for`: `condition` is what follows the table, with or without USING.
    pub(crate) fn delete_entries(condition: &str) -> String {
        format!(
            "WITH gone AS (DELETE FROM blackwater.quarantine q {condition} RETURNING q.id)
             DELETE FROM blackwater.waiting_for f USING gone WHERE f.entry = gone.id"
        )
    }

    /// The entries of a star table that the batch made, called `new`.
    fn is_new(target: &Target<'_>, batch: u64, new: &str) -> String {
        format!("{} AND {new}.batch = {batch}", target.of_table(new))
    }

    pub(super) fn delete_written(target: &Target<'_>) -> String {
        delete_entries(&format!(
            "USING {rows} t WHERE {of_table} AND q.key = {key} AND q.batch <= t.{POS} >> 32",
            rows = staging::name(target, Content::Rows),
            of_table = target.of_table("q"),
            key = target.key_json("t"),
        ))
    }

    pub(super) fn discard_again(target: &Target<'_>, batch: u64) -> String {
        format!(
            "UPDATE blackwater.quarantine new SET discarded = true FROM blackwater.quarantine q
             WHERE {is_new} AND {of_table} AND q.discarded AND q.batch < {batch}
               AND (q.key, q.reason) = (new.key, new.reason) AND q.star_row::text IS NOT DISTINCT FROM new.star_row::text",
            is_new = is_new(target, batch, "new"),
            of_table = target.of_table("q"),
        )
    }

    pub(super) fn delete_replaced(target: &Target<'_>, batch: u64) -> String {
        delete_entries(&format!(
            "USING blackwater.quarantine new
             WHERE {is_new} AND {of_table} AND new.key = q.key AND q.batch < {batch}
               AND (q.reference IS NULL OR q.star_row::text = new.star_row::text AND q.batch = (
                        SELECT max(o.batch) FROM blackwater.quarantine o
                        WHERE {of_other} AND o.key = q.key AND o.batch < {batch}))",
            is_new = is_new(target, batch, "new"),
            of_table = target.of_table("q"),
            of_other = target.of_table("o"),
        ))
    }

    pub(super) fn unfilter(target: &Target<'_>, batch: u64) -> String {
        format!(
            "DELETE FROM blackwater.filtered q
             USING (
                 SELECT {key} FROM {rows} t
                 UNION ALL SELECT new.key FROM blackwater.quarantine new WHERE {is_new}) k (key)
             WHERE {of_table} AND q.key = k.key",
            key = target.key_json("t"),
            rows = staging::name(target, Content::Rows),
            is_new = is_new(target, batch, "new"),
            of_table = target.of_table("q"),
        )
    }

    pub(super) fn count_new(target: &Target<'_>, batch: u64) -> String {
        format!(
            "SELECT count(*) FROM blackwater.quarantine new WHERE {} AND NOT new.discarded",
            is_new(target, batch, "new")
        )
    }

    /// Notes the keys that a model does not let through.
    pub(crate) fn filter(target: &Target<'_>) -> String {
        format!(
            "INSERT INTO blackwater.filtered (star_schema, star_table, key) SELECT {}, {}, {} FROM {} t ON CONFLICT DO NOTHING",
            literal(target.schema),
            literal(target.name),
            target.key_json("t"),
            staging::keys(target, Content::Filtered)
        )
    }

    /// Deletes the entries of keys that a model does not let through.
    pub(crate) fn delete_filtered(target: &Target<'_>) -> String {
        delete_entries(&format!(
            "USING {} t WHERE {} AND q.key = {}",
            staging::keys(target, Content::Filtered),
            target.of_table("q"),
            target.key_json("t")
        ))
    }

    /// The condition that the key of a line `q` is among the staged ones, or is not.
    pub(crate) fn has_key(target: &Target<'_>, content: Content, are_in: bool) -> String {
        format!(
            "WHERE {} AND {} (SELECT FROM {} t WHERE {} = q.key)",
            target.of_table("q"),
            if are_in { "EXISTS" } else { "NOT EXISTS" },
            staging::keys(target, content),
            target.key_json("t")
        )
    }
}
