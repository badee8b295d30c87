//! The statements that make and fill staging tables.

use blackwater_shared::postgres::{ident, literal};

use crate::ahead;
use crate::catalogue::{Column, Writing};
use crate::target::{POS, Target};

/// The column of a staging table of keys that says why a row does not fit, quoted.
pub(crate) const REASON: &str = "\"blackwater:reason\"";

/// The column of a staging table of bytes that holds the row, quoted.
const ROW: &str = "\"blackwater:row\"";

/// What a staging table holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Star rows, each value in a type that takes it as it is.
    Rows,
    /// Star rows, each as one array of the bytes of its values' texts: so it may be longer than a page.
    Bytes,
    /// The keys of source rows in which a value does not fit, and why.
    Misfits,
    /// The keys of source rows that the model does not let through.
    Filtered,
    /// The keys of rows that the source no longer has.
    Gone,
    /// The keys of all source rows.
    Keys,
}

/// The staging table of a star table, in SQL.
pub(crate) fn name(target: &Target<'_>, content: Content) -> String {
    let what = match content {
        Content::Rows => match target.stage.get() {
            Some(id) => return ahead::table(*id),
            None => "rows",
        },
        Content::Bytes => "bytes",
        Content::Misfits => "misfits",
        Content::Filtered => "filtered",
        Content::Gone => "gone",
        Content::Keys => "keys",
    };
    format!("pg_temp.{what}_{}", target.number)
}

/// The columns of a staging table: name and type, in SQL.
fn columns(target: &Target<'_>, content: Content) -> Vec<(String, String)> {
    let staged = |column: &&Column| {
        let kind = match content {
            Content::Rows => format!("{}{}", column.staged(), column.collation),
            _ if target.foreign.contains(&column.name) => "text".into(),
            _ => format!("{}{}", column.staged(), column.collation),
        };
        (ident(&column.name), kind)
    };
    let pos = (POS.to_owned(), "bigint".to_owned());
    match content {
        Content::Rows => [pos].into_iter().chain(target.columns.iter().map(staged)).collect(),
        Content::Bytes => vec![pos, (ROW.into(), "bytea[]".into())],
        Content::Misfits => target.key.iter().map(staged).chain([(REASON.into(), "text".into())]).collect(),
        Content::Filtered | Content::Gone | Content::Keys => target.key.iter().map(staged).collect(),
    }
}

/// The columns that a staging table is made with.
fn definitions(target: &Target<'_>, content: Content) -> String {
    let columns = columns(target, content).into_iter().map(|(name, kind)| format!("{name} {kind}"));
    columns.collect::<Vec<_>>().join(", ")
}

/// The columns that a staging table of rows is made with.
pub(crate) fn columns_of_rows(target: &Target<'_>) -> String {
    definitions(target, Content::Rows)
}

/// Makes a staging table.
pub(crate) fn create(target: &Target<'_>, content: Content) -> String {
    let (name, columns) = (name(target, content), definitions(target, content));
    match target.stage.get() {
        Some(_) if content == Content::Rows => format!("CREATE UNLOGGED TABLE {name} ({columns})"),
        _ => format!("CREATE TEMPORARY TABLE IF NOT EXISTS {name} ({columns}) ON COMMIT DROP"),
    }
}

/// Copies into a staging table, in a format of COPY.
pub(crate) fn copy(target: &Target<'_>, content: Content, format: &str) -> String {
    let columns: Vec<_> = columns(target, content).into_iter().map(|(name, _)| name).collect();
    format!("COPY {} ({}) FROM STDIN (FORMAT {format})", name(target, content), columns.join(", "))
}

/// The staged keys of a table as the star table has them, for a FROM clause.
pub(crate) fn keys(target: &Target<'_>, content: Content) -> String {
    let column = |column: &&Column| {
        let name = ident(&column.name);
        let counts = if target.foreign.contains(&column.name) { "text".into() } else { column.declared.to_string() };
        format!("{name}::{counts} AS {name}")
    };
    let columns: Vec<_> = target.key.iter().map(column).collect();
    format!("(SELECT {} FROM {})", columns.join(", "), name(target, content))
}

/// Two functions: the words of Postgres if the bytes are no text of a type; and the text, NULL if they are none here.
pub(crate) const FUNCTIONS: &str = "
    CREATE OR REPLACE FUNCTION pg_temp.misfit(value bytea, kind text) RETURNS text LANGUAGE plpgsql AS $$
    BEGIN
        EXECUTE format('SELECT %L::%s', convert_from(value, 'UTF8'), kind);
        RETURN NULL;
    EXCEPTION WHEN OTHERS OR assert_failure THEN
        RETURN SQLERRM;
    END $$;
    CREATE OR REPLACE FUNCTION pg_temp.shown(value bytea) RETURNS text LANGUAGE plpgsql AS $$
    BEGIN
        RETURN convert_from(value, 'UTF8');
    EXCEPTION WHEN OTHERS THEN
        RETURN NULL;
    END $$";

/// The bytes of a column in the row `row` of a staging table of bytes.
pub(crate) fn bytes(target: &Target<'_>, column: &Column, row: &str) -> String {
    let before = target.columns.iter().take_while(|known| known.name != column.name).count();
    format!("{row}.{ROW}[{}]", before + 1)
}

/// The value of a column in the row `b` of a staging table of bytes, in the type of [`Content::Rows`].
fn converted(target: &Target<'_>, column: &Column) -> String {
    format!("convert_from({}, 'UTF8')::{}", bytes(target, column, "b"), column.staged())
}

/// Reads every value of a column in a staging table of bytes: it fails if one does not fit.
pub(crate) fn read_all(target: &Target<'_>, column: &Column) -> String {
    format!("SELECT count({}) FROM {} b", converted(target, column), name(target, Content::Bytes))
}

