//! The check of rows: as many fields as the header has, counted as they come.

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

use crate::report::BadRow;
use crate::rules::{BlankRows, Kind, LongRows, Rules};

/// So many records tell what the delimiter is.
const SAMPLE: usize = 20;
/// The most bytes of a header, and the most columns.
const MOST_HEADER: usize = 1 << 20;
const MOST_COLUMNS: usize = 1 << 16;
/// A row of more lines than this may have a quote that is not closed. So many of them are named.
const MANY_LINES: u64 = 20;
const MOST_WARNINGS: usize = 10;

/// The rows of a file, as far as they are read.
pub(super) struct Table<'r> {
    rules: &'r Rules,
    reader: Reader,
    /// The values and their ends: of the header all, of other rows nobody wants them.
    values: Vec<u8>,
    ends: Vec<usize>,
    /// How much of both the record has that is under way.
    filled: (usize, usize),
    columns: Option<usize>,
    kind: Option<&'r Kind>,
    /// Records so far, and those of them that count.
    number: u64,
    rows: u64,
    /// Whether a record is under way, and whether the last byte before it was a carriage return.
    is_begun: bool,
    is_after_return: bool,
    /// The line that the record begins in, and how many ends of lines the reader had seen before it.
    line: u64,
    seen: u64,
    delimiter: u8,
    warnings: Vec<String>,
    fault: Option<Fault>,
}

/// Why a file is not let in.
pub(super) struct Fault {
    pub(super) why: String,
    /// The row, if it is one.
    pub(super) row: Option<BadRow>,
}

/// What became of the rows.
pub(super) struct Outcome<'r> {
    pub(super) rows: u64,
    pub(super) columns: Option<usize>,
    pub(super) delimiter: char,
    pub(super) kind: Option<&'r Kind>,
    pub(super) warnings: Vec<String>,
    pub(super) fault: Option<Fault>,
}

impl<'r> Table<'r> {
    /// The rows of a file that begins with `head`, which is all of it if `is_whole`.
    pub(super) fn new(rules: &'r Rules, key: &str, head: &[u8], is_whole: bool) -> Self {
        let delimiter = delimiter(rules, key, head, is_whole);
        Self {
            rules,
            reader: ReaderBuilder::new().delimiter(delimiter).build(),
            values: vec![0; 4096],
            ends: vec![0; 256],
            filled: (0, 0),
            columns: None,
            kind: None,
            number: 0,
            rows: 0,
            is_begun: false,
            is_after_return: false,
            line: 1,
            seen: 0,
            delimiter,
            warnings: Vec::new(),
            fault: None,
        }
    }

    /// Reads the next piece.
    pub(super) fn read(&mut self, mut piece: &[u8]) {
        while let Some((first, rest)) = piece.split_first() {
            if self.fault.is_some() {
                return;
            }
            if !self.is_begun {
                let is_second_of_end = self.is_after_return && *first == b'\n';
                self.is_after_return = false;
                if is_second_of_end {
                    piece = rest;
                    continue;
                }
                if matches!(first, b'\r' | b'\n') {
                    self.is_after_return = *first == b'\r';
                    piece = rest;
                    self.blank();
                    self.line += 1;
                    continue;
                }
                self.is_begun = true;
                self.seen = self.reader.line();
            }
            let (_, read) = self.read_record(piece);
            if !self.is_begun {
                let last = piece[..read].last();
                self.is_after_return = last == Some(&b'\r');
                self.lines(self.reader.line() - self.seen - u64::from(last == Some(&b'\n')));
            }
            piece = &piece[read..];
        }
    }

