//! WAL capture in a run: what is read of the slot, in which order, and how far the next manifest says it is read.
//!
//! A manifest's position is *settled* for its snapshot: the snapshot sees every transaction that ends at or before it, and the
//! slot names those that end behind it. A commit is in the log before the server lets a snapshot see it, so neither the position
//! before a snapshot nor the one after it is settled. There are two ways to know one that is:
//!
//! - A peek that is complete shows the transactions in the order of their commits. All before the first one that the snapshot
//!   does not see are settled.
//! - A position is read, then a transaction X begins. A snapshot of which all transactions below X are over sees all that ended
//!   before the position. That arms a new slot, and carries one past what could not be read.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use blackwater_shared::config::ChangeDetection;
use blackwater_shared::manifest::{self, Extracted, Pending, Published};
use blackwater_shared::postgres::{Database, Kind};
use chrono::{DateTime, TimeDelta, Utc};
use deadpool_postgres::Transaction;

use super::control::{Control, Facts, Publication, Slot, publication};
use super::table::{Changed, TableChanges, WantedTable};
use super::touched::{Collector, Touched, Window, token};
use super::visibility::Visibility;
use crate::source::catalogue::Table;
use crate::source::continuity::Bounds;
use crate::source::limit::Limit;

/// The rows of all tables are counted so often, though the log names those that are gone.
const COUNTED_EVERY: TimeDelta = TimeDelta::days(1);

/// How long a run waits for another that reads the slot.
const BUSY: Duration = Duration::from_secs(10);

/// How long a new slot may wait for the transactions that are open.
const CREATION: Duration = Duration::from_secs(20);

/// A peek ends after this time at the latest.
const PEEK: Duration = Duration::from_secs(60);

/// Decoding a byte of the log takes about this many times as long as scanning one of a table.
const DECODING: u64 = 16;

/// The bytes of the log that are decoded whatever a scan would cost, and those that never are in one go.
const LAG: (u64, u64) = (64 << 20, 1 << 30);

/// More than so many keys of a table, or than this share of its rows, are found faster by a scan.
const KEYS: (usize, u64) = (100_000, 20);

/// The bytes of the keys of all tables.
const KEY_BYTES: usize = 64 << 20;

/// A manifest is written to move the position so far, if nothing else is to be written.
const MOVES: u64 = 256 << 20;

/// The name of the slot and of the publication: the server takes 63 letters, digits and underscores.
pub(crate) fn slot_name(pipeline: &str, bucket: &str, database: &str) -> String {
    let pipeline: String =
        pipeline.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).take(40).collect();
    let hash = blackwater_base::store::sha256(format!("{bucket}\n{database}").as_bytes());
    format!("blackwater_{pipeline}_{}", &hash[..8])
}

/// The slot, at the begin of a run.
pub(crate) struct Capture {
    control: Control,
    version: i32,
    /// The newest batch's position, if the slot still names all that ends behind it.
    position: Option<u64>,
    /// The position that may take its place ([`Pending`]), as the newest batch has it.
    pending: Option<Pending>,
    /// The same as of now.
    now: Pending,
    publication: Publication,
    /// The bytes of the log that a peek decodes.
    lag: u64,
    /// Why the slot does not name all that ends behind the newest batch's position, if it did once.
    broken: Option<String>,
}

/// Whether a run captures by WAL.
pub(crate) enum Opened {
    /// It may.
    Capture(Box<Capture>),
    /// It does not, and somebody should know why.
    Scan(String),
    /// It was not asked to, or the source does not offer it.
    Off,
}

/// What a run's snapshot and its peek say.
pub(crate) struct Peek {
    upto: u64,
    /// How far the peek is settled, if it was read.
    settled: Option<u64>,
    /// Whether the log has the newest batch's token: so it is the log of that batch, whatever happened to the server.
    pub(crate) token_seen: bool,
    /// The changes of the tables that are read by WAL.
    pub(crate) tables: BTreeMap<String, TableChanges>,
    /// The publication as the snapshot sees it.
    publication: Option<Publication>,
    /// Why tables are scanned that the log could have named the changes of.
    pub(crate) fallback: Option<String>,
}

