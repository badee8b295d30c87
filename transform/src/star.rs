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

use blackwater_shared::fixed::FixedTable;
use blackwater_shared::manifest::{Table, mark};
use blackwater_shared::model::{CHANGED, Join, Select, Table as Joined, Typed, column};
use polars::prelude::*;
use polars_io::csv::read::CsvReadOptions;
use polars_io::parquet::write::{BatchedWriter, ParquetWriter};

use crate::scalar::{Misfits, Rows, evaluate};

/// The number of a driving row on its way through the model.
const ROW: &str = "blackwater:row";
/// Why a row does not fit.
const REASON: &str = "blackwater:reason";

/// What can go wrong, for the caller to say of which batch.
pub(crate) enum Fault {
    Polars(PolarsError),
    Header(String),
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
    /// The driving table's key: each column there, and in the star table. None in a set of values.
    pub(crate) key: Vec<(String, String)>,
}

/// What the rows of a piece that drive a model become.
pub(crate) struct Stars {
    /// The star rows, in the order of the piece.
    rows: DataFrame,
    /// The keys of the rows in which a value does not fit, and why.
    misfits: DataFrame,
    /// The keys of the rows that the model does not let through.
    filtered: DataFrame,
    /// The rows in which a value does not fit, of a set of values, where they have no key.
    left_out: u64,
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

/// What becomes of the rows of one piece.
pub(crate) fn star_rows(star: &Star, piece: &DataFrame, lookups: &mut Lookups) -> Result<Stars, Fault> {
    let drives = piece.column(&mark(&star.model))?.str()?.equal("t");
    let read = |name: &String| {
        let name_in_frame = column(0, name).into();
        Ok(piece.column(name)?.filter(&drives)?.with_name(name_in_frame))
    };
    let columns = star.select.reads(0).iter().map(read).collect::<Result<Vec<_>, Fault>>()?;
    let rows = drives.sum().unwrap_or_default() as usize;
    made(star, look_up(star, DataFrame::new(rows, columns)?, lookups, |_| true)?)
}

/// What becomes of rows that the source has joined: CSV with the columns of every table that the SELECT reads
/// there, and whether the row has changed. With `marks`, its star row says that too.
pub(crate) fn joined_rows(star: &Star, csv: &Path, lookups: &mut Lookups, marks: bool) -> Result<Stars, Fault> {
    let tables = star.select.tables.iter().enumerate().filter(|(_, table)| !table.fixed);
    let columns = tables.flat_map(|(place, _)| star.select.reads(place).iter().map(move |name| column(place, name)));
    let header: Vec<_> = columns.chain([CHANGED.to_owned()]).collect();
    let mut rows = read_csv(csv, &header, &header.iter().cloned().collect())?;
    if !marks {
        rows = rows.drop(CHANGED)?;
    }
    made(star, look_up(star, rows, lookups, |table| table.fixed)?)
}

/// What becomes of rows with all that they look up.
fn made(star: &Star, joined: DataFrame) -> Result<Stars, Fault> {
    let keys = star
        .key
        .iter()
        .map(|(source, name)| Ok(joined.column(&column(0, source))?.clone().with_name(name.as_str().into())));
    let mut keys = DataFrame::new(joined.height(), keys.collect::<PolarsResult<_>>()?)?;
    if let Ok(changed) = joined.column(CHANGED) {
        keys.with_column(changed.clone())?;
    }
    let tables = &star.select.tables;

    let mut let_through = BooleanChunked::full("".into(), true, joined.height());
    for (place, table) in tables.iter().enumerate() {
        if let Some(Join { inner: true, on, .. }) = &table.join {
            let_through = &let_through & &joined.column(&column(place, &on[0].column))?.is_not_null();
        }
    }
    let mut frame = joined.filter(&let_through)?;
    let mut reasons: BTreeMap<IdxSize, String> = BTreeMap::new();
    let mut note = |frame: &DataFrame, misfits: &Misfits| -> PolarsResult<()> {
        let rows = frame.column(ROW)?.idx()?.clone();
        reasons.extend(misfits.rows().filter_map(|(place, why)| Some((rows.get(place)?, why.to_owned()))));
        Ok(())
    };
    if let Some(filter) = &star.typed.filter {
        let mut misfits = Misfits::default();
        let passes = evaluate(filter, Rows { frame: &frame, tables }, &mut misfits)?;
        note(&frame, &misfits)?;
        frame = frame.filter(&(passes.bool()? & &misfits.fitting(frame.height())))?;
    }
    let mut misfits = Misfits::default();
    let rows = Rows { frame: &frame, tables };
    let outputs = star.typed.outputs.iter();
    let outputs = outputs
        .map(|(name, scalar)| Ok(evaluate(scalar, rows, &mut misfits)?.with_name(name.as_str().into()).into_column()));
    let mut stars = DataFrame::new(frame.height(), outputs.collect::<PolarsResult<_>>()?)?;
    if let Ok(changed) = frame.column(CHANGED) {
        stars.with_column(changed.clone())?;
    }
    if !misfits.is_empty() {
        note(&frame, &misfits)?;
        stars = stars.filter(&misfits.fitting(frame.height()))?;
    }

    let left_out = if star.is_values { reasons.len() as u64 } else { 0 };
    if star.is_values {
        stars = stars.unique_stable(None, UniqueKeepStrategy::First, None)?;
    }
    let (misfits, filtered) = if star.key.is_empty() {
        (keys.clear(), keys.clear())
    } else {
        let kept: BTreeSet<IdxSize> = frame.column(ROW)?.idx()?.iter().flatten().collect();
        let is_filtered = |row| !kept.contains(&row) && !reasons.contains_key(&row);
        let is_filtered: BooleanChunked = (0..joined.height() as IdxSize).map(is_filtered).collect();
        let is_misfit: BooleanChunked = (0..joined.height() as IdxSize).map(|row| reasons.contains_key(&row)).collect();
        let mut misfits = keys.filter(&is_misfit)?;
        misfits.with_column(Column::new(REASON.into(), reasons.into_values().collect::<Vec<_>>()))?;
        (misfits, keys.filter(&is_filtered)?)
    };
    Ok(Stars { rows: stars, misfits, filtered, left_out })
}

/// Makes the star rows of no rows.
pub(crate) fn dry_run(star: &Star, fixed: &BTreeMap<String, FixedTable>) -> Result<(), Fault> {
    let empty = |columns: &BTreeSet<String>| {
        let columns = columns.iter().map(|name| Column::new_empty(name.as_str().into(), &DataType::String));
        DataFrame::new(0, columns.collect())
    };
    let mut lookups = Lookups::default();
    for (place, table) in star.select.tables.iter().enumerate().skip(1) {
        match fixed.get(&table.name).filter(|_| table.fixed) {
            Some(fixed) => lookups.add_fixed(&table.name, fixed)?,
            None => {
                let known = lookups.tables.remove(&table.name).map(|lookup| lookup.wanted).unwrap_or_default();
                let wanted = &known | star.select.reads(place);
                let kept = Some(empty(&wanted)?);
                lookups
                    .tables
                    .insert(table.name.clone(), Lookup { files: Vec::new(), header: Vec::new(), wanted, kept });
            }
        }
    }
    let columns = star.select.reads(0).iter().cloned().chain([mark(&star.model)]).collect();
    star_rows(star, &empty(&columns)?, &mut lookups).map(drop)
}

/// The rows, numbered in their order, with what they look up in those tables that are `wanted`: every join
/// is a LEFT JOIN here.
fn look_up(
    star: &Star,
    rows: DataFrame,
    lookups: &mut Lookups,
    wanted: impl Fn(&Joined) -> bool,
) -> Result<DataFrame, Fault> {
    let mut frame = rows.with_row_index(ROW.into(), None)?;
    for (place, table) in star.select.tables.iter().enumerate().filter(|(_, table)| wanted(table)) {
        let Some(join) = &table.join else { continue };
        let mut lookup = lookups.rows(&table.name, join, &frame)?.select(star.select.reads(place).iter())?;
        let names: Vec<_> = lookup.get_column_names().iter().map(|name| column(place, name)).collect();
        lookup.set_column_names(&names)?;
        let ours = join.on.iter().map(|on| column(on.table, &on.other));
        let theirs = join.on.iter().map(|on| column(place, &on.column));
        let args = JoinArgs::new(JoinType::Left).with_coalesce(JoinCoalesce::KeepColumns);
        frame = frame.join(&lookup, ours, theirs, args, None)?;
        if frame.height() > rows.height() {
            let why = polars_err!(ComputeError: "the join with {} found several rows for one", table.alias);
            return Err(why.into());
        }
    }
    Ok(frame.sort([ROW], SortMultipleOptions::default())?)
}

/// The keys in a CSV object of them, by the names that the star table gives them.
pub(crate) fn keys(file: &Path, key: &[(String, String)]) -> Result<DataFrame, Fault> {
    let source: Vec<_> = key.iter().map(|(source, _)| source.clone()).collect();
    let mut keys = read_csv(file, &source, &source.iter().cloned().collect())?.select(source.iter())?;
    keys.set_column_names(&key.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>())?;
    Ok(keys)
}

/// The values of the first row of a CSV object that has these values in its key.
pub(crate) fn find_row(
    file: &Path,
    header: &[String],
    columns: &[String],
    key: &[(String, Option<String>)],
) -> Result<Option<Vec<Option<String>>>, Fault> {
    let piece = read_csv(file, header, &columns.iter().cloned().collect())?;
    let mut found = BooleanChunked::full("".into(), true, piece.height());
    for (column, value) in key {
        let column = piece.column(column)?.str()?;
        found = &found & &column.iter().map(|text| text == value.as_deref()).collect::<BooleanChunked>();
    }
    let rows = piece.filter(&found)?;
    if rows.height() == 0 {
        return Ok(None);
    }
    let value = |column: &String| Ok(rows.column(column)?.str()?.get(0).map(str::to_owned));
    columns.iter().map(value).collect::<Result<_, Fault>>().map(Some)
}

/// The Parquet files of one star table.
pub(crate) struct StarFiles {
    pub(crate) rows: StarFile,
    pub(crate) misfits: StarFile,
    pub(crate) filtered: StarFile,
    pub(crate) left_out: u64,
}

impl StarFiles {
    pub(crate) fn new(path: &Path) -> Self {
        let file = |kind: &str| StarFile::new(path.with_extension(kind));
        Self {
            rows: file("parquet"),
            misfits: file("misfits.parquet"),
            filtered: file("filtered.parquet"),
            left_out: 0,
        }
    }

    /// A place for the CSV that they are made of.
    pub(crate) fn csv(&self) -> PathBuf {
        self.rows.path.with_extension("csv")
    }

    pub(crate) fn write(&mut self, stars: Stars) -> Result<(), Fault> {
        self.rows.write(stars.rows)?;
        self.misfits.write(stars.misfits)?;
        self.filtered.write(stars.filtered)?;
        self.left_out += stars.left_out;
        Ok(())
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

    pub(crate) fn write(&mut self, mut rows: DataFrame) -> Result<(), Fault> {
        // A chunk becomes a row group, and their number depends on the threads that read the CSV.
        rows.rechunk_mut();
        if rows.height() == 0 {
            return Ok(());
        }
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                let file = File::create(&self.path).map_err(PolarsError::from)?;
                let writer = ParquetWriter::new(file).with_compression(ParquetCompression::Zstd(None));
                self.writer.insert(writer.batched(rows.schema())?)
            }
        };
        writer.write_batch(&rows)?;
        self.rows += rows.height() as u64;
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
