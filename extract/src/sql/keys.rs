//! Rows by their primary keys.

use blackwater_shared::postgres::literal;

use super::predicate::Predicate;
use crate::changes::Key;

/// A column to compare with a value of a key: how SQL names it, and the type of the key's column.
pub(crate) struct KeyColumn {
    pub(crate) name: String,
    pub(crate) kind: String,
}

/// The condition that the columns have the values of one of the keys, which an index on them serves.
pub(crate) fn among<'k>(columns: &[KeyColumn], keys: impl IntoIterator<Item = &'k Key>) -> Predicate {
    let mut values = vec![Vec::new(); columns.len()];
    for key in keys {
        values.iter_mut().zip(key).for_each(|(column, value)| column.push(element(value)));
    }
    if values.first().is_none_or(Vec::is_empty) {
        return Predicate::Never;
    }
    let arrays: Vec<_> = values.iter().zip(columns).map(|(values, column)| array(values, &column.kind)).collect();
    let names: Vec<_> = columns.iter().map(|column| column.name.as_str()).collect();
    Predicate::Sql(match (&names[..], &arrays[..]) {
        ([name], [array]) => format!("{name} = ANY ({array})"),
        _ => format!("({}) IN (SELECT * FROM unnest({}))", names.join(", "), arrays.join(", ")),
    })
}

fn array(values: &[String], kind: &str) -> String {
    format!("{}::{kind}[]", literal(&format!("{{{}}}", values.join(","))))
}

/// A text as an element of an array: <https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO>
fn element(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(kinds: &[(&str, &str)]) -> Vec<KeyColumn> {
        kinds.iter().map(|(name, kind)| KeyColumn { name: (*name).into(), kind: (*kind).into() }).collect()
    }

    fn key(values: &[&str]) -> Key {
        values.iter().map(|value| (*value).to_owned()).collect()
    }

    #[test]
    fn keys_are_constants_of_the_column_s_own_type() {
        let one = columns(&[("t.\"id\"", "integer")]);
        assert_eq!(among(&one, &[]), Predicate::Never);
        let sql = "t.\"id\" = ANY (E'{\"1\",\"22\"}'::integer[])";
        assert_eq!(among(&one, &[key(&["1"]), key(&["22"])]), Predicate::Sql(sql.into()));
        let two = columns(&[("t.a", "character(5)"), ("t.b", "s.\"Kind\"")]);
        let sql =
            "(t.a, t.b) IN (SELECT * FROM unnest(E'{\"x\",\"y\"}'::character(5)[], E'{\"1\",\"2\"}'::s.\"Kind\"[]))";
        assert_eq!(among(&two, &[key(&["x", "1"]), key(&["y", "2"])]), Predicate::Sql(sql.into()));
    }

    #[test]
    fn no_text_of_a_key_ends_its_constant() {
        let one = columns(&[("t.id", "text")]);
        let sql = |text: &str| among(&one, &[key(&[text])]).to_string();
        assert_eq!(sql("it's"), "t.id = ANY (E'{\"it''s\"}'::text[])");
        assert_eq!(sql("a\"b,{c}"), r#"t.id = ANY (E'{"a\\"b,{c}"}'::text[])"#);
        assert_eq!(sql(r"a\b"), r#"t.id = ANY (E'{"a\\\\b"}'::text[])"#);
    }
}
