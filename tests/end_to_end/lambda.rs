//! The three functions, run as Lambda runs them.

use blackwater_local::s3::S3;
use blackwater_tests::{BUCKETS, Function, World};
use serde_json::{Value, json};

/// What EventBridge Scheduler sends.
fn scheduled() -> Value {
    json!({ "version": "0", "id": "1", "detail-type": "Scheduled Event", "source": "aws.scheduler", "detail": {} })
}

/// What S3 sends when an object is there: its key is URL-encoded.
fn created(bucket: &str, key: &str) -> Value {
    let object = json!({ "key": key.replace('=', "%3D"), "size": 1, "eTag": "0", "sequencer": "0" });
    json!({ "Records": [{ "eventSource": "aws:s3", "eventName": "ObjectCreated:Put",
                          "s3": { "bucket": { "name": bucket }, "object": object } }] })
}

/// A function, with further variables.
async fn function(world: &World, s3: &S3, stage: &str, source: &[(&str, &str)]) -> Function {
    let (pack, endpoint) = (world.pack().display().to_string(), s3.endpoint());
    let warehouse = world.server.url("warehouse");
    let mut variables = vec![
        ("AWS_ENDPOINT_URL_S3", endpoint.as_str()),
        ("BLACKWATER_NAME", "test"),
        ("BLACKWATER_MODEL", pack.as_str()),
        ("BLACKWATER_INGESTION__BUCKET", BUCKETS[0]),
        ("BLACKWATER_PROCESSED__BUCKET", BUCKETS[1]),
        ("BLACKWATER_WAREHOUSE__URL", warehouse.as_str()),
    ];
    variables.extend(source);
    Function::start(&format!("blackwater-{stage}"), &variables).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_in_and_rows_in_the_warehouse_out() {
    let world = World::totesys().await;
    let s3 = S3::start(&world.buckets(), &BUCKETS).await.unwrap();
    let source = world.server.url("source");
    let source = [("BLACKWATER_SOURCE__URL", source.as_str())];
    let mut extract = function(&world, &s3, "extract", &source).await;
    let mut transform = function(&world, &s3, "transform", &source).await;
    let mut load = function(&world, &s3, "load", &source).await;

    assert_eq!(extract.invoke(scheduled()).await.unwrap()["batch"], 1);
    // S3 asks whether the function is there; nothing has happened.
    assert_eq!(transform.invoke(json!({ "Service": "Amazon S3", "Event": "s3:TestEvent" })).await, Ok(Value::Null));
    let manifest = created(BUCKETS[0], "batches/000000000001.json");
    assert_eq!(transform.invoke(manifest.clone()).await.unwrap()["batches"][0]["batch"], 1);
    assert_eq!(load.invoke(created(BUCKETS[1], "batches/x/000000000001.json")).await.unwrap()["applied"], 1);
    world.agree().await;

    // An event that comes twice; one that never comes, and the sweep; a function that is asked for a full read.
    assert_eq!(transform.invoke(manifest).await.unwrap()["batches"], json!([]));
    for file in ["two", "three"] {
        let change = format!("UPDATE design SET file_name = '{file}' WHERE design_id = 3");
        world.source.batch_execute(&change).await.unwrap();
        extract.invoke(scheduled()).await.unwrap();
    }
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let full = extract.invoke(json!({ "full": ["staff"] })).await.unwrap();
    assert!(full["lag_seconds"].as_u64().unwrap() >= 1, "batches 2 and 3 are not applied: {full}");
    assert_eq!((&full["batch"], &full["tables"].as_array().unwrap().len()), (&json!(4), &11));
    assert_eq!(transform.invoke(scheduled()).await.unwrap()["batches"].as_array().unwrap().len(), 3);
    assert_eq!(load.invoke(scheduled()).await.unwrap()["applied"], 4);
    world.agree().await;
    assert_eq!(extract.invoke(scheduled()).await.unwrap()["lag_seconds"], 0);
    let (watched, lines): (Vec<_>, Vec<_>) = load.end().await.into_iter().partition(|line| line["_aws"].is_object());
    assert!(lines.iter().all(|line| line["span"]["request_id"].is_string()), "{lines:?}");
    let metrics = &watched[1]["_aws"]["CloudWatchMetrics"][0];
    assert_eq!((&metrics["Namespace"], &metrics["Dimensions"]), (&json!("Blackwater"), &json!([["pipeline"]])));
    let named =
        metrics["Metrics"].as_array().unwrap().iter().map(|metric| &watched[1][metric["Name"].as_str().unwrap()]);
    assert_eq!(named.collect::<Vec<_>>(), [&json!(2), &json!(0)], "rows written, rows in quarantine");
    assert_eq!(watched[1]["pipeline"], "test");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_fails_says_so_and_goes_on_with_the_next_event() {
    let world = World::totesys().await;
    let s3 = S3::start(&world.buckets(), &BUCKETS).await.unwrap();
    let source = world.server.url("source");
    let source = [("BLACKWATER_SOURCE__URL", source.as_str())];
    let mut extract = function(&world, &s3, "extract", &source).await;
    world.source.batch_execute("ALTER TABLE design RENAME TO designs").await.unwrap();
    let error = extract.invoke(scheduled()).await.unwrap_err();
    assert_eq!(error["errorType"], "NoTable");
    assert!(error["errorMessage"].as_str().unwrap().contains("the source has no table design"), "{error}");
    world.source.batch_execute("ALTER TABLE designs RENAME TO design").await.unwrap();
    assert_eq!(extract.invoke(scheduled()).await.unwrap()["batch"], 1);
    let lines = extract.end().await;
    let errors: Vec<_> = lines.iter().filter(|line| line["level"] == "ERROR").collect();
    assert!(errors.len() == 1 && errors[0]["error_type"] == "NoTable", "an alarm counts these lines: {errors:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_secret_is_fetched_again_when_the_login_fails() {
    let world = World::totesys().await;
    let s3 = S3::start(&world.buckets(), &BUCKETS).await.unwrap();
    let hba = world.server.folder().join("data/pg_hba.conf");
    std::fs::write(hba, "host all reader 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n").unwrap();
    world.source.batch_execute("CREATE ROLE reader LOGIN SUPERUSER PASSWORD 'first'").await.unwrap();
    world.source.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let source = world.server.url("source").replace("postgres@", "");
    let variables = [("BLACKWATER_SOURCE__SECRET", "test/source"), ("BLACKWATER_SOURCE__URL", source.as_str())];
    let mut extract = function(&world, &s3, "extract", &variables).await;
    let put = |extract: &Function, password: &str| {
        let secret = json!({ "username": "reader", "password": password }).to_string();
        extract.secrets.lock().unwrap().insert("test/source".into(), secret);
    };
    // The function started before there was a secret.
    let error = extract.invoke(scheduled()).await.unwrap_err();
    assert_eq!(error["errorType"], "Config.Setting", "{error}");
    put(&extract, "first");
    assert_eq!(extract.invoke(scheduled()).await.unwrap()["batch"], 1);
    world.source.batch_execute("ALTER ROLE reader PASSWORD 's3cret'").await.unwrap();
    let sessions = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'reader'";
    world.source.batch_execute(sessions).await.unwrap();
    world.source.batch_execute("UPDATE design SET file_name = 'two' WHERE design_id = 3").await.unwrap();
    // Rotated at the database, and not yet in the secret.
    let error = extract.invoke(scheduled()).await.unwrap_err();
    assert_eq!(error["errorType"], "Postgres.Connect", "{error}");
    put(&extract, "s3cret");
    assert_eq!(extract.invoke(scheduled()).await.unwrap()["batch"], 2);
    let lines = extract.end().await;
    assert!(!format!("{lines:?}").contains("s3cret"), "{lines:?}");
}
