//! Regular expressions of mappings: Python's, as far as they can be bounded.
//!
//! They run on what strangers send. Most compile to an automaton that takes linear time; those with
//! look-around or back-references count their steps, and a match that takes too many is an error, which
//! refuses the login.
use fancy_regex::{Regex, RegexBuilder};

/// Longest pattern, in bytes.
const PATTERN_MAX: usize = 1024;
/// Bytes of one compiled pattern.
const COMPILED_MAX: usize = 1 << 20;
const STEPS_MAX: usize = 100_000;

/// Python's spelling where it differs: `\Z` is the end of the text.
fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut escaped = false;
    for c in pattern.chars() {
        out.push(if escaped && c == 'Z' { 'z' } else { c });
        escaped = c == '\\' && !escaped;
    }
    out
}

pub(super) fn compile(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > PATTERN_MAX {
        return Err(format!("a regular expression has at most {PATTERN_MAX} bytes"));
    }
    RegexBuilder::new(&translate(pattern))
        .backtrack_limit(STEPS_MAX)
        .delegate_size_limit(COMPILED_MAX)
        .delegate_dfa_size_limit(COMPILED_MAX)
        .build()
        .map_err(|e| format!("the regular expression {pattern} cannot be used: {e}"))
}

/// Is `pattern` found anywhere in `text`?
pub(super) fn found(pattern: &Regex, text: &str) -> Result<bool, String> {
    pattern.is_match(text).map_err(|e| format!("a regular expression gave up: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_search_and_are_bounded() {
        let is = |pattern: &str, text: &str| found(&compile(pattern).unwrap(), text);
        assert_eq!(is("b", "abc"), Ok(true));
        assert_eq!(is("^b", "abc"), Ok(false));
        assert_eq!(is(r"c\Z", "abc"), Ok(true));
        assert_eq!(is(r"\\Z", r"a\Z"), Ok(true));
        assert_eq!(is("^(?!admin).*$", "administrator"), Ok(false));
        assert_eq!(is(r"(?P<x>a)(?P=x)", "aa"), Ok(true));
        assert!(compile("[").is_err());
        assert!(compile(&"a".repeat(PATTERN_MAX + 1)).is_err());
        let text = "a".repeat(60);
        assert!(is(r"(a|aa)+(?=b)\1$", &text).is_err(), "too many steps");
        assert_eq!(is(r"^(a+)+$", &format!("{text}b")), Ok(false), "linear");
    }
}
