//! Rows out of a database dump: `mysqldump` / `mariadb-dump`, `pg_dump` (plain), and `sqlite3 .dump`.
//!
//! ```text
//!  CREATE TABLE `user` (`id` varchar(64) NOT NULL, ...);          names of the columns, in order
//!  INSERT INTO `user` [(`id`, ...)] VALUES ('a','{}',1), (...);   rows
//!  COPY public."user" (id, extra, ...) FROM stdin;                rows by line, ended by \.
//! ```
//! It is read as a stream, so its size does not matter; one statement, one row and one value are bounded.
//! Only statements about tables that are asked for are taken apart.
use std::{
    collections::{BTreeMap, HashMap},
    io::{self, BufRead},
};

/// Bytes of one statement: several times what MariaDB puts into one.
const STATEMENT_MAX: usize = 256 * 1024 * 1024;
const LINE_MAX: usize = 64 * 1024 * 1024;
const COLUMNS_MAX: usize = 256;

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
            (words.keyword(), words.keyword(), words.keyword());
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
            (words.keyword(), words.keyword(), words.keyword());
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
                if values.len() != columns.len() {
                    return Err(Trouble::Words(format!(
                        "a row of table {table} has {} values for {} columns",
                        values.len(),
                        columns.len()
                    )));
                }
                let row = columns.iter().cloned().zip(values).filter_map(|(c, v)| Some((c, v?))).collect();
                self.dump.tables.entry(table.clone()).or_default().push(Row(row));
            } else {
                *self.dump.others.entry(table.clone()).or_default() += 1;
            }
            if !words.eat(',') {
                break;
            }
        }
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
            let values: Vec<Option<String>> = text.split('\t').map(copied).collect();
            if values.len() != columns.len() {
                return Err(Trouble::Words(format!(
                    "a row of table {table} has {} values for {} columns",
                    values.len(),
                    columns.len()
                )));
            }
            let row = columns.iter().cloned().zip(values).filter_map(|(c, v)| Some((c, v?))).collect();
            self.dump.tables.entry(table.clone()).or_default().push(Row(row));
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

/// One value of COPY's text format.
fn copied(text: &str) -> Option<String> {
    if text == "\\N" {
        return None;
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('r') => out.push('\r'),
            Some('b') => out.push('\u{8}'),
            Some('f') => out.push('\u{c}'),
            Some('v') => out.push('\u{b}'),
            Some(other) => out.push(other),
            None => out.push('\\'),
        }
    }
    Some(out)
}

/// Where a statement ends: outside quotes and comments.
#[derive(Default)]
struct Scan {
    escapes: bool,
    quote: Option<u8>,
    escaped: bool,
    comment: bool,
}

impl Scan {
    /// Goes through further bytes; true if the statement's semicolon is among them.
    fn ends(&mut self, bytes: &[u8]) -> bool {
        for (at, byte) in bytes.iter().enumerate() {
            if self.comment {
                self.comment = !(*byte == b'/' && at > 0 && bytes[at - 1] == b'*');
                continue;
            }
            match self.quote {
                Some(_) if self.escaped => self.escaped = false,
                Some(b'\'') if *byte == b'\\' && self.escapes => self.escaped = true,
                Some(quote) if *byte == quote => self.quote = None,
                Some(_) => {}
                None => match byte {
                    b'\'' | b'"' | b'`' => self.quote = Some(*byte),
                    b'*' if at > 0 && bytes[at - 1] == b'/' => self.comment = true,
                    b';' => return true,
                    _ => {}
                },
            }
        }
        false
    }
}

/// Words of one statement.
#[derive(Clone)]
struct Words<'t> {
    rest: &'t str,
    escapes: bool,
}

