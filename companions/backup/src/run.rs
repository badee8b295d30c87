//! The way of a backup: list the repositories, bring what is kept of each up to date, say what became of each.

use std::collections::btree_map::Entry::Vacant;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use blackwater_base::deadline::Deadline;
use blackwater_base::secrets::Secrets;
use blackwater_base::store::{Client, If, JSON};
use blackwater_http::Http;
use chrono::{DateTime, SecondsFormat, Utc};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::account::{Account, Listed, Repositories};
use crate::config::Config;
use crate::error::Error;
use crate::fault::Fault;
use crate::git::{Ref, Remote};
use crate::lists::KINDS;
use crate::manifest::{Entry, Manifest, Problem, Status, Wanted};
use crate::{files, lists, mirror, zipball};

/// What it calls itself where it asks for something.
pub const AGENT: &str = concat!("backup/", env!("CARGO_PKG_VERSION"));

/// How long ago something was changed that is not changed again in the same second.
const SETTLED: Duration = Duration::from_secs(10);
/// By how much clocks may differ.
const SKEW: Duration = Duration::from_secs(300);

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
    /// Another run made the backup meanwhile.
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
    number: u64,
    id: Uuid,
    started: DateTime<Utc>,
    is_full: bool,
    /// The repositories whose issues were changed; `None` if that is not known.
    news: Option<BTreeSet<u64>>,
    /// The names of archives.
    names: BTreeMap<u64, String>,
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

    /// Makes a backup, from where the last run stopped.
    ///
    /// # Errors
    /// If the account cannot be listed, or the bucket fails. What fails in a repository is in the manifest.
    pub async fn run(&self, request: &Request, deadline: Deadline) -> Result<Outcome, Error> {
        let (account, started, id) = (self.account().await?, Utc::now(), Uuid::now_v7());
        let date = started.format("%Y-%m-%d").to_string();
        let listed = account.repositories(&self.config, deadline).await?;
        write_list(&account, &date, &listed).await?;
        let previous = Manifest::newest(&account).await?;
        let number = previous.as_ref().map_or(1, |previous| previous.backup + 1);
        let mut known: BTreeMap<_, _> =
            previous.iter().flat_map(|one| &one.repositories).map(|one| (one.listed.id, one.clone())).collect();
        // What a run before this one had kept when it ended before its time.
        known.extend(kept(&account, number).await?.into_iter().map(|entry| (entry.listed.id, entry)));

        let is_asked_for = |one: &Listed| {
            request.only.is_empty() || request.only.iter().any(|name| name.eq_ignore_ascii_case(&one.full_name))
        };
        let chosen: Vec<_> = listed.wanted.iter().filter(|one| is_asked_for(one)).collect();
        if let Some(unknown) =
            request.only.iter().find(|name| !chosen.iter().any(|one| one.full_name.eq_ignore_ascii_case(name)))
        {
            return Err(Error::Unknown {
                name: unknown.clone(),
                place: "the account, or the settings leave it out".into(),
            });
        }
        let run = Run {
            config: &self.config,
            account: &account,
            http: &self.http,
            deadline,
            date,
            settled: rfc3339(started - SETTLED),
            number,
            id,
            started,
            is_full: request.is_full,
            news: news(&self.config, &account, &known, deadline).await?,
            names: zip_names(&listed.wanted),
            half: deadline.halfway(),
            longest: Mutex::default(),
        };
        let pieces = chosen.iter().map(|one| run.repository(one, known.get(&one.id)));
        // On the heap: these futures are large.
        let read: Vec<_> =
            stream::iter(pieces).map(Box::pin).buffer_unordered(self.config.at_once as usize).try_collect().await?;
        let left = read.iter().filter(|entry| entry.is_none()).count();
        if left > 0 {
            return Ok(Outcome::Waiting { backup: number, left });
        }
        let mut entries: BTreeMap<u64, Entry> =
            read.into_iter().flatten().map(|entry| (entry.listed.id, entry)).collect();
        for (id, entry) in known {
            if let Vacant(place) = entries.entry(id) {
                place.insert(run.absent(entry, &listed).await?);
            }
        }
        run.end(listed.login, entries).await
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
    async fn repository(&self, listed: &Listed, known: Option<&Entry>) -> Result<Option<Entry>, Error> {
        let longest = self.longest.lock().map_or(Duration::ZERO, |longest| *longest);
        if !self.half.allows(longest) {
            return Ok(None);
        }
        let began = Instant::now();
        let read = self.read(listed, known).await;
        if let Ok(mut longest) = self.longest.lock() {
            *longest = longest.max(began.elapsed());
        }
        match read {
            Ok(entry) => Ok(Some(entry)),
            Err(Fault::Store(error)) => Err(error.into()),
            Err(fault) if fault.is_late() => {
                tracing::info!(repository = listed.full_name, "left to the next run: {fault}");
                Ok(None)
            }
            Err(fault) => Err(Error::Document { key: listed.full_name.clone(), why: fault.to_string() }),
        }
    }

    /// Each part by itself: one that fails stops no other.
    async fn read(&self, listed: &Listed, known: Option<&Entry>) -> Result<Entry, Fault> {
        let began = Utc::now();
        let mut entry = self.begun(listed, known);
        let Some(remote) =
            self.part(&mut entry, "git", self.account.git.connect(&listed.full_name, self.deadline).await)?
        else {
            return self.settled(entry, known, began, false).await;
        };
        let Some(refs) = self.part(&mut entry, "git", mirror::refs(self, &remote).await)? else {
            return self.settled(entry, known, began, false).await;
        };
        let is_empty = refs.is_empty();
        if self.config.is_zip() && !is_empty {
            self.zip(&mut entry, &refs).await?;
        }
        if self.config.is_mirror() {
            let is_moved = self.is_moved(&entry, known, &refs);
            self.git(&mut entry, &remote, refs).await?;
            if self.config.has("wiki") && listed.has_wiki && is_moved {
                self.wiki(&mut entry).await?;
            }
            if self.config.has("lfs") {
                self.lfs(&mut entry, &remote).await?;
            }
            if is_moved {
                self.lists(&mut entry).await?;
            }
            self.assets(&mut entry).await?;
        }
        self.settled(entry, known, began, is_empty).await
    }

    /// An entry with what is known of the repository, and what GitHub says of it now.
    fn begun(&self, listed: &Listed, known: Option<&Entry>) -> Entry {
        let mut entry = known.cloned().unwrap_or_default();
        let before = std::mem::replace(&mut entry.listed, listed.clone()).full_name;
        if known.is_some() && before != listed.full_name && !entry.formerly.contains(&before) {
            entry.formerly.push(before);
        }
        entry.problems.clear();
        entry
    }

    /// What a part gave, or nothing where it failed.
    fn part<T>(&self, entry: &mut Entry, part: &str, done: Result<T, Fault>) -> Result<Option<T>, Fault> {
        match done {
            Ok(done) => Ok(Some(done)),
            Err(fault) => entry.fails(part, fault).map(|()| None),
        }
    }

    /// Whether something may be new that refs do not show.
    fn is_moved(&self, entry: &Entry, known: Option<&Entry>, refs: &[Ref]) -> bool {
        let Some(known) = known else { return true };
        let is_pushed = known.git.as_ref().is_none_or(|git| git.refs != refs);
        let is_touched =
            known.listed.updated_at != entry.listed.updated_at || known.listed.pushed_at != entry.listed.pushed_at;
        let has_news = self.news.as_ref().is_none_or(|news| news.contains(&entry.listed.id));
        let lacks = KINDS.iter().any(|kind| self.config.has(kind.with) && !known.lists.contains_key(kind.name));
        self.is_full || is_pushed || is_touched || has_news || lacks || !known.problems.is_empty()
    }

    /// Whether a repository is too large to be read in full here.
    fn is_too_large(&self, entry: &mut Entry) -> bool {
        let Some(largest) = self.config.largest.filter(|largest| entry.listed.size * 1024 > *largest) else {
            return false;
        };
        let (size, most, name) = (entry.listed.size >> 10, largest >> 20, &entry.listed.full_name);
        let why = format!(
            "it has about {size} MB, more than {most} MB (largest): run `backup run --only {name}` on a machine"
        );
        entry.problems.push(Problem { part: "git".into(), code: None, why });
        entry.status = Status::Skipped;
        true
    }

    async fn zip(&self, entry: &mut Entry, refs: &[Ref]) -> Result<(), Fault> {
        let Some(head) = refs.iter().find(|one| one.name == "HEAD") else {
            return entry.fails("zip", Fault::form("its default branch has no commit"));
        };
        if entry.zip.as_ref().is_some_and(|zip| zip.commit == head.hash) && !self.is_full || self.is_too_large(entry) {
            return Ok(());
        }
        let name = self.names.get(&entry.listed.id).cloned().unwrap_or_default();
        let read = async || zipball::zipball(self, &entry.listed.full_name, &name, &head.hash).await;
        let zip = twice(read).await;
        if let Some(zip) = self.part(entry, "zip", zip)? {
            entry.zip = Some(zip);
        }
        Ok(())
    }

    async fn git(&self, entry: &mut Entry, remote: &Remote<'_>, refs: Vec<Ref>) -> Result<(), Fault> {
        if refs.is_empty() {
            // What it had stays in earlier backups.
            entry.git = None;
            return Ok(());
        }
        let looks = self.config.has("lfs");
        // Pointers of before are known only if they were looked for then.
        let is_whole = self.is_full || entry.git.is_none() || looks && entry.lfs.is_none();
        if is_whole && self.is_too_large(entry) {
            return Ok(());
        }
        let is_worn = entry.git.as_ref().is_some_and(|git| mirror::is_worn(git, &refs, self.config.full_every));
        let base = entry.git.as_ref().filter(|_| !is_whole && (!is_worn || self.would_be_too_large(entry)));
        if !is_whole && entry.git.as_ref().is_some_and(|git| git.refs == refs) {
            return Ok(());
        }
        let key = self.object(entry, "git.bundle");
        let read = async || mirror::update(self, remote, refs.clone(), base, key.clone(), looks).await;
        let made = twice(read).await;
        let Some(made) = self.part(entry, "git", made)? else { return Ok(()) };
        entry.git = Some(made.mirror);
        if looks {
            let wanted =
                made.found.pointers.into_iter().map(|one| Wanted { name: one.oid, bytes: one.bytes, why: None });
            entry.lfs = Some(files::want(self, entry.lfs.as_ref(), wanted).await?);
            if made.found.unsure > 0 {
                let why = format!(
                    "{} files may be pointers, of what cannot be told without all of the repository",
                    made.found.unsure
                );
                entry.fails("lfs", Fault::Form(why))?;
            }
            // Reading them may take long: what is kept so far is not read again.
            if entry.lfs.as_ref().is_some_and(|files| !files.waiting.is_empty()) {
                self.keep(entry).await?;
            }
        }
        Ok(())
    }

    fn would_be_too_large(&self, entry: &Entry) -> bool {
        self.config.largest.is_some_and(|largest| entry.listed.size * 1024 > largest)
    }

    async fn wiki(&self, entry: &mut Entry) -> Result<(), Fault> {
        let name = format!("{}.wiki", entry.listed.full_name);
        let read = async || {
            let remote = self.account.git.connect(&name, self.deadline).await?;
            let refs = mirror::refs(self, &remote).await?;
            let base = entry
                .wiki
                .as_ref()
                .filter(|wiki| !self.is_full && !mirror::is_worn(wiki, &refs, self.config.full_every));
            if refs.is_empty() || entry.wiki.as_ref().is_some_and(|wiki| wiki.refs == refs && !self.is_full) {
                return Ok(entry.wiki.clone());
            }
            let key = self.object(entry, "wiki.bundle");
            Ok(Some(mirror::update(self, &remote, refs, base, key, false).await?.mirror))
        };
        match twice(read).await {
            Ok(wiki) => entry.wiki = wiki,
            // One without a page is not there, whatever the repository says.
            Err(fault) if matches!(fault.status(), Some(403 | 404)) && !fault.is_late() => {}
            Err(fault) => entry.fails("wiki", fault)?,
        }
        Ok(())
    }

    async fn lfs(&self, entry: &mut Entry, remote: &Remote<'_>) -> Result<(), Fault> {
        let Some(files) = entry.lfs.clone().filter(|files| !files.waiting.is_empty()) else { return Ok(()) };
        let list = self.object(entry, "lfs.jsonl");
        let (files, fault) = files::lfs(self, entry.listed.id, remote, files, list).await?;
        entry.lfs = Some(files);
        self.waits(entry, "lfs", fault).await
    }

    async fn lists(&self, entry: &mut Entry) -> Result<(), Fault> {
        let mut assets = Vec::new();
        for kind in KINDS.iter().filter(|kind| self.config.has(kind.with)) {
            let key = self.object(entry, &format!("{}.jsonl.zst", kind.name));
            let known = entry.lists.get(kind.name).filter(|_| !self.is_full);
            let mut see = |line: &str| {
                if kind.name == "releases" {
                    assets.extend(assets_of(line));
                }
            };
            match lists::update(self, &entry.listed.full_name, kind, known, key, &mut see).await {
                Ok(list) => drop(entry.lists.insert(kind.name.into(), list)),
                // They are switched off.
                Err(fault) if fault.status() == Some(410) => {
                    entry.lists.entry(kind.name.into()).or_default();
                }
                Err(fault) => entry.fails(kind.name, fault)?,
            }
        }
        if !assets.is_empty() {
            entry.assets = Some(files::want(self, entry.assets.as_ref(), assets.into_iter()).await?);
        }
        Ok(())
    }

    async fn assets(&self, entry: &mut Entry) -> Result<(), Fault> {
        let Some(files) = entry.assets.clone().filter(|files| !files.waiting.is_empty()) else { return Ok(()) };
        let list = self.object(entry, "assets.jsonl");
        let (files, fault) = files::assets(self, entry.listed.id, &entry.listed.full_name, files, list).await?;
        entry.assets = Some(files);
        self.waits(entry, "assets", fault).await
    }

    /// Notes why files are still to be read. Those that were read are kept, also if the rest is left to the next run.
    async fn waits(&self, entry: &mut Entry, part: &str, fault: Option<Fault>) -> Result<(), Fault> {
        let Some(fault) = fault else { return Ok(()) };
        if fault.is_late() {
            self.keep(entry).await?;
        }
        entry.fails(part, fault)
    }

    /// Says what became of a repository, and notes what is new.
    async fn settled(
        &self,
        mut entry: Entry,
        known: Option<&Entry>,
        began: DateTime<Utc>,
        is_empty: bool,
    ) -> Result<Entry, Fault> {
        let parts = |entry: &Entry| {
            (
                entry.zip.clone(),
                entry.git.clone(),
                entry.wiki.clone(),
                entry.lfs.clone(),
                entry.assets.clone(),
                entry.lists.clone(),
            )
        };
        let is_new = known.is_none_or(|known| parts(known) != parts(&entry));
        if is_new {
            entry.since = self.number;
        }
        entry.status = match entry.status {
            _ if entry.problems.is_empty() && is_empty => Status::Empty,
            _ if entry.problems.is_empty() && entry.since == self.number => Status::Done,
            _ if entry.problems.is_empty() => Status::Unchanged,
            Status::Skipped if entry.problems.iter().all(|problem| problem.code.is_none()) => Status::Skipped,
            _ => Status::Failed,
        };
        if entry.problems.is_empty() {
            entry.read = Some(rfc3339(began));
        }
        if is_new {
            self.keep(&entry).await?;
        }
        for problem in &entry.problems {
            tracing::warn!(repository = entry.listed.full_name, part = problem.part, "not backed up: {}", problem.why);
        }
        Ok(entry)
    }

    /// A repository that was kept and is not read in this run.
    async fn absent(&self, mut entry: Entry, listed: &Repositories) -> Result<Entry, Error> {
        let id = entry.listed.id;
        if listed.wanted.iter().any(|one| one.id == id) {
            // It was not asked for.
            return Ok(entry);
        }
        if listed.all.contains(&id) {
            entry.status = Status::Excluded;
        } else if entry.status != Status::Gone && !self.account.is_there(id, self.deadline).await.unwrap_or(true) {
            (entry.status, entry.since) = (Status::Gone, self.number);
        }
        Ok(entry)
    }

    async fn end(&self, account: String, entries: BTreeMap<u64, Entry>) -> Result<Outcome, Error> {
        let mut repositories: Vec<_> = entries.into_values().collect();
        repositories.sort_by(|one, other| one.listed.full_name.cmp(&other.listed.full_name));
        let manifest = Manifest {
            format: Manifest::FORMAT,
            backup: self.number,
            run: self.id.to_string(),
            program: AGENT.into(),
            date: self.date.clone(),
            account,
            complete: !repositories.iter().any(|entry| matches!(entry.status, Status::Failed | Status::Skipped)),
            started: rfc3339(self.started),
            ended: rfc3339(Utc::now()),
            mode: self.config.mode.clone(),
            with: if self.config.is_mirror() { self.config.with.clone() } else { Vec::new() },
            repositories,
        };
        if manifest.write(self.account).await? {
            return Ok(Outcome::Made(manifest));
        }
        let other = Manifest::read(self.account, self.number).await?;
        other
            .map(Outcome::Beaten)
            .ok_or_else(|| Error::NoBackup { number: self.number.to_string(), place: self.account.place() })
    }

    fn object(&self, entry: &Entry, name: &str) -> String {
        self.account.key(&format!("repositories/{}/{}/{name}", entry.listed.id, self.mark()))
    }

    /// Notes what is kept of a repository, for the next run if this one does not end.
    async fn keep(&self, entry: &Entry) -> Result<(), Fault> {
        let key = self.account.key(&format!("running/{:012}/{}.json", self.number, entry.listed.id));
        let text = serde_json::to_vec(entry).map_err(|error| Fault::Form(error.to_string()))?;
        Ok(self.account.store.put(&key, text.into()).await?)
    }
}

