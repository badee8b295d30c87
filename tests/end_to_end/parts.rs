//! A batch that a function has no time for is applied in parts, also if somebody else goes on with it.

use std::time::{Duration, Instant};

use blackwater_local::s3::S3;
use blackwater_tests::{BUCKETS, World};
use serde_json::json;

const MODEL: &str = "SELECT id, v FROM t";

/// Each row takes its time, and the hundredth is refused.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS dim_t (id integer PRIMARY KEY, v text, deleted_at timestamptz);
    CREATE TABLE IF NOT EXISTS fact_t (record bigserial PRIMARY KEY, valid_from timestamptz NOT NULL, valid_to timestamptz, id integer NOT NULL, v text, deleted_at timestamptz);
    CREATE UNIQUE INDEX IF NOT EXISTS fact_t_open ON fact_t (id) WHERE valid_to IS NULL;
    CREATE OR REPLACE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        PERFORM pg_sleep(0.003);
        IF NEW.id = 100 THEN RAISE EXCEPTION 'not this one'; END IF;
        RETURN NEW;
    END $$;
    DROP TRIGGER IF EXISTS slow ON dim_t;
    CREATE TRIGGER slow BEFORE INSERT ON dim_t FOR EACH ROW EXECUTE FUNCTION slow();";

const FAST: &str = "ALTER TABLE dim_t DISABLE TRIGGER slow;
    CREATE OR REPLACE FUNCTION quick() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.id = 100 THEN RAISE EXCEPTION 'not this one'; END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER quick BEFORE INSERT OR UPDATE ON dim_t FOR EACH ROW EXECUTE FUNCTION quick()";

/// A world in which some rows of its first batch are written, by a function that had no time for more.
async fn partly_applied() -> World {
    let pack = [("schema.sql", SCHEMA), ("dim_t.sql", MODEL), ("fact_t.sql", MODEL)];
    let source = "CREATE TABLE t (id integer PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 1500) i";
    let world = World::of(source, &pack, &[("current_fact_t", MODEL)]).await;
    world.blackwater(&["extract"]).await.report();
    world.blackwater(&["transform"]).await.report();
    let server = S3::start(&world.buckets(), &BUCKETS).await.unwrap();
    let function = world.function("load", &server, Duration::from_secs(3)).await;
    for _ in 0..10 {
        let _ = function.invoke(json!({})).await;
        let rows = world.in_warehouse("SELECT count(*) FROM dim_t").await.unwrap().parse::<u64>().unwrap();
        if rows > 100 {
            assert!(rows < 1499, "it is all applied");
            assert_eq!(world.in_warehouse("SELECT count(*) FROM blackwater.ledger").await, Some("0".into()));
            world.in_star(FAST).await;
            return world;
        }
    }
    panic!("nothing is applied");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_without_a_deadline_goes_on_with_a_batch_that_is_partly_applied() {
    let world = partly_applied().await;
    let report = world.blackwater(&["load"]).await.report();
    assert_eq!((&report["applied"], &report["quarantine"]), (&json!(1), &json!(1)), "{report}");
    let dim =
        report["batches"][0]["tables"].as_array().unwrap().iter().find(|table| table["table"] == "dim_t").unwrap();
    assert_eq!((&dim["inserted"], &dim["quarantined"]), (&json!(1499), &json!(1)), "all parts count: {report}");
    assert_eq!(world.quarantine_is_all_that_is_held_back().await, ["dim_t id=100: not this one"]);
    world.agree().await;
    world.agree_on("dim_t", &format!("{MODEL} WHERE id <> 100")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_partly_applied_begins_anew_with_another_pack() {
    let world = partly_applied().await;
    let model = "SELECT id, v || '!' AS v FROM t";
    std::fs::write(world.pack().join("dim_t.sql"), model).unwrap();
    world.run().await;
    assert_eq!(world.quarantine_is_all_that_is_held_back().await, ["dim_t id=100: not this one"]);
    world.agree().await;
    world.agree_on("dim_t", &format!("{model} WHERE id <> 100")).await;
    assert_eq!(world.in_warehouse("SELECT count(*) FROM blackwater.partly").await, Some("0".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_takes_longer_than_a_function_may_says_how_to_go_on() {
    let schema = "CREATE TABLE IF NOT EXISTS dim_t (id integer PRIMARY KEY, v text, deleted_at timestamptz);
        CREATE TABLE IF NOT EXISTS other AS SELECT pg_sleep(6) IS NULL AS slept";
    let pack = [("schema.sql", schema), ("dim_t.sql", MODEL)];
    let source = "CREATE TABLE t (id integer PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'one')";
    let world = World::of(source, &pack, &[("dim_t", MODEL)]).await;
    world.blackwater(&["extract"]).await.report();
    world.blackwater(&["transform"]).await.report();
    let server = S3::start(&world.buckets(), &BUCKETS).await.unwrap();
    let timeout = Duration::from_secs(3);
    let function = world.function("load", &server, timeout).await;
    let began = Instant::now();
    let error = function.invoke(json!({})).await.unwrap_err();
    assert!(began.elapsed() < timeout, "Lambda would have ended it");
    assert_eq!(error["errorType"], "LateSchema", "{error}");
    assert!(error["errorMessage"].as_str().unwrap().contains("--schema-applied"), "{error}");
    world.run_and_agree().await;
}
