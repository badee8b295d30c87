//! Rows that the source no longer has, or that a model no longer lets through. They are found by
//! keys, and the keys are asked for when counts differ: those that the warehouse holds are a superset
//! of the source's, so equal counts mean equal sets.

use blackwater_shared::postgres::{Doing, ident, literal};

use crate::catalogue::{Column, DELETED_AT};
use crate::error::Error;
use crate::star::{Stage, Target};

impl Target<'_> {
    /// Marks the rows of the star table as deleted whose key is in `keys`, or is not: their number.
    async fn mark(&self, keys: &Stage<'_>, are_in: bool) -> Result<u64, Error> {
        if !self.star.marks_deletions() {
            return Ok(0);
        }
        let exists = if are_in { "EXISTS" } else { "NOT EXISTS" };
        let key = |column: &Column| format!("t.{}", ident(&column.name));
        let newest = self.is_newest().map(|condition| format!("FROM blackwater.version v WHERE {condition} AND"));
        let sql = format!(
            "UPDATE {star} s SET {DELETED_AT} = $1 {newest} s.{DELETED_AT} IS NULL
             AND {exists} (SELECT FROM {keys} t WHERE {same})",
            star = self.quoted,
            newest = newest.as_deref().unwrap_or("WHERE"),
            keys = keys.typed(),
            same = self.has_key(key, key),
        );
        let marked = self.batch.transaction.execute(&sql, &[&self.batch.at]).await;
        Ok(marked.doing(self.doing("mark the deleted rows of"))?)
    }

    /// Takes out of the star table what its model no longer lets through: the number of rows.
    pub(crate) async fn filter(&self, filtered: &Stage<'_>) -> Result<u64, Error> {
        let (batch, doing) = (self.batch, || self.doing("note what is not let through into"));
        let marked = self.mark(filtered, true).await?;
        let (typed, key) = (filtered.typed(), self.key_of("t"));
        for sql in [
            format!(
                "DELETE FROM blackwater.quarantine q USING {typed} t
                 WHERE q.star_schema = $1 AND q.star_table = $2 AND q.key = {key}"
            ),
            format!(
                "INSERT INTO blackwater.filtered (star_schema, star_table, key) SELECT $1, $2, {key} FROM {typed} t
                 ON CONFLICT DO NOTHING"
            ),
        ] {
            batch.transaction.execute(&sql, &[&batch.schema, &self.name]).await.doing(doing())?;
        }
        Ok(marked)
    }

    /// Marks as deleted what is not among the source's `keys`: the number of rows.
    pub(crate) async fn delete_all_but(&self, keys: &Stage<'_>) -> Result<u64, Error> {
        let batch = self.batch;
        for table in ["quarantine", "filtered"] {
            let sql = format!(
                "DELETE FROM blackwater.{table} q WHERE q.star_schema = $1 AND q.star_table = $2
                 AND NOT EXISTS (SELECT FROM {} t WHERE {} = q.key)",
                keys.typed(),
                self.key_of("t"),
            );
            let gone = batch.transaction.execute(&sql, &[&batch.schema, &self.name]).await;
            gone.doing(self.doing("compare the keys of"))?;
        }
        self.mark(keys, false).await
    }

    /// The query for the number of source rows that the warehouse knows of: in the star table, in quarantine,
    /// and those that the model does not let through. `None` if deletions cannot be marked.
    pub(crate) fn held(&self) -> Option<String> {
        if !self.star.marks_deletions() {
            return None;
        }
        let live = self.live();
        let value = |column: &Column| format!("q.key->>{}", literal(&column.name));
        let equal = self.has_key(value, |column| format!("({})::{}", value(column), column.compared_kind()));
        let of_table = format!("star_schema = {} AND star_table = {}", literal(self.batch.schema), literal(self.name));
        Some(format!(
            "SELECT (SELECT count(*) FROM {live}) + (SELECT count(*) FROM blackwater.filtered WHERE {of_table}) + (
                 SELECT count(DISTINCT q.key) FROM blackwater.quarantine q
                 WHERE {of_table} AND NOT EXISTS (SELECT FROM {live} AND {equal}))",
        ))
    }
}
