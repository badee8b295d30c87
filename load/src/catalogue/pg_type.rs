//! Types as Postgres' `format_type` prints them, and what happens to a value between a model and its column.
//!
//! A value travels as text: the source or the model prints it, COPY reads it into [`PgType::staging_type`],
//! rows for which [`PgType::fits`] does not hold go to quarantine, and the rest is cast to the column's type. Postgres
//! refuses some texts by itself. Others it narrows without a word (`9007199254740993` becomes a
//! double precision, `1.5 s` an `interval(0)`), so [`PgType::accepts`] is a list of the pairs that lose nothing.

use std::fmt;

/// What a model returns that returns NULL alone.
const ANY: &str = "any type";

/// These are printed in another way than by Postgres: the first three by transform, the last by the source's locale.
const PRINTED_OTHERWISE: [&str; 4] = ["boolean", "timestamp without time zone", "time without time zone", "money"];

/// A type of Postgres.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PgType {
    /// The name without modifier and brackets: `timestamp without time zone`, `public."Mood"`.
    name: String,
    /// What the type is cut to: `10,2` of `numeric(10,2)`, `hour to minute` of `interval hour to minute`.
    modifier: Option<String>,
    is_array: bool,
}

/// How `verify` compares what the source printed with what the warehouse prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// Both texts are the same.
    Text,
    /// The source's text, cast to the staging type and then to the column's type, is what the warehouse prints: one value
    /// has several texts (1.5 and 1.50, a padded char, a uuid in capitals), and the casts lose nothing.
    Canonical,
}

/// What a modifier cuts values to.
enum Bound {
    Characters(i32),
    Bits(i32),
    BitsAtMost(i32),
    Digits { whole: i32, scale: i32 },
    Fraction,
}

