//! What is found of damage.

use backup::verify::Verified;

use super::*;

struct Kept {
    world: World,
    manifest: Manifest,
}

const NAME: &str = "acme/shop";

async fn kept() -> Kept {
    let world = World::with(&[("MODE", "mirror,zip")]).await;
    world.github.make(1, NAME).unwrap();
    let issue = serde_json::json!({ "id": 1, "number": 1, "title": "One", "updated_at": "2026-01-01T00:00:00Z" });
    world.github.known().lists.insert(format!("{NAME}/issues"), vec![issue]);
    let noise = noise(50_000, 7);
    world.github.commit(NAME, "main", "noise", &noise).unwrap();
    world.github.commit_lfs(NAME, "a.png", b"a picture").unwrap();
    world.run().await;
    world.github.commit(NAME, "main", "a", b"changed\n").unwrap();
    let manifest = world.run().await;
    assert!(manifest.complete, "{manifest:?}");
    Kept { world, manifest }
}

impl Kept {
    async fn verify(&self, is_deep: bool) -> Verified {
        self.world.backup.verify(None, is_deep).await.unwrap()
    }

    /// The one damage that is found.
    async fn damage(&self) -> (String, String) {
        let found = self.verify(false).await.damage;
        let [damage] = &found[..] else { panic!("{found:?}") };
        assert_eq!(damage.repository, NAME);
        (damage.key.clone(), damage.why.clone())
    }

    /// What has a key that ends so.
    async fn key(&self, end: &str) -> String {
        self.world.keys().await.into_iter().find(|key| key.ends_with(end)).unwrap()
    }
}

#[tokio::test]
async fn what_was_written_is_found_sound() {
    let kept = kept().await;
    let verified = kept.verify(true).await;
    assert_eq!((verified.damage.len(), verified.strays.len(), verified.incomplete.len()), (0, 0, 0), "{verified:?}");
    // Two bundles, an archive, an LFS object and the list of it, the issues.
    assert_eq!(verified.objects, 6);
    // Three commits, their trees and three files.
    assert_eq!(verified.git_objects, 9 - 3);
    assert_eq!(kept.world.backup.verify(Some(1), true).await.unwrap().objects, 5);
    let _ = &kept.manifest;
}

#[tokio::test]
async fn a_byte_that_is_another_is_found_wherever_it_is() {
    let kept = kept().await;
    let keys = kept.world.keys().await;
    let of_newest: Vec<_> = keys
        .iter()
        .filter(|key| key.starts_with("repositories/") || key.ends_with(".zip"))
        .filter(|key| !key.contains(&format!("{}/acme_shop.zip", kept.manifest.date)))
        .collect();
    assert_eq!(of_newest.len(), 6, "{of_newest:?}");
    for key in of_newest {
        let path = kept.world.file(key);
        let sound = std::fs::read(&path).unwrap();
        let mut bytes = sound.clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        // The bucket may find it itself.
        let (found, why) = kept.damage().await;
        assert!(found == *key && (why == "its checksum differs" || why.contains("cannot be read")), "{key}: {why}");
        std::fs::write(&path, &sound[..sound.len() - 1]).unwrap();
        let (found, why) = kept.damage().await;
        assert!(found == *key && why.contains("bytes in place of"), "{key}: {why}");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(kept.damage().await, (key.clone(), "it is not there".into()));
        std::fs::write(&path, &sound).unwrap();
        assert_eq!(kept.verify(false).await.damage, []);
    }
}

#[tokio::test]
async fn what_is_damaged_is_not_restored() {
    let kept = kept().await;
    let key = kept.key("git.bundle").await;
    let path = kept.world.file(&key);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let folder = kept.world.folder.path().join("restored");
    let error = kept.world.backup.restore(NAME, None, &folder).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("{key} is damaged")), "{error}");
    assert!(!folder.exists());
    let left = std::fs::read_dir(kept.world.folder.path()).unwrap();
    assert!(!left.flatten().any(|file| file.file_name().to_string_lossy().contains("restoring")));
}

#[tokio::test]
async fn objects_that_no_backup_has_are_named() {
    let kept = kept().await;
    for key in ["repositories/1/000099-aaaa/git.bundle", "2026-01-01/acme_other.zip"] {
        kept.world.store.put(key, "planted".into()).await.unwrap();
    }
    let verified = kept.verify(false).await;
    assert_eq!(verified.strays, ["2026-01-01/acme_other.zip", "repositories/1/000099-aaaa/git.bundle"]);
    assert_eq!(verified.damage, []);
}

