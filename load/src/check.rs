//! What of the warehouse will not work, before anything is written to it.

use std::collections::BTreeMap;

use blackwater_shared::finding::{About, Finding};
use blackwater_shared::log::Ends;
use blackwater_shared::manifest::StarTable;
use blackwater_shared::postgres::{Doing, ident};

use crate::error::Error;
use crate::{Load, SESSION, catalogue, ledger};

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
        let transaction = client.transaction().await.doing(doing)?;
        let session = format!("{SESSION}; SET LOCAL lock_timeout = '5s'");
        transaction.batch_execute(&session).await.doing(doing)?;
        let temporary = "SELECT has_database_privilege(current_database(), 'TEMPORARY')";
        if !transaction.query_one(temporary, &[]).await.doing(doing)?.get::<_, bool>(0) {
            let what = "this role may not make temporary tables\nGRANT TEMPORARY ON DATABASE … TO it";
            findings.push(Finding::error(About::Warehouse, what));
        }
        ledger::make(&transaction).await?;
        ledger::check_format(transaction.client()).await?;
        let newest = ledger::newest(transaction.client(), &self.schema).await?;
        if let Some(newest) = &newest
            && let Err(error) = self.same_log(newest).await
        {
            findings.push(Finding::error(About::Buckets, error));
        } else if let (Some(newest), Some(Ends { log: id, batch })) = (&newest, log)
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
        if newest.is_none_or(|newest| newest.schema_hash != self.schema_hash()) {
            self.schema(&transaction, false).await?;
        }
        let names: Vec<_> = models.keys().map(String::as_str).collect();
        let stars = catalogue::read(&transaction, &self.schema, &names).await?;
        for (name, model) in models {
            let Some(star) = stars.get(name) else {
                let what = format!("schema {} has no plain table {name}\nAdd it to schema.sql", self.schema);
                findings.push(Finding::error(About::Warehouse, what));
                continue;
            };
            let problems = star.problems(name, model).into_iter();
            findings.extend(problems.map(|why| Finding::error(About::Warehouse, format!("{name}: {why}"))));
            if !star.is_writable {
                let what =
                    format!("{name}: this role may not write it\nGRANT SELECT, INSERT, UPDATE ON it TO the role");
                findings.push(Finding::error(About::Warehouse, what));
            }
            let advice = star.advice(model).into_iter();
            findings.extend(advice.map(|why| Finding::advice(About::Warehouse, format!("{name}: {why}"))));
        }
        let circle = catalogue::in_circles(&transaction, &self.schema, &names).await?;
        if !circle.is_empty() {
            let what = format!(
                "the foreign keys of {} lead in a circle: they must be DEFERRABLE INITIALLY DEFERRED, and rows that need \
                 each other stay in quarantine once one of them was refused",
                circle.join(", ")
            );
            findings.push(Finding::advice(About::Warehouse, what));
        }
        // The transaction is rolled back with its end.
        Ok(())
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
