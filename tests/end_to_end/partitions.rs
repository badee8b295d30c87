//! Tables of many partitions, and what a run may take of the source.

use std::time::{Duration, Instant};

use blackwater_tests::{Oracle, World, finish};
use serde_json::Value;
use tokio_postgres::Client;

/// Partitions that many statements of the source's application would never see at once.
const MANY: u32 = 1500;

/// Ten items in each partition, and sales that look them up.
const SOURCE: &str = "
    CREATE TABLE item (id integer PRIMARY KEY, name text NOT NULL) PARTITION BY RANGE (id);
    CREATE TABLE sale (id integer PRIMARY KEY, item integer NOT NULL);
    DO $$ BEGIN
        FOR n IN 0..$PARTITIONS - 1 LOOP
            EXECUTE format('CREATE TABLE item_%s PARTITION OF item FOR VALUES FROM (%s) TO (%s)', n, n * 10, n * 10 + 10);
        END LOOP;
    END $$;
    INSERT INTO item SELECT n, 'item ' || n FROM generate_series(0, $PARTITIONS * 10 - 1) n;
    INSERT INTO sale SELECT n, n % ($PARTITIONS * 10) FROM generate_series(1, 20000) n;";

const PACK: [(&str, &str); 3] = [
    (
        "schema.sql",
        "CREATE TABLE IF NOT EXISTS dim_item (id integer PRIMARY KEY, name text NOT NULL);
         CREATE TABLE IF NOT EXISTS fact_sale (id integer PRIMARY KEY, item integer NOT NULL, name text NOT NULL)",
    ),
    ("dim_item.sql", "SELECT id, name FROM item"),
    ("fact_sale.sql", "SELECT sale.id, sale.item, item.name FROM sale INNER JOIN item ON item.id = sale.item"),
];

const ORACLE: [Oracle; 2] = [
    ("dim_item", "SELECT id, name FROM item"),
    ("fact_sale", "SELECT s.id, s.item, i.name FROM sale s JOIN item i ON i.id = s.item"),
];

/// A source with so many partitions, on a server that lets a session lock them all.
async fn world(partitions: u32) -> World {
    let source = SOURCE.replace("$PARTITIONS", &partitions.to_string());
    World::with_settings(&[("max_locks_per_transaction", "100")], &source, &PACK, &ORACLE).await
}

/// Runs extract: its report, and the kilobytes that its sessions took of the source at most, all of them together.
async fn extract(world: &World) -> (Value, u64) {
    let observer = world.session().await;
    let mut program = world.spawn(&["extract"]);
    let mut peak = 0;
    while tokio::time::timeout(Duration::from_millis(2), program.wait()).await.is_err() {
        let sessions = "SELECT pid FROM pg_stat_activity WHERE application_name = 'blackwater extract'";
        let processes = observer.query(sessions, &[]).await.unwrap();
        peak = peak.max(processes.iter().map(|row| private_memory(row.get(0))).sum());
    }
    (finish(program).await.report(), peak)
}

/// The kilobytes that a process shares with no other.
fn private_memory(process: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

/// What the runs of a source with so many partitions take of it, each in kilobytes: one that reads everything, and one that
/// finds changes in partitions whose rows other rows look up.
async fn peaks(partitions: u32) -> [u64; 2] {
    let world = world(partitions).await;
    let (first, of_first) = extract(&world).await;
    assert_eq!(first["tables"][0]["rows"], partitions * 10, "{first}");
    world.source.batch_execute("UPDATE item SET name = name || '!' WHERE id % 20 = 0").await.unwrap();
    let (second, of_second) = extract(&world).await;
    assert_eq!(second["tables"][0]["full"], Value::Null, "{second}");
    for stage in ["transform", "load"] {
        world.blackwater(&[stage]).await.report();
    }
    world.source.batch_execute("SET jit = off").await.unwrap();
    world.agree().await;
    [of_first, of_second]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_that_a_run_takes_of_the_source_hardly_grows_with_the_partitions() {
    let (few, many) = (peaks(10).await, peaks(MANY).await);
    eprintln!("with 10 partitions {few:?} kB, with {MANY} {many:?} kB");
    for (few, many) in few.into_iter().zip(many) {
        assert!(few > 0 && many < few + 64 * 1024, "{few} kB with 10 partitions, {many} kB with {MANY}");
    }
}

/// Waits until a session of extract waits for a lock.
async fn wait_for_extract(world: &World) {
    let waiting = "SELECT count(*) FROM pg_stat_activity
        WHERE application_name = 'blackwater extract' AND wait_event_type = 'Lock'";
    let began = Instant::now();
    while world.source.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) == 0 {
        assert!(began.elapsed() < Duration::from_secs(60), "extract does not wait");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A session that lets no other plan a query on the items until it ends its transaction. What locks the items themselves
/// does not wait for it.
async fn hold(world: &World) -> Client {
    let holder = world.session().await;
    holder.batch_execute("BEGIN; REINDEX INDEX item_0_pkey").await.unwrap();
    holder
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_is_attached_while_a_run_reads_comes_in_full_with_the_next() {
    let world = world(3).await;
    let staged = "CREATE TABLE staged (LIKE item INCLUDING ALL); INSERT INTO staged SELECT n, 'staged ' || n
        FROM generate_series(1000, 1499) n";
    world.source.batch_execute(staged).await.unwrap();
    let holder = hold(&world).await;
    let program = world.spawn(&["extract"]);
    wait_for_extract(&world).await;
    let attach = "ALTER TABLE item ATTACH PARTITION staged FOR VALUES FROM (1000) TO (2000)";
    world.source.batch_execute(attach).await.unwrap();
    holder.batch_execute("COMMIT").await.unwrap();
    let report = finish(program).await.report();
    assert_eq!((&report["outcome"], &report["tables"][0]["rows"]), (&"batch".into(), &30.into()), "{report}");
    assert_eq!(report["tables"][0]["source_rows"], 30, "{report}");
    let report = world.blackwater(&["extract"]).await.report();
    assert_eq!(report["tables"][0]["rows"], 500, "{report}");
    for stage in ["transform", "load"] {
        world.blackwater(&[stage]).await.report();
    }
    world.agree().await;
    assert_eq!(world.run().await["extract"]["outcome"], "nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_takes_too_long_ends_and_says_which_setting_ended_it() {
    let world = world(3).await;
    let holder = hold(&world).await;
    let mut command = world.command(&["extract"]);
    let began = Instant::now();
    let finished = finish(command.env("BLACKWATER_SOURCE__STATEMENT_TIMEOUT", "1s").spawn().unwrap()).await;
    assert!(began.elapsed() < Duration::from_secs(60), "it waited for {:?}", began.elapsed());
    finished.says(1, &["count the changed rows of item within 1 s", "raise source.statement_timeout"]);
    holder.batch_execute("COMMIT").await.unwrap();
    assert_eq!(world.blackwater(&["extract"]).await.report()["outcome"], "batch");
}
