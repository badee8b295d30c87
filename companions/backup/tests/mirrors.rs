//! Repositories as bundles, and back.

use super::*;

fn some_history(github: &Services, name: &str) {
    // Large beside what comes.
    github.commit(name, "main", "noise", &noise(50_000, 3)).unwrap();
    for number in 0..5 {
        let content = format!("line {number}\n").repeat(200 + number);
        github.commit(name, "main", "read.me", content.as_bytes()).unwrap();
    }
    github.commit(name, "other/branch", "other.txt", b"other\n").unwrap();
    github.commit(name, "third", "third.txt", b"third\n").unwrap();
    let path = github.repository(name);
    git(&path, &["tag", "-a", "v1", "-m", "The first", "main~1"]).unwrap();
    git(&path, &["tag", "light", "third"]).unwrap();
    git(&path, &["tag", "-a", "of-a-tag", "-m", "A tag of a tag", "v1"]).unwrap();
    git(&path, &["update-ref", "refs/pull/7/head", "third"]).unwrap();
    for of_no_kind in ["refs/notes/commits", "refs/stash", "refs/pulled", "refs/pull-me/7", "refs/Meta/x"] {
        git(&path, &["update-ref", of_no_kind, "other/branch"]).unwrap();
    }
}

/// The refs but for those of pull requests, which are not kept by default.
fn kept(path: &Path) -> BTreeMap<String, String> {
    refs_of(path).into_iter().filter(|(name, _)| !name.starts_with("refs/pull/")).collect()
}

#[tokio::test]
async fn a_repository_comes_back_as_it_was_at_each_backup() {
    let world = World::mirroring().await;
    let name = "acme/shop";
    world.github.make(1, name).unwrap();
    some_history(&world.github, name);
    let path = world.github.repository(name);
    let mut states = vec![kept(&path)];
    let manifest = world.run().await;
    assert!(manifest.complete, "{manifest:?}");
    assert_eq!(of(&manifest, name).git.as_ref().unwrap().bundles.len(), 1);

    // More commits, and a tag.
    world.github.commit(name, "main", "more.txt", b"more\n").unwrap();
    git(&path, &["tag", "-a", "v2", "-m", "The second", "main"]).unwrap();
    states.push(kept(&path));
    let manifest = world.run().await;
    assert_eq!(of(&manifest, name).git.as_ref().unwrap().bundles.len(), 2);

    // A force-push to what has another history, a branch that is gone, and a tag that moved.
    let other = git(&path, &["commit-tree", "main^{tree}", "-m", "Begin anew"]).unwrap();
    git(&path, &["update-ref", "refs/heads/main", &other]).unwrap();
    git(&path, &["update-ref", "-d", "refs/heads/third"]).unwrap();
    git(&path, &["tag", "-f", "light", "main"]).unwrap();
    git(&path, &["reflog", "expire", "--expire=now", "--all"]).unwrap();
    git(&path, &["gc", "--quiet", "--prune=now"]).unwrap();
    states.push(kept(&path));
    world.run().await;

    // A branch that is gone alone: nothing is sent.
    world.calls();
    git(&path, &["update-ref", "-d", "refs/heads/other/branch"]).unwrap();
    git(&path, &["update-ref", "--no-deref", "HEAD", "v1^{commit}"]).unwrap();
    states.push(kept(&path));
    let manifest = world.run().await;
    assert_eq!(status(&manifest, name), Status::Done);
    let calls = world.calls();
    assert!(!calls.iter().any(|call| call.ends_with("fetch")), "{calls:?}");

    for (number, refs) in states.iter().enumerate() {
        world.comes_back(name, Some(number as u64 + 1), refs).await;
    }
    world.comes_back(name, None, &states[3]).await;
}

#[tokio::test]
async fn bundles_are_those_of_git() {
    let world = World::with(&[("MODE", "mirror"), ("PULL_REFS", "true")]).await;
    let name = "acme/shop";
    world.github.make(1, name).unwrap();
    some_history(&world.github, name);
    let path = world.github.repository(name);
    let first = refs_of(&path);
    assert!(first.contains_key("refs/pull/7/head"));
    world.run().await;
    for number in 0..2 {
        world.github.commit(name, "main", &format!("{number}.txt"), b"more\n").unwrap();
        world.run().await;
    }
    let bundles = of(&world.run().await, name).git.clone().unwrap().bundles;
    assert_eq!(bundles.len(), 3);
    // Of git alone: a clone of the first bundle, and what the others add.
    let clone = world.folder.path().join("clone");
    let file = |number: usize| world.file(&bundles[number].key).display().to_string();
    git(world.folder.path(), &["clone", "--quiet", "--mirror", &file(0), &clone.display().to_string()]).unwrap();
    assert_eq!(refs_of(&clone), first);
    for number in 0..3 {
        git(&clone, &["bundle", "verify", "--quiet", &file(number)]).unwrap();
        git(&clone, &["fetch", "--quiet", "--prune", &file(number), "+refs/*:refs/*"]).unwrap();
    }
    assert_eq!(refs_of(&clone), refs_of(&path));
    git(&clone, &["fsck", "--full", "--strict"]).unwrap();
    world.comes_back(name, None, &refs_of(&path)).await;
}

