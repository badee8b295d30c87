//! Extract: what changed in the source since the newest batch, as CSV in the ingestion bucket,
//! completed by a manifest.
//!
//! [`Extract::run`] reads the newest manifest, then takes a snapshot, and can commit only the
//! number after that manifest. Of two runs that overlap one commits; what the other wrote is read
//! by nobody.

mod catalogue;
mod check;
mod closure;
mod error;
mod plan;
mod read;
mod snapshot;
mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use blackwater_shared::config::Config;
use blackwater_shared::log::{self, Applied, Commit, Log};
use blackwater_shared::manifest::{Extracted, FORMAT, Head, ModelState, Server, Table};
use blackwater_shared::pack::Pack;
use blackwater_shared::postgres::Database;
use blackwater_shared::store::{Object, Store};
use blackwater_shared::{PROGRAM, postgres};
use chrono::{TimeDelta, Utc};
use deadpool_postgres::Transaction;
use futures_util::future::try_join_all;
use serde::Serialize;
use uuid::Uuid;

pub use check::{Checked, TableSize};
use closure::Closure;
pub use error::Error;
use plan::{Continuity, Plan, Reading};
use read::{Destination, Look, SEEN, Source};
use snapshot::bounds;
pub use verify::Pieces;

/// A log that says nothing for a day says that it is alive.
const HEARTBEAT: TimeDelta = TimeDelta::days(1);

/// Extract with its clients, for any number of runs.
#[derive(Clone)]
pub struct Extract {
    source: Database,
    schema: String,
    exclude: Vec<(String, String)>,
    connections: usize,
    object_bytes: u64,
    log: Log,
    processed: Store,
    pack: Pack,
}

/// What is wanted of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Request {
    /// What changed.
    #[default]
    Changes,
    /// What changed, and these tables in full.
    Full(Vec<String>),
    /// All tables in full.
    FullAll,
}

/// What a run did.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// How it ended.
    pub outcome: Outcome,
    /// The batch that it wrote, or found written by another run.
    pub batch: Option<u64>,
    /// What a person should know.
    pub notices: Vec<String>,
    /// The tables, if a batch was written.
    pub tables: Vec<TableReport>,
    /// The age of the oldest batch that the warehouse was not known to have when the run began, 0 if it had all.
    pub lag_seconds: u64,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It wrote a batch.
    Batch,
    /// It found nothing and wrote nothing.
    Nothing,
    /// Another run had written the batch before it.
    Lost,
    /// A lock or a standby that is behind was in the way; the next run tries again.
    GaveWay,
}

/// What a run read of a table.
#[derive(Clone, Debug, Serialize)]
pub struct TableReport {
    /// The table.
    pub table: String,
    /// Why it was read in full; `None` if what changed was read.
    pub full: Option<String>,
    /// The rows that the table has.
    pub source_rows: u64,
    /// The rows in the batch.
    pub rows: u64,
    /// Their bytes as CSV.
    pub bytes: u64,
    /// Whether the batch has the keys of all rows, to find those that are gone.
    pub keys: bool,
}

impl Extract {
    /// Extract as the configuration says; it writes to the ingestion bucket, and reads in the
    /// processed bucket what load wants to know.
    ///
    /// # Errors
    /// If there are no certificates to verify the source with.
    pub fn new(config: &Config, pack: Pack, ingestion: Store, processed: Store) -> Result<Self, postgres::Error> {
        Ok(Self {
            source: config.source.address.pool("blackwater extract", config.limits.connections)?,
            schema: config.source.schema.clone(),
            exclude: config.source.exclude.clone(),
            connections: config.limits.connections,
            object_bytes: config.limits.memory / 16,
            log: Log::ingestion(ingestion),
            processed,
            pack,
        })
    }

    /// One run: a batch if something changed, nothing otherwise. If the connection to the source is lost, it
    /// begins again.
    ///
    /// # Errors
    /// Each says what failed; nothing is lost, the next run reads it.
    pub async fn run(&self, request: &Request) -> Result<Report, Error> {
        postgres::retry(async || self.attempt(request).await, Error::is_transient).await
    }

