//! What happened in a month in a repository: its commits, from all branches, and its pull requests.

use std::collections::{BTreeMap, BTreeSet};

use blackwater_base::deadline::Deadline;
use blackwater_base::store::{If, JSON, Store};
use blackwater_http::{Error as HttpError, StatusCode};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::bitbucket::{Bitbucket, Commit, Pull, failed};
use crate::error::Error;
use crate::month::Month;

/// Pages after which the state is written, so that a run that dies loses no more.
const SAVED: u64 = 25;
/// The most heads that go into an address.
const MOST_HEADS: usize = 100;

/// How far a repository is read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Walk {
    /// The commits of the month, by hash.
    pub(crate) commits: BTreeMap<String, Commit>,
    /// The pull requests that somebody approved or that were merged in the month, by number.
    pub(crate) pulls: BTreeMap<u64, Pull>,
    /// Commits without a date.
    pub(crate) undated: BTreeSet<String>,
    /// Commits of later months, for which those need not look again.
    later: BTreeMap<String, Commit>,
    /// What branches and tags pointed to before the commits were read.
    heads: BTreeSet<String>,
    /// The heads of the month before, whose history was read then.
    exclude: Vec<String>,
    /// Pages of commits so far.
    pub(crate) pages: u64,
    /// What ended the commits; `None` until they are.
    pub(crate) ended: Option<End>,
    /// Whether the pull requests are read.
    pub(crate) is_done: bool,
    /// Where it goes on.
    next: Option<String>,
    /// Pages in a row that were too old.
    old: u32,
    /// What is read: of which time, and how far back.
    of: Option<Span>,
}

/// The time that is read, and how many pages in a row may be older than it by how many days; `None`: all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Span {
    pub(crate) from: DateTime<Utc>,
    pub(crate) to: DateTime<Utc>,
    pub(crate) margin: Option<(u32, u32)>,
}

/// What ended a walk through commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum End {
    /// There were no more.
    History,
    /// There were no more that the month before had not seen.
    Seen,
    /// So many pages in a row were older than the month that no more are expected.
    Margin,
    /// The repository is not there, or not for this token.
    NotFound,
}

/// What of a history is read.
pub(crate) struct Wanted {
    pub(crate) month: Month,
    pub(crate) span: Span,
}

impl Span {
    fn has(&self, date: DateTime<Utc>) -> bool {
        (self.from..self.to).contains(&date)
    }
}

/// Reads a repository from where an earlier run stopped. What was read is written to the bucket also when it fails.
pub(crate) async fn walk(
    bitbucket: &Bitbucket<'_>,
    store: &Store,
    repository: &str,
    wanted: &Wanted,
    deadline: Deadline,
) -> Result<Walk, Error> {
    let key = format!("evidence/{}/walks/{repository}.json", wanted.month);
    // One of another time, or that looked less far back, is of no use.
    let known = read(store, &key).await?.filter(|walk| walk.of == Some(wanted.span));
    let mut walk = match known {
        Some(walk) => walk,
        None => {
            let before = format!("evidence/{}/walks/{repository}.json", wanted.month.previous());
            Walk::after(read(store, &before).await?, wanted.span)
        }
    };
    if walk.is_done {
        return Ok(walk);
    }
    let read = tokio::select! {
        read = walk.go_on(bitbucket, Some((store, &key)), repository, wanted) => read,
        () = over(deadline) => Ok(()),
    };
    write(store, &key, &walk).await?;
    read?;
    Ok(walk)
}

/// Reads a repository from its beginning, and writes nothing.
pub(crate) async fn look(bitbucket: &Bitbucket<'_>, repository: &str, wanted: &Wanted) -> Result<Walk, Error> {
    let mut walk = Walk::of(wanted.span);
    walk.go_on(bitbucket, None, repository, wanted).await?;
    Ok(walk)
}

/// Waits until a deadline is over.
async fn over(deadline: Deadline) {
    match deadline.left() {
        Some(left) => tokio::time::sleep(left).await,
        None => std::future::pending().await,
    }
}

/// Forgets how far the repositories of a month are read, so that they are read anew.
pub(crate) async fn forget(store: &Store, month: Month) -> Result<(), Error> {
    for key in store.list(&format!("evidence/{month}/walks/"), "", usize::MAX).await? {
        write(store, &key, &Walk::default()).await?;
    }
    Ok(())
}

async fn read(store: &Store, key: &str) -> Result<Option<Walk>, Error> {
    let Some(body) = store.get(key).await? else { return Ok(None) };
    let walk = serde_json::from_slice(&body);
    walk.map(Some).map_err(|error| Error::State { place: format!("{}/{key}", store.bucket()), why: error.to_string() })
}

async fn write(store: &Store, key: &str, walk: &Walk) -> Result<(), Error> {
    let unwritable = |error: serde_json::Error| Error::Write { what: key.into(), why: error.to_string() };
    let body = serde_json::to_vec(walk).map_err(unwritable)?;
    store.put_if(If::Any, key, Some(JSON), body.into()).await?;
    Ok(())
}

impl Walk {
    fn of(span: Span) -> Self {
        Self { of: Some(span), ..Self::default() }
    }

    /// One that reads only what the month before has not seen, unless everything is to be read.
    fn after(before: Option<Self>, span: Span) -> Self {
        let mut walk = Self::of(span);
        let is_before = |before: &Self| before.is_done && before.of.is_some_and(|known| known.to == span.from);
        let before = before.filter(|before| is_before(before) && span.margin.is_some());
        if let Some(before) = before.filter(|before| (1..=MOST_HEADS).contains(&before.heads.len())) {
            walk.exclude = before.heads.into_iter().collect();
            walk.take(before.later.into_values(), span);
        }
        walk
    }

