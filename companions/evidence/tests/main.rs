//! What is made of a month, with the services that it is read from and delivered to.

#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::Read;
use std::time::{Duration, SystemTime};

use blackwater_base::deadline::Deadline;
use blackwater_base::store::{Store, client};
use blackwater_http::Http;
use blackwater_local::s3::{ACCESS_KEY, S3, SECRET_KEY};
use blackwater_tests::Function;
use evidence::config::Config;
use evidence::manifest::{Manifest, State};
use evidence::services::{BITBUCKET, FOLDER, Instead, SLACK, Services};
use evidence::{AGENT, Evidence, Request, Target};
use serde_json::{Value, json};

const ADA: &str = "Ada <ada@example.com>";
const BEN: &str = "Ben <ben@example.com>";
const SHOP: &str = "acme/shop";

struct World {
    evidence: Evidence,
    store: Store,
    services: Services,
    s3: S3,
    folder: tempfile::TempDir,
}

impl World {
    /// One that delivers to all, with these settings over those of the file.
    async fn with(settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let s3 = S3::start(folder.path(), &["evidence"]).await.unwrap();
        let services = Services::start().await.unwrap();
        services.known().commits.insert(SHOP.into(), Vec::new());
        let file = folder.path().join("evidence.toml");
        std::fs::write(&file, file_of(&services.origin())).unwrap();
        let settings = settings.iter().map(|(name, value)| (format!("EVIDENCE_{name}"), (*value).to_owned()));
        let config = Config::read(Some(&file), settings).unwrap();
        let client = client(Some(&s3.endpoint()), Some((ACCESS_KEY, SECRET_KEY))).await;
        let store = Store::new(client, "evidence", "store.bucket");
        let evidence = Evidence::new(config, store.clone(), Http::new(AGENT).unwrap());
        Self { evidence, store, services, s3, folder }
    }

    async fn start() -> Self {
        Self::with(&[]).await
    }

    fn commits(&self, commits: Vec<Value>) {
        self.services.known().commits.insert(SHOP.into(), commits);
    }

    async fn run(&self) -> Manifest {
        self.run_within(Duration::from_secs(60)).await
    }

    async fn run_within(&self, time: Duration) -> Manifest {
        let request = Request { month: Some("2026-10".parse().unwrap()), is_anew: true, ..Request::default() };
        let manifest = self.evidence.run(request, Deadline::at(SystemTime::now() + time)).await.unwrap();
        assert_eq!(self.services.known().faults, Vec::<String>::new());
        manifest
    }

    /// The texts in somebody's zip, by name.
    async fn texts(&self, manifest: &Manifest, person: &str) -> BTreeMap<String, String> {
        let zip = manifest.people[person].zip.clone().unwrap_or_else(|| panic!("{person} has no zip"));
        let bytes = self.store.get(&zip.key).await.unwrap().unwrap();
        let mut zip = zip::ZipArchive::new(std::io::Cursor::new(bytes)).unwrap();
        let mut texts = BTreeMap::new();
        for number in 0..zip.len() {
            let mut text = String::new();
            let mut file = zip.by_index(number).unwrap();
            file.read_to_string(&mut text).unwrap();
            texts.insert(file.name().unwrap().into_owned(), text);
        }
        texts
    }

    /// The hashes of somebody's commits, in the order of the text.
    async fn hashes(&self, manifest: &Manifest, person: &str) -> Vec<String> {
        let texts = self.texts(manifest, person).await;
        let lines = texts.values().flat_map(|text| text.lines());
        lines.filter_map(|line| Some(line.strip_prefix("commit ")?.to_owned())).collect()
    }
}

fn file_of(origin: &str) -> String {
    format!(
        r##"zone = "Europe/Madrid"
[bitbucket]
repositories = ["{SHOP}"]
token = "{BITBUCKET}"
api = "{origin}/bitbucket"
login = "{origin}/bitbucket-login"
[[people]]
name = "ADA"
emails = ["ada@example.com", "ada@home.example", "*+ada@users.noreply.example.com"]
accounts = ["1:ada"]
[[people]]
name = "BEN"
emails = ["ben@example.com"]
accounts = ["1:ben"]
[[people]]
name = "CID"
emails = ["cid@example.com"]
[store]
bucket = "evidence"
[drive]
folder = "{FOLDER}"
key = '{{"client_id": "a", "client_secret": "b", "refresh_token": "refresh"}}'
api = "{origin}"
login = "{origin}/drive-login"
[slack]
token = "{SLACK}"
api = "{origin}/slack"
complete = {{ channel = "#events", text = "{{month_name}} is there" }}
people = {{ channel = "#events", text = "who is {{people}}?" }}
repositories = {{ channel = "#urgent", text = "where is {{repositories}}?" }}
failed = {{ channel = "#urgent", text = "{{month}} failed: {{what}}" }}
"##
    )
}

fn commit(hash: &str, author: &str, date: &str) -> Value {
    json!({ "hash": hash, "date": date, "message": format!("Do {hash}\n"), "author": { "raw": author } })
}

fn pull(id: u64, author: &str, approvers: &[(&str, &str)], merged_as: Option<&str>) -> Value {
    let participants: Vec<_> = approvers
        .iter()
        .map(|(account, date)| json!({ "user": { "display_name": account, "account_id": account }, "approved": true, "participated_on": date }))
        .collect();
    json!({
        "id": id, "title": format!("Title {id}"), "author": { "display_name": author, "account_id": author },
        "merge_commit": merged_as.map(|hash| json!({ "hash": hash })), "participants": participants,
    })
}

