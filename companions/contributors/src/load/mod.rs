//! A load: the batches of answers, in order, applied to the database. Each record is one transaction, which also says that it was
//! applied; so a load goes on wherever the one before ended, and two at once do nothing twice.

mod issues;
mod people;
mod timelines;
mod transfers;
mod upsert;

use std::collections::BTreeMap;
use std::time::Duration;

use blackwater_base::deadline::Deadline;
use blackwater_base::settings::fits;
use blackwater_shared::postgres::{self, Doing, qualified, retry};
use chrono::{DateTime, Utc};
use deadpool_postgres::{Object, Transaction};
use serde::Serialize;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::Contributors;
use crate::answers::Answers;
use crate::config::Config;
use crate::error::Error;
use crate::migrate::{migrate, search};
use crate::record::Record;

/// What is kept of the time for a record.
const RECORD: Duration = Duration::from_secs(10);
/// Ten years.
const NEVER: u64 = 10 * 365 * 24 * 3600;

/// What a load did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Batches that were applied to their end.
    pub batches: usize,
    /// Records that were applied.
    pub records: usize,
    /// By table, rows that were new.
    pub inserted: BTreeMap<&'static str, usize>,
    /// By table, rows that differed.
    pub updated: BTreeMap<&'static str, usize>,
    /// Batches that are left.
    pub behind: usize,
    /// The age of the newest batch that is applied; ten years where there is none.
    pub newest_poll_seconds: u64,
}

impl Report {
    /// Counts a row that an upsert returns.
    fn count(&mut self, table: &'static str, is_new: bool) {
        let counted = if is_new { &mut self.inserted } else { &mut self.updated };
        *counted.entry(table).or_default() += 1;
    }

    /// Adds what a record changed.
    fn add(&mut self, of: Self) {
        self.records += of.records;
        for (mine, others) in [(&mut self.inserted, of.inserted), (&mut self.updated, of.updated)] {
            for (table, rows) in others {
                *mine.entry(table).or_default() += rows;
            }
        }
    }
}

/// How far the database is: the batch, and how many of its records are applied.
pub(crate) type Position = (u64, usize);

impl Contributors {
    /// Applies the answers that are not in the database yet. It makes the tables where they are not there.
    ///
    /// # Errors
    /// If the answers are not all there, or the database does not take them.
    pub async fn load(&self, deadline: Deadline) -> Result<Report, Error> {
        let (database, schema) = self.database().await?;
        migrate(&database, &schema).await?;
        let answers = Answers(&self.store);
        let mut client = database.connect().await?;
        let (mut report, mut newest) = (Report::default(), None);
        let mut position = position(&mut client, &schema).await?;
        'batches: loop {
            let Some((head, records)) = answers.read(position.0).await? else {
                match self.afresh_after(position).await? {
                    Some(batch) => {
                        move_on(&mut client, &schema, position, (batch, 0)).await?;
                        position = self::position(&mut client, &schema).await?;
                        continue;
                    }
                    None => break,
                }
            };
            let last = records.len();
            for (place, record) in records.iter().enumerate().skip(position.1) {
                if deadline.left().is_some_and(|left| left < RECORD) {
                    break 'batches;
                }
                let from = (position.0, place);
                let to = if place + 1 == last { (position.0 + 1, 0) } else { (position.0, place + 1) };
                let applying = Applying { config: &self.config, schema: &schema, from, to };
                let applied = retry(
                    async || {
                        // One that was lost is not used again.
                        if client.is_closed() {
                            client = database.connect().await?;
                        }
                        applying.apply(&mut client, record).await
                    },
                    postgres::Error::is_transient,
                );
                match applied.await? {
                    Some(counts) => report.add(counts),
                    None => {
                        // Another load was there first; or this one, before its connection was lost.
                        position = self::position(&mut client, &schema).await?;
                        continue 'batches;
                    }
                }
            }
            (position, newest) = ((position.0 + 1, 0), Some(head.at));
            report.batches += 1;
        }
        report.behind = answers.from(position.0).await?.len();
        report.newest_poll_seconds = match newest.or(newest_poll(&mut client, &schema).await?) {
            Some(at) => (Utc::now() - at).num_seconds().max(0).unsigned_abs(),
            None => NEVER,
        };
        Ok(report)
    }

    /// The first batch after this position from which everything is read anew; `None` if there are no more batches at all.
    async fn afresh_after(&self, (batch, _): Position) -> Result<Option<u64>, Error> {
        let answers = Answers(&self.store);
        let later = answers.from(batch).await?;
        for (batch, _) in &later {
            if answers.read(*batch).await?.is_some_and(|(head, _)| head.afresh) {
                return Ok(Some(*batch));
            }
        }
        match later.first() {
            Some((first, _)) => {
                Err(Error::Missing { bucket: self.store.bucket().into(), from: batch, to: first.saturating_sub(1) })
            }
            None => Ok(None),
        }
    }
}

/// A record that is being applied.
struct Applying<'l> {
    config: &'l Config,
    schema: &'l str,
    from: Position,
    to: Position,
}

