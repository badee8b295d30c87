//! Whether everything is there that polls and loads need.

use blackwater_base::deadline::Deadline;
use serde_json::Value;

use crate::Contributors;
use crate::account::Account;
use crate::error::Error;

/// What was found.
#[derive(Debug, Default)]
pub struct Checked {
    /// What is as it should be.
    pub well: Vec<String>,
    /// What is not, and what to do.
    pub wrong: Vec<String>,
}

impl Checked {
    fn note(&mut self, found: Result<String, Error>) {
        match found {
            Ok(text) => self.well.push(text),
            Err(error) => self.wrong.push(error.to_string().replace('\n', ". ")),
        }
    }
}

impl Contributors {
    /// Asks GitHub, the bucket, and the database where the settings name one. It changes nothing.
    pub async fn check(&self) -> Checked {
        let mut checked = Checked::default();
        match Account::open(&self.config.github, &self.http, &self.secrets, Deadline::NONE, false).await {
            Ok(mut account) => {
                checked.note(self.check_budget(&mut account).await);
                checked.note(self.check_repositories(&mut account).await);
                checked.note(self.check_members(&mut account).await);
            }
            Err(error) => checked.note(Err(error)),
        }
        let bucket = self.store.check().await.map_err(Error::from);
        checked.note(bucket.map(|()| format!("the bucket {} is there", self.store.bucket())));
        if self.config.database.is_some() {
            checked.note(self.check_database().await);
        }
        checked
    }

    async fn check_budget(&self, account: &mut Account) -> Result<String, Error> {
        let answer = account.get("rate_limit", None).await?;
        let limits: Value = answer.map_or(Ok(Value::Null), |answer| answer.json("the limits"))?;
        let core = &limits["resources"]["core"];
        let (limit, left) =
            (core["limit"].as_u64().unwrap_or_default(), core["remaining"].as_u64().unwrap_or_default());
        let reserve = self.config.github.reserve;
        if limit <= reserve {
            let why = format!("{reserve} keeps all {limit} requests an hour that the token has; make it smaller");
            return Err(Error::Setting { setting: "github.reserve", why });
        }
        Ok(format!(
            "GitHub accepts the token: {left} of {limit} requests an hour are left, {reserve} are kept for others"
        ))
    }

    async fn check_repositories(&self, account: &mut Account) -> Result<String, Error> {
        let organization = &self.config.organization;
        let listed = account.list(&format!("orgs/{organization}/repos?per_page=100")).await;
        let listed = listed.map_err(|error| match error {
            Error::Http(error) => Error::Organization { organization: organization.clone(), why: error.to_string() },
            error => error,
        })?;
        let is_watched = |row: &&Value| row["name"].as_str().is_some_and(|name| self.config.watches(name));
        match listed.iter().filter(is_watched).count() {
            0 => Err(Error::Nothing { organization: organization.clone(), listed: listed.len() }),
            watched => Ok(format!("{organization}: {watched} of {} repositories are watched", listed.len())),
        }
    }

    async fn check_members(&self, account: &mut Account) -> Result<String, Error> {
        let organization = &self.config.organization;
        let members = account.list(&format!("orgs/{organization}/members?per_page=100")).await?;
        Ok(format!(
            "{organization}: the token sees {} members (a token of someone else sees only the public ones)",
            members.len()
        ))
    }

    async fn check_database(&self) -> Result<String, Error> {
        let (database, schema) = self.database().await?;
        let client = database.connect().await?;
        let place = database.address().to_string();
        let may = "SELECT has_schema_privilege(nspname, 'CREATE') FROM pg_namespace WHERE nspname = $1";
        let may = client.query_opt(may, &[&schema]).await;
        let may = may.map_err(|error| blackwater_shared::postgres::Error::of("look at the schema", error))?;
        match may.map(|row| row.get::<_, bool>(0)) {
            Some(true) => Ok(format!("the database {place} is there, with the schema {schema}")),
            Some(false) => {
                let why = format!(
                    "{} may make no tables in {schema}: GRANT CREATE, USAGE ON SCHEMA {schema} TO …",
                    database.address().user()
                );
                Err(Error::Setting { setting: "database.schema", why })
            }
            None => Ok(format!("the database {place} is there; the schema {schema} will be made")),
        }
    }
}