#[tokio::test]
async fn all_commits_of_the_month_are_found_in_whatever_order_they_come() {
    let history = vec![
        commit("a1", ADA, "2026-11-02T10:00:00+00:00"),
        // Of November in Madrid, and of October.
        commit("a2", ADA, "2026-10-31T23:30:00+00:00"),
        commit("a3", ADA, "2026-10-31T22:30:00+00:00"),
        // A branch with old dates, merged in the middle.
        commit("b1", BEN, "2025-01-01T10:00:00+00:00"),
        commit("b2", BEN, "1970-01-01T00:00:00+00:00"),
        commit("c1", ADA, "2027-10-15T10:00:00+00:00"),
        commit("b3", BEN, "2026-10-15T10:00:00+02:00"),
        json!({ "hash": "d1", "message": "no date", "author": { "raw": ADA } }),
        json!({ "message": "no hash" }),
        commit("a4", ADA, "2026-09-30T22:00:00+00:00"),
        commit("a5", ADA, "2026-09-30T21:59:59+00:00"),
        // Once, though two branches have it.
        commit("a3", ADA, "2026-10-31T22:30:00+00:00"),
        commit("b4", BEN, "2026-10-15T08:00:00+00:00"),
    ];
    let mut zips = Vec::new();
    for page in [1, 3, 100] {
        let world = World::start().await;
        world.services.known().page = page;
        world.commits(history.clone());
        let manifest = world.run().await;
        assert_eq!(manifest.state, State::Complete, "{manifest:?}");
        assert_eq!(world.hashes(&manifest, "ADA").await, ["a3", "a4"]);
        // At one time, by hash.
        assert_eq!(world.hashes(&manifest, "BEN").await, ["b3", "b4"]);
        assert_eq!(manifest.repositories[SHOP].undated, 1);
        zips.push(
            manifest
                .people
                .values()
                .map(|person| person.zip.as_ref().map(|zip| zip.sha256.clone()))
                .collect::<Vec<_>>(),
        );
        // Who did nothing has no zip, and is named.
        assert_eq!(manifest.people["CID"].zip, None);
    }
    assert!(zips.iter().all(|known| *known == zips[0]));
}

#[tokio::test]
async fn a_text_shows_commits_as_git_does() {
    let world = World::start().await;
    world.commits(vec![
        commit("a1", ADA, "2026-10-15T10:00:00+02:00"),
        commit("a2", "Ada at home <ADA@home.example>", "2026-10-14T10:00:00+00:00"),
    ]);
    let manifest = world.run().await;
    let texts = world.texts(&manifest, "ADA").await;
    let expected = "commit a1\nauthor: Ada <ada@example.com>\ndate: 2026-10-15T10:00:00+02:00\n\nDo a1\n\n\
                    commit a2\nauthor: Ada at home <ADA@home.example>\ndate: 2026-10-14T10:00:00+00:00\n\nDo a2\n";
    assert_eq!(texts, BTreeMap::from([("2026_10_acme.shop-ADA.txt".to_owned(), expected.to_owned())]));
    assert_eq!(manifest.people["ADA"].zip.as_ref().unwrap().key, "2026/10/ADA.zip");
}

#[tokio::test]
async fn who_approves_a_pull_request_has_it_once_and_its_author_has_it_not() {
    let world = World::start().await;
    let mut merge = commit("feed01", ADA, "2026-10-15T10:00:00+00:00");
    merge["message"] = "Merged in x (pull request #7)\n\nTitle\n\nApproved-by: Ben <ben@example.com>\nApproved-by: Ada <ada@example.com>\n\
                        Approved-by: Eve <eve@example.com>\nApproved-by: Cid\n"
        .into();
    // Nobody's approval: the words alone are no merge of Bitbucket's.
    let mut talk = commit("feed02", BEN, "2026-10-16T10:00:00+00:00");
    talk["message"] = "Explain pull request #9 to <eve@example.com>\nApproved-by: Eve <eve@example.com>\n".into();
    world.commits(vec![merge, talk]);
    world.services.known().pulls.insert(
        SHOP.into(),
        vec![
            pull(
                7,
                "1:ada",
                &[("1:ben", "2026-10-15T09:00:00+00:00"), ("1:ada", "2026-10-15T09:00:00+00:00")],
                Some("feed01"),
            ),
            pull(8, "1:eve", &[("1:ada", "2026-10-20T09:00:00+00:00"), ("1:ben", "2026-09-20T09:00:00+00:00")], None),
            pull(9, "1:eve", &[("1:who", "2026-10-20T09:00:00+00:00")], None),
        ],
    );
    let manifest = world.run().await;
    assert_eq!(manifest.people["ADA"].counts, evidence::Counts { commits: 1, approvals: 1 });
    assert_eq!(manifest.people["BEN"].counts, evidence::Counts { commits: 1, approvals: 1 });
    let text = world.texts(&manifest, "BEN").await.into_values().next().unwrap();
    assert!(text.contains("approved pull request #7 on 2026-10-15T09:00:00+00:00\ncommit feed01\n"), "{text}");
    let text = world.texts(&manifest, "ADA").await.into_values().next().unwrap();
    assert!(
        text.starts_with("approved pull request #8 on 2026-10-20T09:00:00+00:00\nauthor: 1:eve\n\nTitle 8\n"),
        "{text}"
    );
    let unknown: Vec<_> =
        manifest.unknown_people.iter().map(|(who, noted)| (who.as_str(), noted.count, noted.first.as_str())).collect();
    assert_eq!(unknown, [("1:who", 1, "acme/shop pull request 9"), ("eve@example.com", 1, "acme/shop feed01")]);
}

