//! Transform: the star tables of each batch, as Parquet in the processed bucket, completed by a
//! manifest.
//!
//! A batch stands by itself: its star rows are a function of the batch and the model pack, so any
//! number of runs may make any batches in any order, and the first to commit one wins.

mod error;
mod star;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use blackwater_shared::PROGRAM;
use blackwater_shared::log::{self, Applied, Commit, Log};
use blackwater_shared::manifest::{Extracted, FORMAT, Head, StarTable, Table, Transformed, mark};
use blackwater_shared::model::Model;
use blackwater_shared::pack::Pack;
use blackwater_shared::store::{Object, Store, data_key};
use serde::Serialize;
use tokio::io::AsyncReadExt;
use uuid::Uuid;

pub use error::Error;
use star::{Fault, StarFile};

/// Transform with its clients, for any number of runs.
#[derive(Clone)]
pub struct Transform {
    ingestion: Log,
    processed: Log,
    pack: Pack,
}

/// What a run did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The batches that it made, in order.
    pub batches: Vec<BatchReport>,
}

/// What became of one batch.
#[derive(Clone, Debug, Serialize)]
pub struct BatchReport {
    /// The batch.
    pub batch: u64,
    /// Whether another run had made it before.
    pub lost: bool,
    /// The star tables that got rows.
    pub tables: Vec<TableReport>,
}

/// The rows made for one star table.
#[derive(Clone, Debug, Serialize)]
pub struct TableReport {
    /// The star table.
    pub table: String,
    /// The rows.
    pub rows: u64,
    /// Their bytes as Parquet.
    pub bytes: u64,
}

impl Transform {
    /// Transform between the two buckets.
    #[must_use]
    pub fn new(pack: Pack, ingestion: Store, processed: Store) -> Self {
        let processed = Log::processed(processed, &pack.hash);
        Self { ingestion: Log::ingestion(ingestion), processed, pack }
    }

    /// One run: every batch that the processed log of this pack lacks and the warehouse needs.
    ///
    /// # Errors
    /// Each names the batch; what came before it is done, and the next run goes on from there.
    pub async fn run(&self) -> Result<Report, Error> {
        // In this order: other programs may extract and load meanwhile.
        let applied = Applied::read(self.processed.store()).await?;
        let newest = self.ingestion.newest().await?;
        if newest > 0 {
            self.same_log(newest, applied).await?;
        } else {
            self.processed.store().check().await?;
        }
        let applied = applied.map_or(0, |applied| applied.batch);
        if newest < applied {
            let bucket = self.ingestion.store().bucket().to_owned();
            return Err(log::Error::Shorter { bucket, newest, applied }.into());
        }
        let made: BTreeSet<_> = self.processed.after(applied, usize::MAX).await?.into_iter().collect();
        let mut report = Report::default();
        for batch in (applied + 1..=newest).filter(|batch| !made.contains(batch)) {
            report.batches.push(self.batch(batch).await?);
        }
        Ok(report)
    }

    /// Stops when the two buckets belong to different logs.
    async fn same_log(&self, newest: u64, applied: Option<Applied>) -> Result<(), Error> {
        let Extracted { head, .. } = self.read(newest).await?;
        let made: Option<Transformed> = self.processed.read(newest).await?;
        if made.as_ref().is_some_and(|made| made.head.log == head.log && made.extracted != head.run) {
            let why = format!("{} was made from another batch of this number", self.processed.place(newest));
            return Err(log::Error::Foreign { object: self.ingestion.place(newest), why }.into());
        }
        let known = made.map(|made| (made.head.log, self.processed.place(newest))).or(applied.map(|applied| {
            (applied.log, format!("the warehouse that bucket {} feeds", self.processed.store().bucket()))
        }));
        match known {
            Some((known, known_by)) if known != head.log => {
                Err(log::Error::OtherLog { here: self.ingestion.place(newest), found: head.log, known_by, known }
                    .into())
            }
            _ => Ok(()),
        }
    }

    async fn read(&self, batch: u64) -> Result<Extracted, Error> {
        self.ingestion.read(batch).await?.ok_or_else(|| Error::Gone { place: self.ingestion.place(batch) })
    }

    /// Makes one batch.
    ///
    /// # Errors
    /// Each names the batch and the table.
    pub async fn batch(&self, batch: u64) -> Result<BatchReport, Error> {
        let extracted = self.read(batch).await?;
        let run = Uuid::now_v7();
        let folder = tempfile::tempdir().map_err(|why| Error::File { path: std::env::temp_dir(), why })?;
        let mut tables = BTreeMap::new();
        for (name, table) in &extracted.tables {
            let models = self.models(&extracted, name, table)?;
            let files = self.star_files(&extracted, name, table, &models, folder.path()).await?;
            for (model, file) in models.into_iter().zip(files) {
                let objects = match file {
                    Some((path, rows)) => vec![self.upload(batch, run, &model.name, &path, rows).await?],
                    None => Vec::new(),
                };
                let key = model.key(&table.key).map_err(|column| Error::Model {
                    batch,
                    file: model.file.clone(),
                    why: format!("it does not return {column}, which is in the primary key of {name}"),
                })?;
                tables.insert(model.name.clone(), StarTable { key, source_rows: table.rows, objects });
            }
        }
        let manifest = Transformed {
            head: Head {
                format: FORMAT,
                program: PROGRAM.into(),
                pack: self.pack.hash.clone(),
                run,
                ..extracted.head.clone()
            },
            extracted: extracted.head.run,
            tables,
        };
        let lost = self.processed.commit(&manifest).await? == Commit::Lost;
        tracing::info!(batch, lost, "transformed");
        let rows = |(name, table): (&String, &StarTable)| {
            table.objects.first().map(|object| TableReport {
                table: name.clone(),
                rows: object.rows,
                bytes: object.bytes,
            })
        };
        Ok(BatchReport { batch, lost, tables: manifest.tables.iter().filter_map(rows).collect() })
    }

