//! Of two loads at once, one applies all batches and the other yields. A load that is killed leaves no lock behind.

use std::sync::Arc;
use std::time::{Duration, Instant};

use blackwater_local::s3::S3;
use blackwater_tests::{BUCKETS, Finished, KillSwitch, Proxy, World};
use serde_json::{Value, json};
use tokio::process::Child;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS dim_t (id integer PRIMARY KEY, v text, deleted_at timestamptz);
    CREATE TABLE IF NOT EXISTS fact_t (record bigserial PRIMARY KEY, valid_from timestamptz NOT NULL, valid_to timestamptz, id integer NOT NULL, v text, deleted_at timestamptz);
    CREATE UNIQUE INDEX IF NOT EXISTS fact_t_open ON fact_t (id) WHERE valid_to IS NULL;
    CREATE OR REPLACE FUNCTION take_time() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
    DROP TRIGGER IF EXISTS take_time ON fact_t;
    CREATE TRIGGER take_time BEFORE INSERT ON fact_t FOR EACH ROW EXECUTE FUNCTION take_time();";

/// A world in which the first batch is applied, and the second and third are in the processed log.
async fn world() -> World {
    let model = "SELECT id, v FROM t";
    let pack = [("schema.sql", SCHEMA), ("dim_t.sql", model), ("fact_t.sql", model)];
    let source = "CREATE TABLE t (id integer PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'one')";
    let world = World::of(source, &pack, &[("dim_t", model), ("current_fact_t", model)]).await;
    world.run_and_agree().await;
    for batch in [2, 3] {
        world.change(&format!("INSERT INTO t VALUES ({batch}, 'new'); UPDATE t SET v = v || '!' WHERE id = 1")).await;
        world.blackwater(&["extract"]).await.report();
    }
    world.blackwater(&["transform"]).await.report();
    world
}

/// Every batch is applied exactly once.
async fn all_is_applied_once(world: &World) {
    world.agree().await;
    let state = "SELECT concat_ws(' ', (SELECT string_agg(batch::text, ',' ORDER BY batch) FROM blackwater.ledger),
        (SELECT string_agg(v, ',' ORDER BY record) FROM fact_t WHERE id = 1), (SELECT count(*) FROM fact_t))";
    assert_eq!(world.in_warehouse(state).await, Some("1,2,3 one,one!,one!! 5".into()));
}

/// The sessions of loads.
const LOADS: &str = "FROM pg_stat_activity WHERE application_name = 'blackwater load'";

/// Starts a load, and waits until one of its statements has this wait event.
async fn load_that_waits(world: &World, wait_event: &str) -> Child {
    let load = world.spawn(&["load"]);
    world
        .wait_until(&format!("SELECT count(*) > 0 {LOADS} AND state = 'active' AND wait_event = '{wait_event}'"))
        .await;
    load
}

/// Runs a command that must not wait for another load.
async fn at_once(world: &World, command: &str) -> Finished {
    let began = Instant::now();
    let ended = tokio::time::timeout(Duration::from_secs(10), world.blackwater(&[command])).await;
    ended.unwrap_or_else(|_| panic!("{command} still waits after {:?}", began.elapsed()))
}

