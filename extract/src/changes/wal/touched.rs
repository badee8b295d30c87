//! The primary keys that the transactions of a peek touched, and how far the log is settled for the run's snapshot.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::key::ScanReason;
use super::pgoutput::{Begin, Commit, Logical, Message, MessageError, Truncate};
use super::table::{Change, Table, TableChanges, WantedTable};
use super::visibility::Visibility;

/// The prefix of the messages that a run writes to the log.
pub(crate) const TOKEN_PREFIX: &str = "blackwater";

/// What a run writes to the log once its batch is committed: a log that has it holds all that the batch does.
pub(crate) fn token(log: Uuid, batch: u64) -> String {
    format!("{log} {batch}")
}

/// Why a peek proves nothing, so that every table has to be scanned.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum PeekError {
    /// A message cannot be read.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// A transaction began before the last one had ended.
    #[error("transaction {xid} begins inside transaction {open}")]
    NestedBegin { xid: u32, open: u32 },
    /// A message is not part of the transaction that is open.
    #[error("a message of transaction {xid} is not between the begin and the commit of that transaction")]
    OutsideTransaction { xid: u32 },
    /// The begin and the commit of a transaction disagree.
    #[error("the begin of transaction {xid} says that it commits at {begin}, its commit says {commit} to {end}")]
    CommitDiffers { xid: u32, begin: u64, commit: u64, end: u64 },
    /// Transactions do not come in the order of their commits.
    #[error("transaction {xid} commits at {commit}, before the end of the last one at {end}")]
    OutOfOrder { xid: u32, commit: u64, end: u64 },
    /// The newest batch has half of a commit record, so its position is wrong.
    #[error("the position {position} of the newest batch is inside the commit record of transaction {xid}")]
    PositionInsideCommit { xid: u32, position: u64 },
    /// A change came before the description of its table.
    #[error("the peek has a change of relation {oid}, but no description of it")]
    NotDescribed { oid: u32 },
    /// The peek ends inside a transaction.
    #[error("the peek ends inside transaction {xid}")]
    Unfinished { xid: u32 },
}

/// What a peek is compared with.
#[derive(Debug)]
pub(crate) struct Window {
    /// The position W of the newest batch: it has all transactions that end at or before it.
    pub(crate) position: u64,
    /// What the run's snapshot sees.
    pub(crate) visibility: Visibility,
    /// The [`token`] of the newest batch.
    pub(crate) token: String,
    /// About how many bytes the keys of all tables may take.
    pub(crate) max_bytes: usize,
}

/// What a complete peek says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Touched {
    /// The wanted tables by their oid.
    pub(crate) tables: BTreeMap<u32, TableChanges>,
    /// The position up to which the snapshot sees every transaction.
    pub(crate) settled: u64,
    /// Whether the log has the token of the newest batch.
    pub(crate) token_seen: bool,
    /// How many transactions the newest batch does not have.
    pub(crate) transactions: u64,
}

/// Collects what the messages of a peek say, which come in the order of the transactions' commits.
#[derive(Debug)]
pub(crate) struct Collector {
    window: Window,
    tables: BTreeMap<u32, Table>,
    /// About how many bytes the keys take.
    bytes: usize,
    open: Option<Transaction>,
    /// The end of the last transaction.
    end: u64,
    /// The end of the last transaction before the first that the snapshot does not see.
    prefix: u64,
    all_seen: bool,
    token_seen: bool,
    transactions: u64,
}

#[derive(Clone, Copy, Debug)]
struct Transaction {
    xid: u32,
    final_lsn: u64,
    /// Whether the newest batch does not have it.
    is_new: bool,
    is_seen: bool,
}

impl Collector {
    /// A collector for one peek. Each wanted table goes by the oid that its changes carry: that of the partitioned
    /// table, if it is one.
    pub(crate) fn new(window: Window, wanted: BTreeMap<u32, WantedTable>) -> Self {
        let position = window.position;
        Self {
            window,
            tables: wanted.into_iter().map(|(oid, wanted)| (oid, Table::new(wanted))).collect(),
            bytes: 0,
            open: None,
            end: 0,
            prefix: position,
            all_seen: true,
            token_seen: false,
            transactions: 0,
        }
    }

