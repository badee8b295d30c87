//! The check of a file of text: its encoding, which all its bytes decide, and its rows.

use std::io::{self, Read};

use encoding_rs::{CoderResult, Decoder, UTF_16BE, UTF_16LE};

use super::table::Table;
use super::{PIECE, content_kind};
use crate::report::{File, More, UNKNOWN};
use crate::rules::Rules;

/// What tells UTF-8, UTF-16 little-endian and big-endian, at the beginning.
pub(super) const UTF_8_MARK: &[u8] = b"\xef\xbb\xbf";
const UTF_16LE_MARK: &[u8] = b"\xff\xfe";
const UTF_16BE_MARK: &[u8] = b"\xfe\xff";
/// Bytes of which it is found whether they are UTF-16 without a mark.
const SAMPLE: usize = 4096;
/// Bytes that windows-1252 has no character for. The standard of the web reads them as controls
/// (<https://encoding.spec.whatwg.org/#index-windows-1252>), other programs do not read them.
const NOT_IN_WINDOWS_1252: [u8; 5] = [0x81, 0x8d, 0x8f, 0x90, 0x9d];

pub(super) fn check(rules: &Rules, key: &str, from: &mut impl Read) -> io::Result<File> {
    let mut piece = vec![0; PIECE];
    let filled = fill(from, &mut piece)?;
    let head = &piece[..filled];
    if head.is_empty() {
        return Ok(File::refused(key, "File is empty"));
    }
    let content_kind = content_kind(head);
    let (mut coding, mark) = Coding::of(head);
    let mut text = Vec::new();
    coding.read(&head[mark..], &mut text);
    let mut table = Table::new(rules, key, &text, filled < PIECE);
    table.read(&text);
    loop {
        let read = fill(from, &mut piece)?;
        if read == 0 {
            break;
        }
        text.clear();
        coding.read(&piece[..read], &mut text);
        table.read(&text);
    }
    text.clear();
    let (encoding, is_whole) = coding.end(&mut text);
    table.read(&text);
    let result = table.end();
    let mut file = File {
        csv_valid: true,
        csv_rows: result.rows,
        csv_encoding: encoding.into(),
        ems: result.kind.map_or(UNKNOWN.into(), |kind| kind.name.clone()),
        errors: String::new(),
        key: key.into(),
        more: Some(More {
            delimiter: Some(result.delimiter),
            bom: mark > 0,
            columns: result.columns,
            first_bad_row: result.fault.as_ref().and_then(|fault| fault.row),
            warnings: result.warnings,
            content_kind,
            ..More::default()
        }),
    };
    if let Some(fault) = result.fault {
        file.refuse(&fault.why);
    } else if !is_whole {
        file.refuse("The file is cut in the middle of a character, or is no UTF-16");
    }
    Ok(file)
}

