//! The scripts around Terraform.

use blackwater_tests::{Aws, World};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_moves_the_functions_back_by_one_version_extract_first() {
    let aws = Aws::start(&World::totesys().await, &[]).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("environments")).unwrap();
    let settings = "name   = \"shop\" # of the pipeline\nregion = \"eu-west-2\"\n";
    std::fs::write(folder.path().join("environments/test.tfvars"), settings).unwrap();
    aws.command(json!(["release"])).await;
    let (code, text) = aws.script(folder.path(), "rollback", &["blackwater", "test"]).await;
    assert_eq!(code, Some(0), "{text}");
    let moved: Vec<_> = text.lines().collect();
    let of = |stage: &str| format!("shop-test-{stage}: version 2 -> 1");
    assert_eq!(moved, ["extract", "transform", "load"].map(of));
    let live = aws.command(json!(["live"])).await;
    assert!(live.as_object().unwrap().values().all(|version| version == "1"), "{live}");
    let (code, text) = aws.script(folder.path(), "rollback", &["blackwater", "test"]).await;
    assert_eq!((code, text.trim()), (Some(1), "shop-test-extract has no version before 1; nothing was moved"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_s_bucket_is_made_once_and_keeps_its_versions_to_itself() {
    let aws = Aws::start(&World::totesys().await, &[]).await;
    let folder = tempfile::tempdir().unwrap();
    let name = "blackwater-state-123456789012-eu-west-2";
    let (code, text) = aws.script(folder.path(), "state", &["make"]).await;
    assert_eq!((code, text.trim()), (Some(0), format!("{name} is made").as_str()));
    let bucket = aws.command(json!(["bucket", name])).await;
    assert_eq!(bucket["versioning"], "Enabled");
    assert!(bucket["public"].as_object().unwrap().values().all(|block| block == true), "{bucket}");
    assert_eq!(bucket["encryption"][0]["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"], "AES256");
    let policy = &bucket["policy"]["Statement"][0];
    assert_eq!(
        (&policy["Effect"], &policy["Condition"]),
        (&json!("Deny"), &json!({ "Bool": { "aws:SecureTransport": "false" } }))
    );
    let (code, text) = aws.script(folder.path(), "state", &["make"]).await;
    assert_eq!((code, text.trim()), (Some(0), format!("{name} is there already").as_str()));
}
