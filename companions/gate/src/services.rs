//! The services that a gate speaks with, on this machine, for the demo and the tests: the issues of a repository on GitHub, names,
//! a webhook, SES, and Sentry. What a request lacks that the service's documentation asks for is a fault.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use blackwater_local::http::Server;
use bytes::Bytes;
use hyper::{Method, Request, Response};
use serde_json::{Value, json};

/// The token that GitHub takes.
pub const GITHUB: &str = "github-token";
/// The token that the webhook takes.
pub const WEBHOOK: &str = "webhook-token";
/// The repository.
pub const REPOSITORY: &str = "acme/data";

/// The services. They end when this is dropped.
#[derive(Debug)]
pub struct Services {
    server: Server,
    known: Arc<Mutex<Known>>,
}

/// What the services know.
#[derive(Debug, Default)]
pub struct Known {
    /// The requests, as `POST /repos/acme/data/issues`.
    pub calls: Vec<String>,
    /// What requests lacked.
    pub faults: Vec<String>,
    /// The issues, as GitHub has them, with their number, title, body, labels and state.
    pub issues: Vec<Value>,
    /// The comments, with their number, and that of their issue.
    pub comments: Vec<Value>,
    /// What the webhook was told.
    pub reports: Vec<Value>,
    /// The mails, as SES got them.
    pub mails: Vec<Value>,
    /// The errors that Sentry was told of.
    pub errors: Vec<Value>,
    /// The names.
    pub names: BTreeMap<String, String>,
    /// Whether the token has no right to push, without which GitHub leaves out labels.
    pub drops_labels: bool,
    /// What is answered instead, by the beginning of the request, in order.
    pub instead: BTreeMap<String, VecDeque<Instead>>,
}

/// An answer that is given instead of the service's own.
#[derive(Clone, Debug)]
pub struct Instead {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: Vec<(&'static str, String)>,
    /// Whether the request is carried out all the same.
    pub is_done: bool,
    /// How long it takes.
    pub after: Duration,
}

impl Instead {
    /// This status, at once.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), is_done: false, after: Duration::ZERO }
    }
}

impl Services {
    /// Starts them on a free port of loopback.
    ///
    /// # Errors
    /// If there is none.
    pub async fn start() -> std::io::Result<Self> {
        let known = Arc::<Mutex<Known>>::default();
        let served = Arc::clone(&known);
        let server = Server::start(move |address, request| {
            let known = Arc::clone(&served);
            async move { answer(&known, address, request).await }
        });
        Ok(Self { server: server.await?, known })
    }

    /// Where they are, as `http://127.0.0.1:80`.
    #[must_use]
    pub fn origin(&self) -> String {
        self.server.origin()
    }

    /// What they know.
    ///
    /// # Panics
    /// Never.
    pub fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has them answer otherwise to the next requests that begin so.
    pub fn instead(&self, request: &str, answers: impl IntoIterator<Item = Instead>) {
        self.known().instead.entry(request.into()).or_default().extend(answers);
    }
}

async fn answer(known: &Mutex<Known>, address: SocketAddr, request: Request<Bytes>) -> Response<Bytes> {
    let (head, body) = request.into_parts();
    let call = format!("{} {}", head.method, head.uri.path());
    let (instead, own) = {
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        known.calls.push(call.clone());
        let instead = known.instead.iter_mut().find(|(begin, _)| call.starts_with(begin.as_str()));
        let instead = instead.and_then(|(_, answers)| answers.pop_front());
        let own = match &instead {
            Some(instead) if !instead.is_done => (0, Value::Null, None),
            _ => known.answer(&head, &body, address),
        };
        (instead, own)
    };
    let mut answer = Response::builder().header("content-type", "application/json");
    let (status, content, link) = match instead {
        Some(instead) => {
            tokio::time::sleep(instead.after).await;
            for (name, value) in instead.headers {
                answer = answer.header(name, value);
            }
            (instead.status, json!({ "message": "instead" }), None)
        }
        None => own,
    };
    if let Some(link) = link {
        answer = answer.header("link", link);
    }
    answer.status(status).body(content.to_string().into()).unwrap_or_default()
}

impl Known {
    /// A status, a document, and the address of the next page.
    fn answer(
        &mut self,
        head: &hyper::http::request::Parts,
        body: &Bytes,
        address: SocketAddr,
    ) -> (u16, Value, Option<String>) {
        let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let content: Value = serde_json::from_slice(body).unwrap_or_default();
        let path = head.uri.path();
        let said = |status: u16, message: &str| (status, json!({ "message": message }), None);
        if path == "/api/42/envelope/" {
            return self.sentry(header("x-sentry-auth"), body);
        }
        if head.method == Method::POST && header("content-type") != "application/json" {
            self.faults.push(format!("{path} has no content type"));
        }
        if let Some(path) = path.strip_prefix(&format!("/repos/{REPOSITORY}/")) {
            for (name, wanted) in [("accept", "application/vnd.github+json"), ("x-github-api-version", "2022-11-28")] {
                if header(name) != wanted {
                    self.faults.push(format!("{path}: the header {name} is {:?}", header(name)));
                }
            }
            // https://docs.github.com/en/rest/using-the-rest-api/getting-started-with-the-rest-api#user-agent
            if header("user-agent").is_empty() {
                return said(403, "Request forbidden by administrative rules.");
            }
            if header("authorization") != format!("Bearer {GITHUB}") {
                return said(401, "Bad credentials");
            }
            return self.github(&head.method, path, head.uri.query().unwrap_or_default(), &content, address);
        }
        match (&head.method, path) {
            (&Method::GET, path) if path.starts_with("/names/") => {
                let area = path["/names/".len()..].trim_end_matches(".json");
                match self.names.get(area) {
                    Some(name) => (200, json!({ "name": name }), None),
                    None => said(404, "Not found."),
                }
            }
            (&Method::POST, "/uploads/") => {
                if header("authorization") != format!("Token {WEBHOOK}") {
                    return said(403, "Authentication credentials were not provided.");
                }
                self.reports.push(content);
                (201, json!({}), None)
            }
            (&Method::POST, "/v2/email/outbound-emails") => {
                let signed = header("authorization");
                if !signed.starts_with("AWS4-HMAC-SHA256 ") || !signed.contains("/ses/aws4_request") {
                    return said(403, "Missing Authentication Token");
                }
                self.mails.push(content);
                (200, json!({ "MessageId": "1" }), None)
            }
            (&Method::GET | &Method::PUT, _) => said(404, "Not Found"),
            _ => said(405, "Method Not Allowed"),
        }
    }

