//! Writing: what of the staged rows is new or has changed, and the statements that write it.

mod sql;

use std::collections::BTreeSet;

use blackwater_base::progress::progress;
use tokio_postgres::types::Type;

pub(crate) use sql::{Statement, delete, plan_deletions};

use crate::bulk;
use crate::catalogue::Writing;
use crate::error::Error;
use crate::quarantine::{Rejected, set_aside};
use crate::reject::references;
use crate::reject::rows::{self, Range, Refusal};
use crate::target::Target;
use crate::warehouse::{MANY, Warehouse};

/// So often rows are looked for that keep others from exchanging unique values: each time some are set aside, and those that
/// wanted their values fall with the next. Then all that is left of them waits in quarantine.
const EXCHANGES: u32 = 8;

/// What a batch writes to a star table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    /// Rows that are new; of a history the first versions.
    pub(crate) new: u64,
    /// Rows that have changed; of a history the versions that follow another.
    pub(crate) changed: u64,
    /// Those of them that were marked as deleted.
    pub(crate) revived: u64,
    /// The rows that were staged and not set aside.
    pub(crate) staged: u64,
    /// Those of them that came out of quarantine.
    pub(crate) released: u64,
}

/// Writes the staged rows of one table if there are many and all of them are new, without asking of each what is to be done with it.
/// `None` if that is not so, or the table refuses some: nothing is written.
pub(crate) async fn insert_new(warehouse: &Warehouse<'_>, group: &[&Target<'_>]) -> Result<Option<Written>, Error> {
    let [target] = group else { return Ok(None) };
    if target.table.rows() < MANY || target.rewrites || target.inner_references(group).next().is_some() {
        return Ok(None);
    }
    let doing = || warehouse.doing("look for the rows of", target);
    if !warehouse.query(doing(), &sql::known_row(target), &[]).await?.is_empty() {
        return Ok(None);
    }
    // Where Postgres looks at all rows in the end, nobody need look before.
    let are_keys_down = bulk::are_all_down(warehouse, target).await?;
    if !are_keys_down {
        references::hold_back(warehouse, group).await?;
    }
    let count = warehouse.query(doing(), &sql::count_staged(target), &[]).await?;
    let rows = count.first().map_or(0, |row| row.get::<_, i64>(0) as u64);
    progress(&format!("writing {}", target.name), 0, 0);
    let insert = sql::insert_all(target, warehouse.at);
    let write = async || {
        warehouse.use_own_names();
        let is_written = rows::write_unplanned(warehouse, target, &insert, rows).await?;
        warehouse.use_builtin_names();
        if is_written && are_keys_down {
            bulk::put_back_valid(warehouse, target).await?;
        }
        Ok(is_written)
    };
    let is_written = warehouse.attempt(write).await? == Some(true);
    Ok(is_written.then_some(Written { new: rows, staged: rows, ..Written::default() }))
}

