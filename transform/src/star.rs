//! From CSV to star rows with polars. The only module that knows polars.
//!
//! A piece is one CSV object, which extract keeps small. Its columns are read as text and turned
//! into their types one by one, so that nothing is inferred and a value that does not fit is named.
//! The rows of the driving table are numbered, because polars joins keep no order, and the result
//! is written in that order: the same piece makes the same bytes.

use std::fs::File;
use std::path::{Path, PathBuf};

use blackwater_shared::manifest::{Column, mark};
use blackwater_shared::model::Model;
use blackwater_shared::pack::FixedTable;
use polars::chunked_array::cast::CastOptions;
use polars::prelude::*;
use polars::sql::SQLContext;
use polars_io::csv::read::CsvReadOptions;
use polars_io::parquet::write::{BatchedWriter, ParquetWriter};
use sqlparser::ast::{Expr, Ident, SelectItem, SetExpr};

/// The number of a driving row on its way through the model.
const ROW: &str = "blackwater:row";

/// What can go wrong, for the caller to say of which batch.
pub(crate) enum Fault {
    Polars(PolarsError),
    Header(String),
    Value { column: String, kind: String, value: String },
}

impl From<PolarsError> for Fault {
    fn from(error: PolarsError) -> Self {
        Self::Polars(error)
    }
}

/// Reads a CSV object of a source table as text.
pub(crate) fn read_csv(file: &Path, columns: &[Column], marks: &[String]) -> Result<DataFrame, Fault> {
    // COPY writes NULL as nothing and the empty string as "", and polars' defaults tell them apart.
    let frame = CsvReadOptions::default()
        .with_has_header(true)
        .with_infer_schema_length(Some(0))
        .try_into_reader_with_file_path(Some(file.to_owned()))?
        .finish()?;
    let expected = columns.iter().map(|column| column.name.as_str()).chain(marks.iter().map(String::as_str));
    if !frame.get_column_names().iter().map(|name| name.as_str()).eq(expected) {
        let found: Vec<_> = frame.get_column_names().iter().map(|name| name.to_string()).collect();
        return Err(Fault::Header(found.join(",")));
    }
    Ok(frame)
}

/// A fixed table of the pack; every column is text.
pub(crate) fn fixed(table: &FixedTable) -> Result<LazyFrame, Fault> {
    let column = |(place, name): (usize, &String)| {
        let values: StringChunked = table.rows.iter().map(|row| Some(row[place].as_str())).collect();
        values.with_name(name.as_str().into()).into_column()
    };
    Ok(DataFrame::new(table.rows.len(), table.columns.iter().enumerate().map(column).collect())?.lazy())
}

/// The star rows of one piece, in the order of its rows.
pub(crate) fn star_rows(
    model: &Model,
    piece: &DataFrame,
    columns: &[Column],
    fixed: &[(String, LazyFrame)],
) -> Result<DataFrame, Fault> {
    let drives = piece.column(&mark(&model.name))?.str()?.equal("t");
    let mut driving = Vec::new();
    for Column { name, kind } in columns.iter().filter(|column| model.reads.contains(&column.name)) {
        let text = piece.column(name)?.filter(&drives)?;
        driving.push(typed(text.str()?, kind)?.with_name(name.as_str().into()).into_column());
    }
    let rows = drives.sum().unwrap_or_default() as usize;
    let mut context = SQLContext::new();
    context.register(&model.driving, DataFrame::new(rows, driving)?.with_row_index(ROW.into(), None)?.lazy());
    for (name, table) in fixed {
        context.register(name, table.clone());
    }
    let stars = context.execute(&numbered(model))?.collect()?;
    if stars.height() != rows {
        return Err(polars_err!(ComputeError: "{rows} driving rows made {} star rows", stars.height()).into());
    }
    let mut stars = stars.sort([ROW], SortMultipleOptions::default())?.drop(ROW)?;
    // A chunk becomes a row group, and their number depends on the threads that read the CSV.
    stars.rechunk_mut();
    Ok(stars)
}

/// The model's query with the row number as a further column.
fn numbered(model: &Model) -> String {
    let mut query = model.query.clone();
    if let SetExpr::Select(select) = query.body.as_mut() {
        let row = [model.alias.as_str(), ROW].map(|name| Ident::with_quote('"', name));
        let alias = Ident::with_quote('"', ROW);
        select.projection.push(SelectItem::ExprWithAlias { expr: Expr::CompoundIdentifier(row.to_vec()), alias });
    }
    query.to_string()
}

