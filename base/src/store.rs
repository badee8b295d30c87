//! One bucket of S3, or of whatever speaks its protocol.

use std::path::Path;
use std::time::SystemTime;

pub use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{Credentials, Region};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{BucketVersioningStatus, CompletedMultipartUpload, CompletedPart};
use bytes::{Bytes, BytesMut};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWriteExt};
use tokio::task::JoinHandle;

/// What is written as `%XX` in the path of an object.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// S3 takes no part of a multipart upload below 5 MiB but the last.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>
const PART: usize = 8 << 20;
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>
const MOST_PARTS: usize = 10_000;

/// How often a request is sent until it succeeds.
const TRIES: u32 = 5;

/// The SDK retries requests, but not a body that breaks off while it is read.
const RETRIES: u32 = 2;

/// Why a bucket did not do what was asked of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bucket is not there.
    #[error("bucket {bucket} does not exist\nCreate it, or correct {setting}")]
    NoBucket {
        /// The bucket.
        bucket: String,
        /// The setting that names it.
        setting: &'static str,
    },
    /// A request failed.
    #[error("cannot {action} {place}: {why}")]
    Request {
        /// What was being done.
        action: &'static str,
        /// The bucket, or bucket and key.
        place: String,
        /// The cause, with S3's code where there is one.
        why: String,
    },
    /// An object would have more parts than S3 takes.
    #[error("{bucket}/{key} would be larger than {} GB, which is too large to write in parts", (MOST_PARTS * PART) >> 30)]
    TooLarge {
        /// The bucket.
        bucket: String,
        /// The object.
        key: String,
    },
    /// An object is not the one that was expected.
    #[error("{bucket}/{key} is not the object that was listed: {why}\nRestore it from the bucket's older versions")]
    Changed {
        /// The bucket.
        bucket: String,
        /// The object.
        key: String,
        /// What differs.
        why: String,
    },
}

/// A client for all buckets: of AWS with the machine's own credentials and region, or of the
/// server at `endpoint`. `credentials` (key and secret) are for the embedded server alone.
pub async fn client(endpoint: Option<&str>, credentials: Option<(&str, &str)>) -> Client {
    let mut loader = aws_config::defaults(aws_config::BehaviorVersion::latest());
    if let Some((key, secret)) = credentials {
        loader = loader
            .credentials_provider(Credentials::new(key, secret, None, None, "blackwater"))
            .region(Region::new("us-east-1"));
    }
    // With its back-off, for S3's 500 and 503:
    // https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html
    let loader = loader.retry_config(RetryConfig::standard().with_max_attempts(TRIES));
    let mut config = aws_sdk_s3::config::Builder::from(&loader.load().await);
    if let Some(endpoint) = endpoint {
        config = config.endpoint_url(endpoint).force_path_style(true);
    }
    Client::from_conf(config.build())
}

/// What a listing says of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its ETag, with the quotes; some servers leave it out.
    pub etag: Option<String>,
    /// When it was written.
    pub written: SystemTime,
}

/// What tells an object from others that had its key or will have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its size in bytes.
    pub bytes: u64,
    /// Its ETag, with the quotes.
    pub etag: String,
}

/// How a bucket keeps what is overwritten or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protection {
    /// Whether older versions stay.
    pub is_versioned: bool,
    /// What keeps versions from being removed, and for how long, as `governance, for 30 days`.
    pub lock: Option<String>,
}

/// What must hold of a key for a write to it.
#[derive(Clone, Copy, Debug)]
pub enum If<'e> {
    /// Nothing: an object that is there is replaced.
    Any,
    /// It is free.
    Free,
    /// Its object has this ETag.
    Is(&'e str),
}

/// The content type of a document of JSON.
pub const JSON: &str = "application/json";

/// One bucket.
#[derive(Clone, Debug)]
pub struct Store {
    client: Client,
    bucket: String,
    setting: &'static str,
}

impl Store {
    /// The bucket that the setting `setting` names.
    #[must_use]
    pub fn new(client: Client, bucket: &str, setting: &'static str) -> Self {
        Self { client, bucket: bucket.into(), setting }
    }

    /// The bucket's name.
    #[must_use]
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Makes sure that the bucket exists.
    ///
    /// # Errors
    /// [`Error::NoBucket`] if it does not.
    pub async fn check(&self) -> Result<(), Error> {
        match self.client.head_bucket().bucket(&self.bucket).send().await {
            Ok(_) => Ok(()),
            Err(error) if error.as_service_error().is_some_and(|e| e.is_not_found()) => {
                Err(Error::NoBucket { bucket: self.bucket.clone(), setting: self.setting })
            }
            Err(error) => Err(self.failed("reach", "", &error)),
        }
    }

