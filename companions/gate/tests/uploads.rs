//! What becomes of uploads, with the services that are told of them.

use std::time::Duration;

use blackwater_base::store::JSON;
use gate::Status;
use gate::services::Instead;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::world::{AREA, DISTRICTS, FOLDER, HALAROSE, STATIONS, World, event, everything, key, table, within};

const NAMES: &str = "GET /names/X01000000.json";
const LIST: &str = "GET /repos/acme/data/issues";
const RAISE: &str = "POST /repos/acme/data/issues";
const TELL: &str = "POST /uploads/";
const MAIL: &str = "POST /v2/email/outbound-emails";

fn cut(rows: usize) -> String {
    table(HALAROSE, rows) + "1,2\n"
}

#[tokio::test]
async fn a_valid_file_is_let_in_with_an_issue_and_a_report() {
    let world = World::start().await;
    world.upload(&[("data.csv", &table(HALAROSE, 10))]).await;
    let outcome = world.receive("data.csv").await.unwrap();
    assert_eq!(outcome.status, Status::LetIn);
    assert_eq!(world.calls(), [NAMES, LIST, RAISE, TELL]);
    assert_eq!(world.let_in().await, [key("data.csv"), key("report.json")]);
    assert_eq!(world.mails(), Vec::<String>::new());

    // Byte for byte, as its readers know it.
    let expected = format!(
        r#"{{
  "gss": "X01000000",
  "council_name": "Piddleton Parish Council",
  "timestamp": "2019-09-30T17:00:02.396833",
  "election_date": "2019-12-12",
  "github_issue": "https://github.com/acme/data/issues/1",
  "file_set": [
    {{
      "csv_valid": true,
      "csv_rows": 10,
      "csv_encoding": "utf-8",
      "ems": "Idox Eros (Halarose)",
      "errors": "",
      "key": "{FOLDER}/data.csv"
    }}
  ]
}}"#
    );
    let report = world.last.get(&key("report.json")).await.unwrap().unwrap();
    assert_eq!(std::str::from_utf8(&report).unwrap(), expected);
    let head = world.client.head_object().bucket("final").key(key("report.json")).send().await.unwrap();
    assert_eq!(head.content_type(), Some(JSON));
    let known = world.services.known();
    assert_eq!(known.reports, [serde_json::from_str::<Value>(&expected).unwrap()]);
    let issue = &known.issues[0];
    assert_eq!(issue["title"], "Import X01000000-Piddleton Parish Council for 2019-12-12");
    assert_eq!(issue["body"], format!("EMS: Idox Eros (Halarose)\nFiles:\n- `{FOLDER}/data.csv`"));
    assert_eq!(issue["labels"], json!([{ "name": "Data Import" }, { "name": "ready" }]));
}

#[tokio::test]
async fn a_file_is_read_once_and_one_that_is_too_large_not_at_all() {
    let world = World::watched(|services| {
        let mut settings = everything(services);
        settings.push(("LIMITS__MAX_BYTES", "20000000".into()));
        settings
    })
    .await;
    // The only bad row is the last.
    let large = table(HALAROSE, 10) + &"1,2,3,4\n".repeat(1_000_000) + "1,2,3\n";
    world.upload(&[("large.csv", &large), ("larger.csv", &large.repeat(3))]).await;
    let outcome = world.receive("large.csv").await.unwrap();
    assert_eq!(outcome.status, Status::TurnedAway);
    let errors: Vec<_> = outcome.report.unwrap().file_set.into_iter().map(|file| file.errors).collect();
    assert_eq!(
        errors,
        ["Incomplete file: Expected 4 columns on row 1000011 found 3", "Expected file to be under 20MB"]
    );
    let reads = world.reads.lock().unwrap().clone();
    assert_eq!(reads, [key("large.csv").replace(':', "%3A")]);
}

#[tokio::test]
async fn a_file_keeps_its_content_type() {
    let world = World::start().await;
    let put = world.client.put_object().bucket("drop").key(key("data.csv")).content_type("application/vnd.ms-excel");
    put.body(table(HALAROSE, 10).into_bytes().into()).send().await.unwrap();
    assert_eq!(world.receive("data.csv").await.unwrap().status, Status::LetIn);
    let copied = world.client.head_object().bucket("final").key(key("data.csv")).send().await.unwrap();
    assert_eq!(copied.content_type(), Some("application/vnd.ms-excel"));
}

