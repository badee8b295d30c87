//! Another database, with which the first one has nothing in common, through the same program: a
//! lending library, whose tables do not say when a row changed.

use std::collections::BTreeMap;

use blackwater_tests::{Oracle, World};

const SOURCE: &str = include_str!("../packs/library/source.sql");

const PACK: &[(&str, &str)] = &[
    ("schema.sql", include_str!("../packs/library/pack/schema.sql")),
    ("country.csv", include_str!("../packs/library/pack/country.csv")),
    ("dim_branch.sql", include_str!("../packs/library/pack/dim_branch.sql")),
    ("dim_staff.sql", include_str!("../packs/library/pack/dim_staff.sql")),
    ("dim_work.sql", include_str!("../packs/library/pack/dim_work.sql")),
    ("dim_copy.sql", include_str!("../packs/library/pack/dim_copy.sql")),
    ("dim_day.sql", include_str!("../packs/library/pack/dim_day.sql")),
    ("dim_lostProperty.sql", include_str!("../packs/library/pack/dim_lostProperty.sql")),
    ("fact_loan.sql", include_str!("../packs/library/pack/fact_loan.sql")),
];

/// What the warehouse must hold.
const ORACLE: &[Oracle] = &[
    (
        "dim_branch WHERE deleted_at IS NULL",
        r#"SELECT id AS branch_id, "Name" AS name, region AS region_code,
                  coalesce((SELECT r."Name" FROM "Region" r WHERE r.code = b.region), 'unknown') AS region,
                  opened, "Opens" AS opens, "Größe m²" AS area
           FROM "Branch" b"#,
    ),
    (
        "dim_staff WHERE deleted_at IS NULL",
        r#"SELECT id AS staff_id, "Full Name" AS name,
                  (SELECT title FROM department d WHERE d.id = s.department) AS department,
                  "managerId" AS manager_id,
                  (SELECT m."Full Name" FROM "Staff" m WHERE m.id = s."managerId") AS manager,
                  coalesce((SELECT coalesce((SELECT title FROM department d WHERE d.id = m.department), 'unknown')
                            FROM "Staff" m WHERE m.id = s."managerId" AND m.department IS NOT NULL),
                           'none') AS manager_department,
                  "Branch" AS branch_id
           FROM "Staff" s"#,
    ),
    (
        "dim_work WHERE deleted_at IS NULL",
        r#"SELECT "authorCode" AS author_code, "No" AS work_no, title,
                  title || coalesce(': ' || nullif(btrim(subtitle), ''), '') AS full_title,
                  (SELECT "Name" FROM "Language" WHERE code = w.language) AS language,
                  (SELECT name FROM "Publisher" WHERE id = w.publisher) AS publisher,
                  (SELECT CASE country WHEN 'CH' THEN 'Switzerland' WHEN 'DE' THEN 'Germany' WHEN 'FR' THEN 'France'
                                       WHEN 'IT' THEN 'Italy' WHEN 'CI' THEN 'Côte d''Ivoire, "Ivory Coast"'
                                       ELSE country END
                   FROM "Publisher" WHERE id = w.publisher) AS publisher_country,
                  coalesce((SELECT g."Group Name" FROM "Publisher Group" g, "Publisher" p
                            WHERE p.id = w.publisher AND (g.country, g."No") = (p.country, p.group_no)),
                           'independent') AS publisher_group,
                  isbn,
                  CASE WHEN published IS NULL THEN 'undated' WHEN extract(year FROM published) < 1900 THEN 'old'
                       WHEN extract(year FROM published) < 2000 THEN '20th century' ELSE 'new' END AS era,
                  upper(language) || '/' || "No" || ' ' || coalesce(subtitle, '') AS label
           FROM "Œuvre" w WHERE language IN (SELECT code FROM "Language")"#,
    ),
    (
        "dim_copy WHERE deleted_at IS NULL",
        r#"SELECT "Author" AS author_code, work_no, copy_no, barcode,
                  (SELECT title FROM "Œuvre" w WHERE (w."authorCode", w."No") = (c."Author", c.work_no)) AS title,
                  (SELECT name FROM "Publisher" WHERE id = (
                       SELECT publisher FROM "Œuvre" w WHERE (w."authorCode", w."No") = (c."Author", c.work_no)
                  )) AS publisher,
                  home AS home_id, (SELECT "Name" FROM "Branch" WHERE id = home) AS home, state, price,
                  price > 50 AS is_dear,
                  CASE WHEN "Weight" ~ '^-?\d{1,6}(\.\d{1,2})?$' THEN "Weight"::numeric(8,2) END AS weight
           FROM "Copy" c WHERE state > 'ordered'"#,
    ),
    (
        "dim_day",
        r#"SELECT DISTINCT day, to_char(day, 'YYYY')::int AS year, to_char(day, 'Q')::int AS quarter,
                  to_char(day, 'MM')::int AS month, to_char(day, 'ID')::int AS weekday
           FROM (SELECT ("lentAt" AT TIME ZONE 'UTC')::date AS day FROM "Loan"
                 UNION ALL SELECT returned_on FROM "Loan"
                 UNION ALL SELECT opened FROM "Branch") named
           WHERE day IS NOT NULL"#,
    ),
    (
        r#""dim_lostProperty" WHERE deleted_at IS NULL"#,
        r#"SELECT tag, "Kind", kinds, facts, "Raw", "foundAt", weight,
                  "Länge µm", photo, marks, labels, worth, tally, kept, seen_from, claimed, finder,
                  closes, note, small, big, day, stamp, price, title, body
           FROM "Lost Property""#,
    ),
    (
        "current_fact_loan",
        r#"SELECT "memberNo" AS member_no, seq AS loan_seq, "Author" AS author_code, work_no, copy_no,
                  (SELECT barcode FROM "Copy" k
                   WHERE (k."Author", k.work_no, k.copy_no) = (l."Author", l.work_no, l.copy_no)) AS barcode,
                  "lentFrom" AS lent_from,
                  (SELECT "Name" FROM "Branch" WHERE id = "lentFrom") AS lent_from_name,
                  coalesce((SELECT "Name" FROM "Region" WHERE code = (
                       SELECT region FROM "Branch" WHERE id = "lentFrom")), 'unknown') AS lent_from_region,
                  "returnedTo" AS returned_to,
                  CASE WHEN "returnedTo" NOT IN (SELECT id FROM "Branch") THEN 'unknown'
                       ELSE (SELECT "Name" FROM "Branch" WHERE id = "returnedTo") END AS returned_to_name,
                  (SELECT "Name" FROM "Region" WHERE code = (
                       SELECT region FROM "Branch" WHERE id = "returnedTo")) AS returned_to_region,
                  "handledBy" AS handled_by,
                  (SELECT "Full Name" FROM "Staff" WHERE id = "handledBy") AS handled_by_name,
                  (SELECT title FROM "Tariff" a WHERE (a.code, a.zone) = (l.tariff, l.zone)) AS tariff,
                  (SELECT "Label" FROM "Tariff Class" WHERE code = (
                       SELECT class FROM "Tariff" a WHERE (a.code, a.zone) = (l.tariff, l.zone))) AS tariff_class,
                  "lentAt" AS lent_at, ("lentAt" AT TIME ZONE 'UTC')::date AS lent_on,
                  ("lentAt" AT TIME ZONE 'UTC')::time AS lent_time,
                  CASE WHEN "dueBy" ~ '^\d{4}-\d\d-\d\d$' AND "dueBy" <> '2024-02-30' THEN "dueBy"::date END AS due_on,
                  returned_on, fee, state::text = ANY ('{open,overdue}') AS is_out, state, remark
           FROM "Loan" l"#,
    ),
];