    /// Whether an object is there.
    ///
    /// # Errors
    /// If S3 cannot be asked. (Without the right to list the bucket it answers 403 for a missing key.)
    pub async fn exists(&self, key: &str) -> Result<bool, Error> {
        Ok(self.head(key).await?.is_some())
    }

    /// What tells an object from others of its key, `None` if it is not there.
    ///
    /// # Errors
    /// As [`Self::exists`].
    pub async fn head(&self, key: &str) -> Result<Option<Head>, Error> {
        match self.client.head_object().bucket(&self.bucket).key(key).send().await {
            Ok(found) => Ok(Some(Head {
                bytes: found.content_length.unwrap_or_default().unsigned_abs(),
                etag: found.e_tag.unwrap_or_default(),
            })),
            Err(error) if error.as_service_error().is_some_and(|e| e.is_not_found()) => Ok(None),
            Err(error) => Err(self.failed("look for", key, &error)),
        }
    }

    /// A small object in full, `None` if it is not there.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn get(&self, key: &str) -> Result<Option<Bytes>, Error> {
        Ok(self.get_tagged(key).await?.map(|(body, _)| body))
    }

    /// A small object in full, and its ETag, `None` if it is not there.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn get_tagged(&self, key: &str) -> Result<Option<(Bytes, String)>, Error> {
        let mut tries = 0;
        loop {
            let Some((body, etag)) = self.open(key, None).await? else { return Ok(None) };
            match body.collect().await {
                Ok(body) => return Ok(Some((body.into_bytes(), etag))),
                Err(error) if tries == RETRIES => return Err(self.request("read", key, innermost(&error))),
                Err(_) => tries += 1,
            }
        }
    }

    /// An object's bytes as they come, `None` if it is not there any more, or has another ETag than this one. A body that breaks
    /// off is an error of its reader.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn read(&self, key: &str, etag: &str) -> Result<Option<impl AsyncRead + use<>>, Error> {
        Ok(self.open(key, Some(etag)).await?.map(|(body, _)| body.into_async_read()))
    }

    async fn open(&self, key: &str, etag: Option<&str>) -> Result<Option<(ByteStream, String)>, Error> {
        let get = self.client.get_object().bucket(&self.bucket).key(key).set_if_match(etag.map(Into::into));
        match get.send().await {
            Ok(answer) => {
                let found = answer.e_tag.unwrap_or_default();
                // Some servers do not look at the condition.
                Ok(etag.is_none_or(|etag| etag == found).then_some((answer.body, found)))
            }
            Err(error) if error.as_service_error().is_some_and(|e| e.is_no_such_key()) => Ok(None),
            Err(error) if status(&error) == Some(412) => Ok(None),
            Err(error) => Err(self.failed("read", key, &error)),
        }
    }

    /// Writes an object only if its key is free: `false` if it is not.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn create(&self, key: &str, body: Vec<u8>) -> Result<bool, Error> {
        Ok(self.put_if(If::Free, key, None, body.into()).await?.is_some())
    }

    /// Writes an object if a condition holds: its ETag. `None` if it does not hold, or if another conditional write to the key is
    /// under way (409), which comes to the same for who tries.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn put_if(
        &self,
        condition: If<'_>,
        key: &str,
        content_type: Option<&str>,
        body: Bytes,
    ) -> Result<Option<String>, Error> {
        let put = self.client.put_object().bucket(&self.bucket).key(key).body(body.into());
        let put = put.set_content_type(content_type.map(Into::into));
        let put = match condition {
            If::Any => put,
            If::Free => put.if_none_match("*"),
            If::Is(etag) => put.if_match(etag),
        };
        match put.send().await {
            Ok(written) => Ok(Some(written.e_tag.unwrap_or_default())),
            Err(error) if matches!(status(&error), Some(409 | 412)) => Ok(None),
            // An object with a condition on its ETag may be gone.
            Err(error) if matches!(condition, If::Is(_)) && error.code() == Some("NoSuchKey") => Ok(None),
            Err(error) => Err(self.failed("write", key, &error)),
        }
    }

    /// Copies an object that has this ETag to the same key of another bucket, with its content type: `false` if it is gone, or has
    /// another ETag. An object of more than 5 GB cannot be copied at once.
    /// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html>
    ///
    /// # Errors
    /// If it cannot be copied.
    pub async fn copy(&self, key: &str, etag: &str, to: &Self) -> Result<bool, Error> {
        let source = percent_encode(format!("{}/{key}", self.bucket).as_bytes(), UNRESERVED).to_string();
        let copy = self.client.copy_object().copy_source(source).copy_source_if_match(etag).bucket(&to.bucket).key(key);
        match copy.send().await {
            Ok(_) => Ok(true),
            Err(error) if status(&error) == Some(412) || error.code() == Some("NoSuchKey") => Ok(false),
            Err(error) => Err(self.failed("copy", key, &error)),
        }
    }

    /// How the bucket keeps what is overwritten or removed.
    ///
    /// # Errors
    /// If that may not be asked.
    pub async fn protection(&self) -> Result<Protection, Error> {
        let lock = match self.client.get_object_lock_configuration().bucket(&self.bucket).send().await {
            Ok(found) => found.object_lock_configuration,
            Err(error) if error.code() == Some("ObjectLockConfigurationNotFoundError") => None,
            Err(error) => return Err(self.failed("ask for the object lock of", "", &error)),
        };
        if let Some(retention) = lock.and_then(|lock| lock.rule).and_then(|rule| rule.default_retention) {
            let mode = retention.mode.map_or_else(String::new, |mode| mode.as_str().to_lowercase());
            let lock = match (retention.days, retention.years) {
                (Some(days), _) => format!("{mode}, for {days} days"),
                (None, Some(years)) => format!("{mode}, for {years} years"),
                (None, None) => mode,
            };
            // One with a lock is versioned: https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html
            return Ok(Protection { is_versioned: true, lock: Some(lock) });
        }
        let versioning = self.client.get_bucket_versioning().bucket(&self.bucket).send().await;
        let versioning = versioning.map_err(|error| self.failed("ask for the versioning of", "", &error))?;
        Ok(Protection { is_versioned: versioning.status == Some(BucketVersioningStatus::Enabled), lock: None })
    }

    /// Whether the bucket keeps an object that is there when another one is to be created in its place: without that, two runs
    /// at once would overwrite each other's batch.
    ///
    /// # Errors
    /// If the object for the test cannot be written; beside the answer, why it cannot be removed.
    pub async fn keeps_what_is_there(&self) -> Result<(bool, Option<Error>), Error> {
        let key = format!("check/{}", uuid::Uuid::now_v7());
        self.create(&key, b"of `blackwater check`".to_vec()).await?;
        let created = self.create(&key, b"of `blackwater check`".to_vec()).await;
        let removed = self.client.delete_object().bucket(&self.bucket).key(&key).send().await;
        Ok((!created?, removed.err().map(|error| self.failed("remove", &key, &error))))
    }

    /// Writes an object whatever is there: a hint, or an object whose key nothing else has.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn put(&self, key: &str, body: Bytes) -> Result<(), Error> {
        self.put_if(If::Any, key, None, body).await.map(drop)
    }

    /// The keys under `prefix` that come after `after`, in order, at most `most`.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub async fn list(&self, prefix: &str, after: &str, most: usize) -> Result<Vec<String>, Error> {
        Ok(self.listed(prefix, after, most).await?.into_iter().map(|object| object.key).collect())
    }

    /// The objects under `prefix` whose keys come after `after`, in order, at most `most`.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub async fn listed(&self, prefix: &str, after: &str, most: usize) -> Result<Vec<Listed>, Error> {
        let mut pages = self
            .client
            .list_objects_v2()
            .bucket(&self.bucket)
            .prefix(prefix)
            .start_after(after)
            .max_keys(i32::try_from(most).unwrap_or(1000).min(1000))
            .into_paginator()
            .send();
        let mut listed = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| self.failed("list", prefix, &error))?;
            listed.extend(page.contents.unwrap_or_default().into_iter().filter_map(|object| {
                Some(Listed {
                    key: object.key?,
                    bytes: object.size.unwrap_or_default().unsigned_abs(),
                    etag: object.e_tag,
                    written: object
                        .last_modified
                        .and_then(|time| time.try_into().ok())
                        .unwrap_or(SystemTime::UNIX_EPOCH),
                })
            }));
            if listed.len() >= most {
                break;
            }
        }
        listed.truncate(most);
        Ok(listed)
    }

    /// Brings an object to a file, and makes sure that it is the one that has this SHA-256, in hexadecimal.
    ///
    /// # Errors
    /// [`Error::Changed`] if it is gone or has other bytes.
    pub async fn download(&self, key: &str, sha256: &str, file: &Path) -> Result<(), Error> {
        let mut tries = 0;
        loop {
            match self.try_download(key, sha256, file).await {
                Err(Error::Request { .. }) if tries < RETRIES => tries += 1,
                done => return done,
            }
        }
    }

    async fn try_download(&self, key: &str, sha256: &str, file: &Path) -> Result<(), Error> {
        let changed = |why: &str| Error::Changed { bucket: self.bucket.clone(), key: key.into(), why: why.into() };
        let failed = |why| self.request("read", key, why);
        let local = |error: std::io::Error| failed(format!("{}: {error}", file.display()));
        let (mut body, _) = self.open(key, None).await?.ok_or_else(|| changed("it is not there"))?;
        let mut out = tokio::fs::File::create(file).await.map_err(local)?;
        let mut hash = Sha256::new();
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|error| failed(innermost(&error)))?;
            hash.update(&chunk);
            out.write_all(&chunk).await.map_err(local)?;
        }
        out.flush().await.map_err(local)?;
        match hex(&hash.finalize()) == sha256 {
            true => Ok(()),
            false => Err(changed("its checksum differs")),
        }
    }

    /// Begins to write an object of any size, under a key that nothing else has.
    #[must_use]
    pub fn upload(&self, key: String) -> Upload {
        Upload { store: self.clone(), key, waiting: BytesMut::new(), multipart: None, bytes: 0, hash: Sha256::new() }
    }

    fn request(&self, action: &'static str, key: &str, why: String) -> Error {
        let mut why = why.split_whitespace().collect::<Vec<_>>().join(" ");
        let lower = why.to_lowercase();
        if lower.contains("region must be set") || lower.contains("missing region") {
            why.push_str("\nSet AWS_REGION");
        } else if lower.contains("credential") {
            why.push_str(
                "\nSet AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the machine a role",
            );
        }
        let place = if key.is_empty() { self.bucket.clone() } else { format!("{}/{key}", self.bucket) };
        Error::Request { action, place, why }
    }

    /// The error of a failed request; a missing bucket is told from a missing key.
    fn failed<E>(&self, action: &'static str, key: &str, error: &SdkError<E>) -> Error
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        if error.code() == Some("NoSuchBucket") {
            return Error::NoBucket { bucket: self.bucket.clone(), setting: self.setting };
        }
        let why = match (error.code(), error.message()) {
            (Some(code), Some(message)) => format!("{message} ({code})"),
            (Some(code), None) => code.to_owned(),
            // An answer to HEAD has no words.
            _ => match error.raw_response() {
                Some(answer) if !answer.status().is_success() => format!("the answer is {}", answer.status()),
                Some(answer) => format!("the answer is {} and cannot be read: {}", answer.status(), innermost(error)),
                None => innermost(error),
            },
        };
        self.request(action, key, why)
    }
}