#[tokio::test]
async fn files_of_one_upload_are_let_in_together_or_not_at_all() {
    let world = World::start().await;
    world.upload(&[("stations.csv", &table(STATIONS, 20)), ("districts.csv", &table(DISTRICTS, 20))]).await;
    let outcome = world.receive("stations.csv").await.unwrap();
    assert_eq!(outcome.status, Status::LetIn);
    let keys: Vec<_> = outcome.report.unwrap().file_set.into_iter().map(|file| file.key).collect();
    assert_eq!(keys, [key("districts.csv"), key("stations.csv")]);
    assert_eq!(world.let_in().await, [key("districts.csv"), key("report.json"), key("stations.csv")]);
    assert_eq!(world.services.known().issues.len(), 1);

    let world = World::start().await;
    world.upload(&[("stations.csv", &table(STATIONS, 20)), ("districts.csv", &DISTRICTS.repeat(20)[..500])]).await;
    let outcome = world.receive("districts.csv").await.unwrap();
    assert_eq!(outcome.status, Status::TurnedAway);
    assert_eq!(world.calls(), [NAMES, MAIL, TELL]);
    assert_eq!(world.let_in().await, Vec::<String>::new());
    let expected = format!(
        "Data for council X01000000-Piddleton Parish Council failed because:\n\n\
         {FOLDER}/districts.csv:\nExpected file to be at least 1KB\n\n\nPlease follow up."
    );
    assert_eq!(world.mails(), [expected]);
    let mail = &world.services.known().mails[0];
    assert_eq!(mail["FromEmailAddress"], "gate@example.com");
    assert_eq!(mail["Destination"]["ToAddresses"], json!(["data@example.com"]));
    assert_eq!(
        mail["Content"]["Simple"]["Subject"],
        json!({ "Data": "Error with data for council X01000000-Piddleton Parish Council", "Charset": "UTF-8" })
    );
}

#[tokio::test]
async fn an_area_may_be_exempt_from_the_least_size() {
    let world = World::start().await;
    let key = "IOS/2019-12-12/now/data.csv";
    world.drop.put(key, format!("{HALAROSE}\n1,2,3,4\n").into()).await.unwrap();
    let outcomes = world.gate.receive(&event("drop", key), within(Duration::from_secs(30))).await.unwrap();
    assert_eq!(outcomes[0].status, Status::LetIn);
    // Nobody knows its name.
    assert_eq!(world.services.known().issues[0]["title"], "Import IOS-IOS for 2019-12-12");
}

#[tokio::test]
async fn one_file_of_two_waits_for_the_other_before_a_mail_is_sent() {
    let world = World::start().await;
    world.upload(&[("stations.csv", &table(STATIONS, 20))]).await;
    let outcome = world.receive("stations.csv").await.unwrap();
    assert_eq!(outcome.status, Status::Waiting);
    let file = outcome.report.unwrap().file_set.remove(0);
    assert_eq!((file.csv_valid, file.csv_rows, file.errors.as_str()), (false, 20, "Expected 2 files, found 1"));
    assert_eq!(world.calls(), [NAMES, TELL]);
    assert_eq!(world.sweep().await.unwrap()[0].status, Status::Waiting);
    assert_eq!(world.calls(), Vec::<String>::new());

    // As it is three minutes later.
    age(&world, "stations.csv").await;
    assert_eq!(world.sweep().await.unwrap()[0].status, Status::TurnedAway);
    assert_eq!(world.calls(), [MAIL]);
    assert!(world.mails()[0].contains("Expected 2 files, found 1"), "{:?}", world.mails());
    assert_eq!(world.sweep().await.unwrap()[0].status, Status::TurnedAway);
    assert_eq!(world.calls(), Vec::<String>::new());

    // The other comes at last.
    world.upload(&[("districts.csv", &table(DISTRICTS, 20))]).await;
    assert_eq!(world.receive("districts.csv").await.unwrap().status, Status::LetIn);
    assert_eq!(world.calls(), [NAMES, LIST, RAISE, TELL]);
}

/// Has a file be written four minutes ago.
async fn age(world: &World, name: &str) {
    let file = world.folder().join("drop").join(key(name));
    let file = std::fs::File::options().write(true).open(file).unwrap();
    file.set_modified(std::time::SystemTime::now() - Duration::from_secs(240)).unwrap();
}

