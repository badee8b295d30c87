-- The source has no names. A code that ISO 4217 does not know names itself.
SELECT
    currency.currency_id,
    currency.currency_code,
    COALESCE(iso_4217.currency_name, currency.currency_code) AS currency_name
FROM currency
LEFT JOIN iso_4217 ON iso_4217.currency_code = currency.currency_code
