//! A source table in a FROM clause, and the conditions that say which of its rows a batch holds.
//!
//! Postgres copies every condition on a table into the plan of each of its partitions. A condition that lists the partitions
//! would therefore cost the source the square of their number, in memory; 1,500 of them brought a server down. So a table
//! with several heaps is read in a subquery that ends with OFFSET 0, which no condition enters: each is evaluated once, on
//! what comes out of the partitions. For the same reason only the columns that a query needs come out of them.

use std::collections::{BTreeMap, BTreeSet};

use blackwater_shared::postgres::{idents, qualified};

use super::blocks::Blocks;
use super::predicate::Predicate;
use crate::plan::Since;
use crate::source::catalogue::Table;

/// A source table as the queries of a batch read it.
#[derive(Clone, Copy)]
pub(crate) struct SourceTable<'a> {
    pub(crate) schema: &'a str,
    pub(crate) name: &'a str,
    pub(crate) definition: &'a Table,
    /// What tells the rows that changed; `None`: nothing does.
    pub(crate) since: Option<&'a Since>,
    /// The transactions whose rows the log has delivered already.
    pub(crate) seen: &'a [u64],
    /// The blocks that the log did not hold before the batch.
    pub(crate) unread: &'a [Blocks],
    /// Those of them that the batch brings.
    pub(crate) due: &'a [Blocks],
}

impl SourceTable<'_> {
    /// The table for FROM, under the name `alias`, with these columns. A table with partitions or children is limited to the
    /// heaps that the manifest will name: one that is attached while this run reads comes in full with the next.
    pub(crate) fn relation<'a>(&self, alias: &str, columns: impl IntoIterator<Item = &'a str>) -> String {
        self.relation_where(alias, columns, "")
    }

    /// The same, less blocks in which no row is due.
    pub(crate) fn relation_due<'a>(&self, alias: &str, columns: impl IntoIterator<Item = &'a str>) -> String {
        let bounds = match Blocks::span(self.due).map(|span| span.contain("ctid")) {
            Some(Predicate::Sql(bounds)) => format!(" WHERE {bounds}"),
            _ => String::new(),
        };
        self.relation_where(alias, columns, &bounds)
    }

    fn relation_where<'a>(&self, alias: &str, columns: impl IntoIterator<Item = &'a str>, condition: &str) -> String {
        let table = self.quoted();
        if !self.definition.many {
            return format!("{table} AS {alias}");
        }
        let mut columns: BTreeSet<_> = columns.into_iter().collect();
        columns.extend(["tableoid", "xmin"]);
        if self.unread.iter().chain(self.due).any(|blocks| !blocks.is_whole()) {
            columns.insert("ctid");
        }
        format!(
            "(SELECT * FROM (SELECT {} FROM {table}{condition} OFFSET 0) AS heaps WHERE tableoid = ANY ({})) AS {alias}",
            idents("", columns),
            oids(self.definition.heaps.iter().map(|heap| heap.oid)),
        )
    }

    /// The condition that a row changed since the marker. COPY takes no parameters: the numbers are written out.
    pub(crate) fn changed(&self, alias: &str) -> Predicate {
        let Some(Since { xmin, heaps }) = self.since else { return Predicate::Never };
        let mut condition = format!("age({alias}.xmin) BETWEEN 0 AND {}", age(*xmin));
        if !self.seen.is_empty() {
            let seen: Vec<_> = self.seen.iter().map(|xid| (*xid as u32).to_string()).collect();
            condition.push_str(&format!(" AND {alias}.xmin <> ALL ('{{{}}}'::xid[])", seen.join(",")));
        }
        if !heaps.is_empty() {
            condition.push_str(&format!(" OR {alias}.tableoid = ANY ({})", oids(heaps.iter().copied())));
        }
        Predicate::Sql(condition)
    }

    /// The condition that the log held a row before the batch, as it was.
    pub(crate) fn read(&self, alias: &str) -> Predicate {
        let unread: BTreeMap<_, _> = self.unread.iter().map(|blocks| (blocks.heap, blocks.from)).collect();
        let heaps = self.definition.heaps.iter().map(|heap| heap.oid);
        let read: Vec<_> = heaps.map(|heap| Blocks { heap, from: 0, to: unread.get(&heap).copied() }).collect();
        self.lies_in(alias, &read)
    }

    /// The condition that the batch brings a row because the log did not hold it.
    pub(crate) fn due(&self, alias: &str) -> Predicate {
        self.lies_in(alias, self.due)
    }

    /// Its name in SQL.
    pub(crate) fn quoted(&self) -> String {
        qualified(self.schema, self.name)
    }

    /// The condition that a row lies in one of these blocks.
    fn lies_in(&self, alias: &str, blocks: &[Blocks]) -> Predicate {
        let filled = blocks.iter().filter(|blocks| !blocks.is_empty());
        let (whole, parts): (Vec<&Blocks>, Vec<&Blocks>) = filled.partition(|blocks| blocks.is_whole());
        if !whole.is_empty() && whole.len() == self.definition.heaps.len() {
            return Predicate::Always;
        }
        let whole = (!whole.is_empty())
            .then(|| format!("{alias}.tableoid = ANY ({})", oids(whole.iter().map(|blocks| blocks.heap))));
        let part = |blocks: &&Blocks| {
            let of_heap =
                if self.definition.many { format!("{alias}.tableoid = {} AND ", blocks.heap) } else { String::new() };
            of_heap + &blocks.contain(&format!("{alias}.ctid")).to_string()
        };
        let conditions: Vec<_> = whole.into_iter().chain(parts.iter().map(part)).collect();
        match conditions.is_empty() {
            true => Predicate::Never,
            false => Predicate::Sql(format!("({})", conditions.join(" OR "))),
        }
    }
}

