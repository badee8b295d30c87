//! Load: the batches of the processed log into the warehouse, in order, each once.
//!
//! A batch and its line in the ledger are one transaction under a lock, so repeated, early and
//! simultaneous runs all end in the same state.

mod catalogue;
mod error;
mod ledger;
mod star;
mod view;

use std::collections::BTreeSet;
use std::path::Path;

use blackwater_shared::config::Config;
use blackwater_shared::log::{self, Applied, Log};
use blackwater_shared::manifest::{StarTable, Transformed};
use blackwater_shared::pack::Pack;
use blackwater_shared::postgres::{self, Database, Doing, ident, idents, qualified};
use blackwater_shared::store::{Store, sha256};
use chrono::{DateTime, Utc};
use deadpool_postgres::{Object, Transaction};
use serde::Serialize;

use catalogue::Writing;
pub use error::Error;
use ledger::Newest;
use star::{Counts, Stage, StarFile};

/// How values are read, and how long a session waits for a lock.
const SESSION: &str = "SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO, YMD'; SET LOCAL lock_timeout = '60s'; \
    SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = '10min'; \
    SET LOCAL search_path = pg_catalog";

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
}

/// What one batch changed.
#[derive(Clone, Debug, Serialize)]
pub struct BatchReport {
    /// The batch.
    pub batch: u64,
    /// The star tables that got rows.
    pub tables: Vec<TableReport>,
}

/// What one batch changed in a star table.
#[derive(Clone, Debug, Serialize)]
pub struct TableReport {
    /// The star table.
    pub table: String,
    /// Rows that are new.
    pub inserted: u64,
    /// Rows that differed.
    pub updated: u64,
    /// Rows that were equal, and were left untouched.
    pub unchanged: u64,
}

/// How far the warehouse is.
#[derive(Clone, Debug, Serialize)]
pub struct State {
    /// The newest batch applied.
    pub batch: u64,
    /// When it was applied.
    pub applied_at: DateTime<Utc>,
    /// The rows of each star table.
    pub rows: Vec<(String, u64)>,
}

