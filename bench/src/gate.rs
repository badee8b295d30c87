//! The gate's check of the largest file that it lets in, beside the same check in Python with csv and chardet; and the whole function
//! with that file.

use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use blackwater_local::s3::{ACCESS_KEY, S3, SECRET_KEY};
use blackwater_tests::Function;
use serde_json::{Value, json};

use crate::pipeline::TIMES;

/// Bytes of the file.
const BYTES: usize = 149_000_000;
/// What the check may take: seconds of CPU, and kB of memory.
const BAR: (f64, u64) = (1.0, 64 << 10);

/// What a process took.
struct Took {
    cpu: f64,
    wall: f64,
    memory: u64,
}

pub(crate) async fn measure_all(workspace: &Path) -> anyhow::Result<()> {
    let gate = workspace.join("target/release/gate");
    ensure!(gate.exists(), "there is no {}: `make release`", gate.display());
    let python = workspace.join("target/tools/bench/bin/python");
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("stations.csv");
    let rows = write(&file)?;
    println!("\ngate: a CSV of {BYTES} bytes and {rows} rows, whose last one has the only byte that is no UTF-8");
    println!("          CPU      time    memory");
    let (file, scripts) = (file.as_path(), workspace.join("bench/python"));
    let check = [gate.as_path(), Path::new("check"), file];
    let (ours, report) = median(&python, &scripts, &check)?;
    print("gate", &ours);
    let script = scripts.join("check.py");
    let (theirs, their_report) = median(&python, &scripts, &[&python, &script, file])?;
    print("Python", &theirs);
    println!(
        "  Python takes {:.0} times the CPU, and {:.0} times the memory",
        theirs.cpu / ours.cpu,
        theirs.memory as f64 / ours.memory as f64
    );
    for report in [&report["file_set"][0], &their_report] {
        let found = (&report["csv_valid"], &report["csv_rows"], &report["csv_encoding"]);
        ensure!(found == (&true.into(), &rows.into(), &"windows-1252".into()), "{report}");
    }
    let memory = function(&gate, file).await?;
    println!("  as a function, from S3 to S3, {} MB of memory at most", memory >> 10);
    ensure!(memory < BAR.1, "the function takes more than {} kB of memory", BAR.1);
    ensure!(ours.cpu < BAR.0 && ours.memory < BAR.1, "more than {} s of CPU or {} kB of memory", BAR.0, BAR.1);
    Ok(())
}

/// The most memory of the function when it lets the file in, in kB.
async fn function(gate: &Path, file: &Path) -> anyhow::Result<u64> {
    let folder = tempfile::tempdir()?;
    let upload = "X01000000/2026-05-07/now";
    let drop = folder.path().join("drop").join(upload);
    std::fs::create_dir_all(&drop)?;
    std::fs::copy(file, drop.join("stations.csv"))?;
    let s3 = S3::start(folder.path(), &["drop", "final"]).await?;
    let variables = [
        ("GATE_DROP__BUCKET", "drop"),
        ("GATE_FINAL__BUCKET", "final"),
        ("AWS_REGION", "eu-west-2"),
        ("AWS_ENDPOINT_URL", &s3.endpoint()),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let function = Function::start(&[gate.to_owned()], &variables, Duration::from_secs(300)).await;
    let key = format!("{upload}/stations.csv");
    let event = json!({ "Records": [{ "s3": { "bucket": { "name": "drop" }, "object": { "key": key } } }] });
    let outcomes = function.invoke(event).await.map_err(|error| anyhow::anyhow!("{error}"))?;
    ensure!(outcomes[0]["status"] == "let_in", "{outcomes}");
    Ok(function.memory())
}

fn print(name: &str, took: &Took) {
    println!("{name:<8} {:>5.2} s  {:>5.2} s  {:>5} MB", took.cpu, took.wall, took.memory >> 10);
}

/// Writes the file: its rows, with the header.
fn write(file: &Path) -> anyhow::Result<u64> {
    let mut to = BufWriter::new(std::fs::File::create(file)?);
    let header = "HouseID,Number,Street,Town,Postcode,Station,Address,Easting,Northing,Ward\n";
    to.write_all(header.as_bytes())?;
    let (mut bytes, mut rows) = (header.len(), 1);
    let last = b"0,1,Rue de l'\xc9glise,\"Town, the\",AA1 1AA,Hall,\"1, Hall Lane\",100,200,North\n";
    while bytes < BYTES - last.len() - 200 {
        let row = format!(
            "{rows},{},High Street,\"Town, the\",AA{} {}AA,Village Hall,\"{}, Hall Lane\",{},{},North\n",
            rows % 300,
            rows % 90,
            rows % 10,
            rows % 50,
            400_000 + rows % 1000,
            200_000 + rows % 777
        );
        to.write_all(row.as_bytes())?;
        bytes += row.len();
        rows += 1;
    }
    to.write_all(last)?;
    to.flush()?;
    Ok(rows + 1)
}

/// What a command takes, the median of several by CPU, and what it prints as JSON.
fn median(python: &Path, scripts: &Path, command: &[&Path]) -> anyhow::Result<(Took, Value)> {
    let mut all = Vec::new();
    let mut report = Value::Null;
    for _ in 0..TIMES {
        let output = Command::new(python).arg(scripts.join("measured.py")).args(command).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut measured: Value = serde_json::from_slice(&output.stdout).context("no measurement")?;
        report = measured["printed"].take();
        let number = |name: &str| measured[name].as_f64().unwrap_or_default();
        all.push(Took { cpu: number("cpu"), wall: number("wall"), memory: number("memory") as u64 });
    }
    all.sort_by(|one, other| one.cpu.total_cmp(&other.cpu));
    Ok((all.swap_remove(TIMES / 2), report))
}
