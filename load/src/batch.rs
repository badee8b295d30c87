//! One batch on its way into the warehouse.

use std::cmp::Ordering as Compared;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use blackwater_shared::manifest::{StarTable, Transformed};
use blackwater_shared::postgres::{Doing, qualified};
use blackwater_shared::store::Store;
use chrono::{DateTime, Utc};
use deadpool_postgres::Transaction;

use crate::catalogue::{self, Column, Star, Writing};
use crate::error::Error;
use crate::star::{REASON, Target};
use crate::{Counts, TableReport};

/// A batch, and the transaction that applies it.
pub(crate) struct Batch<'a> {
    pub(crate) transaction: &'a Transaction<'a>,
    /// The processed bucket.
    pub(crate) store: &'a Store,
    /// The star schema.
    pub(crate) schema: &'a str,
    pub(crate) number: u64,
    /// The source's time of the snapshot.
    pub(crate) at: DateTime<Utc>,
    /// A folder for temporary files.
    pub(crate) folder: &'a Path,
    pub(crate) temporaries: AtomicU32,
}

/// What a batch did.
#[derive(Default)]
pub(crate) struct Applied {
    pub(crate) tables: Vec<TableReport>,
    /// The source tables of which the warehouse holds more rows than there were.
    pub(crate) wanted: BTreeSet<String>,
    /// The source rows of the star tables where the warehouse knows of as many.
    pub(crate) agreed: BTreeMap<String, u64>,
    pub(crate) notices: Vec<String>,
}