/// What happens at the source, one after another. Each must arrive.
const STEPS: &[(&str, &str)] = &[
    (
        "a region's name: the branches in it, and loans through both aliases of the branch",
        r#"UPDATE "Region" SET "Name" = 'Zurich' WHERE code = 'ZH'"#,
    ),
    ("the region of a branch that books only come back to", r#"UPDATE "Region" SET "Name" = 'NULL' WHERE code = 'x'"#),
    (
        "a branch that is both lent from and returned to",
        r#"UPDATE "Branch" SET "Name" = E'Cen\ntral, "1"' WHERE id = 1"#,
    ),
    ("a branch that books are only lent from", r#"UPDATE "Branch" SET "Name" = 'North Depot' WHERE id = 6"#),
    ("a branch that books only come back to", r#"UPDATE "Branch" SET "Name" = ' ', "Größe m²" = NULL WHERE id = 8"#),
    ("a branch that moves to another region", r#"UPDATE "Branch" SET region = 'BE' WHERE id = 2"#),
    ("a tariff", r#"UPDATE "Tariff" SET title = 'Standard 1' WHERE id = 1"#),
    ("the class of a tariff", r#"UPDATE "Tariff Class" SET "Label" = '' WHERE code = 'S'"#),
    ("a tariff that moves to another class", r#"UPDATE "Tariff" SET class = 'S' WHERE code = 'kid'"#),
    (
        "a publisher: its works and their copies",
        r#"UPDATE "Publisher" SET name = 'Diogenes, Zürich' WHERE name = 'Diogenes'"#,
    ),
    ("a publisher's group", r#"UPDATE "Publisher Group" SET "Group Name" = NULL WHERE (country, "No") = ('DE', 1)"#),
    ("a publisher that moves abroad", r#"UPDATE "Publisher" SET country = 'CI', group_no = 5 WHERE name = 'Adelphi'"#),
    ("a language", r#"UPDATE "Language" SET "Name" = 'Français' WHERE code = 'fr'"#),
    ("a manager's department", "UPDATE department SET title = 'The Board' WHERE id = 2"),
    ("a department that people and their manager are in", "UPDATE department SET title = 'Repair' WHERE id = 3"),
    ("a manager's name, who also lends books", r#"UPDATE "Staff" SET "Full Name" = 'Beat "B" O''Brien' WHERE id = 2"#),
    ("a manager who changes department", r#"UPDATE "Staff" SET department = 5 WHERE id = 4"#),
    (
        "people who change their manager",
        r#"UPDATE "Staff" SET "managerId" = CASE id WHEN 5 THEN 7 WHEN 9 THEN 3 END WHERE id IN (2, 5, 9)"#,
    ),
    (
        "a work, which its copies show too",
        r#"UPDATE "Œuvre" SET title = 'Homo "Faber"' WHERE ("authorCode", "No") = ('FRI', 1)"#,
    ),
    (
        "a work at another publisher",
        r#"UPDATE "Œuvre" SET publisher = NULL, subtitle = NULL WHERE "authorCode" = 'WOO'"#,
    ),
    ("a copy, which a loan shows too", r#"UPDATE "Copy" SET barcode = NULL, price = 50.01 WHERE barcode = 'B-0001'"#),
    (
        "a copy that was ordered is there",
        r#"UPDATE "Copy" SET state = 'on shelf' WHERE ("Author", work_no) = ('CAM', 1)"#,
    ),
    ("a loan", r#"UPDATE "Loan" SET "dueBy" = '2024-03-31', fee = 0.5 WHERE ("memberNo", seq) = (1, 3)"#),
    ("a column that no model reads", r#"UPDATE "Region" SET population = population + 1"#),
    ("a tariff is gone", r#"DELETE FROM "Tariff" WHERE (code, zone) = ('std', 1)"#),
    (
        "the tariff is there again under the same key",
        r#"INSERT INTO "Tariff" VALUES (100, 'std', 1, 'Standard again', 'R')"#,
    ),
    (
        "a tariff that loans were waiting for",
        r#"INSERT INTO "Tariff" VALUES (8, 'gone', 1, 'Come back', 'none'), (9, 'red', 2, 'Reduced 2', '')"#,
    ),
    ("the class that a tariff was waiting for", r#"INSERT INTO "Tariff Class" VALUES ('none', 'None', NULL)"#),
    ("a class is gone, its tariffs are not", r#"DELETE FROM "Tariff Class" WHERE code = 'R'"#),
    (
        "a tariff takes the key of another, which got a new one",
        r#"UPDATE "Tariff" SET zone = 3 WHERE (code, zone) = ('std', 2);
           UPDATE "Tariff" SET code = 'std', zone = 2 WHERE (code, zone) = ('red', 1)"#,
    ),
    (
        "two tariffs change places",
        r#"UPDATE "Tariff" SET zone = -1 WHERE (code, zone) = ('std', 1);
           UPDATE "Tariff" SET zone = 1 WHERE (code, zone) = ('std', 2);
           UPDATE "Tariff" SET zone = 2 WHERE (code, zone) = ('std', -1)"#,
    ),
    (
        "a region is gone, and another is there under the same key",
        r#"DELETE FROM "Region" WHERE code = 'BE'; INSERT INTO "Region" VALUES ('BE', 'Berne', NULL)"#,
    ),
    (
        "a region is gone, and another, that a branch was waiting for, is there",
        r#"DELETE FROM "Region" WHERE code = 'GR'; INSERT INTO "Region" VALUES ('ZG', 'Zug', 0)"#,
    ),
    ("a region goes by another code", r#"UPDATE "Region" SET code = 'GR' WHERE code = 'x'"#),
    (
        "half a key is NULL, of a lookup table",
        r#"UPDATE "Publisher" SET group_no = NULL WHERE name = 'Gallimard';
           UPDATE "Publisher" SET country = NULL WHERE name = 'Suhrkamp'"#,
    ),
    (
        "and is back",
        r#"UPDATE "Publisher" SET group_no = 7 WHERE name = 'Gallimard';
           UPDATE "Publisher" SET country = 'DE' WHERE name = 'Suhrkamp'"#,
    ),
    (
        "half a key is NULL, of a driving table",
        r#"UPDATE "Loan" SET work_no = NULL, zone = NULL WHERE ("memberNo", seq) IN ((1, 1), (4, 1));
           UPDATE "Loan" SET copy_no = 1 WHERE ("memberNo", seq) = (2, 2)"#,
    ),
    (
        "and is back",
        r#"UPDATE "Loan" SET work_no = 1, zone = 1 WHERE ("memberNo", seq) IN ((1, 1), (4, 1));
           UPDATE "Loan" SET copy_no = NULL WHERE ("memberNo", seq) = (2, 2)"#,
    ),
    (
        "a publisher that works were waiting for",
        r#"INSERT INTO "Publisher" VALUES ('00000000-0000-4000-8000-000000000009', 'Neun', 'CH', 9)"#,
    ),
    ("the group that it was waiting for", r#"INSERT INTO "Publisher Group" VALUES ('CH', 9, 'Die Neun')"#),
    ("a publisher is gone, and with it the way to its group", r#"DELETE FROM "Publisher" WHERE name = 'Gallimard'"#),
    (
        "a group is gone, and one takes the key of another",
        r#"DELETE FROM "Publisher Group" WHERE (country, "No") = ('DE', 1);
           UPDATE "Publisher Group" SET country = 'DE', "No" = 1 WHERE (country, "No") = ('CH', 1)"#,
    ),
    (
        "two publishers change places",
        r#"UPDATE "Publisher" SET id = '00000000-0000-4000-8000-0000000000ff' WHERE name = 'Suhrkamp';
           UPDATE "Publisher" SET id = '00000000-0000-4000-8000-000000000004' WHERE name = 'Adelphi';
           UPDATE "Publisher" SET id = '00000000-0000-4000-8000-000000000005' WHERE name = 'Suhrkamp'"#,
    ),
    ("a language that works were waiting for", r#"INSERT INTO "Language" VALUES ('rm', 'Rumantsch')"#),
    ("a department is gone that people and managers are in", "DELETE FROM department WHERE id IN (1, 5)"),
    (
        "departments change their keys",
        "UPDATE department SET id = 1 WHERE id = 4; INSERT INTO department VALUES (4, 'IT, new')",
    ),
    (
        "a branch that a book came back to before anybody knew it",
        r#"INSERT INTO "Branch" VALUES (99, 'Bookmobile', 'ZG', '2024-05-01', '24:00', 1e-30)"#,
    ),
    (
        "rows of every table that drives a model, each referring to the others",
        r#"INSERT INTO "Branch" VALUES (32767, 'Wil', 'SG', '2024-08-01', NULL, NULL);
           INSERT INTO "Staff" VALUES (11, 'Kim', 77, 12, 32767), (12, 'Lou', 77, 1, 32767);
           INSERT INTO "Œuvre" VALUES ('WAL', 1, 'Geschwister Tanner', NULL, 'de', NULL, NULL, '1907-01-01');
           INSERT INTO "Copy" VALUES ('WAL', 1, 1, 'B-1000', 32767, 'lent', 1, '1'),
                                     ('WAL', 1, 2, 'B-1001', 32767, 'ordered', 1, '1');
           INSERT INTO "Loan" VALUES (-9223372036854775808, -1, 'WAL', 1, 1, 32767, 32767, 12, 'std', 1,
                                      '2024-12-31 23:59:59-12', '2024-12-31', NULL, 1, 'open', '')"#,
    ),
    ("a department that a manager was waiting for", "INSERT INTO department VALUES (77, 'Mobile', 0)"),
    (
        "an enum's label goes by another name",
        r#"ALTER TYPE "LoanState" RENAME VALUE 'overdue' TO 'late, "very"';
           ALTER TYPE "CopyState" RENAME VALUE 'in repair' TO 'being mended'"#,
    ),
    (
        "a value of every type",
        r#"UPDATE "Lost Property" SET "Kind" = '', kinds = '[5:5]={""}', facts = '[1.0, 1.00, "\u2028"]',
                  "Raw" = E'{"z":1,\n"z":1}', "foundAt" = '2024-10-27 02:30:00.123456-11:30', weight = 3.4028235e38,
                  "Länge µm" = 1.7976931348623157e308, photo = '\x00000a', marks = '{{{1}}}', labels = '{"\"","\\"}',
                  worth = 1e40, tally = -0.001, kept = '-1 year 1 day -00:00:01', seen_from = '::ffff:1.2.3.4/96',
                  claimed = NULL, finder = 'é', closes = '00:00:00.000001', note = E'\\.', small = 1, big = 1,
                  day = '2024-12-31', stamp = '2024-12-31 12:00:00.5', price = 0.0001, title = '"', body = 'NULL'
           WHERE tag = '00000000-0000-0000-0000-000000000000';
           UPDATE "Lost Property" SET "Kind" = NULL, kinds = NULL, facts = NULL, "Raw" = NULL, "foundAt" = NULL,
                  weight = NULL, "Länge µm" = NULL, photo = NULL, marks = NULL, labels = NULL, worth = NULL,
                  tally = NULL, kept = NULL, seen_from = NULL, claimed = NULL, finder = NULL, closes = NULL,
                  note = NULL, small = NULL, big = NULL, day = NULL, stamp = NULL, price = NULL, title = NULL,
                  body = '' WHERE tag = '11111111-1111-4111-8111-111111111111';
           UPDATE "Lost Property" SET "Kind" = 'umbrella', kinds = '{}', facts = '""', "Raw" = '" "', "foundAt" =
                  '1883-11-18 12:00:00+00:34:08', weight = 1e-45, "Länge µm" = 0.30000000000000004, photo = '\x',
                  marks = '{NULL}', labels = '{NULL,""}', worth = -0.00, tally = 0.0004, kept = '00:00',
                  seen_from = '127.0.0.1', claimed = true, finder = '   ', closes = '24:00:00', note = '',
                  small = 0, big = 0, day = '2024-02-29', stamp = '2024-02-29 00:00:00.001', price = -1,
                  title = '', body = ' ' WHERE tag = '44444444-4444-4444-8444-444444444444'"#,
    ),
    (
        "json with the same meaning and other spaces, and with the same text in jsonb",
        r#"UPDATE "Lost Property" SET "Raw" = replace("Raw"::text, ' ', '  ')::json, facts = ' [ ] '
           WHERE tag = 'ffffffff-ffff-4fff-bfff-ffffffffffff'"#,
    ),
    (
        "1.00 for 1.0, in a numeric and in jsonb",
        r#"UPDATE "Lost Property" SET worth = 100.00, facts = '{"n": 1.00}' WHERE worth = 100;
           UPDATE "Branch" SET "Größe m²" = 310.000 WHERE id = 2"#,
    ),
    ("-0 for 0", r#"UPDATE "Lost Property" SET weight = '-0', "Länge µm" = '-0' WHERE weight = 0"#),
    ("30 days for a month", r#"UPDATE "Lost Property" SET kept = '30 days' WHERE kept = '1 mon'"#),
    ("the same elements from another subscript", r#"UPDATE "Lost Property" SET marks = '{7,8}' WHERE 7 = ANY (marks)"#),
    (
        "NULL for the empty string, and the other way round",
        r#"UPDATE "Loan" SET remark = CASE WHEN remark IS NULL THEN '' WHEN remark <> '' THEN remark END"#,
    ),
    (
        "several at once, in transactions within a transaction",
        r#"BEGIN;
           UPDATE "Tariff Class" SET "Label" = 'Standard, new' WHERE code = 'S';
           SAVEPOINT a;
           DELETE FROM "Region" WHERE code = 'ZH';
           UPDATE "Loan" SET fee = 9.99 WHERE ("memberNo", seq) = (5, 1);
           RELEASE a;
           SAVEPOINT b;
           UPDATE "Staff" SET "Full Name" = 'nobody';
           DELETE FROM "Tariff";
           ROLLBACK TO b;
           UPDATE "Staff" SET "Full Name" = 'Dario', department = NULL WHERE id = 4;
           INSERT INTO "Region" VALUES ('SG', 'St. Gallen', 1);
           UPDATE "Œuvre" SET title = title || '!' WHERE language = 'rm';
           UPDATE "Publisher" SET group_no = 1, country = 'FR' WHERE name = 'Limmat';
           UPDATE "Publisher Group" SET "No" = 1 WHERE (country, "No") = ('FR', 7);
           UPDATE "Lost Property" SET claimed = NOT claimed;
           COMMIT"#,
    ),
    (
        "every row of every lookup table anew",
        r#"UPDATE "Region" SET code = code; UPDATE department SET "Floor" = 3; UPDATE "Language" SET code = code;
           UPDATE "Publisher" SET "Web Site" = ''; UPDATE "Publisher Group" SET "No" = "No";
           UPDATE "Tariff" SET title = upper(title); UPDATE "Tariff Class" SET hint = NULL"#,
    ),
    (
        "all tariffs, regions and publishers are gone",
        r#"DELETE FROM "Tariff"; TRUNCATE "Region"; DELETE FROM "Publisher""#,
    ),
];

/// What changes nothing.
const QUIET: &[(&str, &str)] = &[
    (
        "a transaction that rolls back",
        r#"BEGIN; UPDATE "Loan" SET fee = 0; DELETE FROM "Tariff Class"; INSERT INTO "Language" VALUES ('xx', 'X');
           ROLLBACK"#,
    ),
    (
        "a transaction that keeps nothing",
        r#"BEGIN; SAVEPOINT a; UPDATE "Staff" SET "managerId" = NULL; ROLLBACK TO a; COMMIT"#,
    ),
    ("a table that no model reads", r#"UPDATE "Opening Hours" SET hours = NULL"#),
    ("an update that finds no row", r#"UPDATE "Branch" SET "Name" = 'x' WHERE id = 0"#),
];

async fn library() -> World {
    World::of(SOURCE, PACK, ORACLE).await
}

async fn finds_nothing(world: &World) {
    let report = world.run().await;
    assert_eq!(report["extract"]["outcome"], "nothing", "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_database_goes_through_and_stays_in_step() {
    let world = library().await;
    world.run_and_agree().await;
    finds_nothing(&world).await;
    for (number, (step, sql)) in STEPS.iter().enumerate() {
        // Shown if the test fails: the last one is the step that did not arrive.
        println!("step {}: {step}", number + 1);
        world.source.batch_execute(sql).await.unwrap();
        let report = world.run_and_agree().await;
        assert_eq!(report["extract"]["outcome"], "batch", "{report}");
        if number % 3 == 2 {
            finds_nothing(&world).await;
        }
    }
    for (step, sql) in QUIET {
        println!("{step}");
        world.source.batch_execute(sql).await.unwrap();
        finds_nothing(&world).await;
        world.agree().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_databases_are_set_to_changes_nothing() {
    let world = library().await;
    for (setting, value) in [
        ("TimeZone", "Asia/Kathmandu"),
        ("DateStyle", "SQL, DMY"),
        ("IntervalStyle", "iso_8601"),
        ("bytea_output", "escape"),
        ("extra_float_digits", "-15"),
        ("search_path", "pg_temp"),
        ("row_security", "off"),
        ("xmloption", "document"),
        ("default_transaction_isolation", "serializable"),
        ("lock_timeout", "1"),
        ("idle_in_transaction_session_timeout", "500"),
    ] {
        for (session, database) in [(&world.source, "source"), (&world.warehouse, "warehouse")] {
            session.batch_execute(&format!("ALTER DATABASE {database} SET {setting} = '{value}'")).await.unwrap();
        }
    }
    world.run_and_agree().await;
    world.source.batch_execute(r#"UPDATE "Lost Property" SET body = 'x'; DELETE FROM "Loan""#).await.unwrap();
    // The days that loans named stay.
    let left = "SELECT opened AS day FROM \"Branch\"";
    world.run().await;
    for (table, query) in ORACLE.iter().filter(|(table, _)| *table != "dim_day") {
        world.agree_on(table, query).await;
    }
    world
        .agree_on(
            "(SELECT day FROM dim_day WHERE day IN (SELECT opened FROM dim_branch)) d",
            &format!("SELECT DISTINCT day FROM ({left}) b"),
        )
        .await;
    let verdict = world.blackwater(&["verify"]).await;
    assert_eq!(verdict.code, Some(0), "{verdict:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_holds_what_changed_and_what_it_looks_up_and_no_more() {
    let world = library().await;
    world.run_and_agree().await;
    // Every reference to the tables that change here finds a row, so none can have lost its own.
    let changes: [(&str, &[(&str, u64)]); 5] = [
        (
            r#"UPDATE "Tariff Class" SET "Label" = 'x' WHERE code = 'S'"#,
            // Five loans at two tariffs. Two name only part of a copy's key, and one of them nobody of the staff.
            &[("Branch", 4), ("Copy", 3), ("Loan", 5), ("Region", 3), ("Staff", 4), ("Tariff", 2), ("Tariff Class", 1)],
        ),
        (
            r#"UPDATE "Publisher Group" SET "Group Name" = 'x' WHERE (country, "No") = ('DE', 1)"#,
            &[("Language", 1), ("Publisher", 1), ("Publisher Group", 1), ("Œuvre", 2)],
        ),
        // Ada, who is on the board and has no manager, the two whose manager she is, and their departments.
        ("UPDATE department SET title = 'x' WHERE id = 2", &[("Staff", 3), ("department", 3)]),
        (
            r#"UPDATE "Œuvre" SET title = 'x' WHERE "authorCode" = 'ECO'"#,
            &[("Branch", 1), ("Copy", 1), ("Language", 1), ("Publisher", 1), ("Œuvre", 1)],
        ),
        (r#"UPDATE "Lost Property" SET body = 'x' WHERE weight = 0"#, &[("Lost Property", 1)]),
    ];
    for (sql, expected) in changes {
        world.source.batch_execute(sql).await.unwrap();
        world.run_and_agree().await;
        let manifest = world.manifests().pop().unwrap();
        let mut found = BTreeMap::new();
        for (table, read) in manifest["tables"].as_object().unwrap() {
            let rows: u64 =
                read["objects"].as_array().unwrap().iter().map(|object| object["rows"].as_u64().unwrap()).sum();
            if rows > 0 {
                found.insert(table.as_str(), rows);
            }
        }
        assert_eq!(found, BTreeMap::from_iter(expected.iter().copied()), "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_of_another_database_keeps_every_version() {
    let world = library().await;
    world.run_and_agree().await;
    let versions = "SELECT coalesce(string_agg(member_no || '/' || loan_seq || ': ' || versions, ', '
                                               ORDER BY member_no, loan_seq), '')
                    FROM (SELECT member_no, loan_seq, count(*) AS versions FROM fact_loan
                          WHERE loan_record > known GROUP BY 1, 2) loan";
    let count = "SELECT count(*) || ' of ' || count(DISTINCT (member_no, loan_seq)) FROM fact_loan";
    assert_eq!(world.in_warehouse(count).await.unwrap(), "16 of 16");
    // What happens before each run, and the versions that the loans got by it.
    let changes: [(&str, &[&str], &str); 12] = [
        (
            "a change that nothing announces",
            &[r#"UPDATE "Loan" SET fee = 2.51 WHERE ("memberNo", seq) = (1, 1)"#],
            "1/1: 1",
        ),
        (
            "there and back",
            &[
                r#"UPDATE "Loan" SET remark = NULL WHERE ("memberNo", seq) = (1, 2)"#,
                r#"UPDATE "Loan" SET remark = '' WHERE ("memberNo", seq) = (1, 2)"#,
            ],
            "1/2: 2",
        ),
        (
            "there and back before anybody looks",
            &[r#"BEGIN; UPDATE "Loan" SET fee = 1 WHERE ("memberNo", seq) = (1, 3); COMMIT;
                 BEGIN; UPDATE "Loan" SET fee = NULL WHERE ("memberNo", seq) = (1, 3); COMMIT"#],
            "",
        ),
        ("the same content anew", &[r#"UPDATE "Loan" SET fee = fee"#], ""),
        (
            "the class of tariffs, which is content",
            &[r#"UPDATE "Tariff Class" SET "Label" = 'x' WHERE code = 'S'"#],
            "1/1: 1, 1/2: 1, 2/2: 1, 2/3: 1, 5/1: 1",
        ),
        (
            "lookup columns that the model does not read",
            &[r#"UPDATE "Tariff Class" SET hint = 'y'; UPDATE "Region" SET population = 1;
                 UPDATE "Tariff" SET id = id + 100; UPDATE "Branch" SET "Opens" = NULL;
                 UPDATE "Staff" SET department = 3"#],
            "",
        ),
        ("the name of a member of staff", &[r#"UPDATE "Staff" SET "Full Name" = 'x' WHERE id = 5"#], "2/1: 1, 2/2: 1"),
        (
            "a tariff is gone, and comes back as it was",
            &[
                r#"DELETE FROM "Tariff" WHERE code = 'red'"#,
                r#"INSERT INTO "Tariff" VALUES (3, 'red', 1, 'Reduced', 'R')"#,
            ],
            "1/3: 2, 4/1: 2",
        ),
        (
            "a tariff is gone, and comes back as it was before anybody looks",
            &[r#"DELETE FROM "Tariff" WHERE code = 'red';
                 INSERT INTO "Tariff" VALUES (30, 'red', 1, 'Reduced', 'R')"#],
            "",
        ),
        (
            "the region of both branches, and half a key that becomes NULL, make one version",
            &[r#"UPDATE "Region" SET "Name" = 'x' WHERE code = 'TI';
                 UPDATE "Loan" SET zone = NULL WHERE ("memberNo", seq) = (2, 1)"#],
            "2/1: 1, 3/1: 1, 3/2: 1",
        ),
        (
            "a new loan",
            &[r#"INSERT INTO "Loan" ("memberNo", seq, "lentFrom", "lentAt", state)
                 VALUES (6, 1, 1, '2024-03-01 12:00:00Z', 'open')"#],
            "6/1: 1",
        ),
        (
            "a state goes by another name, and then others get that state",
            &[
                r#"ALTER TYPE "LoanState" RENAME VALUE 'overdue' TO 'late'"#,
                r#"UPDATE "Loan" SET state = 'late' WHERE ("memberNo", seq) IN ((1, 2), (6, 1))"#,
            ],
            "1/2: 1, 5/2: 1, 6/1: 1, 9007199254740993/2147483647: 1",
        ),
    ];
    for (what, before_runs, expected) in changes {
        let known = world.in_warehouse("SELECT max(loan_record) FROM fact_loan").await.unwrap();
        for sql in before_runs {
            world.source.batch_execute(sql).await.unwrap();
            world.run_and_agree().await;
        }
        let found = world.in_warehouse(&versions.replace("known", &known)).await.unwrap();
        assert_eq!(found, expected, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_may_be_as_long_as_postgres_lets_them_be() {
    let name = |end: &str| format!("{}{end}", "ß".repeat(31));
    let (t, u, id, v, w) = (name("t"), name("u"), name("i"), name("v"), name("w"));
    let source = format!(
        "CREATE TABLE {u} ({id} integer PRIMARY KEY, {v} text);
         CREATE TABLE {t} ({id} integer PRIMARY KEY, {v} integer, {w} text);
         INSERT INTO {u} VALUES (1, 'one'), (2, 'two');
         INSERT INTO {t} VALUES (1, 1, 'a'), (2, 1, NULL), (3, 2, 'c'), (4, NULL, 'd')"
    );
    let (one, two) = (name("1"), name("2"));
    let star = |name: &str| {
        format!(
            "CREATE TABLE IF NOT EXISTS {name} ({id} integer PRIMARY KEY, {v} text, {w} text NOT NULL, deleted_at timestamptz)"
        )
    };
    let schema = format!("{}; {}", star(&one), star(&two));
    let model = format!("SELECT {t}.{id}, {u}.{v}, {t}.{w} FROM {t} LEFT JOIN {u} ON {u}.{id} = {t}.{v}");
    let filtered = format!("{model} WHERE {t}.{w} <> 'd'");
    let (file, other) = (format!("{one}.sql"), format!("{two}.sql"));
    let pack = [("schema.sql", schema.as_str()), (&file, &model), (&other, &filtered)];
    let world = World::of(&source, &pack, &[]).await;
    let agrees = async |expected: &str| {
        let finished = world.blackwater(&["verify"]).await;
        assert_eq!(finished.code, Some(0), "{finished:?}");
        let rows =
            format!("SELECT string_agg(concat({id}, {v}, {w}), ' ' ORDER BY {id}) FROM {one} WHERE deleted_at IS NULL");
        assert_eq!(world.in_warehouse(&rows).await, Some(expected.into()));
    };
    world.run().await;
    agrees("1onea 3twoc 4d").await;
    assert_eq!(world.quarantine().await, [format!("{one} {id}=2: {w} is NULL, and the column is NOT NULL")]);
    let change = format!(
        "DELETE FROM {t} WHERE {id} = 3; UPDATE {t} SET {w} = 'b' WHERE {id} = 2; UPDATE {u} SET {v} = 'ONE' WHERE {id} = 1"
    );
    world.source.batch_execute(&change).await.unwrap();
    world.run().await;
    agrees("1ONEa 2ONEb 4d").await;
    // There would be no room for the name of its view.
    let text = std::fs::read_to_string(world.pack().join("schema.sql")).unwrap();
    let history = format!("CREATE TABLE {} (r bigserial PRIMARY KEY, {id} integer)", name("h"));
    std::fs::write(world.pack().join("schema.sql"), format!("{text}; {history}")).unwrap();
    std::fs::write(world.pack().join(format!("{}.sql", name("h"))), format!("SELECT {id} FROM {t}")).unwrap();
    let refused = format!("the name of its view, current_{}, would be longer than 63 bytes", name("h"));
    let finished = world.blackwater(&["check"]).await;
    assert!(finished.code == Some(3) && finished.stdout.contains(&refused), "{finished:?}");
}
