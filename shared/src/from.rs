//! The tables of a SELECT, and how they are joined.

use std::fmt;

use sqlparser::ast::Ident;

/// A table of a SELECT.
#[derive(Clone, Debug)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// The name that it goes by in the SELECT.
    pub alias: String,
    /// Whether it is a fixed table of the pack.
    pub fixed: bool,
    /// How it is joined; `None` for the driving table.
    pub join: Option<Join>,
}

/// A join on a key of the joined table.
#[derive(Clone, Debug)]
pub struct Join {
    /// Whether a row that it finds no partner for is left out.
    pub inner: bool,
    /// Pairs of columns that must be equal.
    pub on: Vec<On>,
    pub(crate) line: u64,
}

/// One equality of a join.
#[derive(Clone, Debug)]
pub struct On {
    /// The joined table's column.
    pub column: String,
    /// The other table's place in the SELECT.
    pub table: usize,
    /// The other table's column.
    pub other: String,
}

/// FROM and its joins in one way: two SELECTs for which this is the same need the same rows.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(join) = &self.join else { return write!(f, "{:?}", self.name) };
        write!(f, " {} {:?}", if join.inner { "INNER JOIN" } else { "LEFT JOIN" }, self.name)?;
        for On { column, table, other } in &join.on {
            write!(f, " {column:?}={table}.{other:?}")?;
        }
        Ok(())
    }
}

/// Folds a name as Postgres does.
pub(crate) fn name(ident: &Ident) -> String {
    match ident.quote_style {
        None => ident.value.to_ascii_lowercase(),
        Some(_) => ident.value.clone(),
    }
}
