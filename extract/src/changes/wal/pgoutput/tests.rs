use super::super::encode::{self, Random, described};
use super::*;

const TEXT: Value = Value::Text(b"text");

/// A message of every kind and shape, with what it says.
fn messages() -> Vec<(Vec<u8>, Message<'static>)> {
    let full = vec![TEXT, Value::Null, Value::Unchanged, Value::Text(b"")];
    let key = vec![TEXT, Value::Null];
    let update = |old, new| Message::Update(Update { relation: 7, old, new });
    let lsn = 0x16_b374_d848;
    vec![
        (encode::begin(lsn, 735), Message::Begin(Begin { final_lsn: lsn, xid: 735 })),
        (encode::commit(lsn, lsn + 48), Message::Commit(Commit { commit_lsn: lsn, end_lsn: lsn + 48 })),
        (encode::origin("elsewhere"), Message::Origin),
        (encode::custom_type("mood"), Message::Type),
        (
            encode::relation(&described(7, ReplicaIdentity::Default, &["id*", "body"])),
            Message::Relation(described(7, ReplicaIdentity::Default, &["id*", "body"])),
        ),
        (
            encode::relation(&described(8, ReplicaIdentity::Full, &[])),
            Message::Relation(described(8, ReplicaIdentity::Full, &[])),
        ),
        (encode::insert(7, &full), Message::Insert(Insert { relation: 7, new: full.clone() })),
        (encode::update(7, None, &full), update(None, full.clone())),
        (encode::update(7, Some(&Old::Key(key.clone())), &full), update(Some(Old::Key(key.clone())), full.clone())),
        (encode::update(7, Some(&Old::Row(full.clone())), &full), update(Some(Old::Row(full.clone())), full.clone())),
        (encode::delete(7, &Old::Key(key.clone())), Message::Delete(Delete { relation: 7, old: Old::Key(key) })),
        (encode::delete(7, &Old::Row(full.clone())), Message::Delete(Delete { relation: 7, old: Old::Row(full) })),
        (encode::truncate(&[7, 8]), Message::Truncate(Truncate { relations: vec![7, 8] })),
        (
            encode::message(true, "blackwater", "log 7"),
            Message::Logical(Logical { transactional: true, lsn: 0, prefix: b"blackwater", content: b"log 7" }),
        ),
        (
            encode::message(false, "", ""),
            Message::Logical(Logical { transactional: false, lsn: 0, prefix: b"", content: b"" }),
        ),
    ]
}

#[test]
fn every_kind_of_message_is_understood() {
    for (bytes, message) in messages() {
        assert_eq!(Message::parse(&bytes), Ok(message));
    }
}

#[test]
fn a_message_that_ends_early_or_late_is_an_error() {
    assert_eq!(Message::parse(&[]), Err(MessageError::Empty));
    for (bytes, message) in messages() {
        let kind = bytes[0];
        for end in 1..bytes.len() {
            let parsed = Message::parse(&bytes[..end]);
            assert!(matches!(parsed, Err(MessageError::Truncated { kind: of, .. }) if of == kind), "{message:?} {end}");
        }
        let longer = [&bytes[..], b"x"].concat();
        assert_eq!(Message::parse(&longer), Err(MessageError::TooLong { kind, count: 1 }));
    }
}

#[test]
fn an_error_says_what_is_unknown_or_missing() {
    let error = |bytes: &[u8]| Message::parse(bytes).unwrap_err().to_string();
    assert_eq!(error(b"S\0\0\0\x01\x01"), "the output plugin sent a message of the unknown kind 'S'");
    assert_eq!(error(b"\xff"), "the output plugin sent a message of the unknown kind '\\xff'");
    assert_eq!(error(b"B\0\0"), "a message of kind 'B' ends before its final LSN");
    assert_eq!(error(b"I\0\0\0\x07K"), "a message of kind 'I' has the unknown tuple kind 'K'");
    assert_eq!(error(b"D\0\0\0\x07N"), "a message of kind 'D' has the unknown tuple kind 'N'");
    assert_eq!(error(b"U\0\0\0\x07X"), "a message of kind 'U' has the unknown tuple kind 'X'");
    assert_eq!(error(b"U\0\0\0\x07K\0\0K"), "a message of kind 'U' has the unknown tuple kind 'K'");
    assert_eq!(error(b"I\0\0\0\x07N\0\x01b"), "a message of kind 'I' has the unknown value kind 'b'");
    assert_eq!(error(b"R\0\0\0\x07a\0b\0z"), "a message of kind 'R' has the unknown replica identity 'z'");
}

#[test]
fn no_bytes_make_the_parser_panic() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let valid = messages();
    for _ in 0..50_000 {
        let mut noise: Vec<u8> = (0..random.below(40)).map(|_| random.below(256) as u8).collect();
        let _ = Message::parse(&noise);
        noise.insert(0, b"BCORYIUDTM"[random.below(10) as usize]);
        let _ = Message::parse(&noise);
        let mut damaged = valid[random.below(valid.len() as u64) as usize].0.clone();
        let at = random.below(damaged.len() as u64) as usize;
        damaged[at] = random.below(256) as u8;
        let _ = Message::parse(&damaged);
    }
}
