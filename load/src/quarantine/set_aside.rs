//! Rows on their way into quarantine.

use blackwater_shared::postgres::{ident, literal};
use serde_json::Value;
use tokio_postgres::types::{Json, Type};

use crate::catalogue::Column;
use crate::error::Error;
use crate::staging::{self, Content, REASON};
use crate::target::{POS, Target};
use crate::warehouse::{Parameters, Warehouse};

/// A staged row that the star table refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejected {
    /// The row's number in its staging table.
    pub(crate) pos: i64,
    /// Why. It may hold values of the row.
    pub(crate) reason: String,
    /// Why, for those who read logs.
    pub(crate) brief: String,
    /// The constraint that another row is in the way of, or whose row is missing: it may take this one later.
    pub(crate) taken: Option<String>,
}

/// Moves the staged rows that a query names as (pos, why, reference) to quarantine: their number.
pub(crate) async fn rows(
    warehouse: &Warehouse<'_>,
    target: &Target<'_>,
    content: Content,
    bad: &str,
) -> Result<u64, Error> {
    let doing = warehouse.doing("set aside rows of", target);
    warehouse.execute(doing, &sql(target, content, bad, false), &[]).await
}

/// Moves the rows that the star table refused.
pub(crate) async fn rejected(
    warehouse: &Warehouse<'_>,
    target: &Target<'_>,
    rejected: &[Rejected],
) -> Result<u64, Error> {
    let pos: Vec<_> = rejected.iter().map(|row| row.pos).collect();
    let reasons: Vec<_> = rejected.iter().map(|row| row.reason.as_str()).collect();
    let taken = |row: &Rejected| row.taken.as_ref().map(|name| Json(serde_json::json!({ "constraint": name })));
    let references: Vec<Option<Json<Value>>> = rejected.iter().map(taken).collect();
    let bad = "SELECT * FROM unnest($1::bigint[], $2::text[], $3::jsonb[]) AS bad (pos, why, reference)";
    let doing = warehouse.doing("set aside rows of", target);
    let parameters: Parameters<'_> =
        &[(&pos, Type::INT8_ARRAY), (&reasons, Type::TEXT_ARRAY), (&references, Type::JSONB_ARRAY)];
    warehouse.execute(doing, &sql(target, Content::Rows, bad, false), parameters).await
}

/// Moves the rows of which `pg_temp.need` knows that a row is missing to which they refer.
pub(crate) async fn waiting(warehouse: &Warehouse<'_>, target: &Target<'_>) -> Result<u64, Error> {
    let bad = format!(
        "SELECT DISTINCT ON (pos) pos, why, reference FROM pg_temp.need WHERE tbl = {} ORDER BY pos, ref",
        target.number
    );
    let doing = warehouse.doing("set aside rows of", target);
    warehouse.execute(doing, &sql(target, Content::Rows, &bad, true), &[]).await
}

/// Puts the keys of source rows into quarantine in which a value does not fit, with the reasons that came with them.
pub(crate) async fn misfits(warehouse: &Warehouse<'_>, target: &Target<'_>) -> Result<(), Error> {
    let sql = format!(
        "INSERT INTO blackwater.quarantine (star_schema, star_table, key, batch, reason)
         SELECT {schema}, {table}, {key}, {batch}, t.{REASON} FROM {from} t",
        schema = literal(target.schema),
        table = literal(target.name),
        key = target.key_json("t"),
        batch = warehouse.batch,
        from = staging::name(target, Content::Misfits),
    );
    warehouse.execute(warehouse.doing("set aside rows of", target), &sql, &[]).await.map(drop)
}

/// The statement that moves rows: `bad` names them, and with `waits` their needs become lines of `blackwater.waiting_for`.
fn sql(target: &Target<'_>, content: Content, bad: &str, waits: bool) -> String {
    let shown = |column: &&Column| {
        let name = ident(&column.name);
        match content {
            Content::Bytes => format!("pg_temp.shown({}) AS {name}", staging::bytes(target, column, "t")),
            _ => format!("t.{name}"),
        }
    };
    let shown: Vec<_> = target.columns.iter().map(shown).collect();
    // A row that is no text here cannot be kept.
    let is_text = |column: &&Column| {
        let bytes = staging::bytes(target, column, "t");
        format!("({bytes} IS NULL OR pg_temp.shown({bytes}) IS NOT NULL)")
    };
    let is_whole = match content {
        Content::Bytes => target.columns.iter().map(is_text).collect::<Vec<_>>().join(" AND "),
        _ => "true".into(),
    };
    let names: Vec<_> = target.columns.iter().map(|column| literal(&column.name)).collect();
    let values: Vec<_> = target.columns.iter().map(|column| format!("t.{}::text", ident(&column.name))).collect();
    let (schema, table) = (literal(target.schema), literal(target.name));
    let lines = match waits {
        true => format!(
            ", line AS (
             INSERT INTO blackwater.waiting_for (star_schema, star_table, constraint_name, key, entry)
             SELECT {schema}, {table}, n.constraint_name, n.key, t.\"blackwater:id\"
             FROM moved t JOIN pg_temp.need n ON n.tbl = {} AND n.pos = t.{POS})",
            target.number
        ),
        false => String::new(),
    };
    format!(
        "WITH bad AS MATERIALIZED ({bad}),
         moved AS (
             DELETE FROM {from} t USING bad WHERE t.{POS} = bad.pos
             RETURNING t.{POS}, nextval('blackwater.entry') AS \"blackwater:id\", bad.why AS \"blackwater:why\",
                 bad.reference AS \"blackwater:reference\", {is_whole} AS \"blackwater:whole\", {shown}){lines}
         INSERT INTO blackwater.quarantine (id, star_schema, star_table, key, batch, reason, reference, star_row)
         SELECT \"blackwater:id\", {schema}, {table}, {key}, t.{POS} >> 32, \"blackwater:why\", \"blackwater:reference\",
                CASE WHEN \"blackwater:whole\" THEN json_object(ARRAY[{names}], ARRAY[{values}]) END
         FROM moved t ORDER BY t.{POS}",
        from = staging::name(target, content),
        shown = shown.join(", "),
        key = target.key_json("t"),
        names = names.join(", "),
        values = values.join(", "),
    )
}
