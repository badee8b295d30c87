use std::collections::BTreeSet;

use super::super::copy_rows::CopyRows;
use super::super::encode::{self, described};
use super::super::key::ScanReason;
use super::super::pgoutput::{Old, ReplicaIdentity, Tuple, Value};
use super::super::table::{Changed, Verdict, bytes_of};
use super::*;

const T: u32 = 16384;
const W: u64 = 1000;
const EXISTS: Option<Verdict> = Some(Verdict::Exists);
const GONE: Option<Verdict> = Some(Verdict::Gone);
/// Runs from xid 100 on; 105 had not ended.
const SNAPSHOT: &str = "100:120:105";

fn wanted(key: &[&str]) -> WantedTable {
    WantedTable { key: key.iter().map(|name| (*name).to_owned()).collect(), max_keys: 3, heaps: BTreeSet::new() }
}

fn collector(max_bytes: usize, tables: impl IntoIterator<Item = (u32, WantedTable)>) -> Collector {
    let visibility = SNAPSHOT.parse().unwrap();
    let window = Window { position: W, visibility, token: token(Uuid::nil(), 7), max_bytes };
    Collector::new(window, tables.into_iter().collect())
}

/// The table `t (id, body)` with the key `id`.
fn of_t() -> Collector {
    collector(10_000, [(T, wanted(&["id"]))])
}

/// A transaction whose commit record takes 10 bytes.
fn transaction(xid: u32, end: u64, messages: &[Vec<u8>]) -> Vec<(u32, Vec<u8>)> {
    let mut all = vec![encode::begin(end - 10, xid)];
    all.extend_from_slice(messages);
    all.push(encode::commit(end - 10, end));
    all.into_iter().map(|data| (xid, data)).collect()
}

fn take(collector: &mut Collector, rows: &[(u32, Vec<u8>)]) -> Result<(), PeekError> {
    rows.iter().try_for_each(|(xid, data)| collector.take(*xid, data))
}

fn peek(mut collector: Collector, transactions: &[Vec<(u32, Vec<u8>)>]) -> Touched {
    take(&mut collector, &transactions.concat()).unwrap();
    collector.finish(9000).unwrap()
}

fn describe(identity: ReplicaIdentity) -> Vec<u8> {
    let columns = if identity == ReplicaIdentity::Full { ["id*", "body*"] } else { ["id*", "body"] };
    encode::relation(&described(T, identity, &columns))
}

fn by_key() -> Vec<u8> {
    describe(ReplicaIdentity::Default)
}

fn row(id: &str) -> Tuple<'_> {
    vec![Value::Text(id.as_bytes()), Value::Text(b"body")]
}

fn insert(id: &str) -> Vec<u8> {
    encode::insert(T, &row(id))
}

fn old_key(id: &str) -> Old<'_> {
    Old::Key(vec![Value::Text(id.as_bytes()), Value::Null])
}

fn delete(id: &str) -> Vec<u8> {
    encode::delete(T, &old_key(id))
}

fn rekey(from: &str, to: &str) -> Vec<u8> {
    encode::update(T, Some(&old_key(from)), &row(to))
}

fn keys(expected: &[(&str, Option<Verdict>)]) -> Changed {
    Changed::Keys(expected.iter().map(|(id, verdict)| (vec![(*id).to_owned()], *verdict)).collect())
}

/// What becomes of `t` by the messages of one transaction that the snapshot sees.
fn changed_by(messages: &[Vec<u8>]) -> Changed {
    peek(of_t(), &[transaction(101, 1100, messages)]).tables.remove(&T).unwrap().changed
}

fn scanned_by(messages: &[Vec<u8>]) -> String {
    match changed_by(messages) {
        Changed::Scan(reason) => reason.to_string(),
        Changed::Keys(keys) => panic!("not scanned: {keys:?}"),
    }
}

fn refused(rows: &[(u32, Vec<u8>)]) -> PeekError {
    let mut collector = of_t();
    match take(&mut collector, rows) {
        Ok(()) => collector.finish(9000).unwrap_err(),
        Err(error) => error,
    }
}

