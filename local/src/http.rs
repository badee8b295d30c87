//! A server on loopback that answers as a function says: stand-ins of services, for demos and tests.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http_body_util::{BodyExt, Collected, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A running server. It stops when this is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Serves what `answer` says, on a free port. It is told where that is.
    ///
    /// # Errors
    /// If there is no port.
    pub async fn start<F, A>(answer: F) -> std::io::Result<Self>
    where
        F: Fn(SocketAddr, Request<Bytes>) -> A + Clone + Send + 'static,
        A: Future<Output = Response<Bytes>> + Send,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let answer = answer.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    let answer = answer.clone();
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
                        let answer = answer(address, Request::from_parts(head, body)).await;
                        Ok::<_, Infallible>(answer.map(Full::new))
                    }
                });
                let serving =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                tokio::spawn(async move {
                    let _ = serving.await;
                });
            }
        });
        Ok(Self { address, accepting })
    }

    /// Where it answers, as `http://127.0.0.1:80`.
    #[must_use]
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
