//! The pack `models/contributors` on the tables that the companion of that name fills: the star tables and every view, for a
//! small organization with the cases that are easy to get wrong.

use std::collections::BTreeMap;
use std::path::Path;

use blackwater_tests::{Oracle, World};
use tokio_postgres::SimpleQueryMessage;

/// Functions that fill rows as the companion does.
const HELPERS: &str = r#"
CREATE FUNCTION add_issue(id bigint, repository bigint, number bigint, author bigint, opened timestamptz, closed timestamptz = NULL,
                          created timestamptz = NULL) RETURNS void LANGUAGE sql AS $$
    INSERT INTO issues (id, repository_id, org, repo, number, user_id, username, "user", author_is_member, opened_at, created_at,
                        closed_at, state, updated_at, title, html_url, body, comments, locked, first_seen_at, raw)
    SELECT $1, $2, r.owner, r.name, $3, $4, p.login, jsonb_build_object('login', p.login), was_member($4, $5), $5, coalesce($7, $5),
           $6, CASE WHEN $6 IS NULL THEN 'open' ELSE 'closed' END, coalesce($6, $5), 'Title ' || $3,
           'https://github.com/' || r.owner || '/' || r.name || '/issues/' || $3, 'A body', 0, false, now(), '{"id": 1}'
    FROM repositories r LEFT JOIN people p ON p.id = $4 WHERE r.id = $2
$$;
CREATE FUNCTION add_pull_request(id bigint, repository bigint, number bigint, author bigint, opened timestamptz,
                                 closed timestamptz = NULL, merged boolean = NULL) RETURNS void LANGUAGE sql AS $$
    INSERT INTO pull_requests (id, repository_id, org, repo, number, user_id, username, author_is_member, opened_at, created_at,
                               closed_at, state, updated_at, title, first_seen_at, merged, merged_at, draft)
    SELECT $1, $2, r.owner, r.name, $3, $4, p.login, was_member($4, $5), $5, $5, $6,
           CASE WHEN $6 IS NULL THEN 'open' ELSE 'closed' END, coalesce($6, $5), 'Title ' || $3, now(), $7,
           CASE WHEN $7 THEN $6 END, $6 IS NULL
    FROM repositories r LEFT JOIN people p ON p.id = $4 WHERE r.id = $2
$$;
CREATE FUNCTION add_event(id bigint, issue bigint, event text, actor bigint, at timestamptz, reactions integer = NULL)
RETURNS void LANGUAGE sql AS $$
    INSERT INTO events (id, issue_id, event, user_id, username, actor_is_member, created_at, updated_at, reactions, body,
                        state, repository_id, org, repo, page_no, first_seen_at)
    SELECT $1, $2, $3, $4, p.login, was_member($4, $5), $5, CASE $3 WHEN 'commented' THEN $5 END,
           jsonb_build_object('total_count', $6), 'A body', CASE $3 WHEN 'reviewed' THEN 'approved' END,
           i.repository_id, i.org, i.repo, 1, now()
    FROM (SELECT issues.id, repository_id, org, repo FROM issues
          UNION SELECT pull_requests.id, repository_id, org, repo FROM pull_requests) AS i
    LEFT JOIN people p ON p.id = $4 WHERE i.id = $2
$$;
CREATE FUNCTION show_labels() RETURNS void LANGUAGE sql AS $$
    UPDATE issues SET labels = ARRAY(
        SELECT json_build_object('name', labels.name) FROM issue_labels JOIN labels ON labels.id = label_id WHERE issue_id = issues.id)
$$;
"#;

const ORGANIZATION: &str = "
INSERT INTO people (id, login, type, is_bot) VALUES
    (1, 'maria', 'User', false), (2, 'liam', 'User', false), (3, 'octo', 'User', false), (4, 'nina', 'User', false),
    (5, 'dependabot[bot]', 'Bot', true), (6, 'acme-ci', 'User', true), (7, 'github-actions[bot]', 'Bot', true),
    (8, 'quiet', 'User', false);
INSERT INTO members (id, login, inserted_dt, inactive, inactive_dt) VALUES
    (1, 'maria', now(), false, NULL), (2, 'liam', now(), true, '2024-04-01Z'), (6, 'acme-ci', now(), false, NULL);
