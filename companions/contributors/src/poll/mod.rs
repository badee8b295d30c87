//! A poll: repositories and members; of each repository what is new, then timelines; with what is left of time and budget, backfills,
//! and all issues once a day. Everything is written down as it comes, so the next poll goes on wherever this one ends.

mod all;
mod backfill;
mod timeline;
mod walk;

use std::time::{Duration, Instant};

use blackwater_base::deadline::Deadline;
use blackwater_base::store::Store;
use blackwater_http::StatusCode;
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use serde::Serialize;
use serde_json::Value;

use crate::Contributors;
use crate::account::Account;
use crate::answers::{Answers, Batch, Head};
use crate::config::Config;
use crate::error::Error;
use crate::record::{Record, Repository};
use crate::state::{Issues, State};

/// How often members are listed: once a day, also if a poll is a bit early.
const DAILY: TimeDelta = TimeDelta::hours(23);
/// What is kept of the time for the end.
const MARGIN: Duration = Duration::from_secs(20);
/// How many members may be gone at once, whatever their share.
const FEW: usize = 3;

/// What is asked of a poll.
#[derive(Clone, Debug)]
pub struct Request {
    /// When it begins.
    pub at: DateTime<Utc>,
    /// Whether a list of members is taken that is much shorter than the one before.
    pub force: bool,
    /// Whether everything is read anew.
    pub afresh: bool,
    /// Whether it waits where GitHub's budget is spent.
    pub waits: bool,
    /// What is read beside what is new.
    pub backfill: Option<Period>,
}

impl Request {
    /// That what is new is read.
    #[must_use]
    pub fn at(at: DateTime<Utc>) -> Self {
        Self { at, force: false, afresh: false, waits: false, backfill: None }
    }
}

/// A period of whose issues all are to be read.
#[derive(Clone, Debug)]
pub struct Period {
    /// The day on which the first of them was created.
    pub from: NaiveDate,
    /// The day after the one on which the last of them was created.
    pub to: NaiveDate,
    /// The repositories' names; all that are watched if there are none.
    pub repositories: Vec<String>,
    /// Whether they are searched for.
    pub search: bool,
}

/// What a poll did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// How many repositories it went through.
    pub polled: usize,
    /// Rows of issues and pull requests that are new or differ.
    pub rows: usize,
    /// Timelines of which a page differs.
    pub timelines: usize,
    /// Timelines of which none does.
    pub unchanged: usize,
    /// Issues that were transferred, and that are gone.
    pub moved: usize,
    /// Issues that are deleted, or nowhere that the token may read.
    pub gone: usize,
    /// Batches of answers.
    pub batches: usize,
    /// Requests to GitHub.
    pub requests: u64,
    /// Those of them that were answered with 304, which costs nothing.
    pub not_modified: u64,
    /// What is left of GitHub's budget, where it is known.
    pub remaining: Option<u64>,
    /// The repositories that are left for the next poll, and the backfills.
    pub left: Vec<String>,
    /// Why it ended before its end.
    pub ended: Option<String>,
    /// What failed of a repository, or of the organization.
    pub failed: Vec<String>,
    /// The age of the poll of the repository that was polled longest ago; of one that never was, ten years.
    pub oldest_poll_seconds: u64,
}

/// Ten years.
const NEVER: u64 = 10 * 365 * 24 * 3600;

impl Contributors {
    /// Asks GitHub for what is new, and writes the answers into the bucket.
    ///
    /// # Errors
    /// What ends it before its end, but the end of its time and of GitHub's budget; what fails of one repository is in the report.
    pub async fn poll(&self, request: &Request, deadline: Deadline) -> Result<Report, Error> {
        let mut run = Run::open(self, request, deadline).await?;
        let done = run.all(request).await;
        run.end(done).await
    }
}

