//! What a backup says of itself, and what it kept of each repository.

use std::collections::{BTreeMap, BTreeSet};

use blackwater_base::store::{Store, Uploaded};
use serde::{Deserialize, Serialize};

use crate::account::{Account, Listed};
use crate::error::Error;
use crate::git::Ref;

/// The form of a manifest that this program writes.
pub(crate) const FORMAT: u64 = 1;

/// A backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The form of this document.
    pub format: u64,
    /// Its number; each is one more than that of the backup before.
    pub backup: u64,
    /// The run that wrote it.
    pub run: String,
    /// The program that wrote it.
    pub program: String,
    /// Its date, in UTC.
    pub date: String,
    /// Who has the token.
    pub account: String,
    /// Whether nothing failed.
    pub complete: bool,
    /// When it was begun.
    pub started: String,
    /// When it was ended.
    pub ended: String,
    /// What was made of a repository.
    pub mode: Vec<String>,
    /// What a mirror had beside the repository.
    pub with: Vec<String>,
    /// The repositories that alone were asked for; it has the others as they were.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<String>,
    /// What the account has beside these repositories, as far as is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacks: Vec<String>,
    /// The repositories, by name.
    pub repositories: Vec<Entry>,
}

/// What a backup has of a repository.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// What GitHub says of it.
    #[serde(flatten)]
    pub listed: Listed,
    /// What became of it.
    pub status: Status,
    /// The backup in which it was last found to have changed.
    pub since: u64,
    /// When all of it was last read without a fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<String>,
    /// How often in a row a run had no time for all of it and came no further; `None`: it is read to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late: Option<u32>,
    /// Its former names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub formerly: Vec<String>,
    /// What failed. What is kept of that part is what an earlier backup has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
    /// Its files at one commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zip: Option<Zip>,
    /// The repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<Mirror>,
    /// Its wiki.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wiki: Option<Mirror>,
    /// Its LFS objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lfs: Option<Files>,
    /// Files of its releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assets: Option<Files>,
    /// Its issues, pull requests and so on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lists: BTreeMap<String, List>,
}

/// What became of a repository.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Something of it is new.
    #[default]
    Done,
    /// Nothing of it is new.
    Unchanged,
    /// It has no commit.
    Empty,
    /// Something of it failed.
    Failed,
    /// It is not read here.
    Skipped,
    /// The settings leave it out, now.
    Excluded,
    /// It is not there any more, or is not to be seen.
    Gone,
}

impl Status {
    /// As people read it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Unchanged => "unchanged",
            Self::Empty => "empty",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Excluded => "excluded",
            Self::Gone => "gone",
        }
    }
}

/// A part of a repository that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The part.
    pub part: String,
    /// The status of the answer, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// Why.
    pub why: String,
}

/// An object in the bucket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Object {
    /// Its key.
    pub key: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
}

/// A repository's files at one commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zip {
    /// The archive.
    #[serde(flatten)]
    pub object: Object,
    /// The commit.
    pub commit: String,
}

/// All of a git repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirror {
    /// Its refs: all that it has, and the hash of each.
    pub refs: Vec<Ref>,
    /// A bundle that is whole, and those that add to it, in their order.
    pub bundles: Vec<Object>,
}

/// Files beside a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    /// The object that lists those that are kept, each a line of JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<Object>,
    /// How many are kept.
    #[serde(default)]
    pub count: u64,
    /// Those that are still to be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<Wanted>,
    /// Those that are not to be had.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Wanted>,
    /// How many more there may be, of what cannot be told.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unsure: u64,
    /// Whether something was kept in which none were looked for.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_behind: bool,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// A file that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// What it is called: an LFS object's hash, or an asset's number and name.
    pub name: String,
    /// Where it is.
    #[serde(flatten)]
    pub object: Object,
}

/// A file that is not kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Wanted {
    /// What it is called.
    pub name: String,
    /// Its size in bytes, as it was told.
    pub bytes: u64,
    /// Why it is not to be had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// A list as GitHub's API has it, as lines of JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    /// Its objects; a later line of the same id counts.
    pub objects: Vec<Object>,
    /// When the newest of what they have was changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<String>,
    /// Which items were changed then, and cannot have been changed again in the same second.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub last: BTreeSet<u64>,
    /// The number of the pull request up to which it is read, as long as it is not read to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upto: Option<u64>,
}

impl From<Uploaded> for Object {
    fn from(Uploaded { key, bytes, sha256 }: Uploaded) -> Self {
        Self { key, bytes, sha256 }
    }
}

impl Entry {
    /// The lists of files beside it.
    pub(crate) fn lists_of_files(&self) -> impl Iterator<Item = &Object> {
        [&self.lfs, &self.assets].into_iter().flatten().filter_map(|files| files.list.as_ref())
    }

    /// Whether it has just what another one has.
    pub(crate) fn has_same(&self, other: &Self) -> bool {
        self.zip == other.zip && (&self.git, &self.wiki) == (&other.git, &other.wiki) && self.has_same_beside_git(other)
    }

    /// Whether it has just the same files, issues and so on.
    pub(crate) fn has_same_beside_git(&self, other: &Self) -> bool {
        (&self.lfs, &self.assets) == (&other.lfs, &other.assets) && self.lists == other.lists
    }

