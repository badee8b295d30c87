//! A gate between two buckets of this machine, and the services that it speaks with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use blackwater_base::deadline::Deadline;
use blackwater_base::store::{Client, Store, client};
use blackwater_http::{Http, Method, Url};
use blackwater_local::http::Server;
use blackwater_local::s3::{ACCESS_KEY, S3, SECRET_KEY};
use gate::error::Error;
use gate::mail::Ses;
use gate::rules::Rules;
use gate::services::{GITHUB, REPOSITORY, Services, WEBHOOK};
use gate::{AGENT, Gate, Outcome};
use serde_json::{Value, json};

pub(crate) const AREA: &str = "X01000000";
/// The folder of an upload.
pub(crate) const FOLDER: &str = "X01000000/2019-12-12/2019-09-30T17:00:02.396833";

pub(crate) struct World {
    pub(crate) gate: Gate,
    pub(crate) drop: Store,
    pub(crate) last: Store,
    pub(crate) services: Services,
    pub(crate) s3: S3,
    pub(crate) client: Client,
    folder: tempfile::TempDir,
    /// The objects of the drop bucket whose bytes were asked for.
    pub(crate) reads: Arc<Mutex<Vec<String>>>,
    _watched: Server,
}

/// The rules that come with the program.
pub(crate) fn rules() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("gate.toml")
}

/// The settings of a gate that speaks with all services.
pub(crate) fn everything(services: &Services) -> Vec<(&'static str, String)> {
    let origin = services.origin();
    vec![
        ("NAMES__URL", format!("{origin}/names/{{area}}.json")),
        ("ISSUE__API", origin.clone()),
        ("ISSUE__REPOSITORY", REPOSITORY.to_owned()),
        ("ISSUE__TOKEN", GITHUB.to_owned()),
        ("MAIL__FROM", "gate@example.com".to_owned()),
        ("MAIL__TO", "data@example.com".to_owned()),
        ("WEBHOOK__URL", format!("{origin}/uploads/")),
        ("WEBHOOK__TOKEN", WEBHOOK.to_owned()),
    ]
}

impl World {
    /// One whose gate speaks with all services.
    pub(crate) async fn start() -> Self {
        Self::with(everything).await
    }

