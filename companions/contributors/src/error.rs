//! Why a poll or a load ends before its end.

use blackwater_base::{secrets, settings, store};
use blackwater_http as http;
use blackwater_shared::postgres;
use chrono::{DateTime, Utc};

/// Why a poll or a load ends before its end.
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
    /// GitHub did not do what was asked of it.
    #[error(transparent)]
    Http(#[from] http::Error),
    /// The database did not do what was asked of it.
    #[error(transparent)]
    Postgres(#[from] postgres::Error),
    /// A setting is missing.
    #[error("{setting}: {why}")]
    Setting {
        /// The setting.
        setting: &'static str,
        /// What to write.
        why: String,
    },
    /// GitHub does not know the token.
    #[error("GitHub does not accept the token ({why})\nPut a valid one into {place}")]
    Token {
        /// GitHub's words.
        why: String,
        /// The setting or the secret that holds it.
        place: String,
    },
    /// The organization is not there, or not for this token.
    #[error(
        "GitHub shows no organization {organization} to this token: {why}\nCorrect organization, or use a token that may read it"
    )]
    Organization {
        /// Its login.
        organization: String,
        /// GitHub's words.
        why: String,
    },
    /// The organization has nothing to watch.
    #[error("{organization} has no repository, of {listed} that this token sees, that fits the setting repositories")]
    Nothing {
        /// Its login.
        organization: String,
        /// How many it has.
        listed: usize,
    },
    /// GitHub leaves out what the token may not see.
    #[error(
        "GitHub leaves out a part of {path}: the token is not authorized for the organization's single sign-on\nAuthorize it: https://docs.github.com/en/authentication/authenticating-with-single-sign-on"
    )]
    Partial {
        /// What was asked for.
        path: String,
    },
    /// A repository is not there, or not for this token.
    #[error(
        "{repository} cannot be read: it is gone, its issues are disabled, or the token may not see it\nGive the token access, or leave it out in repositories"
    )]
    Unseen {
        /// Its name.
        repository: String,
    },
    /// The budget is spent but for the reserve.
    #[error(
        "GitHub's budget {resource} has {remaining} requests left until {reset}, and github.reserve keeps {reserve} for others"
    )]
    Spent {
        /// `core` or `search`.
        resource: &'static str,
        /// What is left of it.
        remaining: u64,
        /// When it is whole again.
        reset: DateTime<Utc>,
        /// What is kept.
        reserve: u64,
    },
    /// There is no time left, with what GitHub asks to wait.
    #[error("there is no time left: {why}")]
    Late {
        /// For what.
        why: String,
    },
    /// Some timelines cannot be read.
    #[error("{count} timelines cannot be read; the first is that of #{number}: {why}")]
    Timelines {
        /// How many.
        count: usize,
        /// The number of the first one's issue.
        number: i64,
        /// Why that cannot be read.
        why: Box<Error>,
    },
    /// Another poll writes answers.
    #[error(
        "another poll has written answers {batch} in the meantime\nNothing is lost: the next poll goes on from there"
    )]
    Busy {
        /// The batch.
        batch: u64,
    },
    /// An object in the bucket is not ours.
    #[error(
        "{bucket}/{key} cannot be read: {why}\nRestore it from the bucket's older versions, or read everything again: contributors poll --full"
    )]
    Document {
        /// The bucket.
        bucket: String,
        /// Its key.
        key: String,
        /// What is wrong.
        why: String,
    },
    /// Answers are not there that the database needs.
    #[error(
        "{bucket} has no answers {from} to {to} of {log}, and the database needs them\nRead everything again: contributors poll --full"
    )]
    Missing {
        /// The bucket.
        bucket: String,
        /// The log.
        log: String,
        /// The first batch that is not there.
        from: u64,
        /// The last one.
        to: u64,
    },
    /// A search does not give what it counts.
    #[error(
        "GitHub's search for {query} gives {found} of the {total} that it counts, however often it is asked\nTry again later, or without --search"
    )]
    Search {
        /// The query.
        query: String,
        /// How many came.
        found: usize,
        /// How many it says there are.
        total: u64,
    },
    /// The schema has tables of others.
    #[error(
        "the schema {schema} has a table {table} that contributors did not make\nName another one with database.schema"
    )]
    Foreign {
        /// The schema.
        schema: String,
        /// The table.
        table: String,
    },
    /// The database is of a later version of this program.
    #[error("the database has migration {found}, and this program knows {known}\nUse the newer program")]
    Newer {
        /// The newest that was run.
        found: i32,
        /// The newest that is known.
        known: i32,
    },
}

impl Error {
    /// Whether it ends a poll in order: what is left is for the next one.
    pub(crate) fn is_end(&self) -> bool {
        matches!(self, Self::Spent { .. } | Self::Late { .. })
    }

    /// Whether it is of one repository alone.
    pub(crate) fn is_of_one(&self) -> bool {
        use Error::{Http, Partial, Search, Timelines, Unseen};
        matches!(self, Http(_) | Unseen { .. } | Partial { .. } | Search { .. } | Timelines { .. })
    }
}
