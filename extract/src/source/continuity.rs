//! Whether the source's server is the one of the newest batch, further on: only then do the markers of that batch hold.

use blackwater_shared::manifest::{Extracted, Server};

use crate::error::Error;

/// How the source's server compares with the one of the newest batch.
#[derive(Debug, PartialEq, Eq)]
enum Continuity {
    /// The same server, further on.
    Same,
    /// A standby that has not yet got as far as the newest manifest.
    Behind,
    /// Another server, or a restored one: nothing that its markers say holds.
    Broken(String),
    /// One that may be another or a restored one, unless its write-ahead log has what the newest batch left there.
    Doubtful(String),
}

/// The range of transactions that a snapshot tells apart: all below `xmin` were over, none from `xmax` on had begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) xmin: u64,
    pub(crate) xmax: u64,
}

impl Bounds {
    /// Those of a snapshot as `pg_current_snapshot()` prints it; `None` if it is no snapshot.
    pub(crate) fn of(snapshot: &str) -> Option<Self> {
        let mut parts = snapshot.split(':');
        Some(Self { xmin: parts.next()?.parse().ok()?, xmax: parts.next()?.parse().ok()? })
    }

    /// Those of a server's snapshot.
    pub(crate) fn of_server(server: &Server) -> Result<Self, Error> {
        Self::of(&server.snapshot).ok_or_else(|| Error::Snapshot { snapshot: server.snapshot.clone() })
    }
}

/// Why the markers of the newest batch do not hold, if they do not. [`Error::Behind`] on a standby that has not got as far.
/// `token_seen` says whether the server's write-ahead log has the token of that batch, and so all that the batch does.
pub(crate) fn broken(
    newest: Option<&Extracted>,
    now: &Server,
    wal_before: u64,
    token_seen: bool,
) -> Result<Option<String>, Error> {
    let Some(newest) = newest else { return Ok(None) };
    match continuity(&newest.source, now, wal_before) {
        Continuity::Same => Ok(None),
        Continuity::Behind => Err(Error::Behind { batch: newest.head.batch }),
        Continuity::Doubtful(_) if token_seen => Ok(None),
        Continuity::Broken(why) | Continuity::Doubtful(why) => Ok(Some(why)),
    }
}

fn continuity(known: &Server, now: &Server, wal_before: u64) -> Continuity {
    let other = |what| format!("the source is not the server of the newest batch: {what}");
    if known.system != now.system {
        return Continuity::Broken(other("it has another system identifier"));
    }
    if known.database != now.database {
        return Continuity::Broken(other("it is another database of the same name"));
    }
    let back = wal_before < known.wal
        || match (Bounds::of(&known.snapshot), Bounds::of(&now.snapshot)) {
            (Some(known), Some(now)) => now.xmin < known.xmin || now.xmax < known.xmax,
            _ => true,
        };
    match (back, now.standby) {
        (true, true) => Continuity::Behind,
        (true, false) => Continuity::Broken("the source was restored: its counters went back".into()),
        (false, _) if known.timeline != now.timeline => Continuity::Doubtful(other("it is on another timeline")),
        (false, _) if known.standby != now.standby => {
            Continuity::Doubtful(other("it was promoted, or is a standby now"))
        }
        (false, _) if known.started != now.started => {
            Continuity::Doubtful("the source was restarted, so it may have been restored".into())
        }
        (false, _) if known.statistics != now.statistics => {
            Continuity::Doubtful("the source crashed, or its statistics were reset".into())
        }
        (false, _) => Continuity::Same,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use chrono::DateTime;

    use super::*;

    pub(crate) fn server(snapshot: &str, wal: u64) -> Server {
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
            Continuity::Broken(why) | Continuity::Doubtful(why) => why,
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
}
