//! The rows of a peek, split out of `COPY (SELECT xid, data …) TO STDOUT (FORMAT binary)` as the bytes arrive.
//!
//! The format is at <https://www.postgresql.org/docs/current/sql-copy.html>, section "Binary Format".

use bytes::{Buf, Bytes, BytesMut};

const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";

/// The signature, the flags and the length of the extension.
const HEADER: usize = SIGNATURE.len() + 8;

/// The flags that a reader has to understand.
const CRITICAL_FLAGS: u32 = 0xffff_0000;

/// The number of fields, the length of an xid, the xid, and the length of the data.
const BEFORE_DATA: usize = 2 + 4 + 4 + 4;

/// Why the output of COPY cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum CopyError {
    /// It does not begin like binary COPY output.
    #[error("the output of COPY does not begin with the signature of the binary format")]
    Signature,
    /// It uses a feature that this program does not know.
    #[error("the output of COPY has flags {0:#010x}, which this program does not know")]
    Flags(u32),
    /// A row has another number of fields.
    #[error("a row of the peek has {0} fields instead of 2")]
    FieldCount(i16),
    /// The transaction id is null or not 4 bytes long.
    #[error("the transaction id in a row of the peek has length {0} instead of 4")]
    XidLength(i32),
    /// The data is null, or a length is negative.
    #[error("a length in the output of COPY is {0}")]
    Length(i32),
    /// Something follows the trailer.
    #[error("the output of COPY goes on after its trailer")]
    AfterTrailer,
    /// It ends before the trailer.
    #[error("the output of COPY ends before its trailer")]
    Incomplete,
}

/// A row of a peek.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// The transaction's id.
    pub(crate) xid: u32,
    /// A message of the output plugin.
    pub(crate) data: Bytes,
}

/// Decodes rows from chunks of any size, and holds no more than a chunk and an unfinished row.
#[derive(Debug, Default)]
pub(crate) struct CopyRows {
    buffer: BytesMut,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Header,
    /// This many bytes of the header's extension are still to be skipped.
    Extension(usize),
    Rows,
    Trailer,
}

impl CopyRows {
    /// Adds the next chunk; [`Self::next_row`] then returns the rows that it completes.
    pub(crate) fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next row, or `None` if it takes another chunk or there are no more rows.
    ///
    /// # Errors
    /// The bytes are not the binary output of a peek.
    pub(crate) fn next_row(&mut self) -> Result<Option<Row>, CopyError> {
        loop {
            match self.state {
                State::Header => match self.header()? {
                    Some(extension) => self.state = State::Extension(extension),
                    None => return Ok(None),
                },
                State::Extension(0) => self.state = State::Rows,
                State::Extension(_) if self.buffer.is_empty() => return Ok(None),
                State::Extension(left) => {
                    let skipped = left.min(self.buffer.len());
                    self.buffer.advance(skipped);
                    self.state = State::Extension(left - skipped);
                }
                State::Rows => match self.row()? {
                    Some(row) => return Ok(Some(row)),
                    None if self.state == State::Rows => return Ok(None),
                    None => {}
                },
                State::Trailer if self.buffer.is_empty() => return Ok(None),
                State::Trailer => return Err(CopyError::AfterTrailer),
            }
        }
    }

    /// Confirms that the output is complete; call it when there are no more chunks and no more rows.
    ///
    /// # Errors
    /// The trailer is missing.
    pub(crate) fn finish(self) -> Result<(), CopyError> {
        match self.state {
            State::Trailer if self.buffer.is_empty() => Ok(()),
            State::Trailer => Err(CopyError::AfterTrailer),
            _ => Err(CopyError::Incomplete),
        }
    }

    /// Reads the header and returns the length of its extension.
    fn header(&mut self) -> Result<Option<usize>, CopyError> {
        let begun = self.buffer.len().min(SIGNATURE.len());
        if self.buffer[..begun] != SIGNATURE[..begun] {
            return Err(CopyError::Signature);
        }
        if self.buffer.len() < HEADER {
            return Ok(None);
        }
        self.buffer.advance(SIGNATURE.len());
        let flags = self.buffer.get_u32();
        if flags & CRITICAL_FLAGS != 0 {
            return Err(CopyError::Flags(flags));
        }
        length(self.buffer.get_i32()).map(Some)
    }

