//! What a poll writes down of GitHub's answers: each record is one transaction of a load, and one step of a poll that goes on.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::state::{FULL, PageState};

/// One step of a poll.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub(crate) enum Record {
    /// All repositories that are watched.
    Repositories { at: DateTime<Utc>, list: Vec<Repository> },
    /// All members.
    Members { at: DateTime<Utc>, list: Vec<Value> },
    /// Issues and pull requests that are new or differ, and how far a walk is with them.
    Issues { at: DateTime<Utc>, repository: i64, rows: Vec<Value>, progress: Progress },
    /// Issues, by number, that have comments later than their timeline was read, and how far the walk over comments is.
    Comments { at: DateTime<Utc>, repository: i64, numbers: Vec<i64>, since: DateTime<Utc>, etag: Option<String> },
    /// The pages of an issue's timeline that differ. It has pages up to `last`, and is of the issue as it was when `as_of` was its
    /// `updated_at`.
    Timeline { at: DateTime<Utc>, repository: i64, issue: i64, as_of: DateTime<Utc>, pages: Vec<Page>, last: u32 },
    /// Issues of whose timelines no page differs.
    Unchanged { at: DateTime<Utc>, repository: i64, issues: Vec<i64> },
    /// An issue was transferred: to `to`, by way of others. `into` is the repository it is in now, if that is watched.
    Moved { at: DateTime<Utc>, repository: i64, issue: i64, hops: Vec<(i64, i64)>, to: Value, into: Option<i64> },
    /// An issue is deleted, or nowhere that the token may read.
    Gone { at: DateTime<Utc>, repository: i64, issue: i64 },
    /// Issues whose timelines could not be read.
    Unread { at: DateTime<Utc>, repository: i64, issues: Vec<i64> },
    /// The issues of arrivals by transfer have been looked for among those of other repositories.
    Arrived { at: DateTime<Utc> },
    /// A backfill is wanted of a repository.
    Backfill { at: DateTime<Utc>, repository: i64, backfill: Backfill },
    /// The end of a poll: the repositories that it went through.
    Polled { at: DateTime<Utc>, repositories: Vec<i64> },
}

/// A repository that is watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Repository {
    pub(crate) id: i64,
    pub(crate) node_id: Option<String>,
    pub(crate) owner: String,
    pub(crate) name: String,
    pub(crate) archived: bool,
    pub(crate) private: bool,
}

impl Repository {
    pub(crate) fn full_name(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }
}

/// How far a walk through a repository's issues is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "progress", rename_all = "snake_case")]
pub(crate) enum Progress {
    /// By the time of the last update.
    Updated { since: DateTime<Utc>, etag: Option<String> },
    /// Through all there are, on a day; these are on the page. `next` is the path of the next one; at the end there is none.
    FullScan { day: i32, ids: Vec<i64>, next: Option<String> },
    /// Through those of a period.
    Backfill(Backfill),
    /// An issue that was asked for by itself.
    SingleIssue,
    /// The issue of this number was looked for, as another one was transferred to it.
    TransferTarget { number: i64 },
}

/// A period of whose issues all are read, and what is left of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Backfill {
    /// Issues created from here on.
    pub(crate) from: DateTime<Utc>,
    /// And before this.
    pub(crate) to: DateTime<Utc>,
    /// What is left.
    pub(crate) remaining: Remaining,
}

impl std::fmt::Display for Backfill {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let last = self.to - chrono::TimeDelta::days(1);
        write!(f, "backfill of {} to {}", self.from.date_naive(), last.date_naive())
    }
}

/// What is left of a backfill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Remaining {
    /// What was updated since.
    UpdatedSince(DateTime<Utc>),
    /// What was created in these spans, each with its first and last second; to be searched for.
    CreatedIn(Vec<(DateTime<Utc>, DateTime<Utc>)>),
    /// Nothing.
    Done,
}

/// A page of a timeline.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Page {
    pub(crate) number: u32,
    pub(crate) etag: Option<String>,
    pub(crate) events: Vec<Value>,
}

impl Page {
    /// What is kept of it, of a timeline with so many pages.
    pub(crate) fn known(&self, last: u32) -> PageState {
        let goes_on = self.number < last || self.events.len() >= FULL;
        PageState { etag: self.etag.clone(), goes_on, first: self.first() }
    }

    /// The number of its first event.
    pub(crate) fn first(&self) -> Option<i64> {
        self.events.first().and_then(|event| event["id"].as_i64())
    }
}
