//! What the gate does: with files, with uploads, as a program and as a function.

#![allow(missing_docs, clippy::unwrap_used)]

mod checks;
mod function;
mod program;
mod uploads;
mod world;
