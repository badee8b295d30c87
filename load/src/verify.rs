//! The warehouse beside the source: both in the order of the keys, whole rows, as text.
//!
//! The source's rows go through temporary tables, so that the warehouse's own types print both sides.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::AtomicU32;

use blackwater_shared::manifest::StarTable;
use blackwater_shared::postgres::{Doing, ident, literal};
use blackwater_shared::progress::progress;
use bytes::Bytes;
use chrono::DateTime;
use futures_util::{Stream, StreamExt};
use serde::Serialize;
use serde_json::Value;
use tokio_postgres::IsolationLevel;

use crate::batch::Batch;
use crate::catalogue::{self, Column, Star};
use crate::error::Error;
use crate::ledger::Newest;
use crate::quarantine::{self, Entry};
use crate::star::{CHANGED, REASON, Stage, Target};
use crate::{Load, SESSION, ledger};

/// How many differences of a table are shown.
const SHOWN: usize = 5;
/// The batch of rows that are set aside in a comparison. None has this number, and nothing is committed.
const NO_BATCH: u64 = 0;

/// Star rows made of the source now, as Parquet files; none where there are no rows.
#[derive(Debug)]
pub struct Piece {
    /// The rows, and whether each has changed.
    pub rows: Option<PathBuf>,
    /// The keys of the rows in which a value does not fit, whether each has changed, and why.
    pub misfits: Option<PathBuf>,
    /// The keys of the rows that the model does not let through, and whether each has changed.
    pub filtered: Option<PathBuf>,
}

/// What a comparison found in a star table.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Verdict {
    /// The star table.
    pub table: String,
    /// Rows that are the same on both sides.
    pub equal: u64,
    /// Rows of the source that were written, or deleted, after the newest batch.
    pub not_yet: u64,
    /// Rows that are in quarantine as the source has them.
    pub held_back: u64,
    /// Rows that the source no longer has, in a table that has no column to mark that.
    pub kept: u64,
    /// Rows that differ.
    pub different: u64,
    /// The first of them.
    pub differences: Vec<Difference>,
}

/// A row that differs.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// The columns of its key, and their values.
    pub key: Vec<(String, String)>,
    /// In what.
    #[serde(flatten)]
    pub what: What,
}

/// In what a row differs.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum What {
    /// The warehouse has not got it.
    Missing,
    /// The source has not got it.
    Extra,
    /// The model does not let it through, and the warehouse has it.
    NotLetThrough,
    /// It cannot be written, and is not in quarantine.
    Refused {
        /// Why not.
        reason: String,
    },
    /// Columns have other values.
    Columns {
        /// Column, value made of the source, value in the warehouse.
        columns: Vec<(String, Option<String>, Option<String>)>,
    },
}

/// A comparison under way, with the state of the warehouse when it began.
pub struct Comparison<'a> {
    load: &'a Load,
    /// Sees the warehouse as it was when the comparison began.
    snapshot: Batch<'a>,
    /// Where the source's rows are printed; it is rolled back.
    scratch: Batch<'a>,
    newest: Newest,
    entries: Vec<Entry>,
}

/// A row of the source, as the warehouse would have it.
struct Row {
    key: Vec<String>,
    changed: bool,
    outcome: Outcome,
}

enum Outcome {
    Written { values: Vec<Option<String>>, star_row: String },
    Filtered,
    Refused { reason: String, star_row: Option<Value> },
}

