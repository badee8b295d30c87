//! The private servers under the conditions that they are made for: many writers, several
//! programs, an interrupt, a crash.

#![allow(missing_docs, clippy::unwrap_used)]

mod postgres;
mod s3;

use std::process::{Child, Command, Stdio};

/// Names the part that a further process of this test's executable plays.
const PART: &str = "BLACKWATER_TEST_PART";

/// Starts this executable once more, for one test alone, in which it plays `part`.
fn play(test: &str, part: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(PART, part)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn part() -> Option<String> {
    std::env::var(PART).ok()
}
