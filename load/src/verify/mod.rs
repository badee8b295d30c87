//! The warehouse beside the source: both in the order of the keys, whole rows, as text.
//!
//! What the source printed is compared with what the warehouse prints, and not with what the warehouse would make of it: a value
//! that was narrowed on its way differs. Only where one value has several texts (1.5 and 1.50 in a `numeric(5,2)`, a uuid in capitals)
//! Postgres is asked how the warehouse's type prints the source's text.

mod copy_text;
mod merge;
mod source;

use std::collections::BTreeMap;
use std::path::PathBuf;

use blackwater_base::progress::progress;
use blackwater_shared::manifest::StarTable;
use blackwater_shared::postgres::{Doing, ident, idents, literal};
use deadpool_postgres::Transaction;
use serde::Serialize;
use tokio_postgres::IsolationLevel;

use crate::catalogue::{self, Column, DELETED_AT, VALID_FROM, VALID_TO, Writing};
use crate::error::Error;
use crate::ledger::Newest;
use crate::quarantine::{self, Entry};
use crate::target::Target;
use crate::{Load, known, ledger};
use copy_text::Lines;
use merge::Merge;

/// How many differences of a table are shown.
const SHOWN: usize = 5;

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
    /// Its versions overlap, or leave a gap though the source had it.
    Versions,
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
    snapshot: &'a Transaction<'a>,
    /// Where Postgres is asked how it prints a value.
    printer: &'a Transaction<'a>,
    newest: Newest,
    entries: Vec<Entry>,
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
        let printer = other.transaction().await.doing(doing).map_err(Error::from)?;
        // They wait while the source is read.
        for transaction in [&snapshot, &printer] {
            transaction
                .batch_execute("SET LOCAL idle_in_transaction_session_timeout = 0")
                .await
                .doing(doing)
                .map_err(Error::from)?;
        }
        let Some(newest) = ledger::newest(snapshot.client(), &self.schema).await? else { return Ok(None) };
        self.same_log(&newest).await?;
        let entries = quarantine::entries(snapshot.client(), &self.schema, true).await?;
        each(&Comparison { load: self, snapshot: &snapshot, printer: &printer, newest, entries }).await.map(Some)
    }
}

impl Comparison<'_> {
    /// The newest batch of the warehouse.
    #[must_use]
    pub fn batch(&self) -> u64 {
        self.newest.batch
    }

    /// Compares a star table with the pieces that `next` gives, in the order of the keys. `then` are the
    /// rows that the driving table had in the newest batch; `None` if that does not complete it, or if nobody counted them.
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
        let stars = catalogue::read(self.snapshot, &self.load.schema, &[name]).await?;
        let target = Target::new(0, (&self.load.schema, name), model, stars.get(name), self.newest.batch)?;
        let mut merge = Merge::new(&target, &self.entries);
        let Some(driving) = &model.driving else { return self.values(merge, next).await };
        let known = self.known_keys(&target).await?;
        let mut lines = self.star_rows(&target).await?;
        let mut star_row = lines.next(&target).await?;
        let (what, mut done) = (format!("comparing {name}"), 0);
        while let Some(piece) = next().await? {
            progress(&what, done, then.unwrap_or(0));
            for row in source::rows(&target, piece)? {
                done += 1;
                while let Some(extra) = star_row.take_if(|star| star.key < row.key) {
                    merge.extra(extra.key);
                    star_row = lines.next(&target).await?;
                }
                match star_row.take_if(|star| star.key == row.key) {
                    Some(star) => {
                        merge.both(row, star.values);
                        star_row = lines.next(&target).await?;
                    }
                    None => merge.only_source(row),
                }
            }
            merge.settle(self.printer).await?;
        }
        while let Some(extra) = star_row {
            merge.extra(extra.key);
            star_row = lines.next(&target).await?;
        }
        drop(lines);
        self.strange_versions(&target, &mut merge).await?;
        // Equal counts mean equal sets, so what is gone now went after the batch; where they differ, load
        // has asked for the keys. Where nobody counted, the batch is taken at its word.
        let is_known =
            then.is_none() || known == then && !merge.is_missing || self.newest.wanted.contains(&driving.table);
        Ok(merge.finish(is_known))
    }

    /// Compares a set of values: the warehouse must hold those that the source names, and may hold more.
    async fn values<E: From<Error>>(
        &self,
        mut merge: Merge<'_>,
        next: &mut impl AsyncFnMut() -> Result<Option<Piece>, E>,
    ) -> Result<Verdict, E> {
        let target = merge.target;
        let mut wanted = BTreeMap::new();
        while let Some(piece) = next().await? {
            for row in source::rows(target, piece)? {
                let changed = row.changed;
                let known = wanted.entry(row.key.clone()).or_insert(row);
                known.changed &= changed;
            }
        }
        let mut lines = self.star_rows(target).await?;
        while let Some(star) = lines.next(target).await? {
            if let Some(row) = wanted.remove(&star.key) {
                merge.both(row, star.values);
            }
        }
        wanted.into_values().for_each(|row| merge.only_source(row));
        merge.settle(self.printer).await?;
        Ok(merge.finish(true))
    }

    /// The source rows that the star table knows of; `None` if it does not mark deletions.
    async fn known_keys(&self, target: &Target<'_>) -> Result<Option<u64>, Error> {
        if !target.marks_deletions() {
            return Ok(None);
        }
        let row = self
            .snapshot
            .query_one(&known::rows(target), &[])
            .await
            .doing(format!("count the rows of {}", target.name))?;
        Ok(Some(row.get::<_, i64>(0) as u64))
    }

    /// The rows of a star table in the order of their keys.
    async fn star_rows(&self, target: &Target<'_>) -> Result<Lines, Error> {
        let keys = |after: &str| {
            let key = |column: &&Column| column.key_text(&format!("s.{}", ident(&column.name))) + after;
            target.key.iter().map(key).collect::<Vec<_>>().join(", ")
        };
        let sql = format!(
            "COPY (SELECT {}, {} FROM {} ORDER BY {}) TO STDOUT",
            keys(""),
            target.list("s."),
            target.live(),
            keys(" COLLATE \"C\"")
        );
        let lines = self.snapshot.copy_out(&sql).await.doing(format!("read the rows of {}", target.name))?;
        Ok(Lines(Box::pin(lines)))
    }

    /// Counts the rows of a history that are no version of any batch, and the versions that do not follow one another.
    async fn strange_versions(&self, target: &Target<'_>, merge: &mut Merge<'_>) -> Result<(), Error> {
        if target.writing != Writing::History {
            return Ok(());
        }
        for (what, query) in [(What::Extra, sql::unknown(target)), (What::Versions, sql::disordered(target))] {
            let query = format!("SELECT key, count(*) OVER () FROM ({query}) q LIMIT {SHOWN}");
            let doing = format!("look at the versions in {}", target.name);
            let rows = self.snapshot.query(&query, &[]).await.doing(doing)?;
            let count = rows.first().map_or(0, |row| row.get::<_, i64>(1) as u64);
            merge.strange.push((what, count, rows.iter().map(|row| row.get(0)).collect()));
        }
        Ok(())
    }
}

