//! Logins as secrets hold them.

use secrecy::SecretString;
use serde::Deserialize;
use serde::de::{Deserializer, Error};

/// A login as RDS and the rotation functions write it. A secret that RDS manages has the name and the password alone.
/// <https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_secret_json_structure.html>
#[derive(Debug, Deserialize)]
pub struct Login {
    /// The user.
    pub username: String,
    /// The password.
    pub password: SecretString,
    /// The host.
    pub host: Option<String>,
    /// The port.
    #[serde(default, deserialize_with = "port")]
    pub port: Option<u16>,
    /// The database.
    pub dbname: Option<String>,
}

/// Some write it as a number, some as text.
fn port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Port {
        Number(u16),
        Text(String),
    }
    match Option::deserialize(deserializer)? {
        None => Ok(None),
        Some(Port::Number(port)) => Ok(Some(port)),
        Some(Port::Text(text)) => text.parse().map(Some).map_err(|_| D::Error::custom("the port is no number")),
    }
}

impl Login {
    /// Reads a secret's text. The error does not quote it.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        serde_json::from_str(text)
            .map_err(|_| "its value is not JSON with username and password, as RDS writes it".to_owned())
    }
}