impl PgType {
    /// Reads what `format_type` prints, and short names for times.
    pub(crate) fn parse(text: &str) -> Self {
        let (element, is_array) = text.strip_suffix("[]").map_or((text, false), |element| (element, true));
        let (name, modifier) = if let Some(fields) = element.strip_prefix("interval ") {
            ("interval".into(), Some(fields.into()))
        } else if let Some((before, rest)) = element.split_at_checked(unquoted(element, '(').unwrap_or(element.len()))
            && let Some((modifier, after)) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')'))
        {
            (format!("{before}{after}"), Some(modifier.into()))
        } else {
            (element.into(), None)
        };
        let name = match name.as_str() {
            "timestamp" | "time" => format!("{name} without time zone"),
            "timestamptz" => "timestamp with time zone".into(),
            _ => name,
        };
        Self { name, modifier, is_array }
    }

    /// Whether no value of the type `model` loses anything silently in a column of this type, which is the one under the
    /// column's domains. A value that does not fit fails by itself or by [`Self::fits`].
    pub(crate) fn accepts(&self, model: &Self) -> bool {
        match (self.is_array, model.is_array) {
            _ if model.name == ANY => true,
            (false, false) => self.accepts_element(model),
            (true, true) => self.accepts_element(model),
            // Transform leaves arrays as Postgres prints them, whatever their elements are.
            (false, true) => self.is_text(),
            (true, false) => false,
        }
    }

    fn accepts_element(&self, model: &Self) -> bool {
        let from = model.name.as_str();
        if self.has_name_of(model) {
            let is_cut = self.modifier.is_some() && self.modifier != model.modifier;
            return self.name != "money" && (!is_cut || self.bound().is_some());
        }
        match self.name.as_str() {
            "smallint" | "integer" | "bigint" | "numeric" => model.bits().is_some(),
            "double precision" => matches!(from, "smallint" | "integer" | "real"),
            "real" => from == "smallint",
            "text" | "character varying" | "character" | "bpchar" => !PRINTED_OTHERWISE.contains(&from),
            "bit" | "bit varying" => matches!(from, "bit" | "bit varying"),
            "json" => from == "jsonb" || model.is_text_like(),
            "inet" => from == "cidr" || model.is_text_like(),
            "uuid" | "cidr" | "macaddr" | "macaddr8" | "xml" => model.is_text_like(),
            // An enum, a composite type, one of an extension. Nobody knows what it does with a modifier.
            _ => self.is_user_defined() && self.modifier.is_none() && model.is_text_like(),
        }
    }

    /// Whether the definition's names agree: a type of a database's own may be in another schema in the other one.
    pub(crate) fn has_name_of(&self, other: &Self) -> bool {
        match (self.local_name(), other.local_name()) {
            (Some(one), Some(other)) => one == other,
            _ => self.name == other.name,
        }
    }

    /// Whether a column of this type can hold every key of the source's type `key`, and prints each in the same way.
    pub(crate) fn can_hold(&self, key: &Self) -> bool {
        let is_whole = self.modifier.is_none();
        // The keys of a type that the source defines are compared as text.
        if self == key || key.is_user_defined() {
            return true;
        }
        if self.is_array || key.is_array {
            return is_whole && (self.name == key.name && self.is_array || self.is_text() && !self.is_array);
        }
        match self.name.as_str() {
            "smallint" | "integer" | "bigint" => key.bits().is_some_and(|bits| Some(bits) <= self.bits()),
            "text" | "character varying" => {
                let is_printed_alike = !PRINTED_OTHERWISE.contains(&key.name.as_str()) && key.name != "numeric";
                is_printed_alike && (is_whole || key.longest() <= self.longest() && key.longest().is_some())
            }
            "character" => key.name == self.name && key.longest() <= self.longest(),
            name => is_whole && name == key.name,
        }
    }

    /// The most characters that a value prints, if there is a limit.
    fn longest(&self) -> Option<i32> {
        match (self.name.as_str(), self.bound()) {
            (_, Some(Bound::Characters(length) | Bound::Bits(length) | Bound::BitsAtMost(length))) => Some(length),
            ("smallint", _) => Some(6),
            ("integer", _) => Some(11),
            ("bigint", _) => Some(20),
            ("uuid", _) => Some(36),
            _ => None,
        }
    }

    /// The type in which values are held before they are judged: one that cuts nothing.
    pub(crate) fn staging_type(&self) -> Self {
        let name = match self.bound() {
            None => return self.clone(),
            Some(Bound::Characters(_)) => "text",
            Some(Bound::Bits(_) | Bound::BitsAtMost(_)) => "bit varying",
            Some(Bound::Digits { .. } | Bound::Fraction) => &self.name,
        };
        Self { name: name.into(), modifier: None, is_array: self.is_array }
    }

    /// The name of a type of Postgres' own that is no array and cuts nothing.
    pub(crate) fn builtin(&self) -> Option<&str> {
        (!self.is_array && self.modifier.is_none() && !self.is_user_defined()).then_some(self.name.as_str())
    }

    /// The condition that `value`, of [`Self::staging_type`], fits this type as it is; `None` where every value does.
    pub(crate) fn fits(&self, value: &str) -> Option<String> {
        let bound = self.bound()?;
        let fits = |value: &str| match &bound {
            Bound::Characters(length) => format!("char_length({value}) <= {length}"),
            Bound::Bits(length) => format!("length({value}) = {length}"),
            Bound::BitsAtMost(length) => format!("length({value}) <= {length}"),
            Bound::Digits { whole, scale } => {
                format!("{value} = 'NaN' OR {value} = round({value}, {scale}) AND abs({value}) < '1e{whole}'::numeric")
            }
            Bound::Fraction => format!("{value} = {value}::{}", Self { is_array: false, ..self.clone() }),
        };
        Some(if self.is_array {
            format!("NOT EXISTS (SELECT FROM unnest({value}) AS e (v) WHERE NOT ({}))", fits("e.v"))
        } else {
            fits(value)
        })
    }

    /// `value`, of this type or of [`Self::staging_type`], as the key of a row is written: in one way, however it is
    /// padded or how many zeros it has.
    pub(crate) fn key_text(&self, value: &str) -> String {
        match self.name.as_str() {
            "character" if !self.is_array => format!("rtrim({value}::text, ' ')"),
            "numeric" if !self.is_array => format!("trim_scale({value}::numeric)::text"),
            _ => format!("{value}::text"),
        }
    }

    /// What [`Self::key_text`] makes of a text that the source printed.
    pub(crate) fn key_of<'t>(&self, text: &'t str) -> &'t str {
        match self.name.as_str() {
            "character" if !self.is_array => text.trim_end_matches(' '),
            "numeric" if !self.is_array && text.contains('.') => text.trim_end_matches('0').trim_end_matches('.'),
            _ => text,
        }
    }

    /// The type in which a text is compared with a value of this type.
    pub(crate) fn compared_type(&self) -> Self {
        if self.name == "character" && !self.is_array {
            self.clone() // padded, as its values are
        } else {
            self.staging_type()
        }
    }

    /// How what a model of the type `model`, which this type accepts, printed is compared with what is in the column.
    pub(crate) fn comparison(&self, model: &Self) -> Comparison {
        let scale = |of: &Self| match of.bound() {
            Some(Bound::Digits { scale, .. }) => Some(scale.max(0)),
            _ => of.bits().map(|_| 0),
        };
        let is_same = match self.name.as_str() {
            _ if model.name == ANY => true,
            "timestamp without time zone" | "time without time zone" | "boolean" | "character" | "bpchar" => false,
            "numeric" => self.modifier.is_none() || scale(self) == scale(model),
            // 1000000 is 1e+06 as a real.
            "double precision" => model.name != "real",
            "uuid" | "inet" | "cidr" | "macaddr" | "macaddr8" | "xml" => self.name == model.name,
            _ => true,
        };
        if is_same { Comparison::Text } else { Comparison::Canonical }
    }

    /// What values are cut to, where [`Self::fits`] can tell.
    fn bound(&self) -> Option<Bound> {
        let numbers = self.modifier.as_ref()?.split(',').map(str::parse);
        let numbers: Vec<i32> = numbers.collect::<Result<_, _>>().ok()?;
        match (self.name.as_str(), numbers.as_slice()) {
            ("character varying" | "character", [length]) => Some(Bound::Characters(*length)),
            ("bit", [length]) => Some(Bound::Bits(*length)),
            ("bit varying", [length]) => Some(Bound::BitsAtMost(*length)),
            ("numeric", [precision, scale]) => Some(Bound::Digits { whole: precision - scale, scale: *scale }),
            (_, [_]) if self.is_time() => Some(Bound::Fraction),
            _ => None,
        }
    }

    /// The bits of an integer type.
    fn bits(&self) -> Option<u8> {
        match self.name.as_str() {
            "smallint" => Some(16),
            "integer" => Some(32),
            "bigint" => Some(64),
            _ => None,
        }
    }

    fn is_time(&self) -> bool {
        let (kind, zone) = self.name.split_once(' ').unwrap_or_default();
        matches!(kind, "timestamp" | "time") && matches!(zone, "without time zone" | "with time zone")
    }

    fn is_text(&self) -> bool {
        matches!(self.name.as_str(), "text" | "character varying" | "character" | "bpchar")
    }

    /// Whether its values may be any text, also those of a type that the source defines.
    fn is_text_like(&self) -> bool {
        self.is_text() || self.is_user_defined()
    }

    /// Whether it is the type of the extension citext.
    pub(crate) fn ignores_case(&self) -> bool {
        self.local_name() == Some("citext") && !self.is_array
    }

    /// Whether it is no type of Postgres itself: it is printed with its schema.
    pub(crate) fn is_user_defined(&self) -> bool {
        self.local_name().is_some()
    }

    /// The name without its schema, of a type that has one.
    fn local_name(&self) -> Option<&str> {
        unquoted(&self.name, '.').map(|dot| &self.name[dot + 1..])
    }
}

