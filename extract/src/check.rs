//! What of the source will not work, before a run, and a sample of its rows.

use std::collections::{BTreeMap, BTreeSet};

use blackwater_base::deadline::Deadline;
use blackwater_shared::config::ChangeDetection;
use blackwater_shared::finding::{About, Finding};
use blackwater_shared::log::Ends;
use blackwater_shared::manifest::{Extracted, Table};
use blackwater_shared::model::{CHANGED, Model, On, column};
use blackwater_shared::postgres::Doing;
use deadpool_postgres::Transaction;
use serde::Serialize;

use crate::Extract;
use crate::changes::{Changes, wal};
use crate::error::Error;
use crate::plan::{Cut, Plan, TablePlan};
use crate::reader::Reader;
use crate::source::limit::{Allowed, Limit};
use crate::source::snapshot::{self, Snapshot};
use crate::source::{catalogue, models};
use crate::sql::Server;
use crate::verify::Pieces;

/// How many rows are read for each SELECT of a model, to try it with.
const SAMPLE: u64 = 100;

/// What a check of the source found.
#[derive(Debug, Default)]
pub struct Checked {
    /// What will not work.
    pub findings: Vec<Finding>,
    /// The tables that can be read, without rows.
    pub tables: BTreeMap<String, Table>,
    /// The models that fit them.
    pub models: BTreeSet<String>,
    /// Some rows for each of these models, with those that they look up: the place of the SELECT, and CSV with a header.
    pub samples: BTreeMap<String, Vec<(usize, Vec<u8>)>>,
    /// How much there is to read.
    pub sizes: Vec<TableSize>,
    /// Where the log in the ingestion bucket ends, if that can be read.
    pub log: Option<Ends>,
}

/// How large a source table is. Each run looks at all of it, for nothing indexes what has changed.
#[derive(Clone, Debug, Serialize)]
pub struct TableSize {
    /// The table.
    pub table: String,
    /// Its rows, as the server estimates them; none if it has not counted yet.
    pub rows: Option<u64>,
    /// The bytes of its heaps.
    pub bytes: u64,
}

/// (rows or -1, bytes) of all heaps of a table.
const SIZE: &str = "
    WITH RECURSIVE heap (oid) AS (
        SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = $1 AND c.relname = $2
        UNION SELECT i.inhrelid FROM heap JOIN pg_inherits i ON i.inhparent = heap.oid)
    SELECT CASE WHEN bool_or(reltuples < 0) THEN -1 ELSE sum(reltuples)::bigint END, sum(pg_relation_size(oid))::bigint
    FROM heap JOIN pg_class c USING (oid) WHERE relkind = 'r'";

/// (table, the first column of an index).
const INDEXED: &str = "SELECT i.indrelid, a.attname::text FROM pg_index i
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
    WHERE i.indisvalid AND i.indpred IS NULL AND i.indrelid = ANY($1)";

/// What a standby says of itself.
const STANDBY: &str = "SELECT current_setting('hot_standby_feedback'), current_setting('max_standby_streaming_delay')
    WHERE pg_is_in_recovery()";

impl Extract {
    /// Checks the source against the models, and reads a few rows for each.
    ///
    /// # Errors
    /// None of what a check is for: if the source cannot be asked, that is a finding.
    pub async fn check(&self) -> Checked {
        let mut checked = Checked::default();
        match self.check_log().await {
            Ok(ends) => checked.log = Some(ends),
            Err(error) => checked.findings.push(Finding::error(About::Buckets, error)),
        }
        let allowed = Limit { setting: self.statement_timeout, deadline: Deadline::NONE }.now();
        if let Err(error) = self.check_source(&mut checked, &allowed).await.map_err(|error| allowed.explain(error)) {
            checked.findings.push(Finding::error(About::Source, error));
        }
        checked
    }

    async fn check_log(&self) -> Result<Ends, Error> {
        let batch = self.log.newest().await?;
        if batch == 0 {
            return Ok(Ends::default());
        }
        let manifest: Option<Extracted> = self.log.read(batch).await?;
        Ok(Ends { log: manifest.map(|manifest| manifest.head.log), batch })
    }

