-- Units sold by country of delivery, the first six
SELECT country AS label, sum(units_sold)::float8 AS value
FROM current_fact_sales_order JOIN dim_location ON location_id = agreed_delivery_location_id
GROUP BY country ORDER BY value DESC LIMIT 6
