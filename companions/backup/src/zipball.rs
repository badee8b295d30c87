//! A repository's files at one commit, as GitHub zips them.
//! <https://docs.github.com/en/rest/repos/contents#download-a-repository-archive-zip>

use crate::fault::Fault;
use crate::manifest::Zip;
use crate::run::Run;

/// The end of an archive with a comment of 40 bytes, which is the commit.
/// <https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT> 4.3.16
const END: usize = 22 + 40;

/// Sends an archive on to the bucket as it comes.
pub(crate) async fn zipball(run: &Run<'_>, repository: &str, name: &str, commit: &str) -> Result<Zip, Fault> {
    // The first of a date has the original's key; what is there is never written over.
    let plain = run.account.key(&format!("{}/{name}.zip", run.date));
    let other = run.account.key(&format!("{}/{name}-{}.zip", run.date, run.mark()));
    let is_free = run.account.store.head(&plain).await?.is_none();
    for key in [is_free.then_some(plain), Some(other)].into_iter().flatten() {
        if let Some(zip) = stream(run, repository, key, commit).await? {
            return Ok(zip);
        }
    }
    Err(Fault::form("another run writes its archive"))
}

async fn stream(run: &Run<'_>, repository: &str, key: String, commit: &str) -> Result<Option<Zip>, Fault> {
    // The hash, not the branch: then all that is kept is of one state.
    let path = format!("repos/{repository}/zipball/{commit}");
    let _turn = run.uploads.acquire().await;
    let mut archive = run.account.github.open(&path, "application/vnd.github+json", run.deadline).await?;
    let mut upload = run.account.store.upload(key);
    let mut end = Vec::new();
    while let Some(bytes) = archive.chunk().await? {
        upload.write(&bytes).await?;
        end.extend_from_slice(&bytes[bytes.len().saturating_sub(END)..]);
        end.drain(..end.len().saturating_sub(END));
    }
    let is_end = end.len() == END && end.starts_with(b"PK\x05\x06") && end[20..22] == 40u16.to_le_bytes();
    if !is_end {
        return Err(Fault::cut("its archive"));
    }
    if end[22..] != *commit.as_bytes() {
        return Err(Fault::form("its archive is of another commit than was asked for"));
    }
    let written = upload.finish_new().await?;
    Ok(written.map(|object| Zip { object: object.into(), commit: commit.into() }))
}
