//! Transactions that are open while runs go by.

use blackwater_tests::World;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_transaction_wrote_before_a_run_and_commits_after_it_arrives() {
    let world = World::totesys().await;
    world.run().await;
    let writer = world.session().await;
    writer.batch_execute("BEGIN; UPDATE design SET design_name = 'written early' WHERE design_id = 1").await.unwrap();
    for n in 0..3 {
        world
            .source
            .batch_execute(&format!("UPDATE address SET city = 'city {n}' WHERE address_id = 1"))
            .await
            .unwrap();
        world.run_and_agree().await;
    }
    writer.batch_execute("UPDATE design SET design_name = 'written late' WHERE design_id = 2; COMMIT").await.unwrap();
    world.run_and_agree().await;
    assert_eq!(
        world.in_warehouse("SELECT design_name FROM dim_design WHERE design_id = 1").await,
        Some("written early".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_under_savepoints_arrives() {
    let world = World::totesys().await;
    world.run().await;
    let writer = world.session().await;
    writer
        .batch_execute(
            "BEGIN; SAVEPOINT a; UPDATE design SET design_name = 'a' WHERE design_id = 1; RELEASE a;
             SAVEPOINT b; UPDATE design SET design_name = 'b' WHERE design_id = 2; ROLLBACK TO b;
             SAVEPOINT c; UPDATE design SET design_name = 'c' WHERE design_id = 3;
             SAVEPOINT d; UPDATE design SET design_name = 'd' WHERE design_id = 4",
        )
        .await
        .unwrap();
    world.source.batch_execute("UPDATE address SET city = 'x'").await.unwrap();
    world.run_and_agree().await;
    writer.batch_execute("SAVEPOINT e; UPDATE design SET design_name = 'e' WHERE design_id = 5").await.unwrap();
    world.run_and_agree().await;
    writer.batch_execute("COMMIT").await.unwrap();
    let report = world.run_and_agree().await;
    assert_eq!(report["load"]["batches"][0]["tables"][0]["updated"], 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_prepared_transaction_wrote_arrives() {
    let world = World::totesys().await;
    world.run().await;
    let writer = world.session().await;
    writer
        .batch_execute("BEGIN; UPDATE design SET design_name = 'p' WHERE design_id = 1; PREPARE TRANSACTION 'p'")
        .await
        .unwrap();
    for n in 0..2 {
        world.source.batch_execute(&format!("UPDATE address SET city = 'city {n}'")).await.unwrap();
        world.run_and_agree().await;
    }
    assert_eq!(world.run().await["extract"]["outcome"], "nothing");
    writer.batch_execute("COMMIT PREPARED 'p'").await.unwrap();
    world.run_and_agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_stays_open_is_told_with_its_age() {
    let world = World::totesys().await;
    world.run().await;
    let writer = world.session().await;
    writer.batch_execute("BEGIN; UPDATE design SET design_name = 'w' WHERE design_id = 1").await.unwrap();
    for city in ["one", "two", "three"] {
        world.source.batch_execute(&format!("UPDATE address SET city = '{city}'")).await.unwrap();
        world.run().await;
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    }
    let held = |report: &serde_json::Value| report["extract"]["held_seconds"].as_u64().unwrap();
    // As far as the log tells: since the first batch after it began.
    let age = held(&world.run().await);
    assert!((3..60).contains(&age), "{age} s");
    writer.batch_execute("COMMIT").await.unwrap();
    assert_eq!(held(&world.run_and_agree().await), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_transaction_without_an_id_yet_writes_later_arrives() {
    let world = World::totesys().await;
    let writer = world.session().await;
    writer.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM design").await.unwrap();
    world.run().await;
    world.source.batch_execute("UPDATE address SET city = 'x'").await.unwrap();
    world.run_and_agree().await;
    writer.batch_execute("UPDATE design SET design_name = 'w' WHERE design_id = 1").await.unwrap();
    world.run_and_agree().await;
    writer.batch_execute("COMMIT").await.unwrap();
    world.run_and_agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_being_truncated_makes_the_run_give_way() {
    let world = World::totesys().await;
    world.run().await;
    let writer = world.session().await;
    writer.batch_execute("BEGIN; TRUNCATE design CASCADE").await.unwrap();
    let run = world.run();
    // Whoever looks for the reason of a wait sees who waits.
    let waits = async {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'blackwater extract' AND wait_event_type = 'Lock'";
        while world.in_warehouse(waiting).await == Some("0".into()) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let (report, ()) = tokio::join!(run, waits);
    assert_eq!(report["extract"]["outcome"], "gave_way");
    assert!(report["extract"]["notices"][0].as_str().unwrap().contains("lock"), "{report}");
    writer.batch_execute("ROLLBACK").await.unwrap();
    world.source.batch_execute("UPDATE design SET design_name = 'z'").await.unwrap();
    world.run_and_agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alter_table_that_waits_for_others_makes_the_run_give_way() {
    let world = World::totesys().await;
    world.run().await;
    let reader = world.session().await;
    reader.batch_execute("BEGIN; LOCK TABLE address IN ACCESS SHARE MODE").await.unwrap();
    let altering = world.session().await;
    let alter = tokio::spawn(async move { altering.batch_execute("ALTER TABLE address ADD COLUMN x text").await });
    assert_eq!(world.run().await["extract"]["outcome"], "gave_way");
    reader.batch_execute("COMMIT").await.unwrap();
    alter.await.unwrap().unwrap();
    let report = world.run_and_agree().await;
    assert_eq!(report["extract"]["tables"][0]["full"], "its definition has changed");
}
