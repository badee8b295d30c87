//! Load: the batches of the processed log into the warehouse, in order, each once.
//!
//! A batch and its line in the ledger are one transaction under a lock, so repeated, early and
//! simultaneous runs all end in the same state. A batch that a function has no time for is applied in parts.

mod ahead;
mod apply;
mod bulk;
mod catalogue;
mod check;
mod deletion;
mod error;
mod known;
mod ledger;
mod part;
mod quarantine;
mod reject;
mod schema;
mod staging;
mod target;
mod verify;
mod warehouse;
mod write;

use std::time::Duration;

use blackwater_base::deadline::{Deadline, Pace};
use blackwater_base::store::Store;
use blackwater_shared::config::Config;
use blackwater_shared::log::{self, Applied as Hint, Log};
use blackwater_shared::manifest::Transformed;
use blackwater_shared::pack::Pack;
use blackwater_shared::postgres::{self, Database, Doing, Session, qualified};
use chrono::{DateTime, Utc};
use deadpool_postgres::Object;
use serde::{Deserialize, Serialize};

use ahead::Ahead;
use apply::Applied;
pub use error::Error;
use ledger::Newest;
pub use quarantine::Entry;
use schema::Schema;
pub use verify::{Comparison, Difference, Piece, Verdict, What};
use warehouse::MANY;

/// Load with its clients, for any number of runs.
#[derive(Clone)]
pub struct Load {
    warehouse: Database,
    schema: String,
    readers: Vec<String>,
    keep_foreign_keys: bool,
    log: Log,
    pack: Pack,
}

/// What a run did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The batches that it applied, in order.
    pub batches: Vec<BatchReport>,
    /// The newest batch that the warehouse holds, 0 if there is none.
    pub applied: u64,
    /// The rows in quarantine now.
    pub quarantine: u64,
    /// The source tables of which the warehouse holds more rows than there were: extract is asked
    /// for their keys.
    pub wanted: Vec<String>,
    /// Whether `schema.sql` has changed and waits for the next batch.
    pub schema_waits: bool,
    /// Whether its time was over before all batches were applied.
    pub more: bool,
    /// Whether another load was at work, which goes on by itself with what is missing.
    pub yielded: bool,
}

/// What one batch changed.
#[derive(Clone, Debug, Serialize)]
pub struct BatchReport {
    /// The batch.
    pub batch: u64,
    /// The star tables of which it says something.
    pub tables: Vec<TableReport>,
    /// What a person should know.
    pub notices: Vec<String>,
}

/// What one batch changed in a star table.
#[derive(Clone, Debug, Serialize)]
pub struct TableReport {
    /// The star table.
    pub table: String,
    /// Its rows.
    #[serde(flatten)]
    pub counts: Counts,
}

/// What became of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Rows that are new.
    pub inserted: u64,
    /// Rows that differed.
    pub updated: u64,
    /// Rows that were equal, and were left untouched.
    pub unchanged: u64,
    /// Rows that were marked as deleted.
    pub deleted: u64,
    /// Of the rows above, those that came out of quarantine.
    pub released: u64,
    /// Rows that were put into quarantine.
    pub quarantined: u64,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.inserted += other.inserted;
        self.updated += other.updated;
        self.unchanged += other.unchanged;
        self.deleted += other.deleted;
        self.released += other.released;
        self.quarantined += other.quarantined;
    }
}

/// How far the warehouse is.
#[derive(Clone, Debug, Serialize)]
pub struct State {
    /// The newest batch applied.
    pub batch: u64,
    /// When it was applied.
    pub applied_at: DateTime<Utc>,
    /// The rows of each star table, and how many are in quarantine.
    pub rows: Vec<(String, u64, u64)>,
}

impl Load {
    /// Load as the configuration says; `processed` is the processed bucket.
    ///
    /// # Errors
    /// If there are no certificates to verify the warehouse with.
    pub fn new(config: &Config, pack: Pack, processed: Store) -> Result<Self, postgres::Error> {
        let session = Session {
            application: "blackwater load",
            lock_timeout: Duration::from_secs(10),
            statement_timeout: Duration::ZERO,
            idle_timeout: Duration::from_secs(600),
            more: &[],
        };
        Ok(Self {
            warehouse: config.warehouse.address.pool(3, session)?,
            schema: config.warehouse.schema.clone(),
            readers: config.warehouse.readers.clone(),
            keep_foreign_keys: config.warehouse.keep_foreign_keys,
            log: Log::processed(processed, &pack.hash),
            pack,
        })
    }

