//! Settings: a file of TOML, overridden by variables. What is not a setting is an error, also among the variables.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, DeserializeOwned, Deserializer};
use toml::de::{DeTable, DeValue};

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {}: {why}\nName another file", .file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The system's reason.
        why: std::io::Error,
    },
    /// The file is no TOML. The line itself is not printed: it may hold a password.
    #[error("{}, line {line}: {why}", .file.display())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The parser's words.
        why: String,
    },
    /// A setting is unknown, missing, or has a value that it cannot have.
    #[error("{place}: {setting}: {why}")]
    Setting {
        /// The file, or what stands for it.
        place: String,
        /// The setting, as `section.name`.
        setting: String,
        /// What is wrong and what to write.
        why: String,
    },
}

/// Where settings come from.
#[derive(Clone, Debug)]
pub struct Place {
    /// The file and the variables, for messages.
    pub text: String,
    /// The folder of the file, to which paths are relative.
    pub folder: PathBuf,
    /// The file's name and text, where there is one.
    file: Option<(String, String)>,
    /// The settings that variables override, and what the names of these begin with.
    overridden: Vec<String>,
    prefix: String,
}

impl Place {
    /// That a setting has a value that it cannot have.
    #[must_use]
    pub fn wrong(&self, setting: &str, why: String) -> Error {
        let is_overridden = self.overridden.iter().any(|known| known == setting);
        let place = match &self.file {
            _ if is_overridden => {
                Some(format!("the variable {}{}", self.prefix, setting.replace('.', "__").to_uppercase()))
            }
            Some((name, text)) => line_of(text, setting).map(|line| format!("{name}, line {line}")),
            None => None,
        };
        Error::Setting { place: place.unwrap_or_else(|| self.text.clone()), setting: setting.into(), why }
    }
}

/// The line of a setting, as `kind[1].name`, in a text of TOML; of what it is in, if it is not there itself.
fn line_of(text: &str, setting: &str) -> Option<usize> {
    let mut value = DeValue::Table(DeTable::parse(text).ok()?.into_inner());
    let mut begin = None;
    for part in setting.split(['.', '[']) {
        let part = part.trim_end_matches(']');
        let found = match part.parse::<usize>() {
            Ok(place) => value.get(place),
            Err(_) => value.get(part),
        };
        let Some(found) = found.cloned() else { break };
        begin = Some(found.span().start);
        value = found.into_inner();
    }
    Some(text[..begin?].matches('\n').count() + 1)
}

/// Reads `file`, or the file `default` in the working directory if it is there, and puts the variables that begin with `prefix` over
/// it: with the prefix `APP_`, `APP_SOURCE__URL` over `source.url`.
///
/// # Errors
/// Each names the file and the setting.
pub fn read<T: DeserializeOwned>(
    file: Option<&Path>,
    default: &str,
    prefix: &str,
    variables: impl Iterator<Item = (String, String)>,
) -> Result<(T, Place), Error> {
    let path = file.unwrap_or(Path::new(default));
    let text = match std::fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(error) if file.is_none() && error.kind() == std::io::ErrorKind::NotFound => None,
        Err(why) => return Err(Error::Read { file: path.into(), why }),
    };
    let mut table: toml::Table = match &text {
        Some(text) => text.parse().map_err(|error: toml::de::Error| Error::Syntax {
            file: path.into(),
            line: text[..error.span().map_or(0, |span| span.start)].matches('\n').count() + 1,
            why: error.message().to_owned(),
        })?,
        None => toml::Table::new(),
    };
    let file = text.map(|text| (path.display().to_string(), text));
    let mut place = match &file {
        Some((name, _)) => name.clone(),
        None => format!("no {default} here"),
    };
    let mut overridden = Vec::new();
    for (variable, value) in variables {
        if let Some(setting) = variable.strip_prefix(prefix) {
            let setting = setting.to_lowercase();
            put(&mut table, &setting, value);
            overridden.push(setting.replace("__", "."));
        }
    }
    if !overridden.is_empty() {
        place.push_str(&format!(", with the variables {prefix}…"));
    }
    let folder = path.parent().unwrap_or(Path::new("")).into();
    let place = Place { text: place, folder, file, overridden, prefix: prefix.into() };
    let written = serde_path_to_error::deserialize(table).map_err(|error| {
        let setting = match error.path().to_string() {
            whole if whole == "." => "a setting is missing".into(),
            setting => setting,
        };
        place.wrong(&setting, without_value(error.inner().message()))
    })?;
    Ok((written, place))
}

