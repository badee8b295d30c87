//! The `blackwater` program: parses, prints, exits.

mod demo;
mod quarantine;
mod text;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use blackwater_extract::Request;
use blackwater_local::s3::{ACCESS_KEY, S3, SECRET_KEY};
use blackwater_pipeline::Pipeline;
use blackwater_shared::config::{self, Config};
use blackwater_shared::finding::Level;
use blackwater_shared::store;
use clap::{Parser, Subcommand, ValueEnum};
use serde::Serialize;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Keeps a star-schema warehouse in step with an operational Postgres database.
#[derive(Parser)]
#[command(name = "blackwater", version)]
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
    /// Write what changed in the source to the ingestion bucket
    Extract {
        /// Read these tables in full, or all if none is named
        #[arg(long, value_name = "TABLE", num_args = 0..)]
        full: Option<Vec<String>>,
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
    /// Say what will not work, and why; nothing is written
    Check {
        /// Print the SQL that makes the roles of both databases instead
        #[arg(long)]
        grants: bool,
    },
    /// Compare the warehouse with the source, row by row, and say what differs
    Verify,
    /// Look at the rows that a star table refuses
    Quarantine {
        #[command(subcommand)]
        action: Quarantine,
    },
    /// See it work: private servers, sample data, changes of every kind, both sides compared
    Demo,
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
    let ours = Targets::new().with_default(LevelFilter::WARN).with_target("blackwater", level);
    let lines =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    tracing_subscriber::registry().with(lines).with(ours).init();
    match try_main(&arguments) {
        Ok(code) => code,
        Err(error) => {
            match arguments.format {
                Format::Text => eprintln!("error: {error:#}"),
                Format::Json => {
                    let _ = print(&serde_json::json!({ "error": format!("{error:#}") }).to_string());
                }
            }
            let usage = error.chain().any(|cause| {
                cause.is::<config::Error>()
                    || matches!(cause.downcast_ref(), Some(blackwater_pipeline::Error::Pack(_)))
                    || matches!(cause.downcast_ref(), Some(blackwater_extract::Error::UnknownTable { .. }))
            });
            match error.is::<Interrupted>() {
                true => ExitCode::from(130),
                false => ExitCode::from(if usage { 2 } else { 1 }),
            }
        }
    }
}

#[tokio::main]
async fn try_main(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if let Command::Demo = arguments.command {
        // What the demo started is gone when its future is dropped.
        return tokio::select! {
            done = demo::run() => done.map(|()| ExitCode::SUCCESS),
            signal = interrupt() => Err(signal?.into()),
        };
    }
    let config = Config::load(arguments.config.as_deref(), std::env::vars())?;
    let (pipeline, _server) = open(&config).await?;
    let format = arguments.format;
    match &arguments.command {
        Command::Run { strict } => {
            let done = pipeline.run().await?;
            report(format, &done, text::run)?;
            return Ok(quarantine::warn(done.load.quarantine, *strict));
        }
        Command::Extract { full } => {
            let request = match full {
                None => Request::Changes,
                Some(tables) if tables.is_empty() => Request::FullAll,
                Some(tables) => Request::Full(tables.clone()),
            };
            report(format, &pipeline.extract.run(&request).await?, text::extract)?;
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
            let check = pipeline.check().await;
            report(format, &check, text::check)?;
            let fails = check.findings.iter().any(|finding| finding.level == Level::Error);
            return Ok(ExitCode::from(if fails { 3 } else { 0 }));
        }
        Command::Verify => {
            let Some(verification) = pipeline.verify().await? else {
                anyhow::bail!("no batch is applied to the warehouse yet. Run `blackwater run`");
            };
            report(format, &verification, text::verify)?;
            let differs = verification.tables.iter().any(|table| table.different > 0);
            return Ok(ExitCode::from(if differs { 3 } else { 0 }));
        }
        Command::Quarantine { action } => quarantine::run(action, &pipeline, format).await?,
        Command::Demo => {}
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

/// Somebody wants an end: 130, as shells have it for SIGINT.
#[derive(Debug, thiserror::Error)]
#[error("interrupted; what was started here is gone")]
struct Interrupted;

/// Waits for Ctrl-C or SIGTERM.
async fn interrupt() -> std::io::Result<Interrupted> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed?,
        _ = terminate.recv() => {}
    }
    Ok(Interrupted)
}

fn report<T: Serialize + ?Sized>(format: Format, report: &T, text: fn(&T) -> String) -> anyhow::Result<()> {
    match format {
        Format::Text => print(&text(report)),
        Format::Json => print(&format!("{}\n", serde_json::to_string_pretty(report)?)),
    }
}

/// Prints to standard output; that nobody listens any more is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}
