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
    /// GitHub rejected the token.
    #[error("GitHub rejected the token: {why}\nPut a valid token into {place}")]
    Token {
        /// GitHub's words.
        why: String,
        /// The setting or the secret that holds it.
        place: String,
    },
    /// The organization is not there, or not for this token.
    #[error(
        "GitHub shows this token no organization named {organization}: {why}\nCorrect organization, or use a token with access to it"
    )]
    Organization {
        /// Its login.
        organization: String,
        /// GitHub's words.
        why: String,
    },
    /// GitHub does not let the token list members.
    #[error(
        "cannot list the members of {organization}: {why}\nLet the token read them (classic: read:org; fine-grained: Members). Until then nobody counts as a member"
    )]
    Members {
        /// The organization.
        organization: String,
        /// GitHub's words.
        why: String,
    },
    /// GitHub does not answer.
    #[error("cannot reach GitHub: {why}\nCheck the network, the proxy and github.api")]
    Unreachable {
        /// What was asked, and the cause.
        why: String,
    },
    /// The organization has nothing to watch.
    #[error(
        "no repository matches the setting repositories: this token sees {listed} in {organization}\nCorrect repositories, or give the token access"
    )]
    Nothing {
        /// Its login.
        organization: String,
        /// How many it has.
        listed: usize,
    },
    /// GitHub leaves out what the token may not see.
    #[error(
        "GitHub returned an incomplete list for {path}: the token is not authorized for single sign-on\nAuthorize it: https://docs.github.com/en/authentication/authenticating-with-single-sign-on"
    )]
    Partial {
        /// What was asked for.
        path: String,
    },
    /// A repository is not there, or not for this token.
    #[error(
        "{repository} cannot be read: it no longer exists, its issues are disabled, or the token has no access\nGive the token access, or exclude it in repositories"
    )]
    Unseen {
        /// Its name.
        repository: String,
    },
    /// The budget is spent but for the reserve.
    #[error(
        "only {remaining} requests of GitHub's {resource} limit are left until {}, and github.reserve keeps {reserve} for others", .reset.format("%H:%M UTC")
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
    #[error("out of time: {why}")]
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
    #[error("another poll is running: it wrote batch {batch} first\nNothing is lost; the next poll resumes")]
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
        "batches {from} to {to} of {log} are missing from {bucket}, and the database needs them\nRead everything again: contributors poll --full"
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
        "GitHub's search for {query} returned {found} of {total} results, five times\nTry again later, or without --search"
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
        "schema {schema} already has a table {table} that contributors did not create\nSet database.schema to another schema"
    )]
    Foreign {
        /// The schema.
        schema: String,
        /// The table.
        table: String,
    },
    /// The database is of a later version of this program.
    #[error("the database is at migration {found}; this program supports up to {known}\nUse a newer version")]
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

    /// Whether it is of one repository or list alone, and the poll goes on with others.
    pub(crate) fn is_local(&self) -> bool {
        use Error::{Http, Members, Partial, Search, Timelines, Unreachable, Unseen};
        matches!(
            self,
            Http(_)
                | Members { .. }
                | Partial { .. }
                | Search { .. }
                | Timelines { .. }
                | Unreachable { .. }
                | Unseen { .. }
        )
    }
}