impl Capture {
    /// Opens the slot before the run's snapshot, and makes it if there is none. Whatever fails here is a reason to scan.
    pub(crate) async fn open(
        source: &Database,
        (setting, name): (ChangeDetection, &str),
        newest: Option<&Extracted>,
        limit: Limit,
    ) -> Opened {
        if setting == ChangeDetection::Scan && newest.is_none_or(|newest| newest.capture.is_none()) {
            return Opened::Off;
        }
        let opened = async {
            let client = source.connect().await.map_err(|error| error.to_string())?;
            let mut control = Control { client, limit, name: name.to_owned() };
            if setting == ChangeDetection::Scan {
                return drop_own(&mut control).await.map(|()| Opened::Off);
            }
            let facts = control.facts().await.map_err(|error| error.to_string())?;
            if let Some(why) = unusable(&facts, setting, name) {
                if setting == ChangeDetection::Auto {
                    return drop_own(&mut control).await.map(|()| Opened::Off);
                }
                leave(&mut control, &facts).await;
                return Err(why);
            }
            drop_former(&mut control, newest).await;
            Self::arm(control, facts, newest).await.map(|capture| Opened::Capture(Box::new(capture)))
        };
        opened.await.unwrap_or_else(Opened::Scan)
    }

    async fn arm(mut control: Control, facts: Facts, newest: Option<&Extracted>) -> Result<Self, String> {
        let text = |error: blackwater_shared::postgres::Error| error.to_string();
        let known = newest.and_then(|newest| newest.capture.as_ref()).filter(|known| known.slot == control.name);
        let slot = free(&mut control, facts.slot).await?;
        let (mut position, mut pending) = (None, None);
        let had_position = known.is_some_and(|known| known.position.is_some());
        let mut broken = had_position.then(|| format!("the replication slot {} was dropped", control.name));
        let lag = match slot {
            Some(slot) if !slot.is_ours => {
                return Err(format!("the replication slot {} is of another database or plugin", control.name));
            }
            Some(slot) if !slot.is_lost => {
                position = known.and_then(|known| known.position).filter(|position| slot.confirmed <= *position);
                let moved = || format!("the replication slot {} is ahead of the newest batch", control.name);
                broken = (had_position && position.is_none()).then(moved);
                if position.is_some() || known.is_some_and(|known| known.position.is_none()) {
                    pending = known.and_then(|known| known.pending.clone());
                    pending = pending.filter(|pending| slot.confirmed <= pending.position);
                }
                let advanced = match position.filter(|position| slot.confirmed < *position) {
                    Some(behind) => control.advance(behind).await,
                    None => Ok(()),
                };
                match advanced {
                    // It would take as long in every run, and the log grows meanwhile.
                    Err(error) if error.kind == Kind::Cancelled => {
                        broken =
                            Some(format!("the replication slot {} is too far behind to be moved on", control.name));
                        (position, pending) = (None, None);
                        control.renew().await?;
                        0
                    }
                    Err(error) => {
                        tracing::info!(error = %error, "the replication slot is not advanced; the next run tries again");
                        slot.retained(facts.flushed)
                    }
                    Ok(()) => slot.retained(facts.flushed),
                }
            }
            Some(_) => {
                broken = Some(format!(
                    "the source has removed WAL that the replication slot {} still needed (max_slot_wal_keep_size)",
                    control.name
                ));
                control.renew().await?;
                0
            }
            None => {
                control.make().await?;
                0
            }
        };
        // In this order.
        let now = control.written().await.map_err(text)?;
        let publication = control.facts().await.map_err(text)?.publication;
        let publication = publication.ok_or("the publication is gone")?;
        let xmax = control.new_transaction().await.map_err(text)?;
        let now = Pending { position: now, xmax };
        Ok(Self { control, version: facts.version, position, pending, now, publication, lag, broken })
    }

