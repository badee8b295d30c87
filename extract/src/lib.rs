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
mod heaps;
mod limit;
mod plan;
mod read;
mod snapshot;
mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use blackwater_base::deadline::Deadline;
use blackwater_base::in_parts;
use blackwater_base::store::Store;
use blackwater_shared::config::Config;
use blackwater_shared::log::{Applied, Commit, Log};
use blackwater_shared::manifest::Object;
use blackwater_shared::manifest::{Extracted, FORMAT, Head, ModelState, Server, Table};
use blackwater_shared::pack::Pack;
use blackwater_shared::postgres::Database;
use blackwater_shared::{PROGRAM, postgres};
use chrono::TimeDelta;
use deadpool_postgres::{Object as Client, Transaction};
use futures_util::future::try_join_all;
use serde::Serialize;
use uuid::Uuid;

pub use check::{Checked, TableSize};
use closure::Closure;
pub use error::Error;
use limit::{Allowed, Limit};
use plan::{Continuity, Reading};
use read::{Destination, Look, SEEN, Source};
use snapshot::{SESSION, bounds};
pub use verify::Pieces;

/// A log that says nothing for a day says that it is alive.
const HEARTBEAT: TimeDelta = TimeDelta::days(1);

/// The bytes of a key as CSV, more or less.
const KEY: u64 = 32;

/// The heaps above which a run reads one table at a time. Each connection that reads holds a lock on every heap and its
/// indexes, of which a server has some thousands for all sessions, and a description of each in memory.
const MANY_HEAPS: usize = 500;

/// A batch that takes less than this is not worth making smaller.
const LEAST: Duration = Duration::from_secs(2);

/// Extract with its clients, for any number of runs.
#[derive(Clone)]
pub struct Extract {
    source: Database,
    schema: String,
    exclude: Vec<(String, String)>,
    connections: usize,
    statement_timeout: Duration,
    object_bytes: u64,
    batch_bytes: u64,
    log: Log,
    processed: Store,
    pack: Pack,
}

/// What a run meets at the source.
#[derive(Clone, Copy)]
struct Met<'a> {
    tables: &'a BTreeMap<String, catalogue::Table>,
    /// The newest batch, if its markers hold.
    newest: Option<&'a Extracted>,
    /// The snapshot's xmin.
    xmin: u64,
    /// About how much a batch holds.
    bytes: u64,
    /// How long a statement may take.
    limit: Limit,
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
    /// For how long, as far as the log tells, one and the same transaction has been open at the source: what was
    /// written since it began is looked at with every run. 0 if there is none.
    pub held_seconds: u64,
    /// Whether the batch is full, and the rest comes with the next.
    pub more: bool,
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
    /// About how many bytes of the table come with the next batches.
    pub bytes_left: u64,
}

