SELECT currency_code AS currency, extract(year FROM sales_order.created_at)::integer AS year, count(*) AS orders,
       sum(units_sold * unit_price) AS value, count(DISTINCT country) AS countries
FROM sales_order JOIN currency USING (currency_id) JOIN address ON address_id = agreed_delivery_location_id
GROUP BY 1, 2 ORDER BY value DESC LIMIT 5
