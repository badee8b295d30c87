//! What the warehouse must hold, as SQL over the source, written by hand.

/// What follows FROM in a query for a star table, and the query over the source that says what it must hold.
pub type Oracle = (&'static str, &'static str);

/// The star tables of the Totesys pack: the newest state of each. The names of currencies are those that the
/// tests use.
pub const TOTESYS: [Oracle; 11] = [
    ("dim_design WHERE deleted_at IS NULL", "SELECT design_id, design_name, file_location, file_name FROM design"),
    (
        "dim_location WHERE deleted_at IS NULL",
        "SELECT address_id AS location_id, address_line_1, address_line_2, district, city, postal_code, country, phone
         FROM address",
    ),
    ("dim_payment_type WHERE deleted_at IS NULL", "SELECT payment_type_id, payment_type_name FROM payment_type"),
    (
        "dim_transaction WHERE deleted_at IS NULL",
        "SELECT transaction_id, transaction_type, sales_order_id, purchase_order_id FROM \"transaction\"",
    ),
    (
        "dim_currency WHERE deleted_at IS NULL",
        "SELECT currency_id, currency_code,
                CASE currency_code WHEN 'GBP' THEN 'Pound Sterling' WHEN 'USD' THEN 'US Dollar' WHEN 'EUR' THEN 'Euro'
                     WHEN 'JPY' THEN 'Yen' WHEN 'CHF' THEN 'Swiss Franc' ELSE currency_code END AS currency_name
         FROM currency",
    ),
    (
        "dim_staff WHERE deleted_at IS NULL",
        "SELECT staff_id, first_name, last_name,
                (SELECT department_name FROM department d WHERE d.department_id = s.department_id),
                CASE WHEN EXISTS (SELECT FROM department d
                                  WHERE d.department_id = s.department_id AND location IS NOT NULL)
                     THEN (SELECT location FROM department d WHERE d.department_id = s.department_id)
                     ELSE 'Unknown' END AS location,
                email_address
         FROM staff s",
    ),
    (
        "dim_counterparty WHERE deleted_at IS NULL",
        "SELECT counterparty_id, counterparty_legal_name, address_line_1 AS counterparty_legal_address_line_1,
                address_line_2 AS counterparty_legal_address_line_2, district AS counterparty_legal_district,
                city AS counterparty_legal_city, postal_code AS counterparty_legal_postal_code,
                country AS counterparty_legal_country, phone AS counterparty_legal_phone_number
         FROM address a JOIN counterparty c ON c.legal_address_id = a.address_id",
    ),
    // A date that is no longer named stays.
    (
        "(SELECT DISTINCT d.* FROM dim_date d JOIN (
              SELECT unnest(ARRAY[created_date, last_updated_date, agreed_payment_date, agreed_delivery_date])
              FROM current_fact_sales_order
              UNION SELECT unnest(ARRAY[created_date, last_updated_date, agreed_payment_date, agreed_delivery_date])
              FROM current_fact_purchase_order
              UNION SELECT unnest(ARRAY[created_date, last_updated_date, payment_date]) FROM current_fact_payment
          ) AS named (date_id) USING (date_id)) AS named",
        "WITH named (day) AS (
             SELECT unnest(ARRAY[created_at::text, last_updated::text, agreed_payment_date, agreed_delivery_date])
             FROM sales_order
             UNION SELECT unnest(ARRAY[created_at::text, last_updated::text, agreed_payment_date, agreed_delivery_date])
             FROM purchase_order
             UNION SELECT unnest(ARRAY[created_at::text, last_updated::text, payment_date]) FROM payment)
         SELECT DISTINCT to_date(left(day, 10), 'YYYY-MM-DD') AS date_id, left(day, 4)::int AS year,
                substr(day, 6, 2)::int AS month, substr(day, 9, 2)::int AS day,
                to_char(left(day, 10)::date, 'ID')::int AS day_of_week,
                to_char(left(day, 10)::date, 'FMDay') AS day_name,
                to_char(left(day, 10)::date, 'FMMonth') AS month_name,
                (substr(day, 6, 2)::int + 2) / 3 AS quarter
         FROM named",
    ),
    (
        "current_fact_sales_order",
        "SELECT sales_order_id, created_at::date AS created_date, created_at::time AS created_time,
                last_updated::date AS last_updated_date, last_updated::time AS last_updated_time,
                staff_id AS sales_staff_id, counterparty_id, units_sold, unit_price, currency_id, design_id,
                agreed_payment_date::date, agreed_delivery_date::date, agreed_delivery_location_id
         FROM sales_order",
    ),
    (
        "current_fact_purchase_order",
        "SELECT purchase_order_id, created_at::date AS created_date, created_at::time AS created_time,
                last_updated::date AS last_updated_date, last_updated::time AS last_updated_time, staff_id,
                counterparty_id, item_code, item_quantity, item_unit_price, currency_id, agreed_delivery_date::date,
                agreed_payment_date::date, agreed_delivery_location_id
         FROM purchase_order",
    ),
    (
        "current_fact_payment",
        "SELECT payment_id, created_at::date AS created_date, created_at::time AS created_time,
                last_updated::date AS last_updated_date, last_updated::time AS last_updated_time, transaction_id,
                counterparty_id, payment_amount, currency_id, payment_type_id, paid, payment_date::date
         FROM payment",
    ),
];