    /// Whether the repository is not there, or not for this token.
    pub(crate) fn is_missing(&self) -> bool {
        self.ended == Some(End::NotFound)
    }

    /// Whether a time is of the month.
    pub(crate) fn has(&self, date: DateTime<Utc>) -> bool {
        self.of.is_some_and(|span| span.has(date))
    }

    async fn go_on(
        &mut self,
        bitbucket: &Bitbucket<'_>,
        kept: Option<(&Store, &str)>,
        repository: &str,
        wanted: &Wanted,
    ) -> Result<(), Error> {
        // Addresses of pages may not hold for ever.
        let mut is_resumed = self.next.is_some();
        let mut seen = BTreeSet::new();
        if self.ended == Some(End::NotFound) {
            self.ended = None;
        }
        if self.next.is_none() && self.ended.is_none() {
            // Before the commits: what is pushed meanwhile is the next month's to see.
            match heads(bitbucket, repository).await {
                Ok(heads) => self.heads = heads,
                // Asked for again by each run: it may be there, or be shown to the token, by then.
                Err(Error::Bitbucket { why, .. }) if why.status() == Some(StatusCode::NOT_FOUND) => {
                    self.ended = Some(End::NotFound);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        while self.ended.is_none() {
            let url = self.next.clone().unwrap_or_else(|| bitbucket.commits(repository, &self.exclude));
            let page = match bitbucket.page(&url).await {
                Ok(page) => page,
                Err(error) if is_of_page(&error) && (is_resumed || !self.exclude.is_empty()) => {
                    // Begun anew, and without heads that may be gone.
                    let heads = std::mem::take(&mut self.heads);
                    (*self, is_resumed) = (Self { heads, ..Self::of(wanted.span) }, false);
                    seen.clear();
                    continue;
                }
                Err(error) => {
                    if is_of_page(&error) {
                        *self = Self::of(wanted.span);
                    }
                    return Err(failed(repository, error));
                }
            };
            if !seen.insert(url) {
                *self = Self::of(wanted.span);
                return Err(Error::Repeats { repository: repository.into() });
            }
            is_resumed = false;
            self.pages += 1;
            self.take(page.values.iter().filter_map(Commit::of), wanted.span);
            self.next = page.next;
            if self.next.is_none() {
                self.ended = Some(if self.exclude.is_empty() { End::History } else { End::Seen });
            } else if self.exclude.is_empty() && wanted.span.margin.is_some_and(|(pages, _)| self.old >= pages) {
                self.ended = Some(End::Margin);
            }
            if let Some((store, key)) = kept.filter(|_| self.pages.is_multiple_of(SAVED)) {
                write(store, key, self).await?;
            }
        }
        self.next = None;
        let pulls = bitbucket.values(repository, bitbucket.pulls(repository, wanted.span.from)).await?;
        for pull in pulls.iter().filter_map(Pull::of) {
            self.take_pull(pull);
        }
        self.is_done = true;
        Ok(())
    }

    /// Keeps what is of the month of a page of commits, and what is of later ones.
    fn take(&mut self, commits: impl Iterator<Item = Commit>, span: Span) {
        let days = span.margin.map_or(0, |(_, days)| days);
        let oldest = span.from - TimeDelta::days(i64::from(days));
        let (mut has_old, mut has_new) = (false, false);
        for commit in commits {
            let Some(date) = commit.date.map(|date| date.to_utc()) else {
                self.undated.insert(commit.hash);
                continue;
            };
            (has_old, has_new) = (has_old || date < oldest, has_new || date >= oldest);
            if span.has(date) {
                self.commits.insert(commit.hash.clone(), commit);
            } else if date >= span.to {
                self.later.insert(commit.hash.clone(), commit);
            }
        }
        self.old = if has_old && !has_new { self.old + 1 } else { 0 };
    }

    /// Keeps a pull request that was merged or approved in the month, with all its approvals: one of an earlier month is not to be
    /// taken for one of this.
    fn take_pull(&mut self, pull: Pull) {
        let has_approval = pull.approvals.iter().any(|(_, date)| self.has(date.to_utc()));
        if has_approval || self.merge_of(&pull).is_some() {
            self.pulls.insert(pull.id, pull);
        }
    }

    /// The commit of the month that merged a pull request.
    pub(crate) fn merge_of(&self, pull: &Pull) -> Option<&Commit> {
        let hash = pull.merged_as.as_ref().filter(|hash| !hash.is_empty())?;
        let (known, commit) = self.commits.range(hash.clone()..).next()?;
        known.starts_with(hash).then_some(commit)
    }
}

/// What the branches and tags of a repository point to.
async fn heads(bitbucket: &Bitbucket<'_>, repository: &str) -> Result<BTreeSet<String>, Error> {
    let mut heads = BTreeSet::new();
    for first in bitbucket.refs(repository) {
        let found = bitbucket.values(repository, first).await?;
        heads.extend(found.iter().filter_map(|found| Some(found["target"]["hash"].as_str()?.to_owned())));
    }
    Ok(heads)
}

/// Whether the fault is the page's address, which may not hold for ever.
fn is_of_page(error: &HttpError) -> bool {
    match error {
        HttpError::Status { status, .. } => matches!(status.as_u16(), 400 | 404 | 410),
        HttpError::Client(_) | HttpError::Form { .. } => true,
        HttpError::NoAnswer { .. } | HttpError::Late { .. } | HttpError::Elsewhere { .. } => false,
    }
}
