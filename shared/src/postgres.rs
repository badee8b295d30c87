//! The one connector to Postgres: addresses, verified TLS, pools, and the quoting of names.
//!
//! `tokio-postgres` knows three words of libpq's `sslmode`; the six of them are read here, and the
//! default is `verify-full`, not libpq's `prefer`: who wants less says so in the address.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::NoTls;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::in_parts;
use crate::secrets::Login;

/// Why an address could not be used, a database not be reached, or a statement not be run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be read. The address itself is never printed: it holds a password.
    #[error(
        "{setting} is not an address of a Postgres database: {why}\nWrite postgres://user:password@host:5432/database?sslmode=verify-full"
    )]
    Address {
        /// The setting that holds the address.
        setting: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// No certificates to verify the server with.
    #[error(
        "cannot verify {database}: {why}\nName the file of its authority with sslrootcert=…, or choose another sslmode"
    )]
    Certificates {
        /// The database, without its password.
        database: String,
        /// What went wrong.
        why: String,
    },
    /// The pool has no connection to give.
    #[error("cannot connect to {database}: {why}\n{advice}")]
    Connect {
        /// The database, without its password.
        database: String,
        /// The cause, with the server's own words.
        why: String,
        /// What to do next.
        advice: &'static str,
        /// Whether it may succeed a moment later.
        transient: bool,
        /// Whether the server refused the name or the password.
        of_login: bool,
    },
    /// A statement failed.
    #[error("cannot {doing}: {why}")]
    Query {
        /// What was being done, on which batch and table.
        doing: String,
        /// The server's words.
        why: String,
        /// Whether it may succeed a moment later.
        transient: bool,
        /// Whether a value or a constraint was the reason.
        of_data: bool,
        /// Whether the server ended it because it was told to, or because of its time.
        cancelled: bool,
    },
}

impl Error {
    /// Whether a statement failed for a value or a constraint, and not for the statement itself.
    #[must_use]
    pub fn is_of_data(&self) -> bool {
        matches!(self, Self::Query { of_data: true, .. })
    }

    /// Whether the server refused the name or the password.
    #[must_use]
    pub fn is_of_login(&self) -> bool {
        matches!(self, Self::Connect { of_login: true, .. })
    }

    /// Whether a statement may succeed a moment later: the connection was lost, or another session was in
    /// the way. ([`Database::connect`] tries again by itself.)
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Query { transient: true, .. })
    }
}

/// The authorities of Amazon RDS, which no system knows.
const RDS: &[u8] = include_bytes!("rds.pem");

/// How long to wait before each new try.
const WAITS: [Duration; 3] = [Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];

/// Does what can be done again from its beginning, a few times, while it fails for something that may
/// pass.
///
/// # Errors
/// The last one.
pub async fn retry<T, E: std::fmt::Display>(
    mut work: impl AsyncFnMut() -> Result<T, E>,
    is_transient: impl Fn(&E) -> bool,
) -> Result<T, E> {
    for wait in WAITS {
        match work().await {
            Err(error) if is_transient(&error) => {
                tracing::info!(error = in_parts(&error.to_string()).0, "trying again");
                tokio::time::sleep(wait).await;
            }
            done => return done,
        }
    }
    work().await
}

/// Names what was being done when a statement failed.
pub trait Doing<T> {
    /// The value, or [`Error::Query`].
    ///
    /// # Errors
    /// If there is an error.
    fn doing(self, doing: impl Into<String>) -> Result<T, Error>;
}

impl<T> Doing<T> for Result<T, tokio_postgres::Error> {
    fn doing(self, doing: impl Into<String>) -> Result<T, Error> {
        self.map_err(|error| Error::Query {
            doing: doing.into(),
            why: explain(&error),
            transient: is_transient(&error),
            of_data: is_of_data(&error),
            cancelled: error.code() == Some(&SqlState::QUERY_CANCELED),
        })
    }
}

/// A database's address: where it is, who logs in, and how far its certificate is verified.
#[derive(Clone)]
pub struct Address {
    setting: &'static str,
    config: tokio_postgres::Config,
    tls: Tls,
    authority: Option<PathBuf>,
}

/// libpq's `sslmode`. See <https://www.postgresql.org/docs/current/libpq-ssl.html>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tls {
    Disable,
    /// `allow` and `prefer`: encrypt if the server can, verify nothing.
    Prefer,
    /// Encrypt, verify nothing.
    Require,
    /// Verify the chain, not the host name.
    VerifyCa,
    VerifyFull,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

