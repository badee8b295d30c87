//! Gate: checks uploaded files before they are let in.

pub mod check;
pub mod error;
mod event;
mod function;
mod gate;
pub mod issue;
pub mod layout;
pub mod mail;
mod names;
pub mod report;
pub mod rules;
mod sentry;
#[cfg(feature = "demo")]
pub mod services;
mod set;
mod state;
mod upload;
mod webhook;

pub use function::AGENT;
pub use gate::{Gate, Outcome, Preview, Status};
