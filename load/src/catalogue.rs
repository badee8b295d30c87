//! What the warehouse's own catalogue says of the star tables: it is the contract, and nothing of
//! it is repeated in a configuration.

#[allow(dead_code, reason = "verify does not use Comparison yet")]
mod pg_type;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use blackwater_shared::manifest::StarTable;
use blackwater_shared::postgres::Doing;
use deadpool_postgres::Transaction;

use crate::error::Error;
use crate::view;
use pg_type::PgType;

/// The column in which deletions are marked.
pub(crate) const DELETED_AT: &str = "deleted_at";

/// The bytes of the longest name.
const NAME: usize = 63;

/// A star table.
#[derive(Default)]
pub(crate) struct Star {
    /// Its columns, in order.
    pub(crate) columns: Vec<Column>,
    /// Its CHECK constraints: name and expression.
    pub(crate) checks: Vec<(String, String)>,
    /// The CHECK constraints that speak of the row as a whole or of a system column.
    unjudged: Vec<String>,
    /// Its foreign keys.
    pub(crate) references: Vec<Reference>,
    /// The primary key's columns.
    primary: Vec<String>,
    /// The columns of every other unique key that is NOT NULL, not partial, and of plain columns.
    unique: Vec<Vec<String>>,
    /// Whether the warehouse generates the primary key (sequence or identity).
    generated: bool,
    /// Its indexes: the columns of each in order, and whether it lets no two rows agree at once.
    indexes: Vec<(Vec<String>, bool)>,
    /// Its unique keys of plain columns, the deferrable ones too: name and columns.
    keys: Vec<(String, Vec<String>)>,
    /// Whether this role may read and write it.
    pub(crate) is_writable: bool,
}

/// A column of a star table.
pub(crate) struct Column {
    pub(crate) name: String,
    /// Its type, as Postgres prints it.
    pub(crate) kind: String,
    /// The type under its domains, also under those of an array's elements; of others, the same.
    base: PgType,
    pub(crate) not_null: bool,
    /// What it is when nothing is given: an expression of SQL.
    pub(crate) default: Option<String>,
    /// Whether it is computed from others (GENERATED … STORED), by `default`.
    pub(crate) computed: bool,
    /// Whether a sequence fills it.
    pub(crate) numbered: bool,
    /// `COLLATE …`, where it is not its type's own.
    pub(crate) collation: String,
    /// Whether its collation takes texts for equal that differ.
    is_loose: bool,
}

/// A foreign key.
pub(crate) struct Reference {
    pub(crate) constraint: String,
    pub(crate) columns: Vec<String>,
    /// The table that it refers to, quoted.
    pub(crate) table: String,
    pub(crate) their_columns: Vec<String>,
    /// Whether it refers to its own table.
    pub(crate) own: bool,
}

/// How rows get into a star table.
#[derive(Clone, Copy)]
pub(crate) enum Writing<'a> {
    /// One row for each value of the key, the latest.
    Upsert(&'a [String]),
    /// A new row for each version; the warehouse numbers them in the column `record`.
    History { record: &'a str },
}

impl Column {
    /// The type in which values of the column are held before they are judged: one without the
    /// length or the digits to which Postgres would cut them silently.
    pub(crate) fn stage_kind(&self) -> Cow<'_, str> {
        let staging = self.base.staging_type();
        if staging == self.base { Cow::Borrowed(&self.kind) } else { staging.to_string().into() }
    }

    /// The value `value`, of this type or [`Column::stage_kind`], as the key of a row is written: in one way,
    /// however it is padded or how many zeros it has.
    pub(crate) fn key_text(&self, value: &str) -> String {
        PgType::parse(&self.kind).key_text(value)
    }

    /// The type in which a text is compared with the column.
    pub(crate) fn compared_kind(&self) -> Cow<'_, str> {
        let compared = self.base.compared_type();
        if compared == self.base { Cow::Borrowed(&self.kind) } else { compared.to_string().into() }
    }

    /// The condition that the value `value` of that type fits the column as it is.
    pub(crate) fn fits(&self, value: &str) -> Option<String> {
        self.base.fits(value)
    }

    /// Whether no value of a model's type loses anything silently here. A type of its own that the source defines under
    /// the name of the column's is taken to be the same.
    fn accepts(&self, model: &PgType) -> bool {
        let declared = PgType::parse(&self.kind);
        declared.is_user_defined() && declared.has_name_of(model) || self.base.accepts(model)
    }
}

