//! Which commit the program is made of, for `--version`; nothing where there is no repository.

use std::process::Command;

fn main() {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
        String::from_utf8(output.stdout).ok().map(|text| text.trim().to_owned())
    };
    let commit = git(&["log", "-1", "--format=%h, %cs"]).map(|commit| format!(" ({commit})")).unwrap_or_default();
    println!("cargo::rustc-env=VERSION_AND_COMMIT={}{commit}", env!("CARGO_PKG_VERSION"));
    println!("cargo::rerun-if-changed=build.rs");
    // It changes with every commit.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
}
