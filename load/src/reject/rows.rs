//! The last resort: the rows that the star table itself refuses, found by writing ever smaller pieces under savepoints, and
//! single rows in the end. What is refused may be anything: an index row that is too large, an exclusion constraint, a trigger.

use std::collections::BTreeSet;

use blackwater_shared::postgres::{Doing, literal};
use futures_util::future::join3;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::checks::{is_null, is_refused_by};
use crate::catalogue::Star;
use crate::error::Error;
use crate::quarantine::Rejected;
use crate::target::Target;
use crate::warehouse::Warehouse;
use crate::write::Statement;

/// Pieces at first.
const PIECES: i32 = 64;
/// Rows that are tried one by one: an exception block costs some 100 µs, a savepoint for a piece more.
const FEW: i64 = 256;
/// If of so many rows none is taken, for a reason that is not the rows' own, the table is at fault.
const ENOUGH: i64 = 32;

/// The SQLSTATE by which [`try_each`] says that a row was not written, and undoes what came before it.
const LEFT_OUT: &str = "BW000";

/// Has the deferred constraints checked now, and later ones at the end of the next statements again.
const CHECK_CONSTRAINTS: &str = "SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED";

/// Why the star table refused rows.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    /// The SQLSTATE.
    state: String,
    message: String,
    detail: Option<String>,
    constraint: Option<String>,
    column: Option<String>,
}

/// The rows of a statement from one number to another, and how many there are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    low: i64,
    high: i64,
    rows: i64,
}

impl Range {
    /// What of the statement's rows is there at all.
    pub(crate) fn all(rows: u64) -> Self {
        Self { low: i64::MIN, high: i64::MAX, rows: rows as i64 }
    }

    /// The range as the first two parameters of a statement.
    fn parameters(&self) -> [(&(dyn ToSql + Sync), Type); 2] {
        [(&self.low, Type::INT8), (&self.high, Type::INT8)]
    }

    const NONE: Self = Self { low: 1, high: 0, rows: 0 };
}

impl Refusal {
    /// Why a statement failed, if that may be a row's fault.
    fn of(error: &tokio_postgres::Error) -> Option<Self> {
        let error = error.as_db_error().filter(|error| may_be_a_rows_fault(error.code().code()))?;
        Some(Self {
            state: error.code().code().to_owned(),
            message: error.message().to_owned(),
            detail: error.detail().map(str::to_owned),
            constraint: error.constraint().map(str::to_owned),
            column: error.column().map(str::to_owned),
        })
    }

    /// A BEFORE trigger returned NULL, and Postgres says nothing.
    fn left_out() -> Self {
        let message = "a trigger of the table left the row out".to_owned();
        Self { state: "P0001".into(), message, detail: None, constraint: None, column: None }
    }

    /// What the function that [`try_each`] makes says of a row.
    fn of_row(row: &Row) -> Self {
        let text = |name: &str| row.get::<_, Option<String>>(name).filter(|text| !text.is_empty());
        let Some(state) = text("state").filter(|state| state != LEFT_OUT) else { return Self::left_out() };
        Self {
            state,
            message: text("message").unwrap_or_default(),
            detail: text("detail"),
            constraint: text("of_constraint"),
            column: text("of_column"),
        }
    }

    /// Whether the row is in the way of another.
    pub(crate) fn is_taken(&self) -> bool {
        matches!(self.state.as_str(), "23505" | "23P01")
    }

    /// Whether a value or a constraint is the reason, and not the code of a trigger.
    fn is_of_data(&self) -> bool {
        self.state.starts_with("22") || self.state.starts_with("23")
    }

    /// Whether the reason is one of these foreign keys.
    pub(crate) fn is_reference(&self, constraints: &BTreeSet<&str>) -> bool {
        self.state == "23503" && self.constraint.as_ref().is_some_and(|name| constraints.contains(name.as_str()))
    }

