//! Changes that the source's write-ahead log names.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use blackwater_tests::{LOGICAL, Oracle, World, finish};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::deletions::Dice;

/// Sales of items, which are of kinds; a sale has a key of two columns.
pub(crate) const SHOP: &str = "
    CREATE TABLE kind (id integer PRIMARY KEY, name text NOT NULL UNIQUE);
    CREATE TABLE item (id integer PRIMARY KEY, kind integer NOT NULL, name text, note text);
    CREATE TABLE sale (shop text, id integer, item integer NOT NULL, amount numeric(12,2), PRIMARY KEY (shop, id));
    INSERT INTO kind SELECT n, 'kind ' || n FROM generate_series(1, 5) n;
    INSERT INTO item SELECT n, 1 + n % 5, 'item ' || n, repeat('x', 50) FROM generate_series(1, 50) n;
    INSERT INTO sale SELECT 'shop \"' || n % 3 || '\", ' || n % 3, n, 1 + n % 50, n * 0.37 FROM generate_series(1, 300) n;";

pub(crate) const PACK: [(&str, &str); 3] = [
    (
        "schema.sql",
        "CREATE TABLE IF NOT EXISTS dim_item (id integer PRIMARY KEY, name text, kind text, deleted_at timestamptz);
         CREATE TABLE IF NOT EXISTS fact_sale (record bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, shop text, id integer,
             valid_from timestamptz NOT NULL, valid_to timestamptz, amount numeric(12,2), item text, kind text, deleted_at timestamptz);
         CREATE UNIQUE INDEX IF NOT EXISTS fact_sale_open ON fact_sale (shop, id) WHERE valid_to IS NULL",
    ),
    ("dim_item.sql", "SELECT item.id, item.name, kind.name AS kind FROM item LEFT JOIN kind ON kind.id = item.kind"),
    (
        "fact_sale.sql",
        "SELECT s.shop, s.id, s.amount, item.name AS item, kind.name AS kind FROM sale AS s
         LEFT JOIN item ON item.id = s.item LEFT JOIN kind ON kind.id = item.kind",
    ),
];

pub(crate) const ORACLE: [Oracle; 2] = [
    (
        "(SELECT * FROM dim_item WHERE deleted_at IS NULL) d",
        "SELECT id, name, (SELECT name FROM kind k WHERE k.id = i.kind) AS kind FROM item i",
    ),
    (
        "current_fact_sale",
        "SELECT shop, id, amount, (SELECT name FROM item i WHERE i.id = s.item) AS item,
                (SELECT (SELECT name FROM kind k WHERE k.id = i.kind) FROM item i WHERE i.id = s.item) AS kind FROM sale s",
    ),
];

/// The shop, whose first batch is loaded.
pub(crate) async fn shop() -> World {
    let world = World::with_settings(&LOGICAL, SHOP, &PACK, &ORACLE).await;
    world.detect_by("wal");
    world.publish().await;
    world.run_and_agree().await;
    world
}