    /// The models of this pack that the table drives in this batch. One that came into the pack
    /// after the batch is left out: extract reads its table in full for it.
    fn models<'a>(&'a self, extracted: &Extracted, name: &'a str, table: &Table) -> Result<Vec<&'a Model>, Error> {
        let mut models = Vec::new();
        for model in self.pack.driven_by(name) {
            if extracted.models.get(&model.name).is_none_or(|known| known.table != name) {
                continue;
            }
            match model.reads.iter().find(|column| !table.columns.iter().any(|known| known.name == **column)) {
                None => models.push(model),
                Some(_) if extracted.head.pack != self.pack.hash => {}
                Some(column) => {
                    let why = format!("the batch has no column {name}.{column}");
                    return Err(Error::Model { batch: extracted.head.batch, file: model.file.clone(), why });
                }
            }
        }
        Ok(models)
    }

    /// Makes the Parquet files of the models that one table drives, a CSV object at a time.
    async fn star_files(
        &self,
        extracted: &Extracted,
        name: &str,
        table: &Table,
        models: &[&Model],
        folder: &Path,
    ) -> Result<Vec<Option<(PathBuf, u64)>>, Error> {
        if models.is_empty() {
            return Ok(Vec::new());
        }
        let batch = extracted.head.batch;
        let driven = extracted.models.iter().filter(|(_, model)| model.table == *name);
        let marks: Vec<_> = driven.map(|(model, _)| mark(model)).collect();
        let mut files: Vec<_> = models
            .iter()
            .enumerate()
            .map(|(number, _)| StarFile::new(folder.join(format!("{number}.parquet"))))
            .collect();
        for object in &table.objects {
            let csv = folder.join("piece.csv");
            self.ingestion.store().download(object, &csv).await?;
            let models: Vec<Model> = models.iter().map(|model| (*model).clone()).collect();
            let (columns, marks, pack) = (table.columns.clone(), marks.clone(), self.pack.clone());
            // polars blocks: https://docs.rs/tokio/latest/tokio/task/fn.spawn_blocking.html
            let made = tokio::task::spawn_blocking(move || {
                let piece = star::read_csv(&csv, &columns, &marks).map_err(|fault| (None, fault))?;
                for (model, file) in models.iter().zip(&mut files) {
                    let fixed = model.fixed.iter().map(|name| Ok((name.clone(), star::fixed(&pack.fixed[name])?)));
                    fixed
                        .collect::<Result<Vec<_>, Fault>>()
                        .and_then(|fixed| star::star_rows(model, &piece, &columns, &fixed))
                        .and_then(|stars| file.write(&stars))
                        .map_err(|fault| (Some(model.name.clone()), fault))?;
                }
                Ok(files)
            });
            files = match made.await {
                Ok(made) => made.map_err(|(star, fault)| named(batch, name, &object.key, star, fault))?,
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            };
        }
        let finish = |(file, model): (StarFile, &&Model)| {
            file.finish().map_err(|fault| named(batch, name, "", Some(model.name.clone()), fault))
        };
        files.into_iter().zip(models).map(finish).collect()
    }

    async fn upload(&self, batch: u64, run: Uuid, table: &str, path: &Path, rows: u64) -> Result<Object, Error> {
        let failed = |why| Error::File { path: path.into(), why };
        let mut file = tokio::fs::File::open(path).await.map_err(failed)?;
        let mut upload = self.processed.store().upload(data_key(batch, run, table, 0, "parquet"));
        let mut chunk = vec![0; 1 << 20];
        loop {
            match file.read(&mut chunk).await.map_err(failed)? {
                0 => return Ok(upload.finish(rows).await?),
                n => upload.write(&chunk[..n]).await?,
            }
        }
    }
}

/// Says of which batch, table and object a fault is.
fn named(batch: u64, table: &str, object: &str, star: Option<String>, fault: Fault) -> Error {
    match fault {
        Fault::Value { column, kind, value } => Error::Value { batch, table: table.into(), column, kind, value },
        Fault::Header(found) => Error::Polars {
            batch,
            table: star.unwrap_or_else(|| table.into()),
            why: format!("the header of {object} is {found}, which is not what the manifest says"),
        },
        Fault::Polars(error) => {
            Error::Polars { batch, table: star.unwrap_or_else(|| table.into()), why: error.to_string() }
        }
    }
}
