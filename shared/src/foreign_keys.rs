//! The order in which tables that refer to each other are read and written.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;

use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, Tokenizer, Word};

/// Groups of tables, those first that others refer to, and else in their own order: a table alone, or several that refer to
/// each other in a circle. `references` are the tables to which each one refers.
#[must_use]
pub fn groups<T: Ord + Copy>(references: &BTreeMap<T, BTreeSet<T>>) -> Vec<Vec<T>> {
    let reach = |from: T| {
        let (mut reached, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(one) = next.pop() {
            let others = references[&one].iter().copied().filter(|other| references.contains_key(other));
            next.extend(others.filter(|other| reached.insert(*other)));
        }
        reached
    };
    let reached: BTreeMap<T, BTreeSet<T>> = references.keys().map(|table| (*table, reach(*table))).collect();
    let is_with = |one: T, other: T| one == other || reached[&one].contains(&other) && reached[&other].contains(&one);
    let mut left: BTreeSet<T> = references.keys().copied().collect();
    let mut groups = Vec::new();
    loop {
        let waits = |one: T| left.iter().any(|other| reached[&one].contains(other) && !is_with(one, *other));
        let Some(first) = left.iter().copied().find(|one| !waits(*one)) else { return groups };
        let group: Vec<_> = left.iter().copied().filter(|other| is_with(first, *other)).collect();
        left.retain(|table| !group.contains(table));
        groups.push(group);
    }
}

/// The tables to which each table of a schema's DDL refers: a hint, for it knows only what stands in CREATE TABLE and ALTER TABLE.
#[must_use]
pub fn of_schema(ddl: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut references: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, ddl).tokenize().unwrap_or_default();
    let mut tokens = tokens.into_iter().filter(|token| !matches!(token, Token::Whitespace(_))).peekable();
    let (mut table, mut before) = (None, None);
    while let Some(token) = tokens.next() {
        let Token::Word(Word { keyword, .. }) = token else { continue };
        match keyword {
            Keyword::TABLE if matches!(before, Some(Keyword::CREATE | Keyword::UNLOGGED | Keyword::ALTER)) => {
                while tokens
                    .next_if(|token| is_any(token, &[Keyword::IF, Keyword::NOT, Keyword::EXISTS, Keyword::ONLY]))
                    .is_some()
                {}
                table = name(&mut tokens);
            }
            Keyword::REFERENCES => {
                if let (Some(table), Some(other)) = (&table, name(&mut tokens)) {
                    references.entry(String::clone(table)).or_default().insert(other);
                }
            }
            _ => {}
        }
        before = Some(keyword);
    }
    references
}

fn is_any(token: &Token, keywords: &[Keyword]) -> bool {
    matches!(token, Token::Word(Word { keyword, .. }) if keywords.contains(keyword))
}

/// The name of a table, without its schema.
fn name(tokens: &mut Peekable<impl Iterator<Item = Token>>) -> Option<String> {
    let mut name = None;
    while let Some(Token::Word(Word { value, quote_style, .. })) =
        tokens.next_if(|token| matches!(token, Token::Word(_)))
    {
        name = Some(if quote_style.is_some() { value } else { value.to_lowercase() });
        if tokens.next_if_eq(&Token::Period).is_none() {
            break;
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_s_tables_refer_to_those_that_it_says() {
        let references = of_schema(
            "CREATE TABLE IF NOT EXISTS dim_a (id integer PRIMARY KEY); -- REFERENCES nothing
             CREATE TABLE public.\"Fact\" (a integer REFERENCES dim_a, b integer, FOREIGN KEY (b) REFERENCES public.DIM_B (id));
             ALTER TABLE ONLY fact_c ADD CONSTRAINT k FOREIGN KEY (a) REFERENCES dim_a (id) DEFERRABLE;
             CREATE VIEW v AS SELECT 'REFERENCES dim_z'",
        );
        let expected = [("Fact", vec!["dim_a", "dim_b"]), ("fact_c", vec!["dim_a"])];
        let expected =
            expected.map(|(table, others)| (table.to_owned(), others.into_iter().map(str::to_owned).collect()));
        assert_eq!(references, expected.into());
        assert_eq!(of_schema("CREATE TABLE t (a text DEFAULT 'unfinished"), BTreeMap::new());
    }

    fn order(references: &[(&'static str, &[&'static str])]) -> Vec<Vec<&'static str>> {
        let sets = references.iter().map(|(table, others)| (*table, others.iter().copied().collect()));
        groups(&sets.collect())
    }

    #[test]
    fn a_table_comes_after_those_that_it_refers_to() {
        assert_eq!(
            order(&[("a", &["c"]), ("b", &["a"]), ("c", &["c", "elsewhere"]), ("d", &[])]),
            [vec!["c"], vec!["a"], vec!["b"], vec!["d"]]
        );
    }

    #[test]
    fn tables_that_refer_to_each_other_come_together() {
        assert_eq!(
            order(&[("c", &["a"]), ("b", &["a", "d"]), ("a", &["b"]), ("d", &[])]),
            [vec!["d"], vec!["a", "b"], vec!["c"]]
        );
    }
}
