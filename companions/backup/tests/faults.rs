//! What GitHub refuses, limits and breaks off; runs that are killed, and runs that meet.

use std::sync::Arc;

use backup::services::Instead;
use blackwater_tests::{KillSwitch, Proxy};

use super::*;

fn answer(status: u16, headers: &[(&'static str, &str)]) -> Instead {
    let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    Instead { status, headers, body: "<html>no JSON</html>".into(), cut: 0 }
}

/// Some repositories with a commit each, of one make: a copy is made sooner than another one.
fn some(github: &Services, names: &[String]) {
    let first = &names[0];
    github.make(1000, first).unwrap();
    github.commit(first, "main", "read.me", b"Read me.\n").unwrap();
    let listed = github.known().repositories.pop().unwrap();
    for (number, name) in names.iter().enumerate() {
        let mut one = listed.clone();
        let (owner, short) = name.split_once('/').unwrap();
        one["id"] = (1000 + number).into();
        one["full_name"] = name.as_str().into();
        one["name"] = short.into();
        one["owner"]["login"] = owner.into();
        github.known().repositories.push(one);
        if name != first {
            let (from, to) = (github.repository(first), github.repository(name));
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            assert!(std::process::Command::new("cp").arg("-r").args([from, to]).status().unwrap().success());
        }
    }
}

#[tokio::test]
async fn of_250_repositories_those_that_cannot_be_read_stop_no_other() {
    let world = World::with(&[("MODE", "mirror,zip"), ("WITH", "wiki,lfs")]).await;
    let mut names: Vec<_> = (0..240).map(|number| format!("acme/r{number}")).collect();
    let special =
        ["acme/a.b-c_d", "acme/renamed", "acme/deleted", "acme/blocked", "acme/closed", "acme/sso", "acme/wiki"];
    names.extend(special.map(str::to_owned));
    some(&world.github, &names);
    world.github.make(1, "acme/empty").unwrap();
    world.github.make(2, "acme/lfs").unwrap();
    world.github.commit_lfs("acme/lfs", "a.png", b"a picture").unwrap();
    world.github.make(3, "other/fork").unwrap();
    world.github.commit("other/fork", "main", "a", b"a\n").unwrap();
    let wiki = world.github.repository("acme/wiki.wiki");
    std::fs::create_dir_all(&wiki).unwrap();
    git(&wiki, &["init", "--quiet", "--bare", "--initial-branch=master", "."]).unwrap();
    world.github.commit("acme/wiki.wiki", "master", "Home.md", b"# Home\n").unwrap();
    std::fs::rename(world.github.repository("acme/renamed"), world.github.repository("acme/other-name")).unwrap();
    {
        let mut known = world.github.known();
        for one in &mut known.repositories {
            one["archived"] = (one["full_name"] == "acme/r7").into();
            one["fork"] = (one["full_name"] == "other/fork").into();
            one["has_wiki"] = (one["full_name"] == "acme/wiki").into();
        }
        known.moved.insert("acme/renamed".into(), "acme/other-name".into());
        for (name, status, message) in [
            ("acme/deleted", 404, "Not Found"),
            ("acme/blocked", 451, "Repository access blocked"),
            ("acme/closed", 403, "Resource not accessible by personal access token"),
            ("acme/sso", 403, "Resource protected by organization SAML enforcement."),
        ] {
            known.refused.insert(name.into(), (status, message.into()));
        }
        assert_eq!(known.repositories.len(), 250);
    }
    let manifest = world.run().await;
    let calls = world.calls();
    assert_eq!(calls.iter().filter(|call| call.starts_with("api GET /user/repos")).count(), 3);
    assert!(!manifest.complete);
    assert_eq!(
        (manifest.count(Status::Done), manifest.count(Status::Empty), manifest.count(Status::Failed)),
        (245, 1, 4)
    );
    for (name, code, why) in [
        ("acme/deleted", 404, "Not Found"),
        ("acme/blocked", 451, "Repository access blocked"),
        ("acme/closed", 403, "not accessible"),
        ("acme/sso", 403, "SAML"),
    ] {
        let [problem] = &of(&manifest, name).problems[..] else { panic!("{name}") };
        assert!(problem.code == Some(code) && problem.why.contains(why), "{problem:?}");
    }
    assert_eq!(status(&manifest, "acme/empty"), Status::Empty);
    assert!(of(&manifest, "acme/wiki").wiki.is_some());
    assert_eq!(of(&manifest, "acme/lfs").lfs.as_ref().unwrap().count, 1);
    let key = &of(&manifest, "acme/a.b-c_d").zip.as_ref().unwrap().object.key;
    assert!(key.ends_with("/acme_a.b-c_d.zip"), "{key}");
    let verified = world.backup.verify(None, true).await.unwrap();
    assert_eq!((verified.damage.len(), verified.strays.len(), verified.incomplete.len()), (0, 0, 4));
    // The token is nowhere.
    for file in files(&world.folder.path().join("backups")) {
        let content = std::fs::read(&file).unwrap();
        assert!(!content.windows(TOKEN.len()).any(|window| window == TOKEN.as_bytes()), "{}", file.display());
    }

    // The next run tries again what failed, and reads nothing else.
    world.github.known().refused.clear();
    let manifest = world.run().await;
    assert!(manifest.complete, "{:?}", manifest.repositories.iter().find(|entry| !entry.problems.is_empty()));
    assert_eq!((manifest.count(Status::Done), manifest.count(Status::Unchanged)), (4, 245));
    assert_eq!(world.calls().iter().filter(|call| call.ends_with("fetch")).count(), 4);
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found
}

#[tokio::test]
async fn an_archive_that_breaks_off_is_asked_for_once_more_and_leaves_nothing() {
    let world = World::with(&[("MODE", "zip")]).await;
    let name = "acme/shop";
    world.github.make(1, name).unwrap();
    let noise = noise(12_000_000, 7);
    world.github.commit(name, "main", "noise", &noise).unwrap();
    let cut = Instead { cut: 9_000_000, ..Instead::default() };
    world.github.instead("files GET /legacy.zip", [cut.clone()]);
    let manifest = world.run().await;
    assert!(manifest.complete, "{manifest:?}");
    assert_eq!(world.calls().iter().filter(|call| call.contains("/zipball/")).count(), 2);

    world.github.commit(name, "main", "more", b"more\n").unwrap();
    let before = world.keys().await;
    world.github.instead("files GET /legacy.zip", [cut.clone(), cut]);
    let manifest = world.run().await;
    let problem = &of(&manifest, name).problems[0];
    assert!(problem.part == "zip" && problem.why.contains("breaks off"), "{problem:?}");
    // What is kept is what was kept before.
    assert!(of(&manifest, name).zip.is_some());
    let new = world.keys().await.into_iter().filter(|key| !before.contains(key) && !key.starts_with("running/"));
    assert_eq!(new.collect::<Vec<_>>(), ["backups/000000000002.json"]);
    // Parts of an upload are removed after it.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let left = files(&world.folder.path().join("backups"))
        .into_iter()
        .filter(|file| file.display().to_string().contains("upload"));
    assert_eq!(left.count(), 0);
}

#[tokio::test]
async fn a_pack_that_breaks_off_or_is_no_pack_is_never_kept() {
    let world = World::mirroring().await;
    let name = "acme/shop";
    world.github.make(1, name).unwrap();
    let noise = noise(300_000, 7);
    world.github.commit(name, "main", "noise", &noise).unwrap();
    let pack = "git POST /acme/shop.git/git-upload-pack fetch";
    let flush_without_a_pack = Instead { status: 200, body: "0000".into(), ..Instead::default() };
    let refusal = Instead { status: 200, body: "0020ERR upload-pack: not our ref".into(), ..Instead::default() };
    for instead in [Instead { cut: 100_000, ..Instead::default() }, flush_without_a_pack, refusal] {
        world.github.instead(pack, [instead.clone(), instead.clone()]);
        let manifest = world.run().await;
        assert_eq!(status(&manifest, name), Status::Failed, "{instead:?}");
        assert!(!world.keys().await.iter().any(|key| key.ends_with(".bundle")));
        world.github.known().instead.clear();
    }
    // Once is no failure.
    world.github.instead(pack, [Instead { cut: 100_000, ..Instead::default() }]);
    assert!(world.run().await.complete);
    world.comes_back(name, None, &refs_of(&world.github.repository(name))).await;
}

#[tokio::test]
async fn what_github_limits_is_waited_for() {
    let world = World::with(&[("MODE", "mirror,zip"), ("WITH", "issues")]).await;
    let name = "acme/shop";
    world.github.make(1, name).unwrap();
    world.github.commit(name, "main", "a", b"a\n").unwrap();
    let soon = (chrono::Utc::now().timestamp() + 2).to_string();
    let spent = answer(403, &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", &soon)]);
    let again = answer(429, &[("retry-after", "1")]);
    world.github.instead("api GET /user/repos", [spent, answer(502, &[])]);
    world.github.instead("api GET /repos/acme/shop/zipball", [again.clone(), answer(500, &[])]);
    world.github.instead("api GET /repos/acme/shop/issues", [again.clone()]);
    world.github.instead("git GET /acme/shop.git/info/refs", [again.clone(), answer(500, &[])]);
    world.github.instead("git POST /acme/shop.git/git-upload-pack fetch", [again, answer(503, &[])]);
    let manifest = world.run().await;
    assert!(manifest.complete, "{manifest:?}");
    world.calls();
    assert!(world.github.known().instead.values().all(std::collections::VecDeque::is_empty));
}

#[tokio::test]
async fn a_limit_that_outlasts_the_run_leaves_the_rest_to_the_next_one() {
    let world = World::with(&[("MODE", "mirror"), ("WITH", ""), ("AT_ONCE", "1")]).await;
    for (id, name) in [(1, "acme/a"), (2, "acme/b"), (3, "acme/c")] {
        world.github.make(id, name).unwrap();
        world.github.commit(name, "main", "a", b"a\n").unwrap();
    }
    let long =
        Instead { body: "{\"message\": \"You have exceeded a secondary rate limit\"}".into(), ..answer(403, &[]) };
    world.github.instead("git GET /acme/b.git/info/refs", [long]);
    let outcome = world.backup.run(&Request::default(), within(30)).await.unwrap();
    assert!(matches!(outcome, Outcome::Waiting { backup: 1, left: 1 }), "{outcome:?}");
    assert!(!world.keys().await.iter().any(|key| key.starts_with("backups/")));
    world.calls();
    // The next run goes on, on a day of its own.
    let manifest = world.run().await;
    assert!(manifest.complete);
    assert_eq!((manifest.backup, manifest.count(Status::Done)), (1, 3));
    let calls = world.calls();
    assert!(!calls.iter().any(|call| call.contains("/acme/a") || call.contains("/acme/c")), "{calls:?}");
    let fetched: Vec<_> = calls.into_iter().filter(|call| call.ends_with("fetch")).collect();
    assert_eq!(fetched, ["git POST /acme/b.git/git-upload-pack fetch"]);
    let verified = world.backup.verify(None, true).await.unwrap();
    assert_eq!((verified.damage.len(), verified.strays.len()), (0, 0));
    // Without time, nothing is begun.
    let outcome = world.backup.run(&Request::default(), within(0)).await;
    assert!(outcome.is_err_and(|error| error.to_string().contains("no time left")));
}

#[tokio::test]
async fn two_runs_at_once_make_one_backup() {
    let world = World::with(&[("MODE", "mirror,zip")]).await;
    let names: Vec<_> = (0..6).map(|number| format!("acme/r{number}")).collect();
    some(&world.github, &names);
    for round in 1..=4 {
        for name in &names {
            world.github.commit(name, "main", "round", format!("{round}\n").as_bytes()).unwrap();
        }
        let other = world.again(&[("MODE", "mirror,zip")]).await;
        let all = Request::default();
        let both = tokio::join!(world.backup.run(&all, within(60)), other.run(&all, within(60)));
        let mut numbers = Vec::new();
        for outcome in [both.0.unwrap(), both.1.unwrap()] {
            match outcome {
                Outcome::Made(manifest) => {
                    assert!(manifest.complete);
                    numbers.push(manifest.backup);
                }
                Outcome::Beaten(manifest) => assert_eq!(manifest.repositories.len(), 6),
                Outcome::Waiting { .. } => panic!("nothing has to wait"),
            }
        }
        // The second may have come just after the first.
        assert!(!numbers.is_empty());
    }
    for manifest in world.backup.list().await.unwrap().into_iter().flatten() {
        let verified = world.backup.verify(Some(manifest.backup), true).await.unwrap();
        assert_eq!(verified.damage, [], "backup {}", manifest.backup);
    }
    world.comes_back("acme/r3", None, &refs_of(&world.github.repository("acme/r3"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_killed_at_any_request_to_the_bucket_is_gone_on_with() {
    let world = World::with(&[("MODE", "mirror,zip"), ("WITH", "lfs,issues,releases"), ("AT_ONCE", "2")]).await;
    let settings = [("MODE", "mirror,zip"), ("WITH", "lfs,issues,releases"), ("AT_ONCE", "2")];
    for (id, name) in [(1, "acme/a"), (2, "acme/b")] {
        world.github.make(id, name).unwrap();
        world.github.commit(name, "main", "a", b"a\n").unwrap();
        world.github.commit_lfs(name, "a.png", name.as_bytes()).unwrap();
        let issue = serde_json::json!({ "id": id, "number": 1, "title": "One", "updated_at": "2026-01-01T00:00:00Z" });
        world.github.known().lists.insert(format!("{name}/issues"), vec![issue]);
    }
    let port = world.s3.endpoint().rsplit(':').next().unwrap().parse().unwrap();
    let switch = Arc::new(KillSwitch::default());
    let proxy = Proxy::start(port, Arc::clone(&switch)).await;
    let mut kills = 0;
    for at in (1..).step_by(3) {
        let endpoint = format!("http://{}", proxy.address);
        let client = client(Some(&endpoint), Some((ACCESS_KEY, SECRET_KEY))).await;
        let mortal = Backup::new(config(&world.github, &settings), client, Http::new(AGENT).unwrap());
        switch.hold_at(at);
        let all = Request::default();
        let ended = tokio::select! {
            () = switch.wait() => None,
            outcome = mortal.run(&all, within(60)) => Some(outcome),
        };
        if let Some(outcome) = ended {
            made(outcome.unwrap());
            break;
        }
        drop(mortal);
        kills += 1;
        // What the killed run had sent may still be carried out: its manifest too.
        let (Outcome::Made(manifest) | Outcome::Beaten(manifest)) =
            world.backup.run(&Request::default(), within(60)).await.unwrap()
        else {
            panic!("nothing has to wait")
        };
        assert!(manifest.complete, "killed at {at}: {manifest:?}");
        let verified = world.backup.verify(None, true).await.unwrap();
        assert_eq!(verified.damage, [], "killed at {at}");
        // Something new for the next one.
        for name in ["acme/a", "acme/b"] {
            world.github.commit(name, "main", "a", format!("{at}\n").as_bytes()).unwrap();
            world.github.commit_lfs(name, "b.png", format!("{name} {at}").as_bytes()).unwrap();
        }
    }
    assert!(kills > 15, "{kills}");
    let numbers: Vec<_> =
        world.backup.list().await.unwrap().iter().map(|manifest| manifest.as_ref().unwrap().backup).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    for name in ["acme/a", "acme/b"] {
        world.comes_back(name, None, &refs_of(&world.github.repository(name))).await;
    }
}

/// What GitHub says of a limit that has no end in sight.
fn limit() -> Instead {
    Instead { body: "{\"message\": \"You have exceeded a secondary rate limit\"}".into(), ..answer(403, &[]) }
}

#[tokio::test]
async fn what_changed_with_a_run_that_had_no_time_is_read_by_the_next_one() {
    let world = World::mirroring().await;
    let name = "acme/art";
    world.github.make(1, name).unwrap();
    world.github.commit(name, "main", "a", b"a\n").unwrap();
    world.run().await;
    world.github.commit_lfs(name, "a.png", b"a picture").unwrap();
    let label = serde_json::json!({ "id": 1, "title": "new" });
    world.github.known().lists.insert(format!("{name}/labels"), vec![label]);
    world.github.known().repositories[0]["pushed_at"] = "2026-02-02T00:00:00Z".into();
    world.github.instead("files GET /lfs/", [limit()]);
    let outcome = world.backup.run(&Request::default(), within(30)).await.unwrap();
    assert!(matches!(outcome, Outcome::Waiting { backup: 2, left: 1 }), "{outcome:?}");
    world.calls();
    let manifest = world.run().await;
    assert_eq!(of(&manifest, name).lfs.as_ref().unwrap().count, 1);
    assert_eq!(of(&manifest, name).lists["labels"].objects.len(), 1);
    assert!(!world.calls().iter().any(|call| call.ends_with("fetch")), "the pack was read before");
    assert_eq!(world.backup.verify(None, true).await.unwrap().strays, Vec::<String>::new());
}

#[tokio::test]
async fn a_repository_that_comes_no_further_does_not_keep_the_others_from_a_backup() {
    let world = World::with(&[("MODE", "mirror"), ("AT_ONCE", "1"), ("WITH", "")]).await;
    for (id, name) in [(1, "acme/a"), (2, "acme/b")] {
        world.github.make(id, name).unwrap();
        world.github.commit(name, "main", "a", b"a\n").unwrap();
    }
    let mut waiting = 0;
    let manifest = loop {
        world.github.instead("git POST /acme/a.git/git-upload-pack fetch", [limit()]);
        match world.backup.run(&Request::default(), within(30)).await.unwrap() {
            Outcome::Waiting { .. } => waiting += 1,
            other => break made(other),
        }
    };
    assert_eq!(waiting, 2);
    assert_eq!((status(&manifest, "acme/a"), status(&manifest, "acme/b")), (Status::Failed, Status::Done));
    assert!(of(&manifest, "acme/a").problems[0].why.contains("on a machine"), "{manifest:?}");
}

#[tokio::test]
async fn reviews_go_on_from_the_pull_request_that_was_read_last() {
    let world = World::mirroring().await;
    let name = "acme/shop";
    world.github.make(1, name).unwrap();
    world.github.commit(name, "main", "a", b"a\n").unwrap();
    let pull =
        |number: u64| serde_json::json!({ "id": number, "number": number, "updated_at": "2026-01-01T00:00:00Z" });
    world.github.known().lists.insert(format!("{name}/pulls"), (1..=6).map(pull).collect());
    for number in 1..=6 {
        let review = serde_json::json!({ "id": 100 + number, "title": "approved" });
        world.github.known().lists.insert(format!("{name}/pulls/{number}/reviews"), vec![review]);
    }
    world.github.instead("api GET /repos/acme/shop/pulls/4/reviews", [limit()]);
    let outcome = world.backup.run(&Request::default(), within(30)).await.unwrap();
    assert!(matches!(outcome, Outcome::Waiting { .. }), "{outcome:?}");
    world.calls();
    let manifest = world.run().await;
    assert!(manifest.complete);
    let reviews = world.calls().into_iter().filter(|call| call.contains("/reviews")).count();
    assert_eq!(reviews, 3);
    let folder = world.restored(name, None).await;
    assert_eq!(std::fs::read_to_string(folder.join("reviews.jsonl")).unwrap().lines().count(), 6);
}

#[tokio::test]
async fn what_changes_while_pages_are_read_hides_nothing() {
    let world = World::mirroring().await;
    world.github.known().page = 3;
    let name = "acme/shop";
    world.github.make(1, name).unwrap();
    world.github.commit(name, "main", "a", b"a\n").unwrap();
    let item = |id: u64, second: u64| serde_json::json!({ "id": id, "number": id, "title": id.to_string(), "updated_at": format!("2026-01-02T00:00:{second:02}Z") });
    for (list, path) in [("comments", "issues/comments"), ("issues", "issues"), ("review_comments", "pulls/comments")] {
        let before: Vec<_> = (1..=9).map(|id| item(id, id)).collect();
        // The second is changed while the first page is read: it moves to the end, and all after it up.
        let after = (1..=9).map(|id| item(id, if id == 2 { 30 } else { id })).collect();
        let list_of = format!("{name}/{path}");
        world.github.known().lists.insert(list_of.clone(), before);
        world.github.known().then = Some((format!("api GET /repos/{list_of}?"), list_of, after));
        world.github.known().repositories[0]["updated_at"] = list.into();
        assert!(world.run().await.complete);
        let folder = world.restored(name, None).await;
        let lines = std::fs::read_to_string(folder.join(format!("{list}.jsonl"))).unwrap();
        assert_eq!(lines.lines().count(), 9, "{list}");
    }
}

#[tokio::test]
async fn what_single_sign_on_hides_is_neither_gone_nor_forgotten() {
    let world = World::mirroring().await;
    for (id, name) in [(1, "acme/shop"), (2, "club/rules")] {
        world.github.make(id, name).unwrap();
        world.github.commit(name, "main", "a", b"a\n").unwrap();
    }
    world.run().await;
    let hidden = world.github.known().repositories.remove(1);
    world.github.known().sso = Some("partial-results; organizations=21955855".into());
    let sso = Instead {
        body: "{\"message\": \"Resource protected by organization SAML enforcement\"}".into(),
        ..answer(403, &[])
    };
    world.github.instead("api GET /repositories/2", [sso]);
    let manifest = world.run().await;
    assert_eq!(status(&manifest, "club/rules"), Status::Failed);
    assert!(
        !manifest.complete && manifest.lacks.len() == 1 && of(&manifest, "club/rules").git.is_some(),
        "{manifest:?}"
    );
    // One that a page hid, because another was deleted meanwhile, is read as the others.
    world.github.known().sso = None;
    world.github.commit("club/rules", "main", "b", b"b\n").unwrap();
    let found = Instead { status: 200, body: hidden.to_string(), ..Instead::default() };
    world.github.instead("api GET /repositories/2", [found]);
    let manifest = world.run().await;
    assert!(manifest.complete);
    assert_eq!(status(&manifest, "club/rules"), Status::Done);
}

#[tokio::test]
async fn a_list_of_files_that_is_damaged_fails_its_repository_alone() {
    let world = World::mirroring().await;
    for (id, name) in [(1, "acme/art"), (2, "acme/shop")] {
        world.github.make(id, name).unwrap();
        world.github.commit(name, "main", "a", b"a\n").unwrap();
    }
    let oid = world.github.commit_lfs("acme/art", "a.png", b"a picture").unwrap();
    world.run().await;
    let list = world.keys().await.into_iter().find(|key| key.ends_with("lfs.jsonl")).unwrap();
    world.store.put(&list, "{}".into()).await.unwrap();
    for name in ["acme/art", "acme/shop"] {
        world.github.commit(name, "main", "a", b"b\n").unwrap();
    }
    let manifest = world.run().await;
    assert_eq!((status(&manifest, "acme/art"), status(&manifest, "acme/shop")), (Status::Failed, Status::Done));
    assert!(of(&manifest, "acme/art").problems[0].why.contains("--full"), "{manifest:?}");
    // Read in full, it is mended; and an object that was changed too.
    let key = format!("repositories/1/lfs/{}/{oid}", &oid[..2]);
    world.store.put(&key, "b picture".into()).await.unwrap();
    let full = Request { only: vec!["acme/art".into()], is_full: true };
    assert!(made(world.backup.run(&full, within(60)).await.unwrap()).complete);
    assert_eq!(world.backup.verify(None, true).await.unwrap().damage, []);
}

#[tokio::test]
async fn a_run_that_is_beaten_by_one_that_has_less_makes_a_backup_of_its_own() {
    let world = World::with(&[("MODE", "mirror"), ("LARGEST", "1MB")]).await;
    world.github.make(1, "acme/big").unwrap();
    world.github.commit("acme/big", "main", "a", b"a\n").unwrap();
    world.github.known().repositories[0]["size"] = 5000.into();
    let machine = world.again(&[("MODE", "mirror")]).await;
    // The function's run ends while the machine's reads.
    let slow = answer(429, &[("retry-after", "2")]);
    world.github.instead("git POST /acme/big.git/git-upload-pack fetch", [slow]);
    let all = Request::default();
    let (of_machine, of_function) = tokio::join!(machine.run(&all, within(60)), world.backup.run(&all, within(60)));
    let function = made(of_function.unwrap());
    assert_eq!((function.backup, status(&function, "acme/big")), (1, Status::Skipped));
    let machine = made(of_machine.unwrap());
    assert_eq!((machine.backup, status(&machine, "acme/big")), (2, Status::Done));
    assert!(machine.complete);
    let verified = world.backup.verify(None, true).await.unwrap();
    assert_eq!((verified.damage.len(), verified.strays.len()), (0, 0));
}

#[tokio::test]
async fn a_full_run_that_has_no_time_leaves_nothing_out_that_was_kept() {
    let world = World::mirroring().await;
    let name = "acme/art";
    world.github.known().page = 3;
    world.github.make(1, name).unwrap();
    world.github.commit_lfs(name, "a.png", b"a picture").unwrap();
    let issue =
        |id: u64| serde_json::json!({ "id": id, "number": id, "updated_at": format!("2026-01-02T00:00:0{id}Z") });
    world.github.known().lists.insert(format!("{name}/issues"), (1..=9).map(issue).collect());
    world.run().await;
    // Of issues a page is read, and no LFS object.
    world
        .github
        .instead("api GET /repos/acme/art/issues?state=all&sort=updated&direction=asc&per_page=100&since", [limit()]);
    world.github.instead("git POST /acme/art.git/info/lfs", [answer(402, &[])]);
    let full = Request { is_full: true, ..Request::default() };
    let outcome = world.backup.run(&full, within(30)).await.unwrap();
    assert!(matches!(outcome, Outcome::Waiting { .. }), "{outcome:?}");
    let manifest = world.run().await;
    assert!(manifest.complete, "{manifest:?}");
    let folder = world.restored(name, None).await;
    assert_eq!(std::fs::read_to_string(folder.join("issues.jsonl")).unwrap().lines().count(), 9);

    // Where the quota is spent, what was kept before is kept.
    world.github.instead("git POST /acme/art.git/info/lfs", [answer(402, &[])]);
    let manifest = made(world.backup.run(&full, within(60)).await.unwrap());
    assert_eq!((status(&manifest, name), of(&manifest, name).lfs.as_ref().unwrap().count), (Status::Failed, 1));
    assert!(world.restored(name, None).await.join("art.git/lfs").exists());
    assert!(world.run().await.complete);
}

#[tokio::test]
async fn a_repository_that_is_deleted_before_the_backup_ends_has_what_was_read_of_it() {
    let world = World::with(&[("MODE", "mirror"), ("WITH", ""), ("AT_ONCE", "1")]).await;
    for (id, name) in [(1, "acme/a"), (2, "acme/b")] {
        world.github.make(id, name).unwrap();
        world.github.commit(name, "main", "a", b"a\n").unwrap();
    }
    world.run().await;
    for name in ["acme/a", "acme/b"] {
        world.github.commit(name, "main", "a", b"b\n").unwrap();
    }
    let refs = refs_of(&world.github.repository("acme/a"));
    world.github.instead("git GET /acme/b.git/info/refs", [limit()]);
    let outcome = world.backup.run(&Request::default(), within(30)).await.unwrap();
    assert!(matches!(outcome, Outcome::Waiting { .. }), "{outcome:?}");
    world.github.known().repositories.remove(0);
    let manifest = world.run().await;
    assert_eq!((manifest.backup, status(&manifest, "acme/a")), (2, Status::Gone));
    world.comes_back("acme/a", None, &refs).await;
}

#[tokio::test]
async fn what_had_not_changed_is_not_asked_for_again_by_the_run_that_goes_on() {
    let world = World::with(&[("MODE", "mirror"), ("AT_ONCE", "1")]).await;
    for (id, name) in [(1, "acme/a"), (2, "acme/b"), (3, "acme/c")] {
        world.github.make(id, name).unwrap();
        world.github.commit(name, "main", "a", b"a\n").unwrap();
    }
    world.run().await;
    world.github.instead("git GET /acme/c.git/info/refs", [limit()]);
    let outcome = world.backup.run(&Request::default(), within(30)).await.unwrap();
    assert!(matches!(outcome, Outcome::Waiting { backup: 2, left: 1 }), "{outcome:?}");
    world.calls();
    let manifest = world.run().await;
    assert_eq!((manifest.backup, manifest.count(Status::Unchanged)), (2, 3));
    let calls = world.calls();
    assert!(!calls.iter().any(|call| call.contains("/acme/a") || call.contains("/acme/b")), "{calls:?}");
}