#[tokio::test]
async fn the_same_history_gives_the_same_zips_and_a_new_commit_changes_one() {
    let world = World::with(&[("BITBUCKET__REPOSITORIES", "acme/*")]).await;
    let insert = |name: &str, commits: Vec<Value>| world.services.known().commits.insert(name.into(), commits);
    let (one, two) = (commit("a1", ADA, "2026-10-15T10:00:00+00:00"), commit("b1", BEN, "2026-10-15T10:00:00+00:00"));
    insert(SHOP, vec![one.clone(), two.clone()]);
    insert("acme/tools", vec![commit("b2", BEN, "2026-10-16T10:00:00+00:00")]);
    let first = world.run().await;
    insert(SHOP, vec![two.clone(), one.clone()]);
    let second = world.run().await;
    assert_eq!(first.people["ADA"].zip, second.people["ADA"].zip);
    assert_eq!(first.people["BEN"].zip, second.people["BEN"].zip);
    assert_eq!(first.drive, second.drive);
    insert(SHOP, vec![two, one, commit("a2", ADA, "2026-10-17T10:00:00+00:00")]);
    let third = world.run().await;
    assert_ne!(third.people["ADA"].zip, second.people["ADA"].zip);
    assert_eq!(third.people["BEN"].zip, second.people["BEN"].zip);
    // Two repositories, two texts.
    assert_eq!(world.texts(&third, "BEN").await.len(), 2);
    // A month that is complete costs nothing.
    world.services.known().calls.clear();
    let request = Request { month: Some("2026-10".parse().unwrap()), ..Request::default() };
    assert_eq!(world.evidence.run(request, Deadline::NONE).await.unwrap().state, State::Complete);
    assert_eq!(world.services.known().calls, Vec::<String>::new());
}

#[tokio::test]
async fn what_bitbucket_has_trouble_with_is_asked_again_and_no_repository_is_called_unknown_for_it() {
    let page = "GET /bitbucket/repositories/acme/shop/commits";
    let answer = |status: u16| Instead { status, ..Instead::default() };
    let limited = Instead { headers: vec![("retry-after", "1".into())], ..answer(429) };
    let history: Vec<_> =
        (0..10).map(|number| commit(&format!("a{number}"), ADA, "2026-10-15T10:00:00+00:00")).collect();
    for trouble in [
        vec![answer(401)],
        vec![answer(500), answer(500)],
        vec![limited],
        vec![Instead { body: "{\"values\": [".into(), ..answer(200) }],
    ] {
        let world = World::start().await;
        world.services.known().page = 3;
        world.commits(history.clone());
        world.services.instead(page, trouble);
        let manifest = world.run().await;
        assert_eq!((manifest.state, manifest.people["ADA"].counts.commits), (State::Complete, 10));
        assert_eq!(manifest.repositories[SHOP].pages, 4);
    }

    // One that lasts: what was read is kept, and the next run goes on from there.
    let world = World::start().await;
    world.services.known().page = 3;
    world.commits(history.clone());
    let long = Instead { headers: vec![("retry-after", "3000".into())], ..answer(429) };
    // Two pages are read, the third is refused.
    let pages = |from: usize| {
        let values: Vec<_> = history.iter().skip(from).take(3).collect();
        let next = format!("{}/bitbucket/repositories/acme/shop/commits?page={}", world.services.origin(), from + 3);
        Instead { body: json!({ "values": values, "next": next }).to_string(), ..answer(200) }
    };
    world.services.instead(page, [pages(0), pages(3), long]);
    let manifest = world.run().await;
    assert_eq!(manifest.state, State::Partial);
    let waiting = &manifest.waiting[0];
    assert!(waiting.contains("429 Too Many Requests") && waiting.contains("ask again in 3000 s"), "{waiting}");
    assert_eq!(world.services.known().messages, Vec::<Value>::new());
    world.services.known().calls.clear();
    let manifest = world.run().await;
    assert_eq!((manifest.state, manifest.people["ADA"].counts.commits), (State::Complete, 10));
    assert_eq!(world.services.known().calls.iter().filter(|call| call.starts_with(page)).count(), 2);

    // A page that leads back to itself.
    let world = World::start().await;
    world.commits(history);
    let back = format!("{}/bitbucket/repositories/acme/shop/commits?page=0", world.services.origin());
    let again = Instead { body: json!({ "values": [], "next": back }).to_string(), ..answer(200) };
    world.services.instead(page, [again.clone(), again]);
    let manifest = world.run().await;
    assert!(manifest.state == State::Failed && manifest.failures[0].contains("leads back to itself"), "{manifest:?}");
    assert_eq!(world.run().await.state, State::Complete);
}

