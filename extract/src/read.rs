//! Reading one table in the shared snapshot: a look that counts, and a COPY streamed to the
//! ingestion bucket.

use blackwater_shared::deadline::Deadline;
use blackwater_shared::manifest;
use blackwater_shared::postgres::{Doing, csv_field, idents, qualified};
use blackwater_shared::progress::progress;
use blackwater_shared::store::{Object, Store, data_key};
use deadpool_postgres::Transaction;
use futures_util::{StreamExt, pin_mut};
use uuid::Uuid;

use crate::catalogue::Table;
use crate::error::Error;
use crate::plan::{Reading, Since, Unread};

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
    /// When the server is to give up.
    pub(crate) deadline: Deadline,
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
                    (array_agg(DISTINCT xmin::text::bigint) FILTER (WHERE age(xmin) BETWEEN 0 AND {recent}))[1:{limit}]
             FROM {table} AS t WHERE {heaps} AND {held}",
            changed = self.changed("t"),
            recent = age(self.xmin),
            table = self.quoted(),
            heaps = self.heaps("t"),
            held = if self.looked_up { "true".to_owned() } else { self.held("t") },
            limit = SEEN + 1,
        );
        self.limit(transaction).await?;
        let row = transaction.query_one(&sql, &[]).await.doing(format!("count the changed rows of {}", self.name))?;
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
        self.limit(transaction).await?;
        let row =
            transaction.query_one(&sql, &[]).await.doing(format!("count the rows of {} that come again", self.name))?;
        Ok(row.get::<_, i64>(0) as u64)
    }

    /// Has the server end the next statement at the deadline.
    async fn limit(&self, transaction: &Transaction<'_>) -> Result<(), Error> {
        if let Some(left) = self.deadline.left() {
            let sql = format!("SET LOCAL statement_timeout = {}", left.as_millis().max(1));
            transaction.batch_execute(&sql).await.doing("limit the time of a statement")?;
        }
        Ok(())
    }

    /// Copies what `query` returns to the bucket, as objects with this extension.
    pub(crate) async fn copy(
        &self,
        query: &Query,
        transaction: &Transaction<'_>,
        to: &Destination<'_>,
        extension: &str,
    ) -> Result<Vec<Object>, Error> {
        let doing = || format!("copy the rows of {}", self.name);
        self.limit(transaction).await?;
        let lines = transaction.copy_out(&query.copy()).await.doing(doing())?;
        pin_mut!(lines);
        let mut objects = Vec::new();
        let mut upload = None;
        let (mut rows, mut all) = (0, 0);
        let what = format!("reading {}", self.name);
        // The server sends every row in a message of its own:
        // https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-COPY
        while let Some(line) = lines.next().await {
            let line = line.doing(doing())?;
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
                objects.push(full.finish(rows).await?);
                rows = 0;
            }
        }
        if let Some(last) = upload {
            objects.push(last.finish(rows).await?);
        }
        Ok(objects)
    }

    /// The query for the keys of all its rows.
    pub(crate) fn keys(&self) -> Query {
        let key = &self.table.key;
        let sql = format!("SELECT {} FROM {} AS t WHERE {}", idents("t.", key), self.quoted(), self.heaps("t"));
        Query { sql, names: key.clone() }
    }

    /// The condition that a row changed since the marker. COPY takes no parameters: the numbers are written out.
    pub(crate) fn changed(&self, alias: &str) -> String {
        let Some(Since { xmin, heaps }) = &self.reading.since else { return "false".into() };
        let mut condition = format!("age({alias}.xmin) BETWEEN 0 AND {}", age(*xmin));
        if !self.seen.is_empty() {
            let seen: Vec<_> = self.seen.iter().map(|xid| (*xid as u32).to_string()).collect();
            condition.push_str(&format!(" AND {alias}.xmin <> ALL ('{{{}}}'::xid[])", seen.join(",")));
        }
        if !heaps.is_empty() {
            condition.push_str(&format!(" OR {alias}.tableoid = ANY ({})", oids(heaps)));
        }
        condition
    }

    /// The condition that the log holds a row since an earlier batch, as it was; `None` if it holds none.
    pub(crate) fn read(&self, alias: &str) -> Option<String> {
        let Reading { unread, .. } = self.reading;
        let is_none = unread.len() == self.table.heaps.len() && unread.iter().all(|part| part.from == 0);
        (!is_none).then(|| self.before(alias, unread.iter().map(|part| (part.heap, Some(part.from)))))
    }

    /// The condition that this batch has a row because the log does not hold it; `None` if there is none.
    pub(crate) fn due(&self, alias: &str) -> Option<String> {
        let part = |part: &Unread| {
            let from = format!("{}{alias}.ctid >= '({},0)'::tid", self.in_heap(alias, part.heap), part.from);
            match part.to {
                Some(to) if to == part.from => None,
                Some(to) => Some(format!("{from} AND {alias}.ctid < '({to},0)'::tid")),
                None => Some(from),
            }
        };
        let parts: Vec<_> = self.reading.unread.iter().filter_map(part).collect();
        (!parts.is_empty()).then(|| format!("({})", parts.join(" OR ")))
    }

    /// The condition that the log holds a row with this batch.
    fn held(&self, alias: &str) -> String {
        self.before(alias, self.reading.unread.iter().map(|part| (part.heap, part.to)))
    }

    /// The condition that a row does not lie behind the end that its heap has here.
    fn before(&self, alias: &str, ends: impl Iterator<Item = (u32, Option<u32>)>) -> String {
        let before = |(heap, end): (u32, Option<u32>)| {
            let before = format!("{alias}.ctid < '({},0)'::tid", end?);
            Some(match self.table.many {
                true => format!("({alias}.tableoid <> {heap} OR {before})"),
                false => before,
            })
        };
        let ends: Vec<_> = ends.filter_map(before).collect();
        if ends.is_empty() { "true".into() } else { ends.join(" AND ") }
    }

    fn in_heap(&self, alias: &str, heap: u32) -> String {
        match self.table.many {
            true => format!("{alias}.tableoid = {heap} AND "),
            false => String::new(),
        }
    }

    /// Limits a table with partitions or children to the heaps that the manifest will name: one
    /// that is attached while this run reads comes in full with the next.
    pub(crate) fn heaps(&self, alias: &str) -> String {
        match self.table.many {
            true => {
                let heaps: Vec<_> = self.table.heaps.iter().map(|heap| heap.oid).collect();
                format!("{alias}.tableoid = ANY ({})", oids(&heaps))
            }
            false => "true".into(),
        }
    }

    /// Its name in SQL.
    pub(crate) fn quoted(&self) -> String {
        qualified(self.schema, self.name)
    }
}

fn oids(oids: &[u32]) -> String {
    let oids: Vec<_> = oids.iter().map(ToString::to_string).collect();
    format!("'{{{}}}'::oid[]", oids.join(","))
}

/// How many transactions ago `xid` was, computed once. The cast from `xid8` drops the epoch.
fn age(xid: u64) -> String {
    format!("(SELECT age('{xid}'::xid8::xid))")
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
