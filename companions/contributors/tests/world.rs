//! An organization at a local GitHub, the bucket of its answers, and its database; and the oracle, which reads the tables' contents
//! off the model.

use std::collections::BTreeSet;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use blackwater_base::deadline::Deadline;
use blackwater_base::store::{Store, client};
use blackwater_http::Http;
use blackwater_local::postgres::Postgres;
use blackwater_local::s3::{ACCESS_KEY, S3, SECRET_KEY};
use chrono::{DateTime, TimeZone, Utc};
use contributors::config::{Config, KINDS};
use contributors::poll::{self, Request};
use contributors::services::{GitHub, Gone, Issue, Item, Model, Repository, TOKEN};
use contributors::{AGENT, Contributors, load};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::Value;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// One server for all tests; it ends with this program.
static SERVER: LazyLock<Postgres> = LazyLock::new(|| Postgres::start(&[("autovacuum", "off")]).unwrap());
static DATABASES: AtomicU32 = AtomicU32::new(0);

pub(crate) struct World {
    pub(crate) github: GitHub,
    pub(crate) contributors: Contributors,
    pub(crate) store: Store,
    pub(crate) s3: S3,
    pub(crate) url: String,
    pub(crate) folder: tempfile::TempDir,
}

/// The settings beside where everything is.
type Settings<'s> = &'s [(&'s str, &'s str)];

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(&[]).await
    }

    pub(crate) async fn with(settings: Settings<'_>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let s3 = S3::start(folder.path(), &["answers"]).await.unwrap();
        let github = GitHub::start("acme").await.unwrap();
        github.model().now = Utc.with_ymd_and_hms(2026, 3, 2, 12, 0, 0).unwrap();
        let database = format!("test_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        let admin_url = tokio::task::spawn_blocking(|| SERVER.url("postgres")).await.unwrap();
        connect(&admin_url).await.batch_execute(&format!("CREATE DATABASE {database}")).await.unwrap();
        let url = SERVER.url(&database);
        let client = client(Some(&s3.endpoint()), Some((ACCESS_KEY, SECRET_KEY))).await;
        let store = Store::new(client.clone(), "answers", "bucket");
        let config = config(&github, &url, settings);
        let contributors = Contributors::new(config, client, Http::new(AGENT).unwrap());
        Self { github, contributors, store, s3, url, folder }
    }

    /// The same, as another process with other settings would see it.
    pub(crate) async fn again(&self, settings: Settings<'_>) -> Contributors {
        self.at(&self.s3.endpoint(), &self.url, settings).await
    }

    /// The same, with its bucket and its database at other addresses.
    pub(crate) async fn at(&self, s3: &str, url: &str, settings: Settings<'_>) -> Contributors {
        let client = client(Some(s3), Some((ACCESS_KEY, SECRET_KEY))).await;
        Contributors::new(config(&self.github, url, settings), client, Http::new(AGENT).unwrap())
    }

    pub(crate) fn model(&self) -> std::sync::MutexGuard<'_, Model> {
        self.github.model()
    }

    /// What the paths of requests about a repository begin with.
    pub(crate) fn path(&self, repository: &str) -> String {
        let model = self.model();
        let found = model.repositories.values().find(|one| one.name == repository).unwrap();
        format!("/repositories/{}", found.id)
    }

    pub(crate) fn request(&self) -> Request {
        Request::at(self.model().now)
    }

    /// A poll, which must meet no fault.
    pub(crate) async fn poll(&self) -> poll::Report {
        let report = self.contributors.poll(&self.request(), within(120)).await.unwrap();
        assert_eq!((&report.failed, &report.ended), (&Vec::new(), &None));
        assert_eq!(self.model().faults, Vec::<String>::new());
        report
    }

    pub(crate) async fn load(&self) -> load::Report {
        self.contributors.load(Deadline::NONE).await.unwrap()
    }

    /// A poll and a load.
    pub(crate) async fn sync(&self) -> (poll::Report, load::Report) {
        (self.poll().await, self.load().await)
    }

    /// Moves the clock, polls, and loads.
    pub(crate) async fn after(&self, seconds: i64) -> (poll::Report, load::Report) {
        self.model().advance(seconds);
        self.sync().await
    }

    /// The requests since the last time this was asked, as `200 /repos/…`.
    pub(crate) fn requests(&self) -> Vec<String> {
        let requests = std::mem::take(&mut self.model().requests);
        requests.into_iter().map(|logged| format!("{} {}", logged.status, logged.path)).collect()
    }

    /// As if the hour were over that the budget is of.
    pub(crate) async fn forget_budget(&self) {
        let key = "state/state.json.gz";
        let Some(bytes) = self.store.get(key).await.unwrap() else { return };
        let mut state: Value = serde_json::from_reader(GzDecoder::new(&bytes[..])).unwrap();
        state["budgets"]["core"]["reset"] = "2020-01-01T00:00:00Z".into();
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        serde_json::to_writer(&mut gzip, &state).unwrap();
        self.store.put(key, gzip.finish().unwrap().into()).await.unwrap();
    }

    /// The rows of a query, as Postgres prints them, sorted.
    pub(crate) async fn rows(&self, query: &str) -> Vec<String> {
        rows(&connect(&self.url).await, query).await
    }

    /// The only value of a query.
    pub(crate) async fn one(&self, query: &str) -> String {
        let rows = self.rows(query).await;
        assert_eq!(rows.len(), 1, "{query}: {rows:?}");
        rows[0].clone()
    }

    pub(crate) async fn run(&self, sql: &str) {
        connect(&self.url).await.batch_execute(sql).await.unwrap();
    }

    /// The tables hold what the model has.
    pub(crate) async fn agree(&self) {
        let expected = Expected::of(&self.model());
        let client = connect(&self.url).await;
        for (what, query, expected) in [
            ("issues", ISSUES, expected.issues),
            ("pull requests", PULLS, expected.pulls),
            ("events", EVENTS, expected.events),
            ("labels", LABELS, expected.labels),
            ("memberships", MEMBERSHIPS, expected.memberships),
            ("members", MEMBERS, expected.members),
            ("repositories", REPOSITORIES, expected.repositories),
        ] {
            let found: BTreeSet<_> = rows(&client, query).await.into_iter().collect();
            let missing: Vec<_> = expected.difference(&found).collect();
            let surplus: Vec<_> = found.difference(&expected).collect();
            assert!(missing.is_empty() && surplus.is_empty(), "{what}: missing {missing:#?}, surplus {surplus:#?}");
        }
        // Nothing is taken for a transfer that was none.
        let transfers: BTreeSet<_> = rows(&client, "SELECT issue_id FROM transfers").await.into_iter().collect();
        let surplus: Vec<_> = transfers.difference(&expected.transferred).collect();
        assert!(surplus.is_empty(), "transfers: surplus {surplus:#?}");
        let doubled = "SELECT id, issue_id FROM events GROUP BY id, issue_id HAVING count(*) > 1";
        assert_eq!(rows(&client, doubled).await, Vec::<String>::new());
    }
}

