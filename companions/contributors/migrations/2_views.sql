-- What the original's dashboard shows, less what was deleted.

-- What people did who are not members and never were.
CREATE VIEW community_events AS
SELECT events.issue_id, events.org, events.repo, events.event, events.created_at, events.updated_at, events.username,
       coalesce((events.reactions ->> 'total_count')::bigint, 0) AS reactions
FROM events
WHERE events.deleted_at IS NULL AND events.username <> 'github-actions[bot]'
  AND NOT EXISTS (SELECT FROM members WHERE members.login = events.username);

-- The ten open issues of each repository on which such people did most in the last seven days.
CREATE VIEW trending_open AS
SELECT id, org, repo, number, title, html_url, created_at, events, reactions, rank
FROM (
    SELECT issues.id, issues.org, issues.repo, issues.number, issues.title, issues.html_url, issues.created_at,
           count(*) AS events, sum(seen.reactions) AS reactions,
           row_number() OVER (PARTITION BY issues.org, issues.repo
                              ORDER BY count(*) DESC, sum(seen.reactions) DESC, issues.id) AS rank
    FROM issues
    JOIN community_events AS seen ON seen.issue_id = issues.id
    WHERE issues.deleted_at IS NULL AND issues.state = 'open' AND seen.updated_at >= now() - interval '7 days'
    GROUP BY issues.id
) AS ranked
WHERE rank <= 10;

-- The closed issues on which such people did something after they were closed, in the last fourteen days.
CREATE VIEW trending_closed AS
SELECT issues.id, issues.org, issues.repo, issues.number, issues.title, issues.html_url, issues.closed_at,
       count(*) AS events, sum(seen.reactions) AS reactions
FROM issues
JOIN community_events AS seen ON seen.issue_id = issues.id
WHERE issues.deleted_at IS NULL AND issues.state = 'closed' AND seen.created_at > issues.closed_at
  AND seen.updated_at >= now() - interval '14 days'
GROUP BY issues.id;

-- Open issues that wait for their author by a label, and whose last comment is not a member's: the answer is there.
CREATE VIEW pending AS
SELECT issues.id, issues.org, issues.repo, issues.number, issues.title, issues.html_url, issues.created_at,
       comment.username AS answered_by, comment.created_at AS answered_at
FROM issues
CROSS JOIN LATERAL (
    SELECT events.username, events.created_at
    FROM events
    WHERE events.issue_id = issues.id AND events.event = 'commented' AND events.deleted_at IS NULL
    ORDER BY events.created_at DESC, events.id DESC
    LIMIT 1
) AS comment
WHERE issues.deleted_at IS NULL AND issues.state = 'open'
  AND EXISTS (
      SELECT FROM unnest(issues.labels) AS label
      WHERE label ->> 'name' LIKE 'pending%response%' OR label ->> 'name' LIKE 'pending-close%'
  )
  AND NOT EXISTS (SELECT FROM members WHERE members.login = comment.username);
