//! Conditions on rows.

use std::fmt::{self, Display, Formatter};

/// A condition on a row that is true or false, never NULL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Predicate {
    /// No row meets it.
    Never,
    /// Every row meets it.
    Always,
    /// Postgres decides, by this expression.
    Sql(String),
}

impl Predicate {
    /// The condition that at least one of several holds.
    pub(crate) fn any(all: impl IntoIterator<Item = Self>) -> Self {
        let mut expressions = Vec::new();
        for one in all {
            match one {
                Self::Never => {}
                Self::Always => return Self::Always,
                Self::Sql(expression) => expressions.push(expression),
            }
        }
        match expressions.len() {
            0 => Self::Never,
            1 => Self::Sql(expressions.remove(0)),
            _ => Self::Sql(format!("(({}))", expressions.join(") OR ("))),
        }
    }

    /// The condition that both hold.
    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Never, _) | (_, Self::Never) => Self::Never,
            (Self::Always, other) | (other, Self::Always) => other,
            (Self::Sql(one), Self::Sql(other)) => Self::Sql(format!("(({one}) AND ({other}))")),
        }
    }

    pub(crate) fn is_never(&self) -> bool {
        *self == Self::Never
    }
}

impl Display for Predicate {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Never => "false",
            Self::Always => "true",
            Self::Sql(expression) => expression,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sql(expression: &str) -> Predicate {
        Predicate::Sql(expression.into())
    }

    #[test]
    fn what_is_known_beforehand_is_not_asked() {
        use Predicate::{Always, Never};
        assert_eq!(Predicate::any([]), Never);
        assert_eq!(Predicate::any([Never, sql("a"), Never]), sql("a"));
        assert_eq!(Predicate::any([sql("a"), Always]), Always);
        assert_eq!(Predicate::any([sql("a"), sql("b")]), sql("((a) OR (b))"));
        assert_eq!(sql("a").and(Always), sql("a"));
        assert_eq!(Never.and(sql("a")), Never);
        assert_eq!(sql("a").and(sql("b")), sql("((a) AND (b))"));
    }
}
