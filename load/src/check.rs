//! What of the warehouse will not work, before a run: `schema.sql`, no rows, and a sample of rows go the way of a batch, in a
//! transaction that is rolled back.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use blackwater_base::deadline::Deadline;
use blackwater_shared::finding::{About, Finding, Level};
use blackwater_shared::log::Ends;
use blackwater_shared::manifest::Object;
use blackwater_shared::manifest::StarTable;
use blackwater_shared::postgres::{self, Doing, Kind, ident};
use chrono::Utc;
use deadpool_postgres::Transaction;

use crate::apply::Changes;
use crate::catalogue::{self, Star};
use crate::error::Error;
use crate::ledger::{self, Newest, Partly};
use crate::reject::{checks, references};
use crate::staging::{self, ALL};
use crate::target::Target;
use crate::warehouse::Warehouse;
use crate::{Load, apply, quarantine, write};

/// How long star tables that are there may be locked: nobody reads them meanwhile.
const LOCKED: Duration = Duration::from_secs(1);

impl Load {
    /// Checks the warehouse against the models' star tables, with rows whose objects are files: their keys are paths. `log` says
    /// where the one in the ingestion bucket ends.
    ///
    /// # Errors
    /// None of what a check is for: if the warehouse cannot be asked, that is a finding.
    pub async fn check(&self, models: &BTreeMap<String, StarTable>, log: Option<Ends>) -> Vec<Finding> {
        let mut findings = Vec::new();
        if let Err(error) = self.check_warehouse(models, log, &mut findings).await {
            findings.push(match is_late(&error) {
                true => not_all(&error),
                false => Finding::error(About::Warehouse, error),
            });
        }
        findings
    }

    async fn check_warehouse(
        &self,
        models: &BTreeMap<String, StarTable>,
        log: Option<Ends>,
        findings: &mut Vec<Finding>,
    ) -> Result<(), Error> {
        let doing = "check the warehouse";
        let mut client = self.warehouse.connect().await?;
        // It is rolled back with its end.
        let transaction = client.transaction().await.doing(doing)?;
        // Whoever works with the warehouse does not wait for a check.
        transaction.batch_execute("SET LOCAL lock_timeout = '500ms'").await.doing(doing)?;
        let temporary = "SELECT has_database_privilege(current_database(), 'TEMPORARY')";
        if !transaction.query_one(temporary, &[]).await.doing(doing)?.get::<_, bool>(0) {
            let what = "this role may not make temporary tables\nGRANT TEMPORARY ON DATABASE … TO it";
            findings.push(Finding::error(About::Warehouse, what));
        }
        ledger::make(&transaction).await?;
        ledger::check_format(transaction.client()).await?;
        let newest = ledger::newest(transaction.client(), &self.schema).await?;
        let at = ledger::effective_at(Utc::now(), newest.as_ref(), &Partly::default());
        self.check_log(newest, log, findings).await;
        let names: Vec<_> = models.keys().map(String::as_str).collect();
        let there: BTreeSet<_> = catalogue::read(&transaction, &self.schema, &names).await?.into_keys().collect();
        let Some(deadline) = self.try_schema(&transaction, !there.is_empty(), findings).await? else { return Ok(()) };
        let warehouse = Warehouse::begin(&transaction, &self.schema, (0, at), deadline).await?;
        let stars = catalogue::read(&transaction, &self.schema, &names).await?;
        let mut targets = Vec::new();
        for (number, (name, model)) in (1..).zip(models) {
            let found = findings_of_table(name, model, stars.get(name));
            if !found.iter().any(|finding| finding.level == Level::Error) {
                targets.push(Target::new(number, (&self.schema, name), model, stars.get(name), 0)?);
            }
            findings.extend(found);
        }
        warehouse.run(doing, references::TABLES).await?;
        for group in apply::groups(&targets) {
            if group.len() > 1 {
                let names: Vec<_> = group.iter().map(|target| target.name).collect();
                let what = format!(
                    "the foreign keys of {} lead in a circle: they must be DEFERRABLE, or rows that need each other cannot \
                     be written",
                    names.join(", ")
                );
                findings.push(Finding::advice(About::Warehouse, what));
            }
            try_group(&warehouse, findings, async || try_statements(&warehouse, &group).await).await?;
        }
        if !findings.iter().any(|finding| finding.level == Level::Error && finding.about == About::Warehouse) {
            self.try_rows(&warehouse, models, &there, findings).await?;
        }
        Ok(())
    }