/// Host, port, database and user; never the password.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = match self.config.get_hosts().first() {
            Some(Host::Tcp(name)) => name.clone(),
            #[cfg(unix)]
            Some(Host::Unix(path)) => path.display().to_string(),
            None => "localhost".into(),
        };
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        let database = self.config.get_dbname().or(self.config.get_user()).unwrap_or("postgres");
        let user = self.config.get_user().unwrap_or("nobody");
        write!(f, "{host}:{port}/{database} as {user}")
    }
}

impl Address {
    /// Reads a `postgres://` address. `setting` is the name of the setting that holds it.
    ///
    /// # Errors
    /// [`Error::Address`] says what is wrong without printing the address.
    pub fn parse(setting: &'static str, url: &SecretString) -> Result<Self, Error> {
        let wrong = |why: &str| Error::Address { setting, why: why.into() };
        let url = url.expose_secret();
        let rest = url
            .strip_prefix("postgres://")
            .or_else(|| url.strip_prefix("postgresql://"))
            .ok_or_else(|| wrong("it does not begin with postgres://"))?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        if place.matches('@').count() > 1 {
            return Err(wrong("it has more than one @ (in a password write %40)"));
        }
        let (mut tls, mut authority, mut others) = (Tls::VerifyFull, None, Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("sslmode", mode)) => tls = mode.parse().map_err(|why: String| wrong(&why))?,
                Some(("sslrootcert", file)) => authority = Some(PathBuf::from(file)),
                _ => others.push(pair),
            }
        }
        if tls == Tls::Require && authority.is_some() {
            tls = Tls::VerifyCa; // as libpq has it
        }
        let mut config: tokio_postgres::Config = format!("postgres://{place}?{}", others.join("&"))
            .parse()
            .map_err(|error: tokio_postgres::Error| wrong(&explain(&error)))?;
        if config.get_hosts().is_empty() {
            return Err(wrong("it names no host"));
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(Duration::from_secs(10));
        }
        // A peer that is gone without a word is noticed within a minute.
        config
            .keepalives_idle(Duration::from_secs(30))
            .keepalives_interval(Duration::from_secs(10))
            .keepalives_retries(3);
        config.ssl_mode(match tls {
            Tls::Disable => SslMode::Disable,
            Tls::Prefer => SslMode::Prefer,
            Tls::Require | Tls::VerifyCa | Tls::VerifyFull => SslMode::Require,
        });
        Ok(Self { setting, config, tls, authority })
    }

    /// The address of a login, at its own host and port, or at those of `url` if there is one.
    ///
    /// # Errors
    /// As [`Address::parse`].
    pub fn with_login(setting: &'static str, url: Option<&SecretString>, login: &Login) -> Result<Self, Error> {
        let mut address = match (url, &login.host) {
            (Some(url), _) => Self::parse(setting, url)?,
            (None, Some(host)) => {
                Self::parse(setting, &format!("postgres://{host}:{}", login.port.unwrap_or(5432)).into())?
            }
            (None, None) => {
                let why = "the secret names no host, so the address must".into();
                return Err(Error::Address { setting, why });
            }
        };
        let config = &mut address.config;
        config.user(&login.username).password(login.password.expose_secret());
        if let Some(database) = login.dbname.as_ref().filter(|_| config.get_dbname().is_none()) {
            config.dbname(database);
        }
        Ok(address)
    }

    /// Who logs in.
    #[must_use]
    pub fn user(&self) -> &str {
        self.config.get_user().unwrap_or("postgres")
    }

    /// The database's name.
    #[must_use]
    pub fn database(&self) -> &str {
        self.config.get_dbname().unwrap_or(self.user())
    }

    /// A pool of at most `size` connections, opened when they are asked for, that show themselves
    /// to the server as `application`.
    ///
    /// # Errors
    /// [`Error::Certificates`] if there is nothing to verify the server with.
    pub fn pool(&self, application: &str, size: usize) -> Result<Database, Error> {
        let mut config = self.config.clone();
        config.application_name(application);
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = match self.tls {
            Tls::Disable => Manager::from_config(config, NoTls, recycling),
            _ => Manager::from_config(config, MakeRustlsConnect::new(self.tls_config()?), recycling),
        };
        let pool = Pool::builder(manager).max_size(size).build().map_err(|error| Error::Connect {
            database: self.to_string(),
            why: error.to_string(),
            advice: "This is a fault in Blackwater; please report it.",
            transient: false,
            of_login: false,
        })?;
        Ok(Database { pool, address: self.clone() })
    }

    /// Whether it is an address that AWS gives, for which its own authorities vouch.
    fn is_of_rds(&self) -> bool {
        let is = |host: &Host| matches!(host, Host::Tcp(name) if name.ends_with(".rds.amazonaws.com"));
        self.config.get_hosts().iter().all(is)
    }

    fn tls_config(&self) -> Result<ClientConfig, Error> {
        let wrong = |why: String| Error::Certificates { database: self.to_string(), why };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(error.to_string()))?;
        if matches!(self.tls, Tls::Prefer | Tls::Require) {
            let verifier = Arc::new(Lenient { provider, chain: None });
            return Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth());
        }
        let mut roots = RootCertStore::empty();
        match &self.authority {
            Some(file) => {
                let unreadable = |error: rustls::pki_types::pem::Error| wrong(format!("{}: {error}", file.display()));
                for certificate in CertificateDer::pem_file_iter(file).map_err(unreadable)? {
                    roots
                        .add(certificate.map_err(unreadable)?)
                        .map_err(|error| wrong(format!("{}: {error}", file.display())))?;
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                if self.is_of_rds() {
                    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(RDS).flatten());
                }
            }
        }
        if roots.is_empty() {
            return Err(wrong("no certificate authority was found".into()));
        }
        if self.tls == Tls::VerifyFull {
            return Ok(builder.with_root_certificates(roots).with_no_client_auth());
        }
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .map_err(|error| wrong(error.to_string()))?;
        let verifier = Arc::new(Lenient { provider, chain: Some(chain) });
        Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
    }
}

