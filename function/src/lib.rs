//! A program as an AWS Lambda function: lines of JSON, a deadline, what is kept between invocations and made again when a login is
//! refused, metrics, and names of errors that stay.

use std::fmt::Display;
use std::process::ExitCode;
use std::time::Duration;

use blackwater_base::deadline::Deadline;
use blackwater_base::in_parts;
use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tracing::Instrument;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// What is kept of an invocation's time for its end.
const MARGIN: Duration = Duration::from_millis(500);

/// A metric: its name, CloudWatch's unit, the value. Each costs 0.30 USD a month.
pub type Metric = (&'static str, &'static str, u64);

/// What serves the events of a function. It is made before the first of them, and again when a login is refused: a secret may have
/// been rotated.
#[allow(async_fn_in_trait)]
pub trait Function: Sized {
    /// What a run did.
    type Report: Serialize;
    /// Why it failed. The names of its variants, as `Debug` prints them, are the type of the function's error.
    type Error: std::error::Error;

    /// What the targets of its lines in the log begin with, beside `blackwater`.
    const TARGET: &'static str;
    /// The namespace of its metrics, and the name of their dimension.
    const METRICS: (&'static str, &'static str);

    /// Gets ready.
    ///
    /// # Errors
    /// What is tried again with the next event.
    async fn make() -> Result<Self, Self::Error>;

    /// A run for an event, which ends before the deadline.
    ///
    /// # Errors
    /// What fails the invocation: Lambda tries again.
    async fn run(&self, event: &Value, deadline: Deadline) -> Result<Self::Report, Self::Error>;

    /// Whether a login was refused, as after a rotation.
    fn is_of_login(error: &Self::Error) -> bool;

    /// The dimension of its metrics.
    fn dimension(&self) -> &str;

    /// What is to be watched of a run.
    fn metrics(report: &Self::Report) -> Vec<Metric>;
}

/// The exit code of a program whose settings or services cannot be used.
pub const WRONG: u8 = 2;

/// A program's `main`: where Lambda starts it, without a word, it serves the function; elsewhere it does what people ask for, with the
/// exit code that this says. An error is printed, and ends it with 2.
pub fn main<F: Function, E: Display>(asked_for: impl AsyncFnOnce() -> Result<u8, E>) -> ExitCode {
    let work = async {
        if std::env::var_os("AWS_LAMBDA_RUNTIME_API").is_none() {
            return asked_for().await.map_err(|error| format!("{error:#}"));
        }
        serve::<F>().await.map(|()| 0).map_err(|error| error.to_string())
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = runtime.map_err(|error| error.to_string()).and_then(|runtime| runtime.block_on(work));
    ExitCode::from(done.unwrap_or_else(|error| {
        eprintln!("{error}");
        WRONG
    }))
}

/// Serves invocations until the process ends. S3's test event does nothing.
///
/// # Errors
/// If the runtime cannot be reached.
pub async fn serve<F: Function>() -> Result<(), lambda_runtime::Error> {
    let ours = Targets::new().with_targets(["blackwater", F::TARGET].map(|target| (target, LevelFilter::INFO)));
    let lines =
        tracing_subscriber::fmt::layer().json().flatten_event(true).with_current_span(true).with_span_list(false);
    tracing_subscriber::registry().with(lines).with(ours).init();

    // Before the first event, while the processor is not limited yet. What fails now is tried again then.
    let kept = &Mutex::new(F::make().await.ok());
    let invoke = service_fn(move |event: LambdaEvent<Value>| {
        let span = tracing::info_span!("invocation", request_id = event.context.request_id);
        async move {
            if event.payload["Event"] == "s3:TestEvent" {
                return Ok(Value::Null);
            }
            let deadline = Deadline::at(event.context.deadline() - MARGIN);
            invocation(kept, &event.payload, deadline).await.map_err(|error| {
                let diagnostic = diagnostic(&error);
                tracing::error!(error_type = diagnostic.error_type, "{}", diagnostic.error_message);
                diagnostic
            })
        }
        .instrument(span)
    });
    lambda_runtime::run(invoke).await
}

async fn invocation<F: Function>(
    kept: &Mutex<Option<F>>,
    event: &Value,
    deadline: Deadline,
) -> Result<Value, F::Error> {
    let mut kept = kept.lock().await;
    let mut known = match kept.take() {
        Some(known) => known,
        None => F::make().await?,
    };
    // On the heap: a stage's futures are so deep that the compiler gives up.
    let mut done = Box::pin(known.run(event, deadline)).await;
    if done.as_ref().is_err_and(F::is_of_login) {
        tracing::info!("the login was refused; asking for it again");
        known = F::make().await?;
        done = Box::pin(known.run(event, deadline)).await;
    }
    let known = kept.insert(known);
    let report = done?;
    let watched = F::metrics(&report);
    if !watched.is_empty() {
        println!("{}", metrics(F::METRICS, known.dimension(), &watched));
    }
    let report = serde_json::to_value(report).unwrap_or_default();
    tracing::info!(%report, "done");
    Ok(report)
}

/// A line of CloudWatch's embedded metric format.
/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>
fn metrics((namespace, dimension): (&str, &str), of: &str, metrics: &[Metric]) -> Value {
    let named: Vec<_> = metrics.iter().map(|(name, unit, _)| json!({ "Name": name, "Unit": unit })).collect();
    let about = json!({
        "Timestamp": chrono::Utc::now().timestamp_millis(),
        "CloudWatchMetrics": [{ "Namespace": namespace, "Dimensions": [[dimension]], "Metrics": named }],
    });
    let mut line = json!({ "_aws": about, dimension: of });
    for (name, _, value) in metrics {
        line[*name] = (*value).into();
    }
    line
}

fn diagnostic(error: &impl std::error::Error) -> Diagnostic {
    let (what, remedy) = in_parts(&error.to_string());
    let error_message = remedy.map_or(what.clone(), |remedy| format!("{what}. {remedy}"));
    Diagnostic { error_type: type_name(&format!("{error:?}")), error_message }
}

/// The names of the variants of an error, as `Postgres.Login`, from how it is printed for debugging.
fn type_name(debug: &str) -> String {
    let names = debug.split('(').map(|part| {
        let end = part.find(|c: char| !c.is_alphanumeric()).unwrap_or(part.len());
        (&part[..end], end == part.len())
    });
    let mut whole = Vec::new();
    for (name, leads_on) in names {
        // As a library calls its only error.
        if name != "Error" {
            whole.push(name);
        }
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
        assert_eq!(type_name("Secret(Error { secret: \"x\" })"), "Secret");
    }
}
