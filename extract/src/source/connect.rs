//! Connections to the source, as many as a run reads tables at once.

use deadpool_postgres::Object;
use futures_util::future::try_join_all;

use super::catalogue;
use super::limit::Allowed;
use crate::Extract;
use crate::error::Error;

/// The heaps above which a run reads one table at a time. Each connection that reads holds a lock on every heap and its
/// indexes, of which a server has some thousands for all sessions, and a description of each in memory.
const MANY_HEAPS: usize = 500;

impl Extract {
    /// Connects, and makes sure that the tables can be read.
    pub(crate) async fn connect(&self, allowed: &Allowed, tables: &[String]) -> Result<Vec<Object>, Error> {
        let mut first = self.source.connect().await?;
        let heaps = self.check_tables(&mut first, allowed, tables).await?;
        let connections = if heaps > MANY_HEAPS { 1 } else { self.connections.min(tables.len()) };
        let others = try_join_all((1..connections).map(|_| self.source.connect())).await?;
        Ok(std::iter::once(first).chain(others).collect())
    }

    /// Makes sure that the tables can be read: the number of their heaps.
    pub(crate) async fn check_tables(
        &self,
        client: &mut Object,
        allowed: &Allowed,
        tables: &[String],
    ) -> Result<usize, Error> {
        let transaction = allowed.begin(client).await?;
        if let Some(error) = catalogue::check(&transaction, &self.schema, &self.pack).await?.into_iter().next() {
            return Err(error);
        }
        catalogue::count_heaps(&transaction, &self.schema, tables).await
    }
}
