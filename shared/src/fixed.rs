//! The fixed tables of a model pack: small, in CSV, for any model to join.

use std::collections::BTreeSet;

use blackwater_base::store::sha256;

/// Why a fixed table cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {why}")]
pub struct Error {
    file: String,
    why: String,
}

/// A fixed table: text in CSV with a header.
#[derive(Clone, Debug)]
pub struct FixedTable {
    /// The columns, all of type text.
    pub columns: Vec<String>,
    /// The rows; a value that is not written is NULL in no column, but the empty string.
    pub rows: Vec<Vec<String>>,
    pub(crate) hash: String,
}

impl FixedTable {
    /// Reads CSV with a header; `file` is for messages.
    ///
    /// # Errors
    /// [`Error`] with the line.
    pub fn parse(file: &str, text: &str) -> Result<Self, Error> {
        let wrong = |why: csv::Error| Error { file: file.into(), why: why.to_string() };
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let columns: Vec<String> = reader.headers().map_err(wrong)?.iter().map(str::to_owned).collect();
        let mut rows = Vec::new();
        for row in reader.records() {
            rows.push(row.map_err(wrong)?.iter().map(str::to_owned).collect());
        }
        Ok(Self { columns, rows, hash: sha256(text.as_bytes()) })
    }

    /// Whether no two rows agree in all of `columns`.
    #[must_use]
    pub fn is_unique(&self, columns: &BTreeSet<String>) -> bool {
        let places: Vec<_> = (0..self.columns.len()).filter(|place| columns.contains(&self.columns[*place])).collect();
        let keys: BTreeSet<Vec<_>> =
            self.rows.iter().map(|row| places.iter().map(|place| &row[*place]).collect()).collect();
        keys.len() == self.rows.len()
    }
}
