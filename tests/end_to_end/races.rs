//! Several programs at once.

use blackwater_tests::World;

#[tokio::test(flavor = "multi_thread")]
async fn eight_programs_at_once_leave_one_batch_a_number() {
    let world = World::totesys().await;
    for round in 0..3 {
        let programs: Vec<_> = (0..8).map(|_| world.spawn(&["run"])).collect();
        if round > 0 {
            world.source.batch_execute(&format!("UPDATE design SET file_name = 'round {round}'")).await.unwrap();
        }
        let mut won = Vec::new();
        for program in programs {
            let output = program.wait_with_output().await.unwrap();
            assert!(
                output.status.success(),
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
            let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            if report["extract"]["outcome"] == "batch" {
                won.push(report["extract"]["batch"].as_u64().unwrap());
            }
        }
        let count = won.len();
        won.sort_unstable();
        won.dedup();
        assert_eq!(won.len(), count, "two programs say that they wrote the same batch: {won:?}");
        world.run_and_agree().await;
    }
    let manifests = world.manifests();
    let numbers: Vec<_> = manifests.iter().map(|manifest| manifest["batch"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=manifests.len() as u64).collect::<Vec<_>>());
    let logs: std::collections::BTreeSet<_> = manifests.iter().map(|manifest| manifest["log"].to_string()).collect();
    assert_eq!(logs.len(), 1);
    let applied = "SELECT string_agg(batch::text, ',' ORDER BY batch) FROM blackwater.ledger";
    let all: Vec<_> = numbers.iter().map(ToString::to_string).collect();
    assert_eq!(world.in_warehouse(applied).await, Some(all.join(",")));
}

#[tokio::test(flavor = "multi_thread")]
async fn loads_that_wait_for_each_other_to_make_the_ledger_find_it_made() {
    let world = World::totesys().await;
    world.blackwater(&["extract"]).await.report();
    world.blackwater(&["transform"]).await.report();
    let lock = "pg_advisory_lock(hashtextextended('blackwater ', 0))";
    world.warehouse.batch_execute(&format!("SELECT {lock}")).await.unwrap();
    let programs: Vec<_> = (0..4).map(|_| world.spawn(&["load"])).collect();
    let waiting = "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
                   WHERE locktype = 'advisory' AND NOT granted AND application_name = 'blackwater load'";
    while world.in_warehouse(waiting).await != Some("4".into()) {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    world.warehouse.batch_execute(&format!("SELECT {}", lock.replace("_lock", "_unlock"))).await.unwrap();
    for program in programs {
        let output = program.wait_with_output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    world.agree().await;
    assert_eq!(world.in_warehouse("SELECT count(*) FROM blackwater.ledger").await, Some("1".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_meets_a_lock_goes_on_when_it_is_gone() {
    let world = World::totesys().await;
    world.run().await;
    world.source.batch_execute("UPDATE design SET file_name = 'x'").await.unwrap();
    let other = world.server.url("warehouse");
    let (other, connection) = tokio_postgres::connect(&other, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    other.batch_execute("BEGIN; LOCK TABLE dim_design").await.unwrap();
    let program = world.spawn(&["run"]);
    // Longer than a statement waits for a lock.
    tokio::time::sleep(std::time::Duration::from_secs(11)).await;
    other.batch_execute("COMMIT").await.unwrap();
    let output = program.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    world.agree().await;
}
