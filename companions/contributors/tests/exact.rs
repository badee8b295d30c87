//! Nothing is lost and nothing is there twice: whatever is killed, whatever runs at once, in whatever order things happen.

use std::sync::Arc;

use blackwater_base::deadline::Deadline;
use blackwater_tests::{KillSwitch, Proxy};
use contributors::services::Model;

use crate::world::{World, within};

/// Numbers that a seed gives.
struct Dice(u64);

impl Dice {
    fn up_to(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> Option<T> {
        (!all.is_empty()).then(|| all[self.up_to(all.len() as u64) as usize])
    }
}

/// Something that happens in an organization.
fn happen(model: &mut Model, dice: &mut Dice) {
    let advance = dice.up_to(90) as i64;
    model.advance(advance);
    let people: Vec<_> = model.people.values().filter(|person| !person.is_deleted).map(|person| person.id).collect();
    let repositories: Vec<_> = model.repositories.values().filter(|one| one.is_visible()).map(|one| one.id).collect();
    let (Some(who), Some(repository)) = (dice.of(&people), dice.of(&repositories)) else { return };
    let issues: Vec<_> = model.repositories[&repository].present().map(|issue| issue.number).collect();
    let other = dice.of(&repositories).unwrap();
    let number = dice.of(&issues);
    let name = format!("name-{}", dice.up_to(1000));
    match (dice.up_to(24), number) {
        (0..=2, _) | (_, None) => drop(model.open_issue(repository, who, &name)),
        (3, _) => drop(model.open_pull_request(repository, who, &name)),
        (4..=8, Some(number)) => {
            for _ in 0..=dice.up_to(60) {
                model.comment(repository, number, who, &name);
            }
        }
        (9..=10, Some(number)) => {
            let comments: Vec<_> = model.issue(repository, number).comments().filter_map(|item| item.id).collect();
            if let Some(comment) = dice.of(&comments) {
                match dice.up_to(3) {
                    0 => model.edit_comment(repository, number, comment, &name),
                    1 => model.delete_comment(repository, number, comment),
                    _ => model.react(repository, number, Some(comment), "heart"),
                }
            }
        }
        (11..=12, Some(number)) => {
            match (model.issue(repository, number).is_open, model.issue(repository, number).pull_request) {
                (true, Some(_)) if dice.up_to(2) == 0 => drop(model.merge(repository, number, who)),
                (true, _) => drop(model.close(repository, number, who, "completed")),
                (false, Some(pull)) if pull.merged_at.is_some() => {}
                (false, _) => drop(model.reopen(repository, number, who)),
            }
        }
        (13..=14, Some(number)) => {
            let label = model.repositories[&repository].label("bug").map(|label| label.id);
            let label = label.unwrap_or_else(|| model.create_label(repository, "bug", "d73a4a"));
            if model.issue(repository, number).labels.contains(&label) {
                model.unlabel(repository, number, who, label);
            } else {
                model.label(repository, number, who, label);
            }
        }
        (15..=16, Some(number)) if model.issue(repository, number).pull_request.is_none() && other != repository => {
            model.transfer(repository, number, who, other);
        }
        (17, Some(number)) => model.delete_issue(repository, number),
        (18, _) => model.rename_repository(repository, &name),
        (19, _) => model.rename_person(who, &name),
        (20, _) if model.members.contains(&who) => model.leave(who),
        (20, _) => model.join(who),
        (21, Some(number)) => drop(model.commit(repository, number, who, &name)),
        (22, Some(number)) => model.cross_reference(repository, number, repository, number),
        (_, Some(number)) => drop(model.review(repository, number, who, "approved")),
    }
}

fn begin(model: &mut Model) {
    for name in ["docs", "shop", "site"] {
        model.add_repository(name);
    }
    for name in ["ada", "ben", "cleo", "dan", "eve", "fay"] {
        let person = model.add_person(name);
        if person.is_multiple_of(2) {
            model.join(person);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_histories_with_kills_match_the_oracle() {
    // More of them: SEEDS=11..100 cargo test -p contributors random_histories
    let seeds = std::env::var("SEEDS").unwrap_or_else(|_| "1..10".into());
    let (first, last) = seeds.split_once("..").unwrap();
    for seed in first.parse::<u64>().unwrap()..=last.parse().unwrap() {
        println!("seed {seed}");
        let world = World::new().await;
        begin(&mut world.model());
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let (s3_switch, database_switch) = (Arc::new(KillSwitch::default()), Arc::new(KillSwitch::default()));
        let port = |url: &str| url.rsplit(':').next().unwrap().split('/').next().unwrap().parse::<u16>().unwrap();
        let s3 = Proxy::start(port(&world.s3.endpoint()), Arc::clone(&s3_switch)).await;
        let database = Proxy::start(port(&world.url), Arc::clone(&database_switch)).await;
        let database_url =
            world.url.replace(&format!(":{}", port(&world.url)), &format!(":{}", database.address.port()));
        for _ in 0..12 {
            for _ in 0..=dice.up_to(12) {
                happen(&mut world.model(), &mut dice);
            }
            // Things go on while they are read.
            for _ in 0..dice.up_to(4) {
                let mut later = Dice(dice.up_to(u64::MAX) | 1);
                world.model().then("/repositories/", move |model| happen(model, &mut later));
            }
            let killed = world.at(&format!("http://{}", s3.address), &database_url, &[]).await;
            let request = world.request();
            s3_switch.hold_at(dice.up_to(60));
            tokio::select! {
                polled = killed.poll(&request, within(60)) => drop(polled.unwrap()),
                () = s3_switch.wait() => {}
            }
            s3_switch.hold_at(0);
            let killed = world.at(&world.s3.endpoint(), &database_url, &[]).await;
            database_switch.hold_at(dice.up_to(300));
            tokio::select! {
                loaded = killed.load(Deadline::NONE) => drop(loaded.unwrap()),
                () = database_switch.wait() => {}
            }
            database_switch.hold_at(0);
        }
        // What leaves no trace in updated_at is seen within a day.
        for _ in 0..3 {
            world.after(25 * 3600).await;
        }
        world.agree().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_killed_at_any_request_to_the_bucket_loses_nothing() {
    let world = World::new().await;
    begin(&mut world.model());
    let switch = Arc::new(KillSwitch::default());
    let port = world.s3.endpoint().rsplit(':').next().unwrap().parse().unwrap();
    let proxy = Proxy::start(port, Arc::clone(&switch)).await;
    let mut dice = Dice(77);
    for at in (1..).step_by(2) {
        for _ in 0..8 {
            happen(&mut world.model(), &mut dice);
        }
        let killed = world.at(&format!("http://{}", proxy.address), &world.url, &[]).await;
        let request = world.request();
        switch.hold_at(at);
        let is_done = tokio::select! {
            polled = killed.poll(&request, within(60)) => { polled.unwrap(); true }
            () = switch.wait() => false
        };
        switch.hold_at(0);
        world.model().advance(7 * 3600);
        world.sync().await;
        if is_done {
            assert!(at > 20, "{at}");
            break;
        }
    }
    world.after(25 * 3600).await;
    world.after(25 * 3600).await;
    world.agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn etags_are_in_the_database_exactly_when_their_events_are() {
    let world = World::new().await;
    {
        let mut model = world.model();
        let (shop, ada) = (model.add_repository("shop"), model.add_person("ada"));
        for _ in 0..5 {
            let number = model.open_issue(shop, ada, "Slow");
            model.comment(shop, number, ada, "indeed");
        }
    }
    world.poll().await;
    let switch = Arc::new(KillSwitch::default());
    let port = world.url.rsplit(':').next().unwrap().split('/').next().unwrap().parse::<u16>().unwrap();
    let proxy = Proxy::start(port, Arc::clone(&switch)).await;
    let url = world.url.replace(&format!(":{port}"), &format!(":{}", proxy.address.port()));
    world.contributors.migrate().await.unwrap();
    for at in (1..).step_by(7) {
        let killed = world.at(&world.s3.endpoint(), &url, &[]).await;
        switch.hold_at(at);
        let is_done = tokio::select! {
            loaded = killed.load(Deadline::NONE) => { loaded.unwrap(); true }
            () = switch.wait() => false
        };
        switch.hold_at(0);
        let apart = "SELECT (SELECT count(*) FROM event_polls) - (SELECT count(DISTINCT issue_id) FROM events)";
        assert_eq!(world.one(apart).await, "0");
        if is_done {
            break;
        }
    }
    world.agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_polls_at_once_write_one_history() {
    let world = World::new().await;
    world.model().populate(3, 60);
    let other = world.again(&[]).await;
    let request = world.request();
    let (one, two) = tokio::join!(world.contributors.poll(&request, within(60)), other.poll(&request, within(60)));
    let (done, beaten): (Vec<_>, Vec<_>) = [one, two].into_iter().partition(Result::is_ok);
    assert!(!done.is_empty());
    for error in beaten {
        let error = error.unwrap_err().to_string();
        assert!(error.contains("another poll"), "{error}");
    }
    world.sync().await;
    world.agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_loads_at_once_do_nothing_twice() {
    let world = World::new().await;
    world.model().populate(4, 60);
    world.poll().await;
    let other = world.again(&[]).await;
    let (one, two) = tokio::join!(world.contributors.load(Deadline::NONE), other.load(Deadline::NONE));
    let (one, two) = (one.unwrap(), two.unwrap());
    let inserted = |table| one.inserted.get(table).unwrap_or(&0) + two.inserted.get(table).unwrap_or(&0);
    assert_eq!(inserted("events").to_string(), world.one("SELECT count(*) FROM events").await);
    world.agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_made_anew_from_the_answers_or_from_github() {
    let world = World::new().await;
    world.model().populate(5, 40);
    world.sync().await;
    world.after(600).await;
    // From the answers, in another schema.
    let anew = world.again(&[("DATABASE__SCHEMA", "anew")]).await;
    anew.load(Deadline::NONE).await.unwrap();
    let same = "SELECT (SELECT count(*) FROM anew.events) = (SELECT count(*) FROM public.events)";
    assert_eq!(world.one(same).await, "t");

    // The first of them have expired.
    let first = world.store.list("answers/", "", 1).await.unwrap().remove(0);
    let data = world.folder.path().join("answers");
    std::fs::remove_file(data.join(&first)).unwrap();
    let other = world.again(&[("DATABASE__SCHEMA", "other")]).await;
    let error = other.load(Deadline::NONE).await.unwrap_err().to_string();
    assert!(error.contains("1 to 1") && error.contains("contributors poll --full"), "{error}");
    let full = contributors::poll::Request { full: true, ..world.request() };
    world.contributors.poll(&full, within(60)).await.unwrap();
    other.load(Deadline::NONE).await.unwrap();
    world.load().await;
    world.agree().await;
    let same = "SELECT (SELECT count(*) FROM other.events) = (SELECT count(*) FROM public.events)";
    assert_eq!(world.one(same).await, "t");

    // The whole bucket is lost, and what happens meanwhile is not.
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::create_dir(&data).unwrap();
    {
        let mut model = world.model();
        model.advance(600);
        let (shop, ada) = (*model.repositories.keys().next().unwrap(), *model.people.keys().next().unwrap());
        model.open_issue(shop, ada, "Meanwhile");
    }
    world.sync().await;
    world.agree().await;

    // An object of the state that cannot be read.
    world.store.put("state/state.json.gz", bytes::Bytes::from_static(b"nonsense")).await.unwrap();
    let error = world.contributors.poll(&world.request(), within(60)).await.unwrap_err().to_string();
    assert!(error.contains("state/state.json.gz cannot be read"), "{error}");
    let full = contributors::poll::Request { full: true, ..world.request() };
    world.contributors.poll(&full, within(60)).await.unwrap();
    world.after(60).await;
    world.agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_organization_has_a_bucket_and_a_schema_of_its_own() {
    let world = World::new().await;
    world.model().populate(6, 5);
    world.sync().await;
    let other = world.again(&[("ORGANIZATION", "widgets")]).await;
    let error = other.poll(&world.request(), within(60)).await.unwrap_err().to_string();
    assert!(error.contains("the bucket answers has the answers of acme"), "{error}");
    let error = other.load(Deadline::NONE).await.unwrap_err().to_string();
    assert!(error.contains("the schema public has the rows of acme"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tables_of_another_program_are_left_alone() {
    let world = World::new().await;
    world.model().populate(6, 5);
    world.run("CREATE TABLE issues (id integer)").await;
    let error = world.contributors.load(Deadline::NONE).await.unwrap_err().to_string();
    assert!(error.contains("schema public already has a table issues that contributors did not create"), "{error}");
    let checked = world.contributors.check().await;
    assert!(checked.wrong[0].contains("already has a table issues"), "{checked:?}");
    let own = world.again(&[("DATABASE__SCHEMA", "own")]).await;
    assert_eq!(own.migrate().await.unwrap(), [1, 2]);
    assert_eq!(own.migrate().await.unwrap(), Vec::<usize>::new());
}
