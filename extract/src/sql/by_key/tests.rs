use std::collections::BTreeMap;

use blackwater_shared::manifest::{Column, Heap};

use super::*;
use crate::changes::{Changes, Key};
use crate::plan::Since;
use crate::source::catalogue::Table;
use crate::source::continuity::Bounds;
use crate::sql::{Blocks, Server};

/// A source whose tables are read by a batch.
struct Source {
    tables: BTreeMap<&'static str, Table>,
    touched: BTreeMap<&'static str, Vec<Key>>,
    unread: BTreeMap<&'static str, Blocks>,
    due: BTreeMap<&'static str, Blocks>,
    changes: BTreeMap<String, Changes>,
    models: Vec<Model>,
}

impl Source {
    /// Tables of one heap with columns of numbers, the first `keys` of which are the primary key. No key was touched.
    fn new(tables: &[(&'static str, &[&str], usize)], models: &[(&str, &str)]) -> Self {
        let column = |name: &&str| Column { name: (*name).into(), kind: "integer".into() };
        let table = |columns: &[&str], keys: usize| Table {
            columns: columns.iter().map(column).collect(),
            key: columns[..keys].iter().map(|name| (*name).to_owned()).collect(),
            heaps: vec![heap(1)],
            ..Table::default()
        };
        let model = |(name, sql): &(&str, &str)| Model::parse(name, sql, &BTreeMap::new()).unwrap();
        Self {
            tables: tables.iter().map(|(name, columns, keys)| (*name, table(columns, *keys))).collect(),
            touched: tables.iter().map(|(name, ..)| (*name, Vec::new())).collect(),
            unread: BTreeMap::new(),
            due: BTreeMap::new(),
            changes: tables.iter().map(|(name, ..)| ((*name).to_owned(), Changes::default())).collect(),
            models: models.iter().map(model).collect(),
        }
    }

    /// Sales, the items that they look up by the primary key, and the shops by another unique key, with a region each.
    fn sales(more: &[(&str, &str)]) -> Self {
        let tables: &[(_, &[_], _)] = &[
            ("item", &["id", "name"], 1),
            ("region", &["id", "name"], 1),
            ("sale", &["id", "item", "shop"], 1),
            ("shop", &["id", "code", "region"], 1),
        ];
        let fact = "SELECT sale.id, item.name, region.name AS region FROM sale INNER JOIN item ON item.id = sale.item \
                    LEFT JOIN shop ON shop.code = sale.shop LEFT JOIN region ON region.id = shop.region";
        Self::new(tables, &[&[("fact_sale", fact)], more].concat())
    }

    fn touching(mut self, table: &'static str, keys: &[&[&str]]) -> Self {
        let key = |key: &&[&str]| key.iter().map(|value| (*value).to_owned()).collect();
        self.touched.insert(table, keys.iter().map(key).collect());
        self
    }

    /// Calls `with` with what selects the rows of the batch.
    fn select<T>(&self, with: impl Fn(&RowSelection<'_>) -> T) -> T {
        let server = Server { bounds: Bounds { xmin: 93, xmax: 93 }, version: 15 };
        let since = Since { xmin: 90, heaps: Vec::new() };
        let source = |(name, definition): (&&'static str, _)| {
            let touched = self.touched.get(name).map(Vec::as_slice);
            let [unread, due] =
                [&self.unread, &self.due].map(|blocks| blocks.get(name).map_or(&[][..], std::slice::from_ref));
            let (schema, since, seen) = ("s", Some(&since), &[][..]);
            (
                *name,
                SourceTable { server, schema, name, definition, since, touched, seen, unread, due, by_leaves: false },
            )
        };
        let tables = self.tables.iter().map(source).collect();
        with(&RowSelection { tables, changes: &self.changes, models: self.models.iter().collect() })
    }

    /// The queries for the keys of the driving rows of the first model.
    fn driving_keys(&self) -> Vec<String> {
        let select = &self.models[0].selects[0];
        self.select(|selection| ByKey::of(selection, select.driving()).unwrap().keys(select, 0))
    }

    /// The query for the rows of a table, if they are found by key.
    fn rows(&self, table: &str) -> Option<Query> {
        self.select(|selection| ByKey::of(selection, table).unwrap().rows())
    }

    fn again(&self, table: &str) -> Option<String> {
        self.select(|selection| ByKey::of(selection, table).unwrap().again())
    }

    fn is_found_by_key(&self, table: &str) -> bool {
        self.select(|selection| ByKey::of(selection, table).is_some())
    }
}

fn heap(oid: u32) -> Heap {
    Heap { oid, file: 0, fingerprint: String::new(), unread: None }
}

fn in_one_line(sql: &str) -> String {
    sql.split_whitespace().collect::<Vec<_>>().join(" ")
}

const CHANGED_SALE: &str = "SELECT t.\"id\" AS \"blackwater:0\" FROM \"s\".\"sale\" AS t WHERE (t.\"id\") IN (SELECT * FROM \
     unnest(E'{\"1\",\"2\"}'::integer[]))";

#[test]
fn a_row_that_changed_comes_by_its_own_key() {
    let source = Source::sales(&[]).touching("sale", &[&["1"], &["2"]]);
    assert_eq!(source.driving_keys(), [CHANGED_SALE]);
}

#[test]
fn a_row_comes_by_the_column_that_refers_to_a_primary_key() {
    let source = Source::sales(&[]).touching("item", &[&["7"]]);
    assert_eq!(
        source.driving_keys(),
        [
            "SELECT t.\"id\" AS \"blackwater:0\" FROM \"s\".\"sale\" AS t WHERE ((t.\"item\" IS NOT NULL) AND ((t.\"item\") IN \
          (SELECT * FROM unnest(E'{\"7\"}'::integer[]))))"
        ]
    );
}

#[test]
fn a_row_comes_by_another_unique_key_or_if_it_matches_nothing() {
    let source = Source::sales(&[]).touching("shop", &[&["7"]]);
    let joined = "SELECT t.\"id\" AS \"blackwater:0\" FROM \"s\".\"sale\" AS t LEFT JOIN \"s\".\"shop\" AS l2 ON l2.\"code\" = \
                  t.\"shop\" WHERE";
    assert_eq!(
        source.driving_keys(),
        [
            format!(
                "{joined} ((l2.\"code\" IS NOT NULL) AND ((l2.\"id\") IN (SELECT * FROM unnest(E'{{\"7\"}}'::integer[]))))"
            ),
            format!("{joined} l2.\"code\" IS NULL AND t.\"shop\" IS NOT NULL"),
        ]
    );
}

#[test]
fn a_row_comes_by_a_chain_of_joins() {
    let source = Source::sales(&[]).touching("region", &[&["7"]]);
    assert_eq!(
        source.driving_keys(),
        [
            "SELECT t.\"id\" AS \"blackwater:0\" FROM \"s\".\"sale\" AS t LEFT JOIN \"s\".\"shop\" AS l2 ON l2.\"code\" = t.\"shop\" \
          WHERE ((l2.\"region\" IS NOT NULL) AND ((l2.\"region\") IN (SELECT * FROM unnest(E'{\"7\"}'::integer[]))))"
        ]
    );
}

#[test]
fn a_lookup_table_that_lost_rows_without_a_name_sends_what_matches_nothing() {
    let mut source = Source::sales(&[]).touching("item", &[&["7"]]);
    source.changes.get_mut("item").unwrap().may_have_lost = true;
    let keys = source.driving_keys();
    assert_eq!(keys.len(), 2);
    assert!(keys[1].ends_with("AS l1 ON l1.\"id\" = t.\"item\" WHERE l1.\"id\" IS NULL AND t.\"item\" IS NOT NULL"));
}

#[test]
fn keys_of_several_columns_are_compared_in_their_order() {
    let tables: &[(_, &[_], _)] = &[("line", &["sale", "no", "qty"], 2), ("note", &["id", "no", "sale"], 1)];
    let select = "SELECT note.id, line.qty FROM note LEFT JOIN line ON line.no = note.no AND line.sale = note.sale";
    let source = Source::new(tables, &[("fact_note", select)]).touching("line", &[&["7", "1"], &["8", "2"]]);
    assert_eq!(
        source.driving_keys(),
        [
            "SELECT t.\"id\" AS \"blackwater:0\" FROM \"s\".\"note\" AS t WHERE ((t.\"no\" IS NOT NULL AND t.\"sale\" IS NOT NULL) AND \
          ((t.\"sale\", t.\"no\") IN (SELECT * FROM unnest(E'{\"7\",\"8\"}'::integer[], E'{\"1\",\"2\"}'::integer[]))))"
        ]
    );
    let sql = source.rows("line").unwrap().sql;
    assert!(sql.contains("l1.\"sale\" AS \"blackwater:0\", l1.\"no\" AS \"blackwater:1\""), "{sql}");
    assert!(sql.contains("GROUP BY \"blackwater:0\", \"blackwater:1\""), "{sql}");
    assert!(sql.ends_with("ON t.\"sale\" = d.\"blackwater:0\" AND t.\"no\" = d.\"blackwater:1\""), "{sql}");
}

#[test]
fn rows_are_marked_for_each_model_that_they_drive() {
    let small = [("fact_small", "SELECT id, item FROM sale UNION SELECT id, shop FROM sale")];
    let source = Source::sales(&small).touching("sale", &[&["1"], &["2"]]);
    let query = source.rows("sale").unwrap();
    assert_eq!(query.names, ["id", "item", "shop", "drives:fact_sale", "drives:fact_small"]);
    let letter = |number| format!("CASE WHEN bool_or(\"blackwater:model\" = {number}) THEN 't' ELSE 'f' END");
    let keys = |number| format!("SELECT *, {number} AS \"blackwater:model\" FROM ({CHANGED_SALE}) AS d");
    assert_eq!(
        in_one_line(&query.sql),
        format!(
            "SELECT NULL AS \"blackwater:writer\", t.\"id\", t.\"item\", t.\"shop\", d.\"blackwater:marks\" FROM ( SELECT \
             \"blackwater:0\", {} || {} AS \"blackwater:marks\" FROM ({} UNION ALL {}) AS d GROUP BY \"blackwater:0\" ) AS d JOIN \
             \"s\".\"sale\" AS t ON t.\"id\" = d.\"blackwater:0\"",
            letter(0),
            letter(1),
            keys(0),
            keys(1),
        )
    );
    assert_eq!(source.again("sale"), Some(format!("SELECT count(*) FROM ({CHANGED_SALE}) AS d")));
}

#[test]
fn looked_up_rows_come_with_the_rows_that_refer_to_them() {
    let source = Source::sales(&[]).touching("sale", &[&["1"], &["2"]]);
    let query = source.rows("region").unwrap();
    assert_eq!(query.names, ["id", "name"]);
    assert_eq!(
        in_one_line(&query.sql),
        "SELECT NULL AS \"blackwater:writer\", t.\"id\", t.\"name\", d.\"blackwater:marks\" FROM ( SELECT \"blackwater:0\", '' AS \
         \"blackwater:marks\" FROM (SELECT *, -1 AS \"blackwater:model\" FROM (SELECT l3.\"id\" AS \"blackwater:0\" FROM \
         \"s\".\"sale\" AS t LEFT JOIN \"s\".\"shop\" AS l2 ON l2.\"code\" = t.\"shop\" LEFT JOIN \"s\".\"region\" AS l3 ON \
         l3.\"id\" = l2.\"region\" WHERE ((l3.\"id\" IS NOT NULL) AND ((t.\"id\") IN (SELECT * FROM \
         unnest(E'{\"1\",\"2\"}'::integer[]))))) AS d) AS d GROUP BY \"blackwater:0\" ) AS d JOIN \"s\".\"region\" AS t ON \
         t.\"id\" = d.\"blackwater:0\""
    );
    assert_eq!(source.again("region"), None);
}

#[test]
fn there_is_no_query_where_nothing_changed() {
    let mut source = Source::sales(&[]);
    // Nor is there one where a scan found nothing.
    source.touched.remove("shop");
    for table in ["item", "region", "sale", "shop"] {
        assert!(source.rows(table).is_none());
        assert!(source.again(table).is_none());
    }
}

#[test]
fn rows_that_the_log_has_not_got_yet_come_by_their_own_key_alone() {
    let mut source = Source::sales(&[]).touching("sale", &[&["1"], &["2"]]).touching("item", &[&["7"]]);
    source.unread.insert("sale", Blocks { heap: 1, from: 7, to: None });
    let keys = source.driving_keys();
    assert_eq!(keys[0], CHANGED_SALE);
    assert!(keys[1].contains("WHERE (((t.ctid < '(7,0)'::tid)) AND ("), "{}", keys[1]);
    source.unread.insert("sale", Blocks::all(1));
    assert_eq!(source.driving_keys(), [CHANGED_SALE]);
}

#[test]
fn partitions_are_read_through_their_indexes() {
    let mut source = Source::sales(&[]).touching("region", &[&["7"]]);
    let shop = source.tables.get_mut("shop").unwrap();
    (shop.heaps, shop.many) = (vec![heap(5), heap(6)], true);
    assert_eq!(
        source.driving_keys(),
        [
            "SELECT t.\"id\" AS \"blackwater:0\" FROM \"s\".\"sale\" AS t LEFT JOIN (SELECT \"code\", \"ctid\", \"id\", \"region\", \
          \"tableoid\" FROM \"s\".\"shop\" WHERE tableoid = ANY ('{5,6}'::oid[])) AS l2 ON l2.\"code\" = t.\"shop\" WHERE \
          ((l2.\"region\" IS NOT NULL) AND ((l2.\"region\") IN (SELECT * FROM unnest(E'{\"7\"}'::integer[]))))"
        ]
    );
    let sql = in_one_line(&source.touching("sale", &[&["1"]]).rows("shop").unwrap().sql);
    let relation = "(SELECT \"code\", \"ctid\", \"id\", \"region\", \"tableoid\" FROM \"s\".\"shop\" WHERE tableoid = ANY \
                    ('{5,6}'::oid[])) AS t";
    let joined =
        format!("CROSS JOIN LATERAL (SELECT * FROM {relation} WHERE t.\"id\" = d.\"blackwater:0\" OFFSET 0) AS t");
    assert!(sql.ends_with(&joined), "{sql}");
}

#[test]
fn what_cannot_be_found_by_key_is_found_by_a_scan() {
    let falls_back = |table: &str, change: &dyn Fn(&mut Source)| {
        let mut source = Source::sales(&[]).touching("item", &[&["7"]]);
        assert!(source.is_found_by_key(table));
        change(&mut source);
        !source.is_found_by_key(table)
    };
    let scanned = |source: &mut Source| {
        source.touched.remove("shop");
        source.changes.get_mut("shop").unwrap().changed = 1;
    };
    assert!(falls_back("sale", &scanned));
    assert!(falls_back("region", &scanned));
    let due = |source: &mut Source| {
        source.due.insert("sale", Blocks::all(1));
    };
    assert!(falls_back("sale", &due));
    assert!(falls_back("item", &due));
    let has_no_key = |source: &mut Source| source.tables.get_mut("sale").unwrap().key.clear();
    assert!(falls_back("sale", &has_no_key));
    assert!(falls_back("item", &has_no_key));
    assert!(falls_back("item", &|source| source.tables.get_mut("item").unwrap().key = vec!["excluded".into()]));
    assert!(falls_back("sale", &|source| source.tables.get_mut("sale").unwrap().inherited = true));
    assert!(falls_back("sale", &|source| source.tables.get_mut("shop").unwrap().heaps = (1..=501).map(heap).collect()));
}

#[test]
fn a_scan_finds_the_same_driving_rows() {
    let mut source = Source::sales(&[]).touching("item", &[&["7"]]);
    let scan = |source: &Source| source.select(|selection| in_one_line(&selection.rows_by_scan("sale").unwrap().sql));
    let sql = scan(&source);
    // Not those that match no item: an item that is gone has a key that changed.
    let condition = "CASE WHEN ((t.\"item\" IS NOT NULL) AND (t.\"item\" = ANY (E'{\"7\"}'::integer[]))) THEN 't'";
    assert!(sql.contains(condition), "{sql}");
    assert!(sql.contains("FROM \"s\".\"sale\" AS t WHERE true OFFSET 0"), "{sql}");
    // Rows that come again may lie anywhere, also where nothing is due.
    let blocks = Blocks { heap: 1, from: 7, to: None };
    source.unread.insert("sale", blocks);
    source.due.insert("sale", blocks);
    assert!(scan(&source).contains("FROM \"s\".\"sale\" AS t WHERE true OFFSET 0"), "{sql}");
}
