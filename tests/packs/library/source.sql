-- A lending library, as a source that has nothing in common with Totesys: no table says when a row
-- changed, keys have several columns, and names need quotes. Some references have no constraint and
-- match nothing. The values are awkward on purpose.

CREATE TYPE "CopyState" AS ENUM ('ordered', 'on shelf', 'lent', 'in repair');
CREATE TYPE "LoanState" AS ENUM ('open', 'overdue', 'returned');
CREATE TYPE "ItemKind" AS ENUM ('umbrella', 'coats, hats', 'the "other" one''s', '');
CREATE DOMAIN isbn AS text CHECK (VALUE ~ '^[0-9X-]+$');
CREATE DOMAIN "Note" AS varchar(40) CHECK (VALUE <> 'forbidden');

CREATE TABLE "Region" (
    code       char(3) PRIMARY KEY,
    "Name"     text,
    population integer
);

CREATE TABLE "Branch" (
    id         smallint PRIMARY KEY,
    "Name"     varchar(60) NOT NULL,
    region     char(3),
    opened     date NOT NULL,
    "Opens"    time,
    "Größe m²" numeric
);

CREATE TABLE department (
    id      bigint PRIMARY KEY,
    title   text NOT NULL,
    "Floor" smallint
);

CREATE TABLE "Staff" (
    id          integer PRIMARY KEY,
    "Full Name" text NOT NULL,
    department  integer,
    "managerId" integer REFERENCES "Staff",
    "Branch"    integer REFERENCES "Branch"
);

CREATE TABLE "Language" (
    code   text PRIMARY KEY,
    "Name" text NOT NULL
);

CREATE TABLE "Publisher Group" (
    country      text,
    "No"         integer,
    "Group Name" text,
    PRIMARY KEY (country, "No")
);

CREATE TABLE "Publisher" (
    id         uuid PRIMARY KEY,
    name       text NOT NULL,
    country    varchar(2),
    group_no   smallint,
    "Web Site" text
);

CREATE TABLE "Œuvre" (
    "authorCode" text,
    "No"         integer,
    title        text NOT NULL,
    subtitle     text,
    language     varchar(8) NOT NULL,
    publisher    uuid,
    isbn         isbn,
    published    date,
    PRIMARY KEY ("authorCode", "No")
);

CREATE TABLE "Copy" (
    "Author" text,
    work_no  integer,
    copy_no  smallint,
    barcode  text UNIQUE,
    home     integer NOT NULL REFERENCES "Branch",
    state    "CopyState" NOT NULL,
    price    numeric(10,2),
    "Weight" text,
    PRIMARY KEY ("Author", work_no, copy_no),
    FOREIGN KEY ("Author", work_no) REFERENCES "Œuvre"
);

CREATE TABLE "Tariff Class" (
    code    text PRIMARY KEY,
    "Label" text,
    hint    text
);

CREATE TABLE "Tariff" (
    id    integer PRIMARY KEY,
    code  text NOT NULL,
    zone  integer,
    title text NOT NULL,
    class text,
    UNIQUE (code, zone)
);

CREATE TABLE "Loan" (
    "memberNo"   bigint,
    seq          integer,
    "Author"     text,
    work_no      integer,
    copy_no      smallint,
    "lentFrom"   smallint NOT NULL REFERENCES "Branch",
    "returnedTo" bigint,
    "handledBy"  integer REFERENCES "Staff",
    tariff       varchar(8),
    zone         smallint,
    "lentAt"     timestamptz NOT NULL,
    "dueBy"      text,
    returned_on  date,
    fee          numeric(8,2),
    state        "LoanState" NOT NULL,
    remark       text,
    PRIMARY KEY ("memberNo", seq),
    FOREIGN KEY ("Author", work_no, copy_no) REFERENCES "Copy"
);

