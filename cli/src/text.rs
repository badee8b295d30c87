//! Reports as text for a terminal.

use std::fmt::Write;

use blackwater_extract::Outcome;
use blackwater_pipeline::{Batch, Status};

/// Lines of cells, each column as wide as its widest cell; numbers to the right.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let number = cell.starts_with(|c: char| c.is_ascii_digit());
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
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
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
                let how = table.full.as_ref().map(|why| format!("in full: {why}")).unwrap_or_default();
                vec![table.table.clone(), rows(table.rows), format!("of {}", table.source_rows), size(table.bytes), how]
            };
            text.push_str(&self::table(&report.tables.iter().map(line).collect::<Vec<_>>()));
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
    }
    text
}

pub(crate) fn load(report: &blackwater_load::Report) -> String {
    if report.batches.is_empty() {
        return match report.applied {
            0 => "load: there is no batch yet\n".into(),
            applied => format!("load: nothing to do, the warehouse is at batch {applied}\n"),
        };
    }
    let mut text = String::new();
    for batch in &report.batches {
        let _ = writeln!(text, "load: batch {}", batch.batch);
        let line = |table: &blackwater_load::TableReport| {
            let counts = [(table.inserted, "inserted"), (table.updated, "updated"), (table.unchanged, "unchanged")];
            let cells = counts.iter().map(|(count, what)| format!("{count} {what}"));
            std::iter::once(table.table.clone()).chain(cells).collect()
        };
        text.push_str(&table(&batch.tables.iter().map(line).collect::<Vec<_>>()));
    }
    text
}

pub(crate) fn run(report: &blackwater_pipeline::Report) -> String {
    extract(&report.extract) + &transform(&report.transform) + &load(&report.load)
}

pub(crate) fn status(status: &Status) -> String {
    let line = |stage: &str, batch: Option<Batch>, what: &str| match batch {
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
    let tables: Vec<_> = status.tables.iter().map(|table| vec![table.table.clone(), rows(table.rows)]).collect();
    format!("{}\n{}{}\n{}", status.name, table(&stages), lag, table(&tables))
}

/// The answer to a query, under its column names.
pub(crate) fn answer(columns: Vec<String>, mut answer: Vec<Vec<String>>) -> String {
    answer.insert(0, columns);
    table(&answer)
}
