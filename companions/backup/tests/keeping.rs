//! What is kept, where, and when.

use backup::Backup;
use blackwater_tests::Function;
use chrono::{TimeZone, Utc};
use serde_json::{Value, json};

use super::*;

fn today() -> String {
    Utc::now().format("%Y-%m-%d").to_string()
}

#[tokio::test]
async fn archives_and_the_list_have_the_keys_that_the_original_gave_them() {
    let world = World::with(&[("PREFIX", "/my-prefix/"), ("MODE", "zip")]).await;
    for (id, name) in [(1, "acme/shop"), (2, "a_b/c"), (3, "a/b_c")] {
        world.github.make(id, name).unwrap();
        world.github.commit(name, "main", "a.txt", name.as_bytes()).unwrap();
    }
    let manifest = world.run().await;
    assert!(manifest.complete, "{manifest:?}");
    let key = |name: &str| of(&manifest, name).zip.clone().unwrap().object.key;
    assert_eq!(key("acme/shop"), format!("my-prefix/{}/acme_shop.zip", today()));
    // Of two that would have one name, each has another one.
    assert_eq!(key("a_b/c"), format!("my-prefix/{}/a_b__c.zip", today()));
    assert_eq!(key("a/b_c"), format!("my-prefix/{}/a__b_c.zip", today()));
    let list = world.store.get(&format!("my-prefix/{}/metadata.json", today())).await.unwrap().unwrap();
    let list: Value = serde_json::from_slice(&list).unwrap();
    assert_eq!(
        (&list[2]["name"], &list[2]["owner"], &list[2]["is_private"]),
        (&json!("shop"), &json!("acme"), &json!(true))
    );
    assert_eq!(list.as_array().unwrap().len(), 3);

    // A second backup of a day writes nothing over.
    let before = world.store.get(&key("acme/shop")).await.unwrap().unwrap();
    let commit = world.github.commit("acme/shop", "main", "a.txt", b"changed\n").unwrap();
    let manifest = world.run().await;
    let zip = of(&manifest, "acme/shop").zip.clone().unwrap();
    assert_eq!(zip.commit, commit);
    assert!(
        zip.object.key != key("acme/shop") && zip.object.key.starts_with(&format!("my-prefix/{}/acme_shop-", today()))
    );
    assert_eq!(world.store.get(&key("acme/shop")).await.unwrap().unwrap(), before);
    let folder = world.restored("acme/shop", None).await;
    let mut archive = zip::ZipArchive::new(std::fs::File::open(folder.join("shop.zip")).unwrap()).unwrap();
    let mut text = String::new();
    let name = format!("acme-shop-{}/a.txt", &commit[..7]);
    std::io::Read::read_to_string(&mut archive.by_name(&name).unwrap(), &mut text).unwrap();
    assert_eq!(text, "changed\n");
}

#[tokio::test]
async fn patterns_and_owners_choose_what_is_kept() {
    let world = World::with(&[("EXCLUDE", "acme/playground-*")]).await;
    for (id, name) in [(1, "acme/shop"), (2, "Acme/Till"), (3, "acme/playground-1"), (4, "widgets/tools")] {
        world.github.make(id, name).unwrap();
    }
    let names = |manifest: &Manifest| {
        manifest.repositories.iter().map(|entry| entry.listed.full_name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&world.run().await), ["Acme/Till", "acme/shop", "widgets/tools"]);
    // A pattern that fits nothing is told, and a backup of nothing is none.
    let odd = world.again(&[("INCLUDE", "acme/*,shop")]).await;
    let manifest = made(odd.run(&Request::default(), within(60)).await.unwrap());
    assert!(
        !manifest.complete && manifest.lacks == ["include: shop matches no repository that the token sees"],
        "{manifest:?}"
    );
    let none = world.again(&[("INCLUDE", "shop")]).await;
    let error = none.run(&Request::default(), within(60)).await.unwrap_err().to_string();
    assert!(error.contains("no repository is left to back up"), "{error}");
    let other = world.again(&[("ONLY_OWNER", "True".to_lowercase().as_str()), ("INCLUDE", "ACME/S*,*/tools")]).await;
    let manifest = made(other.run(&Request::default(), within(60)).await.unwrap());
    let excluded: Vec<_> = manifest.repositories.iter().filter(|entry| entry.status == Status::Excluded).collect();
    assert_eq!(excluded.len(), 3, "{excluded:?}");
    assert_eq!(status(&manifest, "acme/shop"), Status::Empty);
}

