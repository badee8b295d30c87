//! A log: the manifests `<prefix><12 digits>.json` of a bucket. A manifest is the commit of its
//! batch; it is written once, if its number is free, and never changed.

use std::path::Path;

use blackwater_base::store::{self, Store};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::manifest::{Extracted, FORMAT, Manifest, Object};

/// Why a log cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bucket failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A newer program wrote the manifest.
    #[error(
        "{object} has format {format}, which this version ({}) does not know yet\nInstall the newer version; nothing is skipped",
        crate::PROGRAM
    )]
    Newer {
        /// Bucket and key.
        object: String,
        /// Its format.
        format: u32,
    },
    /// The object is no manifest, or not the one of its number.
    #[error("{object} is not the manifest of its batch: {why}\nRestore it from the bucket's older versions")]
    Foreign {
        /// Bucket and key.
        object: String,
        /// What is wrong with it.
        why: String,
    },
    /// Two logs meet.
    #[error(
        "{here} belongs to log {found}, but {known_by} knows log {known}\nIf a bucket was exchanged, put the right one into the configuration; a new log wants a new processed bucket and a warehouse schema of its own"
    )]
    OtherLog {
        /// Where the other log was met.
        here: String,
        /// Its id.
        found: Uuid,
        /// Who knows another.
        known_by: String,
        /// The id that is known.
        known: Uuid,
    },
    /// The log ends before a batch that is applied.
    #[error(
        "the log in bucket {bucket} ends at batch {newest}, but batch {applied} of it is applied to the warehouse: it was emptied or is an old copy\nRestore its objects from the older versions"
    )]
    Shorter {
        /// The bucket.
        bucket: String,
        /// The newest number in it.
        newest: u64,
        /// The number that the warehouse has.
        applied: u64,
    },
}

/// The manifests under one prefix of a bucket.
#[derive(Clone, Debug)]
pub struct Log {
    store: Store,
    prefix: String,
}

/// Where a log ends.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ends {
    /// The log; `None` if there is no batch.
    pub log: Option<Uuid>,
    /// Its newest batch, or 0.
    pub batch: u64,
}

/// How the attempt to commit a batch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// The manifest is written.
    Won,
    /// Another run had taken the number.
    Lost,
}

impl Log {
    /// The ingestion log.
    #[must_use]
    pub fn ingestion(store: Store) -> Self {
        Self { store, prefix: "batches/".into() }
    }

    /// The processed log of one model pack.
    #[must_use]
    pub fn processed(store: Store, pack: &str) -> Self {
        Self { store, prefix: format!("batches/{pack}/") }
    }

    /// The bucket.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Brings a data object to a file, and makes sure that it is the one that its manifest lists.
    ///
    /// # Errors
    /// If it is gone or has other bytes, or cannot be read.
    pub async fn download(&self, object: &Object, file: &Path) -> Result<(), store::Error> {
        self.store.download(&object.key, &object.sha256, file).await
    }

    /// Makes sure that the log, which ends at `newest`, has what the warehouse has: the batches up to `applied`.
    ///
    /// # Errors
    /// [`Error::Shorter`].
    pub fn reaches(&self, newest: u64, applied: u64) -> Result<(), Error> {
        if newest < applied {
            return Err(Error::Shorter { bucket: self.store.bucket().to_owned(), newest, applied });
        }
        Ok(())
    }

    /// The age of the oldest batch of an ingestion log that ends at `newest` and is applied up to `applied`, in seconds;
    /// 0 if all of it is.
    ///
    /// # Errors
    /// If the batch cannot be read.
    pub async fn lag(&self, newest: u64, applied: u64) -> Result<u64, Error> {
        if newest <= applied {
            return Ok(0);
        }
        let oldest: Option<Extracted> = self.read(applied + 1).await?;
        Ok(oldest.map_or(0, |oldest| oldest.head.age()))
    }

    fn key(&self, batch: u64) -> String {
        format!("{}{batch:012}.json", self.prefix)
    }

    /// Where the manifest of a batch is, for people.
    #[must_use]
    pub fn place(&self, batch: u64) -> String {
        format!("{}/{}", self.store.bucket(), self.key(batch))
    }