fn config(github: &GitHub, url: &str, settings: Settings<'_>) -> Config {
    let origin = github.origin();
    let usual = [
        ("ORGANIZATION", "acme"),
        ("BUCKET", "answers"),
        ("GITHUB__TOKEN", TOKEN),
        ("GITHUB__API", &origin),
        ("DATABASE__URL", url),
        ("FROM", "2020-01-01"),
    ];
    let all = usual.iter().chain(settings).map(|(name, value)| (format!("CONTRIBUTORS_{name}"), (*value).to_owned()));
    // Not the file of this folder.
    let none = tempfile::NamedTempFile::new().unwrap();
    Config::read(Some(none.path()), all).unwrap()
}

/// The time that a poll may take.
pub(crate) fn within(seconds: u64) -> Deadline {
    Deadline::at(SystemTime::now() + Duration::from_secs(seconds))
}

pub(crate) async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn rows(client: &Client, query: &str) -> Vec<String> {
    let mut rows = Vec::new();
    for message in client.simple_query(query).await.unwrap() {
        if let SimpleQueryMessage::Row(row) = message {
            let values: Vec<_> = (0..row.len()).map(|place| row.get(place).unwrap_or("-")).collect();
            rows.push(values.join("|"));
        }
    }
    rows.sort();
    rows
}

const ISSUES: &str = "SELECT id, org, repo, number, title, state, state_reason, username, comments, body,
    created_at::timestamptz(0), updated_at, closed_at, (SELECT string_agg(l ->> 'name', ',' ORDER BY n) FROM unnest(labels) WITH ORDINALITY AS x(l, n))
    FROM issues WHERE deleted_at IS NULL";
const PULLS: &str = "SELECT id, org, repo, number, title, state, username, merged, merged_at, draft, updated_at
    FROM pull_requests WHERE deleted_at IS NULL";
const EVENTS: &str = "SELECT id, issue_id, org, repo, event, username, created_at, body, reactions ->> 'total_count'
    FROM events WHERE deleted_at IS NULL AND id > 0
    AND NOT EXISTS (SELECT FROM issues WHERE issues.id = events.issue_id AND issues.deleted_at IS NOT NULL)
    AND NOT EXISTS (SELECT FROM pull_requests AS pull WHERE pull.id = events.issue_id AND pull.deleted_at IS NOT NULL)";
