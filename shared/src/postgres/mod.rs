//! The one connector to Postgres.

mod address;
mod error;
mod login;
mod pool;
mod quote;
mod retry;
mod session;
mod tls;

pub use address::Address;
pub use error::{Doing, Error, Kind, explain};
pub use login::Login;
pub use pool::Database;
pub use quote::{csv_field, ident, idents, literal, qualified};
pub use retry::retry;
pub use session::Session;
