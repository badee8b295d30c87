//! An S3 server that ignores `If-None-Match`, as some do: it overwrites an object that it should keep.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A proxy in front of the S3 server of a folder, for as long as the test runs.
#[derive(Debug)]
pub struct OverwritingS3 {
    /// Where it listens.
    pub address: SocketAddr,
}

impl OverwritingS3 {
    /// Starts in front of the server on `port` of loopback, which serves `folder`. The header is part of the signature and
    /// cannot be removed. So the proxy removes the object that exists before it passes the request on.
    pub async fn start(port: u16, folder: PathBuf) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((program, _)) = listener.accept().await {
                let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
                program.set_nodelay(true).unwrap();
                server.set_nodelay(true).unwrap();
                let (mut from_program, mut to_program) = program.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                let folder = folder.clone();
                tokio::spawn(async move {
                    let mut message = vec![0; 1 << 16];
                    while let Ok(length @ 1..) = from_program.read(&mut message).await {
                        remove_existing(&folder, &message[..length]);
                        if to_server.write_all(&message[..length]).await.is_err() {
                            break;
                        }
                    }
                });
                tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_program).await });
            }
        });
        Self { address }
    }
}

/// Removes the object that a conditional request would not overwrite.
fn remove_existing(folder: &Path, request: &[u8]) {
    let text = String::from_utf8_lossy(request);
    let head = text.split("\r\n\r\n").next().unwrap_or_default().to_ascii_lowercase();
    if text.starts_with("PUT /") && head.contains("if-none-match:") {
        let path = text["PUT /".len()..].split([' ', '?']).next().unwrap_or_default();
        let _ = std::fs::remove_file(folder.join(path));
    }
}
