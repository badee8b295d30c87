//! What the three functions have in common: configuration from variables, logins that may be rotated, events that are no more
//! than a reason to look, and lines of JSON.

use std::time::Duration;

use blackwater_shared::config::{self, Config};
use blackwater_shared::deadline::Deadline;
use blackwater_shared::pack::{self, Pack};
use blackwater_shared::store::{self, Store};
use blackwater_shared::{in_parts, postgres, secrets};
use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tracing::Instrument;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

mod stages;

pub use stages::Stage;

/// What is kept of an invocation's time for its end.
const MARGIN: Duration = Duration::from_millis(500);

/// Why an invocation failed.
#[derive(Debug)]
enum Failure<E> {
    Config(config::Error),
    Pack(pack::Error),
    Postgres(postgres::Error),
    Stage(E),
}

/// A stage, and the name of its pipeline.
struct Ready<S> {
    stage: S,
    pipeline: String,
}

/// Serves invocations of one stage, until the process ends. It is made once, and again when a login is refused: a secret may
/// have been rotated. Every event makes a run, for a run does all that is missing; but S3's test event does nothing.
///
/// # Errors
/// If the runtime cannot be reached.
pub async fn serve<S: Stage>() -> Result<(), lambda_runtime::Error> {
    let ours = Targets::new().with_target("blackwater", LevelFilter::INFO);
    let lines =
        tracing_subscriber::fmt::layer().json().flatten_event(true).with_current_span(true).with_span_list(false);
    tracing_subscriber::registry().with(lines).with(ours).init();

    // Before the first event, while the processor is not limited yet. What fails now is tried again then.
    let kept = &Mutex::new(ready::<S>().await.ok());
    let invoke = service_fn(move |event: LambdaEvent<Value>| {
        let span = tracing::info_span!("invocation", request_id = event.context.request_id);
        async move {
            if event.payload["Event"] == "s3:TestEvent" {
                return Ok(Value::Null);
            }
            let deadline = Deadline::at(event.context.deadline() - MARGIN);
            invocation::<S>(kept, &event.payload, deadline).await.map_err(|failure| {
                let diagnostic = failure.diagnostic();
                tracing::error!(error_type = diagnostic.error_type, "{}", diagnostic.error_message);
                diagnostic
            })
        }
        .instrument(span)
    });
    lambda_runtime::run(invoke).await
}

async fn ready<S: Stage>() -> Result<Ready<S>, Failure<S::Error>> {
    let config = Config::load(None, std::env::vars(), secrets::fetch).await.map_err(Failure::Config)?;
    let pack = Pack::read(&config.model).map_err(Failure::Pack)?;
    let client = store::client(None, None).await;
    let ingestion = Store::new(client.clone(), &config.ingestion, "ingestion.bucket");
    let processed = Store::new(client, &config.processed, "processed.bucket");
    let stage = S::make(&config, pack, ingestion, processed).map_err(Failure::Postgres)?;
    Ok(Ready { stage, pipeline: config.name })
}

async fn invocation<S: Stage>(
    kept: &Mutex<Option<Ready<S>>>,
    event: &Value,
    deadline: Deadline,
) -> Result<Value, Failure<S::Error>> {
    let mut kept = kept.lock().await;
    let mut known = match kept.take() {
        Some(known) => known,
        None => ready().await?,
    };
    let mut done = known.stage.run(event, deadline).await;
    if done.as_ref().is_err_and(S::is_of_login) {
        tracing::info!("the login was refused; asking for it again");
        known = ready().await?;
        done = known.stage.run(event, deadline).await;
    }
    let Ready { pipeline, .. } = kept.insert(known);
    let report = done.map_err(Failure::Stage)?;
    let watched = S::metrics(&report);
    if !watched.is_empty() {
        println!("{}", metrics(pipeline, &watched));
    }
    let report = serde_json::to_value(report).unwrap_or_default();
    tracing::info!(%report, "done");
    Ok(report)
}

/// A line of CloudWatch's embedded metric format.
/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>
fn metrics(pipeline: &str, metrics: &[(&str, &str, u64)]) -> Value {
    let named: Vec<_> = metrics.iter().map(|(name, unit, _)| json!({ "Name": name, "Unit": unit })).collect();
    let about = json!({
        "Timestamp": chrono::Utc::now().timestamp_millis(),
        "CloudWatchMetrics": [{ "Namespace": "Blackwater", "Dimensions": [["pipeline"]], "Metrics": named }],
    });
    let mut line = json!({ "_aws": about, "pipeline": pipeline });
    for (name, _, value) in metrics {
        line[*name] = (*value).into();
    }
    line
}

impl<E: std::error::Error> Failure<E> {
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

/// The names of the variants of an error, as `Postgres.Login`, from how it is printed for debugging.
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
        assert_eq!(type_name("Postgres(Login { \"cannot connect to a (b)\" })"), "Postgres.Login");
        assert_eq!(type_name("Log(Store(NoBucket { bucket: \"x\" }))"), "Log.Store.NoBucket");
        assert_eq!(type_name("TooOld { version: 12 }"), "TooOld");
    }
}
