//! What keys look like: which of their folders say what.

use serde::{Deserialize, Deserializer, de};

/// What the keys of uploads look like, as `{area}/{date}/{timestamp}/{file}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// Says what has this name.
    Named(String),
    /// Is always the same.
    Fixed(String),
}

/// Where an upload is: a folder of the drop bucket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The folder, without a slash at its end.
    pub prefix: String,
    /// What its name says, in the layout's order.
    pub names: Vec<(String, String)>,
}

impl Place {
    /// What texts may have in braces: the layout's names, and those that every upload has.
    #[must_use]
    pub fn known(&self, name: &str) -> Vec<(String, String)> {
        let more = [("name", name), ("prefix", &self.prefix)].map(|(name, value)| (name.to_owned(), value.to_owned()));
        self.names.iter().cloned().chain(more).collect()
    }
}

impl Default for Layout {
    fn default() -> Self {
        Self(["area", "date", "timestamp"].map(|name| Part::Named(name.into())).into())
    }
}

impl Layout {
    /// The layout that is written so.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(folders) = text.strip_suffix("/{file}") else {
            return Err("it ends in /{file}".into());
        };
        let mut parts = Vec::new();
        for part in folders.split('/') {
            let named = part.strip_prefix('{').and_then(|part| part.strip_suffix('}'));
            let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            match named {
                Some("file" | "name" | "prefix") => return Err(format!("{part} has a meaning of its own")),
                Some(name) if is_name(name) && !parts.contains(&Part::Named(name.into())) => {
                    parts.push(Part::Named(name.into()));
                }
                None if !part.is_empty() && !part.contains(['{', '}']) => parts.push(Part::Fixed(part.into())),
                _ => return Err(format!("{part} is neither a text nor a name of its own in braces")),
            }
        }
        Ok(Self(parts))
    }

    /// Its names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Named(name) => Some(name.as_str()),
            Part::Fixed(_) => None,
        })
    }

    /// Where the upload of a key is; `None` if the key has another layout. Further folders may be below those of the layout.
    #[must_use]
    pub fn place(&self, key: &str) -> Option<Place> {
        let (prefix, file) = key.rsplit_once('/')?;
        let folders: Vec<_> = prefix.split('/').collect();
        if file.is_empty() || folders.len() < self.0.len() || folders.contains(&"") {
            return None;
        }
        let mut names = Vec::new();
        for (part, folder) in self.0.iter().zip(&folders) {
            match part {
                Part::Named(name) => names.push((name.clone(), (*folder).to_owned())),
                Part::Fixed(text) if text == folder => {}
                Part::Fixed(_) => return None,
            }
        }
        Some(Place { prefix: prefix.into(), names })
    }
}

impl<'de> Deserialize<'de> for Layout {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// The pieces of a text: what stands between braces, and what does not.
fn pieces(text: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    text.split('{').enumerate().map(|(number, piece)| match piece.split_once('}') {
        Some((name, rest)) if number > 0 => (rest, Some(name)),
        _ => (piece, None),
    })
}

/// The names in braces of a text.
pub(crate) fn names_in(text: &str) -> impl Iterator<Item = &str> {
    pieces(text).filter_map(|(_, name)| name)
}

/// A text with the values of the names in its braces, each made by `written`.
pub(crate) fn filled(text: &str, names: &[(String, String)], written: impl Fn(&str) -> String) -> String {
    let value = |name: &str| names.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.as_str());
    pieces(text)
        .map(|(rest, name)| format!("{}{rest}", name.map(|name| written(value(name))).unwrap_or_default()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_folders_of_a_key_say_what_the_layout_names() {
        let layout = Layout::parse("in/{area}/{date}/{file}").unwrap();
        let place = layout.place("in/X01/2019-12-12/a b.csv").unwrap();
        assert_eq!(
            (place.prefix.as_str(), place.names),
            ("in/X01/2019-12-12", names(&[("area", "X01"), ("date", "2019-12-12")]))
        );
        assert_eq!(layout.place("in/X01/d/e/f/a.csv").unwrap().prefix, "in/X01/d/e/f");
        for other in ["in/X01/a.csv", "out/X01/d/a.csv", "a.csv", "in/X01/d/", "in//d/a.csv", "in/X01/d//a.csv", ""] {
            assert_eq!(layout.place(other), None, "{other}");
        }
        assert_eq!(Layout::parse("{area}/{date}/{timestamp}/{file}").unwrap(), Layout::default());
        for wrong in
            ["{area}", "{file}", "{area}/{area}/{file}", "{name}/{file}", "a{b}/{file}", "{}/{file}", "//{file}"]
        {
            assert!(Layout::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_in_braces_get_their_values() {
        let known = names(&[("area", "X01"), ("date", "{area}")]);
        assert_eq!(filled("Import {area}-{date} {none}!", &known, str::to_owned), "Import X01-{area} !");
        assert_eq!(names_in("{a} b {c}").collect::<Vec<_>>(), ["a", "c"]);
    }
}
