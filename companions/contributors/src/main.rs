//! `contributors`: a GitHub organization's issues, pull requests, people and events, in Postgres; and the two functions on AWS that
//! keep it up to date.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use blackwater_base::deadline::Deadline;
use blackwater_base::settings::variables;
use chrono::{NaiveDate, Utc};
use clap::{CommandFactory, Parser, Subcommand};
use contributors::config::{Config, NO_DAY, day_after, first_day};
use contributors::poll::{self, Period, Request};
use contributors::status::{Budget, Members, Status};
use contributors::{Contributors, load};
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
    /// Poll GitHub for changes, then load them if a database is configured
    Poll {
        /// Accept a members list that is much shorter than the last one
        #[arg(long)]
        force: bool,
        /// Discard the saved state and read everything since `from` again; no row is removed
        #[arg(long)]
        full: bool,
    },
    /// Load what was polled and is not in the database yet
    Load,
    /// Import issues and pull requests created in a period; resumes an interrupted import
    Backfill {
        /// First day or month, e.g. 2017-01
        #[arg(long, value_name = "DAY|MONTH", value_parser = parse_from)]
        from: NaiveDate,
        /// Last day or month, included, e.g. 2026-11
        #[arg(long, value_name = "DAY|MONTH", value_parser = parse_to)]
        to: NaiveDate,
        /// Only these repositories, e.g. --repo shop docs [default: all that are watched]
        #[arg(long, value_name = "NAME", num_args = 1..)]
        repo: Vec<String>,
        /// Use GitHub's search: fewer requests for a short period long ago
        #[arg(long)]
        search: bool,
    },
    /// Test the token, the bucket and the database; changes nothing
    Check,
    /// Show polling and loading progress
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Create or upgrade the tables; `load` does so too
    Migrate,
    /// Run a demo on this machine: a sample organization, polled into Postgres and loaded into a star schema
    #[cfg(feature = "local")]
    Demo,
}

fn parse_from(text: &str) -> Result<NaiveDate, &'static str> {
    first_day(text).ok_or(NO_DAY)
}

/// The day after.
fn parse_to(text: &str) -> Result<NaiveDate, &'static str> {
    day_after(text).ok_or(NO_DAY)
}

/// `check` finds something wrong.
const FAILED: u8 = 1;
/// Something failed of one repository, or is left for the next poll.
const INCOMPLETE: u8 = 3;

fn main() -> ExitCode {
    blackwater_function::main::<Contributors, _>(async || run(Arguments::parse()).await.map_err(|error| told(&error)))
}

