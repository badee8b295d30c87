//! Blackwater's own tables in the warehouse. The ledger says which batches of which log are in which
//! star schema; `version`, which batch brought each version of a history. They are in the warehouse, so that a batch and the note that it is applied are one transaction.

use std::collections::BTreeMap;

use blackwater_shared::manifest::Transformed;
use blackwater_shared::postgres::Doing;
use chrono::{DateTime, Utc};
use deadpool_postgres::{Object, Transaction};
use tokio_postgres::Client;
use tokio_postgres::types::Json;
use uuid::Uuid;

use crate::error::Error;
use crate::{Counts, SESSION};

/// The format of Blackwater's own tables in the warehouse.
const FORMAT: i32 = 1;

const TABLES: &str = "
    CREATE TABLE blackwater.format (version integer NOT NULL);
    COMMENT ON TABLE blackwater.format IS 'The format of the tables in this schema';
    INSERT INTO blackwater.format VALUES (1);
    CREATE TABLE blackwater.ledger (
        star_schema    text        NOT NULL,
        batch          bigint      NOT NULL,
        log            uuid        NOT NULL,
        extracted      uuid        NOT NULL,
        transformed    uuid        NOT NULL,
        pack           text        NOT NULL,
        schema_hash    text        NOT NULL,
        snapshot_at    timestamptz NOT NULL,
        applied_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
        rows_inserted  bigint      NOT NULL,
        rows_updated   bigint      NOT NULL,
        rows_unchanged bigint      NOT NULL,
        rows_deleted   bigint      NOT NULL,
        rows_released  bigint      NOT NULL,
        rows_quarantined bigint    NOT NULL,
        wanted         text[]      NOT NULL,
        agreed         jsonb       NOT NULL,
        PRIMARY KEY (star_schema, batch)
    );
    COMMENT ON TABLE blackwater.ledger IS 'The batches that are applied to each star schema';
    CREATE TABLE blackwater.version (
        star_schema text   NOT NULL,
        star_table  text   NOT NULL,
        record      bigint NOT NULL,
        batch       bigint NOT NULL,
        superseded  bigint,
        PRIMARY KEY (star_schema, star_table, record)
    );
    COMMENT ON TABLE blackwater.version IS
        'The versions in each history: the batch that brought it, and the one that brought the next';
    CREATE TABLE blackwater.quarantine (
        id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        star_schema text   NOT NULL,
        star_table  text   NOT NULL,
        key         jsonb  NOT NULL,
        batch       bigint NOT NULL,
        reason      text   NOT NULL,
        reference   jsonb,
        star_row    json,
        discarded   boolean NOT NULL DEFAULT false
    );
    CREATE INDEX ON blackwater.quarantine (star_schema, star_table, key);
    COMMENT ON TABLE blackwater.quarantine IS
        'Rows that a star table refuses: they wait until their key comes right or is gone';
    CREATE TABLE blackwater.filtered (
        star_schema text  NOT NULL,
        star_table  text  NOT NULL,
        key         jsonb NOT NULL,
        PRIMARY KEY (star_schema, star_table, key)
    );
    COMMENT ON TABLE blackwater.filtered IS
        'The source rows that a model does not let through';";

/// The newest line of the ledger for one star schema.
#[derive(Clone, Debug)]
pub(crate) struct Newest {
    pub(crate) batch: u64,
    pub(crate) log: Uuid,
    pub(crate) extracted: Uuid,
    pub(crate) schema_hash: String,
    pub(crate) applied_at: DateTime<Utc>,
    /// The source tables of which the warehouse holds more rows than there were.
    pub(crate) wanted: Vec<String>,
    /// The source rows of the star tables where the warehouse knows of as many.
    pub(crate) agreed: BTreeMap<String, u64>,
}

/// Takes the lock that keeps two loads of one star schema apart until the transaction ends.
pub(crate) async fn lock(transaction: &Transaction<'_>, star_schema: &str) -> Result<(), Error> {
    transaction
        .execute("SELECT pg_advisory_xact_lock(hashtextextended('blackwater ' || $1, 0))", &[&star_schema])
        .await
        .doing(format!("wait for another load of schema {star_schema}"))?;
    Ok(())
}