impl Load {
    /// Opens the warehouse for a comparison, and hands it to `each`; `None` if no batch is applied.
    ///
    /// # Errors
    /// Those of the warehouse, and of `each`.
    pub async fn verify<T, E: From<Error>>(
        &self,
        each: impl AsyncFnOnce(&Comparison<'_>) -> Result<T, E>,
    ) -> Result<Option<T>, E> {
        let doing = "open the warehouse for a comparison";
        let connect = async || self.warehouse.connect().await.map_err(Error::from);
        let (mut one, mut other) = (connect().await?, connect().await?);
        if !ledger::exists(&one).await? {
            return Ok(None);
        }
        let snapshot = one.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
        let snapshot = snapshot.start().await.doing(doing).map_err(Error::from)?;
        let scratch = other.transaction().await.doing(doing).map_err(Error::from)?;
        for transaction in [&snapshot, &scratch] {
            // One waits while the other works.
            let session = format!("{SESSION}; SET LOCAL idle_in_transaction_session_timeout = 0");
            transaction.batch_execute(&session).await.doing(doing).map_err(Error::from)?;
        }
        let Some(newest) = ledger::newest(snapshot.client(), &self.schema).await? else { return Ok(None) };
        self.same_log(&newest).await?;
        let entries = quarantine::entries(snapshot.client(), &self.schema, true).await?;
        let folder = tempfile::tempdir().map_err(|why| Error::File { path: std::env::temp_dir(), why })?;
        let batch_on = |transaction| Batch {
            transaction,
            store: self.log.store(),
            schema: &self.schema,
            number: newest.batch,
            at: DateTime::UNIX_EPOCH,
            folder: folder.path(),
            temporaries: AtomicU32::new(0),
        };
        let (snapshot, scratch) = (batch_on(&snapshot), batch_on(&scratch));
        let comparison = Comparison { load: self, snapshot, scratch, newest, entries };
        each(&comparison).await.map(Some)
    }
}

impl Comparison<'_> {
    /// The newest batch of the warehouse.
    #[must_use]
    pub fn batch(&self) -> u64 {
        self.newest.batch
    }

    /// Compares a star table with the pieces that `next` gives, in the order of the keys. `then` are the
    /// rows that the driving table had in the newest batch; `None` if that does not complete it.
    ///
    /// # Errors
    /// Those of the warehouse, and of `next`.
    pub async fn table<E: From<Error>>(
        &self,
        name: &str,
        model: &StarTable,
        then: Option<u64>,
        next: &mut impl AsyncFnMut() -> Result<Option<Piece>, E>,
    ) -> Result<Verdict, E> {
        let stars = catalogue::read(self.snapshot.transaction, &self.load.schema, &[name]).await?;
        let target = self.scratch.target(name, model, stars.get(name))?;
        let Some(driving) = &model.driving else { return self.values(&target, next).await };
        let star = stars.get(name);
        let (held, mut lines) = self.open(name, model, star).await?;
        let mut merge = Merge {
            target: &target,
            entries: entries_of(&target, &self.entries),
            verdict: Verdict { table: name.to_owned(), ..Verdict::default() },
            extra: Vec::new(),
            extra_rows: 0,
            unknown: (Vec::new(), 0),
            missing: false,
        };
        let mut star_row = lines.next(&target).await?;
        let (what, mut done) = (format!("comparing {name}"), 0);
        while let Some(piece) = next().await? {
            progress(&what, done, then.unwrap_or(0));
            for row in self.rows(&target, piece).await? {
                done += 1;
                while let Some((key, _)) = star_row.as_ref().filter(|(key, _)| *key < row.key) {
                    merge.extra(key);
                    star_row = lines.next(&target).await?;
                }
                match star_row.take_if(|(key, _)| *key == row.key) {
                    Some((_, values)) => {
                        merge.both(row, &values);
                        star_row = lines.next(&target).await?;
                    }
                    None => merge.only_source(row),
                }
            }
        }
        while let Some((key, _)) = star_row {
            merge.extra(&key);
            star_row = lines.next(&target).await?;
        }
        drop(lines);
        merge.unknown = self.unknown(&target).await?;
        // Equal counts mean equal sets, so what is gone now went after the batch; where they differ, load
        // has asked for the keys. Before a table is complete nobody counts.
        let is_known = then.is_none() || held == then && !merge.missing || self.newest.wanted.contains(&driving.table);
        Ok(merge.finish(is_known))
    }

