//! `blackwater check` tries what the first batch would do, reports what fails, and leaves nothing behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use blackwater_local::s3::S3;
use blackwater_tests::{BUCKETS, OverwritingS3, World};

const SOURCE: &str = "CREATE TABLE t (id integer PRIMARY KEY, v text);
    INSERT INTO t VALUES (1, 'one'), (2, 'two'), (3, 'bad'), (4, 'four'), (5, NULL)";

const MODEL: &str = "SELECT id, v FROM t";

const DIMENSION: &str = "CREATE TABLE IF NOT EXISTS dim_t (id integer PRIMARY KEY, v text, deleted_at timestamptz);";

const HISTORY: &str = "CREATE TABLE IF NOT EXISTS fact_t (record bigserial PRIMARY KEY, valid_from timestamptz NOT NULL, valid_to timestamptz, id integer NOT NULL, v text,
    deleted_at timestamptz); CREATE UNIQUE INDEX IF NOT EXISTS fact_t_open ON fact_t (id) WHERE valid_to IS NULL;";

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

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_with_the_first_batch_is_named_before_it() {
    let world = world().await;
    let instead = |dimension: &str| format!("CREATE TABLE IF NOT EXISTS dim_t ({dimension}); {HISTORY}");
    let beside = |more: &str| format!("{DIMENSION}{HISTORY}{more}");
    const BEFORE: &str = "BEFORE INSERT OR UPDATE";
    let refuses = "IF NEW.v = 'bad' THEN RAISE EXCEPTION 'no bad ones'; END IF;";
    let fails = "PERFORM no_such_function(NEW.v);";
    let writes = "INSERT INTO no_such_table VALUES (NEW.id);";
    // A table that no row fits is an error. Where only some rows fail, the finding may have any level.
    for (schema, level, words) in [
        (
            instead("id integer PRIMARY KEY, v text, deleted_at timestamptz DEFAULT now()"),
            "error",
            vec!["dim_t", "deleted_at", "default"],
        ),
        (
            instead("id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text, deleted_at timestamptz"),
            "error",
            vec!["dim_t", "id", "identity"],
        ),
        (
            instead("id integer, v text, deleted_at timestamptz, PRIMARY KEY (id) DEFERRABLE"),
            "error",
            vec!["dim_t", "deferrable"],
        ),
        (
            instead("id integer NOT NULL UNIQUE DEFERRABLE INITIALLY DEFERRED, v text, deleted_at timestamptz"),
            "error",
            vec!["dim_t", "deferrable"],
        ),
        (beside(&trigger("dim_t", BEFORE, refuses)), "", vec!["dim_t", "no bad ones"]),
        (beside(&trigger("fact_t", "AFTER INSERT", refuses)), "", vec!["fact_t", "no bad ones"]),
        (beside(&trigger("dim_t", BEFORE, fails)), "error", vec!["dim_t", "no_such_function"]),
        (beside(&trigger("fact_t", "AFTER INSERT", writes)), "error", vec!["fact_t", "no_such_table"]),
        (beside(&trigger("dim_t", BEFORE, "RETURN NULL;")), "", vec!["dim_t", "trigger"]),
        (
            instead(
                "id integer PRIMARY KEY, v text, w integer GENERATED ALWAYS AS (10 / (id - 3)) STORED, deleted_at timestamptz",
            ),
            "",
            vec!["dim_t", "division by zero"],
        ),
        (
            format!(
                "CREATE OR REPLACE FUNCTION mark() RETURNS integer LANGUAGE plpgsql AS $$ BEGIN RETURN (SELECT no_such_column); END $$; {}",
                instead("id integer PRIMARY KEY, v text, w integer DEFAULT mark(), deleted_at timestamptz")
            ),
            "error",
            vec!["dim_t", "no_such_column"],
        ),
    ] {
        world.write_schema(&schema);
        let findings = check(&world).await;
        let is_named = |finding: &String| {
            let text = finding.to_lowercase();
            text.starts_with(level) && words.iter().all(|word| text.contains(word))
        };
        assert!(findings.iter().any(is_named), "{level} {words:?} is not in {findings:#?}, of {schema}");
        assert!(!findings.iter().any(|finding| finding.contains("no primary or unique key")), "{findings:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_tried_though_what_they_refer_to_is_not_in_the_sample() {
    let source = "CREATE TABLE place (id integer PRIMARY KEY, since date);
        CREATE TABLE sale (id integer PRIMARY KEY, place integer REFERENCES place, units integer, at date);
        INSERT INTO place SELECT i, date '2024-01-01' FROM generate_series(1, 1000) i;
        INSERT INTO sale SELECT i, 1001 - i, i % 50, date '2024-01-01' FROM generate_series(1, 1000) i;
        UPDATE place SET since = '0044-03-15 BC' WHERE id = 7;
        CLUSTER place USING place_pkey";
    let schema = "CREATE TABLE IF NOT EXISTS dim_place (id integer PRIMARY KEY, day date, deleted_at timestamptz);
        CREATE TABLE IF NOT EXISTS fact_sale (id integer PRIMARY KEY, place integer REFERENCES dim_place, part integer
            GENERATED ALWAYS AS (100 / units) STORED, units integer, deleted_at timestamptz)";
    let pack = [
        ("schema.sql", schema),
        ("dim_place.sql", "SELECT id, CAST(since AS date) AS day FROM place"),
        ("fact_sale.sql", "SELECT id, place, units FROM sale"),
    ];
    let world = World::of(source, &pack, &[]).await;
    let refused = |findings: Vec<String>, table: &str| {
        let finding = findings.iter().find(|finding| finding.contains(table)).cloned();
        finding.unwrap_or_else(|| panic!("{findings:#?}"))
    };
    // The first hundred sales refer to places that are not among the first hundred.
    let findings = check(&world).await;
    assert_eq!(findings.len(), 2, "{findings:#?}");
    let place = refused(findings.clone(), "dim_place");
    assert!(place.starts_with("advice, warehouse: dim_place refuses 1 of 100 rows"), "{place}");
    let sale = refused(findings, "fact_sale");
    assert!(sale.starts_with("advice, warehouse: fact_sale refuses 2 of 100 rows"), "{sale}");
    assert!(sale.contains("division by zero"), "{sale}");
    // What a run makes of it.
    world.run().await;
    let entries = world.quarantine().await;
    assert_eq!(entries.iter().filter(|entry| entry.starts_with("dim_place")).count(), 1, "{entries:#?}");
    assert_eq!(entries.iter().filter(|entry| entry.contains("division by zero")).count(), 20, "{entries:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_works_with_the_first_batch_is_no_error() {
    let world = world().await;
    let audit = "CREATE TABLE IF NOT EXISTS audit_log (at timestamptz DEFAULT now(), what text);";
    let writes = "INSERT INTO audit_log (what) VALUES (NEW.v);";
    world.write_schema(&format!(
        "CREATE TABLE IF NOT EXISTS dim_t (id integer GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, v text,
             changed timestamptz DEFAULT now(), deleted_at timestamptz DEFAULT NULL);
         {HISTORY}{audit}{}{}",
        trigger("dim_t", "BEFORE INSERT OR UPDATE", writes),
        trigger("fact_t", "AFTER INSERT", writes)
    ));
    assert!(!check(&world).await.iter().any(|finding| finding.starts_with("error")));
    world.run_and_agree().await;
    assert!(!check(&world).await.iter().any(|finding| finding.starts_with("error")));
    // The trigger breaks later, and the next batch would fail.
    world.in_star("ALTER TABLE audit_log RENAME TO log_of_audits").await;
    let findings = check(&world).await;
    let is_named = |finding: &String| finding.starts_with("error") && finding.contains("audit_log");
    assert!(findings.iter().any(is_named), "{findings:#?}");
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

#[tokio::test(flavor = "multi_thread")]
async fn an_s3_that_overwrites_what_it_should_refuse_is_named() {
    let world = world().await;
    let server = S3::start(&world.buckets(), &BUCKETS).await.unwrap();
    let port = server.endpoint().rsplit_once(':').unwrap().1.parse().unwrap();
    let overwriting = OverwritingS3::start(port, world.buckets()).await;
    let (source, warehouse) = (world.server.url("source"), world.server.url("warehouse"));
    let overwrites = |finding: &String| finding.starts_with("error, buckets: ") && finding.contains("If-None-Match");
    world.configure(&source, &warehouse, &format!("endpoint = \"http://{}\"", overwriting.address));
    let findings = world.findings().await;
    for bucket in BUCKETS {
        let is_named = findings.iter().any(|finding| overwrites(finding) && finding.contains(bucket));
        assert!(is_named, "{bucket} is not in {findings:#?}");
    }
    world.configure(&source, &warehouse, &format!("endpoint = \"{}\"", server.endpoint()));
    let findings = world.findings().await;
    assert!(!findings.iter().any(overwrites), "{findings:#?}");
    world.run_and_agree().await;
    let findings = world.findings().await;
    assert!(!findings.iter().any(overwrites), "{findings:#?}");
}
