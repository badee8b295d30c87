//! The large tables of a batch, and of the next one, are staged by a second session while the first writes.

use blackwater_tests::World;
use serde_json::{Value, json};
use tokio::process::Child;
use tokio_postgres::Client;

const SCHEMA: &str = "
    DO $$ BEGIN CREATE TYPE mood AS ENUM ('good'); EXCEPTION WHEN duplicate_object THEN END $$;
    CREATE TABLE IF NOT EXISTS dim_s (id integer PRIMARY KEY, v text, deleted_at timestamptz);
    CREATE TABLE IF NOT EXISTS dim_t (id integer PRIMARY KEY, v text, m mood, deleted_at timestamptz);
    CREATE TABLE IF NOT EXISTS fact_t (id integer NOT NULL, v text, m mood, valid_from timestamptz NOT NULL, valid_to timestamptz);
    CREATE UNIQUE INDEX IF NOT EXISTS fact_t_open ON fact_t (id) WHERE valid_to IS NULL";

/// A world in which the first batch is applied.
async fn world() -> World {
    let source = "CREATE TYPE mood AS ENUM ('good', 'bad'); CREATE TABLE s (id integer PRIMARY KEY, v text);
        CREATE TABLE t (id integer PRIMARY KEY, v text, m mood); INSERT INTO s VALUES (1, 'a'); INSERT INTO t VALUES (0, 'v', 'good')";
    let (of_s, of_t) = ("SELECT id, v FROM s", "SELECT id, v, m FROM t");
    let pack = [("schema.sql", SCHEMA), ("dim_s.sql", of_s), ("dim_t.sql", of_t), ("fact_t.sql", of_t)];
    let world = World::of(source, &pack, &[("dim_s", of_s), ("dim_t", of_t), ("current_fact_t", of_t)]).await;
    world.run_and_agree().await;
    world
}

/// Makes a batch that changes `dim_s`, and has so many new rows for the tables that are written after it.
async fn make_batch(world: &World, number: i32) {
    let rows = format!("{} AND {}", number * 20_000, number * 20_000 + 19_999);
    let change = format!(
        "UPDATE s SET v = v || 'a';
         INSERT INTO t SELECT i, 'v' || i, 'good' FROM generate_series(1, 100000) i WHERE i BETWEEN {rows};
         UPDATE t SET v = v || '!' WHERE id = 0"
    );
    world.change(&change).await;
    world.blackwater(&["extract"]).await.report();
    world.blackwater(&["transform"]).await.report();
}

/// Starts a load that waits for a row of `dim_s`, until tables of a batch are staged ahead.
async fn load_that_waits(world: &World, batch: u64, tables: u64) -> (Child, Client) {
    let other = world.warehouse_session().await;
    other.batch_execute("BEGIN; SELECT FROM dim_s FOR UPDATE").await.unwrap();
    let load = world.spawn(&["load"]);
    world.wait_until(&format!("SELECT count(*) = {tables} FROM blackwater.staged WHERE batch = {batch}")).await;
    (load, other)
}

/// The report of a load after which nothing is left of what was staged.
async fn ended(world: &World, load: Child) -> Value {
    let output = load.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    nothing_is_left(world).await;
    world.agree().await;
    serde_json::from_slice(&output.stdout).unwrap()
}

