//! A function as Lambda runs it: its process, and a server of the runtime API that gives it events.
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>
//! The server answers for Secrets Manager too.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

/// How an invocation ended: its answer, or its error.
pub type Answer = Result<Value, Value>;

/// A function that waits for events.
#[derive(Debug)]
pub struct Function {
    process: Child,
    events: mpsc::Sender<Value>,
    answers: mpsc::Receiver<Answer>,
    /// The secrets by name; they may change.
    pub secrets: Arc<Mutex<BTreeMap<String, String>>>,
}

#[derive(Clone)]
struct Api {
    events: Arc<tokio::sync::Mutex<mpsc::Receiver<Value>>>,
    answers: mpsc::Sender<Answer>,
    secrets: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Function {
    /// Starts the program with these variables, and no others.
    pub async fn start(program: &str, variables: &[(&str, &str)]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let ((events, waiting), (answers, answered)) = (mpsc::channel(8), mpsc::channel(8));
        let secrets = Arc::<Mutex<BTreeMap<_, _>>>::default();
        let api = Api { events: Arc::new(tokio::sync::Mutex::new(waiting)), answers, secrets: Arc::clone(&secrets) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let api = api.clone();
                let answer = service_fn(move |request| {
                    let api = api.clone();
                    async move { Ok::<_, Infallible>(api.answer(request).await) }
                });
                let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
                tokio::spawn(serving);
            }
        });
        let endpoint = format!("http://{address}");
        let process = Command::new(crate::world::built(program))
            .env_clear()
            .envs([
                ("AWS_LAMBDA_RUNTIME_API", address.as_str()),
                ("AWS_LAMBDA_FUNCTION_NAME", program),
                ("AWS_LAMBDA_FUNCTION_VERSION", "1"),
                ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512"),
                ("AWS_ENDPOINT_URL_SECRETS_MANAGER", endpoint.as_str()),
                ("AWS_REGION", "us-east-1"),
                ("AWS_ACCESS_KEY_ID", blackwater_local::s3::ACCESS_KEY),
                ("AWS_SECRET_ACCESS_KEY", blackwater_local::s3::SECRET_KEY),
            ])
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { process, events, answers: answered, secrets }
    }

    /// Invokes it, and waits for its end.
    pub async fn invoke(&mut self, event: Value) -> Answer {
        self.events.send(event).await.unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(60), self.answers.recv()).await;
        answer.expect("the function does not answer").expect("the server of the runtime API is gone")
    }

    /// Ends the process: the lines that it printed.
    pub async fn end(mut self) -> Vec<Value> {
        self.process.start_kill().unwrap();
        let mut text = String::new();
        self.process.stdout.take().unwrap().read_to_string(&mut text).await.unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"))).collect()
    }
}

impl Api {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let body: Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap_or_default();
        let path = parts.uri.path().strip_prefix("/2018-06-01/runtime/").unwrap_or_default();
        let accepted = || Response::builder().status(202).body(Full::default()).unwrap();
        match (parts.method, path) {
            (Method::GET, "invocation/next") => {
                let event = self.events.lock().await.recv().await;
                let Some(event) = event else { return std::future::pending().await };
                let deadline = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(300);
                Response::builder()
                    .header("Lambda-Runtime-Aws-Request-Id", "8476a536-e9f4-11e8-9739-2dfe598c3fcd")
                    .header("Lambda-Runtime-Deadline-Ms", deadline.as_millis().to_string())
                    .header("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-1:123456789012:function:f")
                    .body(event.to_string().into())
                    .unwrap()
            }
            (Method::POST, path) if path.ends_with("/response") => {
                self.answers.send(Ok(body)).await.unwrap();
                accepted()
            }
            (Method::POST, path) if path.ends_with("/error") => {
                self.answers.send(Err(body)).await.unwrap();
                accepted()
            }
            _ => {
                let secret = self.secrets.lock().unwrap().get(body["SecretId"].as_str().unwrap_or_default()).cloned();
                let (status, answer) = match secret {
                    Some(secret) => (200, json!({ "SecretString": secret })),
                    None => (400, json!({ "__type": "ResourceNotFoundException", "message": "no such secret" })),
                };
                Response::builder().status(status).body(answer.to_string().into()).unwrap()
            }
        }
    }
}
