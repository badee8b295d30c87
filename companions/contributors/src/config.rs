//! The settings: `contributors.toml`, overridden by variables `CONTRIBUTORS_…`.

use std::path::{Path, PathBuf};

use blackwater_base::settings::{self, fits, list, number};
use blackwater_http::Url;
use chrono::{DateTime, Months, NaiveDate, Utc};
use secrecy::SecretString;
use serde::{Deserialize, Deserializer, de};

/// The file that is read when none is named.
pub const FILE: &str = "contributors.toml";
const VARIABLE: &str = "CONTRIBUTORS_";

/// The kinds of events that are kept unless the settings say otherwise: those that the original kept.
pub const KINDS: [&str; 36] = [
    "added_to_project",
    "assigned",
    "closed",
    "commented",
    "connected",
    "convert_to_draft",
    "converted_note_to_issue",
    "converted_to_discussion",
    "demilestoned",
    "disconnected",
    "labeled",
    "locked",
    "marked_as_duplicate",
    "mentioned",
    "merged",
    "milestoned",
    "moved_columns_in_project",
    "pinned",
    "ready_for_review",
    "referenced",
    "removed_from_project",
    "renamed",
    "reopened",
    "review_dismissed",
    "review_request_removed",
    "review_requested",
    "reviewed",
    "subscribed",
    "transferred",
    "unassigned",
    "unlabeled",
    "unlocked",
    "unmarked_as_duplicate",
    "unpinned",
    "unsubscribed",
    "user_blocked",
];

/// The settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What tells its metrics from those of others.
    #[serde(default = "contributors")]
    pub name: String,
    /// The organization's login.
    pub organization: String,
    /// Patterns of repositories' names; one that begins with `!` leaves out what fits it.
    #[serde(default = "all", deserialize_with = "list")]
    pub repositories: Vec<String>,
    /// Polls read what was updated since this day; a repository that is new here is read for 90 days back without it.
    #[serde(default, deserialize_with = "day")]
    pub from: Option<NaiveDate>,
    /// The bucket of the answers and of how far polls are.
    #[serde(default = "contributors")]
    pub bucket: String,
    /// A folder of this machine that takes the place of S3.
    #[serde(default)]
    pub directory: Option<PathBuf>,
    /// What the function of these settings does.
    #[serde(default)]
    pub does: Does,
    /// GitHub.
    #[serde(default)]
    pub github: GitHub,
    /// The database. Without it nothing is loaded here.
    #[serde(default)]
    pub database: Option<Database>,
    /// What is kept of what happens.
    #[serde(default)]
    pub events: Events,
}

/// What the function of some settings does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Does {
    /// It asks GitHub, and keeps the answers in the bucket.
    #[default]
    Poll,
    /// It applies the answers to the database.
    Load,
}

/// GitHub.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GitHub {
    /// The name or ARN of a secret: `{"TOKEN_GITHUB": "…"}`.
    pub secret: Option<String>,
    /// A token, instead of a secret.
    pub token: Option<SecretString>,
    /// How many requests an hour are left to others who use the token.
    #[serde(deserialize_with = "number")]
    pub reserve: u64,
    /// The address of the API.
    pub api: String,
}

impl Default for GitHub {
    fn default() -> Self {
        Self { secret: None, token: None, reserve: 500, api: "https://api.github.com".into() }
    }
}

/// The database.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// Its address.
    #[serde(default)]
    pub url: Option<SecretString>,
    /// The name or ARN of a secret with its login, as RDS writes it.
    #[serde(default)]
    pub secret: Option<String>,
    /// The schema of the tables.
    #[serde(default = "public")]
    pub schema: String,
}

/// What is kept of what happens.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Events {
    /// Patterns of kinds.
    #[serde(deserialize_with = "list")]
    pub kinds: Vec<String>,
    /// Logins of accounts that are robots, though GitHub does not say so.
    #[serde(deserialize_with = "list")]
    pub bots: Vec<String>,
}

impl Default for Events {
    fn default() -> Self {
        Self { kinds: KINDS.map(str::to_owned).into(), bots: Vec::new() }
    }
}

fn contributors() -> String {
    "contributors".into()
}

fn all() -> Vec<String> {
    vec!["*".into()]
}

fn public() -> String {
    "public".into()
}

fn day<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NaiveDate>, D::Error> {
    let text = String::deserialize(deserializer)?;
    first_day(&text).map(Some).ok_or_else(|| de::Error::custom(format!("{text:?}: {NO_DAY}")))
}

/// What a text is to be that is neither a day nor a month.
pub const NO_DAY: &str = "expected a day (2024-01-31) or a month (2024-01)";

/// A day, or the first one of a month.
#[must_use]
pub fn first_day(text: &str) -> Option<NaiveDate> {
    let day = if text.len() == "2024-01".len() { format!("{text}-01") } else { text.to_owned() };
    day.parse().ok().filter(|_| day.len() == "2024-01-31".len())
}

/// The day after a day, or after the last one of a month.
#[must_use]
pub fn day_after(text: &str) -> Option<NaiveDate> {
    let first = first_day(text)?;
    if text.len() == "2024-01".len() { first.checked_add_months(Months::new(1)) } else { first.succ_opt() }
}

impl Config {
    /// Reads `file`, or `contributors.toml` in the working directory, and puts the variables `CONTRIBUTORS_…` over it.
    ///
    /// # Errors
    /// Each names the file, the line and the setting.
    pub fn read(
        file: Option<&Path>,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, settings::Error> {
        let (mut config, place): (Self, _) = settings::read(file, FILE, VARIABLE, variables)?;
        if let Some((setting, why)) = config.problem() {
            return Err(place.wrong(setting, why));
        }
        config.directory = config.directory.map(|folder| place.folder.join(folder));
        Ok(config)
    }

    /// Whether a repository of this name is watched.
    #[must_use]
    pub fn watches(&self, name: &str) -> bool {
        let (not, yes): (Vec<_>, Vec<_>) = self.repositories.iter().partition(|pattern| pattern.starts_with('!'));
        yes.iter().any(|pattern| fits(pattern, name)) && !not.iter().any(|pattern| fits(&pattern[1..], name))
    }

    /// Since when a repository that is new at a time is read.
    pub(crate) fn start(&self, at: DateTime<Utc>) -> DateTime<Utc> {
        match self.from {
            Some(day) => day.and_time(chrono::NaiveTime::MIN).and_utc(),
            None => at - chrono::TimeDelta::days(90),
        }
    }

    /// What cannot be meant: the setting and why.
    fn problem(&self) -> Option<(&'static str, String)> {
        if !self.repositories.iter().any(|pattern| !pattern.starts_with('!')) {
            return Some((
                "repositories",
                "nothing is watched: write a pattern that does not begin with !, as \"*\"".into(),
            ));
        }
        if self.organization.is_empty() || self.organization.contains('/') {
            return Some(("organization", "write its login, as in github.com/acme".into()));
        }
        if Url::parse(&self.github.api).is_err() {
            return Some(("github.api", format!("{} is not a valid URL", self.github.api)));
        }
        if let Some(Database { url: None, secret: None, .. }) = self.database {
            return Some(("database.url", "write its address, or name a secret with database.secret".into()));
        }
        None
    }
}