/// The status of the answer that is an error.
fn status<E>(error: &SdkError<E>) -> Option<u16> {
    error.raw_response().map(|answer| answer.status().as_u16())
}

/// What an error of the SDK says, and the first of its causes.
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    format!("{error}: {cause}")
}

/// An object that was written.
#[derive(Clone, Debug)]
pub struct Uploaded {
    /// Its key.
    pub key: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// The SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
}

/// An object under way. What is small goes in one request, the rest in parts, of which one is sent while the next one is gathered.
#[derive(Debug)]
pub struct Upload {
    store: Store,
    key: String,
    waiting: BytesMut,
    multipart: Option<Multipart>,
    bytes: u64,
    hash: Sha256,
}

#[derive(Debug)]
struct Multipart {
    id: String,
    parts: Vec<CompletedPart>,
    sending: Option<JoinHandle<Result<CompletedPart, Error>>>,
}

impl Multipart {
    /// Waits for the part under way.
    async fn sent(&mut self) -> Result<(), Error> {
        if let Some(sending) = &mut self.sending {
            let part = sending.await.map_err(|error| Error::Request {
                action: "write a part of",
                place: self.id.clone(),
                why: error.to_string(),
            });
            self.sending = None;
            self.parts.push(part??);
        }
        Ok(())
    }
}

