//! A server on loopback that answers as a function says: stand-ins of services, for demos and tests.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Collected, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What an answer has: bytes that are there, or come.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// An answer's bytes, all there.
#[must_use]
pub fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// An answer's bytes as they are read.
pub fn streamed(reader: impl AsyncRead + Send + Unpin + 'static) -> Body {
    let chunks = stream::try_unfold(reader, async |mut reader| {
        let mut chunk = BytesMut::with_capacity(64 << 10);
        let read = reader.read_buf(&mut chunk).await?;
        Ok((read > 0).then(|| (Frame::data(chunk.freeze()), reader)))
    });
    StreamBody::new(chunks).boxed_unsync()
}

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
    pub async fn start<F, A>(answer: F) -> io::Result<Self>
    where
        F: Fn(SocketAddr, Request<Bytes>) -> A + Clone + Send + 'static,
        A: Future<Output = Response<Bytes>> + Send + 'static,
    {
        Self::streaming(move |address, request| {
            let answer = answer(address, request);
            async move { answer.await.map(whole) }
        })
        .await
    }

    /// Serves what `answer` says, as it comes.
    ///
    /// # Errors
    /// If there is no port.
    pub async fn streaming<F, A>(answer: F) -> io::Result<Self>
    where
        F: Fn(SocketAddr, Request<Bytes>) -> A + Clone + Send + 'static,
        A: Future<Output = Response<Body>> + Send,
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
                        Ok::<_, Infallible>(answer(address, Request::from_parts(head, body)).await)
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
