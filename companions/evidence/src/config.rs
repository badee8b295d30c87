//! The settings: `evidence.toml`, overridden by variables `EVIDENCE_…`.

use std::collections::BTreeMap;
use std::path::Path;

use blackwater_base::settings::{self, list, number};
use chrono_tz::Tz;
use secrecy::SecretString;
use serde::{Deserialize, Deserializer, de};

/// The file that is read when none is named.
pub const FILE: &str = "evidence.toml";
const VARIABLE: &str = "EVIDENCE_";

/// The settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What tells its folders in Drive from those of others.
    #[serde(default = "evidence")]
    pub name: String,
    /// The zone whose months are meant.
    #[serde(default, deserialize_with = "zone")]
    pub zone: Tz,
    /// Where commits come from.
    pub bitbucket: Bitbucket,
    /// Whose work it is.
    #[serde(default)]
    pub people: Vec<Person>,
    /// Where zips, manifests and states are kept.
    pub store: Store,
    /// A folder in Google Drive that gets the zips too.
    #[serde(default)]
    pub drive: Option<Drive>,
    /// Who is told.
    #[serde(default)]
    pub slack: Option<Slack>,
}

/// Where commits come from.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bitbucket {
    /// The repositories, as `workspace/slug`; `workspace/*` is all of a workspace.
    #[serde(deserialize_with = "list")]
    pub repositories: Vec<String>,
    /// An access token.
    #[serde(default)]
    pub token: Option<SecretString>,
    /// The name or ARN of a secret: `{"access_token": "…"}`, or `{"key": "…", "secret": "…"}` of a private consumer.
    #[serde(default)]
    pub secret: Option<String>,
    /// The address of the API.
    #[serde(default = "api")]
    pub api: String,
    /// Where a consumer's key and secret are exchanged for a token.
    #[serde(default = "login")]
    pub login: String,
    /// How many pages of a hundred commits in a row may be older than the month, and by how many days, before the walk ends.
    #[serde(default = "ten", deserialize_with = "number")]
    pub margin_pages: u32,
    /// See `margin_pages`.
    #[serde(default = "sixty_two", deserialize_with = "number")]
    pub margin_days: u32,
}

/// A person.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Person {
    /// The name, which goes into names of files: letters, digits, `_` and `-`.
    pub name: String,
    /// Addresses, compared without case; a `*` stands for anything.
    #[serde(default)]
    pub emails: Vec<String>,
    /// Accounts of Bitbucket: `account_id`, or `{uuid}`.
    #[serde(default)]
    pub accounts: Vec<String>,
}

/// Where zips, manifests and states are kept.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// The bucket.
    pub bucket: String,
    /// The keys of zips, with `{year}`, `{month}` and `{person}`.
    #[serde(default = "key")]
    pub key: String,
}

/// A folder in Google Drive.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drive {
    /// The id of the folder in which one for each month is made.
    pub folder: String,
    /// Who logs in: `{"client_id": "…", "client_secret": "…", "refresh_token": "…"}`, or the key of a service account.
    #[serde(default)]
    pub key: Option<SecretString>,
    /// The name or ARN of a secret that has it.
    #[serde(default)]
    pub secret: Option<String>,
    /// The address of the API.
    #[serde(default = "google")]
    pub api: String,
    /// Where a token is asked for.
    #[serde(default = "google_login")]
    pub login: String,
}

/// Who is told.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slack {
    /// The bot's token.
    #[serde(default)]
    pub token: Option<SecretString>,
    /// The name or ARN of a secret: `{"token": "xoxb-…"}`.
    #[serde(default)]
    pub secret: Option<String>,
    /// The address of the API.
    #[serde(default = "slack")]
    pub api: String,
    /// When all is delivered and everybody known.
    pub complete: Message,
    /// When commits are of people whom the settings do not know.
    pub people: Message,
    /// When repositories are not there.
    pub repositories: Message,
    /// When something is not delivered.
    pub failed: Message,
}

/// A message.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// The channel: its id, or its name with `#`.
    pub channel: String,
    /// The text, with `{month_name}`, `{month}`, `{people}`, `{repositories}` and `{what}`.
    pub text: String,
}

/// The names in braces that a message may have.
const IN_MESSAGES: [&str; 5] = ["month", "month_name", "people", "repositories", "what"];
const IN_KEYS: [&str; 3] = ["year", "month", "person"];

fn evidence() -> String {
    "evidence".into()
}

fn api() -> String {
    "https://api.bitbucket.org/2.0".into()
}

fn login() -> String {
    "https://bitbucket.org/site/oauth2/access_token".into()
}

fn google() -> String {
    "https://www.googleapis.com".into()
}

fn google_login() -> String {
    "https://oauth2.googleapis.com/token".into()
}

fn slack() -> String {
    "https://slack.com/api".into()
}

