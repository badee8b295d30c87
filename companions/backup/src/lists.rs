//! Issues, pull requests and so on, as GitHub's API has them: lines of JSON.

use std::collections::BTreeSet;

use blackwater_base::store::Upload;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::fault::Fault;
use crate::manifest::List;
use crate::run::Run;

/// A list of a repository.
pub(crate) struct Kind {
    /// What the settings call it with others.
    pub(crate) with: &'static str,
    /// What it is called.
    pub(crate) name: &'static str,
    path: &'static str,
    order: Order,
}

enum Order {
    /// From what was changed first; those before a time can be left out.
    Oldest,
    /// From what was changed last.
    Newest,
    /// Any: it is read in full.
    Any,
    /// Those of each changed pull request.
    OfPulls,
}

/// <https://docs.github.com/en/rest/issues>, <https://docs.github.com/en/rest/pulls>, <https://docs.github.com/en/rest/releases>
pub(crate) const KINDS: [Kind; 8] = [
    Kind { with: "issues", name: "issues", path: "issues?state=all&sort=updated&direction=asc", order: Order::Oldest },
    Kind { with: "issues", name: "comments", path: "issues/comments?sort=updated&direction=asc", order: Order::Oldest },
    Kind { with: "issues", name: "labels", path: "labels?", order: Order::Any },
    Kind { with: "issues", name: "milestones", path: "milestones?state=all", order: Order::Any },
    Kind { with: "pulls", name: "reviews", path: "", order: Order::OfPulls },
    Kind { with: "pulls", name: "pulls", path: "pulls?state=all&sort=updated&direction=desc", order: Order::Newest },
    Kind {
        with: "pulls",
        name: "review_comments",
        path: "pulls/comments?sort=updated&direction=asc",
        order: Order::Oldest,
    },
    Kind { with: "releases", name: "releases", path: "releases?", order: Order::Any },
];

/// What is looked at of an item.
#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    id: u64,
    #[serde(default)]
    number: u64,
    #[serde(default)]
    updated_at: Option<String>,
}

/// Brings a list up to date. `see` is shown each new line.
pub(crate) async fn update(
    run: &Run<'_>,
    repository: &str,
    kind: &Kind,
    known: Option<&List>,
    key: String,
    see: &mut (dyn FnMut(&str) + Send),
) -> Result<List, Fault> {
    let known = known.cloned().unwrap_or_default();
    let mut reading = Reading {
        run,
        lines: Lines::new(run.account.store.upload(key))?,
        newest: known.newest.clone(),
        last: BTreeSet::new(),
    };
    let since = known.newest.as_deref();
    let at = |kind: &Kind| format!("repos/{repository}/{}&per_page=100", kind.path);
    match kind.order {
        Order::Any => reading.read(&at(kind), None, &known, see).await?,
        Order::Newest => reading.read(&at(kind), since, &known, see).await?,
        Order::Oldest => {
            let since = since.map_or_else(String::new, |since| format!("&since={since}"));
            reading.read(&(at(kind) + &since), None, &known, see).await?;
        }
        Order::OfPulls => reading.reviews(repository, &at(&KINDS[5]), &known, see).await?,
    }
    let Reading { lines, newest, last, .. } = reading;
    let is_whole = matches!(kind.order, Order::Any);
    let mut objects = if is_whole { Vec::new() } else { known.objects.clone() };
    if lines.count > 0 {
        let upload = lines.end().await?;
        match known.objects.last().filter(|before| is_whole && before.sha256 == upload.sha256()) {
            Some(before) => objects.push(before.clone()),
            None => objects.push(upload.finish().await?.into()),
        }
    }
    // An item may be changed again in the second in which it was read.
    let last =
        if newest.as_deref().is_some_and(|newest| newest < run.settled.as_str()) { last } else { BTreeSet::new() };
    Ok(List { objects, newest: if is_whole { None } else { newest }, last })
}

struct Reading<'r> {
    run: &'r Run<'r>,
    lines: Lines,
    /// The time of the newest change, and the items of that time.
    newest: Option<String>,
    last: BTreeSet<u64>,
}

