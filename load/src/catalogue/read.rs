//! The queries over the warehouse's catalogue. They run under `search_path = pg_catalog`, so that every other name is
//! printed with its schema.

use std::collections::BTreeMap;

use blackwater_shared::postgres::Doing;
use deadpool_postgres::Transaction;
use futures_util::future::join_all;
use tokio_postgres::types::Type;

use super::{Check, Column, Filled, Index, PgType, Reference, Star};
use crate::error::Error;
use crate::warehouse::Parameters;

/// Reads the catalogue of the tables; what is missing there is missing in the answer.
pub(crate) async fn read(
    transaction: &Transaction<'_>,
    schema: &str,
    tables: &[&str],
) -> Result<BTreeMap<String, Star>, Error> {
    let parameters: Parameters<'_> = &[(&schema, Type::TEXT), (&tables, Type::TEXT_ARRAY)];
    let rows = |query| transaction.query_typed(query, parameters);
    let queries = [TABLES, COLUMNS, INDEXES, CHECKS, REFERENCES, REFERENCED];
    // Sent one after the other, before the first is done. The first error says what is wrong; those that follow it do not.
    let answers: Result<Vec<_>, _> = join_all(queries.map(rows)).await.into_iter().collect();
    let answers = answers.doing("read the warehouse's catalogue")?;
    let [tables, columns, indexes, checks, references, referenced] = answers.as_slice() else {
        return Ok(BTreeMap::new());
    };
    let mut stars: BTreeMap<String, Star> = BTreeMap::new();
    for row in tables {
        stars.insert(row.get("table"), Star { is_writable: row.get("writable"), ..Star::default() });
    }
    for row in columns {
        let Some(star) = stars.get_mut(row.get::<_, &str>("table")) else { continue };
        let collation: Option<String> = row.get("collation");
        star.columns.push(Column {
            name: row.get("name"),
            declared: PgType::parse(row.get("declared")),
            base: PgType::parse(row.get("base")),
            not_null: row.get("not_null"),
            has_default: row.get("has_default"),
            filled: match row.get("filled") {
                "computed" => Filled::Computed,
                "always" => Filled::Always,
                "by default" => Filled::ByDefault,
                _ => Filled::Not,
            },
            collation: collation.map(|name| format!(" COLLATE {name}")).unwrap_or_default(),
            is_loose: row.get("loose"),
            equality: row.get("equality"),
        });
    }
    for row in indexes {
        let Some(star) = stars.get_mut(row.get::<_, &str>("table")) else { continue };
        star.indexes.push(Index {
            name: row.get("name"),
            columns: row.get("columns"),
            is_unique: row.get("unique"),
            is_primary: row.get("primary"),
            is_immediate: row.get("immediate"),
            is_plain: row.get("plain"),
            predicate: row.get("predicate"),
            is_not_null: row.get("not_null"),
            is_generated: row.get("generated"),
        });
    }
    for row in checks {
        let Some(star) = stars.get_mut(row.get::<_, &str>("table")) else { continue };
        star.checks.push(Check {
            name: row.get("name"),
            expression: row.get("expression"),
            columns: row.get("columns"),
            is_builtin: row.get("builtin"),
        });
    }
    for row in references {
        let Some(star) = stars.get_mut(row.get::<_, &str>("table")) else { continue };
        star.references.push(Reference {
            constraint: row.get("name"),
            columns: row.get("columns"),
            table: row.get("other"),
            star_table: row.get("star_table"),
            their_columns: row.get("their_columns"),
            operators: row.get("operators"),
            is_deferrable: row.get("deferrable"),
        });
    }
    for row in referenced {
        let Some(star) = stars.get_mut(row.get::<_, &str>("table")) else { continue };
        star.referenced.insert(row.get("column"));
    }
    Ok(stars)
}

/// The columns that foreign keys refer to, of whatever tables.
const REFERENCED: &str = "
    SELECT DISTINCT c.relname::text AS table, a.attname::text AS column
    FROM pg_constraint o JOIN pg_class c ON c.oid = o.confrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (o.confkey)
    WHERE n.nspname = $1 AND c.relname = ANY($2) AND o.contype = 'f'";

const TABLES: &str = "
    SELECT c.relname::text AS table,
           has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')
               AND has_table_privilege(c.oid, 'UPDATE') AS writable
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relname = ANY($2) AND c.relkind = 'r'";

