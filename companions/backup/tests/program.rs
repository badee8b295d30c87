//! The program, as people run it.

use blackwater_tests::Emulator;
use serde_json::json;
use tokio::process::Command;

use super::*;

/// What it prints, and how it ends.
async fn run(arguments: &[&str], aws: &str, settings: &[(&str, &str)]) -> (i32, String) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("backup.toml"), "mode = \"mirror\"\n").unwrap();
    let own = [("AWS_REGION", "us-east-1"), ("AWS_ENDPOINT_URL", aws)];
    let login = [("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY)];
    let settings = settings.iter().map(|(name, value)| (format!("BACKUP_{name}"), (*value).to_owned()));
    let aws = own.into_iter().chain(login).map(|(name, value)| (name.to_owned(), value.to_owned()));
    let done = Command::new(env!("CARGO_BIN_EXE_backup"))
        .current_dir(folder.path())
        .args(arguments)
        .env_clear()
        .envs(aws.chain(settings))
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let text = [done.stdout, done.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
    assert!(!text.contains(TOKEN), "{text}");
    (done.status.code().unwrap(), text)
}

#[tokio::test(flavor = "multi_thread")]
async fn its_exit_code_says_what_became_of_it() {
    let world = World::mirroring().await;
    for (id, name) in [(1, "acme/shop"), (2, "acme/blocked")] {
        world.github.make(id, name).unwrap();
        world.github.commit(name, "main", "a", b"a\n").unwrap();
    }
    let (api, git_host) = (world.github.api(), world.github.git());
    let settings = [("BUCKET", "backups"), ("TOKEN", TOKEN), ("API", &api), ("GIT", &git_host)];
    let endpoint = world.s3.endpoint();
    let backup = async |arguments: &[&str]| run(arguments, &endpoint, &settings).await;

    let (code, text) = backup(&["run"]).await;
    assert!(code == 0 && text.contains("backup 1 of ") && text.contains(": 2 done\n"), "{code}: {text}");
    assert_eq!(backup(&["verify", "--deep"]).await.0, 0);
    world.github.known().refused.insert("acme/blocked".into(), (451, "Repository access blocked".into()));
    let (code, text) = backup(&["run"]).await;
    assert!(
        code == 3 && text.contains("not backed up: acme/blocked: git: ") && text.contains("1 unchanged, 1 failed; "),
        "{code}: {text}"
    );
    let (code, text) = backup(&["list"]).await;
    assert!(code == 0 && text.lines().count() == 2, "{code}: {text}");
    let (code, text) = backup(&["list", "2"]).await;
    assert!(
        code == 0 && text.contains("\nfailed              1                1") && text.contains("  acme/shop\n"),
        "{code}: {text}"
    );
    let (code, text) = backup(&["verify"]).await;
    assert!(code == 3 && text.contains("backup 2: 2 objects"), "{code}: {text}");
    // One that stays blocked is left out by the settings; then nothing lacks.
    let excluding: Vec<_> = settings.into_iter().chain([("EXCLUDE", "acme/blocked")]).collect();
    assert_eq!(run(&["run"], &endpoint, &excluding).await.0, 0);
    let lost = [("BUCKET", "backups")];
    let (code, text) = run(&["verify"], &endpoint, &lost).await;
    assert!(code == 0 && text.contains("backup 3: 2 objects"), "without a token: {code}: {text}");
    let (code, text) = run(&["run"], &endpoint, &lost).await;
    assert!(code == 2 && text.starts_with("secret: not set"), "{code}: {text}");
    let folder = world.folder.path().join("back").display().to_string();
    let (code, text) = backup(&["restore", "acme/shop", &folder, "--at", "1"]).await;
    assert!(code == 0 && text.contains(&format!("{folder}/shop.git\n")), "{code}: {text}");

    let key = world.keys().await.into_iter().find(|key| key.ends_with("git.bundle")).unwrap();
    world.store.put(&key, "damage".into()).await.unwrap();
    let (code, text) = backup(&["verify"]).await;
    assert!(code == 1 && text.contains(&format!("damaged: {key} (")), "{code}: {text}");
    let (code, text) = backup(&["restore", "acme/none", &folder]).await;
    assert!(code == 2 && text.contains("is not empty"), "{code}: {text}");
    let wrong = [("BUCKET", "none"), ("TOKEN", TOKEN), ("API", &api), ("GIT", &git_host)];
    let (code, text) = run(&["run"], &endpoint, &wrong).await;
    assert!(code == 2 && text.contains("bucket none does not exist\nCreate it, or correct bucket"), "{code}: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secret_of_the_original_is_enough_and_check_sees_whether_the_bucket_is_locked() {
    let github = Services::start().await.unwrap();
    for (id, name) in [(1, "acme/shop"), (2, "widgets/tools")] {
        github.make(id, name).unwrap();
        github.commit(name, "main", "a", b"a\n").unwrap();
    }
    let of_original = |only: &str| json!({ "TOKEN_GITHUB": TOKEN, "BACKUP_ONLY_OWNER_REPOS": only, "BACKUP_S3_BUCKET": "locked", "BACKUP_S3_PREFIX": "my-prefix" });
    let secrets =
        json!({ "prod/github-backup": of_original("True"), "odd": of_original("yes"), "none": { "token": TOKEN } });
    let emulator = Emulator::start(&secrets).await;
    let endpoint = emulator.endpoint.clone();
    let (api, git) = (github.api(), github.git());
    let with = |secret| [("SECRET", secret), ("API", api.as_str()), ("GIT", git.as_str())];
    let (code, text) = run(&["run"], &endpoint, &with("prod/github-backup")).await;
    assert!(code == 0 && text.contains(": 1 done\n"), "{code}: {text}");
    let (code, text) = run(&["verify", "--deep"], &endpoint, &with("prod/github-backup")).await;
    assert!(code == 0 && text.contains("0 damaged"), "{code}: {text}");
    let (code, text) = run(&["check"], &endpoint, &with("prod/github-backup")).await;
    for line in [
        "ok     locked/my-prefix/ can be listed and written",
        "ok     locked keeps older versions",
        "ok     locked lets nothing be removed: governance, for 90 days",
        "ok     1 of 2 repositories",
    ] {
        assert!(code == 0 && text.contains(line), "{line}: {text}");
    }
    let open =
        [("SECRET", "prod/github-backup"), ("API", &api), ("GIT", &git), ("BUCKET", "open"), ("ONLY_OWNER", "false")];
    let (code, text) = run(&["check"], &endpoint, &open).await;
    // How the emulator answers whether a bucket is versioned cannot be read.
    for line in ["FAIL   whether older versions are kept cannot be seen", "ok     2 of 2 repositories"] {
        assert!(code == 1 && text.contains(line), "{line}: {text}");
    }
    let (code, text) = run(&["run"], &endpoint, &with("odd")).await;
    assert!(code == 2 && text.contains("BACKUP_ONLY_OWNER_REPOS in the secret: neither true nor false"), "{text}");
    let (code, text) = run(&["run"], &endpoint, &with("none")).await;
    assert!(code == 2 && text.contains("Give it the text {\"TOKEN_GITHUB\": \"…\"}"), "{text}");
}
