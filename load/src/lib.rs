//! Load: the batches of the processed log into the warehouse, in order, each once.
//!
//! A batch and its line in the ledger are one transaction under a lock, so repeated, early and
//! simultaneous runs all end in the same state.

mod batch;
mod catalogue;
mod check;
mod deletion;
mod error;
mod ledger;
mod quarantine;
mod star;
#[cfg(test)]
#[path = "schema/statements.rs"]
mod statements;
mod verify;
mod view;

use std::sync::atomic::AtomicU32;

use blackwater_shared::config::Config;
use blackwater_shared::deadline::{Deadline, Pace};
use blackwater_shared::log::{self, Applied, Log};
use blackwater_shared::manifest::Transformed;
use blackwater_shared::pack::Pack;
use blackwater_shared::postgres::{self, Database, Doing, ident, idents, qualified};
use blackwater_shared::store::{Store, sha256};
use chrono::{DateTime, Utc};
use deadpool_postgres::{Object, Transaction};
use serde::Serialize;
use tokio_postgres::error::SqlState;

use batch::Batch;
pub use error::Error;
use ledger::Newest;
pub use quarantine::Entry;
pub use verify::{Comparison, Difference, Piece, Verdict, What};

/// How values are read, and how long a session waits for a lock.
const SESSION: &str = "SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO, YMD'; \
    SET LOCAL IntervalStyle = 'postgres'; SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = 'hex'; \
    SET LOCAL lock_timeout = '10s'; SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = '10min'; \
    SET LOCAL search_path = pg_catalog";

/// So many new rows in a table change how it is best read.
const MANY: u64 = 1000;

/// Load with its clients, for any number of runs.
#[derive(Clone)]
pub struct Load {
    warehouse: Database,
    schema: String,
    readers: Vec<String>,
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
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

