//! Timelines: each page of an issue's is asked for with the ETag that it had.

use std::collections::BTreeMap;

use blackwater_http::{Answer, Error as HttpError, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Run;
use crate::account::{Asked, array};
use crate::error::Error;
use crate::record::{Page, Record, Walked};
use crate::state::{FULL, Known};

/// How often a timeline is read again that changes while it is read.
const TRIES: usize = 3;

/// How many timelines of a repository may fail before the rest is left for the next poll.
const MOST_FAILED: usize = 10;

/// A timeline as it was answered.
struct Timeline {
    /// The pages that differ.
    pages: BTreeMap<u32, Page>,
    last: u32,
}

impl Run<'_> {
    /// The timelines that are due, of the open repository. One that cannot be read does not hold up the others.
    pub(super) async fn timelines(&mut self) -> Result<(), Error> {
        let (mut unchanged, mut failed, mut ended) = (Vec::new(), Vec::new(), Ok(()));
        for id in self.issues.due(self.now()) {
            match self.timeline(id, &mut unchanged).await {
                Err(error @ Error::Http(_)) if failed.len() < MOST_FAILED => failed.push((id, error)),
                Err(error) => {
                    ended = Err(error);
                    break;
                }
                Ok(()) => {}
            }
        }
        if !unchanged.is_empty() {
            let (at, repository) = (self.now(), self.open.unwrap_or_default());
            self.push(&Record::Unchanged { at, repository, issues: unchanged })?;
        }
        ended?;
        let count = failed.len();
        match failed.into_iter().next() {
            Some((id, why)) => {
                let number = self.issues.0.get(&id).map_or(0, |issue| issue.number);
                Err(Error::Timelines { count, number, why: Box::new(why) })
            }
            None => Ok(()),
        }
    }

    async fn timeline(&mut self, id: i64, unchanged: &mut Vec<i64>) -> Result<(), Error> {
        let Some(issue) = self.issues.0.get(&id) else { return Ok(()) };
        let (number, as_of) = (issue.number, issue.updated_at);
        let at = self.now();
        let path = format!("{}/issues/{number}/timeline", self.path());
        let answered = match self.answered(id, &path, false).await {
            Err(Error::Http(HttpError::Elsewhere { .. })) => {
                // The issue was transferred; or its repository has another name since this poll began.
                if self.ask(id, number).await? { self.answered(id, &path, true).await? } else { return Ok(()) }
            }
            Err(Error::Http(error)) if matches!(error.status(), Some(StatusCode::NOT_FOUND | StatusCode::GONE)) => {
                if self.ask(id, number).await? {
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
        self.push(&Record::Timeline { at, repository, issue: id, as_of, pages, last })?;
        self.flush_if_enough().await
    }

    /// Reads a timeline. What is deleted from a page moves the events after it up: a page that begins with another event than before,
    /// after one that was as before when it was asked for, means that those before have changed since.
    async fn answered(&mut self, id: i64, path: &str, follows: bool) -> Result<Timeline, Error> {
        let mut known = self.issues.0.get(&id).map(|issue| issue.pages.clone()).unwrap_or_default();
        let mut pages = BTreeMap::new();
        for _ in 0..TRIES {
            let (mut number, mut has_moved) = (1, false);
            let last = loop {
                let before = known.get(number as usize - 1).cloned();
                let etag = before.as_ref().and_then(|before| before.etag.as_deref());
                let path = format!("{path}?per_page={FULL}&page={number}");
                let answer = match follows {
                    true => self.account.get(&path, etag).await?,
                    false => self.account.get_here(&path, etag).await?,
                };
                let goes_on = match (answer, before) {
                    (None, before) => before.is_some_and(|before| before.events == FULL),
                    (Some(answer), before) => {
                        let page = page(number, &answer)?;
                        let was_first = before.and_then(|before| before.first);
                        has_moved |= number > 1 && was_first.is_some() && was_first != page.first();
                        let now = Known { etag: page.etag.clone(), events: page.events.len(), first: page.first() };
                        known.truncate(number as usize - 1);
                        known.push(now);
                        pages.insert(number, page);
                        answer.next().is_some()
                    }
                };
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
    pub(super) async fn ask(&mut self, id: i64, number: i64) -> Result<bool, Error> {
        let path = format!("{}/issues/{number}", self.path());
        let asked = self.account.issue(&path, id).await?;
        let (at, repository) = (self.now(), self.open.unwrap_or_default());
        match asked {
            Asked::There(row) => {
                if !self.issues.has(&row) {
                    self.rows(vec![row], Walked::Alone).await?;
                }
                return Ok(true);
            }
            Asked::Moved { hops, to } => {
                let into = self.repository_of(&to);
                self.report.moved += 1;
                self.push(&Record::Moved { at, repository, issue: id, hops, to, into })?;
            }
            Asked::Gone => {
                self.is_seen().await?;
                self.report.gone += 1;
                self.push(&Record::Gone { at, repository, issue: id })?;
            }
        }
        Ok(false)
    }

    /// Makes sure that the open repository is there: where it is not, its issues are not to be had either, and not gone.
    async fn is_seen(&mut self) -> Result<(), Error> {
        let asked = self.account.get(&self.path(), None).await;
        let unseen = || Error::Unseen { repository: self.name() };
        match asked {
            Ok(Some(answer)) if answer.json::<Value>("a repository")?["id"].as_i64() == self.open => Ok(()),
            Ok(_) => Err(unseen()),
            Err(Error::Http(error)) if error.status() == Some(StatusCode::NOT_FOUND) => Err(unseen()),
            Err(error) => Err(error),
        }
    }

    /// The repository that is watched and has an issue, by what the issue says.
    fn repository_of(&self, row: &Value) -> Option<i64> {
        let url = row["repository_url"].as_str()?;
        let is_named = |name: String| url.to_lowercase().ends_with(&format!("/repos/{}", name.to_lowercase()));
        let watched = self.state.repositories.values().find(|watched| is_named(watched.repository.full_name()))?;
        Some(watched.repository.id)
    }
}

fn page(number: u32, answer: &Answer) -> Result<Page, Error> {
    let mut events = array(answer)?;
    for event in &mut events {
        if event["id"].as_i64().is_none() {
            event["id"] = json!(made_id(event));
        }
    }
    let etag = answer.headers.get("etag").and_then(|etag| etag.to_str().ok()).map(str::to_owned);
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
    let number = Sha256::digest(text).iter().take(8).fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
    -((number >> 1).max(1).cast_signed())
}
