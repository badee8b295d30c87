//! Reports as text for a terminal.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use blackwater_extract::{Outcome, TableSize};
use blackwater_load::{Counts, Difference, Entry, Verdict, What};
use blackwater_pipeline::{Batch, Check, EntryAndSource, Status, Verification};
use blackwater_shared::finding::{About, Finding, Level};
use serde_json::Value;

/// Lines of cells, each column as wide as its widest cell; numbers, and what stands over one, to the right.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let is_number = |cell: &str| cell.starts_with(|c: char| c.is_ascii_digit() || c == '-');
            let last = rows.last().and_then(|row| row.get(column));
            let number = is_number(cell) || rows.len() > 1 && last.is_some_and(|last| is_number(last));
            match number {
                true => line.push_str(&format!("  {cell:>width$}")),
                false => line.push_str(&format!("  {cell:<width$}")),
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

fn rows(rows: u64) -> String {
    format!("{rows} {}", if rows == 1 { "row" } else { "rows" })
}

pub(crate) fn extract(report: &blackwater_extract::Report) -> String {
    let mut text = String::new();
    for notice in &report.notices {
        let _ = writeln!(text, "extract: {notice}");
    }
    match (report.outcome, report.batch) {
        (Outcome::Batch, Some(batch)) => {
            let _ = writeln!(text, "extract: batch {batch}");
            let line = |table: &blackwater_extract::TableReport| {
                let full = table.full.as_ref().map(|why| format!("in full: {why}"));
                let keys = table.keys.then(|| "and all keys".to_owned());
                let how = full.into_iter().chain(keys).collect::<Vec<_>>().join(", ");
                let of = table.source_rows.map_or(String::new(), |rows| format!("of {rows}"));
                vec![table.table.clone(), rows(table.rows), of, size(table.bytes), how]
            };
            let told = report.tables.iter().filter(|table| table.rows > 0 || table.keys);
            text.push_str(&self::table(&told.map(line).collect::<Vec<_>>()));
            text.push_str(&to_come(report));
        }
        (Outcome::Lost, Some(batch)) => {
            let _ = writeln!(text, "extract: another run wrote batch {batch} first");
        }
        (Outcome::GaveWay, _) => text.push_str("extract: gave way; the next run tries again\n"),
        _ => text.push_str("extract: nothing has changed\n"),
    }
    text
}

pub(crate) fn transform(report: &blackwater_transform::Report) -> String {
    if report.batches.is_empty() {
        return "transform: nothing to do\n".into();
    }
    let mut text = String::new();
    for batch in &report.batches {
        let lost = if batch.lost { " (another run made it first)" } else { "" };
        let _ = writeln!(text, "transform: batch {}{lost}", batch.batch);
        let line =
            |table: &blackwater_transform::TableReport| vec![table.table.clone(), rows(table.rows), size(table.bytes)];
        text.push_str(&table(&batch.tables.iter().map(line).collect::<Vec<_>>()));
        for table in batch.tables.iter().filter(|table| table.left_out > 0) {
            let _ =
                writeln!(text, "transform: {} leaves out what does not fit in {}", table.table, rows(table.left_out));
        }
    }
    text
}

pub(crate) fn load(report: &blackwater_load::Report) -> String {
    if report.batches.is_empty() && report.yielded {
        return "load: another load is at work, and applies what is missing\n".into();
    }
    if report.batches.is_empty() {
        return match report.applied {
            0 => "load: there is no batch yet\n".into(),
            applied if report.schema_waits => {
                format!(
                    "load: the warehouse is at batch {applied}; schema.sql has changed, and is run with the next batch\n"
                )
            }
            applied => format!("load: nothing to do, the warehouse is at batch {applied}\n"),
        };
    }
    let mut text = String::new();
    for batch in &report.batches {
        let _ = writeln!(text, "load: batch {}", batch.batch);
        let line = |table: &blackwater_load::TableReport| {
            let counts = &table.counts;
            let always = [(counts.inserted, "inserted"), (counts.updated, "updated"), (counts.unchanged, "unchanged")];
            let seldom = [
                (counts.deleted, "deleted"),
                (counts.released, "out of quarantine"),
                (counts.quarantined, "into quarantine"),
            ];
            let cells = always.iter().chain(seldom.iter().filter(|(count, _)| *count > 0));
            let cells = cells.map(|(count, what)| format!("{count} {what}"));
            std::iter::once(table.table.clone()).chain(cells).collect()
        };
        text.push_str(&table(&batch.tables.iter().map(line).collect::<Vec<_>>()));
        for notice in &batch.notices {
            let _ = writeln!(text, "load: {notice}");
        }
    }
    text
}

pub(crate) fn run(report: &blackwater_pipeline::Report) -> String {
    let mut text = String::new();
    for extract in [Some(&report.extract), report.keys.as_ref()].into_iter().flatten() {
        text.push_str(&extracted(extract));
    }
    if report.load.batches.is_empty() {
        return text + &load(&report.load);
    }
    for batch in &report.load.batches {
        let _ = writeln!(text, "batch {}", batch.batch);
        let made = report.transform.batches.iter().find(|made| made.batch == batch.batch);
        text.push_str(&applied(batch, made.map_or(&[], |made| &made.tables)));
        for notice in &batch.notices {
            let _ = writeln!(text, "load: {notice}");
        }
    }
    let blackwater_pipeline::Seconds { extract, transform, load } = report.seconds;
    let _ = writeln!(text, "extract {extract:.1} s, transform {transform:.1} s, load {load:.1} s");
    text
}

/// What extract did, in a line; the notices before it, and why tables were read in full.
fn extracted(report: &blackwater_extract::Report) -> String {
    let Some(batch) = report.batch.filter(|_| report.outcome == Outcome::Batch) else { return extract(report) };
    let mut text: String = report.notices.iter().map(|notice| format!("extract: {notice}\n")).collect();
    let tables: Vec<_> = report.tables.iter().filter(|table| table.rows > 0).collect();
    let mut why: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for table in &report.tables {
        // What concerns all of them is in the notices.
        if let Some(full) = table.full.as_ref().filter(|full| !report.notices.iter().any(|n| n.starts_with(*full))) {
            why.entry(full).or_default().push(&table.table);
        }
    }
    for (why, full) in why {
        let full = if full.len() == report.tables.len() { "every table".into() } else { full.join(", ") };
        let _ = writeln!(text, "extract: {full} in full: {why}");
    }
    let keys: Vec<_> = report.tables.iter().filter(|table| table.keys).map(|table| table.table.as_str()).collect();
    let keys = if keys.is_empty() { String::new() } else { format!(", and the keys of {}", keys.join(", ")) };
    let (sum, bytes) = tables.iter().fold((0, 0), |(sum, bytes), table| (sum + table.rows, bytes + table.bytes));
    let _ = writeln!(
        text,
        "extract: batch {batch} has {} of {} source table{}{keys}, {} as CSV",
        rows(sum),
        tables.len(),
        if tables.len() == 1 { "" } else { "s" },
        size(bytes)
    );
    text + &to_come(report)
}

/// What a batch leaves to the next ones.
fn to_come(report: &blackwater_extract::Report) -> String {
    let left = report.tables.iter().filter(|table| table.bytes_left > 0);
    let left: Vec<_> = left.map(|table| format!("{} of {}", size(table.bytes_left), table.table)).collect();
    match report.more {
        true => format!("extract: the next batches bring {}\n", left.join(", ")),
        false => String::new(),
    }
}

/// One of the numbers of a star table.
type Count = fn(&Counts) -> u64;

/// What became of a batch: a line for each star table.
fn applied(batch: &blackwater_load::BatchReport, made: &[blackwater_transform::TableReport]) -> String {
    let names: BTreeSet<_> =
        made.iter().map(|table| &table.table).chain(batch.tables.iter().map(|t| &t.table)).collect();
    // What seldom happens has a column where it did.
    let seldom: [(&str, Count); 3] =
        [("deleted", |c| c.deleted), ("quarantined", |c| c.quarantined), ("released", |c| c.released)];
    let told: Vec<_> = seldom.iter().filter(|(_, count)| batch.tables.iter().any(|t| count(&t.counts) > 0)).collect();
    let heads = ["star table", "read", "written", "unchanged"].into_iter();
    let heads = heads.chain(told.iter().map(|(head, _)| *head)).chain(["Parquet"]);
    let mut lines = vec![heads.map(str::to_owned).collect::<Vec<_>>()];
    for name in names {
        let made = made.iter().find(|table| table.table == *name);
        let counts = batch.tables.iter().find(|table| table.table == *name).map(|table| table.counts);
        let counts = counts.unwrap_or_default();
        // Another run may have made it.
        let read = made.map_or("-".into(), |made| (made.rows + made.misfits).to_string());
        let always = [read, (counts.inserted + counts.updated).to_string(), counts.unchanged.to_string()];
        let seldom = told.iter().map(|(_, count)| match count(&counts) {
            0 => "-".to_owned(),
            count => count.to_string(),
        });
        let bytes = made.map_or("-".into(), |made| size(made.bytes));
        lines.push([name.clone()].into_iter().chain(always).chain(seldom).chain([bytes]).collect());
    }
    let mut text = table(&lines);
    for table in made.iter().filter(|table| table.left_out > 0) {
        let _ = writeln!(text, "{} leaves out what does not fit in {}", table.table, rows(table.left_out));
    }
    text
}

pub(crate) fn status(status: &Status) -> String {
    let with_pack = status.transformed.is_none() && status.applied.is_some();
    let line = |stage: &str, batch: Option<Batch>, what: &str| match batch {
        None if with_pack => vec![stage.into(), "no batch yet with this model pack".into()],
        None => vec![stage.into(), "no batch yet".into()],
        Some(Batch { batch, at }) => {
            vec![stage.into(), format!("batch {batch}"), format!("{what} {}", at.format("%Y-%m-%d %H:%M:%S UTC"))]
        }
    };
    let stages = [
        line("extracted", status.extracted, "of"),
        line("transformed", status.transformed, "of"),
        line("applied", status.applied, "at"),
    ];
    let lag = match status.lag_seconds {
        _ if status.extracted.is_none() => "run `blackwater run` for the first".to_owned(),
        0 => "the warehouse has every batch".to_owned(),
        seconds => format!("the oldest batch that the warehouse lacks is {seconds} s old"),
    };
    let line = |table: &blackwater_pipeline::TableStatus| {
        let quarantined = (table.quarantined > 0).then(|| format!("{} in quarantine", table.quarantined));
        [table.table.clone(), rows(table.rows)].into_iter().chain(quarantined).collect()
    };
    let tables: Vec<Vec<_>> = status.tables.iter().map(line).collect();
    let down = match status.foreign_keys_down.as_slice() {
        [] => String::new(),
        keys => format!("a large batch took down {}; the next run puts them back\n", keys.join(", ")),
    };
    let slot = match &status.slot {
        Some(slot) if slot.is_lost => {
            format!("the replication slot {} is lost; the next run makes a new one\n", slot.slot)
        }
        Some(slot) => {
            format!("the source keeps {} of its log for the slot {}\n", size(slot.retained_wal_bytes), slot.slot)
        }
        None => String::new(),
    };
    format!("{}\n{}{}\n{slot}{down}{}", status.name, table(&stages), lag, table(&tables))
}

/// What to do, on a line of its own after what is wrong.
pub(crate) fn remedy(remedy: Option<&str>) -> String {
    remedy.map(|remedy| format!("\n  → {remedy}")).unwrap_or_default()
}

pub(crate) fn check(check: &Check) -> String {
    let mut text = String::new();
    for Finding { level, about, what, remedy } in &check.findings {
        let level = match level {
            Level::Error => "error",
            Level::Advice => "advice",
        };
        let about = match about {
            About::Source => "source",
            About::Models => "models",
            About::Buckets => "buckets",
            About::Warehouse => "warehouse",
        };
        let _ = writeln!(text, "{level}, {about}: {what}{}", self::remedy(remedy.as_deref()));
    }
    if check.findings.is_empty() {
        text.push_str("nothing is wrong\n");
    }
    if check.reads.is_empty() {
        return text;
    }
    let sum = check.reads.iter().map(|table| table.bytes).sum();
    let _ =
        writeln!(text, "\nto find what has changed, every run of extract looks at these tables, {} in all", size(sum));
    let line = |table: &TableSize| {
        let count = table.rows.map_or("not counted yet".into(), |count| format!("about {}", rows(count)));
        vec![table.table.clone(), size(table.bytes), count]
    };
    text + &table(&check.reads.iter().map(line).collect::<Vec<_>>())
}

pub(crate) fn verify(verification: &Verification) -> String {
    let line = |verdict: &Verdict| {
        let counts = [
            (verdict.different, "different"),
            (verdict.not_yet, "not yet"),
            (verdict.held_back, "held back"),
            (verdict.kept, "gone at the source, and kept"),
        ];
        let counts = counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
        [verdict.table.clone(), format!("{} equal", verdict.equal)].into_iter().chain(counts).collect()
    };
    let mut text = table(&verification.tables.iter().map(line).collect::<Vec<Vec<_>>>());
    for verdict in &verification.tables {
        for Difference { key, what } in &verdict.differences {
            let key: Vec<_> = key.iter().map(|(column, value)| format!("{column} = {value}")).collect();
            let what = match what {
                What::Missing => "the warehouse has not got it".to_owned(),
                What::Extra => "the source has not got it".to_owned(),
                What::Versions => "its versions overlap, or leave a gap though the source had it".to_owned(),
                What::NotLetThrough => "the model does not let it through, and the warehouse has it".to_owned(),
                What::Refused { reason } => format!("it cannot be written, and is not in quarantine: {reason}"),
                What::Columns { columns } => {
                    let shown =
                        |value: &Option<String>| value.as_ref().map_or("NULL".into(), |value| format!("{value:?}"));
                    let of_each = columns.iter().map(|(column, source, star)| {
                        format!("{column} is {} and should be {}", shown(star), shown(source))
                    });
                    of_each.collect::<Vec<_>>().join(", ")
                }
            };
            let _ = writeln!(text, "{}, {}: {what}", verdict.table, key.join(", "));
        }
        let more = verdict.different.saturating_sub(verdict.differences.len() as u64);
        if more > 0 {
            let _ = writeln!(text, "{}: and {} more", verdict.table, rows(more));
        }
    }
    let different: u64 = verification.tables.iter().map(|verdict| verdict.different).sum();
    let _ = match different {
        0 => writeln!(text, "the warehouse, at batch {}, agrees with the source", verification.batch),
        _ => writeln!(
            text,
            "the warehouse, at batch {}, differs from the source in {}",
            verification.batch,
            rows(different)
        ),
    };
    text
}

/// A key on one line.
fn key(entry: &Entry) -> String {
    let part = |(column, value): (&String, &Value)| format!("{column} = {}", value.as_str().unwrap_or("NULL"));
    entry.key.as_object().into_iter().flatten().map(part).collect::<Vec<_>>().join(", ")
}

pub(crate) fn quarantine(entries: &[Entry]) -> String {
    if entries.is_empty() {
        return "no row is in quarantine\n".into();
    }
    let line = |entry: &Entry| {
        let since = entry.since.format("%Y-%m-%d %H:%M");
        vec![entry.table.clone(), key(entry), format!("batch {}, {since}", entry.batch), entry.reason.clone()]
    };
    table(&entries.iter().map(line).collect::<Vec<_>>())
}

pub(crate) fn shown(entries: &[EntryAndSource]) -> String {
    let mut text = String::new();
    for EntryAndSource { entry, source_row } in entries {
        let since = entry.since.format("%Y-%m-%d %H:%M:%S UTC");
        let _ =
            writeln!(text, "{}, {}\n  of batch {}, {since}\n  {}", entry.table, key(entry), entry.batch, entry.reason);
        let star_row =
            entry.star_row.as_ref().and_then(Value::as_object).map(|row| {
                row.iter().map(|(column, value)| (column.clone(), value.as_str().map(str::to_owned))).collect()
            });
        for (title, row) in [("source row", source_row), ("star row", &star_row)] {
            let Some(row) = row else { continue };
            let value = |value: &Option<String>| value.as_ref().map_or("NULL".into(), |value| format!("{value:?}"));
            let lines: Vec<_> = row.iter().map(|(column, text)| vec![column.clone(), value(text)]).collect();
            let _ = write!(text, "{title}\n{}", table(&lines));
        }
    }
    text
}

pub(crate) fn discarded(entry: &Entry) -> String {
    format!("{}, {}: left out until it changes at the source\n", entry.table, key(entry))
}

/// A bar chart.
pub(crate) fn bars(rows: &[(String, f64)]) -> String {
    const WIDTH: f64 = 48.0;
    let most = rows.iter().map(|(_, value)| *value).fold(0.0, f64::max);
    let line = |(label, value): &(String, f64)| {
        let eighths = (value / most * WIDTH * 8.0).round() as usize;
        let rest = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8];
        let bar = "█".repeat(eighths / 8) + rest;
        let short = match *value {
            value if value >= 1e6 => format!("{:.1} M", value / 1e6),
            value if value >= 1e4 => format!("{:.0} k", value / 1e3),
            value => format!("{value:.0}"),
        };
        vec![label.clone(), format!("{bar} {short}")]
    };
    table(&rows.iter().map(line).collect::<Vec<_>>())
}