    /// The source rows that the star table knows of, and its rows in the order of their keys.
    async fn open(&self, name: &str, model: &StarTable, star: Option<&Star>) -> Result<(Option<u64>, Lines), Error> {
        let target = self.snapshot.target(name, model, star)?;
        let held = match target.held() {
            None => None,
            Some(query) => {
                let row =
                    self.snapshot.transaction.query_one(&query, &[]).await.doing(target.doing("count the rows of"))?;
                Some(row.get::<_, i64>(0) as u64)
            }
        };
        let keys = |after: &str| {
            let key = |column: &&Column| column.key_text(&format!("s.{}", ident(&column.name))) + after;
            target.key.iter().map(key).collect::<Vec<_>>().join(", ")
        };
        let columns: Vec<_> = target.columns.iter().map(|column| format!("s.{}", ident(&column.name))).collect();
        let sql = format!(
            "COPY (SELECT {}, {} FROM {} ORDER BY {}) TO STDOUT",
            keys(""),
            columns.join(", "),
            target.live(),
            keys(" COLLATE \"C\"")
        );
        let lines = self.snapshot.transaction.copy_out(&sql).await.doing(target.doing("read the rows of"))?;
        Ok((held, Lines(Box::pin(lines))))
    }

    /// The first keys of the rows of a history that are no version of any batch, and how many there are.
    async fn unknown(&self, target: &Target<'_>) -> Result<(Vec<Vec<String>>, u64), Error> {
        let Some(query) = target.unknown() else { return Ok((Vec::new(), 0)) };
        let query = format!("SELECT key, count(*) OVER () FROM ({query}) u LIMIT {SHOWN}");
        let rows =
            self.snapshot.transaction.query(&query, &[]).await.doing(target.doing("look for strange rows in"))?;
        let all = rows.first().map_or(0, |row| row.get::<_, i64>(1) as u64);
        Ok((rows.iter().map(|row| row.get(0)).collect(), all))
    }

    /// The source's rows of a piece, as the warehouse would have them, in the order of their keys.
    async fn rows(&self, target: &Target<'_>, piece: Piece) -> Result<Vec<Row>, Error> {
        let execute = async |sql: &str| {
            let done = self.scratch.transaction.batch_execute(sql).await;
            done.doing(target.doing("print the rows of"))
        };
        // A temporary table is locked to the end of what made it.
        execute("SAVEPOINT piece").await?;
        let rows = self.printed(target, piece).await?;
        execute("ROLLBACK TO piece; RELEASE piece").await?;
        Ok(rows)
    }

    async fn printed(&self, target: &Target<'_>, piece: Piece) -> Result<Vec<Row>, Error> {
        let each = |columns: &[&Column], of: &dyn Fn(&Column) -> String| {
            columns.iter().map(|column| of(column)).collect::<Vec<_>>().join(", ")
        };
        let mut rows = Vec::new();
        if let Some(path) = piece.rows {
            let stage = target.rows(&[CHANGED]).await?.of_batch(NO_BATCH);
            stage.fill_from(&path, "the rows of the source").await?;
            stage.fit().await?;
            let typed = |column: &Column| format!("t.{}::{}", ident(&column.name), column.kind);
            let query = format!(
                "SELECT {key}, {CHANGED}, json_object(ARRAY[{names}], ARRAY[{texts}]), {values} FROM {stage} t",
                key = each(&target.key, &|column| column.key_text(&typed(column))),
                names = each(&target.columns, &|column| literal(&column.name)),
                texts = each(&target.columns, &|column| format!("t.{}::text", ident(&column.name))),
                values = each(&target.columns, &typed),
                stage = stage.name,
            );
            for mut line in self.read_fitting(&stage, &query).await? {
                let values = line.split_off(target.key.len() + 2);
                let star_row = line.pop().flatten().unwrap_or_default();
                rows.push(row(line, Outcome::Written { values, star_row }));
            }
            rows.extend(self.refused(target).await?);
        }
        for (path, has_reason) in [(piece.misfits, true), (piece.filtered, false)] {
            let Some(path) = path else { continue };
            let stage = target.keys(if has_reason { &[CHANGED, REASON] } else { &[CHANGED] }).await?;
            stage.fill_from(&path, "the keys of the source").await?;
            let reason = if has_reason { format!(", {REASON}") } else { String::new() };
            let key = each(&target.key, &|column| column.key_text(&format!("t.{}", ident(&column.name))));
            let query = format!("SELECT {key}, {CHANGED}{reason} FROM {} t", stage.typed());
            for mut line in self.read(target, &query).await? {
                let outcome = match has_reason {
                    true => Outcome::Refused { reason: line.pop().flatten().unwrap_or_default(), star_row: None },
                    false => Outcome::Filtered,
                };
                rows.push(row(line, outcome));
            }
        }
        rows.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(rows)
    }

