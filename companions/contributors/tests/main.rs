//! What comes of an organization that changes: in the tables, in the requests, and when something fails.

#![allow(missing_docs, clippy::unwrap_used)]

mod world;

mod backfill;
mod exact;
mod limits;
mod people;
mod polling;
mod program;
mod transfers;
mod views;
