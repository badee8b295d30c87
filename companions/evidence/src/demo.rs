//! The demo: a bucket, and stand-ins of Bitbucket, Google Drive and Slack, on this machine, gone when it ends.

use std::io::Write;

use anyhow::Context;
use blackwater_base::deadline::Deadline;
use blackwater_base::store::{Store, client};
use blackwater_http::Http;
use blackwater_local::s3::{ACCESS_KEY, S3, SECRET_KEY};
use evidence::config::Config;
use evidence::services::{BITBUCKET, FOLDER, SLACK, Services};
use evidence::{AGENT, Evidence, Request};
use serde_json::{Value, json};

pub(crate) async fn run() -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("evidence-demo-").tempdir()?;
    print("Starting an S3 server, and stand-ins of Bitbucket, Google Drive and Slack, on this machine …\n")?;
    let s3 = S3::start(folder.path(), &["evidence"]).await?;
    let services = Services::start().await?;
    let commit = |hash: &str, author: &str, date: &str, message: &str| json!({ "hash": hash, "date": date, "message": message, "author": { "raw": author } });
    let (ada, ben) = ("Ada <ada@example.com>", "Ben <ben@example.com>");
    {
        let mut known = services.known();
        known.commits.insert(
            "acme/shop".into(),
            vec![
                commit(
                    "5d01",
                    ada,
                    "2026-10-30T16:02:11+00:00",
                    "Merged in returns (pull request #7)\n\nTake returns\n",
                ),
                commit("9be2", ben, "2026-10-12T08:00:00+02:00", "Count the stock\n"),
                commit("77aa", "Eve <eve@example.com>", "2026-10-02T10:00:00+00:00", "Spell the labels\n"),
                // On a branch of its own, made in October and listed after what is older.
                commit("1f00", ada, "2026-09-28T10:00:00+00:00", "Begin\n"),
                commit("c0de", ben, "2026-10-05T10:00:00+00:00", "Try another till\n"),
            ],
        );
        known.commits.insert("acme/tools".into(), Vec::new());
        known.pulls.insert("acme/shop".into(), vec![json!({
            "id": 7, "title": "Take returns", "author": { "display_name": "Ada", "account_id": "1:ada" },
            "merge_commit": { "hash": "5d01" },
            "participants": [{ "user": { "display_name": "Ben", "account_id": "1:ben" }, "approved": true, "participated_on": "2026-10-30T15:00:00+00:00" }],
        })]);
    }
    let file = folder.path().join("evidence.toml");
    std::fs::write(&file, settings(&services.origin()))?;
    let client = client(Some(&s3.endpoint()), Some((ACCESS_KEY, SECRET_KEY))).await;
    let store = Store::new(client, "evidence", "store.bucket");
    let evidence = Evidence::new(Config::read(Some(&file), std::iter::empty())?, store.clone(), Http::new(AGENT)?);
    let request = Request { month: Some("2026-10".parse().map_err(anyhow::Error::msg)?), ..Request::default() };

    print("\n── What would be made of October\n")?;
    print(&(serde_json::to_string_pretty(&evidence.preview(request, Deadline::NONE).await?)? + "\n"))?;
    print("\n── It is made and delivered\n")?;
    let manifest = evidence.run(request, Deadline::NONE).await?;
    for (person, delivered) in &manifest.people {
        let zip =
            delivered.zip.as_ref().map_or("nothing".to_owned(), |zip| format!("{}, {} bytes", zip.key, zip.bytes));
        print(&format!("  {person}: {zip}\n"))?;
    }
    let key = manifest.people.get("BEN").and_then(|person| Some(person.zip.as_ref()?.key.clone()));
    let zip = store.get(&key.context("BEN has no zip; please report this")?).await?.unwrap_or_default();
    // It is stored as it is.
    let texts = String::from_utf8_lossy(&zip).into_owned();
    let begin = texts.find("approved ").unwrap_or_default();
    print("\n  What BEN did begins so:\n")?;
    for line in texts[begin..].lines().take(9) {
        print(&format!("    {line}\n"))?;
    }
    let known = services.known();
    let folder_of_month = known.files.first().context("nothing is in Drive; please report this")?;
    print(&format!("\n  In Drive, in the folder {}:\n", text(&folder_of_month["name"])))?;
    for file in &known.files[1..] {
        print(&format!("    {}\n", text(&file["name"])))?;
    }
    let message = known.messages.first().context("nobody was told; please report this")?;
    print(&format!("\n  In Slack, to {}:\n    {}\n", text(&message["channel"]), text(&message["text"])))?;
    print("\nEverything that was started here is gone.\n")
}

fn settings(origin: &str) -> String {
    format!(
        r##"zone = "Europe/Madrid"
[bitbucket]
repositories = ["acme/*"]
token = "{BITBUCKET}"
api = "{origin}/bitbucket"
[[people]]
name = "ADA"
emails = ["ada@example.com"]
accounts = ["1:ada"]
[[people]]
name = "BEN"
emails = ["ben@example.com"]
accounts = ["1:ben"]
[[people]]
name = "CID"
emails = ["cid@example.com"]
[store]
bucket = "evidence"
[drive]
folder = "{FOLDER}"
key = '{{"client_id": "a", "client_secret": "b", "refresh_token": "refresh"}}'
api = "{origin}"
login = "{origin}/drive-login"
[slack]
token = "{SLACK}"
api = "{origin}/slack"
complete = {{ channel = "#events", text = "*{{month_name}}* evidence is in S3 and Google Drive." }}
people = {{ channel = "#events", text = "*{{month_name}}* evidence is in S3 and Google Drive, but for commits of people I do not know: {{people}}" }}
repositories = {{ channel = "#urgent", text = "Repositories I do not find: {{repositories}}" }}
failed = {{ channel = "#urgent", text = "*{{month_name}}* evidence is not delivered: {{what}}" }}
"##
    )
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn print(text: &str) -> anyhow::Result<()> {
    Ok(write!(std::io::stdout(), "{text}")?)
}
