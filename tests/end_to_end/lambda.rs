//! The stack that Terraform describes, with the three functions as Lambda runs them.

use std::time::{Duration, Instant};

use blackwater_tests::{Aws, World};
use serde_json::{Value, json};

async fn change(world: &World, name: &str) {
    let sql = format!("UPDATE design SET file_name = '{name}' WHERE design_id = 3");
    world.source.batch_execute(&sql).await.unwrap();
}

async fn applied(world: &World) -> Option<String> {
    let there = world.in_warehouse("SELECT to_regclass('blackwater.ledger')").await;
    there.as_ref()?;
    world.in_warehouse("SELECT max(batch) FROM blackwater.ledger").await
}

/// Nothing was asked for that the roles and the buckets' policies do not allow.
async fn nothing_denied(aws: &Aws) {
    assert_eq!(aws.command(json!(["denied"])).await, json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_s_event_in_and_rows_in_the_warehouse_out() {
    let world = World::totesys().await;
    let aws = Aws::start(&world, &[]).await;
    assert_eq!(aws.schedule("extract").await.unwrap()[0]["batch"], 1);
    assert_eq!(aws.answers("transform", 1).await[0].as_ref().unwrap()["batches"][0]["batch"], 1);
    assert_eq!(aws.answers("load", 1).await[0].as_ref().unwrap()["applied"], 1);
    world.agree().await;

    // Nothing has changed; S3 asks whether the function is there; a table is asked for in full.
    assert_eq!(aws.schedule("extract").await.unwrap()[0]["outcome"], "nothing");
    assert_eq!(aws.invoke("transform", json!({ "Event": "s3:TestEvent" })).await, Ok(Value::Null));
    let full = aws.invoke("extract", json!({ "full": ["staff"] })).await.unwrap();
    assert_eq!((&full[0]["batch"], &full[0]["tables"].as_array().unwrap().len()), (&json!(2), &11));
    aws.answers("load", 2).await;
    world.agree().await;
    nothing_denied(&aws).await;

    let (watched, lines): (Vec<_>, Vec<_>) =
        aws.end("load").await.into_iter().partition(|line| line["_aws"].is_object());
    assert!(lines.iter().all(|line| line["span"]["request_id"].is_string()), "{lines:?}");
    let metrics = &watched[1]["_aws"]["CloudWatchMetrics"][0];
    assert_eq!((&metrics["Namespace"], &metrics["Dimensions"]), (&json!("Blackwater"), &json!([["pipeline"]])));
    assert_eq!((&watched[1]["RowsWritten"], &watched[1]["RowsInQuarantine"]), (&json!(0), &json!(0)));
    assert_eq!(watched[1]["pipeline"], "shop-test");
    let lines = aws.end("extract").await;
    let idle: Vec<_> = lines.iter().filter(|line| line["message"] == "done").collect();
    assert_eq!(idle.len(), 3, "one line for each run: {lines:?}");
}

/// The names of the metrics that a stage prints are those that alarms and the dashboard ask for.
#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_that_are_watched_are_those_that_are_printed() {
    let world = World::totesys().await;
    let aws = Aws::start(&world, &[]).await;
    aws.schedule("extract").await.unwrap();
    aws.answers("load", 1).await;
    let mut printed = Vec::new();
    for stage in ["extract", "transform", "load"] {
        for line in aws.end(stage).await {
            let metrics = line["_aws"]["CloudWatchMetrics"][0]["Metrics"].as_array().cloned().unwrap_or_default();
            printed.extend(metrics.iter().map(|metric| metric["Name"].as_str().unwrap().to_owned()));
        }
    }
    // The page says what it costs: what is printed, and the errors.
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/deploy.md")).unwrap();
    let number = |kind: &str| aws.stack[kind].as_object().unwrap().len();
    for line in [
        format!("| metrics of its own | {} × 0.30 |", printed.len() + 1),
        format!("| alarms | {} × 0.10 |", number("aws_cloudwatch_metric_alarm")),
        format!("| secrets | {} × 0.40 |", number("aws_secretsmanager_secret")),
    ] {
        assert!(page.contains(&line), "docs/deploy.md does not say {line}");
    }
    for (name, alarm) in aws.stack["aws_cloudwatch_metric_alarm"].as_object().unwrap() {
        let metric = alarm["metric_name"].as_str().unwrap().to_owned();
        let is_own = alarm["namespace"] == "Blackwater" && metric != "shop-test-errors";
        assert!(!is_own || printed.contains(&metric), "alarm {name} watches {metric}, which nobody prints");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_fails_twice_is_tried_again_and_one_that_goes_on_failing_is_swept() {
    let world = World::totesys().await;
    let aws = Aws::start(&world, &[]).await;
    aws.schedule("extract").await.unwrap();
    aws.answers("load", 1).await;

    let hide = "ALTER TABLE dim_design RENAME TO hidden";
    world.warehouse.batch_execute(hide).await.unwrap();
    change(&world, "two").await;
    aws.schedule("extract").await.unwrap();
    let answers = aws.answers("load", 3).await;
    assert!(answers[1].is_err() && answers[2].is_err(), "{answers:?}");
    world.warehouse.batch_execute("ALTER TABLE hidden RENAME TO dim_design").await.unwrap();
    assert_eq!(aws.answers("load", 4).await[3].as_ref().unwrap()["applied"], 2);
    world.agree().await;
    assert_eq!(aws.command(json!(["failed", "load"])).await, json!([]));

    world.warehouse.batch_execute(hide).await.unwrap();
    change(&world, "three").await;
    aws.schedule("extract").await.unwrap();
    assert!(aws.answers("load", 7).await[4..].iter().all(Result::is_err));
    let mut failed = json!([]);
    while failed == json!([]) {
        failed = aws.command(json!(["failed", "load"])).await;
    }
    assert!(failed[0].as_str().unwrap().contains("000000000003.json"), "{failed}");
    world.warehouse.batch_execute("ALTER TABLE hidden RENAME TO dim_design").await.unwrap();
    assert_eq!(aws.schedule("load").await.unwrap()["applied"], 3);
    world.agree().await;

    // The alarm counts the lines that this pattern finds: one for each failure.
    let pattern = aws.stack["aws_cloudwatch_log_metric_filter"]["load"]["pattern"].as_str().unwrap().to_owned();
    let condition = pattern.trim_start_matches("{ $.").trim_end_matches(" }").split_once(" = ").unwrap();
    let (field, value) = (condition.0, serde_json::from_str::<Value>(condition.1).unwrap());
    let found: Vec<_> = aws.end("load").await.into_iter().filter(|line| line[field] == value).collect();
    assert_eq!(found.len(), 5, "{found:?}");
    assert!(found.iter().all(|line| line["error_type"] == "Table"), "{found:?}");
    let told = found[0]["message"].as_str().unwrap();
    assert!(told.contains("dim_design") && told.contains("batch 2"), "{told}");
    nothing_denied(&aws).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_never_comes_is_made_up_for_by_the_sweep() {
    let world = World::totesys().await;
    let aws = Aws::start(&world, &[]).await;
    aws.lose(Some("transform"));
    aws.schedule("extract").await.unwrap();
    change(&world, "two").await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let second = aws.schedule("extract").await.unwrap();
    assert!(second[0]["lag_seconds"].as_u64().unwrap() >= 1, "batch 1 is not applied: {second}");
    assert_eq!(aws.events("transform", 2).await.len(), 2);
    assert_eq!(applied(&world).await, None);
    aws.lose(Some("load"));
    assert_eq!(aws.schedule("transform").await.unwrap()["batches"].as_array().unwrap().len(), 2);
    assert_eq!(aws.schedule("load").await.unwrap()["applied"], 2);
    world.agree().await;
    assert_eq!(aws.schedule("extract").await.unwrap()[0]["lag_seconds"], 0);
    nothing_denied(&aws).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_come_twice_and_out_of_order_do_no_harm() {
    let world = World::totesys().await;
    let aws = Aws::start(&world, &[]).await;
    aws.lose(Some("transform"));
    for name in ["one", "two", "three", "four"] {
        change(&world, name).await;
        aws.schedule("extract").await.unwrap();
    }
    let events = aws.events("transform", 4).await;
    aws.lose(Some("load"));
    for place in [2, 2, 0, 3, 1] {
        aws.invoke("transform", events[place].clone()).await.unwrap();
    }
    aws.lose(None);
    let events = aws.events("load", 4).await;
    assert_eq!(events.len(), 4);
    let (first, second) = tokio::join!(aws.invoke("load", events[3].clone()), aws.invoke("load", events[0].clone()));
    assert_eq!((&first.unwrap()["applied"], &second.unwrap()["applied"]), (&json!(4), &json!(4)));
    aws.invoke("load", events[1].clone()).await.unwrap();
    world.agree().await;
    assert_eq!(world.in_warehouse("SELECT count(*) FROM blackwater.ledger").await, Some("4".into()));
    nothing_denied(&aws).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_fails_says_so_and_goes_on_with_the_next_event() {
    let world = World::totesys().await;
    let aws = Aws::start(&world, &[]).await;
    world.source.batch_execute("ALTER TABLE design RENAME TO designs").await.unwrap();
    let error = aws.schedule("extract").await.unwrap_err();
    assert_eq!(error["errorType"], "NoTable");
    assert!(error["errorMessage"].as_str().unwrap().contains("the source has no table design"), "{error}");
    world.source.batch_execute("ALTER TABLE designs RENAME TO design").await.unwrap();
    assert_eq!(aws.schedule("extract").await.unwrap()[0]["batch"], 1);
    aws.answers("load", 1).await;
    world.agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_secret_is_fetched_again_when_the_login_fails() {
    let world = World::totesys().await;
    let hba = world.server.folder().join("data/pg_hba.conf");
    std::fs::write(hba, "host all reader 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n").unwrap();
    world.source.batch_execute("CREATE ROLE reader LOGIN SUPERUSER PASSWORD 'first'").await.unwrap();
    world.source.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let source = world.server.url("source").replace("postgres@", "");
    let aws = Aws::start_as(&world, json!({}), &[("BLACKWATER_SOURCE__URL", &source)]).await;
    // The functions started before anybody had filled the secrets.
    let error = aws.schedule("extract").await.unwrap_err();
    assert_eq!(error["errorType"], "Config.Setting", "{error}");
    let put = async |password: &str| {
        aws.command(json!(["secret", "source", { "username": "reader", "password": password }])).await;
    };
    put("first").await;
    assert_eq!(aws.schedule("extract").await.unwrap()[0]["batch"], 1);
    world.source.batch_execute("ALTER ROLE reader PASSWORD 's3cret'").await.unwrap();
    let sessions = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'reader'";
    world.source.batch_execute(sessions).await.unwrap();
    change(&world, "two").await;
    // Rotated at the database, and not yet in the secret.
    let error = aws.schedule("extract").await.unwrap_err();
    assert_eq!(error["errorType"], "Postgres.Login", "{error}");
    put("s3cret").await;
    assert_eq!(aws.schedule("extract").await.unwrap()[0]["batch"], 2);
    let lines = aws.end("extract").await;
    assert!(!format!("{lines:?}").contains("s3cret"), "{lines:?}");
}

/// Some 120 bytes of sales a row.
const SALES: &str = "INSERT INTO sales_order (created_at, last_updated, design_id, staff_id, counterparty_id, units_sold, unit_price,
        currency_id, agreed_delivery_date, agreed_payment_date, agreed_delivery_location_id)
    SELECT at, at, 1 + n % 20, 1 + n % 20, 1 + n % 20, 1001 + n % 90000, 2 + (n % 200) * 0.01, 1 + n % 3,
           to_char(at + INTERVAL '3 days', 'YYYY-MM-DD'), to_char(at + INTERVAL '2 days', 'YYYY-MM-DD'), 1 + n % 20
    FROM (SELECT n, TIMESTAMP '2022-11-03 14:20:52.186' + n * INTERVAL '5 min' AS at FROM generate_series(1, $ROWS) n) t";

#[tokio::test(flavor = "multi_thread")]
async fn a_run_ends_before_its_deadline_and_the_next_goes_on() {
    let world = World::totesys().await;
    let aws = Aws::start(&world, &[("BLACKWATER_LIMITS__BATCH_BYTES", "1MB")]).await;
    aws.lose(Some("transform"));
    let extract = async |seconds| {
        let timeout = Duration::from_secs(seconds);
        aws.limit("extract", timeout);
        let began = Instant::now();
        let reports = aws.schedule("extract").await.unwrap();
        assert!(began.elapsed() < timeout, "Lambda would have ended it");
        let reports = reports.as_array().unwrap();
        (reports.len(), reports.last().unwrap()["more"] == true)
    };
    // More rows from run to run, until one is left with some of them: a fast machine takes many in its time.
    let (mut batches, mut more, mut rows) = (0, false, 50_000);
    while !more {
        world.source.batch_execute(&SALES.replace("$ROWS", &rows.to_string())).await.unwrap();
        let made;
        (made, more) = extract(4).await;
        batches += made;
        rows *= 2;
    }
    // Time enough: all the others.
    let (made, more) = extract(240).await;
    assert!(!more, "with all the time it needs, a run leaves nothing");
    batches += made;
    assert!(batches > 5, "{batches} batches");
    aws.events("transform", batches).await;
    aws.lose(Some("load"));
    for stage in ["transform", "load"] {
        let timeout = Duration::from_secs(4);
        aws.limit(stage, timeout);
        let mut done = 0;
        while done < batches {
            let began = Instant::now();
            let report = aws.schedule(stage).await.unwrap();
            assert!(began.elapsed() < timeout, "Lambda would have ended {stage}");
            let made = report["batches"].as_array().unwrap().len();
            assert!(made > 0, "{stage} does not go on: {report}");
            done += made;
        }
    }
    world.agree().await;

    // Without time for anything it says so, and does no harm.
    change(&world, "late").await;
    aws.limit("extract", Duration::from_millis(1));
    let error = aws.schedule("extract").await.unwrap_err();
    assert_eq!(error["errorType"], "Late", "{error}");
    aws.limit("extract", Duration::from_secs(60));
    assert_eq!(aws.schedule("extract").await.unwrap()[0]["outcome"], "batch");
    nothing_denied(&aws).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_takes_too_long_is_begun_again_smaller() {
    let world = World::totesys().await;
    world.source.batch_execute(&SALES.replace("$ROWS", "200000")).await.unwrap();
    let aws = Aws::start(&world, &[("BLACKWATER_LIMITS__BATCH_BYTES", "64MB")]).await;
    aws.lose(Some("transform"));
    aws.limit("extract", Duration::from_secs(30));
    let run = aws.schedule("extract");
    // The source stands still in the middle of a table, until half of the time is over.
    let still = async {
        let copying = "SELECT pid FROM pg_stat_activity WHERE application_name = 'blackwater extract' AND state = 'active' AND query LIKE 'COPY%FROM \"public\".\"sales_order\"%'";
        let pid: i32 = loop {
            if let Some(row) = world.source.query_opt(copying, &[]).await.unwrap() {
                break row.get(0);
            }
        };
        let signal = async |name| {
            let sql = format!("COPY (SELECT 1) TO PROGRAM 'cat; kill -{name} {pid}'");
            world.source.batch_execute(&sql).await.unwrap();
        };
        signal("STOP").await;
        tokio::time::sleep(Duration::from_secs(16)).await;
        signal("CONT").await;
    };
    let (reports, ()) = tokio::join!(run, still);
    let reports = reports.unwrap();
    assert_eq!((&reports[0]["outcome"], &reports[0]["more"]), (&json!("batch"), &json!(true)), "{reports}");
    assert_eq!(reports[0]["batch"], 1);
    let lines = aws.end("extract").await;
    assert!(
        lines.iter().any(|line| line["message"].as_str().unwrap_or_default().contains("trying a smaller one")),
        "{lines:?}"
    );
    assert!(lines.iter().all(|line| line["level"] != "ERROR"), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_no_run_has_time_for_is_applied_in_parts() {
    let world = World::totesys().await;
    let aws = Aws::start(&world, &[]).await;
    aws.schedule("extract").await.unwrap();
    aws.answers("load", 1).await;
    // Each row takes its time, and one is refused.
    let slow = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            PERFORM pg_sleep(0.002);
            IF NEW.units_sold = 77777 THEN RAISE EXCEPTION 'no such number'; END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER slow BEFORE INSERT ON fact_sales_order FOR EACH ROW EXECUTE FUNCTION slow()";
    world.warehouse.batch_execute(slow).await.unwrap();
    world.source.batch_execute(&SALES.replace("$ROWS", "3000")).await.unwrap();
    change(&world, "two").await;
    let first: i32 =
        world.source.query_one("SELECT max(sales_order_id) - 2999 FROM sales_order", &[]).await.unwrap().get(0);
    let refused = format!("UPDATE sales_order SET units_sold = 77777 WHERE sales_order_id = {}", first + 1800);
    world.source.batch_execute(&refused).await.unwrap();
    aws.lose(Some("load"));
    aws.schedule("extract").await.unwrap();
    aws.answers("transform", 2).await;

    let timeout = Duration::from_secs(4);
    aws.limit("load", timeout);
    let (mut late, mut held) = (0, Vec::new());
    loop {
        let began = Instant::now();
        let done = aws.schedule("load").await;
        assert!(began.elapsed() < timeout, "Lambda would have ended it");
        let rows = world.in_warehouse("SELECT count(*) FROM fact_sales_order").await.unwrap();
        held.push(rows.parse::<u64>().unwrap());
        match done {
            Ok(report) if report["applied"] == 2 => break,
            Ok(report) => assert_eq!(report["more"], true, "{report}"),
            Err(error) => {
                assert_eq!(error["errorType"], "Late", "{error}");
                late += 1;
            }
        }
        assert!(late < 10 && held.len() < 60, "it does not go on: {late} times late, {held:?}");
    }
    assert_eq!(held[..2], [held[0]; 2], "tried twice as a whole: {held:?}");
    assert!(held.windows(2).filter(|two| two[0] < two[1]).count() > 3, "not in parts: {held:?}");
    assert_eq!(world.quarantine().await, [format!("fact_sales_order sales_order_id={}: no such number", first + 1800)]);
    world.source.batch_execute(&refused.replace("77777", "7")).await.unwrap();
    world.warehouse.batch_execute("DROP TRIGGER slow ON fact_sales_order").await.unwrap();
    // All parts count as one batch.
    let counted = "SELECT rows_updated || ' ' || rows_quarantined FROM blackwater.ledger WHERE batch = 2";
    assert_eq!(world.in_warehouse(counted).await, Some("1 1".into()));
    let tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1";
    let mut rows = 0;
    for table in world.listed(tables).await.split_whitespace() {
        rows += world.in_warehouse(&format!("SELECT count(*) FROM {table}")).await.unwrap().parse::<u64>().unwrap();
    }
    assert_eq!(world.in_warehouse("SELECT sum(rows_inserted) FROM blackwater.ledger").await, Some(rows.to_string()));
    assert_eq!(world.in_warehouse("SELECT count(*) FROM blackwater.partly").await, Some("0".into()));
    aws.lose(None);
    aws.limit("load", Duration::from_secs(60));
    aws.schedule("extract").await.unwrap();
    aws.answers("load", 2).await;
    world.agree().await;
    nothing_denied(&aws).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_that_is_one_release_behind_waits_and_skips_nothing() {
    let world = World::totesys().await;
    let aws = Aws::start(&world, &[]).await;
    // What the releases before and after would have written.
    let rewrite = async |bucket: &str, key: &str, later: u64, program: &str| {
        let mut manifest = aws.command(json!(["get", bucket, key])).await;
        manifest["format"] = (manifest["format"].as_u64().unwrap() + later).into();
        manifest["program"] = program.into();
        aws.command(json!(["put", bucket, key, manifest])).await;
    };
    let (first, second) = ("batches/000000000001.json", "batches/000000000002.json");
    aws.lose(Some("transform"));
    aws.schedule("extract").await.unwrap();
    rewrite("ingestion", first, 0, "0.0.1").await;
    change(&world, "two").await;
    aws.schedule("extract").await.unwrap();
    let newest = aws.command(json!(["get", "ingestion", second])).await;
    rewrite("ingestion", second, 1, "9.9.9").await;

    // Transform meets the batch of a newer extract: it makes the one before, and no later one.
    let error = aws.schedule("transform").await.unwrap_err();
    assert_eq!(error["errorType"], "Log.Newer", "{error}");
    assert!(error["errorMessage"].as_str().unwrap().contains("Install the newer version"), "{error}");
    // Extract is the older one too now, and adds nothing to what it does not understand.
    assert_eq!(aws.schedule("extract").await.unwrap_err()["errorType"], "Log.Newer");

    // Once it is deployed it goes on.
    aws.command(json!(["put", "ingestion", second, newest])).await;
    aws.events("transform", 5).await;
    aws.lose(Some("load"));
    aws.schedule("transform").await.unwrap();
    let keys = aws.command(json!(["manifests", "processed"])).await;
    let made = keys[1].as_str().unwrap();
    let newest = aws.command(json!(["get", "processed", made])).await;
    rewrite("processed", made, 1, "9.9.9").await;
    assert_eq!(aws.schedule("load").await.unwrap_err()["errorType"], "Log.Newer");
    assert_eq!(applied(&world).await, Some("1".into()), "what it understands is applied");
    aws.command(json!(["put", "processed", made, newest])).await;
    assert_eq!(aws.schedule("load").await.unwrap()["applied"], 2);
    world.agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_quicksight_is_told_of_the_warehouse_is_true() {
    let world = World::totesys().await;
    world.run().await;
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/totesys/quicksight.json");
    let described: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    for (name, set) in described["data_sets"].as_object().unwrap() {
        let all = format!("SELECT * FROM {name}");
        let sql = set["sql"].as_str().map_or(all, |sql| sql.replace("{schema}", "\"public\""));
        let statement = world.warehouse.prepare(&sql).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        for (column, kind) in set["columns"].as_object().unwrap() {
            let found = statement.columns().iter().find(|found| found.name() == column);
            let shown = match found.unwrap_or_else(|| panic!("{name} has no {column}")).type_().name() {
                "int2" | "int4" | "int8" => "INTEGER",
                "numeric" => "DECIMAL",
                "date" | "timestamp" | "timestamptz" => "DATETIME",
                "bool" => "BIT",
                _ => "STRING",
            };
            assert_eq!(kind, shown, "{name}.{column}");
        }
    }
    for chart in described["dashboard"]["charts"].as_array().unwrap() {
        let columns = &described["data_sets"][chart["data_set"].as_str().unwrap()]["columns"];
        let kind = |field: &str| columns[chart[field].as_str().unwrap_or_default()].as_str().unwrap_or("none");
        assert!(["INTEGER", "DECIMAL"].contains(&kind("sum")), "{chart}");
        let by = match chart["kind"].as_str().unwrap() {
            "number" => "none",
            "line" => "DATETIME",
            "bar" => "STRING",
            other => panic!("there are no {other} charts"),
        };
        assert_eq!(kind("by"), by, "{chart}");
    }
    let facts = world.warehouse.query(
        "SELECT relname::text FROM pg_class WHERE relkind IN ('r', 'v') AND relnamespace = 'public'::regnamespace",
        &[],
    );
    for row in facts.await.unwrap() {
        let table: String = row.get(0);
        let is_shown = table.starts_with("dim_") || table.starts_with("current_");
        assert_eq!(described["data_sets"][&table].is_object(), is_shown, "{table}");
    }
}
