//! How far a backup is that has not ended: what it keeps of repositories, for the run that goes on with it.

use std::collections::BTreeMap;

use blackwater_base::store::If;
use chrono::{DateTime, Duration, Utc};
use futures_util::{StreamExt, stream};
use serde::de::DeserializeOwned;

use crate::account::{Account, Listed};
use crate::error::Error;
use crate::manifest::{Entry, Status};

/// The object that says of what nothing was new, and when.
const UNCHANGED: &str = "unchanged.json";
/// For how long what was read is not read again.
const HOURS: i64 = 24;

/// How far a backup is.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// What is kept of repositories, by their ids.
    pub(crate) entries: BTreeMap<u64, Entry>,
    /// When repositories were read of which nothing was new.
    pub(crate) unchanged: BTreeMap<u64, String>,
}

fn folder(account: &Account, number: u64) -> String {
    account.key(&format!("running/{number:012}/"))
}

impl Progress {
    /// That of a backup, by its number.
    pub(crate) async fn read(account: &Account, number: u64) -> Result<Self, Error> {
        let folder = folder(account, number);
        let keys = account.store.list(&folder, "", usize::MAX).await?;
        let mut progress = Self::default();
        let (unchanged, entries): (Vec<_>, Vec<_>) = keys.into_iter().partition(|key| key.ends_with(UNCHANGED));
        for key in unchanged {
            progress.unchanged.extend(document(account, &key).await.unwrap_or(BTreeMap::new()));
        }
        let entries: Vec<Option<Entry>> =
            stream::iter(entries.iter().map(|key| document(account, key))).buffered(8).collect().await;
        progress.entries = entries.into_iter().flatten().map(|entry| (entry.listed.id, entry)).collect();
        Ok(progress)
    }

    /// Whether there is any.
    pub(crate) async fn is_any(account: &Account, number: u64) -> Result<bool, Error> {
        Ok(!account.store.list(&folder(account, number), "", 1).await?.is_empty())
    }

    /// What was read of a repository for this backup, to its end; of what nothing was new, that is what the last backup has.
    pub(crate) fn ended(&self, listed: &Listed, before: Option<&Entry>, number: u64) -> Option<Entry> {
        if let Some(entry) = self.entries.get(&listed.id) {
            return entry.late.is_none().then(|| entry.clone());
        }
        let (read, before) = (self.unchanged.get(&listed.id)?, before?);
        let mut entry = Entry::begun(listed, Some(before));
        entry.ends(number, before.status == Status::Empty, read.clone());
        Some(entry)
    }

    /// Whether what was read need not be read again: it was read not long ago, without a fault.
    pub(crate) fn is_fresh(entry: &Entry, now: DateTime<Utc>) -> bool {
        let read = entry.read.as_ref().and_then(|read| DateTime::parse_from_rfc3339(read).ok());
        entry.problems.is_empty() && read.is_some_and(|read| now - read.to_utc() < Duration::hours(HOURS))
    }

    /// Takes what has not ended along to the next backup.
    pub(crate) async fn go_on_as(&self, account: &Account, number: u64) -> Result<(), Error> {
        for entry in self.entries.values().filter(|entry| entry.late.is_some()) {
            keep(account, number, entry).await?;
        }
        match self.unchanged.is_empty() {
            true => Ok(()),
            false => keep_unchanged(account, number, &self.unchanged).await,
        }
    }
}

/// A document, if it can be read: without it something is read once more.
async fn document<T: DeserializeOwned>(account: &Account, key: &str) -> Option<T> {
    let read = account.store.get(key).await.map_err(|error| error.to_string());
    let parsed = read.and_then(|text| {
        let text = text.unwrap_or_default();
        serde_json::from_slice(&text).map_err(|error| error.to_string())
    });
    parsed.inspect_err(|error| tracing::warn!("{key} is not taken into account: {error}")).ok()
}

/// Notes what is kept of a repository.
pub(crate) async fn keep(account: &Account, number: u64, entry: &Entry) -> Result<(), Error> {
    let key = format!("{}{}.json", folder(account, number), entry.listed.id);
    write(account, &key, serde_json::to_vec(entry)).await
}

/// Notes of what nothing was new.
pub(crate) async fn keep_unchanged(
    account: &Account,
    number: u64,
    unchanged: &BTreeMap<u64, String>,
) -> Result<(), Error> {
    write(account, &format!("{}{UNCHANGED}", folder(account, number)), serde_json::to_vec(unchanged)).await
}

async fn write(account: &Account, key: &str, text: serde_json::Result<Vec<u8>>) -> Result<(), Error> {
    let text = text.map_err(|error| Error::Document { key: key.into(), why: error.to_string() })?;
    account.store.put_if(If::Any, key, None, text.into()).await?;
    Ok(())
}
