//! The `blackwater` program: parses, prints, exits.

mod demo;
mod progress;
mod quarantine;
mod text;
mod watch;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use blackwater_base::progress::TARGET;
use blackwater_base::{in_parts, secrets, store};
use blackwater_extract::{Full, Request};
use blackwater_local::s3::{ACCESS_KEY, S3, SECRET_KEY};
use blackwater_pipeline::Pipeline;
use blackwater_shared::config::{self, Config};
use blackwater_shared::finding::Level;
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Keeps a star-schema warehouse in step with an operational Postgres database.
#[derive(Parser)]
#[command(name = "blackwater", version = env!("VERSION_AND_COMMIT"))]
struct Arguments {
    /// The configuration [default: blackwater.toml here; variables BLACKWATER_… override it]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How results are printed
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Say more on standard error; twice, still more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Extract, transform and load, once
    Run {
        /// Exit with 3 if rows are in quarantine
        #[arg(long)]
        strict: bool,
    },
    /// Run again and again, until Ctrl-C or SIGTERM; what fails is tried again
    Watch {
        /// How long from the begin of a run to the next: 30s, 5m, 1h
        #[arg(long, value_name = "TIME", default_value = "5m", value_parser = watch::duration)]
        every: Duration,
    },
    /// Write what changed in the source to the ingestion bucket
    Extract {
        /// Read these tables in full, or all if none is named
        #[arg(long, value_name = "TABLE", num_args = 0..)]
        full: Option<Vec<String>>,
        /// Stop after so many batches; the next run goes on from there
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        batches: Option<u64>,
    },
    /// Make the star tables of the batches that the processed bucket lacks
    Transform,
    /// Apply the batches that the warehouse lacks
    Load {
        /// The pack's schema.sql was run by hand; do not run it
        #[arg(long)]
        schema_applied: bool,
        /// Exit with 3 if rows are in quarantine
        #[arg(long)]
        strict: bool,
    },
    /// Show how far each stage is, and the rows of the star tables
    Status,
    /// Try a few rows of each model, say what will not work and why, and leave nothing behind
    Check {
        /// Print the SQL that makes the roles of both databases instead
        #[arg(long)]
        grants: bool,
    },
    /// Compare the warehouse with the source, row by row, and say what differs
    Verify,
    /// Create or drop the replication slot by which changes are found at the source
    Slot {
        #[command(subcommand)]
        action: Slot,
    },
    /// Look at the rows that a star table refuses
    Quarantine {
        #[command(subcommand)]
        action: Quarantine,
    },
    /// Print what makes a shell complete this program's arguments
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the manual pages
    Man {
        /// Into this folder
        #[arg(default_value = ".")]
        folder: PathBuf,
    },
    /// See it work: private servers, sample data, changes of every kind, both sides compared
    Demo {
        /// How many orders to make
        #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(0..=10_000_000))]
        rows: u32,
        /// Leave everything running at the end, and say how to connect
        #[arg(long)]
        keep: bool,
    },
}

#[derive(Subcommand)]
enum Slot {
    /// Create the slot. Waits for every open transaction at the source to end; a run waits at most 20 seconds
    Create {
        /// How long to wait: 30s, 5m, 1h
        #[arg(long, value_name = "TIME", default_value = "5m", value_parser = watch::duration)]
        wait: Duration,
    },
    /// Drop the slot, so that the source stops keeping WAL for it. Do this before you remove a pipeline
    Drop,
}

