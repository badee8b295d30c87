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
use blackwater_shared::postgres::{self, Database, Doing, qualified, retry};
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

/// How far the database is: all batches of a log before this one are applied, and so many records of this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// None before the first.
    pub(crate) log: Option<String>,
    pub(crate) batch: u64,
    pub(crate) records: usize,
}

impl Position {
    /// The beginning of a log.
    fn of(log: String) -> Self {
        Self { log: Some(log), batch: 1, records: 0 }
    }
}

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
        loop {
            let position = self.position(&mut client, &schema).await?;
            let batch = match &position.log {
                Some(log) => answers.read(log, position.batch).await?,
                None => None,
            };
            match batch {
                Some((head, records)) => {
                    let loaded =
                        self.load_batch((&database, &mut client, &schema), &position, &records, deadline, &mut report);
                    if !loaded.await? {
                        break;
                    }
                    newest = Some(head.at);
                }
                None => match self.next_log(&position).await? {
                    Next::Is(log) => self.move_on(&mut client, &schema, &position, &Position::of(log)).await?,
                    Next::IsThere => {}
                    Next::IsNot => break,
                },
            }
        }
        let position = self.position(&mut client, &schema).await?;
        report.behind = match &position.log {
            Some(log) => answers.from(log, position.batch).await?.len(),
            None => 0,
        };
        report.newest_poll_seconds = match newest.or(newest_poll(&mut client, &schema).await?) {
            Some(at) => (Utc::now() - at).num_seconds().max(0).unsigned_abs(),
            None => crate::NEVER,
        };
        Ok(report)
    }

    /// Applies what is left of a batch: whether there is time for more. It ends early where another load was there first.
    async fn load_batch(
        &self,
        (database, client, schema): (&Database, &mut Object, &str),
        position: &Position,
        records: &[Record],
        deadline: Deadline,
        report: &mut Report,
    ) -> Result<bool, Error> {
        for (place, record) in records.iter().enumerate().skip(position.records) {
            if deadline.left().is_some_and(|left| left < RECORD) {
                return Ok(false);
            }
            let from = Position { records: place, ..position.clone() };
            let to = match place + 1 == records.len() {
                true => Position { batch: position.batch + 1, records: 0, ..position.clone() },
                false => Position { records: place + 1, ..position.clone() },
            };
            let applying = Applying { config: &self.config, schema, from, to };
            let applied = retry(
                async || {
                    // One that was lost is not used again.
                    if client.is_closed() {
                        *client = database.connect().await?;
                    }
                    applying.apply(client, record).await
                },
                postgres::Error::is_transient,
            );
            match applied.await? {
                Some(counts) => report.add(counts),
                // Another load was there first; or this one, before its connection was lost.
                None => return Ok(true),
            }
        }
        report.batches += 1;
        Ok(true)
    }

    /// What comes where there is no batch at this position.
    async fn next_log(&self, position: &Position) -> Result<Next, Error> {
        let answers = Answers(&self.store);
        let later = match &position.log {
            Some(log) => answers.from(log, position.batch).await?,
            None => Vec::new(),
        };
        // It was written just now.
        if later.first() == Some(&position.batch) {
            return Ok(Next::IsThere);
        }
        match (answers.log_after(position.log.as_deref()).await?, later.first(), &position.log) {
            (Some(log), ..) => Ok(Next::Is(log)),
            (None, Some(first), Some(log)) => Err(Error::Missing {
                bucket: self.store.bucket().into(),
                log: log.clone(),
                from: position.batch,
                to: first.saturating_sub(1),
            }),
            (None, ..) => Ok(Next::IsNot),
        }
    }

    /// How far the database is. It takes one organization.
    async fn position(&self, client: &mut Object, schema: &str) -> Result<Position, Error> {
        let (organization, position) = position(client, schema).await?;
        match organization.filter(|known| !known.eq_ignore_ascii_case(&self.config.organization)) {
            Some(other) => {
                let why =
                    format!("the schema {schema} has the rows of {other}; use another schema for each organization");
                Err(Error::Setting { setting: "organization", why })
            }
            None => Ok(position),
        }
    }

    /// Moves the position, in a transaction of its own.
    async fn move_on(
        &self,
        client: &mut Object,
        schema: &str,
        from: &Position,
        to: &Position,
    ) -> Result<(), postgres::Error> {
        const DOING: &str = "begin with another log of answers";
        let transaction = client.transaction().await.doing(DOING)?;
        transaction.batch_execute(&search(schema)).await.doing(DOING)?;
        moved(&transaction, &self.config.organization, from, to).await.doing(DOING)?;
        transaction.commit().await.doing(DOING)
    }
}

