//! The demo: a made-up organization on a stand-in of GitHub, polled into Postgres, and through Blackwater into a warehouse; all of it
//! on this machine, gone when it ends.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, bail, ensure};
use blackwater_base::deadline::Deadline;
use blackwater_base::store::client;
use blackwater_http::Http;
use blackwater_local::postgres::Postgres;
use blackwater_local::s3::{ACCESS_KEY, S3, SECRET_KEY};
use chrono::{TimeDelta, Utc};
use contributors::config::Config;
use contributors::poll::Request;
use contributors::services::{GitHub, Model, TOKEN};
use contributors::{AGENT, Contributors};
use include_dir::{Dir, include_dir};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

static PACK: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../models/contributors");

/// How many issues and pull requests it has.
const ISSUES: usize = 300;
/// Large columns that no model reads.
const EXCLUDED: [&str; 6] =
    ["issues.body", "issues.raw", "pull_requests.body", "pull_requests.raw", "events.body", "events.raw"];

/// The questions for the warehouse: a title, and a query.
const QUESTIONS: [(&str, &str); 6] = [
    (
        "How long does a first response take? (issues and pull requests opened in the last months)",
        "SELECT repository, kind, to_char(month, 'YYYY-MM') AS opened_in, opened, answered, waiting, median_hours::numeric(8, 1), \
         mean_hours::numeric(8, 1) FROM time_to_first_response WHERE month >= now() - interval '70 days' ORDER BY 1, 2, 3",
    ),
    (
        "How long do issues and pull requests stay open? (closed in the last months)",
        "SELECT repository, kind, outcome, to_char(month, 'YYYY-MM') AS closed_in, closed, median_hours::numeric(8, 1), \
         mean_hours::numeric(8, 1) FROM time_to_close WHERE month >= now() - interval '70 days' ORDER BY 1, 2, 3, 4",
    ),
    (
        "Who contributes from outside?",
        "SELECT repository, to_char(month, 'YYYY-MM') AS month, contributors, new_in_repository, new_in_organization \
         FROM contributors_by_month ORDER BY 1, 2",
    ),
    (
        "Which issues are trending this week?",
        "SELECT repository, number, title, events, reactions FROM trending_open ORDER BY events DESC, reactions DESC, number LIMIT 5",
    ),
    (
        "Which closed issues still get comments?",
        "SELECT repository, number, title, events FROM trending_closed ORDER BY events DESC, number LIMIT 5",
    ),
    (
        "Which issues labelled pending-response have been answered?",
        "SELECT repository, number, title, answered_by FROM pending_response ORDER BY answered_at DESC LIMIT 5",
    ),
];

pub(crate) async fn run() -> anyhow::Result<()> {
    let blackwater = blackwater()?;
    let folder = tempfile::Builder::new().prefix("contributors-demo-").tempdir()?;
    print("Starting Postgres, an S3 server and a GitHub stand-in on this machine …\n")?;
    let server = tokio::task::spawn_blocking(|| Postgres::start(&[])).await??;
    let admin = connect(&server.url("postgres")).await?;
    for database in ["metrics", "warehouse"] {
        admin.batch_execute(&format!("CREATE DATABASE {database}")).await?;
    }
    let s3 = S3::start(&folder.path().join("answers"), &["contributors"]).await?;
    let github = GitHub::start("acme").await?;
    {
        let mut model = github.model();
        model.now = Utc::now() - TimeDelta::hours(1);
        model.populate(7, ISSUES);
    }
    let file = folder.path().join("contributors.toml");
    std::fs::write(&file, contributors_toml(&github, &server))?;
    let client = client(Some(&s3.endpoint()), Some((ACCESS_KEY, SECRET_KEY))).await;
    let contributors = Contributors::new(Config::read(Some(&file), std::iter::empty())?, client, Http::new(AGENT)?);

    heading("First poll: read the organization acme")?;
    poll(&contributors).await?;

    // This one reads the last minute again, and keeps the ETags.
    contributors.poll(&Request::at(Utc::now()), Deadline::NONE).await?;
    contributors.load(Deadline::NONE).await?;
    heading("Nothing changed: of the requests of a poll, GitHub counts one, the list of repositories")?;
    poll(&contributors).await?;

    heading(
        "One hour later: a comment, a merge, an issue transferred from shop to docs, and docs is renamed to handbook",
    )?;
    change(&mut github.model())?;
    poll(&contributors).await?;

    heading("Blackwater loads it into a star schema")?;
    let pack = folder.path().join("models/contributors");
    std::fs::create_dir_all(&pack)?;
    PACK.extract(&pack)?;
    let config = folder.path().join("blackwater.toml");
    std::fs::write(&config, blackwater_toml(&server))?;
    for command in ["run", "verify"] {
        let done = Command::new(&blackwater).arg(command).arg("--config").arg(&config).status();
        let done = done.with_context(|| format!("cannot start {}", blackwater.display()))?;
        ensure!(done.success(), "blackwater {command} failed; please report this");
    }

    let warehouse = connect(&server.url("warehouse")).await?;
    for (title, query) in QUESTIONS {
        heading(title)?;
        table(&warehouse, query).await.with_context(|| format!("cannot ask: {title}"))?;
    }
    print(
        "\nEverything started here has been removed. To try it on your organization, see companions/contributors/README.md.\n",
    )
}

