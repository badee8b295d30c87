SELECT
    id AS event_id,
    issue_id,
    repository_id,
    user_id AS actor_id,
    actor_is_member,
    event,
    state,
    created_at,
    CAST(created_at AS DATE) AS created_date,
    updated_at,
    reactions,
    deleted_at AS gone_at
FROM events
