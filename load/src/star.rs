//! The rows of one star table: Parquet, a piece at a time, into a temporary table by COPY, and
//! from there, once they are judged, by one upsert that leaves what is equal untouched.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::ArrowError;
use blackwater_shared::postgres::{Doing, ident, idents, literal};
use blackwater_shared::progress::progress;
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
    /// The columns of the key that are of a type which the source defines: a key may be none of the type here.
    pub(crate) foreign: BTreeSet<String>,
}

/// A temporary table with rows for a star table, or with keys of it.
pub(crate) struct Stage<'a> {
    pub(crate) target: &'a Target<'a>,
    /// Its name, quoted.
    pub(crate) name: String,
    columns: Vec<&'a Column>,
    /// Whether it has keys alone.
    of_keys: bool,
    /// Further columns of text, after them.
    extra: &'static [&'static str],
    /// The batch that brought a row `t`, in SQL.
    pub(crate) batch: String,
}

/// The number of a row in a stage: where it lies.
pub(crate) const PLACE: &str = "\"blackwater:place\"";
/// The column that says why a row does not fit.
pub(crate) const REASON: &str = "\"blackwater:reason\"";
/// The column that says, in a comparison, whether a row has changed.
pub(crate) const CHANGED: &str = "\"blackwater:changed\"";
/// The column that says which batch brought the row, where they are of several.
pub(crate) const BATCH: &str = "\"blackwater:batch\"";

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

    /// The condition that a row `s` of the star table has a key: `as_text` gives the value for a column of a type that
    /// the source defines, `typed` that for any other.
    pub(crate) fn has_key(&self, as_text: impl Fn(&Column) -> String, typed: impl Fn(&Column) -> String) -> String {
        let equal = |column: &&Column| {
            let ours = format!("s.{}", ident(&column.name));
            match self.foreign.contains(&column.name) {
                true => format!("{} = {}", column.key_text(&ours), as_text(column)),
                false => format!("{ours} = {}", typed(column)),
            }
        };
        self.key.iter().map(equal).collect::<Vec<_>>().join(" AND ")
    }

    /// The rows of the star table that stand for a row of the source, as `s`: all that are not
    /// deleted, of a history the newest version of each.
    pub(crate) fn live(&self) -> String {
        let deleted = if self.star.marks_deletions() { format!("s.{DELETED_AT} IS NULL") } else { "true".into() };
        format!("{} WHERE {deleted}", self.newest())
    }

    /// All rows of the star table as `s`, of a history the newest version of each.
    fn newest(&self) -> String {
        match self.is_newest() {
            None => format!("{} AS s", self.quoted),
            Some(condition) => format!("{} AS s JOIN blackwater.version v ON {condition}", self.quoted),
        }
    }

    /// The condition that the row `s` of a history is the newest version, by its line `v` in `blackwater.version`.
    pub(crate) fn is_newest(&self) -> Option<String> {
        let Writing::History { record } = self.writing else { return None };
        let (schema, name) = (literal(self.batch.schema), literal(self.name));
        let of_row = format!("v.star_schema = {schema} AND v.star_table = {name} AND v.record = s.{}", ident(record));
        Some(format!("{of_row} AND v.superseded IS NULL"))
    }

    /// The query for the keys of the rows of a history that are no version of any batch, as arrays of text.
    pub(crate) fn unknown(&self) -> Option<String> {
        let Writing::History { record } = self.writing else { return None };
        let key: Vec<_> =
            self.key.iter().map(|column| column.key_text(&format!("s.{}", ident(&column.name)))).collect();
        Some(format!(
            "SELECT ARRAY[{key}]::text[] AS key FROM {star} s WHERE NOT EXISTS (
                 SELECT FROM blackwater.version v
                 WHERE v.star_schema = {schema} AND v.star_table = {table} AND v.record = s.{record})",
            key = key.join(", "),
            star = self.quoted,
            schema = literal(self.batch.schema),
            table = literal(self.name),
            record = ident(record),
        ))
    }

    /// Makes a temporary table for rows.
    pub(crate) async fn rows(&'a self, extra: &'static [&'static str]) -> Result<Stage<'a>, Error> {
        self.stage(false, extra).await
    }

    /// Makes a temporary table for keys.
    pub(crate) async fn keys(&'a self, extra: &'static [&'static str]) -> Result<Stage<'a>, Error> {
        self.stage(true, extra).await
    }

    async fn stage(&'a self, of_keys: bool, extra: &'static [&'static str]) -> Result<Stage<'a>, Error> {
        let columns = if of_keys { &self.key } else { &self.columns }.clone();
        let batch = match extra.contains(&BATCH) {
            true => format!("t.{BATCH}::bigint"),
            false => self.batch.number.to_string(),
        };
        let stage = Stage { target: self, name: self.batch.temporary(), columns, of_keys, extra, batch };
        stage.create(&stage.name, |column| stage.kinds(column).0).await?;
        Ok(stage)
    }
}

impl Stage<'_> {
    /// The same, with rows that another batch brought.
    pub(crate) fn of_batch(mut self, batch: u64) -> Self {
        self.batch = batch.to_string();
        self
    }

    /// Takes all rows out.
    pub(crate) async fn clear(&self) -> Result<(), Error> {
        let cleared = self.target.batch.transaction.batch_execute(&format!("TRUNCATE {}", self.name)).await;
        Ok(cleared.doing(self.doing("clear a temporary table for"))?)
    }

    fn doing(&self, doing: &str) -> String {
        self.target.doing(doing)
    }

    /// The types of a column: as it is held, and as it counts.
    fn kinds<'c>(&self, column: &'c Column) -> (Cow<'c, str>, &'c str) {
        match self.of_keys && self.target.foreign.contains(&column.name) {
            true => ("text".into(), "text"),
            false => (column.stage_kind(), &column.kind),
        }
    }

    async fn create(&self, name: &str, kind: impl Fn(&Column) -> Cow<'_, str>) -> Result<(), Error> {
        let mut columns: Vec<_> = self
            .columns
            .iter()
            .map(|column| format!("{} {}{}", ident(&column.name), kind(column), column.collation))
            .collect();
        columns.extend(self.extra.iter().map(|name| format!("{name} text")));
        let sql = format!("CREATE TEMPORARY TABLE IF NOT EXISTS {name} ({}) ON COMMIT DROP", columns.join(", "));
        let made = self.target.batch.transaction.batch_execute(&sql).await;
        Ok(made.doing(self.doing("make a temporary table for"))?)
    }

    /// Its rows with the columns as the star table has them, for a FROM clause.
    pub(crate) fn typed(&self) -> String {
        let columns = self.columns.iter().map(|column| match self.kinds(column) {
            (held, counts) if held == counts => ident(&column.name),
            (_, counts) => format!("{0}::{counts} AS {0}", ident(&column.name)),
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
        let what = format!("loading {}", self.target.name);
        let (mut done, all) = (0, objects.iter().map(|object| object.rows).sum());
        for object in objects {
            progress(&what, done, all);
            done += object.rows;
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
        // A key that does not fit is the fault of the table.
        if self.of_keys {
            return self.copy(name, path, key).await;
        }
        if batch.attempt(self.doing("copy rows of"), async || self.copy(name, path, key).await).await?.is_some() {
            return Ok(());
        }
        // As text, so that Postgres can be asked for each value.
        let text = format!("{name}_text");
        self.create(&text, |_| "text".into()).await?;
        self.copy(&text, path, key).await?;
        self.set_misfits_aside(&text).await?;
        let cast = self.columns.iter().map(|column| format!("{}::{}", ident(&column.name), column.stage_kind()));
        let cast: Vec<_> = cast.chain(self.extra.iter().map(|name| (*name).to_owned())).collect();
        let sql = format!("INSERT INTO {name} SELECT {} FROM {text}; TRUNCATE {text}", cast.join(", "));
        Ok(batch.transaction.batch_execute(&sql).await.doing(self.doing("copy rows of"))?)
    }

    async fn copy(&self, name: &str, path: &Path, key: &str) -> Result<(), Error> {
        let doing = || self.doing("copy rows of");
        let unreadable = |error: ParquetError| Error::Parquet {
            batch: self.target.batch.number,
            object: key.to_owned(),
            why: error.to_string(),
        };
        let file = StarFile::open(path).map_err(unreadable)?;
        let mut columns: Vec<_> = self.columns.iter().map(|column| ident(&column.name)).collect();
        columns.extend(self.extra.iter().map(|name| (*name).to_owned()));
        let sql = format!("COPY {name} ({}) FROM STDIN (FORMAT csv)", columns.join(", "));
        let sink = self.target.batch.transaction.copy_in(&sql).await.doing(doing())?;
        pin_mut!(sink);
        let (sender, mut pieces) = mpsc::channel(2);
        let reader = tokio::task::spawn_blocking(move || file.send(&sender));
        while let Some(piece) = pieces.recv().await {
            let sent: Result<(), tokio_postgres::Error> = sink.send(piece).await;
            sent.doing(doing())?;
        }
        match reader.await {
            Ok(Ok(())) => Ok(sink.finish().await.map(drop).doing(doing())?),
            Ok(Err(error)) => Err(unreadable(error)),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    /// Writes its rows to the star table, less those that it would refuse, which go to quarantine.
    pub(crate) async fn land(&self) -> Result<Counts, Error> {
        progress(&format!("writing {}", self.target.name), 0, 0);
        let batch = self.target.batch;
        match batch.attempt(self.doing("write the rows of"), async || self.judge_and_write().await).await? {
            Some(landed) => Ok(landed),
            None => {
                // What sets do not find: a column that the warehouse computes, a function in a constraint.
                self.try_each().await?;
                self.judge_and_write().await
            }
        }
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
        let columns = self.columns("");
        // The key too: 1.0 and 1.00 are one key.
        let mut set: Vec<_> =
            self.columns.iter().map(|column| format!("{0} = EXCLUDED.{0}", ident(&column.name))).collect();
        let mut differs = format!("ROW({})::record *<> ROW({})::record", self.columns("s."), self.columns("t."));
        if self.target.star.marks_deletions() {
            set.push(format!("{DELETED_AT} = NULL"));
            differs.push_str(&format!(" OR s.{DELETED_AT} IS NOT NULL"));
        }
        // A row that is equal is left out before the INSERT: ON CONFLICT … WHERE would lock it,
        // which is a write.
        let sql = format!(
            "WITH written AS (
                 INSERT INTO {star} ({columns})
                 SELECT {columns} FROM {stage} t
                 WHERE NOT EXISTS (SELECT FROM {star} s WHERE {same_key} AND NOT ({differs}))
                 ON CONFLICT ({keys}) DO UPDATE SET {set}
                 RETURNING xmax = 0 AS inserted)
             SELECT count(*) FILTER (WHERE inserted), count(*) FILTER (WHERE NOT inserted), (SELECT count(*) FROM {name})
             FROM written",
            stage = self.typed(),
            name = self.name,
            same_key = self.target.same_key("s", "t"),
            keys = idents("", key),
            set = set.join(", "),
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
