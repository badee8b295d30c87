//! What comes of requests to a service that is slow, busy, or not there.

#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use blackwater_base::deadline::Deadline;
use blackwater_http::{Error, Http, Method, StatusCode, Url, authorization};
use blackwater_local::http::Server;
use hyper::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// What was asked: the method, the path, and the token.
type Asked = Vec<(String, String, Option<String>)>;

/// A service that gives these answers in turn, then 200; each a status and headers.
struct Service {
    origin: String,
    asked: Arc<Mutex<Asked>>,
    _server: Option<Server>,
}

async fn service(answers: Vec<(u16, Vec<(&'static str, String)>)>) -> Service {
    let (asked, answers) = (Arc::<Mutex<Asked>>::default(), Arc::new(Mutex::new(VecDeque::from(answers))));
    let known = Arc::clone(&asked);
    let server = Server::start(move |_, request| {
        let token = request.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned());
        known.lock().unwrap().push((request.method().to_string(), request.uri().path().to_owned(), token));
        let (status, headers) = answers.lock().unwrap().pop_front().unwrap_or((200, Vec::new()));
        let mut answer = Response::builder().status(status);
        for (name, value) in headers {
            answer = answer.header(name, value);
        }
        let answer = answer.body(r#"{"message": "so it is"}"#.into()).unwrap();
        async move { answer }
    });
    let server = server.await.unwrap();
    Service { origin: server.origin(), asked, _server: Some(server) }
}

/// One that never answers, at this address.
fn nobody(origin: String) -> Service {
    Service { origin, asked: Arc::default(), _server: None }
}

impl Service {
    async fn ask(&self, method: Method, seconds: u64) -> Result<StatusCode, Error> {
        let http = Http::new("test").unwrap();
        let url = Url::parse(&format!("{}/a?key=hidden", self.origin)).unwrap();
        let headers = authorization("Bearer", &"token-of-mine".into()).unwrap();
        let request = http.request(method, url).headers(headers);
        let deadline = Deadline::at(SystemTime::now() + Duration::from_secs(seconds));
        http.send(request, deadline).await.map(|answer| answer.status)
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

fn plain(statuses: &[u16]) -> Vec<(u16, Vec<(&'static str, String)>)> {
    statuses.iter().map(|status| (*status, Vec::new())).collect()
}

#[tokio::test]
async fn what_does_nothing_twice_is_asked_again() {
    let one = service(plain(&[503, 502])).await;
    assert_eq!(one.ask(Method::GET, 30).await.unwrap(), 200);
    assert_eq!(one.asked(), 3);

    let one = service(plain(&[500, 500, 500, 500, 500])).await;
    let error = one.ask(Method::GET, 30).await.unwrap_err();
    assert_eq!((error.status().unwrap().as_u16(), one.asked()), (500, 4));
    assert!(error.may_pass());

    let one = service(plain(&[404])).await;
    let error = one.ask(Method::GET, 30).await.unwrap_err();
    assert_eq!((one.asked(), error.may_pass()), (1, false));
    assert_eq!(error.to_string(), format!("GET {}/a is answered with 404 Not Found: so it is", one.origin));
}

#[tokio::test]
async fn what_would_be_done_twice_is_asked_again_only_if_the_service_says_so() {
    let one = service(plain(&[502])).await;
    assert_eq!(one.ask(Method::POST, 30).await.unwrap_err().status().unwrap(), 502);
    assert_eq!(one.asked(), 1);

    let one = service(vec![(429, vec![("retry-after", "1".into())])]).await;
    let began = Instant::now();
    assert_eq!(one.ask(Method::POST, 30).await.unwrap(), 200);
    assert_eq!(one.asked(), 2);
    assert!(began.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_service_that_asks_for_more_time_than_there_is_gets_an_error_at_once() {
    let reset = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() + 900;
    let spent = vec![("x-ratelimit-remaining", "0".into()), ("x-ratelimit-reset", reset.to_string())];
    let one = service(vec![(403, spent)]).await;
    let began = Instant::now();
    let error = one.ask(Method::GET, 10).await.unwrap_err().to_string();
    assert!(error.contains("403 Forbidden: so it is (ask again in 90"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(one.asked(), 1);

    // One that forbids for another reason is not asked again.
    let one = service(vec![(403, vec![("x-ratelimit-remaining", "10".into())])]).await;
    assert!(!one.ask(Method::GET, 10).await.unwrap_err().may_pass());
}

#[tokio::test]
async fn a_limit_that_is_told_in_words_alone_asks_to_wait_for_a_minute() {
    let said = br#"{"message": "You have exceeded a secondary rate limit."}"#;
    let server =
        Server::start(move |_, _| async { Response::builder().status(403).body(said.as_slice().into()).unwrap() });
    let server = server.await.unwrap();
    let one = Service { origin: server.origin(), asked: Arc::default(), _server: Some(server) };
    let error = one.ask(Method::GET, 10).await.unwrap_err();
    assert!(error.may_pass() && !error.is_refused());
    assert!(error.to_string().ends_with("(ask again in 60 s)"), "{error}");
}

#[tokio::test]
async fn an_answer_that_is_read_as_it_comes_says_when_it_breaks_off() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = Url::parse(&format!("http://{}/a?key=hidden", listener.local_addr().unwrap())).unwrap();
    tokio::spawn(async move {
        for end in ["4\r\nmore\r\n0\r\n\r\n", "8\r\nmo"] {
            let (mut stream, _) = listener.accept().await.unwrap();
            let begin = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n5\r\nfirst\r\n";
            stream.read_u8().await.unwrap();
            stream.write_all(format!("{begin}{end}").as_bytes()).await.unwrap();
        }
    });
    let http = Http::new("test").unwrap();
    let answer = http.open(http.request(Method::GET, url.clone()), Deadline::NONE).await.unwrap();
    assert_eq!(answer.whole().await.unwrap().body, b"firstmore");
    let mut answer = http.open(http.request(Method::GET, url), Deadline::NONE).await.unwrap();
    let error = loop {
        match answer.chunk().await {
            Ok(chunk) => assert!(chunk.is_some(), "a part is taken for the whole"),
            Err(error) => break error,
        }
    };
    assert!(error.may_pass() && error.to_string().contains("breaks off") && !error.to_string().contains("hidden"));
}

#[tokio::test]
async fn an_answer_that_falls_silent_is_late_at_the_deadline() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = Url::parse(&format!("http://{}/a", listener.local_addr().unwrap())).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_u8().await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n").await.unwrap();
        std::future::pending::<()>().await;
    });
    let http = Http::new("test").unwrap();
    let deadline = Deadline::at(SystemTime::now() + Duration::from_secs(1));
    let mut answer = http.open(http.request(Method::GET, url), deadline).await.unwrap();
    assert_eq!(answer.chunk().await.unwrap().unwrap().as_ref(), b"first");
    let began = Instant::now();
    assert!(answer.chunk().await.unwrap_err().is_late());
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_request_ends_with_its_deadline() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let silent = nobody(format!("http://{}", listener.local_addr().unwrap()));
    let began = Instant::now();
    let error = silent.ask(Method::POST, 1).await.unwrap_err();
    assert!(error.may_pass(), "{error}");
    assert!(began.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn neither_the_token_nor_the_query_is_in_an_error() {
    let error = nobody("http://127.0.0.1:9".into()).ask(Method::GET, 1).await.unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(text.contains("GET http://127.0.0.1:9/a has no answer"), "{text}");
    assert!(!text.contains("hidden") && !text.contains("token-of-mine"), "{text}");
    let wrong = authorization("Bearer", &"a\nb".into()).unwrap_err().to_string();
    assert!(!wrong.contains("a\nb"), "{wrong}");
}

#[tokio::test]
async fn nothing_is_sent_elsewhere() {
    let other = service(Vec::new()).await;
    for status in [301, 302, 303, 307, 308] {
        let elsewhere = (status, vec![("location", format!("{}/b", other.origin))]);
        let one = service(vec![elsewhere.clone(), elsewhere]).await;
        for method in [Method::GET, Method::POST] {
            assert_eq!(one.ask(method, 10).await.unwrap_err().status().unwrap().as_u16(), status);
        }
        assert!(one.asked.lock().unwrap().iter().all(|asked| asked.2.as_deref() == Some("Bearer token-of-mine")));
    }
    assert_eq!(other.asked(), 0);
}

#[tokio::test]
async fn pages_follow_each_other_by_their_links() {
    let links = r#"<https://api.example/a?page=2&kinds=a,b&per_page=100>; rel="next", <https://api.example/a?page=9>; rel="last""#;
    let one = service(vec![(200, vec![("link", links.into())])]).await;
    let http = Http::new("test").unwrap();
    let url = Url::parse(&one.origin).unwrap();
    let first = http.send(http.request(Method::GET, url.clone()), Deadline::NONE).await.unwrap();
    assert_eq!(first.next().unwrap(), "https://api.example/a?page=2&kinds=a,b&per_page=100");
    let last = http.send(http.request(Method::GET, url), Deadline::NONE).await.unwrap();
    assert_eq!(last.next(), None);
}
