//! Values of rows appear in the quarantine's listing, and in no log line and no error.

use blackwater_tests::{Finished, World};

/// A value that only rows contain.
const VALUE: &str = "s3cret-value";

fn is_silent(what: &str, finished: &Finished) {
    let printed = finished.printed();
    assert!(!printed.to_lowercase().contains(VALUE), "{what}: {printed}");
}

/// Runs `run` and `load` with all log lines: neither shows the value. Returns how `run` ended, or `load` if they failed.
async fn nothing_is_shown(world: &World, what: &str) -> Finished {
    let run = world.blackwater(&["run", "-vv"]).await;
    is_silent(what, &run);
    let load = world.blackwater(&["load", "-vv"]).await;
    is_silent(what, &load);
    assert_eq!(run.code, load.code, "{what}");
    if run.code == Some(0) { run } else { load }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_postgres_says_of_a_row_is_shown_in_the_quarantine_alone() {
    // Each star table refuses row 2, and Postgres' message contains its value.
    let refusals = [
        ("text", "v text", "CREATE UNIQUE INDEX IF NOT EXISTS {t}_lower ON {t} (lower(v));", "upper('s3cret-value')"),
        ("text", "v text, CONSTRAINT {t}_apart EXCLUDE (v WITH =)", "", "'s3cret-value'"),
        ("text", "v uuid", "", "'s3cret-value'"),
        ("text", "v text, w text CHECK (w IS NULL)", "w := NEW.v", "'s3cret-value!'"),
        ("text", "v text, w text REFERENCES place", "w := NEW.v", "'s3cret-value!'"),
        ("text", "v text, w numeric(3, 1)", "w := length(NEW.v) * 100", "'s3cret-value!'"),
        ("text", "v text, w integer", "w := NEW.v::integer", "'s3cret-value!'"),
        ("text", "v varchar(3)", "", "'s3cret-value!'"),
        ("text", "v text NOT NULL, w text NOT NULL DEFAULT ''", "w := NULL", "'s3cret-value!'"),
    ];
    let (mut source, mut pack) = (String::new(), Vec::new());
    let mut schema = String::from("CREATE TABLE IF NOT EXISTS place (id text PRIMARY KEY);");
    for (number, (kind, star, after, bad)) in refusals.iter().enumerate() {
        let is_uuid = star.starts_with("v uuid");
        let first = if is_uuid {
            "NULL"
        } else if star.contains("varchar") {
            "'x'"
        } else {
            "'s3cret-value'"
        };
        source.push_str(&format!(
            "CREATE TABLE t{number} (id integer PRIMARY KEY, v {kind}); INSERT INTO t{number} VALUES (1, {first}), (3, NULL), (2, {bad});"
        ));
        if star.contains("v text NOT NULL") {
            source.push_str(&format!("UPDATE t{number} SET v = 'x' WHERE v IS NULL;"));
        }
        let after = match after.split_once(":= ") {
            None => (*after).to_owned(),
            Some(_) => format!(
                "CREATE OR REPLACE FUNCTION {{t}}_make() RETURNS trigger LANGUAGE plpgsql AS
                     $$ BEGIN IF NEW.id = 2 THEN NEW.{after}; END IF; RETURN NEW; END $$;
                 DROP TRIGGER IF EXISTS make ON {{t}};
                 CREATE TRIGGER make BEFORE INSERT OR UPDATE ON {{t}} FOR EACH ROW EXECUTE FUNCTION {{t}}_make();"
            ),
        };
        let sql = format!(
            "CREATE TABLE IF NOT EXISTS {{t}} (id integer PRIMARY KEY, {star}, deleted_at timestamptz); {after}"
        );
        schema.push_str(&sql.replace("{t}", &format!("dim_{number}")));
        pack.push((format!("dim_{number}.sql"), format!("SELECT id, v FROM t{number}")));
    }
    pack.push(("schema.sql".into(), schema));
    let pack: Vec<_> = pack.iter().map(|(file, text)| (file.as_str(), text.as_str())).collect();
    let world = World::of(&source, &pack, &[]).await;
    let run = nothing_is_shown(&world, "rows that are refused").await.report();
    assert!(run["load"]["quarantine"].as_u64() >= Some(refusals.len() as u64), "{run}");
    let entries = world.quarantine_is_all_that_is_held_back().await;
    for number in 0..refusals.len() {
        assert!(entries.iter().any(|entry| entry.starts_with(&format!("dim_{number} id=2: "))), "{entries:#?}");
    }
    is_silent("status", &world.blackwater(&["status", "-vv"]).await);
    is_silent("verify", &world.blackwater(&["verify", "-vv"]).await);
    let shown = world.blackwater(&["quarantine", "show", "dim_0", "2"]).await;
    assert!(shown.stdout.to_lowercase().contains(VALUE), "{shown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_that_stops_load_shows_no_value() {
    let table = "CREATE TABLE IF NOT EXISTS dim_t (id integer PRIMARY KEY, v text, deleted_at timestamptz);
        CREATE TABLE IF NOT EXISTS log (v text CONSTRAINT is_short CHECK (length(v) < 3));";
    let source = "CREATE TABLE t (id integer PRIMARY KEY, v text); INSERT INTO t VALUES (1, 's3cret-value'), (2, 's3cret-value')";
    let model = "SELECT id, v FROM t";
    let world = World::of(source, &[("schema.sql", table), ("dim_t.sql", model)], &[("dim_t", model)]).await;
    world.run_and_agree().await;
    // Errors of schema.sql.
    for (statement, words) in [
        ("CREATE UNIQUE INDEX IF NOT EXISTS dim_t_v ON dim_t (v)", "could not create unique index"),
        ("CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS dim_t_v ON dim_t (v)", "could not create unique index"),
        ("ALTER TABLE dim_t ADD CONSTRAINT apart EXCLUDE (v WITH =)", "could not create exclusion constraint"),
        ("INSERT INTO log SELECT v FROM dim_t", "is_short"),
    ] {
        world.write_schema(&format!("{table}{statement};"));
        world.change("UPDATE t SET id = id + 10").await;
        let finished = nothing_is_shown(&world, statement).await;
        finished.says(1, &[words]);
        is_silent("check", &world.blackwater(&["check", "-vv"]).await);
        world.in_star("DROP INDEX IF EXISTS dim_t_v").await;
    }
    world.write_schema(table);
    world.run().await;
    // A trigger that refuses every row, and puts a value into its detail and its hint.
    world
        .in_star(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 RAISE EXCEPTION 'a fault of the trigger' USING DETAIL = 'Failing row contains (' || NEW.v || ')', HINT = 'Not ' || NEW.v;
             END $$;
             CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON dim_t FOR EACH ROW EXECUTE FUNCTION refuse();",
        )
        .await;
    world.change("INSERT INTO t SELECT i, 's3cret-value ' || i FROM generate_series(100, 2099) i").await;
    nothing_is_shown(&world, "a trigger").await.says(1, &["dim_t", "a fault of the trigger"]);
    is_silent("check", &world.blackwater(&["check", "-vv"]).await);
    world.in_star("DROP TRIGGER refuse ON dim_t").await;
    world.run().await;
    world.agree_on("dim_t WHERE deleted_at IS NULL", model).await;
}
