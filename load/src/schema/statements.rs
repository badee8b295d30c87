//! `schema.sql`, split into statements as psql splits a file, so that each can be sent by itself.
//!
//! Sent alone through the extended protocol, a statement that was split wrongly fails at the server and cannot smuggle in a
//! second one. What would end the transaction, outlive it in the session, or is meant for psql is refused by its line
//! before anything is sent. The lexer assumes `standard_conforming_strings = on`.
//! <https://www.postgresql.org/docs/current/sql-syntax-lexical.html>

/// What is done in one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Statements that share a transaction.
    Together(Vec<Statement>),
    /// A statement that must not be inside a transaction, or whose effect is to be committed before the next.
    Alone(Statement),
}

/// A statement of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Statement {
    /// The line on which it begins, from 1.
    pub(crate) line: usize,
    /// Its text from its first word on, without the semicolon.
    pub(crate) text: String,
}

/// Why the file is not sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The line of what is refused, from 1.
    pub(crate) line: usize,
    /// The first words of the statement, in capitals; no value is among them.
    pub(crate) statement: String,
    /// What is wrong with it.
    pub(crate) why: &'static str,
}

/// A part of a statement, of what matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// A word outside quotes, in capitals.
    Word(String),
    Dot,
    Open,
    Close,
    Semicolon,
    Backslash,
    /// A text, a quoted name, a number, an operator.
    Other,
}

/// A statement, and its tokens outside parentheses.
struct Parsed {
    statement: Statement,
    tokens: Vec<Token>,
}

/// Where the lexer stands.
struct Lexer<'a> {
    sql: &'a str,
    at: usize,
}

/// What begins at `at` is wrong.
struct Fault {
    at: usize,
    why: &'static str,
}

/// How many words of a statement a refusal shows.
const SHOWN: usize = 3;

const ENDS_TRANSACTION: &str = "it would begin or end a transaction, and load has one open. Leave it out";
const OUTLIVES_TRANSACTION: &str = "it would change the session beyond this file. Leave it out";
const SETS_SESSION: &str = "it would change the session beyond this file. Write SET LOCAL, or leave it out";
const COPIES: &str = "it moves data to or from the client, and there is none. Write INSERT";
const OF_PSQL: &str = "a command of psql is not SQL. Leave it out";

/// The steps in which `schema.sql` is applied, in order. A SET LOCAL lasts to the end of its step.
pub(crate) fn steps(sql: &str) -> Result<Vec<Step>, Refusal> {
    let mut lexer = Lexer { sql: sql.strip_prefix('\u{feff}').unwrap_or(sql), at: 0 };
    let mut steps = Vec::new();
    while let Some(Parsed { statement, tokens }) = lexer.statement()? {
        if let Some(why) = refused(&tokens) {
            return Err(Refusal { line: statement.line, statement: first_words(&tokens), why });
        }
        if stands_alone(&tokens) {
            steps.push(Step::Alone(statement));
        } else if let Some(Step::Together(together)) = steps.last_mut() {
            together.push(statement);
        } else {
            steps.push(Step::Together(vec![statement]));
        }
    }
    Ok(steps)
}

/// Why a statement of these words is not sent.
fn refused(tokens: &[Token]) -> Option<&'static str> {
    let [first, second, third] = [0, 1, 2].map(|place| word(tokens, place));
    match (first, second) {
        ("BEGIN" | "START" | "COMMIT" | "END" | "ROLLBACK" | "ABORT" | "SAVEPOINT" | "RELEASE", _)
        | ("PREPARE", "TRANSACTION")
        | ("SET", "TRANSACTION") => Some(ENDS_TRANSACTION),
        ("SET", "CONSTRAINTS") => None,
        ("SET", "LOCAL") if third != "TRANSACTION" && !has(tokens, &["SESSION", "CHARACTERISTICS"]) => None,
        ("SET", _) => Some(SETS_SESSION),
        ("RESET" | "DISCARD" | "LISTEN" | "UNLISTEN" | "PREPARE" | "DEALLOCATE" | "EXECUTE" | "LOAD", _)
        | ("DECLARE" | "FETCH" | "MOVE" | "CLOSE", _) => Some(OUTLIVES_TRANSACTION),
        ("COPY", _) if has(tokens, &["FROM", "STDIN"]) || has(tokens, &["TO", "STDOUT"]) => Some(COPIES),
        _ => None,
    }
}

