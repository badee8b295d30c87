//! Whether all that a backup says it has is there, and is what it was.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use blackwater_base::store::{self, Store, hex};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;

use crate::account::Account;
use crate::error::Error;
use crate::manifest::{self, Entry, Manifest, Mirror, Object};
use crate::progress::Progress;
use crate::repository::{self, RETRIES};
use crate::run::Backup;

/// How many objects are read at once.
const AT_ONCE: usize = 8;

/// What was found of a backup.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Verified {
    /// The backup.
    pub backup: u64,
    /// How many objects were read.
    pub objects: usize,
    /// Their bytes.
    pub bytes: u64,
    /// How many git objects were found by following refs; with `--deep` alone.
    pub git_objects: usize,
    /// What is wrong.
    pub damage: Vec<Damage>,
    /// Objects that no backup has: of runs that were killed or beaten, or of somebody else.
    pub strays: Vec<String>,
    /// The repositories that the backup has not got in full, and why.
    pub incomplete: Vec<String>,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Damage {
    /// The repository.
    pub repository: String,
    /// The object.
    pub key: String,
    /// What is wrong with it.
    pub why: String,
}

impl Backup {
    /// Reads all that a backup has, the newest if none is named, and compares it with what the manifest says. `is_deep` is whether it
    /// is unpacked too: each git object, and whether refs lead to something missing; each file of an archive; each line of a list.
    ///
    /// # Errors
    /// If the manifest cannot be read, or the bucket fails.
    pub async fn verify(&self, at: Option<u64>, is_deep: bool) -> Result<Verified, Error> {
        let account = self.place().await?;
        let manifest = self.backup(&account, at).await?;
        let mut verified = Verified { backup: manifest.backup, ..Verified::default() };
        let (mut objects, mut unread) = (BTreeMap::new(), Vec::new());
        for entry in &manifest.repositories {
            let name = &entry.listed.full_name;
            objects.extend(entry.objects().map(|object| (object.clone(), name.clone())));
            for list in entry.lists_of_files() {
                match manifest::files(&account.store, list).await {
                    Ok(files) => objects.extend(files.into_iter().map(|file| (file.object, name.clone()))),
                    Err(error) => unread.push(Damage {
                        repository: name.clone(),
                        key: list.key.clone(),
                        why: format!("it cannot be read, nor what it lists: {error}"),
                    }),
                }
            }
            let beside = [&entry.lfs, &entry.assets].into_iter().flatten();
            let missing = beside.flat_map(|files| files.missing.iter().chain(&files.waiting));
            let missing =
                missing.map(|one| format!("{name}: {}: {}", one.name, one.why.as_deref().unwrap_or_default()));
            let problems = entry.problems.iter().map(|problem| format!("{name}: {}: {}", problem.part, problem.why));
            verified.incomplete.extend(problems.chain(missing));
        }
        verified.objects = objects.len();
        verified.bytes = objects.keys().map(|object| object.bytes).sum();
        verified.incomplete.extend(manifest.lacks.iter().cloned());
        let store = &account.store;
        let looked = objects.into_iter().map(async |(object, repository)| {
            let why = fault_of(store, &object).await?;
            Ok::<_, Error>(why.map(|why| Damage { repository, key: object.key, why }))
        });
        verified.damage = stream::iter(looked)
            .map(Box::pin)
            .buffer_unordered(AT_ONCE)
            .try_filter_map(async |damage| Ok(damage))
            .try_collect()
            .await?;
        if is_deep {
            // What was found damaged needs no second look.
            let known: BTreeSet<_> = verified.damage.iter().map(|damage| damage.key.clone()).collect();
            for entry in &manifest.repositories {
                deep(store, entry, &known, &mut verified).await?;
            }
        }
        let found: BTreeSet<_> = verified.damage.iter().map(|damage| damage.key.clone()).collect();
        verified.damage.extend(unread.into_iter().filter(|damage| !found.contains(&damage.key)));
        verified.damage.sort();
        verified.strays = strays(&account).await?;
        Ok(verified)
    }
}

