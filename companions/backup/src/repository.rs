//! A bare repository on this machine, from its bundles.

use std::collections::HashSet;
use std::fmt::Write;
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use blackwater_base::store::{Store, hex};
use gix_hash::ObjectId;
use gix_object::tree::EntryRef;
use gix_object::{Exists, Find};
use gix_pack::Bundle;
use gix_pack::bundle::write::Options;
use gix_utils::progress::Discard;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio_util::io::SyncIoBridge;

use crate::error::Error;
use crate::git::{Ref, bundle};
use crate::manifest::{Mirror, Object};

const SHA1: gix_hash::Kind = gix_hash::Kind::Sha1;
/// How often an object that breaks off is read again.
pub(crate) const RETRIES: u32 = 2;

/// Makes a bare repository in an empty folder: with the objects of all bundles, and with just the refs that the mirror had.
pub(crate) async fn rebuild(store: &Store, mirror: &Mirror, folder: &Path) -> Result<(), Error> {
    let failed = |error: io::Error| Error::File { path: folder.display().to_string(), why: error.to_string() };
    let packs = folder.join("objects/pack");
    for made in [&packs, &folder.join("objects/info"), &folder.join("refs/heads"), &folder.join("refs/tags")] {
        fs::create_dir_all(made).map_err(failed)?;
    }
    for object in &mirror.bundles {
        index(store, object, &packs).await?;
    }
    let objects = gix_odb::at(folder.join("objects"), SHA1).map_err(failed)?;
    if let Some(lost) = mirror.refs.iter().find(|one| !id(&one.hash).is_some_and(|id| objects.exists(&id))) {
        let key = mirror.bundles.last().map(|object| object.key.clone()).unwrap_or_default();
        return Err(Error::Damaged { key, why: format!("{} has no object {}", lost.name, lost.hash) });
    }
    fs::write(folder.join("packed-refs"), packed(&mirror.refs)).map_err(failed)?;
    fs::write(folder.join("HEAD"), head(&mirror.refs)).map_err(failed)?;
    let config = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n";
    fs::write(folder.join("config"), config).map_err(failed)
}

/// <https://git-scm.com/docs/gitrepository-layout>
fn packed(refs: &[Ref]) -> String {
    let mut text = "# pack-refs with: peeled fully-peeled sorted \n".to_owned();
    for one in refs.iter().filter(|one| one.name != "HEAD") {
        let _ = writeln!(text, "{} {}", one.hash, one.name);
        if let Some(peeled) = &one.peeled {
            let _ = writeln!(text, "^{peeled}");
        }
    }
    text
}

fn head(refs: &[Ref]) -> String {
    match refs.iter().find(|one| one.name == "HEAD") {
        Some(Ref { target: Some(target), .. }) => format!("ref: {target}\n"),
        Some(Ref { hash, .. }) => format!("{hash}\n"),
        None => "ref: refs/heads/main\n".into(),
    }
}

/// Brings a bundle's pack to a folder, with an index: each of its objects is unpacked for that.
async fn index(store: &Store, object: &Object, folder: &Path) -> Result<(), Error> {
    let damaged = |why: String| Error::Damaged { key: object.key.clone(), why };
    let gone = || damaged("it is not there".into());
    let mut tries = 0;
    loop {
        let head = store.head(&object.key).await?.ok_or_else(gone)?;
        let body = store.read(&object.key, &head.etag).await?.ok_or_else(gone)?;
        let reader = SyncIoBridge::new_with_handle(Box::pin(body), Handle::current());
        let (wanted, folder) = (object.sha256.clone(), folder.to_owned());
        let indexed = tokio::task::spawn_blocking(move || index_from(reader, &wanted, &folder)).await;
        match indexed.map_err(|error| damaged(error.to_string()))? {
            Ok(()) => return Ok(()),
            Err(Unread::Damaged(why)) => return Err(damaged(why)),
            Err(Unread::Broken(_)) if tries < RETRIES => tries += 1,
            Err(Unread::Broken(why)) => return Err(damaged(format!("it cannot be read to its end: {why}"))),
        }
    }
}

