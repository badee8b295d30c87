//! Statements that write rows of JSON into a table, and only those that differ from what is there.

/// What becomes of a column when its row is there already.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    /// It is of the key.
    Key,
    /// It stays as it was first written.
    Stays,
    /// It takes the new value.
    Takes,
    /// The same; its type has no equality, so its text is compared.
    TakesByText,
    /// It takes the new value if there is one.
    TakesIfAny,
}

/// A statement in the making.
pub(super) struct Upsert {
    table: &'static str,
    columns: Vec<(&'static str, String, Then)>,
}

impl Upsert {
    pub(super) fn into(table: &'static str) -> Self {
        Self { table, columns: Vec::new() }
    }

    /// A column of the key.
    pub(super) fn key(self, name: &'static str, value: &str) -> Self {
        self.column(name, value, Then::Key)
    }

    /// A column that stays as it was first written.
    pub(super) fn stays(self, name: &'static str, value: &str) -> Self {
        self.column(name, value, Then::Stays)
    }

    /// A column that takes the new value.
    pub(super) fn takes(self, name: &'static str, value: &str) -> Self {
        self.column(name, value, Then::Takes)
    }

    /// A column that takes the new value if there is one.
    pub(super) fn takes_if_any(self, name: &'static str, value: &str) -> Self {
        self.column(name, value, Then::TakesIfAny)
    }

    /// Columns of texts, each the member of its name.
    pub(super) fn texts(self, names: &[&'static str]) -> Self {
        names.iter().fold(self, |upsert, name| upsert.takes(name, &format!("j ->> '{name}'")))
    }

    /// Columns of `jsonb`, each the member of its name.
    pub(super) fn objects(self, names: &[&'static str]) -> Self {
        names.iter().fold(self, |upsert, name| upsert.takes(name, &format!("nullif(j -> '{name}', 'null')")))
    }

    /// Columns of times, each the member of its name.
    pub(super) fn times(self, names: &[&'static str]) -> Self {
        names.iter().fold(self, |upsert, name| upsert.takes(name, &format!("(j ->> '{name}')::timestamptz")))
    }

    /// Columns of `json[]`, each the items of the member of its name.
    pub(super) fn arrays(self, names: &[&'static str]) -> Self {
        names.iter().fold(self, |upsert, name| {
            let items = format!("CASE jsonb_typeof(j -> '{name}') WHEN 'array' THEN j -> '{name}' END");
            let array = format!(
                "coalesce((SELECT array_agg(x::json ORDER BY n) FROM jsonb_array_elements({items}) WITH ORDINALITY AS of(x, n)), '{{}}')"
            );
            upsert.column(name, &array, Then::TakesByText)
        })
    }

    /// The column `raw`: the members that have no column, and are none of `others`.
    pub(super) fn raw(self, others: &[&str]) -> Self {
        let known = self.columns.iter().map(|(name, ..)| *name).chain(others.iter().copied());
        let known = known.collect::<Vec<_>>().join(",");
        self.takes("raw", &format!("nullif(j - '{{{known}}}'::text[], '{{}}')"))
    }

    fn column(mut self, name: &'static str, value: &str, then: Then) -> Self {
        self.columns.push((name, value.into(), then));
        self
    }

    /// The statement, over rows `j` of `from`. It returns, for each row that is new or differed, whether it is new.
    pub(super) fn sql(&self, from: &str) -> String {
        let names = |of: &dyn Fn(Then) -> bool| -> Vec<_> {
            self.columns.iter().filter(|(_, _, then)| of(*then)).map(|(name, ..)| format!("\"{name}\"")).collect()
        };
        let values: Vec<_> = self.columns.iter().map(|(_, value, _)| value.as_str()).collect();
        let takes = self.columns.iter().filter(|(_, _, then)| !matches!(then, Then::Key | Then::Stays));
        let (mut set, mut old, mut new) = (Vec::new(), Vec::new(), Vec::new());
        for (name, _, then) in takes {
            let text = if *then == Then::TakesByText { "::text" } else { "" };
            let value = match then {
                Then::TakesIfAny => format!("coalesce(excluded.\"{name}\", old.\"{name}\")"),
                _ => format!("excluded.\"{name}\""),
            };
            old.push(format!("old.\"{name}\"{text}"));
            new.push(format!("{value}{text}"));
            set.push(format!("\"{name}\" = {value}"));
        }
        format!(
            "INSERT INTO {table} AS old ({all}) SELECT {values} FROM {from}
            ON CONFLICT ({key}) DO UPDATE SET {set}
            WHERE ({old}) IS DISTINCT FROM ({new}) RETURNING xmax = 0",
            table = self.table,
            all = names(&|_| true).join(", "),
            values = values.join(", "),
            key = names(&|then| then == Then::Key).join(", "),
            set = set.join(", "),
            old = old.join(", "),
            new = new.join(", "),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::Upsert;

    #[test]
    fn a_row_is_written_only_if_it_differs() {
        let upsert = Upsert::into("t").key("id", "1").stays("since", "$2").texts(&["a"]).takes_if_any("b", "$3");
        assert_eq!(
            upsert.sql("rows").split_whitespace().collect::<Vec<_>>().join(" "),
            "INSERT INTO t AS old (\"id\", \"since\", \"a\", \"b\") SELECT 1, $2, j ->> 'a', $3 FROM rows \
             ON CONFLICT (\"id\") DO UPDATE SET \"a\" = excluded.\"a\", \"b\" = coalesce(excluded.\"b\", old.\"b\") \
             WHERE (old.\"a\", old.\"b\") IS DISTINCT FROM (excluded.\"a\", coalesce(excluded.\"b\", old.\"b\")) \
             RETURNING xmax = 0"
        );
    }
}
