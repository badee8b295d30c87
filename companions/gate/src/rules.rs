//! The rules by which files are checked: `gate.toml`, overridden by variables `GATE_…`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use blackwater_base::settings::{self, flag, list, number};
use secrecy::SecretString;
use serde::{Deserialize, Deserializer, de};

use crate::layout::{Layout, Place, filled, names_in};

/// The file that is read when none is named.
pub const FILE: &str = "gate.toml";
/// What the variables that override a setting begin with.
const VARIABLE: &str = "GATE_";
/// The most bytes that S3 copies at once.
const MOST_BYTES: u64 = 5 << 30;

/// The rules.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// Where files are uploaded.
    #[serde(default)]
    pub drop: Drop,
    /// Where they are let in to.
    #[serde(default, rename = "final")]
    pub last: Final,
    /// What the report says of an upload.
    #[serde(default)]
    pub report: Report,
    /// Where names are looked up.
    #[serde(default)]
    pub names: Names,
    /// The issue that is raised for files that are let in.
    #[serde(default)]
    pub issue: Issue,
    /// The mail that is sent of files that are not let in.
    #[serde(default)]
    pub mail: Mail,
    /// Who is told of each upload.
    #[serde(default)]
    pub webhook: Webhook,
    /// Who is told of errors.
    #[serde(default)]
    pub sentry: Sentry,
    /// How large a file may be.
    #[serde(default)]
    pub limits: Limits,
    /// How a file of text is read.
    #[serde(default)]
    pub text: Text,
    /// The kinds of files, of which the first counts that fits.
    #[serde(default, rename = "kind")]
    pub kinds: Vec<Kind>,
}

/// Where files are uploaded.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Drop {
    /// The bucket.
    pub bucket: String,
    /// What the keys look like.
    pub layout: Layout,
}

/// Where files are let in to.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Final {
    /// The bucket.
    pub bucket: String,
}

/// What the report says of an upload, before its issue and its files.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Report {
    /// Its members, in their order: each a name, and a text with names of the layout in braces. None: those of the layout, and the
    /// name that was looked up.
    pub members: Vec<(String, String)>,
    /// Whether it says more of each file than its readers always knew.
    #[serde(deserialize_with = "flag")]
    pub extended: bool,
}

impl Report {
    /// The members for an upload.
    pub(crate) fn of(&self, place: &Place, name: &str, is_named: bool) -> Vec<(String, String)> {
        let known = place.known(name);
        if !self.members.is_empty() {
            return self
                .members
                .iter()
                .map(|(member, text)| (member.clone(), filled(text, &known, str::to_owned)))
                .collect();
        }
        let name = is_named.then(|| ("name".to_owned(), name.to_owned()));
        place.names.iter().cloned().chain(name).collect()
    }
}

/// Where names are looked up.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Names {
    /// The address of a document of JSON, with names of the layout in braces.
    pub url: Option<String>,
    /// Where the document has the name, as a JSON pointer (RFC 6901).
    pub member: String,
    /// What stands for a name that is not there.
    pub otherwise: String,
    /// The word before the token.
    pub scheme: String,
    /// The token, if the service asks for one.
    pub token: Option<SecretString>,
    /// The name or ARN of the secret that has it, with the text `{"token": "…"}`.
    pub secret: Option<String>,
}

/// The issue that is raised on GitHub for files that are let in.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Issue {
    /// The repository, as `owner/name`.
    pub repository: Option<String>,
    /// The labels. Open issues with the first of them are looked through for one with the same title.
    #[serde(deserialize_with = "list")]
    pub labels: Vec<String>,
    /// The title, with names of the layout in braces.
    pub title: String,
    /// The address of the API.
    pub api: String,
    /// A token that may write issues.
    pub token: Option<SecretString>,
    /// The secret that has it.
    pub secret: Option<String>,
}

/// The mail that is sent of files that are not let in.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mail {
    /// Who it is from: an address that SES may send for.
    pub from: Option<String>,
    /// Who it is to.
    #[serde(deserialize_with = "list")]
    pub to: Vec<String>,
    /// The subject, with names of the layout in braces.
    pub subject: String,
    /// The first line, likewise.
    pub opening: String,
    /// The region of SES, if it is another than the function's.
    pub region: Option<String>,
}

/// Who is told of each upload.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Webhook {
    /// The address that the report is sent to.
    pub url: Option<String>,
    /// The word before the token.
    pub scheme: String,
    /// The token.
    pub token: Option<SecretString>,
    /// The secret that has it.
    pub secret: Option<String>,
}

/// Who is told of errors.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sentry {
    /// The address of a project in Sentry.
    pub dsn: Option<SecretString>,
}

/// How large a file may be.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The fewest bytes.
    #[serde(deserialize_with = "number")]
    pub min_bytes: u64,
    /// The most bytes.
    #[serde(deserialize_with = "number")]
    pub max_bytes: u64,
    /// For which values of the layout's names a file may have fewer bytes.
    pub exempt: BTreeMap<String, Vec<String>>,
}

