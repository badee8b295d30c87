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

use blackwater_base::deadline::{Deadline, Pace};
use blackwater_base::progress::progress;
use blackwater_base::store::Store;
use blackwater_base::temporary;
use blackwater_shared::PROGRAM;
use blackwater_shared::finding::{About, Finding};
use blackwater_shared::log::{self, Applied, Commit, Log};
use blackwater_shared::manifest::{
    Column, Driving, Extracted, FORMAT, Head, ModelState, StarTable, Table, Transformed, mark,
};
use blackwater_shared::manifest::{Object, data_key};
use blackwater_shared::model::{Model, Select, Typed};
use blackwater_shared::pack::Pack;
use blackwater_shared::scalar::Type;
use serde::Serialize;
use tokio::io::AsyncReadExt;
use uuid::Uuid;

pub use error::Error;
use star::{Fault, Lookups, Star, StarFile, StarFiles};

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
    /// Whether its time was over before all were made.
    pub more: bool,
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
    /// The rows in which a value does not fit: load puts them into quarantine.
    pub misfits: u64,
    /// The rows of a set of values in which a value does not fit. They have no key, so they are left
    /// out; the star table that has a row for each of them says why.
    pub left_out: u64,
}

/// Star rows for a comparison, as Parquet files; none where there are no rows.
#[derive(Debug)]
pub struct Piece {
    /// The star rows, and whether each has changed.
    pub rows: Option<PathBuf>,
    /// The keys of the rows in which a value does not fit, whether each has changed, and why.
    pub misfits: Option<PathBuf>,
    /// The keys of the rows that the model does not let through, and whether each has changed.
    pub filtered: Option<PathBuf>,
}

/// What a batch was made of one model.
struct Made<'a> {
    model: &'a Model,
    typed: Vec<Typed>,
    /// The driving table's key: each column there, and in the star table. None in a set of values.
    key: Vec<(String, String)>,
}

