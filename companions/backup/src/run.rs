//! The way of a backup: list the repositories, bring what is kept of each up to date, say what became of each.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use blackwater_base::deadline::Deadline;
use blackwater_base::secrets::Secrets;
use blackwater_base::store::{Client, If, JSON};
use blackwater_http::Http;
use chrono::{DateTime, SecondsFormat, Utc};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::account::{Account, Listed, Presence, Repositories};
use crate::config::Config;
use crate::error::Error;
use crate::fault::Fault;
use crate::manifest::{Entry, FORMAT, Manifest, Status};
use crate::progress::{self, Progress};

/// What it calls itself where it asks for something.
pub const AGENT: &str = concat!("backup/", env!("CARGO_PKG_VERSION"));

/// How long ago something was changed that is not changed again in the same second.
const SETTLED: Duration = Duration::from_secs(10);
/// By how much clocks may differ.
pub(crate) const SKEW: Duration = Duration::from_secs(300);
/// What is kept of the time for noting how far it is, and for the manifest.
const MARGIN: Duration = Duration::from_secs(5);
/// After what time a write is tried again that met another one.
const AGAIN: Duration = Duration::from_secs(1);
/// When a repository was begun that had all of a run's time.
const AT_FIRST: Duration = Duration::from_secs(60);
/// How often a repository may come no further in a run of its own before it is left out.
const TRIES: u32 = 3;

/// What makes backups of an account.
#[derive(Debug)]
pub struct Backup {
    pub(crate) config: Config,
    client: Client,
    http: Http,
    secrets: Secrets,
}

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The names of the repositories; all, if there are none.
    pub only: Vec<String>,
    /// Whether all is read again, changed or not.
    pub is_full: bool,
}

/// What became of a run.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It made a backup.
    Made(Manifest),
    /// There was no time for all: the next run goes on.
    Waiting {
        /// The backup that is being made.
        backup: u64,
        /// How many repositories are still to be read.
        left: usize,
    },
    /// Another run made the backup meanwhile, with all that this one has.
    Beaten(Manifest),
}

/// A run.
pub(crate) struct Run<'r> {
    pub(crate) config: &'r Config,
    pub(crate) account: &'r Account,
    pub(crate) http: &'r Http,
    pub(crate) deadline: Deadline,
    /// Its date, in UTC, however long it takes.
    pub(crate) date: String,
    /// What was changed before this is not changed again in the same second.
    pub(crate) settled: String,
    /// What was changed before this was so when the run began, by any clock.
    pub(crate) earlier: String,
    /// What the last backup had beside repositories.
    pub(crate) had: Vec<String>,
    pub(crate) number: u64,
    pub(crate) is_full: bool,
    /// Repositories whose issues were changed lately, and when; `None` if that is not known.
    pub(crate) news: Option<BTreeMap<u64, String>>,
    /// The names of archives.
    pub(crate) names: BTreeMap<u64, String>,
    /// Turns to write a large object: each takes memory.
    pub(crate) uploads: Semaphore,
    id: Uuid,
    only: &'r [String],
    started: DateTime<Utc>,
    begun: Instant,
    /// Until when another repository may be begun.
    half: Deadline,
    longest: Mutex<Duration>,
}

impl Backup {
    /// By these settings, with the buckets of this client.
    #[must_use]
    pub fn new(config: Config, client: Client, http: Http) -> Self {
        Self { config, client, http, secrets: Secrets::default() }
    }

