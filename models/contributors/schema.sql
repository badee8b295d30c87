-- A star schema of a GitHub organization's issues, pull requests and events. Load runs this file whenever it has
-- changed, so every statement can be run again.
--
-- gone_at is when GitHub no longer had the issue, the comment or the repository. deleted_at is when its row disappeared
-- from the source: the old row of a transferred issue, for example. The views show neither.
--
-- No model reads bodies, raw and the columns of type json and jsonb, apart from events.reactions: source.exclude can
-- keep them out of the batches.

CREATE TABLE IF NOT EXISTS dim_person (
    person_id       bigint  PRIMARY KEY,
    login           text    NOT NULL,
    type            text,
    is_bot          boolean NOT NULL,
    is_member       boolean NOT NULL,
    was_ever_member boolean NOT NULL,
    deleted_at      timestamptz
);

CREATE TABLE IF NOT EXISTS dim_repository (
    repository_id bigint  PRIMARY KEY,
    owner         text    NOT NULL,
    name          text    NOT NULL,
    archived      boolean NOT NULL,
    private       boolean NOT NULL,
    first_seen_at timestamptz NOT NULL,
    gone_at       timestamptz,
    deleted_at    timestamptz
);

CREATE TABLE IF NOT EXISTS dim_label (
    label_id      bigint PRIMARY KEY,
    repository_id bigint NOT NULL REFERENCES dim_repository (repository_id),
    name          text   NOT NULL,
    color         text,
    description   text,
    deleted_at    timestamptz
);

-- The names are English and the week is ISO's (Monday 1 to Sunday 7), whatever the server's settings.
CREATE TABLE IF NOT EXISTS dim_date (
    date_id     date PRIMARY KEY,
    year        integer NOT NULL GENERATED ALWAYS AS (extract(year FROM date_id)) STORED,
    month       integer NOT NULL GENERATED ALWAYS AS (extract(month FROM date_id)) STORED,
    day         integer NOT NULL GENERATED ALWAYS AS (extract(day FROM date_id)) STORED,
    day_of_week integer NOT NULL GENERATED ALWAYS AS (extract(isodow FROM date_id)) STORED,
    day_name    text    NOT NULL GENERATED ALWAYS AS (
        (ARRAY['Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday', 'Sunday'])
        [extract(isodow FROM date_id)::integer]) STORED,
    month_name  text    NOT NULL GENERATED ALWAYS AS (
        (ARRAY['January', 'February', 'March', 'April', 'May', 'June', 'July', 'August', 'September', 'October',
               'November', 'December'])[extract(month FROM date_id)::integer]) STORED,
    quarter     integer NOT NULL GENERATED ALWAYS AS (extract(quarter FROM date_id)) STORED,
    deleted_at  timestamptz
);

-- opened_at is created_at before any transfer. Dates are in UTC. author_id is null if the account was deleted.
CREATE TABLE IF NOT EXISTS fact_issue (
    issue_id         bigint  PRIMARY KEY,
    repository_id    bigint  NOT NULL REFERENCES dim_repository (repository_id),
    number           bigint  NOT NULL,
    title            text,
    html_url         text,
    author_id        bigint  REFERENCES dim_person (person_id),
    author_is_member boolean NOT NULL,
    type             text,
    state            text    NOT NULL,
    state_reason     text,
    locked           boolean,
    comments         integer,
    opened_at        timestamptz NOT NULL,
    opened_date      date    NOT NULL REFERENCES dim_date (date_id),
    closed_at        timestamptz,
    closed_date      date    REFERENCES dim_date (date_id),
    updated_at       timestamptz NOT NULL,
    gone_at          timestamptz,
    deleted_at       timestamptz
);

