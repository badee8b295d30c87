//! One model: the SELECT, or the SELECTs under UNION, that make a star table.
//!
//! What a model may be is an allow-list, which `docs/models.md` states. What has been understood is
//! printed again and compared with what was parsed, so that a clause nobody thought of here is
//! refused and not ignored.

use std::collections::{BTreeMap, BTreeSet};

use sqlparser::ast::{
    BinaryOperator, Distinct, Expr, GroupByExpr, Join as SqlJoin, JoinConstraint, JoinOperator, ObjectNamePart, Query,
    Select as SqlSelect, SelectItem, SetExpr, SetOperator, SetQuantifier, Spanned, Statement, TableFactor,
};
use sqlparser::dialect::GenericDialect;
use sqlparser::parser::{Parser, ParserError};

use crate::fixed::FixedTable;
use crate::from::name;
pub use crate::from::{Join, On, Table};
pub use crate::refusal::Error;
use crate::scalar::{Scalar, Scope, Type};

/// In rows of several tables, the column that says whether a row has changed.
pub const CHANGED: &str = "blackwater:changed";

/// In rows of several tables, the name of a column: its table's place in the SELECT, and its own.
#[must_use]
pub fn column(table: usize, name: &str) -> String {
    format!("{table}:{name}")
}

/// A checked model.
#[derive(Clone, Debug)]
pub struct Model {
    /// The star table that it makes.
    pub name: String,
    /// Its file, for messages.
    pub file: String,
    /// Whether it is a set of values (UNION or DISTINCT): its rows have no source key.
    pub is_values: bool,
    /// Its SELECTs; more than one under UNION.
    pub selects: Vec<Select>,
    /// The names of its columns.
    pub columns: Vec<String>,
    /// The query, printed in one way whatever its spaces and comments.
    pub text: String,
}

/// One SELECT of a model: a row of its driving table makes a row, if joins and WHERE let it through.
#[derive(Clone, Debug)]
pub struct Select {
    /// The driving table, and the tables that it joins, each after those that its join names.
    pub tables: Vec<Table>,
    /// FROM and its joins, printed in one way.
    pub from: String,
    outputs: Vec<Expr>,
    filter: Option<Expr>,
    /// The columns of each table that it reads.
    reads: Vec<BTreeSet<String>>,
    /// The driving table's column behind each output that is one as it is.
    plain: Vec<Option<String>>,
}

/// A SELECT with the types of its columns.
#[derive(Clone, Debug)]
pub struct Typed {
    /// The columns that it returns.
    pub outputs: Vec<(String, Scalar)>,
    /// Its WHERE.
    pub filter: Option<Scalar>,
}

impl Model {
    /// Reads the text of `<name>.sql`.
    ///
    /// # Errors
    /// With file and line, what a model may not have.
    pub fn parse(name: &str, text: &str, fixed: &BTreeMap<String, FixedTable>) -> Result<Self, Error> {
        let file = format!("{name}.sql");
        let statements = Parser::parse_sql(&GenericDialect {}, text).map_err(|error| {
            let (ParserError::TokenizerError(why) | ParserError::ParserError(why)) = error else {
                return Error::new(&file, 1, error.to_string());
            };
            // The parser's words end in " at Line: 3, Column: 7".
            let line = why.rsplit_once("Line: ").and_then(|(_, rest)| rest.split(',').next()?.parse().ok());
            Error::new(&file, line.unwrap_or(1), why)
        })?;
        let [Statement::Query(query)] = statements.as_slice() else {
            return Err(Error::new(&file, 1, "a model is one SELECT"));
        };
        nothing_around(&file, query)?;
        let mut bodies = Vec::new();
        let is_union = union(&file, query.body.as_ref(), &mut bodies)?;
        let is_values = is_union || bodies.iter().any(|select| select.distinct.is_some());
        let mut columns = Vec::new();
        let mut selects = Vec::new();
        for body in bodies {
            let reading = Reading { file: &file, fixed, tables: Vec::new() };
            selects.push(reading.select(body, &mut columns)?);
        }
        Ok(Self { name: name.into(), is_values, selects, columns, text: query.to_string(), file })
    }

