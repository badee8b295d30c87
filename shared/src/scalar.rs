//! What a model may compute: expressions with their types. Each means what it means in Postgres;
//! `docs/models.md` lists them. What is not read here is refused.

use std::fmt;

use chrono::{NaiveDate, NaiveDateTime, NaiveTime};
use sqlparser::ast::{
    BinaryOperator, CaseWhen, CastKind, DataType, DateTimeField, ExactNumberInfo, Expr, ExtractSyntax, FunctionArg,
    FunctionArgExpr, FunctionArguments, Spanned, TimezoneInfo, TrimWhereField, TypedString, UnaryOperator, Value,
};

use crate::from::{Table, name};
use crate::refusal::Error;

/// What is known of a type. Values of one that is not listed pass through a model as the text that
/// Postgres printed, and nothing may be computed with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// Not known before the source's catalogue is read.
    Unknown,
    /// `smallint`, `integer`, `bigint`, by their bits.
    Integer(u8),
    /// `numeric(precision, scale)` of up to 38 digits.
    Numeric {
        /// All digits.
        precision: u8,
        /// Those after the point.
        scale: u8,
    },
    /// `boolean`.
    Boolean,
    /// `text` and `varchar`.
    Text,
    /// `date`.
    Date,
    /// `time`, as a CAST makes it. A source column of that type is another type: it may be 24:00.
    Time,
    /// `timestamp` without time zone.
    Timestamp,
    /// `timestamp` with time zone, which travels as text, in UTC.
    TimestampTz,
    /// Any other: it passes through, and may be cast to text.
    Other(String),
    /// One that passes through, and that a CAST to text would change, or that text compares otherwise.
    Opaque(String),
}

impl Type {
    /// The type that Postgres' `format_type` prints as `kind`.
    #[must_use]
    pub fn of(kind: &str) -> Self {
        let (base, digits) = match kind.split_once('(').and_then(|(before, rest)| Some((before, rest.split_once(')')?)))
        {
            Some((before, (digits, after))) => (format!("{before}{after}"), digits.split(',').collect()),
            None => (kind.to_owned(), Vec::new()),
        };
        match (base.as_str(), digits.as_slice()) {
            ("smallint", _) => Self::Integer(16),
            ("integer", _) => Self::Integer(32),
            ("bigint", _) => Self::Integer(64),
            ("boolean", _) => Self::Boolean,
            ("text" | "character varying", _) => Self::Text,
            ("date", _) => Self::Date,
            ("timestamp without time zone", _) => Self::Timestamp,
            ("timestamp with time zone", _) => Self::TimestampTz,
            ("numeric", [precision, scale]) => match (precision.parse(), scale.parse()) {
                (Ok(precision), Ok(scale)) if precision <= 38 && scale <= precision => {
                    Self::Numeric { precision, scale }
                }
                _ => Self::Other(kind.to_owned()),
            },
            _ => Self::Other(kind.to_owned()),
        }
    }

    /// The type of which values of both are.
    fn with(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Unknown, kind) | (kind, Self::Unknown) => Some(kind.clone()),
            (Self::Integer(one), Self::Integer(other)) => Some(Self::Integer(*one.max(other))),
            (Self::Numeric { precision: one, scale }, Self::Numeric { precision: other, scale: same })
                if scale == same =>
            {
                Some(Self::Numeric { precision: *one.max(other), scale: *scale })
            }
            (one, other) => (one == other).then(|| one.clone()),
        }
    }
}

/// As `format_type` prints it, so that a manifest speaks of types as Postgres does.
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Unknown => "any type",
            Self::Integer(16) => "smallint",
            Self::Integer(32) => "integer",
            Self::Integer(_) => "bigint",
            Self::Numeric { precision, scale } => return write!(f, "numeric({precision},{scale})"),
            Self::Boolean => "boolean",
            Self::Text => "text",
            Self::Date => "date",
            Self::Time => "time without time zone",
            Self::Timestamp => "timestamp without time zone",
            Self::TimestampTz => "timestamp with time zone",
            Self::Other(kind) | Self::Opaque(kind) => kind,
        };
        f.write_str(name)
    }
}

