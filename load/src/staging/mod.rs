//! Staging tables: temporary tables with a batch's rows and keys, filled before the lock is taken, or those that another session
//! fills ([`crate::ahead`]). Rows that come out of quarantine are added under it.
//!
//! A staging table of rows has, before the columns that the model returns, the column [`POS`](crate::target::POS): the batch that
//! brought the row, times 2^32, plus the row's place. So the order of the rows is that of the batches.

mod binary;
mod parquet;
mod sql;

use std::ops::Range;
use std::path::PathBuf;

use ::parquet::errors::ParquetError;
use arrow_array::RecordBatchReader as _;
use blackwater_base::progress::progress;
use blackwater_shared::manifest::Object;
use blackwater_shared::postgres::Doing;
use bytes::Bytes;
use futures_util::{SinkExt, pin_mut};
use tokio::sync::mpsc;
use tokio_postgres::types::Type;

pub(crate) use self::parquet::{Sent, csv, open, rows};
pub(crate) use self::sql::{Content, REASON, bytes, columns_of_rows, keys, name};
use crate::error::Error;
use crate::quarantine::set_aside;
use crate::target::Target;
use crate::warehouse::{MANY, Warehouse};

/// All rows of a star table.
pub(crate) const ALL: Range<u64> = 0..u64::MAX;

/// Stages the rows of a star table that are at the places `places`. `fetch` makes a file of an object, until it is asked for the
/// next.
pub(crate) async fn stage_rows(
    warehouse: &Warehouse<'_>,
    fetch: &impl AsyncFn(&Object) -> Result<PathBuf, Error>,
    target: &Target<'_>,
    places: &Range<u64>,
) -> Result<(), Error> {
    stage(warehouse, fetch, target, (Content::Rows, &target.table.objects, places), async |file| {
        if copy_typed(warehouse, target, &file, places).await? {
            return Ok(true);
        }
        // As bytes, so that Postgres can be asked for each value.
        warehouse.run(warehouse.doing("stage rows of", target), &sql::create(target, Content::Bytes)).await?;
        copy(warehouse, target, Content::Bytes, &file, (Some(places), Format::Csv)).await?;
        from_bytes(warehouse, target).await.map(|()| true)
    })
    .await?;
    analyze(warehouse, target, (Content::Rows, &target.table.objects)).await
}

/// Stages all rows of a star table, unless one holds what is no value of its column's type: whether none does.
pub(crate) async fn stage_if_all_fit(
    warehouse: &Warehouse<'_>,
    fetch: &impl AsyncFn(&Object) -> Result<PathBuf, Error>,
    target: &Target<'_>,
) -> Result<bool, Error> {
    let copy = async |file| copy_typed(warehouse, target, &file, &ALL).await;
    stage(warehouse, fetch, target, (Content::Rows, &target.table.objects, &ALL), copy).await
}

/// Stages the keys that a batch has for a star table.
pub(crate) async fn stage_keys(
    warehouse: &Warehouse<'_>,
    fetch: &impl AsyncFn(&Object) -> Result<PathBuf, Error>,
    target: &Target<'_>,
) -> Result<(), Error> {
    let table = target.table;
    let keys = table.keys.as_ref().map(|keys| (Content::Keys, keys));
    let named =
        [(Content::Misfits, &table.misfits), (Content::Filtered, &table.filtered), (Content::Gone, &table.gone)];
    for (content, objects) in named.into_iter().chain(keys) {
        // A key that does not fit is the fault of the table.
        let copy = async |file| copy(warehouse, target, content, &file, (None, Format::Csv)).await.map(|()| true);
        stage(warehouse, fetch, target, (content, objects, &ALL), copy).await?;
        analyze(warehouse, target, (content, objects)).await?;
    }
    Ok(())
}

