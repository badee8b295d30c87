//! What the warehouse must hold, as SQL over the source, written by hand.

/// A star table, and the query over the source that says what it must hold.
pub type Oracle = (&'static str, &'static str);

/// The star tables of the Totesys pack. The names of currencies are those that the tests use.
pub const TOTESYS: [Oracle; 5] = [
    ("dim_design", "SELECT design_id, design_name, file_location, file_name FROM design"),
    (
        "dim_location",
        "SELECT address_id AS location_id, address_line_1, address_line_2, district, city, postal_code, country, phone
         FROM address",
    ),
    ("dim_payment_type", "SELECT payment_type_id, payment_type_name FROM payment_type"),
    (
        "dim_transaction",
        "SELECT transaction_id, transaction_type, sales_order_id, purchase_order_id FROM \"transaction\"",
    ),
    (
        "dim_currency",
        "SELECT currency_id, currency_code,
                CASE currency_code WHEN 'GBP' THEN 'Pound Sterling' WHEN 'USD' THEN 'US Dollar' WHEN 'EUR' THEN 'Euro'
                     WHEN 'JPY' THEN 'Yen' WHEN 'CHF' THEN 'Swiss Franc' ELSE currency_code END AS currency_name
         FROM currency",
    ),
];
