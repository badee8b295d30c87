//! What is wanted of a run, and what it did.

use blackwater_base::deadline::Deadline;
use serde::Serialize;

/// What is wanted of a run.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// What is read from its first row on, beside what changed.
    pub full: Full,
    /// The most batches that it writes; `None`: as many as there are.
    pub batches: Option<u64>,
    /// When it must have ended.
    pub deadline: Deadline,
}

/// The tables that are read in full.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Full {
    /// Only those of which nothing tells what changed.
    #[default]
    AsNeeded,
    /// These too.
    Tables(Vec<String>),
    /// All tables.
    All,
}

/// A batch that a run wrote, or why it wrote none.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// How it ended.
    pub outcome: Outcome,
    /// The batch that it wrote, or found written by another run.
    pub batch: Option<u64>,
    /// What a person should know.
    pub notices: Vec<String>,
    /// The tables, if a batch was written.
    pub tables: Vec<TableReport>,
    /// The age of the oldest batch that the warehouse was not known to have when the run began, 0 if it had all.
    pub lag_seconds: u64,
    /// For how long, as far as the log tells, one and the same transaction has been open at the source: what was
    /// written since it began is looked at with every run. 0 if there is none.
    pub held_seconds: u64,
    /// The bytes of the write-ahead log that the source keeps for the replication slot; `None` if there is none.
    pub retained_wal_bytes: Option<u64>,
    /// Whether the rest comes with the next batches.
    pub more: bool,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It wrote a batch.
    Batch,
    /// It found nothing and wrote nothing.
    Nothing,
    /// Another run had written the batch before it.
    Lost,
    /// A lock or a standby that is behind was in the way; the next run tries again.
    GaveWay,
}

/// How the changes of a table were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Detection {
    /// Every row was looked at.
    Scan,
    /// The write-ahead log named them.
    Wal,
}

/// What a batch has of a table.
#[derive(Clone, Debug, Serialize)]
pub struct TableReport {
    /// The table.
    pub table: String,
    /// Why it is read in full; `None` if what changed is read.
    pub full: Option<String>,
    /// How its changes were found.
    pub detection: Detection,
    /// The rows that the table has; `None` if the run did not count them.
    pub source_rows: Option<u64>,
    /// The rows in the batch.
    pub rows: u64,
    /// Their bytes as CSV.
    pub bytes: u64,
    /// Whether the batch has the keys of all rows, to find those that are gone.
    pub keys: bool,
    /// About how many bytes of the table come with the next batches.
    pub bytes_left: u64,
}
