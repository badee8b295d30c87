//! The quoting of names and texts in SQL and in COPY's CSV.

/// A name as an SQL identifier. The only place where one is quoted.
#[must_use]
pub fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as a field of COPY's CSV: quoted, for what is not quoted and empty is NULL.
#[must_use]
pub fn csv_field(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// A text where SQL takes no parameter, as in the definition of a view.
#[must_use]
pub fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// `schema.name`, both quoted.
#[must_use]
pub fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", ident(schema), ident(name))
}

/// Names as a list of SQL identifiers, each after `prefix` (`t.` or nothing).
#[must_use]
pub fn idents<S: AsRef<str>>(prefix: &str, names: impl IntoIterator<Item = S>) -> String {
    let quoted: Vec<_> = names.into_iter().map(|name| format!("{prefix}{}", ident(name.as_ref()))).collect();
    quoted.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted() {
        assert_eq!(["", "a\"b"].map(csv_field), ["\"\"", "\"a\"\"b\""]);
    }

    #[test]
    fn names_are_quoted() {
        assert_eq!(ident("a\"b; DROP TABLE x"), "\"a\"\"b; DROP TABLE x\"");
        assert_eq!(idents("t.", ["A", "b"]), "t.\"A\", t.\"b\"");
    }
}
