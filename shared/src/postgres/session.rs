//! What every session sets, so that values are printed and read in one way and names are found in the catalogue, whatever
//! the server, the database and the role have for a default.

use std::time::Duration;

use super::error::explain;

/// How the sessions of a pool behave. A timeout of zero is none.
#[derive(Clone, Debug)]
pub struct Session {
    /// How they are named in `pg_stat_activity`.
    pub application: &'static str,
    /// How long a statement waits for a lock.
    pub lock_timeout: Duration,
    /// How long a statement takes.
    pub statement_timeout: Duration,
    /// How long a transaction waits for its next statement.
    pub idle_timeout: Duration,
    /// Further settings and their values, as SQL writes them.
    pub more: &'static [(&'static str, &'static str)],
}

/// The last three have the server notice a client that is gone without a word; the client does the same.
const ALWAYS: [(&str, &str); 9] = [
    ("TimeZone", "'UTC'"),
    ("DateStyle", "'ISO, YMD'"),
    ("IntervalStyle", "'postgres'"),
    ("extra_float_digits", "1"),
    ("bytea_output", "'hex'"),
    ("search_path", "pg_catalog, pg_temp"),
    ("tcp_keepalives_idle", "30"),
    ("tcp_keepalives_interval", "10"),
    ("tcp_keepalives_count", "3"),
];

/// Has the server look every second whether its client is still there, and end the statement if not. Postgres 14 and later
/// can, on most systems (<https://www.postgresql.org/docs/current/runtime-config-connection.html>).
const CHECK_CLIENT: &str = "SELECT pg_catalog.set_config(name, '1s', false) FROM pg_catalog.pg_settings
    WHERE name OPERATOR(pg_catalog.=) 'client_connection_check_interval'";

impl Session {
    /// Sets it all, in one round trip.
    pub(super) async fn begin(&self, client: &tokio_postgres::Client) -> Result<(), tokio_postgres::Error> {
        let settings = self.settings();
        let (set, checked) = tokio::join!(client.batch_execute(&settings), client.batch_execute(CHECK_CLIENT));
        if let Err(error) = checked {
            tracing::debug!(error = explain(&error), "the server does not notice when this program is gone");
        }
        set
    }

    fn settings(&self) -> String {
        let mut sql = String::new();
        for (name, value) in ALWAYS.iter().chain(self.more) {
            sql.push_str(&format!("SET {name} = {value}; "));
        }
        for (name, timeout) in [
            ("lock_timeout", self.lock_timeout),
            ("statement_timeout", self.statement_timeout),
            ("idle_in_transaction_session_timeout", self.idle_timeout),
        ] {
            sql.push_str(&format!("SET {name} = {}; ", timeout.as_millis()));
        }
        sql
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_sets_what_is_common_and_its_own() {
        let session = Session {
            application: "blackwater extract",
            lock_timeout: Duration::from_secs(5),
            statement_timeout: Duration::ZERO,
            idle_timeout: Duration::from_secs(600),
            more: &[("jit", "off")],
        };
        let settings = session.settings();
        assert!(settings.starts_with("SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; "), "{settings}");
        let own = "SET search_path = pg_catalog, pg_temp; SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; \
                   SET tcp_keepalives_count = 3; SET jit = off; SET lock_timeout = 5000; SET statement_timeout = 0; \
                   SET idle_in_transaction_session_timeout = 600000; ";
        assert!(settings.ends_with(own), "{settings}");
    }
}
