//! Backup as a function on AWS: it looks every hour whether a backup is due.

use blackwater_base::deadline::Deadline;
use blackwater_base::store::client;
use blackwater_function::{Function, Metric};
use blackwater_http::Http;
use chrono::{DateTime, Datelike, NaiveDate, Utc};
use serde::Serialize;
use serde_json::Value;

use crate::config::{Config, Every};
use crate::error::Error;
use crate::manifest::{Manifest, Problem, Status};
use crate::progress::Progress;
use crate::run::{AGENT, Backup, Outcome, Request};

/// After how many hours what failed is tried again.
const AGAIN: i64 = 24;
/// The age of a backup that is not there, in hours.
const NEVER: u64 = 24 * 3650;

impl Backup {
    /// The one of these settings on AWS.
    ///
    /// # Errors
    /// If no requests can be made.
    pub async fn on_aws(config: Config) -> Result<Self, Error> {
        Ok(Self::new(config, client(None, None).await, Http::new(AGENT)?))
    }

    /// The newest backup of all repositories, and whether another one is due at a time: there is none of this month (or week, or day),
    /// one was begun, or something failed a day ago.
    ///
    /// # Errors
    /// If the bucket cannot be read.
    pub async fn due(&self, at: DateTime<Utc>) -> Result<(Option<Manifest>, bool), Error> {
        let account = self.account().await?;
        let numbers = Manifest::numbers(&account).await?;
        let newest = Manifest::newest_whole(&account, &numbers).await?;
        let Some(last) = &newest else { return Ok((None, true)) };
        let number = numbers.last().map_or(1, |number| number + 1);
        let is_begun = Progress::is_any(&account, number).await?;
        let date = last.date.parse::<NaiveDate>().ok();
        let period = |date: NaiveDate| match self.config.every {
            Every::Month => (date.year(), date.month()),
            Every::Week => (date.iso_week().year(), date.iso_week().week()),
            Every::Day => (date.year(), date.ordinal()),
        };
        let is_old = date.is_none_or(|date| period(date) != period(at.date_naive()));
        let is_to_be_mended = !last.complete && age(last, at) >= AGAIN;
        Ok((newest, is_begun || is_old || is_to_be_mended))
    }
}

/// For the schedule's event; `{"anew": true}` asks for a backup whether one is due or not, `{"full": true}` for all of it.
impl Function for Backup {
    type Report = Summary;
    type Error = Error;

    const TARGET: &'static str = "backup";
    const METRICS: (&'static str, &'static str) = ("Backup", "name");

    async fn make() -> Result<Self, Error> {
        Self::on_aws(Config::read(None, std::env::vars())?).await
    }

    async fn run(&self, event: &Value, deadline: Deadline) -> Result<Summary, Error> {
        let request = Request { only: Vec::new(), is_full: event["full"] == true };
        let (newest, is_due) = self.due(Utc::now()).await?;
        if !is_due && event["anew"] != true && !request.is_full {
            return Ok(Summary::of(State::NotDue, newest.as_ref(), 0));
        }
        let last = Summary::of(State::Waiting, newest.as_ref(), 0);
        // It is large, and read again.
        drop(newest);
        Ok(match self.run(&request, deadline).await? {
            Outcome::Made(made) => {
                let summary = Summary::of(State::Made, Some(&made), 0);
                for entry in &made.repositories {
                    for Problem { part, why, .. } in &entry.problems {
                        tracing::warn!(repository = entry.listed.full_name, part, "not backed up: {why}");
                    }
                }
                if !made.complete {
                    tracing::error!("backup {} lacks something of {} repositories", made.backup, summary.failed);
                }
                summary
            }
            Outcome::Beaten(other) => Summary::of(State::Beaten, Some(&other), 0),
            Outcome::Waiting { left, .. } => Summary { left, ..last },
        })
    }

    fn is_of_login(_: &Error) -> bool {
        false
    }

    fn dimension(&self) -> &str {
        self.name()
    }

    fn metrics(summary: &Summary) -> Vec<Metric> {
        vec![("AgeHours", "Count", summary.age_hours), ("Failed", "Count", summary.failed as u64)]
    }
}

fn age(manifest: &Manifest, at: DateTime<Utc>) -> i64 {
    let ended = DateTime::parse_from_rfc3339(&manifest.ended);
    ended.map_or(i64::MAX, |ended| (at - ended.to_utc()).num_hours())
}

/// What became of an invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Made,
    Waiting,
    Beaten,
    NotDue,
}

/// What the log says of an invocation.
#[derive(Debug, Serialize)]
pub struct Summary {
    state: State,
    /// The newest backup, and what it has.
    backup: u64,
    done: usize,
    unchanged: usize,
    failed: usize,
    /// How many repositories are still to be read for the next one.
    left: usize,
    /// How old the newest backup is.
    age_hours: u64,
}

impl Summary {
    fn of(state: State, newest: Option<&Manifest>, left: usize) -> Self {
        let count = |status| newest.map_or(0, |manifest| manifest.count(status));
        Self {
            state,
            backup: newest.map_or(0, |manifest| manifest.backup),
            done: count(Status::Done),
            unchanged: count(Status::Unchanged),
            failed: count(Status::Failed) + count(Status::Skipped),
            left,
            age_hours: newest.map_or(NEVER, |manifest| age(manifest, Utc::now()).max(0).unsigned_abs()),
        }
    }
}