    /// The names that the model gives to the columns `primary` of its driving table's primary key.
    ///
    /// # Errors
    /// The column that it does not return as it is.
    pub fn key<'a>(&self, primary: &'a [String]) -> Result<Vec<String>, &'a str> {
        let plain = &self.selects[0].plain;
        let name = |column: &'a String| {
            let place = plain.iter().position(|source| source.as_ref() == Some(column));
            place.map(|place| self.columns[place].clone()).ok_or(column.as_str())
        };
        primary.iter().map(name).collect()
    }

    /// The source tables that it reads.
    pub fn source_tables(&self) -> impl Iterator<Item = &str> {
        let tables = self.selects.iter().flat_map(|select| &select.tables);
        tables.filter(|table| !table.fixed).map(|table| table.name.as_str())
    }

    /// Whether a source table drives it.
    #[must_use]
    pub fn is_driven_by(&self, table: &str) -> bool {
        self.selects.iter().any(|select| select.driving() == table)
    }

    /// The SELECTs with the types of their columns; `kind` gives the type of a source table's
    /// column, if there is one.
    ///
    /// # Errors
    /// With file and line, what does not fit the types.
    pub fn typed(&self, kind: impl Fn(&str, &str) -> Option<Type>) -> Result<Vec<Typed>, Error> {
        let kind = |table: &Table, column: &str| match table.fixed {
            true => Some(Type::Text),
            false => kind(&table.name, column),
        };
        let typed = |select: &Select| select.typed(&self.file, &self.columns, &kind);
        let typed: Vec<_> = self.selects.iter().map(typed).collect::<Result<_, _>>()?;
        for other in &typed[1..] {
            for ((name, first), (_, other)) in typed[0].outputs.iter().zip(&other.outputs) {
                let (one, other) = (first.kind(), other.kind());
                if one != other {
                    let why = format!("{name} is {one} in the first SELECT and {other} in another; CAST one of them");
                    return Err(Error::new(&self.file, 1, why));
                }
            }
        }
        Ok(typed)
    }

    /// An error in a join of this model.
    #[must_use]
    pub fn bad_join(&self, join: &Join, why: String) -> Error {
        Error::new(&self.file, join.line, why)
    }
}

impl Select {
    /// The table of which a row makes a row.
    #[must_use]
    pub fn driving(&self) -> &str {
        &self.tables[0].name
    }

    /// The columns that it reads of the table at a place.
    #[must_use]
    pub fn reads(&self, table: usize) -> &BTreeSet<String> {
        &self.reads[table]
    }

    fn typed(
        &self,
        file: &str,
        columns: &[String],
        kind: &dyn Fn(&Table, &str) -> Option<Type>,
    ) -> Result<Typed, Error> {
        let scope = Scope { file, tables: &self.tables, kind };
        for table in &self.tables {
            let Some(join) = &table.join else { continue };
            for On { column, table: other, other: its } in &join.on {
                let missing = |table: &Table, column: &str| {
                    let why =
                        format!("the source table {} has no column {column}, or source.exclude names it", table.name);
                    Error::new(file, join.line, why)
                };
                let other = &self.tables[*other];
                let one = kind(table, column).ok_or_else(|| missing(table, column))?;
                let two = kind(other, its).ok_or_else(|| missing(other, its))?;
                if table.fixed && two != one && two != Type::Unknown {
                    let why = format!("{}.{its} is {two}, and the columns of {}.csv are text", other.name, table.name);
                    return Err(Error::new(file, join.line, why));
                }
            }
        }
        let outputs = self.outputs.iter().map(|expr| scope.scalar(expr)).collect::<Result<Vec<_>, _>>()?;
        let filter = self.filter.as_ref().map(|expr| scope.condition(expr)).transpose()?;
        Ok(Typed { outputs: columns.iter().cloned().zip(outputs).collect(), filter })
    }
}

/// The SELECTs of a UNION, and whether there is one.
fn union<'a>(file: &str, body: &'a SetExpr, found: &mut Vec<&'a SqlSelect>) -> Result<bool, Error> {
    match body {
        SetExpr::Select(select) => {
            found.push(select);
            Ok(false)
        }
        SetExpr::SetOperation {
            op: SetOperator::Union,
            set_quantifier: SetQuantifier::None | SetQuantifier::Distinct,
            left,
            right,
        } => {
            union(file, left, found)?;
            union(file, right, found)?;
            Ok(true)
        }
        _ => Err(Error::new(file, body.span().start.line, "a model is one plain SELECT, or several under UNION")),
    }
}

