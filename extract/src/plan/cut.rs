//! Where a batch ends that would not hold all that is unread.

use std::collections::BTreeMap;

use blackwater_shared::foreign_keys;
use blackwater_shared::pack::Pack;

use crate::source::catalogue::{Size, Table};
use crate::sql::Blocks;

/// What the log does not hold of each table: the ends of heaps.
pub(crate) type Unread = BTreeMap<String, Vec<Blocks>>;

/// What a batch brings of what is unread, and what it leaves to later ones.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) due: Unread,
    pub(crate) left: Unread,
}

impl Cut {
    /// The blocks that the batch brings of a table.
    pub(crate) fn due(&self, table: &str) -> &[Blocks] {
        self.due.get(table).map_or(&[], Vec::as_slice)
    }

    /// The blocks that it leaves.
    pub(crate) fn left(&self, table: &str) -> &[Blocks] {
        self.left.get(table).map_or(&[], Vec::as_slice)
    }

    /// Whether nothing is left.
    pub(crate) fn is_last(&self) -> bool {
        self.left.values().all(Vec::is_empty)
    }
}

/// Ends a batch after so many bytes, as the source stores them; at least one block is read. The tables come in this order.
pub(crate) fn cut(unread: &Unread, tables: &BTreeMap<String, Table>, order: &[&str], mut bytes: u64) -> Cut {
    let (mut cut, mut begun) = (Cut::default(), false);
    for name in order.iter().copied() {
        for part in unread.get(name).into_iter().flatten() {
            let size = size(&tables[name], part);
            let least = u64::from(!begun);
            let there = size.blocks.saturating_sub(part.from);
            let blocks = (bytes / size.of_block()).max(least).min(u64::from(there)) as u32;
            bytes = bytes.saturating_sub(u64::from(blocks) * size.of_block());
            begun |= blocks > 0;
            let end = (blocks < there).then_some(part.from + blocks);
            let due = Blocks { to: end, ..*part };
            if !due.is_empty() {
                cut.due.entry(name.to_owned()).or_default().push(due);
            }
            if let Some(from) = end {
                cut.left.entry(name.to_owned()).or_default().push(Blocks { from, ..*part });
            }
        }
    }
    cut
}

/// About how many bytes of a table there are in these blocks.
pub(crate) fn bytes_left(table: &Table, blocks: &[Blocks]) -> u64 {
    let bytes = |part: &Blocks| {
        let size = size(table, part);
        u64::from(size.blocks.saturating_sub(part.from)) * size.of_block()
    };
    blocks.iter().map(bytes).sum()
}

fn size(table: &Table, part: &Blocks) -> Size {
    table.sizes.get(&part.heap).copied().unwrap_or_default()
}

/// The tables, those first that others refer to, at the source or by the star tables that they drive, and small ones before large ones.
pub(crate) fn order<'a>(tables: &'a BTreeMap<String, Table>, pack: &Pack) -> Vec<&'a str> {
    let of_stars = foreign_keys::of_schema(&pack.schema);
    let refers = |name: &str, other: &str| {
        let stars = |table| pack.driven_by(table).map(|model| &model.name);
        tables[name].references.iter().any(|referred| referred == other)
            || stars(name).any(|star| {
                of_stars.get(star).is_some_and(|stars_of| stars(other).any(|other| stars_of.contains(other)))
            })
    };
    let by_size = |(name, table): (&'a String, &Table)| (table.bytes(), name.as_str());
    let mut references = BTreeMap::new();
    for one in tables.iter().map(by_size) {
        let others = tables.iter().map(by_size).filter(|other| refers(one.1, other.1));
        references.insert(one, others.collect());
    }
    foreign_keys::groups(&references).concat().into_iter().map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use blackwater_shared::model::Model;

    use super::*;

    fn table(blocks: u32, references: &[&str]) -> Table {
        Table {
            sizes: [(1, Size { blocks, bytes: u64::from(blocks) * 10_000 })].into(),
            references: references.iter().map(|name| (*name).to_owned()).collect(),
            ..Table::default()
        }
    }

    fn tables() -> BTreeMap<String, Table> {
        [("a", table(100, &["c", "a"])), ("b", table(3, &["a"])), ("c", table(20, &[]))]
            .map(|(name, table)| (name.to_owned(), table))
            .into()
    }

    fn unread() -> Unread {
        ["a", "b", "c"].map(|name| (name.to_owned(), vec![Blocks { heap: 1, from: 5, to: None }])).into()
    }

    #[test]
    fn a_batch_ends_where_it_is_full() {
        let ends = |bytes| {
            let cut = cut(&unread(), &tables(), &["c", "a", "b"], bytes);
            ["a", "b", "c"]
                .map(|name| (cut.due(name).first().map(|due| due.to), cut.left(name).first().map(|l| l.from)))
        };
        let (whole, untouched) = ((Some(None), None), (None, Some(5)));
        assert_eq!(ends(250_000), [(Some(Some(15)), Some(15)), whole, whole]);
        assert_eq!(ends(120_000), [untouched, whole, (Some(Some(17)), Some(17))]);
        assert_eq!(ends(1), [untouched, whole, (Some(Some(6)), Some(6))], "at least one block is read");
        assert_eq!(ends(u64::MAX), [whole, whole, whole]);
    }

    #[test]
    fn tables_come_after_those_that_they_refer_to_at_the_source_or_in_the_star_schema() {
        let tables: BTreeMap<_, _> = [
            ("big", table(900, &[])),
            ("sale", table(9, &[])),
            ("small", table(1, &["tiny"])),
            ("tiny", table(2, &[])),
        ]
        .map(|(name, table)| (name.to_owned(), table))
        .into();
        let pack = |schema: &str| {
            let fixed = Default::default();
            let model = |name: &str, sql: &str| (name.to_owned(), Model::parse(name, sql, &fixed).unwrap());
            let models = [model("dim_big", "SELECT id FROM big"), model("fact_sale", "SELECT id FROM sale")].into();
            Pack { hash: String::new(), schema: schema.into(), models, fixed }
        };
        assert_eq!(order(&tables, &pack("")), ["tiny", "small", "sale", "big"]);
        let refers = "CREATE TABLE fact_sale (id int, big int REFERENCES dim_big)";
        assert_eq!(order(&tables, &pack(refers)), ["tiny", "small", "big", "sale"]);
    }

    #[test]
    fn batch_after_batch_brings_every_block_once() {
        let (tables, mut unread, mut batches, mut read) = (tables(), unread(), 0, BTreeMap::new());
        while unread.values().any(|blocks| !blocks.is_empty()) {
            let cut = cut(&unread, &tables, &["c", "a", "b"], 70_000);
            for (name, due) in &cut.due {
                for part in due {
                    assert_eq!(read.insert(name.clone(), part.to.unwrap_or(u32::MAX)).unwrap_or(5), part.from);
                }
            }
            (unread, batches) = (cut.left, batches + 1);
        }
        assert!(read.values().all(|end| *end == u32::MAX));
        assert_eq!(batches, 16, "110 blocks of 10,000 bytes in batches of 7");
    }
}