    /// The row at `pos` as rejected for this reason. The words may hold values of the row.
    pub(crate) fn rejects(&self, star: &Star, pos: i64) -> Rejected {
        let check = || star.checks.iter().find(|check| Some(&check.name) == self.constraint.as_ref());
        let reason = match (self.state.as_str(), &self.column, check()) {
            ("23502", Some(column), _) => is_null(column),
            ("23514", _, Some(check)) => is_refused_by(check),
            ("23503" | "23505" | "23P01", ..) => {
                let detail = self.detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default();
                format!("{}{detail}", self.message)
            }
            _ => self.message.clone(),
        };
        let brief = format!("{} ({})", self.message, self.state);
        Rejected {
            pos,
            reason,
            brief,
            taken: self.constraint.clone().filter(|_| self.is_taken() || self.state == "23503"),
        }
    }

    /// That the table is at fault, and not a row. Without values of rows.
    fn at_fault(&self, warehouse: &Warehouse<'_>, target: &Target<'_>) -> Error {
        let why = format!(
            "the table takes no row: {} ({})\nPut the table or its trigger right, and run again; the batch waits in the log",
            self.message, self.state
        );
        Error::Table { batch: warehouse.batch, table: target.name.into(), why }
    }
}

/// Whether a row may be the reason for an error of this SQLSTATE; else it is the connection, another session, the server's
/// resources, or an operator. <https://www.postgresql.org/docs/current/errcodes-appendix.html>
pub(crate) fn may_be_a_rows_fault(state: &str) -> bool {
    let class = state.get(..2).unwrap_or_default();
    !["08", "25", "26", "28", "40", "53", "55", "57", "58", "F0", "HV"].contains(&class)
        && !["XX001", "XX002"].contains(&state)
}

/// Writes the rows of a statement that are in `range`, all or none: why none. With `check`, the deferred constraints are checked.
pub(crate) async fn write_all(
    warehouse: &Warehouse<'_>,
    target: &Target<'_>,
    statement: &Statement,
    range: Range,
    check: bool,
) -> Result<Option<Refusal>, Error> {
    let doing = warehouse.doing("write the rows of", target);
    let transaction = warehouse.transaction;
    undone_if_refused(warehouse, doing, async || {
        let (close, write) = (statement.close("$1", "$2"), statement.sql("$1", "$2"));
        let parameters = range.parameters();
        let close = async {
            match &close {
                Some(close) => transaction.execute_typed(close, &parameters).await,
                None => Ok(0),
            }
        };
        let write = transaction.execute_typed(&write, &parameters);
        let check = async { if check { transaction.batch_execute(CHECK_CONSTRAINTS).await } else { Ok(()) } };
        // One after the other, each sent before the one before is done.
        let (close, written, check) = join3(close, write, check).await;
        close?;
        let written = written?;
        check?;
        Ok((written as i64 != range.rows).then(Refusal::left_out))
    })
    .await
}

/// Runs a statement that writes so many rows, all or none: whether the star table takes them.
pub(crate) async fn write_unplanned(
    warehouse: &Warehouse<'_>,
    target: &Target<'_>,
    sql: &str,
    rows: u64,
) -> Result<bool, Error> {
    let transaction = warehouse.transaction;
    let refused = undone_if_refused(warehouse, warehouse.doing("write the rows of", target), async || {
        let written = transaction.execute(sql, &[]).await?;
        transaction.batch_execute(CHECK_CONSTRAINTS).await?;
        Ok((written != rows).then(Refusal::left_out))
    });
    Ok(refused.await?.is_none())
}

/// Sends a statement without a row.
///
/// # Errors
/// If it fails: that is no row's fault.
pub(crate) async fn try_statement(
    warehouse: &Warehouse<'_>,
    target: &Target<'_>,
    statement: &Statement,
    check: bool,
) -> Result<(), Error> {
    match write_all(warehouse, target, statement, Range::NONE, check).await? {
        None => Ok(()),
        Some(refusal) => Err(refusal.at_fault(warehouse, target)),
    }
}

/// Has the deferred constraints checked: why they refuse what is written.
pub(crate) async fn check_constraints(warehouse: &Warehouse<'_>) -> Result<Option<Refusal>, Error> {
    undone_if_refused(warehouse, "check the deferred constraints".into(), async || {
        warehouse.transaction.batch_execute(CHECK_CONSTRAINTS).await.map(|()| None)
    })
    .await
}