impl Made<'_> {
    /// Its SELECTs.
    fn stars(&self) -> impl Iterator<Item = Star> {
        let star = |(select, typed): (&Select, &Typed)| Star {
            model: self.model.name.clone(),
            is_values: self.model.is_values,
            select: select.clone(),
            typed: typed.clone(),
            key: self.key.clone(),
        };
        self.model.selects.iter().zip(&self.typed).map(star)
    }
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
        self.run_until(Deadline::NONE).await
    }

    /// One run that begins no batch in the second half of its time.
    ///
    /// # Errors
    /// Those of [`Self::run`].
    pub async fn run_until(&self, deadline: Deadline) -> Result<Report, Error> {
        // In this order: other programs may extract and load meanwhile.
        let applied = Applied::read(self.processed.store()).await?;
        let newest = self.ingestion.newest().await?;
        if newest > 0 {
            self.same_log(newest, applied.as_ref()).await?;
        } else {
            self.processed.store().check().await?;
        }
        let applied = applied.map_or(0, |applied| applied.batch);
        self.ingestion.reaches(newest, applied)?;
        let made: BTreeSet<_> = self.processed.after(applied, usize::MAX).await?.into_iter().collect();
        let mut report = Report::default();
        let mut pace = Pace::towards(deadline);
        for batch in (applied + 1..=newest).filter(|batch| !made.contains(batch)) {
            report.more = !pace.begins();
            if report.more {
                break;
            }
            report.batches.push(self.batch(batch).await?);
        }
        Ok(report)
    }

    /// Stops when the two buckets belong to different logs.
    async fn same_log(&self, newest: u64, applied: Option<&Applied>) -> Result<(), Error> {
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
        let folder = temporary::folder()?;
        let models = self.models(&extracted)?;
        let mut files = self.star_files(&extracted, &models, folder.path()).await?;
        let (mut tables, mut report) = (BTreeMap::new(), Vec::new());
        for made in &models {
            let Made { model, key, .. } = made;
            let name = &model.name;
            let Some(StarFiles { rows, misfits, filtered, left_out }) = files.remove(name) else { continue };
            let source = &extracted.tables[model.selects[0].driving()];
            let keys = async |objects| self.keys((batch, name), key, objects, folder.path()).await;
            let write = async |file: StarFile, extension| self.write((batch, run), name, file, extension).await;
            let table = StarTable {
                objects: write(rows, "parquet").await?,
                misfits: write(misfits, "misfits.parquet").await?,
                filtered: write(filtered, "filtered.parquet").await?,
                gone: write(keys(&source.gone).await?, "gone.parquet").await?,
                keys: match source.keys_sent == Some(batch) && !key.is_empty() {
                    true => Some(write(keys(&source.keys).await?, "keys.parquet").await?),
                    false => None,
                },
                ..star_table(&extracted.tables, made)
            };
            let sum = |objects: &[Object], of: fn(&Object) -> u64| objects.iter().map(of).sum::<u64>();
            let (rows, misfits) = (sum(&table.objects, |o| o.rows), sum(&table.misfits, |o| o.rows));
            if rows + misfits + left_out > 0 {
                let bytes = sum(&table.objects, |o| o.bytes);
                report.push(TableReport { table: name.clone(), rows, bytes, misfits, left_out });
            }
            tables.insert(name.clone(), table);
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
        Ok(BatchReport { batch, lost, tables: report })
    }

    /// The row of a batch's source table that makes the star row of a key, as columns and values; `None` if it
    /// is not in the batch. `key` gives a value for each column of the star table's key.
    ///
    /// # Errors
    /// Each names the batch.
    pub async fn source_row(
        &self,
        batch: u64,
        star: &str,
        key: &BTreeMap<String, Option<String>>,
    ) -> Result<Option<Vec<(String, Option<String>)>>, Error> {
        let extracted = self.read(batch).await?;
        let Some(model) = self.pack.models.get(star).filter(|model| !model.is_values) else { return Ok(None) };
        let name = model.selects[0].driving();
        let Some(table) = extracted.tables.get(name) else { return Ok(None) };
        let columns: Vec<_> = table.columns.iter().map(|column| column.name.clone()).collect();
        let models = extracted.models.iter().filter(|(_, model)| model.tables.iter().any(|table| table == name));
        let header = star::header(table, models.map(|(model, _)| model));
        let named_key = crate::key(&extracted.tables, model).unwrap_or_default();
        let wanted = named_key.into_iter().map(|(source, name)| (source, key.get(&name).cloned().flatten()));
        let wanted: Vec<_> = wanted.collect();
        let folder = temporary::folder()?;
        for object in &table.objects {
            let csv = folder.path().join("piece.csv");
            self.ingestion.download(object, &csv).await?;
            let found = star::find_row(&csv, &header, &columns, &wanted);
            if let Some(values) = found.map_err(|fault| named(batch, name, &object.key, None, fault))? {
                return Ok(Some(columns.into_iter().zip(values).collect()));
            }
        }
        Ok(None)
    }

    /// Runs every model on no rows of the source's tables, and on a sample of rows that the source has joined: the star tables that
    /// come of it, and what does not work. The keys of their objects are paths in `folder`.
    ///
    /// # Errors
    /// None: what fails is a finding.
    pub async fn check(
        &self,
        tables: &BTreeMap<String, Table>,
        models: &BTreeSet<String>,
        samples: &BTreeMap<String, Vec<(usize, Vec<u8>)>>,
        folder: &Path,
    ) -> (BTreeMap<String, StarTable>, Vec<Finding>) {
        let (mut stars, mut findings) = (BTreeMap::new(), Vec::new());
        if let Err(error) = self.processed.store().check().await {
            findings.push(Finding::error(About::Buckets, error));
        }
        for (number, model) in self.pack.models.values().filter(|model| models.contains(&model.name)).enumerate() {
            let sample = samples.get(&model.name).map(Vec::as_slice).unwrap_or_default();
            match self.dry_run(tables, model, sample, &folder.join(number.to_string())) {
                Ok(star) => drop(stars.insert(model.name.clone(), star)),
                Err(why) => findings.push(Finding::error(About::Models, format!("{}: {why}", model.file))),
            }
        }
        (stars, findings)
    }

    fn dry_run(
        &self,
        tables: &BTreeMap<String, Table>,
        model: &Model,
        sample: &[(usize, Vec<u8>)],
        path: &Path,
    ) -> Result<StarTable, String> {
        let made = self.made(tables, model)?;
        let failed = |fault| named(0, &model.name, "", None, fault).to_string();
        for star in made.stars() {
            star::dry_run(&star, &self.pack.fixed).map_err(failed)?;
        }
        let mut files = StarFiles::new(path);
        for (select, csv) in sample {
            self.add_joined(&made, (*select, csv), false, &mut files).map_err(|error| error.to_string())?;
        }
        let objects = |file: StarFile| {
            let object = |(path, rows): (PathBuf, u64)| Object {
                key: path.display().to_string(),
                rows,
                bytes: 0,
                sha256: String::new(),
            };
            Ok::<_, String>(file.finish().map_err(failed)?.map(object).into_iter().collect())
        };
        Ok(StarTable { objects: objects(files.rows)?, misfits: objects(files.misfits)?, ..star_table(tables, &made) })
    }

    /// The star table of a model over the source's tables, without rows.
    ///
    /// # Errors
    /// What does not fit.
    pub fn star(&self, tables: &BTreeMap<String, Table>, model: &Model) -> Result<StarTable, Error> {
        let made = self.made(tables, model).map_err(|why| Error::Source { file: model.file.clone(), why })?;
        Ok(star_table(tables, &made))
    }

    /// Makes star rows of rows that the source has joined, for a comparison: the Parquet files in `folder`.
    ///
    /// # Errors
    /// What does not fit.
    pub fn compare(
        &self,
        tables: &BTreeMap<String, Table>,
        model: &Model,
        (select, csv): (usize, &[u8]),
        folder: &Path,
    ) -> Result<Piece, Error> {
        let refuse = |why| Error::Source { file: model.file.clone(), why };
        let made = self.made(tables, model).map_err(refuse)?;
        let mut files = StarFiles::new(&folder.join("piece"));
        self.add_joined(&made, (select, csv), true, &mut files)?;
        let path = |file: StarFile| {
            Ok::<_, Error>(file.finish().map_err(|fault| of_source(model, fault))?.map(|(path, _)| path))
        };
        Ok(Piece { rows: path(files.rows)?, misfits: path(files.misfits)?, filtered: path(files.filtered)? })
    }

    /// Adds the star rows of rows that the source has joined. With `marks`, each says whether it has changed.
    fn add_joined(
        &self,
        made: &Made<'_>,
        (select, csv): (usize, &[u8]),
        marks: bool,
        files: &mut StarFiles,
    ) -> Result<(), Error> {
        let model = made.model;
        let failed = |fault| of_source(model, fault);
        let path = files.csv();
        std::fs::write(&path, csv).map_err(temporary::Error::of(&path))?;
        let mut lookups = Lookups::default();
        for table in model.selects[select].tables.iter().filter(|table| table.fixed) {
            lookups.add_fixed(&table.name, &self.pack.fixed[&table.name]).map_err(failed)?;
        }
        if let Some(star) = made.stars().nth(select) {
            let rows = star::joined_rows(&star, &path, &mut lookups, marks).and_then(|stars| files.write(stars));
            rows.map_err(failed)?;
        }
        Ok(())
    }

    fn made<'a>(&self, tables: &BTreeMap<String, Table>, model: &'a Model) -> Result<Made<'a>, String> {
        let kind = |table: &str, column: &str| {
            let column = tables.get(table)?.columns.iter().find(|known| known.name == column)?;
            Some(Type::of(&column.kind))
        };
        let typed = model.typed(kind).map_err(|error| error.to_string())?;
        Ok(Made { model, typed, key: key(tables, model)? })
    }

    /// The models of this pack that the batch holds the rows for. One that came into the pack, or
    /// got other joins, after the batch is left out: extract reads all its rows for it again.
    fn models(&self, extracted: &Extracted) -> Result<Vec<Made<'_>>, Error> {
        let refuse = |model: &Model, why| Error::Model { batch: extracted.head.batch, file: model.file.clone(), why };
        let mut models = Vec::new();
        for model in self.pack.models.values() {
            let holds = |state: &ModelState| state.joins.iter().eq(model.selects.iter().map(|select| &select.from));
            if !extracted.models.get(&model.name).is_some_and(holds) {
                continue;
            }
            if let Some(missing) = model.source_tables().find(|table| !extracted.tables.contains_key(*table)) {
                return Err(refuse(model, format!("the batch has no table {missing}")));
            }
            match self.made(&extracted.tables, model) {
                Ok(made) => models.push(made),
                Err(_) if extracted.head.pack != self.pack.hash => {}
                Err(why) => return Err(refuse(model, why)),
            }
        }
        Ok(models)
    }

    /// Makes the Parquet files of the models.
    async fn star_files(
        &self,
        extracted: &Extracted,
        models: &[Made<'_>],
        folder: &Path,
    ) -> Result<BTreeMap<String, StarFiles>, Error> {
        let (batch, read) = (extracted.head.batch, &extracted.tables);
        let header = |name: &str| {
            let driven = extracted.models.iter().filter(|(_, model)| model.tables.iter().any(|table| table == name));
            star::header(&read[name], driven.map(|(model, _)| model))
        };
        let mut stars: BTreeMap<String, Vec<Star>> = BTreeMap::new();
        let mut wanted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut lookups = Lookups::default();
        for star in models.iter().flat_map(Made::stars) {
            for (place, table) in star.select.tables.iter().enumerate().skip(1) {
                match self.pack.fixed.get(&table.name).filter(|_| table.fixed) {
                    Some(fixed) => {
                        let added = lookups.add_fixed(&table.name, fixed);
                        added.map_err(|fault| named(batch, &table.name, "", None, fault))?;
                    }
                    None => {
                        wanted.entry(table.name.clone()).or_default().extend(star.select.reads(place).iter().cloned())
                    }
                }
            }
            stars.entry(star.select.driving().to_owned()).or_default().push(star);
        }
        for (number, (name, wanted)) in wanted.into_iter().enumerate() {
            let mut files = Vec::new();
            for (part, object) in read[&name].objects.iter().enumerate() {
                let file = folder.join(format!("lookup.{number}.{part}.csv"));
                self.ingestion.download(object, &file).await?;
                files.push(file);
            }
            lookups.add(name.clone(), files, header(&name), wanted);
        }
        let files = models
            .iter()
            .enumerate()
            .map(|(number, made)| (made.model.name.clone(), StarFiles::new(&folder.join(number.to_string()))));
        let mut files: BTreeMap<_, _> = files.collect();
        for (name, mut stars) in stars {
            let header = header(&name);
            let columns = stars.iter().flat_map(|star| star.select.reads(0).iter().cloned().chain([mark(&star.model)]));
            let columns: BTreeSet<_> = columns.collect();
            let what = format!("making star rows of {name}");
            let (mut done, all) = (0, read[&name].objects.iter().map(|object| object.rows).sum());
            for object in &read[&name].objects {
                progress(&what, done, all);
                done += object.rows;
                let csv = folder.join("piece.csv");
                self.ingestion.download(object, &csv).await?;
                let (header, columns) = (header.clone(), columns.clone());
                // polars blocks: https://docs.rs/tokio/latest/tokio/task/fn.spawn_blocking.html
                let made = tokio::task::spawn_blocking(move || {
                    let piece = star::read_csv(&csv, &header, &columns).map_err(|fault| (None, fault))?;
                    for star in &stars {
                        let Some(file) = files.get_mut(&star.model) else { continue };
                        star::star_rows(star, &piece, &mut lookups)
                            .and_then(|rows| file.write(rows))
                            .map_err(|fault| (Some(star.model.clone()), fault))?;
                    }
                    Ok((stars, files, lookups))
                });
                (stars, files, lookups) = match made.await {
                    Ok(made) => made.map_err(|(star, fault)| named(batch, &name, &object.key, star, fault))?,
                    Err(panic) => std::panic::resume_unwind(panic.into_panic()),
                };
            }
        }
        Ok(files)
    }

    /// The keys in objects of the driving table; none for a set of values, whose rows have no source key.
    async fn keys(
        &self,
        (batch, star): (u64, &str),
        key: &[(String, String)],
        objects: &[Object],
        folder: &Path,
    ) -> Result<StarFile, Error> {
        let mut file = StarFile::new(folder.join("keys.parquet"));
        for object in objects.iter().filter(|_| !key.is_empty()) {
            let csv = folder.join("keys.csv");
            self.ingestion.download(object, &csv).await?;
            let written = star::keys(&csv, key).and_then(|keys| file.write(keys));
            written.map_err(|fault| named(batch, star, &object.key, None, fault))?;
        }
        Ok(file)
    }

    /// Writes a file to the bucket: nothing if it has no rows.
    async fn write(
        &self,
        (batch, run): (u64, Uuid),
        table: &str,
        file: StarFile,
        extension: &str,
    ) -> Result<Vec<Object>, Error> {
        match file.finish().map_err(|fault| named(batch, table, "", None, fault))? {
            Some((path, rows)) => Ok(vec![self.upload(data_key(batch, run, table, 0, extension), &path, rows).await?]),
            None => Ok(Vec::new()),
        }
    }

    async fn upload(&self, key: String, path: &Path, rows: u64) -> Result<Object, Error> {
        let failed = temporary::Error::of(path);
        let mut file = tokio::fs::File::open(path).await.map_err(&failed)?;
        let mut upload = self.processed.store().upload(key);
        let mut chunk = vec![0; 1 << 20];
        loop {
            match file.read(&mut chunk).await.map_err(&failed)? {
                0 => return Ok(Object::of(upload.finish().await?, rows)),
                n => upload.write(&chunk[..n]).await?,
            }
        }
    }
}

