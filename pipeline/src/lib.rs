//! The three stages one after another on one machine.

use std::collections::BTreeMap;
use std::time::Instant;

use blackwater_base::store::{Client, Store};
use blackwater_base::temporary;
use blackwater_extract::{Extract, Pieces, Request, SlotStatus, TableSize};
use blackwater_load::{Entry, Load, Verdict};
use blackwater_shared::config::Config;
use blackwater_shared::finding::{About, Finding};
use blackwater_shared::log::Log;
use blackwater_shared::manifest::{Extracted, Manifest, Transformed};
use blackwater_shared::model::Model;
use blackwater_shared::pack::{self, Pack};
use blackwater_shared::{log, postgres};
use blackwater_transform::Transform;
use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::sync::mpsc;
use uuid::Uuid;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model pack cannot be used.
    #[error(transparent)]
    Pack(#[from] pack::Error),
    /// A database's address cannot be used.
    #[error(transparent)]
    Postgres(#[from] postgres::Error),
    /// A log cannot be read.
    #[error(transparent)]
    Log(#[from] log::Error),
    /// There is no place for temporary files.
    #[error(transparent)]
    Temporary(#[from] temporary::Error),
    /// Extract failed.
    #[error("extract")]
    Extract(#[from] blackwater_extract::Error),
    /// Transform failed.
    #[error("transform")]
    Transform(#[from] blackwater_transform::Error),
    /// Load failed.
    #[error("load")]
    Load(#[from] blackwater_load::Error),
}

/// The stages with their clients.
#[derive(Clone)]
pub struct Pipeline {
    /// The pipeline's name.
    pub name: String,
    /// The first stage.
    pub extract: Extract,
    /// The second stage.
    pub transform: Transform,
    /// The third stage.
    pub load: Load,
    ingestion: Log,
    processed: Log,
}

/// What extract and transform did that is not loaded yet.
struct Prepared {
    extract: Result<blackwater_extract::Report, blackwater_extract::Error>,
    transform: Result<blackwater_transform::Report, blackwater_transform::Error>,
    seconds: Seconds,
}

/// What the stages did.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What extract did.
    pub extract: blackwater_extract::Report,
    /// What it did when load asked for keys, to find out which rows are gone.
    pub keys: Option<blackwater_extract::Report>,
    /// What transform did.
    pub transform: blackwater_transform::Report,
    /// What load did.
    pub load: blackwater_load::Report,
    /// How long each stage took.
    pub seconds: Seconds,
}

/// How long the stages took, in seconds, with what they did again.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Seconds {
    /// Extract.
    pub extract: f64,
    /// Transform.
    pub transform: f64,
    /// Load.
    pub load: f64,
}

/// What a check found.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What will not work, then what one should know.
    pub findings: Vec<Finding>,
    /// The tables of which every run looks at each row, to find what has changed.
    pub reads: Vec<TableSize>,
}

/// What a comparison of the warehouse with the source found.
#[derive(Clone, Debug, Serialize)]
pub struct Verification {
    /// The newest batch of the warehouse.
    pub batch: u64,
    /// Each star table.
    pub tables: Vec<Verdict>,
}

/// How far each stage is.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// The pipeline's name.
    pub name: String,
    /// The log's id; `None` if there is no batch.
    pub log: Option<Uuid>,
    /// The newest batch in the ingestion bucket.
    pub extracted: Option<Batch>,
    /// The newest batch in the processed bucket, for this model pack.
    pub transformed: Option<Batch>,
    /// The newest batch in the warehouse.
    pub applied: Option<Batch>,
    /// The age in seconds of the oldest batch that the warehouse lacks, 0 if it lacks none.
    pub lag_seconds: u64,
    /// The rows of each star table.
    pub tables: Vec<TableStatus>,
    /// The foreign keys that a large batch took down and that are not back and valid yet, as `table.key`.
    pub foreign_keys_down: Vec<String>,
    /// The replication slot at the source, if the newest batch names one and the source can be asked.
    pub slot: Option<SlotStatus>,
}

/// A batch and the time of its snapshot at the source, or when it was applied.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Batch {
    /// Its number.
    pub batch: u64,
    /// The time.
    pub at: DateTime<Utc>,
}

/// A star table and its rows.
#[derive(Clone, Debug, Serialize)]
pub struct TableStatus {
    /// The star table.
    pub table: String,
    /// Its rows.
    pub rows: u64,
    /// The source rows that wait in quarantine.
    pub quarantined: u64,
}

/// An entry of the quarantine, and the row that was read.
#[derive(Clone, Debug, Serialize)]
pub struct EntryAndSource {
    /// The entry.
    #[serde(flatten)]
    pub entry: Entry,
    /// The source row, as columns and values; `None` for a row of a set of values, which has none.
    pub source_row: Option<Vec<(String, Option<String>)>>,
}

impl Pipeline {
    /// The pipeline that a configuration describes, with a client for its buckets.
    ///
    /// # Errors
    /// If the model pack or an address cannot be used.
    pub fn new(config: &Config, client: Client) -> Result<Self, Error> {
        let pack = Pack::read(&config.model)?;
        let ingestion = Store::new(client.clone(), &config.ingestion, "ingestion.bucket");
        let processed = Store::new(client, &config.processed, "processed.bucket");
        Ok(Self {
            name: config.name.clone(),
            extract: Extract::new(config, pack.clone(), ingestion.clone(), processed.clone())?,
            transform: Transform::new(pack.clone(), ingestion.clone(), processed.clone()),
            load: Load::new(config, pack.clone(), processed.clone())?,
            ingestion: Log::ingestion(ingestion),
            processed: Log::processed(processed, &pack.hash),
        })
    }

    /// Extract, transform, load, once: `each` is told what became of each batch, or why there is none. While a batch is loaded, the
    /// next ones are made. Transform and load carry on what the logs say is missing, also when extract found nothing or failed.
    ///
    /// # Errors
    /// The first stage that fails, or `each`; the next run goes on from there.
    pub async fn run<E: From<Error>>(&self, mut each: impl FnMut(Report) -> Result<(), E>) -> Result<(), E> {
        // Before anything is written. Extract asks for the source and its own bucket.
        self.load.reach().await.map_err(Error::from)?;
        let (extracted, mut to_transform) = mpsc::unbounded_channel();
        let (transformed, mut to_load) = mpsc::unbounded_channel();
        // Nobody listens any more once load has failed, and then nothing goes on.
        let extract = async {
            let sent = extracted;
            let mut began = Instant::now();
            let mut send = |report| {
                let seconds = Seconds { extract: began.elapsed().as_secs_f64(), ..Seconds::default() };
                began = Instant::now();
                let _ = sent.send((report, seconds));
            };
            let done = self.extract.run(&Request::default(), |report| send(Ok(report))).await;
            if let Err(error) = done {
                send(Err(error));
            }
            Ok(())
        };
        let transform = async {
            let sent = transformed;
            while let Some((extract, mut seconds)) = to_transform.recv().await {
                let transform = timed(&mut seconds.transform, self.transform.run()).await;
                let _ = sent.send(Prepared { extract, transform, seconds });
            }
            Ok(())
        };
        let load = async {
            while let Some(prepared) = to_load.recv().await {
                each(self.finish(prepared).await?)?;
            }
            Ok(())
        };
        tokio::try_join!(extract, transform, load).map(drop)
    }

    /// Loads what extract and transform have made. The keys that load asks for follow at once, unless other batches do.
    async fn finish(&self, Prepared { extract, transform, mut seconds }: Prepared) -> Result<Report, Error> {
        let last = extract.as_ref().ok().filter(|extract| extract.more).and_then(|extract| extract.batch);
        let rest = self.load(transform, last, &mut seconds).await;
        let extract = extract?;
        let (mut transform, mut load) = rest?;
        let mut keys = Vec::new();
        if !load.wanted.is_empty() && !extract.more {
            let request = Request::default();
            timed(&mut seconds.extract, self.extract.run(&request, |report| keys.push(report))).await?;
            let again = timed(&mut seconds.transform, self.transform.run()).await;
            let (again, rest) = self.load(again, None, &mut seconds).await?;
            transform.batches.extend(again.batches);
            load = blackwater_load::Report { batches: [load.batches, rest.batches].concat(), ..rest };
        }
        Ok(Report { extract, keys: keys.into_iter().next(), transform, load, seconds })
    }

    /// Loads what transform has made, up to the batch `last` if there is one.
    async fn load(
        &self,
        transform: Result<blackwater_transform::Report, blackwater_transform::Error>,
        last: Option<u64>,
        seconds: &mut Seconds,
    ) -> Result<(blackwater_transform::Report, blackwater_load::Report), Error> {
        // Also where transform fails at a later batch.
        let mut load = timed(&mut seconds.load, self.load.run_up_to(last)).await?;
        let mut transform = transform?;
        let newest = match last {
            Some(last) => last,
            None => self.ingestion.newest().await?,
        };
        if load.applied < newest {
            // The warehouse is further back than transform was told, as after a restore. Load has
            // left word by now.
            transform.batches.extend(timed(&mut seconds.transform, self.transform.run()).await?.batches);
            let rest = timed(&mut seconds.load, self.load.run_up_to(last)).await?;
            load = blackwater_load::Report { batches: [load.batches, rest.batches].concat(), ..rest };
        }
        Ok((transform, load))
    }

    /// Connects to everything, and compares the source, the models and the warehouse. A few rows of the source go through each
    /// stage, and nothing of that stays.
    ///
    /// # Errors
    /// If they cannot be kept in a temporary folder. What does not work is a finding.
    pub async fn check(&self) -> Result<Check, Error> {
        let blackwater_extract::Checked { mut findings, tables, models, samples, sizes, log } =
            self.extract.check().await;
        let folder = temporary::folder()?;
        let (stars, more) = self.transform.check(&tables, &models, &samples, folder.path()).await;
        findings.extend(more);
        if !findings.iter().any(|finding| finding.about == About::Buckets) {
            findings.extend(check_bucket(self.ingestion.store()).await);
            findings.extend(check_bucket(self.processed.store()).await);
        }
        findings.extend(self.load.check(&stars, log).await);
        findings.sort_by_key(|finding| (finding.level, finding.about));
        Ok(Check { findings, reads: sizes })
    }

    /// Compares the warehouse with the source, whole row by whole row; `None` if no batch is applied.
    ///
    /// # Errors
    /// If one of them cannot be read.
    pub async fn verify(&self) -> Result<Option<Verification>, Error> {
        self.load
            .verify(async |warehouse| {
                let batch = warehouse.batch();
                let missing = || log::Error::Foreign {
                    object: self.ingestion.place(batch),
                    why: "the warehouse holds this batch, and its manifest is gone".into(),
                };
                let applied: Extracted = self.ingestion.read(batch).await?.ok_or_else(missing)?;
                let folder = temporary::folder()?;
                let mut tables = Vec::new();
                let mut each = async |model: &Model, source: &BTreeMap<_, _>, pieces: &mut Pieces<'_>| {
                    let star = self.transform.star(source, model)?;
                    let known = applied.tables.get(model.selects[0].driving());
                    let then = known.filter(|table| table.is_whole()).and_then(|table| table.rows);
                    let mut next = async || {
                        let Some((select, csv)) = pieces.next().await? else { return Ok::<_, Error>(None) };
                        let piece = self.transform.compare(source, model, (select, &csv), folder.path())?;
                        let blackwater_transform::Piece { rows, misfits, filtered } = piece;
                        Ok(Some(blackwater_load::Piece { rows, misfits, filtered }))
                    };
                    tables.push(warehouse.table(&model.name, &star, then, &mut next).await?);
                    Ok::<_, Error>(())
                };
                self.extract.verify(&applied, &mut each).await?;
                Ok(Verification { batch, tables })
            })
            .await
    }

    /// The SQL that makes the roles of both databases and lets them do what they must, and no more.
    #[must_use]
    pub fn grants(&self) -> String {
        format!("{}\n{}", self.extract.grants(), self.load.grants())
    }

    /// How far each stage is.
    ///
    /// # Errors
    /// If a bucket or the warehouse cannot be asked.
    pub async fn status(&self) -> Result<Status, Error> {
        let newest = self.ingestion.newest().await?;
        let extracted = self.batch::<Extracted>(&self.ingestion, newest).await?;
        let slot = self.slot(newest).await?;
        let applied = self.load.state().await?;
        let behind = applied.as_ref().map_or(0, |state| state.batch);
        let made = self.processed.after(behind, usize::MAX).await?;
        let transformed = match made.last() {
            Some(last) => self.batch::<Transformed>(&self.processed, *last).await?,
            None => self.batch::<Transformed>(&self.processed, behind).await?,
        };
        let tables = applied.iter().flat_map(|state| state.rows.clone());
        Ok(Status {
            name: self.name.clone(),
            log: extracted.map(|(log, _)| log),
            extracted: extracted.map(|(_, batch)| batch),
            transformed: transformed.map(|(_, batch)| batch),
            applied: applied.as_ref().map(|state| Batch { batch: state.batch, at: state.applied_at }),
            lag_seconds: self.ingestion.lag(newest, behind).await?,
            tables: tables.map(|(table, rows, quarantined)| TableStatus { table, rows, quarantined }).collect(),
            foreign_keys_down: self.load.foreign_keys_down().await?,
            slot,
        })
    }

    /// The replication slot, if the newest batch names one. A source that cannot be asked is no reason to say nothing else.
    async fn slot(&self, newest: u64) -> Result<Option<SlotStatus>, Error> {
        let manifest: Option<Extracted> = if newest == 0 { None } else { self.ingestion.read(newest).await? };
        if manifest.is_none_or(|manifest| manifest.capture.is_none()) {
            return Ok(None);
        }
        Ok(self.extract.slot().await.unwrap_or_else(|error| {
            tracing::warn!(error = %error, "cannot ask the source for its replication slot");
            None
        }))
    }

    /// The names of the star tables.
    pub fn star_tables(&self) -> impl Iterator<Item = &str> {
        self.load.star_tables()
    }

    /// The rows in quarantine of a table, or of all, whose key is `key`: `column=value` for some or all of its
    /// columns, or the value alone.
    ///
    /// # Errors
    /// If the warehouse cannot be asked.
    pub async fn quarantine(&self, table: Option<&str>, key: &[String]) -> Result<Vec<Entry>, Error> {
        let mut entries = self.load.quarantine().await?;
        let is_part = |entry: &Entry, wanted: &String| {
            entry.key.as_object().is_some_and(|columns| {
                columns.iter().any(|(column, value)| {
                    let value = value.as_str().unwrap_or("NULL");
                    columns.len() == 1 && value == wanted || format!("{column}={value}") == *wanted
                })
            })
        };
        entries.retain(|entry| table.is_none_or(|table| table == entry.table));
        entries.retain(|entry| key.iter().all(|wanted| is_part(entry, wanted)));
        Ok(entries)
    }

    /// An entry with its source row, from the batch that brought it.
    ///
    /// # Errors
    /// If the ingestion bucket cannot be read.
    pub async fn with_source_row(&self, entry: Entry) -> Result<EntryAndSource, Error> {
        let columns = entry.key.as_object().into_iter().flatten();
        let key = columns.map(|(column, value)| (column.clone(), value.as_str().map(str::to_owned))).collect();
        let source_row = self.transform.source_row(entry.batch, &entry.table, &key).await?;
        Ok(EntryAndSource { entry, source_row })
    }

    async fn batch<M: Manifest>(&self, log: &Log, batch: u64) -> Result<Option<(Uuid, Batch)>, Error> {
        if batch == 0 {
            return Ok(None);
        }
        let manifest = log.read::<M>(batch).await?;
        Ok(manifest.map(|manifest| (manifest.head().log, Batch { batch, at: manifest.head().at })))
    }
}

/// Whether a log can be kept in a bucket.
async fn check_bucket(store: &Store) -> Vec<Finding> {
    let advice = |what: String| Finding::advice(About::Buckets, what);
    let (keeps, left) = match store.keeps_what_is_there().await {
        Ok(answer) => answer,
        Err(error) => return vec![advice(format!("conditional writes were not tried: {error}"))],
    };
    let overwrites = (!keeps).then(|| {
        Finding::error(
            About::Buckets,
            format!(
                "the server of bucket {} overwrites an object although the request says `If-None-Match: *`: two runs at once would \
                 lose a batch\nUse a server with conditional writes, as S3 itself has them",
                store.bucket()
            ),
        )
    });
    overwrites.into_iter().chain(left.map(|error| advice(format!("the object for a test stays: {error}")))).collect()
}

/// Does the work, and adds the seconds that it takes.
async fn timed<T>(seconds: &mut f64, work: impl Future<Output = T>) -> T {
    let started = Instant::now();
    let done = work.await;
    *seconds += started.elapsed().as_secs_f64();
    done
}