/// Reads until a piece is full, or there is no more.
fn fill(from: &mut impl Read, piece: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < piece.len() {
        match from.read(&mut piece[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// How the bytes of a file are read.
enum Coding {
    /// As they are: delimiters, quotes and the ends of lines are the same in UTF-8, windows-1252 and latin-1.
    Bytes(Watch),
    /// As UTF-16.
    Utf16 { name: &'static str, decoder: Decoder, has_errors: bool },
}

/// Which encodings the bytes so far may be of.
#[derive(Default)]
pub(super) struct Watch {
    is_not_utf8: bool,
    /// The beginning of a character whose end has not come.
    begun: Vec<u8>,
    is_not_windows_1252: bool,
}

impl Coding {
    /// That of a file that begins so, and the length of its mark.
    fn of(head: &[u8]) -> (Self, usize) {
        let utf16 = |name, encoding: &'static encoding_rs::Encoding| Self::Utf16 {
            name,
            decoder: encoding.new_decoder_without_bom_handling(),
            has_errors: false,
        };
        if head.starts_with(UTF_8_MARK) {
            return (Self::Bytes(Watch::default()), UTF_8_MARK.len());
        }
        if head.starts_with(UTF_16LE_MARK) {
            return (utf16("utf-16le", UTF_16LE), UTF_16LE_MARK.len());
        }
        if head.starts_with(UTF_16BE_MARK) {
            return (utf16("utf-16be", UTF_16BE), UTF_16BE_MARK.len());
        }
        // Without a mark, most characters of a table have one byte of two that is zero.
        let sample = &head[..head.len().min(SAMPLE)];
        let zeros = |first: usize| sample.iter().skip(first).step_by(2).filter(|byte| **byte == 0).count();
        let (even, odd, most) = (zeros(0), zeros(1), sample.len() / 4);
        match (even > most, odd > most) {
            (false, true) => (utf16("utf-16le", UTF_16LE), 0),
            (true, false) => (utf16("utf-16be", UTF_16BE), 0),
            _ => (Self::Bytes(Watch::default()), 0),
        }
    }

    /// Appends what bytes are in a superset of ASCII.
    fn read(&mut self, bytes: &[u8], to: &mut Vec<u8>) {
        match self {
            Self::Bytes(watch) => {
                watch.see(bytes);
                to.extend_from_slice(bytes);
            }
            Self::Utf16 { decoder, has_errors, .. } => *has_errors |= decode(decoder, bytes, false, to),
        }
    }

    /// Appends what is left, and says what the encoding is and whether all bytes fit it.
    fn end(self, to: &mut Vec<u8>) -> (&'static str, bool) {
        match self {
            Self::Bytes(watch) if watch.is_utf8() => ("utf-8", true),
            Self::Bytes(watch) if !watch.is_not_windows_1252 => ("windows-1252", true),
            Self::Bytes(_) => ("latin-1", true),
            Self::Utf16 { name, mut decoder, has_errors } => {
                let is_cut = decode(&mut decoder, &[], true, to);
                (name, !has_errors && !is_cut)
            }
        }
    }
}

/// Appends what bytes are in UTF-8: whether some are no characters.
fn decode(decoder: &mut Decoder, mut bytes: &[u8], is_last: bool, to: &mut Vec<u8>) -> bool {
    let mut has_errors = false;
    loop {
        let filled = to.len();
        to.resize(filled + bytes.len() * 3 / 2 + 16, 0);
        let (result, read, written, replaced) = decoder.decode_to_utf8(bytes, &mut to[filled..], is_last);
        to.truncate(filled + written);
        bytes = &bytes[read..];
        has_errors |= replaced;
        if result == CoderResult::InputEmpty {
            return has_errors;
        }
    }
}

impl Watch {
    /// Whether all bytes so far are UTF-8.
    pub(super) fn is_utf8(&self) -> bool {
        !self.is_not_utf8 && self.begun.is_empty()
    }

    pub(super) fn see(&mut self, bytes: &[u8]) {
        if self.begun.is_empty() && bytes.is_ascii() {
            return;
        }
        self.is_not_windows_1252 |= bytes.iter().any(|byte| NOT_IN_WINDOWS_1252.contains(byte));
        if self.is_not_utf8 {
            return;
        }
        let mut bytes = bytes;
        // A character has four bytes at most.
        while !self.begun.is_empty()
            && let Some((first, rest)) = bytes.split_first()
        {
            self.begun.push(*first);
            bytes = rest;
            match std::str::from_utf8(&self.begun) {
                Ok(_) => self.begun.clear(),
                Err(error) if error.error_len().is_some() => {
                    self.is_not_utf8 = true;
                    return;
                }
                Err(_) => {}
            }
        }
        if let Err(error) = std::str::from_utf8(bytes) {
            match error.error_len() {
                Some(_) => self.is_not_utf8 = true,
                None => self.begun.extend_from_slice(&bytes[error.valid_up_to()..]),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoding(pieces: &[&[u8]]) -> &'static str {
        let (mut coding, mark) = Coding::of(pieces[0]);
        let mut to = Vec::new();
        for (number, piece) in pieces.iter().enumerate() {
            coding.read(if number == 0 { &piece[mark..] } else { piece }, &mut to);
        }
        coding.end(&mut to).0
    }

    #[test]
    fn all_bytes_decide_on_the_encoding_however_they_are_cut() {
        for (bytes, expected) in [
            (&b"abc"[..], "utf-8"),
            ("a é € 🦀".as_bytes(), "utf-8"),
            (b"a \xe9", "windows-1252"),
            (b"\xff", "windows-1252"),
            (b"a \xc3", "windows-1252"),
            (b"\xc3\xc3\xa9", "windows-1252"),
            (b"\xe9 \x81", "latin-1"),
            (b"\xc2\x81", "utf-8"),
        ] {
            for cut in 1..bytes.len() {
                assert_eq!(encoding(&[&bytes[..cut], &bytes[cut..]]), expected, "{bytes:x?} cut at {cut}");
            }
            assert_eq!(encoding(&[bytes]), expected, "{bytes:x?}");
        }
    }
}
