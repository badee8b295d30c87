-- Every type goes through as it is, under the source's own names.
SELECT
    tag, "Kind", kinds, facts, "Raw", "foundAt", weight, "Länge µm", photo, marks, labels, worth, tally, kept,
    seen_from, claimed, finder, closes, note, small, big, day, stamp, price, title, body
FROM "Lost Property"
