//! The pointers of Git LFS in a pack, found as it goes by: no disk and no index are needed.
//! <https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md>, <https://git-scm.com/docs/gitformat-pack>

use std::collections::{BTreeMap, BTreeSet};

use flate2::{Decompress, FlushDecompress, Status};
use sha1::{Digest, Sha1};

/// What a pointer begins with.
const FIRST: &[u8] = b"version https://git-lfs.github.com/spec/v1\n";
/// A pointer has fewer bytes.
const MOST: u64 = 1024;
/// The most bytes of a delta that makes a pointer: each byte of it inserted alone.
const MOST_DELTA: u64 = 4 * MOST;

/// So many of the 64 digits of a hash are new at least; a commit has hashes of 40.
const HASH: usize = 48;

const BLOB: u8 = 3;
const OFS_DELTA: u8 = 6;
const REF_DELTA: u8 = 7;

/// What a pointer points to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pointer {
    /// The SHA-256 of the content, in hexadecimal.
    pub(crate) oid: String,
    /// The size of the content.
    pub(crate) bytes: u64,
}

impl Pointer {
    fn read(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text.strip_prefix(FIRST)?).ok()?;
        let (mut oid, mut bytes) = (None, None);
        for line in text.lines() {
            match line.split_once(' ')? {
                ("oid", value) => oid = value.strip_prefix("sha256:"),
                ("size", value) => bytes = value.parse().ok(),
                _ => {}
            }
        }
        let oid = oid.filter(|oid| oid.len() == 64 && oid.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        Some(Self { oid: oid.to_lowercase(), bytes: bytes? })
    }
}

/// A look at a pack as it goes by, for what its objects say.
pub(crate) struct Pointers {
    state: State,
    /// Where the next byte is in the pack.
    offset: u64,
    entries_left: u32,
    inflate: Decompress,
    /// What begins as a pointer, by its place: what a delta may be made of. All else is not kept.
    alike: BTreeMap<u64, Vec<u8>>,
    by_hash: BTreeMap<[u8; 20], u64>,
    found: BTreeSet<Pointer>,
    unsure: u64,
}

enum State {
    /// The pack's head.
    Head(Vec<u8>),
    /// An object's head.
    Entry {
        begin: u64,
        head: Vec<u8>,
    },
    Content(Content),
    End,
}

struct Content {
    begin: u64,
    base: Base,
    bytes: u64,
    /// What is kept of it, if it may be a pointer.
    kept: Option<Vec<u8>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Base {
    /// It is not a delta.
    None,
    At(u64),
    Of([u8; 20]),
}

/// What a pack has.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// The pointers.
    pub(crate) pointers: BTreeSet<Pointer>,
    /// How many deltas may be pointers, of what cannot be told.
    pub(crate) unsure: u64,
}

impl Pointers {
    pub(crate) fn new() -> Self {
        Self {
            state: State::Head(Vec::new()),
            offset: 0,
            entries_left: 0,
            inflate: Decompress::new(true),
            alike: BTreeMap::new(),
            by_hash: BTreeMap::new(),
            found: BTreeSet::new(),
            unsure: 0,
        }
    }