    async fn check_source(&self, checked: &mut Checked, allowed: &Allowed) -> Result<(), Error> {
        let mut clients = vec![self.source.connect().await?];
        let transaction = allowed.begin(&mut clients[0]).await?;
        let errors = catalogue::check(&transaction, &self.schema, &self.pack).await?;
        drop(transaction);
        let mut left_out = BTreeSet::new();
        for error in &errors {
            match error {
                Error::NoTable { tables, .. } => left_out.extend(tables.iter().cloned()),
                Error::Table { table, .. } => drop(left_out.insert(table.clone())),
                _ => {}
            }
            checked.findings.push(Finding::error(About::Source, error));
        }
        let names: Vec<_> = self.pack.source_tables().into_iter().filter(|table| !left_out.contains(table)).collect();
        if names.is_empty() {
            return Ok(());
        }
        let opened = snapshot::open(&mut clients, &self.schema, &names, allowed).await?;
        let tables = catalogue::read(&opened.readers[0], &self.schema, &names, &self.exclude).await?;
        let whole = |model: &&Model| model.source_tables().all(|table| tables.contains_key(table));
        for model in self.pack.models.values().filter(whole) {
            match models::check(model, &tables) {
                Ok(()) => drop(checked.models.insert(model.name.clone())),
                Err(error) => checked.findings.push(Finding::error(About::Models, error)),
            }
        }
        checked.sizes = self.sizes(&opened.readers[0], &names).await?;
        if let Some(row) = opened.readers[0].query_opt(STANDBY, &[]).await.doing("ask the standby for its settings")? {
            let (feedback, delay): (String, String) = (row.get(0), row.get(1));
            if feedback != "on" {
                checked.findings.push(Finding::advice(
                    About::Source,
                    format!(
                        "it is a standby with hot_standby_feedback = {feedback} and max_standby_streaming_delay = {delay}: \
                         a run that takes longer may be ended by what the primary cleans up"
                    ),
                ));
            }
        }
        if self.change_detection != ChangeDetection::Scan && self.check_capture(checked, &tables).await {
            self.check_indexes(checked, &opened.readers[0], &tables).await?;
        }
        checked.tables = tables.iter().map(|(name, table)| (name.clone(), table.in_manifest())).collect();
        for model in self.pack.models.values().filter(|model| checked.models.contains(&model.name)) {
            let sample = self.sample(&opened, model, &tables).await?;
            checked.samples.insert(model.name.clone(), sample);
        }
        Ok(())
    }

    /// Whether changes are found by the write-ahead log. Says why they are not, and of which tables they are not in any case.
    async fn check_capture(&self, checked: &mut Checked, tables: &BTreeMap<String, catalogue::Table>) -> bool {
        let advise = |what: String| Finding::advice(About::Source, what);
        let facts = match self.facts().await {
            Ok(facts) => facts,
            Err(error) => {
                checked.findings.push(advise(format!("changes are found by scans: {error}")));
                return false;
            }
        };
        let is_offered = facts.wal_level == "logical" && !facts.standby;
        if !is_offered && self.change_detection == ChangeDetection::Auto {
            return false;
        }
        if facts.keeps < 0 && is_offered {
            checked.findings.push(advise(
                "max_slot_wal_keep_size is unlimited at the source: if no run reads the replication slot, it keeps the \
                 write-ahead log until the disk is full\nSet it, to 10GB for example"
                    .into(),
            ));
        }
        if let Some(why) = wal::unusable(&facts, self.change_detection, &self.slot) {
            checked.findings.push(advise(format!(
                "changes are found by scans of all tables: {why}\n`blackwater check --grants` prints the statements for the \
                 write-ahead log; set source.changes = \"scan\" if you want scans"
            )));
            return false;
        }
        let published = |table: &&catalogue::Table| {
            facts.publication.as_ref().is_some_and(|publication| publication.tables.contains_key(&table.oid))
        };
        for (name, table) in tables {
            let why = if !table.is_found_by_key() {
                "it has no primary key of types in which equal values print alike, or other tables inherit from it"
            } else if !published(&table) {
                "it is not in the publication"
            } else {
                continue;
            };
            checked.findings.push(advise(format!("changes of {name} are found by scans: {why}")));
        }
        true
    }

