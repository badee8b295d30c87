//! A poll: repositories and members; of each repository what is new, then timelines; with what is left of time and budget, backfills,
//! and all issues once a day. Everything is written down as it comes, so the next poll goes on wherever this one ends.

mod backfill;
mod full_scan;
mod timeline;
mod walk;

use std::collections::BTreeSet;
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
use crate::state::{Issues, State, Watched};

/// How often members are listed: once a day, also if a poll is a bit early.
const DAILY: TimeDelta = TimeDelta::hours(23);
/// What is kept of the time for the end.
const MARGIN: Duration = Duration::from_secs(20);
/// How long answers are kept back that are not enough for a batch.
const FLUSH_INTERVAL: Duration = Duration::from_secs(60);
/// After how many batches that are gone through again the state is written.
const SAVE_EVERY: u64 = 100;
/// How many members may be gone at once, whatever their share.
const FEW_MEMBERS: usize = 3;

/// What is asked of a poll.
#[derive(Clone, Debug)]
pub struct Request {
    /// When it begins.
    pub at: DateTime<Utc>,
    /// Whether a list of members is taken that is much shorter than the one before.
    pub force: bool,
    /// Whether everything is read anew.
    pub full: bool,
    /// Whether it waits where GitHub's budget is spent.
    pub waits: bool,
    /// What is read beside what is new.
    pub backfill: Option<Period>,
}

impl Request {
    /// That what is new is read.
    #[must_use]
    pub fn at(at: DateTime<Utc>) -> Self {
        Self { at, force: false, full: false, waits: false, backfill: None }
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
    /// When the last batch was written.
    written: Instant,
    state: State,
    state_etag: String,
    /// The repository that is being read, its issues, and their object's ETag.
    open: Option<i64>,
    issues: Issues,
    issues_etag: Option<String>,
    /// Whether the issues differ from their object.
    is_touched: bool,
    batch: Batch,
    polled: Vec<i64>,
    /// The repositories whose issues are disabled.
    without_issues: BTreeSet<i64>,
    /// Issues whose timelines could not be read.
    unread: BTreeSet<i64>,
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
        let known = if request.full { None } else { answers.state().await? };
        let (state, state_etag) = match known {
            Some(known) => known,
            None => {
                let state = State::new(&of.config.organization, answers.new_log(request.at).await?);
                let before = answers.state_etag().await?;
                let etag = answers.put_state(&state, before.as_deref()).await?;
                (state, etag)
            }
        };
        if !state.organization.eq_ignore_ascii_case(&of.config.organization) {
            let why = format!(
                "the bucket {} has the answers of {}; each organization needs one of its own",
                store.bucket(),
                state.organization
            );
            return Err(Error::Setting { setting: "organization", why });
        }
        account.budgets.clone_from(&state.budgets);
        let mut run = Self {
            config: &of.config,
            answers,
            account,
            began: (request.at, Instant::now()),
            written: Instant::now(),
            state,
            state_etag,
            open: None,
            issues: Issues::default(),
            issues_etag: None,
            is_touched: false,
            batch: Batch::default(),
            polled: Vec::new(),
            without_issues: BTreeSet::new(),
            unread: BTreeSet::new(),
            report: Report::default(),
        };
        run.catch_up().await?;
        Ok(run)
    }

    /// The poll from its beginning to its end.
    async fn all(&mut self, request: &Request) -> Result<(), Error> {
        self.repositories().await?;
        if let Err(error) = self.members(request.force).await {
            self.note_failure(&self.config.organization, error)?;
        }
        self.flush().await?;
        if let Some(period) = &request.backfill {
            self.register_backfill(period).await?;
        } else {
            for id in self.state.by_age() {
                self.open_repository(id).await?;
                let done = self.news().await;
                if self.finish_repository(done).await? {
                    self.polled.push(id);
                }
            }
            self.arrivals().await?;
        }
        let is_poll = request.backfill.is_none();
        for id in self.state.by_age() {
            let watched = self.state.known.get(&id);
            let is_due = |watched: &Watched| watched.is_behind() || is_poll && watched.full_scan_is_due(self.now());
            if watched.is_some_and(is_due) && !self.without_issues.contains(&id) {
                self.open_repository(id).await?;
                let done = match self.backfills().await {
                    Ok(()) if is_poll => self.full_scan().await,
                    done => done,
                };
                self.finish_repository(done).await?;
            }
        }
        Ok(())
    }

