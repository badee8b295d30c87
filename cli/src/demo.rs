//! The demo: a source, two buckets and a warehouse of its own on this machine, gone when it ends.

use std::time::Instant;

use anyhow::Context;
use blackwater_local::postgres::Postgres;
use blackwater_local::totesys;
use blackwater_shared::config::Config;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::{open, print, text};

pub(crate) async fn run() -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("blackwater-demo-").tempdir()?;
    print("Starting a private Postgres and an S3 server on this machine …\n")?;
    let server = tokio::task::spawn_blocking(|| Postgres::start(&[])).await??;
    let admin = connect(&server.url("postgres")).await?;
    admin.batch_execute("CREATE DATABASE totesys").await?;
    admin.batch_execute("CREATE DATABASE warehouse").await?;
    let source = connect(&server.url("totesys")).await?;
    totesys::create(&source).await.context("cannot load the sample data")?;
    totesys::write_pack(&folder.path().join("models/totesys"))?;
    let file = folder.path().join("blackwater.toml");
    std::fs::write(&file, configuration(&server))?;
    let config = Config::load(Some(&file), std::iter::empty())?;
    let (pipeline, _buckets) = open(&config).await?;

    for (title, changes) in [("The first batch: everything", None), ("Changes", Some(totesys::file("changes.sql")))] {
        print(&format!("\n{title}\n"))?;
        if let Some(changes) = changes {
            let steps = changes
                .lines()
                .filter_map(|line| line.strip_prefix("-- "))
                .filter(|line| line.starts_with(|c: char| c.is_ascii_digit()));
            print(&steps.map(|step| format!("  {step}\n")).collect::<String>())?;
            source.batch_execute(changes).await.context("cannot change the sample data")?;
        }
        let started = Instant::now();
        let report = pipeline.run().await?;
        print(&format!("{}{:.1} s\n", text::run(&report), started.elapsed().as_secs_f64()))?;
    }
    print("\nOnce more, with nothing changed\n")?;
    print(&text::run(&pipeline.run().await?))?;

    print("\nWhat does not fit is set aside, and the rest goes on\n")?;
    print(&text::quarantine(&pipeline.quarantine(None, &[]).await?))?;
    print("\nThe warehouse beside the source, whole row by whole row\n")?;
    let verification = pipeline.verify().await?.context("no batch is applied")?;
    print(&text::verify(&verification))?;
    let different: u64 = verification.tables.iter().map(|table| table.different).sum();
    anyhow::ensure!(different == 0, "the two sides differ; please report this");

    let warehouse = connect(&server.url("warehouse")).await?;
    let left = ask(&source, totesys::file("question.source.sql")).await?;
    let right = ask(&warehouse, totesys::file("question.warehouse.sql")).await?;
    print(&format!("\nThe same question on each side: what was sold most\nsource\n{left}warehouse\n{right}"))?;
    anyhow::ensure!(left == right, "the two sides disagree; please report this");
    print("\nThey agree. Everything started here is gone now. To use your own databases, see the README.\n")
}

fn configuration(server: &Postgres) -> String {
    format!(
        r#"name = "totesys"
model = "models/totesys"
[source]
url = "{}"
[warehouse]
url = "{}"
[ingestion]
bucket = "totesys-ingestion"
[processed]
bucket = "totesys-processed"
[s3]
directory = "buckets"
"#,
        server.url("totesys"),
        server.url("warehouse")
    )
}

async fn connect(url: &str) -> anyhow::Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn ask(client: &Client, question: &str) -> anyhow::Result<String> {
    let (mut columns, mut rows) = (Vec::new(), Vec::new());
    for message in client.simple_query(question).await? {
        if let SimpleQueryMessage::Row(row) = message {
            columns = row.columns().iter().map(|column| column.name().to_owned()).collect();
            rows.push((0..row.len()).map(|place| row.get(place).unwrap_or("NULL").to_owned()).collect());
        }
    }
    Ok(text::answer(columns, rows))
}
