//! Rows out of a database dump: `mysqldump` / `mariadb-dump`, `pg_dump` (plain), and `sqlite3 .dump`.
//!
//! ```text
//!  CREATE TABLE `user` (`id` varchar(64) NOT NULL, ...);          names of the columns, in order
//!  INSERT INTO `user` [(`id`, ...)] VALUES ('a','{}',1), (...);   rows
//!  COPY public."user" (id, extra, ...) FROM stdin;                rows by line, ended by \.
//! ```
//! It is read as a stream, so its size does not matter; one statement, one row and one value are bounded.
//! Only statements about tables that are asked for are taken apart.
mod words;

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, BufRead},
};
use words::{COLUMNS_MAX, Scan, Words, copied};

/// Bytes of one statement: several times what MariaDB puts into one.
const STATEMENT_MAX: usize = 256 * 1024 * 1024;
const LINE_MAX: usize = 64 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    #[error("reading the dump: {0}")]
    Io(#[from] io::Error),
    #[error("line {line}: {what}")]
    Broken { line: usize, what: String },
}

/// One row: column -> value. What is NULL is not there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row(BTreeMap<String, String>);

impl Row {
    pub fn text(&self, column: &str) -> Option<&str> {
        self.0.get(column).map(String::as_str)
    }
    pub fn need(&self, column: &str) -> Result<String, String> {
        self.text(column).map(str::to_owned).ok_or_else(|| format!("a row without {column}"))
    }
    /// `1`, `t`, `true`; MariaDB also writes bits as bytes.
    pub fn flag(&self, column: &str) -> Option<bool> {
        match self.text(column)? {
            "1" | "t" | "true" | "TRUE" | "\u{1}" => Some(true),
            _ => Some(false),
        }
    }
    pub fn int(&self, column: &str) -> Option<i64> {
        self.text(column)?.trim().parse().ok()
    }
}

/// The tables of a dump, and how many rows of others were passed by.
#[derive(Debug, Default)]
pub struct Dump {
    pub tables: HashMap<String, Vec<Row>>,
    pub others: BTreeMap<String, usize>,
}

impl Dump {
    pub fn rows(&self, table: &str) -> &[Row] {
        self.tables.get(table).map_or(&[], Vec::as_slice)
    }
}

struct Reader<R> {
    inner: R,
    line: usize,
    columns: HashMap<String, Vec<String>>,
    /// Does a backslash escape in texts? It does in MariaDB's dumps alone.
    escapes: bool,
    dump: Dump,
}

/// What only MariaDB and MySQL write.
const ESCAPING: [&[u8]; 4] = [b"-- MariaDB dump", b"-- MySQL dump", b"INSERT INTO `", b"CREATE TABLE `"];

/// Reads all rows of `wanted`.
pub fn read(inner: impl BufRead, wanted: &[&str]) -> Result<Dump, DumpError> {
    let mut reader = Reader { inner, line: 1, columns: HashMap::new(), escapes: false, dump: Dump::default() };
    while let Some(statement) = reader.statement()? {
        reader.take(&statement, wanted)?;
    }
    Ok(reader.dump)
}

impl<R: BufRead> Reader<R> {
    fn broken<T>(&self, what: impl Into<String>) -> Result<T, DumpError> {
        Err(DumpError::Broken { line: self.line, what: what.into() })
    }

    /// Bytes up to and with a newline; `false` at the end.
    fn next_line(&mut self, into: &mut Vec<u8>) -> Result<bool, DumpError> {
        let before = into.len();
        let mut limited = io::Read::take(&mut self.inner, LINE_MAX as u64 * 4);
        let count = limited.read_until(b'\n', into)?;
        self.line += 1;
        if count > 0 && into.len() - before >= LINE_MAX * 4 {
            return self.broken("a line without end");
        }
        Ok(count > 0)
    }

    /// The next statement without comments, up to its semicolon.
    fn statement(&mut self) -> Result<Option<Vec<u8>>, DumpError> {
        let mut text = Vec::new();
        let mut scan = Scan::default();
        loop {
            let from = text.len();
            if !self.next_line(&mut text)? {
                let rest = text.iter().any(|b| !b.is_ascii_whitespace());
                return if rest && scan.quote.is_some() {
                    self.broken("the dump ends within a text")
                } else {
                    Ok(None)
                };
            }
            if text.len() > STATEMENT_MAX {
                return self.broken("a statement without end");
            }
            let blank = scan.quote.is_none() && text[..from].iter().all(u8::is_ascii_whitespace);
            let line = text[from..].trim_ascii_start();
            self.escapes = self.escapes || (blank && ESCAPING.iter().any(|mark| line.starts_with(mark)));
            scan.escapes = self.escapes;
            // Comments, and psql's own commands, stand on lines of their own.
            if blank && (line.starts_with(b"--") || line.starts_with(b"#") || line.starts_with(b"\\")) {
                text.truncate(from);
                continue;
            }
            if scan.ends(&text[from..]) {
                return Ok(Some(text));
            }
        }
    }

