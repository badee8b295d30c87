//! Benchmarks: `bench functions`, `bench load`, `bench pipeline`, `bench changed`, `bench extract`, `bench gate`, `bench backup` and
//! `bench contributors`, or all. The first two run the functions that `make package` builds, or those in the folder that comes
//! last; the others the programs that `make release` builds. `bench extract 1000000` stops at a million rows: ten million take 7 GB
//! of disk.

mod backup;
mod changed;
mod contributors;
mod extract;
mod functions;
mod gate;
mod load;
mod pipeline;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no workspace")?;
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let programs = arguments.get(1).map_or_else(|| workspace.join("target/lambda"), PathBuf::from);
    match arguments.first().map(String::as_str) {
        Some("functions") => functions::measure_all(workspace).await,
        Some("load") => load::measure_all(&programs).await,
        Some("pipeline") => pipeline::measure_all(workspace).await,
        Some("changed") => changed::measure_all(workspace).await,
        Some("extract") => {
            let most = arguments.get(1).map(|most| most.parse().context("the most sales are no number"));
            extract::measure_all(workspace, most.transpose()?.unwrap_or(u32::MAX)).await
        }
        Some("gate") => gate::measure_all(workspace).await,
        Some("backup") => backup::measure_all(workspace).await,
        Some("contributors") => contributors::measure_all(workspace).await,
        None => {
            functions::measure_all(workspace).await?;
            load::measure_all(&programs).await?;
            pipeline::measure_all(workspace).await?;
            changed::measure_all(workspace).await?;
            extract::measure_all(workspace, u32::MAX).await?;
            gate::measure_all(workspace).await?;
            backup::measure_all(workspace).await?;
            contributors::measure_all(workspace).await
        }
        Some(other) => {
            bail!(
                "there is no benchmark {other}: functions, load, pipeline, changed, extract, gate, backup, contributors"
            )
        }
    }
}
