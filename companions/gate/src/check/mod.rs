//! The check of files: each is read once, a piece at a time, so that memory does not grow with it.

mod json;
mod table;
mod text;

use std::io::{self, Read};

use blackwater_base::store::hex;
use sha2::{Digest, Sha256};

use crate::report::File;
use crate::rules::{Kind, Rules};

/// Bytes that are read at once, and of which the delimiter is found.
const PIECE: usize = 64 << 10;

/// Why a file of this size is refused, if it is.
#[must_use]
pub fn refused_size(rules: &Rules, bytes: u64) -> Option<String> {
    if bytes < rules.limits.min_bytes {
        Some(format!("Expected file to be at least {}", short(rules.limits.min_bytes)))
    } else if bytes > rules.limits.max_bytes {
        Some(format!("Expected file to be under {}", short(rules.limits.max_bytes)))
    } else {
        None
    }
}

/// `1KB`, `150MB`: a kilobyte has 1,024 bytes or 1,000.
fn short(bytes: u64) -> String {
    let units = [("GB", 1 << 30, 1_000_000_000), ("MB", 1 << 20, 1_000_000), ("KB", 1 << 10, 1000)];
    let unit = |(unit, binary, decimal): (&str, u64, u64)| {
        let size = [binary, decimal].into_iter().find(|size| bytes >= *size && bytes.is_multiple_of(*size))?;
        Some(format!("{}{unit}", bytes / size))
    };
    units.into_iter().find_map(unit).unwrap_or_else(|| format!("{bytes} bytes"))
}

/// Checks one file. `size` is its size in bytes, where that is known before it is read.
///
/// # Errors
/// If it cannot be read.
pub fn check(rules: &Rules, key: &str, size: Option<u64>, mut from: impl Read) -> io::Result<File> {
    if let Some(why) = size.and_then(|size| refused_size(rules, size)) {
        return Ok(File::refused(key, &why));
    }
    let most = rules.limits.max_bytes.saturating_add(1);
    let hash = rules.report.extended.then(Sha256::new);
    let mut counted = Counted { from: (&mut from).take(most), bytes: 0, hash };
    let mut checked = match key.to_lowercase().ends_with(".json") {
        true => json::check(rules, key, &mut counted),
        false => text::check(rules, key, &mut counted),
    }?;
    // A check may end before the file does.
    io::copy(&mut counted, &mut io::sink())?;
    match (&mut checked.more, counted.hash) {
        (Some(more), Some(hash)) => more.sha256 = hex(&hash.finalize()),
        _ => checked.more = None,
    }
    Ok(refused_size(rules, counted.bytes).map_or(checked, |why| File::refused(key, &why)))
}

/// What a file is whose first bytes say that it is no text.
fn content_kind(head: &[u8]) -> Option<String> {
    let holds = |name: &[u8]| head.windows(name.len()).any(|window| window == name);
    let kind = match head {
        [b'P', b'K', 3, 4, ..] if holds(b"xl/") || holds(b"[Content_Types].xml") => "xlsx",
        [b'P', b'K', 3, 4, ..] => "zip",
        [b'%', b'P', b'D', b'F', ..] => "pdf",
        [0, 0, 0x27, 0x0a, ..] => "shapefile",
        _ => return None,
    };
    Some(kind.into())
}

/// Adds what only all files of an upload show: whether there are as many as a kind needs.
pub fn check_set(rules: &Rules, files: &mut [File]) {
    let found = files.len();
    for file in files {
        if let Some(wanted) = rules.kind(&file.ems).and_then(|kind| kind.files).filter(|wanted| found < *wanted) {
            file.refuse(&too_few(wanted, found));
        }
    }
}

/// The kind of a file of `found` that is refused for nothing but that there are too few.
#[must_use]
pub fn lacks_others<'r>(rules: &'r Rules, file: &File, found: usize) -> Option<&'r Kind> {
    let kind = rules.kind(&file.ems)?;
    (file.errors == too_few(kind.files?, found)).then_some(kind)
}

fn too_few(wanted: usize, found: usize) -> String {
    format!("Expected {wanted} files, found {found}")
}

/// Counts what is read, and hashes it if that is asked for.
struct Counted<R> {
    from: R,
    bytes: u64,
    hash: Option<Sha256>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(to)?;
        self.bytes += read as u64;
        if let Some(hash) = &mut self.hash {
            hash.update(&to[..read]);
        }
        Ok(read)
    }
}