    fn take(&mut self, statement: &[u8], wanted: &[&str]) -> Result<(), DumpError> {
        let text = String::from_utf8_lossy(statement);
        let mut words = Words { rest: &text, escapes: self.escapes };
        match words.keyword().as_deref() {
            Some("CREATE") => self.create(words),
            Some("INSERT") => self.insert(words, wanted),
            Some("COPY") => self.copy(words, wanted),
            _ => return Ok(()),
        }
        .map_err(|error| match error {
            Trouble::Dump(error) => error,
            Trouble::Words(what) => DumpError::Broken { line: self.line, what },
        })
    }

    /// Remembers the names of a table's columns.
    fn create(&mut self, mut words: Words<'_>) -> Result<(), Trouble> {
        if words.keyword().as_deref() != Some("TABLE") {
            return Ok(());
        }
        if words.peek_keyword("IF") {
            (0..3).for_each(|_| drop(words.keyword()));
        }
        let table = words.name()?;
        let mut columns = Vec::new();
        if !words.eat('(') {
            return Ok(());
        }
        loop {
            let keyword = words.clone().keyword().unwrap_or_default();
            let quoted = words.is_quoted();
            let constraint = ["PRIMARY", "KEY", "UNIQUE", "CONSTRAINT", "FOREIGN", "CHECK", "INDEX", "FULLTEXT"];
            if quoted || !constraint.contains(&keyword.as_str()) {
                columns.push(words.name()?);
            }
            if columns.len() > COLUMNS_MAX {
                return Err(Trouble::Words(format!("table {table} has too many columns")));
            }
            // The rest of a column's definition, with commas in parentheses and texts.
            if !words.skip_definition()? {
                break;
            }
        }
        self.columns.insert(table, columns);
        Ok(())
    }

    fn insert(&mut self, mut words: Words<'_>, wanted: &[&str]) -> Result<(), Trouble> {
        while !words.peek_keyword("INTO") {
            // INSERT IGNORE, INSERT OR REPLACE
            if words.keyword().is_none() {
                return Ok(());
            }
        }
        words.keyword();
        let table = words.name()?;
        let columns =
            if words.eat('(') { words.names()? } else { self.columns.get(&table).cloned().unwrap_or_default() };
        if words.peek_keyword("OVERRIDING") {
            (0..3).for_each(|_| drop(words.keyword()));
        }
        if words.keyword().as_deref() != Some("VALUES") {
            return Ok(());
        }
        let keep = wanted.contains(&table.as_str());
        if keep && columns.is_empty() {
            return Err(Trouble::Words(format!("rows of table {table} without names of columns")));
        }
        while words.eat('(') {
            let values = words.values()?;
            if keep {
                self.keep(&table, &columns, values)?;
            } else {
                *self.dump.others.entry(table.clone()).or_default() += 1;
            }
            if !words.eat(',') {
                break;
            }
        }
        Ok(())
    }

    /// One row of a table that is wanted; what is NULL is left out.
    fn keep(&mut self, table: &str, columns: &[String], values: Vec<Option<String>>) -> Result<(), Trouble> {
        if values.len() != columns.len() {
            return Err(Trouble::Words(format!(
                "a row of table {table} has {} values for {} columns",
                values.len(),
                columns.len()
            )));
        }
        let row = columns.iter().cloned().zip(values).filter_map(|(c, v)| Some((c, v?))).collect();
        self.dump.tables.entry(table.to_owned()).or_default().push(Row(row));
        Ok(())
    }

    fn copy(&mut self, mut words: Words<'_>, wanted: &[&str]) -> Result<(), Trouble> {
        let table = words.name()?;
        let columns =
            if words.eat('(') { words.names()? } else { self.columns.get(&table).cloned().unwrap_or_default() };
        let from_stdin = words.keyword().as_deref() == Some("FROM") && words.keyword().as_deref() == Some("STDIN");
        if !from_stdin {
            return Ok(());
        }
        let keep = wanted.contains(&table.as_str());
        let mut line = Vec::new();
        loop {
            line.clear();
            if !self.next_line(&mut line).map_err(Trouble::Dump)? {
                return Err(Trouble::Words(format!("the rows of table {table} do not end")));
            }
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end_matches(['\n', '\r']);
            if text == "\\." {
                return Ok(());
            }
            if !keep {
                *self.dump.others.entry(table.clone()).or_default() += 1;
                continue;
            }
            self.keep(&table, &columns, text.split('\t').map(copied).collect())?;
        }
    }
}

enum Trouble {
    Dump(DumpError),
    Words(String),
}

impl From<String> for Trouble {
    fn from(what: String) -> Self {
        Trouble::Words(what)
    }
}

#[cfg(test)]
mod tests;