/// A poll under way.
struct Run<'c> {
    config: &'c Config,
    answers: Answers<'c>,
    account: Account,
    began: (DateTime<Utc>, Instant),
    afresh: bool,
    state: State,
    state_etag: Option<String>,
    /// The repository that is being read, its issues, and their object's ETag.
    open: Option<i64>,
    issues: Issues,
    issues_etag: Option<String>,
    /// Whether the issues differ from their object.
    is_touched: bool,
    batch: Batch,
    polled: Vec<i64>,
    report: Report,
}

impl<'c> Run<'c> {
    async fn open(of: &'c Contributors, request: &Request, deadline: Deadline) -> Result<Self, Error> {
        let store: &Store = &of.store;
        let margin = deadline.left().map_or(Duration::ZERO, |left| MARGIN.min(left / 4));
        let waits = request.waits;
        let mut account =
            Account::open(&of.config.github, &of.http, &of.secrets, deadline.earlier(margin), waits).await?;
        let answers = Answers(store);
        let (state, state_etag) = match answers.state().await? {
            Some((state, etag)) => (state, Some(etag)),
            None => (State::new(1), None),
        };
        account.budgets.clone_from(&state.budgets);
        let mut run = Self {
            config: &of.config,
            answers,
            account,
            began: (request.at, Instant::now()),
            afresh: false,
            state,
            state_etag,
            open: None,
            issues: Issues::default(),
            issues_etag: None,
            is_touched: false,
            batch: Batch::default(),
            polled: Vec::new(),
            report: Report::default(),
        };
        run.catch_up().await?;
        let later = run.answers.from(run.state.next).await?;
        match later.first() {
            _ if request.afresh => run.forget(later.last().map(|(batch, _)| batch + 1)).await?,
            Some((first, _)) => {
                let bucket = of.store.bucket().into();
                return Err(Error::Missing { bucket, from: run.state.next, to: first - 1 });
            }
            None => {}
        }
        Ok(run)
    }

    async fn all(&mut self, request: &Request) -> Result<(), Error> {
        self.repositories().await?;
        if let Err(error) = self.members(request.force).await {
            self.failed(&self.config.organization, error)?;
        }
        self.flush().await?;
        if let Some(period) = &request.backfill {
            self.want(period).await?;
        } else {
            for id in self.state.by_age() {
                self.enter(id).await?;
                let done = self.news().await;
                if self.leave(done).await? {
                    self.polled.push(id);
                }
            }
            self.arrivals().await?;
        }
        let is_poll = request.backfill.is_none();
        for id in self.state.by_age() {
            let watched = self.state.repositories.get(&id);
            if watched.is_some_and(|watched| watched.is_behind() || is_poll && watched.all_is_due(self.now())) {
                self.enter(id).await?;
                let done = match self.backfills().await {
                    Ok(()) if is_poll => self.all_issues().await,
                    done => done,
                };
                self.leave(done).await?;
            }
        }
        Ok(())
    }

    /// What is new in the open repository.
    async fn news(&mut self) -> Result<(), Error> {
        match self.new_issues().await {
            // Issues are disabled there, as in most forks.
            Err(Error::Http(error)) if error.status() == Some(StatusCode::GONE) => return Ok(()),
            done => done?,
        }
        self.sought().await?;
        self.new_comments().await?;
        self.timelines().await
    }

