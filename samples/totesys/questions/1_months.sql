-- Units sold by month, the last twelve
SELECT to_char(month, 'Mon YYYY') AS label, units::float8 AS value
FROM (SELECT date_trunc('month', date_id) AS month, sum(units_sold) AS units
      FROM current_fact_sales_order JOIN dim_date ON date_id = created_date
      GROUP BY 1 ORDER BY 1 DESC LIMIT 12) m
ORDER BY month
