//! Dictionaries in query strings: clients write them as Python does (`{'a': 'b'}`) or as JSON.
use std::collections::BTreeMap;

/// Pairs of one dictionary at most.
const PAIRS_MAX: usize = 64;

/// The pairs; `None` for what is no dictionary of texts.
pub fn dictionary(text: &str) -> Option<BTreeMap<String, String>> {
    let mut rest = Reader(text.trim());
    let mut pairs = BTreeMap::new();
    rest.take('{')?;
    while !rest.take_if('}') {
        let key = rest.word()?;
        rest.take(':')?;
        pairs.insert(key, rest.word()?);
        if !rest.take_if(',') {
            rest.take('}')?;
            break;
        }
        if pairs.len() > PAIRS_MAX {
            return None;
        }
    }
    rest.0.trim().is_empty().then_some(pairs)
}

struct Reader<'a>(&'a str);

impl Reader<'_> {
    fn take(&mut self, wanted: char) -> Option<()> {
        self.0 = self.0.trim_start().strip_prefix(wanted)?;
        Some(())
    }
    fn take_if(&mut self, wanted: char) -> bool {
        self.take(wanted).is_some()
    }
    /// A quoted text, a number, or True, False, None.
    fn word(&mut self) -> Option<String> {
        let text = self.0.trim_start();
        let text = text.strip_prefix('u').filter(|t| t.starts_with(['\'', '"'])).unwrap_or(text);
        let Some(quote) = text.chars().next().filter(|c| matches!(c, '\'' | '"')) else {
            let end = text.find([',', '}', ':']).unwrap_or(text.len());
            let word = text[..end].trim();
            self.0 = &text[end..];
            return (!word.is_empty() && !word.contains(['{', '\'', '"'])).then(|| word.to_owned());
        };
        let (mut word, mut escaped) = (String::new(), false);
        for (at, c) in text.char_indices().skip(1) {
            match c {
                _ if escaped => {
                    word.push(c);
                    escaped = false;
                }
                '\\' => escaped = true,
                c if c == quote => {
                    self.0 = &text[at + 1..];
                    return Some(word);
                }
                c => word.push(c),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_read_and_nothing_else() {
        let of = |text: &str| dictionary(text).map(|d| d.into_iter().collect::<Vec<_>>());
        let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        assert_eq!(of("{'a': 'b', u'c':'d\\'e'}"), Some(vec![pair("a", "b"), pair("c", "d'e")]));
        assert_eq!(of(r#"{"a": "b"}"#), Some(vec![pair("a", "b")]));
        assert_eq!(of("{'n': 5, 't': True,}"), Some(vec![pair("n", "5"), pair("t", "True")]));
        assert_eq!(of("{}"), Some(vec![]));
        for bad in ["", "a", "{'a'}", "{'a': 'b'", "{'a': 'b'} x", "{'a': {'b': 'c'}}", "{'a", "{:}"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
