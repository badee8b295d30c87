//! Evidence as a function on AWS: every day, until the month is complete.

use blackwater_base::deadline::Deadline;
use blackwater_base::store::{Store, client};
use blackwater_function::{Function, Metric};
use blackwater_http::Http;
use chrono::{Datelike, Utc};
use serde::Serialize;
use serde_json::Value;

use crate::config::Config;
use crate::error::Error;
use crate::manifest::{Manifest, State};
use crate::month::Month;
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
    type Report = Summary;
    type Error = Error;

    const TARGET: &'static str = "evidence";
    const METRICS: (&'static str, &'static str) = ("Evidence", "name");

    async fn make() -> Result<Self, Error> {
        Self::on_aws(Config::read(None, std::env::vars())?).await
    }

    async fn run(&self, event: &Value, deadline: Deadline) -> Result<Summary, Error> {
        let unreadable = |_| Error::Month { month: event["month"].to_string(), why: "write a month as 2026-07" };
        let month = event["month"].as_str().map(|month| month.parse().map_err(unreadable)).transpose()?;
        let (is_anew, is_exhaustive) = (event["anew"] == true, event["exhaustive"] == true);
        let request = Request { month, is_anew, is_exhaustive, only: None };
        let manifest = self.run(request, deadline).await?;
        if manifest.state != State::Complete && month.is_none() && Utc::now().day() >= LATE {
            tracing::error!("{} is not complete", manifest.month);
        }
        Ok(Summary::of(&manifest))
    }

    fn is_of_login(_: &Error) -> bool {
        false
    }

    fn dimension(&self) -> &str {
        self.name()
    }

    fn metrics(summary: &Summary) -> Vec<Metric> {
        let is_complete = u64::from(summary.state == State::Complete);
        vec![("Complete", "Count", is_complete), ("People", "Count", summary.people as u64)]
    }
}

/// What the log says of a month: nobody's name or address.
#[derive(Debug, Serialize)]
pub struct Summary {
    month: Month,
    state: State,
    repositories: usize,
    people: usize,
    unknown_people: usize,
    failures: usize,
    waiting: usize,
}

impl Summary {
    fn of(manifest: &Manifest) -> Self {
        Self {
            month: manifest.month,
            state: manifest.state,
            repositories: manifest.repositories.len(),
            people: manifest.people.values().filter(|person| person.zip.is_some()).count(),
            unknown_people: manifest.unknown_people.len(),
            failures: manifest.failures.len(),
            waiting: manifest.waiting.len(),
        }
    }
}
