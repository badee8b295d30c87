//! Whether a backup could be made: the token, what it may see, the bucket.

use blackwater_base::deadline::Deadline;
use blackwater_http::Answer;
use chrono::{DateTime, Utc};

use crate::account::{Account, Listed};
use crate::config::Config;
use crate::error::Error;
use crate::mirror;
use crate::run::Backup;

/// From how many days before its end on a token is to be replaced.
const SOON: i64 = 14;

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// What is well.
    pub well: Vec<String>,
    /// What is not.
    pub wrong: Vec<String>,
}

impl Backup {
    /// Tries all that a backup needs.
    pub async fn check(&self, deadline: Deadline) -> Checked {
        let mut checked = Checked::default();
        match self.account().await {
            Ok(account) => self.look(&account, deadline, &mut checked).await,
            Err(error) => checked.wrong.push(error.to_string()),
        }
        checked
    }

    async fn look(&self, account: &Account, deadline: Deadline, checked: &mut Checked) {
        bucket(account, checked).await;
        match account.user(deadline).await {
            Ok((login, answer)) => token(&login, &answer, checked),
            Err(error) => return checked.wrong.push(error.to_string()),
        }
        let listed = match account.repositories(&self.config, deadline).await {
            Ok(listed) => listed,
            Err(error) => return checked.wrong.push(error.to_string()),
        };
        let size: u64 = listed.wanted.iter().map(|one| one.size).sum();
        let (all, wanted) = (listed.all.len(), listed.wanted.len());
        checked.well.push(format!("{wanted} of {all} repositories, together about {} MB", size >> 10));
        if wanted == 0 {
            checked.wrong.push(
                "no repository is to be backed up: see only_owner, include and exclude, and what the token may read"
                    .into(),
            );
        }
        let is_too_large = |one: &&Listed| self.config.is_too_large(one.size);
        checked.wrong.extend(listed.wanted.iter().filter(is_too_large).map(|one| {
            format!(
                "{} has about {} MB, more than largest: run `backup run --only` on a machine for it",
                one.full_name,
                one.size >> 10
            )
        }));
        // One that only a token with rights may read.
        if let Some(one) = listed.wanted.iter().max_by_key(|one| one.private) {
            tried(account, &self.config, one, deadline, checked).await;
        }
    }
}

async fn bucket(account: &Account, checked: &mut Checked) {
    let store = &account.store;
    let written = async || -> Result<(), Error> {
        store.check().await?;
        store.list(&account.prefix, "", 1).await?;
        Ok(store.put(&account.key("running/check"), "of `backup check`".into()).await?)
    };
    match written().await {
        Ok(()) => checked.well.push(format!("{} can be listed and written", account.address())),
        Err(error) => return checked.wrong.push(error.to_string()),
    }
    match store.protection().await {
        Ok(protection) => {
            match protection.is_versioned {
                true => checked.well.push(format!("{} keeps older versions", store.bucket())),
                false => checked.wrong.push(format!(
                    "{} keeps no older versions: what is overwritten or removed is lost",
                    store.bucket()
                )),
            }
            match protection.lock {
                Some(lock) => checked.well.push(format!("{} lets nothing be removed: {lock}", store.bucket())),
                None => checked
                    .wrong
                    .push(format!("{} has no object lock: who may remove objects may remove backups", store.bucket())),
            }
        }
        Err(error) => checked.wrong.push(format!("whether older versions are kept cannot be seen: {error}")),
    }
}

/// <https://docs.github.com/en/apps/oauth-apps/building-oauth-apps/scopes-for-oauth-apps>
fn token(login: &str, answer: &Answer, checked: &mut Checked) {
    let header = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok());
    match header("x-oauth-scopes") {
        Some(scopes) if scopes.split(',').any(|scope| scope.trim() == "repo") => {
            checked.well.push(format!("the token is {login}'s, and has the scope repo"));
        }
        Some(scopes) => checked.wrong.push(format!(
            "the token is {login}'s, and has not the scope repo but {scopes:?}: private repositories are not seen"
        )),
        None => checked.well.push(format!("the token is {login}'s, and fine-grained: its rights are seen by trying")),
    }
    // As 2026-12-01 09:30:00 UTC, or with +0000.
    let Some(text) = header("github-authentication-token-expiration") else { return };
    let end = DateTime::parse_from_str(&text.replace("UTC", "+0000"), "%Y-%m-%d %H:%M:%S %z");
    match end.map(|end| (end.to_utc() - Utc::now()).num_days()) {
        Ok(days) if days < SOON => {
            checked.wrong.push(format!("the token expires on {text}, in {days} days: make a new one"))
        }
        _ => checked.well.push(format!("the token expires on {text}")),
    }
}

/// Reads the beginning of what a backup reads of a repository.
async fn tried(account: &Account, config: &Config, one: &Listed, deadline: Deadline, checked: &mut Checked) {
    let name = &one.full_name;
    let refs = async {
        let remote = account.git.connect(name, deadline).await?;
        mirror::refs(config, &remote).await
    };
    match refs.await {
        Ok(refs) => checked.well.push(format!("{name} can be read: it has {} refs", refs.len())),
        Err(fault) => checked.wrong.push(format!("{name} cannot be read: {fault}")),
    }
    for (with, path) in [
        ("issues", "issues?state=all&per_page=1"),
        ("pulls", "pulls?state=all&per_page=1"),
        ("releases", "releases?per_page=1"),
    ] {
        if !config.has(with) {
            continue;
        }
        match account.github.get(&format!("repos/{name}/{path}"), deadline).await {
            Err(error) if error.status().is_none_or(|status| status.as_u16() != 410) => {
                checked.wrong.push(format!("{with} of {name} cannot be read: {error}"));
            }
            _ => checked.well.push(format!("{with} of {name} can be read")),
        }
    }
}
