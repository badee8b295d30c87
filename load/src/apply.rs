//! The way of a batch into the warehouse: one transaction, from staging to the line in the ledger. Or several, if a function has not
//! time enough for one ([`crate::part`]).

use std::collections::{BTreeMap, BTreeSet};

use blackwater_base::deadline::Deadline;
use blackwater_base::temporary;
use blackwater_shared::foreign_keys;
use blackwater_shared::log::Log;
use blackwater_shared::manifest::{StarTable, Transformed};
use blackwater_shared::postgres::Doing;
use deadpool_postgres::Object;

use crate::ahead::{self, Ahead};
use crate::catalogue::{self, Star};
use crate::deletion::{self, Deleted};
use crate::error::Error;
use crate::known::{self, Known};
use crate::ledger::{self, Newest, Partly};
use crate::part::Part;
use crate::quarantine::{self, set_aside};
use crate::reject::checks;
use crate::reject::references::{self, Waking};
use crate::target::Target;
use crate::warehouse::{MANY, Warehouse};
use crate::write::{self, Written};
use crate::{BatchReport, Counts, TableReport, bulk, staging};

/// What a batch is applied to, and with what.
pub(crate) struct Batch<'a> {
    pub(crate) manifest: &'a Transformed,
    pub(crate) log: &'a Log,
    /// The star schema.
    pub(crate) schema: &'a str,
    pub(crate) schema_hash: &'a str,
    pub(crate) deadline: Deadline,
    /// Whether its large tables are staged ahead.
    pub(crate) is_ahead: bool,
}

/// How it ended.
pub(crate) enum Applied {
    /// The batch is in.
    Done(BatchReport),
    /// A part of it is.
    Partly,
    /// The warehouse is not where it was: another load was there first, or a part was undone.
    Overtaken,
    /// Another load is at work, and goes on by itself.
    Yielded,
}

/// Applies a batch, all of it or nothing; or the next part of it.
pub(crate) async fn apply(client: &mut Object, batch: &Batch<'_>, ahead: &mut Ahead) -> Result<Applied, Error> {
    let head = &batch.manifest.head;
    let doing = || format!("apply batch {}", head.batch);
    let transaction = client.transaction().await.doing(doing())?;
    let mut warehouse = Warehouse::begin(&transaction, batch.schema, (head.batch, head.at), batch.deadline).await?;
    let tables = &batch.manifest.tables;
    let names: Vec<_> = tables.keys().map(String::as_str).collect();
    let mut stars = catalogue::read(&transaction, batch.schema, &names).await?;
    let are_keys_down = bulk::add_references(&transaction, batch.schema, &mut stars).await?;
    let of = (head.batch, batch.schema);
    let whole = targets(of, tables, &stars)?;
    let order: Vec<_> = groups(&whole).into_iter().flatten().map(|target| target.name).collect();
    let partly = ledger::partly(transaction.client(), batch.schema, head.batch).await?;
    let part = Part::of(tables, &order, &partly, batch.deadline.left().is_some());
    let (targets, rows) = match &part {
        Some(part) => (targets(of, &part.tables, &stars)?, part.rows.clone()),
        None => (whole, staging::ALL),
    };
    // Where foreign keys are taken down nobody else may write to their tables, from now on.
    if are_keys_down {
        if !ledger::try_lock(transaction.client(), batch.schema).await? {
            return Ok(Applied::Yielded);
        }
        bulk::keep_writers_out(&warehouse).await?;
    }
    let folder = temporary::folder()?;
    let path = folder.path().join("rows.parquet");
    let fetch = async |object: &_| Ok(batch.log.download(object, &path).await.map(|()| path.clone())?);
    if batch.is_ahead {
        // While it waits for the session that stages.
        let keep = "SET LOCAL idle_in_transaction_session_timeout = 0";
        warehouse.run("wait for staged rows", keep).await?;
    }
    let is_ahead = |target: &Target<'_>| batch.is_ahead && part.is_none() && ahead::is_large(target.table);
    for target in &targets {
        if !is_ahead(target) {
            staging::stage_rows(&warehouse, &fetch, target, &rows).await?;
        }
        staging::stage_keys(&warehouse, &fetch, target).await?;
    }

    if !ledger::try_lock(transaction.client(), batch.schema).await? {
        return Ok(Applied::Yielded);
    }
    let newest = ledger::newest(transaction.client(), batch.schema).await?;
    if is_overtaken(batch, newest.as_ref())?
        || ledger::partly(transaction.client(), batch.schema, head.batch).await? != partly
    {
        return Ok(Applied::Overtaken);
    }
    warehouse.at = ledger::effective_at(head.at, newest.as_ref(), &partly);
    if partly != Partly::default() && partly.transformed != head.run {
        ledger::forget_parts(transaction.client(), batch.schema, head).await?;
        transaction.commit().await.doing(doing())?;
        return Ok(Applied::Overtaken);
    }
    // Another load may have taken them down since.
    bulk::keep_writers_out(&warehouse).await?;
    let mut changes = Changes::of(batch, newest, partly);
    warehouse.run(doing(), references::TABLES).await?;
    let mut with_entries = quarantine::with_entries(&warehouse, &targets).await?;
    for group in groups(&targets) {
        for target in group.iter().filter(|target| is_ahead(target)) {
            if !ahead.bring(&warehouse, target, head.run).await? {
                staging::stage_rows(&warehouse, &fetch, target, &rows).await?;
                // What is no value of its column's type is there now.
                with_entries.insert(target.name.to_owned());
            }
        }
        write_group(&warehouse, &group, &with_entries, &mut changes).await?;
    }
    let all = changes.all();
    if all.inserted + all.quarantined >= MANY {
        // Nobody else looks at what is not committed, and without the planner compares keys row by row.
        let sql = "ANALYZE (SKIP_LOCKED) blackwater.quarantine, blackwater.waiting_for";
        warehouse.run("count Blackwater's own rows", sql).await?;
    }
    bulk::put_back(&transaction, batch.schema).await?;
    if let Some(done) = part.as_ref().and_then(|part| part.done) {
        ledger::note_part(transaction.client(), (batch.schema, head.batch, warehouse.at), done, &changes.counts)
            .await?;
        transaction.commit().await.doing(doing())?;
        tracing::warn!(
            batch = head.batch,
            rows = done,
            "a function's time is not enough for this batch; a part of it is applied"
        );
        return Ok(Applied::Partly);
    }
    let mut compared = known::compare(&warehouse, &targets, &changes.known, &changes.touched, &changes.asked).await?;
    // Why these hold more rows is said.
    compared.strange.retain(|name, _| !changes.keep_deleted.contains(name));

    let line = ledger::Line {
        manifest: batch.manifest,
        effective_at: warehouse.at,
        schema_hash: batch.schema_hash,
        counts: all,
        wanted: compared.wanted.into_iter().collect(),
        known: compared.known,
    };
    ledger::add(&transaction, batch.schema, &line).await?;
    transaction.commit().await.doing(doing())?;
    let Counts { inserted, updated, unchanged, deleted, released, quarantined } = all;
    tracing::info!(batch = head.batch, inserted, updated, unchanged, deleted, released, quarantined, "applied");
    let notices = changes.notices.into_iter().chain(compared.strange.into_values()).collect();
    Ok(Applied::Done(BatchReport { batch: head.batch, tables: table_reports(changes.counts), notices }))
}