    /// Looks at the next bytes; or says why they are not those of a pack.
    pub(crate) fn update(&mut self, mut bytes: &[u8]) -> Result<(), &'static str> {
        while !bytes.is_empty() {
            let used = match std::mem::replace(&mut self.state, State::End) {
                State::Head(mut head) => {
                    let used = bytes.len().min(12 - head.len());
                    head.extend_from_slice(&bytes[..used]);
                    self.state = match head[..] {
                        [_, _, _, _, _, _, _, _, a, b, c, d] => {
                            self.entries_left = u32::from_be_bytes([a, b, c, d]);
                            self.next_entry(12)
                        }
                        _ => State::Head(head),
                    };
                    used
                }
                State::Entry { begin, mut head } => {
                    head.push(bytes[0]);
                    self.state = match entry(begin, &head)? {
                        Some(content) => State::Content(content),
                        None => State::Entry { begin, head },
                    };
                    1
                }
                State::Content(content) => self.inflate(content, bytes)?,
                // The hash of all before it.
                State::End => return Ok(()),
            };
            self.offset += used as u64;
            bytes = &bytes[used..];
        }
        Ok(())
    }

    /// What was found; or why the pack is not whole.
    pub(crate) fn end(self) -> Result<Found, &'static str> {
        match self.state {
            State::End => Ok(Found { pointers: self.found, unsure: self.unsure }),
            _ => Err("it has fewer objects than it says"),
        }
    }

    fn next_entry(&mut self, begin: u64) -> State {
        let Some(left) = self.entries_left.checked_sub(1) else { return State::End };
        self.entries_left = left;
        State::Entry { begin, head: Vec::new() }
    }

    fn inflate(&mut self, mut content: Content, bytes: &[u8]) -> Result<usize, &'static str> {
        let mut scratch = [0; 16 << 10];
        let mut used = 0;
        loop {
            let (before_in, before_out) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self.inflate.decompress(&bytes[used..], &mut scratch, FlushDecompress::None);
            let status = status.map_err(|_| "one of its objects cannot be inflated")?;
            let made = (self.inflate.total_out() - before_out) as usize;
            used += (self.inflate.total_in() - before_in) as usize;
            if let Some(kept) = &mut content.kept {
                kept.extend_from_slice(&scratch[..made]);
            }
            if status == Status::StreamEnd {
                if self.inflate.total_out() != content.bytes {
                    return Err("one of its objects has another size than it says");
                }
                self.inflate.reset(true);
                self.look(content);
                self.state = self.next_entry(self.offset + used as u64);
                return Ok(used);
            }
            // With room left in the scratch, all that was given is inflated.
            if made < scratch.len() {
                self.state = State::Content(content);
                return if used == bytes.len() { Ok(used) } else { Err("one of its objects cannot be inflated") };
            }
        }
    }

    fn look(&mut self, content: Content) {
        let Content { begin, base, kept, .. } = content;
        let Some(kept) = kept else { return };
        let blob = match base {
            Base::None => kept,
            Base::At(at) => match self.alike.get(&at) {
                Some(base) => match apply(&kept, base) {
                    Some(blob) => blob,
                    None => return,
                },
                None => return self.unsure += u64::from(may_be_pointer(&kept, true)),
            },
            Base::Of(hash) => match self.by_hash.get(&hash).and_then(|at| self.alike.get(at)) {
                Some(base) => match apply(&kept, base) {
                    Some(blob) => blob,
                    None => return,
                },
                // It may come later.
                None => return self.unsure += u64::from(may_be_pointer(&kept, false)),
            },
        };
        if !blob.starts_with(FIRST) {
            return;
        }
        self.found.extend(Pointer::read(&blob));
        let mut hash = Sha1::new();
        hash.update(format!("blob {}\0", blob.len()));
        hash.update(&blob);
        self.by_hash.insert(hash.finalize().into(), begin);
        self.alike.insert(begin, blob);
    }
}

/// What an object's head says, if it is whole.
fn entry(begin: u64, head: &[u8]) -> Result<Option<Content>, &'static str> {
    let Some((bytes, rest)) = size(head, 4) else { return Ok(None) };
    let kind = head[0] >> 4 & 7;
    let base = match kind {
        OFS_DELTA => match distance(rest) {
            Some(back) => Base::At(begin.checked_sub(back).ok_or("one of its objects is made of none")?),
            None => return Ok(None),
        },
        REF_DELTA => match rest.try_into() {
            Ok(hash) => Base::Of(hash),
            Err(_) => return Ok(None),
        },
        0 | 5 => return Err("one of its objects is of no known kind"),
        _ => Base::None,
    };
    let may_be_pointer = match base {
        Base::None => kind == BLOB && bytes < MOST,
        _ => bytes < MOST_DELTA,
    };
    Ok(Some(Content { begin, base, bytes, kept: may_be_pointer.then(Vec::new) }))
}

