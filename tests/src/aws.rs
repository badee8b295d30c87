//! AWS on this machine: the stack that Terraform describes, in an emulator (`tests/aws`), with the functions' real programs.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::World;
use crate::lambda::{Answer, Function, serve};
use crate::world::built;

/// The stack, its functions, and what comes to pass.
#[derive(Debug)]
pub struct Aws {
    /// What Terraform makes: by resource type, by index, the arguments.
    pub stack: Value,
    endpoint: String,
    inside: Arc<Inside>,
    commands: tokio::sync::Mutex<(ChildStdin, Lines<BufReader<ChildStdout>>)>,
    _server: Child,
}

#[derive(Debug, Default)]
struct Inside {
    functions: OnceLock<BTreeMap<String, Function>>,
    happened: Mutex<Happened>,
}

#[derive(Debug, Default)]
struct Happened {
    /// The events that buckets sent, with the stage that they were for.
    events: Vec<(String, Value)>,
    /// How the invocations by events ended.
    answers: Vec<(String, Answer)>,
    /// The stage whose events are lost.
    lost: Option<String>,
}

impl Aws {
    /// Makes the stack, between the databases of a world, with further variables for its functions.
    pub async fn start(world: &World, variables: &[(&str, &str)]) -> Self {
        Self::start_as(world, json!({ "username": "postgres", "password": "none" }), variables).await
    }