/// The queries for versions of a history that should not be, each with its key as an array of text.
mod sql {
    use super::*;

    fn key(target: &Target<'_>) -> String {
        let key = |column: &&Column| column.key_text(&format!("s.{}", ident(&column.name)));
        format!("ARRAY[{}]::text[]", target.key.iter().map(key).collect::<Vec<_>>().join(", "))
    }

    /// Those that no batch brought, less the open ones, which are compared with the source, and those that were there before the table
    /// became a history.
    pub(super) fn unknown(target: &Target<'_>) -> String {
        format!(
            "SELECT {} AS key FROM {} s WHERE s.{VALID_TO} IS NOT NULL AND s.{VALID_FROM} > '-infinity' AND s.{VALID_FROM} NOT IN (
                 SELECT unnest(l.effective_at || l.forgotten) FROM blackwater.ledger l WHERE l.star_schema = {schema}
                 UNION ALL
                 SELECT unnest(p.effective_at || p.forgotten) FROM blackwater.partly p
                 WHERE p.star_schema = {schema} AND p.effective_at IS NOT NULL)",
            key(target),
            target.quoted,
            schema = literal(target.schema),
        )
    }

    /// Those that end before they begin or after the next one begins, or before that although the row was not deleted.
    pub(super) fn disordered(target: &Target<'_>) -> String {
        let next = "s.\"blackwater:next\"";
        let gap = match target.star.marks_deletions() {
            true => format!(
                " OR s.{DELETED_AT} IS NULL AND s.{VALID_TO} IS DISTINCT FROM {next}
                  OR s.{DELETED_AT} IS DISTINCT FROM s.{VALID_TO} AND s.{DELETED_AT} IS NOT NULL"
            ),
            false => String::new(),
        };
        format!(
            "SELECT {key} AS key FROM (
                 SELECT s.*, lead(s.{VALID_FROM}) OVER (PARTITION BY {columns} ORDER BY s.{VALID_FROM}) AS \"blackwater:next\"
                 FROM {star} s) s
             WHERE s.{VALID_TO} <= s.{VALID_FROM} OR {next} < coalesce(s.{VALID_TO}, 'infinity'){gap}",
            key = key(target),
            columns = idents("s.", target.key.iter().map(|column| &column.name)),
            star = target.quoted,
        )
    }
}
