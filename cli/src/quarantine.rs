//! `blackwater quarantine`, and the word about it after a run.

use std::process::ExitCode;

use anyhow::bail;
use blackwater_load::Entry;
use blackwater_pipeline::Pipeline;

use crate::{Format, Quarantine, report, text};

pub(crate) async fn run(action: &Quarantine, pipeline: &Pipeline, format: Format) -> anyhow::Result<()> {
    match action {
        Quarantine::List { table } => {
            report(format, pipeline.quarantine(table.as_deref(), &[]).await?.as_slice(), text::quarantine)
        }
        Quarantine::Show { table, key } => {
            let mut shown = Vec::new();
            for entry in found(pipeline, table, key).await? {
                shown.push(pipeline.with_source_row(entry).await?);
            }
            report(format, shown.as_slice(), text::shown)
        }
        Quarantine::Discard { table, key } => {
            let mut entries = found(pipeline, table, key).await?;
            entries.dedup_by(|one, other| one.key == other.key);
            let [entry] = entries.as_slice() else {
                bail!("{} keys of {table} have {}; name all columns of one", entries.len(), key.join(", "));
            };
            pipeline.load.discard(table, &entry.key).await?;
            report(format, entry, text::discarded)
        }
    }
}

/// The entries of a key, of which there must be some.
async fn found(pipeline: &Pipeline, table: &str, key: &[String]) -> anyhow::Result<Vec<Entry>> {
    let entries = pipeline.quarantine(Some(table), key).await?;
    if entries.is_empty() {
        let known: Vec<_> = pipeline.star_tables().collect();
        if !known.contains(&table) {
            bail!("the model pack has no star table {table}\nThere are {}", known.join(", "));
        }
        let of_key = if key.is_empty() { String::new() } else { format!(" with {}", key.join(", ")) };
        bail!(
            "no row of {table}{of_key} is in quarantine\n`blackwater quarantine list` shows those that are; of a key of several columns write each as \
               column=value"
        );
    }
    Ok(entries)
}

/// Says on standard error that rows are in quarantine.
pub(crate) fn warn(rows: u64, strict: bool) -> ExitCode {
    if rows == 0 {
        return ExitCode::SUCCESS;
    }
    let what = if rows == 1 { "1 row is".into() } else { format!("{rows} rows are") };
    eprintln!("{what} in quarantine: `blackwater quarantine list` says why");
    ExitCode::from(if strict { 3 } else { 0 })
}