/// How the changes of each table were found, and how many rows of it are in the batch.
pub(crate) fn found(report: &Value) -> Vec<(String, String, u64)> {
    let tables = report["extract"]["tables"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    tables
        .iter()
        .map(|table| (text(&table["table"]), text(&table["detection"]), table["rows"].as_u64().unwrap()))
        .collect()
}

pub(crate) fn by_wal(rows: [u64; 3]) -> Vec<(String, String, u64)> {
    ["item", "kind", "sale"].into_iter().zip(rows).map(|(name, rows)| (name.into(), "wal".into(), rows)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_names_what_changed_and_no_table_is_scanned() {
    let world = shop().await;
    for (change, rows) in [
        ("UPDATE sale SET amount = 1 WHERE id = 7", [1, 1, 1]),
        ("INSERT INTO sale VALUES ('new', 1, 3, 2), ('new', 2, 4, NULL)", [2, 2, 2]),
        ("UPDATE item SET name = upper(name) WHERE id = 9", [1, 1, 6]),
        ("UPDATE kind SET name = 'another' WHERE id = 2", [10, 1, 60]),
        ("DELETE FROM sale WHERE id = 8", [0, 0, 0]),
        ("UPDATE sale SET id = 1000, shop = '' WHERE id = 9", [1, 1, 1]),
        ("DELETE FROM item WHERE id = 11", [0, 0, 6]),
        ("UPDATE kind SET id = 77 WHERE id = 3", [10, 0, 60]),
        ("INSERT INTO kind VALUES (3, 'third')", [10, 1, 60]),
        ("BEGIN; DELETE FROM item WHERE id = 20; INSERT INTO item VALUES (20, 1, 'again', NULL); COMMIT", [1, 1, 6]),
        (
            "UPDATE sale SET id = id + 100000 WHERE id < 30; UPDATE sale SET id = id - 100000 WHERE id > 100000",
            [26, 5, 29],
        ),
    ] {
        world.source.batch_execute(change).await.unwrap();
        let report = world.run_and_agree().await;
        assert_eq!(found(&report), by_wal(rows), "{change}: {report}");
        assert_eq!(world.run().await["extract"]["outcome"], "nothing", "{change}");
    }
    let verified = world.blackwater(&["verify"]).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
    let asked = "SELECT count(*) FROM blackwater.quarantine";
    assert_eq!(world.in_warehouse(asked).await, Some("0".into()));
}

/// The slot that the newest batch names.
pub(crate) fn slot(world: &World) -> String {
    world.manifests().last().unwrap()["capture"]["slot"].as_str().unwrap().to_owned()
}

/// The detection of every table, if it is the same of all.
pub(crate) fn detection(report: &Value) -> String {
    let ways: BTreeSet<_> = found(report).into_iter().map(|(_, way, _)| way).collect();
    ways.into_iter().collect::<Vec<_>>().join(" and ")
}

/// Whether a notice of extract has the words.
pub(crate) fn says(report: &Value, words: &str) -> bool {
    let notices = report["extract"]["notices"].as_array().unwrap();
    notices.iter().any(|notice| notice.as_str().unwrap().contains(words))
}

/// Changes a sale, and runs until every table is read by WAL again; there may be so many scans before.
pub(crate) async fn by_wal_after(world: &World, scans: u32) {
    for scan in 0.. {
        let change =
            "INSERT INTO sale VALUES ('any', 5, 5, 0) ON CONFLICT (shop, id) DO UPDATE SET amount = sale.amount + 1";
        world.source.batch_execute(change).await.unwrap();
        let report = world.run_and_agree().await;
        if detection(&report) == "wal" {
            return;
        }
        assert!(scan < scans, "{scan} scans were not enough: {report}");
    }
}

/// Waits until a query at the source returns true.
pub(crate) async fn wait_until(world: &World, condition: &str) {
    let began = Instant::now();
    while !world
        .source
        .query_one(&format!("SELECT {condition}"), &[])
        .await
        .unwrap()
        .get::<_, Option<bool>>(0)
        .unwrap_or(false)
    {
        assert!(began.elapsed() < Duration::from_secs(30), "never: {condition}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A statement that commits for a standby that never comes: its commit is in the log, and nobody sees it.
struct Waiting {
    pid: i32,
    statement: JoinHandle<Result<(), tokio_postgres::Error>>,
}

impl Waiting {
    async fn begin(world: &World, sql: &'static str) -> Self {
        let session = world.session().await;
        let pid = session.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
        session.batch_execute("SET synchronous_commit = on").await.unwrap();
        let statement = tokio::spawn(async move { session.batch_execute(sql).await });
        wait_until(world, &format!("wait_event = 'SyncRep' FROM pg_stat_activity WHERE pid = {pid}")).await;
        Self { pid, statement }
    }

    /// Lets it wait no longer.
    async fn end(self, world: &World) {
        world.source.query_one("SELECT pg_cancel_backend($1)", &[&self.pid]).await.unwrap();
        self.statement.await.unwrap().unwrap();
    }
}

/// Has every commit of a session that does not say otherwise wait for a standby that there is not.
async fn wait_for_a_standby(world: &World) {
    let local = "ALTER DATABASE warehouse SET synchronous_commit = local; SET synchronous_commit = local";
    for sql in local.split("; ").chain(["ALTER SYSTEM SET synchronous_standby_names = 'ghost'"]) {
        world.source.batch_execute(sql).await.unwrap();
    }
    world.source.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    wait_until(world, "current_setting('synchronous_standby_names') = 'ghost'").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_in_the_log_before_it_is_seen_arrives_when_it_is_seen() {
    let world = shop().await;
    wait_for_a_standby(&world).await;
    let early =
        Waiting::begin(&world, "UPDATE sale SET amount = 111 WHERE id = 11; DELETE FROM sale WHERE id = 12").await;
    for n in 0..3 {
        world.source.batch_execute(&format!("UPDATE sale SET amount = {n} WHERE id = 7")).await.unwrap();
        assert_eq!(detection(&world.run_and_agree().await), "wal");
    }
    let late = Waiting::begin(&world, "UPDATE item SET name = 'late', id = 1000 WHERE id = 13").await;
    world.source.batch_execute("UPDATE sale SET amount = 9 WHERE id = 7").await.unwrap();
    assert_eq!(detection(&world.run_and_agree().await), "wal");
    late.end(&world).await;
    let report = world.run_and_agree().await;
    assert_eq!(detection(&report), "wal");
    early.end(&world).await;
    let report = world.run_and_agree().await;
    assert_eq!(detection(&report), "wal");
    let amount = "SELECT amount::text FROM current_fact_sale WHERE id = 11";
    assert_eq!(world.in_warehouse(amount).await, Some("111.00".into()));
    assert_eq!(world.run().await["extract"]["outcome"], "nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_that_stay_open_over_runs_arrive_whole() {
    let world = shop().await;
    let [savepoints, many, prepared] = [world.session().await, world.session().await, world.session().await];
    let sql = "BEGIN; SAVEPOINT a; UPDATE sale SET amount = 1 WHERE id = 1; RELEASE a; SAVEPOINT b;
        UPDATE sale SET amount = 2 WHERE id = 2; ROLLBACK TO b; DELETE FROM sale WHERE id = 3";
    savepoints.batch_execute(sql).await.unwrap();
    let sql = "BEGIN; DO $$ BEGIN FOR n IN 101..300 LOOP
            BEGIN UPDATE sale SET amount = n WHERE id = n; EXCEPTION WHEN OTHERS THEN NULL; END;
        END LOOP; END $$";
    many.batch_execute(sql).await.unwrap();
    let sql = "BEGIN; INSERT INTO item VALUES (60, 1, 'new', NULL); UPDATE item SET kind = 5 WHERE id = 6; PREPARE TRANSACTION 'p'";
    prepared.batch_execute(sql).await.unwrap();
    for n in 0..2 {
        world.source.batch_execute(&format!("UPDATE sale SET amount = {n} WHERE id = 7")).await.unwrap();
        assert_eq!(detection(&world.run_and_agree().await), "wal");
    }
    let ends = [
        (&savepoints, "UPDATE sale SET amount = 4 WHERE id = 4; COMMIT"),
        (&many, "COMMIT"),
        (&prepared, "COMMIT PREPARED 'p'"),
    ];
    for (session, end) in ends {
        session.batch_execute(end).await.unwrap();
        let report = world.run_and_agree().await;
        assert_eq!(detection(&report), "wal", "{end}");
        // Each is named once more while an older one is open.
        world.run_and_agree().await;
    }
    assert_eq!(world.run().await["extract"]["outcome"], "nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_nobody_has_flushed_arrives_at_once() {
    let world = shop().await;
    world.source.batch_execute("SET synchronous_commit = off").await.unwrap();
    for n in 0..5 {
        world.source.batch_execute(&format!("UPDATE sale SET amount = {n} WHERE id = 7")).await.unwrap();
        assert_eq!(found(&world.run_and_agree().await), by_wal([1, 1, 1]));
    }
    // And while a transaction is open, whose records nothing flushes.
    let writer = world.session().await;
    writer.batch_execute("BEGIN; UPDATE sale SET amount = 8 WHERE id = 8").await.unwrap();
    world.source.batch_execute("UPDATE sale SET amount = 9 WHERE id = 9").await.unwrap();
    assert_eq!(found(&world.run_and_agree().await), by_wal([1, 1, 1]));
}

/// Commits small transactions until it is told to stop.
async fn write(session: Client, seed: u64, stop: Arc<AtomicBool>) {
    let mut dice = Dice(seed);
    while !stop.load(Ordering::SeqCst) {
        let (id, other, way) = (dice.throw(400), dice.throw(50) + 1, dice.throw(5));
        let sql = match way {
            0 => format!("DELETE FROM sale WHERE id = {id}"),
            1 => format!("INSERT INTO sale VALUES ('w', {id}, {other}, 1) ON CONFLICT DO NOTHING"),
            2 => format!("UPDATE item SET name = 'i{id}' WHERE id = {other}"),
            _ => format!("UPDATE sale SET amount = amount + 1, item = {other} WHERE id = {id}"),
        };
        session.batch_execute(&sql).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_gone_or_was_moved_is_armed_anew_under_writers_without_a_loss() {
    let world = shop().await;
    let slot = slot(&world);
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for seed in 1..=4 {
        writers.push(tokio::spawn(write(world.session().await, seed, Arc::clone(&stop))));
    }
    let mut ways = BTreeSet::new();
    for n in 0..9 {
        match n % 3 {
            0 => {
                drop(world.source.query_one("SELECT pg_drop_replication_slot($1::text::name)", &[&slot]).await.unwrap())
            }
            1 => {
                let advance = "SELECT pg_replication_slot_advance($1::text::name, pg_current_wal_lsn())";
                world.source.query_one(advance, &[&slot]).await.unwrap();
            }
            _ => {}
        }
        ways.insert(detection(&world.run().await));
    }
    stop.store(true, Ordering::SeqCst);
    for writer in writers {
        writer.await.unwrap();
    }
    world.run_and_agree().await;
    assert!(ways.contains("scan"), "{ways:?}");
    by_wal_after(&world, 2).await;
    let slots = world.source.query_one("SELECT count(*) FROM pg_replication_slots", &[]).await.unwrap();
    assert_eq!(slots.get::<_, i64>(0), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_before_the_begin_of_a_new_slot_that_nobody_saw_yet_arrives() {
    let world = shop().await;
    let slot = slot(&world);
    wait_for_a_standby(&world).await;
    let [first, second] = [world.session().await, world.session().await];
    for (session, id) in [(&first, 1), (&second, 2)] {
        session.batch_execute("SET synchronous_commit = local").await.unwrap();
        if id == 1 {
            session.batch_execute("BEGIN; UPDATE sale SET amount = 1 WHERE id = 1").await.unwrap();
        }
    }
    world.source.query_one("SELECT pg_drop_replication_slot($1::text::name)", &[&slot]).await.unwrap();
    let run = tokio::spawn(finish(world.spawn(&["run"])));
    let waits_for = |pid: i32| {
        format!(
            "count(*) > 0 FROM pg_stat_activity WHERE query LIKE '%pg_create_logical%' AND {pid} = ANY (pg_blocking_pids(pid))"
        )
    };
    let pid = async |session: &Client| session.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    wait_until(&world, &waits_for(pid(&first).await)).await;
    // The slot waits for those that began meanwhile, too, but not for the one that begins after them.
    let second_pid = pid(&second).await;
    second.batch_execute("BEGIN; UPDATE sale SET amount = 2 WHERE id = 2").await.unwrap();
    first.batch_execute("COMMIT").await.unwrap();
    wait_until(&world, &waits_for(second_pid)).await;
    let unseen = Waiting::begin(&world, "UPDATE sale SET amount = 3 WHERE id = 3; DELETE FROM sale WHERE id = 4").await;
    second.batch_execute("COMMIT").await.unwrap();
    let report = run.await.unwrap().report();
    assert_eq!(detection(&report), "scan");
    world.agree().await;
    world.source.batch_execute("UPDATE sale SET amount = 9 WHERE id = 9").await.unwrap();
    assert_eq!(detection(&world.run_and_agree().await), "scan", "the new slot does not name the commit");
    unseen.end(&world).await;
    world.run_and_agree().await;
    assert_eq!(
        world.in_warehouse("SELECT amount::text FROM current_fact_sale WHERE id = 3").await,
        Some("3.00".into())
    );
    by_wal_after(&world, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_slot_was_moved_past_by_hand_arrives_and_that_is_told_once() {
    let world = shop().await;
    let slot = slot(&world);
    world.source.batch_execute("UPDATE sale SET amount = 1 WHERE id = 1; DELETE FROM sale WHERE id = 2").await.unwrap();
    let advance = "SELECT pg_replication_slot_advance($1::text::name, pg_current_wal_lsn())";
    world.source.query_one(advance, &[&slot]).await.unwrap();
    let report = world.run_and_agree().await;
    assert_eq!(detection(&report), "scan");
    assert!(says(&report, "replication slot"), "{report}");
    world.source.batch_execute("UPDATE sale SET amount = 3 WHERE id = 3").await.unwrap();
    let report = world.run_and_agree().await;
    assert_eq!(found(&report), by_wal([1, 1, 1]));
    assert_eq!(report["extract"]["notices"], serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_goes_while_nothing_happens_is_there_again_before_something_does() {
    let world = shop().await;
    let slot = slot(&world);
    world.source.query_one("SELECT pg_drop_replication_slot($1::text::name)", &[&slot]).await.unwrap();
    let report = world.run().await;
    assert!(says(&report, "replication slot"), "{report}");
    assert_eq!(world.run().await["extract"]["notices"], serde_json::json!([]));
    world.source.batch_execute("UPDATE sale SET amount = 3 WHERE id = 3").await.unwrap();
    assert_eq!(found(&world.run_and_agree().await), by_wal([1, 1, 1]));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_rows_swap_and_pass_on_end_as_the_source_has_them() {
    let world = shop().await;
    wait_for_a_standby(&world).await;
    let unseen = Waiting::begin(
        &world,
        "DELETE FROM sale WHERE id = 1; INSERT INTO sale SELECT shop, 1, 7, 7 FROM sale WHERE id = 3; UPDATE item SET id = 100 WHERE id = 1",
    )
    .await;
    for sql in [
        "UPDATE sale SET id = -3 WHERE id = 3; UPDATE sale SET id = 3 WHERE id = 6; UPDATE sale SET id = 6 WHERE id = -3",
        "UPDATE sale SET id = 1000 WHERE id = 4",
        "UPDATE sale SET id = 2000 WHERE id = 1000; INSERT INTO sale SELECT shop, 4, 9, 9 FROM sale WHERE id = 2000",
        "UPDATE sale SET id = 1000 WHERE id = 2000",
        "BEGIN; SAVEPOINT a; DELETE FROM sale WHERE id = 5; ROLLBACK TO a; UPDATE sale SET amount = 5 WHERE id = 5; COMMIT",
        "UPDATE item SET id = -8 WHERE id = 8; UPDATE item SET id = 8 WHERE id = 9; UPDATE item SET id = 9 WHERE id = -8",
    ] {
        world.source.batch_execute(sql).await.unwrap();
        assert_eq!(detection(&world.run_and_agree().await), "wal", "{sql}");
    }
    unseen.end(&world).await;
    assert_eq!(detection(&world.run_and_agree().await), "wal");
    assert_eq!(world.run().await["extract"]["outcome"], "nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn lookups_by_a_key_that_the_log_does_not_name_arrive() {
    let source = "
        CREATE TABLE family (id integer PRIMARY KEY, tag text UNIQUE, name text);
        CREATE TABLE color (id integer PRIMARY KEY, code text UNIQUE, family text, name text);
        CREATE TABLE thing (id integer PRIMARY KEY, color text);
        INSERT INTO family SELECT n, 'f' || n, 'family ' || n FROM generate_series(1, 3) n;
        INSERT INTO color SELECT n, 'c' || n, 'f' || 1 + n % 4, 'color ' || n FROM generate_series(1, 6) n;
        INSERT INTO thing SELECT n, 'c' || 1 + n % 8 FROM generate_series(1, 40) n;";
    let pack = [
        (
            "schema.sql",
            "CREATE TABLE IF NOT EXISTS dim_thing (id integer PRIMARY KEY, color text, family text, deleted_at timestamptz)",
        ),
        (
            "dim_thing.sql",
            "SELECT thing.id, color.name AS color, family.name AS family FROM thing
             LEFT JOIN color ON color.code = thing.color LEFT JOIN family ON family.tag = color.family",
        ),
    ];
    let oracle = [(
        "(SELECT * FROM dim_thing WHERE deleted_at IS NULL) d",
        "SELECT t.id, c.name AS color, f.name AS family FROM thing t
         LEFT JOIN color c ON c.code = t.color LEFT JOIN family f ON f.tag = c.family",
    )];
    let world = World::with_settings(&LOGICAL, source, &pack, &oracle).await;
    world.detect_by("wal");
    world.publish().await;
    world.run_and_agree().await;
    for sql in [
        "UPDATE color SET name = 'x' WHERE id = 1",
        "UPDATE color SET code = 'c9' WHERE id = 1",
        "UPDATE color SET code = 'c1' WHERE id = 2",
        "UPDATE color SET code = 't' WHERE id = 3; UPDATE color SET code = 'c3' WHERE id = 4; UPDATE color SET code = 'c4' WHERE id = 3",
        "UPDATE color SET id = 30 WHERE id = 3",
        "DELETE FROM color WHERE id = 30",
        "DELETE FROM color WHERE code = 'c5'; INSERT INTO color VALUES (50, 'c5', 'f2', 'again')",
        "INSERT INTO color VALUES (70, 'c7', 'f1', 'new')",
        "UPDATE family SET tag = 'f4' WHERE id = 1",
        "UPDATE family SET tag = 'f1', name = 'taken over' WHERE id = 2",
        "DELETE FROM family WHERE id = 3; UPDATE color SET family = 'f4' WHERE id = 6",
        "INSERT INTO family VALUES (4, 'f2', 'late'); DELETE FROM thing WHERE id = 7",
    ] {
        world.source.batch_execute(sql).await.unwrap();
        assert_eq!(detection(&world.run_and_agree().await), "wal", "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_table_that_is_larger_than_a_batch_only_what_changed_comes() {
    let world = World::with_settings(&LOGICAL, SHOP, &PACK, &ORACLE).await;
    let s3 = "directory = \"buckets\"\n[limits]\nbatch_bytes = \"1MB\"";
    world.configure(&world.server.url("source"), &world.server.url("warehouse"), s3);
    world.detect_by("wal");
    let many = "INSERT INTO sale SELECT 'many', n, 1 + n % 50, n FROM generate_series(1, 40000) n";
    world.source.batch_execute(many).await.unwrap();
    world.publish().await;
    assert_eq!(world.blackwater(&["run"]).await.code, Some(0));
    world.agree().await;
    for sql in [
        "UPDATE sale SET amount = 1 WHERE shop = 'many' AND id = 700; DELETE FROM sale WHERE id = 800",
        "ANALYZE sale; UPDATE item SET name = 'x' WHERE id = 7",
        "UPDATE kind SET name = 'x' WHERE id = 2",
    ] {
        world.source.batch_execute(sql).await.unwrap();
        let report = world.run_and_agree().await;
        assert_eq!(detection(&report), "wal", "{sql}: {report}");
        let full: Vec<_> = report["extract"]["tables"].as_array().unwrap().iter().map(|table| &table["full"]).collect();
        assert_eq!(full, [&Value::Null; 3], "{sql}: {report}");
    }
}
