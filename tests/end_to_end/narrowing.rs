//! A value arrives as the source has it, or its row is set aside, or the pair of types is refused by name: Postgres narrows
//! some values without a word, and none of those pairs is let through.

use std::collections::{BTreeMap, BTreeSet};

use blackwater_tests::World;
use serde_json::Value;
use tokio_postgres::{Client, SimpleQueryMessage};

/// The type of a column, how it is printed, and how the type that a model returns for it is.
struct Refused {
    source: &'static str,
    returned: &'static str,
    column: &'static str,
    printed: &'static str,
    /// A value that the column would change.
    value: &'static str,
}

const REFUSED: [Refused; 8] = [
    Refused {
        source: "bigint",
        returned: "bigint",
        column: "double precision",
        printed: "double precision",
        value: "9007199254740993",
    },
    Refused { source: "numeric", returned: "numeric", column: "real", printed: "real", value: "0.123456789" },
    Refused { source: "bigint", returned: "bigint", column: "money", printed: "money", value: "1" },
    Refused { source: "numeric(10,3)", returned: "numeric(10,3)", column: "money", printed: "money", value: "1.005" },
    Refused { source: "interval", returned: "interval", column: "interval(0)", printed: "interval(0)", value: "1.5 s" },
    Refused {
        source: "varchar(70)",
        returned: "text",
        column: "name",
        printed: "name",
        value: "seventy characters seventy characters seventy characters seventy chara",
    },
    Refused {
        source: "bigint",
        returned: "bigint",
        column: "ratio",
        printed: "public.ratio",
        value: "9007199254740993",
    },
    Refused {
        source: "numeric[]",
        returned: "numeric[]",
        column: "double precision[]",
        printed: "double precision[]",
        value: "{0.12345678901234567890}",
    },
];

