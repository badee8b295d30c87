//! `contributors`: a GitHub organization's issues, pull requests, people and events, in Postgres; and the two functions on AWS that
//! keep it up to date.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use blackwater_base::deadline::Deadline;
use blackwater_base::settings::variables;
use blackwater_base::store::client;
use blackwater_http::Http;
use chrono::{NaiveDate, Utc};
use clap::{CommandFactory, Parser, Subcommand};
use contributors::config::{Config, day_after, first_day};
use contributors::poll::{self, Period, Request};
use contributors::status::Status;
use contributors::{AGENT, Contributors, load};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

#[cfg(feature = "local")]
mod demo;

/// Keep a GitHub organization's issues, pull requests, people and events in Postgres
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Settings file [default: ./contributors.toml]
    #[arg(short, long, global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Ask GitHub for what is new; then load it, if the settings name a database
    Poll {
        /// Accept a members list that is much shorter than the last one
        #[arg(long)]
        force: bool,
        /// Forget what is known and read everything again
        #[arg(long)]
        full: bool,
    },
    /// Load the answers that are not in the database yet
    Load,
    /// Read all issues and pull requests created in a period; resumes one that was interrupted
    Backfill {
        /// First day or month, e.g. 2017-01
        #[arg(long, value_parser = first)]
        from: NaiveDate,
        /// Last day or month, e.g. 2026-11
        #[arg(long, value_parser = last)]
        to: NaiveDate,
        /// Only these repositories [default: all that are watched]
        #[arg(long, value_name = "NAME", num_args = 1..)]
        repo: Vec<String>,
        /// Use GitHub's search: fewer requests for a short period long ago
        #[arg(long)]
        search: bool,
    },
    /// Test the token, the bucket and the database; changes nothing
    Check,
    /// Show how far each repository has been read, and how far the database has been loaded
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Create or upgrade the tables; `load` does so too
    Migrate,
    /// See it work on this machine: a made-up organization, polled into Postgres, and through Blackwater into a warehouse
    #[cfg(feature = "local")]
    Demo,
}

fn first(text: &str) -> Result<NaiveDate, String> {
    first_day(text).ok_or_else(|| "write 2024-01-31 or 2024-01".into())
}

fn last(text: &str) -> Result<NaiveDate, String> {
    day_after(text).ok_or_else(|| "write 2024-01-31 or 2024-01".into())
}

/// `check` finds something wrong.
const FAILED: u8 = 1;
/// Something failed of one repository, or is left for the next poll.
const INCOMPLETE: u8 = 3;

fn main() -> ExitCode {
    blackwater_function::main::<Contributors, _>(async || run(Arguments::parse()).await)
}

/// What keeps the bucket there while the program runs.
#[cfg(feature = "local")]
type Bucket = Option<blackwater_local::s3::S3>;
#[cfg(not(feature = "local"))]
type Bucket = ();

/// The organization of the settings, with its bucket on AWS or in a folder of this machine.
async fn open(file: Option<&std::path::Path>) -> anyhow::Result<(Contributors, Bucket, bool)> {
    let config = Config::read(file, variables())?;
    let loads = config.database.is_some();
    #[cfg(feature = "local")]
    if let Some(folder) = &config.directory {
        use blackwater_local::s3::{ACCESS_KEY, S3, SECRET_KEY};
        let s3 = S3::start(folder, &[&config.bucket]).await?;
        let client = client(Some(&s3.endpoint()), Some((ACCESS_KEY, SECRET_KEY))).await;
        return Ok((Contributors::new(config, client, Http::new(AGENT)?), Some(s3), loads));
    }
    let s3 = client(None, None).await;
    Ok((Contributors::new(config, s3, Http::new(AGENT)?), Bucket::default(), loads))
}