/// Makes a staging table, and copies the objects there that have rows at the places `wanted`, one after the other, until one is
/// refused: whether none is.
async fn stage(
    warehouse: &Warehouse<'_>,
    fetch: &impl AsyncFn(&Object) -> Result<PathBuf, Error>,
    target: &Target<'_>,
    (content, objects, wanted): (Content, &[Object], &Range<u64>),
    copy: impl AsyncFn(ParquetFile) -> Result<bool, Error>,
) -> Result<bool, Error> {
    if objects.is_empty() && content != Content::Keys {
        return Ok(true);
    }
    warehouse.run(warehouse.doing("make a staging table for", target), &sql::create(target, content)).await?;
    let all = objects.iter().map(|object| object.rows).sum();
    let mut done = 0;
    for object in objects {
        progress(&format!("staging {}", target.name), done, all);
        let places = done..done + object.rows;
        done = places.end;
        if wanted.end <= places.start || places.end <= wanted.start {
            continue;
        }
        if !copy(ParquetFile { path: fetch(object).await?, key: object.key.clone(), places }).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Has the planner look at a staging table that has many rows.
async fn analyze(
    warehouse: &Warehouse<'_>,
    target: &Target<'_>,
    (content, objects): (Content, &[Object]),
) -> Result<(), Error> {
    if objects.iter().map(|object| object.rows).sum::<u64>() < MANY {
        return Ok(());
    }
    let sql = format!("ANALYZE {}", sql::name(target, content));
    warehouse.run(warehouse.doing("count the staged rows of", target), &sql).await
}

/// Makes the staging tables for rows that a group of tables has not got yet.
pub(crate) async fn make_for_rows(warehouse: &Warehouse<'_>, group: &[&Target<'_>]) -> Result<(), Error> {
    for target in group.iter().filter(|target| target.stage.get().is_none()) {
        let make = sql::create(target, Content::Rows);
        warehouse.run(warehouse.doing("make a staging table for", target), &make).await?;
    }
    Ok(())
}

/// A Parquet file, the key of its object, and the places of its rows among those of the star table.
struct ParquetFile {
    path: PathBuf,
    key: String,
    places: Range<u64>,
}

/// Copies rows, unless Postgres does not take something for a value of its type: whether it takes all.
async fn copy_typed(
    warehouse: &Warehouse<'_>,
    target: &Target<'_>,
    file: &ParquetFile,
    places: &Range<u64>,
) -> Result<bool, Error> {
    let columns: Vec<_> = target.columns.iter().map(|column| column.staged()).collect();
    let schema = open(&file.path).map_err(|error| file.unreadable(warehouse, &error))?.schema();
    let binary = binary::encodings(&schema, columns.iter()).map(Format::Binary);
    for format in binary.into_iter().chain([Format::Csv]) {
        let copy = async || copy(warehouse, target, Content::Rows, file, (Some(places), format.clone())).await;
        if warehouse.attempt(copy).await?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// In which format of COPY rows are sent.
#[derive(Clone, Debug)]
enum Format {
    Csv,
    Binary(Vec<binary::Encoding>),
}

/// Moves the rows of the staging table of bytes to the one of rows, and those that hold something which is no value of
/// its column's type to quarantine.
async fn from_bytes(warehouse: &Warehouse<'_>, target: &Target<'_>) -> Result<(), Error> {
    let doing = || warehouse.doing("find what does not fit in", target);
    warehouse.run(doing(), sql::FUNCTIONS).await?;
    let mut columns = Vec::new();
    for column in &target.columns {
        // To ask for each value takes long.
        let read = sql::read_all(target, column);
        if warehouse.attempt(async || warehouse.run(doing(), &read).await).await?.is_none() {
            columns.push(*column);
        }
    }
    if !columns.is_empty() {
        set_aside::rows(warehouse, target, Content::Bytes, &sql::misfits(target, &columns)).await?;
    }
    let copied = warehouse.attempt(async || warehouse.run(doing(), &sql::from_bytes(target)).await).await?;
    if copied.is_none() {
        // A row is longer than a page.
        warehouse.run(doing(), &sql::make_copy_each(target)).await?;
        set_aside::rows(warehouse, target, Content::Bytes, &sql::copy_each(target)).await?;
    }
    warehouse.run(doing(), &sql::clear_bytes(target)).await
}

/// Moves the entries of the quarantine that [`pg_temp.woken`](crate::reject::references) names to the staging table. `have_lines` says
/// that some may wait for a key that is still not there.
pub(crate) async fn take_entries(
    warehouse: &Warehouse<'_>,
    target: &Target<'_>,
    have_lines: bool,
) -> Result<u64, Error> {
    let doing = || warehouse.doing("take rows out of quarantine for", target);
    let names: Vec<_> = target.columns.iter().map(|column| column.name.as_str()).collect();
    let take = sql::take_entries(target, Content::Rows, have_lines);
    let taken =
        warehouse.attempt(async || warehouse.execute(doing(), &take, &[(&names, Type::TEXT_ARRAY)]).await).await?;
    if let Some(taken) = taken {
        return Ok(taken);
    }
    // A column may have got a type since that a row, as it was, does not fit.
    warehouse.run(doing(), &sql::create(target, Content::Bytes)).await?;
    let take = sql::take_entries(target, Content::Bytes, have_lines);
    let taken = warehouse.execute(doing(), &take, &[(&names, Type::TEXT_ARRAY)]).await?;
    from_bytes(warehouse, target).await?;
    Ok(taken)
}

impl ParquetFile {
    fn unreadable(&self, warehouse: &Warehouse<'_>, error: &ParquetError) -> Error {
        Error::Parquet { batch: warehouse.batch, object: self.key.clone(), why: error.to_string() }
    }
}

/// Copies a file, or of a file of rows those at the places `rows`, each after its number.
async fn copy(
    warehouse: &Warehouse<'_>,
    target: &Target<'_>,
    content: Content,
    file: &ParquetFile,
    (rows, format): (Option<&Range<u64>>, Format),
) -> Result<(), Error> {
    let doing = || warehouse.doing("stage rows of", target);
    let pieces = open(&file.path).map_err(|error| file.unreadable(warehouse, &error))?;
    let name = if matches!(format, Format::Csv) { "csv" } else { "binary" };
    let sent = if content == Content::Bytes { Sent::AsBytes } else { Sent::AsText };
    let sink = warehouse.transaction.copy_in(&sql::copy(target, content, name)).await.doing(doing())?;
    pin_mut!(sink);
    let (sender, mut receiver) = mpsc::channel::<Bytes>(2);
    let (batch, place, rows) = (warehouse.batch, file.places.start, rows.cloned());
    let reader = tokio::task::spawn_blocking(move || {
        let mut place = place;
        if let Format::Binary(_) = format
            && sender.blocking_send(Bytes::from_static(binary::BEGIN)).is_err()
        {
            return Ok(());
        }
        for piece in pieces {
            let mut piece = piece?;
            let places = place..place + piece.num_rows() as u64;
            place = places.end;
            let mut first = None;
            if let Some(rows) = &rows {
                let wanted = rows.start.clamp(places.start, places.end)..rows.end.clamp(places.start, places.end);
                first = Some(((batch as i64) << 32) + wanted.start as i64);
                let (from, to) = (wanted.start - places.start, wanted.end - places.start);
                piece = piece.slice(from as usize, to.saturating_sub(from) as usize);
                if places.start >= rows.end {
                    break;
                }
            }
            let lines = match &format {
                Format::Csv => csv(&piece, first, sent)?.into(),
                Format::Binary(encodings) => binary::rows(&piece, first.unwrap_or_default(), encodings).into(),
            };
            if sender.blocking_send(lines).is_err() {
                return Ok(()); // The COPY failed, and says why.
            }
        }
        if let Format::Binary(_) = format {
            let _ = sender.blocking_send(Bytes::from_static(binary::END));
        }
        Ok(())
    });
    while let Some(piece) = receiver.recv().await {
        let sent: Result<(), tokio_postgres::Error> = sink.send(piece).await;
        sent.doing(doing())?;
    }
    match reader.await {
        Ok(Ok(())) => Ok(sink.finish().await.map(drop).doing(doing())?),
        Ok(Err(error)) => Err(file.unreadable(warehouse, &error)),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}
