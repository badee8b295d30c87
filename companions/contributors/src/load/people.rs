//! People, members and repositories: each by its number, whatever its name is now.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio_postgres::Error;
use tokio_postgres::types::Json;

use super::Writer;
use super::upsert::Upsert;
use crate::record::Repository;

/// Where a row of GitHub's has people.
const PLACES: [&str; 5] = ["user", "actor", "assignee", "closed_by", "assignees"];

impl Writer<'_> {
    /// The people whom rows name; and where a person has another login now, it takes the place of the one before.
    pub(super) async fn people<'v>(&mut self, rows: impl Iterator<Item = &'v Value>) -> Result<(), Error> {
        let mut people = BTreeMap::new();
        for row in rows {
            let named = PLACES.iter().filter_map(|place| row.get(*place));
            let named = named.flat_map(|value| value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice));
            people.extend(named.filter_map(|person| Some((person["id"].as_i64()?, person))));
        }
        let people: Vec<_> = people.into_values().collect();
        if people.is_empty() {
            return Ok(());
        }
        let upsert = Upsert::into("people")
            .key("id", "(j ->> 'id')::bigint")
            .replace("login", "coalesce(j ->> 'login', '#' || (j ->> 'id'))")
            .texts(&["type", "avatar_url"])
            .replace(
                "is_bot",
                "coalesce(j ->> 'type' = 'Bot' OR j ->> 'login' LIKE '%[bot]' OR j ->> 'login' = ANY ($2), false)",
            );
        let renamed = "SELECT old.id, j ->> 'login' FROM people AS old
            JOIN jsonb_array_elements($1::jsonb) AS item(j) ON (j ->> 'id')::bigint = old.id
            WHERE old.login <> j ->> 'login'";
        let renamed = self.query(renamed, &[&Json(&people)]).await?;
        let from = "jsonb_array_elements($1::jsonb) AS item(j)";
        let bots = self.bots;
        self.write("people", &upsert.sql(from), &[&Json(&people), &bots]).await?;
        for row in renamed {
            self.renamed(row.get(0), row.get(1)).await?;
        }
        Ok(())
    }

    /// That a person has another login.
    async fn renamed(&mut self, id: i64, login: &str) -> Result<(), Error> {
        for table in ["issues", "pull_requests", "events"] {
            let sql = format!(
                "UPDATE {table} SET username = $2 WHERE user_id = $1 AND username IS DISTINCT FROM $2 RETURNING false"
            );
            self.write(table, &sql, &[&id, &login]).await?;
        }
        let sql = "SELECT FROM members WHERE id = $1 AND login <> $2";
        if !self.query(sql, &[&id, &login]).await?.is_empty() {
            self.free(&[(id, login)]).await?;
            let sql = "UPDATE members SET login = $2 WHERE id = $1 RETURNING false";
            self.write("members", sql, &[&id, &login]).await?;
        }
        Ok(())
    }

    /// Makes sure that no other member has one of these logins: whoever had it has another one now, that is not known yet.
    async fn free(&mut self, holders: &[(i64, &str)]) -> Result<(), Error> {
        let (ids, logins): (Vec<_>, Vec<_>) = holders.iter().copied().unzip();
        let sql = "UPDATE members AS old SET login = old.login || '#' || old.id
            FROM unnest($1::bigint[], $2::text[]) AS new(id, login)
            WHERE old.login = new.login AND old.id <> new.id RETURNING false";
        self.write("members", sql, &[&ids, &logins]).await
    }

    /// All members there are.
    pub(super) async fn members(&mut self, at: DateTime<Utc>, list: &[Value]) -> Result<(), Error> {
        let members: BTreeMap<_, _> = list.iter().filter_map(|member| Some((member["id"].as_i64()?, member))).collect();
        let people: Vec<_> = members.values().map(|member| serde_json::json!({ "user": member })).collect();
        self.people(people.iter()).await?;
        let holders: Vec<_> =
            members.iter().filter_map(|(id, member)| Some((*id, member["login"].as_str()?))).collect();
        self.free(&holders).await?;
        let upsert = Upsert::into("members")
            .key("id", "(j ->> 'id')::bigint")
            .keep("inserted_dt", "$2::timestamptz")
            .texts(&[
                "avatar_url",
                "events_url",
                "followers_url",
                "following_url",
                "gists_url",
                "gravatar_id",
                "html_url",
            ])
            .texts(&["login", "node_id", "organizations_url", "received_events_url", "repos_url", "starred_url"])
            .texts(&["subscriptions_url", "type", "url"])
            .replace("site_admin", "(j ->> 'site_admin')::boolean")
            .replace("inactive", "false")
            .replace("inactive_dt", "NULL::timestamptz")
            .raw(&[]);
        let rows: Vec<_> = members.values().collect();
        self.write("members", &upsert.sql("jsonb_array_elements($1::jsonb) AS item(j)"), &[&Json(&rows), &at]).await?;
        let ids: Vec<_> = members.keys().copied().collect();
        let left = "UPDATE members SET inactive = true, inactive_dt = $2
            WHERE NOT inactive AND NOT id = ANY ($1) RETURNING false";
        self.write("members", left, &[&ids, &at]).await?;
        self.memberships(at, &ids).await
    }

    /// From when until when people are members, and whether they were one when they did what they did.
    async fn memberships(&mut self, at: DateTime<Utc>, members: &[i64]) -> Result<(), Error> {
        let changed = "WITH ended AS (
                UPDATE memberships SET left_at = $2 WHERE left_at IS NULL AND NOT person_id = ANY ($1) RETURNING person_id
            ), begun AS (
                INSERT INTO memberships (person_id, number, joined_at)
                SELECT id, coalesce((SELECT max(number) FROM memberships WHERE person_id = id), 0) + 1,
                       CASE WHEN EXISTS (SELECT FROM memberships) THEN $2 END
                FROM unnest($1::bigint[]) AS id
                WHERE NOT EXISTS (SELECT FROM memberships WHERE person_id = id AND left_at IS NULL)
                RETURNING person_id
            ) SELECT person_id FROM ended UNION SELECT person_id FROM begun";
        let changed = self.query(changed, &[&members, &at]).await?;
        let changed: Vec<i64> = changed.iter().map(|row| row.get(0)).collect();
        if changed.is_empty() {
            return Ok(());
        }
        for (table, column) in
            [("issues", "author_is_member"), ("pull_requests", "author_is_member"), ("events", "actor_is_member")]
        {
            let sql = format!(
                "UPDATE {table} SET {column} = NOT {column} WHERE user_id = ANY ($1)
                 AND {column} <> was_member(user_id, created_at) RETURNING false"
            );
            self.write(table, &sql, &[&changed]).await?;
        }
        Ok(())
    }

    /// All repositories that are watched.
    pub(super) async fn repositories(&mut self, at: DateTime<Utc>, list: &[Repository]) -> Result<(), Error> {
        let list = Json(list);
        let upsert = Upsert::into("repositories")
            .key("id", "(j ->> 'id')::bigint")
            .texts(&["node_id", "owner", "name"])
            .replace("archived", "(j ->> 'archived')::boolean")
            .replace("private", "(j ->> 'private')::boolean")
            .keep("first_seen_at", "$2::timestamptz")
            .replace("gone_at", "NULL::timestamptz");
        let from = "jsonb_array_elements($1::jsonb) AS item(j)";
        self.write("repositories", &upsert.sql(from), &[&list, &at]).await?;
        let gone = "UPDATE repositories SET gone_at = $2 WHERE gone_at IS NULL AND NOT id = ANY (
            SELECT (j ->> 'id')::bigint FROM jsonb_array_elements($1::jsonb) AS item(j)) RETURNING false";
        self.write("repositories", gone, &[&list, &at]).await?;
        let named = "INSERT INTO repository_names (repository_id, since, owner, name)
            SELECT id, $1, owner, name FROM repositories AS now
            WHERE (owner, name) IS DISTINCT FROM (
                SELECT (owner, name) FROM repository_names WHERE repository_id = now.id ORDER BY since DESC LIMIT 1)
            ON CONFLICT DO NOTHING RETURNING repository_id";
        let named = self.query(named, &[&at]).await?;
        let named: Vec<i64> = named.iter().map(|row| row.get(0)).collect();
        if named.is_empty() {
            return Ok(());
        }
        for table in ["issues", "pull_requests", "events", "transfers"] {
            let sql = format!(
                "UPDATE {table} AS old SET org = now.owner, repo = now.name FROM repositories AS now
                 WHERE now.id = old.repository_id AND now.id = ANY ($1) AND (old.org, old.repo) IS DISTINCT FROM (now.owner, now.name)
                 RETURNING false"
            );
            self.write(table, &sql, &[&named]).await?;
        }
        Ok(())
    }
}