    /// As [`Self::start`], with another login in the secrets.
    pub async fn start_as(world: &World, login: Value, variables: &[(&str, &str)]) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = folder.parent().unwrap().join("target/tools/moto/bin/python");
        assert!(python.exists(), "no {}: run `make test`", python.display());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let functions = format!("http://{}", listener.local_addr().unwrap());
        let inside = Arc::<Inside>::default();
        serve(listener, Arc::clone(&inside), |inside, request| async move { inside.event(request).await });
        let mut server = Command::new(python)
            .arg(folder.join("aws/server.py"))
            .arg(folder.join("aws/stack.json"))
            .arg(functions)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
        let made: Value = serde_json::from_str(&lines.next_line().await.unwrap().expect("no stack")).unwrap();
        let aws = Self {
            stack: made["stack"].clone(),
            endpoint: made["endpoint"].as_str().unwrap().to_owned(),
            inside: Arc::clone(&inside),
            commands: tokio::sync::Mutex::new((server.stdin.take().unwrap(), lines)),
            _server: server,
        };
        for database in ["source", "warehouse"] {
            aws.command(json!(["secret", database, login])).await;
        }
        let mut by_stage = BTreeMap::new();
        for (stage, function) in made["stack"]["aws_lambda_function"].as_object().unwrap() {
            let known = function["environment"][0]["variables"].as_object().unwrap();
            let mut all: BTreeMap<_, _> =
                known.iter().map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect();
            // What is elsewhere than AWS would have it: the databases, the pack, and AWS itself.
            let pack = world.pack().display().to_string();
            let (source, warehouse) = (world.server.url("source"), world.server.url("warehouse"));
            let elsewhere = [
                ("BLACKWATER_SOURCE__URL", source.as_str()),
                ("BLACKWATER_WAREHOUSE__URL", warehouse.as_str()),
                ("BLACKWATER_MODEL", pack.as_str()),
                ("AWS_ENDPOINT_URL", aws.endpoint.as_str()),
                ("AWS_REGION", "eu-west-2"),
                ("AWS_ACCESS_KEY_ID", stage.as_str()),
                ("AWS_SECRET_ACCESS_KEY", "none"),
            ];
            for (name, value) in elsewhere.iter().chain(variables) {
                all.insert((*name).to_owned(), (*value).to_owned());
            }
            let timeout = Duration::from_secs(function["timeout"].as_u64().unwrap());
            let all: Vec<_> = all.into_iter().collect();
            by_stage
                .insert(stage.clone(), Function::start(&[built(&format!("blackwater-{stage}"))], &all, timeout).await);
        }
        inside.functions.set(by_stage).unwrap();
        aws
    }

    /// What a stage's schedule does when its time has come.
    pub async fn schedule(&self, stage: &str) -> Answer {
        let schedule = &self.stack["aws_scheduler_schedule"][stage];
        let target = &schedule["target"][0];
        let name = self.stack["aws_lambda_function"][stage]["function_name"].as_str().unwrap();
        assert_eq!(schedule["state"], "ENABLED");
        assert!(target["arn"].as_str().unwrap().ends_with(&format!(":function:{name}:live-{stage}")), "{target}");
        self.invoke(stage, serde_json::from_str(target["input"].as_str().unwrap()).unwrap()).await
    }

    /// Invokes a function, and waits for its end.
    pub async fn invoke(&self, stage: &str, event: Value) -> Answer {
        self.inside.function(stage).invoke(event).await
    }

    /// Gives a function so much time for an invocation.
    pub fn limit(&self, stage: &str, timeout: Duration) {
        self.inside.function(stage).limit(timeout);
    }

    /// Loses the events for a stage from now on; none if there is no stage.
    pub fn lose(&self, stage: Option<&str>) {
        self.inside.happened.lock().unwrap().lost = stage.map(str::to_owned);
    }

    /// Waits until buckets have sent so many events for a stage, also such as were lost.
    pub async fn events(&self, stage: &str, number: usize) -> Vec<Value> {
        let what = format!("no {number} events for {stage}");
        self.wait_for(&what, number, |happened| of_stage(&happened.events, stage)).await
    }

    /// Waits until so many invocations of a stage by events have ended: how they did.
    pub async fn answers(&self, stage: &str, number: usize) -> Vec<Answer> {
        let what = format!("{stage} was not invoked {number} times");
        self.wait_for(&what, number, |happened| of_stage(&happened.answers, stage)).await
    }

    async fn wait_for<T>(&self, what: &str, number: usize, found: impl Fn(&Happened) -> Vec<T>) -> Vec<T> {
        for _ in 0..600 {
            let found = found(&self.inside.happened.lock().unwrap());
            if found.len() >= number {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{what}");
    }

    /// Has the emulator's script do something (`tests/aws/server.py`): its answer.
    pub async fn command(&self, command: Value) -> Value {
        let mut commands = self.commands.lock().await;
        commands.0.write_all(format!("{command}\n").as_bytes()).await.unwrap();
        let answer = commands.1.next_line().await.unwrap().unwrap_or_else(|| panic!("{command} failed"));
        serde_json::from_str(&answer).unwrap()
    }

    /// Runs a script of `terraform/`, copied into a folder, with the AWS command line and this AWS: its exit code and what it
    /// printed.
    pub async fn script(&self, folder: &Path, script: &str, arguments: &[&str]) -> (Option<i32>, String) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        for file in [script, "setting"] {
            std::fs::copy(root.join("terraform").join(file), folder.join(file)).unwrap();
        }
        let path = format!("{}:{}", root.join("target/tools/moto/bin").display(), std::env::var("PATH").unwrap());
        let output = Command::new(folder.join(script))
            .args(arguments)
            .envs([("PATH", path.as_str()), ("AWS_ENDPOINT_URL", &self.endpoint), ("AWS_REGION", "eu-west-2")])
            .envs([("AWS_ACCESS_KEY_ID", "admin"), ("AWS_SECRET_ACCESS_KEY", "admin")])
            .output()
            .await
            .unwrap();
        let text = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
        (output.status.code(), text)
    }

    /// Ends a function: the lines that it printed.
    pub async fn end(&self, stage: &str) -> Vec<Value> {
        self.inside.function(stage).end().await
    }
}

/// What happened to a stage.
fn of_stage<T: Clone>(all: &[(String, T)], stage: &str) -> Vec<T> {
    all.iter().filter(|(to, _)| to == stage).map(|(_, what)| what.clone()).collect()
}

impl Inside {
    fn function(&self, stage: &str) -> &Function {
        &self.functions.get().expect("the functions are not there yet")[stage]
    }

    /// Invokes the function that an event is for.
    async fn event(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let event: Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
        let stage = parts.uri.path().trim_start_matches('/').to_owned();
        let is_lost = {
            let mut happened = self.happened.lock().unwrap();
            happened.events.push((stage.clone(), event.clone()));
            happened.lost.as_ref() == Some(&stage)
        };
        let mut status = 200;
        if !is_lost {
            let answer = self.function(&stage).invoke(event).await;
            status = if answer.is_ok() { 200 } else { 500 };
            self.happened.lock().unwrap().answers.push((stage, answer));
        }
        Response::builder().status(status).body(Full::default()).unwrap()
    }
}
