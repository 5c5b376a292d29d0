//! Texts of mappings: `{0}` filled in, and lists written as Python writes them.
//!
//! A direct value is one text or a list of texts. A list that is filled into a text becomes `['a', 'b']`,
//! and a text that reads as such a list is one again where groups are named: so mappings written for
//! Keystone mean here what they mean there.

/// Values of one requirement of a rule.
pub(super) type Direct = Vec<String>;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Filled<'d> {
    One(std::borrow::Cow<'d, str>),
    Many(&'d [String]),
}

impl std::fmt::Display for Filled<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Filled::One(text) => f.write_str(text),
            Filled::Many(texts) => f.write_str(&list(texts)),
        }
    }
}

/// Would Python show this character as it is?
fn printable(c: char) -> bool {
    let hidden = matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{e000}'..='\u{f8ff}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0001}'..);
    c == ' ' || !(c.is_control() || c.is_whitespace() || hidden)
}

/// A text between quotes.
fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            c if printable(c) => out.push(c),
            c if u32::from(c) < 0x100 => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if u32::from(c) < 0x10000 => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    out.push(quote);
    out
}

/// `['a', 'b']`
pub(super) fn list<T: AsRef<str>>(texts: &[T]) -> String {
    format!("[{}]", texts.iter().map(|t| quoted(t.as_ref())).collect::<Vec<_>>().join(", "))
}

/// A piece of a text with holes.
#[derive(Debug, PartialEq, Eq)]
enum Piece<'t> {
    Plain(&'t str),
    Hole(Hole<'t>),
}

/// `{0}`, `{}`, `{0[1]}`, `{0!r}`
#[derive(Debug, PartialEq, Eq)]
struct Hole<'t> {
    index: usize,
    inside: Vec<usize>,
    quoted: bool,
    text: &'t str,
}

const INDEX_MAX: usize = 10_000;

fn number(text: &str) -> Option<usize> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()))
        .then(|| text.parse().ok())?
        .filter(|n| *n < INDEX_MAX)
}

/// Reads what is between the braces; `next` counts the holes without a number.
fn hole<'t>(text: &'t str, next: &mut Option<usize>, numbered: &mut bool) -> Result<Hole<'t>, String> {
    let wrong = || format!("{{{text}}} is no place for a value: write {{0}}, {{1}}, ...");
    let (name, rest) = text.split_at(text.find(['[', '!', ':', '.']).unwrap_or(text.len()));
    let index = if name.is_empty() {
        let index = next.filter(|_| !*numbered).ok_or_else(wrong)?;
        *next = Some(index + 1);
        index
    } else {
        if next.is_some_and(|n| n > 0) {
            return Err(wrong());
        }
        (*numbered, *next) = (true, None);
        number(name).ok_or_else(wrong)?
    };
    let (mut inside, mut rest) = (Vec::new(), rest);
    while let Some(after) = rest.strip_prefix('[') {
        let (at, tail) = after.split_once(']').ok_or_else(wrong)?;
        inside.push(number(at).ok_or_else(wrong)?);
        rest = tail;
    }
    let quoted = match rest.strip_suffix(':').unwrap_or(rest) {
        "" | "!s" => false,
        "!r" => true,
        _ => return Err(wrong()),
    };
    Ok(Hole { index, inside, quoted, text })
}

fn pieces(text: &str) -> Result<Vec<Piece<'_>>, String> {
    let (mut out, mut rest, mut next, mut numbered) = (Vec::new(), text, Some(0), false);
    while let Some(at) = rest.find(['{', '}']) {
        let (plain, tail) = rest.split_at(at);
        out.push(Piece::Plain(plain));
        if tail.starts_with("{{") || tail.starts_with("}}") {
            out.push(Piece::Plain(&tail[..1]));
            rest = &tail[2..];
            continue;
        }
        let inner = tail.strip_prefix('{').ok_or_else(|| format!("a single }} stands in {text}"))?;
        let (name, after) = inner.split_once('}').ok_or_else(|| format!("a {{ in {text} is not closed"))?;
        out.push(Piece::Hole(hole(name, &mut next, &mut numbered)?));
        rest = after;
    }
    out.push(Piece::Plain(rest));
    Ok(out)
}

/// Can `text` be filled in with `count` direct values?
pub(super) fn check(text: &str, count: usize) -> Result<(), String> {
    for piece in pieces(text)? {
        if let Piece::Hole(hole) = piece
            && hole.index >= count
        {
            return Err(format!("{{{}}} names a value that no requirement of the rule yields", hole.text));
        }
    }
    Ok(())
}

fn value<'d>(direct: &'d [Direct], hole: &Hole<'_>) -> Option<Filled<'d>> {
    let values = direct.get(hole.index)?;
    let mut found = match values.as_slice() {
        [one] => Filled::One(one.as_str().into()),
        many => Filled::Many(many),
    };
    for at in &hole.inside {
        found = match found {
            Filled::One(text) => Filled::One(text.chars().nth(*at)?.to_string().into()),
            Filled::Many(texts) => Filled::One(texts.get(*at)?.as_str().into()),
        };
    }
    Some(found)
}

