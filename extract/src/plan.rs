//! What a run reads of each table: everything, or what changed since the table's marker.

use std::collections::BTreeMap;

use blackwater_shared::manifest::{Extracted, Server};
use blackwater_shared::pack::Pack;

use crate::catalogue::Table;
use crate::snapshot::bounds;

/// `age()` compares transaction ids modulo 2^32. A marker that is nearly half of that behind can
/// no longer be told from one that is ahead.
const TOO_FAR: u64 = (1 << 31) - 100_000_000;

/// How a table is read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// In full, and why.
    Full(String),
    /// What transactions wrote that were not over at the marker.
    Changes {
        /// The marker's xmin.
        since: u64,
        /// Heaps that the newest manifest does not know: all their rows.
        heaps: Vec<u32>,
    },
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

/// What a batch is made of.
#[derive(Debug)]
pub(crate) struct Plan {
    /// How each table is read.
    pub(crate) readings: BTreeMap<String, Reading>,
    /// The models that need all rows of their driving tables, and why.
    pub(crate) anew: BTreeMap<String, String>,
}

/// Decides how each table is read. `full` are the tables that the caller wants in full.
pub(crate) fn plan(
    newest: Option<&Extracted>,
    broken: Option<&str>,
    now: &Server,
    tables: &BTreeMap<String, Table>,
    pack: &Pack,
    full: &[String],
) -> Plan {
    let xmax = bounds(&now.snapshot).map_or(u64::MAX, |(_, xmax)| xmax);
    let read = |(name, table): (&String, &Table)| {
        let in_full = |why: &str| (name.clone(), Reading::Full(why.into()));
        let Some(newest) = newest else { return in_full("there is no batch yet") };
        if let Some(why) = broken {
            return in_full(why);
        }
        if full.contains(name) {
            return in_full("it was asked for");
        }
        let known = newest.tables.get(name);
        let Some((known, marker)) = known.and_then(|known| Some((known, known.marker.as_ref()?))) else {
            return in_full("the log does not hold it yet");
        };
        if known.fingerprint != table.fingerprint {
            return in_full("its definition has changed");
        }
        let Some((since, _)) = bounds(marker).filter(|(xmin, _)| xmax.saturating_sub(*xmin) < TOO_FAR) else {
            return in_full("its marker is too many transactions behind");
        };
        let heaps: Vec<u32> =
            table.heaps.iter().filter(|heap| !known.heaps.contains(heap)).map(|heap| heap.oid).collect();
        if !table.many && !heaps.is_empty() {
            return in_full("it was rewritten or swapped");
        }
        (name.clone(), Reading::Changes { since, heaps })
    };
    let changed = pack.models.values().filter(|model| {
        let known = newest.and_then(|newest| newest.models.get(&model.name));
        known.map(|known| &known.hash) != Some(&pack.model_hash(model))
    });
    let anew = changed.map(|model| (model.name.clone(), format!("the model {} is new or has changed", model.name)));
    Plan { anew: anew.collect(), readings: tables.iter().map(read).collect() }
}

#[cfg(test)]
mod tests {
    use blackwater_shared::manifest::{Column, FORMAT, Head, Heap, ModelState, Table as Known};
    use chrono::DateTime;
    use uuid::Uuid;

    use super::*;

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
        let heap = |file| Heap { oid: 16400, file, fingerprint: "f".into() };
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
            plan(newest, None, &server(snapshot, 0), &tables, &pack, full).readings.remove("t").unwrap()
        };
        let good = newest(Some("100:120:"), &hash);
        let full = |why: &str| Reading::Full(why.into());

        let far = 100 + (1_u64 << 31) - 100_000_000;
        let changes = Reading::Changes { since: 100, heaps: Vec::new() };
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
        assert_eq!(read(Some(&changed), "200:220:", table(1, "f"), &[]), changes);
        let anew = |newest| plan(newest, None, &server("200:220:", 0), &table(1, "f"), &pack, &[]).anew;
        assert_eq!(anew(Some(&changed))["dim_t"], "the model dim_t is new or has changed");
        assert!(anew(Some(&good)).is_empty());
    }
}
