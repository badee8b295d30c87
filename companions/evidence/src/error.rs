//! Why a month is not delivered. What was done is kept: the next run goes on from there.

use blackwater_base::{secrets, settings, store};
use blackwater_http as http;

/// Why a month is not delivered.
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
    /// Bitbucket does not say what was asked.
    #[error("cannot read {repository}: {why}\n{remedy}")]
    Bitbucket {
        /// The repository, or what else.
        repository: String,
        /// The cause.
        why: Box<http::Error>,
        /// What to do.
        remedy: &'static str,
    },
    /// The month cannot be delivered yet, or is none.
    #[error("{month} cannot be delivered: {why}")]
    Month {
        /// The month.
        month: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A page leads back to itself.
    #[error("cannot read {repository}: one of its pages leads back to itself\nThe next run begins it anew")]
    Repeats {
        /// The repository.
        repository: String,
    },
    /// Drive does not do what was asked.
    #[error("cannot {action} in Drive: {why}\n{remedy}")]
    Drive {
        /// What was being done.
        action: String,
        /// The cause.
        why: String,
        /// What to do.
        remedy: &'static str,
    },
    /// Slack does not take a message.
    #[error("cannot tell {channel} in Slack: {why}\n{remedy}")]
    Slack {
        /// The channel.
        channel: String,
        /// Its word for it.
        why: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A zip or a document cannot be written.
    #[error("cannot write {what}: {why}")]
    Write {
        /// What.
        what: String,
        /// The cause.
        why: String,
    },
    /// A document in the bucket is not ours.
    #[error("{place} cannot be read: {why}\nRemove it: the repository is then read anew")]
    State {
        /// Its place.
        place: String,
        /// What is wrong.
        why: String,
    },
}