/// An expression. Where several parts meet they have been given one type, except that integers
/// may differ in their bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// A column of one of the SELECT's tables, by the table's place.
    Column(usize, String, Type),
    /// A constant, as Postgres prints it; `None` is NULL.
    Literal(Option<String>, Type),
    /// `IS NULL`.
    IsNull(Box<Self>),
    /// `NOT`.
    Not(Box<Self>),
    /// `AND`.
    And(Box<Self>, Box<Self>),
    /// `OR`.
    Or(Box<Self>, Box<Self>),
    /// A comparison.
    Compare(Comparison, Box<Self>, Box<Self>),
    /// `CASE`: conditions with results, and the rest.
    Case(Vec<(Self, Self)>, Box<Self>, Type),
    /// `||`.
    Concat(Box<Self>, Box<Self>),
    /// A function of one text.
    Text(TextFunction, Box<Self>),
    /// `EXTRACT` from a date or timestamp.
    Extract(Field, Box<Self>),
    /// `CAST`, or `TRY_CAST`, which makes NULL of what does not fit.
    Cast {
        /// Of what.
        input: Box<Self>,
        /// To which type.
        to: Type,
        /// Whether a value that does not fit is NULL.
        is_try: bool,
        /// As it is written, for messages.
        text: String,
    },
}

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Functions of one text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextFunction {
    /// Each character in lower case.
    Lower,
    /// Each character in upper case.
    Upper,
    /// Without spaces at both ends.
    Trim,
}

/// What `EXTRACT` gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The year.
    Year,
    /// 1 to 4.
    Quarter,
    /// 1 to 12.
    Month,
    /// The day of the month.
    Day,
    /// The day of the year.
    DayOfYear,
    /// Monday 1 to Sunday 7.
    IsoDayOfWeek,
    /// The week of the ISO year.
    Week,
    /// The hour of a timestamp.
    Hour,
    /// The minute of a timestamp.
    Minute,
}

impl Scalar {
    /// Its type.
    #[must_use]
    pub fn kind(&self) -> Type {
        match self {
            Self::Column(_, _, kind)
            | Self::Literal(_, kind)
            | Self::Case(_, _, kind)
            | Self::Cast { to: kind, .. } => kind.clone(),
            Self::IsNull(_) | Self::Not(_) | Self::And(..) | Self::Or(..) | Self::Compare(..) => Type::Boolean,
            Self::Concat(..) | Self::Text(..) => Type::Text,
            Self::Extract(..) => Type::Integer(32),
        }
    }

    /// Calls `found` with every column in it.
    pub(crate) fn columns(&self, found: &mut impl FnMut(usize, &str)) {
        match self {
            Self::Column(table, name, _) => found(*table, name),
            Self::Literal(..) => {}
            Self::IsNull(one) | Self::Not(one) | Self::Text(_, one) | Self::Extract(_, one) => one.columns(found),
            Self::Cast { input, .. } => input.columns(found),
            Self::And(one, other) | Self::Or(one, other) | Self::Compare(_, one, other) | Self::Concat(one, other) => {
                one.columns(found);
                other.columns(found);
            }
            Self::Case(conditions, rest, _) => {
                for (condition, result) in conditions {
                    condition.columns(found);
                    result.columns(found);
                }
                rest.columns(found);
            }
        }
    }
}

/// What an expression is read in.
pub(crate) struct Scope<'a> {
    pub(crate) file: &'a str,
    pub(crate) tables: &'a [Table],
    /// The type of a table's column, if it has one of that name.
    pub(crate) kind: &'a dyn Fn(&Table, &str) -> Option<Type>,
}

