//! The configuration: `blackwater.toml`, overridden by variables `BLACKWATER_…`; first as written, then checked.

use std::path::{Path, PathBuf};
use std::time::Duration;

use blackwater_base::settings::{self, Place, bytes, duration, flag, list, number};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use crate::postgres::{self, Address, Login};

/// The file that is read when none is named.
pub const FILE: &str = "blackwater.toml";
/// What the variables that override a setting begin with.
const VARIABLE: &str = "BLACKWATER_";

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be used, or one of its settings.
    #[error(transparent)]
    Settings(#[from] settings::Error),
    /// An address of a database cannot be used.
    #[error("{place}: {why}")]
    Address {
        /// The file, or what stands for it.
        place: String,
        /// What is wrong with it.
        why: postgres::Error,
    },
}

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The pipeline's name.
    pub name: String,
    /// The folder of the model pack.
    pub model: PathBuf,
    /// The database that is read.
    pub source: Source,
    /// The database that holds the star schema.
    pub warehouse: Warehouse,
    /// The bucket of the ingestion log.
    pub ingestion: String,
    /// The bucket of the processed log.
    pub processed: String,
    /// Bounds on what a run may use.
    pub limits: Limits,
    /// Where the buckets are.
    pub s3: S3,
}

/// The operational database.
#[derive(Clone, Debug)]
pub struct Source {
    /// Where it is.
    pub address: Address,
    /// The schema of its tables.
    pub schema: String,
    /// Columns that are never read, as (table, column).
    pub exclude: Vec<(String, String)>,
    /// How long a statement may take there.
    pub statement_timeout: Duration,
    /// How changes are found.
    pub changes: ChangeDetection,
}

/// How changes are found at the source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeDetection {
    /// By the write-ahead log where the source offers it and bounds what a slot keeps; else by scans.
    #[default]
    Auto,
    /// By scans: every row is looked at.
    Scan,
    /// By the write-ahead log; scans, with a notice, where that is not possible.
    Wal,
}

/// The database of the star schema.
#[derive(Clone, Debug)]
pub struct Warehouse {
    /// Where it is.
    pub address: Address,
    /// The schema of its star tables.
    pub schema: String,
    /// Roles that may read the star tables.
    pub readers: Vec<String>,
    /// Whether a large batch leaves their foreign keys as they are.
    pub keep_foreign_keys: bool,
}

/// Bounds on what a run may use.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of rows that a stage may hold at once; parts and pieces are cut to fit.
    pub memory: u64,
    /// About how many bytes of the source's tables a batch holds, as the source stores them.
    pub batch_bytes: u64,
    /// Connections to the source, which is also the number of tables read at once.
    pub connections: usize,
}