#[test]
fn old_and_new_keys_of_every_change_are_touched() {
    assert_eq!(changed_by(&[by_key(), insert("1")]), keys(&[("1", EXISTS)]));
    assert_eq!(changed_by(&[by_key(), encode::update(T, None, &row("1"))]), keys(&[("1", EXISTS)]));
    assert_eq!(changed_by(&[by_key(), rekey("1", "2")]), keys(&[("1", GONE), ("2", EXISTS)]));
    assert_eq!(changed_by(&[by_key(), delete("1")]), keys(&[("1", GONE)]));
    let old = Old::Row(row("1"));
    let full = describe(ReplicaIdentity::Full);
    assert_eq!(changed_by(&[full.clone(), encode::update(T, Some(&old), &row("1"))]), keys(&[("1", EXISTS)]));
    assert_eq!(changed_by(&[full, encode::delete(T, &old)]), keys(&[("1", GONE)]));
}

#[test]
fn the_last_change_of_a_key_that_the_snapshot_sees_is_the_verdict() {
    let chain = [by_key(), delete("1"), insert("1"), rekey("1", "2"), rekey("2", "3")];
    assert_eq!(changed_by(&chain), keys(&[("1", GONE), ("2", GONE), ("3", EXISTS)]));
    let touched = peek(
        of_t(),
        &[
            transaction(101, 1100, &[by_key(), insert("1"), insert("2")]),
            transaction(105, 1200, &[delete("1"), insert("3")]),
            transaction(102, 1300, &[delete("2")]),
        ],
    );
    let expected = keys(&[("1", EXISTS), ("2", GONE), ("3", None)]);
    assert_eq!(touched.tables[&T].changed, expected, "transaction 105 is not seen, but its keys are touched");
}

#[test]
fn a_key_stored_out_of_line_is_taken_from_the_old_row() {
    let new = [Value::Unchanged, Value::Text(b"new")];
    assert_eq!(changed_by(&[by_key(), encode::update(T, Some(&old_key("1")), &new)]), keys(&[("1", EXISTS)]));
    assert!(scanned_by(&[by_key(), encode::update(T, None, &new)]).contains("does not have the value of column id"));
    let unknown = Old::Key(vec![Value::Null, Value::Null]);
    assert!(scanned_by(&[by_key(), encode::delete(T, &unknown)]).contains("does not have the value of column id"));
}

#[test]
fn transactions_of_the_newest_batch_do_not_count() {
    let message = encode::message(true, TOKEN_PREFIX, &token(Uuid::nil(), 7));
    let before = transaction(99, W, &[by_key(), insert("1"), encode::truncate(&[T]), message]);
    let touched = peek(of_t(), &[before, transaction(101, W + 10, &[insert("2")])]);
    let changes = TableChanges { truncated: false, changed: keys(&[("2", EXISTS)]) };
    let tables = [(T, changes)].into();
    assert_eq!(touched, Touched { tables, settled: 9000, token_seen: false, transactions: 1 });
}

#[test]
fn a_transaction_of_the_newest_batch_cannot_make_a_table_be_scanned() {
    let many: Vec<_> = [by_key()].into_iter().chain((0..9).map(|id| insert(&id.to_string()))).collect();
    let touched = peek(of_t(), &[transaction(99, W, &many), transaction(101, 1100, &[delete("1")])]);
    assert_eq!(touched.tables[&T].changed, keys(&[("1", GONE)]));
    let without_key = [describe(ReplicaIdentity::Index), insert("1")];
    let touched = peek(of_t(), &[transaction(99, W, &without_key), transaction(101, 1100, &[by_key(), insert("2")])]);
    assert_eq!(touched.tables[&T].changed, keys(&[("2", EXISTS)]));
}

