//! The demo: two buckets and the services that a gate speaks with, on this machine, gone when it ends.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::Context;
use blackwater_base::deadline::Deadline;
use blackwater_base::store::{Store, client};
use blackwater_http::Http;
use blackwater_local::s3::{ACCESS_KEY, S3, SECRET_KEY};
use gate::mail::Ses;
use gate::rules::Rules;
use gate::services::{GITHUB, REPOSITORY, Services, WEBHOOK};
use gate::{AGENT, Gate};
use serde_json::{Value, json};

/// The rules that come with it.
const RULES: &str = include_str!("../gate.toml");
const FOLDER: &str = "X01000000/2026-05-07/2026-03-30T17:00:02.396833";

pub(crate) async fn run() -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("gate-demo-").tempdir()?;
    print(
        "Starting an S3 server, and stand-ins of GitHub, SES, a council's register and a webhook, on this machine …\n",
    )?;
    let s3 = S3::start(&folder.path().join("buckets"), &["drop", "final"]).await?;
    let services = Services::start().await?;
    services.known().names = BTreeMap::from([("X01000000".to_owned(), "Piddleton Parish Council".to_owned())]);
    let file = folder.path().join("gate.toml");
    std::fs::write(&file, RULES)?;
    let rules = Rules::read_for_buckets(Some(&file), variables(&services.origin()).into_iter())?;
    let client = client(Some(&s3.endpoint()), Some((ACCESS_KEY, SECRET_KEY))).await;
    let (drop, last) = (Store::new(client.clone(), "drop", "drop.bucket"), Store::new(client, "final", "final.bucket"));
    let ses = Ses::at(&services.origin(), ACCESS_KEY, SECRET_KEY);
    let gate = Gate::new(rules, drop.clone(), last.clone(), ses, Http::new(AGENT)?);

    heading("Two files are uploaded, of a kind of which one is not enough")?;
    upload(&gate, &drop, "stations.csv", &table("Xordinate,Yordinate,Name,Address", 60)).await?;
    upload(&gate, &drop, "districts.csv", &table("Street,Postcode,Xordinate,Station", 900)).await?;
    let issue = services.known().issues.first().cloned().context("no issue was raised; please report this")?;
    print(&format!("\nThe issue, {}\n  {}\n", text(&issue["html_url"]), text(&issue["title"])))?;
    print(&indented(text(&issue["body"])))?;
    print("\nIn the final bucket:\n")?;
    for key in last.list("", "", 100).await? {
        print(&format!("  {key}\n"))?;
    }

    heading("The same events once more: everything is known, nothing is done twice")?;
    let event = event(&format!("{FOLDER}/stations.csv"));
    let outcomes = gate.receive(&event, Deadline::NONE).await?;
    let issues = services.known().issues.len();
    print(&format!("  {}, and there is still {issues} issue\n", serde_json::to_value(outcomes[0].status)?))?;

    heading("Another upload, whose last row is cut")?;
    let cut = table("HouseID,Street,Postcode", 300) + "301,";
    let key = format!("{}/cut.csv", FOLDER.replace("17:00", "18:30"));
    upload_to(&gate, &drop, &key, &cut).await?;
    let mail = services.known().mails.first().cloned().context("no mail was sent; please report this")?;
    let content = &mail["Content"]["Simple"];
    print(&format!(
        "\nThe mail, to {}\n  {}\n\n",
        mail["Destination"]["ToAddresses"][0],
        text(&content["Subject"]["Data"])
    ))?;
    print(&indented(text(&content["Body"]["Text"]["Data"])))?;

    let told = services.known().reports.len();
    print(&format!("\nThe webhook was told {told} times. Everything that was started here is gone.\n"))
}

/// Uploads a file, and has the gate receive S3's event.
async fn upload(gate: &Gate, drop: &Store, name: &str, text: &str) -> anyhow::Result<()> {
    upload_to(gate, drop, &format!("{FOLDER}/{name}"), text).await
}

async fn upload_to(gate: &Gate, drop: &Store, key: &str, text: &str) -> anyhow::Result<()> {
    drop.put(key, text.to_owned().into()).await?;
    print(&format!("  {key}\n"))?;
    let outcomes = gate.receive(&event(key), Deadline::NONE).await?;
    for outcome in outcomes {
        print(&indented(&serde_json::to_string_pretty(&outcome)?))?;
    }
    Ok(())
}

fn event(key: &str) -> Value {
    json!({ "Records": [{ "s3": { "bucket": { "name": "drop" }, "object": { "key": key.replace(':', "%3A") } } }] })
}

fn variables(origin: &str) -> Vec<(String, String)> {
    [
        ("DROP__BUCKET", "drop".to_owned()),
        ("FINAL__BUCKET", "final".to_owned()),
        ("NAMES__URL", format!("{origin}/names/{{area}}.json")),
        ("ISSUE__API", origin.to_owned()),
        ("ISSUE__REPOSITORY", REPOSITORY.to_owned()),
        ("ISSUE__TOKEN", GITHUB.to_owned()),
        ("MAIL__FROM", "gate@example.com".to_owned()),
        ("MAIL__TO", "data@example.com".to_owned()),
        ("WEBHOOK__URL", format!("{origin}/uploads/")),
        ("WEBHOOK__TOKEN", WEBHOOK.to_owned()),
    ]
    .map(|(name, value)| (format!("GATE_{name}"), value))
    .into()
}

fn table(header: &str, rows: usize) -> String {
    let columns = header.split(',').count();
    let row = |row: usize| (0..columns).map(|column| format!("{row}.{column}")).collect::<Vec<_>>().join(",") + "\n";
    format!("{header}\n") + &(1..=rows).map(row).collect::<String>()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

fn heading(text: &str) -> anyhow::Result<()> {
    print(&format!("\n── {text}\n"))
}

fn print(text: &str) -> anyhow::Result<()> {
    Ok(write!(std::io::stdout(), "{text}")?)
}
