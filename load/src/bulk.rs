//! Large batches: Postgres checks a foreign key with a trigger for each row, which takes ten times as long as writing the row.
//! Load finds the rows that refer to nothing by sets, so where a batch is large beside its star table, the table's foreign keys are
//! taken down while it is written.
//!
//! This takes three transactions, so that readers wait for none of them: one drops the keys, in milliseconds and only if nobody
//! is in the way; that of the batch adds them again, NOT VALID, which binds what is written from then on; the third has Postgres
//! look at the rows that are there. Where all rows of the batch are new, its own transaction does that too. What is taken down
//! stands in `blackwater.taken_down`, so whoever comes after a crash puts it back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use blackwater_base::deadline::Deadline;
use blackwater_shared::postgres::{self, Doing, ident, literal, qualified};
use deadpool_postgres::{Object, Transaction};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{Json, Type};

use crate::apply::{self, Batch};
use crate::catalogue::{self, Reference, Star, Writing};
use crate::error::Error;
use crate::reject::rows::may_be_a_rows_fault;
use crate::target::Target;
use crate::warehouse::{Parameters, Warehouse};
use crate::{ledger, part};

/// A batch is large from so many rows of a star table on …
const ROWS: u64 = 20_000;
/// … if they are one of so many rows that it has then. To look at a row that is there takes a thirtieth of the time that a
/// trigger takes for a new one.
const SHARE: u64 = 20;
/// How often the locks are tried. Nobody waits behind a try.
const TRIES: u32 = 20;
const BETWEEN_TRIES: Duration = Duration::from_millis(500);

/// A foreign key that is taken down.
#[derive(Debug)]
struct Key {
    /// The star table.
    table: String,
    name: String,
    /// The table that it refers to, quoted.
    other: String,
    /// `FOREIGN KEY …`, as Postgres prints it, without NOT VALID.
    definition: String,
    comment: Option<String>,
    was_valid: bool,
}

/// Takes down the foreign keys of the star tables that a batch makes much larger: whether there were any.
pub(crate) async fn take_down(client: &mut Object, batch: &Batch<'_>) -> Result<bool, Error> {
    let head = &batch.manifest.head;
    let rows = |name: &String| batch.manifest.tables[name].rows();
    let large: Vec<_> = batch.manifest.tables.keys().filter(|name| rows(name) >= ROWS).collect();
    if large.is_empty() {
        return Ok(false);
    }
    let doing = || format!("take down foreign keys for batch {}", head.batch);
    let transaction = client.transaction().await.doing(doing())?;
    let warehouse = Warehouse::begin(&transaction, batch.schema, (head.batch, head.at), batch.deadline).await?;
    let is_next = ledger::try_lock(transaction.client(), batch.schema).await?
        && ledger::newest(transaction.client(), batch.schema).await?.map_or(0, |newest| newest.batch) + 1 == head.batch;
    let partly = ledger::partly(transaction.client(), batch.schema, head.batch).await?;
    if !is_next || part::is_cut(&partly, batch.deadline.left().is_some()) {
        return Ok(false);
    }
    let names: Vec<_> = batch.manifest.tables.keys().map(String::as_str).collect();
    let stars = catalogue::read(&transaction, batch.schema, &names).await?;
    let targets = apply::targets((head.batch, batch.schema), &batch.manifest.tables, &stars)?;
    let mut foreseen = BTreeMap::new();
    for group in apply::groups(&targets) {
        for target in &group {
            foreseen.insert(target.name, foreseen_keys(target, &group, &targets));
        }
    }
    let mut keys = Vec::new();
    for row in transaction.query(KEYS, &[&batch.schema, &large]).await.doing(doing())? {
        let (table, name): (String, String) = (row.get("table"), row.get("name"));
        let there = row.get::<_, i64>("rows") as u64;
        if (there + rows(&table)) / SHARE > rows(&table) {
            continue;
        }
        if let Some(reference) = foreseen.get(table.as_str()).and_then(|foreseen| foreseen.get(name.as_str())) {
            let (definition, was_valid): (&str, bool) = (row.get("definition"), row.get("valid"));
            let definition = definition.trim_end_matches(" NOT VALID").to_owned();
            let (other, comment) = (row.get("other"), row.get("comment"));
            keys.push((Key { table, name, other, definition, comment, was_valid }, *reference));
        }
    }
    if keys.is_empty() || !lock(&warehouse, keys.iter().map(|(key, _)| key)).await? {
        return Ok(false);
    }
    for (key, reference) in &keys {
        let Key { table, name, other, definition, comment, was_valid } = key;
        let note = "INSERT INTO blackwater.taken_down (star_schema, star_table, name, other, definition, comment, was_valid, reference)
                    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
                    ON CONFLICT (star_schema, star_table, name) DO UPDATE SET is_down = true";
        let parameters: Parameters<'_> = &[
            (&batch.schema, Type::TEXT),
            (table, Type::TEXT),
            (name, Type::TEXT),
            (other, Type::TEXT),
            (definition, Type::TEXT),
            (comment, Type::TEXT),
            (was_valid, Type::BOOL),
            (&Json(reference), Type::JSONB),
        ];
        warehouse.execute(doing(), note, parameters).await?;
        let drop = format!("ALTER TABLE {} DROP CONSTRAINT {}", qualified(batch.schema, table), ident(name));
        warehouse.run(format!("take down the foreign key {name} of {table}"), &drop).await?;
    }
    tracing::info!(batch = head.batch, keys = keys.len(), "foreign keys are taken down");
    transaction.commit().await.doing(doing())?;
    Ok(true)
}

