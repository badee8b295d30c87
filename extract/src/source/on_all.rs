use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use deadpool_postgres::Transaction;
use futures_util::future::try_join_all;

use crate::error::Error;

/// Does one thing to every table, on as many connections as there are: the answers by table.
pub(crate) async fn on_all<'t, T>(
    readers: &[Transaction<'_>],
    tables: impl IntoIterator<Item = &'t str>,
    work: impl AsyncFn(&Transaction<'_>, &'t str) -> Result<T, Error>,
) -> Result<BTreeMap<String, T>, Error> {
    let queue = Mutex::new(tables.into_iter());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let one = async |reader| {
        let mut done = Vec::new();
        while let Some(table) = next() {
            done.push((table.to_owned(), work(reader, table).await?));
        }
        Ok::<_, Error>(done)
    };
    Ok(try_join_all(readers.iter().map(one)).await?.into_iter().flatten().collect())
}
