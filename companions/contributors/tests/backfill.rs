//! Backfills: a period's issues, all of them, once.

use chrono::{NaiveDate, TimeDelta};
use contributors::config::{day_after, first_day};
use contributors::poll::{Period, Request};

use crate::world::{World, within};

fn period(from: &str, to: &str, search: bool) -> Period {
    let names = vec!["shop".to_owned()];
    Period { from: first_day(from).unwrap(), to: day_after(to).unwrap(), repositories: names, search }
}

/// 260 issues and pull requests of five years, a few of them of one second, with comments; and another repository.
async fn history() -> World {
    let world = World::new().await;
    {
        let mut model = world.model();
        let end = model.now;
        let (shop, docs, ada) = (model.add_repository("shop"), model.add_repository("docs"), model.add_person("ada"));
        model.now = end - TimeDelta::days(5 * 365);
        for place in 0..260 {
            model.advance(if place % 10 < 3 { 0 } else { 8 * 86_400 });
            let title = format!("issue {place}");
            let number = match place % 4 {
                0 => model.open_pull_request(shop, ada, &title),
                _ => model.open_issue(shop, ada, &title),
            };
            model.comment(shop, number, ada, "well");
        }
        model.open_issue(docs, ada, "Elsewhere");
        model.now = end;
    }
    world
}

const PERIOD: &str =
    "SELECT count(*) FROM (SELECT created_at FROM issues UNION ALL SELECT created_at FROM pull_requests) AS all_of";

/// How many there are of a period.
fn count(world: &World, from: &str, to: &str) -> String {
    let day = |text: &str| text.parse::<NaiveDate>().unwrap();
    let model = world.model();
    let shop = model.repositories.values().find(|repository| repository.name == "shop").unwrap();
    let is_of = |day_of: NaiveDate| day_of >= day(from) && day_of <= day(to);
    shop.issues.values().filter(|issue| is_of(issue.created_at.date_naive())).count().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_that_is_killed_again_and_again_asks_for_nothing_twice() {
    for search in [false, true] {
        let world = history().await;
        let contributors = world.again(&[("FROM", "2026-03-01")]).await;
        let asked = Request { backfill: Some(period("2022-01", "2024-06", search)), ..world.request() };
        // Every poll ends when so much of the budget is used up.
        let mut polls = 0;
        loop {
            let mut asked = asked.clone();
            if polls > 0 {
                // It is a poll that goes on, or the command that is given again.
                asked.backfill = asked.backfill.filter(|_| polls % 2 == 0);
            }
            world.model().core.remaining = 570;
            world.model().core.reset = chrono::Utc::now().timestamp() + 3600;
            world.forget_budget().await;
            let report = contributors.poll(&asked, within(60)).await.unwrap();
            polls += 1;
            if report.left.is_empty() {
                break;
            }
            assert!(report.left.iter().any(|left| left.contains("backfill of 2022-01-01 to 2024-06-30")), "{report:?}");
            assert!(polls < 30);
        }
        assert!(polls > 2, "{polls}");
        let paid: Vec<_> = world
            .requests()
            .into_iter()
            .filter(|request| request.starts_with("200") && request.contains("timeline"))
            .collect();
        let once: std::collections::BTreeSet<_> = paid.iter().collect();
        assert_eq!(once.len(), paid.len(), "{paid:#?}");
        world.load().await;
        let of_period = format!("{PERIOD} WHERE created_at < '2024-07-01'");
        assert_eq!(world.one(&of_period).await, count(&world, "2022-01-01", "2024-06-30"));
        assert_eq!(
            world.one("SELECT count(*) FROM issues WHERE repo <> 'shop' AND created_at < '2024-07-01'").await,
            "0"
        );

        // Given again, it has nothing to do.
        world.forget_budget().await;
        world.model().core.remaining = 5000;
        contributors.poll(&asked, within(60)).await.unwrap();
        let again = world.requests();
        assert!(!again.iter().any(|request| request.contains("timeline") || request.contains("search")), "{again:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn polls_go_on_from_the_end_of_a_backfill() {
    let world = history().await;
    let polls = world.again(&[("FROM", "2026-03-01")]).await;
    let asked = Request { backfill: Some(period("2017-01", "2026-11", false)), ..world.request() };
    polls.poll(&asked, within(60)).await.unwrap();
    // Whatever changes from then on is seen, however long ago it was created, and however late the first poll is.
    {
        let mut model = world.model();
        let shop = model.repositories.values().find(|repository| repository.name == "shop").unwrap().id;
        let ada = model.person("ada").unwrap().id;
        model.advance(3600);
        model.comment(shop, 1, ada, "still so");
        model.open_issue(shop, ada, "new");
        model.advance(200 * 86_400);
    }
    polls.poll(&world.request(), within(60)).await.unwrap();
    polls.load(within(60)).await.unwrap();
    let shop = count(&world, "2017-01-01", "2026-11-30");
    assert_eq!(world.one(PERIOD).await, shop);
    assert_eq!(world.one("SELECT count(*) FROM events WHERE body = 'still so'").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_is_split_until_complete_and_retried() {
    let world = World::new().await;
    {
        let mut model = world.model();
        let (shop, ada) = (model.add_repository("shop"), model.add_person("ada"));
        let end = model.now;
        model.now = end - TimeDelta::days(100);
        for place in 0..2300 {
            // 1,400 of them on one day.
            model.advance(if (500..1900).contains(&place) { 50 } else { 3600 });
            model.open_issue(shop, ada, &format!("issue {place}"));
        }
        model.now = end;
        model.lists_incomplete = 1;
        // Only the rows are of interest here.
        model.search.limit = 1000;
        model.search.remaining = 1000;
    }
    let search = world.again(&[("FROM", "2026-03-02")]).await;
    let asked = Request { backfill: Some(period("2025-11", "2026-03", true)), ..world.request() };
    search.poll(&asked, within(120)).await.unwrap();
    search.load(within(120)).await.unwrap();
    assert_eq!(world.one("SELECT count(*) FROM issues").await, "2300");
    let requests = world.requests();
    assert!(!requests.iter().any(|request| request.starts_with("422")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_of_an_unwatched_repository_or_of_no_period_is_refused() {
    let world = history().await;
    let mut wanted = period("2024-01", "2024-02", false);
    wanted.repositories = vec!["shopp".into()];
    let asked = Request { backfill: Some(wanted), ..world.request() };
    let error = world.contributors.poll(&asked, within(60)).await.unwrap_err().to_string();
    assert!(error.contains("no repository shopp is watched, but shop, docs"), "{error}");
    for (from, to) in [("2024-05", "2024-01"), ("2030-01", "2031-01")] {
        let asked = Request { backfill: Some(period(from, to, false)), ..world.request() };
        let error = world.contributors.poll(&asked, within(60)).await.unwrap_err().to_string();
        assert!(error.contains("is no period of the past"), "{error}");
    }
}
