use blackwater_base::deadline::Deadline;
use blackwater_http::{Error, Http};
use bytes::Bytes;
use hyper::Request;
use serde_json::Value;

use super::answers::Answer;
use super::{GitHub, Instead, Model, TOKEN};

fn model() -> (Model, u64, u64) {
    let mut model = Model::new("acme");
    model.origin = "http://github".into();
    let (shop, ada) = (model.add_repository("shop"), model.add_person("ada"));
    (model, shop, ada)
}

fn get_if(model: &mut Model, path: &str, etag: &str) -> Answer {
    let request = Request::get(path)
        .header("accept", "application/vnd.github+json")
        .header("x-github-api-version", "2022-11-28")
        .header("user-agent", "tests")
        .header("authorization", format!("Bearer {TOKEN}"))
        .header("if-none-match", etag);
    let answer = model.answer(&request.body(Bytes::new()).unwrap());
    assert_eq!(model.faults, [""; 0]);
    answer
}

fn get(model: &mut Model, path: &str) -> Answer {
    get_if(model, path, "")
}

fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.headers.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
}

fn json(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.body);
    serde_json::from_str(&answer.body).unwrap()
}

fn numbers(answer: &Answer) -> Vec<u64> {
    json(answer).as_array().unwrap().iter().map(|issue| issue["number"].as_u64().unwrap()).collect()
}

#[test]
fn a_timeline_has_pages_that_link_to_the_others() {
    let (mut model, shop, ada) = model();
    let issue = model.open_issue(shop, ada, "A bug");
    let comments: Vec<_> = (0..250).map(|at| model.comment(shop, issue, ada, &format!("{at}"))).collect();
    let path = "/repos/acme/shop/issues/1/timeline?per_page=100";
    let first = get(&mut model, path);
    let address = format!("http://github/repositories/{shop}/issues/1/timeline?per_page=100");
    let links = format!("<{address}&page=2>; rel=\"next\", <{address}&page=3>; rel=\"last\"");
    assert_eq!(header(&first, "link"), links);
    let second = format!("{path}&page=2");
    let before = json(&get(&mut model, &second));
    assert_eq!(before[0]["id"], comments[100]);
    model.delete_comment(shop, issue, comments[7]);
    assert_eq!(json(&get(&mut model, &second))[0]["id"], comments[101]);
    let third = get(&mut model, &format!("{path}&page=3"));
    assert_eq!(json(&third).as_array().unwrap().len(), 49);
    assert!(!header(&third, "link").contains("next"), "{}", header(&third, "link"));
}

#[test]
fn a_list_of_issues_goes_on_where_its_last_page_ended() {
    let (mut model, shop, ada) = model();
    for number in 0..5 {
        model.open_issue(shop, ada, &format!("Issue {number}"));
        model.advance(1);
    }
    let first = get(
        &mut model,
        "/repos/acme/shop/issues?state=all&sort=updated&direction=asc&per_page=2&since=2026-01-05T09:00:01Z",
    );
    assert_eq!(numbers(&first), [2, 3]);
    assert!(!header(&first, "link").contains("last"), "{}", header(&first, "link"));
    // An update during the listing moves no other issue out of sight.
    model.comment(shop, 2, ada, "More");
    let next = header(&first, "link").split(['<', '>']).nth(1).unwrap().replace("http://github", "");
    let second = get(&mut model, &next);
    assert_eq!(numbers(&second), [4, 5]);
    let next = header(&second, "link").split(['<', '>']).nth(1).unwrap().replace("http://github", "");
    let third = get(&mut model, &next);
    assert_eq!((numbers(&third), header(&third, "link")), (vec![2], ""));
}

#[test]
fn an_unchanged_answer_is_304_and_costs_nothing() {
    let (mut model, shop, ada) = model();
    let issue = model.open_issue(shop, ada, "A bug");
    let comment = model.comment(shop, issue, ada, "It crashes");
    let path = "/repos/acme/shop/issues/1/timeline";
    let first = get(&mut model, path);
    let etag = header(&first, "etag").to_owned();
    assert!(etag.starts_with("W/\""), "{etag}");
    assert_eq!(header(&first, "x-ratelimit-remaining"), "4999");
    let second = get_if(&mut model, path, &etag);
    assert_eq!((second.status, second.body.as_str(), header(&second, "x-ratelimit-remaining")), (304, "", "4999"));
    let updated = model.issue(shop, issue).updated_at;
    model.advance(60);
    model.react(shop, issue, Some(comment), "+1");
    assert_eq!(model.issue(shop, issue).updated_at, updated);
    let third = get_if(&mut model, path, &etag);
    assert_eq!(json(&third)[0]["reactions"]["total_count"], 1);
    assert_eq!(header(&third, "x-ratelimit-remaining"), "4998");
}

