//! What is known of an upload: which of its files were checked, and what was done about it. It is an object beside the files that
//! are let in, so that whatever happens twice finds what the first has done, and of several runs at once one works.

use std::time::Duration;

use blackwater_base::deadline::Deadline;
use blackwater_base::store::{If, JSON, Store};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::Error;
use crate::gate::{Gate, Status};
use crate::layout::Place;
use crate::report::{File, Report};
use crate::set::Set;

/// How long a run may work that has no deadline.
const LONGEST: Duration = Duration::from_secs(900);

/// What is known of an upload.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct State {
    /// The run that works on it.
    run: Option<Run>,
    /// Whether somebody has seen other files than those of `set` since then.
    again: bool,
    /// The fingerprint of its files.
    set: String,
    /// The name that was looked up.
    pub(crate) name: Option<String>,
    /// What the check says of the files.
    pub(crate) files: Option<Vec<File>>,
    /// Its issue, also that of an earlier set.
    pub(crate) issue: Option<Issued>,
    /// Whether the issue is of these files.
    pub(crate) is_issued: bool,
    /// Whether the files and their report are let in, or the mail about them is sent or not wanted.
    pub(crate) is_decided: bool,
    /// The text of the last mail, also of an earlier set, unless the files were let in since.
    pub(crate) mail: Option<String>,
    /// What the webhook was told.
    pub(crate) webhook: Told,
}

/// A run, and the time when another may take over.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Run {
    id: Uuid,
    until: DateTime<Utc>,
}

/// An issue, or a comment to one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Issued {
    /// The issue's number; 0 if it was only logged.
    pub(crate) number: u64,
    /// The comment's number, if it is one.
    pub(crate) comment: Option<u64>,
    /// The address of the issue.
    pub(crate) url: String,
}

/// What the webhook was told.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Told {
    /// Whether it has taken the report, or there is none to tell.
    pub(crate) is_done: bool,
    /// Whether it has not taken it for a day, and is not told any more.
    pub(crate) is_given_up: bool,
    /// How often it was told when that was due.
    pub(crate) tries: u32,
    /// When it is told again.
    pub(crate) next: Option<DateTime<Utc>>,
}

impl State {
    /// Whether nothing is left to do about its files.
    fn is_finished(&self) -> bool {
        self.is_decided && (self.webhook.is_done || self.webhook.is_given_up)
    }

    /// What became of the upload so far, and what is said of it.
    pub(crate) fn said(&self, gate: &Gate, place: &Place) -> (Status, Report) {
        let files = self.files.clone().unwrap_or_default();
        let is_valid = files.iter().all(|file| file.csv_valid);
        let url = self.issue.as_ref().filter(|_| is_valid).map(|issue| issue.url.clone()).unwrap_or_default();
        let report = gate.report(place, self.name.as_deref().unwrap_or_default(), files, url);
        let status = match (self.webhook.is_done, self.is_decided, is_valid) {
            (false, ..) => Status::Untold,
            (true, false, _) => Status::Waiting,
            (true, true, true) => Status::LetIn,
            (true, true, false) => Status::TurnedAway,
        };
        (status, report)
    }

    /// Begins with other files. What others know of the upload stays.
    fn begin(&mut self, set: &Set) {
        let (issue, mail) = (self.issue.take(), self.mail.take());
        *self = Self { set: set.fingerprint.clone(), issue, mail, ..Self::default() };
    }
}

/// What came of asking for an upload.
pub(crate) enum Taken<'s> {
    /// It is this run's to work on.
    Mine(Box<Kept<'s>>),
    /// All is done.
    Finished(Box<State>),
    /// It has no files any more.
    Gone,
    /// Another run works on it, and knows of these files.
    Busy,
}

/// The state of an upload that this run works on.
pub(crate) struct Kept<'s> {
    store: &'s Store,
    key: String,
    etag: String,
    run: Uuid,
    /// Its files.
    pub(crate) set: Set,
    /// What is known.
    pub(crate) state: State,
}

/// The name of the state, in the folder of an upload.
pub(crate) const NAME: &str = ".gate.json";

