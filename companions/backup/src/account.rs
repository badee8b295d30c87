//! The account that is backed up: its token, where it is kept, and its repositories.

use blackwater_base::deadline::Deadline;
use blackwater_base::secrets::Secrets;
use blackwater_base::settings::fits;
use blackwater_base::store::{Client, Store};
use blackwater_github::GitHub;
use blackwater_http::{Answer, Error as HttpError, Http};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

use crate::config::Config;
use crate::error::Error;
use crate::git::Git;

/// The most pages of issues of the whole account; beyond, each repository is asked.
const PAGES: usize = 50;

/// The account that is backed up.
pub(crate) struct Account {
    pub(crate) github: GitHub,
    pub(crate) git: Git,
    pub(crate) store: Store,
    /// What all keys begin with: empty, or with a slash at its end.
    pub(crate) prefix: String,
    only_owner: bool,
}

/// What the secret has; all but the token is what the original kept there.
#[derive(Deserialize)]
struct Login {
    #[serde(rename = "TOKEN_GITHUB")]
    token: SecretString,
    #[serde(default, rename = "BACKUP_S3_BUCKET")]
    bucket: Option<String>,
    #[serde(default, rename = "BACKUP_S3_PREFIX")]
    prefix: Option<String>,
    #[serde(default, rename = "BACKUP_ONLY_OWNER_REPOS")]
    only_owner: Option<Value>,
}

impl Login {
    fn of(token: SecretString) -> Self {
        Self { token, bucket: None, prefix: None, only_owner: None }
    }
}

/// A repository as GitHub lists it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Its number, which a rename keeps.
    pub id: u64,
    /// Owner and name.
    pub full_name: String,
    /// Whether it is private.
    #[serde(default)]
    pub private: bool,
    /// Its default branch.
    #[serde(default)]
    pub default_branch: Option<String>,
    /// When its branches were pushed to.
    #[serde(default)]
    pub pushed_at: Option<String>,
    /// When it was changed otherwise.
    #[serde(default)]
    pub updated_at: Option<String>,
    /// Its size in KB, as GitHub counted it a while ago.
    #[serde(default)]
    pub size: u64,
    /// Whether it may have a wiki.
    #[serde(default)]
    pub has_wiki: bool,
    /// Whether it has issues.
    #[serde(default)]
    pub has_issues: bool,
    #[serde(default, skip_serializing)]
    pub(crate) owner: Owner,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Owner {
    #[serde(default)]
    pub(crate) login: String,
}

/// All repositories that the token sees, and which of them are to be backed up.
pub(crate) struct Repositories {
    pub(crate) all: BTreeSet<u64>,
    pub(crate) wanted: Vec<Listed>,
    /// Who has the token.
    pub(crate) login: String,
    /// What GitHub says that it leaves out.
    pub(crate) lacks: Vec<String>,
}

/// What becomes of a repository that is not listed.
pub(crate) enum Presence {
    /// It is there all the same.
    There(Box<Listed>),
    /// It is not, or is not to be seen.
    Gone,
    /// It may not be seen now.
    Refused(HttpError),
}

impl Account {
    /// The account of these settings; the secret is asked for anew.
    pub(crate) async fn open(config: &Config, client: &Client, http: &Http, secrets: &Secrets) -> Result<Self, Error> {
        // It may have been put right since the last run.
        secrets.forget().await;
        let login = match (&config.token, &config.secret) {
            (Some(token), _) => Login::of(token.clone()),
            (None, Some(secret)) => secrets.json(secret, "{\"TOKEN_GITHUB\": \"…\"}").await?,
            (None, None) => {
                let why = "not set: name the secret with the token, {\"TOKEN_GITHUB\": \"…\"}, or set token".into();
                return Err(Error::Setting { setting: "secret", why });
            }
        };
        Self::with(config, client, http, login)
    }

    /// Where backups are. Without a token, if the settings name the bucket: what is kept can be read when GitHub and the secret are
    /// lost.
    pub(crate) async fn place(config: &Config, client: &Client, http: &Http, secrets: &Secrets) -> Result<Self, Error> {
        match config.bucket.is_some() && (config.prefix.is_some() || config.secret.is_none()) {
            true => Self::with(config, client, http, Login::of("none".to_owned().into())),
            false => Self::open(config, client, http, secrets).await,
        }
    }

    fn with(config: &Config, client: &Client, http: &Http, login: Login) -> Result<Self, Error> {
        // As it is copied into a secret, a line may end after it.
        let token = SecretString::from(login.token.expose_secret().trim());
        let bucket = config.bucket.clone().or(login.bucket).filter(|bucket| !bucket.is_empty());
        let unnamed = || Error::Setting { setting: "bucket", why: "not set, neither here nor in the secret".into() };
        let bucket = bucket.ok_or_else(unnamed)?;
        let prefix = config.prefix.clone().or(login.prefix).unwrap_or_default();
        let prefix = prefix.trim_matches('/');
        let only_owner = config.only_owner.map_or_else(|| only_owner(login.only_owner.as_ref()), Ok)?;
        Ok(Self {
            github: GitHub::new(http, &config.api, &token)?.at_most(config.calls_per_minute),
            git: Git::new(http, &config.git, &token)?,
            store: Store::new(client.clone(), &bucket, "bucket"),
            prefix: if prefix.is_empty() { String::new() } else { format!("{prefix}/") },
            only_owner,
        })
    }

    /// A key in the bucket.
    pub(crate) fn key(&self, rest: &str) -> String {
        format!("{}{rest}", self.prefix)
    }

