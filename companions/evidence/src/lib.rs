//! Evidence: a month's work of each person, zipped and delivered.

mod bitbucket;
pub mod config;
mod drive;
pub mod error;
mod function;
mod history;
pub mod manifest;
pub mod month;
pub mod people;
mod run;
#[cfg(feature = "demo")]
pub mod services;
mod slack;
mod texts;

pub use run::{AGENT, Evidence, Planned, Preview, Request, Seen, Target};
pub use texts::Counts;
