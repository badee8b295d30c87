//! The whole pipeline and each stage as whole processes, beside psql COPY, Sling and dlt, in one run on one server.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use blackwater_local::totesys;
use blackwater_tests::World;

/// Deals at scale 1: each is an order, a transaction and a payment.
const DEALS: u32 = 100_000;
const SCALES: [u32; 2] = [1, 10];
/// Times that each thing is done, of which the median counts.
pub(crate) const TIMES: usize = 3;

/// As an operator would have it, but for autovacuum, which would come at another moment each time.
const SETTINGS: &[(&str, &str)] = &[
    ("fsync", "on"),
    ("shared_buffers", "1GB"),
    ("max_wal_size", "8GB"),
    ("checkpoint_timeout", "30min"),
    ("maintenance_work_mem", "256MB"),
    ("work_mem", "32MB"),
    ("autovacuum", "off"),
];

/// The source's tables, and the star schema's in the order of their foreign keys.
const SOURCE: [&str; 11] = [
    "address",
    "counterparty",
    "currency",
    "department",
    "design",
    "payment",
    "payment_type",
    "purchase_order",
    "sales_order",
    "staff",
    "transaction",
];
const STAR: [&str; 11] = [
    "dim_counterparty",
    "dim_currency",
    "dim_date",
    "dim_design",
    "dim_location",
    "dim_payment_type",
    "dim_staff",
    "dim_transaction",
    "fact_payment",
    "fact_purchase_order",
    "fact_sales_order",
];

/// What is measured, and what each time took.
pub(crate) type Took = BTreeMap<&'static str, Vec<Duration>>;

/// The lines of the table, in their order: what is measured, and its words.
const LINES: [(&str, &str); 13] = [
    ("out", "psql COPY out of the source's 11 tables"),
    ("in", "psql COPY into the 11 star tables without foreign keys"),
    ("in with keys", "the same with their foreign keys"),
    ("run", "**blackwater run, first load, end to end**"),
    ("extract", "blackwater extract"),
    ("transform", "blackwater transform"),
    ("load", "blackwater load"),
    ("sling", "Sling, a bare copy of the 11 tables without keys"),
    ("dlt", "dlt, the same"),
    ("changes", "blackwater run, 1,000 changed orders"),
    ("deletions", "blackwater run, 10 deleted payments"),
    ("nothing", "blackwater run, nothing has changed"),
    ("verify", "blackwater verify"),
];

pub(crate) async fn measure_all(workspace: &Path) -> anyhow::Result<()> {
    let program = release(workspace)?;
    let mut results = Vec::new();
    for scale in SCALES {
        let bench = Bench::of(DEALS * scale, &program, workspace).await?;
        println!("scale {scale}: {} source rows", bench.rows);
        let took = bench.measure().await?;
        results.push((scale, bench.rows, took));
    }
    let folder = workspace.join("target/bench");
    std::fs::create_dir_all(&folder)?;
    let table = table(&results);
    std::fs::write(folder.join("pipeline.md"), &table)?;
    std::fs::write(folder.join("pipeline.svg"), plot(&results))?;
    println!("\n{table}\nwritten to {}, with a plot", folder.display());
    Ok(())
}

/// The program that `make release` builds.
pub(crate) fn release(workspace: &Path) -> anyhow::Result<PathBuf> {
    let program = workspace.join("target/release/blackwater");
    ensure!(program.exists(), "there is no {}: `make release`", program.display());
    Ok(program)
}

/// A source, and what works on it.
pub(crate) struct Bench<'a> {
    pub(crate) world: World,
    program: &'a Path,
    workspace: &'a Path,
    /// The rows of the source.
    rows: i64,
}

impl<'a> Bench<'a> {
    pub(crate) async fn of(deals: u32, program: &'a Path, workspace: &'a Path) -> anyhow::Result<Self> {
        let world = World::with_settings(SETTINGS, "", &[], &[]).await;
        totesys::create(&world.source).await?;
        totesys::write_pack(&world.pack())?;
        // They fit, and to look at each foreign key takes most of the time.
        world.source.batch_execute("SET session_replication_role = replica").await?;
        totesys::make_deals(&world.source, deals).await?;
        world.source.batch_execute("RESET session_replication_role").await?;
        world.source.batch_execute("VACUUM ANALYZE").await?;
        let counts: Vec<_> = SOURCE.iter().map(|table| format!("(SELECT count(*) FROM {table})")).collect();
        let rows = world.source.query_one(&format!("SELECT {}", counts.join(" + ")), &[]).await?.get(0);
        Ok(Self { world, program, workspace, rows })
    }

