//! By scan: every row of a table is looked at, for nothing at the source indexes what changed.

use blackwater_base::progress::progress;
use blackwater_shared::manifest;
use blackwater_shared::postgres::Doing;
use deadpool_postgres::Transaction;
use futures_util::{TryStreamExt, pin_mut};

use super::{Changes, Writers};
use crate::error::Error;
use crate::source::limit::Limit;
use crate::sql::{self, Predicate, SourceTable};

/// Counts the rows of a table that meet `read`, and those of them that changed. `known` is the table in the newest batch.
pub(crate) async fn scan(
    (transaction, limit): (&Transaction<'_>, Limit),
    table: &SourceTable<'_>,
    known: Option<&manifest::Table>,
    read: &Predicate,
) -> Result<Changes, Error> {
    if read.is_never() {
        return Ok(Changes { rows: Some(0), ..Changes::default() });
    }
    progress(&format!("looking for changes in {}", table.name), 0, 0);
    let allowed = limit.set(transaction).await?;
    let doing = || format!("count the changed rows of {}", table.name);
    let explain = |error| allowed.explain(error);
    let parameters: [&str; 0] = [];
    let counts = transaction.query_raw(&sql::changes(table, read), parameters).await.doing(doing()).map_err(explain)?;
    pin_mut!(counts);
    let (mut rows, mut changed, mut writers) = (0, 0, Writers::within(table.server.bounds));
    while let Some(row) = counts.try_next().await.doing(doing()).map_err(explain)? {
        let (writer, count): (Option<String>, i64) = (row.get(0), row.get(1));
        rows += count as u64;
        if let Some(writer) = writer {
            changed += count as u64;
            if let Ok(writer @ 1..) = writer.parse() {
                writers.add(writer);
            }
        }
    }
    // A changed row may have taken the place of one that is gone; that it changed is reason enough to look.
    let rows = Some(rows);
    let may_have_lost = table.since.is_some() && known.is_some_and(|known| known.rows.is_none() || known.rows != rows);
    Ok(Changes { rows, changed, may_have_lost, writers: writers.all(), ..Changes::default() })
}
