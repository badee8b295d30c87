//! What a bucket keeps, and when.

#![allow(missing_docs, clippy::unwrap_used)]

use std::time::{Duration, SystemTime};

use blackwater_base::store::{If, JSON, Store, client};
use blackwater_local::s3::{ACCESS_KEY, S3, SECRET_KEY};
use tokio::io::AsyncReadExt;

async fn stores(folder: &tempfile::TempDir) -> (S3, Store, Store) {
    let s3 = S3::start(folder.path(), &["one", "other"]).await.unwrap();
    let client = client(Some(&s3.endpoint()), Some((ACCESS_KEY, SECRET_KEY))).await;
    (s3, Store::new(client.clone(), "one", "one.bucket"), Store::new(client, "other", "other.bucket"))
}

#[tokio::test]
async fn an_object_is_written_if_what_was_said_of_its_key_holds() {
    let folder = tempfile::tempdir().unwrap();
    let (_s3, store, _) = stores(&folder).await;
    let put = async |condition: If<'_>, body: &'static str| {
        store.put_if(condition, "a", Some(JSON), body.into()).await.unwrap()
    };
    let first = put(If::Free, "1").await.unwrap();
    assert_eq!(put(If::Free, "2").await, None);
    let second = put(If::Is(&first), "2").await.unwrap();
    assert_eq!(put(If::Is(&first), "3").await, None);
    let (body, etag) = store.get_tagged("a").await.unwrap().unwrap();
    assert_eq!((body.as_ref(), etag), (&b"2"[..], second));
    assert!(put(If::Any, "4").await.is_some());
    assert_eq!(store.put_if(If::Is(&first), "gone", None, "5".into()).await.unwrap(), None);
}

#[tokio::test]
async fn an_object_is_read_and_copied_only_as_it_was_seen() {
    let folder = tempfile::tempdir().unwrap();
    let (_s3, store, other) = stores(&folder).await;
    let key = "a b+c/é%20.csv";
    store.put(key, "first".into()).await.unwrap();
    let head = store.head(key).await.unwrap().unwrap();
    assert_eq!(head.bytes, 5);
    let mut text = String::new();
    store.read(key, &head.etag).await.unwrap().unwrap().read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "first");
    assert!(store.copy(key, &head.etag, &other).await.unwrap());
    assert_eq!(other.get(key).await.unwrap().unwrap().as_ref(), b"first");

    store.put(key, "second".into()).await.unwrap();
    assert!(store.read(key, &head.etag).await.unwrap().is_none());
    assert!(!store.copy(key, &head.etag, &other).await.unwrap());
    assert_eq!(other.get(key).await.unwrap().unwrap().as_ref(), b"first");
    assert!(!store.copy("gone", &head.etag, &other).await.unwrap());
    assert_eq!(store.head("gone").await.unwrap(), None);
}

#[tokio::test]
async fn a_listing_says_how_large_objects_are_and_when_they_were_written() {
    let folder = tempfile::tempdir().unwrap();
    let (_s3, store, _) = stores(&folder).await;
    for (key, body) in [("a/1", "x"), ("a/2", "xyz"), ("b", "")] {
        store.put(key, body.into()).await.unwrap();
    }
    let listed = store.listed("a/", "", 10).await.unwrap();
    assert_eq!(
        listed.iter().map(|object| (object.key.as_str(), object.bytes)).collect::<Vec<_>>(),
        [("a/1", 1), ("a/2", 3)]
    );
    let now = SystemTime::now();
    assert!(
        listed.iter().all(|object| now.duration_since(object.written).unwrap_or_default() < Duration::from_secs(60))
    );
    assert_eq!(store.list("a/", "a/1", 10).await.unwrap(), ["a/2"]);
}

#[tokio::test]
async fn an_upload_that_is_not_finished_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (_s3, store, _) = stores(&folder).await;
    let piece = vec![7; 9 << 20];
    let parts = || {
        let files = std::fs::read_dir(folder.path()).unwrap().flatten();
        files.filter(|file| file.file_name().to_string_lossy().contains("upload")).count()
    };
    let mut upload = store.upload("whole".into());
    upload.write(&piece).await.unwrap();
    assert!(parts() > 0, "the test does not see the parts of an upload");
    assert_eq!(upload.finish().await.unwrap().bytes, 9 << 20);
    assert_eq!(parts(), 0);

    let mut upload = store.upload("cut".into());
    upload.write(&piece).await.unwrap();
    drop(upload);
    for _ in 0..100 {
        if parts() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(parts(), 0);
    assert_eq!(store.list("", "", 10).await.unwrap(), ["whole"]);
}

#[tokio::test]
async fn of_two_uploads_of_one_key_the_first_that_is_finished_stays() {
    let folder = tempfile::tempdir().unwrap();
    let (_s3, store, _) = stores(&folder).await;
    for bytes in [3, 20 << 20] {
        let key = format!("of {bytes} bytes");
        let (mut first, mut second) = (store.upload(key.clone()), store.upload(key.clone()));
        for (upload, byte) in [(&mut first, b'1'), (&mut second, b'2')] {
            upload.write(&vec![byte; bytes]).await.unwrap();
        }
        let kept = first.finish_new().await.unwrap().unwrap();
        assert!(second.finish_new().await.unwrap().is_none());
        let found = store.get(&key).await.unwrap().unwrap();
        assert_eq!((found.len(), found[bytes - 1]), (bytes, b'1'));
        assert_eq!(blackwater_base::store::sha256(&found), kept.sha256);
    }
}
