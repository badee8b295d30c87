//! How answers show the model's objects.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value, json};

use super::model::{AccountKind, Issue, Item, Label, Model, Person, Reactions, Repository};

const REACTIONS: [&str; 8] = ["+1", "-1", "laugh", "hooray", "confused", "heart", "rocket", "eyes"];

/// A time as GitHub writes it.
pub(super) fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

impl Model {
    /// An account as answers show it; `null` if it was deleted.
    #[must_use]
    pub fn person_json(&self, person: Option<u64>) -> Value {
        let person = person.and_then(|person| self.people.get(&person)).filter(|person| !person.is_deleted);
        person.map_or(Value::Null, |person| self.account_json(person))
    }

    fn account_json(&self, person: &Person) -> Value {
        let Person { id, login, .. } = person;
        let address = format!("{}/users/{login}", self.origin);
        let html_url = match (person.kind, login.strip_suffix("[bot]")) {
            (AccountKind::Bot, Some(app)) => format!("https://github.com/apps/{app}"),
            _ => format!("https://github.com/{login}"),
        };
        json!({
            "login": login, "id": id, "node_id": format!("U_{id}"), "avatar_url": person.avatar_url, "gravatar_id": "",
            "url": address, "html_url": html_url, "followers_url": format!("{address}/followers"),
            "following_url": format!("{address}/following{{/other_user}}"),
            "gists_url": format!("{address}/gists{{/gist_id}}"),
            "starred_url": format!("{address}/starred{{/owner}}{{/repo}}"),
            "subscriptions_url": format!("{address}/subscriptions"), "organizations_url": format!("{address}/orgs"),
            "repos_url": format!("{address}/repos"), "events_url": format!("{address}/events{{/privacy}}"),
            "received_events_url": format!("{address}/received_events"), "type": person.kind.name(),
            "user_view_type": "public", "site_admin": false,
        })
    }

    /// A repository as answers show it.
    #[must_use]
    pub fn repository_json(&self, repository: &Repository) -> Value {
        let Repository { id, name, .. } = repository;
        let full_name = self.full_name(*id);
        let owner = Person {
            id: self.organization_id,
            login: self.organization.clone(),
            kind: AccountKind::Organization,
            avatar_url: format!("https://avatars.githubusercontent.com/u/{}?v=4", self.organization_id),
            is_deleted: false,
        };
        json!({
            "id": id, "node_id": format!("R_{id}"), "name": name, "full_name": full_name,
            "private": repository.is_private, "visibility": if repository.is_private { "private" } else { "public" },
            "owner": self.account_json(&owner), "html_url": format!("https://github.com/{full_name}"),
            "description": null, "fork": false, "url": format!("{}/repos/{full_name}", self.origin),
            "created_at": time(repository.created_at), "updated_at": time(repository.created_at),
            "pushed_at": time(repository.created_at), "has_issues": true, "has_discussions": false,
            "archived": repository.is_archived, "disabled": false, "default_branch": "main",
            "open_issues_count": repository.present().filter(|issue| issue.is_open).count(),
        })
    }

    pub(super) fn label_json(&self, repository: &Repository, label: &Label) -> Value {
        let full_name = self.full_name(repository.id);
        json!({
            "id": label.id, "node_id": format!("LA_{}", label.id), "name": label.name, "color": label.color,
            "url": format!("{}/repos/{full_name}/labels/{}", self.origin, label.name.replace(' ', "%20")),
            "default": false, "description": label.description,
        })
    }

