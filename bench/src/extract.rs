//! What a run of extract costs where little or nothing has changed, by scans and by the write-ahead log: seconds, and the pages
//! that the source reads for it. Needs Postgres 15, where a session's counters are there as soon as it is over.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use blackwater_tests::World;
use serde_json::Value;

use crate::pipeline::{TIMES, psql, release, timed, timed_output};

/// The rows of `sale`; `item` has a tenth of them.
const SALES: [u32; 3] = [100_000, 1_000_000, 10_000_000];
/// The most rows of `item`.
const ITEMS: u32 = 100_000;

/// The rows that change at a time.
const CHANGED_SALES: u32 = 1_000;
const CHANGED_ITEMS: u32 = 10;

/// As an operator would have it, but for autovacuum, which would come at another moment each time.
const SETTINGS: &[(&str, &str)] = &[
    ("fsync", "on"),
    ("wal_level", "logical"),
    ("max_slot_wal_keep_size", "4GB"),
    ("shared_buffers", "1GB"),
    ("max_wal_size", "8GB"),
    ("checkpoint_timeout", "30min"),
    ("maintenance_work_mem", "256MB"),
    ("work_mem", "32MB"),
    ("autovacuum", "off"),
];

/// A sale takes about 100 bytes.
const SOURCE: &str = "
    CREATE TABLE item (id integer PRIMARY KEY, name text NOT NULL, price numeric(10,2) NOT NULL);
    CREATE TABLE sale (id integer NOT NULL, item integer NOT NULL, units integer NOT NULL, amount numeric(12,2) NOT NULL,
        discount numeric(12,2), at timestamp NOT NULL, note text);
    CREATE TABLE other (n integer);
    INSERT INTO item SELECT n, 'item ' || n, 1 + n % 1000 * 0.37 FROM generate_series(1, $ITEMS) n;
    INSERT INTO sale SELECT n, 1 + n % $ITEMS, 1 + n % 50, n % 10000 * 0.93, n % 100 * 0.01,
            timestamp '2024-01-01' + n * interval '1 s', 'note ' || md5(n::text)
        FROM generate_series(1, $SALES) n;
    ALTER TABLE sale ADD PRIMARY KEY (id);
    CREATE INDEX sale_item ON sale (item);
    ALTER TABLE sale ADD FOREIGN KEY (item) REFERENCES item";

const PACK: [(&str, &str); 3] = [
    (
        "schema.sql",
        "CREATE TABLE IF NOT EXISTS dim_item (id integer PRIMARY KEY, name text, price numeric(10,2), deleted_at timestamptz);
         CREATE TABLE IF NOT EXISTS fact_sale (record_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id integer NOT NULL,
             item integer NOT NULL REFERENCES dim_item, name text, units integer, amount numeric(12,2), discount numeric(12,2),
             at timestamp, note text, valid_from timestamptz NOT NULL, valid_to timestamptz, deleted_at timestamptz);
         CREATE UNIQUE INDEX IF NOT EXISTS fact_sale_open ON fact_sale (id) WHERE valid_to IS NULL",
    ),
    ("dim_item.sql", "SELECT id, name, price FROM item"),
    (
        "fact_sale.sql",
        "SELECT s.id, s.item, i.name, s.units, s.amount, s.discount, s.at, s.note
         FROM sale AS s LEFT JOIN item AS i ON i.id = s.item",
    ),
];

/// How changes are found; each way is that of a pipeline of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Scan,
    Wal,
}
use Way::{Scan, Wal};

impl Way {
    /// Its name in `source.changes`, and as the pipeline's.
    fn name(self) -> &'static str {
        match self {
            Scan => "scan",
            Wal => "wal",
        }
    }
}

/// What a run finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// COPY, no run.
    Copy,
    First,
    Nothing,
    OtherTable,
    Sales,
    Items,
}

/// The lines of the table, in their order.
const LINES: [(Step, Way, &str); 10] = [
    (Step::Copy, Scan, "psql COPY of both tables to nowhere"),
    (Step::First, Scan, "**blackwater extract, the first**"),
    (Step::Nothing, Scan, "nothing has happened, by scans"),
    (Step::Nothing, Wal, "the same by the write-ahead log"),
    (Step::OtherTable, Scan, "a row of another table was written, by scans"),
    (Step::OtherTable, Wal, "the same by the write-ahead log"),
    (Step::Sales, Scan, "1,000 changed sales, by scans"),
    (Step::Sales, Wal, "the same by the write-ahead log"),
    (Step::Items, Scan, "10 changed items and their sales, by scans"),
    (Step::Items, Wal, "the same by the write-ahead log"),
];

/// What the source's sessions have done.
#[derive(Clone, Copy)]
struct Counters {
    /// Pages looked at, in the server's cache or not.
    pages: i64,
    /// Bytes of temporary files.
    temporary: i64,
}