async fn nothing_is_left(world: &World) {
    assert_eq!(world.listed("SELECT relname FROM pg_class WHERE relname ~ '^staged_[0-9]+$'").await, "");
    assert_eq!(world.listed("SELECT id::text FROM blackwater.staged").await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_batch_is_staged_while_this_one_is_written() {
    let world = world().await;
    make_batch(&world, 1).await;
    make_batch(&world, 2).await;
    let (load, other) = load_that_waits(&world, 3, 1).await;
    other.batch_execute("COMMIT").await.unwrap();
    let report = ended(&world, load).await;
    assert_eq!(report["applied"], 3);
    let counts = |batch: usize| &report["batches"][batch]["tables"];
    for batch in [0, 1] {
        let inserted = counts(batch).as_array().unwrap().iter().map(|table| &table["inserted"]).collect::<Vec<_>>();
        assert_eq!(inserted, [&json!(0), &json!(20_000), &json!(20_001)], "{report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_load_has_dropped_is_staged_again() {
    let world = world().await;
    make_batch(&world, 1).await;
    let (load, other) = load_that_waits(&world, 2, 2).await;
    let tables = world.listed("SELECT format('blackwater.staged_%s', id) FROM blackwater.staged ORDER BY id").await;
    let (first, second) = tables.split_once(' ').unwrap();
    world.in_star(&format!("DROP TABLE {first}; TRUNCATE {second}")).await;
    other.batch_execute("COMMIT").await.unwrap();
    assert_eq!(ended(&world, load).await["applied"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_load_has_staged_is_dropped_by_the_next_before_schema_sql() {
    let world = world().await;
    make_batch(&world, 1).await;
    let (mut load, other) = load_that_waits(&world, 2, 2).await;
    load.kill().await.unwrap();
    other.batch_execute("COMMIT").await.unwrap();
    world.wait_until("SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'blackwater load'").await;
    assert_eq!(world.in_warehouse("SELECT count(*) FROM blackwater.staged").await, Some("2".into()));
    // It would be refused while a staging table has a column of the type.
    let change =
        "DROP VIEW IF EXISTS current_fact_t; ALTER TABLE dim_t ALTER m TYPE text; ALTER TABLE fact_t ALTER m TYPE text;
                  DROP TYPE IF EXISTS mood";
    world.write_schema(&format!("{SCHEMA}; {change}"));
    world.blackwater(&["transform"]).await.report();
    assert_eq!(ended(&world, world.spawn(&["load"])).await["applied"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_fails_again_and_again_leaves_no_more_than_one_run_has_staged() {
    let world = world().await;
    make_batch(&world, 1).await;
    let refuse = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
                  CREATE TRIGGER refuse BEFORE INSERT ON fact_t FOR EACH ROW EXECUTE FUNCTION refuse()";
    world.in_star(refuse).await;
    for _ in 0..3 {
        world.blackwater(&["load"]).await.says(1, &["the table takes no row"]);
        assert_eq!(world.in_warehouse("SELECT count(*) <= 2 FROM blackwater.staged").await, Some("t".into()));
    }
    world.in_star("DROP TRIGGER refuse ON fact_t").await;
    assert_eq!(ended(&world, world.spawn(&["load"])).await["applied"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_table_with_a_row_that_does_not_fit_is_staged_by_the_session_that_writes() {
    let world = world().await;
    world.change("INSERT INTO t VALUES (-1, 'v', 'bad')").await;
    make_batch(&world, 1).await;
    make_batch(&world, 2).await;
    let report = world.blackwater(&["load"]).await.report();
    assert_eq!((&report["applied"], &report["quarantine"]), (&json!(3), &json!(2)));
    nothing_is_left(&world).await;
    world.change("UPDATE t SET m = 'good' WHERE id = -1").await;
    world.run_and_agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_may_have_no_second_session_stages_for_itself() {
    let world = world().await;
    make_batch(&world, 1).await;
    world
        .in_star("CREATE ROLE few LOGIN CONNECTION LIMIT 1 IN ROLE postgres; ALTER ROLE few SET role = postgres")
        .await;
    let warehouse = world.server.url("warehouse").replace("postgres@", "few@");
    world.configure(&world.server.url("source"), &warehouse, "directory = \"buckets\"");
    let loaded = world.blackwater(&["-vv", "load"]).await;
    assert_eq!(loaded.report()["applied"], 2);
    for words in ["not staged ahead", "too many connections for role"] {
        assert!(loaded.stderr.contains(words), "{}", loaded.stderr);
    }
    nothing_is_left(&world).await;
    world.agree().await;
}