/// Writes what is staged for a group of tables, sets aside what they refuse, and marks what is gone. `with_entries` are the star
/// tables of which something was in quarantine or filtered before the batch.
pub(crate) async fn write_group(
    warehouse: &Warehouse<'_>,
    group: &[&Target<'_>],
    with_entries: &BTreeSet<String>,
    changes: &mut Changes,
) -> Result<(), Error> {
    let had_entries = |target: &Target<'_>| with_entries.contains(target.name);
    let has_rows = group.iter().any(|target| !target.table.objects.is_empty());
    let mut written = vec![Written::default(); group.len()];
    if has_rows || group.iter().any(|target| had_entries(target)) {
        staging::make_for_rows(warehouse, group).await?;
        let is_woken = references::wake(warehouse, group, changes.waking()).await?;
        if has_rows || is_woken {
            for target in group {
                checks::columns(warehouse, target).await?;
            }
            let new = if is_woken { None } else { write::insert_new(warehouse, group).await? };
            written = match new {
                Some(new) => vec![new],
                None => {
                    for target in group {
                        checks::keys(warehouse, target).await?;
                    }
                    references::hold_back(warehouse, group).await?;
                    write::write(warehouse, group, is_woken).await?
                }
            };
        }
    }
    for (target, written) in group.iter().zip(written) {
        if !target.table.misfits.is_empty() {
            set_aside::misfits(warehouse, target).await?;
        }
        let pruned = quarantine::prune(warehouse, target, had_entries(target)).await?;
        let deleted = deletion::delete(warehouse, target).await?;
        changes.add(target, written, deleted, pruned);
    }
    Ok(())
}

/// The star tables with their models.
pub(crate) fn targets<'a>(
    (batch, schema): (u64, &'a str),
    tables: &'a BTreeMap<String, StarTable>,
    stars: &'a BTreeMap<String, Star>,
) -> Result<Vec<Target<'a>>, Error> {
    let target = |(number, (name, table)): (i16, (&'a String, &'a StarTable))| {
        Target::new(number, (schema, name), table, stars.get(name), batch)
    };
    (1..).zip(tables).map(target).collect()
}

