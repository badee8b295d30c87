//! Many rows that wait for one, long chains, circles. If the cost grew with the square of the rows, these tests would take
//! minutes.

use blackwater_tests::World;
use serde_json::Value;

/// How many rows a run put into quarantine, how many it released, and how many are in quarantine now.
fn moved(report: &Value) -> [u64; 3] {
    let tables =
        report["load"]["batches"].as_array().unwrap().iter().flat_map(|batch| batch["tables"].as_array().unwrap());
    let sum = |field: &str| tables.clone().map(|table| table[field].as_u64().unwrap()).sum();
    [sum("quarantined"), sum("released"), report["load"]["quarantine"].as_u64().unwrap()]
}

/// Orders in each of two areas, shops in the second area, and nodes in the chain.
const ORDERS: u64 = 20_000;
const SHOPS: u64 = 5_000;
const CHAIN: u64 = 2_000;

#[tokio::test(flavor = "multi_thread")]
async fn many_rows_for_one_a_long_chain_and_a_circle_wait_and_come_in() {
    let schema = "
        CREATE TABLE IF NOT EXISTS dim_area (id integer PRIMARY KEY, name text NOT NULL, deleted_at timestamptz);
        CREATE TABLE IF NOT EXISTS dim_node (id integer PRIMARY KEY, up integer REFERENCES dim_node, deleted_at timestamptz);
        CREATE TABLE IF NOT EXISTS dim_shop (id integer PRIMARY KEY, area integer REFERENCES dim_area, deleted_at timestamptz);
        CREATE TABLE IF NOT EXISTS fact_order (record bigserial PRIMARY KEY, valid_from timestamptz NOT NULL, valid_to timestamptz, id integer NOT NULL,
            area integer NOT NULL REFERENCES dim_area, amount numeric, deleted_at timestamptz);
        CREATE UNIQUE INDEX IF NOT EXISTS fact_order_open ON fact_order (id) WHERE valid_to IS NULL;";
    let (all, last) = (2 * ORDERS, CHAIN + 1);
    let source = format!(
        "CREATE TABLE area (id integer PRIMARY KEY, name text); CREATE TABLE node (id integer PRIMARY KEY, up integer);
        CREATE TABLE shop (id integer PRIMARY KEY, area integer);
        CREATE TABLE orders (id integer PRIMARY KEY, area integer, amount numeric);
        INSERT INTO area VALUES (1, 'one'), (2, NULL);
        INSERT INTO shop SELECT i, 2 FROM generate_series(1, {SHOPS}) i;
        INSERT INTO orders SELECT i, 1 + i % 2, i FROM generate_series(1, {all}) i;
        INSERT INTO node SELECT i, i + 1 FROM generate_series(1, {CHAIN}) i;
        INSERT INTO node VALUES (3001, 3002), (3002, 3003);"
    );
    let pack = [
        ("schema.sql", schema),
        ("dim_area.sql", "SELECT id, name FROM area"),
        ("dim_node.sql", "SELECT id, up FROM node"),
        ("dim_shop.sql", "SELECT id, area FROM shop"),
        ("fact_order.sql", "SELECT id, area, amount FROM orders"),
    ];
    let oracle = [
        ("dim_area", "SELECT id, name FROM area"),
        ("dim_node", "SELECT id, up FROM node"),
        ("dim_shop", "SELECT id, area FROM shop"),
        ("current_fact_order", "SELECT id, area, amount FROM orders"),
    ];
    let world = World::of(&source, &pack, &oracle).await;
    let waiting = 1 + SHOPS + ORDERS + CHAIN + 2;
    assert_eq!(moved(&world.run().await), [waiting, 0, waiting]);
    let there = "SELECT concat_ws(' ', (SELECT count(*) FROM dim_area), (SELECT count(*) FROM dim_shop),
        (SELECT count(*) FROM fact_order), (SELECT count(*) FROM dim_node))";
    assert_eq!(world.in_warehouse(there).await, Some(format!("1 0 {ORDERS} 0")));
    // A row that waits for nothing; then rows that wait for the same rows, or for rows in quarantine.
    world.change("INSERT INTO orders VALUES (50001, 1, 0); UPDATE area SET name = 'uno' WHERE id = 1").await;
    assert_eq!(moved(&world.run().await), [0, 0, waiting]);
    world.change("INSERT INTO orders VALUES (50002, 2, 0); INSERT INTO node VALUES (4000, 1), (4001, 3001)").await;
    assert_eq!(moved(&world.run().await), [3, 0, waiting + 3]);
    // The end of the chain, the third row of the circle, and the row for which all others wait.
    world.change(&format!("INSERT INTO node VALUES ({last}, NULL)")).await;
    assert_eq!(moved(&world.run().await), [0, CHAIN + 1, waiting + 3 - (CHAIN + 1)]);
    world.change("INSERT INTO node VALUES (3003, 3001)").await;
    assert_eq!(moved(&world.run().await)[2], 1 + SHOPS + ORDERS + 1);
    world.change("UPDATE area SET name = 'two' WHERE id = 2").await;
    assert_eq!(moved(&world.run().await), [0, SHOPS + ORDERS + 1, 0]);
    world.agree().await;
    assert_eq!(world.run().await["extract"]["outcome"], "nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_facts_wait_for_a_hundred_rows() {
    let schema = "
        CREATE TABLE IF NOT EXISTS dim_shop (id integer PRIMARY KEY, deleted_at timestamptz);
        CREATE TABLE IF NOT EXISTS fact_sale (record bigserial PRIMARY KEY, valid_from timestamptz NOT NULL, valid_to timestamptz, id integer NOT NULL,
            shop integer NOT NULL REFERENCES dim_shop, deleted_at timestamptz);
        CREATE UNIQUE INDEX IF NOT EXISTS fact_sale_open ON fact_sale (id) WHERE valid_to IS NULL;";
    let source = "CREATE TABLE shop (id integer PRIMARY KEY); CREATE TABLE sale (id integer PRIMARY KEY, shop integer);
        INSERT INTO sale SELECT i, 1 + i % 100 FROM generate_series(1, 100000) i;";
    let pack = [
        ("schema.sql", schema),
        ("dim_shop.sql", "SELECT id FROM shop"),
        ("fact_sale.sql", "SELECT id, shop FROM sale"),
    ];
    let world = World::of(source, &pack, &[]).await;
    assert_eq!(moved(&world.run().await), [100_000, 0, 100_000]);
    world.change("INSERT INTO shop SELECT i FROM generate_series(1, 100) i").await;
    assert_eq!(moved(&world.run().await), [0, 100_000, 0]);
    let sums = "SELECT count(*) || ' ' || sum(id) || ' ' || sum(shop) FROM current_fact_sale";
    let expected: String =
        world.source.query_one(&sums.replace("current_fact_sale", "sale"), &[]).await.unwrap().get(0);
    assert_eq!(world.in_warehouse(sums).await, Some(expected));
}
