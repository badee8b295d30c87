//! WAL capture in a run, whether or not the slot is to be had.

use std::collections::BTreeMap;

use blackwater_shared::config::ChangeDetection;
use blackwater_shared::manifest::{self, Extracted, Published, Server};
use blackwater_shared::postgres::Database;
use chrono::{DateTime, Utc};
use deadpool_postgres::Transaction;

use super::capture::{Capture, Opened, Peek};
use super::table::TableChanges;
use crate::error::Error;
use crate::source::catalogue::Table;
use crate::source::continuity::Bounds;
use crate::source::limit::Limit;

/// The bytes of the log that are worth a batch, if a scan has passed them.
const PASSED: u64 = 16 << 20;

/// What a run reads of the slot.
pub(crate) struct Captured {
    slot: Option<(Capture, Option<Peek>)>,
    /// Why changes are found by scans though somebody asked for WAL capture.
    failed: Option<String>,
}

/// What the next manifest says of WAL capture.
#[derive(Default)]
pub(crate) struct Next {
    pub(crate) capture: Option<manifest::Capture>,
    pub(crate) published: BTreeMap<String, Published>,
    /// Whether the log is read anew, which a manifest has to say.
    pub(crate) is_anew: bool,
}

impl Captured {
    /// Opens the slot, before the run's snapshot.
    pub(crate) async fn open(
        source: &Database,
        how: (ChangeDetection, &str),
        newest: Option<&Extracted>,
        limit: Limit,
    ) -> Self {
        match Capture::open(source, how, newest, limit).await {
            Opened::Capture(capture) => Self { slot: Some((*capture, None)), failed: None },
            Opened::Scan(why) => Self { slot: None, failed: Some(why) },
            Opened::Off => Self { slot: None, failed: None },
        }
    }

    /// Reads the slot, once there is a snapshot: what it names of each table.
    pub(crate) async fn peek(
        &mut self,
        newest: Option<&Extracted>,
        server: &Server,
        reader: &Transaction<'_>,
        tables: &BTreeMap<String, Table>,
    ) -> Result<BTreeMap<String, TableChanges>, Error> {
        let Some((capture, peeked)) = &mut self.slot else { return Ok(BTreeMap::new()) };
        let mut peek = capture.peek(newest, server, reader, tables).await?;
        let named = std::mem::take(&mut peek.tables);
        *peeked = Some(peek);
        Ok(named)
    }

    /// Whether the log has the newest batch's token: so it is the log of that batch, whatever happened to the server.
    pub(crate) fn token_seen(&self) -> bool {
        self.peeked().is_some_and(|(_, peek)| peek.token_seen)
    }

    /// What the next manifest says. `newest` is the newest batch if its markers hold; all rows were last counted at `counted`.
    pub(crate) fn next(
        &self,
        newest: Option<&Extracted>,
        bounds: Bounds,
        tables: &BTreeMap<String, Table>,
        counted: DateTime<Utc>,
    ) -> Next {
        match (self.peeked(), newest) {
            (Some((capture, peek)), _) => {
                let next = capture.next(peek, bounds, newest.is_some(), counted);
                let before = newest.and_then(|newest| newest.capture.as_ref()?.position);
                // Much that a scan has passed is worth a batch: it need not be decoded again.
                let passed = next.position.unwrap_or_default().saturating_sub(before.unwrap_or_default());
                let has_passed = peek.fallback.is_some() && passed >= PASSED;
                Next {
                    is_anew: has_passed || newest.is_some_and(|newest| capture.is_anew(newest)),
                    capture: Some(next),
                    published: capture.published(peek, newest, tables),
                }
            }
            // The slot was not to be had in this run, and still names all that ends behind the position.
            (None, Some(newest)) if self.failed.is_some() => {
                let published =
                    |(name, table): (&String, &manifest::Table)| Some((name.clone(), table.published.clone()?));
                Next {
                    capture: newest.capture.clone(),
                    published: newest.tables.iter().filter_map(published).collect(),
                    is_anew: false,
                }
            }
            _ => Next::default(),
        }
    }

    /// Why tables are scanned that the log could have named the changes of.
    pub(crate) fn fallback(&self) -> Option<&String> {
        self.failed.as_ref().or(self.peeked().and_then(|(_, peek)| peek.fallback.as_ref()))
    }

    /// The bytes of the log that the server keeps for the slot.
    pub(crate) fn retained(&self) -> Option<u64> {
        self.slot.as_ref().map(|(capture, _)| capture.lag())
    }

    /// Goes on after a batch that is committed.
    pub(crate) async fn committed(&mut self, batch: &Extracted) {
        if let Some((capture, _)) = &mut self.slot {
            capture.committed(batch).await;
        }
    }

    fn peeked(&self) -> Option<(&Capture, &Peek)> {
        let (capture, peek) = self.slot.as_ref()?;
        Some((capture, peek.as_ref()?))
    }
}