/// A number of which each byte but the last has its first bit set; the first byte has so many bits of it. And what comes after.
fn size(bytes: &[u8], first_bits: u32) -> Option<(u64, &[u8])> {
    let end = bytes.iter().position(|byte| byte & 0x80 == 0)?;
    let mut value = u64::from(bytes[0] & ((1 << first_bits) - 1));
    let mut shift = first_bits;
    for byte in &bytes[1..=end] {
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        shift += 7;
    }
    Some((value, &bytes[end + 1..]))
}

/// How far back the base of a delta begins.
fn distance(bytes: &[u8]) -> Option<u64> {
    let end = bytes.iter().position(|byte| byte & 0x80 == 0)?;
    let begin = u64::from(bytes[0] & 0x7f);
    Some(bytes[1..=end].iter().fold(begin, |value, byte| (value.wrapping_add(1) << 7) | u64::from(byte & 0x7f)))
}

/// A step of a delta.
enum Step<'d> {
    Copy { from: usize, bytes: usize },
    Insert(&'d [u8]),
}

/// The size of what a delta makes, and its steps; `None` if it cannot be read.
fn steps(delta: &[u8]) -> Option<(u64, Vec<Step<'_>>)> {
    let (_, rest) = size(delta, 7)?;
    let (bytes, mut rest) = size(rest, 7)?;
    let mut steps = Vec::new();
    while let Some((&op, mut after)) = rest.split_first() {
        if op & 0x80 == 0 {
            let (literal, after) = after.split_at_checked(usize::from(op))?;
            steps.push(Step::Insert(literal));
            rest = after;
            continue;
        }
        let mut number = |bits: std::ops::Range<u8>| {
            let mut value = 0;
            for (place, bit) in bits.enumerate() {
                if op & (1 << bit) != 0 {
                    let (&byte, rest) = after.split_first()?;
                    after = rest;
                    value |= usize::from(byte) << (8 * place);
                }
            }
            Some(value)
        };
        let (from, bytes) = (number(0..4)?, number(4..7)?);
        steps.push(Step::Copy { from, bytes: if bytes == 0 { 0x10000 } else { bytes } });
        rest = after;
    }
    Some((bytes, steps))
}

/// What a delta makes of its base, if that may be a pointer.
fn apply(delta: &[u8], base: &[u8]) -> Option<Vec<u8>> {
    let (bytes, steps) = steps(delta)?;
    if bytes >= MOST {
        return None;
    }
    let mut made = Vec::new();
    for step in steps {
        made.extend_from_slice(match step {
            Step::Copy { from, bytes } => base.get(from..from.checked_add(bytes)?)?,
            Step::Insert(literal) => literal,
        });
    }
    Some(made)
}

/// Whether a delta of a base that is no pointer, as far as is known, may make one. `base_differs` says that the base does not begin
/// as one. The hash in a pointer is of no use to another file: a delta has to bring it.
fn may_be_pointer(delta: &[u8], base_differs: bool) -> bool {
    let Some((bytes, steps)) = steps(delta) else { return false };
    if bytes >= MOST || bytes < FIRST.len() as u64 {
        return false;
    }
    let (mut at, mut brings_hash) = (0, false);
    for step in steps {
        let wanted = FIRST.get(at..).unwrap_or_default();
        match step {
            Step::Copy { from, bytes } => {
                if base_differs && at == 0 && from == 0 && bytes >= FIRST.len() {
                    return false;
                }
                at += bytes;
            }
            Step::Insert(literal) => {
                let both = literal.len().min(wanted.len());
                if literal[..both] != wanted[..both] {
                    return false;
                }
                brings_hash |= literal.split(|byte| !byte.is_ascii_hexdigit()).any(|run| run.len() >= HASH);
                at += literal.len();
            }
        }
    }
    brings_hash
}
