//! Changes found by the write-ahead log around accidents: of the server, of the slot, and of the program.

use std::sync::Arc;
use std::time::{Duration, Instant};

use blackwater_local::s3::S3;
use blackwater_tests::{BUCKETS, KillSwitch, LOGICAL, Proxy, World, finish};
use serde_json::Value;

use crate::capture::{ORACLE, PACK, SHOP, by_wal_after, detection, says, shop, slot, wait_until};
use crate::deletions::Dice;

/// The tables that are read in full, with the reason.
fn full(report: &Value) -> Vec<String> {
    let tables = report["extract"]["tables"].as_array().unwrap();
    tables.iter().filter_map(|table| table["full"].as_str()).map(str::to_owned).collect()
}

/// The shop on a server with these settings.
async fn shop_with(settings: &'static [(&'static str, &'static str)], changes: &str) -> World {
    let world = World::with_settings(settings, SHOP, &PACK, &ORACLE).await;
    world.detect_by(changes);
    world.publish().await;
    world.run_and_agree().await;
    world
}

/// How many slots the server has.
async fn slots(world: &World) -> i64 {
    world.source.query_one("SELECT count(*) FROM pg_replication_slots", &[]).await.unwrap().get(0)
}

async fn execute(world: &World, sql: &str) {
    world.source.batch_execute(sql).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_restarted_or_crashed_goes_on_where_it_was() {
    let mut world = shop().await;
    for n in 0..3 {
        execute(&world, &format!("UPDATE sale SET amount = {n} WHERE id = 1; DELETE FROM sale WHERE id = 10 + {n}"))
            .await;
        world.run_and_agree().await;
        execute(&world, &format!("UPDATE sale SET amount = {n} WHERE id = 2; DELETE FROM sale WHERE id = 20 + {n}"))
            .await;
        match n {
            0 => world.restart().await,
            1 => world.crash().await,
            _ => {
                // The slot goes back to its last checkpoint, and comes to its position again.
                world.crash().await;
                world.restart().await;
            }
        }
        execute(&world, &format!("UPDATE item SET name = 'n {n}' WHERE id = 30; DELETE FROM sale WHERE id = 30 + {n}"))
            .await;
        let report = world.run_and_agree().await;
        assert_eq!((full(&report), detection(&report)), (Vec::new(), "wal".into()), "{report}");
        assert_eq!(world.run().await["extract"]["outcome"], "nothing");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_transaction_that_outlives_a_restart_arrives() {
    let mut world = shop().await;
    execute(
        &world,
        "BEGIN; DELETE FROM sale WHERE id = 1; UPDATE item SET name = 'p' WHERE id = 2; PREPARE TRANSACTION 'p'",
    )
    .await;
    execute(&world, "UPDATE sale SET amount = 1 WHERE id = 3").await;
    world.run_and_agree().await;
    world.restart().await;
    execute(&world, "UPDATE sale SET amount = 2 WHERE id = 3").await;
    let report = world.run_and_agree().await;
    assert_eq!((full(&report), detection(&report)), (Vec::new(), "wal".into()), "{report}");
    execute(&world, "COMMIT PREPARED 'p'").await;
    assert_eq!(detection(&world.run_and_agree().await), "wal");
}

/// A world whose buckets are reached through a proxy.
async fn shop_behind(switch: &Arc<KillSwitch>) -> (World, S3) {
    let world = World::with_settings(&LOGICAL, SHOP, &PACK, &ORACLE).await;
    let server = S3::start(&world.buckets(), &BUCKETS).await.unwrap();
    let port = server.endpoint().rsplit_once(':').unwrap().1.parse().unwrap();
    let proxy = Proxy::start(port, Arc::clone(switch)).await;
    let (source, warehouse) = (world.server.url("source"), world.server.url("warehouse"));
    world.configure(&source, &warehouse, &format!("endpoint = \"http://{}\"", proxy.address));
    world.detect_by("wal");
    world.publish().await;
    world.run_and_agree().await;
    (world, server)
}

/// Runs extract, and kills it at a message to the buckets; whether it came so far.
async fn killed_at(world: &World, switch: &KillSwitch, message: u64) -> bool {
    switch.hold_at(message);
    let mut program = world.spawn(&["extract"]);
    let killed = tokio::select! {
        _ = program.wait() => false,
        () = switch.wait() => { program.kill().await.unwrap(); true }
    };
    switch.hold_at(0);
    killed
}

/// Kills extract when it has written a batch and does not know it yet: at its last message to the buckets, whose number varies.
async fn killed_after_a_batch(world: &World, switch: &KillSwitch) {
    let mut message = 20;
    for n in 0..60 {
        execute(world, &format!("UPDATE sale SET amount = 1000 + {n} WHERE id = 1")).await;
        let before = world.manifests().len();
        let is_killed = killed_at(world, switch, message).await;
        match world.manifests().len() > before {
            true if is_killed => return,
            true => message -= 1,
            false => message += 1,
        }
    }
    panic!("it was always killed before its batch, or after it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_left_no_token_in_the_log_is_read_again_after_a_restart() {
    let switch = Arc::new(KillSwitch::default());
    let (mut world, _server) = shop_behind(&switch).await;
    killed_after_a_batch(&world, &switch).await;
    // Without a restart that is no harm.
    execute(&world, "UPDATE sale SET amount = 3 WHERE id = 1").await;
    let report = world.run_and_agree().await;
    assert_eq!((full(&report), detection(&report)), (Vec::new(), "wal".into()), "{report}");

    killed_after_a_batch(&world, &switch).await;
    world.restart().await;
    execute(&world, "DELETE FROM sale WHERE id = 2").await;
    let report = world.run_and_agree().await;
    assert!(full(&report).iter().any(|why| why.contains("restarted")), "{report}");
    by_wal_after(&world, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_was_restored_with_its_slot_is_read_in_full() {
    let mut world = shop().await;
    execute(&world, "UPDATE sale SET amount = 1 WHERE id = 1").await;
    world.run_and_agree().await;
    // A copy of the files has the slot.
    let slots_too = "cp -r pg_replslot/. $D/pg_replslot/ && cp -n pg_wal/0* $D/pg_wal/";
    execute(&world, "CHECKPOINT").await;
    let (copy, url) = world.copy_of_server("", slots_too).await;
    for n in 0..2 {
        let sql = "INSERT INTO sale VALUES ('lost', $N, 1, 1); UPDATE sale SET amount = 9 WHERE id = 50 + $N; DELETE FROM sale WHERE id = 60 + $N";
        execute(&world, &sql.replace("$N", &n.to_string())).await;
        world.run_and_agree().await;
    }
    // Its log and its transactions pass those of the original.
    let traffic = "CREATE TABLE noise (id integer); INSERT INTO noise SELECT generate_series(1, 1000)";
    copy.batch_execute(traffic).await.unwrap();
    for n in 0..50 {
        copy.batch_execute(&format!("INSERT INTO noise VALUES ({n})")).await.unwrap();
    }
    copy.batch_execute("UPDATE sale SET amount = 7 WHERE id = 70; SELECT pg_switch_wal()").await.unwrap();
    let names =
        copy.query_one("SELECT count(*) FROM pg_replication_slots WHERE confirmed_flush_lsn IS NOT NULL", &[]).await;
    assert_eq!(names.unwrap().get::<_, i64>(0), 1, "the copy has no slot");
    world.configure(&url, &world.server.url("warehouse"), "directory = \"buckets\"");
    world.detect_by("wal");
    world.source = copy;
    let report = world.run_and_agree().await;
    assert_eq!(full(&report).len(), 3, "{report}");
    assert!(full(&report).iter().any(|why| why.contains("restarted")), "{report}");
    by_wal_after(&world, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_the_server_gave_up_is_replaced() {
    let world = shop_with(&[("wal_level", "logical"), ("max_slot_wal_keep_size", "64MB")], "wal").await;
    execute(&world, "UPDATE sale SET amount = 1 WHERE id = 1; DELETE FROM sale WHERE id = 2").await;
    execute(&world, "CREATE TABLE noise (id integer)").await;
    for n in 0..13 {
        execute(&world, &format!("INSERT INTO noise VALUES ({n})")).await;
        execute(&world, "SELECT pg_switch_wal()").await;
    }
    execute(&world, "CHECKPOINT").await;
    wait_until(&world, "wal_status = 'lost' FROM pg_replication_slots").await;
    let report = world.run_and_agree().await;
    assert_eq!((full(&report), detection(&report)), (Vec::new(), "scan".into()), "{report}");
    assert!(says(&report, "max_slot_wal_keep_size"), "{report}");
    assert_eq!(slots(&world).await, 1);
    by_wal_after(&world, 0).await;
    assert_eq!(slots(&world).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lump_of_other_changes_in_the_log_is_passed_by_a_scan() {
    let world = shop().await;
    let writer = world.session().await;
    writer.batch_execute("BEGIN; UPDATE sale SET amount = 1 WHERE id = 1").await.unwrap();
    execute(&world, "CREATE TABLE noise AS SELECT n, repeat('x', 500) AS text FROM generate_series(1, 180000) n").await;
    for id in 2..4 {
        execute(&world, &format!("DELETE FROM sale WHERE id = {id}; UPDATE sale SET amount = 2 WHERE id = 10 + {id}"))
            .await;
        let report = world.run_and_agree().await;
        assert_eq!((full(&report), detection(&report)), (Vec::new(), "scan".into()), "{report}");
        assert!(says(&report, "MB of WAL would take longer"), "{report}");
    }
    writer.batch_execute("UPDATE sale SET amount = 3 WHERE id = 4; COMMIT").await.unwrap();
    world.run_and_agree().await;
    // What follows is decoded from the next checkpoint on.
    execute(&world, "CHECKPOINT").await;
    by_wal_after(&world, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_waits_for_a_transaction_holds_up_no_run() {
    let world = shop().await;
    let slot = slot(&world);
    let writer = world.session().await;
    writer.batch_execute("BEGIN; UPDATE sale SET amount = 1 WHERE id = 1").await.unwrap();
    world.source.query_one("SELECT pg_drop_replication_slot($1::text::name)", &[&slot]).await.unwrap();
    execute(&world, "UPDATE sale SET amount = 2 WHERE id = 2").await;
    let began = Instant::now();
    let report = world.run_and_agree().await;
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    assert_eq!(detection(&report), "scan");
    assert!(says(&report, "it waits for every transaction that is open"), "{report}");
    assert_eq!(slots(&world).await, 0);
    writer.batch_execute("COMMIT").await.unwrap();
    world.run_and_agree().await;
    by_wal_after(&world, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_waits_for_a_transaction_that_ends_in_time() {
    let world = shop().await;
    let slot = slot(&world);
    let writer = world.session().await;
    writer.batch_execute("BEGIN; UPDATE sale SET amount = 1 WHERE id = 1").await.unwrap();
    world.source.query_one("SELECT pg_drop_replication_slot($1::text::name)", &[&slot]).await.unwrap();
    let ends = async {
        tokio::time::sleep(Duration::from_secs(8)).await;
        writer.batch_execute("COMMIT").await.unwrap();
    };
    tokio::join!(world.run(), ends);
    world.agree().await;
    by_wal_after(&world, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_somebody_reads_is_waited_for_and_then_left_to_him() {
    let world = shop().await;
    let slot = slot(&world);
    execute(&world, "UPDATE sale SET amount = 1 WHERE id = 1").await;
    let reader = format!(
        "PATH=\"$(dirname \"$(readlink /proc/$PPID/exe)\"):$PATH\"
         (timeout 13 pg_recvlogical -d \"host=127.0.0.1 port={} user=postgres dbname=source\" -S {slot} --start -f /dev/null -F 0 -s 1 \
             -o proto_version=1 -o publication_names={slot} >/dev/null 2>&1 </dev/null &)",
        world.server.port()
    );
    execute(&world, &format!("COPY (SELECT 1) TO PROGRAM '{reader}'")).await;
    wait_until(&world, "active FROM pg_replication_slots").await;
    let report = world.run_and_agree().await;
    assert_eq!(detection(&report), "scan");
    assert!(says(&report, "another run reads the replication slot"), "{report}");
    wait_until(&world, "NOT active FROM pg_replication_slots").await;
    execute(&world, "UPDATE sale SET amount = 2 WHERE id = 2").await;
    let report = world.run_and_agree().await;
    assert_eq!(detection(&report), "scan", "the reader took what was not his");
    assert!(says(&report, "is ahead of the newest batch"), "{report}");
    by_wal_after(&world, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_goes_back_to_scans_keeps_no_slot() {
    let world = shop().await;
    for _ in 0..2 {
        execute(&world, "UPDATE sale SET amount = amount + 1 WHERE id = 1").await;
        world.detect_by("scan");
        execute(&world, "DELETE FROM sale WHERE id = (SELECT max(id) FROM sale)").await;
        let report = world.run_and_agree().await;
        assert_eq!((full(&report), detection(&report)), (Vec::new(), "scan".into()), "{report}");
        assert_eq!(report["extract"]["notices"], serde_json::json!([]));
        assert_eq!(slots(&world).await, 0);
        execute(&world, "UPDATE sale SET amount = amount + 1 WHERE id = 2").await;
        assert_eq!(detection(&world.run_and_agree().await), "scan");
        world.detect_by("wal");
        by_wal_after(&world, 1).await;
        assert_eq!(slots(&world).await, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn by_itself_it_keeps_a_slot_only_where_the_server_bounds_it() {
    let world = shop_with(&[("wal_level", "logical")], "wal").await;
    by_wal_after(&world, 0).await;
    world.detect_by("auto");
    execute(&world, "UPDATE sale SET amount = 1 WHERE id = 1").await;
    let report = world.run_and_agree().await;
    assert_eq!(detection(&report), "scan");
    assert_eq!(report["extract"]["notices"], serde_json::json!([]));
    assert_eq!(slots(&world).await, 0);
    execute(&world, "ALTER SYSTEM SET max_slot_wal_keep_size = '1GB'").await;
    execute(&world, "SELECT pg_reload_conf()").await;
    by_wal_after(&world, 2).await;
}

/// Sales in two partitions, of items, which are of kinds.
const WALK: &str = "
    CREATE TABLE kind (id integer PRIMARY KEY, name text);
    CREATE TABLE item (id integer PRIMARY KEY, kind integer, name text);
    CREATE TABLE sale (shop text, id integer, item integer, amount integer, PRIMARY KEY (shop, id)) PARTITION BY LIST (shop);
    CREATE TABLE sale_a PARTITION OF sale FOR VALUES IN ('a');
    CREATE TABLE sale_b PARTITION OF sale FOR VALUES IN ('b');
    INSERT INTO kind SELECT n, n FROM generate_series(0, 4) n;
    INSERT INTO item SELECT n, n % 6, n FROM generate_series(0, 19) n;
    INSERT INTO sale SELECT CASE n % 2 WHEN 0 THEN 'a' ELSE 'b' END, n, n % 22, n FROM generate_series(0, 59) n;";

const WALK_PACK: [(&str, &str); 3] = [
    (
        "schema.sql",
        "CREATE TABLE IF NOT EXISTS dim_item (id integer PRIMARY KEY, name text, kind text, deleted_at timestamptz);
         CREATE TABLE IF NOT EXISTS fact_sale (record bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, shop text, id integer,
             valid_from timestamptz NOT NULL, valid_to timestamptz, amount integer, item text, kind text, deleted_at timestamptz);
         CREATE UNIQUE INDEX IF NOT EXISTS fact_sale_open ON fact_sale (shop, id) WHERE valid_to IS NULL",
    ),
    PACK[1],
    PACK[2],
];

/// A change, or `None` if the open transaction is to begin or to end.
fn change(dice: &mut Dice, step: u64) -> Option<String> {
    let (id, other, item, kind) = (dice.throw(60), dice.throw(60), dice.throw(22), dice.throw(6));
    let shop = ["a", "b"][dice.throw(2) as usize];
    Some(match dice.throw(28) {
        0..=2 => format!("UPDATE sale SET amount = {step}, item = {item} WHERE id = {id}"),
        3..=4 => format!("DELETE FROM sale WHERE id = {id}"),
        5..=6 => format!("INSERT INTO sale VALUES ('{shop}', {id}, {item}, {step}) ON CONFLICT DO NOTHING"),
        7 => format!("UPDATE sale SET id = {other} WHERE id = {id} AND shop = '{shop}'"),
        8 => format!("UPDATE sale SET shop = '{shop}' WHERE id = {id}"),
        9 => format!("DELETE FROM sale WHERE id = {id}; INSERT INTO sale VALUES ('{shop}', {id}, {item}, {step})"),
        10 => format!("UPDATE item SET name = 'i{step}' WHERE id = {item}"),
        11 => format!("UPDATE item SET kind = {kind} WHERE id = {item}"),
        12 => format!("DELETE FROM item WHERE id = {item}"),
        13 => format!("INSERT INTO item VALUES ({item}, {kind}, 'n{step}') ON CONFLICT DO NOTHING"),
        14 => format!("UPDATE kind SET name = 'k{step}' WHERE id = {kind}"),
        15 => format!("UPDATE kind SET id = {} WHERE id = {kind}", dice.throw(6)),
        16 => format!("DELETE FROM kind WHERE id = {kind}"),
        17 => format!("INSERT INTO kind VALUES ({kind}, 'n{step}') ON CONFLICT DO NOTHING"),
        18 => format!(
            "TRUNCATE {}; INSERT INTO sale SELECT 'a', n, n % 22, {step} FROM generate_series(0, {id}) n ON CONFLICT DO NOTHING",
            ["sale_a", "sale_b", "kind", "sale"][dice.throw(4) as usize]
        ),
        19 => format!("VACUUM FULL {}", ["sale_a", "item", "kind"][dice.throw(3) as usize]),
        20 => {
            format!("ALTER TABLE {} ADD COLUMN c{step} integer DEFAULT {id}", ["kind", "item"][dice.throw(2) as usize])
        }
        21 => "ALTER TABLE sale DETACH PARTITION sale_b".into(),
        22 => {
            format!("UPDATE sale_b SET amount = -{step}; ALTER TABLE sale ATTACH PARTITION sale_b FOR VALUES IN ('b')")
        }
        23 => format!(
            "ALTER TABLE sale DETACH PARTITION sale_b; UPDATE sale_b SET amount = -{step};
             ALTER TABLE sale ATTACH PARTITION sale_b FOR VALUES IN ('b')"
        ),
        24 => "CHECKPOINT".into(),
        _ => return None,
    })
}

/// Lets chance change the source, run and kill the program and draw how changes are found, and has the oracle judge.
async fn walk(seed: u64, steps: u64) {
    println!("seed {seed}");
    let switch = Arc::new(KillSwitch::default());
    let world = World::with_settings(&LOGICAL, WALK, &WALK_PACK, &ORACLE).await;
    let server = S3::start(&world.buckets(), &BUCKETS).await.unwrap();
    let port = server.endpoint().rsplit_once(':').unwrap().1.parse().unwrap();
    let proxy = Proxy::start(port, Arc::clone(&switch)).await;
    let (source, warehouse) = (world.server.url("source"), world.server.url("warehouse"));
    world.configure(&source, &warehouse, &format!("endpoint = \"http://{}\"", proxy.address));
    world.publish().await;
    // What waits for a transaction that is open does not wait long.
    let mut writers = Vec::new();
    for _ in 0..2 {
        writers.push((world.session().await, false));
    }
    for session in [&world.source].into_iter().chain(writers.iter().map(|(session, _)| session)) {
        session.batch_execute("SET lock_timeout = '100ms'").await.unwrap();
    }
    let mut dice = Dice(seed);
    let mut before = "scan";
    let mut ways = std::collections::BTreeMap::new();
    for step in 0..steps {
        for _ in 0..=dice.throw(4) {
            if let Some(sql) = change(&mut dice, step) {
                let done = world.source.batch_execute(&sql).await;
                println!("{sql} -- {}", done.map_or_else(|error| error.to_string(), |()| "done".into()));
                continue;
            }
            let (writer, is_open) = &mut writers[dice.throw(2) as usize];
            let sql = match (*is_open, change(&mut dice, step)) {
                (true, _) => ["COMMIT", "COMMIT", "ROLLBACK"][dice.throw(3) as usize].to_owned(),
                (false, Some(sql))
                    if !["VACUUM", "CHECK", "TRUNC", "ALTER"].iter().any(|word| sql.starts_with(word)) =>
                {
                    format!("BEGIN; SAVEPOINT a; {sql}; SAVEPOINT b")
                }
                _ => continue,
            };
            let done = writer.batch_execute(&sql).await;
            println!("-- a writer: {sql} -- {}", done.is_ok());
            *is_open = !*is_open && done.is_ok();
            if done.is_err() {
                writer.batch_execute("ROLLBACK").await.unwrap();
            }
        }
        let mode = ["wal", "wal", "wal", "wal", "auto", "auto", "scan"][dice.throw(7) as usize];
        if before == "scan" && mode != "scan" {
            // A new slot would wait for them.
            for (writer, is_open) in &mut writers {
                writer.batch_execute("COMMIT").await.unwrap();
                *is_open = false;
            }
        }
        world.detect_by(mode);
        before = mode;
        switch.hold_at(if dice.throw(4) == 0 { 1 + dice.throw(60) } else { 0 });
        let mut program = world.spawn(&["run"]);
        let finished = tokio::select! {
            () = switch.wait() => { program.kill().await.unwrap(); None }
            _ = program.wait() => Some(finish(program).await),
        };
        switch.hold_at(0);
        match finished {
            None => println!("-- killed"),
            Some(finished) => {
                let report = finished.report();
                let way = detection(&report);
                println!("-- {} {way} {}", report["extract"]["outcome"], report["extract"]["notices"]);
                *ways.entry(way).or_insert(0) += 1;
            }
        }
        if step % 3 == 2 {
            let report = world.run().await;
            if report["extract"]["outcome"] == "gave_way" {
                continue;
            }
            world.agree().await;
        }
    }
    for (writer, is_open) in &writers {
        if *is_open {
            writer.batch_execute("COMMIT").await.unwrap();
        }
    }
    world.run_and_agree().await;
    println!("{ways:?}");
    let by_wal: u64 = ways.iter().filter(|(way, _)| way.contains("wal")).map(|(_, runs)| runs).sum();
    assert!(by_wal * 5 > steps, "{ways:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_the_log_names_it_or_a_scan_finds_it() {
    walk(std::env::var("SEED").map_or(1, |seed| seed.parse().unwrap()), 25).await;
}
