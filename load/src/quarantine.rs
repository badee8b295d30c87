//! The quarantine: rows that a star table would refuse. They are found by sets, before the upsert,
//! and wait in `blackwater.quarantine` until their key comes right or is gone.

use std::collections::BTreeMap;

use blackwater_shared::postgres::{self, Doing, ident, literal};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use tokio_postgres::Client;

use crate::Counts;
use crate::catalogue::{Column, Reference, Star};
use crate::error::Error;
use crate::star::{BATCH, PLACE, REASON, Stage, Target};

/// A row that is set aside.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// The star table.
    pub table: String,
    /// The row's key: the columns and their values, as text.
    pub key: Value,
    /// The batch that brought it.
    pub batch: u64,
    /// The source's time of the batch's snapshot.
    pub since: DateTime<Utc>,
    /// Why it is here.
    pub reason: String,
    /// The row that it refers to and that is missing, if that is the reason: constraint, table, key.
    pub reference: Option<Value>,
    /// The star row, its values as text; `None` if it could not be made.
    pub star_row: Option<Value>,
}

const ENTRIES: &str = "
    SELECT q.star_table, q.key, q.batch, l.snapshot_at, q.reason, q.reference, q.star_row
    FROM blackwater.quarantine q JOIN blackwater.ledger l USING (star_schema, batch)
    WHERE q.star_schema = $1 AND ($2 OR NOT q.discarded)
    ORDER BY q.star_table, q.batch, q.id";

/// The rows that are set aside, with those that were discarded or without.
pub(crate) async fn entries(client: &Client, star_schema: &str, discarded: bool) -> Result<Vec<Entry>, Error> {
    let rows = client.query(ENTRIES, &[&star_schema, &discarded]).await.doing("read the quarantine")?;
    let entry = |row: &tokio_postgres::Row| Entry {
        table: row.get(0),
        key: row.get(1),
        batch: row.get::<_, i64>(2) as u64,
        since: row.get(3),
        reason: row.get(4),
        reference: row.get(5),
        star_row: row.get(6),
    };
    Ok(rows.iter().map(entry).collect())
}

/// How many rows of each star table are set aside.
pub(crate) async fn by_table(client: &Client, star_schema: &str) -> Result<BTreeMap<String, u64>, Error> {
    let sql = "SELECT star_table, count(*) FROM blackwater.quarantine
               WHERE star_schema = $1 AND NOT discarded GROUP BY star_table";
    let rows = client.query(sql, &[&star_schema]).await.doing("count the rows in quarantine")?;
    Ok(rows.iter().map(|row| (row.get(0), row.get::<_, i64>(1) as u64)).collect())
}

/// Leaves the rows of a key out from now on: they count as known, and are shown and tried no more.
pub(crate) async fn discard(client: &Client, star_schema: &str, table: &str, key: &Value) -> Result<u64, Error> {
    let sql = "UPDATE blackwater.quarantine SET discarded = true
               WHERE star_schema = $1 AND star_table = $2 AND key = $3 AND NOT discarded";
    let discarded = client.execute(sql, &[&star_schema, &table, &key]).await;
    Ok(discarded.doing(format!("discard a row of {table} from quarantine"))?)
}

/// The function that asks Postgres whether a text is a value of a type: its words if it is not.
const MISFIT: &str = "
    CREATE OR REPLACE FUNCTION pg_temp.misfit(value text, kind text) RETURNS text LANGUAGE plpgsql AS $$
    BEGIN
        EXECUTE format('SELECT %L::%s', value, kind);
        RETURN NULL;
    EXCEPTION WHEN data_exception OR integrity_constraint_violation THEN
        RETURN SQLERRM;
    END $$";