CREATE TABLE "Lost Property" (
    tag        uuid PRIMARY KEY,
    "Kind"     "ItemKind",
    kinds      "ItemKind"[],
    facts      jsonb,
    "Raw"      json,
    "foundAt"  timestamptz,
    weight     real,
    "Länge µm" double precision,
    photo      bytea,
    marks      integer[],
    labels     text[],
    worth      numeric,
    tally      numeric(45,3),
    kept       interval,
    seen_from  inet,
    claimed    boolean,
    finder     char(3),
    closes     time,
    note       "Note",
    small      smallint,
    big        bigint,
    day        date,
    stamp      timestamp(3),
    price      numeric(12,4),
    title      varchar(40),
    body       text
);

-- No model reads it.
CREATE TABLE "Opening Hours" (
    branch smallint,
    day    smallint,
    hours  text,
    PRIMARY KEY (branch, day)
);

INSERT INTO "Region" VALUES
    ('ZH', 'Zürich', 1553423), ('BE', 'Bern, "Berne"', 1043132), ('GR', E'Graubünden\nGrischun', 200096),
    ('TI', NULL, 350986), ('x', '', 0);

INSERT INTO "Branch" VALUES
    (1, 'Central', 'ZH', '1914-04-06', '09:00', 4820.50),
    (2, 'Oerlikon', 'ZH', '1975-08-30', '10:30:00.5', 310),
    (3, 'Länggasse', 'BE', '1988-02-29', '23:59:59.999999', 250.00),
    (4, 'Chur "Altstadt"', 'GR', '2001-01-01', '24:00', 0.10),
    (5, 'Lugano, centro', 'TI', '1999-12-31', '08:15', NULL),
    (6, E'Depot\nNord', 'ZG', '2020-02-29', NULL, 'NaN'),
    (7, '', NULL, '9999-12-31', '00:00', 12345678901234567890.123456789012345678901234567890),
    (8, '\N', 'x', '0001-01-01', '12:00', -0.0);

INSERT INTO department VALUES (1, 'Lending', 0), (2, 'Board', 9), (3, 'Conservation', NULL), (4, 'IT', -1),
    (5, '', 2);

INSERT INTO "Staff" VALUES
    (1, 'Ada Müller', 2, NULL, 1), (2, 'Beat O''Brien', 1, 1, 1), (3, 'Chiara "Chi" Rossi', 1, 2, 5),
    (4, 'Dario, D.', 3, 1, 2), (5, 'Élodie', 3, 4, 3), (6, 'Flurina', NULL, 4, 4), (7, 'Gion', 4, NULL, 1),
    (8, 'Hana 花', 4, 7, 1), (9, '', 5, 8, NULL), (10, 'Jo\Joe', 1, 6, 7);

INSERT INTO "Language" VALUES ('de', 'German'), ('fr', 'French'), ('it', 'Italian'), ('en', 'English, "plain"');

INSERT INTO "Publisher Group" VALUES
    ('CH', 1, 'Alpenverlag'), ('CH', 2, 'NULL'), ('DE', 1, 'Gruppe "Eins", Berlin'), ('FR', 7, ''),
    ('', 1, 'Nobody''s');

INSERT INTO "Publisher" VALUES
    ('00000000-0000-4000-8000-000000000001', 'Diogenes', 'CH', 1, 'https://one.example'),
    ('00000000-0000-4000-8000-000000000002', 'Limmat', 'CH', 2, NULL),
    ('00000000-0000-4000-8000-000000000003', 'Gallimard', 'FR', 7, ''),
    ('00000000-0000-4000-8000-000000000004', 'Suhrkamp', 'DE', 1, NULL),
    ('00000000-0000-4000-8000-000000000005', 'Adelphi', 'IT', NULL, NULL),
    ('00000000-0000-4000-8000-000000000006', 'Hogarth', NULL, 1, NULL),
    ('00000000-0000-4000-8000-000000000007', 'Ivoire', 'CI', NULL, NULL),
    ('00000000-0000-4000-8000-000000000008', 'Nobody', '', 1, NULL),
    ('00000000-0000-4000-8000-00000000000a', 'Atlantis', 'XX', NULL, NULL);

