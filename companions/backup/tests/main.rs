//! What is kept of an account, what comes back of it, and what is found when it is damaged.

#![allow(missing_docs, clippy::unwrap_used)]

mod faults;
mod keeping;
mod mirrors;
mod program;
mod verifying;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use backup::config::Config;
use backup::manifest::{Entry, Manifest, Status};
use backup::services::{Services, TOKEN, git};
use backup::{AGENT, Backup, Outcome, Request};
use blackwater_base::deadline::Deadline;
use blackwater_base::store::{Store, client};
use blackwater_http::Http;
use blackwater_local::s3::{ACCESS_KEY, S3, SECRET_KEY};

/// An account, and the bucket that it is kept in.
struct World {
    github: Services,
    backup: Backup,
    store: Store,
    s3: S3,
    folder: tempfile::TempDir,
}

impl World {
    /// One with these settings.
    async fn with(settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let s3 = S3::start(folder.path(), &["backups"]).await.unwrap();
        let github = Services::start().await.unwrap();
        let client = client(Some(&s3.endpoint()), Some((ACCESS_KEY, SECRET_KEY))).await;
        let store = Store::new(client.clone(), "backups", "bucket");
        let config = config(&github, settings);
        let backup = Backup::new(config, client, Http::new(AGENT).unwrap());
        Self { github, backup, store, s3, folder }
    }

    async fn mirroring() -> Self {
        Self::with(&[("MODE", "mirror")]).await
    }

    /// The same bucket and account, with other settings.
    async fn again(&self, settings: &[(&str, &str)]) -> Backup {
        let client = client(Some(&self.s3.endpoint()), Some((ACCESS_KEY, SECRET_KEY))).await;
        Backup::new(config(&self.github, settings), client, Http::new(AGENT).unwrap())
    }

    async fn run(&self) -> Manifest {
        made(self.backup.run(&Request::default(), within(120)).await.unwrap())
    }

    /// The requests since the last time this was asked.
    fn calls(&self) -> Vec<String> {
        let mut known = self.github.known();
        assert_eq!(known.faults, Vec::<String>::new());
        std::mem::take(&mut known.calls)
    }

    /// Restores a repository; where.
    async fn restored(&self, name: &str, at: Option<u64>) -> PathBuf {
        let folder = self.folder.path().join(format!("restored-{}", uuid()));
        self.backup.restore(name, at, &folder).await.unwrap();
        folder
    }

    /// Makes sure that what comes back of a repository is what git knows of it, or knew.
    async fn comes_back(&self, name: &str, at: Option<u64>, refs: &BTreeMap<String, String>) {
        let folder = self.restored(name, at).await;
        let path = folder.join(format!("{}.git", name.rsplit('/').next().unwrap()));
        assert_eq!(&refs_of(&path), refs, "{name} of backup {at:?}");
        git(&path, &["fsck", "--full", "--strict"]).unwrap();
    }

    /// The keys in the bucket.
    async fn keys(&self) -> Vec<String> {
        self.store.list("", "", 100_000).await.unwrap()
    }

    /// Where an object's file is.
    fn file(&self, key: &str) -> PathBuf {
        self.folder.path().join("backups").join(key)
    }
}

/// Bytes that cannot be compressed.
fn noise(bytes: usize, mut seed: u64) -> Vec<u8> {
    let next = |seed: &mut u64| {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        seed.to_le_bytes()
    };
    let mut made = Vec::with_capacity(bytes + 8);
    while made.len() < bytes {
        made.extend_from_slice(&next(&mut seed));
    }
    made
}

fn uuid() -> String {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos().to_string()
}

fn config(github: &Services, settings: &[(&str, &str)]) -> Config {
    let (api, git) = (github.api(), github.git());
    let own = [("BUCKET", "backups"), ("TOKEN", TOKEN), ("API", &api), ("GIT", &git), ("CALLS_PER_MINUTE", "900")];
    let all: BTreeMap<_, _> = own.into_iter().chain(settings.iter().copied()).collect();
    let variables = all.into_iter().map(|(name, value)| (format!("BACKUP_{name}"), value.to_owned()));
    let empty = tempfile::NamedTempFile::new().unwrap();
    Config::read(Some(empty.path()), variables).unwrap()
}

fn within(seconds: u64) -> Deadline {
    Deadline::at(SystemTime::now() + Duration::from_secs(seconds))
}

fn made(outcome: Outcome) -> Manifest {
    match outcome {
        Outcome::Made(manifest) => manifest,
        other => panic!("no backup: {other:?}"),
    }
}

/// What became of a repository.
fn of<'m>(manifest: &'m Manifest, name: &str) -> &'m Entry {
    manifest.repositories.iter().find(|entry| entry.listed.full_name == name).unwrap()
}

fn status(manifest: &Manifest, name: &str) -> Status {
    of(manifest, name).status
}

/// The refs of a repository on this machine, with what `HEAD` is.
fn refs_of(path: &Path) -> BTreeMap<String, String> {
    let lines = git(path, &["for-each-ref", "--format=%(refname) %(objectname) %(*objectname)"]).unwrap();
    let mut refs: BTreeMap<_, _> = lines
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(name, hash)| (name.to_owned(), hash.trim_end().to_owned()))
        .collect();
    refs.insert("HEAD".into(), std::fs::read_to_string(path.join("HEAD")).unwrap().trim_end().to_owned());
    refs
}
