//! Blackwater's own tables in the warehouse. The ledger says which batches of which log are in which
//! star schema, and since when. It is in the warehouse, so that a batch and its line in the ledger are one transaction.

use std::collections::BTreeMap;

use blackwater_shared::log::{self, Log};
use blackwater_shared::manifest::{Head, Transformed};
use blackwater_shared::postgres::Doing;
use chrono::{DateTime, TimeDelta, Utc};
use deadpool_postgres::{Object, Transaction};
use tokio_postgres::Client;
use tokio_postgres::types::{Json, Type};
use uuid::Uuid;

use crate::Counts;
use crate::error::Error;
use crate::known::Known;

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
        effective_at   timestamptz NOT NULL,
        forgotten      timestamptz[] NOT NULL,
        applied_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
        rows_inserted  bigint      NOT NULL,
        rows_updated   bigint      NOT NULL,
        rows_unchanged bigint      NOT NULL,
        rows_deleted   bigint      NOT NULL,
        rows_released  bigint      NOT NULL,
        rows_quarantined bigint    NOT NULL,
        wanted         text[]      NOT NULL,
        known          jsonb       NOT NULL,
        PRIMARY KEY (star_schema, batch),
        UNIQUE (star_schema, effective_at)
    );
    COMMENT ON TABLE blackwater.ledger IS 'The batches that are applied to each star schema';
    CREATE TABLE blackwater.schema_file (
        star_schema text        PRIMARY KEY,
        hash        text        NOT NULL,
        applied_at  timestamptz NOT NULL DEFAULT clock_timestamp()
    );
    COMMENT ON TABLE blackwater.schema_file IS 'The schema.sql that was applied to each star schema';
    CREATE TABLE blackwater.partly (
        star_schema text   PRIMARY KEY,
        batch       bigint NOT NULL,
        transformed uuid   NOT NULL,
        tries       integer NOT NULL,
        done        bigint NOT NULL DEFAULT 0,
        counts      jsonb  NOT NULL DEFAULT '{}',
        effective_at timestamptz,
        forgotten   timestamptz[] NOT NULL DEFAULT '{}'
    );
    COMMENT ON TABLE blackwater.partly IS
        'How often the next batch did not end in time, and how many of its rows are written';
    CREATE TABLE blackwater.taken_down (
        star_schema text    NOT NULL,
        star_table  text    NOT NULL,
        name        text    NOT NULL,
        other       text    NOT NULL,
        definition  text    NOT NULL,
        comment     text,
        was_valid   boolean NOT NULL,
        reference   jsonb   NOT NULL,
        is_down     boolean NOT NULL DEFAULT true,
        PRIMARY KEY (star_schema, star_table, name)
    );
    COMMENT ON TABLE blackwater.taken_down IS
        'The foreign keys that a large batch took down: how they are put back, and which of those that are back are still NOT VALID';
    CREATE TABLE blackwater.staged (
        id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        star_schema text   NOT NULL,
        batch       bigint NOT NULL
    );
    COMMENT ON TABLE blackwater.staged IS
        'The tables staged_<id> of this schema: rows of large batches, which the batch''s transaction drops';
    CREATE SEQUENCE blackwater.entry;
    CREATE TABLE blackwater.quarantine (
        id          bigint  PRIMARY KEY DEFAULT nextval('blackwater.entry'),
        star_schema text    NOT NULL,
        star_table  text    NOT NULL,
        key         jsonb   NOT NULL,
        batch       bigint  NOT NULL,
        reason      text    NOT NULL,
        reference   jsonb,
        star_row    json,
        discarded   boolean NOT NULL DEFAULT false
    );
    CREATE INDEX ON blackwater.quarantine (star_schema, star_table, key);
    CREATE INDEX ON blackwater.quarantine (star_schema, star_table, batch);
    CREATE INDEX ON blackwater.quarantine (star_schema, star_table)
        WHERE reference ? 'constraint' AND NOT reference ? 'table';
    COMMENT ON TABLE blackwater.quarantine IS
        'Rows that a star table refuses: they wait until their key comes right or is gone';
    CREATE TABLE blackwater.waiting_for (
        star_schema     text   NOT NULL,
        star_table      text   NOT NULL,
        constraint_name text   NOT NULL,
        key             text[] NOT NULL,
        entry           bigint NOT NULL
    );
    CREATE INDEX ON blackwater.waiting_for (star_schema, star_table, constraint_name, key);
    CREATE INDEX ON blackwater.waiting_for (entry);
    COMMENT ON TABLE blackwater.waiting_for IS
        'The keys that rows in quarantine refer to and that are missing, one line for each';
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
    /// The hash of the model pack.
    pub(crate) pack: String,
    pub(crate) schema_hash: String,
    /// The source's time of the batch's snapshot.
    pub(crate) snapshot_at: DateTime<Utc>,
    /// Its time in histories: that of the snapshot, or later, for it is after that of every batch before.
    pub(crate) effective_at: DateTime<Utc>,
    pub(crate) applied_at: DateTime<Utc>,
    /// The source tables whose keys are asked for: the warehouse holds more rows than there were.
    pub(crate) wanted: Vec<String>,
    /// What the warehouse knows of, by star table.
    pub(crate) known: BTreeMap<String, Known>,
}

