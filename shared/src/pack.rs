//! A model pack: a folder with the warehouse's DDL, one model per star table, and small fixed
//! tables that models may join.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use blackwater_base::store::sha256;

use crate::fixed::{self, FixedTable};
use crate::model::{self, Model};

/// The warehouse's DDL in a pack.
const SCHEMA: &str = "schema.sql";

/// Why a pack cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or the folder cannot be read.
    #[error("cannot read {}: {why}\nThe setting `model` names the folder of the model pack", .path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        why: std::io::Error,
    },
    /// There is no `schema.sql` in the folder.
    #[error("{} has no file schema.sql\nWrite the warehouse's tables into it, in statements that can be run again", .folder.display())]
    NoSchema {
        /// The folder.
        folder: PathBuf,
    },
    /// There is no model in the folder.
    #[error("{} holds no model: write one SELECT per star table into a file of its name, as dim_staff.sql", .folder.display())]
    Empty {
        /// The folder.
        folder: PathBuf,
    },
    /// A fixed table cannot be read.
    #[error(transparent)]
    Fixed(#[from] fixed::Error),
    /// A model is refused.
    #[error(
        "{}/{why}\nThe page on models says what a query may be; what it may not, a generated column or a view in schema.sql can", .folder.display()
    )]
    Model {
        /// The folder.
        folder: PathBuf,
        /// File, line and reason.
        why: model::Error,
    },
}

/// A model pack.
#[derive(Clone, Debug)]
pub struct Pack {
    /// The hash of all its files: 16 hexadecimal digits.
    pub hash: String,
    /// The warehouse's DDL.
    pub schema: String,
    /// The models by star table.
    pub models: BTreeMap<String, Model>,
    /// The fixed tables by name.
    pub fixed: BTreeMap<String, FixedTable>,
}

impl Pack {
    /// Reads and checks the pack in `folder`.
    ///
    /// # Errors
    /// Each names the file, and the line where there is one.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let unreadable = |path: &Path| {
            let path = path.to_owned();
            move |why| Error::Read { path, why }
        };
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(folder).map_err(unreadable(folder))? {
            let path = entry.map_err(unreadable(folder))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !name.starts_with('.') && (name.ends_with(".sql") || name.ends_with(".csv")) {
                files.insert(name, read_text(&path).map_err(unreadable(&path))?);
            }
        }
        let hash = sha256(&serde_json::to_vec(&files).unwrap_or_default())[..16].to_owned();
        let schema = files.remove(SCHEMA).ok_or_else(|| Error::NoSchema { folder: folder.into() })?;
        let mut fixed = BTreeMap::new();
        for (file, text) in &files {
            if let Some(name) = file.strip_suffix(".csv") {
                fixed.insert(name.to_owned(), FixedTable::parse(file, text)?);
            }
        }
        let mut models = BTreeMap::new();
        for (file, text) in &files {
            if let Some(name) = file.strip_suffix(".sql") {
                let model = Model::parse(name, text, &fixed);
                models.insert(name.to_owned(), model.map_err(|why| Error::Model { folder: folder.into(), why })?);
            }
        }
        match models.is_empty() {
            true => Err(Error::Empty { folder: folder.into() }),
            false => Ok(Self { hash, schema, models, fixed }),
        }
    }

    /// The hash of a model with the fixed tables that it joins: while it is the same, the same
    /// source rows make the same star rows.
    #[must_use]
    pub fn model_hash(&self, model: &Model) -> String {
        let tables = model.selects.iter().flat_map(|select| &select.tables);
        let fixed: Vec<_> = tables.filter(|table| table.fixed).map(|table| &self.fixed[&table.name].hash).collect();
        sha256(&serde_json::to_vec(&(&model.text, fixed)).unwrap_or_default())
    }

    /// The source tables that the models read.
    #[must_use]
    pub fn source_tables(&self) -> BTreeSet<String> {
        self.models.values().flat_map(Model::source_tables).map(str::to_owned).collect()
    }

    /// The models that a source table drives.
    pub fn driven_by<'a>(&'a self, table: &'a str) -> impl Iterator<Item = &'a Model> {
        self.models.values().filter(move |model| model.is_driven_by(table))
    }
}

/// A file's text, without the mark that some editors write before UTF-8.
fn read_text(path: &Path) -> std::io::Result<String> {
    let text = std::fs::read_to_string(path)?;
    match text.strip_prefix('\u{feff}') {
        Some(rest) => Ok(rest.to_owned()),
        None => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_as_if_it_were_not_there() {
        let pack = |mark: &str| {
            let folder = tempfile::tempdir().unwrap();
            for (file, text) in [
                ("schema.sql", "CREATE TABLE IF NOT EXISTS dim_x (code text PRIMARY KEY, name text)"),
                ("dim_x.sql", "SELECT x.code, iso.name FROM x LEFT JOIN iso ON iso.code = x.code"),
                ("iso.csv", "code,name\nGBP,Pound Sterling\n"),
            ] {
                std::fs::write(folder.path().join(file), format!("{mark}{text}")).unwrap();
            }
            Pack::read(folder.path()).unwrap()
        };
        let (plain, marked) = (pack(""), pack("\u{feff}"));
        assert_eq!(marked.hash, plain.hash);
        assert!(marked.schema.starts_with("CREATE TABLE"));
        assert_eq!(marked.model_hash(&marked.models["dim_x"]), plain.model_hash(&plain.models["dim_x"]));
    }
}
