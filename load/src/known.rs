//! How many of the source's rows the warehouse knows of, beside how many there are. Those that it knows are a superset of the source's,
//! so equal numbers mean equal sets, and where it knows of more, some are gone.
//!
//! The numbers stand in the ledger and follow from what each batch writes. They are counted anew where they say that something is
//! amiss, where the star table or its model is not what it was, and once a day, for something else may write to the star tables.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use blackwater_shared::postgres::{ident, literal};
use serde::{Deserialize, Serialize};

use crate::catalogue::Column;
use crate::error::Error;
use crate::target::Target;
use crate::warehouse::Warehouse;

/// The rows of a source table of which its star table knows. A row is only in the first of these that it could be in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    /// Those in the star table.
    pub(crate) live: i64,
    /// Those that the model does not let through.
    pub(crate) filtered: i64,
    /// Those that are in quarantine alone.
    waiting: i64,
}

impl Known {
    fn rows(self) -> i64 {
        self.live + self.filtered + self.waiting
    }
}

/// What a comparison found.
#[derive(Debug, Default)]
pub(crate) struct Compared {
    /// What the warehouse knows of, by star table.
    pub(crate) known: BTreeMap<String, Known>,
    /// The source tables whose keys are asked for: those of which it knows more rows.
    pub(crate) wanted: BTreeSet<String>,
    /// What to do about star tables of which something else changed the rows.
    pub(crate) strange: BTreeMap<String, String>,
}

/// Compares the source's rows with those of which the warehouse knows. `known` is what follows from the batches, and what it lacks is
/// counted; `touched` are the star tables of which a row may have come into quarantine, or out of it; `asked` are the source tables
/// whose keys the batch before asked for.
pub(crate) async fn compare(
    warehouse: &Warehouse<'_>,
    targets: &[Target<'_>],
    known: &BTreeMap<String, Known>,
    touched: &BTreeSet<String>,
    asked: &[String],
) -> Result<Compared, Error> {
    let mut compared = Compared::default();
    for target in targets {
        let Some(driving) = target.table.driving.as_ref().filter(|_| target.marks_deletions()) else { continue };
        let mut known = known.get(target.name).copied();
        if let Some(known) = known.as_mut().filter(|_| touched.contains(target.name)) {
            known.waiting = count(warehouse, target, waiting).await?;
        }
        let there = driving.rows.map(|rows| rows as i64);
        let known = match known {
            Some(known) if there.is_none_or(|there| there == known.rows()) => known,
            _ => Known {
                live: count(warehouse, target, |target, _| live(target)).await?,
                filtered: count(warehouse, target, |target, _| filtered(target)).await?,
                waiting: count(warehouse, target, waiting).await?,
            },
        };
        compared.known.insert(target.name.to_owned(), known);
        match there.map(|there| known.rows().cmp(&there)) {
            // A batch whose rows nobody counted may be written before extract reads the request.
            None if target.table.keys.is_none() && asked.contains(&driving.table) => {
                compared.wanted.insert(driving.table.clone());
            }
            None | Some(Ordering::Equal) => {}
            Some(Ordering::Greater) if target.table.keys.is_none() => {
                compared.wanted.insert(driving.table.clone());
            }
            Some(_) => {
                let what = format!(
                    "{name} holds {held} rows of {table}, which has {there}; something else wrote to it. Run `blackwater extract \
                     --full {table}`",
                    name = target.name,
                    held = known.rows(),
                    table = driving.table,
                    there = there.unwrap_or_default(),
                );
                compared.strange.insert(target.name.to_owned(), what);
            }
        }
    }
    Ok(compared)
}

/// Runs a query that counts. If a key in quarantine is no value of its column's type any more, keys are compared as texts.
async fn count(
    warehouse: &Warehouse<'_>,
    target: &Target<'_>,
    query: impl Fn(&Target<'_>, bool) -> String,
) -> Result<i64, Error> {
    let ask = async |as_text| {
        warehouse.query(warehouse.doing("count the rows of", target), &query(target, as_text), &[]).await
    };
    let rows = match warehouse.attempt(async || ask(false).await).await? {
        Some(rows) => rows,
        None => ask(true).await?,
    };
    Ok(rows.first().map_or(0, |row| row.get(0)))
}

/// The query for the number of rows of which the warehouse knows, all together, that works with whatever is in quarantine.
pub(crate) fn rows(target: &Target<'_>) -> String {
    format!("SELECT ({}) + ({}) + ({})", live(target), filtered(target), waiting(target, true))
}

fn live(target: &Target<'_>) -> String {
    format!("SELECT count(*) FROM {}", target.live())
}

fn filtered(target: &Target<'_>) -> String {
    format!("SELECT count(*) FROM blackwater.filtered q WHERE {}", target.of_table("q"))
}

fn waiting(target: &Target<'_>, as_text: bool) -> String {
    let value = |column: &Column| format!("q.key->>{}", literal(&column.name));
    let equal = match as_text {
        false => target.has_key(value, |column| format!("({})::{}", value(column), column.compared())),
        true => {
            let equal = |column: &&Column| {
                format!("{} = {}", column.key_text(&format!("s.{}", ident(&column.name))), value(column))
            };
            target.key.iter().map(equal).collect::<Vec<_>>().join(" AND ")
        }
    };
    format!(
        "SELECT count(DISTINCT q.key) FROM blackwater.quarantine q
         WHERE {} AND NOT EXISTS (SELECT FROM {} AND {equal})",
        target.of_table("q"),
        target.live()
    )
}
