//! Issues, pull requests and so on, as GitHub's API has them: lines of JSON.

use blackwater_base::store::Upload;
use blackwater_http::Answer;
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
    /// By the time of the last change; those before a time can be left out.
    Updated,
    /// The same, for what cannot leave anything out.
    Pulls,
    /// Any: it is read in full. A page of releases may be large, with the files of each.
    Any,
    /// What belongs to each changed pull request.
    OfPulls,
}

/// <https://docs.github.com/en/rest/issues>, <https://docs.github.com/en/rest/pulls>, <https://docs.github.com/en/rest/releases>
pub(crate) const KINDS: [Kind; 8] = [
    Kind { with: "issues", name: "issues", path: "issues?state=all", order: Order::Updated },
    Kind { with: "issues", name: "comments", path: "issues/comments?", order: Order::Updated },
    Kind { with: "issues", name: "labels", path: "labels?per_page=100", order: Order::Any },
    Kind { with: "issues", name: "milestones", path: "milestones?state=all&per_page=100", order: Order::Any },
    Kind { with: "pulls", name: "reviews", path: "", order: Order::OfPulls },
    Kind { with: "pulls", name: "pulls", path: "pulls?state=all", order: Order::Pulls },
    Kind { with: "pulls", name: "review_comments", path: "pulls/comments?", order: Order::Updated },
    Kind { with: "releases", name: "releases", path: "releases?per_page=20", order: Order::Any },
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

/// What is shown each new line.
pub(crate) type See<'s> = &'s mut (dyn FnMut(&str) + Send);

/// Brings a list up to date, and shows each new line; with the reason, if it could not be read to its end.
pub(crate) async fn update(
    run: &Run<'_>,
    repository: &str,
    kind: &Kind,
    known: Option<&List>,
    key: String,
    see: See<'_>,
) -> Result<(List, Option<Fault>), Fault> {
    let known = known.cloned().unwrap_or_default();
    let is_whole = matches!(kind.order, Order::Any);
    let objects = if is_whole { Vec::new() } else { known.objects.clone() };
    let mut reading = Reading {
        run,
        repository,
        see,
        lines: Lines::new(run.account.store.upload(key))?,
        list: List { objects, ..known.clone() },
    };
    let read = match kind.order {
        Order::Any => reading.pages(kind.path).await,
        Order::Updated => reading.updated(kind).await,
        Order::Pulls => reading.pulls(kind).await,
        Order::OfPulls => reading.of_pulls(kind).await,
    };
    let fault = match (read, &kind.order) {
        (Ok(()), _) => None,
        (Err(fault @ Fault::Store(_)), _) => return Err(fault),
        // These go on from where they stopped.
        (Err(fault), Order::Updated | Order::OfPulls) if fault.status() != Some(410) => Some(fault),
        (Err(fault), _) => return Err(fault),
    };
    let Reading { lines, mut list, .. } = reading;
    if lines.count > 0 {
        let upload = lines.end().await?;
        match known.objects.last().filter(|before| is_whole && before.sha256 == upload.sha256()) {
            Some(before) => list.objects.push(before.clone()),
            None => list.objects.push(upload.finish().await?.into()),
        }
    }
    // An item may be changed again in the second in which it was read.
    if list.newest.as_deref().is_none_or(|newest| newest >= run.settled.as_str()) {
        list.last.clear();
    }
    Ok((list, fault))
}

struct Reading<'r> {
    run: &'r Run<'r>,
    repository: &'r str,
    see: See<'r>,
    lines: Lines,
    list: List,
}