    /// An issue or a pull request as answers show it.
    #[must_use]
    pub fn issue_json(&self, repository: &Repository, issue: &Issue) -> Value {
        let number = issue.number;
        let (address, html_url) = (self.issue_address(repository, issue), self.issue_page(repository, issue));
        let repository_url = format!("{}/repos/{}", self.origin, self.full_name(repository.id));
        let labels = issue.labels.iter().filter_map(|label| repository.labels.get(label));
        let labels: Vec<_> = labels.map(|label| self.label_json(repository, label)).collect();
        let assignees: Vec<_> = issue.assignees.iter().map(|assignee| self.person_json(Some(*assignee))).collect();
        let mut document = json!({
            "url": address, "repository_url": repository_url, "labels_url": format!("{address}/labels{{/name}}"),
            "comments_url": format!("{address}/comments"), "events_url": format!("{address}/events"),
            "html_url": html_url, "id": issue.id, "node_id": format!("I_{}", issue.id), "number": number,
            "title": issue.title, "user": self.person_json(Some(issue.author)), "labels": labels,
            "state": issue.state(), "locked": issue.is_locked, "assignee": assignees.first(),
            "assignees": assignees, "milestone": self.milestone_json(repository, issue),
            "comments": issue.comments().count(), "created_at": time(issue.created_at),
            "updated_at": time(issue.updated_at), "closed_at": issue.closed_at.map(time),
            "author_association": self.association(issue.author), "active_lock_reason": issue.lock_reason,
            "body": issue.body, "closed_by": self.person_json(issue.closed_by),
            "reactions": reactions_json(&address, &issue.reactions), "timeline_url": format!("{address}/timeline"),
            "performed_via_github_app": issue.app, "state_reason": issue.state_reason,
        });
        match issue.pull_request {
            Some(pull_request) => {
                document["draft"] = pull_request.is_draft.into();
                document["pull_request"] = json!({
                    "url": format!("{repository_url}/pulls/{number}"), "html_url": html_url,
                    "diff_url": format!("{html_url}.diff"), "patch_url": format!("{html_url}.patch"),
                    "merged_at": pull_request.merged_at.map(time),
                });
            }
            None => {
                document["type"] = Value::Null;
                document["sub_issues_summary"] = json!({ "total": 0, "completed": 0, "percent_completed": 0 });
                document["issue_dependencies_summary"] =
                    json!({ "blocked_by": 0, "total_blocked_by": 0, "blocking": 0, "total_blocking": 0 });
                document["issue_field_values"] = json!([]);
                document["pinned_comment"] = Value::Null;
            }
        }
        with(document, &issue.more)
    }

    fn milestone_json(&self, repository: &Repository, issue: &Issue) -> Value {
        let Some(milestone) = issue.milestone.and_then(|number| repository.milestones.get(&number)) else {
            return Value::Null;
        };
        let full_name = self.full_name(repository.id);
        json!({
            "url": format!("{}/repos/{full_name}/milestones/{}", self.origin, milestone.number), "id": milestone.id,
            "node_id": format!("MI_{}", milestone.id), "number": milestone.number, "title": milestone.title,
            "description": null, "state": "open", "created_at": time(milestone.created_at),
            "updated_at": time(milestone.created_at), "due_on": null, "closed_at": null,
        })
    }

    /// An event of a timeline as answers show it.
    #[must_use]
    pub fn item_json(&self, repository: &Repository, issue: &Issue, item: &Item) -> Value {
        let address = format!("{}/repos/{}", self.origin, self.full_name(repository.id));
        let actor = self.person_json(item.actor);
        let document = match item.kind.as_str() {
            "commented" => {
                let mut document = self.comment_json(repository, issue, item);
                document["actor"] = actor;
                document
            }
            "line-commented" => return self.line_comment_json(repository, issue, item),
            "committed" => {
                let sha = item.more["sha"].as_str().unwrap_or_default();
                let page = format!("https://github.com/{}/commit/{sha}", self.full_name(repository.id));
                let tree = json!({ "sha": sha, "url": format!("{address}/git/trees/{sha}") });
                json!({
                    "node_id": format!("C_{sha}"), "url": format!("{address}/git/commits/{sha}"), "html_url": page,
                    "tree": tree, "parents": [],
                    "verification": { "verified": false, "reason": "unsigned", "signature": null, "payload": null },
                })
            }
            "cross-referenced" => json!({
                "actor": actor, "created_at": time(item.created_at), "updated_at": time(item.updated_at),
                "source": { "type": "issue", "issue": self.source_json(item) },
            }),
            "reviewed" => {
                let id = item.id.unwrap_or_default();
                let html_url = format!("{}#pullrequestreview-{id}", self.issue_page(repository, issue));
                let pull_request_url = format!("{address}/pulls/{}", issue.number);
                json!({
                    "id": id, "node_id": format!("PRR_{id}"), "user": actor, "body": item.body,
                    "html_url": html_url, "pull_request_url": pull_request_url,
                    "author_association": self.association(item.actor.unwrap_or_default()),
                    "submitted_at": time(item.created_at), "updated_at": time(item.updated_at),
                    "_links": { "html": { "href": html_url }, "pull_request": { "href": pull_request_url } },
                })
            }
            kind => {
                let mut document = json!({
                    "actor": actor, "commit_id": null, "commit_url": null, "created_at": time(item.created_at),
                    "performed_via_github_app": item.app,
                });
                if let Some(id) = item.id {
                    document["id"] = id.into();
                    document["node_id"] = format!("E_{id}").into();
                    document["url"] = format!("{address}/issues/events/{id}").into();
                }
                let (about, by) = match kind {
                    "review_requested" | "review_request_removed" => ("requested_reviewer", "review_requester"),
                    _ => ("assignee", "assigner"),
                };
                if item.about.is_some() {
                    document[about] = self.person_json(item.about);
                    document[by] = self.person_json(item.actor);
                }
                document
            }
        };
        with(with(document, &item.more), &Map::from_iter([("event".into(), item.kind.clone().into())]))
    }

