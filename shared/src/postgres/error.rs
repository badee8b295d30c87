//! What goes wrong between this program and Postgres: a kind that callers match, words for people, and what to do.
//!
//! The words end in logs, so they hold no value of a row. Postgres puts those into DETAIL and CONTEXT, and for a value that
//! it cannot read into the message.

use std::borrow::Cow;
use std::fmt;

use tokio_postgres::error::DbError;

/// What a caller can do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The address cannot be read.
    Address,
    /// The server does not speak TLS, its certificate is not one to trust, or there is nothing to verify it with.
    Tls,
    /// The server cannot be reached, or is starting or stopping.
    Connect,
    /// The server refuses the name or the password.
    Login,
    /// The server, the database or the role has as many connections as it may.
    TooManyConnections,
    /// The server refuses the connection for another reason.
    Refused,
    /// A pooler gave two transactions of one session to two sessions of the server.
    Pooler,
    /// The connection was lost.
    Lost,
    /// Another transaction was in the way: a deadlock, or no order in which both could have run.
    Conflict,
    /// A lock was not to be had in time.
    LockNotAvailable,
    /// The server ended the statement because it was told to, or because of its time.
    Cancelled,
    /// A value or a constraint is at fault, and not the statement itself.
    Data,
    /// The statement is at fault.
    Statement,
}

/// Why an address could not be used, a database not be reached, or a statement not be run.
#[derive(thiserror::Error)]
pub struct Error {
    /// What a caller can do about it.
    pub kind: Kind,
    /// What was being done, as it stands after "cannot".
    pub doing: String,
    /// Why it failed. The address itself is never in it: it holds a password.
    pub why: String,
    /// What to do next, if that is known.
    pub remedy: Option<Cow<'static, str>>,
    #[source]
    cause: Option<Cause>,
}

/// What the driver says. Its own words, and those of the server's error in it, would print values of rows.
#[derive(thiserror::Error)]
#[error("{}", explain(.0))]
struct Cause(tokio_postgres::Error);

impl Error {
    pub(super) fn new(kind: Kind, doing: impl Into<String>, why: impl Into<String>) -> Self {
        Self { kind, doing: doing.into(), why: why.into(), remedy: None, cause: None }
    }

    /// A statement that failed.
    pub fn of(doing: impl Into<String>, cause: tokio_postgres::Error) -> Self {
        let error = Self::of_kind(kind(&cause), doing.into(), cause);
        if error.kind == Kind::Pooler { error.with_remedy(NO_POOLER) } else { error }
    }

    fn of_kind(kind: Kind, doing: String, cause: tokio_postgres::Error) -> Self {
        let why = explain(&cause);
        Self { cause: Some(Cause(cause)), ..Self::new(kind, doing, why) }
    }

    /// A connection that was not made.
    pub(super) fn of_connecting(doing: String, cause: tokio_postgres::Error) -> Self {
        let kind = match kind(&cause) {
            _ if is_of_tls(&cause) => Kind::Tls,
            Kind::Lost => Kind::Connect,
            known @ (Kind::Login | Kind::TooManyConnections) => known,
            _ => Kind::Refused,
        };
        Self::of_kind(kind, doing, cause)
    }

    /// The same error, and what to do about it.
    #[must_use]
    pub fn with_remedy(self, remedy: impl Into<Cow<'static, str>>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }

    /// Whether the server does not speak TLS.
    pub(super) fn is_without_tls(&self) -> bool {
        self.cause.as_ref().is_some_and(|Cause(cause)| is_without_tls(cause))
    }

    /// The server's error. What it says may hold values of rows.
    #[must_use]
    pub fn db(&self) -> Option<&DbError> {
        self.cause.as_ref().and_then(|Cause(cause)| cause.as_db_error())
    }

    /// Whether a statement may succeed a moment later: the connection was lost, or another session was in
    /// the way. ([`Database::connect`](super::Database::connect) tries again by itself.)
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, Kind::Lost | Kind::Conflict | Kind::LockNotAvailable)
    }

    /// Whether a statement failed for a value or a constraint, and not for the statement itself.
    #[must_use]
    pub fn is_of_data(&self) -> bool {
        self.kind == Kind::Data
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.doing, self.why)?;
        self.remedy.iter().try_for_each(|remedy| write!(f, "\n{remedy}"))
    }
}

/// The kind first, as if it were a variant: alarms tell errors apart by it.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {{ {:?} }}", self.kind, self.to_string())
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Names what was being done when a statement failed.
pub trait Doing<T> {
    /// The value, or [`Error`].
    ///
    /// # Errors
    /// If there is an error.
    fn doing(self, doing: impl Into<String>) -> Result<T, Error>;
}

impl<T> Doing<T> for Result<T, tokio_postgres::Error> {
    fn doing(self, doing: impl Into<String>) -> Result<T, Error> {
        self.map_err(|cause| Error::of(doing, cause))
    }
}

const NO_POOLER: &str = "A pooler in transaction mode (as of PgBouncer) stands before the server. Connect to the server \
    itself, or to the pooler in session mode";

