//! Files beside a repository: LFS objects, and those of releases. Each is kept once for all backups.

use std::collections::{BTreeMap, BTreeSet};

use blackwater_base::store::sha256;
use blackwater_http::header::{HeaderMap, HeaderName, HeaderValue};
use blackwater_http::{Method, Stream, Url};
use futures_util::{StreamExt, stream};
use serde::Deserialize;
use serde_json::json;

use crate::error::Error;
use crate::fault::Fault;
use crate::git::Remote;
use crate::manifest::{self, File, Files, Object, Wanted};
use crate::run::Run;

/// How many files are read at once.
const AT_ONCE: usize = 4;
/// How many LFS objects are asked for at once.
/// <https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md>
const BATCH: usize = 100;

/// Notes files that are to be kept, and are not yet; in a full run, all of them.
pub(crate) async fn want(
    run: &Run<'_>,
    known: Option<&Files>,
    wanted: impl Iterator<Item = Wanted>,
) -> Result<Files, Fault> {
    let mut files = known.cloned().unwrap_or_default();
    let kept = kept(run, &files).await?;
    let kept: BTreeSet<_> = kept.iter().map(|file| file.name.as_str()).collect();
    let mut waiting: BTreeSet<_> = std::mem::take(&mut files.waiting).into_iter().collect();
    waiting.extend(std::mem::take(&mut files.missing).into_iter().map(|one| Wanted { why: None, ..one }));
    waiting.extend(wanted.filter(|one| run.is_full || !kept.contains(one.name.as_str())));
    files.waiting = waiting.into_iter().collect();
    Ok(files)
}

async fn kept(run: &Run<'_>, files: &Files) -> Result<Vec<File>, Fault> {
    let Some(list) = &files.list else { return Ok(Vec::new()) };
    match manifest::files(&run.account.store, list).await {
        // It is made anew.
        Err(Error::Damaged { .. }) if run.is_full => Ok(Vec::new()),
        read => Ok(read?),
    }
}

/// What became of a file.
enum Read {
    Kept(File),
    Missing(Wanted),
    Waiting(Wanted, Fault),
}

/// Reads LFS objects.
pub(crate) async fn lfs(run: &Run<'_>, id: u64, remote: &Remote<'_>, files: Files, list: String) -> Outcome {
    let mut read = Vec::new();
    for batch in files.waiting.chunks(BATCH) {
        let places = match places(run, remote, batch).await {
            Ok(places) => places,
            Err(fault) => {
                let mut waiting = files.waiting[read.len()..].iter().cloned();
                read.extend(waiting.next().map(|one| Read::Waiting(one, fault)));
                read.extend(waiting.map(|one| Read::Waiting(one, Fault::form("it was not asked for"))));
                break;
            }
        };
        let objects = batch.iter().map(|one| lfs_object(run, id, one.clone(), places.get(&one.name)));
        read.extend(stream::iter(objects).buffered(AT_ONCE).collect::<Vec<_>>().await);
    }
    settle(run, files, read, list).await
}

async fn lfs_object(run: &Run<'_>, id: u64, one: Wanted, place: Option<&Result<Place, Refusal>>) -> Read {
    let key = run.account.key(&format!("repositories/{id}/lfs/{}/{}", &one.name[..2], one.name));
    // Under the hash of its content: what is there is it, if it is as long.
    match run.account.store.head(&key).await {
        Ok(Some(head)) if head.bytes == one.bytes && !run.is_full => {
            let object = Object { key, bytes: one.bytes, sha256: one.name.clone() };
            return Read::Kept(File { name: one.name, object });
        }
        Ok(_) => {}
        Err(error) => return Read::Waiting(one, error.into()),
    }
    let open = async || match place {
        Some(Ok(Place { url, headers })) => {
            let request = run.http.request(Method::GET, url.clone()).headers(headers.clone());
            Ok(run.http.open(request, run.deadline).await?)
        }
        Some(Err(refusal)) => Err(Fault::Form(format!("{} {}", refusal.code, refusal.message))),
        None => Err(Fault::form("the server does not say where it is")),
    };
    let is_missing = |fault: &Fault| match place {
        Some(Err(refusal)) => matches!(refusal.code, 404 | 410 | 422),
        _ => matches!(fault.status(), Some(404 | 410)),
    };
    let is_it = |object: &Object| object.sha256 == one.name;
    kept_or_not(run, key, open, is_it, one.clone(), is_missing).await
}

/// Reads files of releases.
pub(crate) async fn assets(run: &Run<'_>, id: u64, repository: &str, files: Files, list: String) -> Outcome {
    let objects = files.waiting.iter().cloned().map(|one| async move {
        let number = one.name.split(' ').next().unwrap_or_default().to_owned();
        let path = format!("repos/{repository}/releases/assets/{number}");
        let open = async || Ok(run.account.github.open(&path, "application/octet-stream", run.deadline).await?);
        let key = run.account.key(&format!("repositories/{id}/assets/{number}-{}", run.mark()));
        let is_missing = |fault: &Fault| matches!(fault.status(), Some(404 | 410));
        kept_or_not(run, key, open, |object| object.bytes == one.bytes, one.clone(), is_missing).await
    });
    let read = stream::iter(objects).buffered(AT_ONCE).collect().await;
    settle(run, files, read, list).await
}