#[derive(Subcommand)]
enum Quarantine {
    /// List the rows, each with the reason
    List {
        /// Of this star table
        table: Option<String>,
    },
    /// Show rows in full: what was read, what was made of it, and what is wrong with it
    Show {
        /// The star table
        table: String,
        /// The key: its value, or column=value for each column
        key: Vec<String>,
    },
    /// Leave a row out until it changes at the source
    Discard {
        /// The star table
        table: String,
        /// The key: its value, or column=value for each column
        #[arg(required = true)]
        key: Vec<String>,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let level = [LevelFilter::WARN, LevelFilter::INFO, LevelFilter::DEBUG][usize::from(arguments.verbose.min(2))];
    // What others log is theirs to judge: a client of S3 or Postgres may print what it sends.
    let theirs = if arguments.verbose == 0 { LevelFilter::OFF } else { LevelFilter::WARN };
    let ours = Targets::new().with_default(theirs).with_target("blackwater", level);
    let is_terminal = std::io::stderr().is_terminal();
    // https://no-color.org
    let has_color = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(|| Lines)
        .with_ansi(has_color)
        .with_filter(ours.with_target(TARGET, LevelFilter::OFF));
    let bar = (is_terminal && arguments.format == Format::Text).then(progress::start);
    tracing_subscriber::registry().with(lines).with(bar).init();
    match try_main(&arguments) {
        Ok(code) => code,
        Err(error) => {
            failure(&error, arguments.format);
            match error.downcast_ref() {
                Some(Interrupted(code)) => ExitCode::from(*code),
                None => ExitCode::from(if is_usage(&error) { 2 } else { 1 }),
            }
        }
    }
}

/// Whether the configuration, a model or an argument is at fault.
fn is_usage(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<config::Error>()
            || matches!(cause.downcast_ref(), Some(blackwater_pipeline::Error::Pack(_)))
            || matches!(cause.downcast_ref(), Some(blackwater_extract::Error::UnknownTable { .. }))
    })
}

/// Says what failed.
fn failure(error: &anyhow::Error, format: Format) {
    // An error of several may repeat its cause's words; the last that says what to do knows best.
    let (mut what, mut remedy): (String, Option<String>) = Default::default();
    for (part, advice) in error.chain().map(|cause| in_parts(&cause.to_string())) {
        if !what.ends_with(&part) {
            what = if what.is_empty() { part } else { format!("{what}: {part}") };
        }
        remedy = advice.or(remedy);
    }
    let is_of_stage = error.chain().any(|cause| {
        cause.is::<blackwater_extract::Error>()
            || cause.is::<blackwater_transform::Error>()
            || cause.is::<blackwater_load::Error>()
    });
    if is_of_stage && !is_usage(error) && remedy.is_none() {
        remedy = Some("Nothing is lost; run again when that is over or put right".into());
    }
    match format {
        Format::Text => progress::without(|| eprintln!("error: {what}{}", text::remedy(remedy.as_deref()))),
        Format::Json => {
            let _ = print(&format!("{}\n", serde_json::json!({ "error": what, "remedy": remedy })));
        }
    }
}

/// Standard error, without a bar in the way.
struct Lines;

