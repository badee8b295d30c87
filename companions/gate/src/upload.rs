//! The way of an upload: its files are checked; all are let in, or none; who is to know is told. What is done is noted after each
//! step, so that whoever goes on does not do it again.

use blackwater_base::deadline::Deadline;
use blackwater_base::store::{If, JSON};
use blackwater_github::GitHub;
use chrono::Utc;
use serde::Deserialize;
use serde_json::Value;

use crate::check::lacks_others;
use crate::error::Error;
use crate::gate::{Asked, Gate, Status};
use crate::issue::{self, Issue, Repository};
use crate::layout::Place;
use crate::mail::{self, Mail};
use crate::report::{File, Report};
use crate::set::REPORT;
use crate::state::{Issued, Kept};
use crate::webhook;

/// An upload that this run works on.
pub(crate) struct Upload<'g> {
    pub(crate) gate: &'g Gate,
    pub(crate) place: &'g Place,
    pub(crate) kept: Kept<'g>,
    pub(crate) asked: Asked,
    pub(crate) deadline: Deadline,
}

impl Upload<'_> {
    /// Does what is left to do; `None` if its files have changed meanwhile.
    pub(crate) async fn work(&mut self) -> Result<Option<(Status, Report)>, Error> {
        let (gate, place) = (self.gate, self.place);
        if self.kept.state.files.is_none() {
            let Some(files) = gate.check(place, &self.kept.set).await? else { return Ok(None) };
            self.kept.state.files = Some(files);
            self.kept.save().await?;
        }
        if self.kept.state.name.is_none() {
            self.kept.state.name = Some(gate.name(place, &self.kept.set, self.deadline).await?);
        }
        let files = self.kept.state.files.clone().unwrap_or_default();
        let name = self.kept.state.name.clone().unwrap_or_default();
        let decided = if files.iter().all(|file| file.csv_valid) {
            let issue = Issue::of(&gate.rules.issue, place, &name, &files);
            if !self.let_in(&issue, &name, &files).await? {
                return Ok(None);
            }
            Ok(())
        } else {
            self.turn_away(Mail::of(&gate.rules.mail, place, &name, &files), &files).await
        };
        let (_, report) = self.kept.state.said(gate, place);
        self.tell(&report).await?;
        decided?;
        Ok(Some(self.kept.state.said(gate, place)))
    }

    /// Copies the files, raises the issue, and writes the report, which says that all of them are in; `false` if one has changed meanwhile.
    async fn let_in(&mut self, issue: &Issue, name: &str, files: &[File]) -> Result<bool, Error> {
        if self.kept.state.is_decided {
            return Ok(true);
        }
        for (key, head) in &self.kept.set.files {
            if !self.gate.drop.copy(key, &head.etag, &self.gate.last).await? {
                return Ok(false);
            }
        }
        if !self.kept.state.is_issued {
            self.kept.state.issue = Some(self.raise(issue).await?);
            self.kept.state.is_issued = true;
            self.kept.save().await?;
        }
        let url = self.kept.state.issue.as_ref().map(|issue| issue.url.clone()).unwrap_or_default();
        self.put(&self.gate.report(self.place, name, files.to_vec(), url)).await?;
        self.kept.state.mail = None;
        self.kept.state.is_decided = true;
        Ok(true)
    }

    async fn raise(&self, issue: &Issue) -> Result<Issued, Error> {
        let rules = &self.gate.rules.issue;
        let token = self.gate.token(rules.token.as_ref(), rules.secret.as_deref()).await?;
        let (Some(name), Some(token)) = (&rules.repository, &token) else {
            tracing::info!(
                repository = rules.repository,
                title = issue.title,
                body = issue.body,
                "no issue is raised: issue.repository and a token for it are not set"
            );
            return Ok(Issued::default());
        };
        let refused = |why| issue::refused(&self.place.prefix, name, why);
        let github = GitHub::new(&self.gate.http, &rules.api, token).map_err(refused)?;
        let repository = Repository { github, name, deadline: self.deadline };
        repository.raise(issue, self.kept.state.issue.as_ref()).await.map_err(refused)
    }

    /// Writes the report beside the files, unless there is one of more files.
    async fn put(&self, report: &Report) -> Result<(), Error> {
        #[derive(Deserialize)]
        struct Known {
            file_set: Vec<Value>,
        }
        let key = format!("{}/{REPORT}", self.place.prefix);
        let known = self.gate.last.get(&key).await?.and_then(|body| serde_json::from_slice::<Known>(&body).ok());
        if known.is_none_or(|known| known.file_set.len() <= report.file_set.len()) {
            let body = serde_json::to_string_pretty(report).map_err(|error| unwritable(&key, &error))?;
            self.gate.last.put_if(If::Any, &key, Some(JSON), body.into()).await?;
        }
        Ok(())
    }

    /// Sends the mail, if it is due.
    async fn turn_away(&mut self, mail: Mail, files: &[File]) -> Result<(), Error> {
        let (gate, set) = (self.gate, &self.kept.set);
        // Others may come yet.
        let age = set.newest.elapsed().unwrap_or_default();
        let waits = |file: &File| lacks_others(&gate.rules, file, set.files.len()).is_some_and(|kind| age < kind.wait);
        if self.kept.state.is_decided || files.iter().filter(|file| !file.csv_valid).all(waits) {
            return Ok(());
        }
        let rules = &gate.rules.mail;
        match &rules.from {
            _ if self.kept.state.mail.as_ref() == Some(&mail.text) => {}
            Some(from) => {
                let sent = mail::send(&gate.ses, &mail, from, &rules.to, &gate.http, self.deadline).await;
                sent.map_err(|why| {
                    let (why, remedy) = mail::remedy(&why);
                    Error::Mail { prefix: self.place.prefix.clone(), why, remedy }
                })?;
            }
            None => tracing::info!(
                subject = mail.subject,
                text = mail.text,
                "no mail is sent: mail.from and mail.to are not set"
            ),
        }
        self.kept.state.mail = Some(mail.text);
        self.kept.state.is_decided = true;
        self.kept.save().await
    }

    /// Tells the webhook, if it is due. One that does not take the report fails nothing: it is told again.
    async fn tell(&mut self, report: &Report) -> Result<(), Error> {
        let (gate, rules, now) = (self.gate, &self.gate.rules.webhook, Utc::now());
        let known = &mut self.kept.state.webhook;
        if known.is_done || self.asked == Asked::BySweep && !known.is_due(now) {
            return Ok(());
        }
        let body = serde_json::to_string(report).map_err(|error| unwritable("the report", &error))?;
        let token = gate.token(rules.token.as_ref(), rules.secret.as_deref()).await?;
        let told = match (&rules.url, &token) {
            (Some(url), Some(token)) => webhook::tell(rules, url, &gate.http, token, body, self.deadline).await,
            _ => {
                tracing::info!(report = body, "the webhook is not told: webhook.url and a token for it are not set");
                Ok(())
            }
        };
        let Err(error) = told else {
            known.is_done = true;
            return Ok(());
        };
        if error.is_refused() {
            gate.secrets.forget().await;
        }
        known.failed(now);
        let prefix = &self.place.prefix;
        match known.is_given_up {
            false => tracing::warn!(prefix, "the webhook has not taken the report; it will be told again: {error}"),
            true => tracing::error!(prefix, "the webhook has not taken the report for a day; give it up: {error}"),
        }
        Ok(())
    }
}

fn unwritable(what: &str, error: &serde_json::Error) -> Error {
    Error::State { place: what.into(), why: error.to_string() }
}
