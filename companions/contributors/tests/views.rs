//! The views of the original's dashboard give over our tables what they give over the original's.

use chrono::Utc;

use crate::world::World;

/// The original's tables, less what the views do not read.
const ORIGINAL: &str = "
    CREATE SCHEMA original;
    SET search_path = original;
    CREATE TABLE members (id integer PRIMARY KEY, login varchar UNIQUE, inactive boolean);
    CREATE TABLE issues (id bigint PRIMARY KEY, org varchar, repo varchar, number integer, title varchar, state varchar,
        closed_at timestamp, labels json[], username varchar);
    CREATE TABLE events (id bigint, issue_id bigint, org varchar, repo varchar, event varchar, reactions jsonb,
        created_at timestamp, updated_at timestamp, username varchar, PRIMARY KEY (id, issue_id));
    INSERT INTO members SELECT id, login, inactive FROM public.members;
    INSERT INTO issues SELECT id, org, repo, number, title, state, closed_at, labels, username FROM public.issues;
    INSERT INTO events SELECT id, issue_id, org, repo, event, reactions, created_at, updated_at, username FROM public.events;
";

/// What the views show, as it was described.
const TRENDING_OPEN: &str = "WITH counted AS (
        SELECT i.repo, i.number, count(e.id) AS events, sum(coalesce((e.reactions ->> 'total_count')::int, 0)) AS reactions, i.id
        FROM original.issues i JOIN original.events e ON e.issue_id = i.id
        LEFT JOIN original.members m ON m.login = e.username
        WHERE m.id IS NULL AND e.username <> 'github-actions[bot]' AND i.state = 'open'
          AND e.updated_at >= (now() AT TIME ZONE 'UTC') - interval '7 days'
        GROUP BY i.id, i.repo, i.number)
    SELECT repo, number, events, reactions FROM counted c
    WHERE (SELECT count(*) FROM counted o WHERE o.repo = c.repo
           AND (o.events, o.reactions, -o.id) > (c.events, c.reactions, -c.id)) < 10";
const TRENDING_CLOSED: &str =
    "SELECT i.repo, i.number, count(*), sum(coalesce((e.reactions ->> 'total_count')::int, 0))
    FROM original.issues i JOIN original.events e ON e.issue_id = i.id
    WHERE i.state = 'closed' AND e.created_at > i.closed_at AND e.username <> 'github-actions[bot]'
      AND e.updated_at >= (now() AT TIME ZONE 'UTC') - interval '14 days'
      AND e.username NOT IN (SELECT login FROM original.members)
    GROUP BY i.repo, i.number";
const PENDING: &str = "SELECT DISTINCT i.repo, i.number, last.username FROM original.issues i, unnest(i.labels) AS l,
    (SELECT DISTINCT ON (issue_id) issue_id, username FROM original.events WHERE event = 'commented'
     ORDER BY issue_id, created_at DESC, id DESC) AS last
    WHERE last.issue_id = i.id AND i.state = 'open' AND (l ->> 'name' LIKE 'pending%response%' OR l ->> 'name' LIKE 'pending-close%')
      AND last.username NOT IN (SELECT login FROM original.members)";

#[tokio::test(flavor = "multi_thread")]
async fn the_three_views_give_what_they_give_over_the_originals_tables() {
    let world = World::new().await;
    {
        let mut model = world.model();
        model.now = Utc::now();
        model.populate(9, 600);
        // Enough for more than ten in a repository, and talk after closing.
        let guest = model.add_person("guest");
        let robot = model.add_bot("github-actions[bot]");
        let all: Vec<_> = model
            .repositories
            .values()
            .flat_map(|one| one.present().map(|issue| (one.id, issue.number)).collect::<Vec<_>>())
            .collect();
        model.now -= chrono::TimeDelta::hours(2);
        for (place, (repository, number)) in all.into_iter().enumerate().step_by(3) {
            for _ in 0..place % 5 {
                model.comment(repository, number, if place % 2 == 0 { guest } else { robot }, "me too");
            }
            if place % 4 == 0 {
                let comment = model.comment(repository, number, guest, "and me");
                model.react(repository, number, Some(comment), "+1");
            }
        }
        model.now += chrono::TimeDelta::hours(2);
    }
    world.sync().await;
    world.run(ORIGINAL).await;
    for (view, columns, original, least) in [
        ("trending_open", "repo, number, events, reactions", TRENDING_OPEN, 20),
        ("trending_closed", "repo, number, events, reactions", TRENDING_CLOSED, 5),
        ("pending", "repo, number, answered_by", PENDING, 2),
    ] {
        let (ours, theirs) = (world.rows(&format!("SELECT {columns} FROM {view}")).await, world.rows(original).await);
        assert!(theirs.len() >= least, "{view}: {theirs:#?}");
        assert_eq!(ours, theirs, "{view}");
    }
}
