//! A large batch takes foreign keys down while it is written, and puts them back.

use std::sync::Arc;

use blackwater_tests::{KillSwitch, Proxy, World};
use serde_json::Value;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS dim_a (id integer PRIMARY KEY, deleted_at timestamptz);
    CREATE TABLE IF NOT EXISTS dim_b (code text PRIMARY KEY, deleted_at timestamptz);
    CREATE TABLE IF NOT EXISTS dim_t (id integer PRIMARY KEY, v text, a integer REFERENCES dim_a, deleted_at timestamptz);
    CREATE TABLE IF NOT EXISTS fact_t (id integer NOT NULL, v text,
        a integer CONSTRAINT \"To a\" REFERENCES dim_a ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED,
        b text CONSTRAINT to_b REFERENCES dim_b ON UPDATE CASCADE,
        c integer, valid_from timestamptz NOT NULL, valid_to timestamptz, deleted_at timestamptz);
    CREATE UNIQUE INDEX IF NOT EXISTS fact_t_open ON fact_t (id) WHERE valid_to IS NULL;
    COMMENT ON CONSTRAINT \"To a\" ON fact_t IS 'it''s a key';
    DO $$ BEGIN
        IF NOT EXISTS (SELECT FROM pg_constraint WHERE conname = 'to_c') THEN
            ALTER TABLE fact_t ADD CONSTRAINT to_c FOREIGN KEY (c) REFERENCES dim_a NOT VALID;
        END IF;
    END $$";

/// The foreign keys with all that is known of them.
const KEYS: &str = "SELECT string_agg(concat_ws(' ', conrelid::regclass, conname, pg_get_constraintdef(oid), convalidated,
        obj_description(oid, 'pg_constraint')), '; ' ORDER BY conrelid::regclass::text, conname) FROM (SELECT * FROM pg_constraint WHERE contype = 'f') o";

/// A world with few rows, in which dropped constraints are noted.
async fn world() -> World {
    let source = "CREATE TABLE a (id integer PRIMARY KEY); CREATE TABLE b (code text PRIMARY KEY);
        CREATE TABLE t (id integer PRIMARY KEY, v text, a integer, b text, c integer);
        INSERT INTO a SELECT generate_series(0, 9); INSERT INTO b SELECT 'b' || i FROM generate_series(0, 9) i;
        INSERT INTO t SELECT i, 'v', i % 10, 'b' || i % 10, i % 10 FROM generate_series(1, 20) i";
    let (dim, fact) = ("SELECT id, v, a FROM t", "SELECT id, v, a, b, c FROM t");
    let pack = [
        ("schema.sql", SCHEMA),
        ("dim_a.sql", "SELECT id FROM a"),
        ("dim_b.sql", "SELECT code FROM b"),
        ("dim_t.sql", dim),
        ("fact_t.sql", fact),
    ];
    let world = World::of(source, &pack, &[("dim_t", dim), ("current_fact_t", fact)]).await;
    world.run_and_agree().await;
    let note = "CREATE TABLE dropped (name text);
        CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO public.dropped SELECT object_identity FROM pg_event_trigger_dropped_objects()
            WHERE object_type = 'table constraint';
        END $$;
        CREATE EVENT TRIGGER note ON sql_drop EXECUTE FUNCTION note()";
    world.warehouse.batch_execute(note).await.unwrap();
    world
}

async fn dropped(world: &World) -> String {
    world.in_warehouse("SELECT count(*) FROM dropped").await.unwrap()
}

