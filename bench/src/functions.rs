//! The functions as Lambda starts them: how long from the start of the process to the first request for an event, how long the
//! first event takes, how much memory, how large the package, beside a function in Python that only gets ready.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use blackwater_local::s3::S3;
use blackwater_local::totesys;
use blackwater_tests::{BUCKETS, Function, World};
use serde_json::json;

/// Starts of each function, of which the median counts.
const STARTS: usize = 15;

/// Orders in the batch of the first event: each has a transaction and a payment.
const ORDERS: u32 = 10_000;

/// What a function may take: to its first request, for its package, and in memory.
struct Bar {
    ready: Duration,
    package: u64,
    memory: u64,
}

/// What a function took.
struct Measured {
    name: &'static str,
    package: Option<u64>,
    ready: Duration,
    memory_ready: u64,
    event: Duration,
    memory: u64,
}

pub(crate) async fn measure_all(folder: &Path) -> anyhow::Result<()> {
    let world = World::totesys().await;
    totesys::make_deals(&world.source, ORDERS).await?;
    let s3 = S3::start(&world.buckets(), &BUCKETS).await?;
    let mut variables = world.variables(&s3);
    variables.push(("BLACKWATER_LIMITS__MEMORY".into(), "128MB".into()));
    variables.push(("POLARS_MAX_THREADS".into(), "2".into()));
    let bar = |package: u64| Bar { ready: Duration::from_millis(60), package: package << 20, memory: 128 << 10 };

    println!("{STARTS} starts of each; the first event brings {ORDERS} orders with their transactions and payments\n");
    println!("function   package  to first request  memory then  first event  memory at most");
    let mut missed = Vec::new();
    for (name, bar) in [("extract", bar(10)), ("transform", bar(25)), ("load", bar(10))] {
        let package = folder.join(format!("target/package/{name}.zip"));
        let package = package.metadata().with_context(|| format!("no {}", package.display()))?.len();
        let program = [folder.join(format!("target/lambda/blackwater-{name}"))];
        let measured = Measured { package: Some(package), ..measure(name, &program, &variables).await? };
        measured.print();
        if measured.ready > bar.ready || package > bar.package || measured.memory > bar.memory {
            missed.push(name);
        }
    }
    variables.push(("DATABASE".into(), world.server.port().to_string()));
    let python = [folder.join("target/tools/bench/bin/python"), folder.join("bench/python/function.py")];
    measure("Python", &python, &variables).await?.print();
    println!(
        "\nThe one in Python imports boto3, pg8000, pandas and pyarrow, makes its clients, and for the event only connects."
    );
    ensure!(missed.is_empty(), "beyond 60 ms, 128 MB, or 10 MB (transform: 25 MB): {}", missed.join(", "));
    Ok(())
}

async fn measure(name: &'static str, program: &[PathBuf], variables: &[(String, String)]) -> anyhow::Result<Measured> {
    let mut starts = Vec::new();
    let mut memory_ready = 0;
    for _ in 0..STARTS {
        let function = Function::start(program, variables, Duration::from_secs(900)).await;
        starts.push(function.ready().await);
        memory_ready = function.memory();
    }
    starts.sort();
    let function = Function::start(program, variables, Duration::from_secs(900)).await;
    function.ready().await;
    let began = Instant::now();
    let answer = function.invoke(json!({})).await;
    ensure!(answer.is_ok(), "{name}: {answer:?}");
    let (event, memory) = (began.elapsed(), function.memory());
    Ok(Measured { name, package: None, ready: starts[STARTS / 2], memory_ready, event, memory })
}

impl Measured {
    fn print(&self) {
        let package =
            self.package.map_or(String::new(), |bytes| format!("{:.1} MB", bytes as f64 / f64::from(1 << 20)));
        println!(
            "{:<9} {package:>8} {:>14} ms {:>9} MB {:>10.2} s {:>12} MB",
            self.name,
            self.ready.as_millis(),
            self.memory_ready >> 10,
            self.event.as_secs_f64(),
            self.memory >> 10
        );
    }
}
