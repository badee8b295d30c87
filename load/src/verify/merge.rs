//! Both sides of one table on their way past each other.

use std::collections::BTreeMap;

use blackwater_shared::postgres::Doing;
use deadpool_postgres::Transaction;

use super::source::{Outcome, Row};
use super::{Difference, SHOWN, Verdict, What};
use crate::catalogue::{Column, Comparison, PgType};
use crate::error::Error;
use crate::quarantine::Entry;
use crate::target::Target;

/// Both sides of one table on their way past each other.
pub(super) struct Merge<'a> {
    pub(super) target: &'a Target<'a>,
    /// What is in quarantine, by key.
    entries: BTreeMap<Vec<&'a str>, Vec<&'a Entry>>,
    /// For each column, how its values are compared.
    comparisons: Vec<Comparison>,
    verdict: Verdict,
    /// The rows of a piece that are not equal at once, with what the warehouse has.
    unsettled: Vec<(Row, Option<Vec<Option<String>>>)>,
    /// The first keys that only the warehouse has, and how many there are.
    extra: Vec<Vec<String>>,
    extra_rows: u64,
    /// Versions of a history that should not be as they are: how many, and the first keys.
    pub(super) strange: Vec<(What, u64, Vec<Vec<String>>)>,
    /// Whether a row is missing for no reason.
    pub(super) is_missing: bool,
}

impl<'a> Merge<'a> {
    pub(super) fn new(target: &'a Target<'a>, entries: &'a [Entry]) -> Self {
        let mut by_key: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for entry in entries.iter().filter(|entry| entry.table == target.name) {
            let key = target.key.iter().map(|column| entry.key[&column.name].as_str().unwrap_or_default());
            by_key.entry(key.collect::<Vec<_>>()).or_default().push(entry);
        }
        let returned = target.columns.iter().zip(&target.table.columns);
        let comparison = |(column, returned): (&&Column, &blackwater_shared::manifest::Column)| {
            column.base.comparison(&PgType::parse(&returned.kind))
        };
        Self {
            target,
            entries: by_key,
            comparisons: returned.map(comparison).collect(),
            verdict: Verdict { table: target.name.to_owned(), ..Verdict::default() },
            unsettled: Vec::new(),
            extra: Vec::new(),
            extra_rows: 0,
            strange: Vec::new(),
            is_missing: false,
        }
    }

    /// A row that only the warehouse has.
    pub(super) fn extra(&mut self, key: Vec<String>) {
        self.extra_rows += 1;
        if self.extra.len() < SHOWN {
            self.extra.push(key);
        }
    }

    /// A row that both sides have.
    pub(super) fn both(&mut self, row: Row, star: Vec<Option<String>>) {
        match &row.outcome {
            Outcome::Made(values) if *values == star => self.verdict.equal += 1,
            Outcome::Filtered if !self.target.marks_deletions() => self.verdict.kept += 1,
            _ => self.unsettled.push((row, Some(star))),
        }
    }

    /// A row that only the source has.
    pub(super) fn only_source(&mut self, row: Row) {
        if !matches!(row.outcome, Outcome::Filtered) {
            self.unsettled.push((row, None));
        }
    }

    /// Judges the rows that were not equal at once. `printer` prints values as the warehouse's types do.
    pub(super) async fn settle(&mut self, printer: &Transaction<'_>) -> Result<(), Error> {
        let unsettled = std::mem::take(&mut self.unsettled);
        let printed = Printed::of(self, &unsettled, printer).await?;
        for (row, star) in unsettled {
            let what = match (&row.outcome, &star) {
                (Outcome::Made(values), Some(star)) => {
                    let columns = self.differing(values, star, &printed);
                    if columns.is_empty() {
                        self.verdict.equal += 1;
                        continue;
                    }
                    What::Columns { columns }
                }
                (Outcome::Made(_), None) => What::Missing,
                (Outcome::Filtered, _) => What::NotLetThrough,
                (Outcome::Misfit { reason }, _) => What::Refused { reason: reason.clone() },
            };
            let is_held = self.is_held(&row, &printed);
            self.is_missing |= star.is_none() && !row.changed && !is_held;
            match (row.changed, is_held) {
                (true, _) => self.verdict.not_yet += 1,
                (false, true) => self.verdict.held_back += 1,
                (false, false) => self.differs(&row.key, what),
            }
        }
        Ok(())
    }

    /// The columns that differ: name, what the source printed, what the warehouse has.
    fn differing(
        &self,
        values: &[Option<String>],
        star: &[Option<String>],
        printed: &Printed,
    ) -> Vec<(String, Option<String>, Option<String>)> {
        let columns = self.target.columns.iter().enumerate().zip(values.iter().zip(star));
        let differing = columns.filter(|((place, _), (ours, theirs))| !printed.is_equal(*place, ours, theirs));
        differing.map(|((_, column), (ours, theirs))| (column.name.clone(), ours.clone(), theirs.clone())).collect()
    }