/// Writes the staged rows of a group of tables, and sets aside those that the tables refuse and what refers to these.
/// `was_woken` says that there are rows among them that came out of quarantine.
pub(crate) async fn write(
    warehouse: &Warehouse<'_>,
    group: &[&Target<'_>],
    was_woken: bool,
) -> Result<Vec<Written>, Error> {
    let inner = group.iter().flat_map(|target| target.inner_references(group));
    let inner: BTreeSet<&str> = inner.map(|(_, reference)| reference.constraint.as_str()).collect();
    let mut exchanges = EXCHANGES;
    loop {
        let mut planned = plan(warehouse, group, was_woken).await?;
        warehouse.use_own_names();
        let mut refused = write_group(warehouse, group, &planned, &inner, Way::Plain).await?;
        let may_exchange =
            |(target, planned): (&&Target<'_>, &Written)| planned.changed > 0 && sql::vacate(target).is_some();
        let mut way = Way::Plain;
        if exchanges > 0
            && refused.as_ref().is_some_and(Refusal::is_taken)
            && group.iter().zip(&planned).any(may_exchange)
        {
            way = Way::Vacating;
            exchanges -= 1;
            if write_group(warehouse, group, &planned, &inner, way).await?.is_none() {
                refused = None;
            }
        }
        if refused.as_ref().is_some_and(|refusal| refusal.is_reference(&inner))
            && write_group(warehouse, group, &planned, &inner, Way::NewFirst).await?.is_none()
        {
            refused = None;
        }
        warehouse.use_builtin_names();
        if let Some(refusal) = refused
            && !write_what_fits(warehouse, group, &mut planned, (&inner, was_woken, way), &refusal).await?
        {
            continue;
        }
        return Ok(planned);
    }
}

/// Writes what a group of tables takes of its staged rows, and sets aside the rest with what refers to it. `false` if nothing is
/// written, because what is left must be written in another way: rows that refer to others, or that may exchange unique values.
async fn write_what_fits(
    warehouse: &Warehouse<'_>,
    group: &[&Target<'_>],
    planned: &mut [Written],
    (inner, was_woken, way): (&BTreeSet<&str>, bool, Way),
    refusal: &Refusal,
) -> Result<bool, Error> {
    warehouse.savepoint("search");
    warehouse.use_own_names();
    let (mut found, mut presumed): (Vec<Vec<Rejected>>, Vec<Vec<Rejected>>) = (Vec::new(), Vec::new());
    // A refused row lacks what it had; and rows may exchange values, once those are gone that are refused for another reason.
    let (mut is_emptied, mut may_exchange) = (false, false);
    for (target, planned) in group.iter().zip(planned.iter()) {
        let is_vacated = way == Way::Vacating && planned.changed > 0 && vacate(warehouse, target, *planned).await?;
        let (mut rejected, mut only_presumed) = (Vec::new(), Vec::new());
        for (statement, rows) in statements(target, *planned) {
            let tried = rows::write_in_pieces(warehouse, target, &statement, rows, inner).await?;
            only_presumed.extend(tried.presumed);
            if statement.only_changes() {
                is_emptied |= is_vacated && !tried.rejected.is_empty();
                may_exchange |= way == Way::Plain && tried.rejected.iter().any(|row| row.taken.is_some());
            }
            rejected.extend(tried.rejected);
        }
        found.push(rejected);
        presumed.push(only_presumed);
    }
    may_exchange &= found.iter().flatten().any(|row| row.taken.is_none());
    // Of a history, versions that follow a refused one follow another then. They were in its way, or it in theirs.
    let mut follows_another = false;
    for (target, rejected) in group.iter().zip(&mut found) {
        let open = target.open_versions().filter(|_| was_woken);
        let is_refused = |row: &Rejected| row.taken.is_none() || row.taken.as_deref() != open;
        if open.is_some() && rejected.iter().any(is_refused) {
            rejected.retain(is_refused);
            follows_another = true;
        }
    }
    let all_written = presumed.iter().all(Vec::is_empty)
        && !follows_another
        && (inner.is_empty() || rows::check_constraints(warehouse).await?.is_none());
    warehouse.use_builtin_names();
    if all_written && !is_emptied && !may_exchange && keep_what_fits(warehouse, group, planned, &found, inner).await? {
        warehouse.release("search");
        return Ok(true);
    }
    warehouse.undo("search");
    if found.iter().all(Vec::is_empty) && presumed.iter().any(|rows| !rows.is_empty()) {
        // What they refer to is not written before them, in whatever order.
        found = presumed;
    } else if found.iter().all(Vec::is_empty) {
        // Together they are refused, and each alone is not: a circle falls as a whole.
        for (target, rejected) in group.iter().zip(&mut found) {
            let sql = format!("SELECT pos FROM pg_temp.action WHERE tbl = {}", target.number);
            let rows = warehouse.query(warehouse.doing("set aside rows of", target), &sql, &[]).await?;
            rejected.extend(rows.iter().map(|row| refusal.rejects(target.star, row.get(0))));
        }
    }
    for (target, mut rejected) in group.iter().zip(found) {
        rejected.retain(|row| !may_exchange || row.taken.is_none());
        set_aside::rejected(warehouse, target, &rejected).await?;
    }
    if !inner.is_empty() {
        references::hold_back(warehouse, group).await?;
    }
    Ok(false)
}

/// Empties what the changed rows of a table may exchange: whether it could.
async fn vacate(warehouse: &Warehouse<'_>, target: &Target<'_>, planned: Written) -> Result<bool, Error> {
    let Some(vacate) = sql::vacate(target) else { return Ok(false) };
    Ok(rows::write_all(warehouse, target, &vacate, Range::all(planned.changed), false).await?.is_none())
}

/// Sets aside the rows that a group of tables refused, and counts those that are written: whether nothing refers to the former.
async fn keep_what_fits(
    warehouse: &Warehouse<'_>,
    group: &[&Target<'_>],
    planned: &mut [Written],
    found: &[Vec<Rejected>],
    inner: &BTreeSet<&str>,
) -> Result<bool, Error> {
    let mut written = planned.to_vec();
    for ((target, rejected), written) in group.iter().zip(found).zip(&mut written) {
        let sql = sql::count_rejected(target, warehouse.batch);
        let pos: Vec<_> = rejected.iter().map(|row| row.pos).collect();
        let rows =
            warehouse.query(warehouse.doing("count the rows of", target), &sql, &[(&pos, Type::INT8_ARRAY)]).await?;
        let count = |column: usize| rows.first().map_or(0, |row| row.get::<_, i64>(column) as u64);
        written.new -= count(0);
        written.changed -= count(1);
        written.revived -= count(2);
        written.released -= count(3);
        written.staged -= set_aside::rejected(warehouse, target, rejected).await?;
    }
    if !inner.is_empty() && references::hold_back(warehouse, group).await? > 0 {
        return Ok(false);
    }
    planned.copy_from_slice(&written);
    Ok(true)
}

/// Notes in `pg_temp.action` what is to be done with each staged row; nothing with those that are as they were.
async fn plan(warehouse: &Warehouse<'_>, group: &[&Target<'_>], was_woken: bool) -> Result<Vec<Written>, Error> {
    warehouse.run("clear the actions", "DELETE FROM pg_temp.action").await?;
    let mut planned = Vec::new();
    for target in group {
        let plan = sql::plan(target, was_woken, (warehouse.batch, warehouse.at));
        let rows = warehouse.query(warehouse.doing("compare the rows of", target), &plan, &[]).await?;
        let count = |column: usize| rows.first().map_or(0, |row| row.get::<_, i64>(column) as u64);
        planned.push(Written {
            new: count(0),
            changed: count(1),
            revived: count(2),
            staged: count(3),
            released: count(4),
        });
    }
    if planned.iter().any(|planned| planned.new + planned.changed >= MANY) {
        warehouse.run("count the actions", "ANALYZE pg_temp.action").await?;
    }
    Ok(planned)
}

/// How the rows of a group of tables are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The changed rows of a table, then the new ones, which may take unique values that the former give up.
    Plain,
    /// The same, and changed rows may exchange values of a unique key.
    Vacating,
    /// The new rows first: changed ones may refer to them.
    NewFirst,
}

/// Writes all rows, or none: why none. Of tables that refer to each other the constraints are checked when all are written.
async fn write_group(
    warehouse: &Warehouse<'_>,
    group: &[&Target<'_>],
    planned: &[Written],
    inner: &BTreeSet<&str>,
    way: Way,
) -> Result<Option<Refusal>, Error> {
    warehouse.savepoint("whole");
    let mut refused = None;
    for (target, planned) in group.iter().zip(planned) {
        progress(&format!("writing {}", target.name), 0, 0);
        let mut statements = statements(target, *planned);
        match way {
            Way::Plain => {}
            Way::Vacating if planned.changed > 0 => {
                statements.splice(0..0, sql::vacate(target).map(|vacate| (vacate, planned.changed)));
            }
            Way::Vacating => {}
            Way::NewFirst => statements.reverse(),
        }
        for (statement, rows) in statements {
            if refused.is_none() {
                refused = rows::write_all(warehouse, target, &statement, Range::all(rows), inner.is_empty()).await?;
            }
        }
    }
    if refused.is_none() && !inner.is_empty() {
        refused = rows::check_constraints(warehouse).await?;
    }
    if refused.is_none() {
        warehouse.release("whole");
    } else {
        warehouse.undo("whole");
    }
    Ok(refused)
}

/// The statements that write the planned rows, and how many rows each has.
fn statements(target: &Target<'_>, planned: Written) -> Vec<(Statement, u64)> {
    let statements = match target.writing {
        Writing::Upsert(_) => vec![(sql::update(target), planned.changed), (sql::insert(target), planned.new)],
        Writing::History => vec![(sql::add_versions(target), planned.new + planned.changed)],
    };
    statements.into_iter().filter(|(_, rows)| *rows > 0).collect()
}

/// Sends the statements that write to a group of tables without a row.
///
/// # Errors
/// If a table would take no row at all.
pub(crate) async fn try_statements(warehouse: &Warehouse<'_>, group: &[&Target<'_>]) -> Result<(), Error> {
    let one_of_each = Written { new: 1, changed: 1, ..Written::default() };
    warehouse.use_own_names();
    for target in group {
        for (statement, _) in statements(target, one_of_each) {
            rows::try_statement(warehouse, target, &statement, true).await?;
        }
    }
    warehouse.use_builtin_names();
    Ok(())
}