    /// What the settings call it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.config.name
    }

    pub(crate) async fn account(&self) -> Result<Account, Error> {
        Account::open(&self.config, &self.client, &self.http, &self.secrets).await
    }

    /// Where backups are, to read them.
    pub(crate) async fn place(&self) -> Result<Account, Error> {
        Account::place(&self.config, &self.client, &self.http, &self.secrets).await
    }

    /// Makes a backup, from where the last run stopped.
    ///
    /// # Errors
    /// If the account cannot be listed, or the bucket fails. What fails in a repository is in the manifest.
    pub async fn run(&self, request: &Request, deadline: Deadline) -> Result<Outcome, Error> {
        let (deadline, started) = (deadline.earlier(MARGIN), Utc::now());
        let account = self.account().await?;
        let mut listed = account.repositories(&self.config, deadline).await?;
        let previous = Manifest::newest(&account).await?;
        let number = previous.as_ref().map_or(1, |previous| previous.backup + 1);
        let (of_previous, previous_with) =
            previous.map(|previous| (previous.repositories, previous.with)).unwrap_or_default();
        let before: BTreeMap<_, _> = of_previous.into_iter().map(|entry| (entry.listed.id, entry)).collect();
        let progress = Progress::read(&account, number).await?;
        let absent = match request.only.is_empty() {
            true => self.absent(&account, &before, &progress, &mut listed, number, deadline).await,
            false => Vec::new(),
        };
        if listed.wanted.is_empty() {
            let why = "no repository is left to back up: see include, exclude, only_owner, and what the token may read"
                .into();
            return Err(Error::Setting { setting: "include", why });
        }
        let date = started.format("%Y-%m-%d").to_string();
        write_list(&account, &date, &listed).await?;
        let chosen = chosen(request, &listed, &progress)?;
        let run = Run {
            config: &self.config,
            account: &account,
            http: &self.http,
            deadline,
            date,
            settled: rfc3339(started - SETTLED),
            earlier: rfc3339(started - SKEW),
            had: previous_with,
            number,
            is_full: request.is_full,
            news: news(&self.config, &account, &before, deadline).await,
            names: zip_names(&listed.wanted),
            uploads: Semaphore::new(self.config.at_once as usize),
            id: Uuid::now_v7(),
            only: &request.only,
            started,
            begun: Instant::now(),
            half: deadline.halfway(),
            longest: Mutex::default(),
        };
        let pieces = chosen.iter().map(|one| run.repository(one, before.get(&one.id), &progress));
        // On the heap: these futures are large.
        let pieces = stream::iter(pieces).map(Box::pin).buffer_unordered(self.config.at_once as usize);
        let read: Vec<Option<Entry>> = pieces.try_collect().await?;
        let left = read.iter().filter(|entry| entry.is_none()).count();
        let read = read.into_iter().flatten().chain(absent).map(|entry| (entry.listed.id, entry)).collect();
        if left > 0 {
            run.wait(read, progress).await?;
            return Ok(Outcome::Waiting { backup: number, left });
        }
        run.end(listed, read, before, progress).await
    }

    /// Looks for the repositories that the last backup has and that are not listed any more: one that is there all the same is read as
    /// the others; what became of the rest.
    async fn absent(
        &self,
        account: &Account,
        before: &BTreeMap<u64, Entry>,
        progress: &Progress,
        listed: &mut Repositories,
        number: u64,
        deadline: Deadline,
    ) -> Vec<Entry> {
        let mut absent = Vec::new();
        let mut known: BTreeMap<_, _> = before.iter().collect();
        known.extend(&progress.entries);
        for (id, entry) in known {
            if listed.wanted.iter().any(|one| one.id == *id) {
                continue;
            }
            let mut entry = entry.clone();
            let was_gone = entry.status == Status::Gone;
            entry.problems.clear();
            entry.late = None;
            if listed.all.contains(id) {
                entry.status = Status::Excluded;
            } else if !was_gone {
                match account.look_for(*id, deadline).await {
                    Presence::There(one) if account.is_wanted(&self.config, &listed.login, &one) => {
                        listed.wanted.push(*one);
                        continue;
                    }
                    Presence::There(_) => entry.status = Status::Excluded,
                    Presence::Gone => {
                        (entry.status, entry.since) = (Status::Gone, number);
                        let name = &entry.listed.full_name;
                        listed
                            .lacks
                            .push(format!("{name} has gone, or the token no longer sees it; what is kept of it stays"));
                    }
                    // It is tried again by the next run in any case.
                    Presence::Refused(error) => {
                        entry.status = Status::Failed;
                        let fault = Fault::from(error);
                        entry.has_problem("repository", fault.status(), fault.to_string());
                    }
                }
            }
            absent.push(entry);
        }
        absent
    }
}

