//! All issues of a repository, once a day: what changed though its `updated_at` did not, and what is gone.

use chrono::Datelike;
use serde_json::Value;

use super::Run;
use crate::account::array;
use crate::error::Error;
use crate::record::{Progress, Record};
use crate::state::{Issue, time};

impl Run<'_> {
    /// Goes through all issues of the open repository, if that was not done today, and asks for those that are not there.
    pub(super) async fn full_scan(&mut self) -> Result<(), Error> {
        let Some(watched) = self.watched() else { return Ok(()) };
        if !watched.full_scan_is_due(self.now()) {
            return Ok(());
        }
        let first = watched.first;
        let (day, mut next, mut is_resumed) = match watched.full_scan.clone() {
            Some((day, Some(next))) => (day, Some(next), true),
            _ => (self.now().num_days_from_ce(), Some(self.first_page()), false),
        };
        while let Some(path) = next {
            let answer = match self.account.get(&path, None).await {
                // A page to go on from may not be there any more.
                Err(Error::Http(error))
                    if is_resumed && error.status().is_some_and(|status| status.is_client_error()) =>
                {
                    (next, is_resumed) = (Some(self.first_page()), false);
                    continue;
                }
                answer => answer?,
            };
            let Some(answer) = answer else { return Ok(()) };
            is_resumed = false;
            next = self.account.next(&answer)?;
            let rows = array(&answer)?;
            let ids: Vec<_> = rows.iter().filter_map(|row| row["id"].as_i64()).collect();
            // Those that are not known are of before the first poll, unless they came here with an old time.
            let is_of_polls = |row: &Value| {
                let is_known = row["id"].as_i64().is_some_and(|id| self.issues.0.contains_key(&id));
                is_known || first.is_some_and(|first| time(&row["updated_at"]).is_some_and(|at| at >= first))
            };
            let rows = rows.into_iter().filter(|row| is_of_polls(row) && !self.issues.has(row)).collect();
            self.rows(rows, Progress::FullScan { day, ids, next: next.clone() }).await?;
        }
        // A row that moved from one page to another while they were read is not listed, and is there.
        let is_absent = |issue: &Issue| !issue.gone && issue.day < day;
        let absent = self.issues.0.iter().filter(|(_, issue)| is_absent(issue));
        let absent = absent.map(|(id, issue)| (*id, issue.number)).collect();
        self.look_up_all(absent).await
    }

    fn first_page(&self) -> String {
        format!("{}/issues?state=all&sort=created&direction=asc&per_page=100", self.path())
    }

    /// Asks for the issues of the open repository that others were transferred to.
    pub(super) async fn transfer_targets(&mut self) -> Result<(), Error> {
        let targets = self.watched().map(|watched| watched.transfer_targets.clone());
        for (number, id) in targets.unwrap_or_default() {
            if !self.issues.0.contains_key(&id) {
                self.look_up_all(vec![(id, number)]).await?;
            }
            self.rows(Vec::new(), Progress::TransferTarget { number }).await?;
        }
        Ok(())
    }

    /// Asks for the issues that were transferred to where others arrived: those that were created in the same second.
    pub(super) async fn arrivals(&mut self) -> Result<(), Error> {
        if self.state.arrivals.is_empty() {
            return Ok(());
        }
        for repository in self.state.by_age() {
            self.open_repository(repository).await?;
            let arrivals = &self.state.arrivals;
            let is_same = |id: &i64, issue: &Issue| {
                !issue.gone
                    && !arrivals.contains_key(id)
                    && arrivals.values().any(|created| *created == issue.created_at)
            };
            let same = self.issues.0.iter().filter(|(id, issue)| is_same(id, issue));
            let same = same.map(|(id, issue)| (*id, issue.number)).collect();
            let done = self.look_up_all(same).await;
            self.finish_repository(done).await?;
        }
        self.record(&Record::Arrived { at: self.now() })?;
        self.flush().await
    }
}
