//! Rows that a table refuses only for now, or in a certain order, come in; and what is refused keeps nothing else out.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use blackwater_tests::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_row_may_refer_to_a_new_one_of_its_table() {
    let schema =
        "CREATE TABLE IF NOT EXISTS dim_node (id integer PRIMARY KEY, name text, up integer REFERENCES dim_node,
        deleted_at timestamptz)";
    let model = "SELECT id, name, up FROM node";
    let source = "CREATE TABLE node (id integer PRIMARY KEY, name text, up integer);
        INSERT INTO node VALUES (1, 'one', NULL), (2, 'two', 1)";
    let world = World::of(source, &[("schema.sql", schema), ("dim_node.sql", model)], &[("dim_node", model)]).await;
    world.run_and_agree().await;
    world
        .change(
            "INSERT INTO node VALUES (10, 'ten', NULL), (11, 'eleven', 10);
             UPDATE node SET up = 10 WHERE id = 1; UPDATE node SET name = 'zwei' WHERE id = 2",
        )
        .await;
    world.run().await;
    assert_eq!(world.quarantine().await, [""; 0]);
    world.agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_whose_generated_reference_is_missing_comes_in_when_it_is_there() {
    let schema = "CREATE TABLE IF NOT EXISTS dim_area (code text PRIMARY KEY, deleted_at timestamptz);
        CREATE TABLE IF NOT EXISTS dim_t (id integer PRIMARY KEY, c text,
            area text GENERATED ALWAYS AS (split_part(c, '-', 1)) STORED REFERENCES dim_area, deleted_at timestamptz)";
    let (area, model) = ("SELECT code FROM area", "SELECT id, c FROM t");
    let source = "CREATE TABLE area (code text PRIMARY KEY); CREATE TABLE t (id integer PRIMARY KEY, c text);
        INSERT INTO area VALUES ('A'); INSERT INTO t VALUES (1, 'A-1'), (2, 'B-1')";
    let pack = [("schema.sql", schema), ("dim_area.sql", area), ("dim_t.sql", model)];
    let world = World::of(source, &pack, &[("dim_area", area), ("dim_t", model)]).await;
    world.run().await;
    assert_eq!(world.quarantine_is_all_that_is_held_back().await.len(), 1);
    world.change("INSERT INTO area VALUES ('B')").await;
    world.run_and_agree().await;
    assert_eq!(world.quarantine().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_exchange_a_value_which_others_refer_to_leave_those_alone() {
    let schema = "CREATE TABLE IF NOT EXISTS dim_t (id integer PRIMARY KEY, code text UNIQUE, deleted_at timestamptz);
        CREATE TABLE IF NOT EXISTS dim_use (id integer PRIMARY KEY,
            code text REFERENCES dim_t (code) ON UPDATE CASCADE ON DELETE SET NULL, deleted_at timestamptz)";
    let source =
        "CREATE TABLE t (id integer PRIMARY KEY, code text); CREATE TABLE use (id integer PRIMARY KEY, code text);
        INSERT INTO t VALUES (1, 'a'), (2, 'b'); INSERT INTO use VALUES (1, 'a'), (2, 'b')";
    let (t, uses) = ("SELECT id, code FROM t", "SELECT id, code FROM use");
    let pack = [("schema.sql", schema), ("dim_t.sql", t), ("dim_use.sql", uses)];
    let world = World::of(source, &pack, &[("dim_use", uses)]).await;
    world.run_and_agree().await;
    world.change("UPDATE t SET code = CASE code WHEN 'a' THEN 'b' ELSE 'a' END").await;
    world.run_and_agree().await;
    assert_eq!(world.quarantine_is_all_that_is_held_back().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_exchange_values_come_in_beside_one_whose_value_another_keeps() {
    let schema =
        "CREATE TABLE IF NOT EXISTS dim_t (id integer PRIMARY KEY, v text UNIQUE, w text, deleted_at timestamptz);
        CREATE UNIQUE INDEX IF NOT EXISTS dim_t_w ON dim_t (lower(w))";
    let source = "CREATE TABLE t (id integer PRIMARY KEY, v text, w text);
        INSERT INTO t SELECT i, 'v' || i, 'w' || i FROM generate_series(1, 8) i";
    let model = "SELECT id, v, w FROM t";
    let world = World::of(source, &[("schema.sql", schema), ("dim_t.sql", model)], &[("dim_t", model)]).await;
    world.run_and_agree().await;
    // 4 keeps the value that 3 would have, so 3 does not give up the one that 5 would have, nor 7 its own.
    let change = "UPDATE t SET v = 'v' || CASE id WHEN 1 THEN 2 WHEN 2 THEN 1 WHEN 3 THEN 4 WHEN 5 THEN 3 ELSE 7 END
            WHERE id IN (1, 2, 3, 5, 6);
        UPDATE t SET v = 'other', w = 'W8' WHERE id = 7; INSERT INTO t VALUES (9, 'v5', 'w9'), (10, 'v10', 'W4')";
    world.change(change).await;
    world.run().await;
    let entries = world.quarantine_is_all_that_is_held_back().await;
    let keys: BTreeSet<_> = entries.iter().filter_map(|entry| Some(entry.split_once(':')?.0)).collect();
    let kept_out = [3, 5, 6, 7, 9, 10].map(|id| format!("dim_t id={id}"));
    assert_eq!(keys, kept_out.iter().map(String::as_str).collect());
    world.agree_on("dim_t WHERE id IN (1, 2)", "SELECT id, v, w FROM t WHERE id IN (1, 2)").await;
    world.change("UPDATE t SET v = 'free', w = 'free' WHERE id = 4; UPDATE t SET w = 'last' WHERE id = 8").await;
    world.run_and_agree().await;
    assert_eq!(world.quarantine().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_rows_of_a_batch_may_be_refused_and_the_others_are_in() {
    let schema = "CREATE TABLE IF NOT EXISTS dim_t (id integer PRIMARY KEY, deleted_at timestamptz);
        CREATE OR REPLACE FUNCTION judge() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.id <= 60 THEN RAISE EXCEPTION 'not these'; END IF;
            IF NEW.deleted_at IS NOT NULL THEN RAISE EXCEPTION 'never deleted'; END IF;
            RETURN NEW;
        END $$;
        DROP TRIGGER IF EXISTS judge ON dim_t;
        CREATE TRIGGER judge BEFORE INSERT OR UPDATE ON dim_t FOR EACH ROW EXECUTE FUNCTION judge()";
    let model = "SELECT id FROM t";
    let source = "CREATE TABLE t (id integer PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 3000)";
    let world = World::of(source, &[("schema.sql", schema), ("dim_t.sql", model)], &[]).await;
    world.run().await;
    world.agree_on("dim_t", "SELECT id FROM t WHERE id > 60").await;
    assert_eq!(world.quarantine_is_all_that_is_held_back().await.len(), 60);
    // Nor do refused deletions stop a batch, however many.
    world.change("DELETE FROM t WHERE id BETWEEN 100 AND 199; INSERT INTO t VALUES (3001)").await;
    let report = world.run().await;
    assert!(report["load"].to_string().contains("never deleted"), "{report}");
    assert!(!report["load"].to_string().contains("something else wrote to it"), "{report}");
    assert_eq!(world.in_warehouse("SELECT count(*) FROM dim_t WHERE id = 3001").await, Some("1".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_quarantine_that_is_no_value_of_its_column_stops_no_batch() {
    let schema = "CREATE TABLE IF NOT EXISTS dim_t (id integer PRIMARY KEY, v text, deleted_at timestamptz)";
    let model = "SELECT id, v FROM t";
    let source = "CREATE TABLE t (id integer PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'one')";
    let world = World::of(source, &[("schema.sql", schema), ("dim_t.sql", model)], &[("dim_t", model)]).await;
    world.run_and_agree().await;
    // As the key was a text once.
    let old = "INSERT INTO blackwater.quarantine (star_schema, star_table, key, batch, reason)
        VALUES ('public', 'dim_t', '{\"id\": \"abc\"}', 1, 'it was refused')";
    world.warehouse.batch_execute(old).await.unwrap();
    world.change("UPDATE t SET v = 'two'; INSERT INTO t VALUES (2, 'new')").await;
    world.run_and_agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reference_may_lead_to_a_column_of_another_collation() {
    let schema = "CREATE TABLE IF NOT EXISTS dim_a (code text COLLATE \"C\" PRIMARY KEY, deleted_at timestamptz);
        CREATE TABLE IF NOT EXISTS dim_t (id integer PRIMARY KEY, code text COLLATE \"POSIX\" REFERENCES dim_a,
            deleted_at timestamptz)";
    let (a, t) = ("SELECT code FROM a", "SELECT id, code FROM t");
    let source = "CREATE TABLE a (code text PRIMARY KEY); CREATE TABLE t (id integer PRIMARY KEY, code text);
        INSERT INTO a VALUES ('x'); INSERT INTO t VALUES (1, 'x'), (2, 'y')";
    let pack = [("schema.sql", schema), ("dim_a.sql", a), ("dim_t.sql", t)];
    let world = World::of(source, &pack, &[("dim_t", t)]).await;
    assert!(!world.findings().await.iter().any(|finding| finding.starts_with("error")));
    world.run().await;
    assert_eq!(world.quarantine_is_all_that_is_held_back().await.len(), 1);
    world.change("INSERT INTO a VALUES ('y')").await;
    world.run_and_agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_batch_does_not_wait_for_who_maintains_blackwater_s_tables() {
    let schema = "CREATE TABLE IF NOT EXISTS dim_t (id integer PRIMARY KEY, deleted_at timestamptz)";
    let model = "SELECT id FROM t";
    let source = "CREATE TABLE t (id integer PRIMARY KEY); INSERT INTO t VALUES (1)";
    let world = World::of(source, &[("schema.sql", schema), ("dim_t.sql", model)], &[("dim_t", model)]).await;
    world.run_and_agree().await;
    let other = world.warehouse_session().await;
    other.batch_execute("BEGIN; LOCK TABLE blackwater.quarantine IN SHARE UPDATE EXCLUSIVE MODE").await.unwrap();
    world.change("INSERT INTO t SELECT generate_series(2, 2500)").await;
    let began = Instant::now();
    world.run_and_agree().await;
    assert!(began.elapsed() < Duration::from_secs(9), "it waited for {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_a_trigger_leaves_out_closes_none() {
    let schema = "CREATE TABLE IF NOT EXISTS fact_t (id integer NOT NULL, v text, valid_from timestamptz NOT NULL,
            valid_to timestamptz, deleted_at timestamptz);
        CREATE UNIQUE INDEX IF NOT EXISTS fact_t_open ON fact_t (id) WHERE valid_to IS NULL;
        CREATE OR REPLACE FUNCTION judge() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.v = 'no' THEN RETURN NULL; END IF; RETURN NEW; END $$;
        DROP TRIGGER IF EXISTS judge ON fact_t;
        CREATE TRIGGER judge BEFORE INSERT ON fact_t FOR EACH ROW EXECUTE FUNCTION judge()";
    let model = "SELECT id, v FROM t";
    let source = "CREATE TABLE t (id integer PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'), (2, 'b')";
    let world = World::of(source, &[("schema.sql", schema), ("fact_t.sql", model)], &[("current_fact_t", model)]).await;
    world.run_and_agree().await;
    world.change("UPDATE t SET v = 'no' WHERE id = 1; UPDATE t SET v = 'c' WHERE id = 2").await;
    world.run().await;
    let open = "SELECT string_agg(v, ' ' ORDER BY id) FROM current_fact_t";
    assert_eq!(world.in_warehouse(open).await, Some("a c".into()));
    assert_eq!(world.quarantine_is_all_that_is_held_back().await.len(), 1);
    world.change("UPDATE t SET v = 'd' WHERE id = 1").await;
    world.run_and_agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_version_that_something_else_wrote_keeps_no_change_out() {
    let schema = "CREATE TABLE IF NOT EXISTS fact_t (id integer NOT NULL, v text, valid_from timestamptz NOT NULL,
            valid_to timestamptz CHECK (valid_to > valid_from));
        CREATE UNIQUE INDEX IF NOT EXISTS fact_t_open ON fact_t (id) WHERE valid_to IS NULL";
    let model = "SELECT id, v FROM t";
    let source = "CREATE TABLE t (id integer PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a')";
    let world = World::of(source, &[("schema.sql", schema), ("fact_t.sql", model)], &[("current_fact_t", model)]).await;
    world.run_and_agree().await;
    let later = "UPDATE fact_t SET valid_from = now() + interval '1 hour'";
    world.warehouse.batch_execute(later).await.unwrap();
    world.change("UPDATE t SET v = 'b'").await;
    world.run().await;
    world.agree_on("current_fact_t", model).await;
    assert_eq!(world.quarantine().await, [""; 0]);
}
