//! What the source's catalogue says of the tables that are read: columns, key, the heaps behind
//! them, and the fingerprint of everything that can change a row's content without writing it.

use std::collections::{BTreeMap, BTreeSet};

use blackwater_base::store::sha256;
use blackwater_shared::manifest::{self, Column, Heap};
use blackwater_shared::pack::Pack;
use blackwater_shared::postgres::{Doing, qualified};
use blackwater_shared::scalar::Type;
use deadpool_postgres::Transaction;

use crate::error::Error;

/// A source table.
#[derive(Default)]
pub(crate) struct Table {
    pub(crate) oid: u32,
    pub(crate) columns: Vec<Column>,
    pub(crate) key: Vec<String>,
    pub(crate) heaps: Vec<Heap>,
    /// The heaps that this role may read by themselves, as SQL names them.
    pub(crate) leaves: BTreeMap<u32, String>,
    /// Its rows, as the server estimates them.
    pub(crate) rows: u64,
    /// How large each heap is.
    pub(crate) sizes: BTreeMap<u32, Size>,
    /// The tables that its foreign keys refer to.
    pub(crate) references: Vec<String>,
    pub(crate) fingerprint: String,
    /// Whether its rows lie in other heaps too, so that a reading must name the heaps.
    pub(crate) many: bool,
    /// Whether it is a partition itself: the write-ahead log names its changes as those of the table that it is of.
    pub(crate) is_partition: bool,
    /// Whether some of its rows lie in tables that inherit from it, where its keys do not hold.
    pub(crate) inherited: bool,
    /// The columns of each unique key.
    pub(crate) unique: Vec<Vec<String>>,
    pub(crate) traits: BTreeMap<String, Traits>,
}

/// How large a heap is.
#[derive(Clone, Copy, Default)]
pub(crate) struct Size {
    pub(crate) blocks: u32,
    /// Its bytes, with those of values that are stored elsewhere.
    pub(crate) bytes: u64,
}

impl Size {
    /// The bytes that a block stands for.
    pub(crate) fn of_block(self) -> u64 {
        (self.bytes / u64::from(self.blocks.max(1))).max(1)
    }
}

/// What a model may do with a column.
#[derive(Clone, Default)]
pub(crate) struct Traits {
    /// With which columns it may be joined: those for which this is the same, because equal values
    /// print alike and values that print alike are equal.
    pub(super) joins: Option<String>,
    /// Whether a CAST to text gives another text than it prints, or its collation calls different
    /// texts equal.
    opaque: bool,
    /// The type in it whose text depends on settings or on other objects' names.
    pub(super) unprintable: Option<String>,
}

impl Table {
    /// The bytes of its heaps.
    pub(crate) fn bytes(&self) -> u64 {
        self.sizes.values().map(|size| size.bytes).sum()
    }

    /// As a manifest has it, of which no row has been read.
    pub(crate) fn in_manifest(&self) -> manifest::Table {
        manifest::Table {
            columns: self.columns.clone(),
            key: self.key.clone(),
            marker: None,
            heaps: self.heaps.clone(),
            fingerprint: self.fingerprint.clone(),
            rows: None,
            objects: Vec::new(),
            gone: Vec::new(),
            keys_sent: None,
            keys: Vec::new(),
            published: None,
        }
    }

    /// Whether the printed values of its primary key are as good as the key: equal ones print alike, and so a row can be found
    /// by them, and missed.
    pub(crate) fn is_found_by_key(&self) -> bool {
        let prints_alike = |column| self.traits.get(column).is_some_and(|traits: &Traits| traits.joins.is_some());
        self.has_key() && !self.is_partition && self.key.iter().all(prints_alike)
    }

    /// Whether each of its rows has a primary key of its own, whose columns are all read.
    pub(crate) fn has_key(&self) -> bool {
        !self.key.is_empty() && !self.inherited && self.key.iter().all(|column| self.kind(column).is_some())
    }