    /// Makes sure that the processed bucket is there and that the warehouse lets this role in.
    ///
    /// # Errors
    /// Each names what is not.
    pub async fn reach(&self) -> Result<(), Error> {
        self.log.store().check().await?;
        drop(self.warehouse.connect().await?);
        Ok(())
    }

    /// One run: every batch that the processed log has and the warehouse lacks, until a number is
    /// missing. `schema_applied` says that `schema.sql` was run by hand. If the connection to the warehouse is
    /// lost, or another session is in the way, it goes on after a moment.
    ///
    /// # Errors
    /// Each names the batch; those before it are applied, and the next run goes on from there.
    pub async fn run(&self, schema_applied: bool) -> Result<Report, Error> {
        self.run_until(schema_applied, Deadline::NONE).await
    }

    /// One run that begins no batch in the second half of its time.
    ///
    /// # Errors
    /// Those of [`Self::run`], and [`Error::Late`] if its time is over in the middle of a batch.
    pub async fn run_until(&self, schema_applied: bool, deadline: Deadline) -> Result<Report, Error> {
        self.bounded(schema_applied, deadline, u64::MAX).await
    }

    /// One run that applies no batch after `last`.
    ///
    /// # Errors
    /// Those of [`Self::run`].
    pub async fn run_up_to(&self, last: Option<u64>) -> Result<Report, Error> {
        self.bounded(false, Deadline::NONE, last.unwrap_or(u64::MAX)).await
    }

    async fn bounded(&self, schema_applied: bool, deadline: Deadline, last: u64) -> Result<Report, Error> {
        let mut report = Report::default();
        let attempt = async || {
            let work =
                async |ahead: &mut Ahead| self.attempt(schema_applied, (deadline, last), ahead, &mut report).await;
            ahead::beside(self, (deadline, last), work).await
        };
        let done = postgres::retry(attempt, Error::is_transient).await;
        done.map_err(|error| match error {
            Error::Postgres(postgres::Error { doing, .. }) if error.is_late(deadline) => Error::Late { doing },
            error => error,
        })?;
        Ok(report)
    }

    async fn attempt(
        &self,
        schema_applied: bool,
        (deadline, last): (Deadline, u64),
        ahead: &mut Ahead,
        report: &mut Report,
    ) -> Result<(), Error> {
        self.log.store().check().await?;
        let mut client = self.warehouse.connect().await?;
        let mut newest = self.newest(&client).await?;
        if let Some(newest) = &newest {
            self.same_log(newest).await?;
        }
        report.applied = newest.as_ref().map_or(0, |newest| newest.batch);
        if ledger::exists(&client).await? {
            bulk::recover(&mut client, &self.schema, deadline).await?;
            ahead::sweep(&mut client, &self.schema, i64::MAX as u64).await?;
        }
        let schema_hash = self.schema(Deadline::NONE).hash();
        let mut pace = Pace::towards(deadline);
        // The log is read anew after each batch, also after the last one: a load that came meanwhile has left.
        while report.applied < last
            && let Some(manifest) = self.log.read::<Transformed>(report.applied + 1).await?
        {
            report.more = !pace.begins();
            if report.more {
                break;
            }
            ledger::prepare(&mut client).await?;
            report.yielded = !self.bring_schema_up_to_date(&mut client, &manifest, (schema_applied, deadline)).await?;
            if report.yielded {
                break;
            }
            let schema = &self.schema;
            let is_ahead = ahead.has(&manifest).await;
            let (log, schema_hash) = (&self.log, &schema_hash);
            let batch = apply::Batch { manifest: &manifest, log, schema, schema_hash, deadline, is_ahead };
            let are_down = !self.keep_foreign_keys && bulk::take_down(&mut client, &batch).await?;
            let applied = apply::apply(&mut client, &batch, ahead).await;
            let is_written = matches!(applied, Ok(Applied::Done(_) | Applied::Partly));
            // The next run would, too, but nobody knows when that is.
            if (applied.is_err() || are_down && !is_written)
                && let Err(error) = bulk::recover(&mut client, &self.schema, deadline).await
            {
                tracing::warn!("foreign keys stay taken down until the next run: {error}");
            }
            if applied.as_ref().is_err_and(|error| error.is_late(deadline)) {
                ledger::note_late(&client, &self.schema, &manifest.head).await?;
            }
            match applied? {
                Applied::Done(batch) => {
                    self.analyze(&client, &batch).await;
                    report.batches.push(batch);
                    let notices = bulk::validate(&mut client, &self.schema, deadline).await?;
                    if let Some(batch) = report.batches.last_mut() {
                        batch.notices.extend(notices);
                    }
                    if is_ahead {
                        ahead::sweep(&mut client, &self.schema, manifest.head.batch).await?;
                    }
                }
                Applied::Partly | Applied::Overtaken => {}
                Applied::Yielded => {
                    report.yielded = true;
                    break;
                }
            }
            newest = self.newest(&client).await?;
            report.applied = newest.as_ref().map_or(0, |newest| newest.batch);
        }
        if !report.yielded {
            self.write_hint(newest.as_ref()).await?;
        }
        if let Some(newest) = newest {
            report.quarantine = quarantine::by_table(&client, &self.schema).await?.values().sum();
            report.schema_waits = ledger::schema_file(&client, &self.schema).await?.as_ref() != Some(&schema_hash);
            report.wanted = newest.wanted;
        }
        Ok(())
    }