INSERT INTO memberships VALUES (1, 1, NULL, NULL), (2, 1, '2023-01-01Z', '2024-04-01Z'), (6, 1, NULL, NULL);
INSERT INTO repositories (id, owner, name, archived, private, first_seen_at) VALUES
    (10, 'acme', 'app', false, false, now()), (20, 'acme', 'docs', false, false, now()),
    (30, 'acme', 'lib', false, true, now()), (40, 'acme', 'busy', true, false, now());
INSERT INTO labels (id, repository_id, name) VALUES
    (100, 10, 'bug'), (300, 30, 'pending-community-response'), (301, 30, 'pending-close-if-no-answer');

-- The author, a bot that is a member, and a stranger comment before the first member does.
SELECT add_issue(1001, 10, 1, 3, '2024-03-01 10:00Z', '2024-03-05 10:00Z');
SELECT add_event(1, 1001, 'mentioned', 8, '2024-03-01 10:00Z'), add_event(2, 1001, 'commented', 3, '2024-03-01 10:30Z'),
       add_event(3, 1001, 'commented', 6, '2024-03-01 10:45Z'), add_event(4, 1001, 'commented', 4, '2024-03-01 11:00Z'),
       add_event(5, 1001, 'commented', 1, '2024-03-01 12:00Z'), add_event(6, 1001, 'commented', 2, '2024-03-01 13:00Z'),
       add_event(7, 1001, 'closed', 1, '2024-03-05 10:00Z');
-- Opened in March in UTC. A member's comment was deleted; the other comment is by one who had left.
SELECT add_issue(1002, 10, 2, 4, '2024-03-31 23:30Z');
SELECT add_event(11, 1002, 'commented', 1, '2024-04-01 10:00Z'), add_event(12, 1002, 'commented', 2, '2024-04-10 10:00Z');
UPDATE events SET deleted_at = now() WHERE id = 11;
-- By a deleted account, commented by another one, and closed by a member.
SELECT add_issue(1003, 10, 3, NULL, '2024-03-10 08:00Z', '2024-03-10 14:00Z');
SELECT add_event(21, 1003, 'commented', NULL, '2024-03-10 09:00Z'), add_event(22, 1003, 'closed', 1, '2024-03-10 14:00Z');
-- Closed by its author; nobody had answered.
SELECT add_issue(1004, 10, 4, 3, '2024-03-20 00:00Z', '2024-03-21 00:00Z');
SELECT add_event(31, 1004, 'closed', 3, '2024-03-21 00:00Z'), add_event(32, 1004, 'commented', 8, '2024-03-20 12:00Z');
-- Opened by a member.
SELECT add_issue(1005, 10, 5, 1, '2024-04-02 00:00Z');
SELECT add_event(41, 1005, 'commented', 1, '2024-04-02 01:00Z');
-- Deleted at GitHub.
SELECT add_issue(1006, 10, 6, 8, '2024-03-01 00:00Z', '2024-03-02 00:00Z');
UPDATE issues SET deleted_at = now() WHERE id = 1006;
-- Transferred: created in March for GitHub, but the answer is older. The stranger's comment was deleted.
SELECT add_issue(2001, 20, 1, 3, '2024-02-28 09:00Z', NULL, '2024-03-02 09:00Z');
SELECT add_event(51, 2001, 'commented', 1, '2024-02-28 21:00Z'), add_event(52, 2001, 'commented', 8, '2024-02-28 22:00Z');
UPDATE events SET deleted_at = now() WHERE id = 52;
-- Approved before it was commented; merged.
SELECT add_pull_request(1101, 10, 11, 4, '2024-03-03 00:00Z', '2024-03-04 00:00Z', true);
SELECT add_event(61, 1101, 'reviewed', 2, '2024-03-03 05:00Z'), add_event(62, 1101, 'commented', 1, '2024-03-03 09:00Z'),
       add_event(63, 1101, 'merged', 1, '2024-03-04 00:00Z'), add_event(64, 1101, 'closed', 1, '2024-03-04 00:00Z');
-- A bot's, closed unmerged; and an open draft.
SELECT add_pull_request(1102, 10, 12, 5, '2024-03-08 00:00Z', '2024-03-10 00:00Z', false);
SELECT add_event(71, 1102, 'closed', 1, '2024-03-10 00:00Z');
SELECT add_pull_request(1103, 10, 13, 3, '2024-04-03 00:00Z');
INSERT INTO issue_labels VALUES (1001, 100), (1103, 100);