/// Whether a statement of these words is to be sent outside a transaction.
fn stands_alone(tokens: &[Token]) -> bool {
    let [first, second, third, fourth] = [0, 1, 2, 3].map(|place| word(tokens, place));
    match (first, second) {
        ("VACUUM", _) | ("ALTER", "SYSTEM") => true,
        ("CREATE" | "DROP", "DATABASE" | "TABLESPACE" | "SUBSCRIPTION") => true,
        ("ALTER", "DATABASE") => has(tokens, &["SET", "TABLESPACE"]),
        ("ALTER", "SUBSCRIPTION") => !has(tokens, &["OWNER", "TO"]) && !has(tokens, &["RENAME", "TO"]),
        // The new label can be used only after a commit.
        ("ALTER", "TYPE") => has(tokens, &["ADD", "VALUE"]),
        ("CREATE", "INDEX") => third == "CONCURRENTLY",
        ("CREATE", "UNIQUE") => third == "INDEX" && fourth == "CONCURRENTLY",
        ("DROP", "INDEX") => third == "CONCURRENTLY",
        ("ALTER", "TABLE") => has(tokens, &["DETACH", "PARTITION"]) && has(tokens, &["CONCURRENTLY"]),
        // Of a schema, a database, or a table with partitions it commits after each index.
        ("REINDEX", _) => true,
        // Without a table, or of one with partitions.
        ("CLUSTER", _) => true,
        _ => false,
    }
}

/// The word at a place, or nothing.
fn word(tokens: &[Token], place: usize) -> &str {
    match tokens.get(place) {
        Some(Token::Word(word)) => word,
        _ => "",
    }
}

/// Whether these words stand beside each other.
fn has(tokens: &[Token], words: &[&str]) -> bool {
    tokens.windows(words.len()).any(|found| (0..words.len()).all(|place| word(found, place) == words[place]))
}

fn first_words(tokens: &[Token]) -> String {
    let words = tokens.iter().map_while(|token| match token {
        Token::Word(word) => Some(word.as_str()),
        _ => None,
    });
    words.take(SHOWN).collect::<Vec<_>>().join(" ")
}

