//! The demo: a small account on a stand-in of GitHub, and a bucket, on this machine, gone when it ends.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, bail};
use backup::config::Config;
use backup::manifest::{Manifest, Status};
use backup::services::{Services, TOKEN, git};
use backup::{AGENT, Backup, Outcome, Request};
use blackwater_base::deadline::Deadline;
use blackwater_base::store::{Store, client};
use blackwater_http::Http;
use blackwater_local::s3::{ACCESS_KEY, S3, SECRET_KEY};
use serde_json::json;

const SHOP: &str = "acme/shop";

pub(crate) async fn run() -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("backup-demo-").tempdir()?;
    print("Starting an S3 server, and a GitHub stand-in with real git behind it, on this machine …\n")?;
    let s3 = S3::start(folder.path(), &["backups"]).await?;
    let github = Services::start().await?;
    account(&github).context("the demo needs git on this machine")?;
    let client = client(Some(&s3.endpoint()), Some((ACCESS_KEY, SECRET_KEY))).await;
    let store = Store::new(client.clone(), "backups", "bucket");
    let file = folder.path().join("backup.toml");
    std::fs::write(&file, settings(&github))?;
    let backup = Backup::new(Config::read(Some(&file), std::iter::empty())?, client, Http::new(AGENT)?);

    print("\n── The first backup\n")?;
    told(&made(&backup).await?)?;

    print(
        "\n── Meanwhile: a force-push rewrites the history of acme/shop, a branch is deleted, acme/till is renamed\n",
    )?;
    mishap(&github)?;
    print("\n── The second backup reads what is new\n")?;
    told(&made(&backup).await?)?;

    print("\n── Somebody changes a byte of a bundle in the bucket\n")?;
    let manifest = backup.read(None).await?;
    let art = manifest.repositories.iter().find(|entry| entry.listed.full_name == "acme/art");
    let key = art.and_then(|art| Some(art.git.as_ref()?.bundles.first()?.key.clone()));
    let key = key.context("acme/art is not kept; please report this")?;
    let sound = store.get(&key).await?.context("the bundle is not there; please report this")?;
    let mut bytes = sound.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    store.put(&key, bytes.into()).await?;
    for damage in backup.verify(None, false).await?.damage {
        print(&format!("  verify: {} of {}: {}\n", damage.key, damage.repository, damage.why))?;
    }
    store.put(&key, sound).await?;
    let verified = backup.verify(None, true).await?;
    let (objects, git_objects, damaged) = (verified.objects, verified.git_objects, verified.damage.len());
    print("  … and the good bytes are put back\n")?;
    print(&format!("  verify --deep: {objects} objects, {git_objects} git objects, {damaged} damaged\n"))?;

    print("\n── acme/shop is restored as it was at the first backup\n")?;
    let into = folder.path().join("restored");
    for path in backup.restore(SHOP, Some(1), &into).await? {
        print(&format!("  {}\n", path.strip_prefix(folder.path()).unwrap_or(&path).display()))?;
    }
    show(&into.join("shop.git"), &["log", "--oneline", "--graph", "--all", "--decorate"])?;
    let lost = git(&into.join("shop.git"), &["fsck", "--full", "--strict"])?;
    print(&format!("  git fsck --full: {}\n", if lost.is_empty() { "no problems" } else { &lost }))?;
    print("\nEverything that was started here is removed now.\n")
}

/// A shop with a wiki and an issue, a repository with a picture in LFS, an empty one, one that is blocked, and one to be renamed.
fn account(github: &Services) -> std::io::Result<()> {
    for (id, name) in [(1, SHOP), (2, "acme/art"), (3, "acme/empty"), (4, "acme/blocked"), (5, "acme/till")] {
        github.make(id, name)?;
    }
    for number in 1..=3 {
        github.commit(SHOP, "main", "stock.txt", format!("{number} apples\n").as_bytes())?;
    }
    github.commit(SHOP, "pears", "pears.txt", b"5 pears\n")?;
    git(&github.repository(SHOP), &["tag", "-a", "v1", "-m", "The first", "main"])?;
    let wiki = github.repository("acme/shop.wiki");
    std::fs::create_dir_all(&wiki)?;
    git(&wiki, &["init", "--quiet", "--bare", "--initial-branch=master", "."])?;
    github.commit("acme/shop.wiki", "master", "Home.md", b"# The shop\n")?;
    github.commit("acme/art", "main", "read.me", b"Pictures\n")?;
    github.commit_lfs("acme/art", "apple.png", &b"a large picture of an apple".repeat(1000))?;
    github.commit("acme/till", "main", "till.txt", b"0\n")?;
    let mut known = github.known();
    known.repositories[0]["has_wiki"] = true.into();
    known.refused.insert("acme/blocked".into(), (451, "Repository access blocked".into()));
    let issue = json!({ "id": 1, "number": 1, "title": "Out of pears", "updated_at": "2026-01-02T00:00:00Z" });
    known.lists.insert("acme/shop/issues".into(), vec![issue]);
    Ok(())
}

fn mishap(github: &Services) -> std::io::Result<()> {
    let path = github.repository(SHOP);
    let other = git(&path, &["commit-tree", "main^{tree}", "-m", "Begin anew"])?;
    git(&path, &["update-ref", "refs/heads/main", &other])?;
    git(&path, &["update-ref", "-d", "refs/heads/pears"])?;
    std::fs::rename(github.repository("acme/till"), github.repository("acme/checkout"))?;
    github.known().repositories[4]["full_name"] = "acme/checkout".into();
    Ok(())
}

async fn made(backup: &Backup) -> anyhow::Result<Manifest> {
    match backup.run(&Request::default(), Deadline::NONE).await? {
        Outcome::Made(manifest) => Ok(manifest),
        other => bail!("there is no backup but {other:?}; please report this"),
    }
}

/// What a backup has.
fn told(manifest: &Manifest) -> anyhow::Result<()> {
    for entry in &manifest.repositories {
        let bundles = entry.git.as_ref().map_or(0, |git| git.bundles.len());
        let what = match entry.status {
            Status::Done | Status::Unchanged => {
                let also = [
                    entry.wiki.as_ref().map(|_| ", a wiki".to_owned()),
                    entry.lfs.as_ref().filter(|lfs| lfs.count > 0).map(|lfs| format!(", {} LFS object", lfs.count)),
                    entry.lists.get("issues").filter(|list| !list.objects.is_empty()).map(|_| ", issues".to_owned()),
                    entry.formerly.first().map(|name| format!(", formerly {name}")),
                ];
                let plural = if bundles == 1 { "" } else { "s" };
                format!("{bundles} bundle{plural}{}", also.into_iter().flatten().collect::<String>())
            }
            _ => entry.problems.first().map(|problem| problem.why.clone()).unwrap_or_default(),
        };
        let status = entry.status.name();
        print(&format!("  {status:<10} {:<14} {what}\n", entry.listed.full_name))?;
    }
    Ok(())
}

fn show(path: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    for line in git(path, arguments)?.lines() {
        print(&format!("    {line}\n"))?;
    }
    Ok(())
}

fn settings(github: &Services) -> String {
    let (api, git) = (github.api(), github.git());
    format!("bucket = \"backups\"\ntoken = \"{TOKEN}\"\nmode = \"mirror\"\napi = \"{api}\"\ngit = \"{git}\"\n")
}

fn print(text: &str) -> anyhow::Result<()> {
    Ok(write!(std::io::stdout(), "{text}")?)
}