impl Star {
    /// The column of a name.
    pub(crate) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Whether deletions can be marked.
    pub(crate) fn marks_deletions(&self) -> bool {
        self.column(DELETED_AT).is_some()
    }

    /// The column that numbers the versions, if a model that returns `columns` makes it a history.
    pub(crate) fn record(&self, columns: &[String]) -> Option<&str> {
        match self.writing(columns) {
            Ok(Writing::History { record }) => Some(record),
            _ => None,
        }
    }

    /// The unique keys of which the columns `returned` are a whole, less the key by which rows are upserted.
    pub(crate) fn further_keys(&self, writing: Writing<'_>, returned: &[&Column]) -> Vec<&(String, Vec<String>)> {
        let Writing::Upsert(own) = writing else { return Vec::new() };
        let is_further = |columns: &[String]| {
            columns.iter().any(|column| !own.contains(column))
                && columns.iter().all(|column| returned.iter().any(|known| known.name == *column))
        };
        self.keys.iter().filter(|(_, columns)| is_further(columns)).collect()
    }

    /// How rows of `columns` are written: by the primary key, or by the only unique key, or as a
    /// history.
    pub(crate) fn writing<S: AsRef<str>>(&self, columns: &[S]) -> Result<Writing<'_>, String> {
        let is_returned = |column: &String| columns.iter().any(|returned| returned.as_ref() == column);
        let returned = |key: &[String]| !key.is_empty() && key.iter().all(is_returned);
        if returned(&self.primary) {
            return Ok(Writing::Upsert(&self.primary));
        }
        let mut fitting = self.unique.iter().filter(|key| returned(key));
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Ok(Writing::Upsert(key)),
            (Some(one), Some(other)) => Err(format!(
                "the model returns two unique keys, ({}) and ({})\nKeep one",
                one.join(", "),
                other.join(", ")
            )),
            (None, _) => match (self.generated, self.primary.as_slice()) {
                (true, [record]) => Ok(Writing::History { record }),
                _ => {
                    Err("the model returns no primary or unique key of it\nGive it one, NOT NULL, in schema.sql".into())
                }
            },
        }
    }

    /// What of a model the table `name` cannot take: each says what to do.
    pub(crate) fn problems(&self, name: &str, model: &StarTable) -> Vec<String> {
        let mut problems: Vec<_> = self.unjudged.iter().map(|constraint| format!(
            "the CHECK constraint {constraint} speaks of the row as a whole or of a system column, so a row cannot be \
             judged before it is there\nLet it name columns"
        )).collect();
        for returned in &model.columns {
            let name = &returned.name;
            match self.column(name) {
                _ if name == DELETED_AT => problems.push(format!(
                    "the model returns {name}, the column in which Blackwater marks deletions\nGive it another name"
                )),
                None => {
                    problems.push(format!("the model returns {name}, which the table has not\nAdd it to schema.sql"))
                }
                Some(column) if column.computed => {
                    problems.push(format!("the model returns {name}, which the table computes\nLeave it out"));
                }
                Some(column) => {
                    let kind = PgType::parse(&returned.kind);
                    if !column.accepts(&kind) {
                        problems.push(format!(
                            "the model returns {name} as {kind}, and the column is {}\nCAST it in the model, or give \
                             the column that type in schema.sql",
                            column.kind
                        ));
                    }
                }
            }
        }
        let missing = |column: &&Column| {
            column.not_null
                && column.default.is_none()
                && !column.numbered
                && !model.columns.iter().any(|returned| returned.name == column.name)
        };
        for column in self.columns.iter().filter(missing) {
            problems.push(format!(
                "the column {} is NOT NULL and has no default, and the model does not return it",
                column.name
            ));
        }
        if let Some(column) = self.column(DELETED_AT)
            && (column.not_null || column.kind != "timestamp with time zone")
        {
            problems.push(format!("{DELETED_AT} marks deletions: it must be timestamptz and may be NULL"));
        }
        let names: Vec<_> = model.columns.iter().map(|column| &column.name).collect();
        match (self.writing(&names), &model.driving) {
            (Err(why), _) => problems.push(why),
            (Ok(Writing::History { .. }), _) if view::name(name).len() > NAME => problems.push(format!(
                "the name of its view, {}, would be longer than {NAME} bytes\nGive the table a shorter one",
                view::name(name)
            )),
            (Ok(Writing::History { .. }), None) => {
                problems.push("a set of values (UNION or DISTINCT) has no history\nGive it a key in schema.sql".into());
            }
            (Ok(Writing::Upsert(key)), Some(driving))
                if key.iter().collect::<BTreeSet<_>>() != driving.key.iter().map(|column| &column.name).collect() =>
            {
                let of_driving: Vec<_> = driving.key.iter().map(|column| column.name.as_str()).collect();
                problems.push(format!(
                    "its key is ({}), but the source's rows are told apart by ({}), so one could overwrite another. \
                     Give it that key in schema.sql",
                    key.join(", "),
                    of_driving.join(", ")
                ));
            }
            _ => {}
        }
        for key in model.driving.iter().flat_map(|driving| &driving.key) {
            let Some(column) = self.column(&key.name) else { continue };
            let kind = PgType::parse(&key.kind);
            if column.is_loose || column.base.ignores_case() && !kind.ignores_case() {
                problems.push(format!(
                    "the key {} takes values for the same that differ, so one source row could overwrite another\nGive \
                     the column a deterministic collation, and the type text instead of citext",
                    key.name
                ));
            } else if !PgType::parse(&column.kind).can_hold(&kind) {
                problems.push(format!(
                    "the key {} is {} at the source, and the column is {}\nGive the column that type in schema.sql",
                    key.name, key.kind, column.kind
                ));
            }
        }
        problems
    }

    /// What of a model works, but not as well as it could.
    pub(crate) fn advice(&self, model: &StarTable) -> Vec<String> {
        let mut advice = Vec::new();
        let names: Vec<_> = model.columns.iter().map(|column| &column.name).collect();
        let (Some(driving), Ok(writing)) = (&model.driving, self.writing(&names)) else { return advice };
        if !self.marks_deletions() {
            advice.push(format!(
                "it has no column {DELETED_AT}, so rows that are deleted at the source stay\nAdd {DELETED_AT} timestamptz"
            ));
        }
        let key: BTreeSet<_> = driving.key.iter().map(|column| &column.name).collect();
        let begins = |(columns, _): &&(Vec<String>, bool)| {
            columns.len() >= key.len() && columns[..key.len()].iter().collect::<BTreeSet<_>>() == key
        };
        if matches!(writing, Writing::History { .. }) && !self.indexes.iter().any(|index| begins(&index)) {
            let key: Vec<_> = driving.key.iter().map(|column| column.name.as_str()).collect();
            advice.push(format!(
                "it is a history without an index on ({}), so every batch reads all of it\nAdd one",
                key.join(", ")
            ));
        }
        if let (Writing::Upsert(key), true) = (writing, self.generated && !names.contains(&&self.primary[0])) {
            advice.push(format!(
                "its key ({}) is unique, so it holds the latest values alone, although the warehouse numbers its rows as \
                 those of a history\nFor a history, let the key not be unique",
                key.join(", ")
            ));
        }
        let own = match writing {
            Writing::Upsert(key) => key.iter().collect(),
            Writing::History { .. } => self.primary.iter().collect::<BTreeSet<_>>(),
        };
        for (columns, _) in
            self.indexes.iter().filter(|(columns, unique)| *unique && columns.iter().collect::<BTreeSet<_>>() != own)
        {
            advice.push(format!(
                "it has a further unique key, ({}). A row that takes the value of another, or of a deleted one, goes to \
                 quarantine; two that exchange their values would stop the batch\nDrop it, or make it DEFERRABLE INITIALLY \
                 DEFERRED",
                columns.join(", ")
            ));
        }
        advice
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
        let collation: Option<String> = row.get(7);
        stars.entry(row.get(0)).or_default().columns.push(Column {
            name: row.get(1),
            kind: row.get(2),
            not_null: row.get(3),
            default: row.get(4),
            computed: row.get(5),
            numbered: row.get(6),
            base: PgType::parse(row.get(8)),
            is_loose: row.get(9),
            collation: collation.map(|name| format!(" COLLATE {name}")).unwrap_or_default(),
        });
    }
    for row in transaction.query(KEYS, &[&schema, &tables]).await.doing(doing)? {
        let Some(star) = stars.get_mut(row.get::<_, &str>(0)) else { continue };
        match row.get(1) {
            true => (star.primary, star.generated) = (row.get(2), row.get(3)),
            false => star.unique.push(row.get(2)),
        }
    }
    for row in transaction.query(INDEXES, &[&schema, &tables]).await.doing(doing)? {
        let Some(star) = stars.get_mut(row.get::<_, &str>(0)) else { continue };
        star.is_writable = row.get(1);
        if let Some(columns) = row.get(2) {
            star.indexes.push((columns, row.get(3)));
        }
        if let Some(name) = row.get(4) {
            star.keys.push((name, row.get(2)));
        }
    }
    for row in transaction.query(CONSTRAINTS, &[&schema, &tables]).await.doing(doing)? {
        let Some(star) = stars.get_mut(row.get::<_, &str>(0)) else { continue };
        let constraint: String = row.get(1);
        match row.get::<_, Option<String>>(2) {
            Some(_) if row.get(7) => star.unjudged.push(constraint),
            Some(expression) => star.checks.push((constraint, expression)),
            None => star.references.push(Reference {
                constraint,
                columns: row.get(3),
                table: row.get(4),
                their_columns: row.get(5),
                own: row.get(6),
            }),
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
    Ok(sorted(tables, &references(transaction, schema, tables).await?))
}

/// The tables whose foreign keys lead back to them by way of others.
pub(crate) async fn in_circles<'a>(
    transaction: &Transaction<'_>,
    schema: &str,
    tables: &[&'a str],
) -> Result<Vec<&'a str>, Error> {
    let references = references(transaction, schema, tables).await?;
    let leads_back = |table: &&&str| {
        let (mut reached, mut next) = (BTreeSet::new(), vec![**table]);
        while let Some(from) = next.pop() {
            let to = references.iter().filter(|(one, other)| one == from && other != from);
            next.extend(to.map(|(_, other)| other.as_str()).filter(|other| reached.insert(*other)));
        }
        reached.contains(**table)
    };
    Ok(tables.iter().filter(leads_back).copied().collect())
}