    async fn attempt(&self, request: &Request) -> Result<Report, Error> {
        let known: Vec<_> = self.pack.source_tables().into_iter().collect();
        let full = match request {
            Request::Changes => Vec::new(),
            Request::Full(tables) => tables.clone(),
            Request::FullAll => known.clone(),
        };
        if let Some(table) = full.iter().find(|table| !known.contains(table)) {
            return Err(Error::UnknownTable { table: table.clone(), known });
        }

        let number = self.log.newest().await?;
        let newest: Option<Extracted> = match number {
            0 => None,
            _ => self.log.read(number).await?,
        };
        let applied = Applied::read(&self.processed).await?.filter(|applied| match &newest {
            Some(newest) => newest.head.log == applied.log,
            None => true,
        });
        if let Some(applied) = applied.as_ref().filter(|applied| applied.batch > number) {
            let bucket = self.log.store().bucket().to_owned();
            return Err(log::Error::Shorter { bucket, newest: number, applied: applied.batch }.into());
        }
        let lag_seconds = self.lag(number, newest.as_ref(), applied.as_ref()).await?;
        let gave_way = |why| Report {
            outcome: Outcome::GaveWay,
            batch: None,
            notices: vec![why],
            tables: Vec::new(),
            lag_seconds,
        };
        let wanted = wanted(newest.as_ref(), applied);
        // One connection holds the snapshot, the others read.
        let connections = self.connections.min(known.len() + 1);
        let mut clients = try_join_all((0..connections).map(|_| self.source.connect())).await?;
        if let Some(error) = catalogue::check(&clients[0], &self.schema, &self.pack).await?.into_iter().next() {
            return Err(error);
        }
        let Some(snapshot) = snapshot::open(&mut clients, &self.schema, &known).await? else {
            return Ok(gave_way(format!(
                "another session holds a lock on one of {} (an ALTER TABLE or TRUNCATE under way)",
                known.join(", ")
            )));
        };
        let mut notices = Vec::new();
        let verdict = newest.as_ref().map(|m| plan::continuity(&m.source, &snapshot.server, snapshot.wal_before));
        let broken = match verdict {
            Some(Continuity::Behind) => {
                return Ok(gave_way(format!("this standby is behind the snapshot of batch {number}")));
            }
            Some(Continuity::Broken(why)) => {
                notices.push(format!("{why}; every table is read in full"));
                Some(why)
            }
            Some(Continuity::Same) | None => None,
        };
        let tables = catalogue::read(&snapshot.transaction, &self.schema, &known, &self.exclude).await?;
        let Some(tables) = tables else {
            return Ok(gave_way("a partition was attached at this very moment".into()));
        };
        let states = self.models(&tables)?;

        let run = Uuid::now_v7();
        let plan = plan::plan(newest.as_ref(), broken.as_deref(), &snapshot.server, &tables, &self.pack, &full);
        let (xmin, xmax) = bounds(&snapshot.server.snapshot).unwrap_or_default();
        // Another server gives the same numbers to other transactions.
        let trusted = newest.as_ref().filter(|_| broken.is_none());
        let seen = trusted.and_then(|newest| newest.seen.as_deref()).unwrap_or_default();
        let sources = self.sources(&tables, &plan, trusted, xmin);
        let readers = &snapshot.readers;
        let looks = on_all(readers, sources.values(), async |reader, source| source.look(reader).await).await?;
        let models = self.pack.models.values().map(|model| (model, plan.anew.contains_key(&model.name)));
        let closure = Closure { sources: &sources, looks: &looks, models: models.collect() };
        let (store, batch) = (self.log.store(), number + 1);
        let to = Destination { store, batch, run, object_bytes: self.object_bytes };
        let copied = on_all(readers, sources.values(), async |reader, source| {
            let rows = match closure.rows(source.name) {
                Some(query) => source.copy(&query, reader, &to, "csv").await?,
                None => Vec::new(),
            };
            // Fewer rows than there were: some are gone.
            let fewer = source.known_rows.is_some_and(|known| looks[source.name].rows < known);
            let keys = match self.has_keys(source.name) && (fewer || wanted.contains(source.name)) {
                true => Some(source.copy(&source.keys(), reader, &to, "keys.csv").await?),
                false => None,
            };
            Ok((rows, keys))
        });
        let copied = copied.await?;
        drop(closure);
        drop((snapshot.transaction, snapshot.readers));

        let manifest = Extracted {
            head: Head {
                format: FORMAT,
                program: PROGRAM.into(),
                pack: self.pack.hash.clone(),
                log: newest.as_ref().map_or_else(Uuid::new_v4, |newest| newest.head.log),
                batch,
                run,
                at: snapshot.at,
            },
            seen: seen_by_now(seen, (xmin, xmax), &looks),
            tables: in_manifest(&tables, newest.as_ref(), (batch, &snapshot.server), &looks, copied),
            source: snapshot.server,
            models: states,
        };
        if newest.as_ref().is_some_and(|newest| broken.is_none() && !is_news(newest, &manifest)) {
            return Ok(Report { outcome: Outcome::Nothing, batch: None, notices, tables: Vec::new(), lag_seconds });
        }
        let outcome = match self.log.commit(&manifest).await? {
            Commit::Won => Outcome::Batch,
            Commit::Lost => Outcome::Lost,
        };
        let tables = manifest.tables.iter().map(|(name, table)| TableReport {
            table: name.clone(),
            full: match &plan.readings[name] {
                Reading::Full(why) => Some(why.clone()),
                Reading::Changes { .. } => {
                    self.pack.driven_by(name).find_map(|model| plan.anew.get(&model.name)).cloned()
                }
            },
            source_rows: table.rows,
            rows: table.objects.iter().map(|object| object.rows).sum(),
            bytes: table.objects.iter().map(|object| object.bytes).sum(),
            keys: table.keys_sent == Some(batch),
        });
        Ok(Report { outcome, batch: Some(manifest.head.batch), notices, tables: tables.collect(), lag_seconds })
    }

