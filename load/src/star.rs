//! The rows of one star table: Parquet, a piece at a time, into a temporary table by COPY, and
//! from there, once they are judged, by one upsert that leaves what is equal untouched.

use std::borrow::Cow;
use std::fmt::Write;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::ArrowError;
use blackwater_shared::postgres::{self, Doing, ident, idents, literal};
use blackwater_shared::store::Object;
use bytes::Bytes;
use futures_util::{SinkExt, pin_mut};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use tokio::sync::mpsc;

use crate::Counts;
use crate::batch::Batch;
use crate::catalogue::{Column, DELETED_AT, Star, Writing};
use crate::error::Error;

/// Rows that are in memory at once.
const PIECE: usize = 8192;

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

/// A star table, and how a batch writes to it.
pub(crate) struct Target<'a> {
    pub(crate) batch: &'a Batch<'a>,
    pub(crate) name: &'a str,
    /// Schema and name, quoted.
    pub(crate) quoted: String,
    pub(crate) star: &'a Star,
    pub(crate) writing: Writing<'a>,
    /// The columns that the model returns.
    pub(crate) columns: Vec<&'a Column>,
    /// Those that tell the source's rows apart; of a set of values its own key.
    pub(crate) key: Vec<&'a Column>,
}

/// A temporary table with rows for a star table, or with keys of it.
pub(crate) struct Stage<'a> {
    pub(crate) target: &'a Target<'a>,
    /// Its name, quoted.
    pub(crate) name: String,
    columns: Vec<&'a Column>,
    /// Further columns of text, after them.
    extra: &'static [&'static str],
    /// The batch that brought the rows.
    pub(crate) of_batch: u64,
}

/// The number of a row in a stage: where it lies.
pub(crate) const PLACE: &str = "\"blackwater:place\"";
/// The column that says why a row does not fit.
pub(crate) const REASON: &str = "\"blackwater:reason\"";
/// The column that says, in a comparison, whether a row has changed.
pub(crate) const CHANGED: &str = "\"blackwater:changed\"";

impl<'a> Target<'a> {
    pub(crate) fn doing(&self, doing: &str) -> String {
        format!("{doing} {} (batch {})", self.name, self.batch.number)
    }

    /// `a.x = b.x AND …` for the columns of the key, each side as the star table has it.
    pub(crate) fn same_key(&self, one: &str, other: &str) -> String {
        let equal: Vec<_> =
            self.key.iter().map(|column| format!("{one}.{0} = {other}.{0}", ident(&column.name))).collect();
        equal.join(" AND ")
    }

    /// The rows of the star table that stand for a row of the source, as `s`: all that are not
    /// deleted, of a history the newest version of each.
    pub(crate) fn live(&self) -> String {
        let deleted = if self.star.marks_deletions() { format!("s.{DELETED_AT} IS NULL") } else { "true".into() };
        format!("{} WHERE {deleted}", self.newest())
    }

    /// All rows of the star table as `s`, of a history the newest version of each.
    fn newest(&self) -> String {
        match self.writing {
            Writing::Upsert(_) => format!("{} AS s", self.quoted),
            Writing::History { record } => format!(
                "{} AS s JOIN blackwater.version v
                 ON v.star_schema = {} AND v.star_table = {} AND v.record = s.{} AND v.superseded IS NULL",
                self.quoted,
                literal(self.batch.schema),
                literal(self.name),
                ident(record)
            ),
        }
    }

