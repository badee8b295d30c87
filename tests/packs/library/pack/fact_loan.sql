-- Branches twice: where the book was lent from, and where it came back to.
SELECT
    l."memberNo" AS member_no,
    l.seq AS loan_seq,
    l."Author" AS author_code,
    l.work_no,
    l.copy_no,
    k.barcode,
    l."lentFrom" AS lent_from,
    f."Name" AS lent_from_name,
    COALESCE(fr."Name", 'unknown') AS lent_from_region,
    l."returnedTo" AS returned_to,
    CASE WHEN l."returnedTo" IS NOT NULL THEN COALESCE(t."Name", 'unknown') END AS returned_to_name,
    tr."Name" AS returned_to_region,
    l."handledBy" AS handled_by,
    s."Full Name" AS handled_by_name,
    a.title AS tariff,
    c."Label" AS tariff_class,
    l."lentAt" AS lent_at,
    CAST(l."lentAt" AS DATE) AS lent_on,
    CAST(l."lentAt" AS TIME) AS lent_time,
    TRY_CAST(l."dueBy" AS DATE) AS due_on,
    l.returned_on,
    l.fee,
    CASE WHEN CAST(l.state AS TEXT) IN ('open', 'overdue') THEN TRUE ELSE FALSE END AS is_out,
    l.state,
    l.remark
FROM "Loan" AS l
LEFT JOIN "Copy" AS k ON k."Author" = l."Author" AND k.work_no = l.work_no AND k.copy_no = l.copy_no
JOIN "Branch" AS f ON f.id = l."lentFrom"
LEFT JOIN "Region" AS fr ON fr.code = f.region
LEFT JOIN "Branch" AS t ON t.id = l."returnedTo"
LEFT JOIN "Region" AS tr ON tr.code = t.region
LEFT JOIN "Staff" AS s ON s.id = l."handledBy"
LEFT JOIN "Tariff" AS a ON a.code = l.tariff AND a.zone = l.zone
LEFT JOIN "Tariff Class" AS c ON c.code = a.class
