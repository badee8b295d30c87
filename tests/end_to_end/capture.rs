//! Changes that the source's write-ahead log names.

use blackwater_tests::{LOGICAL, Oracle, World};
use serde_json::Value;

/// Sales of items, which are of kinds; a sale has a key of two columns.
const SHOP: &str = "
    CREATE TABLE kind (id integer PRIMARY KEY, name text NOT NULL UNIQUE);
    CREATE TABLE item (id integer PRIMARY KEY, kind integer NOT NULL, name text, note text);
    CREATE TABLE sale (shop text, id integer, item integer NOT NULL, amount numeric(12,2), PRIMARY KEY (shop, id));
    INSERT INTO kind SELECT n, 'kind ' || n FROM generate_series(1, 5) n;
    INSERT INTO item SELECT n, 1 + n % 5, 'item ' || n, repeat('x', 50) FROM generate_series(1, 50) n;
    INSERT INTO sale SELECT 'shop \"' || n % 3 || '\", ' || n % 3, n, 1 + n % 50, n * 0.37 FROM generate_series(1, 300) n;";

const PACK: [(&str, &str); 3] = [
    (
        "schema.sql",
        "CREATE TABLE IF NOT EXISTS dim_item (id integer PRIMARY KEY, name text, kind text, deleted_at timestamptz);
         CREATE TABLE IF NOT EXISTS fact_sale (record bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, shop text, id integer,
             valid_from timestamptz NOT NULL, valid_to timestamptz, amount numeric(12,2), item text, kind text, deleted_at timestamptz);
         CREATE UNIQUE INDEX IF NOT EXISTS fact_sale_open ON fact_sale (shop, id) WHERE valid_to IS NULL",
    ),
    ("dim_item.sql", "SELECT item.id, item.name, kind.name AS kind FROM item LEFT JOIN kind ON kind.id = item.kind"),
    (
        "fact_sale.sql",
        "SELECT s.shop, s.id, s.amount, item.name AS item, kind.name AS kind FROM sale AS s
         LEFT JOIN item ON item.id = s.item LEFT JOIN kind ON kind.id = item.kind",
    ),
];

const ORACLE: [Oracle; 2] = [
    (
        "(SELECT * FROM dim_item WHERE deleted_at IS NULL) d",
        "SELECT id, name, (SELECT name FROM kind k WHERE k.id = i.kind) AS kind FROM item i",
    ),
    (
        "current_fact_sale",
        "SELECT shop, id, amount, (SELECT name FROM item i WHERE i.id = s.item) AS item,
                (SELECT (SELECT name FROM kind k WHERE k.id = i.kind) FROM item i WHERE i.id = s.item) AS kind FROM sale s",
    ),
];

/// The shop, whose first batch is loaded.
async fn shop() -> World {
    let world = World::with_settings(&LOGICAL, SHOP, &PACK, &ORACLE).await;
    world.detect_by("wal");
    world.publish().await;
    world.run_and_agree().await;
    world
}

/// How the changes of each table were found, and how many rows of it are in the batch.
fn found(report: &Value) -> Vec<(String, String, u64)> {
    let tables = report["extract"]["tables"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    tables
        .iter()
        .map(|table| (text(&table["table"]), text(&table["detection"]), table["rows"].as_u64().unwrap()))
        .collect()
}

fn by_wal(rows: [u64; 3]) -> Vec<(String, String, u64)> {
    ["item", "kind", "sale"].into_iter().zip(rows).map(|(name, rows)| (name.into(), "wal".into(), rows)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_names_what_changed_and_no_table_is_scanned() {
    let world = shop().await;
    for (change, rows) in [
        ("UPDATE sale SET amount = 1 WHERE id = 7", [1, 1, 1]),
        ("INSERT INTO sale VALUES ('new', 1, 3, 2), ('new', 2, 4, NULL)", [2, 2, 2]),
        ("UPDATE item SET name = upper(name) WHERE id = 9", [1, 1, 6]),
        ("UPDATE kind SET name = 'another' WHERE id = 2", [10, 1, 60]),
        ("DELETE FROM sale WHERE id = 8", [0, 0, 0]),
        ("UPDATE sale SET id = 1000, shop = '' WHERE id = 9", [1, 1, 1]),
        ("DELETE FROM item WHERE id = 11", [0, 0, 6]),
        ("UPDATE kind SET id = 77 WHERE id = 3", [9, 0, 54]),
        ("INSERT INTO kind VALUES (3, 'third')", [9, 1, 54]),
        ("BEGIN; DELETE FROM item WHERE id = 20; INSERT INTO item VALUES (20, 1, 'again', NULL); COMMIT", [1, 1, 6]),
        (
            "UPDATE sale SET id = id + 100000 WHERE id < 30; UPDATE sale SET id = id - 100000 WHERE id > 100000",
            [13, 5, 27],
        ),
    ] {
        world.source.batch_execute(change).await.unwrap();
        let report = world.run_and_agree().await;
        assert_eq!(found(&report), by_wal(rows), "{change}: {report}");
        assert_eq!(world.run().await["extract"]["outcome"], "nothing", "{change}");
    }
    let verified = world.blackwater(&["verify"]).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
    let asked = "SELECT count(*) FROM blackwater.quarantine";
    assert_eq!(world.in_warehouse(asked).await, Some("0".into()));
}