impl Run<'_> {
    /// What tells the objects of this run from those of others.
    pub(crate) fn mark(&self) -> String {
        let id = self.id.simple().to_string();
        // The end is random, the beginning is the time.
        format!("{:06}-{}", self.number, &id[20..])
    }

    /// Brings what is kept of a repository up to date; `None` if it is left to the next run.
    async fn repository(
        &self,
        listed: &Listed,
        before: Option<&Entry>,
        progress: &Progress,
    ) -> Result<Option<Entry>, Error> {
        let kept = progress.entries.get(&listed.id);
        // By a run before this one, for this backup.
        let ended = progress.ended(listed, before, self.number);
        let is_asked_for_anew = self.is_full || !self.only.is_empty();
        if !is_asked_for_anew && ended.as_ref().is_some_and(|entry| Progress::is_fresh(entry, self.started)) {
            return Ok(ended);
        }
        let longest = self.longest.lock().map_or(Duration::ZERO, |longest| *longest);
        if !self.half.allows(longest) {
            // What failed or was read long ago is read again only if there is time.
            return Ok(ended.filter(|_| !is_asked_for_anew));
        }
        let (began, at) = (Instant::now(), Utc::now());
        let known = kept.or(before);
        let mut entry = Entry::begun(listed, known);
        let read = self.read(&mut entry, before).await;
        if let Ok(mut longest) = self.longest.lock() {
            *longest = longest.max(began.elapsed());
        }
        let is_new = !known.unwrap_or(&Entry::default()).has_same(&entry);
        if is_new || known.is_none() {
            entry.since = self.number;
        }
        let is_empty = match read {
            Ok(is_empty) => is_empty,
            Err(Fault::Store(error)) => return Err(error.into()),
            Err(fault) if fault.is_late() && self.may_go_on(&mut entry, known, began) => {
                tracing::info!("{}: left to the next run: {fault}", listed.full_name);
                progress::keep(self.account, self.number, &entry).await?;
                return Ok(None);
            }
            Err(fault) => {
                entry.has_problem("repository", fault.status(), fault.to_string());
                false
            }
        };
        entry.ends(self.number, is_empty, rfc3339(at));
        if entry.since == self.number {
            tracing::info!("{}: read in {:.1} s", listed.full_name, began.elapsed().as_secs_f64());
        }
        if is_new || known.is_none() || kept.is_some() || !entry.problems.is_empty() {
            progress::keep(self.account, self.number, &entry).await?;
        }
        Ok(Some(entry))
    }

    /// Whether the next run may go on with a repository for which this one had no time: not if it had all the time of several, and came
    /// no further.
    fn may_go_on(&self, entry: &mut Entry, known: Option<&Entry>, began: Instant) -> bool {
        let had_all = began - self.begun < AT_FIRST;
        let tries = known.and_then(|known| known.late).unwrap_or_default();
        // A pack alone is no way forward: there may be a new one each time.
        let came_further = !known.unwrap_or(&Entry::default()).has_same_beside_git(entry);
        let tries = if came_further { 0 } else { tries + u32::from(had_all) };
        entry.late = Some(tries);
        if tries >= TRIES {
            let why = format!("it came no further in {TRIES} runs: run `backup run --only` for it on a machine");
            entry.has_problem("repository", None, why);
        }
        tries < TRIES
    }

    /// Notes what was read, for the next run.
    async fn wait(&self, read: BTreeMap<u64, Entry>, progress: Progress) -> Result<(), Error> {
        let mut unchanged = progress.unchanged;
        let of_this = read.into_values().filter(|entry| entry.problems.is_empty() && entry.since != self.number);
        unchanged.extend(of_this.filter_map(|entry| Some((entry.listed.id, entry.read?))));
        progress::keep_unchanged(self.account, self.number, &unchanged).await
    }

    /// Writes the manifest.
    async fn end(
        &self,
        listed: Repositories,
        read: BTreeMap<u64, Entry>,
        before: BTreeMap<u64, Entry>,
        progress: Progress,
    ) -> Result<Outcome, Error> {
        let mut entries = before;
        // With `only` there may be some of a run that read others.
        let ended = progress.entries.iter().filter(|(_, entry)| entry.late.is_none());
        entries.extend(ended.map(|(id, entry)| (*id, entry.clone())));
        entries.extend(read.clone());
        let mut manifest = Manifest {
            format: FORMAT,
            backup: self.number,
            run: self.id.to_string(),
            program: AGENT.into(),
            date: self.date.clone(),
            account: listed.login,
            complete: false,
            started: rfc3339(self.started),
            ended: rfc3339(Utc::now()),
            mode: self.config.mode.clone(),
            with: if self.config.is_mirror() { self.config.with.clone() } else { Vec::new() },
            only: self.only.to_vec(),
            lacks: listed.lacks,
            repositories: Vec::new(),
        };
        loop {
            manifest.fill(entries);
            if manifest.write(self.account).await? {
                if !self.only.is_empty() {
                    progress.go_on_as(self.account, manifest.backup + 1).await?;
                }
                return Ok(Outcome::Made(manifest));
            }
            let Some(other) = Manifest::read(self.account, manifest.backup).await? else {
                // Another write was under way, and failed.
                tokio::time::sleep(AGAIN).await;
                entries = manifest.repositories.drain(..).map(|entry| (entry.listed.id, entry)).collect();
                continue;
            };
            // The answer to a write may be lost, and the write repeated.
            if other.run == manifest.run {
                return Ok(Outcome::Made(other));
            }
            let has_it = |entry: &Entry| {
                let found = other.repositories.iter().find(|one| one.listed.id == entry.listed.id);
                found.is_some_and(|one| {
                    !self.is_full && one.read >= entry.read && (one.problems.is_empty() || !entry.problems.is_empty())
                })
            };
            if read.values().all(has_it) && (other.only.is_empty() || !self.only.is_empty()) {
                return Ok(Outcome::Beaten(other));
            }
            entries = other.repositories.into_iter().map(|entry| (entry.listed.id, entry)).collect();
            entries.extend(read.clone());
            manifest.backup += 1;
        }
    }
}

