use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use blackwater_local::postgres::Postgres;

use crate::{part, play};

#[test]
fn a_private_postgres_runs_and_is_gone_with_its_handle() {
    let server = Postgres::start(&[("max_prepared_transactions", "3")]).unwrap();
    let folder = server.folder().to_owned();
    let pid = server_pid(&folder);
    let shown = Command::new("psql")
        .args(["-XAtc", "SHOW max_prepared_transactions"])
        .arg(server.url("postgres"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(shown.stdout).unwrap(), "3\n");
    assert!(is_alive(pid));
    drop(server);
    assert!(!folder.exists() && !is_alive(pid));
}

#[test]
fn it_is_gone_after_an_interrupt() {
    if part().is_some() {
        return start_and_wait();
    }
    let (mut program, folder) = started("postgres::it_is_gone_after_an_interrupt");
    // As Ctrl-C does: the whole group that runs in the terminal's foreground.
    signal("INT", program.id());
    program.wait().unwrap();
    assert_gone(&folder);
}

#[test]
fn it_is_gone_after_a_crash() {
    if part().is_some() {
        return start_and_wait();
    }
    let (mut program, folder) = started("postgres::it_is_gone_after_a_crash");
    signal("KILL", program.id());
    program.wait().unwrap();
    assert_gone(&folder);
}

/// In a process of its own: starts a server, says where, and waits for the end.
fn start_and_wait() {
    let server = Postgres::start(&[]).unwrap();
    println!("\nfolder {}", server.folder().display());
    std::thread::sleep(Duration::from_secs(60));
}

fn started(test: &str) -> (Child, PathBuf) {
    let mut program = play(test, "start");
    let lines = BufReader::new(program.stdout.take().unwrap()).lines();
    let folder = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("folder ").map(PathBuf::from)).unwrap();
    assert!(is_alive(server_pid(&folder)));
    (program, folder)
}

fn signal(name: &str, process: u32) {
    assert!(Command::new("kill").args([format!("-{name}"), process.to_string()]).status().unwrap().success());
}

fn server_pid(folder: &Path) -> u32 {
    let text = std::fs::read_to_string(folder.join("data/postmaster.pid")).unwrap();
    text.lines().next().unwrap().parse().unwrap()
}

fn is_alive(pid: u32) -> bool {
    Command::new("kill").args(["-0", &pid.to_string()]).output().unwrap().status.success()
}

fn assert_gone(folder: &Path) {
    let started = Instant::now();
    while folder.exists() {
        assert!(started.elapsed() < Duration::from_secs(30), "{} is still there", folder.display());
        std::thread::sleep(Duration::from_millis(50));
    }
    let left = Command::new("pgrep").args(["-f", folder.to_str().unwrap()]).output().unwrap();
    assert!(left.stdout.is_empty(), "a server still runs in {}", folder.display());
}
