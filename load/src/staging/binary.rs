//! Star rows from Parquet in the binary format of COPY, which Postgres reads in a third of the time that it takes for text
//! (<https://www.postgresql.org/docs/current/sql-copy.html>).

use arrow_array::cast::AsArray as _;
use arrow_array::types::{
    Date32Type, Decimal128Type, Int16Type, Int32Type, Int64Type, Time64NanosecondType, TimestampMicrosecondType,
};
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema, TimeUnit};

use crate::catalogue::PgType;

/// What comes before the rows: the signature, flags and the length of nothing more.
pub(crate) const BEGIN: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What comes after them.
pub(crate) const END: &[u8] = &(-1_i16).to_be_bytes();

/// Postgres counts from 2000-01-01, Arrow from 1970-01-01.
const DAYS: i32 = 10_957;
const MICROSECONDS: i64 = DAYS as i64 * 86_400_000_000;

/// The signs of a numeric, and one that there is not.
const POSITIVE: u16 = 0;
const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xc000;
const NONE: u16 = 0x1234;
/// The most digits of a numeric that are written after the point and before it; together they are fewer groups than fit 16 bits.
const MOST_SHOWN: usize = 0x3fff;
const MOST_WHOLE: usize = 100_000;

/// How the values of a column are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// An integer of so many bytes.
    Integer(usize),
    Numeric,
    Boolean,
    Date,
    Time,
    Timestamp,
    Text,
}

/// How the columns of a file, as transform makes it, are written into columns of these types; `None` if one has to be read from its
/// text.
pub(crate) fn encodings<'t>(file: &Schema, columns: impl Iterator<Item = &'t PgType>) -> Option<Vec<Encoding>> {
    let encoding = |(field, column): (&Field, &PgType)| match (field.data_type(), column.builtin()?) {
        (DataType::Int16, "smallint") => Some(Encoding::Integer(2)),
        (DataType::Int16 | DataType::Int32, "integer") => Some(Encoding::Integer(4)),
        (DataType::Int16 | DataType::Int32 | DataType::Int64, "bigint") => Some(Encoding::Integer(8)),
        (DataType::Int16 | DataType::Int32 | DataType::Int64 | DataType::Utf8View, "numeric") => {
            Some(Encoding::Numeric)
        }
        (DataType::Decimal128(_, 0..), "numeric") => Some(Encoding::Numeric),
        (DataType::Boolean, "boolean") => Some(Encoding::Boolean),
        (DataType::Date32, "date") => Some(Encoding::Date),
        (DataType::Time64(TimeUnit::Nanosecond), "time without time zone") => Some(Encoding::Time),
        (DataType::Timestamp(TimeUnit::Microsecond, None), "timestamp without time zone") => Some(Encoding::Timestamp),
        (DataType::Utf8View, "text" | "character varying") => Some(Encoding::Text),
        _ => None,
    };
    file.fields().iter().map(AsRef::as_ref).zip(columns).map(encoding).collect()
}

/// Rows, each after its number, from `first` on.
pub(crate) fn rows(piece: &RecordBatch, first: i64, encodings: &[Encoding]) -> Vec<u8> {
    let mut to = Vec::new();
    for row in 0..piece.num_rows() {
        // A table has 1,600 columns at most.
        to.extend((encodings.len() as i16 + 1).to_be_bytes());
        field(&mut to, &(first + row as i64).to_be_bytes());
        for (column, encoding) in piece.columns().iter().zip(encodings) {
            match column.is_null(row) {
                true => to.extend((-1_i32).to_be_bytes()),
                false => value(&mut to, column.as_ref(), row, *encoding),
            }
        }
    }
    to
}

/// A field: its length, which Arrow keeps in as many bits, and its bytes.
fn field(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend((bytes.len() as i32).to_be_bytes());
    to.extend(bytes);
}

