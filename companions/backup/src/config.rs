//! The settings: `backup.toml`, overridden by variables `BACKUP_…`.

use std::path::Path;

use blackwater_base::settings::{self, bytes, list, number};
use blackwater_http::Url;
use secrecy::SecretString;
use serde::{Deserialize, Deserializer, de};

/// The file that is read when none is named.
pub const FILE: &str = "backup.toml";
const VARIABLE: &str = "BACKUP_";

/// The settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What tells its metrics from those of others.
    #[serde(default = "backup")]
    pub name: String,
    /// The bucket; that of the secret if none is named.
    #[serde(default)]
    pub bucket: Option<String>,
    /// What all keys begin with; that of the secret if none is named.
    #[serde(default)]
    pub prefix: Option<String>,
    /// The name or ARN of a secret: `{"TOKEN_GITHUB": "…"}`. Its members `BACKUP_S3_BUCKET`, `BACKUP_S3_PREFIX` and
    /// `BACKUP_ONLY_OWNER_REPOS` count where this file says nothing.
    #[serde(default)]
    pub secret: Option<String>,
    /// A token, instead of a secret.
    #[serde(default)]
    pub token: Option<SecretString>,
    /// Whether repositories of organizations and of others are left out.
    #[serde(default, deserialize_with = "maybe")]
    pub only_owner: Option<bool>,
    /// Patterns of full names, as `acme/*`: repositories that fit one are backed up.
    #[serde(default = "all", deserialize_with = "list")]
    pub include: Vec<String>,
    /// Patterns of full names: repositories that fit one are not.
    #[serde(default, deserialize_with = "list")]
    pub exclude: Vec<String>,
    /// What is made of a repository.
    #[serde(default = "mirror", deserialize_with = "list")]
    pub mode: Vec<String>,
    /// What a mirror has beside the repository itself.
    #[serde(default = "everything", deserialize_with = "list")]
    pub with: Vec<String>,
    /// Whether a mirror has the heads of pull requests, `refs/pull/*`, too.
    #[serde(default, deserialize_with = "settings::flag")]
    pub pull_refs: bool,
    /// How often GitHub's API is asked in a minute, beside its own limits.
    #[serde(default = "eighty", deserialize_with = "number")]
    pub calls_per_minute: u32,
    /// How many repositories are read at once.
    #[serde(default = "four", deserialize_with = "number")]
    pub at_once: u32,
    /// After how many increments a mirror is read in full again.
    #[serde(default = "ten", deserialize_with = "number")]
    pub full_every: u32,
    /// Repositories larger than this are not read in full here, as they would not end in a function's time.
    #[serde(default, deserialize_with = "size")]
    pub largest: Option<u64>,
    /// How often the function makes a backup.
    #[serde(default)]
    pub every: Every,
    /// The address of the API.
    #[serde(default = "api")]
    pub api: String,
    /// The address of the repositories.
    #[serde(default = "git")]
    pub git: String,
}

/// How often the function makes a backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Every {
    /// In each month.
    #[default]
    Month,
    /// In each week, from Monday.
    Week,
    /// On each day.
    Day,
}

/// What a mirror can have beside the repository.
pub const WITH: [&str; 5] = ["wiki", "lfs", "issues", "pulls", "releases"];
const MODES: [&str; 2] = ["zip", "mirror"];

fn backup() -> String {
    "backup".into()
}

fn api() -> String {
    "https://api.github.com".into()
}

fn git() -> String {
    "https://github.com".into()
}

fn all() -> Vec<String> {
    vec!["*".into()]
}

fn mirror() -> Vec<String> {
    vec!["mirror".into()]
}

fn everything() -> Vec<String> {
    WITH.map(str::to_owned).into()
}

fn eighty() -> u32 {
    80
}

fn four() -> u32 {
    4
}

fn ten() -> u32 {
    10
}

fn maybe<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    settings::flag(deserializer).map(Some)
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let wrong = || de::Error::custom(format!("{text:?} is not a size; use e.g. 4GB"));
    bytes(&text).map(Some).ok_or_else(wrong)
}

impl Config {
    /// Reads `file`, or `backup.toml` in the working directory, and puts the variables `BACKUP_…` over it.
    ///
    /// # Errors
    /// Each names the file, the line and the setting.
    pub fn read(
        file: Option<&Path>,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, settings::Error> {
        let (config, place): (Self, _) = settings::read(file, FILE, VARIABLE, variables)?;
        match config.problem() {
            Some((setting, why)) => Err(place.wrong(setting, why)),
            None => Ok(config),
        }
    }

    /// Whether repositories are zipped.
    #[must_use]
    pub fn is_zip(&self) -> bool {
        self.mode.iter().any(|mode| mode == "zip")
    }

    /// Whether repositories are mirrored.
    #[must_use]
    pub fn is_mirror(&self) -> bool {
        self.mode.iter().any(|mode| mode == "mirror")
    }

    /// Whether a mirror has this beside the repository.
    #[must_use]
    pub fn has(&self, what: &str) -> bool {
        self.is_mirror() && self.with.iter().any(|with| with == what)
    }

    /// Whether a repository of so many KB is too large to be read in full here.
    pub(crate) fn is_too_large(&self, kb: u64) -> bool {
        self.largest.is_some_and(|largest| kb * 1024 > largest)
    }

    /// What cannot be meant: the setting and why.
    fn problem(&self) -> Option<(&'static str, String)> {
        for (setting, values, known) in [("mode", &self.mode, &MODES[..]), ("with", &self.with, &WITH[..])] {
            if let Some(other) = values.iter().find(|value| !known.contains(&value.as_str())) {
                return Some((setting, format!("{other:?} is not one of {}", known.join(", "))));
            }
        }
        if self.mode.is_empty() {
            return Some(("mode", "write zip, mirror, or both".into()));
        }
        if self.include.is_empty() {
            return Some(("include", "without a pattern nothing is backed up".into()));
        }
        if self.calls_per_minute == 0 || self.calls_per_minute > 900 {
            return Some(("calls_per_minute", "must be 1 to 900: GitHub does not allow more".into()));
        }
        if self.at_once == 0 || self.at_once > 50 {
            return Some((
                "at_once",
                "must be 1 to 50: GitHub answers 100 requests at once, of all programs of an account".into(),
            ));
        }
        if self.full_every == 0 {
            return Some(("full_every", "must be 1 or more".into()));
        }
        for (setting, url) in [("api", &self.api), ("git", &self.git)] {
            if Url::parse(url).is_err() {
                return Some((setting, format!("{url} is not a valid URL")));
            }
        }
        None
    }
}
