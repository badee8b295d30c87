//! Rows that the source no longer has, or that a model no longer lets through. They are found by
//! keys, and the keys are asked for when counts differ: those that the warehouse holds are a superset
//! of the source's, so equal counts mean equal sets.

use std::collections::BTreeSet;

use blackwater_shared::postgres::{ident, literal};

use crate::catalogue::Column;
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
}

/// Takes out of a star table what the batch says is gone: what its model no longer lets through, and what is not among the
/// source's keys.
pub(crate) async fn delete(warehouse: &Warehouse<'_>, target: &Target<'_>) -> Result<Deleted, Error> {
    let mut deleted = Deleted::default();
    if !target.table.filtered.is_empty() {
        let doing = || warehouse.doing("record the rows that the model filters out of", target);
        deleted = mark(warehouse, target, Content::Filtered, true).await?;
        warehouse.execute(doing(), &quarantine::sql::delete_filtered(target), &[]).await?;
        warehouse.execute(doing(), &quarantine::sql::filter(target), &[]).await?;
    }
    if target.table.keys.is_some() {
        let doing = || warehouse.doing("compare the keys of", target);
        let is_gone = quarantine::sql::is_gone(target);
        warehouse.execute(doing(), &quarantine::sql::delete_entries(&is_gone), &[]).await?;
        warehouse.execute(doing(), &format!("DELETE FROM blackwater.filtered q {is_gone}"), &[]).await?;
        let gone = mark(warehouse, target, Content::Keys, false).await?;
        deleted = Deleted { rows: deleted.rows + gone.rows, refused: deleted.refused.or(gone.refused) };
    }
    Ok(deleted)
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
    warehouse.use_own_names().await?;
    let rejected = match rows::write_all(warehouse, target, &statement, Range::all(planned), true).await? {
        None => Vec::new(),
        Some(_) => rows::write_in_pieces(warehouse, target, &statement, planned, &BTreeSet::new()).await?.rejected,
    };
    warehouse.use_builtin_names().await?;
    let refused = rejected.first().map(|first| (rejected.len(), first.brief.clone()));
    Ok(Deleted { rows: planned - rejected.len() as u64, refused })
}

/// The query for the number of source rows that the warehouse knows of: in the star table, in quarantine,
/// and those that the model does not let through. `None` if deletions cannot be marked. With `as_text`, the keys in quarantine are
/// compared as texts: one may be no value of its column's type any more.
pub(crate) fn known_keys(target: &Target<'_>, as_text: bool) -> Option<String> {
    if !target.marks_deletions() {
        return None;
    }
    let live = target.live();
    let value = |column: &Column| format!("q.key->>{}", literal(&column.name));
    let equal = match as_text {
        false => target.has_key(value, |column| format!("({})::{}", value(column), column.compared())),
        true => {
            let equal = |column: &&Column| {
                format!("{} = {}", column.key_text(&format!("s.{}", ident(&column.name))), value(column))
            };
            target.key.iter().map(equal).collect::<Vec<_>>().join(" AND ")
        }
    };
    let of_table = target.of_table("q");
    Some(format!(
        "SELECT (SELECT count(*) FROM {live}) + (SELECT count(*) FROM blackwater.filtered q WHERE {of_table}) + (
             SELECT count(DISTINCT q.key) FROM blackwater.quarantine q
             WHERE {of_table} AND NOT EXISTS (SELECT FROM {live} AND {equal}))",
    ))
}