#[tokio::test]
async fn documents_of_json_are_let_in_if_they_can_be_read() {
    let world = World::start().await;
    let blank = " ".repeat(1024);
    for (name, text, kind, rows) in [
        ("list.json", format!("[1, 2]{blank}"), "unknown", 0),
        (
            "fcs.json",
            format!(
                "[{0}, {0}]{blank}",
                json!({
                    "id": 1, "stationId": 1, "name": "", "addressLine1": "", "addressLine2": "", "addressLine3": "",
                    "addressLine4": "", "addressLine5": "", "addressPostCode": "", "addressUprn": "", "latitude": 0,
                    "longitude": 0, "defaultStationId": 1, "properties": [1, 2, 3], "pollingDistricts": [],
                })
            ),
            "FCS",
            6,
        ),
    ] {
        let key = format!("{AREA}/2019-12-12/{name}/snapshot.json");
        world.drop.put(&key, text.into()).await.unwrap();
        let outcomes = world.gate.receive(&event("drop", &key), within(Duration::from_secs(30))).await.unwrap();
        let file = outcomes[0].report.clone().unwrap().file_set.remove(0);
        assert_eq!((file.csv_valid, file.ems.as_str(), file.csv_rows), (true, kind, rows));
    }
    world.upload(&[("broken.json", &format!("[1, 2{blank}"))]).await;
    assert_eq!(world.receive("broken.json").await.unwrap().status, Status::TurnedAway);
    assert_eq!(world.mails().len(), 1);
}

#[tokio::test]
async fn an_event_that_comes_again_does_nothing() {
    let world = World::start().await;
    world.upload(&[("data.csv", &table(HALAROSE, 10))]).await;
    for _ in 0..3 {
        assert_eq!(world.receive("data.csv").await.unwrap().status, Status::LetIn);
    }
    world.sweep().await.unwrap();
    assert_eq!(world.calls(), [NAMES, LIST, RAISE, TELL]);

    let world = World::start().await;
    world.upload(&[("data.csv", &cut(10))]).await;
    for _ in 0..3 {
        assert_eq!(world.receive("data.csv").await.unwrap().status, Status::TurnedAway);
    }
    assert_eq!(world.calls(), [NAMES, MAIL, TELL]);
}

#[tokio::test]
async fn the_events_of_two_files_come_in_either_order_and_at_once() {
    let (stations, districts) = (("stations.csv", table(STATIONS, 20)), ("districts.csv", table(DISTRICTS, 20)));
    for is_first in [true, false] {
        let world = World::start().await;
        let (one, other) = if is_first { (&stations, &districts) } else { (&districts, &stations) };
        world.upload(&[(one.0, &one.1)]).await;
        assert_eq!(world.receive(one.0).await.unwrap().status, Status::Waiting);
        world.upload(&[(other.0, &other.1)]).await;
        assert_eq!(world.receive(other.0).await.unwrap().status, Status::LetIn);
        assert_eq!(world.receive(one.0).await.unwrap().status, Status::LetIn);
        let known = world.services.known();
        assert_eq!((known.issues.len(), known.comments.len(), known.mails.len()), (1, 0, 0));
        assert_eq!(known.reports.iter().filter(|report| report["github_issue"] != "").count(), 1);
    }
    for _ in 0..10 {
        let world = World::start().await;
        world.upload(&[(stations.0, &stations.1)]).await;
        let late = async {
            world.upload(&[(districts.0, &districts.1)]).await;
            world.receive(districts.0).await
        };
        let (one, other) = tokio::join!(world.receive(stations.0), late);
        one.unwrap();
        other.unwrap();
        world.sweep().await.unwrap();
        let report = world.report().await.unwrap();
        assert_eq!(report["file_set"].as_array().unwrap().len(), 2);
        let known = world.services.known();
        assert_eq!((known.issues.len(), known.comments.len(), known.mails.len()), (1, 0, 0));
        assert_eq!(known.reports.last().unwrap(), &report);
    }
}

