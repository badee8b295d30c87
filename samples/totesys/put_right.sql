-- What the demo does before its third batch.

-- 13. The next morning's payments.
UPDATE payment SET paid = true, last_updated = '2024-11-14 07:55:11.103' WHERE NOT paid AND payment_date = '2024-11-14';

-- 14. The dates that were none are put right. Their rows come out of quarantine.
UPDATE sales_order SET agreed_payment_date = '2024-02-29', last_updated = '2024-11-21 09:30:00.000'
WHERE sales_order_id = 6;
UPDATE purchase_order SET agreed_delivery_date = '2024-12-02', last_updated = '2024-11-21 09:30:00.000'
WHERE purchase_order_id = 2;
