//! What is tried again, and when.

use std::time::Duration;

use blackwater_base::in_parts;

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
