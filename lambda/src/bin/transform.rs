//! Transform as a Lambda function: for events of the ingestion bucket, and for the sweep's.

use blackwater_transform::Transform;

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    blackwater_lambda::serve(
        |_, pack, ingestion, processed| Ok(Transform::new(pack, ingestion, processed)),
        async |transform: &Transform, _| transform.run().await,
    )
    .await
}
