//! One model: the SELECT that makes a star table, read by the parser, version and dialect that
//! polars-sql uses, so that extract and transform understand the same text the same way.
//!
//! What a model may be is an allow-list. What has been understood is printed again and compared
//! with what was parsed, so that a clause nobody thought of here is refused and not ignored.

use std::collections::{BTreeMap, BTreeSet};

use sqlparser::ast::{
    BinaryOperator, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident, Join as SqlJoin,
    JoinConstraint, JoinOperator, ObjectName, ObjectNamePart, Query, Select, SelectItem, SetExpr, Spanned, Statement,
    TableFactor, UnaryOperator, Value,
};
use sqlparser::dialect::GenericDialect;
use sqlparser::parser::{Parser, ParserError};

use crate::pack::FixedTable;

/// Functions that mean the same in polars and in Postgres for values of every type, also for those
/// that travel as text.
const FUNCTIONS: [&str; 1] = ["coalesce"];

/// Why a model is refused.
#[derive(Debug, thiserror::Error)]
#[error("{file}:{line}: {why}")]
pub struct Error {
    file: String,
    line: u64,
    why: String,
}

/// The columns of a model in order: the name, and the driving table's column where it is a plain one.
pub type Output = Vec<(String, Option<String>)>;

/// A checked model.
#[derive(Clone, Debug)]
pub struct Model {
    /// The star table that it makes.
    pub name: String,
    /// Its file, for messages.
    pub file: String,
    /// The source table of which a row makes a row of the star table.
    pub driving: String,
    /// The name that the driving table goes by in the model.
    pub alias: String,
    /// The columns of the driving table that it reads.
    pub reads: BTreeSet<String>,
    /// Those of them that it joins with fixed tables, so that they must be text.
    pub joins: BTreeSet<String>,
    /// The fixed tables that it joins.
    pub fixed: BTreeSet<String>,
    /// What it returns.
    pub output: Output,
    /// The query; every name in it is quoted, those written without quotes in lower case.
    pub query: Query,
}

impl Model {
    /// Reads the text of `<name>.sql`.
    ///
    /// # Errors
    /// With file and line, what a model may not have.
    pub fn parse(name: &str, text: &str, fixed: &BTreeMap<String, FixedTable>) -> Result<Self, Error> {
        let file = format!("{name}.sql");
        let refuse = |line: u64, why: String| Error { file: file.clone(), line, why };
        let statements = Parser::parse_sql(&GenericDialect {}, text).map_err(|error| {
            let (ParserError::TokenizerError(why) | ParserError::ParserError(why)) = error else {
                return refuse(1, error.to_string());
            };
            // The parser's words end in " at Line: 3, Column: 7".
            let line = why.rsplit_once("Line: ").and_then(|(_, rest)| rest.split(',').next()?.parse().ok());
            refuse(line.unwrap_or(1), why)
        })?;
        let [Statement::Query(query)] = statements.as_slice() else {
            return Err(refuse(1, "a model is one SELECT".into()));
        };
        let mut query = query.as_ref().clone();
        let reading =
            Reading { file: &file, fixed, tables: Vec::new(), reads: BTreeSet::new(), joins: BTreeSet::new() };
        let (Reading { reads, joins, tables, .. }, output) = reading.query(&mut query)?;
        let fixed = tables.iter().filter(|table| table.fixed).map(|table| table.name.clone()).collect();
        let driving = &tables[0];
        Ok(Self {
            name: name.into(),
            driving: driving.name.clone(),
            alias: driving.alias.clone(),
            reads,
            joins,
            fixed,
            output,
            query,
            file,
        })
    }
}

impl Model {
    /// The names that the model gives to the columns `primary` of its driving table's primary key.
    ///
    /// # Errors
    /// The column that it does not return as it is.
    pub fn key<'a>(&self, primary: &'a [String]) -> Result<Vec<String>, &'a str> {
        let name = |column: &'a String| {
            let found = self.output.iter().find(|(_, source)| source.as_ref() == Some(column));
            found.map(|(name, _)| name.clone()).ok_or(column.as_str())
        };
        primary.iter().map(name).collect()
    }
}

struct Table {
    name: String,
    alias: String,
    fixed: bool,
}

/// A walk over one model, which quotes every name on its way.
struct Reading<'a> {
    file: &'a str,
    fixed: &'a BTreeMap<String, FixedTable>,
    tables: Vec<Table>,
    reads: BTreeSet<String>,
    joins: BTreeSet<String>,
}