    pub(super) fn comment_json(&self, repository: &Repository, issue: &Issue, comment: &Item) -> Value {
        let id = comment.id.unwrap_or_default();
        let address = format!("{}/repos/{}/issues/comments/{id}", self.origin, self.full_name(repository.id));
        let document = json!({
            "url": address, "html_url": format!("{}#issuecomment-{id}", self.issue_page(repository, issue)),
            "issue_url": self.issue_address(repository, issue), "id": id, "node_id": format!("IC_{id}"),
            "user": self.person_json(comment.actor), "created_at": time(comment.created_at),
            "updated_at": time(comment.updated_at),
            "author_association": self.association(comment.actor.unwrap_or_default()), "body": comment.body,
            "reactions": reactions_json(&address, &comment.reactions), "performed_via_github_app": comment.app,
        });
        with(document, &comment.more)
    }

    fn line_comment_json(&self, repository: &Repository, issue: &Issue, item: &Item) -> Value {
        let id = &item.more["id"];
        let pulls = format!("{}/repos/{}/pulls", self.origin, self.full_name(repository.id));
        let address = format!("{pulls}/comments/{id}");
        let comment = json!({
            "url": address, "pull_request_review_id": null, "id": id, "node_id": format!("PRRC_{id}"),
            "diff_hunk": "@@ -1 +1 @@", "path": "src/main.rs", "position": 1, "original_position": 1, "line": 1,
            "commit_id": null, "original_commit_id": null, "user": self.person_json(item.actor), "body": item.body,
            "created_at": time(item.created_at), "updated_at": time(item.updated_at),
            "html_url": format!("{}#discussion_r{id}", self.issue_page(repository, issue)),
            "pull_request_url": format!("{pulls}/{}", issue.number),
            "author_association": self.association(item.actor.unwrap_or_default()),
            "reactions": reactions_json(&address, &item.reactions),
        });
        json!({ "event": item.kind, "node_id": format!("PRRT_{id}"), "comments": [comment] })
    }

    /// The issue that refers to another one.
    fn source_json(&self, item: &Item) -> Value {
        let Some((repository, number)) = item.source else { return Value::Null };
        let repository = &self.repositories[&repository];
        let mut document = self.issue_json(repository, &repository.issues[&number]);
        document["repository"] = self.repository_json(repository);
        document
    }

    fn issue_address(&self, repository: &Repository, issue: &Issue) -> String {
        format!("{}/repos/{}/issues/{}", self.origin, self.full_name(repository.id), issue.number)
    }

    fn issue_page(&self, repository: &Repository, issue: &Issue) -> String {
        let kind = if issue.pull_request.is_some() { "pull" } else { "issues" };
        format!("https://github.com/{}/{kind}/{}", self.full_name(repository.id), issue.number)
    }

    fn association(&self, person: u64) -> &'static str {
        if self.members.contains(&person) { "MEMBER" } else { "NONE" }
    }
}

fn reactions_json(address: &str, reactions: &Reactions) -> Value {
    let mut document = json!({ "url": format!("{address}/reactions"), "total_count": reactions.values().sum::<u64>() });
    for content in REACTIONS {
        document[content] = reactions.get(content).copied().unwrap_or_default().into();
    }
    document
}

/// The document with further members.
fn with(mut document: Value, more: &Map<String, Value>) -> Value {
    if let Value::Object(members) = &mut document {
        members.extend(more.clone());
    }
    document
}
