//! The way of an upload: its files are checked; all are let in, or none; who is to know is told.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use blackwater_base::deadline::Deadline;
use blackwater_base::secrets::Secrets;
use blackwater_base::store::{If, JSON, Store};
use blackwater_http::Http;
use chrono::Utc;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::io::SyncIoBridge;

use crate::check::{check, check_set, lacks_others, refused_size};
use crate::error::Error;
use crate::issue::{self, Issue, Repository};
use crate::layout::Place;
use crate::mail::{self, Mail, Ses};
use crate::report::{File, Report};
use crate::rules::Rules;
use crate::set::{self, Set};
use crate::state::{Issued, Kept, Taken};
use crate::{event, names, sentry, webhook};

/// How far back the sweep looks.
const SWEPT: Duration = Duration::from_secs(24 * 3600);
/// How often an upload is begun anew whose files change meanwhile.
const ROUNDS: usize = 5;

/// A gate between two buckets.
#[derive(Debug)]
pub struct Gate {
    rules: Rules,
    drop: Store,
    last: Store,
    ses: Ses,
    http: Http,
    secrets: Secrets,
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
    /// The webhook has not taken its report yet.
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
enum Asked {
    ByEvent,
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
        let (places, mut outcomes) = self.places(event);
        let dealt = self.deal_with_all(places, Asked::ByEvent, deadline).await?;
        outcomes.extend(dealt);
        Ok(outcomes)
    }

    /// Deals with the uploads of the last day with which something is left to do.
    ///
    /// # Errors
    /// The first, after all uploads were dealt with as far as can be.
    pub async fn sweep(&self, deadline: Deadline) -> Result<Vec<Outcome>, Error> {
        let since = SystemTime::now() - SWEPT;
        let listed = self.drop.listed("", "", usize::MAX).await?;
        let recent = listed.iter().filter(|object| object.written >= since);
        let places: BTreeSet<_> = recent.filter_map(|object| self.rules.drop.layout.place(&object.key)).collect();
        self.deal_with_all(places, Asked::BySweep, deadline).await
    }

    /// What would be done about the uploads of an event. Nothing is.
    ///
    /// # Errors
    /// If a file cannot be read, or a name cannot be looked up.
    pub async fn preview(&self, event: &Value, deadline: Deadline) -> Result<Vec<Preview>, Error> {
        let mut previews = Vec::new();
        for place in self.places(event).0 {
            let set = set::of(&self.drop, &place).await?;
            let Some(files) = self.check(&place, &set).await? else { continue };
            let name = self.name(&place, &set, deadline).await?;
            let is_valid = files.iter().all(|file| file.csv_valid);
            let known = place.known(&name);
            previews.push(Preview {
                copies: if is_valid { files.iter().map(|file| file.key.clone()).collect() } else { Vec::new() },
                issue: is_valid.then(|| Issue::of(&self.rules.issue, &known, &files)),
                mail: (!is_valid).then(|| Mail::of(&self.rules.mail, &known, &files)),
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
                    tracing::warn!(
                        bucket,
                        key,
                        "no upload: the bucket or the layout of the key is another than that of [drop]"
                    );
                    ignored.push(Outcome { prefix: key, status: Status::Ignored, report: None });
                }
            }
        }
        (places, ignored)
    }

    async fn deal_with_all(
        &self,
        places: BTreeSet<Place>,
        asked: Asked,
        deadline: Deadline,
    ) -> Result<Vec<Outcome>, Error> {
        let (mut outcomes, mut failed) = (Vec::new(), None);
        for place in places {
            match self.deal_with(&place, asked, deadline).await {
                Ok(outcome) => outcomes.push(outcome),
                Err(error) if failed.is_none() => failed = Some(error),
                Err(error) => tracing::error!(prefix = place.prefix, "{error}"),
            }
        }
        failed.map_or(Ok(outcomes), Err)
    }

