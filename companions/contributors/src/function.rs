//! Contributors as two functions on AWS: one polls, the other, which reaches the database, loads.

use blackwater_base::deadline::Deadline;
use blackwater_function::{Function, Metric};
use blackwater_shared::postgres;
use chrono::{NaiveDate, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::{Config, Does, NO_DAY, day_after, first_day};
use crate::error::Error;
use crate::poll::{Period, Request};
use crate::{Contributors, load, poll};

/// What an invocation did.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Report {
    /// It asked GitHub.
    Poll(poll::Report),
    /// It loaded the answers.
    Load(load::Report),
}

/// For the schedule's event, or that of a new object. A poll takes `{"force": true}`, `{"full": true}` and
/// `{"backfill": {"from": "2017-01", "to": "2026-11", "repositories": [], "search": false}}` too.
impl Function for Contributors {
    type Report = Report;
    type Error = Error;

    const TARGET: &'static str = "contributors";
    const METRICS: (&'static str, &'static str) = ("Contributors", "name");

    async fn make() -> Result<Self, Error> {
        Self::on_aws(Config::read(None, std::env::vars())?).await
    }

    async fn run(&self, event: &Value, deadline: Deadline) -> Result<Report, Error> {
        if self.config.does == Does::Load {
            return Ok(Report::Load(self.load(deadline).await?));
        }
        let asked = Request {
            force: event["force"] == true,
            full: event["full"] == true,
            backfill: period(&event["backfill"])?,
            ..Request::at(Utc::now())
        };
        // The next poll goes on with what is left. It begins before the function's time is over, and two would be in each other's way.
        let third = deadline.left().unwrap_or_default() / 3;
        let report = self.poll(&asked, deadline.earlier(third)).await?;
        for failed in &report.failed {
            tracing::error!("{failed}");
        }
        Ok(Report::Poll(report))
    }

    fn is_of_login(error: &Error) -> bool {
        matches!(error, Error::Postgres(error) if error.kind == postgres::Kind::Login)
    }

    fn dimension(&self) -> &str {
        &self.config.name
    }

    fn metrics(report: &Report) -> Vec<Metric> {
        match report {
            Report::Poll(report) => {
                let remaining = report.remaining.map(|remaining| ("Remaining", "Count", remaining));
                let others = [
                    ("Requests", "Count", report.requests),
                    ("OldestPollSeconds", "Seconds", report.oldest_poll_seconds),
                ];
                others.into_iter().chain(remaining).collect()
            }
            Report::Load(report) => vec![("NewestPollSeconds", "Seconds", report.newest_poll_seconds)],
        }
    }
}

/// A backfill as an event has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Backfill {
    from: String,
    to: String,
    #[serde(default)]
    repositories: Vec<String>,
    #[serde(default)]
    search: bool,
}

fn period(asked: &Value) -> Result<Option<Period>, Error> {
    if asked.is_null() {
        return Ok(None);
    }
    let wrong = |setting, why: String| Error::Setting { setting, why };
    let Backfill { from, to, repositories, search } =
        serde_json::from_value(asked.clone()).map_err(|error| wrong("backfill", error.to_string()))?;
    let day = |setting, found: Option<NaiveDate>| found.ok_or_else(|| wrong(setting, NO_DAY.into()));
    let (from, to) = (day("backfill.from", first_day(&from))?, day("backfill.to", day_after(&to))?);
    Ok(Some(Period { from, to, repositories, search }))
}
