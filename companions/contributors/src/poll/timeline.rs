//! Timelines: each page of an issue's is asked for with the ETag that it had.

use std::collections::BTreeMap;

use blackwater_http::{Answer, StatusCode};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Run;
use crate::account::{Lookup, array};
use crate::error::Error;
use crate::record::{Page, Progress, Record};
use crate::state::{FULL, short_hash};

/// How often a timeline is read again that changes while it is read.
const TRIES: usize = 3;
/// How many timelines of a repository may fail before the rest is left for the next poll. It begins with others.
const MOST_UNREAD: usize = 10;

/// A timeline as it was answered.
struct Timeline {
    /// The pages that differ.
    pages: BTreeMap<u32, Page>,
    last: u32,
}

impl Run<'_> {
    /// The timelines that are due, of the open repository. One that cannot be read does not hold up the others, nor the rest of the poll.
    pub(super) async fn timelines(&mut self) -> Result<(), Error> {
        let (mut unchanged, mut unread, mut first) = (Vec::new(), Vec::new(), None);
        let (mut at, mut ended) = (self.now(), Ok(()));
        let mut due = self.issues.due(at);
        due.retain(|id| !self.unread.contains(id));
        for (place, id) in due.iter().copied().enumerate() {
            if self.is_time_to_flush() {
                tracing::info!("{}: {} of {} timelines are read", self.name(), place, due.len());
                self.unchanged(at, std::mem::take(&mut unchanged))?;
                self.flush().await?;
                at = self.now();
            }
            match self.timeline(id, &mut unchanged).await {
                Ok(()) => {}
                Err(error @ (Error::Http(_) | Error::Unreachable { .. })) => {
                    unread.push(id);
                    first.get_or_insert((id, error));
                    if unread.len() == MOST_UNREAD {
                        break;
                    }
                }
                Err(error) => {
                    ended = Err(error);
                    break;
                }
            }
        }
        self.unchanged(at, unchanged)?;
        if let Some((id, why)) = first {
            let count = unread.len();
            let number = self.issues.0.get(&id).map_or(0, |issue| issue.number);
            self.report.failed.push(format!(
                "{}: {}",
                self.name(),
                Error::Timelines { count, number, why: Box::new(why) }
            ));
            let (at, repository) = (self.now(), self.open.unwrap_or_default());
            self.unread.extend(&unread);
            self.record(&Record::Unread { at, repository, issues: unread })?;
        }
        ended
    }

    /// Timelines of which no page differed at a time.
    fn unchanged(&mut self, at: DateTime<Utc>, issues: Vec<i64>) -> Result<(), Error> {
        if issues.is_empty() {
            return Ok(());
        }
        let repository = self.open.unwrap_or_default();
        self.record(&Record::Unchanged { at, repository, issues })
    }

    async fn timeline(&mut self, id: i64, unchanged: &mut Vec<i64>) -> Result<(), Error> {
        let Some(issue) = self.issues.0.get(&id) else { return Ok(()) };
        let (number, as_of) = (issue.number, issue.updated_at);
        let at = self.now();
        let path = format!("{}/issues/{number}/timeline", self.path());
        let answered = match self.answered(id, &path).await {
            // The issue was transferred, or is gone.
            Err(Error::Http(error)) if error.status().is_some_and(is_of_another_place) => {
                if self.look_up(id, number).await? {
                    return Err(error.into());
                }
                return Ok(());
            }
            answered => answered?,
        };
        if answered.pages.is_empty() {
            self.report.unchanged += 1;
            unchanged.push(id);
            return Ok(());
        }
        self.report.timelines += 1;
        let Timeline { pages, last } = answered;
        let (repository, pages) = (self.open.unwrap_or_default(), pages.into_values().collect());
        self.record(&Record::Timeline { at, repository, issue: id, as_of, pages, last })
    }

    /// Reads a timeline. What is deleted from a page moves the events after it up: a page that begins with another event than before,
    /// after one that was as before when it was asked for, means that those before have changed since.
    async fn answered(&mut self, id: i64, path: &str) -> Result<Timeline, Error> {
        let mut known = self.issues.0.get(&id).map(|issue| issue.pages.clone()).unwrap_or_default();
        let mut pages = BTreeMap::new();
        for _ in 0..TRIES {
            let (mut number, mut has_moved) = (1, false);
            let last = loop {
                let before = known.get(number as usize - 1).cloned();
                let etag = before.as_ref().and_then(|before| before.etag.as_deref());
                let path = format!("{path}?per_page={FULL}&page={number}");
                let answer = self.account.get_here(&path, etag).await?;
                // Also an answer that a page is as before says whether there is another one by now.
                let mut goes_on = answer.next().is_some();
                if answer.status == StatusCode::NOT_MODIFIED {
                    goes_on |= before.is_some_and(|before| before.goes_on);
                } else {
                    let page = page(number, &answer)?;
                    let was_first = before.and_then(|before| before.first);
                    has_moved |= number > 1 && was_first.is_some() && was_first != page.first();
                    known.truncate(number as usize - 1);
                    known.push(page.known(if goes_on { number + 1 } else { number }));
                    pages.insert(number, page);
                }
                if !goes_on {
                    break number;
                }
                number += 1;
            };
            pages.retain(|number, _| *number <= last);
            if !has_moved {
                return Ok(Timeline { pages, last });
            }
        }
        let last = u32::try_from(known.len()).unwrap_or(u32::MAX);
        Ok(Timeline { pages, last })
    }

    /// Asks for an issue by itself, and writes down what became of it: whether it is there.
    pub(super) async fn look_up(&mut self, id: i64, number: i64) -> Result<bool, Error> {
        let path = format!("{}/issues/{number}", self.path());
        let asked = self.account.look_up(&path, id).await?;
        let (at, repository) = (self.now(), self.open.unwrap_or_default());
        match asked {
            Lookup::Found(row) => {
                if !self.issues.has(&row) {
                    self.rows(vec![row], Progress::SingleIssue).await?;
                }
                return Ok(true);
            }
            Lookup::Transferred { hops, to } => {
                let into = self.repository_of(&to);
                self.report.moved += 1;
                self.record(&Record::Moved { at, repository, issue: id, hops, to, into })?;
            }
            Lookup::Missing => {
                self.is_seen().await?;
                self.report.gone += 1;
                self.record(&Record::Gone { at, repository, issue: id })?;
            }
        }
        Ok(false)
    }

    /// Asks for issues, by id and number. One that cannot be asked for does not hold up the others.
    pub(super) async fn look_up_all(&mut self, issues: Vec<(i64, i64)>) -> Result<(), Error> {
        for (id, number) in issues {
            if let Err(error) = self.look_up(id, number).await {
                self.note_failure(&format!("{}#{number}", self.name()), error)?;
            }
        }
        Ok(())
    }

    /// Makes sure that the open repository is there: where it is not, its issues are not to be had either, and not gone.
    async fn is_seen(&mut self) -> Result<(), Error> {
        let repository = self.name();
        let unseen = || Error::Unseen { repository: repository.clone() };
        match self.account.get(&self.path(), None).await {
            Ok(Some(answer)) => {
                let found: Value = answer.json("a repository")?;
                if found["id"].as_i64() == self.open && found["has_issues"] != false { Ok(()) } else { Err(unseen()) }
            }
            Ok(None) => Ok(()),
            Err(Error::Http(error)) if error.status() == Some(StatusCode::NOT_FOUND) => Err(unseen()),
            Err(error) => Err(error),
        }
    }

    /// The repository that is watched and has an issue, by what the issue says.
    fn repository_of(&self, row: &Value) -> Option<i64> {
        let url = row["repository_url"].as_str()?;
        let is_named = |name: String| url.to_lowercase().ends_with(&format!("/repos/{}", name.to_lowercase()));
        let watched = self.state.watched().find(|watched| is_named(watched.repository.full_name()))?;
        Some(watched.repository.id)
    }
}