/// Why a bundle is not unpacked.
enum Unread {
    /// It broke off while it was read.
    Broken(String),
    Damaged(String),
}

fn index_from(reader: impl Read, sha256: &str, folder: &Path) -> Result<(), Unread> {
    let mut reader = BufReader::with_capacity(64 << 10, Hashed { reader, hash: Sha256::new(), broken: None });
    let unpacked = unpack(&mut reader, folder);
    let Hashed { hash, broken, .. } = reader.into_inner();
    match (unpacked, broken) {
        (_, Some(why)) => Err(Unread::Broken(why)),
        (Err(why), None) => Err(Unread::Damaged(why)),
        (Ok(()), None) if hex(&hash.finalize()) != sha256 => Err(Unread::Damaged("its checksum differs".into())),
        (Ok(()), None) => Ok(()),
    }
}

fn unpack(reader: &mut impl BufRead, folder: &Path) -> Result<(), String> {
    bundle::skip_header(reader).map_err(|error| error.to_string())?;
    let options = Options::default();
    let none = None::<gix_object::find::Never>;
    let is_interrupted = AtomicBool::new(false);
    let written = Bundle::write_to_directory(reader, Some(folder), &mut Discard, &is_interrupted, none, SHA1, options)
        .map_err(|error| format!("its pack cannot be unpacked: {error}"))?;
    // What keeps git from removing a pack until refs are there.
    if let Some(keep) = written.keep_path {
        let _ = fs::remove_file(keep);
    }
    io::copy(reader, &mut io::sink()).map(drop).map_err(|error| error.to_string())
}

/// A reader that says what it read.
struct Hashed<R> {
    reader: R,
    hash: Sha256,
    /// Why it could not read on.
    broken: Option<String>,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer).inspect_err(|error| self.broken = Some(error.to_string()))?;
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}

/// Follows all that refs lead to: the number of objects, or what is missing.
pub(crate) fn walk(folder: &Path, refs: &[Ref]) -> Result<usize, String> {
    let objects = gix_odb::at(folder.join("objects"), SHA1).map_err(|error| error.to_string())?;
    let mut ahead: Vec<_> = refs.iter().filter_map(|one| id(&one.hash)).collect();
    let (mut seen, mut buffer) = (HashSet::new(), Vec::new());
    while let Some(id) = ahead.pop() {
        if !seen.insert(id) {
            continue;
        }
        let found = objects.try_find(&id, &mut buffer).map_err(|error| broken(id, &error))?;
        let found = found.ok_or_else(|| format!("the object {id} is missing"))?;
        match found.kind {
            gix_object::Kind::Blob => {}
            gix_object::Kind::Tag => ahead.extend(
                found.try_into_tag_iter().map(|tag| tag.target_id()).transpose().map_err(|error| broken(id, &error))?,
            ),
            gix_object::Kind::Commit => {
                let Some(mut commit) = found.try_into_commit_iter() else { continue };
                ahead.push(commit.tree_id().map_err(|error| broken(id, &error))?);
                ahead.extend(commit.parent_ids());
            }
            gix_object::Kind::Tree => {
                for entry in found.try_into_tree_iter().into_iter().flatten() {
                    let EntryRef { mode, oid, .. } = entry.map_err(|error| broken(id, &error))?;
                    if mode.is_tree() {
                        ahead.push(oid.to_owned());
                    } else if !mode.is_commit() && !objects.exists(oid) {
                        // A commit is that of another repository.
                        return Err(format!("the file {oid} is missing"));
                    }
                }
            }
        }
    }
    Ok(seen.len())
}

fn broken(id: ObjectId, error: &dyn std::fmt::Display) -> String {
    format!("the object {id} cannot be read: {error}")
}

fn id(hash: &str) -> Option<ObjectId> {
    ObjectId::from_hex(hash.as_bytes()).ok()
}