#[test]
fn a_transferred_issue_redirects_and_takes_its_comments_along() {
    let (mut model, shop, ada) = model();
    let docs = model.add_repository("docs");
    let (bug, known, _) = (
        model.create_label(shop, "bug", "f00"),
        model.create_label(shop, "known", "0f0"),
        model.create_label(docs, "bug", "00f"),
    );
    let milestone = model.create_milestone(shop, "1.0");
    model.open_issue(docs, ada, "Another");
    let issue = model.open_issue(shop, ada, "A bug");
    model.comment(shop, issue, ada, "It crashes");
    model.label(shop, issue, ada, bug);
    model.label(shop, issue, ada, known);
    model.assign(shop, issue, ada, ada);
    model.milestone(shop, issue, ada, Some(milestone));
    model.advance(60);
    let number = model.transfer(shop, issue, ada, docs);
    let old = get(&mut model, "/repos/acme/shop/issues/1");
    assert_eq!(
        (old.status, header(&old, "location")),
        (301, format!("http://github/repositories/{docs}/issues/{number}").as_str())
    );
    assert_eq!(get(&mut model, "/repos/acme/shop/issues/1/timeline").status, 404);
    assert_eq!(numbers(&get(&mut model, "/repos/acme/shop/issues")), [0; 0]);
    let new = json(&get(&mut model, &format!("/repositories/{docs}/issues/{number}")));
    assert_ne!(new["id"], model.issue(shop, issue).id);
    assert_eq!(
        (&new["labels"][0]["color"], &new["labels"][1], &new["milestone"]),
        (&"00f".into(), &Value::Null, &Value::Null)
    );
    let timeline = json(&get(&mut model, &format!("/repos/acme/docs/issues/{number}/timeline")));
    let kinds: Vec<_> = timeline.as_array().unwrap().iter().map(|item| item["event"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["commented", "assigned", "transferred"]);
    model.repository_mut(docs).is_unreadable = true;
    assert_eq!(get(&mut model, "/repos/acme/shop/issues/1").status, 404);
    model.repository_mut(docs).is_unreadable = false;
    model.delete_issue(docs, number);
    assert_eq!(get(&mut model, &format!("/repos/acme/docs/issues/{number}")).status, 410);
}

#[test]
fn a_former_name_redirects_until_another_repository_has_it() {
    let (mut model, shop, _) = model();
    model.rename_repository(shop, "store");
    let moved = get(&mut model, "/repos/acme/shop/issues?state=all");
    assert_eq!(
        (moved.status, header(&moved, "location")),
        (301, format!("http://github/repositories/{shop}/issues?state=all").as_str())
    );
    assert_eq!(json(&get(&mut model, &format!("/repositories/{shop}")))["name"], "store");
    let other = model.add_repository("shop");
    assert_eq!(json(&get(&mut model, "/repos/acme/shop"))["id"], other);
}

#[test]
fn a_search_ends_after_a_thousand_results() {
    let (mut model, shop, ada) = model();
    for _ in 0..1_005 {
        model.open_issue(shop, ada, "A bug");
    }
    model.lists_incomplete = 1;
    let path = "/search/issues?per_page=100&q=repo:acme/shop+is:issue+created:2026-01-05..2026-01-05&page=";
    let tenth = get(&mut model, &format!("{path}10"));
    let document = json(&tenth);
    assert_eq!((&document["total_count"], &document["incomplete_results"]), (&1_005.into(), &true.into()));
    assert_eq!(document["items"].as_array().unwrap().len(), 100);
    assert!(!header(&tenth, "link").contains("next"), "{}", header(&tenth, "link"));
    assert_eq!(header(&tenth, "etag"), "");
    let eleventh = get(&mut model, &format!("{path}11"));
    assert_eq!(eleventh.status, 422);
    assert!(eleventh.body.contains("Only the first 1000 search results are available"), "{}", eleventh.body);
    let none = get(&mut model, "/search/issues?q=repo:acme/shop+is:issue+created:%3E2026-01-05");
    assert_eq!(json(&none)["total_count"], 0);
}

#[test]
fn a_used_up_budget_is_403_until_its_reset() {
    let (mut model, ..) = model();
    (model.core.limit, model.core.remaining) = (60, 1);
    assert_eq!(get(&mut model, "/user").status, 200);
    let refused = get(&mut model, "/user");
    assert_eq!((refused.status, header(&refused, "x-ratelimit-remaining")), (403, "0"));
    assert_eq!(header(&refused, "x-ratelimit-reset"), model.core.reset.to_string());
    let limits = json(&get(&mut model, "/rate_limit"));
    assert_eq!((&limits["resources"]["core"]["used"], &limits["resources"]["search"]["used"]), (&60.into(), &0.into()));
    model.core.reset = 0;
    assert_eq!(header(&get(&mut model, "/user"), "x-ratelimit-remaining"), "59");
}

#[test]
fn a_deleted_account_is_null() {
    let (mut model, shop, ada) = model();
    let issue = model.open_issue(shop, ada, "A bug");
    model.comment(shop, issue, ada, "It crashes");
    model.join(ada);
    model.assign(shop, issue, ada, ada);
    model.delete_person(ada);
    let shown = json(&get(&mut model, "/repos/acme/shop/issues/1"));
    assert_eq!((&shown["user"], &shown["assignee"]), (&Value::Null, &Value::Null));
    let timeline = json(&get(&mut model, "/repos/acme/shop/issues/1/timeline"));
    assert_eq!((&timeline[0]["actor"], &timeline[0]["user"]), (&Value::Null, &Value::Null));
    assert_eq!(json(&get(&mut model, "/orgs/acme/members")), Value::Array(Vec::new()));
}

#[test]
fn a_populated_organization_is_the_same_for_the_same_seed() {
    let build = |seed| {
        let (mut model, ..) = model();
        model.repositories.clear();
        model.populate(seed, 200);
        model
    };
    let (one, same, other) = (build(7), build(7), build(8));
    assert_eq!(format!("{:?}", one.repositories), format!("{:?}", same.repositories));
    assert_ne!(format!("{:?}", one.repositories), format!("{:?}", other.repositories));
    let issues: Vec<_> = one.repositories.values().flat_map(|repository| repository.issues.values()).collect();
    assert_eq!(issues.len(), 200);
    assert!(issues.iter().any(|issue| issue.pull_request.is_some_and(|pull_request| pull_request.merged_at.is_some())));
    assert!(
        issues
            .iter()
            .all(|issue| issue.updated_at <= one.now && issue.timeline.is_sorted_by_key(|item| item.created_at))
    );
}

#[tokio::test]
async fn it_answers_clients_and_changes_between_their_requests() {
    let github = GitHub::start("acme").await.unwrap();
    {
        let mut model = github.model();
        let (shop, ada) = (model.add_repository("shop"), model.add_person("ada"));
        model.open_issue(shop, ada, "A bug");
        model.rename_repository(shop, "store");
        model.then("/issues/1", move |model| {
            model.comment(shop, 1, ada, "It crashes");
        });
        model.instead.push(Instead::broken("/labels", 1));
    }
    let client = |token: &str| {
        blackwater_github::GitHub::new(&Http::new("tests").unwrap(), &github.origin(), &token.to_owned().into())
            .unwrap()
    };
    let timeline = "repos/acme/store/issues/1/timeline";
    let count = async |client: &blackwater_github::GitHub| {
        client.get(timeline, Deadline::NONE).await.unwrap().json::<Vec<Value>>("a timeline").unwrap().len()
    };
    let known = client(TOKEN);
    assert_eq!(count(&known).await, 0);
    assert_eq!(count(&known).await, 1);
    known.get("repos/acme/shop/labels", Deadline::NONE).await.unwrap();
    let refused = client("wrong").get("user", Deadline::NONE).await.unwrap_err();
    assert!(refused.is_refused() && matches!(refused, Error::Status { .. }), "{refused}");
    let model = github.model();
    assert_eq!((model.count("/labels", 0), model.count("/labels", 301), model.count("/user", 401)), (1, 1, 1));
    assert_eq!(model.faults, [""; 0]);
}