    pub(crate) fn kind(&self, column: &str) -> Option<&str> {
        self.columns.iter().find(|known| known.name == column).map(|known| known.kind.as_str())
    }

    pub(super) fn type_of(&self, column: &str) -> Option<Type> {
        let kind = self.kind(column)?;
        match self.traits.get(column) {
            Some(Traits { opaque: true, .. }) => Some(Type::Opaque(kind.to_owned())),
            _ => Some(Type::of(kind)),
        }
    }
}

/// What keeps this role from reading the tables, and all of their rows.
pub(crate) async fn check(transaction: &Transaction<'_>, schema: &str, pack: &Pack) -> Result<Vec<Error>, Error> {
    let tables: Vec<_> = pack.source_tables().into_iter().collect();
    let rows = transaction
        .query(
            "SELECT c.relname::text, c.relkind::text, row_security_active(c.oid), has_table_privilege(c.oid, 'SELECT')
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = $1 AND c.relname = ANY($2) AND has_schema_privilege(n.oid, 'USAGE')
             ORDER BY 1",
            &[&schema, &tables],
        )
        .await
        .doing("read the source's catalogue")?;
    let found: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
    let missing: Vec<_> = tables.into_iter().filter(|table| !found.contains(table)).collect();
    let mut errors = Vec::new();
    if let Some(first) = missing.first() {
        let model = pack.models.values().find(|model| model.source_tables().any(|table| table == first));
        let model = model.map(|model| model.file.clone()).unwrap_or_default();
        errors.push(Error::NoTable { tables: missing, schema: schema.into(), model });
    }
    for row in rows {
        let why = if !matches!(row.get(1), "r" | "p") {
            "it is not a table; views and foreign tables are not supported yet"
        } else if !row.get::<_, bool>(3) {
            "this role may not read it\n`blackwater check --grants` prints the GRANT that it needs"
        } else if row.get(2) {
            "row-level security applies to this role, and a changed policy shows rows that nothing wrote\nGive the \
             role BYPASSRLS"
        } else {
            continue;
        };
        errors.push(Error::Table { table: row.get(0), why: why.into() });
    }
    Ok(errors)
}

/// The number of the tables' heaps and of what holds them together.
pub(crate) async fn count_heaps(
    transaction: &Transaction<'_>,
    schema: &str,
    tables: &[String],
) -> Result<usize, Error> {
    let sql = "WITH RECURSIVE heap (oid) AS (
            SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = $1 AND c.relname = ANY($2)
            UNION
            SELECT i.inhrelid FROM heap JOIN pg_catalog.pg_inherits i ON i.inhparent = heap.oid
        )
        SELECT count(*) FROM heap";
    let row = transaction.query_one(sql, &[&schema, &tables]).await.doing("read the source's catalogue")?;
    Ok(row.get::<_, i64>(0) as usize)
}

