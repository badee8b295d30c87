//! Messages of the output plugin pgoutput, protocol version 1.
//!
//! The format is at <https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html>. Names and values
//! stay bytes, because a database with the encoding SQL_ASCII may hold any.

use bytes::Buf;

/// Why a message cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum MessageError {
    /// It has no bytes.
    #[error("a message of the output plugin is empty")]
    Empty,
    /// This program does not know its kind.
    #[error("the output plugin sent a message of the unknown kind '{}'", .0.escape_ascii())]
    UnknownKind(u8),
    /// It ends early.
    #[error("a message of kind '{}' ends before its {missing}", .kind.escape_ascii())]
    Truncated { kind: u8, missing: &'static str },
    /// A byte in it has no meaning that this program knows.
    #[error("a message of kind '{}' has the unknown {part} '{}'", .kind.escape_ascii(), .byte.escape_ascii())]
    UnknownPart { kind: u8, part: &'static str, byte: u8 },
    /// It goes on after its last part.
    #[error("a message of kind '{}' has {count} bytes too many", .kind.escape_ascii())]
    TooLong { kind: u8, count: usize },
}

/// A message, which borrows from the bytes that it was parsed from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    /// A transaction begins.
    Begin(Begin),
    /// It ends; everything between the two belongs to it.
    Commit(Commit),
    /// The transaction was replicated to the source from elsewhere.
    Origin,
    /// What the rows of a relation look like from here on.
    Relation(Relation<'a>),
    /// The next relation has a column of a type that is not built in.
    Type,
    /// An INSERT of a row.
    Insert(Insert<'a>),
    /// An UPDATE of a row.
    Update(Update<'a>),
    /// A DELETE of a row.
    Delete(Delete<'a>),
    /// A TRUNCATE.
    Truncate(Truncate),
    /// A message that a session wrote to the log.
    Logical(Logical<'a>),
}

/// The begin of a transaction, which pgoutput sends when it has read the commit record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Begin {
    /// Where the commit record begins.
    pub(crate) final_lsn: u64,
    pub(crate) xid: u32,
}

/// The end of a transaction.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Commit {
    /// Where the commit record begins.
    pub(crate) commit_lsn: u64,
    /// Where the commit record ends.
    pub(crate) end_lsn: u64,
}

/// What the rows of the following messages look like.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Relation<'a> {
    pub(crate) oid: u32,
    pub(crate) namespace: &'a [u8],
    pub(crate) name: &'a [u8],
    pub(crate) identity: ReplicaIdentity,
    /// Without the columns that are not published, and those that are generated.
    pub(crate) columns: Vec<Column<'a>>,
}

/// What an UPDATE or DELETE writes to the log of the old row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplicaIdentity {
    /// The primary key.
    Default,
    /// The whole row.
    Full,
    /// The columns of another unique index.
    Index,
    /// Nothing.
    Nothing,
}

/// A column of a relation.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Column<'a> {
    /// Whether it belongs to the replica identity.
    pub(crate) in_identity: bool,
    pub(crate) name: &'a [u8],
    pub(crate) type_oid: u32,
    pub(crate) type_modifier: i32,
}

/// A new row.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Insert<'a> {
    pub(crate) relation: u32,
    pub(crate) new: Tuple<'a>,
}

/// A row that changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Update<'a> {
    pub(crate) relation: u32,
    /// `None` if the replica identity is the same as before.
    pub(crate) old: Option<Old<'a>>,
    pub(crate) new: Tuple<'a>,
}

/// A row that is gone.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Delete<'a> {
    pub(crate) relation: u32,
    pub(crate) old: Old<'a>,
}

/// What is known of an old row; columns that are not known are null.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Old<'a> {
    /// The replica identity.
    Key(Tuple<'a>),
    /// All of it.
    Row(Tuple<'a>),
}

impl<'a> Old<'a> {
    /// Its values.
    pub(crate) fn tuple(&self) -> &Tuple<'a> {
        match self {
            Self::Key(tuple) | Self::Row(tuple) => tuple,
        }
    }
}

