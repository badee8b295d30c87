//! What the end-to-end tests need: a world of real servers around the program, an oracle in
//! hand-written SQL that shares no code with it, and a proxy that kills it at a chosen moment.

// A test that meets something unexpected stops there and says what.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

mod aws;
mod emulator;
mod lambda;
mod oracle;
mod overwriting;
mod proxy;
mod verdict;
mod world;

pub use aws::Aws;
pub use emulator::Emulator;
pub use lambda::{Answer, Function, high_water};
pub use oracle::{Oracle, TOTESYS};
pub use overwriting::OverwritingS3;
pub use proxy::{KillSwitch, Proxy};
pub use world::{BUCKETS, Finished, LOGICAL, World, captures, extracted, finish, program};
