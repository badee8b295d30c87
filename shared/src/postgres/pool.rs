//! Connections to one database.

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod};
use tokio_postgres::NoTls;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::address::Address;
use super::error::{Error, Kind};
use super::retry::retry;
use super::session::Session;
use super::tls::{self, Mode};

/// A pool of connections to one database.
#[derive(Clone)]
pub struct Database {
    pool: Pool,
    address: Address,
    session: Session,
}

impl Address {
    /// A pool of at most `size` connections, opened when they are asked for.
    ///
    /// # Errors
    /// One of [`Kind::Tls`] if there is nothing to verify the server with.
    pub fn pool(&self, size: usize, session: Session) -> Result<Database, Error> {
        let mut config = self.config.clone();
        config.application_name(session.application);
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = if self.tls == Mode::Disable {
            Manager::from_config(config, NoTls, recycling)
        } else {
            let verifier = tls::client_config(self.tls, self.authority.as_deref(), self.is_of_rds())
                .map_err(|why| Error::new(Kind::Tls, format!("verify {self}"), why).with_remedy(NAME_THE_AUTHORITY))?;
            Manager::from_config(config, MakeRustlsConnect::new(verifier), recycling)
        };
        let pool = Pool::builder(manager).max_size(size).build().map_err(|error| {
            Error::new(Kind::Connect, format!("connect to {self}"), error.to_string())
                .with_remedy("This is a fault in Blackwater; please report it.")
        })?;
        Ok(Database { pool, address: self.clone(), session })
    }
}

impl Database {
    /// Where it is.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// A connection from the pool, with the session's settings. Transactions on it must be rolled back or committed before it
    /// is dropped, or it would go back to the pool with them open; `Transaction` does so.
    ///
    /// # Errors
    /// With the server's own words, if it does not let this role in within a moment.
    pub async fn connect(&self) -> Result<Object, Error> {
        let passes = |error: &Error| matches!(error.kind, Kind::Connect | Kind::TooManyConnections);
        retry(async || self.try_connect().await.map_err(|error| self.refusal(error)), passes).await
    }

    async fn try_connect(&self) -> Result<Object, PoolError> {
        let client = self.pool.get().await?;
        // Also on a connection that is used again: whatever ran on it may have changed them.
        self.session.begin(&client).await?;
        Ok(client)
    }

    fn refusal(&self, error: PoolError) -> Error {
        let doing = format!("connect to {}", self.address);
        let error = match error {
            PoolError::Backend(error) => Error::of_connecting(doing, error),
            other => Error::new(Kind::Refused, doing, other.to_string()),
        };
        let remedy = self.remedy(&error);
        error.with_remedy(remedy)
    }

    fn remedy(&self, error: &Error) -> String {
        let setting = self.address.setting;
        match error.kind {
            Kind::Tls if error.is_without_tls() => {
                "Let the server speak TLS, or say sslmode=disable in the address".into()
            }
            Kind::Tls => NAME_THE_AUTHORITY.into(),
            Kind::TooManyConnections => {
                let less = if setting.starts_with("source") { ", or make limits.connections smaller" } else { "" };
                format!(
                    "Let the role have more connections (ALTER ROLE … CONNECTION LIMIT), or end others at the server{less}"
                )
            }
            _ => format!("Check {setting}: host, port, database, user and password"),
        }
    }
}

const NAME_THE_AUTHORITY: &str =
    "Name the file of the server's authority with sslrootcert=…, or choose another sslmode";