#[tokio::test]
async fn repositories_that_are_renamed_or_gone_stay_in_the_backup() {
    let world = World::mirroring().await;
    for (id, name) in [(1, "acme/shop"), (2, "acme/gone")] {
        world.github.make(id, name).unwrap();
        world.github.commit(name, "main", "a", b"a\n").unwrap();
    }
    world.run().await;
    let refs = refs_of(&world.github.repository("acme/gone"));
    std::fs::rename(world.github.repository("acme/shop"), world.github.repository("acme/store")).unwrap();
    {
        let mut known = world.github.known();
        known.repositories.retain(|one| one["id"] == 1);
        known.repositories[0]["full_name"] = "acme/store".into();
    }
    let manifest = world.run().await;
    assert_eq!((status(&manifest, "acme/gone"), of(&manifest, "acme/gone").since), (Status::Gone, 2));
    // That is told once.
    assert!(!manifest.complete && manifest.lacks[0].starts_with("acme/gone has gone"), "{manifest:?}");
    assert_eq!(
        (status(&manifest, "acme/store"), &of(&manifest, "acme/store").formerly[..]),
        (Status::Unchanged, &["acme/shop".to_owned()][..])
    );
    let third = world.run().await;
    assert_eq!((status(&third, "acme/gone"), of(&third, "acme/gone").since), (Status::Gone, 2));
    world.comes_back("acme/gone", None, &refs).await;
    // One that is made anew under the name of another is meant.
    world.github.make(9, "acme/gone").unwrap();
    world.github.commit("acme/gone", "main", "anew", b"anew\n").unwrap();
    world.run().await;
    world.comes_back("acme/gone", None, &refs_of(&world.github.repository("acme/gone"))).await;
    // By its former name, by its number.
    for name in ["acme/shop", "1"] {
        let folder = world.restored(name, None).await;
        assert_eq!(refs_of(&folder.join("store.git")), refs_of(&world.github.repository("acme/store")));
    }
}

/// An item of a list, changed at a second of a day.
fn item(id: u64, second: u32, text: &str) -> Value {
    json!({ "id": id, "number": id, "title": text, "updated_at": format!("2026-01-02T00:00:{second:02}Z") })
}

/// The texts of a restored list, by their ids.
fn texts(folder: &Path, list: &str) -> BTreeMap<u64, String> {
    let lines = std::fs::read_to_string(folder.join(format!("{list}.jsonl"))).unwrap();
    let items = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    items.map(|item| (item["id"].as_u64().unwrap(), item["title"].as_str().unwrap().to_owned())).collect()
}

#[tokio::test]
async fn issues_and_pull_requests_are_read_on_from_where_the_last_backup_stopped() {
    let world = World::mirroring().await;
    world.github.known().page = 3;
    for (id, name) in [(1, "acme/shop"), (2, "acme/quiet")] {
        world.github.make(id, name).unwrap();
        world.github.commit(name, "main", "a", b"a\n").unwrap();
    }
    let list = |path: &str, items: Vec<Value>| world.github.known().lists.insert(format!("acme/shop/{path}"), items);
    list("issues", (1..=8).map(|id| item(id, id as u32, "first")).collect());
    list("issues/comments", vec![item(21, 5, "a comment")]);
    list("labels", vec![json!({ "id": 31, "title": "bug" })]);
    list("pulls", (1..=7).map(|id| item(id, id as u32, "a pull request")).collect());
    list("pulls/4/reviews", vec![json!({ "id": 41, "title": "approved" })]);
    list("pulls/comments", vec![item(51, 5, "a line")]);
    world.run().await;
    world.calls();

    // Two issues in the second of the newest one, one of them new; an issue and two pull requests that are changed or new.
    let lately = Utc::now().format("%Y-%m-%dT%H:%M:%SZ").to_string();
    // For this long something may change again in the second in which it was read.
    tokio::time::sleep(Duration::from_secs(12)).await;
    let changed = |id: u64| json!({ "id": id, "number": id, "title": "changed", "updated_at": lately });
    list(
        "issues",
        [1, 2, 4, 5, 6, 7, 8]
            .map(|id| item(id, id as u32, "first"))
            .into_iter()
            .chain([item(9, 8, "as late"), changed(3)])
            .collect(),
    );
    list(
        "pulls",
        [1, 2, 3, 4, 6, 7]
            .map(|id| item(id, id as u32, "a pull request"))
            .into_iter()
            .chain([changed(5), changed(8)])
            .collect(),
    );
    list("pulls/5/reviews", vec![json!({ "id": 42, "title": "changes" })]);
    let manifest = world.run().await;
    let calls = world.calls();
    assert!(manifest.complete, "{manifest:?}");
    // All of the account by one question; the quiet repository was not asked.
    assert!(!calls.iter().any(|call| call.contains("/repos/acme/quiet")), "{calls:?}");
    assert!(
        calls.iter().any(|call| call
            .contains("/issues?state=all&sort=updated&direction=asc&per_page=100&since=2026-01-02T00:00:08Z")),
        "{calls:?}"
    );
    let reviewed: Vec<_> = calls.iter().filter(|call| call.contains("/reviews")).collect();
    assert_eq!(reviewed.len(), 2, "of the pull requests that are new or changed: {reviewed:?}");
    let folder = world.restored("acme/shop", None).await;
    let issues = texts(&folder, "issues");
    assert_eq!(issues.len(), 9);
    assert_eq!((issues[&3].as_str(), issues[&9].as_str(), issues[&1].as_str()), ("changed", "as late", "first"));
    let pulls = texts(&folder, "pulls");
    assert_eq!((pulls.len(), pulls[&5].as_str()), (8, "changed"));
    assert_eq!(texts(&folder, "reviews").into_keys().collect::<Vec<_>>(), [41, 42]);
    assert_eq!(
        (texts(&folder, "comments").len(), texts(&folder, "labels").len(), texts(&folder, "review_comments").len()),
        (1, 1, 1)
    );

    // Nothing new: no object is written.
    let before = world.keys().await.len();
    let manifest = world.run().await;
    assert_eq!((status(&manifest, "acme/shop"), world.keys().await.len()), (Status::Unchanged, before + 1));
    // And as it was at the first backup.
    assert_eq!(texts(&world.restored("acme/shop", Some(1)).await, "issues")[&3], "first");
}

