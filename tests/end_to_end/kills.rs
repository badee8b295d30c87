//! The program killed with SIGKILL: before and after each message to the object store, and to the
//! warehouse all along the way. A plain `run` after it must end with
//! the warehouse equal to the source. And connections that break, which lose the answers to
//! requests that succeeded.

use std::sync::Arc;

use blackwater_local::s3::S3;
use blackwater_tests::{BUCKETS, KillSwitch, Proxy, World, captures};

/// Kills a run at its first message, then at the one `step` after it … and at each of the last, until one
/// ends before it is killed: the number of kills.
async fn sweep(world: &World, switch: &KillSwitch, step: u64) -> u64 {
    let change = |at: u64| {
        format!(
            "UPDATE design SET file_name = 'kill {at}' WHERE design_id = 1;
             UPDATE address SET city = 'kill {at}' WHERE address_id = 1;
             INSERT INTO currency (currency_code, created_at, last_updated) VALUES ('EUR', now(), now())"
        )
    };
    world.run().await;
    world.source.batch_execute(&change(0)).await.unwrap();
    switch.hold_at(0);
    world.run().await;
    let all = switch.passed();
    let (mut at, mut kills) = (1, 0);
    loop {
        world.source.batch_execute(&change(at)).await.unwrap();
        switch.hold_at(at);
        let mut program = world.spawn(&["run"]);
        let killed = tokio::select! {
            _ = program.wait() => false,
            () = switch.wait() => { program.kill().await.unwrap(); true }
        };
        switch.hold_at(0);
        world.run_and_agree().await;
        if !killed {
            return kills;
        }
        kills += 1;
        at += if at + 30 < all { step } else { 1 };
    }
}

/// A world whose buckets are reached through a proxy.
async fn with_buckets_behind(switch: &Arc<KillSwitch>) -> (World, S3) {
    let world = World::totesys().await;
    let server = S3::start(&world.buckets(), &BUCKETS).await.unwrap();
    let port = server.endpoint().rsplit_once(':').unwrap().1.parse().unwrap();
    let proxy = Proxy::start(port, Arc::clone(switch)).await;
    let (source, warehouse) = (world.server.url("source"), world.server.url("warehouse"));
    world.configure(&source, &warehouse, &format!("endpoint = \"http://{}\"", proxy.address));
    (world, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_message_to_the_buckets_the_next_run_makes_it_good() {
    let switch = Arc::new(KillSwitch::default());
    let (world, _server) = with_buckets_behind(&switch).await;
    let kills = sweep(&world, &switch, 1).await;
    assert!(kills > 40, "the sweep met only {kills} messages");
    let manifests = world.manifests();
    assert!(manifests.iter().zip(1..).all(|(manifest, number)| manifest["batch"] == number));
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_message_to_the_source_the_next_run_makes_it_good() {
    let world = World::totesys().await;
    let switch = Arc::new(KillSwitch::default());
    let proxy = Proxy::start(world.server.port(), Arc::clone(&switch)).await;
    let source = world.server.url("source");
    let source = source.replace(&world.server.port().to_string(), &proxy.address.port().to_string());
    world.configure(&source, &world.server.url("warehouse"), "directory = \"buckets\"");
    let kills = sweep(&world, &switch, 7).await;
    assert!(kills > 30, "the sweep met only {kills} messages");
    let slots = "SELECT count(*) FROM pg_replication_slots";
    let slots: i64 = world.source.query_one(slots, &[]).await.unwrap().get(0);
    assert_eq!(slots, i64::from(captures()), "one slot, if there is any");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_message_to_the_warehouse_the_next_run_makes_it_good() {
    let world = World::totesys().await;
    let switch = Arc::new(KillSwitch::default());
    let proxy = Proxy::start(world.server.port(), Arc::clone(&switch)).await;
    let warehouse =
        world.server.url("warehouse").replace(&world.server.port().to_string(), &proxy.address.port().to_string());
    world.configure(&world.server.url("source"), &warehouse, "directory = \"buckets\"");
    // Most of them are within the transaction of the batch.
    let kills = sweep(&world, &switch, 5).await;
    assert!(kills > 30, "the sweep met only {kills} messages");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_connection_to_the_buckets_breaks_anywhere_knows_that_it_wrote_its_batch() {
    let switch = Arc::new(KillSwitch::default());
    let (world, _server) = with_buckets_behind(&switch).await;
    let mut broken = 0;
    for at in 1.. {
        world
            .source
            .batch_execute(&format!("UPDATE design SET file_name = 'cut {at}' WHERE design_id = 1"))
            .await
            .unwrap();
        switch.cut_at(at);
        let report = world.run().await;
        let met = switch.passed() >= at;
        switch.hold_at(0);
        assert_eq!(report["extract"]["outcome"], "batch", "broken at message {at}: {report}");
        assert_eq!(report["transform"]["batches"][0]["lost"], false, "broken at message {at}: {report}");
        world.agree().await;
        if !met {
            break;
        }
        broken += 1;
    }
    assert!(broken > 40, "the sweep met only {broken} messages");
}

/// Breaks each `step`th message of a run to one of the databases.
async fn breaks(database: &str, step: usize) {
    let world = World::totesys().await;
    let switch = Arc::new(KillSwitch::default());
    let proxy = Proxy::start(world.server.port(), Arc::clone(&switch)).await;
    let there = |name: &str| {
        let port = if name == database { proxy.address.port() } else { world.server.port() };
        world.server.url(name).replace(&world.server.port().to_string(), &port.to_string())
    };
    world.configure(&there("source"), &there("warehouse"), "directory = \"buckets\"");
    let mut broken = 0;
    for at in (1..).step_by(step) {
        let change = format!("UPDATE design SET file_name = 'cut {at}' WHERE design_id = 1 + {at} % 20");
        world.source.batch_execute(&change).await.unwrap();
        switch.cut_at(at);
        let report = world.run().await;
        let met = switch.passed() >= at;
        switch.hold_at(0);
        assert_eq!(report["load"]["applied"], broken + 1, "broken at message {at}: {report}");
        world.agree().await;
        if !met {
            break;
        }
        broken += 1;
    }
    assert!(broken > 10, "the sweep met only {broken} messages");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_connection_to_the_source_breaks_goes_on() {
    breaks("source", 9).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_connection_to_the_warehouse_breaks_goes_on() {
    breaks("warehouse", 9).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn buckets_that_are_busy_for_a_while_hold_up_nothing() {
    let switch = Arc::new(KillSwitch::default());
    let (world, _server) = with_buckets_behind(&switch).await;
    for requests in [1, 3, 4] {
        switch.refuse(requests);
        world.source.batch_execute(&format!("UPDATE design SET file_name = 'busy {requests}'")).await.unwrap();
        world.run_and_agree().await;
    }
    // There is a bound.
    switch.refuse(1000);
    world.source.batch_execute("UPDATE design SET file_name = 'too busy'").await.unwrap();
    world.blackwater(&["run"]).await.says(1, &["cannot reach test-processed", "503"]);
    switch.refuse(0);
    world.run_and_agree().await;
}
