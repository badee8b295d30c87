//! Reading one table in the shared snapshot: a look that counts, and a COPY streamed to the
//! ingestion bucket.

use blackwater_base::progress::progress;
use blackwater_base::store::Store;
use blackwater_shared::manifest;
use blackwater_shared::manifest::{Object, data_key};
use blackwater_shared::postgres::{Doing, csv_field, idents};
use deadpool_postgres::Transaction;
use futures_util::{StreamExt, pin_mut};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::catalogue::Table;
use crate::error::Error;
use crate::heaps::age;
use crate::limit::Limit;
use crate::plan::Reading;

/// How many transactions a manifest lists as seen. Beyond that a run that finds one of them still
/// above its marker delivers its rows again, which costs time and changes nothing.
pub(crate) const SEEN: usize = 100_000;

/// A source table as a run reads it.
pub(crate) struct Source<'a> {
    pub(crate) schema: &'a str,
    pub(crate) name: &'a str,
    pub(crate) table: &'a Table,
    pub(crate) reading: &'a Reading,
    /// The transactions whose rows the log has delivered already.
    pub(crate) seen: &'a [u64],
    /// The snapshot's xmin.
    pub(crate) xmin: u64,
    /// The table in the newest batch, if that can be trusted.
    pub(crate) known: Option<&'a manifest::Table>,
    /// Whether a model looks its rows up.
    pub(crate) looked_up: bool,
    /// How long a statement may take.
    pub(crate) limit: Limit,
}

/// Where a run writes.
pub(crate) struct Destination<'a> {
    pub(crate) store: &'a Store,
    pub(crate) batch: u64,
    pub(crate) run: Uuid,
    /// The bytes at which an object is full.
    pub(crate) object_bytes: u64,
}

/// A query for COPY, and the names of what it returns: Postgres cuts those of a query at 63 bytes.
pub(crate) struct Query {
    pub(crate) sql: String,
    pub(crate) names: Vec<String>,
}

impl Query {
    /// The statement that sends its rows as CSV, without a header.
    pub(crate) fn copy(&self) -> String {
        format!("COPY ({}) TO STDOUT (FORMAT csv)", self.sql)
    }

    /// The header for them.
    pub(crate) fn header(&self) -> String {
        let quoted: Vec<_> = self.names.iter().map(|name| csv_field(name)).collect();
        quoted.join(",") + "\n"
    }
}

/// What a look at a table found.
#[derive(Debug, Default)]
pub(crate) struct Look {
    /// The rows of the table in the snapshot.
    pub(crate) rows: u64,
    /// Those that changed.
    pub(crate) changed: u64,
    /// The transactions at or above the snapshot's xmin that wrote one of them, at most
    /// [`SEEN`] and one more.
    pub(crate) writers: Vec<u64>,
}

impl Source<'_> {
    /// Counts the table's rows and those that changed, in one scan. Of a table that no model looks up, only those that
    /// the log holds with this batch.
    pub(crate) async fn look(&self, transaction: &Transaction<'_>) -> Result<Look, Error> {
        progress(&format!("looking for changes in {}", self.name), 0, 0);
        let sql = format!(
            "SELECT count(*), count(*) FILTER (WHERE {changed}),
                    (array_agg(DISTINCT t.xmin::text::bigint) FILTER (WHERE age(t.xmin) BETWEEN 0 AND {recent}))[1:{limit}]
             FROM {table} WHERE {held}",
            changed = self.changed("t"),
            recent = age(self.xmin),
            table = self.relation("t", []),
            held = if self.looked_up { "true".to_owned() } else { self.held("t").unwrap_or("false".into()) },
            limit = SEEN + 1,
        );
        let doing = format!("count the changed rows of {}", self.name);
        let row = self.query_one(transaction, &sql, doing).await?;
        let writers: Option<Vec<i64>> = row.get(2);
        Ok(Look {
            rows: row.get::<_, i64>(0) as u64,
            changed: row.get::<_, i64>(1) as u64,
            writers: writers.unwrap_or_default().into_iter().map(|writer| widen(writer as u32, self.xmin)).collect(),
        })
    }

    /// Counts what `sql` counts, if there is something to count.
    pub(crate) async fn count(&self, transaction: &Transaction<'_>, sql: Option<String>) -> Result<u64, Error> {
        let Some(sql) = sql else { return Ok(0) };
        let doing = format!("count the rows of {} that come again", self.name);
        Ok(self.query_one(transaction, &sql, doing).await?.get::<_, i64>(0) as u64)
    }

    async fn query_one(&self, transaction: &Transaction<'_>, sql: &str, doing: String) -> Result<Row, Error> {
        let allowed = self.limit.set(transaction).await?;
        transaction.query_one(sql, &[]).await.doing(doing).map_err(|error| allowed.explain(error))
    }

    /// Copies what `query` returns to the bucket, as objects with this extension.
    pub(crate) async fn copy(
        &self,
        query: &Query,
        transaction: &Transaction<'_>,
        to: &Destination<'_>,
        extension: &str,
    ) -> Result<Vec<Object>, Error> {
        let allowed = self.limit.set(transaction).await?;
        let doing = || format!("copy the rows of {}", self.name);
        let explain = |error| allowed.explain(error);
        let lines = transaction.copy_out(&query.copy()).await.doing(doing()).map_err(explain)?;
        pin_mut!(lines);
        let mut objects = Vec::new();
        let mut upload = None;
        let (mut rows, mut all) = (0, 0);
        let what = format!("reading {}", self.name);
        // The server sends every row in a message of its own:
        // https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-COPY
        while let Some(line) = lines.next().await {
            let line = line.doing(doing()).map_err(explain)?;
            let current = match &mut upload {
                Some(current) => current,
                None => {
                    let key = data_key(to.batch, to.run, self.name, objects.len(), extension);
                    let current = upload.insert(to.store.upload(key));
                    current.write(query.header().as_bytes()).await?;
                    current
                }
            };
            current.write(&line).await?;
            rows += 1;
            all += 1;
            if all % 10_000 == 0 {
                progress(&what, all, 0);
            }
            if current.bytes() >= to.object_bytes
                && let Some(full) = upload.take()
            {
                objects.push(Object::of(full.finish().await?, rows));
                rows = 0;
            }
        }
        if let Some(last) = upload {
            objects.push(Object::of(last.finish().await?, rows));
        }
        Ok(objects)
    }

    /// The query for the keys of all its rows.
    pub(crate) fn keys(&self) -> Query {
        let key = &self.table.key;
        Query {
            sql: format!("SELECT {} FROM {}", idents("t.", key), self.relation("t", key.iter().map(String::as_str))),
            names: key.clone(),
        }
    }
}

/// The 64 bits of a transaction id that is not below `xmin` and less than 2^31 above it.
fn widen(xid: u32, xmin: u64) -> u64 {
    xmin + u64::from(xid.wrapping_sub(xmin as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_id_gets_its_epoch_from_the_snapshot() {
        assert_eq!(widen(105, 100), 105);
        assert_eq!(widen(3, (7 << 32) - 2), (7 << 32) + 3);
        assert_eq!(widen(u32::MAX, (7 << 32) - 2), (7 << 32) - 1);
    }
}
