//! Writes what Postgres would send, for tests: the messages of pgoutput and the output of COPY around them.

use super::pgoutput::{Column, Old, Relation, ReplicaIdentity, Value};

/// The output of the COPY of a peek.
pub(super) fn copy(rows: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let mut out = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
    for (xid, data) in rows {
        out.extend([0, 2, 0, 0, 0, 4]);
        out.extend(xid.to_be_bytes());
        out.extend((data.len() as u32).to_be_bytes());
        out.extend(data);
    }
    out.extend([0xff, 0xff]);
    out
}

pub(super) fn begin(final_lsn: u64, xid: u32) -> Vec<u8> {
    [&b"B"[..], &final_lsn.to_be_bytes(), &[7; 8], &xid.to_be_bytes()].concat()
}

pub(super) fn commit(commit_lsn: u64, end_lsn: u64) -> Vec<u8> {
    [&b"C\0"[..], &commit_lsn.to_be_bytes(), &end_lsn.to_be_bytes(), &[7; 8]].concat()
}

pub(super) fn relation(relation: &Relation) -> Vec<u8> {
    let identity = match relation.identity {
        ReplicaIdentity::Default => b'd',
        ReplicaIdentity::Full => b'f',
        ReplicaIdentity::Index => b'i',
        ReplicaIdentity::Nothing => b'n',
    };
    let mut out = [b"R", &relation.oid.to_be_bytes()[..], relation.namespace, b"\0", relation.name, b"\0"].concat();
    out.push(identity);
    out.extend((relation.columns.len() as u16).to_be_bytes());
    for column in &relation.columns {
        out.push(column.in_identity.into());
        out.extend(column.name);
        out.push(0);
        out.extend(column.type_oid.to_be_bytes());
        out.extend(column.type_modifier.to_be_bytes());
    }
    out
}

/// A relation of text columns; those whose name ends with `*` belong to the replica identity.
pub(super) fn described(oid: u32, identity: ReplicaIdentity, columns: &[&'static str]) -> Relation<'static> {
    let column = |name: &&'static str| Column {
        in_identity: name.ends_with('*'),
        name: name.trim_end_matches('*').as_bytes(),
        type_oid: 25,
        type_modifier: -1,
    };
    Relation { oid, namespace: b"public", name: b"t", identity, columns: columns.iter().map(column).collect() }
}

pub(super) fn insert(oid: u32, new: &[Value]) -> Vec<u8> {
    [b"I", &oid.to_be_bytes()[..], &tuple(b'N', new)].concat()
}

pub(super) fn update(oid: u32, old: Option<&Old>, new: &[Value]) -> Vec<u8> {
    [b"U", &oid.to_be_bytes()[..], &old.map(old_tuple).unwrap_or_default(), &tuple(b'N', new)].concat()
}

pub(super) fn delete(oid: u32, old: &Old) -> Vec<u8> {
    [b"D", &oid.to_be_bytes()[..], &old_tuple(old)].concat()
}

pub(super) fn truncate(oids: &[u32]) -> Vec<u8> {
    let oids_bytes: Vec<u8> = oids.iter().flat_map(|oid| oid.to_be_bytes()).collect();
    [b"T", &(oids.len() as u32).to_be_bytes()[..], &[1], &oids_bytes].concat()
}

pub(super) fn message(transactional: bool, prefix: &str, content: &str) -> Vec<u8> {
    let length = (content.len() as u32).to_be_bytes();
    [&[b'M', transactional.into()], &[0; 8][..], prefix.as_bytes(), b"\0", &length, content.as_bytes()].concat()
}

pub(super) fn origin(name: &str) -> Vec<u8> {
    [b"O", &[0; 8][..], name.as_bytes(), b"\0"].concat()
}

pub(super) fn custom_type(name: &str) -> Vec<u8> {
    [b"Y", &[0; 4][..], b"public\0", name.as_bytes(), b"\0"].concat()
}

fn old_tuple(old: &Old) -> Vec<u8> {
    match old {
        Old::Key(values) => tuple(b'K', values),
        Old::Row(values) => tuple(b'O', values),
    }
}

fn tuple(kind: u8, values: &[Value]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend((values.len() as u16).to_be_bytes());
    for value in values {
        match value {
            Value::Null => out.push(b'n'),
            Value::Unchanged => out.push(b'u'),
            Value::Text(text) => {
                out.push(b't');
                out.extend((text.len() as u32).to_be_bytes());
                out.extend(*text);
            }
        }
    }
    out
}

/// Pseudo-random numbers that are the same in every run.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}
