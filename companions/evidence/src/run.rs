//! The way of a month: read its history, write each person's evidence, deliver it, tell, note what was done.

use std::collections::BTreeMap;

use blackwater_base::deadline::Deadline;
use blackwater_base::secrets::Secrets;
use blackwater_base::store::{If, Store, sha256};
use blackwater_http::Http;
use chrono::Utc;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::bitbucket::{self, Bitbucket};
use crate::config::{self, Config, Message};
use crate::drive::Drive;
use crate::error::Error;
use crate::history::{self, Span, Walk, Wanted};
use crate::manifest::{self, Delivered, Manifest, Posted, Repository, State, Zip};
use crate::month::Month;
use crate::people::{Identity, People, Unknowns};
use crate::slack::{self, Slack};
use crate::texts::{self, Counts};

/// What it calls itself where it asks for something.
pub const AGENT: &str = concat!("evidence/", env!("CARGO_PKG_VERSION"));

/// What makes evidence of months.
#[derive(Debug)]
pub struct Evidence {
    config: Config,
    people: People,
    store: Store,
    http: Http,
    secrets: Secrets,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request {
    /// The month; `None` is the last one.
    pub month: Option<Month>,
    /// Whether a month that is complete is read and delivered again.
    pub is_anew: bool,
    /// Whether histories are read to their end, however old.
    pub is_exhaustive: bool,
    /// To whom alone it is delivered; `None`: to all. Zips go to S3 in any case.
    pub only: Option<Target>,
}

/// To whom evidence is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The bucket.
    S3,
    /// The folder in Google Drive.
    Drive,
    /// The channel in Slack.
    Slack,
}

/// What would be made of a month.
#[derive(Clone, Debug, Serialize)]
pub struct Preview {
    /// The month.
    pub month: Month,
    /// The repositories.
    pub repositories: BTreeMap<String, Repository>,
    /// What each person did.
    pub people: BTreeMap<String, Planned>,
    /// Those whom the settings do not know.
    pub unknown_people: Unknowns,
}

/// What a person did, and the zip that would be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// How much.
    #[serde(flatten)]
    pub counts: Counts,
    /// The size of the zip.
    pub bytes: usize,
}

/// Somebody who did something in a month.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// Who that is, by the settings.
    pub person: Option<String>,
    /// Who it says to be.
    #[serde(flatten)]
    pub identity: Identity,
    /// How often.
    pub count: u64,
}

/// The token of Slack.
#[derive(Deserialize)]
struct SlackToken {
    token: SecretString,
}

impl Evidence {
    /// By these settings, with this bucket.
    #[must_use]
    pub fn new(config: Config, store: Store, http: Http) -> Self {
        let people = People::new(&config.people);
        Self { config, people, store, http, secrets: Secrets::default() }
    }

    /// What the settings call it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// The month before now, in the zone of the settings.
    #[must_use]
    pub fn last_month(&self) -> Month {
        Month::before(Utc::now(), self.config.zone)
    }

