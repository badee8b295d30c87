//! How long a statement may take at the source: nobody else ends one whose program is gone or waits for nothing.

use std::time::{Duration, Instant};

use blackwater_base::deadline::Deadline;
use blackwater_shared::postgres::{self, Doing, Kind};
use deadpool_postgres::{Object, Transaction};

use crate::error::Error;

/// How long a statement may take: as long as the setting says, and not past the run's deadline.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    /// The setting, source.statement_timeout.
    pub(crate) setting: Duration,
    pub(crate) deadline: Deadline,
}

/// How long each statement may take that begins now or soon.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowed {
    began: Instant,
    /// Whole milliseconds, as the server counts.
    time: Duration,
    is_setting: bool,
}

impl Limit {
    pub(crate) fn now(self) -> Allowed {
        let left = self.deadline.left().filter(|left| *left < self.setting);
        let time = left.unwrap_or(self.setting).as_millis().max(1);
        Allowed { began: Instant::now(), time: Duration::from_millis(time as u64), is_setting: left.is_none() }
    }

    /// The first half of the time until the deadline: the rest is for a second try with a smaller batch, and for the commit.
    pub(crate) fn halved(self) -> Self {
        Self { deadline: self.deadline.halfway(), ..self }
    }

    /// Has the server end each later statement of the transaction in time.
    pub(crate) async fn set(self, transaction: &Transaction<'_>) -> Result<Allowed, Error> {
        let allowed = self.now();
        transaction.batch_execute(&allowed.sql()).await.doing("limit the time of a statement")?;
        Ok(allowed)
    }
}

impl Allowed {
    /// The same, and no longer than `most`.
    pub(crate) fn within(self, most: Duration) -> Self {
        Self { time: self.time.min(most), ..self }
    }

    /// The statement that sets it for a transaction. (A setting of the session would reach others through a pooler.)
    pub(crate) fn sql(&self) -> String {
        format!("SET LOCAL statement_timeout = {}", self.time.as_millis())
    }

    /// Begins a transaction for statements that need no snapshot of the run.
    pub(crate) async fn begin<'a>(&self, client: &'a mut Object) -> Result<Transaction<'a>, Error> {
        let transaction = client.build_transaction().read_only(true).start().await;
        let transaction = transaction.doing("begin a transaction on the source")?;
        transaction.batch_execute(&self.sql()).await.doing("limit the time of a statement")?;
        Ok(transaction)
    }

    /// The error, or that the time was over if the server ended the statement because of it.
    pub(crate) fn explain(&self, error: impl Into<Error>) -> Error {
        match error.into() {
            Error::Postgres(postgres::Error { kind: Kind::Cancelled, doing, .. })
                if self.began.elapsed() >= self.time =>
            {
                if self.is_setting {
                    Error::StatementTimeout { doing, limit: self.time }
                } else {
                    Error::Late { doing }
                }
            }
            error => error,
        }
    }
}