impl Lexer<'_> {
    /// The next statement, if there is one.
    fn statement(&mut self) -> Result<Option<Parsed>, Refusal> {
        let mut begin = None;
        let mut tokens: Vec<Token> = Vec::new();
        // Where a parenthesis and a routine's BEGIN ATOMIC are open: their semicolons end no statement.
        let mut parentheses: Vec<usize> = Vec::new();
        let mut blocks = 0;
        let end = loop {
            let found = self.token();
            let refuse = |at, why| Refusal { line: self.line(at), statement: first_words(&tokens), why };
            let found = found.map_err(|Fault { at, why }| refuse(at, why))?;
            let Some((at, token)) = found else {
                let Some(begin) = begin else { return Ok(None) };
                if let Some(open) = parentheses.first() {
                    return Err(refuse(*open, "a parenthesis is not closed"));
                }
                if blocks > 0 {
                    return Err(refuse(begin, "BEGIN ATOMIC has no END"));
                }
                break self.sql.len();
            };
            match token {
                Token::Backslash => {
                    let command = self.sql[at..].split_whitespace().next().unwrap_or_default();
                    return Err(Refusal { line: self.line(at), statement: command.into(), why: OF_PSQL });
                }
                Token::Semicolon if parentheses.is_empty() && blocks == 0 => {
                    if begin.is_some() {
                        break at;
                    }
                    continue;
                }
                Token::Open => parentheses.push(at),
                Token::Close => drop(parentheses.pop()),
                _ => {}
            }
            begin.get_or_insert(at);
            if parentheses.is_empty() {
                blocks = open_blocks(blocks, &tokens, &token);
                tokens.push(token);
            }
        };
        let Some(begin) = begin else { return Ok(None) };
        let text = self.sql[begin..end].trim_end().to_owned();
        Ok(Some(Parsed { statement: Statement { line: self.line(begin), text }, tokens }))
    }

    fn line(&self, at: usize) -> usize {
        1 + self.sql[..at].bytes().filter(|byte| *byte == b'\n').count()
    }

    /// The next token and where it begins.
    fn token(&mut self) -> Result<Option<(usize, Token)>, Fault> {
        loop {
            let (at, rest) = (self.at, &self.sql.as_bytes()[self.at..]);
            let Some(first) = rest.first() else { return Ok(None) };
            let token = match first {
                b' ' | b'\t' | b'\n' | b'\r' | b'\x0b' | b'\x0c' => {
                    self.at += 1;
                    continue;
                }
                b'-' if rest.starts_with(b"--") => {
                    self.skip(|byte| !matches!(byte, b'\n' | b'\r'));
                    continue;
                }
                b'/' if rest.starts_with(b"/*") => {
                    self.comment()?;
                    continue;
                }
                b'\'' => {
                    self.quoted(b'\'', false)?;
                    Token::Other
                }
                b'"' => {
                    self.quoted(b'"', false)?;
                    Token::Other
                }
                b'$' => {
                    self.dollar_quoted()?;
                    Token::Other
                }
                b'0'..=b'9' => {
                    // With the letters of 0x1F and 1e5.
                    self.skip(|byte| is_of_name(byte) && byte != b'$' || byte == b'.');
                    Token::Other
                }
                byte if is_of_name(*byte) => {
                    self.skip(is_of_name);
                    let word = self.sql[at..self.at].to_ascii_uppercase();
                    if word == "E" && self.sql[self.at..].starts_with('\'') {
                        self.quoted(b'\'', true)?;
                        Token::Other
                    } else {
                        Token::Word(word)
                    }
                }
                byte => {
                    self.at += 1;
                    match byte {
                        b'.' => Token::Dot,
                        b'(' => Token::Open,
                        b')' => Token::Close,
                        b';' => Token::Semicolon,
                        b'\\' => Token::Backslash,
                        _ => Token::Other,
                    }
                }
            };
            return Ok(Some((at, token)));
        }
    }

    fn skip(&mut self, passes: impl Fn(u8) -> bool) {
        self.at += self.sql.as_bytes()[self.at..].iter().take_while(|byte| passes(**byte)).count();
    }

    /// Passes a comment, in which others may stand.
    fn comment(&mut self) -> Result<(), Fault> {
        let (begin, bytes) = (self.at, self.sql.as_bytes());
        let mut depth = 0;
        loop {
            match bytes.get(self.at..self.at + 2) {
                Some(b"/*") => (depth, self.at) = (depth + 1, self.at + 2),
                Some(b"*/") => (depth, self.at) = (depth - 1, self.at + 2),
                Some(_) => self.at += 1,
                None => return Err(Fault { at: begin, why: "a comment is not closed" }),
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }

    /// Passes a text or a name in quotes, in which a quote is doubled, or in an E'' text escaped.
    fn quoted(&mut self, quote: u8, has_escapes: bool) -> Result<(), Fault> {
        let (begin, bytes) = (self.at, self.sql.as_bytes());
        self.at += 1;
        loop {
            match bytes.get(self.at) {
                None => return Err(Fault { at: begin, why: "a quote is not closed" }),
                Some(b'\\') if has_escapes => self.at += 2,
                Some(byte) if *byte == quote => {
                    self.at += 1;
                    if bytes.get(self.at) == Some(&quote) {
                        self.at += 1;
                    } else if let Some(next) = has_escapes.then(|| self.continuation()).flatten() {
                        self.at = next;
                    } else {
                        return Ok(());
                    }
                }
                Some(_) => self.at += 1,
            }
        }
    }

    /// Where an E'' text goes on, after the quote that opens its next piece: pieces on several lines are one text, with
    /// escapes in all of them.
    fn continuation(&self) -> Option<usize> {
        let mut ahead = Lexer { sql: self.sql, at: self.at };
        loop {
            ahead.skip(|byte| byte.is_ascii_whitespace() || byte == b'\x0b');
            if !ahead.sql[ahead.at..].starts_with("--") {
                break;
            }
            ahead.skip(|byte| !matches!(byte, b'\n' | b'\r'));
        }
        let is_on_next_line = self.sql[self.at..ahead.at].contains(['\n', '\r']);
        (is_on_next_line && self.sql[ahead.at..].starts_with('\'')).then_some(ahead.at + 1)
    }

    /// Passes a text between `$tag$` and `$tag$`, or the `$` of a parameter.
    fn dollar_quoted(&mut self) -> Result<(), Fault> {
        let (begin, bytes) = (self.at, self.sql.as_bytes());
        self.at += 1;
        let tag = bytes[self.at..].iter().take_while(|byte| is_of_name(**byte) && **byte != b'$').count();
        let text = self.at + tag + 1;
        if bytes.get(self.at).is_some_and(u8::is_ascii_digit) || bytes.get(text - 1) != Some(&b'$') {
            return Ok(());
        }
        let delimiter = &self.sql[begin..text];
        let Some(length) = self.sql[text..].find(delimiter) else {
            return Err(Fault { at: begin, why: "a dollar quote is not closed" });
        };
        self.at = text + length + delimiter.len();
        Ok(())
    }
}

/// How many blocks are open after a token: BEGIN ATOMIC of a routine, and CASE in it.
fn open_blocks(blocks: u32, before: &[Token], token: &Token) -> u32 {
    let Token::Word(found) = token else { return blocks };
    let previous = before.last();
    let is_after = |word: &str| matches!(previous, Some(Token::Word(previous)) if previous == word);
    // As in `x.end` and `1 AS end`.
    let is_name = previous == Some(&Token::Dot) || is_after("AS");
    let is_routine =
        word(before, 0) == "CREATE" && (1..=3).any(|at| matches!(word(before, at), "FUNCTION" | "PROCEDURE"));
    match found.as_str() {
        "ATOMIC" if blocks == 0 && is_routine && is_after("BEGIN") => 1,
        "CASE" if blocks > 0 && !is_name => blocks + 1,
        "END" if blocks > 0 && !is_name => blocks - 1,
        _ => blocks,
    }
}

/// Whether a name may have this byte, other than as its first.
fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || !byte.is_ascii()
}