    async fn measure(&self) -> anyhow::Result<Took> {
        let mut took = Took::new();
        for time in 0..TIMES {
            let mut note = |what: &'static str, time: Duration| {
                println!("  {what}: {:.2} s", time.as_secs_f64());
                took.entry(what).or_default().push(time);
            };
            note("out", self.copy_out()?);
            self.clear().await?;
            for stage in ["extract", "transform", "load"] {
                note(stage, self.blackwater(&[stage])?);
            }
            self.clear().await?;
            note("run", self.blackwater(&["run"])?);
            // It ends with another code if a row differs from the source.
            note("verify", self.blackwater(&["verify"])?);
            note("nothing", self.blackwater(&["run"])?);
            self.change_orders(time).await?;
            note("changes", self.blackwater(&["run"])?);
            let gone =
                "DELETE FROM payment WHERE payment_id IN (SELECT payment_id FROM payment ORDER BY 1 DESC LIMIT 10)";
            self.world.source.batch_execute(gone).await?;
            note("deletions", self.blackwater(&["run"])?);
            self.blackwater(&["verify"])?;
            let star = self.star_rows()?;
            note("in", self.copy_in(&star, false).await?);
            note("in with keys", self.copy_in(&star, true).await?);
            note("dlt", self.dlt().await?);
            note("sling", self.sling().await?);
        }
        Ok(took)
    }

    /// Changes a thousand orders, other ones for each number.
    pub(crate) async fn change_orders(&self, number: usize) -> anyhow::Result<()> {
        let change = format!(
            "UPDATE sales_order SET units_sold = units_sold + 1 WHERE sales_order_id IN (
                 SELECT sales_order_id FROM sales_order ORDER BY sales_order_id OFFSET {} LIMIT 1000)",
            1000 * number
        );
        Ok(self.world.source.batch_execute(&change).await?)
    }

    /// Empties the warehouse and the buckets, and lets nothing of what was before count for what comes.
    async fn clear(&self) -> anyhow::Result<()> {
        let clear = "DROP SCHEMA IF EXISTS blackwater, raw CASCADE; DROP SCHEMA public CASCADE; CREATE SCHEMA public; CHECKPOINT";
        self.world.warehouse.batch_execute(clear).await?;
        if self.world.buckets().exists() {
            std::fs::remove_dir_all(self.world.buckets())?;
        }
        Ok(std::fs::create_dir_all(self.world.buckets())?)
    }

    pub(crate) fn blackwater(&self, arguments: &[&str]) -> anyhow::Result<Duration> {
        timed(Command::new(self.program).arg("--config").arg(self.world.configuration()).args(arguments))
    }

    fn copy_out(&self) -> anyhow::Result<Duration> {
        let copies = SOURCE.iter().map(|table| format!("\\copy {table} TO '/dev/null'"));
        timed(psql(&self.world, "source").args(copies.flat_map(|copy| ["-c".to_owned(), copy])))
    }

    /// Files of the star tables' rows, as COPY writes them.
    fn star_rows(&self) -> anyhow::Result<Vec<(&'static str, PathBuf)>> {
        let file = |table: &&'static str| {
            let file = self.world.buckets().join(format!("{table}.rows"));
            // The columns that are computed of others are left out by themselves.
            let copy = format!("\\copy {table} TO '{}'", file.display());
            timed(psql(&self.world, "warehouse").arg("-c").arg(copy)).map(|_| (*table, file))
        };
        STAR.iter().map(file).collect()
    }

    /// COPY of the same rows into the same tables.
    async fn copy_in(&self, star: &[(&str, PathBuf)], with_keys: bool) -> anyhow::Result<Duration> {
        let mut schema = format!("DROP SCHEMA IF EXISTS raw CASCADE; CREATE SCHEMA raw; SET search_path = raw; {}", {
            std::fs::read_to_string(self.world.pack().join("schema.sql"))?
        });
        if !with_keys {
            schema.push_str(
                "; DO $$ DECLARE k record; BEGIN
                     FOR k IN SELECT conrelid::regclass AS t, conname FROM pg_constraint
                              WHERE contype = 'f' AND connamespace = 'raw'::regnamespace LOOP
                         EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', k.t, k.conname);
                     END LOOP; END $$",
            );
        }
        self.world.warehouse.batch_execute(&format!("{schema}; RESET search_path; CHECKPOINT")).await?;
        let copies = star.iter().map(|(table, file)| format!("\\copy raw.{table} FROM '{}'", file.display()));
        timed(psql(&self.world, "warehouse").args(copies.flat_map(|copy| ["-c".to_owned(), copy])))
    }

    async fn sling(&self) -> anyhow::Result<Duration> {
        self.world.warehouse.batch_execute("DROP SCHEMA IF EXISTS raw CASCADE; CREATE SCHEMA raw; CHECKPOINT").await?;
        let mut replication = "source: SOURCE\ntarget: TARGET\ndefaults: {mode: full-refresh}\nstreams:\n".to_owned();
        for table in SOURCE {
            let _ = writeln!(replication, "  public.{table}: {{object: raw.{table}}}");
        }
        let file = self.world.buckets().join("sling.yaml");
        std::fs::write(&file, replication)?;
        let url = |database| self.world.server.url(database).replace("postgres@", "postgres:none@");
        let took = timed(
            Command::new(self.python())
                .arg(self.workspace.join("bench/python/sling_copy.py"))
                .arg(&file)
                .env("SOURCE", url("source"))
                .env("TARGET", url("warehouse"))
                .env("SLING_HOME_DIR", self.world.buckets())
                .env("SLING_DISABLE_TELEMETRY", "true"),
        )?;
        self.is_whole("raw").await.map(|()| took)
    }

    async fn dlt(&self) -> anyhow::Result<Duration> {
        self.world.warehouse.batch_execute("DROP SCHEMA IF EXISTS raw CASCADE; CHECKPOINT").await?;
        let url = |database| {
            let url = self.world.server.url(database).replace("postgres://postgres@", "postgresql://postgres:none@");
            url.split('?').next().unwrap_or_default().to_owned()
        };
        let took = timed(
            Command::new(self.python())
                .arg(self.workspace.join("bench/python/dlt_copy.py"))
                .args([url("source"), url("warehouse"), self.world.buckets().join("dlt").display().to_string()])
                .args(SOURCE)
                .env("RUNTIME__DLTHUB_TELEMETRY", "false"),
        )?;
        self.is_whole("raw").await.map(|()| took)
    }

    fn python(&self) -> PathBuf {
        self.workspace.join("target/tools/bench/bin/python")
    }

    /// Whether a copy has as many rows as the source.
    async fn is_whole(&self, schema: &str) -> anyhow::Result<()> {
        for table in SOURCE {
            let there: i64 = self.world.source.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await?.get(0);
            let copied = self.world.warehouse.query_one(&format!("SELECT count(*) FROM {schema}.{table}"), &[]).await?;
            ensure!(copied.get::<_, i64>(0) == there, "the copy of {table} is not whole");
        }
        Ok(())
    }
}