    /// The rows that were set aside on their way here.
    async fn refused(&self, target: &Target<'_>) -> Result<Vec<Row>, Error> {
        let sql = "SELECT key, reason, star_row FROM blackwater.quarantine
                   WHERE star_schema = $1 AND star_table = $2 AND batch = $3";
        let number = NO_BATCH as i64;
        let gone = self.scratch.transaction.query(sql, &[&self.load.schema, &target.name, &number]).await;
        let refused = |entry: &tokio_postgres::Row| {
            let (key, reason): (Value, String) = (entry.get(0), entry.get(1));
            let key = target.key.iter().map(|column| key[&column.name].as_str().unwrap_or_default().to_owned());
            // The first letter says whether it has changed.
            let (changed, reason) = reason.split_at_checked(1).unwrap_or_default();
            let outcome = Outcome::Refused { reason: reason.to_owned(), star_row: entry.get(2) };
            Row { key: key.collect(), changed: changed == "t", outcome }
        };
        Ok(gone.doing(target.doing("read what is refused of"))?.iter().map(refused).collect())
    }

    /// All rows of a query over a stage, as text, less those that the star table's types refuse.
    async fn read_fitting(&self, stage: &Stage<'_>, query: &str) -> Result<Vec<Vec<Option<String>>>, Error> {
        let target = stage.target;
        match self.scratch.attempt(target.doing("print the rows of"), async || self.read(target, query).await).await? {
            Some(read) => Ok(read),
            None => {
                stage.try_each().await?;
                self.read(target, query).await
            }
        }
    }

    /// All rows of a query, as text.
    async fn read(&self, target: &Target<'_>, query: &str) -> Result<Vec<Vec<Option<String>>>, Error> {
        let doing = || target.doing("print the rows of");
        let mut lines =
            Box::pin(self.scratch.transaction.copy_out(&format!("COPY ({query}) TO STDOUT")).await.doing(doing())?);
        let mut read = Vec::new();
        while let Some(line) = lines.next().await {
            read.push(fields(&line.doing(doing())?));
        }
        Ok(read)
    }