#[test]
fn the_settled_position_ends_before_the_first_transaction_that_the_snapshot_does_not_see() {
    let settled = |upto, transactions: &[(u32, u64)]| {
        let mut collector = of_t();
        for (xid, end) in transactions {
            take(&mut collector, &transaction(*xid, *end, &[])).unwrap();
        }
        collector.settled(upto)
    };
    assert_eq!(settled(9000, &[]), 9000);
    assert_eq!(settled(9000, &[(101, 1100), (102, 1200)]), 9000);
    assert_eq!(settled(9000, &[(101, 1100), (105, 1200), (102, 1300)]), 1100);
    assert_eq!(settled(9000, &[(105, 1200), (102, 1300)]), W);
    assert_eq!(settled(9000, &[(105, W), (102, 1300)]), 9000, "the newest batch has 105");
    assert_eq!(settled(W - 1, &[(101, 1100)]), W, "never back");
    assert_eq!(settled(1150, &[(101, 1100), (102, 1200), (105, 1300)]), 1150, "never past the end of the peek");
}

#[test]
fn a_table_with_too_many_keys_is_scanned_and_the_others_go_on() {
    let of_other = |id: &str| encode::insert(7, &[Value::Text(id.as_bytes())]);
    let tables = [(T, wanted(&["id"])), (7, wanted(&["code"]))];
    let other = encode::relation(&described(7, ReplicaIdentity::Default, &["code*"]));
    let first = [by_key(), other, insert("1"), insert("2"), insert("3"), insert("1"), of_other("a")];
    let touched = peek(collector(10_000, tables.clone()), &[transaction(101, 1100, &first)]);
    assert_eq!(touched.tables[&T].changed, keys(&[("1", EXISTS), ("2", EXISTS), ("3", EXISTS)]), "as many as allowed");
    let second = transaction(102, 1200, &[insert("4"), insert("5"), of_other("b"), encode::truncate(&[T])]);
    let touched = peek(collector(10_000, tables), &[transaction(101, 1100, &first), second]);
    let scan = Changed::Scan(ScanReason::TooManyKeys { limit: 3 });
    assert_eq!(touched.tables[&T], TableChanges { truncated: true, changed: scan });
    assert_eq!(touched.tables[&7].changed, keys(&[("a", EXISTS), ("b", EXISTS)]));
}

#[test]
fn when_the_keys_take_too_much_memory_the_table_with_the_most_keys_is_scanned() {
    let key = |text: &str| vec![text.to_owned()];
    let limit = 2 * bytes_of(&key("1")) + bytes_of(&key("a long key"));
    let tables = [(T, wanted(&["id"])), (7, wanted(&["code"]))];
    let other = encode::relation(&described(7, ReplicaIdentity::Default, &["code*"]));
    let of_other = |id: &str| encode::insert(7, &[Value::Text(id.as_bytes())]);
    let begin = [by_key(), other.clone(), insert("1"), insert("2"), of_other("a long key")];
    let within = transaction(101, 1100, &begin);
    let touched = peek(collector(limit, tables.clone()), std::slice::from_ref(&within));
    assert_eq!(touched.tables[&T].changed, keys(&[("1", EXISTS), ("2", EXISTS)]));
    let touched = peek(collector(limit, tables.clone()), &[within.clone(), transaction(102, 1200, &[insert("3")])]);
    assert_eq!(touched.tables[&T].changed, Changed::Scan(ScanReason::TooManyBytes { limit }));
    assert_eq!(touched.tables[&7].changed, keys(&[("a long key", EXISTS)]));
    let freed = transaction(102, 1200, &[insert("3"), of_other("b")]);
    let touched = peek(collector(limit, tables.clone()), &[within, freed]);
    assert_eq!(touched.tables[&7].changed, keys(&[("a long key", EXISTS), ("b", EXISTS)]), "bytes are freed");
    let limit = 4 * bytes_of(&key("1"));
    let messages = [by_key(), other, insert("1"), insert("2"), insert("3"), insert("4"), of_other("a"), of_other("b")];
    let touched = peek(collector(limit, tables), &[transaction(101, 1100, &messages)]);
    assert_eq!(touched.tables[&T].changed, Changed::Scan(ScanReason::TooManyKeys { limit: 3 }));
    assert_eq!(touched.tables[&7].changed, keys(&[("a", EXISTS), ("b", EXISTS)]), "bytes are freed here too");
}