-- Nobody has heard of the publisher that ends in 9 yet, nor of the language rm.
INSERT INTO "Œuvre" VALUES
    ('FRI', 1, 'Homo faber', NULL, 'de', '00000000-0000-4000-8000-000000000004', '3-518-36854-X', '1957-10-01'),
    ('FRI', 2, 'Stiller', 'Roman', 'de', '00000000-0000-4000-8000-000000000004', NULL, '1954-12-31'),
    ('FRI ', 1, 'A blank in its key', '   ', 'de', '00000000-0000-4000-8000-000000000001', NULL, NULL),
    ('fri', 1, 'A small key', '', 'en', NULL, NULL, '2000-01-01'),
    ('DUE', 1, 'Die Physiker', '  Eine Komödie in zwei Akten ', 'de', '00000000-0000-4000-8000-000000000001',
     '3-257-23047-6', '1962-02-21'),
    ('CAM', 1, 'L''Étranger', '', 'fr', '00000000-0000-4000-8000-000000000003', '2-07-036002-4', '1942-05-19'),
    ('CAM', 2, 'La Peste', NULL, 'fr', '00000000-0000-4000-8000-000000000003', NULL, '1947-06-10'),
    ('ECO', 1, 'Il nome della rosa', NULL, 'it', '00000000-0000-4000-8000-000000000005', '88-452-0705-6', '1980-01-01'),
    ('WOO', 1, 'A Room of One''s Own, etc.', 'a "talk"', 'en', '00000000-0000-4000-8000-000000000006', NULL,
     '1929-10-24'),
    ('KOU', 1, E'Les soleils\nd\\indépendance', 'NULL', 'fr', '00000000-0000-4000-8000-000000000007', NULL,
     '1968-01-01'),
    ('BIE', 1, 'Sez Ner', NULL, 'rm', '00000000-0000-4000-8000-000000000002', NULL, '2009-03-01'),
    ('BIE', 2, 'Uors', E'sin\r\nromontsch', 'rm', '00000000-0000-4000-8000-000000000009', NULL, '2010-01-01'),
    ('ünd', 1, 'Ünderwägs 📚', '', 'de', '00000000-0000-4000-8000-000000000009', NULL, '1899-12-31'),
    ('ünd', 2, E'\t', NULL, 'de', '00000000-0000-4000-8000-000000000009', NULL, '1900-01-01'),
    ('', 1, 'Anonymous', '\.', 'en', '00000000-0000-4000-8000-000000000008', NULL, '1455-08-24'),
    ('PLA', 1, 'Critias', E'x\n\\.\ny', 'en', '00000000-0000-4000-8000-00000000000a', '0', '0001-01-01');

INSERT INTO "Copy" VALUES
    ('FRI', 1, 1, 'B-0001', 1, 'on shelf', 24.90, '0.35'),
    ('FRI', 1, 2, 'B-0002', 1, 'lent', 24.90, '0.4'),
    ('FRI', 1, 3, NULL, 2, 'in repair', NULL, 'heavy'),
    ('FRI', 2, 1, 'B-0004', 2, 'lent', 0.00, ''),
    ('FRI ', 1, 1, 'B-0005 ', 3, 'on shelf', -1.50, NULL),
    ('fri', 1, 1, 'b-0001', 8, 'on shelf', 50.00, 'x1'),
    ('DUE', 1, 1, 'B,0007', 2, 'lent', 50.01, '12'),
    ('CAM', 1, 1, 'B"0008', 3, 'lent', 99999999.99, '-0.25'),
    ('CAM', 1, 2, 'B-0009', 3, 'ordered', 12.00, NULL),
    ('CAM', 2, 1, NULL, 5, 'ordered', NULL, NULL),
    ('ECO', 1, 1, '', 5, 'lent', 120.00, '1,20'),
    ('WOO', 1, 1, E'B\n12', 6, 'lent', 7.00, ' 0.20'),
    ('KOU', 1, 1, 'B-0013', 4, 'on shelf', 7.77, '0.20'),
    ('ünd', 1, 1, 'B-0014', 7, 'lent', 0.01, '999999.99'),
    ('', 1, 1, 'NULL', 1, 'in repair', 10000.00, '1000000');