/// The columns of the driving table's key, there and in the star table; none for a set of values.
fn key(tables: &BTreeMap<String, Table>, model: &Model) -> Result<Vec<(String, String)>, String> {
    if model.is_values {
        return Ok(Vec::new());
    }
    let source = &tables[model.selects[0].driving()].key;
    match model.key(source) {
        Ok(names) => Ok(source.iter().cloned().zip(names).collect()),
        Err(column) => Err(format!("it does not return {column}, which is in the primary key of its driving table")),
    }
}

/// The star table of a model, without rows.
fn star_table(tables: &BTreeMap<String, Table>, Made { model, typed, key }: &Made<'_>) -> StarTable {
    let name = model.selects[0].driving();
    let table = &tables[name];
    let kind =
        |source: &str| table.columns.iter().find(|column| column.name == source).map(|column| column.kind.clone());
    let column =
        |(source, name): &(String, String)| Column { name: name.clone(), kind: kind(source).unwrap_or_default() };
    let key = key.iter().map(column).collect();
    let returned = typed[0].outputs.iter();
    StarTable {
        columns: returned
            .map(|(name, scalar)| Column { name: name.clone(), kind: scalar.kind().to_string() })
            .collect(),
        driving: (!model.is_values).then(|| Driving {
            table: name.to_owned(),
            key,
            rows: table.rows.filter(|_| table.is_whole()),
        }),
        objects: Vec::new(),
        misfits: Vec::new(),
        filtered: Vec::new(),
        gone: Vec::new(),
        keys: None,
    }
}

/// Says of which batch, table and object a fault is.
fn named(batch: u64, table: &str, object: &str, star: Option<String>, fault: Fault) -> Error {
    Error::Polars { batch, table: star.unwrap_or_else(|| table.into()), why: explain(fault, object) }
}

/// What does not work with the rows that the source has joined.
fn of_source(model: &Model, fault: Fault) -> Error {
    Error::Source { file: model.file.clone(), why: explain(fault, "the rows of the source") }
}

fn explain(fault: Fault, object: &str) -> String {
    match fault {
        Fault::Header(found) => format!("the header of {object} is {found}, which is not what the manifest says"),
        Fault::Polars(error) => error.to_string(),
    }
}
