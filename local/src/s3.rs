//! An S3 server on a folder, on loopback, for as long as its handle lives.
//!
//! s3s-fs checks a condition and then writes, and names its temporary files by a count that every
//! program begins at zero. Both go wrong when several requests, or several programs, serve one
//! folder. So every request that writes holds an exclusive lock on a file in that folder.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper::Method;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The key of the server's only account. It answers on loopback alone.
pub const ACCESS_KEY: &str = "blackwater";
/// The secret of the server's only account.
pub const SECRET_KEY: &str = "blackwater-local";

const LOCK: &str = ".blackwater.lock";

/// Why the server cannot serve the folder.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder cannot be used.
    #[error("cannot serve buckets from {}: {why}\nThe setting s3.directory names a folder that can be written to", .folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// The system's reason.
        why: std::io::Error,
    },
    /// s3s-fs refused it.
    #[error("cannot serve buckets from {}: {why}", .folder.display())]
    Server {
        /// The folder.
        folder: PathBuf,
        /// Its words.
        why: String,
    },
}

/// A running server. It stops when this is dropped.
#[derive(Debug)]
pub struct S3 {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl S3 {
    /// Serves `folder`, in which each of `buckets` is made, on a free port.
    ///
    /// # Errors
    /// If the folder cannot be made or written to.
    pub async fn start(folder: &Path, buckets: &[&str]) -> Result<Self, Error> {
        let failed = |why| Error::Folder { folder: folder.to_owned(), why };
        std::fs::create_dir_all(folder).map_err(failed)?;
        let locked = lock(folder.to_owned()).await.map_err(failed)?;
        for bucket in buckets {
            std::fs::create_dir_all(folder.join(bucket)).map_err(failed)?;
        }
        // It begins by removing temporary files: under the lock nobody has one.
        let files =
            FileSystem::new(folder).map_err(|why| Error::Server { folder: folder.into(), why: format!("{why:?}") })?;
        drop(locked);
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = builder.build();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let folder: Arc<Path> = folder.into();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // An answer's head and body are two packets: without this the second waits 40 ms for the client's word.
                let _ = stream.set_nodelay(true);
                tokio::spawn(serve(stream, service.clone(), Arc::clone(&folder)));
            }
        });
        Ok(Self { address, accepting })
    }

    /// Where it answers, as an S3 endpoint.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(stream: TcpStream, service: S3Service, folder: Arc<Path>) {
    let answer = service_fn(move |request: hyper::Request<Incoming>| {
        let (service, folder) = (service.clone(), Arc::clone(&folder));
        async move {
            let writes = !matches!(*request.method(), Method::GET | Method::HEAD);
            let _locked = match writes {
                true => Some(lock(folder.to_path_buf()).await?),
                false => None,
            };
            let answer = Service::call(&service, request).await;
            answer.map_err(|error| std::io::Error::other(format!("{error:?}")))
        }
    });
    let connection = auto::Builder::new(TokioExecutor::new());
    if let Err(error) = connection.serve_connection(TokioIo::new(stream), answer).await {
        tracing::debug!("a connection to the S3 server ended: {error}");
    }
}

/// Waits for the folder's lock, which the system takes back when the program dies.
async fn lock(folder: PathBuf) -> std::io::Result<File> {
    let waiting = tokio::task::spawn_blocking(move || {
        let file = File::options().create(true).truncate(false).write(true).open(folder.join(LOCK))?;
        file.lock()?;
        Ok(file)
    });
    waiting.await.map_err(std::io::Error::other)?
}
