-- A work whose language is not known yet waits for it.
SELECT
    w."authorCode" AS author_code,
    w."No" AS work_no,
    w.title,
    COALESCE(w.title || ': ' || NULLIF(TRIM(w.subtitle), ''), w.title) AS full_title,
    g."Name" AS language,
    p.name AS publisher,
    COALESCE(country.name, p.country) AS publisher_country,
    COALESCE(pg."Group Name", 'independent') AS publisher_group,
    w.isbn,
    CASE
        WHEN w.published IS NULL THEN 'undated'
        WHEN w.published < '1900-01-01' THEN 'old'
        WHEN w.published BETWEEN '1900-01-01' AND '1999-12-31' THEN '20th century'
        ELSE 'new'
    END AS era,
    CONCAT(UPPER(w.language), '/', CAST(w."No" AS TEXT), ' ', w.subtitle) AS label
FROM "Œuvre" AS w
INNER JOIN "Language" AS g ON g.code = w.language
LEFT JOIN "Publisher" AS p ON p.id = w.publisher
LEFT JOIN "Publisher Group" AS pg ON pg.country = p.country AND pg."No" = p.group_no
LEFT JOIN country ON country.code = p.country
