//! What is particular to each stage as a function.

use blackwater_base::deadline::Deadline;
use blackwater_base::store::Store;
use blackwater_extract::{Extract, Full, Outcome, Request};
use blackwater_function::Metric;
use blackwater_load::Load;
use blackwater_shared::config::Config;
use blackwater_shared::pack::Pack;
use blackwater_shared::postgres::{self, Kind};
use blackwater_transform::Transform;
use serde::Serialize;
use serde_json::Value;

/// A stage as a function.
#[allow(async_fn_in_trait)]
pub trait Stage: Sized {
    /// What a run did.
    type Report: Serialize;
    /// Why it failed.
    type Error: std::error::Error;

    /// The stage of a configuration, with the ingestion and the processed bucket.
    ///
    /// # Errors
    /// If there are no certificates to verify a database with.
    fn make(config: &Config, pack: Pack, ingestion: Store, processed: Store) -> Result<Self, postgres::Error>;

    /// A run for an event, which ends before the deadline.
    async fn run(&self, event: &Value, deadline: Deadline) -> Result<Self::Report, Self::Error>;

    /// Whether a database refused the login, as after a rotation.
    fn is_of_login(error: &Self::Error) -> bool;

    /// What is to be watched of a run.
    fn metrics(report: &Self::Report) -> Vec<Metric>;
}

/// For the schedule's event; `{"full": ["staff"]}` asks for tables in full.
impl Stage for Extract {
    type Report = Vec<blackwater_extract::Report>;
    type Error = blackwater_extract::Error;

    fn make(config: &Config, pack: Pack, ingestion: Store, processed: Store) -> Result<Self, postgres::Error> {
        Self::new(config, pack, ingestion, processed)
    }

    async fn run(&self, event: &Value, deadline: Deadline) -> Result<Self::Report, Self::Error> {
        let tables = |names: &Vec<Value>| names.iter().filter_map(|name| Some(name.as_str()?.to_owned())).collect();
        let full = event["full"].as_array().map_or(Full::AsNeeded, |names| Full::Tables(tables(names)));
        let (request, mut reports) = (Request { full, deadline, ..Request::default() }, Vec::new());
        Self::run(self, &request, |report| reports.push(report)).await?;
        Ok(reports)
    }

    fn is_of_login(error: &Self::Error) -> bool {
        matches!(error, Self::Error::Postgres(error) if error.kind == Kind::Login)
    }

    fn metrics(reports: &Self::Report) -> Vec<Metric> {
        let rows = reports.iter().flat_map(|report| &report.tables).map(|table| table.rows).sum();
        let batches = reports.iter().filter(|report| report.outcome == Outcome::Batch).count() as u64;
        let most = |of: fn(&blackwater_extract::Report) -> u64| reports.iter().map(of).max().unwrap_or(0);
        vec![
            ("ExtractRuns", "Count", 1),
            ("Batches", "Count", batches),
            ("RowsExtracted", "Count", rows),
            ("Lag", "Seconds", most(|report| report.lag_seconds)),
            ("OldestTransaction", "Seconds", most(|report| report.held_seconds)),
            ("RetainedWal", "Bytes", most(|report| report.retained_wal_bytes.unwrap_or(0))),
        ]
    }
}

/// For events of the ingestion bucket, and for the sweep's.
impl Stage for Transform {
    type Report = blackwater_transform::Report;
    type Error = blackwater_transform::Error;

    fn make(_: &Config, pack: Pack, ingestion: Store, processed: Store) -> Result<Self, postgres::Error> {
        Ok(Self::new(pack, ingestion, processed))
    }

    async fn run(&self, _: &Value, deadline: Deadline) -> Result<Self::Report, Self::Error> {
        self.run_until(deadline).await
    }

    fn is_of_login(_: &Self::Error) -> bool {
        false
    }

    fn metrics(_: &Self::Report) -> Vec<Metric> {
        Vec::new()
    }
}

/// For events of the processed bucket, and for the sweep's.
impl Stage for Load {
    type Report = blackwater_load::Report;
    type Error = blackwater_load::Error;

    fn make(config: &Config, pack: Pack, _: Store, processed: Store) -> Result<Self, postgres::Error> {
        Self::new(config, pack, processed)
    }

    async fn run(&self, _: &Value, deadline: Deadline) -> Result<Self::Report, Self::Error> {
        self.run_until(false, deadline).await
    }

    fn is_of_login(error: &Self::Error) -> bool {
        matches!(error, Self::Error::Postgres(error) if error.kind == Kind::Login)
    }

    fn metrics(report: &Self::Report) -> Vec<Metric> {
        let tables = report.batches.iter().flat_map(|batch| &batch.tables);
        let written = tables.map(|table| table.counts.inserted + table.counts.updated + table.counts.deleted).sum();
        vec![("RowsWritten", "Count", written), ("RowsInQuarantine", "Count", report.quarantine)]
    }
}