impl Reading<'_> {
    fn refuse(&self, at: &impl Spanned, why: impl Into<String>) -> Error {
        Error { file: self.file.into(), line: at.span().start.line.max(1), why: why.into() }
    }

    fn query(mut self, query: &mut Query) -> Result<(Self, Output), Error> {
        let whole = query.clone();
        let SetExpr::Select(select) = query.body.as_mut() else {
            return Err(self.refuse(&whole, "a model is one plain SELECT"));
        };
        let Some((from, [])) = select.from.split_first_mut() else {
            return Err(self.refuse(&whole, "a model reads FROM one table and JOINs others; commas are not joins"));
        };
        self.table(&mut from.relation, true)?;
        for join in &mut from.joins {
            self.join(join)?;
        }
        let mut output = Output::new();
        for item in &mut select.projection {
            let column = self.output(item)?;
            if output.iter().any(|(name, _)| *name == column.0) {
                return Err(self.refuse(item, format!("the column {} occurs twice", column.0)));
            }
            output.push(column);
        }
        self.nothing_else(&whole, query)?;
        Ok((self, output))
    }

    /// Refuses whatever else the query has beside its columns and its tables.
    fn nothing_else(&self, whole: &Query, understood: &Query) -> Result<(), Error> {
        let SetExpr::Select(select) = understood.body.as_ref() else { return Ok(()) };
        for (found, clause) in [
            (whole.with.is_some(), "WITH"),
            (whole.order_by.is_some(), "ORDER BY"),
            (whole.limit_clause.is_some() || whole.fetch.is_some(), "LIMIT"),
            (select.distinct.is_some(), "DISTINCT"),
            (select.selection.is_some(), "WHERE"),
            (select.having.is_some(), "HAVING"),
            (
                !matches!(&select.group_by, GroupByExpr::Expressions(by, with) if by.is_empty() && with.is_empty()),
                "GROUP BY",
            ),
        ] {
            if found {
                return Err(self.refuse(whole, format!("a model may not have {clause}")));
            }
        }
        let plain = "SELECT 1 FROM t";
        let Ok(mut plain) = Parser::parse_sql(&GenericDialect {}, plain) else { return Ok(()) };
        if let Some(Statement::Query(plain)) = plain.first_mut() {
            if let SetExpr::Select(body) = plain.body.as_mut() {
                let Select { projection, from, .. } = select.as_ref();
                body.projection.clone_from(projection);
                body.from.clone_from(from);
            }
            if plain.to_string() != understood.to_string() {
                return Err(self.refuse(whole, format!("a model may have nothing beside what is read here: {plain}")));
            }
        }
        Ok(())
    }

    fn table(&mut self, factor: &mut TableFactor, driving: bool) -> Result<(), Error> {
        let place = factor.clone();
        let TableFactor::Table { name, alias, .. } = factor else {
            return Err(self.refuse(&place, "a model reads tables, not subqueries or functions"));
        };
        let [ObjectNamePart::Identifier(table)] = name.0.as_mut_slice() else {
            return Err(self.refuse(&place, format!("{name}: name the table alone; the schema is a setting")));
        };
        quote(table);
        let table = table.value.clone();
        let mut understood = name.to_string();
        let alias = match alias {
            Some(alias) => {
                quote(&mut alias.name);
                alias.explicit = true;
                understood.push_str(&format!(" AS {}", alias.name));
                alias.name.value.clone()
            }
            None => table.clone(),
        };
        if factor.to_string() != understood {
            return Err(self.refuse(
                &place,
                format!("a table is written as table or as table AS alias, and nothing more: {factor}"),
            ));
        }
        let fixed = self.fixed.contains_key(&table);
        if driving && fixed {
            return Err(
                self.refuse(&place, format!("{table} is a fixed table of the pack; a model reads FROM a source table"))
            );
        }
        if !driving && !fixed {
            return Err(self.refuse(&place, format!("{table} is not a fixed table of the pack ({table}.csv); joins of source tables are not supported yet")));
        }
        if self.tables.iter().any(|known| known.alias == alias) {
            return Err(self.refuse(&place, format!("the name {alias} occurs twice")));
        }
        self.tables.push(Table { name: table, alias, fixed });
        Ok(())
    }

    fn join(&mut self, join: &mut SqlJoin) -> Result<(), Error> {
        self.table(&mut join.relation, false)?;
        let place = join.relation.clone();
        if join.global {
            return Err(self.refuse(&place, "a join is INNER or LEFT"));
        }
        let on = match &mut join.join_operator {
            JoinOperator::Left(on) | JoinOperator::LeftOuter(on) => on,
            JoinOperator::Join(_) | JoinOperator::Inner(_) => {
                return Err(
                    self.refuse(&place, "a fixed table is joined with LEFT JOIN, or a row that it lacks would be lost")
                );
            }
            _ => return Err(self.refuse(&place, "a join is INNER or LEFT")),
        };
        let JoinConstraint::On(on) = on else {
            return Err(self.refuse(&place, "write the join with ON"));
        };
        let joined = self.tables.len() - 1;
        let mut key = BTreeSet::new();
        self.equalities(on, joined, &mut key)?;
        let Table { name, .. } = &self.tables[joined];
        match self.fixed.get(name).is_some_and(|table| table.is_unique(&key)) {
            true => Ok(()),
            false => {
                Err(self.refuse(&place, format!("{} is not unique in {name}.csv", Vec::from_iter(key).join(", "))))
            }
        }
    }

    /// Reads `a.x = b.y AND …` and collects the columns of the joined table.
    fn equalities(&mut self, on: &mut Expr, joined: usize, key: &mut BTreeSet<String>) -> Result<(), Error> {
        let place = on.clone();
        match on {
            Expr::Nested(inner) => self.equalities(inner, joined, key),
            Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
                self.equalities(left, joined, key)?;
                self.equalities(right, joined, key)
            }
            Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => {
                let (Some(left), Some(right)) = (self.column(left)?, self.column(right)?) else {
                    return Err(self.refuse(&place, "a join compares plain columns"));
                };
                let (looked_up, other) = if left.0 == joined { (left, right) } else { (right, left) };
                if looked_up.0 != joined || other.0 == joined {
                    return Err(self
                        .refuse(&place, "a join compares a column of the joined table with one of a table before it"));
                }
                if !self.tables[other.0].fixed {
                    self.joins.insert(other.1);
                }
                key.insert(looked_up.1);
                Ok(())
            }
            _ => Err(self.refuse(&place, "a join is column = column, with AND between several")),
        }
    }

    fn output(&mut self, item: &mut SelectItem) -> Result<(String, Option<String>), Error> {
        let place = item.clone();
        let (expr, alias) = match item {
            SelectItem::UnnamedExpr(expr) => (expr, None),
            SelectItem::ExprWithAlias { expr, alias } => {
                quote(alias);
                (expr, Some(alias.value.clone()))
            }
            _ => return Err(self.refuse(&place, "write the columns out, without *")),
        };
        let column = self.column(expr)?;
        if column.is_none() {
            self.scalar(expr)?;
        }
        let Some(name) = alias.or_else(|| column.as_ref().map(|(_, name)| name.clone())) else {
            return Err(self.refuse(&place, format!("give {expr} a name with AS")));
        };
        Ok((name, column.filter(|(table, _)| *table == 0).map(|(_, column)| column)))
    }

    /// The table's place and the name if the expression is a plain column.
    fn column(&mut self, expr: &mut Expr) -> Result<Option<(usize, String)>, Error> {
        let place = expr.clone();
        let (table, column) = match expr {
            Expr::Identifier(column) => {
                if self.tables.len() > 1 {
                    return Err(self.refuse(&place, format!("say which table {column} is of: table.{column}")));
                }
                (0, column)
            }
            Expr::CompoundIdentifier(parts) => {
                let [table, column] = parts.as_mut_slice() else {
                    return Err(self.refuse(&place, format!("{place} is not table.column")));
                };
                quote(table);
                let Some(number) = self.tables.iter().position(|known| known.alias == table.value) else {
                    return Err(self.refuse(&place, format!("{table} is not a table of this model")));
                };
                (number, column)
            }
            _ => return Ok(None),
        };
        quote(column);
        let column = column.value.clone();
        let Table { name, fixed, .. } = &self.tables[table];
        if !fixed {
            self.reads.insert(column.clone());
        } else if !self.fixed.get(name).is_some_and(|table| table.columns.contains(&column)) {
            return Err(self.refuse(&place, format!("{name}.csv has no column {column}")));
        }
        Ok(Some((table, column)))
    }

    /// Checks an expression. Nothing in it may compare or compute: some types travel as text, and
    /// text has another order and another equality.
    fn scalar(&mut self, expr: &mut Expr) -> Result<(), Error> {
        let place = expr.clone();
        if self.column(expr)?.is_some() {
            return Ok(());
        }
        match expr {
            // polars reads 0.5 as a float, and a numeric beside it becomes one.
            Expr::Value(value) if matches!(&value.value, Value::Number(digits, _) if digits.contains(['.', 'e', 'E'])) => {
                Err(self.refuse(&place, format!("models may not use {place}: numbers are whole")))
            }
            Expr::Value(value)
                if matches!(
                    value.value,
                    Value::Number(..) | Value::SingleQuotedString(_) | Value::Boolean(_) | Value::Null
                ) =>
            {
                Ok(())
            }
            Expr::Nested(inner) | Expr::IsNull(inner) | Expr::IsNotNull(inner) => self.scalar(inner),
            Expr::UnaryOp { op: UnaryOperator::Not | UnaryOperator::Minus, expr } => self.scalar(expr),
            Expr::BinaryOp { left, op, right } => {
                if !matches!(op, BinaryOperator::And | BinaryOperator::Or) {
                    return Err(self.refuse(&place, format!("models may not use the operator {op}")));
                }
                self.scalar(left)?;
                self.scalar(right)
            }
            Expr::Case { operand: None, conditions, else_result, .. } => {
                for when in conditions {
                    self.scalar(&mut when.condition)?;
                    self.scalar(&mut when.result)?;
                }
                else_result.as_mut().map_or(Ok(()), |expr| self.scalar(expr))
            }
            Expr::Function(function) => {
                let name = function.name.to_string().to_lowercase();
                let FunctionArguments::List(arguments) = &mut function.args else {
                    return Err(self.refuse(&place, format!("models may not use {name}")));
                };
                let written: Vec<_> = arguments.args.iter().map(ToString::to_string).collect();
                let plain = format!("{}({})", function.name, written.join(", "));
                if !FUNCTIONS.contains(&name.as_str()) || plain != place.to_string() {
                    return Err(
                        self.refuse(&place, format!("models may not use {place}; there is {}", FUNCTIONS.join(", ")))
                    );
                }
                function.name = ObjectName::from(vec![Ident::new(name)]);
                for argument in &mut arguments.args {
                    let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = argument else {
                        return Err(self.refuse(&place, format!("{argument} is no argument")));
                    };
                    self.scalar(expr)?;
                }
                Ok(())
            }
            _ => Err(self.refuse(&place, format!("models may not use {place}"))),
        }
    }
}

