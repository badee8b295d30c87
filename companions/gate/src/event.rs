//! What S3 says of an object that was written.

use percent_encoding::percent_decode_str;
use serde_json::Value;

/// The bucket and the key of each object of an event; none if it is no event of S3.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html>
#[must_use]
pub(crate) fn objects(event: &Value) -> Vec<(String, String)> {
    let records = event["Records"].as_array().into_iter().flatten();
    let object = |record: &Value| {
        let (bucket, key) = (record["s3"]["bucket"]["name"].as_str()?, record["s3"]["object"]["key"].as_str()?);
        // As a form is encoded.
        let spaced = key.replace('+', " ");
        Some((bucket.to_owned(), percent_decode_str(&spaced).decode_utf8().ok()?.into_owned()))
    };
    records.filter_map(object).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::objects;

    #[test]
    fn a_key_of_an_event_is_encoded_as_a_form_is() {
        let record = |key: &str| json!({ "s3": { "bucket": { "name": "drop" }, "object": { "key": key } } });
        let event =
            json!({ "Records": [record("a/2019-09-30T17%3A00%3A02.396833/a%2Bb+%25C3.csv"), record("%C3%A9")] });
        let keys: Vec<_> = objects(&event).into_iter().map(|(_, key)| key).collect();
        assert_eq!(keys, ["a/2019-09-30T17:00:02.396833/a+b %C3.csv", "é"]);
        assert!(objects(&json!({ "Event": "s3:TestEvent" })).is_empty());
        assert!(objects(&json!({})).is_empty());
    }
}
