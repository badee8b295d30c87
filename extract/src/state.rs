//! What the buckets say before a run.

use std::collections::BTreeSet;

use blackwater_shared::log::Applied;
use blackwater_shared::manifest::Extracted;

use crate::Extract;
use crate::error::Error;
use crate::report::{Outcome, Report};
use crate::source::continuity::Bounds;

/// What the buckets say before a run.
pub(crate) struct State {
    /// The newest batch.
    pub(crate) newest: Option<Extracted>,
    /// The tables of which load wants to know the keys.
    pub(crate) wanted: BTreeSet<String>,
    lag_seconds: u64,
}

impl State {
    /// The report of a run that ends like this without a batch.
    pub(crate) fn report(&self, outcome: Outcome, notices: Vec<String>) -> Report {
        let (tables, lag_seconds) = (Vec::new(), self.lag_seconds);
        Report {
            outcome,
            batch: None,
            notices,
            tables,
            lag_seconds,
            held_seconds: 0,
            retained_wal_bytes: None,
            more: false,
        }
    }
}

impl Extract {
    /// What the buckets say.
    pub(crate) async fn read_log(&self) -> Result<State, Error> {
        let number = self.log.newest().await?;
        let newest: Option<Extracted> = match number {
            0 => None,
            _ => self.log.read(number).await?,
        };
        let is_of_this_log = |applied: &Applied| newest.as_ref().is_none_or(|newest| newest.head.log == applied.log);
        let applied = Applied::read(&self.processed).await?.filter(is_of_this_log);
        let last_applied = applied.as_ref().map_or(0, |applied| applied.batch);
        self.log.reaches(number, last_applied)?;
        let lag_seconds = self.log.lag(number, last_applied).await?;
        let wanted = wanted(newest.as_ref(), applied);
        Ok(State { newest, wanted, lag_seconds })
    }

    /// The age of the first batch in whose snapshot the transaction `xmin`, which is open now, had begun; 0 if there is
    /// none. (Others' times in pg_stat_activity are not for every role to see.)
    pub(crate) async fn held(&self, newest: Option<&Extracted>, xmin: u64) -> Result<u64, Error> {
        let had_begun =
            |manifest: &Extracted| Bounds::of(&manifest.source.snapshot).is_some_and(|bounds| bounds.xmax > xmin);
        let Some(newest) = newest.filter(|newest| had_begun(newest)) else { return Ok(0) };
        let (mut before, mut first, mut age) = (0, newest.head.batch, newest.head.age());
        while first - before > 1 {
            let middle = before + (first - before) / 2;
            let manifest: Option<Extracted> = self.log.read(middle).await?;
            match manifest.filter(|manifest| manifest.source.system == newest.source.system) {
                Some(manifest) if had_begun(&manifest) => (first, age) = (middle, manifest.head.age()),
                _ => before = middle,
            }
        }
        Ok(age)
    }
}

/// The tables of which load wants to know the keys, and has not been told since it asked.
fn wanted(newest: Option<&Extracted>, applied: Option<Applied>) -> BTreeSet<String> {
    let (Some(newest), Some(applied)) = (newest, applied) else { return BTreeSet::new() };
    let told = |table: &String| newest.tables.get(table).and_then(|table| table.keys_sent) > Some(applied.batch);
    applied.wanted.into_iter().filter(|table| !told(table)).collect()
}