    /// <https://develop.sentry.dev/sdk/data-model/envelopes/>: a header, then each item's header and the item, a line each.
    fn sentry(&mut self, login: &str, body: &Bytes) -> (u16, Value, Option<String>) {
        let lines: Vec<Value> =
            body.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
        match lines.as_slice() {
            [header, item, event]
                if header["event_id"] == event["event_id"]
                    && item["type"] == "event"
                    && login.contains("sentry_key=key") =>
            {
                self.errors.push(event.clone());
                (200, json!({ "id": event["event_id"] }), None)
            }
            _ => (400, json!({ "detail": "invalid envelope" }), None),
        }
    }

    fn github(
        &mut self,
        method: &Method,
        path: &str,
        query: &str,
        content: &Value,
        address: SocketAddr,
    ) -> (u16, Value, Option<String>) {
        let parts: Vec<_> = path.split('/').collect();
        let number = |text: &str| text.parse::<u64>().unwrap_or_default();
        let is = |known: &Value, of: &str, value: u64| known[of] == value;
        let page_of = |all: Vec<Value>| {
            let parameter = |name: &str| {
                query
                    .split('&')
                    .filter_map(|pair| pair.split_once('='))
                    .find(|(known, _)| *known == name)
                    .map(|pair| number(pair.1))
            };
            let (size, page) = (parameter("per_page").unwrap_or(30).min(100) as usize, parameter("page").unwrap_or(1));
            let from = (page as usize - 1) * size;
            let has_more = all.len() > from + size;
            let others: Vec<_> = query.split('&').filter(|pair| !pair.starts_with("page=")).collect();
            let next = has_more.then(|| {
                let url = format!("http://{address}/repos/{REPOSITORY}/{path}?{}", others.join("&"));
                format!("<{url}&page={}>; rel=\"next\", <{url}&page=9>; rel=\"last\"", page + 1)
            });
            (200, all.into_iter().skip(from).take(size).collect(), next)
        };
        match (method, parts.as_slice()) {
            (&Method::GET, ["issues"]) => {
                let label = query.split('&').find_map(|pair| pair.strip_prefix("labels=")).unwrap_or_default();
                let label = percent_encoding::percent_decode_str(label).decode_utf8_lossy().into_owned();
                let fits = |issue: &&Value| {
                    let has = |label: &str| {
                        issue["labels"].as_array().into_iter().flatten().any(|known| known["name"] == *label)
                    };
                    issue["state"] == "open" && (label.is_empty() || has(&label))
                };
                page_of(self.issues.iter().filter(fits).cloned().collect())
            }
            (&Method::POST, ["issues"]) => {
                if content["title"].as_str().is_none_or(str::is_empty) {
                    return (422, json!({ "message": "Validation Failed" }), None);
                }
                let number = self.issues.len() as u64 + 1;
                let labels = content["labels"].as_array().filter(|_| !self.drops_labels).cloned().unwrap_or_default();
                let labels: Vec<_> = labels.iter().map(|name| json!({ "name": name })).collect();
                let issue = json!({
                    "number": number,
                    "html_url": format!("https://github.com/{REPOSITORY}/issues/{number}"),
                    "title": content["title"], "body": content["body"], "labels": labels, "state": "open",
                });
                self.issues.push(issue.clone());
                (201, issue, None)
            }
            (&Method::GET, ["issues", issue]) => {
                let found = self.issues.iter().find(|known| is(known, "number", number(issue)));
                found.map_or((404, json!({ "message": "Not Found" }), None), |issue| (200, issue.clone(), None))
            }
            (&Method::GET, ["issues", issue, "comments"]) => {
                page_of(self.comments.iter().filter(|comment| is(comment, "issue", number(issue))).cloned().collect())
            }
            (&Method::POST, ["issues", issue, "comments"]) => {
                let id = self.comments.len() as u64 + 1;
                let url = format!("https://github.com/{REPOSITORY}/issues/{issue}#issuecomment-{id}");
                let comment = json!({ "id": id, "issue": number(issue), "body": content["body"], "html_url": url });
                self.comments.push(comment.clone());
                (201, comment, None)
            }
            (&Method::PATCH, ["issues", "comments", id]) => {
                let found = self.comments.iter_mut().find(|comment| is(comment, "id", number(id)));
                changed(found, content)
            }
            (&Method::PATCH, ["issues", issue]) => {
                let found = self.issues.iter_mut().find(|known| is(known, "number", number(issue)));
                changed(found, content)
            }
            _ => (404, json!({ "message": "Not Found" }), None),
        }
    }
}

fn changed(found: Option<&mut Value>, content: &Value) -> (u16, Value, Option<String>) {
    let Some(found) = found else { return (404, json!({ "message": "Not Found" }), None) };
    for (name, value) in content.as_object().into_iter().flatten() {
        found[name] = value.clone();
    }
    (200, found.clone(), None)
}
