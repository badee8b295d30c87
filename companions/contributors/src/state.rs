//! How far polls are: what the records so far come to.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Datelike, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::account::Budget;
use crate::record::{Backfill, Page, Progress, Record, Remaining, Repository};

/// What was transferred longer ago is found by the full scan.
const ARRIVAL_WINDOW: TimeDelta = TimeDelta::days(2);
/// How long after its last update an issue is looked at for reactions and the like, which do not show in its `updated_at`.
const RECHECK_WINDOW: TimeDelta = TimeDelta::days(14);
/// How often it is.
const RECHECK_INTERVAL: TimeDelta = TimeDelta::hours(6);
/// What was read so soon after an update may lack what happened in the same second, or shows late.
pub(crate) const SETTLE_TIME: TimeDelta = TimeDelta::seconds(60);
/// How many events a page has at most.
pub(crate) const FULL: usize = 100;

/// Of all repositories.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) organization: String,
    /// The log of answers that it is of.
    pub(crate) log: String,
    /// The number of the log's next batch.
    pub(crate) next: u64,
    #[serde(default)]
    pub(crate) budgets: BTreeMap<String, Budget>,
    /// The repositories, also those that are gone: they may come back.
    #[serde(default)]
    pub(crate) known: BTreeMap<i64, Watched>,
    #[serde(default)]
    pub(crate) members: BTreeSet<i64>,
    #[serde(default)]
    pub(crate) members_at: Option<DateTime<Utc>>,
    /// The issues that arrived by transfer lately, and when they were created: their former places were not looked for yet.
    #[serde(default)]
    pub(crate) arrivals: BTreeMap<i64, DateTime<Utc>>,
}

/// A repository that is watched, or was.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Watched {
    pub(crate) repository: Repository,
    #[serde(default)]
    pub(crate) is_gone: bool,
    /// Since when what is updated is read.
    #[serde(default)]
    pub(crate) first: Option<DateTime<Utc>>,
    /// When a poll last went through it.
    #[serde(default)]
    pub(crate) polled_at: Option<DateTime<Utc>>,
    /// By what is read.
    #[serde(default)]
    pub(crate) cursors: BTreeMap<List, Cursor>,
    /// The day on which all its issues were last gone through, and the path of the next page if that is not done.
    #[serde(default)]
    pub(crate) full_scan: Option<(i32, Option<String>)>,
    #[serde(default)]
    pub(crate) backfills: Vec<Backfill>,
    /// Issues that others were transferred to, id by number: a transfer may leave `updated_at` as it was.
    #[serde(default)]
    pub(crate) transfer_targets: BTreeMap<i64, i64>,
}

/// What is read by the time of its last update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum List {
    Issues,
    Comments,
}

/// How far it is read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Cursor {
    pub(crate) since: DateTime<Utc>,
    /// Of the answer that there is nothing new since.
    #[serde(default)]
    pub(crate) etag: Option<String>,
}

/// The issues of a repository.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Issues(pub(crate) BTreeMap<i64, Issue>);

/// An issue or a pull request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Issue {
    pub(crate) number: i64,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) updated_at: DateTime<Utc>,
    /// Of its row.
    digest: u64,
    /// When its timeline was last asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) asked_at: Option<DateTime<Utc>>,
    /// Its `updated_at` then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    as_of: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) pages: Vec<PageState>,
    /// The day on which it was last among all issues.
    #[serde(default)]
    pub(crate) day: i32,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) gone: bool,
    /// Whether its timeline could not be read the last time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    failed: bool,
}

/// A page of a timeline that was read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PageState {
    pub(crate) etag: Option<String>,
    /// Whether another one comes after it, or may by now.
    pub(crate) goes_on: bool,
    pub(crate) first: Option<i64>,
}

impl State {
    /// That nothing was read.
    pub(crate) fn new(organization: &str, log: String) -> Self {
        Self { organization: organization.into(), log, next: 1, ..Self::default() }
    }

