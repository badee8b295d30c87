//! Which requests there are, and how they are answered: pages, ETags, redirects and budgets.

use std::ops::Range;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use form_urlencoded::Serializer;
use hyper::{Method, Request};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::model::{Budget, Gone, Issue, Logged, Model, Repository, hex};

const DOCUMENTATION: &str = "https://docs.github.com/rest";
/// Up to where a list of issues can be asked for by the number of a page.
const NUMBERED: usize = 10_000;
const TOO_FAR: &str = "Pagination with the page parameter is not supported for large datasets, \
    please use cursor based pagination (after/before)";

/// An answer. The status 0 breaks the connection.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn found(document: &Value) -> Self {
        Self { status: 200, headers: Vec::new(), body: document.to_string() }
    }

    pub(super) fn failure(status: u16, message: &str) -> Self {
        let document = json!({ "message": message, "documentation_url": DOCUMENTATION, "status": status.to_string() });
        Self { status, headers: Vec::new(), body: document.to_string() }
    }

    fn missing() -> Self {
        Self::failure(404, "Not Found")
    }

    fn moved(location: String) -> Self {
        let document = json!({ "message": "Moved Permanently", "url": location, "documentation_url": DOCUMENTATION });
        Self { status: 301, headers: vec![("location", location)], body: document.to_string() }
    }

    pub(super) fn with_link(mut self, link: Option<String>) -> Self {
        self.headers.extend(link.map(|link| ("link", link)));
        self
    }

    fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(known, _)| *known == name)
    }
}

/// The parameters of a request.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    fn of(request: &Request<Bytes>) -> Self {
        Self(form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes()).into_owned().collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn number(&self, name: &str) -> Option<usize> {
        self.get(name)?.parse().ok()
    }

    pub(super) fn per_page(&self) -> usize {
        self.number("per_page").unwrap_or(30).clamp(1, 100)
    }

    pub(super) fn page(&self) -> usize {
        self.number("page").unwrap_or(1).max(1)
    }

    pub(super) fn is_ascending(&self, otherwise: bool) -> bool {
        self.get("direction").map_or(otherwise, |direction| direction == "asc")
    }

    fn since(&self) -> Option<DateTime<Utc>> {
        Some(DateTime::parse_from_rfc3339(self.get("since")?).ok()?.to_utc())
    }

    /// A link to the same list with other parameters.
    fn link(&self, address: &str, others: &[(&str, &str)], relation: &str) -> String {
        let is_kept = |name: &str| name != "after" && others.iter().all(|(other, _)| *other != name);
        let kept = self.0.iter().filter(|(name, _)| is_kept(name));
        let query = Serializer::new(String::new()).extend_pairs(kept).extend_pairs(others).finish();
        format!("<{address}?{query}>; rel=\"{relation}\"")
    }

    /// Which of `total` items the page has, and the links to other pages.
    pub(super) fn numbered(&self, address: &str, total: usize) -> (Range<usize>, Option<String>) {
        let (page, per_page) = (self.page(), self.per_page());
        let last = total.div_ceil(per_page).max(1);
        let link = |page: usize, relation: &str| self.link(address, &[("page", &page.to_string())], relation);
        let mut links = Vec::new();
        if page > 1 {
            links.push(link((page - 1).min(last), "prev"));
        }
        if page < last {
            links.extend([link(page + 1, "next"), link(last, "last")]);
        }
        if page > 1 {
            links.push(link(1, "first"));
        }
        let begin = ((page - 1).saturating_mul(per_page)).min(total);
        (begin..(begin + per_page).min(total), (!links.is_empty()).then(|| links.join(", ")))
    }
}

/// What a name leads to.
enum Found<'m> {
    Here(&'m Repository),
    Moved(u64),
    Nowhere,
}

impl Model {
    /// Answers a request, and does what waits for it.
    pub(super) fn answer(&mut self, request: &Request<Bytes>) -> Answer {
        let path = request.uri().to_string();
        let is_search = request.uri().path().starts_with("/search/");
        let mut answer = match self.instead.iter_mut().find(|instead| instead.times > 0 && path.contains(&instead.part))
        {
            Some(instead) => {
                instead.times -= 1;
                Answer { status: instead.status, headers: instead.headers.clone(), body: instead.body.clone() }
            }
            None => self.own(request, is_search),
        };
        let (budget, resource) = if is_search { (&self.search, "search") } else { (&self.core, "core") };
        let usual = [
            ("content-type", "application/json; charset=utf-8".into()),
            ("x-ratelimit-limit", budget.limit.to_string()),
            ("x-ratelimit-remaining", budget.remaining.to_string()),
            ("x-ratelimit-used", budget.used().to_string()),
            ("x-ratelimit-reset", budget.reset.to_string()),
            ("x-ratelimit-resource", resource.into()),
        ];
        for (name, value) in usual {
            if !answer.has(name) {
                answer.headers.push((name, value));
            }
        }
        let hook = self.hooks.iter().position(|hook| path.contains(&hook.part)).map(|at| self.hooks.remove(at));
        self.requests.push(Logged { path, status: answer.status });
        if let Some(hook) = hook {
            (hook.change)(self);
        }
        answer
    }