/// An error for people. Ours say the whole of it; others may have causes.
fn told(error: &anyhow::Error) -> String {
    if error.is::<contributors::error::Error>() { error.to_string() } else { format!("{error:#}") }
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
        use blackwater_base::store::client;
        use blackwater_http::Http;
        use blackwater_local::s3::{ACCESS_KEY, S3, SECRET_KEY};
        use contributors::AGENT;

        let s3 = S3::start(folder, &[&config.bucket]).await?;
        let client = client(Some(&s3.endpoint()), Some((ACCESS_KEY, SECRET_KEY))).await;
        return Ok((Contributors::new(config, client, Http::new(AGENT)?), Some(s3), loads));
    }
    Ok((Contributors::on_aws(config).await?, Bucket::default(), loads))
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
    match command {
        Command::Poll { force, full } => {
            poll_and_load(&contributors, loads, &Request { force, full, ..Request::at(Utc::now()) }).await
        }
        Command::Backfill { from, to, repo, search } => {
            let period = Period { from, to, repositories: repo, search };
            let request = Request { waits: true, backfill: Some(period), ..Request::at(Utc::now()) };
            poll_and_load(&contributors, loads, &request).await
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

/// The exit code. What was answered is loaded, however the poll ended.
async fn poll_and_load(contributors: &Contributors, loads: bool, request: &Request) -> anyhow::Result<u8> {
    let polled = contributors.poll(request, Deadline::NONE).await;
    let loaded = if loads { Some(contributors.load(Deadline::NONE).await) } else { None };
    let polled = polled?;
    show_poll(&polled)?;
    if let Some(loaded) = loaded {
        show_load(&loaded?)?;
    }
    Ok(if polled.failed.is_empty() && polled.left.is_empty() && polled.ended.is_none() { 0 } else { INCOMPLETE })
}

/// A number of things.
fn count(number: impl TryInto<u64>, one: &str, many: &str) -> String {
    let number = number.try_into().unwrap_or_default();
    format!("{number} {}", if number == 1 { one } else { many })
}

fn show_poll(report: &poll::Report) -> io::Result<()> {
    for failed in &report.failed {
        print(&format!("failed: {}", failed.replace('\n', ". ")))?;
    }
    if let Some(why) = &report.ended {
        print(&format!("stopped early: {}", why.replace('\n', ". ")))?;
    }
    for left in &report.left {
        print(&format!("left for the next poll: {left}"))?;
    }
    let found = [
        (
            report.rows,
            count(report.rows, "new or changed issue or pull request", "new or changed issues and pull requests"),
        ),
        (report.timelines, count(report.timelines, "timeline", "timelines")),
        (report.moved, format!("{} transferred", report.moved)),
        (report.gone, format!("{} deleted", report.gone)),
    ];
    let found: Vec<_> = found.into_iter().filter(|(number, _)| *number > 0).map(|(_, text)| text).collect();
    let found = if found.is_empty() { "nothing new".into() } else { found.join(", ") };
    let polled = if report.polled > 0 { count(report.polled, "repository: ", "repositories: ") } else { String::new() };
    let requests = count(report.requests, "request", "requests");
    let remaining = report.remaining.map_or_else(String::new, |remaining| format!("; {remaining} left this hour"));
    print(&format!("{polled}{found}; {requests}, {} of them free (304){remaining}", report.not_modified))
}

fn show_load(report: &load::Report) -> io::Result<()> {
    let rows = |rows: &std::collections::BTreeMap<&str, usize>, what: &str| {
        let rows: Vec<_> = rows.iter().map(|(table, rows)| format!("{rows} {table}")).collect();
        if rows.is_empty() { String::new() } else { format!("; {what} {}", rows.join(", ")) }
    };
    let (inserted, updated) = (rows(&report.inserted, "inserted"), rows(&report.updated, "updated"));
    let differed = if inserted.is_empty() && updated.is_empty() { "; no row differed" } else { "" };
    print(&format!("loaded {}{inserted}{updated}{differed}", count(report.batches, "batch", "batches")))
}

fn show_status(status: &Status) -> io::Result<()> {
    if status.repositories.is_empty() {
        print("not polled yet")?;
    } else {
        print("last poll (UTC)   issues  timelines to read  repository")?;
    }
    for repository in &status.repositories {
        let polled = repository.polled_at.map_or_else(|| "never".into(), |at| at.format("%Y-%m-%d %H:%M").to_string());
        print(&format!("{polled:<16} {:>7} {:>18}  {}", repository.issues, repository.due, repository.name))?;
        for backfill in &repository.backfills {
            print(&format!("{:>45}{backfill}: not finished", ""))?;
        }
    }
    if let Some(Members { listed_at, members }) = &status.members {
        print(&format!("members: {members}, as of {}", listed_at.format("%Y-%m-%d %H:%M")))?;
    }
    if let Some(Budget { remaining, until }) = &status.budget {
        print(&format!("GitHub's limit: {remaining} requests left until {}", until.format("%H:%M")))?;
    }
    let loaded = match status.behind {
        None => String::new(),
        Some(0) => ", all of them loaded".into(),
        Some(behind) => format!(", {behind} of them not loaded yet"),
    };
    print(&format!("{}{loaded}", count(status.newest, "batch", "batches")))
}

fn print(text: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{text}")
}