const LABELS: &str = "SELECT issue_id, labels.name, labels.color FROM issue_labels JOIN labels ON labels.id = label_id
    WHERE NOT EXISTS (SELECT FROM issues WHERE issues.id = issue_id AND issues.deleted_at IS NOT NULL)
    AND NOT EXISTS (SELECT FROM pull_requests AS pull WHERE pull.id = issue_id AND pull.deleted_at IS NOT NULL)";
const MEMBERS: &str = "SELECT id, login FROM members WHERE NOT inactive";
const MEMBERSHIPS: &str = "SELECT person_id FROM memberships WHERE left_at IS NULL";
const REPOSITORIES: &str = "SELECT id, owner, name, archived FROM repositories WHERE gone_at IS NULL";

/// What the tables are to hold, row by row.
#[derive(Default)]
struct Expected {
    issues: BTreeSet<String>,
    pulls: BTreeSet<String>,
    events: BTreeSet<String>,
    labels: BTreeSet<String>,
    members: BTreeSet<String>,
    memberships: BTreeSet<String>,
    repositories: BTreeSet<String>,
    /// The issues that are others now.
    transferred: BTreeSet<String>,
}

impl Expected {
    fn of(model: &Model) -> Self {
        let mut expected = Self::default();
        for id in &model.members {
            expected.members.insert(format!("{id}|{}", model.people[id].login));
            expected.memberships.insert(id.to_string());
        }
        for repository in model.repositories.values().filter(|repository| repository.is_visible()) {
            let (org, name) = (&model.organization, &repository.name);
            let archived = if repository.is_archived { "t" } else { "f" };
            expected.repositories.insert(format!("{}|{org}|{name}|{archived}", repository.id));
            for issue in repository.present() {
                expected.issue(model, repository, issue);
            }
            let is_transferred = |issue: &&Issue| matches!(issue.gone, Some(Gone::Transferred { .. }));
            expected
                .transferred
                .extend(repository.issues.values().filter(is_transferred).map(|issue| issue.id.to_string()));
        }
        expected
    }

    fn issue(&mut self, model: &Model, repository: &Repository, issue: &Issue) {
        let place = format!("{}|{}", model.organization, repository.name);
        let (id, number, title) = (issue.id, issue.number, &issue.title);
        let author = login(model, Some(issue.author));
        let (state, updated) = (issue.state(), at(Some(issue.updated_at)));
        match &issue.pull_request {
            Some(pull) => {
                let merged = match (issue.is_open, pull.merged_at) {
                    (true, _) => "-",
                    (false, Some(_)) => "t",
                    (false, None) => "f",
                };
                let draft = if pull.is_draft { "t" } else { "f" };
                let merged_at = at(pull.merged_at);
                self.pulls.insert(format!(
                    "{id}|{place}|{number}|{title}|{state}|{author}|{merged}|{merged_at}|{draft}|{updated}"
                ));
            }
            None => {
                let labels: Vec<_> = issue.labels.iter().map(|label| repository.labels[label].name.as_str()).collect();
                let labels = if labels.is_empty() { "-".into() } else { labels.join(",") };
                let reason = issue.state_reason.as_deref().unwrap_or("-");
                let body = issue.body.as_deref().map_or_else(|| "-".into(), |body| body.replace('\0', "\u{fffd}"));
                let (created, closed) = (at(Some(issue.created_at)), at(issue.closed_at));
                let comments = issue.comments().count();
                self.issues.insert(format!(
                    "{id}|{place}|{number}|{title}|{state}|{reason}|{author}|{comments}|{body}|{created}|{updated}|{closed}|{labels}"
                ));
            }
        }
        for label in &issue.labels {
            let label = &repository.labels[label];
            self.labels.insert(format!("{id}|{}|{}", label.name, label.color));
        }
        for item in &issue.timeline {
            self.item(model, &place, id, item);
        }
    }

    fn item(&mut self, model: &Model, place: &str, issue: u64, item: &Item) {
        let Some(id) = item.id.filter(|_| KINDS.contains(&item.kind.as_str())) else { return };
        let is_comment = item.kind == "commented";
        let reactions: u64 = item.reactions.values().sum();
        let reactions = if is_comment { reactions.to_string() } else { "-".into() };
        let body = item.body.as_deref().map_or_else(|| "-".into(), |body| body.replace('\0', "\u{fffd}"));
        let (actor, created) = (login(model, item.actor), at(Some(item.created_at)));
        self.events.insert(format!("{id}|{issue}|{place}|{}|{actor}|{created}|{body}|{reactions}", item.kind));
    }
}

fn login(model: &Model, person: Option<u64>) -> String {
    let person = person.and_then(|id| model.people.get(&id)).filter(|person| !person.is_deleted);
    person.map_or_else(|| "-".into(), |person| person.login.clone())
}

/// As Postgres prints it.
fn at(time: Option<DateTime<Utc>>) -> String {
    time.map_or_else(|| "-".into(), |time| time.format("%Y-%m-%d %H:%M:%S+00").to_string())
}
