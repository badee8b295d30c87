//! Issues and pull requests, their labels, and how far they are read.

use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio_postgres::Error;
use tokio_postgres::types::Json;

use super::Writer;
use super::upsert::Upsert;
use crate::record::{Progress, Remaining};

/// Writer of GitHub's list as `j`, beside the repository's present name. $1 the rows, $2 the repository, $3 the time.
const ROWS: &str = "jsonb_array_elements($1::jsonb) AS item(j) LEFT JOIN repositories AS r ON r.id = $2";
const USER_ID: &str = "(j #>> '{user,id}')::bigint";
const LABELS: &str = "jsonb_array_elements($1::jsonb) AS item(j)
    CROSS JOIN jsonb_array_elements(CASE jsonb_typeof(j -> 'labels') WHEN 'array' THEN j -> 'labels' END) AS of(l)
    WHERE l ->> 'id' IS NOT NULL";

static ISSUES: LazyLock<String> = LazyLock::new(|| common("issues").raw(&["pull_request", "draft"]).sql(ROWS));

static PULL_REQUESTS: LazyLock<String> = LazyLock::new(|| {
    let merged_at = "j #>> '{pull_request,merged_at}'";
    common("pull_requests")
        .replace("merged", &format!("CASE j ->> 'state' WHEN 'closed' THEN {merged_at} IS NOT NULL END"))
        .replace("draft", "(j ->> 'draft')::boolean")
        .objects(&["pull_request"])
        .replace("merged_at", &format!("({merged_at})::timestamptz"))
        .raw(&[])
        .sql(ROWS)
});

/// What issues and pull requests both have.
fn common(table: &'static str) -> Upsert {
    Upsert::into(table)
        .key("id", "(j ->> 'id')::bigint")
        .texts(&["active_lock_reason", "author_association", "body", "comments_url", "events_url", "html_url"])
        .texts(&["labels_url", "node_id", "repository_url", "state", "state_reason", "timeline_url", "title", "url"])
        .times(&["closed_at", "created_at", "updated_at"])
        .objects(&["milestone", "performed_via_github_app", "reactions", "user", "closed_by"])
        .arrays(&["assignees", "labels"])
        // The newest version of the API has none.
        .replace("assignee", "coalesce(nullif(j -> 'assignee', 'null'), j #> '{assignees,0}')")
        .replace("comments", "(j ->> 'comments')::integer")
        .replace("locked", "(j ->> 'locked')::boolean")
        .replace("number", "(j ->> 'number')::bigint")
        .replace("org", "r.owner")
        .replace("repo", "r.name")
        // Only a search gives it.
        .replace_if_any("score", "(j ->> 'score')::double precision")
        .replace("username", "j #>> '{user,login}'")
        .replace("repository_id", "$2::bigint")
        .replace("user_id", USER_ID)
        .replace("author_is_member", &format!("was_member({USER_ID}, (j ->> 'created_at')::timestamptz)"))
        .replace("type", "CASE jsonb_typeof(j -> 'type') WHEN 'object' THEN j #>> '{type,name}' ELSE j ->> 'type' END")
        .keep(
            "opened_at",
            "least((j ->> 'created_at')::timestamptz,
                (SELECT min(t.opened_at) FROM transfers AS t WHERE t.new_issue_id = (j ->> 'id')::bigint))",
        )
        .keep("first_seen_at", "$3::timestamptz")
        .replace("deleted_at", "NULL::timestamptz")
}

