//! Changes that the write-ahead log does not name, or names otherwise, because of what they were done to: another publication,
//! partitions that come and go, other keys.

use blackwater_tests::{LOGICAL, Oracle, World, extracted};

use crate::capture::{by_wal_after, detection, says, shop, slot};

/// Runs statements, each in a transaction of its own.
async fn execute(world: &World, statements: &str) {
    for statement in statements.split(';') {
        world.source.batch_execute(statement).await.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_that_left_changes_out_for_a_while_loses_none() {
    let world = shop().await;
    let slot = slot(&world);
    for (before, after) in [
        ("ALTER PUBLICATION $P DROP TABLE sale", "ALTER PUBLICATION $P ADD TABLE sale"),
        ("ALTER PUBLICATION $P SET TABLE item, kind", "ALTER PUBLICATION $P SET TABLE item, kind, sale"),
        (
            "ALTER PUBLICATION $P SET (publish = 'insert')",
            "ALTER PUBLICATION $P SET (publish = 'insert, update, delete, truncate')",
        ),
        (
            "DROP PUBLICATION $P",
            "CREATE PUBLICATION $P FOR TABLE item, kind, sale WITH (publish_via_partition_root = true)",
        ),
        ("ALTER PUBLICATION $P RENAME TO other", "ALTER PUBLICATION other RENAME TO $P"),
        (
            "ALTER PUBLICATION $P RENAME TO another",
            "CREATE PUBLICATION $P FOR TABLE item, kind, sale WITH (publish_via_partition_root = true)",
        ),
        (
            "ALTER PUBLICATION $P SET TABLE item, kind, sale WHERE (id > 100)",
            "ALTER PUBLICATION $P SET TABLE item, kind, sale",
        ),
    ] {
        let sql = format!(
            "{before}; UPDATE sale SET amount = amount + 1 WHERE id = 1; DELETE FROM sale WHERE id = (SELECT max(id) FROM sale); {after}"
        );
        execute(&world, &sql.replace("$P", &slot)).await;
        let report = world.run_and_agree().await;
        assert_eq!(extracted(&report, "sale")["detection"], "scan", "{sql}: {report}");
        by_wal_after(&world, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_publication_a_run_scans_and_says_so() {
    let world = shop().await;
    let slot = slot(&world);
    execute(&world, &format!("DROP PUBLICATION {slot}; UPDATE sale SET amount = 1 WHERE id = 1")).await;
    let confirmed = format!("SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = '{slot}'");
    let before: String = world.source.query_one(&confirmed, &[]).await.unwrap().get(0);
    for n in 0..2 {
        execute(&world, &format!("UPDATE sale SET amount = {n} WHERE id = 2")).await;
        let report = world.run_and_agree().await;
        assert_eq!(detection(&report), "scan");
        assert!(says(&report, &format!("there is no publication {slot}")), "{report}");
    }
    let after: String = world.source.query_one(&confirmed, &[]).await.unwrap().get(0);
    assert_ne!(before, after, "the source keeps its log for nobody");
    world.publish().await;
    by_wal_after(&world, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_transaction_wrote_before_its_table_was_published_arrives() {
    let world = shop().await;
    let slot = slot(&world);
    let [writer, owner, other] = [world.session().await, world.session().await, world.session().await];
    execute(&world, &format!("ALTER PUBLICATION {slot} DROP TABLE sale")).await;
    world.run().await;
    // One that is older than the statement that publishes the table, and one that is newer than any that is over.
    writer.batch_execute("BEGIN; UPDATE sale SET amount = 1 WHERE id = 1").await.unwrap();
    owner.batch_execute("BEGIN; SELECT pg_current_xact_id()").await.unwrap();
    other.batch_execute("BEGIN; UPDATE sale SET amount = 2 WHERE id = 2").await.unwrap();
    owner.batch_execute(&format!("ALTER PUBLICATION {slot} ADD TABLE sale; COMMIT")).await.unwrap();
    for session in [writer, other] {
        execute(&world, "UPDATE sale SET amount = amount + 1 WHERE id = 9").await;
        for _ in 0..2 {
            let report = world.run_and_agree().await;
            assert_eq!(extracted(&report, "sale")["detection"], "scan", "{report}");
            execute(&world, "UPDATE sale SET amount = amount + 1 WHERE id = 9").await;
        }
        session.batch_execute("UPDATE sale SET amount = amount + 1 WHERE id IN (5, 6); COMMIT").await.unwrap();
        world.run_and_agree().await;
    }
    by_wal_after(&world, 1).await;
}

const PARTITIONS: &str = "
    CREATE TABLE item (id integer PRIMARY KEY, name text);
    CREATE TABLE sale (region text, id integer, code integer NOT NULL, item integer, amount numeric(12,2), PRIMARY KEY (region, id))
        PARTITION BY LIST (region);
    CREATE TABLE sale_n PARTITION OF sale FOR VALUES IN ('n');
    CREATE TABLE sale_s (amount numeric(12,2), region text NOT NULL, gone text, item integer, code integer NOT NULL, id integer NOT NULL);
    ALTER TABLE sale_s DROP COLUMN gone;
    ALTER TABLE sale ATTACH PARTITION sale_s FOR VALUES IN ('s');
    CREATE TABLE sale_e (LIKE sale INCLUDING ALL);
    CREATE UNIQUE INDEX sale_s_code ON sale_s (region, code);
    INSERT INTO item SELECT n, 'item ' || n FROM generate_series(1, 9) n;
    INSERT INTO sale SELECT CASE n % 2 WHEN 0 THEN 's' ELSE 'n' END, n, n, 1 + n % 9, n * 0.37 FROM generate_series(1, 100) n;
    INSERT INTO sale_e SELECT 'e', n, n, 1 + n % 9, n FROM generate_series(200, 220) n;";

const PARTITIONS_PACK: [(&str, &str); 2] = [
    (
        "schema.sql",
        "CREATE TABLE IF NOT EXISTS fact_sale (record bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, region text, id integer,
             valid_from timestamptz NOT NULL, valid_to timestamptz, amount numeric(12,2), item text, deleted_at timestamptz);
         CREATE UNIQUE INDEX IF NOT EXISTS fact_sale_open ON fact_sale (region, id) WHERE valid_to IS NULL",
    ),
    ("fact_sale.sql", "SELECT s.region, s.id, s.amount, item.name AS item FROM sale AS s LEFT JOIN item ON item.id = s.item"),
];

const PARTITIONS_ORACLE: [Oracle; 1] = [(
    "current_fact_sale",
    "SELECT region, id, amount, (SELECT name FROM item i WHERE i.id = s.item) AS item FROM sale s",
)];

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_come_and_go_take_their_rows_along() {
    let world = World::with_settings(&LOGICAL, PARTITIONS, &PARTITIONS_PACK, &PARTITIONS_ORACLE).await;
    world.detect_by("wal");
    world.publish().await;
    world.run_and_agree().await;
    for (sql, by) in [
        ("UPDATE sale SET amount = 1 WHERE id < 5", "wal"),
        ("UPDATE sale SET region = 's' WHERE id = 7; UPDATE sale SET id = 1000, region = 'n' WHERE id = 8", "wal"),
        ("UPDATE sale_s SET amount = 2 WHERE id = 10; DELETE FROM sale_s WHERE id = 12", "wal"),
        ("UPDATE sale SET region = 'n' WHERE id = 14; UPDATE sale SET region = 's' WHERE id = 14", "wal"),
        ("DELETE FROM sale WHERE id = 16; INSERT INTO sale VALUES ('n', 16, 16, 1, 1)", "wal"),
        ("TRUNCATE sale_n", "scan"),
        ("INSERT INTO sale SELECT 'n', n, n, 1, 1 FROM generate_series(1, 9) n", "wal"),
        // While it is no part of the table its changes are named under another name, if at all.
        (
            "ALTER TABLE sale DETACH PARTITION sale_s; UPDATE sale_s SET amount = 9 WHERE id = 20; DELETE FROM sale_s WHERE id = 22;
             ALTER TABLE sale ATTACH PARTITION sale_s FOR VALUES IN ('s')",
            "scan",
        ),
        ("UPDATE sale SET amount = 1 WHERE id = 24", "wal"),
        ("ALTER TABLE sale DETACH PARTITION sale_s; UPDATE sale_s SET amount = 9 WHERE id = 26", "scan"),
        ("UPDATE sale_s SET amount = 9 WHERE id = 28; ALTER TABLE sale ATTACH PARTITION sale_s FOR VALUES IN ('s')", "scan"),
        ("UPDATE sale SET amount = 1 WHERE id = 30; DELETE FROM sale WHERE id = 32", "wal"),
        ("ALTER TABLE sale ATTACH PARTITION sale_e FOR VALUES IN ('e')", "scan"),
        ("DROP TABLE sale_n", "scan"),
        ("UPDATE sale SET region = 'e' WHERE id = 34", "wal"),
        ("VACUUM FULL sale_s", "scan"),
        // The identity of the partition decides what the log has of its rows.
        ("ALTER TABLE sale_s REPLICA IDENTITY FULL; UPDATE sale SET id = 36000 WHERE id = 36", "wal"),
        ("ALTER TABLE sale_s REPLICA IDENTITY USING INDEX sale_s_code; UPDATE sale SET id = 38000 WHERE id = 38", "scan"),
        ("UPDATE sale SET id = 40000 WHERE id = 40; ALTER TABLE sale_s REPLICA IDENTITY DEFAULT", "scan"),
        ("UPDATE sale SET id = 42000 WHERE id = 42", "wal"),
        (
            "ALTER TABLE sale_s REPLICA IDENTITY USING INDEX sale_s_code; DELETE FROM sale WHERE id = 44;
             ALTER TABLE sale_s REPLICA IDENTITY DEFAULT; UPDATE sale SET amount = 4 WHERE id = 46",
            "scan",
        ),
        (
            "ALTER TABLE sale_s REPLICA IDENTITY NOTHING; INSERT INTO sale VALUES ('s', 48000, 1, 1, 1);
             ALTER TABLE sale_s REPLICA IDENTITY DEFAULT",
            "scan",
        ),
    ] {
        execute(&world, sql).await;
        let report = world.run_and_agree().await;
        assert_eq!(extracted(&report, "sale")["detection"], by, "{sql}: {report}");
        assert_eq!(world.run().await["extract"]["outcome"], "nothing", "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_replica_identity_is_not_its_key_is_scanned() {
    let world = shop().await;
    execute(&world, "ALTER TABLE kind ALTER name SET NOT NULL").await;
    for (sql, by) in [
        ("ALTER TABLE kind REPLICA IDENTITY USING INDEX kind_name_key; UPDATE kind SET id = 10 WHERE id = 1", "scan"),
        ("UPDATE kind SET name = 'x' WHERE id = 2; DELETE FROM kind WHERE id = 3", "scan"),
        (
            "ALTER TABLE kind REPLICA IDENTITY FULL; UPDATE kind SET id = 20 WHERE id = 2; DELETE FROM kind WHERE id = 5",
            "wal",
        ),
        ("ALTER TABLE kind REPLICA IDENTITY NOTHING; INSERT INTO kind VALUES (1, 'first')", "scan"),
        ("ALTER TABLE kind REPLICA IDENTITY DEFAULT; UPDATE kind SET id = 2 WHERE id = 20", "wal"),
        (
            "ALTER TABLE kind REPLICA IDENTITY USING INDEX kind_name_key; UPDATE kind SET id = 3 WHERE id = 4;
             ALTER TABLE kind REPLICA IDENTITY DEFAULT; UPDATE kind SET name = 'y' WHERE id = 2",
            "scan",
        ),
        (
            "ALTER TABLE kind REPLICA IDENTITY USING INDEX kind_name_key; UPDATE kind SET id = 5 WHERE id = 3;
             ALTER TABLE kind REPLICA IDENTITY FULL; UPDATE kind SET name = 'z' WHERE id = 2;
             ALTER TABLE kind REPLICA IDENTITY DEFAULT",
            "scan",
        ),
    ] {
        execute(&world, sql).await;
        let report = world.run_and_agree().await;
        assert_eq!(extracted(&report, "kind")["detection"], by, "{sql}: {report}");
        assert_eq!(extracted(&report, "sale")["detection"], "wal", "{sql}: {report}");
    }
}

const KEYS: &str = "
    CREATE TYPE state AS ENUM ('open', 'shut');
    CREATE DOMAIN code AS text;
    CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
    CREATE TABLE long (id text PRIMARY KEY, v text);
    ALTER TABLE long ALTER id SET STORAGE EXTERNAL;
    CREATE TABLE padded (id char(5) PRIMARY KEY, v text);
    CREATE TABLE many (at timestamptz, state state, id uuid, flag boolean, v text, PRIMARY KEY (flag, id, at, state));
    CREATE TABLE coded (id code PRIMARY KEY, v text);
    CREATE TABLE number (id numeric PRIMARY KEY, v text);
    CREATE TABLE folded (id text COLLATE ci PRIMARY KEY, v text);
    INSERT INTO long SELECT (SELECT string_agg(md5((n * 100 + m)::text), '') FROM generate_series(1, 78) m), n::text FROM generate_series(1, 9) n;
    INSERT INTO padded SELECT 'k' || n, n FROM generate_series(1, 9) n;
    INSERT INTO many SELECT '2024-03-31 00:30:00.000001+01'::timestamptz + n * interval '1 hour', CASE n % 2 WHEN 0 THEN 'open' ELSE 'shut' END::state,
        md5(n::text)::uuid, n % 3 = 0, n::text FROM generate_series(1, 9) n;
    INSERT INTO coded SELECT 'c' || n, n FROM generate_series(1, 9) n;
    INSERT INTO number SELECT n, n FROM generate_series(1, 9) n;
    INSERT INTO folded SELECT 'Key' || n, n FROM generate_series(1, 9) n;";

const KEYS_PACK: [(&str, &str); 7] = [
    (
        "schema.sql",
        "CREATE TABLE IF NOT EXISTS dim_long (id text PRIMARY KEY, v text, deleted_at timestamptz);
         CREATE TABLE IF NOT EXISTS dim_padded (id text PRIMARY KEY, v text, deleted_at timestamptz);
         CREATE TABLE IF NOT EXISTS dim_many (at timestamptz, state text, id uuid, flag boolean, v text, deleted_at timestamptz,
             PRIMARY KEY (flag, id, at, state));
         CREATE TABLE IF NOT EXISTS dim_coded (id text PRIMARY KEY, v text, deleted_at timestamptz);
         CREATE TABLE IF NOT EXISTS dim_number (id numeric PRIMARY KEY, v text, deleted_at timestamptz);
         CREATE TABLE IF NOT EXISTS dim_folded (id text PRIMARY KEY, v text, deleted_at timestamptz)",
    ),
    ("dim_long.sql", "SELECT id, v FROM long"),
    ("dim_padded.sql", "SELECT id, v FROM padded"),
    ("dim_many.sql", "SELECT at, state, id, flag, v FROM many"),
    ("dim_coded.sql", "SELECT id, v FROM coded"),
    ("dim_number.sql", "SELECT id, v FROM number"),
    ("dim_folded.sql", "SELECT id, v FROM folded"),
];

const KEYS_ORACLE: [Oracle; 6] = [
    ("(SELECT * FROM dim_long WHERE deleted_at IS NULL) d", "SELECT id, v FROM long"),
    ("(SELECT * FROM dim_padded WHERE deleted_at IS NULL) d", "SELECT id, v FROM padded"),
    ("(SELECT * FROM dim_many WHERE deleted_at IS NULL) d", "SELECT at, state, id, flag, v FROM many"),
    ("(SELECT * FROM dim_coded WHERE deleted_at IS NULL) d", "SELECT id, v FROM coded"),
    ("(SELECT * FROM dim_number WHERE deleted_at IS NULL) d", "SELECT id, v FROM number"),
    ("(SELECT * FROM dim_folded WHERE deleted_at IS NULL) d", "SELECT id, v FROM folded"),
];

async fn keys() -> World {
    let world = World::with_settings(&LOGICAL, KEYS, &KEYS_PACK, &KEYS_ORACLE).await;
    world.detect_by("wal");
    world.publish().await;
    world.run_and_agree().await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_any_type_that_prints_alike_are_found_and_others_are_scanned() {
    let world = keys().await;
    for (table, by, changes) in [
        ("long", "wal", "UPDATE long SET v = 'x' WHERE v = '1'; DELETE FROM long WHERE v = '2'; UPDATE long SET id = 'short' WHERE v = '3'"),
        ("padded", "wal", "UPDATE padded SET v = 'x' WHERE v = '1'; DELETE FROM padded WHERE v = '2'; UPDATE padded SET id = 'ä' WHERE v = '3'"),
        (
            "many",
            "wal",
            "UPDATE many SET v = 'x' WHERE v = '1'; DELETE FROM many WHERE v = '2'; UPDATE many SET state = 'open', flag = NOT flag WHERE v = '3';
             UPDATE many SET at = 'infinity' WHERE v = '4'; UPDATE many SET at = '0044-03-15 12:00:00+00 BC' WHERE v = '5'",
        ),
        ("coded", "wal", "UPDATE coded SET v = 'x' WHERE v = '1'; DELETE FROM coded WHERE v = '2'; UPDATE coded SET id = 'NULL' WHERE v = '3'"),
        ("number", "scan", "UPDATE number SET id = 1.0 WHERE v = '1'; DELETE FROM number WHERE v = '2'; UPDATE number SET v = 'x' WHERE v = '3'"),
        ("folded", "scan", "UPDATE folded SET id = 'KEY1' WHERE v = '1'; DELETE FROM folded WHERE v = '2'; UPDATE folded SET v = 'x' WHERE v = '3'"),
    ] {
        for sql in changes.split(';') {
            world.source.batch_execute(sql).await.unwrap();
            let report = world.run_and_agree().await;
            assert_eq!(extracted(&report, table)["detection"], by, "{sql}: {report}");
            // Those that are scanned are counted, which brings nothing either.
            assert_eq!(world.run().await["extract"]["outcome"], "nothing", "{sql}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_its_type_does_not_take_any_more_ends_no_run() {
    let world = keys().await;
    for (table, sql) in [
        (
            "coded",
            "INSERT INTO coded VALUES ('bad', 'x'); DELETE FROM coded WHERE id = 'bad'; UPDATE coded SET v = 'y' WHERE id = 'c3';
             ALTER DOMAIN code ADD CHECK (VALUE <> 'bad')",
        ),
        (
            "many",
            "ALTER TYPE state RENAME VALUE 'shut' TO 'closed'; UPDATE many SET v = 'y' WHERE state = 'closed';
             ALTER TYPE state RENAME VALUE 'closed' TO 'shut'",
        ),
    ] {
        execute(&world, sql).await;
        let report = world.run_and_agree().await;
        assert_eq!(extracted(&report, table)["detection"], "scan", "{sql}: {report}");
        execute(&world, &format!("UPDATE {table} SET v = v || '!'")).await;
        assert_eq!(extracted(&world.run_and_agree().await, table)["detection"], "wal");
    }
}
