#![allow(missing_docs, clippy::unwrap_used)]