    /// What is new in the open repository.
    async fn news(&mut self) -> Result<(), Error> {
        match self.new_issues().await {
            // Issues are disabled there, as in most forks.
            Err(Error::Http(error)) if error.status() == Some(StatusCode::GONE) => {
                self.without_issues.extend(self.open);
                return Ok(());
            }
            done => done?,
        }
        self.transfer_targets().await?;
        self.new_comments().await?;
        self.timelines().await
    }

    /// The repositories that are watched. One that is not listed any more is asked for: a list whose rows move while it is read may lack
    /// one that is there.
    async fn repositories(&mut self) -> Result<(), Error> {
        let organization = &self.config.organization;
        let listed = self.account.repositories(organization).await?;
        let mut list: Vec<_> = listed.iter().filter_map(repository).collect();
        for known in self.state.watched() {
            let id = known.repository.id;
            if !list.iter().any(|listed| listed.id == id) {
                let asked = self.account.get(&format!("repositories/{id}"), None).await;
                let found = match asked {
                    Ok(answer) => answer.map(|answer| answer.json::<Value>("a repository")).transpose()?,
                    Err(Error::Http(error)) if error.status().is_some_and(|status| status.is_client_error()) => None,
                    Err(error) => return Err(error),
                };
                // It may be another owner's by now.
                let found = found.as_ref().and_then(repository);
                list.extend(found.filter(|found| found.owner.eq_ignore_ascii_case(organization)));
            }
        }
        list.retain(|repository| self.config.watches(&repository.name));
        list.sort_by_key(|repository| repository.id);
        if list.is_empty() {
            return Err(Error::Nothing { organization: organization.clone(), listed: listed.len() });
        }
        if !self.state.watched().map(|watched| &watched.repository).eq(&list) {
            self.record(&Record::Repositories { at: self.now(), list })?;
        }
        Ok(())
    }

    /// The members, once a day. A token that may not see them all gets a short list, and no error.
    async fn members(&mut self, force: bool) -> Result<(), Error> {
        if self.state.members_at.is_some_and(|at| self.now() - at < DAILY) && !force {
            return Ok(());
        }
        let organization = &self.config.organization;
        let mut list = self.account.members(organization).await?;
        let lacks = |list: &[Value], id: &i64| !list.iter().any(|member| member["id"].as_i64() == Some(*id));
        if self.state.members.iter().any(|id| lacks(&list, id)) {
            // Whoever leaves while the pages are read moves another one up, out of sight.
            let again = self.account.members(organization).await?;
            list.extend(
                again
                    .into_iter()
                    .filter(|member| member["id"].as_i64().is_some_and(|id| lacks(&list, &id)))
                    .collect::<Vec<_>>(),
            );
        }
        let gone = self.state.members.iter().filter(|id| lacks(&list, id)).count();
        let is_doubtful = gone > FEW_MEMBERS.max(self.state.members.len() / 5) || gone > 0 && list.is_empty();
        if is_doubtful && !force {
            let known = self.state.members.len();
            self.report.failed.push(format!(
                "{organization}: {gone} of {known} members are missing from GitHub's list. The token may not see private members; \
                 if they really left, run contributors poll --force"
            ));
            return Ok(());
        }
        self.record(&Record::Members { at: self.now(), list })
    }

    /// Goes through the batches that were written after the state was. Where there are many, it may take several polls.
    async fn catch_up(&mut self) -> Result<(), Error> {
        let first = self.state.next;
        while let Some((head, records)) = self.answers.read(&self.state.log, self.state.next).await? {
            if head.repository != self.open {
                self.save_repository().await?;
                if let Some(id) = head.repository {
                    self.open_repository(id).await?;
                }
            }
            for record in &records {
                self.state.apply(record, &mut self.issues);
            }
            self.state.next = head.batch + 1;
            self.is_touched = true;
            if (self.state.next - first).is_multiple_of(SAVE_EVERY) || self.account.is_late() {
                self.save_repository().await?;
                self.save().await?;
            }
            if self.account.is_late() {
                return Err(Error::Late {
                    why: format!("{} batches were gone through again", self.state.next - first),
                });
            }
        }
        self.save_repository().await
    }

