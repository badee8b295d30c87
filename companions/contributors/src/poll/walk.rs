//! A list by the time of the last update, read so that rows may be updated meanwhile.
//!
//! An updated row moves to the end of the list, and those after it move up by one: who counts pages misses one. So each page is the
//! first one since the last time that was seen. A page that is all of one second is followed by the next page of that second; once the
//! second is over, its pages are read again from the last to the first, against the direction in which rows move.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::Value;

use super::Run;
use crate::account::{Account, array};
use crate::error::Error;
use crate::record::{Progress, Record};
use crate::state::{Cursor, Issues, List, SETTLE_TIME, time};

/// How much earlier than its cursor a poll begins: an update may show late.
const OVERLAP: TimeDelta = TimeDelta::seconds(60);

/// A walk under way.
pub(super) struct Walk {
    list: String,
    /// All rows that were updated before it have been seen.
    since: DateTime<Utc>,
    page: u32,
    /// The page to be read again, and the second that it is of.
    again: Option<(DateTime<Utc>, u32)>,
    is_done: bool,
    /// Of the first page, if it is the only one.
    etag: Option<String>,
    is_begun: bool,
}

impl Walk {
    /// Along a list, as `repos/acme/shop/issues?state=all`.
    pub(super) fn new(list: String, since: DateTime<Utc>) -> Self {
        Self { list, since, page: 1, again: None, is_done: false, etag: None, is_begun: false }
    }

    /// The rows of the next page, in the order of their updates; `None` at the end.
    pub(super) async fn next(&mut self, account: &mut Account) -> Result<Option<Vec<Value>>, Error> {
        if let Some((second, page)) = self.again {
            self.again = (page > 1).then_some((second, page - 1));
            let path = self.path(second, page);
            return account.get(&path, None).await?.as_ref().map(array).transpose();
        }
        if self.is_done {
            return Ok(None);
        }
        let path = self.path(self.since, self.page);
        let Some(answer) = account.get(&path, self.etag.as_deref()).await? else {
            self.is_done = true;
            return Ok(None);
        };
        let rows = array(&answer)?;
        self.is_done = answer.next().is_none();
        let etag = answer.etag().map(str::to_owned);
        let last = rows.last().and_then(|row| time(&row["updated_at"])).unwrap_or(self.since);
        let second = self.since;
        self.etag = etag.filter(|_| self.is_done && !self.is_begun);
        self.is_begun = true;
        self.since = self.since.max(last);
        if last > second || self.is_done {
            self.again = (self.page > 1).then(|| (second, self.page - 1));
            self.page = 1;
        } else {
            self.page += 1;
        }
        Ok(Some(rows))
    }

    /// Up to when all rows have been seen for good.
    pub(super) fn settled(&self) -> DateTime<Utc> {
        self.again.map_or(self.since, |(second, _)| second)
    }

    fn path(&self, since: DateTime<Utc>, page: u32) -> String {
        let since = since.to_rfc3339_opts(SecondsFormat::Secs, true);
        let list = &self.list;
        let and = if list.contains('?') { '&' } else { '?' };
        format!("{list}{and}sort=updated&direction=asc&since={since}&per_page=100&page={page}")
    }
}

impl Run<'_> {
    /// The issues and pull requests that were updated since the last poll.
    pub(super) async fn new_issues(&mut self) -> Result<(), Error> {
        let (mut cursor, mut walk) = self.cursor(List::Issues, format!("{}/issues?state=all", self.path()));
        while let Some(rows) = walk.next(&mut self.account).await? {
            let rows: Vec<_> = rows.into_iter().filter(|row| !self.issues.has(row)).collect();
            if self.moves(List::Issues, &mut cursor, &walk) || !rows.is_empty() {
                let walked = Progress::Updated { since: cursor.since, etag: cursor.etag.clone() };
                self.rows(rows, walked).await?;
            }
        }
        Ok(())
    }

    /// The issues whose comments were written or edited after their timelines were read.
    pub(super) async fn new_comments(&mut self) -> Result<(), Error> {
        let (mut cursor, mut walk) = self.cursor(List::Comments, format!("{}/issues/comments", self.path()));
        let asked: BTreeMap<_, _> = self.issues.0.values().map(|issue| (issue.number, issue.asked_at)).collect();
        while let Some(rows) = walk.next(&mut self.account).await? {
            let late = |row: &Value| {
                let number = row["issue_url"].as_str()?.rsplit('/').next()?.parse().ok()?;
                let asked = asked.get(&number).copied().flatten()?;
                (time(&row["updated_at"])? > asked - SETTLE_TIME).then_some(number)
            };
            let mut numbers: Vec<i64> = rows.iter().filter_map(late).collect();
            numbers.dedup();
            if self.moves(List::Comments, &mut cursor, &walk) || !numbers.is_empty() {
                let (at, repository) = (self.now(), self.open.unwrap_or_default());
                let Cursor { since, etag } = cursor.clone();
                self.record(&Record::Comments { at, repository, numbers, since, etag })?;
            }
        }
        Ok(())
    }

    /// Writes rows of issues down.
    pub(super) async fn rows(&mut self, mut rows: Vec<Value>, progress: Progress) -> Result<(), Error> {
        rows.retain(|row| {
            let is_one = Issues::is_one(row);
            if !is_one {
                tracing::warn!("{}: a row without id, number, created_at or updated_at is left out", self.name());
            }
            is_one
        });
        self.report.rows += rows.len();
        let (at, repository) = (self.now(), self.open.unwrap_or_default());
        self.record(&Record::Issues { at, repository, rows, progress })?;
        if self.is_time_to_flush() { self.flush().await } else { Ok(()) }
    }

    /// How far a list is read, and the walk that goes on from there.
    fn cursor(&self, what: List, list: String) -> (Cursor, Walk) {
        let known = self.watched().and_then(|watched| watched.cursors.get(&what).cloned());
        let (cursor, since) = match known {
            Some(cursor) => (cursor.clone(), cursor.since - OVERLAP),
            None => {
                // The first poll reads all timelines, with their comments.
                let now = self.now();
                let since = if what == List::Comments { now } else { self.config.start(now) };
                (Cursor { since, etag: None }, since)
            }
        };
        let etag = cursor.etag.clone();
        (cursor, Walk { etag, ..Walk::new(list, since) })
    }

    /// Moves a cursor to where a walk is: whether that is written down nowhere yet.
    fn moves(&self, what: List, cursor: &mut Cursor, walk: &Walk) -> bool {
        let before = cursor.clone();
        if walk.settled() > cursor.since {
            *cursor = Cursor { since: walk.settled(), etag: None };
        } else {
            cursor.etag.clone_from(&walk.etag);
        }
        let is_known = self.watched().is_some_and(|watched| watched.cursors.contains_key(&what));
        !is_known || cursor.since != before.since || cursor.etag != before.etag
    }
}
