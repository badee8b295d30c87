//! A gate between two buckets: what it does with events, and what it says of an upload.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use blackwater_base::deadline::Deadline;
use blackwater_base::secrets::Secrets;
use blackwater_base::store::Store;
use blackwater_http::Http;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::io::SyncIoBridge;
use uuid::Uuid;

use crate::check::{check, check_set, refused_size};
use crate::error::Error;
use crate::issue::Issue;
use crate::layout::Place;
use crate::mail::{Mail, Ses};
use crate::report::{File, Report};
use crate::rules::Rules;
use crate::set::Set;
use crate::state::{Kept, Taken};
use crate::upload::Upload;
use crate::{event, names, sentry};

/// How often an upload is begun anew whose files change meanwhile.
const ROUNDS: usize = 5;

/// A gate between two buckets.
#[derive(Debug)]
pub struct Gate {
    pub(crate) rules: Rules,
    pub(crate) drop: Store,
    pub(crate) last: Store,
    pub(crate) ses: Ses,
    pub(crate) http: Http,
    pub(crate) secrets: Secrets,
}

/// What became of an upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Its folder; the key of an object that is no upload.
    pub prefix: String,
    /// What became of it.
    pub status: Status,
    /// What is said of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<Report>,
}

/// What became of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Its files are let in.
    LetIn,
    /// Its files are not let in.
    TurnedAway,
    /// Its files are not let in, and the mail about it waits for more files.
    Waiting,
    /// The webhook has not taken its report.
    Untold,
    /// Another run works on it.
    Busy,
    /// It has no files any more.
    Gone,
    /// Its key has another layout, or is of another bucket.
    Ignored,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// S3, of an upload.
    ByEvent,
    /// The schedule, of all.
    BySweep,
}

/// What would be done about an upload.
#[derive(Clone, Debug, Serialize)]
pub struct Preview {
    /// Its folder.
    pub prefix: String,
    /// What would be said of it; the issue has no address yet.
    pub report: Report,
    /// The keys that would be copied.
    pub copies: Vec<String>,
    /// The issue that would be raised.
    pub issue: Option<Issue>,
    /// The mail that would be sent.
    pub mail: Option<Mail>,
}

impl Gate {
    /// A gate by these rules, between these buckets.
    #[must_use]
    pub fn new(rules: Rules, drop: Store, last: Store, ses: Ses, http: Http) -> Self {
        Self { rules, drop, last, ses, http, secrets: Secrets::default() }
    }

    /// The bucket that files are uploaded to.
    #[must_use]
    pub fn bucket(&self) -> &str {
        self.drop.bucket()
    }

    /// Deals with the uploads that an event of S3 is about.
    ///
    /// # Errors
    /// The first, after all uploads were dealt with as far as can be.
    pub async fn receive(&self, event: &Value, deadline: Deadline) -> Result<Vec<Outcome>, Error> {
        let (places, outcomes) = self.places(event);
        self.deal_with_all(places.into_iter().collect(), outcomes, Asked::ByEvent, deadline).await
    }

    /// Deals with the uploads with which something is left to do, of which a file was written so lately.
    ///
    /// # Errors
    /// The first, after all uploads were dealt with as far as can be.
    pub async fn sweep(&self, lately: Duration, deadline: Deadline) -> Result<Vec<Outcome>, Error> {
        let since = SystemTime::now() - lately;
        let listed = self.drop.listed("", "", usize::MAX).await?;
        let recent = listed.iter().filter(|object| object.written >= since);
        let places: BTreeSet<_> = recent.filter_map(|object| self.rules.drop.layout.place(&object.key)).collect();
        let mut places: Vec<_> = places.into_iter().collect();
        // Each time from another on, so that none keeps those after it waiting for ever.
        let first = Uuid::new_v4().as_u128() % (places.len() as u128).max(1);
        places.rotate_left(first as usize);
        self.deal_with_all(places, Vec::new(), Asked::BySweep, deadline).await
    }

    /// What would be done about the uploads of an event. Nothing is.
    ///
    /// # Errors
    /// If a file cannot be read, or a name cannot be looked up.
    pub async fn preview(&self, event: &Value, deadline: Deadline) -> Result<Vec<Preview>, Error> {
        let mut previews = Vec::new();
        for place in self.places(event).0 {
            let set = Set::of(&self.drop, &place).await?;
            let Some(files) = self.check(&place, &set).await?.filter(|files| !files.is_empty()) else { continue };
            let name = self.name(&place, &set, deadline).await?;
            let is_valid = files.iter().all(|file| file.csv_valid);
            previews.push(Preview {
                copies: if is_valid { files.iter().map(|file| file.key.clone()).collect() } else { Vec::new() },
                issue: is_valid.then(|| Issue::of(&self.rules.issue, &place, &name, &files)),
                mail: (!is_valid).then(|| Mail::of(&self.rules.mail, &place, &name, &files)),
                report: self.report(&place, &name, files, String::new()),
                prefix: place.prefix,
            });
        }
        Ok(previews)
    }

    /// The uploads of an event, and what is none.
    fn places(&self, event: &Value) -> (BTreeSet<Place>, Vec<Outcome>) {
        let (mut places, mut ignored) = (BTreeSet::new(), Vec::new());
        for (bucket, key) in event::objects(event) {
            match self.rules.drop.layout.place(&key).filter(|_| bucket == self.drop.bucket()) {
                Some(place) => {
                    places.insert(place);
                }
                None => {
                    tracing::warn!(bucket, key, "no upload: drop.bucket or drop.layout is another");
                    ignored.push(Outcome { prefix: key, status: Status::Ignored, report: None });
                }
            }
        }
        (places, ignored)
    }

