//! The search for issues, as far as it is asked for here: kinds, states, repositories and ranges of time.
//! <https://docs.github.com/en/search-github/searching-on-github/searching-issues-and-pull-requests>

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::answers::{Answer, Query};
use super::model::{Issue, Model};

/// How many results a search shows at most.
const MOST: usize = 1_000;
const UNKNOWN: &str = "The listed users and repositories cannot be searched either because the resources do not \
    exist or you do not have permission to view them.";

/// What a search asks for.
#[derive(Default)]
struct Wanted {
    repositories: Vec<u64>,
    is_pull_request: Option<bool>,
    is_open: Option<bool>,
    is_merged: Option<bool>,
    created: Option<Span>,
    closed: Option<Span>,
    updated: Option<Span>,
}

/// A span of time, with both ends.
#[derive(Clone, Copy)]
struct Span {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
}

impl Span {
    fn has(self, at: DateTime<Utc>) -> bool {
        (self.from.timestamp()..=self.to.timestamp()).contains(&at.timestamp())
    }
}

impl Wanted {
    fn has(&self, issue: &Issue) -> bool {
        let within =
            |span: Option<Span>, at: Option<DateTime<Utc>>| span.is_none_or(|span| at.is_some_and(|at| span.has(at)));
        let is_merged = issue.pull_request.is_some_and(|pull_request| pull_request.merged_at.is_some());
        self.is_pull_request.is_none_or(|wanted| wanted == issue.pull_request.is_some())
            && self.is_open.is_none_or(|wanted| wanted == issue.is_open)
            && self.is_merged.is_none_or(|wanted| wanted == is_merged)
            && within(self.created, Some(issue.created_at))
            && within(self.closed, issue.closed_at)
            && within(self.updated, Some(issue.updated_at))
    }
}

impl Model {
    pub(super) fn find_issues(&mut self, query: &Query) -> Answer {
        let wanted = match self.wanted(query.get("q").unwrap_or_default()) {
            Ok(wanted) => wanted,
            Err(message) => return invalid(&message),
        };
        if (query.page() - 1).saturating_mul(query.per_page()) >= MOST {
            return Answer::failure(422, "Only the first 1000 search results are available");
        }
        let is_incomplete = self.lists_incomplete > 0;
        self.lists_incomplete = self.lists_incomplete.saturating_sub(1);
        let repositories = self.repositories.values().filter(|repository| {
            repository.is_visible() && (wanted.repositories.is_empty() || wanted.repositories.contains(&repository.id))
        });
        let issues = repositories.flat_map(|repository| repository.present().map(move |issue| (repository, issue)));
        let mut found: Vec<_> = issues.filter(|(_, issue)| wanted.has(issue)).collect();
        let is_by_update = query.get("sort") == Some("updated");
        found.sort_unstable_by_key(|(_, issue)| {
            (if is_by_update { issue.updated_at } else { issue.created_at }, issue.id)
        });
        if query.get("order") != Some("asc") {
            found.reverse();
        }
        let total = found.len();
        let (range, link) = query.numbered(&format!("{}/search/issues", self.origin), total.min(MOST));
        let items: Vec<_> = found[range]
            .iter()
            .map(|(repository, issue)| {
                let mut item = self.issue_json(repository, issue);
                item["score"] = 1.0.into();
                item
            })
            .collect();
        let document = json!({
            "total_count": total, "incomplete_results": is_incomplete, "items": items, "search_type": "lexical",
        });
        Answer::found(&document).with_link(link)
    }

    /// What the text of a search asks for.
    fn wanted(&self, text: &str) -> Result<Wanted, String> {
        let mut wanted = Wanted::default();
        for word in text.split_whitespace() {
            match word.split_once(':') {
                Some(("repo", full_name)) => {
                    let mut visible = self.repositories.values().filter(|repository| repository.is_visible());
                    let found = visible.find(|found| self.full_name(found.id).eq_ignore_ascii_case(full_name));
                    wanted.repositories.push(found.ok_or(UNKNOWN)?.id);
                }
                Some(("org", login)) if login.eq_ignore_ascii_case(&self.organization) => {}
                Some(("org", _)) => return Err(UNKNOWN.into()),
                Some(("is" | "type", "pr" | "pull-request")) => wanted.is_pull_request = Some(true),
                Some(("is" | "type", "issue")) => wanted.is_pull_request = Some(false),
                Some(("is" | "state", state @ ("open" | "closed"))) => wanted.is_open = Some(state == "open"),
                Some(("is", state @ ("merged" | "unmerged"))) => wanted.is_merged = Some(state == "merged"),
                Some(("created", text)) => wanted.created = Some(span(text)?),
                Some(("closed", text)) => wanted.closed = Some(span(text)?),
                Some(("updated", text)) => wanted.updated = Some(span(text)?),
                _ => return Err(format!("{word} is not supported here")),
            }
        }
        if wanted.is_pull_request.is_none() {
            return Err("Query must include 'is:issue' or 'is:pull-request'".into());
        }
        Ok(wanted)
    }
}

fn invalid(message: &str) -> Answer {
    let errors = json!([{ "message": message, "resource": "Search", "field": "q", "code": "invalid" }]);
    let document: Value = json!({ "message": "Validation Failed", "errors": errors, "status": "422" });
    Answer { status: 422, headers: Vec::new(), body: document.to_string() }
}

/// A span as `2026-01-01..2026-01-31`, `>=2026-01-01` or `2026-01-01T00:00:00Z..*`.
fn span(text: &str) -> Result<Span, String> {
    let second = TimeDelta::seconds(1);
    let all = Span { from: DateTime::<Utc>::MIN_UTC, to: DateTime::<Utc>::MAX_UTC };
    let end = |text: &str| if text == "*" { Ok(all) } else { moment(text) };
    if let Some((from, to)) = text.split_once("..") {
        return Ok(Span { from: end(from)?.from, to: end(to)?.to });
    }
    if let Some(from) = text.strip_prefix(">=") {
        return Ok(Span { from: moment(from)?.from, ..all });
    }
    if let Some(to) = text.strip_prefix("<=") {
        return Ok(Span { to: moment(to)?.to, ..all });
    }
    if let Some(from) = text.strip_prefix('>') {
        return Ok(Span { from: moment(from)?.to + second, ..all });
    }
    if let Some(to) = text.strip_prefix('<') {
        return Ok(Span { to: moment(to)?.from - second, ..all });
    }
    moment(text)
}

/// A day, or a second.
fn moment(text: &str) -> Result<Span, String> {
    if let Ok(day) = text.parse::<NaiveDate>() {
        let from = day.and_time(NaiveTime::MIN).and_utc();
        return Ok(Span { from, to: from + TimeDelta::days(1) - TimeDelta::seconds(1) });
    }
    let at = DateTime::parse_from_rfc3339(text).map_err(|_| format!("{text} is not a recognized date/time format."))?;
    Ok(Span { from: at.to_utc(), to: at.to_utc() })
}