/// Does `work`, and undoes it if a row may be at fault: why.
async fn undone_if_refused(
    warehouse: &Warehouse<'_>,
    doing: String,
    work: impl AsyncFnOnce() -> Result<Option<Refusal>, tokio_postgres::Error>,
) -> Result<Option<Refusal>, Error> {
    warehouse.savepoint("piece");
    let refusal = match work().await {
        Ok(refusal) => refusal,
        Err(error) => match Refusal::of(&error) {
            Some(refusal) => Some(refusal),
            None => Err(error).doing(doing.as_str())?,
        },
    };
    if refusal.is_none() {
        warehouse.release("piece");
    } else {
        warehouse.undo("piece");
    }
    Ok(refusal)
}

/// What became of the rows of a statement.
pub(crate) struct Tried {
    /// Those that the star table refused.
    pub(crate) rejected: Vec<Rejected>,
    /// Those that count as taken, and are not written.
    pub(crate) presumed: Vec<Rejected>,
}

/// Writes what the star table takes of the rows of a statement. A row that only one of the `presumed`
/// foreign keys refuses counts as taken: what it refers to is written together with it in the end.
///
/// # Errors
/// If the table is at fault and not its rows.
pub(crate) async fn write_in_pieces(
    warehouse: &Warehouse<'_>,
    target: &Target<'_>,
    statement: &Statement,
    rows: u64,
    presumed: &BTreeSet<&str>,
) -> Result<Tried, Error> {
    let doing = || warehouse.doing("try the rows of", target);
    let check = presumed.is_empty();
    try_statement(warehouse, target, statement, check).await?;
    warehouse.run(doing(), &statement.indexes()).await?;
    warehouse.run(doing(), &try_each(statement, check)).await?;
    let mut ranges = split(warehouse, target, statement, Range::all(rows), PIECES).await?;
    let (mut rejected, mut only_presumed, mut tried, mut taken) = (Vec::new(), Vec::new(), 0, 0);
    let mut is_at_fault = !statement.deletes();
    while let Some(range) = ranges.pop() {
        tried += range.rows;
        if range.rows > FEW {
            match write_all(warehouse, target, statement, range, check).await? {
                None => taken += range.rows,
                Some(_) => {
                    tried -= range.rows;
                    ranges.extend(split(warehouse, target, statement, range, 2).await?);
                }
            }
            continue;
        }
        let refused = one_by_one(warehouse, target, range).await?;
        let is_presumed = |(_, refusal): &(i64, Refusal)| refusal.is_reference(presumed);
        let (missing, refused): (Vec<_>, Vec<_>) = refused.into_iter().partition(is_presumed);
        only_presumed.extend(missing.iter().map(|(pos, refusal)| refusal.rejects(target.star, *pos)));
        taken += range.rows - refused.len() as i64;
        if let Some((_, refusal)) = refused.last().filter(|(_, refusal)| !refusal.is_of_data())
            && is_at_fault
            && (taken == 0 && tried >= ENOUGH)
        {
            is_at_fault = takes_none(warehouse, target, &ranges).await?;
            if is_at_fault {
                return Err(refusal.at_fault(warehouse, target));
            }
        }
        rejected.extend(refused.iter().map(|(pos, refusal)| refusal.rejects(target.star, *pos)));
    }
    Ok(Tried { rejected, presumed: only_presumed })
}

/// Whether the table takes the first row of none of these ranges. It is left as it is.
async fn takes_none(warehouse: &Warehouse<'_>, target: &Target<'_>, ranges: &[Range]) -> Result<bool, Error> {
    warehouse.savepoint("sample");
    let mut takes_none = true;
    for range in ranges {
        let first = Range { low: range.low, high: range.low, rows: 1 };
        takes_none &= !one_by_one(warehouse, target, first).await?.is_empty();
    }
    warehouse.undo("sample");
    Ok(takes_none)
}