    /// Reads the slot, once the run has its snapshot.
    pub(crate) async fn peek(
        &mut self,
        newest: Option<&Extracted>,
        server: &manifest::Server,
        reader: &Transaction<'_>,
        tables: &BTreeMap<String, Table>,
    ) -> Result<Peek, crate::Error> {
        use blackwater_shared::postgres::Doing;
        let publication = publication(reader, &self.control.name)
            .await
            .doing("read the source's publication")?
            .filter(|p| p.is_whole);
        let mut peek = Peek {
            upto: 0,
            settled: None,
            token_seen: false,
            tables: BTreeMap::new(),
            publication,
            fallback: self.broken.take(),
        };
        match self.control.flush().await {
            Ok(Some(upto)) => peek.upto = upto,
            Ok(None) => peek.fallback = Some("the source has not flushed its log in time".into()),
            Err(error) => peek.fallback = Some(error.to_string()),
        }
        let Some((position, newest)) = self.position.zip(newest).filter(|_| peek.fallback.is_none()) else {
            return Ok(peek);
        };
        let wanted = wanted(newest, tables, peek.publication.as_ref());
        let bytes: u64 = tables.values().map(Table::bytes).sum();
        let most = (bytes / DECODING).clamp(LAG.0, LAG.1);
        if wanted.is_empty() || newest.source.system != server.system || newest.source.database != server.database {
            return Ok(peek);
        }
        if self.lag > most {
            let (lag, most) = (self.lag >> 20, most >> 20);
            peek.fallback = Some(format!(
                "decoding {lag} MB of WAL would take longer than a scan (limit {most} MB); a transaction that stays open may be \
                 holding it back"
            ));
            return Ok(peek);
        }
        match self.read(newest, (position, peek.upto), server, wanted).await {
            Ok((touched, named)) => {
                peek.settled = Some(touched.settled);
                peek.token_seen = touched.token_seen;
                peek.tables = named;
            }
            Err(why) => peek.fallback = Some(why),
        }
        Ok(peek)
    }

    async fn read(
        &mut self,
        newest: &Extracted,
        (position, upto): (u64, u64),
        server: &manifest::Server,
        wanted: BTreeMap<u32, (String, WantedTable)>,
    ) -> Result<(Touched, BTreeMap<String, TableChanges>), String> {
        let visibility: Visibility = server.snapshot.parse().map_err(|error| format!("{error}"))?;
        let token = token(newest.head.log, newest.head.batch);
        let window = Window { position, visibility, token, max_bytes: KEY_BYTES };
        let (names, wanted): (BTreeMap<_, _>, BTreeMap<_, _>) =
            wanted.into_iter().map(|(oid, (name, wanted))| ((oid, name), (oid, wanted))).unzip();
        let mut collector = Collector::new(window, wanted);
        let peeked = self.control.peek(upto, self.version, PEEK, &mut collector).await;
        if let Some(why) = peeked.map_err(|error| error.to_string())? {
            return Err(why);
        }
        // Another pipeline may have moved the slot meanwhile, and then the peek lacks what it moved past.
        let slot = self.control.facts().await.map_err(|error| error.to_string())?.slot;
        if slot.is_none_or(|slot| slot.confirmed > position || slot.is_lost) {
            (self.position, self.pending) = (None, None);
            return Err("another pipeline has moved the replication slot".into());
        }
        let mut touched = collector.finish(upto).map_err(|error| error.to_string())?;
        let tables = std::mem::take(&mut touched.tables);
        let named = tables.into_iter().map(|(oid, changes)| (names[&oid].clone(), changes)).collect();
        Ok((touched, named))
    }

    /// What the next manifest says of the slot. `holds` says whether the markers of the newest one do.
    pub(crate) fn next(&self, peek: &Peek, bounds: Bounds, holds: bool, counted: DateTime<Utc>) -> manifest::Capture {
        let old = self.position.filter(|_| holds);
        let (position, pending) =
            next_position(old, self.pending.as_ref().filter(|_| holds), &self.now, bounds, peek.settled);
        manifest::Capture {
            slot: self.control.name.clone(),
            position,
            pending,
            upto: peek.upto,
            publication: self.publication.oid,
            version: self.publication.version.clone(),
            counted,
        }
    }