/// What is out of range for Postgres it refuses.
fn value(to: &mut Vec<u8>, column: &dyn Array, row: usize, encoding: Encoding) {
    match encoding {
        Encoding::Integer(bytes) => field(to, &integer(column, row).to_be_bytes()[8 - bytes..]),
        Encoding::Numeric => match column.data_type() {
            DataType::Utf8View => numeric(to, column.as_string_view().value(row)),
            DataType::Decimal128(_, scale) => {
                let (value, scale) = (column.as_primitive::<Decimal128Type>().value(row), *scale as usize);
                let sign = if value < 0 { "-" } else { "" };
                let digits = format!("{:0>1$}", value.unsigned_abs(), scale + 1);
                let (whole, fraction) = digits.split_at(digits.len() - scale);
                numeric(to, &format!("{sign}{whole}.{fraction}"));
            }
            _ => numeric(to, &integer(column, row).to_string()),
        },
        Encoding::Boolean => field(to, &[u8::from(column.as_boolean().value(row))]),
        Encoding::Date => {
            field(to, &column.as_primitive::<Date32Type>().value(row).saturating_sub(DAYS).to_be_bytes());
        }
        // Of whole microseconds, as the source's.
        Encoding::Time => {
            field(to, &(column.as_primitive::<Time64NanosecondType>().value(row) / 1000).to_be_bytes());
        }
        Encoding::Timestamp => {
            let value = column.as_primitive::<TimestampMicrosecondType>().value(row);
            field(to, &value.saturating_sub(MICROSECONDS).to_be_bytes());
        }
        Encoding::Text => field(to, column.as_string_view().value(row).as_bytes()),
    }
}

fn integer(column: &dyn Array, row: usize) -> i64 {
    match column.data_type() {
        DataType::Int16 => column.as_primitive::<Int16Type>().value(row).into(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).into(),
        _ => column.as_primitive::<Int64Type>().value(row),
    }
}

/// A numeric from its digits, as `numeric_send` writes it: how many groups of four digits, the place of the first, the sign, how many
/// digits are shown after the point, and the groups. What is no plain number gets a sign that there is not, so Postgres refuses it
/// and is sent the text.
fn numeric(to: &mut Vec<u8>, text: &str) {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (NEGATIVE, digits),
        None => (POSITIVE, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_number = |digits: &str| digits.bytes().all(|digit| digit.is_ascii_digit());
    let is_plain = !whole.is_empty()
        && is_number(whole)
        && is_number(fraction)
        && fraction.len() <= MOST_SHOWN
        && whole.len() <= MOST_WHOLE;
    if !is_plain {
        let sign = if text == "NaN" { NAN } else { NONE };
        return field(to, &[[0; 2], [0; 2], sign.to_be_bytes(), [0; 2]].concat());
    }
    let group = |digits: &[u8]| digits.iter().fold(0_u16, |group, digit| group * 10 + u16::from(digit - b'0'));
    let (head, tail) = whole.as_bytes().split_at(whole.len() % 4);
    let mut groups: Vec<u16> = (!head.is_empty()).then(|| group(head)).into_iter().collect();
    groups.extend(tail.chunks(4).map(group));
    let mut weight = groups.len() as i16 - 1;
    groups.extend(fraction.as_bytes().chunks(4).map(|digits| group(digits) * 10_u16.pow(4 - digits.len() as u32)));
    let zeros = groups.iter().take_while(|group| **group == 0).count();
    groups.drain(..zeros);
    weight -= zeros as i16;
    groups.truncate(groups.iter().rposition(|group| *group != 0).map_or(0, |last| last + 1));
    let (sign, weight) = if groups.is_empty() { (POSITIVE, 0) } else { (sign, weight) };
    to.extend((8 + 2 * groups.len() as i32).to_be_bytes());
    to.extend((groups.len() as i16).to_be_bytes());
    to.extend(weight.to_be_bytes());
    to.extend(sign.to_be_bytes());
    to.extend((fraction.len() as u16).to_be_bytes());
    groups.iter().for_each(|group| to.extend(group.to_be_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_numeric_is_written_in_groups_of_four_digits() {
        // What `SELECT numeric_send(…)` says.
        for (text, expected) in [
            ("0", vec![0, 0, 0, 0]),
            ("-0.00", vec![0, 0, 0, 2]),
            ("1", vec![1, 0, 0, 0, 1]),
            ("12345.678", vec![3, 1, 0, 3, 1, 2345, 6780]),
            ("-10000", vec![1, 1, NEGATIVE, 0, 1]),
            ("0.00001230", vec![1, 0xfffe, 0, 8, 1230]),
            ("00012.5000", vec![2, 0, 0, 4, 12, 5000]),
            ("NaN", vec![0, 0, NAN, 0]),
        ] {
            let mut to = Vec::new();
            numeric(&mut to, text);
            let words: Vec<_> = to[4..].chunks(2).map(|two| u16::from_be_bytes([two[0], two[1]])).collect();
            assert_eq!(words, expected, "{text}");
            assert_eq!(to[..4], (to.len() as i32 - 4).to_be_bytes());
        }
        for text in ["", "-", "Infinity", "1e5", ".5", "+1", " 1", "1,5"] {
            let mut to = Vec::new();
            numeric(&mut to, text);
            assert_eq!(to[8..10], NONE.to_be_bytes(), "{text}");
        }
    }
}