#[tokio::test]
async fn an_upload_that_grows_has_one_issue_that_names_all_its_files() {
    let world = World::start().await;
    world.upload(&[("a.csv", &table(HALAROSE, 10))]).await;
    world.receive("a.csv").await.unwrap();
    world.upload(&[("b.csv", &table(HALAROSE, 10))]).await;
    assert_eq!(world.receive("b.csv").await.unwrap().status, Status::LetIn);
    let known = world.services.known();
    assert_eq!((known.issues.len(), known.comments.len()), (1, 0));
    let body = format!("EMS: Idox Eros (Halarose)\nFiles:\n- `{FOLDER}/a.csv`\n- `{FOLDER}/b.csv`");
    assert_eq!(known.issues[0]["body"], body);
    assert_eq!(known.reports.len(), 2);
}

#[tokio::test]
async fn another_upload_of_the_same_title_is_a_comment() {
    let world = World::start().await;
    let title = "Import X01000000-Piddleton Parish Council for 2019-12-12";
    let issue = |number: u64, state: &str, title: &str| {
        json!({
            "number": number, "title": title, "body": "by hand", "state": state, "html_url": format!("https://github.com/acme/data/issues/{number}"),
            "labels": [{ "name": "Data Import" }],
        })
    };
    // More than two pages of others, one that is closed, and a pull request.
    let mut issues: Vec<_> = (1..=220).map(|number| issue(number, "open", "another")).collect();
    issues.push(issue(221, "closed", title));
    let mut pull = issue(222, "open", title);
    pull["pull_request"] = json!({});
    issues.push(pull);
    issues.push(issue(223, "open", title));
    world.services.known().issues = issues;
    world.upload(&[("data.csv", &table(HALAROSE, 10))]).await;
    let outcome = world.receive("data.csv").await.unwrap();
    assert_eq!(outcome.report.unwrap().github_issue, "https://github.com/acme/data/issues/223");
    {
        let known = world.services.known();
        assert_eq!(known.issues.len(), 223);
        assert_eq!(known.comments.len(), 1);
        assert_eq!(known.comments[0]["issue"], 223);
        let body = known.comments[0]["body"].as_str().unwrap();
        assert!(body.starts_with("Updated\nEMS: Idox Eros (Halarose)\nFiles:\n- `"), "{body}");
    }
    // The upload grows: the comment is corrected.
    world.upload(&[("more.csv", &table(HALAROSE, 10))]).await;
    world.receive("more.csv").await.unwrap();
    let known = world.services.known();
    assert_eq!(known.comments.len(), 1);
    assert!(known.comments[0]["body"].as_str().unwrap().contains("more.csv"));
}

#[tokio::test]
async fn a_run_that_dies_anywhere_is_gone_on_with() {
    // Where it dies, and whether the service has done what it was asked for.
    for (call, is_done) in [(NAMES, false), (LIST, false), (RAISE, false), (RAISE, true), (TELL, false), (TELL, true)] {
        let world = World::start().await;
        world.upload(&[("data.csv", &table(HALAROSE, 10))]).await;
        let slow = Instead { is_done, after: Duration::from_secs(60), ..Instead::status(201) };
        world.services.instead(call, [slow]);
        let lease = Duration::from_millis(1500);
        let dies = tokio::time::timeout(Duration::from_millis(700), world.receive_within("data.csv", lease)).await;
        assert!(dies.is_err(), "{call}: {dies:?}");
        // Its state says that it still works, until its time is over.
        assert_eq!(world.receive("data.csv").await.unwrap().status, Status::Busy);
        sleep(lease).await;
        assert_eq!(world.sweep().await.unwrap()[0].status, Status::LetIn, "{call}");
        assert_eq!(world.let_in().await, [key("data.csv"), key("report.json")]);
        let known = world.services.known();
        assert_eq!((known.issues.len(), known.comments.len(), known.mails.len()), (1, 0, 0), "{call}");
        // Who was told, and the gate could not note it, is told the same again.
        assert_eq!(known.reports.len(), if (call, is_done) == (TELL, true) { 2 } else { 1 });
        assert!(known.reports.iter().all(|report| *report == known.reports[0]));
    }
}

#[tokio::test]
async fn a_run_that_dies_with_its_mail_is_gone_on_with() {
    for is_done in [false, true] {
        let world = World::start().await;
        world.upload(&[("data.csv", &cut(10))]).await;
        let slow = Instead { is_done, after: Duration::from_secs(60), ..Instead::status(200) };
        world.services.instead(MAIL, [slow]);
        let lease = Duration::from_millis(1500);
        let dies = tokio::time::timeout(Duration::from_millis(700), world.receive_within("data.csv", lease)).await;
        assert!(dies.is_err());
        sleep(lease).await;
        assert_eq!(world.sweep().await.unwrap()[0].status, Status::TurnedAway);
        // One that was sent, and the gate could not note it, is sent again.
        assert_eq!(world.mails().len(), if is_done { 2 } else { 1 });
        assert_eq!(world.services.known().reports.len(), 1);
    }
}

