//! Which joins are taken, and lookup tables to which more happens than changes of their rows.

use blackwater_tests::World;

/// A source with a table `a` that joins `b`, whose column has this type.
async fn joined(of_a: &str, of_b: &str, more: &str) -> World {
    let source = format!(
        "CREATE EXTENSION IF NOT EXISTS citext; CREATE DOMAIN code AS char(3); CREATE TYPE size AS ENUM ('s', 'l');
         CREATE COLLATION lazy (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         CREATE TABLE b (k {of_b} {more}, name text); CREATE TABLE a (id integer PRIMARY KEY, b {of_a});"
    );
    let pack = [
        ("schema.sql", "CREATE TABLE IF NOT EXISTS dim_a (id integer PRIMARY KEY, name text)"),
        ("dim_a.sql", "SELECT a.id, b.name FROM a\nLEFT JOIN b ON b.k = a.b"),
    ];
    World::of(&source, &pack, &[("dim_a", "SELECT id, (SELECT name FROM b WHERE b.k = a.b) AS name FROM a")]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_takes_columns_in_which_equal_values_print_alike() {
    for (of_a, of_b, values) in [
        ("smallint", "bigint", ["1", "2"]),
        ("varchar(9)", "text", ["", "NULL"]),
        ("code", "code", ["x", "x y"]),
        ("size", "size", ["s", "l"]),
        ("bytea", "bytea", ["\\x00", "\\x"]),
        ("numeric(9,2)", "numeric(9,2)", ["1.5", "NaN"]),
        ("timestamptz", "timestamptz", ["2024-01-01 00:00:00+05", "infinity"]),
        ("date", "date", ["infinity", "0044-03-15 BC"]),
    ] {
        let world = joined(of_a, of_b, "UNIQUE").await;
        let [one, two] = values;
        let rows = format!(
            "INSERT INTO b VALUES ('{one}', 'one'), ('{two}', 'two'), (NULL, 'null');
             INSERT INTO a VALUES (1, '{one}'), (2, '{two}'), (3, NULL)"
        );
        world.source.batch_execute(&rows).await.unwrap_or_else(|error| panic!("{of_a}: {error:?}"));
        world.run_and_agree().await;
        world.source.batch_execute("UPDATE b SET name = 'two again' WHERE name = 'two'").await.unwrap();
        world.run_and_agree().await;
    }
    for (of_a, of_b) in [
        ("text", "char(3)"),
        ("char(2)", "char(3)"),
        ("numeric", "numeric"),
        ("numeric(9,2)", "numeric(9,1)"),
        ("real", "real"),
        ("interval", "interval"),
        ("jsonb", "jsonb"),
        ("date", "timestamp"),
        ("uuid", "text"),
        ("citext", "citext"),
        ("text COLLATE \"lazy\"", "text COLLATE \"lazy\""),
    ] {
        let world = joined(of_a, of_b, "PRIMARY KEY").await;
        world.blackwater(&["run"]).await.says(1, &["dim_a.sql:2: b.k is ", "and a.b is ", "columns of the same type"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_that_could_find_several_rows_is_refused() {
    for prepare in [
        "SELECT 1",
        "CREATE INDEX ON b (k)",
        "CREATE UNIQUE INDEX ON b (k) WHERE name IS NOT NULL",
        "CREATE UNIQUE INDEX ON b (k, name)",
        "CREATE UNIQUE INDEX ON b ((k + 1))",
        // A key does not hold in the tables that inherit.
        "ALTER TABLE b ADD PRIMARY KEY (k); CREATE TABLE more_b () INHERITS (b)",
    ] {
        let world = joined("integer", "integer", "").await;
        world.source.batch_execute(prepare).await.unwrap();
        let run = world.blackwater(&["run"]).await;
        run.says(1, &["dim_a.sql:2: (k) is no primary or unique key of b"]);
        assert_eq!(world.objects().len(), 0, "{prepare}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lookup_table_whose_heaps_change_is_followed() {
    let source = "
        CREATE TABLE town (id integer PRIMARY KEY, country integer, name text) PARTITION BY RANGE (id);
        CREATE TABLE town_1 PARTITION OF town FOR VALUES FROM (0) TO (100);
        CREATE TABLE country (id integer PRIMARY KEY, name text);
        CREATE TABLE person (id integer PRIMARY KEY, town integer) PARTITION BY HASH (id);
        CREATE TABLE person_1 PARTITION OF person FOR VALUES WITH (MODULUS 2, REMAINDER 0);
        CREATE TABLE person_2 PARTITION OF person FOR VALUES WITH (MODULUS 2, REMAINDER 1);
        CREATE TABLE town_2 (id integer PRIMARY KEY, country integer, name text);
        CREATE TABLE other_country (id integer PRIMARY KEY, name text);
        INSERT INTO country VALUES (1, 'one'), (2, 'two');
        INSERT INTO other_country VALUES (1, 'other one'), (3, 'other three');
        INSERT INTO town VALUES (1, 1, 'a'), (2, 2, 'b'), (3, 3, 'c');
        INSERT INTO town_2 VALUES (100, 1, 'x'), (101, 2, 'y');
        INSERT INTO person SELECT n, CASE n % 6 WHEN 4 THEN 100 WHEN 5 THEN 101 ELSE n % 6 END FROM generate_series(1, 30) n";
    let pack = [
        ("schema.sql", "CREATE TABLE IF NOT EXISTS dim_person (id integer PRIMARY KEY, town text, country text)"),
        (
            "dim_person.sql",
            "SELECT person.id, town.name AS town, country.name AS country
             FROM person LEFT JOIN town ON town.id = person.town LEFT JOIN country ON country.id = town.country",
        ),
    ];
    let oracle = "SELECT id, (SELECT name FROM town WHERE id = p.town) AS town,
                         (SELECT c.name FROM country c, town t WHERE t.id = p.town AND c.id = t.country) AS country FROM person p";
    let world = World::of(source, &pack, &[("dim_person", oracle)]).await;
    world.run_and_agree().await;
    for step in [
        // The rows of a partition were written long before it was attached.
        "ALTER TABLE town ATTACH PARTITION town_2 FOR VALUES FROM (100) TO (200)",
        "ALTER TABLE town DETACH PARTITION town_2",
        "ALTER TABLE country RENAME TO old; ALTER TABLE other_country RENAME TO country",
        "UPDATE town SET id = id + 50 WHERE id = 1",
        "UPDATE country SET name = 'again' WHERE id = 3",
        "TRUNCATE country",
        "INSERT INTO country SELECT * FROM old",
        // As many rows before and after.
        "BEGIN; DELETE FROM country WHERE id = 1; INSERT INTO country VALUES (7, 'seven'); COMMIT",
        "VACUUM FULL country",
        "ALTER TABLE town_2 ALTER COLUMN name SET DEFAULT 'z'; ALTER TABLE town ATTACH PARTITION town_2 FOR VALUES FROM (100) TO (200)",
        "TRUNCATE town",
    ] {
        world.source.batch_execute(step).await.unwrap_or_else(|error| panic!("{step}: {error:?}"));
        println!("{step}");
        world.run_and_agree().await;
        assert_eq!(world.run().await["extract"]["outcome"], "nothing", "{step}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lookup_row_of_a_transaction_that_is_open_across_runs_arrives_when_it_commits() {
    let world = joined("integer", "integer", "PRIMARY KEY").await;
    world
        .source
        .batch_execute("INSERT INTO b VALUES (1, 'one'), (2, 'two'); INSERT INTO a VALUES (1, 1), (2, 2), (3, 3)")
        .await
        .unwrap();
    world.run_and_agree().await;
    let writer = world.session().await;
    writer
        .batch_execute("BEGIN; UPDATE b SET name = 'late' WHERE k = 1; SAVEPOINT s; INSERT INTO b VALUES (3, 'three')")
        .await
        .unwrap();
    world.source.batch_execute("UPDATE b SET name = 'early' WHERE k = 2").await.unwrap();
    world.run_and_agree().await;
    assert_eq!(world.run().await["extract"]["outcome"], "nothing", "what was delivered comes again");
    let deleter = world.session().await;
    deleter.batch_execute("BEGIN; DELETE FROM b WHERE k = 2").await.unwrap();
    writer.batch_execute("COMMIT").await.unwrap();
    world.run_and_agree().await;
    deleter.batch_execute("COMMIT").await.unwrap();
    world.run_and_agree().await;
}
