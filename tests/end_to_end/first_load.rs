use std::fs::File;

use blackwater_local::totesys;
use blackwater_tests::{BUCKETS, World, extracted};
use parquet::basic::{Compression, Type};
use parquet::file::reader::{FileReader, SerializedFileReader};
use tokio_postgres::Client;

/// What COPY writes, read with a client that the product does not use.
async fn copy(client: &Client, statement: &str) -> String {
    use std::process::Command;
    let port: i32 = client.query_one("SELECT current_setting('port')::int", &[]).await.unwrap().get(0);
    let database: String = client.query_one("SELECT current_database()::text", &[]).await.unwrap().get(0);
    let psql = Command::new("psql")
        .args(["-qX", "-h", "127.0.0.1", "-U", "postgres", "-p", &port.to_string(), "-d", &database, "-c", statement])
        .output()
        .unwrap();
    assert!(psql.status.success(), "{psql:?}");
    String::from_utf8(psql.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sample_arrives_as_hand_written_sql_says() {
    let world = World::totesys().await;
    let report = world.run_and_agree().await;
    assert_eq!(report["extract"]["batch"], 1);
    for (star, view) in [
        ("dim_counterparty", "dim_counterparty"),
        ("dim_currency", "dim_currency"),
        ("dim_date", "dim_date"),
        ("dim_design", "dim_design"),
        ("dim_location", "dim_location"),
        ("dim_payment_type", "dim_payment_type"),
        ("dim_staff", "dim_staff"),
        ("dim_transaction", "dim_transaction"),
        ("fact_payment", "current_fact_payment"),
        ("fact_purchase_order", "current_fact_purchase_order"),
        ("fact_sales_order", "current_fact_sales_order"),
    ] {
        let expected = totesys::file(&format!("expected/{star}.csv"));
        let columns = expected.lines().next().unwrap();
        for table in [star, view] {
            let query = format!("SELECT {columns} FROM {table} ORDER BY 1");
            let statement = format!("COPY ({query}) TO STDOUT (FORMAT csv, HEADER, NULL '\\N')");
            assert_eq!(copy(&world.warehouse, &statement).await, expected, "{table}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_arrives_and_no_other_row_is_touched() {
    let world = World::totesys().await;
    world.run().await;
    let before = "SELECT string_agg(design_id::text || ' ' || xmin::text || ' ' || ctid::text, ',' ORDER BY design_id)
                  FROM dim_design WHERE design_id NOT IN (5, 21)";
    let untouched = world.in_warehouse(before).await;
    // Those before anything is deleted.
    let changes = totesys::file("changes.sql").split("-- 10. ").next().unwrap();
    world.source.batch_execute(changes).await.unwrap();
    let report = world.run_and_agree().await;
    let load = &report["load"]["batches"][0]["tables"];
    let counts: Vec<_> = load
        .as_array()
        .unwrap()
        .iter()
        .map(|t| (t["table"].as_str().unwrap(), t["inserted"].as_u64(), t["updated"].as_u64(), t["unchanged"].as_u64()))
        .collect();
    assert_eq!(
        counts,
        [
            ("dim_counterparty", Some(0), Some(3), Some(0)),
            ("dim_currency", Some(1), Some(0), Some(0)),
            ("dim_date", Some(0), Some(0), Some(9)),
            ("dim_design", Some(1), Some(1), Some(0)),
            ("dim_location", Some(0), Some(2), Some(0)),
            ("dim_staff", Some(0), Some(1), Some(0)),
            ("dim_transaction", Some(1), Some(0), Some(0)),
            ("fact_payment", Some(6), Some(0), Some(0)),
            ("fact_sales_order", Some(2), Some(0), Some(0)),
        ]
    );
    assert_eq!(world.in_warehouse(before).await, untouched);
    assert_eq!(world.in_warehouse("SELECT address_line_2 FROM dim_location WHERE location_id = 6").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_written_anew_with_the_same_content_is_left_untouched() {
    let world = World::totesys().await;
    world.run().await;
    let rows = "SELECT string_agg(xmin::text || ctid::text || xmax::text, ',' ORDER BY design_id) FROM dim_design";
    let before = world.in_warehouse(rows).await;
    world.source.batch_execute("UPDATE design SET last_updated = now()").await.unwrap();
    let report = world.run_and_agree().await;
    assert_eq!(report["load"]["batches"][0]["tables"][0]["unchanged"], 20);
    assert_eq!(world.in_warehouse(rows).await, before, "an equal row was written or locked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_writes_nothing_whatever_transactions_are_open() {
    let world = World::totesys().await;
    let holder = world.session().await;
    holder.batch_execute("BEGIN; SELECT pg_current_xact_id()").await.unwrap();
    // Rows of later transactions stay above the marker as long as the holder is open.
    world.source.batch_execute("UPDATE design SET file_name = file_name || 'x'").await.unwrap();
    world.run_and_agree().await;
    let writer = world.session().await;
    writer.batch_execute("UPDATE address SET city = city || 'x'; BEGIN; SAVEPOINT a; UPDATE design SET design_name = 'y' WHERE design_id = 1; COMMIT").await.unwrap();
    world.run_and_agree().await;

    // The next transaction id, which every write to the cluster moves, and the ledger.
    let state = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text || (SELECT string_agg(l::text, ',') FROM blackwater.ledger l)";
    let (objects, ledger) = (world.objects(), world.in_warehouse(state).await);
    assert!(ledger.is_some());
    for _ in 0..2 {
        let report = world.run().await;
        assert_eq!(report["extract"]["outcome"], "nothing", "{report}");
        assert_eq!(report["transform"]["batches"].as_array().unwrap().len(), 0);
        assert_eq!(report["load"]["batches"].as_array().unwrap().len(), 0);
    }
    assert_eq!(world.objects(), objects, "an idle run wrote to a bucket");
    assert_eq!(world.in_warehouse(state).await, ledger);

    holder.batch_execute("UPDATE design SET file_name = 'late' WHERE design_id = 3; COMMIT").await.unwrap();
    let report = world.run_and_agree().await;
    let rows = |table: &str| extracted(&report, table)["rows"].as_u64();
    assert_eq!((rows("design"), rows("address")), (Some(1), Some(0)), "only the late row is new");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_csv_exactly_as_copy_writes_it() {
    let world = World::totesys().await;
    world.run().await;
    let manifest = world.manifests().remove(0);
    for (table, models) in [("address", "dim_location"), ("design", "dim_design"), ("transaction", "dim_transaction")] {
        let statement = format!("COPY (SELECT *, true FROM \"{table}\") TO STDOUT (FORMAT csv)");
        let columns = manifest["tables"][table]["columns"].as_array().unwrap();
        let header: String = columns.iter().map(|column| format!("{},", column["name"])).collect();
        let objects = manifest["tables"][table]["objects"].as_array().unwrap();
        assert_eq!(objects.len(), 1);
        let found = String::from_utf8(world.object(BUCKETS[0], &objects[0])).unwrap();
        let rows = copy(&world.source, &statement).await;
        assert_eq!(found, format!("{header}\"drives:{models}\"\n{rows}"), "{table}");
        assert_eq!(objects[0]["bytes"], found.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parquet_has_typed_columns_and_zstd() {
    let world = World::totesys().await;
    world.run().await;
    let folder = world.buckets().join(BUCKETS[1]).join("batches");
    let pack = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    let manifest = std::fs::read(pack.join("000000000001.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let key = manifest["tables"]["dim_transaction"]["objects"][0]["key"].as_str().unwrap();
    let reader = SerializedFileReader::new(File::open(world.buckets().join(BUCKETS[1]).join(key)).unwrap()).unwrap();
    let group = reader.metadata().row_group(0);
    assert_eq!((reader.metadata().num_row_groups(), group.num_rows()), (1, 34));
    let columns: Vec<_> = group.columns().iter().map(|c| (c.column_path().string(), c.column_type())).collect();
    assert_eq!(
        columns,
        [
            ("transaction_id".into(), Type::INT32),
            ("transaction_type".into(), Type::BYTE_ARRAY),
            ("sales_order_id".into(), Type::INT32),
            ("purchase_order_id".into(), Type::INT32),
        ]
    );
    assert!(group.columns().iter().all(|column| matches!(column.compression(), Compression::ZSTD(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_table_goes_in_parts_and_pieces() {
    let world = World::totesys().await;
    // Some 37 MB of CSV: objects of 16 MB, each a multipart upload of several parts.
    world
        .source
        .batch_execute(
            "INSERT INTO currency (currency_id, currency_code, created_at, last_updated)
             SELECT n, to_char(n % 1000, 'FM000'), '2024-01-01', '2024-01-01' FROM generate_series(100, 700000) n",
        )
        .await
        .unwrap();
    world.run_and_agree().await;
    let manifest = world.manifests().remove(0);
    let objects = manifest["tables"]["currency"]["objects"].as_array().unwrap();
    assert_eq!(objects.len(), 3);
    let rows: u64 = objects.iter().map(|object| object["rows"].as_u64().unwrap()).sum();
    assert_eq!((rows, manifest["tables"]["currency"]["rows"].as_u64()), (699_906, Some(699_906)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_has_nothing_to_say_for_a_day_says_that_it_is_alive() {
    let world = World::totesys().await;
    world.run().await;
    let mut newest = world.manifests().remove(0);
    for (hours, outcome) in [(23, "nothing"), (25, "batch")] {
        let ago = format!(
            "SELECT to_char(now() AT TIME ZONE 'UTC' - interval '{hours} h', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"
        );
        newest["at"] = world.in_warehouse(&ago).await.into();
        world.overwrite(BUCKETS[0], "batches/000000000001.json", &newest.to_string());
        assert_eq!(world.run().await["extract"]["outcome"], outcome);
    }
    assert_eq!(world.run().await["load"]["applied"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn status_tells_how_far_each_stage_is() {
    let world = World::totesys().await;
    let status = world.blackwater(&["status"]).await.report();
    assert!(status["extracted"].is_null() && status["applied"].is_null(), "{status}");
    world.blackwater(&["extract"]).await.report();
    world.blackwater(&["transform"]).await.report();
    let status = world.blackwater(&["status"]).await.report();
    assert_eq!((status["extracted"]["batch"].as_u64(), status["transformed"]["batch"].as_u64()), (Some(1), Some(1)));
    assert!(status["applied"].is_null());
    world.blackwater(&["load"]).await.report();
    let status = world.blackwater(&["status"]).await.report();
    assert_eq!((status["applied"]["batch"].as_u64(), status["lag_seconds"].as_i64()), (Some(1), Some(0)));
    let tables = status["tables"].as_array().unwrap();
    assert!(tables.iter().any(|table| table["table"] == "dim_transaction" && table["rows"] == 34));
    world.agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_may_read_the_star_tables() {
    let world = World::totesys().await;
    let text = std::fs::read_to_string(world.configuration()).unwrap();
    let text = text.replace("[ingestion]", "schema = \"Star\"\nreaders = [\"quicksight\"]\n[ingestion]");
    std::fs::write(world.configuration(), text).unwrap();
    let without = world.blackwater(&["run"]).await;
    without.says(1, &["cannot let quicksight read", "does not exist", "check --grants"]);
    world.warehouse.batch_execute("CREATE ROLE quicksight").await.unwrap();
    world.run().await;
    world.warehouse.batch_execute("SET ROLE quicksight").await.unwrap();
    assert_eq!(world.in_warehouse("SELECT count(*) FROM \"Star\".dim_design").await, Some("20".into()));
}