/// A constant array of oids.
fn oids(oids: impl Iterator<Item = u32>) -> String {
    let oids: Vec<_> = oids.map(|oid| oid.to_string()).collect();
    format!("'{{{}}}'::oid[]", oids.join(","))
}

/// How many transactions ago `xid` was, computed once. The cast from `xid8` drops the epoch.
pub(crate) fn age(xid: u64) -> String {
    format!("(SELECT age('{xid}'::xid8::xid))")
}

#[cfg(test)]
mod tests {
    use blackwater_shared::manifest::Heap;

    use super::*;

    /// A table with these heaps and without columns.
    fn table(oids: &[u32], many: bool) -> Table {
        let heap = |oid: &u32| Heap { oid: *oid, file: 0, fingerprint: String::new(), unread: None };
        Table { heaps: oids.iter().map(heap).collect(), many, ..Table::default() }
    }

    fn blocks(heap: u32, from: u32, to: Option<u32>) -> Blocks {
        Blocks { heap, from, to }
    }

    fn source<'a>(definition: &'a Table, unread: &'a [Blocks], due: &'a [Blocks]) -> SourceTable<'a> {
        SourceTable { schema: "public", name: "item", definition, since: None, seen: &[], unread, due }
    }

    /// The conditions that the log holds a row, and that a batch with these blocks adds it.
    fn conditions(table: &Table, due: &[Blocks]) -> [String; 2] {
        let unread: Vec<_> = due.iter().map(|blocks| Blocks { to: None, ..*blocks }).collect();
        let source = source(table, &unread, due);
        [source.read("t").to_string(), source.due("t").to_string()]
    }

    #[test]
    fn a_table_of_one_heap_is_read_by_its_blocks() {
        let table = table(&[5], false);
        assert_eq!(conditions(&table, &[]), ["true", "false"]);
        assert_eq!(conditions(&table, &[blocks(5, 0, None)]), ["false", "true"]);
        assert_eq!(conditions(&table, &[blocks(5, 0, Some(0))]), ["false", "false"]);
        assert_eq!(conditions(&table, &[blocks(5, 0, Some(7))]), ["false", "(t.ctid < '(7,0)'::tid)"]);
        assert_eq!(conditions(&table, &[blocks(5, 7, None)]), ["(t.ctid < '(7,0)'::tid)", "(t.ctid >= '(7,0)'::tid)"]);
        assert_eq!(
            conditions(&table, &[blocks(5, 7, Some(9))]),
            ["(t.ctid < '(7,0)'::tid)", "(t.ctid >= '(7,0)'::tid AND t.ctid < '(9,0)'::tid)"]
        );
        assert_eq!(source(&table, &[blocks(5, 7, None)], &[]).relation("t", ["id"]), "\"public\".\"item\" AS t");
    }

    #[test]
    fn only_heaps_that_are_held_in_part_have_conditions_of_their_own() {
        let table = table(&[5, 6, 7, 8], true);
        assert_eq!(conditions(&table, &[]), ["true", "false"]);
        let all = |to| [5, 6, 7, 8].map(|heap| blocks(heap, 0, to));
        assert_eq!(conditions(&table, &all(None)), ["false", "true"]);
        assert_eq!(conditions(&table, &all(Some(0))), ["false", "false"]);
        // One is held, one is completed, one is begun, and one is left for later.
        assert_eq!(
            conditions(&table, &[blocks(6, 3, None), blocks(7, 0, Some(4)), blocks(8, 0, Some(0))]),
            [
                "(t.tableoid = ANY ('{5}'::oid[]) OR t.tableoid = 6 AND t.ctid < '(3,0)'::tid)",
                "(t.tableoid = 6 AND t.ctid >= '(3,0)'::tid OR t.tableoid = 7 AND t.ctid < '(4,0)'::tid)",
            ]
        );
    }

    #[test]
    fn conditions_on_a_table_of_several_heaps_stay_outside_its_scans() {
        let table = table(&[5, 6], true);
        let from = |due: &[Blocks]| source(&table, due, due).relation_due("t", ["name", "id"]);
        assert_eq!(
            from(&[blocks(5, 0, None), blocks(6, 0, None)]),
            "(SELECT * FROM (SELECT \"id\", \"name\", \"tableoid\", \"xmin\" FROM \"public\".\"item\" OFFSET 0) \
             AS heaps WHERE tableoid = ANY ('{5,6}'::oid[])) AS t"
        );
        // The blocks in which a row may be due, whichever heap they are of: one condition of a fixed size.
        let inner = |due: &[Blocks]| {
            let from = from(due);
            from[from.find("\"item\"").unwrap()..from.find(" OFFSET").unwrap()].to_owned()
        };
        assert_eq!(inner(&[blocks(5, 7, None), blocks(6, 0, Some(0))]), "\"item\" WHERE ctid >= '(7,0)'::tid");
        assert_eq!(
            inner(&[blocks(5, 7, Some(9)), blocks(6, 2, Some(4))]),
            "\"item\" WHERE ctid >= '(2,0)'::tid AND ctid < '(9,0)'::tid"
        );
        assert_eq!(inner(&[blocks(5, 7, None), blocks(6, 0, Some(4))]), "\"item\"");
    }

    #[test]
    fn a_row_has_changed_by_its_transaction_or_its_heap() {
        let (one, many) = (table(&[5], false), table(&[5, 6], true));
        let changed = |table, heaps: &[u32], seen| {
            let since = Since { xmin: 90, heaps: heaps.into() };
            SourceTable { since: Some(&since), seen, ..source(table, &[], &[]) }.changed("t").to_string()
        };
        let age = "age(t.xmin) BETWEEN 0 AND (SELECT age('90'::xid8::xid))";
        assert_eq!(changed(&one, &[], &[]), age);
        assert_eq!(
            changed(&many, &[6], &[95, (1 << 32) + 3]),
            format!("{age} AND t.xmin <> ALL ('{{95,3}}'::xid[]) OR t.tableoid = ANY ('{{6}}'::oid[])")
        );
        assert_eq!(source(&one, &[], &[]).changed("t"), Predicate::Never);
    }
}
