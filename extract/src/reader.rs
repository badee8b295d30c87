//! The source in the snapshot of a run: where changes are looked for, and rows are copied from.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use blackwater_shared::manifest::{Extracted, Object};
use blackwater_shared::pack::Pack;
use blackwater_shared::postgres::{Doing, Kind};
use deadpool_postgres::Transaction;

use crate::changes::wal::{self, Found, TableChanges};
use crate::changes::{self, Changes};
use crate::copy::{self, Copied, Destination};
use crate::error::Error;
use crate::plan::{Cut, Plan, bytes_left};
use crate::source::catalogue::Table;
use crate::source::limit::Limit;
use crate::source::on_all;
use crate::sql::{self, Predicate, RowSelection, Server, SourceTable};

/// A daily count of a table's rows takes no longer.
const COUNT: Duration = Duration::from_secs(60);

/// The source in the snapshot of a run.
pub(crate) struct Reader<'a> {
    /// The transactions that share the snapshot.
    pub(crate) transactions: &'a [Transaction<'a>],
    pub(crate) server: Server,
    pub(crate) schema: &'a str,
    pub(crate) pack: &'a Pack,
    pub(crate) tables: &'a BTreeMap<String, Table>,
    /// The newest batch before the run, if its markers hold.
    pub(crate) newest: Option<&'a Extracted>,
    /// Whether no transaction has begun or ended since that batch, so that nothing can have changed.
    pub(crate) is_quiet: bool,
    /// What the write-ahead log says of tables.
    pub(crate) named: &'a BTreeMap<String, TableChanges>,
    /// Whether the rows of these are counted all the same.
    pub(crate) counts: bool,
    /// How long a statement may take.
    pub(crate) limit: Limit,
}

/// The rows of which tables a look for changes counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Count {
    /// Those that the log holds, and all rows of tables that models look up.
    Held,
    /// All rows of every table.
    All,
}

