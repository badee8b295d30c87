//! Secrets from AWS Secrets Manager.

use std::collections::BTreeMap;

use aws_config::BehaviorVersion;
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::error::ProvideErrorMetadata;
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

use crate::store::innermost;

/// The newest value of a secret, by its name or ARN.
///
/// # Errors
/// Why it cannot be had.
pub async fn fetch(secret: &str) -> Result<SecretString, String> {
    let config = aws_config::defaults(BehaviorVersion::latest()).load().await;
    let answer = Client::new(&config).get_secret_value().secret_id(secret).send().await;
    let answer = answer.map_err(|error| match (error.code(), error.message()) {
        (Some(code), Some(message)) => format!("{message} ({code})"),
        _ => innermost(&error),
    })?;
    answer.secret_string.map(SecretString::from).ok_or_else(|| "it has no text".to_owned())
}

/// Why a secret cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the secret {secret}: {why}\n{remedy}")]
pub struct Error {
    /// Its name or ARN.
    pub secret: String,
    /// What is wrong.
    pub why: String,
    /// What to do.
    pub remedy: String,
}

/// Secrets that are asked for once, and kept until this is dropped.
#[derive(Debug, Default)]
pub struct Secrets(Mutex<BTreeMap<String, SecretString>>);

impl Secrets {
    /// A secret that is a document of JSON, which `wanted` shows.
    ///
    /// # Errors
    /// Without the value.
    pub async fn json<T: DeserializeOwned>(&self, secret: &str, wanted: &'static str) -> Result<T, Error> {
        let failed = |why, remedy| Error { secret: secret.into(), why, remedy };
        let login =
            "Log in to AWS (AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), as somebody who may read it"
                .to_owned();
        let mut known = self.0.lock().await;
        let text = match known.get(secret) {
            Some(text) => text.clone(),
            None => fetch(secret).await.map_err(|why| failed(why.trim_end_matches('.').to_owned(), login))?,
        };
        // Nothing that serde says: it quotes.
        let value = serde_json::from_str(text.expose_secret())
            .map_err(|_| failed("it has another form".into(), format!("Give it the text {wanted}")))?;
        known.insert(secret.into(), text);
        Ok(value)
    }

    /// Asks for all of them anew when they are needed again: one was refused, so it may have been rotated.
    pub async fn forget(&self) {
        self.0.lock().await.clear();
    }
}