/// The repositories that are read, first those that had no time before.
fn chosen(request: &Request, listed: &Repositories, progress: &Progress) -> Result<Vec<Listed>, Error> {
    let is_it = |name: &String, one: &Listed| name.eq_ignore_ascii_case(&one.full_name);
    if let Some(unknown) = request.only.iter().find(|name| !listed.wanted.iter().any(|one| is_it(name, one))) {
        return Err(Error::Unknown {
            name: unknown.clone(),
            place: "the account, or the settings leave it out".into(),
        });
    }
    let is_chosen = |one: &&Listed| request.only.is_empty() || request.only.iter().any(|name| is_it(name, one));
    let mut chosen: Vec<_> = listed.wanted.iter().filter(is_chosen).cloned().collect();
    chosen.sort_by_key(|one| match progress.entries.get(&one.id) {
        Some(entry) if entry.late.is_some() => 0,
        None => 1,
        Some(entry) if entry.problems.is_empty() => 2,
        Some(_) => 3,
    });
    Ok(chosen)
}

/// The repositories of which one question says that an issue was changed since they were read.
async fn news(
    config: &Config,
    account: &Account,
    before: &BTreeMap<u64, Entry>,
    deadline: Deadline,
) -> Option<BTreeMap<u64, String>> {
    let is_read =
        |entry: &&Entry| entry.problems.is_empty() && !matches!(entry.status, Status::Gone | Status::Excluded);
    let since = before.values().filter(is_read).filter_map(|entry| entry.read.as_ref()).min();
    let since = DateTime::parse_from_rfc3339(since?).ok()?;
    if !config.has("issues") && !config.has("pulls") {
        return Some(BTreeMap::new());
    }
    let news = account.with_news(&rfc3339(since.to_utc() - SKEW), deadline).await;
    // It only saves questions.
    news.unwrap_or_else(|error| {
        tracing::info!("each repository is asked for its issues: {error}");
        None
    })
}

/// The list of repositories as the original wrote it, and more of each.
async fn write_list(account: &Account, date: &str, listed: &Repositories) -> Result<(), Error> {
    let lines = listed.wanted.iter().map(|one| {
        let (owner, name) = one.full_name.split_once('/').unwrap_or_default();
        json!({
            "name": name, "owner": owner, "is_private": one.private, "id": one.id, "default_branch": one.default_branch,
            "pushed_at": one.pushed_at, "size": one.size,
        })
    });
    let text = Value::from_iter(lines).to_string();
    let key = account.key(&format!("{date}/metadata.json"));
    account.store.put_if(If::Any, &key, Some(JSON), text.into()).await?;
    Ok(())
}

/// The names of archives: owner and name, as the original joined them; where two would be one, with another underscore.
fn zip_names(listed: &[Listed]) -> BTreeMap<u64, String> {
    let plain = |one: &Listed| one.full_name.replacen('/', "_", 1);
    let mut count: BTreeMap<String, u32> = BTreeMap::new();
    listed.iter().for_each(|one| *count.entry(plain(one)).or_default() += 1);
    let name = |one: &Listed| match count.get(&plain(one)) {
        Some(1) => plain(one),
        _ => one.full_name.replacen('/', "__", 1),
    };
    listed.iter().map(|one| (one.id, name(one))).collect()
}

pub(crate) fn rfc3339(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}