impl Target<'_> {
    /// The key of a row as the quarantine has it.
    pub(crate) fn key_of(&self, row: &str) -> String {
        let text = |column: &Column| column.key_text(&format!("{row}.{}", ident(&column.name)));
        let part = |column: &&Column| format!("{}, {}", literal(&column.name), text(column));
        let parts: Vec<_> = self.key.iter().map(part).collect();
        format!("jsonb_build_object({})", parts.join(", "))
    }

    /// Tries again the rows whose missing reference is there now, or `all`, oldest first. Those that
    /// are still refused stay.
    pub(crate) async fn release(&self, all: bool) -> Result<Counts, Error> {
        let batch = self.batch;
        let doing = || self.doing("release rows of the quarantine into");
        let mut ready: Vec<_> = self.star.references.iter().map(|reference| self.is_there(reference)).collect();
        let own = self.star.references.iter().filter(|reference| reference.own);
        ready.extend(own.map(|reference| self.waits_too(reference)));
        let known: Vec<_> = self.star.references.iter().map(|reference| literal(&reference.constraint)).collect();
        ready.push(format!("q.reference->>'constraint' <> ALL (ARRAY[{}]::text[])", known.join(", ")));
        ready.extend(all.then(|| "true".to_owned()));
        let of_table = format!(
            "q.star_schema = $1 AND q.star_table = $2 AND NOT q.discarded AND ARRAY(SELECT json_object_keys(q.star_row)) = $3 AND ({})",
            ready.join(" OR ")
        );
        let names: Vec<_> = self.columns.iter().map(|column| column.name.as_str()).collect();
        // Those of a key one after another; all rows that could need each other at once.
        let rounds = format!(
            "SELECT array_agg(id) FROM (
                 SELECT q.id, dense_rank() OVER (PARTITION BY q.key ORDER BY q.batch) AS round
                 FROM blackwater.quarantine q WHERE {of_table}) r
             GROUP BY round ORDER BY round"
        );
        // A column may have got a type since that a row, as it was, does not fit.
        let rounds = batch.attempt(doing(), async || {
            Ok(batch.transaction.query(&rounds, &[&batch.schema, &self.name, &names]).await.doing(doing())?)
        });
        let rounds = rounds.await?.unwrap_or_default();
        let mut counts = Counts::default();
        if rounds.is_empty() {
            return Ok(counts);
        }
        let stage = self.rows(&[BATCH]).await?;
        let value = |column: &&Column| format!("(star_row->>{})::{}", literal(&column.name), column.stage_kind());
        let values: Vec<_> = self.columns.iter().map(value).collect();
        let take = format!(
            "WITH gone AS (DELETE FROM blackwater.quarantine WHERE id = ANY($1) RETURNING star_row, batch)
             INSERT INTO {} SELECT {}, batch::text FROM gone",
            stage.name,
            values.join(", ")
        );
        // Were they released later, they would overwrite what is newer.
        let end_older = format!(
            "DELETE FROM blackwater.quarantine q USING {} t
             WHERE (q.star_schema, q.star_table) = ($1, $2) AND q.key = {} AND q.batch < {}",
            stage.typed(),
            self.key_of("t"),
            stage.batch
        );
        for ids in rounds.iter().map(|row| row.get::<_, Vec<i64>>(0)) {
            stage.clear().await?;
            let take = async |ids: &[i64]| {
                let taken = async || Ok(batch.transaction.execute(&take, &[&ids]).await.doing(doing())?);
                batch.attempt(doing(), taken).await
            };
            if take(&ids).await?.is_none() {
                for id in &ids {
                    take(&[*id]).await?;
                }
            }
            let written = stage.land().await?;
            batch.transaction.execute(&end_older, &[&batch.schema, &self.name]).await.doing(doing())?;
            counts.add(Counts { released: written.rows(), ..written });
        }
        Ok(counts)
    }

    /// Whether the row that an entry `q` lacked waits too, in the same table: they may need each other.
    fn waits_too(&self, reference: &Reference) -> String {
        let equal = |(column, their): (&String, &String)| {
            format!("o.star_row->>{} = q.star_row->>{}", literal(their), literal(column))
        };
        let equal: Vec<_> = reference.columns.iter().zip(&reference.their_columns).map(equal).collect();
        format!(
            "q.reference->>'constraint' = {} AND EXISTS (
                 SELECT FROM blackwater.quarantine o
                 WHERE (o.star_schema, o.star_table) = ($1, $2) AND o.reference IS NOT NULL AND NOT o.discarded AND {})",
            literal(&reference.constraint),
            equal.join(" AND ")
        )
    }

    /// Whether what an entry `q` lacked is there.
    fn is_there(&self, reference: &Reference) -> String {
        let equal = |(column, their): (&String, &String)| {
            let kind = self.star.column(column).map_or("text".into(), Column::compared_kind);
            format!("r.{} = (q.star_row->>{})::{kind}", ident(their), literal(column))
        };
        let equal: Vec<_> = reference.columns.iter().zip(&reference.their_columns).map(equal).collect();
        format!(
            "q.reference->>'constraint' = {} AND EXISTS (SELECT FROM {} r WHERE {})",
            literal(&reference.constraint),
            reference.table,
            equal.join(" AND ")
        )
    }

    /// Settles what is known of the batch's keys: the rows that this batch put into quarantine. The entries
    /// of those that came right end, and those that a newer entry replaces; what waits for a reference stays
    /// beside a newer entry, if they differ: a history wants them all. What was discarded stays so while it is the
    /// same. None of the keys is filtered any more.
    pub(crate) async fn settle(&self, right: &Stage<'_>) -> Result<u64, Error> {
        let sql = format!(
            "WITH came_right AS (
                 DELETE FROM blackwater.quarantine q USING {right} t
                 WHERE (q.star_schema, q.star_table) = ($1, $2) AND q.key = {key}),
             new AS (SELECT * FROM blackwater.quarantine WHERE (star_schema, star_table, batch) = ($1, $2, $3)),
             still_discarded AS (
                 UPDATE blackwater.quarantine n SET discarded = true FROM blackwater.quarantine old
                 WHERE (n.star_schema, n.star_table, n.batch) = ($1, $2, $3) AND old.discarded AND old.batch < $3
                   AND (old.star_schema, old.star_table, old.key, old.reason) = ($1, $2, n.key, n.reason)
                   AND old.star_row::text IS NOT DISTINCT FROM n.star_row::text
                 RETURNING 1),
             replaced AS (
                 DELETE FROM blackwater.quarantine old USING new
                 WHERE (old.star_schema, old.star_table) = ($1, $2) AND new.key = old.key AND old.batch < $3
                   AND (old.reference IS NULL OR old.star_row::text = new.star_row::text AND old.batch = (
                            SELECT max(batch) FROM blackwater.quarantine o
                            WHERE (o.star_schema, o.star_table, o.key) = ($1, $2, old.key) AND o.batch < $3))),
             let_through AS (
                 DELETE FROM blackwater.filtered f
                 USING (SELECT {key} AS key FROM {right} t UNION ALL SELECT key FROM new) k
                 WHERE (f.star_schema, f.star_table) = ($1, $2) AND f.key = k.key)
             SELECT count(*) - (SELECT count(*) FROM still_discarded) FROM new",
            right = right.typed(),
            key = self.key_of("t"),
        );
        let number = self.batch.number as i64;
        let row = self.batch.transaction.query_one(&sql, &[&self.batch.schema, &self.name, &number]).await;
        Ok(row.doing(self.doing("settle the quarantine of"))?.get::<_, i64>(0) as u64)
    }
}