/// The program that is beside this one, or on PATH.
fn blackwater() -> anyhow::Result<PathBuf> {
    let beside = std::env::current_exe()?.with_file_name("blackwater");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places =
        std::iter::once(beside).chain(std::env::split_paths(&path).map(|folder| folder.join("blackwater")));
    places.find(|place| place.is_file()).context(
        "the demo needs the program blackwater, beside this one or on PATH\nBuild both: cargo build --bin blackwater --bin contributors",
    )
}

fn contributors_toml(github: &GitHub, server: &Postgres) -> String {
    format!(
        "organization = \"acme\"\nfrom = \"2020-01\"\n\
         [github]\ntoken = \"{TOKEN}\"\napi = \"{}\"\n\
         [database]\nurl = \"{}\"\n",
        github.origin(),
        server.url("metrics")
    )
}

fn blackwater_toml(server: &Postgres) -> String {
    format!(
        "name = \"demo\"\nmodel = \"models/contributors\"\n\
         [source]\nurl = \"{}\"\nexclude = {EXCLUDED:?}\n\
         [warehouse]\nurl = \"{}\"\n\
         [ingestion]\nbucket = \"ingestion\"\n[processed]\nbucket = \"processed\"\n[s3]\ndirectory = \"buckets\"\n",
        server.url("metrics"),
        server.url("warehouse")
    )
}

async fn poll(contributors: &Contributors) -> anyhow::Result<()> {
    let polled = contributors.poll(&Request::at(Utc::now()), Deadline::NONE).await?;
    crate::show_poll(&polled)?;
    crate::show_load(&contributors.load(Deadline::NONE).await?)?;
    Ok(())
}

/// What happens in the hour.
fn change(model: &mut Model) -> anyhow::Result<()> {
    model.now = Utc::now();
    let named = |model: &Model, name: &str| model.repositories.values().find(|one| one.name == name).map(|one| one.id);
    let (Some(shop), Some(docs)) = (named(model, "shop"), named(model, "docs")) else { bail!("no shop") };
    let member = model.members.first().copied().context("no members")?;
    let open = |model: &Model, is_pull: bool| {
        let mut open = model.repositories[&shop].present().filter(|issue| issue.is_open);
        open.find(|issue| issue.pull_request.is_some() == is_pull).map(|issue| issue.number)
    };
    if let Some(number) = open(model, false) {
        model.comment(shop, number, member, "Thank you, we look into it.");
        model.transfer(shop, number, member, docs);
    }
    if let Some(number) = open(model, true) {
        model.merge(shop, number, member);
    }
    let closed = model.repositories[&shop].present().filter(|issue| !issue.is_open && issue.pull_request.is_none());
    let closed = closed.map(|issue| issue.number).last();
    let guest = model.people.values().find(|person| !model.members.contains(&person.id)).map(|person| person.id);
    if let (Some(number), Some(guest)) = (closed, guest) {
        model.comment(shop, number, guest, "It is back in the new version.");
    }
    model.rename_repository(docs, "handbook");
    Ok(())
}

async fn connect(url: &str) -> anyhow::Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Prints the rows of a query in columns.
async fn table(client: &Client, query: &str) -> anyhow::Result<()> {
    let mut lines: Vec<Vec<String>> = Vec::new();
    for message in client.simple_query(query).await? {
        match message {
            SimpleQueryMessage::RowDescription(columns) => {
                lines.push(columns.iter().map(|column| column.name().replace('_', " ")).collect());
            }
            SimpleQueryMessage::Row(row) => {
                lines.push((0..row.len()).map(|place| row.get(place).unwrap_or("–").to_owned()).collect());
            }
            _ => {}
        }
    }
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<_> = (0..columns).map(width).collect();
    let is_number = |text: &str| text == "–" || text.parse::<f64>().is_ok();
    for line in &lines {
        let cells = line.iter().zip(&widths).map(|(text, width)| match is_number(text) {
            true => format!("{text:>width$}"),
            false => format!("{text:<width$}"),
        });
        print(&format!("  {}\n", cells.collect::<Vec<_>>().join("  ").trim_end()))?;
    }
    if lines.len() < 2 {
        print("  none\n")?;
    }
    Ok(())
}

fn heading(text: &str) -> anyhow::Result<()> {
    print(&format!("\n── {text}\n\n"))
}

fn print(text: &str) -> anyhow::Result<()> {
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}