#[tokio::test]
async fn a_list_that_fails_is_read_again_from_where_it_was() {
    let world = World::mirroring().await;
    let name = "acme/shop";
    world.github.make(1, name).unwrap();
    world.github.commit(name, "main", "a", b"a\n").unwrap();
    let list = |items: Vec<Value>| world.github.known().lists.insert("acme/shop/issues/comments".into(), items);
    list(vec![item(1, 1, "one")]);
    world.run().await;
    list(vec![item(1, 1, "one"), item(2, 2, "two")]);
    world.github.known().repositories[0]["updated_at"] = "2026-01-03T00:00:00Z".into();
    let refusal = backup::services::Instead { status: 422, body: "{\"message\": \"no\"}".into(), ..Default::default() };
    world.github.instead("api GET /repos/acme/shop/issues/comments", [refusal]);
    let manifest = world.run().await;
    assert_eq!((of(&manifest, name).problems[0].part.as_str(), of(&manifest, name).problems.len()), ("comments", 1));
    let manifest = world.run().await;
    assert!(manifest.complete);
    assert_eq!(texts(&world.restored(name, None).await, "comments").len(), 2);
    // Issues that are switched off are no failure.
    let gone = backup::services::Instead {
        status: 410,
        body: "{\"message\": \"Issues are disabled\"}".into(),
        ..Default::default()
    };
    world.github.known().repositories[0]["updated_at"] = "2026-01-04T00:00:00Z".into();
    world.github.instead("api GET /repos/acme/shop/issues", [gone.clone(), gone]);
    assert!(world.run().await.complete);
}

#[tokio::test]
async fn files_of_releases_are_kept_once() {
    let world = World::mirroring().await;
    let name = "acme/shop";
    world.github.make(1, name).unwrap();
    world.github.commit(name, "main", "a", b"a\n").unwrap();
    let release = |assets: &[(u64, &str, usize)]| {
        let assets: Vec<_> =
            assets.iter().map(|(id, name, size)| json!({ "id": id, "name": name, "size": size })).collect();
        let release = json!({ "id": 1, "tag_name": "v1", "assets": assets });
        world.github.known().lists.insert("acme/shop/releases".into(), vec![release]);
    };
    release(&[(12, "gone.tar", 4)]);
    assert_eq!(of(&world.run().await, name).assets.as_ref().unwrap().missing.len(), 1);
    world.restored(name, None).await;
    git(&world.github.repository(name), &["tag", "v1", "main"]).unwrap();
    release(&[(11, "shop.tar", 8), (12, "gone.tar", 4)]);
    world.github.known().assets.insert(11, b"archived".to_vec());
    let manifest = world.run().await;
    let assets = of(&manifest, name).assets.clone().unwrap();
    assert_eq!((assets.count, assets.missing.len()), (1, 1), "{assets:?}");
    world.calls();
    release(&[(11, "shop.tar", 8), (13, "../other", 5)]);
    world.github.known().assets.insert(13, b"other".to_vec());
    git(&world.github.repository(name), &["tag", "v2", "main"]).unwrap();
    let manifest = world.run().await;
    assert_eq!(of(&manifest, name).assets.as_ref().unwrap().count, 2);
    let asked: Vec<_> = world.calls().into_iter().filter(|call| call.contains("releases/assets/")).collect();
    assert!(!asked.iter().any(|call| call.ends_with("/11")), "{asked:?}");
    // A file that is added later, with no push.
    release(&[(11, "shop.tar", 8), (13, "../other", 5), (14, "late.tar", 4)]);
    world.github.known().assets.insert(14, b"late".to_vec());
    let manifest = world.run().await;
    assert_eq!(of(&manifest, name).assets.as_ref().unwrap().count, 3);
    let folder = world.restored(name, None).await;
    assert_eq!(std::fs::read(folder.join("assets/11 shop.tar")).unwrap(), b"archived");
    assert_eq!(std::fs::read(folder.join("assets/13 .._other")).unwrap(), b"other");
    assert_eq!(world.backup.verify(None, true).await.unwrap().strays, Vec::<String>::new());
}

