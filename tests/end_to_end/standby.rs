//! A source that is a standby, one that is behind, and one that is promoted.

use std::time::Duration;

use blackwater_tests::{BUCKETS, World, extracted};
use tokio_postgres::Client;

/// Waits until the standby has what the primary has.
async fn catch_up(world: &World, standby: &Client) {
    let position: String = world.source.query_one("SELECT pg_current_wal_lsn()::text", &[]).await.unwrap().get(0);
    let there = format!("SELECT pg_last_wal_replay_lsn() >= '{position}'::pg_lsn");
    while !standby.query_one(&there, &[]).await.unwrap().get::<_, bool>(0) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_read_exactly_and_one_that_is_behind_makes_the_run_give_way() {
    let world = World::totesys().await;
    let (standby, source) = world.copy_of_server("-R", "true").await;
    world.configure(&source, &world.server.url("warehouse"), "directory = \"buckets\"");
    catch_up(&world, &standby).await;
    world.run_and_agree().await;

    // A standby prints no running transactions in its snapshots.
    let writer = world.session().await;
    writer.batch_execute("BEGIN; UPDATE design SET design_name = 'early' WHERE design_id = 1; SAVEPOINT a; UPDATE design SET design_name = 'sub' WHERE design_id = 2").await.unwrap();
    world.source.batch_execute("UPDATE address SET city = 'x' WHERE address_id = 1").await.unwrap();
    catch_up(&world, &standby).await;
    world.run_and_agree().await;
    writer.batch_execute("COMMIT").await.unwrap();
    catch_up(&world, &standby).await;
    let report = world.run_and_agree().await;
    assert_eq!(extracted(&report, "design")["rows"], 2);

    // Another standby behind the same address wrote the newest batch, and was further on.
    let mut newest = world.manifests().pop().unwrap();
    let key = format!("batches/{:012}.json", newest["batch"].as_u64().unwrap());
    let position = newest["source"]["wal"].as_u64().unwrap();
    newest["source"]["wal"] = (position + (1 << 40)).into();
    world.overwrite(BUCKETS[0], &key, &newest.to_string());
    world.source.batch_execute("UPDATE address SET city = 'y' WHERE address_id = 1").await.unwrap();
    catch_up(&world, &standby).await;
    let report = world.run().await;
    assert_eq!(report["extract"]["outcome"], "gave_way");
    assert!(report["extract"]["notices"][0].as_str().unwrap().contains("standby is behind"), "{report}");
    newest["source"]["wal"] = position.into();
    world.overwrite(BUCKETS[0], &key, &newest.to_string());
    world.run_and_agree().await;

    // A promoted standby is another server: its markers mean nothing.
    standby.batch_execute("SELECT pg_promote()").await.unwrap();
    let report = world.run_and_agree().await;
    assert!(report["extract"]["notices"][0].as_str().unwrap().contains("another timeline"), "{report}");
    standby.batch_execute("SELECT pg_current_xact_id()").await.unwrap();
}
