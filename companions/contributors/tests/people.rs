//! Members, people and repositories, whatever their names.

use crate::world::{World, within};

const DAY: i64 = 24 * 3600;

#[tokio::test(flavor = "multi_thread")]
async fn members_join_leave_return_and_rename() {
    let world = World::new().await;
    let (shop, ada, ben, cleo, number) = {
        let mut model = world.model();
        let shop = model.add_repository("shop");
        let [ada, ben, cleo] = ["ada", "ben", "cleo"].map(|login| model.add_person(login));
        model.join(ada);
        model.join(ben);
        let number = model.open_issue(shop, ben, "Slow");
        (shop, ada, ben, cleo, number)
    };
    world.sync().await;
    world.agree().await;

    world.model().leave(ben);
    world.model().join(cleo);
    world.after(DAY).await;
    world.agree().await;
    let member = "SELECT login, inactive, inactive_dt IS NOT NULL FROM members ORDER BY login";
    assert_eq!(world.rows(member).await, ["ada|f|f", "ben|t|t", "cleo|f|f"]);

    // What ben did as a member stays so; what he does now is not.
    world.model().advance(1);
    world.model().comment(shop, number, ben, "as a guest");
    world.after(60).await;
    assert_eq!(world.one("SELECT author_is_member FROM issues").await, "t");
    assert_eq!(world.one("SELECT actor_is_member FROM events").await, "f");

    world.model().join(ben);
    world.model().rename_person(ada, "ada-l");
    world.after(DAY).await;
    world.agree().await;
    assert_eq!(world.rows(member).await, ["ada-l|f|f", "ben|f|f", "cleo|f|f"]);
    let periods =
        "SELECT number, joined_at IS NULL, left_at IS NULL FROM memberships JOIN people ON people.id = person_id
        WHERE login = 'ben'";
    assert_eq!(world.rows(periods).await, ["1|t|f", "2|f|t"]);

    // The guest's comment is still a guest's.
    assert_eq!(world.one("SELECT actor_is_member FROM events").await, "f");

    // A login that another account takes, and two that change places.
    world.model().leave(ada);
    world.model().rename_person(ada, "somewhere-else");
    world.model().rename_person(ben, "ada-l");
    world.after(DAY).await;
    world.model().rename_person(ben, "cleo");
    world.model().rename_person(cleo, "ada-l");
    world.after(DAY).await;
    world.agree().await;
    let logins = "SELECT login FROM members";
    assert_eq!(world.rows(logins).await, ["ada-l".to_owned(), format!("ada-l#{ada}"), "cleo".into()]);
    // She is seen again, under her new name.
    world.model().comment(shop, number, ada, "hello");
    world.after(60).await;
    assert_eq!(world.rows(logins).await, ["ada-l", "cleo", "somewhere-else"]);
    assert_eq!(world.one("SELECT username FROM issues").await, "cleo");
    world.agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_much_shorter_members_list_is_refused() {
    let world = World::new().await;
    let people: Vec<_> = {
        let mut model = world.model();
        model.add_repository("shop");
        (0..20).map(|place| model.add_person(&format!("member-{place}"))).collect()
    };
    people.iter().for_each(|person| world.model().join(*person));
    world.sync().await;
    people[..5].iter().for_each(|person| world.model().leave(*person));
    world.model().advance(DAY);
    let report = world.contributors.poll(&world.request(), within(60)).await.unwrap();
    assert!(report.failed[0].contains("5 of 20 members are missing from GitHub's list"), "{:?}", report.failed);
    world.load().await;
    assert_eq!(world.one("SELECT count(*) FROM members WHERE NOT inactive").await, "20");
    let forced = contributors::poll::Request { force: true, ..world.request() };
    world.contributors.poll(&forced, within(60)).await.unwrap();
    world.load().await;
    world.agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_repository_keeps_its_issues_and_their_events() {
    let world = World::new().await;
    let (shop, ada, number) = {
        let mut model = world.model();
        let (shop, ada) = (model.add_repository("shop"), model.add_person("ada"));
        let number = model.open_issue(shop, ada, "Slow");
        model.comment(shop, number, ada, "indeed");
        (shop, ada, number)
    };
    world.sync().await;
    world.model().rename_repository(shop, "store");
    world.model().comment(shop, number, ada, "still");
    world.after(60).await;
    world.agree().await;
    assert_eq!(world.rows("SELECT name FROM repository_names").await, ["shop", "store"]);
    assert_eq!(world.one("SELECT count(*) FROM transfers").await, "0");

    // Another repository takes the former name.
    let other = world.model().add_repository("shop");
    world.model().open_issue(other, ada, "Another one");
    world.after(60).await;
    world.agree().await;

    // A rename while a poll is under way: everything there answers with another place.
    world.model().comment(shop, number, ada, "again");
    world.model().then("/orgs/acme/repos", move |model| model.rename_repository(shop, "market"));
    world.after(60).await;
    world.after(60).await;
    world.agree().await;
    assert_eq!(world.one("SELECT count(*) FROM transfers").await, "0");

    world.model().remove_repository(other);
    world.model().archive(shop);
    world.after(60).await;
    assert_eq!(
        world.rows("SELECT name, archived, gone_at IS NULL FROM repositories").await,
        ["market|t|t", "shop|f|f"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_account_becomes_null() {
    let world = World::new().await;
    let (shop, ada, ben, number) = {
        let mut model = world.model();
        let shop = model.add_repository("shop");
        let [ada, ben] = ["ada", "ben"].map(|login| model.add_person(login));
        let number = model.open_issue(shop, ben, "Slow");
        model.comment(shop, number, ben, "indeed");
        (shop, ada, ben, number)
    };
    world.sync().await;
    world.model().delete_person(ben);
    world.model().comment(shop, number, ada, "who was it?");
    world.after(60).await;
    world.agree().await;
    assert_eq!(world.one("SELECT count(*) FROM events WHERE user_id IS NULL").await, "1");
}
