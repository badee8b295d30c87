//! A source table in a FROM clause, and the conditions that say which of its rows a batch holds.
//!
//! Postgres copies every condition on a table into the plan of each of its partitions. A condition that lists the partitions
//! would therefore cost the source the square of their number, in memory; 1,500 of them brought a server down. So a table
//! with several heaps is read in a subquery that ends with OFFSET 0, which no condition enters: each is evaluated once, on
//! what comes out of the partitions. For the same reason only the columns that a query needs come out of them.

use std::collections::{BTreeMap, BTreeSet};

use blackwater_shared::postgres::{ident, idents, qualified};

use super::blocks::Blocks;
use super::keys::{KeyColumn, among};
use super::predicate::Predicate;
use super::written::Range;
use crate::changes::Key;
use crate::plan::Since;
use crate::source::catalogue::Table;
use crate::source::continuity::Bounds;

/// What of the server and its snapshot matters to the queries.
#[derive(Clone, Copy)]
pub(crate) struct Server {
    pub(crate) bounds: Bounds,
    /// Its major version.
    pub(crate) version: i32,
}

/// A source table as the queries of a batch read it.
#[derive(Clone, Copy)]
pub(crate) struct SourceTable<'a> {
    pub(crate) server: Server,
    pub(crate) schema: &'a str,
    pub(crate) name: &'a str,
    pub(crate) definition: &'a Table,
    /// What tells the rows that changed, where it is not known which; `None`: nothing does.
    pub(crate) since: Option<&'a Since>,
    /// The keys of the rows that may have changed, if they are known.
    pub(crate) touched: Option<&'a [Key]>,
    /// The transactions whose rows the log has delivered already.
    pub(crate) seen: &'a [u64],
    /// The blocks that the log did not hold before the batch.
    pub(crate) unread: &'a [Blocks],
    /// Those of them that the batch brings.
    pub(crate) due: &'a [Blocks],
    /// Whether a query that wants only these reads their heaps by themselves, and not by way of the table.
    pub(crate) by_leaves: bool,
}

