//! The program on this machine.

pub(crate) async fn run() -> anyhow::Result<()> {
    Ok(())
}
