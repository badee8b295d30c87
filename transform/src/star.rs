//! From CSV to star rows with polars.
//!
//! A piece is one CSV object of the driving table, which extract keeps small. Its columns are read
//! as text, so that nothing is inferred, and joined as text: extract lets only columns be joined in
//! which equal values print alike. The rows of the driving table are numbered, because polars joins
//! keep no order, and the result is written in that order: the same piece makes the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blackwater_shared::manifest::{Table, mark};
use blackwater_shared::model::{Join, Select, Typed};
use blackwater_shared::pack::FixedTable;
use polars::prelude::*;
use polars_io::csv::read::CsvReadOptions;
use polars_io::parquet::write::{BatchedWriter, ParquetWriter};

use crate::scalar::{Rows, evaluate};

/// The number of a driving row on its way through the model.
const ROW: &str = "blackwater:row";

/// What can go wrong, for the caller to say of which batch.
pub(crate) enum Fault {
    Polars(PolarsError),
    Header(String),
    Value { table: String, column: String, kind: String, value: String },
    Cast { cast: String, kind: String, value: String },
}

impl From<PolarsError> for Fault {
    fn from(error: PolarsError) -> Self {
        Self::Polars(error)
    }
}

/// One SELECT of a model.
pub(crate) struct Star {
    pub(crate) model: String,
    pub(crate) is_values: bool,
    pub(crate) select: Select,
    pub(crate) typed: Typed,
}

/// The name of a column in a frame of several tables.
pub(crate) fn column(table: usize, name: &str) -> String {
    format!("{table}:{name}")
}

/// Reads the `wanted` columns of a CSV object as text; `header` is what it must begin with.
pub(crate) fn read_csv(file: &Path, header: &[String], wanted: &BTreeSet<String>) -> Result<DataFrame, Fault> {
    let mut found = csv::Reader::from_path(file).map_err(|error| Fault::Header(error.to_string()))?;
    let found = found.headers().map_err(|error| Fault::Header(error.to_string()))?;
    if !found.iter().eq(header) {
        return Err(Fault::Header(found.iter().collect::<Vec<_>>().join(",")));
    }
    let columns: Arc<[PlSmallStr]> = wanted.iter().map(|name| name.as_str().into()).collect();
    // COPY writes NULL as nothing and the empty string as "", and polars' defaults tell them apart.
    let frame = CsvReadOptions::default()
        .with_has_header(true)
        .with_infer_schema_length(Some(0))
        .with_columns(Some(columns))
        .try_into_reader_with_file_path(Some(file.to_owned()))?
        .finish()?;
    Ok(frame)
}

/// What every CSV object of a table begins with: its columns, and a mark for each model that it drives.
pub(crate) fn header<'a>(table: &Table, models: impl Iterator<Item = &'a String>) -> Vec<String> {
    table.columns.iter().map(|column| column.name.clone()).chain(models.map(|model| mark(model))).collect()
}

/// The tables that models look up.
#[derive(Default)]
pub(crate) struct Lookups {
    tables: BTreeMap<String, Lookup>,
}

struct Lookup {
    files: Vec<PathBuf>,
    header: Vec<String>,
    wanted: BTreeSet<String>,
    /// Its rows, once they are read, if they fit into one object.
    kept: Option<DataFrame>,
}

impl Lookups {
    /// A table whose rows are in `files`, with the columns that models read of it.
    pub(crate) fn add(&mut self, name: String, files: Vec<PathBuf>, header: Vec<String>, wanted: BTreeSet<String>) {
        self.tables.insert(name, Lookup { files, header, wanted, kept: None });
    }

    /// A fixed table of the pack.
    pub(crate) fn add_fixed(&mut self, name: &str, table: &FixedTable) -> Result<(), Fault> {
        let column = |(place, name): (usize, &String)| {
            let values: StringChunked = table.rows.iter().map(|row| Some(row[place].as_str())).collect();
            values.with_name(name.as_str().into()).into_column()
        };
        let rows = DataFrame::new(table.rows.len(), table.columns.iter().enumerate().map(column).collect())?;
        let (files, header, wanted) = (Vec::new(), Vec::new(), BTreeSet::new());
        self.tables.insert(name.into(), Lookup { files, header, wanted, kept: Some(rows) });
        Ok(())
    }

