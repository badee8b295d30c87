//! How far a backup is that has not ended: what it keeps of repositories, for the run that goes on with it.

use std::collections::BTreeMap;

use blackwater_base::store::If;
use chrono::{DateTime, Duration, Utc};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::de::DeserializeOwned;

use crate::account::Account;
use crate::error::Error;
use crate::manifest::Entry;

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
            progress.unchanged.extend(document(account, &key).await?.unwrap_or(BTreeMap::new()));
        }
        let entries: Vec<Option<Entry>> =
            stream::iter(entries.iter().map(|key| document(account, key))).buffered(8).try_collect().await?;
        progress.entries = entries.into_iter().flatten().map(|entry| (entry.listed.id, entry)).collect();
        Ok(progress)
    }

    /// Whether there is any.
    pub(crate) async fn is_any(account: &Account, number: u64) -> Result<bool, Error> {
        Ok(!account.store.list(&folder(account, number), "", 1).await?.is_empty())
    }

    /// Whether a repository was read for this backup, to its end, and not long ago; when.
    pub(crate) fn is_read(&self, id: u64, now: DateTime<Utc>) -> Option<&String> {
        let of_entry = self.entries.get(&id).filter(|entry| entry.late.is_none() && entry.problems.is_empty());
        let read = of_entry.and_then(|entry| entry.read.as_ref()).or_else(|| self.unchanged.get(&id))?;
        let at = DateTime::parse_from_rfc3339(read).ok()?.to_utc();
        (now - at < Duration::hours(HOURS)).then_some(read)
    }
}

async fn document<T: DeserializeOwned>(account: &Account, key: &str) -> Result<Option<T>, Error> {
    let Some(text) = account.store.get(key).await? else { return Ok(None) };
    let read = serde_json::from_slice(&text);
    read.map(Some).map_err(|error| Error::Document { key: key.into(), why: error.to_string() })
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
