use blackwater_base::deadline::Deadline;
use blackwater_base::{store, temporary};
use blackwater_shared::log;
use blackwater_shared::postgres::{self, Kind};

/// Why a run of load failed. Nothing is lost: the next run goes on with the same batch.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The processed log failed.
    #[error(transparent)]
    Log(#[from] log::Error),
    /// The processed bucket failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The warehouse cannot be reached, or a statement failed there.
    #[error(transparent)]
    Postgres(#[from] postgres::Error),
    /// `schema.sql` cannot be applied.
    #[error("cannot apply the pack's schema.sql{} to schema {schema} of the warehouse: {why}", .line.map(|line| format!(":{line}")).unwrap_or_default())]
    Schema {
        /// The schema.
        schema: String,
        /// The line at which the statement begins that failed or is refused.
        line: Option<usize>,
        /// The server's words, and what to do.
        why: String,
    },
    /// The readers cannot be let in.
    #[error(
        "cannot let {readers} read the star tables: {why}\nMake the roles (`blackwater check --grants` prints how), or take them out of warehouse.readers"
    )]
    Readers {
        /// Their names.
        readers: String,
        /// The server's words.
        why: String,
    },
    /// A view of a history cannot be made.
    #[error("cannot make the view {view}, which shows the newest version of each row: {why}")]
    View {
        /// The view.
        view: String,
        /// The server's words, and what to do.
        why: String,
    },
    /// A star table does not fit its model.
    #[error("batch {batch}, warehouse table {table}: {why}")]
    Table {
        /// The batch.
        batch: u64,
        /// The star table.
        table: String,
        /// What does not fit, and what to do.
        why: String,
    },
    /// The warehouse's own tables have another format.
    #[error(
        "the tables of schema blackwater in the warehouse have format {found}, which this version ({}) does not know\nInstall the version that made them, or drop the schema and the star tables to load them anew",
        blackwater_shared::PROGRAM
    )]
    Format {
        /// Their format.
        found: i32,
    },
    /// A Parquet object cannot be read.
    #[error("batch {batch}: cannot read {object}: {why}")]
    Parquet {
        /// The batch.
        batch: u64,
        /// The object's key.
        object: String,
        /// What is wrong with it.
        why: String,
    },
    /// The time was not enough.
    #[error(
        "could not {doing} before the run's deadline\nNothing is lost: after two late attempts a batch is applied in parts. To finish now, give the function more time, or run `blackwater load` on a machine without a deadline"
    )]
    Late {
        /// What was being done.
        doing: String,
    },
    /// `schema.sql` takes longer than a function may.
    #[error(
        "the pack's schema.sql takes longer than this run may: what it changed in its last transaction is undone\nRun `blackwater load` on a machine without a deadline, or run the file by hand, with the star schema first in search_path, and then `blackwater load --schema-applied`"
    )]
    LateSchema,
    /// A temporary file failed.
    #[error(transparent)]
    File(#[from] temporary::Error),
}

impl Error {
    /// Whether the same may succeed a moment later.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self, Self::Postgres(error) if error.is_transient())
    }

    /// Whether the server ended a statement because the deadline was near.
    pub(crate) fn is_late(&self, deadline: Deadline) -> bool {
        let is_cancelled = matches!(self, Self::Postgres(error) if error.kind == Kind::Cancelled);
        is_cancelled && deadline.left().is_some()
    }

    /// Whether a statement failed for what may be a row's fault.
    pub(crate) fn may_be_a_rows_fault(&self) -> bool {
        let Self::Postgres(error) = self else { return false };
        error.db().is_some_and(|error| crate::reject::rows::may_be_a_rows_fault(error.code().code()))
    }
}