    /// The repositories that are watched. One that is not listed any more is asked for: a list whose rows move while it is read may lack
    /// one that is there.
    async fn repositories(&mut self) -> Result<(), Error> {
        let organization = &self.config.organization;
        let path = format!("orgs/{organization}/repos?per_page=100&sort=created&direction=asc");
        let listed = self.account.list(&path).await.map_err(|error| match error {
            Error::Http(error) if error.status().is_some_and(|status| status.is_client_error()) => {
                Error::Organization { organization: organization.clone(), why: error.to_string() }
            }
            error => error,
        })?;
        let mut list: Vec<_> = listed.iter().filter_map(repository).collect();
        for (id, known) in &self.state.repositories {
            if !list.iter().any(|listed| listed.id == *id) {
                let asked = self.account.get(&format!("repos/{}", known.repository.full_name()), None).await;
                let found = match asked {
                    Ok(answer) => answer.map(|answer| answer.json::<Value>("a repository")).transpose()?,
                    Err(Error::Http(error)) if error.status().is_some_and(|status| status.is_client_error()) => None,
                    Err(error) => return Err(error),
                };
                // Its name may be another one's now, and it may be another owner's.
                let found = found.as_ref().and_then(repository);
                list.extend(found.filter(|found| found.id == *id && found.owner.eq_ignore_ascii_case(organization)));
            }
        }
        list.retain(|repository| self.config.watches(&repository.name));
        list.sort_by_key(|repository| repository.id);
        if list.is_empty() {
            return Err(Error::Nothing { organization: organization.clone(), listed: listed.len() });
        }
        if !self.state.repositories.values().map(|watched| &watched.repository).eq(&list) {
            self.push(&Record::Repositories { at: self.now(), list })?;
        }
        Ok(())
    }

    /// The members, once a day. A token that may not see them all gets a short list, and no error.
    async fn members(&mut self, force: bool) -> Result<(), Error> {
        if self.state.members_at.is_some_and(|at| self.now() - at < DAILY) && !force {
            return Ok(());
        }
        let organization = &self.config.organization;
        let list = self.account.list(&format!("orgs/{organization}/members?per_page=100")).await?;
        let is_listed = |id: &i64| list.iter().any(|member| member["id"].as_i64() == Some(*id));
        let gone = self.state.members.iter().filter(|id| !is_listed(id)).count();
        if gone > FEW.max(self.state.members.len() / 5) && !force {
            self.report.failed.push(format!(
                "{organization}: {gone} of {} members are not listed any more, which a token that may not see all of them would \
                 come to as well: contributors poll --force, if they are gone",
                self.state.members.len()
            ));
            return Ok(());
        }
        self.push(&Record::Members { at: self.now(), list })
    }

    /// Goes through the batches that were written after the state was.
    async fn catch_up(&mut self) -> Result<(), Error> {
        while let Some((head, records)) = self.answers.read(self.state.next).await? {
            if head.afresh {
                self.state = State::new(head.batch);
            }
            if let Some(id) = head.repository {
                self.enter(id).await?;
            }
            for record in &records {
                self.state.apply(record, &mut self.issues);
            }
            self.state.next = head.batch + 1;
            self.is_touched = true;
            self.close().await?;
        }
        Ok(())
    }

    /// Has everything read anew, into the batches from `next` on.
    async fn forget(&mut self, next: Option<u64>) -> Result<(), Error> {
        for id in self.state.by_age() {
            self.enter(id).await?;
            self.issues = Issues::default();
            self.is_touched = true;
            self.close().await?;
        }
        self.state = State::new(next.unwrap_or(self.state.next));
        self.afresh = true;
        Ok(())
    }

    /// Opens a repository.
    async fn enter(&mut self, id: i64) -> Result<(), Error> {
        let (issues, etag) = self.answers.issues(id).await?;
        (self.open, self.issues, self.issues_etag, self.is_touched) = (Some(id), issues, etag, false);
        Ok(())
    }

    /// Closes it, with what was read of it. Whether it was read without a fault: what ends the poll ends it here too.
    async fn leave(&mut self, done: Result<(), Error>) -> Result<bool, Error> {
        let name = self.name();
        self.flush().await?;
        self.close().await?;
        match done {
            Ok(()) => Ok(true),
            Err(error) => self.failed(&name, error).map(|()| false),
        }
    }

    /// Writes the state of the open repository.
    async fn close(&mut self) -> Result<(), Error> {
        if let Some(id) = self.open.take()
            && self.is_touched
        {
            self.answers.put_issues(id, &self.issues, self.issues_etag.as_deref(), self.state.next).await?;
        }
        self.issues = Issues::default();
        self.is_touched = false;
        Ok(())
    }

