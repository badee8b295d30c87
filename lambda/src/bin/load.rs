//! Load as a Lambda function: for events of the processed bucket, and for the sweep's.

use blackwater_load::Load;

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    blackwater_lambda::serve(
        |config, pack, _, processed| Load::new(config, pack, processed),
        async |load: &Load, _| load.run(false).await,
    )
    .await
}
