//! GitHub, asked within its budget and in time.

use std::collections::BTreeMap;
use std::time::Duration;

use blackwater_base::deadline::Deadline;
use blackwater_base::secrets::Secrets;
use blackwater_github::GitHub;
use blackwater_http::{Answer, Error as HttpError, Http, StatusCode};
use chrono::{DateTime, TimeDelta, Utc};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config;
use crate::error::Error;

/// How often an issue that was transferred may have been transferred again.
const HOPS: usize = 10;

/// What is left of a budget, as GitHub's last answer said.
/// <https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api#checking-the-status-of-your-rate-limit>
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Budget {
    pub(crate) remaining: u64,
    pub(crate) reset: DateTime<Utc>,
}

/// What became of an issue that was asked for by itself.
pub(crate) enum Lookup {
    /// It is where it was.
    Found(Value),
    /// It is another one now, by way of other places: repository and number of each, where they are known.
    Transferred { hops: Vec<(i64, i64)>, to: Value },
    /// It is deleted, or nowhere that this token may read.
    Missing,
}

/// GitHub for a poll.
pub(crate) struct Account {
    github: GitHub,
    /// Where the token is from.
    place: String,
    reserve: u64,
    deadline: Deadline,
    /// Whether a budget that is spent is waited for.
    waits: bool,
    /// By resource.
    pub(crate) budgets: BTreeMap<String, Budget>,
    pub(crate) requests: u64,
    pub(crate) not_modified: u64,
}

#[derive(Deserialize)]
struct Login {
    #[serde(rename = "TOKEN_GITHUB")]
    token: SecretString,
}

impl Account {
    pub(crate) async fn open(
        config: &config::GitHub,
        http: &Http,
        secrets: &Secrets,
        deadline: Deadline,
        waits: bool,
    ) -> Result<Self, Error> {
        // It may have been put right since the last poll.
        secrets.forget().await;
        let (token, place) = match (&config.token, &config.secret) {
            (Some(token), _) => (token.clone(), "github.token".into()),
            (None, Some(secret)) => {
                let login: Login = secrets.json(secret, "{\"TOKEN_GITHUB\": \"…\"}").await?;
                (login.token, format!("the secret {secret}"))
            }
            (None, None) => {
                let why =
                    "not set: name the secret with the token, {\"TOKEN_GITHUB\": \"…\"}, or set github.token".into();
                return Err(Error::Setting { setting: "github.secret", why });
            }
        };
        Ok(Self {
            github: GitHub::new(http, &config.api, &token)?,
            place,
            reserve: config.reserve,
            deadline,
            waits,
            budgets: BTreeMap::new(),
            requests: 0,
            not_modified: 0,
        })
    }

    /// What is at a path, or was moved from there; `None` if it still has this ETag.
    pub(crate) async fn get(&mut self, path: &str, etag: Option<&str>) -> Result<Option<Answer>, Error> {
        self.turn(path).await?;
        let answer = self.github.get_unless(path, etag, self.deadline).await;
        self.taken(path, answer).map(changed)
    }

    /// What is at a path itself; the answer's status is 304 if it still has this ETag. An answer that it is elsewhere is an error.
    pub(crate) async fn get_here(&mut self, path: &str, etag: Option<&str>) -> Result<Answer, Error> {
        self.turn(path).await?;
        let answer = self.github.get_here(path, etag, self.deadline).await;
        self.taken(path, answer)
    }

    /// The rows of all pages of a list.
    pub(crate) async fn list(&mut self, path: &str) -> Result<Vec<Value>, Error> {
        let (mut rows, mut next) = (Vec::new(), Some(path.to_owned()));
        while let Some(path) = next {
            let Some(answer) = self.get(&path, None).await? else { break };
            rows.extend(array(&answer)?);
            next = self.next(&answer)?;
        }
        Ok(rows)
    }

    /// The repositories of an organization, as GitHub lists them.
    pub(crate) async fn repositories(&mut self, organization: &str) -> Result<Vec<Value>, Error> {
        let listed = self.list(&format!("orgs/{organization}/repos?per_page=100&sort=created&direction=asc")).await;
        listed.map_err(|error| match error {
            Error::Http(error) if error.status() == Some(StatusCode::NOT_FOUND) => {
                Error::Organization { organization: organization.into(), why: error.to_string() }
            }
            error => error,
        })
    }

    /// The members of an organization, as GitHub lists them.
    pub(crate) async fn members(&mut self, organization: &str) -> Result<Vec<Value>, Error> {
        self.list(&format!("orgs/{organization}/members?per_page=100")).await.map_err(|error| match error {
            Error::Http(error) if error.status().is_some_and(|status| status.is_client_error()) => {
                Error::Members { organization: organization.into(), why: error.to_string() }
            }
            error => error,
        })
    }

    /// The path of the page after this one, if there is one.
    pub(crate) fn next(&self, page: &Answer) -> Result<Option<String>, Error> {
        Ok(self.github.next_path(page)?)
    }

