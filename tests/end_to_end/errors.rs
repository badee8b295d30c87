//! What is wrong is named before anything is written.

use blackwater_local::s3::S3;
use blackwater_tests::{BUCKETS, World, extracted};
use serde_json::json;

/// Nothing was written to a bucket or to the warehouse.
async fn nothing_is_written(world: &World) {
    assert_eq!(world.objects().len(), 0, "{:?}", world.objects());
    let tables = "SELECT count(*) FROM pg_class WHERE relnamespace NOT IN
        (SELECT oid FROM pg_namespace WHERE nspname LIKE 'pg\\_%' OR nspname = 'information_schema')";
    assert_eq!(world.in_warehouse(tables).await, Some("0".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password() {
    let world = World::totesys().await;
    world.source.batch_execute("CREATE ROLE reader LOGIN PASSWORD 'right' SUPERUSER").await.unwrap();
    let hba = world.server.folder().join("data/pg_hba.conf");
    std::fs::write(hba, "host all reader 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n").unwrap();
    world.source.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let with = |database: &str, password: &str| {
        world.server.url(database).replace("postgres@", &format!("reader:{password}@"))
    };

    world.configure(&with("source", "s3cret-wrong"), &world.server.url("warehouse"), "directory = \"buckets\"");
    let finished = world.blackwater(&["run"]).await;
    finished.says(1, &["extract", "password authentication failed", "reader", "/source", "source.url"]);
    assert!(!format!("{finished:?}").contains("s3cret-wrong"));
    nothing_is_written(&world).await;

    world.configure(&with("source", "right"), &with("warehouse", "s3cret-wrong"), "directory = \"buckets\"");
    let finished = world.blackwater(&["run"]).await;
    finished.says(1, &["load", "password authentication failed", "/warehouse", "warehouse.url"]);
    assert!(!format!("{finished:?}").contains("s3cret-wrong"));
    nothing_is_written(&world).await;

    world.configure(&with("source", "right"), &with("warehouse", "right"), "directory = \"buckets\"");
    world.run_and_agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_bucket() {
    let world = World::totesys().await;
    for (there, missing, setting) in
        [(BUCKETS[1], BUCKETS[0], "ingestion.bucket"), (BUCKETS[0], BUCKETS[1], "processed.bucket")]
    {
        let folder = tempfile::tempdir().unwrap();
        let server = S3::start(folder.path(), &[there]).await.unwrap();
        let endpoint = format!("endpoint = \"{}\"", server.endpoint());
        world.configure(&world.server.url("source"), &world.server.url("warehouse"), &endpoint);
        let finished = world.blackwater(&["run"]).await;
        finished.says(1, &[missing, "does not exist", setting]);
        let bucket = std::fs::read_dir(folder.path().join(there)).unwrap();
        assert_eq!(bucket.count(), 0, "something was written before {missing} was missed");
    }
    nothing_is_written(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_key() {
    let world = World::totesys().await;
    let text = std::fs::read_to_string(world.configuration()).unwrap();
    std::fs::write(world.configuration(), text.replace("[ingestion]", "scheme = \"star\"\n[ingestion]")).unwrap();
    world.blackwater(&["run"]).await.says(2, &["blackwater.toml", "warehouse.scheme", "unknown field"]);
    nothing_is_written(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_without_the_tables() {
    let world = World::totesys().await;
    world
        .source
        .batch_execute(
            "ALTER TABLE design RENAME TO designs; CREATE SCHEMA other; ALTER TABLE currency SET SCHEMA other",
        )
        .await
        .unwrap();
    world.blackwater(&["run"]).await.says(1, &["currency, design", "schema public", "dim_currency.sql"]);
    nothing_is_written(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_does_not_fit_the_source() {
    let world = World::totesys().await;
    let model = world.pack().join("dim_design.sql");
    std::fs::write(&model, "SELECT design_id, design_nam FROM design").unwrap();
    world.blackwater(&["run"]).await.says(1, &["dim_design.sql", "no column design_nam"]);
    let join = "SELECT d.design_id FROM design d LEFT JOIN iso_4217 i ON i.currency_code = d.design_id";
    std::fs::write(&model, join).unwrap();
    world
        .blackwater(&["run"])
        .await
        .says(1, &["dim_design.sql", "design.design_id is integer", "columns of iso_4217.csv are text"]);
    std::fs::write(&model, "SELECT design_name FROM design").unwrap();
    world.blackwater(&["run"]).await.says(1, &["dim_design.sql", "does not return design_id", "primary key"]);
    std::fs::write(&model, "SELECT design_id,\n  now() AS t FROM design").unwrap();
    world.blackwater(&["run"]).await.says(2, &["pack/dim_design.sql:2", "may not use now()"]);
    nothing_is_written(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_star_table_that_does_not_fit_its_model_stops_the_batch_and_loses_nothing() {
    let world = World::totesys().await;
    let schema = world.pack().join("schema.sql");
    let text = std::fs::read_to_string(&schema).unwrap();
    std::fs::write(&schema, text.replace("file_name     varchar NOT NULL", "filename varchar")).unwrap();
    let finished = world.blackwater(&["run"]).await;
    finished.says(1, &["load", "batch 1", "dim_design", "file_name", "Add it to schema.sql"]);
    assert_eq!(world.in_warehouse("SELECT count(*) FROM blackwater.ledger").await, Some("0".into()));
    assert_eq!(world.in_warehouse("SELECT to_regclass('dim_currency')").await, None, "half a batch was applied");
    std::fs::write(&schema, text).unwrap();
    world.run_and_agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn row_security_and_views_are_refused() {
    let world = World::totesys().await;
    world.source.batch_execute("CREATE ROLE reader LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader; ALTER TABLE design ENABLE ROW LEVEL SECURITY").await.unwrap();
    let url = world.server.url("source").replace("postgres@", "reader@");
    world.configure(&url, &world.server.url("warehouse"), "directory = \"buckets\"");
    world.blackwater(&["run"]).await.says(1, &["design", "row-level security"]);
    world
        .source
        .batch_execute("ALTER TABLE design DISABLE ROW LEVEL SECURITY; REVOKE SELECT ON address FROM reader")
        .await
        .unwrap();
    world.blackwater(&["run"]).await.says(1, &["address", "may not read it"]);
    world.source.batch_execute("GRANT SELECT ON address TO reader; ALTER TABLE address RENAME TO a; CREATE VIEW address AS SELECT * FROM a").await.unwrap();
    world.blackwater(&["run"]).await.says(1, &["address", "not a table"]);
    nothing_is_written(&world).await;
    world.source.batch_execute("DROP VIEW address; ALTER TABLE a RENAME TO address").await.unwrap();
    world.run_and_agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_of_another_log() {
    let world = World::totesys().await;
    world.run_and_agree().await;
    let ingestion = world.buckets().join(BUCKETS[0]);
    let processed = world.buckets().join(BUCKETS[1]);
    let aside = world.buckets().join("aside");

    // The ingestion bucket is emptied: nothing is written to it.
    std::fs::rename(&ingestion, &aside).unwrap();
    let finished = world.blackwater(&["run"]).await;
    finished.says(1, &["extract", "ends at batch 0, but batch 1 of it is applied"]);
    assert!(!ingestion.join("batches").exists());
    // Where nobody has left word a new log begins, and nobody takes it for the old one.
    std::fs::remove_file(processed.join("hints/applied.json")).unwrap();
    let finished = world.blackwater(&["run"]).await;
    finished.says(1, &["transform", "belongs to log", "knows log", "test-processed"]);
    // Both buckets are emptied: load knows its log.
    std::fs::remove_dir_all(&processed).unwrap();
    let finished = world.blackwater(&["run"]).await;
    finished.says(1, &["load", "belongs to log", "schema public of the warehouse"]);
    // With the old bucket in its place the pipeline goes on.
    std::fs::remove_dir_all(&ingestion).unwrap();
    std::fs::remove_dir_all(&processed).unwrap();
    std::fs::rename(&aside, &ingestion).unwrap();
    world.forget_checksums();
    world.source.batch_execute("UPDATE design SET file_name = 'again'").await.unwrap();
    world.run_and_agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_copy_of_the_ingestion_bucket() {
    let world = World::totesys().await;
    world.run().await;
    world.source.batch_execute("UPDATE design SET file_name = 'two'").await.unwrap();
    world.run().await;
    std::fs::remove_file(world.buckets().join(BUCKETS[0]).join("batches/000000000002.json")).unwrap();
    world.blackwater(&["transform"]).await.says(1, &["ends at batch 1", "batch 2 of it is applied"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_manifest_or_a_newer_one() {
    let world = World::totesys().await;
    world.run().await;
    let manifest = "batches/000000000001.json";
    let text = std::fs::read_to_string(world.buckets().join(BUCKETS[0]).join(manifest)).unwrap();
    let write = |text: &str| world.overwrite(BUCKETS[0], manifest, text);
    write("hello");
    world.blackwater(&["run"]).await.says(1, &["test-ingestion/batches/000000000001.json", "is not the manifest"]);
    write(&text.replace("\"format\": 1", "\"format\": 2"));
    world
        .blackwater(&["run"])
        .await
        .says(1, &["test-ingestion/batches/000000000001.json", "format 2", "newer version"]);
    write(&text.replace("\"batch\": 1", "\"batch\": 7"));
    world.blackwater(&["run"]).await.says(1, &["it says that it is batch 7"]);
    write(&text);
    world.run_and_agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_object_that_is_not_the_one_listed() {
    let world = World::totesys().await;
    world.blackwater(&["extract"]).await.report();
    let key = world.manifests()[0]["tables"]["design"]["objects"][0]["key"].as_str().unwrap().to_owned();
    let object = world.buckets().join(BUCKETS[0]).join(&key);
    let text = std::fs::read_to_string(&object).unwrap();
    std::fs::write(&object, text.replace("Rubber", "Robber")).unwrap();
    world.blackwater(&["run"]).await.says(1, &["transform", &key, "checksum"]);
    world.forget_checksums();
    world.blackwater(&["run"]).await.says(1, &["transform", &key, "checksum"]);
    std::fs::remove_file(&object).unwrap();
    world.blackwater(&["run"]).await.says(1, &["transform", &key, "not there"]);
    std::fs::write(&object, text).unwrap();
    world.run_and_agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_no_model_reads_cannot_be_read_in_full() {
    let world = World::totesys().await;
    world.blackwater(&["extract", "--full", "_prisma_migrations"]).await.says(2, &["_prisma", "address, counterparty"]);
    world.run().await;
    let report = world.blackwater(&["extract", "--full", "design"]).await.report();
    assert_eq!(extracted(&json!({ "extract": report }), "design")["full"], "it was asked for");
    world.run_and_agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_star_table_whose_key_is_not_the_one_of_the_source() {
    let world = World::totesys().await;
    let schema = world.pack().join("schema.sql");
    let text = std::fs::read_to_string(&schema).unwrap();
    let other = text
        .replace("design_id     integer PRIMARY KEY", "design_id integer")
        .replace("REFERENCES dim_design (design_id)", "")
        .replace("file_name     varchar NOT NULL", "file_name varchar PRIMARY KEY");
    std::fs::write(&schema, other).unwrap();
    world.blackwater(&["run"]).await.says(1, &["dim_design", "(file_name)", "(design_id)", "could overwrite another"]);
    std::fs::write(&schema, text).unwrap();
    world.run_and_agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingestion_bucket_that_went_back_and_on_again() {
    let world = World::totesys().await;
    world.run().await;
    world.source.batch_execute("UPDATE design SET file_name = 'two'").await.unwrap();
    world.run().await;
    std::fs::remove_file(world.buckets().join(BUCKETS[0]).join("batches/000000000002.json")).unwrap();
    world.source.batch_execute("UPDATE design SET file_name = 'another two'").await.unwrap();
    world.blackwater(&["extract"]).await.says(1, &["ends at batch 1", "batch 2 of it is applied"]);
    // Where nobody has left word, load finds it out.
    std::fs::remove_file(world.buckets().join(BUCKETS[1]).join("hints/applied.json")).unwrap();
    world.blackwater(&["extract"]).await.report();
    world.blackwater(&["run"]).await.says(1, &["000000000002.json", "another batch of this number"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_cannot_be_read_does_not_hold_up_what_was_read() {
    let world = World::totesys().await;
    world.blackwater(&["extract"]).await.report();
    world.source.batch_execute("ALTER TABLE design RENAME TO designs").await.unwrap();
    world.blackwater(&["run"]).await.says(1, &["extract", "design"]);
    world.source.batch_execute("ALTER TABLE designs RENAME TO design").await.unwrap();
    world.agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warehouse_that_is_made_anew_is_filled_anew() {
    let world = World::totesys().await;
    world.run().await;
    world.source.batch_execute("UPDATE design SET file_name = 'two'").await.unwrap();
    world.run().await;
    // Under another pack the processed log begins where the warehouse was.
    let model = world.pack().join("dim_design.sql");
    let text = std::fs::read_to_string(&model).unwrap();
    std::fs::write(&model, format!("-- a remark\n{text}")).unwrap();
    world.run_and_agree().await;
    world
        .warehouse
        .batch_execute("DROP SCHEMA blackwater CASCADE; DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        .await
        .unwrap();
    let report = world.run_and_agree().await;
    assert_eq!(report["load"]["applied"], 2, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_is_dropped_at_the_source_stops_extract_until_it_is_back() {
    let world = World::totesys().await;
    world.run().await;
    world
        .source
        .batch_execute(
            "UPDATE address SET city = 'before' WHERE address_id = 1; ALTER TABLE design RENAME file_name TO kept;
             UPDATE address SET city = 'after' WHERE address_id = 2",
        )
        .await
        .unwrap();
    for _ in 0..2 {
        let run = world.blackwater(&["run"]).await;
        run.says(1, &["extract", "dim_design.sql:5", "no column file_name", "the next run goes on where the log ends"]);
    }
    assert_eq!(world.manifests().len(), 1);
    world.source.batch_execute("ALTER TABLE design RENAME kept TO file_name").await.unwrap();
    world.run_and_agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_gets_another_type_at_the_source_stops_load_until_the_model_casts_it() {
    let world = World::totesys().await;
    world.run().await;
    world.source.batch_execute("ALTER TABLE sales_order ALTER units_sold TYPE text").await.unwrap();
    let run = world.blackwater(&["run"]).await;
    run.says(
        1,
        &["load: batch 2", "fact_sales_order", "units_sold as text", "the column is integer", "CAST it in the model"],
    );
    world.source.batch_execute("UPDATE sales_order SET units_sold = 'many' WHERE sales_order_id = 3").await.unwrap();
    assert_eq!(world.blackwater(&["run"]).await.code, Some(1));
    assert_eq!(world.manifests().len(), 3, "extract goes on, and what it read waits");
    let model = world.pack().join("fact_sales_order.sql");
    let text = std::fs::read_to_string(&model).unwrap();
    std::fs::write(&model, text.replace("    units_sold,", "    CAST(units_sold AS INTEGER) AS units_sold,")).unwrap();
    world.run().await;
    assert_eq!(world.quarantine().await.len(), 1);
    world.source.batch_execute("UPDATE sales_order SET units_sold = '3' WHERE sales_order_id = 3").await.unwrap();
    world
        .source
        .batch_execute("ALTER TABLE sales_order ALTER units_sold TYPE integer USING units_sold::integer")
        .await
        .unwrap();
    world.run_and_agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_where_a_manifest_should_be() {
    let world = World::totesys().await;
    world.run_and_agree().await;
    let packs = world.buckets().join(BUCKETS[1]).join("batches");
    let pack = std::fs::read_dir(packs).unwrap().next().unwrap().unwrap().file_name().into_string().unwrap();
    let manifest = world.manifests().remove(0).to_string();
    let (ingestion, processed) = ("batches/000000000002.json", format!("batches/{pack}/000000000002.json"));
    for (command, bucket, key, text) in [
        ("extract", BUCKETS[0], ingestion, "\u{0}\u{1}"),
        ("transform", BUCKETS[0], ingestion, "{}"),
        ("extract", BUCKETS[0], ingestion, &manifest),
        ("load", BUCKETS[1], &processed, "{\"format\": 1}"),
        ("load", BUCKETS[1], &processed, ""),
    ] {
        world.overwrite(bucket, key, text);
        world.source.batch_execute("UPDATE design SET file_name = file_name || 'x'").await.unwrap();
        let place = format!("{bucket}/{key}");
        world.blackwater(&[command]).await.says(1, &[&place, "is not the manifest of its batch", "older versions"]);
        std::fs::remove_file(world.buckets().join(bucket).join(key)).unwrap();
        world.forget_checksums();
    }
    world.run_and_agree().await;
}
