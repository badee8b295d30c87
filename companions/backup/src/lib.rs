//! Backup: every repository of a GitHub account, in S3.

mod account;
pub mod check;
pub mod config;
pub mod error;
mod fault;
mod files;
mod function;
mod git;
mod lists;
pub mod manifest;
mod mirror;
mod progress;
mod reading;
mod repository;
mod restore;
mod run;
#[cfg(feature = "demo")]
pub mod services;
pub mod verify;
mod zipball;

pub use account::Listed;
pub use git::Ref;
pub use run::{AGENT, Backup, Outcome, Request};