/// What comes where there is no batch.
enum Next {
    /// Another log.
    Is(String),
    /// The batch, by now.
    IsThere,
    /// Nothing.
    IsNot,
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
        let log = self.from.log.as_deref().unwrap_or_default();
        let doing = format!("apply record {} of batch {} of {log}", self.from.records + 1, self.from.batch);
        let transaction = client.transaction().await.doing(doing.clone())?;
        transaction.batch_execute(&search(self.schema)).await.doing(doing.clone())?;
        if !moved(&transaction, &self.config.organization, &self.from, &self.to).await.doing(doing.clone())? {
            return Ok(None);
        }
        let mut rows =
            Writer { transaction, report: Report { records: 1, ..Report::default() }, bots: &self.config.events.bots };
        self.rows(&mut rows, record).await.doing(doing.clone())?;
        let Writer { transaction, report, .. } = rows;
        transaction.commit().await.doing(doing)?;
        Ok(Some(report))
    }

    async fn rows(&self, rows: &mut Writer<'_>, record: &Record) -> Result<(), tokio_postgres::Error> {
        match record {
            Record::Repositories { at, list } => rows.repositories(*at, list).await,
            Record::Members { at, list } => rows.members(*at, list).await,
            Record::Issues { at, repository, rows: issues, progress } => {
                rows.issues(*at, *repository, issues).await?;
                rows.progress(*at, *repository, progress).await
            }
            Record::Comments { at, repository, since, etag, .. } => {
                rows.cursor(*at, *repository, "comments", Some(*since), etag.as_deref()).await
            }
            Record::Timeline { at, repository, issue, as_of, pages, last } => {
                let is_kept = |kind: &str| self.config.events.kinds.iter().any(|pattern| fits(pattern, kind));
                let of = timelines::Of { at: *at, repository: *repository, issue: *issue, as_of: *as_of, last: *last };
                rows.timeline(&of, pages, is_kept).await
            }
            Record::Unchanged { at, issues, .. } => rows.unchanged(*at, issues).await,
            Record::Moved { at, repository, issue, hops, to, into } => {
                rows.moved(*at, (*repository, *issue), hops, to, *into).await
            }
            Record::Gone { at, issue, .. } => rows.gone(*at, *issue).await,
            Record::Polled { at, repositories } => rows.polled(*at, repositories).await,
            Record::Arrived { .. } | Record::Backfill { .. } | Record::Unread { .. } => Ok(()),
        }
    }
}

/// The rows of one transaction.
struct Writer<'t> {
    transaction: Transaction<'t>,
    report: Report,
    /// Logins of accounts that are robots, though GitHub does not say so.
    bots: &'t [String],
}

impl Writer<'_> {
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

/// The organization whose rows the database has, and how far it is.
pub(crate) async fn position(client: &mut Object, schema: &str) -> Result<(Option<String>, Position), postgres::Error> {
    let sql = format!("SELECT organization, log, batch, records FROM {}", qualified(schema, "applied"));
    let row = client.query_one(&sql, &[]).await.doing("read how far the database is")?;
    let (batch, records): (i64, i32) = (row.get(2), row.get(3));
    let position = Position { log: row.get(1), batch: batch.unsigned_abs(), records: records.unsigned_abs() as usize };
    Ok((row.get(0), position))
}

/// When the newest poll ended that is in the database.
async fn newest_poll(client: &mut Object, schema: &str) -> Result<Option<DateTime<Utc>>, postgres::Error> {
    let sql = format!("SELECT max(polled_at) FROM {}", qualified(schema, "cursors"));
    Ok(client.query_one(&sql, &[]).await.doing("read how far the database is")?.get(0))
}

/// Moves the position, if it is the one that it is thought to be.
async fn moved(
    transaction: &Transaction<'_>,
    organization: &str,
    from: &Position,
    to: &Position,
) -> Result<bool, tokio_postgres::Error> {
    let records = |position: &Position| i32::try_from(position.records).unwrap_or(i32::MAX);
    let sql = "UPDATE applied SET organization = $1, log = $5, batch = $6, records = $7
        WHERE (log, batch, records) IS NOT DISTINCT FROM ($2::text, $3::bigint, $4::integer)";
    let statement = transaction.prepare_cached(sql).await?;
    let (from_batch, to_batch) = (from.batch.cast_signed(), to.batch.cast_signed());
    let values: [&(dyn ToSql + Sync); 7] =
        [&organization, &from.log, &from_batch, &records(from), &to.log, &to_batch, &records(to)];
    Ok(transaction.execute(&statement, &values).await? == 1)
}
