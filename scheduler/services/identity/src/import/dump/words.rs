//! The words, names and values of one SQL statement, as dumps write them.

/// Columns of one table, and values of one row.
pub(super) const COLUMNS_MAX: usize = 256;

/// One value of COPY's text format.
pub(super) fn copied(text: &str) -> Option<String> {
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
pub(super) struct Scan {
    pub(super) escapes: bool,
    pub(super) quote: Option<u8>,
    escaped: bool,
    comment: bool,
}

impl Scan {
    /// Goes through further bytes; true if the statement's semicolon is among them.
    pub(super) fn ends(&mut self, bytes: &[u8]) -> bool {
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
pub(super) struct Words<'t> {
    pub(super) rest: &'t str,
    pub(super) escapes: bool,
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
    pub(super) fn keyword(&mut self) -> Option<String> {
        self.skip_blanks();
        let end = self.rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!word.is_empty()).then(|| word.to_ascii_uppercase())
    }

    pub(super) fn peek_keyword(&self, wanted: &str) -> bool {
        self.clone().keyword().as_deref() == Some(wanted)
    }

    pub(super) fn eat(&mut self, wanted: char) -> bool {
        self.skip_blanks();
        match self.rest.strip_prefix(wanted) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    pub(super) fn is_quoted(&self) -> bool {
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
    pub(super) fn name(&mut self) -> Result<String, String> {
        let mut name = self.part()?;
        while self.rest.starts_with('.') {
            self.rest = &self.rest[1..];
            name = self.part()?;
        }
        Ok(name)
    }

    /// `a, b)`
    pub(super) fn names(&mut self) -> Result<Vec<String>, String> {
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
    pub(super) fn skip_definition(&mut self) -> Result<bool, String> {
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
    pub(super) fn values(&mut self) -> Result<Vec<Option<String>>, String> {
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
