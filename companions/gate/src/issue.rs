//! The issue on GitHub of files that are let in.
//! <https://docs.github.com/en/rest/issues/issues>

use std::fmt::Write;

use blackwater_base::deadline::Deadline;
use blackwater_http::header::{ACCEPT, HeaderMap, HeaderValue};
use blackwater_http::{Answer, Error as HttpError, Http, Method, Url, authorization};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::Error;
use crate::layout::filled;
use crate::report::File;
use crate::rules;
use crate::state::Issued;

/// The most characters of an issue or a comment.
/// <https://github.com/orgs/community/discussions/27190>
const MOST: usize = 65_536;

/// An issue as it is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Issue {
    /// Its title.
    pub title: String,
    /// Its text.
    pub body: String,
    /// Its labels.
    pub labels: Vec<String>,
}

impl Issue {
    /// The issue of an upload.
    #[must_use]
    pub fn of(rules: &rules::Issue, names: &[(String, String)], files: &[File]) -> Self {
        let kind = files.first().map_or("", |file| file.ems.as_str());
        let mut body = format!("EMS: {kind}\nFiles:");
        for (number, file) in files.iter().enumerate() {
            // Between backquotes nothing else has a meaning.
            let line = format!("\n- `{}`", file.key.replace('`', "'"));
            if body.chars().count() + line.chars().count() + 100 > MOST {
                let _ = write!(body, "\n- and {} more", files.len() - number);
                break;
            }
            body.push_str(&line);
        }
        Self { title: filled(&rules.title, names, str::to_owned), body, labels: rules.labels.clone() }
    }

    fn comment(&self) -> String {
        format!("Updated\n{}", self.body)
    }
}

/// The issues of a repository.
pub(crate) struct Repository<'r> {
    pub(crate) http: &'r Http,
    pub(crate) api: &'r str,
    pub(crate) name: &'r str,
    pub(crate) token: &'r SecretString,
    pub(crate) deadline: Deadline,
}

/// An issue as GitHub has it.
#[derive(Deserialize)]
struct Known {
    number: u64,
    html_url: String,
    #[serde(default)]
    title: String,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    labels: Vec<Value>,
    /// It is a pull request, which GitHub lists among issues.
    #[serde(default)]
    pull_request: Option<Value>,
}

#[derive(Deserialize)]
struct Comment {
    id: u64,
    #[serde(default)]
    body: Option<String>,
}

impl Repository<'_> {
    /// Raises the issue of an upload. One that is known from other files of the upload says of these now. An open one with the same
    /// title, of another upload, gets a comment.
    pub(crate) async fn raise(&self, issue: &Issue, known: Option<&Issued>) -> Result<Issued, HttpError> {
        if let Some(known) = known.filter(|known| known.number > 0) {
            return self.change(issue, known).await;
        }
        let Some(open) = self.open(issue).await? else {
            let content = json!({ "title": issue.title, "body": issue.body, "labels": issue.labels });
            let made: Known = self.send(Method::POST, "issues", Some(content)).await?.json("an issue")?;
            let has =
                |label: &String| made.labels.iter().any(|known| known["name"] == **label || known == label.as_str());
            let missing: Vec<_> = issue.labels.iter().filter(|label| !has(label)).map(String::as_str).collect();
            if !missing.is_empty() {
                let missing = missing.join(", ");
                tracing::warn!(
                    "{} has not got the labels {missing}: the token has no right to push to {}",
                    made.html_url,
                    self.name
                );
            }
            return Ok(Issued { number: made.number, comment: None, url: made.html_url });
        };
        let issued = |comment| Issued { number: open.number, comment, url: open.html_url.clone() };
        // Made by a run that ended before it could say so.
        if open.body.as_deref() == Some(&issue.body) {
            return Ok(issued(None));
        }
        let comments = format!("issues/{}/comments", open.number);
        let said: Vec<Comment> = self.pages(&format!("{comments}?per_page=100"), "comments").await?;
        let text = issue.comment();
        if let Some(comment) = said.into_iter().find(|comment| comment.body.as_deref() == Some(&text)) {
            return Ok(issued(Some(comment.id)));
        }
        let content = json!({ "body": text });
        let comment: Comment = self.send(Method::POST, &comments, Some(content)).await?.json("a comment")?;
        Ok(issued(Some(comment.id)))
    }

    async fn change(&self, issue: &Issue, known: &Issued) -> Result<Issued, HttpError> {
        let (path, content) = match known.comment {
            None => (format!("issues/{}", known.number), json!({ "title": issue.title, "body": issue.body })),
            Some(comment) => (format!("issues/comments/{comment}"), json!({ "body": issue.comment() })),
        };
        self.send(Method::PATCH, &path, Some(content)).await?;
        Ok(known.clone())
    }

    /// The open issue with this title.
    async fn open(&self, issue: &Issue) -> Result<Option<Known>, HttpError> {
        let label = issue.labels.first().map_or_else(String::new, |label| {
            let label = percent_encoding::utf8_percent_encode(label, percent_encoding::NON_ALPHANUMERIC);
            format!("&labels={label}")
        });
        let all: Vec<Known> = self.pages(&format!("issues?state=open{label}&per_page=100"), "issues").await?;
        Ok(all.into_iter().find(|known| known.pull_request.is_none() && known.title == issue.title))
    }

    async fn pages<T: for<'de> Deserialize<'de>>(&self, path: &str, what: &'static str) -> Result<Vec<T>, HttpError> {
        let mut all = Vec::new();
        let mut answer = self.send(Method::GET, path, None).await?;
        loop {
            all.extend(answer.json::<Vec<T>>(what)?);
            // The token goes nowhere else.
            match answer.next().filter(|next| next.starts_with(self.api)) {
                Some(next) => answer = self.send_to(Method::GET, &next, None).await?,
                None => return Ok(all),
            }
        }
    }

    async fn send(&self, method: Method, path: &str, content: Option<Value>) -> Result<Answer, HttpError> {
        self.send_to(method, &format!("{}/repos/{}/{path}", self.api.trim_end_matches('/'), self.name), content).await
    }

    async fn send_to(&self, method: Method, url: &str, content: Option<Value>) -> Result<Answer, HttpError> {
        let url = Url::parse(url).map_err(|error| HttpError::Client(format!("{url}: {error}")))?;
        let mut headers: HeaderMap = authorization("Bearer", self.token)?;
        headers.insert(ACCEPT, HeaderValue::from_static("application/vnd.github+json"));
        headers.insert("x-github-api-version", HeaderValue::from_static("2022-11-28"));
        let mut request = self.http.request(method, url).headers(headers);
        if let Some(content) = content {
            request = request.header("content-type", "application/json").body(content.to_string());
        }
        self.http.send(request, self.deadline).await
    }
}

/// That an issue cannot be raised, and what to do.
pub(crate) fn refused(prefix: &str, repository: &str, why: HttpError) -> Error {
    let remedy = match why.status().map(|status| status.as_u16()) {
        Some(401) => "Put a token that holds into the secret",
        Some(403 | 404) => "See that issue.repository is right, and that its token may write its issues",
        Some(410) => "Switch on the repository's issues",
        Some(422) => "See that the labels and the title are ones that GitHub takes",
        _ => "It is tried again with the next event, or by the sweep",
    };
    Error::Issue { prefix: prefix.into(), repository: repository.into(), why: Box::new(why), remedy }
}
