//! Backfills: all issues that were created in a period.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::Value;

use super::walk::Walk;
use super::{Period, Run};
use crate::account::cleaned;
use crate::error::Error;
use crate::record::{Backfill, Progress, Record, Remaining, Repository};
use crate::state::{List, time};

/// The most that a search gives of what it finds.
/// <https://docs.github.com/en/rest/search/search#about-search>
const SEARCH_LIMIT: u64 = 1000;
/// How often a search is asked that gives not all that it counts, and how long it is left to itself in between.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(2);
const SECOND: TimeDelta = TimeDelta::seconds(1);

impl Run<'_> {
    /// Writes down that a period is wanted. Polls read what changes from now on, so that there is no gap between the two.
    pub(super) async fn register_backfill(&mut self, period: &Period) -> Result<(), Error> {
        let midnight = |day: chrono::NaiveDate| day.and_time(chrono::NaiveTime::MIN).and_utc();
        let (from, to) = (midnight(period.from), midnight(period.to));
        let wrong = |why: String| Err(Error::Setting { setting: "backfill", why });
        if from >= to || from > self.now() {
            return wrong(format!("{} to {} is no period of the past", period.from, period.to));
        }
        let names = &period.repositories;
        let is_named = |name: &str, repository: &Repository| {
            name.eq_ignore_ascii_case(&repository.name) || name.eq_ignore_ascii_case(&repository.full_name())
        };
        let is_watched = |name: &&String| self.state.watched().any(|watched| is_named(name, &watched.repository));
        if let Some(name) = names.iter().find(|name| !is_watched(name)) {
            let watched: Vec<_> = self.state.watched().map(|watched| watched.repository.name.as_str()).collect();
            return wrong(format!("no repository {name} is watched, but {}", watched.join(", ")));
        }
        for id in self.state.by_age() {
            let Some(watched) = self.state.known.get(&id) else { continue };
            if !names.is_empty() && !names.iter().any(|name| is_named(name, &watched.repository)) {
                continue;
            }
            let is_known = |known: &Backfill| known.from <= from && known.to >= to;
            let (is_begun, is_wanted) =
                (watched.cursors.contains_key(&List::Issues), watched.backfills.iter().any(is_known));
            self.open_repository(id).await?;
            let at = self.now();
            if !is_begun {
                let since = self.config.start(at);
                let progress = Progress::Updated { since, etag: None };
                self.record(&Record::Issues { at, repository: id, rows: Vec::new(), progress })?;
            }
            if !is_wanted {
                let remaining = if period.search {
                    Remaining::CreatedIn(vec![(from, to - SECOND)])
                } else {
                    Remaining::UpdatedSince(from)
                };
                self.record(&Record::Backfill { at, repository: id, backfill: Backfill { from, to, remaining } })?;
            }
            self.finish_repository(Ok(())).await?;
        }
        // From here on polls go on with it.
        self.save().await
    }

    /// Goes on with the backfills of the open repository.
    pub(super) async fn backfills(&mut self) -> Result<(), Error> {
        let unfinished: Vec<_> = self.watched().into_iter().flat_map(|watched| watched.unfinished()).cloned().collect();
        for backfill in unfinished {
            // What was found before this poll.
            self.timelines().await?;
            match backfill.remaining.clone() {
                Remaining::UpdatedSince(since) => self.walk(backfill, since).await?,
                Remaining::CreatedIn(spans) => self.search(backfill, spans).await?,
                Remaining::Done => {}
            }
        }
        Ok(())
    }

    /// Whatever was created in the period was updated since it began.
    async fn walk(&mut self, mut backfill: Backfill, since: DateTime<Utc>) -> Result<(), Error> {
        let mut walk = Walk::new(format!("{}/issues?state=all", self.path()), since);
        let is_of = |row: &Value| time(&row["created_at"]).is_some_and(|at| at >= backfill.from && at < backfill.to);
        while let Some(rows) = walk.next(&mut self.account).await? {
            let rows: Vec<_> = rows.into_iter().filter(|row| is_of(row) && !self.issues.has(row)).collect();
            let left = Backfill { remaining: Remaining::UpdatedSince(walk.settled()), ..backfill.clone() };
            self.rows(rows, Progress::Backfill(left)).await?;
            self.timelines().await?;
        }
        backfill.remaining = Remaining::Done;
        self.rows(Vec::new(), Progress::Backfill(backfill)).await
    }

    /// Searches for what was created in the spans, and halves those of which there is more than a search gives.
    async fn search(
        &mut self,
        mut backfill: Backfill,
        mut spans: Vec<(DateTime<Utc>, DateTime<Utc>)>,
    ) -> Result<(), Error> {
        while let Some((first, last)) = spans.pop() {
            let Some(mut rows) = self.created_in(first, last).await? else {
                let middle = first + TimeDelta::seconds((last - first).num_seconds() / 2);
                spans.extend([(middle + SECOND, last), (first, middle)]);
                continue;
            };
            rows.retain(|row| !self.issues.has(row));
            backfill.remaining = Remaining::CreatedIn(spans.clone());
            self.rows(rows, Progress::Backfill(backfill.clone())).await?;
            self.timelines().await?;
        }
        backfill.remaining = Remaining::Done;
        self.rows(Vec::new(), Progress::Backfill(backfill)).await
    }

    /// The issues and pull requests that were created in a span; `None` if they are more than a search gives.
    async fn created_in(&mut self, first: DateTime<Utc>, last: DateTime<Utc>) -> Result<Option<Vec<Value>>, Error> {
        let Some(mut rows) = self.found("issue", first, last).await? else { return Ok(None) };
        let Some(pulls) = self.found("pr", first, last).await? else { return Ok(None) };
        rows.extend(pulls);
        Ok(Some(rows))
    }

    /// What a search finds that was created in a span; `None` if that is more than it gives.
    async fn found(
        &mut self,
        kind: &str,
        first: DateTime<Utc>,
        last: DateTime<Utc>,
    ) -> Result<Option<Vec<Value>>, Error> {
        let name = self.name();
        let at = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
        let query = format!("repo:{name}+is:{kind}+created:{}..{}", at(first), at(last));
        let (mut count, mut total) = (0, 0);
        for tried in 0..TRIES {
            if tried > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            let (mut rows, mut is_incomplete, mut page) = (BTreeMap::new(), false, 1);
            loop {
                let path = format!("search/issues?q={query}&sort=created&order=asc&per_page=100&page={page}");
                let Some(answer) = self.account.get(&path, None).await? else { break };
                let body: Value = answer.json("a search")?;
                total = body["total_count"].as_u64().unwrap_or_default();
                if total > SEARCH_LIMIT && first < last {
                    return Ok(None);
                }
                is_incomplete |= body["incomplete_results"] == true;
                let items = body["items"].as_array().into_iter().flatten();
                rows.extend(items.filter_map(|item| Some((item["id"].as_i64()?, cleaned(item.clone())))));
                if answer.next().is_none() || page * 100 >= SEARCH_LIMIT {
                    break;
                }
                page += 1;
            }
            count = rows.len();
            if !is_incomplete && count as u64 >= total {
                return Ok(Some(rows.into_values().collect()));
            }
        }
        Err(Error::Search { query, found: count, total })
    }
}