#[cfg(test)]
mod tests {
    use blackwater_local::postgres::Postgres;
    use tokio_postgres::NoTls;

    use super::*;

    /// Each statement with its line, and an exclamation mark before one that stands alone.
    fn split(sql: &str) -> Vec<String> {
        let mut found = Vec::new();
        for step in steps(sql).unwrap_or_else(|refusal| panic!("{sql}: {refusal:?}")) {
            match step {
                Step::Together(together) => {
                    found.extend(together.into_iter().map(|Statement { line, text }| format!("{line}: {text}")));
                }
                Step::Alone(Statement { line, text }) => found.push(format!("!{line}: {text}")),
            }
        }
        found
    }

    #[test]
    fn a_file_is_split_as_psql_splits_it() {
        let cases: [(&str, &[&str]); 47] = [
            ("", &[]),
            ("\u{feff}SELECT 1", &["1: SELECT 1"]),
            (" ;; \n -- nothing\n /* at all */ ;", &[]),
            ("SELECT 1;SELECT 2\n;\n\n  SELECT 3  ", &["1: SELECT 1", "1: SELECT 2", "4: SELECT 3"]),
            ("-- a; b\nSELECT 1; -- c; d\nSELECT 2", &["2: SELECT 1", "3: SELECT 2"]),
            ("SELECT 1 -- a\r, 2; SELECT 3", &["1: SELECT 1 -- a\r, 2", "1: SELECT 3"]),
            ("/* a; /* b; */ c; */ SELECT 1; SELECT 2", &["1: SELECT 1", "1: SELECT 2"]),
            ("SELECT 1 */* a; */ 2; SELECT 3", &["1: SELECT 1 */* a; */ 2", "1: SELECT 3"]),
            ("SELECT 1 /**/; SELECT /***/ 2", &["1: SELECT 1 /**/", "1: SELECT /***/ 2"]),
            ("SELECT '-- a;', '/* b'; SELECT 2", &["1: SELECT '-- a;', '/* b'", "1: SELECT 2"]),
            ("SELECT 'it''s; ', ''; SELECT 2", &["1: SELECT 'it''s; ', ''", "1: SELECT 2"]),
            ("SELECT 'a\\'; SELECT 2", &["1: SELECT 'a\\'", "1: SELECT 2"]),
            ("SELECT E'a\\'; ', e'\\\\'; SELECT 2", &["1: SELECT E'a\\'; ', e'\\\\'", "1: SELECT 2"]),
            ("SELECT 1 AS e, 'a\\'; SELECT 2", &["1: SELECT 1 AS e, 'a\\'", "1: SELECT 2"]),
            ("SELECT type'a\\'; SELECT 2", &["1: SELECT type'a\\'", "1: SELECT 2"]),
            ("SELECT E'a'\n  '\\'; b'; SELECT 2", &["1: SELECT E'a'\n  '\\'; b'", "2: SELECT 2"]),
            ("SELECT E'a' -- b'\n'\\'; c'; SELECT 2", &["1: SELECT E'a' -- b'\n'\\'; c'", "2: SELECT 2"]),
            ("SELECT E'a' 'b\\'; SELECT 2", &["1: SELECT E'a' 'b\\'", "1: SELECT 2"]),
            (
                "SELECT U&'\\0041;\\', B'1', X'F', N'n;'; SELECT 2",
                &["1: SELECT U&'\\0041;\\', B'1', X'F', N'n;'", "1: SELECT 2"],
            ),
            ("SELECT \"a;\"\"b'\" FROM \"c--\"; SELECT 2", &["1: SELECT \"a;\"\"b'\" FROM \"c--\"", "1: SELECT 2"]),
            ("SELECT $$a; 'b$$; SELECT 2", &["1: SELECT $$a; 'b$$", "1: SELECT 2"]),
            ("SELECT $a$ $$; $b$; $A$; $a$; SELECT 2", &["1: SELECT $a$ $$; $b$; $A$; $a$", "1: SELECT 2"]),
            ("SELECT $é_1$;$é_1$; SELECT 2", &["1: SELECT $é_1$;$é_1$", "1: SELECT 2"]),
            ("SELECT a$b$; SELECT c$b$", &["1: SELECT a$b$", "1: SELECT c$b$"]),
            ("SELECT 1$a$;$a$; SELECT 2", &["1: SELECT 1$a$;$a$", "1: SELECT 2"]),
            ("PREPAREX $1; SELECT $1$2; SELECT $", &["1: PREPAREX $1", "1: SELECT $1$2", "1: SELECT $"]),
            ("SELECT é$$; SELECT ü'$$'", &["1: SELECT é$$", "1: SELECT ü'$$'"]),
            ("SELECT 0x1F, 1e5, 1.5e'a\\'; SELECT 2", &["1: SELECT 0x1F, 1e5, 1.5e'a\\'", "1: SELECT 2"]),
            (
                "CREATE RULE r AS ON INSERT TO t DO ALSO (SELECT 1; SELECT (2);); SELECT 3",
                &["1: CREATE RULE r AS ON INSERT TO t DO ALSO (SELECT 1; SELECT (2);)", "1: SELECT 3"],
            ),
            ("SELECT ')'; SELECT 1); SELECT 2", &["1: SELECT ')'", "1: SELECT 1)", "1: SELECT 2"]),
            (
                "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END; SELECT 3",
                &["1: CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END", "1: SELECT 3"],
            ),
            (
                "create or replace procedure p()\nbegin /* a */ atomic\nselect case when true then case 1 when 1 then 2 end \
              end as end; select t.end, (case 1 when 1 then 2 end) from t; end; SELECT 2",
                &[
                    "1: create or replace procedure p()\nbegin /* a */ atomic\nselect case when true then case 1 when 1 \
                 then 2 end end as end; select t.end, (case 1 when 1 then 2 end) from t; end",
                    "3: SELECT 2",
                ],
            ),
            (
                "CREATE FUNCTION begin() RETURNS int LANGUAGE sql AS 'SELECT 1'; SELECT 2",
                &["1: CREATE FUNCTION begin() RETURNS int LANGUAGE sql AS 'SELECT 1'", "1: SELECT 2"],
            ),
            (
                "CREATE TABLE t (atomic int); SELECT 1 AS begin, 2 AS atomic; SELECT 2",
                &["1: CREATE TABLE t (atomic int)", "1: SELECT 1 AS begin, 2 AS atomic", "1: SELECT 2"],
            ),
            ("DO $$ BEGIN PERFORM 1; END $$; SELECT 2", &["1: DO $$ BEGIN PERFORM 1; END $$", "1: SELECT 2"]),
            (
                "SET LOCAL lock_timeout = 1; set constraints all deferred; SELECT 2",
                &["1: SET LOCAL lock_timeout = 1", "1: set constraints all deferred", "1: SELECT 2"],
            ),
            (
                "COPY t FROM '/stdin'; COPY (SELECT 1 FROM stdin) TO PROGRAM 'cat'; COPY \"from\" TO 'stdout'",
                &[
                    "1: COPY t FROM '/stdin'",
                    "1: COPY (SELECT 1 FROM stdin) TO PROGRAM 'cat'",
                    "1: COPY \"from\" TO 'stdout'",
                ],
            ),
            (
                "ALTER TYPE a.\"B\" ADD VALUE IF NOT EXISTS 'x'; ALTER TYPE t ADD ATTRIBUTE value int",
                &["!1: ALTER TYPE a.\"B\" ADD VALUE IF NOT EXISTS 'x'", "1: ALTER TYPE t ADD ATTRIBUTE value int"],
            ),
            (
                "ALTER TYPE add.value RENAME TO b; ALTER TYPE t RENAME ATTRIBUTE add TO value",
                &["1: ALTER TYPE add.value RENAME TO b", "1: ALTER TYPE t RENAME ATTRIBUTE add TO value"],
            ),
            (
                "CREATE /* a */ UNIQUE INDEX\nCONCURRENTLY i ON t (a); create index concurrently on t (a); DROP INDEX CONCURRENTLY i",
                &[
                    "!1: CREATE /* a */ UNIQUE INDEX\nCONCURRENTLY i ON t (a)",
                    "!2: create index concurrently on t (a)",
                    "!2: DROP INDEX CONCURRENTLY i",
                ],
            ),
            (
                "CREATE INDEX ON concurrently (a); DROP INDEX \"concurrently\"",
                &["1: CREATE INDEX ON concurrently (a)", "1: DROP INDEX \"concurrently\""],
            ),
            (
                "REINDEX (CONCURRENTLY) TABLE t; REINDEX TABLE CONCURRENTLY t; VACUUM (ANALYZE) t; ANALYZE t",
                &[
                    "!1: REINDEX (CONCURRENTLY) TABLE t",
                    "!1: REINDEX TABLE CONCURRENTLY t",
                    "!1: VACUUM (ANALYZE) t",
                    "1: ANALYZE t",
                ],
            ),
            (
                "REFRESH MATERIALIZED VIEW CONCURRENTLY v; ALTER SYSTEM SET work_mem = '1MB'",
                &["1: REFRESH MATERIALIZED VIEW CONCURRENTLY v", "!1: ALTER SYSTEM SET work_mem = '1MB'"],
            ),
            (
                "ALTER TABLE t DETACH PARTITION p CONCURRENTLY; ALTER TABLE t DETACH PARTITION p",
                &["!1: ALTER TABLE t DETACH PARTITION p CONCURRENTLY", "1: ALTER TABLE t DETACH PARTITION p"],
            ),
            (
                "CREATE DATABASE d; ALTER DATABASE d SET TABLESPACE s; ALTER DATABASE d SET work_mem = 1; DROP DATABASE d",
                &[
                    "!1: CREATE DATABASE d",
                    "!1: ALTER DATABASE d SET TABLESPACE s",
                    "1: ALTER DATABASE d SET work_mem = 1",
                    "!1: DROP DATABASE d",
                ],
            ),
            (
                "CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p; ALTER SUBSCRIPTION s OWNER TO o; DROP SUBSCRIPTION s",
                &[
                    "!1: CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p",
                    "1: ALTER SUBSCRIPTION s OWNER TO o",
                    "!1: DROP SUBSCRIPTION s",
                ],
            ),
            (
                "CREATE SCHEMA s CREATE TABLE t (a int) CREATE VIEW v AS SELECT 1; SELECT (1, '(', \"(\", $$($$, /* ( */ 2); SELECT 2",
                &[
                    "1: CREATE SCHEMA s CREATE TABLE t (a int) CREATE VIEW v AS SELECT 1",
                    "1: SELECT (1, '(', \"(\", $$($$, /* ( */ 2)",
                    "1: SELECT 2",
                ],
            ),
        ];
        for (sql, expected) in cases {
            assert_eq!(split(sql), expected, "{sql}");
        }
    }