    /// Opens a repository.
    async fn open_repository(&mut self, id: i64) -> Result<(), Error> {
        let (issues, etag) = self.answers.issues(&self.state.log, id).await?;
        (self.open, self.issues, self.issues_etag, self.is_touched) = (Some(id), issues, etag, false);
        Ok(())
    }

    /// Closes it, with what was read of it. Whether it was read without a fault: what ends the poll ends it here too.
    async fn finish_repository(&mut self, done: Result<(), Error>) -> Result<bool, Error> {
        let name = self.name();
        self.flush().await?;
        self.save_repository().await?;
        match done {
            Ok(()) => Ok(true),
            Err(error) => self.note_failure(&name, error).map(|()| false),
        }
    }

    /// Writes the state of the open repository.
    async fn save_repository(&mut self) -> Result<(), Error> {
        if let Some(id) = self.open.take()
            && self.is_touched
        {
            self.answers.put_issues(&self.state, id, &self.issues, self.issues_etag.as_deref()).await?;
        }
        self.issues = Issues::default();
        self.is_touched = false;
        Ok(())
    }

    /// That something failed of one repository, or of the organization: the others go on.
    fn note_failure(&mut self, of: &str, error: Error) -> Result<(), Error> {
        if !error.is_local() {
            return Err(error);
        }
        self.report.failed.push(format!("{of}: {error}"));
        Ok(())
    }

    /// Writes a record down, and takes it as done.
    fn record(&mut self, record: &Record) -> Result<(), Error> {
        self.state.apply(record, &mut self.issues);
        self.is_touched = true;
        self.batch.push(record).map_err(|error| Error::Document {
            bucket: self.answers.0.bucket().into(),
            key: "answers/".into(),
            why: error.to_string(),
        })
    }

    /// Whether a batch is to be written: there is enough for one, or the last one is a while ago.
    fn is_time_to_flush(&self) -> bool {
        self.batch.is_enough() || self.written.elapsed() > FLUSH_INTERVAL
    }

    /// Writes what there is as a batch.
    async fn flush(&mut self) -> Result<(), Error> {
        self.written = Instant::now();
        if self.batch.records == 0 {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.batch);
        let State { organization, log, next, .. } = &self.state;
        let (organization, log) = (organization.clone(), log.clone());
        let head = Head { organization, log, batch: *next, at: self.now(), repository: self.open };
        if !self.answers.write(&head, batch).await? {
            return Err(Error::Busy { batch: head.batch });
        }
        self.state.next += 1;
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
            Err(error @ Error::Busy { .. }) => {
                self.report.ended = Some(error.to_string());
                return Ok(self.reported());
            }
            Err(error @ (Error::Store(_) | Error::Document { .. })) => return Err(error),
            Err(error) => Some(error),
        };
        self.flush().await?;
        self.save_repository().await?;
        if failure.is_none() {
            self.record(&Record::Polled { at: self.now(), repositories: self.polled.clone() })?;
            self.flush().await?;
        }
        self.state.budgets.clone_from(&self.account.budgets);
        self.save().await?;
        failure.map_or(Ok(()), Err)?;
        Ok(self.reported())
    }

    /// Writes the state.
    async fn save(&mut self) -> Result<(), Error> {
        self.state_etag = self.answers.put_state(&self.state, Some(&self.state_etag)).await?;
        Ok(())
    }

    fn reported(self) -> Report {
        let now = self.now();
        let left = self.state.watched().flat_map(|watched| {
            let name = watched.repository.full_name();
            let is_left = self.report.ended.is_some() && !self.polled.contains(&watched.repository.id);
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
            oldest_poll_seconds: age.unwrap_or(crate::NEVER),
            ..self.report
        }
    }

    fn now(&self) -> DateTime<Utc> {
        self.began.0 + self.began.1.elapsed()
    }

    /// The open repository.
    fn watched(&self) -> Option<&Watched> {
        self.open.and_then(|id| self.state.known.get(&id))
    }

    /// The open repository's path, by its number: its name may be another's tomorrow. GitHub's own links to further pages are of this form.
    fn path(&self) -> String {
        format!("repositories/{}", self.open.unwrap_or_default())
    }

    /// The open repository's name, as `acme/shop`.
    fn name(&self) -> String {
        self.watched().map_or_else(String::new, |watched| watched.repository.full_name())
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
