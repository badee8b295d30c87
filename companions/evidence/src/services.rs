//! The services that evidence speaks with, on this machine, for the demo and the tests: Bitbucket, Google Drive and Slack. What a
//! request lacks that the service's documentation asks for is a fault.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use blackwater_local::http::Server;
use bytes::Bytes;
use hyper::http::request::Parts;
use hyper::{Method, Request, Response};
use md5::{Digest, Md5};
use serde_json::{Value, json};

/// The tokens that the services take.
pub const BITBUCKET: &str = "bitbucket-token";
const DRIVE: &str = "drive-token";
/// See [`BITBUCKET`].
pub const SLACK: &str = "xoxb-token";
/// The folder in Drive that is shared.
pub const FOLDER: &str = "shared";
const KIND: &str = "application/vnd.google-apps.folder";

/// The services. They end when this is dropped.
#[derive(Debug)]
pub struct Services {
    server: Server,
    known: Arc<Mutex<Known>>,
}

/// What the services know.
#[derive(Debug, Default)]
pub struct Known {
    /// The requests, as `POST /slack/chat.postMessage`.
    pub calls: Vec<String>,
    /// What requests lacked.
    pub faults: Vec<String>,
    /// The commits of each repository, in the order in which Bitbucket lists them.
    pub commits: BTreeMap<String, Vec<Value>>,
    /// What the branches of each repository point to.
    pub heads: BTreeMap<String, Vec<String>>,
    /// The pull requests of each repository.
    pub pulls: BTreeMap<String, Vec<Value>>,
    /// How many commits a page has.
    pub page: usize,
    /// The files and folders in Drive, as it has them, with `content` as the MD5 of what they hold.
    pub files: Vec<Value>,
    /// The messages in Slack.
    pub messages: Vec<Value>,
    /// What service accounts signed to log in to Drive.
    pub assertions: Vec<String>,
    /// What Slack says is wrong.
    pub slack_error: Option<String>,
    /// What is answered instead, by the beginning of the request, in order: a status, headers and a text; whether it is done all the
    /// same.
    pub instead: BTreeMap<String, VecDeque<Instead>>,
    /// After how many more requests Drive answers no more; whether the last of them is done without an answer.
    pub drive_dies: Option<(usize, bool)>,
    uploads: BTreeMap<String, Value>,
}

/// An answer that is given instead of the service's own.
#[derive(Clone, Debug, Default)]
pub struct Instead {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: Vec<(&'static str, String)>,
    /// Its body.
    pub body: String,
    /// Whether the request is carried out all the same.
    pub is_done: bool,
}

impl Services {
    /// Starts them on a free port of loopback.
    ///
    /// # Errors
    /// If there is none.
    pub async fn start() -> std::io::Result<Self> {
        let known = Arc::new(Mutex::new(Known { page: 100, ..Known::default() }));
        let served = Arc::clone(&known);
        let server = Server::start(move |address, request| {
            let answer = lock(&served).answer(&address.to_string(), &request);
            async move { answer }
        });
        Ok(Self { server: server.await?, known })
    }

    /// Where they are, as `http://127.0.0.1:80`.
    #[must_use]
    pub fn origin(&self) -> String {
        self.server.origin()
    }

    /// What they know.
    pub fn known(&self) -> MutexGuard<'_, Known> {
        lock(&self.known)
    }

    /// Has them answer otherwise to the next requests that begin so.
    pub fn instead(&self, request: &str, answers: impl IntoIterator<Item = Instead>) {
        self.known().instead.entry(request.into()).or_default().extend(answers);
    }
}

fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A status, a document, and headers.
type Answer = (u16, Value, Vec<(&'static str, String)>);

fn plain(status: u16, document: Value) -> Answer {
    (status, document, Vec::new())
}

impl Known {
    fn answer(&mut self, address: &str, request: &Request<Bytes>) -> Response<Bytes> {
        let call = format!("{} {}", request.method(), request.uri().path());
        self.calls.push(call.clone());
        let instead = self.instead.iter_mut().find(|(begin, _)| call.starts_with(begin.as_str()));
        let instead = instead.and_then(|(_, answers)| answers.pop_front());
        let (head, body) = (request.clone().into_parts().0, request.body());
        let is_done = instead.as_ref().is_none_or(|instead| instead.is_done);
        let own = if is_done { self.own(address, &head, body) } else { plain(0, Value::Null) };
        let (status, text, headers) = match instead {
            Some(instead) => (instead.status, instead.body, instead.headers),
            None => (own.0, own.1.to_string(), own.2),
        };
        let mut answer = Response::builder().status(status).header("content-type", "application/json");
        for (name, value) in headers {
            answer = answer.header(name, value);
        }
        answer.body(text.into()).unwrap_or_default()
    }

    fn own(&mut self, address: &str, head: &Parts, body: &Bytes) -> Answer {
        let path = head.uri.path().to_owned();
        let authorization = head.headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let is = |token: &str| authorization == format!("Bearer {token}");
        let refused = plain(401, json!({ "error": { "message": "Invalid Credentials", "code": 401 } }));
        if path == "/bitbucket-login" {
            // `key:secret`
            let is_form = body.as_ref() == b"grant_type=client_credentials";
            return match authorization == "Basic a2V5OnNlY3JldA==" && is_form {
                true => plain(200, json!({ "access_token": BITBUCKET, "expires_in": 7200, "token_type": "bearer" })),
                false => plain(400, json!({ "error": "unauthorized_client" })),
            };
        }
        if path == "/drive-login" {
            let form: BTreeMap<_, _> = form_urlencoded::parse(body).into_owned().collect();
            self.assertions.extend(form.get("assertion").cloned());
            let is_known =
                form.get("refresh_token").is_some_and(|token| token == "refresh") || form.contains_key("assertion");
            return match is_known {
                true => plain(200, json!({ "access_token": DRIVE, "expires_in": 3600, "token_type": "Bearer" })),
                false => plain(400, json!({ "error": "invalid_grant" })),
            };
        }
        if let Some(path) = path.strip_prefix("/bitbucket/") {
            return if is(BITBUCKET) { self.bitbucket(address, path, head) } else { refused };
        }
        if let Some(method) = path.strip_prefix("/slack/") {
            return self.slack(method, is(SLACK), body);
        }
        if path.contains("/drive/v3/files") {
            if !is(DRIVE) {
                return refused;
            }
            if let Some((left, is_done)) = &mut self.drive_dies {
                let (is_last, is_done) = (*left == 0, *is_done);
                *left = left.saturating_sub(1);
                if is_last {
                    if is_done {
                        self.drive_dies = Some((0, false));
                        self.drive(address, &path, head, body);
                    }
                    return plain(400, json!({ "error": { "message": "dead" } }));
                }
            }
            return self.drive(address, &path, head, body);
        }
        plain(404, json!({ "error": { "message": "Not Found" } }))
    }

    fn bitbucket(&mut self, address: &str, path: &str, head: &Parts) -> Answer {
        let query: Vec<(String, String)> =
            form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
        let parameter = |name: &str| query.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        let rest = path.trim_start_matches("repositories/");
        let page = |all: &[Value], size: usize| {
            let from = parameter("page").and_then(|page| page.parse::<usize>().ok()).unwrap_or(0);
            let mut document =
                json!({ "pagelen": size, "values": all.iter().skip(from).take(size).collect::<Vec<_>>() });
            if from + size < all.len() {
                let others = query.iter().filter(|(name, _)| name != "page");
                let next = form_urlencoded::Serializer::new(String::new())
                    .extend_pairs(others)
                    .append_pair("page", &(from + size).to_string())
                    .finish();
                document["next"] = format!("http://{address}/bitbucket/{path}?{next}").into();
            }
            plain(200, document)
        };
        let parts: Vec<_> = rest.split('/').collect();
        match parts.as_slice() {
            [workspace] => {
                let names = self.commits.keys().filter(|name| name.starts_with(&format!("{workspace}/")));
                page(&names.map(|name| json!({ "full_name": name })).collect::<Vec<_>>(), self.page)
            }
            [workspace, slug, what] => {
                let repository = format!("{workspace}/{slug}");
                match (self.commits.get(&repository), *what) {
                    (Some(commits), "commits") => {
                        let excluded: Vec<_> =
                            query.iter().filter(|(name, _)| name == "exclude").map(|(_, head)| head.as_str()).collect();
                        match without(commits, &excluded) {
                            _ if excluded.is_empty() => page(commits, self.page),
                            Some(rest) => page(&rest, self.page),
                            None => plain(404, json!({ "type": "error", "error": { "message": "Commit not found" } })),
                        }
                    }
                    (Some(_), "pullrequests") => {
                        if parameter("page").is_none()
                            && (parameter("q").is_none()
                                || parameter("fields").is_none_or(|fields| fields != "+values.participants"))
                        {
                            self.faults.push(format!("{path} does not ask for what is needed: {query:?}"));
                        }
                        page(self.pulls.get(&repository).map(Vec::as_slice).unwrap_or_default(), self.page.min(50))
                    }
                    _ => plain(
                        404,
                        json!({ "type": "error", "error": { "message": format!("Repository {repository} not found") } }),
                    ),
                }
            }
            [workspace, slug, "refs", kind] => {
                let repository = format!("{workspace}/{slug}");
                let heads = self.heads.get(&repository).filter(|_| *kind == "branches").cloned().unwrap_or_default();
                let heads: Vec<_> = heads.iter().map(|hash| json!({ "target": { "hash": hash } })).collect();
                match self.commits.contains_key(&repository) {
                    true => page(&heads, self.page),
                    false => plain(404, json!({ "type": "error", "error": { "message": "Repository not found" } })),
                }
            }
            _ => plain(404, json!({ "type": "error", "error": { "message": "Not found" } })),
        }
    }

    fn slack(&mut self, method: &str, is_known: bool, body: &Bytes) -> Answer {
        let mut content: Value = serde_json::from_slice(body).unwrap_or_default();
        if !is_known {
            return plain(200, json!({ "ok": false, "error": "invalid_auth" }));
        }
        if let Some(error) = &self.slack_error {
            return plain(200, json!({ "ok": false, "error": error }));
        }
        match method {
            "auth.test" => {}
            "chat.postMessage" => {
                let ts = format!("17000000{}.000100", self.messages.len());
                content["ts"] = ts.clone().into();
                self.messages.push(content.clone());
                return plain(200, json!({ "ok": true, "channel": "C0", "ts": ts }));
            }
            "chat.update" => {
                let Some(known) = self.messages.iter_mut().find(|known| known["ts"] == content["ts"]) else {
                    return plain(200, json!({ "ok": false, "error": "message_not_found" }));
                };
                known["text"] = content["text"].take();
            }
            _ => return plain(200, json!({ "ok": false, "error": "unknown_method" })),
        }
        plain(200, json!({ "ok": true }))
    }

    fn drive(&mut self, address: &str, path: &str, head: &Parts, body: &Bytes) -> Answer {
        let query: BTreeMap<_, _> =
            form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
        if query.get("supportsAllDrives").is_none_or(|value| value != "true") && !query.contains_key("session") {
            self.faults.push(format!("{path} does not support shared drives"));
        }
        let missing = plain(
            404,
            json!({ "error": { "code": 404, "message": "File not found", "errors": [{ "reason": "notFound" }] } }),
        );
        if let Some(session) = query.get("session") {
            let Some(about) = self.uploads.remove(session) else { return missing };
            return plain(200, self.add(about, body));
        }
        if path.starts_with("/upload/") {
            return match query.get("uploadType").map(String::as_str) {
                Some("multipart") => {
                    let kind = head.headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
                    let Some(boundary) = kind.strip_prefix("multipart/related; boundary=") else {
                        return plain(400, json!({ "error": { "message": "no boundary" } }));
                    };
                    let parts = split(body, format!("--{boundary}").as_bytes());
                    let content = |part: &[u8]| {
                        part.windows(4)
                            .position(|window| window == b"\r\n\r\n")
                            .map(|at| part[at + 4..part.len() - 2].to_vec())
                    };
                    match (parts.get(1).and_then(|part| content(part)), parts.get(2).and_then(|part| content(part))) {
                        (Some(about), Some(bytes)) => {
                            let about = serde_json::from_slice(&about).unwrap_or_default();
                            plain(200, self.add(about, &bytes))
                        }
                        _ => plain(400, json!({ "error": { "message": "Malformed multipart body." } })),
                    }
                }
                Some("resumable") => {
                    let session = format!("s{}", self.calls.len());
                    self.uploads.insert(session.clone(), serde_json::from_slice(body).unwrap_or_default());
                    let place = format!("http://{address}/upload/drive/v3/files?session={session}");
                    (200, Value::Null, vec![("location", place)])
                }
                _ => plain(400, json!({ "error": { "message": "no uploadType" } })),
            };
        }
        let id = path.trim_start_matches("/drive/v3/files").trim_start_matches('/');
        match (&head.method, id) {
            (&Method::GET, "") => {
                let wanted = query.get("q").cloned().unwrap_or_default();
                let files: Vec<_> = self.files.iter().filter(|file| matches(file, &wanted)).collect();
                plain(200, json!({ "files": files }))
            }
            (&Method::POST, "") => {
                let about: Value = serde_json::from_slice(body).unwrap_or_default();
                if about["parents"] != json!([FOLDER]) {
                    return missing;
                }
                plain(200, self.add(about, b""))
            }
            (&Method::GET, FOLDER) => plain(
                200,
                json!({ "id": FOLDER, "name": "Evidence", "mimeType": KIND, "capabilities": { "canAddChildren": true } }),
            ),
            (&Method::PATCH, id) => {
                let change: Value = serde_json::from_slice(body).unwrap_or_default();
                let Some(file) = self.files.iter_mut().find(|file| file["id"] == id) else { return missing };
                for (name, value) in change.as_object().into_iter().flatten() {
                    match value {
                        Value::Object(members) => {
                            members.iter().for_each(|(member, value)| file[name][member] = value.clone())
                        }
                        value => file[name] = value.clone(),
                    }
                }
                plain(200, file.clone())
            }
            _ => missing,
        }
    }

    fn add(&mut self, mut about: Value, bytes: &[u8]) -> Value {
        about["id"] = format!("f{}", self.files.len()).into();
        about["trashed"] = false.into();
        if about["mimeType"] != KIND {
            about["md5Checksum"] = blackwater_base::store::hex(&Md5::digest(bytes)).into();
        }
        self.files.push(about.clone());
        about
    }
}

/// The commits without these and all that they lead to; `None` if one of these is not there.
fn without(commits: &[Value], excluded: &[&str]) -> Option<Vec<Value>> {
    let known: BTreeMap<_, _> = commits.iter().filter_map(|commit| Some((commit["hash"].as_str()?, commit))).collect();
    let mut gone = std::collections::BTreeSet::new();
    let mut left: Vec<&str> = excluded.to_vec();
    while let Some(hash) = left.pop() {
        let commit = known.get(hash)?;
        if gone.insert(hash) {
            left.extend(
                commit["parents"].as_array().into_iter().flatten().filter_map(|parent| parent["hash"].as_str()),
            );
        }
    }
    Some(
        commits
            .iter()
            .filter(|commit| !commit["hash"].as_str().is_some_and(|hash| gone.contains(hash)))
            .cloned()
            .collect(),
    )
}

/// Whether a file is what a query of Drive's asks for, of the kinds of queries that evidence makes.
fn matches(file: &Value, query: &str) -> bool {
    query.split(" and ").all(|condition| {
        let text = |condition: &str| condition.split('\'').nth(1).unwrap_or_default().to_owned();
        if condition.starts_with("name = ") {
            file["name"] == text(condition)
        } else if condition.starts_with("mimeType = ") {
            file["mimeType"] == text(condition)
        } else if condition.ends_with(" in parents") {
            file["parents"].as_array().into_iter().flatten().any(|parent| *parent == text(condition))
        } else if condition == "trashed = false" {
            file["trashed"] == false
        } else if condition.starts_with("appProperties has { key='evidence'") {
            !file["appProperties"]["evidence"].is_null()
        } else if condition.starts_with("value=") {
            file["appProperties"]["evidence"] == text(condition)
        } else {
            false
        }
    })
}

/// The pieces between a separator.
fn split<'b>(bytes: &'b [u8], separator: &[u8]) -> Vec<&'b [u8]> {
    let (mut pieces, mut begin) = (Vec::new(), 0);
    while let Some(at) = bytes[begin..].windows(separator.len()).position(|window| window == separator) {
        pieces.push(&bytes[begin..begin + at]);
        begin += at + separator.len();
    }
    pieces
}