    /// GitHub's own answer.
    fn own(&mut self, request: &Request<Bytes>, is_search: bool) -> Answer {
        let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let path = request.uri().path();
        for (name, is_there) in [
            ("accept", header("accept") == "application/vnd.github+json"),
            ("x-github-api-version", !header("x-github-api-version").is_empty()),
            ("user-agent", !header("user-agent").is_empty()),
        ] {
            if !is_there {
                self.faults.push(format!("{path}: the header {name} is {:?}", header(name)));
            }
        }
        if header("authorization") != format!("Bearer {}", self.token) {
            return Answer::failure(401, "Bad credentials");
        }
        self.core.renew();
        self.search.renew();
        if path == "/rate_limit" {
            return self.rate_limit();
        }
        let budget = if is_search { self.search } else { self.core };
        if budget.remaining == 0 {
            return Answer::failure(403, "API rate limit exceeded for user ID 1.");
        }
        let mut answer = match *request.method() {
            Method::GET => self.route(path, &Query::of(request)),
            _ => Answer::missing(),
        };
        if answer.status == 200 && !is_search {
            let hash = Sha256::new().chain_update(&self.token).chain_update(&answer.body).finalize();
            let etag = format!("\"{}\"", hex(&hash));
            let known = header("if-none-match");
            if known.split(',').any(|known| known.trim().trim_start_matches("W/") == etag) {
                answer.status = 304;
                answer.body.clear();
                if !self.has_links_on_304 {
                    answer.headers.clear();
                }
            }
            answer.headers.push(("etag", format!("W/{etag}")));
        }
        if answer.status != 304 {
            let budget = if is_search { &mut self.search } else { &mut self.core };
            budget.remaining -= 1;
        }
        answer
    }

    fn rate_limit(&self) -> Answer {
        let shown = |budget: &Budget, resource: &str| {
            let used = budget.used();
            let Budget { limit, remaining, reset, .. } = budget;
            json!({ "limit": limit, "used": used, "remaining": remaining, "reset": reset, "resource": resource })
        };
        let core = shown(&self.core, "core");
        let resources = json!({ "core": core, "search": shown(&self.search, "search") });
        Answer::found(&json!({ "resources": resources, "rate": core }))
    }

    fn route(&mut self, path: &str, query: &Query) -> Answer {
        if query.get("since").is_some() && query.since().is_none() {
            return Answer::failure(422, "since is not a timestamp");
        }
        let parts: Vec<_> = path.trim_matches('/').split('/').collect();
        match parts[..] {
            ["user"] => Answer::found(&json!({ "login": "watcher", "id": 1, "node_id": "U_1", "type": "User" })),
            ["search", "issues"] => self.find_issues(query),
            ["orgs", login, list] if login.eq_ignore_ascii_case(&self.organization) => {
                self.of_organization(list, query)
            }
            ["organizations", id, list] if id.parse() == Ok(self.organization_id) => self.of_organization(list, query),
            ["repos", owner, name, ref rest @ ..] if owner.eq_ignore_ascii_case(&self.organization) => {
                match self.repository_named(name) {
                    Found::Here(repository) => self.of_repository(repository, rest, query),
                    Found::Moved(id) => {
                        let rest: String = rest.iter().map(|part| format!("/{part}")).collect();
                        let query = Serializer::new(String::new()).extend_pairs(&query.0).finish();
                        let query = if query.is_empty() { query } else { format!("?{query}") };
                        Answer::moved(format!("{}/repositories/{id}{rest}{query}", self.origin))
                    }
                    Found::Nowhere => Answer::missing(),
                }
            }
            ["repositories", id, ref rest @ ..] => {
                let found = id.parse().ok().and_then(|id: u64| self.repositories.get(&id));
                match found.filter(|found| found.is_visible()) {
                    Some(repository) => self.of_repository(repository, rest, query),
                    None => Answer::missing(),
                }
            }
            _ => Answer::missing(),
        }
    }

