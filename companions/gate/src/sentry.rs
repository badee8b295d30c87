//! Errors, told to Sentry.
//! <https://develop.sentry.dev/sdk/data-model/envelopes/>

use std::time::Duration;

use blackwater_base::deadline::Deadline;
use blackwater_http::{Error, Http, Method, Url};
use chrono::Utc;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use uuid::Uuid;

use crate::function::AGENT;

/// How long an error may take to be told, at most.
const MOST: Duration = Duration::from_secs(5);

/// Tells an error to the project of a DSN, which is `https://KEY@HOST/PROJECT`.
pub(crate) async fn tell(
    dsn: &SecretString,
    http: &Http,
    error: &crate::error::Error,
    deadline: Deadline,
) -> Result<(), Error> {
    let wrong = || Error::Client("sentry.dsn is not of the form https://KEY@HOST/PROJECT".into());
    let mut url = Url::parse(dsn.expose_secret()).map_err(|_| wrong())?;
    let key = url.username().to_owned();
    let Some((path, project)) =
        url.path().rsplit_once('/').map(|(path, project)| (path.to_owned(), project.to_owned()))
    else {
        return Err(wrong());
    };
    if key.is_empty() || project.is_empty() || url.set_username("").is_err() {
        return Err(wrong());
    }
    url.set_path(&format!("{path}/api/{project}/envelope/"));
    let (id, debug) = (Uuid::new_v4().simple().to_string(), format!("{error:?}"));
    let kind = debug.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    let event = json!({
        "event_id": id,
        "timestamp": Utc::now().to_rfc3339(),
        "platform": "other",
        "level": "error",
        "release": AGENT,
        "exception": { "values": [{ "type": kind, "value": error.to_string() }] },
    });
    let envelope = format!("{}\n{}\n{event}\n", json!({ "event_id": id }), json!({ "type": "event" }));
    let login = format!("Sentry sentry_version=7, sentry_client={AGENT}, sentry_key={key}");
    let request = http.request(Method::POST, url).header("x-sentry-auth", login);
    let request = request.header("content-type", "application/x-sentry-envelope").body(envelope);
    let most = deadline.left().unwrap_or(MOST).min(MOST);
    let told = tokio::time::timeout(most, http.send(request, deadline)).await;
    told.unwrap_or_else(|_| Err(Error::Client("there was no time".into()))).map(drop)
}
