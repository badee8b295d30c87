//! A row that a star table refuses, for whatever reason, goes to quarantine with Postgres' reason, and the batches go on.

use std::collections::BTreeSet;

use blackwater_tests::World;

/// A value that a star table refuses. In its SQL `{n}` stands for a number, which is unique and one more than that of the row
/// before.
struct Refusal {
    /// The column that holds the value.
    column: &'static str,
    /// A value that the table accepts.
    good: &'static str,
    /// A value that it refuses.
    bad: &'static str,
    /// Words of the reason. `{t}` stands for the star table.
    reason: &'static str,
    /// Whether it is refused because the row before has it. Of two such rows in one batch both may go to quarantine.
    of_two: bool,
}

impl Refusal {
    /// A bad value among words.
    const fn word(bad: &'static str, reason: &'static str) -> Self {
        Self { column: "v", good: "'word ' || {n}", bad, reason, of_two: false }
    }

    /// A value that the row before has.
    const fn of_two(good: &'static str, bad: &'static str, reason: &'static str) -> Self {
        Self { column: "v", good, bad, reason, of_two: true }
    }
}

/// A source table, and a dimension and a history of it that refuse values.
struct Stars<'a> {
    /// The columns that the model returns besides the key.
    returned: &'a str,
    /// The same columns, with their types at the source.
    source: &'a str,
    /// The columns and constraints of the star tables.
    star: &'a str,
    /// Statements before the star table `{t}` is created.
    before: &'a str,
    /// Statements after it.
    after: &'a str,
    refusals: &'a [Refusal],
}

/// The star tables, and what holds the newest version of each row.
const STARS: [(&str, &str); 2] = [("dim_t", "dim_t"), ("fact_t", "current_fact_t")];

/// The rows of a refusal: one is bad in the first batch, one becomes bad, one arrives later. A good row stands before each of the
/// first two.
const BEFORE_BAD: usize = 1;
const BAD: usize = 2;
const BEFORE_SPOILT: usize = 3;
const SPOILT: usize = 4;
const LATER: usize = 5;

