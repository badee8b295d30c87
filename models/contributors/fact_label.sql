SELECT
    issue_id,
    label_id
FROM issue_labels
