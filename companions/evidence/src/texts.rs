//! The evidence itself: for each person and repository a text of what was done, newest first, and for each person a zip of them. The
//! same history gives the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Cursor, Write};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::bitbucket::Commit;
use crate::error::Error;
use crate::history::Walk;
use crate::month::Month;
use crate::people::{Identity, People, Unknowns};

/// What each person did, by name, and those who are nobody's.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    pub(crate) people: BTreeMap<String, Work>,
    pub(crate) unknown: Unknowns,
}

/// What a person did.
#[derive(Debug, Default)]
pub(crate) struct Work {
    pub(crate) counts: Counts,
    /// The texts, by name.
    texts: BTreeMap<String, String>,
}

/// How much somebody did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Commits of the person's own.
    pub commits: u64,
    /// Pull requests that the person approved.
    pub approvals: u64,
}

/// Something that a person did: when, its hash or number, and its text.
type Entry = (DateTime<Utc>, String, String);

impl Evidence {
    /// The evidence of a month, from the histories of its repositories.
    pub(crate) fn of(month: Month, walks: &BTreeMap<String, Walk>, people: &People) -> Self {
        let mut evidence = Self::default();
        for (repository, walk) in walks {
            evidence.add(month, repository, walk, people);
        }
        evidence
    }

    fn add(&mut self, month: Month, repository: &str, walk: &Walk, people: &People) {
        let mut entries: BTreeMap<&str, Vec<Entry>> = BTreeMap::new();
        // Who approved which pull request. It counts once, and not for its author.
        let mut approved = BTreeSet::new();
        for commit in walk.commits.values() {
            let place = format!("{repository} {}", commit.hash);
            let author = people.find_or_note(&commit.author, &place, &mut self.unknown);
            if let Some(author) = author {
                self.people.entry(author.into()).or_default().counts.commits += 1;
                entries.entry(author).or_default().push((time(commit), commit.hash.clone(), text(commit)));
            }
        }
        for pull in walk.pulls.values() {
            let place = format!("{repository} pull request {}", pull.id);
            let merge = walk.merge_of(pull);
            let author = people.find(&pull.author);
            for (approver, date) in &pull.approvals {
                let found = match walk.has(date.to_utc()) {
                    true => people.find_or_note(approver, &place, &mut self.unknown),
                    false => people.find(approver),
                };
                let Some(person) = found else { continue };
                if Some(person) == author || !approved.insert((person, pull.id)) || !walk.has(date.to_utc()) {
                    continue;
                }
                let about = match merge {
                    Some(commit) => text(commit),
                    None => format!("author: {}\n\n{}\n", pull.author.raw, pull.title),
                };
                let head = format!(
                    "approved pull request #{} on {}\n",
                    pull.id,
                    date.to_rfc3339_opts(SecondsFormat::Secs, false)
                );
                self.people.entry(person.into()).or_default().counts.approvals += 1;
                entries.entry(person).or_default().push((date.to_utc(), format!("#{}", pull.id), head + &about));
            }
        }
        // Where Bitbucket's merge commits name approvers by address.
        for commit in walk.commits.values() {
            let Some(number) = pull_request(&commit.message) else { continue };
            let author = people.find(&commit.author);
            let requester = walk.pulls.get(&number).and_then(|pull| people.find(&pull.author));
            for approver in approvers(&commit.message) {
                let place = format!("{repository} {}", commit.hash);
                let Some(person) = people.find_or_note(&approver, &place, &mut self.unknown) else { continue };
                if Some(person) == author || Some(person) == requester || !approved.insert((person, number)) {
                    continue;
                }
                let head = format!("approved pull request #{number}\n");
                self.people.entry(person.into()).or_default().counts.approvals += 1;
                entries.entry(person).or_default().push((time(commit), commit.hash.clone(), head + &text(commit)));
            }
        }
        for (person, mut entries) in entries {
            entries.sort_by(|one, other| other.0.cmp(&one.0).then_with(|| one.1.cmp(&other.1)));
            // A workspace has no dot in its name.
            let name = format!("{}_{}-{person}.txt", month.label(), repository.replace('/', "."));
            let text = entries.into_iter().map(|(_, _, text)| text).collect::<Vec<_>>().join("\n");
            self.people.entry(person.into()).or_default().texts.insert(name, text);
        }
    }
}

fn time(commit: &Commit) -> DateTime<Utc> {
    commit.date.map_or(DateTime::UNIX_EPOCH, |date| date.to_utc())
}

/// A commit as `git log` shows it.
fn text(commit: &Commit) -> String {
    let date = commit.date.map(|date| date.to_rfc3339_opts(SecondsFormat::Secs, false)).unwrap_or_default();
    let message = commit.message.trim_end_matches(['\n', '\r']);
    format!("commit {}\nauthor: {}\ndate: {date}\n\n{message}\n", commit.hash, commit.author.raw)
}

/// The number of the pull request that a commit merged: `Merged in BRANCH (pull request #12)` is its first line.
fn pull_request(message: &str) -> Option<u64> {
    let first = message.lines().next()?;
    let (_, rest) = first.strip_prefix("Merged in ")?.split_once("(pull request #")?;
    rest.strip_suffix(')')?.parse().ok()
}

/// Those who approved it: lines `Approved-by: Name <name@example.com>`.
fn approvers(message: &str) -> impl Iterator<Item = Identity> {
    let lines = message.lines().filter_map(|line| line.trim().strip_prefix("Approved-by: "));
    // Without an address it is an account, which the pull request tells.
    let identities = lines.map(|raw| Identity { raw: raw.trim().to_owned(), accounts: Vec::new() });
    identities.filter(|identity| identity.email().is_some())
}

impl Work {
    /// The zip of the texts. They are stored as they are, so that no other version of a library packs them into other bytes.
    pub(crate) fn zip(&self) -> Result<Vec<u8>, Error> {
        let options =
            SimpleFileOptions::default().compression_method(CompressionMethod::Stored).unix_permissions(0o644);
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        let unwritable = |why: String| Error::Write { what: "a zip".into(), why };
        for (name, text) in &self.texts {
            // A file without a time is of 1980.
            zip.start_file(name.as_str(), options.last_modified_time(zip::DateTime::default()))
                .map_err(|error| unwritable(error.to_string()))?;
            zip.write_all(text.as_bytes()).map_err(|error| unwritable(error.to_string()))?;
        }
        Ok(zip.finish().map_err(|error| unwritable(error.to_string()))?.into_inner())
    }
}
