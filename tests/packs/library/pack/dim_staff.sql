-- Departments twice: a person's own, and through the self-join that of the manager.
SELECT
    s.id AS staff_id,
    s."Full Name" AS name,
    d.title AS department,
    s."managerId" AS manager_id,
    m."Full Name" AS manager,
    CASE WHEN m.department IS NULL THEN 'none' ELSE COALESCE(md.title, 'unknown') END AS manager_department,
    s."Branch" AS branch_id
FROM "Staff" AS s
LEFT JOIN department AS d ON d.id = s.department
LEFT JOIN "Staff" AS m ON s."managerId" = m.id
LEFT JOIN department AS md ON md.id = m.department
