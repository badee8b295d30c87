//! A function as Lambda runs it: its process, and a server of the runtime API that gives it events.
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How an invocation ended: its answer, or its error.
pub type Answer = Result<Value, Value>;

/// A function that waits for events.
#[derive(Debug)]
pub struct Function {
    process: Mutex<Child>,
    printed: tokio::sync::Mutex<JoinHandle<String>>,
    started: Instant,
    ready: Arc<OnceLock<Instant>>,
    events: mpsc::Sender<Value>,
    answers: tokio::sync::Mutex<mpsc::Receiver<Answer>>,
    timeout: Arc<Mutex<Duration>>,
}

struct Api {
    ready: Arc<OnceLock<Instant>>,
    events: tokio::sync::Mutex<mpsc::Receiver<Value>>,
    answers: mpsc::Sender<Answer>,
    timeout: Arc<Mutex<Duration>>,
}

impl Function {
    /// Starts the program, with its arguments, with these variables, and no others. An invocation may take as long as
    /// `timeout` says.
    pub async fn start(program: &[PathBuf], variables: &[(String, String)], timeout: Duration) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let ((events, waiting), (answers, answered)) = (mpsc::channel(8), mpsc::channel(8));
        let (timeout, ready) = (Arc::new(Mutex::new(timeout)), Arc::default());
        let api = Api {
            ready: Arc::clone(&ready),
            events: tokio::sync::Mutex::new(waiting),
            answers,
            timeout: Arc::clone(&timeout),
        };
        serve(listener, Arc::new(api), |api, request| async move { api.answer(request).await });
        let started = Instant::now();
        let mut process = Command::new(&program[0])
            .args(&program[1..])
            .env_clear()
            .envs([
                ("AWS_LAMBDA_RUNTIME_API", address.as_str()),
                ("AWS_LAMBDA_FUNCTION_NAME", "function"),
                ("AWS_LAMBDA_FUNCTION_VERSION", "1"),
                ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512"),
            ])
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        // Read all along: a program that prints more than a pipe holds would wait for a reader.
        let mut stdout = process.stdout.take().unwrap();
        let printed = tokio::spawn(async move {
            let mut text = String::new();
            stdout.read_to_string(&mut text).await.unwrap();
            text
        });
        Self {
            process: Mutex::new(process),
            printed: tokio::sync::Mutex::new(printed),
            started,
            ready,
            events,
            answers: tokio::sync::Mutex::new(answered),
            timeout,
        }
    }

    /// Invokes it, one event at a time, and waits for its end.
    pub async fn invoke(&self, event: Value) -> Answer {
        let mut answers = self.answers.lock().await;
        self.events.send(event).await.unwrap();
        let most = *self.timeout.lock().unwrap() + Duration::from_secs(60);
        let answer = tokio::time::timeout(most, answers.recv()).await;
        answer.expect("the function does not answer").expect("the server of the runtime API is gone")
    }

    /// Waits until it asks for an event: how long that took from its start.
    pub async fn ready(&self) -> Duration {
        while self.started.elapsed() < Duration::from_secs(30) {
            if let Some(ready) = self.ready.get() {
                return *ready - self.started;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("the function asks for no event");
    }

    /// The most memory that it has held so far, in kB.
    pub fn memory(&self) -> u64 {
        let process = self.process.lock().unwrap();
        process.id().map_or(0, high_water)
    }

    /// Gives invocations from now on so much time.
    pub(crate) fn limit(&self, timeout: Duration) {
        *self.timeout.lock().unwrap() = timeout;
    }

    /// Ends the process: the lines that it printed.
    pub async fn end(&self) -> Vec<Value> {
        self.process.lock().unwrap().start_kill().unwrap();
        let mut printed = self.printed.lock().await;
        let text = (&mut *printed).await.unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"))).collect()
    }
}

impl Api {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let body: Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap_or_default();
        let accepted = || Response::builder().status(202).body(Full::default()).unwrap();
        match (parts.method, parts.uri.path().strip_prefix("/2018-06-01/runtime/").unwrap_or_default()) {
            (Method::GET, "invocation/next") => {
                self.ready.get_or_init(Instant::now);
                let event = self.events.lock().await.recv().await;
                let Some(event) = event else { return std::future::pending().await };
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
                let deadline = now + *self.timeout.lock().unwrap();
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
            (method, path) => panic!("the runtime API has no {method} {path}"),
        }
    }
}

/// The most memory that a program has held so far, in kB: <https://man7.org/linux/man-pages/man5/proc_pid_status.5.html>.
pub fn high_water(program: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{program}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

/// Serves HTTP until the program ends.
pub(crate) fn serve<S, F, A>(listener: TcpListener, state: Arc<S>, answer: F)
where
    S: Send + Sync + 'static,
    F: Fn(Arc<S>, Request<Incoming>) -> A + Copy + Send + 'static,
    A: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            let state = Arc::clone(&state);
            let answer = service_fn(move |request| {
                let answer = answer(Arc::clone(&state), request);
                async { Ok::<_, Infallible>(answer.await) }
            });
            let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
            tokio::spawn(serving);
        }
    });
}
