//! What is read of a repository. Each part by itself: one that fails stops no other.

use std::collections::BTreeSet;

use chrono::DateTime;
use serde::Deserialize;

use crate::fault::Fault;
use crate::git::{Ref, Remote};
use crate::lists::KINDS;
use crate::manifest::{Entry, Files, Problem, Status, Wanted};
use crate::run::{Run, SKEW, rfc3339};
use crate::{files, lists, mirror, progress, zipball};

impl Run<'_> {
    /// Brings all parts of a repository up to date; whether it is empty. `before` is what the last backup has of it.
    pub(crate) async fn read(&self, entry: &mut Entry, before: Option<&Entry>) -> Result<bool, Fault> {
        let name = entry.listed.full_name.clone();
        let Some(remote) = part(entry, "git", self.account.git.connect(&name, self.deadline).await)? else {
            return Ok(false);
        };
        let Some(refs) = part(entry, "git", mirror::refs(self.config, &remote).await)? else { return Ok(false) };
        let is_empty = refs.is_empty();
        if self.config.is_zip() && !is_empty {
            self.zip(entry, &refs).await?;
        }
        if self.config.is_mirror() {
            let is_moved = self.is_moved(entry, before, &refs);
            let has_tags = refs.iter().any(|one| one.name.starts_with("refs/tags/"));
            self.git(entry, &remote, refs).await?;
            if self.config.has("wiki") && entry.listed.has_wiki {
                self.wiki(entry).await?;
            }
            if self.config.has("lfs") {
                self.lfs(entry, &remote).await?;
            }
            self.lists(entry, is_moved, has_tags).await?;
            self.assets(entry).await?;
        }
        Ok(is_empty)
    }

    /// Whether something may be new since the last backup that refs do not show.
    fn is_moved(&self, entry: &Entry, before: Option<&Entry>, refs: &[Ref]) -> bool {
        let Some(before) = before else { return true };
        let is_pushed = before.git.as_ref().map_or(!refs.is_empty(), |git| git.refs != refs);
        let is_touched =
            before.listed.updated_at != entry.listed.updated_at || before.listed.pushed_at != entry.listed.pushed_at;
        let read = before.read.as_ref().and_then(|read| DateTime::parse_from_rfc3339(read).ok());
        let has_news = match (&self.news, read) {
            (Some(news), Some(read)) => {
                news.get(&entry.listed.id).is_some_and(|last| *last >= rfc3339(read.to_utc() - SKEW))
            }
            _ => true,
        };
        let lacks = |kind: &lists::Kind| {
            !before.lists.contains_key(kind.name) || !self.had.iter().any(|with| with == kind.with)
        };
        let lacks_some = KINDS.iter().any(|kind| self.config.has(kind.with) && lacks(kind));
        let was_away = matches!(before.status, Status::Gone | Status::Excluded);
        // Of a run that did not end.
        let is_begun = entry.lists != before.lists;
        let is_to_be_mended = !before.problems.is_empty();
        self.is_full || is_pushed || is_touched || has_news || lacks_some || was_away || is_begun || is_to_be_mended
    }

    /// Whether a repository is too large to be read in full here.
    fn is_too_large(&self, entry: &Entry) -> bool {
        self.config.is_too_large(entry.listed.size)
    }

    fn skips(&self, entry: &mut Entry) {
        let (size, name) = (entry.listed.size >> 10, &entry.listed.full_name);
        let most = self.config.largest.unwrap_or_default() >> 20;
        let why = format!(
            "it has about {size} MB, more than {most} MB (largest): run `backup run --only {name}` on a machine"
        );
        if entry.status != Status::Skipped {
            entry.status = Status::Skipped;
            entry.has_problem("git", None, why);
        }
    }

    async fn zip(&self, entry: &mut Entry, refs: &[Ref]) -> Result<(), Fault> {
        let Some(head) = refs.iter().find(|one| one.name == "HEAD") else {
            return entry.fails("zip", Fault::form("its default branch has no commit"));
        };
        if entry.zip.as_ref().is_some_and(|zip| zip.commit == head.hash) && !self.is_full {
            return Ok(());
        }
        if self.is_too_large(entry) {
            self.skips(entry);
            return Ok(());
        }
        let name = self.names.get(&entry.listed.id).cloned().unwrap_or_default();
        let read = async || zipball::zipball(self, &entry.listed.full_name, &name, &head.hash).await;
        let zip = twice(read).await;
        if let Some(zip) = part(entry, "zip", zip)? {
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
        let is_whole =
            self.is_full || entry.git.is_none() || looks && entry.lfs.as_ref().is_none_or(|files| files.is_behind);
        if !is_whole && entry.git.as_ref().is_some_and(|git| git.refs == refs) {
            return Ok(());
        }
        if is_whole && self.is_too_large(entry) {
            self.skips(entry);
            return Ok(());
        }
        let is_worn = entry.git.as_ref().is_some_and(|git| mirror::is_worn(git, &refs, self.config.full_every));
        let base = entry.git.as_ref().filter(|_| !is_whole && (!is_worn || self.is_too_large(entry)));
        let is_anew = base.is_none();
        let key = self.object(entry, "git.bundle");
        let read = async || mirror::update(self, remote, refs.clone(), base, key.clone(), looks).await;
        let made = twice(read).await;
        let Some(made) = part(entry, "git", made)? else { return Ok(()) };
        if !looks {
            entry.git = Some(made.mirror);
            if let Some(files) = &mut entry.lfs {
                files.is_behind = true;
            }
            return Ok(());
        }
        let wanted = made.found.pointers.into_iter().map(|one| Wanted { name: one.oid, bytes: one.bytes, why: None });
        let wanted = files::want(self, entry.lfs.as_ref(), wanted).await;
        // Together: the pack's pointers are not looked for again.
        if let Some(mut files) = part(entry, "lfs", wanted)? {
            files.unsure = made.found.unsure + if is_anew { 0 } else { files.unsure };
            files.is_behind = false;
            entry.lfs = Some(files);
            entry.git = Some(made.mirror);
            // Reading them may take long: what is kept so far is not read again.
            if entry.lfs.as_ref().is_some_and(|files| !files.waiting.is_empty()) {
                self.keep(entry).await?;
            }
        }
        Ok(())
    }

    async fn wiki(&self, entry: &mut Entry) -> Result<(), Fault> {
        let name = format!("{}.wiki", entry.listed.full_name);
        let read = async || {
            let remote = self.account.git.connect(&name, self.deadline).await?;
            let refs = mirror::refs(self.config, &remote).await?;
            if refs.is_empty() || entry.wiki.as_ref().is_some_and(|wiki| wiki.refs == refs && !self.is_full) {
                return Ok(entry.wiki.clone());
            }
            let base = entry
                .wiki
                .as_ref()
                .filter(|wiki| !self.is_full && !mirror::is_worn(wiki, &refs, self.config.full_every));
            let key = self.object(entry, "wiki.bundle");
            Ok(Some(mirror::update(self, &remote, refs, base, key, false).await?.mirror))
        };
        match twice(read).await {
            Ok(wiki) => entry.wiki = wiki,
            // One without a page is not there, whatever the repository says.
            Err(fault) if matches!(fault.status(), Some(403 | 404)) && !fault.is_late() && entry.wiki.is_none() => {}
            Err(fault) => entry.fails("wiki", fault)?,
        }
        Ok(())
    }

    async fn lfs(&self, entry: &mut Entry, remote: &Remote<'_>) -> Result<(), Fault> {
        let unsure = entry.lfs.as_ref().map_or(0, |files| files.unsure);
        if unsure > 0 {
            let why = format!("{unsure} files may be pointers, of what cannot be told");
            entry.has_problem("lfs", None, why);
        }
        let Some(files) = self.asked_for_again(entry.lfs.as_ref()) else { return Ok(()) };
        let list = self.object(entry, "lfs.jsonl");
        let read = files::lfs(self, entry.listed.id, remote, files, list).await;
        let Some((files, fault)) = part(entry, "lfs", read)? else { return Ok(()) };
        entry.lfs = Some(files);
        fault.map_or(Ok(()), |fault| entry.fails("lfs", fault))
    }

    /// Issues, pull requests and releases, if something may be new. Files may be added to a release at any time, and nothing tells:
    /// where there may be one, it is asked for.
    async fn lists(&self, entry: &mut Entry, is_moved: bool, has_tags: bool) -> Result<(), Fault> {
        let mut assets = Vec::new();
        for kind in KINDS.iter().filter(|kind| self.config.has(kind.with)) {
            let has_some = entry.lists.get(kind.name).is_some_and(|list| !list.objects.is_empty());
            if !is_moved && !(kind.name == "releases" && (has_tags || has_some)) {
                continue;
            }
            let key = self.object(entry, &format!("{}.jsonl.zst", kind.name));
            let known = entry.lists.get(kind.name).filter(|_| !self.is_full);
            let mut see = |line: &str| {
                if kind.name == "releases" {
                    assets.extend(assets_of(line));
                }
            };
            match lists::update(self, &entry.listed.full_name, kind, known, key, &mut see).await {
                Ok((list, late)) => {
                    entry.lists.insert(kind.name.into(), list);
                    if let Some(fault) = late {
                        entry.fails(kind.name, fault)?;
                    }
                }
                // They are switched off.
                Err(fault) if fault.status() == Some(410) => {
                    entry.lists.entry(kind.name.into()).or_default();
                }
                Err(fault) => entry.fails(kind.name, fault)?,
            }
        }
        if !assets.is_empty() {
            let named: BTreeSet<_> = assets.iter().map(|one| one.name.clone()).collect();
            let wanted = files::want(self, entry.assets.as_ref(), assets.into_iter()).await;
            if let Some(mut files) = part(entry, "assets", wanted)? {
                // One that was taken out of its release is not looked for.
                files.waiting.retain(|one| named.contains(&one.name));
                entry.assets = Some(files);
            }
        }
        Ok(())
    }

    async fn assets(&self, entry: &mut Entry) -> Result<(), Fault> {
        let Some(files) = self.asked_for_again(entry.assets.as_ref()) else { return Ok(()) };
        let list = self.object(entry, "assets.jsonl");
        let read = files::assets(self, entry.listed.id, &entry.listed.full_name, files, list).await;
        let Some((files, fault)) = part(entry, "assets", read)? else { return Ok(()) };
        entry.assets = Some(files);
        fault.map_or(Ok(()), |fault| entry.fails("assets", fault))
    }

    /// Files that are still to be read, with those that were not to be had: they may be there now.
    fn asked_for_again(&self, files: Option<&Files>) -> Option<Files> {
        let mut files = files.filter(|files| !files.waiting.is_empty() || !files.missing.is_empty())?.clone();
        files.waiting.extend(files.missing.drain(..).map(|one| Wanted { why: None, ..one }));
        Some(files)
    }

    fn object(&self, entry: &Entry, name: &str) -> String {
        self.account.key(&format!("repositories/{}/{}/{name}", entry.listed.id, self.mark()))
    }

    /// Notes what is kept so far: a run that is killed is gone on with from here.
    async fn keep(&self, entry: &Entry) -> Result<(), Fault> {
        let mut entry = entry.clone();
        entry.since = self.number;
        entry.late = Some(0);
        Ok(progress::keep(self.account, self.number, &entry).await?)
    }
}