#[tokio::test]
async fn a_mirror_is_read_in_full_again_after_some_increments() {
    let world = World::with(&[("MODE", "mirror"), ("FULL_EVERY", "2")]).await;
    let name = "acme/shop";
    world.github.make(1, name).unwrap();
    // Large beside what comes.
    let noise = noise(200_000, 7);
    world.github.commit(name, "main", "noise", &noise).unwrap();
    let mut counts = Vec::new();
    for number in 0..6 {
        world.github.commit(name, "main", "n.txt", format!("{number}\n").as_bytes()).unwrap();
        counts.push(of(&world.run().await, name).git.as_ref().unwrap().bundles.len());
    }
    assert_eq!(counts, [1, 2, 3, 1, 2, 3]);
    // What is added is larger than half of what was there.
    for file in ["a", "b"] {
        let other = super::noise(200_000, u64::from(file.as_bytes()[0]));
        world.github.commit(name, "main", file, &other).unwrap();
        counts.push(of(&world.run().await, name).git.as_ref().unwrap().bundles.len());
    }
    assert_eq!(counts[6..], [1, 2]);
    world.comes_back(name, None, &refs_of(&world.github.repository(name))).await;
}

#[tokio::test]
async fn nothing_is_read_again_of_what_has_not_changed() {
    let world = World::with(&[("MODE", "mirror,zip")]).await;
    for id in 1..=5 {
        let name = format!("acme/r{id}");
        world.github.make(id, &name).unwrap();
        world.github.commit(&name, "main", "a.txt", b"a\n").unwrap();
    }
    let first = world.run().await;
    world.calls();
    let second = world.run().await;
    assert_eq!(second.count(Status::Unchanged), 5, "{second:?}");
    for (before, after) in first.repositories.iter().zip(&second.repositories) {
        assert_eq!((&before.git, &before.zip, before.since), (&after.git, &after.zip, 1));
    }
    let calls = world.calls();
    assert_eq!(calls.iter().filter(|call| call.starts_with("api ")).count(), 3, "{calls:?}");
    assert_eq!(calls.iter().filter(|call| call.ends_with("ls-refs")).count(), 5);
    assert!(!calls.iter().any(|call| call.ends_with("fetch") || call.contains("zipball")));

    world.github.commit("acme/r3", "main", "a.txt", b"b\n").unwrap();
    let third = world.run().await;
    assert_eq!((third.count(Status::Unchanged), third.count(Status::Done)), (4, 1));
    assert_eq!(status(&third, "acme/r3"), Status::Done);
    assert_eq!(world.calls().iter().filter(|call| call.ends_with("fetch")).count(), 1);
    // All is read again if that is asked for.
    let all = Request { is_full: true, ..Request::default() };
    let fourth = made(world.backup.run(&all, within(60)).await.unwrap());
    assert_eq!(fourth.count(Status::Done), 5);
}