/// Folds a name as Postgres does, and quotes it so that polars takes it as it is.
fn quote(ident: &mut Ident) {
    if ident.quote_style.is_none() {
        ident.value = ident.value.to_lowercase();
    }
    ident.quote_style = Some('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Model, String> {
        let iso = FixedTable::parse("iso", "code,name,area\nGBP,Pound Sterling,UK\nEUR,Euro,EU\nXEU,Ecu,EU\n").unwrap();
        Model::parse("dim_x", text, &BTreeMap::from([("iso".into(), iso)])).map_err(|error| error.to_string())
    }

    #[test]
    fn a_model_names_its_driving_table_and_its_columns() {
        let model = parse(
            "-- the currencies\nSELECT c.Id, \"c\".code AS currency_code, COALESCE(iso.name, c.code) AS label\n\
             FROM \"Currency\" AS c LEFT JOIN iso ON iso.code = c.code;",
        )
        .unwrap();
        assert_eq!((model.driving.as_str(), model.alias.as_str()), ("Currency", "c"));
        assert_eq!(Vec::from_iter(&model.reads), ["code", "id"]);
        assert_eq!(
            (Vec::from_iter(&model.joins), Vec::from_iter(&model.fixed)),
            (vec![&"code".into()], vec![&"iso".into()])
        );
        let plain = |name: &str, column: &str| (name.to_owned(), Some(column.to_owned()));
        assert_eq!(model.output, [plain("id", "id"), plain("currency_code", "code"), ("label".into(), None)]);
        assert_eq!(
            model.query.to_string(),
            "SELECT \"c\".\"id\", \"c\".\"code\" AS \"currency_code\", coalesce(\"iso\".\"name\", \"c\".\"code\") AS \"label\" \
             FROM \"Currency\" AS \"c\" LEFT JOIN \"iso\" ON \"iso\".\"code\" = \"c\".\"code\""
        );
    }

    #[test]
    fn what_a_model_may_not_have_is_refused_with_file_and_line() {
        for (text, line, why) in [
            ("SELECT a FROM t\nWHER b = 1 x", 2, "Expected"),
            ("SELECT a\nFROM t\nGROUP BY a", 1, "GROUP BY"),
            ("SELECT a FROM t ORDER BY a", 1, "ORDER BY"),
            ("SELECT a FROM t LIMIT 3", 1, "LIMIT"),
            ("SELECT DISTINCT a FROM t", 1, "DISTINCT"),
            ("SELECT a FROM t WHERE b > 1", 1, "WHERE"),
            ("WITH x AS (SELECT 1) SELECT a FROM t", 1, "WITH"),
            ("SELECT a FROM t TABLESAMPLE BERNOULLI (10)", 1, "nothing more"),
            ("SELECT a FROM t AS x (b)", 1, "nothing more"),
            ("SELECT a, COALESCE(DISTINCT b, c) AS d FROM t", 1, "may not use COALESCE(DISTINCT"),
            ("SELECT a, $1 AS d FROM t", 1, "may not use $1"),
            ("SELECT a FROM t FOR UPDATE", 1, "nothing beside"),
            ("SELECT a FROM t UNION SELECT b FROM u", 1, "one plain SELECT"),
            ("SELECT a FROM t, u", 1, "commas"),
            ("SELECT a FROM (SELECT a FROM t) x", 1, "subqueries"),
            ("SELECT a FROM public.t", 1, "the schema is a setting"),
            ("SELECT *\nFROM t", 1, "without *"),
            ("SELECT a,\n sum(b) AS s FROM t", 2, "models may not use sum"),
            ("SELECT a,\n\n now() AS s FROM t", 3, "models may not use now"),
            ("SELECT a, count(*) OVER () AS s FROM t", 1, "models may not use count"),
            ("SELECT a, b / 2 AS half FROM t", 1, "operator /"),
            ("SELECT a, b || 'x' AS c FROM t", 1, "operator ||"),
            ("SELECT a, CASE WHEN b < c THEN 1 END AS d FROM t", 1, "operator <"),
            ("SELECT a, CASE b WHEN 'x' THEN 1 END AS d FROM t", 1, "may not use CASE"),
            ("SELECT a, NULLIF(b, '') AS c FROM t", 1, "may not use NULLIF"),
            ("SELECT a, COALESCE(b, 0.00) AS c FROM t", 1, "numbers are whole"),
            ("SELECT a, CAST(b AS DATE) AS d FROM t", 1, "may not use CAST"),
            ("SELECT a, (SELECT 1) AS d FROM t", 1, "may not use (SELECT 1)"),
            ("SELECT a, COALESCE(b, 1) FROM t", 1, "a name with AS"),
            ("SELECT a, b AS a FROM t", 1, "occurs twice"),
            ("SELECT a FROM iso", 1, "fixed table"),
            ("SELECT t.a FROM t LEFT JOIN u ON u.a = t.a", 1, "not supported yet"),
            ("SELECT t.a FROM t JOIN iso ON iso.code = t.a", 1, "LEFT JOIN"),
            ("SELECT t.a FROM t CROSS JOIN iso", 1, "INNER or LEFT"),
            ("SELECT t.a FROM t LEFT JOIN iso USING (code)", 1, "with ON"),
            ("SELECT t.a FROM t LEFT JOIN iso ON iso.code > t.a", 1, "column = column"),
            ("SELECT t.a FROM t LEFT JOIN iso ON iso.code = 'x'", 1, "plain columns"),
            ("SELECT t.a FROM t LEFT JOIN iso ON iso.area = t.a", 1, "not unique in iso.csv"),
            ("SELECT t.a FROM t LEFT JOIN iso ON iso.colour = t.a", 1, "no column colour"),
            ("SELECT a FROM t LEFT JOIN iso ON iso.code = t.a", 1, "say which table"),
            ("SELECT x.a FROM t", 1, "\"x\" is not a table"),
            ("DELETE FROM t", 1, "one SELECT"),
            ("SELECT a FROM t; SELECT b FROM t", 1, "one SELECT"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.starts_with(&format!("dim_x.sql:{line}: ")) && error.contains(why), "{text}: {error}");
        }
    }
}