    /// That something failed of one repository, or of the organization: the others go on.
    fn failed(&mut self, of: &str, error: Error) -> Result<(), Error> {
        if !error.is_of_one() {
            return Err(error);
        }
        self.report.failed.push(format!("{of}: {error}"));
        Ok(())
    }

    /// Writes a record down, and takes it as done.
    fn push(&mut self, record: &Record) -> Result<(), Error> {
        self.state.apply(record, &mut self.issues);
        self.is_touched = true;
        self.batch.push(record).map_err(|error| Error::Document {
            bucket: self.answers.0.bucket().into(),
            key: "answers/".into(),
            why: error.to_string(),
        })
    }

    /// Writes a batch if there is enough for one.
    async fn flush_if_enough(&mut self) -> Result<(), Error> {
        if self.batch.is_enough() { self.flush().await } else { Ok(()) }
    }

    /// Writes what there is as a batch.
    async fn flush(&mut self) -> Result<(), Error> {
        if self.batch.records == 0 {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.batch);
        let head = Head { batch: self.state.next, at: self.now(), afresh: self.afresh, repository: self.open };
        if !self.answers.write(&head, batch).await? {
            return Err(Error::Busy { batch: head.batch });
        }
        self.state.next += 1;
        self.afresh = false;
        self.report.batches += 1;
        Ok(())
    }

    /// Writes down how far it came, however it ended.
    async fn end(mut self, done: Result<(), Error>) -> Result<Report, Error> {
        let failure = match done {
            Ok(()) => None,
            Err(error) if error.is_end() => {
                self.report.ended = Some(error.to_string());
                None
            }
            // Then answers may not be written that the state here has. The next poll has it from those that are.
            Err(error @ (Error::Busy { .. } | Error::Store(_) | Error::Document { .. })) => return Err(error),
            Err(error) => Some(error),
        };
        self.flush().await?;
        self.close().await?;
        if failure.is_none() {
            self.push(&Record::Polled { at: self.now(), repositories: self.polled.clone() })?;
            self.flush().await?;
        }
        self.state.budgets.clone_from(&self.account.budgets);
        self.answers.put_state(&self.state, self.state_etag.as_deref()).await?;
        failure.map_or(Ok(()), Err)?;
        Ok(self.reported())
    }

    fn reported(self) -> Report {
        let now = self.now();
        let left = self.state.repositories.iter().flat_map(|(id, watched)| {
            let name = watched.repository.full_name();
            let is_left = self.report.ended.is_some() && !self.polled.contains(id);
            let backfills = watched.unfinished().map(|backfill| format!("{name}: {backfill}"));
            is_left.then(|| name.clone()).into_iter().chain(backfills).collect::<Vec<_>>()
        });
        let age = self.state.oldest_poll().map(|at| (now - at).num_seconds().max(0).unsigned_abs());
        Report {
            left: left.collect(),
            polled: self.polled.len(),
            requests: self.account.requests,
            not_modified: self.account.not_modified,
            remaining: self.account.budgets.get("core").map(|budget| budget.remaining),
            oldest_poll_seconds: age.unwrap_or(NEVER),
            ..self.report
        }
    }

    fn now(&self) -> DateTime<Utc> {
        self.began.0 + self.began.1.elapsed()
    }

    /// The open repository's path, as `repos/acme/shop`.
    fn path(&self) -> String {
        format!("repos/{}", self.name())
    }

    /// The open repository's name, as `acme/shop`.
    fn name(&self) -> String {
        let watched = self.open.and_then(|id| self.state.repositories.get(&id));
        watched.map_or_else(String::new, |watched| watched.repository.full_name())
    }
}

/// A repository as a list has it.
fn repository(row: &Value) -> Option<Repository> {
    Some(Repository {
        id: row["id"].as_i64()?,
        node_id: row["node_id"].as_str().map(str::to_owned),
        owner: row["owner"]["login"].as_str()?.to_owned(),
        name: row["name"].as_str()?.to_owned(),
        archived: row["archived"] == true,
        private: row["private"] == true,
    })
}
