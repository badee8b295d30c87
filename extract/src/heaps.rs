//! A source table in a FROM clause, and the conditions that say which of its rows a batch holds.
//!
//! Postgres copies every condition on a table into the plan of each of its partitions. A condition that lists the partitions
//! would therefore cost the source the square of their number, in memory; 1,500 of them brought a server down. So a table
//! with several heaps is read in a subquery that ends with OFFSET 0, which no condition enters: each is evaluated once, on
//! what comes out of the partitions. For the same reason only the columns that a query needs come out of them.

use std::collections::{BTreeMap, BTreeSet};

use blackwater_shared::postgres::{idents, qualified};

use crate::plan::{Since, Unread};
use crate::read::Source;

/// Blocks of a heap: those from `from` on, before `to` or to the end of the heap.
#[derive(Clone, Copy)]
struct Blocks {
    heap: u32,
    from: u32,
    to: Option<u32>,
}

impl Blocks {
    fn is_empty(&self) -> bool {
        self.to == Some(self.from)
    }

    fn is_whole(&self) -> bool {
        self.from == 0 && self.to.is_none()
    }

    /// The conditions on a ctid that make it one of these blocks, whichever heap it is of.
    fn contain(&self, ctid: &str) -> String {
        let from = (self.from > 0).then(|| format!("{ctid} >= '({},0)'::tid", self.from));
        let to = self.to.map(|to| format!("{ctid} < '({to},0)'::tid"));
        from.into_iter().chain(to).collect::<Vec<_>>().join(" AND ")
    }
}