/// What something took.
struct Cost {
    time: Duration,
    counters: Counters,
}

type Costs = BTreeMap<(Step, Way), Vec<Cost>>;

/// Measures it beside at most `most` sales.
pub(crate) async fn measure_all(workspace: &Path, most: u32) -> anyhow::Result<()> {
    let program = release(workspace)?;
    let mut results = Vec::new();
    for sales in SALES.into_iter().filter(|sales| *sales <= most) {
        println!("extract beside {sales} sales");
        let bench = Bench::of(sales, &program).await?;
        results.push((sales, bench.measure().await?));
    }
    println!("\n{}", table(&results));
    Ok(())
}

/// A source, and the program that reads it.
struct Bench<'a> {
    world: World,
    /// The server's process for this program's session on the source.
    session: i32,
    program: &'a Path,
    sales: u32,
    items: u32,
}

impl<'a> Bench<'a> {
    async fn of(sales: u32, program: &'a Path) -> anyhow::Result<Self> {
        let items = (sales / 10).min(ITEMS);
        let source = SOURCE.replace("$SALES", &sales.to_string()).replace("$ITEMS", &items.to_string());
        let world = World::with_settings(SETTINGS, &source, &PACK, &[]).await;
        let session = world.source.query_one("SELECT pg_backend_pid()", &[]).await?.get(0);
        let bench = Self { world, session, program, sales, items };
        bench.at_source("VACUUM ANALYZE").await?;
        bench.at_source("CHECKPOINT").await?;
        Ok(bench)
    }

    async fn measure(&self) -> anyhow::Result<Costs> {
        let mut costs = Costs::new();
        let mut note = |step: Step, way: Way, cost: Cost| {
            let (seconds, pages) = (cost.time.as_secs_f64(), cost.counters.pages);
            println!("  {step:?}, {}: {seconds:.3} s, {pages} pages", way.name());
            costs.entry((step, way)).or_default().push(cost);
        };
        for _ in 0..TIMES {
            note(Step::Copy, Scan, self.copy().await?);
            let buckets = self.buckets(Scan);
            if buckets.exists() {
                std::fs::remove_dir_all(buckets)?;
            }
            note(Step::First, Scan, self.extract(Scan, Some(self.sales)).await?);
        }
        self.publish().await?;
        self.extract(Wal, None).await?;

        for time in 0..TIMES {
            // A batch that is found in the log leaves a message there. A scan that comes later sees that nothing has happened since.
            self.change("sale", "units = units + 1", (self.sales, CHANGED_SALES), time).await?;
            for way in [Wal, Scan] {
                note(Step::Sales, way, self.extract(way, Some(CHANGED_SALES)).await?);
            }
            for way in [Scan, Wal] {
                note(Step::Nothing, way, self.extract(way, Some(0)).await?);
            }
            self.at_source("INSERT INTO other VALUES (1)").await?;
            for way in [Wal, Scan] {
                note(Step::OtherTable, way, self.extract(way, Some(0)).await?);
            }
            self.change("item", "name = name || '.'", (self.items, CHANGED_ITEMS), time).await?;
            for way in [Wal, Scan] {
                let theirs = self.sales / self.items * CHANGED_ITEMS;
                note(Step::Items, way, self.extract(way, Some(theirs)).await?);
            }
        }
        Ok(costs)
    }

    /// Changes some of the rows of a table, from its begin to its end, other ones for each number.
    async fn change(&self, table: &str, set: &str, (rows, some): (u32, u32), number: usize) -> anyhow::Result<()> {
        let step = rows / some;
        let ids = format!("SELECT 1 + {number} + {step} * n FROM generate_series(0, {some} - 1) n");
        self.at_source(&format!("UPDATE {table} SET {set} WHERE id IN ({ids})")).await
    }

    /// Runs a statement in this program's session, and leaves nothing of it to be counted later.
    async fn at_source(&self, statement: &str) -> anyhow::Result<()> {
        self.world.source.batch_execute(statement).await?;
        Ok(self.world.source.batch_execute("SELECT pg_stat_force_next_flush()").await?)
    }

    /// Makes the publication, as `check --grants` says.
    async fn publish(&self) -> anyhow::Result<()> {
        let (_, grants) = timed_output(&mut self.blackwater(Wal, &["check", "--grants"]))?;
        let grants = String::from_utf8(grants)?;
        let from = grants.split_once("DO $blackwater$").context("no publication is granted")?.1;
        let block = from.split_once("END $blackwater$").context("the publication's block has no end")?.0;
        self.at_source(&format!("DO $blackwater${block}END $blackwater$")).await
    }