#[tokio::test]
async fn a_repository_that_is_too_large_for_a_function_is_left_to_a_machine() {
    let world = World::with(&[("MODE", "mirror"), ("LARGEST", "1MB")]).await;
    for (id, name) in [(1, "acme/big"), (2, "acme/small")] {
        world.github.make(id, name).unwrap();
        world.github.commit(name, "main", "a", b"a\n").unwrap();
    }
    world.github.known().repositories[0]["size"] = 5000.into();
    let manifest = world.run().await;
    assert_eq!((status(&manifest, "acme/big"), status(&manifest, "acme/small")), (Status::Skipped, Status::Done));
    assert!(!manifest.complete);
    assert!(of(&manifest, "acme/big").problems[0].why.contains("backup run --only acme/big"));

    let machine = world.again(&[("MODE", "mirror")]).await;
    let only = |name: &str| Request { only: vec![name.into()], is_full: false };
    let manifest = made(machine.run(&only("acme/big"), within(60)).await.unwrap());
    assert!(manifest.complete, "{manifest:?}");
    // What was not asked for is there as it was.
    assert!(of(&manifest, "acme/small").git.is_some());
    let error = machine.run(&only("acme/none"), within(60)).await.unwrap_err().to_string();
    assert!(error.starts_with("there is no repository acme/none"), "{error}");

    // It is no backup of all.
    assert!(world.backup.due(Utc::now() + chrono::Duration::hours(25)).await.unwrap().1);
    // From then on the function adds what is new.
    world.github.commit("acme/big", "main", "b", b"b\n").unwrap();
    let manifest = world.run().await;
    assert_eq!(status(&manifest, "acme/big"), Status::Done);
    assert_eq!(of(&manifest, "acme/big").git.as_ref().unwrap().bundles.len(), 2);
}

#[tokio::test]
async fn a_backup_is_due_once_a_month_or_a_day_after_something_failed() {
    let world = World::mirroring().await;
    let now = Utc::now();
    assert!(world.backup.due(now).await.unwrap().1);
    world.github.make(1, "acme/shop").unwrap();
    world.github.commit("acme/shop", "main", "a", b"a\n").unwrap();
    world.run().await;
    let next = |days: i64| now + chrono::Duration::days(days);
    assert!(!world.backup.due(now).await.unwrap().1);
    assert!(world.backup.due(next(32)).await.unwrap().1);
    // One of some repositories alone neither counts for the month nor begins another.
    let only = Request { only: vec!["acme/shop".into()], is_full: false };
    made(world.backup.run(&only, within(60)).await.unwrap());
    assert!(!world.backup.due(now).await.unwrap().1);
    let daily = world.again(&[("EVERY", "day")]).await;
    assert!(!daily.due(now).await.unwrap().1 && daily.due(next(1)).await.unwrap().1);

    world.github.known().refused.insert("acme/shop".into(), (451, "blocked".into()));
    let manifest = world.run().await;
    assert!(!manifest.complete && of(&manifest, "acme/shop").git.is_some());
    let first_of_month = Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 0).unwrap();
    assert!(first_of_month < now);
    assert!(!world.backup.due(now).await.unwrap().1);
    assert!(world.backup.due(now + chrono::Duration::hours(25)).await.unwrap().1);
}

