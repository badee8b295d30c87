//! The statements about the slot. They run on a connection of their own, each in a transaction of its own: one that fails there
//! takes nothing away from the run's snapshot.

use std::collections::BTreeMap;
use std::time::Duration;

use blackwater_shared::manifest::Published;
use blackwater_shared::postgres::{Doing, Error};
use deadpool_postgres::{Object, Transaction};
use futures_util::{StreamExt, pin_mut};

use super::copy_rows::CopyRows;
use super::touched::{Collector, TOKEN_PREFIX};
use crate::source::limit::Limit;

/// How long an advance may take: it reads the log, and begins anew if it does not end.
const ADVANCE: Duration = Duration::from_secs(60);

/// How long a statement that looks something up may take.
const LOOKUP: Duration = Duration::from_secs(10);

/// The connection on which the slot is read and moved.
pub(crate) struct Control {
    pub(crate) client: Object,
    pub(crate) limit: Limit,
    /// The name of the slot, and of the publication: letters, digits and underscores.
    pub(crate) name: String,
}

/// What the server says of itself, of the slot and of the publication.
pub(crate) struct Facts {
    pub(crate) standby: bool,
    pub(super) version: i32,
    pub(crate) wal_level: String,
    pub(super) may_replicate: bool,
    /// `max_slot_wal_keep_size` in MB, -1 if it is unlimited.
    pub(crate) keeps: i64,
    /// How far the log is flushed; 0 on a standby.
    pub(crate) flushed: u64,
    pub(crate) slot: Option<Slot>,
    pub(crate) publication: Option<Publication>,
}

/// A replication slot.
pub(crate) struct Slot {
    /// Whether it is of this database, for the plugin pgoutput, and not temporary.
    pub(crate) is_ours: bool,
    pub(super) is_active: bool,
    /// Whether the server has thrown away what it should have kept for it.
    pub(crate) is_lost: bool,
    /// Where decoding begins.
    restart: u64,
    /// All that ends before is done with.
    pub(super) confirmed: u64,
}

impl Slot {
    /// The bytes of the log that the server keeps for it, if the log is flushed so far.
    pub(crate) fn retained(&self, flushed: u64) -> u64 {
        flushed.saturating_sub(self.restart)
    }
}

/// The publication, and the tables that were added to it by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Publication {
    pub(crate) oid: u32,
    pub(crate) version: String,
    /// Whether it has what is needed: every kind of change, under the partitioned table's name.
    pub(crate) is_whole: bool,
    /// By the oid of the table.
    pub(crate) tables: BTreeMap<u32, Member>,
}

/// A table in a publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) oid: u32,
    pub(crate) version: String,
    pub(crate) columns: Option<String>,
    /// Whether a WHERE leaves rows out.
    pub(crate) is_filtered: bool,
    /// The hash of what ties its partitions to it.
    pub(crate) partitions: Option<String>,
}

impl Member {
    /// Whether it is the one that a manifest names.
    pub(crate) fn is(&self, published: &Published) -> bool {
        (self.oid, &self.version, &self.columns) == (published.member, &published.version, &published.columns)
    }
}

const SERVER: &str =
    "SELECT pg_is_in_recovery(), current_setting('server_version_num')::int / 10000, current_setting('wal_level'),
    (SELECT rolsuper OR rolreplication FROM pg_roles WHERE rolname = current_user)
        OR EXISTS (SELECT FROM pg_roles WHERE rolname = 'rds_replication' AND pg_has_role(oid, 'member')),
    (SELECT setting::bigint FROM pg_settings WHERE name = 'max_slot_wal_keep_size'),
    CASE WHEN pg_is_in_recovery() THEN 0 ELSE (pg_current_wal_flush_lsn() - '0/0')::bigint END";

const SLOT: &str =
    "SELECT coalesce(database = current_database() AND plugin = 'pgoutput' AND NOT temporary, false), active,
    wal_status = 'lost' OR restart_lsn IS NULL OR coalesce((to_jsonb(s)->>'conflicting')::bool, false)
        OR to_jsonb(s)->>'invalidation_reason' IS NOT NULL,
    (restart_lsn - '0/0')::bigint, (confirmed_flush_lsn - '0/0')::bigint
    FROM pg_replication_slots s WHERE slot_name = $1::text::name";