-- Two comments of strangers within seven days, and an older one.
SELECT add_issue(3001, 30, 1, 3, now() - interval '20 days');
SELECT add_event(101, 3001, 'commented', 4, now() - interval '10 days', 7),
       add_event(102, 3001, 'commented', 3, now() - interval '2 days'),
       add_event(103, 3001, 'commented', 4, now() - interval '1 day', 2);
-- Two again, and some that do not count: of a bot, a member, a former member, a deleted account, and a deleted comment.
SELECT add_issue(3002, 30, 2, 3, now() - interval '20 days');
SELECT add_event(111, 3002, 'commented', 4, now() - interval '50 hours', 5),
       add_event(112, 3002, 'commented', 3, now() - interval '49 hours'),
       add_event(113, 3002, 'commented', 7, now() - interval '48 hours', 9),
       add_event(114, 3002, 'commented', 2, now() - interval '47 hours', 9),
       add_event(115, 3002, 'commented', NULL, now() - interval '46 hours', 9),
       add_event(116, 3002, 'commented', 4, now() - interval '45 hours', 9),
       add_event(117, 3002, 'commented', 1, now() - interval '44 hours', 9),
       add_event(118, 3002, 'labeled', 4, now() - interval '43 hours');
UPDATE events SET deleted_at = now() WHERE id = 116;
-- Closed: only what came after that counts, within fourteen days.
SELECT add_issue(3003, 30, 3, 3, now() - interval '20 days', now() - interval '5 days');
SELECT add_event(121, 3003, 'commented', 4, now() - interval '6 days', 3),
       add_event(122, 3003, 'commented', 3, now() - interval '4 days', 1),
       add_event(123, 3003, 'commented', 4, now() - interval '3 days');
SELECT add_issue(3004, 30, 4, 3, now() - interval '40 days', now() - interval '30 days');
SELECT add_event(131, 3004, 'commented', 4, now() - interval '20 days');
INSERT INTO issue_labels VALUES (3001, 300), (3002, 301), (3003, 300);
-- More than ten issues with comments.
SELECT add_issue(4000 + n, 40, n, 3, now() - interval '1 day'), add_event(4000 + n, 4000 + n, 'commented', 4, now() - interval '1 hour')
FROM generate_series(1, 12) AS n;
SELECT show_labels();";

const CHANGES: &str = "
-- A member answers at last.
SELECT add_event(13, 1002, 'commented', 1, '2024-04-12 23:30Z');
-- The first answer is deleted: the second one is the first now.
UPDATE events SET deleted_at = now() WHERE id = 5;
-- Closed by its author, a month later.
UPDATE issues SET state = 'closed', closed_at = '2024-05-02Z', updated_at = '2024-05-02Z' WHERE id = 1005;
SELECT add_event(42, 1005, 'closed', 1, '2024-05-02Z');
-- Transferred: the other repository has a row with another id, and the events.
DELETE FROM events WHERE issue_id = 1004;
DELETE FROM issues WHERE id = 1004;
SELECT add_issue(2004, 20, 4, 3, '2024-03-20 00:00Z', '2024-03-21 00:00Z', '2024-03-22 00:00Z');
SELECT add_event(31, 2004, 'closed', 3, '2024-03-21 00:00Z'), add_event(32, 2004, 'commented', 8, '2024-03-20 12:00Z');
-- A label removed, more reactions, another member, and a renamed repository.
DELETE FROM issue_labels WHERE issue_id = 3001;
SELECT show_labels();
UPDATE events SET reactions = '{\"total_count\": 8}' WHERE id = 103;
INSERT INTO members (id, login, inserted_dt) VALUES (8, 'quiet', now());
UPDATE repositories SET name = 'application' WHERE id = 10;
UPDATE issues SET repo = 'application' WHERE repository_id = 10;";

