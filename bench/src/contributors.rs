//! Polls of an organization in which nothing is new, a backfill of one with a long history, and the load of what it brings beside a
//! COPY of the same rows.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, ensure};
use blackwater_base::deadline::Deadline;
use blackwater_base::store::client;
use blackwater_http::Http;
use blackwater_local::postgres::Postgres;
use blackwater_local::s3::{ACCESS_KEY, S3, SECRET_KEY};
use blackwater_tests::Function;
use chrono::{TimeDelta, Utc};
use contributors::config::Config;
use contributors::poll::Request;
use contributors::services::{GitHub, TOKEN};
use contributors::{AGENT, Contributors};
use serde_json::{Value, json};
use tokio_postgres::NoTls;

/// How many issues are open while nothing is new.
const OPEN: usize = 1000;
/// The issues of the history, and the events of each.
const ISSUES: usize = 5000;
const EVENTS: usize = 20;
/// The most memory that either function may take, in kB.
const MEMORY: u64 = 128 << 10;

pub(crate) async fn measure_all(workspace: &Path) -> anyhow::Result<()> {
    let program = workspace.join("target/release/contributors");
    ensure!(program.exists(), "there is no {}: `make release`", program.display());
    nothing_new(&program).await?;
    backfill(&program).await
}

struct World {
    github: GitHub,
    s3: S3,
    server: Postgres,
    _folder: tempfile::TempDir,
}

impl World {
    async fn start() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let s3 = S3::start(folder.path(), &["answers"]).await?;
        let github = GitHub::start("acme").await?;
        github.model().core.limit = 1_000_000;
        github.model().core.remaining = 1_000_000;
        let server = tokio::task::spawn_blocking(|| Postgres::start(&[])).await??;
        Ok(Self { github, s3, server, _folder: folder })
    }

    fn settings(&self, does: &str) -> Vec<(String, String)> {
        [
            ("AWS_REGION", "eu-west-2"),
            ("AWS_ENDPOINT_URL", &self.s3.endpoint()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
            ("CONTRIBUTORS_DOES", does),
            ("CONTRIBUTORS_ORGANIZATION", "acme"),
            ("CONTRIBUTORS_BUCKET", "answers"),
            ("CONTRIBUTORS_GITHUB__TOKEN", TOKEN),
            ("CONTRIBUTORS_GITHUB__API", &self.github.origin()),
            ("CONTRIBUTORS_DATABASE__URL", &self.server.url("postgres")),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    async fn function(&self, program: &Path, does: &str) -> Function {
        Function::start(&[program.to_owned()], &self.settings(does), Duration::from_secs(3600)).await
    }
}

/// What a function says, and how long it took.
async fn invoked(function: &Function, event: Value) -> anyhow::Result<(Value, f64)> {
    let began = Instant::now();
    let report = function.invoke(event).await.map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok((report, began.elapsed().as_secs_f64()))
}

async fn nothing_new(program: &Path) -> anyhow::Result<()> {
    let world = World::start().await?;
    {
        let mut model = world.github.model();
        model.now = Utc::now() - TimeDelta::days(2);
        let (shop, ada) = (model.add_repository("shop"), model.add_person("ada"));
        for place in 0..OPEN {
            model.advance(10);
            let number = model.open_issue(shop, ada, &format!("issue {place}"));
            model.comment(shop, number, ada, "well");
        }
    }
    // Two polls of seven hours ago, of which the second keeps the lists' ETags.
    let variables = world.settings("poll").into_iter().filter(|(name, _)| name.starts_with("CONTRIBUTORS_"));
    let config = Config::read(None, variables)?;
    let s3 = client(Some(&world.s3.endpoint()), Some((ACCESS_KEY, SECRET_KEY))).await;
    let before = Contributors::new(config, s3, Http::new(AGENT)?);
    for minutes in [7 * 60, 7 * 60 - 10] {
        let request = Request::at(Utc::now() - TimeDelta::minutes(minutes));
        before.poll(&request, Deadline::at(SystemTime::now() + Duration::from_secs(600))).await?;
    }
    let poll = world.function(program, "poll").await;
    let (idle, idle_time) = invoked(&poll, json!({})).await?;
    let (quiet, quiet_time) = invoked(&poll, json!({})).await?;
    let paid = |report: &Value| {
        report["requests"].as_u64().zip(report["not_modified"].as_u64()).map(|(all, free)| (all - free, free))
    };
    let (paid_idle, free_idle) = paid(&idle).context("no requests")?;
    let (paid_quiet, free_quiet) = paid(&quiet).context("no requests")?;
    println!("\ncontributors: {OPEN} open issues, and nothing is new");
    println!(
        "  every timeline is asked for, every six hours: {free_idle} answers of 304, {paid_idle} requests that count, {idle_time:.1} s"
    );
    println!(
        "  a poll between: {free_quiet} answers of 304, {paid_quiet} that count, {quiet_time:.2} s, {} MB at most",
        poll.memory() >> 10
    );
    ensure!(free_idle == OPEN as u64 + 2, "not every timeline is asked for, or answered with 304");
    ensure!(paid_quiet == 1 && free_quiet == 2, "a poll between costs more than the list of repositories");
    ensure!(poll.memory() < MEMORY, "it takes more than {MEMORY} kB of memory");
    Ok(())
}

async fn backfill(program: &Path) -> anyhow::Result<()> {
    let world = World::start().await?;
    {
        let mut model = world.github.model();
        model.now = Utc::now() - TimeDelta::days(1000);
        let (shop, ada) = (model.add_repository("shop"), model.add_person("ada"));
        for place in 0..ISSUES {
            model.advance(3600);
            let number = model.open_issue(shop, ada, &format!("issue {place}"));
            for _ in 0..EVENTS {
                model.comment(
                    shop,
                    number,
                    ada,
                    "The price list loses its state after a reload, whatever the browser is.",
                );
            }
        }
    }
    let (poll, load) = (world.function(program, "poll").await, world.function(program, "load").await);
    let (polled, poll_time) = invoked(&poll, json!({ "backfill": { "from": "2015-01", "to": "2035-12" } })).await?;
    ensure!(polled["left"] == json!([]), "{polled}");
    let requests = polled["requests"].as_u64().context("no requests")?;
    let (loaded, load_time) = invoked(&load, json!({})).await?;
    ensure!(loaded["inserted"]["events"] == ISSUES * EVENTS, "{loaded}");
    let rows = (ISSUES * (EVENTS + 1)) as f64;
    let copy = copied(&world.server.url("postgres")).await?;
    println!("\ncontributors: a backfill of {ISSUES} issues with {EVENTS} events each");
    println!(
        "  from GitHub to S3: {requests} requests, {poll_time:.1} s, {:.0} rows a second, {} MB at most",
        rows / poll_time,
        poll.memory() >> 10
    );
    println!(
        "  from S3 to Postgres, each issue a transaction: {load_time:.1} s, {:.0} rows a second, {} MB at most; COPY of the events: {copy:.1} s",
        rows / load_time,
        load.memory() >> 10
    );
    ensure!(poll.memory().max(load.memory()) < MEMORY, "it takes more than {MEMORY} kB of memory");
    Ok(())
}

/// How long the server takes to copy the events out, and in again with their keys.
async fn copied(url: &str) -> anyhow::Result<f64> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    let file = "copied-events";
    let began = Instant::now();
    client
        .batch_execute(&format!(
            "COPY events TO PROGRAM 'cat > {file}'; CREATE TABLE copied (LIKE events INCLUDING ALL); COPY copied FROM PROGRAM 'cat {file}'"
        ))
        .await?;
    Ok(began.elapsed().as_secs_f64())
}
