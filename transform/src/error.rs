use blackwater_base::{store, temporary};
use blackwater_shared::log;

/// Why a run of transform failed. The batch stays in the ingestion log and is tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A log failed.
    #[error(transparent)]
    Log(#[from] log::Error),
    /// A bucket failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A manifest is gone while its batch is under way.
    #[error("{place} was there and is gone\nRestore it from the bucket's older versions")]
    Gone {
        /// Bucket and key.
        place: String,
    },
    /// The batch does not hold what a model reads, though it was extracted for it.
    #[error("batch {batch}, {file}: {why}")]
    Model {
        /// The batch.
        batch: u64,
        /// The model's file.
        file: String,
        /// What is missing, and what to do.
        why: String,
    },
    /// A model does not fit the source as it is now.
    #[error("{file}: {why}")]
    Source {
        /// The model's file.
        file: String,
        /// What does not fit.
        why: String,
    },
    /// polars failed.
    #[error("batch {batch}: cannot make {table}: {why}")]
    Polars {
        /// The batch.
        batch: u64,
        /// The star table.
        table: String,
        /// polars' words.
        why: String,
    },
    /// There is no place for temporary files.
    #[error(transparent)]
    Temporary(#[from] temporary::Error),
}
