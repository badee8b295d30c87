//! Extract: what changed in the source since the newest batch, as CSV in the ingestion bucket,
//! completed by a manifest.
//!
//! [`Extract::run`] reads the newest manifest, then takes a snapshot, and can commit only the
//! number after that manifest. Of two runs that overlap one commits; what the other wrote is read
//! by nobody.

mod batches;
mod changes;
mod check;
mod copy;
mod error;
mod grants;
mod manifest;
mod plan;
mod reader;
mod report;
mod run;
mod slot;
mod source;
mod sql;
mod state;
mod verify;

use std::time::Duration;

use blackwater_base::store::Store;
use blackwater_shared::config::{ChangeDetection, Config};
use blackwater_shared::log::Log;
use blackwater_shared::pack::Pack;
use blackwater_shared::postgres::{self, Database};

use changes::wal::slot_name;
pub use check::{Checked, TableSize};
pub use error::Error;
pub use report::{Detection, Full, Outcome, Report, Request, TableReport};
pub use slot::SlotStatus;
pub use verify::Pieces;

/// Extract with its clients, for any number of runs.
#[derive(Clone)]
pub struct Extract {
    source: Database,
    schema: String,
    exclude: Vec<(String, String)>,
    connections: usize,
    statement_timeout: Duration,
    change_detection: ChangeDetection,
    /// The name of the replication slot and of the publication.
    slot: String,
    object_bytes: u64,
    batch_bytes: u64,
    log: Log,
    processed: Store,
    pack: Pack,
}

impl Extract {
    /// Extract as the configuration says; it writes to the ingestion bucket, and reads in the
    /// processed bucket what load wants to know.
    ///
    /// # Errors
    /// If there are no certificates to verify the source with.
    pub fn new(config: &Config, pack: Pack, ingestion: Store, processed: Store) -> Result<Self, postgres::Error> {
        Ok(Self {
            // One more than read tables, for the replication slot.
            source: config.source.address.pool(config.limits.connections + 1, source::snapshot::SESSION)?,
            schema: config.source.schema.clone(),
            exclude: config.source.exclude.clone(),
            connections: config.limits.connections,
            statement_timeout: config.source.statement_timeout,
            change_detection: config.source.changes,
            slot: slot_name(&config.name, &config.ingestion, config.source.address.database()),
            object_bytes: config.limits.memory / 16,
            batch_bytes: config.limits.batch_bytes,
            log: Log::ingestion(ingestion),
            processed,
            pack,
        })
    }
}