impl FromStr for Tls {
    type Err = String;

    fn from_str(mode: &str) -> Result<Self, String> {
        Ok(match mode {
            "disable" => Self::Disable,
            "allow" | "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            _ => {
                return Err(format!(
                    "sslmode {mode} is none of disable, allow, prefer, require, verify-ca, verify-full"
                ));
            }
        })
    }
}

/// Verifies less than everything, because the address says so: the chain but not the host name
/// (`verify-ca`), or nothing (`require`, `prefer`).
#[derive(Debug)]
struct Lenient {
    provider: Arc<CryptoProvider>,
    chain: Option<Arc<WebPkiServerVerifier>>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A pool of connections to one database.
#[derive(Clone)]
pub struct Database {
    pool: Pool,
    address: Address,
}

impl Database {
    /// Where it is.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// A connection from the pool. Transactions on it must be rolled back or committed before it
    /// is dropped, or it would go back to the pool with them open; `Transaction` does so.
    ///
    /// # Errors
    /// [`Error::Connect`] with the server's own words, if it does not let this role in within a moment.
    pub async fn connect(&self) -> Result<deadpool_postgres::Object, Error> {
        let passes = |error: &Error| matches!(error, Error::Connect { transient: true, .. });
        retry(async || self.try_connect().await, passes).await
    }

    async fn try_connect(&self) -> Result<deadpool_postgres::Object, Error> {
        self.pool.get().await.map_err(|error| {
            let (why, transient, of_login) = match &error {
                deadpool_postgres::PoolError::Backend(error) => {
                    let refused = [SqlState::INVALID_PASSWORD, SqlState::INVALID_AUTHORIZATION_SPECIFICATION];
                    (explain(error), is_transient(error), error.code().is_some_and(|code| refused.contains(code)))
                }
                other => (other.to_string(), false, false),
            };
            Error::Connect { database: self.address.to_string(), advice: self.advice(&why), why, transient, of_login }
        })
    }

    fn advice(&self, why: &str) -> &'static str {
        if why.contains("does not support TLS") {
            "Let the server speak TLS, or say sslmode=disable in the address"
        } else if why.contains("certificate") {
            "Name the file of the server's authority with sslrootcert=…, or choose another sslmode"
        } else if self.address.setting.starts_with("source") {
            "Check source.url: host, port, database, user and password"
        } else {
            "Check warehouse.url: host, port, database, user and password"
        }
    }
}

