//! Where a database is. The default of `sslmode` is `verify-full`, not libpq's `prefer`: who wants less says so in the
//! address.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::config::{Host, SslMode};

use super::Login;
use super::error::{Error, Kind, explain};
use super::tls::Mode;

/// A database's address: where it is, who logs in, and how far its certificate is verified.
#[derive(Clone)]
pub struct Address {
    pub(super) setting: &'static str,
    pub(super) config: tokio_postgres::Config,
    pub(super) tls: Mode,
    pub(super) authority: Option<PathBuf>,
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
    /// One of [`Kind::Address`] says what is wrong without printing the address.
    pub fn parse(setting: &'static str, url: &SecretString) -> Result<Self, Error> {
        let wrong = |why: &str| unusable(setting, why);
        let url = url.expose_secret();
        let rest = url
            .strip_prefix("postgres://")
            .or_else(|| url.strip_prefix("postgresql://"))
            .ok_or_else(|| wrong("it does not begin with postgres://"))?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        if place.matches('@').count() > 1 {
            return Err(wrong("it has more than one @ (in a password write %40)"));
        }
        let (mut tls, mut authority, mut others) = (Mode::VerifyFull, None, Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("sslmode", mode)) => tls = mode.parse().map_err(|why: String| wrong(&why))?,
                Some(("sslrootcert", file)) => authority = Some(PathBuf::from(file)),
                _ => others.push(pair),
            }
        }
        if tls == Mode::Require && authority.is_some() {
            tls = Mode::VerifyCa; // as libpq has it
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
            Mode::Disable => SslMode::Disable,
            Mode::Prefer => SslMode::Prefer,
            Mode::Require | Mode::VerifyCa | Mode::VerifyFull => SslMode::Require,
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
                return Err(unusable(setting, "the secret names no host, so the address must"));
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

    /// Whether it is an address that AWS gives, for which its own authorities vouch.
    pub(super) fn is_of_rds(&self) -> bool {
        let is = |host: &Host| matches!(host, Host::Tcp(name) if name.ends_with(".rds.amazonaws.com"));
        self.config.get_hosts().iter().all(is)
    }
}

fn unusable(setting: &'static str, why: &str) -> Error {
    Error::new(Kind::Address, format!("use {setting} as the address of a Postgres database"), why)
        .with_remedy("Write postgres://user:password@host:5432/database?sslmode=verify-full")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Address, Error> {
        Address::parse("source.url", &SecretString::from(url))
    }

    #[test]
    fn the_authorities_of_rds_vouch_for_its_own_addresses_alone() {
        let is_of_rds = |host: &str| parse(&format!("postgres://reader@{host}/totesys")).unwrap().is_of_rds();
        assert!(is_of_rds("totesys.abc.eu-west-2.rds.amazonaws.com"));
        assert!(!is_of_rds("rds.amazonaws.com.example.org"));
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
        assert_eq!(parse("postgres://u@h/d").unwrap().tls, Mode::VerifyFull);
        assert_eq!(parse("postgres://u@h/d?sslmode=require").unwrap().tls, Mode::Require);
        assert_eq!(parse("postgres://u@h/d?sslrootcert=ca.pem&sslmode=require").unwrap().tls, Mode::VerifyCa);
        assert_eq!(parse("postgres://u@h/d?sslmode=verify-ca&connect_timeout=3").unwrap().tls, Mode::VerifyCa);
    }
}