impl Words<'_> {
    fn skip_blanks(&mut self) {
        loop {
            self.rest = self.rest.trim_start();
            match self.rest.strip_prefix("/*").and_then(|r| r.find("*/").map(|end| &r[end + 2..])) {
                Some(after) => self.rest = after,
                None => return,
            }
        }
    }

    /// A bare word in capitals.
    fn keyword(&mut self) -> Option<String> {
        self.skip_blanks();
        let end = self.rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!word.is_empty()).then(|| word.to_ascii_uppercase())
    }

    fn peek_keyword(&self, wanted: &str) -> bool {
        self.clone().keyword().as_deref() == Some(wanted)
    }

    fn eat(&mut self, wanted: char) -> bool {
        self.skip_blanks();
        match self.rest.strip_prefix(wanted) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn is_quoted(&self) -> bool {
        self.rest.trim_start().starts_with(['`', '"'])
    }

    fn part(&mut self) -> Result<String, String> {
        self.skip_blanks();
        let Some(quote) = self.rest.chars().next().filter(|c| "`\"'".contains(*c)) else {
            let end = self.rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(self.rest.len());
            let (word, rest) = self.rest.split_at(end);
            self.rest = rest;
            return if word.is_empty() { Err("a name is missing".into()) } else { Ok(word.to_lowercase()) };
        };
        let body = &self.rest[1..];
        let end = body.find(quote).ok_or("a name without end")?;
        self.rest = &body[end + 1..];
        Ok(body[..end].to_owned())
    }

    /// A name without its schema.
    fn name(&mut self) -> Result<String, String> {
        let mut name = self.part()?;
        while self.rest.starts_with('.') {
            self.rest = &self.rest[1..];
            name = self.part()?;
        }
        Ok(name)
    }

    /// `a, b)`
    fn names(&mut self) -> Result<Vec<String>, String> {
        let mut names = vec![self.name()?];
        while self.eat(',') {
            names.push(self.name()?);
            if names.len() > COLUMNS_MAX {
                return Err("too many columns".into());
            }
        }
        if self.eat(')') { Ok(names) } else { Err("a list of columns does not end".into()) }
    }

    /// Passes the rest of a column's definition by; true if another follows.
    fn skip_definition(&mut self) -> Result<bool, String> {
        let mut depth = 0_usize;
        loop {
            self.skip_blanks();
            match self.rest.chars().next() {
                None => return Err("a table's definition does not end".into()),
                Some('\'') => drop(self.value()?),
                Some('`' | '"') => drop(self.part()?),
                Some(c) => {
                    self.rest = &self.rest[c.len_utf8()..];
                    match c {
                        '(' => depth += 1,
                        ')' if depth == 0 => return Ok(false),
                        ')' => depth -= 1,
                        ',' if depth == 0 => return Ok(true),
                        _ => {}
                    }
                }
            }
        }
    }

    /// `1, 'text', NULL)`
    fn values(&mut self) -> Result<Vec<Option<String>>, String> {
        let mut values = vec![self.value()?];
        while self.eat(',') {
            values.push(self.value()?);
            if values.len() > COLUMNS_MAX {
                return Err("too many values".into());
            }
        }
        if self.eat(')') { Ok(values) } else { Err("a row does not end".into()) }
    }

    fn value(&mut self) -> Result<Option<String>, String> {
        self.skip_blanks();
        let mut escapes = self.escapes;
        for prefix in ["_binary ", "_utf8mb4 ", "_utf8 ", "E", "N"] {
            if let Some(quoted) = self.rest.strip_prefix(prefix).filter(|r| r.starts_with('\'')) {
                self.rest = quoted;
                escapes = escapes || prefix == "E";
            }
        }
        if !self.rest.starts_with('\'') {
            let end = self.rest.find([',', ')']).ok_or("a value does not end")?;
            let (word, rest) = self.rest.split_at(end);
            self.rest = rest;
            let word = word.trim();
            return Ok((!word.eq_ignore_ascii_case("null")).then(|| word.to_owned()));
        }
        let body = &self.rest[1..];
        let bytes = body.as_bytes();
        let (mut out, mut from, mut at) = (String::new(), 0, 0);
        while at < bytes.len() {
            match bytes[at] {
                b'\'' if bytes.get(at + 1) == Some(&b'\'') => {
                    out.push_str(&body[from..=at]);
                    (at, from) = (at + 2, at + 2);
                }
                b'\'' => {
                    out.push_str(&body[from..at]);
                    self.rest = &body[at + 1..];
                    return Ok(Some(out));
                }
                b'\\' if escapes && bytes.get(at + 1).is_some_and(u8::is_ascii) => {
                    out.push_str(&body[from..at]);
                    let kept = match bytes[at + 1] {
                        b'n' => '\n',
                        b'r' => '\r',
                        b't' => '\t',
                        b'0' => '\0',
                        b'b' => '\u{8}',
                        b'Z' => '\u{1a}',
                        other => char::from(other),
                    };
                    out.push(kept);
                    (at, from) = (at + 2, at + 2);
                }
                _ => at += 1,
            }
        }
        Err("a text does not end".into())
    }
}

#[cfg(test)]
mod tests;
