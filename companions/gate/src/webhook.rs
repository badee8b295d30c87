//! The webhook that is told of each upload.

use std::time::Duration;

use blackwater_base::deadline::Deadline;
use blackwater_http::{Error as HttpError, Http, Method, Url, authorization};
use chrono::{DateTime, Utc};
use secrecy::SecretString;

use crate::rules::Webhook;
use crate::state::Told;

/// What is waited for before the second try. Before each further one, twice as long.
const PAUSE: Duration = Duration::from_secs(600);
/// How often it is told. The last time is a day after the first.
const TRIES: u32 = 8;

/// Sends the report.
pub(crate) async fn tell(
    webhook: &Webhook,
    url: &str,
    http: &Http,
    token: &SecretString,
    report: String,
    deadline: Deadline,
) -> Result<(), HttpError> {
    let url = Url::parse(url).map_err(|error| HttpError::Client(format!("webhook.url: {error}")))?;
    let headers = authorization(&webhook.scheme, token)?;
    let request = http.request(Method::POST, url).headers(headers).header("content-type", "application/json");
    http.send(request.body(report), deadline).await.map(drop).map_err(HttpError::without_path)
}

impl Told {
    /// Whether it is told now.
    pub(crate) fn is_due(&self, now: DateTime<Utc>) -> bool {
        !self.is_done && !self.is_given_up && self.next.is_none_or(|next| next <= now)
    }

    /// It did not take the report. What was not due is no try.
    pub(crate) fn failed(&mut self, now: DateTime<Utc>) {
        if self.is_due(now) {
            self.tries += 1;
            self.is_given_up = self.tries >= TRIES;
            self.next = Some(now + PAUSE * (1 << (self.tries - 1)));
        }
    }
}