/// What the star tables must hold, apart from deleted rows.
const STAR_TABLES: [Oracle; 8] = [
    (
        "dim_person WHERE deleted_at IS NULL",
        "SELECT id AS person_id, login, type, is_bot,
                EXISTS (SELECT FROM members m WHERE m.id = p.id AND NOT inactive) AS is_member,
                EXISTS (SELECT FROM members m WHERE m.id = p.id) AS was_ever_member
         FROM people p",
    ),
    (
        "dim_repository WHERE deleted_at IS NULL",
        "SELECT id AS repository_id, owner, name, archived, private, first_seen_at, gone_at FROM repositories",
    ),
    (
        "dim_label WHERE deleted_at IS NULL",
        "SELECT id AS label_id, repository_id, name, color, description FROM labels",
    ),
    (
        "dim_date",
        "SELECT DISTINCT day AS date_id, extract(year FROM day)::int AS year, extract(month FROM day)::int AS month,
                extract(day FROM day)::int AS day, extract(isodow FROM day)::int AS day_of_week,
                to_char(day, 'FMDay') AS day_name, to_char(day, 'FMMonth') AS month_name, extract(quarter FROM day)::int AS quarter
         FROM (SELECT unnest(ARRAY[opened_at, closed_at]) FROM issues
               UNION SELECT unnest(ARRAY[opened_at, closed_at]) FROM pull_requests
               UNION SELECT created_at FROM events) AS t (at), date(at AT TIME ZONE 'UTC') AS day
         WHERE at IS NOT NULL",
    ),
    (
        "fact_issue WHERE deleted_at IS NULL",
        "SELECT id AS issue_id, repository_id, number, title, html_url, user_id AS author_id, author_is_member, type, state,
                state_reason, locked, comments, opened_at, date(opened_at AT TIME ZONE 'UTC') AS opened_date, closed_at,
                date(closed_at AT TIME ZONE 'UTC') AS closed_date, updated_at, deleted_at AS gone_at
         FROM issues",
    ),
    (
        "fact_pull_request WHERE deleted_at IS NULL",
        "SELECT id AS issue_id, repository_id, number, title, html_url, user_id AS author_id, author_is_member, state, draft,
                merged, locked, comments, opened_at, date(opened_at AT TIME ZONE 'UTC') AS opened_date, closed_at,
                date(closed_at AT TIME ZONE 'UTC') AS closed_date, merged_at, updated_at, deleted_at AS gone_at
         FROM pull_requests",
    ),
    (
        "fact_event WHERE deleted_at IS NULL",
        "SELECT id AS event_id, issue_id, repository_id, user_id AS actor_id, actor_is_member, event, state, created_at,
                date(created_at AT TIME ZONE 'UTC') AS created_date, updated_at, reactions,
                coalesce((reactions ->> 'total_count')::bigint, 0) AS reaction_count, deleted_at AS gone_at
         FROM events",
    ),
    ("fact_label WHERE deleted_at IS NULL", "SELECT issue_id, label_id FROM issue_labels"),
];

/// The views that the companion's database has too.
const VIEWS_OF_BOTH: [Oracle; 3] = [
    (
        "trending_open",
        "SELECT id AS issue_id, org AS owner, repo AS repository, number, title, html_url, events, reactions, rank FROM trending_open",
    ),
    (
        "trending_closed",
        "SELECT id AS issue_id, org AS owner, repo AS repository, number, title, html_url, closed_at, events, reactions
         FROM trending_closed",
    ),
    (
        "pending_response",
        "SELECT id AS issue_id, org AS owner, repo AS repository, number, title, html_url, answered_by, answered_at FROM pending",
    ),
];

const FIRST_RESPONSE: &str = "SELECT repository, number, kind, response, responder, hours, waiting FROM first_response
    WHERE opened_date < '2025-01-01' ORDER BY opened_at";
const TIME_TO_FIRST_RESPONSE: &str =
    "SELECT repository, kind, to_char(month, 'YYYY-MM'), opened, answered, waiting, median_hours, mean_hours
     FROM time_to_first_response WHERE month < '2025-01-01' ORDER BY repository_id, kind, month";
const TIME_TO_CLOSE: &str =
    "SELECT repository, kind, outcome, to_char(month, 'YYYY-MM'), closed, median_hours, mean_hours
     FROM time_to_close WHERE month < '2025-01-01' ORDER BY repository_id, kind, outcome, month";
const CONTRIBUTORS_BY_MONTH: &str =
    "SELECT repository, to_char(month, 'YYYY-MM'), contributors, new_in_repository, new_in_organization
     FROM contributors_by_month WHERE month < '2025-01-01' ORDER BY repository_id, month";
const TRENDING_OPEN: &str =
    "SELECT repository, rank, number, events, reactions FROM trending_open WHERE repository = 'lib' ORDER BY rank";
const TRENDING_CLOSED: &str =
    "SELECT repository, number, events, reactions FROM trending_closed ORDER BY repository, events DESC, number";