impl SourceTable<'_> {
    /// The table for FROM, under the name `alias`, with these columns. A table with partitions or children is limited to the
    /// heaps that the manifest will name: one that is attached while this run reads comes in full with the next.
    pub(crate) fn relation<'a>(&self, alias: &str, columns: impl IntoIterator<Item = &'a str>) -> String {
        self.relation_where(alias, columns, "")
    }

    /// The same, less blocks in which no row is due.
    pub(crate) fn relation_due<'a>(&self, alias: &str, columns: impl IntoIterator<Item = &'a str>) -> String {
        if self.by_leaves {
            let mut columns: BTreeSet<_> = columns.into_iter().collect();
            columns.extend(["tableoid", "xmin"]);
            let columns = idents("", columns);
            let one = |blocks: &Blocks| {
                let leaf = self.definition.leaves.get(&blocks.heap).map_or("", String::as_str);
                format!("SELECT {columns} FROM ONLY {leaf} WHERE {}", blocks.contain("ctid"))
            };
            return format!("({}) AS {alias}", self.due.iter().map(one).collect::<Vec<_>>().join(" UNION ALL "));
        }
        let bounds = match Blocks::span(self.due).map(|span| span.contain("ctid")) {
            Some(Predicate::Sql(bounds)) => format!(" WHERE {bounds}"),
            _ => String::new(),
        };
        self.relation_where(alias, columns, &bounds)
    }

    /// The same for a query that finds rows by key: without OFFSET 0, so that Postgres looks in the indexes of the partitions. The
    /// condition that lists these is copied into each of their plans, so they must be few.
    pub(crate) fn relation_by_key<'a>(&self, alias: &str, columns: impl IntoIterator<Item = &'a str>) -> String {
        let table = self.quoted();
        if !self.definition.many {
            return format!("{table} AS {alias}");
        }
        let mut columns: BTreeSet<_> = columns.into_iter().collect();
        columns.extend(["tableoid", "ctid"]);
        columns.extend(self.definition.key.iter().map(String::as_str));
        format!(
            "(SELECT {} FROM {table} WHERE tableoid = ANY ({})) AS {alias}",
            idents("", columns),
            oids(self.definition.heaps.iter().map(|heap| heap.oid)),
        )
    }

    fn relation_where<'a>(&self, alias: &str, columns: impl IntoIterator<Item = &'a str>, condition: &str) -> String {
        let table = self.quoted();
        if !self.definition.many {
            return format!("{table} AS {alias}");
        }
        let mut columns: BTreeSet<_> = columns.into_iter().collect();
        columns.extend(["tableoid", "xmin"]);
        if self.touched.is_some() {
            columns.extend(self.definition.key.iter().map(String::as_str));
        }
        if self.unread.iter().chain(self.due).any(|blocks| !blocks.is_whole()) {
            columns.insert("ctid");
        }
        format!(
            "(SELECT * FROM (SELECT {} FROM {table}{condition} OFFSET 0) AS heaps WHERE tableoid = ANY ({})) AS {alias}",
            idents("", columns),
            oids(self.definition.heaps.iter().map(|heap| heap.oid)),
        )
    }

    /// The condition that a row changed since the marker. COPY takes no parameters: the numbers and keys are written out.
    pub(crate) fn changed(&self, alias: &str) -> Predicate {
        if let Some(touched) = self.touched {
            return among(&self.key(alias), touched);
        }
        let Some(Since { xmin, heaps }) = self.since else { return Predicate::Never };
        let written = Range { from: *xmin, to: self.server.bounds.xmax }.wrote(alias, self.seen, self.hashes());
        let attached = match heaps.is_empty() {
            true => Predicate::Never,
            false => Predicate::Sql(format!("{alias}.tableoid = ANY ({})", oids(heaps.iter().copied()))),
        };
        Predicate::any([written, attached])
    }

    /// The condition that a transaction wrote a row which a later snapshot may take for new.
    pub(crate) fn recent(&self, alias: &str) -> Predicate {
        let Bounds { xmin, xmax } = self.server.bounds;
        Range { from: xmin, to: xmax }.wrote(alias, &[], self.hashes())
    }

    fn hashes(&self) -> bool {
        self.server.version >= 14
    }

    /// The columns of its primary key.
    pub(crate) fn key(&self, alias: &str) -> Vec<KeyColumn> {
        let kind = |name: &String| self.definition.kind(name).unwrap_or_default().to_owned();
        let column = |name: &String| KeyColumn { name: format!("{alias}.{}", ident(name)), kind: kind(name) };
        self.definition.key.iter().map(column).collect()
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
        if self.by_leaves {
            return Predicate::Always;
        }
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

#[cfg(test)]
mod tests {
    use blackwater_shared::manifest::{Column, Heap};

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
        let server = Server { bounds: Bounds { xmin: 93, xmax: 96 }, version: 15 };
        let (schema, name, since, touched, seen) = ("public", "item", None, None, &[][..]);
        SourceTable { server, schema, name, definition, since, touched, seen, unread, due, by_leaves: false }
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
    fn heaps_that_may_be_read_by_themselves_are() {
        let mut table = table(&[5, 6], true);
        table.leaves = [(5, "s.\"five\"".to_owned()), (6, "s.\"six\"".to_owned())].into();
        let due = [blocks(5, 7, None), blocks(6, 0, None)];
        let source = SourceTable { by_leaves: true, ..source(&table, &due, &due) };
        assert_eq!(
            source.relation_due("t", ["id"]),
            "(SELECT \"id\", \"tableoid\", \"xmin\" FROM ONLY s.\"five\" WHERE ctid >= '(7,0)'::tid UNION ALL \
             SELECT \"id\", \"tableoid\", \"xmin\" FROM ONLY s.\"six\" WHERE true) AS t"
        );
        assert_eq!(source.due("t"), Predicate::Always);
    }

    #[test]
    fn a_row_has_changed_by_its_transaction_or_its_heap() {
        let (one, many) = (table(&[5], false), table(&[5, 6], true));
        let changed = |table, heaps: &[u32], seen| {
            let since = Since { xmin: 90, heaps: heaps.into() };
            SourceTable { since: Some(&since), seen, ..source(table, &[], &[]) }.changed("t").to_string()
        };
        assert_eq!(changed(&one, &[], &[]), "t.xmin = ANY ('{90,91,92,93,94,95}'::xid[])");
        assert_eq!(
            changed(&many, &[6], &[91, 95]),
            "((t.xmin = ANY ('{90,92,93,94}'::xid[])) OR (t.tableoid = ANY ('{6}'::oid[])))"
        );
        assert_eq!(source(&one, &[], &[]).changed("t"), Predicate::Never);
        assert_eq!(source(&one, &[], &[]).recent("t").to_string(), "t.xmin = ANY ('{93,94,95}'::xid[])");
    }

    #[test]
    fn a_row_whose_key_is_known_has_changed_by_its_key() {
        let mut one = table(&[5], false);
        one.key = vec!["id".into()];
        one.columns = vec![Column { name: "id".into(), kind: "uuid".into() }];
        let (since, keys) = (Since { xmin: 90, heaps: Vec::new() }, [vec!["7".to_owned()]]);
        let changed = |touched| SourceTable { since: Some(&since), touched, ..source(&one, &[], &[]) }.changed("t");
        assert_eq!(changed(Some(&keys)).to_string(), "t.\"id\" = ANY (E'{\"7\"}'::uuid[])");
        assert_eq!(changed(Some(&[])), Predicate::Never);
    }
}
