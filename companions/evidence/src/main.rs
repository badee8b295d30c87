//! `evidence`: a month's work of each person, zipped and delivered; and the function on AWS that does it every month.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use blackwater_base::deadline::Deadline;
use blackwater_base::settings::variables;
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use evidence::config::Config;
use evidence::manifest::{Manifest, State};
use evidence::month::Month;
use evidence::{Evidence, Request, Target};

#[cfg(feature = "demo")]
mod demo;

/// A month's work of each person, zipped and delivered
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The settings; evidence.toml in this folder if none are named
    #[arg(short, long, global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Make and deliver the evidence of a month, from where the last run stopped
    Run {
        /// The month, as 2026-10; the last one if none is named
        #[arg(long)]
        month: Option<Month>,
        /// Only ask, write and send nothing, and print what would be made
        #[arg(long)]
        dry_run: bool,
        /// Read histories to their end, however old
        #[arg(long)]
        exhaustive: bool,
        /// Deliver to one alone, beside S3
        #[arg(long, value_enum)]
        only: Option<To>,
        /// Exit with 3 if people or repositories are unknown
        #[arg(long)]
        strict: bool,
    },
    /// Try each login, each repository, the folder and the workspace
    Check,
    /// Print how far a month is
    Status {
        /// The month; the last one if none is named
        #[arg(long)]
        month: Option<Month>,
    },
    /// List the addresses and accounts of a month, with the person that the settings know each as
    People {
        /// The month; the last one if none is named
        #[arg(long)]
        month: Option<Month>,
    },
    /// See it work on this machine: two repositories, three people, Drive and Slack
    #[cfg(feature = "demo")]
    Demo,
}

#[derive(Clone, Copy, ValueEnum)]
enum To {
    S3,
    Drive,
    Slack,
}

/// Something is not delivered.
const FAILED: u8 = 1;
/// Somebody or something is unknown.
const UNKNOWN: u8 = 3;

fn main() -> ExitCode {
    blackwater_function::main::<Evidence, _>(async || run(Arguments::parse()).await)
}

/// The exit code.
async fn run(arguments: Arguments) -> anyhow::Result<u8> {
    let open = async || -> anyhow::Result<Evidence> {
        Ok(Evidence::on_aws(Config::read(arguments.config.as_deref(), variables())?).await?)
    };
    match arguments.command {
        Some(Command::Run { month, dry_run, exhaustive, only, strict }) => {
            let only = only.map(|to| match to {
                To::S3 => Target::S3,
                To::Drive => Target::Drive,
                To::Slack => Target::Slack,
            });
            let request = Request { month, is_anew: true, is_exhaustive: exhaustive, only };
            let evidence = open().await?;
            if dry_run {
                let preview = evidence.preview(request, Deadline::NONE).await?;
                print(&serde_json::to_string_pretty(&preview)?)?;
                let is_missing = preview.repositories.values().any(|one| one.is_missing());
                let is_unknown = is_missing || !preview.unknown_people.is_empty();
                return Ok(if strict && is_unknown { UNKNOWN } else { 0 });
            }
            let manifest = evidence.run(request, Deadline::NONE).await?;
            print(&serde_json::to_string_pretty(&manifest)?)?;
            Ok(code(&manifest, strict))
        }
        Some(Command::Check) => {
            let wrong = open().await?.check(Deadline::NONE).await;
            for error in &wrong {
                print(&format!("{error}\n"))?;
            }
            if wrong.is_empty() {
                print("Bitbucket and its repositories, the bucket, Drive and Slack are as they have to be")?;
            }
            Ok(if wrong.is_empty() { 0 } else { FAILED })
        }
        Some(Command::Status { month }) => {
            let evidence = open().await?;
            let month = month.unwrap_or_else(|| evidence.last_month());
            match evidence.status(month).await? {
                Some(manifest) => {
                    print(&serde_json::to_string_pretty(&manifest)?)?;
                    Ok(code(&manifest, false))
                }
                None => {
                    print(&format!("{month} was not begun"))?;
                    Ok(FAILED)
                }
            }
        }
        Some(Command::People { month }) => {
            let request = Request { month, ..Request::default() };
            for seen in open().await?.seen(request, Deadline::NONE).await? {
                let person = seen.person.as_deref().unwrap_or("(unknown)");
                print(&format!(
                    "{person:<24} {:>6}  {}  {}",
                    seen.count,
                    seen.identity.raw,
                    seen.identity.accounts.join(" ")
                ))?;
            }
            Ok(0)
        }
        #[cfg(feature = "demo")]
        Some(Command::Demo) => demo::run().await.map(|()| 0),
        None => {
            Arguments::command().print_help()?;
            Ok(0)
        }
    }
}

fn code(manifest: &Manifest, strict: bool) -> u8 {
    let is_unknown = !manifest.unknown_people.is_empty() || manifest.repositories.values().any(|one| one.is_missing());
    match (manifest.state, is_unknown && strict) {
        (State::Complete, true) => UNKNOWN,
        (State::Complete, false) => 0,
        (State::Partial | State::Failed, _) => FAILED,
    }
}

fn print(text: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{text}")
}