impl Newest {
    /// That a manifest is of another log than the batches of the star schema.
    pub(crate) fn other_log(&self, log: &Log, manifest: &Transformed, star_schema: &str) -> Error {
        let known_by = format!("schema {star_schema} of the warehouse");
        let (here, found) = (log.place(manifest.head.batch), manifest.head.log);
        log::Error::OtherLog { here, found, known_by, known: self.log }.into()
    }
}

/// Takes the lock that keeps two loads of one star schema apart, until the transaction ends, if it is free. Nothing but a load
/// takes it: whoever finds it taken leaves, because the one who has it looks for further batches when it is done.
///
/// It is a statement of its own: what the ledger says is read by a later one, or it would be read as it was before the lock was
/// had.
pub(crate) async fn try_lock(client: &Client, star_schema: &str) -> Result<bool, Error> {
    let sql = "SELECT pg_try_advisory_xact_lock(hashtextextended('blackwater ' || $1, 0))";
    let row = client.query_typed_one(sql, &[(&star_schema, Type::TEXT)]).await;
    Ok(row.doing(format!("ask for the lock of schema {star_schema}"))?.get(0))
}

/// Keeps two sessions apart that make the ledger.
const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtextextended('blackwater ', 0))";

/// Makes the ledger where there is none, and refuses one of another format.
pub(crate) async fn prepare(client: &mut Object) -> Result<(), Error> {
    if !exists(client).await? {
        let transaction = client.transaction().await.doing(PREPARE)?;
        transaction.batch_execute(LOCK).await.doing(PREPARE)?;
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

/// Refuses a ledger of another format.
pub(crate) async fn check_format(client: &Client) -> Result<(), Error> {
    let row = client.query_typed_one("SELECT version FROM blackwater.format", &[]).await;
    match row.doing("read the ledger's format")?.get(0) {
        FORMAT => Ok(()),
        found => Err(Error::Format { found }),
    }
}

/// Asked of the tables of the catalogue: `to_regclass` may answer from what this session has cached,
/// which waiting for an advisory lock does not renew.
const EXISTS: &str = "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'blackwater' AND c.relname = 'ledger')";

/// Whether there is a ledger.
pub(crate) async fn exists(client: &Client) -> Result<bool, Error> {
    // It is prepared, which shows whether a pooler gives the session's transactions to several sessions of the server.
    Ok(client.query_one(EXISTS, &[]).await.doing("look for the ledger")?.get(0))
}

const NEWEST: &str =
    "SELECT batch, log, extracted, schema_hash, snapshot_at, applied_at, wanted, known, effective_at, pack
    FROM blackwater.ledger
    WHERE star_schema = $1 ORDER BY batch DESC LIMIT 1";

/// The newest batch applied.
pub(crate) async fn newest(client: &Client, star_schema: &str) -> Result<Option<Newest>, Error> {
    let row = client.query_typed_opt(NEWEST, &[(&star_schema, Type::TEXT)]).await.doing("read the ledger")?;
    Ok(row.map(|row| Newest {
        batch: row.get::<_, i64>(0) as u64,
        log: row.get(1),
        extracted: row.get(2),
        schema_hash: row.get(3),
        snapshot_at: row.get(4),
        applied_at: row.get(5),
        wanted: row.get(6),
        known: row.get::<_, Json<_>>(7).0,
        effective_at: row.get(8),
        pack: row.get(9),
    }))
}

/// The time of a batch in histories: that of its snapshot `at`, but after every time that was given before, also where the source's
/// clock goes back. So versions are in the order of batches, and none is empty.
pub(crate) fn effective_at(at: DateTime<Utc>, newest: Option<&Newest>, partly: &Partly) -> DateTime<Utc> {
    let given = newest.map(|newest| newest.effective_at).into_iter().chain(partly.forgotten.iter().copied());
    given.map(|given| given + TimeDelta::microseconds(1)).fold(at, Ord::max)
}

/// A line of the ledger.
pub(crate) struct Line<'a> {
    pub(crate) manifest: &'a Transformed,
    pub(crate) effective_at: DateTime<Utc>,
    pub(crate) schema_hash: &'a str,
    pub(crate) counts: Counts,
    /// The source tables whose keys are asked for: the warehouse holds more rows than there were.
    pub(crate) wanted: Vec<String>,
    /// What the warehouse knows of, by star table.
    pub(crate) known: BTreeMap<String, Known>,
}

/// Notes a batch as applied.
pub(crate) async fn add(transaction: &Transaction<'_>, star_schema: &str, line: &Line<'_>) -> Result<(), Error> {
    let Line { manifest: Transformed { head, extracted, .. }, .. } = line;
    let Line { effective_at, schema_hash, counts, wanted, known, .. } = line;
    transaction
        .execute(
            "WITH whole AS (DELETE FROM blackwater.partly WHERE star_schema = $1 RETURNING forgotten)
             INSERT INTO blackwater.ledger (star_schema, batch, log, extracted, transformed, pack, schema_hash,
                 snapshot_at, rows_inserted, rows_updated, rows_unchanged, rows_deleted, rows_released,
                 rows_quarantined, wanted, known, effective_at, forgotten)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17,
                 coalesce((SELECT forgotten FROM whole), '{}'))",
            &[
                &star_schema,
                &(head.batch as i64),
                &head.log,
                extracted,
                &head.run,
                &head.pack,
                schema_hash,
                &head.at,
                &(counts.inserted as i64),
                &(counts.updated as i64),
                &(counts.unchanged as i64),
                &(counts.deleted as i64),
                &(counts.released as i64),
                &(counts.quarantined as i64),
                wanted,
                &Json(known),
                effective_at,
            ],
        )
        .await
        .doing(format!("note batch {} in the ledger", head.batch))?;
    Ok(())
}

