//! The replication slot, for people: how much it keeps, and how to make it and take it away.

use std::time::Duration;

use blackwater_base::deadline::Deadline;
use serde::Serialize;

use crate::Extract;
use crate::changes::wal::{Control, Facts};
use crate::error::Error;
use crate::source::limit::Limit;

/// The replication slot at the source.
#[derive(Clone, Debug, Serialize)]
pub struct SlotStatus {
    /// Its name, which is also that of the publication.
    pub slot: String,
    /// The bytes of the write-ahead log that the source keeps for it.
    pub retained_wal_bytes: u64,
    /// Whether the source has thrown away what it should have kept; the next run makes a new one.
    pub is_lost: bool,
}

impl Extract {
    /// The replication slot; `None` if there is none.
    ///
    /// # Errors
    /// If the source cannot be asked.
    pub async fn slot(&self) -> Result<Option<SlotStatus>, Error> {
        let facts = self.facts().await?;
        Ok(facts.slot.map(|slot| SlotStatus {
            slot: self.slot.clone(),
            retained_wal_bytes: slot.retained(facts.flushed),
            is_lost: slot.is_lost,
        }))
    }

    /// Makes the replication slot, and waits as long for the transactions that are open: `false` if it is there already. A run
    /// makes it too, if it need not wait long.
    ///
    /// # Errors
    /// If the time is over, or the source does not let this role have one.
    pub async fn create_slot(&self, wait: Duration) -> Result<bool, Error> {
        let mut control = self.control().await?;
        if control.facts().await?.slot.is_some() {
            return Ok(false);
        }
        control.create(wait).await?;
        Ok(true)
    }

    /// Drops the replication slot: `false` if there is none.
    ///
    /// # Errors
    /// If somebody reads it, or it is not this program's.
    pub async fn drop_slot(&self) -> Result<bool, Error> {
        let mut control = self.control().await?;
        let Some(slot) = control.facts().await?.slot else { return Ok(false) };
        if !slot.is_ours {
            return Err(Error::ForeignSlot { slot: self.slot.clone() });
        }
        control.drop_slot().await?;
        Ok(true)
    }

    /// What the source says of itself, of the slot and of the publication.
    pub(crate) async fn facts(&self) -> Result<Facts, Error> {
        Ok(self.control().await?.facts().await?)
    }

    async fn control(&self) -> Result<Control, Error> {
        let limit = Limit { setting: self.statement_timeout, deadline: Deadline::NONE };
        Ok(Control { client: self.source.connect().await?, limit, name: self.slot.clone() })
    }
}