/// The targets in the order of their foreign keys; those that refer to each other together.
pub(crate) fn groups<'t, 'a>(targets: &'t [Target<'a>]) -> Vec<Vec<&'t Target<'a>>> {
    let references = |target: &Target<'a>| {
        target.star.references.iter().filter_map(|reference| reference.star_table.as_deref()).collect()
    };
    let references = targets.iter().map(|target| (target.name, references(target))).collect();
    let find = |name: &str| targets.iter().find(|target| target.name == name);
    foreign_keys::groups(&references).into_iter().map(|group| group.into_iter().filter_map(find).collect()).collect()
}

/// Whether the batch is not the next one any more.
fn is_overtaken(batch: &Batch<'_>, newest: Option<&Newest>) -> Result<bool, Error> {
    let head = &batch.manifest.head;
    match newest.filter(|newest| newest.log != head.log) {
        None => Ok(newest.map_or(0, |newest| newest.batch) + 1 != head.batch),
        Some(newest) => Err(newest.other_log(batch.log, batch.manifest, batch.schema)),
    }
}

/// What a batch has changed so far, and what was known before it.
#[derive(Default)]
pub(crate) struct Changes {
    counts: BTreeMap<String, Counts>,
    /// The star tables that got new rows.
    grown: BTreeSet<String>,
    /// The star tables for which there was something.
    touched: BTreeSet<String>,
    /// Whether a part of the batch is written.
    is_begun: bool,
    /// Whether the star tables are not as they were, and may take now what they refused before.
    is_schema_new: bool,
    /// Whether it is the first batch of a day: something else may have written to the star tables.
    is_first_of_day: bool,
    /// What the warehouse knows of, by star table, where that follows from the batches.
    known: BTreeMap<String, Known>,
    /// The source tables whose keys the batch before asked for.
    asked: Vec<String>,
    /// The star tables that do not let rows be marked as deleted.
    keep_deleted: BTreeSet<String>,
    notices: Vec<String>,
}

impl Changes {
    fn of(batch: &Batch<'_>, newest: Option<Newest>, partly: Partly) -> Self {
        let is_schema_new = newest.as_ref().is_none_or(|newest| newest.schema_hash != batch.schema_hash);
        let day = batch.manifest.head.at.date_naive();
        let is_first_of_day = newest.as_ref().is_none_or(|newest| newest.snapshot_at.date_naive() != day);
        let is_begun = partly.done > 0;
        let is_same = !is_schema_new && !is_first_of_day && !is_begun && partly.forgotten.is_empty();
        let asked = newest.as_ref().map(|newest| newest.wanted.clone()).unwrap_or_default();
        let known =
            newest.filter(|newest| is_same && newest.pack == batch.manifest.head.pack).map(|newest| newest.known);
        Self {
            is_begun,
            counts: partly.counts,
            grown: BTreeSet::new(),
            touched: BTreeSet::new(),
            is_schema_new,
            is_first_of_day,
            known: known.unwrap_or_default(),
            asked,
            keep_deleted: BTreeSet::new(),
            notices: Vec::new(),
        }
    }

    /// Which entries of the quarantine are looked at.
    fn waking(&self) -> Waking<'_> {
        Waking {
            grown: &self.grown,
            all_lines: self.is_first_of_day || self.is_schema_new,
            // Once, and not with each part of a batch.
            all_entries: self.is_schema_new && !self.is_begun,
        }
    }

    fn add(&mut self, target: &Target<'_>, written: Written, deleted: Deleted, (quarantined, unfiltered): (u64, u64)) {
        if let Some(known) = self.known.get_mut(target.name) {
            known.live += (written.new + written.revived) as i64 - deleted.rows as i64;
            known.filtered += deleted.filtered - unfiltered as i64;
        }
        if !target.table.is_empty() || written.released > 0 {
            self.touched.insert(target.name.to_owned());
        }
        if written.new > 0 {
            self.grown.insert(target.name.to_owned());
        }
        let (inserted, updated) = target.inserted_and_updated(written);
        let counts = Counts {
            inserted,
            updated,
            unchanged: written.staged - inserted - updated,
            deleted: deleted.rows,
            released: written.released,
            quarantined,
        };
        if counts != Counts::default() {
            let known = self.counts.entry(target.name.to_owned()).or_default();
            // Those of the earlier parts are counted again.
            known.quarantined = 0;
            known.add(counts);
        }
        if let Some((rows, reason)) = deleted.refused {
            self.keep_deleted.insert(target.name.to_owned());
            self.notices.push(format!(
                "{} does not let {rows} rows be marked as deleted: {reason}. They are tried again with the next keys",
                target.name
            ));
        }
    }

    fn all(&self) -> Counts {
        let mut all = Counts::default();
        self.counts.values().for_each(|counts| all.add(*counts));
        all
    }
}

fn table_reports(counts: BTreeMap<String, Counts>) -> Vec<TableReport> {
    counts.into_iter().map(|(table, counts)| TableReport { table, counts }).collect()
}
