//! GitHub on this machine, for the demo and the tests: its API, repositories behind `git http-backend`, and the hosts that files
//! come from. What a request lacks that GitHub's documentation asks for is a fault.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use blackwater_base::store::sha256;
use blackwater_local::http::{Body, Server, streamed, whole};
use bytes::Bytes;
use hyper::http::request::Parts;
use hyper::{Request, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

/// The token that GitHub takes.
pub const TOKEN: &str = "ghp_ofthetests";
/// What git makes of it.
const BASIC: &str = "Basic eC1hY2Nlc3MtdG9rZW46Z2hwX29mdGhldGVzdHM=";
const LOGIN: &str = "acme";

/// GitHub. It ends when this is dropped.
#[derive(Debug)]
pub struct Services {
    api: Server,
    git: Server,
    _files: Server,
    folder: tempfile::TempDir,
    known: Arc<Mutex<Known>>,
}

/// What GitHub knows.
#[derive(Debug, Default)]
pub struct Known {
    /// The requests, as `api GET /user/repos?page=1` or `git POST /acme/shop.git/git-upload-pack fetch`.
    pub calls: Vec<String>,
    /// What requests lacked.
    pub faults: Vec<String>,
    /// The repositories, as the API lists them.
    pub repositories: Vec<Value>,
    /// What the API and git answer for a repository: a status, and a message.
    pub refused: BTreeMap<String, (u16, String)>,
    /// The new names of repositories.
    pub moved: BTreeMap<String, String>,
    /// The lists of a repository, by their paths, as `acme/shop/issues`.
    pub lists: BTreeMap<String, Vec<Value>>,
    /// The files of releases.
    pub assets: BTreeMap<u64, Vec<u8>>,
    /// The LFS objects.
    pub lfs: BTreeMap<String, Vec<u8>>,
    /// What a list becomes when the next request is answered that begins so: the request, the list, its items.
    pub then: Option<(String, String, Vec<Value>)>,
    /// What a page of repositories says of those that are left out.
    pub sso: Option<String>,
    /// How many items a page has.
    pub page: usize,
    /// The headers of an answer to who asks who it is.
    pub headers: Vec<(&'static str, String)>,
    /// What is answered instead, by the beginning of the request, in order.
    pub instead: BTreeMap<String, VecDeque<Instead>>,
    /// Where files come from.
    files: String,
    /// The links that were given and not used yet.
    links: Vec<String>,
    given: u64,
}

/// An answer that is given instead of GitHub's own.
#[derive(Clone, Debug, Default)]
pub struct Instead {
    /// Its status; 0: GitHub's own answer, which breaks off.
    pub status: u16,
    /// Its headers.
    pub headers: Vec<(&'static str, String)>,
    /// Its body.
    pub body: String,
    /// After how many bytes GitHub's own answer breaks off.
    pub cut: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Host {
    Api,
    Git,
    Files,
}

impl Services {
    /// Starts it on free ports of loopback.
    ///
    /// # Errors
    /// If there are none.
    pub async fn start() -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("github-").tempdir()?;
        let known = Arc::new(Mutex::new(Known { page: 100, ..Known::default() }));
        let serve = async |host: Host| {
            let (known, folder) = (Arc::clone(&known), folder.path().to_owned());
            Server::streaming(move |address, request| {
                answer(host, address.to_string(), Arc::clone(&known), folder.clone(), request)
            })
            .await
        };
        let (api, git, files) = (serve(Host::Api).await?, serve(Host::Git).await?, serve(Host::Files).await?);
        lock(&known).files = files.origin();
        Ok(Self { api, git, _files: files, folder, known })
    }

    /// Where its API is.
    #[must_use]
    pub fn api(&self) -> String {
        self.api.origin()
    }

    /// Where its repositories are.
    #[must_use]
    pub fn git(&self) -> String {
        self.git.origin()
    }

    /// What it knows.
    pub fn known(&self) -> MutexGuard<'_, Known> {
        lock(&self.known)
    }

    /// Has it answer otherwise to the next requests that begin so.
    pub fn instead(&self, request: &str, answers: impl IntoIterator<Item = Instead>) {
        self.known().instead.entry(request.into()).or_default().extend(answers);
    }

    /// Where a repository is on this machine, as `acme/shop` or `acme/shop.wiki`.
    #[must_use]
    pub fn repository(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.git"))
    }

    /// Makes an empty repository that the API lists.
    ///
    /// # Errors
    /// If git cannot.
    pub fn make(&self, id: u64, name: &str) -> io::Result<()> {
        let path = self.repository(name);
        std::fs::create_dir_all(&path)?;
        git(&path, &["init", "--quiet", "--bare", "--initial-branch=main", "."])?;
        let (owner, short) = name.split_once('/').unwrap_or_default();
        self.known().repositories.push(json!({
            "id": id, "name": short, "full_name": name, "private": true, "owner": { "login": owner }, "default_branch": "main",
            "size": 10, "has_wiki": false, "has_issues": true, "pushed_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z",
        }));
        Ok(())
    }

    /// Commits a file to a branch of a repository; the commit's hash.
    ///
    /// # Errors
    /// If git cannot.
    pub fn commit(&self, name: &str, branch: &str, file: &str, content: &[u8]) -> io::Result<String> {
        let path = self.repository(name);
        let blob = git_with(&path, &["hash-object", "-w", "--stdin"], content)?;
        let reference = format!("refs/heads/{branch}");
        let parent = git(&path, &["rev-parse", "--quiet", "--verify", &reference]).ok();
        let index = format!("{}/index-of-{}", path.display(), branch.replace('/', "-"));
        let env = [("GIT_INDEX_FILE", index.as_str())];
        run(&path, &["update-index", "--add", "--cacheinfo", &format!("100644,{blob},{file}")], &env, b"")?;
        let tree = run(&path, &["write-tree"], &env, b"")?;
        let message = format!("Write {file}");
        let mut arguments = vec!["commit-tree", &tree, "-m", &message];
        arguments.extend(parent.iter().flat_map(|parent| ["-p", parent]));
        let commit = git(&path, &arguments)?;
        git(&path, &["update-ref", &reference, &commit])?;
        Ok(commit)
    }

    /// Commits the pointer of an LFS object, and keeps the object; its hash.
    ///
    /// # Errors
    /// If git cannot.
    pub fn commit_lfs(&self, name: &str, file: &str, content: &[u8]) -> io::Result<String> {
        let oid = sha256(content);
        let pointer = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {}\n", content.len());
        self.commit(name, "main", file, pointer.as_bytes())?;
        self.known().lfs.insert(oid.clone(), content.to_vec());
        Ok(oid)
    }
}

/// What git says.
///
/// # Errors
/// What it says went wrong.
pub fn git(path: &Path, arguments: &[&str]) -> io::Result<String> {
    run(path, arguments, &[], b"")
}

fn git_with(path: &Path, arguments: &[&str], input: &[u8]) -> io::Result<String> {
    run(path, arguments, &[], input)
}

fn run(path: &Path, arguments: &[&str], env: &[(&str, &str)], input: &[u8]) -> io::Result<String> {
    use io::Write;
    let mut command = Command::new("git");
    command.current_dir(path).args(arguments).envs(env.iter().copied());
    // Nothing of this machine's settings.
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "Ada").env(format!("GIT_{who}_EMAIL"), "ada@example.com");
        command.env(format!("GIT_{who}_DATE"), "2026-01-01T00:00:00Z");
    }
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().map_err(|error| io::Error::other(format!("git cannot be started: {error}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input)?;
    }
    let done = child.wait_with_output()?;
    match done.status.success() {
        true => Ok(String::from_utf8_lossy(&done.stdout).trim_end().to_owned()),
        false => Err(io::Error::other(format!("git {arguments:?}: {}", String::from_utf8_lossy(&done.stderr)))),
    }
}

fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(
    host: Host,
    address: String,
    known: Arc<Mutex<Known>>,
    folder: PathBuf,
    request: Request<Bytes>,
) -> Response<Body> {
    let (head, body) = request.into_parts();
    let instead = lock(&known).take(host, &head, &body);
    if let Some(instead) = instead.as_ref().filter(|instead| instead.status > 0) {
        let mut answer = Response::builder().status(instead.status);
        for (name, value) in &instead.headers {
            answer = answer.header(*name, value);
        }
        return built(answer.body(whole(instead.body.clone().into())));
    }
    let own = match host {
        Host::Api => lock(&known).api(&address, &folder, &head),
        Host::Files => lock(&known).file(&head),
        Host::Git => {
            let lfs_or_refusal = lock(&known).lfs_or_refusal(&address, &head, &body);
            match lfs_or_refusal {
                Some(answer) => answer,
                None => backend(&folder, &head, body).await.unwrap_or_else(|error| {
                    lock(&known).faults.push(format!("git http-backend: {error}"));
                    plain(500, &json!({}))
                }),
            }
        }
    };
    match instead {
        Some(Instead { cut, .. }) => own.map(|body| cut_after(body, cut)),
        None => own,
    }
}

/// The beginning of a body, and then nothing, without an end.
fn cut_after(body: Body, bytes: usize) -> Body {
    use futures_util::TryStreamExt;
    let chunks = http_body_util::BodyDataStream::new(body);
    let reader = tokio_util::io::StreamReader::new(chunks.map_err(io::Error::other)).take(bytes as u64);
    let (mut write, read) = tokio::io::duplex(64 << 10);
    tokio::spawn(async move {
        let mut reader = std::pin::pin!(reader);
        let _ = tokio::io::copy(&mut reader, &mut write).await;
    });
    streamed(Broken(read))
}

/// A reader whose end is an error.
struct Broken(tokio::io::DuplexStream);

impl tokio::io::AsyncRead for Broken {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = std::task::ready!(std::pin::Pin::new(&mut self.0).poll_read(context, buffer));
        std::task::Poll::Ready(match buffer.filled().len() == before {
            true => Err(io::ErrorKind::ConnectionReset.into()),
            false => read,
        })
    }
}

/// What `git http-backend` answers, as it comes.
async fn backend(folder: &Path, head: &Parts, body: Bytes) -> io::Result<Response<Body>> {
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut child = tokio::process::Command::new("git")
        .arg("http-backend")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_PROJECT_ROOT", folder)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_PROTOCOL", header("git-protocol"))
        .env("PATH_INFO", head.uri.path())
        .env("QUERY_STRING", head.uri.query().unwrap_or_default())
        .env("REQUEST_METHOD", head.method.as_str())
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    tokio::spawn(async move {
        if let Some(mut stdin) = stdin {
            let _ = stdin.write_all(&body).await;
        }
        let _ = child.wait().await;
    });
    let mut stdout = BufReader::new(stdout.ok_or_else(|| io::Error::other("it has no output"))?);
    let mut answer = Response::builder();
    loop {
        let mut line = String::new();
        stdout.read_line(&mut line).await?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        answer = match name {
            "Status" => answer.status(value.split(' ').next().unwrap_or_default()),
            _ => answer.header(name, value),
        };
    }
    answer.body(streamed(stdout)).map_err(io::Error::other)
}

