//! `blackwater check` tries what the first batch would do, reports what fails, and leaves nothing behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use blackwater_tests::World;

const SOURCE: &str = "CREATE TABLE t (id integer PRIMARY KEY, v text);
    INSERT INTO t VALUES (1, 'one'), (2, 'two'), (3, 'bad'), (4, 'four'), (5, NULL)";

const MODEL: &str = "SELECT id, v FROM t";

const DIMENSION: &str = "CREATE TABLE IF NOT EXISTS dim_t (id integer PRIMARY KEY, v text, deleted_at timestamptz);";

const HISTORY: &str = "CREATE TABLE IF NOT EXISTS fact_t (record bigserial PRIMARY KEY, id integer NOT NULL, v text,
    deleted_at timestamptz); CREATE INDEX IF NOT EXISTS fact_t_id ON fact_t (id);";

/// A world with a dimension and a history of one source table.
async fn world() -> World {
    let schema = format!("{DIMENSION}{HISTORY}");
    let pack = [("schema.sql", schema.as_str()), ("dim_t.sql", MODEL), ("fact_t.sql", MODEL)];
    World::of(SOURCE, &pack, &[("dim_t", MODEL), ("current_fact_t", MODEL)]).await
}

/// Digests of the warehouse's catalogue and of all its tables.
async fn contents(world: &World) -> Vec<Option<String>> {
    let mut all = Vec::new();
    let catalogue = [
        "oid, relname, relkind, relnatts, relchecks, relhastriggers, relhasrules, relpersistence, relacl FROM pg_class",
        "attrelid, attname, atttypid, atttypmod, attnotnull, attidentity, attgenerated, attisdropped FROM pg_attribute",
        "oid, proname, prosrc FROM pg_proc",
        "oid, typname FROM pg_type",
        "oid, conname, convalidated FROM pg_constraint",
        "oid, tgname, tgenabled FROM pg_trigger",
        "oid, nspname, nspacl FROM pg_namespace",
        "indexrelid, indisvalid FROM pg_index",
        "oid, enumlabel FROM pg_enum",
    ];
    let digest = |what: &str| {
        format!("SELECT md5(coalesce(string_agg(t::text, '|' ORDER BY t::text), '')) FROM (SELECT {what}) t")
    };
    for what in catalogue {
        all.push(world.in_warehouse(&digest(what)).await);
    }
    let tables = "SELECT oid::regclass FROM pg_class WHERE relkind = 'r' AND oid >= 16384 ORDER BY 1";
    for table in world.listed(tables).await.split_whitespace() {
        all.push(world.in_warehouse(&digest(&format!("* FROM {table}"))).await);
    }
    all
}

/// Runs a check, which must leave nothing behind, and returns its findings.
async fn check(world: &World) -> Vec<String> {
    let (before, objects) = (contents(world).await, world.objects());
    let findings = world.findings().await;
    assert_eq!(contents(world).await, before, "something is left behind in the warehouse");
    assert_eq!(world.objects(), objects, "something is left behind in the buckets");
    findings
}

/// The SQL of a trigger on a star table, with this body.
fn trigger(table: &str, when: &str, body: &str) -> String {
    format!(
        "CREATE OR REPLACE FUNCTION {table}_refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NEW; END $$;
         DROP TRIGGER IF EXISTS refuse ON {table};
         CREATE TRIGGER refuse {when} ON {table} FOR EACH ROW EXECUTE FUNCTION {table}_refuse();"
    )
}

/// Reads the star tables again and again until `work` is done. No read waits longer than three seconds for a lock.
async fn read_meanwhile<T>(world: &World, work: impl Future<Output = T>) -> T {
    let reader = world.warehouse_session().await;
    reader.batch_execute("SET lock_timeout = '3s'").await.unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let reading = {
        let is_over = Arc::clone(&is_over);
        tokio::spawn(async move {
            while !is_over.load(Ordering::SeqCst) {
                reader.batch_execute("SELECT count(*) FROM dim_t; SELECT count(*) FROM fact_t").await.map_err(
                    |error| {
                        format!(
                            "a reader was held up: {}",
                            error.as_db_error().map_or_else(|| error.to_string(), |e| e.message().into())
                        )
                    },
                )?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok::<_, String>(())
        })
    };
    let done = work.await;
    is_over.store(true, Ordering::SeqCst);
    reading.await.unwrap().unwrap();
    done
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_of_a_changed_table_neither_waits_for_its_readers_nor_holds_them_up() {
    let world = world().await;
    world.run().await;
    let reader = world.warehouse_session().await;
    reader.batch_execute("BEGIN; SELECT count(*) FROM dim_t").await.unwrap();
    world.write_schema(&format!("{DIMENSION}{HISTORY} ALTER TABLE dim_t ADD COLUMN IF NOT EXISTS w text;"));
    let checked = async { tokio::time::timeout(Duration::from_secs(15), check(&world)).await.expect("it hangs") };
    let findings = read_meanwhile(&world, checked).await;
    let says_so = |finding: &String| finding.to_lowercase().contains("lock");
    assert!(findings.iter().any(says_so), "{findings:#?}");
    reader.batch_execute("COMMIT").await.unwrap();
    let findings = check(&world).await;
    assert!(!findings.iter().any(says_so), "{findings:#?}");

    // It does not keep its locks while a slow trigger runs.
    world.change("INSERT INTO t SELECT i, 'more' FROM generate_series(10, 300) i").await;
    world.in_star(&trigger("dim_t", "BEFORE INSERT OR UPDATE", "PERFORM pg_sleep(0.1);")).await;
    let checked = async { tokio::time::timeout(Duration::from_secs(60), check(&world)).await.expect("it hangs") };
    read_meanwhile(&world, checked).await;
}