/// The foreign keys that could be taken down, with a rough number of the rows that their tables have. A trigger may change what a row refers
/// to, and MATCH FULL refuses more than what is missing: Postgres has to look at such rows itself. What somebody disabled stays so.
const KEYS: &str = "
    SELECT c.relname::text AS table, o.conname::text AS name, o.confrelid::regclass::text AS other,
           pg_get_constraintdef(o.oid) AS definition, obj_description(o.oid, 'pg_constraint') AS comment, o.convalidated AS valid,
           CASE WHEN c.reltuples < 0 THEN pg_relation_size(c.oid) / 100 ELSE c.reltuples::bigint END AS rows
    FROM pg_constraint o JOIN pg_class c ON c.oid = o.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_class d ON d.oid = o.confrelid
    WHERE n.nspname = $1 AND c.relname = ANY ($2) AND o.contype = 'f' AND o.confmatchtype = 's'
      AND c.relkind = 'r' AND d.relkind = 'r' AND o.conparentid = 0 AND o.conislocal
      AND coalesce((to_jsonb(o)->>'conenforced')::boolean, true)
      AND pg_has_role(c.relowner, 'USAGE') AND has_table_privilege(d.oid, 'REFERENCES') AND has_table_privilege(d.oid, 'UPDATE')
      AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal)
      AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgconstraint = o.oid AND t.tgenabled <> 'O')
    ORDER BY 1, 2";

