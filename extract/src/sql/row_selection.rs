//! What a batch holds of each table, in SQL.
//!
//! A batch stands by itself: for each SELECT of a model it holds D, the driving rows that the log does
//! not hold and that fit this batch, and of those that it holds the ones that changed, that a chain of
//! joins leads to from a changed lookup row, or whose join columns match nothing when a lookup row may
//! be gone; and for every row of D the lookup rows. All of it follows from the model's FROM, which
//! Postgres runs here: as the joined columns are a key, a join adds no row, so D is a condition over
//! the driving table with its joins. Every join is a LEFT JOIN here: a row that an INNER JOIN no longer
//! lets through has changed too.
//!
//! Where the keys of all rows that changed are known, the rows are found by key ([`super::by_key`]). D is the same then, for the
//! rows of one table and what they look up may be found in different ways: [`RowSelection::reasons`] defines it for both.

use std::collections::{BTreeMap, BTreeSet};

use blackwater_shared::manifest::mark;
use blackwater_shared::model::{Join, Model, On, Select};
use blackwater_shared::postgres::{ident, idents};

use super::blocks::Blocks;
use super::by_key::ByKey;
use super::keys::{KeyColumn, among, among_joined};
use super::predicate::Predicate;
use super::query::Query;
use super::source_table::SourceTable;
use crate::changes::{Changes, Key};

/// The most partitions that one query reads by themselves.
const LEAVES: usize = 100;

/// The transaction that wrote a row, if the log did not hold the row before.
pub(super) const WRITER: &str = "blackwater:writer";
/// A letter for each model that the table drives: `t` if the row drives it in this batch.
pub(super) const MARKS: &str = "blackwater:marks";
/// Whether a model looks the row up.
const NEEDED: &str = "blackwater:needed";

/// What decides which rows a batch holds.
pub(crate) struct RowSelection<'a> {
    pub(crate) tables: BTreeMap<&'a str, SourceTable<'a>>,
    /// What changed in each table, as far as it is the batch's to bring.
    pub(crate) changes: &'a BTreeMap<String, Changes>,
    pub(crate) models: Vec<&'a Model>,
}

/// A SELECT in SQL: the names that its tables go by there.
pub(super) struct Chain<'a> {
    select: &'a Select,
    /// What precedes the number of each table; the driving table may go by another name.
    prefix: String,
    driving: String,
    /// Whether it shows what the model reads, and not only which rows there are.
    shows: bool,
    /// Whether Postgres is to find its rows by key, and not to read the driving table.
    by_key: bool,
}

/// A reason for which driving rows that the log holds come again.
pub(super) struct Reason {
    /// The tables that the condition reads.
    pub(super) tables: BTreeSet<usize>,
    /// False for a row that finds nothing in a table on the way to these.
    pub(super) condition: Predicate,
}

impl<'a> Chain<'a> {
    /// A SELECT whose rows are found by key.
    pub(super) fn by_key(select: &'a Select) -> Self {
        Self { select, prefix: "l".into(), driving: "t".into(), shows: false, by_key: true }
    }

    pub(super) fn alias(&self, table: usize) -> String {
        match table {
            0 => self.driving.clone(),
            _ => format!("{}{table}", self.prefix),
        }
    }

    /// The source tables that it joins.
    fn joins(&self) -> impl Iterator<Item = (usize, &str, &Join)> {
        let tables = self.select.tables.iter().enumerate().filter(|(_, table)| !table.fixed);
        tables.filter_map(|(place, table)| Some((place, table.name.as_str(), table.join.as_ref()?)))
    }

    /// The columns of a table that the query needs: those by which it is joined or others are, and those that are shown.
    pub(super) fn columns(&self, table: usize) -> impl Iterator<Item = &str> {
        let joined = self.joins().flat_map(move |(place, _, join)| {
            let own = join.on.iter().filter(move |_| place == table).map(|on| on.column.as_str());
            own.chain(join.on.iter().filter(move |on| on.table == table).map(|on| on.other.as_str()))
        });
        let shown = self.select.reads(table).iter().filter(|_| self.shows).map(String::as_str);
        joined.chain(shown)
    }

