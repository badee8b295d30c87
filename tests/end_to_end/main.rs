//! End-to-end tests: statements about the product, shown on real servers.

#![allow(missing_docs, clippy::unwrap_used)]

mod check;
mod connections;
mod cutting;
mod definitions;
mod deletions;
mod deploy;
mod errors;
mod first_load;
mod histories;
mod joins;
mod kills;
mod lambda;
mod large;
mod other_database;
mod program;
mod quarantine;
mod races;
mod recovery;
mod snapshots;
mod standby;
mod tls;
mod transactions;
mod types;
mod verify;
mod wraparound;
