//! Triggers, defaults and constraints of star tables find what they find in psql; objects of the star schema do not change
//! what load does.

use blackwater_tests::World;

/// Extensions in public, where they are created by default.
const EXTENSIONS: &str = "CREATE EXTENSION citext; CREATE EXTENSION ltree;";

const SOURCE: &str = "
    CREATE TABLE area (path ltree PRIMARY KEY, name text);
    CREATE TABLE country (code citext PRIMARY KEY, name text);
    CREATE TABLE shop (id integer PRIMARY KEY, country citext, area ltree, name text);
    INSERT INTO area VALUES ('world', 'World'), ('world.europe', 'Europe'), ('world.europe.uk', 'UK');
    INSERT INTO country VALUES ('GB', 'Britain'), ('FR', 'France');
    INSERT INTO shop VALUES (1, 'gb', 'world.europe.uk', 'one'), (2, 'FR', 'world.europe', 'two'), (3, 'Gb', 'world', 'three');";

/// Functions that use unqualified names: relations, functions and types of the star schema, operators and types of extensions.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS audit_log (id bigserial PRIMARY KEY, what text NOT NULL);
    CREATE TABLE IF NOT EXISTS marks (mark integer PRIMARY KEY);
    INSERT INTO marks VALUES (7) ON CONFLICT DO NOTHING;
    DO $$ BEGIN
        IF to_regtype('kind') IS NULL THEN CREATE TYPE kind AS ENUM ('short', 'long'); END IF;
    END $$;
    CREATE OR REPLACE FUNCTION squeezed(v text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
        $$ BEGIN RETURN replace(v, ' ', ''); END $$;
    CREATE OR REPLACE FUNCTION kind_of(v text) RETURNS kind LANGUAGE plpgsql IMMUTABLE AS
        $$ BEGIN RETURN CASE WHEN length(squeezed(v)) < 4 THEN 'short'::kind ELSE 'long' END; END $$;
    CREATE OR REPLACE FUNCTION is_of_world(path public.ltree) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
        $$ BEGIN RETURN path ~ 'world.*'::lquery AND squeezed(path::text) <> ''; END $$;
    CREATE OR REPLACE FUNCTION newest_mark() RETURNS integer LANGUAGE plpgsql STABLE AS
        $$ BEGIN RETURN (SELECT max(mark) FROM marks); END $$;
    CREATE OR REPLACE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO audit_log (what) VALUES (TG_TABLE_NAME || ' ' || TG_OP);
        IF NEW.name::citext = 'twin' THEN RAISE EXCEPTION 'no twins'; END IF;
        RETURN NEW;
    END $$;
    CREATE TABLE IF NOT EXISTS dim_area (path public.ltree PRIMARY KEY CHECK (is_of_world(path)), name text, deleted_at timestamptz);
    CREATE TABLE IF NOT EXISTS dim_country (code public.citext PRIMARY KEY, name text, mark integer DEFAULT newest_mark(),
        deleted_at timestamptz);
    CREATE TABLE IF NOT EXISTS fact_shop (record bigserial PRIMARY KEY, valid_from timestamptz NOT NULL, valid_to timestamptz, id integer NOT NULL,
        country public.citext REFERENCES dim_country, area public.ltree REFERENCES dim_area, name text,
        kind kind GENERATED ALWAYS AS (kind_of(name)) STORED, mark integer DEFAULT newest_mark(), deleted_at timestamptz);
    CREATE UNIQUE INDEX IF NOT EXISTS fact_shop_open ON fact_shop (id) WHERE valid_to IS NULL;
    DROP TRIGGER IF EXISTS audit ON dim_country; DROP TRIGGER IF EXISTS audit ON fact_shop;
    CREATE TRIGGER audit BEFORE INSERT OR UPDATE ON dim_country FOR EACH ROW EXECUTE FUNCTION audit();
    CREATE TRIGGER audit AFTER INSERT ON fact_shop FOR EACH ROW EXECUTE FUNCTION audit();";

/// Loads star tables in `schema` whose functions use unqualified names.
async fn unqualified_names_are_found(schema: &str) {
    let pack = [
        ("schema.sql", SCHEMA),
        ("dim_area.sql", "SELECT path, name FROM area"),
        ("dim_country.sql", "SELECT code, name FROM country"),
        ("fact_shop.sql", "SELECT id, country, area, name FROM shop"),
    ];
    let world = World::of(&format!("{EXTENSIONS}{SOURCE}"), &pack, &[]).await;
    world.in_star(EXTENSIONS).await;
    world.use_star_schema(schema);
    let agree = async || {
        let star = |table: &str| format!("\"{schema}\".{table}");
        world.agree_on(&star("dim_area WHERE deleted_at IS NULL"), "SELECT path, name FROM area").await;
        world
            .agree_on(&star("dim_country WHERE deleted_at IS NULL"), "SELECT code, name, 7 AS mark FROM country")
            .await;
        let shops = "SELECT id, country, area, name, CASE WHEN length(name) < 4 THEN 'short' ELSE 'long' END AS kind, 7 AS mark FROM shop";
        world.agree_on(&star("current_fact_shop"), shops).await;
    };
    assert_eq!(world.errors().await, [""; 0]);
    world.run().await;
    assert_eq!(world.quarantine_is_all_that_is_held_back().await, [""; 0]);
    agree().await;
    let log = format!("SELECT what || ' ' || count(*) FROM \"{schema}\".audit_log GROUP BY what ORDER BY what");
    assert_eq!(world.listed(&log).await, "dim_country INSERT 2 fact_shop INSERT 3");

    // A function refuses one row and a trigger another; a third waits for a country, whose code arrives in other letters.
    world
        .change(
            "INSERT INTO area VALUES ('moon', 'Moon'); INSERT INTO country VALUES ('TW', 'Twin');
             INSERT INTO shop VALUES (4, 'pt', 'world.europe', 'four'), (5, 'gB', 'world.europe.uk', 'five');
             UPDATE country SET name = 'République' WHERE code = 'fr'; UPDATE shop SET area = 'world.europe' WHERE id = 3",
        )
        .await;
    world.run().await;
    let entries = world.quarantine_is_all_that_is_held_back().await;
    assert_eq!(entries.len(), 3, "{entries:?}");
    assert!(
        entries[0].starts_with("dim_area path=moon: ") && entries[0].contains("dim_area_path_check"),
        "{entries:?}"
    );
    assert!(entries[1].starts_with("dim_country code=TW: ") && entries[1].contains("no twins"), "{entries:?}");
    assert!(entries[2].starts_with("fact_shop id=4: country = pt is not in"), "{entries:?}");

    world
        .change(
            "UPDATE area SET path = 'world.moon' WHERE path = 'moon'; UPDATE country SET name = 'Taiwan' WHERE code = 'tw';
             INSERT INTO country VALUES ('PT', 'Portugal'); DELETE FROM shop WHERE id = 2; DELETE FROM area WHERE path = 'world';
             UPDATE country SET code = 'gb' WHERE code = 'GB'",
        )
        .await;
    world.run().await;
    agree().await;
    assert_eq!(world.quarantine_is_all_that_is_held_back().await, [""; 0]);
    assert_eq!(world.run().await["extract"]["outcome"], "nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_of_the_star_schema_find_what_they_name() {
    unqualified_names_are_found("public").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_of_another_star_schema_find_what_they_name_there_and_in_public() {
    unqualified_names_are_found("The Star").await;
}

/// Statements that create a better match for functions and operators of Postgres in schema star: for varchar where Postgres has
/// text, for integer instead of numeric, for date instead of timestamp. Each raises an error when it is called. Some of the
/// statements fail.
const TAKE_OVER: &str = "
    WITH narrower (kind, narrow) AS (
        VALUES ('text'::regtype, 'varchar'::regtype), ('text', 'bpchar'), ('numeric', 'int4'), ('int8', 'int4'), ('float8', 'int4'),
               ('timestamptz', 'date'), ('timestamp', 'date')),
    function AS (
        SELECT p.oid, proname AS name, array_to_string(array_replace(proargtypes::oid[]::regtype[], kind, narrow), ', ') AS kinds,
               prorettype::regtype AS result
        FROM pg_proc p JOIN narrower ON kind = ANY (proargtypes::oid[])
        WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind = 'f' AND NOT proretset)
    SELECT format('CREATE FUNCTION star.%I(%s) RETURNS %s LANGUAGE plpgsql AS $x$ BEGIN RAISE EXCEPTION ''captured %1$s''; END $x$',
                  name, kinds, result)
    FROM function
    UNION ALL
    SELECT format('CREATE OPERATOR star.%s (FUNCTION = star.%I, LEFTARG = %s, RIGHTARG = %s)',
                  oprname, name, split_part(kinds, ', ', 1), split_part(kinds, ', ', 2))
    FROM pg_operator o JOIN function f ON f.oid = oprcode AND oprkind = 'b'
    UNION ALL
    SELECT format('CREATE OPERATOR star.%s (FUNCTION = star.captured, LEFTARG = %s, RIGHTARG = %s)', operator, one, other)
    FROM unnest(ARRAY['=', '<>', '<', '>']) operator, (VALUES ('varchar', 'text'), ('text', 'varchar')) k (one, other)
    UNION ALL
    SELECT format('CREATE AGGREGATE star.%I(%s) (sfunc = star.captured, stype = text)', name, kinds)
    FROM (VALUES ('count', 'varchar'), ('max', 'varchar'), ('min', 'varchar'), ('array_agg', 'varchar'), ('json_agg', 'varchar'),
                 ('string_agg', 'varchar, varchar')) a (name, kinds)";

/// Functions for the aggregates and the mixed operators, and the search path that a session begins with.
const CAPTURED: &str = "CREATE SCHEMA star;
    CREATE FUNCTION star.captured(text, varchar) RETURNS text LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION $x$captured$x$; END';
    CREATE FUNCTION star.captured(varchar, text) RETURNS text LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION $x$captured$x$; END';
    CREATE FUNCTION star.captured(text, varchar, varchar) RETURNS text LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION $x$captured$x$; END';
    CREATE FUNCTION star.now() RETURNS timestamptz LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION $x$captured now$x$; END';
    ALTER DATABASE warehouse SET search_path = star, public;";

#[tokio::test(flavor = "multi_thread")]
async fn a_star_schema_that_takes_over_operators_and_functions_changes_nothing() {
    let source = "
        CREATE TABLE area (code varchar(5) PRIMARY KEY, name varchar(20), abbr char(3));
        CREATE TABLE shop (day date, number int2, area varchar(5), name varchar(40), at timestamptz, amount numeric(8, 2), opens timestamp(3),
            PRIMARY KEY (day, number));
        CREATE TABLE sale (id bigint PRIMARY KEY, area varchar(5), shop_day date, shop int2, price numeric, at timestamptz);
        INSERT INTO area SELECT 'a' || i, 'area ' || i, 'x' || i % 10 FROM generate_series(1, 20) i;
        INSERT INTO shop SELECT DATE '2024-01-01' + i % 7, i, 'a' || 1 + i % 22, 'shop ' || i, TIMESTAMPTZ '2024-01-01 10:00:00+00' + i * INTERVAL '1 h',
            i * 1.25, TIMESTAMP '2024-01-01' + i * INTERVAL '1 min' FROM generate_series(1, 60) i;
        INSERT INTO sale SELECT i, 'a' || 1 + i % 21, DATE '2024-01-01' + i % 7, 1 + i % 60, i * 0.5, TIMESTAMPTZ '2024-02-01 00:00:00+00'
            FROM generate_series(1, 100) i;
        UPDATE sale SET shop_day = DATE '2024-01-01' + shop % 7;";
    let schema = "
        CREATE TABLE IF NOT EXISTS dim_area (code varchar(5) PRIMARY KEY, name varchar(10) NOT NULL UNIQUE, abbr char(3), deleted_at timestamptz);
        CREATE TABLE IF NOT EXISTS dim_shop (day date, number int2, area varchar(5) REFERENCES dim_area, name varchar(40) NOT NULL,
            at timestamptz(0), amount numeric(6, 2), opens timestamp(3), deleted_at timestamptz, PRIMARY KEY (day, number));
        CREATE TABLE IF NOT EXISTS fact_sale (record serial PRIMARY KEY, valid_from timestamptz NOT NULL, valid_to timestamptz, id int8 NOT NULL, area varchar(5) REFERENCES dim_area, shop_day date, shop int2,
            price numeric, at timestamptz, deleted_at timestamptz, FOREIGN KEY (shop_day, shop) REFERENCES dim_shop (day, number));
        CREATE UNIQUE INDEX IF NOT EXISTS fact_sale_open ON fact_sale (id) WHERE valid_to IS NULL;";
    let models = [
        ("dim_area", "SELECT code, name, abbr FROM area"),
        ("dim_shop", "SELECT day, number, area, name, at, amount, opens FROM shop"),
        ("fact_sale", "SELECT id, area, shop_day, shop, price, at FROM sale"),
    ];
    let files = models.map(|(table, model)| (format!("{table}.sql"), model));
    let mut pack = vec![("schema.sql", schema)];
    pack.extend(files.iter().map(|(file, model)| (file.as_str(), *model)));
    let world = World::of(source, &pack, &[]).await;
    world.in_star(CAPTURED).await;
    let mut made = 0;
    for row in world.warehouse.query(TAKE_OVER, &[]).await.unwrap() {
        made += usize::from(world.warehouse.batch_execute(row.get(0)).await.is_ok());
    }
    assert!(made > 1000, "only {made} were made");
    let is_taken_over = "SET search_path = star; SELECT 1 FROM pg_class WHERE relname::varchar(63) = 'x'::varchar";
    let error = world.warehouse_session().await.batch_execute(is_taken_over).await.unwrap_err();
    assert!(error.as_db_error().unwrap().message().contains("captured"), "{error:?}");
    world.use_star_schema("star");
    let agree = async || {
        for (table, model) in models {
            let rows = if table == "fact_sale" { "current_fact_sale" } else { table };
            let live = if table == "fact_sale" { "" } else { " WHERE deleted_at IS NULL" };
            world.agree_on(&format!("star.{rows}{live}"), model).await;
        }
    };
    // Areas 21 and 22 are missing. Later one has the name of another area, one a name that is too long, and one none.
    world.run().await;
    let entries = world.quarantine_is_all_that_is_held_back().await;
    let of = |table: &str| entries.iter().filter(|entry| entry.starts_with(table)).count();
    let shops = "SELECT count(*) FROM shop WHERE area NOT IN (SELECT code FROM area)";
    let sales = "SELECT count(*) FROM sale WHERE area NOT IN (SELECT code FROM area)
        OR shop IN (SELECT number FROM shop WHERE area NOT IN (SELECT code FROM area))";
    for (table, count) in [("dim_area", "SELECT 0::bigint"), ("dim_shop", shops), ("fact_sale", sales)] {
        let expected: i64 = world.source.query_one(count, &[]).await.unwrap().get(0);
        assert_eq!(of(table), expected as usize, "{table}: {entries:#?}");
    }
    world
        .change(
            "INSERT INTO area VALUES ('a21', 'area 1', 'y'), ('a22', 'much too long', 'y'), ('a23', NULL, 'y');
             UPDATE shop SET amount = 12345.67 WHERE number = 1; UPDATE shop SET at = at + INTERVAL '0.5 s' WHERE number = 2;
             UPDATE sale SET price = price + 1 WHERE id < 50; UPDATE area SET abbr = 'abc', name = 'Area 3' WHERE code = 'a3'",
        )
        .await;
    world.run().await;
    let entries = world.quarantine_is_all_that_is_held_back().await;
    assert!(!entries.iter().any(|entry| entry.contains("captured")), "{entries:#?}");
    world
        .change("DELETE FROM sale WHERE id > 90; DELETE FROM shop WHERE number = 60; UPDATE area SET name = code")
        .await;
    world.run().await;
    world
        .change(
            "UPDATE shop SET amount = 1, at = '2024-01-01' WHERE number IN (1, 2); INSERT INTO sale VALUES (1000, 'a1', NULL, NULL, 'NaN', 'infinity');
             UPDATE sale SET shop = 1, shop_day = '2024-01-02' WHERE shop = 60",
        )
        .await;
    world.run().await;
    agree().await;
    assert_eq!(world.quarantine_is_all_that_is_held_back().await, [""; 0]);
    assert_eq!(world.errors().await, [""; 0]);
    let status = world.blackwater(&["status"]).await.report();
    assert_eq!((&status["lag_seconds"], &status["tables"][0]["rows"]), (&0.into(), &23.into()), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_star_table_may_be_called_as_a_table_of_postgres_or_of_load() {
    let names = ["pg_class", "stage_0", "stage_1", "stage_0_like", "t", "s", "quarantine"];
    let (mut schema, mut source, mut pack) = (String::new(), String::new(), Vec::new());
    for (number, name) in names.iter().enumerate() {
        let up = if number == 0 { String::new() } else { format!(" REFERENCES public.{}", names[number - 1]) };
        source.push_str(&format!(
            "CREATE TABLE t{number} (id integer PRIMARY KEY, up integer, name text);
             INSERT INTO t{number} SELECT i, i, 'name ' || i FROM generate_series(1, 5) i;"
        ));
        schema.push_str(&format!(
            "CREATE TABLE IF NOT EXISTS public.{name} (id integer PRIMARY KEY, up integer{up}, name text NOT NULL, deleted_at timestamptz);"
        ));
        pack.push((format!("{name}.sql"), format!("SELECT id, up, name FROM t{number}")));
    }
    // And histories.
    for (number, name) in ["pg_proc", "stage_2"].into_iter().enumerate() {
        schema.push_str(&format!(
            "CREATE TABLE IF NOT EXISTS public.{name} (record bigserial PRIMARY KEY, valid_from timestamptz NOT NULL, valid_to timestamptz, id integer NOT NULL,
                 up integer REFERENCES public.pg_class, name text NOT NULL, deleted_at timestamptz);
             CREATE UNIQUE INDEX IF NOT EXISTS history_{number} ON public.{name} (id) WHERE valid_to IS NULL;"
        ));
        pack.push((format!("{name}.sql"), "SELECT id, up, name FROM t0".into()));
    }
    pack.push(("schema.sql".into(), schema));
    let pack: Vec<_> = pack.iter().map(|(file, text)| (file.as_str(), text.as_str())).collect();
    let world = World::of(&source, &pack, &[]).await;
    let agree = async || {
        for (number, name) in names.iter().enumerate() {
            let rows = format!("public.{name} WHERE deleted_at IS NULL");
            world.agree_on(&rows, &format!("SELECT id, up, name FROM t{number}")).await;
        }
        for name in ["pg_proc", "stage_2"] {
            world.agree_on(&format!("public.current_{name}"), "SELECT id, up, name FROM t0").await;
        }
        assert_eq!(world.quarantine_is_all_that_is_held_back().await, [""; 0]);
    };
    assert_eq!(world.errors().await, [""; 0]);
    world.run().await;
    agree().await;
    let change = |number: usize| {
        format!(
            "UPDATE t{number} SET name = NULL WHERE id = 1; INSERT INTO t{number} VALUES (6, 6, 'six'); DELETE FROM t{number} WHERE id = 3;"
        )
    };
    world.change(&(0..names.len()).map(change).collect::<String>()).await;
    world.run().await;
    assert_eq!(world.quarantine().await.len(), names.len() + 2);
    world
        .change(
            &(0..names.len())
                .map(|number| format!("UPDATE t{number} SET name = 'one' WHERE id = 1;"))
                .collect::<String>(),
        )
        .await;
    world.run().await;
    agree().await;
}