/// Reads the catalogue in the run's snapshot.
pub(crate) async fn read(
    transaction: &Transaction<'_>,
    schema: &str,
    tables: &[String],
    exclude: &[(String, String)],
) -> Result<BTreeMap<String, Table>, Error> {
    let read = heaps(transaction, schema, tables).await?;
    let oids: Vec<u32> = read.values().flat_map(|table| table.oids.iter().copied()).collect();
    let definitions = definitions(transaction, &oids).await?;
    let mut keys = keys(transaction, &oids).await?;
    let mut references: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in transaction.query(REFERENCES, &[&schema, &tables]).await.doing("read the source's foreign keys")? {
        references.entry(row.get(0)).or_default().push(row.get(1));
    }
    let mut done = BTreeMap::new();
    for (name, Heaps { root, is_partition, leaves, named, rows, sizes, .. }) in read {
        let definition = &definitions[&root];
        let excluded = excluded(&name, definition, exclude)?;
        let is_read = |column: &&Definition| !excluded.contains(column.name.as_str());
        let fingerprint = |oid: u32| {
            let of: Vec<_> = definitions[&oid].iter().filter(is_read).collect();
            sha256(&serde_json::to_vec(&of).unwrap_or_default())
        };
        let heap = |(oid, file)| Heap { oid, file, fingerprint: fingerprint(oid), unread: None };
        let heaps: Vec<Heap> = leaves.into_iter().map(heap).collect();
        let column = |column: &Definition| Column { name: column.name.clone(), kind: column.kind.clone() };
        let many = heaps.len() != 1 || heaps[0].oid != root;
        let Keys { primary, unique } = keys.remove(&root).unwrap_or_default();
        let table = Table {
            oid: root,
            columns: definition.iter().filter(is_read).map(column).collect(),
            key: primary,
            fingerprint: fingerprint(root),
            many,
            is_partition,
            inherited: many && heaps.iter().any(|heap| heap.oid == root),
            heaps,
            leaves: named,
            rows,
            sizes,
            references: references.remove(&name).unwrap_or_default(),
            unique,
            traits: definition.iter().map(|column| (column.name.clone(), column.traits.clone())).collect(),
        };
        done.insert(name, table);
    }
    Ok(done)
}

/// The heaps of a table.
#[derive(Default)]
struct Heaps {
    root: u32,
    /// Whether the table is a partition itself.
    is_partition: bool,
    /// The table itself and all that is under it.
    oids: Vec<u32>,
    /// Those of them that hold rows: oid and file node.
    leaves: Vec<(u32, u32)>,
    /// Those of them that this role may read by themselves, as SQL names them.
    named: BTreeMap<u32, String>,
    /// Their rows, as the server estimates them.
    rows: u64,
    sizes: BTreeMap<u32, Size>,
}

async fn heaps(
    transaction: &Transaction<'_>,
    schema: &str,
    tables: &[String],
) -> Result<BTreeMap<String, Heaps>, Error> {
    let rows = transaction.query(HEAPS, &[&schema, &tables]).await.doing("read the source's catalogue")?;
    let mut all: BTreeMap<String, Heaps> = BTreeMap::new();
    for row in &rows {
        let (name, oid): (String, u32) = (row.get(0), row.get(2));
        if !row.get::<_, bool>(5) {
            return Err(Error::Attached { table: name });
        }
        let table = all.entry(name.clone()).or_default();
        table.oids.push(oid);
        if row.get(1) {
            (table.root, table.is_partition) = (oid, row.get(12));
        }
        match row.get(3) {
            "r" => {
                let size = Size { blocks: row.get::<_, i64>(6) as u32, bytes: row.get::<_, i64>(7) as u64 };
                table.sizes.insert(oid, size);
                table.rows += row.get::<_, f32>(8).max(0.0) as u64;
                table.leaves.push((oid, row.get(4)));
                if row.get(11) {
                    table.named.insert(oid, qualified(row.get(9), row.get(10)));
                }
            }
            "p" => {}
            _ => {
                let why = "a part of it is a foreign table; they are not supported yet".into();
                return Err(Error::Table { table: name, why });
            }
        }
    }
    Ok(all)
}

/// The keys of a table.
#[derive(Default)]
struct Keys {
    primary: Vec<String>,
    unique: Vec<Vec<String>>,
}

async fn keys(transaction: &Transaction<'_>, oids: &[u32]) -> Result<BTreeMap<u32, Keys>, Error> {
    let mut all: BTreeMap<u32, Keys> = BTreeMap::new();
    for row in transaction.query(KEYS, &[&oids]).await.doing("read the source's catalogue")? {
        let keys = all.entry(row.get(0)).or_default();
        if row.get(2) {
            keys.primary = row.get(1);
        }
        keys.unique.push(row.get(1));
    }
    Ok(all)
}

