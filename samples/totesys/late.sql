-- A sale in a transaction that stays open while others come and go. Its stamps are older than theirs.
WITH o AS (
    INSERT INTO sales_order (created_at, last_updated, design_id, staff_id, counterparty_id, units_sold, unit_price,
        currency_id, agreed_delivery_date, agreed_payment_date, agreed_delivery_location_id)
    VALUES ('2024-11-12 16:20:09.500', '2024-11-12 16:20:09.500', 7, 4, 2, 12345, 3.20, 1,
        '2024-11-18', '2024-11-15', 3)
    RETURNING sales_order_id
), t AS (
    INSERT INTO "transaction" (transaction_type, sales_order_id, created_at, last_updated)
    SELECT 'SALE', sales_order_id, '2024-11-12 16:20:09.500', '2024-11-12 16:20:09.500' FROM o
    RETURNING transaction_id
)
INSERT INTO payment (created_at, last_updated, transaction_id, counterparty_id, payment_amount, currency_id,
    payment_type_id, paid, payment_date, company_ac_number, counterparty_ac_number)
SELECT '2024-11-12 16:20:09.500', '2024-11-12 16:20:09.500', transaction_id, 2, 39504.00, 1, 1, false,
    '2024-11-15', 12345678, 87654321 FROM t
