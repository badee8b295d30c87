//! The gate as Lambda runs it: its program, and events.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use blackwater_local::s3::{ACCESS_KEY, SECRET_KEY};
use blackwater_tests::Function;
use gate::services::{GITHUB, Instead, WEBHOOK};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use crate::world::{FOLDER, HALAROSE, World, event, everything, key, table};

/// Starts the program between the buckets of a world, with these settings. Mails go to `ses`.
async fn start(world: &World, settings: Vec<(&'static str, String)>, ses: &str) -> Function {
    let buckets = [("DROP__BUCKET", "drop".to_owned()), ("FINAL__BUCKET", "final".to_owned())];
    let settings = buckets.into_iter().chain(settings).map(|(name, value)| (format!("GATE_{name}"), value));
    let aws = [
        ("AWS_REGION", "eu-west-2"),
        ("AWS_ENDPOINT_URL_S3", &world.s3.endpoint()),
        ("AWS_ENDPOINT_URL", ses),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
    ];
    let aws = aws.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let variables: Vec<_> = settings.chain(aws).collect();
    Function::start(&[PathBuf::from(env!("CARGO_BIN_EXE_gate"))], &variables, Duration::from_secs(30)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn events_bring_uploads_and_the_schedule_the_sweep() {
    let world = World::start().await;
    let function = start(&world, everything(&world.services), &world.services.origin()).await;
    assert_eq!(function.invoke(json!({ "Event": "s3:TestEvent", "Bucket": "drop" })).await, Ok(Value::Null));
    world.upload(&[("data.csv", &table(HALAROSE, 10))]).await;
    world.services.instead("POST /uploads/", [Instead::status(500)]);
    let outcomes = function.invoke(event("drop", &key("data.csv"))).await.unwrap();
    assert_eq!(outcomes[0]["status"], "untold");
    assert_eq!(function.invoke(event("drop", &key("data.csv"))).await.unwrap()[0]["status"], "let_in");
    world.upload(&[("more.csv", &(table(HALAROSE, 10) + "1,2"))]).await;
    let outcomes = function.invoke(json!({ "source": "aws.scheduler" })).await.unwrap();
    assert_eq!((&outcomes[0]["prefix"], &outcomes[0]["status"]), (&FOLDER.into(), &"turned_away".into()));
    assert_eq!(world.services.known().mails.len(), 1);

    // What is wrong has a name that stays, and words that help.
    let other = "X01000000/2019-12-12/other/data.csv";
    world.drop.put(other, table(HALAROSE, 10).into()).await.unwrap();
    world.services.instead("POST /repos/acme/data/issues", [Instead::status(404)]);
    let error = function.invoke(event("drop", other)).await.unwrap_err();
    assert_eq!(error["errorType"], "Issue");
    let message = error["errorMessage"].as_str().unwrap();
    assert!(message.contains("issue.repository"), "{message}");

    let lines = function.end().await;
    let metrics: Vec<_> = lines.iter().filter(|line| line.get("_aws").is_some()).collect();
    assert_eq!(metrics.len(), 3);
    assert_eq!((&metrics[0]["bucket"], &metrics[0]["UploadsUntold"]), (&"drop".into(), &1.into()));
    let text = lines.iter().map(Value::to_string).collect::<String>();
    assert!(!text.contains(GITHUB) && !text.contains(WEBHOOK), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_told_to_sentry_and_what_github_leaves_out_is_logged() {
    let world = World::start().await;
    let mut settings = everything(&world.services);
    settings.push(("SENTRY__DSN", world.services.origin().replace("://", "://key@") + "/42"));
    let function = start(&world, settings, &world.services.origin()).await;
    world.upload(&[("data.csv", &table(HALAROSE, 10))]).await;
    world.services.instead("POST /repos/acme/data/issues", [Instead::status(410)]);
    function.invoke(event("drop", &key("data.csv"))).await.unwrap_err();
    world.services.known().drops_labels = true;
    assert_eq!(function.invoke(event("drop", &key("data.csv"))).await.unwrap()[0]["status"], "let_in");
    {
        let known = world.services.known();
        assert_eq!(known.errors.len(), 1);
        let error = &known.errors[0]["exception"]["values"][0];
        assert_eq!(error["type"], "Issue");
        assert!(error["value"].as_str().unwrap().contains("410 Gone"), "{error}");
    }
    let lines = function.end().await;
    let is_warned = |line: &Value| {
        line["level"] == "WARN"
            && line["message"].as_str().unwrap().contains("has not got the labels Data Import, ready")
    };
    assert!(lines.iter().any(is_warned), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_configured_is_logged_as_it_would_be_sent() {
    let world = World::with(|_| Vec::new()).await;
    let function = start(&world, Vec::new(), &world.services.origin()).await;
    let bad = "X01000000/2019-12-12/bad/data.csv";
    world.drop.put(bad, (table(HALAROSE, 10) + "1,2").into()).await.unwrap();
    world.upload(&[("data.csv", &table(HALAROSE, 10))]).await;
    function.invoke(event("drop", &key("data.csv"))).await.unwrap();
    function.invoke(event("drop", bad)).await.unwrap();
    assert_eq!(world.calls(), Vec::<String>::new());
    let lines = function.end().await;
    let said =
        |begin: &str| lines.iter().find(|line| line["message"].as_str().is_some_and(|text| text.starts_with(begin)));
    let issue = said("no issue is raised").unwrap();
    assert_eq!(issue["title"], "Import X01000000-X01000000 for 2019-12-12");
    assert!(issue["body"].as_str().unwrap().contains(&key("data.csv")));
    let mail = said("no mail is sent").unwrap();
    assert!(mail["text"].as_str().unwrap().contains("Incomplete file"), "{mail}");
    assert!(said("the webhook is not told").unwrap()["report"].as_str().unwrap().contains("file_set"));
}

#[tokio::test(flavor = "multi_thread")]
async fn mails_are_sent_as_ses_takes_them_and_tokens_come_from_secrets() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = folder.join("../../target/tools/moto/bin/python");
    assert!(python.exists(), "no {}: run `make test`", python.display());
    let mut server = Command::new(python)
        .arg(folder.join("tests/aws.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let ses: String = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
    let world = World::start().await;
    let function = start(&world, everything(&world.services), &ses).await;
    world.upload(&[("data.csv", &(table(HALAROSE, 10) + "1,2"))]).await;
    assert_eq!(function.invoke(event("drop", &key("data.csv"))).await.unwrap()[0]["status"], "turned_away");
    server.stdin.as_mut().unwrap().write_all(b"sent\n").await.unwrap();
    let sent: Value = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
    assert_eq!(sent.as_array().unwrap().len(), 1, "{sent}");
    assert_eq!(sent[0]["from"], "gate@example.com");
    assert_eq!(sent[0]["to"], json!({ "ToAddresses": ["data@example.com"] }));
    assert_eq!(sent[0]["subject"], "Error with data for council X01000000-Piddleton Parish Council");
    assert!(sent[0]["text"].as_str().unwrap().ends_with("\n\n\nPlease follow up."), "{sent}");

    // The token for issues, from its secret.
    let with_secret = |name: &str| {
        let settings = everything(&world.services).into_iter().filter(|(setting, _)| *setting != "ISSUE__TOKEN");
        settings.chain([("ISSUE__SECRET", name.to_owned())]).collect::<Vec<_>>()
    };
    let function = start(&world, with_secret("gate/issue"), &ses).await;
    let valid = "X01000000/2019-12-12/valid/data.csv";
    world.drop.put(valid, table(HALAROSE, 10).into()).await.unwrap();
    assert_eq!(function.invoke(event("drop", valid)).await.unwrap()[0]["status"], "let_in");
    assert_eq!(world.services.known().issues.len(), 1);
    let lines = function.end().await;
    assert!(!lines.iter().any(|line| line.to_string().contains(GITHUB)), "{lines:?}");
    let function = start(&world, with_secret("gate/none"), &ses).await;
    let other = "X01000000/2019-12-12/more/data.csv";
    world.drop.put(other, table(HALAROSE, 10).into()).await.unwrap();
    let error = function.invoke(event("drop", other)).await.unwrap_err();
    assert_eq!(error["errorType"], "Secret");
    assert!(error["errorMessage"].as_str().unwrap().contains("cannot use the secret gate/none"), "{error}");

    // An address that SES may not send for.
    let mut settings = everything(&world.services);
    settings.push(("MAIL__FROM", "other@example.com".to_owned()));
    let function = start(&world, settings, &ses).await;
    let other = "X01000000/2019-12-12/other/data.csv";
    world.drop.put(other, (table(HALAROSE, 10) + "1,2").into()).await.unwrap();
    let error = function.invoke(event("drop", other)).await.unwrap_err();
    assert_eq!(error["errorType"], "Mail");
    assert!(error["errorMessage"].as_str().unwrap().contains("See that mail.from is an address"), "{error}");
}
