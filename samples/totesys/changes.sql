-- Changes for after the first load, each of a kind that the real source makes, one step a block.

-- 1. A new sale: order, transaction and payment of one deal share a millisecond.
--    One new row in dim_transaction, fact_sales_order and fact_payment.
WITH o AS (
    INSERT INTO sales_order (created_at, last_updated, design_id, staff_id, counterparty_id, units_sold, unit_price,
        currency_id, agreed_delivery_date, agreed_payment_date, agreed_delivery_location_id)
    VALUES ('2024-11-12 18:59:10.007', '2024-11-12 18:59:10.007', 3, 17, 13, 40000, 2.55, 2,
        '2024-11-15', '2024-11-14', 9)
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

-- 2. A silent update of a sale: last_updated stays as it was, as it does in the real source.
--    A second version of order 4 in fact_sales_order, with the same last_updated_date and _time; a
--    pipeline that goes by last_updated never sees it.
UPDATE sales_order SET agreed_delivery_date = '2025-08-11' WHERE sales_order_id = 4;

-- 3. A silent update of a design. Row 5 of dim_design is replaced.
UPDATE design SET file_location = '/usr/ports' WHERE design_id = 5;

-- 4. The morning's payments: one statement, one timestamp.
--    One new version in fact_payment for each of the five rows, and nothing else.
UPDATE payment SET paid = true, last_updated = '2024-11-13 07:55:11.724'
WHERE NOT paid AND payment_date = '2024-11-13';

-- 5. A department moves; no row of staff changes.
--    In dim_staff the location of the members of department 4 is replaced (there is one).
UPDATE department SET location = 'Leeds', last_updated = '2024-11-20 10:00:00.000' WHERE department_id = 4;

-- 6. A moved address; no counterparty changes.
--    Row 17 of dim_location is replaced, and rows 11 and 19 of dim_counterparty.
UPDATE address SET city = 'Priceford', last_updated = '2024-11-20 10:00:00.001' WHERE address_id = 17;

-- 7. A value cleared.
--    NULL in row 6 of dim_location and row 12 of dim_counterparty, not the empty string and not 'None'.
UPDATE address SET address_line_2 = NULL, last_updated = '2024-11-20 10:00:00.002' WHERE address_id = 6;

-- 8. A late commit: stamped before rows that were taken already, visible only now.
--    One new row in dim_design.
INSERT INTO design (created_at, last_updated, design_name, file_location, file_name)
VALUES ('2024-11-12 18:59:09.990', '2024-11-12 18:59:09.990', 'Rubber', '/srv', 'rubber-20240101-late.json');

-- 9. A new currency. Its name comes from the pack's ISO 4217 table.
INSERT INTO currency (currency_code, created_at, last_updated)
VALUES ('CHF', '2024-11-20 10:00:00.003', '2024-11-20 10:00:00.003');

-- 10. A deal is undone: its payment, its transaction and its order are deleted.
--     The rows stay, marked with deleted_at; the current_ views leave them out.
DELETE FROM payment WHERE transaction_id IN (SELECT transaction_id FROM "transaction" WHERE sales_order_id = 2);
DELETE FROM "transaction" WHERE sales_order_id = 2;
DELETE FROM sales_order WHERE sales_order_id = 2;

-- 11. An order is deleted alone: its foreign key empties transaction.sales_order_id, and last_updated stays.
--     The order is marked, and the row of dim_transaction has no order any more.
DELETE FROM sales_order WHERE sales_order_id = 3;

-- 12. Text dates that are no dates: the column is text, so nothing prevents them.
--     Both rows are set aside, each with the reason; their former versions stay, and the rest goes on.
UPDATE sales_order SET agreed_payment_date = '2024-02-30', last_updated = '2024-11-21 09:00:00.000'
WHERE sales_order_id = 6;
UPDATE purchase_order SET agreed_delivery_date = 'tbc', last_updated = '2024-11-21 09:00:00.000'
WHERE purchase_order_id = 2;
