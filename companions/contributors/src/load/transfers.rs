//! Transfers: an issue that is another one now, in another repository.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tokio_postgres::Error;
use tokio_postgres::types::Json;

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
        for (place, old) in steps.iter().enumerate() {
            match steps.get(place + 1) {
                Some(next) => self.step(at, *old, *next).await?,
                None => self.last_step(at, *old, new, to, into).await?,
            }
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

    /// A transfer to an issue that was transferred again.
    async fn step(&mut self, at: DateTime<Utc>, old: i64, next: i64) -> Result<(), Error> {
        let row = "SELECT repo, html_url, url, number, repository_id FROM issues WHERE id = $1";
        let Some(row) = self.query(row, &[&next]).await?.into_iter().next() else { return Ok(()) };
        let (repo, html_url, url): (Option<String>, Option<String>, Option<String>) =
            (row.get(0), row.get(1), row.get(2));
        let (number, repository): (i64, i64) = (row.get(3), row.get(4));
        let to = json!({ "repository_url": repo, "html_url": html_url, "url": url, "number": number });
        self.last_step(at, old, next, &to, Some(repository)).await
    }

    async fn last_step(
        &mut self,
        at: DateTime<Utc>,
        old: i64,
        new: i64,
        to: &Value,
        into: Option<i64>,
    ) -> Result<(), Error> {
        let sql = format!(
            "INSERT INTO transfers (issue_id, new_issue_id, {OLD}, new_repo, new_html_url, new_url, new_number, new_repository_id, seen_at)
            SELECT id, $2, {OLD}, substring($3::jsonb ->> 'repository_url' FROM '[^/]*$'), $3::jsonb ->> 'html_url', $3::jsonb ->> 'url',
                   ($3::jsonb ->> 'number')::bigint, $4, $5
            FROM issues WHERE id = $1 ON CONFLICT DO NOTHING RETURNING true"
        );
        self.write("transfers", &sql, &[&old, &new, &Json(to), &into, &at]).await
    }
}
