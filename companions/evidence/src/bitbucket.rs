//! Bitbucket Cloud's API, version 2.0.
//! <https://developer.atlassian.com/cloud/bitbucket/rest/intro/>

use std::collections::BTreeSet;

use blackwater_base::deadline::Deadline;
use blackwater_base::secrets::Secrets;
use blackwater_http::{Answer, Error as HttpError, Http, Method, StatusCode, Url, authorization};
use chrono::{DateTime, FixedOffset, SecondsFormat, Utc};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Mutex;

use crate::config;
use crate::error::Error;
use crate::people::Identity;

/// How often a page is asked for whose answer is broken.
const TRIES: u32 = 3;
const FORM: &str = "{\"access_token\": \"…\"}, or {\"key\": \"…\", \"secret\": \"…\"} of a private consumer";

/// A client of the API.
#[derive(Debug)]
pub(crate) struct Bitbucket<'c> {
    config: &'c config::Bitbucket,
    http: &'c Http,
    secrets: &'c Secrets,
    deadline: Deadline,
    token: Mutex<Option<SecretString>>,
}

/// A page of a list. Members that are null or missing are left out.
#[derive(Debug, Deserialize)]
pub(crate) struct Page {
    #[serde(default)]
    pub(crate) values: Vec<Value>,
    pub(crate) next: Option<String>,
}

/// A commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Commit {
    pub(crate) hash: String,
    pub(crate) date: Option<DateTime<FixedOffset>>,
    pub(crate) author: Identity,
    pub(crate) message: String,
}

impl Commit {
    /// As the API has it; `None` if it has no hash.
    pub(crate) fn of(value: &Value) -> Option<Self> {
        Some(Self {
            hash: value["hash"].as_str()?.to_owned(),
            date: date(&value["date"]),
            author: Identity {
                raw: value["author"]["raw"].as_str().unwrap_or_default().to_owned(),
                accounts: accounts(&value["author"]["user"]),
            },
            message: value["message"].as_str().unwrap_or_default().to_owned(),
        })
    }
}

/// A pull request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pull {
    pub(crate) id: u64,
    pub(crate) title: String,
    pub(crate) author: Identity,
    /// The hash of its merge commit, perhaps shortened.
    pub(crate) merged_as: Option<String>,
    /// Who approved it, and when.
    pub(crate) approvals: Vec<(Identity, DateTime<FixedOffset>)>,
}

impl Pull {
    /// As the API has it; `None` if it has no number.
    pub(crate) fn of(value: &Value) -> Option<Self> {
        let participants = value["participants"].as_array().into_iter().flatten();
        let approval = |participant: &Value| {
            let has_approved = participant["approved"] == true;
            Some((person(&participant["user"]), date(&participant["participated_on"]).filter(|_| has_approved)?))
        };
        Some(Self {
            id: value["id"].as_u64()?,
            title: value["title"].as_str().unwrap_or_default().to_owned(),
            author: person(&value["author"]),
            merged_as: value["merge_commit"]["hash"].as_str().map(str::to_owned),
            approvals: participants.filter_map(approval).collect(),
        })
    }
}

/// An account, with the name that it shows.
fn person(user: &Value) -> Identity {
    Identity { raw: user["display_name"].as_str().unwrap_or_default().to_owned(), accounts: accounts(user) }
}

fn accounts(user: &Value) -> Vec<String> {
    ["account_id", "uuid"].iter().filter_map(|name| Some(user[name].as_str()?.to_owned())).collect()
}

fn date(value: &Value) -> Option<DateTime<FixedOffset>> {
    DateTime::parse_from_rfc3339(value.as_str()?).ok()
}

impl<'c> Bitbucket<'c> {
    pub(crate) fn new(config: &'c config::Bitbucket, http: &'c Http, secrets: &'c Secrets, deadline: Deadline) -> Self {
        Self { config, http, secrets, deadline, token: Mutex::default() }
    }

    /// The repositories of the settings, those of whole workspaces by name.
    pub(crate) async fn repositories(&self) -> Result<Vec<String>, Error> {
        self.login().await.map_err(|why| failed("anything", why))?;
        let mut all = Vec::new();
        for repository in &self.config.repositories {
            let Some(workspace) = repository.strip_suffix("/*") else {
                all.push(repository.clone());
                continue;
            };
            let first = format!("{}/repositories/{workspace}?pagelen=100", self.config.api);
            let found = self.values(repository, first).await?;
            all.extend(found.iter().filter_map(|found| Some(found["full_name"].as_str()?.to_owned())));
        }
        let mut known = BTreeSet::new();
        all.retain(|repository| known.insert(repository.to_lowercase()));
        Ok(all)
    }

    /// The first page of a repository's commits, newest first as far as their order goes, without those that these lead to.
    pub(crate) fn commits(&self, repository: &str, exclude: &[String]) -> String {
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("pagelen", "100")
            .extend_pairs(exclude.iter().map(|head| ("exclude", head)))
            .finish();
        format!("{}/repositories/{repository}/commits?{query}", self.config.api)
    }