/// The columns of a table that are not read.
fn excluded<'a>(
    table: &str,
    definition: &[Definition],
    exclude: &'a [(String, String)],
) -> Result<BTreeSet<&'a str>, Error> {
    let excluded: BTreeSet<_> =
        exclude.iter().filter(|(of, _)| of == table).map(|(_, column)| column.as_str()).collect();
    match excluded.iter().find(|name| !definition.iter().any(|column| column.name == **name)) {
        Some(unknown) => {
            let why = format!("it has no column {unknown}, which source.exclude names");
            Err(Error::Table { table: table.to_owned(), why })
        }
        None => Ok(excluded),
    }
}

/// Everything about a column that can change what a row holds while the row is not written.
#[derive(serde::Serialize)]
struct Definition {
    number: i16,
    name: String,
    kind: String,
    collation: Option<String>,
    missing: Option<String>,
    generated: Option<String>,
    types: Vec<String>,
    #[serde(skip)]
    traits: Traits,
}

async fn definitions(transaction: &Transaction<'_>, oids: &[u32]) -> Result<BTreeMap<u32, Vec<Definition>>, Error> {
    let mut types: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    let mut unprintable: BTreeMap<u32, String> = BTreeMap::new();
    for row in transaction.query(TYPES, &[&oids]).await.doing("read the source's types")? {
        types.entry(row.get(0)).or_default().push(row.get(1));
        if let Some(kind) = row.get(2) {
            unprintable.insert(row.get(0), kind);
        }
    }
    let mut definitions: BTreeMap<u32, Vec<Definition>> = oids.iter().map(|oid| (*oid, Vec::new())).collect();
    for row in transaction.query(COLUMNS, &[&oids]).await.doing("read the source's columns")? {
        definitions.entry(row.get(0)).or_default().push(Definition {
            number: row.get(1),
            name: row.get(2),
            kind: row.get(3),
            collation: row.get(4),
            missing: row.get(5),
            generated: row.get(6),
            types: types.get(&row.get(7)).cloned().unwrap_or_default(),
            traits: Traits {
                joins: row.get(8),
                opaque: row.get(9),
                unprintable: unprintable.get(&row.get(7)).cloned(),
            },
        });
    }
    Ok(definitions)
}

/// (table, whether it is the table itself, oid, kind, file node, whether this session locked it, blocks, bytes, rows, schema, name, whether this role may read
/// it by itself). A block
/// that comes later holds no row that the snapshot sees.
const HEAPS: &str = "
    WITH RECURSIVE heap (root, oid) AS (
        SELECT c.oid, c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = $1 AND c.relname = ANY($2)
        UNION
        SELECT heap.root, i.inhrelid FROM heap JOIN pg_inherits i ON i.inhparent = heap.oid
    )
    SELECT root.relname::text, heap.root = heap.oid, c.oid, c.relkind::text, c.relfilenode,
           EXISTS (SELECT FROM pg_locks l WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation'
                   AND l.relation = c.oid AND l.granted),
           pg_relation_size(c.oid) / current_setting('block_size')::int,
           pg_relation_size(c.oid) + CASE c.reltoastrelid WHEN 0 THEN 0 ELSE pg_relation_size(c.reltoastrelid) END,
           c.reltuples, n.nspname::text, c.relname::text,
           has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT') AND NOT row_security_active(c.oid),
           c.relispartition
    FROM heap JOIN pg_class c ON c.oid = heap.oid JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_class root ON root.oid = heap.root
    ORDER BY 1, c.oid";

/// (table, a table that it refers to).
const REFERENCES: &str = "
    SELECT DISTINCT c.relname::text, other.relname::text
    FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_class other ON other.oid = k.confrelid
    WHERE k.contype = 'f' AND c.relnamespace = other.relnamespace
      AND c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = $1)
      AND c.relname = ANY($2) AND other.relname = ANY($2)";