INSERT INTO "Tariff Class" VALUES
    ('S', 'Standard', 'as printed'), ('R', 'Reduced', NULL), ('N', NULL, 'new in May'), ('', 'Blank', '');

-- A NULL in a unique key matches nothing, not even another NULL.
INSERT INTO "Tariff" VALUES
    (1, 'std', 1, 'Standard, zone 1', 'S'), (2, 'std', 2, 'Standard, zone 2', 'S'), (3, 'red', 1, 'Reduced', 'R'),
    (4, 'kid', 1, 'Children', NULL), (5, 'std', NULL, 'Standard, no zone', 'S'), (6, 'new', 1, 'Novelties "N"', 'N'),
    (7, '', 0, '', '');

INSERT INTO "Loan" VALUES
    (1, 1, 'FRI', 1, 1, 1, 1, 2, 'std', 1, '2024-01-31 23:30:00.123456-05', '2024-02-29', '2024-02-20', 2.50,
     'returned', NULL),
    (1, 2, 'FRI', 2, 1, 1, NULL, 3, 'std', 2, '2024-02-29 00:30:00+05:30', '2024-02-30', NULL, 0.00, 'overdue', ''),
    (1, 3, 'DUE', 1, 1, 2, NULL, 2, 'red', 1, '2024-03-01 12:00:00Z', 'tomorrow', NULL, NULL, 'open', 'he said "soon"'),
    (2, 1, 'CAM', 1, 1, 3, 5, 5, 'kid', 1, '2024-03-31 02:30:00+02', '2024-04-30', '2024-04-15', 1.00, 'returned',
     E'two\nlines'),
    (2, 2, 'CAM', 1, NULL, 3, NULL, 5, 'std', 1, '2024-10-27 02:30:00.000001+01', '', NULL, 999999.99, 'open',
     'half a key'),
    (2, 3, NULL, 1, 1, 4, 2, NULL, 'std', 2, '1969-12-31 23:59:59.999999Z', NULL, '1970-01-01', -0.01, 'returned', ' '),
    (3, 1, 'ECO', 1, 1, 5, 5, 3, 'std', NULL, '2024-05-05 05:05:05Z', '2024-5-5', '2024-05-06', 0.10, 'returned', '\N'),
    (3, 2, 'FRI ', 1, 1, 5, 99, 3, 'gone', 1, '2024-05-05 05:05:05Z', '05.05.2024', '2024-05-07', 3.00, 'returned',
     'NULL'),
    (9007199254740993, 1, 'WOO', 1, 1, 6, 7, 8, 'new', 1, '9999-12-31 23:59:59.999999Z', '9999-12-31', '9999-12-31',
     3.33, 'returned', ','),
    (9007199254740993, 2147483647, 'ünd', 1, 1, 6, NULL, 10, '', 0, '0001-01-01 00:00:00Z', '0001-01-01', NULL, 0.05,
     'overdue', '📚'),
    (-5, 0, '', 1, 1, 1, 8, 1, NULL, 1, '2024-02-29 12:00:00Z', '2024-02-29 ', '2024-03-01', NULL, 'returned',
     E'a\r\nb'),
    (4, 1, 'FRI', 1, 2, 2, 1, 2, 'red', 1, '2024-06-30 22:00:00-02', '2024-07-31', '2024-07-01', 1.10, 'returned',
     '\.'),
    (4, 2, 'FRI', 1, 2, 2, NULL, 2, 'red', 2, '2024-07-02 09:00:00Z', '2024-08-01', NULL, 1.10, 'open', 'no such zone'),
    (4, 3, NULL, NULL, NULL, 7, NULL, NULL, NULL, NULL, '2024-07-02 09:00:00Z', NULL, NULL, NULL, 'open', NULL),
    (5, 1, 'KOU', 1, 1, 4, 3, 6, 'std', 1, '2024-07-03 09:00:00Z', '2024-08-02', '2024-07-09', 2.00, 'returned', 'x'),
    (5, 2, 'fri', 1, 1, 4, NULL, 6, 'kid', 2, '2024-07-03 09:00:01Z', '2024-08-02', NULL, 2.00, 'overdue', 'y');

