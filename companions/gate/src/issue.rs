//! The issue on GitHub of files that are let in.
//! <https://docs.github.com/en/rest/issues/issues>

use std::fmt::Write;

use blackwater_base::deadline::Deadline;
use blackwater_github::GitHub;
use blackwater_http::{Answer, Error as HttpError, Method};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::Error;
use crate::layout::{Place, filled};
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
    /// What its text has and that of no other upload.
    #[serde(skip)]
    mark: String,
}

impl Issue {
    /// The issue of an upload.
    #[must_use]
    pub fn of(rules: &rules::Issue, place: &Place, name: &str, files: &[File]) -> Self {
        // Between backquotes nothing else has a meaning.
        let quoted = |key: &str| format!("\n- `{}", key.replace('`', "'"));
        let kind = files.first().map_or("", |file| file.ems.as_str());
        let mut body = format!("EMS: {kind}\nFiles:");
        for (number, file) in files.iter().enumerate() {
            let line = quoted(&file.key) + "`";
            if body.chars().count() + line.chars().count() + 100 > MOST {
                let _ = write!(body, "\n- and {} more", files.len() - number);
                break;
            }
            body.push_str(&line);
        }
        let title = filled(&rules.title, &place.known(name), str::to_owned);
        Self { title, body, labels: rules.labels.clone(), mark: quoted(&format!("{}/", place.prefix)) }
    }

    fn comment(&self) -> String {
        format!("Updated\n{}", self.body)
    }
}

/// The issues of a repository.
pub(crate) struct Repository<'r> {
    pub(crate) github: GitHub,
    pub(crate) name: &'r str,
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
    state: String,
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
        if let Some(known) = known.filter(|known| known.number > 0)
            && self.is_open(known.number).await?
        {
            return self.change(issue, known).await;
        }
        let label = issue
            .labels
            .first()
            .map_or_else(String::new, |label| format!("&labels={}", utf8_percent_encode(label, NON_ALPHANUMERIC)));
        let is_it = |known: &Known| known.pull_request.is_none() && known.title == issue.title;
        let Some(open) = self.find(&format!("issues?state=open{label}&per_page=100"), "issues", is_it).await? else {
            return self.create(issue).await;
        };
        let issued = |comment| Issued { number: open.number, comment, url: open.html_url.clone() };
        // Of a run that ended before it could note that, perhaps with fewer files.
        let is_ours = |text: &Option<String>| text.as_ref().is_some_and(|text| text.contains(&issue.mark));
        if is_ours(&open.body) {
            return self.change(issue, &issued(None)).await;
        }
        let comments = format!("issues/{}/comments", open.number);
        let said =
            self.find(&format!("{comments}?per_page=100"), "comments", |said: &Comment| is_ours(&said.body)).await?;
        if let Some(comment) = said {
            return self.change(issue, &issued(Some(comment.id))).await;
        }
        let content = json!({ "body": issue.comment() });
        let comment: Comment = self.send(Method::POST, &comments, Some(content)).await?.json("a comment")?;
        Ok(issued(Some(comment.id)))
    }

    async fn create(&self, issue: &Issue) -> Result<Issued, HttpError> {
        let content = json!({ "title": issue.title, "body": issue.body, "labels": issue.labels });
        let made: Known = self.send(Method::POST, "issues", Some(content)).await?.json("an issue")?;
        let has = |label: &String| made.labels.iter().any(|known| known["name"] == **label);
        let missing: Vec<_> = issue.labels.iter().filter(|label| !has(label)).map(String::as_str).collect();
        if !missing.is_empty() {
            let (url, missing) = (&made.html_url, missing.join(", "));
            tracing::warn!("{url} has not got the labels {missing}: the token has no right to push to {}", self.name);
        }
        Ok(Issued { number: made.number, comment: None, url: made.html_url })
    }

    async fn change(&self, issue: &Issue, known: &Issued) -> Result<Issued, HttpError> {
        let (path, content) = match known.comment {
            None => (format!("issues/{}", known.number), json!({ "title": issue.title, "body": issue.body })),
            Some(comment) => (format!("issues/comments/{comment}"), json!({ "body": issue.comment() })),
        };
        self.send(Method::PATCH, &path, Some(content)).await?;
        Ok(known.clone())
    }

    /// Whether an issue is there and open. It may have been deleted, or moved to another repository.
    async fn is_open(&self, number: u64) -> Result<bool, HttpError> {
        match self.send(Method::GET, &format!("issues/{number}"), None).await {
            Ok(answer) => Ok(answer.json::<Known>("an issue")?.state == "open"),
            Err(error) if matches!(error.status().map(|status| status.as_u16()), Some(301 | 404 | 410)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The first of several pages' items that fits.
    async fn find<T: for<'de> Deserialize<'de>>(
        &self,
        path: &str,
        what: &'static str,
        fits: impl Fn(&T) -> bool,
    ) -> Result<Option<T>, HttpError> {
        let mut answer = self.send(Method::GET, path, None).await?;
        loop {
            if let Some(found) = answer.json::<Vec<T>>(what)?.into_iter().find(&fits) {
                return Ok(Some(found));
            }
            let Some(next) = self.github.after(&answer, self.deadline).await? else { return Ok(None) };
            answer = next;
        }
    }

    async fn send(&self, method: Method, path: &str, content: Option<Value>) -> Result<Answer, HttpError> {
        self.github.send(method, &format!("repos/{}/{path}", self.name), content, self.deadline).await
    }
}

/// That an issue cannot be raised, and what to do.
pub(crate) fn refused(prefix: &str, repository: &str, why: HttpError) -> Error {
    let remedy = match why.status().map(|status| status.as_u16()) {
        Some(401) => "Put a token that holds into the secret",
        Some(301 | 307 | 308 | 403 | 404) => {
            "See that issue.repository is right, and that its token may write its issues"
        }
        Some(410) => "Switch on the repository's issues",
        Some(422) => "See that the labels and the title are ones that GitHub takes",
        _ => "It is tried again with the next event, or by the sweep",
    };
    Error::Issue { prefix: prefix.into(), repository: repository.into(), why: Box::new(why), remedy }
}
