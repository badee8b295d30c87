//! The connections to both databases: who is refused and why, what an error says, and what becomes of a statement whose
//! program is gone.

use std::error::Error as _;
use std::time::{Duration, Instant};

use blackwater_shared::postgres::{Doing, Error, Kind};
use blackwater_tests::World;
use tokio_postgres::NoTls;

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_have_too_few_connections_is_told_so() {
    let world = World::totesys().await;
    let role = "CREATE ROLE reader LOGIN CONNECTION LIMIT 2; GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader";
    world.source.batch_execute(role).await.unwrap();
    let (source, warehouse) = (world.server.url("source"), world.server.url("warehouse"));
    let source = source.replace("postgres@", "reader@");
    world.configure(&source, &warehouse, "directory = \"buckets\"");
    let refused = world.blackwater(&["run"]).await;
    refused.says(1, &["too many connections for role", "CONNECTION LIMIT", "limits.connections"]);
    assert!(!refused.stdout.contains("source.url"), "{refused:?}");
    world.configure(&source, &warehouse, "directory = \"buckets\"\n[limits]\nconnections = 2");
    world.run_and_agree().await;
}

/// An error, those that caused it, and how they are printed for debugging.
fn everything(error: &Error) -> String {
    let mut text = format!("{error} {error:?}");
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(&format!(" {inner} {inner:?}"));
        cause = inner.source();
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_a_statement_has_a_kind_and_prints_no_value_of_a_row() {
    let world = World::of(
        "CREATE TABLE person (email text UNIQUE, age integer CHECK (age < 200), day date NOT NULL);
         INSERT INTO person VALUES ('s3cret', 1, now())",
        &[],
        &[],
    )
    .await;
    let (client, connection) = tokio_postgres::connect(&world.server.url("source"), NoTls).await.unwrap();
    tokio::spawn(connection);
    for (sql, kind, words) in [
        ("INSERT INTO person VALUES ('s3cret', 1, now())", Kind::Data, "person_email_key"),
        ("INSERT INTO person VALUES ('s3cret', 200, now())", Kind::Data, "person_age_check"),
        ("INSERT INTO person VALUES ('s3cret', 1, NULL)", Kind::Data, "\"day\""),
        ("INSERT INTO person VALUES ('x', 's3cret', now())", Kind::Data, "type integer: \"…\" (22P02)"),
        ("SELECT age / 0 FROM person WHERE email = 's3cret'", Kind::Data, "division by zero"),
        ("DO $$ BEGIN EXECUTE 'SELECT ''s3cret''::date'; END $$", Kind::Data, "type date: \"…\" (22007)"),
        ("DO $$ BEGIN EXECUTE 'SELECT pg_sleep(''s3cret'')'; END $$", Kind::Data, "double precision"),
        ("SELECT 1 FROM nowhere", Kind::Statement, "relation \"nowhere\" does not exist (42P01)"),
        ("SET statement_timeout = 1; SELECT pg_sleep(1)", Kind::Cancelled, "statement timeout"),
    ] {
        let error = client.batch_execute(sql).await.doing("try it").unwrap_err();
        let text = everything(&error);
        assert_eq!(error.kind, kind, "{text}");
        assert!(text.contains("cannot try it: ") && text.contains(words), "{text}");
        assert!(!text.contains("s3cret"), "{text}");
        assert!(error.db().is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_in_transaction_mode_is_named() {
    let world = World::of("", &[], &[]).await;
    let (client, connection) = tokio_postgres::connect(&world.server.url("source"), NoTls).await.unwrap();
    tokio::spawn(connection);
    // As if the server's session were another one now.
    let statement = client.prepare("SELECT 1").await.unwrap();
    client.batch_execute("DEALLOCATE ALL").await.unwrap();
    let error = client.query(&statement, &[]).await.doing("try it").unwrap_err();
    assert_eq!(error.kind, Kind::Pooler);
    assert!(error.to_string().contains("pooler in transaction mode"), "{error}");
}

/// Ends the program with a signal while a session of it is busy, and sees the session go.
async fn goes_with_its_program(world: &World, stage: &str, busy: &str) {
    let session = format!("application_name = 'blackwater {stage}'");
    let count = async |which: &str| {
        let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE {session} AND {which}");
        world.in_warehouse(&sql).await.unwrap().parse::<u32>().unwrap()
    };
    for signal in ["KILL", "INT", "TERM"] {
        let mut program = world.spawn(&[stage]);
        let begun = Instant::now();
        while count(busy).await == 0 {
            assert!(begun.elapsed() < Duration::from_secs(30), "no session of {stage} is busy");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let id = program.id().unwrap().to_string();
        assert!(std::process::Command::new("kill").args(["-s", signal, &id]).status().unwrap().success());
        let ended = tokio::time::timeout(Duration::from_secs(3), program.wait()).await;
        ended.unwrap_or_else(|_| panic!("{stage} goes on after SIG{signal}")).unwrap();
        let gone = Instant::now();
        while count("true").await > 0 {
            assert!(gone.elapsed() < Duration::from_secs(3), "after SIG{signal} a session of {stage} is still there");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_program_had_the_server_do_ends() {
    let world = World::totesys().await;
    world.run().await;
    // Extract waits five seconds for a lock.
    let other = world.session().await;
    other.batch_execute("BEGIN; LOCK TABLE design").await.unwrap();
    goes_with_its_program(&world, "extract", "wait_event_type = 'Lock'").await;
    other.batch_execute("COMMIT").await.unwrap();

    world.source.batch_execute("UPDATE design SET file_name = 'slow'").await.unwrap();
    world.blackwater(&["extract"]).await.report();
    world.blackwater(&["transform"]).await.report();
    let slow =
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(30); RETURN NEW; END';
                CREATE TRIGGER slow BEFORE INSERT OR UPDATE ON dim_design FOR EACH ROW EXECUTE FUNCTION slow()";
    world.warehouse.batch_execute(slow).await.unwrap();
    goes_with_its_program(&world, "load", "wait_event = 'PgSleep'").await;
    world.warehouse.batch_execute("DROP TRIGGER slow ON dim_design").await.unwrap();
    world.run_and_agree().await;
}