const PENDING_RESPONSE: &str = "SELECT repository, number, answered_by FROM pending_response ORDER BY number";

/// The files of a folder of the workspace with this ending, by name.
fn files(folder: &str, ending: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(folder);
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|found| found == ending));
    files.sort();
    let named = |file: &Path| file.file_name().unwrap().to_str().unwrap().to_owned();
    files.iter().map(|file| (named(file), std::fs::read_to_string(file).unwrap())).collect()
}

/// The companion's database, and the pack. The warehouse's sessions are not in UTC.
async fn world() -> World {
    let migrations: Vec<_> =
        files("companions/contributors/migrations", "sql").into_iter().map(|(_, text)| text).collect();
    let source = format!("{};{HELPERS}{ORGANIZATION}", migrations.join(";\n"));
    let pack = files("models/contributors", "sql");
    let pack: Vec<_> = pack.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let world = World::of(&source, &pack, &STAR_TABLES).await;
    for session in [&world.source, &world.warehouse] {
        session.batch_execute("SET timezone = 'Asia/Tokyo'").await.unwrap();
    }
    world
}

/// A query over the warehouse returns these rows.
async fn shows(world: &World, query: &str, expected: &[&str]) {
    let mut rows = Vec::new();
    for message in world.warehouse.simple_query(query).await.unwrap() {
        if let SimpleQueryMessage::Row(row) = message {
            let values: Vec<_> = (0..row.len()).map(|place| row.get(place).unwrap_or("-")).collect();
            rows.push(values.join(" | "));
        }
    }
    assert_eq!(rows, expected, "{query}");
}

