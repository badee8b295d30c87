//! The rows of one star table: Parquet, a piece at a time, into a temporary table by COPY, and
//! from there by one upsert that leaves what is equal untouched.

use std::fmt::Write;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::ArrowError;
use blackwater_shared::postgres::{Doing, ident, idents};
use bytes::Bytes;
use deadpool_postgres::Transaction;
use futures_util::{SinkExt, pin_mut};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use tokio::sync::mpsc;

use crate::error::Error;

/// Rows that are in memory at once.
const PIECE: usize = 8192;

/// What an upsert did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) inserted: u64,
    pub(crate) updated: u64,
    pub(crate) unchanged: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: Self) {
        self.inserted += other.inserted;
        self.updated += other.updated;
        self.unchanged += other.unchanged;
    }
}

/// A Parquet file that was brought here.
pub(crate) struct StarFile {
    file: File,
    metadata: ArrowReaderMetadata,
}

impl StarFile {
    pub(crate) fn open(path: &Path) -> Result<Self, ParquetError> {
        let file = File::open(path).map_err(|error| ParquetError::External(Box::new(error)))?;
        let metadata = ArrowReaderMetadata::load(&file, Default::default())?;
        Ok(Self { file, metadata })
    }

    pub(crate) fn columns(&self) -> Vec<String> {
        self.metadata.schema().fields().iter().map(|field| field.name().clone()).collect()
    }

    /// Sends the rows as CSV, a piece at a time. Blocks.
    fn send(self, to: &mpsc::Sender<Bytes>) -> Result<(), ParquetError> {
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(self.file, self.metadata);
        for piece in reader.with_batch_size(PIECE).build()? {
            let lines = csv(&piece?)?;
            if to.blocking_send(lines.into()).is_err() {
                break; // The COPY failed, and says why.
            }
        }
        Ok(())
    }
}

/// Rows as COPY reads CSV: every value quoted, NULL as nothing.
fn csv(piece: &RecordBatch) -> Result<String, ArrowError> {
    let options = FormatOptions::default();
    let columns: Vec<_> = piece
        .columns()
        .iter()
        .map(|column| Ok((Arc::clone(column), ArrayFormatter::try_new(column.as_ref(), &options)?)))
        .collect::<Result<_, ArrowError>>()?;
    let (mut lines, mut value) = (String::new(), String::new());
    for row in 0..piece.num_rows() {
        for (number, (column, formatter)) in columns.iter().enumerate() {
            if number > 0 {
                lines.push(',');
            }
            if !column.is_null(row) {
                value.clear();
                formatter.value(row).write(&mut value)?;
                let _ = write!(lines, "\"{}\"", value.replace('"', "\"\""));
            }
        }
        lines.push('\n');
    }
    Ok(lines)
}

/// A temporary table with rows for one star table.
pub(crate) struct Stage<'a> {
    pub(crate) transaction: &'a Transaction<'a>,
    pub(crate) batch: u64,
    pub(crate) table: &'a str,
    /// The star table, schema and name quoted.
    pub(crate) star: String,
    /// The temporary table, quoted.
    pub(crate) stage: String,
    pub(crate) columns: Vec<String>,
}

