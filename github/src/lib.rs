//! GitHub's REST API: within its limits, page by page, with the token for it alone.
//! <https://docs.github.com/en/rest/using-the-rest-api>

use std::time::Duration;

use blackwater_base::deadline::Deadline;
use blackwater_http::header::{ACCEPT, HeaderMap, HeaderValue, IF_NONE_MATCH};
use blackwater_http::{Answer, Error, Http, Method, Place, Stream, Url, authorization};
use secrecy::SecretString;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// What a list and an object are asked for as.
const JSON: &str = "application/vnd.github+json";
/// How often an answer may say that what is asked for is elsewhere.
const HOPS: u32 = 5;
const MINUTE: Duration = Duration::from_secs(60);

/// GitHub, for who has a token.
#[derive(Debug)]
pub struct GitHub {
    http: Http,
    api: Url,
    token: HeaderMap,
    calls: Option<Calls>,
}

impl GitHub {
    /// The one at `api`, as `https://api.github.com`.
    ///
    /// # Errors
    /// If the address or the token cannot be used.
    pub fn new(http: &Http, api: &str, token: &SecretString) -> Result<Self, Error> {
        let api = parsed(api.trim_end_matches('/'))?;
        let mut token = authorization("Bearer", token)?;
        token.insert("x-github-api-version", HeaderValue::from_static("2022-11-28"));
        Ok(Self { http: http.clone(), api, token, calls: None })
    }

    /// The same, asked no oftener than this in a minute. A minute's calls may come at once.
    #[must_use]
    pub fn at_most(self, calls_per_minute: u32) -> Self {
        Self { calls: Some(Calls::new(calls_per_minute)), ..self }
    }

    /// What is at `path`, as `user/repos?per_page=100`, or where it was moved to.
    ///
    /// # Errors
    /// If it cannot be had, or is at another host.
    pub async fn get(&self, path: &str, deadline: Deadline) -> Result<Answer, Error> {
        self.get_unless(path, None, deadline).await
    }

    /// The same, unless it still has this ETag: then the answer's status is 304, which counts against no limit.
    /// <https://docs.github.com/en/rest/using-the-rest-api/best-practices-for-using-the-rest-api#use-conditional-requests-if-appropriate>
    ///
    /// # Errors
    /// If it cannot be had, or is at another host.
    pub async fn get_unless(&self, path: &str, etag: Option<&str>, deadline: Deadline) -> Result<Answer, Error> {
        let mut path = path.to_owned();
        for _ in 0..HOPS {
            match self.get_here(&path, etag, deadline).await {
                Err(Error::Elsewhere { to, status, request }) => match self.path_of(&to) {
                    Some(other) => path = other,
                    None => return Err(Error::Elsewhere { to, status, request }),
                },
                answer => return answer,
            }
        }
        Err(Error::Client(format!("{path} leads from one place to another without an end")))
    }

    /// What is at `path` itself, unless it still has this ETag.
    ///
    /// # Errors
    /// If it cannot be had, or was moved.
    pub async fn get_here(&self, path: &str, etag: Option<&str>, deadline: Deadline) -> Result<Answer, Error> {
        self.send_to(Method::GET, self.at(path)?, etag, None, deadline).await
    }

    /// What [`Self::get`] finds a place of this API by; `None` for a place elsewhere.
    #[must_use]
    pub fn path_of(&self, Place(url): &Place) -> Option<String> {
        let path = url.as_str().strip_prefix(self.api.as_str().trim_end_matches('/'))?;
        path.strip_prefix('/').filter(|_| self.is_here(url)).map(str::to_owned)
    }

    /// The page after this one, if there is one.
    ///
    /// # Errors
    /// If it cannot be had, or is at another host: the token goes nowhere else.
    pub async fn after(&self, page: &Answer, deadline: Deadline) -> Result<Option<Answer>, Error> {
        match self.next_path(page)? {
            Some(path) => self.get_here(&path, None, deadline).await.map(Some),
            None => Ok(None),
        }
    }

