//! The files of an upload, as they are now.

use std::time::SystemTime;

use blackwater_base::store::{Head, Listed, Store, hex};
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::layout::Place;

/// The files of an upload, as they are now.
#[derive(Clone, Debug)]
pub(crate) struct Set {
    /// The files, by key.
    pub(crate) files: Vec<(String, Head)>,
    /// What tells these files from any others.
    pub(crate) fingerprint: String,
    /// When the newest of them was written.
    pub(crate) newest: SystemTime,
}

/// The files of an upload in a folder: what is in it itself, not in folders below, which are uploads of their own.
pub(crate) async fn of(drop: &Store, place: &Place) -> Result<Set, Error> {
    let folder = format!("{}/", place.prefix);
    let listed = drop.listed(&folder, "", usize::MAX).await?;
    let is_file = |object: &Listed| {
        let name = &object.key[folder.len()..];
        !name.is_empty() && !name.contains('/') && name != "report.json"
    };
    let (mut files, mut newest, mut hash) = (Vec::new(), SystemTime::UNIX_EPOCH, Sha256::new());
    for object in listed.into_iter().filter(is_file) {
        // It may be gone by now.
        let Some(head) = drop.head(&object.key).await? else { continue };
        newest = newest.max(object.written);
        let told = (&object.key, &head.etag, head.bytes, &head.version);
        hash.update(format!("{told:?}\n"));
        files.push((object.key, head));
    }
    Ok(Set { files, fingerprint: hex(&hash.finalize()), newest })
}