    /// Ends the last row, if nothing has.
    pub(super) fn end(mut self) -> Outcome<'r> {
        let mut rest: &[u8] = b"\n";
        while self.fault.is_none() && self.is_begun && !rest.is_empty() {
            let (_, read) = self.read_record(rest);
            rest = &rest[read..];
        }
        if self.fault.is_none() && self.is_begun {
            self.unclosed();
        }
        if self.columns.is_none() && self.fault.is_none() {
            self.header(0);
        }
        Outcome {
            rows: self.rows,
            columns: self.columns,
            delimiter: self.delimiter.into(),
            kind: self.kind,
            warnings: self.warnings,
            fault: self.fault,
        }
    }

    /// A record has ended that had so many ends of lines in its values.
    fn lines(&mut self, inside: u64) {
        self.line += inside + 1;
        if inside >= MANY_LINES && self.warnings.len() < MOST_WARNINGS {
            self.warnings.push(format!("Row {} has {} lines. Is a quote not closed?", self.number, inside + 1));
        }
    }

    /// Reads to the end of a record, or as far as there is room.
    fn read_record(&mut self, piece: &[u8]) -> (ReadRecordResult, usize) {
        let is_header = self.columns.is_none();
        let from = if is_header { self.filled } else { (0, 0) };
        let (result, read, values, ends) =
            self.reader.read_record(piece, &mut self.values[from.0..], &mut self.ends[from.1..]);
        self.filled = (self.filled.0 + values, self.filled.1 + ends);
        match result {
            ReadRecordResult::Record => {
                let fields = self.filled.1;
                self.record(fields);
                self.filled = (0, 0);
                self.is_begun = false;
            }
            ReadRecordResult::OutputFull if is_header && self.values.len() >= MOST_HEADER => {
                self.refuse("The header is longer than 1MB. Is a quote not closed?".into());
            }
            ReadRecordResult::OutputFull if is_header => self.values.resize(self.values.len() * 2, 0),
            ReadRecordResult::OutputEndsFull if is_header && self.ends.len() >= MOST_COLUMNS => {
                self.refuse(format!("The header has more than {MOST_COLUMNS} columns"));
            }
            ReadRecordResult::OutputEndsFull if is_header => self.ends.resize(self.ends.len() * 2, 0),
            ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull | ReadRecordResult::InputEmpty => {}
            ReadRecordResult::End => self.is_begun = false,
        }
        (result, read)
    }

    fn record(&mut self, fields: usize) {
        self.number += 1;
        let Some(columns) = self.columns else { return self.header(fields) };
        self.rows += 1;
        if fields < columns {
            self.short(fields);
        } else if fields > columns && self.rules.text.long_rows == LongRows::Error {
            self.bad_row(columns + 1, format!("Expected {columns} columns on row {} found {fields}", self.number));
        }
    }

    /// A row without a character.
    fn blank(&mut self) {
        self.number += 1;
        if self.rules.text.blank_rows == BlankRows::Error {
            match self.columns {
                Some(_) => self.short(0),
                None => self.header(0),
            }
        }
    }

    /// The file ends in a quoted value.
    fn unclosed(&mut self) {
        self.number += 1;
        let fields = self.filled.1 + 1;
        if self.columns.is_some_and(|columns| fields < columns) {
            return self.short(fields);
        }
        self.bad_row(fields, format!("A quote is not closed in row {}", self.number));
    }

    fn short(&mut self, fields: usize) {
        let (columns, number) = (self.columns.unwrap_or_default(), self.number);
        self.bad_row(fields + 1, format!("Incomplete file: Expected {columns} columns on row {number} found {fields}"));
    }

    fn bad_row(&mut self, column: usize, why: String) {
        self.rows = self.number;
        let row = BadRow { row: self.number, line: self.line, column };
        self.fault = Some(Fault { why, row: Some(row) });
    }

    fn refuse(&mut self, why: String) {
        self.fault = Some(Fault { why, row: None });
    }

    fn header(&mut self, fields: usize) {
        self.columns = Some(fields);
        if fields < self.rules.text.min_columns {
            self.refuse(format!("File has only {fields} columns. We might have failed to detect the delimiter"));
            return;
        }
        self.rows = 1;
        let mut begin = 0;
        let names = self.ends[..fields].iter().map(|end| {
            let name = String::from_utf8_lossy(&self.values[begin..*end]).into_owned();
            begin = *end;
            name
        });
        self.kind = self.rules.kind_of_header(&names.collect::<Vec<_>>());
    }
}

/// What stands between the fields: the candidate by which most of the first records have as many fields as the header. If two do: the
/// one that makes more columns, then the one of the file's extension.
fn delimiter(rules: &Rules, key: &str, head: &[u8], is_whole: bool) -> u8 {
    let by_name = if key.to_lowercase().ends_with(".tsv") { b'\t' } else { b',' };
    let candidates = rules.text.delimiters.iter().map(|delimiter| *delimiter as u8);
    let best = candidates.max_by_key(|delimiter| {
        let counts = fields(head, *delimiter, is_whole);
        let columns = counts.first().copied().unwrap_or_default();
        let are_enough = columns >= rules.text.min_columns;
        let agree = counts.iter().filter(|fields| **fields == columns).count();
        (are_enough.then_some((agree, columns)), *delimiter == by_name)
    });
    best.unwrap_or(by_name)
}

/// How many fields each of the first records has.
fn fields(head: &[u8], delimiter: u8, is_whole: bool) -> Vec<usize> {
    let mut reader = ReaderBuilder::new().delimiter(delimiter).build();
    let (mut values, mut ends) = (vec![0; 4096], vec![0; 256]);
    let (mut counts, mut count, mut head) = (Vec::new(), 0, head);
    while counts.len() < SAMPLE && (!head.is_empty() || is_whole) {
        let (result, read, _, more) = reader.read_record(head, &mut values, &mut ends);
        head = &head[read..];
        count += more;
        match result {
            ReadRecordResult::Record => counts.push(std::mem::take(&mut count)),
            ReadRecordResult::End => break,
            _ => {}
        }
    }
    // The header is longer than what is looked at.
    if counts.is_empty() {
        counts.push(count);
    }
    counts
}
