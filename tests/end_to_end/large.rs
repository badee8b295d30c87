//! Tables of some hundred thousand rows.

use std::path::PathBuf;
use std::time::Duration;

use blackwater_local::s3::S3;
use blackwater_tests::{BUCKETS, World, high_water};
use bytes::Bytes;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::RowAccessor;
use serde_json::Value;

/// 300,000 sales of as many customers in 1,000 towns.
const SALES: &str = "
    CREATE TABLE town (id integer PRIMARY KEY, name text NOT NULL);
    CREATE TABLE customer (id bigint PRIMARY KEY, town integer, name text, note text);
    CREATE TABLE sale (id integer PRIMARY KEY, customer bigint, amount numeric(12,2), at timestamp(3));
    INSERT INTO town SELECT n, 'town ' || n FROM generate_series(1, 1000) n;
    INSERT INTO customer SELECT n, nullif(n * 7919::bigint % 1010, 0), 'customer ' || n, repeat(md5(n::text), 2)
        FROM generate_series(1, 300000) n;
    INSERT INTO sale SELECT n, nullif((n * 104729::bigint) % 300100, 0), (n % 100000) * 0.37,
        TIMESTAMP '2022-11-03 14:20:52.186' + n * INTERVAL '61.003 s' FROM generate_series(1, 300000) n ORDER BY md5(n::text);";

const FACT_SALE: &str = "
    SELECT sale.id, sale.amount, CAST(sale.at AS DATE) AS day, customer.name AS customer, town.name AS town
    FROM sale INNER JOIN customer ON customer.id = sale.customer LEFT JOIN town ON town.id = customer.town";

const ORACLE: &str = "
    SELECT id, amount, at::date AS day, (SELECT name FROM customer c WHERE c.id = s.customer) AS customer,
           (SELECT name FROM town WHERE id = (SELECT town FROM customer c WHERE c.id = s.customer)) AS town
    FROM sale s WHERE customer IN (SELECT id FROM customer)";

#[tokio::test(flavor = "multi_thread")]
async fn the_same_input_gives_the_same_bytes_with_one_and_with_four_threads() {
    let schema = "CREATE TABLE IF NOT EXISTS fact_sale (id integer PRIMARY KEY, amount numeric(12,2), day date,
                                                        customer text, town text)";
    let pack = [("schema.sql", schema), ("fact_sale.sql", FACT_SALE)];
    let world = World::of(SALES, &pack, &[("fact_sale", ORACLE)]).await;
    // So small that every table but the towns is in several objects.
    let s3 = "directory = \"buckets\"\n[limits]\nmemory = \"128MB\"";
    world.configure(&world.server.url("source"), &world.server.url("warehouse"), s3);
    world.blackwater(&["extract"]).await.report();
    let objects = |table: &str| world.manifests()[0]["tables"][table]["objects"].as_array().unwrap().clone();
    assert!(objects("customer").len() > 1, "the lookup table is in one object");
    let processed = world.buckets().join(BUCKETS[1]);
    let mut made = Vec::new();
    for threads in ["1", "4", "4"] {
        let mut command = world.command(&["transform"]);
        let finished = command.env("POLARS_MAX_THREADS", threads).output().await.unwrap();
        assert!(finished.status.success(), "{finished:?}");
        let manifest = manifest(&processed);
        made.push(manifest["tables"]["fact_sale"]["objects"][0]["sha256"].as_str().unwrap().to_owned());
        if made.len() < 3 {
            std::fs::remove_dir_all(processed.join("batches")).unwrap();
        }
    }
    assert_eq!(made, [made[0].as_str(); 3]);
    let read: Vec<i32> = objects("sale").iter().flat_map(|object| ids(&world.object(BUCKETS[0], object))).collect();
    let file = world.object(BUCKETS[1], &manifest(&processed)["tables"]["fact_sale"]["objects"][0]);
    let mut rank = vec![0; 300_001];
    read.iter().enumerate().for_each(|(place, id)| rank[*id as usize] = place);
    let file = SerializedFileReader::new(Bytes::from(file)).unwrap();
    let written = file.get_row_iter(None).unwrap().map(|row| rank[row.unwrap().get_int(0).unwrap() as usize]);
    assert!(written.is_sorted(), "the rows are not in the order of the driving table");
    world.blackwater(&["load"]).await.report();
    world.agree().await;
    // Nobody else has told the planner, which would compare keys row by row.
    let known = world.in_warehouse("SELECT reltuples FROM pg_class WHERE relname = 'fact_sale'").await;
    assert_eq!(known, world.in_warehouse("SELECT count(*) FROM fact_sale").await);
}