    fn repository_named(&self, name: &str) -> Found<'_> {
        let visible = || self.repositories.values().filter(|repository| repository.is_visible());
        if let Some(found) = visible().find(|repository| repository.name.eq_ignore_ascii_case(name)) {
            return Found::Here(found);
        }
        let is_former =
            |repository: &&Repository| repository.former_names.iter().any(|former| former.eq_ignore_ascii_case(name));
        visible().find(is_former).map_or(Found::Nowhere, |found| Found::Moved(found.id))
    }

    fn of_organization(&self, list: &str, query: &Query) -> Answer {
        let address = format!("{}/organizations/{}/{list}", self.origin, self.organization_id);
        match list {
            "repos" => {
                let visible: Vec<_> = self.repositories.values().filter(|repository| repository.is_visible()).collect();
                numbered(&address, query, &visible, |repository| self.repository_json(repository))
            }
            "members" => {
                let members: Vec<_> = self.members.iter().collect();
                numbered(&address, query, &members, |member| self.person_json(Some(**member)))
            }
            _ => Answer::missing(),
        }
    }

    fn of_repository(&self, repository: &Repository, rest: &[&str], query: &Query) -> Answer {
        let address = format!("{}/repositories/{}/{}", self.origin, repository.id, rest.join("/"));
        match *rest {
            [] => Answer::found(&self.repository_json(repository)),
            ["labels"] => {
                let labels: Vec<_> = repository.labels.values().collect();
                numbered(&address, query, &labels, |label| self.label_json(repository, label))
            }
            ["issues"] => self.list_issues(repository, &address, query),
            ["issues", "comments"] => self.list_comments(repository, &address, query),
            ["issues", number] => match self.present(repository, number, true) {
                Ok(issue) => Answer::found(&self.issue_json(repository, issue)),
                Err(answer) => answer,
            },
            ["issues", number, "timeline"] => match self.present(repository, number, false) {
                Ok(issue) => numbered(&address, query, &issue.timeline, |item| self.item_json(repository, issue, item)),
                Err(answer) => answer,
            },
            _ => Answer::missing(),
        }
    }

    /// An issue that is there. What belongs to a transferred issue is not found, only the issue itself is redirected.
    fn present<'m>(&self, repository: &'m Repository, number: &str, is_itself: bool) -> Result<&'m Issue, Answer> {
        let Some(issue) = number.parse().ok().and_then(|number: u64| repository.issues.get(&number)) else {
            return Err(Answer::missing());
        };
        match issue.gone {
            None => Ok(issue),
            Some(Gone::Deleted) => Err(Answer::failure(410, "This issue was deleted")),
            Some(Gone::Transferred { repository: to, number }) if is_itself && self.repositories[&to].is_visible() => {
                Err(Answer::moved(format!("{}/repositories/{to}/issues/{number}", self.origin)))
            }
            Some(Gone::Transferred { .. }) => Err(Answer::missing()),
        }
    }

    fn list_issues(&self, repository: &Repository, address: &str, query: &Query) -> Answer {
        let state = query.get("state").unwrap_or("open");
        let since = query.since();
        let is_wanted = |issue: &&Issue| {
            (state == "all" || state == issue.state()) && since.is_none_or(|since| issue.updated_at >= since)
        };
        let is_by_update = query.get("sort") == Some("updated");
        let key = |issue: &Issue| {
            let at = if is_by_update { issue.updated_at } else { issue.created_at };
            (at.timestamp(), issue.id)
        };
        let is_ascending = query.is_ascending(false);
        let mut issues: Vec<_> = repository.present().filter(is_wanted).collect();
        issues.sort_unstable_by_key(|issue| key(issue));
        if !is_ascending {
            issues.reverse();
        }
        let shown = |issue: &&Issue| self.issue_json(repository, issue);
        if !self.has_cursors {
            return numbered(address, query, &issues, shown);
        }
        let (page, per_page) = (query.page(), query.per_page());
        let begin = match query.get("after").and_then(cursor) {
            Some(after) => issues.partition_point(|issue| match is_ascending {
                true => key(issue) <= after,
                false => key(issue) >= after,
            }),
            None if page.saturating_mul(per_page) > NUMBERED => {
                return Answer::failure(422, TOO_FAR);
            }
            None => ((page - 1) * per_page).min(issues.len()),
        };
        let end = (begin + per_page).min(issues.len());
        let last = issues[begin..end].last().filter(|_| end < issues.len());
        let link = last.map(|last| {
            let (at, id) = key(last);
            query.link(address, &[("after", &format!("{at}:{id}")), ("page", &(page + 1).to_string())], "next")
        });
        Answer::found(&issues[begin..end].iter().map(shown).collect()).with_link(link)
    }

    fn list_comments(&self, repository: &Repository, address: &str, query: &Query) -> Answer {
        let since = query.since();
        let comments = repository.present().flat_map(|issue| issue.comments().map(move |comment| (issue, comment)));
        let mut comments: Vec<_> =
            comments.filter(|(_, comment)| since.is_none_or(|since| comment.updated_at >= since)).collect();
        let is_by_update = query.get("sort") == Some("updated");
        comments.sort_unstable_by_key(|(_, comment)| {
            (if is_by_update { comment.updated_at } else { comment.created_at }, comment.id)
        });
        if !query.is_ascending(query.get("sort").is_none()) {
            comments.reverse();
        }
        numbered(address, query, &comments, |(issue, comment)| self.comment_json(repository, issue, comment))
    }
}

/// A page of a list.
fn numbered<T>(address: &str, query: &Query, items: &[T], shown: impl Fn(&T) -> Value) -> Answer {
    let (range, link) = query.numbered(address, items.len());
    Answer::found(&items[range].iter().map(shown).collect()).with_link(link)
}

fn cursor(text: &str) -> Option<(i64, u64)> {
    let (at, id) = text.split_once(':')?;
    Some((at.parse().ok()?, id.parse().ok()?))
}
