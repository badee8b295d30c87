//! Whether everything is there that polls and loads need.

use blackwater_base::deadline::Deadline;
use blackwater_shared::postgres::Doing;
use serde_json::Value;

use crate::Contributors;
use crate::account::Account;
use crate::error::Error;
use crate::migrate::refuse_foreign;

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
            Ok(mut account) => self.check_github(&mut account, &mut checked).await,
            Err(error) => checked.note(Err(error)),
        }
        let bucket = self.store.check().await.map_err(Error::from);
        checked.note(bucket.map(|()| match &self.config.directory {
            Some(folder) => format!("the folder {} can be used", folder.display()),
            None => format!("the bucket {} exists", self.store.bucket()),
        }));
        if self.config.database.is_some() {
            checked.note(self.check_database().await);
        }
        checked
    }

    /// What GitHub shows the token; once it shows nothing, there is no more to ask.
    async fn check_github(&self, account: &mut Account, checked: &mut Checked) {
        let budget = self.check_budget(account).await;
        let goes_on = matches!(budget, Ok(_) | Err(Error::Setting { .. }));
        checked.note(budget);
        if goes_on {
            checked.note(self.check_repositories(account).await);
            checked.note(self.check_members(account).await);
        }
    }

    async fn check_budget(&self, account: &mut Account) -> Result<String, Error> {
        let answer = account.get("rate_limit", None).await?;
        let limits: Value = answer.map_or(Ok(Value::Null), |answer| answer.json("the limits"))?;
        let core = &limits["resources"]["core"];
        let (limit, left) =
            (core["limit"].as_u64().unwrap_or_default(), core["remaining"].as_u64().unwrap_or_default());
        let reserve = self.config.github.reserve;
        if limit <= reserve {
            let why = format!("{reserve} keeps all of the token's {limit} requests an hour; make it smaller");
            return Err(Error::Setting { setting: "github.reserve", why });
        }
        Ok(format!(
            "GitHub accepts the token: {left} of {limit} requests an hour are left, {reserve} are kept for others"
        ))
    }

    async fn check_repositories(&self, account: &mut Account) -> Result<String, Error> {
        let organization = &self.config.organization;
        let listed = account.repositories(organization).await?;
        let is_watched = |row: &&Value| row["name"].as_str().is_some_and(|name| self.config.watches(name));
        match listed.iter().filter(is_watched).count() {
            0 => Err(Error::Nothing { organization: organization.clone(), listed: listed.len() }),
            watched => Ok(format!("{organization}: {watched} of {} repositories are watched", listed.len())),
        }
    }

    async fn check_members(&self, account: &mut Account) -> Result<String, Error> {
        let organization = &self.config.organization;
        let members = account.members(organization).await?;
        Ok(format!(
            "{organization}: the token sees {} members (the token of someone outside sees only public ones)",
            members.len()
        ))
    }

    async fn check_database(&self) -> Result<String, Error> {
        let (database, schema) = self.database().await?;
        let client = database.connect().await?;
        let place = database.address().to_string();
        refuse_foreign(&client, &schema).await?;
        let may = "SELECT has_schema_privilege(nspname, 'CREATE') FROM pg_namespace WHERE nspname = $1";
        let may = client.query_opt(may, &[&schema]).await.doing("look at the schema")?;
        match may.map(|row| row.get::<_, bool>(0)) {
            Some(true) => Ok(format!("the database {place} can be used, with the schema {schema}")),
            Some(false) => {
                let role = database.address().user();
                let why = format!(
                    "{role} may not create tables in {schema}: GRANT CREATE, USAGE ON SCHEMA {schema} TO {role}"
                );
                Err(Error::Setting { setting: "database.schema", why })
            }
            None => Ok(format!("the database {place} can be used; load creates the schema {schema}")),
        }
    }
}
