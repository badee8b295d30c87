//! What the warehouse's own catalogue says of the star tables: it is the contract, and nothing of
//! it is repeated in a configuration.

use std::collections::{BTreeMap, BTreeSet};

use blackwater_shared::postgres::Doing;
use deadpool_postgres::Transaction;

use crate::error::Error;

/// A star table.
pub(crate) struct Star {
    pub(crate) columns: BTreeSet<String>,
    /// The primary key's columns.
    primary: Vec<String>,
    /// The columns of every other unique key that is NOT NULL, not partial, and of plain columns.
    unique: Vec<Vec<String>>,
    /// Whether the warehouse generates the primary key (sequence or identity).
    generated: bool,
}

/// How rows get into a star table.
pub(crate) enum Writing<'a> {
    /// One row for each value of the key, the latest.
    Upsert(&'a [String]),
    /// A new row for each version; the warehouse numbers them in the column `record`.
    History { record: &'a str },
}

impl Star {
    /// The column that numbers the versions, if a model that returns `columns` makes it a history.
    pub(crate) fn record(&self, columns: &[String]) -> Option<&str> {
        match self.writing(columns) {
            Ok(Writing::History { record }) => Some(record),
            _ => None,
        }
    }

    /// How rows of `columns` are written: by the primary key, or by the only unique key, or as a
    /// history.
    pub(crate) fn writing(&self, columns: &[String]) -> Result<Writing<'_>, String> {
        let returned = |key: &[String]| !key.is_empty() && key.iter().all(|column| columns.contains(column));
        if returned(&self.primary) {
            return Ok(Writing::Upsert(&self.primary));
        }
        let mut fitting = self.unique.iter().filter(|key| returned(key));
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Ok(Writing::Upsert(key)),
            (Some(one), Some(other)) => Err(format!(
                "the model returns two unique keys, ({}) and ({}). Keep one",
                one.join(", "),
                other.join(", ")
            )),
            (None, _) => match (self.generated, self.primary.as_slice()) {
                (true, [record]) => Ok(Writing::History { record }),
                _ => {
                    Err("the model returns no primary or unique key of it. Give it one, NOT NULL, in schema.sql".into())
                }
            },
        }
    }
}

/// Reads the catalogue of the tables; what is missing there is missing in the answer.
pub(crate) async fn read(
    transaction: &Transaction<'_>,
    schema: &str,
    tables: &[&str],
) -> Result<BTreeMap<String, Star>, Error> {
    let doing = "read the warehouse's catalogue";
    let mut stars: BTreeMap<String, Star> = BTreeMap::new();
    for row in transaction.query(COLUMNS, &[&schema, &tables]).await.doing(doing)? {
        let (table, columns): (String, Vec<String>) = (row.get(0), row.get(1));
        let columns = columns.into_iter().collect();
        stars.insert(table, Star { columns, primary: Vec::new(), unique: Vec::new(), generated: false });
    }
    for row in transaction.query(KEYS, &[&schema, &tables]).await.doing(doing)? {
        let Some(star) = stars.get_mut(row.get::<_, &str>(0)) else { continue };
        match row.get(1) {
            true => (star.primary, star.generated) = (row.get(2), row.get(3)),
            false => star.unique.push(row.get(2)),
        }
    }
    Ok(stars)
}

/// The tables in the order of their foreign keys: what is referred to comes first. Within a cycle
/// the order is that of the names; its constraints must be deferrable.
pub(crate) async fn in_order<'a>(
    transaction: &Transaction<'_>,
    schema: &str,
    tables: &[&'a str],
) -> Result<Vec<&'a str>, Error> {
    let rows = transaction.query(REFERENCES, &[&schema, &tables]).await.doing("read the warehouse's foreign keys")?;
    let references: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    Ok(sorted(tables, &references))
}

fn sorted<'a>(tables: &[&'a str], references: &[(String, String)]) -> Vec<&'a str> {
    let mut left: BTreeSet<&str> = tables.iter().copied().collect();
    let mut order = Vec::new();
    while let Some(first) = left.first().copied() {
        let waits =
            |table: &str| references.iter().any(|(from, to)| from == table && from != to && left.contains(to.as_str()));
        let next = left.iter().copied().find(|table| !waits(table)).unwrap_or(first);
        left.remove(next);
        order.push(next);
    }
    order
}

const COLUMNS: &str = "
    SELECT c.relname::text, array_agg(a.attname::text)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE n.nspname = $1 AND c.relname = ANY($2) AND c.relkind = 'r'
    GROUP BY 1";

/// (table, whether it is the primary key, its columns, whether the warehouse generates one).
const KEYS: &str = "
    SELECT c.relname::text, i.indisprimary, array_agg(a.attname::text ORDER BY k.place),
           bool_or(a.attidentity <> '' OR coalesce(pg_get_expr(d.adbin, d.adrelid) LIKE 'nextval(%', false))
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_index i ON i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate
                   AND i.indpred IS NULL AND i.indexprs IS NULL
    CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY AS k (number, place)
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.number
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE n.nspname = $1 AND c.relname = ANY($2) AND k.place <= i.indnkeyatts
    GROUP BY c.relname, i.indexrelid, i.indisprimary
    HAVING bool_and(a.attnotnull)
    ORDER BY 1, 3";

const REFERENCES: &str = "
    SELECT DISTINCT f.relname::text, t.relname::text
    FROM pg_constraint c JOIN pg_class f ON f.oid = c.conrelid JOIN pg_class t ON t.oid = c.confrelid
    JOIN pg_namespace n ON n.oid = f.relnamespace
    WHERE c.contype = 'f' AND n.nspname = $1 AND t.relnamespace = f.relnamespace
      AND f.relname = ANY($2) AND t.relname = ANY($2)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_comes_after_those_that_it_refers_to() {
        let refers = |from: &str, to: &str| (from.to_owned(), to.to_owned());
        let references = [refers("a", "c"), refers("b", "a"), refers("c", "c")];
        assert_eq!(sorted(&["a", "b", "c", "d"], &references), ["c", "a", "b", "d"]);
        let cycle = [refers("a", "b"), refers("b", "a")];
        assert_eq!(sorted(&["a", "b"], &cycle), ["a", "b"]);
    }
}
