//! Random peeks against a naive model, which sees all transactions at once and looks back from the end.

use std::collections::BTreeSet;

use super::super::encode::{self, Random, described};
use super::super::pgoutput::{Old, ReplicaIdentity, Value};
use super::super::table::{Changed, Verdict};
use super::*;

const T: u32 = 16384;

struct Transaction {
    xid: u64,
    begin: u64,
    end: u64,
    is_visible: bool,
    /// The key before and after each change.
    changes: Vec<(Option<u64>, Option<u64>)>,
}

/// Transactions in the order of their commits, with ids around the end of an epoch in any order.
fn history(random: &mut Random) -> Vec<Transaction> {
    let mut xids: Vec<u64> = (0..12).map(|at| (3 << 32) - 6 + at).collect();
    let mut end = 5000;
    let mut transactions = Vec::new();
    while !xids.is_empty() && random.below(12) > 0 {
        let xid = xids.remove(random.below(xids.len() as u64) as usize);
        let begin = end + random.below(2) * 24;
        end = begin + 8 + random.below(3) * 8;
        let change = |random: &mut Random| {
            let mut key = |absent| (random.below(4) != absent).then(|| random.below(8));
            match (key(0), key(1)) {
                (None, None) => (None, Some(0)),
                change => change,
            }
        };
        let changes = (0..random.below(5)).map(|_| change(random)).collect();
        transactions.push(Transaction { xid, begin, end, is_visible: random.below(5) > 0, changes });
    }
    transactions
}

fn rows(transaction: &Transaction, described_before: bool) -> Vec<(u32, Vec<u8>)> {
    let mut messages = vec![encode::begin(transaction.begin, transaction.xid as u32)];
    if !described_before {
        messages.push(encode::relation(&described(T, ReplicaIdentity::Default, &["id*"])));
    }
    for (old, new) in &transaction.changes {
        let old = old.map(|id| id.to_string());
        let old = old.as_ref().map(|id| Old::Key(vec![Value::Text(id.as_bytes())]));
        let new = new.map(|id| id.to_string());
        let new = new.as_ref().map(|id| [Value::Text(id.as_bytes())]);
        messages.push(match (old, new) {
            (None, Some(new)) => encode::insert(T, &new),
            (Some(old), None) => encode::delete(T, &old),
            (old, new) => encode::update(T, old.as_ref(), &new.unwrap()),
        });
    }
    messages.push(encode::commit(transaction.begin, transaction.end));
    messages.into_iter().map(|data| (transaction.xid as u32, data)).collect()
}

/// The verdict of the last change of a key in transactions that are visible.
fn last_verdict(transactions: &[&Transaction], key: u64) -> Option<Verdict> {
    let visible = transactions.iter().rev().filter(|transaction| transaction.is_visible);
    let mut changes = visible.flat_map(|transaction| transaction.changes.iter().rev());
    changes.find_map(|(old, new)| match (old, new) {
        (_, Some(new)) if *new == key => Some(Verdict::Exists),
        (Some(old), _) if *old == key => Some(Verdict::Gone),
        _ => None,
    })
}

#[test]
fn keys_verdicts_and_the_settled_position_of_random_peeks_are_those_of_the_model() {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    for round in 0..5_000 {
        let all = history(&mut random);
        let ends: Vec<u64> = [5000].into_iter().chain(all.iter().map(|transaction| transaction.end)).collect();
        let position = ends[random.below(ends.len() as u64) as usize];
        let upto = ends[ends.len() - 1] + random.below(2) * 100;
        let xmax = (3 << 32) + 3;
        let mut running: Vec<u64> =
            all.iter().filter(|one| !one.is_visible && one.xid < xmax).map(|one| one.xid).collect();
        running.sort_unstable();
        let all: Vec<_> =
            all.into_iter().map(|one| Transaction { is_visible: one.is_visible && one.xid < xmax, ..one }).collect();

        let visibility = Visibility { xmin: (3 << 32) - 6, xmax, running };
        let window = Window { position, visibility, token: String::new(), max_bytes: usize::MAX };
        let wanted = WantedTable { key: vec!["id".into()], max_keys: 8, heaps: BTreeSet::new() };
        let mut collector = Collector::new(window, [(T, wanted)].into());
        for (at, transaction) in all.iter().enumerate() {
            for (xid, data) in rows(transaction, at > 0) {
                collector.take(xid, &data).unwrap();
            }
        }
        let touched = collector.finish(upto).unwrap();

        let new: Vec<_> = all.iter().filter(|transaction| transaction.end > position).collect();
        let names: BTreeSet<u64> =
            new.iter().flat_map(|one| one.changes.iter().flat_map(|(old, new)| [*old, *new])).flatten().collect();
        let keys = names.iter().map(|key| (vec![key.to_string()], last_verdict(&new, *key))).collect();
        assert_eq!(touched.tables[&T].changed, Changed::Keys(keys), "round {round}");
        assert_eq!(touched.transactions, new.len() as u64, "round {round}");

        let is_settled = |at: u64| new.iter().all(|transaction| transaction.end > at || transaction.is_visible);
        let best = ends.iter().chain([&upto]).copied().filter(|at| *at >= position && is_settled(*at)).max();
        assert_eq!(Some(touched.settled), best, "round {round}");
    }
}
