//! The check of a JSON document, of which no more is kept than which of the wanted members its first object has.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::PIECE;
use super::text::{UTF_8_MARK, Watch};
use crate::report::{File, More, UNKNOWN};
use crate::rules::Rules;

pub(super) fn check(rules: &Rules, key: &str, from: &mut impl Read) -> io::Result<File> {
    let mut file = File::refused(key, "");
    file.csv_encoding = "utf-8".into();
    let counted: BTreeSet<&str> =
        rules.kinds.iter().filter_map(|kind| kind.json.as_ref()).map(|json| json.count.as_str()).collect();
    let wanted = rules.kinds.iter().filter_map(|kind| kind.json.as_ref()).flat_map(|json| &json.array_of);
    let wanted: BTreeSet<&str> = wanted.map(String::as_str).collect();
    let mut watched = Watched { from, watch: Watch::default() };
    let mut reader = BufReader::with_capacity(PIECE, &mut watched);
    let bom = reader.fill_buf()?.starts_with(UTF_8_MARK);
    if bom {
        reader.consume(UTF_8_MARK.len());
    }
    file.more = Some(More { bom, ..More::default() });
    let mut document = serde_json::Deserializer::from_reader(reader);
    let mut seen = Seen { wanted: &wanted, counted: &counted, first: None, counts: vec![0; counted.len()] };
    let read = (&mut seen).deserialize(&mut document).and_then(|()| document.end());
    if let Err(error) = read {
        if error.is_io() {
            return Err(error.into());
        }
        file.refuse(&format!("The file is no JSON: {error}"));
        return Ok(file);
    }
    // What is not looked at is not decoded either.
    drop(document);
    if !watched.watch.is_utf8() {
        file.refuse("The file is not UTF-8");
        return Ok(file);
    }
    file.csv_valid = true;
    let fits = |members: &BTreeSet<String>, wanted: &[String]| wanted.iter().all(|name| members.contains(name));
    for kind in &rules.kinds {
        if let (Some(json), Some(members)) = (&kind.json, &seen.first)
            && fits(members, &json.array_of)
        {
            file.ems.clone_from(&kind.name);
            let place = counted.iter().position(|name| *name == json.count);
            file.csv_rows = place.map_or(0, |place| seen.counts[place]);
            return Ok(file);
        }
    }
    file.ems = UNKNOWN.into();
    Ok(file)
}

/// Watches what is read.
struct Watched<'f, R> {
    from: &'f mut R,
    watch: Watch,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(to)?;
        self.watch.see(&to[..read]);
        Ok(read)
    }
}

/// What is seen of a document.
struct Seen<'a> {
    /// The members that kinds want.
    wanted: &'a BTreeSet<&'a str>,
    /// The members whose items are counted.
    counted: &'a BTreeSet<&'a str>,
    /// Those of them that the first item has, if the document is an array that begins with an object.
    first: Option<BTreeSet<String>>,
    /// The items of the members, over all objects.
    counts: Vec<u64>,
}

impl<'de> DeserializeSeed<'de> for &mut Seen<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(Document(self))
    }
}

/// Visits what it does not keep.
macro_rules! ignore {
    () => {
        fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
            Ok(Default::default())
        }
        fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
            Ok(Default::default())
        }
        fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
            Ok(Default::default())
        }
        fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
            Ok(Default::default())
        }
        fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
            Ok(Default::default())
        }
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Default::default())
        }
        fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
            to.write_str("any JSON")
        }
    };
}

struct Document<'s, 'a>(&'s mut Seen<'a>);

impl<'de> Visitor<'de> for Document<'_, '_> {
    type Value = ();

    ignore!();

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let mut is_first = true;
        while items.next_element_seed(Item { seen: self.0, is_first })?.is_some() {
            is_first = false;
        }
        Ok(())
    }
}

/// An item of the document's array.
struct Item<'s, 'a> {
    seen: &'s mut Seen<'a>,
    is_first: bool,
}

impl<'de> DeserializeSeed<'de> for Item<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Item<'_, '_> {
    type Value = ();

    ignore!();

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        if self.is_first {
            self.seen.first = Some(BTreeSet::new());
        }
        while let Some(name) = members.next_key::<String>()? {
            match self.seen.counted.iter().position(|counted| *counted == name) {
                Some(place) => self.seen.counts[place] += members.next_value::<Length>()?.0,
                None => {
                    members.next_value::<IgnoredAny>()?;
                }
            }
            if self.is_first
                && self.seen.wanted.contains(name.as_str())
                && let Some(first) = &mut self.seen.first
            {
                first.insert(name);
            }
        }
        Ok(())
    }
}

/// How many items an array has; 0 of anything else.
#[derive(Default)]
struct Length(u64);

impl<'de> serde::Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(LengthOf)
    }
}

struct LengthOf;

impl<'de> Visitor<'de> for LengthOf {
    type Value = Length;

    ignore!();

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Length, A::Error> {
        while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Length(0))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Length, A::Error> {
        let mut length = 0;
        while items.next_element::<IgnoredAny>()?.is_some() {
            length += 1;
        }
        Ok(Length(length))
    }
}
