//! The value of a model's expression for every row of a frame. Everything is read from the text
//! that Postgres printed, in one fixed format; nothing is inferred.

use std::collections::BTreeMap;

use blackwater_shared::model::{Table, column};
use blackwater_shared::scalar::{self, Comparison, Field, Scalar, TextFunction, Type};
use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, NaiveTime, Timelike};
use polars::chunked_array::cast::CastOptions;
use polars::prelude::*;

const EPOCH: NaiveDate = DateTime::UNIX_EPOCH.naive_utc().date();

/// What an expression is evaluated over.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    /// Columns of text, named by [`column()`].
    pub(crate) frame: &'a DataFrame,
    /// The tables that they are of.
    pub(crate) tables: &'a [Table],
}

/// Why rows do not fit, by their place in the frame: the first reason that is met for each.
#[derive(Default)]
pub(crate) struct Misfits(BTreeMap<usize, String>);

/// A value is shown no longer than this.
const SHOWN: usize = 100;

impl Misfits {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The rows and their reasons, in order.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (usize, &str)> {
        self.0.iter().map(|(row, why)| (*row, why.as_str()))
    }

    /// Which of `rows` rows fit.
    pub(crate) fn fitting(&self, rows: usize) -> BooleanChunked {
        (0..rows).map(|row| !self.0.contains_key(&row)).collect()
    }

    /// Takes over the reasons of those rows for which it matters.
    fn add(&mut self, other: Self, matters: impl Fn(usize) -> bool) {
        for (row, why) in other.0.into_iter().filter(|(row, _)| matters(*row)) {
            self.0.entry(row).or_insert(why);
        }
    }

    /// Notes the rows that had a value and have none any more.
    fn compare(&mut self, before: &Series, after: &Series, why: impl Fn(&str) -> String) -> PolarsResult<()> {
        if before.null_count() == after.null_count() {
            return Ok(());
        }
        for (row, lost) in (&after.is_null() & &before.is_not_null()).iter().enumerate() {
            if lost == Some(true) && !self.0.contains_key(&row) {
                let value = before.get(row)?;
                let value = value.str_value();
                let shown: String = value.chars().take(SHOWN).collect();
                let rest = if shown.len() < value.len() { "…" } else { "" };
                self.0.insert(row, why(&format!("{shown:?}{rest}")));
            }
        }
        Ok(())
    }
}