    /// The bucket and the prefix, for messages.
    pub(crate) fn address(&self) -> String {
        format!("{}/{}", self.store.bucket(), self.prefix)
    }

    /// Who has the token, and what GitHub says of it.
    pub(crate) async fn user(&self, deadline: Deadline) -> Result<(String, Answer), Error> {
        #[derive(Deserialize)]
        struct User {
            login: String,
        }
        let answer = self.github.get("user", deadline).await.map_err(unlisted)?;
        let User { login } = answer.json("a user").map_err(unlisted)?;
        Ok((login, answer))
    }

    /// All repositories that the token sees.
    /// <https://docs.github.com/en/rest/repos/repos#list-repositories-for-the-authenticated-user>
    pub(crate) async fn repositories(&self, config: &Config, deadline: Deadline) -> Result<Repositories, Error> {
        let (login, _) = self.user(deadline).await?;
        let path = "user/repos?affiliation=owner,collaborator,organization_member&visibility=all&sort=created&direction=asc&per_page=100";
        let mut page = Some(self.github.get(path, deadline).await.map_err(unlisted)?);
        let (mut listed, mut lacks) = (BTreeMap::new(), Vec::new());
        while let Some(answer) = page {
            for one in answer.json::<Vec<Listed>>("repositories").map_err(unlisted)? {
                listed.insert(one.id, one);
            }
            // <https://docs.github.com/en/rest/authentication/authenticating-to-the-rest-api#authenticating-with-saml-sso>
            if lacks.is_empty()
                && answer.headers.get("x-github-sso").is_some_and(|sso| sso.as_bytes().starts_with(b"partial"))
            {
                lacks.push(
                    "GitHub leaves out repositories of organizations with single sign-on: authorize the token for them"
                        .into(),
                );
            }
            page = self.github.after(&answer, deadline).await.map_err(unlisted)?;
        }
        let all = listed.keys().copied().collect();
        for pattern in &config.include {
            if !listed.values().any(|one| fits(&pattern.to_lowercase(), &one.full_name.to_lowercase())) {
                lacks.push(format!("include: {pattern} matches no repository that the token sees"));
            }
        }
        let mut wanted: Vec<_> = listed.into_values().filter(|one| self.is_wanted(config, &login, one)).collect();
        wanted.sort_by(|one, other| one.full_name.cmp(&other.full_name));
        Ok(Repositories { all, wanted, login, lacks })
    }

    /// Whether the settings let a repository be backed up.
    pub(crate) fn is_wanted(&self, config: &Config, login: &str, one: &Listed) -> bool {
        let name = one.full_name.to_lowercase();
        let is_one_of = |patterns: &[String]| patterns.iter().any(|pattern| fits(&pattern.to_lowercase(), &name));
        let is_ours = !self.only_owner || one.owner.login.eq_ignore_ascii_case(login);
        is_ours && is_one_of(&config.include) && !is_one_of(&config.exclude)
    }

    /// The repositories in which an issue or a pull request was changed since a time, and when last; `None` if they are many. One
    /// question for all of them, in place of one for each.
    /// <https://docs.github.com/en/rest/issues/issues#list-issues-assigned-to-the-authenticated-user>
    pub(crate) async fn with_news(
        &self,
        since: &str,
        deadline: Deadline,
    ) -> Result<Option<BTreeMap<u64, String>>, HttpError> {
        #[derive(Deserialize)]
        struct Issue {
            repository: Repository,
            updated_at: String,
        }
        #[derive(Deserialize)]
        struct Repository {
            id: u64,
        }
        let path = format!("issues?filter=all&state=all&since={since}&per_page=100");
        let mut found: BTreeMap<u64, String> = BTreeMap::new();
        let mut page = Some(self.github.get(&path, deadline).await?);
        for _ in 0..PAGES {
            let Some(answer) = page else { return Ok(Some(found)) };
            for issue in answer.json::<Vec<Issue>>("issues")? {
                let last = found.entry(issue.repository.id).or_default();
                *last = issue.updated_at.max(std::mem::take(last));
            }
            page = self.github.after(&answer, deadline).await?;
        }
        Ok(page.is_none().then_some(found))
    }

    /// Looks for a repository that is not listed: one that is deleted while pages are read hides another.
    pub(crate) async fn look_for(&self, id: u64, deadline: Deadline) -> Presence {
        match self.github.get(&format!("repositories/{id}"), deadline).await {
            Ok(answer) => answer.json("a repository").map_or_else(Presence::Refused, Presence::There),
            Err(error) if matches!(error.status().map(|status| status.as_u16()), Some(404 | 410)) => Presence::Gone,
            Err(error) => Presence::Refused(error),
        }
    }
}

/// The original's switch, in any case.
fn only_owner(value: Option<&Value>) -> Result<bool, Error> {
    let text = match value {
        None => return Ok(false),
        Some(Value::Bool(value)) => return Ok(*value),
        Some(value) => value.as_str().unwrap_or_default().to_lowercase(),
    };
    match text.as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(Error::Setting {
            setting: "BACKUP_ONLY_OWNER_REPOS in the secret",
            why: "neither true nor false".into(),
        }),
    }
}

fn unlisted(why: HttpError) -> Error {
    let remedy = match why.status().map(|status| status.as_u16()) {
        Some(401) => "Put a valid token into the secret; this one may have expired",
        Some(403 | 404) => "Give the token the right to read repositories: the scope repo, or Metadata and Contents",
        _ => "The next run tries again",
    };
    Error::List { why: Box::new(why), remedy }
}