/// Tries once more what broke off.
async fn twice<T>(read: impl AsyncFn() -> Result<T, Fault>) -> Result<T, Fault> {
    match read().await {
        Err(fault) if fault.is_broken_off() => read().await,
        done => done,
    }
}

/// What a run kept that did not end.
pub(crate) async fn kept(account: &Account, number: u64) -> Result<Vec<Entry>, Error> {
    let folder = account.key(&format!("running/{number:012}/"));
    let keys = account.store.list(&folder, "", usize::MAX).await?;
    let read = keys.iter().map(async |key| {
        let text = account.store.get(key).await?.unwrap_or_default();
        serde_json::from_slice(&text).map_err(|error| Error::Document { key: key.clone(), why: error.to_string() })
    });
    stream::iter(read).buffered(8).try_collect().await
}

/// The repositories of which one question says that an issue was changed since they were read.
async fn news(
    config: &Config,
    account: &Account,
    known: &BTreeMap<u64, Entry>,
    deadline: Deadline,
) -> Result<Option<BTreeSet<u64>>, Error> {
    let is_read =
        |entry: &&Entry| entry.problems.is_empty() && !matches!(entry.status, Status::Gone | Status::Excluded);
    let since = known.values().filter(is_read).filter_map(|entry| entry.read.as_ref()).min();
    let since = since.and_then(|since| DateTime::parse_from_rfc3339(since).ok());
    match since {
        Some(since) if config.has("issues") || config.has("pulls") => {
            Ok(account.with_news(&rfc3339(since.to_utc() - SKEW), deadline).await?)
        }
        Some(_) => Ok(Some(BTreeSet::new())),
        None => Ok(None),
    }
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

/// The files of a release.
fn assets_of(release: &str) -> Vec<Wanted> {
    #[derive(Deserialize)]
    struct Release {
        #[serde(default)]
        assets: Vec<Asset>,
    }
    #[derive(Deserialize, Serialize)]
    struct Asset {
        id: u64,
        #[serde(default)]
        name: String,
        #[serde(default)]
        size: u64,
    }
    let release = serde_json::from_str(release).unwrap_or(Release { assets: Vec::new() });
    release
        .assets
        .into_iter()
        .map(|one| Wanted { name: format!("{} {}", one.id, one.name), bytes: one.size, why: None })
        .collect()
}

fn rfc3339(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}
