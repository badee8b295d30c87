//! The rules by which files are checked: `gate.toml`, overridden by variables `GATE_…`.

use std::collections::BTreeMap;
use std::path::Path;

use blackwater_base::settings::{self, Place, number};
use serde::Deserialize;

/// The file that is read when none is named.
pub const FILE: &str = "gate.toml";
/// What the variables that override a setting begin with.
const VARIABLE: &str = "GATE_";

/// The rules.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// How large a file may be.
    #[serde(default)]
    pub limits: Limits,
    /// How a file of text is read.
    #[serde(default)]
    pub text: Text,
    /// The kinds of files, of which the first counts that fits.
    #[serde(default, rename = "kind")]
    pub kinds: Vec<Kind>,
}

/// How large a file may be.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The fewest bytes.
    #[serde(deserialize_with = "number")]
    pub min_bytes: u64,
    /// The most bytes.
    #[serde(deserialize_with = "number")]
    pub max_bytes: u64,
}

/// How a file of text is read.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Text {
    /// What may stand between fields: characters of ASCII.
    pub delimiters: Vec<char>,
    /// The fewest columns.
    #[serde(deserialize_with = "number")]
    pub min_columns: usize,
    /// What is done about rows without a character.
    pub blank_rows: BlankRows,
    /// What is done about rows with more fields than the header.
    pub long_rows: LongRows,
}

/// What is done about rows without a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlankRows {
    /// They do not count.
    Ignore,
    /// They are too short.
    Error,
}

/// What is done about rows with more fields than the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LongRows {
    /// They are let in.
    Allow,
    /// They are not.
    Error,
}

/// A kind of files, known by its header, or by the members of its objects. Names are compared without case.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kind {
    /// Its name in reports.
    pub name: String,
    /// The name of the first column.
    pub first_column: Option<String>,
    /// The name of any column.
    pub any_column: Option<String>,
    /// What a JSON document of the kind looks like.
    pub json: Option<Json>,
    /// How many files of the kind an upload must have.
    pub files: Option<usize>,
}

/// A JSON document that is an array of objects.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Json {
    /// Members that the first object must have.
    pub array_of: Vec<String>,
    /// The member whose items count as rows: an array.
    pub count: String,
}

impl Default for Limits {
    fn default() -> Self {
        Self { min_bytes: 1024, max_bytes: 150_000_000 }
    }
}

impl Default for Text {
    fn default() -> Self {
        Self { delimiters: vec![',', '\t'], min_columns: 3, blank_rows: BlankRows::Ignore, long_rows: LongRows::Allow }
    }
}

impl Rules {
    /// Reads `file`, or `gate.toml` in the working directory if it is there, and puts the variables `GATE_…` over it.
    ///
    /// # Errors
    /// Each names the file and the setting.
    pub fn read(
        file: Option<&Path>,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, settings::Error> {
        let (rules, place): (Self, Place) = settings::read(file, FILE, VARIABLE, variables)?;
        match rules.problem() {
            Some((setting, why)) => Err(place.wrong(&setting, why)),
            None => Ok(rules),
        }
    }

    /// What cannot be meant: the setting and why.
    fn problem(&self) -> Option<(String, String)> {
        let wrong = |setting: &str, why: &str| Some((setting.to_owned(), why.to_owned()));
        if self.limits.min_bytes > self.limits.max_bytes {
            return wrong("limits.min_bytes", "it is more than limits.max_bytes");
        }
        if self.text.delimiters.is_empty()
            || !self.text.delimiters.iter().all(|c| c.is_ascii() && !"\"\r\n".contains(*c))
        {
            return wrong("text.delimiters", "write one or more characters of ASCII, as [\",\", \"\\t\"]");
        }
        let mut known: BTreeMap<(&str, String), &str> = BTreeMap::new();
        for (number, kind) in self.kinds.iter().enumerate() {
            let setting = format!("kind[{number}]");
            let conditions = [("first_column", &kind.first_column), ("any_column", &kind.any_column)];
            let named: Vec<_> = conditions.iter().filter_map(|(by, name)| Some((*by, name.as_ref()?))).collect();
            if named.len() + usize::from(kind.json.is_some()) != 1 {
                return wrong(&setting, "write one of first_column, any_column and json");
            }
            if kind.files == Some(0) {
                return wrong(&format!("{setting}.files"), "an upload has one file or more");
            }
            for (by, name) in named {
                if let Some(other) = known.insert((by, name.to_lowercase()), &kind.name) {
                    return wrong(&format!("{setting}.{by}"), &format!("{other} has the same"));
                }
            }
        }
        None
    }

    /// The kind of a header.
    pub(crate) fn kind_of_header(&self, columns: &[String]) -> Option<&Kind> {
        let is = |column: &String, name: &String| column.trim().to_lowercase() == name.trim().to_lowercase();
        self.kinds.iter().find(|kind| {
            kind.first_column.as_ref().is_some_and(|name| columns.first().is_some_and(|column| is(column, name)))
                || kind.any_column.as_ref().is_some_and(|name| columns.iter().any(|column| is(column, name)))
        })
    }
}