    async fn deal_with_all(
        &self,
        places: Vec<Place>,
        mut outcomes: Vec<Outcome>,
        asked: Asked,
        deadline: Deadline,
    ) -> Result<Vec<Outcome>, Error> {
        let mut failed = None;
        for place in places {
            // Of a sweep none takes all the time that others need too.
            let share = if asked == Asked::BySweep { deadline.halfway() } else { deadline };
            if deadline.left().is_some_and(|left| left.is_zero()) {
                failed.get_or_insert(Error::Late { prefix: place.prefix });
                break;
            }
            match self.deal_with(&place, asked, share).await {
                Ok(outcome) => outcomes.push(outcome),
                Err(error) if failed.is_none() => failed = Some(error),
                Err(error) => tracing::error!(prefix = place.prefix, "{error}"),
            }
        }
        let Some(error) = failed else { return Ok(outcomes) };
        for Outcome { prefix, status, .. } in outcomes {
            tracing::info!(prefix, ?status, "dealt with");
        }
        Err(error)
    }

    async fn deal_with(&self, place: &Place, asked: Asked, deadline: Deadline) -> Result<Outcome, Error> {
        let outcome = |status, report| Outcome { prefix: place.prefix.clone(), status, report };
        for _ in 0..ROUNDS {
            let kept = match Kept::take(&self.last, &self.drop, place, deadline).await? {
                Taken::Mine(kept) => *kept,
                Taken::Busy => return Ok(outcome(Status::Busy, None)),
                Taken::Gone => return Ok(outcome(Status::Gone, None)),
                Taken::Finished(state) => {
                    let (status, report) = state.said(self, place);
                    return Ok(outcome(status, Some(report)));
                }
            };
            let mut upload = Upload { gate: self, place, kept, asked, deadline };
            let worked = match deadline.left() {
                None => upload.work().await,
                Some(left) => {
                    let late = |_| Err(Error::Late { prefix: place.prefix.clone() });
                    tokio::time::timeout(left, upload.work()).await.unwrap_or_else(late)
                }
            };
            let has_changed = upload.kept.release().await;
            if let Some((status, report)) = worked?
                && !has_changed?
            {
                return Ok(outcome(status, Some(report)));
            }
            // There are other files by now.
        }
        Err(Error::Changing { prefix: place.prefix.clone() })
    }

    /// What the check says of the files; `None` if one has changed meanwhile.
    pub(crate) async fn check(&self, place: &Place, set: &Set) -> Result<Option<Vec<File>>, Error> {
        let rules = self.rules.with(&place.names);
        let mut files = Vec::new();
        for (key, head) in &set.files {
            if let Some(why) = refused_size(&rules, head.bytes) {
                files.push(File::refused(key, &why));
                continue;
            }
            let Some(body) = self.drop.read(key, &head.etag).await? else { return Ok(None) };
            let (rules, name, bytes) = (rules.clone(), key.clone(), head.bytes);
            let body = SyncIoBridge::new(body);
            let checking = tokio::task::spawn_blocking(move || check(&rules, &name, Some(bytes), body));
            let read = |why| Error::Read { key: key.clone(), why };
            files.push(checking.await.map_err(|error| read(error.into()))?.map_err(read)?);
        }
        check_set(&rules, &mut files);
        Ok(Some(files))
    }

    /// The name of an upload.
    pub(crate) async fn name(&self, place: &Place, set: &Set, deadline: Deadline) -> Result<String, Error> {
        let rules = &self.rules.names;
        let token = self.token(rules.token.as_ref(), rules.secret.as_deref()).await?;
        let found = names::look_up(rules, &self.http, token.as_ref(), place, set.newest, deadline).await;
        if let Err(Error::Names { why, .. }) = &found
            && why.is_refused()
        {
            self.secrets.forget().await;
        }
        found
    }

    /// What is said of an upload.
    pub(crate) fn report(&self, place: &Place, name: &str, files: Vec<File>, github_issue: String) -> Report {
        let members = self.rules.report.of(place, name, self.rules.names.url.is_some());
        Report { members, github_issue, file_set: files }
    }

    /// Tells Sentry of an error, if it is to know.
    pub(crate) async fn tell_sentry(&self, error: &Error, deadline: Deadline) {
        if let Some(dsn) = &self.rules.sentry.dsn
            && let Err(why) = sentry::tell(dsn, &self.http, error, deadline).await
        {
            tracing::warn!("Sentry is not told: {why}");
        }
    }

    /// A token that is in the settings, or in a secret.
    pub(crate) async fn token(
        &self,
        value: Option<&SecretString>,
        secret: Option<&str>,
    ) -> Result<Option<SecretString>, Error> {
        #[derive(Deserialize)]
        struct Token {
            token: SecretString,
        }
        match (value, secret) {
            (Some(value), _) => Ok(Some(value.clone())),
            (None, Some(secret)) => Ok(Some(self.secrets.json::<Token>(secret, "{\"token\": \"…\"}").await?.token)),
            (None, None) => Ok(None),
        }
    }
}
