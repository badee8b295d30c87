//! A source past its first 2^32 transactions: 32 bits of a row's xmin may be those of another.

use blackwater_tests::World;
use tokio_postgres::NoTls;

#[tokio::test(flavor = "multi_thread")]
async fn an_old_row_is_not_taken_for_one_of_a_transaction_that_is_open_now() {
    let mut world = World::totesys().await;
    // Frozen, the rows keep the xmin of the transaction that filled the tables.
    let old: i64 = world.source.query_one("SELECT min(xmin::text::bigint) FROM design", &[]).await.unwrap().get(0);
    for database in ["source", "warehouse", "postgres", "template1"] {
        let (client, connection) = tokio_postgres::connect(&world.server.url(database), NoTls).await.unwrap();
        tokio::spawn(connection);
        client.batch_execute("VACUUM FREEZE").await.unwrap();
    }
    let next = old - 8;
    let prepare = format!(
        "pg_ctl -D $D -w -l ../copy.log start >&2 && pg_ctl -D $D -w stop >&2 && pg_resetwal -e 1 -x {next} -D $D >&2"
    );
    let (source, url) = world.copy_of_server("", &prepare).await;
    world.source = source;
    world.configure(&url, &world.server.url("warehouse"), "directory = \"buckets\"");
    world.run_and_agree().await;

    // Transactions go by, until one has the 32 bits of the old rows.
    let (writer, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    loop {
        writer.batch_execute("BEGIN").await.unwrap();
        let id: i64 = writer.query_one("SELECT pg_current_xact_id()::text::bigint", &[]).await.unwrap().get(0);
        assert!(id <= (1 << 32) + old, "{id} is past 2^32 + {old}");
        if id == (1 << 32) + old {
            break;
        }
        world.run_and_agree().await;
        writer.batch_execute("UPDATE design SET file_name = 'new' WHERE design_id = 1; COMMIT").await.unwrap();
        world.run_and_agree().await;
    }
    writer.batch_execute("UPDATE address SET city = 'late' WHERE address_id = 1").await.unwrap();
    world.run_and_agree().await;
    writer.batch_execute("COMMIT").await.unwrap();
    world.run_and_agree().await;
    assert_eq!(world.in_warehouse("SELECT city FROM dim_location WHERE location_id = 1").await, Some("late".into()));
    assert_eq!(world.run().await["extract"]["outcome"], "nothing");
}