    /// The columns that refer to the primary key of a table, in the key's order and of its types; `None` if the table is joined by
    /// other columns.
    fn referring(&self, join: &Join, table: &SourceTable<'_>) -> Option<Vec<KeyColumn>> {
        let column = |(name, key): (&String, KeyColumn)| {
            let on = join.on.iter().find(|on| on.column == *name)?;
            Some(KeyColumn { name: format!("{}.{}", self.alias(on.table), ident(&on.other)), ..key })
        };
        let key = table.definition.key.iter().zip(table.key(""));
        let columns: Vec<_> = key.map(column).collect::<Option<_>>()?;
        (columns.len() == join.on.len()).then_some(columns)
    }

    /// The condition that the columns have the values of one of the keys.
    fn among(&self, columns: &[KeyColumn], keys: &[Key]) -> Predicate {
        if self.by_key { among_joined(columns, keys) } else { among(columns, keys) }
    }
}

impl RowSelection<'_> {
    /// The queries for the rows of a table that the batch holds: the transaction that wrote it, if the log did not hold the row
    /// before; its columns; and in a last one a letter, `t` or `f`, for each model that it drives. The names are those of the
    /// columns and of the models' marks.
    pub(crate) fn rows(&self, table: &str) -> Vec<Query> {
        if let Some(by_key) = ByKey::of(self, table) {
            return by_key.rows().into_iter().collect();
        }
        let source = &self.tables[table];
        let may_read = |blocks: &Blocks| source.definition.leaves.contains_key(&blocks.heap);
        if !source.definition.many || !self.brings_only_due(table) || !source.due.iter().all(may_read) {
            return self.rows_by_scan(table).into_iter().collect();
        }
        // So a batch of a few partitions does not read the others.
        let of_leaves = |due| {
            let mut tables = self.tables.clone();
            tables.insert(source.name, SourceTable { due, by_leaves: true, ..*source });
            RowSelection { tables, changes: self.changes, models: self.models.clone() }.rows_by_scan(table)
        };
        source.due.chunks(LEAVES).filter_map(of_leaves).collect()
    }

    /// Whether the batch has rows of a table only because the log did not hold them.
    fn brings_only_due(&self, table: &str) -> bool {
        let comes_again = self.chains(table).any(|(_, chain)| !self.reasons(&chain).is_empty());
        !comes_again && self.lookups_of(table).next().is_none()
    }

    /// The joins by which driving rows of the batch look up rows of a table: the number and the SELECT, and the place of the join.
    fn lookups_of<'t>(&'t self, table: &'t str) -> impl Iterator<Item = (usize, &'t Select, usize, &'t Join)> {
        let selects = self.models.iter().flat_map(|model| &model.selects).enumerate();
        let touched = |select: &Select| {
            !self.tables[select.driving()].due("t").is_never()
                || select.tables.iter().any(|table| !table.fixed && self.has_news(&table.name))
        };
        selects.filter(move |(_, select)| touched(select)).flat_map(move |(number, select)| {
            let joined =
                select.tables.iter().enumerate().filter(move |(_, joined)| !joined.fixed && joined.name == table);
            joined.filter_map(move |(place, joined)| Some((number, select, place, joined.join.as_ref()?)))
        })
    }

    /// The same query for tables that are read whole.
    pub(super) fn rows_by_scan(&self, table: &str) -> Option<Query> {
        let source = &self.tables[table];
        let (mut joins, marks) = self.driven(table);
        let mut needed = Vec::new();
        for (number, select, place, join) in self.lookups_of(table) {
            let alias = format!("n{number}_{place}");
            let (prefix, driving) = (format!("{alias}_"), format!("{alias}_0"));
            let inner = Chain { select, prefix, driving, shows: false, by_key: false };
            joins.push_str(&self.lookup(&inner, join, &alias));
            needed.push(Predicate::Sql(format!("{alias}.k0 IS NOT NULL")));
        }
        if marks.iter().all(|(_, drives)| drives.is_never()) && needed.is_empty() {
            return None;
        }
        let columns = || source.definition.columns.iter().map(|column| column.name.as_str());
        // In one column, for a query returns 1664 at most.
        let letters: Vec<_> =
            marks.iter().map(|(_, drives)| format!("CASE WHEN {drives} THEN 't' ELSE 'f' END")).collect();
        let letters = if letters.is_empty() { "''".into() } else { letters.join(" || ") };
        // Where nothing else is wanted, the server reads these blocks alone.
        let (relation, condition) = match self.brings_only_due(table) {
            true => (source.relation_due("t", columns()), source.due("t")),
            false => (source.relation("t", columns()), Predicate::Always),
        };
        let [writer, marked, extra] = [WRITER, MARKS, NEEDED].map(ident);
        let sql = format!(
            "SELECT {writer}, {columns}, {marked} FROM (
                 SELECT {written} AS {writer}, {of_table}, {letters} AS {marked}, {needed} AS {extra}
                 FROM {relation}{joins} WHERE {condition} OFFSET 0
             ) AS t WHERE {extra} OR strpos({marked}, 't') > 0",
            columns = idents("", columns()),
            needed = Predicate::any(needed),
            of_table = idents("t.", columns()),
            written = match source.due("t") {
                Predicate::Never => "NULL".to_owned(),
                Predicate::Always => "t.xmin".to_owned(),
                Predicate::Sql(due) => format!("CASE WHEN {due} THEN t.xmin END"),
            },
        );
        let names = columns().map(str::to_owned).chain(marks.into_iter().map(|(name, _)| mark(name)));
        Some(Query { sql, names: names.collect() })
    }

    /// The query for the number of rows of a table that come again with the batch because of a model that it drives. `None` if
    /// there can be none.
    pub(crate) fn again(&self, table: &str) -> Option<String> {
        match ByKey::of(self, table) {
            Some(by_key) => by_key.again(),
            None => self.again_by_scan(table),
        }
    }

    /// The same query for tables that are read whole.
    fn again_by_scan(&self, table: &str) -> Option<String> {
        let source = &self.tables[table];
        let (mut joins, mut again) = (String::new(), Vec::new());
        let chains: Vec<_> = self.chains(table).map(|(_, chain)| chain).collect();
        for chain in &chains {
            joins.push_str(&self.joins(chain, self.asked(chain)));
            again.push(self.is_again(chain));
        }
        let (columns, again) = (chains.iter().flat_map(|chain| chain.columns(0)), Predicate::any(again));
        let sql = format!("SELECT count(*) FROM {}{joins} WHERE {again}", source.relation("t", columns));
        (!again.is_never()).then_some(sql)
    }

    /// The SELECTs that a table drives, with their models.
    fn chains(&self, table: &str) -> impl Iterator<Item = (&Model, Chain<'_>)> {
        let selects = self.models.iter().flat_map(|model| model.selects.iter().map(move |select| (*model, select)));
        let driven = selects.filter(move |(_, select)| select.driving() == table).enumerate();
        driven.map(|(number, (model, select))| {
            (model, Chain { select, prefix: format!("l{number}_"), driving: "t".into(), shows: false, by_key: false })
        })
    }

    /// The models that a table drives, each with the condition for its rows, and the joins for all of them.
    fn driven(&self, table: &str) -> (String, Vec<(&str, Predicate)>) {
        let mut joins = String::new();
        let mut marks: Vec<(&str, Vec<Predicate>)> = Vec::new();
        for (model, chain) in self.chains(table) {
            joins.push_str(&self.joins(&chain, self.asked(&chain)));
            let is_in = self.is_in(&chain);
            match marks.last_mut() {
                Some((name, drives)) if *name == model.name => drives.push(is_in),
                _ => marks.push((&model.name, vec![is_in])),
            }
        }
        (joins, marks.into_iter().map(|(name, drives)| (name, Predicate::any(drives))).collect())
    }

    /// The query for all driving rows of a SELECT with those that they look up, in the order of their keys:
    /// the columns that `column` names by table and name, and in `changed` whether the row is to come with
    /// the next batch. With `most`, it is a sample of so many rows, whichever come first.
    pub(crate) fn joined(
        &self,
        select: &Select,
        column: impl Fn(usize, &str) -> String,
        changed: &str,
        most: Option<u64>,
    ) -> Query {
        let chain = Chain { select, prefix: "l".into(), driving: "t".into(), shows: true, by_key: false };
        let source = &self.tables[select.driving()];
        let tables = select.tables.iter().enumerate().filter(|(_, table)| !table.fixed);
        let columns: Vec<_> =
            tables.flat_map(|(place, _)| select.reads(place).iter().map(move |name| (place, name))).collect();
        let values: Vec<_> =
            columns.iter().map(|(place, name)| format!("{}.{}", chain.alias(*place), ident(name))).collect();
        let key: Vec<_> =
            source.definition.key.iter().map(|name| format!("t.{}::text COLLATE \"C\"", ident(name))).collect();
        let table = source.relation("t", chain.columns(0).chain(source.definition.key.iter().map(String::as_str)));
        let (table, order) = match most {
            Some(most) => (format!("(SELECT * FROM {table} LIMIT {most}) AS t"), String::new()),
            None if key.is_empty() => (table, String::new()),
            None => (table, format!(" ORDER BY {}", key.join(", "))),
        };
        let sql = format!(
            "SELECT {values}, {reasons} FROM {table}{joins}{order}",
            values = values.join(", "),
            reasons = self.is_in(&chain),
            joins = self.joins(&chain, chain.joins().map(|(place, ..)| place).collect()),
        );
        let names = columns.into_iter().map(|(place, name)| column(place, name));
        Query { sql, names: names.chain([changed.to_owned()]).collect() }
    }

    fn has_changed(&self, table: &str) -> bool {
        match self.tables[table].touched {
            Some(touched) => !touched.is_empty(),
            None => self.changes[table].changed > 0,
        }
    }

    /// Whether rows of a table are known to have changed, or may be gone.
    pub(super) fn has_news(&self, table: &str) -> bool {
        self.has_changed(table) || self.changes[table].may_have_lost
    }

    /// The lookups that say whether a driving row that the log holds is in the batch.
    fn asked(&self, chain: &Chain<'_>) -> BTreeSet<usize> {
        self.reasons(chain).into_iter().flat_map(|reason| reason.tables).collect()
    }

    /// The condition that a driving row is in the batch.
    fn is_in(&self, chain: &Chain<'_>) -> Predicate {
        Predicate::any([self.is_again(chain), self.tables[chain.select.driving()].due(&chain.driving)])
    }

    /// The condition that a driving row that the log holds comes again.
    fn is_again(&self, chain: &Chain<'_>) -> Predicate {
        Predicate::any(self.reasons(chain).into_iter().map(|reason| reason.condition))
    }

    /// The reasons for which driving rows that the log holds come again. Without one, no row does.
    pub(super) fn reasons(&self, chain: &Chain<'_>) -> Vec<Reason> {
        let (name, driving) = (chain.select.driving(), &self.tables[chain.select.driving()]);
        let read = driving.read(&chain.driving);
        let mut reasons = Vec::new();
        if self.has_changed(name) {
            let condition = match driving.touched {
                // Wherever it lies now: the log held it where it was, and it may lie where the log has not got yet.
                Some(touched) => chain.among(&driving.key(&chain.driving), touched),
                None => read.clone().and(driving.changed(&chain.driving)),
            };
            reasons.push(Reason { tables: BTreeSet::new(), condition });
        }
        for (place, name, join) in chain.joins().filter(|(_, name, _)| self.has_news(name)) {
            let of_lookup = self.lookup_reasons(chain, place, (name, join)).into_iter();
            reasons.extend(of_lookup.map(|reason| Reason { condition: read.clone().and(reason.condition), ..reason }));
        }
        reasons.retain(|reason| !reason.condition.is_never());
        reasons
    }

    /// The reasons for which driving rows come again though they may not have changed themselves: what they look up at `place`.
    fn lookup_reasons(&self, chain: &Chain<'_>, place: usize, (name, join): (&str, &Join)) -> Vec<Reason> {
        let (source, alias) = (&self.tables[name], chain.alias(place));
        let key = format!("{alias}.{}", ident(&join.on[0].column));
        let given = join.on.iter().map(|on| format!("{}.{} IS NOT NULL", chain.alias(on.table), ident(&on.other)));
        let given = given.collect::<Vec<_>>().join(" AND ");
        let tables: BTreeSet<_> = join.on.iter().map(|on| on.table).chain([place]).collect();
        let mut reasons = Vec::new();
        if let Some(touched) = source.touched {
            if let Some(columns) = chain.referring(join, source) {
                // The keys of deleted rows are among them, so nothing has to look for rows that match nothing.
                let nearer = tables.iter().copied().filter(|table| *table != place).collect();
                let condition = Predicate::Sql(given.clone()).and(chain.among(&columns, touched));
                reasons.push(Reason { tables: nearer, condition });
                if !self.changes[name].may_have_lost {
                    return reasons;
                }
            } else {
                let found = Predicate::Sql(format!("{key} IS NOT NULL"));
                let condition = found.and(chain.among(&source.key(&alias), touched));
                reasons.push(Reason { tables: tables.clone(), condition });
            }
        } else if self.has_changed(name) {
            let condition = Predicate::Sql(format!("{key} IS NOT NULL")).and(source.changed(&alias));
            reasons.push(Reason { tables: tables.clone(), condition });
        }
        reasons.push(Reason { tables, condition: Predicate::Sql(format!("{key} IS NULL AND {given}")) });
        reasons
    }

    /// The joins of a chain that lead to the tables at `wanted`.
    pub(super) fn joins(&self, chain: &Chain<'_>, mut wanted: BTreeSet<usize>) -> String {
        let joins: Vec<_> = chain.joins().collect();
        for (place, _, join) in joins.iter().rev() {
            if wanted.contains(place) {
                wanted.extend(join.on.iter().map(|on| on.table));
            }
        }
        let sql = |(place, name, join): &(usize, &str, &Join)| {
            let (alias, source) = (chain.alias(*place), &self.tables[*name]);
            let equal = |On { column, table, other }: &On| {
                format!("{alias}.{} = {}.{}", ident(column), chain.alias(*table), ident(other))
            };
            let on: Vec<_> = join.on.iter().map(equal).collect();
            let relation = match chain.by_key {
                true => source.relation_by_key(&alias, chain.columns(*place)),
                false => source.relation(&alias, chain.columns(*place)),
            };
            format!(" LEFT JOIN {relation} ON {}", on.join(" AND "))
        };
        joins.iter().filter(|(place, ..)| wanted.contains(place)).map(sql).collect()
    }

    /// Joins the keys of the rows that driving rows of the batch look up by `join`.
    fn lookup(&self, chain: &Chain<'_>, join: &Join, alias: &str) -> String {
        let source = &self.tables[chain.select.driving()];
        let mut wanted = self.asked(chain);
        wanted.extend(join.on.iter().map(|on| on.table));
        let key = |(number, on): (usize, &On)| format!("{}.{} AS k{number}", chain.alias(on.table), ident(&on.other));
        let equal = |(number, on): (usize, &On)| format!("{alias}.k{number} = t.{}", ident(&on.column));
        format!(
            " LEFT JOIN (SELECT DISTINCT {} FROM {}{} WHERE {}) AS {alias} ON {}",
            join.on.iter().enumerate().map(key).collect::<Vec<_>>().join(", "),
            source.relation(&chain.driving, chain.columns(0)),
            self.joins(chain, wanted),
            self.is_in(chain),
            join.on.iter().enumerate().map(equal).collect::<Vec<_>>().join(" AND "),
        )
    }
}