impl Extract {
    /// Extract as the configuration says; it writes to the ingestion bucket, and reads in the
    /// processed bucket what load wants to know.
    ///
    /// # Errors
    /// If there are no certificates to verify the source with.
    pub fn new(config: &Config, pack: Pack, ingestion: Store, processed: Store) -> Result<Self, postgres::Error> {
        Ok(Self {
            source: config.source.address.pool(config.limits.connections, SESSION)?,
            schema: config.source.schema.clone(),
            exclude: config.source.exclude.clone(),
            connections: config.limits.connections,
            statement_timeout: config.source.statement_timeout,
            object_bytes: config.limits.memory / 16,
            batch_bytes: config.limits.batch_bytes,
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
        self.bounded(request, self.batch_bytes, Deadline::NONE).await
    }

    /// Runs until nothing is left or half of the time is over: a report for each run. What a batch holds may take half of
    /// what is left to copy; one that would take longer is begun again, smaller.
    ///
    /// # Errors
    /// Those of [`Self::run`] if the first one fails, and [`Error::Late`] if not even a small batch was ready in time.
    pub async fn run_until(&self, request: &Request, deadline: Deadline) -> Result<Vec<Report>, Error> {
        let (mut request, mut bytes, mut reports) = (request.clone(), self.batch_bytes, Vec::new());
        let half = deadline.halfway();
        loop {
            let began = Instant::now();
            match self.bounded(&request, bytes, deadline).await {
                Ok(report) => {
                    let Report { outcome, more, .. } = report;
                    reports.push(report);
                    if !half.allows(began.elapsed()) {
                        return Ok(reports);
                    }
                    match outcome {
                        Outcome::Batch if more => request = Request::Changes,
                        // Another run has the number, and goes on by itself; but nobody else was asked for this.
                        Outcome::Lost if request != Request::Changes => {}
                        _ => return Ok(reports),
                    }
                }
                Err(Error::Late { .. }) if deadline.allows(LEAST) => {
                    tracing::info!(bytes, "a batch of this size takes too long; trying a smaller one");
                    bytes /= 4;
                }
                // What is written is written. What is wrong is told by the next run, if it is wrong still.
                Err(error) if !reports.is_empty() => {
                    tracing::warn!(error = in_parts(&error.to_string()).0, "the batches before are written");
                    return Ok(reports);
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn bounded(&self, request: &Request, bytes: u64, deadline: Deadline) -> Result<Report, Error> {
        let attempt = async || {
            let limit = Limit { setting: self.statement_timeout, deadline };
            let allowed = limit.now();
            self.attempt(request, bytes, limit, &allowed).await.map_err(|error| allowed.explain(error))
        };
        postgres::retry(attempt, |error| error.is_transient() && deadline.allows(LEAST)).await
    }

    async fn attempt(&self, request: &Request, bytes: u64, limit: Limit, allowed: &Allowed) -> Result<Report, Error> {
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
        let last_applied = applied.as_ref().map_or(0, |applied| applied.batch);
        self.log.reaches(number, last_applied)?;
        let mut report = Report {
            outcome: Outcome::GaveWay,
            batch: None,
            notices: Vec::new(),
            tables: Vec::new(),
            lag_seconds: self.log.lag(number, last_applied).await?,
            held_seconds: 0,
            more: false,
        };
        let gave_way = |why, mut report: Report| {
            report.notices.push(why);
            Ok(report)
        };
        let wanted = wanted(newest.as_ref(), applied);
        let mut clients = vec![self.source.connect().await?];
        let connections = self.check_tables(&mut clients[0], allowed, &known).await?;
        clients.extend(try_join_all((1..connections).map(|_| self.source.connect())).await?);
        let Some(snapshot) = snapshot::open(&mut clients, &self.schema, &known, allowed).await? else {
            let why = "an ALTER TABLE or TRUNCATE under way";
            return gave_way(format!("another session holds a lock on one of {} ({why})", known.join(", ")), report);
        };
        let verdict = newest.as_ref().map(|m| plan::continuity(&m.source, &snapshot.server, snapshot.wal_before));
        let broken = match verdict {
            Some(Continuity::Behind) => {
                return gave_way(format!("this standby is behind the snapshot of batch {number}"), report);
            }
            Some(Continuity::Broken(why)) => {
                report.notices.push(format!("{why}; every table is read in full"));
                Some(why)
            }
            Some(Continuity::Same) | None => None,
        };
        let tables = catalogue::read(&snapshot.readers[0], &self.schema, &known, &self.exclude).await?;
        let Some(tables) = tables else {
            return gave_way("a partition was attached at this very moment".into(), report);
        };
        let states = self.models(&tables)?;

        let (xmin, xmax) = bounds(&snapshot.server.snapshot).unwrap_or_default();
        // Another server gives the same numbers to other transactions.
        let trusted = newest.as_ref().filter(|_| broken.is_none());
        report.held_seconds = self.held(trusted, xmin).await?;
        let met = Met { tables: &tables, newest: trusted, xmin, bytes, limit };
        let mut plan = plan::plan(newest.as_ref(), broken.as_deref(), &snapshot.server, &tables, &self.pack, &full);
        let looks = self.look(&snapshot.readers, &met, &mut plan).await?;
        let (store, batch, run) = (self.log.store(), number + 1, Uuid::now_v7());
        let to = Destination { store, batch, run, object_bytes: self.object_bytes };
        let met = Met { limit: Limit { deadline: limit.deadline.halfway(), ..limit }, ..met };
        let copied = self.copy(&snapshot.readers, &met, (&plan, &looks), &wanted, &to).await?;
        drop(snapshot.readers);

        let seen = trusted.and_then(|newest| newest.seen.as_deref()).unwrap_or_default();
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
            tables: in_manifest((&tables, &plan), newest.as_ref(), (batch, &snapshot.server), &looks, copied),
            source: snapshot.server,
            models: states,
        };
        if trusted.is_some_and(|newest| !is_news(newest, &manifest)) {
            return Ok(Report { outcome: Outcome::Nothing, ..report });
        }
        report.outcome = match self.log.commit(&manifest).await? {
            Commit::Won => Outcome::Batch,
            Commit::Lost => Outcome::Lost,
        };
        report.batch = Some(batch);
        report.more = manifest.tables.values().any(|table| !table.is_whole());
        let of_table = |(name, table): (&String, &Table)| TableReport {
            table: name.clone(),
            full: plan[name].full.clone(),
            source_rows: table.rows,
            rows: table.objects.iter().map(|object| object.rows).sum(),
            bytes: table.objects.iter().map(|object| object.bytes).sum(),
            keys: table.keys_sent == Some(batch),
            bytes_left: plan[name].bytes_left(&tables[name]),
        };
        report.tables = manifest.tables.iter().map(of_table).collect();
        Ok(report)
    }

    /// Makes sure that the tables can be read: the number of connections to read them with.
    async fn check_tables(&self, client: &mut Client, allowed: &Allowed, tables: &[String]) -> Result<usize, Error> {
        let transaction = allowed.begin(client).await?;
        if let Some(error) = catalogue::check(&transaction, &self.schema, &self.pack).await?.into_iter().next() {
            return Err(error);
        }
        let heaps = catalogue::count_heaps(&transaction, &self.schema, tables).await?;
        Ok(if heaps > MANY_HEAPS { 1 } else { self.connections.min(tables.len()) })
    }

    /// Looks at every table, and cuts what is to be read of them to the size of a batch.
    async fn look(
        &self,
        readers: &[Transaction<'_>],
        met: &Met<'_>,
        plan: &mut BTreeMap<String, Reading>,
    ) -> Result<BTreeMap<String, Look>, Error> {
        let bytes = met.bytes;
        plan::cut(plan, met.tables, bytes);
        let sources = self.sources(met, plan);
        let looks = on_all(readers, sources.values(), async |reader, source| source.look(reader).await).await?;
        let closure = self.closure(&sources, &looks);
        // More rows may come again than have changed: those that look up one that did.
        let large = sources.values().filter(|source| source.table.bytes() > bytes);
        let counts =
            on_all(readers, large, async |reader, source| source.count(reader, closure.again(source.name)).await);
        let too_many = |(name, count): (String, u64)| {
            let Source { table, reading, looked_up, .. } = &sources[&name];
            let uncounted = if *looked_up { 0 } else { reading.bytes_left(table) };
            let of_row = table.bytes().saturating_sub(uncounted) / looks[&name].rows.max(1);
            (count.saturating_mul(of_row) > bytes).then_some(name)
        };
        let too_many: Vec<_> = counts.await?.into_iter().filter_map(too_many).collect();
        if !too_many.is_empty() {
            plan::begin_again(plan, met.tables, &too_many);
            plan::cut(plan, met.tables, bytes);
        }
        Ok(looks)
    }

    /// Copies what is due of every table to the bucket: the objects of its rows, and those of its keys if they are wanted.
    async fn copy(
        &self,
        readers: &[Transaction<'_>],
        met: &Met<'_>,
        (plan, looks): (&BTreeMap<String, Reading>, &BTreeMap<String, Look>),
        wanted: &BTreeSet<String>,
        to: &Destination<'_>,
    ) -> Result<BTreeMap<String, (Vec<Object>, Option<Vec<Object>>)>, Error> {
        let sources = self.sources(met, plan);
        let closure = self.closure(&sources, looks);
        on_all(readers, sources.values(), async |reader, source| {
            let objects = match closure.rows(source.name) {
                Some(query) => source.copy(&query, reader, to, "csv").await?,
                None => Vec::new(),
            };
            // Fewer rows than there were: some are gone. The keys of a large table come if load asks.
            let rows = looks[source.name].rows;
            let known = source.known.filter(|known| known.is_whole() && source.reading.completes());
            let fewer = known.is_some_and(|known| rows < known.rows) && rows.saturating_mul(KEY) <= met.bytes;
            let keys = match self.has_keys(source.name) && (fewer || wanted.contains(source.name)) {
                true => Some(source.copy(&source.keys(), reader, to, "keys.csv").await?),
                false => None,
            };
            Ok((objects, keys))
        })
        .await
    }

    fn closure<'a>(
        &'a self,
        sources: &'a BTreeMap<String, Source<'a>>,
        looks: &'a BTreeMap<String, Look>,
    ) -> Closure<'a> {
        Closure { sources, looks, models: self.pack.models.values().collect() }
    }

    /// The age of the first batch in whose snapshot the transaction `xmin`, which is open now, had begun; 0 if there is
    /// none. (Others' times in pg_stat_activity are not for every role to see.)
    async fn held(&self, newest: Option<&Extracted>, xmin: u64) -> Result<u64, Error> {
        let had_begun = |manifest: &Extracted| bounds(&manifest.source.snapshot).is_some_and(|(_, xmax)| xmax > xmin);
        let Some(newest) = newest.filter(|newest| had_begun(newest)) else { return Ok(0) };
        let (mut before, mut first, mut age) = (0, newest.head.batch, newest.head.age());
        while first - before > 1 {
            let middle = before + (first - before) / 2;
            let manifest: Option<Extracted> = self.log.read(middle).await?;
            match manifest.filter(|manifest| manifest.source.system == newest.source.system) {
                Some(manifest) if had_begun(&manifest) => (first, age) = (middle, manifest.head.age()),
                _ => before = middle,
            }
        }
        Ok(age)
    }

    /// The tables as a run reads them.
    fn sources<'a>(&'a self, met: &Met<'a>, plan: &'a BTreeMap<String, Reading>) -> BTreeMap<String, Source<'a>> {
        let Met { tables, newest, xmin, limit, .. } = *met;
        let seen = newest.and_then(|newest| newest.seen.as_deref()).unwrap_or_default();
        let selects = self.pack.models.values().flat_map(|model| &model.selects);
        let looked_up: BTreeSet<_> = selects.flat_map(|select| &select.tables[1..]).map(|table| &table.name).collect();
        let source = |(name, table): (&'a String, &'a catalogue::Table)| {
            let known = newest.and_then(|newest| newest.tables.get(name));
            let (reading, looked_up) = (&plan[name], looked_up.contains(name));
            (name.clone(), Source { schema: &self.schema, name, table, reading, seen, xmin, known, looked_up, limit })
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

/// Whether a batch has something to say that the newest has not: rows, keys, how far a table is read, one
/// whose number of rows differs though none changed (some are gone), or a sign of life.
fn is_news(newest: &Extracted, batch: &Extracted) -> bool {
    batch.head.at - newest.head.at >= HEARTBEAT
        || batch.tables.iter().any(|(name, table)| {
            !table.objects.is_empty()
                || table.keys_sent == Some(batch.head.batch)
                || newest.tables.get(name).is_none_or(|known| !known.is_whole() || known.rows != table.rows)
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
    (tables, plan): (&BTreeMap<String, catalogue::Table>, &BTreeMap<String, Reading>),
    newest: Option<&Extracted>,
    (batch, server): (u64, &Server),
    looks: &BTreeMap<String, Look>,
    mut copied: BTreeMap<String, (Vec<Object>, Option<Vec<Object>>)>,
) -> BTreeMap<String, Table> {
    let table = |(name, table): (&String, &catalogue::Table)| {
        let (objects, keys) = copied.remove(name).unwrap_or_default();
        let mut table = Table {
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
        for part in &plan[name].unread {
            table.heaps.iter_mut().filter(|heap| heap.oid == part.heap).for_each(|heap| heap.unread = part.to);
        }
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