#[tokio::test]
async fn lfs_objects_are_kept_once_and_come_back_where_git_lfs_looks() {
    let world = World::mirroring().await;
    let name = "acme/art";
    world.github.make(1, name).unwrap();
    let mut contents = BTreeMap::new();
    for number in 0..40 {
        let content = format!("picture {number}").repeat(1000).into_bytes();
        let oid = world.github.commit_lfs(name, &format!("pictures/{number}.png"), &content).unwrap();
        contents.insert(oid, content);
    }
    // Pointers that came after each other are deltas of each other in a packed repository.
    for number in 0..10 {
        let content = format!("changed {number}").into_bytes();
        let oid = world.github.commit_lfs(name, "pictures/0.png", &content).unwrap();
        contents.insert(oid, content);
    }
    world
        .github
        .commit(name, "main", "read.me", b"version https://git-lfs.github.com/spec/v1 is no pointer\n")
        .unwrap();
    git(&world.github.repository(name), &["repack", "-adfq", "--depth=50", "--window=50"]).unwrap();
    let gone = world.github.commit_lfs(name, "gone.png", b"gone").unwrap();
    world.github.known().lfs.remove(&gone);

    let manifest = world.run().await;
    let lfs = of(&manifest, name).lfs.clone().unwrap();
    assert_eq!((lfs.count, lfs.waiting.len(), lfs.missing.len()), (50, 0, 1), "{manifest:?}");
    assert_eq!(lfs.missing[0].name, gone);
    assert!(manifest.complete);
    world.calls();

    let late = world.github.commit_lfs(name, "late.png", b"late").unwrap();
    contents.insert(late, b"late".to_vec());
    let manifest = world.run().await;
    assert_eq!(of(&manifest, name).lfs.as_ref().unwrap().count, 51);
    let reads = world.calls().iter().filter(|call| call.starts_with("files GET")).count();
    assert_eq!(reads, 1);

    let folder = world.restored(name, None).await;
    for (oid, content) in contents {
        let path = folder.join(format!("art.git/lfs/objects/{}/{}/{oid}", &oid[..2], &oid[2..4]));
        assert!(std::fs::read(path).unwrap() == content, "{oid}");
    }
}

#[tokio::test]
async fn a_wiki_is_kept_if_it_has_a_page() {
    let world = World::mirroring().await;
    for (id, name) in [(1, "acme/with"), (2, "acme/without")] {
        world.github.make(id, name).unwrap();
        world.github.commit(name, "main", "a", b"a\n").unwrap();
    }
    for one in &mut world.github.known().repositories {
        one["has_wiki"] = true.into();
    }
    let path = world.github.repository("acme/with.wiki");
    std::fs::create_dir_all(&path).unwrap();
    git(&path, &["init", "--quiet", "--bare", "--initial-branch=master", "."]).unwrap();
    world.github.commit("acme/with.wiki", "master", "Home.md", b"# Home\n").unwrap();
    let manifest = world.run().await;
    assert!(manifest.complete, "{manifest:?}");
    assert!(of(&manifest, "acme/with").wiki.is_some() && of(&manifest, "acme/without").wiki.is_none());
    // A page that is changed, with nothing else.
    world.github.commit("acme/with.wiki", "master", "Home.md", b"# At home\n").unwrap();
    let manifest = world.run().await;
    assert_eq!((status(&manifest, "acme/with"), status(&manifest, "acme/without")), (Status::Done, Status::Unchanged));
    // One that is kept is not taken for none when it is refused.
    let refusal = backup::services::Instead { status: 403, body: "{}".into(), ..Default::default() };
    world.github.instead("git GET /acme/with.wiki.git/info/refs", [refusal]);
    assert_eq!(status(&world.run().await, "acme/with"), Status::Failed);
    let folder = world.restored("acme/with", None).await;
    assert_eq!(refs_of(&folder.join("with.wiki.git")), refs_of(&path));
}

#[tokio::test]
async fn no_file_is_taken_for_a_pointer_that_may_be_one_where_there_are_none() {
    let world = World::mirroring().await;
    let name = "acme/text";
    world.github.make(1, name).unwrap();
    for number in 0..120u32 {
        let file = format!("folder-{}/part-{}.txt", number % 7, number % 11);
        let sum = blackwater_base::store::sha256(&number.to_le_bytes());
        let content =
            format!("First line, which stays\nSecond line {number}\n{sum}  a file\nLast line, which stays as well\n");
        world.github.commit(name, if number % 5 == 0 { "other" } else { "main" }, &file, content.as_bytes()).unwrap();
    }
    git(&world.github.repository(name), &["repack", "-adfq", "--depth=50", "--window=100"]).unwrap();
    let manifest = world.run().await;
    assert!(manifest.complete, "{manifest:?}");
    assert_eq!(of(&manifest, name).lfs, Some(backup::manifest::Files::default()));
}

#[tokio::test]
async fn pointers_of_a_time_when_none_were_looked_for_are_found_later() {
    let world = World::mirroring().await;
    let name = "acme/art";
    world.github.make(1, name).unwrap();
    world.github.commit_lfs(name, "a.png", b"first").unwrap();
    world.run().await;
    world.github.commit_lfs(name, "b.png", b"second").unwrap();
    let without = world.again(&[("MODE", "mirror"), ("WITH", "")]).await;
    made(without.run(&Request::default(), within(60)).await.unwrap());
    let manifest = world.run().await;
    assert_eq!(of(&manifest, name).lfs.as_ref().unwrap().count, 2);
}
