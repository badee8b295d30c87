-- The library's warehouse.

DO $$
BEGIN
    IF to_regtype('"ItemKind"') IS NULL THEN
        CREATE TYPE "ItemKind" AS ENUM ('umbrella', 'coats, hats', 'the "other" one''s', '');
    END IF;
    IF to_regtype('"Note"') IS NULL THEN
        CREATE DOMAIN "Note" AS varchar(40) CHECK (VALUE <> 'forbidden');
    END IF;
END $$;

CREATE TABLE IF NOT EXISTS dim_branch (
    branch_id   integer PRIMARY KEY,
    name        text NOT NULL,
    region_code char(3),
    region      text NOT NULL,
    opened      date NOT NULL,
    opens       time,
    area        numeric,
    deleted_at  timestamptz
);

CREATE TABLE IF NOT EXISTS dim_staff (
    staff_id           integer PRIMARY KEY,
    name               text NOT NULL,
    department         text,
    manager_id         integer REFERENCES dim_staff,
    manager            text,
    manager_department text NOT NULL,
    branch_id          integer REFERENCES dim_branch,
    deleted_at         timestamptz
);

CREATE TABLE IF NOT EXISTS dim_work (
    author_code       text,
    work_no           integer,
    title             text NOT NULL,
    full_title        text NOT NULL,
    language          text NOT NULL,
    publisher         text,
    publisher_country text,
    publisher_group   text NOT NULL,
    isbn              text,
    era               text NOT NULL,
    label             text NOT NULL,
    deleted_at        timestamptz,
    PRIMARY KEY (author_code, work_no)
);

-- The states are text: a label that is renamed at the source arrives like any other change.
CREATE TABLE IF NOT EXISTS dim_copy (
    author_code text,
    work_no     integer,
    copy_no     smallint,
    barcode     text,
    title       text NOT NULL,
    publisher   text,
    home_id     integer NOT NULL REFERENCES dim_branch,
    home        text NOT NULL,
    state       text NOT NULL,
    price       numeric(10,2),
    is_dear     boolean,
    weight      numeric(8,2),
    deleted_at  timestamptz,
    PRIMARY KEY (author_code, work_no, copy_no),
    FOREIGN KEY (author_code, work_no) REFERENCES dim_work
);

-- Every version of a loan. What it refers to without a constraint at the source has none here.
CREATE TABLE IF NOT EXISTS fact_loan (
    loan_record        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    member_no          bigint NOT NULL,
    loan_seq           integer NOT NULL,
    author_code        text,
    work_no            integer,
    copy_no            smallint,
    barcode            text,
    lent_from          integer NOT NULL REFERENCES dim_branch,
    lent_from_name     text NOT NULL,
    lent_from_region   text NOT NULL,
    returned_to        bigint,
    returned_to_name   text,
    returned_to_region text,
    handled_by         integer REFERENCES dim_staff,
    handled_by_name    text,
    tariff             text,
    tariff_class       text,
    lent_at            timestamptz NOT NULL,
    lent_on            date NOT NULL,
    lent_time          time NOT NULL,
    due_on             date,
    returned_on        date,
    fee                numeric(8,2),
    is_out             boolean NOT NULL,
    state              text NOT NULL,
    remark             text,
    valid_from         timestamptz NOT NULL,
    valid_to           timestamptz CHECK (valid_to > valid_from),
    deleted_at         timestamptz,
    FOREIGN KEY (author_code, work_no, copy_no) REFERENCES dim_copy
);
CREATE UNIQUE INDEX IF NOT EXISTS fact_loan_open ON fact_loan (member_no, loan_seq) WHERE valid_to IS NULL;
CREATE INDEX IF NOT EXISTS fact_loan_key ON fact_loan (member_no, loan_seq);

CREATE TABLE IF NOT EXISTS dim_day (
    day     date PRIMARY KEY,
    year    integer NOT NULL,
    quarter integer NOT NULL,
    month   integer NOT NULL,
    weekday integer NOT NULL
);

CREATE TABLE IF NOT EXISTS "dim_lostProperty" (
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
    body       text,
    deleted_at timestamptz
);
