//! How far polls and the database are.

use blackwater_shared::postgres::Doing;
use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::Contributors;
use crate::answers::Answers;
use crate::error::Error;
use crate::load::position;
use crate::state::State;

/// How far polls and the database are.
#[derive(Debug, Serialize)]
pub struct Status {
    /// The repositories, the one first that was polled longest ago.
    pub repositories: Vec<Repository>,
    /// What was left of GitHub's limit when it was last asked.
    pub budget: Option<Budget>,
    /// The members that were last listed.
    pub members: Option<Members>,
    /// The number of the newest batch of answers.
    pub newest: u64,
    /// How many batches the database lacks; `None` if the settings name none.
    pub behind: Option<u64>,
}

/// What is left of GitHub's limit.
#[derive(Debug, Serialize)]
pub struct Budget {
    /// How many requests.
    pub remaining: u64,
    /// Until when.
    pub until: DateTime<Utc>,
}

/// The members of an organization.
#[derive(Debug, Serialize)]
pub struct Members {
    /// When they were listed.
    pub listed_at: DateTime<Utc>,
    /// How many there were.
    pub members: usize,
}

/// How far a repository is read.
#[derive(Debug, Serialize)]
pub struct Repository {
    /// Its name, as `acme/shop`.
    pub name: String,
    /// When a poll last went through it.
    pub polled_at: Option<DateTime<Utc>>,
    /// How many issues and pull requests are known.
    pub issues: usize,
    /// How many timelines are to be asked for.
    pub due: usize,
    /// The backfills that are not done.
    pub backfills: Vec<String>,
}

impl Contributors {
    /// How far polls and the database are at a time.
    ///
    /// # Errors
    /// If the bucket or the database cannot be read.
    pub async fn status(&self, at: DateTime<Utc>) -> Result<Status, Error> {
        let answers = Answers(&self.store);
        let state = answers.state().await?.map(|(state, _)| state).unwrap_or_default();
        let mut repositories = Vec::new();
        for id in state.by_age() {
            let Some(watched) = state.known.get(&id) else { continue };
            let (issues, _) = answers.issues(&state.log, id).await?;
            repositories.push(Repository {
                name: watched.repository.full_name(),
                polled_at: watched.polled_at,
                issues: issues.0.values().filter(|issue| !issue.gone).count(),
                due: issues.due(at).len(),
                backfills: watched.unfinished().map(ToString::to_string).collect(),
            });
        }
        let newest = state.next.saturating_sub(1);
        let behind = match self.config.database {
            Some(_) => Some(self.behind(&state).await?),
            None => None,
        };
        Ok(Status {
            repositories,
            budget: state.budgets.get("core").map(|core| Budget { remaining: core.remaining, until: core.reset }),
            members: state.members_at.map(|listed_at| Members { listed_at, members: state.members.len() }),
            newest,
            behind,
        })
    }

    /// How many batches of the newest log are not in the database.
    async fn behind(&self, state: &State) -> Result<u64, Error> {
        let (database, schema) = self.database().await?;
        let mut client = database.connect().await?;
        let there = "SELECT FROM information_schema.tables WHERE table_schema = $1 AND table_name = 'applied'";
        let there = client.query_opt(there, &[&schema]).await.doing("look for the tables")?;
        let applied = match there {
            Some(_) => position(&mut client, &schema).await?.1,
            None => return Ok(state.next.saturating_sub(1)),
        };
        let is_of_it = applied.log.as_ref() == Some(&state.log);
        Ok(state.next.saturating_sub(if is_of_it { applied.batch } else { 1 }))
    }
}
