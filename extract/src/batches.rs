//! The batches of a run: the first one brings what changed, and as much of what the log does not hold as fits; the next ones bring
//! the rest of that.

use std::collections::{BTreeMap, BTreeSet};

use blackwater_base::store::Store;
use blackwater_shared::manifest::{Extracted, Table};
use uuid::Uuid;

use crate::changes::Changes;
use crate::copy::{Copied, Destination};
use crate::error::Error;
use crate::manifest::{self, Contents, Origin};
use crate::plan::{self, Cut, Plan, Unread, bytes_left};
use crate::reader::Reader;
use crate::report::{Detection, Report, TableReport};
use crate::state::State;

/// The bytes of a key as CSV, more or less.
const KEY: u64 = 32;

/// The batches of a run.
pub(crate) struct Batches<'a> {
    reader: &'a Reader<'a>,
    plan: &'a Plan,
    /// What changed, if no batch of the run has brought it yet.
    changes: Option<&'a BTreeMap<String, Changes>>,
    /// The tables of which load wants to know the keys.
    wanted: BTreeSet<String>,
    /// The newest batch by now.
    newest: Option<Extracted>,
    /// The transactions whose rows the log has delivered by now.
    seen: Vec<u64>,
    /// What the log does not hold by now.
    unread: Unread,
    /// The rows of each table, as far as the log holds it by now.
    rows: BTreeMap<String, Option<u64>>,
    /// Whether no batch of the run is committed yet.
    is_first: bool,
    /// The tables in the order in which they are read.
    order: Vec<&'a str>,
    /// The tables whose changes the write-ahead log named.
    named: BTreeSet<&'a str>,
    store: &'a Store,
    /// The bytes at which an object is full.
    object_bytes: u64,
}

/// A batch whose objects are written.
pub(crate) struct Batch {
    pub(crate) manifest: Extracted,
    /// What it brings of what was unread.
    pub(crate) cut: Cut,
    rows: BTreeMap<String, Option<u64>>,
}