    /// What became of an issue: of this id, at `path`, as `repos/acme/shop/issues/5`.
    pub(crate) async fn look_up(&mut self, path: &str, id: i64) -> Result<Lookup, Error> {
        let (mut path, mut hops) = (path.to_owned(), Vec::new());
        for _ in 0..HOPS {
            match self.get_here(&path, None).await {
                Ok(answer) => {
                    let body = cleaned(answer.json("an issue")?);
                    let is_same = body["id"].as_i64() == Some(id);
                    return match is_same || hops.is_empty() {
                        true if is_same => Ok(Lookup::Found(body)),
                        true => Err(HttpError::Client(format!("{path} is another issue than before")).into()),
                        false => Ok(Lookup::Transferred { hops, to: body }),
                    };
                }
                Err(Error::Http(HttpError::Elsewhere { to, request, status })) => match self.github.path_of(&to) {
                    Some(other) => {
                        hops.extend(place_of(&other));
                        path = other;
                    }
                    None => return Err(HttpError::Elsewhere { to, request, status }.into()),
                },
                Err(Error::Http(error)) => match error.status() {
                    Some(StatusCode::NOT_FOUND | StatusCode::GONE) => return Ok(Lookup::Missing),
                    _ => return Err(error.into()),
                },
                Err(error) => return Err(error),
            }
        }
        Err(HttpError::Client(format!("{path} leads from one place to another without an end")).into())
    }

    /// Whether there is no time left.
    pub(crate) fn is_late(&self) -> bool {
        self.deadline.left().is_some_and(|left| left.is_zero())
    }

    /// Waits until a request may be sent, or says that it may not.
    async fn turn(&mut self, path: &str) -> Result<(), Error> {
        if self.is_late() {
            return Err(Error::Late { why: path.into() });
        }
        let (resource, reserve) = if path.starts_with("search/") { ("search", 0) } else { ("core", self.reserve) };
        let Some(&Budget { remaining, reset }) = self.budgets.get(resource) else { return Ok(()) };
        let wait = (reset - Utc::now()).to_std().unwrap_or_default();
        if remaining > reserve || wait.is_zero() {
            return Ok(());
        }
        // A search's budget is of a minute.
        let waits = self.waits || resource == "search";
        let wait = wait + Duration::from_secs(1);
        if !waits || self.deadline.left().is_some_and(|left| left < wait) {
            return Err(Error::Spent { resource, remaining, reset, reserve });
        }
        let until = Utc::now() + wait;
        tracing::info!(
            "waiting until {} for GitHub's {resource} limit; it is safe to interrupt",
            until.format("%H:%M UTC")
        );
        tokio::time::sleep(wait).await;
        self.budgets.remove(resource);
        Ok(())
    }

    fn taken(&mut self, path: &str, answer: Result<Answer, HttpError>) -> Result<Answer, Error> {
        self.requests += 1;
        let answer = answer.map_err(|error| self.explained(error))?;
        let header = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok());
        let number = |name: &str| header(name).and_then(|value| value.trim().parse::<i64>().ok());
        if let (Some(remaining), Some(reset)) = (number("x-ratelimit-remaining"), number("x-ratelimit-reset")) {
            let resource = header("x-ratelimit-resource").unwrap_or("core").to_owned();
            // By this machine's clock, which may differ from GitHub's.
            let there = header("date").and_then(|date| DateTime::parse_from_rfc2822(date).ok());
            let ahead = there.map_or(TimeDelta::zero(), |there| Utc::now() - there.to_utc());
            let reset = DateTime::from_timestamp(reset, 0).unwrap_or_default() + ahead;
            self.budgets.insert(resource, Budget { remaining: remaining.max(0).unsigned_abs(), reset });
        }
        if header("x-github-sso").is_some_and(|said| said.contains("partial-results")) {
            return Err(Error::Partial { path: path.into() });
        }
        if answer.status == StatusCode::NOT_MODIFIED {
            self.not_modified += 1;
        }
        Ok(answer)
    }

    fn explained(&self, error: HttpError) -> Error {
        if error.is_late() {
            return Error::Late { why: error.to_string() };
        }
        if matches!(error, HttpError::NoAnswer { .. }) {
            return Error::Unreachable { why: error.to_string() };
        }
        match error.status() {
            Some(StatusCode::UNAUTHORIZED) => Error::Token { why: error.to_string(), place: self.place.clone() },
            _ => error.into(),
        }
    }
}

/// An answer, unless it is that there is nothing new.
fn changed(answer: Answer) -> Option<Answer> {
    (answer.status != StatusCode::NOT_MODIFIED).then_some(answer)
}

/// The rows of a page.
pub(crate) fn array(answer: &Answer) -> Result<Vec<Value>, Error> {
    let rows: Vec<Value> = answer.json("a list")?;
    Ok(rows.into_iter().map(cleaned).collect())
}

/// A value without the character NUL, which Postgres takes in no text: U+FFFD stands in its place.
pub(crate) fn cleaned(mut value: Value) -> Value {
    fn clean(value: &mut Value) {
        match value {
            Value::String(text) if text.contains('\0') => *text = text.replace('\0', "\u{fffd}"),
            Value::Array(items) => items.iter_mut().for_each(clean),
            Value::Object(members) => members.values_mut().for_each(clean),
            _ => {}
        }
    }
    clean(&mut value);
    value
}

/// The repository and the number in `repositories/7/issues/5`.
fn place_of(path: &str) -> Option<(i64, i64)> {
    let mut parts = path.strip_prefix("repositories/")?.split('/');
    let repository = parts.next()?.parse().ok()?;
    let number = parts.next().filter(|part| *part == "issues").and_then(|_| parts.next())?;
    Some((repository, number.split('?').next()?.parse().ok()?))
}