/// Where the buckets are.
#[derive(Clone, Debug)]
pub enum S3 {
    /// AWS, or whatever answers at the endpoint.
    Endpoint(Option<String>),
    /// A folder of this machine, served by the embedded server.
    Directory(PathBuf),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    model: PathBuf,
    source: WrittenSource,
    warehouse: WrittenWarehouse,
    ingestion: WrittenBucket,
    processed: WrittenBucket,
    #[serde(default)]
    limits: WrittenLimits,
    #[serde(default)]
    s3: WrittenS3,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenSource {
    url: Option<SecretString>,
    secret: Option<String>,
    schema: Option<String>,
    #[serde(default, deserialize_with = "list")]
    exclude: Vec<String>,
    statement_timeout: Option<String>,
    #[serde(default)]
    changes: ChangeDetection,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenWarehouse {
    url: Option<SecretString>,
    secret: Option<String>,
    schema: Option<String>,
    #[serde(default, deserialize_with = "list")]
    readers: Vec<String>,
    #[serde(default, deserialize_with = "flag")]
    keep_foreign_keys: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenBucket {
    bucket: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenLimits {
    memory: Option<String>,
    batch_bytes: Option<String>,
    #[serde(default = "connections", deserialize_with = "number")]
    connections: usize,
}

impl Default for WrittenLimits {
    fn default() -> Self {
        Self { memory: None, batch_bytes: None, connections: connections() }
    }
}

fn connections() -> usize {
    4
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenS3 {
    endpoint: Option<String>,
    directory: Option<PathBuf>,
}

impl Config {
    /// Reads `file`, or `blackwater.toml` in the working directory if it is there, and puts the
    /// variables `BLACKWATER_…` over it (`BLACKWATER_SOURCE__URL` over `source.url`). `fetch` gives the
    /// value of a secret.
    ///
    /// # Errors
    /// Each names the file and the setting.
    pub async fn load(
        file: Option<&Path>,
        variables: impl Iterator<Item = (String, String)>,
        fetch: impl AsyncFn(&str) -> Result<SecretString, String>,
    ) -> Result<Self, Error> {
        let (written, place) = settings::read::<Written>(file, FILE, VARIABLE, variables)?;
        let logins = [
            login(&place, "source.secret", written.source.secret.as_deref(), &fetch).await?,
            login(&place, "warehouse.secret", written.warehouse.secret.as_deref(), &fetch).await?,
        ];
        check(written, &logins, &place)
    }
}

/// The login that a secret holds, if there is one.
async fn login(
    place: &Place,
    setting: &str,
    secret: Option<&str>,
    fetch: impl AsyncFn(&str) -> Result<SecretString, String>,
) -> Result<Option<Login>, Error> {
    let Some(secret) = secret else { return Ok(None) };
    let text = fetch(secret).await;
    let login = text.and_then(|text| Login::read(text.expose_secret()));
    Ok(login.map(Some).map_err(|why| place.wrong(setting, format!("cannot use the secret {secret}: {why}")))?)
}

fn check(written: Written, logins: &[Option<Login>; 2], place: &Place) -> Result<Config, Error> {
    let wrong = |setting: &str, why: String| Error::from(place.wrong(setting, why));
    let name_is_plain =
        |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if !name_is_plain(&written.name) {
        return Err(wrong("name", "a name has lower-case letters, digits and hyphens".into()));
    }
    for (setting, bucket) in
        [("ingestion.bucket", &written.ingestion.bucket), ("processed.bucket", &written.processed.bucket)]
    {
        // https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
        if !(3..=63).contains(&bucket.len()) || !name_is_plain(&bucket.replace('.', "-")) {
            return Err(wrong(
                setting,
                format!("{bucket:?} is not the name of a bucket: 3 to 63 lower-case letters, digits, hyphens and dots"),
            ));
        }
    }
    if written.ingestion.bucket == written.processed.bucket {
        return Err(wrong("processed.bucket", "it is the ingestion bucket; name a second one".into()));
    }
    let exclude = written
        .source
        .exclude
        .iter()
        .map(|column| match column.split_once('.') {
            Some((table, column)) if !table.is_empty() && !column.is_empty() => Ok((table.into(), column.into())),
            _ => Err(wrong("source.exclude", format!("{column:?} is not written as table.column"))),
        })
        .collect::<Result<_, _>>()?;
    let statement_timeout = duration(written.source.statement_timeout.as_deref().unwrap_or("1h"))
        .ok_or_else(|| wrong("source.statement_timeout", "write 1s or more, up to 500h, as 30s, 5m or 1h".into()))?;
    let connections = written.limits.connections;
    if !(2..=64).contains(&connections) {
        return Err(wrong(
            "limits.connections",
            format!("{connections} is not between 2 and 64 (one holds the snapshot)"),
        ));
    }
    let memory = bytes(written.limits.memory.as_deref().unwrap_or("256MB"))
        .filter(|memory| *memory >= 128 << 20)
        .ok_or_else(|| wrong("limits.memory", "write 128MB or more, in MB or GB".into()))?;
    let batch_bytes = bytes(written.limits.batch_bytes.as_deref().unwrap_or("256MB"))
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| wrong("limits.batch_bytes", "write 1MB or more, in MB or GB".into()))?;
    let s3 = match (written.s3.endpoint, written.s3.directory) {
        (Some(_), Some(_)) => return Err(wrong("s3", "endpoint and directory exclude each other".into())),
        (None, Some(directory)) => S3::Directory(place.folder.join(directory)),
        (endpoint, None) => S3::Endpoint(endpoint),
    };
    let address = |setting: &'static str, url: Option<&SecretString>, login: Option<&Login>| {
        let address = match (url, login) {
            (url, Some(login)) => Address::with_login(setting, url, login),
            (Some(url), None) => Address::parse(setting, url),
            (None, None) => return Err(wrong(setting, "write the database's address, or name a secret".into())),
        };
        address.map_err(|why| Error::Address { place: place.text.clone(), why })
    };
    Ok(Config {
        name: written.name,
        model: place.folder.join(written.model),
        source: Source {
            address: address("source.url", written.source.url.as_ref(), logins[0].as_ref())?,
            schema: written.source.schema.unwrap_or_else(|| "public".into()),
            exclude,
            statement_timeout,
            changes: written.source.changes,
        },
        warehouse: Warehouse {
            address: address("warehouse.url", written.warehouse.url.as_ref(), logins[1].as_ref())?,
            schema: written.warehouse.schema.unwrap_or_else(|| "public".into()),
            readers: written.warehouse.readers,
            keep_foreign_keys: written.warehouse.keep_foreign_keys,
        },
        ingestion: written.ingestion.bucket,
        processed: written.processed.bucket,
        limits: Limits { memory, batch_bytes, connections },
        s3,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
name = "totesys"
model = "models/totesys"
[source]
url = "postgres://reader:s3cret@db/totesys"
exclude = ["payment.company_ac_number"]
[warehouse]
url = "postgres://loader:s3cret@dw/warehouse"
readers = ["quicksight"]
[ingestion]
bucket = "acme-ingestion"
[processed]
bucket = "acme-processed"
[limits]
memory = "512MB"
[s3]
directory = "data"
"#;

    /// There is one secret.
    async fn fetch(secret: &str) -> Result<SecretString, String> {
        match secret {
            "known" => {
                Ok(r#"{"engine": "postgres", "host": "rds", "port": 6543, "username": "r", "password": "p@s3cret/?"}"#
                    .into())
            }
            "broken" => Ok("s3cret".into()),
            _ => Err("there is none".into()),
        }
    }

    #[tokio::main(flavor = "current_thread")]
    async fn load(text: &str, variables: &[(&str, &str)]) -> Result<Config, Error> {
        let folder = std::env::temp_dir().join(format!("blackwater-config-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&folder).unwrap();
        let file = folder.join(FILE);
        std::fs::write(&file, text).unwrap();
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let loaded = Config::load(Some(&file), variables, fetch).await;
        std::fs::remove_dir_all(&folder).unwrap();
        loaded
    }

    #[test]
    fn paths_are_relative_to_the_file() {
        let config = load(GOOD, &[]).unwrap();
        assert!(config.model.is_absolute() && config.model.ends_with("models/totesys"));
        assert!(matches!(config.s3, S3::Directory(folder) if folder.is_absolute() && folder.ends_with("data")));
        assert_eq!(config.source.exclude, [("payment".into(), "company_ac_number".into())]);
        assert_eq!(config.limits.memory, 512 << 20);
        assert_eq!(config.source.statement_timeout, Duration::from_secs(3600));
    }

    #[test]
    fn a_variable_overrides_its_setting() {
        let config = load(
            GOOD,
            &[
                ("BLACKWATER_INGESTION__BUCKET", "other-ingestion"),
                ("BLACKWATER_LIMITS__CONNECTIONS", "7"),
                ("BLACKWATER_SOURCE__STATEMENT_TIMEOUT", "5m"),
                ("BLACKWATER_WAREHOUSE__READERS", "quicksight, analyst"),
                ("HOME", "/nowhere"),
            ],
        )
        .unwrap();
        assert_eq!(config.ingestion, "other-ingestion");
        assert_eq!(config.limits.connections, 7);
        assert_eq!(config.source.statement_timeout, Duration::from_secs(300));
        assert_eq!(config.warehouse.readers, ["quicksight", "analyst"]);
    }

    #[test]
    fn what_is_wrong_is_named_and_no_password_is_printed() {
        let swap = |from: &str, to: &str| {
            assert!(GOOD.contains(from));
            GOOD.replace(from, to)
        };
        let timeout = |time: &str| swap("[warehouse]", &format!("statement_timeout = {time:?}\n[warehouse]"));
        for (text, setting, why) in [
            (swap("[limits]", "[limitz]"), "limitz", "unknown field"),
            (
                swap("memory =", "memroy ="),
                "limits.memroy",
                "unknown field `memroy`, expected one of `memory`, `batch_bytes`, `connections`",
            ),
            (swap("name = \"totesys\"", ""), "a setting is missing", "missing field `name`"),
            (swap("name = \"totesys\"", "name = \"Tote Sys\""), "name", "lower-case letters"),
            (swap("\"512MB\"", "\"much\""), "limits.memory", "128MB or more"),
            (swap("\"512MB\"", "\"1MB\""), "limits.memory", "128MB or more"),
            (swap("memory = \"512MB\"", "batch_bytes = \"0MB\""), "limits.batch_bytes", "1MB or more"),
            (swap("memory = \"512MB\"", "connections = 1"), "limits.connections", "between 2 and 64"),
            (swap("memory = \"512MB\"", "connections = \"many\""), "limits.connections", "many is not a number"),
            (timeout("0s"), "source.statement_timeout", "as 30s, 5m or 1h"),
            (timeout("10 min"), "source.statement_timeout", "as 30s, 5m or 1h"),
            (timeout("501h"), "source.statement_timeout", "up to 500h"),
            (timeout(""), "source.statement_timeout", "as 30s, 5m or 1h"),
            (swap("acme-processed", "acme-ingestion"), "processed.bucket", "it is the ingestion bucket"),
            (swap("acme-processed", "Acme"), "processed.bucket", "not the name of a bucket"),
            (swap("payment.company_ac_number", "company"), "source.exclude", "not written as table.column"),
            (swap("directory = \"data\"", "directory = \"d\"\nendpoint = \"http://x\""), "s3", "exclude each other"),
            (swap("postgres://reader:s3cret@db", "reader:s3cret@db"), "source.url", "does not begin with postgres://"),
            (swap("model = ", "model "), "line 3", "expected"),
            (swap("totesys\"\nexclude", "totesys\nexclude"), "line 5", "expected"),
            (swap("name = \"totesys\"", "name = 5"), "name", "wrong type: expected a string"),
            ("source = \"postgres://u:s3cret@h/d\"\nname = \"a\"".into(), "source", "a section with settings"),
        ] {
            let error = load(&text, &[]).unwrap_err().to_string();
            assert!(error.contains(setting) && error.contains(why), "{setting}: {error}");
            assert!(error.contains("blackwater.toml"), "{error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn an_unknown_variable_is_an_error_like_an_unknown_key() {
        let error = load(GOOD, &[("BLACKWATER_SOURCE__URI", "postgres://x")]).unwrap_err().to_string();
        assert!(error.contains("source.uri") && error.contains("unknown field"), "{error}");
        assert!(error.contains("BLACKWATER_"), "{error}");
        let error = load(GOOD, &[("BLACKWATER_SOURCE", "postgres://u:s3cret@h/d")]).unwrap_err().to_string();
        assert!(error.contains("source: it has the wrong type") && !error.contains("s3cret"), "{error}");
    }

    #[test]
    fn a_secret_says_who_logs_in_and_where_if_the_address_does_not() {
        let url = "url = \"postgres://reader:s3cret@db/totesys\"";
        for (with, shown) in [
            ("secret = \"known\"", "rds:6543/r as r"),
            ("secret = \"known\"\nurl = \"postgres:///totesys?host=db&sslmode=require\"", "db:5432/totesys as r"),
            ("secret = \"known\"\nurl = \"postgres://db:77/totesys\"", "db:77/totesys as r"),
        ] {
            assert_eq!(load(&GOOD.replace(url, with), &[]).unwrap().source.address.to_string(), shown, "{with}");
        }
        for (with, why) in [
            ("", "source.url: write the database's address, or name a secret"),
            ("secret = \"other\"", "source.secret: cannot use the secret other: there is none"),
            ("secret = \"broken\"", "source.secret: cannot use the secret broken: its value is not JSON"),
        ] {
            let error = load(&GOOD.replace(url, with), &[]).unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains("s3cret"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_file_that_is_named_must_be_there() {
        let loaded = Config::load(Some(Path::new("/nowhere/bw.toml")), std::iter::empty(), fetch).await;
        let error = loaded.unwrap_err().to_string();
        assert!(error.contains("/nowhere/bw.toml") && error.contains("Name another file"), "{error}");
    }
}