impl Batch<'_> {
    /// A name for a temporary table, quoted.
    pub(crate) fn temporary(&self) -> String {
        format!("pg_temp.stage_{}", self.temporaries.fetch_add(1, Ordering::Relaxed))
    }

    /// Does `work`; undoes it if a value or a constraint is at fault: `None`.
    pub(crate) async fn attempt<T>(
        &self,
        doing: String,
        work: impl AsyncFnOnce() -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        let execute = async |sql: &str| self.transaction.batch_execute(sql).await.doing(doing.as_str());
        execute("SAVEPOINT attempt").await?;
        let done = match work().await {
            Err(Error::Postgres(error)) if error.is_of_data() => {
                execute("ROLLBACK TO attempt").await?;
                None
            }
            done => Some(done?),
        };
        execute("RELEASE attempt").await?;
        Ok(done)
    }

    /// Applies the star tables, those first that others refer to. `agreed` are the source rows of the star tables
    /// where the warehouse knew of as many after the batch before; `None` says that the tables are not as they
    /// were, and may take now what they refused before.
    pub(crate) async fn apply(
        &self,
        manifest: &Transformed,
        agreed: Option<BTreeMap<String, u64>>,
    ) -> Result<Applied, Error> {
        let names: Vec<_> = manifest.tables.keys().map(String::as_str).collect();
        let stars = catalogue::read(self.transaction, self.schema, &names).await?;
        let order = catalogue::in_order(self.transaction, self.schema, &names).await?;
        let targets = order.iter().map(|name| self.target(name, &manifest.tables[*name], stars.get(*name)));
        let targets = targets.collect::<Result<Vec<_>, _>>()?;

        let mut counts: BTreeMap<&str, Counts> = BTreeMap::new();
        let mut waiting = self.waiting().await?;
        for target in &targets {
            let mut of_table = Counts::default();
            if waiting.contains(target.name) {
                of_table.add(target.release(agreed.is_none()).await?);
            }
            of_table.add(self.table(target, &manifest.tables[target.name]).await?);
            counts.insert(target.name, of_table);
        }
        // What waited for a row of this batch, until nothing moves.
        waiting = self.waiting().await?;
        loop {
            let mut released = 0;
            for target in targets.iter().filter(|target| waiting.contains(target.name)) {
                let again = target.release(false).await?;
                released += again.released;
                if let Some(of_table) = counts.get_mut(target.name) {
                    of_table.add(again);
                }
            }
            if released == 0 {
                break;
            }
        }

        // What the batch has nothing for, and what has as many rows as before, is as it was.
        let mut agreed = agreed.unwrap_or_default();
        agreed.retain(|name, rows| {
            let table = manifest.tables.get(name);
            let is_untouched = counts.get(name.as_str()) == Some(&Counts::default());
            is_untouched
                && table.is_some_and(|t| t.is_empty() && t.driving.as_ref().is_some_and(|d| d.rows == Some(*rows)))
        });
        let mut applied = self.count(&targets, manifest, agreed).await?;
        for (name, of_table) in counts.into_iter().filter(|(_, of_table)| *of_table != Counts::default()) {
            applied.tables.push(TableReport { table: name.into(), counts: of_table });
        }
        Ok(applied)
    }

    /// Compares how many source rows the warehouse knows of with how many there are.
    async fn count(
        &self,
        targets: &[Target<'_>],
        manifest: &Transformed,
        agreed: BTreeMap<String, u64>,
    ) -> Result<Applied, Error> {
        let mut applied = Applied { agreed, ..Applied::default() };
        let counted = targets.iter().filter(|target| !applied.agreed.contains_key(target.name)).filter_map(|target| {
            let table = &manifest.tables[target.name];
            let driving = table.driving.as_ref()?;
            Some((target.name, table, (&driving.table, driving.rows?), target.held()?))
        });
        let counted: Vec<_> = counted.collect();
        let queries: Vec<_> = counted.iter().map(|(.., query)| format!("({query})")).collect();
        let sql = format!("SELECT ARRAY[{}]::bigint[]", queries.join(", "));
        let row = self.transaction.query_one(&sql, &[]).await.doing("count the rows of the star tables")?;
        let held: Vec<i64> = row.get(0);
        for ((name, table, (driving, rows), _), held) in counted.into_iter().zip(held) {
            match (held as u64).cmp(&rows) {
                Compared::Equal => drop(applied.agreed.insert(name.to_owned(), rows)),
                Compared::Greater if table.keys.is_none() => drop(applied.wanted.insert(driving.clone())),
                _ => applied.notices.push(format!(
                    "{name} holds {held} rows of {driving}, which has {rows}; something else wrote to it. Run `blackwater \
                     extract --full {driving}`"
                )),
            }
        }
        Ok(applied)
    }

    /// How the batch writes to a star table, if it can.
    pub(crate) fn target<'a>(
        &'a self,
        name: &'a str,
        model: &StarTable,
        star: Option<&'a Star>,
    ) -> Result<Target<'a>, Error> {
        let refuse = |why: String| Error::Table { batch: self.number, table: name.into(), why };
        let no_table = || format!("schema {} has no plain table of that name\nAdd it to schema.sql", self.schema);
        let star = star.ok_or_else(|| refuse(no_table()))?;
        if let Some(problem) = star.problems(name, model).into_iter().next() {
            return Err(refuse(problem));
        }
        let returned: Vec<_> = model.columns.iter().map(|column| column.name.as_str()).collect();
        let writing = star.writing(&returned).map_err(refuse)?;
        let columns: Vec<_> = returned.iter().filter_map(|name| star.column(name)).collect();
        let key = match (&model.driving, writing) {
            (Some(driving), _) => driving.key.iter().map(|column| column.name.clone()).collect(),
            (None, Writing::Upsert(key)) => key.to_vec(),
            (None, Writing::History { .. }) => Vec::new(),
        };
        let key: Vec<&Column> = key.iter().filter_map(|name| star.column(name)).collect();
        let foreign = model.driving.iter().flat_map(|driving| &driving.key).filter(|key| key.kind.contains('.'));
        let foreign = foreign.map(|key| key.name.clone()).collect();
        Ok(Target { batch: self, name, quoted: qualified(self.schema, name), star, writing, columns, key, foreign })
    }

    /// Writes the batch's rows of one star table.
    async fn table(&self, target: &Target<'_>, table: &StarTable) -> Result<Counts, Error> {
        let StarTable { objects, misfits, filtered, keys, .. } = table;
        let mut counts = Counts::default();
        if !objects.is_empty() || !misfits.is_empty() {
            let rows = target.rows(&[]).await?.fill(objects).await?;
            counts.add(rows.land().await?);
            if !misfits.is_empty() {
                target.keys(&[REASON]).await?.fill(misfits).await?.quarantine().await?;
            }
            counts.quarantined = target.settle(&rows).await?;
        }
        if !filtered.is_empty() {
            counts.deleted += target.filter(&target.keys(&[]).await?.fill(filtered).await?).await?;
        }
        if let Some(keys) = keys {
            counts.deleted += target.delete_all_but(&target.keys(&[]).await?.fill(keys).await?).await?;
        }
        Ok(counts)
    }

    /// The star tables with rows in quarantine that could be tried again.
    async fn waiting(&self) -> Result<BTreeSet<String>, Error> {
        let sql = "SELECT DISTINCT star_table FROM blackwater.quarantine WHERE star_schema = $1 AND NOT discarded AND star_row IS NOT NULL";
        let rows = self.transaction.query(sql, &[&self.schema]).await.doing("read the quarantine")?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }
}