/// How far the next batch is, if it did not end in time before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Partly {
    /// The run of transform that made it: another pack makes other rows of the same batch.
    pub(crate) transformed: Uuid,
    /// How often it did not.
    pub(crate) tries: u32,
    /// How many of its rows are written, in the order of the star tables' foreign keys.
    pub(crate) done: u64,
    /// What became of them.
    pub(crate) counts: BTreeMap<String, Counts>,
    /// The times in histories of the parts that another pack made.
    pub(crate) forgotten: Vec<DateTime<Utc>>,
}

/// How far a batch is.
pub(crate) async fn partly(client: &Client, star_schema: &str, batch: u64) -> Result<Partly, Error> {
    let sql = "SELECT transformed, tries, done, counts, forgotten FROM blackwater.partly WHERE star_schema = $1 AND batch = $2";
    let row = client.query_typed_opt(sql, &[(&star_schema, Type::TEXT), (&(batch as i64), Type::INT8)]).await;
    let row = row.doing(format!("ask how far batch {batch} is"))?;
    Ok(row.map_or_else(Partly::default, |row| Partly {
        transformed: row.get(0),
        tries: row.get::<_, i32>(1) as u32,
        done: row.get::<_, i64>(2) as u64,
        counts: row.get::<_, Json<_>>(3).0,
        forgotten: row.get(4),
    }))
}

