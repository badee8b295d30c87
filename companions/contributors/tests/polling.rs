//! What polls bring, and what they ask for.

use chrono::TimeDelta;
use contributors::services::Instead;
use serde_json::{Value, json};

use crate::world::{World, within};

#[tokio::test(flavor = "multi_thread")]
async fn an_organization_comes_into_the_tables_and_a_poll_without_news_writes_nothing() {
    let world = World::new().await;
    world.model().populate(1, 120);
    world.sync().await;
    world.agree().await;

    // The first poll after it walks over the last minute once more, and keeps the ETag.
    world.after(60).await;
    world.requests();
    let written = "SELECT max(xmin::text::bigint) FROM (SELECT xmin FROM issues UNION ALL SELECT xmin FROM events
        UNION ALL SELECT xmin FROM people UNION ALL SELECT xmin FROM labels UNION ALL SELECT xmin FROM members) AS rows";
    let before = world.one(written).await;
    let (polled, loaded) = world.after(600).await;
    assert_eq!(world.one(written).await, before);
    assert_eq!((polled.rows, polled.timelines), (0, 0));
    assert!(loaded.inserted.is_empty() && loaded.updated.is_empty(), "{loaded:?}");
    // The list of repositories; then of each the issues and the comments.
    let (paid, free): (Vec<_>, Vec<_>) = world.requests().into_iter().partition(|request| request.starts_with("200"));
    assert_eq!((paid.len(), free.len()), (1, 6), "{paid:#?} {free:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_after_the_first_three_pages_costs_one_page() {
    let world = World::new().await;
    let (shop, ada, number, first) = {
        let mut model = world.model();
        let (shop, ada) = (model.add_repository("shop"), model.add_person("ada"));
        let number = model.open_issue(shop, ada, "Long");
        let first = model.comment(shop, number, ada, "first");
        for place in 1..350 {
            model.advance(1);
            model.comment(shop, number, ada, &format!("comment {place}"));
        }
        (shop, ada, number, first)
    };
    world.sync().await;
    world.agree().await;
    assert_eq!(world.one("SELECT count(*) FROM events").await, "350");

    world.requests();
    world.model().comment(shop, number, ada, "one more");
    world.after(60).await;
    world.agree().await;
    let timeline = |requests: Vec<String>| -> Vec<String> {
        requests.into_iter().filter(|request| request.contains("/timeline")).collect()
    };
    let asked: Vec<_> = timeline(world.requests()).iter().map(|request| request[..3].to_owned()).collect();
    assert_eq!(asked, ["304", "304", "304", "200"]);

    // All pages move up: nothing is there twice, and what is gone is marked.
    world.model().delete_comment(shop, number, first);
    world.after(60).await;
    world.agree().await;
    assert_eq!(world.one(&format!("SELECT deleted_at IS NOT NULL FROM events WHERE id = {first}")).await, "t");
    assert_eq!(world.one("SELECT count(*) FROM events").await, "351");
    assert_eq!(
        world.one("SELECT string_agg(events::text, ',' ORDER BY page_no) FROM event_polls").await,
        "100,100,100,50"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_with_fewer_events_than_it_may_have_is_not_the_last_one() {
    let world = World::new().await;
    let (shop, ada, number) = {
        let mut model = world.model();
        let (shop, ada) = (model.add_repository("shop"), model.add_person("ada"));
        let number = model.open_issue(shop, ada, "Filtered");
        (shop, ada, number)
    };
    // Two pages of one event each: GitHub leaves out what the token may not see after it has made the pages.
    let path = format!("/repositories/{shop}/issues/{number}/timeline?per_page=100&page=");
    let next = format!("<{}{path}2>; rel=\"next\"", world.github.origin());
    let event = |id: u64, body: &str| {
        let at = "2026-03-02T12:00:00Z";
        json!({ "id": id, "event": "commented", "body": body, "created_at": at, "updated_at": at, "user": null })
            .to_string()
    };
    let page = |number: u32, status, body: String| {
        let answer = Instead { body, ..Instead::status(&format!("{path}{number}"), 1, status, "") };
        answer.header("etag", format!("W/\"{number}\""))
    };
    world.model().instead.push(page(1, 200, format!("[{}]", event(1, "first"))).header("link", &next));
    world.model().instead.push(page(2, 200, format!("[{}]", event(2, "second"))));
    world.sync().await;
    world.model().comment(shop, number, ada, "third");
    world.model().instead.push(page(1, 304, String::new()));
    world.model().instead.push(page(2, 200, format!("[{},{}]", event(2, "second"), event(3, "third"))));
    world.after(600).await;
    let events = "SELECT string_agg(body, ',' ORDER BY id), count(deleted_at) FROM events";
    assert_eq!(world.one(events).await, "first,second,third|0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comment_deleted_while_a_timeline_is_read_loses_no_other() {
    let world = World::new().await;
    let (shop, ada, number, first) = {
        let mut model = world.model();
        let (shop, ada) = (model.add_repository("shop"), model.add_person("ada"));
        let number = model.open_issue(shop, ada, "Long");
        let first = model.comment(shop, number, ada, "first");
        for place in 1..250 {
            model.comment(shop, number, ada, &format!("comment {place}"));
        }
        (shop, ada, number, first)
    };
    world.sync().await;
    {
        let mut model = world.model();
        model.advance(60);
        model.comment(shop, number, ada, "one more");
        // After page 2 was asked for, which was as before, page 3 begins one event later.
        model.then("timeline?per_page=100&page=2", move |model| model.delete_comment(shop, number, first));
    }
    world.sync().await;
    world.agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_with_more_than_a_search_gives_comes_whole() {
    let world = World::new().await;
    {
        let mut model = world.model();
        let (shop, ada) = (model.add_repository("shop"), model.add_person("ada"));
        for place in 0..2300 {
            // 1,400 of them on one day, and 250 of these in one second.
            model.advance(match place {
                0..900 => 86_400,
                900..1150 => 0,
                _ => 60,
            });
            model.open_issue(shop, ada, &format!("issue {place}"));
        }
        // GitHub links to further pages by a cursor now.
        model.has_cursors = true;
    }
    world.sync().await;
    world.agree().await;
    assert_eq!(world.one("SELECT count(*) FROM issues").await, "2300");
    assert!(!world.requests().iter().any(|request| request.contains("/search/")));
}

#[tokio::test(flavor = "multi_thread")]
async fn issues_that_are_updated_while_the_list_is_read_come_too() {
    let world = World::new().await;
    {
        let mut model = world.model();
        let (shop, ada) = (model.add_repository("shop"), model.add_person("ada"));
        for place in 0..350 {
            model.advance(if (100..300).contains(&place) { 0 } else { 60 });
            model.open_issue(shop, ada, &format!("issue {place}"));
        }
        // Each time the list moves up under the page that comes next.
        for page in 0..4 {
            model.then("/issues?state=all&sort=updated", move |model| {
                model.advance(1);
                for number in [1 + page * 3, 101 + page * 7, 250 + page] {
                    model.comment(shop, number, ada, "moved");
                }
            });
        }
    }
    world.sync().await;
    world.after(60).await;
    world.agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_fields_and_kinds_do_not_fail_a_page() {
    let world = World::new().await;
    {
        let mut model = world.model();
        let shop = model.add_repository("shop");
        let [ada, ghost] = ["ada", "ghost-to-be"].map(|login| model.add_person(login));
        let bug = model.create_label(shop, "bug", "d73a4a");
        let odd = model.open_issue(shop, ghost, "Odd");
        model.comment(shop, odd, ghost, "by nobody");
        model.label(shop, odd, ghost, bug);
        model.event(shop, odd, None, "added_to_project", json!({ "project_card": { "id": 9 } }));
        model.event(shop, odd, Some(ada), "never_heard_of", json!({ "id": 9_007_199_254_740_993_u64, "what": [1, 2] }));
        model.event(shop, odd, Some(ada), "closed", json!({ "id": 2_147_483_648_u64 }));
        let large = format!("{}\0{}", "x".repeat(60_000), "é\0".repeat(2_767));
        model.comment(shop, odd, ada, &large);
        let issue = model.issue_mut(shop, odd);
        issue.app = json!({ "id": 12, "slug": "app", "owner": { "login": "acme" } });
        issue.body = Some(large);
        issue.more.insert("pinned_comment".into(), json!({ "id": 5, "text": "a\0b" }));
        issue.more.insert("type".into(), json!({ "id": 3, "name": "Task" }));
        model.cross_reference(shop, odd, shop, odd);
        model.commit(shop, odd, ada, "fix");
        model.line_comment(shop, odd, ada, "here");
        model.delete_person(ghost);
    }
    world.sync().await;
    world.agree().await;
    let odd = "SELECT username, \"user\", user_id, performed_via_github_app ->> 'slug', type, raw #>> '{pinned_comment,text}',
        raw ? 'sub_issues_summary', raw ? 'title' FROM issues";
    assert_eq!(world.one(odd).await, "-|-|-|app|Task|a\u{fffd}b|t|f");
    let kinds = "SELECT string_agg(event, ',' ORDER BY event COLLATE \"C\") FROM events";
    assert_eq!(world.one(kinds).await, "added_to_project,closed,commented,commented,labeled");
    // Everything there is, for whoever asks for it.
    let all = world.again(&[("EVENTS__KINDS", "*"), ("DATABASE__SCHEMA", "every")]).await;
    all.load(within(60)).await.unwrap();
    let made = "SELECT string_agg(event, ',' ORDER BY event COLLATE \"C\") FROM every.events WHERE id < 0 OR event LIKE '%-%' OR event LIKE 'nev%'";
    assert_eq!(world.one(made).await, "committed,cross-referenced,line-commented,never_heard_of");
    // The second time they have the same numbers.
    world.model().advance(8 * 3600);
    world.poll().await;
    let loaded = all.load(within(60)).await.unwrap();
    assert!(loaded.inserted.is_empty(), "{loaded:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_as_github_documents_them_come_into_the_tables() {
    let recorded: Value = serde_json::from_str(include_str!("recorded/github.json")).unwrap();
    let world = World::with(&[("ORGANIZATION", "octocat")]).await;
    {
        let mut model = world.model();
        for (part, what) in [
            ("/orgs/octocat/repos", "repositories"),
            ("/orgs/octocat/members", "members"),
            ("/timeline", "timeline"),
            ("/issues/comments", "comments"),
            ("/repositories/1296269/issues?", "issues"),
        ] {
            let answer = Instead { body: recorded[what].to_string(), ..Instead::status(part, 100, 200, "") };
            model.instead.push(answer);
        }
    }
    let report = world.contributors.poll(&world.request(), within(60)).await.unwrap();
    assert_eq!((report.failed, report.ended), (Vec::new(), None));
    world.load().await;
    let rows = recorded["issues"].as_array().unwrap().len();
    let count = "SELECT (SELECT count(*) FROM issues) + (SELECT count(*) FROM pull_requests)";
    assert_eq!(world.one(count).await, rows.to_string());
    let events = "SELECT count(*), count(DISTINCT event), count(body), count(label) FROM events";
    assert_eq!(world.one(events).await, format!("{}|4|{rows}|{rows}", 4 * rows));
    assert_eq!(world.one("SELECT login, type FROM members JOIN people USING (id, login, type)").await, "octocat|User");
}

#[tokio::test(flavor = "multi_thread")]
async fn merged_is_null_while_a_pull_request_is_open() {
    let world = World::new().await;
    let (shop, ada, number) = {
        let mut model = world.model();
        let (shop, ada) = (model.add_repository("shop"), model.add_person("ada"));
        let number = model.open_pull_request(shop, ada, "Faster");
        model.draft(shop, number, ada);
        (shop, ada, number)
    };
    let seen = "SELECT merged, merged_at IS NOT NULL, draft FROM pull_requests";
    world.sync().await;
    assert_eq!(world.one(seen).await, "-|f|t");
    world.model().ready(shop, number, ada);
    world.model().close(shop, number, ada, "completed");
    world.after(60).await;
    assert_eq!(world.one(seen).await, "f|f|f");
    world.model().reopen(shop, number, ada);
    world.after(60).await;
    assert_eq!(world.one(seen).await, "-|f|f");
    world.model().merge(shop, number, ada);
    world.after(60).await;
    assert_eq!(world.one(seen).await, "t|t|f");
    world.agree().await;
    assert_eq!(world.one("SELECT count(*) FROM issues").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_reactions_and_deletions_come_in_time() {
    let world = World::new().await;
    let (shop, ada, number, comment, bug) = {
        let mut model = world.model();
        let (shop, ada) = (model.add_repository("shop"), model.add_person("ada"));
        let number = model.open_issue(shop, ada, "Slow");
        let comment = model.comment(shop, number, ada, "too slow");
        let bug = model.create_label(shop, "bug", "d73a4a");
        model.label(shop, number, ada, bug);
        (shop, ada, number, comment, bug)
    };
    world.sync().await;
    world.model().advance(600);
    world.model().edit_comment(shop, number, comment, "far too slow");
    world.sync().await;
    world.agree().await;

    // A reaction leaves updated_at as it is: it is seen within hours.
    world.model().react(shop, number, Some(comment), "heart");
    world.after(6 * 3600 + 1).await;
    world.agree().await;

    // So does another name of a label, or a reaction to the issue: seen within a day.
    world.model().rename_label(shop, bug, "defect");
    world.model().react(shop, number, None, "+1");
    world.after(24 * 3600).await;
    world.agree().await;
    assert_eq!(world.one("SELECT reactions ->> 'total_count' FROM issues").await, "1");

    world.model().unlabel(shop, number, ada, bug);
    world.model().delete_comment(shop, number, comment);
    world.after(60).await;
    world.agree().await;

    // A deleted issue is found by its absence.
    let other = world.model().open_issue(shop, ada, "Other");
    world.after(60).await;
    world.model().delete_issue(shop, other);
    world.after(24 * 3600).await;
    world.agree().await;
    assert_eq!(world.one("SELECT count(*) FROM issues WHERE deleted_at IS NOT NULL").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comment_edited_on_an_old_issue_comes_although_the_issue_says_nothing() {
    let world = World::new().await;
    let (shop, number, comment) = {
        let mut model = world.model();
        let (shop, ada) = (model.add_repository("shop"), model.add_person("ada"));
        let number = model.open_issue(shop, ada, "Old");
        let comment = model.comment(shop, number, ada, "before");
        model.close(shop, number, ada, "completed");
        model.advance(40 * 86_400);
        (shop, number, comment)
    };
    world.sync().await;
    {
        let mut model = world.model();
        model.advance(600);
        let updated = model.issue(shop, number).updated_at;
        model.edit_comment(shop, number, comment, "after");
        model.issue_mut(shop, number).updated_at = updated;
    }
    world.sync().await;
    world.agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_repositories_that_fit_are_watched() {
    let world = World::with(&[("REPOSITORIES", "*,!archive-*")]).await;
    {
        let mut model = world.model();
        let ada = model.add_person("ada");
        for name in ["shop", "archive-2019"] {
            let repository = model.add_repository(name);
            model.open_issue(repository, ada, name);
        }
    }
    world.sync().await;
    assert_eq!(world.one("SELECT string_agg(title, ',') FROM issues").await, "shop");
    let none = world.again(&[("REPOSITORIES", "nothing")]).await;
    let error = none.poll(&world.request(), within(60)).await.unwrap_err().to_string();
    assert!(error.contains("no repository matches the setting repositories: this token sees 2 in acme"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn polls_start_90_days_back_by_default() {
    let world = World::new().await;
    {
        let mut model = world.model();
        let (shop, ada) = (model.add_repository("shop"), model.add_person("ada"));
        let now = model.now;
        for days in [200, 50] {
            model.now = now - TimeDelta::days(days);
            model.open_issue(shop, ada, &format!("{days} days ago"));
        }
        model.now = now;
    }
    let file = world.folder.path().join("contributors.toml");
    std::fs::write(&file, format!(
        "organization = \"acme\"\nbucket = \"answers\"\n[github]\ntoken = \"github-token\"\napi = \"{}\"\n[database]\nurl = \"{}\"\n",
        world.github.origin(), world.url
    )).unwrap();
    let config = contributors::config::Config::read(Some(&file), std::iter::empty()).unwrap();
    let s3 = world.s3.endpoint();
    let client = blackwater_base::store::client(
        Some(&s3),
        Some((blackwater_local::s3::ACCESS_KEY, blackwater_local::s3::SECRET_KEY)),
    );
    let http = blackwater_http::Http::new("test").unwrap();
    let contributors = contributors::Contributors::new(config, client.await, http);
    contributors.poll(&world.request(), within(60)).await.unwrap();
    contributors.load(within(60)).await.unwrap();
    assert_eq!(world.one("SELECT title FROM issues").await, "50 days ago");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_api_without_assignee_gives_the_first_of_the_assignees() {
    let world = World::new().await;
    {
        let mut model = world.model();
        let (shop, ada) = (model.add_repository("shop"), model.add_person("ada"));
        let number = model.open_issue(shop, ada, "Assigned");
        model.assign(shop, number, ada, ada);
        model.issue_mut(shop, number).more.insert("assignee".into(), Value::Null);
    }
    world.sync().await;
    assert_eq!(world.one("SELECT assignee ->> 'login' FROM issues").await, "ada");
}
