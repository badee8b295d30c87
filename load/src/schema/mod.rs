//! `schema.sql`: the star schema's DDL, applied as a step of its own before a batch, when it is not the one that was applied.
//!
//! Each statement is sent by itself. Those that may share a transaction do; one that wants its own, as `ALTER TYPE … ADD VALUE`
//! or `CREATE INDEX CONCURRENTLY`, gets it. The file can be run again, so a run that ends between two of them is no harm.

mod statements;
pub(crate) mod view;

use std::collections::BTreeMap;

use blackwater_base::deadline::Deadline;
use blackwater_base::store::sha256;
use blackwater_shared::manifest::Transformed;
use blackwater_shared::pack::Pack;
use blackwater_shared::postgres::{self, Doing, ident, idents, literal, qualified};
use deadpool_postgres::{Object, Transaction};
use statements::{Statement, Step};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::catalogue::{self, Star};
use crate::error::Error;
use crate::ledger;
use crate::target::Target;
use crate::warehouse::writing_path;

/// What a star schema is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schema<'a> {
    pub(crate) name: &'a str,
    pub(crate) pack: &'a Pack,
    /// The roles that may read the star tables.
    pub(crate) readers: &'a [String],
    /// When the run must have ended.
    pub(crate) deadline: Deadline,
}

