//! Primary keys in messages: whether a relation's messages carry its table's key, and where.

use std::str;

use super::pgoutput::{Relation, ReplicaIdentity, Tuple, Value};

/// The printed values of a primary key, in the order of its columns.
pub(crate) type Key = Vec<String>;

/// Why the log does not tell which rows of a table changed, so that the table has to be scanned.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum ScanReason {
    #[error("more than {limit} of its keys changed, and a scan is cheaper than to read so many rows by key")]
    TooManyKeys { limit: usize },
    #[error("the keys that changed in all tables take more than {limit} bytes, and most of them are of this table")]
    TooManyBytes { limit: usize },
    #[error(
        "{relation} has REPLICA IDENTITY USING INDEX, so the log does not name the primary key of every row that changed"
    )]
    IdentityIndex { relation: String },
    #[error("{relation} has REPLICA IDENTITY NOTHING, so the log does not name the rows that changed")]
    IdentityNothing { relation: String },
    #[error("the replica identity of {relation} is ({}), but its primary key is ({})", .identity.join(", "), .key.join(", "))]
    IdentityNotKey { relation: String, identity: Vec<String>, key: Vec<String> },
    #[error(
        "the publication leaves out column {column} of the primary key of {relation}, as it does if it is generated"
    )]
    NotPublished { relation: String, column: String },
    #[error("a change in the log does not have the value of column {column} of the primary key")]
    NotInMessage { column: String },
    #[error("a value of column {column} of the primary key is not valid UTF-8")]
    NotUtf8 { column: String },
    #[error("a change in the log has {found} columns, but the log describes the table with {expected}")]
    ColumnCount { found: usize, expected: usize },
}

/// Where the rows of a relation's messages have the primary key.
#[derive(Debug)]
pub(crate) struct KeyColumns {
    /// How many columns the rows have.
    count: usize,
    /// In the order of the key.
    columns: Vec<KeyColumn>,
}

#[derive(Debug)]
struct KeyColumn {
    name: String,
    position: usize,
}

impl KeyColumns {
    /// Finds the columns of `key` in a relation.
    ///
    /// # Errors
    /// A change may come without the key: the replica identity is something else, or a column is not published.
    pub(crate) fn find(relation: &Relation, key: &[String]) -> Result<Self, ScanReason> {
        let find = |name: &String| match relation.columns.iter().position(|column| column.name == name.as_bytes()) {
            Some(position) => Ok(KeyColumn { name: name.clone(), position }),
            None => Err(ScanReason::NotPublished { relation: printed(relation), column: name.clone() }),
        };
        match relation.identity {
            ReplicaIdentity::Index => return Err(ScanReason::IdentityIndex { relation: printed(relation) }),
            ReplicaIdentity::Nothing => return Err(ScanReason::IdentityNothing { relation: printed(relation) }),
            ReplicaIdentity::Default | ReplicaIdentity::Full => {}
        }
        let columns = key.iter().map(find).collect::<Result<Vec<_>, _>>()?;
        let is_key = |position| columns.iter().any(|column| column.position == position);
        let differs = relation.columns.iter().enumerate().any(|(at, column)| column.in_identity != is_key(at));
        if relation.identity == ReplicaIdentity::Default && differs {
            let identity = relation.columns.iter().filter(|column| column.in_identity);
            let identity = identity.map(|column| lossy(column.name)).collect();
            return Err(ScanReason::IdentityNotKey { relation: printed(relation), identity, key: key.to_vec() });
        }
        Ok(Self { count: relation.columns.len(), columns })
    }

    /// The key of a row. A value that is not in the log because it did not change is taken from the old row.
    ///
    /// # Errors
    /// A value is missing.
    pub(crate) fn of(&self, row: &Tuple, old: Option<&Tuple>) -> Result<Key, ScanReason> {
        for found in [Some(row), old].into_iter().flatten().map(Vec::len) {
            if found != self.count {
                return Err(ScanReason::ColumnCount { found, expected: self.count });
            }
        }
        let text = |column: &KeyColumn| {
            let value = match (row[column.position], old) {
                (Value::Unchanged, Some(old)) => old[column.position],
                (value, _) => value,
            };
            let Value::Text(bytes) = value else {
                return Err(ScanReason::NotInMessage { column: column.name.clone() });
            };
            let text = str::from_utf8(bytes).map_err(|_| ScanReason::NotUtf8 { column: column.name.clone() })?;
            Ok(text.to_owned())
        };
        self.columns.iter().map(text).collect()
    }
}