    /// Makes and delivers the evidence of a month, from where the last run stopped. The manifest says how far it came.
    ///
    /// # Errors
    /// If the bucket fails. What else fails is in the manifest.
    pub async fn run(&self, request: Request, deadline: Deadline) -> Result<Manifest, Error> {
        let month = request.month.unwrap_or_else(|| self.last_month());
        let wanted = self.wanted(month, request);
        if wanted.span.to > Utc::now() {
            return Err(Error::Month { month: month.to_string(), why: "it is not over" });
        }
        // They may have been put right since the last run.
        self.secrets.forget().await;
        let (number, previous) =
            manifest::last(&self.store, month).await?.map_or((0, None), |(number, last)| (number, Some(last)));
        if let Some(complete) = previous.as_ref().filter(|last| last.state == State::Complete && !request.is_anew) {
            return Ok(complete.clone());
        }
        if previous.as_ref().is_some_and(|last| last.state != State::Partial) && request.is_anew {
            history::forget(&self.store, month).await?;
        }
        let (mut failures, mut waiting) = (Vec::new(), Vec::new());
        let walks = self.read(&wanted, deadline, &mut failures, &mut waiting).await?;
        let is_read = waiting.is_empty() && walks.values().all(|walk| walk.is_done || walk.is_missing());
        let evidence = texts::Evidence::of(month, &walks, &self.people);
        let mut manifest = Manifest {
            program: AGENT.into(),
            month,
            zone: self.config.zone.name().into(),
            state: State::Partial,
            failures,
            waiting,
            repositories: walks.iter().map(|(name, walk)| (name.clone(), Repository::of(walk))).collect(),
            people: self.people.names().map(|name| (name.to_owned(), Delivered::default())).collect(),
            unknown_people: evidence.unknown.clone(),
            drive: previous.as_ref().and_then(|last| last.drive.clone()),
            slack: previous.as_ref().map(|last| last.slack.clone()).unwrap_or_default(),
        };
        if !manifest.failures.is_empty() || is_read {
            let is_for = |target| request.only.is_none_or(|only| only == target);
            if manifest.failures.is_empty() {
                let files = self.keep(&evidence, &mut manifest).await?;
                if is_for(Target::Drive) {
                    self.deliver(&files, &mut manifest, deadline).await;
                }
            }
            if is_for(Target::Slack) {
                self.tell(&mut manifest, deadline).await;
            }
            let is_whole = request.only.is_none() && !manifest.repositories.values().any(Repository::is_missing);
            manifest.state = match (manifest.failures.is_empty(), is_whole) {
                (false, _) => State::Failed,
                (true, false) => State::Partial,
                (true, true) => State::Complete,
            };
        }
        manifest::write(&self.store, number + 1, &manifest).await?;
        Ok(manifest)
    }

    /// What would be made of a month. Nothing is written or sent.
    ///
    /// # Errors
    /// If something cannot be read.
    pub async fn preview(&self, request: Request, deadline: Deadline) -> Result<Preview, Error> {
        let month = request.month.unwrap_or_else(|| self.last_month());
        let wanted = self.wanted(month, request);
        if wanted.span.from > Utc::now() {
            return Err(Error::Month { month: month.to_string(), why: "it has not begun" });
        }
        let bitbucket = Bitbucket::new(&self.config.bitbucket, &self.http, &self.secrets, deadline);
        let mut walks = BTreeMap::new();
        for repository in bitbucket.repositories().await? {
            let walk = history::look(&bitbucket, &repository, &wanted).await?;
            walks.insert(repository, walk);
        }
        let evidence = texts::Evidence::of(month, &walks, &self.people);
        let mut people = BTreeMap::new();
        for (name, work) in &evidence.people {
            people.insert(name.clone(), Planned { counts: work.counts, bytes: work.zip()?.len() });
        }
        let repositories = walks.iter().map(|(name, walk)| (name.clone(), Repository::of(walk))).collect();
        Ok(Preview { month, repositories, people, unknown_people: evidence.unknown })
    }

    /// Who did what in a month, and whom the settings do not know, so that they can be completed: for each address and account together
    /// how often.
    ///
    /// # Errors
    /// If something cannot be read.
    pub async fn seen(&self, request: Request, deadline: Deadline) -> Result<Vec<Seen>, Error> {
        let month = request.month.unwrap_or_else(|| self.last_month());
        let bitbucket = Bitbucket::new(&self.config.bitbucket, &self.http, &self.secrets, deadline);
        let mut all: BTreeMap<(String, Vec<String>), u64> = BTreeMap::new();
        for repository in bitbucket.repositories().await? {
            let walk = history::look(&bitbucket, &repository, &self.wanted(month, request)).await?;
            let approvers = walk.pulls.values().flat_map(|pull| pull.approvals.iter().map(|(approver, _)| approver));
            for who in walk.commits.values().map(|commit| &commit.author).chain(approvers) {
                *all.entry((who.raw.clone(), who.accounts.clone())).or_default() += 1;
            }
        }
        let seen = all.into_iter().map(|((raw, accounts), count)| {
            let identity = Identity { raw, accounts };
            Seen { person: self.people.find(&identity).map(str::to_owned), identity, count }
        });
        Ok(seen.collect())
    }