impl Stars<'_> {
    async fn world(&self) -> World {
        let mut schema = String::new();
        let history =
            "record bigserial PRIMARY KEY, valid_from timestamptz NOT NULL, valid_to timestamptz, id integer NOT NULL";
        for (table, key, open) in
            [("dim_t", "id integer PRIMARY KEY", ""), ("fact_t", history, "WHERE valid_to IS NULL")]
        {
            let sql = format!(
                "{} CREATE TABLE IF NOT EXISTS {{t}} ({key}, {}, deleted_at timestamptz); {}
                 CREATE UNIQUE INDEX IF NOT EXISTS {{t}}_open ON {{t}} (id) {open};",
                self.before, self.star, self.after
            );
            schema.push_str(&sql.replace("{t}", table));
        }
        let model = format!("SELECT id, {} FROM t", self.returned);
        let pack = [("schema.sql", schema.as_str()), ("dim_t.sql", &model), ("fact_t.sql", &model)];
        World::of(&format!("CREATE TABLE t (id integer PRIMARY KEY, {})", self.source), &pack, &[]).await
    }

    /// Writes a row of each refusal. The number in its value is that of the row plus `more`.
    async fn write(&self, world: &World, row: usize, more: usize, value: fn(&Refusal) -> &'static str) {
        for (place, refusal) in self.refusals.iter().enumerate() {
            let (id, column) = (10 * place + row, refusal.column);
            let value = value(refusal).replace("{n}", &(id + more).to_string());
            let upsert = format!("ON CONFLICT (id) DO UPDATE SET {column} = EXCLUDED.{column}");
            world.change(&format!("INSERT INTO t (id, {column}) VALUES ({id}, {value}) {upsert}")).await;
        }
    }

    /// Of each refusal, the rows `bad` of both star tables are in quarantine with the reason. All other rows up to `last` are
    /// loaded, and a row whose new version is bad keeps its old one.
    async fn expect_quarantined(&self, world: &World, entries: &[String], bad: &[usize], last: usize) {
        let mut wrong = Vec::new();
        for (table, current) in STARS {
            let there = world.listed(&format!("SELECT id FROM {current} ORDER BY id")).await;
            let there: BTreeSet<usize> = there.split_whitespace().map(|id| id.parse().unwrap()).collect();
            for (place, refusal) in self.refusals.iter().enumerate() {
                let reason = refusal.reason.replace("{t}", table);
                for row in 1..=last {
                    let id = 10 * place + row;
                    let start = format!("{table} id={id}: ");
                    let found: Vec<_> = entries.iter().filter_map(|entry| entry.strip_prefix(&start)).collect();
                    let is_set_aside = match found.as_slice() {
                        [] => !bad.contains(&row),
                        [found] => {
                            found.contains(&reason) && (bad.contains(&row) || refusal.of_two && row == BEFORE_BAD)
                        }
                        _ => false,
                    };
                    if !is_set_aside || there.contains(&id) != (found.is_empty() || row == SPOILT) {
                        wrong.push(format!(
                            "{table} {id}, {reason}: set aside {found:?}, there {}",
                            there.contains(&id)
                        ));
                    }
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    /// Both tables refuse a row in the first batch and a new version in the second, accept other rows after that, and accept both
    /// rows once the source has repaired them.
    async fn refuse_and_recover(&self) {
        let world = self.world().await;
        for row in [BEFORE_BAD, BEFORE_SPOILT, SPOILT] {
            self.write(&world, row, 0, |refusal| refusal.good).await;
        }
        self.write(&world, BAD, 0, |refusal| refusal.bad).await;
        world.run().await;
        let entries = world.quarantine_is_all_that_is_held_back().await;
        self.expect_quarantined(&world, &entries, &[BAD], SPOILT).await;

        // A batch of bad rows only.
        self.write(&world, SPOILT, 0, |refusal| refusal.bad).await;
        world.run().await;
        let entries = world.quarantine_is_all_that_is_held_back().await;
        self.expect_quarantined(&world, &entries, &[BAD, SPOILT], SPOILT).await;

        self.write(&world, LATER, 0, |refusal| refusal.good).await;
        world.run().await;
        let entries = world.quarantine().await;
        self.expect_quarantined(&world, &entries, &[BAD, SPOILT], LATER).await;

        for row in [BAD, SPOILT] {
            self.write(&world, row, 5, |refusal| refusal.good).await;
        }
        world.run().await;
        let entries = world.quarantine_is_all_that_is_held_back().await;
        self.expect_quarantined(&world, &entries, &[], LATER).await;
        for (_, current) in STARS {
            world.agree_on(current, &format!("SELECT id, {} FROM t", self.returned)).await;
        }
        let versions = format!("SELECT count(*) FROM fact_t WHERE id % 10 IN ({BAD}, {SPOILT})");
        let expected = 3 * self.refusals.len();
        assert_eq!(world.in_warehouse(&versions).await, Some(expected.to_string()), "what was refused is no version");
        assert_eq!(world.run().await["extract"]["outcome"], "nothing");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_index_or_a_constraint_refuses_is_set_aside() {
    let stars = Stars {
        returned: "v",
        source: "v text",
        before: "CREATE TABLE IF NOT EXISTS place (a text, b text, PRIMARY KEY (a, b));
            INSERT INTO place VALUES ('x', 'y') ON CONFLICT DO NOTHING;",
        star: "v text,
            w integer GENERATED ALWAYS AS (CASE WHEN v LIKE 'w %' THEN length(v) END) STORED, CONSTRAINT {t}_w UNIQUE (w),
            r int4range GENERATED ALWAYS AS (CASE WHEN v LIKE 'r %' THEN int4range(length(v) * 10, length(v) * 10 + 5) END) STORED,
            CONSTRAINT {t}_range EXCLUDE USING gist (r WITH &&),
            CONSTRAINT {t}_apart EXCLUDE (v WITH =) WHERE (v LIKE 'apart %'),
            a text GENERATED ALWAYS AS (CASE WHEN v LIKE 'x/%' THEN 'x' END) STORED,
            b text GENERATED ALWAYS AS (CASE WHEN v LIKE 'x/y/%' THEN 'y' END) STORED,
            CONSTRAINT {t}_place FOREIGN KEY (a, b) REFERENCES place MATCH FULL,
            n integer GENERATED ALWAYS AS ((id - 1) / 2) STORED",
        after: "CREATE INDEX IF NOT EXISTS {t}_v ON {t} (v);
            CREATE INDEX IF NOT EXISTS {t}_share ON {t} ((100 / (length(v) - 3)));
            CREATE UNIQUE INDEX IF NOT EXISTS {t}_lower ON {t} (lower(v)) WHERE lower(v) LIKE 'word %';
            CREATE UNIQUE INDEX IF NOT EXISTS {t}_part ON {t} (v) WHERE v LIKE 'part %';
            -- NULLS NOT DISTINCT, before Postgres 15 by an expression.
            DO $$ BEGIN
                EXECUTE 'CREATE UNIQUE INDEX IF NOT EXISTS {t}_one ON {t} (n, v) NULLS NOT DISTINCT WHERE v IS NULL';
            EXCEPTION WHEN syntax_error THEN
                CREATE UNIQUE INDEX IF NOT EXISTS {t}_one ON {t} (n, coalesce(v, '')) WHERE v IS NULL;
            END $$;",
        refusals: &[
            Refusal::word("(SELECT string_agg(md5(random()::text || i), '') FROM generate_series(1, 200) i)", "index row size"),
            Refusal::word("'abc'", "division by zero"),
            Refusal::of_two("'word ' || {n}", "upper('word ' || ({n} - 1))", "{t}_lower"),
            Refusal::of_two("'part ' || {n}", "'part ' || ({n} - 1)", "{t}_part"),
            Refusal::of_two("'w ' || repeat('x', {n})", "'w ' || repeat('y', {n} - 1)", "{t}_w"),
            Refusal::of_two("'r ' || repeat('x', {n})", "'r ' || repeat('y', {n} - 1)", "{t}_range"),
            Refusal::of_two("'apart ' || {n}", "'apart ' || ({n} - 1)", "{t}_apart"),
            Refusal::of_two("CASE WHEN {n} % 10 IN (1, 3) THEN NULL ELSE 'word ' || {n} END", "NULL", "{t}_one"),
            // One column of the reference is NULL.
            Refusal { good: "'x/y/' || {n}", ..Refusal::word("'x//' || {n}", "{t}_place") },
        ],
    };
    stars.refuse_and_recover().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_trigger_refuses_is_set_aside() {
    let stars = Stars {
        returned: "v",
        source: "v text",
        before: "CREATE TABLE IF NOT EXISTS seen (v text PRIMARY KEY);
            INSERT INTO seen VALUES ('seen') ON CONFLICT DO NOTHING;
            CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                CASE NEW.v
                    WHEN 'raise' THEN RAISE EXCEPTION 'not this one';
                    WHEN 'assert' THEN ASSERT false, 'it is asserted';
                    WHEN 'drop' THEN RETURN NULL;
                    WHEN 'call' THEN PERFORM no_such_function(NEW.id);
                    WHEN 'strict' THEN SELECT 'x' INTO STRICT NEW.v WHERE false;
                    WHEN 'sunday' THEN RAISE 'on no Sunday' USING ERRCODE = 'BW001';
                    WHEN 'forbidden' THEN RAISE 'not by you' USING ERRCODE = 'insufficient_privilege';
                    WHEN 'inside' THEN RAISE 'deep inside' USING ERRCODE = 'internal_error';
                    WHEN 'commit' THEN COMMIT;
                    WHEN 'seen' THEN EXECUTE format('INSERT INTO %I.seen VALUES ($1)', TG_TABLE_SCHEMA) USING NEW.v;
                    WHEN 'null' THEN NEW.v := NULL;
                    WHEN 'worse' THEN NEW.v := 'worst';
                    ELSE NULL;
                END CASE;
                RETURN NEW;
            END $$;
            CREATE OR REPLACE FUNCTION refuse_late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                IF NEW.v = TG_ARGV[0] THEN RAISE EXCEPTION 'it comes %', NEW.v; END IF;
                RETURN NEW;
            END $$;
            CREATE OR REPLACE FUNCTION refuse_all() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                IF EXISTS (SELECT FROM written WHERE v = 'all') THEN RAISE EXCEPTION 'one of them is bad'; END IF;
                RETURN NULL;
            END $$;",
        star: "v text NOT NULL CHECK (v <> 'worst')",
        after: "DROP TRIGGER IF EXISTS refuse ON {t}; DROP TRIGGER IF EXISTS late ON {t}; DROP TRIGGER IF EXISTS last ON {t};
            DROP TRIGGER IF EXISTS added ON {t}; DROP TRIGGER IF EXISTS changed ON {t};
            CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON {t} FOR EACH ROW EXECUTE FUNCTION refuse();
            CREATE TRIGGER late AFTER INSERT OR UPDATE ON {t} FOR EACH ROW EXECUTE FUNCTION refuse_late('too late');
            CREATE CONSTRAINT TRIGGER last AFTER INSERT OR UPDATE ON {t} DEFERRABLE INITIALLY DEFERRED
                FOR EACH ROW EXECUTE FUNCTION refuse_late('at the very end');
            CREATE TRIGGER added AFTER INSERT ON {t} REFERENCING NEW TABLE AS written
                FOR EACH STATEMENT EXECUTE FUNCTION refuse_all();
            CREATE TRIGGER changed AFTER UPDATE ON {t} REFERENCING NEW TABLE AS written
                FOR EACH STATEMENT EXECUTE FUNCTION refuse_all();",
        refusals: &[
            Refusal::word("'raise'", "not this one"),
            // WHEN OTHERS of PL/pgSQL does not catch it.
            Refusal::word("'assert'", "it is asserted"),
            // The trigger returns NULL, and nothing fails.
            Refusal::word("'drop'", "trigger"),
            Refusal::word("'call'", "no_such_function"),
            Refusal::word("'strict'", "query returned no rows"),
            Refusal::word("'sunday'", "on no Sunday"),
            Refusal::word("'forbidden'", "not by you"),
            Refusal::word("'inside'", "deep inside"),
            Refusal::word("'commit'", "invalid transaction termination"),
            Refusal::word("'seen'", "seen_pkey"),
            // The trigger makes a row that does not fit.
            Refusal::word("'null'", "v is NULL, and the column is NOT NULL"),
            Refusal::word("'worse'", "{t}_v_check"),
            Refusal::word("'too late'", "it comes too late"),
            Refusal::word("'at the very end'", "it comes at the very end"),
            Refusal::word("'all'", "one of them is bad"),
        ],
    };
    stars.refuse_and_recover().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_computed_of_a_row_sets_it_aside() {
    let stars = Stars {
        returned: "v, j, k",
        source: "v text, j text, k text",
        before: "CREATE OR REPLACE FUNCTION likes(v text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
                ASSERT v IS DISTINCT FROM 'assert', 'it is asserted';
                IF v = 'raise' THEN RAISE EXCEPTION 'not this one'; END IF;
                RETURN true;
            END $$;
            CREATE OR REPLACE FUNCTION made_of(v text) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
                IF v = 'nothing' THEN RAISE EXCEPTION 'nothing is made of it'; END IF;
                RETURN length(v);
            END $$;
            DO $$ BEGIN IF to_regtype('liked') IS NULL THEN CREATE DOMAIN liked AS text CHECK (likes(VALUE)); END IF; END $$;",
        star: "v text CHECK (likes(v)), j json, k liked,
            share numeric GENERATED ALWAYS AS (100.0 / (length(v) - 3)) STORED,
            long integer GENERATED ALWAYS AS (length(repeat(v, CASE WHEN v = 'long' THEN 2000000000 ELSE 1 END))) STORED,
            made integer GENERATED ALWAYS AS (made_of(v)) STORED",
        after: "",
        refusals: &[
            Refusal::word("'abc'", "division by zero"),
                        Refusal::word("'long'", "requested length too large"),
            Refusal::word("'nothing'", "nothing is made of it"),
            Refusal::word("'raise'", "not this one"),
            Refusal::word("'assert'", "it is asserted"),
            Refusal { column: "k", ..Refusal::word("'raise'", "not this one") },
            Refusal { column: "k", ..Refusal::word("'assert'", "it is asserted") },
            Refusal {
                column: "j",
                good: "'[' || {n} || ']'",
                ..Refusal::word("repeat('[', 50000) || repeat(']', 50000)", "stack depth limit exceeded")
            },
        ],
    };
    stars.refuse_and_recover().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_longer_than_a_page_is_set_aside() {
    let each = |of: fn(u32) -> String| (1..=500).map(of).collect::<Vec<_>>().join(", ");
    let stars = Stars {
        returned: &each(|column| format!("v AS c{column}")),
        source: "v text",
        before: "",
        star: &each(|column| format!("c{column} text")),
        after: "",
        refusals: &[Refusal::word("'a label of about forty characters, or so'", "row is too big")],
    };
    stars.refuse_and_recover().await;
}

/// A function of Postgres takes 100 arguments.
#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_does_not_fit_one_of_150_columns_is_named() {
    let each = |of: fn(u32) -> String| (1..=150).map(of).collect::<Vec<_>>().join(", ");
    let stars = Stars {
        returned: &each(|column| format!("v AS c{column}")),
        source: "v text",
        before: "",
        star: &each(|column| format!("c{column} varchar(8)")),
        after: "",
        refusals: &[Refusal::word("'a longer one'", "c150: a longer one does not fit character varying(8)")],
    };
    stars.refuse_and_recover().await;
}

/// Parts, half of which refer to another part, and their sales.
const PARTS: &str = "
    CREATE TABLE part (id integer PRIMARY KEY, v text, n integer, parent integer);
    CREATE TABLE sale (id integer PRIMARY KEY, part integer, note text);
    INSERT INTO part SELECT i, 'part ' || i, i, CASE WHEN i % 2 = 0 THEN i / 2 END FROM generate_series(1, 600) i;
    INSERT INTO sale SELECT i, 1 + i % 600, CASE WHEN i IN (7, 7000, 19999) THEN 'raise' ELSE 'fine' END
        FROM generate_series(1, 20000) i;";

const PART_STAR: &str = "
    CREATE TABLE IF NOT EXISTS dim_part (id integer PRIMARY KEY, v text NOT NULL, n integer CHECK (n < 1000),
        parent integer REFERENCES dim_part, share numeric GENERATED ALWAYS AS (100.0 / n) STORED, deleted_at timestamptz);
    CREATE INDEX IF NOT EXISTS dim_part_v ON dim_part (v);
    CREATE UNIQUE INDEX IF NOT EXISTS dim_part_lower ON dim_part (lower(left(v, 20)));
    CREATE TABLE IF NOT EXISTS fact_sale (record bigserial PRIMARY KEY, valid_from timestamptz NOT NULL, valid_to timestamptz, id integer NOT NULL, part integer REFERENCES dim_part,
        v text, deleted_at timestamptz);
    CREATE UNIQUE INDEX IF NOT EXISTS fact_sale_open ON fact_sale (id) WHERE valid_to IS NULL;
    CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        ASSERT NEW.v IS DISTINCT FROM 'assert', 'it was asserted';
        IF NEW.v = 'raise' THEN RAISE EXCEPTION 'it was raised'; END IF;
        IF NEW.v = 'drop' THEN RETURN NULL; END IF;
        RETURN NEW;
    END $$;
    DROP TRIGGER IF EXISTS refuse ON dim_part;
    CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON dim_part FOR EACH ROW EXECUTE FUNCTION refuse();
    DROP TRIGGER IF EXISTS refuse ON fact_sale;
    CREATE TRIGGER refuse AFTER INSERT ON fact_sale FOR EACH ROW EXECUTE FUNCTION refuse();";

/// Changes that make a part bad, each with words of the reason.
const BAD_PARTS: [(&str, &str); 8] = [
    ("v = NULL", "null"),
    ("n = 1000", "dim_part_n_check"),
    ("n = 0", "division by zero"),
    ("v = 'assert'", "it was asserted"),
    ("v = 'raise'", "it was raised"),
    ("v = 'drop'", "trigger"),
    ("v = (SELECT string_agg(md5(random()::text || i), '') FROM generate_series(1, 200) i)", "index row size"),
    // The name of a part that is loaded.
    ("v = 'PART 1'", "dim_part_lower"),
];

/// Makes the parts from `first` on bad, each in another way.
async fn spoil(world: &World, first: usize, ways: &[(&str, &str)]) {
    for (part, (change, _)) in (first..).zip(ways) {
        world.change(&format!("UPDATE part SET {change} WHERE id = {part}")).await;
    }
}

const MEND: &str = "UPDATE part SET v = 'part ' || id || ' mended', n = id
    WHERE v IS NULL OR n IN (0, 1000) OR v NOT LIKE 'part %'";

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_bad_in_different_ways_fall_alone_with_what_refers_to_them() {
    let pack = [
        ("schema.sql", PART_STAR),
        ("dim_part.sql", "SELECT id, v, n, parent FROM part"),
        ("fact_sale.sql", "SELECT id, part, note AS v FROM sale"),
    ];
    let oracle = [
        ("dim_part WHERE deleted_at IS NULL", "SELECT id, v, n, parent FROM part"),
        ("current_fact_sale", "SELECT id, part, note AS v FROM sale"),
    ];
    let world = World::of(PARTS, &pack, &oracle).await;
    // 61, 62 … 67, of which 122, 124 … 134 are the children, and so on.
    let ways = &BAD_PARTS[..BAD_PARTS.len() - 1];
    spoil(&world, 61, ways).await;
    world.run().await;
    let entries = world.quarantine_is_all_that_is_held_back().await;
    let why = |entries: &[String], table: &str, id: usize| {
        let start = format!("{table} id={id}: ");
        let found: Vec<_> = entries.iter().filter_map(|entry| entry.strip_prefix(&start)).map(str::to_owned).collect();
        assert_eq!(found.len(), 1, "{table} {id}: {found:?}");
        found.concat()
    };
    let mut parts = Vec::new();
    for (part, (_, reason)) in (61..).zip(ways) {
        let found = why(&entries, "dim_part", part);
        assert!(found.to_lowercase().contains(reason), "{part}: {found}");
        parts.push(part);
    }
    let mut place = 0;
    while let Some(parent) = parts.get(place).copied() {
        place += 1;
        if parent * 2 <= 600 {
            parts.push(parent * 2);
            let missing = format!("parent = {parent} is not in public.dim_part");
            assert_eq!(why(&entries, "dim_part", parent * 2), missing);
        }
    }
    let mut sales = 0;
    for part in &parts {
        for sale in (part - 1..=20_000).step_by(600) {
            assert_eq!(why(&entries, "fact_sale", sale), format!("part = {part} is not in public.dim_part"));
            sales += 1;
        }
    }
    for sale in [7, 7_000, 19_999] {
        let found = why(&entries, "fact_sale", sale);
        assert!(found.contains("it was raised"), "{sale}: {found}");
        sales += 1;
    }
    assert_eq!(entries.len(), parts.len() + sales);
    let there = "SELECT (SELECT count(*) FROM dim_part) || ' ' || (SELECT count(*) FROM current_fact_sale)";
    assert_eq!(world.in_warehouse(there).await, Some(format!("{} {}", 600 - parts.len(), 20_000 - sales)));

    // Loaded rows become bad: their old versions stay, and rows that refer to them are loaded.
    spoil(&world, 11, &BAD_PARTS).await;
    world.change("INSERT INTO sale VALUES (30000, 11), (30001, 61), (30002, 9)").await;
    world.run().await;
    let after = world.quarantine_is_all_that_is_held_back().await;
    for (part, (_, reason)) in (11..).zip(BAD_PARTS) {
        let found = why(&after, "dim_part", part);
        assert!(found.to_lowercase().contains(reason), "{part}: {found}");
    }
    assert_eq!(why(&after, "fact_sale", 30_001), "part = 61 is not in public.dim_part");
    assert_eq!(after.len(), entries.len() + BAD_PARTS.len() + 1);
    let stay = "SELECT v FROM dim_part WHERE id BETWEEN 11 AND 18 ORDER BY id";
    let expected: Vec<_> = (11..=18).map(|part| format!("part {part}")).collect();
    assert_eq!(world.listed(stay).await, expected.join(" "));
    assert_eq!(world.listed("SELECT id FROM fact_sale WHERE id >= 30000 ORDER BY id").await, "30000 30002");

    // The source deletes one of them and repairs the others.
    let gone = "(64, 128, 256, 512)";
    world.change(&format!("DELETE FROM sale WHERE part IN {gone}; DELETE FROM part WHERE id IN {gone}")).await;
    world.change(MEND).await;
    world.change("UPDATE sale SET note = 'mended' WHERE note = 'raise'").await;
    world.run_and_agree().await;
    assert_eq!(world.quarantine_is_all_that_is_held_back().await, [""; 0]);
    assert_eq!(world.run().await["extract"]["outcome"], "nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_that_refuses_every_row_stops_the_stage_and_loses_nothing() {
    let refuse = |body: &str| {
        format!(
            "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NEW; END $$;"
        )
    };
    let schema = format!(
        "CREATE TABLE IF NOT EXISTS dim_good (id integer PRIMARY KEY, deleted_at timestamptz);
         CREATE TABLE IF NOT EXISTS dim_t (id integer PRIMARY KEY, v text, deleted_at timestamptz);
         CREATE TABLE IF NOT EXISTS fact_t (record bigserial PRIMARY KEY, valid_from timestamptz NOT NULL, valid_to timestamptz, id integer NOT NULL, v text, deleted_at timestamptz);
         CREATE UNIQUE INDEX IF NOT EXISTS fact_t_open ON fact_t (id) WHERE valid_to IS NULL;
         {} DROP TRIGGER IF EXISTS refuse ON dim_t; DROP TRIGGER IF EXISTS refuse ON fact_t;
         CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON dim_t FOR EACH ROW EXECUTE FUNCTION refuse();
         CREATE TRIGGER refuse AFTER INSERT OR UPDATE ON fact_t FOR EACH ROW EXECUTE FUNCTION refuse();",
        refuse("")
    );
    let source = "CREATE TABLE good (id integer PRIMARY KEY); CREATE TABLE t (id integer PRIMARY KEY, v text);
        CREATE TABLE f (id integer PRIMARY KEY, v text)";
    let pack = [
        ("schema.sql", schema.as_str()),
        ("dim_good.sql", "SELECT id FROM good"),
        ("dim_t.sql", "SELECT id, v FROM t"),
        ("fact_t.sql", "SELECT id, v FROM f"),
    ];
    let oracle = [
        ("dim_good", "SELECT id FROM good"),
        ("dim_t WHERE deleted_at IS NULL", "SELECT id, v FROM t"),
        ("current_fact_t", "SELECT id, v FROM f"),
    ];
    let world = World::of(source, &pack, &oracle).await;
    world.run_and_agree().await;
    let raises = ("RAISE EXCEPTION 'a fault of the trigger';", "a fault of the trigger");
    let calls = ("PERFORM no_such_function(NEW.v);", "no_such_function");
    let insert = "INSERT INTO {t} SELECT i, 'v' || i FROM generate_series(1, 2000) i";
    let update = "UPDATE {t} SET v = v || '!'";
    let state = "SELECT concat_ws(' ', (SELECT count(*) FROM dim_good), (SELECT md5(string_agg(v, '' ORDER BY id)) FROM dim_t),
        (SELECT count(*) FROM fact_t), (SELECT max(batch) FROM blackwater.ledger), (SELECT count(*) FROM blackwater.quarantine))";
    for (batch, (source, table, (bug, words), change)) in (2_usize..).zip([
        ("t", "dim_t", raises, insert),
        ("f", "fact_t", calls, insert),
        ("t", "dim_t", calls, update),
        ("f", "fact_t", raises, update),
    ]) {
        world.in_star(&refuse(bug)).await;
        let before = world.in_warehouse(state).await;
        world.change(&format!("{}; INSERT INTO good VALUES ({batch})", change.replace("{t}", source))).await;
        for command in ["run", "load"] {
            world.blackwater(&[command]).await.says(1, &[&format!("batch {batch}"), table, words]);
            assert_eq!(world.in_warehouse(state).await, before, "something is written");
        }
        assert_eq!(world.manifests().len(), batch, "the batch waits in the log");
        world.in_star(&refuse("")).await;
        let report = world.run_and_agree().await;
        assert_eq!((&report["load"]["applied"], &report["load"]["quarantine"]), (&batch.into(), &0.into()), "{report}");
    }
    let versions = "SELECT count(*) FROM fact_t";
    assert_eq!(world.in_warehouse(versions).await, Some("4000".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_exchange_a_unique_value_stop_nothing_and_come_right() {
    tokio::join!(exchange("UNIQUE"), exchange("NOT NULL UNIQUE DEFERRABLE"));
}

async fn exchange(unique: &str) {
    let schema = format!(
        "CREATE TABLE IF NOT EXISTS dim_t (id integer PRIMARY KEY, v text {unique}, deleted_at timestamptz);
         CREATE TABLE IF NOT EXISTS dim_other (id integer PRIMARY KEY, deleted_at timestamptz)"
    );
    let source = "CREATE TABLE t (id integer PRIMARY KEY, v text); CREATE TABLE other (id integer PRIMARY KEY);
        INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 20) i";
    let pack = [
        ("schema.sql", schema.as_str()),
        ("dim_t.sql", "SELECT id, v FROM t"),
        ("dim_other.sql", "SELECT id FROM other"),
    ];
    let oracle = [
        ("dim_t WHERE deleted_at IS NULL", "SELECT id, v FROM t"),
        ("dim_other WHERE deleted_at IS NULL", "SELECT id FROM other"),
    ];
    let world = World::of(source, &pack, &oracle).await;
    world.run_and_agree().await;
    for (place, (exchange, runs)) in [
        ("UPDATE t SET v = CASE id WHEN 1 THEN 'v2' ELSE 'v1' END WHERE id IN (1, 2)", 2),
        // Three values in a circle; then a chain, in which each row takes the value that another gives up.
        ("UPDATE t SET v = 'v' || CASE id WHEN 3 THEN 4 WHEN 4 THEN 5 ELSE 3 END WHERE id IN (3, 4, 5)", 3),
        ("UPDATE t SET v = 'v' || id + 1 WHERE id > 16", 3),
    ]
    .into_iter()
    .enumerate()
    {
        world.change(exchange).await;
        // Each batch also brings another row, which is loaded.
        for run in 0..=runs {
            world.change(&format!("INSERT INTO other VALUES ({})", place * 10 + run)).await;
            world.run().await;
            world.agree_on("dim_other", "SELECT id FROM other").await;
            if run == 0 {
                world.quarantine_is_all_that_is_held_back().await;
            }
        }
        assert_eq!(world.quarantine().await, [""; 0], "{exchange}");
        world.agree().await;
    }
    // Also beside a row that the table refuses.
    let refuse = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.v = 'bad' THEN RAISE EXCEPTION 'no bad ones'; END IF; RETURN NEW; END $$;
        CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON dim_t FOR EACH ROW EXECUTE FUNCTION refuse()";
    world.in_star(refuse).await;
    let exchange = "UPDATE t SET v = CASE id WHEN 6 THEN 'v7' WHEN 7 THEN 'v6' ELSE 'bad' END WHERE id IN (6, 7, 8)";
    world.change(exchange).await;
    world.run().await;
    assert_eq!(world.quarantine_is_all_that_is_held_back().await, ["dim_t id=8: no bad ones"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_waits_for_a_value_comes_in_when_it_is_free() {
    let keys = [
        "CREATE UNIQUE INDEX IF NOT EXISTS dim_0_key ON dim_0 (lower(v));",
        "CREATE UNIQUE INDEX IF NOT EXISTS dim_1_key ON dim_1 (v) WHERE v <> 'z';",
        "DO $$ BEGIN IF to_regclass('dim_2_key') IS NULL THEN
             ALTER TABLE dim_2 ADD CONSTRAINT dim_2_key EXCLUDE (v WITH =); END IF; END $$;",
    ];
    let mut schema = String::new();
    for (number, key) in keys.iter().enumerate() {
        schema.push_str(&format!(
            "CREATE TABLE IF NOT EXISTS dim_{number} (id integer PRIMARY KEY, v text, deleted_at timestamptz); {key}"
        ));
    }
    let model = "SELECT id, v FROM t";
    let pack = [("schema.sql", schema.as_str()), ("dim_0.sql", model), ("dim_1.sql", model), ("dim_2.sql", model)];
    let source = "CREATE TABLE t (id integer PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'), (2, 'b')";
    let world = World::of(source, &pack, &[("dim_0", model), ("dim_1", model), ("dim_2", model)]).await;
    world.run_and_agree().await;
    world.change("INSERT INTO t VALUES (3, 'a')").await;
    world.run().await;
    let entries = world.quarantine_is_all_that_is_held_back().await;
    assert_eq!(entries.len(), 3, "{entries:?}");
    for (number, entry) in entries.iter().enumerate() {
        assert!(entry.starts_with(&format!("dim_{number} id=3: ")) && entry.contains("_key"), "{entry}");
    }
    world.change("UPDATE t SET v = 'c' WHERE id = 1").await;
    world.run().await;
    world.change("UPDATE t SET v = 'd' WHERE id = 2").await;
    world.run_and_agree().await;
    assert_eq!(world.quarantine_is_all_that_is_held_back().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_character_that_the_warehouse_cannot_write_sets_its_row_aside() {
    let schema = "CREATE TABLE IF NOT EXISTS dim_t (id integer PRIMARY KEY, v text, deleted_at timestamptz)";
    let model = "SELECT id, v FROM t";
    let source = "CREATE TABLE t (id integer PRIMARY KEY, v text);
        INSERT INTO t VALUES (1, 'café'), (2, '日本'), (3, 'naïve')";
    let mut world = World::of(source, &[("schema.sql", schema), ("dim_t.sql", model)], &[("dim_t", model)]).await;
    let latin = "DROP DATABASE warehouse;CREATE DATABASE warehouse ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0";
    world.swap_databases(latin).await;
    world.run().await;
    let entries = world.quarantine_is_all_that_is_held_back().await;
    assert_eq!(entries.len(), 1, "{entries:?}");
    assert!(entries[0].starts_with("dim_t id=2: ") && entries[0].contains("LATIN1"), "{entries:?}");
    assert_eq!(world.listed("SELECT id FROM dim_t ORDER BY id").await, "1 3");
    world.change("INSERT INTO t VALUES (4, 'x')").await;
    world.run().await;
    world.change("UPDATE t SET v = 'Nihon' WHERE id = 2").await;
    world.run_and_agree().await;
    assert_eq!(world.quarantine_is_all_that_is_held_back().await, [""; 0]);
}
