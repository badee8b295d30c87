//! Load as a Lambda function.

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    blackwater_lambda::serve::<blackwater_load::Load>().await
}
