//! Requests to services beside AWS: each ends in time, is tried again where that is safe, and says nothing of tokens.

use std::time::Duration;

use blackwater_base::deadline::Deadline;
use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, ETAG, HeaderMap, HeaderValue, LINK, LOCATION, RETRY_AFTER};
use reqwest::redirect::Policy;
pub use reqwest::{Method, RequestBuilder, StatusCode, Url, header};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use tokio::time::{sleep, timeout};

/// How often a request is sent until it succeeds.
const TRIES: u32 = 4;
/// How long a connection may take to be there, and a request to be answered.
const CONNECT: Duration = Duration::from_secs(5);
const REQUEST: Duration = Duration::from_secs(30);
/// How long an answer that is read as it comes may be silent: a server may have to gather it first.
const SILENCE: Duration = Duration::from_secs(60);
/// What is waited for before the second try; before each further one, twice as long.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest that a service may ask to wait where there is no deadline.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);
/// The most bytes of an answer: a page of a hundred comments at GitHub, each of 65,536 characters, has 26 MB.
const MOST: usize = 64 << 20;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no client.
    #[error("cannot make requests: {0}")]
    Client(String),
    /// There is no answer.
    #[error("{request} has no answer: {why}")]
    NoAnswer {
        /// The method, and the address without what may be secret.
        request: String,
        /// The cause.
        why: String,
    },
    /// There is no time for it.
    #[error("there is no time left for {request}")]
    Late {
        /// The method, and the address without what may be secret.
        request: String,
    },
    /// The answer is that it failed.
    #[error("{request} is answered with {status}{}{}", said(.message), after(*.pause))]
    Status {
        /// The method, and the address without what may be secret.
        request: String,
        /// The status.
        status: StatusCode,
        /// What the answer says.
        message: String,
        /// How long the service asks to wait.
        pause: Option<Duration>,
    },
    /// The answer is that what is asked for is elsewhere.
    #[error("{request} is answered with {status}: it is elsewhere")]
    Elsewhere {
        /// The method, and the address without what may be secret.
        request: String,
        /// The status.
        status: StatusCode,
        /// Where.
        to: Box<Place>,
    },
    /// The answer has another form than the service's documentation says.
    #[error("{request} is answered with something else than {wanted}: {why}")]
    Form {
        /// The method, and the address without what may be secret.
        request: String,
        /// What it should be.
        wanted: &'static str,
        /// What is wrong.
        why: String,
    },
}

impl Error {
    /// The status of the answer, if there is one.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Status { status, .. } | Self::Elsewhere { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// The same without the path of the address, which is the secret of some webhooks.
    #[must_use]
    pub fn without_path(mut self) -> Self {
        if let Self::NoAnswer { request, .. }
        | Self::Late { request }
        | Self::Status { request, .. }
        | Self::Elsewhere { request, .. }
        | Self::Form { request, .. } = &mut self
            && let Some(path) = request.find("://").and_then(|begin| Some(begin + 3 + request[begin + 3..].find('/')?))
        {
            request.truncate(path);
        }
        self
    }

    /// Whether the service does not know the token, or not for this.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Status { status: StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, pause: None, .. })
    }

    /// Whether there is no time for it before the deadline, with what the service asks to wait.
    #[must_use]
    pub fn is_late(&self) -> bool {
        matches!(self, Self::Late { .. } | Self::Status { pause: Some(_), .. })
    }

    /// Whether it may pass by itself: there is no answer, or one that asks to come again.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::NoAnswer { .. } | Self::Late { .. } => true,
            Self::Status { status, pause, .. } => pause.is_some() || is_trouble(*status),
            Self::Client(_) | Self::Elsewhere { .. } | Self::Form { .. } => false,
        }
    }
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

fn after(pause: Option<Duration>) -> String {
    pause.map_or_else(String::new, |pause| format!(" (ask again in {} s)", pause.as_secs()))
}

/// Where something else is. What it prints is the host alone: the rest may be secret.
#[derive(Clone)]
pub struct Place(pub Url);

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.host_str().unwrap_or_default())
    }
}

