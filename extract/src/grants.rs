//! The statements that the source's owner runs once.

use blackwater_shared::config::ChangeDetection;
use blackwater_shared::postgres::{ident, idents, literal, qualified};

use crate::Extract;

impl Extract {
    /// The statements that let a role read what the models read, and no more; and those for WAL capture, unless it is turned off.
    #[must_use]
    pub fn grants(&self) -> String {
        let address = self.source.address();
        let (role, schema) = (ident(address.user()), ident(&self.schema));
        let tables: Vec<_> = self.pack.source_tables().iter().map(|table| qualified(&self.schema, table)).collect();
        let mut sql = format!(
            "-- For {address}: run it in database {database}, as the owner of its tables.\n\
             CREATE ROLE {role} LOGIN;  -- and give it a password\n\
             GRANT CONNECT ON DATABASE {name} TO {role};\n\
             GRANT USAGE ON SCHEMA {schema} TO {role};\n\
             GRANT SELECT ON {tables} TO {role};\n",
            database = address.database(),
            name = idents("", [address.database()]),
            tables = tables.join(", "),
        );
        if self.change_detection != ChangeDetection::Scan {
            sql.push_str(&self.publication(&role));
        }
        sql
    }

    /// What WAL capture needs. The server decides which tables can be published: on those without a primary key as their replica
    /// identity the application's own UPDATE and DELETE would fail.
    fn publication(&self, role: &str) -> String {
        // A publication of whole rows would send the columns that are never to be read.
        let is_whole = |table: &&String| !self.exclude.iter().any(|(of, _)| of == *table);
        let tables = self.pack.source_tables();
        let tables: Vec<_> = tables.iter().filter(is_whole).map(|table| literal(table)).collect();
        if tables.is_empty() {
            return String::new();
        }
        format!(
            "-- Optional: to find changes by the write-ahead log, and not by scans (source.changes). It needs wal_level = logical\n\
             -- and a bound on what a slot keeps, max_slot_wal_keep_size. With REPLICATION the role may read every change of the\n\
             -- tables below, also past row-level security, and may make slots and base backups. Run it again when the models\n\
             -- read other tables.\n\
             ALTER ROLE {role} REPLICATION;  -- on RDS and Aurora instead: GRANT rds_replication TO {role};\n\
             DO $blackwater$\n\
             DECLARE\n    published text;\n\
             BEGIN\n    \
                 SELECT string_agg(format('%I.%I', n.nspname, c.relname), ', ' ORDER BY c.relname) INTO published\n    \
                 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace\n    \
                 JOIN pg_catalog.pg_index i ON i.indrelid = c.oid AND i.indisprimary AND i.indimmediate AND i.indisvalid\n    \
                 WHERE n.nspname = {schema} AND c.relname IN ({tables})\n      \
                   AND c.relpersistence = 'p' AND c.relreplident IN ('d', 'f') AND NOT c.relispartition\n      \
                   AND (c.relkind = 'p' OR c.relkind = 'r' AND NOT EXISTS (\n          \
                       SELECT FROM pg_catalog.pg_inherits h WHERE h.inhparent = c.oid OR h.inhrelid = c.oid));\n    \
                 IF published IS NULL THEN\n        \
                     RAISE EXCEPTION 'none of the tables has a primary key as its replica identity';\n    \
                 END IF;\n    \
                 IF EXISTS (SELECT FROM pg_catalog.pg_publication WHERE pubname = {name}) THEN\n        \
                     EXECUTE 'ALTER PUBLICATION {slot} SET TABLE ' || published;\n        \
                     ALTER PUBLICATION {slot} SET (publish = 'insert, update, delete, truncate', publish_via_partition_root = true);\n    \
                 ELSE\n        \
                     EXECUTE 'CREATE PUBLICATION {slot} FOR TABLE ' || published || ' WITH (publish_via_partition_root = true)';\n    \
                 END IF;\n\
             END $blackwater$;\n",
            schema = literal(&self.schema),
            tables = tables.join(", "),
            name = literal(&self.slot),
            slot = self.slot,
        )
    }
}
