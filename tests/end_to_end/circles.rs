//! Rows that refer to each other, in one star table or across several, are loaded and released together.

use blackwater_tests::World;

const SOURCE: &str = "
    CREATE TABLE team (id integer PRIMARY KEY, name text, head integer);
    CREATE TABLE person (id integer PRIMARY KEY, name text, team integer);
    CREATE TABLE shift (id integer PRIMARY KEY, person integer);
    CREATE TABLE a (id integer PRIMARY KEY, name text, next integer);
    CREATE TABLE b (LIKE a INCLUDING ALL); CREATE TABLE c (LIKE a INCLUDING ALL);
    CREATE TABLE node (id integer PRIMARY KEY, name text, up integer);";

/// Teams refer to their heads and persons to their teams; a, b and c refer to each other in a circle of three; nodes refer to
/// nodes. A name is NOT NULL, and a trigger refuses the name 'refused'.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS dim_team (id integer PRIMARY KEY, name text NOT NULL, head integer, deleted_at timestamptz);
    CREATE TABLE IF NOT EXISTS dim_person (id integer PRIMARY KEY, name text NOT NULL,
        team integer REFERENCES dim_team DEFERRABLE INITIALLY DEFERRED, deleted_at timestamptz);
    CREATE TABLE IF NOT EXISTS fact_shift (record bigserial PRIMARY KEY, valid_from timestamptz NOT NULL, valid_to timestamptz, id integer NOT NULL,
        person integer REFERENCES dim_person, deleted_at timestamptz);
    CREATE UNIQUE INDEX IF NOT EXISTS fact_shift_open ON fact_shift (id) WHERE valid_to IS NULL;
    CREATE TABLE IF NOT EXISTS dim_a (id integer PRIMARY KEY, name text NOT NULL, next integer, deleted_at timestamptz);
    CREATE TABLE IF NOT EXISTS dim_b (id integer PRIMARY KEY, name text NOT NULL,
        next integer REFERENCES dim_a DEFERRABLE INITIALLY DEFERRED, deleted_at timestamptz);
    CREATE TABLE IF NOT EXISTS dim_c (id integer PRIMARY KEY, name text NOT NULL,
        next integer REFERENCES dim_b DEFERRABLE INITIALLY DEFERRED, deleted_at timestamptz);
    CREATE TABLE IF NOT EXISTS dim_node (id integer PRIMARY KEY, name text NOT NULL, up integer REFERENCES dim_node,
        deleted_at timestamptz);
    DO $$ BEGIN
        IF NOT EXISTS (SELECT FROM pg_constraint WHERE conname = 'dim_team_head') THEN
            ALTER TABLE dim_team ADD CONSTRAINT dim_team_head FOREIGN KEY (head) REFERENCES dim_person
                DEFERRABLE INITIALLY DEFERRED;
            ALTER TABLE dim_a ADD FOREIGN KEY (next) REFERENCES dim_c DEFERRABLE INITIALLY DEFERRED;
        END IF;
    END $$;
    CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.name = 'refused' THEN RAISE EXCEPTION 'nobody is called so'; END IF;
        RETURN NEW;
    END $$;
    DROP TRIGGER IF EXISTS refuse ON dim_person; DROP TRIGGER IF EXISTS refuse ON dim_node;
    CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON dim_person FOR EACH ROW EXECUTE FUNCTION refuse();
    CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON dim_node FOR EACH ROW EXECUTE FUNCTION refuse();";

async fn world(rows: &str) -> World {
    let pack = [
        ("schema.sql", SCHEMA),
        ("dim_team.sql", "SELECT id, name, head FROM team"),
        ("dim_person.sql", "SELECT id, name, team FROM person"),
        ("fact_shift.sql", "SELECT id, person FROM shift"),
        ("dim_a.sql", "SELECT id, name, next FROM a"),
        ("dim_b.sql", "SELECT id, name, next FROM b"),
        ("dim_c.sql", "SELECT id, name, next FROM c"),
        ("dim_node.sql", "SELECT id, name, up FROM node"),
    ];
    let oracle = [
        ("dim_team WHERE deleted_at IS NULL", "SELECT id, name, head FROM team"),
        ("dim_person WHERE deleted_at IS NULL", "SELECT id, name, team FROM person"),
        ("current_fact_shift", "SELECT id, person FROM shift"),
        ("dim_a WHERE deleted_at IS NULL", "SELECT id, name, next FROM a"),
        ("dim_b WHERE deleted_at IS NULL", "SELECT id, name, next FROM b"),
        ("dim_c WHERE deleted_at IS NULL", "SELECT id, name, next FROM c"),
        ("dim_node WHERE deleted_at IS NULL", "SELECT id, name, up FROM node"),
    ];
    World::of(&format!("{SOURCE}{rows}"), &pack, &oracle).await
}

