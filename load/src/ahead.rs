//! Staging ahead: a second session stages the large star tables of a batch, and then those of the next one, while the first writes
//! what is staged. The session that writes is the slower one, so one that stages is enough.
//!
//! What it stages is in unlogged tables of schema `blackwater`, which `blackwater.staged` lists. The batch's transaction drops those
//! that it used. What a run leaves that was killed, or came too late, is dropped when its batch is applied.

use blackwater_base::deadline::Deadline;
use blackwater_base::temporary;
use blackwater_shared::manifest::{StarTable, Transformed};
use blackwater_shared::postgres::{self, Doing};
use deadpool_postgres::Object;
use futures_util::FutureExt;
use futures_util::future::{Either, select};
use tokio::sync::mpsc;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::error::Error;
use crate::target::Target;
use crate::warehouse::{Parameters, Warehouse};
use crate::{Load, apply, bulk, catalogue, ledger, part, staging};

/// So many rows of a star table are staged ahead: another session and a table that is no temporary one cost as much as to stage a
/// few thousand rows.
const LARGE: u64 = 10_000;

/// Whether the rows of a star table are staged ahead.
pub(crate) fn is_large(table: &StarTable) -> bool {
    table.rows() >= LARGE
}

/// What is staged ahead, a table at a time, in the order in which it is written.
pub(crate) struct Ahead {
    /// Asks for a batch and those that follow it.
    asked: mpsc::Sender<Transformed>,
    /// The next table, if it has come; `None` after the last one of those asked for.
    next: Option<Staged>,
    coming: mpsc::Receiver<Option<Staged>>,
    /// Whether more may come.
    is_asked: bool,
}

/// Does `work`, and stages beside it what that asks for, and of the batches that follow those up to `last`.
pub(crate) async fn beside<T>(
    load: &Load,
    (deadline, last): (Deadline, u64),
    work: impl AsyncFnOnce(&mut Ahead) -> T,
) -> T {
    let (asked, requests) = mpsc::channel(1);
    let (sender, coming) = mpsc::channel(1);
    let mut ahead = Ahead { asked, next: None, coming, is_asked: false };
    // On the heap: the compiler gives up on futures that are nested so deep.
    let work = work(&mut ahead).boxed_local();
    let stage = stage(load, (deadline, last), requests, sender).boxed_local();
    match select(work, stage).await {
        Either::Left((done, _)) => done,
        Either::Right(((), work)) => work.await,
    }
}

/// A table that is staged.
struct Staged {
    batch: u64,
    /// The run of transform that made the batch.
    transformed: Uuid,
    star_table: String,
    /// Its number in `blackwater.staged`.
    id: i64,
    /// The columns that it has, in SQL.
    columns: String,
}

impl Ahead {
    /// Waits until the first large table of a batch is staged; asks for the batch if nothing has. `false` if nothing of it is
    /// staged ahead.
    pub(crate) async fn has(&mut self, manifest: &Transformed) -> bool {
        if !manifest.tables.values().any(is_large) {
            return false;
        }
        self.skip_to(manifest.head.batch).await;
        if self.next.is_none() {
            self.is_asked = self.asked.send(manifest.clone()).await.is_ok();
            self.skip_to(manifest.head.batch).await;
        }
        self.next.as_ref().is_some_and(|staged| staged.batch == manifest.head.batch)
    }

    /// Waits for the next table of a batch, or a later one.
    async fn skip_to(&mut self, batch: u64) {
        while self.is_asked && self.next.as_ref().is_none_or(|staged| staged.batch < batch) {
            self.next = self.coming.recv().await.flatten();
            self.is_asked = self.next.is_some();
        }
    }

    /// Has a target use the table that was staged for it: whether there is one with its rows.
    pub(crate) async fn bring(
        &mut self,
        warehouse: &Warehouse<'_>,
        target: &Target<'_>,
        transformed: Uuid,
    ) -> Result<bool, Error> {
        self.skip_to(warehouse.batch).await;
        let is_it = |staged: &mut Staged| {
            staged.batch == warehouse.batch
                && staged.transformed == transformed
                && staged.star_table == target.name
                && staged.columns == staging::columns_of_rows(target)
        };
        let Some(staged) = self.next.take_if(is_it) else { return Ok(false) };
        // A server that crashed meanwhile has emptied it.
        let one = format!("SELECT FROM {} LIMIT 1", table(staged.id));
        let rows = warehouse.query(warehouse.doing("look for the staged rows of", target), &one, &[]).await?;
        Ok(!rows.is_empty() && target.stage.set(staged.id).is_ok())
    }
}

/// Stages what is asked for.
async fn stage(
    load: &Load,
    until: (Deadline, u64),
    mut requests: mpsc::Receiver<Transformed>,
    sender: mpsc::Sender<Option<Staged>>,
) {
    while let Some(manifest) = requests.recv().await {
        if let Err(error) = stage_batches(load, until, manifest, &sender).await {
            // The session that writes stages for itself, and says what is wrong.
            tracing::debug!("not staged ahead: {error}");
        }
        if sender.send(None).await.is_err() {
            return;
        }
    }
}

