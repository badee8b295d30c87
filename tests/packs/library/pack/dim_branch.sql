SELECT
    b.id AS branch_id,
    b."Name" AS name,
    b.region AS region_code,
    COALESCE(r."Name", 'unknown') AS region,
    b.opened,
    b."Opens" AS opens,
    b."Größe m²" AS area
FROM "Branch" AS b
LEFT JOIN "Region" AS r ON r.code = b.region