#[tokio::test]
async fn a_history_is_read_until_it_is_old_enough_or_to_its_end() {
    let mut history = vec![commit("new", ADA, "2026-10-15T10:00:00+00:00")];
    history.extend((0..40).map(|number| commit(&format!("old{number}"), ADA, "2025-01-01T10:00:00+00:00")));
    history.push(commit("late", ADA, "2026-10-14T10:00:00+00:00"));
    let world = World::with(&[("BITBUCKET__MARGIN_PAGES", "5")]).await;
    world.services.known().page = 2;
    world.commits(history);
    let manifest = world.run().await;
    assert_eq!((manifest.people["ADA"].counts.commits, manifest.repositories[SHOP].pages), (1, 6));
    let month = Some("2026-10".parse().unwrap());
    let request = Request { month, is_anew: true, is_exhaustive: true, only: None };
    let manifest = world.evidence.run(request, Deadline::NONE).await.unwrap();
    assert_eq!((manifest.people["ADA"].counts.commits, manifest.repositories[SHOP].pages), (2, 21));
}

/// The folders of the month in Drive that are not in the trash, and the names of what is in each.
fn folders(services: &Services) -> Vec<(Value, Vec<String>)> {
    let known = services.known();
    let is_there = |file: &&Value| file["trashed"] == false;
    let folders = known.files.iter().filter(is_there).filter(|file| file["name"] == "2026_10");
    let inside = |folder: &Value| {
        let files = known.files.iter().filter(is_there).filter(|file| file["parents"][0] == folder["id"]);
        files.map(|file| file["name"].as_str().unwrap().to_owned()).collect()
    };
    folders.map(|folder| (folder.clone(), inside(folder))).collect()
}

