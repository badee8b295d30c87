//! The name of an upload, looked up at a service.

use std::time::{Duration, SystemTime};

use blackwater_base::deadline::Deadline;
use blackwater_http::{Http, Method, Url, authorization};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::SecretString;
use serde_json::Value;

use crate::error::Error;
use crate::layout::{Place, filled};
use crate::rules::Names;

/// How long after its newest file an upload waits for a service that is not there.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// The name of an upload; what stands for it if the service knows none.
pub(crate) async fn look_up(
    names: &Names,
    http: &Http,
    token: Option<&SecretString>,
    place: &Place,
    newest: SystemTime,
    deadline: Deadline,
) -> Result<String, Error> {
    let otherwise = filled(&names.otherwise, &place.names, str::to_owned);
    let Some(url) = &names.url else { return Ok(otherwise) };
    let url = filled(url, &place.names, |value| utf8_percent_encode(value, NON_ALPHANUMERIC).to_string());
    let Ok(url) = Url::parse(&url) else {
        tracing::warn!(prefix = place.prefix, "names.url makes no address of this upload");
        return Ok(otherwise);
    };
    let mut request = http.request(Method::GET, url);
    if let Some(token) = token {
        request = request.headers(authorization(&names.scheme, token)?);
    }
    let found = match http.send(request, deadline).await {
        Ok(answer) => answer.json::<Value>("JSON"),
        Err(error) => Err(error),
    };
    match found {
        Ok(document) => match document.pointer(&names.member).and_then(Value::as_str) {
            Some(name) => return Ok(name.to_owned()),
            None => tracing::warn!(prefix = place.prefix, "the answer has no {}", names.member),
        },
        Err(why) if (why.may_pass() || why.is_refused()) && newest.elapsed().is_ok_and(|age| age < PATIENCE) => {
            return Err(Error::Names { prefix: place.prefix.clone(), why });
        }
        Err(why) => tracing::warn!(prefix = place.prefix, "no name is found: {why}"),
    }
    Ok(otherwise)
}
