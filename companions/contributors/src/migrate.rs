//! The tables: numbered steps, each run once.

use std::time::Duration;

use blackwater_base::secrets::Secrets;
use blackwater_shared::postgres::{Address, Database, Doing, Login, Session, ident};
use deadpool_postgres::GenericClient;

use crate::Contributors;
use crate::config;
use crate::error::Error;

/// The steps. What has been run anywhere is never changed.
const MIGRATIONS: [&str; 2] = [include_str!("../migrations/1_tables.sql"), include_str!("../migrations/2_views.sql")];

const MADE: &str = "CREATE TABLE contributors_migrations (
    number integer PRIMARY KEY, run_at timestamptz NOT NULL DEFAULT now())";
/// A table of another program that has the name of one of ours.
const FOREIGN: &str = "SELECT table_name::text FROM information_schema.tables
    WHERE table_schema = $1 AND table_name IN ('issues', 'pull_requests', 'events', 'members', 'people', 'labels',
        'repositories', 'transfers', 'applied')
    AND NOT EXISTS (SELECT FROM information_schema.tables
        WHERE table_schema = $1 AND table_name = 'contributors_migrations')
    LIMIT 1";
const SESSION: Session = Session {
    application: "contributors",
    lock_timeout: Duration::from_secs(30),
    statement_timeout: Duration::from_secs(300),
    idle_timeout: Duration::from_secs(300),
    more: &[],
};

impl Contributors {
    /// Makes the tables, or brings them up to date: the numbers of the steps that were run.
    ///
    /// # Errors
    /// If the schema has tables of others, or the database refuses a step.
    pub async fn migrate(&self) -> Result<Vec<usize>, Error> {
        let (database, schema) = self.database().await?;
        migrate(&database, &schema).await
    }

    /// The database, and the schema of its tables.
    pub(crate) async fn database(&self) -> Result<(Database, String), Error> {
        let Some(config) = &self.config.database else {
            let why = "not set: write the address of the database, or name a secret with database.secret".into();
            return Err(Error::Setting { setting: "database.url", why });
        };
        Ok((address(config, &self.secrets).await?.pool(1, SESSION)?, config.schema.clone()))
    }
}

async fn address(config: &config::Database, secrets: &Secrets) -> Result<Address, Error> {
    const SETTING: &str = "database.url";
    let form = "{\"username\": \"…\", \"password\": \"…\", \"host\": \"…\", \"dbname\": \"…\"}";
    let login: Option<Login> = match &config.secret {
        Some(secret) => Some(secrets.json(secret, form).await?),
        None => None,
    };
    Ok(match (&config.url, login) {
        (url, Some(login)) => Address::with_login(SETTING, url.as_ref(), &login)?,
        (Some(url), None) => Address::parse(SETTING, url)?,
        (None, None) => {
            return Err(Error::Setting { setting: SETTING, why: "not set".into() });
        }
    })
}

/// Makes the tables, or brings them up to date.
pub(crate) async fn migrate(database: &Database, schema: &str) -> Result<Vec<usize>, Error> {
    let mut client = database.connect().await?;
    let doing = || format!("create the tables in {schema}");
    let known = MIGRATIONS.len();
    let transaction = client.transaction().await.doing(doing())?;
    // One at a time.
    transaction.execute("SELECT pg_advisory_xact_lock(hashtext('contributors'))", &[]).await.doing(doing())?;
    let there = "SELECT FROM pg_namespace WHERE nspname = $1";
    if transaction.query_opt(there, &[&schema]).await.doing(doing())?.is_none() {
        transaction.batch_execute(&format!("CREATE SCHEMA {}", ident(schema))).await.doing(doing())?;
    }
    refuse_foreign(&transaction, schema).await?;
    transaction.batch_execute(&search(schema)).await.doing(doing())?;
    let made =
        "SELECT FROM information_schema.tables WHERE table_schema = $1 AND table_name = 'contributors_migrations'";
    if transaction.query_opt(made, &[&schema]).await.doing(doing())?.is_none() {
        transaction.batch_execute(MADE).await.doing(doing())?;
    }
    let last = "SELECT coalesce(max(number), 0) FROM contributors_migrations";
    let last: i32 = transaction.query_one(last, &[]).await.doing(doing())?.get(0);
    if last.cast_unsigned() as usize > known {
        return Err(Error::Newer { found: last, known: i32::try_from(known).unwrap_or(i32::MAX) });
    }
    let mut run = Vec::new();
    for (number, sql) in (1..).zip(MIGRATIONS).skip(last.cast_unsigned() as usize) {
        transaction.batch_execute(sql).await.doing(format!("run migration {number} in {schema}"))?;
        let note = "INSERT INTO contributors_migrations (number) VALUES ($1)";
        transaction.execute(note, &[&i32::try_from(number).unwrap_or(i32::MAX)]).await.doing(doing())?;
        run.push(number);
    }
    transaction.commit().await.doing(doing())?;
    Ok(run)
}

/// Makes sure that a schema has no tables of another program.
pub(crate) async fn refuse_foreign(client: &impl GenericClient, schema: &str) -> Result<(), Error> {
    match client.query_opt(FOREIGN, &[&schema]).await.doing(format!("look at the tables in {schema}"))? {
        Some(row) => Err(Error::Foreign { schema: schema.into(), table: row.get(0) }),
        None => Ok(()),
    }
}

/// Has the names of a transaction found in the schema.
pub(crate) fn search(schema: &str) -> String {
    format!("SET LOCAL search_path = {}, pg_temp", ident(schema))
}