-- GitHub also lists a pull request as an issue. The key is its id there.
CREATE TABLE IF NOT EXISTS fact_pull_request (
    issue_id         bigint  PRIMARY KEY,
    repository_id    bigint  NOT NULL REFERENCES dim_repository (repository_id),
    number           bigint  NOT NULL,
    title            text,
    html_url         text,
    author_id        bigint  REFERENCES dim_person (person_id),
    author_is_member boolean NOT NULL,
    state            text    NOT NULL,
    draft            boolean,
    merged           boolean, -- null while it is open
    locked           boolean,
    comments         integer,
    opened_at        timestamptz NOT NULL,
    opened_date      date    NOT NULL REFERENCES dim_date (date_id),
    closed_at        timestamptz,
    closed_date      date    REFERENCES dim_date (date_id),
    merged_at        timestamptz,
    updated_at       timestamptz NOT NULL,
    gone_at          timestamptz,
    deleted_at       timestamptz
);

-- issue_id refers to fact_issue or fact_pull_request, so it has no foreign key.
CREATE TABLE IF NOT EXISTS fact_event (
    event_id        bigint  NOT NULL,
    issue_id        bigint  NOT NULL,
    repository_id   bigint  NOT NULL REFERENCES dim_repository (repository_id),
    actor_id        bigint  REFERENCES dim_person (person_id),
    actor_is_member boolean NOT NULL, -- at that time
    event           text    NOT NULL,
    state           text,
    created_at      timestamptz,
    created_date    date    REFERENCES dim_date (date_id),
    updated_at      timestamptz,
    reactions       jsonb,
    reaction_count  bigint  NOT NULL GENERATED ALWAYS AS (coalesce((reactions ->> 'total_count')::bigint, 0)) STORED,
    gone_at         timestamptz,
    deleted_at      timestamptz,
    PRIMARY KEY (event_id, issue_id)
);
CREATE INDEX IF NOT EXISTS fact_event_issue ON fact_event (issue_id);
CREATE INDEX IF NOT EXISTS fact_event_updated ON fact_event (updated_at);

-- The labels of an issue or a pull request.
CREATE TABLE IF NOT EXISTS fact_label (
    issue_id   bigint NOT NULL,
    label_id   bigint NOT NULL REFERENCES dim_label (label_id),
    deleted_at timestamptz,
    PRIMARY KEY (issue_id, label_id)
);

CREATE OR REPLACE VIEW issues_and_pull_requests AS
SELECT issue_id, 'issue' AS kind, repository_id, number, title, html_url, author_id, author_is_member, state,
       opened_at, opened_date, closed_at, closed_date, NULL::timestamptz AS merged_at
FROM fact_issue
WHERE deleted_at IS NULL AND gone_at IS NULL
UNION ALL
SELECT issue_id, 'pull request', repository_id, number, title, html_url, author_id, author_is_member, state,
       opened_at, opened_date, closed_at, closed_date, merged_at
FROM fact_pull_request
WHERE deleted_at IS NULL AND gone_at IS NULL;

-- The first comment, review or closing by somebody who was a member at the time and is neither the author nor a bot.
-- Open issues and pull requests without one are waiting.
CREATE OR REPLACE VIEW first_response AS
WITH response AS (
    SELECT DISTINCT ON (fact_event.issue_id) fact_event.issue_id, fact_event.event, fact_event.created_at,
           dim_person.person_id, dim_person.login
    FROM fact_event
    JOIN issues_and_pull_requests AS opened ON opened.issue_id = fact_event.issue_id
    JOIN dim_person ON dim_person.person_id = fact_event.actor_id
    WHERE fact_event.deleted_at IS NULL AND fact_event.gone_at IS NULL
      AND fact_event.event IN ('commented', 'reviewed', 'closed') AND fact_event.created_at >= opened.opened_at
      AND fact_event.actor_is_member AND NOT dim_person.is_bot
      AND dim_person.person_id IS DISTINCT FROM opened.author_id
    ORDER BY fact_event.issue_id, fact_event.created_at, fact_event.event_id
)
SELECT opened.issue_id, opened.kind, opened.repository_id, dim_repository.owner, dim_repository.name AS repository,
       opened.number, opened.title, opened.html_url, opened.author_id, opened.author_is_member,
       opened.opened_at, opened.opened_date,
       response.event AS response, response.created_at AS responded_at, response.person_id AS responder_id,
       response.login AS responder,
       round((extract(epoch FROM response.created_at - opened.opened_at) / 3600)::numeric, 2) AS hours,
       opened.state = 'open' AND response.issue_id IS NULL AS waiting
