//! Gate: checks uploaded files before they are let in.

pub mod check;
pub mod report;
pub mod rules;