    /// What a record changes. `issues` are those of its repository.
    pub(crate) fn apply(&mut self, record: &Record, issues: &mut Issues) {
        match record {
            Record::Repositories { list, .. } => {
                self.known.values_mut().for_each(|watched| watched.is_gone = true);
                for repository in list {
                    let watched = self.known.entry(repository.id).or_insert_with(|| Watched::new(repository));
                    watched.repository.clone_from(repository);
                    watched.is_gone = false;
                }
            }
            Record::Members { at, list } => {
                self.members = list.iter().filter_map(|member| member["id"].as_i64()).collect();
                self.members_at = Some(*at);
            }
            Record::Issues { repository, rows, progress, .. } => {
                rows.iter().for_each(|row| issues.see(row));
                if let Some(watched) = self.known.get_mut(repository) {
                    watched.progress(progress, issues);
                }
            }
            Record::Comments { repository, numbers, since, etag, .. } => {
                for issue in issues.0.values_mut().filter(|issue| numbers.contains(&issue.number)) {
                    issue.as_of = None;
                }
                if let Some(watched) = self.known.get_mut(repository) {
                    watched.cursors.insert(List::Comments, Cursor { since: *since, etag: etag.clone() });
                }
            }
            Record::Timeline { at, issue: id, as_of, pages, last, .. } => {
                let Some(issue) = issues.0.get_mut(id) else { return };
                issue.see_pages(pages, *last);
                (issue.asked_at, issue.as_of, issue.failed) = (Some(*at), Some(*as_of), false);
                let is_arrival = |event: &Value| {
                    let when = time(&event["created_at"]).filter(|_| event["event"] == "transferred");
                    when.is_some_and(|when| *at - when < ARRIVAL_WINDOW)
                };
                if pages.iter().flat_map(|page| &page.events).any(is_arrival) {
                    self.arrivals.insert(*id, issue.created_at);
                }
            }
            Record::Unchanged { at, issues: unchanged, .. } => {
                for id in unchanged {
                    if let Some(issue) = issues.0.get_mut(id) {
                        (issue.asked_at, issue.as_of, issue.failed) = (Some(*at), Some(issue.updated_at), false);
                    }
                }
            }
            Record::Moved { issue, to, into, .. } => {
                issues.0.remove(issue);
                let watched = into.and_then(|into| self.known.get_mut(&into));
                if let (Some(watched), Some(number), Some(id)) = (watched, to["number"].as_i64(), to["id"].as_i64()) {
                    watched.transfer_targets.insert(number, id);
                }
            }
            Record::Gone { issue, .. } => {
                if let Some(issue) = issues.0.get_mut(issue) {
                    issue.gone = true;
                }
            }
            Record::Unread { issues: unread, .. } => {
                for id in unread {
                    if let Some(issue) = issues.0.get_mut(id) {
                        issue.failed = true;
                    }
                }
            }
            Record::Arrived { .. } => self.arrivals.clear(),
            Record::Backfill { repository, backfill, .. } => {
                if let Some(watched) = self.known.get_mut(repository) {
                    watched.backfills.push(backfill.clone());
                }
            }
            Record::Polled { at, repositories } => {
                for id in repositories {
                    if let Some(watched) = self.known.get_mut(id) {
                        watched.polled_at = Some(*at);
                    }
                }
            }
        }
    }

    /// The repositories that are watched.
    pub(crate) fn watched(&self) -> impl Iterator<Item = &Watched> {
        self.known.values().filter(|watched| !watched.is_gone)
    }

    /// The repositories, the one first that was polled longest ago.
    pub(crate) fn by_age(&self) -> Vec<i64> {
        let mut ids: Vec<_> = self.watched().map(|watched| (watched.polled_at, watched.repository.id)).collect();
        ids.sort();
        ids.into_iter().map(|(_, id)| id).collect()
    }

    /// When the repository was polled that was polled longest ago; `None` if one never was.
    pub(crate) fn oldest_poll(&self) -> Option<DateTime<Utc>> {
        self.watched().map(|watched| watched.polled_at).min().flatten()
    }
}

impl Watched {
    fn new(repository: &Repository) -> Self {
        Self {
            repository: repository.clone(),
            is_gone: false,
            first: None,
            polled_at: None,
            cursors: BTreeMap::new(),
            full_scan: None,
            backfills: Vec::new(),
            transfer_targets: BTreeMap::new(),
        }
    }

    /// The backfills that are not done.
    pub(crate) fn unfinished(&self) -> impl Iterator<Item = &Backfill> {
        self.backfills.iter().filter(|backfill| backfill.remaining != Remaining::Done)
    }

    /// Whether something is left of a backfill.
    pub(crate) fn is_behind(&self) -> bool {
        self.unfinished().next().is_some()
    }

    /// Whether all issues are to be gone through at a time: once a day, but not by the first poll, which has just read them.
    pub(crate) fn full_scan_is_due(&self, at: DateTime<Utc>) -> bool {
        let (day, is_polled) = (at.num_days_from_ce(), self.polled_at.is_some());
        self.full_scan.as_ref().map_or(is_polled, |(last, next)| next.is_some() || *last < day)
    }