/// The values of an expression. Where a value does not fit its type, it is NULL here and the row
/// is among the misfits.
pub(crate) fn evaluate(of: &Scalar, rows: Rows<'_>, misfits: &mut Misfits) -> PolarsResult<Series> {
    let height = rows.frame.height();
    match of {
        Scalar::Column(table, name, kind) => {
            let text = rows.frame.column(&column(*table, name))?.str()?;
            let typed = typed(text, kind)?;
            let table = &rows.tables[*table].name;
            misfits.compare(&text.clone().into_series(), &typed, |value| {
                format!("{table}.{name}: {value} is a {kind} that cannot be kept exactly")
            })?;
            Ok(typed)
        }
        Scalar::Literal(value, kind) => {
            let text = match value {
                Some(value) => StringChunked::full("".into(), value, height),
                None => StringChunked::full_null("".into(), height),
            };
            typed(&text, kind)
        }
        Scalar::IsNull(of) => Ok(evaluate(of, rows, misfits)?.is_null().into_series()),
        Scalar::Not(of) => Ok(map(truth(of, rows, misfits)?.iter(), |truth| truth.map(|truth| !truth))),
        Scalar::And(one, other) => {
            let (one, other) = sides(one, other, rows, misfits, false)?;
            Ok(map(one.iter().zip(other.iter()), |sides| match sides {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            }))
        }
        Scalar::Or(one, other) => {
            let (one, other) = sides(one, other, rows, misfits, true)?;
            Ok(map(one.iter().zip(other.iter()), |sides| match sides {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            }))
        }
        Scalar::Compare(comparison, one, other) => {
            let (one, other) = (evaluate(one, rows, misfits)?, evaluate(other, rows, misfits)?);
            let (one, other) = match one.dtype().is_integer() {
                true => (one.cast(&DataType::Int64)?, other.cast(&DataType::Int64)?),
                false => (one, other),
            };
            let answer = match comparison {
                Comparison::Equal => one.equal(&other)?,
                Comparison::NotEqual => one.not_equal(&other)?,
                Comparison::Less => one.lt(&other)?,
                Comparison::LessOrEqual => one.lt_eq(&other)?,
                Comparison::Greater => one.gt(&other)?,
                Comparison::GreaterOrEqual => one.gt_eq(&other)?,
            };
            Ok(answer.into_series())
        }
        Scalar::Case(conditions, rest, kind) => {
            let to = dtype(kind);
            // A value counts only in the branch that is taken, and a condition only if none before it holds.
            let mut open = vec![true; height];
            let mut branches = Vec::new();
            for (condition, result) in conditions {
                let (mut of_condition, mut of_result) = (Misfits::default(), Misfits::default());
                let truth = truth(condition, rows, &mut of_condition)?;
                let holds: Vec<bool> =
                    truth.iter().zip(&open).map(|(truth, open)| *open && truth == Some(true)).collect();
                let result = evaluate(result, rows, &mut of_result)?.cast(&to)?;
                misfits.add(of_condition, |row| open[row]);
                misfits.add(of_result, |row| holds[row]);
                open.iter_mut().zip(&holds).for_each(|(open, holds)| *open &= !holds);
                branches.push((holds.into_iter().collect::<BooleanChunked>(), result));
            }
            let mut of_rest = Misfits::default();
            let mut answer = evaluate(rest, rows, &mut of_rest)?.cast(&to)?;
            misfits.add(of_rest, |row| open[row]);
            for (holds, result) in branches {
                answer = result.zip_with(&holds, &answer)?;
            }
            Ok(answer)
        }
        Scalar::Concat(one, other) => {
            let (one, other) = (evaluate(one, rows, misfits)?, evaluate(other, rows, misfits)?);
            let both = one.str()?.iter().zip(other.str()?.iter());
            let joined: StringChunked = both.map(|(one, other)| Some(format!("{}{}", one?, other?))).collect();
            Ok(joined.into_series())
        }
        Scalar::Text(function, of) => {
            let text = evaluate(of, rows, misfits)?;
            let of_each = |text: Option<&str>| {
                Some(match function {
                    TextFunction::Lower => text?.chars().map(|c| single(c, c.to_lowercase())).collect(),
                    TextFunction::Upper => text?.chars().map(|c| single(c, c.to_uppercase())).collect(),
                    TextFunction::Trim => text?.trim_matches(' ').to_owned(),
                })
            };
            Ok(text.str()?.iter().map(of_each).collect::<StringChunked>().into_series())
        }
        Scalar::Extract(field, of) => {
            let text = evaluate(of, rows, misfits)?;
            let times = times(&text, &of.kind())?;
            let part = |time: Option<NaiveDateTime>| {
                let time = time?;
                Some(match field {
                    Field::Year => time.year(),
                    Field::Quarter => (time.month0() / 3 + 1) as i32,
                    Field::Month => time.month() as i32,
                    Field::Day => time.day() as i32,
                    Field::DayOfYear => time.ordinal() as i32,
                    Field::IsoDayOfWeek => time.weekday().number_from_monday() as i32,
                    Field::Week => time.iso_week().week() as i32,
                    Field::Hour => time.hour() as i32,
                    Field::Minute => time.minute() as i32,
                })
            };
            Ok(times.into_iter().map(part).collect::<Int32Chunked>().into_series())
        }
        Scalar::Cast { input, to, is_try, text } => {
            let (from, values) = (input.kind(), evaluate(input, rows, misfits)?);
            let cast = cast(&values, &from, to)?;
            if !is_try {
                misfits.compare(&values, &cast, |value| format!("{text}: {value} is no {to}"))?;
            }
            Ok(cast)
        }
    }
}

fn truth(of: &Scalar, rows: Rows<'_>, misfits: &mut Misfits) -> PolarsResult<BooleanChunked> {
    Ok(evaluate(of, rows, misfits)?.bool()?.clone())
}

/// Both sides of AND and OR. The second does not matter where the first decides.
fn sides(
    one: &Scalar,
    other: &Scalar,
    rows: Rows<'_>,
    misfits: &mut Misfits,
    decides: bool,
) -> PolarsResult<(BooleanChunked, BooleanChunked)> {
    let one = truth(one, rows, misfits)?;
    let mut of_other = Misfits::default();
    let other = truth(other, rows, &mut of_other)?;
    misfits.add(of_other, |row| one.get(row) != Some(decides));
    Ok((one, other))
}

fn map<T>(values: impl Iterator<Item = T>, of_each: impl Fn(T) -> Option<bool>) -> Series {
    values.map(of_each).collect::<BooleanChunked>().into_series()
}