/// The values of a row, in the order of the relation's columns.
pub(crate) type Tuple<'a> = Vec<Value<'a>>;

/// The value of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// NULL, or not known of an old row.
    Null,
    /// It is stored out of line and was not changed, so it is not in the log.
    Unchanged,
    /// As the type's output function prints it.
    Text(&'a [u8]),
}

/// Relations that were emptied together.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Truncate {
    pub(crate) relations: Vec<u32>,
}

/// What somebody wrote with `pg_logical_emit_message`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Logical<'a> {
    /// Whether it counts only if its transaction commits.
    pub(crate) transactional: bool,
    pub(crate) lsn: u64,
    pub(crate) prefix: &'a [u8],
    pub(crate) content: &'a [u8],
}

impl<'a> Message<'a> {
    /// Parses a whole message.
    ///
    /// # Errors
    /// The bytes are not exactly one message, or one of a kind that protocol version 1 does not have.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, MessageError> {
        let (&kind, rest) = bytes.split_first().ok_or(MessageError::Empty)?;
        let mut parts = Parts { kind, rest };
        let message = match kind {
            b'B' => Self::Begin(parts.begin()?),
            b'C' => Self::Commit(parts.commit()?),
            b'O' => parts.origin()?,
            b'R' => Self::Relation(parts.relation()?),
            b'Y' => parts.custom_type()?,
            b'I' => Self::Insert(parts.insert()?),
            b'U' => Self::Update(parts.update()?),
            b'D' => Self::Delete(parts.delete()?),
            b'T' => Self::Truncate(parts.truncate()?),
            b'M' => Self::Logical(parts.logical()?),
            _ => return Err(MessageError::UnknownKind(kind)),
        };
        match parts.rest.len() {
            0 => Ok(message),
            count => Err(MessageError::TooLong { kind, count }),
        }
    }
}

/// What is left of a message.
struct Parts<'a> {
    kind: u8,
    rest: &'a [u8],
}

impl<'a> Parts<'a> {
    fn begin(&mut self) -> Result<Begin, MessageError> {
        let final_lsn = self.u64("final LSN")?;
        self.u64("commit time")?;
        Ok(Begin { final_lsn, xid: self.u32("transaction id")? })
    }

    fn commit(&mut self) -> Result<Commit, MessageError> {
        self.u8("flags")?;
        let commit_lsn = self.u64("commit LSN")?;
        let end_lsn = self.u64("end LSN")?;
        self.u64("commit time")?;
        Ok(Commit { commit_lsn, end_lsn })
    }

