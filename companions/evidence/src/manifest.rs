//! What a run made of a month: written once, under a number of its own. The last one counts.

use std::collections::BTreeMap;

use blackwater_base::store::Store;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::history::End;
use crate::month::Month;
use crate::people::Unknowns;
use crate::texts::Counts;

/// How far a month is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// All is delivered.
    Complete,
    /// Some repositories are not there, or not read to their end, for want of time or since Bitbucket lets nobody ask so often.
    Partial,
    /// Something was not delivered.
    Failed,
}

/// What a run made of a month.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// The program that wrote it.
    pub program: String,
    /// The month.
    pub month: Month,
    /// The zone whose month is meant.
    pub zone: String,
    /// How far it is.
    pub state: State,
    /// What is not delivered, and why.
    pub failures: Vec<String>,
    /// What is waited for: it may pass by itself.
    pub waiting: Vec<String>,
    /// The repositories.
    pub repositories: BTreeMap<String, Repository>,
    /// What each person did. Those who did nothing have no zip.
    pub people: BTreeMap<String, Delivered>,
    /// Those whom the settings do not know.
    pub unknown_people: Unknowns,
    /// The folder in Drive.
    pub drive: Option<String>,
    /// The messages in Slack.
    pub slack: Vec<Posted>,
}

/// How a repository was read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Repository {
    /// Pages of commits.
    pub pages: u64,
    /// Commits of the month.
    pub commits: u64,
    /// Pull requests of the month.
    pub pull_requests: u64,
    /// Commits without a date.
    pub undated: u64,
    /// What ended it: `history`, `margin`, `not_found`; `None` if nothing has.
    pub(crate) ended: Option<End>,
}

impl Repository {
    /// Whether it is not there, or not for this token.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.ended == Some(End::NotFound)
    }
}

/// What a person did, and the zip of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Delivered {
    /// How much.
    pub counts: Counts,
    /// The zip's key; `None` if the person did nothing.
    pub zip: Option<Zip>,
}

/// A zip.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zip {
    /// Its key.
    pub key: String,
    /// Its size.
    pub bytes: u64,
    /// The SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
}

/// A message in Slack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Posted {
    /// The channel as the settings name it.
    pub to: String,
    /// The id of the channel.
    pub channel: String,
    /// Its time, which tells it from others in the channel.
    pub ts: String,
}

fn prefix(month: Month) -> String {
    format!("evidence/{month}/runs/")
}

/// The last manifest of a month, and its number.
///
/// # Errors
/// If the bucket cannot be read.
pub async fn last(store: &Store, month: Month) -> Result<Option<(u32, Manifest)>, Error> {
    let Some(key) = store.list(&prefix(month), "", usize::MAX).await?.pop() else { return Ok(None) };
    let place = || format!("{}/{key}", store.bucket());
    let number = key[prefix(month).len()..].trim_end_matches(".json").parse();
    let number = number.map_err(|_| Error::State { place: place(), why: "its name is no number".into() })?;
    let body = store.get(&key).await?.unwrap_or_default();
    let manifest =
        serde_json::from_slice(&body).map_err(|error| Error::State { place: place(), why: error.to_string() })?;
    Ok(Some((number, manifest)))
}

/// Writes a manifest under the first number that is free from this one on.
pub(crate) async fn write(store: &Store, mut number: u32, manifest: &Manifest) -> Result<(), Error> {
    let unwritable = |error: serde_json::Error| Error::Write { what: "the manifest".into(), why: error.to_string() };
    let body = serde_json::to_vec_pretty(manifest).map_err(unwritable)?;
    while !store.create(&format!("{}{number:04}.json", prefix(manifest.month)), body.clone()).await? {
        number += 1;
    }
    Ok(())
}
