//! What the three functions have in common: configuration from variables, logins that may be rotated, events that are no more
//! than a reason to look, and lines of JSON.

use std::sync::Arc;

use blackwater_shared::config::{self, Config};
use blackwater_shared::pack::{self, Pack};
use blackwater_shared::store::{self, Store};
use blackwater_shared::{in_parts, postgres, secrets};
use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::Mutex;
use tracing::Instrument;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How a stage is made of its configuration, with the ingestion and the processed bucket.
type Make<S> = fn(&Config, Pack, Store, Store) -> Result<S, postgres::Error>;

/// Why an invocation failed.
#[derive(Debug)]
enum Failure<E> {
    Config(config::Error),
    Pack(pack::Error),
    Postgres(postgres::Error),
    Stage(E),
}

/// A stage's error: what a function does with it.
pub trait StageError: std::error::Error {
    /// Whether the database refused the login, as after a rotation.
    fn is_of_login(&self) -> bool;
}

impl StageError for blackwater_extract::Error {
    fn is_of_login(&self) -> bool {
        matches!(self, Self::Postgres(error) if error.is_of_login())
    }
}

impl StageError for blackwater_transform::Error {
    fn is_of_login(&self) -> bool {
        false
    }
}

impl StageError for blackwater_load::Error {
    fn is_of_login(&self) -> bool {
        matches!(self, Self::Postgres(error) if error.is_of_login())
    }
}

/// Serves invocations of one stage, until the process ends. `make` is called once, and again when a login is refused: a secret
/// may have been rotated. Every event makes a run, for a run does all that is missing; but S3's test event does nothing.
///
/// # Errors
/// If the runtime cannot be reached.
pub async fn serve<S, R, E>(
    make: Make<S>,
    run: impl AsyncFn(&S, &Value) -> Result<R, E>,
) -> Result<(), lambda_runtime::Error>
where
    R: Serialize,
    E: StageError,
{
    let ours = Targets::new().with_default(LevelFilter::WARN).with_target("blackwater", LevelFilter::INFO);
    let lines =
        tracing_subscriber::fmt::layer().json().flatten_event(true).with_current_span(true).with_span_list(false);
    tracing_subscriber::registry().with(lines).with(ours).init();

    // Before the first event, while the processor is not limited yet. What fails now is tried again then.
    let kept = Mutex::new(stage::<S, E>(make).await.ok());
    let (kept, run) = (&kept, &run);
    let invoke = service_fn(move |event: LambdaEvent<Value>| {
        let span = tracing::info_span!("invocation", request_id = event.context.request_id);
        async move {
            if event.payload["Event"] == "s3:TestEvent" {
                return Ok(Value::Null);
            }
            let done = invocation(kept, make, async |stage: &S| run(stage, &event.payload).await).await;
            done.map_err(|failure| {
                let diagnostic = failure.diagnostic();
                tracing::error!(error_type = diagnostic.error_type, "{}", diagnostic.error_message);
                diagnostic
            })
        }
        .instrument(span)
    });
    lambda_runtime::run(invoke).await
}

async fn stage<S, E>(make: Make<S>) -> Result<Arc<S>, Failure<E>> {
    let config = Config::load(None, std::env::vars(), secrets::fetch).await.map_err(Failure::Config)?;
    let pack = Pack::read(&config.model).map_err(Failure::Pack)?;
    let client = store::client(None, None).await;
    let ingestion = Store::new(client.clone(), &config.ingestion, "ingestion.bucket");
    let processed = Store::new(client, &config.processed, "processed.bucket");
    make(&config, pack, ingestion, processed).map(Arc::new).map_err(Failure::Postgres)
}

async fn invocation<S, R: Serialize, E: StageError>(
    kept: &Mutex<Option<Arc<S>>>,
    make: Make<S>,
    run: impl AsyncFn(&S) -> Result<R, E>,
) -> Result<Value, Failure<E>> {
    let mut kept = kept.lock().await;
    let known = match kept.take() {
        Some(known) => known,
        None => stage(make).await?,
    };
    let (stage, done) = match run(&known).await {
        Err(error) if error.is_of_login() => {
            tracing::info!("the login was refused; asking for it again");
            let fresh = stage(make).await?;
            let done = run(&fresh).await;
            (fresh, done)
        }
        done => (known, done),
    };
    *kept = Some(stage);
    let report = serde_json::to_value(done.map_err(Failure::Stage)?).unwrap_or_default();
    tracing::info!(report = %report, "done");
    Ok(report)
}

impl<E: StageError> Failure<E> {
    fn diagnostic(&self) -> Diagnostic {
        let (debug, text) = match self {
            Self::Config(error) => (format!("Config({error:?})"), error.to_string()),
            Self::Pack(error) => (format!("Pack({error:?})"), error.to_string()),
            Self::Postgres(error) => (format!("Postgres({error:?})"), error.to_string()),
            Self::Stage(error) => (format!("{error:?}"), error.to_string()),
        };
        let (what, remedy) = in_parts(&text);
        let error_message = remedy.map_or(what.clone(), |remedy| format!("{what}. {remedy}"));
        Diagnostic { error_type: type_name(&debug), error_message }
    }
}

/// The names of the variants of an error, as `Postgres.Connect`, from how it is printed for debugging.
fn type_name(debug: &str) -> String {
    let names = debug.split('(').map(|part| {
        let end = part.find(|c: char| !c.is_alphanumeric()).unwrap_or(part.len());
        (&part[..end], end == part.len())
    });
    let mut whole = Vec::new();
    for (name, leads_on) in names {
        whole.push(name);
        if !leads_on {
            break;
        }
    }
    whole.join(".")
}

#[cfg(test)]
mod tests {
    use super::type_name;

    #[test]
    fn an_error_has_a_name_that_stays() {
        assert_eq!(type_name("Postgres(Connect { database: \"a (b)\" })"), "Postgres.Connect");
        assert_eq!(type_name("Log(Store(NoBucket { bucket: \"x\" }))"), "Log.Store.NoBucket");
        assert_eq!(type_name("TooOld { version: 12 }"), "TooOld");
    }
}