/// (table's oid, a unique key's columns in order, whether it is the primary key).
const KEYS: &str = "
    SELECT i.indrelid, array_agg(a.attname::text ORDER BY k.place), i.indisprimary
    FROM pg_index i CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY AS k (number, place)
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
    WHERE i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
      AND i.indrelid = ANY($1) AND k.place <= i.indnkeyatts
    GROUP BY i.indrelid, i.indexrelid, i.indisprimary
    ORDER BY 1, 2";

/// The last two: with which columns it may be joined ([`Traits::joins`]), and whether text is not what
/// it seems ([`Traits::opaque`], <https://www.postgresql.org/docs/current/collation.html>).
const COLUMNS: &str = "
    SELECT a.attrelid, a.attnum, a.attname::text, format_type(a.atttypid, a.atttypmod), c.collname::text,
           a.attmissingval::text, CASE WHEN a.attgenerated <> '' THEN pg_get_expr(d.adbin, d.adrelid) END, a.atttypid,
           CASE WHEN NOT coalesce(c.collisdeterministic, true) THEN NULL
                WHEN a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype) THEN 'integer'
                WHEN a.atttypid IN ('text'::regtype, 'varchar'::regtype) THEN 'text'
                WHEN b.typtype = 'e' OR b.oid = ANY ('{bool,int2,int4,int8,oid,text,varchar,bpchar,name,date,time,
                     timestamp,timestamptz,uuid,bytea,macaddr,inet,cidr}'::regtype[])
                  OR b.oid = 'numeric'::regtype AND greatest(a.atttypmod, t.typtypmod) >= 0
                THEN format_type(a.atttypid, a.atttypmod) END,
           NOT coalesce(c.collisdeterministic, true) OR b.oid = 'inet'::regtype OR b.typtype = 'd'
             OR t.typtype = 'd' AND b.oid IN ('bool'::regtype, 'bpchar'::regtype)
    FROM pg_attribute a
    JOIN pg_type t ON t.oid = a.atttypid
    JOIN pg_type b ON b.oid = coalesce(nullif(t.typbasetype, 0), t.oid)
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    LEFT JOIN pg_collation c ON c.oid = a.attcollation
    WHERE a.attrelid = ANY($1) AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attrelid, a.attnum";

/// (a column's type, the definition of it or of a type that it is made of, that type's name if its
/// text cannot be relied on): enum labels, and the types under domains, arrays, ranges and composite
/// types.
const TYPES: &str = "
    WITH RECURSIVE part (root, oid) AS (
        SELECT DISTINCT atttypid, atttypid FROM pg_attribute WHERE attrelid = ANY($1) AND attnum > 0 AND NOT attisdropped
        UNION
        SELECT part.root, inner_type.oid
        FROM part JOIN pg_type t ON t.oid = part.oid
        CROSS JOIN LATERAL (
            SELECT t.typelem AS oid UNION ALL SELECT t.typbasetype
            UNION ALL SELECT r.rngsubtype FROM pg_range r WHERE r.rngtypid = t.oid
            UNION ALL SELECT a.atttypid FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
        ) inner_type
        WHERE inner_type.oid <> 0
    )
    SELECT part.root,
           concat_ws(' ', t.typtype, format_type(t.oid, NULL), format_type(nullif(t.typbasetype, 0), t.typtypmod),
               (SELECT array_agg(e.enumlabel::text ORDER BY e.enumsortorder)::text FROM pg_enum e WHERE e.enumtypid = t.oid),
               (SELECT array_agg(concat(a.attname, ' ', format_type(a.atttypid, a.atttypmod)) ORDER BY a.attnum)::text
                FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped)),
           CASE WHEN t.oid = 'money'::regtype OR t.typname IN ('aclitem', 'refcursor') OR t.typname LIKE 'reg%'
                     AND t.typnamespace = 'pg_catalog'::regnamespace THEN t.typname::text END
    FROM part JOIN pg_type t ON t.oid = part.oid
    ORDER BY 1, 2";
