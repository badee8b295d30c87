//! What of the warehouse will not work, before anything is written to it.

use std::collections::BTreeMap;

use blackwater_shared::deadline::Deadline;
use blackwater_shared::finding::{About, Finding, Level};
use blackwater_shared::log::Ends;
use blackwater_shared::manifest::StarTable;
use blackwater_shared::postgres::{Doing, ident};
use chrono::Utc;

use crate::catalogue::{self, Star};
use crate::error::Error;
use crate::ledger::{self, Newest};
use crate::reject::{checks, references};
use crate::target::Target;
use crate::warehouse::Warehouse;
use crate::{Load, apply, staging, write};

impl Load {
    /// Checks the warehouse against the models' star tables. `schema.sql` is applied, if it would be, in a
    /// transaction that is rolled back. `log` says where the one in the ingestion bucket ends.
    ///
    /// # Errors
    /// None of what a check is for: if the warehouse cannot be asked, that is a finding.
    pub async fn check(&self, models: &BTreeMap<String, StarTable>, log: Option<Ends>) -> Vec<Finding> {
        let mut findings = Vec::new();
        if let Err(error) = self.check_warehouse(models, log, &mut findings).await {
            findings.push(Finding::error(About::Warehouse, error));
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
        let warehouse = Warehouse::begin(&transaction, &self.schema, (0, Utc::now()), Deadline::NONE).await?;
        // Whoever works with the warehouse does not wait for a check.
        warehouse.run(doing, "SET LOCAL lock_timeout = '1s'").await?;
        let temporary = "SELECT has_database_privilege(current_database(), 'TEMPORARY')";
        if !transaction.query_one(temporary, &[]).await.doing(doing)?.get::<_, bool>(0) {
            let what = "this role may not make temporary tables\nGRANT TEMPORARY ON DATABASE … TO it";
            findings.push(Finding::error(About::Warehouse, what));
        }
        ledger::make(&transaction).await?;
        ledger::check_format(transaction.client()).await?;
        self.check_log(ledger::newest(transaction.client(), &self.schema).await?, log, findings).await;
        if ledger::schema_file(transaction.client(), &self.schema).await? != Some(self.schema().hash()) {
            let untried = self.schema().try_in(&transaction).await?.into_iter();
            let advice = untried.map(|what| {
                let what = format!("{what} was not tried, because it wants a transaction of its own");
                Finding::advice(About::Warehouse, what)
            });
            findings.extend(advice);
        }
        let names: Vec<_> = models.keys().map(String::as_str).collect();
        let stars = catalogue::read(&transaction, &self.schema, &names).await?;
        let mut targets = Vec::new();
        for (number, (name, model)) in (1..).zip(models) {
            let found = findings_of_table(name, model, stars.get(name));
            if !found.iter().any(|finding| finding.level == Level::Error) {
                targets.push(Target::new(number, (&self.schema, name), model, stars.get(name), 0)?);
            }
            findings.extend(found);
        }
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
            self.try_to_write(&warehouse, &group, findings).await?;
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

    /// Sends a group of tables through the way of a batch that has no rows: what fails is a finding.
    async fn try_to_write(
        &self,
        warehouse: &Warehouse<'_>,
        group: &[&Target<'_>],
        findings: &mut Vec<Finding>,
    ) -> Result<(), Error> {
        let doing = "try to write to the star tables";
        warehouse.run(doing, "SAVEPOINT try").await?;
        warehouse.run(doing, references::TABLES).await?;
        if let Err(error) = write_nothing(warehouse, group).await {
            findings.push(Finding::error(About::Warehouse, error));
        }
        warehouse.run(doing, "ROLLBACK TO try").await
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

async fn write_nothing(warehouse: &Warehouse<'_>, group: &[&Target<'_>]) -> Result<(), Error> {
    staging::make_for_rows(warehouse, group).await?;
    for target in group {
        checks::check(warehouse, target).await?;
    }
    references::hold_back(warehouse, group).await?;
    write::write(warehouse, group, true).await?;
    write::write_nothing(warehouse, group).await
}
