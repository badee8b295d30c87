-- The Totesys warehouse. Load runs this file whenever it has changed, with the warehouse's schema
-- as search_path, so every statement can be run again: CREATE … IF NOT EXISTS, ADD COLUMN IF NOT EXISTS.

CREATE TABLE IF NOT EXISTS dim_location (
    location_id    integer PRIMARY KEY,
    address_line_1 varchar NOT NULL,
    address_line_2 varchar,
    district       varchar,
    city           varchar NOT NULL,
    postal_code    varchar NOT NULL,
    country        varchar NOT NULL,
    phone          varchar NOT NULL
);

CREATE TABLE IF NOT EXISTS dim_currency (
    currency_id   integer PRIMARY KEY,
    currency_code varchar NOT NULL,
    currency_name varchar NOT NULL
);

CREATE TABLE IF NOT EXISTS dim_design (
    design_id     integer PRIMARY KEY,
    design_name   varchar NOT NULL,
    file_location varchar NOT NULL,
    file_name     varchar NOT NULL
);

CREATE TABLE IF NOT EXISTS dim_payment_type (
    payment_type_id   integer PRIMARY KEY,
    payment_type_name varchar NOT NULL
);

-- The order ids are plain numbers: the facts hold several versions of an order.
CREATE TABLE IF NOT EXISTS dim_transaction (
    transaction_id    integer PRIMARY KEY,
    transaction_type  varchar NOT NULL,
    sales_order_id    integer,
    purchase_order_id integer
);