FROM issues_and_pull_requests AS opened
JOIN dim_repository ON dim_repository.repository_id = opened.repository_id
LEFT JOIN response ON response.issue_id = opened.issue_id;

-- By month of opening. What was closed without a response counts as opened, but neither as answered nor as waiting.
CREATE OR REPLACE VIEW time_to_first_response AS
SELECT repository_id, owner, repository, kind, date_trunc('month', opened_date::timestamp)::date AS month,
       count(*) AS opened,
       count(responded_at) AS answered,
       count(*) FILTER (WHERE waiting) AS waiting,
       round((percentile_cont(0.5) WITHIN GROUP (ORDER BY hours))::numeric, 2) AS median_hours,
       round(avg(hours), 2) AS mean_hours
FROM first_response
GROUP BY repository_id, owner, repository, kind, date_trunc('month', opened_date::timestamp);

-- By month of closing. Merged pull requests are counted apart from those that were closed unmerged.
CREATE OR REPLACE VIEW time_to_close AS
SELECT repository_id, dim_repository.owner, dim_repository.name AS repository, closed.kind, closed.outcome, closed.month,
       count(*) AS closed,
       round((percentile_cont(0.5) WITHIN GROUP (ORDER BY closed.hours))::numeric, 2) AS median_hours,
       round(avg(closed.hours), 2) AS mean_hours
FROM (
    SELECT repository_id, kind, CASE WHEN merged_at IS NULL THEN 'closed' ELSE 'merged' END AS outcome,
           date_trunc('month', closed_date::timestamp)::date AS month,
           (extract(epoch FROM closed_at - opened_at) / 3600)::numeric AS hours
    FROM issues_and_pull_requests
    WHERE state = 'closed' AND closed_at IS NOT NULL
) AS closed
JOIN dim_repository USING (repository_id)
GROUP BY repository_id, dim_repository.owner, dim_repository.name, closed.kind, closed.outcome, closed.month;

-- People who were not members at the time and are not bots. They are new if they had done nothing before that month,
-- not even as members. In the events that are left out, the actor is the person who was mentioned or notified.
CREATE OR REPLACE VIEW contributors_by_month AS
WITH activity AS (
    SELECT repository_id, actor_id AS person_id, actor_is_member AS is_member, created_date AS day
    FROM fact_event
    WHERE deleted_at IS NULL AND gone_at IS NULL AND created_date IS NOT NULL
      AND event NOT IN ('mentioned', 'subscribed', 'unsubscribed')
    UNION ALL
    SELECT repository_id, author_id, author_is_member, opened_date
    FROM issues_and_pull_requests
),
monthly AS (
    SELECT activity.repository_id, activity.person_id, date_trunc('month', activity.day::timestamp)::date AS month,
           bool_or(NOT activity.is_member) AS is_contributor
    FROM activity
    JOIN dim_person USING (person_id)
    WHERE NOT dim_person.is_bot
    GROUP BY activity.repository_id, activity.person_id, date_trunc('month', activity.day::timestamp)
),
known AS (
    SELECT repository_id, person_id, month, is_contributor,
           min(month) OVER (PARTITION BY person_id) AS first_month,
           min(month) OVER (PARTITION BY person_id, repository_id) AS first_month_here
    FROM monthly
)
SELECT repository_id, dim_repository.owner, dim_repository.name AS repository, known.month,
       count(*) AS contributors,
       count(*) FILTER (WHERE known.month = known.first_month_here) AS new_in_repository,
       count(*) FILTER (WHERE known.month = known.first_month) AS new_in_organization
FROM known
JOIN dim_repository USING (repository_id)
WHERE known.is_contributor
GROUP BY repository_id, dim_repository.owner, dim_repository.name, known.month;

-- Events by people who have never been members, github-actions excepted. Other bots count, as in contributor-metrics. Only
-- comments have updated_at, by which the views below go.
CREATE OR REPLACE VIEW community_events AS
SELECT fact_event.event_id, fact_event.issue_id, fact_event.event, fact_event.created_at, fact_event.updated_at,
       fact_event.actor_id, dim_person.login, fact_event.reaction_count