    /// Reads a row if all of it is there, or the trailer.
    fn row(&mut self) -> Result<Option<Row>, CopyError> {
        let mut head = &self.buffer[..];
        match head.try_get_i16() {
            Err(_) => return Ok(None),
            Ok(2) => {}
            Ok(-1) => {
                self.buffer.advance(2);
                self.state = State::Trailer;
                return Ok(None);
            }
            Ok(other) => return Err(CopyError::FieldCount(other)),
        }
        match head.try_get_i32() {
            Err(_) => return Ok(None),
            Ok(4) => {}
            Ok(other) => return Err(CopyError::XidLength(other)),
        }
        let (Ok(xid), Ok(data)) = (head.try_get_u32(), head.try_get_i32()) else {
            return Ok(None);
        };
        let data = length(data)?;
        if head.len() < data {
            return Ok(None);
        }
        self.buffer.advance(BEFORE_DATA);
        Ok(Some(Row { xid, data: self.buffer.split_to(data).freeze() }))
    }
}

fn length(written: i32) -> Result<usize, CopyError> {
    usize::try_from(written).map_err(|_| CopyError::Length(written))
}

#[cfg(test)]
mod tests {
    use super::super::encode::copy;
    use super::*;

    fn decode<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> Result<Vec<(u32, Vec<u8>)>, CopyError> {
        let mut rows = CopyRows::default();
        let mut decoded = Vec::new();
        for chunk in chunks {
            rows.push(chunk);
            while let Some(row) = rows.next_row()? {
                decoded.push((row.xid, row.data.to_vec()));
            }
        }
        rows.finish().map(|()| decoded)
    }

    fn with_header(rest: &[u8]) -> Vec<u8> {
        [&SIGNATURE[..], &[0; 8], rest].concat()
    }

    #[test]
    fn rows_are_the_same_whatever_the_size_of_the_chunks() {
        let rows = vec![(7, b"first".to_vec()), (u32::MAX, Vec::new()), (8, vec![0xff; 300])];
        let bytes = copy(&rows);
        for size in 1..=bytes.len() {
            assert_eq!(decode(bytes.chunks(size)), Ok(rows.clone()), "chunks of {size}");
        }
    }

    #[test]
    fn a_peek_without_rows_is_complete() {
        assert_eq!(decode(copy(&[]).chunks(5)), Ok(Vec::new()));
    }

    #[test]
    fn output_that_ends_early_is_incomplete() {
        let bytes = copy(&[(7, b"first".to_vec()), (8, b"second".to_vec())]);
        for end in 0..bytes.len() {
            assert_eq!(decode(bytes[..end].chunks(3)), Err(CopyError::Incomplete), "{end} bytes");
        }
    }

    #[test]
    fn the_header_extension_and_harmless_flags_are_skipped() {
        let mut bytes = copy(&[(7, b"first".to_vec())]);
        bytes[14] = 1;
        bytes[18] = 3;
        bytes.splice(19..19, *b"abc");
        for size in 1..30 {
            assert_eq!(decode(bytes.chunks(size)), Ok(vec![(7, b"first".to_vec())]));
        }
    }

    #[test]
    fn what_is_not_the_output_of_a_peek_is_refused() {
        let refused = |bytes: &[u8]| decode([bytes].into_iter()).unwrap_err();
        assert_eq!(refused(b"PGCOPZ"), CopyError::Signature);
        assert_eq!(refused(b"1\t\\x42\n"), CopyError::Signature);
        let mut oids = with_header(&[]);
        oids[12] = 1;
        assert_eq!(refused(&oids), CopyError::Flags(0x0001_0000));
        let mut extension = with_header(&[]);
        extension[15] = 0xff;
        assert_eq!(refused(&extension), CopyError::Length(-0x0100_0000));
        assert_eq!(refused(&with_header(&[0, 3])), CopyError::FieldCount(3));
        assert_eq!(refused(&with_header(&[0, 2, 0, 0, 0, 8])), CopyError::XidLength(8));
        assert_eq!(refused(&with_header(&[0, 2, 255, 255, 255, 255])), CopyError::XidLength(-1));
        let null = [0, 2, 0, 0, 0, 4, 0, 0, 0, 7, 255, 255, 255, 255];
        assert_eq!(refused(&with_header(&null)), CopyError::Length(-1));
        assert_eq!(refused(&with_header(&[255, 255, 0])), CopyError::AfterTrailer);
    }
}
