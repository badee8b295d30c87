//! `backup`: every repository of a GitHub account, in S3; and the function on AWS that keeps it up to date.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use backup::config::Config;
use backup::manifest::{Manifest, Status};
use backup::{Backup, Outcome, Request};
use blackwater_base::deadline::Deadline;
use blackwater_base::settings::variables;
use clap::{CommandFactory, Parser, Subcommand};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

#[cfg(feature = "demo")]
mod demo;

/// Every repository of a GitHub account, in S3
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The settings; backup.toml in this folder if none are named
    #[arg(short, long, global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Make a backup, from where the last run stopped
    Run {
        /// Back up these repositories alone, as acme/shop; the backup has the others as they were
        #[arg(long, num_args = 1..)]
        only: Vec<String>,
        /// Read all again, changed or not
        #[arg(long)]
        full: bool,
    },
    /// List the backups, or what a backup has
    List {
        /// The backup
        number: Option<u64>,
    },
    /// Read all that a backup has, and compare it with what the manifest says
    Verify {
        /// The backup; the newest if none is named
        number: Option<u64>,
        /// Unpack it too, and follow all refs; needs room for one repository in the temporary folder
        #[arg(long)]
        deep: bool,
    },
    /// Bring a repository back, as a bare git repository, with all that was kept beside it
    Restore {
        /// The repository, as acme/shop; also by a former name or its number
        name: String,
        /// The folder; it is empty, or not there
        folder: PathBuf,
        /// The backup; the newest if none is named
        #[arg(long)]
        at: Option<u64>,
    },
    /// Try the token, a repository and the bucket
    Check,
    /// See it work on this machine: a small account is backed up, damaged, verified and restored
    #[cfg(feature = "demo")]
    Demo,
}

/// Something is damaged, or `check` finds something wrong.
const FAILED: u8 = 1;
/// Something is not backed up.
const INCOMPLETE: u8 = 3;

/// How long a run on a machine may take, with what GitHub asks to wait.
const DAY: Duration = Duration::from_secs(24 * 3600);

fn main() -> ExitCode {
    blackwater_function::main::<Backup, _>(async || run(Arguments::parse()).await)
}

/// The exit code.
async fn run(arguments: Arguments) -> anyhow::Result<u8> {
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_target(false).without_time();
    let ours = Targets::new().with_targets(["blackwater", "backup"].map(|target| (target, LevelFilter::INFO)));
    tracing_subscriber::registry().with(lines).with(ours).init();
    let open = async || -> anyhow::Result<Backup> {
        Ok(Backup::on_aws(Config::read(arguments.config.as_deref(), variables())?).await?)
    };
    match arguments.command {
        Some(Command::Run { only, full }) => {
            let deadline = Deadline::at(SystemTime::now() + DAY);
            match open().await?.run(&Request { only, is_full: full }, deadline).await? {
                Outcome::Made(manifest) => {
                    summary(&manifest)?;
                    Ok(if manifest.complete { 0 } else { INCOMPLETE })
                }
                Outcome::Beaten(manifest) => {
                    print(&format!("another run made backup {} meanwhile", manifest.backup))?;
                    Ok(0)
                }
                Outcome::Waiting { backup, left } => {
                    print(&format!("backup {backup} is not made yet: {left} repositories are left to the next run"))?;
                    Ok(INCOMPLETE)
                }
            }
        }
        Some(Command::List { number: None }) => {
            for manifest in open().await?.list().await? {
                summary_line(&manifest)?;
            }
            Ok(0)
        }
        Some(Command::List { number }) => {
            let manifest = open().await?.read(number).await?;
            for entry in &manifest.repositories {
                print(&format!("{:<10} {:>6}  {}", status(entry.status), entry.since, entry.listed.full_name))?;
            }
            summary(&manifest)?;
            Ok(0)
        }
        Some(Command::Verify { number, deep }) => {
            let verified = open().await?.verify(number, deep).await?;
            for damage in &verified.damage {
                print(&format!("damaged: {} of {}: {}", damage.key, damage.repository, damage.why))?;
            }
            for stray in &verified.strays {
                print(&format!("of no backup: {stray}"))?;
            }
            for lack in &verified.incomplete {
                print(&format!("not backed up: {lack}"))?;
            }
            let (objects, bytes, damaged) = (verified.objects, verified.bytes, verified.damage.len());
            let deep = if deep { format!(", {} git objects", verified.git_objects) } else { String::new() };
            print(&format!("backup {}: {objects} objects, {bytes} bytes{deep}, {damaged} damaged", verified.backup))?;
            Ok(match (verified.damage.is_empty(), verified.strays.is_empty() && verified.incomplete.is_empty()) {
                (false, _) => FAILED,
                (true, false) => INCOMPLETE,
                (true, true) => 0,
            })
        }
        Some(Command::Restore { name, folder, at }) => {
            for made in open().await?.restore(&name, at, &folder).await? {
                print(&made.display().to_string())?;
            }
            Ok(0)
        }
        Some(Command::Check) => {
            let checked = open().await?.check(Deadline::NONE).await;
            for line in &checked.well {
                print(&format!("ok     {line}"))?;
            }
            for line in &checked.wrong {
                print(&format!("wrong  {line}"))?;
            }
            Ok(if checked.wrong.is_empty() { 0 } else { FAILED })
        }
        #[cfg(feature = "demo")]
        Some(Command::Demo) => demo::run().await.map(|()| 0),
        None => {
            Arguments::command().print_help()?;
            Ok(0)
        }
    }
}

fn status(status: Status) -> &'static str {
    match status {
        Status::Done => "done",
        Status::Unchanged => "unchanged",
        Status::Empty => "empty",
        Status::Failed => "failed",
        Status::Skipped => "skipped",
        Status::Excluded => "excluded",
        Status::Gone => "gone",
    }
}

/// What failed, and how many there are of each kind.
fn summary(manifest: &Manifest) -> io::Result<()> {
    for lack in &manifest.lacks {
        print(&format!("not backed up: {lack}"))?;
    }
    for entry in &manifest.repositories {
        for problem in &entry.problems {
            print(&format!("not backed up: {}: {}: {}", entry.listed.full_name, problem.part, problem.why))?;
        }
    }
    summary_line(manifest)
}

fn summary_line(manifest: &Manifest) -> io::Result<()> {
    use Status::{Done, Empty, Excluded, Failed, Gone, Skipped, Unchanged};
    let counts =
        [Done, Unchanged, Empty, Failed, Skipped, Excluded, Gone].map(|kind| (manifest.count(kind), status(kind)));
    let counts: Vec<_> =
        counts.iter().filter(|(count, _)| *count > 0).map(|(count, kind)| format!("{count} {kind}")).collect();
    let lacks = if manifest.complete { "" } else { "; something is not backed up" };
    let only =
        if manifest.only.is_empty() { String::new() } else { format!(", read {} alone", manifest.only.join(", ")) };
    print(&format!("backup {} of {}: {}{only}{lacks}", manifest.backup, manifest.date, counts.join(", ")))
}

fn print(text: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{text}")
}