#[tokio::test]
async fn an_object_that_is_replaced_after_its_check_is_checked_again() {
    let world = World::start().await;
    world.upload(&[("data.csv", &table(HALAROSE, 10))]).await;
    let slow = Instead { is_done: false, after: Duration::from_millis(800), ..Instead::status(404) };
    world.services.instead(NAMES, [slow]);
    let replace = async {
        sleep(Duration::from_millis(400)).await;
        world.upload(&[("data.csv", &cut(10))]).await;
    };
    let (outcome, ()) = tokio::join!(world.receive("data.csv"), replace);
    assert_eq!(outcome.unwrap().status, Status::TurnedAway);
    assert_eq!(world.let_in().await, Vec::<String>::new());
    let known = world.services.known();
    assert_eq!((known.issues.len(), known.mails.len()), (0, 1));
}

#[tokio::test]
async fn a_webhook_that_does_not_take_the_report_is_told_again() {
    let world = World::start().await;
    world.upload(&[("data.csv", &cut(10))]).await;
    world.services.instead(TELL, [500, 500, 500].map(Instead::status));
    assert_eq!(world.receive("data.csv").await.unwrap().status, Status::Untold);
    assert_eq!(world.calls(), [NAMES, MAIL, TELL]);
    // The next event tells it at once, the sweep only after a while.
    assert_eq!(world.receive("data.csv").await.unwrap().status, Status::Untold);
    assert_eq!(world.calls(), [TELL]);
    assert_eq!(world.sweep().await.unwrap()[0].status, Status::Untold);
    assert_eq!(world.calls(), Vec::<String>::new());
    let state = key(".gate.json");
    for (status, calls) in
        [(Status::Untold, vec![TELL]), (Status::TurnedAway, vec![TELL]), (Status::TurnedAway, vec![])]
    {
        // As it is later.
        let mut known: Value = serde_json::from_slice(&world.last.get(&state).await.unwrap().unwrap()).unwrap();
        known["webhook"]["next"] = json!("2019-09-30T17:00:02Z");
        world.last.put(&state, known.to_string().into()).await.unwrap();
        assert_eq!(world.sweep().await.unwrap()[0].status, status);
        assert_eq!(world.calls(), calls);
    }
    assert_eq!(world.mails().len(), 1);
    assert_eq!(world.services.known().reports.len(), 1);

    // Nobody is there.
    let world = World::with(|services| {
        let mut settings = everything(services);
        settings.push(("WEBHOOK__URL", "http://127.0.0.1:9/uploads/".into()));
        settings
    })
    .await;
    world.upload(&[("data.csv", &table(HALAROSE, 10))]).await;
    assert_eq!(world.receive("data.csv").await.unwrap().status, Status::Untold);
    assert!(world.report().await.is_some());
}

#[tokio::test]
async fn what_github_refuses_is_named_with_what_to_do_and_tried_again() {
    for (status, remedy) in [
        (401, "Put a token that holds into the secret"),
        (403, "See that issue.repository is right"),
        (404, "See that issue.repository is right"),
        (410, "Switch on the repository's issues"),
        (422, "See that the labels and the title"),
        (503, "It is tried again with the next event"),
    ] {
        let world = World::start().await;
        world.upload(&[("data.csv", &table(HALAROSE, 10))]).await;
        world.services.instead(RAISE, [Instead::status(status)]);
        let error = world.receive("data.csv").await.unwrap_err().to_string();
        let expected = format!("cannot raise the issue of {FOLDER} in acme/data: POST {}", world.services.origin());
        assert!(error.starts_with(&expected), "{error}");
        assert!(error.contains(&status.to_string()) && error.contains(remedy), "{error}");
        assert_eq!(world.report().await, None);
        assert_eq!(world.sweep().await.unwrap()[0].status, Status::LetIn);
        assert_eq!(world.services.known().issues.len(), 1);
        assert_eq!(world.services.known().reports.len(), 1);
    }
}

