//! The manifests of the two logs, in format 1. `docs/formats.md` describes every field.

use std::collections::BTreeMap;

use blackwater_base::store::{Uploaded, sha256};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The format that this program writes and reads. Later ones read the one before, too.
pub const FORMAT: u32 = 1;

/// A data object, as a manifest lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// The key in the manifest's bucket.
    pub key: String,
    /// The rows in it.
    pub rows: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// The SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
}

impl Object {
    /// An object that was written, with so many rows.
    #[must_use]
    pub fn of(Uploaded { key, bytes, sha256 }: Uploaded, rows: u64) -> Self {
        Self { key, rows, bytes, sha256 }
    }
}

/// The key of a data object: under the number and the run that it is written for, so that no two
/// runs ever write the same one. What is not a letter, digit, `_` or `-` is written as `=XX`; of a name that is
/// too long for a file that way there is a beginning, and a hash.
#[must_use]
pub fn data_key(batch: u64, run: uuid::Uuid, table: &str, part: usize, extension: &str) -> String {
    let mut name = String::new();
    for byte in table.bytes() {
        match byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-' {
            true => name.push(byte.into()),
            false => name.push_str(&format!("={byte:02X}")),
        }
    }
    if name.len() > 63 {
        name.truncate(46);
        name.push('=');
        name.push_str(&sha256(table.as_bytes())[..16]);
    }
    format!("data/{batch:012}/{run}/{name}.{part:04}.{extension}")
}

/// What every manifest begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The manifest's format.
    pub format: u32,
    /// The version of the program that wrote it.
    pub program: String,
    /// The hash of the model pack that it was made with.
    pub pack: String,
    /// The log that it belongs to, drawn at random with batch 1 of the ingestion log.
    pub log: Uuid,
    /// The batch's number, from 1 without gaps.
    pub batch: u64,
    /// The run that wrote it (UUIDv7, so in order of time); it is in the keys of its objects.
    pub run: Uuid,
    /// The source's time of the batch's snapshot.
    pub at: DateTime<Utc>,
}

impl Head {
    /// The seconds since the batch's snapshot.
    #[must_use]
    pub fn age(&self) -> u64 {
        (Utc::now() - self.at).num_seconds().max(0) as u64
    }
}

/// A manifest of the ingestion log: a batch of source rows, and the state of extract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extracted {
    /// What every manifest begins with.
    #[serde(flatten)]
    pub head: Head,
    /// The server and the snapshot that the batch was read from.
    pub source: Server,
    /// The transactions at or above the snapshot's xmin whose rows the log has delivered, so that
    /// a run need not deliver them again. `None` if they were too many to list.
    pub seen: Option<Vec<u64>>,
    /// How far the source's write-ahead log is read, if changes are found there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<Capture>,
    /// Every source table that a model reads, also if no row of it is in this batch.
    pub tables: BTreeMap<String, Table>,
    /// Every model of the pack.
    pub models: BTreeMap<String, ModelState>,
}

/// How far the source's write-ahead log is read. Positions in it are in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capture {
    /// The replication slot, and the publication of the same name.
    pub slot: String,
    /// The batch's snapshot sees every transaction that ends at or before this position, and the slot names those that end
    /// behind it. `None`: there is no such position yet.
    pub position: Option<u64>,
    /// The position that takes its place once the transactions that are open now have ended.
    pub pending: Option<Pending>,
    /// The position up to which the log was flushed when the batch was read.
    pub upto: u64,
    /// The oid of the publication.
    pub publication: u32,
    /// The transaction that wrote the publication's properties.
    pub version: String,
    /// When the rows of the tables were last counted.
    pub counted: DateTime<Utc>,
}

/// A position, and a transaction that began after it was read: a snapshot of which all older ones are over sees all that ended
/// before the position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The position.
    pub position: u64,
    /// The transaction.
    pub xmax: u64,
}

/// A table in the publication.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The oid of its line in `pg_publication_rel`.
    pub member: u32,
    /// The transaction that wrote the line.
    pub version: String,
    /// Its columns, if not all are published, as the server prints their numbers.
    pub columns: Option<String>,
    /// A transaction that began after the table was seen in the publication.
    pub since: u64,
    /// The hash of what ties its partitions to it: what is written to one while it is detached is not named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<String>,
}

/// The source server, as a run met it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// `pg_control_system()`'s identifier of the cluster.
    pub system: String,
    /// The oid of the database: another one may have taken its name.
    pub database: u32,
    /// Its timeline.
    pub timeline: u32,
    /// When its postmaster started.
    pub started: DateTime<Utc>,
    /// Since when its shared statistics count: they begin anew after a crash, and a crash may give
    /// a transaction id twice.
    pub statistics: Option<DateTime<Utc>>,
    /// Whether it is a standby.
    pub standby: bool,
    /// The snapshot, as `pg_current_snapshot()` prints it: `xmin:xmax:running`.
    pub snapshot: String,
    /// The position in the write-ahead log after the snapshot was taken, in bytes.
    pub wal: u64,
}

