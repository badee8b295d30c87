//! What two or more stages of Blackwater need: the configuration, the log of manifests, the model pack and the one connector to
//! Postgres.

pub mod config;
pub mod finding;
pub mod fixed;
pub mod foreign_keys;
mod from;
pub mod log;
pub mod manifest;
pub mod model;
pub mod pack;
pub mod postgres;
mod refusal;
pub mod scalar;

/// The version of this program, as manifests name it.
pub const PROGRAM: &str = env!("CARGO_PKG_VERSION");