impl Reading<'_> {
    /// Reads pages of items up to one that is older than `until`.
    async fn read(
        &mut self,
        path: &str,
        until: Option<&str>,
        known: &List,
        see: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), Fault> {
        let (github, deadline) = (&self.run.account.github, self.run.deadline);
        let mut page = Some(github.get(path, deadline).await?);
        while let Some(answer) = page {
            for text in answer.json::<Vec<Box<RawValue>>>("a list")? {
                let item: Item = read(&text)?;
                if until.is_some_and(|until| item.updated_at.as_deref().is_some_and(|at| at < until)) {
                    return Ok(());
                }
                if self.is_new(&item, known) {
                    see(text.get());
                    self.lines.add(&text).await?;
                }
            }
            page = github.after(&answer, deadline).await?;
        }
        Ok(())
    }

    /// Reads the reviews of pull requests that were changed.
    async fn reviews(
        &mut self,
        repository: &str,
        pulls: &str,
        known: &List,
        see: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), Fault> {
        let (github, deadline) = (&self.run.account.github, self.run.deadline);
        let until = known.newest.as_deref();
        let mut page = Some(github.get(pulls, deadline).await?);
        while let Some(answer) = page {
            for text in answer.json::<Vec<Box<RawValue>>>("a list of pull requests")? {
                let pull: Item = read(&text)?;
                if until.is_some_and(|until| pull.updated_at.as_deref().is_some_and(|at| at < until)) {
                    return Ok(());
                }
                if self.is_new(&pull, known) {
                    let path = format!("repos/{repository}/pulls/{}/reviews?per_page=100", pull.number);
                    let mut reviews = Some(github.get(&path, deadline).await?);
                    while let Some(answer) = reviews {
                        for text in answer.json::<Vec<Box<RawValue>>>("a list of reviews")? {
                            see(text.get());
                            self.lines.add(&text).await?;
                        }
                        reviews = github.after(&answer, deadline).await?;
                    }
                }
            }
            page = github.after(&answer, deadline).await?;
        }
        Ok(())
    }

    /// Whether an item is not kept yet; its time counts for the next backup.
    fn is_new(&mut self, item: &Item, known: &List) -> bool {
        let Some(at) = &item.updated_at else { return true };
        if self.newest.as_ref().is_none_or(|newest| at > newest) {
            self.newest = Some(at.clone());
            self.last.clear();
        }
        if self.newest.as_ref() == Some(at) {
            self.last.insert(item.id);
        }
        known.newest.as_ref() != Some(at) || !known.last.contains(&item.id)
    }
}

fn read(text: &RawValue) -> Result<Item, Fault> {
    serde_json::from_str(text.get()).map_err(|error| Fault::Form(format!("an item of a list cannot be read: {error}")))
}

/// Lines of JSON, compressed on their way to the bucket.
struct Lines {
    upload: Upload,
    encoder: zstd::Encoder<'static, Vec<u8>>,
    count: u64,
}

impl Lines {
    fn new(upload: Upload) -> Result<Self, Fault> {
        Ok(Self { upload, encoder: zstd::Encoder::new(Vec::new(), 0).map_err(unwritten)?, count: 0 })
    }

    async fn add(&mut self, text: &RawValue) -> Result<(), Fault> {
        use std::io::Write;
        // Between members there may be line breaks; in texts there are none.
        let line: String = text.get().split(['\r', '\n']).collect();
        self.encoder.write_all(line.as_bytes()).and_then(|()| self.encoder.write_all(b"\n")).map_err(unwritten)?;
        self.count += 1;
        if self.encoder.get_ref().len() > 1 << 16 {
            let made = std::mem::take(self.encoder.get_mut());
            self.upload.write(&made).await?;
        }
        Ok(())
    }

    async fn end(mut self) -> Result<Upload, Fault> {
        let rest = self.encoder.finish().map_err(unwritten)?;
        self.upload.write(&rest).await?;
        Ok(self.upload)
    }
}

fn unwritten(error: std::io::Error) -> Fault {
    Fault::Form(format!("a list cannot be compressed: {error}"))
}