    /// Compares a set of values: the warehouse must hold those that the source names, and may hold more.
    async fn values<E: From<Error>>(
        &self,
        target: &Target<'_>,
        next: &mut impl AsyncFnMut() -> Result<Option<Piece>, E>,
    ) -> Result<Verdict, E> {
        let stage = target.rows(&[CHANGED]).await?.of_batch(NO_BATCH);
        while let Some(piece) = next().await? {
            if let Some(path) = piece.rows {
                stage.fill_from(&path, "the values of the source").await?;
            }
        }
        stage.fit().await?;
        let key: Vec<_> =
            target.key.iter().map(|column| column.key_text(&format!("t.{}", ident(&column.name)))).collect();
        let query = format!(
            "SELECT {key}, t.{CHANGED}, NOT EXISTS (
                 SELECT FROM {star} s WHERE {same_key} AND NOT (ROW({ours})::record *<> ROW({theirs})::record))
             FROM {typed} t",
            key = key.join(", "),
            star = target.quoted,
            same_key = target.same_key("s", "t"),
            ours = stage.columns("s."),
            theirs = stage.columns("t."),
            typed = stage.typed(),
        );
        let mut verdict = Verdict { table: target.name.to_owned(), ..Verdict::default() };
        let (mut equal, mut missing) = (BTreeSet::new(), BTreeMap::new());
        for mut line in self.read(target, &query).await? {
            let is_missing = line.pop().flatten().as_deref() == Some("t");
            let Row { key, changed, .. } = row(line, Outcome::Filtered);
            match is_missing {
                true => *missing.entry(key).or_insert(true) &= changed,
                false => drop(equal.insert(key)),
            }
        }
        verdict.equal = equal.len() as u64;
        let entries = entries_of(target, &self.entries);
        for (key, changed) in missing {
            let is_held = entries.contains_key(&key.iter().map(String::as_str).collect::<Vec<_>>());
            match (changed, is_held) {
                (true, _) => verdict.not_yet += 1,
                (false, true) => verdict.held_back += 1,
                (false, false) => verdict.differs(target, &key, What::Missing),
            }
        }
        Ok(verdict)
    }
}

/// A row from the fields of a line: its key, and last whether it has changed.
fn row(mut line: Vec<Option<String>>, outcome: Outcome) -> Row {
    let changed = line.pop().flatten().as_deref() == Some("t");
    Row { key: line.into_iter().map(Option::unwrap_or_default).collect(), changed, outcome }
}

/// The entries of a star table by key. A set of values may have a key that is NULL.
fn entries_of<'a>(target: &Target<'_>, entries: &'a [Entry]) -> BTreeMap<Vec<&'a str>, Vec<&'a Entry>> {
    let mut by_key: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| entry.table == target.name) {
        let key = target.key.iter().map(|column| entry.key[&column.name].as_str().unwrap_or_default());
        by_key.entry(key.collect::<Vec<_>>()).or_default().push(entry);
    }
    by_key
}

/// The rows of a star table: key and values of each.
struct Lines(Pin<Box<dyn Stream<Item = Result<Bytes, tokio_postgres::Error>> + Send>>);

/// A row of a star table: its key, and the values of its columns.
type StarRow = (Vec<String>, Vec<Option<String>>);

impl Lines {
    async fn next(&mut self, target: &Target<'_>) -> Result<Option<StarRow>, Error> {
        let Some(line) = self.0.next().await else { return Ok(None) };
        let mut key = fields(&line.doing(target.doing("read the rows of"))?);
        let values = key.split_off(target.key.len());
        Ok(Some((key.into_iter().map(Option::unwrap_or_default).collect(), values)))
    }
}

/// The values of a line as COPY writes text.
/// <https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.2>
fn fields(line: &[u8]) -> Vec<Option<String>> {
    let line = String::from_utf8_lossy(line);
    let line = line.strip_suffix('\n').unwrap_or(&line);
    let value = |field: &str| {
        if field == "\\N" {
            return None;
        }
        let mut value = String::with_capacity(field.len());
        let mut letters = field.chars();
        while let Some(letter) = letters.next() {
            value.push(match letter {
                '\\' => match letters.next() {
                    Some('b') => '\u{8}',
                    Some('f') => '\u{c}',
                    Some('n') => '\n',
                    Some('r') => '\r',
                    Some('t') => '\t',
                    Some('v') => '\u{b}',
                    other => other.unwrap_or('\\'),
                },
                letter => letter,
            });
        }
        Some(value)
    };
    line.split('\t').map(value).collect()
}

