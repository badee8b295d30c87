//! The program as somebody at a terminal meets it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use blackwater_local::totesys;
use blackwater_tests::{World, program};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{ChildStdout, Command};

/// What the program prints, without a configuration.
async fn prints(arguments: &[&str]) -> String {
    let output = Command::new(program()).args(arguments).output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_shows_what_it_promises_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let demo = Command::new(program()).args(["demo", "--rows", "500"]).env("TMPDIR", folder.path()).output().await;
    let demo = demo.unwrap();
    let text = String::from_utf8_lossy(&demo.stdout);
    assert!(demo.status.success() && demo.stderr.is_empty(), "{demo:?}");
    for words in [
        "extract: batch 1 has 1711 rows of 11 source tables",
        "12. Text dates that are no dates",
        "purchase_order_id = 2",
        "\"2024-02-30\" is no date",
        "agrees with the source",
        "── Units sold by currency\n  ",
        "█ ",
    ] {
        assert!(text.contains(words), "{words:?} is not in:\n{text}");
    }
    assert!(!text.contains("different"), "{text}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "something is left in the temporary folder");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_that_is_kept_can_be_used_until_it_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let mut demo = Command::new(program());
    demo.args(["demo", "--keep", "--rows", "0"]).env("TMPDIR", folder.path()).stdout(Stdio::piped());
    let mut demo = demo.kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let configuration = loop {
        let line = lines.next_line().await.unwrap().unwrap();
        if let Some((_, file)) = line.split_once("--config ") {
            break file.trim_end_matches('\'').to_owned();
        }
    };
    assert!(prints(&["--config", &configuration, "run"]).await.starts_with("extract: nothing has changed"));
    assert!(prints(&["--config", &configuration, "status"]).await.contains("the warehouse has every batch"));
    end(demo.id());
    assert_eq!(demo.wait().await.unwrap().code(), Some(143));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "something is left in the temporary folder");
}

/// Sends SIGTERM.
fn end(process: Option<u32>) {
    let kill = std::process::Command::new("kill").arg(process.unwrap().to_string()).status();
    assert!(kill.unwrap().success());
}