/// What a check finds wrong.
async fn findings(world: &World) -> Vec<String> {
    let finished = world.blackwater(&["check"]).await;
    assert_eq!(finished.code, Some(3), "{finished:?}");
    let report: Value = serde_json::from_str(&finished.stdout).unwrap();
    let errors = report["findings"].as_array().unwrap().iter().filter(|finding| finding["level"] == "error");
    let line = |finding: &Value| {
        [&finding["what"], &finding["remedy"]].map(|part| part.as_str().unwrap_or_default().to_owned()).join(". ")
    };
    errors.map(line).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_would_change_a_value_is_refused_by_name() {
    let own =
        "DO $$ BEGIN IF to_regtype('ratio') IS NULL THEN CREATE DOMAIN ratio AS double precision; END IF; END $$;";
    let (mut source, mut schema) = (String::new(), String::from(own));
    let (mut pack, mut expected) = (Vec::new(), Vec::new());
    for (number, Refused { source: kind, returned, column, printed, value }) in REFUSED.iter().enumerate() {
        source.push_str(&format!(
            "CREATE TABLE t{number} (id integer PRIMARY KEY, v{number} {kind}); INSERT INTO t{number} VALUES (1, '{value}');"
        ));
        schema.push_str(&format!(
            "CREATE TABLE IF NOT EXISTS dim_{number} (id integer PRIMARY KEY, v{number} {column});"
        ));
        pack.push((format!("dim_{number}.sql"), format!("SELECT id, v{number} FROM t{number}")));
        expected.push(format!("the model returns v{number} as {returned}, and the column is {printed}"));
    }
    pack.push(("schema.sql".into(), schema.clone()));
    let files: Vec<_> = pack.iter().map(|(file, text)| (file.as_str(), text.as_str())).collect();
    let world = World::of(&source, &files, &[]).await;
    let remedy = "CAST it in the model, or give the column that type in schema.sql";
    let found = findings(&world).await;
    let line = |(number, what): (usize, &String)| format!("dim_{number}: {what}. {remedy}");
    assert_eq!(found, expected.iter().enumerate().map(line).collect::<Vec<_>>());
    // Load names them one by one, and writes nothing before all are put right.
    for (number, what) in expected.iter().enumerate() {
        world.blackwater(&["run"]).await.says(1, &[&format!("dim_{number}"), what, remedy]);
        assert_eq!(world.in_warehouse("SELECT to_regclass('dim_0')").await, None);
        schema = schema.replace(&format!("v{number} {}", REFUSED[number].column), &format!("v{number} text"));
        std::fs::write(world.pack().join("schema.sql"), &schema).unwrap();
    }
    world.run().await;
    for (number, Refused { value, .. }) in REFUSED.iter().enumerate() {
        let arrived = world.in_warehouse(&format!("SELECT v{number} FROM dim_{number}")).await.unwrap();
        let is_interval = value.ends_with(" s");
        assert_eq!(arrived, if is_interval { "00:00:01.5" } else { value });
    }
}

/// What models return: the type of a source column `v`, an expression over it, and awkward values of it.
const MODELS: [(&str, &str, &[&str]); 51] = [
    ("smallint", "v", &["-32768", "32767", "0"]),
    ("integer", "v", &["-2147483648", "2147483647", "1000000"]),
    ("bigint", "v", &["-9223372036854775808", "9007199254740993", "0"]),
    ("numeric", "v", &["1.0", "1.00", "-0.000", "NaN", "Infinity", "1e-30", "12345678901234567890.5", "1.005"]),
    ("numeric(10,2)", "v", &["99999999.99", "-0.01", "5"]),
    ("numeric(45,3)", "v", &["123456789012345678901234567890123456789012.001", "NaN", "7"]),
    ("numeric(5,-2)", "v", &["1234500"]),
    ("real", "v", &["0.1", "1e-30", "-0", "NaN", "-Infinity", "3.4028235e38", "1000000", "16777216", "1e-45"]),
    (
        "double precision",
        "v",
        &["0.1", "1e-300", "-0", "NaN", "Infinity", "0.30000000000000004", "1e15", "123456789.123"],
    ),
    ("boolean", "v", &["true", "false"]),
    (
        "text",
        "v",
        &[
            "",
            "x",
            " a ",
            "1",
            "1.50",
            "2024-01-02",
            "02/03/2024",
            "10.0.0.1/32",
            "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
            "{\"a\":1, \"a\":2}",
            "08002b010203",
            "t ",
            "yes",
            "so so",
            "1.5 s",
            "9007199254740993",
            "seventy characters seventy characters seventy characters seventy chara",
        ],
    ),
    ("char(5)", "v", &["", "ab", "a  b"]),
    ("bytea", "v", &["", "\\x00ff0a0d2c22"]),
    ("date", "v", &["0001-01-01", "9999-12-31"]),
    ("time", "v", &["24:00:00", "23:59:59.999999", "12:30:00.5"]),
    ("time with time zone", "v", &["12:00:00.5+05:30", "24:00:00-15"]),
    ("timestamp", "v", &["0001-01-01 00:00:00", "9999-12-31 23:59:59.999999", "2024-02-29 12:00:00.1"]),
    ("timestamp(0)", "v", &["2024-02-29 12:00:01"]),
    (
        "timestamptz",
        "v",
        &["2024-02-29 23:59:59.123456+05:45", "infinity", "-infinity", "0044-03-15 12:00 BC", "12024-01-01"],
    ),
    ("timestamptz(3)", "v", &["2024-02-29 23:59:59.123+05:45"]),
    ("interval", "v", &["1 year -2 mons +3 days -04:05:06.789", "0", "1.5 s"]),
    ("interval(0)", "v", &["1.5 s"]),
    ("interval hour to minute", "v", &["01:02:03"]),
    ("uuid", "v", &["A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"]),
    ("json", "v", &["{\"b\": 1.0,  \"a\":[1 ,2], \"a\": null}", "1e2"]),
    ("jsonb", "v", &["{\"b\": 1.00, \"a\": \"\\u0041\\n\"}", "null"]),
    ("xml", "v", &["<a/>", "<?xml version=\"1.0\" standalone=\"yes\"?><a/>"]),
    ("inet", "v", &["10.0.0.1/8", "::1", "10.0.0.1"]),
    ("cidr", "v", &["10.0.0.0/8", "10.1.2.3/32"]),
    ("macaddr", "v", &["08:00:2b:01:02:03"]),
    ("bit(5)", "v", &["10101"]),
    ("bit varying", "v", &["", "1"]),
    ("point", "v", &["(1.5,-0)"]),
    ("int4range", "v", &["[1,5)", "empty"]),
    ("tstzrange", "v", &["[2024-01-01 00:00:00+01,infinity)"]),
    ("tsvector", "v", &["'fat':2 'rat':3"]),
    ("oid", "v", &["4294967295"]),
    ("xid8", "v", &["18446744073709551615"]),
    ("mood", "v", &["so so", "x"]),
    ("grade", "v", &["7", "9007199254740993"]),
    ("integer[]", "v", &["{}", "{1,NULL,2147483647}", "{{1,2},{3,4}}", "[0:1]={7,8}"]),
    ("bigint[]", "v", &["{9007199254740993}"]),
    ("numeric[]", "v", &["{1.0,1.00,1.005,NaN}", "{5}"]),
    (
        "text[]",
        "v",
        &["{}", "{\"a,b\",\"say \\\"x\\\"\",NULL,\"NULL\",\"\"}", "{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11}"],
    ),
    ("real[]", "v", &["{0.1,1000000}"]),
    ("timestamp[]", "v", &["{\"2024-02-29 23:00:00.1\",infinity}"]),
    ("interval[]", "v", &["{1.5 s}"]),
    ("json[]", "v", &["{\"{\\\"a\\\":1, \\\"a\\\":2}\"}"]),
    ("timestamp", "CAST(v AS TIME)", &["2024-02-29 12:00:00.5", "2024-02-29 23:59:59.999999"]),
    ("text", "CAST(v AS NUMERIC(12,3))", &["1.5", "-0.001"]),
    ("text", "NULL", &["x"]),
];

/// The types of columns.
const COLUMNS: [&str; 61] = [
    "smallint",
    "integer",
    "bigint",
    "numeric",
    "numeric(10,2)",
    "numeric(5,0)",
    "real",
    "double precision",
    "money",
    "boolean",
    "text",
    "varchar(60)",
    "char(60)",
    "\"char\"",
    "name",
    "bytea",
    "date",
    "time",
    "time(3)",
    "time with time zone",
    "timestamp",
    "timestamp(3)",
    "timestamptz",
    "timestamptz(0)",
    "interval",
    "interval(0)",
    "interval hour to minute",
    "uuid",
    "json",
    "jsonb",
    "xml",
    "inet",
    "cidr",
    "macaddr",
    "macaddr8",
    "bit(5)",
    "bit varying",
    "bit varying(3)",
    "point",
    "circle",
    "int4range",
    "int8range",
    "tstzrange",
    "tsvector",
    "pg_lsn",
    "oid",
    "xid8",
    "mood",
    "grade",
    "price",
    "integer[]",
    "bigint[]",
    "numeric(10,2)[]",
    "price[]",
    "text[]",
    "varchar(5)[]",
    "double precision[]",
    "uuid[]",
    "interval(0)[]",
    "jsonb[]",
    "timestamp(3)[]",
];

/// A value may not fit these, or not be one of theirs: such a row is set aside, and would take other columns with it.
const MAY_REFUSE: [&str; 15] = [
    "smallint", "integer", "bigint", "uuid", "json", "xml", "inet", "cidr", "macaddr", "macaddr8", "mood", "grade",
    "price", "price[]", "uuid[]",
];

/// So many star tables that the servers of tests have locks for them.
const TABLES_AT_ONCE: usize = 100;

/// Whether the warehouse's text says the same as the source's: the same text, or of a type that prints one value in
/// several ways the same value, compared in a type that loses nothing.
const SAME: &str = "
    CREATE FUNCTION same(source text, star text, kind text) RETURNS boolean LANGUAGE plpgsql AS $$
    DECLARE same boolean;
    BEGIN
        IF source IS NOT DISTINCT FROM star THEN
            RETURN true;
        ELSIF kind ~ '^(numeric|price|double)' THEN
            EXECUTE format('SELECT %L::numeric%s = %L::numeric%2$s', source, substr(kind, strpos(kind || '[', '[')), star)
            INTO same;
        ELSIF kind ~ '^(uuid|inet|cidr|macaddr)' THEN
            EXECUTE format('SELECT %L::%s = %L::%2$s', source, kind, star) INTO same;
        ELSE
            same := kind ~ '^char' AND rtrim(source, ' ') = rtrim(star, ' ');
        END IF;
        RETURN coalesce(same, false);
    END $$";

/// The rows of a query with two columns, as Postgres prints them.
async fn printed(client: &Client, query: &str) -> BTreeMap<String, Option<String>> {
    let rows = client.simple_query(query).await.unwrap().into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some((row.get(0).unwrap().to_owned(), row.get(1).map(str::to_owned))),
        _ => None,
    });
    rows.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_of_types_that_is_let_through_changes_no_value() {
    let mut source = String::from("CREATE TYPE mood AS ENUM ('so so', 'x'); CREATE DOMAIN grade AS bigint;");
    for (number, (kind, _, values)) in MODELS.iter().enumerate() {
        source.push_str(&format!("CREATE TABLE s{number} (id integer PRIMARY KEY, v {kind});"));
        for (id, value) in values.iter().enumerate() {
            source.push_str(&format!("INSERT INTO s{number} VALUES ({id}, '{}');", value.replace('\'', "''")));
        }
    }
    // All pairs at once, for a check to say which it refuses.
    let own = "DO $$ BEGIN IF to_regtype('mood') IS NULL THEN CREATE TYPE mood AS ENUM ('so so'); CREATE DOMAIN grade AS smallint;
        CREATE DOMAIN price AS numeric(6,2); END IF; END $$;";
    let columns: Vec<_> = COLUMNS.iter().enumerate().map(|(number, kind)| format!("c{number} {kind}")).collect();
    let mut schema = String::from(own);
    let mut pack = Vec::new();
    for (number, (_, expression, _)) in MODELS.iter().enumerate() {
        let table = format!("dim_{number}");
        schema.push_str(&format!("CREATE TABLE {table} (id integer PRIMARY KEY, {});", columns.join(", ")));
        let returned = (0..COLUMNS.len()).map(|column| format!("{expression} AS c{column}")).collect::<Vec<_>>();
        pack.push((format!("{table}.sql"), format!("SELECT id, {} FROM s{number}", returned.join(", "))));
    }
    pack.push(("schema.sql".into(), schema));
    let files: Vec<_> = pack.iter().map(|(file, text)| (file.as_str(), text.as_str())).collect();
    let world = World::of(&source, &files, &[]).await;
    let mut refused = BTreeSet::new();
    for finding in findings(&world).await {
        let (table, why) = finding.split_once(": the model returns c").unwrap_or_else(|| panic!("{finding}"));
        let model: usize = table.strip_prefix("dim_").unwrap().parse().unwrap();
        let column: usize = why.split_once(" as ").unwrap().0.parse().unwrap();
        refused.insert((model, column));
    }
    let pairs = (0..MODELS.len()).flat_map(|model| (0..COLUMNS.len()).map(move |column| (model, column)));
    let accepted: Vec<_> = pairs.filter(|pair| !refused.contains(pair)).collect();

    assert!(accepted.len() > 300, "{} pairs: a list that got too short finds nothing", accepted.len());

    world.warehouse.batch_execute(SAME).await.unwrap();
    let (mut arrived, mut changed) = (0, Vec::new());
    // What is left, in a star table for each model and one for each pair in which a value may be refused.
    let mut tables: BTreeMap<(usize, Option<usize>), Vec<usize>> = BTreeMap::new();
    for (model, column) in accepted {
        let kind = COLUMNS[column];
        let is_alone = MAY_REFUSE.contains(&kind) || kind.contains('(') && !kind.ends_with("(60)");
        tables.entry((model, is_alone.then_some(column))).or_default().push(column);
    }
    let tables: Vec<_> = tables.into_iter().map(|((model, _), columns)| (model, columns)).collect();
    for (round, tables) in tables.chunks(TABLES_AT_ONCE).enumerate() {
        std::fs::remove_dir_all(world.pack()).unwrap();
        std::fs::create_dir(world.pack()).unwrap();
        let mut schema = String::from(own);
        for (number, (model, columns)) in tables.iter().enumerate() {
            let (table, expression) = (format!("dim_{round}_{number}"), MODELS[*model].1);
            let columns_of: Vec<_> = columns.iter().map(|column| format!("c{column} {}", COLUMNS[*column])).collect();
            let columns_of = columns_of.join(", ");
            schema.push_str(&format!("CREATE TABLE IF NOT EXISTS {table} (id integer PRIMARY KEY, {columns_of});"));
            let returned: Vec<_> = columns.iter().map(|column| format!("{expression} AS c{column}")).collect();
            let query = format!("SELECT id, {} FROM s{model}", returned.join(", "));
            std::fs::write(world.pack().join(format!("{table}.sql")), query).unwrap();
        }
        std::fs::write(world.pack().join("schema.sql"), schema).unwrap();
        world.run().await;
        let set_aside = world.quarantine().await;
        for (number, (model, columns)) in tables.iter().enumerate() {
            let (table, (from, expression, _)) = (format!("dim_{round}_{number}"), MODELS[*model]);
            let source = printed(&world.source, &format!("SELECT id, {expression} AS v FROM s{model}")).await;
            for column in columns {
                let kind = COLUMNS[*column];
                let star = printed(&world.warehouse, &format!("SELECT id, c{column} FROM {table}")).await;
                for (id, value) in &source {
                    let Some(found) = star.get(id) else {
                        let entry = format!("{table} id={id}: ");
                        let is_held = set_aside.iter().any(|found| found.starts_with(&entry));
                        assert!(is_held, "{from} into {kind}: {value:?} is gone");
                        continue;
                    };
                    let same = "SELECT same($1, $2, $3)";
                    if !world.warehouse.query_one(same, &[value, found, &kind]).await.unwrap().get::<_, bool>(0) {
                        changed.push(format!("{from} into {kind}: {value:?} arrived as {found:?}"));
                    }
                    arrived += 1;
                }
            }
        }
        assert_eq!(world.blackwater(&["verify"]).await.code, Some(0));
    }
    assert!(arrived > 600, "{arrived} values");
    assert_eq!(changed, [""; 0]);
}
