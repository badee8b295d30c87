//! What a run reads of each table: what changed since the table's marker, and what the log does not
//! hold of it yet, as much as fits a batch.

use std::collections::BTreeMap;

use blackwater_shared::foreign_keys;
use blackwater_shared::manifest::{self, Extracted, Server};
use blackwater_shared::pack::Pack;

use crate::catalogue::Table;
use crate::snapshot::bounds;

/// `age()` compares transaction ids modulo 2^32. A marker that is nearly half of that behind can
/// no longer be told from one that is ahead.
const TOO_FAR: u64 = (1 << 31) - 100_000_000;

/// How a table is read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Why its rows are read from the first one on, if they are.
    pub(crate) full: Option<String>,
    /// What tells the rows that changed. `None`: nothing does, and every table of a model that reads this one
    /// is read from its first row on.
    pub(crate) since: Option<Since>,
    /// The blocks that the log does not hold. A table that drives no model has none.
    pub(crate) unread: Vec<Unread>,
}

/// The changes since a marker: what transactions wrote that were not over then.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Since {
    /// The marker's xmin.
    pub(crate) xmin: u64,
    /// Heaps that the newest manifest does not know: all their rows.
    pub(crate) heaps: Vec<u32>,
}

/// The end of a heap that the log does not hold.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unread {
    pub(crate) heap: u32,
    /// Its first block.
    pub(crate) from: u32,
    /// The block before which this batch ends; `None` if it ends with the heap.
    pub(crate) to: Option<u32>,
}

impl Reading {
    /// About how many bytes of the table the log does not hold with this batch.
    pub(crate) fn bytes_left(&self, table: &Table) -> u64 {
        let left = |part: &Unread| {
            let size = table.sizes.get(&part.heap).copied().unwrap_or_default();
            part.to.map_or(0, |to| u64::from(size.blocks.saturating_sub(to)) * size.of_block())
        };
        self.unread.iter().map(left).sum()
    }

    /// Whether the log holds all of the table with this batch.
    pub(crate) fn completes(&self) -> bool {
        self.unread.iter().all(|part| part.to.is_none())
    }
}

/// How the source's server compares with the one of the newest manifest.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Continuity {
    /// The same server, further on.
    Same,
    /// A standby that has not yet got as far as the newest manifest.
    Behind,
    /// Another server, or a restored one: nothing that its markers say holds.
    Broken(String),
}

pub(crate) fn continuity(known: &Server, now: &Server, wal_before: u64) -> Continuity {
    for (differs, what) in [
        (known.system != now.system, "it has another system identifier"),
        (known.database != now.database, "it is another database of the same name"),
        (known.timeline != now.timeline, "it is on another timeline"),
        (known.standby != now.standby, "it was promoted, or is a standby now"),
    ] {
        if differs {
            return Continuity::Broken(format!("the source is not the server of the newest batch: {what}"));
        }
    }
    let back = wal_before < known.wal
        || match (bounds(&known.snapshot), bounds(&now.snapshot)) {
            (Some(known), Some(now)) => now.0 < known.0 || now.1 < known.1,
            _ => true,
        };
    match (back, now.standby) {
        (true, true) => Continuity::Behind,
        (true, false) => Continuity::Broken("the source was restored: its counters went back".into()),
        (false, _) if known.started != now.started => {
            Continuity::Broken("the source was restarted, so it may have been restored".into())
        }
        (false, _) if known.statistics != now.statistics => {
            Continuity::Broken("the source crashed, or its statistics were reset".into())
        }
        (false, _) => Continuity::Same,
    }
}