    /// What [`Self::get`] finds the page after this one by, if there is one.
    ///
    /// # Errors
    /// If it is at another host: the token goes nowhere else.
    pub fn next_path(&self, page: &Answer) -> Result<Option<String>, Error> {
        let Some(next) = page.next() else { return Ok(None) };
        let path = self.path_of(&Place(parsed(&next)?));
        path.map(Some).ok_or_else(|| Error::Client(format!("the next page is not at {}, but at {next}", self.api)))
    }

    /// Sends something to `path`.
    ///
    /// # Errors
    /// If it is refused, or something was moved.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        content: Option<Value>,
        deadline: Deadline,
    ) -> Result<Answer, Error> {
        self.send_to(method, self.at(path)?, None, content, deadline).await
    }

    /// A file at `path`, to be read as it comes. Other hosts, where it may be, get no token.
    ///
    /// # Errors
    /// If it cannot be had.
    pub async fn open(&self, path: &str, accept: &'static str, deadline: Deadline) -> Result<Stream, Error> {
        let mut url = self.at(path)?;
        for _ in 0..HOPS {
            let mut request = self.http.request(Method::GET, url.clone());
            if self.is_here(&url) {
                self.turn(deadline).await?;
                request = request.headers(self.token.clone()).header(ACCEPT, accept);
            }
            match self.http.open(request, deadline).await {
                Err(Error::Elsewhere { to, .. }) => url = to.0,
                answer => return answer,
            }
        }
        Err(Error::Client(format!("{path} leads from one place to another without an end")))
    }

    async fn send_to(
        &self,
        method: Method,
        url: Url,
        etag: Option<&str>,
        content: Option<Value>,
        deadline: Deadline,
    ) -> Result<Answer, Error> {
        self.turn(deadline).await?;
        let mut request = self.http.request(method, url).headers(self.token.clone()).header(ACCEPT, JSON);
        if let Some(etag) = etag {
            request = request.header(IF_NONE_MATCH, etag);
        }
        if let Some(content) = content {
            request = request.header("content-type", "application/json").body(content.to_string());
        }
        self.http.send(request, deadline).await
    }

    async fn turn(&self, deadline: Deadline) -> Result<(), Error> {
        match &self.calls {
            Some(calls) => calls.turn(deadline).await,
            None => Ok(()),
        }
    }

    fn at(&self, path: &str) -> Result<Url, Error> {
        parsed(&format!("{}/{path}", self.api.as_str().trim_end_matches('/')))
    }

    fn is_here(&self, url: &Url) -> bool {
        url.origin() == self.api.origin()
    }
}

/// Calls that wait for their turn.
#[derive(Debug)]
struct Calls {
    apart: Duration,
    next: Mutex<Instant>,
}

impl Calls {
    fn new(in_a_minute: u32) -> Self {
        let apart = MINUTE / in_a_minute.max(1);
        let now = Instant::now();
        Self { apart, next: Mutex::new(now.checked_sub(MINUTE).unwrap_or(now)) }
    }

    async fn turn(&self, deadline: Deadline) -> Result<(), Error> {
        let now = Instant::now();
        let mut next = self.next.lock().await;
        let earliest = now.checked_sub(MINUTE - self.apart).unwrap_or(now);
        let turn = (*next).max(earliest);
        if deadline.left().is_some_and(|left| turn > now + left) {
            return Err(Error::Late { request: "a call to GitHub, so many a minute as are allowed".into() });
        }
        *next = turn + self.apart;
        drop(next);
        sleep_until(turn).await;
        Ok(())
    }
}

fn parsed(url: &str) -> Result<Url, Error> {
    Url::parse(url).map_err(|error| Error::Client(format!("{url}: {error}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_minutes_calls_may_come_at_once_and_no_more() {
        tokio::time::advance(2 * MINUTE).await;
        let calls = Calls::new(30);
        let began = Instant::now();
        for _ in 0..30 {
            calls.turn(Deadline::NONE).await.unwrap();
        }
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        for _ in 0..30 {
            calls.turn(Deadline::NONE).await.unwrap();
        }
        let took = began.elapsed().as_secs();
        assert!((58..=61).contains(&took), "{took}");
    }
}