    /// What the next manifest says of the tables' places in the publication: of those whose changes the log names.
    pub(crate) fn published(
        &self,
        peek: &Peek,
        newest: Option<&Extracted>,
        tables: &BTreeMap<String, Table>,
    ) -> BTreeMap<String, Published> {
        let published = |(name, table)| Some((String::clone(name), self.place(peek, newest, name, table)?));
        tables.iter().filter_map(published).collect()
    }

    fn place(&self, peek: &Peek, newest: Option<&Extracted>, name: &str, table: &Table) -> Option<Published> {
        let publication = peek.publication.as_ref().filter(|_| table.is_found_by_key())?;
        let member = publication.tables.get(&table.oid).filter(|member| !member.is_filtered)?;
        let known = newest.and_then(|newest| {
            let capture = newest.capture.as_ref()?;
            let same = (capture.publication, &capture.version) == (publication.oid, &publication.version);
            newest.tables.get(name)?.published.clone().filter(|known| same && member.is(known))
        });
        let published = known.or_else(|| {
            // It was in the publication before X was read.
            let was = self.publication.tables.get(&table.oid) == Some(member)
                && (self.publication.oid, &self.publication.version) == (publication.oid, &publication.version);
            was.then(|| Published {
                member: member.oid,
                version: member.version.clone(),
                columns: member.columns.clone(),
                since: self.now.xmax,
                partitions: None,
            })
        });
        Some(Published { partitions: member.partitions.clone(), ..published? })
    }

    /// Marks in the log what the newest batch holds, and lets the server forget what it does. Both may fail: the next run does it.
    pub(crate) async fn committed(&mut self, batch: &Extracted) {
        let Some(capture) = &batch.capture else { return };
        let done = async {
            self.control.emit(&token(batch.head.log, batch.head.batch)).await?;
            match (capture.position, &capture.pending) {
                (Some(position), _) => self.control.advance(position).await,
                (None, Some(pending)) => self.control.advance(pending.position).await,
                (None, None) => Ok(()),
            }
        };
        if let Err(error) = done.await {
            tracing::info!(error = %error, "the replication slot is not advanced; the next run does it");
        }
    }

    /// Whether the slot has to be armed anew: until a batch says so, every run would scan.
    pub(crate) fn is_anew(&self, newest: &Extracted) -> bool {
        self.position.is_none() && newest.capture.as_ref().is_some_and(|known| known.position.is_some())
    }

    /// The bytes of the log that the server keeps for the slot.
    pub(crate) fn lag(&self) -> u64 {
        self.lag
    }
}

/// When the rows of all tables were last counted: now, if it is time for that.
pub(crate) fn counted(newest: Option<&Extracted>, now: DateTime<Utc>) -> DateTime<Utc> {
    let counted = newest.and_then(|newest| newest.capture.as_ref()).map(|capture| capture.counted);
    counted.filter(|counted| now - counted < COUNTED_EVERY).unwrap_or(now)
}

/// Whether what a batch says of the slot is worth a batch: the slot is armed by it, or moves on far enough.
pub(crate) fn is_news(newest: &Extracted, batch: &Extracted) -> bool {
    let Some(now) = &batch.capture else { return false };
    let Some(then) = &newest.capture else { return now.position.is_some() || now.pending.is_some() };
    let moved = now.position.unwrap_or_default().saturating_sub(then.position.unwrap_or_default());
    let publication = |capture: &manifest::Capture| (capture.publication, capture.version.clone());
    let is_armed = |batch: &Extracted, name: &str| armed(batch, name).is_some();
    let is_new = |(name, table): (&String, &manifest::Table)| {
        is_armed(batch, name) && !is_armed(newest, name)
            || newest.tables.get(name).is_some_and(|known| known.published != table.published)
    };
    now.position.is_some() && (then.position.is_none() || then.slot != now.slot)
        || moved >= MOVES
        || now.counted != then.counted
        || publication(now) != publication(then)
        || batch.tables.iter().any(is_new)
}

