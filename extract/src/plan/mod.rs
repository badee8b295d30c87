//! What a run reads of each table: what changed since the table's marker, and what the log does not
//! hold of it yet.

mod cut;

use std::collections::BTreeMap;

use blackwater_shared::manifest::{self, Extracted, Server};
use blackwater_shared::pack::Pack;

pub(crate) use self::cut::{Cut, Unread, bytes_left, cut, order};
use crate::source::catalogue::Table;
use crate::source::continuity::Bounds;
use crate::sql::Blocks;

/// `age()` compares transaction ids modulo 2^32. A marker that is nearly half of that behind can
/// no longer be told from one that is ahead.
const TOO_FAR: u64 = (1 << 31) - 100_000_000;

/// How a table is read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct TablePlan {
    /// Why its rows are read from the first one on, if they are.
    pub(crate) full: Option<String>,
    /// What tells the rows that changed. `None`: nothing does, and every table of a model that reads this one
    /// is read from its first row on.
    pub(crate) since: Option<Since>,
    /// The ends of its heaps that the log does not hold. A table that drives no model has none.
    pub(crate) unread: Vec<Blocks>,
}

/// How each table is read.
pub(crate) type Plan = BTreeMap<String, TablePlan>;

/// The changes since a marker: what transactions wrote that were not over then.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Since {
    /// The marker's xmin.
    pub(crate) xmin: u64,
    /// Heaps that the newest manifest does not know: all their rows.
    pub(crate) heaps: Vec<u32>,
}

/// What the log does not hold of each table.
pub(crate) fn unread(plan: &Plan) -> Unread {
    plan.iter().map(|(name, table)| (name.clone(), table.unread.clone())).collect()
}

/// The plan, with these tables read from the first row on: so much of them changed that it does not fit a batch.
pub(crate) fn in_full(mut plan: Plan, which: &[String], tables: &BTreeMap<String, Table>) -> Plan {
    for name in which {
        let Some(table) = plan.get_mut(name) else { continue };
        table.full = Some("more of its rows must be sent again than fit in one batch".into());
        table.unread = tables[name].heaps.iter().map(|heap| Blocks::all(heap.oid)).collect();
    }
    plan
}

/// How each table is read. `full` are those that the caller wants in full.
pub(crate) fn plan(
    newest: Option<&Extracted>,
    broken: Option<&str>,
    now: &Server,
    tables: &BTreeMap<String, Table>,
    pack: &Pack,
    full: &[String],
) -> Plan {
    let known = |name: &str| newest.and_then(|newest| newest.tables.get(name));
    let since = |(name, table): (&String, &Table)| {
        let since = match (newest, broken) {
            (None, _) => Err("there is no batch yet".to_owned()),
            (_, Some(why)) => Err(why.to_owned()),
            _ if full.contains(name) => Err("it was asked for".into()),
            _ => since(known(name), table, now).map_err(str::to_owned),
        };
        (name.clone(), since)
    };
    let since: BTreeMap<_, _> = tables.iter().map(since).collect();
    let lost = |name: &str| since[name].as_ref().err();

    let mut anew: BTreeMap<&str, String> = BTreeMap::new();
    for (name, model) in &pack.models {
        let state = newest.and_then(|newest| newest.models.get(name));
        let changed = (state.map(|state| &state.hash) != Some(&pack.model_hash(model)))
            .then(|| format!("the model {name} is new or has changed"));
        for select in &model.selects {
            let driving = select.driving();
            let mut looked_up = select.tables.iter().filter(|table| !table.fixed).map(|table| &table.name);
            let of_lookup = || looked_up.find_map(|name| Some(format!("{name} belongs to its rows: {}", lost(name)?)));
            if let Some(why) = lost(driving).cloned().or_else(|| changed.clone()).or_else(of_lookup) {
                anew.entry(driving).or_insert(why);
            }
        }
    }
    let of_table = |(name, since): (String, Result<Since, String>)| {
        let why = anew.remove(name.as_str());
        let table = &tables[&name];
        let unread = |heap: &manifest::Heap| {
            let held = known(&name).and_then(|known| known.heaps.iter().find(|known| known.is(heap)));
            let from = match held {
                Some(held) if why.is_none() => held.unread?,
                _ => 0,
            };
            Some(Blocks { heap: heap.oid, from, to: None })
        };
        let unread = match pack.driven_by(&name).next() {
            Some(_) => table.heaps.iter().filter_map(unread).collect(),
            None => Vec::new(),
        };
        let full = why.or_else(|| since.as_ref().err().cloned());
        (name, TablePlan { full, since: since.ok(), unread })
    };
    since.into_iter().map(of_table).collect()
}

