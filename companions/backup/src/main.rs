//! `backup`: every repository of a GitHub account, in S3; and the function on AWS that keeps it up to date.

use std::io::{self, IsTerminal, Write};
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

/// Back up every repository of a GitHub account to S3
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Settings file [default: ./backup.toml]
    #[arg(short, long, global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Make a backup; resumes one that was interrupted
    Run {
        /// Back up only these repositories, e.g. acme/shop; the others are carried over unchanged
        #[arg(long, value_name = "NAME", num_args = 1..)]
        only: Vec<String>,
        /// Read everything again, even if unchanged
        #[arg(long)]
        full: bool,
    },
    /// List backups, or the contents of one
    List {
        /// Backup number
        number: Option<u64>,
    },
    /// Read everything a backup refers to and compare it with the manifest
    Verify {
        /// Backup number [default: newest]
        number: Option<u64>,
        /// Also unpack everything and follow every ref; needs temporary space for the largest repository
        #[arg(long)]
        deep: bool,
    },
    /// Restore a repository as a bare git repository, with everything kept alongside it
    Restore {
        /// Name (acme/shop), former name or GitHub's repository ID
        name: String,
        /// Target folder; must be empty or not exist
        folder: PathBuf,
        /// Backup number [default: newest]
        #[arg(long, value_name = "NUMBER")]
        at: Option<u64>,
    },
    /// Test the token, one repository and the bucket; writes one small object, running/check
    Check,
    /// See it work on this machine: back up, damage, verify and restore a small account
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
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    let lines = lines.with_target(false).without_time();
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
                    Ok(if manifest.has_all_asked_for() { 0 } else { INCOMPLETE })
                }
                Outcome::Beaten(manifest) => {
                    print(&format!(
                        "another run finished backup {} first, with everything that this one has",
                        manifest.backup
                    ))?;
                    Ok(0)
                }
                Outcome::Waiting { backup, left } => {
                    print(&format!("backup {backup} is not finished: {left} repositories are left for the next run"))?;
                    Ok(INCOMPLETE)
                }
            }
        }
        Some(Command::List { number: None }) => {
            let backups = open().await?.list().await?;
            if backups.is_empty() {
                print("there are no backups here")?;
            }
            for backup in backups {
                match backup {
                    Ok(manifest) => summary_line(&manifest)?,
                    Err(error) => print(&error.to_string())?,
                }
            }
            Ok(0)
        }
        Some(Command::List { number }) => {
            let manifest = open().await?.read(number).await?;
            print("status     changed in  commits' bundles       bytes  repository")?;
            for entry in &manifest.repositories {
                let bundles = entry.git.as_ref().map_or(0, |git| git.bundles.len());
                let (status, since, name) = (entry.status.name(), entry.since, &entry.listed.full_name);
                print(&format!("{status:<10} {since:>10} {bundles:>16} {:>11}  {name}", entry.bytes()))?;
            }
            summary(&manifest)?;
            Ok(0)
        }
        Some(Command::Verify { number, deep }) => {
            let verified = open().await?.verify(number, deep).await?;
            for damage in &verified.damage {
                print(&format!("damaged: {} ({}): {}", damage.key, damage.repository, damage.why))?;
            }
            for stray in &verified.strays {
                print(&format!("belongs to no backup: {stray}"))?;
            }
            for lack in &verified.incomplete {
                print(&format!("not backed up: {lack}"))?;
            }
            if !verified.damage.is_empty() {
                print(
                    "restore what is damaged from the bucket's older versions, or read the repository again: backup run --full --only NAME",
                )?;
            }
            let (objects, bytes, damaged) = (verified.objects, verified.bytes, verified.damage.len());
            let deep = if deep { format!(", {} git objects", verified.git_objects) } else { String::new() };
            print(&format!("backup {}: {objects} objects, {bytes} bytes{deep}, {damaged} damaged", verified.backup))?;
            Ok(match (verified.damage.is_empty(), verified.incomplete.is_empty()) {
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
                print(&format!("FAIL   {line}"))?;
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
        [Done, Unchanged, Empty, Failed, Skipped, Excluded, Gone].map(|kind| (manifest.count(kind), kind.name()));
    let counts: Vec<_> =
        counts.iter().filter(|(count, _)| *count > 0).map(|(count, kind)| format!("{count} {kind}")).collect();
    let lacks = if manifest.complete { "" } else { "; something is not backed up" };
    let only =
        if manifest.only.is_empty() { String::new() } else { format!(", read {} alone", manifest.only.join(", ")) };
    print(&format!("backup {} of {}: {}{only}{lacks}", manifest.backup, manifest.ended, counts.join(", ")))
}

fn print(text: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{text}")
}