    /// The first pages of a repository's branches and tags.
    pub(crate) fn refs(&self, repository: &str) -> [String; 2] {
        ["branches", "tags"]
            .map(|kind| format!("{}/repositories/{repository}/refs/{kind}?pagelen=100", self.config.api))
    }

    /// The first page of the pull requests that something happened to since then.
    pub(crate) fn pulls(&self, repository: &str, since: DateTime<Utc>) -> String {
        let since = since.to_rfc3339_opts(SecondsFormat::Secs, true);
        let query = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(["MERGED", "OPEN", "DECLINED", "SUPERSEDED"].map(|state| ("state", state)))
            .append_pair("q", &format!("updated_on>={since}"))
            // It does not change while pages are read.
            .append_pair("sort", "created_on")
            .append_pair("pagelen", "50")
            .append_pair("fields", "+values.participants")
            .finish();
        format!("{}/repositories/{repository}/pullrequests?{query}", self.config.api)
    }

    /// What is on all pages of a short list.
    pub(crate) async fn values(&self, repository: &str, first: String) -> Result<Vec<Value>, Error> {
        let (mut all, mut next, mut seen) = (Vec::new(), Some(first), BTreeSet::new());
        while let Some(url) = next {
            let page = self.page(&url).await.map_err(|why| failed(repository, why))?;
            all.extend(page.values);
            if !seen.insert(url) {
                return Err(Error::Repeats { repository: repository.into() });
            }
            next = page.next;
        }
        Ok(all)
    }

    /// A page. A token that is refused is asked for once more.
    pub(crate) async fn page(&self, url: &str) -> Result<Page, HttpError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let found = match self.get(url).await {
                Err(error) if error.status() == Some(StatusCode::UNAUTHORIZED) && tries < TRIES => {
                    *self.token.lock().await = None;
                    self.secrets.forget().await;
                    continue;
                }
                found => found.and_then(|answer| answer.json("a page")),
            };
            match found {
                Err(HttpError::Form { .. }) if tries < TRIES => {}
                found => return found,
            }
        }
    }

    async fn get(&self, url: &str) -> Result<Answer, HttpError> {
        let parsed = |url: &str| Url::parse(url).map_err(|error| HttpError::Client(format!("{url}: {error}")));
        let url = parsed(url)?;
        // The token goes nowhere else.
        if url.origin() != parsed(&self.config.api)?.origin() {
            return Err(HttpError::Client(format!("the next page is not at {}, but at {url}", self.config.api)));
        }
        let token = self.login().await?;
        let request = self.http.request(Method::GET, url).headers(authorization("Bearer", &token)?);
        self.http.send(request, self.deadline).await
    }

    /// The token, or a new one of the consumer's.
    async fn login(&self) -> Result<SecretString, HttpError> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Login {
            Token { access_token: SecretString },
            Consumer { key: String, secret: SecretString },
        }
        #[derive(Deserialize)]
        struct Granted {
            access_token: SecretString,
        }
        let mut known = self.token.lock().await;
        if let Some(token) = &*known {
            return Ok(token.clone());
        }
        let login = match (&self.config.token, &self.config.secret) {
            // The token itself, or what the secret would have.
            (Some(token), _) => serde_json::from_str(token.expose_secret())
                .unwrap_or_else(|_| Login::Token { access_token: token.clone() }),
            (None, Some(secret)) => {
                let found = self.secrets.json(secret, FORM).await;
                found.map_err(|error| HttpError::Client(error.to_string().replace('\n', ". ")))?
            }
            (None, None) => {
                return Err(HttpError::Client("neither bitbucket.token nor bitbucket.secret is set".into()));
            }
        };
        let token = match login {
            Login::Token { access_token } => access_token,
            Login::Consumer { key, secret } => {
                let url = Url::parse(&self.config.login)
                    .map_err(|error| HttpError::Client(format!("bitbucket.login: {error}")))?;
                let request = self.http.request(Method::POST, url).basic_auth(key, Some(secret.expose_secret()));
                let request = request.header("content-type", "application/x-www-form-urlencoded");
                let answer = self.http.send(request.body("grant_type=client_credentials"), self.deadline).await;
                // Its status says nothing of a repository.
                let failed = |error: HttpError| {
                    if error.may_pass() { error } else { HttpError::Client(format!("cannot log in: {error}")) }
                };
                answer.map_err(failed)?.json::<Granted>("a token")?.access_token
            }
        };
        Ok(known.insert(token).clone())
    }
}

/// That something cannot be read, and what to do.
pub(crate) fn failed(repository: &str, why: HttpError) -> Error {
    let remedy = match why.status().map(|status| status.as_u16()) {
        Some(401) => "Put a token that holds into the secret",
        Some(403) => "Give the token the scopes repository and pullrequest",
        Some(301 | 307 | 308 | 404) => "Correct bitbucket.repositories, or let the token see it",
        None if matches!(why, HttpError::Client(_)) => "See that the login is right",
        _ => "The next run goes on from there",
    };
    Error::Bitbucket { repository: repository.into(), why: Box::new(why), remedy }
}
