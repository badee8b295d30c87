//! Load: what rows cost that a star table refuses, and rows that wait for others, beside as many that do not, and beside COPY into the
//! same tables.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use blackwater_local::s3::S3;
use blackwater_tests::{BUCKETS, Function, World};
use serde_json::json;

/// What a batch with bad rows may take, beside one without.
const BAR: f64 = 2.0;
/// What rows may take that were in quarantine, beside COPY into the same table, with its foreign keys in place: they stay there, for
/// these rows are not of the batch.
const RELEASED: f64 = 7.0;

/// Rows of a table that refuses some.
const ROWS: u32 = 1_000_000;

/// Facts that wait, and the dimension rows that they wait for.
const FACTS: u32 = 2_500_000;
const PLACES: u32 = 1_000;

/// Runs take as long as they do.
const TIME: Duration = Duration::from_secs(3600);

/// Enough memory for the server to work in, and for the sort of an index.
const SETTINGS: &[(&str, &str)] =
    &[("shared_buffers", "1GB"), ("max_wal_size", "8GB"), ("maintenance_work_mem", "256MB"), ("work_mem", "64MB")];

const ITEMS: &str = "CREATE TABLE item (id integer PRIMARY KEY, name text, n integer, label text, parent integer);
    INSERT INTO item SELECT i, 'name ' || i, 1 + i % 1000, 'label ' || i % 5000, NULL FROM generate_series(1, $ROWS) i";

/// Items of which ten do not fit, each in a way of its own, along the table.
const BAD_ITEMS: &str = "
    UPDATE item SET label = repeat('long ', 10) WHERE id = 50001;
    UPDATE item SET n = NULL WHERE id = 150001;
    UPDATE item SET n = -1 WHERE id = 250001;
    UPDATE item SET name = 'name 2' WHERE id = 350001;
    UPDATE item SET parent = -5 WHERE id = 450001;
    UPDATE item SET name = 'NAME 3' WHERE id = 550001;
    UPDATE item SET name = (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 1000) i) WHERE id = 650001;
    UPDATE item SET n = 0 WHERE id = 750001;
    UPDATE item SET label = 'refused' WHERE id = 850001;
    UPDATE item SET label = 'left out' WHERE id = 950001";

const ITEM_STAR: &str = "CREATE TABLE IF NOT EXISTS dim_item (
        id integer PRIMARY KEY, name text UNIQUE, n integer NOT NULL CHECK (n >= 0), label varchar(20),
        parent integer REFERENCES dim_item, part integer GENERATED ALWAYS AS (1000 / n) STORED, deleted_at timestamptz);
    CREATE UNIQUE INDEX IF NOT EXISTS dim_item_lower ON dim_item (lower(name));
    CREATE OR REPLACE FUNCTION judge() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.label = 'refused' THEN RAISE EXCEPTION 'refused'; END IF;
        IF NEW.label = 'left out' THEN RETURN NULL; END IF;
        RETURN NEW;
    END $$;
    DROP TRIGGER IF EXISTS judge ON dim_item;
    CREATE TRIGGER judge BEFORE INSERT OR UPDATE ON dim_item FOR EACH ROW EXECUTE FUNCTION judge()";

const SALES: &str = "CREATE TABLE place (id integer PRIMARY KEY, name text);
    CREATE TABLE sale (id integer PRIMARY KEY, place integer, units integer, at timestamp);
    INSERT INTO sale SELECT i, 1 + i % $PLACES, i % 50, timestamp '2024-01-01' + i * interval '1 s'
        FROM generate_series(1, $FACTS) i";

const ALL_PLACES: &str = "INSERT INTO place SELECT i, 'place ' || i FROM generate_series(1, $PLACES) i";

const SALE_STAR: &str = "CREATE TABLE IF NOT EXISTS dim_place (id integer PRIMARY KEY, name text, deleted_at timestamptz);
    CREATE TABLE IF NOT EXISTS fact_sale (
        record_id bigserial PRIMARY KEY, id integer NOT NULL, place integer NOT NULL REFERENCES dim_place, units integer,
        at timestamp, valid_from timestamptz NOT NULL, valid_to timestamptz, deleted_at timestamptz);
    CREATE UNIQUE INDEX IF NOT EXISTS fact_sale_open ON fact_sale (id) WHERE valid_to IS NULL";

/// A world, and the functions that work on it.
struct Bench<'a> {
    world: World,
    programs: &'a Path,
    s3: S3,
}