fn built(answer: hyper::http::Result<Response<Body>>) -> Response<Body> {
    answer.unwrap_or_else(|error| Response::new(whole(error.to_string().into())))
}

fn plain(status: u16, document: &Value) -> Response<Body> {
    built(Response::builder().status(status).body(whole(document.to_string().into())))
}

fn elsewhere(status: u16, to: &str) -> Response<Body> {
    built(Response::builder().status(status).header("location", to).body(whole(Bytes::new())))
}

impl Known {
    /// Notes a request, and what it lacks; the answer that is given instead of GitHub's own.
    fn take(&mut self, host: Host, head: &Parts, body: &Bytes) -> Option<Instead> {
        let kind = match host {
            Host::Api => "api",
            Host::Git => "git",
            Host::Files => "files",
        };
        let mut call = format!("{kind} {} {}", head.method, head.uri);
        if head.uri.path().ends_with("git-upload-pack") && head.method == "POST" {
            let is_fetch = body.windows(13).any(|window| window == b"command=fetch");
            call.push_str(if is_fetch { " fetch" } else { " ls-refs" });
        }
        let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let mut lacks = |is_there: bool, what: &str| {
            if !is_there {
                self.faults.push(format!("{call}: {what}"));
            }
        };
        match host {
            Host::Api => {
                lacks(header("authorization") == format!("Bearer {TOKEN}"), "has no token");
                lacks(!header("user-agent").is_empty(), "does not say who asks");
                lacks(header("x-github-api-version") == "2022-11-28", "names no version");
                lacks(!header("accept").is_empty(), "does not say what it takes");
            }
            Host::Git => {
                lacks(header("authorization") == BASIC, "has no token");
                lacks(header("git-protocol") == "version=2" || head.uri.path().contains("/lfs/"), "names no version");
            }
            Host::Files => {
                lacks(header("authorization").is_empty(), "has GitHub's token");
                lacks(
                    !head.uri.path().starts_with("/lfs/") || header("x-of-the-store") == "1",
                    "lacks the store's header",
                );
            }
        }
        self.calls.push(call.clone());
        let instead = self.instead.iter_mut().find(|(begin, _)| call.starts_with(begin.as_str()));
        instead.and_then(|(_, answers)| answers.pop_front())
    }