/// The table's place in the publication, if the slot names every change of the table behind the batch's position.
fn armed<'a>(batch: &'a Extracted, table: &str) -> Option<&'a Published> {
    batch.capture.as_ref()?.position?;
    let bounds = Bounds::of(&batch.source.snapshot)?;
    batch.tables.get(table)?.published.as_ref().filter(|published| bounds.xmin >= published.since)
}

/// The tables whose changes are read in the log, by oid.
fn wanted(
    newest: &Extracted,
    tables: &BTreeMap<String, Table>,
    publication: Option<&Publication>,
) -> BTreeMap<u32, (String, WantedTable)> {
    let Some((publication, capture)) = publication.zip(newest.capture.as_ref()) else { return BTreeMap::new() };
    if (capture.publication, &capture.version) != (publication.oid, &publication.version) {
        return BTreeMap::new();
    }
    let wanted = |(name, table): (&String, &Table)| {
        let member = publication.tables.get(&table.oid).filter(|member| !member.is_filtered)?;
        let (known, published) = (newest.tables.get(name)?, armed(newest, name)?);
        let heaps_hold = known.heaps.len() == table.heaps.len()
            && table.heaps.iter().all(|heap| known.heaps.iter().any(|known| known.is(heap)));
        let holds = member.is(published)
            // Nobody writes to a partition while it is attached: what was written before is in the snapshot.
            && member.partitions == published.partitions
            && table.is_found_by_key()
            && heaps_hold
            && (&known.fingerprint, &known.key) == (&table.fingerprint, &table.key);
        let share = table.rows / KEYS.1;
        let max_keys = KEYS.0.min(usize::try_from(share).unwrap_or(KEYS.0)).max(1000);
        let heaps = table.heaps.iter().map(|heap| heap.oid).collect();
        holds.then(|| (table.oid, (name.clone(), WantedTable { key: table.key.clone(), max_keys, heaps })))
    };
    tables.iter().filter_map(wanted).collect()
}

/// The position that the next manifest names, and the one that may take its place.
fn next_position(
    old: Option<u64>,
    pending: Option<&Pending>,
    now: &Pending,
    bounds: Bounds,
    peeked: Option<u64>,
) -> (Option<u64>, Option<Pending>) {
    let is_settled = |pending: &Pending| bounds.xmin >= pending.xmax;
    let further = |position: u64| Some(old.map_or(position, |old| old.max(position)));
    match (old.and(peeked), pending) {
        (Some(peeked), _) => (further(peeked), None),
        _ if is_settled(now) => (further(now.position), None),
        (None, Some(pending)) if is_settled(pending) => (further(pending.position), Some(now.clone())),
        (None, pending) => (old, Some(pending.unwrap_or(now).clone())),
    }
}

/// Why the source offers no WAL capture.
pub(crate) fn unusable(facts: &Facts, setting: ChangeDetection, name: &str) -> Option<String> {
    let is_unbounded = facts.keeps < 0 && setting == ChangeDetection::Auto;
    let why = if facts.standby {
        "the source is a standby"
    } else if facts.wal_level != "logical" {
        "wal_level at the source is not logical"
    } else if !facts.may_replicate {
        "the role may not read a replication slot"
    } else if is_unbounded {
        "max_slot_wal_keep_size is unlimited at the source"
    } else {
        match &facts.publication {
            None => {
                return Some(format!(
                    "there is no publication {name}; `blackwater check --grants` prints the statements"
                ));
            }
            Some(publication) if !publication.is_whole => {
                return Some(format!(
                    "the publication {name} leaves changes out; `blackwater check --grants` prints the statements for one that does not"
                ));
            }
            Some(_) => return None,
        }
    };
    Some(format!("{why}; `blackwater check` says more"))
}

impl Control {
    /// Drops the slot, and makes it anew.
    async fn renew(&mut self) -> Result<(), String> {
        self.drop_slot().await.map_err(|error| error.to_string())?;
        self.make().await
    }

    async fn make(&mut self) -> Result<(), String> {
        self.create(CREATION).await.map_err(|error| {
            format!("{error}; it waits for every transaction that is open at the source, also in other databases")
        })
    }
}

