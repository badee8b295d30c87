//! What operators do after an accident, as docs/operations.md says it.

use blackwater_tests::{BUCKETS, World};

/// A change of the sample for another batch.
const CHANGES: [&str; 3] = [
    "UPDATE design SET file_name = 'one' WHERE design_id = 1; DELETE FROM payment WHERE payment_id = 2",
    "UPDATE sales_order SET units_sold = 7 WHERE sales_order_id = 4",
    "UPDATE department SET location = 'Hull' WHERE department_id = 2",
];

/// Empties the bucket.
fn empty(world: &World, bucket: &str) {
    std::fs::remove_dir_all(world.buckets().join(bucket)).unwrap();
    world.forget_checksums();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warehouse_that_is_restored_to_yesterday_catches_up_by_itself() {
    let mut world = World::totesys().await;
    world.run_and_agree().await;
    world.swap_databases("CREATE DATABASE yesterday TEMPLATE warehouse").await;
    for change in CHANGES {
        world.source.batch_execute(change).await.unwrap();
        world.run_and_agree().await;
    }
    let versions = "SELECT count(*) FROM fact_sales_order";
    let before = world.in_warehouse(versions).await;
    world.swap_databases("DROP DATABASE warehouse WITH (FORCE);ALTER DATABASE yesterday RENAME TO warehouse").await;
    world.run_and_agree().await;
    assert_eq!(world.in_warehouse(versions).await, before, "the history is whole");
    assert_eq!(world.blackwater(&["verify"]).await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_processed_bucket_that_was_emptied_is_filled_again() {
    let world = World::totesys().await;
    world.run_and_agree().await;
    world.source.batch_execute(CHANGES[0]).await.unwrap();
    world.blackwater(&["extract"]).await.report();
    world.blackwater(&["transform"]).await.report();
    empty(&world, BUCKETS[1]);
    world.source.batch_execute(CHANGES[1]).await.unwrap();
    world.run_and_agree().await;
    assert_eq!(world.blackwater(&["status"]).await.report()["applied"]["batch"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_ingestion_bucket_it_stops_and_begins_anew_in_a_schema_of_its_own() {
    let world = World::totesys().await;
    world.run_and_agree().await;
    empty(&world, BUCKETS[0]);
    let stopped = world.blackwater(&["run"]).await;
    stopped.says(1, &["ends at batch 0, but batch 1 of it is applied to the warehouse", "Restore its objects"]);
    let check = world.blackwater(&["check"]).await;
    assert!(check.code == Some(3) && check.stdout.contains("and the ingestion bucket has none"), "{check:?}");
    empty(&world, BUCKETS[1]);
    with_schema(&world, "anew");
    world.run().await;
    for table in ["dim_design", "current_fact_sales_order"] {
        // The new history begins now.
        let rows = |schema: &str| format!("SELECT to_jsonb(t) - 'valid_from' FROM {schema}.{table} t");
        let both = format!("SELECT count(*) FROM ({} EXCEPT {}) d", rows("public"), rows("anew"));
        assert_eq!(world.in_warehouse(&both).await, Some("0".into()), "{table}");
    }
}

/// Gives the warehouse's star schema another name in the configuration.
fn with_schema(world: &World, schema: &str) {
    let text = std::fs::read_to_string(world.configuration()).unwrap();
    std::fs::write(world.configuration(), text.replace("[ingestion]", &format!("schema = \"{schema}\"\n[ingestion]")))
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pipelines_share_a_warehouse_in_two_schemas_and_never_in_one() {
    let world = World::totesys().await;
    world.run_and_agree().await;
    let first = std::fs::read_to_string(world.configuration()).unwrap();
    let second = first.replace(BUCKETS[0], "second-ingestion").replace(BUCKETS[1], "second-processed");
    std::fs::write(world.configuration(), &second).unwrap();
    let check = world.blackwater(&["check"]).await;
    assert!(check.code == Some(3) && check.stdout.contains("If another pipeline feeds that schema"), "{check:?}");
    let stopped = world.blackwater(&["run"]).await;
    stopped.says(1, &["log", "a new log wants a new processed bucket and a warehouse schema of its own"]);
    with_schema(&world, "second");
    world.run().await;
    world.source.batch_execute(CHANGES[0]).await.unwrap();
    world.run().await;
    let name = "SELECT file_name FROM second.dim_design WHERE design_id = 1";
    assert_eq!(world.in_warehouse(name).await, Some("one".into()));
    std::fs::write(world.configuration(), &first).unwrap();
    world.run_and_agree().await;
}
