-- A deleted account has no row: its issues and events name nobody.
SELECT
    people.id AS person_id,
    people.login,
    people.type,
    people.is_bot,
    COALESCE(NOT members.inactive, FALSE) AS is_member,
    members.id IS NOT NULL AS was_ever_member
FROM people
LEFT JOIN members ON members.id = people.id