/// The foreign keys by which load finds all rows that refer to nothing: the model returns their columns, and what they lead to does
/// not change, or is not written by load.
fn foreseen_keys<'t>(
    target: &Target<'t>,
    group: &[&Target<'_>],
    targets: &[Target<'_>],
) -> BTreeMap<&'t str, &'t Reference> {
    let is_foreseen = |reference: &Reference| {
        let other = targets.iter().find(|other| reference.star_table.as_deref() == Some(other.name));
        let is_fixed = other.is_none_or(|other| match other.writing {
            Writing::Upsert(key) => key.iter().collect::<BTreeSet<_>>() == reference.their_columns.iter().collect(),
            Writing::History => false,
        });
        let is_inner = group.iter().any(|other| reference.star_table.as_deref() == Some(other.name));
        let is_returned = |name: &String| target.columns.iter().any(|column| column.name == *name);
        is_fixed && !is_inner && reference.columns.iter().all(is_returned)
    };
    let foreseen = target.references().map(|(_, reference)| reference).filter(|reference| is_foreseen(reference));
    foreseen.map(|reference| (reference.constraint.as_str(), reference)).collect()
}

/// Locks the tables that foreign keys are about, against readers too, if nobody uses them.
async fn lock(warehouse: &Warehouse<'_>, keys: impl Iterator<Item = &Key>) -> Result<bool, Error> {
    let lock = format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE NOWAIT", tables(warehouse.schema, keys));
    for attempt in 1..=TRIES {
        warehouse.savepoint("locks");
        match warehouse.transaction.batch_execute(&lock).await {
            Ok(()) => {
                warehouse.release("locks");
                return Ok(true);
            }
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => warehouse.undo("locks"),
            Err(error) => return Err(error).doing("lock the tables that foreign keys are about")?,
        }
        if attempt < TRIES {
            tokio::time::sleep(BETWEEN_TRIES).await;
        }
    }
    tracing::info!(batch = warehouse.batch, "others use the star tables: their foreign keys stay");
    Ok(false)
}

/// Adds the references of foreign keys that are taken down: whether there are any.
pub(crate) async fn add_references(
    transaction: &Transaction<'_>,
    schema: &str,
    stars: &mut BTreeMap<String, Star>,
) -> Result<bool, Error> {
    let sql =
        "SELECT star_table, reference FROM blackwater.taken_down WHERE star_schema = $1 AND is_down ORDER BY name";
    let rows = transaction.query_typed(sql, &[(&schema, Type::TEXT)]).await;
    let rows = rows.doing("read which foreign keys are taken down")?;
    for row in &rows {
        let Some(star) = stars.get_mut(row.get::<_, &str>(0)) else { continue };
        let Json(reference): Json<Reference> = row.get(1);
        if star.references.iter().all(|known| known.constraint != reference.constraint) {
            star.references.push(reference);
        }
    }
    Ok(!rows.is_empty())
}

/// The tables that foreign keys are about, for LOCK TABLE.
fn tables<'k>(schema: &str, keys: impl Iterator<Item = &'k Key>) -> String {
    let tables: BTreeSet<_> = keys
        .flat_map(|key| [qualified(schema, &key.table), key.other.clone()])
        .map(|table| format!("ONLY {table}"))
        .collect();
    tables.into_iter().collect::<Vec<_>>().join(", ")
}

/// Keeps all others from writing to the tables whose foreign keys are taken down; readers may read.
pub(crate) async fn keep_writers_out(warehouse: &Warehouse<'_>) -> Result<(), Error> {
    let keys = down(warehouse.transaction, warehouse.schema, true).await?;
    if keys.is_empty() {
        return Ok(());
    }
    let lock = format!("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE", tables(warehouse.schema, keys.iter()));
    warehouse.run("lock the tables whose foreign keys are taken down", &lock).await
}

/// The foreign keys that are taken down, or those that are back and NOT VALID.
async fn down(transaction: &Transaction<'_>, schema: &str, is_down: bool) -> Result<Vec<Key>, Error> {
    let sql = "SELECT star_table, name, other, definition, comment, was_valid FROM blackwater.taken_down
               WHERE star_schema = $1 AND is_down = $2 ORDER BY star_table, name";
    let parameters: Parameters<'_> = &[(&schema, Type::TEXT), (&is_down, Type::BOOL)];
    let rows = transaction.query_typed(sql, parameters).await.doing("read which foreign keys are taken down")?;
    let key = |row: &tokio_postgres::Row| Key {
        table: row.get(0),
        name: row.get(1),
        other: row.get(2),
        definition: row.get(3),
        comment: row.get(4),
        was_valid: row.get(5),
    };
    Ok(rows.iter().map(key).collect())
}