    /// What is wrong with each service that a run needs; nothing if all is well. Whether a bot may write to a channel is seen only
    /// when it does.
    pub async fn check(&self, deadline: Deadline) -> Vec<Error> {
        let mut wrong = Vec::new();
        wrong.extend(self.store.check().await.err().map(Error::from));
        let bitbucket = Bitbucket::new(&self.config.bitbucket, &self.http, &self.secrets, deadline);
        match bitbucket.repositories().await {
            Err(error) => wrong.push(error),
            Ok(repositories) => {
                for repository in repositories {
                    for first in [bitbucket.commits(&repository, &[]), bitbucket.pulls(&repository, Utc::now())] {
                        if let Err(error) = bitbucket.page(&first).await {
                            wrong.push(bitbucket::failed(&repository, error));
                            break;
                        }
                    }
                }
            }
        }
        if let Some(drive) = &self.config.drive {
            wrong.extend(Drive::new(drive, &self.config.name, &self.http, &self.secrets, deadline).check().await.err());
        }
        if let Some(slack) = &self.config.slack {
            wrong.extend(self.check_slack(slack, deadline).await.err());
        }
        wrong
    }

    async fn check_slack(&self, slack: &config::Slack, deadline: Deadline) -> Result<(), Error> {
        let token = self.slack_token(slack).await?;
        Slack { http: &self.http, api: &slack.api, token: &token, deadline }.check().await
    }

    async fn slack_token(&self, slack: &config::Slack) -> Result<SecretString, Error> {
        match (&slack.token, &slack.secret) {
            (Some(token), _) => Ok(token.clone()),
            (None, secret) => {
                let secret = secret.as_deref().unwrap_or_default();
                Ok(self.secrets.json::<SlackToken>(secret, "{\"token\": \"xoxb-…\"}").await?.token)
            }
        }
    }

    /// The last manifest of a month.
    ///
    /// # Errors
    /// If the bucket cannot be read.
    pub async fn status(&self, month: Month) -> Result<Option<Manifest>, Error> {
        Ok(manifest::last(&self.store, month).await?.map(|(_, manifest)| manifest))
    }

    fn wanted(&self, month: Month, request: Request) -> Wanted {
        let (from, to) = month.bounds(self.config.zone);
        let margin = (self.config.bitbucket.margin_pages, self.config.bitbucket.margin_days);
        Wanted { month, span: Span { from, to, margin: (!request.is_exhaustive).then_some(margin) } }
    }

    /// Reads the histories of all repositories, each from where an earlier run stopped.
    async fn read(
        &self,
        wanted: &Wanted,
        deadline: Deadline,
        failures: &mut Vec<String>,
        waiting: &mut Vec<String>,
    ) -> Result<BTreeMap<String, Walk>, Error> {
        // What is left of the time is for zips and deliveries.
        let deadline = deadline.halfway();
        let bitbucket = Bitbucket::new(&self.config.bitbucket, &self.http, &self.secrets, deadline);
        let mut walks = BTreeMap::new();
        let repositories = match bitbucket.repositories().await {
            Ok(repositories) => repositories,
            Err(error) => {
                note(error, failures, waiting);
                return Ok(walks);
            }
        };
        for repository in repositories {
            match history::walk(&bitbucket, &self.store, &repository, wanted, deadline).await {
                Ok(walk) => {
                    walks.insert(repository, walk);
                }
                Err(error @ Error::Store(_)) => return Err(error),
                Err(error) => note(error, failures, waiting),
            }
        }
        Ok(walks)
    }