#[tokio::test]
async fn a_limit_of_requests_is_waited_for_if_there_is_time() {
    let limited =
        |seconds: u64| Instead { headers: vec![("retry-after", seconds.to_string())], ..Instead::status(403) };
    let world = World::start().await;
    world.upload(&[("data.csv", &table(HALAROSE, 10))]).await;
    world.services.instead(RAISE, [limited(1)]);
    world.services.instead(LIST, [Instead::status(503)]);
    let began = Instant::now();
    assert_eq!(world.receive("data.csv").await.unwrap().status, Status::LetIn);
    assert!(began.elapsed() > Duration::from_secs(1));
    assert_eq!(world.calls(), [NAMES, LIST, LIST, RAISE, RAISE, TELL]);
    assert_eq!(world.services.known().issues.len(), 1);

    let world = World::start().await;
    world.upload(&[("data.csv", &table(HALAROSE, 10))]).await;
    world.services.instead(RAISE, [limited(600)]);
    let began = Instant::now();
    let error = world.receive("data.csv").await.unwrap_err().to_string();
    assert!(error.contains("(ask again in 600 s)"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_name_that_cannot_be_looked_up_for_now_is_waited_for() {
    let world = World::start().await;
    world.upload(&[("data.csv", &table(HALAROSE, 10))]).await;
    world.services.instead(NAMES, [Instead::status(503), Instead::status(503)]);
    assert_eq!(world.receive("data.csv").await.unwrap().status, Status::LetIn);
    assert_eq!(world.calls(), [NAMES, NAMES, NAMES, LIST, RAISE, TELL]);

    let world = World::start().await;
    world.upload(&[("data.csv", &table(HALAROSE, 10))]).await;
    world.services.instead(NAMES, std::iter::repeat_n(Instead::status(503), 4));
    let error = world.receive("data.csv").await.unwrap_err().to_string();
    assert!(error.contains("cannot look up the name") && error.contains("tried again"), "{error}");
    assert_eq!(world.receive("data.csv").await.unwrap().status, Status::LetIn);
    assert!(world.services.known().issues[0]["title"].as_str().unwrap().contains("Piddleton"));
}

#[tokio::test]
async fn keys_are_read_as_s3_writes_them() {
    let world = World::start().await;
    let deep = format!("{FOLDER}/a/b");
    let keys = [
        key("a+b %C3%A9.csv"),
        key("x-report.json.csv"),
        // Folders of their own, of which one begins as another does.
        format!("{FOLDER}1/data.csv"),
        format!("{deep}/data.csv"),
    ];
    for key in &keys {
        world.drop.put(key, table(HALAROSE, 10).into()).await.unwrap();
    }
    for key in [&keys[0], &keys[2], &keys[3]] {
        let outcomes = world.gate.receive(&event("drop", key), within(Duration::from_secs(30))).await.unwrap();
        assert_eq!(outcomes[0].status, Status::LetIn, "{key}");
        let prefix = key.rsplit_once('/').unwrap().0;
        assert_eq!(outcomes[0].prefix, prefix);
        let files = &outcomes[0].report.as_ref().unwrap().file_set;
        let expected: Vec<_> = keys.iter().filter(|key| key.rsplit_once('/').unwrap().0 == prefix).collect();
        assert_eq!(files.iter().map(|file| &file.key).collect::<Vec<_>>(), expected);
    }
    let let_in = world.let_in().await;
    assert!(keys.iter().all(|key| let_in.contains(key)), "{let_in:?}");

    // What is no upload.
    for (bucket, key) in [("drop", "X01000000/data.csv"), ("other", keys[0].as_str()), ("final", keys[0].as_str())] {
        let outcomes = world.gate.receive(&event(bucket, key), within(Duration::from_secs(30))).await.unwrap();
        assert_eq!((outcomes.len(), outcomes[0].status), (1, Status::Ignored));
    }
    let gone = world.gate.receive(&event("drop", "X01000000/d/t/gone.csv"), within(Duration::from_secs(30))).await;
    assert_eq!(gone.unwrap()[0].status, Status::Gone);
}

#[tokio::test]
async fn an_upload_may_have_more_files_than_s3_lists_at_once() {
    let world = World::start().await;
    let text = table(HALAROSE, 2);
    for number in 0..1005 {
        world.drop.put(&key(&format!("{number:04}-polling-stations.csv")), text.clone().into()).await.unwrap();
    }
    let outcome = world.receive("0000-polling-stations.csv").await.unwrap();
    assert_eq!(outcome.status, Status::LetIn);
    assert_eq!(outcome.report.unwrap().file_set.len(), 1005);
    assert_eq!(world.let_in().await.len(), 1006);
    let known = world.services.known();
    let body = known.issues[0]["body"].as_str().unwrap();
    assert!(body.len() < 65_536 && body.contains("\n- and "), "{}", body.len());
}

#[tokio::test]
async fn nothing_is_sent_that_is_not_configured() {
    let world = World::with(|_| Vec::new()).await;
    world.upload(&[("data.csv", &table(HALAROSE, 10))]).await;
    let outcome = world.receive("data.csv").await.unwrap();
    assert_eq!(outcome.status, Status::LetIn);
    assert_eq!(outcome.report.unwrap().github_issue, "");
    assert_eq!(world.calls(), Vec::<String>::new());
    assert_eq!(world.report().await.unwrap()["council_name"], AREA);
}

#[tokio::test]
async fn a_preview_does_nothing() {
    let world = World::start().await;
    world.upload(&[("data.csv", &table(HALAROSE, 10))]).await;
    let previews = world.gate.preview(&event("drop", &key("data.csv")), within(Duration::from_secs(30))).await.unwrap();
    let preview = &previews[0];
    assert_eq!(preview.copies, [key("data.csv")]);
    assert_eq!(preview.issue.as_ref().unwrap().title, "Import X01000000-Piddleton Parish Council for 2019-12-12");
    assert_eq!(preview.mail, None);
    assert_eq!(world.calls(), [NAMES]);
    assert_eq!(world.last.list("", "", 10).await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_thousand_events_at_once_have_their_effects_once() {
    let world = World::start().await;
    let folders: Vec<_> = (0..100).map(|number| format!("X{number:08}/2019-12-12/now")).collect();
    for folder in &folders {
        for name in ["a.csv", "b.csv"] {
            world.drop.put(&format!("{folder}/{name}"), table(HALAROSE, 3).into()).await.unwrap();
        }
    }
    let gate = &world.gate;
    // Each file's event, five times.
    let events = folders.iter().flat_map(|folder| {
        std::iter::repeat_n(["a.csv", "b.csv"], 5).flatten().map(move |name| event("drop", &format!("{folder}/{name}")))
    });
    let all = events.map(|event| async move { gate.receive(&event, within(Duration::from_secs(120))).await.unwrap() });
    futures_util::future::join_all(all).await;
    world.sweep().await.unwrap();
    let keys = world.last.list("", "", 10_000).await.unwrap();
    assert_eq!(keys.len(), 100 * 4);
    let known = world.services.known();
    let told: Vec<_> = known.reports.iter().map(|report| report["gss"].as_str().unwrap()).collect();
    let distinct: std::collections::BTreeSet<_> = told.iter().collect();
    assert_eq!((told.len(), distinct.len()), (100, 100));
    assert_eq!((known.issues.len(), known.comments.len()), (100, 0));
}

#[tokio::test]
async fn files_with_the_names_of_the_gate_s_own_are_left_out() {
    let world = World::start().await;
    let own = json!({ "set": "", "issue": { "number": 7, "comment": null, "url": "" }, "blank": " ".repeat(1024) })
        .to_string();
    world.upload(&[("report.json", &own), (".gate.json", &own), ("data.csv", &table(HALAROSE, 10))]).await;
    for name in [".gate.json", "report.json", "data.csv"] {
        assert_eq!(world.receive(name).await.unwrap().status, Status::LetIn);
    }
    assert_eq!(world.report().await.unwrap()["file_set"].as_array().unwrap().len(), 1);
    assert_eq!(world.calls(), [NAMES, LIST, RAISE, TELL]);
}

#[tokio::test]
async fn a_run_that_dies_and_an_upload_that_grows_have_one_issue() {
    let world = World::start().await;
    world.upload(&[("a.csv", &table(HALAROSE, 10))]).await;
    let slow = Instead { is_done: true, after: Duration::from_secs(60), ..Instead::status(201) };
    world.services.instead(RAISE, [slow]);
    let lease = Duration::from_millis(1500);
    let dies = tokio::time::timeout(Duration::from_millis(700), world.receive_within("a.csv", lease)).await;
    assert!(dies.is_err());
    world.upload(&[("b.csv", &table(HALAROSE, 10))]).await;
    assert_eq!(world.receive("b.csv").await.unwrap().status, Status::Busy);
    sleep(lease).await;
    assert_eq!(world.sweep().await.unwrap()[0].status, Status::LetIn);
    let known = world.services.known();
    assert_eq!((known.issues.len(), known.comments.len()), (1, 0));
    assert!(known.issues[0]["body"].as_str().unwrap().contains("b.csv"));
}

#[tokio::test]
async fn an_upload_that_grows_after_its_issue_is_closed_or_gone_has_another() {
    for is_gone in [false, true] {
        let world = World::start().await;
        world.upload(&[("a.csv", &table(HALAROSE, 10))]).await;
        world.receive("a.csv").await.unwrap();
        if is_gone {
            world.services.instead("GET /repos/acme/data/issues/1", [Instead::status(410)]);
        }
        world.services.known().issues[0]["state"] = "closed".into();
        world.upload(&[("b.csv", &table(HALAROSE, 10))]).await;
        assert_eq!(world.receive("b.csv").await.unwrap().status, Status::LetIn);
        let known = world.services.known();
        assert_eq!(known.issues.len(), 2);
        assert!(!known.issues[0]["body"].as_str().unwrap().contains("b.csv"));
        assert_eq!(known.reports.last().unwrap()["github_issue"], "https://github.com/acme/data/issues/2");
    }
}

#[tokio::test]
async fn a_mail_is_sent_again_only_about_something_else() {
    let world = World::start().await;
    // Two files, both wrong: one mail about the first, one about both, none about another that is right.
    world.upload(&[("a.csv", &cut(10))]).await;
    world.receive("a.csv").await.unwrap();
    world.upload(&[("b.csv", &cut(10))]).await;
    world.receive("b.csv").await.unwrap();
    world.upload(&[("c.csv", &table(HALAROSE, 10))]).await;
    world.receive("c.csv").await.unwrap();
    assert_eq!(world.mails().len(), 2);
    // Put right, and wrong again in the same way.
    world.upload(&[("a.csv", &table(HALAROSE, 10)), ("b.csv", &table(HALAROSE, 11))]).await;
    assert_eq!(world.receive("a.csv").await.unwrap().status, Status::LetIn);
    world.upload(&[("a.csv", &cut(10)), ("b.csv", &cut(10))]).await;
    assert_eq!(world.receive("a.csv").await.unwrap().status, Status::TurnedAway);
    assert_eq!(world.mails().len(), 3);
}

#[tokio::test]
async fn a_mail_that_is_not_sent_is_no_reason_to_tell_nobody() {
    let world = World::start().await;
    world.upload(&[("data.csv", &cut(10))]).await;
    world.services.instead(MAIL, [Instead::status(400)]);
    let error = world.receive("data.csv").await.unwrap_err().to_string();
    assert!(error.contains("See that mail.from is an address"), "{error}");
    assert_eq!(world.calls(), [NAMES, MAIL, TELL]);
    assert_eq!(world.sweep().await.unwrap()[0].status, Status::TurnedAway);
    assert_eq!(world.calls(), [MAIL]);
}

#[tokio::test]
async fn a_webhook_is_given_up_after_a_day_and_not_by_many_events() {
    let world = World::start().await;
    world.upload(&[("data.csv", &table(HALAROSE, 10))]).await;
    // A redirect is no answer that the report is taken.
    world.services.instead(TELL, std::iter::once(302).chain(std::iter::repeat_n(500, 19)).map(Instead::status));
    for _ in 0..12 {
        assert_eq!(world.receive("data.csv").await.unwrap().status, Status::Untold);
    }
    let state = key(".gate.json");
    for _ in 0..7 {
        let mut known: Value = serde_json::from_slice(&world.last.get(&state).await.unwrap().unwrap()).unwrap();
        assert_eq!(known["webhook"]["is_given_up"], false);
        known["webhook"]["next"] = json!("2019-09-30T17:00:02Z");
        world.last.put(&state, known.to_string().into()).await.unwrap();
        assert_eq!(world.sweep().await.unwrap()[0].status, Status::Untold);
    }
    world.calls();
    assert_eq!(world.receive("data.csv").await.unwrap().status, Status::Untold);
    assert_eq!(world.calls(), Vec::<String>::new());
    assert!(world.report().await.is_some());
}
