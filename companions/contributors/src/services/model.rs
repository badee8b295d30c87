//! The model of an organization.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value, json};

use super::TOKEN;

/// Where the clock stands at first: 2026-01-05T09:00:00Z.
const BEGIN: DateTime<Utc> = DateTime::from_timestamp(1_767_603_600, 0).expect("a time");

/// How many reactions there are of each kind, as `+1` or `heart`.
pub type Reactions = BTreeMap<String, u64>;

/// What GitHub knows of an organization, and how it answers.
#[derive(Debug)]
pub struct Model {
    /// The address of the API.
    pub origin: String,
    /// The token that is accepted. ETags differ between tokens.
    pub token: String,
    /// The time at which changes happen.
    pub now: DateTime<Utc>,
    /// The login of the organization.
    pub organization: String,
    /// The id of the organization.
    pub organization_id: u64,
    /// All accounts by id, also deleted ones.
    pub people: BTreeMap<u64, Person>,
    /// The ids of the organization's members.
    pub members: BTreeSet<u64>,
    /// All repositories by id, also removed ones.
    pub repositories: BTreeMap<u64, Repository>,
    /// The budget of all requests but searches.
    pub core: Budget,
    /// The budget of searches.
    pub search: Budget,
    /// How many of the next searches answer that their results are incomplete.
    pub lists_incomplete: u32,
    /// Whether lists of issues link to their next page by a cursor, and not to the last page, as GitHub does since 2025.
    /// <https://github.com/google/go-github/issues/3565>
    pub has_cursors: bool,
    /// Whether an answer 304 has the links to other pages.
    pub has_links_on_304: bool,
    /// The requests so far.
    pub requests: Vec<Logged>,
    /// What requests lacked that GitHub's documentation asks for.
    pub faults: Vec<String>,
    /// What is answered instead. The first that fits a request is used.
    pub instead: Vec<Instead>,
    pub(super) hooks: Vec<Hook>,
    ids: u64,
    small_ids: u64,
}

/// An account.
#[derive(Clone, Debug)]
pub struct Person {
    /// Its id, which stays.
    pub id: u64,
    /// Its login, which may change.
    pub login: String,
    /// What it is.
    pub kind: AccountKind,
    /// The address of its picture.
    pub avatar_url: String,
    /// Whether it was deleted. GitHub shows `null` where it was.
    pub is_deleted: bool,
}

/// What an account is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountKind {
    /// A person.
    User,
    /// An app.
    Bot,
    /// An organization.
    Organization,
}

impl AccountKind {
    /// Its name in answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "User",
            Self::Bot => "Bot",
            Self::Organization => "Organization",
        }
    }
}

/// A repository.
#[derive(Clone, Debug)]
pub struct Repository {
    /// Its id, which stays.
    pub id: u64,
    /// Its name without the organization.
    pub name: String,
    /// The earlier names that still lead to it.
    pub former_names: Vec<String>,
    /// Whether it is archived.
    pub is_archived: bool,
    /// Whether it is private.
    pub is_private: bool,
    /// Whether the token may not see it.
    pub is_unreadable: bool,
    /// Whether it was removed.
    pub is_removed: bool,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// Its issues and pull requests by number, also deleted and transferred ones.
    pub issues: BTreeMap<u64, Issue>,
    /// Its labels by id.
    pub labels: BTreeMap<u64, Label>,
    /// Its milestones by number.
    pub milestones: BTreeMap<u64, Milestone>,
}

impl Repository {
    /// Whether answers show it.
    #[must_use]
    pub fn is_visible(&self) -> bool {
        !self.is_removed && !self.is_unreadable
    }

    /// The issues and pull requests that were neither deleted nor transferred, by number.
    pub fn present(&self) -> impl Iterator<Item = &Issue> {
        self.issues.values().filter(|issue| issue.gone.is_none())
    }

    /// The label with this name.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&Label> {
        self.labels.values().find(|label| label.name.eq_ignore_ascii_case(name))
    }
}