    /// Makes a temporary table for rows.
    pub(crate) async fn rows(&'a self, extra: &'static [&'static str]) -> Result<Stage<'a>, Error> {
        self.stage(self.columns.clone(), extra).await
    }

    /// Makes a temporary table for keys.
    pub(crate) async fn keys(&'a self, extra: &'static [&'static str]) -> Result<Stage<'a>, Error> {
        self.stage(self.key.clone(), extra).await
    }

    async fn stage(&'a self, columns: Vec<&'a Column>, extra: &'static [&'static str]) -> Result<Stage<'a>, Error> {
        let (name, of_batch) = (self.batch.temporary("stage"), self.batch.number);
        let stage = Stage { target: self, name, columns, extra, of_batch };
        stage.create(&stage.name, Column::stage_kind).await?;
        Ok(stage)
    }
}

impl Stage<'_> {
    /// The same, with rows that an earlier batch brought.
    pub(crate) fn of_batch(mut self, batch: u64) -> Self {
        self.of_batch = batch;
        self
    }

    fn doing(&self, doing: &str) -> String {
        self.target.doing(doing)
    }

    async fn create(&self, name: &str, kind: impl Fn(&Column) -> Cow<'_, str>) -> Result<(), Error> {
        let mut columns: Vec<_> = self
            .columns
            .iter()
            .map(|column| format!("{} {}{}", ident(&column.name), kind(column), column.collation))
            .collect();
        columns.extend(self.extra.iter().map(|name| format!("{name} text")));
        let sql = format!("CREATE TEMPORARY TABLE {name} ({}) ON COMMIT DROP", columns.join(", "));
        let made = self.target.batch.transaction.batch_execute(&sql).await;
        Ok(made.doing(self.doing("make a temporary table for"))?)
    }

    /// Its rows with the columns as the star table has them, for a FROM clause.
    pub(crate) fn typed(&self) -> String {
        let columns = self.columns.iter().map(|column| match column.stage_kind() == column.kind {
            true => ident(&column.name),
            false => format!("{0}::{1} AS {0}", ident(&column.name), column.kind),
        });
        let columns: Vec<_> = columns.chain(self.extra.iter().map(|name| (*name).to_owned())).collect();
        format!("(SELECT ctid AS {PLACE}, {} FROM {})", columns.join(", "), self.name)
    }

    /// Why a row `t` is set aside, for what is called so; in a comparison after a letter that says whether it has
    /// changed.
    pub(crate) fn why(&self) -> String {
        match self.extra.contains(&CHANGED) {
            true => format!("t.{CHANGED} || bad.why"),
            false => "bad.why".into(),
        }
    }

    pub(crate) fn columns(&self, prefix: &str) -> String {
        idents(prefix, self.columns.iter().map(|column| &column.name))
    }

    /// Fills it from Parquet objects.
    pub(crate) async fn fill(self, objects: &[Object]) -> Result<Self, Error> {
        let batch = self.target.batch;
        for object in objects {
            let path = batch.folder.join("rows.parquet");
            batch.store.download(object, &path).await?;
            self.fill_from(&path, &object.key).await?;
        }
        Ok(self)
    }

    /// Fills it from a Parquet file, that of the object `key`. What Postgres does not take for a value of its
    /// type goes to quarantine.
    pub(crate) async fn fill_from(&self, path: &Path, key: &str) -> Result<(), Error> {
        let Self { target, name, .. } = self;
        let batch = target.batch;
        let transaction = batch.transaction;
        let execute = async |sql: &str| transaction.batch_execute(sql).await.doing(self.doing("copy rows of"));
        execute("SAVEPOINT copy").await?;
        match self.copy(name, path, key).await? {
            Ok(()) => return Ok(execute("RELEASE copy").await?),
            // A key that does not fit is the fault of the table.
            Err(error) if !postgres::is_of_data(&error) || self.columns.len() < target.columns.len() => {
                return Ok(Err(error).doing(self.doing("copy rows of"))?);
            }
            Err(_) => execute("ROLLBACK TO copy").await?,
        }
        // As text, so that Postgres can be asked for each value.
        let text = batch.temporary("text");
        self.create(&text, |_| "text".into()).await?;
        self.copy(&text, path, key).await?.doing(self.doing("copy rows of"))?;
        self.set_misfits_aside(&text).await?;
        let cast = self.columns.iter().map(|column| format!("{}::{}", ident(&column.name), column.stage_kind()));
        let cast: Vec<_> = cast.chain(self.extra.iter().map(|name| (*name).to_owned())).collect();
        Ok(execute(&format!("INSERT INTO {name} SELECT {} FROM {text}; DROP TABLE {text}", cast.join(", "))).await?)
    }

    async fn copy(&self, name: &str, path: &Path, key: &str) -> Result<Result<(), tokio_postgres::Error>, Error> {
        let unreadable = |error: ParquetError| Error::Parquet {
            batch: self.target.batch.number,
            object: key.to_owned(),
            why: error.to_string(),
        };
        let file = StarFile::open(path).map_err(unreadable)?;
        let mut columns: Vec<_> = self.columns.iter().map(|column| ident(&column.name)).collect();
        columns.extend(self.extra.iter().map(|name| (*name).to_owned()));
        let sql = format!("COPY {name} ({}) FROM STDIN (FORMAT csv)", columns.join(", "));
        let sink = match self.target.batch.transaction.copy_in(&sql).await {
            Ok(sink) => sink,
            Err(error) => return Ok(Err(error)),
        };
        pin_mut!(sink);
        let (sender, mut pieces) = mpsc::channel(2);
        let reader = tokio::task::spawn_blocking(move || file.send(&sender));
        while let Some(piece) = pieces.recv().await {
            let sent: Result<(), tokio_postgres::Error> = sink.send(piece).await;
            if let Err(error) = sent {
                return Ok(Err(error));
            }
        }
        match reader.await {
            Ok(Ok(())) => Ok(sink.finish().await.map(drop)),
            Ok(Err(error)) => Err(unreadable(error)),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    /// Writes its rows to the star table, less those that it would refuse, which go to quarantine.
    pub(crate) async fn land(&self) -> Result<Counts, Error> {
        let execute = async |sql: &str| {
            let done = self.target.batch.transaction.batch_execute(sql).await;
            done.doing(self.doing("write the rows of"))
        };
        execute("SAVEPOINT land").await?;
        let landed = match self.judge_and_write().await {
            Err(Error::Postgres(error)) if error.is_of_data() => {
                // What sets do not find: a column that the warehouse computes, a function in a constraint.
                execute("ROLLBACK TO land").await?;
                self.try_each().await?;
                self.judge_and_write().await?
            }
            landed => landed?,
        };
        execute("RELEASE land").await?;
        Ok(landed)
    }

    async fn judge_and_write(&self) -> Result<Counts, Error> {
        self.judge().await?;
        match self.target.writing {
            Writing::Upsert(key) => self.upsert(key).await,
            Writing::History { record } => self.add_versions(record).await,
        }
    }

    /// Inserts what is new and updates what differs. A row is compared as it is stored (`*<>`), so
    /// 1.0 is not 1.00, and types that know no equality, as json, work.
    async fn upsert(&self, key: &[String]) -> Result<Counts, Error> {
        let Target { quoted: star, batch, .. } = self.target;
        let content: Vec<_> =
            self.columns.iter().map(|column| &column.name).filter(|column| !key.contains(column)).collect();
        let columns = self.columns("");
        let mut set: Vec<_> = content.iter().map(|c| format!("{0} = EXCLUDED.{0}", ident(c))).collect();
        let mut differs = match content.is_empty() {
            true => "false".to_owned(),
            false => format!("ROW({})::record *<> ROW({})::record", idents("s.", &content), idents("t.", &content)),
        };
        if self.target.star.marks_deletions() {
            set.push(format!("{DELETED_AT} = NULL"));
            differs.push_str(&format!(" OR s.{DELETED_AT} IS NOT NULL"));
        }
        let action = if set.is_empty() { "NOTHING".to_owned() } else { format!("UPDATE SET {}", set.join(", ")) };
        // A row that is equal is left out before the INSERT: ON CONFLICT … WHERE would lock it,
        // which is a write.
        let sql = format!(
            "WITH written AS (
                 INSERT INTO {star} ({columns})
                 SELECT {columns} FROM {stage} t
                 WHERE NOT EXISTS (SELECT FROM {star} s WHERE {same_key} AND NOT ({differs}))
                 ON CONFLICT ({keys}) DO {action}
                 RETURNING xmax = 0 AS inserted)
             SELECT count(*) FILTER (WHERE inserted), count(*) FILTER (WHERE NOT inserted), (SELECT count(*) FROM {name})
             FROM written",
            stage = self.typed(),
            name = self.name,
            same_key = self.target.same_key("s", "t"),
            keys = idents("", key),
        );
        let row = batch.transaction.query_one(&sql, &[]).await.doing(self.doing("write the rows of"))?;
        let [inserted, updated, all] = [0, 1, 2].map(|column| row.get::<_, i64>(column) as u64);
        Ok(Counts { inserted, updated, unchanged: all - inserted - updated, ..Counts::default() })
    }

    /// Adds a version for each row that differs from the newest version of its business key, or
    /// whose newest version is deleted. Rows are compared as in [`Stage::upsert`].
    async fn add_versions(&self, record: &str) -> Result<Counts, Error> {
        let Target { quoted: star, batch, .. } = self.target;
        let (columns, record) = (self.columns(""), ident(record));
        let deleted = match self.target.star.marks_deletions() {
            true => format!(" AND s.{DELETED_AT} IS NULL"),
            false => String::new(),
        };
        let sql = format!(
            "WITH fresh AS MATERIALIZED (
                 SELECT t.{PLACE}, {from_stage} FROM {stage} t
                 WHERE NOT EXISTS (SELECT FROM {newest} WHERE {same_as_stage}{deleted}
                                   AND NOT (ROW({in_star})::record *<> ROW({from_stage})::record))),
             superseded AS (
                 UPDATE blackwater.version o SET superseded = $3
                 FROM fresh f, {newest}
                 WHERE {same_as_fresh} AND (o.star_schema, o.star_table, o.record) = (v.star_schema, v.star_table, v.record)),
             written AS (INSERT INTO {star} ({columns}) SELECT {columns} FROM fresh ORDER BY {PLACE} RETURNING {record}),
             noted AS (
                 INSERT INTO blackwater.version (star_schema, star_table, record, batch)
                 SELECT $1, $2, {record}, $3 FROM written RETURNING 1)
             SELECT (SELECT count(*) FROM noted), (SELECT count(*) FROM {name})",
            stage = self.typed(),
            name = self.name,
            newest = self.target.newest(),
            from_stage = self.columns("t."),
            in_star = self.columns("s."),
            same_as_stage = self.target.same_key("s", "t"),
            same_as_fresh = self.target.same_key("s", "f"),
        );
        let row = batch.transaction.query_one(&sql, &[&batch.schema, &self.target.name, &(batch.number as i64)]).await;
        let row = row.doing(self.doing("add the versions of"))?;
        let [inserted, all] = [0, 1].map(|column| row.get::<_, i64>(column) as u64);
        Ok(Counts { inserted, unchanged: all - inserted, ..Counts::default() })
    }
}