impl Upload {
    /// Bytes written so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The SHA-256 of the bytes written so far, in hexadecimal.
    #[must_use]
    pub fn sha256(&self) -> String {
        hex(&self.hash.clone().finalize())
    }

    /// Adds bytes at the end.
    ///
    /// # Errors
    /// If a part cannot be written.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.bytes += bytes.len() as u64;
        self.hash.update(bytes);
        let mut rest = bytes;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.len().min(PART - self.waiting.len()));
            self.waiting.extend_from_slice(piece);
            rest = after;
            if self.waiting.len() == PART {
                let part = std::mem::take(&mut self.waiting).freeze();
                self.send_part(part).await?;
            }
        }
        Ok(())
    }

    /// Completes the object.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn finish(self) -> Result<Uploaded, Error> {
        let (bucket, key) = (self.store.bucket.clone(), self.key.clone());
        let taken = || Error::Changed { bucket, key, why: "another write is under way".into() };
        self.finish_if(If::Any).await?.ok_or_else(taken)
    }

    /// Completes the object only if its key is free: `None` if it is not.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn finish_new(self) -> Result<Option<Uploaded>, Error> {
        self.finish_if(If::Free).await
    }

    async fn finish_if(mut self, condition: If<'_>) -> Result<Option<Uploaded>, Error> {
        let rest = self.waiting.split().freeze();
        let is_written = if self.multipart.is_none() {
            self.store.put_if(condition, &self.key, None, rest).await?.is_some()
        } else {
            if !rest.is_empty() {
                self.send_part(rest).await?;
            }
            self.complete(condition).await?
        };
        if !is_written {
            return Ok(None);
        }
        self.multipart = None;
        let (key, hash) = (std::mem::take(&mut self.key), std::mem::take(&mut self.hash));
        Ok(Some(Uploaded { key, bytes: self.bytes, sha256: hex(&hash.finalize()) }))
    }

    async fn complete(&mut self, condition: If<'_>) -> Result<bool, Error> {
        let Some(multipart) = &mut self.multipart else { return Ok(true) };
        multipart.sent().await?;
        let Store { client, bucket, .. } = &self.store;
        let parts = CompletedMultipartUpload::builder().set_parts(Some(multipart.parts.clone())).build();
        let complete = client.complete_multipart_upload().bucket(bucket).key(&self.key).upload_id(&multipart.id);
        let complete = match condition {
            If::Free => complete.if_none_match("*"),
            If::Any | If::Is(_) => complete,
        };
        match complete.multipart_upload(parts).send().await {
            Ok(_) => Ok(true),
            Err(error) if matches!(status(&error), Some(409 | 412)) => Ok(false),
            Err(error) => Err(self.store.failed("complete", &self.key, &error)),
        }
    }

    async fn send_part(&mut self, part: Bytes) -> Result<(), Error> {
        let Store { client, bucket, .. } = &self.store;
        let multipart = match &mut self.multipart {
            Some(multipart) => multipart,
            None => {
                let create = client.create_multipart_upload().bucket(bucket).key(&self.key).send().await;
                let created = create.map_err(|error| self.store.failed("write", &self.key, &error))?;
                let id = created.upload_id.unwrap_or_default();
                self.multipart.insert(Multipart { id, parts: Vec::new(), sending: None })
            }
        };
        multipart.sent().await?;
        if multipart.parts.len() == MOST_PARTS {
            return Err(Error::TooLarge { bucket: bucket.clone(), key: self.key.clone() });
        }
        let number = multipart.parts.len() as i32 + 1;
        let upload = client.upload_part().bucket(bucket).key(&self.key).upload_id(&multipart.id).part_number(number);
        let upload = upload.body(ByteStream::from(part));
        let (store, key) = (self.store.clone(), self.key.clone());
        multipart.sending = Some(tokio::spawn(async move {
            let sent = upload.send().await.map_err(|error| store.failed("write a part of", &key, &error))?;
            Ok(CompletedPart::builder().set_e_tag(sent.e_tag).part_number(number).build())
        }));
        Ok(())
    }
}

/// Of an object that is not completed, the parts are removed. Where that fails too, the bucket's rule removes them after days.
impl Drop for Upload {
    fn drop(&mut self) {
        if let (Some(multipart), Ok(runtime)) = (self.multipart.take(), tokio::runtime::Handle::try_current()) {
            let Store { client, bucket, .. } = &self.store;
            let abort = client.abort_multipart_upload().bucket(bucket).key(&self.key).upload_id(multipart.id);
            runtime.spawn(async move {
                // A part that comes after its upload was aborted would stay.
                if let Some(sending) = multipart.sending {
                    sending.abort();
                    let _ = sending.await;
                }
                let _ = abort.send().await;
            });
        }
    }
}

/// Bytes in hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The SHA-256 of bytes, in hexadecimal.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}