/// Refuses whatever stands around the SELECTs.
fn nothing_around(file: &str, query: &Query) -> Result<(), Error> {
    for (found, clause) in [
        (query.with.is_some(), "WITH"),
        (query.order_by.is_some(), "ORDER BY"),
        (query.limit_clause.is_some() || query.fetch.is_some(), "LIMIT"),
    ] {
        if found {
            return Err(Error::new(file, query.span().start.line, format!("a model may not have {clause}")));
        }
    }
    if query.to_string() != query.body.to_string() {
        return Err(Error::new(
            file,
            query.span().start.line,
            format!("a model may have nothing beside what is read here: {}", query.body),
        ));
    }
    Ok(())
}

/// A walk over one SELECT.
struct Reading<'a> {
    file: &'a str,
    fixed: &'a BTreeMap<String, FixedTable>,
    tables: Vec<Table>,
}

impl Reading<'_> {
    fn refuse(&self, at: &impl Spanned, why: impl Into<String>) -> Error {
        Error::new(self.file, at.span().start.line, why)
    }

    /// `columns` are the names that the first SELECT gives; it fills them.
    fn select(mut self, select: &SqlSelect, columns: &mut Vec<String>) -> Result<Select, Error> {
        let [from] = select.from.as_slice() else {
            return Err(self.refuse(select, "a model reads FROM one table and JOINs others; commas are not joins"));
        };
        self.table(&from.relation, None)?;
        for join in &from.joins {
            self.join(join)?;
        }
        let first = columns.is_empty();
        let (mut outputs, mut names) = (Vec::new(), Vec::new());
        for item in &select.projection {
            let (expr, alias) = match item {
                SelectItem::UnnamedExpr(expr) => (expr, None),
                SelectItem::ExprWithAlias { expr, alias } => (expr, Some(name(alias))),
                _ => return Err(self.refuse(item, "write the columns out, without *")),
            };
            let plain = match expr {
                Expr::Identifier(column) => Some(name(column)),
                Expr::CompoundIdentifier(parts) => parts.last().map(name),
                _ => None,
            };
            outputs.push(expr.clone());
            match alias.or(plain) {
                Some(column) if names.contains(&column) => {
                    return Err(self.refuse(item, format!("the column {column} occurs twice")));
                }
                Some(column) => names.push(column),
                // Under UNION the first SELECT gives the names.
                None if first => return Err(self.refuse(item, format!("give {expr} a name with AS"))),
                None => names.push(format!("column {}", names.len())),
            }
        }
        match first {
            true => *columns = names,
            false if columns.len() != names.len() => {
                let why = format!("the first SELECT has {} columns, this one {}", columns.len(), names.len());
                return Err(self.refuse(select, why));
            }
            false => {}
        }
        self.nothing_else(select)?;
        self.checked(outputs, select.selection.clone(), columns)
    }

    /// Reads the expressions without types, to refuse what no types would allow, and to learn
    /// which columns they read.
    fn checked(self, outputs: Vec<Expr>, filter: Option<Expr>, columns: &[String]) -> Result<Select, Error> {
        let known = |table: &Table, column: &str| untyped(self.fixed, table, column);
        let reads = vec![BTreeSet::new(); self.tables.len()];
        let from = self.tables.iter().map(ToString::to_string).collect();
        let mut select = Select { from, tables: self.tables, outputs, filter, reads, plain: Vec::new() };
        let Typed { outputs, filter } = select.typed(self.file, columns, &known)?;
        let Select { tables, reads, .. } = &mut select;
        for (place, table) in tables.iter().enumerate() {
            for On { column, table: other, other: its } in table.join.iter().flat_map(|join| &join.on) {
                reads[place].insert(column.clone());
                reads[*other].insert(its.clone());
            }
        }
        let mut read = |table: usize, column: &str| {
            reads[table].insert(column.to_owned());
        };
        for scalar in outputs.iter().map(|(_, scalar)| scalar).chain(&filter) {
            scalar.columns(&mut read);
        }
        let plain = |(_, scalar): &(String, Scalar)| match scalar {
            Scalar::Column(0, column, _) => Some(column.clone()),
            _ => None,
        };
        select.plain = outputs.iter().map(plain).collect();
        Ok(select)
    }

    /// Refuses whatever else the SELECT has beside its columns, its tables and WHERE.
    fn nothing_else(&self, select: &SqlSelect) -> Result<(), Error> {
        for (found, clause) in [
            (select.having.is_some(), "HAVING"),
            (
                !matches!(&select.group_by, GroupByExpr::Expressions(by, with) if by.is_empty() && with.is_empty()),
                "GROUP BY",
            ),
        ] {
            if found {
                return Err(self.refuse(select, format!("a model may not have {clause}")));
            }
        }
        let Ok(mut plain) = Parser::parse_sql(&GenericDialect {}, "SELECT 1 FROM t") else { return Ok(()) };
        if let Some(Statement::Query(plain)) = plain.first_mut()
            && let SetExpr::Select(plain) = plain.body.as_mut()
        {
            plain.projection.clone_from(&select.projection);
            plain.from.clone_from(&select.from);
            plain.selection.clone_from(&select.selection);
            plain.distinct = select.distinct.clone().filter(|distinct| matches!(distinct, Distinct::Distinct));
            if plain.to_string() != select.to_string() {
                return Err(self.refuse(select, format!("a model may have nothing beside what is read here: {plain}")));
            }
        }
        Ok(())
    }

    fn table(&mut self, factor: &TableFactor, join: Option<Join>) -> Result<(), Error> {
        let TableFactor::Table { name: path, alias, .. } = factor else {
            return Err(self.refuse(factor, "a model reads tables, not subqueries or functions"));
        };
        let [ObjectNamePart::Identifier(table)] = path.0.as_slice() else {
            return Err(self.refuse(factor, format!("{path}: name the table alone; the schema is a setting")));
        };
        let written = factor.to_string();
        let understood = match alias {
            Some(alias) => [format!("{path} AS {}", alias.name), format!("{path} {}", alias.name)],
            None => [path.to_string(), path.to_string()],
        };
        if !understood.contains(&written) {
            let why = format!("a table is written as table or as table AS alias, and nothing more: {written}");
            return Err(self.refuse(factor, why));
        }
        let table = name(table);
        let alias = alias.as_ref().map_or_else(|| table.clone(), |alias| name(&alias.name));
        let fixed = self.fixed.contains_key(&table);
        if join.is_none() && fixed {
            let why = format!("{table} is a fixed table of the pack; a model reads FROM a source table");
            return Err(self.refuse(factor, why));
        }
        if self.tables.iter().any(|known| known.alias == alias) {
            return Err(self.refuse(factor, format!("the name {alias} occurs twice")));
        }
        self.tables.push(Table { name: table, alias, fixed, join });
        Ok(())
    }

    fn join(&mut self, join: &SqlJoin) -> Result<(), Error> {
        let at = &join.relation;
        let (inner, on) = match &join.join_operator {
            JoinOperator::Left(on) | JoinOperator::LeftOuter(on) => (false, on),
            JoinOperator::Join(on) | JoinOperator::Inner(on) => (true, on),
            _ => return Err(self.refuse(at, "a join is INNER or LEFT")),
        };
        if join.global {
            return Err(self.refuse(at, "a join is INNER or LEFT"));
        }
        let JoinConstraint::On(on) = on else {
            return Err(self.refuse(at, "write the join with ON"));
        };
        let line = at.span().start.line;
        self.table(at, Some(Join { inner, on: Vec::new(), line }))?;
        let mut pairs = Vec::new();
        self.equalities(on, &mut pairs)?;
        let Some(Table { name, fixed, .. }) = self.tables.last() else { return Ok(()) };
        if *fixed {
            let key: BTreeSet<_> = pairs.iter().map(|pair| pair.column.clone()).collect();
            if !self.fixed.get(name).is_some_and(|table| table.is_unique(&key)) {
                let why = format!("{} is not unique in {name}.csv", Vec::from_iter(key).join(", "));
                return Err(self.refuse(at, why));
            }
        } else if let Some(On { table, .. }) = pairs.iter().find(|pair| self.tables[pair.table].fixed) {
            let why = format!(
                "a source table is joined on columns of source tables, and {} is a fixed table",
                self.tables[*table].name
            );
            return Err(self.refuse(at, why));
        }
        if let Some(table) = self.tables.last_mut() {
            table.join = Some(Join { inner, on: pairs, line });
        }
        Ok(())
    }

    /// Reads `a.x = b.y AND …` of the join of the last table.
    fn equalities(&self, on: &Expr, pairs: &mut Vec<On>) -> Result<(), Error> {
        match on {
            Expr::Nested(inner) => self.equalities(inner, pairs),
            Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
                self.equalities(left, pairs)?;
                self.equalities(right, pairs)
            }
            Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => {
                let known = |table: &Table, column: &str| untyped(self.fixed, table, column);
                let scope = Scope { file: self.file, tables: &self.tables, kind: &known };
                let (Scalar::Column(left, left_column, _), Scalar::Column(right, right_column, _)) =
                    (scope.column(left)?, scope.column(right)?)
                else {
                    return Err(self.refuse(on, "a join compares plain columns"));
                };
                let joined = self.tables.len() - 1;
                match (left == joined, right == joined) {
                    (true, false) => pairs.push(On { column: left_column, table: right, other: right_column }),
                    (false, true) => pairs.push(On { column: right_column, table: left, other: left_column }),
                    _ => {
                        let why = "a join compares a column of the joined table with one of a table before it";
                        return Err(self.refuse(on, why));
                    }
                }
                Ok(())
            }
            _ => Err(self.refuse(on, "a join is column = column, with AND between several")),
        }
    }
}

