//! `gate`: checks files on this machine as an upload is checked; shows what an event would do; and is the function on AWS.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use blackwater_base::deadline::Deadline;
use blackwater_base::settings::variables;
use clap::{CommandFactory, Parser, Subcommand};
use gate::check::{check, check_set};
use gate::rules::Rules;
use gate::{Gate, report};
use serde::Serialize;

#[cfg(feature = "demo")]
mod demo;

/// Check uploaded files before they are let in
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The rules; gate.toml in this folder if none are named
    #[arg(short, long, global = true)]
    rules: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Check files as one upload: the report on standard output, exit code 3 if they are not let in
    Check {
        /// The files; - is standard input
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Show what would be done about an event of S3, and do nothing: the report, the copies, the issue, the mail
    ServeEvent {
        /// The event, as JSON; - is standard input
        event: PathBuf,
    },
    /// See it work on this machine: an upload that is let in, one that is not
    #[cfg(feature = "demo")]
    Demo,
}

/// The report.
#[derive(Serialize)]
struct Report {
    file_set: Vec<report::File>,
}

/// Nothing went wrong, and the files are not let in.
const INVALID: u8 = 3;

fn main() -> ExitCode {
    blackwater_function::main::<Gate, _>(async || {
        let is_let_in = run(&Arguments::parse()).await?;
        anyhow::Ok(if is_let_in { 0 } else { INVALID })
    })
}

/// Whether the files are let in.
async fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let file = arguments.rules.as_deref();
    match &arguments.command {
        Some(Command::Check { files }) => {
            if !Rules::is_there(file) {
                eprintln!("no gate.toml here: checked by the defaults, which know no kinds; --rules names a file");
            }
            check_files(&Rules::read(file, variables())?, files)
        }
        Some(Command::ServeEvent { event }) => serve_event(Rules::read_for_buckets(file, variables())?, event).await,
        #[cfg(feature = "demo")]
        Some(Command::Demo) => demo::run().await.map(|()| true),
        None => {
            Arguments::command().print_help()?;
            Ok(true)
        }
    }
}

/// Whether all that an event is about would be let in.
async fn serve_event(rules: Rules, path: &Path) -> anyhow::Result<bool> {
    let failed = || format!("cannot read {}", path.display());
    let text = match path == Path::new("-") {
        true => io::read_to_string(io::stdin()),
        false => std::fs::read_to_string(path),
    };
    let event = serde_json::from_str(&text.with_context(failed)?).with_context(failed)?;
    let previews = Gate::on_aws(rules).await?.preview(&event, Deadline::NONE).await?;
    anyhow::ensure!(
        !previews.is_empty(),
        "{} is about no upload: its bucket is not drop.bucket, its key is not as drop.layout says, or the file is gone",
        path.display()
    );
    writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&previews)?)?;
    Ok(previews.iter().all(|preview| preview.mail.is_none()))
}

/// Whether the files are let in.
fn check_files(rules: &Rules, files: &[PathBuf]) -> anyhow::Result<bool> {
    let mut known = BTreeSet::new();
    if let Some(twice) = files.iter().find(|file| !known.insert(*file)) {
        anyhow::bail!("{} is named twice: an upload has a file once", twice.display());
    }
    let mut checked: Vec<_> = files.iter().map(|file| check_file(rules, file)).collect::<Result<_, _>>()?;
    check_set(rules, &mut checked);
    let is_valid = checked.iter().all(|file| file.csv_valid);
    let report = serde_json::to_string_pretty(&Report { file_set: checked })?;
    writeln!(io::stdout(), "{report}")?;
    Ok(is_valid)
}

fn check_file(rules: &Rules, path: &Path) -> anyhow::Result<report::File> {
    let key = path.display().to_string();
    let failed = || format!("cannot read {key}");
    if path == Path::new("-") {
        return check(rules, &key, None, io::stdin().lock()).with_context(failed);
    }
    let file = File::open(path).with_context(failed)?;
    let size = file.metadata().with_context(failed)?;
    // Of a pipe nobody knows the size.
    let size = size.is_file().then_some(size.len());
    check(rules, &key, size, file).with_context(failed)
}
