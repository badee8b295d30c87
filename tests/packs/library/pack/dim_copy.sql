-- What is ordered is not there yet.
SELECT
    c."Author" AS author_code,
    c.work_no,
    c.copy_no,
    c.barcode,
    w.title,
    p.name AS publisher,
    c.home AS home_id,
    b."Name" AS home,
    c.state,
    c.price,
    c.price > 50 AS is_dear,
    TRY_CAST(c."Weight" AS NUMERIC(8, 2)) AS weight
FROM "Copy" AS c
LEFT JOIN "Œuvre" AS w ON w."authorCode" = c."Author" AND w."No" = c.work_no
LEFT JOIN "Publisher" AS p ON p.id = w.publisher
LEFT JOIN "Branch" AS b ON b.id = c.home
WHERE CAST(c.state AS TEXT) <> 'ordered'
