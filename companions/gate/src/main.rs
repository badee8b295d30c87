//! `gate`: checks files on this machine as an upload is checked.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use gate::check::{check, check_set};
use gate::report;
use gate::rules::Rules;
use serde::Serialize;

/// Check uploaded files before they are let in
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The rules; gate.toml in this folder if none are named
    #[arg(short, long, global = true)]
    rules: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check files as one upload: the report on standard output, exit code 3 if they are not let in
    Check {
        /// The files; - is standard input
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

/// The report.
#[derive(Serialize)]
struct Report {
    file_set: Vec<report::File>,
}

/// Nothing went wrong, and the files are not let in.
const INVALID: u8 = 3;
/// The rules or the files cannot be read.
const FAILED: u8 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(INVALID),
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(FAILED)
        }
    }
}

/// Whether the files are let in.
fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let rules = Rules::read(
        arguments.rules.as_deref(),
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
    )?;
    let Command::Check { files } = &arguments.command;
    let mut checked: Vec<_> = files.iter().map(|file| check_file(&rules, file)).collect::<Result<_, _>>()?;
    check_set(&rules, &mut checked);
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
