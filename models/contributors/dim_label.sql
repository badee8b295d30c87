SELECT
    id AS label_id,
    repository_id,
    name,
    color,
    description
FROM labels
