use std::time::Duration;

use blackwater_base::store;
use blackwater_shared::{log, postgres};

/// Why a run of extract failed. Nothing is lost by it: the next run reads what this one did not.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The ingestion log failed.
    #[error(transparent)]
    Log(#[from] log::Error),
    /// The ingestion bucket failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The source cannot be reached, or a statement failed there.
    #[error(transparent)]
    Postgres(#[from] postgres::Error),
    /// The source does not have what the models read.
    #[error("the source has no table {} in schema {schema}, which {model} reads\nCorrect source.url, source.schema or the model", .tables.join(", "))]
    NoTable {
        /// The tables that are missing.
        tables: Vec<String>,
        /// The schema.
        schema: String,
        /// A model that reads one of them.
        model: String,
    },
    /// A source table cannot be read, or not exactly.
    #[error("source table {table}: {why}")]
    Table {
        /// The table.
        table: String,
        /// Why, and what to do.
        why: String,
    },
    /// A model does not fit the types of the source's columns.
    #[error("{0}\nPut the model right, or the table; the next run goes on where the log ends")]
    Types(#[from] blackwater_shared::model::Error),
    /// A model does not fit the source.
    #[error("{file}: {why}")]
    Model {
        /// The model's file.
        file: String,
        /// What does not fit, and what to do.
        why: String,
    },
    /// Another session is in the way.
    #[error(
        "another session holds a lock on one of {tables} (an ALTER TABLE or TRUNCATE under way)\nTry again when it is over"
    )]
    Busy {
        /// The tables.
        tables: String,
    },
    /// A partition came in between the lock and the snapshot.
    #[error("a partition was attached to {table} at this very moment\nTry again")]
    Attached {
        /// The table.
        table: String,
    },
    /// A standby has not got as far as the newest batch.
    #[error("this standby is behind the snapshot of batch {batch}\nTry again when it has caught up")]
    Behind {
        /// The batch.
        batch: u64,
    },
    /// The server prints a snapshot in a form that is not known.
    #[error(
        "the source calls its snapshot {snapshot:?}, which is no snapshot\nThis is a fault in Blackwater; please report it."
    )]
    Snapshot {
        /// What it printed.
        snapshot: String,
    },
    /// The server sends a row in a form that is not known.
    #[error(
        "the source sent a row of {table} that is not what was asked for\nThis is a fault in Blackwater; please report it."
    )]
    Line {
        /// The table.
        table: String,
    },
    /// The server is too old.
    #[error("the source is Postgres {version}; Blackwater reads 13 and later")]
    TooOld {
        /// Its version.
        version: i32,
    },
    /// A slot of this name is somebody else's.
    #[error(
        "the replication slot {slot} is of another database or plugin\nDrop it as whoever made it, or give the pipeline another name"
    )]
    ForeignSlot {
        /// Its name.
        slot: String,
    },
    /// The time was not enough.
    #[error(
        "could not {doing} before the run's deadline\nNothing is lost, but no batch was written. Give the run more time, or make limits.batch_bytes smaller"
    )]
    Late {
        /// What was being done.
        doing: String,
    },
    /// A statement took longer at the source than the configuration allows.
    #[error(
        "could not {doing} within {} s, which is as long as source.statement_timeout lets a statement take\nFind out what keeps the source from it, a lock or a slow disk, or raise source.statement_timeout", .limit.as_secs_f64()
    )]
    StatementTimeout {
        /// What was being done, on which table.
        doing: String,
        /// How long it could take.
        limit: Duration,
    },
    /// `--full` names a table that no model reads.
    #[error("no model reads the table {table}; there are {}", .known.join(", "))]
    UnknownTable {
        /// The table.
        table: String,
        /// The tables that models read.
        known: Vec<String>,
    },
}

impl Error {
    /// Whether something that passes is in the way, so that a run leaves it to the next one.
    pub(crate) fn gives_way(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::Attached { .. } | Self::Behind { .. })
    }

    /// Whether the same may succeed a moment later.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self, Self::Postgres(error) if error.is_transient())
    }
}
