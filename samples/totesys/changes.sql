-- Changes for after the first load, each of a kind that the real source makes, one step a block.

-- 1. A new sale: order, transaction and payment of one deal share a millisecond.
--    One new row in dim_transaction.
WITH o AS (
    INSERT INTO sales_order (created_at, last_updated, design_id, staff_id, counterparty_id, units_sold, unit_price,
        currency_id, agreed_delivery_date, agreed_payment_date, agreed_delivery_location_id)
    VALUES ('2024-11-12 18:59:10.007', '2024-11-12 18:59:10.007', 3, 17, 13, 40000, 2.55, 2, '2024-11-15', '2024-11-14', 9)
    RETURNING sales_order_id
), t AS (
    INSERT INTO "transaction" (transaction_type, sales_order_id, created_at, last_updated)
    SELECT 'SALE', sales_order_id, '2024-11-12 18:59:10.007', '2024-11-12 18:59:10.007' FROM o
    RETURNING transaction_id
)
INSERT INTO payment (created_at, last_updated, transaction_id, counterparty_id, payment_amount, currency_id,
    payment_type_id, paid, payment_date, company_ac_number, counterparty_ac_number)
SELECT '2024-11-12 18:59:10.007', '2024-11-12 18:59:10.007', transaction_id, 13, 102000.00, 2, 1, false,
    '2024-11-14', 12345678, 87654321 FROM t;

-- 2. A silent update: last_updated stays as it was, as it does in the real source.
--    Row 5 of dim_design is replaced; a pipeline that goes by last_updated never sees it.
UPDATE design SET file_location = '/usr/ports' WHERE design_id = 5;

-- 3. A moved address. Row 17 of dim_location is replaced.
UPDATE address SET city = 'Priceford', last_updated = '2024-11-20 10:00:00.001' WHERE address_id = 17;

-- 4. A value cleared. NULL in the warehouse, not the empty string and not 'None'.
UPDATE address SET address_line_2 = NULL, last_updated = '2024-11-20 10:00:00.002' WHERE address_id = 6;

-- 5. A late commit: stamped before rows that were taken already, visible only now.
--    One new row in dim_design.
INSERT INTO design (created_at, last_updated, design_name, file_location, file_name)
VALUES ('2024-11-12 18:59:09.990', '2024-11-12 18:59:09.990', 'Rubber', '/srv', 'rubber-20240101-late.json');

-- 6. A new currency. Its name comes from the pack's ISO 4217 table.
INSERT INTO currency (currency_code, created_at, last_updated)
VALUES ('CHF', '2024-11-20 10:00:00.003', '2024-11-20 10:00:00.003');
