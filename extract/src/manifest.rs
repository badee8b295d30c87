//! The manifest of a batch, from what was read.

use std::collections::{BTreeMap, BTreeSet};

use blackwater_shared::PROGRAM;
use blackwater_shared::manifest::{Extracted, FORMAT, Head, ModelState, Object, Server, Table};
use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use crate::changes::{SEEN, wal};
use crate::plan::Cut;
use crate::source::catalogue;
use crate::source::continuity::Bounds;

/// A log that says nothing for a day says that it is alive.
const HEARTBEAT: TimeDelta = TimeDelta::days(1);

/// What all batches of a run have in common.
pub(crate) struct Origin<'a> {
    pub(crate) server: &'a Server,
    pub(crate) bounds: Bounds,
    pub(crate) at: DateTime<Utc>,
    pub(crate) pack: &'a str,
    pub(crate) models: &'a BTreeMap<String, ModelState>,
    pub(crate) tables: &'a BTreeMap<String, catalogue::Table>,
    pub(crate) wal: wal::Next,
}

/// What a batch has of a table.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) objects: Vec<Object>,
    /// The keys of all its rows, if the batch sends them.
    pub(crate) keys: Option<Vec<Object>>,
    /// The keys of the rows that it no longer has.
    pub(crate) gone: Vec<Object>,
    /// The rows that it has, as far as the log holds it; `None` if nobody counted them.
    pub(crate) rows: Option<u64>,
    /// The recent transactions that wrote what the log holds of it.
    pub(crate) writers: BTreeSet<u64>,
}

/// The manifest of the batch after `newest`. `seen` are the transactions whose rows the log has delivered before the run.
pub(crate) fn next(
    origin: &Origin<'_>,
    newest: Option<&Extracted>,
    seen: &[u64],
    (run, cut): (Uuid, &Cut),
    mut contents: BTreeMap<String, Contents>,
) -> Extracted {
    let batch = newest.map_or(1, |newest| newest.head.batch + 1);
    let writers = contents.values().flat_map(|contents| &contents.writers);
    let seen = seen_by_now(seen, writers, origin.bounds);
    let table = |(name, table): (&String, &catalogue::Table)| {
        let Contents { objects, keys, gone, rows, .. } = contents.remove(name).unwrap_or_default();
        let keys_sent = match keys {
            Some(_) => Some(batch),
            None => newest.and_then(|newest| newest.tables.get(name)?.keys_sent),
        };
        let marker = Some(origin.server.snapshot.clone());
        let keys = keys.unwrap_or_default();
        let published = origin.wal.published.get(name).cloned();
        let mut table = Table { marker, rows, objects, keys_sent, keys, gone, published, ..table.in_manifest() };
        for heap in &mut table.heaps {
            heap.unread = cut.left(name).iter().find(|left| left.heap == heap.oid).map(|left| left.from);
        }
        (name.clone(), table)
    };
    Extracted {
        head: Head {
            format: FORMAT,
            program: PROGRAM.into(),
            pack: origin.pack.to_owned(),
            log: newest.map_or_else(Uuid::new_v4, |newest| newest.head.log),
            batch,
            run,
            at: origin.at,
        },
        seen,
        capture: origin.wal.capture.clone(),
        tables: origin.tables.iter().map(table).collect(),
        source: origin.server.clone(),
        models: origin.models.clone(),
    }
}

/// Whether a batch has something to say that the newest has not: rows, keys, how far a table is read, one
/// whose number of rows differs though none changed (some are gone), how far the write-ahead log is read, or a sign of life.
pub(crate) fn is_news(newest: &Extracted, batch: &Extracted) -> bool {
    batch.head.at - newest.head.at >= HEARTBEAT
        || wal::is_news(newest, batch)
        || batch.tables.iter().any(|(name, table)| {
            !table.objects.is_empty()
                || !table.gone.is_empty()
                || table.keys_sent == Some(batch.head.batch)
                || newest
                    .tables
                    .get(name)
                    .is_none_or(|known| !known.is_whole() || table.rows.is_some() && known.rows != table.rows)
        })
}

/// The transactions not below the snapshot's xmin whose rows the log holds with this batch. None are
/// listed once the 32 bits of a row's xmin may be those of an older row, frozen 2^32 transactions
/// ago, as well as those of a transaction that is open now.
fn seen_by_now<'a>(
    seen: &[u64],
    writers: impl Iterator<Item = &'a u64>,
    Bounds { xmin, xmax }: Bounds,
) -> Option<Vec<u64>> {
    if xmax >= 1 << 32 {
        return None;
    }
    let mut all: BTreeSet<u64> = seen.iter().copied().filter(|xid| *xid >= xmin).collect();
    all.extend(writers);
    (all.len() <= SEEN).then(|| all.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_stays_seen_while_the_marker_stays_below_it() {
        let bounds = Bounds { xmin: 100, xmax: 120 };
        let by_now = |seen: &[u64], writers: &[u64]| seen_by_now(seen, writers.iter(), bounds);
        assert_eq!(by_now(&[90, 105], &[110, 105]), Some(vec![105, 110]));
        assert_eq!(by_now(&[], &[]), Some(Vec::new()));
    }

    #[test]
    fn too_many_transactions_or_ambiguous_ones_are_not_listed() {
        let many: Vec<u64> = (1000..=1000 + SEEN as u64).collect();
        assert_eq!(seen_by_now(&[], many.iter(), Bounds { xmin: 1000, xmax: 1 << 31 }), None);
        assert_eq!(seen_by_now(&[], [110].iter(), Bounds { xmin: 100, xmax: 1 << 32 }), None);
    }
}
