-- Units sold by currency
SELECT currency_name AS label, sum(units_sold)::float8 AS value
FROM current_fact_sales_order JOIN dim_currency USING (currency_id)
GROUP BY currency_name ORDER BY value DESC
