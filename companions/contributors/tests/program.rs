//! The program, as people run it, and the two functions.

use std::path::PathBuf;
use std::time::Duration;

use blackwater_tests::{Emulator, Function};
use chrono::Utc;
use contributors::services::TOKEN;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::world::World;

/// What it prints, and how it ends, in the folder of the world.
async fn run(world: &World, arguments: &[&str]) -> (i32, String) {
    let done = Command::new(env!("CARGO_BIN_EXE_contributors"))
        .current_dir(world.folder.path())
        .args(arguments)
        .env_clear()
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let text = [done.stdout, done.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
    assert!(!text.contains(TOKEN), "{text}");
    (done.status.code().unwrap(), text)
}

/// Writes the settings of a laptop: a folder in the place of S3.
fn configure(world: &World, more: &str) {
    let (api, url) = (world.github.origin(), &world.url);
    let text = format!(
        "organization = \"acme\"\ndirectory = \"data\"\nfrom = \"2020-01\"\n{more}\n[github]\ntoken = \"{TOKEN}\"\napi = \"{api}\"\n\
         [database]\nurl = \"{url}\"\n"
    );
    std::fs::write(world.folder.path().join("contributors.toml"), text).unwrap();
}

/// An organization of now: the program has the machine's clock.
async fn of_today(issues: usize) -> World {
    let world = World::new().await;
    world.model().now = Utc::now();
    world.model().populate(1, issues);
    world
}

fn says(done: &(i32, String), code: i32, words: &[&str]) {
    assert_eq!(done.0, code, "{}", done.1);
    for word in words {
        assert!(done.1.contains(word), "{word:?} is not in: {}", done.1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_laptop_a_poll_needs_nothing_but_a_token_and_a_database() {
    let world = of_today(60).await;
    configure(&world, "");
    let check =
        ["ok     GitHub accepts the token", "3 of 3 repositories are watched", "ok     the database 127.0.0.1:"];
    says(&run(&world, &["check"]).await, 0, &check);
    says(&run(&world, &["status"]).await, 0, &["not polled yet\n0 batches, all of them loaded"]);
    let tables = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'";
    assert_eq!(world.one(tables).await, "0");
    let rows = world.model().repositories.values().map(|repository| repository.issues.len()).sum::<usize>();
    let polled = format!("3 repositories: {rows} new or changed issues and pull requests, {rows} timelines; ");
    says(&run(&world, &["poll"]).await, 0, &[&polled, "loaded 5 batches; inserted ", " issues"]);
    world.agree().await;
    says(&run(&world, &["poll"]).await, 0, &["3 repositories: nothing new; ", "; no row differed"]);
    let status = ["  acme/shop", "batches, all of them loaded", "requests left until"];
    says(&run(&world, &["status"]).await, 0, &status);
    let (_, status) = run(&world, &["status", "--json"]).await;
    let status: Value = serde_json::from_str(&status).unwrap();
    assert!(status["behind"] == 0 && status["budget"]["remaining"].as_u64() > Some(4000), "{status}");
    says(&run(&world, &["migrate"]).await, 0, &["the tables are up to date"]);
    says(&run(&world, &["load"]).await, 0, &["loaded 0 batches; no row differed"]);
    says(&run(&world, &["backfill", "--from", "2019-01", "--to", "2019-12"]).await, 0, &["nothing new; ", "loaded "]);
    let wrong = run(&world, &["backfill", "--from", "2019-1", "--to", "2019-12"]).await;
    says(&wrong, 2, &["expected a day (2024-01-31) or a month (2024-01)"]);

    let docs = format!("{}/issues?", world.path("docs"));
    world.model().instead.push(contributors::services::Instead::status(&docs, 9, 451, "Blocked"));
    says(&run(&world, &["poll"]).await, 3, &["failed: acme/docs: GET ", "2 repositories: "]);
    world.model().token = "other".into();
    says(&run(&world, &["poll"]).await, 2, &["GitHub rejected the token", "Put a valid token into github.token"]);
    let check = run(&world, &["check"]).await;
    says(&check, 1, &["FAIL   GitHub rejected the token", "ok     the folder "]);
    assert_eq!(check.1.matches("FAIL").count(), 1, "{}", check.1);
    let file = world.folder.path().join("contributors.toml");
    let nowhere = std::fs::read_to_string(&file).unwrap().replace(&world.github.origin(), "http://127.0.0.1:1");
    std::fs::write(&file, nowhere).unwrap();
    says(
        &run(&world, &["check"]).await,
        1,
        &["FAIL   cannot reach GitHub: ", "Check the network, the proxy and github.api"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_settings_are_reported() {
    let world = World::new().await;
    for (more, words) in [
        ("repositories = [\"!a\"]", "contributors.toml, line 4: repositories: nothing is watched"),
        ("form = \"2020\"", "unknown field `form`"),
        ("does = \"both\"", "does: unknown variant `both`"),
    ] {
        configure(&world, more);
        says(&run(&world, &["poll"]).await, 2, &[words]);
    }
    let text = "organization = \"acme\"\nfrom = \"yesterday\"\n";
    std::fs::write(world.folder.path().join("contributors.toml"), text).unwrap();
    says(&run(&world, &["poll"]).await, 2, &["from: \"yesterday\": expected a day (2024-01-31) or a month (2024-01)"]);
    std::fs::write(world.folder.path().join("contributors.toml"), "organization = \"acme\"\ndirectory = \"data\"\n")
        .unwrap();
    says(&run(&world, &["poll"]).await, 2, &["github.secret: not set"]);
    says(&run(&world, &["load"]).await, 2, &["database.url: not set"]);
    says(&run(&world, &[]).await, 0, &["Usage: contributors"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_functions_keep_the_database_up_to_date() {
    let world = of_today(40).await;
    let port = world.url.rsplit(':').next().unwrap().split('/').next().unwrap();
    let name = world.url.rsplit('/').next().unwrap().split('?').next().unwrap();
    let secrets = json!({
        "token": { "TOKEN_GITHUB": TOKEN },
        "login": { "username": "postgres", "password": "any", "host": "127.0.0.1", "port": port, "dbname": name },
    });
    let emulator = Emulator::start(&secrets).await;
    let api = world.github.origin();
    let url = "postgres://127.0.0.1:PORT?sslmode=disable".replace("PORT", port);
    let own: [(&str, &[(&str, &str)]); 2] = [
        ("poll", &[("CONTRIBUTORS_GITHUB__SECRET", "token"), ("CONTRIBUTORS_GITHUB__API", &api)]),
        ("load", &[("CONTRIBUTORS_DATABASE__SECRET", "login"), ("CONTRIBUTORS_DATABASE__URL", &url)]),
    ];
    let start = async |does: &str, own: &[(&str, &str)]| {
        let common = [
            ("AWS_REGION", "us-east-1"),
            ("AWS_ENDPOINT_URL", &emulator.endpoint),
            ("AWS_ACCESS_KEY_ID", "admin"),
            ("AWS_SECRET_ACCESS_KEY", "admin"),
            ("CONTRIBUTORS_NAME", "test"),
            ("CONTRIBUTORS_DOES", does),
            ("CONTRIBUTORS_BUCKET", "open"),
            ("CONTRIBUTORS_ORGANIZATION", "acme"),
            ("CONTRIBUTORS_FROM", "2020-01"),
        ];
        let variables: Vec<_> =
            common.iter().chain(own).map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let program = PathBuf::from(env!("CARGO_BIN_EXE_contributors"));
        Function::start(&[program], &variables, Duration::from_secs(60)).await
    };
    let poll = start(own[0].0, own[0].1).await;
    let load = start(own[1].0, own[1].1).await;
    let polled = poll.invoke(json!({})).await.unwrap();
    assert_eq!((&polled["polled"], &polled["failed"]), (&json!(3), &json!([])), "{polled}");
    let loaded = load.invoke(json!({ "Records": [] })).await.unwrap();
    assert_eq!((&loaded["behind"], &loaded["batches"]), (&json!(0), &polled["batches"]), "{loaded}");
    world.agree().await;
    let filled = poll.invoke(json!({ "backfill": { "from": "2018-01", "to": "2019-12" } })).await.unwrap();
    assert_eq!(filled["left"], json!([]), "{filled}");
    let wrong = poll.invoke(json!({ "backfill": { "from": "soon", "to": "2019-12" } })).await.unwrap_err();
    assert!(wrong["errorMessage"].as_str().unwrap().contains("backfill.from"), "{wrong}");
    let period = json!({ "from": "2018-01", "to": "2019-12", "repositories": "shop" });
    let wrong = poll.invoke(json!({ "backfill": period })).await.unwrap_err();
    assert!(wrong["errorMessage"].as_str().unwrap().contains("expected a sequence"), "{wrong}");
    let metrics = |lines: &[Value]| lines.iter().find(|line| line["_aws"].is_object()).cloned().unwrap();
    let (polled, loaded) = (metrics(&poll.end().await), metrics(&load.end().await));
    assert_eq!(polled["name"], "test");
    assert!(polled["Requests"].as_u64() > Some(40) && polled["Remaining"].as_u64() > Some(4000), "{polled}");
    assert!(polled["OldestPollSeconds"].as_u64() < Some(60), "{polled}");
    assert!(loaded["NewestPollSeconds"].as_u64() < Some(60), "{loaded}");
}