/// `base` is the type under the column's domains, also under those of an array's elements.
const COLUMNS: &str = "
    SELECT c.relname::text AS table, a.attname::text AS name, format_type(a.atttypid, a.atttypmod) AS declared,
           base.printed AS base, a.attnotnull AS not_null,
           a.attgenerated = '' AND d.oid IS NOT NULL AS has_default,
           CASE WHEN a.attgenerated <> '' THEN 'computed' WHEN a.attidentity = 'a' THEN 'always'
                WHEN a.attidentity <> '' OR pg_get_expr(d.adbin, d.adrelid) LIKE 'nextval(%' THEN 'by default'
                ELSE '' END AS filled,
           CASE WHEN a.attcollation <> t.typcollation THEN a.attcollation::regcollation::text END AS collation,
           EXISTS (SELECT FROM pg_collation l WHERE l.oid = a.attcollation AND NOT l.collisdeterministic) AS loose,
           (SELECT s.nspname::text FROM pg_operator o JOIN pg_namespace s ON s.oid = o.oprnamespace
            WHERE o.oprname = '=' AND o.oprleft = base.oid AND o.oprright = base.oid AND s.nspname <> 'pg_catalog'
              AND base.schema <> 'pg_catalog'::regnamespace
            ORDER BY 1 LIMIT 1) AS equality
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_type t ON t.oid = a.atttypid
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    CROSS JOIN LATERAL (
        WITH RECURSIVE part (oid, modifier, brackets) AS (
            SELECT a.atttypid, a.atttypmod, ''
            UNION ALL
            SELECT d.typbasetype, d.typtypmod, part.brackets || CASE WHEN p.typtype = 'd' THEN '' ELSE '[]' END
            FROM part JOIN pg_type p ON p.oid = part.oid
            JOIN pg_type d ON d.typtype = 'd' AND d.oid = CASE WHEN p.typtype = 'd' THEN p.oid ELSE p.typelem END)
        SELECT b.oid, b.typnamespace AS schema, CASE WHEN part.brackets = '' OR b.typcategory <> 'A' THEN format_type(b.oid, part.modifier) || part.brackets
                           ELSE format_type(a.atttypid, a.atttypmod) END AS printed
        FROM part JOIN pg_type b ON b.oid = part.oid LEFT JOIN pg_type e ON e.oid = b.typelem
        WHERE b.typtype <> 'd' AND e.typtype IS DISTINCT FROM 'd') base
    WHERE n.nspname = $1 AND c.relname = ANY($2) AND c.relkind = 'r'
    ORDER BY c.relname, a.attnum";

const INDEXES: &str = "
    SELECT c.relname::text AS table, x.relname::text AS name, i.indisunique AS unique, i.indisprimary AS primary,
           i.indimmediate AS immediate, i.indpred IS NULL AND i.indexprs IS NULL AS plain,
           pg_get_expr(i.indpred, i.indrelid) AS predicate,
           array_agg(coalesce(a.attname::text, 'an expression') ORDER BY k.place) AS columns,
           coalesce(bool_and(a.attnotnull), false) AS not_null,
           coalesce(bool_or(a.attidentity <> '' OR pg_get_expr(d.adbin, d.adrelid) LIKE 'nextval(%'), false) AS generated
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_index i ON i.indrelid = c.oid AND i.indisvalid
    JOIN pg_class x ON x.oid = i.indexrelid
    CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY AS k (number, place)
    LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.number AND k.number > 0
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE n.nspname = $1 AND c.relname = ANY($2) AND k.place <= i.indnkeyatts
    GROUP BY c.relname, i.indexrelid, x.relname, i.indisunique, i.indisprimary, i.indimmediate, i.indpred, i.indrelid, i.indexprs
    ORDER BY 1, i.indexrelid";

/// What a constraint uses that is not Postgres' own is in `pg_depend`; what is its own is not.
const CHECKS: &str = "
    SELECT c.relname::text AS table, o.conname::text AS name, pg_get_expr(o.conbin, o.conrelid) AS expression,
           CASE WHEN NOT coalesce(0 >= ANY (o.conkey), false) THEN ARRAY(
               SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = o.conrelid AND a.attnum = ANY (o.conkey)
           ) END AS columns,
           NOT EXISTS (
               SELECT FROM pg_depend d WHERE d.classid = 'pg_constraint'::regclass AND d.objid = o.oid
               AND d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass)) AS builtin
    FROM pg_constraint o JOIN pg_class c ON c.oid = o.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relname = ANY($2) AND o.contype = 'c'
      AND coalesce((to_jsonb(o)->>'conenforced')::boolean, true)
    ORDER BY 1, 2";

/// `conpfeqop` compares their column with ours:
/// <https://www.postgresql.org/docs/current/catalog-pg-constraint.html>. From Postgres 18 a key may be NOT ENFORCED.
const REFERENCES: &str = "
    SELECT c.relname::text AS table, o.conname::text AS name, o.confrelid::regclass::text AS other,
           CASE WHEN t.relnamespace = c.relnamespace THEN t.relname::text END AS star_table,
           o.condeferrable AS deferrable,
           (SELECT array_agg(a.attname::text ORDER BY k.place) FROM unnest(o.conkey) WITH ORDINALITY AS k (number, place)
            JOIN pg_attribute a ON a.attrelid = o.conrelid AND a.attnum = k.number) AS columns,
           (SELECT array_agg(a.attname::text ORDER BY k.place) FROM unnest(o.confkey) WITH ORDINALITY AS k (number, place)
            JOIN pg_attribute a ON a.attrelid = o.confrelid AND a.attnum = k.number) AS their_columns,
           (SELECT array_agg(format('OPERATOR(%I.%s)', s.nspname, p.oprname) ORDER BY k.place)
            FROM unnest(o.conpfeqop) WITH ORDINALITY AS k (operator, place)
            JOIN pg_operator p ON p.oid = k.operator JOIN pg_namespace s ON s.oid = p.oprnamespace) AS operators
    FROM pg_constraint o JOIN pg_class c ON c.oid = o.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_class t ON t.oid = o.confrelid
    WHERE n.nspname = $1 AND c.relname = ANY($2) AND o.contype = 'f' AND o.conparentid = 0
      AND coalesce((to_jsonb(o)->>'conenforced')::boolean, true)
    ORDER BY 1, 2";
