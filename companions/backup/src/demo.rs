//! The demo: a small account on a stand-in of GitHub, and a bucket, on this machine, gone when it ends.

pub(crate) async fn run() -> anyhow::Result<()> {
    Ok(())
}
