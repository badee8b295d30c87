//! The bucket: `answers/<log>/` with the batches of records, in order, each written once, and `state/` with what they come to. A log
//! begins with everything that there is; a new one begins where the state is lost, or somebody asks for it.

use std::io::{BufRead, BufReader, Write};

use blackwater_base::store::{If, Store};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::record::Record;
use crate::state::{Issues, State};

const ANSWERS: &str = "answers/";
const STATE: &str = "state/state.json.gz";
/// At how many bytes a batch is written.
const BATCH_BYTES: usize = 8 << 20;

/// The first line of a batch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Head {
    pub(crate) organization: String,
    pub(crate) log: String,
    pub(crate) batch: u64,
    pub(crate) at: DateTime<Utc>,
    /// The repository of whose issues its records are.
    pub(crate) repository: Option<i64>,
}

/// Records that are to be written.
#[derive(Default)]
pub(crate) struct Batch {
    lines: Option<GzEncoder<Vec<u8>>>,
    pub(crate) records: usize,
    bytes: usize,
}

impl Batch {
    pub(crate) fn push(&mut self, record: &Record) -> Result<(), std::io::Error> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        self.bytes += line.len();
        self.records += 1;
        let lines = self.lines.get_or_insert_with(|| GzEncoder::new(Vec::new(), Compression::fast()));
        lines.write_all(&line)
    }

    pub(crate) fn is_enough(&self) -> bool {
        self.bytes >= BATCH_BYTES
    }

    /// Its bytes, which are two members of gzip: the head, and the records.
    fn finish(self, head: &Head) -> Result<Vec<u8>, std::io::Error> {
        let mut first = GzEncoder::new(Vec::new(), Compression::fast());
        serde_json::to_writer(&mut first, head)?;
        first.write_all(b"\n")?;
        let mut bytes = first.finish()?;
        if let Some(lines) = self.lines {
            bytes.extend(lines.finish()?);
        }
        Ok(bytes)
    }
}

/// The bucket.
pub(crate) struct Answers<'s>(pub(crate) &'s Store);

impl Answers<'_> {
    /// Writes a batch: `false` if there is one of its number.
    pub(crate) async fn write(&self, head: &Head, batch: Batch) -> Result<bool, Error> {
        let key = key(&head.log, head.batch);
        let bytes = batch.finish(head).map_err(|error| self.document(&key, &error))?;
        Ok(self.0.create(&key, bytes).await?)
    }

    /// A batch of a log; `None` if there is none of this number.
    pub(crate) async fn read(&self, log: &str, batch: u64) -> Result<Option<(Head, Vec<Record>)>, Error> {
        let key = key(log, batch);
        let Some(bytes) = self.0.get(&key).await? else { return Ok(None) };
        let mut lines = BufReader::new(flate2::read::MultiGzDecoder::new(&bytes[..])).lines();
        let wrong = |error: &dyn std::fmt::Display| self.document(&key, error);
        let head = lines.next().ok_or_else(|| wrong(&"it is empty"))?.map_err(|error| wrong(&error))?;
        let head: Head = serde_json::from_str(&head).map_err(|error| wrong(&error))?;
        let records = lines.map(|line| {
            let line = line.map_err(|error| wrong(&error))?;
            serde_json::from_str(&line).map_err(|error| wrong(&error))
        });
        Ok(Some((head, records.collect::<Result<_, Error>>()?)))
    }

    /// The numbers of a log's batches from this one on.
    pub(crate) async fn from(&self, log: &str, batch: u64) -> Result<Vec<u64>, Error> {
        let found = self.0.list(&format!("{ANSWERS}{log}/"), &key(log, batch.saturating_sub(1)), usize::MAX).await?;
        Ok(found.iter().filter_map(|key| parts(key)).map(|(_, batch)| batch).collect())
    }

    /// The log that began next after this one, or the first.
    pub(crate) async fn log_after(&self, log: Option<&str>) -> Result<Option<String>, Error> {
        // After all its keys.
        let after = log.map_or_else(String::new, |log| format!("{ANSWERS}{log}/~"));
        let found = self.0.list(ANSWERS, &after, 1).await?;
        Ok(found.first().and_then(|key| parts(key)).map(|(log, _)| log.to_owned()))
    }

    /// A name for a log that begins at a time, which comes after those of all others.
    pub(crate) async fn new_log(&self, at: DateTime<Utc>) -> Result<String, Error> {
        let log = at.format("%Y%m%dT%H%M%S").to_string();
        let all = self.0.list(ANSWERS, "", usize::MAX).await?;
        Ok(match all.last().and_then(|key| parts(key)) {
            Some((last, _)) if last >= log.as_str() => format!("{last}a"),
            _ => log,
        })
    }

    /// The ETag of the state, if there is one, whatever it holds.
    pub(crate) async fn state_etag(&self) -> Result<Option<String>, Error> {
        Ok(self.0.head(STATE).await?.map(|head| head.etag))
    }

    /// How far polls are, and the object's ETag; `None` before the first.
    pub(crate) async fn state(&self) -> Result<Option<(State, String)>, Error> {
        self.document_at(STATE).await
    }

    /// Writes how far polls are: the object's ETag.
    pub(crate) async fn put_state(&self, state: &State, etag: Option<&str>) -> Result<String, Error> {
        self.put(STATE, state, etag, state.next).await
    }

    /// The issues of a repository, and the object's ETag.
    pub(crate) async fn issues(&self, log: &str, repository: i64) -> Result<(Issues, Option<String>), Error> {
        let found = self.document_at(&issues_key(log, repository)).await?;
        Ok(found.map_or_else(Default::default, |(issues, etag)| (issues, Some(etag))))
    }

    /// Writes the issues of a repository.
    pub(crate) async fn put_issues(
        &self,
        state: &State,
        repository: i64,
        issues: &Issues,
        etag: Option<&str>,
    ) -> Result<(), Error> {
        self.put(&issues_key(&state.log, repository), issues, etag, state.next).await.map(drop)
    }

    async fn document_at<T: DeserializeOwned>(&self, key: &str) -> Result<Option<(T, String)>, Error> {
        let Some((bytes, etag)) = self.0.get_tagged(key).await? else { return Ok(None) };
        let value = serde_json::from_reader(BufReader::new(GzDecoder::new(&bytes[..])));
        Ok(Some((value.map_err(|error| self.document(key, &error))?, etag)))
    }

    async fn put<T: Serialize>(&self, key: &str, value: &T, etag: Option<&str>, batch: u64) -> Result<String, Error> {
        let mut bytes = GzEncoder::new(Vec::new(), Compression::fast());
        serde_json::to_writer(&mut bytes, value).map_err(|error| self.document(key, &error))?;
        let bytes = Bytes::from(bytes.finish().map_err(|error| self.document(key, &error))?);
        let written = self.0.put_if(etag.map_or(If::Free, If::Is), key, None, bytes).await?;
        written.ok_or(Error::Busy { batch })
    }

    fn document(&self, key: &str, why: &dyn std::fmt::Display) -> Error {
        Error::Document { bucket: self.0.bucket().into(), key: key.into(), why: why.to_string() }
    }
}

fn key(log: &str, batch: u64) -> String {
    format!("{ANSWERS}{log}/{batch:010}.jsonl.gz")
}

/// The log and the number in the key of a batch.
fn parts(key: &str) -> Option<(&str, u64)> {
    let (log, batch) = key.strip_prefix(ANSWERS)?.split_once('/')?;
    Some((log, batch.split('.').next()?.parse().ok()?))
}

fn issues_key(log: &str, repository: i64) -> String {
    format!("state/{log}/{repository}.json.gz")
}
