//! Transfers: an issue that is another one now, in another repository.

use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio_postgres::Error;

use super::Writer;

/// What a transfer keeps of the issue that was.
const OLD: &str = "url, number, repo, title, body, created_at, closed_at, state, org, assignee, assignees, labels, \"user\", username, repository_id, \
    opened_at";

impl Writer<'_> {
    /// That an issue is another one now. `into` is its repository, if that is watched: then nothing is left of the one that was but the
    /// transfer, and what happened to it comes with the new one. Otherwise it stays, as one that is gone.
    pub(super) async fn moved(
        &mut self,
        at: DateTime<Utc>,
        (repository, issue): (i64, i64),
        hops: &[(i64, i64)],
        to: &Value,
        into: Option<i64>,
    ) -> Result<(), Error> {
        let Some(new) = to["id"].as_i64() else { return Ok(()) };
        let mut steps = vec![issue];
        for (hop_in, number) in hops.iter().filter(|(hop_in, _)| *hop_in != repository) {
            let known = "SELECT id FROM issues WHERE repository_id = $1 AND number = $2";
            steps.extend(self.query(known, &[hop_in, number]).await?.iter().map(|row| row.get::<_, i64>(0)));
        }
        steps.retain(|step| *step != new);
        for pair in steps.windows(2) {
            if let Some(destination) = self.destination(pair[1]).await? {
                self.transfer(at, pair[0], &destination).await?;
            }
        }
        if let Some(last) = steps.last() {
            self.transfer(at, *last, &Destination::of(new, to, into)).await?;
        }
        match into {
            None => self.gone(at, issue).await,
            Some(_) => {
                let opened = "UPDATE issues AS new SET opened_at = old.opened_at FROM issues AS old
                    WHERE old.id = $1 AND new.id = $2 AND old.opened_at < new.opened_at RETURNING false";
                self.write("issues", opened, &[&issue, &new]).await?;
                for (table, key) in
                    [("events", "issue_id"), ("event_polls", "id"), ("issue_labels", "issue_id"), ("issues", "id")]
                {
                    self.run(&format!("DELETE FROM {table} WHERE {key} = $1"), &[&issue]).await?;
                }
                Ok(())
            }
        }
    }

    /// An issue that is known here, as the destination of another one.
    async fn destination(&mut self, issue: i64) -> Result<Option<Destination>, Error> {
        let row = "SELECT id, repo, html_url, url, number, repository_id FROM issues WHERE id = $1";
        Ok(self.query(row, &[&issue]).await?.first().map(|row| Destination {
            issue: row.get(0),
            repo: row.get(1),
            html_url: row.get(2),
            url: row.get(3),
            number: row.get(4),
            repository: row.get(5),
        }))
    }

    /// A step of an issue from one repository to another.
    async fn transfer(&mut self, at: DateTime<Utc>, old: i64, to: &Destination) -> Result<(), Error> {
        let sql = format!(
            "INSERT INTO transfers (issue_id, {OLD}, new_issue_id, new_repo, new_html_url, new_url, new_number, new_repository_id, seen_at)
            SELECT id, {OLD}, $2, $3, $4, $5, $6, $7, $8 FROM issues WHERE id = $1 ON CONFLICT DO NOTHING RETURNING true"
        );
        let Destination { issue, repo, html_url, url, number, repository } = to;
        self.write("transfers", &sql, &[&old, issue, repo, html_url, url, number, repository, &at]).await
    }
}

/// Where an issue was transferred to.
struct Destination {
    issue: i64,
    repo: Option<String>,
    html_url: Option<String>,
    url: Option<String>,
    number: Option<i64>,
    /// None if it is not watched.
    repository: Option<i64>,
}

impl Destination {
    /// An issue as GitHub shows it.
    fn of(issue: i64, row: &Value, repository: Option<i64>) -> Self {
        let text = |name: &str| row[name].as_str().map(str::to_owned);
        let repo = row["repository_url"].as_str().and_then(|url| url.rsplit('/').next()).map(str::to_owned);
        let (html_url, url, number) = (text("html_url"), text("url"), row["number"].as_i64());
        Self { issue, repo, html_url, url, number, repository }
    }
}