/// Writes a manifest other than it was, as somebody may who has the right to write to the bucket.
async fn rewritten(kept: &Kept, change: impl Fn(&mut serde_json::Value)) {
    let key = format!("backups/{:012}.json", kept.manifest.backup);
    let text = kept.world.store.get(&key).await.unwrap().unwrap();
    let mut manifest = serde_json::from_slice(&text).unwrap();
    change(&mut manifest);
    kept.world.store.put(&key, manifest.to_string().into()).await.unwrap();
}

#[tokio::test]
async fn refs_that_lead_to_something_missing_are_found_when_bundles_are_unpacked() {
    let kept = kept().await;
    rewritten(&kept, |manifest| {
        manifest["repositories"][0]["git"]["bundles"].as_array_mut().unwrap().remove(0);
    })
    .await;
    assert_eq!(kept.verify(false).await.damage, []);
    let damage = kept.verify(true).await.damage;
    assert!(damage.len() == 1 && damage[0].why.contains("is missing"), "{damage:?}");
    rewritten(&kept, |manifest| {
        manifest["repositories"][0]["git"]["refs"][0]["hash"] = "0123456789012345678901234567890123456789".into();
    })
    .await;
    let damage = kept.verify(true).await.damage;
    assert!(damage.len() == 1 && damage[0].why.contains("has no object"), "{damage:?}");
}

#[tokio::test]
async fn a_manifest_of_a_newer_program_is_not_misread() {
    let kept = kept().await;
    rewritten(&kept, |manifest| manifest["format"] = 2.into()).await;
    let error = kept.world.backup.verify(None, false).await.unwrap_err().to_string();
    assert!(error.contains("it has the form 2, which is newer than this program"), "{error}");
    // Nor is a backup made on top of it.
    let error = kept.world.backup.run(&Request::default(), within(60)).await.unwrap_err().to_string();
    assert!(error.contains("newer than this program"), "{error}");
    assert_eq!(kept.world.backup.verify(Some(1), false).await.unwrap_err().to_string(), error);
}

#[tokio::test]
async fn a_folder_that_has_something_is_left_as_it_is() {
    let kept = kept().await;
    let folder = kept.world.folder.path().join("mine");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("mine.txt"), "mine").unwrap();
    let error = kept.world.backup.restore(NAME, None, &folder).await.unwrap_err().to_string();
    assert!(error.contains("mine is not empty"), "{error}");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
    let none = kept.world.backup.restore("acme/none", None, &folder.join("new")).await.unwrap_err().to_string();
    assert!(none.starts_with("there is no repository acme/none in backup 2"), "{none}");
    let none = kept.world.backup.restore(NAME, Some(7), &folder.join("new")).await.unwrap_err().to_string();
    assert!(none.starts_with("there is no backup 7"), "{none}");
    // An empty one is filled.
    let empty = kept.world.folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    kept.world.backup.restore(NAME, None, &empty).await.unwrap();
    assert!(empty.join("shop.git/HEAD").exists());
}

#[tokio::test]
async fn check_says_what_the_token_may_see_and_when_it_ends() {
    let world = World::mirroring().await;
    let checked = world.backup.check(within(30)).await;
    assert!(checked.wrong.iter().any(|line| line.starts_with("no repository is to be backed up")), "{checked:?}");
    world.github.make(1, NAME).unwrap();
    world.github.commit(NAME, "main", "a", b"a\n").unwrap();
    world.github.known().headers = vec![
        ("x-oauth-scopes", "gist, read:org".into()),
        ("github-authentication-token-expiration", "2026-01-01 00:00:00 UTC".into()),
    ];
    let checked = world.backup.check(within(30)).await;
    for begin in ["the token is acme's, and has not the scope repo", "the token expires on 2026-01-01"] {
        assert!(checked.wrong.iter().any(|line| line.starts_with(begin)), "{checked:?}");
    }
    for begin in ["backups/ can be listed and written", "1 of 1 repositories", "acme/shop can be read: it has 2 refs"] {
        assert!(checked.well.iter().any(|line| line.starts_with(begin)), "{checked:?}");
    }
    // The token of a scope that is enough, for a long time.
    world.github.known().headers = vec![
        ("x-oauth-scopes", "repo".into()),
        ("github-authentication-token-expiration", "2099-01-01 00:00:00 +0000".into()),
    ];
    let checked = world.backup.check(within(30)).await;
    assert!(checked.wrong.iter().all(|line| line.contains("backups")), "{checked:?}");
}