/// An answer that is read as it comes.
#[derive(Debug)]
pub struct Stream {
    /// Its headers.
    pub headers: HeaderMap,
    answer: reqwest::Response,
    request: String,
    deadline: Deadline,
}

impl Stream {
    /// Its next bytes; `None` at its end.
    ///
    /// # Errors
    /// If it breaks off, or is silent for a minute, or if there is no time left.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        let broken = |why| Error::NoAnswer { request: self.request.clone(), why };
        match timeout(patience(self.deadline), self.answer.chunk()).await {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(error)) => Err(broken(format!("it breaks off: {}", innermost(&error.without_url())))),
            Err(_) if is_over(self.deadline) => Err(Error::Late { request: format!("the rest of {}", self.request) }),
            Err(_) => Err(broken(format!("nothing comes for {} s", SILENCE.as_secs()))),
        }
    }

    /// All of it, which is little.
    ///
    /// # Errors
    /// As [`Self::chunk`], or if it is more than 64 MB.
    pub async fn whole(mut self) -> Result<Answer, Error> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            body.extend_from_slice(&chunk);
            if body.len() > MOST {
                return Err(too_large(self.request));
            }
        }
        Ok(Answer { status: self.answer.status(), headers: self.headers, body, request: self.request })
    }
}

/// An answer that is no failure.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Vec<u8>,
    request: String,
}

impl Answer {
    /// The body as JSON. `wanted` says what it is.
    ///
    /// # Errors
    /// If it has another form.
    pub fn json<T: DeserializeOwned>(&self, wanted: &'static str) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|error| Error::Form {
            request: self.request.clone(),
            wanted,
            why: error.to_string(),
        })
    }

    /// Its ETag, with the quotes.
    #[must_use]
    pub fn etag(&self) -> Option<&str> {
        self.headers.get(ETAG)?.to_str().ok()
    }

    /// The address of the next page, where the answer is one of several.
    /// <https://docs.github.com/en/rest/using-the-rest-api/using-pagination-in-the-rest-api>
    #[must_use]
    pub fn next(&self) -> Option<String> {
        // An address may have commas too.
        let mut links = self.headers.get(LINK)?.to_str().ok()?;
        while let Some((_, link)) = links.split_once('<') {
            let (address, rest) = link.split_once('>')?;
            let (about, others) = rest.split_once('<').map_or((rest, ""), |(about, _)| (about, &rest[about.len()..]));
            if about.split([';', ',']).any(|part| part.trim() == "rel=\"next\"") {
                return Some(address.trim().to_owned());
            }
            links = others;
        }
        None
    }
}

/// A client of services.
#[derive(Clone, Debug)]
pub struct Http(reqwest::Client);

impl Http {
    /// A client that calls itself `agent`. It follows no redirects: they would turn what is written into a question, and send tokens
    /// and texts to other hosts.
    ///
    /// # Errors
    /// If the system has no certificates to verify a service with.
    pub fn new(agent: &str) -> Result<Self, Error> {
        let client =
            reqwest::Client::builder().user_agent(agent).connect_timeout(CONNECT).redirect(Policy::none()).build();
        client.map(Self).map_err(|error| Error::Client(innermost(&error)))
    }

    /// A request to be sent.
    pub fn request(&self, method: Method, url: Url) -> RequestBuilder {
        self.0.request(method, url)
    }

    /// Sends a request until it is answered, half a minute at most unless the request has a time of its own, as often and as long as
    /// the deadline allows. A request that would do something twice is sent again only when it did nothing: when there was no
    /// connection, or when the service asks to come again.
    ///
    /// # Errors
    /// If there is no answer, or one with another status than 304 or from 200 to 299.
    pub async fn send(&self, request: RequestBuilder, deadline: Deadline) -> Result<Answer, Error> {
        self.until_answered(request, false, deadline, async |request| self.send_once(request, deadline).await).await
    }