impl Scope<'_> {
    pub(crate) fn refuse(&self, at: &impl Spanned, why: impl Into<String>) -> Error {
        Error::new(self.file, at.span().start.line, why)
    }

    /// Reads an expression.
    pub(crate) fn scalar(&self, expr: &Expr) -> Result<Scalar, Error> {
        let boxed = |expr: &Expr| self.scalar(expr).map(Box::new);
        match expr {
            Expr::Nested(inner) => self.scalar(inner),
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) => self.column(expr),
            Expr::Value(value) => self.literal(expr, &value.value),
            Expr::TypedString(TypedString { data_type, value, uses_odbc_syntax: false }) => {
                let to = self.target(expr, data_type)?;
                self.adapt(expr, self.literal(expr, &value.value)?, &to)
            }
            Expr::IsNull(of) => Ok(Scalar::IsNull(boxed(of)?)),
            Expr::IsNotNull(of) => Ok(Scalar::Not(Box::new(Scalar::IsNull(boxed(of)?)))),
            Expr::UnaryOp { op: UnaryOperator::Not, expr: of } => Ok(Scalar::Not(Box::new(self.condition(of)?))),
            Expr::UnaryOp { op: UnaryOperator::Minus, expr: of } => match self.scalar(of)? {
                Scalar::Literal(Some(digits), kind @ (Type::Integer(_) | Type::Numeric { .. }))
                    if !digits.starts_with('-') =>
                {
                    Ok(Scalar::Literal(Some(format!("-{digits}")), kind))
                }
                _ => Err(self.refuse(expr, format!("models may not compute: {expr}"))),
            },
            Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
                Ok(Scalar::And(Box::new(self.condition(left)?), Box::new(self.condition(right)?)))
            }
            Expr::BinaryOp { left, op: BinaryOperator::Or, right } => {
                Ok(Scalar::Or(Box::new(self.condition(left)?), Box::new(self.condition(right)?)))
            }
            Expr::BinaryOp { left, op: BinaryOperator::StringConcat, right } => {
                Ok(Scalar::Concat(Box::new(self.text(left)?), Box::new(self.text(right)?)))
            }
            Expr::BinaryOp { left, op, right } => {
                let comparison = match op {
                    BinaryOperator::Eq => Comparison::Equal,
                    BinaryOperator::NotEq => Comparison::NotEqual,
                    BinaryOperator::Lt => Comparison::Less,
                    BinaryOperator::LtEq => Comparison::LessOrEqual,
                    BinaryOperator::Gt => Comparison::Greater,
                    BinaryOperator::GtEq => Comparison::GreaterOrEqual,
                    _ => return Err(self.refuse(expr, format!("models may not use the operator {op}"))),
                };
                self.compare(expr, comparison, self.scalar(left)?, self.scalar(right)?)
            }
            Expr::InList { expr: of, list, negated } => {
                let of = self.scalar(of)?;
                let mut any: Option<Scalar> = None;
                for one in list {
                    let equal = self.compare(expr, Comparison::Equal, of.clone(), self.scalar(one)?)?;
                    any = Some(match any {
                        Some(any) => Scalar::Or(Box::new(any), Box::new(equal)),
                        None => equal,
                    });
                }
                let any = any.ok_or_else(|| self.refuse(expr, "the list after IN is empty"))?;
                Ok(if *negated { Scalar::Not(Box::new(any)) } else { any })
            }
            Expr::Between { expr: of, negated, low, high } => {
                let of = self.scalar(of)?;
                let low = self.compare(expr, Comparison::GreaterOrEqual, of.clone(), self.scalar(low)?)?;
                let high = self.compare(expr, Comparison::LessOrEqual, of, self.scalar(high)?)?;
                let both = Scalar::And(Box::new(low), Box::new(high));
                Ok(if *negated { Scalar::Not(Box::new(both)) } else { both })
            }
            Expr::Case { operand, conditions, else_result, .. } => {
                self.case(expr, operand.as_deref(), conditions, else_result.as_deref())
            }
            Expr::Trim {
                trim_where: None | Some(TrimWhereField::Both),
                trim_what: None,
                trim_characters: None,
                expr,
            } => Ok(Scalar::Text(TextFunction::Trim, Box::new(self.text(expr)?))),
            Expr::Extract { field, syntax: ExtractSyntax::From, expr: of } => {
                let field = match field {
                    DateTimeField::Year => Field::Year,
                    DateTimeField::Quarter => Field::Quarter,
                    DateTimeField::Month => Field::Month,
                    DateTimeField::Day => Field::Day,
                    DateTimeField::Doy => Field::DayOfYear,
                    DateTimeField::Isodow => Field::IsoDayOfWeek,
                    DateTimeField::Week(None) => Field::Week,
                    DateTimeField::Hour => Field::Hour,
                    DateTimeField::Minute => Field::Minute,
                    _ => return Err(self.refuse(expr, format!("models may not extract {field}"))),
                };
                let of = self.scalar(of)?;
                match (of.kind(), field) {
                    (Type::Date, Field::Hour | Field::Minute) => Err(self.refuse(expr, "a date has no time")),
                    (Type::Unknown | Type::Date | Type::Timestamp | Type::TimestampTz, _) => {
                        Ok(Scalar::Extract(field, Box::new(of)))
                    }
                    (kind, _) => Err(self.refuse(expr, format!("EXTRACT takes a date or timestamp, not {kind}"))),
                }
            }
            Expr::Cast { kind, expr: of, data_type, array: false, format: None } => {
                let is_try = match kind {
                    CastKind::Cast | CastKind::DoubleColon => false,
                    CastKind::TryCast => true,
                    CastKind::SafeCast => return Err(self.refuse(expr, "write TRY_CAST")),
                };
                self.cast(expr, self.scalar(of)?, self.target(expr, data_type)?, is_try)
            }
            Expr::Function(_) => self.function(expr),
            _ => Err(self.refuse(expr, format!("models may not use {expr}"))),
        }
    }

    /// Reads a plain column.
    pub(crate) fn column(&self, expr: &Expr) -> Result<Scalar, Error> {
        let (place, column) = match expr {
            Expr::Identifier(column) => {
                if self.tables.len() > 1 {
                    return Err(self.refuse(expr, format!("say which table {column} is of: table.{column}")));
                }
                (0, name(column))
            }
            Expr::CompoundIdentifier(parts) => {
                let [table, column] = parts.as_slice() else {
                    return Err(self.refuse(expr, format!("{expr} is not table.column")));
                };
                let alias = name(table);
                let Some(place) = self.tables.iter().position(|known| known.alias == alias) else {
                    return Err(self.refuse(expr, format!("{alias} is not a table of this SELECT")));
                };
                (place, name(column))
            }
            _ => return Err(self.refuse(expr, format!("{expr} is not a plain column"))),
        };
        let table = &self.tables[place];
        match (self.kind)(table, &column) {
            Some(kind) => Ok(Scalar::Column(place, column, kind)),
            None if table.fixed => Err(self.refuse(expr, format!("{}.csv has no column {column}", table.name))),
            None => Err(self.refuse(
                expr,
                format!("the source table {} has no column {column}, or source.exclude names it", table.name),
            )),
        }
    }

    fn literal(&self, at: &Expr, value: &Value) -> Result<Scalar, Error> {
        let (text, kind) = match value {
            Value::Null => return Ok(Scalar::Literal(None, Type::Unknown)),
            Value::SingleQuotedString(text) => (text.clone(), Type::Text),
            Value::Boolean(truth) => (if *truth { "t" } else { "f" }.to_owned(), Type::Boolean),
            Value::Number(digits, false) => {
                let point = digits.split_once('.').map_or(0, |(_, fraction)| fraction.len());
                let kind = match (digits.parse::<i32>(), digits.parse::<i64>()) {
                    (Ok(_), _) => Type::Integer(32),
                    (_, Ok(_)) => Type::Integer(64),
                    _ => Type::of(&format!("numeric({},{point})", digits.len().saturating_sub(1))),
                };
                match kind {
                    Type::Numeric { precision, scale } if !fits_numeric(digits, precision, scale) => {
                        return Err(self.refuse(at, format!("models may not use the number {digits}")));
                    }
                    Type::Other(_) => return Err(self.refuse(at, format!("models may not use the number {digits}"))),
                    kind => (digits.clone(), kind),
                }
            }
            _ => return Err(self.refuse(at, format!("models may not use {at}"))),
        };
        Ok(Scalar::Literal(Some(text), kind))
    }

    /// Gives a constant the type of what it stands beside.
    fn adapt(&self, at: &impl Spanned, scalar: Scalar, to: &Type) -> Result<Scalar, Error> {
        let Scalar::Literal(value, kind) = &scalar else { return Ok(scalar) };
        let fits = match (value, kind, to) {
            (None, ..) | (_, _, Type::Unknown) => true,
            (Some(text), Type::Text, Type::Date) => date(text).is_some(),
            (Some(text), Type::Text, Type::Time) => time(text).is_some(),
            (Some(text), Type::Text, Type::Timestamp) => timestamp(text).is_some(),
            (Some(text), Type::Integer(_) | Type::Numeric { .. }, Type::Numeric { precision, scale }) => {
                fits_numeric(text, *precision, *scale)
            }
            (Some(_), Type::Integer(one), Type::Integer(other)) => one <= other,
            (Some(_), one, other) => one == other,
        };
        match (fits, value) {
            (true, _) if *to == Type::Unknown => Ok(scalar),
            (true, _) => Ok(Scalar::Literal(value.clone(), to.clone())),
            (false, _) if matches!(to, Type::Other(_) | Type::Opaque(_) | Type::TimestampTz) => Err(self.refuse(
                at,
                format!("{to} passes through as text, and no constant may stand beside it; CAST it AS TEXT"),
            )),
            (false, value) => {
                let value = value.as_deref().unwrap_or("NULL");
                let quotes = match (kind, to) {
                    (Type::Text, Type::Integer(_) | Type::Numeric { .. }) => "; write a number without quotes",
                    _ => "",
                };
                Err(self.refuse(at, format!("the constant {value} is no {to} as Postgres prints one{quotes}")))
            }
        }
    }

    /// Gives parts that meet one type.
    fn common(&self, at: &impl Spanned, parts: Vec<Scalar>) -> Result<(Vec<Scalar>, Type), Error> {
        let (constants, others): (Vec<_>, Vec<_>) = parts.iter().partition(|part| matches!(part, Scalar::Literal(..)));
        let mut kind = Type::Unknown;
        for next in others.iter().map(|part| part.kind()) {
            kind = kind
                .with(&next)
                .ok_or_else(|| self.refuse(at, format!("{kind} and {next} do not go together; CAST one of them")))?;
        }
        if kind == Type::Unknown && !others.is_empty() {
            return Ok((parts, kind));
        }
        // Integers widen; other constants follow what is none.
        for next in constants.iter().map(|part| part.kind()) {
            kind = kind.with(&next).unwrap_or(kind);
        }
        let parts = parts.into_iter().map(|part| self.adapt(at, part, &kind)).collect::<Result<_, _>>()?;
        Ok((parts, kind))
    }

    fn compare(&self, at: &Expr, comparison: Comparison, one: Scalar, other: Scalar) -> Result<Scalar, Error> {
        let (parts, kind) = self.common(at, vec![one, other])?;
        let ordered = !matches!(comparison, Comparison::Equal | Comparison::NotEqual);
        match kind {
            Type::Text | Type::Boolean if ordered => {
                Err(self.refuse(at, format!("models may compare {kind} with = and <> only")))
            }
            Type::Other(_) | Type::Opaque(_) | Type::TimestampTz => {
                Err(self
                    .refuse(at, format!("models may not compare {kind}: it passes through as text; CAST it AS TEXT")))
            }
            _ => {
                let mut parts = parts.into_iter().map(Box::new);
                match (parts.next(), parts.next()) {
                    (Some(one), Some(other)) => Ok(Scalar::Compare(comparison, one, other)),
                    _ => Err(self.refuse(at, "a comparison has two sides")),
                }
            }
        }
    }

    /// Reads a condition.
    pub(crate) fn condition(&self, expr: &Expr) -> Result<Scalar, Error> {
        self.of_type(expr, &Type::Boolean, "a condition")
    }

    fn text(&self, expr: &Expr) -> Result<Scalar, Error> {
        self.of_type(expr, &Type::Text, "a text")
    }

    fn of_type(&self, expr: &Expr, kind: &Type, what: &str) -> Result<Scalar, Error> {
        let scalar = self.scalar(expr)?;
        match scalar.kind() {
            Type::Unknown => self.adapt(expr, scalar, kind),
            found if found == *kind => Ok(scalar),
            found => Err(self.refuse(expr, format!("{expr} is {found}, not {what}; CAST it"))),
        }
    }

    fn case(
        &self,
        at: &Expr,
        operand: Option<&Expr>,
        conditions: &[CaseWhen],
        rest: Option<&Expr>,
    ) -> Result<Scalar, Error> {
        let (mut whens, mut results) = (Vec::new(), Vec::new());
        for CaseWhen { condition, result } in conditions {
            whens.push(match operand {
                Some(operand) => self.compare(at, Comparison::Equal, self.scalar(operand)?, self.scalar(condition)?)?,
                None => self.condition(condition)?,
            });
            results.push(self.scalar(result)?);
        }
        results.push(rest.map_or(Ok(Scalar::Literal(None, Type::Unknown)), |rest| self.scalar(rest))?);
        let (mut results, kind) = self.common(at, results)?;
        let rest = results.pop().unwrap_or(Scalar::Literal(None, Type::Unknown));
        Ok(Scalar::Case(whens.into_iter().zip(results).collect(), Box::new(rest), kind))
    }

    fn function(&self, expr: &Expr) -> Result<Scalar, Error> {
        let unknown = || self.refuse(expr, format!("models may not use {expr}"));
        let Expr::Function(function) = expr else { return Err(unknown()) };
        let FunctionArguments::List(list) = &function.args else { return Err(unknown()) };
        let written: Vec<_> = list.args.iter().map(ToString::to_string).collect();
        if format!("{}({})", function.name, written.join(", ")) != expr.to_string() {
            return Err(unknown());
        }
        let mut arguments = Vec::new();
        for argument in &list.args {
            let FunctionArg::Unnamed(FunctionArgExpr::Expr(argument)) = argument else { return Err(unknown()) };
            arguments.push(argument);
        }
        match (function.name.to_string().to_lowercase().as_str(), arguments.as_slice()) {
            ("coalesce", [_, ..]) => {
                let parts = arguments.iter().map(|argument| self.scalar(argument)).collect::<Result<_, _>>()?;
                let (mut parts, kind) = self.common(expr, parts)?;
                let rest = parts.pop().unwrap_or(Scalar::Literal(None, Type::Unknown));
                let given = |part: Scalar| (Scalar::Not(Box::new(Scalar::IsNull(Box::new(part.clone())))), part);
                Ok(Scalar::Case(parts.into_iter().map(given).collect(), Box::new(rest), kind))
            }
            ("nullif", [one, other]) => {
                let one = self.scalar(one)?;
                let equal = self.compare(expr, Comparison::Equal, one.clone(), self.scalar(other)?)?;
                let kind = one.kind();
                Ok(Scalar::Case(vec![(equal, Scalar::Literal(None, kind.clone()))], Box::new(one), kind))
            }
            ("concat", [_, ..]) => {
                // Other than ||, it takes NULL for the empty string.
                let empty = || Scalar::Literal(Some(String::new()), Type::Text);
                let mut all = empty();
                for argument in arguments {
                    let part = self.text(argument)?;
                    let null = Scalar::IsNull(Box::new(part.clone()));
                    let part = Scalar::Case(vec![(null, empty())], Box::new(part), Type::Text);
                    all = Scalar::Concat(Box::new(all), Box::new(part));
                }
                Ok(all)
            }
            ("lower", [of]) => Ok(Scalar::Text(TextFunction::Lower, Box::new(self.text(of)?))),
            ("upper", [of]) => Ok(Scalar::Text(TextFunction::Upper, Box::new(self.text(of)?))),
            _ => Err(unknown()),
        }
    }

    fn cast(&self, at: &Expr, input: Scalar, to: Type, is_try: bool) -> Result<Scalar, Error> {
        let from = input.kind();
        let known = match (&from, &to) {
            (Type::Unknown, _) => true,
            (from, Type::Text) => !matches!(from, Type::Time | Type::Timestamp | Type::Opaque(_)),
            (Type::Text, Type::Date | Type::Time | Type::Timestamp | Type::Integer(_) | Type::Numeric { .. }) => true,
            (Type::Timestamp | Type::TimestampTz, Type::Date | Type::Time) => true,
            (Type::Integer(_), Type::Integer(_) | Type::Numeric { .. }) => true,
            (from, to) => from == to,
        };
        match known {
            true => Ok(Scalar::Cast { input: Box::new(input), to, is_try, text: at.to_string() }),
            false => Err(self.refuse(at, format!("models may not cast {from} to {to}"))),
        }
    }

    /// The type that a CAST names.
    fn target(&self, at: &Expr, kind: &DataType) -> Result<Type, Error> {
        match kind {
            DataType::Date => Ok(Type::Date),
            DataType::Time(None, TimezoneInfo::None) => Ok(Type::Time),
            DataType::Timestamp(None, TimezoneInfo::None) => Ok(Type::Timestamp),
            DataType::Text | DataType::Varchar(None) => Ok(Type::Text),
            DataType::SmallInt(None) => Ok(Type::Integer(16)),
            DataType::Int(None) | DataType::Integer(None) => Ok(Type::Integer(32)),
            DataType::BigInt(None) => Ok(Type::Integer(64)),
            DataType::Numeric(digits) | DataType::Decimal(digits) => match digits {
                ExactNumberInfo::PrecisionAndScale(precision, scale) => {
                    match Type::of(&format!("numeric({precision},{scale})")) {
                        Type::Other(kind) => Err(self.refuse(at, format!("models may not cast to {kind}"))),
                        kind => Ok(kind),
                    }
                }
                _ => Err(self.refuse(at, "say how many digits: NUMERIC(12, 2)")),
            },
            _ => Err(self.refuse(at, format!("models may not cast to {kind}"))),
        }
    }
}

