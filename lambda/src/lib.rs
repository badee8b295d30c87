//! What the three functions have in common: configuration from variables, and events that are no more than a reason to look.

use std::fmt;

use blackwater_base::deadline::Deadline;
use blackwater_base::secrets;
use blackwater_base::store::{self, Store};
use blackwater_function::{Function, Metric};
use blackwater_shared::config::{self, Config};
use blackwater_shared::pack::{self, Pack};
use blackwater_shared::postgres;
use serde_json::Value;

mod stages;

pub use stages::Stage;

/// Why an invocation failed.
#[derive(thiserror::Error)]
#[error(transparent)]
pub enum Failure<E: std::error::Error> {
    /// The configuration cannot be used.
    Config(config::Error),
    /// The model pack cannot be used.
    Pack(pack::Error),
    /// There are no certificates to verify a database with.
    Postgres(postgres::Error),
    /// The stage failed.
    Stage(E),
}

/// As its error's type is named: a stage's by its own name.
impl<E: std::error::Error> fmt::Debug for Failure<E> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(config::Error::Settings(error)) => to.debug_tuple("Config").field(error).finish(),
            Self::Config(error) => to.debug_tuple("Config").field(error).finish(),
            Self::Pack(error) => to.debug_tuple("Pack").field(error).finish(),
            Self::Postgres(error) => to.debug_tuple("Postgres").field(error).finish(),
            Self::Stage(error) => fmt::Debug::fmt(error, to),
        }
    }
}

/// A stage, and the name of its pipeline.
struct Ready<S> {
    stage: S,
    pipeline: String,
}

/// Every event makes a run, for a run does all that is missing.
impl<S: Stage> Function for Ready<S> {
    type Report = S::Report;
    type Error = Failure<S::Error>;

    const TARGET: &'static str = "blackwater";
    const METRICS: (&'static str, &'static str) = ("Blackwater", "pipeline");

    async fn make() -> Result<Self, Self::Error> {
        let config = Config::load(None, std::env::vars(), secrets::fetch).await.map_err(Failure::Config)?;
        let pack = Pack::read(&config.model).map_err(Failure::Pack)?;
        let client = store::client(None, None).await;
        let ingestion = Store::new(client.clone(), &config.ingestion, "ingestion.bucket");
        let processed = Store::new(client, &config.processed, "processed.bucket");
        let stage = S::make(&config, pack, ingestion, processed).map_err(Failure::Postgres)?;
        Ok(Self { stage, pipeline: config.name })
    }

    async fn run(&self, event: &Value, deadline: Deadline) -> Result<Self::Report, Self::Error> {
        self.stage.run(event, deadline).await.map_err(Failure::Stage)
    }

    fn is_of_login(error: &Self::Error) -> bool {
        matches!(error, Failure::Stage(error) if S::is_of_login(error))
    }

    fn dimension(&self) -> &str {
        &self.pipeline
    }

    fn metrics(report: &Self::Report) -> Vec<Metric> {
        S::metrics(report)
    }
}

/// Serves invocations of one stage, until the process ends.
///
/// # Errors
/// If the runtime cannot be reached.
pub async fn serve<S: Stage>() -> Result<(), lambda_runtime::Error> {
    blackwater_function::serve::<Ready<S>>().await
}