    /// Applies `schema.sql` if it is not the one that was applied: whether it is now. `false` if another load is at work.
    async fn bring_schema_up_to_date(
        &self,
        client: &mut Object,
        manifest: &Transformed,
        (schema_applied, deadline): (bool, Deadline),
    ) -> Result<bool, Error> {
        let doing = "apply schema.sql";
        let lock = client.transaction().await.doing(doing)?;
        if !ledger::try_lock(lock.client(), &self.schema).await? {
            return Ok(false);
        }
        if ledger::schema_file(lock.client(), &self.schema).await? != Some(self.schema(Deadline::NONE).hash()) {
            // Its statements may want transactions of their own, so the lock is another connection's. This statement ends what
            // the one before left open, which would have a CREATE INDEX CONCURRENTLY wait.
            let keep = "SET LOCAL idle_in_transaction_session_timeout = 0";
            lock.batch_execute(keep).await.doing(doing)?;
            let mut client = self.warehouse.connect().await?;
            let applied = self.schema(deadline).apply(&mut client, manifest, schema_applied).await;
            applied.map_err(|error| if error.is_late(deadline) { Error::LateSchema } else { error })?;
        }
        lock.rollback().await.doing(doing)?;
        Ok(true)
    }

    fn schema(&self, deadline: Deadline) -> Schema<'_> {
        Schema { name: &self.schema, pack: &self.pack, readers: &self.readers, deadline }
    }

    /// Has the planner look at the tables that a batch made a tenth larger, as autovacuum would: the next one may come before
    /// it does, and compare their keys row by row. It waits for nobody, and the batch is in if it fails.
    async fn analyze(&self, client: &Object, batch: &BatchReport) {
        let filled = batch.tables.iter().filter(|table| table.counts.inserted >= MANY);
        let (tables, inserted): (Vec<_>, Vec<_>) =
            filled.map(|table| (table.table.as_str(), table.counts.inserted as i64)).unzip();
        if tables.is_empty() {
            return;
        }
        let grown = "SELECT c.relname::text FROM unnest($2::text[], $3::bigint[]) AS filled (name, inserted)
                     JOIN pg_class c ON c.relname = name JOIN pg_namespace n ON n.oid = c.relnamespace
                     WHERE n.nspname = $1 AND inserted >= c.reltuples / 10";
        let analyzed = async {
            let grown = client.query(grown, &[&self.schema, &tables, &inserted]).await?;
            let grown: Vec<_> = grown.iter().map(|row| qualified(&self.schema, row.get(0))).collect();
            if !grown.is_empty() {
                client.batch_execute(&format!("ANALYZE (SKIP_LOCKED) {}", grown.join(", "))).await?;
            }
            Ok::<_, tokio_postgres::Error>(())
        };
        if let Err(error) = analyzed.await {
            tracing::debug!(error = postgres::explain(&error), "not analyzed");
        }
    }

    async fn newest(&self, client: &Object) -> Result<Option<Newest>, Error> {
        match ledger::exists(client).await? {
            true => ledger::newest(client, &self.schema).await,
            false => Ok(None),
        }
    }

    /// Tells the other stages how far the warehouse is, and what it wants, if they believe otherwise: also
    /// that it is empty.
    async fn write_hint(&self, newest: Option<&Newest>) -> Result<(), Error> {
        let left = Hint::read(self.log.store()).await?;
        let hint = match (newest, &left) {
            (Some(newest), _) => Hint { log: newest.log, batch: newest.batch, wanted: newest.wanted.clone() },
            (None, Some(left)) => Hint { log: left.log, batch: 0, wanted: Vec::new() },
            (None, None) => return Ok(()),
        };
        if left.as_ref() != Some(&hint) {
            hint.write(self.log.store()).await?;
        }
        Ok(())
    }

    /// How far the warehouse is; `None` if no batch is applied.
    ///
    /// # Errors
    /// If it cannot be asked.
    pub async fn state(&self) -> Result<Option<State>, Error> {
        let client = self.warehouse.connect().await?;
        let Some(newest) = self.newest(&client).await? else { return Ok(None) };
        // A table that a new model brings is made with its first batch.
        let there = "SELECT tablename::text FROM pg_tables WHERE schemaname = $1";
        let there = client.query(there, &[&self.schema]).await.doing("list the star tables")?;
        let there: Vec<String> = there.iter().map(|row| row.get(0)).collect();
        let quarantined = quarantine::by_table(&client, &self.schema).await?;
        let mut rows = Vec::new();
        for table in self.pack.models.keys().filter(|table| there.contains(table)) {
            let sql = format!("SELECT count(*) FROM {}", qualified(&self.schema, table));
            let count: i64 = client.query_one(&sql, &[]).await.doing(format!("count the rows of {table}"))?.get(0);
            rows.push((table.clone(), count as u64, quarantined.get(table).copied().unwrap_or(0)));
        }
        Ok(Some(State { batch: newest.batch, applied_at: newest.applied_at, rows }))
    }

    /// The star tables' foreign keys that a large batch took down and that are not back and valid yet, as `table.key`.
    ///
    /// # Errors
    /// If the warehouse cannot be asked.
    pub async fn foreign_keys_down(&self) -> Result<Vec<String>, Error> {
        let client = self.warehouse.connect().await?;
        match ledger::exists(&client).await? {
            true => bulk::taken_down(&client, &self.schema).await,
            false => Ok(Vec::new()),
        }
    }

    /// The names of the star tables.
    pub fn star_tables(&self) -> impl Iterator<Item = &str> {
        self.pack.models.keys().map(String::as_str)
    }

    /// The rows in quarantine, by star table, oldest first.
    ///
    /// # Errors
    /// If the warehouse cannot be asked.
    pub async fn quarantine(&self) -> Result<Vec<Entry>, Error> {
        let client = self.warehouse.connect().await?;
        match ledger::exists(&client).await? {
            true => quarantine::entries(&client, &self.schema, false).await,
            false => Ok(Vec::new()),
        }
    }

    /// Takes a key out of quarantine until its row changes at the source: the number of entries that it had.
    ///
    /// # Errors
    /// If the warehouse cannot be written to.
    pub async fn discard(&self, table: &str, key: &serde_json::Value) -> Result<u64, Error> {
        let client = self.warehouse.connect().await?;
        quarantine::discard(&client, &self.schema, table, key).await
    }

    /// Stops when the warehouse was fed by another log than the bucket holds.
    async fn same_log(&self, newest: &Newest) -> Result<(), Error> {
        if let Some(manifest) = self.log.read::<Transformed>(newest.batch).await? {
            if manifest.head.log != newest.log {
                return Err(newest.other_log(&self.log, &manifest, &self.schema));
            }
            if manifest.extracted != newest.extracted {
                let why = "it is another batch than the one of this number that is applied".into();
                return Err(log::Error::Foreign { object: self.log.place(newest.batch), why }.into());
            }
        } else if let Some(first) = self.log.after(0, 1).await?.first()
            && let Some(manifest) = self.log.read::<Transformed>(*first).await?
            && manifest.head.log != newest.log
        {
            return Err(newest.other_log(&self.log, &manifest, &self.schema));
        }
        Ok(())
    }
}