/// The type of a column before the source's catalogue is read.
fn untyped(fixed: &BTreeMap<String, FixedTable>, table: &Table, column: &str) -> Option<Type> {
    match fixed.get(&table.name) {
        Some(fixed) => fixed.columns.iter().any(|known| known == column).then_some(Type::Text),
        None => Some(Type::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Model, String> {
        let iso = FixedTable::parse("iso", "code,name,area\nGBP,Pound Sterling,UK\nEUR,Euro,EU\nXEU,Ecu,EU\n").unwrap();
        Model::parse("dim_x", text, &BTreeMap::from([("iso".into(), iso)])).map_err(|error| error.to_string())
    }

    #[test]
    fn a_model_names_its_tables_and_its_columns() {
        let model = parse(
            "-- the currencies\nSELECT c.Id, \"c\".code AS currency_code, COALESCE(iso.name, Bank.\"Label\") AS label\n\
             FROM \"Currency\" AS c LEFT JOIN iso ON iso.code = c.code JOIN bank ON (c.bank = bank.id AND bank.x = c.x)\n\
             WHERE c.dead = FALSE;",
        )
        .unwrap();
        let [select] = model.selects.as_slice() else { panic!("{model:?}") };
        assert_eq!((select.driving(), model.is_values), ("Currency", false));
        assert!(model.source_tables().eq(["Currency", "bank"]));
        let reads: Vec<_> = (0..3).map(|table| Vec::from_iter(select.reads(table).clone())).collect();
        assert_eq!(reads, [vec!["bank", "code", "dead", "id", "x"], vec!["code", "name"], vec!["Label", "id", "x"]]);
        assert_eq!(model.columns, ["id", "currency_code", "label"]);
        assert_eq!(model.key(&["code".into(), "id".into()]), Ok(vec!["currency_code".into(), "id".into()]));
        assert_eq!(model.key(&["x".into()]), Err("x"));
        assert_eq!(
            select.from,
            "\"Currency\" LEFT JOIN \"iso\" \"code\"=0.\"code\" INNER JOIN \"bank\" \"id\"=0.\"bank\" \"x\"=0.\"x\""
        );
    }

    #[test]
    fn a_union_or_distinct_is_a_set_of_values() {
        let model =
            parse("SELECT a AS x, b FROM t UNION SELECT CAST(d AS DATE), c FROM u WHERE d IS NOT NULL").unwrap();
        assert!(model.is_values && model.is_driven_by("t") && model.is_driven_by("u"));
        assert_eq!(model.columns, ["x", "b"]);
        let typed =
            |kind: &'static str| model.typed(|_, column| Some(Type::of(if column == "d" { "text" } else { kind })));
        assert!(typed("date").is_ok());
        let error = typed("integer").unwrap_err().to_string();
        assert!(error.contains("x is integer in the first SELECT and date in another"), "{error}");
        assert!(parse("SELECT DISTINCT a FROM t").unwrap().is_values);
    }

    #[test]
    fn what_the_types_do_not_allow_is_refused_with_file_and_line() {
        let kinds = |_: &str, column: &str| match column {
            "gone" => None,
            "i" => Some("integer"),
            "n" => Some("numeric(10,2)"),
            "bare" => Some("numeric"),
            "d" => Some("date"),
            "ts" => Some("timestamp(3) without time zone"),
            "tz" => Some("timestamp with time zone"),
            "u" => Some("uuid"),
            "b" => Some("boolean"),
            _ => Some("character varying(3)"),
        };
        let check = |expr: &str| {
            let model = parse(&format!("SELECT\n{expr} AS x FROM t"))?;
            let typed =
                model.typed(|table, column| kinds(table, column).map(Type::of)).map_err(|error| error.to_string())?;
            Ok::<_, String>(typed[0].outputs[0].1.kind().to_string())
        };
        for (expr, kind) in [
            ("COALESCE(i, 5000000000)", "bigint"),
            ("COALESCE(n, 0)", "numeric(10,2)"),
            ("COALESCE(n, -0.5)", "numeric(10,2)"),
            ("COALESCE(NULL, d, '2024-02-29')", "date"),
            ("CASE WHEN d BETWEEN '2024-01-01' AND DATE '2024-12-31' OR i IN (1, 2) THEN v END", "text"),
            ("CASE v WHEN 'a' THEN 1 WHEN 'b' THEN NULL ELSE i END", "integer"),
            ("CAST(u AS TEXT) || v", "text"),
            ("EXTRACT(ISODOW FROM CAST(tz AS DATE))", "integer"),
            ("CAST(v AS NUMERIC(12, 3))", "numeric(12,3)"),
            ("ts::time", "time without time zone"),
            ("TRY_CAST(v AS TIMESTAMP) >= ts", "boolean"),
            ("NULLIF(TRIM(LOWER(v)), '')", "text"),
            ("bare", "numeric"),
            ("u", "uuid"),
        ] {
            assert_eq!(check(expr).as_deref(), Ok(kind), "{expr}");
        }
        for (expr, why) in [
            ("gone", "no column gone"),
            ("CASE WHEN v > 'a' THEN 1 END", "= and <> only"),
            ("CASE WHEN u = v THEN 1 END", "uuid and text do not go together"),
            ("CASE WHEN bare = 1 THEN 1 END", "numeric passes through as text"),
            ("CASE WHEN u = u THEN 1 END", "may not compare uuid"),
            ("CASE WHEN tz = tz THEN 1 END", "may not compare timestamp with time zone"),
            ("CASE WHEN i THEN 1 END", "i is integer, not a condition"),
            ("COALESCE(i, 'x')", "the constant x is no integer"),
            ("COALESCE(n, 0.005)", "0.005 is no numeric(10,2)"),
            ("COALESCE(n, 123456789)", "123456789 is no numeric(10,2)"),
            ("COALESCE(d, '29.02.2024')", "29.02.2024 is no date"),
            ("COALESCE(d, ts)", "date and timestamp without time zone do not go together"),
            ("COALESCE(u, 'x')", "uuid passes through as text"),
            ("CAST(b AS DATE)", "cast boolean to date"),
            ("CAST(ts AS TEXT)", "cast timestamp without time zone to text"),
            ("CAST(bare AS NUMERIC(10,2))", "cast numeric to numeric(10,2)"),
            ("EXTRACT(HOUR FROM d)", "a date has no time"),
            ("EXTRACT(YEAR FROM v)", "not text"),
            ("LOWER(i)", "i is integer, not a text"),
            ("v || i", "i is integer, not a text"),
        ] {
            let error = check(expr).expect_err(expr);
            assert!(error.starts_with("dim_x.sql:") && error.contains(why), "{expr}: {error}");
        }
    }

    #[test]
    fn what_a_model_may_not_have_is_refused_with_file_and_line() {
        for (text, line, why) in [
            ("SELECT a FROM t\nWHER b = 1 x", 2, "Expected"),
            ("SELECT a\nFROM t\nGROUP BY a", 1, "GROUP BY"),
            ("SELECT a FROM t ORDER BY a", 1, "ORDER BY"),
            ("SELECT a FROM t LIMIT 3", 1, "LIMIT"),
            ("SELECT DISTINCT ON (a) a, b FROM t", 1, "nothing beside"),
            ("SELECT a FROM t QUALIFY b", 1, "nothing beside"),
            ("WITH x AS (SELECT 1) SELECT a FROM t", 1, "WITH"),
            ("SELECT a FROM t TABLESAMPLE BERNOULLI (10)", 1, "nothing more"),
            ("SELECT a FROM t AS x (b)", 1, "nothing more"),
            ("SELECT a, COALESCE(DISTINCT b, c) AS d FROM t", 1, "may not use COALESCE(DISTINCT"),
            ("SELECT a, $1 AS d FROM t", 1, "may not use $1"),
            ("SELECT a FROM t FOR UPDATE", 1, "nothing beside"),
            ("SELECT a FROM t UNION ALL SELECT b FROM u", 1, "one plain SELECT"),
            ("SELECT a FROM t\nEXCEPT SELECT b FROM u", 1, "one plain SELECT"),
            ("SELECT a FROM t UNION\nSELECT b, c FROM u", 2, "1 columns, this one 2"),
            ("SELECT a FROM t, u", 1, "commas"),
            ("SELECT a FROM (SELECT a FROM t) x", 1, "subqueries"),
            ("SELECT a FROM public.t", 1, "the schema is a setting"),
            ("SELECT *\nFROM t", 1, "without *"),
            ("SELECT a,\n sum(b) AS s FROM t", 2, "models may not use sum"),
            ("SELECT a,\n\n now() AS s FROM t", 3, "models may not use now"),
            ("SELECT a, count(*) OVER () AS s FROM t", 1, "models may not use count"),
            ("SELECT a, b / 2 AS half FROM t", 1, "operator /"),
            ("SELECT a, b LIKE 'x%' AS c FROM t", 1, "may not use b LIKE"),
            ("SELECT a, COALESCE(b, 1e5) AS c FROM t", 1, "may not use the number 1e5"),
            ("SELECT a, CAST(b AS uuid) AS d FROM t", 1, "may not cast to UUID"),
            ("SELECT a, CAST(b AS NUMERIC) AS d FROM t", 1, "how many digits"),
            ("SELECT a, b IN (SELECT c FROM u) AS d FROM t", 1, "may not use b IN (SELECT"),
            ("SELECT a, current_date AS d FROM t", 1, "may not use current_date"),
            ("SELECT a, (SELECT 1) AS d FROM t", 1, "may not use (SELECT 1)"),
            ("SELECT a, COALESCE(b, 1) FROM t", 1, "a name with AS"),
            ("SELECT a, b AS a FROM t", 1, "occurs twice"),
            ("SELECT a FROM iso", 1, "fixed table"),
            ("SELECT t.a FROM t FULL JOIN u ON u.a = t.a", 1, "INNER or LEFT"),
            ("SELECT t.a FROM t NATURAL JOIN u", 1, "with ON"),
            ("SELECT t.a FROM t LEFT JOIN u ON u.a = t.a AND u.b = 3", 1, "not a plain column"),
            ("SELECT t.a FROM t LEFT JOIN u ON u.a = u.b", 1, "one of a table before it"),
            ("SELECT t.a FROM t LEFT JOIN t ON t.a = t.b", 1, "occurs twice"),
            ("SELECT t.a FROM t LEFT JOIN iso ON iso.code = t.a\nLEFT JOIN u ON u.a = iso.name", 2, "fixed table"),
            ("SELECT t.a FROM t CROSS JOIN iso", 1, "INNER or LEFT"),
            ("SELECT t.a FROM t LEFT JOIN iso USING (code)", 1, "with ON"),
            ("SELECT t.a FROM t LEFT JOIN iso ON iso.code > t.a", 1, "column = column"),
            ("SELECT t.a FROM t LEFT JOIN iso ON iso.code = 'x'", 1, "not a plain column"),
            ("SELECT t.a FROM t LEFT JOIN iso ON iso.area = t.a", 1, "not unique in iso.csv"),
            ("SELECT t.a FROM t LEFT JOIN iso ON iso.colour = t.a", 1, "no column colour"),
            ("SELECT a FROM t LEFT JOIN iso ON iso.code = t.a", 1, "say which table"),
            ("SELECT x.a FROM t", 1, "x is not a table"),
            ("DELETE FROM t", 1, "one SELECT"),
            ("SELECT a FROM t; SELECT b FROM t", 1, "one SELECT"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.starts_with(&format!("dim_x.sql:{line}: ")) && error.contains(why), "{text}: {error}");
        }
    }
}