    /// Puts the zips into the bucket: each by its name in Drive.
    async fn keep(
        &self,
        evidence: &texts::Evidence,
        manifest: &mut Manifest,
    ) -> Result<BTreeMap<String, Vec<u8>>, Error> {
        let mut files = BTreeMap::new();
        for (person, work) in &evidence.people {
            let bytes = work.zip()?;
            let zip = Zip { key: self.key(manifest.month, person), bytes: bytes.len() as u64, sha256: sha256(&bytes) };
            self.store.put_if(If::Any, &zip.key, Some("application/zip"), bytes.clone().into()).await?;
            files.insert(format!("{}-{person}.zip", manifest.month.label()), bytes);
            manifest.people.insert(person.clone(), Delivered { counts: work.counts, zip: Some(zip) });
        }
        Ok(files)
    }

    /// Delivers the zips to Drive. What fails is a failure of the manifest, and the rest goes on.
    async fn deliver(&self, files: &BTreeMap<String, Vec<u8>>, manifest: &mut Manifest, deadline: Deadline) {
        let Some(drive) = &self.config.drive else { return };
        let zips = manifest.people.values().filter_map(|person| person.zip.as_ref());
        let digest = sha256(zips.map(|zip| format!("{} {}\n", zip.key, zip.sha256)).collect::<String>().as_bytes());
        let drive = Drive::new(drive, &self.config.name, &self.http, &self.secrets, deadline);
        match drive.deliver(&manifest.month.label(), &digest, files).await {
            Ok(folder) => manifest.drive = Some(folder),
            Err(error) => {
                tracing::error!("{error}");
                manifest.failures.push(error.to_string());
            }
        }
    }

    fn key(&self, month: Month, person: &str) -> String {
        let key = self.config.store.key.replace("{year}", &month.year()).replace("{month}", &month.number());
        key.replace("{person}", person)
    }

    /// Tells Slack how the month is. What fails is a failure of the manifest.
    async fn tell(&self, manifest: &mut Manifest, deadline: Deadline) {
        let Some(slack) = &self.config.slack else { return };
        match self.told(slack, manifest, deadline).await {
            Ok(posted) => manifest.slack = posted,
            Err(error) => {
                tracing::error!("{error}");
                manifest.failures.push(error.to_string());
            }
        }
    }

    async fn told(&self, slack: &config::Slack, manifest: &Manifest, deadline: Deadline) -> Result<Vec<Posted>, Error> {
        let token = self.slack_token(slack).await?;
        let missing = manifest.repositories.iter().filter(|(_, repository)| repository.is_missing());
        let missing: Vec<_> = missing.map(|(name, _)| name.as_str()).collect();
        let unknown: Vec<_> = manifest.unknown_people.keys().map(String::as_str).collect();
        let values = [
            ("month_name", manifest.month.name()),
            ("month", manifest.month.to_string()),
            ("people", unknown.join(", ")),
            ("repositories", missing.join(", ")),
            ("what", manifest.failures.join("\n")),
        ];
        let messages: Vec<&Message> = match (manifest.failures.is_empty(), missing.is_empty(), unknown.is_empty()) {
            (false, ..) => vec![&slack.failed],
            (true, false, false) => vec![&slack.repositories, &slack.people],
            (true, false, true) => vec![&slack.repositories],
            (true, true, false) => vec![&slack.people],
            (true, true, true) => vec![&slack.complete],
        };
        let text: Vec<_> = messages.iter().map(|message| slack::filled(message, &values)).collect();
        let slack = Slack { http: &self.http, api: &slack.api, token: &token, deadline };
        slack.tell(&messages[0].channel, &text.join("\n"), &manifest.slack).await
    }
}

/// Notes what is wrong with a repository: what may pass by itself is waited for.
fn note(error: Error, failures: &mut Vec<String>, waiting: &mut Vec<String>) {
    let may_pass = matches!(&error, Error::Bitbucket { why, .. } if why.may_pass());
    if may_pass {
        tracing::warn!("{error}");
        waiting.push(error.to_string());
    } else {
        tracing::error!("{error}");
        failures.push(error.to_string());
    }
}

impl Repository {
    fn of(walk: &Walk) -> Self {
        Self {
            pages: walk.pages,
            commits: walk.commits.len() as u64,
            pull_requests: walk.pulls.len() as u64,
            undated: walk.undated.len() as u64,
            ended: walk.ended,
        }
    }
}