FROM fact_event
JOIN dim_person ON dim_person.person_id = fact_event.actor_id
WHERE fact_event.deleted_at IS NULL AND fact_event.gone_at IS NULL
  AND dim_person.login <> 'github-actions[bot]' AND NOT dim_person.was_ever_member;

-- The ten open issues of each repository with the most community events in the last seven days.
CREATE OR REPLACE VIEW trending_open AS
SELECT issue_id, owner, repository, number, title, html_url, opened_at, events, reactions, rank
FROM (
    SELECT fact_issue.issue_id, dim_repository.owner, dim_repository.name AS repository, fact_issue.number,
           fact_issue.title, fact_issue.html_url, fact_issue.opened_at, recent.events, recent.reactions,
           row_number() OVER (PARTITION BY fact_issue.repository_id
                              ORDER BY recent.events DESC, recent.reactions DESC, fact_issue.issue_id) AS rank
    FROM (
        SELECT issue_id, count(*) AS events, sum(reaction_count) AS reactions
        FROM community_events
        WHERE updated_at >= now() - interval '7 days'
        GROUP BY issue_id
    ) AS recent
    JOIN fact_issue ON fact_issue.issue_id = recent.issue_id
    JOIN dim_repository ON dim_repository.repository_id = fact_issue.repository_id
    WHERE fact_issue.deleted_at IS NULL AND fact_issue.gone_at IS NULL AND fact_issue.state = 'open'
) AS ranked
WHERE rank <= 10;

-- The closed issues with community events after closing, in the last fourteen days.
CREATE OR REPLACE VIEW trending_closed AS
SELECT fact_issue.issue_id, dim_repository.owner, dim_repository.name AS repository, fact_issue.number,
       fact_issue.title, fact_issue.html_url, fact_issue.closed_at, recent.events, recent.reactions
FROM (
    SELECT issue_id, count(*) AS events, sum(community_events.reaction_count) AS reactions
    FROM community_events
    JOIN fact_issue USING (issue_id)
    WHERE community_events.updated_at >= now() - interval '14 days'
      AND community_events.created_at > fact_issue.closed_at
    GROUP BY issue_id
) AS recent
JOIN fact_issue ON fact_issue.issue_id = recent.issue_id
JOIN dim_repository ON dim_repository.repository_id = fact_issue.repository_id
WHERE fact_issue.deleted_at IS NULL AND fact_issue.gone_at IS NULL AND fact_issue.state = 'closed';

-- Open issues whose label says that they wait for an answer, and whose last comment is by somebody who has never been a member.
CREATE OR REPLACE VIEW pending_response AS
SELECT fact_issue.issue_id, dim_repository.owner, dim_repository.name AS repository, fact_issue.number,
       fact_issue.title, fact_issue.html_url, fact_issue.opened_at,
       dim_person.login AS answered_by, comment.created_at AS answered_at
FROM fact_issue
JOIN dim_repository ON dim_repository.repository_id = fact_issue.repository_id
CROSS JOIN LATERAL (
    SELECT fact_event.actor_id, fact_event.created_at
    FROM fact_event
    WHERE fact_event.issue_id = fact_issue.issue_id AND fact_event.event = 'commented'
      AND fact_event.deleted_at IS NULL AND fact_event.gone_at IS NULL
    ORDER BY fact_event.created_at DESC, fact_event.event_id DESC
    LIMIT 1
) AS comment
LEFT JOIN dim_person ON dim_person.person_id = comment.actor_id
WHERE fact_issue.deleted_at IS NULL AND fact_issue.gone_at IS NULL AND fact_issue.state = 'open'
  AND dim_person.was_ever_member IS NOT TRUE
  AND EXISTS (
      SELECT FROM fact_label
      JOIN dim_label ON dim_label.label_id = fact_label.label_id
      WHERE fact_label.issue_id = fact_issue.issue_id AND fact_label.deleted_at IS NULL
        AND (dim_label.name LIKE 'pending%response%' OR dim_label.name LIKE 'pending-close%')
  );
