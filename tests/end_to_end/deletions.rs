//! Rows that the source no longer has are marked, and nothing else is.

use blackwater_tests::{BUCKETS, World, captures, extracted};
use serde_json::{Value, json};

/// The rows that a run marked as deleted, by star table.
fn deleted(report: &Value) -> Vec<(&str, u64)> {
    let batches = report["load"]["batches"].as_array().unwrap();
    let tables = batches.iter().flat_map(|batch| batch["tables"].as_array().unwrap());
    let counts = tables.map(|table| (table["table"].as_str().unwrap(), table["deleted"].as_u64().unwrap()));
    counts.filter(|(_, deleted)| *deleted > 0).collect()
}

async fn finds_nothing(world: &World) {
    let report = world.run().await;
    assert_eq!(report["extract"]["outcome"], "nothing", "{report}");
    assert_eq!(report["load"]["wanted"].as_array().unwrap().len(), 0, "{report}");
}

/// What happens, how, and the rows that are marked by it.
type Step<'a> = (&'a str, &'a str, &'a [(&'a str, u64)]);

#[tokio::test(flavor = "multi_thread")]
async fn every_way_in_which_rows_go_is_found() {
    let world = World::totesys().await;
    world.run_and_agree().await;
    let steps: [Step<'_>; 10] = [
        ("rows are deleted", "DELETE FROM payment WHERE payment_id IN (1, 2)", &[("fact_payment", 2)]),
        (
            "as many come as go",
            "CREATE TABLE kept AS SELECT * FROM payment WHERE payment_id = 3;
             DELETE FROM payment WHERE payment_id = 3; UPDATE kept SET payment_id = 3000;
             INSERT INTO payment SELECT * FROM kept",
            &[("fact_payment", 1)],
        ),
        (
            "more come than go",
            "DELETE FROM design WHERE design_id = (SELECT max(design_id) FROM design d
                 WHERE NOT EXISTS (SELECT FROM sales_order s WHERE s.design_id = d.design_id));
             INSERT INTO design (design_name, file_location, file_name, created_at, last_updated)
             SELECT 'new', '/', n::text, '2024-01-01', '2024-01-01' FROM generate_series(1, 3) n",
            &[("dim_design", 1)],
        ),
        (
            "a key changes, and what refers to it with it",
            "UPDATE currency SET currency_id = 77 WHERE currency_id = 2",
            &[("dim_currency", 1)],
        ),
        ("ON DELETE SET NULL", "DELETE FROM sales_order WHERE sales_order_id IN (1, 5)", &[("fact_sales_order", 2)]),
        ("a table is truncated", "TRUNCATE payment", &[("fact_payment", 0)]),
        (
            "a cascade",
            "ALTER TABLE payment DROP CONSTRAINT payment_transaction_id_fkey;
             ALTER TABLE \"transaction\" DROP CONSTRAINT transaction_sales_order_id_fkey;
             ALTER TABLE \"transaction\" ADD FOREIGN KEY (sales_order_id) REFERENCES sales_order ON DELETE CASCADE;
             DELETE FROM sales_order WHERE sales_order_id = 7",
            &[("dim_transaction", 1), ("fact_sales_order", 1)],
        ),
        (
            "a trigger",
            "CREATE FUNCTION also() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN DELETE FROM purchase_order WHERE purchase_order_id = OLD.sales_order_id; RETURN OLD; END $$;
             CREATE TRIGGER also AFTER DELETE ON sales_order FOR EACH ROW EXECUTE FUNCTION also();
             DELETE FROM sales_order WHERE sales_order_id = 8",
            &[("dim_transaction", 1), ("fact_purchase_order", 1), ("fact_sales_order", 1)],
        ),
        (
            "another table takes its place",
            "CREATE TABLE other (LIKE payment_type INCLUDING ALL);
             INSERT INTO other SELECT * FROM payment_type WHERE payment_type_id < 4;
             DROP TABLE payment_type CASCADE; ALTER TABLE other RENAME TO payment_type",
            &[("dim_payment_type", 1)],
        ),
        (
            "all of a transaction that was open during the last run",
            "BEGIN; SAVEPOINT a; DELETE FROM purchase_order WHERE purchase_order_id = 1; RELEASE a; COMMIT",
            &[("fact_purchase_order", 1)],
        ),
    ];
    for (step, sql, expected) in steps {
        println!("{step}");
        let before = world.in_warehouse("SELECT count(*) FROM current_fact_payment").await.unwrap();
        world.source.batch_execute(sql).await.unwrap();
        let report = world.run_and_agree().await;
        let mut expected = expected.to_vec();
        for (_, rows) in expected.iter_mut().filter(|(_, rows)| *rows == 0) {
            *rows = before.parse().unwrap();
        }
        assert_eq!(deleted(&report), expected, "{step}");
        finds_nothing(&world).await;
    }
    let at = "SELECT bool_and(deleted_at IN (SELECT snapshot_at FROM blackwater.ledger)) FROM fact_payment
              WHERE deleted_at IS NOT NULL";
    assert_eq!(world.in_warehouse(at).await, Some("t".into()), "the time is the one of a batch's snapshot");
    let versions = "SELECT count(*) FROM fact_payment WHERE payment_id = 1";
    assert_eq!(world.in_warehouse(versions).await, Some("1".into()), "the history stays, and a deletion is no version");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_comes_back_is_there_again() {
    let world = World::totesys().await;
    world.run_and_agree().await;
    world.source.batch_execute("CREATE TABLE kept AS SELECT * FROM payment WHERE payment_id = 2").await.unwrap();
    let there = "SELECT count(*) FILTER (WHERE deleted_at IS NULL) || ' of ' || count(*) FROM fact_payment WHERE payment_id = 2";
    let delete = "DELETE FROM payment WHERE payment_id = 2;";
    let insert = "INSERT INTO payment SELECT * FROM kept;";
    for (sql, expected) in [
        (delete.to_owned(), "0 of 1"),
        (insert.to_owned(), "1 of 2"),
        // Gone and back before anybody looks, as it was.
        (format!("{delete}{insert}"), "1 of 2"),
        (delete.to_owned(), "0 of 2"),
        (format!("{insert}UPDATE payment SET payment_amount = 1 WHERE payment_id = 2"), "1 of 3"),
    ] {
        world.source.batch_execute(&sql).await.unwrap();
        world.run_and_agree().await;
        assert_eq!(world.in_warehouse(there).await, Some(expected.into()), "{sql}");
    }
    let insert = "INSERT INTO design (design_id, created_at, last_updated, design_name, file_location, file_name)
                  VALUES (99, '2024-01-01', '2024-01-01', 'x', 'y', 'z')";
    for sql in [insert, "DELETE FROM design WHERE design_id = 99", insert] {
        world.source.batch_execute(sql).await.unwrap();
        world.run_and_agree().await;
    }
    let rows = "SELECT count(*) FROM dim_design WHERE design_id = 99 AND deleted_at IS NULL";
    assert_eq!(world.in_warehouse(rows).await, Some("1".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_is_deleted_no_keys_are_sent() {
    // Only a scan counts, and asks for keys.
    if captures() {
        return;
    }
    let world = World::totesys().await;
    world.run().await;
    world
        .source
        .batch_execute("UPDATE payment SET paid = NOT paid; DELETE FROM payment WHERE payment_id = 1")
        .await
        .unwrap();
    let report = world.run_and_agree().await;
    assert!(report["keys"].is_null(), "fewer rows than before: the keys come with the same batch");
    world.source.batch_execute("UPDATE payment SET paid = NOT paid; UPDATE design SET file_name = 'x'").await.unwrap();
    let report = world.run_and_agree().await;
    assert!(report["keys"].is_null(), "{report}");
    let sent = |manifest: &Value| {
        let tables = manifest["tables"].as_object().unwrap().iter();
        let sent = tables.filter(|(_, table)| table["keys_sent"] == manifest["batch"]);
        sent.map(|(name, _)| name.clone()).collect::<Vec<_>>()
    };
    let manifests = world.manifests();
    assert_eq!(manifests.iter().map(sent).collect::<Vec<_>>(), [vec![], vec!["payment".to_owned()], vec![]]);
    assert_eq!(extracted(&report, "payment")["full"], Value::Null);
}

/// The stages one by one, as their functions run: the request for keys waits for the next extract.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_a_model_lets_through_and_then_not_needs_no_keys() {
    let source = "CREATE TABLE t (id integer PRIMARY KEY, v integer); INSERT INTO t VALUES (1, 1), (2, 20), (3, 3)";
    let schema = "CREATE TABLE IF NOT EXISTS dim_t (id integer PRIMARY KEY, v smallint, deleted_at timestamptz)";
    let pack = [("schema.sql", schema), ("dim_t.sql", "SELECT id, v FROM t WHERE v < 10 OR v > 90")];
    let oracle = [("dim_t WHERE deleted_at IS NULL", "SELECT id, v FROM t WHERE v < 10 OR v > 90")];
    let world = World::of(source, &pack, &oracle).await;
    // Let through, not let through, set aside, and each from every other.
    for value in [1, 20, 2, 50000, 20, 50000, 3] {
        world.source.batch_execute(&format!("UPDATE t SET v = {value} WHERE id = 2")).await.unwrap();
        let report = world.run().await;
        let is_held = u64::from(value == 50000);
        if is_held == 0 {
            world.agree().await;
        }
        assert_eq!((&report["load"]["quarantine"], &report["keys"]), (&is_held.into(), &Value::Null), "{report}");
        assert_eq!(report["load"]["batches"][0]["notices"].as_array().unwrap().len(), 0, "{report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_for_keys_is_answered_once_by_the_next_extract() {
    // Only a scan counts, and asks for keys.
    if captures() {
        return;
    }
    let world = World::totesys().await;
    world.run().await;
    world.source.batch_execute("UPDATE currency SET currency_id = 77 WHERE currency_id = 2").await.unwrap();
    for stage in ["extract", "transform", "load"] {
        world.blackwater(&[stage]).await.report();
    }
    let live = "SELECT count(*) FROM dim_currency WHERE deleted_at IS NULL AND currency_id IN (2, 77)";
    assert_eq!(world.in_warehouse(live).await, Some("2".into()), "load cannot know yet which of them is gone");
    assert_eq!(world.blackwater(&["extract"]).await.report()["outcome"], "batch");
    assert_eq!(world.blackwater(&["extract"]).await.report()["outcome"], "nothing", "the keys are sent once");
    // The hint is lost, and load leaves it again; it is answered already.
    std::fs::remove_file(world.buckets().join("test-processed/hints/applied.json")).unwrap();
    world.blackwater(&["load"]).await.report();
    assert_eq!(world.blackwater(&["extract"]).await.report()["outcome"], "nothing");
    world.blackwater(&["transform"]).await.report();
    let report = world.blackwater(&["load"]).await.report();
    assert_eq!(deleted(&serde_json::json!({ "load": report })), [("dim_currency", 1)]);
    world.agree().await;
    finds_nothing(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_come_and_go() {
    let source = "CREATE TABLE t (id integer, v text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
        CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10);
        CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (10) TO (20);
        INSERT INTO t SELECT n, n::text FROM generate_series(0, 19) n";
    let schema = "CREATE TABLE IF NOT EXISTS fact_t (record bigserial PRIMARY KEY, valid_from timestamptz NOT NULL, valid_to timestamptz, id integer NOT NULL, v text,
                      deleted_at timestamptz);
                  CREATE UNIQUE INDEX IF NOT EXISTS fact_t_open ON fact_t (id) WHERE valid_to IS NULL;
                  CREATE TABLE IF NOT EXISTS dim_t (id integer PRIMARY KEY, v text, deleted_at timestamptz)";
    let select = "SELECT id, v FROM t";
    let pack = [("schema.sql", schema), ("fact_t.sql", select), ("dim_t.sql", select)];
    let oracle = [("current_fact_t", select), ("dim_t WHERE deleted_at IS NULL", select)];
    let world = World::of(source, &pack, &oracle).await;
    world.run_and_agree().await;
    for (sql, expected) in [
        ("ALTER TABLE t DETACH PARTITION t2", 10),
        ("ALTER TABLE t ATTACH PARTITION t2 FOR VALUES FROM (10) TO (20)", 0),
        ("DROP TABLE t1", 10),
        (
            "ALTER TABLE t DETACH PARTITION t2; CREATE TABLE t3 PARTITION OF t FOR VALUES FROM (0) TO (30);
             INSERT INTO t SELECT n, n::text FROM generate_series(15, 24) n",
            5,
        ),
    ] {
        world.source.batch_execute(sql).await.unwrap();
        let report = world.run_and_agree().await;
        let expected = if expected > 0 { vec![("dim_t", expected), ("fact_t", expected)] } else { Vec::new() };
        assert_eq!(deleted(&report), expected, "{sql}");
        finds_nothing(&world).await;
    }
}

/// The keys of rows of a table that are gone: the header of their CSV, and a line for each.
type Gone<'a> = (&'a str, &'a str, &'a [&'a str]);

/// Writes the batch after the newest one by hand, as extract does where the write-ahead log names what is gone. It has no rows; `rows`
/// gives what is counted of each table.
async fn write_batch(world: &World, gone: &[Gone<'_>], rows: impl Fn(&str) -> Option<u64>) {
    let bucket = world.buckets().join(BUCKETS[0]);
    let mut manifest = world.manifests().pop().unwrap();
    let batch = manifest["batch"].as_u64().unwrap() + 1;
    let run: String = world.source.query_one("SELECT gen_random_uuid()::text", &[]).await.unwrap().get(0);
    for (name, table) in manifest["tables"].as_object_mut().unwrap() {
        table["rows"] = rows(name).into();
        for list in ["objects", "gone", "keys"] {
            table[list] = json!([]);
        }
    }
    std::fs::create_dir_all(bucket.join(format!("data/{batch:012}/{run}"))).unwrap();
    for (table, header, keys) in gone {
        let key = format!("data/{batch:012}/{run}/{table}.0000.gone.csv");
        let csv = format!("{header}\n{}\n", keys.join("\n"));
        let sha256 = "SELECT encode(sha256(convert_to($1, 'UTF8')), 'hex')";
        let sha256: String = world.source.query_one(sha256, &[&csv]).await.unwrap().get(0);
        std::fs::write(bucket.join(&key), &csv).unwrap();
        let object = json!({ "key": key, "rows": keys.len(), "bytes": csv.len(), "sha256": sha256 });
        manifest["tables"][table]["gone"] = json!([object]);
    }
    (manifest["batch"], manifest["run"]) = (batch.into(), run.into());
    std::fs::write(bucket.join(format!("batches/{batch:012}.json")), manifest.to_string()).unwrap();
}

/// Transforms and loads what is in the ingestion bucket: the report of load, under its name.
async fn apply(world: &World) -> Value {
    world.blackwater(&["transform"]).await.report();
    json!({ "load": world.blackwater(&["load"]).await.report() })
}

/// The ledger's newest numbers of what the warehouse knows are those that a count gives.
async fn knows_what_it_holds(world: &World, table: &str, is_live: &str, key: &[&str]) {
    let known = format!("SELECT (known->'{table}')::text FROM blackwater.ledger ORDER BY batch DESC LIMIT 1");
    let same: Vec<_> = key.iter().map(|column| format!("{column}::text = q.key->>'{column}'")).collect();
    let counted = format!(
        "SELECT jsonb_build_object(
             'live', (SELECT count(*) FROM {table} WHERE {is_live}),
             'filtered', (SELECT count(*) FROM blackwater.filtered WHERE star_table = '{table}'),
             'waiting', (SELECT count(DISTINCT key) FROM blackwater.quarantine q WHERE star_table = '{table}'
                         AND NOT EXISTS (SELECT FROM {table} WHERE {is_live} AND {same})))::text",
        same = same.join(" AND ")
    );
    assert_eq!(world.in_warehouse(&known).await, world.in_warehouse(&counted).await, "{table}");
}

/// Each kind of row twice: one goes, and one stays.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_the_batch_names_as_gone_are_deleted_wherever_they_are() {
    let source = r#"
        CREATE TABLE u (id integer PRIMARY KEY); INSERT INTO u VALUES (1);
        CREATE TABLE t (a text, b integer, v integer, u integer, PRIMARY KEY (b, a));
        INSERT INTO t SELECT a, b, v, u FROM generate_series(1, 2) b, (VALUES
            ('x,"y"', 1, 1), ('', 1, 1), (E'two\nlines', 1, 1), ('filtered', 20, 1), ('big', 50000, 1), ('waits', 1, 9)) k (a, v, u)"#;
    let columns = "a text NOT NULL, b integer NOT NULL, v smallint, u integer REFERENCES dim_u (id)";
    let schema = format!(
        "CREATE TABLE IF NOT EXISTS dim_u (id integer PRIMARY KEY, deleted_at timestamptz);
         CREATE TABLE IF NOT EXISTS dim_t (name text, number integer, v smallint, deleted_at timestamptz, PRIMARY KEY (name, number));
         CREATE TABLE IF NOT EXISTS dim_number (n integer PRIMARY KEY);
         CREATE TABLE IF NOT EXISTS dim_kept (a text, b integer, v smallint, PRIMARY KEY (a, b));
         CREATE TABLE IF NOT EXISTS fact_t (record bigserial PRIMARY KEY, valid_from timestamptz NOT NULL,
                                            valid_to timestamptz, {columns}, deleted_at timestamptz);
         CREATE UNIQUE INDEX IF NOT EXISTS fact_t_open ON fact_t (a, b) WHERE valid_to IS NULL"
    );
    let pack = [
        ("schema.sql", schema.as_str()),
        ("dim_u.sql", "SELECT id FROM u"),
        ("dim_t.sql", "SELECT a AS name, b AS number, v FROM t WHERE v <> 20"),
        ("dim_number.sql", "SELECT u AS n FROM t UNION SELECT id FROM u"),
        ("dim_kept.sql", "SELECT a, b, v FROM t WHERE v <> 20"),
        ("fact_t.sql", "SELECT a, b, v, u FROM t WHERE v <> 20"),
    ];
    let world = World::of(source, &pack, &[]).await;
    let report = world.run().await;
    assert_eq!(report["load"]["quarantine"], 8, "{report}");
    let touched = "SELECT string_agg(concat(name, number, xmin), ' ' ORDER BY name) FROM dim_t WHERE number = 2";
    let untouched = world.in_warehouse(touched).await;

    world.source.batch_execute("DELETE FROM t WHERE b = 1").await.unwrap();
    let keys =
        ["1,\"x,\"\"y\"\"\"", "1,\"\"", "1,\"two\nlines\"", "1,filtered", "1,big", "1,waits", "7,big", "2,unknown"];
    write_batch(&world, &[("t", "\"b\",\"a\"", &keys)], |_| None).await;
    let report = apply(&world).await;
    assert_eq!(deleted(&report), [("dim_t", 4), ("fact_t", 3)], "{report}");
    assert_eq!(report["load"]["wanted"], json!([]), "{report}");
    assert_eq!(report["load"]["batches"][0]["notices"], json!([]), "{report}");

    let at = "(SELECT effective_at FROM blackwater.ledger WHERE batch = 2)";
    let names = "string_agg(DISTINCT name, ' ' ORDER BY name)";
    let all = Some("|two\nlines|waits|x,\"y\"".to_owned());
    let of_dim = |number: u8, which: String| {
        format!("SELECT {} FROM dim_t WHERE number = {number} AND {which}", names.replace("' '", "'|'"))
    };
    assert_eq!(world.in_warehouse(&of_dim(1, format!("deleted_at = {at}"))).await, all);
    assert_eq!(world.in_warehouse(&of_dim(2, "deleted_at IS NULL".into())).await, all);
    assert_eq!(world.in_warehouse(touched).await, untouched, "the other rows are not touched");
    for (table, which, expected) in [
        ("fact_t", format!("b = 1 AND valid_to = {at} AND deleted_at = valid_to AND valid_from < valid_to"), "3"),
        ("fact_t", "b = 2 AND valid_to IS NULL AND deleted_at IS NULL".into(), "3"),
        ("fact_t", "true".into(), "6"),
        ("dim_kept", "true".into(), "8"),
        ("dim_number", "n IN (1, 9)".into(), "2"),
        ("blackwater.filtered", "key->>'a' = 'filtered' OR key->>'name' = 'filtered'".into(), "3"),
        ("blackwater.filtered", "'1' IN (key->>'b', key->>'number')".into(), "0"),
        ("blackwater.quarantine", "'1' IN (key->>'b', key->>'number')".into(), "0"),
        ("blackwater.quarantine", "true".into(), "4"),
        ("blackwater.waiting_for", "true".into(), "1"),
    ] {
        let count = format!("SELECT count(*) FROM {table} WHERE {which}");
        assert_eq!(world.in_warehouse(&count).await, Some(expected.into()), "{count}");
    }
    let known = async || {
        knows_what_it_holds(&world, "dim_t", "deleted_at IS NULL", &["name", "number"]).await;
        knows_what_it_holds(&world, "fact_t", "valid_to IS NULL", &["a", "b"]).await;
        for table in ["dim_t", "fact_t"] {
            let sum = format!(
                "SELECT sum(n.value::int) FROM blackwater.ledger, jsonb_each_text(known->'{table}') n
                 GROUP BY batch ORDER BY batch DESC LIMIT 1"
            );
            assert_eq!(world.in_warehouse(&sum).await, Some("6".into()), "{table}: as many as the source has");
        }
    };
    known().await;

    // A count is the cross-check, and one that agrees asks for nothing.
    write_batch(&world, &[], |table| Some(if table == "t" { 6 } else { 1 })).await;
    let report = apply(&world).await;
    assert_eq!(report["load"]["wanted"], json!([]), "{report}");
    known().await;
    let report = world.run().await;
    assert_eq!((&report["keys"], deleted(&report)), (&Value::Null, Vec::new()), "{report}");
    let verified = world.blackwater(&["verify"]).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");

    // What comes back is there again, and a key may go once more.
    world.source.batch_execute("INSERT INTO t VALUES ('', 1, 5, 1), ('waits', 1, 5, 1)").await.unwrap();
    world.run().await;
    world.source.batch_execute("DELETE FROM t WHERE (a, b) = ('', 1)").await.unwrap();
    write_batch(&world, &[("t", "\"b\",\"a\"", &["1,\"\""])], |_| None).await;
    assert_eq!(deleted(&apply(&world).await), [("dim_t", 1), ("fact_t", 1)]);
    let versions = "SELECT string_agg(concat(a, ':', valid_to IS NULL), ' ' ORDER BY record) FROM fact_t
                    WHERE b = 1 AND a IN ('', 'waits')";
    assert_eq!(world.in_warehouse(versions).await, Some(":f :f waits:t".into()));
    knows_what_it_holds(&world, "dim_t", "deleted_at IS NULL", &["name", "number"]).await;
    knows_what_it_holds(&world, "fact_t", "valid_to IS NULL", &["a", "b"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_for_keys_stands_while_nobody_counts() {
    // Only a scan counts, and asks for keys.
    if captures() {
        return;
    }
    let world = World::totesys().await;
    world.run().await;
    world.source.batch_execute("UPDATE currency SET currency_id = 77 WHERE currency_id = 2").await.unwrap();
    world.blackwater(&["extract"]).await.report();
    // Before load asks, the next batch is there.
    write_batch(&world, &[], |_| None).await;
    let report = apply(&world).await;
    assert_eq!(report["load"]["wanted"], json!(["currency"]), "{report}");
    write_batch(&world, &[], |_| None).await;
    let report = apply(&world).await;
    assert_eq!(report["load"]["wanted"], json!(["currency"]), "{report}");
    let report = world.run_and_agree().await;
    assert_eq!(deleted(&report), [("dim_currency", 1)], "{report}");
    finds_nothing(&world).await;
}

/// A star table in which something else deleted rows.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_missing_in_the_warehouse_are_named() {
    // Only a scan counts, and asks for keys.
    if captures() {
        return;
    }
    let world = World::totesys().await;
    world.run().await;
    world.warehouse.batch_execute("ALTER TABLE fact_sales_order DROP CONSTRAINT fact_sales_order_design_id_fkey; DELETE FROM dim_design WHERE design_id = 7").await.unwrap();
    world.source.batch_execute("UPDATE design SET file_name = 'x' WHERE design_id = 8").await.unwrap();
    // What the batches wrote is known, and star tables are counted once a day; `verify` looks at each row.
    let report = world.run().await;
    assert_eq!(report["load"]["batches"][0]["notices"].as_array().unwrap().len(), 0, "{report}");
    assert_eq!(world.blackwater(&["verify"]).await.code, Some(3));
    let yesterday = "UPDATE blackwater.ledger SET snapshot_at = snapshot_at - interval '1 day'";
    world.warehouse.batch_execute(yesterday).await.unwrap();
    world.source.batch_execute("UPDATE design SET file_name = 'y' WHERE design_id = 8").await.unwrap();
    let report = world.run().await;
    let notice = report["load"]["batches"][0]["notices"][0].as_str().unwrap();
    assert!(notice.contains("dim_design holds 19 rows of design, which has 20"), "{notice}");
    assert!(notice.contains("`blackwater extract --full design`"), "{notice}");
    world.blackwater(&["extract", "--full", "design"]).await.report();
    world.run_and_agree().await;
}

/// A small generator of numbers that are the same in every run of the test.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn throw(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % below
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_comes_and_goes_the_warehouse_has_the_rows_of_the_source() {
    let source = "CREATE TABLE g (id integer PRIMARY KEY, name text);
        CREATE TABLE t (id integer PRIMARY KEY, v text, g integer);
        INSERT INTO g SELECT n, n::text FROM generate_series(0, 4) n;
        INSERT INTO t SELECT n, n::text, n % 8 FROM generate_series(0, 29) n";
    let columns = "id integer NOT NULL, v date, name text, deleted_at timestamptz";
    let schema = format!(
        "CREATE TABLE IF NOT EXISTS fact_t (record bigserial PRIMARY KEY, valid_from timestamptz NOT NULL, valid_to timestamptz, {columns});
         CREATE UNIQUE INDEX IF NOT EXISTS fact_t_open ON fact_t (id) WHERE valid_to IS NULL;
         CREATE TABLE IF NOT EXISTS dim_t (PRIMARY KEY (id), {columns})"
    );
    // A row with an odd number is no date, one with a 7 is not let through.
    let model = "SELECT t.id, CAST(CASE WHEN t.v IN ('1', '3', '5', '9') THEN t.v END AS DATE) AS v, g.name
                 FROM t INNER JOIN g ON g.id = t.g WHERE t.v <> '7'";
    let pack = [("schema.sql", schema.as_str()), ("fact_t.sql", model), ("dim_t.sql", model)];
    // The rows that fit. One that does not keeps its former version, if there is one that is not deleted.
    let fits = "SELECT t.id, NULL::date AS v, g.name FROM t, g WHERE g.id = t.g AND t.v <> '7' AND t.v NOT IN ('1', '3', '5', '9')";
    let world = World::of(source, &pack, &[]).await;
    let mut dice = Dice(1);
    for _ in 0..40 {
        for _ in 0..=dice.throw(4) {
            let (id, other, v, g) = (dice.throw(30), dice.throw(30), dice.throw(10), dice.throw(8));
            let sql = match dice.throw(12) {
                0..=2 => format!("DELETE FROM t WHERE id = {id}"),
                3..=5 => format!("INSERT INTO t VALUES ({id}, '{v}', {g}) ON CONFLICT DO NOTHING"),
                6..=7 => format!("UPDATE t SET v = '{v}', g = {g} WHERE id = {id}"),
                8 => format!(
                    "UPDATE t SET id = {other} WHERE id = {id} AND NOT EXISTS (SELECT FROM t WHERE id = {other})"
                ),
                9 => format!("DELETE FROM g WHERE id = {g}"),
                10 => format!("INSERT INTO g VALUES ({g}, '{v}') ON CONFLICT (id) DO UPDATE SET name = '{v}'"),
                _ => format!("DELETE FROM t WHERE id > {id} AND id < {other}"),
            };
            println!("{sql}");
            world.source.batch_execute(&sql).await.unwrap();
        }
        println!("-- run");
        let report = world.run().await;
        assert_eq!(report["load"]["wanted"].as_array().unwrap().len(), 0, "{report}");
        for (table, is_live) in [("fact_t", "valid_to IS NULL"), ("dim_t", "deleted_at IS NULL")] {
            knows_what_it_holds(&world, table, is_live, &["id"]).await;
        }
        for star in ["current_fact_t", "dim_t WHERE deleted_at IS NULL"] {
            let set_aside = world.quarantine().await;
            let set_aside = set_aside.iter().filter(|entry| entry.starts_with("dim_t"));
            let ids = set_aside.map(|entry| entry.split(['=', ':']).nth(1).unwrap()).collect::<Vec<_>>();
            let but = format!("id <> ALL ('{{{}}}')", ids.join(","));
            let star = match star.contains("WHERE") {
                true => format!("{star} AND {but}"),
                false => format!("{star} WHERE {but}"),
            };
            world.agree_on(&star, fits).await;
            let bad = "SELECT string_agg(t.id::text, ',' ORDER BY t.id) FROM t JOIN g ON g.id = t.g WHERE t.v IN ('1', '3', '5', '9')";
            let bad: Option<String> = world.source.query_one(bad, &[]).await.unwrap().get(0);
            let mut ids: Vec<i32> = ids.iter().map(|id| id.parse().unwrap()).collect();
            ids.sort_unstable();
            let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
            assert_eq!(ids.join(","), bad.unwrap_or_default());
        }
    }
}
