//! What two or more stages of Blackwater need: the configuration, the object store, the log of
//! manifests, the model pack and the one connector to Postgres.

pub mod config;
pub mod deadline;
pub mod finding;
pub mod fixed;
pub mod foreign_keys;
mod from;
pub mod log;
pub mod manifest;
pub mod model;
pub mod pack;
pub mod postgres;
pub mod progress;
mod refusal;
pub mod scalar;
pub mod secrets;
pub mod store;
pub mod temporary;

/// The version of this program, as manifests name it.
pub const PROGRAM: &str = env!("CARGO_PKG_VERSION");

/// The parts of an error's text: what failed and why; and, where its later lines say so, what to do.
#[must_use]
pub fn in_parts(text: &str) -> (String, Option<String>) {
    match text.split_once('\n') {
        None => (text.to_owned(), None),
        Some((what, remedy)) => (what.to_owned(), Some(remedy.replace('\n', ". "))),
    }
}