/// A source table at the end of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// The columns that are read, in the table's order; the objects' header, before the marks.
    pub columns: Vec<Column>,
    /// The columns of its primary key.
    pub key: Vec<String>,
    /// The snapshot up to which the log holds the table. `None`: it is still to be read in full.
    pub marker: Option<String>,
    /// The heaps behind the table: itself, or its leaf partitions and inheritance children.
    pub heaps: Vec<Heap>,
    /// The hash of the table's definition.
    pub fingerprint: String,
    /// The rows that it had in the snapshot; while the log does not hold all of it, perhaps only those that it holds. `None`: nobody
    /// counted them in this batch.
    pub rows: Option<u64>,
    /// The rows of this batch: CSV as `COPY … (FORMAT csv, HEADER)` writes it, and after the
    /// columns one mark (`t` or `f`) for each model that the table drives ([`mark`]).
    pub objects: Vec<Object>,
    /// The keys of rows that the source no longer has: CSV with the columns of its primary key. None of them is equal, as the source
    /// compares keys, to one that it has in the snapshot.
    pub gone: Vec<Object>,
    /// The newest batch that sent the keys of all its rows, so that load can tell which are gone.
    pub keys_sent: Option<u64>,
    /// The keys, if this batch sends them: CSV with the columns of its primary key.
    pub keys: Vec<Object>,
    /// Its place in the publication, if the write-ahead log names its changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<Published>,
}

impl Table {
    /// Whether the log holds all of its rows.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.heaps.iter().all(|heap| heap.unread.is_none())
    }
}

/// The header of the column that marks the rows which drive `model` in this batch.
#[must_use]
pub fn mark(model: &str) -> String {
    format!("drives:{model}")
}

/// A column and its type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// The name.
    pub name: String,
    /// The type, as Postgres prints it: `numeric(10,2)`.
    #[serde(rename = "type")]
    pub kind: String,
}

/// One heap: as long as its first three fields agree, a row that was not written there has not changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heap {
    /// The relation's oid.
    pub oid: u32,
    /// Its file node, which is new after TRUNCATE, VACUUM FULL and every rewrite.
    pub file: u32,
    /// The hash of its definition.
    pub fingerprint: String,
    /// The first block whose rows the log does not hold yet. `None`: it holds them all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread: Option<u32>,
}

impl Heap {
    /// Whether it is this heap, as it was.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        (self.oid, self.file, &self.fingerprint) == (other.oid, other.file, &other.fingerprint)
    }
}

/// A model, as the batch was extracted for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelState {
    /// The hash of the model and the fixed tables that it joins.
    pub hash: String,
    /// The driving table of each of its SELECTs.
    pub tables: Vec<String>,
    /// The FROM of each of its SELECTs: the batch holds the lookup rows that these need.
    pub joins: Vec<String>,
}

/// A manifest of the processed log: a batch of star rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transformed {
    /// What every manifest begins with. Its run is the one of transform.
    #[serde(flatten)]
    pub head: Head,
    /// The run of extract that wrote the batch.
    pub extracted: Uuid,
    /// Every star table of the pack that the batch was extracted for.
    pub tables: BTreeMap<String, StarTable>,
}

/// The rows of one star table in a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StarTable {
    /// The columns that the model returns, with their types.
    pub columns: Vec<Column>,
    /// The table that drives it. `None` for a set of values, whose rows have no source key.
    pub driving: Option<Driving>,
    /// The rows of this batch, as Parquet. None if there are none.
    pub objects: Vec<Object>,
    /// The rows of the driving table that hold a value which does not fit: their keys as text, and
    /// why, in a last column.
    pub misfits: Vec<Object>,
    /// The keys, as text, of the rows in this batch that the model does not let through.
    pub filtered: Vec<Object>,
    /// The keys, as text, of rows of the driving table that the source no longer has.
    pub gone: Vec<Object>,
    /// The keys, as text, of all rows of the driving table, if the batch sends them.
    pub keys: Option<Vec<Object>>,
}

impl StarTable {
    /// How many star rows the batch has for it.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.objects.iter().map(|object| object.rows).sum()
    }

    /// Whether the batch has nothing for it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { objects, misfits, filtered, gone, keys, .. } = self;
        [objects, misfits, filtered, gone].into_iter().all(Vec::is_empty) && keys.is_none()
    }
}

/// The driving table of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Driving {
    /// Its name in the source.
    pub table: String,
    /// Its primary key, by the names that the model gives the columns, with the source's types.
    pub key: Vec<Column>,
    /// The rows that it had in the batch's snapshot; `None` while the log does not hold all of it, or if nobody counted them.
    pub rows: Option<u64>,
}

/// A manifest of one of the two logs.
pub trait Manifest: Serialize + for<'de> Deserialize<'de> {
    /// What it begins with.
    fn head(&self) -> &Head;
}

impl Manifest for Extracted {
    fn head(&self) -> &Head {
        &self.head
    }
}

impl Manifest for Transformed {
    fn head(&self) -> &Head {
        &self.head
    }
}
