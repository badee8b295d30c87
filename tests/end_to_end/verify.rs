//! `blackwater verify` finds every difference, and calls none what is only late or set aside.

use blackwater_tests::{Finished, World};
use serde_json::{Value, json};

/// What `verify` says, which must end with this exit code: (table, key, what) of each difference.
async fn differences(world: &World, code: i32) -> Vec<(String, String, Value)> {
    let Finished { code: found, stdout, stderr } = world.blackwater(&["verify"]).await;
    assert_eq!(found, Some(code), "{stdout}{stderr}");
    let report: Value = serde_json::from_str(&stdout).unwrap();
    let mut differences = Vec::new();
    for table in report["tables"].as_array().unwrap() {
        for difference in table["differences"].as_array().unwrap() {
            let key = difference["key"].as_array().unwrap().iter().map(|part| part[1].as_str().unwrap().to_owned());
            let what = match difference["columns"].as_array() {
                Some(columns) => columns.iter().map(|column| column[0].clone()).collect(),
                None => difference["what"].clone(),
            };
            differences.push((table["table"].as_str().unwrap().to_owned(), key.collect::<Vec<_>>().join("/"), what));
        }
    }
    differences
}

/// A count of a table in what `verify` says.
async fn count(world: &World, table: &str, what: &str) -> u64 {
    let report = world.blackwater(&["verify"]).await.report();
    let tables = report["tables"].as_array().unwrap();
    tables.iter().find(|found| found["table"] == table).unwrap()[what].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_byte_in_any_column_of_any_star_table_is_found() {
    let world = World::totesys().await;
    world.blackwater(&["verify"]).await.says(1, &["no batch is applied", "blackwater run"]);
    world.run_and_agree().await;
    assert_eq!(differences(&world, 0).await, []);
    world.warehouse.batch_execute("SET session_replication_role = replica").await.unwrap();
    // Every column that a model returns, less the keys: in each round the next one of each table.
    let columns = "
        SELECT table_name, array_agg(column_name || ':' || data_type ORDER BY ordinal_position)
        FROM (SELECT c.table_name::text, c.column_name::text, c.data_type::text, c.ordinal_position
              FROM information_schema.columns c JOIN information_schema.tables t USING (table_schema, table_name)
              WHERE c.table_schema = 'public' AND t.table_type = 'BASE TABLE' AND c.is_generated = 'NEVER'
                AND c.column_name NOT IN ('valid_from', 'valid_to', 'deleted_at', 'date_id') AND c.column_name !~ '_record_id$'
                AND c.column_name <> regexp_replace(c.table_name, '^(dim|fact)_', '') || '_id') c
        GROUP BY 1 ORDER BY 1";
    let tables: Vec<(String, Vec<String>)> =
        world.warehouse.query(columns, &[]).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(tables.len(), 10, "all but dim_date, which returns its key alone");
    assert_eq!(tables.iter().map(|(_, columns)| columns.len()).sum::<usize>(), 66);
    let rounds = tables.iter().map(|(_, columns)| columns.len()).max().unwrap();
    for round in 0..rounds {
        let (mut expected, mut undo) = (Vec::new(), Vec::new());
        for (table, columns) in &tables {
            let Some((column, kind)) = columns.get(round).and_then(|column| column.split_once(':')) else { continue };
            let key = format!("{}_id", table.split_once('_').unwrap().1);
            let other = match kind {
                "integer" => format!("coalesce({column}, 0) # 1"),
                "numeric" => format!("{column} + 0.01"),
                "boolean" => format!("NOT {column}"),
                "date" => format!("{column} + 1"),
                "time without time zone" => format!("{column} + interval '1 microsecond'"),
                "character varying" => {
                    format!("coalesce(overlay({column} PLACING chr(ascii({column}) # 1) FROM 1), '')")
                }
                other => panic!("{other}"),
            };
            let id = 3 + round as i32 % 2;
            let before =
                format!("CREATE TEMP TABLE before_{table} AS SELECT {key}, {column} FROM {table} WHERE {key} = {id}");
            let change = format!("UPDATE {table} SET {column} = {other} WHERE {key} = {id}");
            world.warehouse.batch_execute(&before).await.unwrap();
            assert_eq!(world.warehouse.execute(&change, &[]).await.unwrap(), 1, "{change}");
            undo.push(format!("UPDATE {table} t SET {column} = b.{column} FROM before_{table} b WHERE b.{key} = t.{key}; DROP TABLE before_{table}"));
            expected.push((table.clone(), id.to_string(), json!([column])));
        }
        assert_eq!(differences(&world, 3).await, expected);
        world.warehouse.batch_execute(&undo.join(";")).await.unwrap();
    }
    assert_eq!(differences(&world, 0).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_missing_or_too_much_is_found() {
    let world = World::totesys().await;
    world.run().await;
    world.warehouse.batch_execute("SET session_replication_role = replica").await.unwrap();
    let last = "SELECT max(date_id)::text FROM dim_date";
    let last = world.in_warehouse(last).await.unwrap();
    for (change, undo, expected) in [
        (
            "UPDATE dim_design SET design_id = 70 WHERE design_id = 7",
            "UPDATE dim_design SET design_id = 7 WHERE design_id = 70",
            vec![("dim_design", "7", "missing"), ("dim_design", "70", "extra")],
        ),
        (
            "UPDATE dim_design SET deleted_at = now() WHERE design_id = 7",
            "UPDATE dim_design SET deleted_at = NULL WHERE design_id = 7",
            vec![("dim_design", "7", "missing")],
        ),
        (
            "INSERT INTO dim_payment_type VALUES (99, 'x')",
            "DELETE FROM dim_payment_type WHERE payment_type_id = 99",
            vec![("dim_payment_type", "99", "extra")],
        ),
        (
            "UPDATE fact_payment SET valid_to = now(), deleted_at = now() WHERE payment_id = 3",
            "UPDATE fact_payment SET valid_to = NULL, deleted_at = NULL WHERE payment_id = 3",
            vec![("fact_payment", "3", "missing")],
        ),
        (
            "UPDATE fact_payment SET deleted_at = now() WHERE payment_id = 3",
            "UPDATE fact_payment SET deleted_at = NULL WHERE payment_id = 3",
            vec![("fact_payment", "3", "versions")],
        ),
        (
            "UPDATE fact_payment SET payment_id = 300 WHERE payment_id = 3",
            "UPDATE fact_payment SET payment_id = 3 WHERE payment_id = 300",
            vec![("fact_payment", "3", "missing"), ("fact_payment", "300", "extra")],
        ),
        (
            "DELETE FROM dim_date WHERE date_id = (SELECT max(date_id) FROM dim_date)",
            "",
            vec![("dim_date", last.as_str(), "missing")],
        ),
    ] {
        world.warehouse.batch_execute(change).await.unwrap();
        let expected: Vec<_> =
            expected.into_iter().map(|(table, key, what)| (table.to_owned(), key.to_owned(), json!(what))).collect();
        assert_eq!(differences(&world, 3).await, expected, "{change}");
        world.warehouse.batch_execute(undo).await.unwrap();
    }
    // A version that no batch brought, and one that holds while another does, or ends though the source has the row.
    world.source.batch_execute("UPDATE payment SET payment_amount = 1 WHERE payment_id IN (3, 4)").await.unwrap();
    world.run().await;
    for (change, what) in [
        ("valid_from = valid_from - interval '1 second'", "extra"),
        ("valid_to = valid_to + interval '1 second'", "versions"),
        ("valid_to = valid_to - interval '1 microsecond'", "versions"),
    ] {
        let keep = "CREATE TEMP TABLE kept AS SELECT payment_record_id AS id, valid_from, valid_to FROM fact_payment";
        let change = format!("UPDATE fact_payment SET {change} WHERE payment_id = 3 AND valid_to IS NOT NULL");
        world.warehouse.batch_execute(&format!("{keep}; {change}")).await.unwrap();
        assert!(differences(&world, 3).await.contains(&("fact_payment".into(), "3".into(), json!(what))), "{change}");
        let undo = "UPDATE fact_payment f SET valid_from = kept.valid_from, valid_to = kept.valid_to FROM kept
                    WHERE f.payment_record_id = kept.id; DROP TABLE kept";
        world.warehouse.batch_execute(undo).await.unwrap();
    }
    // A date that nothing names any more is no difference.
    world.warehouse.batch_execute("INSERT INTO dim_date (date_id) VALUES ('1999-12-31')").await.unwrap();
    assert_eq!(differences(&world, 3).await.len(), 1, "only the one that was deleted above");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_late_or_set_aside_is_no_difference() {
    let world = World::totesys().await;
    world.run().await;
    world
        .source
        .batch_execute(
            "UPDATE sales_order SET units_sold = 1 WHERE sales_order_id IN (4, 5);
             UPDATE department SET location = 'x' WHERE department_id = 4;
             DELETE FROM payment WHERE payment_id IN (1, 2);
             UPDATE design SET design_id = 77 WHERE design_id = (
                 SELECT max(design_id) FROM design d WHERE NOT EXISTS (SELECT FROM sales_order s WHERE s.design_id = d.design_id));
             UPDATE purchase_order SET agreed_payment_date = 'tbc' WHERE purchase_order_id IN (1, 2);
             INSERT INTO design (design_name, file_location, file_name, created_at, last_updated)
             VALUES ('a', 'b', 'c', '2030-01-01', '2030-01-01')",
        )
        .await
        .unwrap();
    assert_eq!(differences(&world, 0).await, []);
    assert_eq!(count(&world, "fact_payment", "not_yet").await, 2);
    assert_eq!(count(&world, "fact_purchase_order", "not_yet").await, 2);
    assert_eq!(count(&world, "dim_staff", "not_yet").await, 1);
    assert_eq!(count(&world, "dim_design", "not_yet").await, 3, "two that came, and one that went");
    world.run().await;
    assert_eq!(differences(&world, 0).await, []);
    for (table, what, expected) in [
        ("fact_purchase_order", "held_back", 2),
        ("fact_purchase_order", "not_yet", 0),
        ("fact_payment", "not_yet", 0),
        ("dim_design", "not_yet", 0),
    ] {
        assert_eq!(count(&world, table, what).await, expected, "{table} {what}");
    }
    // Somebody empties the quarantine.
    world
        .warehouse
        .batch_execute("DELETE FROM blackwater.quarantine WHERE key->>'purchase_order_id' = '2'")
        .await
        .unwrap();
    assert_eq!(differences(&world, 3).await, [("fact_purchase_order".into(), "2".into(), json!("refused"))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_warehouse_refuses_is_held_back_as_it_is_and_only_then() {
    let source = "CREATE TABLE g (id integer PRIMARY KEY, name text);
        CREATE TABLE t (id integer PRIMARY KEY, amount numeric, code text, g integer, day date, kept boolean);
        INSERT INTO g VALUES (1, 'one');
        INSERT INTO t VALUES (1, 1.5, 'abc', 1, '2024-01-01', true), (2, 1.005, 'abc', 1, NULL, true),
            (3, 1, 'abcd', 1, NULL, true), (4, 1, 'abc', 9, NULL, true), (5, 1, NULL, 1, NULL, true),
            (6, 1, 'abc', 1, 'infinity', true), (7, 1, 'abc', 1, NULL, false), (8, 1, 'x', 1, NULL, true)";
    let schema = "CREATE TABLE IF NOT EXISTS dim_g (id integer PRIMARY KEY, name text, deleted_at timestamptz);
        CREATE TABLE IF NOT EXISTS dim_t (id integer PRIMARY KEY, amount numeric(5,2), code varchar(3) NOT NULL CHECK (code <> 'x'),
            g integer REFERENCES dim_g, day date, deleted_at timestamptz)";
    let pack = [
        ("schema.sql", schema),
        ("dim_g.sql", "SELECT id, name FROM g"),
        ("dim_t.sql", "SELECT t.id, t.amount, t.code, t.g, t.day FROM t WHERE t.kept"),
    ];
    let world = World::of(source, &pack, &[]).await;
    world.run().await;
    assert_eq!(world.quarantine().await.len(), 6);
    assert_eq!(differences(&world, 0).await, []);
    assert_eq!((count(&world, "dim_t", "held_back").await, count(&world, "dim_t", "equal").await), (6, 1));
    // What is in quarantine is not what the source has.
    world
        .warehouse
        .batch_execute(
            "UPDATE blackwater.quarantine SET star_row = replace(star_row::text, '\"1', '\"2')::json, reason = 'x'",
        )
        .await
        .unwrap();
    let differing = differences(&world, 3).await;
    let keys: Vec<_> = differing.iter().map(|(_, key, _)| key.as_str()).collect();
    assert_eq!(keys, ["2", "3", "4", "5", "6"], "of the first five");
    world.warehouse.batch_execute("DELETE FROM blackwater.quarantine").await.unwrap();
    assert_eq!(differences(&world, 3).await.len(), 5);
    // What the model does not let through.
    world.warehouse.batch_execute("INSERT INTO dim_t VALUES (7, 1, 'abc', 1)").await.unwrap();
    world.source.batch_execute("DELETE FROM t WHERE id NOT IN (1, 7)").await.unwrap();
    assert_eq!(differences(&world, 3).await, [("dim_t".into(), "7".into(), json!("not_let_through"))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_table_is_compared_in_the_order_of_its_keys() {
    let source = "CREATE TABLE t (a text, b integer, v text, PRIMARY KEY (a, b));
        INSERT INTO t SELECT chr(65 + n % 50) || E'\t\\\\' || (n % 7), n, md5(n::text) FROM generate_series(1, 20000) n";
    let schema =
        "CREATE TABLE IF NOT EXISTS fact_t (record bigserial PRIMARY KEY, valid_from timestamptz NOT NULL, valid_to timestamptz, a text NOT NULL, b bigint NOT NULL, v text,
        deleted_at timestamptz); CREATE UNIQUE INDEX IF NOT EXISTS fact_t_open ON fact_t (a, b) WHERE valid_to IS NULL";
    let pack = [("schema.sql", schema), ("fact_t.sql", "SELECT a, b, v FROM t")];
    let world = World::of(source, &pack, &[("current_fact_t", "SELECT a, b, v FROM t")]).await;
    world.run_and_agree().await;
    assert_eq!(count(&world, "fact_t", "equal").await, 20_000);
    world
        .warehouse
        .batch_execute(
            "UPDATE fact_t SET v = v || ' ' WHERE b IN (1, 8192, 8193, 16384, 20000); DELETE FROM fact_t WHERE b = 9000;
             INSERT INTO fact_t (a, b, valid_from) VALUES ('zz', 1, now())",
        )
        .await
        .unwrap();
    let report = world.blackwater(&["verify"]).await;
    assert_eq!(report.code, Some(3));
    let report: Value = serde_json::from_str(&report.stdout).unwrap();
    let fact = &report["tables"][0];
    // Of the last, no batch is known.
    assert_eq!((fact["different"].as_u64(), fact["equal"].as_u64()), (Some(7), Some(19_994)), "{report}");
    assert_eq!(fact["differences"].as_array().unwrap().len(), 5);
}