impl<'a> Reader<'a> {
    /// The transactions whose rows the log had delivered before the run.
    pub(crate) fn seen(&self) -> &'a [u64] {
        self.newest.and_then(|newest| newest.seen.as_deref()).unwrap_or_default()
    }

    /// What selects the rows of a batch: what changed according to `changes`, and what is due.
    pub(crate) fn selection<'s>(
        &'s self,
        plan: &'s Plan,
        changes: &'s BTreeMap<String, Changes>,
        cut: &'s Cut,
    ) -> RowSelection<'s> {
        let table = |name: &'s String| {
            let touched = changes[name].touched.as_deref();
            (name.as_str(), SourceTable { touched, ..self.table(name, plan, cut) })
        };
        RowSelection {
            tables: self.tables.keys().map(table).collect(),
            changes,
            models: self.pack.models.values().collect(),
        }
    }

    /// A table as the queries of a batch read it.
    fn table<'s>(&'s self, name: &'s str, plan: &'s Plan, cut: &'s Cut) -> SourceTable<'s> {
        let (server, schema, definition, seen) = (self.server, self.schema, &self.tables[name], self.seen());
        let (since, unread, due) = (plan[name].since.as_ref(), &plan[name].unread, cut.due(name));
        SourceTable { server, schema, name, definition, since, touched: None, seen, unread, due, by_leaves: false }
    }

    /// Whether a model looks up rows of the table.
    pub(crate) fn is_looked_up(&self, table: &str) -> bool {
        let selects = self.pack.models.values().flat_map(|model| &model.selects);
        selects.flat_map(|select| &select.tables[1..]).any(|looked_up| looked_up.name == table)
    }

    /// Looks for what changed in each table.
    pub(crate) async fn changes(&self, plan: &Plan, count: Count) -> Result<BTreeMap<String, Changes>, Error> {
        let nothing = Cut::default();
        let tables = self.tables.keys().map(String::as_str);
        on_all(self.transactions, tables, async |transaction, name| {
            let table = self.table(name, plan, &nothing);
            let known = self.newest.and_then(|newest| newest.tables.get(name));
            if let (true, Some(known), Some(_)) = (self.is_quiet, known, table.since)
                && (known.rows.is_some() || !self.counts)
            {
                return Ok(Changes { rows: known.rows, ..Changes::default() });
            }
            let mut is_suspect = false;
            match self.named_changes(transaction, &table).await? {
                Some(Found::Changes(changes)) => return Ok(changes),
                Some(Found::Disagree(keys)) => {
                    tracing::error!(table = name, keys, "the log and the snapshot disagree; the table is scanned");
                    is_suspect = true;
                }
                Some(Found::Unreadable(code)) => {
                    tracing::info!(table = name, code, "a key in the log cannot be read; the table is scanned");
                }
                None => {}
            }
            let counted = if count == Count::All { Predicate::Always } else { self.counted(&table) };
            let changes = changes::scan((transaction, self.limit), &table, known, &counted).await?;
            Ok(Changes { is_suspect, ..changes })
        })
        .await
    }

    /// The changes of a table that the write-ahead log names.
    async fn named_changes(
        &self,
        transaction: &Transaction<'_>,
        table: &SourceTable<'_>,
    ) -> Result<Option<Found>, Error> {
        let named = self.named.get(table.name).filter(|_| table.since.is_some_and(|since| since.heaps.is_empty()));
        let Some((named, keys)) = named.and_then(|named| Some((named, wal::keys(named)?))) else { return Ok(None) };
        let mut found = wal::found((transaction, self.limit), table, keys, named).await?;
        if let Found::Changes(changes) = &mut found
            && self.counts
        {
            changes.rows = self.count(transaction, table).await?;
        }
        Ok(Some(found))
    }

    /// The rows of a table that are counted: those that the log holds, or all if a model looks them up.
    fn counted(&self, table: &SourceTable<'_>) -> Predicate {
        if self.is_looked_up(table.name) { Predicate::Always } else { table.read("t") }
    }

    /// Counts the rows of a table that the log holds, to check what it said. That must not keep a run from anything else: `None`
    /// if it takes too long.
    async fn count(&self, transaction: &Transaction<'_>, table: &SourceTable<'_>) -> Result<Option<u64>, Error> {
        let doing = || format!("count the rows of {}", table.name);
        let counted = self.counted(table);
        let allowed = self.limit.halved().halved().now().within(COUNT);
        transaction.batch_execute(&format!("SAVEPOINT counted; {}", allowed.sql())).await.doing(doing())?;
        match transaction.query_one(&sql::count(table, &counted), &[]).await.doing(doing()) {
            Ok(row) => Ok(Some(row.get::<_, i64>(0) as u64)),
            Err(error) if error.kind == Kind::Cancelled => {
                transaction.batch_execute("ROLLBACK TO counted").await.doing(doing())?;
                tracing::info!(table = table.name, "there was no time to count its rows");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The tables of which more rows come again than fit a batch of `bytes`: those that look up a row that changed come, too.
    pub(crate) async fn too_large(
        &self,
        plan: &Plan,
        changes: &BTreeMap<String, Changes>,
        bytes: u64,
    ) -> Result<Vec<String>, Error> {
        let nothing = Cut::default();
        let selection = self.selection(plan, changes, &nothing);
        let large = self.tables.iter().filter(|(_, table)| table.bytes() > bytes).map(|(name, _)| name.as_str());
        let number = async |transaction: &Transaction<'_>, sql: &str, doing: String| {
            let allowed = self.limit.set(transaction).await?;
            let row = transaction.query_one(sql, &[]).await.doing(doing);
            Ok::<_, Error>(row.map_err(|error| allowed.explain(error))?.get::<_, i64>(0) as u64)
        };
        let counts = on_all(self.transactions, large, async |transaction, name| {
            let Some(sql) = selection.again(name) else { return Ok((0, 0)) };
            let again = number(transaction, &sql, format!("count the rows of {name} that come again")).await?;
            let table = &self.tables[name];
            let uncounted = match changes[name].rows {
                Some(_) if !self.is_looked_up(name) => bytes_left(table, &plan[name].unread),
                _ => 0,
            };
            let rows = match changes[name].rows {
                Some(rows) => rows,
                // Nobody counted them: as many as the server thinks, if it has an idea.
                None if again == 0 || table.rows > 0 => table.rows,
                None => {
                    number(
                        transaction,
                        &sql::count(&selection.tables[name], &self.counted(&selection.tables[name])),
                        format!("count the rows of {name}"),
                    )
                    .await?
                }
            };
            Ok((again, table.bytes().saturating_sub(uncounted) / rows.max(1)))
        });
        let is_too_large =
            |(name, (count, of_row)): (String, (u64, u64))| (count.saturating_mul(of_row) > bytes).then_some(name);
        Ok(counts.await?.into_iter().filter_map(is_too_large).collect())
    }

    /// Copies the rows that a batch holds.
    pub(crate) async fn copy_rows(
        &self,
        selection: &RowSelection<'_>,
        to: &Destination<'_>,
    ) -> Result<BTreeMap<String, Copied>, Error> {
        let limit = self.limit.halved();
        on_all(self.transactions, selection.tables.keys().copied(), async |transaction, name| {
            copy::rows((transaction, limit), (name, &selection.rows(name)), to, self.server.bounds).await
        })
        .await
    }

    /// Copies all keys of some tables.
    pub(crate) async fn copy_keys(
        &self,
        selection: &RowSelection<'_>,
        tables: &BTreeSet<&str>,
        to: &Destination<'_>,
    ) -> Result<BTreeMap<String, Vec<Object>>, Error> {
        let limit = self.limit.halved();
        on_all(self.transactions, tables.iter().copied(), async |transaction, name| {
            copy::keys((transaction, limit), (name, &sql::keys(&selection.tables[name])), to).await
        })
        .await
    }

    /// Writes the keys of rows that are gone.
    pub(crate) async fn write_gone<'g>(
        &self,
        selection: &RowSelection<'_>,
        gone: impl Iterator<Item = (&'g String, &'g Changes)>,
        to: &Destination<'_>,
    ) -> Result<BTreeMap<String, Vec<Object>>, Error> {
        let mut written = BTreeMap::new();
        for (name, changes) in gone {
            let query = sql::keys(&selection.tables[name.as_str()]);
            written.insert(name.clone(), copy::gone((name, &query), &changes.gone, to).await?);
        }
        Ok(written)
    }
}
