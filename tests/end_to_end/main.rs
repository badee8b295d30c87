//! End-to-end tests: statements about the product, shown on real servers.

#![allow(missing_docs, clippy::unwrap_used)]

mod check;
mod check_runs_it;
mod circles;
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
mod partitions;
mod program;
mod quarantine;
mod races;
mod recovery;
mod refused;
mod schema_file;
mod search_path;
mod snapshots;
mod standby;
mod tls;
mod transactions;
mod types;
mod values;
mod verify;
mod waiting;
mod wraparound;
mod yielding;