#[test]
fn a_table_is_scanned_if_its_changes_may_come_without_the_primary_key() {
    assert!(scanned_by(&[describe(ReplicaIdentity::Index), insert("1")]).contains("USING INDEX"));
    assert!(scanned_by(&[describe(ReplicaIdentity::Nothing), insert("1")]).contains("NOTHING"));
    let back = [describe(ReplicaIdentity::Index), insert("1"), by_key(), insert("2")];
    assert!(scanned_by(&back).contains("USING INDEX"), "what happened meanwhile is not known");
    assert_eq!(changed_by(&[describe(ReplicaIdentity::Index), by_key(), insert("2")]), keys(&[("2", EXISTS)]));
    let generated = encode::relation(&described(T, ReplicaIdentity::Default, &["body"]));
    assert!(scanned_by(&[generated, encode::insert(T, &[Value::Null])]).contains("leaves out column id"));
    assert!(scanned_by(&[by_key(), encode::insert(T, &[Value::Null])]).contains("1 columns"));
}

#[test]
fn the_replica_identity_of_each_partition_counts() {
    let partition = |identity| encode::relation(&described(8, identity, &["body", "id*"]));
    let changed = |messages: &[Vec<u8>]| {
        let table = WantedTable { heaps: [T, 8, 9].into(), ..wanted(&["id"]) };
        let peeked = peek(collector(10_000, [(T, table)]), &[transaction(101, 1100, messages)]);
        peeked.tables[&T].changed == keys(&[("1", EXISTS)])
    };
    assert!(changed(&[by_key(), partition(ReplicaIdentity::Default), insert("1")]));
    assert!(!changed(&[by_key(), partition(ReplicaIdentity::Index), insert("1")]));
    let elsewhere = encode::relation(&described(10, ReplicaIdentity::Index, &["id*"]));
    assert!(changed(&[by_key(), elsewhere, insert("1")]), "a relation that is not a partition");
}

#[test]
fn what_is_not_wanted_is_ignored() {
    let other = [
        encode::insert(7, &row("1")),
        encode::truncate(&[7]),
        encode::origin("elsewhere"),
        encode::custom_type("mood"),
    ];
    assert_eq!(changed_by(&other), keys(&[]));
}

#[test]
fn only_the_newest_batch_s_token_in_a_new_transaction_counts() {
    let seen = |transactional, prefix: &str, content: &str, end| {
        let message = encode::message(transactional, prefix, content);
        peek(of_t(), &[transaction(105, end, &[message])]).token_seen
    };
    let newest = token(Uuid::nil(), 7);
    assert_eq!(newest, "00000000-0000-0000-0000-000000000000 7");
    assert!(seen(true, "blackwater", &newest, 1100), "whether or not the snapshot sees it");
    assert!(!seen(false, "blackwater", &newest, 1100));
    assert!(!seen(true, "blackwate", &newest, 1100));
    assert!(!seen(true, "blackwater", &token(Uuid::nil(), 6), 1100));
    assert!(!seen(true, "blackwater", &format!("{newest}0"), 1100));
    assert!(!seen(true, "blackwater", &newest, W));
    let outside = encode::message(false, "blackwater", &newest);
    assert!(!peek(of_t(), &[vec![(0, outside)]]).token_seen, "it may stand outside a transaction");
}

