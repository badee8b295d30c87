//! Every type on its way from a source column to a warehouse column of the same type, and every
//! expression of the model language beside what Postgres makes of it.

use blackwater_tests::World;

/// The types that go through, each with awkward values.
const TYPES: [(&str, &[&str]); 46] = [
    ("smallint", &["-32768", "32767"]),
    ("integer", &["-2147483648", "0"]),
    ("bigint", &["-9223372036854775808", "9223372036854775807"]),
    ("numeric", &["1.0", "1.00", "-0.000", "NaN", "Infinity", "1e-30", "12345678901234567890123456789012345678901.5"]),
    ("numeric(38,10)", &["1234567890123456789012345678.0123456789", "-0.0000000001"]),
    ("numeric(10,2)", &["99999999.99", "-0.01"]),
    ("numeric(45,3)", &["123456789012345678901234567890123456789012.001", "NaN"]),
    ("numeric(5,-2)", &["1234500"]),
    ("numeric(2,4)", &["0.0012"]),
    ("real", &["0.1", "1e-30", "-0", "NaN", "-Infinity", "3.4028235e38"]),
    ("double precision", &["0.1", "1e-300", "-0", "NaN", "Infinity", "0.30000000000000004"]),
    ("boolean", &["true", "false"]),
    ("text", &["", "NULL", "\\N", "\\.", " a ", "two\nlines\r\n", "say \"x\"", "a,b", "tab\t", "東京 🚲", "\\x00"]),
    ("varchar(5)", &["", "1E5  ", "00007"]),
    ("char(5)", &["", "ab", "a  b"]),
    ("\"char\"", &["x"]),
    ("name", &["a name"]),
    ("bytea", &["", "\\x00ff0a0d2c22", "\\x5c78"]),
    ("date", &["0001-01-01", "9999-12-31", "2024-02-29"]),
    ("time", &["24:00:00", "00:00:00", "23:59:59.999999"]),
    ("time with time zone", &["12:00:00.5+05:30", "24:00:00-15"]),
    ("timestamp", &["0001-01-01 00:00:00", "9999-12-31 23:59:59.999999", "2024-02-29 12:00:00.1"]),
    ("timestamp(0)", &["2024-02-29 12:00:01"]),
    (
        "timestamptz",
        &["2024-02-29 23:59:59.123456+05:45", "infinity", "-infinity", "0044-03-15 12:00 BC", "12024-01-01"],
    ),
    ("interval", &["1 year -2 mons +3 days -04:05:06.789", "0", "-1 day"]),
    ("uuid", &["A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"]),
    ("json", &["{\"b\": 1.0,  \"a\":[1 ,2], \"a\": null}", "\"\"", "null"]),
    ("jsonb", &["{\"b\": 1.00, \"a\": \"\\u0041\\n\"}", "[]", "null"]),
    ("inet", &["10.0.0.1/8", "::1"]),
    ("cidr", &["10.0.0.0/8"]),
    ("macaddr", &["08:00:2b:01:02:03"]),
    ("bit(5)", &["10101"]),
    ("bit varying", &["", "1"]),
    ("point", &["(1.5,-0)"]),
    ("int4range", &["[1,5)", "empty", "(,)"]),
    ("tstzrange", &["[2024-01-01 00:00:00+01,infinity)"]),
    ("integer[]", &["{}", "{1,NULL,3}", "{{1,2},{3,4}}", "[0:1]={7,8}"]),
    ("text[]", &["{}", "{\"a,b\",\"say \\\"x\\\"\",NULL,\"NULL\",\"\"}"]),
    ("timestamptz[]", &["{\"2024-02-29 23:00:00+01\",infinity}"]),
    ("tsvector", &["'fat':2 'rat':3"]),
    ("pg_lsn", &["16/B374D848"]),
    ("oid", &["4294967295"]),
    ("mood", &["so so", "it's \"fine\""]),
    ("mood[]", &["{\"so so\"}"]),
    ("grade", &["7"]),
    ("pair", &["(1,\"a,b\")", "(,)"]),
];

