//! The view of each history: the open version of each row. Load drops it before the table may change, and makes it again with
//! the grants that it had.

use blackwater_shared::postgres::{self, Doing, ident, idents, literal, qualified};
use deadpool_postgres::Transaction;

use crate::catalogue::{DELETED_AT, VALID_TO};
use crate::error::Error;

/// What tells a view made here from one that only has its name.
const COMMENT: &str = "Made by Blackwater: the open version of each row that the source has";

/// The name of a history's view.
pub(crate) fn name(table: &str) -> String {
    format!("current_{table}")
}

/// (view, its owner, its grants as (privilege, column, role or NULL for PUBLIC, whether grantable)).
const VIEWS: &str = "
    SELECT c.relname::text, pg_get_userbyid(c.relowner)::text, c.relowner = current_user::regrole
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relname::text = ANY($2) AND c.relkind = 'v' AND obj_description(c.oid, 'pg_class') = $3";

const GRANTS: &str = "
    SELECT g.privilege_type, g.attname, r.rolname::text, g.is_grantable
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    CROSS JOIN LATERAL (
        SELECT NULL::text AS attname, acl.* FROM aclexplode(c.relacl) acl
        UNION ALL
        SELECT a.attname::text, acl.* FROM pg_attribute a, aclexplode(a.attacl) acl WHERE a.attrelid = c.oid
    ) g
    LEFT JOIN pg_roles r ON r.oid = g.grantee
    WHERE n.nspname = $1 AND c.relname = $2 AND g.grantee <> c.relowner";

/// Drops the views of the `tables`, and returns what gives them back their owner and grants.
pub(crate) async fn drop_all(
    transaction: &Transaction<'_>,
    schema: &str,
    tables: &[&str],
) -> Result<Vec<String>, Error> {
    let doing = "read the grants of the views";
    let names: Vec<_> = tables.iter().map(|table| name(table)).collect();
    let mut again = Vec::new();
    for row in transaction.query(VIEWS, &[&schema, &names, &COMMENT]).await.doing(doing)? {
        let (name, owner): (String, String) = (row.get(0), row.get(1));
        let view = qualified(schema, &name);
        for grant in transaction.query(GRANTS, &[&schema, &name]).await.doing(doing)? {
            let column: Option<String> = grant.get(1);
            let column = column.map(|column| format!(" ({})", ident(&column))).unwrap_or_default();
            let role: Option<String> = grant.get(2);
            let role = role.map_or_else(|| "PUBLIC".to_owned(), |role| ident(&role));
            let option = if grant.get(3) { " WITH GRANT OPTION" } else { "" };
            again.push(format!("GRANT {}{column} ON {view} TO {role}{option}", grant.get::<_, &str>(0)));
        }
        if !row.get::<_, bool>(2) {
            again.push(format!("ALTER VIEW {view} OWNER TO {}", ident(&owner)));
        }
        let dropped = transaction.batch_execute(&format!("DROP VIEW {view}")).await;
        dropped.map_err(|error| Error::View {
            why: format!(
                "schema.sql has changed, and the view cannot be dropped for it: {}\nDrop what depends on it, run \
                 again, and make it anew",
                postgres::explain(&error)
            ),
            view: view.clone(),
        })?;
    }
    Ok(again)
}

/// Makes the view of one history, if it is not there: its name.
pub(crate) async fn make(transaction: &Transaction<'_>, schema: &str, table: &str) -> Result<String, Error> {
    let view = name(table);
    let doing = "read the columns of a history";
    let there = transaction.query(VIEWS, &[&schema, &[&view].as_slice(), &COMMENT]).await.doing(doing)?;
    if !there.is_empty() {
        return Ok(view);
    }
    let columns = "SELECT a.attname::text FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
                   JOIN pg_namespace n ON n.oid = c.relnamespace
                   WHERE n.nspname = $1 AND c.relname = $2 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";
    let columns = transaction.query(columns, &[&schema, &table]).await.doing(doing)?;
    let columns = columns.iter().map(|row| row.get(0)).filter(|column| ![VALID_TO, DELETED_AT].contains(column));
    let (quoted, history) = (qualified(schema, &view), qualified(schema, table));
    let sql = format!(
        "CREATE VIEW {quoted} AS SELECT {columns} FROM {history} WHERE {VALID_TO} IS NULL;
         COMMENT ON VIEW {quoted} IS {comment}",
        columns = idents("", columns),
        comment = literal(COMMENT),
    );
    let made = transaction.batch_execute(&sql).await;
    made.map_err(|error| Error::View { why: postgres::explain(&error), view: quoted })?;
    Ok(view)
}

/// Gives the views back the grants that [`drop_all`] returned. A role that is gone has lost its grants already.
pub(crate) async fn restore_grants(transaction: &Transaction<'_>, grants: Vec<String>) -> Result<(), Error> {
    for grant in grants {
        transaction.batch_execute(&grant).await.doing(format!("give a view back what it had: {grant}"))?;
    }
    Ok(())
}
