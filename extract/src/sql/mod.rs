//! SQL for the source, built from what is known of it; nothing here talks to a server.

mod blocks;
mod by_key;
mod keys;
mod predicate;
mod query;
mod row_selection;
mod source_table;
mod written;

pub(crate) use blocks::Blocks;
pub(crate) use predicate::Predicate;
pub(crate) use query::{Query, changes, count, found, keys};
pub(crate) use row_selection::RowSelection;
pub(crate) use source_table::{Server, SourceTable};
