//! Which transactions of a peek the run's snapshot sees.

use std::str::FromStr;

/// The text is not a snapshot as `pg_current_snapshot()` prints it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a snapshot in the form xmin:xmax:xid,xid")]
pub(crate) struct InvalidSnapshot(String);

/// The transactions that a snapshot sees, by their 64-bit ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Visibility {
    /// Every transaction below it is over.
    pub(crate) xmin: u64,
    /// No transaction from it on is visible.
    pub(crate) xmax: u64,
    /// The top-level transactions between the two that were still running, in ascending order.
    pub(crate) running: Vec<u64>,
}

impl Visibility {
    /// Whether the snapshot sees a committed top-level transaction, given the 32 bits of its id.
    ///
    /// A peek reads on while transactions begin, so the id may also be above xmax; it is the nearest one to xmax.
    pub(crate) fn sees(&self, xid: u32) -> bool {
        let distance = xid.wrapping_sub(self.xmax as u32).cast_signed();
        let xid = self.xmax.wrapping_add_signed(distance.into());
        xid < self.xmax && self.running.binary_search(&xid).is_err()
    }
}

impl FromStr for Visibility {
    type Err = InvalidSnapshot;

    fn from_str(text: &str) -> Result<Self, InvalidSnapshot> {
        parse(text).ok_or_else(|| InvalidSnapshot(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Visibility> {
    let mut parts = text.split(':');
    let (xmin, xmax) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let running = match (parts.next()?, parts.next()) {
        ("", None) => Vec::new(),
        (list, None) => list.split(',').map(|xid| xid.parse().ok()).collect::<Option<_>>()?,
        _ => return None,
    };
    let in_order = running.is_sorted() && running.iter().all(|xid| (xmin..xmax).contains(xid));
    (xmin <= xmax && in_order).then_some(Visibility { xmin, xmax, running })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(text: &str) -> Visibility {
        text.parse().unwrap()
    }

    #[test]
    fn a_snapshot_is_read_as_postgres_prints_it() {
        assert_eq!(snapshot("100:120:100,105"), Visibility { xmin: 100, xmax: 120, running: vec![100, 105] });
        assert_eq!(snapshot("100:100:"), Visibility { xmin: 100, xmax: 100, running: Vec::new() });
        for text in
            ["", "1:2", "1:2:x", "1:2:1:", "a:2:", "2:1:", "100:120:105,100", "100:120:120", "100:120:99", "1:2:,"]
        {
            assert_eq!(text.parse::<Visibility>(), Err(InvalidSnapshot(text.to_owned())));
        }
    }

    #[test]
    fn a_transaction_is_visible_if_it_was_over_when_the_snapshot_was_taken() {
        let snapshot = snapshot("100:120:100,105");
        let seen: Vec<_> = (98..123).filter(|xid| snapshot.sees(*xid)).collect();
        let over = (98..120).filter(|xid| ![100, 105].contains(xid)).collect::<Vec<_>>();
        assert_eq!(seen, over);
    }

    #[test]
    fn a_transaction_id_belongs_to_the_epoch_nearest_to_xmax() {
        let epoch = 7_u64 << 32;
        let after_wrap = snapshot(&format!("{}:{}:{}", epoch - 10, epoch + 10, epoch - 2));
        assert!(after_wrap.sees(u32::MAX), "the last id of the epoch before");
        assert!(!after_wrap.sees(u32::MAX - 1), "running, of the epoch before");
        assert!(after_wrap.sees(9));
        assert!(!after_wrap.sees(10));
        assert!(!after_wrap.sees(1_000_000));

        let before_wrap = snapshot(&format!("{}:{}:", epoch - 10, epoch - 2));
        assert!(before_wrap.sees(u32::MAX - 2));
        assert!(!before_wrap.sees(u32::MAX), "began after the snapshot");
        assert!(!before_wrap.sees(5), "began after the snapshot, in the next epoch");

        assert!(after_wrap.sees(10_u32.wrapping_sub(i32::MAX as u32)), "as old as an id can be");
        assert!(!after_wrap.sees(10 + i32::MAX as u32), "as new as an id can be");
        assert!(!snapshot("3:10:").sees(u32::MAX), "there is no epoch before the first");
    }
}
