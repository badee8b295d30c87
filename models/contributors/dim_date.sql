-- Every date, in UTC, that a fact refers to. The warehouse computes the rest of the row from it.
SELECT CAST(opened_at AS DATE) AS date_id FROM issues
UNION
SELECT CAST(closed_at AS DATE) FROM issues
WHERE closed_at IS NOT NULL
UNION
SELECT CAST(opened_at AS DATE) FROM pull_requests
UNION
SELECT CAST(closed_at AS DATE) FROM pull_requests
WHERE closed_at IS NOT NULL
UNION
SELECT CAST(created_at AS DATE) FROM events
WHERE created_at IS NOT NULL
