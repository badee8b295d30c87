//! GitHub's limits, a wrong token, answers that fail, and the end of a function's time.

use contributors::services::Instead;

use crate::world::{World, within};

/// Three repositories with ten issues each.
async fn busy() -> World {
    let world = World::new().await;
    {
        let mut model = world.model();
        let ada = model.add_person("ada");
        for name in ["docs", "shop", "site"] {
            let repository = model.add_repository(name);
            for place in 0..10 {
                let number = model.open_issue(repository, ada, &format!("{name} {place}"));
                model.comment(repository, number, ada, "well");
            }
        }
    }
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reserve_of_a_token_is_not_touched_and_the_next_poll_goes_on() {
    let world = busy().await;
    world.model().core.remaining = 520;
    let report = world.contributors.poll(&world.request(), within(60)).await.unwrap();
    assert!(report.ended.unwrap().contains("keeps 500 for others"));
    assert_eq!((report.remaining, report.polled), (Some(500), 1));
    assert_eq!(report.left, ["acme/shop", "acme/site"]);
    assert_eq!(world.model().core.remaining, 500);

    // Nothing is asked for below it, and what was answered is there.
    world.requests();
    let report = world.contributors.poll(&world.request(), within(60)).await.unwrap();
    assert_eq!((world.requests().len(), report.requests), (0, 0));
    world.load().await;
    assert_eq!(world.one("SELECT count(DISTINCT repo) FROM issues").await, "2");

    // The budget is whole again: it goes on where it ended, and asks for nothing twice.
    {
        let mut model = world.model();
        model.core.reset = chrono::Utc::now().timestamp() - 1;
        model.core.limit = 5000;
    }
    let state_says = world.again(&[]).await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    world.forget_budget().await;
    let report = state_says.poll(&world.request(), within(60)).await.unwrap();
    assert_eq!((report.polled, report.left.len(), report.ended), (3, 0, None));
    let requests = world.requests();
    assert!(requests[1].contains(&world.path("shop")), "{requests:#?}");
    let again = format!("200 {}/issues/1/timeline", world.path("docs"));
    assert!(!requests.iter().any(|request| request.starts_with(&again)));
    world.load().await;
    world.agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_that_are_longer_than_the_time_end_a_poll_in_order() {
    for (status, header, value) in
        [(403, "retry-after", "3600"), (429, "retry-after", "3600"), (403, "x-ratelimit-remaining", "0")]
    {
        let world = busy().await;
        let mut limit = Instead::status(
            &format!("{}/issues?", world.path("shop")),
            1,
            status,
            "You have exceeded a secondary rate limit",
        )
        .header(header, value);
        if header == "x-ratelimit-remaining" {
            limit = limit.header("x-ratelimit-reset", chrono::Utc::now().timestamp() + 3600);
        }
        world.model().instead.push(limit);
        let report = world.contributors.poll(&world.request(), within(30)).await.unwrap();
        assert_eq!((report.polled, report.ended.is_some(), report.failed), (1, true, Vec::new()), "{header}");
        world.sync().await;
        world.agree().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_limit_is_waited_for() {
    let world = busy().await;
    world.model().instead.push(Instead::status("/timeline", 1, 403, "secondary rate limit").header("retry-after", 1));
    world.sync().await;
    world.agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_token_is_reported() {
    let world = busy().await;
    world.model().token = "another".into();
    let error = world.contributors.poll(&world.request(), within(60)).await.unwrap_err().to_string();
    assert!(error.contains("GitHub rejected the token") && error.contains("github.token"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_fails_does_not_hold_up_the_others() {
    let world = busy().await;
    let blocked = Instead::status(&format!("{}/issues?", world.path("docs")), 100, 451, "Blocked");
    world.model().instead.push(blocked);
    let report = world.contributors.poll(&world.request(), within(60)).await.unwrap();
    assert_eq!(report.polled, 2);
    assert!(report.failed[0].starts_with("acme/docs: ") && report.failed[0].contains("451"), "{:?}", report.failed);
    // It is the one that was polled longest ago.
    assert!(report.oldest_poll_seconds > 365 * 24 * 3600);
    world.model().instead.clear();
    world.sync().await;
    world.agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeline_that_fails_does_not_hold_up_the_others() {
    let world = busy().await;
    let timeline = format!("{}/issues/3/timeline", world.path("docs"));
    world.model().instead.push(Instead::status(&timeline, 100, 422, "The server could not process it"));
    let report = world.contributors.poll(&world.request(), within(60)).await.unwrap();
    let failed = "acme/docs: 1 timelines cannot be read; the first is that of #3: ";
    assert!(report.failed[0].starts_with(failed) && report.polled == 3, "{report:?}");
    world.load().await;
    assert_eq!(world.one("SELECT count(*) FROM events WHERE repo = 'docs'").await, "9");
    // Nor does it hold up a backfill, or the way through all issues.
    world.model().advance(24 * 3600);
    let period = contributors::poll::Period {
        from: "2019-01-01".parse().unwrap(),
        to: "2026-01-01".parse().unwrap(),
        repositories: Vec::new(),
        search: false,
    };
    let asked = contributors::poll::Request { backfill: Some(period), ..world.request() };
    let report = world.contributors.poll(&asked, within(60)).await.unwrap();
    assert_eq!((report.failed.len(), report.left), (1, Vec::<String>::new()));
    world.contributors.poll(&world.request(), within(60)).await.unwrap();
    assert!(world.requests().iter().any(|request| request.contains("sort=created")));
    world.model().instead.clear();
    world.after(60).await;
    world.agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_without_issues_is_no_failure() {
    let world = busy().await;
    let disabled =
        Instead::status(&format!("{}/issues", world.path("docs")), 100, 410, "Issues are disabled for this repo");
    world.poll().await;
    world.model().instead.push(disabled);
    // Nor is what was read before it was disabled gone.
    for _ in 0..2 {
        world.model().advance(24 * 3600);
        assert_eq!(world.poll().await.polled, 3);
    }
    world.load().await;
    world.agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_fail_for_a_moment_are_asked_for_again() {
    let world = busy().await;
    let site = format!("{}/issues?", world.path("site"));
    {
        let mut model = world.model();
        model.instead.push(Instead::status("/timeline", 1, 502, "Bad Gateway"));
        model.instead.push(Instead::broken(&site, 1));
    }
    world.sync().await;
    world.agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_ends_before_its_time_is_over() {
    let world = busy().await;
    let mut polls = 0;
    loop {
        // Each has a part of a second, and a little more than the one before.
        let time = std::time::Duration::from_millis(60 + 20 * polls);
        let deadline = blackwater_base::deadline::Deadline::at(std::time::SystemTime::now() + time);
        let report = world.contributors.poll(&world.request(), deadline).await.unwrap();
        polls += 1;
        if report.ended.is_none() {
            break;
        }
        assert!(polls < 100, "it does not get on: {report:?}");
    }
    world.load().await;
    world.agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_organization_that_is_hidden_by_single_sign_on_is_no_empty_one() {
    let world = busy().await;
    world.sync().await;
    let partial = Instead {
        status: 200,
        body: "[]".into(),
        ..Instead::status("/orgs/acme/repos", 1, 200, "").header("x-github-sso", "partial-results; organizations=1")
    };
    world.model().instead.push(partial);
    let error = world.contributors.poll(&world.request(), within(60)).await.unwrap_err().to_string();
    assert!(error.contains("single sign-on"), "{error}");
    world.load().await;
    assert_eq!(world.one("SELECT count(*) FROM repositories WHERE gone_at IS NULL").await, "3");
}