    /// Sends a request that reads, whatever its method, as [`Self::send`] does, until the answer begins.
    ///
    /// # Errors
    /// If there is none, or one with another status than from 200 to 299.
    pub async fn open(&self, request: RequestBuilder, deadline: Deadline) -> Result<Stream, Error> {
        self.until_answered(request, true, deadline, async |request| self.open_once(request, deadline).await).await
    }

    async fn until_answered<T>(
        &self,
        request: RequestBuilder,
        is_read: bool,
        deadline: Deadline,
        once: impl AsyncFn(reqwest::Request) -> Result<T, Failed>,
    ) -> Result<T, Error> {
        let request = request.build().map_err(|error| Error::Client(innermost(&error.without_url())))?;
        let is_safe = is_read || request.method().is_idempotent();
        if is_over(deadline) {
            return Err(Error::Late { request: named(&request) });
        }
        let mut pause = PAUSE;
        for tried in 1.. {
            // All bodies here are in memory, so each can be sent again.
            let Some(again) = request.try_clone() else { break };
            let failed = match once(again).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            let waits = failed.pause().unwrap_or(pause);
            let is_in_time = waits < deadline.left().unwrap_or(LONGEST_PAUSE);
            let may_repeat = may_repeat(&failed, is_safe);
            let error = failed.into_error(&request);
            if tried == TRIES || !may_repeat || !is_in_time {
                return Err(error);
            }
            tracing::info!("{error}; again in {:.1} s", waits.as_secs_f64());
            sleep(waits).await;
            pause *= 2;
        }
        Err(Error::Client("the body cannot be sent twice".into()))
    }

    async fn send_once(&self, mut request: reqwest::Request, deadline: Deadline) -> Result<Answer, Failed> {
        let most = request.timeout().copied().unwrap_or(REQUEST);
        let left = deadline.left().unwrap_or(most).min(most);
        *request.timeout_mut() = Some(left);
        let asked = named(&request);
        let mut answer = self.0.execute(request).await.map_err(no_answer)?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = whole(&mut answer).await?;
        match status.is_success() || status == StatusCode::NOT_MODIFIED {
            true => Ok(Answer { status, headers, body, request: asked }),
            false => Err(Failed::of(status, &headers, &body, answer.url())),
        }
    }

    async fn open_once(&self, request: reqwest::Request, deadline: Deadline) -> Result<Stream, Failed> {
        let asked = named(&request);
        let most = patience(deadline);
        let silent = |_| match is_over(deadline) {
            true => Failed::Late,
            false => Failed::NoAnswer { is_begun: true, why: format!("nothing comes for {} s", most.as_secs()) },
        };
        let mut answer = timeout(most, self.0.execute(request)).await.map_err(silent)?.map_err(no_answer)?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        if status.is_success() {
            return Ok(Stream { headers, answer, request: asked, deadline });
        }
        let body = timeout(most, whole(&mut answer)).await.map_err(silent)??;
        Err(Failed::of(status, &headers, &body, answer.url()))
    }
}

/// How long an answer is waited for.
fn patience(deadline: Deadline) -> Duration {
    deadline.left().unwrap_or(SILENCE).min(SILENCE)
}

fn is_over(deadline: Deadline) -> bool {
    deadline.left().is_some_and(|left| left.is_zero())
}

fn too_large(request: String) -> Error {
    Error::Form { request, wanted: "what can be read at once", why: format!("it has more than {} MB", MOST >> 20) }
}

fn no_answer(error: reqwest::Error) -> Failed {
    let is_begun = !error.is_connect();
    Failed::NoAnswer { is_begun, why: innermost(&error.without_url()) }
}

