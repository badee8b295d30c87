//! What fails in one repository, and not in the others.

use blackwater_base::store;
use blackwater_http as http;

use crate::error::Error;

/// Why a part of a repository is not backed up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The bucket fails, and will for the others too.
    #[error(transparent)]
    Store(store::Error),
    /// There is no answer, or not the one that is wanted.
    #[error(transparent)]
    Http(#[from] http::Error),
    /// What is answered is not what it should be.
    #[error("{0}")]
    Form(String),
    /// An answer ends before it is whole.
    #[error("{0} ends before it is whole")]
    Cut(&'static str),
}

impl From<store::Error> for Fault {
    fn from(error: store::Error) -> Self {
        match error {
            // The fault of what is written, not of the bucket.
            store::Error::TooLarge { .. } => Self::Form(error.to_string()),
            error => Self::Store(error),
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error {
            Error::Store(error) => error.into(),
            other => Self::Form(other.to_string()),
        }
    }
}

impl Fault {
    pub(crate) fn form(why: &str) -> Self {
        Self::Form(why.into())
    }

    pub(crate) fn cut(what: &'static str) -> Self {
        Self::Cut(what)
    }

    /// The status of the answer, if there is one.
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Self::Http(error) => error.status().map(|status| status.as_u16()),
            _ => None,
        }
    }

    /// Whether the same may succeed when it is asked for once more, at once.
    pub(crate) fn is_broken_off(&self) -> bool {
        matches!(self, Self::Cut(_) | Self::Http(http::Error::NoAnswer { .. }))
    }

    /// Whether it is left to the next run.
    pub(crate) fn is_late(&self) -> bool {
        matches!(self, Self::Http(error) if error.is_late())
    }
}
