//! Extract as a Lambda function: for the schedule's event; `{"full": ["staff"]}` asks for tables in full.

use blackwater_extract::{Extract, Request};
use serde_json::Value;

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    blackwater_lambda::serve(Extract::new, async |extract, event| extract.run(&request(event)).await).await
}

fn request(event: &Value) -> Request {
    let tables = |names: &Vec<Value>| names.iter().filter_map(|name| Some(name.as_str()?.to_owned())).collect();
    event["full"].as_array().map_or(Request::Changes, |names| Request::Full(tables(names)))
}