/// A date as `YYYY-MM-DD`, from year 1 to 9999.
#[must_use]
pub fn date(text: &str) -> Option<NaiveDate> {
    let bytes = text.as_bytes();
    if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    let date = NaiveDate::from_ymd_opt(number(&bytes[..4])? as i32, number(&bytes[5..7])?, number(&bytes[8..])?);
    date.filter(|_| &bytes[..4] != b"0000")
}

/// A time of day as `HH:MM:SS` with up to six digits of a second.
#[must_use]
pub fn time(text: &str) -> Option<NaiveTime> {
    let bytes = text.as_bytes();
    if bytes.len() < 8 || bytes[2] != b':' || bytes[5] != b':' {
        return None;
    }
    let micros = match &bytes[8..] {
        [] => 0,
        [b'.', digits @ ..] if (1..=6).contains(&digits.len()) => number(digits)? * 10_u32.pow(6 - digits.len() as u32),
        _ => return None,
    };
    NaiveTime::from_hms_micro_opt(number(&bytes[..2])?, number(&bytes[3..5])?, number(&bytes[6..8])?, micros)
}

/// A date and a time with a space or a `T` between them.
#[must_use]
pub fn timestamp(text: &str) -> Option<NaiveDateTime> {
    let (day, rest) = (text.get(..10)?, text.get(11..)?);
    matches!(text.as_bytes()[10], b' ' | b'T').then(|| Some(date(day)?.and_time(time(rest)?))).flatten()
}

/// Whether a text is a whole number.
#[must_use]
pub fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a text is a number that `numeric(precision, scale)` holds as it is written.
#[must_use]
pub fn fits_numeric(text: &str, precision: u8, scale: u8) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let fraction_digits = if digits.contains('.') { fraction.len() } else { 0 };
    all_digits(whole)
        && all_digits(fraction)
        && fraction_digits <= usize::from(scale)
        && whole.trim_start_matches('0').len() <= usize::from(precision - scale.min(precision))
}

/// Digits only, as a number.
fn number(digits: &[u8]) -> Option<u32> {
    let add = |sum: u32, digit: &u8| digit.is_ascii_digit().then(|| sum * 10 + u32::from(digit - b'0'));
    digits.iter().try_fold(0, add)
}
