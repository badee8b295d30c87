//! What the program says and how it exits before it meets a server.

#![allow(missing_docs, clippy::unwrap_used)]

use std::process::{Command, Output, Stdio};
use std::time::Duration;

fn blackwater(arguments: &[&str]) -> Output {
    let folder = std::env::temp_dir();
    Command::new(env!("CARGO_BIN_EXE_blackwater")).args(arguments).current_dir(folder).output().unwrap()
}

#[test]
fn help_names_every_command() {
    let output = blackwater(&["--help"]);
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    for command in [
        "run",
        "extract",
        "transform",
        "load",
        "status",
        "check",
        "verify",
        "quarantine",
        "demo",
        "--config",
        "--format",
    ] {
        assert!(help.contains(command), "{command}: {help}");
    }
}

#[test]
fn what_cannot_be_parsed_or_configured_exits_with_2() {
    assert_eq!(blackwater(&["frobnicate"]).status.code(), Some(2));
    let output = blackwater(&["run"]);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(message.contains("no blackwater.toml here") && message.contains("missing field `name`"), "{message}");
    let output = blackwater(&["run", "--config", "/nowhere.toml", "--format", "json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["error"].as_str().unwrap().contains("/nowhere.toml"), "{report}");
}

#[test]
fn an_interrupted_demo_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    // The server's user must be able to enter it.
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let demo = Command::new(env!("CARGO_BIN_EXE_blackwater"))
        .arg("demo")
        .env("TMPDIR", folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while !std::fs::read_dir(folder.path())
        .unwrap()
        .flatten()
        .any(|entry| entry.path().join("data/postmaster.pid").exists())
    {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(Command::new("kill").args(["-INT", &demo.id().to_string()]).status().unwrap().success());
    let output = demo.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "something is left");
}