impl Stage<'_> {
    /// Sends to quarantine what the star table would refuse.
    pub(crate) async fn judge(&self) -> Result<(), Error> {
        self.fit().await?;
        let columns = &self.target.columns;
        let nulls = (self.target.star.columns.iter())
            .filter(|column| column.not_null && (column.computed || columns.iter().any(|c| c.name == column.name)))
            .map(|column| {
                let words = format!("{} is NULL, and the column is NOT NULL", column.name);
                (format!("{} IS NULL", ident(&column.name)), literal(&words))
            });
        let checks = self.target.star.checks.iter().map(|(name, expression)| {
            let words = format!("the CHECK constraint {name} refuses it: {expression}");
            (format!("NOT ({expression})"), literal(&words))
        });
        let refused: Vec<_> = nulls.chain(checks).collect();
        if !refused.is_empty() {
            self.set_aside(&any(&refused, PLACE, &format!("{} t", self.full()))).await?;
        }
        self.one_row_a_key().await?;
        for (constraint, columns) in self.target.star.further_keys(self.target.writing, &self.target.columns) {
            let taken = self.taken(constraint, columns);
            // What stays as it was may be in the way of others.
            while self.set_aside(&taken).await? > 0 {}
        }
        let references = &self.target.star.references;
        if !references.is_empty() {
            let dangling: Vec<_> = references.iter().map(|reference| self.dangling(reference)).collect();
            let dangling = format!("SELECT DISTINCT ON (place) * FROM ({}) q", dangling.join(" UNION ALL "));
            // What refers to a row of the same table falls with it.
            while self.set_aside(&dangling).await? > 0 && references.iter().any(|reference| reference.own) {}
        }
        Ok(())
    }

    /// Sends to quarantine what would be cut to the length or the digits of its column.
    pub(crate) async fn fit(&self) -> Result<(), Error> {
        let misfits: Vec<_> = self
            .target
            .columns
            .iter()
            .filter_map(|column| {
                let value = format!("t.{}", ident(&column.name));
                let words = literal(&format!(" does not fit {}", column.kind));
                let name = literal(&format!("{}: ", column.name));
                let fits = column.fits(&value)?;
                Some((format!("NOT ({fits})"), format!("{name} || left({value}::text, 100) || {words}")))
            })
            .collect();
        if !misfits.is_empty() {
            self.set_aside(&any(&misfits, "t.ctid", &format!("{} t", self.name))).await?;
        }
        Ok(())
    }

    /// Equal rows under one key count once; rows that differ under one key are all set aside.
    async fn one_row_a_key(&self) -> Result<(), Error> {
        let (typed, keys) = (self.typed(), postgres::idents("t.", self.target.key.iter().map(|c| &c.name)));
        let twice = format!("SELECT FROM {typed} t GROUP BY {keys} HAVING count(*) > 1 LIMIT 1");
        let doing = || self.target.doing("compare the keys of");
        let transaction = self.target.batch.transaction;
        if transaction.query_opt(&twice, &[]).await.doing(doing())?.is_none() {
            return Ok(());
        }
        let sql = format!(
            "DELETE FROM {name} WHERE ctid IN (
                 SELECT a.{PLACE} FROM {typed} a JOIN {typed} b ON {same} AND a.{PLACE} > b.{PLACE}
                 WHERE NOT (ROW({one})::record *<> ROW({other})::record))",
            name = self.name,
            same = self.target.same_key("a", "b"),
            one = self.columns("a."),
            other = self.columns("b."),
        );
        transaction.execute(&sql, &[]).await.doing(doing())?;
        let differing = format!(
            "SELECT {PLACE} AS place, 'the key occurs ' || n || ' times, with different rows' AS why,
                    NULL::jsonb AS reference
             FROM (SELECT t.{PLACE}, count(*) OVER (PARTITION BY {keys}) AS n FROM {typed} t) t WHERE n > 1"
        );
        self.set_aside(&differing).await.map(drop)
    }

    /// The rows that would agree in a further unique key with another row: of the star table, less those that are written
    /// now, or of these. They are tried again with every batch, as what refers to no known constraint.
    fn taken(&self, constraint: &str, columns: &[String]) -> String {
        let star = &self.target.quoted;
        let equal: Vec<_> = columns.iter().map(|column| format!("o.{0} = t.{0}", ident(column))).collect();
        let row = format!(
            "SELECT t.{PLACE} AS place, {shown} || ' is taken, by the unique key ' || {name} AS why,
                    jsonb_build_object('constraint', {name}) AS reference
             FROM {typed} t",
            shown = shown(columns),
            name = literal(constraint),
            typed = self.typed(),
        );
        // Each a join: an EXISTS over both would be asked for every row.
        format!(
            "SELECT DISTINCT ON (place) * FROM (
                 {row} WHERE EXISTS (SELECT FROM {typed} o WHERE {equal} AND NOT ({same}))
                 UNION ALL
                 {row} WHERE EXISTS (
                     SELECT FROM {star} o WHERE {equal} AND NOT ({same})
                     AND NOT EXISTS (SELECT FROM {typed} n WHERE {now}))) q",
            typed = self.typed(),
            equal = equal.join(" AND "),
            same = self.target.same_key("o", "t"),
            now = self.target.same_key("o", "n"),
        )
    }

    /// The rows that refer to one that is not there.
    fn dangling(&self, reference: &Reference) -> String {
        let pairs: Vec<_> = reference.columns.iter().zip(&reference.their_columns).collect();
        let each = |of: &dyn Fn(&str, &str) -> String, between: &str| {
            pairs.iter().map(|(column, their)| of(column, their)).collect::<Vec<_>>().join(between)
        };
        let equal = |row: &'static str| {
            each(&move |column, their| format!("{row}.{} = t.{}", ident(their), ident(column)), " AND ")
        };
        let own = match reference.own {
            true => format!(" AND NOT EXISTS (SELECT FROM {} o WHERE {})", self.full(), equal("o")),
            false => String::new(),
        };
        format!(
            "SELECT t.{PLACE} AS place, {shown} || ' is not in ' || {words} AS why,
                    jsonb_build_object('constraint', {constraint}, 'table', {words}, 'key', jsonb_build_object({key})) AS reference
             FROM {full} t WHERE {given} AND NOT EXISTS (SELECT FROM {table} r WHERE {equal}){own}",
            shown = shown(&reference.columns),
            words = literal(&reference.table),
            constraint = literal(&reference.constraint),
            key = each(&|column, their| format!("{}, t.{}::text", literal(their), ident(column)), ", "),
            full = self.full(),
            given = each(&|column, _| format!("t.{} IS NOT NULL", ident(column)), " AND "),
            table = reference.table,
            equal = equal("r"),
        )
    }

    /// Its rows with all columns of the star table, also those that the warehouse fills in, for a FROM
    /// clause.
    fn full(&self) -> String {
        let (mut given, mut computed) = (Vec::new(), Vec::new());
        for column in &self.target.star.columns {
            let name = ident(&column.name);
            let is_returned = self.target.columns.iter().any(|returned| returned.name == column.name);
            match &column.default {
                _ if is_returned => given.push(format!("{name}::{} AS {name}", column.kind)),
                Some(expression) if column.computed => computed.push(format!(", {expression} AS {name}")),
                Some(expression) if !column.numbered => given.push(format!("{expression} AS {name}")),
                _ => given.push(format!("NULL::{} AS {name}", column.kind)),
            }
        }
        format!(
            "(SELECT *{} FROM (SELECT ctid AS {PLACE}, {} FROM {}) i)",
            computed.concat(),
            given.join(", "),
            self.name
        )
    }

    /// Tries to write each row, to a table that is made like the star table, and sets aside those that it
    /// refuses, with Postgres' words.
    pub(crate) async fn try_each(&self) -> Result<(), Error> {
        let Target { quoted: star, batch, star: Star { columns, .. }, .. } = self.target;
        let like = format!("{}_like", self.name);
        let numbered = columns.iter().filter(|column| column.numbered).map(|column| {
            let name = ident(&column.name);
            format!("ALTER TABLE {like} ALTER {name} DROP DEFAULT, ALTER {name} DROP NOT NULL;")
        });
        let insert = format!(
            "INSERT INTO {like} ({names}) SELECT {names} FROM {} WHERE ctid = place",
            self.name,
            names = self.columns("")
        );
        let sql = format!(
            "CREATE TEMPORARY TABLE IF NOT EXISTS {like} (LIKE {star} INCLUDING DEFAULTS INCLUDING GENERATED INCLUDING CONSTRAINTS)
                 ON COMMIT DROP;
             {numbered}
             CREATE OR REPLACE FUNCTION pg_temp.refusal(place tid) RETURNS text LANGUAGE plpgsql AS $refusal$
             BEGIN
                 {insert};
                 RETURN NULL;
             EXCEPTION WHEN data_exception OR integrity_constraint_violation THEN
                 RETURN SQLERRM;
             END $refusal$",
            numbered = numbered.collect::<String>(),
        );
        let made = batch.transaction.batch_execute(&sql).await;
        made.doing(self.target.doing("try each row of"))?;
        let refused = format!(
            "SELECT ctid AS place, why, NULL::jsonb AS reference
             FROM (SELECT ctid, pg_temp.refusal(ctid) AS why FROM {} OFFSET 0) t WHERE why IS NOT NULL",
            self.name
        );
        self.set_aside(&refused).await.map(drop)
    }

    /// Moves the rows that a query names as (place, why, reference) to quarantine: their number.
    async fn set_aside(&self, bad: &str) -> Result<u64, Error> {
        self.move_aside(&self.name, bad).await
    }

    async fn move_aside(&self, from: &str, bad: &str) -> Result<u64, Error> {
        let target = self.target;
        let names: Vec<_> = target.columns.iter().map(|column| literal(&column.name)).collect();
        let values: Vec<_> = target.columns.iter().map(|column| format!("t.{}::text", ident(&column.name))).collect();
        let sql = format!(
            "WITH bad AS ({bad}),
             gone AS (
                 DELETE FROM {from} t USING bad WHERE t.ctid = bad.place
                 RETURNING bad.place, {key} AS key, {of_batch} AS batch, {why} AS why, bad.reference, json_object(ARRAY[{names}], ARRAY[{values}]) AS star_row)
             INSERT INTO blackwater.quarantine (star_schema, star_table, key, batch, reason, reference, star_row)
             SELECT $1, $2, key, batch, why, reference, star_row FROM gone ORDER BY place",
            key = target.key_of("t"),
            of_batch = self.batch,
            why = self.why(),
            names = names.join(", "),
            values = values.join(", "),
        );
        let moved = target.batch.transaction.execute(&sql, &[&target.batch.schema, &target.name]).await;
        Ok(moved.doing(target.doing("set aside rows of"))?)
    }

    /// Moves the rows of `text`, where the columns are of type text, to quarantine that hold something
    /// which is no value of the column's type.
    pub(crate) async fn set_misfits_aside(&self, text: &str) -> Result<(), Error> {
        let doing = || self.target.doing("find what does not fit in");
        self.target.batch.transaction.batch_execute(MISFIT).await.doing(doing())?;
        let mut misfits = Vec::new();
        for column in self.target.columns.iter().filter(|column| column.stage_kind() != "text") {
            let (name, kind) = (ident(&column.name), column.stage_kind());
            // To ask for each value takes long.
            let all = format!("SELECT count({name}::{kind}) FROM {text}");
            let transaction = self.target.batch.transaction;
            let attempt =
                self.target.batch.attempt(doing(), async || Ok(transaction.batch_execute(&all).await.doing(doing())?));
            if attempt.await?.is_none() {
                let misfit = format!("pg_temp.misfit(t.{name}, {})", literal(&kind));
                let words = literal(&format!("{}: ", column.name));
                misfits.push((format!("{misfit} IS NOT NULL"), format!("{words} || {misfit}")));
            }
        }
        self.move_aside(text, &any(&misfits, "t.ctid", &format!("{text} t"))).await.map(drop)
    }

    /// Puts the rows of a stage of keys into quarantine, with the reasons that came with them.
    pub(crate) async fn quarantine(&self) -> Result<(), Error> {
        let target = self.target;
        let sql = format!(
            "INSERT INTO blackwater.quarantine (star_schema, star_table, key, batch, reason)
             SELECT $1, $2, {}, {}, t.{REASON} FROM {} t",
            target.key_of("t"),
            self.batch,
            self.name
        );
        let written = target.batch.transaction.execute(&sql, &[&target.batch.schema, &target.name]).await;
        written.doing(target.doing("set aside rows of")).map(drop).map_err(Into::into)
    }
}

/// The values of a row `t` in these columns, as a text in SQL.
fn shown(columns: &[String]) -> String {
    let value = |column: &String| format!("{} || t.{}::text", literal(&format!("{column} = ")), ident(column));
    columns.iter().map(value).collect::<Vec<_>>().join(" || ', ' || ")
}

/// The query for the rows in which one of several conditions holds, with the words for each.
fn any(refused: &[(String, String)], place: &str, from: &str) -> String {
    let words: Vec<_> =
        refused.iter().map(|(condition, why)| format!("CASE WHEN {condition} THEN {why} END")).collect();
    let conditions: Vec<_> = refused.iter().map(|(condition, _)| format!("({condition})")).collect();
    let (words, conditions) = match refused.is_empty() {
        true => ("NULL".into(), "false".into()),
        false => (words.join(", "), conditions.join(" OR ")),
    };
    format!(
        "SELECT {place} AS place, concat_ws('; ', {words}) AS why, NULL::jsonb AS reference FROM {from} WHERE {conditions}"
    )
}