/// What is wrong with an object.
async fn fault_of(store: &Store, object: &Object) -> Result<Option<String>, Error> {
    let mut tries = 0;
    loop {
        match read(store, object).await {
            Ok(found) => return Ok(found),
            Err(_) if tries < RETRIES => tries += 1,
            Err(Unread::Store(error @ store::Error::NoBucket { .. })) => return Err(error.into()),
            Err(why) => return Ok(Some(format!("it cannot be read to its end: {why}"))),
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Unread {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

async fn read(store: &Store, object: &Object) -> Result<Option<String>, Unread> {
    let Some(head) = store.head(&object.key).await? else { return Ok(Some("it is not there".into())) };
    if head.bytes != object.bytes {
        return Ok(Some(format!("it has {} bytes in place of {}", head.bytes, object.bytes)));
    }
    let Some(body) = store.read(&object.key, &head.etag).await? else { return Ok(Some("it is not there".into())) };
    let (mut body, mut hash, mut buffer) = (Box::pin(body), Sha256::new(), vec![0; 64 << 10]);
    loop {
        match body.read(&mut buffer).await? {
            0 => return Ok((hex(&hash.finalize()) != object.sha256).then(|| "its checksum differs".into())),
            read => hash.update(&buffer[..read]),
        }
    }
}

/// Unpacks what a backup has of a repository.
async fn deep(store: &Store, entry: &Entry, known: &BTreeSet<String>, verified: &mut Verified) -> Result<(), Error> {
    let repository = &entry.listed.full_name;
    let damage = |key: &str, why: String| Damage { repository: repository.clone(), key: key.into(), why };
    let is_sound = |object: &&Object| !known.contains(&object.key);
    for mirror in [&entry.git, &entry.wiki].into_iter().flatten() {
        if !mirror.bundles.iter().all(|object| is_sound(&object)) {
            continue;
        }
        match unpacked(store, mirror).await {
            Ok(objects) => verified.git_objects += objects,
            Err(Error::Damaged { key, why }) => verified.damage.push(damage(&key, why)),
            Err(error) => return Err(error),
        }
    }
    let archive = entry.zip.iter().map(|zip| (&zip.object, opened as fn(&Path) -> Result<(), String>));
    let lists = entry
        .lists
        .values()
        .flat_map(|list| &list.objects)
        .map(|object| (object, parsed as fn(&Path) -> Result<(), String>));
    for (object, look) in archive.chain(lists).filter(|(object, _)| is_sound(object)) {
        let file = tempfile::NamedTempFile::new().map_err(|error| temporary(&error))?;
        store.download(&object.key, &object.sha256, file.path()).await?;
        let (path, key) = (file.path().to_owned(), object.key.clone());
        let looked = tokio::task::spawn_blocking(move || look(&path)).await.map_err(|error| error.to_string());
        if let Err(why) = looked.and_then(|looked| looked) {
            verified.damage.push(damage(&key, why));
        }
    }
    Ok(())
}

async fn unpacked(store: &Store, mirror: &Mirror) -> Result<usize, Error> {
    let folder = tempfile::tempdir().map_err(|error| temporary(&error))?;
    repository::rebuild(store, mirror, folder.path()).await?;
    let (path, refs) = (folder.path().to_owned(), mirror.refs.clone());
    let walked =
        tokio::task::spawn_blocking(move || repository::walk(&path, &refs)).await.map_err(|error| error.to_string());
    let key = mirror.bundles.last().map(|object| object.key.clone()).unwrap_or_default();
    walked.and_then(|walked| walked).map_err(|why| Error::Damaged { key, why })
}

/// Whether all files of an archive can be read: their checksums are compared.
fn opened(path: &Path) -> Result<(), String> {
    let open = || -> Result<(), Box<dyn std::error::Error>> {
        let mut archive = zip::ZipArchive::new(std::io::BufReader::new(std::fs::File::open(path)?))?;
        for number in 0..archive.len() {
            std::io::copy(&mut archive.by_index(number)?, &mut std::io::sink())?;
        }
        Ok(())
    };
    open().map_err(|error| format!("it cannot be unzipped: {error}"))
}

/// Whether all lines of a list can be read.
fn parsed(path: &Path) -> Result<(), String> {
    use std::io::BufRead;
    let open = || -> Result<(), Box<dyn std::error::Error>> {
        for line in std::io::BufReader::new(zstd::Decoder::new(std::fs::File::open(path)?)?).lines() {
            serde_json::from_str::<serde::de::IgnoredAny>(&line?)?;
        }
        Ok(())
    };
    open().map_err(|error| format!("its lines cannot be read: {error}"))
}

/// The objects that no backup has, nor a run that has not ended.
async fn strays(account: &Account) -> Result<Vec<String>, Error> {
    let numbers = Manifest::numbers(account).await?;
    let mut known = BTreeSet::new();
    for number in &numbers {
        for entry in Manifest::read(account, *number).await?.iter().flat_map(|manifest| &manifest.repositories) {
            note(account, entry, &mut known).await;
        }
    }
    let running = Progress::read(account, numbers.last().map_or(1, |newest| newest + 1)).await?;
    for entry in running.entries.values() {
        note(account, entry, &mut known).await;
    }
    let keys = account.store.list(&account.prefix, "", usize::MAX).await?;
    let is_known = |key: &String| {
        let rest = &key[account.prefix.len()..];
        let is_about = ["backups/", "running/"].iter().any(|folder| rest.starts_with(folder));
        is_about || rest.ends_with("/metadata.json") || known.contains(key)
    };
    Ok(keys.into_iter().filter(|key| !is_known(key)).collect())
}

async fn note(account: &Account, entry: &Entry, known: &mut BTreeSet<String>) {
    for list in entry.lists_of_files().filter(|list| !known.contains(&list.key)).collect::<Vec<_>>() {
        // One that cannot be read is damage, and found as that.
        let files = manifest::files(&account.store, list).await.unwrap_or_default();
        known.extend(files.into_iter().map(|file| file.object.key));
    }
    known.extend(entry.objects().map(|object| object.key.clone()));
}

fn temporary(error: &std::io::Error) -> Error {
    Error::File { path: std::env::temp_dir().display().to_string(), why: error.to_string() }
}
