//! The one snapshot of a run: opened after every heap is locked, so that no DDL can make a table
//! look empty in it, and shared by all connections that read.

use std::time::Duration;

use blackwater_shared::manifest::Server;
use blackwater_shared::postgres::{Doing, Kind, Session, qualified};
use chrono::{DateTime, Utc};
use deadpool_postgres::{Object, Transaction};
use futures_util::future::try_join_all;
use tokio_postgres::IsolationLevel;

use super::continuity::Bounds;
use super::limit::Allowed;
use crate::error::Error;

/// What is particular to the sessions at the source. JIT compiles the scan of each partition by itself, which takes memory and
/// minutes, and a row that a policy hides is an error.
const SETTINGS: &[(&str, &str)] = &[("jit", "off"), ("row_security", "off")];

/// Sessions that give way to whoever wants a lock, and wait for this program as long as it takes.
pub(crate) const SESSION: Session = Session {
    application: "blackwater extract",
    lock_timeout: Duration::from_secs(5),
    statement_timeout: Duration::ZERO,
    idle_timeout: Duration::ZERO,
    more: SETTINGS,
};

/// The position in the write-ahead log, in bytes.
const WAL: &str =
    "(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END - '0/0')::bigint";

/// An open snapshot, its locks, and the server that it is of.
pub(crate) struct Snapshot<'a> {
    /// The transactions that share it, each on a connection of its own.
    pub(crate) readers: Vec<Transaction<'a>>,
    pub(crate) server: Server,
    pub(crate) bounds: Bounds,
    /// The server's major version.
    pub(crate) version: i32,
    /// The source's time of the snapshot.
    pub(crate) at: DateTime<Utc>,
    /// The position in the write-ahead log before the snapshot was taken.
    pub(crate) wal_before: u64,
}

/// Locks `tables` and everything under them on every connection, then takes the snapshot on the
/// first and shares it with the rest. [`Error::Busy`] if another session is in the way of a lock.
///
/// All lock at once, before there is a snapshot: a connection that locked later would queue behind
/// an ALTER TABLE that waits for the first one.
pub(crate) async fn open<'a>(
    clients: &'a mut [Object],
    schema: &str,
    tables: &[String],
    allowed: &Allowed,
) -> Result<Snapshot<'a>, Error> {
    let (version, wal_before) = before(&mut clients[0], allowed).await?;
    if version < 13 {
        return Err(Error::TooOld { version });
    }
    let readers = try_join_all(clients.iter_mut().map(|client| lock(client, schema, tables, allowed))).await?;
    let row =
        readers[0].query_one(&format!("SELECT {WAL}, {SERVER}"), &[]).await.doing("take a snapshot of the source")?;
    // The id is of the server's own making: hexadecimal digits and hyphens.
    let share = format!("SET TRANSACTION SNAPSHOT '{}'", row.get::<_, &str>("id"));
    let shared = readers[1..].iter().map(|reader| reader.batch_execute(&share));
    try_join_all(shared).await.doing("share the snapshot")?;
    let server = Server {
        system: row.get("system"),
        database: row.get("database"),
        timeline: row.get::<_, i32>("timeline") as u32,
        started: row.get("started"),
        statistics: row.get("statistics"),
        standby: row.get("standby"),
        snapshot: row.get("snapshot"),
        wal: row.get::<_, i64>(0) as u64,
    };
    let bounds = Bounds::of_server(&server)?;
    Ok(Snapshot { readers, server, bounds, version, at: row.get("at"), wal_before })
}

/// The server's version, and its position in the write-ahead log.
async fn before(client: &mut Object, allowed: &Allowed) -> Result<(i32, u64), Error> {
    let transaction = allowed.begin(client).await?;
    let sql = format!("SELECT current_setting('server_version_num')::int / 10000, {WAL}");
    let row = transaction.query_one(&sql, &[]).await.doing("ask the source for its version and position")?;
    Ok((row.get(0), row.get::<_, i64>(1) as u64))
}

/// Begins a transaction in which the tables and everything under them are locked. LOCK takes no snapshot.
async fn lock<'a>(
    client: &'a mut Object,
    schema: &str,
    tables: &[String],
    allowed: &Allowed,
) -> Result<Transaction<'a>, Error> {
    let transaction = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
    let transaction = transaction.start().await.doing("begin a transaction on the source")?;
    let names: Vec<_> = tables.iter().map(|table| qualified(schema, table)).collect();
    let names = names.join(", ");
    let sql = format!("{}; LOCK TABLE {names} IN ACCESS SHARE MODE", allowed.sql());
    let locked = transaction.batch_execute(&sql).await;
    match locked.doing(format!("lock {names} at the source")) {
        Err(error) if error.kind == Kind::LockNotAvailable => Err(Error::Busy { tables: tables.join(", ") }),
        done => Ok(done.map(|()| transaction)?),
    }
}

/// What is known of the server, in the statement that takes the snapshot.
const SERVER: &str = "pg_current_snapshot()::text AS snapshot, pg_export_snapshot() AS id, clock_timestamp() AS at,
    (SELECT system_identifier::text FROM pg_control_system()) AS system,
    CASE WHEN pg_is_in_recovery() THEN (SELECT timeline_id FROM pg_control_checkpoint())
         ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int END AS timeline,
    pg_postmaster_start_time() AS started, pg_is_in_recovery() AS standby,
    (SELECT oid FROM pg_database WHERE datname = current_database()) AS database,
    (SELECT stats_reset FROM pg_stat_bgwriter) AS statistics";
