//! A private Postgres with a source and a warehouse, a folder with buckets, a model pack and a
//! configuration, and the program.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

use blackwater_local::postgres::Postgres;
use blackwater_local::s3::{ACCESS_KEY, S3, SECRET_KEY};
use blackwater_local::totesys;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::lambda::Function;
use crate::oracle::{Oracle, TOTESYS};

/// The ingestion and the processed bucket.
pub const BUCKETS: [&str; 2] = ["test-ingestion", "test-processed"];

/// The variable with which every test finds changes by WAL, if its value is `wal`.
const CHANGES: &str = "BLACKWATER_SOURCE__CHANGES";

/// Whether changes are found by WAL.
pub fn captures() -> bool {
    std::env::var(CHANGES).is_ok_and(|changes| changes == "wal")
}

/// The settings of a server whose log can be decoded.
pub const LOGICAL: [(&str, &str); 2] = [("wal_level", "logical"), ("max_slot_wal_keep_size", "1GB")];

/// Everything that a test needs around the program.
#[derive(Debug)]
pub struct World {
    /// The server of both databases.
    pub server: Postgres,
    /// A session on the source.
    pub source: Client,
    /// A session on the warehouse.
    pub warehouse: Client,
    folder: TempDir,
    oracle: Vec<Oracle>,
}