fn is_of_another_place(status: StatusCode) -> bool {
    status.is_redirection() || matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE)
}

fn page(number: u32, answer: &Answer) -> Result<Page, Error> {
    let mut events = array(answer)?;
    events.retain(Value::is_object);
    for event in &mut events {
        if event["id"].as_i64().is_none() {
            event["id"] = json!(made_id(event));
        }
    }
    let etag = answer.etag().map(str::to_owned);
    Ok(Page { number, etag, events })
}

/// A number for an event to which GitHub gives none, from what tells it from others: a commit's, a mention's source, the first of
/// the comments on a line. It is negative, as GitHub's are not.
fn made_id(event: &Value) -> i64 {
    let first = |paths: &[&str]| {
        let found = paths.iter().find_map(|path| event.pointer(path).filter(|value| !value.is_null()));
        found.map(Value::to_string)
    };
    let what = first(&["/sha", "/source/issue/id", "/comments/0/id", "/node_id", "/url"]);
    let when = first(&["/created_at", "/submitted_at"]).unwrap_or_default();
    let text = match what {
        Some(what) => format!("{} {what} {when}", event["event"]),
        None => event.to_string(),
    };
    let number = short_hash(Sha256::new().chain_update(text));
    -((number >> 1).max(1).cast_signed())
}