/// How each table is read. `full` are those that the caller wants in full.
pub(crate) fn plan(
    newest: Option<&Extracted>,
    broken: Option<&str>,
    now: &Server,
    tables: &BTreeMap<String, Table>,
    pack: &Pack,
    full: &[String],
) -> BTreeMap<String, Reading> {
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
    let reading = |(name, since): (String, Result<Since, String>)| {
        let why = anew.remove(name.as_str());
        let table = &tables[&name];
        let unread = |heap: &manifest::Heap| {
            let held = known(&name).and_then(|known| known.heaps.iter().find(|known| known.is(heap)));
            let from = match held {
                Some(held) if why.is_none() => held.unread?,
                _ => 0,
            };
            Some(Unread { heap: heap.oid, from, to: None })
        };
        let unread = match pack.driven_by(&name).next() {
            Some(_) => table.heaps.iter().filter_map(unread).collect(),
            None => Vec::new(),
        };
        let full = why.or_else(|| since.as_ref().err().cloned());
        (name, Reading { full, since: since.ok(), unread })
    };
    since.into_iter().map(reading).collect()
}

/// What tells the changes of a table, or why nothing does.
fn since(known: Option<&manifest::Table>, table: &Table, now: &Server) -> Result<Since, &'static str> {
    let Some((known, marker)) = known.and_then(|known| Some((known, known.marker.as_ref()?))) else {
        return Err("the log does not hold it yet");
    };
    if known.fingerprint != table.fingerprint {
        return Err("its definition has changed");
    }
    let xmax = bounds(&now.snapshot).map_or(u64::MAX, |(_, xmax)| xmax);
    let Some((xmin, _)) = bounds(marker).filter(|(xmin, _)| xmax.saturating_sub(*xmin) < TOO_FAR) else {
        return Err("its marker is too many transactions behind");
    };
    let is_new = |heap: &&manifest::Heap| !known.heaps.iter().any(|known| known.is(heap));
    let heaps: Vec<u32> = table.heaps.iter().filter(is_new).map(|heap| heap.oid).collect();
    match !table.many && !heaps.is_empty() {
        true => Err("it was rewritten or swapped"),
        false => Ok(Since { xmin, heaps }),
    }
}

/// Ends the batch after so many bytes of what the log does not hold, as the source stores them; at least one block is
/// read. Tables that others refer to come first.
pub(crate) fn cut(readings: &mut BTreeMap<String, Reading>, tables: &BTreeMap<String, Table>, mut bytes: u64) {
    let mut begun = false;
    for name in by_reference(tables) {
        let Some(reading) = readings.get_mut(name) else { continue };
        for part in &mut reading.unread {
            let size = tables[name].sizes.get(&part.heap).copied().unwrap_or_default();
            let left = size.blocks.saturating_sub(part.from);
            let least = u64::from(!begun);
            let blocks = (bytes / size.of_block()).max(least).min(u64::from(left)) as u32;
            part.to = (blocks < left).then_some(part.from + blocks);
            bytes = bytes.saturating_sub(u64::from(blocks) * size.of_block());
            begun |= blocks > 0;
        }
    }
}

/// Reads tables from the first row on of which so much changed that it does not fit a batch.
pub(crate) fn begin_again(
    readings: &mut BTreeMap<String, Reading>,
    tables: &BTreeMap<String, Table>,
    which: &[String],
) {
    for (name, reading) in readings.iter_mut().filter(|(name, _)| which.contains(name)) {
        reading.full = Some("more of its rows come again than fit a batch".into());
        reading.unread = tables[name].heaps.iter().map(|heap| Unread { heap: heap.oid, from: 0, to: None }).collect();
    }
}

/// The tables, those first that others refer to.
fn by_reference(tables: &BTreeMap<String, Table>) -> Vec<&str> {
    let mut references = BTreeMap::new();
    for (name, table) in tables {
        references.insert(name.as_str(), table.references.iter().map(String::as_str).collect());
    }
    foreign_keys::groups(&references).concat()
}

#[cfg(test)]
mod tests {
    use blackwater_shared::manifest::{Column, FORMAT, Head, Heap, ModelState, Table as Known};
    use chrono::DateTime;
    use uuid::Uuid;

    use super::*;
    use crate::catalogue::Size;

    fn server(snapshot: &str, wal: u64) -> Server {
        Server {
            system: "7710".into(),
            database: 5,
            timeline: 1,
            started: DateTime::UNIX_EPOCH,
            statistics: None,
            standby: false,
            snapshot: snapshot.into(),
            wal,
        }
    }

