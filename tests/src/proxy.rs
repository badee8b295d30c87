//! A TCP proxy that stands between the program and a server, counts what passes in either
//! direction, and at a chosen count holds it back, for a while or until the program is killed, or cuts the
//! connection. So a sweep over the count meets every moment before and after a request, with no
//! help from the program.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>
const REFUSAL: &str = "HTTP/1.1 503 Slow Down\r\nConnection: close\r\nContent-Type: application/xml\r\n\r\n\
    <?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.\
    </Message></Error>";

/// At which message to hold back or cut, and the word that it is time.
#[derive(Debug, Default)]
pub struct KillSwitch {
    passed: AtomicU64,
    at: AtomicU64,
    cuts: AtomicBool,
    pauses: AtomicBool,
    refusals: AtomicU64,
    now: Notify,
    on: Notify,
}

/// What becomes of a message.
enum Fate {
    Passes,
    IsHeldBack,
    Waits,
    IsCut,
}

impl KillSwitch {
    /// Counts from zero again, and holds back the `at`th message and all after it; none if it is 0.
    pub fn hold_at(&self, at: u64) {
        self.passed.store(0, Ordering::SeqCst);
        self.cuts.store(false, Ordering::SeqCst);
        self.pauses.store(false, Ordering::SeqCst);
        self.at.store(at, Ordering::SeqCst);
    }

    /// Counts from zero again, and holds back the `at`th message and all after it until [`Self::go_on`].
    pub fn pause_at(&self, at: u64) {
        self.hold_at(at);
        self.pauses.store(true, Ordering::SeqCst);
    }

    /// Lets pass what is held back, and all that comes.
    pub fn go_on(&self) {
        self.at.store(0, Ordering::SeqCst);
        self.on.notify_waiters();
    }

    /// Counts from zero again, and cuts the connection of the `at`th message, once.
    pub fn cut_at(&self, at: u64) {
        self.hold_at(at);
        self.cuts.store(true, Ordering::SeqCst);
    }

    /// Has the next `requests` of HTTP answered with 503, as S3 does when it has too much to do.
    pub fn refuse(&self, requests: u64) {
        self.refusals.store(requests, Ordering::SeqCst);
    }

    /// Whether a request is refused.
    fn refuses(&self) -> bool {
        let one_less = |left: u64| left.checked_sub(1);
        self.refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok()
    }

    /// Messages that came since it was armed.
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::SeqCst)
    }

    /// Waits for the moment.
    pub async fn wait(&self) {
        self.now.notified().await;
    }

    /// Counts a message.
    fn fate(&self) -> Fate {
        let at = self.at.load(Ordering::SeqCst);
        let number = self.passed.fetch_add(1, Ordering::SeqCst) + 1;
        if self.cuts.load(Ordering::SeqCst) {
            return if number == at { Fate::IsCut } else { Fate::Passes };
        }
        if number == at {
            self.now.notify_one();
        }
        match at {
            0 => Fate::Passes,
            _ if number < at => Fate::Passes,
            _ if self.pauses.load(Ordering::SeqCst) => Fate::Waits,
            _ => Fate::IsHeldBack,
        }
    }
}

/// A proxy on loopback, for as long as the test runs.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
}

impl Proxy {
    /// Stands before the server on `port` of loopback.
    pub async fn start(port: u16, switch: Arc<KillSwitch>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut program, _)) = listener.accept().await {
                if switch.refuses() {
                    // After the request, or the program would not read the answer.
                    let _ = program.read(&mut vec![0; 1 << 16]).await;
                    let _ = program.write_all(REFUSAL.as_bytes()).await;
                    continue;
                }
                let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
                program.set_nodelay(true).unwrap();
                server.set_nodelay(true).unwrap();
                let (from_program, to_program) = program.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(pass(from_program, to_server, Arc::clone(&switch)));
                tokio::spawn(pass(from_server, to_program, Arc::clone(&switch)));
            }
        });
        Self { address }
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, switch: Arc<KillSwitch>) {
    let mut message = vec![0; 1 << 16];
    while let Ok(length) = from.read(&mut message).await {
        if length == 0 {
            break;
        }
        match switch.fate() {
            Fate::Passes => {}
            Fate::IsCut => break,
            Fate::Waits => loop {
                let on = switch.on.notified();
                if switch.at.load(Ordering::SeqCst) == 0 {
                    break;
                }
                on.await;
            },
            // Until the program is dead and this side of the connection ends.
            Fate::IsHeldBack => {
                while from.read(&mut message).await.is_ok_and(|length| length > 0) {}
                break;
            }
        }
        if to.write_all(&message[..length]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
