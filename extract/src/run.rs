//! A run: from the newest manifest and one snapshot of the source to the batches that follow it.

use std::time::{Duration, Instant};

use blackwater_base::deadline::Deadline;
use blackwater_base::in_parts;
use blackwater_shared::log::Commit;
use blackwater_shared::postgres;

use crate::Extract;
use crate::batches::Batches;
use crate::changes::wal::{self, Captured};
use crate::error::Error;
use crate::manifest::Origin;
use crate::plan;
use crate::reader::{Count, Reader};
use crate::report::{Full, Outcome, Report, Request};
use crate::source::limit::{Allowed, Limit};
use crate::source::snapshot::Snapshot;
use crate::source::{catalogue, continuity, models, snapshot};
use crate::sql::Server;
use crate::state::State;

/// A batch that takes less than this is not worth making smaller.
const LEAST: Duration = Duration::from_secs(2);

/// What is still to be done of what a run was asked for.
struct Work<'a> {
    full: Full,
    /// About how much a batch holds.
    bytes: u64,
    /// The most batches to come.
    batches: u64,
    deadline: Deadline,
    /// The middle of the time that there was.
    half: Deadline,
    /// Whether a batch is written.
    wrote: bool,
    /// Whether one is since the last time that it began again.
    progressed: bool,
    each: &'a mut (dyn FnMut(Report) + Send),
}

impl Extract {
    /// One run: what changed, then what the log does not hold, in as many batches as it takes; `each` is told of every batch, or
    /// why there is none. If the connection to the source is lost, it begins again.
    ///
    /// Before a deadline it writes batches until half of the time is over. What a batch holds may take half of what is left to
    /// copy; one that would take longer is begun again, smaller.
    ///
    /// # Errors
    /// Each says what failed; nothing is lost, the next run reads it. [`Error::Late`] if not even a small batch was ready in time.
    pub async fn run(&self, request: &Request, mut each: impl FnMut(Report) + Send) -> Result<(), Error> {
        let Request { full, batches, deadline } = request.clone();
        let mut work = Work {
            full,
            bytes: self.batch_bytes,
            batches: batches.unwrap_or(u64::MAX),
            deadline,
            half: deadline.halfway(),
            wrote: false,
            progressed: false,
            each: &mut each,
        };
        loop {
            let attempt = async || self.attempt(&mut work).await;
            match postgres::retry(attempt, |error| error.is_transient() && deadline.allows(LEAST)).await {
                Err(Error::Late { .. }) if deadline.allows(LEAST) => {
                    tracing::info!(bytes = work.bytes, "a batch of this size takes too long; trying a smaller one");
                    work.bytes /= 4;
                }
                // A run of hours may lose its connection more often than one batch would.
                Err(error) if error.is_transient() && std::mem::take(&mut work.progressed) => {}
                // The batches written so far stand. If the error persists, the next run reports it.
                Err(error) if work.wrote && deadline.left().is_some() => {
                    tracing::warn!(error = in_parts(&error.to_string()).0, "the batches before are written");
                    return Ok(());
                }
                // Another run has the number, and goes on by itself; but nobody else was asked for this.
                Ok(Outcome::Lost) if work.full != Full::AsNeeded && work.half.allows(Duration::ZERO) => {}
                done => return done.map(drop),
            }
        }
    }

    async fn attempt(&self, work: &mut Work<'_>) -> Result<Outcome, Error> {
        let limit = Limit { setting: self.statement_timeout, deadline: work.deadline };
        let allowed = limit.now();
        let state = self.read_log().await?;
        match self.extract(&state, work, (limit, &allowed)).await.map_err(|error| allowed.explain(error)) {
            Err(error) if error.gives_way() => {
                (work.each)(state.report(Outcome::GaveWay, vec![in_parts(&error.to_string()).0.to_owned()]));
                Ok(Outcome::GaveWay)
            }
            done => done,
        }
    }

