//! What a backup has of a repository, back on this machine.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::account::Account;
use crate::error::Error;
use crate::manifest::{self, Entry, Files, List, Manifest};
use crate::repository;
use crate::run::Backup;

impl Backup {
    /// Restores a repository from a backup, the newest if none is named, into a folder that is empty or not there. What was made in it.
    ///
    /// # Errors
    /// If there is nothing of it, or what there is is damaged; then the folder stays as it was.
    pub async fn restore(&self, name: &str, at: Option<u64>, folder: &Path) -> Result<Vec<PathBuf>, Error> {
        let failed = |error: std::io::Error| Error::File { path: folder.display().to_string(), why: error.to_string() };
        if fs::read_dir(folder).is_ok_and(|mut files| files.next().is_some()) || folder.is_file() {
            return Err(Error::NotEmpty { folder: folder.display().to_string() });
        }
        let account = self.place().await?;
        let manifest = self.backup(&account, at).await?;
        let place = || format!("backup {} of {}", manifest.backup, account.address());
        let entry = manifest.find(name).ok_or_else(|| Error::Unknown { name: name.into(), place: place() })?;
        if entry.objects().next().is_none() {
            let why = match entry.problems.first() {
                Some(problem) => problem.why.clone(),
                None => "it had no commit".into(),
            };
            return Err(Error::Nothing { backup: manifest.backup, name: name.into(), why });
        }
        let is_there = folder.exists();
        fs::create_dir_all(folder).map_err(failed)?;
        // First beside what is to be: what fails leaves nothing.
        let made = tempfile::Builder::new().prefix(".restoring-").tempdir_in(folder).map_err(failed)?;
        let names = match into(&account, entry, made.path()).await {
            Ok(names) => names,
            Err(error) => {
                drop(made);
                if !is_there {
                    let _ = fs::remove_dir(folder);
                }
                return Err(error);
            }
        };
        for name in &names {
            fs::rename(made.path().join(name), folder.join(name)).map_err(failed)?;
        }
        Ok(names.into_iter().map(|name| folder.join(name)).collect())
    }

    /// The backups that are there, in their order; or why one cannot be read.
    ///
    /// # Errors
    /// If the bucket cannot be read.
    pub async fn list(&self) -> Result<Vec<Result<Manifest, Error>>, Error> {
        let account = self.place().await?;
        let mut found = Vec::new();
        for number in Manifest::numbers(&account).await? {
            found.extend(Manifest::read(&account, number).await.transpose());
        }
        Ok(found)
    }

    /// A backup, the newest if none is named.
    ///
    /// # Errors
    /// If there is none, or it cannot be read.
    pub async fn read(&self, at: Option<u64>) -> Result<Manifest, Error> {
        self.backup(&self.place().await?, at).await
    }

    /// A backup, the newest if none is named.
    pub(crate) async fn backup(&self, account: &Account, at: Option<u64>) -> Result<Manifest, Error> {
        let found = match at {
            Some(number) => Manifest::read(account, number).await?,
            None => Manifest::newest(account).await?,
        };
        let number = at.map_or("of any number".into(), |number| number.to_string());
        found.ok_or_else(|| Error::NoBackup { number, place: account.address() })
    }
}

/// Restores all that there is into a folder; the names of what was made.
async fn into(account: &Account, entry: &Entry, folder: &Path) -> Result<Vec<String>, Error> {
    let short = entry.listed.full_name.rsplit('/').next().unwrap_or_default();
    let mut names = Vec::new();
    if let Some(git) = &entry.git {
        let name = format!("{short}.git");
        repository::rebuild(&account.store, git, &folder.join(&name)).await?;
        if let Some(lfs) = &entry.lfs {
            // As git-lfs keeps them in a bare repository.
            let place = |oid: &str| format!("{name}/lfs/objects/{}/{}/{oid}", &oid[..2], &oid[2..4]);
            files(account, lfs, folder, place).await?;
        }
        names.push(name);
    }
    if let Some(wiki) = &entry.wiki {
        let name = format!("{short}.wiki.git");
        repository::rebuild(&account.store, wiki, &folder.join(&name)).await?;
        names.push(name);
    }
    if let Some(zip) = &entry.zip {
        let name = format!("{short}.zip");
        account.store.download(&zip.object.key, &zip.object.sha256, &folder.join(&name)).await?;
        names.push(name);
    }
    for (name, list) in entry.lists.iter().filter(|(_, list)| !list.objects.is_empty()) {
        let name = format!("{name}.jsonl");
        lines(account, list, &folder.join(&name)).await?;
        names.push(name);
    }
    if let Some(assets) = entry.assets.as_ref().filter(|assets| assets.list.is_some()) {
        let name = |asset: &str| format!("assets/{}", asset.replace(['/', '\\'], "_"));
        files(account, assets, folder, name).await?;
        names.push("assets".into());
    }
    Ok(names)
}

async fn files(account: &Account, files: &Files, folder: &Path, place: impl Fn(&str) -> String) -> Result<(), Error> {
    let Some(list) = &files.list else { return Ok(()) };
    for file in manifest::files(&account.store, list).await? {
        let path = folder.join(place(&file.name));
        let failed = |error: std::io::Error| Error::File { path: path.display().to_string(), why: error.to_string() };
        fs::create_dir_all(path.parent().unwrap_or(folder)).map_err(failed)?;
        account.store.download(&file.object.key, &file.object.sha256, &path).await?;
    }
    Ok(())
}

/// Writes the last state of each item of a list.
async fn lines(account: &Account, list: &List, path: &Path) -> Result<(), Error> {
    #[derive(Deserialize)]
    struct Item {
        #[serde(default)]
        id: u64,
    }
    let failed = |error: std::io::Error| Error::File { path: path.display().to_string(), why: error.to_string() };
    let mut last = BTreeMap::new();
    for object in &list.objects {
        let damaged = |why: String| Error::Damaged { key: object.key.clone(), why };
        let compressed = tempfile::NamedTempFile::new().map_err(failed)?;
        account.store.download(&object.key, &object.sha256, compressed.path()).await?;
        let reader = fs::File::open(compressed.path()).and_then(zstd::Decoder::new);
        for line in BufReader::new(reader.map_err(failed)?).lines() {
            let line = line.map_err(|error| damaged(error.to_string()))?;
            let item: Item = serde_json::from_str(&line).map_err(|error| damaged(error.to_string()))?;
            last.insert(item.id, line);
        }
    }
    let mut file = fs::File::create(path).map_err(failed)?;
    for line in last.values() {
        writeln!(file, "{line}").map_err(failed)?;
    }
    Ok(())
}