#[tokio::test]
async fn the_earlier_folder_is_whole_until_the_new_one_is() {
    let is_complete = |folder: &Value| folder["appProperties"]["state"] == "complete";
    for is_done in [false, true] {
        for dies_after in 0.. {
            let world = World::start().await;
            world.commits(vec![
                commit("a1", ADA, "2026-10-15T10:00:00+00:00"),
                commit("b1", BEN, "2026-10-15T10:00:00+00:00"),
            ]);
            // A folder of somebody else's with that name.
            let foreign = json!({ "id": "x", "name": "2026_10", "mimeType": "application/vnd.google-apps.folder", "parents": [FOLDER], "trashed": false });
            world.services.known().files.push(foreign.clone());
            let earlier = world.run().await;
            assert_eq!(earlier.state, State::Complete);
            world.commits(vec![
                commit("a1", ADA, "2026-10-15T10:00:00+00:00"),
                commit("b2", BEN, "2026-10-16T10:00:00+00:00"),
            ]);
            world.services.known().drive_dies = Some((dies_after, is_done));
            let manifest = world.run().await;
            let is_over = manifest.state == State::Complete;
            let there = folders(&world.services);
            let complete: Vec<_> = there.iter().filter(|(folder, _)| is_complete(folder)).collect();
            assert!(
                !complete.is_empty() && complete.iter().all(|(_, files)| files.len() == 2),
                "{dies_after}: {there:?}"
            );
            world.services.known().drive_dies = None;
            let manifest = world.run().await;
            assert_eq!(manifest.state, State::Complete);
            let there = folders(&world.services);
            let ours: Vec<_> = there.iter().filter(|(folder, _)| folder["id"] != "x").collect();
            assert_eq!(ours.len(), 1, "{dies_after}: {there:?}");
            assert!(is_complete(&ours[0].0));
            assert_eq!(ours[0].1, ["2026_10-ADA.zip", "2026_10-BEN.zip"]);
            assert_eq!(manifest.drive.as_deref(), ours[0].0["id"].as_str());
            assert!(there.iter().any(|(folder, _)| *folder == foreign));
            // S3 has it whatever becomes of Drive.
            assert_eq!(world.hashes(&manifest, "BEN").await, ["b2"]);
            if is_over {
                assert!(dies_after > 5);
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_large_zip_goes_to_drive_too() {
    let world = World::start().await;
    let mut large = commit("a1", ADA, "2026-10-15T10:00:00+00:00");
    large["message"] = "x".repeat(6 << 20).into();
    world.commits(vec![large]);
    let manifest = world.run().await;
    assert_eq!(manifest.state, State::Complete, "{:?}", manifest.failures);
    assert_eq!(folders(&world.services)[0].1, ["2026_10-ADA.zip"]);
}

#[tokio::test]
async fn what_drive_refuses_is_named_and_s3_has_it_all_the_same() {
    for (settings, words) in [
        (("DRIVE__FOLDER", "other"), "See that drive.folder is right"),
        (
            ("DRIVE__KEY", "{\"client_id\": \"a\", \"client_secret\": \"b\", \"refresh_token\": \"old\"}"),
            "Make a new refresh token",
        ),
        (("DRIVE__KEY", "nonsense"), "drive.key has another form"),
    ] {
        let world = World::with(&[settings]).await;
        world.commits(vec![commit("a1", ADA, "2026-10-15T10:00:00+00:00")]);
        let manifest = world.run().await;
        assert_eq!(manifest.state, State::Failed);
        assert!(manifest.failures[0].contains(words), "{:?}", manifest.failures);
        assert_eq!(world.hashes(&manifest, "ADA").await, ["a1"]);
        let message = world.services.known().messages[0].clone();
        assert_eq!(message["channel"], "#urgent");
        assert!(message["text"].as_str().unwrap().starts_with("2026-10 failed: cannot "), "{message}");
        assert!(!format!("{manifest:?}").contains("refresh_token\": \"old"), "{manifest:?}");
    }
}

#[tokio::test]
async fn slack_is_told_once_and_what_changes_is_corrected() {
    let (known, unknown) = (
        commit("a1", ADA, "2026-10-15T10:00:00+00:00"),
        commit("e1", "<E&e> <e&e@example.com>", "2026-10-15T10:00:00+00:00"),
    );
    for (repositories, commits, channel, text) in [
        (SHOP, vec![known.clone()], "#events", "October is there"),
        (SHOP, vec![known.clone(), unknown.clone()], "#events", "who is e&amp;e@example.com?"),
        ("acme/shop,acme/none", vec![known.clone()], "#urgent", "where is acme/none?"),
        (
            "acme/shop,acme/none",
            vec![known.clone(), unknown],
            "#urgent",
            "where is acme/none?\nwho is e&amp;e@example.com?",
        ),
    ] {
        let world = World::with(&[("BITBUCKET__REPOSITORIES", repositories)]).await;
        world.commits(commits);
        // What is not there may be tomorrow.
        let expected = if repositories == SHOP { State::Complete } else { State::Partial };
        for _ in 0..2 {
            assert_eq!(world.run().await.state, expected);
        }
        let messages = world.services.known().messages.clone();
        assert_eq!(messages.len(), 1);
        assert_eq!((&messages[0]["channel"], &messages[0]["text"]), (&channel.into(), &text.into()));
    }

    let world = World::start().await;
    world.commits(vec![known]);
    world.services.known().slack_error = Some("not_in_channel".into());
    let manifest = world.run().await;
    assert_eq!(manifest.state, State::Failed);
    assert!(manifest.failures[0].contains("not_in_channel\nInvite the bot"), "{:?}", manifest.failures);
    world.services.known().slack_error = None;
    assert_eq!(world.run().await.state, State::Complete);
    assert_eq!(world.services.known().messages.len(), 1);
}

#[tokio::test]
async fn a_message_that_is_true_no_more_is_corrected_in_its_channel_too() {
    let world = World::start().await;
    world.commits(vec![commit("a1", ADA, "2026-10-15T10:00:00+00:00")]);
    world.services.known().drive_dies = Some((0, false));
    assert_eq!(world.run().await.state, State::Failed);
    world.services.known().drive_dies = None;
    assert_eq!(world.run().await.state, State::Complete);
    assert_eq!(world.run().await.state, State::Complete);
    let messages = world.services.known().messages.clone();
    let told: Vec<_> = messages
        .iter()
        .map(|message| (message["channel"].as_str().unwrap(), message["text"].as_str().unwrap()))
        .collect();
    assert_eq!(told, [("#urgent", "October is there"), ("#events", "October is there")]);
}

#[tokio::test]
async fn what_bitbucket_refuses_is_told() {
    let world = World::start().await;
    world.commits(vec![commit("a1", ADA, "2026-10-15T10:00:00+00:00")]);
    let refused = Instead { status: 403, ..Instead::default() };
    world.services.instead("GET /bitbucket/repositories/acme/shop/pullrequests", [refused]);
    let manifest = world.run().await;
    assert_eq!(manifest.state, State::Failed);
    assert!(manifest.failures[0].contains("the scopes repository and pullrequest"), "{manifest:?}");
    assert_eq!(world.services.known().messages[0]["channel"], "#urgent");
    assert_eq!(manifest.people["ADA"].zip, None);
    assert_eq!(world.run().await.state, State::Complete);
}

#[tokio::test]
async fn a_month_is_delivered_when_it_is_over() {
    let world = World::start().await;
    let request = Request { month: Some("2126-10".parse().unwrap()), ..Request::default() };
    let error = world.evidence.run(request, Deadline::NONE).await.unwrap_err().to_string();
    assert_eq!(error, "2126-10 cannot be delivered: it is not over");
}

#[tokio::test]
async fn a_repository_that_is_found_later_is_read_then() {
    let world = World::with(&[("BITBUCKET__REPOSITORIES", "acme/shop,acme/late")]).await;
    assert_eq!(world.run().await.state, State::Partial);
    world.services.known().commits.insert("acme/late".into(), vec![commit("a1", ADA, "2026-10-15T10:00:00+00:00")]);
    let request = Request { month: Some("2026-10".parse().unwrap()), ..Request::default() };
    let manifest = world.evidence.run(request, Deadline::NONE).await.unwrap();
    assert_eq!((manifest.state, manifest.people["ADA"].counts.commits), (State::Complete, 1));
}

#[tokio::test]
async fn an_approval_counts_in_its_own_month_alone() {
    let world = World::start().await;
    let mut merge = commit("feed01", ADA, "2026-10-02T10:00:00+00:00");
    merge["message"] = "Merged in x (pull request #7)\n\nTitle\n\nApproved-by: Ben <ben@example.com>\n".into();
    world.commits(vec![merge]);
    let approved = pull(7, "1:ada", &[("1:ben", "2026-09-29T09:00:00+00:00")], Some("feed01"));
    world.services.known().pulls.insert(SHOP.into(), vec![approved]);
    let manifest = world.run().await;
    assert_eq!(manifest.people["BEN"].counts.approvals, 0);
    // Where Bitbucket does not tell, the message does.
    world.services.known().pulls.clear();
    let manifest = world.run().await;
    assert_eq!(manifest.people["BEN"].counts.approvals, 1);
}

#[tokio::test]
async fn a_run_that_has_no_time_is_gone_on_with() {
    let world = World::start().await;
    world.services.known().page = 1;
    world.commits((0..300).map(|number| commit(&format!("a{number:03}"), ADA, "2026-10-15T10:00:00+00:00")).collect());
    let (mut runs, mut pages) = (0, 0);
    loop {
        let request = Request { month: Some("2026-10".parse().unwrap()), ..Request::default() };
        let deadline = Deadline::at(SystemTime::now() + Duration::from_millis(if runs < 2 { 60 } else { 60_000 }));
        let manifest = world.evidence.run(request, deadline).await.unwrap();
        let read = manifest.repositories.get(SHOP).map_or(pages, |repository| repository.pages);
        assert!(read >= pages);
        pages = read;
        runs += 1;
        if manifest.state == State::Complete {
            assert_eq!(manifest.people["ADA"].counts.commits, 300);
            break;
        }
        assert!(manifest.failures.is_empty() && world.services.known().messages.is_empty(), "{manifest:?}");
    }
    assert!(runs > 1, "one run had time for all");
    let asked = world.services.known().calls.iter().filter(|call| call.ends_with("/commits")).count();
    // A page that was under way when the time was over is asked for again.
    assert!((300..=300 + runs).contains(&asked), "{asked} in {runs} runs");
}

#[tokio::test]
async fn a_consumer_s_token_is_asked_for_again_when_it_is_over() {
    let key = "{\"key\": \"key\", \"secret\": \"secret\"}";
    let world = World::with(&[("BITBUCKET__TOKEN", key)]).await;
    world.commits(vec![commit("a1", ADA, "2026-10-15T10:00:00+00:00")]);
    world
        .services
        .instead("GET /bitbucket/repositories/acme/shop/commits", [Instead { status: 401, ..Instead::default() }]);
    assert_eq!(world.run().await.state, State::Complete);
    let logins = world.services.known().calls.iter().filter(|call| *call == "POST /bitbucket-login").count();
    assert_eq!(logins, 2);
}

#[tokio::test]
async fn what_others_put_into_the_folder_stays_and_what_they_took_comes_back() {
    let world = World::start().await;
    world.commits(vec![commit("a1", ADA, "2026-10-15T10:00:00+00:00")]);
    let first = world.run().await.drive.unwrap();
    let signed = json!({ "id": "signed", "name": "signed.pdf", "mimeType": "application/pdf", "parents": [first], "trashed": false });
    {
        let mut known = world.services.known();
        known.files.push(signed);
        known.files.iter_mut().find(|file| file["name"] == "2026_10-ADA.zip").unwrap()["trashed"] = true.into();
    }
    let manifest = world.run().await;
    assert_eq!(manifest.drive.as_deref(), Some(first.as_str()));
    assert_eq!(folders(&world.services)[0].1, ["signed.pdf", "2026_10-ADA.zip"]);
    // Another folder takes its place: ours goes from the first, and what is not ours stays.
    world.commits(vec![commit("a2", ADA, "2026-10-16T10:00:00+00:00")]);
    assert_ne!(world.run().await.drive.as_deref(), Some(first.as_str()));
    let inside: Vec<_> = folders(&world.services).into_iter().map(|(_, files)| files).collect();
    assert_eq!(inside, [vec!["signed.pdf"], vec!["2026_10-ADA.zip"]]);
}

#[tokio::test]
async fn it_can_be_delivered_to_one_alone() {
    for (only, has_drive, has_slack) in
        [(Target::S3, false, false), (Target::Drive, true, false), (Target::Slack, false, true)]
    {
        let world = World::start().await;
        world.commits(vec![commit("a1", ADA, "2026-10-15T10:00:00+00:00")]);
        let request = Request { month: Some("2026-10".parse().unwrap()), only: Some(only), ..Request::default() };
        let manifest = world.evidence.run(request, Deadline::NONE).await.unwrap();
        // The rest is still to come.
        assert_eq!(manifest.state, State::Partial);
        assert_eq!(world.hashes(&manifest, "ADA").await, ["a1"]);
        assert_eq!(
            (!folders(&world.services).is_empty(), !world.services.known().messages.is_empty()),
            (has_drive, has_slack)
        );
        assert_eq!(world.run().await.state, State::Complete);
    }
}

#[tokio::test]
async fn a_service_account_signs_who_it_is() {
    let pair = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
    let key =
        json!({ "type": "service_account", "client_email": "robot@example.com", "private_key": pair.serialize_pem() });
    let world = World::with(&[("DRIVE__KEY", &key.to_string())]).await;
    world.commits(vec![commit("a1", ADA, "2026-10-15T10:00:00+00:00")]);
    let manifest = world.run().await;
    assert_eq!(manifest.state, State::Complete, "{:?}", manifest.failures);
    let login = format!("{}/drive-login", world.services.origin());
    let signed = world.services.known().assertions[0].clone();
    let public = jsonwebtoken::DecodingKey::from_rsa_pem(pair.public_key_pem().as_bytes()).unwrap();
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::RS256);
    validation.set_audience(&[login]);
    let claims = jsonwebtoken::decode::<Value>(&signed, &public, &validation).unwrap().claims;
    let expected = (&"robot@example.com".into(), &"https://www.googleapis.com/auth/drive".into());
    assert_eq!((&claims["iss"], &claims["scope"]), expected);
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 3600);
    // It has no storage of its own, and the folder is of no shared drive.
    let wrong: Vec<_> = world.evidence.check(Deadline::NONE).await.iter().map(ToString::to_string).collect();
    assert!(wrong.len() == 1 && wrong[0].contains("Take a folder of a shared drive"), "{wrong:?}");
}

#[tokio::test]
async fn a_month_sees_what_is_new_since_the_month_before_wherever_it_is_listed() {
    let with_parents = |hash: &str, date: &str, parents: &[&str]| {
        let mut commit = commit(hash, ADA, date);
        commit["parents"] = parents.iter().map(|hash| json!({ "hash": hash })).collect();
        commit
    };
    let world = World::with(&[("BITBUCKET__MARGIN_PAGES", "2")]).await;
    world.services.known().page = 2;
    let old: Vec<_> = (0..30)
        .map(|number| {
            with_parents(&format!("old{number}"), "2024-01-01T10:00:00+00:00", &[&format!("old{}", number + 1)])
        })
        .collect();
    let old = |count: usize| {
        let mut old = old[..count].to_vec();
        old[count - 1]["parents"] = json!([]);
        old
    };
    // In September's run, on 1 October, one of October is there already.
    let mut history = vec![
        with_parents("early", "2026-10-01T03:00:00+00:00", &["sept"]),
        with_parents("sept", "2026-09-10T10:00:00+00:00", &["old0"]),
    ];
    history.extend(old(30));
    world.commits(history.clone());
    world.services.known().heads.insert(SHOP.into(), vec!["early".into()]);
    let month = |month: &str, is_exhaustive: bool| Request {
        month: Some(month.parse().unwrap()),
        is_anew: true,
        is_exhaustive,
        only: None,
    };
    let run = async |request: Request| world.evidence.run(request, Deadline::NONE).await.unwrap();
    assert_eq!(run(month("2026-09", false)).await.people["ADA"].counts.commits, 1);

    // A branch that was begun long ago is pushed in October, and listed after all that is old.
    let mut history = vec![with_parents("oct", "2026-10-20T10:00:00+00:00", &["early"])];
    history.extend(world.services.known().commits[SHOP].clone());
    history.push(with_parents("late", "2026-10-05T10:00:00+00:00", &["begun"]));
    history.push(with_parents("begun", "2023-01-01T10:00:00+00:00", &[]));
    world.commits(history);
    world.services.known().heads.insert(SHOP.into(), vec!["oct".into(), "late".into()]);
    let manifest = run(month("2026-10", false)).await;
    assert_eq!(world.hashes(&manifest, "ADA").await, ["oct", "late", "early"]);
    assert_eq!(manifest.repositories[SHOP].pages, 2);
    // The same from all of the history.
    let whole = run(month("2026-10", true)).await;
    assert_eq!(whole.people["ADA"].zip, manifest.people["ADA"].zip);
    assert!(whole.repositories[SHOP].pages > 15);

    // A head of the month before that is gone: everything is read, as far as the margin.
    let world = World::start().await;
    world.commits(vec![with_parents("a1", "2026-09-10T10:00:00+00:00", &[])]);
    world.services.known().heads.insert(SHOP.into(), vec!["a1".into()]);
    let run = async |request: Request| world.evidence.run(request, Deadline::NONE).await.unwrap();
    run(month("2026-09", false)).await;
    world.commits(vec![with_parents("b1", "2026-10-10T10:00:00+00:00", &[])]);
    let manifest = run(month("2026-10", false)).await;
    assert_eq!((manifest.state, world.hashes(&manifest, "ADA").await), (State::Complete, vec!["b1".to_owned()]));
}

#[tokio::test]
async fn repositories_of_one_name_have_a_text_each() {
    let world = World::with(&[("BITBUCKET__REPOSITORIES", "acme/shop,other/shop")]).await;
    world.commits(vec![commit("a1", ADA, "2026-10-15T10:00:00+00:00")]);
    let other = vec![commit("a2", ADA, "2026-10-16T10:00:00+00:00")];
    world.services.known().commits.insert("other/shop".into(), other);
    let manifest = world.run().await;
    let names: Vec<_> = world.texts(&manifest, "ADA").await.into_keys().collect();
    assert_eq!(names, ["2026_10_acme.shop-ADA.txt", "2026_10_other.shop-ADA.txt"]);
}

#[tokio::test]
async fn everybody_of_a_month_is_listed_to_complete_the_settings_with() {
    let world = World::start().await;
    let mut known = commit("e1", "Eve <eve@example.com>", "2026-10-15T10:00:00+00:00");
    known["author"]["user"] = json!({ "account_id": "1:eve", "uuid": "{e}" });
    world.commits(vec![commit("a1", ADA, "2026-10-15T10:00:00+00:00"), known]);
    world
        .services
        .known()
        .pulls
        .insert(SHOP.into(), vec![pull(7, "1:eve", &[("1:ben", "2026-10-15T09:00:00+00:00")], None)]);
    let request = Request { month: Some("2026-10".parse().unwrap()), ..Request::default() };
    let seen = world.evidence.seen(request, Deadline::NONE).await.unwrap();
    let seen: Vec<_> = seen
        .iter()
        .map(|one| (one.person.as_deref(), one.identity.raw.as_str(), one.identity.accounts.join(" ")))
        .collect();
    let expected = [
        (Some("BEN"), "1:ben", "1:ben".into()),
        (Some("ADA"), ADA, String::new()),
        (None, "Eve <eve@example.com>", "1:eve {e}".into()),
    ];
    assert_eq!(seen, expected);
}

/// The program as Lambda runs it, in the folder of its settings.
async fn function(world: &World) -> Function {
    let file = std::path::Path::new(world.folder.path()).join("run");
    std::fs::write(
        &file,
        format!("#!/bin/sh\ncd {}\nexec {}\n", world.folder.path().display(), env!("CARGO_BIN_EXE_evidence")),
    )
    .unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let variables = [
        ("AWS_REGION", "eu-west-2"),
        ("AWS_ENDPOINT_URL", &world.s3.endpoint()),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Function::start(&[file], &variables, Duration::from_secs(120)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_function_delivers_the_month_that_it_is_asked_for_and_names_nobody_in_its_log() {
    let world = World::start().await;
    world.commits(vec![
        commit("a1", ADA, "2026-10-15T10:00:00+00:00"),
        commit("e1", "Eve <eve@example.com>", "2026-10-15T10:00:00+00:00"),
    ]);
    let function = function(&world).await;
    let summary = function.invoke(json!({ "month": "2026-10" })).await.unwrap();
    assert_eq!(
        (&summary["state"], &summary["people"], &summary["unknown_people"]),
        (&"complete".into(), &1.into(), &1.into())
    );
    let error = function.invoke(json!({ "month": "2026-1" })).await.unwrap_err();
    assert_eq!(error["errorType"], "Month");
    let lines = function.end().await;
    assert!(lines.iter().any(|line| line.get("_aws").is_some() && line["Complete"] == 1), "{lines:?}");
    let text = lines.iter().map(Value::to_string).collect::<String>();
    for secret in ["eve@", "ada@", "refresh", BITBUCKET, SLACK] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_large_repositories_take_few_requests_and_little_memory() {
    let world = World::with(&[]).await;
    // Four thousand commits each, three a day.
    let first = chrono::DateTime::parse_from_rfc3339("2026-11-20T10:00:00+00:00").unwrap();
    let commits: Vec<_> = (0..4000)
        .map(|number| {
            commit(&format!("{number:040x}"), ADA, &(first - chrono::TimeDelta::hours(8 * number)).to_rfc3339())
        })
        .collect();
    for number in 0..50 {
        world.services.known().commits.insert(format!("acme/r{number}"), commits.clone());
    }
    let settings = std::fs::read_to_string(world.folder.path().join("evidence.toml")).unwrap();
    std::fs::write(world.folder.path().join("evidence.toml"), settings.replace("[\"acme/shop\"]", "[\"acme/*\"]"))
        .unwrap();
    let function = function(&world).await;
    let summary = function.invoke(json!({ "month": "2026-10" })).await.unwrap();
    assert_eq!((&summary["state"], &summary["repositories"]), (&"complete".into(), &51.into()), "{summary}");
    let asked = world.services.known().calls.iter().filter(|call| call.starts_with("GET /bitbucket/")).count();
    assert!(asked < 1000, "{asked} requests");
    assert!(function.memory() < 100 << 10, "{} kB", function.memory());
}

#[tokio::test]
async fn a_preview_asks_and_does_nothing() {
    let world = World::start().await;
    world.commits(vec![commit("a1", ADA, "2026-10-15T10:00:00+00:00")]);
    let request = Request { month: Some("2026-10".parse().unwrap()), ..Request::default() };
    let preview = world.evidence.preview(request, Deadline::NONE).await.unwrap();
    assert_eq!(preview.people["ADA"].counts, evidence::Counts { commits: 1, approvals: 0 });
    assert!(
        world.services.known().calls.iter().all(|call| call.starts_with("GET ")),
        "{:?}",
        world.services.known().calls
    );
    assert_eq!(world.store.list("", "", 10).await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_check_tries_everything() {
    let world = World::start().await;
    assert!(world.evidence.check(Deadline::NONE).await.is_empty());
    let world = World::with(&[("BITBUCKET__REPOSITORIES", "acme/shop,acme/none"), ("DRIVE__FOLDER", "other")]).await;
    world.services.known().slack_error = Some("token_revoked".into());
    let wrong: Vec<_> = world.evidence.check(Deadline::NONE).await.iter().map(ToString::to_string).collect();
    assert_eq!(wrong.len(), 3, "{wrong:?}");
    assert!(
        wrong[0].contains("cannot read acme/none")
            && wrong[1].contains("drive.folder")
            && wrong[2].contains("Put a token that holds"),
        "{wrong:?}"
    );
}

#[tokio::test]
async fn settings_that_cannot_be_meant_are_refused_by_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("evidence.toml");
    for (from, to, words) in [
        (format!("token = \"{BITBUCKET}\"\n"), String::new(), "bitbucket: name the secret with its login"),
        ("name = \"BEN\"".into(), "name = \"B/N\"".into(), "people[1].name: a name has letters"),
        ("name = \"BEN\"".into(), "name = \"ada\"".into(), "people[1].name: somebody before has the same"),
        ("accounts = [\"1:ben\"]".into(), "accounts = [\"1:ada\"]".into(), "people[1].accounts: one of them is ADA's"),
        ("zone = \"Europe/Madrid\"".into(), "zone = \"Madrid\"".into(), "line 1: zone: Madrid is no zone"),
        (format!("[\"{SHOP}\"]"), "[\"shop\"]".into(), "bitbucket.repositories: shop: write workspace/slug"),
        ("is there\"".into(), "{is} there\"".into(), "slack.complete.text: nothing gives {is}"),
        (
            "bucket = \"evidence\"".into(),
            "bucket = \"evidence\"\nkey = \"{person}.zip\"".into(),
            "store.key: it has {year}",
        ),
    ] {
        let text = file_of("http://127.0.0.1:9");
        assert!(text.contains(&from), "{from}");
        std::fs::write(&file, text.replace(&from, &to)).unwrap();
        let error = Config::read(Some(&file), std::iter::empty()).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}
