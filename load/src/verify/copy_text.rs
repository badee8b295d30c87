//! Rows as COPY writes text.

use std::pin::Pin;

use blackwater_shared::postgres::Doing;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};

use crate::error::Error;
use crate::target::Target;

/// The rows of a star table: key and values of each.
pub(super) struct Lines(pub(super) Pin<Box<dyn Stream<Item = Result<Bytes, tokio_postgres::Error>> + Send>>);

/// A row of a star table.
pub(super) struct StarRow {
    pub(super) key: Vec<String>,
    pub(super) values: Vec<Option<String>>,
}

impl Lines {
    pub(super) async fn next(&mut self, target: &Target<'_>) -> Result<Option<StarRow>, Error> {
        let Some(line) = self.0.next().await else { return Ok(None) };
        let mut key = fields(&line.doing(format!("read the rows of {}", target.name))?);
        let values = key.split_off(target.key.len());
        Ok(Some(StarRow { key: key.into_iter().map(Option::unwrap_or_default).collect(), values }))
    }
}

/// The values of a line as COPY writes text.
/// <https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.2>
fn fields(line: &[u8]) -> Vec<Option<String>> {
    let line = String::from_utf8_lossy(line);
    let line = line.strip_suffix('\n').unwrap_or(&line);
    let value = |field: &str| {
        if field == "\\N" {
            return None;
        }
        let mut value = String::with_capacity(field.len());
        let mut letters = field.chars();
        while let Some(letter) = letters.next() {
            value.push(match letter {
                '\\' => match letters.next() {
                    Some('b') => '\u{8}',
                    Some('f') => '\u{c}',
                    Some('n') => '\n',
                    Some('r') => '\r',
                    Some('t') => '\t',
                    Some('v') => '\u{b}',
                    other => other.unwrap_or('\\'),
                },
                letter => letter,
            });
        }
        Some(value)
    };
    line.split('\t').map(value).collect()
}
