//! Whether the models fit the source's tables.

use std::collections::BTreeMap;

use blackwater_shared::manifest::{ModelState, mark};
use blackwater_shared::model::{Model, On, Select};
use blackwater_shared::pack::Pack;

use super::catalogue::Table;
use crate::error::Error;

/// Checks that every model fits the source, and says what it is.
pub(crate) fn states(pack: &Pack, tables: &BTreeMap<String, Table>) -> Result<BTreeMap<String, ModelState>, Error> {
    let mut states = BTreeMap::new();
    for (name, model) in &pack.models {
        check(model, tables)?;
        let state = ModelState {
            hash: pack.model_hash(model),
            tables: model.selects.iter().map(|select| select.driving().to_owned()).collect(),
            joins: model.selects.iter().map(|select| select.from.clone()).collect(),
        };
        states.insert(name.clone(), state);
    }
    Ok(states)
}

/// Makes sure that a model fits the source.
pub(crate) fn check(model: &Model, tables: &BTreeMap<String, Table>) -> Result<(), Error> {
    model.typed(|table, column| tables.get(table)?.type_of(column))?;
    let refuse = |why: String| Err(Error::Model { file: model.file.clone(), why });
    for select in &model.selects {
        for (place, table) in select.tables.iter().enumerate().filter(|(_, table)| !table.fixed) {
            for column in select.reads(place) {
                let traits = tables[&table.name].traits.get(column);
                if let Some(kind) = traits.and_then(|traits| traits.unprintable.as_ref()) {
                    return refuse(format!(
                        "{}.{column} holds {kind}, whose text depends on settings or on other objects' names, so it \
                         cannot be kept exactly\nLeave it out",
                        table.name
                    ));
                }
            }
        }
        check_joins(model, select, tables)?;
        let (of, table) = (select.driving(), &tables[select.driving()]);
        let marked = mark(&model.name);
        if table.columns.iter().any(|column| column.name == marked) {
            return refuse(format!("the source table {of} has a column {marked}, a name that Blackwater uses"));
        }
        if model.is_values {
            continue;
        }
        if table.key.is_empty() {
            return refuse(format!("the source table {of} has no primary key, so its rows cannot be told apart"));
        }
        if let Err(column) = model.key(&table.key) {
            return refuse(format!("it does not return {column}, which is in the primary key of {of}, as it is"));
        }
    }
    Ok(())
}

/// Makes sure that every join finds at most one row, and finds it here as it does in Postgres.
fn check_joins(model: &Model, select: &Select, tables: &BTreeMap<String, Table>) -> Result<(), Error> {
    for table in select.tables.iter().filter(|table| !table.fixed) {
        let Some(join) = &table.join else { continue };
        let (name, known) = (&table.name, &tables[&table.name]);
        let refuse = |why: String| Err(Error::from(model.bad_join(join, why)));
        for On { column, table: other, other: its } in &join.on {
            let other = &select.tables[*other].name;
            let family = |table: &Table, column: &str| table.traits.get(column).and_then(|traits| traits.joins.clone());
            let (one, two) = (family(known, column), family(&tables[other], its));
            if one.is_none() || one != two {
                let kinds = [known.kind(column), tables[other].kind(its)].map(Option::unwrap_or_default);
                return refuse(format!(
                    "{name}.{column} is {} and {other}.{its} is {}: a join takes columns of the same type, one in \
                     which equal values print alike",
                    kinds[0], kinds[1]
                ));
            }
        }
        let joined: Vec<_> = join.on.iter().map(|on| &on.column).collect();
        if known.inherited || !known.unique.iter().any(|key| key.iter().all(|column| joined.contains(&column))) {
            let joined: Vec<_> = joined.into_iter().map(String::as_str).collect();
            return refuse(format!(
                "({}) is no primary or unique key of {name}, so a join could find several rows",
                joined.join(", ")
            ));
        }
    }
    Ok(())
}