/// The state of the upload in a folder, and its ETag.
async fn read(store: &Store, key: &str) -> Result<Option<(State, String)>, Error> {
    let Some((body, etag)) = store.get_tagged(key).await? else { return Ok(None) };
    let state = serde_json::from_slice(&body)
        .map_err(|error| Error::State { place: format!("{}/{key}", store.bucket()), why: error.to_string() })?;
    Ok(Some((state, etag)))
}

impl<'s> Kept<'s> {
    /// Takes an upload to work on the files that `drop` has of it.
    pub(crate) async fn take(
        store: &'s Store,
        drop: &Store,
        place: &Place,
        deadline: Deadline,
    ) -> Result<Taken<'s>, Error> {
        let (key, run) = (format!("{}/{NAME}", place.prefix), Uuid::new_v4());
        loop {
            // In this order: the files are then no older than what is known of them.
            let known = read(store, &key).await?;
            let set = Set::of(drop, place).await?;
            if set.files.is_empty() {
                return Ok(Taken::Gone);
            }
            let condition = known.as_ref().map(|(_, etag)| etag.clone());
            let mut state = known.map(|(state, _)| state).unwrap_or_default();
            let is_same = state.set == set.fingerprint;
            if let (Some(known), Some(etag)) = (&state.run, &condition)
                && known.id == run
            {
                // It was written, and S3's answer was lost.
                let kept = Self { store, key, etag: etag.clone(), run, set, state };
                return Ok(Taken::Mine(Box::new(kept)));
            }
            let is_busy = state.run.as_ref().is_some_and(|run| run.until > Utc::now());
            if is_busy && (is_same || state.again) {
                return Ok(Taken::Busy);
            }
            if is_same && state.is_finished() && !is_busy {
                return Ok(Taken::Finished(Box::new(state)));
            }
            if is_busy {
                state.again = true;
            } else {
                if !is_same {
                    state.begin(&set);
                }
                state.again = false;
                state.run = Some(Run { id: run, until: Utc::now() + deadline.left().unwrap_or(LONGEST) });
            }
            let written = write(store, &key, condition.as_deref(), &state).await?;
            match written {
                // Somebody else was quicker.
                None => {}
                Some(_) if is_busy => return Ok(Taken::Busy),
                Some(etag) => return Ok(Taken::Mine(Box::new(Self { store, key, etag, run, set, state }))),
            }
        }
    }

    /// Writes what is known now.
    pub(crate) async fn save(&mut self) -> Result<(), Error> {
        loop {
            if let Some(etag) = write(self.store, &self.key, Some(&self.etag), &self.state).await? {
                self.etag = etag;
                return Ok(());
            }
            // Another run may say that there are other files; or it has taken over, since this one took too long.
            let (known, etag) = read(self.store, &self.key).await?.ok_or_else(|| self.lost())?;
            if known.run.is_none() && self.state.run.is_none() {
                // It is released, and S3's answer was lost.
                return Ok(());
            }
            if known.run.as_ref().is_none_or(|run| run.id != self.run) {
                return Err(self.lost());
            }
            self.state.again |= known.again;
            self.etag = etag;
        }
    }

    /// Lets others work on it: whether somebody has seen other files meanwhile.
    pub(crate) async fn release(mut self) -> Result<bool, Error> {
        self.state.run = None;
        self.save().await?;
        Ok(self.state.again)
    }

    fn lost(&self) -> Error {
        Error::Lost { place: format!("{}/{}", self.store.bucket(), self.key) }
    }
}

/// Writes a state where the one with this ETag was, or none: its ETag; `None` if another is there.
async fn write(store: &Store, key: &str, etag: Option<&str>, state: &State) -> Result<Option<String>, Error> {
    let unwritable = |error: serde_json::Error| Error::State { place: key.into(), why: error.to_string() };
    let body = serde_json::to_vec(state).map_err(unwritable)?;
    let condition = etag.map_or(If::Free, If::Is);
    Ok(store.put_if(condition, key, Some(JSON), body.into()).await?)
}