/// Whether all foreign keys of a star table are taken down, and held for all its rows before.
pub(crate) async fn are_all_down(warehouse: &Warehouse<'_>, target: &Target<'_>) -> Result<bool, Error> {
    let keys = down(warehouse.transaction, warehouse.schema, true).await?;
    let is_down = |reference: &Reference| {
        keys.iter().any(|key| key.was_valid && key.table == target.name && key.name == reference.constraint)
    };
    Ok(!target.star.references.is_empty() && target.star.references.iter().all(is_down))
}

/// Adds the foreign keys of a star table again, and has Postgres look at all its rows: it fails if one refers to nothing.
pub(crate) async fn put_back_valid(warehouse: &Warehouse<'_>, target: &Target<'_>) -> Result<(), Error> {
    let keys = down(warehouse.transaction, warehouse.schema, true).await?;
    for key in keys.iter().filter(|key| key.table == target.name) {
        warehouse.run(warehouse.doing("put back the foreign keys of", target), &add(warehouse.schema, key, "")).await?;
    }
    let done = "DELETE FROM blackwater.taken_down WHERE star_schema = $1 AND star_table = $2";
    let parameters: Parameters<'_> = &[(&warehouse.schema, Type::TEXT), (&target.name, Type::TEXT)];
    warehouse.execute("note that foreign keys are back", done, parameters).await.map(drop)
}

/// The statements that add a foreign key.
fn add(schema: &str, key: &Key, validity: &str) -> String {
    let (table, name) = (qualified(schema, &key.table), ident(&key.name));
    let comment = key.comment.as_deref().map_or("NULL".into(), literal);
    format!(
        "SET CONSTRAINTS ALL IMMEDIATE; ALTER TABLE {table} ADD CONSTRAINT {name} {}{validity};
         COMMENT ON CONSTRAINT {name} ON {table} IS {comment}; SET CONSTRAINTS ALL DEFERRED",
        key.definition
    )
}

/// Adds the foreign keys again that are taken down, for what is written from now on.
pub(crate) async fn put_back(transaction: &Transaction<'_>, schema: &str) -> Result<(), Error> {
    for key in down(transaction, schema, true).await? {
        let doing = || format!("put back the foreign key {} of {}", key.name, key.table);
        // schema.sql may have dropped the table, or added the key.
        let state = "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                                    WHERE n.nspname = $1 AND c.relname = $2),
                            EXISTS (SELECT FROM pg_constraint o JOIN pg_class c ON c.oid = o.conrelid
                                    JOIN pg_namespace n ON n.oid = c.relnamespace
                                    WHERE n.nspname = $1 AND c.relname = $2 AND o.conname = $3)";
        let state = transaction.query_one(state, &[&schema, &key.table, &key.name]).await.doing(doing())?;
        if state.get(0) && !state.get::<_, bool>(1) {
            transaction.batch_execute("SAVEPOINT key").await.doing(doing())?;
            match transaction.batch_execute(&add(schema, &key, " NOT VALID")).await {
                Ok(()) => transaction.batch_execute("RELEASE key").await.doing(doing())?,
                // What it refers to was dropped or changed meanwhile. Nothing else waits for it.
                Err(error) if error.code().is_some_and(|code| may_be_a_rows_fault(code.code())) => {
                    tracing::warn!(
                        "the foreign key {} of {} cannot be put back: {}\nIf it is still wanted: ALTER TABLE {} ADD CONSTRAINT {} {}",
                        key.name,
                        key.table,
                        postgres::explain(&error),
                        qualified(schema, &key.table),
                        ident(&key.name),
                        key.definition
                    );
                    let gone =
                        "DELETE FROM blackwater.taken_down WHERE star_schema = $1 AND star_table = $2 AND name = $3";
                    transaction.batch_execute("ROLLBACK TO key").await.doing(doing())?;
                    transaction.execute(gone, &[&schema, &key.table, &key.name]).await.doing(doing())?;
                }
                Err(error) => return Err(error).doing(doing())?,
            }
        }
    }
    let sql = "UPDATE blackwater.taken_down SET is_down = false WHERE star_schema = $1 AND is_down";
    transaction.execute_typed(sql, &[(&schema, Type::TEXT)]).await.doing("note that foreign keys are back")?;
    Ok(())
}

