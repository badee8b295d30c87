//! What a check found.

use serde::Serialize;

/// Something that will not work, or could be better.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What it is about.
    pub about: About,
    /// What it is.
    pub what: String,
    /// What to do, if that is known.
    pub remedy: Option<String>,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// It will not work.
    Error,
    /// It works, and has a consequence that one should know.
    Advice,
}

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum About {
    /// The operational database.
    Source,
    /// The model pack.
    Models,
    /// The buckets.
    Buckets,
    /// The database of the star schema.
    Warehouse,
}

impl Finding {
    /// Something that will not work.
    pub fn error(about: About, what: impl ToString) -> Self {
        Self::new(Level::Error, about, &what.to_string())
    }

    /// Something that one should know.
    pub fn advice(about: About, what: impl ToString) -> Self {
        Self::new(Level::Advice, about, &what.to_string())
    }

    fn new(level: Level, about: About, text: &str) -> Self {
        let (what, remedy) = blackwater_base::in_parts(text);
        Self { level, about, what, remedy }
    }
}