impl Schema<'_> {
    /// What changes when `schema.sql`, or who may read, does.
    pub(crate) fn hash(&self) -> String {
        sha256(format!("{}\0{}", self.pack.schema, self.readers.join("\0")).as_bytes())
    }

    fn tables(&self) -> Vec<&str> {
        self.pack.models.keys().map(String::as_str).collect()
    }

    /// Applies the file, makes the views of the histories, lets the readers read, and notes that this is done. `is_applied`: the file was
    /// run by hand.
    ///
    /// What comes last is in the transaction of the file's last statements, so a file of which no statement wants a transaction of
    /// its own is applied as a whole, or not at all if a star table does not fit its model in the end.
    pub(crate) async fn apply(
        &self,
        client: &mut Object,
        manifest: &Transformed,
        is_applied: bool,
    ) -> Result<(), Error> {
        let doing = "apply schema.sql";
        let mut steps = if is_applied { Vec::new() } else { self.steps()? };
        let last = match steps.pop() {
            Some(Step::Together(statements)) => statements,
            Some(alone) => {
                steps.push(alone);
                Vec::new()
            }
            None => Vec::new(),
        };
        for step in &steps {
            match step {
                Step::Together(statements) => {
                    let transaction = client.transaction().await.doing(doing)?;
                    self.run_together(&transaction, statements).await?;
                    transaction.commit().await.doing(doing)?;
                }
                Step::Alone(statement) => self.run_alone(client, statement).await?,
            }
        }
        let transaction = client.transaction().await.doing(doing)?;
        if !last.is_empty() {
            self.run_together(&transaction, &last).await?;
        }
        let views = self.make_views(&transaction).await?;
        if !is_applied {
            self.let_readers_read(&transaction, &views).await?;
        }
        let names: Vec<_> = manifest.tables.keys().map(String::as_str).collect();
        let stars = catalogue::read(&transaction, self.name, &names).await?;
        for (name, table) in &manifest.tables {
            Target::new(0, (self.name, name), table, stars.get(name), manifest.head.batch)?;
        }
        ledger::note_schema_file(transaction.client(), self.name, &self.hash()).await?;
        Ok(transaction.commit().await.doing(doing)?)
    }

    /// Tries the file in a transaction that the caller rolls back: the statements that could not be tried, because they want a
    /// transaction of their own.
    pub(crate) async fn try_in(&self, transaction: &Transaction<'_>) -> Result<Vec<String>, Error> {
        let mut untried = Vec::new();
        for step in &self.steps()? {
            match step {
                Step::Together(statements) => self.run_together(transaction, statements).await?,
                Step::Alone(Statement { line, text }) => {
                    let words: Vec<_> = text.split_whitespace().take(6).collect();
                    untried.push(format!("schema.sql:{line}: {} …", words.join(" ")));
                }
            }
        }
        let views = self.make_views(transaction).await?;
        self.let_readers_read(transaction, &views).await?;
        Ok(untried)
    }

    fn steps(&self) -> Result<Vec<Step>, Error> {
        statements::steps(&self.pack.schema).map_err(|refusal| Error::Schema {
            schema: self.name.to_owned(),
            line: Some(refusal.line),
            why: format!("{} …: {}", refusal.statement, refusal.why),
        })
    }

    /// Has the server end the next statement at the deadline.
    async fn limit(&self, client: &Client, scope: &str) -> Result<(), Error> {
        if let Some(left) = self.deadline.left() {
            let sql = format!("SET {scope} statement_timeout = {}", left.as_millis().max(1));
            client.batch_execute(&sql).await.doing("limit the time of a statement")?;
        }
        Ok(())
    }

    /// Runs statements that share a transaction. The views are out of their way meanwhile.
    async fn run_together(&self, transaction: &Transaction<'_>, statements: &[Statement]) -> Result<(), Error> {
        let grants = view::drop_all(transaction, self.name, &self.tables()).await?;
        self.make_schema(transaction).await?;
        let path = writing_path(transaction, self.name).await?;
        let set = format!("SELECT pg_catalog.set_config('search_path', {}, true)", literal(&path));
        let set = transaction.batch_execute(&set).await;
        set.doing("set the search path")?;
        for statement in statements {
            self.limit(transaction.client(), "LOCAL").await?;
            let run = transaction.execute(&statement.text, &[]).await;
            run.map_err(|error| self.failed(Some(statement.line), error))?;
        }
        let back = "SET LOCAL search_path = pg_catalog, pg_temp";
        transaction.batch_execute(back).await.doing("set the search path")?;
        self.make_views(transaction).await?;
        view::restore_grants(transaction, grants).await
    }

    /// Runs a statement in a transaction of its own, as the server begins it.
    async fn run_alone(&self, client: &mut Object, statement: &Statement) -> Result<(), Error> {
        let doing = "set the search path";
        let transaction = client.transaction().await.doing(doing)?;
        self.make_schema(&transaction).await?;
        let path = writing_path(&transaction, self.name).await?;
        transaction.commit().await.doing(doing)?;
        self.drop_invalid_indexes(client).await?;
        client.batch_execute(&format!("SET search_path = {path}")).await.doing(doing)?;
        self.limit(client, "SESSION").await?;
        let run = client.execute(&statement.text, &[]).await;
        let back = "SET search_path = pg_catalog, pg_temp; SET statement_timeout = 0";
        client.batch_execute(back).await.doing(doing)?;
        run.map(drop).map_err(|error| self.failed(Some(statement.line), error))
    }

    /// Drops the indexes that were not made to their end: IF NOT EXISTS would skip them. Not such as are being made.
    async fn drop_invalid_indexes(&self, client: &Object) -> Result<(), Error> {
        let doing = "drop an index that was not made to its end";
        let invalid =
            "SELECT x.relname::text FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
                       JOIN pg_catalog.pg_namespace n ON n.oid = x.relnamespace
                       WHERE n.nspname = $1 AND NOT i.indisvalid AND x.relkind = 'i' AND NOT EXISTS (
                           SELECT FROM pg_catalog.pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid)";
        for row in client.query(invalid, &[&self.name]).await.doing(doing)? {
            let sql = format!("DROP INDEX CONCURRENTLY IF EXISTS {}", qualified(self.name, row.get(0)));
            client.batch_execute(&sql).await.doing(doing)?;
        }
        Ok(())
    }

    async fn make_schema(&self, transaction: &Transaction<'_>) -> Result<(), Error> {
        let exists = "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1)";
        let row = transaction.query_one(exists, &[&self.name]).await.doing("look for the star schema")?;
        if !row.get::<_, bool>(0) {
            let make = transaction.batch_execute(&format!("CREATE SCHEMA {}", ident(self.name))).await;
            make.map_err(|error| self.failed(None, error))?;
        }
        Ok(())
    }

    /// Makes the views of the histories that have none: the names of all.
    async fn make_views(&self, transaction: &Transaction<'_>) -> Result<Vec<String>, Error> {
        let stars: BTreeMap<String, Star> = catalogue::read(transaction, self.name, &self.tables()).await?;
        let mut views = Vec::new();
        // A longer name is cut by Postgres; that the table's is too long is said with its contract.
        for (name, star) in stars.iter().filter(|(name, _)| view::name(name).len() <= 63) {
            if star.is_history(&self.pack.models[name].columns) {
                views.push(view::make(transaction, self.name, name).await?);
            }
        }
        Ok(views)
    }

    async fn let_readers_read(&self, transaction: &Transaction<'_>, views: &[String]) -> Result<(), Error> {
        if self.readers.is_empty() {
            return Ok(());
        }
        let readable = self.tables().into_iter().chain(views.iter().map(String::as_str));
        let readable: Vec<_> = readable.map(|table| qualified(self.name, table)).collect();
        let (schema, readers) = (ident(self.name), idents("", self.readers));
        let sql = format!(
            "GRANT USAGE ON SCHEMA {schema} TO {readers}; GRANT SELECT ON {} TO {readers}",
            readable.join(", ")
        );
        transaction.batch_execute(&sql).await.map_err(|error| match error.code() {
            Some(code) if *code == SqlState::UNDEFINED_OBJECT => {
                Error::Readers { readers: self.readers.join(", "), why: postgres::explain(&error) }
            }
            _ => self.failed(None, error),
        })
    }

    fn failed(&self, line: Option<usize>, error: tokio_postgres::Error) -> Error {
        if error.code() == Some(&SqlState::QUERY_CANCELED) {
            return postgres::Error::of("apply schema.sql", error).into();
        }
        let remedy = match error.code() {
            Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => format!(
                "If this role may not, run it by hand as the schema's owner, with search_path = {}, and then `blackwater \
                 load --schema-applied`",
                self.name
            ),
            Some(code) if *code == SqlState::LOCK_NOT_AVAILABLE => {
                "Another session uses the table. Run again when that is over".into()
            }
            _ => "Put it right; it must be such that it can be run again (CREATE TABLE IF NOT EXISTS)".into(),
        };
        let why = format!("{}\n{remedy}", postgres::explain(&error));
        Error::Schema { schema: self.name.to_owned(), line, why }
    }
}