    async fn deal_with(&self, place: &Place, asked: Asked, deadline: Deadline) -> Result<Outcome, Error> {
        let outcome = |status, report| Outcome { prefix: place.prefix.clone(), status, report };
        for _ in 0..ROUNDS {
            let set = set::of(&self.drop, place).await?;
            if set.files.is_empty() {
                return Ok(outcome(Status::Gone, None));
            }
            let mut kept = match Kept::take(&self.last, &place.prefix, &set, deadline).await? {
                Taken::Mine(kept) => kept,
                Taken::Busy => return Ok(outcome(Status::Busy, None)),
                Taken::Finished(state) => {
                    let files = state.files.unwrap_or_default();
                    let status =
                        if files.iter().all(|file| file.csv_valid) { Status::LetIn } else { Status::TurnedAway };
                    let url = state.issue.map(|issue| issue.url).unwrap_or_default();
                    let report = self.report(place, &state.name.unwrap_or_default(), files, url);
                    return Ok(outcome(status, Some(report)));
                }
            };
            let worked = match deadline.left() {
                None => self.work(place, &set, &mut kept, asked, deadline).await,
                Some(left) => tokio::time::timeout(left, self.work(place, &set, &mut kept, asked, deadline))
                    .await
                    .unwrap_or_else(|_| Err(Error::Late { prefix: place.prefix.clone() })),
            };
            let has_changed = kept.release().await;
            match worked? {
                Some((status, report)) if !has_changed? => return Ok(outcome(status, Some(report))),
                // There are other files by now.
                _ => {}
            }
        }
        Err(Error::Changing { prefix: place.prefix.clone() })
    }

    /// Does what is left to do about an upload; `None` if its files have changed meanwhile.
    async fn work(
        &self,
        place: &Place,
        set: &Set,
        kept: &mut Kept<'_>,
        asked: Asked,
        deadline: Deadline,
    ) -> Result<Option<(Status, Report)>, Error> {
        if kept.state.files.is_none() {
            let Some(files) = self.check(place, set).await? else { return Ok(None) };
            kept.state.files = Some(files);
            kept.save().await?;
        }
        let files = kept.state.files.clone().unwrap_or_default();
        let name = match kept.state.name.clone() {
            Some(name) => name,
            None => self.name(place, set, deadline).await?,
        };
        kept.state.name = Some(name.clone());
        let known = place.known(&name);
        let is_valid = files.iter().all(|file| file.csv_valid);
        let report = |url: &str| self.report(place, &name, files.clone(), url.to_owned());

        let (status, report) = if is_valid {
            if !kept.state.is_decided && !self.copy(set).await? {
                return Ok(None);
            }
            let url = self.raise(place, &Issue::of(&self.rules.issue, &known, &files), kept, deadline).await?;
            let report = report(&url);
            if !kept.state.is_decided {
                self.put(place, &report).await?;
                kept.state.is_decided = true;
            }
            (Status::LetIn, report)
        } else {
            let is_sent = self.send(place, set, Mail::of(&self.rules.mail, &known, &files), kept, deadline).await?;
            (if is_sent { Status::TurnedAway } else { Status::Waiting }, report(""))
        };
        let is_told = self.tell(place, &report, kept, asked, deadline).await?;
        Ok(Some((if is_told { status } else { Status::Untold }, report)))
    }