/// Has Postgres look at the rows that were written while foreign keys were taken down: what a person should know. What cannot be
/// looked at now is with the next run.
pub(crate) async fn validate(client: &mut Object, schema: &str, deadline: Deadline) -> Result<Vec<String>, Error> {
    let doing = "look at the rows of foreign keys that are back";
    let transaction = client.transaction().await.doing(doing)?;
    let keys = down(&transaction, schema, false).await?;
    transaction.rollback().await.doing(doing)?;
    let mut notices = Vec::new();
    for Key { table, name, was_valid, .. } in keys {
        let transaction = client.transaction().await.doing(doing)?;
        let warehouse = Warehouse::begin(&transaction, schema, (0, chrono::Utc::now()), deadline).await?;
        let lock = "SELECT pg_try_advisory_xact_lock(hashtextextended('blackwater validates ' || $1, 0))";
        if !transaction.query_one(lock, &[&schema]).await.doing(doing)?.get::<_, bool>(0) {
            // Another load looks at them.
            break;
        }
        if was_valid {
            let validate = format!("ALTER TABLE {} VALIDATE CONSTRAINT {}", qualified(schema, &table), ident(&name));
            warehouse.savepoint("validate");
            match transaction.batch_execute(&validate).await {
                Ok(()) => warehouse.release("validate"),
                Err(error) if error.as_db_error().is_none() => {
                    return Err(error).doing(format!("look at the rows of {table} for {name}"))?;
                }
                Err(error) => {
                    warehouse.undo("validate");
                    let why = postgres::explain(&error);
                    match error.code() {
                        // The other load took it down again, or schema.sql dropped it.
                        Some(&SqlState::UNDEFINED_OBJECT | &SqlState::UNDEFINED_TABLE) => {}
                        Some(&SqlState::FOREIGN_KEY_VIOLATION) => notices.push(format!(
                            "the foreign key {name} of {table} does not hold for all rows any more, and is NOT VALID now: {why}\n\
                             Something else wrote to the tables. Put the rows right, then {validate}"
                        )),
                        _ => {
                            tracing::warn!("the foreign key {name} of {table} is NOT VALID until the next run: {why}");
                            continue;
                        }
                    }
                }
            }
        }
        let done = "DELETE FROM blackwater.taken_down WHERE star_schema = $1 AND star_table = $2 AND name = $3 AND NOT is_down";
        let parameters: Parameters<'_> = &[(&schema, Type::TEXT), (&table, Type::TEXT), (&name, Type::TEXT)];
        warehouse.execute(doing, done, parameters).await?;
        transaction.commit().await.doing(doing)?;
    }
    Ok(notices)
}

/// The foreign keys that are taken down, or not valid again, as `table.key`.
pub(crate) async fn taken_down(client: &Client, schema: &str) -> Result<Vec<String>, Error> {
    let sql = "SELECT star_table || '.' || name FROM blackwater.taken_down WHERE star_schema = $1 ORDER BY 1";
    let rows =
        client.query_typed(sql, &[(&schema, Type::TEXT)]).await.doing("read which foreign keys are taken down")?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Puts back what a run left that was killed, or failed. Where another load is at work, that one will.
pub(crate) async fn recover(client: &mut Object, schema: &str, deadline: Deadline) -> Result<(), Error> {
    let doing = "put back foreign keys that an earlier run took down";
    if taken_down(client, schema).await?.is_empty() {
        return Ok(());
    }
    let transaction = client.transaction().await.doing(doing)?;
    if !ledger::try_lock(transaction.client(), schema).await? {
        return Ok(());
    }
    put_back(&transaction, schema).await?;
    transaction.commit().await.doing(doing)?;
    for notice in validate(client, schema, deadline).await? {
        tracing::warn!("{notice}");
    }
    Ok(())
}