    /// The rows that were written, or were there already.
    fn rows(&self) -> u64 {
        self.inserted + self.updated + self.unchanged
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
        Ok(Self {
            warehouse: config.warehouse.address.pool("blackwater load", 2)?,
            schema: config.warehouse.schema.clone(),
            readers: config.warehouse.readers.clone(),
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
    /// Those of [`Self::run`].
    pub async fn run_until(&self, schema_applied: bool, deadline: Deadline) -> Result<Report, Error> {
        let mut report = Report::default();
        let attempt = async || self.attempt(schema_applied, deadline, &mut report).await;
        postgres::retry(attempt, Error::is_transient).await?;
        Ok(report)
    }

    async fn attempt(&self, schema_applied: bool, deadline: Deadline, report: &mut Report) -> Result<(), Error> {
        self.log.store().check().await?;
        let mut client = self.warehouse.connect().await?;
        let mut newest = self.newest(&client).await?;
        if let Some(newest) = &newest {
            self.same_log(newest).await?;
        }
        report.applied = newest.as_ref().map_or(0, |newest| newest.batch);
        let mut pace = Pace::towards(deadline);
        while let Some(manifest) = self.log.read::<Transformed>(report.applied + 1).await? {
            report.more = !pace.begins();
            if report.more {
                break;
            }
            ledger::prepare(&mut client).await?;
            if let Some(batch) = self.batch(&mut client, &manifest, schema_applied).await? {
                self.analyze(&client, &batch).await;
                report.batches.push(batch);
            }
            newest = self.newest(&client).await?;
            report.applied = newest.as_ref().map_or(0, |newest| newest.batch);
        }
        self.leave_word(newest.as_ref()).await?;
        if let Some(newest) = newest {
            report.quarantine = quarantine::by_table(&client, &self.schema).await?.values().sum();
            report.schema_waits = newest.schema_hash != self.schema_hash();
            report.wanted = newest.wanted;
        }
        Ok(())
    }

    /// Has the planner look at the tables that a batch filled: the next one may come before autovacuum does, and
    /// compare their keys row by row. It waits for nobody, and the batch is in if it fails.
    async fn analyze(&self, client: &Object, batch: &BatchReport) {
        let filled = batch.tables.iter().filter(|table| table.counts.inserted >= MANY);
        let mut tables: Vec<_> = filled.map(|table| qualified(&self.schema, &table.table)).collect();
        if !tables.is_empty() {
            tables.push("blackwater.version".into());
            let analyzed = client.batch_execute(&format!("ANALYZE (SKIP_LOCKED) {}", tables.join(", "))).await;
            if let Err(error) = analyzed {
                tracing::debug!(error = postgres::explain(&error), "not analyzed");
            }
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
    async fn leave_word(&self, newest: Option<&Newest>) -> Result<(), Error> {
        let left = Applied::read(self.log.store()).await?;
        let hint = match (newest, &left) {
            (Some(newest), _) => Applied { log: newest.log, batch: newest.batch, wanted: newest.wanted.clone() },
            (None, Some(left)) => Applied { log: left.log, batch: 0, wanted: Vec::new() },
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
                return Err(self.other_log(&manifest, newest));
            }
            if manifest.extracted != newest.extracted {
                let why = "it is another batch than the one of this number that is applied".into();
                return Err(log::Error::Foreign { object: self.log.place(newest.batch), why }.into());
            }
        } else if let Some(first) = self.log.after(0, 1).await?.first()
            && let Some(manifest) = self.log.read::<Transformed>(*first).await?
            && manifest.head.log != newest.log
        {
            return Err(self.other_log(&manifest, newest));
        }
        Ok(())
    }

    fn other_log(&self, manifest: &Transformed, newest: &Newest) -> Error {
        let known_by = format!("schema {} of the warehouse", self.schema);
        let (here, found) = (self.log.place(manifest.head.batch), manifest.head.log);
        log::Error::OtherLog { here, found, known_by, known: newest.log }.into()
    }

    /// Applies one batch, unless another load did so first.
    async fn batch(
        &self,
        client: &mut Object,
        manifest: &Transformed,
        schema_applied: bool,
    ) -> Result<Option<BatchReport>, Error> {
        let batch = manifest.head.batch;
        let folder = tempfile::tempdir().map_err(|why| Error::File { path: std::env::temp_dir(), why })?;
        let doing = || format!("apply batch {batch}");
        let transaction = client.transaction().await.doing(doing())?;
        transaction.batch_execute(SESSION).await.doing(doing())?;
        ledger::lock(&transaction, &self.schema).await?;
        let newest = ledger::newest(transaction.client(), &self.schema).await?;
        if newest.as_ref().map_or(0, |newest| newest.batch) + 1 != batch {
            return Ok(None);
        }
        if let Some(newest) = newest.as_ref().filter(|newest| newest.log != manifest.head.log) {
            return Err(self.other_log(manifest, newest));
        }
        let schema_hash = self.schema_hash();
        let schema_is_new = newest.as_ref().is_none_or(|newest| newest.schema_hash != schema_hash);
        if schema_is_new {
            self.schema(&transaction, schema_applied).await?;
        }

        let applied = Batch {
            transaction: &transaction,
            store: self.log.store(),
            schema: &self.schema,
            number: batch,
            at: manifest.head.at,
            folder: folder.path(),
            temporaries: AtomicU32::new(0),
        }
        .apply(manifest, newest.filter(|_| !schema_is_new).map(|newest| newest.agreed))
        .await?;
        let mut all = Counts::default();
        applied.tables.iter().for_each(|table| all.add(table.counts));
        let wanted: Vec<_> = applied.wanted.into_iter().collect();
        ledger::note(&transaction, &self.schema, manifest, &schema_hash, all, &wanted, &applied.agreed).await?;
        transaction.commit().await.doing(doing())?;
        let Counts { inserted, updated, unchanged, deleted, released, quarantined } = all;
        tracing::info!(batch, inserted, updated, unchanged, deleted, released, quarantined, "applied");
        Ok(Some(BatchReport { batch, tables: applied.tables, notices: applied.notices }))
    }

    /// What changes when `schema.sql`, or who may read, does.
    fn schema_hash(&self) -> String {
        sha256(format!("{}\0{}", self.pack.schema, self.readers.join("\0")).as_bytes())
    }

    /// Applies `schema.sql`, unless that was done by hand, makes the views of the histories, and
    /// lets the readers read.
    async fn schema(&self, transaction: &Transaction<'_>, applied: bool) -> Result<(), Error> {
        let models: Vec<_> = self.pack.models.keys().map(String::as_str).collect();
        let mut grants = Vec::new();
        if !applied {
            // They would be in the way of a change to their tables.
            grants = view::take_down(transaction, &self.schema, &models).await?;
            self.apply_schema(transaction).await?;
        }
        let stars = catalogue::read(transaction, &self.schema, &models).await?;
        let mut readable = models.clone();
        let mut views = Vec::new();
        for (name, star) in &stars {
            if let Some(record) = star.record(&self.pack.models[name].columns) {
                views.push(view::make(transaction, &self.schema, name, record).await?);
            }
        }
        view::grant_again(transaction, grants).await?;
        if !applied && !self.readers.is_empty() {
            readable.extend(views.iter().map(String::as_str));
            let tables: Vec<_> = readable.iter().map(|table| qualified(&self.schema, table)).collect();
            let (schema, readers) = (ident(&self.schema), idents("", &self.readers));
            let sql = format!(
                "GRANT USAGE ON SCHEMA {schema} TO {readers}; GRANT SELECT ON {} TO {readers}",
                tables.join(", ")
            );
            transaction.batch_execute(&sql).await.map_err(|error| match error.code() {
                Some(code) if *code == SqlState::UNDEFINED_OBJECT => {
                    Error::Readers { readers: self.readers.join(", "), why: postgres::explain(&error) }
                }
                _ => self.schema_error(&error),
            })?;
        }
        Ok(())
    }

    fn schema_error(&self, error: &tokio_postgres::Error) -> Error {
        let remedy = match error.code() {
            Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => format!(
                "If this role may not, run it by hand as the schema's owner, with search_path = {}, and then `blackwater \
                 load --schema-applied`",
                self.schema
            ),
            _ => "Put it right; it must be such that it can be run again (CREATE TABLE IF NOT EXISTS)".into(),
        };
        Error::Schema { schema: self.schema.clone(), why: format!("{}\n{remedy}", postgres::explain(error)) }
    }

    async fn apply_schema(&self, transaction: &Transaction<'_>) -> Result<(), Error> {
        let failed = |error: tokio_postgres::Error| self.schema_error(&error);
        let schema = ident(&self.schema);
        let before = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1), pg_current_xact_id()::text";
        let row = transaction.query_one(before, &[&self.schema]).await.map_err(failed)?;
        if !row.get::<_, bool>(0) {
            transaction.batch_execute(&format!("CREATE SCHEMA {schema}")).await.map_err(failed)?;
        }
        let sql =
            format!("SET LOCAL search_path = {schema};\n{}\n;SET LOCAL search_path = pg_catalog", self.pack.schema);
        transaction.batch_execute(&sql).await.map_err(failed)?;
        let after = transaction.query_one("SELECT pg_current_xact_id()::text", &[]).await.map_err(failed)?;
        if row.get::<_, &str>(1) != after.get::<_, &str>(0) {
            let why = "it ends the transaction (COMMIT or ROLLBACK)\nTake that out".into();
            return Err(Error::Schema { schema: self.schema.clone(), why });
        }
        Ok(())
    }
}
