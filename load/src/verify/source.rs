//! The source's rows of a piece, as the text that was printed.

use std::path::Path;

use super::Piece;
use crate::error::Error;
use crate::staging;
use crate::target::Target;

/// A row of the source, as its model makes it.
pub(super) struct Row {
    pub(super) key: Vec<String>,
    /// Whether it comes with the next batch.
    pub(super) changed: bool,
    pub(super) outcome: Outcome,
}

/// What the model makes of a row.
pub(super) enum Outcome {
    /// A star row.
    Made(Vec<Option<String>>),
    /// Nothing: it is not let through.
    Filtered,
    /// Nothing: a value does not fit.
    Misfit { reason: String },
}

/// The rows of a piece in the order of their keys.
pub(super) fn rows(target: &Target<'_>, piece: Piece) -> Result<Vec<Row>, Error> {
    let mut rows = Vec::new();
    if let Some(path) = piece.rows {
        let place = |name: &str| target.columns.iter().position(|column| column.name == name);
        let key: Vec<_> = target.key.iter().filter_map(|column| place(&column.name)).collect();
        for mut values in read(&path)? {
            let changed = is_true(values.pop());
            let key = key_of(target, key.iter().map(|place| values[*place].clone()));
            rows.push(Row { key, changed, outcome: Outcome::Made(values) });
        }
    }
    for (path, has_reason) in [(piece.misfits, true), (piece.filtered, false)] {
        for mut values in path.as_deref().map(read).transpose()?.unwrap_or_default() {
            let reason = if has_reason { values.pop().flatten() } else { None };
            let changed = is_true(values.pop());
            let outcome = reason.map_or(Outcome::Filtered, |reason| Outcome::Misfit { reason });
            rows.push(Row { key: key_of(target, values.into_iter()), changed, outcome });
        }
    }
    rows.sort_by(|one, other| one.key.cmp(&other.key));
    Ok(rows)
}

fn is_true(value: Option<Option<String>>) -> bool {
    value.flatten().is_some_and(|text| text == "t")
}

/// A key as the warehouse's queries print it.
fn key_of(target: &Target<'_>, values: impl Iterator<Item = Option<String>>) -> Vec<String> {
    let text = |(column, value): (&&crate::catalogue::Column, Option<String>)| {
        column.base.key_of(&value.unwrap_or_default()).to_owned()
    };
    target.key.iter().zip(values).map(text).collect()
}

fn read(path: &Path) -> Result<Vec<Vec<Option<String>>>, Error> {
    let unreadable = |why: String| Error::Parquet { batch: 0, object: path.display().to_string(), why };
    let mut rows = Vec::new();
    for piece in staging::open(path).map_err(|error| unreadable(error.to_string()))? {
        let piece = piece.map_err(|error| unreadable(error.to_string()))?;
        rows.extend(staging::rows(&piece).map_err(|error| unreadable(error.to_string()))?);
    }
    Ok(rows)
}
