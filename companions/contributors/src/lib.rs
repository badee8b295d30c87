//! Contributors: a GitHub organization's issues, pull requests, people and events, in Postgres.

mod account;
mod answers;
pub mod check;
pub mod config;
pub mod error;
mod function;
pub mod load;
pub mod migrate;
pub mod poll;
mod record;
#[cfg(feature = "local")]
pub mod services;
mod state;
pub mod status;

use blackwater_base::secrets::Secrets;
use blackwater_base::store::{Client, Store, client};
use blackwater_http::Http;

use crate::config::Config;
use crate::error::Error;

/// What the program calls itself where it asks for something.
pub const AGENT: &str = concat!("contributors/", env!("CARGO_PKG_VERSION"));

/// The age in seconds of what never happened: ten years.
const NEVER: u64 = 10 * 365 * 24 * 3600;

/// The organization of some settings, the bucket of its answers, and its database.
pub struct Contributors {
    config: Config,
    store: Store,
    http: Http,
    secrets: Secrets,
}

impl Contributors {
    /// The one of these settings, with its bucket at this client.
    #[must_use]
    pub fn new(config: Config, s3: Client, http: Http) -> Self {
        let store = Store::new(s3, &config.bucket, "bucket");
        Self { config, store, http, secrets: Secrets::default() }
    }

    /// The one of these settings, with its bucket on AWS.
    ///
    /// # Errors
    /// If no requests can be made.
    pub async fn on_aws(config: Config) -> Result<Self, Error> {
        Ok(Self::new(config, client(None, None).await, Http::new(AGENT)?))
    }
}
