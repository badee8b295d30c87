SELECT design_name AS design, count(*) AS designs, count(DISTINCT file_location) AS folders,
       string_agg(file_location, ' ' ORDER BY design_id) AS "where"
FROM design GROUP BY design_name ORDER BY designs DESC, design LIMIT 5