/// A label of a repository.
#[derive(Clone, Debug)]
pub struct Label {
    /// Its id, which stays.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Its color, as `d73a4a`.
    pub color: String,
    /// What it means.
    pub description: Option<String>,
}

/// A milestone of a repository.
#[derive(Clone, Debug)]
pub struct Milestone {
    /// Its id.
    pub id: u64,
    /// Its number in the repository.
    pub number: u64,
    /// Its title.
    pub title: String,
    /// When it was created.
    pub created_at: DateTime<Utc>,
}

/// An issue or a pull request.
#[derive(Clone, Debug)]
pub struct Issue {
    /// Its id; a transfer gives it another one.
    pub id: u64,
    /// Its number in the repository.
    pub number: u64,
    /// Its title.
    pub title: String,
    /// Its text.
    pub body: Option<String>,
    /// The account that opened it.
    pub author: u64,
    /// Whether it is open.
    pub is_open: bool,
    /// Why an issue is closed, or `reopened`; never set for a pull request.
    pub state_reason: Option<String>,
    /// The account that closed it.
    pub closed_by: Option<u64>,
    /// When it was opened. A transfer leaves it.
    pub created_at: DateTime<Utc>,
    /// When it was changed last.
    pub updated_at: DateTime<Utc>,
    /// When it was closed.
    pub closed_at: Option<DateTime<Utc>>,
    /// The ids of its labels, in the order in which they were added.
    pub labels: Vec<u64>,
    /// The ids of its assignees.
    pub assignees: Vec<u64>,
    /// The number of its milestone.
    pub milestone: Option<u64>,
    /// Whether its conversation is locked.
    pub is_locked: bool,
    /// Why its conversation is locked.
    pub lock_reason: Option<String>,
    /// The reactions to its text.
    pub reactions: Reactions,
    /// What only a pull request has.
    pub pull_request: Option<PullRequest>,
    /// The app that opened it for its author, as answers show it.
    pub app: Value,
    /// Its timeline, in order.
    pub timeline: Vec<Item>,
    /// Where it went.
    pub gone: Option<Gone>,
    /// Further members of answers, which replace the usual ones.
    pub more: Map<String, Value>,
}

impl Issue {
    /// `open` or `closed`.
    #[must_use]
    pub fn state(&self) -> &'static str {
        if self.is_open { "open" } else { "closed" }
    }

    /// Its comments, in order.
    pub fn comments(&self) -> impl Iterator<Item = &Item> {
        self.timeline.iter().filter(|item| item.kind == "commented")
    }
}

/// What only a pull request has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PullRequest {
    /// Whether it is a draft.
    pub is_draft: bool,
    /// When it was merged.
    pub merged_at: Option<DateTime<Utc>>,
}

/// Where an issue went that is no longer there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// It was deleted.
    Deleted,
    /// It was transferred.
    Transferred {
        /// The id of the other repository.
        repository: u64,
        /// Its number there.
        number: u64,
    },
}

/// An event of a timeline.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its id. Commits, cross-references and line comments have none.
    pub id: Option<u64>,
    /// Its kind, as `commented`.
    pub kind: String,
    /// Who caused it: an author, a reviewer.
    pub actor: Option<u64>,
    /// Whom it is about: an assignee, a requested reviewer.
    pub about: Option<u64>,
    /// When it happened, also where answers do not say it.
    pub created_at: DateTime<Utc>,
    /// When it was changed last.
    pub updated_at: DateTime<Utc>,
    /// The text of a comment or a review.
    pub body: Option<String>,
    /// The reactions to a comment.
    pub reactions: Reactions,
    /// The repository and the number of the issue that refers to this one.
    pub source: Option<(u64, u64)>,
    /// The app that did it for the actor, as answers show it.
    pub app: Value,
    /// Further members of answers, which replace the usual ones.
    pub more: Map<String, Value>,
}

