//! The source once more, for a comparison with the warehouse: in one snapshot, every driving row with
//! those that it looks up, in the order of the keys.

use std::collections::BTreeMap;
use std::pin::Pin;

use blackwater_base::deadline::Deadline;
use blackwater_shared::manifest::{Extracted, Table};
use blackwater_shared::model::{CHANGED, Model, column};
use blackwater_shared::postgres::Doing;
use bytes::Bytes;
use deadpool_postgres::Transaction;
use futures_util::{Stream, StreamExt};

use crate::Extract;
use crate::error::Error;
use crate::plan::{self, Cut};
use crate::reader::{Count, Reader};
use crate::source::limit::{Allowed, Limit};
use crate::source::snapshot::Snapshot;
use crate::source::{catalogue, continuity, models, snapshot};
use crate::sql::{Query, Server};

/// Rows in a piece, at most.
const PIECE: u64 = 8192;

/// What COPY sends.
type Lines = Pin<Box<dyn Stream<Item = Result<Bytes, tokio_postgres::Error>> + Send>>;

/// The rows of one model, a piece at a time.
pub struct Pieces<'a> {
    transaction: &'a Transaction<'a>,
    limit: Limit,
    /// How long the query under way may take.
    allowed: Allowed,
    queries: std::vec::IntoIter<(usize, Query)>,
    select: usize,
    header: String,
    lines: Option<Lines>,
    /// Bytes in a piece, more or less.
    bytes: u64,
    model: &'a str,
}

impl<'a> Pieces<'a> {
    /// The rows of a model's queries, each with the place of its SELECT; a piece ends at `bytes`, more or less.
    pub(crate) fn new(
        transaction: &'a Transaction<'a>,
        limit: Limit,
        queries: Vec<(usize, Query)>,
        (model, bytes): (&'a str, u64),
    ) -> Self {
        let (allowed, queries) = (limit.now(), queries.into_iter());
        Self { transaction, limit, allowed, queries, select: 0, header: String::new(), lines: None, bytes, model }
    }

    /// The next piece: the place of its SELECT in the model, and CSV with a header.
    ///
    /// # Errors
    /// If the source cannot be read.
    pub async fn next(&mut self) -> Result<Option<(usize, Vec<u8>)>, Error> {
        let doing = || format!("read the rows for {}", self.model);
        loop {
            let lines = match &mut self.lines {
                Some(lines) => lines,
                None => {
                    let Some((select, query)) = self.queries.next() else { return Ok(None) };
                    self.allowed = self.limit.set(self.transaction).await?;
                    let lines = self.transaction.copy_out(&query.copy()).await.doing(doing());
                    let lines = lines.map_err(|error| self.allowed.explain(error))?;
                    (self.select, self.header) = (select, query.header());
                    self.lines.insert(Box::pin(lines))
                }
            };
            let mut piece = self.header.clone().into_bytes();
            let mut rows = 0;
            while rows < PIECE && (piece.len() as u64) < self.bytes {
                let Some(line) = lines.next().await else {
                    self.lines = None;
                    break;
                };
                piece.extend_from_slice(&line.doing(doing()).map_err(|error| self.allowed.explain(error))?);
                rows += 1;
            }
            if rows > 0 {
                return Ok(Some((self.select, piece)));
            }
        }
    }
}

impl Extract {
    /// Gives the rows of each model to `each`, with the source's tables, without rows but with their number. A row is marked
    /// as changed if it would come with the batch after `applied`.
    ///
    /// # Errors
    /// Those of the source, and of `each`.
    pub async fn verify<E: From<Error>>(
        &self,
        applied: &Extracted,
        each: &mut impl AsyncFnMut(&Model, &BTreeMap<String, Table>, &mut Pieces<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let limit = Limit { setting: self.statement_timeout, deadline: Deadline::NONE };
        let allowed = limit.now();
        let explain = |error| allowed.explain(error);
        let names: Vec<_> = self.pack.source_tables().into_iter().collect();
        let mut clients = [self.source.connect().await.map_err(Error::from)?];
        self.check_tables(&mut clients[0], &allowed, &names).await.map_err(explain)?;
        let Snapshot { readers, server, bounds, version, wal_before, .. } =
            snapshot::open(&mut clients, &self.schema, &names, &allowed).await.map_err(explain)?;
        let broken = continuity::broken(Some(applied), &server, wal_before, false)?;
        let tables = catalogue::read(&readers[0], &self.schema, &names, &self.exclude).await.map_err(explain)?;
        models::states(&self.pack, &tables)?;

        let (schema, pack, newest) = (&self.schema, &self.pack, Some(applied).filter(|_| broken.is_none()));
        let reader = Reader {
            transactions: &readers,
            server: Server { bounds, version },
            schema,
            pack,
            tables: &tables,
            newest,
            is_quiet: false,
            named: &BTreeMap::new(),
            counts: true,
            limit,
        };
        let plan = plan::plan(Some(applied), broken.as_deref(), &server, &tables, pack, &[]);
        let changes = reader.changes(&plan, Count::All).await?;
        let all = Cut { due: plan::unread(&plan), ..Cut::default() };
        let selection = reader.selection(&plan, &changes, &all);
        let with_rows = |(name, table): (&String, &catalogue::Table)| {
            (name.clone(), Table { rows: changes[name].rows, ..table.in_manifest() })
        };
        let in_snapshot = tables.iter().map(with_rows).collect();
        for model in self.pack.models.values() {
            let query = |(place, select)| (place, selection.joined(select, column, CHANGED, None));
            let queries: Vec<_> = model.selects.iter().enumerate().map(query).collect();
            let mut pieces = Pieces::new(&readers[0], limit, queries, (&model.name, self.object_bytes));
            each(model, &in_snapshot, &mut pieces).await?;
        }
        Ok(())
    }
}