/// Writes rows one by one: those that are refused.
async fn one_by_one(
    warehouse: &Warehouse<'_>,
    target: &Target<'_>,
    range: Range,
) -> Result<Vec<(i64, Refusal)>, Error> {
    let doing = warehouse.doing("try the rows of", target);
    let rows = warehouse.query(doing, "SELECT * FROM pg_temp.try_each($1, $2)", &range.parameters()).await?;
    let refused: Vec<_> = rows.iter().map(|row| (row.get("pos"), Refusal::of_row(row))).collect();
    match refused.iter().find(|(_, refusal)| !may_be_a_rows_fault(&refusal.state)) {
        Some((_, refusal)) => Err(refusal.at_fault(warehouse, target)),
        None => Ok(refused),
    }
}

/// Splits the rows of a statement into pieces of as many rows each, the first one last.
async fn split(
    warehouse: &Warehouse<'_>,
    target: &Target<'_>,
    statement: &Statement,
    range: Range,
    pieces: i32,
) -> Result<Vec<Range>, Error> {
    let sql = format!(
        "SELECT pg_catalog.min(pos), pg_catalog.max(pos), pg_catalog.count(*) FROM (
             SELECT a.pos, pg_catalog.ntile($3) OVER (ORDER BY a.pos) AS piece FROM pg_temp.action a WHERE {}) p
         GROUP BY piece ORDER BY piece DESC",
        statement.which("$1", "$2")
    );
    let doing = warehouse.doing("try the rows of", target);
    let [low, high] = range.parameters();
    let rows = warehouse.query(doing, &sql, &[low, high, (&pieces, Type::INT4)]).await?;
    Ok(rows.iter().map(|row| Range { low: row.get(0), high: row.get(1), rows: row.get(2) }).collect())
}

/// Makes the function that writes the rows from one number to another one by one, and returns those that are refused. Its
/// variables have names that no column has.
fn try_each(statement: &Statement, check: bool) -> String {
    let at = "\"blackwater:at\"";
    let body = format!(
        "
        #variable_conflict use_column
        DECLARE {at} bigint; \"blackwater:written\" bigint;
        BEGIN
            FOR {at} IN SELECT a.pos FROM pg_temp.action a WHERE {which} ORDER BY a.pos LOOP
                BEGIN
                    {close};
                    {write};
                    GET DIAGNOSTICS \"blackwater:written\" = ROW_COUNT;
                    {check};
                    IF \"blackwater:written\" OPERATOR(pg_catalog.=) 0 THEN
                        RAISE EXCEPTION USING ERRCODE = '{LEFT_OUT}';
                    END IF;
                EXCEPTION WHEN OTHERS OR assert_failure THEN
                    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL,
                        of_constraint = CONSTRAINT_NAME, of_column = COLUMN_NAME;
                    pos := {at};
                    RETURN NEXT;
                END;
            END LOOP;
        END",
        which = statement.which("low", "high"),
        close = statement.close(at, at).unwrap_or("NULL".into()),
        write = statement.sql(at, at),
        check = if check { CHECK_CONSTRAINTS } else { "NULL" },
    );
    format!(
        "DROP FUNCTION IF EXISTS pg_temp.try_each(bigint, bigint);
         CREATE FUNCTION pg_temp.try_each(low bigint, high bigint)
         RETURNS TABLE (pos pg_catalog.int8, state pg_catalog.text, message pg_catalog.text, detail pg_catalog.text,
             of_constraint pg_catalog.text, of_column pg_catalog.text)
         LANGUAGE plpgsql AS {}",
        literal(&body)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_row_can_be_at_fault_for() {
        let of_rows =
            ["21000", "22012", "22021", "23505", "23P01", "2D000", "42501", "42883", "54000", "P0001", "P0004"];
        assert!(of_rows.into_iter().all(may_be_a_rows_fault));
        let others = ["08006", "25P02", "40001", "40P01", "53200", "55P03", "57014", "58030", "XX001"];
        assert!(!others.into_iter().any(may_be_a_rows_fault));
    }
}
