//! Change detection by the write-ahead log: a peek into a logical replication slot names the primary keys that
//! transactions touched.
//!
//! Nothing here does I/O. A peek arrives as `COPY … (FORMAT binary)`: [`copy_rows`] splits it into rows, [`pgoutput`]
//! parses a row's message, and [`touched`] collects keys and decides how far the log is settled for the run's snapshot.

pub(crate) mod copy_rows;
pub(crate) mod key;
pub(crate) mod pgoutput;
pub(crate) mod table;
pub(crate) mod touched;
pub(crate) mod visibility;

#[cfg(test)]
mod encode;
