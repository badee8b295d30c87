//! The model of an organization, and what changes it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::TOKEN;

/// The kinds of events that leave `updated_at` of their issue as it is.
const QUIET: [&str; 5] = ["cross-referenced", "mentioned", "referenced", "subscribed", "unsubscribed"];
/// The kinds of events that a transfer leaves behind.
const LEFT_BEHIND: [&str; 4] = ["labeled", "unlabeled", "milestoned", "demilestoned"];

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
    pub kind: Kind,
    /// The address of its picture.
    pub avatar_url: String,
    /// Whether it was deleted. GitHub shows `null` where it was.
    pub is_deleted: bool,
}

/// What an account is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    User,
    Bot,
    Organization,
}

impl Kind {
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
#[allow(missing_docs)]
pub struct Label {
    pub id: u64,
    pub name: String,
    /// As `d73a4a`.
    pub color: String,
    pub description: Option<String>,
}

/// A milestone of a repository.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Milestone {
    pub id: u64,
    pub number: u64,
    pub title: String,
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
#[allow(missing_docs)]
pub struct PullRequest {
    pub is_draft: bool,
    pub merged_at: Option<DateTime<Utc>>,
}

/// Where an issue went that is no longer there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Gone {
    Deleted,
    Transferred { repository: u64, number: u64 },
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

/// How answers are prepared.
impl Model {
    pub(super) fn new(organization: &str) -> Self {
        Self {
            origin: String::new(),
            token: TOKEN.into(),
            now: DateTime::from_timestamp(1_767_603_600, 0).unwrap_or_default(),
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
    fn id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    /// An id that nothing has yet, of an account, a repository, a label or a milestone.
    fn small_id(&mut self) -> u64 {
        self.small_ids += 1;
        self.small_ids
    }
}

/// People.
impl Model {
    /// Adds a user, who is not a member yet; the id.
    pub fn add_person(&mut self, login: &str) -> u64 {
        self.add_account(login, Kind::User)
    }

    /// Adds a bot, as `dependabot[bot]`; the id.
    pub fn add_bot(&mut self, login: &str) -> u64 {
        self.add_account(login, Kind::Bot)
    }

    /// Adds an account; the id.
    pub fn add_account(&mut self, login: &str, kind: Kind) -> u64 {
        let id = self.small_id();
        let avatar_url = format!("https://avatars.githubusercontent.com/u/{id}?v=4");
        self.people.insert(id, Person { id, login: login.into(), kind, avatar_url, is_deleted: false });
        id
    }

    /// Makes a person a member.
    pub fn join(&mut self, person: u64) {
        self.members.insert(person);
    }

    /// Ends a membership.
    pub fn leave(&mut self, person: u64) {
        self.members.remove(&person);
    }

    /// Gives an account another login. The old one is free for another account.
    pub fn rename_person(&mut self, person: u64, login: &str) {
        self.person_mut(person).login = login.into();
    }

    /// Deletes an account: it is no member and no assignee any more, and `null` in all that it did.
    pub fn delete_person(&mut self, person: u64) {
        self.person_mut(person).is_deleted = true;
        self.members.remove(&person);
        for issue in self.issues_mut() {
            issue.assignees.retain(|assignee| *assignee != person);
        }
    }

    /// The account with this login.
    #[must_use]
    pub fn person(&self, login: &str) -> Option<&Person> {
        self.people.values().find(|person| person.login == login && !person.is_deleted)
    }

    fn person_mut(&mut self, id: u64) -> &mut Person {
        self.people.get_mut(&id).expect("there is such a person")
    }
}

/// Repositories, their labels and milestones.
impl Model {
    /// Adds a repository; the id. A former name of another repository leads to this one from now on.
    pub fn add_repository(&mut self, name: &str) -> u64 {
        self.free(name);
        let id = self.small_id();
        let repository = Repository {
            id,
            name: name.into(),
            former_names: Vec::new(),
            is_archived: false,
            is_private: false,
            is_unreadable: false,
            is_removed: false,
            created_at: self.now,
            issues: BTreeMap::new(),
            labels: BTreeMap::new(),
            milestones: BTreeMap::new(),
        };
        self.repositories.insert(id, repository);
        id
    }

    /// Gives a repository another name. Requests for the old one are answered with 301 until another repository has it.
    pub fn rename_repository(&mut self, repository: u64, name: &str) {
        self.free(name);
        let repository = self.repository_mut(repository);
        let former = std::mem::replace(&mut repository.name, name.into());
        repository.former_names.push(former);
    }

    /// Removes a repository with all that it has.
    pub fn remove_repository(&mut self, repository: u64) {
        self.repository_mut(repository).is_removed = true;
    }

    /// Archives a repository.
    pub fn archive(&mut self, repository: u64) {
        self.repository_mut(repository).is_archived = true;
    }

    /// The repository, whose members may be changed.
    pub fn repository_mut(&mut self, id: u64) -> &mut Repository {
        self.repositories.get_mut(&id).expect("there is such a repository")
    }

    /// Ends the redirects from a name.
    fn free(&mut self, name: &str) {
        for repository in self.repositories.values_mut() {
            repository.former_names.retain(|former| !former.eq_ignore_ascii_case(name));
        }
    }

    /// Adds a label to a repository; the id.
    pub fn create_label(&mut self, repository: u64, name: &str, color: &str) -> u64 {
        let id = self.small_id();
        let label = Label { id, name: name.into(), color: color.into(), description: None };
        self.repository_mut(repository).labels.insert(id, label);
        id
    }

    /// Gives a label another name, which all issues show. None of them counts as updated.
    pub fn rename_label(&mut self, repository: u64, label: u64, name: &str) {
        self.label_mut(repository, label).name = name.into();
    }

    /// Gives a label another color, which all issues show. None of them counts as updated.
    pub fn recolor(&mut self, repository: u64, label: u64, color: &str) {
        self.label_mut(repository, label).color = color.into();
    }

    fn label_mut(&mut self, repository: u64, label: u64) -> &mut Label {
        self.repository_mut(repository).labels.get_mut(&label).expect("there is such a label")
    }

    /// Adds a milestone to a repository; its number.
    pub fn create_milestone(&mut self, repository: u64, title: &str) -> u64 {
        let (id, created_at) = (self.small_id(), self.now);
        let milestones = &mut self.repository_mut(repository).milestones;
        let number = milestones.len() as u64 + 1;
        milestones.insert(number, Milestone { id, number, title: title.into(), created_at });
        number
    }
}

/// Issues and pull requests.
impl Model {
    /// Opens an issue; its number.
    pub fn open_issue(&mut self, repository: u64, author: u64, title: &str) -> u64 {
        self.open(repository, author, title, None)
    }

    /// Opens a pull request that is no draft; its number.
    pub fn open_pull_request(&mut self, repository: u64, author: u64, title: &str) -> u64 {
        self.open(repository, author, title, Some(PullRequest { is_draft: false, merged_at: None }))
    }

    fn open(&mut self, repository: u64, author: u64, title: &str, pull_request: Option<PullRequest>) -> u64 {
        let (id, now) = (self.id(), self.now);
        let number = self.next_number(repository);
        let issue = Issue {
            id,
            number,
            title: title.into(),
            body: Some(format!("{title}.")),
            author,
            is_open: true,
            state_reason: None,
            closed_by: None,
            created_at: now,
            updated_at: now,
            closed_at: None,
            labels: Vec::new(),
            assignees: Vec::new(),
            milestone: None,
            is_locked: false,
            lock_reason: None,
            reactions: Reactions::new(),
            pull_request,
            app: Value::Null,
            timeline: Vec::new(),
            gone: None,
            more: Map::new(),
        };
        self.repository_mut(repository).issues.insert(number, issue);
        number
    }

    fn next_number(&self, repository: u64) -> u64 {
        self.repositories[&repository].issues.last_key_value().map_or(1, |(last, _)| last + 1)
    }

    /// The issue or pull request.
    #[must_use]
    pub fn issue(&self, repository: u64, number: u64) -> &Issue {
        &self.repositories[&repository].issues[&number]
    }

    /// The issue or pull request, whose members may be changed.
    pub fn issue_mut(&mut self, repository: u64, number: u64) -> &mut Issue {
        self.repository_mut(repository).issues.get_mut(&number).expect("there is such an issue")
    }

    fn issues_mut(&mut self) -> impl Iterator<Item = &mut Issue> {
        self.repositories.values_mut().flat_map(|repository| repository.issues.values_mut())
    }

    /// Adds an item to the end of a timeline. The issue counts as updated unless the kind is one that GitHub does not count.
    pub fn add_item(&mut self, repository: u64, number: u64, item: Item) {
        let now = self.now;
        let issue = self.issue_mut(repository, number);
        if !QUIET.contains(&item.kind.as_str()) {
            issue.updated_at = now;
        }
        issue.timeline.push(item);
    }

    /// Adds an event of any kind; its id, which is that of `more` if it has one.
    pub fn event(&mut self, repository: u64, number: u64, actor: Option<u64>, kind: &str, more: Value) -> u64 {
        self.event_about(repository, number, actor, None, kind, more)
    }

    fn event_about(
        &mut self,
        repository: u64,
        number: u64,
        actor: Option<u64>,
        about: Option<u64>,
        kind: &str,
        more: Value,
    ) -> u64 {
        let id = more["id"].as_u64().unwrap_or_else(|| self.id());
        let more = if let Value::Object(more) = more { more } else { Map::new() };
        let item = Item { id: Some(id), about, more, ..Item::new(kind, actor, self.now) };
        self.add_item(repository, number, item);
        id
    }

    /// Changes the title; the id of the event.
    pub fn rename_issue(&mut self, repository: u64, number: u64, actor: u64, title: &str) -> u64 {
        let former = std::mem::replace(&mut self.issue_mut(repository, number).title, title.into());
        let more = json!({ "rename": { "from": former, "to": title } });
        self.event(repository, number, Some(actor), "renamed", more)
    }

    /// Changes the text, which the timeline does not show.
    pub fn edit_issue(&mut self, repository: u64, number: u64, body: &str) {
        let now = self.now;
        let issue = self.issue_mut(repository, number);
        issue.body = Some(body.into());
        issue.updated_at = now;
    }

    /// Adds a label of the repository; the id of the event.
    pub fn label(&mut self, repository: u64, number: u64, actor: u64, label: u64) -> u64 {
        let labels = &mut self.issue_mut(repository, number).labels;
        if !labels.contains(&label) {
            labels.push(label);
        }
        self.label_event(repository, number, actor, label, "labeled")
    }

    /// Takes a label away; the id of the event.
    pub fn unlabel(&mut self, repository: u64, number: u64, actor: u64, label: u64) -> u64 {
        self.issue_mut(repository, number).labels.retain(|known| *known != label);
        self.label_event(repository, number, actor, label, "unlabeled")
    }

    fn label_event(&mut self, repository: u64, number: u64, actor: u64, label: u64, kind: &str) -> u64 {
        let label = &self.repositories[&repository].labels[&label];
        let more = json!({ "label": { "name": label.name, "color": label.color } });
        self.event(repository, number, Some(actor), kind, more)
    }

    /// Assigns an account; the id of the event.
    pub fn assign(&mut self, repository: u64, number: u64, actor: u64, assignee: u64) -> u64 {
        let assignees = &mut self.issue_mut(repository, number).assignees;
        if !assignees.contains(&assignee) {
            assignees.push(assignee);
        }
        self.event_about(repository, number, Some(actor), Some(assignee), "assigned", json!({}))
    }

    /// Ends an assignment; the id of the event.
    pub fn unassign(&mut self, repository: u64, number: u64, actor: u64, assignee: u64) -> u64 {
        self.issue_mut(repository, number).assignees.retain(|known| *known != assignee);
        self.event_about(repository, number, Some(actor), Some(assignee), "unassigned", json!({}))
    }

    /// Sets the milestone, or takes it away; the id of the event.
    ///
    /// # Panics
    /// If there is none to take away.
    pub fn milestone(&mut self, repository: u64, number: u64, actor: u64, milestone: Option<u64>) -> u64 {
        let former = std::mem::replace(&mut self.issue_mut(repository, number).milestone, milestone);
        let kind = if milestone.is_some() { "milestoned" } else { "demilestoned" };
        let shown = milestone.or(former).expect("there is a milestone");
        let more = json!({ "milestone": { "title": self.repositories[&repository].milestones[&shown].title } });
        self.event(repository, number, Some(actor), kind, more)
    }

    /// Locks the conversation; the id of the event.
    pub fn lock(&mut self, repository: u64, number: u64, actor: u64, reason: Option<&str>) -> u64 {
        let issue = self.issue_mut(repository, number);
        issue.is_locked = true;
        issue.lock_reason = reason.map(Into::into);
        self.event(repository, number, Some(actor), "locked", json!({ "lock_reason": reason }))
    }

    /// Unlocks the conversation; the id of the event.
    pub fn unlock(&mut self, repository: u64, number: u64, actor: u64) -> u64 {
        let issue = self.issue_mut(repository, number);
        issue.is_locked = false;
        issue.lock_reason = None;
        self.event(repository, number, Some(actor), "unlocked", json!({ "lock_reason": null }))
    }

    /// Closes an issue for a reason, as `completed` or `not_planned`, or a pull request without merging it; the id of the event.
    pub fn close(&mut self, repository: u64, number: u64, actor: u64, reason: &str) -> u64 {
        let now = self.now;
        let issue = self.issue_mut(repository, number);
        let reason = issue.pull_request.is_none().then(|| reason.to_owned());
        issue.is_open = false;
        issue.closed_at = Some(now);
        issue.closed_by = Some(actor);
        issue.state_reason.clone_from(&reason);
        self.event(repository, number, Some(actor), "closed", json!({ "state_reason": reason }))
    }

    /// Opens an issue or a pull request again; the id of the event.
    pub fn reopen(&mut self, repository: u64, number: u64, actor: u64) -> u64 {
        let issue = self.issue_mut(repository, number);
        issue.is_open = true;
        issue.closed_at = None;
        issue.closed_by = None;
        issue.state_reason = issue.pull_request.is_none().then(|| "reopened".into());
        self.event(repository, number, Some(actor), "reopened", json!({ "state_reason": null }))
    }

    /// Merges a pull request, which closes it; the id of the event `merged`.
    pub fn merge(&mut self, repository: u64, number: u64, actor: u64) -> u64 {
        let now = self.now;
        self.pull_request_mut(repository, number).merged_at = Some(now);
        let sha = self.sha();
        let address = format!("{}/repos/{}/commits/{sha}", self.origin, self.full_name(repository));
        let more = json!({ "commit_id": sha, "commit_url": address });
        let id = self.event(repository, number, Some(actor), "merged", more);
        self.close(repository, number, actor, "");
        id
    }

    /// Makes a pull request one that can be reviewed; the id of the event.
    pub fn ready(&mut self, repository: u64, number: u64, actor: u64) -> u64 {
        self.pull_request_mut(repository, number).is_draft = false;
        self.event(repository, number, Some(actor), "ready_for_review", json!({}))
    }

    /// Makes a pull request a draft; the id of the event.
    pub fn draft(&mut self, repository: u64, number: u64, actor: u64) -> u64 {
        self.pull_request_mut(repository, number).is_draft = true;
        self.event(repository, number, Some(actor), "convert_to_draft", json!({}))
    }

    fn pull_request_mut(&mut self, repository: u64, number: u64) -> &mut PullRequest {
        self.issue_mut(repository, number).pull_request.as_mut().expect("it is a pull request")
    }

    /// Transfers an issue to another repository; its new number. Its comments, its assignees and the labels that the other repository
    /// has too move along, its milestone and the events of labels do not.
    pub fn transfer(&mut self, repository: u64, number: u64, actor: u64, to: u64) -> u64 {
        let (id, new_number) = (self.id(), self.next_number(to));
        let old = self.issue_mut(repository, number);
        old.gone = Some(Gone::Transferred { repository: to, number: new_number });
        let mut issue = old.clone();
        let target = &self.repositories[&to];
        let labels = &self.repositories[&repository].labels;
        let moved = issue.labels.iter().filter_map(|label| Some(target.label(&labels[label].name)?.id));
        issue.labels = moved.collect();
        issue.id = id;
        issue.number = new_number;
        issue.gone = None;
        issue.milestone = None;
        issue.timeline.retain(|item| !LEFT_BEHIND.contains(&item.kind.as_str()));
        self.repository_mut(to).issues.insert(new_number, issue);
        for item in self.issues_mut().flat_map(|issue| &mut issue.timeline) {
            if item.source == Some((repository, number)) {
                item.source = Some((to, new_number));
            }
        }
        self.event(to, new_number, Some(actor), "transferred", json!({}));
        new_number
    }

    /// Deletes an issue, and what refers to it from other timelines.
    pub fn delete_issue(&mut self, repository: u64, number: u64) {
        self.issue_mut(repository, number).gone = Some(Gone::Deleted);
        for issue in self.issues_mut() {
            issue.timeline.retain(|item| item.source != Some((repository, number)));
        }
    }

    pub(super) fn full_name(&self, repository: u64) -> String {
        format!("{}/{}", self.organization, self.repositories[&repository].name)
    }
}

/// Comments, reviews and commits.
impl Model {
    /// Adds a comment; its id.
    pub fn comment(&mut self, repository: u64, number: u64, author: u64, body: &str) -> u64 {
        let id = self.id();
        let item = Item { id: Some(id), body: Some(body.into()), ..Item::new("commented", Some(author), self.now) };
        self.add_item(repository, number, item);
        id
    }

    /// Changes the text of a comment.
    pub fn edit_comment(&mut self, repository: u64, number: u64, comment: u64, body: &str) {
        let now = self.now;
        let item = self.comment_mut(repository, number, comment);
        item.body = Some(body.into());
        item.updated_at = now;
        self.issue_mut(repository, number).updated_at = now;
    }

    /// Deletes a comment. The items after it move up.
    pub fn delete_comment(&mut self, repository: u64, number: u64, comment: u64) {
        let now = self.now;
        let issue = self.issue_mut(repository, number);
        issue.timeline.retain(|item| item.kind != "commented" || item.id != Some(comment));
        issue.updated_at = now;
    }

    /// Adds a reaction, as `+1` or `heart`, to a comment, or to the text of the issue itself. Nothing counts as updated.
    pub fn react(&mut self, repository: u64, number: u64, comment: Option<u64>, content: &str) {
        let reactions = match comment {
            Some(comment) => &mut self.comment_mut(repository, number, comment).reactions,
            None => &mut self.issue_mut(repository, number).reactions,
        };
        *reactions.entry(content.into()).or_default() += 1;
    }

    fn comment_mut(&mut self, repository: u64, number: u64, comment: u64) -> &mut Item {
        let timeline = &mut self.issue_mut(repository, number).timeline;
        let found = timeline.iter_mut().find(|item| item.kind == "commented" && item.id == Some(comment));
        found.expect("there is such a comment")
    }

    /// Asks for a review; the id of the event.
    pub fn request_review(&mut self, repository: u64, number: u64, actor: u64, reviewer: u64) -> u64 {
        self.event_about(repository, number, Some(actor), Some(reviewer), "review_requested", json!({}))
    }

    /// Adds a review, as `approved`, `changes_requested` or `commented`; its id.
    pub fn review(&mut self, repository: u64, number: u64, author: u64, state: &str) -> u64 {
        let (id, sha) = (self.id(), self.sha());
        let mut item =
            Item { id: Some(id), body: Some(String::new()), ..Item::new("reviewed", Some(author), self.now) };
        item.more.insert("state".into(), state.into());
        item.more.insert("commit_id".into(), sha.into());
        self.add_item(repository, number, item);
        id
    }

    /// Adds a commit to a pull request; its hash.
    pub fn commit(&mut self, repository: u64, number: u64, author: u64, message: &str) -> String {
        let (sha, now) = (self.sha(), self.now);
        let login = &self.people[&author].login;
        let git = json!({ "date": super::answers::time(now), "email": format!("{login}@example.com"), "name": login });
        let mut item = Item::new("committed", Some(author), now);
        item.more.extend([
            ("sha".into(), sha.clone().into()),
            ("author".into(), git.clone()),
            ("committer".into(), git),
            ("message".into(), message.into()),
        ]);
        self.add_item(repository, number, item);
        sha
    }

    /// Adds a comment to a line of a pull request; its id, which is that of the comment and not of an event.
    pub fn line_comment(&mut self, repository: u64, number: u64, author: u64, body: &str) -> u64 {
        let id = self.id();
        let mut item = Item { body: Some(body.into()), ..Item::new("line-commented", Some(author), self.now) };
        item.more.insert("id".into(), id.into());
        self.add_item(repository, number, item);
        id
    }

    /// Refers to an issue from another one, whose author is the actor. The issue does not count as updated.
    pub fn cross_reference(&mut self, repository: u64, number: u64, from: u64, from_number: u64) {
        let author = self.issue(from, from_number).author;
        let source = Some((from, from_number));
        let item = Item { source, ..Item::new("cross-referenced", Some(author), self.now) };
        self.add_item(repository, number, item);
    }

    /// A hash that no commit has yet.
    fn sha(&mut self) -> String {
        hex(&Sha256::digest(self.id().to_be_bytes())[..20])
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