async fn whole(answer: &mut reqwest::Response) -> Result<Vec<u8>, Failed> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(no_answer)? {
        if body.len() + chunk.len() > MOST {
            return Err(Failed::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// A try that failed.
enum Failed {
    NoAnswer { is_begun: bool, why: String },
    Status { status: StatusCode, message: String, pause: Option<Duration> },
    Elsewhere { status: StatusCode, to: Box<Place> },
    TooLarge,
    Late,
}

impl Failed {
    /// What an answer with such a status says.
    fn of(status: StatusCode, headers: &HeaderMap, body: &[u8], asked: &Url) -> Self {
        let location = headers.get(LOCATION).filter(|_| status.is_redirection());
        if let Some(to) = location.and_then(|to| asked.join(to.to_str().ok()?).ok()) {
            return Self::Elsewhere { status, to: Box::new(Place(to)) };
        }
        let message = message(body);
        Self::Status { status, pause: pause(status, headers, &message), message }
    }

    /// How long the service asks to wait.
    fn pause(&self) -> Option<Duration> {
        match self {
            Self::Status { pause, .. } => *pause,
            Self::NoAnswer { .. } | Self::Elsewhere { .. } | Self::TooLarge | Self::Late => None,
        }
    }

    fn into_error(self, request: &reqwest::Request) -> Error {
        let request = named(request);
        match self {
            Self::NoAnswer { why, .. } => Error::NoAnswer { request, why },
            Self::Status { status, message, pause } => Error::Status { request, status, message, pause },
            Self::Elsewhere { status, to } => Error::Elsewhere { request, status, to },
            Self::TooLarge => too_large(request),
            Self::Late => Error::Late { request },
        }
    }
}

fn may_repeat(failed: &Failed, is_safe: bool) -> bool {
    match failed {
        Failed::NoAnswer { is_begun, .. } => is_safe || !is_begun,
        Failed::Status { status, pause, .. } => pause.is_some() || is_safe && is_trouble(*status),
        Failed::Elsewhere { .. } | Failed::TooLarge | Failed::Late => false,
    }
}

/// A fault of the service's own.
fn is_trouble(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 500 | 502 | 503 | 504)
}

/// How long a service asks to wait that lets nobody ask so often.
/// <https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api#exceeding-the-rate-limit>
fn pause(status: StatusCode, headers: &HeaderMap, message: &str) -> Option<Duration> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<i64>().ok();
    let now = chrono::Utc::now().timestamp();
    if !matches!(status.as_u16(), 403 | 429 | 503) {
        return None;
    }
    let asked = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()).and_then(|value| {
        let date = || Some(chrono::DateTime::parse_from_rfc2822(value).ok()?.timestamp() - now);
        value.trim().parse().ok().or_else(date)
    });
    let spent = number("x-ratelimit-remaining") == Some(0);
    let reset = number("x-ratelimit-reset").filter(|_| spent).map(|reset| reset - now + 1);
    // GitHub's secondary limits may say so in words alone.
    let is_limit = status == StatusCode::TOO_MANY_REQUESTS || message.to_lowercase().contains("rate limit");
    let seconds = asked.or(reset).or(is_limit.then_some(60))?;
    Some(Duration::from_secs(seconds.clamp(1, 24 * 3600).unsigned_abs()))
}

/// What an answer says: its member `message`, also that of its member `error`, or the beginning of its text.
fn message(body: &[u8]) -> String {
    let said = serde_json::from_slice::<serde_json::Value>(body).ok();
    let said =
        said.as_ref().and_then(|said| ["/message", "/error/message"].iter().find_map(|at| said.pointer(at)?.as_str()));
    let text = said.map_or_else(|| String::from_utf8_lossy(&body[..body.len().min(1000)]).into_owned(), str::to_owned);
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.chars().take(200).collect()
}

/// A request's method and address, without what may be secret: its query, and who asks.
fn named(request: &reqwest::Request) -> String {
    format!("{} {}{}", request.method(), request.url().origin().ascii_serialization(), request.url().path())
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// The header of a request that a token allows, as `Bearer …`. It never prints.
///
/// # Errors
/// If the token has a character that no header may have.
pub fn authorization(scheme: &str, token: &SecretString) -> Result<HeaderMap, Error> {
    let mut value = HeaderValue::from_str(&format!("{scheme} {}", token.expose_secret().trim()))
        .map_err(|_| Error::Client("the token has a character that no header may have".into()))?;
    value.set_sensitive(true);
    Ok(HeaderMap::from_iter([(AUTHORIZATION, value)]))
}