/// The exit code.
async fn run(arguments: Arguments) -> anyhow::Result<u8> {
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    let lines = lines.with_target(false).without_time();
    let ours = Targets::new().with_targets(["blackwater", "contributors"].map(|target| (target, LevelFilter::INFO)));
    tracing_subscriber::registry().with(lines).with(ours).init();
    let Some(command) = arguments.command else {
        Arguments::command().print_help()?;
        return Ok(0);
    };
    #[cfg(feature = "local")]
    if matches!(command, Command::Demo) {
        return demo::run().await.map(|()| 0);
    }
    let (contributors, _bucket, loads) = open(arguments.config.as_deref()).await?;
    let ask = async |request: Request| -> anyhow::Result<u8> {
        let is_backfill = request.backfill.is_some();
        let polled = contributors.poll(&request, Deadline::NONE).await;
        // What was answered is loaded, however the poll ended.
        let loaded = if loads { Some(contributors.load(Deadline::NONE).await) } else { None };
        let polled = polled?;
        let what = if is_backfill { "backfill".into() } else { format!("polled {} repositories", polled.polled) };
        show_poll(&what, &polled)?;
        if let Some(loaded) = loaded {
            show_load(&loaded?)?;
        }
        Ok(if polled.failed.is_empty() && polled.left.is_empty() { 0 } else { INCOMPLETE })
    };
    match command {
        Command::Poll { force, full } => ask(Request { force, full, ..Request::at(Utc::now()) }).await,
        Command::Backfill { from, to, repo, search } => {
            let period = Period { from, to, repositories: repo, search };
            ask(Request { waits: true, backfill: Some(period), ..Request::at(Utc::now()) }).await
        }
        Command::Load => {
            show_load(&contributors.load(Deadline::NONE).await?)?;
            Ok(0)
        }
        Command::Check => {
            let checked = contributors.check().await;
            for line in &checked.well {
                print(&format!("ok     {line}"))?;
            }
            for line in &checked.wrong {
                print(&format!("FAIL   {line}"))?;
            }
            Ok(if checked.wrong.is_empty() { 0 } else { FAILED })
        }
        Command::Status { json } => {
            let status = contributors.status(Utc::now()).await?;
            if json {
                print(&serde_json::to_string_pretty(&status)?)?
            } else {
                show_status(&status)?
            }
            Ok(0)
        }
        Command::Migrate => {
            match contributors.migrate().await?.as_slice() {
                [] => print("the tables are up to date")?,
                run => print(&format!(
                    "migrations run: {}",
                    run.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
                ))?,
            }
            Ok(0)
        }
        #[cfg(feature = "local")]
        Command::Demo => Ok(0),
    }
}

fn show_poll(what: &str, report: &poll::Report) -> io::Result<()> {
    for failed in &report.failed {
        print(&format!("failed: {}", failed.replace('\n', ". ")))?;
    }
    if let Some(why) = &report.ended {
        print(&format!("stopped early: {why}"))?;
    }
    for left in &report.left {
        print(&format!("left for the next poll: {left}"))?;
    }
    let remaining = report.remaining.map_or_else(String::new, |remaining| format!(", {remaining} left this hour"));
    print(&format!(
        "{what}: {} issues and pull requests new or changed, {} timelines changed, {} unchanged, {} transferred, \
         {} deleted; {} requests, {} of them free (304){remaining}",
        report.rows,
        report.timelines,
        report.unchanged,
        report.moved,
        report.gone,
        report.requests,
        report.not_modified
    ))
}

fn show_load(report: &load::Report) -> io::Result<()> {
    let counts = |rows: &std::collections::BTreeMap<&str, usize>| {
        let counts: Vec<_> = rows.iter().map(|(table, rows)| format!("{rows} {table}")).collect();
        if counts.is_empty() { "nothing".into() } else { counts.join(", ") }
    };
    print(&format!(
        "loaded {} {}: {} inserted; {} updated",
        report.batches,
        if report.batches == 1 { "batch" } else { "batches" },
        counts(&report.inserted),
        counts(&report.updated)
    ))
}

fn show_status(status: &Status) -> io::Result<()> {
    print("last poll (UTC)   issues  timelines due  repository")?;
    for repository in &status.repositories {
        let polled = repository.polled_at.map_or_else(|| "never".into(), |at| at.format("%Y-%m-%d %H:%M").to_string());
        print(&format!("{polled:<16} {:>7} {:>14}  {}", repository.issues, repository.due, repository.name))?;
        for backfill in &repository.backfills {
            print(&format!("{:>41}{backfill}: not finished", ""))?;
        }
    }
    if let Some((at, members)) = status.members {
        print(&format!("members: {members}, as of {}", at.format("%Y-%m-%d %H:%M")))?;
    }
    if let Some((remaining, reset)) = status.budget {
        print(&format!("GitHub's budget: {remaining} requests left until {}", reset.format("%H:%M")))?;
    }
    match status.behind {
        Some(behind) => print(&format!("batches: {}, of which {behind} are not loaded yet", status.newest)),
        None => print(&format!("batches: {}", status.newest)),
    }
}

fn print(text: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{text}")
}
