//! Star rows from Parquet, as the text that Postgres reads and prints.

use std::fmt::Write;
use std::fs::File;
use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::{ArrowError, DataType};
use blackwater_shared::postgres::csv_field;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;

/// Rows that are in memory at once.
const PIECE: usize = 8192;

/// Opens a Parquet file: its rows, a piece at a time.
pub(crate) fn open(path: &Path) -> Result<ParquetRecordBatchReader, ParquetError> {
    let file = File::open(path).map_err(|error| ParquetError::External(Box::new(error)))?;
    let metadata = ArrowReaderMetadata::load(&file, Default::default())?;
    ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata).with_batch_size(PIECE).build()
}

/// How values are sent in CSV.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// As text.
    AsText,
    /// As an array of the bytes of each text, in hexadecimal digits as `bytea` has them.
    AsBytes,
}

/// Rows as COPY reads CSV, each after its number, from `first` on if there is one: every value quoted, NULL as nothing.
pub(crate) fn csv(piece: &RecordBatch, first: Option<i64>, sent: Sent) -> Result<String, ArrowError> {
    let columns = columns(piece)?;
    let (mut lines, mut value) = (String::new(), String::new());
    for row in 0..piece.num_rows() {
        if let Some(first) = first {
            let _ = write!(lines, "{}", first + row as i64);
        }
        if sent == Sent::AsBytes {
            lines.push_str(",\"{");
        }
        for (number, column) in columns.iter().enumerate() {
            if number > 0 || first.is_some() && sent == Sent::AsText {
                lines.push(',');
            }
            value.clear();
            match (column.write(row, &mut value)?, sent) {
                (true, Sent::AsText) => lines.push_str(&csv_field(&value)),
                (false, Sent::AsText) => {}
                (true, Sent::AsBytes) => {
                    lines.push_str("\\\\x");
                    for byte in value.bytes() {
                        let _ = write!(lines, "{byte:02x}");
                    }
                }
                (false, Sent::AsBytes) => lines.push_str("NULL"),
            }
        }
        lines.push_str(if sent == Sent::AsBytes { "}\"\n" } else { "\n" });
    }
    Ok(lines)
}

/// Rows as Postgres prints their values.
pub(crate) fn rows(piece: &RecordBatch) -> Result<Vec<Vec<Option<String>>>, ArrowError> {
    let columns = columns(piece)?;
    let value = |row: usize, column: &TextColumn<'_>| {
        let mut value = String::new();
        Ok(column.write(row, &mut value)?.then_some(value))
    };
    (0..piece.num_rows()).map(|row| columns.iter().map(|column| value(row, column)).collect()).collect()
}

/// A column whose values are printed as Postgres prints them.
struct TextColumn<'a> {
    array: &'a dyn Array,
    formatter: ArrayFormatter<'a>,
}

fn columns(piece: &RecordBatch) -> Result<Vec<TextColumn<'_>>, ArrowError> {
    let options = FormatOptions::default().with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.f"));
    let column = |array| Ok(TextColumn { array, formatter: ArrayFormatter::try_new(array, &options)? });
    piece.columns().iter().map(|column| column.as_ref()).map(column).collect()
}

impl TextColumn<'_> {
    /// Appends a value; `false` if it is NULL.
    fn write(&self, row: usize, to: &mut String) -> Result<bool, ArrowError> {
        if self.array.is_null(row) {
            return Ok(false);
        }
        match self.array.data_type() {
            DataType::Boolean => to.push(if self.array.as_boolean().value(row) { 't' } else { 'f' }),
            DataType::Timestamp(..) | DataType::Time64(_) => {
                self.formatter.value(row).write(to)?;
                // Arrow prints 3 or 6 digits of a second's fraction, Postgres as many as it has.
                if to.contains('.') {
                    to.truncate(to.trim_end_matches('0').trim_end_matches('.').len());
                }
            }
            _ => self.formatter.value(row).write(to)?,
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, BooleanArray, StringArray, Time64MicrosecondArray, TimestampMicrosecondArray};

    use super::*;

    fn piece() -> RecordBatch {
        let columns: [(&str, ArrayRef); 4] = [
            ("b", Arc::new(BooleanArray::from(vec![Some(true), None]))),
            ("s", Arc::new(StringArray::from(vec![Some("a \"b\",\nü"), Some("")]))),
            ("t", Arc::new(TimestampMicrosecondArray::from(vec![Some(1_120_000), Some(0)]))),
            ("c", Arc::new(Time64MicrosecondArray::from(vec![Some(10), Some(60_000_000)]))),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
    }

    #[test]
    fn values_are_printed_as_postgres_prints_them() {
        let text = |value: &str| Some(value.to_owned());
        assert_eq!(
            rows(&piece()).unwrap(),
            [
                vec![text("t"), text("a \"b\",\nü"), text("1970-01-01 00:00:01.12"), text("00:00:00.00001")],
                vec![None, text(""), text("1970-01-01 00:00:00"), text("00:01:00")],
            ]
        );
    }

    #[test]
    fn rows_are_sent_quoted_or_as_bytes() {
        let sent = csv(&piece(), Some(7), Sent::AsText).unwrap();
        let first = "7,\"t\",\"a \"\"b\"\",\nü\",\"1970-01-01 00:00:01.12\",\"00:00:00.00001\"\n";
        assert_eq!(sent, format!("{first}8,,\"\",\"1970-01-01 00:00:00\",\"00:01:00\"\n"));
        let sent = csv(&piece(), Some(7), Sent::AsBytes).unwrap();
        assert!(sent.starts_with(r#"7,"{\\x74,\\x6120226222"#), "{sent}");
        assert!(sent.contains(r#"8,"{NULL,\\x,\\x31393730"#), "{sent}");
    }
}
