//! What happened in a month in a repository: its commits, from all branches, and its pull requests.

use std::collections::{BTreeMap, BTreeSet};

use blackwater_base::deadline::Deadline;
use blackwater_base::store::{If, JSON, Store};
use blackwater_http::StatusCode;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::bitbucket::{Bitbucket, Commit, Pull, failed};
use crate::error::Error;
use crate::month::Month;

/// Pages after which the state is written, so that a run that dies loses no more.
const SAVED: u64 = 25;

/// How far a repository is read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Walk {
    /// The commits of the month, by hash.
    pub(crate) commits: BTreeMap<String, Commit>,
    /// The pull requests that somebody approved or that were merged in the month, by number.
    pub(crate) pulls: BTreeMap<u64, Pull>,
    /// Commits without a date.
    pub(crate) undated: BTreeSet<String>,
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
}

/// What ended a walk through commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum End {
    /// There were no more.
    History,
    /// So many pages in a row were older than the month that no more are expected.
    Margin,
    /// The repository is not there, or not for this token.
    NotFound,
}

/// What of a history is read.
pub(crate) struct Wanted {
    pub(crate) month: Month,
    pub(crate) from: DateTime<Utc>,
    pub(crate) to: DateTime<Utc>,
    /// How many pages in a row may be older than the month by how many days; `None`: all of them.
    pub(crate) margin: Option<(u32, u32)>,
}

impl Wanted {
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
    let mut walk = read(store, &key).await?.unwrap_or_default();
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
    let mut walk = Walk::default();
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
        while self.ended.is_none() {
            let url = self.next.clone().unwrap_or_else(|| bitbucket.commits(repository));
            let page = match bitbucket.page(&url).await {
                Ok(page) => page,
                Err(error)
                    if is_resumed
                        && error.status().is_some_and(|status| status.is_client_error() && !error.may_pass()) =>
                {
                    (*self, is_resumed) = (Self::default(), false);
                    continue;
                }
                Err(error) if error.status() == Some(StatusCode::NOT_FOUND) => {
                    (self.ended, self.is_done) = (Some(End::NotFound), true);
                    return Ok(());
                }
                Err(error) => return Err(failed(repository, error)),
            };
            if !seen.insert(url) {
                let page = self.pages;
                *self = Self::default();
                return Err(Error::Repeats { repository: repository.into(), page });
            }
            is_resumed = false;
            self.take(page.values.iter().filter_map(Commit::of), wanted);
            self.next = page.next;
            if self.next.is_none() {
                self.ended = Some(End::History);
            } else if wanted.margin.is_some_and(|(pages, _)| self.old >= pages) {
                self.ended = Some(End::Margin);
            }
            if let Some((store, key)) = kept.filter(|_| self.pages.is_multiple_of(SAVED)) {
                write(store, key, self).await?;
            }
        }
        self.next = None;
        let mut next = Some(bitbucket.pulls(repository, wanted.from));
        while let Some(url) = next {
            let page = bitbucket.page(&url).await.map_err(|error| failed(repository, error))?;
            for pull in page.values.iter().filter_map(Pull::of) {
                self.take_pull(pull, wanted);
            }
            next = page.next;
        }
        self.is_done = true;
        Ok(())
    }

    /// Keeps what is of the month of a page of commits.
    fn take(&mut self, commits: impl Iterator<Item = Commit>, wanted: &Wanted) {
        let days = wanted.margin.map_or(0, |(_, days)| days);
        let oldest = wanted.from - TimeDelta::days(i64::from(days));
        let mut is_old = true;
        for commit in commits {
            match commit.date.map(|date| date.to_utc()) {
                None => {
                    self.undated.insert(commit.hash);
                }
                Some(date) => {
                    is_old &= date < oldest;
                    if wanted.has(date) {
                        self.commits.insert(commit.hash.clone(), commit);
                    }
                }
            }
        }
        self.pages += 1;
        self.old = if is_old { self.old + 1 } else { 0 };
    }

    fn take_pull(&mut self, mut pull: Pull, wanted: &Wanted) {
        pull.approvals.retain(|(_, date)| wanted.has(date.to_utc()));
        let merge = pull.merged_as.clone().unwrap_or_default();
        let is_merged = !merge.is_empty()
            && self.commits.range(merge.clone()..).next().is_some_and(|(hash, _)| hash.starts_with(&merge));
        if is_merged || !pull.approvals.is_empty() {
            self.pulls.insert(pull.id, pull);
        }
    }
}