/// Both sides of one table on their way past each other.
struct Merge<'a> {
    target: &'a Target<'a>,
    /// What is in quarantine, by key.
    entries: BTreeMap<Vec<&'a str>, Vec<&'a Entry>>,
    verdict: Verdict,
    /// The first keys that only the warehouse has, and how many there are.
    extra: Vec<Vec<String>>,
    extra_rows: u64,
    /// The first keys of the rows of a history that no batch brought, and how many there are.
    unknown: (Vec<Vec<String>>, u64),
    /// Whether a row is missing for no reason.
    missing: bool,
}

impl Merge<'_> {
    fn extra(&mut self, key: &[String]) {
        self.extra_rows += 1;
        if self.extra.len() < SHOWN {
            self.extra.push(key.to_vec());
        }
    }

    /// A row that both sides have.
    fn both(&mut self, row: Row, star: &[Option<String>]) {
        let what = match &row.outcome {
            Outcome::Written { values, .. } if values == star => return self.verdict.equal += 1,
            Outcome::Written { values, .. } => {
                let columns = self.target.columns.iter().zip(values.iter().zip(star));
                let differing = columns.filter(|(_, (source, star))| source != star);
                let shown =
                    differing.map(|(column, (source, star))| (column.name.clone(), source.clone(), star.clone()));
                What::Columns { columns: shown.collect() }
            }
            Outcome::Filtered if !self.target.star.marks_deletions() => return self.verdict.kept += 1,
            Outcome::Filtered => What::NotLetThrough,
            Outcome::Refused { reason, .. } => What::Refused { reason: reason.clone() },
        };
        self.judge(&row, what);
    }

    /// A row that only the source has.
    fn only_source(&mut self, row: Row) {
        let what = match &row.outcome {
            Outcome::Filtered => return,
            Outcome::Written { .. } => What::Missing,
            Outcome::Refused { reason, .. } => What::Refused { reason: reason.clone() },
        };
        self.missing |= !row.changed && !self.is_held(&row);
        self.judge(&row, what);
    }

    fn judge(&mut self, row: &Row, what: What) {
        match (row.changed, self.is_held(row)) {
            (true, _) => self.verdict.not_yet += 1,
            (false, true) => self.verdict.held_back += 1,
            (false, false) => self.verdict.differs(self.target, &row.key, what),
        }
    }

    /// Whether the row is in quarantine as it is.
    fn is_held(&self, row: &Row) -> bool {
        let key: Vec<_> = row.key.iter().map(String::as_str).collect();
        let mut entries = self.entries.get(&key).into_iter().flatten();
        match &row.outcome {
            Outcome::Filtered => false,
            Outcome::Written { star_row, .. } => {
                let ours = serde_json::from_str::<Value>(star_row).ok();
                entries.any(|entry| entry.star_row.is_some() && entry.star_row == ours)
            }
            Outcome::Refused { star_row: Some(ours), .. } => entries.any(|entry| entry.star_row.as_ref() == Some(ours)),
            Outcome::Refused { reason, star_row: None } => entries.any(|entry| entry.reason == *reason),
        }
    }

    /// `is_known` says that rows of which Blackwater knows and which only the warehouse has went after the newest batch.
    fn finish(mut self, is_known: bool) -> Verdict {
        match (self.target.star.marks_deletions(), is_known) {
            (false, _) => self.verdict.kept = self.extra_rows,
            (true, true) => self.verdict.not_yet += self.extra_rows,
            (true, false) => {
                for key in &self.extra {
                    self.verdict.differs(self.target, key, What::Extra);
                }
                self.verdict.different += self.extra_rows - self.extra.len() as u64;
            }
        }
        let (keys, all) = &self.unknown;
        for key in keys {
            self.verdict.differs(self.target, key, What::Extra);
        }
        self.verdict.different += all - keys.len() as u64;
        self.verdict
    }
}

impl Verdict {
    fn differs(&mut self, target: &Target<'_>, key: &[String], what: What) {
        self.different += 1;
        if self.differences.len() < SHOWN {
            let key = target.key.iter().zip(key).map(|(column, value)| (column.name.clone(), value.clone())).collect();
            self.differences.push(Difference { key, what });
        }
    }
}
