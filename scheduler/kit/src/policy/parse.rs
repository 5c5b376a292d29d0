//! From the text of a rule to a [`Check`].
//!
//! `and` binds tighter than `or`, `not` tighter than both; words are separated by white space, brackets
//! may touch words. `@` (or nothing) allows, `!` denies, `kind:match` is a leaf. The older form in files,
//! a list of lists, is an `or` of `and`s.
use super::check::{Check, is_broken_number};
use serde_json::Value;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("the rule is longer than {0} bytes")]
    TooLong(usize),
    #[error("the rule nests deeper than {0} brackets")]
    TooDeep(usize),
    #[error("'{0}' is not of the form kind:match")]
    Leaf(String),
    #[error("expected {expected}, found {found}")]
    Expected { expected: &'static str, found: String },
    #[error("checks of kind {0} ask a web server and are switched off here")]
    Remote(String),
    #[error("a rule is a text or a list of lists of texts")]
    NotText,
}

const LENGTH_MAX: usize = 16 * 1024;
const DEPTH_MAX: usize = 64;

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Open,
    Close,
    And,
    Or,
    Not,
    Leaf(Check),
}

fn tokens(text: &str) -> Result<Vec<Token>, ParseError> {
    let mut out = Vec::new();
    for word in text.split_whitespace() {
        let inner = word.trim_start_matches('(');
        out.extend(std::iter::repeat_n(Token::Open, word.len() - inner.len()));
        let bare = inner.trim_end_matches(')');
        let closing = inner.len() - bare.len();
        match bare.to_ascii_lowercase().as_str() {
            "" => {}
            "and" => out.push(Token::And),
            "or" => out.push(Token::Or),
            "not" => out.push(Token::Not),
            _ => out.push(Token::Leaf(leaf(bare)?)),
        }
        out.extend(std::iter::repeat_n(Token::Close, closing));
    }
    Ok(out)
}

fn leaf(text: &str) -> Result<Check, ParseError> {
    match text {
        "@" => return Ok(Check::True),
        "!" => return Ok(Check::False),
        _ => {}
    }
    let (kind, matched) = text.split_once(':').ok_or_else(|| ParseError::Leaf(text.to_owned()))?;
    match kind {
        "rule" => Ok(Check::Rule(matched.to_owned())),
        "role" => Ok(Check::Role(matched.to_owned())),
        "http" | "https" => Err(ParseError::Remote(kind.to_owned())),
        _ if is_broken_number(kind) => Err(ParseError::Leaf(text.to_owned())),
        _ => Ok(Check::Match { kind: kind.to_owned(), matched: matched.to_owned() }),
    }
}

struct Parser {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
}

impl Parser {
    fn or(&mut self, depth: usize) -> Result<Check, ParseError> {
        let mut parts = vec![self.and(depth)?];
        while self.tokens.next_if_eq(&Token::Or).is_some() {
            parts.push(self.and(depth)?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Check::Or(parts) })
    }

    fn and(&mut self, depth: usize) -> Result<Check, ParseError> {
        let mut parts = vec![self.not(depth)?];
        while self.tokens.next_if_eq(&Token::And).is_some() {
            parts.push(self.not(depth)?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Check::And(parts) })
    }

    fn not(&mut self, depth: usize) -> Result<Check, ParseError> {
        if depth > DEPTH_MAX {
            return Err(ParseError::TooDeep(DEPTH_MAX));
        }
        match self.tokens.next() {
            Some(Token::Not) => Ok(Check::Not(Box::new(self.not(depth + 1)?))),
            Some(Token::Leaf(check)) => Ok(check),
            Some(Token::Open) => {
                let inner = self.or(depth + 1)?;
                match self.tokens.next() {
                    Some(Token::Close) => Ok(inner),
                    other => Err(ParseError::Expected { expected: "')'", found: describe(other.as_ref()) }),
                }
            }
            other => Err(ParseError::Expected { expected: "a check, 'not' or '('", found: describe(other.as_ref()) }),
        }
    }
}

fn describe(token: Option<&Token>) -> String {
    match token {
        None => "the end".to_owned(),
        Some(token) => format!("{token:?}"),
    }
}

/// Reads a rule. The empty text allows.
pub fn parse(text: &str) -> Result<Check, ParseError> {
    if text.len() > LENGTH_MAX {
        return Err(ParseError::TooLong(LENGTH_MAX));
    }
    let tokens = tokens(text)?;
    if tokens.is_empty() {
        return Ok(Check::True);
    }
    let mut parser = Parser { tokens: tokens.into_iter().peekable() };
    let check = parser.or(0)?;
    match parser.tokens.next() {
        None => Ok(check),
        token => Err(ParseError::Expected { expected: "'and', 'or' or the end", found: describe(token.as_ref()) }),
    }
}

/// The text of a rule in a file: a text, or a list of lists.
pub fn from_value(value: &Value) -> Result<String, ParseError> {
    let text = |v: &Value| v.as_str().map(str::to_owned).ok_or(ParseError::NotText);
    match value {
        Value::String(s) => Ok(s.clone()),
        Value::Null => Ok(String::new()),
        Value::Array(items) if items.is_empty() => Ok(String::new()),
        Value::Array(items) => {
            let mut alternatives = Vec::new();
            for item in items {
                match item {
                    Value::Array(all) if all.is_empty() => {}
                    Value::Array(all) => alternatives
                        .push(format!("({})", all.iter().map(text).collect::<Result<Vec<_>, _>>()?.join(" and "))),
                    other => alternatives.push(text(other)?),
                }
            }
            Ok(if alternatives.is_empty() { "!".to_owned() } else { alternatives.join(" or ") })
        }
        _ => Err(ParseError::NotText),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn and_binds_tighter_than_or() {
        let check = parse("role:a or role:b and not role:c").unwrap();
        let role = |s: &str| Check::Role(s.into());
        assert_eq!(check, Check::Or(vec![role("a"), Check::And(vec![role("b"), Check::Not(Box::new(role("c")))])]));
        assert_eq!(parse("((role:a))").unwrap(), role("a"));
        assert_eq!(parse("").unwrap(), Check::True);
        assert!(parse("role:a role:b").is_err());
        assert!(parse("(role:a").is_err());
        assert!(parse("http://example.org").is_err());
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused(text in "[ ()@!a-z:%.'\"_]{0,200}") {
            let _ = parse(&text);
        }

        #[test]
        fn deep_brackets_are_refused(n in 70usize..5000) {
            let text = format!("{}role:a{}", "(".repeat(n), ")".repeat(n));
            prop_assert!(parse(&text).is_err());
        }
    }
}