/// What tells the changes of a table, or why nothing does.
fn since(known: Option<&manifest::Table>, table: &Table, now: &Server) -> Result<Since, &'static str> {
    let Some((known, marker)) = known.and_then(|known| Some((known, known.marker.as_ref()?))) else {
        return Err("the log does not hold it yet");
    };
    if known.fingerprint != table.fingerprint {
        return Err("its definition has changed");
    }
    let xmax = Bounds::of(&now.snapshot).map_or(u64::MAX, |bounds| bounds.xmax);
    let Some(Bounds { xmin, .. }) = Bounds::of(marker).filter(|marker| xmax.saturating_sub(marker.xmin) < TOO_FAR)
    else {
        return Err("its marker is too many transactions behind");
    };
    let is_new = |heap: &&manifest::Heap| !known.heaps.iter().any(|known| known.is(heap));
    let heaps: Vec<u32> = table.heaps.iter().filter(is_new).map(|heap| heap.oid).collect();
    match !table.many && !heaps.is_empty() {
        true => Err("it was rewritten or swapped"),
        false => Ok(Since { xmin, heaps }),
    }
}

#[cfg(test)]
mod tests {
    use blackwater_shared::manifest::{Column, FORMAT, Head, Heap, ModelState, Table as Known};
    use chrono::DateTime;
    use uuid::Uuid;

    use super::*;
    use crate::source::continuity::tests::server;

    #[test]
    fn a_table_is_read_in_full_when_its_marker_can_tell_nothing() {
        let fixed = Default::default();
        let model = blackwater_shared::model::Model::parse("dim_t", "SELECT id FROM t", &fixed).unwrap();
        let pack = Pack { hash: String::new(), schema: String::new(), models: [("dim_t".into(), model)].into(), fixed };
        let heap = |file| Heap { oid: 16400, file, fingerprint: "f".into(), unread: None };
        let columns = vec![Column { name: "id".into(), kind: "integer".into() }];
        let key = vec!["id".to_owned()];
        let table = |file, fingerprint: &str| {
            let (columns, key, fingerprint) = (columns.clone(), key.clone(), fingerprint.to_owned());
            BTreeMap::from([(
                "t".to_owned(),
                Table { columns, key, heaps: vec![heap(file)], fingerprint, ..Table::default() },
            )])
        };
        let newest = |marker: Option<&str>, hash: &str| Extracted {
            head: Head {
                format: FORMAT,
                program: String::new(),
                pack: String::new(),
                log: Uuid::nil(),
                batch: 1,
                run: Uuid::nil(),
                at: DateTime::UNIX_EPOCH,
            },
            source: server("100:120:", 0),
            seen: None,
            capture: None,
            tables: [(
                "t".to_owned(),
                Known {
                    columns: columns.clone(),
                    key: key.clone(),
                    marker: marker.map(str::to_owned),
                    heaps: vec![heap(1)],
                    fingerprint: "f".into(),
                    rows: Some(0),
                    gone: Vec::new(),
                    objects: Vec::new(),
                    keys_sent: None,
                    keys: Vec::new(),
                    published: None,
                },
            )]
            .into(),
            models: [(
                "dim_t".to_owned(),
                ModelState { hash: hash.into(), tables: vec!["t".into()], joins: Vec::new() },
            )]
            .into(),
        };
        let hash = pack.model_hash(&pack.models["dim_t"]);
        let read = |newest: Option<&Extracted>, snapshot: &str, tables, full: &[String]| {
            plan(newest, None, &server(snapshot, 0), &tables, &pack, full).remove("t").unwrap()
        };
        let good = newest(Some("100:120:"), &hash);
        let all = |from| vec![Blocks { heap: 16400, from, to: None }];
        let full = |why: &str| TablePlan { full: Some(why.into()), since: None, unread: all(0) };

        let far = 100 + (1_u64 << 31) - 100_000_000;
        let since = || Some(Since { xmin: 100, heaps: Vec::new() });
        let changes = TablePlan { full: None, since: since(), unread: Vec::new() };
        assert_eq!(read(Some(&good), "200:220:", table(1, "f"), &[]), changes);
        assert_eq!(read(Some(&good), &format!("200:{}:", far - 1), table(1, "f"), &[]), changes);
        assert_eq!(
            read(Some(&good), &format!("200:{far}:"), table(1, "f"), &[]),
            full("its marker is too many transactions behind")
        );
        assert_eq!(read(None, "200:220:", table(1, "f"), &[]), full("there is no batch yet"));
        assert_eq!(read(Some(&good), "200:220:", table(2, "f"), &[]), full("it was rewritten or swapped"));
        assert_eq!(read(Some(&good), "200:220:", table(1, "g"), &[]), full("its definition has changed"));
        assert_eq!(read(Some(&good), "200:220:", table(1, "f"), &["t".into()]), full("it was asked for"));
        let unread = newest(None, &hash);
        assert_eq!(read(Some(&unread), "200:220:", table(1, "f"), &[]), full("the log does not hold it yet"));
        let changed = newest(Some("100:120:"), "other");
        assert_eq!(
            read(Some(&changed), "200:220:", table(1, "f"), &[]),
            TablePlan { full: Some("the model dim_t is new or has changed".into()), since: since(), unread: all(0) }
        );
        let mut half = good;
        half.tables.get_mut("t").unwrap().heaps[0].unread = Some(7);
        assert_eq!(
            read(Some(&half), "200:220:", table(1, "f"), &[]),
            TablePlan { full: None, since: since(), unread: all(7) }
        );
    }
}
