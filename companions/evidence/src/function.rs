//! Evidence as a function on AWS: every day, until the month is complete.

use blackwater_base::deadline::Deadline;
use blackwater_base::store::{Store, client};
use blackwater_function::{Function, Metric};
use blackwater_http::Http;
use chrono::{Datelike, Utc};
use serde_json::Value;

use crate::config::Config;
use crate::error::Error;
use crate::manifest::{Manifest, State};
use crate::run::{AGENT, Evidence, Request};

/// From which day on it is an error that the month before is not complete.
const LATE: u32 = 3;

impl Evidence {
    /// The one of these settings on AWS.
    ///
    /// # Errors
    /// If no requests can be made.
    pub async fn on_aws(config: Config) -> Result<Self, Error> {
        let store = Store::new(client(None, None).await, &config.store.bucket, "store.bucket");
        Ok(Self::new(config, store, Http::new(AGENT)?))
    }
}

/// For the schedule's event; `{"month": "2026-10", "anew": true}` asks for a month.
impl Function for Evidence {
    type Report = Manifest;
    type Error = Error;

    const TARGET: &'static str = "evidence";
    const METRICS: (&'static str, &'static str) = ("Evidence", "name");

    async fn make() -> Result<Self, Error> {
        Self::on_aws(Config::read(None, std::env::vars())?).await
    }

    async fn run(&self, event: &Value, deadline: Deadline) -> Result<Manifest, Error> {
        let month = event["month"].as_str().and_then(|month| month.parse().ok());
        let request = Request { month, is_anew: event["anew"] == true, is_exhaustive: event["exhaustive"] == true };
        let manifest = self.run(request, deadline).await?;
        if manifest.state != State::Complete && month.is_none() && Utc::now().day() >= LATE {
            tracing::error!("{} is not complete: {:?}", manifest.month, manifest.failures);
        }
        Ok(manifest)
    }

    fn is_of_login(_: &Error) -> bool {
        false
    }

    fn dimension(&self) -> &str {
        self.name()
    }

    fn metrics(manifest: &Manifest) -> Vec<Metric> {
        let people = manifest.people.values().filter(|person| person.zip.is_some()).count() as u64;
        vec![("Complete", "Count", u64::from(manifest.state == State::Complete)), ("People", "Count", people)]
    }
}
