//! Why a model is refused.

/// What a model may not have, or what does not fit it, and where.
#[derive(Debug, thiserror::Error)]
#[error("{file}:{line}: {why}")]
pub struct Error {
    file: String,
    line: u64,
    why: String,
}

impl Error {
    pub(crate) fn new(file: &str, line: u64, why: impl Into<String>) -> Self {
        Self { file: file.into(), line: line.max(1), why: why.into() }
    }
}