    /// What the check says of the files; `None` if one has changed meanwhile.
    async fn check(&self, place: &Place, set: &Set) -> Result<Option<Vec<File>>, Error> {
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

    async fn name(&self, place: &Place, set: &Set, deadline: Deadline) -> Result<String, Error> {
        let rules = &self.rules.names;
        let token = self.token(rules.token.as_ref(), rules.secret.as_deref()).await?;
        names::look_up(rules, &self.http, token.as_ref(), place, set.newest, deadline).await
    }

    fn report(&self, place: &Place, name: &str, files: Vec<File>, github_issue: String) -> Report {
        Report {
            members: self.rules.report.of(place, name, self.rules.names.url.is_some()),
            github_issue,
            file_set: files,
        }
    }

    /// Copies the files; `false` if one has changed meanwhile.
    async fn copy(&self, set: &Set) -> Result<bool, Error> {
        for (key, head) in &set.files {
            if !self.drop.copy(key, &head.etag, &self.last).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Raises the issue, if that was not done for these files: its address.
    async fn raise(
        &self,
        place: &Place,
        issue: &Issue,
        kept: &mut Kept<'_>,
        deadline: Deadline,
    ) -> Result<String, Error> {
        let rules = &self.rules.issue;
        if !kept.state.is_issued {
            let token = self.token(rules.token.as_ref(), rules.secret.as_deref()).await?;
            let issued = match (&rules.repository, &token) {
                (Some(name), Some(token)) => {
                    let repository = Repository { http: &self.http, api: &rules.api, name, token, deadline };
                    let raised = repository.raise(issue, kept.state.issue.as_ref()).await;
                    raised.map_err(|why| issue::refused(&place.prefix, name, why))?
                }
                _ => {
                    tracing::info!(
                        repository = rules.repository,
                        title = issue.title,
                        body = issue.body,
                        "no issue is raised: issue.repository and a token for it are not set"
                    );
                    Issued { number: 0, comment: None, url: String::new() }
                }
            };
            kept.state.issue = Some(issued);
            kept.state.is_issued = true;
            kept.save().await?;
        }
        Ok(kept.state.issue.as_ref().map(|issue| issue.url.clone()).unwrap_or_default())
    }

    /// Writes the report beside the files, unless there is one of more files.
    async fn put(&self, place: &Place, report: &Report) -> Result<(), Error> {
        #[derive(Deserialize)]
        struct Known {
            file_set: Vec<Value>,
        }
        let key = format!("{}/report.json", place.prefix);
        let known = self.last.get(&key).await?.and_then(|body| serde_json::from_slice::<Known>(&body).ok());
        if known.is_none_or(|known| known.file_set.len() <= report.file_set.len()) {
            let body = text(&key, serde_json::to_string_pretty(report))?;
            self.last.put_if(If::Any, &key, Some(JSON), body.into()).await?;
        }
        Ok(())
    }

    /// Sends the mail, if it is due: whether it is sent, or not wanted.
    async fn send(
        &self,
        place: &Place,
        set: &Set,
        mail: Mail,
        kept: &mut Kept<'_>,
        deadline: Deadline,
    ) -> Result<bool, Error> {
        if kept.state.is_decided {
            return Ok(true);
        }
        // Others may come yet.
        let age = set.newest.elapsed().unwrap_or_default();
        let waits = |file: &File| lacks_others(&self.rules, file, set.files.len()).is_some_and(|kind| age < kind.wait);
        if kept.state.files.iter().flatten().filter(|file| !file.csv_valid).all(waits) {
            return Ok(false);
        }
        let rules = &self.rules.mail;
        if kept.state.mail.as_ref() != Some(&mail.text) {
            match &rules.from {
                Some(from) => {
                    let sent = mail::send(&self.ses, &mail, from, &rules.to, &self.http, deadline).await;
                    sent.map_err(|why| {
                        let (why, remedy) = mail::remedy(&why);
                        Error::Mail { prefix: place.prefix.clone(), why, remedy }
                    })?;
                }
                None => tracing::info!(
                    subject = mail.subject,
                    text = mail.text,
                    "no mail is sent: mail.from and mail.to are not set"
                ),
            }
        }
        kept.state.mail = Some(mail.text);
        kept.state.is_decided = true;
        kept.save().await?;
        Ok(true)
    }

    /// Tells the webhook, if it is due: whether it knows, or is not to know.
    async fn tell(
        &self,
        place: &Place,
        report: &Report,
        kept: &mut Kept<'_>,
        asked: Asked,
        deadline: Deadline,
    ) -> Result<bool, Error> {
        let rules = &self.rules.webhook;
        let now = Utc::now();
        let is_due = kept.state.webhook.is_due(now) || asked == Asked::ByEvent && !kept.state.webhook.is_done;
        if is_due {
            let body = text("the report", serde_json::to_string(report))?;
            let token = self.token(rules.token.as_ref(), rules.secret.as_deref()).await?;
            let told = match (&rules.url, &token) {
                (Some(url), Some(token)) => webhook::tell(rules, url, &self.http, token, body, deadline).await,
                _ => {
                    tracing::info!(
                        url = rules.url,
                        report = body,
                        "the webhook is not told: webhook.url and a token for it are not set"
                    );
                    Ok(())
                }
            };
            match told {
                Ok(()) => kept.state.webhook.is_done = true,
                Err(error) if kept.state.webhook.failed(now) => {
                    tracing::warn!(
                        prefix = place.prefix,
                        "the webhook has not taken the report; it will be told again: {error}"
                    );
                    return Ok(false);
                }
                Err(error) => tracing::error!(
                    prefix = place.prefix,
                    "the webhook has not taken the report for a day; it will not be told again: {error}"
                ),
            }
        }
        Ok(kept.state.webhook.is_done)
    }

    /// Tells Sentry of an error, if it is to know.
    pub(crate) async fn tell_sentry(&self, error: &Error) {
        if let Some(dsn) = &self.rules.sentry.dsn
            && let Err(why) = sentry::tell(dsn, &self.http, error).await
        {
            tracing::warn!("Sentry is not told: {why}");
        }
    }

    /// A token that is in the settings, or in a secret.
    async fn token(&self, value: Option<&SecretString>, secret: Option<&str>) -> Result<Option<SecretString>, Error> {
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

fn text(what: &str, written: serde_json::Result<String>) -> Result<String, Error> {
    written.map_err(|error| Error::State { place: what.into(), why: error.to_string() })
}