#[cfg(test)]
mod tests {
    use blackwater_shared::manifest::{Column, Heap};

    use super::*;
    use crate::plan::Since;
    use crate::source::catalogue::Table;
    use crate::source::continuity::Bounds;
    use crate::sql::Server;

    fn table(columns: &[&str], heaps: &[u32]) -> Table {
        Table {
            columns: columns.iter().map(|name| Column { name: (*name).into(), kind: "integer".into() }).collect(),
            heaps: heaps
                .iter()
                .map(|oid| Heap { oid: *oid, file: 0, fingerprint: String::new(), unread: None })
                .collect(),
            many: heaps.len() > 1,
            ..Table::default()
        }
    }

    /// The query for the rows of a table of sales and of the items that they look up, some of which have changed.
    fn rows(of: &str) -> String {
        let fixed = BTreeMap::new();
        let select = "SELECT sale.id, item.name FROM sale INNER JOIN item ON item.id = sale.item";
        let model = Model::parse("fact_sale", select, &fixed).unwrap();
        let tables = [("item", table(&["id", "name"], &[5, 6])), ("sale", table(&["id", "item"], &[4]))];
        let since = Since { xmin: 90, heaps: Vec::new() };
        let sources = tables.iter().map(|(name, definition)| {
            let (since, touched, seen, unread, due) = (Some(&since), None, &[][..], &[][..], &[][..]);
            let server = Server { bounds: Bounds { xmin: 93, xmax: 93 }, version: 15 };
            (
                *name,
                SourceTable {
                    server,
                    schema: "s",
                    name,
                    definition,
                    since,
                    touched,
                    seen,
                    unread,
                    due,
                    by_leaves: false,
                },
            )
        });
        let changes = |name: &str, changed| (name.to_owned(), Changes { changed, ..Changes::default() });
        let changes = [changes("item", 2), changes("sale", 0)].into();
        let selection = RowSelection { tables: sources.collect(), changes: &changes, models: vec![&model] };
        selection.rows(of)[0].sql.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn rows_that_look_up_a_changed_row_in_one_of_several_heaps_come_with_it() {
        let heaps = |columns: &str, alias: &str| {
            format!(
                "(SELECT * FROM (SELECT {columns}, \"tableoid\", \"xmin\" FROM \"s\".\"item\" OFFSET 0) AS heaps \
                 WHERE tableoid = ANY ('{{5,6}}'::oid[])) AS {alias}"
            )
        };
        let is_in = |alias: &str, sale: &str| {
            let changed = format!("{alias}.xmin = ANY ('{{90,91,92}}'::xid[])");
            format!(
                "(((({alias}.\"id\" IS NOT NULL) AND ({changed}))) OR ({alias}.\"id\" IS NULL AND \
                 {sale}.\"item\" IS NOT NULL))"
            )
        };
        assert_eq!(
            rows("sale"),
            format!(
                "SELECT \"blackwater:writer\", \"id\", \"item\", \"blackwater:marks\" FROM ( SELECT NULL AS \
                 \"blackwater:writer\", t.\"id\", t.\"item\", CASE WHEN {} THEN 't' ELSE 'f' END AS \
                 \"blackwater:marks\", false AS \"blackwater:needed\" FROM \"s\".\"sale\" AS t LEFT JOIN {} ON \
                 l0_1.\"id\" = t.\"item\" WHERE true OFFSET 0 ) AS t WHERE \"blackwater:needed\" OR \
                 strpos(\"blackwater:marks\", 't') > 0",
                is_in("l0_1", "t"),
                heaps("\"id\"", "l0_1"),
            )
        );
        assert_eq!(
            rows("item"),
            format!(
                "SELECT \"blackwater:writer\", \"id\", \"name\", \"blackwater:marks\" FROM ( SELECT NULL AS \
                 \"blackwater:writer\", t.\"id\", t.\"name\", '' AS \"blackwater:marks\", n0_1.k0 IS NOT NULL AS \
                 \"blackwater:needed\" FROM {} LEFT JOIN (SELECT DISTINCT n0_1_0.\"item\" AS k0 FROM \"s\".\"sale\" \
                 AS n0_1_0 LEFT JOIN {} ON n0_1_1.\"id\" = n0_1_0.\"item\" WHERE {}) AS n0_1 ON n0_1.k0 = t.\"id\" \
                 WHERE true OFFSET 0 ) AS t WHERE \"blackwater:needed\" OR strpos(\"blackwater:marks\", 't') > 0",
                heaps("\"id\", \"name\"", "t"),
                heaps("\"id\"", "n0_1_1"),
                is_in("n0_1_1", "n0_1_0"),
            )
        );
    }
}