    /// Says which tables are read whole when a row that they look up changes, because no index leads from it to them.
    async fn check_indexes(
        &self,
        checked: &mut Checked,
        reader: &Transaction<'_>,
        tables: &BTreeMap<String, catalogue::Table>,
    ) -> Result<(), Error> {
        let oids: Vec<_> = tables.values().map(|table| table.oid).collect();
        let indexed = reader.query(INDEXED, &[&oids]).await.doing("read the source's indexes")?;
        let indexed: BTreeSet<(u32, String)> = indexed.iter().map(|row| (row.get(0), row.get(1))).collect();
        let mut missing = BTreeSet::new();
        for select in self.pack.models.values().flat_map(|model| &model.selects) {
            for table in select.tables.iter().filter(|table| !table.fixed) {
                let Some(join) = &table.join else { continue };
                let has_index = |on: &On| {
                    let referring = tables.get(&select.tables[on.table].name);
                    referring.is_some_and(|referring| indexed.contains(&(referring.oid, on.other.clone())))
                };
                if !join.on.iter().any(has_index) {
                    let on = &join.on[0];
                    missing.insert((&select.tables[on.table].name, &on.other, &table.name));
                }
            }
        }
        for (referring, column, lookup) in missing {
            checked.findings.push(Finding::advice(
                About::Source,
                format!(
                    "no index on {referring} starts with {column}, so a changed row of {lookup} makes a run read all of {referring}\n\
                     Create one if {referring} is large"
                ),
            ));
        }
        Ok(())
    }

    /// The first rows that are met for each SELECT of a model.
    async fn sample(
        &self,
        Snapshot { readers, bounds, version, .. }: &Snapshot<'_>,
        model: &Model,
        tables: &BTreeMap<String, catalogue::Table>,
    ) -> Result<Vec<(usize, Vec<u8>)>, Error> {
        let limit = Limit { setting: self.statement_timeout, deadline: Deadline::NONE };
        // As if the log held all rows, and none had changed.
        let plan: Plan = tables.keys().map(|name| (name.clone(), TablePlan::default())).collect();
        let changes = tables.keys().map(|name| (name.clone(), Changes::default())).collect();
        let (schema, pack, nothing) = (&self.schema, &self.pack, Cut::default());
        let reader = Reader {
            transactions: readers,
            server: Server { bounds: *bounds, version: *version },
            schema,
            pack,
            tables,
            newest: None,
            is_quiet: false,
            named: &BTreeMap::new(),
            counts: true,
            limit,
        };
        let selection = reader.selection(&plan, &changes, &nothing);
        let mut sample = Vec::new();
        for (place, select) in model.selects.iter().enumerate() {
            let query = selection.joined(select, column, CHANGED, Some(SAMPLE));
            let mut pieces = Pieces::new(&readers[0], limit, vec![(place, query)], (&model.name, self.object_bytes));
            sample.extend(pieces.next().await?);
        }
        Ok(sample)
    }

    async fn sizes(&self, transaction: &Transaction<'_>, tables: &[String]) -> Result<Vec<TableSize>, Error> {
        let mut sizes = Vec::new();
        for table in tables {
            let row = transaction
                .query_one(SIZE, &[&self.schema, table])
                .await
                .doing("ask the source for the size of its tables")?;
            let rows: Option<i64> = row.get(0);
            let bytes: Option<i64> = row.get(1);
            sizes.push(TableSize {
                table: table.clone(),
                rows: rows.and_then(|rows| rows.try_into().ok()),
                bytes: bytes.unwrap_or(0) as u64,
            });
        }
        Ok(sizes)
    }
}
