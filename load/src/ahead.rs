//! Staging ahead: a second session stages the large star tables of a batch, and then those of the next one, while the first writes
//! what is staged. The session that writes is the slower one, so one that stages is enough.
//!
//! What it stages is in unlogged tables of schema `blackwater`, which `blackwater.staged` lists. They are dropped when their batch is
//! in; and what a run leaves that was killed or failed, when the next one begins.

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
    may_come: bool,
}

/// Does `work`, and stages beside it what that asks for, and of the batches that follow those up to `last`.
pub(crate) async fn beside<T>(
    load: &Load,
    (deadline, last): (Deadline, u64),
    work: impl AsyncFnOnce(&mut Ahead) -> T,
) -> T {
    let (asked, requests) = mpsc::channel(1);
    let (sender, coming) = mpsc::channel(1);
    let mut ahead = Ahead { asked, next: None, coming, may_come: false };
    // On the heap: the compiler gives up on futures that are nested so deep.
    let work = work(&mut ahead).boxed_local();
    let stage = async {
        if let Err(error) = stage(load, (deadline, last), requests, sender).await {
            // The session that writes stages for itself, and says what is wrong.
            tracing::debug!("not staged ahead: {error}");
        }
    };
    match select(work, stage.boxed_local()).await {
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
    /// The columns that it has, in SQL.
    columns: String,
    /// Its number in `blackwater.staged`; `None` if a row does not fit.
    id: Option<i64>,
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
            self.may_come = self.asked.send(manifest.clone()).await.is_ok();
            self.skip_to(manifest.head.batch).await;
        }
        self.next.as_ref().is_some_and(|staged| staged.batch == manifest.head.batch)
    }

    /// Waits for the next table of a batch, or a later one.
    async fn skip_to(&mut self, batch: u64) {
        while self.may_come && self.next.as_ref().is_none_or(|staged| staged.batch < batch) {
            self.next = self.coming.recv().await.flatten();
            self.may_come = self.next.is_some();
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
        let Some(id) = self.next.take_if(is_it).and_then(|staged| staged.id) else { return Ok(false) };
        // Another load may have dropped it. What is read cannot be dropped before the end of the batch.
        let one = format!("SELECT FROM {} LIMIT 1", table(id));
        let read = async || warehouse.query(warehouse.doing("read the staged rows of", target), &one, &[]).await;
        let rows = warehouse.attempt(read).await?;
        Ok(rows.is_some_and(|rows| !rows.is_empty()) && target.stage.set(id).is_ok())
    }
}

/// Stages what is asked for.
async fn stage(
    load: &Load,
    (deadline, last): (Deadline, u64),
    mut requests: mpsc::Receiver<Transformed>,
    sender: mpsc::Sender<Option<Staged>>,
) -> Result<(), Error> {
    while let Some(manifest) = requests.recv().await {
        let mut client = load.warehouse.connect().await?;
        let mut next = Some(manifest);
        while let Some(manifest) = next
            && stage_batch(load, &mut client, deadline, &manifest, &sender).await?
            && manifest.head.batch < last
        {
            next = load.log.read(manifest.head.batch + 1).await?;
        }
        if sender.send(None).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Stages the large tables of a batch: `false` if it has none, or nobody wants them.
async fn stage_batch(
    load: &Load,
    client: &mut Object,
    deadline: Deadline,
    manifest: &Transformed,
    sender: &mpsc::Sender<Option<Staged>>,
) -> Result<bool, Error> {
    let (head, tables) = (&manifest.head, &manifest.tables);
    if !tables.values().any(is_large) {
        return Ok(false);
    }
    let doing = || format!("stage batch {}", head.batch);
    let transaction = client.transaction().await.doing(doing())?;
    // It limits the time of statements.
    Warehouse::begin(&transaction, &load.schema, (head.batch, head.at), deadline).await?;
    let partly = ledger::partly(transaction.client(), &load.schema, head.batch).await?;
    if part::is_cut(&partly, deadline.left().is_some()) {
        return Ok(false);
    }
    let names: Vec<_> = tables.keys().map(String::as_str).collect();
    let mut stars = catalogue::read(&transaction, &load.schema, &names).await?;
    bulk::add_references(&transaction, &load.schema, &mut stars).await?;
    transaction.rollback().await.doing(doing())?;
    let folder = temporary::folder()?;
    let path = folder.path().join("rows.parquet");
    let fetch = async |object: &_| Ok(load.log.download(object, &path).await.map(|()| path.clone())?);
    let targets = apply::targets((head.batch, &load.schema), tables, &stars)?;
    for target in apply::groups(&targets).into_iter().flatten().filter(|target| is_large(target.table)) {
        let transaction = client.transaction().await.doing(doing())?;
        let warehouse = Warehouse::begin(&transaction, &load.schema, (head.batch, head.at), deadline).await?;
        let note = "INSERT INTO blackwater.staged (star_schema, batch) VALUES ($1, $2) RETURNING id";
        let parameters: Parameters<'_> = &[(&load.schema, Type::TEXT), (&(head.batch as i64), Type::INT8)];
        let noted = warehouse.query(warehouse.doing("stage rows of", target), note, parameters).await?;
        let id = noted.first().map_or(0, |row| row.get(0));
        let _ = target.stage.set(id);
        let all_fit = staging::stage_if_all_fit(&warehouse, &fetch, target).await?;
        if all_fit {
            transaction.commit().await.doing(doing())?;
            // After the commit it notes in the rows that they are there, too, which the first to read them would have to do.
            let transaction = client.transaction().await.doing(doing())?;
            let warehouse = Warehouse::begin(&transaction, &load.schema, (head.batch, head.at), deadline).await?;
            warehouse
                .run(warehouse.doing("count the staged rows of", target), &format!("ANALYZE {}", table(id)))
                .await?;
            transaction.commit().await.doing(doing())?;
        }
        let staged = Staged {
            batch: head.batch,
            transformed: head.run,
            star_table: target.name.to_owned(),
            columns: staging::columns_of_rows(target),
            id: all_fit.then_some(id),
        };
        if sender.send(Some(staged)).await.is_err() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A table that is staged ahead, in SQL.
pub(crate) fn table(id: i64) -> String {
    format!("blackwater.staged_{id}")
}

/// Drops what was staged for batches up to `last`. What somebody reads is dropped by another run.
pub(crate) async fn sweep(client: &mut Object, star_schema: &str, last: u64) -> Result<(), Error> {
    let doing = "drop what was staged";
    let staged = "SELECT id FROM blackwater.staged WHERE star_schema = $1 AND batch <= $2 ORDER BY id";
    let parameters: Parameters<'_> = &[(&star_schema, Type::TEXT), (&(last as i64), Type::INT8)];
    let staged = client.query_typed(staged, parameters).await.doing(doing)?;
    for id in staged.iter().map(|row| row.get(0)) {
        let transaction = client.transaction().await.doing(doing)?;
        // Another load uses what it has staged.
        if !ledger::try_lock(transaction.client(), star_schema).await? {
            break;
        }
        // Longer than Postgres waits until it stops an autovacuum that is in the way.
        let drop = format!(
            "SET LOCAL lock_timeout = '2s'; DROP TABLE IF EXISTS {}; DELETE FROM blackwater.staged WHERE id = {id}",
            table(id)
        );
        match transaction.batch_execute(&drop).await {
            Ok(()) => transaction.commit().await.doing(doing)?,
            Err(error) => tracing::warn!("{} stays for now: {}", table(id), postgres::explain(&error)),
        }
    }
    Ok(())
}