/// The files as they are now, and why some are still to be read.
pub(crate) type Outcome = Result<(Files, Option<Fault>), Fault>;

async fn kept_or_not(
    run: &Run<'_>,
    key: String,
    open: impl AsyncFn() -> Result<Stream, Fault>,
    is_it: impl Fn(&Object) -> bool,
    wanted: Wanted,
    is_missing: impl Fn(&Fault) -> bool,
) -> Read {
    let mut tries = 0;
    loop {
        match keep(run, key.clone(), &open, &is_it).await {
            Ok(object) => return Read::Kept(File { name: wanted.name, object }),
            Err(fault) if is_missing(&fault) => {
                return Read::Missing(Wanted { why: Some(fault.to_string()), ..wanted });
            }
            // With a new link.
            Err(fault) if fault.is_broken_off() && tries == 0 => tries += 1,
            Err(fault) => return Read::Waiting(wanted, fault),
        }
    }
}

async fn keep(
    run: &Run<'_>,
    key: String,
    open: &impl AsyncFn() -> Result<Stream, Fault>,
    is_it: &impl Fn(&Object) -> bool,
) -> Result<Object, Fault> {
    let _turn = run.uploads.acquire().await;
    let mut content = open().await?;
    let mut upload = run.account.store.upload(key);
    while let Some(bytes) = content.chunk().await? {
        upload.write(&bytes).await?;
    }
    let (bytes, hash) = (upload.bytes(), upload.sha256());
    let object = Object { key: String::new(), bytes, sha256: hash };
    if !is_it(&object) {
        return Err(Fault::cut("one of its files"));
    }
    Ok(upload.finish().await?.into())
}

/// Writes the list of what is kept, if that is not what it was.
async fn settle(run: &Run<'_>, files: Files, read: Vec<Read>, list: String) -> Outcome {
    let mut lines: BTreeMap<_, _> =
        kept(run, &files).await?.into_iter().map(|file| (file.name.clone(), file)).collect();
    let before = lines.clone();
    let (waiting, missing) = (Vec::new(), Vec::new());
    let (mut settled, mut why): (_, Option<Fault>) = (Files { waiting, missing, ..files }, None);
    for one in read {
        match one {
            Read::Kept(file) => drop(lines.insert(file.name.clone(), file)),
            Read::Missing(wanted) => settled.missing.push(wanted),
            Read::Waiting(_, fault @ Fault::Store(_)) => return Err(fault),
            Read::Waiting(wanted, fault) => {
                settled.waiting.push(wanted);
                // That there is no time is told before all else: the next run goes on.
                if why.is_none() || fault.is_late() {
                    why = Some(fault);
                }
            }
        }
    }
    if lines != before {
        let mut text = Vec::new();
        for line in lines.values() {
            serde_json::to_writer(&mut text, line).map_err(|error| Fault::Form(error.to_string()))?;
            text.push(b'\n');
        }
        let object = Object { key: list, bytes: text.len() as u64, sha256: sha256(&text) };
        run.account.store.put(&object.key, text.into()).await?;
        settled.list = Some(object);
        settled.count = lines.len() as u64;
    }
    Ok((settled, why))
}

/// Where an LFS object is.
struct Place {
    url: Url,
    headers: HeaderMap,
}

/// Why there is no place of an LFS object.
#[derive(Deserialize)]
struct Refusal {
    code: u16,
    #[serde(default)]
    message: String,
}

/// Asks where LFS objects are.
async fn places(
    run: &Run<'_>,
    remote: &Remote<'_>,
    batch: &[Wanted],
) -> Result<BTreeMap<String, Result<Place, Refusal>>, Fault> {
    #[derive(Deserialize)]
    struct Answer {
        objects: Vec<Told>,
    }
    #[derive(Deserialize)]
    struct Told {
        oid: String,
        #[serde(default)]
        actions: Option<Actions>,
        #[serde(default)]
        error: Option<Refusal>,
    }
    #[derive(Deserialize)]
    struct Actions {
        download: Action,
    }
    #[derive(Deserialize)]
    struct Action {
        href: String,
        #[serde(default)]
        header: BTreeMap<String, String>,
    }
    const LFS: &str = "application/vnd.git-lfs+json";

    let objects: Vec<_> = batch.iter().map(|one| json!({ "oid": one.name, "size": one.bytes })).collect();
    let content = json!({ "operation": "download", "transfers": ["basic"], "objects": objects });
    let request = remote.lfs()?.header("accept", LFS).header("content-type", LFS).body(content.to_string());
    let answer = run.http.open(request, run.deadline).await?.whole().await?;
    let mut places = BTreeMap::new();
    for told in answer.json::<Answer>("a list of LFS objects")?.objects {
        let place = match (told.actions, told.error) {
            (Some(Actions { download }), _) => {
                let url =
                    Url::parse(&download.href).map_err(|_| Fault::form("the place of an LFS object is no address"))?;
                let header = |(name, value): (&String, &String)| {
                    let mut value = HeaderValue::from_str(value).ok()?;
                    value.set_sensitive(true);
                    Some((name.parse::<HeaderName>().ok()?, value))
                };
                Ok(Place { url, headers: download.header.iter().filter_map(header).collect() })
            }
            (None, Some(refusal)) => Err(refusal),
            (None, None) => continue,
        };
        places.insert(told.oid, place);
    }
    Ok(places)
}
