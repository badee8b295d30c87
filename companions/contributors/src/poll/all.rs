//! All issues of a repository, once a day: what changed though its `updated_at` did not, and what is gone.

use chrono::Datelike;
use serde_json::Value;

use super::Run;
use crate::account::array;
use crate::error::Error;
use crate::record::{Record, Walked};
use crate::state::Issue;

impl Run<'_> {
    /// Goes through all issues of the open repository, if that was not done today, and asks for those that are not there.
    pub(super) async fn all_issues(&mut self) -> Result<(), Error> {
        let Some(watched) = self.open.and_then(|id| self.state.repositories.get(&id)) else { return Ok(()) };
        if !watched.all_is_due(self.now()) {
            return Ok(());
        }
        let (day, mut next) = match watched.all.clone() {
            Some((day, Some(next))) => (day, Some(next)),
            _ => {
                let first = format!("{}/issues?state=all&sort=created&direction=asc&per_page=100", self.path());
                (self.now().num_days_from_ce(), Some(first))
            }
        };
        while let Some(path) = next {
            let Some(answer) = self.account.get(&path, None).await? else { return Ok(()) };
            next = self.account.next(&answer)?;
            let rows = array(&answer)?;
            let ids: Vec<_> = rows.iter().filter_map(|row| row["id"].as_i64()).collect();
            // Those that are not known are of before the first poll.
            let is_news = |row: &Value| {
                row["id"].as_i64().is_some_and(|id| self.issues.0.contains_key(&id)) && !self.issues.has(row)
            };
            let rows = rows.into_iter().filter(|row| is_news(row)).collect();
            self.rows(rows, Walked::All { day, ids, next: next.clone() }).await?;
        }
        // A row that moved from one page to another while they were read is not listed, and is there.
        let is_absent = |issue: &Issue| !issue.gone && issue.day < day;
        let absent = self.issues.0.iter().filter(|(_, issue)| is_absent(issue));
        for (id, number) in absent.map(|(id, issue)| (*id, issue.number)).collect::<Vec<_>>() {
            self.ask(id, number).await?;
        }
        Ok(())
    }

    /// Asks for the issues of the open repository that others were transferred to.
    pub(super) async fn sought(&mut self) -> Result<(), Error> {
        let watched = self.open.and_then(|id| self.state.repositories.get(&id));
        for (number, id) in watched.map(|watched| watched.sought.clone()).unwrap_or_default() {
            if !self.issues.0.contains_key(&id) {
                self.ask(id, number).await?;
            }
            self.rows(Vec::new(), Walked::Sought { number }).await?;
        }
        Ok(())
    }

    /// Asks for the issues that were transferred to where others arrived: those that were created in the same second.
    pub(super) async fn arrivals(&mut self) -> Result<(), Error> {
        if self.state.arrivals.is_empty() {
            return Ok(());
        }
        for id in self.state.by_age() {
            self.enter(id).await?;
            let arrivals = &self.state.arrivals;
            let same = |issue: &&Issue| !issue.gone && arrivals.contains(&issue.created_at);
            let same = self.issues.0.iter().filter(|(_, issue)| same(issue));
            let same: Vec<_> = same.map(|(id, issue)| (*id, issue.number)).collect();
            let mut done = Ok(());
            for (id, number) in same {
                done = self.ask(id, number).await.map(drop);
                if done.is_err() {
                    break;
                }
            }
            self.leave(done).await?;
        }
        self.push(&Record::Arrived { at: self.now() })?;
        self.flush().await
    }
}