INSERT INTO "Lost Property" (tag, "Kind", kinds, facts, "Raw", "foundAt", weight, "Länge µm", photo, marks, labels,
    worth, tally, kept, seen_from, claimed, finder, closes, note, small, big, day, stamp, price, title, body) VALUES
    ('00000000-0000-0000-0000-000000000000', 'umbrella', '{umbrella,"coats, hats"}',
     '{"b": 1.0, "a": [1, null, "x\ny"]}', '{ "a" : 1,  "a" : 2, "b":"é" }',
     '2024-02-29 23:59:59.999999+05:45', 0.1, 0.1, '\x00', '{}', '{}', 1.0, 1.000,
     '1 year 2 mons -3 days 04:05:06.789', '10.0.0.1/8', true, 'ab', '24:00', 'plain', -32768,
     -9223372036854775808, '0001-01-01', '2024-02-29 23:59:59.9996', 1.0000, 'a', ''),
    ('11111111-1111-4111-8111-111111111111', 'coats, hats', '{}', '{}', E'{"x":\n  [1,\t2 ] ,"y":{}}',
     '9999-12-31 23:59:59.999999Z', 1e-30, 5e-324, '\x00ff0a0d225c2c00', '{1,NULL,-2147483648}',
     ARRAY['NULL', NULL, '', ',', ' x ', '"q"', 'back\slash', '{nested}', E'line\nbreak', 'ü'],
     12345678901234567890123456789.0000000000000000000001000, 123456789012345678901234567890123456789012.100,
     '-00:00:00.000001', '::1', false, '', '00:00', '', 32767, 9223372036854775807, '9999-12-31',
     '9999-12-31 23:59:59.999', -12345678.0001, '', NULL),
    ('22222222-2222-4222-8222-222222222222', 'the "other" one''s', '{"the \"other\" one''s",NULL}', 'null', 'null',
     'infinity', 'NaN', 'NaN', '\x', '[0:1]={7,8}', '{{a,b},{"c,d","{}"}}', 'NaN', 'NaN', '0', '192.168.0.1', NULL,
     'a b', '12:34:56.7', ' ', 0, 0, '1582-10-15', '0001-01-01 00:00:00', 0.0000, ' x ', '\N'),
    ('33333333-3333-4333-8333-333333333333', '', NULL, '"\u00e9 \"q\" \\ /"', '""', '-infinity', 'Infinity',
     '-Infinity', E'\\x5c2e0a', '{{1,2},{3,4}}', '{NULL}', 0, 0, '178000000 years', 'fe80::1/64', true, 'ä€z',
     '23:59:59.999999', E'two\nlines', -1, -1, '2024-02-29', '1969-12-31 23:59:59.999', 99999999.9999, 'NULL', 'NULL'),
    ('44444444-4444-4444-8444-444444444444', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
     NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, E'"'),
    ('ffffffff-ffff-4fff-bfff-ffffffffffff', 'umbrella', '{umbrella}', '[]', '[ ]', '0044-03-15 12:00:00+00 BC', 0, 0,
     '\xdeadbeef', '{0}', '{"","",""}', 100, 100, '1 mon', '0.0.0.0/0', false, 'abc', '06:00', 'NULL', 1, 1,
     '2000-01-01', '2000-01-01 00:00:00', 100, 'the end', E'a\r\nb\n\\.\nc, "d" ''e'' \\n \t📚\r');

INSERT INTO "Opening Hours" VALUES (1, 1, '9-17');