impl Load {
    /// Load as the configuration says; `processed` is the processed bucket.
    ///
    /// # Errors
    /// If there are no certificates to verify the warehouse with.
    pub fn new(config: &Config, pack: Pack, processed: Store) -> Result<Self, postgres::Error> {
        Ok(Self {
            warehouse: config.warehouse.address.pool("blackwater load", 1)?,
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
    pub async fn check(&self) -> Result<(), Error> {
        self.log.store().check().await?;
        drop(self.warehouse.connect().await?);
        Ok(())
    }

    /// One run: every batch that the processed log has and the warehouse lacks, until a number is
    /// missing. `schema_applied` says that `schema.sql` was run by hand.
    ///
    /// # Errors
    /// Each names the batch; those before it are applied, and the next run goes on from there.
    pub async fn run(&self, schema_applied: bool) -> Result<Report, Error> {
        self.log.store().check().await?;
        let mut client = self.warehouse.connect().await?;
        let mut newest = self.newest(&client).await?;
        if let Some(newest) = &newest {
            self.same_log(newest).await?;
        }
        let mut report = Report { applied: newest.as_ref().map_or(0, |newest| newest.batch), batches: Vec::new() };
        while let Some(manifest) = self.log.read::<Transformed>(report.applied + 1).await? {
            ledger::prepare(&mut client).await?;
            if let Some(batch) = self.batch(&mut client, &manifest, schema_applied).await? {
                report.batches.push(batch);
            }
            newest = self.newest(&client).await?;
            report.applied = newest.as_ref().map_or(0, |newest| newest.batch);
        }
        self.leave_word(newest.as_ref()).await?;
        Ok(report)
    }

    async fn newest(&self, client: &Object) -> Result<Option<Newest>, Error> {
        match ledger::exists(client).await? {
            true => ledger::newest(client, &self.schema).await,
            false => Ok(None),
        }
    }

    /// Tells transform how far the warehouse is, if it believes otherwise: also that it is empty.
    async fn leave_word(&self, newest: Option<&Newest>) -> Result<(), Error> {
        let left = Applied::read(self.log.store()).await?;
        let hint = match (newest, left) {
            (Some(newest), _) => Applied { log: newest.log, batch: newest.batch },
            (None, Some(left)) => Applied { batch: 0, ..left },
            (None, None) => return Ok(()),
        };
        if left != Some(hint) {
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
        let mut rows = Vec::new();
        for table in self.pack.models.keys().filter(|table| there.contains(table)) {
            let sql = format!("SELECT count(*) FROM {}", qualified(&self.schema, table));
            let count: i64 = client.query_one(&sql, &[]).await.doing(format!("count the rows of {table}"))?.get(0);
            rows.push((table.clone(), count as u64));
        }
        Ok(Some(State { batch: newest.batch, applied_at: newest.applied_at, rows }))
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
        let schema_hash = sha256(format!("{}\0{}", self.pack.schema, self.readers.join("\0")).as_bytes());
        if newest.is_none_or(|newest| newest.schema_hash != schema_hash) {
            self.schema(&transaction, schema_applied).await?;
        }

        let tables: Vec<_> = manifest.tables.iter().filter(|(_, table)| !table.objects.is_empty()).collect();
        let names: Vec<_> = tables.iter().map(|(name, _)| name.as_str()).collect();
        let stars = catalogue::read(&transaction, &self.schema, &names).await?;
        let mut report = BatchReport { batch, tables: Vec::new() };
        let mut all = Counts::default();
        for (number, name) in catalogue::in_order(&transaction, &self.schema, &names).await?.into_iter().enumerate() {
            let counts = match stars.get(name) {
                Some(star) => self.table(&transaction, manifest, name, star, number, folder.path()).await?,
                None => {
                    let why = format!("schema {} has no plain table of that name. Add it to schema.sql", self.schema);
                    return Err(Error::Table { batch, table: name.into(), why });
                }
            };
            all.add(counts);
            let Counts { inserted, updated, unchanged } = counts;
            report.tables.push(TableReport { table: name.into(), inserted, updated, unchanged });
        }
        ledger::note(&transaction, &self.schema, manifest, &schema_hash, all).await?;
        transaction.commit().await.doing(doing())?;
        let Counts { inserted, updated, unchanged } = all;
        tracing::info!(batch, inserted, updated, unchanged, "applied");
        Ok(Some(report))
    }

    /// Writes the rows of one star table.
    async fn table(
        &self,
        transaction: &Transaction<'_>,
        manifest: &Transformed,
        table: &str,
        star: &catalogue::Star,
        number: usize,
        folder: &Path,
    ) -> Result<Counts, Error> {
        let batch = manifest.head.batch;
        let refuse = |why: String| Error::Table { batch, table: table.into(), why };
        let StarTable { objects, key: driving, .. } = &manifest.tables[table];
        let mut stage: Option<Stage<'_>> = None;
        for object in objects {
            let path = folder.join("rows.parquet");
            self.log.store().download(object, &path).await?;
            let unreadable = |error: parquet::errors::ParquetError| Error::Parquet {
                batch,
                object: object.key.clone(),
                why: error.to_string(),
            };
            let file = StarFile::open(&path).map_err(unreadable)?;
            let stage = match &stage {
                Some(stage) => stage,
                None => {
                    let columns = file.columns();
                    if let Some(column) = columns.iter().find(|column| !star.columns.contains(*column)) {
                        return Err(refuse(format!(
                            "the model returns {column}, which the table has not. Add it to schema.sql"
                        )));
                    }
                    let star = qualified(&self.schema, table);
                    let made =
                        Stage { transaction, batch, table, star, stage: format!("pg_temp.stage_{number}"), columns };
                    made.create().await?;
                    stage.insert(made)
                }
            };
            stage.fill(file, &object.key).await?;
        }
        let Some(stage) = stage else { return Ok(Counts::default()) };
        match (star.writing(&stage.columns).map_err(refuse)?, driving) {
            (Writing::Upsert(key), driving) => {
                let told_apart =
                    |driving: &Vec<String>| key.iter().collect::<BTreeSet<_>>() == driving.iter().collect();
                if let Some(driving) = driving.as_ref().filter(|driving| !told_apart(driving)) {
                    return Err(refuse(format!(
                        "its key is ({}), but the source's rows are told apart by ({}), so one could overwrite \
                         another. Give it that key in schema.sql",
                        key.join(", "),
                        driving.join(", ")
                    )));
                }
                stage.one_row_a_key(key).await?;
                stage.upsert(key).await
            }
            (Writing::History { record }, Some(key)) => {
                stage.one_row_a_key(key).await?;
                stage.add_versions(&self.schema, record, key).await
            }
            (Writing::History { .. }, None) => {
                Err(refuse("a set of values (UNION or DISTINCT) has no history. Give it a key in schema.sql".into()))
            }
        }
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
            transaction.batch_execute(&sql).await.map_err(|error| self.schema_error(&error))?;
        }
        Ok(())
    }

    fn schema_error(&self, error: &tokio_postgres::Error) -> Error {
        Error::Schema { schema: self.schema.clone(), why: postgres::explain(error) }
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
            let why = "it ends the transaction (COMMIT or ROLLBACK). Take that out".into();
            return Err(Error::Schema { schema: self.schema.clone(), why });
        }
        Ok(())
    }
}
