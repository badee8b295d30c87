-- Every day that a loan or a branch names.
SELECT
    CAST(l."lentAt" AS DATE) AS day,
    EXTRACT(YEAR FROM CAST(l."lentAt" AS DATE)) AS year,
    EXTRACT(QUARTER FROM CAST(l."lentAt" AS DATE)) AS quarter,
    EXTRACT(MONTH FROM CAST(l."lentAt" AS DATE)) AS month,
    EXTRACT(ISODOW FROM CAST(l."lentAt" AS DATE)) AS weekday
FROM "Loan" AS l
UNION
SELECT
    returned_on,
    EXTRACT(YEAR FROM returned_on),
    EXTRACT(QUARTER FROM returned_on),
    EXTRACT(MONTH FROM returned_on),
    EXTRACT(ISODOW FROM returned_on)
FROM "Loan"
WHERE returned_on IS NOT NULL
UNION
SELECT
    opened,
    EXTRACT(YEAR FROM opened),
    EXTRACT(QUARTER FROM opened),
    EXTRACT(MONTH FROM opened),
    EXTRACT(ISODOW FROM opened)
FROM "Branch"