impl Reading<'_> {
    async fn get(&self, path: &str) -> Result<Answer, Fault> {
        let path = format!("repos/{}/{path}", self.repository);
        Ok(self.run.account.github.get(&path, self.run.deadline).await?)
    }

    async fn after(&self, page: &Answer) -> Result<Option<Answer>, Fault> {
        Ok(self.run.account.github.after(page, self.run.deadline).await?)
    }

    /// Reads a list in full.
    async fn pages(&mut self, path: &str) -> Result<(), Fault> {
        let mut page = Some(self.get(path).await?);
        while let Some(answer) = page {
            for text in items(&answer)? {
                self.add(&text).await?;
            }
            page = self.after(&answer).await?;
        }
        Ok(())
    }

    /// Reads what was changed since the newest item that is kept. Each page is asked for from the end of the one before, by time, not
    /// by number: what is changed meanwhile moves to the end, and what follows it would move up unseen.
    async fn updated(&mut self, kind: &Kind) -> Result<(), Fault> {
        loop {
            let since = self.list.newest.clone();
            let from = since.as_ref().map_or_else(String::new, |since| format!("&since={since}"));
            let path = format!("{}&sort=updated&direction=asc&per_page=100{from}", kind.path);
            let mut page = Some(self.get(&path).await?);
            while let Some(answer) = page.take() {
                for text in items(&answer)? {
                    let item = read(&text)?;
                    if self.is_new(&item) {
                        self.add(&text).await?;
                    }
                }
                if answer.next().is_none() {
                    return Ok(());
                }
                // More than a page in one second: these have no time between them.
                if self.list.newest == since {
                    page = self.after(&answer).await?;
                }
            }
        }
    }

    /// Reads pull requests: all in the order in which they were made, which stays; later from the one that was changed last.
    async fn pulls(&mut self, kind: &Kind) -> Result<(), Fault> {
        let Some(until) = self.list.newest.clone() else {
            self.pages(&format!("{}&sort=created&direction=asc&per_page=100", kind.path)).await?;
            self.list.newest = Some(self.run.earlier.clone());
            return Ok(());
        };
        for (text, item) in self.changed(&until).await? {
            if self.is_new(&item) {
                self.add(&text).await?;
            }
        }
        Ok(())
    }

    /// Reads the reviews of pull requests: of all in the order in which they were made, and then of those that were changed since that
    /// was begun, from the one that was changed first.
    async fn of_pulls(&mut self, kind: &Kind) -> Result<(), Fault> {
        if self.list.newest.is_none() || self.list.upto.is_some() {
            self.of_all_pulls(kind).await?;
        }
        let until = self.list.newest.clone().unwrap_or_default();
        for (_, pull) in self.changed(&until).await?.iter().rev() {
            let is_kept = self.list.newest == pull.updated_at && self.list.last.contains(&pull.id);
            if !is_kept {
                self.pages(&format!("pulls/{}/{}?per_page=100", pull.number, kind.name)).await?;
                self.is_new(pull);
            }
        }
        Ok(())
    }

    async fn of_all_pulls(&mut self, kind: &Kind) -> Result<(), Fault> {
        let done = self.list.upto.unwrap_or_default();
        self.list.newest.get_or_insert_with(|| self.run.earlier.clone());
        self.list.upto = Some(done);
        let mut page = Some(self.get("pulls?state=all&sort=created&direction=asc&per_page=100").await?);
        while let Some(answer) = page {
            for text in items(&answer)? {
                let number = read(&text)?.number;
                if number > done {
                    self.pages(&format!("pulls/{number}/{}?per_page=100", kind.name)).await?;
                    self.list.upto = Some(number);
                }
            }
            page = self.after(&answer).await?;
        }
        self.list.upto = None;
        Ok(())
    }

    /// The pull requests that were changed at a time or later.
    async fn changed(&self, until: &str) -> Result<Vec<(Box<RawValue>, Item)>, Fault> {
        let mut found = Vec::new();
        let mut page = Some(self.get("pulls?state=all&sort=updated&direction=desc&per_page=100").await?);
        while let Some(answer) = page {
            for text in items(&answer)? {
                let item = read(&text)?;
                if item.updated_at.as_deref().is_some_and(|at| at < until) {
                    return Ok(found);
                }
                found.push((text, item));
            }
            page = self.after(&answer).await?;
        }
        Ok(found)
    }

    async fn add(&mut self, text: &RawValue) -> Result<(), Fault> {
        (self.see)(text.get());
        self.lines.add(text).await
    }

    /// Whether an item is not kept yet; its time counts from now on.
    fn is_new(&mut self, item: &Item) -> bool {
        let Some(at) = &item.updated_at else { return true };
        if self.list.newest.as_ref().is_none_or(|newest| at > newest) {
            self.list.newest = Some(at.clone());
            self.list.last.clear();
        }
        self.list.newest.as_ref() != Some(at) || self.list.last.insert(item.id)
    }
}

fn items(answer: &Answer) -> Result<Vec<Box<RawValue>>, Fault> {
    Ok(answer.json("a list")?)
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