    /// The age of the oldest batch that is not applied, as far as load has left word. `number` is that of the newest.
    async fn lag(&self, number: u64, newest: Option<&Extracted>, applied: Option<&Applied>) -> Result<u64, Error> {
        let first = applied.map_or(0, |applied| applied.batch) + 1;
        let at = match newest {
            Some(newest) if first == number => Some(newest.head.at),
            Some(_) if first < number => self.log.read::<Extracted>(first).await?.map(|manifest| manifest.head.at),
            _ => None,
        };
        Ok(at.map_or(0, |at| (Utc::now() - at).num_seconds().max(0) as u64))
    }

    /// The tables as a run reads them that follows the manifest `newest`, if that can be trusted.
    fn sources<'a>(
        &'a self,
        tables: &'a BTreeMap<String, catalogue::Table>,
        plan: &'a Plan,
        newest: Option<&'a Extracted>,
        xmin: u64,
    ) -> BTreeMap<String, Source<'a>> {
        let seen = newest.and_then(|newest| newest.seen.as_deref()).unwrap_or_default();
        let source = |(name, table): (&'a String, &'a catalogue::Table)| {
            let reading = &plan.readings[name];
            let known_rows = newest.and_then(|newest| newest.tables.get(name)).map(|table| table.rows);
            (name.clone(), Source { schema: &self.schema, name, table, reading, seen, xmin, known_rows })
        };
        tables.iter().map(source).collect()
    }

    /// Whether rows of the table can be told apart in a star table.
    fn has_keys(&self, table: &str) -> bool {
        self.pack.driven_by(table).any(|model| !model.is_values)
    }

    /// Checks that every model fits the source, and says what it is.
    fn models(&self, tables: &BTreeMap<String, catalogue::Table>) -> Result<BTreeMap<String, ModelState>, Error> {
        let mut states = BTreeMap::new();
        for (name, model) in &self.pack.models {
            catalogue::check_model(model, tables)?;
            let state = ModelState {
                hash: self.pack.model_hash(model),
                tables: model.selects.iter().map(|select| select.driving().to_owned()).collect(),
                joins: model.selects.iter().map(|select| select.from.clone()).collect(),
            };
            states.insert(name.clone(), state);
        }
        Ok(states)
    }
}