/// Makes the ledger where there is none, and refuses one that a newer version made.
pub(crate) async fn prepare(client: &mut Object) -> Result<(), Error> {
    if !exists(client).await? {
        let transaction = client.transaction().await.doing(PREPARE)?;
        transaction.batch_execute(SESSION).await.doing(PREPARE)?;
        lock(&transaction, "").await?;
        make(&transaction).await?;
        transaction.commit().await.doing(PREPARE)?;
    }
    check_format(client).await
}

const PREPARE: &str = "make the ledger in schema blackwater of the warehouse";

/// Makes the ledger, unless it is there.
pub(crate) async fn make(transaction: &Transaction<'_>) -> Result<(), Error> {
    // A load of another star schema may have made it while this one waited.
    if exists(transaction.client()).await? {
        return Ok(());
    }
    // Made by hand, the schema may belong to a role that may not make one.
    let schema = "SELECT NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'blackwater')";
    if transaction.query_one(schema, &[]).await.doing(PREPARE)?.get(0) {
        transaction.batch_execute("CREATE SCHEMA blackwater").await.doing(PREPARE)?;
    }
    Ok(transaction.batch_execute(TABLES).await.doing(PREPARE)?)
}

/// Refuses a ledger that a newer version made.
pub(crate) async fn check_format(client: &Client) -> Result<(), Error> {
    let row = client.query_one("SELECT version FROM blackwater.format", &[]).await;
    match row.doing("read the ledger's format")?.get(0) {
        FORMAT => Ok(()),
        found => Err(Error::Newer { found }),
    }
}

/// Asked of the tables of the catalogue: `to_regclass` may answer from what this session has cached,
/// which waiting for an advisory lock does not renew.
const EXISTS: &str = "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'blackwater' AND c.relname = 'ledger')";

/// Whether there is a ledger.
pub(crate) async fn exists(client: &Client) -> Result<bool, Error> {
    Ok(client.query_one(EXISTS, &[]).await.doing("look for the ledger")?.get(0))
}

const NEWEST: &str = "SELECT batch, log, extracted, schema_hash, applied_at, wanted, agreed FROM blackwater.ledger
    WHERE star_schema = $1 ORDER BY batch DESC LIMIT 1";

/// The newest batch applied.
pub(crate) async fn newest(client: &Client, star_schema: &str) -> Result<Option<Newest>, Error> {
    let row = client.query_opt(NEWEST, &[&star_schema]).await.doing("read the ledger")?;
    Ok(row.map(|row| Newest {
        batch: row.get::<_, i64>(0) as u64,
        log: row.get(1),
        extracted: row.get(2),
        schema_hash: row.get(3),
        applied_at: row.get(4),
        wanted: row.get(5),
        agreed: row.get::<_, Json<_>>(6).0,
    }))
}

/// Notes a batch as applied.
pub(crate) async fn note(
    transaction: &Transaction<'_>,
    star_schema: &str,
    manifest: &Transformed,
    schema_hash: &str,
    counts: Counts,
    wanted: &[String],
    agreed: &BTreeMap<String, u64>,
) -> Result<(), Error> {
    let head = &manifest.head;
    transaction
        .execute(
            "INSERT INTO blackwater.ledger (star_schema, batch, log, extracted, transformed, pack, schema_hash,
                 snapshot_at, rows_inserted, rows_updated, rows_unchanged, rows_deleted, rows_released,
                 rows_quarantined, wanted, agreed)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
            &[
                &star_schema,
                &(head.batch as i64),
                &head.log,
                &manifest.extracted,
                &head.run,
                &head.pack,
                &schema_hash,
                &head.at,
                &(counts.inserted as i64),
                &(counts.updated as i64),
                &(counts.unchanged as i64),
                &(counts.deleted as i64),
                &(counts.released as i64),
                &(counts.quarantined as i64),
                &wanted,
                &Json(agreed),
            ],
        )
        .await
        .doing(format!("note batch {} in the ledger", head.batch))?;
    Ok(())
}