/// What serde says, less the value that it quotes, which may be an address with a password.
fn without_value(message: &str) -> String {
    let quotes = message.starts_with("invalid type") || message.starts_with("invalid value");
    match message.rsplit_once(", expected ") {
        Some((_, expected)) if quotes => {
            let expected = if expected.starts_with("struct") { "a section with settings of its own" } else { expected };
            format!("it has the wrong type: expected {expected}")
        }
        _ => message.to_owned(),
    }
}

/// Puts `value` at `source__url` into the table `source` under `url`.
fn put(table: &mut toml::Table, setting: &str, value: String) {
    match setting.split_once("__") {
        None => {
            table.insert(setting.into(), value.into());
        }
        Some((section, rest)) => {
            let section = table.entry(section).or_insert_with(|| toml::Table::new().into());
            if !section.is_table() {
                *section = toml::Table::new().into();
            }
            if let Some(section) = section.as_table_mut() {
                put(section, rest, value);
            }
        }
    }
}

/// The variables of this process that are text.
pub fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// A list, or its items between commas as a variable has them.
///
/// # Errors
/// If it is none.
pub fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum List {
        Items(Vec<String>),
        Text(String),
    }
    Ok(match List::deserialize(deserializer)? {
        List::Items(items) => items,
        List::Text(text) => {
            text.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()
        }
    })
}

/// A number, or its digits as a variable has them.
///
/// # Errors
/// If it is none.
pub fn number<'de, D: Deserializer<'de>, T: Deserialize<'de> + FromStr>(deserializer: D) -> Result<T, D::Error> {
    or_text(deserializer, "is not a number")
}

/// Yes or no, or the word as a variable has it.
///
/// # Errors
/// If it is none.
pub fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    or_text(deserializer, "is neither true nor false")
}

/// A value, or its text as a variable has it; `refusal` says of another text what it is not.
fn or_text<'de, D: Deserializer<'de>, T: Deserialize<'de> + FromStr>(
    deserializer: D,
    refusal: &str,
) -> Result<T, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written<T> {
        Value(T),
        Text(String),
    }
    match Written::deserialize(deserializer)? {
        Written::Value(value) => Ok(value),
        Written::Text(text) => text.parse().map_err(|_| de::Error::custom(format!("{text} {refusal}"))),
    }
}

/// Whether a text fits a pattern, in which a `*` stands for anything.
#[must_use]
pub fn fits(pattern: &str, text: &str) -> bool {
    let Some((begin, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(text) = text.strip_prefix(begin) else { return false };
    (0..=text.len()).any(|at| text.is_char_boundary(at) && fits(rest, &text[at..]))
}

/// `256MB` as a number of bytes (binary: 1 MB is 2^20 bytes).
#[must_use]
pub fn bytes(text: &str) -> Option<u64> {
    let (digits, shift) = match text.strip_suffix("GB") {
        Some(digits) => (digits, 30),
        None => (text.strip_suffix("MB")?, 20),
    };
    digits.trim().parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// `5m` as a time. The server counts its milliseconds with 31 bits.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    let seconds = digits.parse::<u64>().ok()?.checked_mul(unit)?;
    (1..=500 * 3600).contains(&seconds).then(|| Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::line_of;

    #[test]
    fn a_setting_has_a_line() {
        let text = "a = 1\n[one]\nb = 2\n\n[[kind]]\nc = 3\n[[kind]]\nc = { d = [\n4] }\n";
        for (setting, line) in [
            ("a", Some(1)),
            ("one.b", Some(3)),
            ("one.none", Some(2)),
            ("kind[0].c", Some(6)),
            ("kind[1].c.d", Some(8)),
            ("kind[1].c.d[0]", Some(9)),
            ("none", None),
            (".", None),
        ] {
            assert_eq!(line_of(text, setting), line, "{setting}");
        }
    }
}