    /// Whether the row is in quarantine as it is.
    fn is_held(&self, row: &Row, printed: &Printed) -> bool {
        let key: Vec<_> = row.key.iter().map(String::as_str).collect();
        let mut entries = self.entries.get(&key).into_iter().flatten();
        match &row.outcome {
            Outcome::Filtered => false,
            Outcome::Misfit { reason } => entries.any(|entry| entry.reason == *reason),
            Outcome::Made(values) => entries.any(|entry| {
                // A row that the warehouse cannot even write down as text is kept without its values.
                let held = self.held_values(entry);
                held.is_none_or(|held| self.differing(values, &held, printed).is_empty())
            }),
        }
    }

    /// The values of an entry, in the order of the columns.
    fn held_values(&self, entry: &Entry) -> Option<Vec<Option<String>>> {
        let row = entry.star_row.as_ref()?;
        Some(self.target.columns.iter().map(|column| row[&column.name].as_str().map(str::to_owned)).collect())
    }

    fn differs(&mut self, key: &[String], what: What) {
        self.verdict.different += 1;
        if self.verdict.differences.len() < SHOWN {
            let key = self.target.key.iter().zip(key);
            let key = key.map(|(column, value)| (column.name.clone(), value.clone())).collect();
            self.verdict.differences.push(Difference { key, what });
        }
    }

    /// `is_known` says that rows of which Blackwater knows and which only the warehouse has went after the newest batch.
    pub(super) fn finish(mut self, is_known: bool) -> Verdict {
        match (self.target.marks_deletions(), is_known) {
            (false, _) => self.verdict.kept = self.extra_rows,
            (true, true) => self.verdict.not_yet += self.extra_rows,
            (true, false) => {
                for key in std::mem::take(&mut self.extra) {
                    self.differs(&key, What::Extra);
                    self.extra_rows -= 1;
                }
                self.verdict.different += self.extra_rows;
            }
        }
        for (what, count, keys) in std::mem::take(&mut self.strange) {
            for key in &keys {
                self.differs(key, what.clone());
            }
            self.verdict.different += count - keys.len() as u64;
        }
        self.verdict
    }
}

/// How the warehouse's types print texts of the source, by the column's place; `None` for a text that is no value of the type.
#[derive(Default)]
struct Printed(BTreeMap<(usize, String), Option<String>>);

impl Printed {
    /// Asks for those texts that are not what the warehouse has, in columns in which one value has several texts.
    async fn of(
        merge: &Merge<'_>,
        rows: &[(Row, Option<Vec<Option<String>>>)],
        printer: &Transaction<'_>,
    ) -> Result<Self, Error> {
        let mut printed = Self::default();
        for (place, column) in merge.target.columns.iter().enumerate() {
            if merge.comparisons[place] == Comparison::Text {
                continue;
            }
            let mut texts: Vec<_> = rows.iter().filter_map(|(row, star)| unlike(row, star.as_deref(), place)).collect();
            texts.sort_unstable();
            texts.dedup();
            for (text, canonical) in texts.iter().zip(print(printer, column, &texts).await?) {
                printed.0.insert((place, text.clone()), canonical);
            }
        }
        Ok(printed)
    }

    /// Whether a text of the source and one of the warehouse are the same value.
    fn is_equal(&self, place: usize, source: &Option<String>, star: &Option<String>) -> bool {
        let canonical = || self.0.get(&(place, source.clone()?))?.clone();
        source == star || star.is_some() && canonical() == *star
    }
}

/// The text of a row that the warehouse does not have in this column.
fn unlike(row: &Row, star: Option<&[Option<String>]>, place: usize) -> Option<String> {
    let Outcome::Made(values) = &row.outcome else { return None };
    let is_alike = star.is_some_and(|star| star[place] == values[place]);
    values[place].clone().filter(|_| !is_alike)
}

/// How a column's type prints texts.
async fn print(printer: &Transaction<'_>, column: &Column, texts: &[String]) -> Result<Vec<Option<String>>, Error> {
    // A cast to text strips what a char is padded with; concat prints as COPY does.
    let sql = format!(
        "SELECT concat(v::{}::{}) FROM unnest($1::text[]) WITH ORDINALITY AS t (v, n) ORDER BY n",
        column.staged(),
        column.declared
    );
    if texts.is_empty() {
        return Ok(Vec::new());
    }
    if let Some(printed) = print_all(printer, &sql, texts).await? {
        return Ok(printed);
    }
    // One of them is no value of the type.
    let mut printed = Vec::new();
    for text in texts {
        let one = print_all(printer, &sql, std::slice::from_ref(text)).await?;
        printed.push(one.and_then(|mut one| one.pop().flatten()));
    }
    Ok(printed)
}

/// What the query makes of the texts; `None` if the server refuses one.
async fn print_all(
    printer: &Transaction<'_>,
    sql: &str,
    texts: &[String],
) -> Result<Option<Vec<Option<String>>>, Error> {
    let doing = "print values of the source";
    printer.batch_execute("SAVEPOINT print").await.doing(doing)?;
    let (printed, end) = match printer.query(sql, &[&texts]).await.doing(doing) {
        Ok(rows) => (Some(rows.iter().map(|row| row.get(0)).collect()), "RELEASE print"),
        Err(error) if error.db().is_some() => (None, "ROLLBACK TO print"),
        Err(error) => return Err(error.into()),
    };
    printer.batch_execute(end).await.doing(doing)?;
    Ok(printed)
}