impl Item {
    /// An event without an id.
    #[must_use]
    pub fn new(kind: &str, actor: Option<u64>, at: DateTime<Utc>) -> Self {
        Self {
            id: None,
            kind: kind.into(),
            actor,
            about: None,
            created_at: at,
            updated_at: at,
            body: None,
            reactions: Reactions::new(),
            source: None,
            app: Value::Null,
            more: Map::new(),
        }
    }
}

/// How many requests are allowed.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// How many in a window.
    pub limit: u64,
    /// How many are left.
    pub remaining: u64,
    /// When there are as many as the limit again, in seconds of the real clock.
    pub reset: i64,
    /// How long a window is, in seconds.
    pub window: i64,
}

impl Budget {
    fn new(limit: u64, window: i64) -> Self {
        Self { limit, remaining: limit, reset: Utc::now().timestamp() + window, window }
    }

    /// How many were used.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.limit.saturating_sub(self.remaining)
    }

    pub(super) fn renew(&mut self) {
        let now = Utc::now().timestamp();
        if now >= self.reset {
            self.remaining = self.limit;
            self.reset = now + self.window;
        }
    }
}

/// A request, and how it was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// The path with the query, as `/repos/acme/shop/issues?page=2`.
    pub path: String,
    /// The status; 0: the connection was broken.
    pub status: u16,
}

/// An answer that is given instead of GitHub's own.
#[derive(Clone, Debug)]
pub struct Instead {
    /// A part of the path with the query of the requests that are answered so.
    pub part: String,
    /// How many requests are answered so.
    pub times: u32,
    /// The status; 0 breaks the connection.
    pub status: u16,
    /// Headers. Those of the budget are added unless they are here.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: String,
}

impl Instead {
    /// This status with this message.
    #[must_use]
    pub fn status(part: &str, times: u32, status: u16, message: &str) -> Self {
        let body = json!({ "message": message }).to_string();
        Self { part: part.into(), times, status, headers: Vec::new(), body }
    }

    /// A broken connection.
    #[must_use]
    pub fn broken(part: &str, times: u32) -> Self {
        Self::status(part, times, 0, "")
    }

    /// The same with a further header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }
}

/// A change that waits for a request.
pub(super) struct Hook {
    pub(super) part: String,
    pub(super) change: Box<dyn FnOnce(&mut Model) + Send>,
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hook({})", self.part)
    }
}

impl Model {
    pub(super) fn new(organization: &str) -> Self {
        Self {
            origin: String::new(),
            token: TOKEN.into(),
            now: BEGIN,
            organization: organization.into(),
            organization_id: 1_000,
            people: BTreeMap::new(),
            members: BTreeSet::new(),
            repositories: BTreeMap::new(),
            core: Budget::new(5_000, 3_600),
            search: Budget::new(30, 60),
            lists_incomplete: 0,
            has_cursors: true,
            has_links_on_304: true,
            requests: Vec::new(),
            faults: Vec::new(),
            instead: Vec::new(),
            hooks: Vec::new(),
            ids: 4_000_000_000,
            small_ids: 1_000,
        }
    }

    /// Moves the clock.
    pub fn advance(&mut self, seconds: i64) {
        self.now += TimeDelta::seconds(seconds);
    }

    /// Changes the model once, after the next request whose path with its query contains this. A request runs the first change that
    /// waits for it, the next such request the second.
    pub fn then(&mut self, part: &str, change: impl FnOnce(&mut Model) + Send + 'static) {
        self.hooks.push(Hook { part: part.into(), change: Box::new(change) });
    }

    /// How many requests contained this and were answered with this status.
    #[must_use]
    pub fn count(&self, part: &str, status: u16) -> usize {
        self.requests.iter().filter(|request| request.status == status && request.path.contains(part)).count()
    }

    /// An id that nothing has yet, of an issue or an event: more than 32 bits.
    pub(super) fn id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    /// An id that nothing has yet, of an account, a repository, a label or a milestone.
    pub(super) fn small_id(&mut self) -> u64 {
        self.small_ids += 1;
        self.small_ids
    }
}

/// Bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
