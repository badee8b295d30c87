//! Why a backup is not made, verified or restored. What fails in one repository is in the manifest instead.

use blackwater_base::{secrets, settings, store};
use blackwater_http as http;

/// Why a backup is not made, verified or restored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings cannot be used.
    #[error(transparent)]
    Settings(#[from] settings::Error),
    /// The bucket did not do what was asked of it.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A secret cannot be used.
    #[error(transparent)]
    Secret(#[from] secrets::Error),
    /// A request cannot be made.
    #[error(transparent)]
    Http(#[from] http::Error),
    /// A setting is neither in the file nor in the secret, or cannot be used.
    #[error("{setting}: {why}")]
    Setting {
        /// The setting.
        setting: &'static str,
        /// What is wrong.
        why: String,
    },
    /// GitHub does not say what was asked.
    #[error("cannot list the account's repositories: {why}\n{remedy}")]
    List {
        /// The cause.
        why: Box<http::Error>,
        /// What to do.
        remedy: &'static str,
    },
    /// A name is no repository's.
    #[error("there is no repository {name} in {place}")]
    Unknown {
        /// The name.
        name: String,
        /// Where it was looked for.
        place: String,
    },
    /// There is no such backup.
    #[error("there is no backup {number} in {place}\nSee `backup list`, and that bucket and prefix are right")]
    NoBackup {
        /// Its number, or which one.
        number: String,
        /// The bucket and prefix.
        place: String,
    },
    /// A document in the bucket is not ours.
    #[error("{key} cannot be read: {why}\nRestore it from the bucket's older versions")]
    Document {
        /// Its key.
        key: String,
        /// What is wrong.
        why: String,
    },
    /// A repository has nothing that could be restored.
    #[error("backup {backup} has nothing of {name}: {why}")]
    Nothing {
        /// The backup.
        backup: u64,
        /// The repository.
        name: String,
        /// Why not.
        why: String,
    },
    /// What is in the bucket is not what was written.
    #[error(
        "{key} is damaged: {why}\nRestore it from the bucket's older versions, or read the repository again: backup run --full --only NAME"
    )]
    Damaged {
        /// Its key.
        key: String,
        /// What is wrong.
        why: String,
    },
    /// A folder for what is restored has something in it.
    #[error("{folder} is not empty, or not a folder\nName a folder that is empty or does not exist")]
    NotEmpty {
        /// Its path.
        folder: String,
    },
    /// A file or a folder on this machine.
    #[error("cannot write {path}: {why}")]
    File {
        /// Its path.
        path: String,
        /// What is wrong.
        why: String,
    },
}