    /// The rows of a table, or, where it has several objects, those of them that `frame` asks for:
    /// no more than it has rows itself, as they are found by a key.
    fn rows(&mut self, name: &str, join: &Join, frame: &DataFrame) -> Result<DataFrame, Fault> {
        let unknown = || polars_err!(ComputeError: "{name} is not among the lookup tables");
        let lookup = self.tables.get_mut(name).ok_or_else(unknown)?;
        if let Some(kept) = &lookup.kept {
            return Ok(kept.clone());
        }
        let read = |file: &PathBuf| read_csv(file, &lookup.header, &lookup.wanted);
        if let [file] = lookup.files.as_slice() {
            return Ok(lookup.kept.insert(read(file)?).clone());
        }
        let asked = frame.select(join.on.iter().map(|on| column(on.table, &on.other)))?;
        let asked = asked.unique_stable(None, UniqueKeepStrategy::First, None)?;
        let none = lookup.wanted.iter().map(|name| Column::new_empty(name.as_str().into(), &DataType::String));
        let mut rows = DataFrame::new(0, none.collect())?;
        for file in &lookup.files {
            let piece = read(file)?;
            let on = (join.on.iter().map(|on| &on.column), asked.get_column_names_owned());
            let found = piece.join(&asked, on.0, on.1, JoinArgs::new(JoinType::Inner), None)?;
            rows.vstack_mut(&found.select(lookup.wanted.iter().map(String::as_str))?)?;
        }
        Ok(rows)
    }
}

/// The star rows of one piece, in the order of its rows.
pub(crate) fn star_rows(star: &Star, piece: &DataFrame, lookups: &mut Lookups) -> Result<DataFrame, Fault> {
    let drives = piece.column(&mark(&star.model))?.str()?.equal("t");
    let read = |name: &String| {
        let name_in_frame = column(0, name).into();
        Ok(piece.column(name)?.filter(&drives)?.with_name(name_in_frame))
    };
    let columns = star.select.reads(0).iter().map(read).collect::<Result<Vec<_>, Fault>>()?;
    let rows = drives.sum().unwrap_or_default() as usize;
    let mut frame = DataFrame::new(rows, columns)?.with_row_index(ROW.into(), None)?;
    for (place, table) in star.select.tables.iter().enumerate() {
        let Some(join) = &table.join else { continue };
        let mut lookup = lookups.rows(&table.name, join, &frame)?.select(star.select.reads(place).iter())?;
        let names: Vec<_> = lookup.get_column_names().iter().map(|name| column(place, name)).collect();
        lookup.set_column_names(&names)?;
        let how = if join.inner { JoinType::Inner } else { JoinType::Left };
        let ours = join.on.iter().map(|on| column(on.table, &on.other));
        let theirs = join.on.iter().map(|on| column(place, &on.column));
        let args = JoinArgs::new(how).with_coalesce(JoinCoalesce::KeepColumns);
        frame = frame.join(&lookup, ours, theirs, args, None)?;
        if frame.height() > rows {
            let why = polars_err!(ComputeError: "the join with {} found several rows for one", table.alias);
            return Err(why.into());
        }
    }
    let mut frame = frame.sort([ROW], SortMultipleOptions::default())?;
    if let Some(filter) = &star.typed.filter {
        let rows = Rows { frame: &frame, tables: &star.select.tables };
        let passes = evaluate(filter, rows)?;
        frame = frame.filter(passes.bool()?)?;
    }
    let rows = Rows { frame: &frame, tables: &star.select.tables };
    let outputs = star
        .typed
        .outputs
        .iter()
        .map(|(name, scalar)| Ok(evaluate(scalar, rows)?.with_name(name.as_str().into()).into_column()));
    let mut stars = DataFrame::new(frame.height(), outputs.collect::<Result<_, Fault>>()?)?;
    if star.is_values {
        stars = stars.unique_stable(None, UniqueKeepStrategy::First, None)?;
    }
    // A chunk becomes a row group, and their number depends on the threads that read the CSV.
    stars.rechunk_mut();
    Ok(stars)
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

    #[test]
    fn null_and_the_empty_string_stay_apart() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("t.csv");
        std::fs::write(&file, "a,b,drives:x\n,\"\",t\n\"\\N\",\"NULL\",t\n\"two\nlines\",\"say \"\"x\"\"\",f\n")
            .unwrap();
        let header = ["a", "b", "drives:x"].map(str::to_owned);
        let frame = read_csv(&file, &header, &BTreeSet::from(["b".to_owned(), "a".to_owned()])).ok().unwrap();
        let values = |name: &str| {
            frame.column(name).unwrap().str().unwrap().iter().map(|v| v.map(str::to_owned)).collect::<Vec<_>>()
        };
        assert_eq!(values("a"), [None, Some("\\N".into()), Some("two\nlines".into())]);
        assert_eq!(values("b"), [Some(String::new()), Some("NULL".into()), Some("say \"x\"".into())]);
        assert!(
            matches!(read_csv(&file, &header[..2], &BTreeSet::new()), Err(Fault::Header(found)) if found == "a,b,drives:x")
        );
    }
}