    fn progress(&mut self, progress: &Progress, issues: &mut Issues) {
        match progress {
            Progress::Updated { since, etag } => {
                self.first = self.first.or(Some(*since));
                self.cursors.insert(List::Issues, Cursor { since: *since, etag: etag.clone() });
            }
            Progress::FullScan { day, ids, next } => {
                for id in ids {
                    if let Some(issue) = issues.0.get_mut(id) {
                        issue.day = *day;
                    }
                }
                self.full_scan = Some((*day, next.clone()));
            }
            Progress::Backfill(backfill) => {
                let is_same = |known: &&mut Backfill| (known.from, known.to) == (backfill.from, backfill.to);
                if let Some(known) =
                    self.backfills.iter_mut().find(|known| known.remaining != Remaining::Done && is_same(known))
                {
                    *known = backfill.clone();
                }
            }
            Progress::TransferTarget { number } => drop(self.transfer_targets.remove(number)),
            Progress::SingleIssue => {}
        }
    }
}

impl Issues {
    /// Whether a row of GitHub's list is known as it is.
    pub(crate) fn has(&self, row: &Value) -> bool {
        let known = row["id"].as_i64().and_then(|id| self.0.get(&id));
        known.is_some_and(|known| !known.gone && known.digest == digest(row))
    }

    /// Whether a row has what every issue has.
    pub(crate) fn is_one(row: &Value) -> bool {
        let (id, number) = (row["id"].as_i64(), row["number"].as_i64());
        id.is_some() && number.is_some() && time(&row["created_at"]).is_some() && time(&row["updated_at"]).is_some()
    }

    fn see(&mut self, row: &Value) {
        let (Some(id), Some(number), Some(created_at), Some(updated_at)) =
            (row["id"].as_i64(), row["number"].as_i64(), time(&row["created_at"]), time(&row["updated_at"]))
        else {
            return;
        };
        let digest = digest(row);
        let before = self.0.remove(&id);
        let (asked_at, as_of, pages, day) = before
            .map_or((None, None, Vec::new(), 0), |before| (before.asked_at, before.as_of, before.pages, before.day));
        let issue =
            Issue { number, created_at, updated_at, digest, asked_at, as_of, pages, day, gone: false, failed: false };
        self.0.insert(id, issue);
    }

    /// Those whose timelines are to be asked for: what was updated first, then what may have changed unseen.
    pub(crate) fn due(&self, at: DateTime<Utc>) -> Vec<i64> {
        let there = || self.0.iter().filter(|(_, issue)| !issue.gone);
        let mut updated: Vec<_> = there().filter(|(_, issue)| issue.is_updated()).collect();
        // What failed before does not hold up the others.
        updated.sort_by_key(|(_, issue)| issue.failed);
        let mut unseen: Vec<_> =
            there().filter(|(_, issue)| !issue.is_updated() && issue.may_have_changed(at)).collect();
        unseen.sort_by_key(|(_, issue)| issue.asked_at);
        updated.into_iter().chain(unseen).map(|(id, _)| *id).collect()
    }
}

impl Issue {
    /// Takes the pages of its timeline that differ; it has pages up to `last`.
    fn see_pages(&mut self, pages: &[Page], last: u32) {
        self.pages.resize(last as usize, PageState { etag: None, goes_on: false, first: None });
        for page in pages {
            if let Some(place) = self.pages.get_mut(page.number as usize - 1) {
                *place = page.known(last);
            }
        }
    }

    /// Whether its timeline was read before its last update, or hardly later.
    fn is_updated(&self) -> bool {
        let is_settled = self.asked_at.is_some_and(|asked| asked - self.updated_at > SETTLE_TIME);
        self.as_of != Some(self.updated_at) || !is_settled
    }

    fn may_have_changed(&self, at: DateTime<Utc>) -> bool {
        let is_due = self.asked_at.is_none_or(|asked| at - asked >= RECHECK_INTERVAL);
        at - self.updated_at <= RECHECK_WINDOW && is_due
    }
}

/// What tells a row of GitHub's list from another one. What a search adds does not count.
fn digest(row: &Value) -> u64 {
    let mut hash = Sha256::new();
    for (name, value) in row.as_object().into_iter().flatten() {
        if name != "score" && name != "text_matches" {
            hash.update(name);
            hash.update(value.to_string());
        }
    }
    short_hash(hash)
}

/// The first eight bytes of a hash.
pub(crate) fn short_hash(hash: Sha256) -> u64 {
    hash.finalize().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// A time as GitHub writes it.
pub(crate) fn time(value: &Value) -> Option<DateTime<Utc>> {
    value.as_str()?.parse().ok()
}