    fn api(&mut self, address: &str, folder: &Path, head: &Parts) -> Response<Body> {
        let query: BTreeMap<_, _> =
            head.uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('=')).collect();
        let parts: Vec<_> = head.uri.path().trim_matches('/').split('/').collect();
        match parts[..] {
            ["user"] => {
                let mut answer = Response::builder();
                for (name, value) in &self.headers {
                    answer = answer.header(*name, value);
                }
                built(answer.body(whole(json!({ "login": LOGIN }).to_string().into())))
            }
            ["user", "repos"] => self.paged(address, head, &query, self.repositories.clone()),
            ["issues"] => {
                if query.get("filter") != Some(&"all") || query.get("state") != Some(&"all") {
                    self.faults.push(format!("{}: it lists not all issues", head.uri));
                }
                let mut issues = Vec::new();
                for one in &self.repositories {
                    let name = one["full_name"].as_str().unwrap_or_default();
                    for issue in self.lists.get(&format!("{name}/issues")).into_iter().flatten() {
                        let mut issue = issue.clone();
                        issue["repository"] = json!({ "id": one["id"] });
                        issues.push(issue);
                    }
                }
                self.paged(address, head, &query, issues)
            }
            ["repositories", id, ref rest @ ..] => {
                let found = self.repositories.iter().find(|one| one["id"].as_u64() == id.parse().ok());
                let name = found.and_then(|one| one["full_name"].as_str()).unwrap_or_default().to_owned();
                match found.cloned() {
                    Some(one) if rest.is_empty() => plain(200, &one),
                    Some(_) => self.of_repository(address, folder, head, &query, &name, rest),
                    None => plain(404, &json!({ "message": "Not Found" })),
                }
            }
            ["repos", owner, name, ref rest @ ..] => {
                let name = format!("{owner}/{name}");
                if let Some(new) = self.moved.get(&name) {
                    let is_it = |one: &&Value| one["full_name"] == name || one["full_name"] == **new;
                    let id = self.repositories.iter().find(is_it).map_or(Value::Null, |one| one["id"].clone());
                    let query = head.uri.query().map_or_else(String::new, |query| format!("?{query}"));
                    return elsewhere(301, &format!("http://{address}/repositories/{id}/{}{query}", rest.join("/")));
                }
                self.of_repository(address, folder, head, &query, &name, rest)
            }
            _ => {
                self.faults.push(format!("{}: there is no such path", head.uri));
                plain(404, &json!({ "message": "Not Found" }))
            }
        }
    }

    fn of_repository(
        &mut self,
        address: &str,
        folder: &Path,
        head: &Parts,
        query: &BTreeMap<&str, &str>,
        name: &str,
        rest: &[&str],
    ) -> Response<Body> {
        if let Some((status, message)) = self.refused.get(name) {
            return plain(*status, &json!({ "message": message }));
        }
        match rest {
            ["zipball", commit] => {
                let path = folder.join(format!("{}.git", self.moved.get(name).map_or(name, String::as_str)));
                let prefix = format!("--prefix={}-{}/", name.replace('/', "-"), &commit[..7]);
                let made =
                    Command::new("git").current_dir(path).args(["archive", "--format=zip", &prefix, commit]).output();
                match made {
                    Ok(made) if made.status.success() => self.link("legacy.zip", made.stdout),
                    _ => plain(404, &json!({ "message": "Not Found" })),
                }
            }
            ["releases", "assets", id] => {
                let content = id.parse().ok().and_then(|id: u64| self.assets.get(&id).cloned());
                if head.headers.get("accept").is_none_or(|accept| accept != "application/octet-stream") {
                    self.faults.push(format!("{}: it asks for no bytes", head.uri));
                }
                content.map_or_else(|| plain(404, &json!({})), |content| self.link("asset", content))
            }
            _ => {
                let path = rest.join("/");
                if matches!(path.as_str(), "issues" | "pulls" | "milestones") && query.get("state") != Some(&"all") {
                    self.faults.push(format!("{}: it leaves out what is closed", head.uri));
                }
                let items = self.lists.get(&format!("{name}/{path}")).cloned().unwrap_or_default();
                self.paged(address, head, query, items)
            }
        }
    }

    fn paged(
        &mut self,
        address: &str,
        head: &Parts,
        query: &BTreeMap<&str, &str>,
        mut items: Vec<Value>,
    ) -> Response<Body> {
        let wanted = if head.uri.path().ends_with("/releases") { "20" } else { "100" };
        if query.get("per_page") != Some(&wanted) {
            self.faults.push(format!("{}: it asks for small pages", head.uri));
        }
        let at = |item: &Value| item["updated_at"].as_str().unwrap_or_default().to_owned();
        if let Some(since) = query.get("since") {
            items.retain(|item| at(item).as_str() >= *since);
        }
        if query.get("sort") == Some(&"updated") {
            items.sort_by_key(at);
            if query.get("direction") == Some(&"desc") {
                items.reverse();
            }
        }
        let page: usize = query.get("page").and_then(|page| page.parse().ok()).unwrap_or(1);
        let of_page: Vec<_> = items.iter().skip((page - 1) * self.page).take(self.page).cloned().collect();
        let mut answer = Response::builder();
        if page * self.page < items.len() {
            let others = head.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.starts_with("page="));
            let next = format!(
                "http://{address}{}?{}&page={}",
                head.uri.path(),
                others.collect::<Vec<_>>().join("&"),
                page + 1
            );
            answer = answer.header("link", format!("<{next}>; rel=\"next\""));
        }
        if let Some(sso) = &self.sso {
            answer = answer.header("x-github-sso", sso);
        }
        let asked = format!("api GET {}", head.uri);
        if let Some((_, list, items)) = self.then.take_if(|(request, ..)| asked.starts_with(request.as_str())) {
            self.lists.insert(list, items);
        }
        built(answer.body(whole(Value::from(of_page).to_string().into())))
    }

    /// A redirect to a file, which holds once.
    fn link(&mut self, kind: &str, content: Vec<u8>) -> Response<Body> {
        self.given += 1;
        let link = format!("/{kind}/{}?token=once-{}", sha256(&content), self.given);
        self.lfs.insert(sha256(&content), content);
        self.links.push(link.clone());
        elsewhere(302, &format!("{}{link}", self.files))
    }

    fn file(&mut self, head: &Parts) -> Response<Body> {
        let link = head.uri.to_string();
        let oid = head.uri.path().rsplit('/').next().unwrap_or_default();
        let is_given = link.starts_with("/lfs/") || {
            let before = self.links.len();
            self.links.retain(|given| *given != link);
            self.links.len() < before
        };
        match self.lfs.get(oid) {
            Some(content) if is_given => built(Response::builder().body(streamed(io::Cursor::new(content.clone())))),
            _ => plain(404, &json!({ "message": "the link has expired" })),
        }
    }

    fn lfs_or_refusal(&mut self, address: &str, head: &Parts, body: &Bytes) -> Option<Response<Body>> {
        let path = head.uri.path().trim_start_matches('/');
        let (name, rest) = path.split_once(".git/").unwrap_or_default();
        if let Some((status, message)) = self.refused.get(name.trim_end_matches(".wiki")) {
            return Some(plain(*status, &json!({ "message": message })));
        }
        if let Some(new) = self.moved.get(name) {
            let query = head.uri.query().map_or_else(String::new, |query| format!("?{query}"));
            return Some(elsewhere(301, &format!("http://{address}/{new}.git/{rest}{query}")));
        }
        if rest != "info/lfs/objects/batch" {
            return None;
        }
        let asked: Value = serde_json::from_slice(body).unwrap_or_default();
        if asked["operation"] != "download"
            || head.headers.get("accept").is_none_or(|one| one != "application/vnd.git-lfs+json")
        {
            self.faults.push(format!("{}: it asks for no LFS objects", head.uri));
        }
        let objects = asked["objects"].as_array().into_iter().flatten().map(|one| {
            let oid = one["oid"].as_str().unwrap_or_default();
            match self.lfs.contains_key(oid) {
                true => json!({ "oid": oid, "size": one["size"], "actions": { "download": {
                    "href": format!("{}/lfs/{oid}", self.files), "header": { "x-of-the-store": "1" }, "expires_in": 3600,
                } } }),
                false => json!({ "oid": oid, "size": one["size"], "error": { "code": 404, "message": "Object does not exist" } }),
            }
        });
        Some(plain(200, &json!({ "objects": objects.collect::<Vec<_>>() })))
    }
}