    /// One whose gate has these settings over the rules that come with it.
    pub(crate) async fn with(settings: impl FnOnce(&Services) -> Vec<(&'static str, String)>) -> Self {
        Self::build(settings, false).await
    }

    /// The same, and what is read of the drop bucket is noted, which takes time.
    pub(crate) async fn watched(settings: impl FnOnce(&Services) -> Vec<(&'static str, String)>) -> Self {
        Self::build(settings, true).await
    }

    async fn build(settings: impl FnOnce(&Services) -> Vec<(&'static str, String)>, is_watched: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let s3 = S3::start(folder.path(), &["drop", "final"]).await.unwrap();
        let (reads, watched) = watch(s3.endpoint()).await;
        let endpoint = if is_watched { watched.origin() } else { s3.endpoint() };
        let services = Services::start().await.unwrap();
        services.known().names = BTreeMap::from([(AREA.to_owned(), "Piddleton Parish Council".to_owned())]);
        let buckets = [("DROP__BUCKET", "drop".to_owned()), ("FINAL__BUCKET", "final".to_owned())];
        let settings = buckets.into_iter().chain(settings(&services));
        let settings = settings.map(|(name, value)| (format!("GATE_{name}"), value));
        let rules = Rules::read_for_buckets(Some(&rules()), settings).unwrap();
        let client = client(Some(&endpoint), Some((ACCESS_KEY, SECRET_KEY))).await;
        let drop = Store::new(client.clone(), "drop", "drop.bucket");
        let last = Store::new(client.clone(), "final", "final.bucket");
        let ses = Ses::at(&services.origin(), ACCESS_KEY, SECRET_KEY);
        let gate = Gate::new(rules, drop.clone(), last.clone(), ses, Http::new(AGENT).unwrap());
        Self { gate, drop, last, services, s3, client, folder, reads, _watched: watched }
    }

    /// Where the buckets are, a folder each.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Uploads files into the folder.
    pub(crate) async fn upload(&self, files: &[(&str, &str)]) {
        for (name, text) in files {
            self.drop.put(&key(name), (*text).to_owned().into()).await.unwrap();
        }
    }

    /// Has the gate receive the event of a file in the folder.
    pub(crate) async fn receive(&self, name: &str) -> Result<Outcome, Error> {
        self.receive_within(name, Duration::from_secs(30)).await
    }

    pub(crate) async fn receive_within(&self, name: &str, time: Duration) -> Result<Outcome, Error> {
        let mut outcomes = self.gate.receive(&event("drop", &key(name)), within(time)).await?;
        assert_eq!(outcomes.len(), 1, "{outcomes:?}");
        Ok(outcomes.remove(0))
    }

    pub(crate) async fn sweep(&self) -> Result<Vec<Outcome>, Error> {
        self.gate.sweep(Duration::from_secs(24 * 3600), within(Duration::from_secs(30))).await
    }

    /// The report in the final bucket.
    pub(crate) async fn report(&self) -> Option<Value> {
        let body = self.last.get(&key("report.json")).await.unwrap()?;
        Some(serde_json::from_slice(&body).unwrap())
    }

    /// The keys in the final bucket, without what the gate keeps there of its own.
    pub(crate) async fn let_in(&self) -> Vec<String> {
        let keys = self.last.list("", "", 10_000).await.unwrap();
        keys.into_iter().filter(|key| !key.ends_with("/.gate.json")).collect()
    }

    /// The texts of the mails.
    pub(crate) fn mails(&self) -> Vec<String> {
        let known = self.services.known();
        let text = |mail: &Value| mail["Content"]["Simple"]["Body"]["Text"]["Data"].as_str().unwrap().to_owned();
        known.mails.iter().map(text).collect()
    }

    /// The requests so far, less those before the last time that this was asked.
    pub(crate) fn calls(&self) -> Vec<String> {
        let mut known = self.services.known();
        assert_eq!(known.faults, Vec::<String>::new());
        std::mem::take(&mut known.calls)
    }
}

/// A server before S3's that notes which objects of the drop bucket are read.
async fn watch(s3: String) -> (Arc<Mutex<Vec<String>>>, Server) {
    let reads = Arc::<Mutex<Vec<String>>>::default();
    let (noted, http) = (Arc::clone(&reads), Http::new("watch").unwrap());
    let server = Server::start(move |_, request| {
        let key = request.uri().path().strip_prefix("/drop/").filter(|key| !key.is_empty()).map(str::to_owned);
        if request.method() == Method::GET {
            noted.lock().unwrap().extend(key);
        }
        let (head, body) = request.into_parts();
        let url = Url::parse(&format!("{s3}{}", head.uri)).unwrap();
        // With the name that it was signed for.
        let sent = http.request(head.method, url).headers(head.headers).body(body).send();
        async move {
            let answer = sent.await.unwrap();
            let mut copy = hyper::Response::builder().status(answer.status());
            for (name, value) in answer.headers() {
                copy = copy.header(name, value);
            }
            copy.body(answer.bytes().await.unwrap()).unwrap()
        }
    });
    (reads, server.await.unwrap())
}

pub(crate) fn within(time: Duration) -> Deadline {
    Deadline::at(SystemTime::now() + time)
}

/// The key of a file in the folder.
pub(crate) fn key(name: &str) -> String {
    format!("{FOLDER}/{name}")
}

/// An event of S3, as it encodes keys.
pub(crate) fn event(bucket: &str, key: &str) -> Value {
    let encoded: String = key
        .bytes()
        .map(|byte| match byte {
            b' ' => "+".to_owned(),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'/' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect();
    json!({ "Records": [{ "eventName": "ObjectCreated:Put", "s3": { "bucket": { "name": bucket }, "object": { "key": encoded } } }] })
}

/// A table whose header begins so, of `rows` records with it, of at least a kilobyte.
pub(crate) fn table(first: &str, rows: usize) -> String {
    let columns = first.split(',').count();
    let value = "x".repeat(1024 / columns / (rows - 1) + 1);
    let row = vec![value; columns].join(",") + "\n";
    format!("{first}\n{}", row.repeat(rows - 1))
}

pub(crate) const HALAROSE: &str = "HouseID,Street,Postcode,Station";
pub(crate) const STATIONS: &str = "Name,Xordinate,Yordinate,Address";
pub(crate) const DISTRICTS: &str = "Street,Postcode,Xordinate,Station";
