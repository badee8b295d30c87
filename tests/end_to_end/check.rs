//! `blackwater check` says before a run what will not work.

use blackwater_tests::World;
use serde_json::Value;

/// The findings of a check, which must end with this exit code: errors, then advice.
async fn findings(world: &World, code: i32) -> Vec<String> {
    let finished = world.blackwater(&["check"]).await;
    assert_eq!(finished.code, Some(code), "{finished:?}");
    let report: Value = serde_json::from_str(&finished.stdout).unwrap();
    let line = |finding: &Value| {
        let text = |field: &str| finding[field].as_str().unwrap();
        let remedy = finding["remedy"].as_str().map(|remedy| format!(". {remedy}")).unwrap_or_default();
        format!("{}, {}: {}{remedy}", text("level"), text("about"), text("what"))
    };
    report["findings"].as_array().unwrap().iter().map(line).collect()
}

/// The check says `expected`, and ends with 3 if that is an error. Nothing is expected of what works.
async fn says(world: &World, expected: &str) {
    let found = findings(world, if expected.starts_with("error") { 3 } else { 0 }).await;
    match expected {
        "" => assert_eq!(found, [""; 0]),
        _ => assert!(found.iter().any(|line| line.starts_with(expected)), "{expected:?} is not in {found:#?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_is_wrong_it_says_what_a_run_reads_and_writes_nothing() {
    let world = World::totesys().await;
    world.source.batch_execute("VACUUM ANALYZE").await.unwrap();
    let report = world.blackwater(&["check"]).await.report();
    assert_eq!(report["findings"].as_array().unwrap().len(), 0, "{report}");
    let design = report["reads"].as_array().unwrap().iter().find(|table| table["table"] == "design").unwrap();
    assert_eq!((design["rows"].as_u64(), design["bytes"].as_u64()), (Some(20), Some(8192)));
    assert_eq!(world.objects().len(), 0);
    let made = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace OR relname = 'ledger'";
    assert_eq!(world.in_warehouse(made).await, Some("0".into()));
    world.run_and_agree().await;
    says(&world, "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_of_the_source_will_not_work() {
    let world = World::totesys().await;
    for (change, undo, expected) in [
        (
            "ALTER TABLE design RENAME TO d",
            "ALTER TABLE d RENAME TO design",
            "error, source: the source has no table design in schema public, which dim_design.sql reads",
        ),
        (
            "ALTER TABLE design RENAME TO d; CREATE VIEW design AS SELECT * FROM d",
            "DROP VIEW design; ALTER TABLE d RENAME TO design",
            "error, source: source table design: it is not a table",
        ),
        (
            "ALTER TABLE design RENAME file_name TO f",
            "ALTER TABLE design RENAME f TO file_name",
            "error, models: dim_design.sql:5: the source table design has no column file_name",
        ),
        (
            "ALTER TABLE department DROP CONSTRAINT department_pkey CASCADE",
            "ALTER TABLE department ADD PRIMARY KEY (department_id)",
            "error, models: dim_staff.sql:10: (department_id) is no primary or unique key of department",
        ),
        (
            "ALTER TABLE department ALTER department_id DROP DEFAULT, ALTER department_id TYPE text",
            "ALTER TABLE department ALTER department_id TYPE integer USING department_id::integer",
            "error, models: dim_staff.sql:10: department.department_id is text and staff.department_id is integer",
        ),
        (
            "ALTER TABLE design ALTER design_name TYPE money USING '1'::money",
            "ALTER TABLE design ALTER design_name TYPE varchar",
            "error, models: dim_design.sql: design.design_name holds money",
        ),
        (
            "ALTER TABLE payment_type DROP CONSTRAINT payment_type_pkey CASCADE",
            "ALTER TABLE payment_type ADD PRIMARY KEY (payment_type_id)",
            "error, models: dim_payment_type.sql: the source table payment_type has no primary key",
        ),
        ("ALTER TABLE design ALTER design_name TYPE date USING '2024-01-01'::date", "SELECT", ""),
    ] {
        world.source.batch_execute(change).await.unwrap();
        says(&world, expected).await;
        world.source.batch_execute(undo).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_of_a_model_will_not_work() {
    let world = World::totesys().await;
    let file = world.pack().join("dim_design.sql");
    for (columns, expected) in [
        (
            "design_id, design_name, file_location, file_nam",
            "error, models: dim_design.sql:1: the source table design has no column file_nam",
        ),
        ("design_id, CAST(created_at AS NUMERIC(5, 2)) AS n", "error, models: dim_design.sql:1: "),
        ("design_name, file_location, file_name", "error, models: dim_design.sql: it does not return design_id"),
        (
            "design_id, design_name, file_location",
            "error, warehouse: dim_design: the column file_name is NOT NULL and has no default, and the model does not return it",
        ),
        (
            "design_id, design_name, file_location, file_name, created_at",
            "error, warehouse: dim_design: the model returns created_at, which the table has not",
        ),
        (
            "design_id, design_name, file_location, file_name, created_at AS deleted_at",
            "error, warehouse: dim_design: the model returns deleted_at, the column in which Blackwater marks deletions",
        ),
        ("design_id, design_name, file_location, CAST(design_id AS TEXT) AS file_name", ""),
    ] {
        std::fs::write(&file, format!("SELECT {columns} FROM design")).unwrap();
        says(&world, expected).await;
    }
    std::fs::write(&file, "SELECT design_id,\ncount(*) AS n FROM design").unwrap();
    world.blackwater(&["check"]).await.says(2, &["pack/dim_design.sql:2: models may not use count"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_of_the_warehouse_will_not_work() {
    let world = World::totesys().await;
    let file = world.pack().join("schema.sql");
    let schema = std::fs::read_to_string(&file).unwrap();
    for (from, to, expected) in [
        (
            "dim_staff (",
            "dim_staff ()",
            "error, warehouse: cannot apply the pack's schema.sql:4 to schema public of the warehouse: syntax error",
        ),
        (
            "file_name     varchar",
            "file_name     date",
            "error, warehouse: dim_design: the model returns file_name as text, and the column is date. CAST it",
        ),
        (
            "units_sold                  integer",
            "units_sold boolean",
            "error, warehouse: fact_sales_order: the model returns units_sold as integer, and the column is boolean",
        ),
        ("units_sold                  integer", "units_sold numeric", ""),
        (
            "paid              boolean NOT NULL",
            "paid boolean GENERATED ALWAYS AS (true) STORED",
            "error, warehouse: fact_payment: the model returns paid, which the table computes",
        ),
        (
            "ALTER TABLE dim_staff ADD COLUMN IF NOT EXISTS deleted_at timestamptz",
            "ALTER TABLE dim_staff ADD COLUMN IF NOT EXISTS deleted_at date",
            "error, warehouse: dim_staff: deleted_at marks deletions: it must be timestamptz",
        ),
        (
            "ALTER TABLE dim_staff ADD COLUMN IF NOT EXISTS deleted_at timestamptz;",
            "",
            "advice, warehouse: dim_staff: it has no column deleted_at, so rows that are deleted at the source stay",
        ),
        (
            "ON fact_payment (payment_id)",
            "ON fact_payment (paid, payment_id)",
            "error, warehouse: fact_payment: nothing keeps a key of this history from having two open versions",
        ),
        (
            "fact_payment_open ON fact_payment (payment_id) WHERE valid_to IS NULL",
            "fact_payment_open ON fact_payment (payment_id) WHERE deleted_at IS NULL",
            "error, warehouse: fact_payment: nothing keeps a key of this history from having two open versions",
        ),
        (
            "ADD COLUMN IF NOT EXISTS valid_from timestamptz NOT NULL",
            "ADD COLUMN IF NOT EXISTS valid_from timestamptz",
            "error, warehouse: fact_sales_order: the model returns no unique key of it that is NOT NULL, so it is a history, and its versions need valid_from timestamptz NOT NULL",
        ),
        (
            "ADD COLUMN IF NOT EXISTS valid_from timestamptz NOT NULL",
            "ADD COLUMN IF NOT EXISTS valid_from timestamptz NOT NULL DEFAULT now()",
            "error, warehouse: fact_sales_order: the model returns no unique key of it that is NOT NULL, so it is a history, and its versions need valid_from timestamptz NOT NULL",
        ),
        (
            "ADD COLUMN IF NOT EXISTS valid_to timestamptz CHECK (valid_to > valid_from)",
            "ADD COLUMN IF NOT EXISTS valid_to timestamptz(0)",
            "error, warehouse: fact_sales_order: the model returns no unique key of it that is NOT NULL, so it is a history, and its versions need valid_from timestamptz NOT NULL",
        ),
        (
            "email_address   varchar NOT NULL",
            "email_address varchar UNIQUE",
            "advice, warehouse: dim_staff: it has a further unique key, (email_address)",
        ),
        ("email_address   varchar NOT NULL", "email_address varchar UNIQUE DEFERRABLE INITIALLY DEFERRED", ""),
        (
            "staff_id        integer PRIMARY KEY",
            "staff_id integer, key serial PRIMARY KEY, UNIQUE (staff_id)",
            "error, warehouse: dim_staff: the model returns no unique key of it that is NOT NULL, so it is a history",
        ),
        (
            "staff_id        integer PRIMARY KEY",
            "key serial PRIMARY KEY, staff_id integer NOT NULL UNIQUE, UNIQUE (email_address)",
            "error, warehouse: dim_staff: the model returns two unique keys, (email_address) and (staff_id). Keep one",
        ),
        (
            "staff_id        integer PRIMARY KEY",
            "staff_id smallint PRIMARY KEY",
            "error, warehouse: dim_staff: the key staff_id is integer at the source, and the column is smallint",
        ),
        ("staff_id        integer PRIMARY KEY", "staff_id bigint PRIMARY KEY", ""),
        (
            "CREATE TABLE IF NOT EXISTS dim_counterparty (",
            "CREATE TABLE IF NOT EXISTS dim_counterparty (CHECK (dim_counterparty IS NOT NULL),",
            // Of every row deleted_at is NULL.
            "error, warehouse: dim_counterparty takes none of 20 rows that were tried: the CHECK constraint",
        ),
        (
            "CREATE TABLE IF NOT EXISTS dim_counterparty (",
            "CREATE TABLE IF NOT EXISTS dim_counterparty (CHECK (tableoid > 0),",
            "",
        ),
        (
            "CREATE TABLE IF NOT EXISTS dim_counterparty (",
            "CREATE TABLE IF NOT EXISTS dim_counterparty (parent integer REFERENCES dim_counterparty,",
            "",
        ),
    ] {
        assert!(schema.contains(from), "{from}");
        std::fs::write(&file, schema.replace(from, to)).unwrap();
        says(&world, expected).await;
    }
    let circle = "ALTER TABLE dim_staff ADD far integer REFERENCES dim_counterparty DEFERRABLE INITIALLY DEFERRED;
        ALTER TABLE dim_counterparty ADD near integer REFERENCES dim_staff DEFERRABLE INITIALLY DEFERRED";
    std::fs::write(&file, format!("{schema};{circle}")).unwrap();
    says(&world, "advice, warehouse: the foreign keys of dim_counterparty, dim_staff lead in a circle").await;
    std::fs::write(&file, schema).unwrap();
    world.run().await;
    // Something of somebody's depends on a view that a change of the schema takes down.
    world.warehouse.batch_execute("CREATE VIEW mine AS SELECT * FROM current_fact_payment").await.unwrap();
    says(&world, "").await;
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}\n-- changed\n")).unwrap();
    says(&world, "error, warehouse: cannot make the view \"public\".\"current_fact_payment\"").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_must_not_take_texts_for_the_same_that_differ() {
    let collation = "DO $$ BEGIN IF to_regcollation('ci') IS NULL THEN
        CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false); END IF; END $$;
        CREATE EXTENSION IF NOT EXISTS citext;";
    let star = |kind: &str| {
        format!("{collation} CREATE TABLE IF NOT EXISTS dim_t (id {kind} PRIMARY KEY, v text, deleted_at timestamptz)")
    };
    let source = "CREATE TABLE t (id text PRIMARY KEY, v text)";
    let pack = [("schema.sql", star("text COLLATE ci")), ("dim_t.sql", "SELECT id, v FROM t".into())];
    let world = World::of(source, &pack.each_ref().map(|(file, text)| (*file, text.as_str())), &[]).await;
    let refused = "error, warehouse: dim_t: the key id takes values for the same that differ";
    says(&world, refused).await;
    std::fs::write(world.pack().join("schema.sql"), star("citext")).unwrap();
    says(&world, refused).await;
    world.source.batch_execute("CREATE EXTENSION citext; ALTER TABLE t ALTER id TYPE citext").await.unwrap();
    says(&world, "").await;
    // The key of a row may change its case then.
    world.source.batch_execute("INSERT INTO t VALUES ('a', '1'), ('B', '2')").await.unwrap();
    world.run().await;
    world.source.batch_execute("UPDATE t SET id = upper(id)").await.unwrap();
    world.run().await;
    assert_eq!(world.in_warehouse("SELECT string_agg(id || v, ' ' ORDER BY v) FROM dim_t").await, Some("A1 B2".into()));
    assert_eq!(world.blackwater(&["verify"]).await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_cannot_be_reached_is_named_at_once() {
    let world = World::totesys().await;
    let folder = tempfile::tempdir().unwrap();
    let server = blackwater_local::s3::S3::start(folder.path(), &[]).await.unwrap();
    world.configure(
        "postgres://u:s3cret@127.0.0.1:1/source?sslmode=disable",
        "postgres://u:s3cret@127.0.0.1:1/warehouse?sslmode=disable",
        &format!("endpoint = \"{}\"", server.endpoint()),
    );
    let found = findings(&world, 3).await;
    for expected in [
        "error, source: cannot connect to 127.0.0.1:1/source as u",
        "error, buckets: bucket test-ingestion does not exist",
        "error, buckets: bucket test-processed does not exist",
        "error, warehouse: cannot connect to 127.0.0.1:1/warehouse as u",
    ] {
        assert!(found.iter().any(|line| line.starts_with(expected)), "{expected:?} is not in {found:#?}");
    }
    assert!(!format!("{found:?}").contains("s3cret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_printed_grants_are_what_a_run_needs() {
    let world = World::totesys().await;
    let url = |database: &str, role: &str| world.server.url(database).replace("postgres@", &format!("{role}@"));
    world.source.batch_execute("CREATE ROLE \"a reader\" LOGIN; CREATE ROLE loader LOGIN").await.unwrap();
    world.configure(&url("source", "a%20reader"), &url("warehouse", "loader"), "directory = \"buckets\"");
    let text = std::fs::read_to_string(world.configuration()).unwrap();
    std::fs::write(
        world.configuration(),
        text.replace("[ingestion]", "schema = \"Star\"\nreaders = [\"quicksight\"]\n[ingestion]"),
    )
    .unwrap();
    world.warehouse.batch_execute("REVOKE ALL ON DATABASE warehouse FROM PUBLIC").await.unwrap();
    world
        .source
        .batch_execute("REVOKE ALL ON DATABASE source FROM PUBLIC; REVOKE ALL ON SCHEMA public FROM PUBLIC")
        .await
        .unwrap();
    assert_eq!(findings(&world, 3).await.len(), 2);
    let finished = world.blackwater(&["check", "--grants"]).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let (source, warehouse) = finished.stdout.split_once("\n\n").unwrap();
    world.source.batch_execute("DROP ROLE \"a reader\", loader").await.unwrap();
    world.source.batch_execute(source).await.unwrap();
    world.warehouse.batch_execute(warehouse).await.unwrap();
    says(&world, "").await;
    world.run().await;
    world.source.batch_execute("DELETE FROM payment; UPDATE design SET file_name = 'x'").await.unwrap();
    world.run().await;
    says(&world, "").await;
    world.warehouse.batch_execute("SET ROLE quicksight").await.unwrap();
    assert_eq!(world.in_warehouse("SELECT count(*) FROM \"Star\".current_fact_payment").await, Some("0".into()));
    world.warehouse.batch_execute("RESET ROLE").await.unwrap();

    for (database, revoke, again, expected) in [
        (
            &world.source,
            "REVOKE SELECT ON address FROM \"a reader\"",
            "GRANT SELECT ON address TO \"a reader\"",
            "error, source: source table address: this role may not read it",
        ),
        (
            &world.source,
            "ALTER TABLE address ENABLE ROW LEVEL SECURITY",
            "ALTER TABLE address DISABLE ROW LEVEL SECURITY",
            "error, source: source table address: row-level security applies",
        ),
        (
            &world.warehouse,
            "ALTER TABLE \"Star\".dim_design OWNER TO postgres",
            "SELECT",
            "error, warehouse: dim_design: this role may not write it",
        ),
        (
            &world.warehouse,
            "REVOKE TEMPORARY ON DATABASE warehouse FROM loader",
            "SELECT",
            "error, warehouse: this role may not make temporary tables",
        ),
    ] {
        database.batch_execute(revoke).await.unwrap();
        says(&world, expected).await;
        database.batch_execute(again).await.unwrap();
    }
}
