//! What 1,000 changed rows cost beside ever more rows that did not change.

use std::fmt::Write;
use std::path::Path;

use crate::pipeline::{Bench, TIMES, Took, median, release};

/// The rows of the facts: each deal has one in two of them.
const FACT_ROWS: [u32; 3] = [100_000, 1_000_000, 10_000_000];

/// What is measured, and its words.
const LINES: [(&str, &str); 4] = [
    ("run", "blackwater run"),
    ("extract", "blackwater extract"),
    ("transform", "blackwater transform"),
    ("load", "blackwater load"),
];

pub(crate) async fn measure_all(workspace: &Path) -> anyhow::Result<()> {
    let program = release(workspace)?;
    let mut results = Vec::new();
    for rows in FACT_ROWS {
        let bench = Bench::of(rows / 2, &program, workspace).await?;
        println!("1,000 changed orders beside {rows} fact rows");
        bench.blackwater(&["run"])?;
        // As autovacuum would.
        bench.world.warehouse.batch_execute("VACUUM ANALYZE").await?;
        let mut took = Took::new();
        for time in 0..TIMES {
            bench.change_orders(2 * time).await?;
            for stage in ["extract", "transform", "load"] {
                took.entry(stage).or_default().push(bench.blackwater(&[stage])?);
            }
            bench.change_orders(2 * time + 1).await?;
            took.entry("run").or_default().push(bench.blackwater(&["run"])?);
        }
        bench.blackwater(&["verify"])?;
        results.push((rows, took));
    }
    let mut text = "| seconds for 1,000 changed orders |".to_owned();
    for (rows, _) in &results {
        let _ = write!(text, " {rows} fact rows |");
    }
    text.push_str("\n| --- | ---: | ---: | ---: |\n");
    for (what, words) in LINES {
        let times = results.iter().filter_map(|(_, took)| median(took, what)).map(|time| format!("{time:.2}"));
        let _ = writeln!(text, "| {words} | {} |", times.collect::<Vec<_>>().join(" | "));
    }
    println!("\n{text}");
    Ok(())
}
