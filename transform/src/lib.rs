//! Transform: the star tables of each batch, as Parquet in the processed bucket, completed by a
//! manifest.
//!
//! A batch stands by itself: its star rows are a function of the batch and the model pack, so any
//! number of runs may make any batches in any order, and the first to commit one wins.

mod error;
mod scalar;
mod star;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use blackwater_shared::PROGRAM;
use blackwater_shared::log::{self, Applied, Commit, Log};
use blackwater_shared::manifest::{Extracted, FORMAT, Head, ModelState, StarTable, Transformed, mark};
use blackwater_shared::model::{Model, Typed};
use blackwater_shared::pack::Pack;
use blackwater_shared::scalar::Type;
use blackwater_shared::store::{Object, Store, data_key};
use serde::Serialize;
use tokio::io::AsyncReadExt;
use uuid::Uuid;

pub use error::Error;
use star::{Fault, Lookups, Star, StarFile};

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
        let models = self.models(&extracted)?;
        let mut files = self.star_files(&extracted, &models, folder.path()).await?;
        let mut tables = BTreeMap::new();
        for (model, _) in models {
            let objects = match files.remove(&model.name).flatten() {
                Some((path, rows)) => vec![self.upload(batch, run, &model.name, &path, rows).await?],
                None => Vec::new(),
            };
            let of = |name: &str| &extracted.tables[name];
            let key = match model.is_values {
                true => None,
                false => Some(model.key(&of(model.selects[0].driving()).key).map_err(|column| {
                    let why = format!("it does not return {column}, which is in the primary key of its driving table");
                    Error::Model { batch, file: model.file.clone(), why }
                })?),
            };
            let driving: BTreeSet<_> = model.selects.iter().map(|select| select.driving()).collect();
            let source_rows = driving.into_iter().map(|name| of(name).rows).sum();
            tables.insert(model.name.clone(), StarTable { key, source_rows, objects });
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

    /// The models of this pack that the batch holds the rows for. One that came into the pack, or
    /// got other joins, after the batch is left out: extract reads all its rows for it again.
    fn models(&self, extracted: &Extracted) -> Result<Vec<(&Model, Vec<Typed>)>, Error> {
        let kind = |table: &str, column: &str| {
            let mut columns = extracted.tables.get(table)?.columns.iter();
            columns.find(|known| known.name == column).map(|known| Type::of(&known.kind))
        };
        let mut models = Vec::new();
        for model in self.pack.models.values() {
            let holds = |state: &ModelState| state.joins.iter().eq(model.selects.iter().map(|select| &select.from));
            if !extracted.models.get(&model.name).is_some_and(holds) {
                continue;
            }
            if let Some(missing) = model.source_tables().find(|table| !extracted.tables.contains_key(*table)) {
                let (batch, file) = (extracted.head.batch, model.file.clone());
                return Err(Error::Model { batch, file, why: format!("the batch has no table {missing}") });
            }
            match model.typed(kind) {
                Ok(typed) => models.push((model, typed)),
                Err(_) if extracted.head.pack != self.pack.hash => {}
                Err(why) => {
                    let (batch, file) = (extracted.head.batch, model.file.clone());
                    return Err(Error::Model { batch, file, why: why.to_string() });
                }
            }
        }
        Ok(models)
    }

    /// Makes the Parquet files of the models: path and rows of each, `None` if there are none.
    async fn star_files(
        &self,
        extracted: &Extracted,
        models: &[(&Model, Vec<Typed>)],
        folder: &Path,
    ) -> Result<BTreeMap<String, Option<(PathBuf, u64)>>, Error> {
        let (batch, read) = (extracted.head.batch, &extracted.tables);
        let header = |name: &str| {
            let driven = extracted.models.iter().filter(|(_, model)| model.tables.iter().any(|table| table == name));
            star::header(&read[name], driven.map(|(model, _)| model))
        };
        let mut stars: BTreeMap<&str, Vec<Star>> = BTreeMap::new();
        let mut wanted: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        let mut lookups = Lookups::default();
        for (model, typed) in models {
            for (select, typed) in model.selects.iter().zip(typed) {
                for (place, table) in select.tables.iter().enumerate().skip(1) {
                    match self.pack.fixed.get(&table.name).filter(|_| table.fixed) {
                        Some(fixed) => {
                            let added = lookups.add_fixed(&table.name, fixed);
                            added.map_err(|fault| named(batch, &table.name, "", None, fault))?;
                        }
                        None => wanted.entry(&table.name).or_default().extend(select.reads(place).iter().cloned()),
                    }
                }
                let driving = select.driving();
                let (name, is_values, select, typed) =
                    (model.name.clone(), model.is_values, select.clone(), typed.clone());
                let star = Star { model: name, is_values, select, typed };
                stars.entry(driving).or_default().push(star);
            }
        }
        for (number, (name, wanted)) in wanted.into_iter().enumerate() {
            let mut files = Vec::new();
            for (part, object) in read[name].objects.iter().enumerate() {
                let file = folder.join(format!("lookup.{number}.{part}.csv"));
                self.ingestion.store().download(object, &file).await?;
                files.push(file);
            }
            lookups.add(name.to_owned(), files, header(name), wanted);
        }
        let files = models
            .iter()
            .enumerate()
            .map(|(number, (model, _))| (model.name.clone(), StarFile::new(folder.join(format!("{number}.parquet")))));
        let mut files: BTreeMap<_, _> = files.collect();
        for (name, mut stars) in stars {
            let header = header(name);
            let columns = stars.iter().flat_map(|star| star.select.reads(0).iter().cloned().chain([mark(&star.model)]));
            let columns: BTreeSet<_> = columns.collect();
            for object in &read[name].objects {
                let csv = folder.join("piece.csv");
                self.ingestion.store().download(object, &csv).await?;
                let (header, columns) = (header.clone(), columns.clone());
                // polars blocks: https://docs.rs/tokio/latest/tokio/task/fn.spawn_blocking.html
                let made = tokio::task::spawn_blocking(move || {
                    let piece = star::read_csv(&csv, &header, &columns).map_err(|fault| (None, fault))?;
                    for star in &stars {
                        let Some(file) = files.get_mut(&star.model) else { continue };
                        star::star_rows(star, &piece, &mut lookups)
                            .and_then(|rows| file.write(&rows))
                            .map_err(|fault| (Some(star.model.clone()), fault))?;
                    }
                    Ok((stars, files, lookups))
                });
                (stars, files, lookups) = match made.await {
                    Ok(made) => made.map_err(|(star, fault)| named(batch, name, &object.key, star, fault))?,
                    Err(panic) => std::panic::resume_unwind(panic.into_panic()),
                };
            }
        }
        let finish = |(model, file): (String, StarFile)| match file.finish() {
            Ok(file) => Ok((model, file)),
            Err(fault) => Err(named(batch, &model, "", Some(model.clone()), fault)),
        };
        files.into_iter().map(finish).collect()
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
        Fault::Value { table, column, kind, value } => Error::Value { batch, table, column, kind, value },
        Fault::Cast { cast, kind, value } => Error::Cast { batch, table: star.unwrap_or_default(), cast, kind, value },
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
