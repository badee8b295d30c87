//! By scan: every row of a table is looked at, for nothing at the source indexes what changed.

use blackwater_base::progress::progress;
use blackwater_shared::manifest;
use blackwater_shared::postgres::Doing;
use deadpool_postgres::Transaction;

use super::{Changes, SEEN, widen};
use crate::error::Error;
use crate::source::limit::Limit;
use crate::sql::{self, Predicate, SourceTable};

/// Counts the rows of a table that meet `read`, and those of them that changed. `known` is the table in the newest batch, and
/// `xmin` the snapshot's.
pub(crate) async fn scan(
    (transaction, limit): (&Transaction<'_>, Limit),
    table: &SourceTable<'_>,
    known: Option<&manifest::Table>,
    read: &Predicate,
    xmin: u64,
) -> Result<Changes, Error> {
    if read.is_never() {
        return Ok(Changes::default());
    }
    progress(&format!("looking for changes in {}", table.name), 0, 0);
    let allowed = limit.set(transaction).await?;
    let row = transaction.query_one(&sql::changes(table, read, xmin, SEEN + 1), &[]).await;
    let row = row.doing(format!("count the changed rows of {}", table.name)).map_err(|error| allowed.explain(error))?;
    let rows = row.get::<_, i64>(0) as u64;
    let writers: Option<Vec<i64>> = row.get(2);
    Ok(Changes {
        rows,
        changed: row.get::<_, i64>(1) as u64,
        // A changed row may have taken the place of one that is gone; that it changed is reason enough to look.
        may_have_lost: table.since.is_some() && known.is_some_and(|known| known.rows != rows),
        writers: writers.unwrap_or_default().into_iter().map(|writer| widen(writer as u32, xmin)).collect(),
    })
}
