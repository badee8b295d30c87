//! Benchmarks: `bench functions` and `bench load`, or both. They run the functions that `make package` builds, or those in the folder
//! that comes last.

mod functions;
mod load;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use blackwater_local::s3::{ACCESS_KEY, S3, SECRET_KEY};
use blackwater_tests::{BUCKETS, World};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no workspace")?;
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let programs = arguments.get(1).map_or_else(|| workspace.join("target/lambda"), PathBuf::from);
    match arguments.first().map(String::as_str) {
        Some("functions") => functions::measure_all(workspace).await,
        Some("load") => load::measure_all(&programs).await,
        None => {
            functions::measure_all(workspace).await?;
            load::measure_all(&programs).await
        }
        Some(other) => bail!("there is no benchmark {other}: functions, load"),
    }
}

/// The variables of functions that work on a world's databases and buckets.
fn variables(world: &World, s3: &S3) -> Vec<(String, String)> {
    [
        ("AWS_ENDPOINT_URL_S3", s3.endpoint()),
        ("AWS_REGION", "us-east-1".into()),
        ("AWS_DEFAULT_REGION", "us-east-1".into()), // boto3's
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY.into()),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.into()),
        ("BLACKWATER_NAME", "bench".into()),
        ("BLACKWATER_MODEL", world.pack().display().to_string()),
        ("BLACKWATER_SOURCE__URL", world.server.url("source")),
        ("BLACKWATER_WAREHOUSE__URL", world.server.url("warehouse")),
        ("BLACKWATER_INGESTION__BUCKET", BUCKETS[0].into()),
        ("BLACKWATER_PROCESSED__BUCKET", BUCKETS[1].into()),
        ("POLARS_MAX_THREADS", "2".into()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}
