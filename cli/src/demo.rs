//! The demo: a source, two buckets and a warehouse of its own on this machine, gone when it ends.

use anyhow::Context;
use blackwater_base::progress::progress;
use blackwater_base::secrets;
use blackwater_local::postgres::Postgres;
use blackwater_local::totesys;
use blackwater_shared::config::Config;
use tokio_postgres::{Client, NoTls};

use crate::{open, print, text};

/// `deals` are the orders to make on top of the sample; with `keep` it waits, with everything there, to be ended.
pub(crate) async fn run(deals: u32, keep: bool) -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("blackwater-demo-").tempdir()?;
    print("Starting a private Postgres and an S3 server on this machine …\n")?;
    let server = tokio::task::spawn_blocking(|| Postgres::start(&[])).await??;
    let admin = connect(&server.url("postgres")).await?;
    admin.batch_execute("CREATE DATABASE totesys").await?;
    admin.batch_execute("CREATE DATABASE warehouse").await?;
    let source = connect(&server.url("totesys")).await?;
    print(&format!("Making a source database: two years of a trading company, {deals} orders …\n"))?;
    progress("making the source", 0, 0);
    totesys::create(&source).await.context("cannot load the sample data")?;
    totesys::make_deals(&source, deals).await.context("cannot make orders")?;
    totesys::write_pack(&folder.path().join("models/totesys"))?;
    let file = folder.path().join("blackwater.toml");
    std::fs::write(&file, configuration(&server))?;
    let config = Config::load(Some(&file), std::iter::empty(), secrets::fetch).await?;
    let (pipeline, _buckets) = open(&config).await?;

    heading("First, everything")?;
    pipeline.run(|done| print(&text::run(&done))).await?;

    heading("Then changes of every kind")?;
    let open = connect(&server.url("totesys")).await?;
    open.batch_execute("BEGIN").await?;
    change(&open, "late.sql").await?;
    change(&source, "changes.sql").await?;
    pipeline.run(|done| print(&text::run(&done))).await?;
    print("\nThese rows do not fit. They are set aside, with the reason, and all else went on:\n")?;
    print(&text::quarantine(&pipeline.quarantine(None, &[]).await?))?;

    heading("A transaction that was open all the while commits, and what did not fit is put right")?;
    open.batch_execute("COMMIT").await?;
    change(&source, "put_right.sql").await?;
    pipeline.run(|done| print(&text::run(&done))).await?;

    heading("Once more, with nothing changed")?;
    pipeline.run(|done| print(&text::run(&done))).await?;

    heading("The warehouse beside the source, whole row by whole row")?;
    let verification = pipeline.verify().await?.context("no batch is applied")?;
    print(&text::verify(&verification))?;
    let differs = verification.tables.iter().any(|table| table.equal == 0 || table.different + table.not_yet > 0);
    anyhow::ensure!(!differs, "the two sides differ; please report this");

    let warehouse = connect(&server.url("warehouse")).await?;
    for (title, query) in totesys::questions() {
        heading(title)?;
        let rows = warehouse.query(query, &[]).await.with_context(|| format!("cannot ask for {title}"))?;
        let rows: Vec<_> = rows.iter().map(|row| (row.get::<_, String>(0), row.get::<_, f64>(1))).collect();
        print(&text::bars(&rows))?;
    }
    match keep {
        false => print(GONE),
        true => {
            print(&format!(
                "\nAll of it is running, until Ctrl-C. In another terminal:\n  \
                 psql '{source}'        # the source: change something\n  \
                 psql '{warehouse}'      # the warehouse\n  \
                 alias bw='{program} --config {file}'\n  \
                 bw run; bw status; bw verify; bw quarantine list\n\
                 The buckets are in {buckets}\n",
                source = server.url("totesys"),
                warehouse = server.url("warehouse"),
                program = std::env::current_exe()?.display(),
                file = file.display(),
                buckets = folder.path().join("buckets").display(),
            ))?;
            std::future::pending().await
        }
    }
}

const GONE: &str = "
Everything that was started here is gone. What to try next:
  blackwater demo --keep         the same, left running: change the source, run, compare
  blackwater demo --rows 100000  with more orders
  the README's next section      your own databases, in five steps
";

fn heading(text: &str) -> anyhow::Result<()> {
    print(&format!("\n── {text}\n"))
}

/// Changes the source as a file of the sample says, and prints what each step is.
async fn change(client: &Client, file: &str) -> anyhow::Result<()> {
    let sql = totesys::file(file);
    let steps = sql.lines().filter_map(|line| line.strip_prefix("-- "));
    let steps = steps.filter(|line| line.starts_with(|first: char| first.is_ascii_digit()));
    print(&steps.map(|step| format!("  {step}\n")).collect::<String>())?;
    client.batch_execute(sql).await.with_context(|| format!("cannot change the source by {file}"))
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
