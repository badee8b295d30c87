//! Statements that write rows of JSON into a table, and only those that differ from what is there.

/// What becomes of a column when its row is there already.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OnConflict {
    /// It is of the key.
    Key,
    /// It stays as it was first written.
    Keep,
    /// It takes the new value.
    Replace,
    /// The same; its type has no equality, so its text is compared.
    ReplaceByText,
    /// It takes the new value if there is one.
    ReplaceIfAny,
}

/// A statement in the making.
pub(super) struct Upsert {
    table: &'static str,
    columns: Vec<(&'static str, String, OnConflict)>,
}

impl Upsert {
    pub(super) fn into(table: &'static str) -> Self {
        Self { table, columns: Vec::new() }
    }

    /// A column of the key.
    pub(super) fn key(self, name: &'static str, value: &str) -> Self {
        self.column(name, value, OnConflict::Key)
    }

    /// A column that stays as it was first written.
    pub(super) fn keep(self, name: &'static str, value: &str) -> Self {
        self.column(name, value, OnConflict::Keep)
    }

    /// A column that takes the new value.
    pub(super) fn replace(self, name: &'static str, value: &str) -> Self {
        self.column(name, value, OnConflict::Replace)
    }

    /// A column that takes the new value if there is one.
    pub(super) fn replace_if_any(self, name: &'static str, value: &str) -> Self {
        self.column(name, value, OnConflict::ReplaceIfAny)
    }

    /// Columns of texts, each the member of its name.
    pub(super) fn texts(self, names: &[&'static str]) -> Self {
        names.iter().fold(self, |upsert, name| upsert.replace(name, &format!("j ->> '{name}'")))
    }

    /// Columns of `jsonb`, each the member of its name.
    pub(super) fn objects(self, names: &[&'static str]) -> Self {
        names.iter().fold(self, |upsert, name| upsert.replace(name, &format!("nullif(j -> '{name}', 'null')")))
    }

    /// Columns of times, each the member of its name.
    pub(super) fn times(self, names: &[&'static str]) -> Self {
        names.iter().fold(self, |upsert, name| upsert.replace(name, &format!("(j ->> '{name}')::timestamptz")))
    }

    /// Columns of `json[]`, each the items of the member of its name.
    pub(super) fn arrays(self, names: &[&'static str]) -> Self {
        names.iter().fold(self, |upsert, name| {
            let items = format!("CASE jsonb_typeof(j -> '{name}') WHEN 'array' THEN j -> '{name}' END");
            let array = format!(
                "coalesce((SELECT array_agg(x::json ORDER BY n) FROM jsonb_array_elements({items}) WITH ORDINALITY AS of(x, n)), '{{}}')"
            );
            upsert.column(name, &array, OnConflict::ReplaceByText)
        })
    }

    /// The column `raw`: the members that have no column, and are none of `others`.
    pub(super) fn raw(self, others: &[&str]) -> Self {
        let known = self.columns.iter().map(|(name, ..)| *name).chain(others.iter().copied());
        let known = known.collect::<Vec<_>>().join(",");
        self.replace("raw", &format!("nullif(j - '{{{known}}}'::text[], '{{}}')"))
    }

    fn column(mut self, name: &'static str, value: &str, then: OnConflict) -> Self {
        self.columns.push((name, value.into(), then));
        self
    }

    /// The statement, over rows `j` of `from`. It returns, for each row that is new or differed, whether it is new.
    pub(super) fn sql(&self, from: &str) -> String {
        let names = |of: &dyn Fn(OnConflict) -> bool| -> Vec<_> {
            self.columns.iter().filter(|(_, _, then)| of(*then)).map(|(name, ..)| format!("\"{name}\"")).collect()
        };
        let values: Vec<_> = self.columns.iter().map(|(_, value, _)| value.as_str()).collect();
        let replaced = self.columns.iter().filter(|(_, _, then)| !matches!(then, OnConflict::Key | OnConflict::Keep));
        let (mut set, mut old, mut new) = (Vec::new(), Vec::new(), Vec::new());
        for (name, _, then) in replaced {
            let text = if *then == OnConflict::ReplaceByText { "::text" } else { "" };
            let value = match then {
                OnConflict::ReplaceIfAny => format!("coalesce(excluded.\"{name}\", old.\"{name}\")"),
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
            key = names(&|then| then == OnConflict::Key).join(", "),
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
        let upsert = Upsert::into("t").key("id", "1").keep("since", "$2").texts(&["a"]).replace_if_any("b", "$3");
        assert_eq!(
            upsert.sql("rows").split_whitespace().collect::<Vec<_>>().join(" "),
            "INSERT INTO t AS old (\"id\", \"since\", \"a\", \"b\") SELECT 1, $2, j ->> 'a', $3 FROM rows \
             ON CONFLICT (\"id\") DO UPDATE SET \"a\" = excluded.\"a\", \"b\" = coalesce(excluded.\"b\", old.\"b\") \
             WHERE (old.\"a\", old.\"b\") IS DISTINCT FROM (excluded.\"a\", coalesce(excluded.\"b\", old.\"b\")) \
             RETURNING xmax = 0"
        );
    }
}
