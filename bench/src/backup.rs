//! The backup of a large repository, beside `git clone --mirror` from the same server; and of five thousand that have not changed.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use backup::services::{Services, TOKEN, git};
use blackwater_base::store::{Store, client};
use blackwater_local::s3::{ACCESS_KEY, S3, SECRET_KEY};
use blackwater_tests::Function;
use serde_json::{Value, json};

/// The files of the large repository, and the bytes of each, which cannot be compressed.
const FILES: usize = 200;
const BYTES: usize = 10_737_418;
/// The most memory that it may take, in kB.
const MEMORY: u64 = 64 << 10;
/// The most time, beside that of a clone.
const RATIO: f64 = 1.5;
/// How many have not changed, and what the API may be asked for them.
const UNCHANGED: usize = 5000;
const CALLS: usize = 60;

pub(crate) async fn measure_all(workspace: &Path) -> anyhow::Result<()> {
    let program = workspace.join("target/release/backup");
    ensure!(program.exists(), "there is no {}: `make release`", program.display());
    large(&program).await?;
    unchanged(&program).await
}

struct World {
    github: Services,
    function: Function,
    folder: tempfile::TempDir,
    s3: S3,
}

impl World {
    async fn start(program: &Path, with: &str) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let s3 = S3::start(folder.path(), &["backups"]).await?;
        let github = Services::start().await?;
        let settings = folder.path().join("backup.toml");
        std::fs::write(&settings, format!("mode = \"mirror\"\nwith = \"{with}\"\n"))?;
        let file = folder.path().join("run");
        let text = format!("#!/bin/sh\ncd {}\nexec {}\n", folder.path().display(), program.display());
        std::fs::write(&file, text)?;
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let variables = [
            ("AWS_REGION", "eu-west-2"),
            ("AWS_ENDPOINT_URL", &s3.endpoint()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
            ("BACKUP_BUCKET", "backups"),
            ("BACKUP_TOKEN", TOKEN),
            ("BACKUP_API", &github.api()),
            ("BACKUP_GIT", &github.git()),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let function = Function::start(&[file], &variables, Duration::from_secs(1800)).await;
        Ok(Self { github, function, folder, s3 })
    }

    /// A backup: what the function says, and how long it took.
    async fn made(&self) -> anyhow::Result<(Value, f64)> {
        let began = Instant::now();
        let summary =
            self.function.invoke(json!({ "anew": true })).await.map_err(|error| anyhow::anyhow!("{error}"))?;
        ensure!(summary["state"] == "made" && summary["failed"] == 0, "{summary}");
        Ok((summary, began.elapsed().as_secs_f64()))
    }
}

async fn large(program: &Path) -> anyhow::Result<()> {
    println!("\nbackup: a repository of {FILES} files of {BYTES} bytes, {:.2} GB", (FILES * BYTES) as f64 / 1e9);
    for with in ["", "lfs"] {
        let world = World::start(program, with).await?;
        world.github.make(1, "acme/big")?;
        fill(&world.github.repository("acme/big"))?;
        let before = world.function.memory();
        let (_, ours) = world.made().await?;
        let memory = world.function.memory();
        std::fs::remove_dir_all(world.folder.path().join("backups"))?;
        let clone = world.folder.path().join("clone").display().to_string();
        let from = world.github.git().replace("://", &format!("://x-access-token:{TOKEN}@")) + "/acme/big.git";
        let began = Instant::now();
        git(world.folder.path(), &["clone", "--quiet", "--mirror", &from, &clone])?;
        let theirs = began.elapsed().as_secs_f64();
        let what = if with.is_empty() { "" } else { ", looking for LFS pointers" };
        println!(
            "  to S3{what}: {ours:.1} s, {} MB of memory at most ({} MB before); git clone --mirror to a disk: {theirs:.1} s",
            memory >> 10,
            before >> 10
        );
        ensure!(memory < MEMORY, "it takes more than {MEMORY} kB of memory");
        ensure!(ours < RATIO * theirs, "it takes more than {RATIO} times the time of a clone");
    }
    Ok(())
}

/// Fills a repository with files that cannot be compressed.
fn fill(path: &PathBuf) -> anyhow::Result<()> {
    let mut import = Command::new("git")
        .current_dir(path)
        .args(["-c", "core.compression=0", "fast-import", "--quiet"])
        .stdin(Stdio::piped())
        .spawn()?;
    let mut to = BufWriter::new(import.stdin.take().context("git takes no input")?);
    let mut seed = 7u64;
    let mut content = vec![0; BYTES];
    for number in 1..=FILES {
        for piece in content.chunks_mut(8) {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            piece.copy_from_slice(&seed.to_le_bytes()[..piece.len()]);
        }
        write!(to, "blob\nmark :{number}\ndata {BYTES}\n")?;
        to.write_all(&content)?;
        to.write_all(b"\n")?;
    }
    write!(to, "commit refs/heads/main\ncommitter Ada <ada@example.com> 1767225600 +0000\ndata 4\nFill\n")?;
    for number in 1..=FILES {
        writeln!(to, "M 100644 :{number} file-{number}")?;
    }
    to.flush()?;
    drop(to);
    ensure!(import.wait()?.success(), "git fast-import fails");
    Ok(())
}

async fn unchanged(program: &Path) -> anyhow::Result<()> {
    let world = World::start(program, "wiki,issues,pulls,releases").await?;
    world.github.make(1, "acme/r1")?;
    world.github.commit("acme/r1", "main", "read.me", b"Read me.\n")?;
    world.made().await?;
    // The others are of one make with the first, and kept as it is.
    let client = client(Some(&world.s3.endpoint()), Some((ACCESS_KEY, SECRET_KEY))).await;
    let store = Store::new(client, "backups", "bucket");
    let manifest = "backups/000000000001.json";
    let text = store.get(manifest).await?.context("there is no manifest")?;
    let mut kept: Value = serde_json::from_slice(&text)?;
    let (listed, entry) = (world.github.known().repositories[0].clone(), kept["repositories"][0].clone());
    for number in 2..=UNCHANGED {
        let name = format!("acme/r{number}");
        let of = |one: &Value| {
            let mut one = one.clone();
            one["id"] = number.into();
            one["full_name"] = name.clone().into();
            one
        };
        world.github.known().repositories.push(of(&listed));
        kept["repositories"].as_array_mut().context("no list")?.push(of(&entry));
        std::os::unix::fs::symlink(world.github.repository("acme/r1"), world.github.repository(&name))?;
    }
    store.put(manifest, kept.to_string().into()).await?;
    world.github.known().calls.clear();
    let (summary, time) = world.made().await?;
    ensure!(summary["unchanged"] == UNCHANGED, "{summary}");
    let calls = std::mem::take(&mut world.github.known().calls);
    let api = calls.iter().filter(|call| call.starts_with("api ")).count();
    let asked = calls.iter().filter(|call| call.ends_with("ls-refs")).count();
    let memory = world.function.memory() >> 10;
    println!(
        "  {UNCHANGED} repositories that have not changed: {api} calls of the API, {asked} ls-refs, {time:.0} s, {memory} MB of memory at most"
    );
    ensure!(api <= CALLS && asked == UNCHANGED, "more than {CALLS} calls, or not one ls-refs each");
    Ok(())
}