/// Reads reports until one fits; what is no JSON fails.
async fn until(lines: &mut Lines<BufReader<ChildStdout>>, what: &str, fits: impl Fn(&Value) -> bool) {
    let read = async {
        loop {
            let line = lines.next_line().await.unwrap().unwrap_or_else(|| panic!("it ended before {what}"));
            if fits(&serde_json::from_str(&line).unwrap()) {
                return;
            }
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), read).await;
    waited.unwrap_or_else(|_| panic!("waited too long for {what}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_lives_through_outages_of_either_side_and_ends_when_it_is_told() {
    let world = World::totesys().await;
    let (admin, connection) =
        tokio_postgres::connect(&world.server.url("postgres"), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let (source, warehouse) = (world.server.url("source"), world.server.url("later"));
    world.configure(&source, &warehouse, "directory = \"buckets\"");
    let mut watch = world.spawn(&["watch", "--every", "1s"]);
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let failed = |report: &Value| report["error"].is_string();
    until(&mut lines, "an error without a warehouse", failed).await;
    admin.batch_execute("CREATE DATABASE later").await.unwrap();
    until(&mut lines, "the first batch", |report| report["load"]["applied"] == 1).await;
    for (batch, database) in [(2, "later"), (3, "source")] {
        let refuse = format!("ALTER DATABASE {database} ALLOW_CONNECTIONS false");
        admin.batch_execute(&refuse).await.unwrap();
        let sessions = format!("datname = '{database}' AND application_name LIKE 'blackwater%'");
        let stop = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {sessions}");
        admin.batch_execute(&stop).await.unwrap();
        until(&mut lines, "an error", failed).await;
        let change = format!("UPDATE design SET file_name = 'of batch {batch}' WHERE design_id = 3");
        world.source.batch_execute(&change).await.unwrap();
        admin.batch_execute(&format!("ALTER DATABASE {database} ALLOW_CONNECTIONS true")).await.unwrap();
        until(&mut lines, "the next batch", |report| report["load"]["applied"] == batch).await;
    }
    end(watch.id());
    let ended = tokio::time::timeout(Duration::from_secs(20), watch.wait()).await;
    assert_eq!(ended.unwrap().unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_tells_about_itself() {
    let version = prints(&["--version"]).await;
    assert!(version.starts_with("blackwater 0."), "{version}");
    let commit = std::process::Command::new("git").args(["log", "-1", "--format=%cs"]).output();
    if let Some(commit) = commit.ok().filter(|commit| commit.status.success()) {
        let day = String::from_utf8(commit.stdout).unwrap();
        assert!(version.trim_end().ends_with(&format!("{})", day.trim())), "{version}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(prints(&["completions", shell]).await.contains("quarantine"), "{shell}");
    }
    let folder = tempfile::tempdir().unwrap();
    prints(&["man", folder.path().to_str().unwrap()]).await;
    let pages: BTreeSet<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    for page in ["blackwater.1", "blackwater-run.1", "blackwater-watch.1", "blackwater-quarantine-list.1"] {
        assert!(pages.contains(page), "{page} is not in {pages:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_says_what_and_why_and_what_to_do() {
    let failed = Command::new(program()).args(["status", "--config", "/nowhere.toml"]).output().await.unwrap();
    let expected = "error: cannot read /nowhere.toml: No such file or directory (os error 2)\n  → Name another file\n";
    assert_eq!((failed.status.code(), String::from_utf8(failed.stderr).unwrap()), (Some(2), expected.to_owned()));
}

/// Where the values of a report stand, as `tables[].rows`. Maps with the reader's own names count as values.
fn paths(value: &Value, at: &str, found: &mut BTreeSet<String>) {
    let is_own = ["key", "star_row", "reference", "source_row"].iter().any(|map| at == format!("[].{map}"));
    match value {
        Value::Object(fields) if !is_own => {
            for (name, value) in fields {
                paths(value, &if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") }, found);
            }
        }
        Value::Array(values) if !is_own && !values.is_empty() => {
            values.iter().for_each(|value| paths(value, &format!("{at}[]"), found));
        }
        Value::Array(_) if !is_own => drop(found.insert(format!("{at}[]"))),
        _ => drop(found.insert(at.to_owned())),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_of_its_json_is_documented_and_every_documented_one_is_there() {
    let world = World::totesys().await;
    let mut found: BTreeSet<String> = BTreeSet::new();
    let mut note = |command: &str, report: &str| {
        let report: Value = serde_json::from_str(report).unwrap_or_else(|error| panic!("{command}: {error}: {report}"));
        let parts = match (command, report) {
            ("run", Value::Object(stages)) => stages.into_iter().collect(),
            ("quarantine", entry @ Value::Object(_)) => vec![(command.to_owned(), Value::Array(vec![entry]))],
            (_, report) => vec![(command.to_owned(), report)],
        };
        for (section, report) in parts {
            let mut at = BTreeSet::new();
            paths(&report, "", &mut at);
            let section = if section == "keys" { "extract" } else { &section };
            found.extend(at.into_iter().filter(|path| !path.is_empty()).map(|path| format!("{section}: {path}")));
        }
    };
    let story: [(&str, &[&str], &str); 14] = [
        ("status", &["status"], ""),
        ("run", &["run"], ""),
        ("run", &["run"], totesys::file("changes.sql")),
        ("extract", &["extract", "--full", "staff"], ""),
        ("transform", &["transform"], ""),
        ("load", &["load"], ""),
        ("check", &["check"], "CREATE TABLE kept AS SELECT 1; ANALYZE"),
        ("verify", &["verify"], "UPDATE design SET file_name = 'later' WHERE design_id = 5"),
        ("quarantine", &["quarantine", "list"], ""),
        ("quarantine", &["quarantine", "show", "fact_sales_order", "6"], ""),
        ("quarantine", &["quarantine", "discard", "fact_sales_order", "6"], ""),
        ("status", &["status"], ""),
        ("extract", &["extract"], ""),
        ("any", &["quarantine", "discard", "fact_sales_order", "7"], ""),
    ];
    for (command, arguments, before) in story {
        world.source.batch_execute(before).await.unwrap();
        if command == "check" {
            let wrong = "UPDATE dim_design SET file_name = 'wrong' WHERE design_id IN (7, 8);
                         ALTER TABLE dim_staff DROP COLUMN deleted_at; DELETE FROM dim_currency WHERE currency_id = 5";
            world.warehouse.batch_execute(wrong).await.unwrap();
        }
        note(command, &world.blackwater(arguments).await.stdout);
    }
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/json.md");
    let document = std::fs::read_to_string(document).unwrap();
    let mut documented = BTreeSet::new();
    let mut section = String::new();
    for line in document.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            section = heading.trim_start_matches('`').split(['`', ' ']).next().unwrap().to_owned();
        } else if let Some((path, _)) = line.strip_prefix("| `").and_then(|line| line.split_once("` |")) {
            let (part, of_part) = path.split_once('.').unwrap_or((path, ""));
            match section.as_str() {
                // The stages have sections of their own.
                "run" if of_part.is_empty() => {}
                "run" => drop(documented.insert(format!("{part}: {of_part}"))),
                _ => drop(documented.insert(format!("{section}: {path}"))),
            }
        }
    }
    // A list that is empty here, of something that is documented.
    found.retain(|path| {
        documented.contains(path)
            || !documented.iter().any(|other| other.starts_with(path.as_str()) && path.ends_with("[]"))
    });
    assert_eq!(found.difference(&documented).collect::<Vec<_>>(), Vec::<&String>::new(), "not documented");
    assert_eq!(documented.difference(&found).collect::<Vec<_>>(), Vec::<&String>::new(), "documented, and not there");
}

#[test]
fn every_test_that_a_document_names_exists() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let files = |folder: &str| std::fs::read_dir(workspace.join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let tests: String = files("tests/end_to_end").map(|path| read(&path)).collect();
    let is_test = |name: &str| tests.contains(&format!("fn {name}()"));
    for document in files("docs").chain([workspace.join("README.md")]) {
        let text = read(&document);
        // What stands between backquotes and has the length of a statement.
        let named: Vec<_> = text.split('`').skip(1).step_by(2).filter(|name| name.matches('_').count() >= 3).collect();
        let named = named.into_iter().filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_'));
        for name in named {
            let is_setting = ["max_standby_streaming_delay", "max_slot_wal_keep_size"].contains(&name);
            assert!(is_setting || is_test(name), "{} names {name}", document.display());
        }
        assert!(!document.ends_with("guarantees.md") || text.matches("| `").count() > 15, "it names no tests");
    }
}