    /// The newest batch of a log without gaps, 0 if it is empty: by doubling and halving, so that
    /// a log of 100,000 batches costs some 30 small requests and not 100 pages of a listing.
    ///
    /// # Errors
    /// If the bucket cannot be asked, or is missing.
    pub async fn newest(&self) -> Result<u64, Error> {
        let (mut there, mut missing) = (0, 1);
        while self.store.exists(&self.key(missing)).await? {
            (there, missing) = (missing, missing * 2);
        }
        if there == 0 {
            // S3 answers the same for a missing object and a missing bucket.
            self.store.check().await?;
        }
        while missing - there > 1 {
            let middle = there + (missing - there) / 2;
            match self.store.exists(&self.key(middle)).await? {
                true => there = middle,
                false => missing = middle,
            }
        }
        Ok(there)
    }

    /// The batches after `batch` whose manifests are there.
    ///
    /// # Errors
    /// If the bucket cannot be listed.
    pub async fn after(&self, batch: u64, most: usize) -> Result<Vec<u64>, Error> {
        let keys = self.store.list(&self.prefix, &self.key(batch), most).await?;
        let number = |key: &String| key.strip_prefix(&self.prefix)?.strip_suffix(".json")?.parse().ok();
        Ok(keys.iter().filter_map(number).collect())
    }

    /// The manifest of a batch, `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Newer`] or [`Error::Foreign`] if it is not this program's to read.
    pub async fn read<M: Manifest>(&self, batch: u64) -> Result<Option<M>, Error> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let Some(body) = self.store.get(&self.key(batch)).await? else { return Ok(None) };
        let foreign = |why: String| Error::Foreign { object: self.place(batch), why };
        let Version { format } = serde_json::from_slice(&body).map_err(|error| foreign(error.to_string()))?;
        if format > FORMAT {
            return Err(Error::Newer { object: self.place(batch), format });
        }
        let manifest: M = serde_json::from_slice(&body).map_err(|error| foreign(error.to_string()))?;
        match manifest.head().batch {
            number if number == batch => Ok(Some(manifest)),
            number => Err(foreign(format!("it says that it is batch {number}"))),
        }
    }

    /// Writes a manifest if its number is free. When the answer to a write that succeeded is lost,
    /// the repeated write finds the number taken, by this very run.
    ///
    /// # Errors
    /// If it can be neither written nor found.
    pub async fn commit<M: Manifest>(&self, manifest: &M) -> Result<Commit, Error> {
        let head = manifest.head();
        let foreign = |why: String| Error::Foreign { object: self.place(head.batch), why };
        let body = serde_json::to_vec_pretty(manifest).map_err(|error| foreign(error.to_string()))?;
        for _ in 0..3 {
            if self.store.create(&self.key(head.batch), body.clone()).await? {
                return Ok(Commit::Won);
            }
            match self.read::<M>(head.batch).await? {
                Some(winner) if winner.head().run == head.run => return Ok(Commit::Won),
                Some(_) => return Ok(Commit::Lost),
                // 409: another conditional write was under way. Its number is still free if that failed.
                None => tokio::time::sleep(std::time::Duration::from_millis(200)).await,
            }
        }
        Err(foreign("its number is taken, and yet nothing is there; run again".into()))
    }
}

/// How far the warehouse is, as load left it in the processed bucket: where transform begins to
/// look for what is missing, and what load asks extract for. Load writes it anew whenever it
/// differs, so it only ever costs time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The log.
    pub log: Uuid,
    /// The newest batch applied, 0 if there is none.
    pub batch: u64,
    /// The source tables of which the warehouse holds more rows than there were: it wants to know
    /// their keys.
    #[serde(default)]
    pub wanted: Vec<String>,
}

impl Applied {
    const KEY: &str = "hints/applied.json";

    /// Reads the hint; one that cannot be read is none.
    ///
    /// # Errors
    /// If the bucket cannot be asked.
    pub async fn read(processed: &Store) -> Result<Option<Self>, Error> {
        let body = processed.get(Self::KEY).await?;
        Ok(body.and_then(|body| serde_json::from_slice(&body).ok()))
    }

    /// Writes the hint.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn write(&self, processed: &Store) -> Result<(), Error> {
        let body = serde_json::json!(self).to_string();
        Ok(processed.put(Self::KEY, body.into()).await?)
    }
}