/// The rows in quarantine, without the reasons.
async fn quarantined(world: &World) -> Vec<String> {
    let entries = world.quarantine_is_all_that_is_held_back().await;
    let mut rows: Vec<_> = entries.iter().map(|entry| entry.split(':').next().unwrap().to_owned()).collect();
    rows.sort();
    rows
}

/// Runs, after which every row of the source is in the warehouse.
async fn everything_is_loaded(world: &World) {
    let report = world.run_and_agree().await;
    assert_eq!(report["load"]["quarantine"], 0, "{report}");
    assert_eq!(quarantined(world).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn star_tables_that_refer_to_each_other_are_loaded_at_once() {
    let world = world(
        "INSERT INTO team SELECT i, 'team ' || i, i FROM generate_series(1, 50) i;
         INSERT INTO person SELECT i, 'person ' || i, 51 - i FROM generate_series(1, 50) i;
         INSERT INTO shift SELECT i, 1 + i % 50 FROM generate_series(1, 100) i;
         INSERT INTO a SELECT i, 'a', i FROM generate_series(1, 20) i;
         INSERT INTO b SELECT i, 'b', i FROM generate_series(1, 20) i;
         INSERT INTO c SELECT i, 'c', 21 - i FROM generate_series(1, 20) i;",
    )
    .await;
    everything_is_loaded(&world).await;
    // They change, and some appear and disappear together.
    world
        .change(
            "UPDATE team SET head = 1 + id % 50; UPDATE c SET next = id; INSERT INTO a VALUES (30, 'a', 30);
             INSERT INTO b VALUES (30, 'b', 30); INSERT INTO c VALUES (30, 'c', 30);
             INSERT INTO team VALUES (60, 'new', 60); INSERT INTO person VALUES (60, 'new', 60), (61, 'lone', NULL);
             DELETE FROM a WHERE id = 1; DELETE FROM b WHERE id = 1; DELETE FROM c WHERE id = 1",
        )
        .await;
    everything_is_loaded(&world).await;
    assert_eq!(world.errors().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_row_in_a_circle_takes_those_that_need_it_along_and_no_other() {
    let world = world(
        "INSERT INTO team VALUES (1, 'one', 1), (2, NULL, 2), (3, 'three', 3), (4, 'four', NULL), (5, 'five', 5), (6, 'six', 1);
         INSERT INTO person VALUES (1, 'Ann', 1), (2, 'Bob', 2), (3, 'Cem', 1), (4, 'Dan', 2), (5, 'refused', 5), (6, 'Eve', 5), (7, 'Fay', 4);
         INSERT INTO shift VALUES (1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 6), (7, 7);
         INSERT INTO a VALUES (1, 'a', 1), (2, 'a', 2), (3, NULL, 3);
         INSERT INTO b VALUES (1, 'b', 1), (2, NULL, 2), (3, 'b', 3);
         INSERT INTO c VALUES (1, 'c', 1), (2, 'c', 2), (3, 'c', 3), (4, 'c', 1);",
    )
    .await;
    world.run().await;
    let first = [
        "dim_a id=2",
        "dim_a id=3",
        "dim_b id=2",
        "dim_b id=3",
        "dim_c id=2",
        "dim_c id=3",
        "dim_person id=2",
        "dim_person id=4",
        "dim_person id=5",
        "dim_person id=6",
        "dim_team id=2",
        "dim_team id=5",
        "fact_shift id=2",
        "fact_shift id=4",
        "fact_shift id=5",
        "fact_shift id=6",
    ];
    assert_eq!(quarantined(&world).await, first);
    let entries = world.quarantine().await;
    for (row, reason) in [
        ("dim_team id=2", "name is NULL, and the column is NOT NULL"),
        ("dim_person id=5", "nobody is called so"),
        ("dim_person id=2", "team = 2 is not in public.dim_team"),
        ("dim_team id=5", "head = 5 is not in public.dim_person"),
        ("fact_shift id=6", "person = 6 is not in public.dim_person"),
        ("dim_b id=2", "name is NULL, and the column is NOT NULL"),
        ("dim_c id=2", "next = 2 is not in public.dim_b"),
        ("dim_a id=2", "next = 2 is not in public.dim_c"),
    ] {
        let entry = entries.iter().find_map(|entry| entry.strip_prefix(&format!("{row}: "))).unwrap();
        assert!(entry.contains(reason), "{row}: {entry}");
    }
    // Rows that do not depend on them are loaded meanwhile. A loaded row that now refers to one in quarantine keeps its
    // old version.
    world.change("INSERT INTO shift VALUES (8, 7); UPDATE person SET team = 2 WHERE id = 3; UPDATE team SET name = 'uno' WHERE id = 1").await;
    world.run().await;
    assert_eq!(quarantined(&world).await.len(), first.len() + 1);
    assert_eq!(world.in_warehouse("SELECT team FROM dim_person WHERE id = 3").await, Some("1".into()));
    assert_eq!(world.in_warehouse("SELECT name FROM dim_team WHERE id = 1").await, Some("uno".into()));
    assert_eq!(world.in_warehouse("SELECT count(*) FROM current_fact_shift WHERE id = 8").await, Some("1".into()));
    // The source repairs one row at a time.
    for (mend, left) in [
        ("UPDATE team SET name = 'two' WHERE id = 2", 11),
        ("UPDATE person SET name = 'Eli' WHERE id = 5", 6),
        ("UPDATE b SET name = 'b' WHERE id = 2", 3),
        ("UPDATE a SET name = 'a' WHERE id = 3", 0),
    ] {
        world.change(mend).await;
        world.run().await;
        assert_eq!(quarantined(&world).await.len(), left, "{mend}");
    }
    world.agree().await;
    // Loaded rows form a new circle, and one of them is bad.
    world
        .change(
            "UPDATE team SET head = 3 WHERE id = 2; UPDATE person SET team = 3, name = NULL WHERE id = 3;
             INSERT INTO team VALUES (7, 'seven', 8); INSERT INTO person VALUES (8, 'refused', 7)",
        )
        .await;
    world.run().await;
    assert_eq!(quarantined(&world).await, ["dim_person id=3", "dim_person id=8", "dim_team id=7"]);
    world.change("UPDATE person SET name = 'Cem' WHERE id = 3; UPDATE person SET name = 'Gus' WHERE id = 8").await;
    everything_is_loaded(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_refers_to_itself_is_loaded_in_any_order() {
    // Ascending, descending and random order; a row that refers to itself, two to each other, three in a circle.
    let world = world(
        "INSERT INTO node SELECT i, 'up', nullif(i + 1, 301) FROM generate_series(1, 300) i;
         INSERT INTO node SELECT i, 'down', nullif(i - 1, 400) FROM generate_series(401, 700) i;
         INSERT INTO node SELECT 1000 + i * 7919 % 1009, 'across', CASE WHEN i > 0 THEN 1000 + (i - 1) * 7919 % 1009 END
             FROM generate_series(0, 1008) i;
         INSERT INTO node VALUES (3001, 'self', 3001), (3002, 'two', 3003), (3003, 'two', 3002), (3004, 'three', 3005),
             (3005, 'three', 3006), (3006, 'three', 3004);",
    )
    .await;
    everything_is_loaded(&world).await;
    // The same with rows that the table refuses: in a chain, in a circle, and one that another row refers to.
    world
        .change(
            "UPDATE node SET name = name || '!';
             INSERT INTO node SELECT i, CASE i WHEN 5050 THEN 'refused' ELSE 'up' END, nullif(i + 1, 5101) FROM generate_series(5001, 5100) i;
             INSERT INTO node SELECT i, CASE i WHEN 5250 THEN 'refused' ELSE 'down' END, nullif(i - 1, 5200) FROM generate_series(5201, 5300) i;
             INSERT INTO node VALUES (5401, 'three', 5402), (5402, 'refused', 5403), (5403, 'three', 5401), (5404, 'self', 5404),
                 (5405, 'refused', 5405), (5406, NULL, NULL), (5407, 'under', 5406)",
        )
        .await;
    world.run().await;
    // 5001 to 5050, 5250 to 5300, and those of the last line but 5404.
    assert_eq!(quarantined(&world).await.len(), 50 + 51 + 6);
    assert_eq!(world.in_warehouse("SELECT count(*) FROM dim_node WHERE id > 5000").await, Some("100".into()));
    assert_eq!(world.in_warehouse("SELECT count(*) FROM dim_node WHERE name LIKE '%!'").await, Some("1615".into()));
    world.change("UPDATE node SET name = 'mended' WHERE name = 'refused' OR name IS NULL").await;
    everything_is_loaded(&world).await;
}