impl Source<'_> {
    /// The table for FROM, under the name `alias`, with these columns. A table with partitions or children is limited to the
    /// heaps that the manifest will name: one that is attached while this run reads comes in full with the next.
    pub(crate) fn relation<'a>(&self, alias: &str, columns: impl IntoIterator<Item = &'a str>) -> String {
        self.relation_where(alias, columns, "")
    }

    /// The same, less blocks in which no row is due.
    pub(crate) fn relation_due<'a>(&self, alias: &str, columns: impl IntoIterator<Item = &'a str>) -> String {
        let due: Vec<_> = self.blocks_due().filter(|blocks| !blocks.is_empty()).collect();
        let bounds = Blocks {
            heap: 0,
            from: due.iter().map(|blocks| blocks.from).min().unwrap_or_default(),
            to: due.iter().map(|blocks| blocks.to).collect::<Option<Vec<_>>>().and_then(|ends| ends.into_iter().max()),
        };
        let bounds = if bounds.is_whole() { String::new() } else { format!(" WHERE {}", bounds.contain("ctid")) };
        self.relation_where(alias, columns, &bounds)
    }

    fn relation_where<'a>(&self, alias: &str, columns: impl IntoIterator<Item = &'a str>, condition: &str) -> String {
        let table = self.quoted();
        if !self.table.many {
            return format!("{table} AS {alias}");
        }
        let mut columns: BTreeSet<_> = columns.into_iter().collect();
        columns.extend(["tableoid", "xmin"]);
        if self.reading.unread.iter().any(|part| part.from > 0 || part.to.is_some()) {
            columns.insert("ctid");
        }
        format!(
            "(SELECT * FROM (SELECT {} FROM {table}{condition} OFFSET 0) AS heaps WHERE tableoid = ANY ({})) AS {alias}",
            idents("", columns),
            oids(self.table.heaps.iter().map(|heap| heap.oid)),
        )
    }

    /// The condition that a row changed since the marker. COPY takes no parameters: the numbers are written out.
    pub(crate) fn changed(&self, alias: &str) -> String {
        let Some(Since { xmin, heaps }) = &self.reading.since else { return "false".into() };
        let mut condition = format!("age({alias}.xmin) BETWEEN 0 AND {}", age(*xmin));
        if !self.seen.is_empty() {
            let seen: Vec<_> = self.seen.iter().map(|xid| (*xid as u32).to_string()).collect();
            condition.push_str(&format!(" AND {alias}.xmin <> ALL ('{{{}}}'::xid[])", seen.join(",")));
        }
        if !heaps.is_empty() {
            condition.push_str(&format!(" OR {alias}.tableoid = ANY ({})", oids(heaps.iter().copied())));
        }
        condition
    }

    /// The condition that the log holds a row since an earlier batch, as it was; `None` if it holds none.
    pub(crate) fn read(&self, alias: &str) -> Option<String> {
        self.lies_in(alias, self.blocks_before(|part| Some(part.from)))
    }

    /// The condition that the log holds a row with this batch; `None` if it holds none.
    pub(crate) fn held(&self, alias: &str) -> Option<String> {
        self.lies_in(alias, self.blocks_before(|part| part.to))
    }

    /// The condition that this batch has a row because the log does not hold it; `None` if there is none.
    pub(crate) fn due(&self, alias: &str) -> Option<String> {
        self.lies_in(alias, self.blocks_due())
    }

    /// Its name in SQL.
    pub(crate) fn quoted(&self) -> String {
        qualified(self.schema, self.name)
    }

    /// The condition that a row lies in one of these blocks; `None` if there are none.
    fn lies_in(&self, alias: &str, blocks: impl Iterator<Item = Blocks>) -> Option<String> {
        let (whole, parts): (Vec<_>, Vec<_>) =
            blocks.filter(|blocks| !blocks.is_empty()).partition(|blocks| blocks.is_whole());
        if !whole.is_empty() && whole.len() == self.table.heaps.len() {
            return Some("true".into());
        }
        let whole = (!whole.is_empty())
            .then(|| format!("{alias}.tableoid = ANY ({})", oids(whole.iter().map(|blocks| blocks.heap))));
        let part = |blocks: &Blocks| {
            let of_heap =
                if self.table.many { format!("{alias}.tableoid = {} AND ", blocks.heap) } else { String::new() };
            of_heap + &blocks.contain(&format!("{alias}.ctid"))
        };
        let conditions: Vec<_> = whole.into_iter().chain(parts.iter().map(part)).collect();
        (!conditions.is_empty()).then(|| format!("({})", conditions.join(" OR ")))
    }

    fn blocks_due(&self) -> impl Iterator<Item = Blocks> {
        self.reading.unread.iter().map(|part| Blocks { heap: part.heap, from: part.from, to: part.to })
    }

    /// The blocks of each heap before the one that `end` gives for what the log does not hold of it.
    fn blocks_before(&self, end: fn(&Unread) -> Option<u32>) -> impl Iterator<Item = Blocks> {
        let unread: BTreeMap<_, _> = self.reading.unread.iter().map(|part| (part.heap, part)).collect();
        let oids = self.table.heaps.iter().map(|heap| heap.oid);
        oids.map(move |heap| Blocks { heap, from: 0, to: unread.get(&heap).copied().and_then(end) })
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
    use crate::catalogue::Table;
    use crate::limit::Limit;
    use crate::plan::Reading;

    /// A table with these heaps and without columns.
    fn table(oids: &[u32], many: bool) -> Table {
        let heap = |oid: &u32| Heap { oid: *oid, file: 0, fingerprint: String::new(), unread: None };
        Table { heaps: oids.iter().map(heap).collect(), many, ..Table::default() }
    }

    fn unread(heap: u32, from: u32, to: Option<u32>) -> Unread {
        Unread { heap, from, to }
    }

    fn source<'a>(table: &'a Table, reading: &'a Reading, seen: &'a [u64]) -> Source<'a> {
        let limit = Limit { setting: Default::default(), deadline: Default::default() };
        let (known, looked_up) = (None, false);
        Source { schema: "public", name: "item", table, reading, seen, xmin: 100, known, looked_up, limit }
    }

    /// The conditions that the log holds a row, that it holds it with this batch, and that this batch adds it.
    fn conditions(table: &Table, unread: Vec<Unread>) -> [Option<String>; 3] {
        let reading = Reading { unread, ..Reading::default() };
        let source = source(table, &reading, &[]);
        [source.read("t"), source.held("t"), source.due("t")]
    }

    fn sql(conditions: [&str; 3]) -> [Option<String>; 3] {
        conditions.map(|condition| (!condition.is_empty()).then(|| condition.to_owned()))
    }

    #[test]
    fn a_table_of_one_heap_is_read_by_its_blocks() {
        let table = table(&[5], false);
        assert_eq!(conditions(&table, vec![]), sql(["true", "true", ""]));
        assert_eq!(conditions(&table, vec![unread(5, 0, None)]), sql(["", "true", "true"]));
        assert_eq!(conditions(&table, vec![unread(5, 0, Some(0))]), sql(["", "", ""]));
        assert_eq!(
            conditions(&table, vec![unread(5, 0, Some(7))]),
            sql(["", "(t.ctid < '(7,0)'::tid)", "(t.ctid < '(7,0)'::tid)"])
        );
        assert_eq!(
            conditions(&table, vec![unread(5, 7, None)]),
            sql(["(t.ctid < '(7,0)'::tid)", "true", "(t.ctid >= '(7,0)'::tid)"])
        );
        assert_eq!(
            conditions(&table, vec![unread(5, 7, Some(9))]),
            sql([
                "(t.ctid < '(7,0)'::tid)",
                "(t.ctid < '(9,0)'::tid)",
                "(t.ctid >= '(7,0)'::tid AND t.ctid < '(9,0)'::tid)"
            ])
        );
        assert_eq!(
            source(&table, &Reading { unread: vec![unread(5, 7, None)], ..Reading::default() }, &[])
                .relation("t", ["id"]),
            "\"public\".\"item\" AS t"
        );
    }

    #[test]
    fn only_heaps_that_are_held_in_part_have_conditions_of_their_own() {
        let table = table(&[5, 6, 7, 8], true);
        assert_eq!(conditions(&table, vec![]), sql(["true", "true", ""]));
        let all = |to| [5, 6, 7, 8].map(|heap| unread(heap, 0, to)).into();
        assert_eq!(conditions(&table, all(None)), sql(["", "true", "true"]));
        assert_eq!(conditions(&table, all(Some(0))), sql(["", "", ""]));
        // One is held, one is completed, one is begun, and one is left for later.
        assert_eq!(
            conditions(&table, vec![unread(6, 3, None), unread(7, 0, Some(4)), unread(8, 0, Some(0))]),
            sql([
                "(t.tableoid = ANY ('{5}'::oid[]) OR t.tableoid = 6 AND t.ctid < '(3,0)'::tid)",
                "(t.tableoid = ANY ('{5,6}'::oid[]) OR t.tableoid = 7 AND t.ctid < '(4,0)'::tid)",
                "(t.tableoid = 6 AND t.ctid >= '(3,0)'::tid OR t.tableoid = 7 AND t.ctid < '(4,0)'::tid)",
            ])
        );
    }

    #[test]
    fn conditions_on_a_table_of_several_heaps_stay_outside_its_scans() {
        let table = table(&[5, 6], true);
        let from =
            |unread| source(&table, &Reading { unread, ..Reading::default() }, &[]).relation_due("t", ["name", "id"]);
        assert_eq!(
            from(vec![unread(5, 0, None), unread(6, 0, None)]),
            "(SELECT * FROM (SELECT \"id\", \"name\", \"tableoid\", \"xmin\" FROM \"public\".\"item\" OFFSET 0) \
             AS heaps WHERE tableoid = ANY ('{5,6}'::oid[])) AS t"
        );
        // The blocks in which a row may be due, whichever heap they are of: one condition of a fixed size.
        let inner = |unread| {
            let from = from(unread);
            from[from.find("\"item\"").unwrap()..from.find(" OFFSET").unwrap()].to_owned()
        };
        assert_eq!(inner(vec![unread(5, 7, None), unread(6, 0, Some(0))]), "\"item\" WHERE ctid >= '(7,0)'::tid");
        assert_eq!(
            inner(vec![unread(5, 7, Some(9)), unread(6, 2, Some(4))]),
            "\"item\" WHERE ctid >= '(2,0)'::tid AND ctid < '(9,0)'::tid"
        );
        assert_eq!(inner(vec![unread(5, 7, None), unread(6, 0, Some(4))]), "\"item\"");
    }

    #[test]
    fn a_row_has_changed_by_its_transaction_or_its_heap() {
        let (one, many) = (table(&[5], false), table(&[5, 6], true));
        let changed = |table, heaps: &[u32], seen| {
            let reading = Reading { since: Some(Since { xmin: 90, heaps: heaps.into() }), ..Reading::default() };
            source(table, &reading, seen).changed("t")
        };
        let age = "age(t.xmin) BETWEEN 0 AND (SELECT age('90'::xid8::xid))";
        assert_eq!(changed(&one, &[], &[]), age);
        assert_eq!(
            changed(&many, &[6], &[95, (1 << 32) + 3]),
            format!("{age} AND t.xmin <> ALL ('{{95,3}}'::xid[]) OR t.tableoid = ANY ('{{6}}'::oid[])")
        );
        assert_eq!(source(&one, &Reading::default(), &[]).changed("t"), "false");
    }
}
