//! The program on files of this machine.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// Runs `gate check` with the rules that come with it.
fn gate(files: &[&Path], input: &[u8]) -> Output {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("gate.toml");
    let mut gate = Command::new(env!("CARGO_BIN_EXE_gate"))
        .arg("check")
        .args(files)
        .arg("--rules")
        .arg(rules)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may have ended without having read.
    let _ = gate.stdin.take().unwrap().write_all(input);
    gate.wait_with_output().unwrap()
}

fn file_set(output: &Output) -> Vec<Value> {
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    report["file_set"].as_array().unwrap().clone()
}

#[test]
fn the_exit_code_says_whether_files_are_let_in() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let rows = "1,2,3\n".repeat(300);
    let good = file("good.csv", &format!("HouseID,b,c\n{rows}"));
    let bad = file("bad.csv", &format!("HouseID,b,c\n{rows}1,2\n"));
    let part = format!("a,Xordinate,c\n{rows}");

    let output = gate(&[&good], b"");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let found = &file_set(&output)[0];
    assert_eq!((&found["csv_rows"], &found["ems"]), (&301.into(), &"Idox Eros (Halarose)".into()));
    // As receivers of the report read it.
    let members: Vec<_> =
        std::str::from_utf8(&output.stdout).unwrap().lines().filter_map(|line| line.split('"').nth(1)).collect();
    assert_eq!(members, ["file_set", "csv_valid", "csv_rows", "csv_encoding", "ems", "errors", "key"]);

    let output = gate(&[&good, &bad], b"");
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let valid: Vec<_> = file_set(&output).iter().map(|file| file["csv_valid"].clone()).collect();
    assert_eq!(valid, [true, false]);

    let output = gate(&[Path::new("-")], part.as_bytes());
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert_eq!(file_set(&output)[0]["errors"], "Expected 2 files, found 1");
    let output = gate(&[Path::new("-"), &file("other.csv", &part)], part.as_bytes());
    assert_eq!(output.status.code(), Some(0), "{output:?}");

    let output = gate(&[&folder.path().join("none.csv")], b"");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("none.csv: No such file"), "{output:?}");
}