/// The C library's way, which Postgres goes: one character for one.
fn single(c: char, mut mapped: impl ExactSizeIterator<Item = char>) -> char {
    if mapped.len() == 1 { mapped.next().unwrap_or(c) } else { c }
}

/// How a type is held and written to Parquet. What has no exact counterpart there stays the text
/// that Postgres printed, and load gives it back to Postgres as such.
fn dtype(kind: &Type) -> DataType {
    match kind {
        Type::Integer(16) => DataType::Int16,
        Type::Integer(32) => DataType::Int32,
        Type::Integer(_) => DataType::Int64,
        Type::Numeric { precision, scale } => DataType::Decimal(usize::from(*precision), usize::from(*scale)),
        Type::Boolean => DataType::Boolean,
        Type::Date => DataType::Date,
        Type::Time => DataType::Time,
        Type::Timestamp => DataType::Datetime(TimeUnit::Microseconds, None),
        Type::Text | Type::TimestampTz | Type::Other(_) | Type::Opaque(_) | Type::Unknown => DataType::String,
    }
}

/// Text in the type that it is of; NULL where it does not fit.
fn typed(text: &StringChunked, kind: &Type) -> PolarsResult<Series> {
    let shaped = |fits: &dyn Fn(&str) -> bool| -> StringChunked {
        text.iter().map(|text| text.filter(|text| fits(text))).collect()
    };
    Ok(match kind {
        Type::Integer(_) => shaped(&scalar::is_integer).cast_with_options(&dtype(kind), CastOptions::NonStrict)?,
        // polars would round what has more digits after the point.
        Type::Numeric { precision, scale } => shaped(&|text| scalar::fits_numeric(text, *precision, *scale))
            .cast_with_options(&dtype(kind), CastOptions::NonStrict)?,
        Type::Boolean => map(text.iter(), |text| match text? {
            "t" => Some(true),
            "f" => Some(false),
            _ => None,
        }),
        Type::Date => dates(text.iter().map(|text| scalar::date(text?))),
        Type::Time => day_times(text.iter().map(|text| scalar::time(text?))),
        Type::Timestamp => {
            let micros = text.iter().map(|text| Some(scalar::timestamp(text?)?.and_utc().timestamp_micros()));
            micros.collect::<Int64Chunked>().into_datetime(TimeUnit::Microseconds, None).into_series()
        }
        Type::Text | Type::TimestampTz | Type::Other(_) | Type::Opaque(_) | Type::Unknown => text.clone().into_series(),
    })
}

fn cast(values: &Series, from: &Type, to: &Type) -> PolarsResult<Series> {
    Ok(match (from, to) {
        (from, to) if from == to => values.clone(),
        (Type::Text | Type::Unknown, to) => typed(values.str()?, to)?,
        (Type::Boolean, Type::Text) => {
            let words = values.bool()?.iter().map(|truth| Some(if truth? { "true" } else { "false" }));
            words.collect::<StringChunked>().into_series()
        }
        // char(n) loses its padding: https://www.postgresql.org/docs/current/datatype-character.html
        (Type::Other(kind), Type::Text) if kind.starts_with("character(") => {
            let trimmed = values.str()?.iter().map(|text| Some(text?.trim_end_matches(' ')));
            trimmed.collect::<StringChunked>().into_series()
        }
        (_, Type::Text) => values.cast(&DataType::String)?,
        (Type::Timestamp | Type::TimestampTz, Type::Date) => {
            dates(times(values, from)?.into_iter().map(|time| Some(time?.date())))
        }
        (Type::Timestamp | Type::TimestampTz, Type::Time) => {
            day_times(times(values, from)?.into_iter().map(|time| Some(time?.time())))
        }
        (Type::Integer(_), Type::Numeric { .. }) => typed(values.cast(&DataType::String)?.str()?, to)?,
        (_, to) => values.cast_with_options(&dtype(to), CastOptions::NonStrict)?,
    })
}

/// Dates and timestamps as such, those with a time zone in UTC.
fn times(values: &Series, kind: &Type) -> PolarsResult<Vec<Option<NaiveDateTime>>> {
    Ok(match kind {
        Type::Date => {
            let date = |days: i32| EPOCH.checked_add_signed(chrono::TimeDelta::days(i64::from(days)));
            let dates = values.date()?.physical();
            dates.iter().map(|days| Some(date(days?)?.and_time(NaiveTime::MIN))).collect()
        }
        Type::Timestamp => {
            let micros = values.datetime()?.physical();
            micros.iter().map(|micros| Some(DateTime::from_timestamp_micros(micros?)?.naive_utc())).collect()
        }
        _ => values.str()?.iter().map(|text| scalar::timestamp(text?.strip_suffix("+00")?)).collect(),
    })
}