fn key() -> String {
    "{year}/{month}/{person}.zip".into()
}

fn ten() -> u32 {
    10
}

fn sixty_two() -> u32 {
    62
}

fn zone<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Tz, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| de::Error::custom(format!("{text} is no zone; write one as Europe/Madrid")))
}

impl Config {
    /// Reads `file`, or `evidence.toml` in the working directory, and puts the variables `EVIDENCE_…` over it.
    ///
    /// # Errors
    /// Each names the file, the line and the setting.
    pub fn read(
        file: Option<&Path>,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, settings::Error> {
        let (config, place): (Self, _) = settings::read(file, FILE, VARIABLE, variables)?;
        match config.problem() {
            Some((setting, why)) => Err(place.wrong(&setting, why)),
            None => Ok(config),
        }
    }

    /// What cannot be meant: the setting and why.
    fn problem(&self) -> Option<(String, String)> {
        let wrong = |setting: String, why: &str| Some((setting, why.to_owned()));
        for repository in &self.bitbucket.repositories {
            if repository.split('/').filter(|part| !part.is_empty()).count() != 2
                || repository.matches('/').count() != 1
            {
                return wrong(
                    "bitbucket.repositories".into(),
                    &format!("{repository}: write workspace/slug, or workspace/*"),
                );
            }
        }
        if self.bitbucket.margin_pages == 0 || self.bitbucket.margin_days > 3650 {
            return wrong("bitbucket.margin_pages".into(), "one page or more, and margin_days is 3650 or less");
        }
        if self.store.bucket.is_empty() {
            return wrong("store.bucket".into(), "name the bucket");
        }
        if self.bitbucket.repositories.is_empty() {
            return wrong("bitbucket.repositories".into(), "name at least one");
        }
        for (setting, has_value, secret) in [
            ("bitbucket", self.bitbucket.token.is_some(), &self.bitbucket.secret),
            (
                "drive",
                self.drive.as_ref().is_none_or(|drive| drive.key.is_some()),
                self.drive.as_ref().map_or(&None, |drive| &drive.secret),
            ),
            (
                "slack",
                self.slack.as_ref().is_none_or(|slack| slack.token.is_some()),
                self.slack.as_ref().map_or(&None, |slack| &slack.secret),
            ),
        ] {
            if !has_value && secret.is_none() {
                return wrong(setting.into(), "name the secret with its login: secret = \"…\"");
            }
        }
        let (mut names, mut known) = (BTreeMap::new(), BTreeMap::new());
        for (number, person) in self.people.iter().enumerate() {
            let setting = format!("people[{number}]");
            let is_plain = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
            if person.name.is_empty() || !person.name.chars().all(is_plain) {
                return wrong(format!("{setting}.name"), "a name has letters, digits, _ and -");
            }
            if names.insert(person.name.to_lowercase(), number).is_some() {
                return wrong(format!("{setting}.name"), "somebody before has the same");
            }
            if person.emails.is_empty() && person.accounts.is_empty() {
                return wrong(setting, "write emails or accounts, or nobody will be taken for this person");
            }
            if person.emails.iter().any(|email| email.trim_matches('*').is_empty()) {
                return wrong(format!("{setting}.emails"), "an address that is a * alone is everybody's");
            }
            let emails = person.emails.iter().map(|email| (email.to_lowercase(), "emails"));
            for (identity, list) in emails.chain(person.accounts.iter().map(|account| (account.clone(), "accounts"))) {
                if let Some(other) = known.insert(identity, &person.name) {
                    return wrong(format!("{setting}.{list}"), &format!("one of them is {other}'s"));
                }
            }
        }
        let messages = self.slack.iter().flat_map(|slack| {
            [
                ("complete", &slack.complete),
                ("people", &slack.people),
                ("repositories", &slack.repositories),
                ("failed", &slack.failed),
            ]
        });
        for (name, message) in messages {
            if let Some(unknown) = names_in(&message.text).find(|name| !IN_MESSAGES.contains(name)) {
                return wrong(format!("slack.{name}.text"), &format!("nothing gives {{{unknown}}}"));
            }
        }
        if let Some(unknown) = names_in(&self.store.key).find(|name| !IN_KEYS.contains(name)) {
            return wrong("store.key".into(), &format!("nothing gives {{{unknown}}}"));
        }
        if !self.store.key.contains("{person}")
            || !self.store.key.contains("{month}")
            || !self.store.key.contains("{year}")
        {
            return wrong("store.key".into(), "it has {year}, {month} and {person}, or zips would replace each other");
        }
        None
    }
}

/// The names in braces of a text.
fn names_in(text: &str) -> impl Iterator<Item = &str> {
    text.split('{').skip(1).filter_map(|piece| Some(piece.split_once('}')?.0))
}