/// Text of Postgres as a column of its type. What has no exact counterpart in Parquet stays the
/// text that Postgres printed, and load gives it back to Postgres as such.
fn typed(text: &StringChunked, kind: &str) -> Result<Series, Fault> {
    let (base, digits) = modifier(kind);
    let typed = match (base.as_str(), digits.as_slice()) {
        ("smallint", _) => text.cast_with_options(&DataType::Int16, CastOptions::NonStrict)?,
        ("integer", _) => text.cast_with_options(&DataType::Int32, CastOptions::NonStrict)?,
        ("bigint", _) => text.cast_with_options(&DataType::Int64, CastOptions::NonStrict)?,
        ("boolean", _) => {
            let truth = |text: Option<&str>| match text? {
                "t" => Some(true),
                "f" => Some(false),
                _ => None,
            };
            text.iter().map(truth).collect::<BooleanChunked>().into_series()
        }
        ("numeric", &[precision, scale]) if precision <= 38 && (0..=precision).contains(&scale) => {
            let kind = DataType::Decimal(precision as usize, scale as usize);
            text.cast_with_options(&kind, CastOptions::NonStrict)?
        }
        ("date", _) => text.as_date(Some("%Y-%m-%d"), false)?.into_series(),
        ("timestamp without time zone", _) => {
            let raise = StringChunked::from_iter([Some("raise")]);
            let format = Some("%Y-%m-%d %H:%M:%S%.f");
            text.as_datetime(format, TimeUnit::Microseconds, false, false, None, &raise)?.into_series()
        }
        _ => text.clone().into_series(),
    };
    if typed.null_count() == text.null_count() {
        return Ok(typed);
    }
    let misfit = text.iter().zip(typed.is_null().iter()).find_map(|(value, null)| value.filter(|_| null == Some(true)));
    Err(Fault::Value { column: text.name().to_string(), kind: kind.into(), value: misfit.unwrap_or_default().into() })
}

/// `timestamp(3) without time zone` as its name without the modifier, and the modifier's numbers.
fn modifier(kind: &str) -> (String, Vec<i64>) {
    match kind.split_once('(').and_then(|(before, rest)| Some((before, rest.split_once(')')?))) {
        Some((before, (digits, after))) => {
            (format!("{before}{after}"), digits.split(',').filter_map(|digit| digit.trim().parse().ok()).collect())
        }
        None => (kind.to_owned(), Vec::new()),
    }
}

/// A Parquet file under way: zstd, a row group for each piece.
pub(crate) struct StarFile {
    path: PathBuf,
    writer: Option<BatchedWriter<File>>,
    rows: u64,
}

impl StarFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, writer: None, rows: 0 }
    }

    pub(crate) fn write(&mut self, stars: &DataFrame) -> Result<(), Fault> {
        if stars.height() == 0 {
            return Ok(());
        }
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                let file = File::create(&self.path).map_err(PolarsError::from)?;
                let writer = ParquetWriter::new(file).with_compression(ParquetCompression::Zstd(None));
                self.writer.insert(writer.batched(stars.schema())?)
            }
        };
        writer.write_batch(stars)?;
        self.rows += stars.height() as u64;
        Ok(())
    }

    /// Completes the file: its path and its rows, or `None` if there were none.
    pub(crate) fn finish(self) -> Result<Option<(PathBuf, u64)>, Fault> {
        let Some(writer) = self.writer else { return Ok(None) };
        writer.finish()?;
        Ok(Some((self.path, self.rows)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(values: &[Option<&str>]) -> StringChunked {
        values.iter().copied().collect()
    }

    #[test]
    fn a_value_keeps_its_digits_in_its_type() {
        for (kind, value) in [
            ("smallint", "-32768"),
            ("integer", "2147483647"),
            ("bigint", "-9223372036854775808"),
            ("numeric(10,2)", "99999999.99"),
            ("numeric(38,10)", "-1234567890123456789012345678.0123456789"),
            ("date", "0001-01-01"),
            ("date", "9999-12-31"),
            ("timestamp(3) without time zone", "2024-02-29 23:59:59.999000"),
            ("text", "1E5"),
        ] {
            let typed = typed(&texts(&[None, Some(value)]), kind).ok().unwrap();
            let back = typed.cast(&DataType::String).unwrap();
            let back: Vec<_> = back.str().unwrap().iter().collect();
            assert_eq!(back[0], None, "{kind}");
            assert_eq!(back[1], Some(value), "{kind}");
        }
    }

    #[test]
    fn a_value_that_does_not_fit_is_named_wherever_it_stands() {
        for (kind, good, bad) in [
            ("integer", "1", "x"),
            ("numeric(10,2)", "1.00", "NaN"),
            ("date", "2024-01-02", "infinity"),
            ("date", "2024-01-02", "12024-01-02"),
            ("timestamp without time zone", "2024-01-02 00:00:00", "0044-03-15 00:00:00 BC"),
            ("boolean", "t", "yes"),
        ] {
            for order in [[good, bad], [bad, good]] {
                match typed(&texts(&[None, Some(order[0]), Some(order[1])]), kind) {
                    Err(Fault::Value { value, .. }) => assert_eq!(value, bad),
                    _ => panic!("{kind} {bad} was taken"),
                }
            }
        }
    }

    #[test]
    fn null_and_the_empty_string_stay_apart() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("t.csv");
        std::fs::write(&file, "a,b,drives:x\n,\"\",t\n\"\\N\",\"NULL\",t\n\"two\nlines\",\"say \"\"x\"\"\",f\n")
            .unwrap();
        let columns = ["a", "b"].map(|name| Column { name: name.into(), kind: "text".into() });
        let frame = read_csv(&file, &columns, &[mark("x")]).ok().unwrap();
        let values = |name: &str| {
            frame.column(name).unwrap().str().unwrap().iter().map(|v| v.map(str::to_owned)).collect::<Vec<_>>()
        };
        assert_eq!(values("a"), [None, Some("\\N".into()), Some("two\nlines".into())]);
        assert_eq!(values("b"), [Some(String::new()), Some("NULL".into()), Some("say \"x\"".into())]);
        assert!(
            matches!(read_csv(&file, &columns[..1], &[mark("x")]), Err(Fault::Header(found)) if found == "a,b,drives:x")
        );
    }
}