/// How a file of text is read.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Text {
    /// What may stand between fields: characters of ASCII.
    pub delimiters: Vec<char>,
    /// The fewest columns.
    #[serde(deserialize_with = "number")]
    pub min_columns: usize,
    /// What is done about rows without a character.
    pub blank_rows: BlankRows,
    /// What is done about rows with more fields than the header.
    pub long_rows: LongRows,
}

/// What is done about rows without a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlankRows {
    /// They do not count.
    Ignore,
    /// They are too short.
    Error,
}

/// What is done about rows with more fields than the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LongRows {
    /// They are let in.
    Allow,
    /// They are not.
    Error,
}

/// A kind of files, known by its header, or by the members of its objects. Names are compared without case.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kind {
    /// Its name in reports.
    pub name: String,
    /// The name of the first column.
    pub first_column: Option<String>,
    /// The name of any column.
    pub any_column: Option<String>,
    /// What a JSON document of the kind looks like.
    pub json: Option<Json>,
    /// How many files of the kind an upload must have.
    pub files: Option<usize>,
    /// How long after its newest file an upload that has too few is no reason for a mail.
    #[serde(default, deserialize_with = "duration")]
    pub wait: Duration,
}

/// A JSON document that is an array of objects.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Json {
    /// Members that the first object must have.
    pub array_of: Vec<String>,
    /// The member whose items count as rows: an array.
    pub count: String,
}

impl Default for Limits {
    fn default() -> Self {
        Self { min_bytes: 1024, max_bytes: 150_000_000, exempt: BTreeMap::new() }
    }
}

impl Default for Names {
    fn default() -> Self {
        Self {
            url: None,
            member: "/name".into(),
            otherwise: String::new(),
            scheme: "Token".into(),
            token: None,
            secret: None,
        }
    }
}

impl Default for Issue {
    fn default() -> Self {
        Self {
            repository: None,
            labels: Vec::new(),
            title: "Import {prefix}".into(),
            api: "https://api.github.com".into(),
            token: None,
            secret: None,
        }
    }
}

impl Default for Mail {
    fn default() -> Self {
        Self {
            from: None,
            to: Vec::new(),
            subject: "Error with data of {prefix}".into(),
            opening: "Data of {prefix} failed because:".into(),
            region: None,
        }
    }
}

impl Default for Webhook {
    fn default() -> Self {
        Self { url: None, scheme: "Token".into(), token: None, secret: None }
    }
}

/// `3m`.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    settings::duration(&text).ok_or_else(|| de::Error::custom(format!("{text} is no time; write 30s, 3m or 1h")))
}

impl Default for Text {
    fn default() -> Self {
        Self { delimiters: vec![',', '\t'], min_columns: 3, blank_rows: BlankRows::Ignore, long_rows: LongRows::Allow }
    }
}