const PUBLICATION: &str = "SELECT oid, xmin::text,
    NOT puballtables AND pubinsert AND pubupdate AND pubdelete AND pubtruncate AND pubviaroot
    FROM pg_publication WHERE pubname = $1::text::name";

/// A partition that is attached again has another line in pg_inherits. (pg_partition_tree() would lock them all.)
const MEMBERS: &str = "SELECT prrelid, oid, xmin::text, to_jsonb(r)->>'prattrs', to_jsonb(r)->>'prqual' IS NOT NULL, (
        WITH RECURSIVE part AS (
            SELECT inhrelid, xmin FROM pg_inherits WHERE inhparent = prrelid
            UNION ALL SELECT i.inhrelid, i.xmin FROM part JOIN pg_inherits i ON i.inhparent = part.inhrelid
        ) SELECT encode(sha256(convert_to(string_agg(concat(inhrelid, ' ', xmin), ',' ORDER BY inhrelid), 'UTF8')), 'hex') FROM part
    )
    FROM pg_publication_rel r WHERE prpubid = $1";

impl Control {
    /// Runs statements in a transaction of their own, each within `time`.
    async fn step<T>(
        &mut self,
        time: Duration,
        doing: &str,
        work: impl AsyncFnOnce(&Transaction<'_>) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, Error> {
        // The rest of the time is for the scan that follows if this takes too long.
        let allowed = self.limit.halved().now().within(time);
        let transaction = self.client.transaction().await.doing(doing)?;
        transaction.batch_execute(&allowed.sql()).await.doing(doing)?;
        let done = work(&transaction).await.doing(doing)?;
        transaction.commit().await.doing(doing)?;
        Ok(done)
    }

    pub(crate) async fn facts(&mut self) -> Result<Facts, Error> {
        let name = self.name.clone();
        self.step(LOOKUP, "ask the source for its replication slot", async |transaction| {
            let server = transaction.query_one(SERVER, &[]).await?;
            let slot = transaction.query_opt(SLOT, &[&name]).await?.map(|row| Slot {
                is_ours: row.get(0),
                is_active: row.get(1),
                is_lost: row.get(2),
                restart: row.get::<_, Option<i64>>(3).unwrap_or_default() as u64,
                confirmed: row.get::<_, Option<i64>>(4).unwrap_or_default() as u64,
            });
            Ok(Facts {
                standby: server.get(0),
                version: server.get(1),
                wal_level: server.get(2),
                may_replicate: server.get(3),
                keeps: server.get(4),
                flushed: server.get::<_, i64>(5) as u64,
                slot,
                publication: publication(transaction, &name).await?,
            })
        })
        .await
    }

    /// Makes the slot, which waits for every transaction that is open.
    pub(crate) async fn create(&mut self, wait: Duration) -> Result<(), Error> {
        let name = self.name.clone();
        self.step(wait, "create the replication slot", async |transaction| {
            // Each of them may take as long as all of them.
            transaction.batch_execute("SET LOCAL lock_timeout = 0").await?;
            let sql = "SELECT FROM pg_create_logical_replication_slot($1::text::name, 'pgoutput')";
            transaction.execute(sql, &[&name]).await.map(drop)
        })
        .await
    }

    pub(crate) async fn drop_slot(&mut self) -> Result<(), Error> {
        let name = self.name.clone();
        self.step(LOOKUP, "drop the replication slot", async |transaction| {
            transaction.execute("SELECT pg_drop_replication_slot($1::text::name)", &[&name]).await.map(drop)
        })
        .await
    }

    /// Lets the server forget what ends before a position. It never goes back.
    pub(super) async fn advance(&mut self, position: u64) -> Result<(), Error> {
        let (name, position) = (self.name.clone(), lsn(position));
        self.step(ADVANCE, "advance the replication slot", async |transaction| {
            let sql = "SELECT FROM pg_replication_slot_advance($1::text::name, $2::text::pg_lsn)";
            transaction.execute(sql, &[&name, &position]).await.map(drop)
        })
        .await
    }

    /// The position behind all that is written by now.
    pub(super) async fn written(&mut self) -> Result<u64, Error> {
        Ok(self.positions().await?.0)
    }

    /// The positions behind all that is written and that is flushed by now.
    async fn positions(&mut self) -> Result<(u64, u64), Error> {
        let sql = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint, (pg_current_wal_flush_lsn() - '0/0')::bigint";
        let doing = "ask the source for its position";
        let row = self.step(LOOKUP, doing, async |transaction| transaction.query_one(sql, &[]).await).await?;
        Ok((row.get::<_, i64>(0) as u64, row.get::<_, i64>(1) as u64))
    }

    /// A transaction that is newer than all that have begun. It is one of our own: a snapshot's xmax is only behind the newest
    /// transaction that is over, and one that has begun and even written its commit may be newer than that.
    pub(super) async fn new_transaction(&mut self) -> Result<u64, Error> {
        let sql = "SELECT pg_current_xact_id()::text::bigint";
        let doing = "ask the source for its transactions";
        let row = self.step(LOOKUP, doing, async |transaction| transaction.query_one(sql, &[]).await).await?;
        Ok(row.get::<_, i64>(0) as u64)
    }

    /// The position behind all that is written by now, once the log is flushed up to there. Decoding reads what is flushed, and
    /// on a quiet server that may take until something commits: so a message does. `None` if that did not help.
    pub(super) async fn flush(&mut self) -> Result<Option<u64>, Error> {
        let (upto, flushed) = self.positions().await?;
        if flushed >= upto {
            return Ok(Some(upto));
        }
        // A role without the right to do this waits.
        if let Err(error) = self.emit("flush").await {
            tracing::debug!(error = %error, "cannot have the source flush its log");
        }
        for _ in 0..20 {
            if self.positions().await?.1 >= upto {
                return Ok(Some(upto));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(None)
    }

    /// Writes a message to the log, and waits until it is flushed.
    pub(super) async fn emit(&mut self, text: &str) -> Result<(), Error> {
        self.step(LOOKUP, "write a message to the log", async |transaction| {
            transaction.batch_execute("SET LOCAL synchronous_commit = local").await?;
            let sql = "SELECT pg_logical_emit_message(true, $1::text, $2::text)";
            transaction.execute(sql, &[&TOKEN_PREFIX, &text]).await.map(drop)
        })
        .await
    }

    /// Reads what committed up to a position into the collector. `Some` says why what was read proves nothing.
    pub(super) async fn peek(
        &mut self,
        upto: u64,
        version: i32,
        time: Duration,
        collector: &mut Collector,
    ) -> Result<Option<String>, Error> {
        let messages = if version < 14 { "" } else { ", 'messages', 'true'" };
        let sql = format!(
            "COPY (SELECT xid, data FROM pg_logical_slot_peek_binary_changes('{name}', '{upto}', NULL, 'proto_version', '1',
                   'publication_names', '{name}'{messages})) TO STDOUT (FORMAT binary)",
            name = self.name,
            upto = lsn(upto),
        );
        self.step(time, "read the changes in the log", async |transaction| {
            let copied = transaction.copy_out(&sql).await?;
            pin_mut!(copied);
            let mut rows = CopyRows::default();
            while let Some(chunk) = copied.next().await {
                rows.push(&chunk?);
                loop {
                    match rows.next_row() {
                        Ok(Some(row)) => {
                            if let Err(error) = collector.take(row.xid, &row.data) {
                                return Ok(Some(error.to_string()));
                            }
                        }
                        Ok(None) => break,
                        Err(error) => return Ok(Some(error.to_string())),
                    }
                }
            }
            Ok(rows.finish().err().map(|error| error.to_string()))
        })
        .await
    }
}

/// Reads the publication, in whatever snapshot the transaction has.
pub(super) async fn publication(
    transaction: &Transaction<'_>,
    name: &str,
) -> Result<Option<Publication>, tokio_postgres::Error> {
    let Some(row) = transaction.query_opt(PUBLICATION, &[&name]).await? else { return Ok(None) };
    let oid: u32 = row.get(0);
    let member = |row: &tokio_postgres::Row| {
        let (oid, version, columns) = (row.get(1), row.get(2), row.get(3));
        (row.get(0), Member { oid, version, columns, is_filtered: row.get(4), partitions: row.get(5) })
    };
    let tables = transaction.query(MEMBERS, &[&oid]).await?.iter().map(member).collect();
    Ok(Some(Publication { oid, version: row.get(1), is_whole: row.get(2), tables }))
}

/// A position as Postgres writes it.
fn lsn(position: u64) -> String {
    format!("{:X}/{:X}", position >> 32, position & 0xffff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_written_in_two_halves() {
        assert_eq!(lsn(0), "0/0");
        assert_eq!(lsn(0x0000_0016_b374_d848), "16/B374D848");
    }
}