impl<'a> Batches<'a> {
    pub(crate) fn new(
        reader: &'a Reader<'a>,
        plan: &'a Plan,
        changes: &'a BTreeMap<String, Changes>,
        state: &State,
        (store, object_bytes): (&'a Store, u64),
    ) -> Self {
        let nothing = Cut::default();
        let selection = reader.selection(plan, changes, &nothing);
        let suspects = changes.iter().filter(|(_, changes)| changes.is_suspect).map(|(name, _)| name);
        let held = |(name, table): (&&str, &crate::sql::SourceTable<'_>)| {
            let is_held = reader.is_looked_up(name) || !table.read("t").is_never();
            ((*name).to_owned(), if is_held { changes[*name].rows } else { Some(0) })
        };
        Self {
            reader,
            plan,
            changes: Some(changes),
            wanted: state.wanted.iter().chain(suspects).cloned().collect(),
            newest: state.newest.clone(),
            seen: reader.seen().to_vec(),
            unread: plan::unread(plan),
            rows: selection.tables.iter().map(held).collect(),
            is_first: true,
            order: plan::order(reader.tables, reader.pack),
            named: changes
                .iter()
                .filter(|(_, changes)| changes.touched.is_some())
                .map(|(name, _)| name.as_str())
                .collect(),
            store,
            object_bytes,
        }
    }

    /// Writes the objects of the next batch; `None` if there is nothing to write.
    pub(crate) async fn next(&mut self, origin: &Origin<'_>, bytes: u64) -> Result<Option<Batch>, Error> {
        let cut = plan::cut(&self.unread, self.reader.tables, &self.order, bytes);
        match self.changes.take() {
            Some(changes) => {
                let batch = self.write(origin, changes, cut, bytes).await?;
                let is_news = origin.wal.is_anew
                    || self.reader.newest.is_none_or(|newest| manifest::is_news(newest, &batch.manifest));
                Ok(is_news.then_some(batch))
            }
            None => {
                let nothing = self.reader.tables.keys().map(|name| (name.clone(), Changes::default())).collect();
                self.write(origin, &nothing, cut, bytes).await.map(Some)
            }
        }
    }

    /// Goes on after a batch that is committed.
    pub(crate) fn committed(&mut self, batch: Batch) {
        self.seen = batch.manifest.seen.clone().unwrap_or_default();
        let sent = |table: &String| batch.manifest.tables.get(table).and_then(|table| table.keys_sent);
        self.wanted.retain(|table| sent(table) != Some(batch.manifest.head.batch));
        self.is_first = false;
        (self.newest, self.unread, self.rows) = (Some(batch.manifest), batch.cut.left, batch.rows);
    }

    async fn write(
        &self,
        origin: &Origin<'_>,
        changes: &BTreeMap<String, Changes>,
        cut: Cut,
        bytes: u64,
    ) -> Result<Batch, Error> {
        let (batch, run) = (self.newest.as_ref().map_or(1, |newest| newest.head.batch + 1), Uuid::now_v7());
        let to = Destination { store: self.store, batch, run, object_bytes: self.object_bytes };
        let selection = self.reader.selection(self.plan, changes, &cut);
        let copied = self.reader.copy_rows(&selection, &to).await?;
        let mut rows = self.rows.clone();
        for (name, copied) in copied.iter().filter(|(name, _)| !self.reader.is_looked_up(name)) {
            if let Some(Some(rows)) = rows.get_mut(name) {
                *rows += copied.due;
            }
        }
        let tables = self.reader.tables.keys().map(String::as_str);
        let keys = tables.filter(|name| self.sends_keys(name, &cut, &rows, bytes)).collect();
        let mut keys = self.reader.copy_keys(&selection, &keys, &to).await?;
        let gone = changes.iter().filter(|(name, changes)| !changes.gone.is_empty() && self.has_keys(name));
        let mut gone: BTreeMap<_, _> = self.reader.write_gone(&selection, gone, &to).await?;
        let contents = |(name, copied): (String, Copied)| {
            let mut writers = copied.writers;
            writers.extend(&changes[&name].writers);
            let (keys, gone, rows) = (keys.remove(&name), gone.remove(&name).unwrap_or_default(), rows[&name]);
            (name, Contents { objects: copied.objects, keys, gone, rows, writers })
        };
        let contents = copied.into_iter().map(contents).collect();
        let manifest = manifest::next(origin, self.newest.as_ref(), &self.seen, (run, &cut), contents);
        Ok(Batch { manifest, cut, rows })
    }

    /// Whether a batch sends the keys of a table: if load asks, or if it has fewer rows than there were, so that some are gone. Those
    /// of a large table come only if load asks.
    fn sends_keys(&self, table: &str, cut: &Cut, rows: &BTreeMap<String, Option<u64>>, bytes: u64) -> bool {
        let known = self.reader.newest.and_then(|newest| newest.tables.get(table));
        let completes = cut.left(table).is_empty() && (self.is_first || !cut.due(table).is_empty());
        let fewer = match (known, rows[table]) {
            (Some(known), Some(rows)) if completes && known.is_whole() => {
                known.rows.is_some_and(|known| rows < known) && rows.saturating_mul(KEY) <= bytes
            }
            _ => false,
        };
        self.has_keys(table) && (fewer || self.wanted.contains(table))
    }

    /// Whether rows of the table can be told apart in a star table.
    fn has_keys(&self, table: &str) -> bool {
        self.reader.pack.driven_by(table).any(|model| !model.is_values)
    }

    /// The report of a batch.
    pub(crate) fn report(&self, batch: &Batch, report: Report) -> Report {
        let number = batch.manifest.head.batch;
        let of_table = |(name, table): (&String, &Table)| TableReport {
            table: name.clone(),
            full: self.plan[name].full.clone().filter(|_| self.is_first),
            detection: if self.named.contains(name.as_str()) { Detection::Wal } else { Detection::Scan },
            source_rows: table.rows,
            rows: table.objects.iter().map(|object| object.rows).sum(),
            bytes: table.objects.iter().map(|object| object.bytes).sum(),
            keys: table.keys_sent == Some(number),
            bytes_left: bytes_left(&self.reader.tables[name], batch.cut.left(name)),
        };
        let tables = batch.manifest.tables.iter().map(of_table).collect();
        Report { batch: Some(number), tables, more: !batch.cut.is_last(), ..report }
    }
}