async fn report(load: Child) -> Value {
    let output = load.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_beside_another_yields_and_the_other_applies_all() {
    let world = world().await;
    let other = world.warehouse_session().await;
    other.batch_execute("BEGIN; LOCK TABLE dim_t").await.unwrap();
    let first = load_that_waits(&world, "relation").await;
    let second = at_once(&world, "load").await;
    assert_eq!(second.stderr, "");
    let second = second.report();
    assert_eq!((&second["yielded"], &second["applied"], &second["batches"]), (&json!(true), &json!(1), &json!([])));
    let run = at_once(&world, "run").await;
    assert_eq!(run.stderr, "");
    assert_eq!(run.report()["load"]["yielded"], true);
    other.batch_execute("COMMIT").await.unwrap();
    let first = report(first).await;
    assert_eq!((&first["yielded"], &first["applied"]), (&json!(false), &json!(3)), "{first}");
    all_is_applied_once(&world).await;
    let alone = world.blackwater(&["load"]).await.report();
    assert_eq!((&alone["yielded"], &alone["applied"]), (&json!(false), &json!(3)), "{alone}");
}

/// The SQL that makes the trigger sleep for the row of batch 2.
fn sleep_for(seconds: u32) -> String {
    format!(
        "CREATE OR REPLACE FUNCTION take_time() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN IF NEW.id = 2 THEN PERFORM pg_sleep({seconds}); END IF; RETURN NEW; END $$"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_beside_one_in_a_long_statement_yields_too() {
    let world = world().await;
    world.in_star(&sleep_for(5)).await;
    let first = load_that_waits(&world, "PgSleep").await;
    for _ in 0..2 {
        assert_eq!(at_once(&world, "load").await.report()["yielded"], true);
    }
    // Commands that apply nothing do not wait either.
    at_once(&world, "status").await.report();
    at_once(&world, "check").await;
    assert_eq!(report(first).await["applied"], 3);
    all_is_applied_once(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_is_killed_in_a_long_statement_locks_nobody_out() {
    let world = world().await;
    world.in_star(&sleep_for(60)).await;
    let mut load = load_that_waits(&world, "PgSleep").await;
    load.kill().await.unwrap();
    let killed = Instant::now();
    world.wait_until(&format!("SELECT count(*) = 0 {LOADS}")).await;
    // Three seconds, and as many for a busy machine.
    assert!(killed.elapsed() < Duration::from_secs(6), "its session was there for {:?}", killed.elapsed());
    world.in_star(&sleep_for(0)).await;
    let next = world.blackwater(&["load"]).await.report();
    assert_eq!((&next["yielded"], &next["applied"]), (&json!(false), &json!(3)), "{next}");
    all_is_applied_once(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_for_load_while_another_load_works_is_no_error() {
    let world = world().await;
    let server = S3::start(&world.buckets(), &BUCKETS).await.unwrap();
    let function = world.function("load", &server, Duration::from_secs(60)).await;

    let other = world.warehouse_session().await;
    other.batch_execute("BEGIN; LOCK TABLE dim_t").await.unwrap();
    let first = load_that_waits(&world, "relation").await;
    let event = json!({ "Records": [{ "eventSource": "aws:s3", "s3": { "bucket": { "name": BUCKETS[1] } } }] });
    let answer = tokio::time::timeout(Duration::from_secs(10), function.invoke(event.clone())).await;
    let answer = answer.expect("it waits for the other load").unwrap();
    assert_eq!((&answer["yielded"], &answer["applied"]), (&json!(true), &json!(1)), "{answer}");
    other.batch_execute("COMMIT").await.unwrap();
    assert_eq!(report(first).await["applied"], 3);
    all_is_applied_once(&world).await;
    // The same event arrives again.
    let answer = function.invoke(event).await.unwrap();
    assert_eq!((&answer["yielded"], &answer["applied"]), (&json!(false), &json!(3)), "{answer}");
}

/// A load whose messages to the warehouse can be held back.
struct Load<'a> {
    world: &'a World,
    switch: Arc<KillSwitch>,
    url: String,
}

impl<'a> Load<'a> {
    async fn of(world: &'a World) -> Self {
        let switch = Arc::new(KillSwitch::default());
        let proxy = Proxy::start(world.server.port(), Arc::clone(&switch)).await;
        let (port, behind) = (world.server.port().to_string(), proxy.address.port().to_string());
        Self { world, switch, url: world.server.url("warehouse").replace(&port, &behind) }
    }

    /// Starts it, and waits until its `at`th message is held back or it is over.
    async fn start(&self, at: u64) -> Child {
        self.switch.pause_at(at);
        let mut load = self.world.command(&["load"]).env("BLACKWATER_WAREHOUSE__URL", &self.url).spawn().unwrap();
        tokio::select! {
            _ = load.wait() => {}
            () = self.switch.wait() => {}
        }
        load
    }

    async fn go_on(&self, load: Child) -> Value {
        self.switch.go_on();
        tokio::time::timeout(Duration::from_secs(30), report(load)).await.expect("it hangs")
    }
}

/// One load stands still at any moment, a batch comes, another load stands still at any moment, the first goes on and ends, then the
/// other: every batch is applied, by these two.
#[tokio::test(flavor = "multi_thread")]
async fn two_loads_at_any_two_moments_leave_no_batch_and_apply_none_twice() {
    let world = world().await;
    let (one, other) = (Load::of(&world).await, Load::of(&world).await);
    // The messages of a load that applies two batches.
    let all = {
        let load = one.start(u64::MAX).await;
        assert_eq!(one.go_on(load).await["applied"], 3);
        one.switch.passed()
    };
    let (mut batches, mut yields, mut version) = (3, 0, 2);
    let mut add_batch = async || {
        version += 1;
        world
            .change(&format!("UPDATE t SET v = '{version}' WHERE id = 1; INSERT INTO t VALUES ({version} + 1, 'new')"))
            .await;
        world.blackwater(&["extract"]).await.report();
        world.blackwater(&["transform"]).await.report();
    };
    const PAIRS: u64 = 48;
    for pair in 0..PAIRS {
        // Each moment of the one with another of the other, all along the way of both.
        let (first, second) = (1 + pair * all / PAIRS, 1 + (pair * 29 % PAIRS) * all / PAIRS);
        add_batch().await;
        let waiting = one.start(first).await;
        add_batch().await;
        let beside = other.start(second).await;
        let reports = [one.go_on(waiting).await, other.go_on(beside).await];
        batches += 2;
        yields += reports.iter().filter(|report| report["yielded"] == true).count();
        let ledger = world.in_warehouse("SELECT concat_ws(' ', max(batch), count(*)) FROM blackwater.ledger").await;
        assert_eq!(ledger, Some(format!("{batches} {batches}")), "at {first} and {second} of {all}: {reports:?}");
        world.agree().await;
    }
    let versions = "SELECT count(*) - count(DISTINCT v) FROM fact_t WHERE id = 1";
    assert_eq!(world.in_warehouse(versions).await, Some("0".into()), "a version came twice");
    assert!(yields > 5, "hardly ever did one meet the other: {yields}");
}