#[test]
fn an_inconsistent_peek_is_refused() {
    let whole = transaction(101, 1100, &[by_key()]);
    let next = transaction(102, 1100, &[]);
    assert_eq!(refused(&[(101, insert("1"))]), PeekError::OutsideTransaction { xid: 101 });
    assert_eq!(refused(&[whole[0].clone(), (102, by_key())]), PeekError::OutsideTransaction { xid: 102 });
    assert_eq!(refused(&[(102, whole[0].1.clone())]), PeekError::OutsideTransaction { xid: 102 });
    assert_eq!(refused(&[whole[0].clone(), next[0].clone()]), PeekError::NestedBegin { xid: 102, open: 101 });
    assert_eq!(refused(&whole[..2]), PeekError::Unfinished { xid: 101 });
    let twice = PeekError::OutOfOrder { xid: 102, commit: 1090, end: 1100 };
    assert_eq!(refused(&[whole.clone(), next].concat()), twice);
    assert_eq!(refused(&transaction(101, 1100, &[insert("1")])), PeekError::NotDescribed { oid: T });
    let unknown = PeekError::Message(MessageError::UnknownKind(b'S'));
    assert_eq!(refused(&transaction(101, 1100, &[b"S".to_vec()])), unknown);
    let differs = |commit, end| refused(&[whole[0].clone(), (101, encode::commit(commit, end))]);
    assert_eq!(differs(1091, 1100), PeekError::CommitDiffers { xid: 101, begin: 1090, commit: 1091, end: 1100 });
    assert_eq!(differs(1090, 1090), PeekError::CommitDiffers { xid: 101, begin: 1090, commit: 1090, end: 1090 });
    let inside = PeekError::PositionInsideCommit { xid: 101, position: W };
    assert_eq!(refused(&transaction(101, W + 1, &[])), inside);
}

/// The output of a COPY from Postgres 15, of the following. The identity of p2 is an index on k, so the update of
/// id 101 to 102 does not name 101.
///
/// ```sql
/// CREATE TABLE t (id int, name text, body text, n int, PRIMARY KEY (name, id));
/// CREATE TABLE p (id int, k int, v text, PRIMARY KEY (id, k)) PARTITION BY RANGE (id); -- p1 from 0, p2 from 100
/// BEGIN; INSERT INTO t VALUES (1, 'a', 'x', NULL); SAVEPOINT a; UPDATE t SET id = 2; RELEASE a;
/// SAVEPOINT b; DELETE FROM t; ROLLBACK TO b; UPDATE t SET body = 'y'; DELETE FROM t;
/// SELECT pg_logical_emit_message(true, 'blackwater', 'L 7'), pg_logical_emit_message(false, 'blackwater', 'L 7'); COMMIT;
/// INSERT INTO p VALUES (1, 1, 'a'), (101, 2, 'b');
/// UPDATE p SET id = 102 WHERE id = 101; UPDATE p SET id = 2 WHERE id = 102; DELETE FROM p WHERE id = 2;
/// BEGIN; INSERT INTO t VALUES (9, 'p', 'x', 1); PREPARE TRANSACTION 'x'; COMMIT PREPARED 'x';
/// TRUNCATE t;
/// ```
#[test]
fn what_postgres_sends_is_understood() {
    let digits: Vec<u8> = include_bytes!("../postgres_15.hex").iter().copied().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    let mut rows = CopyRows::default();
    rows.push(&digits.chunks(2).map(byte).collect::<Vec<_>>());
    let window = Window {
        position: 0x0154_0868,
        visibility: "740:742:740".parse().unwrap(),
        token: "L 7".into(),
        max_bytes: 10_000,
    };
    let (t, p, p1, p2) = (16384, 16391, 16396, 16403);
    let of_p = WantedTable { heaps: [p1, p2].into(), ..wanted(&["id", "k"]) };
    let mut collector = Collector::new(window, [(t, wanted(&["name", "id"])), (p, of_p)].into());
    while let Some(row) = rows.next_row().unwrap() {
        collector.take(row.xid, &row.data).unwrap();
    }
    rows.finish().unwrap();
    let key = |name: &str, id: &str| vec![name.to_owned(), id.to_owned()];
    let of_t = Changed::Keys([(key("a", "1"), GONE), (key("a", "2"), GONE), (key("p", "9"), None)].into());
    let of_p = Changed::Scan(ScanReason::IdentityIndex { relation: "public.p2".into() });
    let tables =
        [(t, TableChanges { truncated: true, changed: of_t }), (p, TableChanges { truncated: false, changed: of_p })];
    let expected = Touched { tables: tables.into(), settled: 0x0154_10c0, token_seen: true, transactions: 7 };
    assert_eq!(collector.finish(0x0200_0000), Ok(expected));
}