    async fn copy(&self) -> anyhow::Result<Cost> {
        let copies = ["sale", "item"].map(|table| format!("\\copy {table} TO '/dev/null'"));
        let mut psql = psql(&self.world, "source");
        self.cost(async || timed(psql.args(copies.iter().flat_map(|copy| ["-c", copy])))).await
    }

    /// A run, which must find its changes in this way, and so many sales if that is known.
    async fn extract(&self, way: Way, sales: Option<u32>) -> anyhow::Result<Cost> {
        let mut printed = Vec::new();
        let cost = self.cost(async || {
            let (took, output) = timed_output(&mut self.blackwater(way, &["extract", "--format", "json"]))?;
            printed = output;
            Ok(took)
        });
        let cost = cost.await?;
        let reports = serde_json::Deserializer::from_slice(&printed).into_iter::<Value>();
        let reports = reports.collect::<Result<Vec<_>, _>>()?;
        let is_first = reports.iter().any(|report| report["batch"] == 1);
        let tables: Vec<_> = reports.iter().flat_map(|report| report["tables"].as_array()).flatten().collect();
        let detected = tables.iter().all(|table| table["detection"] == way.name());
        let found: u64 =
            tables.iter().filter(|table| table["table"] == "sale").filter_map(|table| table["rows"].as_u64()).sum();
        ensure!(
            is_first || detected && reports.iter().all(|report| report["notices"] == Value::Array(vec![])),
            "{reports:?}"
        );
        ensure!(sales.is_none_or(|sales| found == u64::from(sales)), "{found} sales, not {sales:?}: {reports:?}");
        Ok(cost)
    }

    fn blackwater(&self, way: Way, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.program);
        command
            .arg("--config")
            .arg(self.world.configuration())
            .args(arguments)
            .env("BLACKWATER_NAME", way.name())
            .env("BLACKWATER_SOURCE__CHANGES", way.name())
            .env("BLACKWATER_S3__DIRECTORY", self.buckets(way));
        command
    }

    fn buckets(&self, way: Way) -> PathBuf {
        self.world.buckets().join(way.name())
    }

    /// What something costs the source, with what it took.
    async fn cost(&self, work: impl AsyncFnOnce() -> anyhow::Result<Duration>) -> anyhow::Result<Cost> {
        let before = self.counters().await?;
        let time = work().await?;
        let after = self.counters().await?;
        let counters = Counters { pages: after.pages - before.pages, temporary: after.temporary - before.temporary };
        Ok(Cost { time, counters })
    }

    /// The counters, once all sessions are over that worked on the source. The question is asked in another database.
    async fn counters(&self) -> anyhow::Result<Counters> {
        let others = "SELECT FROM pg_stat_activity WHERE datname = 'source' AND pid <> $1";
        let began = Instant::now();
        while !self.world.warehouse.query(others, &[&self.session]).await?.is_empty() {
            ensure!(began.elapsed() < Duration::from_secs(30), "somebody still works on the source");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let counted = "SELECT blks_hit + blks_read, temp_bytes FROM pg_stat_database WHERE datname = 'source'";
        let row = self.world.warehouse.query_one(counted, &[]).await?;
        Ok(Counters { pages: row.get(0), temporary: row.get(1) })
    }
}

/// The medians as Markdown, with the ratio to COPY, and what needed temporary files.
fn table(results: &[(u32, Costs)]) -> String {
    let mut text = "| seconds |".to_owned();
    for (sales, _) in results {
        let _ = write!(text, " {sales} sales | × COPY | pages |");
    }
    text.push_str("\n| --- |");
    results.iter().for_each(|_| text.push_str(" ---: | ---: | ---: |"));
    let mut temporary = String::new();
    for (step, way, words) in LINES {
        let _ = write!(text, "\n| {words} |");
        for (sales, costs) in results {
            let time = median(costs, (step, way), |cost| cost.time).as_secs_f64();
            let copy = median(costs, (Step::Copy, Scan), |cost| cost.time).as_secs_f64();
            let pages = median(costs, (step, way), |cost| cost.counters.pages);
            let _ = write!(text, " {time:.2} | {:.2} | {pages} |", time / copy);
            let bytes = median(costs, (step, way), |cost| cost.counters.temporary);
            if bytes > 0 {
                let _ =
                    writeln!(temporary, "{bytes} bytes of temporary files: {sales} sales, {step:?}, {}", way.name());
            }
        }
    }
    if temporary.is_empty() {
        temporary.push_str("no temporary files at the source\n");
    }
    format!("{text}\n\n{temporary}")
}

fn median<T: Ord + Copy + Default>(costs: &Costs, of: (Step, Way), what: impl Fn(&Cost) -> T) -> T {
    let mut all: Vec<_> = costs.get(&of).into_iter().flatten().map(what).collect();
    all.sort();
    all.get(all.len() / 2).copied().unwrap_or_default()
}