fn printed(relation: &Relation) -> String {
    format!("{}.{}", lossy(relation.namespace), lossy(relation.name))
}

fn lossy(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

#[cfg(test)]
mod tests {
    use super::super::encode::described;
    use super::ReplicaIdentity::{Default, Full, Index, Nothing};
    use super::*;

    fn find(identity: ReplicaIdentity, columns: &[&'static str], key: &[&str]) -> Result<KeyColumns, ScanReason> {
        KeyColumns::find(
            &described(7, identity, columns),
            &key.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(),
        )
    }

    fn refused(identity: ReplicaIdentity, columns: &[&'static str], key: &[&str]) -> String {
        find(identity, columns, key).unwrap_err().to_string()
    }

    fn texts<'a>(values: &[&'a str]) -> Tuple<'a> {
        values.iter().map(|value| Value::Text(value.as_bytes())).collect()
    }

    #[test]
    fn a_key_is_read_in_its_own_order_whatever_the_order_of_the_columns() {
        let columns = find(Default, &["b*", "note", "a*"], &["a", "b"]).unwrap();
        assert_eq!(columns.of(&texts(&["1", "x", "2"]), None), Ok(vec!["2".to_owned(), "1".to_owned()]));
    }

    #[test]
    fn a_table_is_scanned_unless_its_replica_identity_names_the_primary_key() {
        assert!(refused(Index, &["id*"], &["id"]).contains("public.t has REPLICA IDENTITY USING INDEX"));
        assert!(refused(Nothing, &["id"], &["id"]).contains("public.t has REPLICA IDENTITY NOTHING"));
        let other = "the replica identity of public.t is (b), but its primary key is (a)";
        assert_eq!(refused(Default, &["a", "b*"], &["a"]), other);
        assert!(refused(Default, &["a*", "b*"], &["a"]).contains("is (a, b), but"));
        assert!(refused(Default, &["a*", "b"], &["a", "b"]).contains("is (a), but"));
        assert!(refused(Default, &["a*"], &["a", "b"]).contains("leaves out column b of the primary key"));
        assert!(refused(Full, &["a*"], &["a", "b"]).contains("leaves out column b of the primary key"));
        assert!(find(Full, &["a*", "b*"], &["a"]).is_ok());
    }

    #[test]
    fn an_unchanged_value_is_taken_from_the_old_row() {
        let columns = find(Full, &["id*", "body*"], &["id"]).unwrap();
        let new = vec![Value::Unchanged, Value::Text(b"x")];
        assert_eq!(columns.of(&new, Some(&texts(&["1", "y"]))), Ok(vec!["1".to_owned()]));
        let missing = Err(ScanReason::NotInMessage { column: "id".into() });
        assert_eq!(columns.of(&new, None), missing);
        assert_eq!(columns.of(&new, Some(&new)), missing);
        assert_eq!(columns.of(&new, Some(&vec![Value::Null, Value::Null])), missing);
        assert_eq!(columns.of(&vec![Value::Null, Value::Null], Some(&texts(&["1", "y"]))), missing);
    }

    #[test]
    fn a_row_that_does_not_fit_its_description_has_no_key() {
        let columns = find(Default, &["id*", "body"], &["id"]).unwrap();
        let short = Err(ScanReason::ColumnCount { found: 1, expected: 2 });
        assert_eq!(columns.of(&texts(&["1"]), None), short);
        assert_eq!(columns.of(&texts(&["1", "x"]), Some(&texts(&["1"]))), short);
        let latin1 = vec![Value::Text(b"caf\xe9"), Value::Null];
        assert_eq!(columns.of(&latin1, None), Err(ScanReason::NotUtf8 { column: "id".into() }));
    }
}