/// Whether a batch has something to say that the newest has not: rows, keys, a table whose number of
/// rows differs though none changed (some are gone), or a sign of life.
fn is_news(newest: &Extracted, batch: &Extracted) -> bool {
    batch.head.at - newest.head.at >= HEARTBEAT
        || batch.tables.iter().any(|(name, table)| {
            !table.objects.is_empty()
                || table.keys_sent == Some(batch.head.batch)
                || newest.tables.get(name).is_none_or(|known| known.rows != table.rows)
        })
}

/// The transactions not below the snapshot's xmin whose rows the log holds with this batch. None are
/// listed once the 32 bits of a row's xmin may be those of an older row, frozen 2^32 transactions
/// ago, as well as those of a transaction that is open now.
fn seen_by_now(seen: &[u64], (xmin, xmax): (u64, u64), looks: &BTreeMap<String, Look>) -> Option<Vec<u64>> {
    if xmax >= 1 << 32 {
        return None;
    }
    let mut all: BTreeSet<u64> = seen.iter().copied().filter(|xid| *xid >= xmin).collect();
    all.extend(looks.values().flat_map(|look| &look.writers));
    (all.len() <= SEEN).then(|| all.into_iter().collect())
}

fn in_manifest(
    tables: &BTreeMap<String, catalogue::Table>,
    newest: Option<&Extracted>,
    (batch, server): (u64, &Server),
    looks: &BTreeMap<String, Look>,
    mut copied: BTreeMap<String, (Vec<Object>, Option<Vec<Object>>)>,
) -> BTreeMap<String, Table> {
    let table = |(name, table): (&String, &catalogue::Table)| {
        let (objects, keys) = copied.remove(name).unwrap_or_default();
        let table = Table {
            marker: Some(server.snapshot.clone()),
            rows: looks[name].rows,
            objects,
            keys_sent: match keys {
                Some(_) => Some(batch),
                None => newest.and_then(|newest| newest.tables.get(name)?.keys_sent),
            },
            keys: keys.unwrap_or_default(),
            ..table.in_manifest()
        };
        (name.clone(), table)
    };
    tables.iter().map(table).collect()
}

/// The tables of which load wants to know the keys, and has not been told since it asked.
fn wanted(newest: Option<&Extracted>, applied: Option<Applied>) -> BTreeSet<String> {
    let (Some(newest), Some(applied)) = (newest, applied) else { return BTreeSet::new() };
    let told = |table: &String| newest.tables.get(table).and_then(|table| table.keys_sent) > Some(applied.batch);
    applied.wanted.into_iter().filter(|table| !told(table)).collect()
}

/// Does one thing to every table, on as many connections as there are: the answers by table.
async fn on_all<'a, T>(
    readers: &[Transaction<'_>],
    sources: impl Iterator<Item = &'a Source<'a>>,
    work: impl AsyncFn(&Transaction<'_>, &'a Source<'a>) -> Result<T, Error>,
) -> Result<BTreeMap<String, T>, Error> {
    let queue = Mutex::new(sources);
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let one = async |reader| {
        let mut done = Vec::new();
        while let Some(source) = next() {
            done.push((source.name.to_owned(), work(reader, source).await?));
        }
        Ok::<_, Error>(done)
    };
    Ok(try_join_all(readers.iter().map(one)).await?.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(writers: &[u64]) -> BTreeMap<String, Look> {
        [("t".to_owned(), Look { rows: 9, changed: 9, writers: writers.to_vec() })].into()
    }

    #[test]
    fn what_was_seen_stays_seen_while_the_marker_stays_below_it() {
        assert_eq!(seen_by_now(&[90, 105], (100, 120), &read(&[110, 105])), Some(vec![105, 110]));
        assert_eq!(seen_by_now(&[], (100, 120), &read(&[])), Some(Vec::new()));
    }

    #[test]
    fn too_many_transactions_or_ambiguous_ones_are_not_listed() {
        let many: Vec<u64> = (1000..=1000 + SEEN as u64).collect();
        assert_eq!(seen_by_now(&[], (1000, 1 << 31), &read(&many)), None);
        assert_eq!(seen_by_now(&[], (100, 1 << 32), &read(&[110])), None);
    }
}