    /// Takes the next row of the peek.
    ///
    /// # Errors
    /// The peek is unusable.
    pub(crate) fn take(&mut self, xid: u32, data: &[u8]) -> Result<(), PeekError> {
        let message = Message::parse(data)?;
        match &message {
            Message::Begin(begin) => return self.begin(xid, begin),
            // It is sent when it is read, so before its transaction, and with the id of the subtransaction, if any.
            Message::Logical(logical) if !logical.transactional => return Ok(()),
            _ => {}
        }
        let open = self.open.filter(|open| open.xid == xid).ok_or(PeekError::OutsideTransaction { xid })?;
        match &message {
            Message::Commit(commit) => return self.commit(open, commit),
            // A relation is described once in a peek, perhaps in a transaction that the newest batch has.
            Message::Relation(relation) => {
                self.tables.iter_mut().for_each(|(oid, table)| table.describe(*oid, relation))
            }
            _ if !open.is_new => {}
            Message::Insert(insert) => {
                self.change(open, &Change { oid: insert.relation, old: None, new: Some(&insert.new) })?;
            }
            Message::Update(update) => {
                let old = update.old.as_ref().map(|old| old.tuple());
                self.change(open, &Change { oid: update.relation, old, new: Some(&update.new) })?;
            }
            Message::Delete(delete) => {
                self.change(open, &Change { oid: delete.relation, old: Some(delete.old.tuple()), new: None })?;
            }
            Message::Truncate(truncate) => self.truncate(truncate),
            Message::Logical(logical) => self.token_seen |= self.is_token(logical),
            Message::Begin(_) | Message::Origin | Message::Type => {}
        }
        Ok(())
    }

    /// The position up to which the snapshot sees every transaction, if the peek was complete up to `upto`.
    ///
    /// A commit record is in the log before its transaction becomes visible, so one that the snapshot does not see
    /// may lie before others that it sees. Those behind it come again with the next run.
    pub(crate) fn settled(&self, upto: u64) -> u64 {
        let settled = if self.all_seen { upto } else { self.prefix.min(upto) };
        settled.max(self.window.position)
    }

    /// Ends after the last row of a peek that was complete up to `upto`.
    ///
    /// # Errors
    /// The peek is unusable.
    pub(crate) fn finish(self, upto: u64) -> Result<Touched, PeekError> {
        if let Some(open) = self.open {
            return Err(PeekError::Unfinished { xid: open.xid });
        }
        let settled = self.settled(upto);
        let tables = self.tables.into_iter().map(|(oid, table)| (oid, table.into_changes())).collect();
        Ok(Touched { tables, settled, token_seen: self.token_seen, transactions: self.transactions })
    }

    /// Begins a transaction, and decides by the start of its commit record whether the newest batch has it.
    ///
    /// A batch's position is never inside a record, so a commit record that starts before it also ends at or before
    /// it. The final LSN is the start of the commit record: `DecodeCommit` passes `buf->origptr` as the commit LSN,
    /// which `ReorderBufferReplay` stores as `final_lsn`. So a transaction of the newest batch costs no memory, however
    /// large it is, and the keys of a new one need not wait for its commit, which only confirms the decision.
    fn begin(&mut self, xid: u32, begin: &Begin) -> Result<(), PeekError> {
        let commit = begin.final_lsn;
        match self.open {
            Some(open) => return Err(PeekError::NestedBegin { xid: begin.xid, open: open.xid }),
            None if begin.xid != xid => return Err(PeekError::OutsideTransaction { xid }),
            None if commit < self.end => return Err(PeekError::OutOfOrder { xid, commit, end: self.end }),
            None => {}
        }
        let is_seen = self.window.visibility.sees(xid);
        self.open = Some(Transaction { xid, final_lsn: commit, is_new: commit >= self.window.position, is_seen });
        Ok(())
    }

    fn commit(&mut self, open: Transaction, commit: &Commit) -> Result<(), PeekError> {
        let Transaction { xid, final_lsn: begin, is_new, is_seen } = open;
        let (position, end) = (self.window.position, commit.end_lsn);
        if commit.commit_lsn != begin || end <= begin {
            return Err(PeekError::CommitDiffers { xid, begin, commit: commit.commit_lsn, end });
        }
        if is_new != (end > position) {
            return Err(PeekError::PositionInsideCommit { xid, position });
        }
        self.open = None;
        self.end = end;
        if is_new {
            self.transactions += 1;
            self.all_seen &= is_seen;
            if self.all_seen {
                self.prefix = end;
            }
        }
        Ok(())
    }

    fn change(&mut self, open: Transaction, change: &Change) -> Result<(), PeekError> {
        if let Some(table) = self.tables.get_mut(&change.oid) {
            let before = table.bytes();
            table.change(change, open.is_seen)?;
            self.bytes = self.bytes - before + table.bytes();
            self.limit_bytes();
        }
        Ok(())
    }

    /// Keeps the keys of all tables within their bytes: the table with the most keys is scanned.
    fn limit_bytes(&mut self) {
        let limit = self.window.max_bytes;
        while self.bytes > limit
            && let Some(table) = self.tables.values_mut().max_by_key(|table| table.key_count())
        {
            self.bytes -= table.bytes();
            table.scan(ScanReason::TooManyBytes { limit });
        }
    }

    fn truncate(&mut self, truncate: &Truncate) {
        for oid in &truncate.relations {
            if let Some(table) = self.tables.get_mut(oid) {
                table.truncate();
            }
        }
    }

    fn is_token(&self, logical: &Logical) -> bool {
        logical.prefix == TOKEN_PREFIX.as_bytes() && logical.content == self.window.token.as_bytes()
    }
}

#[cfg(test)]
mod random;
#[cfg(test)]
mod tests;