/// Notes that a batch did not end in time.
pub(crate) async fn note_late(client: &Client, star_schema: &str, head: &Head) -> Result<(), Error> {
    let sql = "INSERT INTO blackwater.partly AS p (star_schema, batch, transformed, tries) VALUES ($1, $2, $3, 1)
               ON CONFLICT (star_schema) DO UPDATE SET
                   batch = EXCLUDED.batch,
                   transformed = CASE WHEN p.batch = EXCLUDED.batch THEN p.transformed ELSE EXCLUDED.transformed END,
                   tries = CASE WHEN p.batch = EXCLUDED.batch THEN p.tries + 1 ELSE 1 END,
                   done = CASE WHEN p.batch = EXCLUDED.batch THEN p.done ELSE 0 END,
                   counts = CASE WHEN p.batch = EXCLUDED.batch THEN p.counts ELSE '{}' END,
                   effective_at = CASE WHEN p.batch = EXCLUDED.batch THEN p.effective_at END,
                   forgotten = CASE WHEN p.batch = EXCLUDED.batch THEN p.forgotten ELSE '{}' END";
    let noted = client.execute(sql, &[&star_schema, &(head.batch as i64), &head.run]).await;
    Ok(noted.map(drop).doing(format!("note that batch {} did not end in time", head.batch))?)
}

/// Forgets the parts of a batch that another pack made, and what they put into quarantine: it begins anew, as the run `head` made it,
/// and at a later time in histories. What they wrote is compared with what comes.
pub(crate) async fn forget_parts(client: &Client, star_schema: &str, head: &Head) -> Result<(), Error> {
    let sql = "WITH begun AS (
                   UPDATE blackwater.partly SET transformed = $3, tries = 0, done = 0, counts = '{}', effective_at = NULL,
                       forgotten = forgotten || array_remove(ARRAY[effective_at], NULL)
                   WHERE star_schema = $1),
               gone AS (DELETE FROM blackwater.quarantine WHERE star_schema = $1 AND batch = $2 RETURNING id)
               DELETE FROM blackwater.waiting_for f USING gone WHERE f.entry = gone.id";
    let forgotten = client.execute(sql, &[&star_schema, &(head.batch as i64), &head.run]).await;
    Ok(forgotten.map(drop).doing(format!("begin batch {} anew with another pack", head.batch))?)
}

/// Notes how many rows of a batch are written, and its time in histories.
pub(crate) async fn note_part(
    client: &Client,
    (star_schema, batch, at): (&str, u64, DateTime<Utc>),
    done: u64,
    counts: &BTreeMap<String, Counts>,
) -> Result<(), Error> {
    let sql =
        "UPDATE blackwater.partly SET done = $3, counts = $4, effective_at = $5 WHERE star_schema = $1 AND batch = $2";
    let noted = client.execute(sql, &[&star_schema, &(batch as i64), &(done as i64), &Json(counts), &at]).await;
    Ok(noted.map(drop).doing(format!("note how far batch {batch} is"))?)
}

/// The hash of the `schema.sql` that was applied.
pub(crate) async fn schema_file(client: &Client, star_schema: &str) -> Result<Option<String>, Error> {
    let sql = "SELECT hash FROM blackwater.schema_file WHERE star_schema = $1";
    let row =
        client.query_typed_opt(sql, &[(&star_schema, Type::TEXT)]).await.doing("ask which schema.sql is applied")?;
    Ok(row.map(|row| row.get(0)))
}

/// Notes that a `schema.sql` is applied.
pub(crate) async fn note_schema_file(client: &Client, star_schema: &str, hash: &str) -> Result<(), Error> {
    let sql = "INSERT INTO blackwater.schema_file (star_schema, hash) VALUES ($1, $2)
               ON CONFLICT (star_schema) DO UPDATE SET hash = EXCLUDED.hash, applied_at = DEFAULT";
    client.execute(sql, &[&star_schema, &hash]).await.doing("note that schema.sql is applied")?;
    Ok(())
}
