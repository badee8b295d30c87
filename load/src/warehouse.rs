//! An open transaction of the warehouse in which a batch is applied.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use blackwater_base::deadline::Deadline;
use blackwater_shared::postgres::{self, Doing, ident, literal};
use chrono::{DateTime, Utc};
use deadpool_postgres::Transaction;
use futures_util::FutureExt;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use crate::error::Error;
use crate::target::Target;

/// So many new rows change how a table is best read.
pub(crate) const MANY: u64 = 1000;

/// The parameters of a statement, with their types: Postgres need not be asked for these, which saves a round trip.
pub(crate) type Parameters<'a> = &'a [(&'a (dyn ToSql + Sync), Type)];

/// An open transaction of the warehouse, and the batch that it applies.
pub(crate) struct Warehouse<'a> {
    pub(crate) transaction: &'a Transaction<'a>,
    /// The star schema.
    pub(crate) schema: &'a str,
    /// The batch's number.
    pub(crate) batch: u64,
    /// The batch's time: that of the source's snapshot, until the ledger gives it its place ([`crate::ledger::effective_at`]).
    pub(crate) at: DateTime<Utc>,
    deadline: Deadline,
    /// The milliseconds that were left when the time of statements was limited last; 0 if that does not hold any more.
    left: AtomicU64,
    /// The search path under which star tables are written.
    writing: String,
}

impl<'a> Warehouse<'a> {
    /// Sets the transaction up.
    pub(crate) async fn begin(
        transaction: &'a Transaction<'a>,
        schema: &'a str,
        (batch, at): (u64, DateTime<Utc>),
        deadline: Deadline,
    ) -> Result<Self, Error> {
        let writing = writing_path(transaction, schema).await?;
        let warehouse = Self { transaction, schema, batch, at, deadline, left: AtomicU64::new(0), writing };
        warehouse.limit_statements();
        Ok(warehouse)
    }

    /// Sends statements that do not fail, and does not wait for their end: Postgres runs what is sent in its order. If one fails all
    /// the same, or the connection is lost, the next statement fails. So a COMMIT must not be the next: it would undo all and say
    /// nothing.
    fn send(&self, sql: &str) {
        // A statement is sent when it is first polled (<https://docs.rs/tokio-postgres/latest/tokio_postgres/#pipelining>).
        let _ = self.transaction.batch_execute(sql).now_or_never();
    }

    /// Has the server end the next statement before the deadline. That is set anew only when a tenth of the time has passed.
    fn limit_statements(&self) {
        let Some(left) = self.deadline.left() else { return };
        let left = left.as_millis() as u64;
        let before = self.left.load(Relaxed);
        if before == 0 || left < before / 10 * 9 {
            self.send(&format!("SET LOCAL statement_timeout = {}", (left / 10 * 9).max(1)));
            self.left.store(left.max(1), Relaxed);
        }
    }

    /// Sets a savepoint, and limits the time of the statements after it.
    pub(crate) fn savepoint(&self, name: &str) {
        self.limit_statements();
        self.send(&format!("SAVEPOINT {name}"));
    }

    /// Keeps what was done since a savepoint.
    pub(crate) fn release(&self, name: &str) {
        self.send(&format!("RELEASE {name}"));
    }

    /// Undoes what was done since a savepoint, also where a statement failed. The time of statements is as it was then, too.
    pub(crate) fn undo(&self, name: &str) {
        self.left.store(0, Relaxed);
        self.send(&format!("ROLLBACK TO {name}; RELEASE {name}"));
    }

    /// Names in the next statements are those of Postgres alone: nothing in the star schema can take their place.
    pub(crate) fn use_builtin_names(&self) {
        self.send("SET LOCAL search_path = pg_catalog, pg_temp");
    }

    /// The next statements write to star tables: their triggers, defaults and constraints find what they find in psql. Such a
    /// statement names no function, and no operator but by its schema.
    pub(crate) fn use_own_names(&self) {
        // Of a connection's option it may be what SET does not take.
        self.send(&format!("SELECT pg_catalog.set_config('search_path', {}, true)", literal(&self.writing)));
    }

    /// Runs statements.
    pub(crate) async fn run(&self, doing: impl Into<String>, sql: &str) -> Result<(), Error> {
        self.limit_statements();
        Ok(self.transaction.batch_execute(sql).await.doing(doing)?)
    }

    /// Runs a statement: the number of its rows.
    pub(crate) async fn execute(
        &self,
        doing: impl Into<String>,
        sql: &str,
        parameters: Parameters<'_>,
    ) -> Result<u64, Error> {
        self.limit_statements();
        Ok(self.transaction.execute_typed(sql, parameters).await.doing(doing)?)
    }

    /// The rows of a query. Its columns must be of types that Postgres comes with: the client asks for others in the middle of the
    /// answer, and waits for ever if that is long.
    pub(crate) async fn query(
        &self,
        doing: impl Into<String>,
        sql: &str,
        parameters: Parameters<'_>,
    ) -> Result<Vec<Row>, Error> {
        self.limit_statements();
        Ok(self.transaction.query_typed(sql, parameters).await.doing(doing)?)
    }

    /// What is being done to a star table, for messages.
    pub(crate) fn doing(&self, doing: &str, target: &Target<'_>) -> String {
        format!("{doing} {} (batch {})", target.name, self.batch)
    }

    /// Does `work`; undoes it if a row may be at fault: `None`.
    pub(crate) async fn attempt<T>(&self, work: impl AsyncFnOnce() -> Result<T, Error>) -> Result<Option<T>, Error> {
        self.savepoint("attempt");
        match work().await {
            Err(error) if error.may_be_a_rows_fault() => {
                self.undo("attempt");
                Ok(None)
            }
            done => {
                let done = done?;
                self.release("attempt");
                Ok(Some(done))
            }
        }
    }
}

/// The search path of statements that write to star tables: the star schema, then what the role has.
pub(crate) async fn writing_path(transaction: &Transaction<'_>, schema: &str) -> Result<String, postgres::Error> {
    let own = "SELECT reset_val FROM pg_catalog.pg_settings WHERE name = 'search_path'";
    let path: String = transaction.query_typed_one(own, &[]).await.doing("ask for the role's search path")?.get(0);
    let own = Some(path.trim()).filter(|path| !path.is_empty() && *path != "\"\"");
    Ok([Some(ident(schema).as_str()), own, Some("pg_temp")].into_iter().flatten().collect::<Vec<_>>().join(", "))
}