/// Stages the large tables of a batch and of those that follow it, until there is none.
async fn stage_batches(
    load: &Load,
    (deadline, last): (Deadline, u64),
    mut manifest: Transformed,
    sender: &mpsc::Sender<Option<Staged>>,
) -> Result<(), Error> {
    let mut client = load.warehouse.connect().await?;
    let folder = temporary::folder()?;
    let path = folder.path().join("rows.parquet");
    let fetch = async |object: &_| Ok(load.log.download(object, &path).await.map(|()| path.clone())?);
    while manifest.tables.values().any(is_large) {
        let (head, tables) = (&manifest.head, &manifest.tables);
        let doing = || format!("stage batch {}", head.batch);
        let transaction = client.transaction().await.doing(doing())?;
        let partly = ledger::partly(transaction.client(), &load.schema, head.batch).await?;
        if part::is_cut(&partly, deadline.left().is_some()) {
            return Ok(());
        }
        let names: Vec<_> = tables.keys().map(String::as_str).collect();
        let mut stars = catalogue::read(&transaction, &load.schema, &names).await?;
        bulk::add_references(&transaction, &load.schema, &mut stars).await?;
        transaction.rollback().await.doing(doing())?;
        let of = (head.batch, load.schema.as_str());
        let targets = apply::targets(of, tables, &stars)?;
        for target in apply::groups(&targets).into_iter().flatten().filter(|target| is_large(target.table)) {
            let transaction = client.transaction().await.doing(doing())?;
            let warehouse = Warehouse::begin(&transaction, &load.schema, (head.batch, head.at), deadline).await?;
            let note = "INSERT INTO blackwater.staged (star_schema, batch) VALUES ($1, $2) RETURNING id";
            let parameters: Parameters<'_> = &[(&load.schema, Type::TEXT), (&(head.batch as i64), Type::INT8)];
            let noted = warehouse.query(warehouse.doing("stage rows of", target), note, parameters).await?;
            let Some(id) = noted.first().map(|row| row.get(0)) else { return Ok(()) };
            let _ = target.stage.set(id);
            if !staging::stage_if_all_fit(&warehouse, &fetch, target).await? {
                continue;
            }
            transaction.commit().await.doing(doing())?;
            // After the commit it notes in each row that it is there, too, which the first to read it would have to do.
            client.batch_execute(&format!("ANALYZE {}", table(id))).await.doing(doing())?;
            let staged = Staged {
                batch: head.batch,
                transformed: head.run,
                star_table: target.name.to_owned(),
                id,
                columns: staging::columns_of_rows(target),
            };
            if sender.send(Some(staged)).await.is_err() {
                return Ok(());
            }
        }
        if head.batch >= last {
            return Ok(());
        }
        let Some(next) = load.log.read(head.batch + 1).await? else { return Ok(()) };
        manifest = next;
    }
    Ok(())
}

/// A table that is staged ahead, in SQL.
pub(crate) fn table(id: i64) -> String {
    format!("blackwater.staged_{id}")
}

/// Drops the tables that were staged ahead for these targets.
pub(crate) async fn drop_used(warehouse: &Warehouse<'_>, targets: &[Target<'_>]) -> Result<(), Error> {
    let used: Vec<i64> = targets.iter().filter_map(|target| target.stage.get().copied()).collect();
    match used.is_empty() {
        true => Ok(()),
        false => warehouse.run("drop the staging tables", &drop_tables(&used)).await,
    }
}

/// Drops what was staged for batches that are applied. It waits for nobody: what is still in use is dropped by another run.
pub(crate) async fn sweep(client: &mut Object, star_schema: &str, applied: u64) -> Result<(), Error> {
    let doing = "drop what an earlier run staged";
    let left = "SELECT id FROM blackwater.staged WHERE star_schema = $1 AND batch <= $2";
    let parameters: Parameters<'_> = &[(&star_schema, Type::TEXT), (&(applied as i64), Type::INT8)];
    let left = client.query_typed(left, parameters).await.doing(doing)?;
    let left: Vec<i64> = left.iter().map(|row| row.get(0)).collect();
    if left.is_empty() {
        return Ok(());
    }
    let transaction = client.transaction().await.doing(doing)?;
    let drop = format!("SET LOCAL lock_timeout = '1s'; {}", drop_tables(&left));
    match transaction.batch_execute(&drop).await {
        Ok(()) => Ok(transaction.commit().await.doing(doing)?),
        Err(error) => {
            tracing::debug!("{doing}: {}", postgres::explain(&error));
            Ok(())
        }
    }
}

fn drop_tables(ids: &[i64]) -> String {
    let tables: Vec<_> = ids.iter().map(|id| table(*id)).collect();
    let ids: Vec<_> = ids.iter().map(i64::to_string).collect();
    format!(
        "DROP TABLE IF EXISTS {}; DELETE FROM blackwater.staged WHERE id IN ({})",
        tables.join(", "),
        ids.join(", ")
    )
}