fn dates(dates: impl Iterator<Item = Option<NaiveDate>>) -> Series {
    let days = dates.map(|date| Some(date?.signed_duration_since(EPOCH).num_days() as i32));
    days.collect::<Int32Chunked>().into_date().into_series()
}

fn day_times(times: impl Iterator<Item = Option<NaiveTime>>) -> Series {
    let nanos =
        |time: NaiveTime| i64::from(time.num_seconds_from_midnight()) * 1_000_000_000 + i64::from(time.nanosecond());
    times.map(|time| time.map(nanos)).collect::<Int64Chunked>().into_time().into_series()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(values: &[Option<&str>]) -> StringChunked {
        values.iter().copied().collect()
    }

    /// The values of a source column of a type, and why some do not fit.
    fn read(values: &[Option<&str>], kind: &str) -> (Series, Misfits) {
        let frame = DataFrame::new(values.len(), vec![texts(values).with_name("0:c".into()).into_column()]).unwrap();
        let table = Table { name: "t".into(), alias: "t".into(), fixed: false, join: None };
        let mut misfits = Misfits::default();
        let column = Scalar::Column(0, "c".into(), Type::of(kind));
        let values = evaluate(&column, Rows { frame: &frame, tables: &[table] }, &mut misfits).unwrap();
        (values, misfits)
    }

    #[test]
    fn a_value_keeps_its_digits_in_its_type() {
        for (kind, value) in [
            ("smallint", "-32768"),
            ("integer", "2147483647"),
            ("bigint", "-9223372036854775808"),
            ("numeric(10,2)", "99999999.99"),
            ("numeric(38,10)", "-1234567890123456789012345678.0123456789"),
            ("numeric(2,2)", "0.05"),
            ("date", "0001-01-01"),
            ("date", "9999-12-31"),
            ("timestamp(3) without time zone", "2024-02-29 23:59:59.999000"),
            ("timestamp without time zone", "0001-01-01 00:00:00.000001"),
            ("text", "1E5"),
        ] {
            let (typed, misfits) = read(&[None, Some(value)], kind);
            let back = typed.cast(&DataType::String).unwrap();
            let back: Vec<_> = back.str().unwrap().iter().collect();
            assert_eq!(back, [None, Some(value)], "{kind}");
            assert!(misfits.is_empty(), "{kind}");
        }
    }

    #[test]
    fn a_value_that_does_not_fit_is_named_wherever_it_stands() {
        for (kind, good, bad) in [
            ("integer", "1", "x"),
            ("integer", "1", " 1"),
            ("smallint", "1", "32768"),
            ("numeric(10,2)", "1.00", "NaN"),
            ("numeric(10,2)", "1.00", "1.005"),
            ("numeric(10,2)", "1.00", "123456789.00"),
            ("date", "2024-01-02", "infinity"),
            ("date", "2024-01-02", "12024-01-02"),
            ("date", "2024-01-02", "2024-1-02"),
            ("date", "2024-01-02", "2023-02-29"),
            ("date", "2024-01-02", "02/01/2024"),
            ("timestamp without time zone", "2024-01-02 00:00:00", "0044-03-15 00:00:00 BC"),
            ("timestamp without time zone", "2024-01-02 00:00:00", "2024-01-02 24:00:00"),
            ("boolean", "t", "yes"),
        ] {
            for (place, order) in [(2, [good, bad]), (1, [bad, good])] {
                let (values, misfits) = read(&[None, Some(order[0]), Some(order[1])], kind);
                let why = format!("t.c: {bad:?} is a {} that cannot be kept exactly", Type::of(kind));
                assert_eq!(misfits.rows().collect::<Vec<_>>(), [(place, why.as_str())]);
                assert_eq!(values.null_count(), 2, "the good one is kept");
            }
        }
    }

    #[test]
    fn letters_change_one_by_one() {
        let rows = Rows { frame: &DataFrame::empty_with_height(1), tables: &[] };
        for (function, text, expected) in
            [(TextFunction::Lower, "ÜNÏ İ ΣΣ", "ünï İ σσ"), (TextFunction::Upper, "straße ünï", "STRAßE ÜNÏ")]
        {
            let text = Scalar::Literal(Some(text.into()), Type::Text);
            let values = evaluate(&Scalar::Text(function, Box::new(text)), rows, &mut Misfits::default()).unwrap();
            assert_eq!(values.str().unwrap().get(0), Some(expected));
        }
    }
}
