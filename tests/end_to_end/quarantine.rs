//! A row that a star table refuses is set aside with the reason, and the rest of its batch goes on.

use blackwater_tests::{Finished, World};
use serde_json::Value;

/// A source with one table, and a star table of it.
async fn one_table(columns: &str, star: &str, model: &str, rows: &str) -> World {
    let source = format!(
        "CREATE TYPE mood AS ENUM ('good', 'bad', 'new'); CREATE TABLE t ({columns}); INSERT INTO t VALUES {rows}"
    );
    let pack = [("schema.sql", star), ("dim_t.sql", model)];
    World::of(&source, &pack, &[]).await
}

/// Rows of a table of the warehouse, one after another.
async fn all(world: &World, what: &str, from: &str) -> String {
    let sql = format!("SELECT coalesce(string_agg({what}, ' ' ORDER BY 1), '') FROM (SELECT * FROM {from}) t");
    world.in_warehouse(&sql.replace("ORDER BY 1", &format!("ORDER BY {what}"))).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_warehouse_refuses_is_set_aside_alone() {
    // Each column of the star table refuses a value of the row that has its number, and takes that of row 0.
    let columns: [(&str, &str, &str, &str, &str); 27] = [
        ("text", "text NOT NULL", "'x'", "NULL", "is NULL, and the column is NOT NULL"),
        ("text", "varchar(3)", "'äöü'", "'äöü '", "v: äöü  does not fit character varying(3)"),
        ("text", "char(3)", "'ab'", "'abcd'", "v: abcd does not fit character(3)"),
        ("numeric", "numeric(5,2)", "123.45", "1234.5", "1234.5 does not fit numeric(5,2)"),
        ("numeric", "numeric(5,2)", "-999.99", "1.005", "1.005 does not fit numeric(5,2)"),
        ("numeric", "numeric(5,2)", "'NaN'", "'Infinity'", "Infinity does not fit numeric(5,2)"),
        ("integer", "smallint", "-32768", "32768", "value \"32768\" is out of range for type smallint"),
        ("bigint", "integer", "0", "2147483648", "value \"2147483648\" is out of range for type integer"),
        (
            "timestamptz",
            "timestamptz(0)",
            "'2024-01-01 00:00:01Z'",
            "'2024-01-01 00:00:01.5Z'",
            "does not fit timestamp(0) with time zone",
        ),
        (
            "timestamp",
            "timestamp(3)",
            "'2024-01-01 00:00:00.123'",
            "'2024-01-01 00:00:00.1234'",
            "does not fit timestamp(3)",
        ),
        (
            "timestamp",
            "timestamp",
            "'2024-01-01'",
            "'infinity'",
            "t.v: \"infinity\" is a timestamp without time zone that cannot be kept exactly",
        ),
        (
            "date",
            "date",
            "'9999-12-31'",
            "'0044-03-15 BC'",
            "t.v: \"0044-03-15 BC\" is a date that cannot be kept exactly",
        ),
        ("bit varying", "bit(3)", "B'101'", "B'1010'", "1010 does not fit bit(3)"),
        (
            "mood",
            "text CHECK (v <> 'bad')",
            "'good'",
            "'bad'",
            "the CHECK constraint dim_t_v_check refuses it: (v <> 'bad'::text)",
        ),
        ("mood", "\"Mood\"", "'good'", "'new'", "invalid input value for enum public.\"Mood\": \"new\""),
        (
            "text",
            "uuid",
            "'00000000-0000-0000-0000-00000000000A'",
            "'no uuid'",
            "invalid input syntax for type uuid: \"no uuid\"",
        ),
        ("text", "json", "'[1, 1.0]'", "'[1,'", "invalid input syntax for type json"),
        ("numeric", "\"Price\"", "1.50", "1.505", "v: 1.505 does not fit public.\"Price\""),
        ("numeric", "\"Price\"", "1.50", "-1", "value for domain \"Price\" violates check constraint"),
        ("text", "\"Code\"", "'abc'", "'abcd'", "v: abcd does not fit public.\"Code\""),
        ("integer", "integer, w numeric(3,1) GENERATED ALWAYS AS (100.0 / v) STORED", "2", "0", "division by zero"),
        (
            "integer",
            "integer, w numeric(3,1) GENERATED ALWAYS AS (100.0 / v) STORED",
            "2",
            "1",
            "numeric field overflow",
        ),
        ("integer", "integer CHECK (10 / v > 1)", "2", "0", "division by zero"),
        (
            "text",
            "\"Short\"",
            "'abc'",
            "'x y'",
            "value for domain public.\"Short\" violates check constraint \"Short_check\"",
        ),
        ("text[]", "varchar(3)[]", "'{abc,NULL}'", "'{abc,abcd}'", "v: {abc,abcd} does not fit character varying(3)[]"),
        ("numeric[]", "numeric(5,2)[]", "'{1.5,NaN}'", "'{1.5,1.505}'", "v: {1.5,1.505} does not fit numeric(5,2)[]"),
        ("text", "inet", "'::1/64'", "''", "invalid input syntax for type inet: \"\""),
    ];
    let world = {
        let (mut source, mut schema) = (
            String::from("CREATE TYPE mood AS ENUM ('good', 'bad', 'new');"),
            String::from(
                "DO $$ BEGIN IF to_regtype('\"Mood\"') IS NULL THEN CREATE TYPE \"Mood\" AS ENUM ('good', 'bad');
             CREATE DOMAIN \"Short\" AS text CHECK (VALUE !~ ' ');
             CREATE DOMAIN \"Price\" AS numeric(6,2) CHECK (VALUE > 0); CREATE DOMAIN \"Code\" AS varchar(3); END IF; END $$;",
            ),
        );
        let mut pack = Vec::new();
        for (number, (of, to, good, bad, _)) in columns.iter().enumerate() {
            source.push_str(&format!("CREATE TABLE t{number} (id integer PRIMARY KEY, v {of}); INSERT INTO t{number} VALUES (1, {good}), (2, {bad}), (3, {good});"));
            let table = format!("dim_t{number:02}");
            schema.push_str(&format!(
                "CREATE TABLE IF NOT EXISTS {table} (id integer PRIMARY KEY, v {}, deleted_at timestamptz);",
                to.replace("dim_t", &table)
            ));
            pack.push((format!("{table}.sql"), format!("SELECT id, v FROM t{number} AS t")));
        }
        pack.push(("schema.sql".into(), schema));
        let pack: Vec<_> = pack.iter().map(|(file, text)| (file.as_str(), text.as_str())).collect();
        World::of(&source, &pack, &[]).await
    };
    world.run().await;
    let set_aside = world.quarantine().await;
    for (number, (of, to, good, bad, reason)) in columns.iter().enumerate() {
        let table = format!("dim_t{number:02}");
        let reason = reason.replace("dim_t", &table).replace("t.v:", &format!("t{number}.v:"));
        let entry = &set_aside[number];
        let is_right = entry.starts_with(&format!("{table} id=2: ")) && entry.contains(&reason);
        assert!(is_right, "{of} to {to}: {bad}: {entry}, not {reason}");
        assert_eq!(all(&world, "id::text", &table).await, "1 3", "{of} to {to}: {good}");
    }
    assert_eq!(set_aside.len(), columns.len());
    assert_eq!(world.run().await["extract"]["outcome"], "nothing");
    let verdict = world.blackwater(&["verify"]).await.report();
    let held = verdict["tables"].as_array().unwrap().iter().map(|table| table["held_back"].as_u64().unwrap());
    assert_eq!(held.collect::<Vec<_>>(), vec![1; columns.len()], "{verdict}");
    // All come right.
    for (number, (_, _, good, _, _)) in columns.iter().enumerate() {
        world.source.batch_execute(&format!("UPDATE t{number} SET v = {good} WHERE id = 2")).await.unwrap();
    }
    let report = world.run().await;
    assert_eq!(report["load"]["quarantine"], 0, "{report}");
    for number in 0..columns.len() {
        assert_eq!(all(&world, "id::text", &format!("dim_t{number:02}")).await, "1 2 3");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cast_counts_only_where_it_is_taken() {
    let model =
        "SELECT id, CASE WHEN v = 'tbc' THEN NULL WHEN CAST(v AS INTEGER) > 5 THEN 9 ELSE CAST(w AS INTEGER) END AS v
                 FROM t WHERE v IS NULL OR v <> 'out' AND (v = 'tbc' OR CAST(v AS INTEGER) < 100)";
    let rows = "(1, 'tbc', 'x'), (2, '6', 'y'), (3, '4', '3'), (4, '4', 'z'), (5, 'out', '1'), (6, 'what', '1'), (7, NULL, '7'), (8, '100', 'w')";
    let star = "CREATE TABLE IF NOT EXISTS dim_t (id integer PRIMARY KEY, v integer, deleted_at timestamptz)";
    let world = one_table("id integer PRIMARY KEY, v text, w text", star, model, rows).await;
    world.run().await;
    assert_eq!(all(&world, "concat(id, ':', v)", "dim_t").await, "1: 2:9 3:3 7:7");
    assert_eq!(
        world.quarantine().await,
        [
            "dim_t id=4: CAST(w AS INTEGER): \"z\" is no integer",
            "dim_t id=6: CAST(v AS INTEGER): \"what\" is no integer"
        ]
    );
}

const ORDERS: &str = "
    CREATE TABLE area (id integer PRIMARY KEY, name text);
    CREATE TABLE customer (id integer PRIMARY KEY, area integer, parent integer, born text);
    CREATE TABLE orders (id integer PRIMARY KEY, customer integer, amount numeric);
    INSERT INTO area VALUES (1, 'one'), (2, 'two');
    INSERT INTO customer VALUES (1, 1, NULL, '1990-01-01'), (2, 2, 1, '1991-01-01'), (3, 2, 2, '1992-02-02');
    INSERT INTO orders VALUES (10, 1, 1), (11, 2, 2), (12, 3, 3);";

/// Areas, customers in areas and under customers, and the history of their orders.
async fn orders() -> World {
    let schema = "
        CREATE TABLE IF NOT EXISTS dim_area (id integer PRIMARY KEY, name text NOT NULL, deleted_at timestamptz);
        CREATE TABLE IF NOT EXISTS dim_customer (id integer PRIMARY KEY, area integer REFERENCES dim_area,
            parent integer REFERENCES dim_customer, born date, deleted_at timestamptz);
        CREATE TABLE IF NOT EXISTS fact_order (record bigserial PRIMARY KEY, valid_from timestamptz NOT NULL, valid_to timestamptz, id integer NOT NULL,
            customer integer NOT NULL REFERENCES dim_customer, amount numeric, deleted_at timestamptz);
        CREATE UNIQUE INDEX IF NOT EXISTS fact_order_open ON fact_order (id) WHERE valid_to IS NULL";
    let pack = [
        ("schema.sql", schema),
        ("dim_area.sql", "SELECT id, name FROM area"),
        ("dim_customer.sql", "SELECT id, area, parent, CAST(born AS DATE) AS born FROM customer"),
        ("fact_order.sql", "SELECT id, customer, amount FROM orders"),
    ];
    let oracle = [
        ("dim_area WHERE deleted_at IS NULL", "SELECT id, name FROM area"),
        ("dim_customer WHERE deleted_at IS NULL", "SELECT id, area, parent, born::date AS born FROM customer"),
        ("current_fact_order", "SELECT id, customer, amount FROM orders"),
    ];
    World::of(ORDERS, &pack, &oracle).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_refers_to_a_row_in_quarantine_follows_it_there_and_comes_out_with_it() {
    let world = orders().await;
    world.run_and_agree().await;
    // A new area without a name, in which a customer is who has a customer under it, who both order.
    world
        .source
        .batch_execute(
            "INSERT INTO area VALUES (3, NULL);
             INSERT INTO customer VALUES (4, 3, NULL, '1993-01-01'), (5, 1, 4, '1994-01-01'), (6, 1, 1, '1995-01-01');
             INSERT INTO orders VALUES (13, 4, 4), (14, 5, 5), (15, 6, 6)",
        )
        .await
        .unwrap();
    world.run().await;
    let missing = |of: &str, id: u32, column: &str, value: u32, from: &str| {
        format!("{of} id={id}: {column} = {value} is not in public.{from}")
    };
    let set_aside = [
        "dim_area id=3: name is NULL, and the column is NOT NULL".to_owned(),
        missing("dim_customer", 4, "area", 3, "dim_area"),
        missing("dim_customer", 5, "parent", 4, "dim_customer"),
        missing("fact_order", 13, "customer", 4, "dim_customer"),
        missing("fact_order", 14, "customer", 5, "dim_customer"),
    ];
    assert_eq!(world.quarantine().await, set_aside);
    assert_eq!(all(&world, "id::text", "current_fact_order").await, "10 11 12 15", "the rest goes on");
    // They change while they wait: a history has all of it, in order.
    world.source.batch_execute("UPDATE orders SET amount = 40 WHERE id = 13").await.unwrap();
    world.run().await;
    world
        .source
        .batch_execute(
            "UPDATE orders SET amount = 41 WHERE id = 13; UPDATE customer SET born = '1993-03-03' WHERE id = 4",
        )
        .await
        .unwrap();
    world.run().await;
    assert_eq!(world.in_warehouse("SELECT count(*) FROM fact_order WHERE id = 13").await, Some("0".into()));
    world.source.batch_execute("UPDATE area SET name = 'three' WHERE id = 3").await.unwrap();
    let report = world.run_and_agree().await;
    assert_eq!(report["load"]["quarantine"], 0, "{report}");
    let versions = "SELECT string_agg(amount::text, ' ' ORDER BY record) FROM fact_order WHERE id = 13";
    assert_eq!(world.in_warehouse(versions).await, Some("4 40 41".into()));
    assert_eq!(world.run().await["extract"]["outcome"], "nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_waits_comes_out_when_it_refers_to_another_and_ends_when_it_is_deleted() {
    let world = orders().await;
    world.run_and_agree().await;
    world.source.batch_execute("INSERT INTO orders VALUES (20, 99, 1), (21, 99, 1), (22, 98, 1)").await.unwrap();
    world.run().await;
    assert_eq!(world.quarantine().await.len(), 3);
    world
        .source
        .batch_execute("UPDATE orders SET customer = 1 WHERE id = 20; DELETE FROM orders WHERE id = 21")
        .await
        .unwrap();
    let report = world.run().await;
    assert_eq!(report["load"]["wanted"].as_array().unwrap().len(), 0);
    assert_eq!(world.quarantine().await, ["fact_order id=22: customer = 98 is not in public.dim_customer"]);
    world
        .source
        .batch_execute("INSERT INTO customer VALUES (98, NULL, 97, NULL), (97, NULL, NULL, NULL)")
        .await
        .unwrap();
    world.run_and_agree().await;
    assert_eq!(world.quarantine().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_tried_again_when_the_star_table_changes() {
    let world = orders().await;
    world
        .source
        .batch_execute("INSERT INTO area VALUES (3, NULL); INSERT INTO customer VALUES (4, 3, NULL, NULL)")
        .await
        .unwrap();
    world.run().await;
    assert_eq!(world.quarantine().await.len(), 2);
    let schema = world.pack().join("schema.sql");
    let text = std::fs::read_to_string(&schema).unwrap();
    std::fs::write(&schema, format!("{text}; ALTER TABLE dim_area ALTER name DROP NOT NULL")).unwrap();
    assert_eq!(world.run().await["load"]["schema_waits"], true);
    // With the next batch, whatever it is.
    world.source.batch_execute("UPDATE orders SET amount = 7 WHERE id = 10").await.unwrap();
    world.run_and_agree().await;
    assert_eq!(world.quarantine().await, [""; 0]);
    assert_eq!(world.run().await["load"]["schema_waits"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_occurs_twice() {
    let star = "CREATE TABLE IF NOT EXISTS dim_t (k text PRIMARY KEY, v text)";
    let columns = "id integer PRIMARY KEY, k text, v text";
    let rows = "(1, 'a', '1'), (2, 'a', '2'), (3, 'b', '3'), (4, 'b', '3'), (5, 'c', '4')";
    let world = one_table(columns, star, "SELECT DISTINCT k, v FROM t", rows).await;
    world.run().await;
    assert_eq!(all(&world, "k || v", "dim_t").await, "b3 c4");
    let twice = "dim_t k=a: the key occurs 2 times, with different rows";
    assert_eq!(world.quarantine().await, [twice, twice]);
    world.source.batch_execute("UPDATE t SET v = '5' WHERE k = 'a'").await.unwrap();
    let report = world.run().await;
    assert_eq!(all(&world, "k || v", "dim_t").await, "a5 b3 c4", "{report}");
    assert_eq!(world.quarantine().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_occur_twice_among_many_new_ones() {
    let star = "CREATE TABLE IF NOT EXISTS dim_t (k text PRIMARY KEY, v text)";
    let rows = "(1, 'a', '1'), (2, 'a', '2'), (3, 'b', '3'), (4, 'b', '3')";
    let world = one_table("id integer PRIMARY KEY, k text, v text", star, "SELECT DISTINCT k, v FROM t", rows).await;
    world.change("INSERT INTO t SELECT i, 'k' || i % 3000, 'new' FROM generate_series(10, 5000) i").await;
    world.run().await;
    assert_eq!(all(&world, "k || v", "dim_t WHERE k < 'k'").await, "b3");
    assert_eq!(world.in_warehouse("SELECT count(*) FROM dim_t").await, Some("3001".into()));
    assert_eq!(world.quarantine().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_a_set_of_values_cannot_hold_is_left_out_and_counted() {
    let star = "CREATE TABLE IF NOT EXISTS dim_t (day date PRIMARY KEY CHECK (day > '2000-01-01'))";
    let rows = "(1, '2024-01-01'), (2, 'tbc'), (3, '1999-01-01'), (4, '2024-01-01')";
    let world =
        one_table("id integer PRIMARY KEY, v text", star, "SELECT DISTINCT CAST(v AS DATE) AS day FROM t", rows).await;
    let report = world.run().await;
    assert_eq!(report["transform"]["batches"][0]["tables"][0]["left_out"], 1, "{report}");
    assert_eq!(all(&world, "day::text", "dim_t").await, "2024-01-01");
    assert_eq!(
        world.quarantine().await,
        ["dim_t day=1999-01-01: the CHECK constraint dim_t_day_check refuses it: (day > '2000-01-01'::date)"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quarantine_is_listed_shown_and_discarded() {
    let world = World::totesys().await;
    world.run().await;
    world
        .source
        .batch_execute(
            "UPDATE sales_order SET agreed_payment_date = '2024-02-30' WHERE sales_order_id = 6;
             UPDATE counterparty SET counterparty_legal_name = '' WHERE counterparty_id = 1;
             INSERT INTO \"transaction\" VALUES (500, 'SALE', NULL, NULL, '2024-01-01', '2024-01-01')",
        )
        .await
        .unwrap();
    let finished: Finished = world.blackwater(&["run"]).await;
    assert_eq!(finished.code, Some(0));
    assert!(finished.stderr.contains("1 row is in quarantine: `blackwater quarantine list`"), "{}", finished.stderr);
    assert_eq!(world.blackwater(&["run", "--strict"]).await.code, Some(3));
    assert_eq!(world.blackwater(&["load", "--strict"]).await.code, Some(3));

    let shown = world.blackwater(&["quarantine", "show", "fact_sales_order", "6"]).await.report();
    let entry = &shown[0];
    assert_eq!((entry["batch"].as_u64(), entry["key"]["sales_order_id"].as_str()), (Some(2), Some("6")));
    let source_row = entry["source_row"].as_array().unwrap();
    let columns = world.manifests()[0]["tables"]["sales_order"]["columns"].as_array().unwrap().len();
    assert_eq!(source_row.len(), columns);
    assert!(source_row.contains(&serde_json::json!(["agreed_payment_date", "2024-02-30"])), "{source_row:?}");
    let status = world.blackwater(&["status"]).await.report();
    let table = |name: &str| {
        status["tables"].as_array().unwrap().iter().find(|t| t["table"] == name).unwrap()["quarantined"].clone()
    };
    assert_eq!((table("fact_sales_order"), table("dim_staff")), (Value::from(1), Value::from(0)));

    world
        .blackwater(&["quarantine", "discard", "fact_sales_order", "7"])
        .await
        .says(1, &["no row of fact_sales_order with 7", "quarantine list"]);
    world.blackwater(&["quarantine", "discard", "fact_sales_order", "sales_order_id=6"]).await.report();
    assert_eq!(world.quarantine().await, [""; 0]);
    // It stays out, also when it is read again, and is missed nowhere.
    world.blackwater(&["extract", "--full", "sales_order"]).await.report();
    world.run().await;
    assert_eq!(world.quarantine().await, [""; 0]);
    let verdict = world.blackwater(&["verify"]).await.report();
    let facts =
        verdict["tables"].as_array().unwrap().iter().find(|table| table["table"] == "fact_sales_order").unwrap();
    assert_eq!(facts["held_back"], 1, "{verdict}");
    world.source.batch_execute("UPDATE design SET file_name = 'x'").await.unwrap();
    let report = world.run().await;
    assert_eq!(
        (&report["load"]["wanted"], &report["load"]["batches"][0]["notices"]),
        (&serde_json::json!([]), &serde_json::json!([]))
    );
    // Until it changes.
    world
        .source
        .batch_execute("UPDATE sales_order SET agreed_payment_date = '2024-02-31' WHERE sales_order_id = 6")
        .await
        .unwrap();
    world.run().await;
    assert_eq!(
        world.quarantine().await,
        ["fact_sales_order sales_order_id=6: CAST(agreed_payment_date AS DATE): \"2024-02-31\" is no date"]
    );
    world.source.batch_execute("DELETE FROM sales_order WHERE sales_order_id = 6").await.unwrap();
    world.run_and_agree().await;
    assert_eq!(world.quarantine().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_waited_does_not_overwrite_what_came_after_it() {
    let world = orders().await;
    world.run_and_agree().await;
    // Both wait, for different areas; the one that the newer waits for comes first.
    for (customer, area) in [(1, 70), (1, 80)] {
        world.source.batch_execute(&format!("UPDATE customer SET area = {area} WHERE id = {customer}")).await.unwrap();
        world.run().await;
    }
    world.source.batch_execute("INSERT INTO area VALUES (80, 'eighty')").await.unwrap();
    world.run_and_agree().await;
    world.source.batch_execute("INSERT INTO area VALUES (70, 'seventy')").await.unwrap();
    world.run_and_agree().await;
    assert_eq!(world.quarantine().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_refer_to_each_other_come_out_together() {
    let world = orders().await;
    world.run_and_agree().await;
    // 7 and 8 need each other, 9 needs both; 7 is in an area that is not there. 6 needs one who never comes.
    world
        .source
        .batch_execute(
            "INSERT INTO customer VALUES (7, 3, 8, NULL), (8, 1, 7, NULL), (9, 1, 8, NULL), (6, 1, 66, NULL);
             INSERT INTO orders VALUES (13, 9, 1)",
        )
        .await
        .unwrap();
    world.run().await;
    assert_eq!(world.quarantine().await.len(), 5);
    world.source.batch_execute("UPDATE customer SET area = 2 WHERE id = 7").await.unwrap();
    world.run().await;
    assert_eq!(all(&world, "id::text", "dim_customer").await, "1 2 3 7 8 9");
    assert_eq!(all(&world, "id::text", "current_fact_order").await, "10 11 12 13");
    assert_eq!(world.quarantine().await, ["dim_customer id=6: parent = 66 is not in public.dim_customer"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_since_many_batches_comes_out_in_one() {
    let world = orders().await;
    world.source.batch_execute("INSERT INTO orders VALUES (20, 99, 501)").await.unwrap();
    world.run().await;
    // As if each of 500 batches before had brought a version of this row, and one of another.
    let wait = "INSERT INTO blackwater.ledger
        SELECT l.star_schema, n - 500, l.log, l.extracted, l.transformed, l.pack, l.schema_hash, l.snapshot_at,
               l.effective_at - (501 - n) * interval '1 second', l.forgotten, l.applied_at, 0, 0, 0, 0, 0, 0, '{}', '{}'
        FROM blackwater.ledger l, generate_series(1, 500) n;
        INSERT INTO blackwater.quarantine (star_schema, star_table, key, batch, reason, reference, star_row)
        SELECT star_schema, star_table, jsonb_build_object('id', o.id::text), n - 500, reason, reference,
               json_build_object('id', o.id::text, 'customer', '99', 'amount', n::text)
        FROM blackwater.quarantine, generate_series(1, 500) n, LATERAL (VALUES (20), (1000 + n)) o (id);
        INSERT INTO blackwater.waiting_for
        SELECT w.star_schema, w.star_table, w.constraint_name, w.key, q.id
        FROM blackwater.waiting_for w JOIN blackwater.quarantine q ON q.id <> w.entry";
    world.warehouse.batch_execute(wait).await.unwrap();
    world.source.batch_execute("INSERT INTO customer VALUES (99, NULL, NULL, NULL)").await.unwrap();
    let report = world.run().await;
    assert_eq!(report["load"]["quarantine"], 0, "{report}");
    let versions = "SELECT string_agg(amount::text, ' ' ORDER BY record) FROM fact_order WHERE id = 20";
    let expected: Vec<_> = (1..=501).map(|amount| amount.to_string()).collect();
    assert_eq!(world.in_warehouse(versions).await, Some(expected.join(" ")));
    assert_eq!(world.in_warehouse("SELECT count(*) FROM fact_order WHERE id > 1000").await, Some("500".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_the_warehouse_has_no_value_for() {
    let star =
        "DO $$ BEGIN IF to_regtype('mood') IS NULL THEN CREATE TYPE mood AS ENUM ('good', 'bad'); END IF; END $$;
        CREATE TABLE IF NOT EXISTS dim_t (id mood PRIMARY KEY, v text, deleted_at timestamptz)";
    let rows = "('good', '1'), ('bad', '2'), ('new', '3')";
    let world = one_table("id mood PRIMARY KEY, v text", star, "SELECT id, v FROM t", rows).await;
    let report = world.run().await;
    assert_eq!(
        world.quarantine().await,
        ["dim_t id=new: id: invalid input value for enum public.mood: \"new\""],
        "{report}"
    );
    assert_eq!(report["load"]["wanted"].as_array().unwrap().len(), 0, "{report}");
    world.source.batch_execute("DELETE FROM t WHERE id = 'bad'").await.unwrap();
    world.run().await;
    assert_eq!(all(&world, "id::text", "dim_t WHERE deleted_at IS NULL").await, "good");
    assert_eq!(world.quarantine().await.len(), 1);
    world.warehouse.batch_execute("ALTER TYPE mood ADD VALUE 'new'").await.unwrap();
    world.source.batch_execute("UPDATE t SET v = '4' WHERE id = 'new'").await.unwrap();
    world.run().await;
    assert_eq!(all(&world, "id::text", "dim_t WHERE deleted_at IS NULL").await, "good new");
    assert_eq!(world.quarantine().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_longer_fits_keeps_nothing_else_back() {
    let world = orders().await;
    world.source.batch_execute("INSERT INTO orders VALUES (20, 98, 1.5), (21, 99, 2)").await.unwrap();
    world.run().await;
    let schema = world.pack().join("schema.sql");
    let text = std::fs::read_to_string(&schema).unwrap();
    let to_integer = "ALTER TABLE fact_order ALTER amount TYPE bigint";
    std::fs::write(&schema, format!("{text}; {to_integer}")).unwrap();
    std::fs::write(
        world.pack().join("fact_order.sql"),
        "SELECT id, customer, CAST(CAST(amount AS TEXT) AS BIGINT) AS amount FROM orders",
    )
    .unwrap();
    world.source.batch_execute("INSERT INTO customer VALUES (98, 1, NULL, NULL), (99, 1, NULL, NULL)").await.unwrap();
    world.run().await;
    assert_eq!(all(&world, "id || ':' || amount", "current_fact_order").await, "10:1 11:2 12:3 21:2");
    let left = world.quarantine().await;
    assert!(left.iter().all(|entry| entry.starts_with("fact_order id=20: ")), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_takes_the_value_of_another_waits_until_it_is_free() {
    for deferrable in ["", " DEFERRABLE INITIALLY DEFERRED"] {
        let star = format!(
            "CREATE TABLE IF NOT EXISTS dim_t (id integer PRIMARY KEY, v text UNIQUE{deferrable}, w text, deleted_at timestamptz)"
        );
        let rows = "(1, 'a', ''), (2, 'b', ''), (3, NULL, ''), (4, NULL, ''), (5, 'x', ''), (6, 'x', '')";
        let world = one_table("id integer PRIMARY KEY, v text, w text", &star, "SELECT id, v, w FROM t", rows).await;
        world.run().await;
        assert_eq!(all(&world, "concat(id, v)", "dim_t").await, "1a 2b 3 4");
        let taken = |id: u32, v: &str| format!("dim_t id={id}: v = {v} is taken, by the unique key dim_t_v_key");
        assert_eq!(world.quarantine().await, [taken(5, "x"), taken(6, "x")]);
        world
            .source
            .batch_execute("UPDATE t SET v = 'a' WHERE id = 2; INSERT INTO t VALUES (7, 'c', ''); UPDATE t SET v = 'y' WHERE id = 6")
            .await
            .unwrap();
        world.run().await;
        assert_eq!(all(&world, "concat(id, v)", "dim_t").await, "1a 2b 3 4 5x 6y 7c", "{deferrable}");
        assert_eq!(world.quarantine().await, [taken(2, "a")]);
        world.source.batch_execute("UPDATE t SET v = 'd' WHERE id = 1").await.unwrap();
        world.run().await;
        assert_eq!(all(&world, "concat(id, v)", "dim_t").await, "1d 2a 3 4 5x 6y 7c", "{deferrable}");
        assert_eq!(world.blackwater(&["verify"]).await.code, Some(0));
        if !deferrable.is_empty() {
            let exchange = "UPDATE t SET v = CASE id WHEN 1 THEN 'a' ELSE 'd' END WHERE id IN (1, 2)";
            world.source.batch_execute(exchange).await.unwrap();
            world.run().await;
            assert_eq!(all(&world, "concat(id, v)", "dim_t").await, "1a 2d 3 4 5x 6y 7c");
        }
        assert_eq!(world.quarantine().await, [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_the_same_however_it_is_padded() {
    let source = "CREATE TABLE g (code char(5) PRIMARY KEY, name text);
        CREATE TABLE t (code char(5) PRIMARY KEY, n numeric(5,2) UNIQUE, g char(5), name text);
        INSERT INTO g VALUES ('x', 'one');
        INSERT INTO t VALUES ('ab', 1.5, 'x', NULL), ('abcde', 2, 'y', 'b'), ('c', 3, 'x', 'c'), ('d', 4, 'x', 'd')";
    let schema =
        "CREATE TABLE IF NOT EXISTS dim_g (code char(5) PRIMARY KEY, name text NOT NULL, deleted_at timestamptz);
        CREATE TABLE IF NOT EXISTS dim_t (code char(5) PRIMARY KEY, n numeric(5,2), g char(5) REFERENCES dim_g,
            name text NOT NULL, deleted_at timestamptz)";
    let pack = [
        ("schema.sql", schema),
        ("dim_g.sql", "SELECT code, name FROM g"),
        ("dim_t.sql", "SELECT code, n, g, name FROM t"),
    ];
    let oracle = [
        ("dim_g WHERE deleted_at IS NULL", "SELECT code, name FROM g"),
        ("dim_t WHERE deleted_at IS NULL", "SELECT code, n, g, name FROM t"),
    ];
    let world = World::of(source, &pack, &oracle).await;
    world.run().await;
    assert_eq!(
        world.quarantine().await,
        ["dim_t code=ab: name is NULL, and the column is NOT NULL", "dim_t code=abcde: g = y is not in public.dim_g"]
    );
    let agrees = async || assert_eq!(world.blackwater(&["verify"]).await.code, Some(0));
    agrees().await;
    // What is refused stays where it is when keys are compared.
    world.source.batch_execute("DELETE FROM t WHERE code = 'd'").await.unwrap();
    let report = world.run().await;
    assert_eq!((report["load"]["quarantine"].as_u64(), report["keys"].is_null()), (Some(2), true), "{report}");
    agrees().await;
    world
        .source
        .batch_execute("UPDATE t SET name = 'a' WHERE code = 'ab'; INSERT INTO g VALUES ('y', 'two')")
        .await
        .unwrap();
    world.run_and_agree().await;
    assert_eq!(world.quarantine().await, [""; 0]);
    agrees().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_arrives_as_the_source_prints_it() {
    let star = "CREATE TABLE IF NOT EXISTS dim_t (n numeric PRIMARY KEY, v text, deleted_at timestamptz)";
    let world = one_table("n numeric PRIMARY KEY, v text", star, "SELECT n, v FROM t", "(1.0, 'a'), (2, 'b')").await;
    world.run().await;
    world.source.batch_execute("UPDATE t SET n = 1.00 WHERE n = 1").await.unwrap();
    world.run().await;
    assert_eq!(all(&world, "n || v", "dim_t WHERE deleted_at IS NULL").await, "1.00a 2b");
    assert_eq!(world.blackwater(&["verify"]).await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reference_may_lead_to_a_table_with_partitions() {
    let world = orders().await;
    let schema = world.pack().join("schema.sql");
    let text = std::fs::read_to_string(&schema).unwrap();
    let outside = "CREATE TABLE IF NOT EXISTS scale (amount numeric PRIMARY KEY) PARTITION BY RANGE (amount);
        CREATE TABLE IF NOT EXISTS scale1 PARTITION OF scale FOR VALUES FROM (0) TO (2);
        CREATE TABLE IF NOT EXISTS scale2 PARTITION OF scale FOR VALUES FROM (2) TO (9);
        INSERT INTO scale VALUES (1), (2) ON CONFLICT DO NOTHING";
    std::fs::write(
        &schema,
        format!("{outside}; {}", text.replace("amount numeric,", "amount numeric REFERENCES scale,")),
    )
    .unwrap();
    world.run().await;
    assert_eq!(world.quarantine().await, ["fact_order id=12: amount = 3 is not in public.scale"]);
}