/// The program as Lambda runs it.
async fn function(world: &World) -> Function {
    let file = world.folder.path().join("run");
    let settings = world.folder.path().join("backup.toml");
    std::fs::write(&settings, "mode = \"mirror\"\n").unwrap();
    let program = env!("CARGO_BIN_EXE_backup");
    std::fs::write(&file, format!("#!/bin/sh\ncd {}\nexec {program}\n", world.folder.path().display())).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let variables = [
        ("AWS_REGION", "eu-west-2"),
        ("AWS_ENDPOINT_URL", &world.s3.endpoint()),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
        ("BACKUP_BUCKET", "backups"),
        ("BACKUP_TOKEN", TOKEN),
        ("BACKUP_API", &world.github.api()),
        ("BACKUP_GIT", &world.github.git()),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Function::start(&[file], &variables, Duration::from_secs(120)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_function_makes_a_backup_when_one_is_due_and_its_log_has_no_token() {
    let world = World::mirroring().await;
    for (id, name) in [(1, "acme/shop"), (2, "acme/blocked")] {
        world.github.make(id, name).unwrap();
        world.github.commit(name, "main", "a", b"a\n").unwrap();
    }
    let function = function(&world).await;
    let summary = function.invoke(json!({ "source": "aws.scheduler" })).await.unwrap();
    assert_eq!((&summary["state"], &summary["backup"], &summary["done"]), (&json!("made"), &json!(1), &json!(2)));
    let summary = function.invoke(json!({ "source": "aws.scheduler" })).await.unwrap();
    assert_eq!((&summary["state"], &summary["backup"]), (&json!("not_due"), &json!(1)));
    world.github.known().refused.insert("acme/blocked".into(), (451, "blocked".into()));
    let summary = function.invoke(json!({ "anew": true })).await.unwrap();
    assert_eq!((&summary["backup"], &summary["failed"], &summary["age_hours"]), (&json!(2), &json!(1), &json!(0)));
    let unauthorized = backup::services::Instead {
        status: 401,
        body: "{\"message\": \"Bad credentials\"}".into(),
        ..Default::default()
    };
    world.github.instead("api GET /user", [unauthorized]);
    let error = function.invoke(json!({ "anew": true })).await.unwrap_err();
    assert_eq!(error["errorType"], "List");
    assert!(error["errorMessage"].as_str().unwrap().contains("Put a valid token into the secret"), "{error}");
    let lines = function.end().await;
    assert!(lines.iter().any(|line| line["level"] == "ERROR"
        && line["message"].as_str().is_some_and(|text| text.contains("lacks something"))));
    assert!(lines.iter().any(|line| line.get("_aws").is_some() && line["Failed"] == 1), "{lines:?}");
    assert!(!lines.iter().any(|line| line.to_string().contains(TOKEN)));
}

#[tokio::test]
async fn settings_that_cannot_be_meant_name_themselves() {
    let read = |text: &str| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Config::read(Some(file.path()), std::iter::empty()).map(drop).unwrap_err().to_string()
    };
    for (text, setting) in [
        ("token = \"t\"\nmode = \"tar\"\n", "mode"),
        ("token = \"t\"\nwith = [\"gists\"]\n", "with"),
        ("token = \"t\"\nat_once = 0\n", "at_once"),
        ("token = \"t\"\nfull_every = 0\n", "full_every"),
        ("token = \"t\"\ncalls_per_minute = 1000\n", "calls_per_minute"),
        ("token = \"t\"\ninclude = []\n", "include"),
        ("token = \"t\"\napi = \"github\"\n", "api"),
        ("token = \"t\"\nlargest = \"big\"\n", "largest"),
        ("token = \"t\"\nonly_owner = \"yes\"\n", "only_owner"),
        ("token = \"t\"\nevery = \"year\"\n", "every"),
    ] {
        assert!(read(text).contains(setting), "{text}: {}", read(text));
    }
    let odd = [("BACKUP_DIR".to_owned(), "/var".to_owned())];
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = Config::read(Some(file.path()), odd.into_iter()).map(drop).unwrap_err().to_string();
    assert!(error.starts_with("the variable BACKUP_DIR: dir: unknown field"), "{error}");
    // A token with a line break after it, as a secret may have it.
    let world = World::mirroring().await;
    world.github.make(1, "acme/shop").unwrap();
    world.github.commit("acme/shop", "main", "a", b"a\n").unwrap();
    let broken = world.again(&[("TOKEN", &format!("{TOKEN}\n"))]).await;
    assert!(made(broken.run(&Request::default(), within(60)).await.unwrap()).complete);
    assert_eq!(world.github.known().faults, Vec::<String>::new());
    // A bucket that nothing names.
    let world = World::mirroring().await;
    let nameless = World::again(&world, &[("BUCKET", "")]).await;
    let error = Backup::run(&nameless, &Request::default(), within(10)).await.unwrap_err().to_string();
    assert!(error.starts_with("bucket: not set"), "{error}");
}
