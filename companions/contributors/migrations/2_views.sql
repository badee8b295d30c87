-- The dashboard views of contributor-metrics, without deleted rows.

-- Events by people who are not, and never were, members. Only comments have updated_at, by which the views below go.
CREATE VIEW community_events AS
SELECT events.issue_id, events.org, events.repo, events.event, events.created_at, events.updated_at, events.username,
       coalesce((events.reactions ->> 'total_count')::bigint, 0) AS reactions
FROM events
WHERE events.deleted_at IS NULL AND events.username <> 'github-actions[bot]'
  AND NOT EXISTS (SELECT FROM members WHERE members.login = events.username);

-- The ten open issues of each repository with the most of them in the last seven days.
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

-- Closed issues with some of them after closing, in the last fourteen days.
CREATE VIEW trending_closed AS
SELECT issues.id, issues.org, issues.repo, issues.number, issues.title, issues.html_url, issues.closed_at,
       count(*) AS events, sum(seen.reactions) AS reactions
FROM issues
JOIN community_events AS seen ON seen.issue_id = issues.id
WHERE issues.deleted_at IS NULL AND issues.state = 'closed' AND seen.created_at > issues.closed_at
  AND seen.updated_at >= now() - interval '14 days'
GROUP BY issues.id;

-- Open issues labelled as waiting for the author, whose last comment is not by a member.
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
