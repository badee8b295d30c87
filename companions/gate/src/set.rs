//! The files of an upload, as they are now.

use std::time::SystemTime;

use blackwater_base::store::{Head, Listed, Store, hex};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::layout::Place;
use crate::state;

/// The files of an upload, as they are now.
#[derive(Clone, Debug)]
pub(crate) struct Set {
    /// The files, by key.
    pub(crate) files: Vec<(String, Head)>,
    /// What tells these files from any others. The same bytes under the same key are the same file.
    pub(crate) fingerprint: String,
    /// When the newest of them was written.
    pub(crate) newest: SystemTime,
}

/// The report's name, in the folder of an upload.
pub(crate) const REPORT: &str = "report.json";

impl Set {
    /// The files of an upload: what is in its folder itself, for folders below it are uploads of their own. What has the name of
    /// something that the gate writes beside them is no file of it.
    pub(crate) async fn of(drop: &Store, place: &Place) -> Result<Self, Error> {
        let folder = format!("{}/", place.prefix);
        let listed = drop.listed(&folder, "", usize::MAX).await?;
        let is_file = |object: &Listed| {
            let name = &object.key[folder.len()..];
            !name.is_empty() && !name.contains('/') && ![REPORT, state::NAME].contains(&name)
        };
        let mut files = Vec::new();
        let (mut newest, mut hash) = (SystemTime::UNIX_EPOCH, Sha256::new());
        for object in listed.into_iter().filter(is_file) {
            let head = match object.etag {
                Some(etag) => Head { bytes: object.bytes, etag },
                None => match drop.head(&object.key).await? {
                    Some(head) => head,
                    // It is gone by now.
                    None => continue,
                },
            };
            newest = newest.max(object.written);
            hash.update(json!([object.key, head.etag, head.bytes]).to_string());
            files.push((object.key, head));
        }
        Ok(Self { files, fingerprint: hex(&hash.finalize()), newest })
    }
}