/// Waits until nobody reads the slot.
async fn free(control: &mut Control, mut slot: Option<Slot>) -> Result<Option<Slot>, String> {
    let began = Instant::now();
    while slot.as_ref().is_some_and(|slot| slot.is_active) {
        if began.elapsed() > BUSY {
            return Err(format!("another run reads the replication slot {}", control.name));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        slot = control.facts().await.map_err(|error| error.to_string())?.slot;
    }
    Ok(slot)
}

/// Drops the slot, for changes are found by scans from now on.
async fn drop_own(control: &mut Control) -> Result<(), String> {
    let facts = control.facts().await.map_err(|error| error.to_string())?;
    match facts.slot.filter(|slot| slot.is_ours && !facts.standby) {
        Some(_) => control.drop_slot().await.map_err(|error| error.to_string()),
        None => Ok(()),
    }
}

/// Drops the slot that the newest batch names, if the pipeline's slot has another name now.
async fn drop_former(control: &mut Control, newest: Option<&Extracted>) {
    let former = newest.and_then(|newest| newest.capture.as_ref()).map(|capture| capture.slot.clone());
    let Some(former) = former.filter(|former| *former != control.name) else { return };
    let name = std::mem::replace(&mut control.name, former);
    if let Err(error) = drop_own(control).await {
        tracing::warn!(error, slot = control.name, "the source keeps its log for a slot that nobody reads any more");
    }
    control.name = name;
}

/// Has the source keep no log for the slot while it cannot be read: it is armed anew when it can.
async fn leave(control: &mut Control, facts: &Facts) {
    if facts.slot.as_ref().is_some_and(|slot| slot.is_ours && !slot.is_lost && !slot.is_active)
        && !facts.standby
        && let Err(error) = control.advance(facts.flushed).await
    {
        tracing::info!(error = %error, "the replication slot is not advanced; the next run tries again");
    }
}

/// The keys that the log names, if it names them.
pub(crate) fn keys(changes: &TableChanges) -> Option<&BTreeMap<super::key::Key, Option<super::table::Verdict>>> {
    match &changes.changed {
        Changed::Keys(keys) => Some(keys),
        Changed::Scan(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(position: u64, xmax: u64) -> Pending {
        Pending { position, xmax }
    }

    #[test]
    fn a_slot_s_name_is_one_that_every_server_takes() {
        let name = slot_name("Shop & Söhne, 2026", "bucket", "db");
        assert_eq!(name, format!("blackwater_shop___s_hne__2026_{}", &name[name.len() - 8..]));
        let long = slot_name(&"x".repeat(99), "bucket", "db");
        assert_eq!(long.len(), 60);
        assert_ne!(slot_name("shop", "one", "db"), slot_name("shop", "two", "db"));
    }

    #[test]
    fn a_position_is_named_once_it_is_settled() {
        let bounds = |xmin| Bounds { xmin, xmax: 200 };
        let now = pending(500, 120);
        let next = |old, before: Option<&Pending>, xmin, peeked| next_position(old, before, &now, bounds(xmin), peeked);
        // A new slot, with and without transactions that are open.
        assert_eq!(next(None, None, 120, None), (Some(500), None));
        assert_eq!(next(None, None, 119, None), (None, Some(now.clone())));
        // The older one is kept until it is settled, so that a busy source gets there.
        let older = pending(300, 110);
        assert_eq!(next(None, Some(&older), 109, None), (None, Some(older.clone())));
        assert_eq!(next(None, Some(&older), 115, None), (Some(300), Some(now.clone())));
        assert_eq!(next(Some(400), Some(&older), 115, None), (Some(400), Some(now.clone())), "it never goes back");
        assert_eq!(next(Some(400), None, 90, None), (Some(400), Some(now.clone())));
        // What a peek shows needs no more.
        assert_eq!(next(Some(400), Some(&older), 90, Some(450)), (Some(450), None));
        assert_eq!(
            next(None, None, 90, Some(450)),
            (None, Some(now.clone())),
            "a peek without a position proves nothing"
        );
    }
}
