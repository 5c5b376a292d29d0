//! Request tracing: W3C trace context in and out, and the span that every line of a request's log carries.
//!
//! `traceparent: 00-<trace id>-<parent id>-<flags>` of the client is taken over; a request without one starts a trace.
//! The answer names our own span, so that a caller can find it in the log. With `log_format = "json"` each line has
//! `trace_id` and `request_id` as fields; collectors read them from there.
use http::HeaderMap;
use std::fmt;

pub const HEADER: &str = "traceparent";

/// Where a request stands in its trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// 32 hex digits.
    pub trace_id: String,
    /// 16 hex digits: ours.
    pub span_id: String,
    /// 16 hex digits: the client's; "" when it named none.
    pub parent_id: String,
    pub sampled: bool,
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled))
    }
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn is_id(text: &str, length: usize) -> bool {
    is_hex(text, length) && text.bytes().any(|b| b != b'0')
}

/// (trace id, parent id, sampled); `None` for what the specification says to ignore.
fn parse(text: &str) -> Option<(String, String, bool)> {
    let mut parts = text.trim().split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    // Version ff is no version; a later one than ours may have more parts, and these four.
    let known = is_hex(version, 2) && version != "ff" && (version != "00" || parts.next().is_none());
    if !known || !is_id(trace, 32) || !is_id(parent, 16) || !is_hex(flags, 2) {
        return None;
    }
    let sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
    Some((trace.to_owned(), parent.to_owned(), sampled))
}

impl Trace {
    /// Goes on with the client's trace, or begins one.
    pub fn of(headers: &HeaderMap) -> Self {
        let given = headers.get(HEADER).and_then(|v| v.to_str().ok()).and_then(parse);
        let (trace_id, parent_id, sampled) = given.unwrap_or_else(|| (crate::id::hex(), String::new(), true));
        Trace { trace_id, span_id: crate::id::hex()[..16].to_owned(), parent_id, sampled }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &str) -> Trace {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, value.parse().unwrap());
        Trace::of(&headers)
    }

    #[test]
    fn good_parents_are_taken_over_and_bad_ones_ignored() {
        let good = of("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        assert_eq!(
            (good.trace_id.as_str(), good.parent_id.as_str()),
            ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
        );
        assert!(good.sampled && is_id(&good.span_id, 16) && good.span_id != good.parent_id);
        assert!(good.to_string().starts_with("00-0af7651916cd43dd8448eb211c80319c-"));
        assert_eq!(of("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what").parent_id, "b7ad6b7169203331");
        for bad in [
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "nonsense",
            "",
        ] {
            assert_eq!(of(bad).parent_id, "", "{bad}");
        }
    }
}
