//! What the log says of one table.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use super::key::{Key, KeyColumns, ScanReason};
use super::pgoutput::{Relation, Tuple};
use super::touched::PeekError;

/// About what the map takes for a key beside the key itself: its value, and room that a node has to spare.
const ENTRY: usize = 16;

/// A table whose changes are wanted.
#[derive(Clone, Debug)]
pub(crate) struct WantedTable {
    /// The columns of its primary key, in order.
    pub(crate) key: Vec<String>,
    /// The number of keys above which it is scanned.
    pub(crate) max_keys: usize,
    /// The heaps of its partitions, if it has any. Changes carry the oid of the partitioned table, but the replica
    /// identity of the partition decides what the log has of an old row.
    pub(crate) heaps: BTreeSet<u32>,
}

/// What changed in a table.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TableChanges {
    /// Whether it was truncated. The keys do not include those of the rows that this removed, and the verdicts ignore it.
    pub(crate) truncated: bool,
    /// The rows that changed.
    pub(crate) changed: Changed,
}

/// Which rows of a table changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Changed {
    /// Those that have one of these keys, or had it. There is no verdict on a key that was touched only by transactions
    /// that the snapshot does not see.
    Keys(BTreeMap<Key, Option<Verdict>>),
    /// The log does not tell, so a scan has to.
    Scan(ScanReason),
}

/// Whether the snapshot should have a row with a key, by the last transaction that touched the key and that it sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The row was inserted or updated.
    Exists,
    /// The row was deleted, or has another key now.
    Gone,
}

/// A row before and after a change.
pub(super) struct Change<'a> {
    pub(super) oid: u32,
    pub(super) old: Option<&'a Tuple<'a>>,
    pub(super) new: Option<&'a Tuple<'a>>,
}

/// A wanted table while the peek is read.
#[derive(Debug)]
pub(super) struct Table {
    wanted: WantedTable,
    /// `None` before the log described it.
    columns: Option<KeyColumns>,
    /// The relations, the table or its partitions, whose changes may come without the key.
    unreadable: BTreeMap<u32, ScanReason>,
    truncated: bool,
    changed: Changed,
    bytes: usize,
}

impl Table {
    pub(super) fn new(wanted: WantedTable) -> Self {
        let changed = Changed::Keys(BTreeMap::new());
        Self { wanted, columns: None, unreadable: BTreeMap::new(), truncated: false, changed, bytes: 0 }
    }

    /// Notes what a relation looks like from here on, if it is this table with the oid `own`, or one of its partitions.
    pub(super) fn describe(&mut self, own: u32, relation: &Relation) {
        if relation.oid != own && !self.wanted.heaps.contains(&relation.oid) {
            return;
        }
        match KeyColumns::find(relation, &self.wanted.key) {
            Ok(columns) => {
                self.unreadable.remove(&relation.oid);
                if relation.oid == own {
                    self.columns = Some(columns);
                }
            }
            Err(reason) => {
                self.unreadable.insert(relation.oid, reason);
            }
        }
    }

    /// Notes the keys of a row that changed.
    pub(super) fn change(&mut self, change: &Change, is_seen: bool) -> Result<(), PeekError> {
        if matches!(self.changed, Changed::Scan(_)) {
            return Ok(());
        }
        if let Some(reason) = self.unreadable.values().next() {
            self.scan(reason.clone());
            return Ok(());
        }
        let columns = self.columns.as_ref().ok_or(PeekError::NotDescribed { oid: change.oid })?;
        let old = change.old.map(|row| columns.of(row, None)).transpose();
        let new = change.new.map(|row| columns.of(row, change.old)).transpose();
        match old.and_then(|old| Ok((old, new?))) {
            Ok((old, new)) => {
                // In this order, because an update that keeps the key may name it twice.
                self.touch(old, is_seen.then_some(Verdict::Gone));
                self.touch(new, is_seen.then_some(Verdict::Exists));
            }
            Err(reason) => self.scan(reason),
        }
        Ok(())
    }

    /// Notes a TRUNCATE.
    pub(super) fn truncate(&mut self) {
        self.truncated = true;
    }

    /// Drops the keys: the table has to be scanned.
    pub(super) fn scan(&mut self, reason: ScanReason) {
        self.changed = Changed::Scan(reason);
        self.bytes = 0;
    }

    /// The number of its keys.
    pub(super) fn key_count(&self) -> usize {
        match &self.changed {
            Changed::Keys(keys) => keys.len(),
            Changed::Scan(_) => 0,
        }
    }

    /// About how many bytes its keys take.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What changed, when the peek is over.
    pub(super) fn into_changes(self) -> TableChanges {
        TableChanges { truncated: self.truncated, changed: self.changed }
    }

    fn touch(&mut self, key: Option<Key>, verdict: Option<Verdict>) {
        let (Some(key), Changed::Keys(keys)) = (key, &mut self.changed) else {
            return;
        };
        match keys.entry(key) {
            Entry::Occupied(known) => {
                let known = known.into_mut();
                *known = verdict.or(*known);
            }
            Entry::Vacant(new) => {
                self.bytes += bytes_of(new.key());
                new.insert(verdict);
            }
        }
        let limit = self.wanted.max_keys;
        if keys.len() > limit {
            self.scan(ScanReason::TooManyKeys { limit });
        }
    }
}

/// About how many bytes a key takes in memory.
pub(super) fn bytes_of(key: &Key) -> usize {
    let texts = key.iter().map(|text| size_of::<String>() + text.len()).sum::<usize>();
    size_of::<Key>() + texts + ENTRY
}
