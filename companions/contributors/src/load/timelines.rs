//! What happened to an issue, page by page of its timeline, with the pages' ETags.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tokio_postgres::Error;
use tokio_postgres::types::Json;

use super::Writer;
use super::upsert::Upsert;
use crate::record::Page;

/// $1 the events, each with its page, $2 the issue, $3 the repository, $4 the time.
static EVENTS: LazyLock<String> = LazyLock::new(|| {
    // A review has a user and no actor, a commit neither.
    let user = "coalesce(nullif(j -> 'actor', 'null'), nullif(j -> 'user', 'null'))";
    let user_id = format!("({user} ->> 'id')::bigint");
    let created_at =
        "coalesce(j ->> 'created_at', j ->> 'submitted_at', j #>> '{author,date}', j #>> '{comments,0,created_at}')";
    Upsert::into("events")
        .key("id", "(j ->> 'id')::bigint")
        .key("issue_id", "$2::bigint")
        .replace("org", "r.owner")
        .replace("repo", "r.name")
        .replace("event", "coalesce(j ->> 'event', 'unknown')")
        .texts(&["body", "state", "node_id", "author_association"])
        .objects(&["label", "reactions"])
        .replace("created_at", &format!("({created_at})::timestamptz"))
        .times(&["updated_at"])
        .replace("user", user)
        .replace("username", &format!("{user} ->> 'login'"))
        .replace("repository_id", "$3::bigint")
        .replace("user_id", &user_id)
        .replace("actor_is_member", &format!("was_member({user_id}, ({created_at})::timestamptz)"))
        .replace("page_no", "page")
        .keep("first_seen_at", "$4::timestamptz")
        .replace("deleted_at", "NULL::timestamptz")
        .raw(&["actor"])
        .sql("(SELECT i -> 'event' AS j, (i ->> 'page')::integer AS page FROM jsonb_array_elements($1::jsonb) AS item(i)) AS item
             LEFT JOIN repositories AS r ON r.id = $3")
});

/// Which timeline it is.
pub(super) struct Of {
    pub(super) at: DateTime<Utc>,
    pub(super) repository: i64,
    pub(super) issue: i64,
    pub(super) as_of: DateTime<Utc>,
    /// The number of its last page.
    pub(super) last: u32,
}

impl Writer<'_> {
    /// The pages of a timeline that differ.
    pub(super) async fn timeline(
        &mut self,
        of: &Of,
        pages: &[Page],
        is_kept: impl Fn(&str) -> bool,
    ) -> Result<(), Error> {
        let all = pages.iter().flat_map(|page| page.events.iter().map(|event| (page.number, event)));
        // An event may be on two pages, if one before it was deleted while they were read.
        let events: BTreeMap<_, _> =
            all.filter_map(|(page, event)| Some((event["id"].as_i64()?, (page, event)))).collect();
        let ids: Vec<_> = events.keys().copied().collect();
        let kind = |event: &Value| event["event"].as_str().unwrap_or("unknown").to_owned();
        let kept: Vec<_> = events.values().filter(|(_, event)| is_kept(&kind(event))).collect();
        self.people(kept.iter().map(|(_, event)| *event)).await?;
        let kept: Vec<_> = kept.iter().map(|(page, event)| json!({ "page": page, "event": event })).collect();
        self.write("events", &EVENTS, &[&Json(&kept), &of.issue, &of.repository, &of.at]).await?;

        let number = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
        let numbers: Vec<_> = pages.iter().map(|page| number(page.number)).collect();
        let last = number(of.last);
        // What was on a page that was answered, and is on none now.
        let deleted = "UPDATE events SET deleted_at = $5 WHERE issue_id = $1 AND deleted_at IS NULL
            AND (page_no = ANY ($2) OR page_no > $3) AND NOT id = ANY ($4) RETURNING false";
        self.write("events", deleted, &[&of.issue, &numbers, &last, &ids, &of.at]).await?;

        let etags: Vec<_> = pages.iter().map(|page| page.etag.as_deref()).collect();
        let counts: Vec<_> = pages.iter().map(|page| i32::try_from(page.events.len()).unwrap_or(i32::MAX)).collect();
        let polls = "INSERT INTO event_polls (id, page_no, etag, events, issue_updated_at, polled_at)
            SELECT $1, page_no, etag, events, $5, $6 FROM unnest($2::integer[], $3::text[], $4::integer[]) AS page(page_no, etag, events)
            ON CONFLICT (id, page_no) DO UPDATE SET etag = excluded.etag, events = excluded.events,
                issue_updated_at = excluded.issue_updated_at, polled_at = excluded.polled_at";
        self.run(polls, &[&of.issue, &numbers, &etags, &counts, &of.as_of, &of.at]).await?;
        self.run("DELETE FROM event_polls WHERE id = $1 AND page_no > $2", &[&of.issue, &last]).await.map(drop)
    }

    /// Timelines of which no page differs.
    pub(super) async fn unchanged(&mut self, at: DateTime<Utc>, issues: &[i64]) -> Result<(), Error> {
        self.run("UPDATE event_polls SET polled_at = $2 WHERE id = ANY ($1)", &[&issues, &at]).await.map(drop)
    }
}
