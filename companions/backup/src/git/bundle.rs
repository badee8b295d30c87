//! Bundles: a pack with a text before it that says what it is of.
//! <https://git-scm.com/docs/gitformat-bundle>

use std::collections::BTreeSet;
use std::io::{self, BufRead};

use super::Ref;

const FIRST: &str = "# v2 git bundle\n";

/// What comes before the pack: the commits that must be there already, and the refs.
pub(crate) fn header(haves: &BTreeSet<&str>, refs: &[Ref]) -> String {
    let mut text = FIRST.to_owned();
    // A comment has to follow, though it may be empty.
    haves.iter().for_each(|hash| text.extend(["-", hash, " \n"]));
    refs.iter().for_each(|one| text.extend([&one.hash, " ", &one.name, "\n"]));
    text.push('\n');
    text
}

/// Reads up to where the pack begins.
pub(crate) fn skip_header(bundle: &mut impl BufRead) -> io::Result<()> {
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "it does not begin as a bundle");
    let mut line = Vec::new();
    bundle.read_until(b'\n', &mut line)?;
    if line != FIRST.as_bytes() {
        return Err(wrong());
    }
    while line != b"\n" {
        line.clear();
        if bundle.read_until(b'\n', &mut line)? == 0 {
            return Err(wrong());
        }
    }
    Ok(())
}
