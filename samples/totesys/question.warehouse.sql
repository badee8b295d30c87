SELECT currency_code AS currency, year, count(*) AS orders,
       sum(units_sold * unit_price) AS value, count(DISTINCT country) AS countries
FROM current_fact_sales_order
JOIN dim_currency USING (currency_id)
JOIN dim_date ON date_id = created_date
JOIN dim_location ON location_id = agreed_delivery_location_id
GROUP BY 1, 2 ORDER BY value DESC LIMIT 5
