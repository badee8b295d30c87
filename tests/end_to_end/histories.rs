//! Facts keep every version; the views over them show the newest.

use std::collections::{BTreeMap, BTreeSet};

use blackwater_local::totesys;
use blackwater_tests::World;
use serde_json::{Value, json};

use crate::deletions::Dice;

/// What a run changed: (table, inserted, updated, deleted) of each table that it changed.
fn changed(report: &Value) -> Vec<Value> {
    let batches = report["load"]["batches"].as_array().unwrap();
    let tables = batches.iter().flat_map(|batch| batch["tables"].as_array().unwrap());
    let counts = tables.map(|table| json!([table["table"], table["inserted"], table["updated"], table["deleted"]]));
    counts.filter(|counts| counts.as_array().unwrap()[1..].iter().any(|count| *count != 0)).collect()
}

/// The versions of one sales order, oldest first, each with the batch that brought it.
async fn versions(world: &World, order: i32) -> Option<String> {
    let sql = format!(
        "SELECT string_agg(concat_ws(' ', f.units_sold, f.agreed_delivery_date, 'in', b.batch, 'until ' || e.batch), ', '
                           ORDER BY f.valid_from)
         FROM fact_sales_order f JOIN blackwater.ledger b ON b.effective_at = f.valid_from
         LEFT JOIN blackwater.ledger e ON e.effective_at = f.valid_to
         WHERE f.sales_order_id = {order}"
    );
    world.in_warehouse(&sql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_of_the_sample_has_the_effect_that_is_written_there() {
    let world = World::totesys().await;
    world.run_and_agree().await;
    let file = totesys::file("changes.sql");
    let mut steps: Vec<String> = Vec::new();
    for line in file.lines() {
        match line.strip_prefix("-- ") {
            Some(name) if name.starts_with(|c: char| c.is_ascii_digit()) => steps.push(line.to_owned()),
            _ => steps.iter_mut().next_back().into_iter().for_each(|step| step.extend(["\n", line])),
        }
    }
    let expected = [
        json!([["dim_transaction", 1, 0, 0], ["fact_sales_order", 1, 0, 0], ["fact_payment", 1, 0, 0]]),
        json!([["fact_sales_order", 1, 0, 0]]),
        json!([["dim_design", 0, 1, 0]]),
        json!([["fact_payment", 5, 0, 0]]),
        json!([["dim_staff", 0, 1, 0]]),
        json!([["dim_counterparty", 0, 2, 0], ["dim_location", 0, 1, 0]]),
        json!([["dim_counterparty", 0, 1, 0], ["dim_location", 0, 1, 0]]),
        json!([["dim_design", 1, 0, 0]]),
        json!([["dim_currency", 1, 0, 0]]),
        json!([["dim_transaction", 0, 0, 1], ["fact_payment", 0, 0, 1], ["fact_sales_order", 0, 0, 1]]),
        json!([["dim_transaction", 0, 1, 0], ["fact_sales_order", 0, 0, 1]]),
        json!([]),
    ];
    assert_eq!(steps.len(), expected.len());
    for (number, (step, expected)) in steps.iter().zip(expected).enumerate() {
        let name = step.lines().next().unwrap();
        world.source.batch_execute(step).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let report = world.run().await;
        let mut found = changed(&report);
        // Dates come and go with the orders; the oracle judges them.
        found.retain(|counts| counts[0] != "dim_date");
        let sorted = |mut of: Vec<Value>| {
            of.sort_by_key(|counts| counts[0].to_string());
            of
        };
        assert_eq!(sorted(found), sorted(expected.as_array().unwrap().clone()), "{name}");
        if number < 11 {
            world.agree().await;
        }
        assert_eq!(world.run().await["extract"]["outcome"], "nothing", "{name}");
    }
    let set_aside = [
        "fact_purchase_order purchase_order_id=2: CAST(agreed_delivery_date AS DATE): \"tbc\" is no date",
        "fact_sales_order sales_order_id=6: CAST(agreed_payment_date AS DATE): \"2024-02-30\" is no date",
    ];
    assert_eq!(world.quarantine().await, set_aside);
    let former = "SELECT count(*) FROM current_fact_sales_order WHERE sales_order_id = 6";
    assert_eq!(world.in_warehouse(former).await, Some("1".into()), "its former version stays");
    world
        .source
        .batch_execute(
            "UPDATE sales_order SET agreed_payment_date = '2024-02-29' WHERE sales_order_id = 6;
             UPDATE purchase_order SET agreed_delivery_date = '2024-03-01' WHERE purchase_order_id = 2",
        )
        .await
        .unwrap();
    let found = changed(&world.run_and_agree().await);
    for fact in ["fact_sales_order", "fact_purchase_order"] {
        assert!(found.contains(&json!([fact, 1, 0, 0])), "{found:?}");
    }
    assert_eq!(world.quarantine().await, [""; 0]);
    let silent =
        "SELECT count(*) || ' ' || count(DISTINCT (last_updated_date, last_updated_time)) FROM fact_sales_order
                  WHERE sales_order_id = 4";
    assert_eq!(world.in_warehouse(silent).await, Some("2 1".into()), "two versions with one last_updated");
    assert_eq!(world.in_warehouse("SELECT address_line_2 FROM dim_location WHERE location_id = 6").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_comes_back_is_a_version_and_one_that_stays_is_none() {
    let world = World::totesys().await;
    world.run().await;
    let first = versions(&world, 7).await.unwrap();
    assert!(first.ends_with(" in 1"), "{first}");
    let was: i32 = world
        .source
        .query_one("SELECT units_sold FROM sales_order WHERE sales_order_id = 7", &[])
        .await
        .unwrap()
        .get(0);
    for units in [5000, was, was] {
        let update = format!("UPDATE sales_order SET units_sold = {units} WHERE sales_order_id = 7");
        world.source.batch_execute(&update).await.unwrap();
        world.run_and_agree().await;
    }
    let day = first.split(' ').nth(1).unwrap().to_owned();
    let expected = format!("{was} {day} in 1 until 2, 5000 {day} in 2 until 3, {was} {day} in 3");
    assert_eq!(versions(&world, 7).await, Some(expected.clone()), "A, B, A, and A written once more");

    // Every row again, from a full reading and from an empty processed log.
    world.blackwater(&["extract", "--full"]).await.report();
    let report = world.run_and_agree().await;
    assert_eq!(changed(&report), Vec::<Value>::new());
    assert_eq!(versions(&world, 7).await, Some(expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn several_changes_before_a_run_are_one_version() {
    let world = World::totesys().await;
    world.run().await;
    for units in [1, 2, 3] {
        let update = format!("UPDATE sales_order SET units_sold = {units} WHERE sales_order_id IN (1, 2)");
        world.source.batch_execute(&update).await.unwrap();
    }
    let report = world.run_and_agree().await;
    assert_eq!(changed(&report), [json!(["fact_sales_order", 2, 0, 0])]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_batches_that_are_applied_at_once_keep_their_versions() {
    let world = World::totesys().await;
    for units in [11, 22, 33] {
        let update = format!("UPDATE sales_order SET units_sold = {units} WHERE sales_order_id = 3");
        world.source.batch_execute(&update).await.unwrap();
        world.blackwater(&["extract"]).await.report();
    }
    world.run_and_agree().await;
    let found = versions(&world, 3).await.unwrap();
    let units: Vec<_> = found.split(", ").map(|version| version.split(' ').next().unwrap()).collect();
    assert_eq!(units, ["11", "22", "33"], "{found}");
}

/// What roles may do with the view, in one line.
const GRANTS: &str = "
    SELECT string_agg(a, ', ' ORDER BY a) FROM (
        SELECT CASE WHEN acl.grantee = 0 THEN 'PUBLIC' ELSE acl.grantee::regrole::text END || ' ' || privilege_type
               || CASE WHEN is_grantable THEN '*' ELSE '' END || ' of ' || pg_get_userbyid(relowner) AS a
        FROM pg_class, aclexplode(relacl) acl WHERE oid = 'current_fact_sales_order'::regclass AND grantee <> relowner
        UNION ALL
        SELECT acl.grantee::regrole::text || ' ' || attname FROM pg_attribute, aclexplode(attacl) acl
        WHERE attrelid = 'current_fact_sales_order'::regclass) g";

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_schema_makes_the_views_again_with_their_grants() {
    let world = World::totesys().await;
    world.run().await;
    let grants = "
        CREATE ROLE analyst; CREATE ROLE \"Bob's\"; CREATE ROLE keeper SUPERUSER;
        GRANT SELECT ON current_fact_sales_order TO analyst WITH GRANT OPTION;
        GRANT SELECT (unit_price, units_sold) ON current_fact_sales_order TO \"Bob's\";
        GRANT SELECT ON current_fact_sales_order TO PUBLIC;
        ALTER VIEW current_fact_sales_order OWNER TO keeper";
    world.warehouse.batch_execute(grants).await.unwrap();
    let before = world.in_warehouse(GRANTS).await;
    let expected = "\"Bob's\" unit_price, \"Bob's\" units_sold, PUBLIC SELECT of keeper, analyst SELECT* of keeper";
    assert_eq!(before.as_deref(), Some(expected));

    // A view that people made is in the way of a changed table, and is not dropped for them.
    let theirs = "CREATE VIEW revenue AS SELECT sum(unit_price * units_sold) FROM current_fact_sales_order";
    world.warehouse.batch_execute(theirs).await.unwrap();
    let schema = world.pack().join("schema.sql");
    let more = "ALTER TABLE fact_sales_order ADD COLUMN IF NOT EXISTS amount numeric
                    GENERATED ALWAYS AS (units_sold * unit_price) STORED;
                ALTER TABLE fact_sales_order DROP COLUMN IF EXISTS deleted_at;";
    std::fs::write(&schema, format!("{}\n{more}", std::fs::read_to_string(&schema).unwrap())).unwrap();
    world.source.batch_execute("UPDATE sales_order SET units_sold = 10 WHERE sales_order_id = 1").await.unwrap();
    let stopped = world.blackwater(&["run"]).await;
    stopped.says(1, &["current_fact_sales_order", "schema.sql has changed", "revenue depends on", "make it anew"]);
    assert_eq!(world.in_warehouse(GRANTS).await, before, "a load that stopped changed something");

    world.warehouse.batch_execute("DROP VIEW revenue").await.unwrap();
    world.run_and_agree().await;
    assert_eq!(world.in_warehouse(GRANTS).await, before);
    let amount = "SELECT amount - units_sold * unit_price FROM current_fact_sales_order WHERE sales_order_id = 1";
    assert_eq!(world.in_warehouse(amount).await, Some("0.00".into()), "the view lacks the new column");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_of_the_same_name_is_left_alone() {
    let world = World::totesys().await;
    world.warehouse.batch_execute("CREATE VIEW current_fact_payment AS SELECT 1 AS mine").await.unwrap();
    world.blackwater(&["run"]).await.says(1, &["current_fact_payment", "already exists"]);
    assert_eq!(world.in_warehouse("SELECT mine FROM current_fact_payment").await, Some("1".into()));
    world.warehouse.batch_execute("DROP VIEW current_fact_payment").await.unwrap();
    world.run_and_agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_may_read_the_views() {
    let world = World::totesys().await;
    world.warehouse.batch_execute("CREATE ROLE quicksight").await.unwrap();
    let configuration = std::fs::read_to_string(world.configuration()).unwrap();
    let readers = configuration.replace("[warehouse]\n", "[warehouse]\nreaders = [\"quicksight\"]\n");
    std::fs::write(world.configuration(), readers).unwrap();
    world.run().await;
    let may = "SELECT has_table_privilege('quicksight', 'current_fact_payment', 'SELECT')";
    assert_eq!(world.in_warehouse(may).await, Some("t".into()));
    let sum = "SET ROLE quicksight; SELECT count(*) FROM current_fact_payment";
    assert_ne!(world.in_warehouse(sum).await, Some("0".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_of_values_needs_a_key() {
    let world = World::totesys().await;
    let schema = world.pack().join("schema.sql");
    let more = "CREATE TABLE IF NOT EXISTS dim_city (id serial PRIMARY KEY, city text)";
    std::fs::write(&schema, format!("{}\n{more}", std::fs::read_to_string(&schema).unwrap())).unwrap();
    std::fs::write(world.pack().join("dim_city.sql"), "SELECT DISTINCT city FROM address").unwrap();
    world.blackwater(&["run"]).await.says(1, &["dim_city", "a set of values", "Give it a key"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_may_have_any_name() {
    let columns = ["place", "t", "s", "v", "a", "since", "batch", "pos", "kind", "next", "k0", "needed", "0:id"];
    let quoted: Vec<_> = columns.iter().map(|column| format!("\"{column}\"")).collect();
    let typed = |kind: &str| quoted.iter().map(|column| format!("{column} {kind}")).collect::<Vec<_>>().join(", ");
    let source = format!(
        "CREATE TABLE t (id integer PRIMARY KEY, {}); INSERT INTO t (id, place) VALUES (1, 'a'), (2, NULL)",
        typed("text")
    );
    let schema = format!(
        "CREATE TABLE IF NOT EXISTS f (n serial PRIMARY KEY, id integer NOT NULL, {}, valid_from timestamptz NOT NULL,
             valid_to timestamptz);
         CREATE UNIQUE INDEX IF NOT EXISTS f_open ON f (id) WHERE valid_to IS NULL",
        typed("text")
    );
    let model = format!("SELECT id, {} FROM t", quoted.join(", "));
    let pack = [("schema.sql", schema.as_str()), ("f.sql", model.as_str())];
    let world = World::of(&source, &pack, &[("current_f", "SELECT * FROM t")]).await;
    world.run_and_agree().await;
    world.source.batch_execute("UPDATE t SET place = 'b', batch = 'c', since = ''").await.unwrap();
    world.run_and_agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_is_told_what_it_lacks_in_statements_that_add_it() {
    let schema = "CREATE TABLE IF NOT EXISTS fact_t (record serial PRIMARY KEY, \"Id\" integer NOT NULL, v text)";
    let source = "CREATE TABLE t (id integer PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'), (2, 'b')";
    let model = "SELECT id AS \"Id\", v FROM t";
    let oracle = [("current_fact_t", model)];
    let world = World::of(source, &[("schema.sql", schema), ("fact_t.sql", model)], &oracle).await;
    let mut text = schema.to_owned();
    for lacks in ["valid_from timestamptz NOT NULL", "two open versions"] {
        world.blackwater(&["run"]).await.says(1, &["fact_t", lacks]);
        let findings = world.errors().await;
        assert!(findings.len() == 1 && findings[0].contains(lacks), "{findings:?}");
        let (_, statements) = findings[0].split_once("In schema.sql: ").unwrap();
        text = format!("{text};\n{statements}");
        world.write_schema(&text);
    }
    world.run_and_agree().await;
    world.change("UPDATE t SET v = 'c' WHERE id = 1").await;
    world.run_and_agree().await;
    assert_eq!(world.in_warehouse("SELECT count(*) FROM fact_t").await, Some("3".into()));
}

/// What the test knows of a source row: its content, and the row that it refers to.
type Row = (String, i32);

/// The run that brought a version, its content, and the run that ended it.
type Version = (usize, Row, Option<usize>);

/// The history that the source's states imply, by runs instead of times.
#[derive(Default)]
struct Expected {
    /// By key the versions, oldest first.
    versions: BTreeMap<i32, Vec<Version>>,
    /// By key what waits for the row that it refers to, oldest first.
    waiting: BTreeMap<i32, Vec<(usize, Row)>>,
}

impl Expected {
    /// A run that met `before` as `now`, while the rows in `there` could be referred to.
    fn run(&mut self, run: usize, before: &BTreeMap<i32, Row>, now: &BTreeMap<i32, Row>, there: &BTreeSet<i32>) {
        for key in before.keys().chain(now.keys()).collect::<BTreeSet<_>>() {
            let (versions, waiting) = (self.versions.entry(*key).or_default(), self.waiting.entry(*key).or_default());
            if let Some(row) = now.get(key).filter(|row| before.get(key) != Some(row)) {
                waiting.push((run, row.clone()));
            }
            let ready: Vec<_> = waiting.extract_if(.., |(_, row)| there.contains(&row.1)).collect();
            for (since, row) in ready {
                waiting.retain(|(older, _)| *older > since);
                match versions.last_mut().filter(|version| version.2.is_none()) {
                    Some(open) if open.1 == row => continue,
                    Some(open) => open.2 = Some(since),
                    None => {}
                }
                versions.push((since, row, None));
            }
            if !now.contains_key(key) {
                waiting.clear();
                versions.iter_mut().filter(|version| version.2.is_none()).for_each(|version| version.2 = Some(run));
            }
        }
    }

    /// The rows that were valid after a run.
    fn after(&self, run: usize) -> BTreeMap<i32, Row> {
        let valid = |(key, versions): (&i32, &Vec<Version>)| {
            let valid = |version: &&Version| version.0 <= run && version.2.is_none_or(|until| until > run);
            versions.iter().find(valid).map(|version| (*key, version.1.clone()))
        };
        self.versions.iter().filter_map(valid).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_comes_and_goes_each_version_holds_when_the_source_had_it() {
    let schema = "CREATE TABLE IF NOT EXISTS dim_d (id integer PRIMARY KEY, deleted_at timestamptz);
        CREATE TABLE IF NOT EXISTS fact_t (id integer NOT NULL, v text, d integer REFERENCES dim_d,
            valid_from timestamptz, valid_to timestamptz CHECK (valid_to > valid_from), deleted_at timestamptz,
            PRIMARY KEY (id, valid_from));
        CREATE UNIQUE INDEX IF NOT EXISTS fact_t_open ON fact_t (id) WHERE valid_to IS NULL";
    let source = "CREATE TABLE d (id integer PRIMARY KEY); CREATE TABLE t (id integer PRIMARY KEY, v text, d integer);
        INSERT INTO d VALUES (0); INSERT INTO t SELECT i, 'a', i % 3 FROM generate_series(1, 6) i";
    let pack = [("schema.sql", schema), ("dim_d.sql", "SELECT id FROM d"), ("fact_t.sql", "SELECT id, v, d FROM t")];
    let world = World::of(source, &pack, &[]).await;
    let (mut dice, mut expected) = (Dice(7), Expected::default());
    let (mut before, mut there) = (BTreeMap::new(), BTreeSet::new());
    // The last batch of each run.
    let mut batches = Vec::new();
    for run in 0..40 {
        for _ in 0..dice.throw(5) {
            let (id, v, d) = (dice.throw(8), dice.throw(3), dice.throw(9));
            let sql = match dice.throw(10) {
                0..=3 => format!("UPDATE t SET v = 'v{v}', d = {d} WHERE id = {id}"),
                4..=6 => format!("INSERT INTO t VALUES ({id}, 'v{v}', {d}) ON CONFLICT DO NOTHING"),
                7 => format!("INSERT INTO d VALUES ({d}) ON CONFLICT DO NOTHING"),
                _ => format!("DELETE FROM t WHERE id = {id}"),
            };
            println!("{sql}");
            world.change(&sql).await;
        }
        if dice.throw(6) == 0 && run > 0 {
            println!("-- the source's clock goes back by an hour");
            let later = "UPDATE fact_t f SET
                    valid_from = valid_from + CASE WHEN valid_from = l.effective_at THEN interval '1 hour' ELSE '0' END,
                    valid_to = valid_to + CASE WHEN valid_to = l.effective_at THEN interval '1 hour' ELSE '0' END,
                    deleted_at = deleted_at + CASE WHEN deleted_at = l.effective_at THEN interval '1 hour' ELSE '0' END
                FROM (SELECT max(effective_at) AS effective_at FROM blackwater.ledger) l;
                UPDATE blackwater.ledger SET effective_at = effective_at + interval '1 hour'
                WHERE batch = (SELECT max(batch) FROM blackwater.ledger)";
            world.warehouse.batch_execute(later).await.unwrap();
        }
        println!("-- run {run}");
        world.run().await;
        let now = world.source.query("SELECT id, v, d FROM t", &[]).await.unwrap();
        let now: BTreeMap<i32, Row> = now.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect();
        there.extend(world.source.query("SELECT id FROM d", &[]).await.unwrap().iter().map(|row| row.get::<_, i32>(0)));
        expected.run(run, &before, &now, &there);
        before = now;
        let batch = world.in_warehouse("SELECT max(batch) FROM blackwater.ledger").await.unwrap();
        batches.push(batch.parse::<i64>().unwrap());
    }
    let as_of = "SELECT f.id, f.v, f.d FROM fact_t f JOIN blackwater.ledger l ON l.batch = $1
        WHERE f.valid_from <= l.effective_at AND (f.valid_to > l.effective_at OR f.valid_to IS NULL)";
    for (run, batch) in batches.iter().enumerate() {
        let found = world.warehouse.query(as_of, &[batch]).await.unwrap();
        let found: BTreeMap<i32, Row> = found.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect();
        assert_eq!(found, expected.after(run), "after run {run}");
    }
    let versions: usize = expected.versions.values().map(Vec::len).sum();
    assert_eq!(world.in_warehouse("SELECT count(*) FROM fact_t").await, Some(versions.to_string()));
    assert!(expected.waiting.values().any(|waiting| !waiting.is_empty()), "nothing waits in the end");
    // `verify` looks at the versions too. The same log gives the same history again.
    world.quarantine_is_all_that_is_held_back().await;
    let history = "SELECT string_agg(concat_ws(' ', f.id, f.v, f.d, b.batch, e.batch, f.deleted_at IS NULL), ', '
                                     ORDER BY f.id, b.batch)
        FROM fact_t f JOIN blackwater.ledger b ON b.effective_at = f.valid_from
        LEFT JOIN blackwater.ledger e ON e.effective_at = f.valid_to";
    let was = world.in_warehouse(history).await;
    world.in_star("DROP SCHEMA blackwater CASCADE; DROP TABLE fact_t, dim_d CASCADE").await;
    world.blackwater(&["load"]).await.report();
    assert_eq!(world.in_warehouse(history).await, was);
}