impl Write for Lines {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        progress::without(|| std::io::stderr().write(text))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

#[tokio::main]
async fn try_main(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match &arguments.command {
        Command::Demo { rows, keep } => {
            let mut signals = Signals::new()?;
            // What the demo started is gone when its future is dropped.
            return tokio::select! {
                done = demo::run(*rows, *keep) => done.map(|()| ExitCode::SUCCESS),
                signal = signals.next() => match (*keep, signal) {
                    (true, Stop::Interrupt) => print("\nStopped; all of it is gone.\n").map(|()| ExitCode::SUCCESS),
                    _ => Err(signal.interrupted().into()),
                },
            };
        }
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), "blackwater", &mut text);
            print(&String::from_utf8_lossy(&text))?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Man { folder } => {
            let written = std::fs::create_dir_all(folder)
                .and_then(|()| clap_mangen::generate_to(Arguments::command().disable_help_subcommand(true), folder));
            written.with_context(|| format!("cannot write manual pages into {}", folder.display()))?;
            return Ok(ExitCode::SUCCESS);
        }
        _ => {}
    }
    let config = Config::load(arguments.config.as_deref(), std::env::vars(), secrets::fetch).await?;
    let (pipeline, _server) = open(&config).await?;
    let format = arguments.format;
    match &arguments.command {
        Command::Run { strict } => {
            let mut quarantined = 0;
            let each = |done: blackwater_pipeline::Report| {
                quarantined = done.load.quarantine;
                report(format, &done, text::run)
            };
            pipeline.run(each).await?;
            return Ok(quarantine::warn(quarantined, *strict));
        }
        Command::Watch { every } => watch::run(&pipeline, *every, format).await?,
        Command::Extract { full, batches } => {
            let full = match full {
                None => Full::AsNeeded,
                Some(tables) if tables.is_empty() => Full::All,
                Some(tables) => Full::Tables(tables.clone()),
            };
            let request = Request { full, batches: *batches, ..Request::default() };
            let mut printed = Ok(());
            let each = |done| {
                printed = std::mem::replace(&mut printed, Ok(())).and_then(|()| report(format, &done, text::extract))
            };
            pipeline.extract.run(&request, each).await?;
            printed?;
        }
        Command::Transform => report(format, &pipeline.transform.run().await?, text::transform)?,
        Command::Load { schema_applied, strict } => {
            let done = pipeline.load.run(*schema_applied).await?;
            report(format, &done, text::load)?;
            return Ok(quarantine::warn(done.quarantine, *strict));
        }
        Command::Status => report(format, &pipeline.status().await?, text::status)?,
        Command::Check { grants: true } => print(&pipeline.grants())?,
        Command::Check { grants: false } => {
            let check = pipeline.check().await?;
            report(format, &check, text::check)?;
            let fails = check.findings.iter().any(|finding| finding.level == Level::Error);
            return Ok(ExitCode::from(if fails { 3 } else { 0 }));
        }
        Command::Verify => {
            let Some(verification) = pipeline.verify().await? else {
                anyhow::bail!("no batch is applied to the warehouse yet\nRun `blackwater run`");
            };
            report(format, &verification, text::verify)?;
            let differs = verification.tables.iter().any(|table| table.different > 0);
            return Ok(ExitCode::from(if differs { 3 } else { 0 }));
        }
        Command::Slot { action: Slot::Create { wait } } => {
            let made = pipeline.extract.create_slot(*wait).await?;
            print(if made { "slot: created\n" } else { "slot: already exists\n" })?;
        }
        Command::Slot { action: Slot::Drop } => {
            let dropped = pipeline.extract.drop_slot().await?;
            print(if dropped { "slot: dropped\n" } else { "slot: does not exist\n" })?;
        }
        Command::Quarantine { action } => quarantine::run(action, &pipeline, format).await?,
        Command::Demo { .. } | Command::Completions { .. } | Command::Man { .. } => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// The pipeline, and the embedded S3 server if the configuration asks for one.
async fn open(config: &Config) -> anyhow::Result<(Pipeline, Option<S3>)> {
    let (client, server) = match &config.s3 {
        config::S3::Endpoint(endpoint) => (store::client(endpoint.as_deref(), None).await, None),
        config::S3::Directory(folder) => {
            let server = S3::start(folder, &[&config.ingestion, &config.processed]).await?;
            let client = store::client(Some(&server.endpoint()), Some((ACCESS_KEY, SECRET_KEY))).await;
            (client, Some(server))
        }
    };
    Ok((Pipeline::new(config, client)?, server))
}

/// A signal that asks for an end.
#[derive(Clone, Copy, Debug)]
enum Stop {
    Hangup,
    Interrupt,
    Terminate,
}

/// Somebody wants an end.
#[derive(Debug, thiserror::Error)]
#[error("interrupted; what was started here is gone")]
struct Interrupted(u8);

impl Stop {
    /// The exit code, as shells have it: 128 and the signal's number.
    fn interrupted(self) -> Interrupted {
        Interrupted(match self {
            Self::Hangup => 129,
            Self::Interrupt => 130,
            Self::Terminate => 143,
        })
    }
}

/// Ctrl-C, SIGTERM, and that of a terminal that is closed.
struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> Stop {
        tokio::select! {
            _ = self.hangup.recv() => Stop::Hangup,
            _ = self.interrupt.recv() => Stop::Interrupt,
            _ = self.terminate.recv() => Stop::Terminate,
        }
    }
}

fn report<T: Serialize + ?Sized>(format: Format, report: &T, text: fn(&T) -> String) -> anyhow::Result<()> {
    match format {
        Format::Text => print(&text(report)),
        Format::Json => print(&format!("{}\n", serde_json::to_string_pretty(report)?)),
    }
}

/// Prints to standard output; that nobody listens any more is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    match progress::without(|| std::io::stdout().write_all(text.as_bytes())) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}