/// Whether a connection was lost, or refused for the moment, or another session was in the way.
fn is_transient(error: &tokio_postgres::Error) -> bool {
    let lost = || {
        let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
        error.is_closed() || cause.is_some_and(|cause| cause.kind() != std::io::ErrorKind::InvalidInput)
    };
    error.as_db_error().map_or_else(lost, |error| {
        let code = error.code();
        [
            SqlState::T_R_SERIALIZATION_FAILURE,
            SqlState::T_R_DEADLOCK_DETECTED,
            SqlState::LOCK_NOT_AVAILABLE,
            SqlState::TOO_MANY_CONNECTIONS,
            SqlState::ADMIN_SHUTDOWN,
            SqlState::CRASH_SHUTDOWN,
            SqlState::CANNOT_CONNECT_NOW,
        ]
        .contains(code)
            || code.code().starts_with("08")
    })
}

/// Whether a statement failed for a value or a constraint, and not for the statement itself.
/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
fn is_of_data(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| code.code().starts_with("22") || code.code().starts_with("23"))
}

/// An error of Postgres in full: the server's message, detail, hint and code, or the chain of
/// causes on this side. (`Display` of the crate's type says only "db error".)
#[must_use]
pub fn explain(error: &tokio_postgres::Error) -> String {
    if let Some(server) = error.as_db_error() {
        let mut text = format!("{} ({})", server.message(), server.code().code());
        for more in [server.detail(), server.hint(), server.where_()].into_iter().flatten() {
            text.push_str("; ");
            text.push_str(more);
        }
        return text.replace('\n', " ");
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = inner.source();
    }
    text
}

/// A name as an SQL identifier. The only place where one is quoted.
#[must_use]
pub fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text where SQL takes no parameter, as in the definition of a view.
#[must_use]
pub fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// `schema.name`, both quoted.
#[must_use]
pub fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", ident(schema), ident(name))
}

/// Names as a list of SQL identifiers, each after `prefix` (`t.` or nothing).
#[must_use]
pub fn idents<S: AsRef<str>>(prefix: &str, names: impl IntoIterator<Item = S>) -> String {
    let quoted: Vec<_> = names.into_iter().map(|name| format!("{prefix}{}", ident(name.as_ref()))).collect();
    quoted.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Address, Error> {
        Address::parse("source.url", &SecretString::from(url))
    }

    #[test]
    fn the_authorities_of_rds_vouch_for_its_own_addresses_alone() {
        let roots = |host: &str| {
            let address = Address::parse("source.url", &format!("postgres://reader@{host}/totesys").into()).unwrap();
            (address.is_of_rds(), address.tls_config().is_ok())
        };
        assert_eq!(roots("totesys.abc.eu-west-2.rds.amazonaws.com"), (true, true));
        assert_eq!(roots("rds.amazonaws.com.example.org"), (false, true));
        let mut known = RootCertStore::empty();
        assert_eq!(known.add_parsable_certificates(CertificateDer::pem_slice_iter(RDS).flatten()), (81, 0));
    }

    #[test]
    fn an_address_is_shown_without_its_password() {
        let address = parse("postgres://reader:s3cret@db.example:5433/totesys?sslmode=disable").unwrap();
        assert_eq!(address.to_string(), "db.example:5433/totesys as reader");
        assert!(!format!("{address:?}").contains("s3cret"));
    }

    #[test]
    fn a_wrong_address_says_why_and_keeps_the_password() {
        for (url, why) in [
            ("mysql://u:s3cret@h/d", "does not begin with postgres://"),
            ("postgres://u:s3cret@", "names no host"),
            ("postgres://u:s3cret@x@h/d", "more than one @"),
            ("postgres://u:s3cret@h/d?sslmode=yes", "sslmode yes is none of"),
            ("postgres://u:s3cret@h:port/d", "invalid"),
        ] {
            let error = parse(url).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("source.url"), "{url}: {error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn the_certificate_is_verified_unless_the_address_says_otherwise() {
        assert_eq!(parse("postgres://u@h/d").unwrap().tls, Tls::VerifyFull);
        assert_eq!(parse("postgres://u@h/d?sslmode=require").unwrap().tls, Tls::Require);
        assert_eq!(parse("postgres://u@h/d?sslrootcert=ca.pem&sslmode=require").unwrap().tls, Tls::VerifyCa);
        assert_eq!(parse("postgres://u@h/d?sslmode=verify-ca&connect_timeout=3").unwrap().tls, Tls::VerifyCa);
    }

    #[test]
    fn names_are_quoted() {
        assert_eq!(ident("a\"b; DROP TABLE x"), "\"a\"\"b; DROP TABLE x\"");
        assert_eq!(idents("t.", ["A", "b"]), "t.\"A\", t.\"b\"");
    }
}