/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
fn kind(error: &tokio_postgres::Error) -> Kind {
    let Some(code) = error.code() else {
        let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
        let is_lost = error.is_closed() || cause.is_some_and(|cause| cause.kind() != std::io::ErrorKind::InvalidInput);
        return if is_lost { Kind::Lost } else { Kind::Statement };
    };
    match code.code() {
        "28000" | "28P01" => Kind::Login,
        "53300" => Kind::TooManyConnections,
        "26000" | "42P05" => Kind::Pooler,
        "57P01" | "57P02" | "57P03" => Kind::Lost,
        "40001" | "40P01" => Kind::Conflict,
        "55P03" => Kind::LockNotAvailable,
        "57014" => Kind::Cancelled,
        code if code.starts_with("08") => Kind::Lost,
        code if code.starts_with("22") || code.starts_with("23") => Kind::Data,
        _ => Kind::Statement,
    }
}

/// Whether TLS was not agreed on.
fn is_of_tls(error: &tokio_postgres::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
    let of_rustls = cause.and_then(std::io::Error::get_ref).is_some_and(|inner| inner.is::<rustls::Error>());
    of_rustls || is_without_tls(error)
}

/// The driver has nothing but words for it.
fn is_without_tls(error: &tokio_postgres::Error) -> bool {
    std::error::Error::source(error).is_some_and(|cause| cause.to_string() == "server does not support TLS")
}

/// An error of Postgres for people: the server's message, code, names and hint, or the chain of
/// causes on this side. (`Display` of the crate's type says only "db error".)
#[must_use]
pub fn explain(error: &tokio_postgres::Error) -> String {
    if let Some(server) = error.as_db_error() {
        return Words::of(server).print();
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = inner.source();
    }
    text
}

/// What the server says of an error, less CONTEXT.
#[derive(Default)]
struct Words<'a> {
    code: &'a str,
    message: &'a str,
    detail: Option<&'a str>,
    hint: Option<&'a str>,
    table: Option<&'a str>,
    column: Option<&'a str>,
    constraint: Option<&'a str>,
}

/// The classes of errors whose DETAIL names objects, settings and processes, and no value of a row.
const NAMING: [&str; 8] = ["0A", "2B", "40", "42", "53", "54", "55", "57"];

/// The codes of errors whose message quotes the value: out of range, and not of the type's form.
const QUOTING: [&str; 4] = ["22003", "22007", "22008", "22P02"];

/// The quotation marks of the languages in which Postgres speaks.
const MARKS: [char; 6] = ['"', '«', '»', '„', '“', '”'];

impl<'a> Words<'a> {
    fn of(error: &'a DbError) -> Self {
        Self {
            code: error.code().code(),
            message: error.message(),
            detail: error.detail(),
            hint: error.hint(),
            table: error.table(),
            column: error.column(),
            constraint: error.constraint(),
        }
    }

    fn print(&self) -> String {
        let mut text = format!("{} ({})", self.message(), self.code);
        for (what, name) in [("table", self.table), ("column", self.column), ("constraint", self.constraint)] {
            if let Some(name) = name.filter(|name| !self.message.contains(&format!("\"{name}\""))) {
                text.push_str(&format!("; {what} {name}"));
            }
        }
        let detail = self.detail.filter(|_| NAMING.iter().any(|class| self.code.starts_with(class)));
        for more in [detail, self.hint].into_iter().flatten() {
            text.push_str("; ");
            text.push_str(more);
        }
        text.replace('\n', " ")
    }

    /// The message, without the value that it quotes.
    fn message(&self) -> Cow<'_, str> {
        match (self.message.find(MARKS), self.message.rfind(MARKS)) {
            (Some(first), Some(last)) if first < last && QUOTING.contains(&self.code) => {
                let mark: String = self.message[first..].chars().take(1).collect();
                format!("{}{mark}…{}", &self.message[..first], &self.message[last..]).into()
            }
            _ => self.message.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_of_a_row_is_printed() {
        let taken = Words {
            code: "23505",
            message: "duplicate key value violates unique constraint \"dim_staff_email_key\"",
            detail: Some("Key (email)=(ada@example.org) already exists."),
            table: Some("dim_staff"),
            constraint: Some("dim_staff_email_key"),
            ..Words::default()
        };
        assert_eq!(
            taken.print(),
            "duplicate key value violates unique constraint \"dim_staff_email_key\" (23505); table dim_staff"
        );
        for (code, message, printed) in [
            (
                "22P02",
                "invalid input syntax for type integer: \"a \"b\"",
                "invalid input syntax for type integer: \"…\"",
            ),
            ("22P02", "ungültige Eingabesyntax für Typ integer: »a«", "ungültige Eingabesyntax für Typ integer: »…«"),
            (
                "22003",
                "value \"99999\" is out of range for type smallint",
                "value \"…\" is out of range for type smallint",
            ),
            ("22003", "integer out of range", "integer out of range"),
            (
                "22021",
                "invalid byte sequence for encoding \"UTF8\": 0x00",
                "invalid byte sequence for encoding \"UTF8\": 0x00",
            ),
        ] {
            assert_eq!(Words { code, message, ..Words::default() }.print(), format!("{printed} ({code})"));
        }
    }

    #[test]
    fn what_names_objects_is_printed() {
        let needed = Words {
            code: "2BP01",
            message: "cannot drop view current_sale because other objects depend on it",
            detail: Some("view revenue depends on view current_sale"),
            hint: Some("Use DROP ... CASCADE to drop the dependent objects too."),
            ..Words::default()
        };
        assert_eq!(
            needed.print(),
            "cannot drop view current_sale because other objects depend on it (2BP01); view revenue depends on view \
             current_sale; Use DROP ... CASCADE to drop the dependent objects too."
        );
    }
}