/// psql, connected to a database.
pub(crate) fn psql(world: &World, database: &str) -> Command {
    let mut psql = Command::new("psql");
    psql.args(["-qX", "-v", "ON_ERROR_STOP=1", &world.server.url(database)]);
    psql
}

/// Runs a program to its end.
pub(crate) fn timed(command: &mut Command) -> anyhow::Result<Duration> {
    timed_output(command).map(|(took, _)| took)
}

/// Runs a program to its end: how long it took, and what it printed.
pub(crate) fn timed_output(command: &mut Command) -> anyhow::Result<(Duration, Vec<u8>)> {
    let began = Instant::now();
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    let took = began.elapsed();
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok((took, output.stdout))
}

pub(crate) fn median(took: &Took, what: &str) -> Option<f64> {
    let mut times = took.get(what)?.clone();
    times.sort();
    Some(times[times.len() / 2].as_secs_f64())
}

/// The medians as Markdown, and beside them the ratio to COPY of the same rows.
fn table(results: &[(u32, i64, Took)]) -> String {
    let mut text = "| seconds |".to_owned();
    for (_, rows, _) in results {
        let _ = write!(text, " {rows} source rows | × COPY out and in |");
    }
    text.push_str("\n| --- |");
    results.iter().for_each(|_| text.push_str(" ---: | ---: |"));
    for (what, words) in LINES {
        let _ = write!(text, "\n| {words} |");
        for (_, _, took) in results {
            let time = median(took, what);
            let both = median(took, "out").zip(median(took, "in")).map(|(out, into)| out + into);
            let ratio = time.zip(both).map(|(time, both)| format!("{:.2}", time / both));
            let time = time.map(|time| format!("{time:.2}"));
            let _ = write!(text, " {} | {} |", time.unwrap_or_default(), ratio.unwrap_or_default());
        }
    }
    text + "\n"
}

/// The largest scale's first loads as bars.
fn plot(results: &[(u32, i64, Took)]) -> String {
    let Some((_, rows, took)) = results.last() else { return String::new() };
    let both = median(took, "out").zip(median(took, "in")).map(|(out, into)| out + into);
    let bars = [
        ("psql COPY out and in, no keys", both),
        ("psql COPY in, with foreign keys", median(took, "in with keys")),
        ("Blackwater, first load", median(took, "run")),
        ("Sling, copy without keys", median(took, "sling")),
        ("dlt, copy without keys", median(took, "dlt")),
    ];
    let most = bars.iter().filter_map(|(_, time)| *time).fold(1.0, f64::max);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 640 {}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <title>Seconds for a first load of {rows} source rows</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n",
        bars.len() * 32 + 40
    );
    let _ = writeln!(svg, "<text x=\"10\" y=\"22\">Seconds for a first load of {rows} source rows</text>");
    for (place, (words, time)) in bars.iter().enumerate() {
        let (Some(time), y) = (time, place * 32 + 36) else { continue };
        let (width, colour) =
            (time / most * 340.0, if words.starts_with("Blackwater") { "#1f6f8b" } else { "#b8c4cc" });
        let _ = writeln!(
            svg,
            "<text x=\"10\" y=\"{}\">{words}</text><rect x=\"230\" y=\"{y}\" width=\"{width:.0}\" height=\"22\" fill=\"{colour}\"/>\
             <text x=\"{:.0}\" y=\"{}\">{time:.1}</text>",
            y + 16,
            238.0 + width,
            y + 16
        );
    }
    svg + "</svg>\n"
}
