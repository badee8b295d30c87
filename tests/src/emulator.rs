//! S3 and Secrets Manager by an emulator, for programs that ask them for their secrets.

use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

/// A running emulator, with the buckets `open` and `locked`, of which one has an object lock. It stops when this is dropped.
#[derive(Debug)]
pub struct Emulator {
    /// Where it answers.
    pub endpoint: String,
    _server: Child,
}

impl Emulator {
    /// One with these secrets: each a document of JSON, by its name.
    pub async fn start(secrets: &Value) -> Self {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let python = workspace.join("target/tools/moto/bin/python");
        assert!(python.exists(), "no {}: run `make test`", python.display());
        let mut server = Command::new(python)
            .arg(workspace.join("tests/aws/services.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        server.stdin.as_mut().unwrap().write_all(format!("{secrets}\n").as_bytes()).await.unwrap();
        let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
        let endpoint = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
        Self { endpoint, _server: server }
    }
}