/// Source rows from one number to another, which fit.
async fn insert(world: &World, rows: std::ops::RangeInclusive<i32>) {
    let (first, last) = rows.into_inner();
    let rows =
        format!("INSERT INTO t SELECT i, 'new', i % 10, 'b' || i % 10, i % 10 FROM generate_series({first}, {last}) i");
    world.change(&rows).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_batch_takes_foreign_keys_down_and_puts_them_back_as_they_were() {
    let world = world().await;
    let keys = world.in_warehouse(KEYS).await;
    insert(&world, 101..=21_000).await;
    // What refers to nothing is set aside all the same; what refers to a row of the same batch is not.
    let odd = "INSERT INTO t VALUES (51, 'a', 77, 'b1', 1), (52, 'b', 1, 'no', 1), (53, 'c', 1, 'b1', 88), (54, 'd', 10, 'b10', 10);
        INSERT INTO a VALUES (10); INSERT INTO b VALUES ('b10')";
    world.change(odd).await;
    let report = world.run().await;
    let fact =
        report["load"]["batches"][0]["tables"].as_array().unwrap().iter().find(|table| table["table"] == "fact_t");
    assert_eq!(
        fact.map(|fact| [&fact["inserted"], &fact["quarantined"]]),
        Some([&Value::from(20_901), &Value::from(3)])
    );
    assert_eq!(dropped(&world).await, "4", "of fact_t three, of dim_t one");
    assert_eq!(world.in_warehouse(KEYS).await, keys);
    let set_aside = world.quarantine_is_all_that_is_held_back().await;
    assert_eq!(set_aside.len(), 4, "{set_aside:?}");
    world.change("INSERT INTO a VALUES (77), (88); INSERT INTO b VALUES ('no')").await;
    world.run_and_agree().await;
    assert_eq!(world.quarantine().await, [""; 0]);
    assert_eq!(dropped(&world).await, "4", "a small batch leaves them");

    // Nor are they taken down where the configuration says so, or a trigger may change what a row refers to.
    let text = std::fs::read_to_string(world.configuration()).unwrap();
    let kept = text.replace("[warehouse]\n", "[warehouse]\nkeep_foreign_keys = true\n");
    std::fs::write(world.configuration(), kept).unwrap();
    insert(&world, 30_001..=50_000).await;
    world.run_and_agree().await;
    std::fs::write(world.configuration(), text).unwrap();
    let triggers = "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
        CREATE TRIGGER nothing BEFORE INSERT ON fact_t FOR EACH ROW EXECUTE FUNCTION nothing();
        CREATE TRIGGER nothing BEFORE INSERT ON dim_t FOR EACH ROW EXECUTE FUNCTION nothing()";
    world.warehouse.batch_execute(triggers).await.unwrap();
    insert(&world, 60_001..=80_000).await;
    world.run_and_agree().await;
    assert_eq!(dropped(&world).await, "4");
    assert_eq!(world.in_warehouse(KEYS).await, keys);
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_are_left_alone() {
    let world = world().await;
    let reader = world.warehouse_session().await;
    reader.batch_execute("SET statement_timeout = 200; BEGIN; SELECT FROM dim_a").await.unwrap();
    insert(&world, 101..=20_100).await;
    let mut run = world.spawn(&["run"]);
    // The locks are tried, and nobody waits for them: neither this reader, nor one that comes.
    loop {
        reader.batch_execute("SELECT count(*) FROM fact_t; SELECT count(*) FROM dim_b").await.unwrap();
        let other = world.warehouse_session().await;
        other.batch_execute("SET statement_timeout = 200; SELECT FROM dim_a; SELECT FROM fact_t").await.unwrap();
        if let Ok(ended) = tokio::time::timeout(std::time::Duration::from_millis(100), run.wait()).await {
            assert!(ended.unwrap().success());
            break;
        }
    }
    reader.batch_execute("COMMIT").await.unwrap();
    world.agree().await;
    assert_eq!(dropped(&world).await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_does_not_hold_for_older_rows_is_named() {
    let world = world().await;
    let orphan =
        "SET session_replication_role = replica; DELETE FROM dim_b WHERE code = 'b3'; RESET session_replication_role";
    world.warehouse.batch_execute(orphan).await.unwrap();
    let rows = "INSERT INTO t SELECT i, 'new', i % 10, 'b1', i % 10 FROM generate_series(101, 20100) i";
    world.change(rows).await;
    let report = world.run().await;
    let notices = report["load"]["batches"][0]["notices"].to_string();
    assert!(notices.contains("the foreign key to_b of fact_t does not hold for all rows any more"), "{report}");
    assert!(notices.contains("VALIDATE CONSTRAINT") && !notices.contains("b3"), "{notices}");
    let valid =
        "SELECT string_agg(conname, ', ' ORDER BY conname) FROM pg_constraint WHERE contype = 'f' AND NOT convalidated";
    assert_eq!(world.in_warehouse(valid).await, Some("to_b, to_c".into()));
    assert_eq!(world.in_warehouse("SELECT count(*) FROM blackwater.taken_down").await, Some("0".into()));
    let again = "INSERT INTO dim_b VALUES ('b3'); ALTER TABLE fact_t VALIDATE CONSTRAINT to_b";
    world.warehouse.batch_execute(again).await.unwrap();
    world.run_and_agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_foreign_keys_are_down_the_next_run_puts_them_back() {
    let world = world().await;
    let keys = world.in_warehouse(KEYS).await;
    insert(&world, 101..=20_100).await;
    world.run_and_agree().await;
    let switch = Arc::new(KillSwitch::default());
    let proxy = Proxy::start(world.server.port(), Arc::clone(&switch)).await;
    let warehouse =
        world.server.url("warehouse").replace(&world.server.port().to_string(), &proxy.address.port().to_string());
    world.configure(&world.server.url("source"), &warehouse, "directory = \"buckets\"");
    let change = async |at: u64| {
        world.change(&format!("UPDATE t SET v = 'kill {at}'")).await;
        world.blackwater(&["extract"]).await.report();
        world.blackwater(&["transform"]).await.report();
    };
    // The first messages open connections and read the log; the keys are down from about the 150th to the 220th.
    let (mut kills, mut kills_with_keys_down) = (0, 0);
    for at in (100..260).step_by(8) {
        change(at).await;
        switch.hold_at(at);
        let mut program = world.spawn(&["load"]);
        let killed = tokio::select! {
            _ = program.wait() => false,
            () = switch.wait() => { program.kill().await.unwrap(); true }
        };
        switch.hold_at(0);
        kills += u32::from(killed);
        let status = world.blackwater(&["status"]).await.report();
        let are_down = world.in_warehouse("SELECT count(*) FROM blackwater.taken_down").await.unwrap();
        assert_eq!(status["foreign_keys_down"].as_array().unwrap().len().to_string(), are_down);
        kills_with_keys_down += u32::from(are_down != "0");
        world.blackwater(&["load"]).await.report();
        assert_eq!(world.in_warehouse(KEYS).await, keys, "killed at message {at}");
        assert_eq!(world.in_warehouse("SELECT count(*) FROM blackwater.taken_down").await, Some("0".into()));
    }
    world.agree().await;
    assert!(kills > 15 && kills_with_keys_down > 7, "{kills} kills, {kills_with_keys_down} of them with keys down");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_cannot_be_put_back_stops_nothing() {
    let world = world().await;
    // As if a run had been killed, and then somebody had dropped what the key leads to.
    let killed =
        "INSERT INTO blackwater.taken_down (star_schema, star_table, name, other, definition, was_valid, reference)
        VALUES ('public', 'dim_t', 'gone', 'public.dim_gone', 'FOREIGN KEY (a) REFERENCES public.dim_gone(id)', true,
            '{\"constraint\": \"gone\", \"columns\": [\"a\"], \"table\": \"public.dim_gone\", \"star_table\": null,
              \"their_columns\": [\"id\"], \"operators\": [\"OPERATOR(pg_catalog.=)\"], \"is_deferrable\": false}')";
    world.warehouse.batch_execute(killed).await.unwrap();
    world.change("UPDATE t SET v = 'changed' WHERE id = 1").await;
    let run = world.blackwater(&["run"]).await;
    assert!(run.stderr.contains("the foreign key gone of dim_t cannot be put back"), "{run:?}");
    world.agree().await;
    assert_eq!(world.in_warehouse("SELECT count(*) FROM blackwater.taken_down").await, Some("0".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_need_each_other_come_in_beside_a_large_table() {
    let schema = "CREATE TABLE IF NOT EXISTS dim_country (id integer PRIMARY KEY, deleted_at timestamptz);
        CREATE TABLE IF NOT EXISTS dim_city (id integer PRIMARY KEY, country integer REFERENCES dim_country, deleted_at timestamptz);
        CREATE TABLE IF NOT EXISTS dim_person (id integer PRIMARY KEY, team integer, deleted_at timestamptz);
        CREATE TABLE IF NOT EXISTS dim_team (id integer PRIMARY KEY,
            lead integer REFERENCES dim_person DEFERRABLE INITIALLY DEFERRED, deleted_at timestamptz);
        DO $$ BEGIN
            IF NOT EXISTS (SELECT FROM pg_constraint WHERE conname = 'in_team') THEN
                ALTER TABLE dim_person ADD CONSTRAINT in_team FOREIGN KEY (team) REFERENCES dim_team
                    DEFERRABLE INITIALLY DEFERRED;
            END IF;
        END $$";
    let source = "CREATE TABLE country (id integer PRIMARY KEY); CREATE TABLE city (id integer PRIMARY KEY, country integer);
        CREATE TABLE person (id integer PRIMARY KEY, team integer); CREATE TABLE team (id integer PRIMARY KEY, lead integer);
        INSERT INTO country SELECT generate_series(0, 9);
        INSERT INTO city SELECT i, i % 10 FROM generate_series(1, 20000) i;
        INSERT INTO person VALUES (1, 1), (2, 1); INSERT INTO team VALUES (1, 2)";
    let models = [
        ("dim_country", "SELECT id FROM country"),
        ("dim_city", "SELECT id, country FROM city"),
        ("dim_person", "SELECT id, team FROM person"),
        ("dim_team", "SELECT id, lead FROM team"),
    ];
    let files = models.map(|(name, model)| (format!("{name}.sql"), model));
    let mut pack = vec![("schema.sql", schema)];
    pack.extend(files.iter().map(|(name, model)| (name.as_str(), *model)));
    let world = World::of(source, &pack, &models).await;
    world.run_and_agree().await;
    assert_eq!(world.quarantine().await, [""; 0]);
}