/// How the program ended.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code; `None` if it was killed.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Finished {
    /// It failed with this exit code, and its message has all of `words`.
    pub fn says(&self, code: i32, words: &[&str]) {
        let report: Value = serde_json::from_str(&self.stdout).unwrap_or_default();
        let message = ["error", "remedy"].map(|part| report[part].as_str().unwrap_or_default()).join(". ");
        assert_eq!(self.code, Some(code), "{self:?}");
        for word in words {
            assert!(message.contains(word), "{word:?} is not in: {message}");
        }
    }

    /// Its report; it must have succeeded.
    pub fn report(&self) -> Value {
        assert_eq!(self.code, Some(0), "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl World {
    /// The Totesys sample and its pack.
    pub async fn totesys() -> Self {
        let world = Self::empty(&[], TOTESYS.to_vec()).await;
        totesys::create(&world.source).await.unwrap();
        totesys::write_pack(&world.pack()).unwrap();
        world
    }

    /// Another source, and a pack of these files.
    pub async fn of(source: &str, pack: &[(&str, &str)], oracle: &[Oracle]) -> Self {
        Self::with_settings(&[], source, pack, oracle).await
    }

    /// The same on a server with settings of its own.
    pub async fn with_settings(
        settings: &'static [(&'static str, &'static str)],
        source: &str,
        pack: &[(&str, &str)],
        oracle: &[Oracle],
    ) -> Self {
        let world = Self::empty(settings, oracle.to_vec()).await;
        world.source.batch_execute(source).await.unwrap();
        std::fs::create_dir_all(world.pack()).unwrap();
        for (file, text) in pack {
            std::fs::write(world.pack().join(file), text).unwrap();
        }
        world
    }

    async fn empty(settings: &'static [(&'static str, &'static str)], oracle: Vec<Oracle>) -> Self {
        // Few locks, so that whoever takes many is found out.
        let usual = [("max_prepared_transactions", "10"), ("autovacuum", "off"), ("max_locks_per_transaction", "10")];
        // Of two lines for a setting the server takes the last.
        let logical = if captures() { &LOGICAL[..] } else { &[] };
        let settings = [&usual, logical, settings].concat();
        let server = tokio::task::spawn_blocking(move || Postgres::start(&settings)).await.unwrap().unwrap();
        let admin = connect(&server.url("postgres")).await;
        admin.batch_execute("CREATE DATABASE source").await.unwrap();
        admin.batch_execute("CREATE DATABASE warehouse").await.unwrap();
        let world = Self {
            source: connect(&server.url("source")).await,
            warehouse: connect(&server.url("warehouse")).await,
            server,
            folder: TempDir::with_prefix("blackwater-test-").unwrap(),
            oracle,
        };
        let (source, warehouse) = (world.server.url("source"), world.server.url("warehouse"));
        world.configure(&source, &warehouse, "directory = \"buckets\"");
        world
    }

    /// Writes the configuration.
    pub fn configure(&self, source: &str, warehouse: &str, s3: &str) {
        let [ingestion, processed] = BUCKETS;
        let text = format!(
            "name = \"test\"\nmodel = \"pack\"\n[source]\nurl = \"{source}\"\n[warehouse]\nurl = \"{warehouse}\"\n\
             [ingestion]\nbucket = \"{ingestion}\"\n[processed]\nbucket = \"{processed}\"\n[s3]\n{s3}\n"
        );
        std::fs::write(self.configuration(), text).unwrap();
    }

    /// Has changes found in another way: `auto`, `scan` or `wal`.
    pub fn detect_by(&self, changes: &str) {
        let written = std::fs::read_to_string(self.configuration()).unwrap();
        let lines = written.lines().filter(|line| !line.starts_with("changes = "));
        let lines = lines.flat_map(|line| match line {
            "[source]" => vec![line.to_owned(), format!("changes = \"{changes}\"")],
            line => vec![line.to_owned()],
        });
        std::fs::write(self.configuration(), lines.collect::<Vec<_>>().join("\n")).unwrap();
    }

    /// The configuration's file.
    pub fn configuration(&self) -> PathBuf {
        self.folder.path().join("blackwater.toml")
    }

    /// The model pack's folder.
    pub fn pack(&self) -> PathBuf {
        self.folder.path().join("pack")
    }

    /// The folder of the buckets.
    pub fn buckets(&self) -> PathBuf {
        self.folder.path().join("buckets")
    }

    /// A further session on the source.
    pub async fn session(&self) -> Client {
        connect(&self.server.url("source")).await
    }

    /// Starts a copy of the server beside its data, which ends when that folder goes: a session on its
    /// source, and the address. `options` are for pg_basebackup; `prepare` is shell, run on the copy in
    /// `$D` before it starts.
    pub async fn copy_of_server(&self, options: &str, prepare: &str) -> (Client, String) {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let script = format!(
            "PATH=\"$(dirname \"$(readlink /proc/$PPID/exe)\"):$PATH\" && D=../copy && \
             pg_basebackup -d \"host=127.0.0.1 port={} user=postgres\" -X stream -c fast {options} -D $D >&2 && \
             sed -i \"s/^port = .*/port = {port}/\" $D/postgresql.auto.conf && {prepare} && \
             (postgres -D $D >../copy.log 2>&1 </dev/null &)",
            self.server.port()
        );
        // The server runs it, as the user that it runs as.
        self.source.batch_execute(&format!("COPY (SELECT 1) TO PROGRAM '{script}'")).await.unwrap();
        let url = format!("postgres://postgres@127.0.0.1:{port}/source?sslmode=disable");
        let started = Instant::now();
        while let Err(error) = tokio_postgres::connect(&url, NoTls).await {
            assert!(started.elapsed() < Duration::from_secs(30), "{error:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        (connect(&url).await, url)
    }

    /// Runs statements, one at a time, while nobody is connected to the source or the warehouse, and connects again.
    pub async fn swap_databases(&mut self, statements: &str) {
        let admin = connect(&self.server.url("postgres")).await;
        let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname IN ('source', 'warehouse')";
        admin.batch_execute(others).await.unwrap();
        for statement in statements.split(';') {
            admin.batch_execute(statement).await.unwrap();
        }
        self.reconnect().await;
    }

    /// Kills a backend with SIGKILL, upon which the server ends all others and recovers, and connects
    /// again when it has.
    pub async fn crash(&mut self) {
        let url = self.server.url("source");
        let before = statistics(&url).await;
        let victim = self.session().await;
        let pid: i32 = victim.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
        let kill = format!("COPY (SELECT 1) TO PROGRAM 'kill -9 {pid}'");
        // It takes this session down with it, and the server may still take others for a moment.
        let _ = tokio::time::timeout(Duration::from_secs(5), self.source.batch_execute(&kill)).await;
        let started = Instant::now();
        loop {
            let now = statistics(&url).await;
            if now.is_some() && now != before {
                break;
            }
            assert!(started.elapsed() < Duration::from_secs(30), "the server does not recover");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.reconnect().await;
    }

    /// Stops the server and starts it again, and connects again. It ends when its folder goes.
    pub async fn restart(&mut self) {
        let url = self.server.url("source");
        let before = started(&url).await;
        let script = "PATH=\"$(dirname \"$(readlink /proc/$PPID/exe)\"):$PATH\"
            (setsid pg_ctl -D . -m fast -w -l ../restarted.log restart >/dev/null 2>&1 </dev/null &)";
        self.source.batch_execute(&format!("COPY (SELECT 1) TO PROGRAM '{script}'")).await.unwrap();
        let began = Instant::now();
        loop {
            let now = started(&url).await;
            if now.is_some() && now != before {
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(30), "the server does not start again");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.reconnect().await;
    }

    async fn reconnect(&mut self) {
        self.source = connect(&self.server.url("source")).await;
        self.warehouse = connect(&self.server.url("warehouse")).await;
    }

    /// Starts the program with this configuration and JSON as its output.
    pub fn spawn(&self, arguments: &[&str]) -> Child {
        self.command(arguments).spawn().unwrap()
    }

    /// The program as [`World::spawn`] starts it.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        command
            .args(arguments)
            .args(["--format", "json", "--config"])
            .arg(self.configuration())
            .envs([("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_REGION", "us-east-1")])
            .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// The variables of functions that work on its databases, and on its buckets behind a server.
    pub fn variables(&self, s3: &S3) -> Vec<(String, String)> {
        [
            ("AWS_ENDPOINT_URL_S3", s3.endpoint()),
            ("AWS_REGION", "us-east-1".into()),
            ("AWS_DEFAULT_REGION", "us-east-1".into()), // boto3's
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.into()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.into()),
            ("BLACKWATER_NAME", "test".into()),
            ("BLACKWATER_MODEL", self.pack().display().to_string()),
            ("BLACKWATER_SOURCE__URL", self.server.url("source")),
            ("BLACKWATER_WAREHOUSE__URL", self.server.url("warehouse")),
            ("BLACKWATER_INGESTION__BUCKET", BUCKETS[0].into()),
            ("BLACKWATER_PROCESSED__BUCKET", BUCKETS[1].into()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .chain(captures().then(|| (CHANGES.to_owned(), "wal".to_owned())))
        .collect()
    }

    /// A stage as a function on them, which waits for events; an invocation may take as long as `timeout` says.
    pub async fn function(&self, stage: &str, s3: &S3, timeout: Duration) -> Function {
        let function = Function::start(&[built(&format!("blackwater-{stage}"))], &self.variables(s3), timeout).await;
        function.ready().await;
        function
    }

    /// Runs the program to its end.
    pub async fn blackwater(&self, arguments: &[&str]) -> Finished {
        if captures() && matches!(arguments.first(), Some(&"run" | &"extract")) {
            self.publish().await;
        }
        finish(self.spawn(arguments)).await
    }

    /// Publishes the tables, if that has not been done yet, as `check --grants` says.
    pub async fn publish(&self) {
        let session = self.session().await;
        session.batch_execute("SET lock_timeout = '1s'").await.unwrap();
        let published = "SELECT FROM pg_publication WHERE pubname LIKE 'blackwater%'";
        if session.query_opt(published, &[]).await.unwrap().is_none() {
            let grants = finish(self.spawn(&["check", "--grants"])).await.stdout;
            let publication = grants.find("DO $blackwater$").map(|from| &grants[from..]).unwrap_or_default();
            let end = publication.find("END $blackwater$;").unwrap_or_default();
            // A test may have no table that can be published, or one that is locked.
            let _ = session.batch_execute(&format!("{}END $blackwater$", &publication[..end])).await;
        }
    }

    /// `blackwater run`, which must succeed: its report.
    pub async fn run(&self) -> Value {
        self.blackwater(&["run"]).await.report()
    }

    /// Runs, and has the oracle judge.
    pub async fn run_and_agree(&self) -> Value {
        let report = self.run().await;
        self.agree().await;
        report
    }

    /// The warehouse holds what the oracle says.
    pub async fn agree(&self) {
        for (table, query) in &self.oracle {
            self.agree_on(table, query).await;
        }
    }

    /// A table of the warehouse holds what a query over the source returns.
    pub async fn agree_on(&self, table: &str, query: &str) {
        let columns = self.columns(query).await;
        let star = format!("SELECT {} FROM {table}", columns.join(", "));
        let expected = rows(&self.source, query).await;
        assert_eq!(rows(&self.warehouse, &star).await, expected, "{table} differs from {query}");
    }

    /// The rows in quarantine, each as `table column=value: reason`.
    pub async fn quarantine(&self) -> Vec<String> {
        let listed = self.blackwater(&["quarantine", "list"]).await.report();
        let line = |entry: &Value| {
            let key = entry["key"].as_object().unwrap();
            let key = key.iter().map(|(column, value)| format!("{column}={}", value.as_str().unwrap()));
            let key = key.collect::<Vec<_>>().join(" ");
            format!("{} {key}: {}", entry["table"].as_str().unwrap(), entry["reason"].as_str().unwrap())
        };
        listed.as_array().unwrap().iter().map(line).collect()
    }

    async fn columns(&self, query: &str) -> Vec<String> {
        let statement = self.source.prepare(query).await.unwrap();
        statement.columns().iter().map(|column| format!("\"{}\"", column.name().replace('"', "\"\""))).collect()
    }

    /// One value of the warehouse, as text.
    pub async fn in_warehouse(&self, query: &str) -> Option<String> {
        rows(&self.warehouse, query).await.into_iter().next().and_then(|row| row.into_iter().next()).flatten()
    }

    /// Every object of both buckets, with its time of change.
    pub fn objects(&self) -> BTreeMap<PathBuf, SystemTime> {
        let mut found = BTreeMap::new();
        for bucket in BUCKETS {
            walk(&self.buckets().join(bucket), &mut found);
        }
        found
    }

    /// The manifests of the ingestion log, in order.
    pub fn manifests(&self) -> Vec<Value> {
        let folder = self.buckets().join(BUCKETS[0]).join("batches");
        let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files.iter().map(|file| serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()).collect()
    }

    /// Makes the server forget the checksums of its objects, after a test has changed their files.
    pub fn forget_checksums(&self) {
        for entry in std::fs::read_dir(self.buckets()).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_string_lossy().starts_with(".bucket-") {
                std::fs::remove_file(path).unwrap();
            }
        }
    }

    /// Puts other bytes into an object.
    pub fn overwrite(&self, bucket: &str, key: &str, text: &str) {
        std::fs::write(self.buckets().join(bucket).join(key), text).unwrap();
        self.forget_checksums();
    }

    /// An object that a manifest of the bucket lists, in full.
    pub fn object(&self, bucket: &str, object: &Value) -> Vec<u8> {
        std::fs::read(self.buckets().join(bucket).join(object["key"].as_str().unwrap())).unwrap()
    }
}

/// What a run's report says of a source table.
pub fn extracted<'a>(report: &'a Value, table: &str) -> &'a Value {
    let tables = report["extract"]["tables"].as_array().unwrap();
    tables.iter().find(|found| found["table"] == table).unwrap()
}

/// Waits for the program's end.
pub async fn finish(child: Child) -> Finished {
    let output = child.wait_with_output().await.unwrap();
    Finished {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Since when the server's statistics count, if it answers.
async fn statistics(url: &str) -> Option<String> {
    asked(url, "SELECT stats_reset::text FROM pg_stat_bgwriter").await
}

/// When the server was started, if it answers.
async fn started(url: &str) -> Option<String> {
    asked(url, "SELECT pg_postmaster_start_time()::text").await
}

async fn asked(url: &str, query: &str) -> Option<String> {
    let asked = async {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.ok()?;
        tokio::spawn(connection);
        let row = client.query_one(query, &[]).await.ok()?;
        row.get(0)
    };
    tokio::time::timeout(Duration::from_secs(2), asked).await.ok().flatten()
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// The rows of a query as Postgres prints them, sorted.
async fn rows(client: &Client, query: &str) -> Vec<Vec<Option<String>>> {
    let mut rows: Vec<Vec<_>> = Vec::new();
    for message in client.simple_query(query).await.unwrap() {
        if let SimpleQueryMessage::Row(row) = message {
            rows.push((0..row.len()).map(|place| row.get(place).map(str::to_owned)).collect());
        }
    }
    rows.sort();
    rows
}

fn walk(folder: &Path, found: &mut BTreeMap<PathBuf, SystemTime>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => walk(&path, found),
            false => {
                let changed = path.metadata().unwrap().modified().unwrap();
                found.insert(path, changed);
            }
        }
    }
}

/// The program.
pub fn program() -> PathBuf {
    built("blackwater")
}

/// A program that was built with this test: beside its executable, and no older than its source.
pub(crate) fn built(program: &str) -> PathBuf {
    let this = std::env::current_exe().unwrap();
    let program = this.parent().and_then(Path::parent).unwrap().join(program);
    let built = program.metadata().unwrap_or_else(|_| panic!("no {}: run `make test`", program.display()));
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for package in ["cli", "lambda", "pipeline", "extract", "transform", "load", "local", "shared"] {
        let mut files = BTreeMap::new();
        walk(&workspace.join(package).join("src"), &mut files);
        let newest = files.values().max().unwrap();
        assert!(
            built.modified().unwrap() >= *newest,
            "{} is older than {package}/src: run `make test`",
            program.display()
        );
    }
    program
}