pub(crate) async fn measure_all(programs: &Path) -> anyhow::Result<()> {
    let with = |sql: &str| {
        sql.replace("$ROWS", &ROWS.to_string())
            .replace("$FACTS", &FACTS.to_string())
            .replace("$PLACES", &PLACES.to_string())
    };
    println!("\nload, in seconds");

    let items = [("schema.sql", ITEM_STAR), ("dim_item.sql", "SELECT id, name, n, label, parent FROM item")];
    let good = Bench::of(&with(ITEMS), &items, programs).await?;
    let copy = good.copy("item", "dim_item (id, name, n, label, parent)", ITEM_STAR).await?;
    let good = good.batch(0).await?;
    // Of two that come with one name none is in.
    let bad = Bench::of(&with(&format!("{ITEMS};{BAD_ITEMS}")), &items, programs).await?.batch(11).await?;
    println!("{ROWS} rows: COPY {:.1}", copy.as_secs_f64());
    println!("  all of which fit: {}", beside(good, copy, "COPY"));
    println!("  ten of which do not, in ten ways: {}", beside(bad, good, "those that fit"));

    let sales = [
        ("schema.sql", SALE_STAR),
        ("dim_place.sql", "SELECT id, name FROM place"),
        ("fact_sale.sql", "SELECT id, place, units, at FROM sale"),
    ];
    let at_once = Bench::of(&with(&format!("{SALES};{ALL_PLACES}")), &sales, programs).await?;
    let copy = at_once.copy_sales().await?;
    let at_once = at_once.batch(0).await?;
    let later = Bench::of(&with(SALES), &sales, programs).await?;
    let held_back = later.batch(u64::from(FACTS)).await?;
    later.world.source.batch_execute(&with(ALL_PLACES)).await?;
    let released = later.batch(0).await?;
    println!("{FACTS} facts of {PLACES} places: COPY {:.1}", copy.as_secs_f64());
    println!("  that come together, whose foreign key is taken down: {}", beside(at_once, copy, "COPY"));
    println!("  put into quarantine: {}", beside(held_back, copy, "COPY"));
    println!("  that were in quarantine for their places: {}", beside(released, copy, "COPY"));
    let times = |one: Duration, other: Duration| one.as_secs_f64() / other.as_secs_f64();
    ensure!(times(bad, good) <= BAR, "bad rows: more than {BAR} times as long");
    ensure!(times(released, copy) <= RELEASED, "released rows: more than {RELEASED} times as long as COPY");
    Ok(())
}

/// What something took, beside something else.
fn beside(took: Duration, other: Duration, name: &str) -> String {
    format!("{:.1}, {:.1} × {name}", took.as_secs_f64(), took.as_secs_f64() / other.as_secs_f64())
}

impl<'a> Bench<'a> {
    async fn of(source: &str, pack: &[(&str, &str)], programs: &'a Path) -> anyhow::Result<Self> {
        let world = World::with_settings(SETTINGS, source, pack, &[]).await;
        let s3 = S3::start(&world.buckets(), &BUCKETS).await?;
        Ok(Self { world, programs, s3 })
    }

    /// How long load takes for a batch of what has changed at the source. `quarantined` rows are in quarantine then.
    async fn batch(&self, quarantined: u64) -> anyhow::Result<Duration> {
        let mut variables = self.world.variables(&self.s3);
        variables.push(("BLACKWATER_LIMITS__BATCH_BYTES".into(), "4GB".into()));
        let mut took = Duration::ZERO;
        for name in ["extract", "transform", "load"] {
            let program = [self.programs.join(format!("blackwater-{name}"))];
            let function = Function::start(&program, &variables, TIME).await;
            function.ready().await;
            let began = Instant::now();
            let answer = function.invoke(json!({})).await;
            took = began.elapsed();
            let report = answer.map_err(|error| anyhow::anyhow!("{name}: {error}"))?;
            ensure!(name != "load" || report["quarantine"] == quarantined, "{report}");
            ensure!(name != "load" || report["batches"].as_array().is_some_and(|all| all.len() == 1), "{report}");
        }
        Ok(took)
    }

    /// How long COPY takes for the rows of a source table, into a star table in a schema of its own.
    async fn copy(&self, table: &str, star: &str, schema: &str) -> anyhow::Result<Duration> {
        let file = format!("{table}.csv");
        self.world.source.batch_execute(&format!("COPY {table} TO PROGRAM 'cat > {file}'")).await?;
        self.world.warehouse.batch_execute(&format!("CREATE SCHEMA copy; SET search_path = copy; {schema}")).await?;
        let began = Instant::now();
        self.world.warehouse.batch_execute(&format!("COPY {star} FROM PROGRAM 'cat {file}'")).await?;
        let took = began.elapsed();
        self.world.warehouse.batch_execute("DROP SCHEMA copy CASCADE; RESET search_path").await?;
        Ok(took)
    }

    /// The same for the sales, whose places are there. Load writes when a version began; here a default does.
    async fn copy_sales(&self) -> anyhow::Result<Duration> {
        let schema = format!(
            "{SALE_STAR}; ALTER TABLE fact_sale ALTER valid_from SET DEFAULT now();
             INSERT INTO dim_place SELECT i FROM generate_series(1, {PLACES}) i"
        );
        self.copy("sale", "fact_sale (id, place, units, at)", &schema).await
    }
}