/// `check` finds nothing, both sides agree, and so do the views that both have.
async fn everything_agrees(world: &World) {
    world.run_and_agree().await;
    for (view, query) in VIEWS_OF_BOTH {
        world.agree_on(view, query).await;
    }
    assert_eq!(world.findings().await, [""; 0]);
    assert_eq!(world.held_back().await, BTreeMap::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contributors_pack_says_who_answered_first_and_how_long_everything_took() {
    let world = world().await;
    everything_agrees(&world).await;
    shows(
        &world,
        FIRST_RESPONSE,
        &[
            "docs | 1 | issue | commented | maria | 12.00 | f",
            "app | 1 | issue | commented | maria | 2.00 | f",
            "app | 11 | pull request | reviewed | liam | 5.00 | f",
            "app | 12 | pull request | closed | maria | 48.00 | f",
            "app | 3 | issue | closed | maria | 6.00 | f",
            "app | 4 | issue | - | - | - | f",
            "app | 2 | issue | - | - | - | t",
            "app | 5 | issue | - | - | - | t",
            "app | 13 | pull request | - | - | - | t",
        ],
    )
    .await;
    shows(
        &world,
        TIME_TO_FIRST_RESPONSE,
        &[
            "app | issue | 2024-03 | 4 | 2 | 1 | 4.00 | 4.00",
            "app | issue | 2024-04 | 1 | 0 | 1 | - | -",
            "app | pull request | 2024-03 | 2 | 2 | 0 | 26.50 | 26.50",
            "app | pull request | 2024-04 | 1 | 0 | 1 | - | -",
            "docs | issue | 2024-02 | 1 | 1 | 0 | 12.00 | 12.00",
        ],
    )
    .await;
    shows(
        &world,
        TIME_TO_CLOSE,
        &[
            "app | issue | closed | 2024-03 | 3 | 24.00 | 42.00",
            "app | pull request | closed | 2024-03 | 1 | 48.00 | 48.00",
            "app | pull request | merged | 2024-03 | 1 | 24.00 | 24.00",
        ],
    )
    .await;
    // The former member is a contributor in April, but not a new one.
    shows(
        &world,
        CONTRIBUTORS_BY_MONTH,
        &["app | 2024-03 | 3 | 3 | 2", "app | 2024-04 | 2 | 0 | 0", "docs | 2024-02 | 1 | 1 | 1"],
    )
    .await;
    shows(&world, TRENDING_OPEN, &["lib | 1 | 2 | 2 | 5", "lib | 2 | 1 | 2 | 2"]).await;
    shows(&world, "SELECT count(*), max(rank) FROM trending_open WHERE repository = 'busy'", &["10 | 10"]).await;
    shows(&world, TRENDING_CLOSED, &["lib | 3 | 2 | 1"]).await;
    shows(&world, PENDING_RESPONSE, &["lib | 1 | nina"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contributors_pack_follows_answers_transfers_labels_and_names() {
    let world = world().await;
    world.run().await;
    world.change(CHANGES).await;
    everything_agrees(&world).await;
    shows(
        &world,
        FIRST_RESPONSE,
        &[
            "docs | 1 | issue | commented | maria | 12.00 | f",
            "application | 1 | issue | commented | liam | 3.00 | f",
            "application | 11 | pull request | reviewed | liam | 5.00 | f",
            "application | 12 | pull request | closed | maria | 48.00 | f",
            "application | 3 | issue | closed | maria | 6.00 | f",
            "docs | 4 | issue | - | - | - | f",
            "application | 2 | issue | commented | maria | 288.00 | f",
            "application | 5 | issue | - | - | - | f",
            "application | 13 | pull request | - | - | - | t",
        ],
    )
    .await;
    shows(
        &world,
        TIME_TO_FIRST_RESPONSE,
        &[
            "application | issue | 2024-03 | 3 | 3 | 0 | 6.00 | 99.00",
            "application | issue | 2024-04 | 1 | 0 | 0 | - | -",
            "application | pull request | 2024-03 | 2 | 2 | 0 | 26.50 | 26.50",
            "application | pull request | 2024-04 | 1 | 0 | 1 | - | -",
            "docs | issue | 2024-02 | 1 | 1 | 0 | 12.00 | 12.00",
            "docs | issue | 2024-03 | 1 | 0 | 0 | - | -",
        ],
    )
    .await;
    shows(
        &world,
        TIME_TO_CLOSE,
        &[
            "application | issue | closed | 2024-03 | 2 | 51.00 | 51.00",
            "application | issue | closed | 2024-05 | 1 | 720.00 | 720.00",
            "application | pull request | closed | 2024-03 | 1 | 48.00 | 48.00",
            "application | pull request | merged | 2024-03 | 1 | 24.00 | 24.00",
            "docs | issue | closed | 2024-03 | 1 | 24.00 | 24.00",
        ],
    )
    .await;
    shows(
        &world,
        CONTRIBUTORS_BY_MONTH,
        &[
            "application | 2024-03 | 2 | 2 | 1",
            "application | 2024-04 | 2 | 0 | 0",
            "docs | 2024-02 | 1 | 1 | 1",
            "docs | 2024-03 | 2 | 1 | 1",
        ],
    )
    .await;
    shows(&world, TRENDING_OPEN, &["lib | 1 | 1 | 2 | 8", "lib | 2 | 2 | 2 | 5"]).await;
    shows(&world, TRENDING_CLOSED, &["lib | 3 | 2 | 1"]).await;
    shows(&world, PENDING_RESPONSE, &[]).await;
    // What the source deleted is still there, and marked.
    let deleted = "SELECT 'issue', issue_id FROM fact_issue WHERE deleted_at IS NOT NULL
                   UNION ALL SELECT 'event', event_id FROM fact_event WHERE deleted_at IS NOT NULL
                   UNION ALL SELECT 'label', label_id FROM fact_label WHERE deleted_at IS NOT NULL ORDER BY 2 DESC";
    shows(&world, deleted, &["issue | 1004", "label | 300", "event | 32", "event | 31"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contributors_pack_needs_no_texts_and_no_json_but_reactions() {
    let world = world().await;
    let issues = "active_lock_reason assignee assignees author_association body closed_by comments_url events_url labels labels_url \
                  milestone performed_via_github_app raw reactions timeline_url url user";
    let tables = [("issues", issues), ("pull_requests", issues), ("events", "body label raw user"), ("members", "raw")];
    let excluded: Vec<_> = tables
        .iter()
        .flat_map(|(table, columns)| columns.split_whitespace().map(move |column| format!("\"{table}.{column}\"")))
        .collect();
    let text = std::fs::read_to_string(world.configuration()).unwrap();
    let text = text.replace("[warehouse]", &format!("exclude = [{}]\n[warehouse]", excluded.join(", ")));
    std::fs::write(world.configuration(), text).unwrap();
    everything_agrees(&world).await;
    let manifest = world.manifests().remove(0).to_string();
    assert!(!manifest.contains("\"body\"") && !manifest.contains("\"raw\""), "{manifest}");
}
