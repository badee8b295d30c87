//! The source as a run meets it: one snapshot on several connections, the server that it is of, and what its catalogue says of the
//! tables.

pub(crate) mod catalogue;
mod connect;
pub(crate) mod continuity;
pub(crate) mod limit;
pub(crate) mod models;
mod on_all;
pub(crate) mod snapshot;

pub(crate) use on_all::on_all;