/// The first column of a CSV object.
fn ids(csv: &[u8]) -> Vec<i32> {
    let lines = std::str::from_utf8(csv).unwrap().lines().skip(1);
    lines.map(|line| line.split(',').next().unwrap().parse().unwrap()).collect()
}

/// The only manifest of the processed log.
fn manifest(processed: &std::path::Path) -> Value {
    let only = |folder: PathBuf| std::fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    serde_json::from_slice(&std::fs::read(only(only(processed.join("batches")))).unwrap()).unwrap()
}

/// Rows shaped as the sample's, in every table that grows: deals of a sale, a transaction and a payment.
const DEALS: &str = "
    INSERT INTO sales_order (created_at, last_updated, design_id, staff_id, counterparty_id, units_sold, unit_price,
        currency_id, agreed_delivery_date, agreed_payment_date, agreed_delivery_location_id)
    SELECT at, at, 1 + n % 20, 1 + n % 20, 1 + n % 20, 1001 + n % 90000, 2 + (n % 200) * 0.01, 1 + n % 3,
           to_char(at + INTERVAL '3 days', 'YYYY-MM-DD'), to_char(at + INTERVAL '2 days', 'YYYY-MM-DD'), 1 + n % 20
    FROM (SELECT n, TIMESTAMP '2022-11-03 14:20:52.186' + n * INTERVAL '5 min' AS at FROM generate_series(1, 300000) n) t;
    INSERT INTO \"transaction\" (transaction_type, sales_order_id, created_at, last_updated)
    SELECT 'SALE', sales_order_id, created_at, created_at FROM sales_order
    WHERE sales_order_id NOT IN (SELECT sales_order_id FROM \"transaction\" WHERE sales_order_id IS NOT NULL);
    INSERT INTO payment (created_at, last_updated, transaction_id, counterparty_id, payment_amount, currency_id,
        payment_type_id, paid, payment_date, company_ac_number, counterparty_ac_number)
    SELECT t.created_at, t.created_at, t.transaction_id, o.counterparty_id, o.units_sold * o.unit_price, o.currency_id,
           1, false, o.agreed_payment_date, 12345678, 87654321
    FROM \"transaction\" t JOIN sales_order o USING (sales_order_id)
    WHERE t.transaction_id NOT IN (SELECT transaction_id FROM payment);";

#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_thousand_sales_pass_each_stage_in_256_megabytes() {
    let world = World::totesys().await;
    world.source.batch_execute(DEALS).await.unwrap();
    // The buckets in a program of their own, whose memory is none of the stages'.
    let server = S3::start(&world.buckets(), &BUCKETS).await.unwrap();
    let s3 = format!("endpoint = \"{}\"", server.endpoint());
    world.configure(&world.server.url("source"), &world.server.url("warehouse"), &s3);
    for stage in ["extract", "transform", "load"] {
        let mut program = world.spawn(&[stage]);
        let id = program.id().unwrap();
        let mut peak = 0;
        let code = loop {
            peak = peak.max(high_water(id));
            match tokio::time::timeout(Duration::from_millis(20), program.wait()).await {
                Ok(ended) => break ended.unwrap().code(),
                Err(_) => continue,
            }
        };
        assert_eq!(code, Some(0), "{stage}");
        eprintln!("{stage}: {peak} kB at most");
        assert!((1..256 * 1024).contains(&peak), "{stage} used {peak} kB");
    }
    world.agree().await;
}
