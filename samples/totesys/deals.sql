-- Two years of business as the real source has it, `demo.deals` orders in all. They are made on working days from 8 to 19
-- o'clock; order, transaction and payment of a deal share their created_at. The same number makes the same rows.

SELECT setseed(0.5);

CREATE TEMPORARY TABLE deal ON COMMIT DROP AS
WITH days AS (
    SELECT array_agg(day ORDER BY day) AS day
    FROM generate_series(timestamp '2022-11-03', '2024-11-12', '1 day') AS day WHERE extract(isodow FROM day) < 6
), made AS (
    -- In second 9 or 10 of a minute, as most are.
    SELECT day[1 + floor(random() * cardinality(day))] + floor(random() * 659) * interval '1 minute'
           + interval '8 hours 9 seconds' + floor(random() * 2000) * interval '1 millisecond' AS at,
           random() < 0.7 AS is_sale
    FROM days, generate_series(1, current_setting('demo.deals')::integer)
)
SELECT at, is_sale, (SELECT max(transaction_id) FROM "transaction") + row_number() OVER (ORDER BY at) AS id,
       CASE WHEN is_sale THEN (SELECT max(sales_order_id) FROM sales_order)
            ELSE (SELECT max(purchase_order_id) FROM purchase_order) END
           + row_number() OVER (PARTITION BY is_sale ORDER BY at) AS order_id,
       1 + floor(random() * 3)::integer AS currency,
       1001 + floor(random() * 98973)::integer AS units, round((2 + random() * 2)::numeric, 2) AS price,
       1 + floor(random() * 999)::integer AS quantity, round((3.32 + random() * 995.75)::numeric, 2) AS item_price,
       at::date + floor(random() * 7)::integer AS pay_on, at::date + floor(random() * 7)::integer AS deliver_on,
       random() AS staff, random() ^ 1.5 AS counterparty, random() ^ 2 AS address, random() AS design
FROM made;

-- A new design every working day or two.
INSERT INTO design (created_at, last_updated, design_name, file_location, file_name)
SELECT at, at, name, '/usr/' || (ARRAY['share', 'local/src', 'ports', 'lib'])[1 + id % 4],
       lower(name) || to_char(at, '-YYYYMMDD-') || left(md5(id::text), 4) || '.json'
FROM (SELECT *, (ARRAY['Bronze', 'Concrete', 'Cotton', 'Fresh', 'Frozen', 'Granite', 'Metal', 'Plastic', 'Rubber', 'Soft',
                       'Steel', 'Wooden'])[1 + id % 12] AS name FROM deal WHERE id % 45 = 0) d
ORDER BY id;

CREATE TEMPORARY TABLE known ON COMMIT DROP AS
SELECT (SELECT array_agg(staff_id ORDER BY staff_id) FROM staff) AS staff,
       (SELECT array_agg(counterparty_id ORDER BY counterparty_id) FROM counterparty) AS counterparty,
       (SELECT array_agg(address_id ORDER BY address_id) FROM address) AS address,
       (SELECT count(*) FROM design) AS designs;

-- There are more designs than an array can hold and be read fast.
CREATE TEMPORARY TABLE numbered ON COMMIT DROP AS
SELECT row_number() OVER (ORDER BY design_id) AS number, design_id FROM design;

CREATE TEMPORARY TABLE agreed ON COMMIT DROP AS
SELECT d.id, d.at, d.is_sale, d.order_id, d.currency, d.units, d.price, d.quantity, d.item_price, d.pay_on,
       -- One in 250 was put off later, silently.
       CASE WHEN d.id % 250 = 0 THEN date '2024-11-13' + d.quantity % 60 ELSE d.deliver_on END AS deliver_on,
       k.staff[1 + floor(d.staff * cardinality(k.staff))] AS staff,
       k.counterparty[1 + floor(d.counterparty * cardinality(k.counterparty))] AS counterparty,
       k.address[1 + floor(d.address * cardinality(k.address))] AS address,
       n.design_id AS design
FROM deal d CROSS JOIN known k JOIN numbered n ON n.number = 1 + floor(d.design * k.designs)::bigint;

INSERT INTO sales_order (sales_order_id, created_at, last_updated, design_id, staff_id, counterparty_id, units_sold,
    unit_price, currency_id, agreed_delivery_date, agreed_payment_date, agreed_delivery_location_id)
SELECT order_id, at, at, design, staff, counterparty, units, price, currency, deliver_on, pay_on, address
FROM agreed WHERE is_sale ORDER BY id;

INSERT INTO purchase_order (purchase_order_id, created_at, last_updated, staff_id, counterparty_id, item_code,
    item_quantity, item_unit_price, currency_id, agreed_delivery_date, agreed_payment_date, agreed_delivery_location_id)
SELECT order_id, at, at, staff, counterparty, upper(left(md5('item' || id), 7)), quantity, item_price, currency,
       deliver_on, pay_on, address
FROM agreed WHERE NOT is_sale ORDER BY id;

INSERT INTO "transaction" (transaction_id, transaction_type, sales_order_id, purchase_order_id, created_at, last_updated)
SELECT id, CASE WHEN is_sale THEN 'SALE' ELSE 'PURCHASE' END::"TransactionType", CASE WHEN is_sale THEN order_id END,
       CASE WHEN NOT is_sale THEN order_id END, at, at
FROM agreed ORDER BY id;

-- Paid on the morning of the day, if that was a working day after the deal.
INSERT INTO payment (created_at, last_updated, transaction_id, counterparty_id, payment_amount, currency_id,
    payment_type_id, paid, payment_date, company_ac_number, counterparty_ac_number)
SELECT at, CASE WHEN is_paid THEN pay_on + interval '7 hours 55 minutes 11.5 seconds' ELSE at END, id, counterparty,
       CASE WHEN is_sale THEN units * price ELSE quantity * item_price END, currency,
       CASE WHEN is_sale THEN 1 ELSE 3 END, is_paid, pay_on, 10000000 + counterparty, 20000000 + id
FROM (SELECT *, pay_on > at::date AND pay_on <= '2024-11-12' AND extract(isodow FROM pay_on) < 6 AS is_paid FROM agreed) p
ORDER BY id;