impl Rules {
    /// Reads `file`, or `gate.toml` in the working directory if it is there, and puts the variables `GATE_…` over it.
    ///
    /// # Errors
    /// Each names the file and the setting.
    pub fn read(
        file: Option<&Path>,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, settings::Error> {
        Ok(Self::read_at(file, variables)?.0)
    }

    fn read_at(
        file: Option<&Path>,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<(Self, settings::Place), settings::Error> {
        let (rules, place): (Self, settings::Place) = settings::read(file, FILE, VARIABLE, variables)?;
        match rules.problem().or_else(|| rules.unknown_name()) {
            Some((setting, why)) => Err(place.wrong(&setting, why)),
            None => Ok((rules, place)),
        }
    }

    /// Whether there is a file of rules, or all are defaults.
    #[must_use]
    pub fn is_there(file: Option<&Path>) -> bool {
        file.is_some() || Path::new(FILE).exists()
    }

    /// As [`Self::read`], for a gate between buckets.
    ///
    /// # Errors
    /// Likewise, and if a bucket is not named.
    pub fn read_for_buckets(
        file: Option<&Path>,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, settings::Error> {
        let (rules, place) = Self::read_at(file, variables)?;
        for (setting, bucket) in [("drop.bucket", &rules.drop.bucket), ("final.bucket", &rules.last.bucket)] {
            if bucket.is_empty() {
                return Err(place.wrong(setting, "name the bucket".into()));
            }
        }
        Ok(rules)
    }

    /// What cannot be meant: the setting and why.
    fn problem(&self) -> Option<(String, String)> {
        let wrong = |setting: &str, why: &str| Some((setting.to_owned(), why.to_owned()));
        if self.limits.min_bytes > self.limits.max_bytes {
            return wrong("limits.min_bytes", "it is more than limits.max_bytes");
        }
        if self.limits.max_bytes > MOST_BYTES {
            return wrong("limits.max_bytes", "S3 copies no more than 5 GB (5368709120) at once");
        }
        if let Some(name) = self.limits.exempt.keys().find(|name| !self.drop.layout.names().any(|known| known == *name))
        {
            return wrong(&format!("limits.exempt.{name}"), "drop.layout has no such name");
        }
        if self.drop.bucket == self.last.bucket && !self.drop.bucket.is_empty() {
            return wrong("final.bucket", "it is drop.bucket: what is let in would be uploaded again");
        }
        for (setting, url) in [
            ("names.url", self.names.url.as_deref()),
            ("issue.api", Some(self.issue.api.as_str())),
            ("webhook.url", self.webhook.url.as_deref()),
        ] {
            let local = ["http://127.0.0.1", "http://localhost", "http://[::1]"];
            let is_safe = |url: &str| url.starts_with("https://") || local.iter().any(|begin| url.starts_with(begin));
            if !url.is_none_or(is_safe) {
                return wrong(setting, "write an address that begins with https://");
            }
        }
        if self
            .issue
            .repository
            .as_ref()
            .is_some_and(|name| name.split('/').filter(|part| !part.is_empty()).count() != 2)
        {
            return wrong("issue.repository", "write owner/name");
        }
        if !self.names.member.starts_with('/') {
            return wrong("names.member", "write a JSON pointer, as /name");
        }
        if self.mail.from.is_some() == self.mail.to.is_empty() {
            return wrong("mail", "write both from and to");
        }
        if self.text.delimiters.is_empty()
            || !self.text.delimiters.iter().all(|c| c.is_ascii() && !"\"\r\n".contains(*c))
        {
            return wrong("text.delimiters", "write one or more characters of ASCII, as [\",\", \"\\t\"]");
        }
        let mut known: BTreeMap<(&str, String), &str> = BTreeMap::new();
        for (number, kind) in self.kinds.iter().enumerate() {
            let setting = format!("kind[{number}]");
            let conditions = [("first_column", &kind.first_column), ("any_column", &kind.any_column)];
            let named: Vec<_> = conditions.iter().filter_map(|(by, name)| Some((*by, name.as_ref()?))).collect();
            if named.len() + usize::from(kind.json.is_some()) != 1 {
                return wrong(&setting, "write one of first_column, any_column and json");
            }
            if kind.files == Some(0) {
                return wrong(&format!("{setting}.files"), "an upload has one file or more");
            }
            if let Some(json) = &kind.json {
                let fits = |other: &&Kind| {
                    other
                        .json
                        .as_ref()
                        .is_some_and(|other| other.array_of.iter().all(|name| json.array_of.contains(name)))
                };
                if let Some(other) = self.kinds[..number].iter().find(fits) {
                    return wrong(&format!("{setting}.json"), &format!("{} fits all of these before", other.name));
                }
            }
            for (by, name) in named {
                if let Some(other) = known.insert((by, name.to_lowercase()), &kind.name) {
                    return wrong(&format!("{setting}.{by}"), &format!("{other} has the same"));
                }
            }
        }
        None
    }

    /// A text that has a name in braces that nothing gives: the setting and why.
    fn unknown_name(&self) -> Option<(String, String)> {
        let layout: BTreeSet<_> = self.drop.layout.names().collect();
        let mut known = layout.clone();
        known.extend(["name", "prefix"]);
        let members = self.report.members.iter().map(|(name, text)| (format!("report.members: {name}"), text, &known));
        let texts = [
            ("names.url", self.names.url.as_ref(), &layout),
            ("names.otherwise", Some(&self.names.otherwise), &layout),
            ("issue.title", Some(&self.issue.title), &known),
            ("mail.subject", Some(&self.mail.subject), &known),
            ("mail.opening", Some(&self.mail.opening), &known),
        ];
        let texts = texts.into_iter().filter_map(|(setting, text, known)| Some((setting.to_owned(), text?, known)));
        texts.chain(members).find_map(|(setting, text, known)| {
            if text.matches('{').count() != text.matches('}').count() {
                return Some((setting, "a brace is not closed".into()));
            }
            let name = names_in(text).find(|name| !known.contains(name))?;
            let known: Vec<_> = known.iter().copied().collect();
            Some((setting, format!("nothing gives {{{name}}}; there are {}", known.join(", "))))
        })
    }

    /// The rules for an upload, of which the layout says these names.
    #[must_use]
    pub fn with(&self, names: &[(String, String)]) -> Self {
        let mut rules = self.clone();
        let is_exempt = |(name, value): &(String, String)| {
            self.limits.exempt.get(name).is_some_and(|values| values.iter().any(|exempt| exempt == value))
        };
        if names.iter().any(is_exempt) {
            rules.limits.min_bytes = 0;
        }
        rules
    }

    /// The kind of this name.
    pub(crate) fn kind(&self, name: &str) -> Option<&Kind> {
        self.kinds.iter().find(|kind| kind.name == name)
    }

    /// The kind of a header.
    pub(crate) fn kind_of_header(&self, columns: &[String]) -> Option<&Kind> {
        let is = |column: &String, name: &String| column.trim().to_lowercase() == name.trim().to_lowercase();
        self.kinds.iter().find(|kind| {
            kind.first_column.as_ref().is_some_and(|name| columns.first().is_some_and(|column| is(column, name)))
                || kind.any_column.as_ref().is_some_and(|name| columns.iter().any(|column| is(column, name)))
        })
    }
}