    /// Whether a name is or was this repository's.
    pub(crate) fn is_called(&self, name: &str) -> bool {
        let mut names = self.formerly.iter().chain([&self.listed.full_name]);
        names.any(|known| known.eq_ignore_ascii_case(name)) || self.listed.id.to_string() == name
    }

    /// How many bytes the backup has of it, but for the files that lists name.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.objects().map(|object| object.bytes).sum()
    }

    /// The objects that the backup has of it, but for those that lists of files name.
    pub(crate) fn objects(&self) -> impl Iterator<Item = &Object> {
        let mirrors = [&self.git, &self.wiki].into_iter().flatten().flat_map(|mirror| &mirror.bundles);
        let lines = self.lists.values().flat_map(|list| &list.objects);
        self.zip.iter().map(|zip| &zip.object).chain(mirrors).chain(self.lists_of_files()).chain(lines)
    }
}

impl Manifest {
    /// The backup's repository of this name, today's or a former one, or number. One that is gone may have had the name of another
    /// that is there.
    pub(crate) fn find(&self, name: &str) -> Option<&Entry> {
        let is_there = |entry: &&Entry| !matches!(entry.status, Status::Gone | Status::Excluded);
        let is_it = |entry: &&Entry| entry.listed.full_name.eq_ignore_ascii_case(name);
        let all = || self.repositories.iter();
        let by_name = all().filter(is_there).find(is_it).or_else(|| all().find(is_it));
        by_name.or_else(|| all().find(|entry| entry.is_called(name)))
    }

    /// Takes these repositories, and says whether anything of them failed.
    pub(crate) fn fill(&mut self, entries: BTreeMap<u64, Entry>) {
        self.repositories = entries.into_values().collect();
        self.repositories.sort_by(|one, other| one.listed.full_name.cmp(&other.listed.full_name));
        let lacks = |entry: &Entry| matches!(entry.status, Status::Failed | Status::Skipped);
        self.complete = self.lacks.is_empty() && !self.repositories.iter().any(lacks);
    }

    /// Whether nothing is missing of the repositories that were asked for.
    #[must_use]
    pub fn has_all_asked_for(&self) -> bool {
        let is_asked_for = |entry: &Entry| self.only.iter().any(|name| entry.is_called(name));
        match self.only.is_empty() {
            true => self.complete,
            false => {
                self.repositories.iter().filter(|entry| is_asked_for(entry)).all(|entry| entry.problems.is_empty())
            }
        }
    }

    /// How many repositories have this status.
    #[must_use]
    pub fn count(&self, status: Status) -> usize {
        self.repositories.iter().filter(|entry| entry.status == status).count()
    }

    /// Reads the manifest of a number.
    pub(crate) async fn read(account: &Account, number: u64) -> Result<Option<Self>, Error> {
        #[derive(Deserialize)]
        struct Form {
            format: u64,
        }
        let key = key(account, number);
        let Some(text) = account.store.get(&key).await? else { return Ok(None) };
        let wrong = |why: String| Error::Document { key: key.clone(), why };
        let form: Form = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        if form.format > FORMAT {
            let why =
                format!("it has the form {}, which is newer than this program: bring backup up to date", form.format);
            return Err(wrong(why));
        }
        serde_json::from_slice(&text).map(Some).map_err(|error| wrong(error.to_string()))
    }

    /// The numbers of the backups that are there, in their order.
    pub(crate) async fn numbers(account: &Account) -> Result<Vec<u64>, Error> {
        let folder = account.key("backups/");
        let keys = account.store.list(&folder, "", usize::MAX).await?;
        Ok(keys.iter().filter_map(|key| key.strip_prefix(&folder)?.strip_suffix(".json")?.parse().ok()).collect())
    }

    /// The newest backup.
    pub(crate) async fn newest(account: &Account) -> Result<Option<Self>, Error> {
        match Self::numbers(account).await?.last() {
            Some(number) => Self::read(account, *number).await,
            None => Ok(None),
        }
    }

    /// The newest backup of all repositories, among those of these numbers.
    pub(crate) async fn newest_whole(account: &Account, numbers: &[u64]) -> Result<Option<Self>, Error> {
        for number in numbers.iter().rev() {
            let found = Self::read(account, *number).await?;
            if found.as_ref().is_some_and(|manifest| manifest.only.is_empty()) {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Writes it, if no other run has its number: whether it did.
    pub(crate) async fn write(&self, account: &Account) -> Result<bool, Error> {
        let key = key(account, self.backup);
        let text =
            serde_json::to_vec(self).map_err(|error| Error::Document { key: key.clone(), why: error.to_string() })?;
        Ok(account.store.create(&key, text).await?)
    }
}

fn key(account: &Account, number: u64) -> String {
    account.key(&format!("backups/{number:012}.json"))
}

/// The lines of a list of files.
pub(crate) async fn files(store: &Store, list: &Object) -> Result<Vec<File>, Error> {
    let damaged = |why: String| Error::Damaged { key: list.key.clone(), why };
    let text = store.get(&list.key).await?.ok_or_else(|| damaged("it is not there".into()))?;
    if blackwater_base::store::sha256(&text) != list.sha256 {
        return Err(damaged("its checksum differs".into()));
    }
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).map_err(|error| damaged(error.to_string()))).collect()
}