    /// Applies `schema.sql`, if it would be: until when the check must be over, for the sake of those who read the star tables that it may
    /// change. `None` if that is now.
    async fn try_schema(
        &self,
        transaction: &Transaction<'_>,
        has_tables: bool,
        findings: &mut Vec<Finding>,
    ) -> Result<Option<Deadline>, Error> {
        if ledger::schema_file(transaction.client(), &self.schema).await? == Some(self.schema(Deadline::NONE).hash()) {
            return Ok(Some(Deadline::NONE));
        }
        let deadline = if has_tables { Deadline::at(SystemTime::now() + LOCKED) } else { Deadline::NONE };
        match self.schema(deadline).try_in(transaction).await {
            Ok(untried) => {
                findings.extend(untried.into_iter().map(|what| {
                    let what = format!("{what} was not tried, because it wants a transaction of its own");
                    Finding::advice(About::Warehouse, what)
                }));
                Ok(Some(deadline))
            }
            Err(error) if is_late(&error) => {
                let what = "schema.sql was not tried to its end: it changes star tables that are there, takes longer than a second, \
                            and nobody can read them meanwhile";
                findings.push(Finding::advice(About::Warehouse, what));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Sends the rows of the models through the way of a batch. `there` are the star tables that others see.
    async fn try_rows(
        &self,
        warehouse: &Warehouse<'_>,
        models: &BTreeMap<String, StarTable>,
        there: &BTreeSet<String>,
        findings: &mut Vec<Finding>,
    ) -> Result<(), Error> {
        let names: Vec<_> = models.keys().map(String::as_str).collect();
        let stars = catalogue::read(warehouse.transaction, &self.schema, &names).await?;
        // A few rows of each table do not hold what they refer to.
        for (name, star) in stars.iter().filter(|(name, _)| !there.contains(*name)) {
            let is_new = |table: &String| !there.contains(table);
            for reference in
                star.references.iter().filter(|reference| reference.star_table.as_ref().is_some_and(is_new))
            {
                let table = postgres::qualified(&self.schema, name);
                let drop = format!(
                    "SET CONSTRAINTS ALL IMMEDIATE; ALTER TABLE {table} DROP CONSTRAINT {}",
                    ident(&reference.constraint)
                );
                warehouse.run(format!("leave the foreign keys of {name} out of the check"), &drop).await?;
            }
        }
        let stars = catalogue::read(warehouse.transaction, &self.schema, &names).await?;
        let mut targets = apply::targets((warehouse.batch, &self.schema), models, &stars)?;
        targets.iter_mut().for_each(|target| target.rewrites = true);
        for group in apply::groups(&targets) {
            let mut found = Vec::new();
            try_group(warehouse, findings, async || {
                let fetch = async |object: &Object| Ok(PathBuf::from(&object.key));
                for target in &group {
                    staging::stage_rows(warehouse, &fetch, target, &ALL).await?;
                    staging::stage_keys(warehouse, &fetch, target).await?;
                }
                let with_entries = quarantine::with_entries(warehouse, &targets).await?;
                apply::write_group(warehouse, &group, &with_entries, &mut Changes::default()).await?;
                for target in &group {
                    found.extend(refused(warehouse, target).await?);
                }
                Ok(())
            })
            .await?;
            findings.extend(found);
        }
        Ok(())
    }

    /// Whether the ledger and the buckets are of one log.
    async fn check_log(&self, newest: Option<Newest>, log: Option<Ends>, findings: &mut Vec<Finding>) {
        let Some(newest) = newest else { return };
        if let Err(error) = self.same_log(&newest).await {
            findings.push(Finding::error(About::Buckets, error));
        } else if let Some(Ends { log: id, batch }) = log
            && (id.is_some_and(|id| id != newest.log) || batch < newest.batch)
        {
            let there = id.map_or("has none".into(), |id| format!("ends at batch {batch} of log {id}"));
            let what = format!(
                "schema {} of the warehouse is at batch {} of log {}, and the ingestion bucket {there}\nIf another pipeline \
                 feeds that schema, name another in warehouse.schema; if the bucket was emptied or exchanged, restore its \
                 objects",
                self.schema, newest.batch, newest.log
            );
            findings.push(Finding::error(About::Buckets, what));
        }
    }

    /// The statements for the roles of the warehouse: the one that writes, and those that read.
    #[must_use]
    pub fn grants(&self) -> String {
        let address = self.warehouse.address();
        let (role, schema, database) = (ident(address.user()), ident(&self.schema), ident(address.database()));
        let readers: String =
            self.readers.iter().map(|reader| format!("CREATE ROLE {} LOGIN;\n", ident(reader))).collect();
        format!(
            "-- For {address}: run it in database {}, as its owner. Load grants the readers what they may read.\n\
             CREATE ROLE {role} LOGIN;  -- and give it a password\n\
             GRANT CONNECT, TEMPORARY ON DATABASE {database} TO {role};\n\
             CREATE SCHEMA IF NOT EXISTS blackwater;\n\
             CREATE SCHEMA IF NOT EXISTS {schema};\n\
             GRANT USAGE, CREATE ON SCHEMA blackwater, {schema} TO {role} WITH GRANT OPTION;\n{readers}",
            address.database()
        )
    }
}

/// What of a star table does not fit its model.
fn findings_of_table(name: &str, model: &StarTable, star: Option<&Star>) -> Vec<Finding> {
    let Some(star) = star else {
        let what = format!("there is no plain table {name} in the star schema\nAdd it to schema.sql");
        return vec![Finding::error(About::Warehouse, what)];
    };
    let mut found: Vec<_> = star.problems(name, model);
    if !star.is_writable {
        found.push("this role may not write it\nGRANT SELECT, INSERT, UPDATE ON it TO the role".into());
    }
    let named = |what: String| format!("{name}: {what}");
    let errors = found.into_iter().map(|what| Finding::error(About::Warehouse, named(what)));
    let advice = star.advice(model).into_iter().map(|what| Finding::advice(About::Warehouse, named(what)));
    errors.chain(advice).collect()
}

/// Tries to write to a group of tables: if that fails, it is a finding.
async fn try_group(
    warehouse: &Warehouse<'_>,
    findings: &mut Vec<Finding>,
    work: impl AsyncFnOnce() -> Result<(), Error>,
) -> Result<(), Error> {
    warehouse.savepoint("try");
    match work().await {
        Ok(()) => {
            warehouse.release("try");
            return Ok(());
        }
        Err(error) if error.is_transient() || is_late(&error) => findings.push(not_all(&error)),
        Err(error) => findings.push(Finding::error(About::Warehouse, error)),
    }
    warehouse.undo("try");
    Ok(())
}

/// That the check ended early, so that others need not wait.
fn not_all(error: &Error) -> Finding {
    Finding::advice(About::Warehouse, format!("not all was tried, to hold up nobody: {error}"))
}

/// Whether the server ended a statement because the check would have kept others waiting.
fn is_late(error: &Error) -> bool {
    matches!(error, Error::Postgres(postgres::Error { kind: Kind::Cancelled, .. }))
}

/// What a star table refused of the rows that were tried. Those that refer to rows which are not there were not.
async fn refused(warehouse: &Warehouse<'_>, target: &Target<'_>) -> Result<Option<Finding>, Error> {
    let sql = format!(
        "SELECT count(*) FILTER (WHERE NOT waits), count(*) FILTER (WHERE waits), min(reason) FILTER (WHERE NOT waits)
         FROM (SELECT reason, reference IS NOT NULL AND reference ? 'key' AS waits FROM blackwater.quarantine q WHERE {} AND q.batch = {}) q",
        target.of_table("q"),
        warehouse.batch
    );
    let rows = warehouse.query(warehouse.doing("count the refused rows of", target), &sql, &[]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let (refused, waiting): (i64, i64) = (row.get(0), row.get(1));
    let Some(reason) = row.get::<_, Option<String>>(2) else { return Ok(None) };
    let rows: u64 = target.table.objects.iter().chain(&target.table.misfits).map(|object| object.rows).sum();
    let (name, tried) = (target.name, rows as i64 - waiting);
    Ok(Some(match refused < tried {
        true => Finding::advice(
            About::Warehouse,
            format!(
                "{name} refuses {refused} of {tried} rows that were tried; they would be put into quarantine: {reason}"
            ),
        ),
        false => {
            Finding::error(About::Warehouse, format!("{name} takes none of {tried} rows that were tried: {reason}"))
        }
    }))
}

async fn try_statements(warehouse: &Warehouse<'_>, group: &[&Target<'_>]) -> Result<(), Error> {
    staging::make_for_rows(warehouse, group).await?;
    for target in group {
        checks::columns(warehouse, target).await?;
        checks::keys(warehouse, target).await?;
    }
    references::hold_back(warehouse, group).await?;
    write::write(warehouse, group, true).await?;
    write::try_statements(warehouse, group).await
}
