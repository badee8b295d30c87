//! Rows that the source no longer has, or that a model no longer lets through. The batch names them, or they are found by the keys of
//! all rows, which are asked for when counts differ: those that the warehouse holds are a superset of the source's, so equal counts
//! mean equal sets.

use std::collections::BTreeSet;

use crate::error::Error;
use crate::quarantine;
use crate::reject::rows;
use crate::reject::rows::Range;
use crate::staging::Content;
use crate::target::Target;
use crate::warehouse::Warehouse;
use crate::write;

/// What was marked as deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Deleted {
    pub(crate) rows: u64,
    /// The rows that the star table does not let be marked, and why the first of them.
    pub(crate) refused: Option<(usize, String)>,
    /// How many more keys are known that the model does not let through.
    pub(crate) filtered: i64,
}

impl Deleted {
    fn add(&mut self, other: Self) {
        self.rows += other.rows;
        self.filtered += other.filtered;
        self.refused = self.refused.take().or(other.refused);
    }
}

/// Takes out of a star table what the batch says is gone: the keys that it names, what the model no longer lets through, and what is
/// not among the source's keys. No key is named that the batch has a row of, so the order does not matter.
pub(crate) async fn delete(warehouse: &Warehouse<'_>, target: &Target<'_>) -> Result<Deleted, Error> {
    let mut deleted = Deleted::default();
    if !target.table.gone.is_empty() {
        deleted.add(forget(warehouse, target, Content::Gone, true).await?);
    }
    if !target.table.filtered.is_empty() {
        let doing = || warehouse.doing("record the rows that the model filters out of", target);
        deleted.add(mark(warehouse, target, Content::Filtered, true).await?);
        warehouse.execute(doing(), &quarantine::sql::delete_filtered(target), &[]).await?;
        deleted.filtered += warehouse.execute(doing(), &quarantine::sql::filter(target), &[]).await? as i64;
    }
    if target.table.keys.is_some() {
        deleted.add(forget(warehouse, target, Content::Keys, false).await?);
    }
    Ok(deleted)
}

/// Forgets what is known of the source's rows whose key is among the staged ones, or is not: in quarantine, as filtered, and in the
/// star table, where it is marked as deleted.
async fn forget(
    warehouse: &Warehouse<'_>,
    target: &Target<'_>,
    content: Content,
    are_in: bool,
) -> Result<Deleted, Error> {
    let doing = || warehouse.doing("compare the keys of", target);
    let is_gone = quarantine::sql::has_key(target, content, are_in);
    warehouse.execute(doing(), &quarantine::sql::delete_entries(&is_gone), &[]).await?;
    let unfilter = format!("DELETE FROM blackwater.filtered q {is_gone}");
    let unfiltered = warehouse.execute(doing(), &unfilter, &[]).await? as i64;
    Ok(Deleted { filtered: -unfiltered, ..mark(warehouse, target, content, are_in).await? })
}

/// Marks the rows of the star table as deleted whose key is among the staged ones, or is not.
async fn mark(
    warehouse: &Warehouse<'_>,
    target: &Target<'_>,
    content: Content,
    are_in: bool,
) -> Result<Deleted, Error> {
    if !target.marks_deletions() {
        return Ok(Deleted::default());
    }
    let doing = || warehouse.doing("mark the deleted rows of", target);
    warehouse.run(doing(), "DELETE FROM pg_temp.action").await?;
    let planned = warehouse.execute(doing(), &write::plan_deletions(target, content, are_in), &[]).await?;
    if planned == 0 {
        return Ok(Deleted::default());
    }
    let statement = write::delete(target, warehouse.at);
    warehouse.use_own_names();
    let rejected = match rows::write_all(warehouse, target, &statement, Range::all(planned), true).await? {
        None => Vec::new(),
        Some(_) => rows::write_in_pieces(warehouse, target, &statement, planned, &BTreeSet::new()).await?.rejected,
    };
    warehouse.use_builtin_names();
    let refused = rejected.first().map(|first| (rejected.len(), first.brief.clone()));
    Ok(Deleted { rows: planned - rejected.len() as u64, refused, filtered: 0 })
}