    fn origin(&mut self) -> Result<Message<'a>, MessageError> {
        self.u64("LSN at the origin")?;
        self.string("name of the origin")?;
        Ok(Message::Origin)
    }

    fn relation(&mut self) -> Result<Relation<'a>, MessageError> {
        let oid = self.u32("relation")?;
        let namespace = self.string("namespace")?;
        let name = self.string("name")?;
        let identity = match self.u8("replica identity")? {
            b'd' => ReplicaIdentity::Default,
            b'f' => ReplicaIdentity::Full,
            b'i' => ReplicaIdentity::Index,
            b'n' => ReplicaIdentity::Nothing,
            byte => return Err(self.unknown("replica identity", byte)),
        };
        let count = self.u16("number of columns")?;
        let columns = (0..count).map(|_| self.column()).collect::<Result<_, _>>()?;
        Ok(Relation { oid, namespace, name, identity, columns })
    }

    fn column(&mut self) -> Result<Column<'a>, MessageError> {
        Ok(Column {
            in_identity: self.u8("column flags")? & 1 != 0,
            name: self.string("column name")?,
            type_oid: self.u32("column type")?,
            type_modifier: self.u32("column type modifier")?.cast_signed(),
        })
    }

    fn custom_type(&mut self) -> Result<Message<'a>, MessageError> {
        self.u32("type")?;
        self.string("namespace")?;
        self.string("name")?;
        Ok(Message::Type)
    }

    fn insert(&mut self) -> Result<Insert<'a>, MessageError> {
        let relation = self.u32("relation")?;
        match self.u8("tuple kind")? {
            b'N' => Ok(Insert { relation, new: self.tuple()? }),
            byte => Err(self.unknown("tuple kind", byte)),
        }
    }

    fn update(&mut self) -> Result<Update<'a>, MessageError> {
        let relation = self.u32("relation")?;
        let mut kind = self.u8("tuple kind")?;
        let mut old = None;
        if kind != b'N' {
            old = Some(self.old(kind)?);
            kind = self.u8("kind of the new tuple")?;
        }
        match kind {
            b'N' => Ok(Update { relation, old, new: self.tuple()? }),
            byte => Err(self.unknown("tuple kind", byte)),
        }
    }

    fn delete(&mut self) -> Result<Delete<'a>, MessageError> {
        let relation = self.u32("relation")?;
        let kind = self.u8("tuple kind")?;
        Ok(Delete { relation, old: self.old(kind)? })
    }

    fn old(&mut self, kind: u8) -> Result<Old<'a>, MessageError> {
        match kind {
            b'K' => self.tuple().map(Old::Key),
            b'O' => self.tuple().map(Old::Row),
            byte => Err(self.unknown("tuple kind", byte)),
        }
    }

    fn tuple(&mut self) -> Result<Tuple<'a>, MessageError> {
        let count = self.u16("number of values")?;
        (0..count).map(|_| self.value()).collect()
    }

    fn value(&mut self) -> Result<Value<'a>, MessageError> {
        match self.u8("value kind")? {
            b'n' => Ok(Value::Null),
            b'u' => Ok(Value::Unchanged),
            b't' => self.counted("value").map(Value::Text),
            byte => Err(self.unknown("value kind", byte)),
        }
    }

    fn truncate(&mut self) -> Result<Truncate, MessageError> {
        let count = self.u32("number of relations")?;
        self.u8("options")?;
        let relations = (0..count).map(|_| self.u32("relation")).collect::<Result<_, _>>()?;
        Ok(Truncate { relations })
    }

    fn logical(&mut self) -> Result<Logical<'a>, MessageError> {
        Ok(Logical {
            transactional: self.u8("flags")? & 1 != 0,
            lsn: self.u64("LSN")?,
            prefix: self.string("prefix")?,
            content: self.counted("content")?,
        })
    }

    fn u8(&mut self, what: &'static str) -> Result<u8, MessageError> {
        self.rest.try_get_u8().map_err(|_| self.truncated(what))
    }

    fn u16(&mut self, what: &'static str) -> Result<u16, MessageError> {
        self.rest.try_get_u16().map_err(|_| self.truncated(what))
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, MessageError> {
        self.rest.try_get_u32().map_err(|_| self.truncated(what))
    }

    fn u64(&mut self, what: &'static str) -> Result<u64, MessageError> {
        self.rest.try_get_u64().map_err(|_| self.truncated(what))
    }

    /// Bytes that end with a zero byte.
    fn string(&mut self, what: &'static str) -> Result<&'a [u8], MessageError> {
        let end = self.rest.iter().position(|byte| *byte == 0).ok_or_else(|| self.truncated(what))?;
        let string = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        Ok(string)
    }

    /// Bytes that follow their number.
    fn counted(&mut self, what: &'static str) -> Result<&'a [u8], MessageError> {
        let count = self.u32(what)?;
        let (counted, rest) = self.rest.split_at_checked(count as usize).ok_or_else(|| self.truncated(what))?;
        self.rest = rest;
        Ok(counted)
    }

    fn truncated(&self, missing: &'static str) -> MessageError {
        MessageError::Truncated { kind: self.kind, missing }
    }

    fn unknown(&self, part: &'static str, byte: u8) -> MessageError {
        MessageError::UnknownPart { kind: self.kind, part, byte }
    }
}

#[cfg(test)]
mod tests;
