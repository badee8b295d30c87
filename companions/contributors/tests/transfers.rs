//! Issues that are others now, or nowhere.

use crate::world::{World, within};

/// Repositories with an issue in the first, which has a comment and a label.
async fn repositories<const N: usize>(world: &World, names: [&str; N]) -> ([u64; N], u64, u64) {
    let mut model = world.model();
    let ada = model.add_person("ada");
    let repositories = names.map(|name| model.add_repository(name));
    let number = model.open_issue(repositories[0], ada, "Lost");
    model.comment(repositories[0], number, ada, "where?");
    let bug = model.create_label(repositories[0], "bug", "d73a4a");
    model.label(repositories[0], number, ada, bug);
    (repositories, ada, number)
}

const STEPS: &str = "SELECT repo, number, new_repo, new_number, labels[1] ->> 'name' FROM transfers";

#[tokio::test(flavor = "multi_thread")]
async fn a_transferred_issue_is_the_new_one_within_one_poll() {
    let world = World::new().await;
    let ([shop, docs], ada, number) = repositories(&world, ["shop", "docs"]).await;
    let opened = world.model().now;
    world.sync().await;
    world.model().advance(3600);
    world.model().transfer(shop, number, ada, docs);
    world.after(60).await;
    world.agree().await;
    assert_eq!(world.rows(STEPS).await, ["shop|1|docs|1|bug"]);
    assert_eq!(
        world.one("SELECT count(*) FROM event_polls JOIN issues USING (id)").await,
        world.one("SELECT count(*) FROM event_polls").await
    );
    // An answer counts from when it was asked first.
    let since = world.one("SELECT opened_at FROM issues").await;
    assert_eq!(since, opened.format("%Y-%m-%d %H:%M:%S+00").to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_of_a_transferred_issue_has_each_step() {
    let world = World::new().await;
    let ([shop, docs, site], ada, number) = repositories(&world, ["shop", "docs", "site"]).await;
    world.sync().await;
    let second = world.model().transfer(shop, number, ada, docs);
    world.after(60).await;
    world.model().transfer(docs, second, ada, site);
    world.after(60).await;
    world.agree().await;
    assert_eq!(world.rows(STEPS).await, ["docs|1|site|1|-", "shop|1|docs|1|bug"]);

    // Both between two polls: the one in the middle was never seen.
    let again = world.model().open_issue(shop, ada, "Twice");
    world.after(60).await;
    let second = world.model().transfer(shop, again, ada, docs);
    world.model().transfer(docs, second, ada, site);
    world.after(60).await;
    world.agree().await;
    assert_eq!(world.rows(STEPS).await, ["docs|1|site|1|-", "shop|1|docs|1|bug", "shop|2|site|2|-"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issue_that_arrives_with_an_old_time_is_not_passed_over() {
    let world = World::new().await;
    let ([shop, docs], ada, number) = repositories(&world, ["shop", "docs"]).await;
    world.model().open_issue(docs, ada, "Newer");
    world.sync().await;
    world.model().advance(86_400);
    world.model().open_issue(docs, ada, "Newest");
    world.sync().await;
    {
        let mut model = world.model();
        let updated = model.issue(shop, number).updated_at;
        let new = model.transfer(shop, number, ada, docs);
        model.issue_mut(docs, new).updated_at = updated;
    }
    world.after(86_400).await;
    world.after(600).await;
    world.agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_issues_of_one_second_by_one_bot_are_no_transfer() {
    let world = World::new().await;
    let ([shop, docs], ada, number) = repositories(&world, ["shop", "docs"]).await;
    let bot = world.model().add_bot("dependabot[bot]");
    world.model().open_issue(shop, bot, "Update");
    world.model().open_issue(docs, bot, "Update");
    world.sync().await;
    world.model().transfer(shop, number, ada, docs);
    world.after(60).await;
    world.agree().await;
    assert_eq!(world.one("SELECT count(*) FROM transfers").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issue_that_goes_where_nobody_watches_stays_as_gone() {
    let world = World::with(&[("REPOSITORIES", "*,!private-*")]).await;
    let ([shop, elsewhere], ada, number) = repositories(&world, ["shop", "private-notes"]).await;
    let hidden = world.model().open_issue(shop, ada, "Hidden");
    world.sync().await;
    world.model().transfer(shop, number, ada, elsewhere);
    // And one whose new place this token may not read.
    let vault = world.model().add_repository("private-vault");
    world.model().transfer(shop, hidden, ada, vault);
    world.model().repository_mut(vault).is_unreadable = true;
    world.after(24 * 3600).await;
    assert_eq!(world.rows(STEPS).await, ["shop|1|private-notes|1|bug"]);
    let gone = "SELECT title, deleted_at IS NOT NULL FROM issues";
    assert_eq!(world.rows(gone).await, ["Hidden|t", "Lost|t"]);
    assert_eq!(world.one("SELECT count(*) FROM events WHERE event = 'commented'").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_cannot_be_seen_does_not_take_its_issues_with_it() {
    let world = World::new().await;
    let ([shop, _docs], ada, number) = repositories(&world, ["shop", "docs"]).await;
    world.sync().await;
    // The list has it, and everything in it is not found.
    let path = world.path("shop");
    {
        let mut model = world.model();
        model.advance(7 * 3600);
        model.comment(shop, number, ada, "hello?");
        let missing = contributors::services::Instead::status(&path, 100, 404, "Not Found");
        model.instead.push(missing);
    }
    let report = world.contributors.poll(&world.request(), within(60)).await.unwrap();
    assert!(report.failed[0].contains("acme/shop"), "{:?}", report.failed);
    assert_eq!(report.polled, 1);
    world.load().await;
    assert_eq!(world.one("SELECT count(*) FROM issues WHERE deleted_at IS NOT NULL").await, "0");
    world.model().instead.clear();
    world.after(60).await;
    world.agree().await;
}
