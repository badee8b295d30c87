SELECT
    id AS repository_id,
    owner,
    name,
    archived,
    private,
    first_seen_at,
    gone_at
FROM repositories