    #[test]
    fn a_statement_that_stands_alone_ends_the_transaction_before_it() {
        let sql = "SELECT 1; SELECT 2; VACUUM; VACUUM t; SELECT 3";
        let statement = |text: &str| Statement { line: 1, text: text.into() };
        let expected = [
            Step::Together(vec![statement("SELECT 1"), statement("SELECT 2")]),
            Step::Alone(statement("VACUUM")),
            Step::Alone(statement("VACUUM t")),
            Step::Together(vec![statement("SELECT 3")]),
        ];
        assert_eq!(steps(sql).unwrap(), expected);
    }

    #[test]
    fn what_must_not_be_sent_is_refused_by_its_line() {
        for (sql, statement, why) in [
            ("BEGIN", "BEGIN", ENDS_TRANSACTION),
            ("/* a */ Start /* b */ transaction", "START TRANSACTION", ENDS_TRANSACTION),
            ("commit;", "COMMIT", ENDS_TRANSACTION),
            ("COMMIT PREPARED 'a'", "COMMIT PREPARED", ENDS_TRANSACTION),
            ("END WORK", "END WORK", ENDS_TRANSACTION),
            ("ROLLBACK TO a", "ROLLBACK TO A", ENDS_TRANSACTION),
            ("ABORT", "ABORT", ENDS_TRANSACTION),
            ("SAVEPOINT a", "SAVEPOINT A", ENDS_TRANSACTION),
            ("RELEASE a", "RELEASE A", ENDS_TRANSACTION),
            ("PREPARE TRANSACTION 'a'", "PREPARE TRANSACTION", ENDS_TRANSACTION),
            ("SET TRANSACTION READ ONLY", "SET TRANSACTION READ", ENDS_TRANSACTION),
            ("SET LOCAL TRANSACTION READ ONLY", "SET LOCAL TRANSACTION", SETS_SESSION),
            ("SET LOCAL SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "SET LOCAL SESSION", SETS_SESSION),
            ("SET search_path = 'secret'", "SET SEARCH_PATH", SETS_SESSION),
            ("SET ROLE a", "SET ROLE A", SETS_SESSION),
            ("SET SESSION AUTHORIZATION a", "SET SESSION AUTHORIZATION", SETS_SESSION),
            ("RESET ALL", "RESET ALL", OUTLIVES_TRANSACTION),
            ("DISCARD ALL", "DISCARD ALL", OUTLIVES_TRANSACTION),
            ("LISTEN a", "LISTEN A", OUTLIVES_TRANSACTION),
            ("PREPARE a AS SELECT 1", "PREPARE A AS", OUTLIVES_TRANSACTION),
            ("DECLARE c CURSOR FOR SELECT 1", "DECLARE C CURSOR", OUTLIVES_TRANSACTION),
            ("COPY a FROM STDIN;\n1\tit's\n\\.\n", "COPY A FROM", COPIES),
            ("COPY a (b) FROM /* c */ stdin WITH (FORMAT csv)", "COPY A", COPIES),
            ("COPY (SELECT 1) TO STDOUT", "COPY", COPIES),
            ("\\connect secret", "\\connect", OF_PSQL),
            ("SELECT 1 \\gset", "\\gset", OF_PSQL),
            ("SELECT 'a'';", "SELECT", "a quote is not closed"),
            ("SELECT E'a\\'", "SELECT", "a quote is not closed"),
            ("SELECT E'\\", "SELECT", "a quote is not closed"),
            ("ALTER TABLE \"a", "ALTER TABLE", "a quote is not closed"),
            ("/* /* */", "", "a comment is not closed"),
            ("SELECT /*", "SELECT", "a comment is not closed"),
            ("DO $a$ $$ $A$", "DO", "a dollar quote is not closed"),
            ("CREATE TABLE t (a int; SELECT 1;", "CREATE TABLE T", "a parenthesis is not closed"),
            ("CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1;", "CREATE FUNCTION F", "BEGIN ATOMIC has no END"),
        ] {
            let refusal = steps(&format!("SELECT 1;\n\n{sql}")).expect_err(sql);
            assert_eq!(refusal, Refusal { line: 3, statement: statement.into(), why }, "{sql}");
        }
        let open = steps("CREATE TABLE t (\n a int DEFAULT 'x\n);").unwrap_err();
        assert_eq!((open.line, open.statement.as_str()), (2, "CREATE TABLE T"), "the line of the quote");
    }

    /// Statements that a splitter could take apart, each of which leaves something to see.
    const NASTY: &str = r#"
        CREATE TABLE seen (n serial, what text);
        INSERT INTO seen (what) VALUES ('a;b'), (E'it\'s; c'), ('back\'), (U&'\0041;'), ('d -- e'), ('/* f'); -- ; g'
        INSERT INTO seen (what) VALUES (E'h' -- '
            '\'; i'), ($$j; 'k$$), ($l$ $$; $m$ ;$l$), (CASE WHEN 2 */* ; */ 1 = 2 THEN 'n' END);
        CREATE TABLE "o;""p" (a$b$ int, "q--" text DEFAULT ';');
        INSERT INTO "o;""p" VALUES (1); INSERT INTO seen (what) SELECT a$b$ || "q--" FROM "o;""p";
        /* r; /* s; */ t; */ CREATE FUNCTION doubled(v integer) RETURNS integer LANGUAGE sql
        BEGIN ATOMIC
            INSERT INTO seen (what) VALUES ('u;');
            SELECT CASE WHEN v > 0 THEN v * 2 ELSE (CASE v WHEN 0 THEN 0 END) END;
        END;
        INSERT INTO seen (what) SELECT 'v' || doubled(3);
        DO $do$ BEGIN PERFORM $$;$$; INSERT INTO seen (what) VALUES ('w;'); END $do$;
        CREATE TABLE x (v int);
        CREATE RULE logged AS ON INSERT TO x DO ALSO (INSERT INTO seen (what) VALUES ('y;'); INSERT INTO seen (what) SELECT NEW.v);
        INSERT INTO x VALUES (7);
        CREATE TYPE mood AS ENUM ('sad');
        ALTER TYPE mood ADD VALUE IF NOT EXISTS 'ok;';
        CREATE TABLE felt (m mood DEFAULT 'ok;');
        INSERT INTO felt DEFAULT VALUES; INSERT INTO seen (what) SELECT m FROM felt;
        CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS seen_n ON seen (n);
        COMMENT ON TABLE seen IS 'z;
            ''1''';;
        INSERT INTO seen (what) SELECT obj_description('seen'::regclass);
        VACUUM seen;
        INSERT INTO seen (what) SELECT count(*) FROM pg_indexes WHERE indexname = 'seen_n'"#;

    #[tokio::test(flavor = "multi_thread")]
    async fn each_statement_by_itself_does_what_the_file_does() {
        let server = Postgres::start(&[]).unwrap();
        let (client, connection) = tokio_postgres::connect(&server.url("postgres"), NoTls).await.unwrap();
        tokio::spawn(connection);
        let steps = steps(NASTY).unwrap();
        for step in &steps {
            // `execute` takes one statement: it uses the extended protocol.
            match step {
                Step::Together(together) => {
                    client.batch_execute("BEGIN").await.unwrap();
                    for statement in together {
                        client
                            .execute(&statement.text, &[])
                            .await
                            .unwrap_or_else(|error| panic!("{statement:?}: {error:?}"));
                    }
                    client.batch_execute("COMMIT").await.unwrap();
                }
                Step::Alone(statement) => {
                    client
                        .execute(&statement.text, &[])
                        .await
                        .unwrap_or_else(|error| panic!("{statement:?}: {error:?}"));
                }
            }
        }
        assert_eq!(steps.len(), 7);
        let seen = client.query("SELECT what FROM seen ORDER BY n", &[]).await.unwrap();
        let seen: Vec<String> = seen.iter().map(|row| row.get(0)).collect();
        assert_eq!(seen, SEEN);
    }

    /// What `psql -f` leaves.
    const SEEN: [&str; 19] = [
        "a;b",
        "it's; c",
        "back\\",
        "A;",
        "d -- e",
        "/* f",
        "h'; i",
        "j; 'k",
        " $$; $m$ ;",
        "n",
        "1;",
        "u;",
        "v6",
        "w;",
        "y;",
        "7",
        "ok;",
        "z;\n            '1'",
        "1",
    ];
}
