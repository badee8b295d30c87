//! Change detection: what changed in each table since its marker.

mod scan;
pub(crate) mod wal;

use std::collections::BTreeSet;

pub(crate) use scan::scan;
pub(crate) use wal::key::Key;

use crate::source::continuity::Bounds;

/// How many transactions a manifest lists as seen. Beyond that a run that finds one of them still
/// above its marker delivers its rows again, which costs time and changes nothing.
pub(crate) const SEEN: usize = 100_000;

/// What changed in a table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    /// The rows of the table in the snapshot; while the log does not hold all of it, perhaps only those that it holds. `None`:
    /// nobody counted them.
    pub(crate) rows: Option<u64>,
    /// Those that changed.
    pub(crate) changed: u64,
    /// Whether rows may be gone.
    pub(crate) may_have_lost: bool,
    /// The transactions at or above the snapshot's xmin that wrote one of them, at most [`SEEN`] and one more.
    pub(crate) writers: BTreeSet<u64>,
    /// The keys of the rows that may have changed, if the write-ahead log names them.
    pub(crate) touched: Option<Vec<Key>>,
    /// Those of them that the snapshot does not have.
    pub(crate) gone: Vec<Key>,
    /// Whether the log named other keys than the snapshot has, so that the keys of all rows are sent.
    pub(crate) is_suspect: bool,
}

/// The transactions at or above a snapshot's xmin that wrote the rows which are copied, at most [`SEEN`] and one more.
pub(crate) struct Writers {
    bounds: Bounds,
    last: Option<u32>,
    all: BTreeSet<u64>,
}

impl Writers {
    /// None yet, of rows that a snapshot with these bounds sees.
    pub(crate) fn within(bounds: Bounds) -> Self {
        Self { bounds, last: None, all: BTreeSet::new() }
    }

    /// Notes the transaction that wrote a row. One of long ago is left out.
    pub(crate) fn add(&mut self, xid: u32) {
        if self.last == Some(xid) || self.all.len() > SEEN {
            return;
        }
        self.last = Some(xid);
        let widened = widen(xid, self.bounds.xmin);
        if widened < self.bounds.xmax {
            self.all.insert(widened);
        }
    }

    pub(crate) fn all(self) -> BTreeSet<u64> {
        self.all
    }
}

/// The 64 bits of a transaction id that is not below `xmin` and less than 2^31 above it.
fn widen(xid: u32, xmin: u64) -> u64 {
    xmin + u64::from(xid.wrapping_sub(xmin as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_id_gets_its_epoch_from_the_snapshot() {
        assert_eq!(widen(105, 100), 105);
        assert_eq!(widen(3, (7 << 32) - 2), (7 << 32) + 3);
        assert_eq!(widen(u32::MAX, (7 << 32) - 2), (7 << 32) - 1);
    }

    #[test]
    fn a_writer_is_kept_while_a_later_snapshot_may_take_it_for_new() {
        let mut writers = Writers::within(Bounds { xmin: 100, xmax: 120 });
        [99, 100, 100, 107, 2, 120, 100].into_iter().for_each(|xid| writers.add(xid));
        assert_eq!(writers.all(), [100, 107].into());
        // A row frozen by an old release has the transaction 2.
        let mut writers = Writers::within(Bounds { xmin: 3_000_000_000, xmax: 3_000_000_009 });
        [2, 3_000_000_004].into_iter().for_each(|xid| writers.add(xid));
        assert_eq!(writers.all(), [3_000_000_004].into());
    }
}
