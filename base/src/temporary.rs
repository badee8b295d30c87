//! Temporary files.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// Why there is no place for temporary files.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no folder for them.
    #[error("cannot make a folder for temporary files in {}: {why}\nTMPDIR names another place", .place.display())]
    Folder {
        /// Where it was to be.
        place: PathBuf,
        /// The system's reason.
        why: std::io::Error,
    },
    /// A file failed.
    #[error("cannot use the temporary file {}: {why}\nTMPDIR names another place", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        why: std::io::Error,
    },
}

impl Error {
    /// What makes an error of a file's.
    pub fn of(path: &Path) -> impl Fn(std::io::Error) -> Self {
        move |why| Self::File { path: path.into(), why }
    }
}

/// A folder for temporary files, which goes with its handle.
///
/// # Errors
/// If the system makes none.
pub fn folder() -> Result<TempDir, Error> {
    tempfile::tempdir().map_err(|why| Error::Folder { place: std::env::temp_dir(), why })
}