impl fmt::Display for PgType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match (&self.modifier, name.split_once(' ')) {
            (None, _) => f.write_str(name)?,
            (Some(modifier), Some((kind, zone))) if self.is_time() => write!(f, "{kind}({modifier}) {zone}")?,
            (Some(fields), _) if name == "interval" && !fields.starts_with(|c: char| c.is_ascii_digit()) => {
                write!(f, "{name} {fields}")?;
            }
            (Some(modifier), _) => write!(f, "{name}({modifier})")?,
        }
        f.write_str(if self.is_array { "[]" } else { "" })
    }
}

/// Where `wanted` first stands outside quotes.
fn unquoted(text: &str, wanted: char) -> Option<usize> {
    let mut is_quoted = false;
    text.char_indices().find_map(|(place, letter)| {
        is_quoted ^= letter == '"';
        (letter == wanted && !is_quoted).then_some(place)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(column: &str, model: &str) -> bool {
        PgType::parse(column).accepts(&PgType::parse(model))
    }

    #[test]
    fn a_type_is_printed_as_it_was_read() {
        for (text, name, modifier, is_array) in [
            ("integer", "integer", None, false),
            ("double precision", "double precision", None, false),
            ("character varying(3)", "character varying", Some("3"), false),
            ("bit varying", "bit varying", None, false),
            ("numeric(10,2)", "numeric", Some("10,2"), false),
            ("numeric(5,-2)[]", "numeric", Some("5,-2"), true),
            ("timestamp(3) without time zone", "timestamp without time zone", Some("3"), false),
            ("time(0) with time zone[]", "time with time zone", Some("0"), true),
            ("timestamp with time zone", "timestamp with time zone", None, false),
            ("interval", "interval", None, false),
            ("interval(0)", "interval", Some("0"), false),
            ("interval hour to minute", "interval", Some("hour to minute"), false),
            ("interval day to second(3)[]", "interval", Some("day to second(3)"), true),
            ("\"char\"", "\"char\"", None, false),
            ("\"bit\"", "\"bit\"", None, false),
            ("public.mood[]", "public.mood", None, true),
            ("public.geometry(Point,4326)", "public.geometry", Some("Point,4326"), false),
            ("\"My (s).\".\"T (x)[]\"(7)[]", "\"My (s).\".\"T (x)[]\"", Some("7"), true),
            ("public.\"say \"\"(x\"\"\"", "public.\"say \"\"(x\"\"\"", None, false),
        ] {
            let read = PgType::parse(text);
            assert_eq!((read.name.as_str(), read.modifier.as_deref(), read.is_array), (name, modifier, is_array));
            assert_eq!(read.to_string(), text);
        }
        for (short, long) in [
            ("timestamp", "timestamp without time zone"),
            ("timestamptz", "timestamp with time zone"),
            ("time", "time without time zone"),
        ] {
            assert_eq!(PgType::parse(short).to_string(), long);
        }
    }

    /// For each type, as that of a column, what it takes beside itself.
    const COLUMNS: [(&str, &[&[&str]]); 60] = [
        ("smallint", &[INTEGERS]),
        ("integer", &[INTEGERS]),
        ("bigint", &[INTEGERS]),
        ("numeric", &[&["smallint", "integer", "bigint", "numeric(10,2)"]]),
        ("numeric(10,2)", &[&["smallint", "integer", "bigint", "numeric"]]),
        ("real", &[&["smallint"]]),
        ("double precision", &[&["smallint", "integer", "real"]]),
        ("money", &[]),
        ("boolean", &[]),
        ("text", &[PRINTED]),
        ("character varying", &[PRINTED]),
        ("character varying(5)", &[PRINTED]),
        ("character(5)", &[PRINTED]),
        ("bpchar", &[PRINTED]),
        ("\"char\"", &[]),
        ("name", &[]),
        ("bytea", &[]),
        ("date", &[]),
        ("time without time zone", &[&["time(3) without time zone"]]),
        ("time(3) without time zone", &[&["time without time zone"]]),
        ("time with time zone", &[]),
        ("timestamp without time zone", &[&["timestamp(3) without time zone"]]),
        ("timestamp(3) without time zone", &[&["timestamp without time zone"]]),
        ("timestamp with time zone", &[&["timestamp(0) with time zone"]]),
        ("timestamp(0) with time zone", &[&["timestamp with time zone"]]),
        ("interval", &[&["interval(0)", "interval hour to minute"]]),
        ("interval(0)", &[]),
        ("interval hour to minute", &[]),
        ("uuid", &[TEXTS]),
        ("json", &[&["jsonb"], TEXTS]),
        ("jsonb", &[]),
        ("jsonpath", &[]),
        ("xml", &[TEXTS]),
        ("inet", &[&["cidr"], TEXTS]),
        ("cidr", &[TEXTS]),
        ("macaddr", &[TEXTS]),
        ("macaddr8", &[TEXTS]),
        ("bit(5)", &[&["bit varying", "bit varying(5)"]]),
        ("bit varying", &[&["bit(5)", "bit varying(5)"]]),
        ("bit varying(5)", &[&["bit(5)", "bit varying"]]),
        ("point", &[]),
        ("line", &[]),
        ("lseg", &[]),
        ("box", &[]),
        ("path", &[]),
        ("polygon", &[]),
        ("circle", &[]),
        ("int4range", &[]),
        ("numrange", &[]),
        ("tstzrange", &[]),
        ("int8multirange", &[]),
        ("tsvector", &[]),
        ("tsquery", &[]),
        ("pg_lsn", &[]),
        ("oid", &[]),
        ("xid", &[]),
        ("xid8", &[]),
        ("tid", &[]),
        ("public.mood", &[TEXTS]),
        ("public.other", &[TEXTS]),
    ];
    const INTEGERS: &[&str] = &["smallint", "integer", "bigint"];
    const TEXTS: &[&str] =
        &["text", "character varying", "character varying(5)", "character(5)", "bpchar", "public.mood", "public.other"];
    /// All that reaches load as Postgres prints it.
    const PRINTED: &[&str] = &[
        "smallint",
        "integer",
        "bigint",
        "numeric",
        "numeric(10,2)",
        "real",
        "double precision",
        "text",
        "character varying",
        "character varying(5)",
        "character(5)",
        "bpchar",
        "\"char\"",
        "name",
        "bytea",
        "date",
        "time with time zone",
        "timestamp with time zone",
        "timestamp(0) with time zone",
        "interval",
        "interval(0)",
        "interval hour to minute",
        "uuid",
        "json",
        "jsonb",
        "jsonpath",
        "xml",
        "inet",
        "cidr",
        "macaddr",
        "macaddr8",
        "bit(5)",
        "bit varying",
        "bit varying(5)",
        "point",
        "line",
        "lseg",
        "box",
        "path",
        "polygon",
        "circle",
        "int4range",
        "numrange",
        "tstzrange",
        "int8multirange",
        "tsvector",
        "tsquery",
        "pg_lsn",
        "oid",
        "xid",
        "xid8",
        "tid",
        "public.mood",
        "public.other",
    ];

    #[test]
    fn a_column_takes_the_types_of_its_list_and_no_other() {
        for (column, taken) in COLUMNS {
            for (model, _) in COLUMNS {
                let is_taken = taken.iter().any(|models| models.contains(&model));
                let expected = is_taken || model == column && column != "money";
                assert_eq!(accepts(column, model), expected, "{model} into {column}");
                let (of_columns, of_models) = (format!("{column}[]"), format!("{model}[]"));
                assert_eq!(accepts(&of_columns, &of_models), expected, "{of_models} into {of_columns}");
                assert!(!accepts(&of_columns, model), "{model} into {of_columns}");
                assert_eq!(accepts(column, &of_models), taken == [PRINTED], "{of_models} into {column}");
            }
            assert!(accepts(column, "any type"), "NULL into {column}");
        }
    }

    #[test]
    fn a_modifier_that_nothing_guards_must_be_the_same() {
        for (column, model, expected) in [
            ("character varying(3)", "character varying(5)", true),
            ("numeric(5,1)", "numeric(10,2)", true),
            ("bit(3)", "bit(5)", true),
            ("timestamp(0) without time zone", "timestamp(3) without time zone", true),
            ("interval(0)", "interval(3)", false),
            ("interval(0)", "interval(0)", true),
            ("interval hour to minute", "interval day to second", false),
            ("interval(0)[]", "interval[]", false),
            ("public.geometry(Point,4326)", "public.geometry(Point,4326)", true),
            ("public.geometry(Point,4326)", "public.geometry", false),
            ("public.geometry", "public.geometry(Point,4326)", true),
            ("public.vector(3)", "text", false),
            // The same type in the schema that each database has it in.
            ("star.geometry(Point,4326)", "public.geometry(Point,4326)", true),
            ("star.\"T.x\"(1)", "public.\"T.x\"(1)", true),
            ("star.\"T.x\"(1)", "public.\"S.x\"(1)", false),
        ] {
            assert_eq!(accepts(column, model), expected, "{model} into {column}");
        }
    }

    #[test]
    fn values_are_staged_uncut_and_judged_by_what_would_cut_them() {
        for (kind, staging, compared, fits) in [
            ("text", "text", "text", None),
            ("interval(0)", "interval(0)", "interval(0)", None),
            ("public.geometry(7)", "public.geometry(7)", "public.geometry(7)", None),
            ("character varying(3)", "text", "text", Some("char_length(v) <= 3")),
            ("character(3)", "text", "character(3)", Some("char_length(v) <= 3")),
            ("bit(3)", "bit varying", "bit varying", Some("length(v) = 3")),
            ("bit varying(3)", "bit varying", "bit varying", Some("length(v) <= 3")),
            ("numeric(5,2)", "numeric", "numeric", Some("v = 'NaN' OR v = round(v, 2) AND abs(v) < '1e3'::numeric")),
            ("numeric(2,4)", "numeric", "numeric", Some("v = 'NaN' OR v = round(v, 4) AND abs(v) < '1e-2'::numeric")),
            (
                "time(3) with time zone",
                "time with time zone",
                "time with time zone",
                Some("v = v::time(3) with time zone"),
            ),
            (
                "timestamp(0) without time zone[]",
                "timestamp without time zone[]",
                "timestamp without time zone[]",
                Some(
                    "NOT EXISTS (SELECT FROM unnest(v) AS e (v) WHERE NOT (e.v = e.v::timestamp(0) without time zone))",
                ),
            ),
            (
                "character(3)[]",
                "text[]",
                "text[]",
                Some("NOT EXISTS (SELECT FROM unnest(v) AS e (v) WHERE NOT (char_length(e.v) <= 3))"),
            ),
        ] {
            let read = PgType::parse(kind);
            assert_eq!(read.staging_type().to_string(), staging, "{kind}");
            assert_eq!(read.compared_type().to_string(), compared, "{kind}");
            assert_eq!(read.fits("v").as_deref(), fits, "{kind}");
        }
    }

    #[test]
    fn a_key_is_written_in_one_way() {
        for (kind, text) in [
            ("integer", "k::text"),
            ("character(3)", "rtrim(k::text, ' ')"),
            ("numeric(5,2)", "trim_scale(k::numeric)::text"),
            ("character(3)[]", "k::text"),
        ] {
            assert_eq!(PgType::parse(kind).key_text("k"), text);
        }
    }

    #[test]
    fn a_key_column_holds_every_key_of_the_source() {
        for (column, key, expected) in [
            ("bigint", "integer", true),
            ("integer", "bigint", false),
            ("integer", "integer", true),
            ("numeric", "integer", false),
            ("text", "integer", true),
            ("text", "character varying(9)", true),
            ("text", "character(3)", true),
            ("text", "uuid", true),
            ("text", "numeric", false),
            ("text", "boolean", false),
            ("text", "timestamp without time zone", false),
            ("text", "time without time zone", false),
            ("text", "timestamp with time zone", true),
            ("text", "integer[]", true),
            ("character varying(5)", "text", false),
            ("character varying(5)", "character varying(5)", true),
            ("character varying(5)", "character varying(6)", false),
            ("character varying(5)", "character(4)", true),
            ("character varying(10)", "integer", false),
            ("character varying(11)", "integer", true),
            ("character varying(36)", "uuid", true),
            ("character varying(36)", "date", false),
            ("character(5)", "character(3)", true),
            ("character(3)", "character(5)", false),
            ("character(3)", "text", false),
            ("boolean", "boolean", true),
            ("numeric", "numeric(5,2)", true),
            ("numeric(5,2)", "numeric(5,2)", true),
            ("numeric(6,2)", "numeric(5,2)", false),
            ("numeric(5,2)", "numeric", false),
            ("timestamp without time zone", "timestamp(3) without time zone", true),
            ("timestamp(3) with time zone", "timestamp with time zone", false),
            ("bit(3)", "bit(5)", false),
            ("date", "timestamp without time zone", false),
            ("uuid", "text", false),
            ("integer[]", "integer[]", true),
            ("numeric[]", "numeric(5,2)[]", true),
            ("bigint[]", "integer[]", false),
            ("integer", "integer[]", false),
            ("text", "public.mood", true),
            ("public.mood", "public.mood", true),
            ("integer", "public.grade", true),
            ("public.mood", "text", false),
        ] {
            assert_eq!(PgType::parse(column).can_hold(&PgType::parse(key)), expected, "{key} into {column}");
        }
    }

    #[test]
    fn what_prints_one_value_in_several_ways_is_compared_by_value() {
        for (column, model) in [
            ("numeric(5,2)", "numeric"),
            ("numeric(5,2)", "numeric(10,3)"),
            ("numeric(5,2)", "integer"),
            ("numeric(5,2)[]", "numeric[]"),
            ("character(3)", "text"),
            ("character(3)", "character(3)"),
            ("uuid", "text"),
            ("uuid[]", "text[]"),
            ("inet", "text"),
            ("inet", "cidr"),
            ("cidr", "text"),
            ("macaddr", "public.mac"),
            ("macaddr8", "text"),
            ("xml", "text"),
            ("double precision", "real"),
            ("boolean", "boolean"),
            ("time without time zone", "time without time zone"),
            ("timestamp(3) without time zone", "timestamp without time zone"),
        ] {
            let comparison = PgType::parse(column).comparison(&PgType::parse(model));
            assert_eq!(comparison, Comparison::Canonical, "{model} in {column}");
        }
        for (column, model) in [
            ("integer", "smallint"),
            ("numeric", "numeric"),
            ("numeric", "numeric(10,2)"),
            ("numeric", "bigint"),
            ("numeric(5,2)", "numeric(10,2)"),
            ("numeric(5,0)", "integer"),
            ("numeric(5,-2)", "integer"),
            ("real", "real"),
            ("double precision", "integer"),
            ("text", "numeric"),
            ("text", "character(3)"),
            ("text", "integer[]"),
            ("character varying(3)", "text"),
            ("date", "date"),
            ("timestamp with time zone", "timestamp with time zone"),
            ("interval", "interval"),
            ("json", "text"),
            ("json", "jsonb"),
            ("jsonb", "jsonb"),
            ("uuid", "uuid"),
            ("inet", "inet"),
            ("bit varying", "bit(3)"),
            ("public.mood", "text"),
            ("public.mood", "public.mood"),
            ("boolean", "any type"),
        ] {
            let comparison = PgType::parse(column).comparison(&PgType::parse(model));
            assert_eq!(comparison, Comparison::Text, "{model} in {column}");
        }
    }
}
