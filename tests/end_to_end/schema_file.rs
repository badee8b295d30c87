//! schema.sql: statements that cannot run in a transaction, statements that are refused, and a load that is killed half-way.

use std::time::Duration;

use blackwater_tests::World;

const SOURCE: &str = "CREATE TYPE mood AS ENUM ('good', 'bad');
    CREATE TABLE t (id integer PRIMARY KEY, v text, state mood);
    INSERT INTO t VALUES (1, 'a', 'good'), (2, 'b', 'bad')";

const SCHEMA: &str = "DO $$ BEGIN
    IF to_regtype('mood') IS NULL THEN CREATE TYPE mood AS ENUM ('good', 'bad'); END IF;
END $$;
CREATE TABLE IF NOT EXISTS dim_t (id integer PRIMARY KEY, v text, state mood, deleted_at timestamptz);
";

const MODEL: &str = "SELECT id, v, state FROM t";

async fn world() -> World {
    World::of(SOURCE, &[("schema.sql", SCHEMA), ("dim_t.sql", MODEL)], &[("dim_t", MODEL)]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_that_schema_sql_adds_is_there_for_the_batch_that_brings_it() {
    let world = world().await;
    // In the first batch: the same file creates the type, adds the label, and uses it as a default.
    let with = |label: &str| {
        format!(
            "ALTER TYPE mood ADD VALUE IF NOT EXISTS '{label}';
             ALTER TABLE dim_t ADD COLUMN IF NOT EXISTS {label} mood DEFAULT '{label}';\n"
        )
    };
    let first = format!("{SCHEMA}{}", with("new"));
    world.write_schema(&first);
    world.change("ALTER TYPE mood ADD VALUE 'new'").await;
    world.change("INSERT INTO t VALUES (3, 'c', 'new')").await;
    world.run_and_agree().await;
    let defaults = "SELECT string_agg(DISTINCT new::text, ' ') FROM dim_t";
    assert_eq!(world.in_warehouse(defaults).await, Some("new".into()));
    // In a later batch.
    world.write_schema(&format!("{first}{}", with("newer")));
    world.change("ALTER TYPE mood ADD VALUE 'newer' BEFORE 'new'").await;
    world.change("UPDATE t SET state = 'newer' WHERE id = 1").await;
    let report = world.run_and_agree().await;
    assert_eq!(
        (&report["load"]["quarantine"], &report["load"]["schema_waits"]),
        (&0.into(), &false.into()),
        "{report}"
    );
    assert_eq!(world.in_warehouse(&defaults.replace("new", "newer")).await, Some("newer".into()));
    assert_eq!(world.errors().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_that_want_a_transaction_of_their_own_have_one() {
    let world = world().await;
    let words = "
/* BEGIN; /* nested; COMMIT; */ ROLLBACK; */
-- COMMIT; '
CREATE INDEX CONCURRENTLY IF NOT EXISTS dim_t_v ON dim_t (v);
CREATE OR REPLACE FUNCTION twice(n integer) RETURNS integer LANGUAGE plpgsql AS $_a$
BEGIN
    -- COMMIT;
    RETURN $b$2$b$::integer * n;
END $_a$;
CREATE OR REPLACE FUNCTION thrice(n integer) RETURNS integer BEGIN ATOMIC SELECT 1; SELECT 3 * n; END;
ALTER TABLE dim_t ADD COLUMN IF NOT EXISTS \"w; COMMIT\" text DEFAULT 'x; COMMIT; ''y';
ALTER TABLE dim_t ADD COLUMN IF NOT EXISTS x text DEFAULT E'\\'; ROLLBACK; \\\\';
VACUUM (ANALYZE) dim_t;
DO 'BEGIN PERFORM 1; END';
CREATE OR REPLACE VIEW begin AS SELECT CASE WHEN true THEN 1 END AS commit;
DROP INDEX CONCURRENTLY IF EXISTS dim_t_old;
SET LOCAL work_mem = '8MB'; ;;
REINDEX TABLE CONCURRENTLY dim_t;
CREATE INDEX CONCURRENTLY IF NOT EXISTS dim_t_state ON dim_t (state) -- no semicolon at the end";
    // With the first batch, and on tables that have rows.
    for words in [words.to_owned(), format!("{words}\n;CREATE INDEX CONCURRENTLY IF NOT EXISTS dim_t_x ON dim_t (x)")] {
        world.write_schema(&format!("{SCHEMA}{words}"));
        assert_eq!(world.errors().await, [""; 0]);
        world.change("UPDATE t SET v = v || '!'").await;
        world.run_and_agree().await;
        let values = "SELECT \"w; COMMIT\" || x || twice(2) || thrice(3) || commit FROM dim_t, begin WHERE id = 1";
        assert_eq!(world.in_warehouse(values).await, Some("x; COMMIT; 'y'; ROLLBACK; \\491".into()));
    }
    let indexes = "SELECT relname FROM pg_index JOIN pg_class ON oid = indexrelid
        WHERE indrelid = 'dim_t'::regclass AND indisvalid ORDER BY 1";
    assert_eq!(world.listed(indexes).await, "dim_t_pkey dim_t_state dim_t_v dim_t_x");
    assert_eq!(world.run().await["load"]["schema_waits"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_schema_sql_may_not_say_is_refused_with_its_line_before_anything_is_sent() {
    let world = world().await;
    for stage in ["extract", "transform"] {
        world.blackwater(&[stage]).await.report();
    }
    for statement in [
        "COMMIT",
        "/* one */ commit work",
        "BEGIN",
        "begin isolation level serializable",
        "START TRANSACTION",
        "END",
        "ROLLBACK",
        "ABORT",
        "SAVEPOINT here",
        "RELEASE here",
        "PREPARE TRANSACTION 'here'",
        "\\connect elsewhere",
        "COPY dim_t FROM STDIN",
        "SET ROLE somebody",
        "SET SESSION AUTHORIZATION somebody",
        "SET search_path = elsewhere",
        "DISCARD ALL",
    ] {
        world.write_schema(&format!("CREATE TABLE IF NOT EXISTS made (\n    id integer);\n\n{statement};\n{SCHEMA}"));
        let word = statement.trim_start_matches("/* one */ ").split(' ').next().unwrap();
        for command in ["check", "run"] {
            let finished = world.blackwater(&[command]).await;
            let printed = finished.printed();
            let is_refused = finished.code != Some(0)
                && printed.contains("schema.sql:4")
                && printed.to_uppercase().contains(&word.to_uppercase());
            assert!(is_refused, "{command} takes {statement}: {finished:?}");
            let made = world.in_warehouse("SELECT coalesce(to_regclass('made'), to_regclass('dim_t'))").await;
            assert_eq!(made, None, "{command} sent something before {statement}");
        }
    }
    // A quote that does not end is refused too.
    world.write_schema(&format!("{SCHEMA}\nCOMMENT ON TABLE dim_t IS 'of the shop;\n"));
    for command in ["check", "run"] {
        let finished = world.blackwater(&[command]).await;
        assert!(finished.code != Some(0) && finished.printed().contains("schema.sql:6"), "{finished:?}");
    }
    world.write_schema(SCHEMA);
    world.blackwater(&["load"]).await.report();
    world.agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_fails_names_its_line() {
    let world = world().await;
    world.run_and_agree().await;
    for (statement, why) in [
        ("CREATE INDEX IF NOT EXISTS dim_t_nothing ON dim_t (nothing)", "column \"nothing\" does not exist"),
        ("ALTER TABLE dim_t\n    ADD COLUMN IF NOT EXISTS w nothing", "type \"nothing\" does not exist"),
        (
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS dim_t_nothing ON dim_t (nothing)",
            "column \"nothing\" does not exist",
        ),
        ("DO $$ BEGIN\n    PERFORM 1 / 0;\nEND $$", "division by zero"),
        ("ALTER TABEL dim_t ADD w text", "syntax error"),
    ] {
        world.write_schema(&format!(
            "{SCHEMA}\n-- The sixth line; it's a comment.\n{statement};\nCREATE TABLE IF NOT EXISTS late ();"
        ));
        world.change("UPDATE t SET v = v || '!'").await;
        let finished = world.blackwater(&["run"]).await;
        let printed = finished.stdout.replace("\\\"", "\"");
        assert!(finished.code == Some(1) && printed.contains("schema.sql:7") && printed.contains(why), "{finished:?}");
        // A check may not try a statement that cannot be rolled back.
        if !statement.contains("CONCURRENTLY") {
            let findings = world.findings().await.join("\n");
            assert!(findings.contains("schema.sql:7") && findings.contains(why), "{findings}");
        }
        assert_eq!(world.in_warehouse("SELECT to_regclass('late')").await, None);
        assert_eq!(world.in_warehouse("SELECT v FROM dim_t WHERE id = 1").await, Some("a".into()));
    }
    world.write_schema(SCHEMA);
    world.run_and_agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_is_killed_between_two_statements_is_made_good_by_the_next() {
    let world = world().await;
    world.run_and_agree().await;
    world.write_schema(&format!(
        "{SCHEMA}
         ALTER TABLE dim_t ADD COLUMN IF NOT EXISTS w text DEFAULT 'w';
         CREATE INDEX CONCURRENTLY IF NOT EXISTS dim_t_w ON dim_t (w);
         ALTER TABLE dim_t ADD COLUMN IF NOT EXISTS x text DEFAULT 'x';"
    ));
    world.change("UPDATE t SET v = 'z' WHERE id = 2").await;
    // CREATE INDEX CONCURRENTLY waits for older snapshots.
    let other = world.warehouse_session().await;
    other.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").await.unwrap();
    let mut program = world.spawn(&["run"]);
    let waits = "FROM pg_stat_activity WHERE query ILIKE '%INDEX CONCURRENTLY%' AND application_name LIKE 'blackwater%'
        AND wait_event_type = 'Lock'";
    let is_waiting = format!("SELECT count(*) > 0 {waits}");
    tokio::select! {
        ended = program.wait() => panic!("it ended before it was killed: {ended:?}"),
        () = world.wait_until(&is_waiting) => program.kill().await.unwrap(),
    }
    // The index exists and is invalid.
    world.in_star(&format!("SELECT pg_terminate_backend(pid) {waits}")).await;
    world.wait_until("SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name LIKE 'blackwater%'").await;
    other.batch_execute("COMMIT").await.unwrap();
    let valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'dim_t_w'::regclass";
    assert_eq!(world.in_warehouse(valid).await, Some("f".into()));
    let finished = tokio::time::timeout(Duration::from_secs(60), world.blackwater(&["run"])).await.unwrap();
    finished.report();
    world.agree().await;
    assert_eq!(world.in_warehouse("SELECT w || x FROM dim_t WHERE id = 2").await, Some("wx".into()));
    assert_eq!(world.in_warehouse(valid).await, Some("t".into()));
    assert_eq!(world.run().await["load"]["schema_waits"], false);
}