impl Stage<'_> {
    fn doing(&self, doing: &str) -> String {
        format!("{doing} {} (batch {})", self.table, self.batch)
    }

    /// Makes the temporary table: the star table's columns and types, without its constraints.
    pub(crate) async fn create(&self) -> Result<(), Error> {
        let columns = idents("", &self.columns);
        let sql = format!(
            "CREATE TEMPORARY TABLE {} ON COMMIT DROP AS SELECT {columns} FROM {} WITH NO DATA",
            self.stage, self.star
        );
        Ok(self.transaction.batch_execute(&sql).await.doing(self.doing("make a temporary table for"))?)
    }

    /// Fills it from a Parquet file.
    pub(crate) async fn fill(&self, file: StarFile, object: &str) -> Result<(), Error> {
        let sql = format!("COPY {} ({}) FROM STDIN (FORMAT csv)", self.stage, idents("", &self.columns));
        let doing = || self.doing("copy rows of");
        let sink = self.transaction.copy_in(&sql).await.doing(doing())?;
        pin_mut!(sink);
        let (sender, mut pieces) = mpsc::channel(2);
        let reader = tokio::task::spawn_blocking(move || file.send(&sender));
        while let Some(piece) = pieces.recv().await {
            let sent: Result<(), tokio_postgres::Error> = sink.send(piece).await;
            sent.doing(doing())?;
        }
        match reader.await {
            Ok(Ok(())) => Ok(sink.finish().await.map(drop).doing(doing())?),
            Ok(Err(error)) => Err(Error::Parquet { batch: self.batch, object: object.into(), why: error.to_string() }),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    /// Equal rows under one key count once; rows that differ under one key are an error.
    pub(crate) async fn one_row_a_key(&self, key: &[String]) -> Result<(), Error> {
        let (stage, keys) = (&self.stage, idents("", key));
        let twice =
            format!("SELECT ROW({keys})::text, count(*) FROM {stage} GROUP BY {keys} HAVING count(*) > 1 LIMIT 1");
        let doing = || self.doing("compare the keys of");
        if self.transaction.query_opt(&twice, &[]).await.doing(doing())?.is_none() {
            return Ok(());
        }
        let same = equal("a.", "b.", key);
        let (one, other) = (idents("a.", &self.columns), idents("b.", &self.columns));
        let sql = format!(
            "DELETE FROM {stage} a USING {stage} b WHERE {same} AND a.ctid > b.ctid AND NOT (ROW({one})::record *<> ROW({other})::record)"
        );
        self.transaction.execute(&sql, &[]).await.doing(doing())?;
        match self.transaction.query_opt(&twice, &[]).await.doing(doing())? {
            None => Ok(()),
            Some(row) => Err(Error::Table {
                batch: self.batch,
                table: self.table.into(),
                why: format!(
                    "the key {} occurs {} times, with different rows",
                    row.get::<_, &str>(0),
                    row.get::<_, i64>(1)
                ),
            }),
        }
    }

    /// Inserts what is new and updates what differs. A row is compared as it is stored (`*<>`), so
    /// 1.0 is not 1.00, and types that know no equality, as json, work.
    pub(crate) async fn upsert(&self, key: &[String]) -> Result<Counts, Error> {
        let Self { stage, star, .. } = self;
        let content: Vec<_> = self.columns.iter().filter(|column| !key.contains(column)).collect();
        let columns = idents("", &self.columns);
        let same_key = equal("s.", "t.", key);
        let (differs, action) = match content.is_empty() {
            true => ("false".to_owned(), "NOTHING".to_owned()),
            false => {
                let set: Vec<_> = content.iter().map(|c| format!("{0} = EXCLUDED.{0}", ident(c))).collect();
                let differs =
                    format!("ROW({})::record *<> ROW({})::record", idents("s.", &content), idents("t.", &content));
                (differs, format!("UPDATE SET {}", set.join(", ")))
            }
        };
        // A row that is equal is left out before the INSERT: ON CONFLICT … WHERE would lock it,
        // which is a write.
        let sql = format!(
            "WITH written AS (
                 INSERT INTO {star} ({columns})
                 SELECT {columns} FROM {stage} t
                 WHERE NOT EXISTS (SELECT FROM {star} s WHERE {same_key} AND NOT ({differs}))
                 ON CONFLICT ({keys}) DO {action}
                 RETURNING xmax = 0 AS inserted)
             SELECT count(*) FILTER (WHERE inserted), count(*) FILTER (WHERE NOT inserted), (SELECT count(*) FROM {stage})
             FROM written",
            keys = idents("", key),
        );
        let row = self.transaction.query_one(&sql, &[]).await.doing(self.doing("write the rows of"))?;
        let [inserted, updated, all] = [0, 1, 2].map(|column| row.get::<_, i64>(column) as u64);
        Ok(Counts { inserted, updated, unchanged: all - inserted - updated })
    }

    /// Adds a version for each row that differs from the newest version of its business key. Rows
    /// are compared as in [`Stage::upsert`].
    pub(crate) async fn add_versions(&self, schema: &str, record: &str, key: &[String]) -> Result<Counts, Error> {
        let Self { stage, star, .. } = self;
        let (columns, record) = (idents("", &self.columns), ident(record));
        let newest = format!(
            "{star} s JOIN blackwater.version v ON v.star_schema = $1 AND v.star_table = $2 AND v.record = s.{record}
                 AND v.superseded IS NULL"
        );
        let equal_key = |one: &str, other: &str| equal(one, other, key);
        let sql = format!(
            "WITH fresh AS MATERIALIZED (
                 SELECT t.ctid AS {place}, {from_stage} FROM {stage} t
                 WHERE NOT EXISTS (SELECT FROM {newest} WHERE {same_as_stage}
                                   AND NOT (ROW({in_star})::record *<> ROW({from_stage})::record))),
             superseded AS (
                 UPDATE blackwater.version o SET superseded = $3
                 FROM fresh f, {newest}
                 WHERE {same_as_fresh} AND (o.star_schema, o.star_table, o.record) = (v.star_schema, v.star_table, v.record)),
             written AS (INSERT INTO {star} ({columns}) SELECT {columns} FROM fresh ORDER BY {place} RETURNING {record}),
             noted AS (
                 INSERT INTO blackwater.version (star_schema, star_table, record, batch)
                 SELECT $1, $2, {record}, $3 FROM written RETURNING 1)
             SELECT (SELECT count(*) FROM noted), (SELECT count(*) FROM {stage})",
            // No column of a model has this name.
            place = ident("blackwater:place"),
            from_stage = idents("t.", &self.columns),
            in_star = idents("s.", &self.columns),
            same_as_stage = equal_key("s.", "t."),
            same_as_fresh = equal_key("s.", "f."),
        );
        let batch = self.batch as i64;
        let row = self.transaction.query_one(&sql, &[&schema, &self.table, &batch]).await;
        let row = row.doing(self.doing("add the versions of"))?;
        let [inserted, all] = [0, 1].map(|column| row.get::<_, i64>(column) as u64);
        Ok(Counts { inserted, updated: 0, unchanged: all - inserted })
    }
}

/// `a.x = b.x AND …` for the columns of a key.
fn equal(one: &str, other: &str, key: &[String]) -> String {
    let equal: Vec<_> = key.iter().map(|column| format!("{one}{0} = {other}{0}", ident(column))).collect();
    equal.join(" AND ")
}
