//! A batch is one snapshot of the source, whatever others do while it is read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use blackwater_tests::{BUCKETS, World};
use serde_json::Value;
use tokio_postgres::Client;

/// Runs extract again and again while `change` is repeated on another session; the manifests.
async fn extract_during(world: &World, change: impl Fn(u32) -> String + Send + 'static) -> Vec<Value> {
    let writer: Client = world.session().await;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let writing = tokio::spawn(async move {
        for number in 1.. {
            if stopped.load(Ordering::SeqCst) {
                break;
            }
            writer.batch_execute(&change(number)).await.unwrap();
        }
    });
    let mut batches = 0;
    for _ in 0..200 {
        if batches == 12 {
            break;
        }
        let report = world.blackwater(&["extract"]).await.report();
        batches += i32::from(report["outcome"] == "batch");
    }
    assert_eq!(batches, 12, "most runs gave way");
    stop.store(true, Ordering::SeqCst);
    writing.await.unwrap();
    world.run_and_agree().await;
    world.manifests()
}

/// The column `name` of a table's rows in a batch; the sample has no line breaks there.
fn values(world: &World, manifest: &Value, table: &str, name: &str) -> Vec<String> {
    let columns = manifest["tables"][table]["columns"].as_array().unwrap();
    let place = columns.iter().position(|column| column["name"] == name).unwrap();
    let objects = manifest["tables"][table]["objects"].as_array().unwrap();
    let rows = objects.iter().flat_map(|object| {
        let text = String::from_utf8(world.object(BUCKETS[0], object)).unwrap();
        text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
    });
    rows.map(|row| row.split(',').nth(place).unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tables_that_change_together_are_together_in_every_batch() {
    let world = World::totesys().await;
    world.run().await;
    let manifests = extract_during(&world, |number| {
        format!(
            "BEGIN; UPDATE currency SET currency_code = 'c{0}' WHERE currency_id = 1;
             UPDATE design SET design_name = 'c{0}' WHERE design_id = 1; COMMIT",
            number % 100
        )
    })
    .await;
    let mut compared = 0;
    for manifest in &manifests[1..] {
        let codes = values(&world, manifest, "currency", "currency_code");
        assert_eq!(codes, values(&world, manifest, "design", "design_name"), "batch {}", manifest["batch"]);
        compared += codes.len();
    }
    assert!(compared > 5, "only {compared} rows were compared");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_truncated_and_filled_again_is_never_empty_in_a_batch() {
    let world = World::totesys().await;
    world.source.batch_execute("ALTER TABLE payment DROP CONSTRAINT payment_transaction_id_fkey").await.unwrap();
    world.run().await;
    let manifests = extract_during(&world, |number| {
        format!(
            "BEGIN; CREATE TEMP TABLE t ON COMMIT DROP AS SELECT * FROM \"transaction\"; TRUNCATE \"transaction\";
             INSERT INTO \"transaction\" SELECT * FROM t; UPDATE currency SET last_updated = now();
             UPDATE design SET design_name = 'd{number}' WHERE design_id = 1; COMMIT; SELECT pg_sleep(0.05)"
        )
    })
    .await;
    for manifest in &manifests {
        let table = &manifest["tables"]["transaction"];
        let rows: u64 =
            table["objects"].as_array().unwrap().iter().map(|object| object["rows"].as_u64().unwrap()).sum();
        assert_eq!((table["rows"].as_u64(), rows), (Some(34), 34), "batch {}", manifest["batch"]);
    }
}