/// (table, the one that it refers to).
async fn references(
    transaction: &Transaction<'_>,
    schema: &str,
    tables: &[&str],
) -> Result<Vec<(String, String)>, Error> {
    let rows = transaction.query(REFERENCES, &[&schema, &tables]).await.doing("read the warehouse's foreign keys")?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
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

/// (table, column, type, whether NOT NULL, its default or what computes it, whether it is computed,
/// whether a sequence fills it, its collation, the type under its domains, whether its collation takes texts for equal
/// that differ).
const COLUMNS: &str = "
    SELECT c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull,
           pg_get_expr(d.adbin, d.adrelid), a.attgenerated <> '',
           a.attidentity <> '' OR coalesce(pg_get_expr(d.adbin, d.adrelid) LIKE 'nextval(%', false),
           CASE WHEN a.attcollation <> t.typcollation THEN a.attcollation::regcollation::text END,
           (WITH RECURSIVE part (oid, digits, brackets) AS (
                SELECT a.atttypid, a.atttypmod, ''
                UNION ALL
                SELECT d.typbasetype, d.typtypmod, part.brackets || CASE WHEN p.typtype = 'd' THEN '' ELSE '[]' END
                FROM part JOIN pg_type p ON p.oid = part.oid
                JOIN pg_type d ON d.typtype = 'd' AND d.oid = CASE WHEN p.typtype = 'd' THEN p.oid ELSE p.typelem END)
            SELECT CASE WHEN part.brackets = '' OR b.typcategory <> 'A' THEN format_type(b.oid, part.digits) || part.brackets
                        ELSE format_type(a.atttypid, a.atttypmod) END
            FROM part JOIN pg_type b ON b.oid = part.oid LEFT JOIN pg_type e ON e.oid = b.typelem
            WHERE b.typtype <> 'd' AND e.typtype IS DISTINCT FROM 'd'),
           EXISTS (SELECT FROM pg_collation l WHERE l.oid = a.attcollation AND NOT l.collisdeterministic)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_type t ON t.oid = a.atttypid
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE n.nspname = $1 AND c.relname = ANY($2) AND c.relkind = 'r'
    ORDER BY c.relname, a.attnum";

/// (table, whether this role may read and write it, an index's columns, whether it refuses at once two rows
/// that agree, its name if it is a unique key of plain columns).
const INDEXES: &str = "
    SELECT c.relname::text,
           has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT') AND has_table_privilege(c.oid, 'UPDATE'),
           (SELECT array_agg(coalesce(a.attname::text, 'an expression') ORDER BY k.place)
            FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (number, place)
            LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.number AND k.number > 0
            WHERE k.place <= i.indnkeyatts),
           coalesce(i.indisunique AND i.indimmediate, false),
           CASE WHEN i.indisunique AND i.indpred IS NULL AND i.indexprs IS NULL THEN x.relname::text END
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisvalid
    LEFT JOIN pg_class x ON x.oid = i.indexrelid
    WHERE n.nspname = $1 AND c.relname = ANY($2)
    ORDER BY 1, i.indexrelid";

/// (table, constraint, the expression of a CHECK; of a foreign key: its columns, the other table,
/// the columns there, whether it is the same table; whether a CHECK needs more than columns).
const CONSTRAINTS: &str = "
    SELECT c.relname::text, o.conname::text, CASE o.contype WHEN 'c' THEN pg_get_expr(o.conbin, o.conrelid) END,
           (SELECT array_agg(a.attname::text ORDER BY k.place) FROM unnest(o.conkey) WITH ORDINALITY AS k (number, place)
            JOIN pg_attribute a ON a.attrelid = o.conrelid AND a.attnum = k.number),
           CASE o.contype WHEN 'f' THEN o.confrelid::regclass::text END,
           (SELECT array_agg(a.attname::text ORDER BY k.place) FROM unnest(o.confkey) WITH ORDINALITY AS k (number, place)
            JOIN pg_attribute a ON a.attrelid = o.confrelid AND a.attnum = k.number),
           o.confrelid = o.conrelid, coalesce(0 >= ANY (o.conkey), false)
    FROM pg_constraint o JOIN pg_class c ON c.oid = o.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relname = ANY($2) AND o.contype IN ('c', 'f') AND o.conparentid = 0
    ORDER BY 1, 2";

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
