use std::path::PathBuf;

use blackwater_shared::{log, postgres, store};

/// Why a run of load failed. A batch is applied whole or not at all, and tried again by the next run.
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
    #[error("cannot apply the pack's schema.sql to schema {schema} of the warehouse: {why}")]
    Schema {
        /// The schema.
        schema: String,
        /// The server's words.
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
    /// The warehouse's own tables were made by a newer version.
    #[error(
        "the tables of schema blackwater in the warehouse have format {found}, which this version ({}) does not know\nInstall the newer version",
        blackwater_shared::PROGRAM
    )]
    Newer {
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
    /// A temporary file failed.
    #[error("cannot use the temporary file {}: {why}\nTMPDIR names the folder for them", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        why: std::io::Error,
    },
}

impl Error {
    /// Whether the same may succeed a moment later.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self, Self::Postgres(error) if error.is_transient())
    }
}
