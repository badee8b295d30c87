//! The Totesys sample: a source database with awkward rows, and the model pack for it, both inside
//! the program, so that an installed `blackwater` can show what it does.

use std::path::Path;

use futures_util::{SinkExt, pin_mut};
use include_dir::{Dir, include_dir};
use tokio_postgres::{Client, Error};

static SAMPLE: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../samples/totesys");
static PACK: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../models/totesys");

/// Sets every sequence to the largest value of its column.
const SEQUENCES: &str = "
    DO $$
    DECLARE c record;
    BEGIN
        FOR c IN SELECT table_name, column_name FROM information_schema.columns
                 WHERE table_schema = 'public' AND column_default LIKE 'nextval(%' LOOP
            EXECUTE format('SELECT setval(pg_get_serial_sequence(%L, %L), max(%I)) FROM %I',
                           quote_ident(c.table_name), c.column_name, c.column_name, c.table_name);
        END LOOP;
    END $$";

/// The questions for the warehouse: a title, and a query for labels and numbers.
pub fn questions() -> impl Iterator<Item = (&'static str, &'static str)> {
    let files = SAMPLE.get_dir("questions").into_iter().flat_map(Dir::files);
    files.filter_map(|file| file.contents_utf8()?.strip_prefix("-- ")?.split_once('\n'))
}

/// A file of the sample.
///
/// # Panics
/// If the sample has no such file.
#[must_use]
pub fn file(name: &str) -> &'static str {
    SAMPLE.get_file(name).and_then(|file| file.contents_utf8()).unwrap_or_else(|| panic!("the sample has no {name}"))
}

/// Writes the model pack into a folder.
///
/// # Errors
/// If the folder cannot be written to.
pub fn write_pack(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    PACK.extract(folder)
}

/// Makes the source's tables in an empty database, and fills them.
///
/// # Errors
/// If a statement fails.
pub async fn create(client: &Client) -> Result<(), Error> {
    // A superuser's way to fill the tables in any order, whatever refers to what.
    client
        .batch_execute(&format!("BEGIN; SET LOCAL session_replication_role = replica; {}", file("schema.sql")))
        .await?;
    for csv in SAMPLE.files().filter(|file| file.path().extension().is_some_and(|extension| extension == "csv")) {
        let table = csv.path().with_extension("");
        let sql = format!("COPY \"{}\" FROM STDIN (FORMAT csv, HEADER, NULL '\\N')", table.display());
        let sink = client.copy_in(&sql).await?;
        pin_mut!(sink);
        sink.send(csv.contents()).await?;
        sink.finish().await?;
    }
    client.batch_execute(&format!("{SEQUENCES}; COMMIT")).await
}

/// Makes orders on top of the sample: `deals` of them, each with its transaction and its payment.
///
/// # Errors
/// If a statement fails.
pub async fn make_deals(client: &Client, deals: u32) -> Result<(), Error> {
    let sql = format!("BEGIN; SET LOCAL demo.deals = {deals}; {}; {SEQUENCES}; COMMIT", file("deals.sql"));
    client.batch_execute(&sql).await
}
