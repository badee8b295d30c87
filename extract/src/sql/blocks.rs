//! Ranges of a heap's blocks: what the log holds of a table, and what a batch adds, is counted in them.

use super::predicate::Predicate;

/// Blocks of a heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blocks {
    /// The heap's oid.
    pub(crate) heap: u32,
    /// The first one.
    pub(crate) from: u32,
    /// The one before which they end; `None` if they end with the heap.
    pub(crate) to: Option<u32>,
}

impl Blocks {
    /// All blocks of a heap.
    pub(crate) fn all(heap: u32) -> Self {
        Self { heap, from: 0, to: None }
    }

    pub(crate) fn is_empty(self) -> bool {
        self.to == Some(self.from)
    }

    pub(crate) fn is_whole(self) -> bool {
        self.from == 0 && self.to.is_none()
    }

    /// The condition that a ctid is in one of these blocks, whichever heap it is of.
    pub(crate) fn contain(self, ctid: &str) -> Predicate {
        let from = (self.from > 0).then(|| format!("{ctid} >= '({},0)'::tid", self.from));
        let to = self.to.map(|to| format!("{ctid} < '({to},0)'::tid"));
        let bounds: Vec<_> = from.into_iter().chain(to).collect();
        match bounds.is_empty() {
            true => Predicate::Always,
            false => Predicate::Sql(bounds.join(" AND ")),
        }
    }

    /// The smallest range that contains several, of any heap; `None` if there are no blocks in them.
    pub(crate) fn span(all: &[Self]) -> Option<Self> {
        let filled = || all.iter().filter(|blocks| !blocks.is_empty());
        let from = filled().map(|blocks| blocks.from).min()?;
        let to = filled().map(|blocks| blocks.to).collect::<Option<Vec<_>>>().and_then(|ends| ends.into_iter().max());
        Some(Self { heap: 0, from, to })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(from: u32, to: Option<u32>) -> Blocks {
        Blocks { heap: 5, from, to }
    }

    #[test]
    fn a_range_says_where_it_begins_and_ends_if_it_does() {
        assert_eq!(blocks(0, None).contain("ctid"), Predicate::Always);
        assert_eq!(blocks(7, None).contain("t.ctid"), Predicate::Sql("t.ctid >= '(7,0)'::tid".into()));
        let both = "t.ctid >= '(7,0)'::tid AND t.ctid < '(9,0)'::tid";
        assert_eq!(blocks(7, Some(9)).contain("t.ctid"), Predicate::Sql(both.into()));
    }

    #[test]
    fn a_span_leaves_out_ranges_without_blocks() {
        let span = |all: &[Blocks]| Blocks::span(all).map(|blocks| (blocks.from, blocks.to));
        assert_eq!(span(&[blocks(7, None), blocks(0, Some(0))]), Some((7, None)));
        assert_eq!(span(&[blocks(7, Some(9)), blocks(2, Some(4))]), Some((2, Some(9))));
        assert_eq!(span(&[blocks(7, None), blocks(2, Some(4))]), Some((2, None)));
        assert_eq!(span(&[blocks(3, Some(3))]), None);
    }
}
