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
        (false, _) => Continuity::Same,
    }
}

/// Decides how each table is read. `full` are the tables that the caller wants in full.
pub(crate) fn plan(
    newest: Option<&Extracted>,
    broken: Option<&str>,
    now: &Server,
    tables: &BTreeMap<String, Table>,
    pack: &Pack,
    full: &[String],
) -> BTreeMap<String, Reading> {
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
        let new_model = pack
            .driven_by(name)
            .find(|model| newest.models.get(&model.name).map(|known| &known.hash) != Some(&pack.model_hash(model)));
        if let Some(model) = new_model {
            return in_full(&format!("the model {} is new or has changed", model.name));
        }
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
    tables.iter().map(read).collect()
}
