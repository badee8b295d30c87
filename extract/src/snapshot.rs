//! The one snapshot of a run: opened after every heap is locked, so that no DDL can make a table
//! look empty in it, and shared by all connections that read.

use blackwater_shared::manifest::Server;
use blackwater_shared::postgres::{Doing, qualified};
use chrono::{DateTime, Utc};
use deadpool_postgres::{Object, Transaction};
use tokio_postgres::IsolationLevel;
use tokio_postgres::error::SqlState;

use crate::error::Error;

/// How values are printed, and how long a session may wait or be idle.
const SESSION: &str = "SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO, YMD'; \
    SET LOCAL IntervalStyle = 'postgres'; SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = 'hex'; \
    SET LOCAL row_security = off; SET LOCAL lock_timeout = '5s'; SET LOCAL statement_timeout = 0; \
    SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL search_path = pg_catalog";

/// The position in the write-ahead log, in bytes.
const WAL: &str =
    "(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END - '0/0')::bigint";

/// An open snapshot, its locks, and the server that it is of.
pub(crate) struct Snapshot<'a> {
    pub(crate) transaction: Transaction<'a>,
    pub(crate) server: Server,
    /// The source's time of the snapshot.
    pub(crate) at: DateTime<Utc>,
    /// The position in the write-ahead log before the snapshot was taken.
    pub(crate) wal_before: u64,
    /// What other connections import.
    pub(crate) id: String,
}

/// Why a run gives way to another session and leaves the work to the next run.
pub(crate) enum Opening<'a> {
    Open(Box<Snapshot<'a>>),
    GaveWay(String),
}

/// Locks `tables` and everything under them, then takes the snapshot.
pub(crate) async fn open<'a>(client: &'a mut Object, schema: &str, tables: &[String]) -> Result<Opening<'a>, Error> {
    let before = client
        .query_one(&format!("SELECT current_setting('server_version_num')::int / 10000, {WAL}"), &[])
        .await
        .doing("ask the source for its version and position")?;
    if before.get::<_, i32>(0) < 13 {
        return Err(Error::TooOld { version: before.get(0) });
    }
    let transaction = begin(client).await?;
    // Neither SET nor LOCK takes a snapshot: the SELECT below does, when the locks are held.
    if !lock(&transaction, SESSION, schema, tables).await? {
        return Ok(Opening::GaveWay(format!(
            "another session holds a lock on one of {} (an ALTER TABLE or TRUNCATE under way)",
            tables.join(", ")
        )));
    }
    let row = transaction
        .query_one(
            &format!(
                "SELECT pg_current_snapshot()::text, pg_export_snapshot(), clock_timestamp(), {WAL},
                        (SELECT system_identifier::text FROM pg_control_system()),
                        CASE WHEN pg_is_in_recovery() THEN (SELECT timeline_id FROM pg_control_checkpoint())
                             ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int END,
                        pg_postmaster_start_time(), pg_is_in_recovery(),
                        (SELECT oid FROM pg_database WHERE datname = current_database()),
                        (SELECT stats_reset FROM pg_stat_bgwriter)"
            ),
            &[],
        )
        .await
        .doing("take a snapshot of the source")?;
    let server = Server {
        snapshot: row.get(0),
        wal: row.get::<_, i64>(3) as u64,
        system: row.get(4),
        timeline: row.get::<_, i32>(5) as u32,
        started: row.get(6),
        standby: row.get(7),
        database: row.get(8),
        statistics: row.get(9),
    };
    let wal_before = before.get::<_, i64>(1) as u64;
    Ok(Opening::Open(Box::new(Snapshot { id: row.get(1), at: row.get(2), transaction, server, wal_before })))
}

/// A transaction on another connection that sees the same snapshot and holds the same locks.
/// `None` if another session waits for one of them.
pub(crate) async fn import<'a>(
    client: &'a mut Object,
    id: &str,
    schema: &str,
    tables: &[String],
) -> Result<Option<Transaction<'a>>, Error> {
    let transaction = begin(client).await?;
    // The id is of the server's own making: hexadecimal digits and hyphens.
    let before = format!("{SESSION}; SET TRANSACTION SNAPSHOT '{id}'");
    let locked = lock(&transaction, &before, schema, tables).await?;
    Ok(locked.then_some(transaction))
}

async fn begin(client: &mut Object) -> Result<Transaction<'_>, Error> {
    let transaction = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
    Ok(transaction.start().await.doing("begin a transaction on the source")?)
}

/// Runs `before`, then locks the tables and everything under them; whether that was possible.
async fn lock(transaction: &Transaction<'_>, before: &str, schema: &str, tables: &[String]) -> Result<bool, Error> {
    let names: Vec<_> = tables.iter().map(|table| qualified(schema, table)).collect();
    let names = names.join(", ");
    match transaction.batch_execute(&format!("{before}; LOCK TABLE {names} IN ACCESS SHARE MODE")).await {
        Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => Ok(false),
        done => Ok(done.doing(format!("lock {names} at the source")).map(|()| true)?),
    }
}

/// The xmin and xmax of a snapshot as `pg_current_snapshot()` prints it.
pub(crate) fn bounds(snapshot: &str) -> Option<(u64, u64)> {
    let mut parts = snapshot.split(':');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}