/// `text` with the direct values in its holes.
pub(super) fn fill(text: &str, direct: &[Direct]) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    for piece in pieces(text)? {
        match piece {
            Piece::Plain(plain) => out.push_str(plain),
            Piece::Hole(hole) => {
                let found =
                    value(direct, &hole).ok_or_else(|| format!("{{{}}} names a value that is not there", hole.text))?;
                match &found {
                    Filled::One(text) if hole.quoted => out.push_str(&quoted(text)),
                    other => out.push_str(&other.to_string()),
                }
            }
        }
    }
    Ok(out)
}

/// The texts of a list as Python writes it; a text that is no such list stands for itself.
pub(super) fn texts(value: &str) -> Vec<String> {
    read_list(value).unwrap_or_else(|| vec![value.to_owned()])
}

fn read_list(value: &str) -> Option<Vec<String>> {
    let mut rest = value.trim_start_matches([' ', '\t']).strip_prefix('[')?.trim_start();
    let mut out = Vec::new();
    loop {
        if let Some(after) = rest.strip_prefix(']') {
            return after.trim().is_empty().then_some(out);
        }
        let (mut text, mut after) = read_text(rest)?;
        // Texts that follow each other are one.
        while let Some((more, tail)) = read_text(after.trim_start()) {
            text.push_str(&more);
            after = tail;
        }
        out.push(text);
        after = after.trim_start();
        rest = match after.strip_prefix(',') {
            Some(tail) => tail.trim_start(),
            None if after.starts_with(']') => after,
            None => return None,
        };
    }
}

/// One text between quotes, and what follows it.
fn read_text(source: &str) -> Option<(String, &str)> {
    let body = source.strip_prefix(['u', 'U']).unwrap_or(source);
    let quote = body.chars().next().filter(|c| ['\'', '"'].contains(c))?;
    let mut out = String::new();
    let mut rest = body[1..].chars();
    while let Some(c) = rest.next() {
        match c {
            c if c == quote => return Some((out, rest.as_str())),
            '\n' | '\r' => return None,
            '\\' => escape(&mut rest, &mut out)?,
            c => out.push(c),
        }
    }
    None
}

/// What follows a backslash.
fn escape(rest: &mut std::str::Chars<'_>, out: &mut String) -> Option<()> {
    let plain = match rest.next()? {
        '\n' => return Some(()),
        c @ ('\\' | '\'' | '"') => c,
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{b}',
        'x' => code(rest, 2)?,
        'u' => code(rest, 4)?,
        'U' => code(rest, 8)?,
        c @ '0'..='7' => octal(rest, c)?,
        'N' => return None,
        other => {
            out.push('\\');
            other
        }
    };
    out.push(plain);
    Some(())
}

fn code(rest: &mut std::str::Chars<'_>, digits: usize) -> Option<char> {
    let text: String = rest.by_ref().take(digits).collect();
    if text.len() != digits || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    char::from_u32(u32::from_str_radix(&text, 16).ok()?)
}

/// Up to three digits.
fn octal(rest: &mut std::str::Chars<'_>, first: char) -> Option<char> {
    let mut number = first.to_digit(8)?;
    for _ in 0..2 {
        let Some(digit) = rest.as_str().chars().next().and_then(|c| c.to_digit(8)) else { break };
        number = number * 8 + digit;
        rest.next();
    }
    char::from_u32(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn direct(values: &[&[&str]]) -> Vec<Direct> {
        values.iter().map(|v| v.iter().map(|t| (*t).to_owned()).collect()).collect()
    }

    #[test]
    fn holes_are_filled_as_python_fills_them() {
        let values = direct(&[&["Bob"], &["a", "b'c"], &[]]);
        for (text, expected) in [
            ("{0}", Some("Bob")),
            ("{0} {0}!", Some("Bob Bob!")),
            ("{} {}", Some("Bob ['a', \"b'c\"]")),
            ("{1}", Some("['a', \"b'c\"]")),
            ("{1[0]}{0[1]}", Some("ao")),
            ("{1[2]}", None),
            ("{2}", Some("[]")),
            ("{0!r}", Some("'Bob'")),
            ("{0:}", Some("Bob")),
            ("{{0}}", Some("{0}")),
            ("{3}", None),
            ("{0", None),
            ("0}", None),
            ("{}{0}", None),
            ("{0}{}", None),
            ("{x}", None),
            ("{0:>9}", None),
            ("{0.x}", None),
        ] {
            assert_eq!(fill(text, &values).ok().as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn lists_are_read_as_python_reads_them() {
        for (text, expected) in [
            ("['a', 'b']", &["a", "b"][..]),
            (" [\"a\",]", &["a"]),
            ("[]", &[]),
            ("[u'a' 'b']", &["ab"]),
            (r"['\x41\u0042\103\q']", &[r"ABC\q"]),
            ("['a'", &["['a'"]),
            ("['a'] b", &["['a'] b"]),
            ("['a' 1]", &["['a' 1]"]),
            ("a", &["a"]),
            ("[,]", &["[,]"]),
        ] {
            assert_eq!(texts(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_list_reads_back(items in proptest::collection::vec(any::<String>(), 0..6)) {
            prop_assert_eq!(texts(&list(&items)), items);
        }

        #[test]
        fn any_text_is_filled_or_refused(text in "[{}0-9a-z!:\\[\\].]{0,40}", values in proptest::collection::vec(proptest::collection::vec(any::<String>(), 0..3), 0..3)) {
            let _ = fill(&text, &values);
            let _ = texts(&text);
        }
    }
}
