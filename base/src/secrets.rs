//! Secrets from AWS Secrets Manager.

use aws_config::BehaviorVersion;
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::error::ProvideErrorMetadata;
use secrecy::SecretString;

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