/// The query for the rows in a staging table of bytes that hold something which is no value of its column: (pos, why, reference).
pub(crate) fn misfits(target: &Target<'_>, columns: &[&Column]) -> String {
    let misfit = |column: &&Column| {
        format!("pg_temp.misfit({}, {})", bytes(target, column, "b"), literal(&column.staged().to_string()))
    };
    let words =
        columns.iter().map(|column| format!("{} || {}", literal(&format!("{}: ", column.name)), misfit(column)));
    format!(
        "SELECT pos, why, NULL::jsonb AS reference FROM (
             SELECT {POS} AS pos, array_to_string(ARRAY[{}], '; ') AS why FROM {} b OFFSET 0) m WHERE why <> ''",
        words.collect::<Vec<_>>().join(", "),
        name(target, Content::Bytes)
    )
}

/// Copies the rows `b` of a staging table of bytes to the one of rows.
pub(crate) fn from_bytes(target: &Target<'_>) -> String {
    let values: Vec<_> = target.columns.iter().map(|column| converted(target, column)).collect();
    format!(
        "INSERT INTO {} ({POS}, {}) SELECT {POS}, {} FROM {} b",
        name(target, Content::Rows),
        target.list(""),
        values.join(", "),
        name(target, Content::Bytes)
    )
}

/// Makes the function that copies them one by one, and returns those that cannot be: (pos, why, reference).
pub(crate) fn make_copy_each(target: &Target<'_>) -> String {
    let body = format!(
        "DECLARE at bigint;
         BEGIN
             FOR at IN SELECT {POS} FROM {bytes} LOOP
                 BEGIN
                     {copy} WHERE {POS} = at;
                 EXCEPTION WHEN OTHERS THEN
                     pos := at;
                     why := SQLERRM;
                     RETURN NEXT;
                 END;
             END LOOP;
         END",
        bytes = name(target, Content::Bytes),
        copy = from_bytes(target),
    );
    format!(
        "CREATE INDEX IF NOT EXISTS bytes_{number}_pos ON {bytes} ({POS});
         CREATE OR REPLACE FUNCTION pg_temp.copy_each_{number}() RETURNS TABLE (pos bigint, why text, reference jsonb)
         LANGUAGE plpgsql AS {body}",
        number = target.number,
        bytes = name(target, Content::Bytes),
        body = literal(&body),
    )
}

/// Copies the rows one by one: a query for those that cannot be.
pub(crate) fn copy_each(target: &Target<'_>) -> String {
    format!("SELECT * FROM pg_temp.copy_each_{}()", target.number)
}

/// Empties a staging table of bytes.
pub(crate) fn clear_bytes(target: &Target<'_>) -> String {
    format!("TRUNCATE {}", name(target, Content::Bytes))
}

/// Moves entries of the quarantine to the staging table, each under its own batch; `$1` are the names of the columns.
/// `content` says whether the values are cast or only kept, `has_lines` whether some of the entries still have lines in
/// `blackwater.waiting_for`.
///
/// Where a table holds the latest values, the newest entry of a key counts, unless the batch has the key itself.
pub(crate) fn take_entries(target: &Target<'_>, content: Content, has_lines: bool) -> String {
    let is_upsert = matches!(target.writing, Writing::Upsert(_));
    let stage = name(target, Content::Rows);
    let same = |column: &&Column| {
        format!("{} = q.key->>{}", column.key_text(&format!("t.{}", ident(&column.name))), literal(&column.name))
    };
    let same: Vec<_> = target.key.iter().map(same).collect();
    let fits =
        format!("w.tbl = {} AND NOT q.discarded AND ARRAY(SELECT json_object_keys(q.star_row)) = $1", target.number);
    let mine = match is_upsert {
        true => format!(
            "(SELECT DISTINCT ON (q.key) q.id AS entry FROM blackwater.quarantine q JOIN pg_temp.woken w ON w.entry = q.id
              WHERE {fits} AND NOT EXISTS (SELECT FROM {stage} t WHERE {same})
              ORDER BY q.key, q.batch DESC, q.id DESC) w WHERE q.id = w.entry",
            same = same.join(" AND ")
        ),
        false => format!("pg_temp.woken w WHERE q.id = w.entry AND {fits}"),
    };
    let lines = match has_lines {
        true => ", lines AS (DELETE FROM blackwater.waiting_for f USING gone WHERE f.entry = gone.id)",
        false => "",
    };
    let texts: Vec<_> = target.columns.iter().map(|column| format!("{} text", ident(&column.name))).collect();
    let value = |column: &&Column| match content {
        Content::Bytes => format!("convert_to(r.{}, 'UTF8')", ident(&column.name)),
        _ => format!("r.{}::{}", ident(&column.name), column.staged()),
    };
    let values = target.columns.iter().map(value).collect::<Vec<_>>().join(", ");
    let values = if content == Content::Bytes { format!("ARRAY[{values}]::bytea[]") } else { values };
    let columns: Vec<_> = columns(target, content).into_iter().map(|(name, _)| name).collect();
    format!(
        "WITH gone AS (
             DELETE FROM blackwater.quarantine q USING {mine} RETURNING q.id, q.batch, q.star_row){lines}
         INSERT INTO {to} ({columns})
         SELECT (m.batch << 32) + (1::bigint << 31) + row_number() OVER (ORDER BY m.id), {values}
         FROM gone m CROSS JOIN LATERAL json_to_record(m.star_row) AS r ({texts})",
        to = name(target, content),
        columns = columns.join(", "),
        texts = texts.join(", "),
    )
}
