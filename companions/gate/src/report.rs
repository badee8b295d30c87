//! What a check says of files.

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

/// What is said of an upload, to those who read it as JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What it is, by name, in the order of the rules.
    pub members: Vec<(String, String)>,
    /// The address of its issue; empty if there is none.
    pub github_issue: String,
    /// Its files, by key.
    pub file_set: Vec<File>,
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in &self.members {
            map.serialize_entry(name, value)?;
        }
        map.serialize_entry("github_issue", &self.github_issue)?;
        map.serialize_entry("file_set", &self.file_set)?;
        map.end()
    }
}

/// What a check says of one file. Readers of the report know its members in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Whether it may be let in.
    pub csv_valid: bool,
    /// Its records, with the header. Of a file that is cut, the number of its first short row, counted as a spreadsheet does.
    pub csv_rows: u64,
    /// Its encoding; empty if that was not looked at.
    pub csv_encoding: String,
    /// Its kind, by the rules; `unknown` if it is none of them.
    pub ems: String,
    /// Why it may not be let in, one reason a line.
    pub errors: String,
    /// Its key.
    pub key: String,
    /// What only an extended report says.
    #[serde(flatten)]
    pub more: Option<More>,
}

/// What only an extended report says of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct More {
    /// What stands between its fields.
    pub delimiter: Option<char>,
    /// Whether it begins with a byte order mark.
    pub bom: bool,
    /// The SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
    /// The fields of its header.
    pub columns: Option<usize>,
    /// The row for which it is not let in.
    pub first_bad_row: Option<BadRow>,
    /// What may be wrong, with which it is let in all the same.
    pub warnings: Vec<String>,
    /// What it is, if its first bytes say that it is no text: `zip`, `xlsx`, `pdf` or `shapefile`.
    pub content_kind: Option<String>,
}

/// A row for which a file is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadRow {
    /// Its number, as a spreadsheet counts: the header is 1.
    pub row: u64,
    /// The line that it begins in.
    pub line: u64,
    /// The first field that is missing, or too many, or not closed.
    pub column: usize,
}

/// The kind of a file that is of none.
pub const UNKNOWN: &str = "unknown";

impl File {
    /// One that is refused before it is read.
    #[must_use]
    pub fn refused(key: &str, why: &str) -> Self {
        Self {
            csv_valid: false,
            csv_rows: 0,
            csv_encoding: String::new(),
            ems: UNKNOWN.into(),
            errors: why.into(),
            key: key.into(),
            more: None,
        }
    }

    /// Adds a reason not to let it in.
    pub fn refuse(&mut self, why: &str) {
        self.csv_valid = false;
        if !self.errors.is_empty() {
            self.errors.push('\n');
        }
        self.errors.push_str(why);
    }
}
