//! Rows by the transactions that wrote them.

use super::predicate::Predicate;

/// Up to so many transactions are listed, in a list that Postgres looks up by its hash. A longer one costs more to send and to
/// parse than the comparison of numbers.
const LISTED: u64 = 10_000;

/// The ids below are of no transaction; rows frozen by a release before 9.4 have 2.
const FIRST: u32 = 3;

/// A range of transactions: those from `from` on, below `to`.
#[derive(Clone, Copy)]
pub(crate) struct Range {
    pub(crate) from: u64,
    pub(crate) to: u64,
}

impl Range {
    /// The condition that one of these transactions, less those in `seen`, wrote a row, in a form that Postgres may run in
    /// parallel (`age(xid)` is not one), and that holds also where the 32 bits of the ids begin anew.
    ///
    /// `hashes` says whether the server looks up a list by its hash, as Postgres 14 and later do.
    pub(crate) fn wrote(self, alias: &str, seen: &[u64], hashes: bool) -> Predicate {
        let Self { from, to } = self;
        if to <= from {
            return Predicate::Never;
        }
        if hashes && to - from <= LISTED {
            let listed = (from..to).filter(|xid| seen.binary_search(xid).is_err()).map(|xid| xid as u32);
            let listed: Vec<_> = listed.filter(|xid| *xid >= FIRST).map(|xid| xid.to_string()).collect();
            return match listed.is_empty() {
                true => Predicate::Never,
                false => Predicate::Sql(format!("{alias}.xmin = ANY ('{{{}}}'::xid[])", listed.join(","))),
            };
        }
        let range = format!("((int8in(xidout({alias}.xmin)) - {}) & 4294967295) < {}", from as u32, to - from);
        let seen: Vec<_> = seen.iter().map(|xid| (*xid as u32).to_string()).collect();
        let seen = match seen.is_empty() {
            true => Predicate::Always,
            false => Predicate::Sql(format!("{alias}.xmin <> ALL ('{{{}}}'::xid[])", seen.join(","))),
        };
        Predicate::Sql(range).and(seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrote(from: u64, to: u64, seen: &[u64], hashes: bool) -> String {
        Range { from, to }.wrote("t", seen, hashes).to_string()
    }

    #[test]
    fn few_transactions_are_listed_less_those_that_were_seen() {
        assert_eq!(wrote(90, 94, &[91, 200], true), "t.xmin = ANY ('{90,92,93}'::xid[])");
        assert_eq!(
            wrote((1 << 32) - 2, (1 << 32) + 5, &[], true),
            "t.xmin = ANY ('{4294967294,4294967295,3,4}'::xid[])"
        );
        assert_eq!(wrote(90, 90, &[], true), "false");
        assert_eq!(wrote(90, 92, &[90, 91], true), "false");
    }

    #[test]
    fn many_transactions_are_a_range() {
        assert_eq!(wrote(90, 20_000, &[], true), "((int8in(xidout(t.xmin)) - 90) & 4294967295) < 19910");
        assert_eq!(
            wrote((1 << 32) + 7, (1 << 32) + 9, &[(1 << 32) + 8], false),
            "((((int8in(xidout(t.xmin)) - 7) & 4294967295) < 2) AND (t.xmin <> ALL ('{8}'::xid[])))"
        );
    }
}
