//! Change detection by the write-ahead log: a peek into a logical replication slot names the primary keys that
//! transactions touched.
//!
//! [`capture`] takes a run through it, with the statements of [`control`]. A peek arrives as `COPY … (FORMAT binary)`:
//! [`copy_rows`] splits it into rows, [`pgoutput`] parses a row's message, and [`touched`] collects keys and decides how far
//! the log is settled for the run's snapshot. [`found()`] then looks for the keys in the snapshot.
//!
//! Whatever is in doubt about the slot costs one scan, which is exact by itself.

pub(crate) mod capture;
mod captured;
mod control;
pub(crate) mod copy_rows;
mod found;
pub(crate) mod key;
pub(crate) mod pgoutput;
pub(crate) mod table;
pub(crate) mod touched;
pub(crate) mod visibility;

pub(crate) use capture::{counted, is_news, keys, slot_name, unusable};
pub(crate) use captured::{Captured, Next};
pub(crate) use control::{Control, Facts};
pub(crate) use found::{Found, found};
pub(crate) use table::TableChanges;

#[cfg(test)]
mod encode;
