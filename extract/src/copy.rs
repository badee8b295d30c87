//! COPY from the source, streamed to the ingestion bucket.

use std::collections::BTreeSet;

use blackwater_base::progress::progress;
use blackwater_base::store::{Store, Upload};
use blackwater_shared::manifest::{Object, data_key};
use blackwater_shared::postgres::{Doing, csv_field};
use bytes::Bytes;
use deadpool_postgres::Transaction;
use futures_util::{StreamExt, pin_mut};
use uuid::Uuid;

use crate::changes::{Key, Writers};
use crate::error::Error;
use crate::source::continuity::Bounds;
use crate::source::limit::Limit;
use crate::sql::Query;

/// Where a run writes a batch.
pub(crate) struct Destination<'a> {
    pub(crate) store: &'a Store,
    pub(crate) batch: u64,
    pub(crate) run: Uuid,
    /// The bytes at which an object is full.
    pub(crate) object_bytes: u64,
}

/// What was copied of a table.
#[derive(Default)]
pub(crate) struct Copied {
    pub(crate) objects: Vec<Object>,
    /// How many of the rows the log did not hold before.
    pub(crate) due: u64,
    /// The recent transactions that wrote those.
    pub(crate) writers: BTreeSet<u64>,
}

/// The objects of one table in a batch, written one after the other.
struct Objects<'a> {
    to: &'a Destination<'a>,
    table: &'a str,
    extension: &'a str,
    header: String,
    done: Vec<Object>,
    current: Option<(Upload, u64)>,
}

impl Objects<'_> {
    /// Adds a row, which is in these pieces.
    async fn write(&mut self, row: &[&[u8]]) -> Result<(), Error> {
        let (upload, rows) = match &mut self.current {
            Some(current) => current,
            None => {
                let key = data_key(self.to.batch, self.to.run, self.table, self.done.len(), self.extension);
                let current = self.current.insert((self.to.store.upload(key), 0));
                current.0.write(self.header.as_bytes()).await?;
                current
            }
        };
        for piece in row {
            upload.write(piece).await?;
        }
        *rows += 1;
        if upload.bytes() >= self.to.object_bytes {
            self.end().await?;
        }
        Ok(())
    }

    async fn end(&mut self) -> Result<(), Error> {
        if let Some((upload, rows)) = self.current.take() {
            self.done.push(Object::of(upload.finish().await?, rows));
        }
        Ok(())
    }
}

/// Copies the rows of a table that a batch holds ([`crate::sql::RowSelection::rows`]) to the bucket.
pub(crate) async fn rows(
    (transaction, limit): (&Transaction<'_>, Limit),
    (table, queries): (&str, &[Query]),
    to: &Destination<'_>,
    bounds: Bounds,
) -> Result<Copied, Error> {
    let Some(first) = queries.first() else { return Ok(Copied::default()) };
    let mut objects = objects(to, (table, first), "csv");
    let (mut due, mut writers) = (0, Writers::within(bounds));
    for query in queries {
        each_line((transaction, limit), (table, query), async |line: Bytes| {
            let line = line.as_ref();
            let fault = || Error::Line { table: table.to_owned() };
            let first = line.iter().position(|byte| *byte == b',').ok_or_else(fault)?;
            let last = line.iter().rposition(|byte| *byte == b',').filter(|last| *last > first).ok_or_else(fault)?;
            if first > 0 {
                let writer = std::str::from_utf8(&line[..first]).ok().and_then(|xid| xid.parse().ok());
                writers.add(writer.ok_or_else(fault)?);
                due += 1;
            }
            let marks: Vec<u8> = line[last + 1..]
                .iter()
                .filter(|mark| matches!(mark, b't' | b'f'))
                .flat_map(|mark| [b',', *mark])
                .collect();
            objects.write(&[&line[first + 1..last], &marks, b"\n"]).await
        })
        .await?;
    }
    objects.end().await?;
    Ok(Copied { objects: objects.done, due, writers: writers.all() })
}

/// Copies the keys of all rows of a table ([`crate::sql::keys`]) to the bucket.
pub(crate) async fn keys(
    reader: (&Transaction<'_>, Limit),
    (table, query): (&str, &Query),
    to: &Destination<'_>,
) -> Result<Vec<Object>, Error> {
    let mut objects = objects(to, (table, query), "keys.csv");
    each_line(reader, (table, query), async |line: Bytes| objects.write(&[&line]).await).await?;
    objects.end().await?;
    Ok(objects.done)
}

/// Writes keys of a table as [`keys`] copies them.
pub(crate) async fn gone(
    (table, query): (&str, &Query),
    keys: &[Key],
    to: &Destination<'_>,
) -> Result<Vec<Object>, Error> {
    let mut objects = objects(to, (table, query), "gone.csv");
    for key in keys {
        let fields: Vec<_> = key.iter().map(|value| csv_field(value)).collect();
        objects.write(&[fields.join(",").as_bytes(), b"\n"]).await?;
    }
    objects.end().await?;
    Ok(objects.done)
}

fn objects<'a>(to: &'a Destination<'a>, (table, query): (&'a str, &Query), extension: &'a str) -> Objects<'a> {
    Objects { to, table, extension, header: query.header(), done: Vec::new(), current: None }
}

/// Gives each row that a query returns to `each`, as a line of CSV. The server sends every row in a message of its own:
/// <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-COPY>
async fn each_line(
    (transaction, limit): (&Transaction<'_>, Limit),
    (table, query): (&str, &Query),
    mut each: impl AsyncFnMut(Bytes) -> Result<(), Error>,
) -> Result<(), Error> {
    let allowed = limit.set(transaction).await?;
    let doing = || format!("copy the rows of {table}");
    let explain = |error| allowed.explain(error);
    let lines = transaction.copy_out(&query.copy()).await.doing(doing()).map_err(explain)?;
    pin_mut!(lines);
    let (what, mut rows) = (format!("reading {table}"), 0);
    while let Some(line) = lines.next().await {
        each(line.doing(doing()).map_err(explain)?).await?;
        rows += 1;
        if rows % 10_000 == 0 {
            progress(&what, rows, 0);
        }
    }
    Ok(())
}
