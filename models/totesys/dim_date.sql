-- Every date that a fact names. The warehouse computes the rest of the row from it. A text that is
-- no date is left to the fact to report.
SELECT CAST(created_at AS DATE) AS date_id FROM sales_order
UNION
SELECT CAST(last_updated AS DATE) FROM sales_order
UNION
SELECT TRY_CAST(agreed_delivery_date AS DATE) FROM sales_order
WHERE TRY_CAST(agreed_delivery_date AS DATE) IS NOT NULL
UNION
SELECT TRY_CAST(agreed_payment_date AS DATE) FROM sales_order
WHERE TRY_CAST(agreed_payment_date AS DATE) IS NOT NULL
UNION
SELECT CAST(created_at AS DATE) FROM purchase_order
UNION
SELECT CAST(last_updated AS DATE) FROM purchase_order
UNION
SELECT TRY_CAST(agreed_delivery_date AS DATE) FROM purchase_order
WHERE TRY_CAST(agreed_delivery_date AS DATE) IS NOT NULL
UNION
SELECT TRY_CAST(agreed_payment_date AS DATE) FROM purchase_order
WHERE TRY_CAST(agreed_payment_date AS DATE) IS NOT NULL
UNION
SELECT CAST(created_at AS DATE) FROM payment
UNION
SELECT CAST(last_updated AS DATE) FROM payment
UNION
SELECT TRY_CAST(payment_date AS DATE) FROM payment
WHERE TRY_CAST(payment_date AS DATE) IS NOT NULL
