//! The rows that the log names, in the run's snapshot: the state is the snapshot's, never a message's.

use std::collections::{BTreeMap, BTreeSet};

use blackwater_shared::postgres::Doing;
use deadpool_postgres::Transaction;
use tokio_postgres::SimpleQueryMessage;

use super::key::Key;
use super::table::{TableChanges, Verdict};
use crate::changes::Changes;
use crate::error::Error;
use crate::source::limit::Limit;
use crate::sql::{self, SourceTable};

/// What a table's keys in the log come to.
pub(crate) enum Found {
    /// The changes.
    Changes(Changes),
    /// The log and the snapshot disagree about so many keys: one of them is read wrongly.
    Disagree(usize),
    /// A key is no value of its column, says the server with this code: its type was another one when it was written, or does not
    /// take it any more.
    Unreadable(String),
}

/// Looks for the rows that have one of the keys.
pub(crate) async fn found(
    (transaction, limit): (&Transaction<'_>, Limit),
    table: &SourceTable<'_>,
    keys: &BTreeMap<Key, Option<Verdict>>,
    TableChanges { truncated, .. }: &TableChanges,
) -> Result<Found, Error> {
    let touched: Vec<Key> = keys.keys().cloned().collect();
    let mut there = BTreeSet::new();
    if !touched.is_empty() {
        let allowed = limit.set(transaction).await?;
        // A statement that fails would take the snapshot with it.
        let sql = format!("SAVEPOINT found; {}; RELEASE found", sql::found(table, &touched));
        // As the server prints them: a key is there if its text comes back.
        let lines = transaction.simple_query(&sql).await;
        if let Some(code) = lines.as_ref().err().and_then(tokio_postgres::Error::code)
            && ["22", "23"].iter().any(|class| code.code().starts_with(class))
        {
            transaction.batch_execute("ROLLBACK TO found").await.doing("go back to the snapshot")?;
            return Ok(Found::Unreadable(code.code().to_owned()));
        }
        let lines = lines.doing(format!("read the changed keys of {}", table.name));
        for line in lines.map_err(|error| allowed.explain(error))? {
            if let SimpleQueryMessage::Row(row) = line {
                there.insert((0..row.len()).map(|at| row.get(at).unwrap_or_default().to_owned()).collect::<Key>());
            }
        }
    }
    let disagrees = |(key, verdict): &(&Key, &Option<Verdict>)| match verdict {
        Some(Verdict::Exists) => !there.contains(*key),
        Some(Verdict::Gone) => there.contains(*key),
        None => false,
    };
    let wrong = keys.iter().filter(disagrees).count();
    if wrong > 0 && !truncated {
        return Ok(Found::Disagree(wrong));
    }
    let gone: Vec<Key> = touched.iter().filter(|key| !there.contains(*key)).cloned().collect();
    Ok(Found::Changes(Changes {
        rows: None,
        changed: there.len() as u64,
        may_have_lost: false,
        touched: Some(touched),
        gone,
        ..Changes::default()
    }))
}