/// What a part gave, or nothing where it failed.
fn part<T>(entry: &mut Entry, part: &str, done: Result<T, Fault>) -> Result<Option<T>, Fault> {
    match done {
        Ok(done) => Ok(Some(done)),
        Err(fault) => entry.fails(part, fault).map(|()| None),
    }
}

/// Tries once more what broke off.
async fn twice<T>(read: impl AsyncFn() -> Result<T, Fault>) -> Result<T, Fault> {
    match read().await {
        Err(fault) if fault.is_broken_off() => read().await,
        done => done,
    }
}

/// The files of a release.
fn assets_of(release: &str) -> Vec<Wanted> {
    #[derive(Deserialize)]
    struct Release {
        #[serde(default)]
        assets: Vec<Asset>,
    }
    #[derive(Deserialize)]
    struct Asset {
        id: u64,
        #[serde(default)]
        name: String,
        #[serde(default)]
        size: u64,
    }
    let release = serde_json::from_str(release).unwrap_or(Release { assets: Vec::new() });
    let wanted = |one: Asset| Wanted { name: format!("{} {}", one.id, one.name), bytes: one.size, why: None };
    release.assets.into_iter().map(wanted).collect()
}

impl Entry {
    /// One with what is known of a repository, and what GitHub says of it now.
    pub(crate) fn begun(listed: &crate::account::Listed, known: Option<&Self>) -> Self {
        let mut entry = known.cloned().unwrap_or_default();
        let before = std::mem::replace(&mut entry.listed, listed.clone()).full_name;
        if known.is_some() && before != listed.full_name && !entry.formerly.contains(&before) {
            entry.formerly.push(before);
        }
        entry.problems.clear();
        entry.late = None;
        entry.status = Status::Done;
        entry
    }

    /// Notes that a part failed; what it has of an earlier backup stays.
    ///
    /// # Errors
    /// What ends the run, for now or altogether.
    pub(crate) fn fails(&mut self, part: &str, fault: Fault) -> Result<(), Fault> {
        if fault.is_late() || matches!(fault, Fault::Store(_)) {
            return Err(fault);
        }
        self.has_problem(part, fault.status(), fault.to_string());
        Ok(())
    }

    pub(crate) fn has_problem(&mut self, part: &str, code: Option<u16>, why: String) {
        self.problems.push(Problem { part: part.into(), code, why });
    }

    /// Says what became of it.
    pub(crate) fn ends(&mut self, number: u64, is_empty: bool, read: String) {
        let is_skipped = self.status == Status::Skipped && self.problems.len() == 1;
        self.late = None;
        self.status = match self.problems.is_empty() {
            true if is_empty => Status::Empty,
            true if self.since == number => Status::Done,
            true => Status::Unchanged,
            false if is_skipped => Status::Skipped,
            false => Status::Failed,
        };
        if self.problems.is_empty() {
            self.read = Some(read);
        }
    }
}