const OWN_TYPES: &str = "
    CREATE TYPE mood AS ENUM ('so so', 'it''s \"fine\"');
    CREATE DOMAIN grade AS smallint CHECK (VALUE BETWEEN 0 AND 10);
    CREATE TYPE pair AS (one integer, other text);";

#[tokio::test(flavor = "multi_thread")]
async fn every_type_arrives_as_postgres_prints_it() {
    let columns: Vec<_> = TYPES.iter().enumerate().map(|(number, (kind, _))| format!("c{number} {kind}")).collect();
    let table = |name: &str| format!("CREATE TABLE {name} (id integer PRIMARY KEY, {});", columns.join(", "));
    let mut source = format!("{OWN_TYPES} {} INSERT INTO t (id) VALUES (0);", table("t"));
    let longest = TYPES.iter().map(|(_, values)| values.len()).max().unwrap();
    for id in 1..=longest {
        let values: Vec<_> = TYPES
            .iter()
            .map(|(kind, values)| format!("'{}'::{kind}", values[id.min(values.len()) - 1].replace('\'', "''")))
            .collect();
        source.push_str(&format!("INSERT INTO t VALUES ({id}, {});", values.join(", ")));
    }
    let own = OWN_TYPES
        .replace("CREATE TYPE mood", "DO $$ BEGIN CREATE TYPE mood")
        .replace("other text);", "other text); EXCEPTION WHEN duplicate_object THEN NULL; END $$;");
    let schema = format!("{own} {}", table("IF NOT EXISTS dim_t"));
    let names: Vec<_> = (0..TYPES.len()).map(|number| format!("c{number}")).collect();
    let model = format!("SELECT id, {} FROM t", names.join(", "));
    let oracle = "SELECT * FROM t";
    let pack = [("schema.sql", schema.as_str()), ("dim_t.sql", model.as_str())];
    let world = World::of(&source, &pack, &[("dim_t", oracle)]).await;
    world.run_and_agree().await;
    // Each row takes the values of the one before.
    let shifted: Vec<_> = names.iter().map(|name| format!("{name} = other.{name}")).collect();
    let shift = format!("UPDATE t SET {} FROM t other WHERE other.id = t.id - 1", shifted.join(", "));
    world.source.batch_execute(&shift).await.unwrap();
    let report = world.run_and_agree().await;
    assert_eq!(report["load"]["batches"][0]["tables"][0]["updated"], longest as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_whose_text_depends_on_settings_is_refused_by_name() {
    for (kind, found) in [("money", "money"), ("regclass", "regclass"), ("regtype[]", "regtype"), ("price", "money")] {
        let source =
            format!("CREATE DOMAIN price AS money; CREATE TABLE t (id integer PRIMARY KEY, v {kind}, w integer)");
        let schema = "CREATE TABLE IF NOT EXISTS dim_t (id integer PRIMARY KEY, v text, w integer)";
        let world = World::of(&source, &[("schema.sql", schema), ("dim_t.sql", "SELECT id, v FROM t")], &[]).await;
        world.blackwater(&["run"]).await.says(1, &["dim_t.sql: t.v holds ", found]);
        // A model that leaves it alone is not in its way.
        std::fs::write(world.pack().join("dim_t.sql"), "SELECT id, w FROM t").unwrap();
        world.run().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cast_that_would_give_another_text_than_postgres_is_refused() {
    for kind in ["inet", "padded", "truth", "truer", "text COLLATE \"lazy\""] {
        let source = format!(
            "CREATE DOMAIN padded AS char(3); CREATE DOMAIN truth AS boolean; CREATE DOMAIN truer AS truth;
             CREATE COLLATION lazy (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
             CREATE TABLE t (id integer PRIMARY KEY, v {kind}); INSERT INTO t VALUES (1, NULL)"
        );
        let schema = "CREATE TABLE IF NOT EXISTS dim_t (id integer PRIMARY KEY, v text)";
        let cast = "SELECT id,\nCAST(v AS TEXT) AS v FROM t";
        let world = World::of(&source, &[("schema.sql", schema), ("dim_t.sql", cast)], &[]).await;
        world.blackwater(&["run"]).await.says(1, &["dim_t.sql:2: models may not cast"]);
        std::fs::write(world.pack().join("dim_t.sql"), "SELECT id, v FROM t").unwrap();
        world.run().await;
    }
}

const AWKWARD: &str = "
    CREATE TYPE mood AS ENUM ('sad', 'ok');
    CREATE TABLE t (id bigint PRIMARY KEY, a text, b varchar(20), i integer, j smallint, n numeric(10,2), d date,
                    ts timestamp(3), tz timestamptz, flag boolean, other boolean, m mood, u uuid, c char(4),
                    day text, clock text, moment text, whole text, price text);
    INSERT INTO t VALUES
      (1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
      (2, '', 'x', 0, 0, 0.00, '2024-02-29', '2024-02-29 23:59:59.999', '2024-02-29 23:30:00-01', true, NULL, 'sad',
       'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'ab', '2024-02-29', '00:00:00', '2024-02-29 00:00:00', '-5', '-1.50'),
      (3, ' Ünïted  ', ' Ünïted  ', 7, 7, 7.00, '2023-01-01', '2023-01-01 00:00:00', '2023-01-01 00:00:00+14', false, true,
       'ok', NULL, '', '0001-01-01', '23:59:59.999999', '9999-12-31T23:59:59.5', '2147483647', '99999999.99'),
      (4, 'STRASSE İß', 'ß', -2147483648, -32768, -12345678.90, '9999-12-31', '1969-12-31 23:59:59.5',
       '1969-12-31 23:59:59.999999+00', true, false, NULL, NULL, 'a  b', '2000-12-31', '12:30:00.5', '1969-07-20 20:17:40', '007', '0.1'),
      (5, 'x', 'X', 8, 7, 7.01, '2020-12-31', '2020-12-31 12:34:56', '2021-01-01 00:00:00.5+00', false, false, 'ok', NULL, 'x',
       '2021-01-03', '07:55:11.724', '2021-01-03 07:55:11.724', '0', '10');";

/// (expression, the warehouse's type); a model and Postgres must make the same of it.
const EXPRESSIONS: [(&str, &str); 62] = [
    ("COALESCE(a, b, 'none')", "text"),
    ("COALESCE(a, 'none') = 'none'", "boolean"),
    ("COALESCE(i, j, 1)", "integer"),
    ("COALESCE(j, 5000000000)", "bigint"),
    ("COALESCE(n, 0.00)", "numeric(10,2)"),
    ("COALESCE(d, DATE '2000-01-01')", "date"),
    ("COALESCE(ts, TIMESTAMP '2000-01-01 00:00:00.5')", "timestamp"),
    ("COALESCE(m, NULL)", "text"),
    ("NULLIF(a, '')", "text"),
    ("NULLIF(i, j)", "integer"),
    ("a || b", "text"),
    ("a || '-' || CAST(i AS TEXT)", "text"),
    ("CONCAT(a, b, NULL, 'end')", "text"),
    ("LOWER(moment)", "text"),
    ("UPPER(CAST(m AS TEXT))", "text"),
    ("TRIM(a)", "text"),
    ("'[' || TRIM(b) || ']'", "text"),
    ("a = b", "boolean"),
    ("a <> b", "boolean"),
    ("NOT a = b", "boolean"),
    ("i = j", "boolean"),
    ("i > j", "boolean"),
    ("i <= 7", "boolean"),
    ("i <> -5000000000", "boolean"),
    ("n = 7", "boolean"),
    ("n < 7.01", "boolean"),
    ("n >= -12345678.9", "boolean"),
    ("d < '2024-01-01'", "boolean"),
    ("ts >= '2020-12-31 12:34:56'", "boolean"),
    ("d BETWEEN '2020-01-01' AND '2024-02-29'", "boolean"),
    ("d NOT BETWEEN '2020-01-01' AND '2024-02-29'", "boolean"),
    ("a IN ('', 'x', NULL)", "boolean"),
    ("i NOT IN (0, 8)", "boolean"),
    ("flag AND other", "boolean"),
    ("flag OR other", "boolean"),
    ("NOT flag", "boolean"),
    ("flag = other", "boolean"),
    ("a IS NULL OR i IS NOT NULL AND flag", "boolean"),
    ("CASE WHEN flag THEN 'yes' WHEN NOT flag THEN 'no' END", "text"),
    ("CASE WHEN i > 0 THEN i WHEN i < 0 THEN j ELSE NULL END", "integer"),
    ("CASE a WHEN '' THEN 1 WHEN 'x' THEN 2 ELSE 3 END", "integer"),
    ("CASE CAST(m AS TEXT) WHEN 'sad' THEN d ELSE CAST(ts AS DATE) END", "date"),
    ("CASE WHEN flag THEN n ELSE 1 END", "numeric(10,2)"),
    ("CAST(ts AS DATE)", "date"),
    ("CAST(ts AS TIME)", "time"),
    ("CAST(tz AS DATE)", "date"),
    ("CAST(tz AS TIME)", "time"),
    ("CAST(day AS DATE)", "date"),
    ("CAST(clock AS TIME)", "time"),
    ("CAST(moment AS TIMESTAMP)", "timestamp"),
    ("CAST(whole AS INTEGER)", "integer"),
    ("CAST(whole AS BIGINT)", "bigint"),
    ("CAST(price AS NUMERIC(12, 3))", "numeric(12,3)"),
    ("CAST(j AS BIGINT)", "bigint"),
    ("CAST(i AS NUMERIC(12, 2))", "numeric(12,2)"),
    ("CAST(flag AS TEXT)", "text"),
    ("'<' || CAST(c AS TEXT) || '>'", "text"),
    ("CAST(u AS TEXT) || CAST(d AS TEXT) || CAST(n AS TEXT)", "text"),
    ("a::text", "text"),
    ("EXTRACT(YEAR FROM d)", "integer"),
    ("EXTRACT(QUARTER FROM ts)", "integer"),
    ("EXTRACT(HOUR FROM tz)", "integer"),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_expression_means_what_it_means_in_postgres() {
    let of_dates = ["YEAR", "QUARTER", "MONTH", "DAY", "DOY", "ISODOW", "WEEK"];
    let mut expressions: Vec<_> = EXPRESSIONS.iter().map(|(expr, kind)| (expr.to_string(), *kind)).collect();
    expressions.extend(of_dates.map(|field| (format!("EXTRACT({field} FROM d)"), "integer")));
    expressions.extend(["HOUR", "MINUTE"].map(|field| (format!("EXTRACT({field} FROM ts)"), "integer")));
    let outputs: Vec<_> = expressions.iter().enumerate().map(|(n, (expr, _))| format!("{expr} AS e{n}")).collect();
    let query = format!("SELECT id, {} FROM t", outputs.join(", "));
    let columns: Vec<_> = expressions.iter().enumerate().map(|(n, (_, kind))| format!("e{n} {kind}")).collect();
    let schema = format!("CREATE TABLE IF NOT EXISTS dim_t (id bigint PRIMARY KEY, {})", columns.join(", "));
    let expected: Vec<_> =
        expressions.iter().enumerate().map(|(n, (expr, kind))| format!("({expr})::{kind} AS e{n}")).collect();
    let oracle: &'static str = format!("SELECT id, {} FROM t", expected.join(", ")).leak();
    let world = World::of(AWKWARD, &[("schema.sql", &schema), ("dim_t.sql", &query)], &[]).await;
    world.source.batch_execute("SET TimeZone = 'UTC'").await.unwrap();
    world.run().await;
    // One by one, so that a failure names the expression.
    for (number, (expr, kind)) in expressions.iter().enumerate() {
        let one: &'static str = format!("SELECT id, ({expr})::{kind} AS e{number} FROM t").leak();
        world.agree_on("dim_t", one).await;
    }
    world.agree_on("dim_t", oracle).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cast_reads_one_fixed_format_and_names_what_it_cannot_read() {
    let source = "CREATE TABLE t (id integer PRIMARY KEY, day text);
        INSERT INTO t VALUES (1, '31/12/2024'), (2, '2024-01-02'), (3, '02/01/2024'), (4, '2024-02-30'), (5, NULL),
                             (6, ' 2024-01-02'), (7, '2024-1-2'), (8, '20240102'), (9, 'tbc'), (10, 'infinity'), (11, '')";
    let schema = "CREATE TABLE IF NOT EXISTS dim_t (id integer PRIMARY KEY, day date)";
    // What a person would write to Postgres: only dates of this shape, and none that is not in the calendar.
    let oracle =
        "SELECT id, CASE WHEN day ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}$' AND id <> 4 THEN day::date END AS day FROM t";
    let strict = "SELECT id, CAST(day AS DATE) AS day FROM t";
    let pack = [("schema.sql", schema), ("dim_t.sql", strict)];
    let world = World::of(source, &pack, &[("dim_t", oracle)]).await;
    world.run().await;
    let fits = oracle.replace("FROM t", "FROM t WHERE id IN (2, 5)");
    world.agree_on("dim_t", &fits).await;
    let set_aside = world.quarantine().await;
    let day = |id: usize, text: &str| format!("dim_t id={id}: CAST(day AS DATE): {text:?} is no date");
    let bad = [(1, "31/12/2024"), (3, "02/01/2024"), (4, "2024-02-30"), (6, " 2024-01-02"), (7, "2024-1-2")];
    let bad = bad.into_iter().chain([(8, "20240102"), (9, "tbc"), (10, "infinity"), (11, "")]);
    assert_eq!(set_aside, bad.map(|(id, text)| day(id, text)).collect::<Vec<_>>());
    std::fs::write(world.pack().join("dim_t.sql"), strict.replace("CAST", "TRY_CAST")).unwrap();
    world.run_and_agree().await;
    assert_eq!(world.quarantine().await.len(), 0);
    // The repaired source and the strict model again.
    world.source.batch_execute("UPDATE t SET day = NULL WHERE id NOT IN (2, 5)").await.unwrap();
    std::fs::write(world.pack().join("dim_t.sql"), strict).unwrap();
    world.run_and_agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_and_times_at_the_ends_of_their_types_arrive_as_they_are() {
    let columns =
        "s smallint, i integer, b bigint, n numeric, m numeric(30,10), x text, o boolean, d date, at timestamp";
    let schema = format!(
        "CREATE TABLE IF NOT EXISTS dim_t (id integer PRIMARY KEY, {columns}, h time, w bigint, v numeric, deleted_at timestamptz)"
    );
    let source = format!("CREATE TABLE t (id integer PRIMARY KEY, {columns})");
    let model = "SELECT id, s, i, b, n, m, x, o, d, at, CAST(at AS TIME) AS h, i AS w, b AS v FROM t";
    let world = World::of(&source, &[("schema.sql", &schema), ("dim_t.sql", model)], &[("dim_t", model)]).await;
    let finite = "INSERT INTO t VALUES
        (1, -32768, -2147483648, -9223372036854775808, -0.00, -99999999999999999999.9999999999, '', false,
         '0001-01-01', '0001-01-01 00:00:00'),
        (2, 32767, 2147483647, 9223372036854775807, 12345678901234567890.00012345678900, 0.0000000001, E'a\\tb\\n\"é\\\\', true,
         '9999-12-31', '9999-12-31 23:59:59.999999'),
        (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
        (4, 0, 0, 0, 10000, 10000.5, 'NULL', true, '1999-12-31', '1999-12-31 23:59:59.999999'),
        (5, 1, 1, 1, 'NaN', NULL, '\\N', true, '2000-01-01', '2000-01-01 00:00:00.1'),
        (6, 1, 1, 1, ('1' || repeat('0', 90) || '.' || repeat('0', 90) || '1')::numeric, 1, 'x', true, NULL, NULL)";
    world.change(finite).await;
    world.run_and_agree().await;
    assert_eq!(world.quarantine().await, [""; 0]);
    // These have no digits, or too many.
    let others = "INSERT INTO t (id, n, d) VALUES (7, 'Infinity', NULL), (8, '-Infinity', NULL),
        (9, ('1' || repeat('0', 110000))::numeric, NULL), (10, ('1e-16383')::numeric, NULL)";
    world.change(others).await;
    world.run_and_agree().await;
    assert_eq!(world.quarantine().await, [""; 0]);
}
