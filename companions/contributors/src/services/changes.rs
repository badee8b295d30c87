//! What changes the model: each method is something that people do on GitHub. It happens at the model's time.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::model::{
    AccountKind, Gone, Issue, Item, Label, Milestone, Model, Person, PullRequest, Reactions, Repository, hex,
};
use super::objects::time;

/// The kinds of events that leave `updated_at` of their issue as it is.
const QUIET: [&str; 5] = ["cross-referenced", "mentioned", "referenced", "subscribed", "unsubscribed"];
/// The kinds of events that a transfer leaves behind.
const LEFT_BEHIND: [&str; 4] = ["labeled", "unlabeled", "milestoned", "demilestoned"];

/// People.
impl Model {
    /// Adds a user, who is not a member yet; the id.
    pub fn add_person(&mut self, login: &str) -> u64 {
        self.add_account(login, AccountKind::User)
    }

    /// Adds a bot, as `dependabot[bot]`; the id.
    pub fn add_bot(&mut self, login: &str) -> u64 {
        self.add_account(login, AccountKind::Bot)
    }

    /// Adds an account; the id.
    pub fn add_account(&mut self, login: &str, kind: AccountKind) -> u64 {
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
        let moved = issue.labels.iter().filter_map(|label| Some(target.label(&labels.get(label)?.name)?.id));
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
        let git = json!({ "date": time(now), "email": format!("{login}@example.com"), "name": login });
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
