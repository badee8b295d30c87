//! Why an upload is not dealt with yet. All that was done is kept: the next event, or the sweep, goes on from there.

use blackwater_base::{secrets, store};
use blackwater_http as http;

/// Why an upload is not dealt with yet.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings cannot be used.
    #[error(transparent)]
    Settings(#[from] blackwater_base::settings::Error),
    /// A bucket did not do what was asked of it.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A secret cannot be used.
    #[error(transparent)]
    Secret(#[from] secrets::Error),
    /// A request cannot be made.
    #[error(transparent)]
    Http(#[from] http::Error),
    /// The state of an upload cannot be read.
    #[error("{place} is no state of an upload: {why}\nRemove it: the upload is then checked anew")]
    State {
        /// The bucket and the key.
        place: String,
        /// What is wrong.
        why: String,
    },
    /// Another run has taken over.
    #[error("another run works on the upload of {place}, since this one took too long\nGive the function more time")]
    Lost {
        /// The bucket and the key of its state.
        place: String,
    },
    /// A file cannot be read to its end.
    #[error("cannot read {key}: {why}")]
    Read {
        /// The file.
        key: String,
        /// The cause.
        why: std::io::Error,
    },
    /// A file changed while it was checked or copied.
    #[error("{prefix} changes all the time\nThe next event, or the sweep, checks it again")]
    Changing {
        /// The upload.
        prefix: String,
    },
    /// The name of an upload cannot be looked up, for now.
    #[error(
        "cannot look up the name of {prefix}: {why}\nIt is tried again; after 15 minutes names.otherwise stands for it"
    )]
    Names {
        /// The upload.
        prefix: String,
        /// The cause.
        why: http::Error,
    },
    /// The issue cannot be raised.
    #[error("cannot raise the issue of {prefix} in {repository}: {why}\n{remedy}")]
    Issue {
        /// The upload.
        prefix: String,
        /// The repository.
        repository: String,
        /// The cause.
        why: Box<http::Error>,
        /// What to do.
        remedy: &'static str,
    },
    /// The mail cannot be sent.
    #[error("cannot send the mail about {prefix}: {why}\n{remedy}")]
    Mail {
        /// The upload.
        prefix: String,
        /// The cause.
        why: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The time is over.
    #[error(
        "the time is over, and {prefix} is not dealt with\nThe next event, or the sweep, goes on; give the function more time"
    )]
    Late {
        /// The upload.
        prefix: String,
    },
}
