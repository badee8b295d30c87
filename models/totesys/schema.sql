-- The Totesys warehouse. Load runs this file whenever it has changed, with the warehouse's schema
-- as search_path, so every statement can be run again: CREATE … IF NOT EXISTS, ADD COLUMN IF NOT EXISTS.

CREATE TABLE IF NOT EXISTS dim_staff (
    staff_id        integer PRIMARY KEY,
    first_name      varchar NOT NULL,
    last_name       varchar NOT NULL,
    department_name varchar NOT NULL,
    location        varchar NOT NULL,
    email_address   varchar NOT NULL
);

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

CREATE TABLE IF NOT EXISTS dim_counterparty (
    counterparty_id                   integer PRIMARY KEY,
    counterparty_legal_name           varchar NOT NULL,
    counterparty_legal_address_line_1 varchar NOT NULL,
    counterparty_legal_address_line_2 varchar,
    counterparty_legal_district       varchar,
    counterparty_legal_city           varchar NOT NULL,
    counterparty_legal_postal_code    varchar NOT NULL,
    counterparty_legal_country        varchar NOT NULL,
    counterparty_legal_phone_number   varchar NOT NULL
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

-- The dates that facts name. The model gives the date alone; the names are English and the week is
-- ISO's (Monday 1 to Sunday 7), whatever the server's settings.
CREATE TABLE IF NOT EXISTS dim_date (
    date_id     date PRIMARY KEY,
    year        integer NOT NULL GENERATED ALWAYS AS (extract(year FROM date_id)) STORED,
    month       integer NOT NULL GENERATED ALWAYS AS (extract(month FROM date_id)) STORED,
    day         integer NOT NULL GENERATED ALWAYS AS (extract(day FROM date_id)) STORED,
    day_of_week integer NOT NULL GENERATED ALWAYS AS (extract(isodow FROM date_id)) STORED,
    day_name    varchar NOT NULL GENERATED ALWAYS AS (
        (ARRAY['Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday', 'Sunday'])
        [extract(isodow FROM date_id)::integer]) STORED,
    month_name  varchar NOT NULL GENERATED ALWAYS AS (
        (ARRAY['January', 'February', 'March', 'April', 'May', 'June', 'July', 'August', 'September', 'October',
               'November', 'December'])[extract(month FROM date_id)::integer]) STORED,
    quarter     integer NOT NULL GENERATED ALWAYS AS (extract(quarter FROM date_id)) STORED
);

-- The facts keep every version of a row; the warehouse numbers them.
CREATE TABLE IF NOT EXISTS fact_sales_order (
    sales_record_id             serial  PRIMARY KEY,
    sales_order_id              integer NOT NULL,
    created_date                date    NOT NULL REFERENCES dim_date (date_id),
    created_time                time    NOT NULL,
    last_updated_date           date    NOT NULL REFERENCES dim_date (date_id),
    last_updated_time           time    NOT NULL,
    sales_staff_id              integer NOT NULL REFERENCES dim_staff (staff_id),
    counterparty_id             integer NOT NULL REFERENCES dim_counterparty (counterparty_id),
    units_sold                  integer NOT NULL,
    unit_price                  numeric(10,2) NOT NULL,
    currency_id                 integer NOT NULL REFERENCES dim_currency (currency_id),
    design_id                   integer NOT NULL REFERENCES dim_design (design_id),
    agreed_payment_date         date    NOT NULL REFERENCES dim_date (date_id),
    agreed_delivery_date        date    NOT NULL REFERENCES dim_date (date_id),
    agreed_delivery_location_id integer NOT NULL REFERENCES dim_location (location_id)
);

CREATE TABLE IF NOT EXISTS fact_purchase_order (
    purchase_record_id          serial  PRIMARY KEY,
    purchase_order_id           integer NOT NULL,
    created_date                date    NOT NULL REFERENCES dim_date (date_id),
    created_time                time    NOT NULL,
    last_updated_date           date    NOT NULL REFERENCES dim_date (date_id),
    last_updated_time           time    NOT NULL,
    staff_id                    integer NOT NULL REFERENCES dim_staff (staff_id),
    counterparty_id             integer NOT NULL REFERENCES dim_counterparty (counterparty_id),
    item_code                   varchar NOT NULL,
    item_quantity               integer NOT NULL,
    item_unit_price             numeric NOT NULL,
    currency_id                 integer NOT NULL REFERENCES dim_currency (currency_id),
    agreed_delivery_date        date    NOT NULL REFERENCES dim_date (date_id),
    agreed_payment_date         date    NOT NULL REFERENCES dim_date (date_id),
    agreed_delivery_location_id integer NOT NULL REFERENCES dim_location (location_id)
);

CREATE TABLE IF NOT EXISTS fact_payment (
    payment_record_id serial  PRIMARY KEY,
    payment_id        integer NOT NULL,
    created_date      date    NOT NULL REFERENCES dim_date (date_id),
    created_time      time    NOT NULL,
    last_updated_date date    NOT NULL REFERENCES dim_date (date_id),
    last_updated_time time    NOT NULL,
    transaction_id    integer NOT NULL REFERENCES dim_transaction (transaction_id),
    counterparty_id   integer NOT NULL REFERENCES dim_counterparty (counterparty_id),
    payment_amount    numeric NOT NULL,
    currency_id       integer NOT NULL REFERENCES dim_currency (currency_id),
    payment_type_id   integer NOT NULL REFERENCES dim_payment_type (payment_type_id),
    paid              boolean NOT NULL,
    payment_date      date    NOT NULL REFERENCES dim_date (date_id)
);

-- When the row was deleted at the source (a date never is).
ALTER TABLE dim_date ADD COLUMN IF NOT EXISTS deleted_at timestamptz;
ALTER TABLE dim_staff ADD COLUMN IF NOT EXISTS deleted_at timestamptz;
ALTER TABLE dim_location ADD COLUMN IF NOT EXISTS deleted_at timestamptz;
ALTER TABLE dim_currency ADD COLUMN IF NOT EXISTS deleted_at timestamptz;
ALTER TABLE dim_design ADD COLUMN IF NOT EXISTS deleted_at timestamptz;
ALTER TABLE dim_counterparty ADD COLUMN IF NOT EXISTS deleted_at timestamptz;
ALTER TABLE dim_payment_type ADD COLUMN IF NOT EXISTS deleted_at timestamptz;
ALTER TABLE dim_transaction ADD COLUMN IF NOT EXISTS deleted_at timestamptz;

-- A row of a fact is a version: it holds from valid_from until valid_to, and the open one until further notice. What was so at a
-- time t: WHERE valid_from <= t AND (valid_to > t OR valid_to IS NULL).
ALTER TABLE fact_sales_order
    ADD COLUMN IF NOT EXISTS valid_from timestamptz NOT NULL,
    ADD COLUMN IF NOT EXISTS valid_to timestamptz CHECK (valid_to > valid_from),
    ADD COLUMN IF NOT EXISTS deleted_at timestamptz;
ALTER TABLE fact_purchase_order
    ADD COLUMN IF NOT EXISTS valid_from timestamptz NOT NULL,
    ADD COLUMN IF NOT EXISTS valid_to timestamptz CHECK (valid_to > valid_from),
    ADD COLUMN IF NOT EXISTS deleted_at timestamptz;
ALTER TABLE fact_payment
    ADD COLUMN IF NOT EXISTS valid_from timestamptz NOT NULL,
    ADD COLUMN IF NOT EXISTS valid_to timestamptz CHECK (valid_to > valid_from),
    ADD COLUMN IF NOT EXISTS deleted_at timestamptz;
CREATE UNIQUE INDEX IF NOT EXISTS fact_sales_order_open ON fact_sales_order (sales_order_id) WHERE valid_to IS NULL;
CREATE UNIQUE INDEX IF NOT EXISTS fact_purchase_order_open ON fact_purchase_order (purchase_order_id)
    WHERE valid_to IS NULL;
CREATE UNIQUE INDEX IF NOT EXISTS fact_payment_open ON fact_payment (payment_id) WHERE valid_to IS NULL;