impl Applying<'_> {
    /// Applies a record: what it changed, or `None` if the database is elsewhere.
    async fn apply(&self, client: &mut Object, record: &Record) -> Result<Option<Report>, postgres::Error> {
        let doing = format!("apply record {} of answers {}", self.from.1 + 1, self.from.0);
        let transaction = client.transaction().await.doing(doing.clone())?;
        transaction.batch_execute(&search(self.schema)).await.doing(doing.clone())?;
        if !moved(&transaction, self.from, self.to).await.doing(doing.clone())? {
            return Ok(None);
        }
        let mut rows = Rows { transaction, report: Report { records: 1, ..Report::default() } };
        self.rows(&mut rows, record).await.doing(doing.clone())?;
        let Rows { transaction, report } = rows;
        transaction.commit().await.doing(doing)?;
        Ok(Some(report))
    }

    async fn rows(&self, rows: &mut Rows<'_>, record: &Record) -> Result<(), tokio_postgres::Error> {
        let bots = &self.config.events.bots;
        match record {
            Record::Repositories { at, list } => rows.repositories(*at, list).await,
            Record::Members { at, list } => rows.members(*at, list, bots).await,
            Record::Issues { at, repository, rows: issues, walk } => {
                rows.issues(*at, *repository, issues, bots).await?;
                rows.walked(*at, *repository, walk).await
            }
            Record::Comments { at, repository, since, etag, .. } => {
                rows.cursor(*at, *repository, "comments", Some(*since), etag.as_deref()).await
            }
            Record::Timeline { at, repository, issue, as_of, pages, last } => {
                let is_kept = |kind: &str| self.config.events.kinds.iter().any(|pattern| fits(pattern, kind));
                let of = timelines::Of { at: *at, repository: *repository, issue: *issue, as_of: *as_of, last: *last };
                rows.timeline(&of, pages, is_kept, bots).await
            }
            Record::Unchanged { at, issues, .. } => rows.unchanged(*at, issues).await,
            Record::Moved { at, repository, issue, hops, to, into } => {
                rows.moved(*at, (*repository, *issue), hops, to, *into).await
            }
            Record::Gone { at, issue, .. } => rows.gone(*at, *issue).await,
            Record::Polled { at, repositories } => rows.polled(*at, repositories).await,
            Record::Arrived { .. } | Record::Backfill { .. } => Ok(()),
        }
    }
}

/// The rows of one transaction.
struct Rows<'t> {
    transaction: Transaction<'t>,
    report: Report,
}

impl Rows<'_> {
    /// Runs a statement: how many rows it changed.
    async fn run(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<u64, tokio_postgres::Error> {
        let statement = self.transaction.prepare_cached(sql).await?;
        self.transaction.execute(&statement, values).await
    }

    /// Runs a statement: what it returns.
    async fn query(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, tokio_postgres::Error> {
        let statement = self.transaction.prepare_cached(sql).await?;
        self.transaction.query(&statement, values).await
    }

    /// Runs an upsert, and counts its rows.
    async fn write(
        &mut self,
        table: &'static str,
        sql: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<(), tokio_postgres::Error> {
        for row in self.query(sql, values).await? {
            self.report.count(table, row.get(0));
        }
        Ok(())
    }
}

/// How far the database is.
pub(crate) async fn position(client: &mut Object, schema: &str) -> Result<Position, postgres::Error> {
    let sql = format!("SELECT batch, records FROM {}", qualified(schema, "applied"));
    let row = client.query_one(&sql, &[]).await.doing("read how far the database is")?;
    let (batch, records): (i64, i32) = (row.get(0), row.get(1));
    Ok((batch.unsigned_abs(), records.unsigned_abs() as usize))
}

/// When the newest poll ended that is in the database.
async fn newest_poll(client: &mut Object, schema: &str) -> Result<Option<DateTime<Utc>>, postgres::Error> {
    let sql = format!("SELECT max(polled_at) FROM {}", qualified(schema, "cursors"));
    Ok(client.query_one(&sql, &[]).await.doing("read how far the database is")?.get(0))
}

/// Moves the position, if it is the one that it is thought to be.
async fn moved(transaction: &Transaction<'_>, from: Position, to: Position) -> Result<bool, tokio_postgres::Error> {
    let batch = |(batch, _): Position| batch.cast_signed();
    let records = |(_, records): Position| i32::try_from(records).unwrap_or(i32::MAX);
    let sql = "UPDATE applied SET batch = $3, records = $4 WHERE batch = $1 AND records = $2";
    let statement = transaction.prepare_cached(sql).await?;
    let moved = transaction.execute(&statement, &[&batch(from), &records(from), &batch(to), &records(to)]).await?;
    Ok(moved == 1)
}

/// The same, in a transaction of its own.
async fn move_on(client: &mut Object, schema: &str, from: Position, to: Position) -> Result<(), postgres::Error> {
    const DOING: &str = "go on with the answers that were read anew";
    let transaction = client.transaction().await.doing(DOING)?;
    transaction.batch_execute(&search(schema)).await.doing(DOING)?;
    moved(&transaction, from, to).await.doing(DOING)?;
    transaction.commit().await.doing(DOING)
}
