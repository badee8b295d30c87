//! DDL at the source that changes what a table holds without writing its rows.

use blackwater_tests::{BUCKETS, Oracle, World, captures, extracted};

const ITEMS: &str = "
    CREATE TABLE item (id int, name text NOT NULL, PRIMARY KEY (id)) PARTITION BY RANGE (id);
    CREATE TABLE item_1 PARTITION OF item FOR VALUES FROM (0) TO (1000);
    INSERT INTO item SELECT n, 'item ' || n FROM generate_series(1, 500) n";
const PACK: [(&str, &str); 2] = [
    ("schema.sql", "CREATE TABLE IF NOT EXISTS dim_item (id integer PRIMARY KEY, name text NOT NULL)"),
    ("dim_item.sql", "SELECT id, name FROM item"),
];
const ORACLE: [Oracle; 1] = [("dim_item", "SELECT id, name FROM item")];

/// Why a table was read in full in the newest run.
fn full(report: &serde_json::Value, table: &str) -> Option<String> {
    extracted(report, table)["full"].as_str().map(str::to_owned)
}

fn rows(report: &serde_json::Value, table: &str) -> u64 {
    extracted(report, table)["rows"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rows_of_an_attached_partition_arrive() {
    let world = World::of(ITEMS, &PACK, &ORACLE).await;
    world
        .source
        .batch_execute("CREATE TABLE item_2 (LIKE item); INSERT INTO item_2 SELECT n, 'staged ' || n FROM generate_series(1000, 1999) n")
        .await
        .unwrap();
    world.run_and_agree().await;
    world
        .source
        .batch_execute("ALTER TABLE item ATTACH PARTITION item_2 FOR VALUES FROM (1000) TO (2000)")
        .await
        .unwrap();
    let report = world.run_and_agree().await;
    assert_eq!(rows(&report, "item"), 1000, "the known partition is not read again");
    assert_eq!(world.run().await["extract"]["outcome"], "nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_to_a_partition_while_it_was_detached_arrives() {
    let world = World::of(ITEMS, &PACK, &ORACLE).await;
    world.run_and_agree().await;
    // Not one row is written, and the heap keeps its file.
    world
        .source
        .batch_execute(
            "ALTER TABLE item DETACH PARTITION item_1;
             ALTER TABLE item_1 DROP COLUMN name; ALTER TABLE item_1 ADD COLUMN name text NOT NULL DEFAULT 'anew';
             ALTER TABLE item ATTACH PARTITION item_1 FOR VALUES FROM (0) TO (1000)",
        )
        .await
        .unwrap();
    world.run_and_agree().await;
    assert_eq!(world.in_warehouse("SELECT count(*) FROM dim_item WHERE name = 'anew'").await, Some("500".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_written_through_a_partitioned_table_arrive() {
    let world = World::of(ITEMS, &PACK, &ORACLE).await;
    world.source.batch_execute("CREATE TABLE item_2 PARTITION OF item FOR VALUES FROM (1000) TO (2000)").await.unwrap();
    world.run_and_agree().await;
    world
        .source
        .batch_execute("UPDATE item SET name = 'changed' WHERE id = 7; INSERT INTO item VALUES (1500, 'new')")
        .await
        .unwrap();
    let report = world.run_and_agree().await;
    assert_eq!(rows(&report, "item"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_took_the_name_of_another_arrives() {
    let world = World::totesys().await;
    world.source.batch_execute("CREATE TABLE design_new (LIKE design INCLUDING ALL); INSERT INTO design_new SELECT * FROM design; UPDATE design_new SET file_name = 'new'").await.unwrap();
    world.run_and_agree().await;
    world
        .source
        .batch_execute(
            "BEGIN; ALTER TABLE design RENAME TO design_old; ALTER TABLE design_new RENAME TO design; COMMIT",
        )
        .await
        .unwrap();
    let report = world.run_and_agree().await;
    assert_eq!(full(&report, "design").unwrap(), "it was rewritten or swapped");
    assert_eq!(full(&report, "address"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_emptied_and_filled_again_arrives() {
    let world = World::totesys().await;
    world.run_and_agree().await;
    let refill = "CREATE TEMP TABLE d AS SELECT * FROM address; UPDATE d SET city = city || '!';
        SET session_replication_role = replica; TRUNCATE address CASCADE; INSERT INTO address SELECT * FROM d";
    let writer = world.session().await;
    writer.batch_execute(&format!("BEGIN; {refill}; COMMIT")).await.unwrap();
    let report = world.run().await;
    assert_eq!(full(&report, "address").unwrap(), "it was rewritten or swapped");
    assert_eq!(world.in_warehouse("SELECT count(*) FROM dim_location WHERE city LIKE '%!'").await, Some("20".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_enum_label_arrives_in_every_row() {
    let world = World::totesys().await;
    world.run_and_agree().await;
    world.source.batch_execute("ALTER TYPE \"TransactionType\" RENAME VALUE 'SALE' TO 'SOLD'").await.unwrap();
    let report = world.run_and_agree().await;
    assert_eq!(full(&report, "transaction").unwrap(), "its definition has changed");
    assert_eq!(
        world.in_warehouse("SELECT count(*) FROM dim_transaction WHERE transaction_type = 'SALE'").await,
        Some("0".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_dropped_and_added_again_with_a_default_arrives() {
    let world = World::totesys().await;
    world.run_and_agree().await;
    world
        .source
        .batch_execute("ALTER TABLE design DROP COLUMN file_name; ALTER TABLE design ADD COLUMN file_name text NOT NULL DEFAULT 'none'")
        .await
        .unwrap();
    let report = world.run_and_agree().await;
    assert_eq!(full(&report, "design").unwrap(), "its definition has changed");
    assert_eq!(world.in_warehouse("SELECT count(*) FROM dim_design WHERE file_name = 'none'").await, Some("20".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_changes_or_comes_later_has_all_its_rows() {
    let world = World::totesys().await;
    for model in ["dim_transaction.sql", "fact_payment.sql"] {
        std::fs::remove_file(world.pack().join(model)).unwrap();
    }
    world.run().await;
    totesys_pack(&world);
    let iso = world.pack().join("iso_4217.csv");
    let text = std::fs::read_to_string(&iso).unwrap();
    std::fs::write(&iso, text.replace("JPY,Yen", "JPY,Japanese Yen")).unwrap();
    let report = world.run().await;
    assert_eq!(full(&report, "transaction").unwrap(), "the log does not hold it yet");
    assert_eq!(full(&report, "currency").unwrap(), "the model dim_currency is new or has changed");
    assert_eq!(full(&report, "payment").unwrap(), "the model fact_payment is new or has changed");
    assert_eq!(full(&report, "sales_order"), None);
    let payments = "SELECT count(*) FROM fact_payment";
    let expected: i64 = world.source.query_one("SELECT count(*) FROM payment", &[]).await.unwrap().get(0);
    assert_eq!(world.in_warehouse(payments).await, Some(expected.to_string()));
    assert_eq!(world.in_warehouse("SELECT count(*) FROM dim_transaction").await, Some("34".into()));
    let yen = "SELECT currency_name FROM dim_currency WHERE currency_code = 'JPY'";
    assert_eq!(world.in_warehouse(yen).await, Some("Japanese Yen".into()));
    assert_eq!(world.run().await["extract"]["outcome"], "nothing");
}

fn totesys_pack(world: &World) {
    blackwater_local::totesys::write_pack(&world.pack()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_source_is_read_in_full_and_says_so() {
    // With the write-ahead log a restart is no reason for a full read.
    if captures() {
        return;
    }
    let world = World::totesys().await;
    world.run_and_agree().await;
    // As after a restored volume: the same identity and timeline, and a transaction id that the
    // log has seen names another transaction.
    let mut state = world.manifests().remove(0);
    let next: i64 = world.source.query_one("SELECT (pg_current_xact_id()::text)::bigint", &[]).await.unwrap().get(0);
    state["source"]["started"] = "2020-01-01T00:00:00Z".into();
    state["seen"] = (next..next + 50).collect::<Vec<_>>().into();
    world.overwrite(BUCKETS[0], "batches/000000000001.json", &state.to_string());
    let holder = world.session().await;
    holder.batch_execute("BEGIN; SELECT pg_current_xact_id()").await.unwrap();
    world.source.batch_execute("UPDATE design SET file_name = 'restored'").await.unwrap();
    let report = world.run_and_agree().await;
    assert!(full(&report, "design").unwrap().contains("restarted"), "{report}");
    assert!(report["extract"]["notices"][0].as_str().unwrap().contains("every table is read in full"));
    world.source.batch_execute("UPDATE design SET file_name = 'after it' WHERE design_id = 2").await.unwrap();
    world.run_and_agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_is_excluded_leaves_no_trace() {
    let world = World::totesys().await;
    let text = std::fs::read_to_string(world.configuration()).unwrap();
    std::fs::write(
        world.configuration(),
        text.replace("[warehouse]", "exclude = [\"address.created_at\"]\n[warehouse]"),
    )
    .unwrap();
    world.run_and_agree().await;
    let columns = world.manifests()[0]["tables"]["address"]["columns"].to_string();
    assert!(columns.contains("last_updated") && !columns.contains("created_at"), "{columns}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_took_the_name_of_another_is_read_in_full() {
    let mut world = World::totesys().await;
    world.run_and_agree().await;
    // A copy has the same oids and files; what happened in the original after it is undone.
    world.swap_databases("CREATE DATABASE copy TEMPLATE source").await;
    world.source.batch_execute("UPDATE design SET file_name = 'to be undone'").await.unwrap();
    world.run_and_agree().await;
    world.swap_databases("DROP DATABASE source; ALTER DATABASE copy RENAME TO source").await;
    let report = world.run_and_agree().await;
    assert!(report["extract"]["notices"][0].as_str().unwrap().contains("another database"), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_crashed_is_read_in_full() {
    // With the write-ahead log a restart is no reason for a full read.
    if captures() {
        return;
    }
    let mut world = World::totesys().await;
    world.run_and_agree().await;
    world.crash().await;
    let report = world.run_and_agree().await;
    assert!(report["extract"]["notices"][0].as_str().unwrap().contains("crashed"), "{report}");
    assert_eq!(world.run().await["extract"]["outcome"], "nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_from_before_a_model_got_another_join_does_not_answer_for_it() {
    let source = "CREATE TABLE colour (id integer PRIMARY KEY, name text);
        CREATE TABLE car (id integer PRIMARY KEY, colour integer);
        INSERT INTO colour VALUES (1, 'red'), (2, 'blue'); INSERT INTO car VALUES (1, 1), (2, 2), (3, NULL)";
    let schema = "CREATE TABLE IF NOT EXISTS fact_car (record serial PRIMARY KEY, valid_from timestamptz NOT NULL, valid_to timestamptz, id integer NOT NULL, colour text);
        CREATE UNIQUE INDEX IF NOT EXISTS fact_car_open ON fact_car (id) WHERE valid_to IS NULL";
    let joined = "SELECT car.id, colour.name AS colour FROM car LEFT JOIN colour ON colour.id = car.colour";
    let colours = "CREATE TABLE IF NOT EXISTS dim_colour (id integer PRIMARY KEY, name text)";
    let schema = format!("{schema}; {colours}");
    let pack = [
        ("schema.sql", schema.as_str()),
        ("fact_car.sql", "SELECT id, 'none' AS colour FROM car"),
        ("dim_colour.sql", "SELECT id, name FROM colour"),
    ];
    let oracle = "SELECT id, (SELECT name FROM colour WHERE id = car.colour) AS colour FROM car";
    let world = World::of(source, &pack, &[("current_fact_car", oracle)]).await;
    world.run().await;
    // Before a batch with a car, and without its colour, is transformed, another pack is deployed.
    world.source.batch_execute("UPDATE car SET id = id WHERE id = 2").await.unwrap();
    world.blackwater(&["extract"]).await.report();
    std::fs::write(world.pack().join("fact_car.sql"), joined).unwrap();
    world.run_and_agree().await;
    // A text that differs and reads the same rows makes them of the older batches too.
    world.source.batch_execute("UPDATE colour SET name = 'navy' WHERE id = 2").await.unwrap();
    world.blackwater(&["extract"]).await.report();
    std::fs::write(world.pack().join("fact_car.sql"), joined.replace("colour.name", "UPPER(colour.name)")).unwrap();
    world.run().await;
    let versions = "SELECT string_agg(concat(id, ' ', colour), ', ' ORDER BY record) FROM fact_car WHERE id = 2";
    assert_eq!(world.in_warehouse(versions).await, Some("2 none, 2 blue, 2 NAVY".into()));
}