    #[test]
    fn a_server_that_goes_back_or_is_another_is_not_trusted() {
        let known = server("100:120:100", 5000);
        let broken = |now: Server, wal_before| match continuity(&known, &now, wal_before) {
            Continuity::Broken(why) => why,
            other => format!("{other:?}"),
        };
        assert_eq!(continuity(&known, &server("100:120:100", 5000), 5000), Continuity::Same);
        assert!(broken(server("99:130:99", 6000), 6000).contains("counters went back"));
        assert!(broken(server("110:119:", 6000), 6000).contains("counters went back"));
        assert!(broken(server("110:130:", 6000), 4999).contains("counters went back"));
        assert!(broken(Server { timeline: 2, ..server("110:130:", 6000) }, 6000).contains("timeline"));
        assert!(broken(Server { system: "1".into(), ..server("110:130:", 6000) }, 6000).contains("system identifier"));
        assert!(broken(Server { standby: true, ..server("110:130:", 6000) }, 6000).contains("standby"));
        assert!(broken(Server { database: 6, ..server("110:130:", 6000) }, 6000).contains("another database"));
        let crashed = Server { statistics: Some(DateTime::UNIX_EPOCH), ..server("110:130:", 6000) };
        assert!(broken(crashed, 6000).contains("crashed"));
        let restarted = Server { started: DateTime::from_timestamp_nanos(1), ..server("110:130:", 6000) };
        assert!(broken(restarted, 6000).contains("restarted"));
        let standby = |snapshot: &str| Server { standby: true, ..server(snapshot, 6000) };
        assert_eq!(continuity(&standby("100:120:"), &standby("99:130:"), 6000), Continuity::Behind);
        assert_eq!(continuity(&standby("100:120:"), &standby("100:120:"), 5999), Continuity::Behind);
    }

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
            tables: [(
                "t".to_owned(),
                Known {
                    columns: columns.clone(),
                    key: key.clone(),
                    marker: marker.map(str::to_owned),
                    heaps: vec![heap(1)],
                    fingerprint: "f".into(),
                    rows: 0,
                    objects: Vec::new(),
                    keys_sent: None,
                    keys: Vec::new(),
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
        let all = |from| vec![Unread { heap: 16400, from, to: None }];
        let full = |why: &str| Reading { full: Some(why.into()), since: None, unread: all(0) };

        let far = 100 + (1_u64 << 31) - 100_000_000;
        let since = || Some(Since { xmin: 100, heaps: Vec::new() });
        let changes = Reading { full: None, since: since(), unread: Vec::new() };
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
            Reading { full: Some("the model dim_t is new or has changed".into()), since: since(), unread: all(0) }
        );
        let mut half = good;
        half.tables.get_mut("t").unwrap().heaps[0].unread = Some(7);
        assert_eq!(
            read(Some(&half), "200:220:", table(1, "f"), &[]),
            Reading { full: None, since: since(), unread: all(7) }
        );
    }

    #[test]
    fn a_batch_ends_where_it_is_full_and_those_that_are_referred_to_come_first() {
        let table = |blocks, references: &[&str]| Table {
            sizes: [(1, Size { blocks, bytes: u64::from(blocks) * 10_000 })].into(),
            references: references.iter().map(|name| (*name).to_owned()).collect(),
            ..Table::default()
        };
        let tables = BTreeMap::from([
            ("a".into(), table(100, &["c", "a"])),
            ("b".into(), table(3, &["a"])),
            ("c".into(), table(20, &[])),
        ]);
        let cut = |bytes| {
            let reading = || Reading { unread: vec![Unread { heap: 1, from: 5, to: None }], ..Reading::default() };
            let mut readings = BTreeMap::from(["a", "b", "c"].map(|name| (name.to_owned(), reading())));
            super::cut(&mut readings, &tables, bytes);
            readings.into_values().map(|reading| reading.unread[0].to).collect::<Vec<_>>()
        };
        assert_eq!(cut(250_000), [Some(15), None, None]);
        assert_eq!(cut(120_000), [Some(5), None, Some(17)]);
        assert_eq!(cut(1), [Some(5), None, Some(6)], "at least one block is read");
        assert_eq!(cut(u64::MAX), [None, None, None]);
    }
}