impl Writer<'_> {
    /// Writer of GitHub's list.
    pub(super) async fn issues(&mut self, at: DateTime<Utc>, repository: i64, rows: &[Value]) -> Result<(), Error> {
        // A row may come twice where pages moved: the later one counts.
        let is_last = |(place, row): &(usize, &Value)| !rows[place + 1..].iter().any(|other| other["id"] == row["id"]);
        let rows: Vec<_> = rows.iter().enumerate().filter(is_last).map(|(_, row)| row).collect();
        if rows.is_empty() {
            return Ok(());
        }
        self.people(rows.iter().copied()).await?;
        let (pulls, issues): (Vec<_>, Vec<_>) = rows.iter().copied().partition(|row| row["pull_request"].is_object());
        for (table, sql, rows) in [("issues", &ISSUES, &issues), ("pull_requests", &PULL_REQUESTS, &pulls)] {
            if !rows.is_empty() {
                self.write(table, sql, &[&Json(rows), &repository, &at]).await?;
            }
        }
        self.labels(repository, &rows).await
    }

    /// The labels of rows of GitHub's list.
    async fn labels(&mut self, repository: i64, rows: &[&Value]) -> Result<(), Error> {
        let rows = Json(rows);
        let labels = format!("(SELECT DISTINCT ON (l ->> 'id') l AS j FROM {LABELS}) AS label");
        let upsert = Upsert::into("labels")
            .key("id", "(j ->> 'id')::bigint")
            .replace("repository_id", "$2::bigint")
            .replace("name", "coalesce(j ->> 'name', '')")
            .texts(&["color", "description"]);
        self.write("labels", &upsert.sql(&labels), &[&rows, &repository]).await?;
        let of = format!("SELECT (j ->> 'id')::bigint AS issue_id, (l ->> 'id')::bigint AS label_id FROM {LABELS}");
        let removed = format!(
            "WITH of AS ({of}) DELETE FROM issue_labels AS old
            USING (SELECT (j ->> 'id')::bigint AS id FROM jsonb_array_elements($1::jsonb) AS item(j)) AS row
            WHERE old.issue_id = row.id
              AND NOT EXISTS (SELECT FROM of WHERE of.issue_id = old.issue_id AND of.label_id = old.label_id)"
        );
        self.run(&removed, &[&rows]).await?;
        let added = format!("INSERT INTO issue_labels (issue_id, label_id) {of} ON CONFLICT DO NOTHING RETURNING true");
        self.write("issue_labels", &added, &[&rows]).await
    }

    /// How far a walk is.
    pub(super) async fn progress(
        &mut self,
        at: DateTime<Utc>,
        repository: i64,
        progress: &Progress,
    ) -> Result<(), Error> {
        match progress {
            Progress::Updated { since, etag } => {
                self.cursor(at, repository, "issues", Some(*since), etag.as_deref()).await
            }
            Progress::Backfill(backfill) => {
                let what = backfill.to_string();
                let since = match &backfill.remaining {
                    Remaining::UpdatedSince(since) => Some(*since),
                    Remaining::CreatedIn(spans) => spans.last().map(|(first, _)| *first),
                    Remaining::Done => Some(backfill.to),
                };
                self.cursor(at, repository, &what, since, None).await
            }
            Progress::FullScan { .. } | Progress::SingleIssue | Progress::TransferTarget { .. } => Ok(()),
        }
    }

    pub(super) async fn cursor(
        &mut self,
        at: DateTime<Utc>,
        repository: i64,
        what: &str,
        since: Option<DateTime<Utc>>,
        etag: Option<&str>,
    ) -> Result<(), Error> {
        let sql = "INSERT INTO cursors (repository_id, what, since, etag, polled_at) VALUES ($1, $2, $3, $4, $5)
            ON CONFLICT (repository_id, what) DO UPDATE
            SET since = excluded.since, etag = excluded.etag, polled_at = excluded.polled_at";
        self.run(sql, &[&repository, &what, &since, &etag, &at]).await.map(drop)
    }

    /// That a poll went through repositories to its end.
    pub(super) async fn polled(&mut self, at: DateTime<Utc>, repositories: &[i64]) -> Result<(), Error> {
        let sql =
            "INSERT INTO cursors (repository_id, what, polled_at) SELECT id, 'poll', $2 FROM unnest($1::bigint[]) AS id
            ON CONFLICT (repository_id, what) DO UPDATE SET polled_at = excluded.polled_at";
        self.run(sql, &[&repositories, &at]).await.map(drop)
    }

    /// That an issue or a pull request is gone.
    pub(super) async fn gone(&mut self, at: DateTime<Utc>, issue: i64) -> Result<(), Error> {
        for table in ["issues", "pull_requests"] {
            let sql =
                format!("UPDATE {table} SET deleted_at = $2 WHERE id = $1 AND deleted_at IS NULL RETURNING false");
            self.write(table, &sql, &[&issue, &at]).await?;
        }
        Ok(())
    }
}