    /// The whole way: from the snapshot to the last batch of it.
    async fn extract(
        &self,
        state: &State,
        work: &mut Work<'_>,
        (limit, allowed): (Limit, &Allowed),
    ) -> Result<Outcome, Error> {
        let names: Vec<_> = self.pack.source_tables().into_iter().collect();
        let full = self.in_full(&work.full, &names)?;
        let mut clients = self.connect(allowed, &names).await?;
        let how = (self.change_detection, self.slot.as_str());
        let mut captured = Captured::open(&self.source, how, state.newest.as_ref(), limit).await;
        let Snapshot { readers, server, bounds, version, at, wal_before } =
            snapshot::open(&mut clients, &self.schema, &names, allowed).await?;
        let tables = catalogue::read(&readers[0], &self.schema, &names, &self.exclude).await?;
        let named = captured.peek(state.newest.as_ref(), &server, &readers[0], &tables).await?;
        let broken = continuity::broken(state.newest.as_ref(), &server, wal_before, captured.token_seen())?;
        let models = models::states(&self.pack, &tables)?;

        // Another server gives the same numbers to other transactions.
        let newest = state.newest.as_ref().filter(|_| broken.is_none());
        // A standby does not print the transactions that are open.
        let is_quiet = !server.standby && newest.is_some_and(|newest| newest.source.snapshot == server.snapshot);
        let counted = wal::counted(newest, at);
        let (pack, schema, transactions) = (&self.pack, &self.schema, &readers);
        let reader = Reader {
            transactions,
            server: Server { bounds, version },
            schema,
            pack,
            tables: &tables,
            newest,
            is_quiet,
            named: &named,
            counts: counted == at,
            limit,
        };
        let plan = plan::plan(state.newest.as_ref(), broken.as_deref(), &server, &tables, pack, &full);
        let changes = reader.changes(&plan, Count::Held).await?;
        let too_large = reader.too_large(&plan, &changes, work.bytes).await?;
        let plan = plan::in_full(plan, &too_large, &tables);

        let origin = Origin {
            server: &server,
            bounds,
            at,
            pack: &pack.hash,
            models: &models,
            tables: &tables,
            wal: captured.next(newest, bounds, &tables, counted),
        };
        let fallback = captured.fallback().map(|why| format!("this run scans for changes: {why}"));
        let broken = broken.map(|why| format!("{why}; every table is read in full"));
        let mut notices: Vec<_> = broken.into_iter().chain(fallback).collect();
        let held_seconds = self.held(newest, bounds.xmin).await?;
        let retained_wal_bytes = captured.retained();
        let mut batches = Batches::new(&reader, &plan, &changes, state, (self.log.store(), self.object_bytes));
        loop {
            let began = Instant::now();
            let Some(batch) = batches.next(&origin, work.bytes).await? else {
                (work.each)(Report { held_seconds, retained_wal_bytes, ..state.report(Outcome::Nothing, notices) });
                return Ok(Outcome::Nothing);
            };
            let outcome = match self.log.commit(&batch.manifest).await? {
                Commit::Won => Outcome::Batch,
                Commit::Lost => Outcome::Lost,
            };
            let report = state.report(outcome, std::mem::take(&mut notices));
            (work.each)(Report { held_seconds, retained_wal_bytes, ..batches.report(&batch, report) });
            if outcome == Outcome::Lost {
                return Ok(outcome);
            }
            captured.committed(&batch.manifest).await;
            (work.wrote, work.progressed) = (true, true);
            (work.full, work.batches) = (Full::AsNeeded, work.batches - 1);
            if batch.cut.is_last() || work.batches == 0 || !work.half.allows(began.elapsed()) {
                return Ok(outcome);
            }
            batches.committed(batch);
        }
    }

    /// The tables that are asked for in full.
    fn in_full(&self, full: &Full, known: &[String]) -> Result<Vec<String>, Error> {
        let full = match full {
            Full::AsNeeded => Vec::new(),
            Full::Tables(tables) => tables.clone(),
            Full::All => known.to_vec(),
        };
        match full.iter().find(|table| !known.contains(table)) {
            Some(table) => Err(Error::UnknownTable { table: table.clone(), known: known.to_vec() }),
            None => Ok(full),
        }
    }
}
